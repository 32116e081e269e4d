"""Spoiled and hostile files give words and no crash."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from odkit.data.audit.inspection import audit
from odkit.data.dataset import Dataset
from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from odkit.data.formats.write import WRITERS, write_dataset
from tests.data.formats.layouts import (
    LABELSTUDIO_FILE,
    coco_as_published,
    coco_one_file,
    createml_roboflow,
    csv_one_file,
    cvat_project,
    kitti_as_published,
    labelme_beside_images,
    labelstudio_json,
    labelstudio_min,
    name_of,
    openimages_as_published,
    picture,
    put,
    tfrecord_a_split,
    tfrecord_one_file,
    tfrecord_packed,
    voc_with_sets,
    yolo_beside_images,
    yolo_list_files,
    yolo_usual,
)


def spoil(content: bytes, rng: random.Random) -> bytes:
    """Cut, doubled, with bytes changed, lines swapped or tokens replaced."""
    how = rng.randrange(7)
    at = rng.randrange(len(content) + 1)
    if how == 0:
        return content[:at]
    if how == 1:
        return content[:at] + rng.randbytes(rng.randrange(1, 30)) + content[at:]
    if how == 2:
        return rng.randbytes(rng.randrange(200))
    if how == 3:
        lines = content.splitlines(keepends=True)
        rng.shuffle(lines)
        return b"".join(lines)
    if how == 4:
        return content[:at] + content
    tokens = [
        b"null",
        b"[]",
        b"{}",
        b"-1",
        b"1e999",
        b"NaN",
        b'"x"',
        b"\xff\xfe",
        b"",
        b"true",
        b"<a>",
        b"../..",
    ]
    numbers = [part for part in content.replace(b",", b" ").split() if part[:1].isdigit()] or [b"a"]
    return content.replace(rng.choice(numbers), rng.choice(tokens), rng.choice([1, 1, -1]))


def read_or_refused(folder: Path) -> Dataset | None:
    """The dataset, or None where it was refused in words that name the place."""
    try:
        return load_dataset(folder)
    except DatasetFormatError as error:
        words = str(error)
    assert str(folder) in words
    return None


SPOILED = [
    (coco_one_file, "labels.json"),
    (coco_as_published, "annotations/instances_val2017.json"),
    (voc_with_sets, "Annotations/a.xml"),
    (voc_with_sets, "ImageSets/Main/train.txt"),
    (yolo_usual, "data.yaml"),
    (yolo_usual, "labels/train/a.txt"),
    (yolo_list_files, "train.txt"),
    (yolo_beside_images, "classes.txt"),
    (csv_one_file, "labels.csv"),
    (tfrecord_one_file, "pets.tfrecord"),
    (tfrecord_packed, "data/pets.tfrecords.gz"),
    (tfrecord_a_split, "label_map.pbtxt"),
    (openimages_as_published, "validation-annotations-bbox.csv"),
    (openimages_as_published, "class-descriptions-boxable.csv"),
    (openimages_as_published, "validation-images-boxable-with-rotation.csv"),
    (cvat_project, "annotations.xml"),
    (labelme_beside_images, "a.json"),
    (createml_roboflow, "valid/_annotations.createml.json"),
    (labelstudio_json, LABELSTUDIO_FILE),
    (labelstudio_min, "export.json"),
    (kitti_as_published, "label_2/a.txt"),
]


@pytest.mark.parametrize(("layout", "file"), SPOILED, ids=lambda value: name_of(value) or value)
def test_garbage_gives_words_and_no_crash(tmp_path: Path, layout: Callable, file: str) -> None:
    layout(tmp_path)
    content = (tmp_path / file).read_bytes()
    rng = random.Random(file)
    read = 0
    for _ in range(60):
        (tmp_path / file).write_bytes(spoil(content, rng))
        dataset = read_or_refused(tmp_path)
        if dataset is None:
            continue
        read += 1
        assert np.isfinite(dataset.boxes).all()
        assert all(p.message and p.fix and p.file for p in dataset.source_problems)
    assert read > 0 or file.endswith((".json", "annotations.xml"))


DEEP = 100_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.json", b'{"images": ' + b"[" * DEEP),
        ("labels.json", b'{"images": [], "annotations": {"a": NaN' + b"[" * DEEP),
        ("data.yaml", b"train: a\nnames: " + b"[" * 5000),
        ("data.yaml", b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nnames: [*c, *c]\ntrain: [*c]\n"),
        ("data.yaml", b"!!python/object/apply:os.system ['touch pwned']"),
        ("data.yaml", b"train: images\nnames: {0: {a: b}, 1: [c]}\n"),
        ("data.yaml", b"train: [1, [2], null]\nnames: 3\nnc: 99999999999999\n"),
        ("labels.csv", b"filename,class,xmin,ymin,xmax,ymax\n" + b'"' + b"x" * 200_000),
        ("labels.csv", b"filename,class,xmin,ymin,xmax,ymax\n\0\0\0,\0\n"),
        ("Annotations/a.xml", b"<annotation>" + b"<a>" * DEEP),
        ("annotations.xml", b"<annotations>" + b"<image>" * DEEP),
        ("annotations.xml", b'<annotations><image name="a.jpg"><polygon label="a" points="' + b";," * DEEP),
        ("a.json", b'{"shapes": ' + b"[" * DEEP),
        (
            "a.json",
            b'{"shapes": [{"label": [1], "shape_type": [2], "points": {"a": 1}}], "imagePath": {"a": 1}}',
        ),
        ("labels.json", b'[{"image": "a.jpg", "annotations": [{"label": {}, "coordinates": {"x": [1]}}]}]'),
        ("labels.json", b'[{"image": "a.jpg", "annotations": ' + b"[" * DEEP),
        (
            "labels.json",
            b'[{"data": {"image": "http://[a.jpg"}, "annotations": [{"result": [{"id": [1]}]}]}]',
        ),
        ("labels.json", b'[{"data": {"image": "a.jpg?d="}, "annotations": [{"result": {"value": 1}}]}]'),
        ("labels.json", b'[{"image": "a.jpg", "id": {}, "annotator": 1, "label": [{"rectanglelabels": 3}]}]'),
        (
            "train-annotations-bbox.csv",
            b"ImageID,LabelName,Confidence,XMin,XMax,YMin,YMax\na," + b"x" * 200_000,
        ),
        (
            "train-annotations-bbox.csv",
            b'ImageID,LabelName,Confidence,XMin,XMax,YMin,YMax\n"' + b"x," * 200_000,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_files_made_to_do_harm(tmp_path: Path, name: str, content: bytes) -> None:
    put(tmp_path / name, content)
    picture(tmp_path / "images/a.jpg", (9, 9))
    read_or_refused(tmp_path)
    assert not Path("pwned").exists()


@pytest.mark.parametrize("to", WRITERS)
def test_half_characters_that_no_file_can_hold(tmp_path: Path, to: str) -> None:
    """JSON spells them, Python keeps them, and neither a terminal nor a file takes them."""
    coco_one_file(tmp_path / "pets")
    path = tmp_path / "pets/labels.json"
    text = path.read_text().replace('"cat"', '"ca\\ud800t"').replace("d.jpg", "d\\ud83d.jpg")
    path.write_text(text.replace('"id": 1010,', '"id": "a\\udfff",'))
    dataset = load_dataset(tmp_path / "pets", val=0)
    assert sorted(dataset.class_names) == ["ca{d800}t", "dog"]
    assert "a{dfff}" in dataset.box_ids
    assert any("d{d83d}.jpg" in image_id for image_id in dataset.image_ids)
    assert dataset.fingerprint()
    found = audit(dataset)
    assert "missing_image" in found.counts
    assert found.to_json().decode() and found.table().encode()
    with pytest.warns(UserWarning, match="1 image is missing"):
        written = write_dataset(dataset, tmp_path / "new", to)
    assert load_dataset(written, val=0).num_boxes == dataset.num_boxes
