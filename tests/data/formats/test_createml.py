"""CreateML: entries that are wrong, and how it is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from odkit.data.formats.write import write_dataset
from tests.data.formats.layouts import (
    NAMES,
    by_stem,
    coco_as_published,
    createml,
    createml_apple,
    createml_roboflow,
    kinds,
    odd_dataset,
    picture,
    pictures,
    put,
)

BOX = {"label": "cat", "coordinates": {"x": 5, "y": 6, "width": 2, "height": 4}}


@pytest.mark.parametrize(
    ("entry", "kind", "boxes"),
    [
        (
            {"image": "d.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]},
            "unreadable_label",
            5,
        ),
        (
            {"image": "d.jpg", "annotations": [{"label": "cat", "coordinates": [1, 2, 3, 4]}]},
            "unreadable_label",
            5,
        ),
        ({"image": "d.jpg", "annotations": [{"label": "cat"}]}, "unreadable_label", 5),
        ({"image": "d.jpg", "annotations": ["cat"]}, "unreadable_label", 5),
        ({"image": "d.jpg", "annotations": {"label": "cat"}}, "unreadable_label", 5),
        ({"image": "d.jpg", "annotations": [{**BOX, "label": None}]}, "unknown_class", 6),
        ({"image": 7, "annotations": [BOX]}, "unreadable_label", 5),
        ("d.jpg", "unreadable_label", 5),
        ({"image": "../../etc/x.jpg", "annotations": [BOX]}, "path_outside", 5),
    ],
)
def test_an_entry_that_is_wrong(tmp_path: Path, entry: Any, kind: str, boxes: int) -> None:
    path = put(tmp_path / "labels.json", [*createml()[:3], entry])
    pictures(tmp_path, "{stem}.jpg")
    dataset = load_dataset(tmp_path)
    (problem,) = [p for p in dataset.source_problems if p.kind != "image_without_labels"]
    assert (problem.kind, problem.severity, problem.file) == (kind, "fatal", str(path))
    assert dataset.num_boxes == boxes
    assert dataset.class_names == tuple(NAMES)


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    createml_roboflow(tmp_path)
    path = tmp_path / "valid/_annotations.createml.json"
    path.write_text(path.read_text()[:-5])
    with pytest.raises(DatasetFormatError, match=r"valid/_annotations\.createml\.json is no JSON"):
        load_dataset(tmp_path)


def test_the_first_image_may_have_no_object(tmp_path: Path) -> None:
    put(tmp_path / "labels.json", createml()[::-1])
    pictures(tmp_path, "{stem}.jpg")
    dataset = load_dataset(tmp_path)
    assert (dataset.format, dataset.num_boxes, len(dataset)) == ("createml", 5, 4)


def test_one_file_of_several(tmp_path: Path) -> None:
    createml_roboflow(tmp_path)
    dataset = load_dataset(tmp_path / "valid/_annotations.createml.json")
    assert (dataset.format, sorted(by_stem(dataset)), kinds(dataset)) == ("createml", ["c", "d"], [])


def test_an_image_listed_twice(tmp_path: Path) -> None:
    put(tmp_path / "labels.json", [*createml(), {"image": "d.jpg", "annotations": [BOX]}])
    pictures(tmp_path, "{stem}.jpg")
    dataset = load_dataset(tmp_path)
    assert (dataset.num_boxes, kinds(dataset)) == (6, ["image_listed_twice"])


def test_pictures_are_upright(tmp_path: Path) -> None:
    createml_apple(tmp_path)
    picture(tmp_path / "b.jpg", (60, 30), 6)
    dataset = load_dataset(tmp_path)
    assert dataset.image_sizes[by_stem(dataset)["b"]].tolist() == [30, 60]


def test_a_list_of_something_else_is_not_taken_for_it(tmp_path: Path) -> None:
    """Such as the detections that are handed in to COCO."""
    put(tmp_path / "results.json", [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}])
    pictures(tmp_path, "{stem}.jpg")
    with pytest.raises(DatasetFormatError, match="no dataset that odkit can read"):
        load_dataset(tmp_path)


def test_createml_is_written_as_roboflow_writes_it(tmp_path: Path) -> None:
    coco_as_published(tmp_path / "source")
    folder = write_dataset(load_dataset(tmp_path / "source"), tmp_path / "written", "createml")
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        "classes.txt",
        "train/_annotations.createml.json",
        "train/a.jpg",
        "train/b.jpg",
        "val/_annotations.createml.json",
        "val/c.jpg",
        "val/d.jpg",
    ]
    assert json.loads((folder / "train/_annotations.createml.json").read_bytes()) == createml("train")
    assert json.loads((folder / "val/_annotations.createml.json").read_bytes()) == createml("val")


def test_splits_of_other_names_are_lost_and_told_of(tmp_path: Path) -> None:
    dataset = odd_dataset(tmp_path / "source")
    splits = dataset.image_splits.copy()
    splits[0] = "night"
    with pytest.warns(
        UserWarning, match="no splits but train, val and test: 'night' is the name of a folder"
    ):
        write_dataset(dataset.replace(image_splits=splits), tmp_path / "written", "createml")
    assert "night" not in load_dataset(tmp_path / "written", val=0).split_counts()


@pytest.mark.parametrize(("text", "names"), [("dog\r\ncat\r\n", ["dog", "cat"]), ("dog\nbird\n", NAMES)])
def test_classes_txt_orders_the_classes_if_it_has_them_all(
    tmp_path: Path, text: str, names: list[str]
) -> None:
    createml_apple(tmp_path)
    put(tmp_path / "classes.txt", text.encode())
    assert load_dataset(tmp_path, val=0).class_names == tuple(names)


def test_boxes_may_stand_before_the_name_of_their_image(tmp_path: Path) -> None:
    put(tmp_path / "labels.json", [{"annotations": [BOX] * 300, "image": "a.jpg"}])
    pictures(tmp_path, "{stem}.jpg")
    assert load_dataset(tmp_path, val=0).num_boxes == 300
