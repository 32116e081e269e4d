"""What stands in the way and what to do next, in sentences that fit the data."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odkit.data.audit import audit, next_steps
from odkit.data.dataset import Dataset


def photos(
    folder: Path, images: int = 70, *, side: int = 30, splits: tuple[int, int] = (15, 10), bad: int = 0
) -> Dataset:
    """Different pictures with one box each; the last ones are "val" and "test", the first ones have a box outside."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{k:03d}.png") for k in range(images)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((160, 120)).save(path)
    boxes = np.tile(np.array([[10, 10, 10 + side, 10 + side]], np.float32), (images, 1))
    boxes[:bad] += 1000
    val, test = splits
    return Dataset(
        name="photos",
        root=folder,
        class_names=("a", "b"),
        image_paths=paths,
        image_sizes=[(160, 120)] * images,
        image_splits=["train"] * (images - val - test) + ["val"] * val + ["test"] * test,
        boxes=boxes,
        box_classes=np.arange(images) % 2,
        box_images=np.arange(images),
    )


def told(dataset: Dataset) -> list[tuple[str, str, str]]:
    return [(step.about, step.text, step.do) for step in next_steps(dataset).steps]


def test_nothing_wrong_is_one_sentence(tmp_path: Path) -> None:
    ((about, text, do),) = told(photos(tmp_path / "my photos", 75))
    assert (about, text) == ("next", "Nothing stands in the way of training.")
    assert do == f"notebook 03_fine_tune, or: odkit train '{tmp_path}/my photos'"


def test_what_stops_training_comes_first_with_the_repair(tmp_path: Path) -> None:
    steps = told(photos(tmp_path, 80, bad=3))
    assert steps[0][0] == "stop"
    assert steps[0][1].startswith("3 boxes outside the image.")
    assert steps[0][2] == "od.repaired(dataset) drops the box"
    assert steps[-1][2].endswith(f"odkit train {tmp_path} --repair")


def test_what_no_repair_mends_is_to_be_put_right_first(tmp_path: Path) -> None:
    dataset = photos(tmp_path, 80)
    unlabelled = dataset.select_boxes([])
    (only,) = told(unlabelled)
    assert only[0] == "stop"
    assert "80 pictures, and not one box" in only[1]
    assert only[2].startswith("browser = od.browse(dataset)")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: d.select(range(20, 70)), "25 pictures to train on are few"),
        (lambda d: d.select([44, *range(45, 70)]), "1 picture to train on is few"),
        (lambda d: d.select(np.flatnonzero(d.image_splits != "val")), "There is no split 'val'"),
        (
            lambda d: d.select_boxes(np.flatnonzero(d.image_splits[d.box_images] != "val")),
            "No picture of the split",
        ),
        (lambda d: d.select([*range(45), *range(56, 70)]), "4 pictures to choose the epoch by"),
        (lambda d: d.select(np.flatnonzero(d.image_splits != "test")), "No test pictures are set aside"),
    ],
    ids=["few", "one", "no val", "no labels in val", "small val", "no test"],
)
def test_what_a_person_starting_out_should_know(tmp_path: Path, change, sentence: str) -> None:
    dataset = photos(tmp_path)
    assert sentence not in str(next_steps(dataset))
    assert sentence in str(next_steps(change(dataset)))


def test_small_objects_are_told_of(tmp_path: Path) -> None:
    small = next_steps(photos(tmp_path, side=5))
    assert "have sides of 5 pixels or less" in str(small)
    assert "<b" in small._repr_html_()
    assert "have sides of 5 pixels or less" in small._repr_html_()


def test_many_kinds_of_warnings_are_summed_up(tmp_path: Path) -> None:
    dataset = photos(tmp_path)
    boxes = dataset.boxes.copy()
    boxes[0] = [150, 10, 180, 30]  # partly outside
    boxes[1] = [10, 10, 11, 11]  # tiny
    twice = np.vstack([boxes, boxes[5:6], boxes[6:7]])
    classes = np.append(dataset.box_classes, [dataset.box_classes[5], 1 - dataset.box_classes[6]])
    worse = dataset.replace(
        boxes=twice, box_classes=classes, box_images=[*range(70), 5, 6], box_crowd=None, box_ids=None
    )
    steps = told(worse)
    assert sum(step[0] == "look" and step[1].startswith("Also: ") for step in steps) == 1
    found = audit(worse)
    assert next_steps(worse, found).audit is found
    with pytest.raises(ValueError, match="the audit is of 'photos'"):
        next_steps(dataset, found)
