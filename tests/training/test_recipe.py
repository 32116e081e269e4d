"""What a run chooses where its settings leave it open: batches by device, memory and number of images."""

import dataclasses
from typing import Any

import pytest
import torch

from odkit.detection import build_detector, choose_workers, loading
from odkit.runs.settings import Settings
from odkit.training.distributed import local_world_size
from odkit.training.recipe import choose, make_optimizer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "images", "fitting", "batch"),
    [
        (CPU, 5_000, None, 4),
        (CUDA, 5_000, None, 16),
        (CUDA, 5_000, 200, 64),  # more than that learns no better
        (CUDA, 5_000, 40, 32),  # a power of two that its memory holds
        (CUDA, 2_000, 200, 32),  # fifty steps an epoch
        (CUDA, 300, 200, 16),
        (CUDA, 5_000, 5, 16),  # in parts that fit, accumulated
        (CUDA, 10, 200, 10),
    ],
)
def test_the_batch_suits_device_memory_and_number_of_images(
    device: torch.device, images: int, fitting: int | None, batch: int
) -> None:
    choices = choose(Settings(precision="fp32"), device, images, fitting)
    assert choices.batch_size == batch
    if fitting:
        assert f"holds about {fitting} at once" in choices.reasons["batch_size"]


def test_a_batch_that_was_set_stays() -> None:
    assert choose(Settings(precision="fp32", batch_size=24), CUDA, 5_000, 200).batch_size == 24


READ = [
    "a",
    "Q",
    "7",
    "12",
    "0042",
    "letter A",
    "Letters",
    "digit",
    "digits 0-9",
    "hand-written text",
    " word ",
]


@pytest.mark.parametrize("name", [*READ, "turn left", "right_arrow", "left-hand glove"])
def test_what_a_mirror_makes_another_class_is_not_mirrored(name: str) -> None:
    choices = choose(Settings(), CPU, 100, class_names=("cat", name, "dog"))
    assert choices.orientation == "upright"
    assert repr(name) in choices.reasons["orientation"]


@pytest.mark.parametrize(
    "name", ["cat", "ace", "seven", "stop sign", "licence plate", "password", "textile", "rightful", "ab"]
)
def test_what_stays_what_it_is_in_a_mirror_is_mirrored(name: str) -> None:
    choices = choose(Settings(), CPU, 100, class_names=("dog", name))
    assert choices.orientation == "mirror"
    assert "mirror" in choices.reasons["orientation"]


@pytest.mark.parametrize("orientation", ["upright", "mirror", "turn", "any"])
def test_an_orientation_that_was_set_stays(orientation: Any) -> None:
    choices = choose(Settings(orientation=orientation), CPU, 100, class_names=("letter A",))
    assert choices.orientation == orientation
    assert "orientation" not in choices.reasons


@pytest.mark.parametrize(
    ("weights", "optimizer", "backbone_rate", "decay"),
    [("pretrained", "auto", 0.1, 1.25e-4), ("random", "auto", 1.0, 1.25e-4), ("random", "sgd", 1.0, 1e-4)],
)
def test_a_pre_trained_backbone_has_its_authors_rate(
    weights: str, optimizer: str, backbone_rate: float, decay: float
) -> None:
    settings = Settings(detector="dfine_medium", precision="fp32", weights=weights, optimizer=optimizer)  # type: ignore[arg-type]
    choices = choose(settings, CPU, 100)
    assert choices.backbone_rate == backbone_rate
    assert ("backbone_rate" in choices.reasons) == (backbone_rate != 1)
    assert choices.weight_decay == decay
    assert choose(dataclasses.replace(settings, weight_decay=0.5), CPU, 100).weight_decay == 0.5
    detector = build_detector("dfine_nano", ["a"], weights="random")
    groups = make_optimizer(detector, choices, 1.0).param_groups
    rates = {id(p): group["peak"] / choices.learning_rate for group in groups for p in group["params"]}
    for name, parameter in detector.named_parameters():
        inside = name.startswith("module.model.backbone.model.")
        assert rates[id(parameter)] == pytest.approx(backbone_rate if inside else 1.0), name


def test_rates_fall_stage_by_stage_in_every_family() -> None:
    choices = choose(Settings(detector="dfine_nano", weights="random", precision="fp32"), CPU, 100)
    detector = build_detector("dfine_nano", ["a"], weights="random")
    groups = make_optimizer(detector, choices, 0.5).param_groups
    rates = {id(p): group["peak"] / choices.learning_rate for group in groups for p in group["params"]}
    named = dict(detector.module.named_parameters())
    stages = ["embedder.stem1.", *(f"encoder.stages.{number}." for number in range(4))]
    of_stages = [
        {rates[id(p)] for name, p in named.items() if name.startswith(f"model.backbone.model.{stage}")}
        for stage in stages
    ]
    assert of_stages == [{0.5**5}, {0.5**4}, {0.5**3}, {0.5**2}, {0.5}]
    assert rates[id(named["model.decoder.class_embed.0.weight"])] == 1


def test_workers_are_counted_against_this_machines_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight machines of eight GPUs and 64 cores each: the cores are shared by eight processes, not by 64."""
    monkeypatch.setenv("WORLD_SIZE", "64")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setattr(loading, "cpu_count", lambda: 64)
    wanted = []
    monkeypatch.setattr(
        loading, "workers_that_fit", lambda workers, size, **_: (wanted.append(workers) or workers, "")
    )
    workers, reason = choose_workers(-1, batch_size=16, image_size=1024, processes=local_world_size())
    assert workers == 7  # and a core for the process that trains
    assert wanted == [56], "shared memory is this machine's too"
    assert reason == "64 cores for 8 process(es)"
