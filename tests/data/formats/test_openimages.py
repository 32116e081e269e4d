"""Open Images: a part of the published images, groups, codes without names, and rows that are wrong."""

from pathlib import Path

import numpy as np
import pytest

from odkit.data.audit.inspection import audit
from odkit.data.formats.load import load_dataset
from tests.data.formats.layouts import (
    by_stem,
    check,
    kinds,
    openimages,
    openimages_as_published,
    openimages_one_file,
    picture,
    pictures,
    put,
    rows,
)


def with_rows(folder: Path, more: str) -> Path:
    openimages_as_published(folder)
    path = folder / "oidv6-train-annotations-bbox.csv"
    path.write_text(path.read_text() + more)
    return path


def test_labels_of_whole_images_are_left_out_and_counted(tmp_path: Path) -> None:
    openimages_as_published(tmp_path)
    dataset = load_dataset(tmp_path, val=0)
    check(dataset)
    assert "Tortoise" not in dataset.class_names
    assert any("left out: 2 labels of whole images" in note for note in dataset.notes)


def test_a_group_is_a_crowd(tmp_path: Path) -> None:
    with_rows(tmp_path, "b,xclick,/m/01yrx,1,0.25,0.5,0.125,0.25,0,0,1,0,0\n")
    dataset = load_dataset(tmp_path, val=0)
    part = dataset.boxes_of(by_stem(dataset)["b"])
    assert dataset.box_crowd[part].tolist() == [False, True]
    assert rows(dataset, by_stem(dataset)["b"])[1] == ("cat", [12, 8, 24, 16])


def test_what_was_found_not_to_be_there_is_left_out(tmp_path: Path) -> None:
    with_rows(tmp_path, "b,xclick,/m/01yrx,0,0.25,0.5,0.125,0.25,0,0,1,0,0\n")
    dataset = load_dataset(tmp_path, val=0)
    check(dataset)
    assert "left out: 1 row of confidence 0, that is of what is not there" in dataset.notes


def test_columns_that_may_be_missing(tmp_path: Path) -> None:
    header = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated\n"
    put(tmp_path / "boxes.csv", header + "a,cat,0.25,0.5,0.5,1,1,0\na,cat,0,1,0,1,0,1\n")
    picture(tmp_path / "a.jpg", (40, 20))
    dataset = load_dataset(tmp_path)
    assert dataset.boxes.tolist() == [[10, 10, 20, 20], [0, 0, 40, 20]]
    assert not dataset.box_crowd.any()


def test_boxes_of_images_that_people_have_not_downloaded(tmp_path: Path) -> None:
    """The published files are of millions of images: one line says how many are not here, not one each."""
    more = "".join(f"{k:016x},xclick,/m/011k07,1,0,1,0,1,0,0,0,0,0\n" for k in range(1, 2000))
    path = with_rows(tmp_path, more + "0000000000000001,xclick,/m/01yrx,1,0,1,0,1,0,0,0,0,0\n")
    dataset = load_dataset(tmp_path, val=0)
    check(dataset)
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity, problem.file) == ("label_without_image", "info", str(path))
    assert "2,000 of its boxes belong to 1,999 images" in problem.message


def test_codes_without_names_are_told_of(tmp_path: Path) -> None:
    openimages_as_published(tmp_path)
    (tmp_path / "class-descriptions-boxable.csv").unlink()
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == ("/m/01yrx", "/m/0bt9lr")
    assert any("class-descriptions-boxable.csv" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("row", "kind", "word"),
    [
        ("a,xclick,/m/01yrx,1,0.1,0.2", "unreadable_label", "6 cells, not 8"),
        (",xclick,/m/01yrx,1,0.1,0.2,0.1,0.2,0,0,0,0,0", "unreadable_label", "names no image"),
        ("a,xclick,/m/01yrx,1,0.1,x,0.1,0.2,0,0,0,0,0", "unreadable_label", "four numbers"),
        ("a,xclick,/m/01yrx,1,0.1,nan,0.1,0.2,0,0,0,0,0", "unreadable_label", "four numbers"),
        ("a,xclick,,1,0.1,0.2,0.1,0.2,0,0,0,0,0", "unknown_class", "no class"),
        ("../../a,xclick,/m/01yrx,1,0.1,0.2,0.1,0.2,0,0,0,0,0", "path_outside", "outside"),
    ],
)
def test_a_row_that_is_wrong(tmp_path: Path, row: str, kind: str, word: str) -> None:
    path = with_rows(tmp_path, row + "\n")
    dataset = load_dataset(tmp_path, val=0)
    (problem,) = [p for p in dataset.source_problems if p.kind != "label_without_image"]
    assert (problem.kind, problem.severity, problem.file) == (kind, "fatal", str(path))
    assert word in problem.message
    assert dataset.num_boxes == 5 + (kind == "unknown_class")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_shares_are_of_the_upright_image(tmp_path: Path, orientation: int) -> None:
    put(tmp_path / "train-annotations-bbox.csv", openimages(None, {"cat": "cat", "dog": "dog"}))
    pictures(tmp_path, "images/{stem}.jpg")
    picture(tmp_path / "images/b.jpg", (60, 30), orientation)
    dataset = load_dataset(tmp_path, val=0)
    row = by_stem(dataset)["b"]
    size = (30, 60) if orientation >= 5 else (60, 30)
    assert tuple(dataset.image_sizes[row]) == size
    shares = np.array([1 / 48, 1 / 64, 47 / 48, 20 / 64]) * [*size, *size]
    np.testing.assert_allclose(dataset.boxes[dataset.boxes_of(row)], [shares], atol=1e-4)
    undecided = audit(dataset, decode=False).of("exif_undecided")
    assert [Path(finding.image).stem for finding in undecided] == (["b"] if orientation > 1 else [])


def test_boxes_of_an_image_that_cannot_be_read_have_no_place(tmp_path: Path) -> None:
    openimages_one_file(tmp_path)
    put(tmp_path / "images/default/a.jpg", b"no image")
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.num_boxes == 3
    assert kinds(dataset) == ["unreadable_label"]
    assert dataset.source_problems[0].image == "images/default/a.jpg"


def test_one_file_of_several(tmp_path: Path) -> None:
    openimages_as_published(tmp_path)
    dataset = load_dataset(tmp_path / "validation-annotations-bbox.csv", val=0)
    assert dataset.format == "openimages"
    assert sorted(by_stem(dataset)) == ["c", "d"]
    assert dataset.class_names == ("cat",)
    assert dataset.split_counts() == {"val": 2}


def test_images_in_relationships_are_not_listed_as_empty(tmp_path: Path) -> None:
    openimages_as_published(tmp_path)
    picture(tmp_path / "train/e.jpg", (20, 20))
    text = "ImageID,LabelName1,LabelName2,XMin1,XMax1,YMin1,YMax1,XMin2,XMax2,YMin2,YMax2,RelationshipLabel\n"
    put(tmp_path / "oidv6-train-annotations-vrd.csv", text + "e,/m/01yrx,/m/0bt9lr,0,1,0,1,0,1,0,1,at\n")
    dataset = load_dataset(tmp_path, val=0)
    assert "e" not in by_stem(dataset)
    assert kinds(dataset) == ["image_without_labels"]
