"""Several formats in one folder: the richest is read where they say the same, and an error says how they differ."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import odkit as od
from odkit.data.dataset import Dataset
from odkit.data.formats.agreement import Labels, compare
from odkit.data.formats.load import READERS, load_dataset
from odkit.data.formats.reader_base import DatasetFormatError, Folder, Gathered
from tests.data.formats.layouts import (
    NAMES,
    SIZES,
    SPLITS,
    by_stem,
    check,
    coco,
    csv_rows,
    of,
    pictures,
    put,
    rows,
    tutorial,
    voc,
    yolo,
)


def put_coco(folder: Path) -> None:
    for split in ("train", "val"):
        put(folder / f"annotations/instances_{split}.json", coco(split))


def put_voc(folder: Path) -> None:
    for stem, split in SPLITS.items():
        put(folder / "Annotations" / split / f"{stem}.xml", voc(stem))


def put_yolo(folder: Path) -> None:
    for stem, split in SPLITS.items():
        put(folder / "labels" / split / f"{stem}.txt", yolo(stem))
    put(folder / "data.yaml", yaml.safe_dump({"train": "images/train", "val": "images/val", "names": NAMES}))


def put_csv(folder: Path) -> None:
    for split in ("train", "val"):
        put(folder / f"{split}_labels.csv", csv_rows(split))


PUT = {"coco": put_coco, "voc": put_voc, "yolo": put_yolo, "csv": put_csv}


def several(folder: Path, *kinds: str) -> Path:
    """The truth in several formats over the same pictures."""
    pictures(folder, "images/{split}/{stem}.jpg")
    for kind in kinds:
        PUT[kind](folder)
    return folder


@pytest.mark.parametrize(
    "kinds",
    [
        "coco voc",
        "coco yolo",
        "coco csv",
        "voc yolo",
        "voc csv",
        "yolo csv",
        "voc yolo csv",
        "coco voc yolo csv",
    ],
)
def test_the_richest_of_those_that_say_the_same_is_read(tmp_path: Path, kinds: str) -> None:
    best, *others = kinds.split()
    dataset = load_dataset(several(tmp_path, best, *others), val=0)
    assert dataset.format == best
    check(dataset)
    assert dataset.source_problems == ()
    assert dataset.fingerprint() == load_dataset(tmp_path, format=best, val=0).fingerprint()
    for kind in others:
        title = READERS[kind].title
        (note,) = [note for note in dataset.notes if f" and {title} say the same 5 boxes in " in note]
        assert note.startswith(READERS[best].title)
        assert f"read as {READERS[best].title}" in note
        assert f"--format {kind}" in note
        assert "pixel" not in note
        assert "file names" not in note
        assert load_dataset(tmp_path, format=kind).format == kind


def test_numbers_copied_from_voc_are_the_same_boxes(tmp_path: Path) -> None:
    dataset = load_dataset(tutorial(tmp_path))
    assert dataset.format == "voc"
    assert dataset.split_counts() == {"train": 1, "val": 1, "test": 2}
    check(dataset, splits=False)
    note = dataset.notes[0]
    assert "say the same 5 boxes in 3 images" in note  # the picture without objects has no row in the CSV
    assert "all left and top edges of CSV lie 1 pixel further right and down" in note


def test_cards(cards: Path) -> None:
    dataset = load_dataset(cards, val=0)
    assert (dataset.format, len(dataset), dataset.num_boxes) == ("voc", 363, 670)
    assert dataset.class_names == ("nine", "ten", "jack", "queen", "king", "ace")
    assert dataset.split_counts() == {"train": 296, "test": 67}
    assert dataset.fingerprint() == load_dataset(cards, format="voc", val=0).fingerprint()
    assert "Pascal VOC and CSV say the same 670 boxes in 363 images" in dataset.notes[0]
    assert "all left and top edges of CSV lie 1 pixel further" in dataset.notes[0]
    assert dataset.source_problems == ()
    other = load_dataset(cards, format="csv", val=0)
    assert other.split_counts() == dataset.split_counts()
    assert sorted(other.image_ids) == sorted(dataset.image_ids)
    assert od.audit(dataset, decode=False).findings == ()


def test_no_picture_is_opened(tmp_path: Path) -> None:
    several(tmp_path, "voc", "csv")
    for path in tmp_path.rglob("*.jpg"):
        path.write_bytes(b"no picture")
    assert "say the same 5 boxes" in load_dataset(tmp_path, val=0).notes[0]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def moved(folder: Path) -> None:
    edit(folder / "train_labels.csv", "cat,4,6,20,30", "cat,9,6,20,30")


def by_one(folder: Path) -> None:
    """A whole pixel in one box is no way to count pixels."""
    edit(folder / "train_labels.csv", "cat,4,6,20,30", "cat,5,6,20,30")


def missing(folder: Path) -> None:
    edit(folder / "train_labels.csv", "b.jpg,48,64,dog,1,1,47,20\n", "b.jpg,48,64,,,,,\n")


def more(folder: Path) -> None:
    with (folder / "val_labels.csv").open("a") as file:
        file.write("d.jpg,50,50,dog,1,2,30,40\n")


def twice(folder: Path) -> None:
    with (folder / "train_labels.csv").open("a") as file:
        file.write("b.jpg,48,64,dog,1,1,47,20\n")


def renamed(folder: Path) -> None:
    for split in ("train", "val"):
        path = folder / f"{split}_labels.csv"
        path.write_text(path.read_text().replace("dog", "Dog"))


def fewer_xml(folder: Path) -> None:
    (folder / "Annotations/val/c.xml").unlink()


def other_split(folder: Path) -> None:
    path = folder / "train_labels.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "b.jpg" not in line))
    with (folder / "val_labels.csv").open("a") as file:
        file.writelines(line for line in lines if "b.jpg" in line)


DIFFERENCES: dict[Callable[[Path], None], list[str]] = {
    moved: [
        "in the 4 images of both (5 in Pascal VOC and 5 in CSV): 1 in Pascal VOC alone and 1 in CSV alone",
        "images/train/a.jpg: Pascal VOC, object 1: cat (4, 6, 20, 30); CSV, line 2: cat (9, 6, 20, 30)",
    ],
    by_one: ["CSV, line 2: cat (5, 6, 20, 30)"],
    missing: [
        "(5 in Pascal VOC and 4 in CSV): 1 in Pascal VOC alone",
        "dog (1, 1, 47, 20); CSV, no such box",
    ],
    more: ["1 in CSV alone", "images/val/d.jpg: CSV, line 5: dog (1, 2, 30, 40); Pascal VOC, no such box"],
    twice: ["(5 in Pascal VOC and 6 in CSV): 1 in CSV alone", "images/train/b.jpg: CSV"],
    renamed: ["2 in Pascal VOC alone and 2 in CSV alone", "the class names 'Dog' are in CSV alone"],
    fewer_xml: ["labelled in CSV alone: 1 image with 2 boxes, images/val/c.jpg for one"],
    other_split: [
        "in different splits: 1 image, images/train/b.jpg for one, train in Pascal VOC and val in CSV"
    ],
}


@pytest.mark.parametrize("change", DIFFERENCES, ids=lambda change: change.__name__)
def test_what_differs_is_said_and_how_to_choose(tmp_path: Path, change: Callable[[Path], None]) -> None:
    change(several(tmp_path, "voc", "csv"))
    with pytest.raises(DatasetFormatError, match="could be Pascal VOC or CSV, and they differ") as caught:
        load_dataset(tmp_path)
    message = str(caught.value)
    assert [words for words in DIFFERENCES[change] if words not in message] == []
    assert str(tmp_path) in message
    for kind in ("voc", "csv"):
        assert f'format="{kind}"' in message
        assert load_dataset(tmp_path, format=kind).format == kind
    assert "--format voc" in message
    assert "Pascal VOC: Annotations/train/a.xml, " in message
    assert "CSV: train_labels.csv, val_labels.csv" in message


def test_what_one_format_could_not_read_is_said(tmp_path: Path) -> None:
    several(tmp_path, "voc", "yolo")
    put(tmp_path / "Annotations/train/b.xml", "<annotation><object>")
    with pytest.raises(
        DatasetFormatError, match=r"1 fault, .*Annotations/train/b\.xml: it is no XML"
    ) as caught:
        load_dataset(tmp_path)
    assert "1 in YOLO alone" in str(caught.value)


def test_copies_of_the_pictures_are_told_by_their_names(tmp_path: Path) -> None:
    """Two whole datasets side by side: each label file is for the pictures near it."""
    several(tmp_path / "coco", "coco")
    several(tmp_path / "voc", "voc")
    for kind in ("coco", "voc", None):
        dataset = load_dataset(tmp_path, format=kind, val=0)
        check(dataset)
        assert all(image.startswith(f"{kind or 'coco'}/") for image in dataset.image_ids)
    assert "say the same 5 boxes in 4 images (told by their file names" in dataset.notes[0]
    edit(tmp_path / "voc/Annotations/train/b.xml", "<xmin>2<", "<xmin>9<")
    with pytest.raises(
        DatasetFormatError, match=r"coco/images/train/b\.jpg: COCO, 1020: dog \(1, 1, 47, 20\)"
    ):
        load_dataset(tmp_path)


def test_of_three_that_differ_each_is_named(tmp_path: Path) -> None:
    moved(several(tmp_path, "coco", "voc", "csv"))
    with pytest.raises(DatasetFormatError, match="could be COCO or Pascal VOC or CSV") as caught:
        load_dataset(tmp_path)
    assert "COCO, 1010: cat (4, 6, 20, 30); CSV, line 2: cat (9, 6, 20, 30)" in str(caught.value)
    assert "1 in Pascal VOC alone" not in str(caught.value)


def test_labels_that_lie_in_both_are_not_lost(tmp_path: Path) -> None:
    """Train as VOC, val as CSV: neither is the whole."""
    several(tmp_path, "voc", "csv")
    for stem in of("val"):
        (tmp_path / f"Annotations/val/{stem}.xml").unlink()
    (tmp_path / "train_labels.csv").unlink()
    with pytest.raises(DatasetFormatError, match=r"od\.concatenate") as caught:
        load_dataset(tmp_path)
    assert "labelled in Pascal VOC alone: 2 images with 3 boxes" in str(caught.value)
    assert "labelled in CSV alone: 1 image with 2 boxes" in str(caught.value)


def test_a_format_that_says_a_part_of_the_same_is_said(tmp_path: Path) -> None:
    dataset = load_dataset(tutorial(tmp_path, test=False), val=0)
    check(dataset, splits=False)
    assert dataset.format == "voc"
    assert "say the same 3 boxes in 2 images" in dataset.notes[0]
    assert "CSV says nothing of 1 image more" in dataset.notes[0]


def test_splits_that_only_the_other_tells_are_kept(tmp_path: Path) -> None:
    pictures(tmp_path, "images/{stem}.jpg")
    for stem in SIZES:
        put(tmp_path / f"annotations/{stem}.xml", voc(stem))
    put_csv(tmp_path)
    dataset = load_dataset(tmp_path)
    check(dataset)
    assert dataset.format == "voc"
    assert "splits of CSV" in dataset.notes
    (tmp_path / "val_labels.csv").unlink()
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.split_counts() == {"train": 2}
    assert "splits of CSV; 2 images that it does not name in no split" in dataset.notes


@pytest.mark.parametrize("same", [True, False])
def test_text_files_beside_images_stay_the_weakest(tmp_path: Path, same: bool) -> None:
    several(tmp_path, "voc", "yolo")
    (tmp_path / "data.yaml").unlink()  # now the classes have numbers, and no names
    if not same:
        put(tmp_path / "labels/train/b.txt", "1 0.5 0.5 0.1 0.1\n")
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.format == "voc"
    check(dataset)
    said = [note for note in dataset.notes if "text files beside the images say something else" in note]
    assert bool(said) != same
    if said:
        assert (
            "images/train/b.jpg: Pascal VOC, object 1: dog (1, 1, 47, 20); YOLO, line 1: class 1 (" in said[0]
        )
        assert 'format="yolo"' in said[0]


def test_what_cannot_be_read_or_says_nothing_is_left_aside(tmp_path: Path) -> None:
    several(tmp_path, "voc")
    put(tmp_path / "data.yaml", "train: pictures/train\nnames: [cat, dog]\n")  # of another machine
    put(tmp_path / "images.json", {**coco(), "annotations": []})
    dataset = load_dataset(tmp_path, val=0)
    check(dataset)
    assert dataset.format == "voc"
    notes = "\n".join(dataset.notes)
    assert "YOLO is left aside: " in notes
    assert "leads to no images" in notes
    assert "COCO is left aside: it holds no box in 4 images" in notes


def test_what_is_broken_is_not_passed_over(tmp_path: Path) -> None:
    several(tmp_path, "voc")
    put(tmp_path / "train.json", '{"images": [')
    with pytest.raises(
        DatasetFormatError, match=r"(?s)train\.json is no JSON.*Pascal VOC is there too.*--format voc"
    ):
        load_dataset(tmp_path)
    check(load_dataset(tmp_path, format="voc"))


def test_names_that_are_made_up_are_no_reason_to_be_read(tmp_path: Path) -> None:
    several(tmp_path, "yolo", "csv")
    put(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnc: 2\n")
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.format == "csv"
    check(dataset)


# -- partners against brute force --------------------------------------------------------------------------------------


def labels(title: str, images: int, found: list[tuple[int, int, Any]], names: list[str]) -> Labels:
    """What a format says, made of (image, class, box)."""
    data = Gathered(Folder(Path("/nowhere")), title, names)
    for image in range(images):
        data.add_image(f"{image}.jpg", (400, 400))
    boxes = np.array([box for *_, box in found], np.float64).reshape(-1, 4)
    ids = [f"box {k}" for k in range(len(found))]
    data.add_boxes(boxes, [label for _, label, _ in found], [image for image, *_ in found], ids)
    return Labels(title, data)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("whole", [True, False], ids=["whole pixels", "fractions"])
def test_boxes_in_any_order_find_their_partners(seed: int, whole: bool) -> None:
    """Crowded images, shuffled, class tables in another order, with some boxes taken out and others put in."""
    rng = np.random.default_rng(seed)
    images, classes, count = 5, 3, 400
    corners = rng.integers(0, 80, (count, 2)) * 4  # so that many share an edge
    boxes = np.concatenate([corners, corners + rng.integers(10, 60, (count, 2))], axis=1).astype(float)
    where = np.stack([rng.integers(0, images, count), rng.integers(0, classes, count)], axis=1)
    _, first = np.unique(np.concatenate([where, boxes], axis=1), axis=0, return_index=True)
    boxes, where = boxes[first], where[first]
    shift = np.array([*[int(rng.integers(-1, 2))] * 2, *[int(rng.integers(-1, 2))] * 2])
    other = boxes + shift + (0 if whole else rng.uniform(-0.45, 0.45, boxes.shape))
    gone, new = (int(k) for k in rng.integers(0, 9, 2))
    keep = rng.permutation(len(boxes))[gone:]
    added = np.array([[1000 + 50 * k, 0, 1020 + 50 * k, 30] for k in range(new)], float).reshape(-1, 4)
    mine = [(int(i), int(c), box) for (i, c), box in zip(where, boxes, strict=True)]
    yours = [(int(where[k, 0]), classes - 1 - int(where[k, 1]), other[k]) for k in keep]
    yours += [(0, 0, box) for box in added]
    names = [f"class of {k}" for k in range(classes)]
    found = compare(labels("A", images, mine, names), labels("B", images, yours, names[::-1]))
    assert found.alone == (gone, new)
    assert found.shift == (shift[0], shift[2])
    assert found.boxes == (len(mine), len(yours))
    assert found.same == (gone == new == 0)
    assert (found.apart > 0) == (not whole)


def test_thousands_of_boxes_in_one_image_cost_no_more_than_their_order(tmp_path: Path) -> None:
    box = [10, 10, 20, 20]
    many = [(0, 0, box)] * 20_000
    assert compare(labels("A", 1, many, ["a"]), labels("B", 1, many, ["a"])).same
    found = compare(labels("A", 1, many, ["a"]), labels("B", 1, [*many[1:], (0, 0, [0, 0, 9, 9])], ["a"]))
    assert found.alone == (1, 1)


def test_differences_of_no_common_image_are_said() -> None:
    found = compare(labels("A", 2, [(0, 0, [1, 2, 3, 4])], ["a"]), labels("B", 0, [], ["a"]))
    assert not found.same
    assert found.differences() == ["labelled in A alone: 1 image with 1 box, 0.jpg for one"]


def test_rows_are_those_of_the_dataset(tmp_path: Path) -> None:
    """Whatever order the rows came in, an example names the box that is meant."""
    several(tmp_path, "voc", "csv")
    moved(tmp_path)
    lines = (tmp_path / "train_labels.csv").read_text().splitlines()
    put(tmp_path / "train_labels.csv", "\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    with pytest.raises(DatasetFormatError, match=r"CSV, line 4: cat \(9, 6, 20, 30\)"):
        load_dataset(tmp_path)
    dataset: Dataset = load_dataset(tmp_path, format="csv")
    assert ("cat", [9, 6, 20, 30]) in rows(dataset, by_stem(dataset)["a"])


@pytest.mark.parametrize("other", ["yolo", "voc"])
def test_crowds_that_the_other_has_not_are_no_difference(tmp_path: Path, other: str) -> None:
    several(tmp_path, "coco", other)
    path = tmp_path / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"].append(
        {**content["annotations"][0], "id": 9, "bbox": [1, 1, 30, 30], "iscrowd": 1}
    )
    put(path, content)
    dataset = load_dataset(tmp_path, val=0)
    assert (dataset.format, dataset.num_boxes, dataset.box_crowd.sum()) == ("coco", 6, 1)
    assert f"say the same 5 boxes in 4 images; {READERS[other].title} lacks 1 crowd" in dataset.notes[0]
    content["annotations"][-1]["iscrowd"] = 0
    put(path, content)
    with pytest.raises(DatasetFormatError, match="1 in COCO alone"):
        load_dataset(tmp_path)


def test_crowds_that_the_other_has_as_plain_boxes_are_the_same_boxes(tmp_path: Path) -> None:
    several(tmp_path, "coco", "yolo")
    path = tmp_path / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    put(path, content)
    dataset = load_dataset(tmp_path, val=0)
    check(dataset)
    assert "crowd" not in dataset.notes[0]


def test_images_that_text_files_alone_label_are_a_finding(tmp_path: Path) -> None:
    several(tmp_path, "csv", "yolo")
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "val_labels.csv").unlink()
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.format == "csv"
    (problem,) = [p for p in dataset.source_problems if p.kind == "text_labels_left_out"]
    assert problem.severity == "warning"
    assert "labelled in YOLO alone: 1 image with 2 boxes, images/val/c.jpg for one" in problem.message


def test_what_is_left_aside_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    several(tmp_path, "voc")
    put(tmp_path / "train.record", b"")  # of a script that failed
    dataset = load_dataset(tmp_path, val=0)
    check(dataset)
    aside = f"TFRecord is left aside: it holds no image; {tmp_path}/train.record: record 1: the file is empty"
    assert aside in dataset.notes
