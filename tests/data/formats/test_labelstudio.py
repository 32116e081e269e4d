"""Label Studio: names of images, shapes, annotators, and exports that are wrong."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from tests.data.formats.layouts import (
    ADDRESSES,
    BOXES,
    LABELSTUDIO_FILE,
    SIZES,
    by_stem,
    check,
    kinds,
    labelstudio,
    labelstudio_json,
    picture,
    pictures,
    put,
    rows,
)


def tasks(**of_d: Any) -> list[dict[str, Any]]:
    """The truth as tasks; d has these changes."""
    return [
        labelstudio(stem, "/data/upload/1/8f3a9c1d-{stem}.jpg", **(of_d if stem == "d" else {}))
        for stem in SIZES
    ]


def drawn(*results: Any, **more: Any) -> dict[str, Any]:
    return {"id": 1, "completed_by": 1, "result": list(results), "was_cancelled": False, **more}


def result(kind: str | None, number: int = 1, **value: Any) -> dict[str, Any]:
    """A result on d, an image of 50 x 50 pixels: a percent is half a pixel."""
    return {"id": f"r{number}", "type": kind, "value": value, "original_width": 50, "original_height": 50}


def export(folder: Path, **of_d: Any) -> Path:
    pictures(folder, "images/{stem}.jpg")
    return put(folder / "export.json", tasks(**of_d))


def test_images_are_found_by_name(tmp_path: Path) -> None:
    """Whatever address they had: uploads with or without their prefix, other folders, odd characters."""
    names = {
        "/data/upload/7/8f3a9c1d-own.jpg": "images/own.jpg",
        "/data/upload/7/0011aabb-stored.jpg": "images/0011aabb-stored.jpg",
        "/data/upload/7/0011aabb-my_photo_1.jpg": "images/my photo (1).jpg",
        "/data/upload/7/0011aabb-%C3%BC%20%E7%8C%AB.jpg": "images/ü 猫.jpg",
        "/data/local-files/?d=disk/deep/one.jpg": "deep/one.jpg",
        "/data/local-files/?d=disk/flat/one.jpg": "flat/one.jpg",
        "/data/local-files/?d=a%20b/two.jpg": "a b/two.jpg",
        "https://example.org/x/three.jpg?sig=a%2Fb&x=1#y": "images/three.jpg",
        "s3://bucket/x/four.jpg": "images/four.jpg",
        "C:\\label\\five.jpg": "images/five.jpg",
    }
    for path in names.values():
        picture(tmp_path / path, (50, 50))
    box = result("rectanglelabels", x=10, y=20, width=30, height=40, rectanglelabels=["cat"])
    content = [
        {"id": k, "data": {"image": name}, "annotations": [drawn(box)]} for k, name in enumerate(names)
    ]
    put(tmp_path / "export.json", content)
    dataset = load_dataset(tmp_path)
    assert kinds(dataset) == []
    assert dataset.image_ids.tolist() == list(names.values())
    assert dataset.num_boxes == len(names)


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("/data/upload/1/8f3a9c1d-gone.jpg", "no image of that name"),
        ("/data/upload/1/8f3a9c1d-twin.jpg", "several images are called so: one/twin.jpg, two/twin.jpg"),
        ("../../etc/secret.jpg", "no image of that name"),
        ("/data/local-files/?d=../secret.jpg", "no image of that name"),
        ("file:///etc/secret.jpg", "no image of that name"),
        ("https://example.org/secret.jpg", "no image of that name"),
    ],
)
def test_an_image_that_is_not_here_is_not_looked_for_elsewhere(
    tmp_path: Path, address: str, word: str
) -> None:
    folder = tmp_path / "pets"
    path = export(folder, data={"image": address})
    for twin in ("pets/one/twin.jpg", "pets/two/twin.jpg", "secret.jpg"):
        picture(tmp_path / twin, (9, 9))
    dataset = load_dataset(folder)
    (problem,) = [p for p in dataset.source_problems if p.kind != "image_without_labels"]
    assert (problem.kind, problem.severity, problem.file) == ("label_without_image", "warning", str(path))
    assert word in problem.message
    assert all(p.startswith(f"{folder}/") for p in dataset.image_paths)
    assert sum(Path(p).exists() for p in dataset.image_paths) == 3


HALF = math.sqrt(0.5)
SHAPES = [
    ({"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}, "rectanglelabels", [5, 10, 20, 30], ""),
    ({"x": 10, "y": 20, "width": 30, "height": 40}, "rectanglelabels", [5, 10, 20, 30], ""),
    # clockwise about the corner that was the left top one
    (
        {"x": 50, "y": 20, "width": 40, "height": 20, "rotation": 90},
        "rectanglelabels",
        [15, 10, 25, 30],
        "1 box at an angle",
    ),
    (
        {"x": 50, "y": 20, "width": 40, "height": 20, "rotation": 45},
        "rectanglelabels",
        [25 - 10 * HALF, 10, 25 + 20 * HALF, 10 + 30 * HALF],
        "1 box at an angle",
    ),
    ({"points": [[10, 10], [40, 20], [20, 60]], "closed": True}, "polygonlabels", [5, 5, 20, 30], "1 polygon"),
    ({"x": 40, "y": 40, "radiusX": 20, "radiusY": 10}, "ellipselabels", [10, 15, 30, 25], "1 ellipse"),
    ({"x": 40, "y": 40, "radiusX": 20, "radiusY": 10, "rotation": 90}, "ellipselabels", [15, 10, 25, 30], "1 ellipse"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "kind", "box", "note"), SHAPES, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("minimal", [False, True], ids=["JSON", "JSON-MIN"])
def test_shapes_become_upright_boxes(
    tmp_path: Path, value: dict, kind: str, box: list[float], note: str, minimal: bool
) -> None:
    value = value | {kind: ["cat"]}
    if minimal:
        pictures(tmp_path, "images/{stem}.jpg")
        label = [{**value, "original_width": 50, "original_height": 50}]
        put(tmp_path / "export.json", [{"image": "d.jpg", "id": 1, "label": label, "annotator": 1}])
    else:
        export(tmp_path, annotations=[drawn(result(kind, **value))])
    dataset = load_dataset(tmp_path)
    ((name, found),) = rows(dataset, by_stem(dataset)["d"])
    assert name == "cat"
    np.testing.assert_allclose(found, box, atol=1e-4)
    told = [text for text in dataset.notes if "upright" in text]
    assert told == ([f"read as upright boxes: {note}"] if note else [])


def test_the_turn_is_of_pixels_not_of_percent(tmp_path: Path) -> None:
    picture(tmp_path / "wide.jpg", (200, 50))
    box = result("rectanglelabels", x=50, y=20, width=10, height=20, rotation=90, rectanglelabels=["cat"])
    box |= {"original_width": 200, "original_height": 50}
    put(tmp_path / "export.json", [{"id": 1, "data": {"image": "wide.jpg"}, "annotations": [drawn(box)]}])
    dataset = load_dataset(tmp_path)
    np.testing.assert_allclose(
        dataset.boxes, [[90, 10, 100, 30]], atol=1e-4
    )  # 20 x 10 pixels, turned: 10 x 20


def test_a_class_in_a_result_of_its_own(tmp_path: Path) -> None:
    """With the controls Rectangle and Labels a region has two results of one id."""
    place = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
    both = [result("rectangle", **place), result("labels", **place, labels=["dog"])]
    export(tmp_path, annotations=[drawn(*both)])
    dataset = load_dataset(tmp_path)
    assert rows(dataset, by_stem(dataset)["d"]) == [("dog", [5, 10, 20, 30])]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    box = result("rectanglelabels", x=10, y=20, width=30, height=40, rectanglelabels=["cat"])
    masks = [result("brushlabels", rle=[1, 2], brushlabels=["cat"]), result("choices", choices=["day"])]
    masks.append(result("keypointlabels", x=1, y=2, width=3, keypointlabels=["cat"]))
    annotations = [drawn(box, box, was_cancelled=True), drawn(*masks), drawn(box), drawn(box)]
    content = tasks(annotations=annotations, predictions=[drawn(box)])
    empty = {"data": {"image": "/data/upload/1/e.jpg"}, "annotations": []}
    content += [{"id": 7, **empty}, {"id": 8, **empty, "annotations": [drawn(box, was_cancelled=True)]}]
    pictures(tmp_path, "images/{stem}.jpg")
    put(tmp_path / "export.json", content)
    dataset = load_dataset(tmp_path)
    check(dataset, splits=False)
    told = (
        "left out: 1 prediction, 2 annotations cancelled, 2 annotations by somebody else and 2 tasks that "
        "nobody has labelled"
    )
    assert told in dataset.notes
    assert "left out, as they have no box: 1 mask and 1 keypoint" in dataset.notes


def test_a_second_annotator_in_json_min(tmp_path: Path) -> None:
    pictures(tmp_path, "images/{stem}.jpg")
    label = [{"x": 0, "y": 0, "width": 10, "height": 10, "rectanglelabels": ["cat"]}]
    entry = {"image": "d.jpg", "id": 4, "label": label, "annotator": 1}
    put(tmp_path / "export.json", [entry, entry | {"annotator": 2, "label": label * 2}])
    dataset = load_dataset(tmp_path)
    assert dataset.num_boxes == 1
    assert "left out: 1 annotation by somebody else" in dataset.notes


PLACE = {"x": 10, "y": 20, "width": 30, "height": 40}


@pytest.mark.parametrize(
    ("found", "kind", "boxes"),
    [
        (result("rectanglelabels", x=1, y=2, width=3, rectanglelabels=["cat"]), "unreadable_label", 5),
        (result("rectanglelabels", **PLACE | {"x": "left"}, rectanglelabels=["cat"]), "unreadable_label", 5),
        (
            result("rectanglelabels", **PLACE | {"x": math.nan}, rectanglelabels=["cat"]),
            "unreadable_label",
            5,
        ),
        (result("polygonlabels", points=[[1, 2], [3]], polygonlabels=["cat"]), "unreadable_label", 5),
        (
            result("rectanglelabels", **PLACE, rectanglelabels=["cat"]) | {"image_rotation": 90},
            "unreadable_label",
            5,
        ),
        (result("rectanglelabels", **PLACE, rectanglelabels=[]), "unknown_class", 6),
        (result("rectangle", **PLACE), "unknown_class", 6),
    ],
)
def test_a_result_that_is_wrong(tmp_path: Path, found: dict, kind: str, boxes: int) -> None:
    path = export(tmp_path, annotations=[drawn(found)])
    dataset = load_dataset(tmp_path)
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity, problem.file) == (kind, "fatal", str(path))
    assert (problem.image, problem.box) == ("images/d.jpg", "result 1")
    assert dataset.num_boxes == boxes


@pytest.mark.parametrize("orientation", [1, 6])
def test_sizes_that_are_not_stated_are_those_of_the_upright_image(tmp_path: Path, orientation: int) -> None:
    picture(tmp_path / "x.jpg", (200, 50), orientation)
    box = {"type": "rectanglelabels", "value": PLACE | {"rectanglelabels": ["cat"]}}
    put(tmp_path / "export.json", [{"id": 1, "data": {"image": "x.jpg"}, "annotations": [drawn(box)]}])
    dataset = load_dataset(tmp_path)
    width, height = (50, 200) if orientation == 6 else (200, 50)
    assert dataset.image_sizes.tolist() == [[width, height]]
    np.testing.assert_allclose(
        dataset.boxes, [[0.1 * width, 0.2 * height, 0.4 * width, 0.6 * height]], rtol=1e-6
    )


def test_boxes_without_any_size_have_no_place(tmp_path: Path) -> None:
    put(tmp_path / "x.jpg", b"no image")
    box = {"type": "rectanglelabels", "value": PLACE | {"rectanglelabels": ["cat"]}}
    put(tmp_path / "export.json", [{"id": 1, "data": {"image": "x.jpg"}, "annotations": [drawn(box)]}])
    dataset = load_dataset(tmp_path)
    assert dataset.num_boxes == 0
    assert "unreadable_label" in kinds(dataset)


def test_an_export_that_is_cut_short(tmp_path: Path) -> None:
    labelstudio_json(tmp_path)
    path = tmp_path / LABELSTUDIO_FILE
    path.write_text(path.read_text()[:-9])
    with pytest.raises(DatasetFormatError, match=LABELSTUDIO_FILE + " is no JSON"):
        load_dataset(tmp_path)


def test_the_order_of_boxes_stays(tmp_path: Path) -> None:
    export(tmp_path)
    dataset = load_dataset(tmp_path)
    assert [name for name, _ in rows(dataset, by_stem(dataset)["a"])] == [name for name, _ in BOXES["a"]]


def test_a_box_of_two_classes_has_the_first_and_that_is_said(tmp_path: Path) -> None:
    picture(tmp_path / "x.jpg", (200, 50))
    box = {"type": "rectanglelabels", "value": PLACE | {"rectanglelabels": ["cat", "dog"]}}
    put(tmp_path / "export.json", [{"id": 1, "data": {"image": "x.jpg"}, "annotations": [drawn(box)]}])
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.class_counts() == {"cat": 1}
    assert "left out: 1 class beyond the first of a box" in dataset.notes


def test_of_two_exports_of_a_project_the_later_counts(tmp_path: Path) -> None:
    labelstudio_json(tmp_path)
    stale = labelstudio("a", ADDRESSES["a"])
    stale["annotations"][0]["result"] = stale["annotations"][0]["result"][:1]
    gone = labelstudio("b", "/data/upload/1/only.jpg")  # that the later export has no more
    picture(tmp_path / "images/only.jpg", SIZES["b"])
    put(tmp_path / "project-1-at-2024-04-30-10-00-ffffffff.json", [stale, gone])
    dataset = load_dataset(tmp_path, val=0)
    assert rows(dataset, by_stem(dataset)["a"]) == BOXES["a"]
    assert (dataset.num_boxes, kinds(dataset)) == (6, [])
    assert "left out: 1 task of which there is a later export" in dataset.notes


def test_tasks_that_nobody_has_labelled_are_said_where_there_are_no_others(tmp_path: Path) -> None:
    put(tmp_path / "export.json", [{"id": 1, "data": {"image": "x.jpg"}, "annotations": []}])
    with pytest.raises(DatasetFormatError, match="1 task that nobody has labelled"):
        load_dataset(tmp_path)
