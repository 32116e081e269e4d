"""CSV: columns, quoting, encodings, and whatever is wrong in it."""

from pathlib import Path

import pytest

from odkit.data.formats.load import load_dataset
from tests.data.formats.layouts import csv_one_file, picture, put

BAD_ROWS = [
    ("a.jpg,64,48,cat,1,2,3", "unreadable_label"),
    ("a.jpg,64,48,cat,1,2,three,4", "unreadable_label"),
    ("a.jpg,64,48,cat,,,,", "unreadable_label"),
    ("a.jpg,64,48,cat,1,2,nan,4", "unreadable_label"),
    ("a.jpg,64,48,,1,2,3,4", "unknown_class"),
    ("../../etc/x.jpg,64,48,cat,1,2,3,4", "path_outside"),
]


@pytest.mark.parametrize(("row", "kind"), BAD_ROWS, ids=[row for row, _ in BAD_ROWS])
def test_a_row_that_is_wrong(tmp_path: Path, row: str, kind: str) -> None:
    csv_one_file(tmp_path)
    path = tmp_path / "labels.csv"
    path.write_text(path.read_text() + row + "\n")
    dataset = load_dataset(tmp_path)
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity, problem.file) == (kind, "fatal", str(path))
    assert kind == "path_outside" or problem.box == "line 8"
    assert dataset.num_boxes == 5 + (kind == "unknown_class")


def test_a_column_of_splits_and_quoted_cells(tmp_path: Path) -> None:
    header = "filename,class,xmin,ymin,xmax,ymax,split\n"
    text = header + '"a,1.jpg","cat, big",1,2,3,4,valid\nb.jpg,dog,1,2,3,4,TRAIN\n'
    put(tmp_path / "labels.csv", text)
    for name in ("a,1.jpg", "b.jpg"):
        picture(tmp_path / name, (30, 20))
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == ("cat, big", "dog")
    assert dict(zip(dataset.image_ids, dataset.image_splits, strict=True)) == {
        "a,1.jpg": "val",
        "b.jpg": "train",
    }
    assert dataset.image_sizes.tolist() == [[30, 20], [30, 20]]


def test_csv_that_is_not_in_utf_8(tmp_path: Path) -> None:
    csv_one_file(tmp_path)
    path = tmp_path / "labels.csv"
    path.write_bytes(path.read_text().replace("cat", "Löwe").encode("latin-1"))
    assert load_dataset(tmp_path).class_names == ("Löwe", "dog")
