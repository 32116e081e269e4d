"""CVAT's XML: shapes, subsets, videos, and files that are wrong."""

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from odkit.data.formats.write import write_dataset
from tests.data.formats.layouts import (
    NAMES,
    by_stem,
    check,
    coco_as_published,
    cvat,
    cvat_project,
    cvat_task,
    kinds,
    pictures,
    put,
    rows,
)

HALF = math.sqrt(0.5)
SHAPES = [
    (
        '<box label="cat" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90.0"/>',
        [15, 5, 25, 25],
        "1 box at an angle",
    ),
    (
        '<box label="cat" xtl="10" ytl="10" xbr="30" ybr="20" rotation="315"/>',
        [20 - 15 * HALF, 15 - 15 * HALF, 20 + 15 * HALF, 15 + 15 * HALF],
        "1 box at an angle",
    ),
    ('<box label="cat" xtl="10" ytl="10" xbr="30" ybr="20" rotation="0.00"/>', [10, 10, 30, 20], ""),
    ('<polygon label="cat" points="5.5,6;20,7.25;11,40.5"/>', [5.5, 6, 20, 40.5], "1 polygon"),
    ('<ellipse label="cat" cx="20" cy="20" rx="10" ry="4"/>', [10, 16, 30, 24], "1 ellipse"),
    ('<ellipse label="cat" cx="20" cy="20" rx="10" ry="4" rotation="90"/>', [16, 10, 24, 30], "1 ellipse"),
    ('<mask label="cat" rle="2, 3" left="7" top="8" width="5" height="1"/>', [7, 8, 12, 9], "1 mask"),
]


@pytest.mark.parametrize(("shape", "box", "note"), SHAPES, ids=[shape[:70] for shape, _, _ in SHAPES])
def test_shapes_become_upright_boxes(tmp_path: Path, shape: str, box: list[float], note: str) -> None:
    put(tmp_path / "annotations.xml", cvat(extra=shape))
    pictures(tmp_path, "images/{stem}.jpg")
    dataset = load_dataset(tmp_path)
    name, found = rows(dataset, by_stem(dataset)["a"])[2]
    assert name == "cat"
    np.testing.assert_allclose(found, box, atol=1e-4)
    told = [text for text in dataset.notes if "upright" in text]
    assert told == ([f"read as upright boxes: {note}"] if note else [])


def test_what_has_no_box_is_counted(tmp_path: Path) -> None:
    lines = (
        '<polyline label="cat" points="1,2;3,4"/>' * 2
        + '<points label="cat" points="1,2"/><tag label="dog"/>'
    )
    put(tmp_path / "annotations.xml", cvat(extra=lines))
    pictures(tmp_path, "images/{stem}.jpg")
    dataset = load_dataset(tmp_path)
    check(dataset, splits=False)
    assert "left out, as they have no box: 2 polylines, 1 set of points and 1 tag" in dataset.notes


@pytest.mark.parametrize(
    ("shape", "kind", "boxes"),
    [
        ('<box label="cat" xtl="1" ytl="2" xbr="3"/>', "unreadable_label", 5),
        ('<box label="cat" xtl="1" ytl="2" xbr="three" ybr="4"/>', "unreadable_label", 5),
        ('<box label="cat" xtl="1" ytl="2" xbr="nan" ybr="4"/>', "unreadable_label", 5),
        ('<box label="cat" xtl="1" ytl="2" xbr="3" ybr="4" rotation="up"/>', "unreadable_label", 5),
        ('<polygon label="cat" points="1,2;3"/>', "unreadable_label", 5),
        ('<polygon label="cat"/>', "unreadable_label", 5),
        ('<box xtl="1" ytl="2" xbr="3" ybr="4"/>', "unknown_class", 6),
        ('</image><image id="9" width="3" height="4">', "unreadable_label", 5),
        ('</image><image id="9" name="../../etc/x.jpg" width="3" height="4">', "path_outside", 5),
    ],
)
def test_a_shape_that_is_wrong(tmp_path: Path, shape: str, kind: str, boxes: int) -> None:
    path = put(tmp_path / "annotations.xml", cvat(extra=shape))
    pictures(tmp_path, "images/{stem}.jpg")
    dataset = load_dataset(tmp_path)
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity, problem.file) == (kind, "fatal", str(path))
    assert dataset.num_boxes == boxes
    assert dataset.class_names == tuple(NAMES)


def test_a_label_that_the_table_lacks_follows_it(tmp_path: Path) -> None:
    put(tmp_path / "annotations.xml", cvat(extra='<box label="ant" xtl="1" ytl="2" xbr="3" ybr="4"/>'))
    pictures(tmp_path, "images/{stem}.jpg")
    assert load_dataset(tmp_path).class_names == (*NAMES, "ant")


def test_parts_of_skeletons_are_no_classes(tmp_path: Path) -> None:
    part = "<label><name>elbow</name><type>points</type><parent>arm</parent></label></labels>"
    put(tmp_path / "annotations.xml", cvat().replace("</labels>", part))
    pictures(tmp_path, "images/{stem}.jpg")
    check(load_dataset(tmp_path), splits=False)


def test_videos_are_refused_with_the_way_out(tmp_path: Path) -> None:
    track = '<track id="0" label="cat"><box frame="0" xtl="1" ytl="2" xbr="3" ybr="4" outside="0"/></track>'
    put(tmp_path / "annotations.xml", f"<annotations><version>1.1</version>{track}</annotations>")
    pictures(tmp_path, "images/{stem}.jpg")
    with pytest.raises(
        DatasetFormatError, match=r"annotations\.xml is CVAT's format for videos .*for images 1\.1"
    ):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (cvat()[:400], "no XML"),
        ('<!DOCTYPE a [<!ENTITY a "aaaa">]>\n' + cvat(), "DOCTYPE"),
        ("<a>" + cvat().partition("?>")[2] + "</a>", "its root is <a>"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: str, word: str) -> None:
    put(tmp_path / "annotations.xml", content)
    pictures(tmp_path, "images/{stem}.jpg")
    with pytest.raises(DatasetFormatError, match=r"annotations\.xml.*" + word):
        load_dataset(tmp_path)


def test_an_image_in_two_tasks(tmp_path: Path) -> None:
    cvat_task(tmp_path)
    put(tmp_path / "more.xml", cvat("val").replace('xtl="12', 'xtl="13'))
    dataset = load_dataset(tmp_path)
    assert dataset.num_boxes == 6  # the one that differs; the other is the same box
    assert kinds(dataset) == ["image_listed_twice"] * 2


def test_straight_to_the_file(tmp_path: Path) -> None:
    cvat_project(tmp_path)
    check(load_dataset(tmp_path / "annotations.xml"))


def test_cvat_is_written_as_cvat_reads_it(tmp_path: Path) -> None:
    coco_as_published(tmp_path / "source")
    folder = write_dataset(load_dataset(tmp_path / "source"), tmp_path / "written", "cvat")
    root = ET.parse(folder / "annotations.xml").getroot()
    assert (root.tag, root.findtext("version")) == ("annotations", "1.1")
    assert [label.findtext("name") for label in root.iterfind("meta/project/labels/label")] == NAMES
    assert [subset.text for subset in root.iterfind("meta/project/tasks/task/subset")] == ["train", "val"]
    assert next(image.attrib for image in root.iterfind("image")) == {
        "id": "0",
        "name": "a.jpg",
        "subset": "train",
        "width": "64",
        "height": "48",
    }
    assert root.findall("image")[0].findall("box")[1].attrib == {
        "label": "dog",
        "source": "manual",
        "occluded": "0",
        "xtl": "10.5",
        "ytl": "0.0",
        "xbr": "64.0",
        "ybr": "48.0",
        "z_order": "0",
    }
    assert sorted(path.name for path in (folder / "images").iterdir()) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
