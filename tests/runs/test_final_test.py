"""The test images: judged once by what the run was judged with, written down, and never in silence a second time."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest

from odkit.analysis import evaluate
from odkit.data.audit import repaired
from odkit.data.dataset import Dataset
from odkit.data.formats import write_dataset
from odkit.data.images import ImageReadError
from odkit.detection.detector import build_detector, save_detector
from odkit.detection.inference import predict
from odkit.runs.final_test import FinalTest
from odkit.runs.run import Run, create_run, runs_html
from odkit.runs.settings import Settings
from odkit.runs.worker import RunError, hold_lock
from tests.helpers import squares, trained


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return squares(tmp_path_factory.mktemp("data") / "images", 24, val=0).with_splits(val=0.25, test=0.25)


@pytest.fixture(scope="module")
def made(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("made")
    return trained(dataset, folder, "one", weights="pretrained", epochs=1, precision="bf16", device="cpu")


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    return Run(shutil.copytree(made.path, tmp_path / "runs" / "one"))


@pytest.fixture
def other(tmp_path: Path) -> Dataset:
    """Images that the run has not seen."""
    return squares(tmp_path / "other", 6, val=0, seed=5)


def put_another_detector(run: Run, epoch: int) -> None:
    """As a resume leaves it whose best epoch is a later one."""
    detector = build_detector("starter", run.class_names, weights="random", image_size=64)
    save_detector(detector, run.path / "detector.safetensors")
    figures = orjson.loads((run.path / "evaluation.json").read_bytes())
    (run.path / "evaluation.json").write_bytes(orjson.dumps({**figures, "epoch": epoch, "ap": 0.75}))


def test_it_is_the_best_detector_on_the_images_set_aside(run: Run, dataset: Dataset) -> None:
    import torch

    test = run.test()
    held = dataset.split("test")
    found = predict(run.detector(device="cpu"), held, precision=torch.bfloat16)
    plain = evaluate(held, found)
    assert test.ap == test.figures["ap"] == pytest.approx(plain.ap, abs=1e-6)
    assert test.figures["ap50"] == pytest.approx(plain.ap50, abs=1e-6)
    assert test.intervals.to_dict() == plain.intervals().to_dict()
    assert test.interval[0] <= test.ap <= test.interval[1]
    assert (test.images, test.boxes, test.look) == (len(held), held.num_boxes, 1)
    assert (test.device, test.precision, test.image_size) == ("cpu", "bf16", 64)
    assert (test.dataset, test.fingerprint) == ("squares, test", held.fingerprint())
    assert (test.epoch, test.validation_ap) == (run.best["epoch"], run.best["ap"])


def test_it_says_what_a_score_finds(run: Run, dataset: Dataset) -> None:
    import torch

    test = run.test()
    held = dataset.split("test")
    plain = evaluate(held, predict(run.detector(device="cpu"), held, precision=torch.bfloat16))
    score = run.evaluation().best_score
    counts = plain.per_image(score)
    true, false = counts.true_positives.sum(), counts.false_positives.sum()
    assert test.score == score
    assert test.found == pytest.approx(true / held.num_boxes)
    assert test.right == (None if not true + false else pytest.approx(true / (true + false)))
    assert f"At score {score:.2f}, the best on the validation images, {test.found:.0%} of the boxes" in repr(
        test
    )
    old = test.to_dict()
    for name in ("score", "found", "right"):  # as it was written down before it said so
        del old[name]
    assert "At score" not in repr(FinalTest.from_dict(old))


def test_the_report_tells_of_it(run: Run) -> None:
    page = run.path / "report.html"
    assert "No test images were looked at." in page.read_text()  # written when the training ended
    low, high = run.test().interval
    assert "No test images were looked at." not in page.read_text()
    assert f"{low:.3f} to {high:.3f}" in page.read_text()
    page.unlink()
    run.test()  # nothing new
    assert not page.exists()


def test_it_is_looked_at_once_and_written_down(run: Run, dataset: Dataset) -> None:
    test = run.test()
    assert [one.to_dict() for one in run.tests()] == [test.to_dict()]
    written = (run.path / "test.json").read_bytes()
    away = dataset.root.with_name("away")
    dataset.root.rename(away)  # nothing is left to look at
    try:
        again = Run(run.path).test()
    finally:
        away.rename(dataset.root)
    assert again.to_dict() == test.to_dict()
    assert repr(again) == repr(test)
    assert (run.path / "test.json").read_bytes() == written
    assert run.test(dataset.split("test")).look == 1  # the very same images, named


def test_another_detector_is_a_second_look_and_says_so(run: Run) -> None:
    first = run.test()
    put_another_detector(run, 2)
    second = run.test()
    assert (second.epoch, second.validation_ap, second.look) == (2, 0.75, 2)
    assert second.ap != first.ap
    assert "Look" not in repr(first)
    assert "Look 2 at these images" in repr(second)
    assert [one.to_dict() for one in run.tests()] == [first.to_dict(), second.to_dict()]
    assert run.test().to_dict() == second.to_dict()


def test_the_runs_beside_it_have_looked_too(run: Run) -> None:
    beside = Run(shutil.copytree(run.path, run.path.with_name("two")))
    assert [run.test().look, beside.test().look] == [1, 2]
    assert [run.test().look, beside.test().look] == [1, 2]


def test_the_run_shows_it_beside_what_validation_said(run: Run) -> None:
    before = run.summary()
    assert (before["test_ap"], before["test_low"], before["test_high"]) == (None, None, None)
    assert "test AP" not in repr(run)
    test = run.test()
    low, high = test.interval
    after = run.summary()
    assert after == {**before, "test_ap": test.ap, "test_low": low, "test_high": high}
    text = f"{test.ap:.3f} ({low:.3f} to {high:.3f})"
    assert repr(run).endswith(
        f"best val AP {run.best['ap']:.3f}, AP50 {run.best['ap50']:.3f}, test AP {text}"
    )
    assert f">{text}<" in runs_html([run])
    assert ">val ap<" in runs_html([run])


def test_a_figure_of_another_detector_is_not_shown_as_the_best_ones(run: Run) -> None:
    put_another_detector(run, 2)
    run.test()
    assert run.summary()["test_ap"] is None  # the events know of no such epoch


def test_it_shows_itself_as_text_html_and_json(run: Run) -> None:
    test = run.test()
    text, html = repr(test), test._repr_html_()
    assert text.startswith(
        f"Test of 'one', epoch 1, on squares, test: {test.images} images, {test.boxes} boxes"
    )
    assert f"{test.ap:.3f} ({test.interval[0]:.3f} to {test.interval[1]:.3f})" in text
    assert "The validation images, which chose the epoch, said AP " in text
    assert html.startswith("<table>")
    assert ">blue<" in html
    plain = orjson.loads(orjson.dumps(test.to_dict()))
    assert plain["intervals"]["per_class"][1]["class"] == "red"
    assert plain["date"] == test.date


# -- other images ------------------------------------------------------------------------------------------------------


def test_other_images_are_matched_by_class_name_and_kept_beside(run: Run, other: Dataset) -> None:
    own = run.test()
    straight = run.test(other)
    assert (straight.dataset, straight.images, straight.look) == ("squares", 6, 1)
    turned = other.replace(class_names=("none", "red", "blue"), box_classes=2 - other.box_classes)
    assert run.test(turned).to_dict() == straight.to_dict()  # the same images and boxes
    assert [test.dataset for test in run.tests()] == ["squares, test", "squares"]
    assert run.summary()["test_ap"] == own.ap
    reds = other.select_boxes(other.box_classes == 1)
    fewer = reds.replace(class_names=("red",), box_classes=np.zeros(reds.num_boxes, int))
    test = run.test(fewer)  # without a class that the run knows
    assert [np.isnan(row["ap"]) for row in test.intervals.per_class] == [True, False]
    assert test.ap == test.intervals.per_class[1]["ap"]


def test_other_images_come_from_a_folder_too(run: Run, other: Dataset, tmp_path: Path) -> None:
    folder = write_dataset(other, tmp_path / "folder")
    whole = run.test(folder)
    assert whole.images == 6
    assert whole.figures == run.test(other).figures
    held = other.replace(image_splits=np.array(["train"] * 3 + ["test"] * 3, object))
    part = run.test(write_dataset(held, tmp_path / "split"))
    assert (part.images, part.dataset) == (3, "split, test")


OTHERS: dict[str, tuple[Callable[[Dataset, Dataset], Dataset], str]] = {
    "trained on": (
        lambda own, _: own.replace(image_splits=None),
        "trained on 18 of the 24 images of squares",
    ),
    "chose the epoch": (
        lambda own, _: own.split("val"),
        "trained on 6 of the 6 images of squares, or chose its",
    ),
    "several splits": (
        lambda _, other: other.with_splits(val=0.5),
        "train, val and no 'test': say which images",
    ),
    "unknown class": (
        lambda _, other: other.replace(class_names=("blue", "green")),
        "boxes of 'green', which one has not learned; its classes are blue, red",
    ),
    "no boxes": (lambda _, other: other.select_boxes([]), "dataset without a box"),
    "no images": (lambda _, other: other.select([]), "dataset without a box"),
    "faults": (
        lambda _, other: other.replace(boxes=other.boxes[:, [2, 3, 0, 1]]),
        "12 findings with which training would crash or go wrong",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_images_that_say_nothing_are_refused(
    case: str, run: Run, dataset: Dataset, other: Dataset
) -> None:
    change, message = OTHERS[case]
    given = change(dataset, other)
    with pytest.raises(ValueError, match=message):
        run.test(given)
    assert run.tests() == []
    if case == "faults":
        assert run.test(repaired(given)).images == 6


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_run_without_test_images_says_how_to_get_some(dataset: Dataset, run: Run, tmp_path: Path) -> None:
    (run.path / "test.npz").unlink()
    with pytest.raises(
        RunError, match=r"had no 'test' split .*with_splits\(val=0.2, test=0.2\).*odkit test .* --data"
    ):
        run.test()
    config = orjson.loads((run.path / "config.json").read_bytes())
    config["settings"]["val_split"] = "test"
    (run.path / "config.json").write_bytes(orjson.dumps(config))
    with pytest.raises(RunError, match="trained on its 'test' split, or chose its epoch by it"):
        run.test()


def test_a_run_that_is_not_done_is_not_tested(dataset: Dataset, run: Run, tmp_path: Path) -> None:
    handle = hold_lock(run.path)
    try:
        with pytest.raises(RunError, match=r"one is running, .*test it when it has ended \(odkit stop"):
            run.test()
    finally:
        os.close(handle or -1)
    with pytest.raises(RunError, match=r"new has no detector yet: .* \(new\)"):
        create_run(dataset, Settings(), tmp_path, "new").test()
    assert run.tests() == []


def test_what_is_broken_off_has_not_been_looked_at(run: Run, dataset: Dataset) -> None:
    last = Path(dataset.split("test").image_paths[-1])
    away = last.rename(last.with_suffix(".away"))
    try:
        with pytest.raises(ImageReadError):
            run.test()
    finally:
        away.rename(last)
    assert not list(run.path.glob("test.json*"))
    assert run.test().look == 1


def test_who_may_not_write_it_down_may_not_look(run: Run, dataset: Dataset) -> None:
    was_root, temporary = os.geteuid() == 0, Path(tempfile.gettempdir())
    for folder in (run.path, *run.path.parents, dataset.root, *dataset.root.parents):
        if folder != temporary and folder.is_relative_to(temporary):
            folder.chmod(folder.stat().st_mode | 0o055)
    run.detector(device="cpu")  # Python's own files, which this loads, may lie where nobody may look
    run.path.chmod(0o555)
    if was_root:
        os.seteuid(65534)  # nobody
    try:
        with pytest.raises(RunError, match=r"cannot be written \((Permission denied|Read-only)"):
            run.test()
    finally:
        if was_root:
            os.seteuid(0)
        run.path.chmod(0o755)
