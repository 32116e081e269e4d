"""Reading datasets: layouts are told apart, split names, what is said of what was recognised, and of what was not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import odkit as od
from odkit.data.formats.load import READERS, load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from tests.data.formats.layouts import (
    LABELSTUDIO_FILE,
    LAYOUTS,
    NAMES,
    by_stem,
    check,
    coco,
    coco_as_published,
    coco_images_in_between,
    coco_one_file,
    coco_roboflow,
    createml_apple,
    createml_roboflow,
    csv_a_split,
    csv_one_file,
    csv_roboflow,
    cvat_file_a_task,
    cvat_project,
    cvat_task,
    kinds,
    kitti_as_published,
    labelme_beside_images,
    labelme_split_folders,
    labelstudio_json,
    labelstudio_uploads,
    name_of,
    openimages_as_published,
    openimages_one_file,
    picture,
    pictures,
    put,
    voc_nested,
    voc_plain,
    voc_with_sets,
    yolo_elsewhere,
    yolo_usual,
)


@pytest.mark.parametrize(("kind", "layout", "splits"), LAYOUTS, ids=name_of)
def test_every_layout_is_recognised(tmp_path: Path, kind: str, layout: Callable, splits: bool) -> None:
    folder = tmp_path / "pets"
    folder.mkdir()
    layout(folder)
    dataset = load_dataset(folder, val=0)
    assert dataset.format == kind
    check(dataset, splits=splits)
    if not splits:
        assert dataset.split_counts() == {}
    assert load_dataset(folder, format=kind, val=0).fingerprint() == dataset.fingerprint()


# where the images are the data.yaml's neighbours, the folder above holds two things
BELOW = [row for row in LAYOUTS if row[1] is not yolo_elsewhere]


@pytest.mark.parametrize(("kind", "layout", "splits"), BELOW, ids=name_of)
def test_a_folder_above_will_do(tmp_path: Path, kind: str, layout: Callable, splits: bool) -> None:
    folder = tmp_path / "downloads" / "pets"
    folder.mkdir(parents=True)
    layout(folder)
    check(load_dataset(tmp_path, val=0), splits=False)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (coco_as_published, ["COCO", "annotations/instances_train2017.json", "2 images"]),
        (voc_with_sets, ["Pascal VOC", "4 XML files", "ImageSets/Main/train.txt"]),
        (yolo_usual, ["YOLO", "data.yaml"]),
        (csv_one_file, ["CSV", "labels.csv"]),
        (openimages_as_published, ["Open Images", "validation-annotations-bbox.csv (2 rows)", "shares"]),
        (cvat_task, ["CVAT for images", "annotations.xml", "4 images"]),
        (labelme_beside_images, ["LabelMe", "4 JSON files"]),
        (createml_roboflow, ["CreateML", "valid/_annotations.createml.json", "2 images", "centres"]),
        (labelstudio_json, ["Label Studio", LABELSTUDIO_FILE, "4 tasks", "percent"]),
        (kitti_as_published, ["KITTI", "4 label files"]),
    ],
    ids=name_of,
)
def test_notes_say_what_was_recognised_and_why(tmp_path: Path, layout: Callable, words: list[str]) -> None:
    layout(tmp_path)
    notes = "\n".join(load_dataset(tmp_path).notes)
    assert [word for word in words if word not in notes] == []


def test_a_folder_further_down_is_named_in_the_notes(tmp_path: Path) -> None:
    voc_plain(tmp_path / "VOCdevkit/VOC2007")
    dataset = load_dataset(tmp_path / "VOCdevkit", format="voc")
    check(dataset, splits=False)
    coco_one_file(tmp_path / "downloads/pets/coco")
    dataset = load_dataset(tmp_path / "downloads")
    assert any("downloads/pets" in note for note in dataset.notes)


def test_ids_are_paths_below_the_root(tmp_path: Path) -> None:
    coco_images_in_between(tmp_path)
    dataset = load_dataset(tmp_path)
    assert dataset.root == tmp_path
    assert sorted(dataset.image_ids) == [
        "images/train/a.jpg",
        "images/train/b.jpg",
        "images/val/c.jpg",
        "images/val/d.jpg",
    ]
    assert [str(tmp_path / i) for i in dataset.image_ids] == dataset.image_paths.tolist()


@pytest.mark.parametrize("spell", [str, lambda path: path, os.path.relpath], ids=["str", "Path", "relative"])
def test_any_spelling_of_the_path(tmp_path: Path, spell: Callable) -> None:
    coco_one_file(tmp_path)
    check(load_dataset(spell(tmp_path)), splits=False)


FILES = [
    (coco_as_published, "annotations/instances_val2017.json", "coco", ["c", "d"]),
    (coco_roboflow, "train/_annotations.coco.json", "coco", ["a", "b"]),
    (coco_one_file, "labels.json", "coco", ["a", "b", "c", "d"]),
    (yolo_usual, "data.yaml", "yolo", ["a", "b", "c", "d"]),
    (csv_a_split, "val.csv", "csv", ["c", "d"]),
    (openimages_as_published, "validation-annotations-bbox.csv", "openimages", ["c", "d"]),
    (cvat_project, "annotations.xml", "cvat", ["a", "b", "c", "d"]),
    (cvat_file_a_task, "labels/val.xml", "cvat", ["c", "d"]),
    (createml_roboflow, "valid/_annotations.createml.json", "createml", ["c", "d"]),
    (labelstudio_json, LABELSTUDIO_FILE, "labelstudio", ["a", "b", "c", "d"]),
]


@pytest.mark.parametrize(("layout", "file", "kind", "stems"), FILES, ids=name_of)
def test_a_path_straight_to_a_label_file(
    tmp_path: Path, layout: Callable, file: str, kind: str, stems: list[str]
) -> None:
    layout(tmp_path)
    dataset = load_dataset(tmp_path / file)
    assert dataset.format == kind
    assert sorted(by_stem(dataset)) == stems
    assert all(Path(path).is_file() for path in dataset.image_paths)
    assert kinds(dataset) == []  # the images of other splits are not missed


def test_a_saved_dataset(tmp_path: Path) -> None:
    coco_one_file(tmp_path)
    dataset = load_dataset(tmp_path)
    assert load_dataset(dataset.save(tmp_path / "saved.npz")).fingerprint() == dataset.fingerprint()


def numbered(folder: Path, splits: dict[str, int]) -> None:
    """A YOLO dataset with so many images a split."""
    for split, count in splits.items():
        for k in range(count):
            picture(folder / f"images/{split}/{split}{k:02d}.png", (10, 10))
            put(folder / f"labels/{split}/{split}{k:02d}.txt", f"{k % 2} 0.5 0.5 0.4 0.4\n")
    page = {split: f"images/{split}" for split in splits}
    put(folder / "data.yaml", yaml.safe_dump({**page, "names": NAMES}))


@pytest.mark.parametrize(
    ("splits", "options", "expected"),
    [
        ({"train": 10}, {}, {"train": 8, "val": 2}),
        ({"train": 10}, {"val": 0.5}, {"train": 5, "val": 5}),
        ({"train": 10}, {"val": 0}, {"train": 10}),
        ({"train": 10, "test": 4}, {}, {"train": 8, "val": 2, "test": 4}),
        ({"train": 6, "valid": 4}, {}, {"train": 6, "val": 4}),
        ({"train": 6, "validation": 2, "test": 2}, {}, {"train": 6, "val": 2, "test": 2}),
        ({"train": 1}, {}, {"train": 1}),
        ({"val": 4}, {}, {"val": 4}),
    ],
)
def test_splits(tmp_path: Path, splits: dict, options: dict, expected: dict) -> None:
    numbered(tmp_path, splits)
    dataset = load_dataset(tmp_path, **options)
    assert dataset.split_counts() == expected
    if "val" in expected and not {"val", "valid", "validation"} & set(splits):
        assert any("dealt from seed 0" in note and "train" in note for note in dataset.notes)
    tests = [
        path for path, split in zip(dataset.image_paths, dataset.image_splits, strict=True) if split == "test"
    ]
    assert all("/test/" in path for path in tests)


def test_a_deal_depends_on_the_seed_alone(tmp_path: Path) -> None:
    numbered(tmp_path, {"train": 20})
    first, again, other = (load_dataset(tmp_path, seed=seed).image_splits.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_train_and_val_that_are_the_same_folder(tmp_path: Path) -> None:
    """As in coco128, made to show that training runs: there is nothing held out."""
    numbered(tmp_path, {"train": 10})
    put(tmp_path / "data.yaml", "train: images/train\nval: images/train\nnames: [cat, dog]\n")
    dataset = load_dataset(tmp_path)
    assert dataset.split_counts() == {"train": 8, "val": 2}
    (problem,) = dataset.source_problems  # one for all
    assert (problem.kind, problem.severity) == ("image_in_two_splits", "warning")
    assert "every image of val" in problem.message


def test_an_image_in_two_splits_is_told_of_and_kept_once(tmp_path: Path) -> None:
    voc_with_sets(tmp_path)
    put(tmp_path / "ImageSets/Main/val.txt", "b\nc\nd\n")
    dataset = load_dataset(tmp_path)
    assert len(dataset) == 4
    (problem,) = [p for p in dataset.source_problems if p.kind == "image_in_two_splits"]
    assert (problem.severity, problem.image) == ("warning", "JPEGImages/b.jpg")


def test_other_split_names_stay(tmp_path: Path) -> None:
    voc_with_sets(tmp_path)
    (tmp_path / "ImageSets/Main/val.txt").rename(tmp_path / "ImageSets/Main/night.txt")
    assert load_dataset(tmp_path, val=0).split_counts() == {"train": 2, "night": 2}


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(FileNotFoundError, match=r"nothing at .*/photo; did you mean .*/photos\?"):
        load_dataset(tmp_path / "photo")


def test_not_recognised(tmp_path: Path) -> None:
    for k in range(3):
        picture(tmp_path / f"{k}.jpg", (8, 8))
    put(tmp_path / "labels.ods", b"PK")
    with pytest.raises(DatasetFormatError) as caught:
        load_dataset(tmp_path)
    message = str(caught.value)
    for word in (
        "Looked for",
        *(reader.title for reader in READERS.values()),
        "3 .jpg",
        "1 .ods",
        str(tmp_path),
    ):
        assert word in message
    assert isinstance(caught.value, ValueError)


HINTS = [
    ({"photos.zip": b"PK"}, "Unpack the archive first: photos.zip"),
    ({}, "no file at all"),
    ({"sub/a.jpg": b"", "b.jpg": b""}, "images without labels"),
]


@pytest.mark.parametrize(("files", "words"), HINTS, ids=[words for _, words in HINTS])
def test_hints(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    for name, content in files.items():
        put(tmp_path / name, content)
    with pytest.raises(DatasetFormatError, match=words):
        load_dataset(tmp_path)


def test_several_datasets_below(tmp_path: Path) -> None:
    voc_plain(tmp_path / "one")
    yolo_usual(tmp_path / "two")
    with pytest.raises(DatasetFormatError, match=r"could be|several datasets"):
        load_dataset(tmp_path)


def mostly_unlabelled_yolo(folder: Path) -> str:
    numbered(folder, {"train": 7})
    for k in range(3):
        (folder / f"labels/train/train{k:02d}.txt").unlink()
    put(folder / "labels/train/train03.txt", "")
    return "4 of 7 images without a box: 3 without a label file, 1 said to hold nothing"


def mostly_unlabelled_voc(folder: Path) -> str:
    voc_plain(folder)
    for k in range(5):
        picture(folder / f"JPEGImages/stray{k}.jpg", (20, 20))
    return "6 of 9 images without a box: 5 that no label names, left out, 1 said to hold nothing"


def mostly_unlabelled_coco(folder: Path) -> str:
    put(folder / "labels.json", {**coco(), "annotations": coco()["annotations"][:1]})
    pictures(folder, "images/{stem}.jpg")
    return "3 of 4 images without a box: 3 said to hold nothing"


@pytest.mark.parametrize(
    "layout", [mostly_unlabelled_yolo, mostly_unlabelled_voc, mostly_unlabelled_coco], ids=name_of
)
def test_where_most_images_have_no_label_it_is_said_loudly(tmp_path: Path, layout: Callable) -> None:
    message = layout(tmp_path)
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.notes[0] == f"MOST IMAGES HAVE NO LABEL: {message}"
    (finding,) = od.audit(dataset).of("mostly_unlabelled")
    assert (finding.severity, finding.message, finding.file) == ("warning", message, str(tmp_path))
    assert "not looked for" in finding.fix
    assert od.audit(dataset).ok


def test_half_of_the_images_without_a_label_is_not_most(tmp_path: Path) -> None:
    numbered(tmp_path, {"train": 6})
    for k in range(3):
        put(tmp_path / f"labels/train/train{k:02d}.txt", "")
    dataset = load_dataset(tmp_path, val=0)
    assert "mostly_unlabelled" not in kinds(dataset)
    assert not any("NO LABEL" in note for note in dataset.notes)


def test_two_files_for_one_split(tmp_path: Path) -> None:
    coco_images_in_between(tmp_path)
    put(tmp_path / "annotations/train_v2.json", coco("train"))
    with pytest.raises(
        DatasetFormatError, match=r"annotations/train.json, annotations/train_v2.json \(train\)"
    ):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"format": "coc"},
            DatasetFormatError,
            "cannot read the format 'coc'; .*did you mean 'coco'",
        ),
        ({"val": 1}, ValueError, "val=1"),
        ({"val": -0.1}, ValueError, "val=-0.1"),
        ({"first_pixel": 2}, ValueError, "first_pixel=2"),
        ({"format": "voc"}, DatasetFormatError, "Pascal VOC"),
    ],
)
def test_arguments_that_make_no_sense(
    tmp_path: Path, options: dict, error: type[Exception], message: str
) -> None:
    coco_one_file(tmp_path)
    with pytest.raises(error, match=message):
        load_dataset(tmp_path, **options)


@pytest.mark.parametrize(
    "name", ["photos.zip", "photo.jpg", "labels.xml", "noise.json", "list.json", "data.yaml", "x.csv"]
)
def test_files_that_are_no_dataset(tmp_path: Path, name: str) -> None:
    put(tmp_path / name, b"[1, 2]" if name == "list.json" else bytes(range(256)))
    with pytest.raises(DatasetFormatError, match=name):
        load_dataset(tmp_path / name)


OF_TOOLS = [
    openimages_as_published,
    cvat_project,
    labelme_split_folders,
    createml_roboflow,
    labelstudio_uploads,
]


@pytest.mark.parametrize("layout", [coco_as_published, voc_nested, csv_roboflow, *OF_TOOLS], ids=name_of)
def test_images_that_no_label_names_are_told_of_and_not_trained_on(tmp_path: Path, layout: Callable) -> None:
    layout(tmp_path)
    stray = picture(next(tmp_path.rglob("a.jpg")).with_name("stray.jpg"), (20, 20))
    dataset = load_dataset(tmp_path)
    check(dataset)
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity, problem.file) == ("image_without_labels", "info", str(stray))
    (finding,) = [f for f in od.audit(dataset) if f.file == str(stray)]
    assert finding.kind == "image_without_labels"


@pytest.mark.parametrize(
    ("layout", "file", "copy"),
    [
        (cvat_task, "annotations.xml", "annotations_old.xml"),
        (createml_apple, "annotations.json", "annotations (1).json"),
        (labelme_beside_images, "a.json", "backup/a.json"),
        (kitti_as_published, "label_2/a.txt", "label_2_backup/a.txt"),
        (openimages_one_file, "annotations/default-annotations-bbox.csv", "annotations/copy.csv"),
    ],
    ids=name_of,
)
def test_a_copy_of_a_label_file_makes_no_box_twice(
    tmp_path: Path, layout: Callable, file: str, copy: str
) -> None:
    layout(tmp_path)
    boxes = load_dataset(tmp_path, val=0).num_boxes
    put(tmp_path / copy, (tmp_path / file).read_bytes())
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.num_boxes == boxes == 5
    assert any("that an earlier file has too" in note for note in dataset.notes)
    assert set(kinds(dataset)) == {"image_listed_twice"}
