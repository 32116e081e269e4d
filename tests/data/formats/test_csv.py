"""CSV: columns, quoting, encodings, and whatever is wrong in it."""

from pathlib import Path

import pytest

from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from tests.data.formats.layouts import BOXES, SIZES, check, csv_one_file, csv_rows, picture, pictures, put

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


def relative_rows(header: str = "filename,class,xmin,ymin,xmax,ymax\n", name: str = "{stem}.jpg") -> str:
    """The truth with corners as shares of the image's sides."""
    lines = [header]
    for stem, (width, height) in SIZES.items():
        start = name.format(stem=stem)
        for class_name, (x1, y1, x2, y2) in BOXES[stem]:
            lines.append(f"{start},{class_name},{x1 / width},{y1 / height},{x2 / width},{y2 / height}\n")
        if not BOXES[stem]:
            lines.append(f"{start},,,,,\n")
    return "".join(lines)


@pytest.mark.parametrize("declared", [False, True])
def test_corners_in_0_to_1_are_shares_of_the_sides(tmp_path: Path, declared: bool) -> None:
    put(tmp_path / "labels.csv", relative_rows())
    pictures(tmp_path, "images/{stem}.jpg")
    if declared:
        put(
            tmp_path / "labels.csv",
            "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,640,480,cat,0.25,0.5,0.75,1\n"
            "b.jpg,100,50,dog,0,0,1,1\nc.jpg,80,60,cat,0,0,0,0\n",
        )
    dataset = load_dataset(tmp_path, val=0)
    assert any("corners as shares of the image's sides" in note for note in dataset.notes)
    if (
        declared
    ):  # of the size that the labels were made for; whether it is the file's is for the audit to say
        assert dataset.boxes.tolist() == [[160, 240, 480, 480], [0, 0, 100, 50], [0, 0, 0, 0]]
    else:
        check(dataset, splits=False)


@pytest.mark.parametrize(
    ("rows", "line", "words", "boxes"),
    [
        ("a.jpg,cat,3,4,20,30\nb.jpg,dog,5,6,20,30\na.jpg,cat,0.1,0.2,0.5,0.6\n", 4, "within 0 to 1", 2),
        ("a.jpg,cat,3,4,20,30\nb.jpg,dog,5,6,20,30\na.jpg,cat,0,0,1,1\n", 4, "within 0 to 1", 2),
        ("a.jpg,cat,0.1,0.2,0.5,0.6\na.jpg,cat,3,4,20,30\nb.jpg,dog,0,0,1.01,0.5\n", 3, "no shares", 2),
    ],
    ids=["a share among pixels", "a whole image among pixels", "pixels among shares"],
)
def test_shares_and_pixels_in_one_file(tmp_path: Path, rows: str, line: int, words: str, boxes: int) -> None:
    put(tmp_path / "labels.csv", "filename,class,xmin,ymin,xmax,ymax\n" + rows)
    pictures(tmp_path, "{stem}.jpg")
    dataset = load_dataset(tmp_path, val=0)
    (problem,) = [p for p in dataset.source_problems if p.severity == "fatal"]
    assert (problem.kind, problem.box) == ("unreadable_label", f"line {line}")
    assert words in problem.message
    assert dataset.num_boxes == boxes


def test_zeros_for_no_box_leave_pixels_pixels(tmp_path: Path) -> None:
    rows = "a.jpg,cat,3,4,20,30\nb.jpg,dog,0,0,0,0\nc.jpg,dog,0,0,0,0\n"
    put(tmp_path / "labels.csv", "filename,class,xmin,ymin,xmax,ymax\n" + rows)
    pictures(tmp_path, "{stem}.jpg")
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.boxes.tolist() == [[3, 4, 20, 30], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_shares_of_an_image_that_cannot_be_read_have_no_place(tmp_path: Path) -> None:
    put(tmp_path / "labels.csv", relative_rows())
    pictures(tmp_path, "images/{stem}.jpg")
    put(tmp_path / "images/b.jpg", b"no image")
    dataset = load_dataset(tmp_path, val=0)
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.image) == ("unreadable_label", "images/b.jpg")
    assert "size is not known" in problem.message
    assert dataset.num_boxes == 4


def test_names_without_a_suffix_find_their_images(tmp_path: Path) -> None:
    put(tmp_path / "labels.csv", relative_rows(name="images/{stem}"))
    pictures(tmp_path, "images/{stem}.jpg")
    check(load_dataset(tmp_path), splits=False)
    put(tmp_path / "labels.csv", relative_rows(name="{stem}"))
    check(load_dataset(tmp_path), splits=False)


def test_open_images_is_not_taken_for_any_csv(tmp_path: Path) -> None:
    """Its boxes may be groups, or of labels that were judged not to be there: that is for its own reader."""
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n"
    put(tmp_path / "boxes.csv", header + "a,xclick,/m/01yrx,1,0.1,0.5,0.2,0.6\n")
    pictures(tmp_path, "images/{stem}.jpg")
    with pytest.raises(DatasetFormatError):
        load_dataset(tmp_path, format="csv")


def test_a_file_that_repeats_the_others_is_left_aside(tmp_path: Path) -> None:
    pictures(tmp_path, "images/{stem}.jpg")
    for split in ("train", "val"):
        put(tmp_path / f"data/{split}_labels.csv", csv_rows(split))
    put(tmp_path / "data/all_labels.csv", csv_rows().replace(",4,6,20,30", ",4.0,6,20.0,30"))
    dataset = load_dataset(tmp_path)
    check(dataset)
    others = "data/train_labels.csv, data/val_labels.csv"
    aside = f"CSV: data/all_labels.csv is left aside: all of its rows stand in {others} too"
    assert aside in dataset.notes


def test_of_two_copies_one_is_read(tmp_path: Path) -> None:
    pictures(tmp_path, "images/{stem}.jpg")
    for name in ("labels.csv", "labels_backup.csv"):
        put(tmp_path / name, csv_rows())
    check(load_dataset(tmp_path, val=0), splits=False)
    put(
        tmp_path / "labels_backup.csv", csv_rows() + "d.jpg,50,50,cat,1,1,9,9\n"
    )  # one box more: nothing is lost
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.num_boxes == 6
    assert any("labels.csv is left aside" in note for note in dataset.notes)


def test_what_is_handed_in_to_a_competition_is_no_label(tmp_path: Path) -> None:
    pictures(tmp_path, "images/{stem}.jpg")
    put(tmp_path / "sample_submission.csv", "image_id,class,xmin,ymin,xmax,ymax\nd,cat,0,0,1,1\n")
    assert load_dataset(tmp_path, val=0).num_boxes == 1
    put(tmp_path / "boxes.csv", csv_rows())
    dataset = load_dataset(tmp_path, val=0)
    check(dataset, splits=False)
    assert any("sample_submission.csv is left aside" in note for note in dataset.notes)


def test_only_what_ends_lines_in_files_ends_a_row(tmp_path: Path) -> None:
    """Unicode counts more characters as ends of lines; and a file may be in UTF-16, with an old Mac's ends."""
    pictures(tmp_path, "{stem}.jpg")
    rows = "filename,class,xmin,ymin,xmax,ymax\ra.jpg,big\u2028cat,1,2,30,40\rb.jpg,big\x85dog,1,2,30,40\r"
    put(tmp_path / "labels.csv", rows.encode("utf-16"))
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.class_names == ("big\x85dog", "big\u2028cat")
    assert dataset.box_ids.tolist() == ["line 2", "line 3"]
    assert [p.kind for p in dataset.source_problems] == ["image_without_labels"] * 2


def test_paths_of_another_machine_are_taken_by_their_ends(tmp_path: Path) -> None:
    csv_one_file(tmp_path)
    path = tmp_path / "labels.csv"
    path.write_text(
        "".join(f"C:\\data\\{line}" if ".jpg" in line else line for line in path.read_text().splitlines(True))
    )
    dataset = load_dataset(tmp_path, val=0)
    check(dataset, splits=False)
    assert any("of another machine" in note for note in dataset.notes)
