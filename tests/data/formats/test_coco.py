"""COCO's JSON: boxes, masks, crowds, ids, and whatever is wrong in it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import odkit as od
from odkit.data.dataset import Dataset
from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from odkit.data.formats.write import write_dataset
from tests.data.formats.layouts import (
    SIZES,
    annotation,
    check,
    coco,
    coco_as_published,
    coco_images_in_between,
    coco_one_file,
    kinds,
    odd_dataset,
    picture,
    pictures,
    put,
    written,
)


def test_the_demo_is_coco(demo_folder: Path) -> None:
    dataset = load_dataset(demo_folder)
    assert (dataset.format, len(dataset)) == ("coco", 12)
    assert list(dataset.split_counts()) == ["train", "val", "test"]
    assert dataset.source_problems == ()


@pytest.fixture
def demo_folder(tmp_path: Path) -> Path:
    from odkit.data.demo.dataset import write_demo

    return write_demo(tmp_path / "demo", images=12)


def test_json_cut_short_is_named_with_the_place(tmp_path: Path) -> None:
    for name in ("instances_train.json", "labels.json"):
        folder = tmp_path / name.partition(".")[0]
        put(folder / name, json.dumps(coco())[:-40])
        picture(folder / "a.jpg", SIZES["a"])
        with pytest.raises(DatasetFormatError, match=rf"{name} is no JSON \(.*line 1 column \d+"):
            load_dataset(folder)


def one_coco(folder: Path, **changes: Any) -> Dataset:
    """The truth as one COCO file with some keys replaced, read."""
    pictures(folder, "images/{stem}.jpg")
    put(folder / "labels.json", {**coco(), **changes})
    return load_dataset(folder, val=0)


def test_ids_of_categories_are_sparse_and_ordered(tmp_path: Path) -> None:
    categories = [
        {"id": 90, "name": "z"},
        {"id": 18, "name": "dog"},
        {"id": 7, "name": "cat"},
        {"id": 44, "name": "n"},
    ]
    dataset = one_coco(tmp_path, categories=categories)
    assert dataset.class_names == ("cat", "dog", "n", "z")
    check(dataset.replace(class_names=("cat", "dog", "n", "z")), splits=False, names=["cat", "dog", "n", "z"])


def test_crowds_and_ids_are_kept(tmp_path: Path) -> None:
    crowds = [annotation(5, iscrowd=1), annotation(9, iscrowd=0), annotation(12)]
    dataset = one_coco(tmp_path, annotations=crowds)
    assert dataset.box_crowd.tolist() == [True, False, False]
    assert dataset.box_ids.tolist() == ["5", "9", "12"]


def masks() -> list[tuple[str, Any, list[float]]]:
    """Name, segmentation, the box around it as pycocotools sees it."""
    from pycocotools import mask

    rng = np.random.default_rng(0)
    found: list[tuple[str, Any, list[float]]] = [
        ("polygon", [[10, 10, 30.5, 12, 20, 40]], [10, 10, 20.5, 30]),
        ("polygons", [[1, 1, 5, 1, 5, 5], [50, 20, 60, 20, 60, 47]], [1, 1, 59, 46]),
        ("flat polygon", [10, 10, 30, 12, 20, 40], [10, 10, 20, 30]),
    ]
    for k in range(12):
        pixels = np.zeros((48, 64), np.uint8)
        x, y = rng.integers(0, 40, 2)
        pixels[y : y + rng.integers(1, 20), x : x + rng.integers(1, 25)] = 1
        if k % 3 == 0:
            pixels[rng.random(pixels.shape) < 0.5] = 0
            pixels[47, 63] = pixels[y, x] = 1
        packed = mask.encode(np.asfortranarray(pixels))
        box = mask.toBbox(packed).tolist()
        text = {"size": packed["size"], "counts": packed["counts"].decode()}
        runs = np.diff(np.flatnonzero(np.diff(np.r_[2, pixels.T.ravel(), 2])))
        counts = [0, *runs.tolist()] if pixels[0, 0] else runs.tolist()
        found += [(f"packed {k}", text, box), (f"runs {k}", {"size": [48, 64], "counts": counts}, box)]
    return found


def test_boxes_of_masks_where_there_is_no_bbox(tmp_path: Path) -> None:
    cases = masks()
    marked = [annotation(k, segmentation=shape, bbox=None) for k, (_, shape, _) in enumerate(cases, 1)]
    for entry in marked[::2]:
        del entry["bbox"]
    dataset = one_coco(tmp_path, annotations=[*marked, annotation(99, image_id=102)])
    assert kinds(dataset) == []
    assert (
        f"labels.json: {len(cases)} annotations without a bbox, read as the boxes around their masks"
        in dataset.notes
    )
    for k, (name, _, (x, y, width, height)) in enumerate(cases):
        np.testing.assert_allclose(dataset.boxes[k], [x, y, x + width, y + height], atol=1e-5, err_msg=name)


def test_boxes_in_0_to_1_are_shares_of_the_sides(tmp_path: Path) -> None:
    boxes = [[0.25, 0.5, 0.5, 0.25], [0, 0, 1, 1], [10, 10, 5, 5]]
    marked = [annotation(k, image_id=101 + k % 2, bbox=box) for k, box in enumerate(boxes)]
    dataset = one_coco(tmp_path, annotations=marked)
    assert dataset.boxes.tolist() == [[16, 24, 48, 36], [0, 0, 48, 64]]
    assert "labels.json: boxes as shares of the image's sides" in dataset.notes
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity, problem.box) == ("unreadable_label", "fatal", "2")
    assert "are no shares of the image's sides" in problem.message
    small = [*coco()["annotations"], annotation(bbox=[0.25, 0.5, 0.5, 0.25])]  # a speck among pixels is one
    dataset = one_coco(tmp_path, annotations=small)
    assert dataset.num_boxes == 6
    assert dataset.source_problems == ()


@pytest.mark.parametrize("spell", [str, float], ids=["text", "float"])
def test_ids_that_are_spelled_otherwise_are_the_same(tmp_path: Path, spell: Any) -> None:
    marked = coco()["annotations"]
    for entry in marked[::2]:
        entry["image_id"], entry["category_id"] = spell(entry["image_id"]), spell(entry["category_id"])
    check(one_coco(tmp_path, annotations=marked), splits=False)


def test_a_bbox_goes_before_the_mask(tmp_path: Path) -> None:
    dataset = one_coco(tmp_path, annotations=[annotation(segmentation=[[10, 10, 30, 12, 20, 40]])])
    assert dataset.boxes.tolist() == [[1, 2, 4, 6]]


BAD_ANNOTATIONS = [
    ("text", "dog", "unreadable_label"),
    ("null", None, "unreadable_label"),
    ("no box", {"id": 1, "image_id": 101, "category_id": 7}, "unreadable_label"),
    ("three numbers", annotation(bbox=[1, 2, 3]), "unreadable_label"),
    ("words", annotation(bbox=["a", "b", "c", "d"]), "unreadable_label"),
    ("nested", annotation(bbox=[[1], [2], [3], [4]]), "unreadable_label"),
    ("object", annotation(bbox={"x": 1}), "unreadable_label"),
    ("nan", annotation(bbox=[float("nan"), 1, 2, 3]), "unreadable_label"),
    ("infinite", annotation(bbox=[1, 1, float("inf"), 3]), "unreadable_label"),
    ("huge", annotation(bbox=[1, 1, 1e300, 3]), "unreadable_label"),
    (
        "bad runs",
        annotation(bbox=None, segmentation={"size": [4, 4], "counts": [-3, 99]}),
        "unreadable_label",
    ),
    (
        "bad packing",
        annotation(bbox=None, segmentation={"size": [4, 4], "counts": "\u00ff~~~"}),
        "unreadable_label",
    ),
    ("bad polygon", annotation(bbox=None, segmentation=[["x", "y"]]), "unreadable_label"),
    ("odd polygon", annotation(bbox=None, segmentation=[[1, 2, 3]]), "unreadable_label"),
    ("empty mask", annotation(bbox=None, segmentation={"size": [4, 4], "counts": [16]}), "unreadable_label"),
    ("unknown image", annotation(image_id=999), "label_without_image"),
    ("image id is a list", annotation(image_id=[101]), "label_without_image"),
    ("unknown class", annotation(category_id=999), "unknown_class"),
    ("class id is a list", annotation(category_id=[7]), "unknown_class"),
    ("no class", {"id": 1, "image_id": 101, "bbox": [1, 2, 3, 4]}, "unknown_class"),
    ("id of another", annotation(2), "duplicate_box_id"),
]


@pytest.mark.parametrize(
    ("bad", "kind"), [row[1:] for row in BAD_ANNOTATIONS], ids=[row[0] for row in BAD_ANNOTATIONS]
)
def test_an_annotation_that_is_wrong(tmp_path: Path, bad: Any, kind: str) -> None:
    dataset = one_coco(tmp_path, annotations=[annotation(2), bad, annotation(3, image_id=102)])
    assert kinds(dataset) == [kind]
    (problem,) = dataset.source_problems
    assert problem.file == str(tmp_path / "labels.json")
    assert problem.message
    assert problem.fix
    there = {"unknown_class": 1, "duplicate_box_id": 1}.get(kind, 0)
    assert dataset.num_boxes == 2 + there
    assert (dataset.box_classes == -1).sum() == (kind == "unknown_class")
    assert problem.severity == ("warning" if kind == "duplicate_box_id" else "fatal")


def test_a_problem_of_a_box_is_the_audits_finding(tmp_path: Path) -> None:
    dataset = one_coco(tmp_path, annotations=[annotation(4, category_id=999), annotation(6, image_id=102)])
    (finding,) = od.audit(dataset).of("unknown_class")
    assert (finding.image, finding.box) == ("images/a.jpg", "4")
    assert "999" in finding.message
    assert od.repaired(dataset).box_ids.tolist() == ["6"]


BAD_IMAGES = [
    ("text", "a.jpg", "unreadable_label", 0),
    ("no name", {"id": 1}, "unreadable_label", 0),
    ("no id", {"file_name": "d.jpg"}, "unreadable_label", 0),
    ("name is a number", {"id": 1, "file_name": 7}, "unreadable_label", 0),
    ("same name again", {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}, "image_listed_twice", 0),
    ("same id again", {"id": 101, "file_name": "e.jpg", "width": 5, "height": 5}, "duplicate_image_id", 1),
]


@pytest.mark.parametrize(
    ("bad", "kind", "more"), [row[1:] for row in BAD_IMAGES], ids=[row[0] for row in BAD_IMAGES]
)
def test_an_image_entry_that_is_wrong(tmp_path: Path, bad: Any, kind: str, more: int) -> None:
    content = coco()
    picture(tmp_path / "images/e.jpg", (5, 5))
    dataset = one_coco(tmp_path, images=[*content["images"], bad])
    assert kind in kinds(dataset)
    assert len(dataset) == 4 + more
    assert dataset.num_boxes == 5


def test_an_image_whose_id_is_taken_is_not_trained_on_as_empty(tmp_path: Path) -> None:
    picture(tmp_path / "images/e.jpg", (5, 5))
    images = [*coco()["images"], {"id": 101, "file_name": "e.jpg", "width": 5, "height": 5}]
    dataset = one_coco(tmp_path, images=images)
    assert "images/e.jpg" not in od.repaired(dataset).image_ids


def test_boxes_of_an_image_listed_twice_are_joined(tmp_path: Path) -> None:
    images = [*coco()["images"], {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}]
    dataset = one_coco(tmp_path, images=images, annotations=[annotation(1), annotation(2, image_id=1)])
    assert dataset.boxes_per_image().tolist() == [2, 0, 0, 0]


def test_nan_in_the_json_of_python(tmp_path: Path) -> None:
    """Python's json writes NaN, which is no JSON; such a file is read all the same."""
    dataset = one_coco(tmp_path, info={"version": float("nan")})
    check(dataset, splits=False)


@pytest.mark.parametrize("size", [{}, {"width": None, "height": 0}, {"width": "wide", "height": -3}])
def test_a_size_that_is_not_told_comes_from_the_file(tmp_path: Path, size: dict) -> None:
    images = [{"id": image["id"], "file_name": image["file_name"], **size} for image in coco()["images"]]
    check(one_coco(tmp_path, images=images), splits=False)


def test_numbers_that_some_programs_write_as_text_or_floats(tmp_path: Path) -> None:
    loose = [{**a, "image_id": float(a["image_id"]), "category_id": float(a["category_id"]), "iscrowd": "0"}
             for a in coco()["annotations"]]  # fmt: skip
    dataset = one_coco(tmp_path, annotations=loose)
    check(dataset, splits=False)
    assert not dataset.box_crowd.any()


def test_an_image_that_is_not_there_is_the_audits_finding(tmp_path: Path) -> None:
    coco_as_published(tmp_path)
    (tmp_path / "train2017/b.jpg").unlink()
    dataset = load_dataset(tmp_path)
    assert "train2017/b.jpg" in dataset.image_ids
    assert [f.image for f in od.audit(dataset).of("missing_image")] == ["train2017/b.jpg"]


def test_classes_of_several_files_are_joined_by_name(tmp_path: Path) -> None:
    pictures(tmp_path)
    put(tmp_path / "annotations/instances_train.json", coco("train"))
    other = coco("val")
    other["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cow"}]
    for entry in other["annotations"]:
        entry["category_id"] = 1
    put(tmp_path / "annotations/instances_val.json", other)
    dataset = load_dataset(tmp_path)
    assert set(dataset.class_names) == {"cat", "dog", "cow"}
    assert dataset.class_counts() == {"cat": 3, "dog": 2, "cow": 0}


def test_two_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    dataset = one_coco(tmp_path, categories=[{"id": 7, "name": "pet"}, {"id": 18, "name": "pet"}])
    assert dataset.class_counts() == {"pet": 5}


def test_coco_keeps_image_and_box_ids(tmp_path: Path) -> None:
    coco_images_in_between(tmp_path / "source")
    dataset = load_dataset(tmp_path / "source")
    now = written(dataset, tmp_path / "written", "coco")
    assert sorted(now.image_ids) == sorted(dataset.image_ids)
    assert sorted(now.box_ids) == sorted(dataset.box_ids)
    assert now.fingerprint() == written(now, tmp_path / "again", "coco").fingerprint()


def test_pycocotools_reads_what_we_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    dataset = odd_dataset(tmp_path / "source")
    folder = write_dataset(dataset, tmp_path / "written", "coco")
    boxes = 0
    for file in sorted((folder / "annotations").iterdir()):
        theirs = COCO(str(file))
        assert [c["name"] for c in theirs.loadCats(theirs.getCatIds())] == list(dataset.class_names)
        split = file.stem.removeprefix("instances_")
        assert len(theirs.getImgIds()) == dataset.split_counts()[split]
        for image in theirs.loadImgs(theirs.getImgIds()):
            path = next(
                p for p in (folder / image["file_name"], folder / split / image["file_name"]) if p.is_file()
            )
            with Image.open(path) as opened:
                assert opened.size == (image["width"], image["height"])
            boxes += len(theirs.getAnnIds(imgIds=image["id"]))
        crowds = theirs.getAnnIds(iscrowd=True)
        assert len(crowds) == (dataset.box_crowd & (dataset.image_splits == split)[dataset.box_images]).sum()
    assert boxes == dataset.num_boxes
    assert "error" not in capsys.readouterr().out.lower()


def test_problems_without_number_are_counted(tmp_path: Path) -> None:
    dataset = one_coco(tmp_path, annotations=[annotation(k, image_id=-k) for k in range(1, 5001)])
    assert len(dataset.source_problems) < 1100
    assert any("4,000" in p.message for p in dataset.source_problems)


def test_a_split_whose_file_is_cut_short_is_not_passed_over(tmp_path: Path) -> None:
    coco_as_published(tmp_path)
    for name in ("train", "val"):  # names that odkit does not know for sure
        (tmp_path / f"annotations/instances_{name}2017.json").rename(tmp_path / f"annotations/{name}.json")
    path = tmp_path / "annotations/val.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetFormatError, match=r"val\.json is no JSON.*cut short"):
        load_dataset(tmp_path)


def test_a_file_of_everything_beside_those_of_the_splits_is_left_out(tmp_path: Path) -> None:
    coco_as_published(tmp_path)
    put(tmp_path / "annotations/instances_all.json", coco())
    check(load_dataset(tmp_path))


def test_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    coco_one_file(tmp_path)
    path = tmp_path / "labels.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    check(load_dataset(tmp_path), splits=False)


def test_categories_that_are_wrong(tmp_path: Path) -> None:
    categories = ["cat", {"name": "dog"}, {"id": 7}, {"id": [1]}, {"id": 18, "name": 5}]
    assert one_coco(tmp_path, categories=categories).class_counts() == {"category 7": 3, "5": 2}


def test_areas_of_masks_that_move_boxes_to_another_size_are_said(tmp_path: Path) -> None:
    """COCO's small, medium and large go by the area that a file states, which is a mask's; ours by the box."""
    boxes = [([0, 0, 40, 40], 900), ([0, 0, 40, 40], 1600), ([50, 50, 20, 20], 300), ([0, 0, 9, 9], None)]
    Image.new("L", (100, 100)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": 1, "bbox": box, "area": area}
            for k, (box, area) in enumerate(boxes, 1)
        ],
    }
    (tmp_path / "labels.json").write_text(json.dumps(content))
    notes = load_dataset(tmp_path, val=0).notes
    assert any("1 box of another size by the file's areas (of masks) than by the box" in n for n in notes), (
        notes
    )
