"""KITTI's text files: what is left out, and what is wrong in them."""

from pathlib import Path

import pytest

from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from tests.data.formats.layouts import (
    by_stem,
    check,
    kinds,
    kitti_as_published,
    kitti_tao,
    picture,
    put,
    yolo_beside_images,
)

LINE = "cat 0.00 0 -1.58 1 2 3 4 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59"


def test_regions_that_were_not_labelled_are_left_out_and_counted(tmp_path: Path) -> None:
    kitti_as_published(tmp_path)
    dataset = load_dataset(tmp_path)
    check(dataset, splits=False)
    assert "left out: 1 region DontCare, in which nothing was labelled" in dataset.notes
    assert {Path(path).parent.name for path in dataset.image_paths} == {"image_2"}  # not the right camera's


@pytest.mark.parametrize(
    ("line", "kind", "boxes"),
    [
        ("cat 0.00 0 -1.58 1 2 3 4", "unreadable_label", 5),
        (LINE.replace(" 3 4 ", " 3 four "), "unreadable_label", 5),
        (LINE.replace(" 3 4 ", " 3 nan "), "unreadable_label", 5),
        (LINE.replace("cat", "a big cat"), None, 6),  # as datumaro writes such a name
        (LINE + " 0.97", None, 6),  # with a score, as results have it
    ],
)
def test_a_line_that_is_wrong(tmp_path: Path, line: str, kind: str | None, boxes: int) -> None:
    kitti_tao(tmp_path)
    path = tmp_path / "train/labels/b.txt"
    path.write_text(path.read_text() + line + "\n")
    dataset = load_dataset(tmp_path)
    assert [(p.kind, p.file, p.box) for p in dataset.source_problems] == (
        [(kind, str(path), "line 2")] if kind else []
    )
    assert dataset.num_boxes == boxes


def test_a_label_file_without_an_image(tmp_path: Path) -> None:
    kitti_tao(tmp_path)
    (tmp_path / "train/images/a.jpg").unlink()
    dataset = load_dataset(tmp_path)
    assert kinds(dataset) == ["label_without_image"]
    assert len(dataset) == 4


def test_an_empty_label_file_says_that_there_is_nothing_and_none_says_nothing(tmp_path: Path) -> None:
    kitti_tao(tmp_path)
    (tmp_path / "train/labels/b.txt").unlink()
    dataset = load_dataset(tmp_path)
    assert sorted(by_stem(dataset)) == ["a", "c", "d"]
    assert [(p.kind, p.severity) for p in dataset.source_problems] == [("image_without_labels", "info")]


def test_yolo_and_kitti_are_not_taken_for_each_other(tmp_path: Path) -> None:
    kitti_tao(tmp_path / "kitti")
    yolo_beside_images(tmp_path / "yolo")
    for kind, other in (("kitti", "yolo"), ("yolo", "kitti")):
        assert load_dataset(tmp_path / kind).format == kind
        with pytest.raises(DatasetFormatError, match="no dataset that odkit can read as " + other):
            load_dataset(tmp_path / kind, format=other)


def test_text_of_another_kind_is_not_taken_for_it(tmp_path: Path) -> None:
    for stem in "ab":
        picture(tmp_path / f"{stem}.jpg", (9, 9))
        put(
            tmp_path / f"{stem}.txt",
            "a photograph of a cat that sits on a mat and looks at a dog over there\n",
        )
    with pytest.raises(DatasetFormatError, match="no dataset that odkit can read"):
        load_dataset(tmp_path)


def test_a_first_line_that_is_wrong_hides_no_file(tmp_path: Path) -> None:
    kitti_as_published(tmp_path)
    path = tmp_path / "label_2/b.txt"
    path.write_text("dog\n" + path.read_text())
    dataset = load_dataset(tmp_path, val=0)
    assert (dataset.format, dataset.num_boxes) == ("kitti", 5)
    assert kinds(dataset) == ["unreadable_label"]
