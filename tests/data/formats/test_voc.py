"""Pascal VOC's XML: where pixels count from, parts, difficult objects, and whatever is wrong in it."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import odkit as od
from odkit.data.dataset import Dataset
from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from odkit.data.formats.write import write_dataset
from tests.data.formats.layouts import (
    SIZES,
    by_stem,
    check,
    kinds,
    picture,
    put,
    voc,
    voc_plain,
    voc_with_sets,
)


def one_voc(folder: Path, corners: dict[str, list[list[float]]], **options: Any) -> Dataset:
    """VOC files with the corners just as given, read."""
    for stem, boxes in corners.items():
        tags = ("xmin", "ymin", "xmax", "ymax")
        parts = ["".join(f"<{tag}>{n}</{tag}>" for tag, n in zip(tags, box, strict=True)) for box in boxes]
        things = "".join(f"<object><name>cat</name><bndbox>{part}</bndbox></object>" for part in parts)
        put(folder / f"Annotations/{stem}.xml", voc(stem, boxes=[], extra=things))
        picture(folder / f"JPEGImages/{stem}.jpg", SIZES[stem])
    return load_dataset(folder, val=0, **options)


def test_pixels_count_from_one(tmp_path: Path) -> None:
    dataset = one_voc(tmp_path, {"a": [[1, 1, 64, 48]], "b": [[2.5, 3.25, 9.5, 8]]})
    assert dataset.boxes.tolist() == [[0, 0, 64, 48], [1.5, 2.25, 9.5, 8]]
    assert not any("from 0" in note for note in dataset.notes)


def test_a_corner_at_0_shows_that_pixels_count_from_0(tmp_path: Path) -> None:
    corners = {"a": [[5, 5, 64, 48]], "b": [[3, 0, 9, 8]]}
    dataset = one_voc(tmp_path, corners)
    assert dataset.boxes.tolist() == [[5, 5, 64, 48], [3, 0, 9, 8]]
    assert any("from 0" in note and "first_pixel" in note for note in dataset.notes)


@pytest.mark.parametrize(("first_pixel", "expected"), [(0, [5, 5, 9, 9]), (1, [4, 4, 9, 9])])
def test_the_first_pixel_can_be_told(tmp_path: Path, first_pixel: int, expected: list) -> None:
    dataset = one_voc(tmp_path, {"a": [[5, 5, 9, 9]], "b": [[0, 1, 9, 9]]}, first_pixel=first_pixel)
    assert dataset.boxes[0].tolist() == expected


@pytest.mark.parametrize("first_pixel", [0, 1])
def test_a_click_has_no_area(tmp_path: Path, first_pixel: int) -> None:
    corners = [[7, 7, 7, 7], [7, 9, 7, 20], [3, 9, 20, 9], [3, 3, 4, 4]]
    dataset = one_voc(tmp_path, {"a": corners}, first_pixel=first_pixel)
    width, height = (dataset.boxes[:, 2:] - dataset.boxes[:, :2]).T
    assert (width[:2].tolist(), height[[0, 2]].tolist()) == ([0, 0], [0, 0])
    assert (np.array([height[1], width[2], width[3]]) > 0).all()
    assert [f.box for f in od.audit(dataset).of("no_area")] == ["object 1", "object 2", "object 3"]


def test_classes_are_in_alphabetical_order(tmp_path: Path) -> None:
    names = ["zebra", "ant", "Bee"]
    put(tmp_path / "Annotations/a.xml", voc("a", boxes=[(name, [1, 1, 9, 9]) for name in names]))
    picture(tmp_path / "JPEGImages/a.jpg", SIZES["a"])
    assert load_dataset(tmp_path).class_names == ("Bee", "ant", "zebra")


def test_difficult_objects_are_kept_and_counted(tmp_path: Path) -> None:
    voc_plain(tmp_path)
    path = tmp_path / "Annotations/a.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    dataset = load_dataset(tmp_path)
    check(dataset, splits=False)
    assert any("difficult" in note and "1 object" in note for note in dataset.notes)


def test_boxes_of_parts_are_not_objects(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>"
    voc_plain(tmp_path)
    path = tmp_path / "Annotations/a.xml"
    path.write_text(path.read_text().replace("</object>", part + "</object>"))
    check(load_dataset(tmp_path), splits=False)


LAUGHS = "<!DOCTYPE a [" + "<!ENTITY e0 'ha'>" + "".join(
    f"<!ENTITY e{k} '{f'&e{k - 1};' * 10}'>" for k in range(1, 12)
) + "]>"  # fmt: skip


BAD_XML = [
    ("cut short", voc("b")[:-30], "no XML"),
    ("empty", "", "no XML"),
    ("noise", bytes(range(256)), "zero bytes|no XML"),
    ("other root", "<note/>", "root is"),
    ("laughs", f"{LAUGHS}<annotation><filename>&e11;</filename></annotation>", "DOCTYPE"),
    (
        "outside entity",
        "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><annotation>&x;</annotation>",
        "DOCTYPE",
    ),
    ("lower case", "<!doctype a><annotation/>", "DOCTYPE|no XML"),
    ("utf-16 laughs", f"{LAUGHS}<annotation>&e11;</annotation>".encode("utf-16"), "zero bytes|DOCTYPE"),
    ("undefined entity", "<annotation><filename>&x;</filename></annotation>", "no XML"),
    ("deep", "<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>", ""),
]


@pytest.mark.parametrize(("content", "words"), [row[1:] for row in BAD_XML], ids=[row[0] for row in BAD_XML])
def test_xml_that_is_wrong_is_told_of_and_its_image_dropped(tmp_path: Path, content: Any, words: str) -> None:
    voc_plain(tmp_path)
    put(tmp_path / "Annotations/b.xml", content)
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.num_boxes == 4
    if words:
        (problem,) = [p for p in dataset.source_problems if p.severity == "fatal"]
        assert (problem.kind, problem.image) == ("unreadable_label", "JPEGImages/b.jpg")
        assert problem.file == str(tmp_path / "Annotations/b.xml")
        assert any(word in problem.message for word in words.split("|"))
        assert sorted(by_stem(od.repaired(dataset))) == ["a", "c", "d"]


def corners(xmin: str) -> str:
    return f"<bndbox><xmin>{xmin}</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"


BAD_OBJECTS = [
    ("no box", "<name>cat</name>", "unreadable_label"),
    ("no corner", "<name>cat</name><bndbox><xmin>1</xmin></bndbox>", "unreadable_label"),
    ("words", f"<name>cat</name>{corners('one')}", "unreadable_label"),
    ("nan", f"<name>cat</name>{corners('nan')}", "unreadable_label"),
    ("no name", corners("1"), "unknown_class"),
]


@pytest.mark.parametrize(
    ("thing", "kind"), [row[1:] for row in BAD_OBJECTS], ids=[row[0] for row in BAD_OBJECTS]
)
def test_an_object_that_is_wrong(tmp_path: Path, thing: str, kind: str) -> None:
    voc_plain(tmp_path)
    path = tmp_path / "Annotations/a.xml"
    path.write_text(path.read_text().replace("</annotation>", f"<object>{thing}</object></annotation>"))
    dataset = load_dataset(tmp_path)
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity, problem.box) == (kind, "fatal", "object 3")
    assert dataset.num_boxes == 5 + (kind == "unknown_class")


def test_bccd(bccd: Path) -> None:
    dataset = load_dataset(bccd)
    assert dataset.format == "voc"
    assert dataset.class_names == ("Platelets", "RBC", "WBC")
    assert (len(dataset), dataset.num_boxes) == (292, dataset.num_boxes)
    assert dataset.split_counts() == {"train": 205, "val": 87}
    assert dataset.source_problems == ()
    assert [(Path(f.image).stem, f.box) for f in od.audit(dataset).of("no_area")] == [
        ("BloodImage_00338", "object 13"),
        ("BloodImage_00343", "object 4"),
    ]


def test_voc_is_laid_out_as_published(tmp_path: Path) -> None:
    voc_with_sets(tmp_path / "source")
    folder = write_dataset(load_dataset(tmp_path / "source"), tmp_path / "written", "voc")
    assert (folder / "ImageSets/Main/train.txt").read_text().split() == ["a", "b"]
    assert (folder / "JPEGImages/a.jpg").is_file()
    page = ET.parse(folder / "Annotations/a.xml").getroot()
    told = [page.findtext(key) for key in ("filename", "size/width", "size/height")]
    assert told == ["a.jpg", "64", "48"]
    things = [[thing.findtext("name"), *(float(corner.text or "") for corner in thing.find("bndbox") or ())]
              for thing in page.iter("object")]  # fmt: skip
    assert things == [["cat", 5, 7, 20, 30], ["dog", 11.5, 1, 64, 48]]


def test_lists_of_voc_with_slips(tmp_path: Path) -> None:
    voc_with_sets(tmp_path)
    put(tmp_path / "ImageSets/Main/train.txt", "a.jpg\n\n b \nnowhere\n")
    put(tmp_path / "ImageSets/Main/val.txt", "b\nc\nd\n")
    dataset = load_dataset(tmp_path)
    check(dataset)
    assert kinds(dataset) == ["image_in_two_splits", "listed_without_labels"]


CVAT = (
    '<?xml version="1.0"?><annotations><version>1.1</version><image id="0" name="a.jpg" width="64" height="48">'
    '<box label="cat" xtl="4" ytl="6" xbr="20" ybr="30"/></image></annotations>'
)


def test_cvats_xml_is_not_vocs(tmp_path: Path) -> None:
    put(tmp_path / "annotations.xml", CVAT)
    picture(tmp_path / "images/a.jpg", SIZES["a"])
    with pytest.raises(DatasetFormatError):
        load_dataset(tmp_path, format="voc")
    voc_plain(tmp_path)  # both in one folder: VOC's reader reads VOC's
    dataset = load_dataset(tmp_path, format="voc", val=0)
    assert [p for p in dataset.source_problems if p.severity == "fatal"] == []
    assert "Pascal VOC: 4 XML files with an <annotation>" in dataset.notes


@pytest.mark.parametrize("named", ["a.png", "a.jpg"])
def test_of_images_with_one_stem_the_name_inside_says_which(tmp_path: Path, named: str) -> None:
    for end in ("png", "jpg"):
        picture(tmp_path / f"images/a.{end}", SIZES["a"])
    put(tmp_path / "annotations/a.xml", voc("a", named))
    assert load_dataset(tmp_path, val=0).image_ids.tolist() == [f"images/{named}"]


def test_classes_txt_of_windows_orders_the_classes(tmp_path: Path) -> None:
    voc_plain(tmp_path)
    put(tmp_path / "classes.txt", b"dog\r\ncat\r\n")
    assert load_dataset(tmp_path, val=0).class_names == ("dog", "cat")
