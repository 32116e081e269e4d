"""YOLO's text files and data.yaml: lines, names, places, and whatever is wrong in them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import odkit as od
from odkit.data.dataset import Dataset
from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from odkit.data.formats.write import write_dataset
from tests.data.formats.layouts import (
    BOXES,
    NAMES,
    by_stem,
    check,
    kinds,
    of,
    picture,
    put,
    rows,
    yolo_beside_images,
    yolo_elsewhere,
    yolo_files,
    yolo_roboflow,
    yolo_usual,
)


def test_in_yolo_an_image_without_a_label_file_is_one_without_objects(tmp_path: Path) -> None:
    yolo_usual(tmp_path)
    dataset = load_dataset(tmp_path)
    assert not (tmp_path / "labels/val/d.txt").exists()
    assert rows(dataset, by_stem(dataset)["d"]) == []
    (finding,) = od.audit(dataset).of("image_without_labels")
    assert finding.image == "images/val/d.jpg"
    assert any("1 image" in note and "without a label file" in note for note in dataset.notes)


def one_yolo(folder: Path, lines: str | bytes, **content: Any) -> Dataset:
    """One image of 100 x 50 with these lines, read."""
    picture(folder / "images/train/a.png", (100, 50))
    put(folder / "labels/train/a.txt", lines)
    put(
        folder / "data.yaml",
        yaml.safe_dump({"train": "images/train", "names": NAMES, **content}, sort_keys=False),
    )
    return load_dataset(folder, val=0)


GOOD_LINES = [
    ("0 0.5 0.5 0.2 0.4", [40, 15, 60, 35]),
    ("1  0.5\t0.5 1 1 \r", [0, 0, 100, 50]),
    ("1.0 5e-1 .5 0.2 0.4", [40, 15, 60, 35]),
    ("0 0.1 0.2 0.5 0.2 0.3 0.8", [10, 10, 50, 40]),  # an outline
    ("0 0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8", [10, 10, 50, 40]),  # a turned box by its corners
    ("0 0.5 0.5 0.2 0.4 0.93", [40, 15, 60, 35]),  # with a confidence
]


@pytest.mark.parametrize(("line", "expected"), GOOD_LINES, ids=[line for line, _ in GOOD_LINES])
def test_lines(tmp_path: Path, line: str, expected: list) -> None:
    dataset = one_yolo(tmp_path, line + "\n")
    assert kinds(dataset) == []
    np.testing.assert_allclose(dataset.boxes, [expected], atol=1e-4)
    assert dataset.box_ids.tolist() == ["line 1"]


def test_key_points_after_the_box(tmp_path: Path) -> None:
    dataset = one_yolo(tmp_path, "0 0.5 0.5 0.2 0.4 0.1 0.1 2 0.2 0.2 2\n", kpt_shape=[2, 3])
    np.testing.assert_allclose(dataset.boxes, [[40, 15, 60, 35]], atol=1e-4)


BAD_LINES = [
    ("0 0.5 0.5 0.2", "unreadable_label"),
    ("cat 0.5 0.5 0.2 0.4", "unreadable_label"),
    ("0 0.5 0.5 0.2 nan", "unreadable_label"),
    ("0 inf 0.5 0.2 0.4", "unreadable_label"),
    ("0.5 0.5 0.5 0.2 0.4", "unreadable_label"),
    ("0 0.5 0.5 0.2 0.4 0.1 0.1 0.3", "unreadable_label"),
    ("0,0.5,0.5,0.2,0.4", "unreadable_label"),
    ("\x00\x01\x02", "unreadable_label"),
    ("7 0.5 0.5 0.2 0.4", "unknown_class"),
    ("-1 0.5 0.5 0.2 0.4", "unknown_class"),
]


@pytest.mark.parametrize(("line", "kind"), BAD_LINES, ids=[repr(line) for line, _ in BAD_LINES])
def test_a_line_that_is_wrong(tmp_path: Path, line: str, kind: str) -> None:
    dataset = one_yolo(tmp_path, f"0 0.5 0.5 0.2 0.4\n{line}\n\n1 0.5 0.5 0.2 0.4\n")
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity) == (kind, "fatal")
    assert (problem.file, problem.image, problem.box) == (
        str(tmp_path / "labels/train/a.txt"),
        "images/train/a.png",
        "line 2",
    )
    assert "line 2" in problem.message
    assert dataset.num_boxes == 2 + (kind == "unknown_class")
    assert (dataset.box_classes == -1).sum() == (kind == "unknown_class")


def test_a_label_file_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    picture(tmp_path / "images/train/a.png", (100, 50))
    picture(tmp_path / "images/train/b.png", (100, 50))
    (tmp_path / "labels/train/b.txt").mkdir(parents=True)  # a folder, where a file should be
    dataset = one_yolo(tmp_path, "0 0.5 0.5 0.2 0.4\n")
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity, problem.image) == (
        "unreadable_label",
        "fatal",
        "images/train/b.png",
    )


NAMES_AND_NC = [
    ({"names": ["yes", "no", "1e3", "null"]}, ("yes", "no", "1e3", "null")),
    ({"names": {0: "cat", 2: "dog"}}, ("cat", "dog")),
    ({"names": {"0": "cat"}}, ("cat",)),
    ({"names": ["a: b", "c # d", " e ", "ñ"]}, ("a: b", "c # d", " e ", "ñ")),
    ({"names": None, "nc": 2}, ("class 0", "class 1")),
    ({"nc": 3}, ("cat", "dog")),
]


@pytest.mark.parametrize(("content", "expected"), NAMES_AND_NC, ids=[str(row[0]) for row in NAMES_AND_NC])
def test_names(tmp_path: Path, content: dict, expected: tuple) -> None:
    dataset = one_yolo(tmp_path, "0 0.5 0.5 0.2 0.4\n", **content)
    assert dataset.class_names == expected
    if "nc" in content:
        assert any("class 0" in note or "nc: 3" in note for note in dataset.notes)


def test_names_as_they_are_usually_written(tmp_path: Path) -> None:
    """Bare words that YAML takes for yes, no and numbers are names all the same."""
    one_yolo(tmp_path, "1 0.5 0.5 0.2 0.4\n")
    put(tmp_path / "data.yaml", "train: images/train\nnames:\n  0: on\n  1: no\n  2: 007\n")
    assert load_dataset(tmp_path).class_names == ("on", "no", "007")


def test_numbers_of_a_sparse_map_of_names(tmp_path: Path) -> None:
    dataset = one_yolo(tmp_path, "5 0.5 0.5 0.2 0.4\n3 0.5 0.5 0.2 0.4\n", names={5: "dog", 2: "cat"})
    assert dataset.class_names == ("cat", "dog")
    assert dataset.box_classes.tolist() == [1, -1]


def test_a_label_without_an_image(tmp_path: Path) -> None:
    put(tmp_path / "labels/train/lost.txt", "0 0.5 0.5 0.2 0.4\n")
    put(tmp_path / "labels/train/classes.txt", "cat\ndog\n")
    dataset = one_yolo(tmp_path, "0 0.5 0.5 0.2 0.4\n")
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity) == ("label_without_image", "warning")
    assert problem.file == str(tmp_path / "labels/train/lost.txt")


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    dataset = one_yolo(tmp_path, "0 0.5 0.5 0.2 0.4\n", test="images/test")
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity) == ("missing_split", "warning")
    assert "images/test" in problem.message


def test_a_data_yaml_that_leads_nowhere(tmp_path: Path) -> None:
    put(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: [cat]\n")
    with pytest.raises(DatasetFormatError, match=r"data.yaml leads to no images .*images/train"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_sizes_are_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    picture(tmp_path / f"images/train/b.{suffix}", (60, 30), orientation)
    put(tmp_path / "labels/train/b.txt", "0 0.5 0.5 0.5 0.5\n")
    dataset = one_yolo(tmp_path, "0 0.5 0.5 0.2 0.4\n")
    size = [30, 60] if orientation >= 5 else [60, 30]
    assert dataset.image_sizes[by_stem(dataset)["b"]].tolist() == size


def test_labels_of_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    put(tmp_path / "images/train/b.jpg", b"no image")
    put(tmp_path / "labels/train/b.txt", "0 0.5 0.5 0.5 0.5\n")
    dataset = one_yolo(tmp_path, "0 0.5 0.5 0.2 0.4\n")
    assert dataset.num_boxes == 1
    assert [p.image for p in dataset.source_problems] == ["images/train/b.jpg"]
    assert od.repaired(dataset).image_ids.tolist() == ["images/train/a.png"]


def test_a_data_yaml_may_lead_elsewhere_but_its_lists_not(tmp_path: Path) -> None:
    yolo_elsewhere(tmp_path / "pets")
    dataset = load_dataset(tmp_path / "pets")
    check(dataset)
    assert dataset.root == tmp_path / "store" / "images"
    assert any(str(tmp_path / "store") in note for note in dataset.notes)


def test_below_beats_beside(tmp_path: Path) -> None:
    """Roboflow's ../train/images means the folder beside data.yaml, even where the other one exists."""
    yolo_roboflow(tmp_path / "pets")
    picture(tmp_path / "train/images/x.jpg", (9, 9))
    check(load_dataset(tmp_path / "pets"))


def test_yolo_is_laid_out_as_its_own_loaders_expect(tmp_path: Path) -> None:
    yolo_usual(tmp_path / "source")
    folder = write_dataset(load_dataset(tmp_path / "source"), tmp_path / "written", "yolo")
    page = yaml.safe_load((folder / "data.yaml").read_text())
    assert page["nc"] == 2
    assert page["names"] == {0: "cat", 1: "dog"}
    for split in ("train", "val"):
        images = sorted((folder / page[split]).iterdir())
        labels = [Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt") for path in images]
        assert [path.stem for path in images] == of(split)
        assert [len(path.read_text().splitlines()) for path in labels] == [
            len(BOXES[stem]) for stem in of(split)
        ]


@pytest.mark.parametrize(
    "content",
    ["train: [images/train\nnames: [cat, dog]\n", "train: images/train\nnames: {cat: 0, dog: 1}\n"],
    ids=["cut short", "names turned round"],
)
def test_a_data_yaml_with_a_slip_is_not_guessed_at(tmp_path: Path, content: str) -> None:
    yolo_usual(tmp_path)
    put(tmp_path / "data.yaml", content)
    with pytest.raises(DatasetFormatError, match=r"data\.yaml"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("told", [True, False], ids=["data.yaml", "no data.yaml"])
@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images", "Annotations"),
        ("images", "annotations"),
        ("images", "labelTxt"),
        ("Images", "Labels"),
        ("photos", "boxes/v1"),
        ("images/{split}", "annotations/{split}"),
        ("{split}/images", "{split}/Annotations"),
        ("{split}", "Annotations"),
    ],
)
def test_labels_where_yolo_does_not_look_are_looked_for(
    tmp_path: Path, images: str, labels: str, told: bool
) -> None:
    yolo_files(tmp_path, images, labels)
    if told:
        places = {split: images.format(split=split) for split in ("train", "val")}
        put(tmp_path / "data.yaml", yaml.safe_dump({**places, "names": NAMES}))
    else:
        put(tmp_path / "classes.txt", "cat\ndog\n")
    dataset = load_dataset(tmp_path, val=0)
    check(dataset, splits="{split}" in images)
    place = labels.format(split="train")
    assert any(
        f"found in {place}: none are in labels/ or beside the images" in note for note in dataset.notes
    )
    assert any("1 image without a label file" in note for note in dataset.notes)


def test_each_split_keeps_its_own_labels(tmp_path: Path) -> None:
    """Numbered anew in each split: what lies in a folder that is another's is not taken, nor what fits two."""
    for split in ("train", "val"):
        for k in range(3):
            picture(tmp_path / f"images/{split}/{k}.png", (100, 50))
            put(tmp_path / f"marks/{split}/{k}.txt", f"{split == 'val':d} 0.5 0.5 0.2 0.4\n")
    put(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    dataset = load_dataset(tmp_path)
    assert dataset.split("train").class_counts() == {"cat": 3, "dog": 0}
    assert dataset.split("val").class_counts() == {"cat": 0, "dog": 3}
    (tmp_path / "marks/train").rename(tmp_path / "images/train/marks")
    for k in range(3):
        (tmp_path / f"marks/val/{k}.txt").unlink()
    dataset = load_dataset(tmp_path)
    assert dataset.num_boxes == 0
    why = "left out, as they fit images of several folders: 3 labels, images/train/marks/0.txt for one"
    assert why in dataset.notes
    assert not any("found in" in note for note in dataset.notes)
    assert dataset.notes[0].startswith("MOST IMAGES HAVE NO LABEL")


DOTA = (
    "imagesource:GoogleEarth\ngsd:0.146343\n"
    "10.0 5.0 30.0 5.0 30.0 20.0 10.0 20.0 small-vehicle 0\n"
    "50 10 60 20 50 30 40 20 plane 1\n"
)


def test_dota(tmp_path: Path) -> None:
    picture(tmp_path / "images/P0001.png", (100, 50))
    picture(tmp_path / "images/P0002.png", (100, 50))
    put(tmp_path / "labelTxt/P0001.txt", DOTA)
    put(tmp_path / "labelTxt/P0002.txt", "imagesource:GoogleEarth\ngsd:null\n")
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.class_names == ("plane", "small-vehicle")
    assert dataset.boxes.tolist() == [[10, 5, 30, 20], [40, 10, 60, 30]]
    assert dataset.box_classes.tolist() == [1, 0]
    assert dataset.box_ids.tolist() == ["line 3", "line 4"]
    assert kinds(dataset) == []
    notes = "\n".join(dataset.notes)
    assert "2 outlines of four corners (a turned box, say) read as upright boxes" in notes
    assert "1 object marked as difficult" in notes
    assert "class 0" not in notes
    put(tmp_path / "classes.txt", "ship\nplane\n")
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.class_names == ("ship", "plane")
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.box) == ("unknown_class", "line 3")
    assert "small-vehicle" in problem.message


def test_turned_boxes_and_outlines_are_counted(tmp_path: Path) -> None:
    lines = (
        "0 0.5 0.5 0.2 0.4\n1 0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8\n"
        "0 0.1 0.2 0.5 0.2 0.3 0.8\n1 0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8 0.05 0.5\n"
    )
    dataset = one_yolo(tmp_path, lines)
    assert dataset.num_boxes == 4
    assert (
        "1 outline of four corners (a turned box, say) and 2 outlines of other corners read as upright boxes"
    ) in dataset.notes


@pytest.mark.parametrize("number", ["inf", "nan", "1e400", "cat", "1.5"])
def test_a_first_line_that_is_wrong_hides_no_split(tmp_path: Path, number: str) -> None:
    yolo_beside_images(tmp_path)
    put(tmp_path / "train/a.txt", f"{number} 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n")
    dataset = load_dataset(tmp_path, val=0)
    assert (dataset.split_counts(), kinds(dataset)) == ({"train": 2, "val": 2}, ["unreadable_label"])


def test_lists_of_images_without_a_data_yaml_are_the_splits(tmp_path: Path) -> None:
    """As darknet has them, written from somewhere else."""
    yolo_files(tmp_path, "data/images", "data/labels")
    for split, file in (("train", "train.txt"), ("val", "valid.txt")):
        put(tmp_path / file, "".join(f"/home/me/darknet/data/images/{stem}.jpg\n" for stem in of(split)))
    put(tmp_path / "obj.names", "cat\ndog\n")
    dataset = load_dataset(tmp_path)
    check(dataset)
    assert "splits of train.txt, valid.txt" in dataset.notes


def test_a_separator_of_unicode_is_part_of_a_class_name(tmp_path: Path) -> None:
    yolo_files(tmp_path, "images/{split}", "labels/{split}")
    put(tmp_path / "classes.txt", "big\u2028cat\r\ndog\r\n")
    assert load_dataset(tmp_path).class_names == ("big\u2028cat", "dog")


@pytest.mark.parametrize(("key", "severity"), [("train", "fatal"), ("val", "warning")])
def test_a_split_that_is_named_and_empty_is_told(tmp_path: Path, key: str, severity: str) -> None:
    yolo_usual(tmp_path, **{key: "images/none"})
    (tmp_path / "images/none").mkdir()
    (problem,) = [p for p in load_dataset(tmp_path, val=0).source_problems if p.kind == "missing_split"]
    assert problem.severity == severity
    assert f"there is no image in {tmp_path / 'images/none'}" in problem.message
