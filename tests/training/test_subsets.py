"""The runs of a learning curve: nested parts, the same recipe, and what an interruption leaves."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

import odkit as od
from odkit.cli import main
from odkit.data.dataset import Dataset
from odkit.runs.run import Run, list_runs
from odkit.runs.settings import Settings
from odkit.runs.worker import RunError
from odkit.system import InputError
from odkit.training.subsets import CurvePlan, nested_order, plan_learning_curve
from tests.helpers import make_dataset, squares, until, worker_pid

BOX = (10, 10, 50, 50)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return squares(tmp_path_factory.mktemp("squares"), 54)  # 40 to train on


def planned(dataset: Dataset, folder: Path, settings: Settings | None = None, **more: object) -> CurvePlan:
    return plan_learning_curve(dataset, settings or Settings(epochs=6), folder=folder, **more)  # type: ignore[arg-type]


def trained_on(run: Run) -> set[str]:
    return set(run.dataset("train").image_ids)


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_each_part_is_within_the_next_and_judged_on_the_same(dataset: Dataset, tmp_path: Path) -> None:
    plan = planned(dataset, tmp_path)
    assert [run.name for run in plan.runs] == [f"{share}-percent-seed-0" for share in (100, 50, 25, 10)]
    parts = [trained_on(run) for run in plan.runs]
    whole = len(dataset.split("train"))
    assert [len(part) for part in parts] == [whole, round(whole / 2), round(whole / 4), round(whole / 10)]
    assert parts[0] == set(dataset.split("train").image_ids)
    assert parts[0] > parts[1] > parts[2] > parts[3]
    val = list(dataset.split("val").image_ids)
    assert [list(run.dataset("val").image_ids) for run in plan.runs] == [val] * 4
    assert all(run.path.parent == plan.path for run in list_runs(plan.path))


def test_several_seeds_are_several_draws(dataset: Dataset, tmp_path: Path) -> None:
    first, second = planned(dataset, tmp_path / "a", seeds=2), planned(dataset, tmp_path / "b", seeds=2)
    assert [trained_on(run) for run in first.runs] == [trained_on(run) for run in second.runs]
    half, other_half = first.runs[2:4]
    assert (half.settings.seed, other_half.settings.seed) == (0, 1)
    assert trained_on(half) != trained_on(other_half)
    # the first draw is that of a curve with one
    assert planned(dataset, tmp_path / "a").runs[1].path == half.path


@pytest.mark.parametrize("seed", range(5))
def test_every_beginning_of_the_order_is_like_the_whole(seed: int) -> None:
    # 100 images with a nut each, 20 of them with a bolt beside it, 3 with a washer; 40 without boxes
    rows = [(k, 0, BOX) for k in range(100)] + [(k, 1, BOX) for k in range(20)]
    rows += [(k, 2, BOX) for k in range(18, 21)]
    data = make_dataset(rows, images=140, names=("nut", "bolt", "washer", "never seen"))
    order = nested_order(data, seed=seed)
    assert sorted(order.tolist()) == list(range(140))
    assert order.tolist() == nested_order(data, seed=seed).tolist()
    assert order.tolist() != nested_order(data, seed=seed + 1).tolist()
    assert {0, 1, 2} == set(data.select(order[:2]).box_classes.tolist()) or order[0] in (18, 19, 20)
    for share in (0.1, 0.25, 0.5):
        part = data.select(order[: round(share * 140)])
        counts = part.class_counts()
        assert abs(counts["nut"] - share * 100) <= 4
        assert abs(counts["bolt"] - share * 20) <= 3
        assert counts["washer"] >= 1
        assert abs((part.boxes_per_image() == 0).sum() - share * 40) <= 3


def test_each_part_has_as_many_steps_and_is_judged_as_often(dataset: Dataset, tmp_path: Path) -> None:
    settings = Settings(epochs=6, evaluate_every=2, patience=3, freeze_epochs=1, learning_rate=0.001)
    plan = planned(dataset, tmp_path, settings)
    rows = [
        (run.settings.epochs, run.settings.evaluate_every, run.settings.patience, run.settings.freeze_epochs)
        for run in plan.runs
    ]
    assert rows == [(6, 2, 3, 1), (12, 4, 6, 2), (24, 8, 12, 4), (60, 20, 30, 10)]
    assert plan.runs[0].settings == dataclasses.replace(settings, image_size=320, tiles=0, augment="flip")
    assert {run.settings.learning_rate for run in plan.runs} == {0.001}
    assert plan.notes == ()
    # a twentieth has ten times the epochs, not twenty, and that is said
    small = squares(tmp_path / "many", 110)
    plan = planned(small, tmp_path, fractions=(0.05, 0.5))
    assert plan.runs[-1].settings.epochs == 60
    assert "5% of the training images (4) have 10 times the epochs of the whole" in plan.notes[0]


def test_all_parts_have_the_recipe_of_the_whole(dataset: Dataset, tmp_path: Path) -> None:
    """By itself, a part with many epochs would be zoomed, and one with few boxes seen at another size."""
    plan = planned(dataset, tmp_path, Settings(epochs=6))
    for run in plan.runs:
        chosen = (run.settings.augment, run.settings.image_size, run.settings.tiles)
        assert chosen == ("flip", 320, 0)


def test_parts_that_make_no_sense_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    plan = planned(squares(tmp_path / "few", 30), tmp_path)  # 22 to train on
    assert [len(trained_on(run)) for run in plan.runs] == [22, 11, 6]
    assert plan.notes == ("10% of the training images (2) left out: fewer than a batch of 4.",)
    # as many classes as images, each with an image of its own
    many = squares(tmp_path / "classes", 40)
    train = many.image_splits[many.box_images] == "train"
    classes = np.where(train, many.box_images, 0)
    many = many.replace(class_names=[f"part {k}" for k in range(40)], box_classes=classes)
    with pytest.raises(
        InputError, match=r"too few for a learning curve .* 3 points and this makes 1\. 50% .*missing"
    ):
        planned(many, tmp_path)


WRONG = {
    "seeds must be 1 or more, not 0": {"seeds": 0},
    "above 0 and up to 1, not 1.5": {"fractions": (0.5, 1.5)},
    "above 0 and up to 1, not 0": {"fractions": (0, 0.5)},
    "too few for a learning curve": {"fractions": (0.5,)},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_mistake_is_told_before_anything_is_made(message: str, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        od.learning_curve(dataset, folder=tmp_path / "runs", **WRONG[message])  # type: ignore[arg-type]
    assert not (tmp_path / "runs").exists()


def test_nothing_to_judge_by(dataset: Dataset, tmp_path: Path) -> None:
    bare = dataset.select_boxes(dataset.image_splits[dataset.box_images] == "train")
    with pytest.raises(InputError, match="'val' split of squares has no boxes"):
        planned(bare, tmp_path)


# -- what is there is gone on with -------------------------------------------------------------------------------------


def test_the_folders_are_found_again(dataset: Dataset, tmp_path: Path) -> None:
    plan = planned(dataset, tmp_path)
    assert "4 of 4 runs to train" in plan.outlook()
    assert f"all {len(dataset.split('train'))} training images" in plan.outlook()
    half_made = plan.runs[1]
    (half_made.path / "config.json").unlink()  # killed while the folder was being made
    made = {
        run.path: (run.path / "config.json").stat().st_mtime_ns for run in plan.runs if run is not half_made
    }
    again = planned(dataset, tmp_path, Settings(epochs=6, num_workers=0))  # how it is loaded changes nothing
    assert [run.path for run in again.runs] == [run.path for run in plan.runs]
    assert trained_on(again.runs[1]) > trained_on(again.runs[2])
    assert all((path / "config.json").stat().st_mtime_ns == time for path, time in made.items())


def test_another_curve_in_that_folder_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    planned(dataset, tmp_path, name="mine")
    with pytest.raises(RunError, match=r"something else: 100-percent-seed-0 has epochs 6 \(now 7\)"):
        planned(dataset, tmp_path, Settings(epochs=7), name="mine")
    with pytest.raises(RunError, match="has other images or labels"):
        planned(dataset.select(np.arange(len(dataset)) > 0), tmp_path, name="mine")
    assert planned(dataset, tmp_path, Settings(epochs=7)).path.parent == tmp_path


@pytest.mark.worker
def test_after_a_kill_it_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command and its worker are killed in the second of three runs."""
    dataset = squares(tmp_path / "squares", 22)  # 16 to train on, in batches of 4
    data, runs = dataset.save(tmp_path / "squares.npz"), tmp_path / "runs"
    quick = {"epochs": 2, "image_size": 64, "num_workers": 0, "batch_size": 4}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in quick.items()]
    line = ["learning-curve", str(data), "--folder", str(runs), "--fractions", "0.25", "0.5", *flags]
    process = subprocess.Popen(
        [sys.executable, "-m", "odkit", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(od.__file__).parents[1],
    )
    until(lambda: len(list(runs.glob("*/*/config.json"))) == 3, process=process)
    parts = {"fractions": (0.25, 0.5), "folder": runs}
    first, second, third = planned(dataset, runs, Settings(**quick), fractions=(0.25, 0.5)).runs
    until(lambda: len(second.checkpoints()) >= 2, seconds=400, process=process)
    process.kill()
    os.kill(worker_pid(second), signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    until(lambda: not second.alive)
    assert "3 of 3 runs to train" in out
    assert "2 of 3 runs to train" in out
    assert (first.state, second.state, third.state) == ("finished", "died", "new")
    before = len(first.events(raw=True))

    curve = od.learning_curve(dataset, **parts, **quick)  # type: ignore[arg-type]
    assert "2 of 3 runs to train" in capsys.readouterr().out
    assert len(first.events(raw=True)) == before
    starts = [event for event in second.events(raw=True) if event["event"] == "start"]
    assert [event["from_step"] > 0 for event in starts] == [False, True]
    assert [len(run.history()) for run in (first, second, third)] == [2, 4, 8]
    assert [point.images for point in curve.points] == [4, 8, 16]
    bests = [run.best["ap"] for run in (third, second, first)]
    assert [point.ap for point in curve.points] == pytest.approx(bests, abs=1e-9)
    assert [point.runs for point in curve.points] == [(run.path,) for run in (third, second, first)]
    saved = orjson.loads((first.path.parent / "learning_curve.json").read_bytes())
    assert saved == orjson.loads(orjson.dumps(curve.to_dict()))

    # the command finds everything done
    assert main([*line, "--json", "--figure", str(tmp_path / "curve.png")]) == 0
    assert orjson.loads(capsys.readouterr().out) == saved
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert main(line) == 0
    assert repr(curve) in capsys.readouterr().out
    assert len(first.events(raw=True)) == before
