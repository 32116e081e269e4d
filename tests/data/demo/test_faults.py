"""Faults planted into the demo: recorded, really there, found by the audit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import odkit as od
from odkit.data.boxes import box_iou
from odkit.data.demo.dataset import demo_dataset, write_demo
from odkit.data.demo.faults import demo_faults
from odkit.data.demo.parts import demo_image
from odkit.data.image_facts import file_hash
from tests.data.demo.read_back import contents_of, labels_of

LABEL_FAULTS = {
    "no_area",
    "inverted",
    "outside",
    "partly_outside",
    "tiny",
    "duplicate_box",
    "two_classes",
    "wrong_class",
    "bad_box",
    "missing_box",
    "spurious_box",
    "class_name_variant",
    "unused_class",
}


FILE_FAULTS = {
    "duplicate_image",
    "duplicate_across_splits",
    "image_without_labels",
    "missing_image",
    "unreadable_image",
    "wrong_size",
    "exif_orientation",
}


def test_every_kind_is_planted_and_recorded(faulty: Path) -> None:
    faults = demo_faults(faulty)
    assert {fault["kind"] for fault in faults} == LABEL_FAULTS | FILE_FAULTS
    ids = [fault["image"] for fault in faults if fault["image"]]
    assert len(set(ids)) == len(ids)  # one fault an image: what is found there is that fault


def test_the_record_is_not_taken_for_labels(faulty: Path) -> None:
    dataset = od.load_dataset(faulty, val=0)
    assert dataset.format == "coco"
    assert not [note for note in dataset.notes if "left aside" in note]


def test_no_faults_recorded_in_a_clean_demo(clean: Path) -> None:
    with pytest.raises(FileNotFoundError, match="faults=True"):
        demo_faults(clean)


def test_faults_are_really_in_the_labels(faulty: Path) -> None:
    labels = labels_of(faulty)
    for fault in demo_faults(faulty):
        kind, image = fault["kind"], labels.get(fault["image"])
        if fault["annotation"] is not None:
            box, name = image["labels"][fault["annotation"]]
            assert box == fault["box"]
            left, top, right, bottom = box
            width, height = image["width"], image["height"]
        if kind == "no_area":
            assert (right - left) * (bottom - top) == 0
        elif kind == "inverted":
            assert right < left
            assert bottom < top
        elif kind == "outside":
            assert left >= width
        elif kind == "partly_outside":
            assert min(left, top) < 0 or right > width or bottom > height
        elif kind == "tiny":
            assert max(right - left, bottom - top) <= 1
        elif kind == "duplicate_box":
            assert image["labels"][fault["annotations"][0]] == (box, name)
        elif kind == "two_classes":
            assert image["labels"][fault["annotations"][0]] == (box, fault["true_class"])
            assert name != fault["true_class"]
        elif kind == "wrong_class":
            assert name == fault["class"] != fault["true_class"]
        elif kind == "bad_box":
            overlap = box_iou(np.array([box], np.float32), np.array([fault["true_box"]], np.float32))[0, 0]
            assert 0.2 < overlap < 0.75
        elif kind == "missing_box":
            assert fault["true_box"] not in [b for b, _ in image["labels"].values()]
        elif kind == "spurious_box":
            others = [b for k, (b, _) in image["labels"].items() if k != fault["annotation"]]
            assert box_iou(np.array([box], np.float32), np.array(others, np.float32)).max() == 0
        elif kind == "class_name_variant":
            names = [name for image in labels.values() for key, (_, name) in image["labels"].items()
                     if key in fault["annotations"]]  # fmt: skip
            assert names
            assert set(names) == {"Washer "}


def test_faults_are_really_in_the_files(faulty: Path) -> None:
    labels = labels_of(faulty)
    for fault in demo_faults(faulty):
        kind, path = fault["kind"], faulty / str(fault["image"])
        if kind in ("duplicate_image", "duplicate_across_splits"):
            twin = fault["other_image"]
            assert file_hash(path) == file_hash(faulty / twin) != ""
            assert list(labels[twin]["labels"].values()) == list(labels[fault["image"]]["labels"].values())
            assert (labels[twin]["split"] == labels[fault["image"]]["split"]) == (kind == "duplicate_image")
        elif kind == "image_without_labels":
            assert path.is_file()
            assert fault["image"] not in labels
        elif kind == "missing_image":
            assert not path.exists()
            assert fault["image"] in labels
        elif kind == "unreadable_image":
            with Image.open(path) as image, pytest.raises(OSError, match="truncated"):
                image.load()
        elif kind == "wrong_size":
            with Image.open(path) as image:
                assert list(image.size) == fault["true_size"] != [labels[fault["image"]]["width"], 0]
                assert image.width != labels[fault["image"]]["width"]
        elif kind == "exif_orientation":
            with Image.open(path) as image:
                assert image.getexif()[0x0112] == 6
                assert image.size == (labels[fault["image"]]["width"], labels[fault["image"]]["height"])
                assert list(image.size) == fault["true_size"][::-1]


def test_boxes_of_the_turned_image_lie_on_the_stored_pixels(faulty: Path) -> None:
    """Turning the scene as it was stored puts every object where its label says."""
    labels = labels_of(faulty)
    fault = next(f for f in demo_faults(faulty) if f["kind"] == "exif_orientation")
    index = int(fault["image"][-8:-4])
    rgb, boxes, _ = demo_image(3, index)
    stored = np.asarray(Image.open(faulty / fault["image"]), np.float32)
    assert np.abs(stored - np.rot90(rgb)).mean() < 12
    for (left, top, right, bottom), (box, _) in zip(
        boxes, labels[fault["image"]]["labels"].values(), strict=True
    ):
        there = np.zeros(rgb.shape[:2], bool)
        there[int(top) : int(bottom), int(left) : int(right)] = True
        rows, columns = np.nonzero(np.rot90(there))
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_planting_is_deterministic(faulty: Path, tmp_path: Path) -> None:
    again = write_demo(tmp_path / "again", images=60, seed=3, faults=True)
    assert contents_of(again) == contents_of(faulty)


def test_the_audit_finds_every_fault_it_can_see(faulty: Path) -> None:
    """All kinds but those that only a detector can tell: a wrong class, a bad, missing or spurious box."""
    dataset = demo_dataset(60, seed=3, faults=True, folder=faulty)
    findings = od.audit(dataset).findings
    found = {(f.kind, f.image) for f in findings}
    kinds = {f.kind for f in findings}
    for fault in demo_faults(dataset):
        if fault["kind"] in ("wrong_class", "bad_box", "missing_box", "spurious_box"):
            continue
        if fault["kind"] in ("class_name_variant", "unused_class", "image_without_labels"):
            assert fault["kind"] in kinds
        elif fault["kind"] in ("duplicate_image", "duplicate_across_splits"):
            assert {(fault["kind"], fault["image"]), (fault["kind"], fault["other_image"])} & found, fault
        else:
            assert (fault["kind"], fault["image"]) in found, fault


def test_repaired_demo_can_be_trained_on(faulty: Path) -> None:
    repaired = od.repaired(demo_dataset(60, seed=3, faults=True, folder=faulty))
    assert [f for f in od.audit(repaired).findings if f.severity == "fatal"] == []
