"""LabelMe: shapes, pictures that have moved, and files that are wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odkit.data.formats.load import load_dataset
from tests.data.formats.layouts import (
    by_stem,
    check,
    coco_one_file,
    kinds,
    labelme,
    labelme_beside_images,
    picture,
    put,
    rows,
)


def shape(kind: str | None, *points: Any, **more: Any) -> dict[str, Any]:
    return {"label": "cat", "points": list(points), "shape_type": kind, "flags": {}, **more}


SHAPES = [
    (shape("rectangle", [20, 30], [4, 6]), [4, 6, 20, 30], ""),
    (
        shape("rectangle", [4, 6], [20, 6], [20, 30], [4, 30]),
        [4, 6, 20, 30],
        "",
    ),  # X-AnyLabeling's four corners
    (shape("polygon", [1, 2], [30.5, 4], [7, 40]), [1, 2, 30.5, 40], "1 polygon"),
    (shape(None, [1, 2], [30.5, 4], [7, 40]), [1, 2, 30.5, 40], "1 polygon"),
    (shape("circle", [20, 20], [23, 24]), [15, 15, 25, 25], "1 circle"),
    (shape("oriented_rectangle", [1, 1], [5, 0], [6, 4], [2, 5]), [1, 0, 6, 5], "1 box at an angle"),
    (shape("rotation", [1, 1], [5, 0], [6, 4], [2, 5], direction=0.2), [1, 0, 6, 5], "1 box at an angle"),
    (shape("mask", [3, 5], [20, 8], mask="iVBORw0KGgo="), [3, 5, 20, 8], "1 mask"),
]


@pytest.mark.parametrize(("drawn", "box", "note"), SHAPES, ids=lambda value: str(value)[:60])
def test_shapes_become_upright_boxes(tmp_path: Path, drawn: dict, box: list[float], note: str) -> None:
    labelme_beside_images(tmp_path)
    put(tmp_path / "d.json", labelme("d", shapes=[drawn]))
    dataset = load_dataset(tmp_path)
    assert kinds(dataset) == []
    ((name, found),) = rows(dataset, by_stem(dataset)["d"])
    assert name == "cat"
    np.testing.assert_allclose(found, box, atol=1e-4)
    told = [text for text in dataset.notes if "upright" in text]
    assert told == ([f"read as upright boxes: {note}"] if note else [])


def test_what_has_no_box_is_counted(tmp_path: Path) -> None:
    labelme_beside_images(tmp_path)
    lines = [shape("line", [1, 2], [3, 4]), shape("linestrip", [1, 2], [3, 4]), shape("point", [1, 2])]
    put(tmp_path / "d.json", labelme("d", shapes=lines))
    dataset = load_dataset(tmp_path)
    check(dataset, splits=False)
    assert "left out, as they have no box: 2 lines and 1 point" in dataset.notes


@pytest.mark.parametrize(
    ("drawn", "kind", "boxes"),
    [
        (shape("rectangle", [20, 30]), "unreadable_label", 5),
        (shape("rectangle", [20, 30], [4]), "unreadable_label", 5),
        (shape("rectangle", [20, 30], [4, "six"]), "unreadable_label", 5),
        (shape("rectangle", [20, 30], [4, None]), "unreadable_label", 5),
        (shape("rectangle"), "unreadable_label", 5),
        (shape("circle", [20, 30]), "unreadable_label", 5),
        (shape("star", [20, 30], [4, 6]), "unreadable_label", 5),
        ("rectangle", "unreadable_label", 5),
        (shape("rectangle", [20, 30], [4, 6], label=" "), "unknown_class", 6),
        (shape("rectangle", [20, 30], [4, 6], label=None), "unknown_class", 6),
    ],
)
def test_a_shape_that_is_wrong(tmp_path: Path, drawn: Any, kind: str, boxes: int) -> None:
    labelme_beside_images(tmp_path)
    path = put(tmp_path / "d.json", labelme("d", shapes=[drawn]))
    dataset = load_dataset(tmp_path)
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.file, problem.image, problem.box) == (kind, str(path), "d.jpg", "shape 1")
    assert dataset.num_boxes == boxes


@pytest.mark.parametrize(
    "content",
    [b'{"version": "5.5.0", "shapes": [', b'{"shapes": {}, "imagePath": "d.jpg"}', b'{"imagePath": "d.jpg"}'],
)
def test_a_file_that_cannot_be_read_leaves_its_image_in(tmp_path: Path, content: bytes) -> None:
    labelme_beside_images(tmp_path)
    path = put(tmp_path / "d.json", content)
    dataset = load_dataset(tmp_path)
    check_rest = [p for p in dataset.source_problems if p.file != str(path)]
    assert check_rest == []
    assert kinds(dataset) == ["unreadable_label"]
    assert sorted(by_stem(dataset)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("path", "stem", "image", "kind"),
    [
        ("pic.jpg", "x", "pic.jpg", None),
        ("images/pic.jpg", "x", "pic.jpg", None),  # moved since
        ("../pic.jpg", "x", None, "path_outside"),
        ("/home/me/pic.jpg", "x", None, "path_outside"),
        ("../pic.jpg", "pic", "pic.jpg", None),  # the picture beside it, whatever it says
        ("gone.jpg", "x", "gone.jpg", "label_without_image"),
        (None, "pic", "pic.jpg", None),
        (None, "gone", "gone.jpg", "label_without_image"),
    ],
)
def test_where_the_picture_is(
    tmp_path: Path, path: str, stem: str, image: str | None, kind: str | None
) -> None:
    labelme_beside_images(tmp_path / "pets")
    picture(tmp_path / "pic.jpg", (9, 9))  # outside
    picture(tmp_path / "pets/pic.jpg", (50, 50))
    label = labelme("d", shapes=[shape("rectangle", [1, 2], [3, 4])]) | {"imagePath": path}
    put(tmp_path / f"pets/{stem}.json", label)
    dataset = load_dataset(tmp_path / "pets")
    others = [p for p in dataset.source_problems if p.kind != "image_without_labels"]
    assert [p.kind for p in others] == ([kind] if kind else [])
    assert [i for i in dataset.image_ids if i not in ("a.jpg", "b.jpg", "c.jpg", "d.jpg")] == (
        [image] if image else []
    )
    assert all(str(tmp_path / "pets") in p for p in dataset.image_paths)


def test_two_files_for_one_picture(tmp_path: Path) -> None:
    labelme_beside_images(tmp_path)
    content = labelme("a")
    content["shapes"][0]["label"] = "bird"
    put(tmp_path / "copy.json", content)
    dataset = load_dataset(tmp_path)
    assert dataset.num_boxes == 6  # the one that differs; the other is the same box
    assert kinds(dataset) == ["image_listed_twice"]


def test_sizes_that_are_not_stated_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    labelme_beside_images(tmp_path)
    picture(tmp_path / "d.jpg", (60, 30), 6)
    put(tmp_path / "d.json", labelme("d") | {"imageWidth": None, "imageHeight": None})
    dataset = load_dataset(tmp_path)
    assert dataset.image_sizes[by_stem(dataset)["d"]].tolist() == [30, 60]


def test_a_file_whose_keys_are_sorted_is_known_by_its_picture(tmp_path: Path) -> None:
    """Then the picture, which can have megabytes, comes before the shapes."""
    labelme_beside_images(tmp_path)
    for stem in "abcd":
        content = labelme(stem) | {"imageData": "A" * 100_000}
        put(tmp_path / f"{stem}.json", json.dumps(content, sort_keys=True))
    check(load_dataset(tmp_path), splits=False)


def test_one_file_is_one_picture(tmp_path: Path) -> None:
    labelme_beside_images(tmp_path)
    dataset = load_dataset(tmp_path / "b.json", val=0)
    assert (dataset.format, sorted(by_stem(dataset)), dataset.num_boxes) == ("labelme", ["b"], 1)


def test_coco_beside_it_is_not_taken_for_it(tmp_path: Path) -> None:
    labelme_beside_images(tmp_path)
    coco_one_file(tmp_path)
    assert load_dataset(tmp_path, format="labelme").format == "labelme"
    assert load_dataset(tmp_path, format="coco").format == "coco"
