"""Settings and the recipe: one list of options, checked once; what is left open is chosen with a reason."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from odkit.detection.detector import build_detector
from odkit.runs.run import create_run
from odkit.runs.settings import (
    MAY_CHANGE,
    Settings,
    check_resume,
    fitting_epochs,
    make_settings,
    resumed_settings,
    with_epochs,
)
from odkit.system import InputError, machine
from odkit.training.recipe import Choices, choose, make_optimizer, schedule
from tests.helpers import squares


def test_wrong_settings_are_all_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"epochs must be 0 or more, not -1; .*augment must be one of"):
        make_settings({"epochs": -1, "augment": "wild"})
    with pytest.raises(ValueError, match="micro_batch_size"):
        Settings(batch_size=4, micro_batch_size=8)
    with pytest.raises(ValueError, match="tiles must be -1, 0 or 64 pixels and more, not 10"):
        Settings(tiles=10)
    with pytest.raises(ValueError, match="evenly"):
        Settings(batch_size=5, processes=2)
    with pytest.raises(ValueError, match="device 'cuda:1' is one GPU, and 2 processes want one each"):
        Settings(device="cuda:1", processes=2)
    with pytest.raises(TypeError, match="did you mean 'epochs'"):
        make_settings({"epoch": 3})
    with pytest.raises(TypeError, match=r"there is no setting '\?'\. Settings: detector, "):
        make_settings({"?": 3})  # nothing is near it


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number, not nan"),
        ({"clip": float("inf")}, "clip must be a finite number, not inf"),
        ({"learning_rate": "x"}, "learning_rate must be a number, not 'x'"),
        ({"epochs": 2.5}, "epochs must be a whole number, not 2.5"),
        ({"epochs": True}, "epochs must be a whole number, not True"),
        ({"epochs": 10**30}, "epochs must be a number up to"),
        ({"seed": 2**70}, "seed must be a number up to 9,223,372,036,854,775,807"),
        ({"compile": "no"}, "compile must be True or False, not 'no'"),
        ({"detector": None}, "detector must be a text, not None"),
        ({"weights": "a\udcff"}, "weights must be a text"),
        ({"weight_decay": -5}, "weight_decay must be -1 or 0 and more, not -5"),
        ({"image_size": 1}, "image_size must be 0 or 64 pixels and more, not 1"),
        ({"device": "foo"}, 'device must be "auto", "cpu"'),
        ({"batch_size": 3, "processes": 0}, "processes must be 1 or more, not 0"),
    ],
    ids=str,
)
def test_a_setting_is_of_its_kind_and_finite(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        make_settings(given)
    assert said in str(error.value)


def test_numbers_of_numpy_and_paths_are_taken_as_what_they_are(tmp_path: Path) -> None:
    numbers = {"epochs": np.int64(3), "learning_rate": np.float32(0.5), "compile": np.True_, "minutes": 2}
    made = make_settings({**numbers, "weights": tmp_path / "mine.pth"})
    kinds = [type(getattr(made, name)) for name in (*numbers, "weights")]
    assert kinds == [int, float, bool, float, str]
    assert make_settings(made.to_dict()) == made


def test_what_this_machine_cannot_hold_is_refused_with_the_figures(tmp_path: Path) -> None:
    dataset = squares(tmp_path / "images")
    cores = machine.cpu_count()
    for wanted, said in (
        ({"num_workers": 100 * cores}, f"with {cores} cores, {max(16, 4 * cores)} in all are the most here"),
        (
            {"batch_size": 10**8},
            r"batch_size is 100,000,000: .* this machine has [\d.]+ GB; at most [\d,]+$",
        ),
        ({"weights": str(tmp_path / "gone.pth")}, "there is no file"),
    ):
        settings = make_settings({"epochs": 1, **wanted})
        with pytest.raises(InputError, match=said):
            create_run(dataset, settings, tmp_path / "runs")
        assert not (tmp_path / "runs").exists()
        assert create_run(dataset, settings, tmp_path / "there", elsewhere=True).state == "new"


def test_a_resume_may_change_little() -> None:
    old = Settings(epochs=3)
    assert check_resume(old, Settings(epochs=5, num_workers=0)) == {"epochs": (3, 5), "num_workers": (-1, 0)}
    with pytest.raises(ValueError, match=r"learning_rate \(0.0 to 0.1\)"):
        check_resume(old, Settings(epochs=3, learning_rate=0.1))
    assert set(MAY_CHANGE) <= {field.name for field in dataclasses.fields(Settings)}


def test_epochs_take_the_place_of_a_budget() -> None:
    budgeted = Settings(minutes=30)
    assert resumed_settings(budgeted, {"epochs": 50}) == Settings(epochs=50)
    assert resumed_settings(budgeted, {"minutes": 60}) == Settings(minutes=60)
    assert resumed_settings(budgeted, {"minutes": 60, "epochs": 50}) == Settings(minutes=60, epochs=50)
    assert resumed_settings(budgeted, {"keep": 3}) == Settings(minutes=30, keep=3)
    assert resumed_settings(budgeted, {}) == budgeted


@pytest.mark.parametrize(
    ("images", "epochs"),
    [(0, 60), (1, 60), (75, 60), (100, 45), (250, 18), (375, 12), (417, 12), (100_000, 12)],
)
def test_epochs_fit_the_number_of_images(images: int, epochs: int) -> None:
    """4500 images seen, but never under 12 epochs nor over 60."""
    assert fitting_epochs(images) == epochs


def test_epochs_are_filled_in_where_they_were_left_open() -> None:
    assert with_epochs(Settings(keep=3), 100) == Settings(keep=3, epochs=45)
    assert with_epochs(Settings(minutes=30), 100) == Settings(minutes=30, epochs=45)
    assert with_epochs(Settings(epochs=7), 100) == Settings(epochs=7)


def test_a_run_says_how_many_epochs_it_has(tmp_path: Path) -> None:
    dataset = squares(tmp_path / "images")
    given = {
        epochs: create_run(dataset, Settings(epochs=epochs), tmp_path / "runs").config for epochs in (0, 5)
    }
    fitting = fitting_epochs(dataset.split_counts()["train"])
    assert (given[0]["settings"]["epochs"], given[0]["chosen"]) == (fitting, ["epochs"])
    assert (given[5]["settings"]["epochs"], given[5]["chosen"]) == (5, [])


def test_what_is_chosen_has_a_reason() -> None:
    choices = choose(Settings(), torch.device("cpu"), images=100)
    assert (choices.batch_size, choices.precision, choices.optimizer) == (4, "fp32", "adamw")
    assert choices.image_size == 320
    assert choices.learning_rate == pytest.approx(2.5e-4)
    assert choices.augment == "flip"
    assert choose(Settings(epochs=24), torch.device("cpu"), images=100).augment == "strong"
    assert {"augment", "batch_size", "optimizer", "learning_rate", "precision"} <= set(choices.reasons)
    assert choose(Settings(), torch.device("cpu"), images=3).batch_size == 3
    chosen = choose(Settings(detector="fcos_resnet50_fpn", batch_size=32), torch.device("cpu"), images=100)
    assert chosen.learning_rate == pytest.approx(0.02)


def test_the_rate_rises_and_falls() -> None:
    shares = [schedule(step, 100, 0.1) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9] == pytest.approx(1.0)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert 0.009 < shares[-1] < 0.02
    assert schedule(0, 1, 0.0) > 0


def test_norms_do_not_decay_and_depth_lowers_the_rate() -> None:
    detector = build_detector("starter", ["a"], weights="random")
    choices = Choices(
        batch_size=8,
        micro_batch_size=8,
        image_size=64,
        optimizer="adamw",
        learning_rate=1.0,
        weight_decay=0.1,
        precision="fp32",
        augment="flip",
    )
    groups = make_optimizer(detector, choices, 0.5).param_groups
    rates = {id(p): group["peak"] for group in groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = dict(detector.named_parameters())
    assert len(rates) == len(named)
    first, head = (
        named["module.backbone.body.stem.conv.weight"],
        named["module.head.classes.weight"],
    )
    assert rates[id(first)] < rates[id(head)] == 1.0
    assert decays[id(head)] == 0.1
    assert decays[id(named["module.head.classes.bias"])] == 0.0
