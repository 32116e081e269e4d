"""What a run chooses where its settings leave it open: batches by device, memory and number of images."""

import pytest
import torch

from odkit.detection import choose_workers, loading
from odkit.runs.settings import Settings
from odkit.training.distributed import local_world_size
from odkit.training.recipe import choose

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
