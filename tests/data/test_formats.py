"""Reading and writing datasets: layouts are told apart, no box moves, garbage gives words and no crash."""

import json
import os
import random
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import odkit as od
from odkit.data.audit.inspection import audit
from odkit.data.dataset import Dataset
from odkit.data.formats.load import READERS, load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from odkit.data.formats.write import WRITERS, convert, write_dataset

# -- one small truth, laid out in every way -------------------------------------------------------------------------

SIZES = {"a": (64, 48), "b": (48, 64), "c": (80, 60), "d": (50, 50)}
SPLITS = {"a": "train", "b": "train", "c": "val", "d": "val"}
BOXES: dict[str, list[tuple[str, list[float]]]] = {
    "a": [("cat", [4, 6, 20, 30]), ("dog", [10.5, 0, 64, 48])],
    "b": [("dog", [1, 1, 47, 20])],
    "c": [("cat", [0, 0, 80, 60]), ("cat", [12, 14, 33, 55])],
    "d": [],
}
NAMES = ["cat", "dog"]
SPLIT_FOLDERS = {"train": "train", "val": "val"}


def picture(path: Path, size: tuple[int, int], orientation: int = 1) -> Path:
    """An image of a size as stored; no two have the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    colour = tuple(random.Random(str(path)).randbytes(3))
    Image.new("RGB", size, colour).save(path, exif=exif)
    return path


def pictures(folder: Path, place: str = "{split}/{stem}.jpg", **folders: str) -> None:
    for stem, size in SIZES.items():
        split = folders.get(SPLITS[stem], SPLITS[stem])
        picture(folder / place.format(split=split, stem=stem), size)


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def of(split: str | None) -> list[str]:
    return [stem for stem in SIZES if split in (None, SPLITS[stem])]


def rows(dataset: Dataset, image: int) -> list[tuple[str, list[float]]]:
    """The boxes of an image as class name and corners."""
    part = dataset.boxes_of(image)
    names = [dataset.class_names[k] if k >= 0 else "?" for k in dataset.box_classes[part]]
    return list(zip(names, dataset.boxes[part].tolist(), strict=True))


def by_stem(dataset: Dataset) -> dict[str, int]:
    return {Path(path).stem: index for index, path in enumerate(dataset.image_paths)}


def check(dataset: Dataset, *, splits: bool = True, names: list[str] = NAMES, atol: float = 1e-4) -> None:
    """The dataset is the truth, wherever its files lie."""
    assert [str(p) for p in dataset.source_problems if p.severity == "fatal"] == []
    assert list(dataset.class_names) == names
    images = by_stem(dataset)
    assert sorted(images) == sorted(SIZES)
    assert all(Path(path).is_file() for path in dataset.image_paths)
    assert all(os.path.isabs(path) for path in dataset.image_paths)
    for stem, index in images.items():
        assert tuple(dataset.image_sizes[index]) == SIZES[stem]
        if splits:
            assert dataset.image_splits[index] == SPLITS[stem]
        found, truth = rows(dataset, index), BOXES[stem]
        assert [name for name, _ in found] == [name for name, _ in truth]
        np.testing.assert_allclose(
            np.array([box for _, box in found]).reshape(-1, 4),
            np.array([box for _, box in truth]).reshape(-1, 4),
            atol=atol,
        )
    assert dataset.notes


def kinds(dataset: Dataset) -> list[str]:
    return sorted(p.kind for p in dataset.source_problems)


# -- COCO -----------------------------------------------------------------------------------------------------------

CATEGORY_IDS = {"cat": 7, "dog": 18}


def coco(split: str | None = None, name: str = "{stem}.jpg", **more: Any) -> dict[str, Any]:
    """COCO's JSON of the truth, or of one split of it."""
    images, annotations = [], []
    for number, stem in enumerate(SIZES, 101):
        if stem not in of(split):
            continue
        width, height = SIZES[stem]
        file = name.format(stem=stem, split=SPLITS[stem])
        images.append({"id": number, "file_name": file, "width": width, "height": height})
        for k, (class_name, (x1, y1, x2, y2)) in enumerate(BOXES[stem]):
            annotations.append(
                {
                    "id": number * 10 + k,
                    "image_id": number,
                    "category_id": CATEGORY_IDS[class_name],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": CATEGORY_IDS[name], "name": name} for name in ("dog", "cat")]  # not in their order
    return {"images": images, "annotations": annotations, "categories": categories, **more}


def coco_one_file(folder: Path) -> None:
    put(folder / "labels.json", coco())
    pictures(folder, "images/{stem}.jpg")


def coco_beside_images(folder: Path) -> None:
    put(folder / "result.json", coco())
    pictures(folder, "{stem}.jpg")


def coco_as_published(folder: Path) -> None:
    for split in SPLIT_FOLDERS:
        put(folder / f"annotations/instances_{split}2017.json", coco(split))
    pictures(folder, train="train2017", val="val2017")


def coco_with_its_kin(folder: Path) -> None:
    coco_as_published(folder)
    captions = coco("train") | {"annotations": [{"id": 1, "image_id": 101, "caption": "a cat"}]}
    put(folder / "annotations/captions_train2017.json", captions)
    put(folder / "annotations/person_keypoints_train2017.json", coco("train"))
    put(folder / "annotations/image_info_test2017.json", {"images": [], "categories": []})


def coco_images_in_between(folder: Path) -> None:
    for split in SPLIT_FOLDERS:
        put(folder / f"annotations/{split}.json", coco(split))
    pictures(folder, "images/{split}/{stem}.jpg")


def coco_roboflow(folder: Path) -> None:
    for split, place in {"train": "train", "val": "valid"}.items():
        put(folder / f"{place}/_annotations.coco.json", coco(split))
    pictures(folder, val="valid")


def coco_fiftyone(folder: Path) -> None:
    put(folder / "labels.json", coco())
    pictures(folder, "data/{stem}.jpg")


def coco_same_names_in_both(folder: Path) -> None:
    """Every split numbers its images anew, so that names and ids say nothing without the folder."""
    for split in SPLIT_FOLDERS:
        put(folder / f"annotations/instances_{split}.json", coco(split))
    pictures(folder)
    for stem in of("train"):
        picture(folder / f"val/{stem}.jpg", (9, 9))


def coco_paths_in_names(folder: Path) -> None:
    put(folder / "annotations/instances_train.json", coco("train", "./images/train/{stem}.jpg"))
    put(folder / "annotations/instances_val.json", coco("val", "images\\val\\{stem}.jpg"))
    pictures(folder, "images/{split}/{stem}.jpg")


COCO_LAYOUTS = {
    coco_one_file: False,
    coco_beside_images: False,
    coco_as_published: True,
    coco_with_its_kin: True,
    coco_images_in_between: True,
    coco_roboflow: True,
    coco_fiftyone: False,
    coco_same_names_in_both: True,
    coco_paths_in_names: True,
}

# -- Pascal VOC -----------------------------------------------------------------------------------------------------


def voc(stem: str, filename: str | None = None, boxes: list | None = None, extra: str = "") -> str:
    width, height = SIZES.get(stem, (64, 48))
    things = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in (BOXES[stem] if boxes is None else boxes)
    )
    named = f"<filename>{filename or stem + '.jpg'}</filename>"
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{named}{size}{extra}{things}</annotation>"


def voc_plain(folder: Path, sets: bool = False) -> None:
    for stem in SIZES:
        put(folder / f"Annotations/{stem}.xml", voc(stem))
    pictures(folder, "JPEGImages/{stem}.jpg")
    if sets:
        for split in SPLIT_FOLDERS:
            put(folder / f"ImageSets/Main/{split}.txt", "\n".join(of(split)) + "\n")


def voc_with_sets(folder: Path) -> None:
    voc_plain(folder, sets=True)


def voc_as_published(folder: Path) -> None:
    """With the joined list, and the lists of each class that are no splits."""
    voc_plain(folder / "VOCdevkit/VOC2007", sets=True)
    main = folder / "VOCdevkit/VOC2007/ImageSets/Main"
    put(main / "trainval.txt", "".join(f"{stem}\n" for stem in SIZES))
    put(main / "cat_train.txt", "a  1\nb -1\n")
    put(main / "cat_val.txt", "c  1\nd -1\n")
    put(folder / "VOCdevkit/VOC2007/ImageSets/Segmentation/train.txt", "d\n")


def voc_roboflow(folder: Path) -> None:
    for stem, split in SPLITS.items():
        put(folder / split / f"{stem}.xml", voc(stem))
    pictures(folder)


def voc_nested(folder: Path) -> None:
    for stem, split in SPLITS.items():
        put(folder / "Annotations" / split / f"{stem}.xml", voc(stem))
    pictures(folder, "JPEGImages/{split}/{stem}.jpg")


def voc_lower_case(folder: Path) -> None:
    for stem in SIZES:
        put(folder / f"annotations/{stem}.xml", voc(stem))
    pictures(folder, "images/{stem}.jpg")


def voc_stale_filenames(folder: Path) -> None:
    """Renamed after labelling: each label file has its image's name, and names another's inside."""
    stems = list(SIZES)
    for stem, other in zip(stems, stems[1:] + stems[:1], strict=True):
        put(folder / f"Annotations/{stem}.xml", voc(stem, f"{other}.jpg"))
    pictures(folder, "JPEGImages/{stem}.jpg")


def voc_names_without_suffix(folder: Path) -> None:
    for stem in SIZES:
        put(folder / f"Annotations/{stem}.xml", voc(stem, stem))
    pictures(folder, "JPEGImages/{stem}.jpg")


VOC_LAYOUTS = {
    voc_plain: False,
    voc_with_sets: True,
    voc_as_published: True,
    voc_roboflow: True,
    voc_nested: True,
    voc_lower_case: False,
    voc_stale_filenames: False,
    voc_names_without_suffix: False,
}

# -- YOLO -----------------------------------------------------------------------------------------------------------


def yolo(stem: str) -> str:
    """A label file of the truth; an image without objects has none."""
    width, height = SIZES[stem]
    lines = ""
    for name, (x1, y1, x2, y2) in BOXES[stem]:
        center = f"{(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height}"
        lines += f"{NAMES.index(name)} {center} {(x2 - x1) / width} {(y2 - y1) / height}\n"
    return lines


def yolo_files(folder: Path, images: str, labels: str) -> None:
    pictures(folder, images + "/{stem}.jpg")
    for stem, split in SPLITS.items():
        if BOXES[stem]:
            put(folder / labels.format(split=split) / f"{stem}.txt", yolo(stem))


def yolo_usual(folder: Path, **content: Any) -> None:
    yolo_files(folder, "images/{split}", "labels/{split}")
    page = {"train": "images/train", "val": "images/val", "nc": 2, "names": NAMES, **content}
    put(folder / "data.yaml", yaml.safe_dump(page, sort_keys=False))


def yolo_map_and_path(folder: Path) -> None:
    yolo_usual(folder, path=".", names={1: "dog", 0: "cat"})


def yolo_path_of_another_machine(folder: Path) -> None:
    yolo_usual(folder, path="/content/datasets/pets")


def yolo_absolute(folder: Path) -> None:
    yolo_usual(folder, train=str(folder / "images/train"), val=str(folder / "images/val"))


def yolo_absolute_of_another_machine(folder: Path) -> None:
    yolo_usual(folder, train="/content/pets/images/train", val="C:\\pets\\images\\val")


def yolo_roboflow(folder: Path) -> None:
    yolo_files(folder, "{split}/images", "{split}/labels")
    page = (
        "train: ../train/images\nval: ../val/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n"
    )
    put(folder / "data.yaml", page + "roboflow:\n  workspace: x\n  url: https://example.org\n")


def yolo_split_first(folder: Path) -> None:
    yolo_files(folder, "{split}/images", "{split}/labels")
    put(folder / "dataset.yml", "train: train/images\nval: val/images\nnames:\n  0: cat\n  1: dog\n")


def yolo_split_folders(folder: Path) -> None:
    yolo_files(folder, "{split}/images", "{split}/labels")
    put(folder / "data.yaml", "train: train\nval: val\nnames: [cat, dog]\n")


def yolo_list_files(folder: Path) -> None:
    yolo_files(folder, "images", "labels")
    put(folder / "train.txt", "./images/a.jpg\n./images/b.jpg\n")
    put(folder / "val.txt", f"{folder}/images/c.jpg\nimages/d.jpg\n\n")
    put(folder / "data.yaml", "train: train.txt\nval: val.txt\nnames: [cat, dog]\n")


def yolo_lists_of_another_machine(folder: Path) -> None:
    yolo_files(folder, "images", "labels")
    put(folder / "train.txt", "/content/pets/images/a.jpg\n/content/pets/images/b.jpg\n")
    put(folder / "val.txt", "data/images/c.jpg\nC:\\pets\\images\\d.jpg\n")
    put(folder / "data.yaml", "train: train.txt\nval: val.txt\nnames: [cat, dog]\n")


def yolo_several_folders(folder: Path) -> None:
    pictures(folder, "images/{stem}/{stem}.jpg")
    for stem in SIZES:
        put(folder / f"labels/{stem}/{stem}.txt", yolo(stem))  # an empty file where there is no object
    page = {"train": ["images/a", "images/b"], "val": ["images/c", "images/d"], "names": NAMES}
    put(folder / "data.yaml", yaml.safe_dump(page))


def yolo_elsewhere(folder: Path) -> None:
    """The data.yaml in one folder, `path` to the data in another."""
    yolo_files(folder.parent / "store", "images/{split}", "labels/{split}")
    page = {
        "path": str(folder.parent / "store"),
        "train": "images/train",
        "val": "images/val",
        "names": NAMES,
    }
    put(folder / "data.yaml", yaml.safe_dump(page))


def yolo_beside_images(folder: Path) -> None:
    yolo_files(folder, "{split}", "{split}")
    put(folder / "classes.txt", "cat\ndog\n")


def yolo_cvat(folder: Path) -> None:
    places = {"train": "obj_train_data", "val": "obj_valid_data"}
    pictures(folder, "{split}/{stem}.jpg", **places)
    for stem, split in SPLITS.items():
        put(folder / places[split] / f"{stem}.txt", yolo(stem))
    put(folder / "obj.names", "cat\ndog\n")
    put(
        folder / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    )
    put(folder / "train.txt", "data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n")


YOLO_LAYOUTS = {
    yolo_usual: True,
    yolo_map_and_path: True,
    yolo_path_of_another_machine: True,
    yolo_absolute: True,
    yolo_absolute_of_another_machine: True,
    yolo_roboflow: True,
    yolo_split_first: True,
    yolo_split_folders: True,
    yolo_list_files: True,
    yolo_lists_of_another_machine: True,
    yolo_several_folders: True,
    yolo_elsewhere: True,
    yolo_beside_images: True,
    yolo_cvat: True,
}

# -- CSV ------------------------------------------------------------------------------------------------------------

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def csv_rows(split: str | None = None, header: str = HEADER, name: str = "{stem}.jpg", by: str = ",") -> str:
    text = header
    for stem in of(split):
        start = [name.format(stem=stem, split=SPLITS[stem]), *map(str, SIZES[stem])]
        for class_name, box in BOXES[stem] or [("", ["", "", "", ""])]:
            text += by.join([*start, class_name, *map(str, box)]) + "\n"
    return text


def csv_one_file(folder: Path) -> None:
    put(folder / "labels.csv", csv_rows())
    pictures(folder, "images/{stem}.jpg")


def csv_beside_images(folder: Path) -> None:
    put(folder / "labels.csv", "\ufeff" + csv_rows().replace("\n", "\r\n"))  # as a spreadsheet saves it
    pictures(folder, "{stem}.jpg")


def csv_a_split(folder: Path) -> None:
    put(folder / "train.csv", csv_rows("train"))
    put(folder / "val.csv", csv_rows("val"))
    pictures(folder, "images/{stem}.jpg")


def csv_roboflow(folder: Path) -> None:
    for split in SPLIT_FOLDERS:
        put(folder / split / "_annotations.csv", csv_rows(split))
    pictures(folder)


def csv_other_names(folder: Path) -> None:
    put(
        folder / "labels.csv", csv_rows(header="Image Path;img_width;IMG_HEIGHT;Label;x1;Y1;X_2;y2\n", by=";")
    )
    pictures(folder, "images/{stem}.jpg")


def csv_paths(folder: Path) -> None:
    put(
        folder / "labels.csv",
        csv_rows(name="images/{split}/{stem}.jpg", header=HEADER.replace(",", "\t"), by="\t"),
    )
    pictures(folder, "images/{split}/{stem}.jpg")


CSV_LAYOUTS = {
    csv_one_file: False,
    csv_beside_images: False,
    csv_a_split: True,
    csv_roboflow: True,
    csv_other_names: False,
    csv_paths: False,
}

LAYOUTS = [
    (kind, layout, splits)
    for kind, layouts in (
        ("coco", COCO_LAYOUTS),
        ("voc", VOC_LAYOUTS),
        ("yolo", YOLO_LAYOUTS),
        ("csv", CSV_LAYOUTS),
    )
    for layout, splits in layouts.items()
]


def name_of(value: Any) -> str | None:
    return getattr(value, "__name__", None)


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


# -- what it says ---------------------------------------------------------------------------------------------------


def test_the_demo_is_coco(demo_folder: Path) -> None:
    dataset = load_dataset(demo_folder)
    assert (dataset.format, len(dataset)) == ("coco", 12)
    assert list(dataset.split_counts()) == ["train", "val", "test"]
    assert dataset.source_problems == ()


@pytest.fixture
def demo_folder(tmp_path: Path) -> Path:
    from odkit.data.demo.dataset import write_demo

    return write_demo(tmp_path / "demo", images=12)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (coco_as_published, ["COCO", "annotations/instances_train2017.json", "2 images"]),
        (voc_with_sets, ["Pascal VOC", "4 XML files", "ImageSets/Main/train.txt"]),
        (yolo_usual, ["YOLO", "data.yaml"]),
        (csv_one_file, ["CSV", "labels.csv"]),
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


# -- splits ---------------------------------------------------------------------------------------------------------


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


# -- errors ---------------------------------------------------------------------------------------------------------


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
    for word in ("Looked for", "COCO", "Pascal VOC", "YOLO", "CSV", "3 .jpg", "1 .ods", str(tmp_path)):
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


@pytest.mark.parametrize(
    ("layouts", "titles"),
    [
        ((coco_one_file, voc_plain), ["COCO", "Pascal VOC"]),
        ((coco_one_file, yolo_usual), ["COCO", "YOLO"]),
        ((csv_a_split, voc_plain), ["Pascal VOC", "CSV"]),
    ],
)
def test_ambiguous(tmp_path: Path, layouts: tuple, titles: list[str]) -> None:
    for layout in layouts:
        layout(tmp_path)
    with pytest.raises(DatasetFormatError, match="could be") as caught:
        load_dataset(tmp_path)
    assert all(title in str(caught.value) for title in titles)
    assert "format=" in str(caught.value)
    for kind in READERS:
        if READERS[kind].title in titles:
            assert load_dataset(tmp_path, format=kind).format == kind


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


def test_json_cut_short_is_named_with_the_place(tmp_path: Path) -> None:
    for name in ("instances_train.json", "labels.json"):
        folder = tmp_path / name.partition(".")[0]
        put(folder / name, json.dumps(coco())[:-40])
        picture(folder / "a.jpg", SIZES["a"])
        with pytest.raises(DatasetFormatError, match=rf"{name} is no JSON \(.*line 1 column \d+"):
            load_dataset(folder)


# -- COCO's corners -------------------------------------------------------------------------------------------------


def one_coco(folder: Path, **changes: Any) -> Dataset:
    """The truth as one COCO file with some keys replaced, read."""
    pictures(folder, "images/{stem}.jpg")
    put(folder / "labels.json", {**coco(), **changes})
    return load_dataset(folder, val=0)


def annotation(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 101, "category_id": 7, "bbox": [1, 2, 3, 4], **changes}


def test_ids_of_categories_are_sparse_and_ordered(tmp_path: Path) -> None:
    categories = [
        {"id": 90, "name": "z"},
        {"id": 18, "name": "dog"},
        {"id": 7, "name": "cat"},
        {"id": 44, "name": "n"},
    ]
    dataset = one_coco(tmp_path, categories=categories)
    assert dataset.class_names == ("cat", "dog", "n", "z")
    check(dataset.replace(class_names=("cat", "dog", "n", "z")), splits=False, names=["cat", "dog", "n", "z"])


def test_crowds_and_ids_are_kept(tmp_path: Path) -> None:
    crowds = [annotation(5, iscrowd=1), annotation(9, iscrowd=0), annotation(12)]
    dataset = one_coco(tmp_path, annotations=crowds)
    assert dataset.box_crowd.tolist() == [True, False, False]
    assert dataset.box_ids.tolist() == ["5", "9", "12"]


def masks() -> list[tuple[str, Any, list[float]]]:
    """Name, segmentation, the box around it as pycocotools sees it."""
    from pycocotools import mask

    rng = np.random.default_rng(0)
    found: list[tuple[str, Any, list[float]]] = [
        ("polygon", [[10, 10, 30.5, 12, 20, 40]], [10, 10, 20.5, 30]),
        ("polygons", [[1, 1, 5, 1, 5, 5], [50, 20, 60, 20, 60, 47]], [1, 1, 59, 46]),
        ("flat polygon", [10, 10, 30, 12, 20, 40], [10, 10, 20, 30]),
    ]
    for k in range(12):
        pixels = np.zeros((48, 64), np.uint8)
        x, y = rng.integers(0, 40, 2)
        pixels[y : y + rng.integers(1, 20), x : x + rng.integers(1, 25)] = 1
        if k % 3 == 0:
            pixels[rng.random(pixels.shape) < 0.5] = 0
            pixels[47, 63] = pixels[y, x] = 1
        packed = mask.encode(np.asfortranarray(pixels))
        box = mask.toBbox(packed).tolist()
        text = {"size": packed["size"], "counts": packed["counts"].decode()}
        runs = np.diff(np.flatnonzero(np.diff(np.r_[2, pixels.T.ravel(), 2])))
        counts = [0, *runs.tolist()] if pixels[0, 0] else runs.tolist()
        found += [(f"packed {k}", text, box), (f"runs {k}", {"size": [48, 64], "counts": counts}, box)]
    return found


def test_boxes_of_masks_where_there_is_no_bbox(tmp_path: Path) -> None:
    cases = masks()
    marked = [annotation(k, segmentation=shape, bbox=None) for k, (_, shape, _) in enumerate(cases, 1)]
    for entry in marked[::2]:
        del entry["bbox"]
    dataset = one_coco(tmp_path, annotations=marked)
    assert kinds(dataset) == []
    for k, (name, _, (x, y, width, height)) in enumerate(cases):
        np.testing.assert_allclose(dataset.boxes[k], [x, y, x + width, y + height], atol=1e-5, err_msg=name)


def test_a_bbox_goes_before_the_mask(tmp_path: Path) -> None:
    dataset = one_coco(tmp_path, annotations=[annotation(segmentation=[[10, 10, 30, 12, 20, 40]])])
    assert dataset.boxes.tolist() == [[1, 2, 4, 6]]


BAD_ANNOTATIONS = [
    ("text", "dog", "unreadable_label"),
    ("null", None, "unreadable_label"),
    ("no box", {"id": 1, "image_id": 101, "category_id": 7}, "unreadable_label"),
    ("three numbers", annotation(bbox=[1, 2, 3]), "unreadable_label"),
    ("words", annotation(bbox=["a", "b", "c", "d"]), "unreadable_label"),
    ("nested", annotation(bbox=[[1], [2], [3], [4]]), "unreadable_label"),
    ("object", annotation(bbox={"x": 1}), "unreadable_label"),
    ("nan", annotation(bbox=[float("nan"), 1, 2, 3]), "unreadable_label"),
    ("infinite", annotation(bbox=[1, 1, float("inf"), 3]), "unreadable_label"),
    ("huge", annotation(bbox=[1, 1, 1e300, 3]), "unreadable_label"),
    (
        "bad runs",
        annotation(bbox=None, segmentation={"size": [4, 4], "counts": [-3, 99]}),
        "unreadable_label",
    ),
    (
        "bad packing",
        annotation(bbox=None, segmentation={"size": [4, 4], "counts": "\u00ff~~~"}),
        "unreadable_label",
    ),
    ("bad polygon", annotation(bbox=None, segmentation=[["x", "y"]]), "unreadable_label"),
    ("odd polygon", annotation(bbox=None, segmentation=[[1, 2, 3]]), "unreadable_label"),
    ("empty mask", annotation(bbox=None, segmentation={"size": [4, 4], "counts": [16]}), "unreadable_label"),
    ("unknown image", annotation(image_id=999), "label_without_image"),
    ("image id is a list", annotation(image_id=[101]), "label_without_image"),
    ("unknown class", annotation(category_id=999), "unknown_class"),
    ("class id is a list", annotation(category_id=[7]), "unknown_class"),
    ("no class", {"id": 1, "image_id": 101, "bbox": [1, 2, 3, 4]}, "unknown_class"),
    ("id of another", annotation(2), "duplicate_box_id"),
]


@pytest.mark.parametrize(
    ("bad", "kind"), [row[1:] for row in BAD_ANNOTATIONS], ids=[row[0] for row in BAD_ANNOTATIONS]
)
def test_an_annotation_that_is_wrong(tmp_path: Path, bad: Any, kind: str) -> None:
    dataset = one_coco(tmp_path, annotations=[annotation(2), bad, annotation(3)])
    assert kinds(dataset) == [kind]
    (problem,) = dataset.source_problems
    assert problem.file == str(tmp_path / "labels.json")
    assert problem.message
    assert problem.fix
    there = {"unknown_class": 1, "duplicate_box_id": 1}.get(kind, 0)
    assert dataset.num_boxes == 2 + there
    assert (dataset.box_classes == -1).sum() == (kind == "unknown_class")
    assert problem.severity == ("warning" if kind in ("label_without_image", "duplicate_box_id") else "fatal")


def test_a_problem_of_a_box_is_the_audits_finding(tmp_path: Path) -> None:
    dataset = one_coco(tmp_path, annotations=[annotation(4, category_id=999), annotation(6, image_id=102)])
    (finding,) = od.audit(dataset).of("unknown_class")
    assert (finding.image, finding.box) == ("images/a.jpg", "4")
    assert "999" in finding.message
    assert od.repaired(dataset).box_ids.tolist() == ["6"]


BAD_IMAGES = [
    ("text", "a.jpg", "unreadable_label", 0),
    ("no name", {"id": 1}, "unreadable_label", 0),
    ("no id", {"file_name": "d.jpg"}, "unreadable_label", 0),
    ("name is a number", {"id": 1, "file_name": 7}, "unreadable_label", 0),
    ("same name again", {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}, "image_listed_twice", 0),
    ("same id again", {"id": 101, "file_name": "e.jpg", "width": 5, "height": 5}, "duplicate_image_id", 1),
]


@pytest.mark.parametrize(
    ("bad", "kind", "more"), [row[1:] for row in BAD_IMAGES], ids=[row[0] for row in BAD_IMAGES]
)
def test_an_image_entry_that_is_wrong(tmp_path: Path, bad: Any, kind: str, more: int) -> None:
    content = coco()
    picture(tmp_path / "images/e.jpg", (5, 5))
    dataset = one_coco(tmp_path, images=[*content["images"], bad])
    assert kind in kinds(dataset)
    assert len(dataset) == 4 + more
    assert dataset.num_boxes == 5


def test_an_image_whose_id_is_taken_is_not_trained_on_as_empty(tmp_path: Path) -> None:
    picture(tmp_path / "images/e.jpg", (5, 5))
    images = [*coco()["images"], {"id": 101, "file_name": "e.jpg", "width": 5, "height": 5}]
    dataset = one_coco(tmp_path, images=images)
    assert "images/e.jpg" not in od.repaired(dataset).image_ids


def test_boxes_of_an_image_listed_twice_are_joined(tmp_path: Path) -> None:
    images = [*coco()["images"], {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}]
    dataset = one_coco(tmp_path, images=images, annotations=[annotation(1), annotation(2, image_id=1)])
    assert dataset.boxes_per_image().tolist() == [2, 0, 0, 0]


def test_nan_in_the_json_of_python(tmp_path: Path) -> None:
    """Python's json writes NaN, which is no JSON; such a file is read all the same."""
    dataset = one_coco(tmp_path, info={"version": float("nan")})
    check(dataset, splits=False)


@pytest.mark.parametrize("size", [{}, {"width": None, "height": 0}, {"width": "wide", "height": -3}])
def test_a_size_that_is_not_told_comes_from_the_file(tmp_path: Path, size: dict) -> None:
    images = [{"id": image["id"], "file_name": image["file_name"], **size} for image in coco()["images"]]
    check(one_coco(tmp_path, images=images), splits=False)


def test_numbers_that_some_programs_write_as_text_or_floats(tmp_path: Path) -> None:
    loose = [{**a, "image_id": float(a["image_id"]), "category_id": float(a["category_id"]), "iscrowd": "0"}
             for a in coco()["annotations"]]  # fmt: skip
    dataset = one_coco(tmp_path, annotations=loose)
    check(dataset, splits=False)
    assert not dataset.box_crowd.any()


def test_an_image_that_is_not_there_is_the_audits_finding(tmp_path: Path) -> None:
    coco_as_published(tmp_path)
    (tmp_path / "train2017/b.jpg").unlink()
    dataset = load_dataset(tmp_path)
    assert "train2017/b.jpg" in dataset.image_ids
    assert [f.image for f in od.audit(dataset).of("missing_image")] == ["train2017/b.jpg"]


def test_classes_of_several_files_are_joined_by_name(tmp_path: Path) -> None:
    pictures(tmp_path)
    put(tmp_path / "annotations/instances_train.json", coco("train"))
    other = coco("val")
    other["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cow"}]
    for entry in other["annotations"]:
        entry["category_id"] = 1
    put(tmp_path / "annotations/instances_val.json", other)
    dataset = load_dataset(tmp_path)
    assert set(dataset.class_names) == {"cat", "dog", "cow"}
    assert dataset.class_counts() == {"cat": 3, "dog": 2, "cow": 0}


def test_two_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    dataset = one_coco(tmp_path, categories=[{"id": 7, "name": "pet"}, {"id": 18, "name": "pet"}])
    assert dataset.class_counts() == {"pet": 5}


# -- images that no label names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [coco_as_published, voc_nested, csv_roboflow], ids=name_of)
def test_images_that_no_label_names_are_told_of_and_not_trained_on(tmp_path: Path, layout: Callable) -> None:
    layout(tmp_path)
    stray = picture(next(tmp_path.rglob("a.jpg")).with_name("stray.jpg"), (20, 20))
    dataset = load_dataset(tmp_path)
    check(dataset)
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity, problem.file) == ("image_without_labels", "info", str(stray))
    (finding,) = [f for f in od.audit(dataset) if f.file == str(stray)]
    assert finding.kind == "image_without_labels"


def test_in_yolo_an_image_without_a_label_file_is_one_without_objects(tmp_path: Path) -> None:
    yolo_usual(tmp_path)
    dataset = load_dataset(tmp_path)
    assert not (tmp_path / "labels/val/d.txt").exists()
    assert rows(dataset, by_stem(dataset)["d"]) == []
    (finding,) = od.audit(dataset).of("image_without_labels")
    assert finding.image == "images/val/d.jpg"
    assert any("1 image" in note and "without a label file" in note for note in dataset.notes)


# -- VOC's corners --------------------------------------------------------------------------------------------------


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


# -- YOLO's corners -------------------------------------------------------------------------------------------------


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


# -- CSV's corners --------------------------------------------------------------------------------------------------

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


# -- names that lead out --------------------------------------------------------------------------------------------

OUT = [
    "../secret.jpg",
    "../../secret.jpg",
    "images/../../secret.jpg",
    "/etc/secret.jpg",
    "{outside}/secret.jpg",
    "..\\secret.jpg",
    "C:\\secret.jpg",
    "file:///etc/secret.jpg",
    "https://example.org/secret.jpg",
    "images/\0secret.jpg",
    "door/../../secret.jpg",
]


def leads_out(folder: Path, name: str, kind: str) -> None:
    """A dataset of the truth and one label more, for the image `name`."""
    (folder / "door").symlink_to(folder.parent / "outside", target_is_directory=True)
    if kind == "coco":
        content = coco(name="images/{stem}.jpg")
        content["images"].append({"id": 5, "file_name": name, "width": 9, "height": 9})
        content["annotations"].append(annotation(77, image_id=5))
        put(folder / "labels.json", content)
        pictures(folder, "images/{stem}.jpg")
    elif kind == "csv":
        put(folder / "labels.csv", csv_rows(name="images/{stem}.jpg") + f'"{name}",9,9,cat,1,2,3,4\n')
        pictures(folder, "images/{stem}.jpg")
    else:
        yolo_list_files(folder)
        with (folder / "val.txt").open("a") as file:
            file.write(name + "\n")


@pytest.mark.parametrize("kind", ["coco", "csv", "yolo"])
@pytest.mark.parametrize("name", OUT)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "a" / "pets"
    folder.mkdir(parents=True)
    for place in ("", "a/", "outside/", "a/outside/"):
        picture(tmp_path / place / "secret.jpg", (9, 9))
    name = name.format(outside=tmp_path / "outside")
    leads_out(folder, name, kind)
    dataset = load_dataset(folder, format=kind)
    assert sorted(by_stem(dataset)) == ["a", "b", "c", "d"]
    (problem,) = [p for p in dataset.source_problems if p.kind != "image_without_labels"]
    assert (problem.kind, problem.severity) == ("path_outside", "fatal")
    assert "secret.jpg" in problem.message
    inside = str(folder) + os.sep
    assert all(os.path.normpath(path).startswith(inside) for path in dataset.image_paths)


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


def test_links_are_followed(tmp_path: Path) -> None:
    """People keep images on another disk; who puts a link into a folder owns the folder."""
    pictures(tmp_path / "disk", "{stem}.jpg")
    put(tmp_path / "pets/labels.json", coco())
    (tmp_path / "pets/images").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "pets/loop").symlink_to(tmp_path / "pets", target_is_directory=True)
    check(load_dataset(tmp_path / "pets"), splits=False)


# -- writing --------------------------------------------------------------------------------------------------------


def odd_dataset(folder: Path, *, splits: bool = True) -> Dataset:
    """Everything that is hard to write: names, fractions, colliding files, images without boxes, crowds."""
    names = (
        "plain",
        "a: b # c",
        "<x> & 'y' \"z\"",
        "two words",
        "ünïcödé 猫",
        "yes",
        "1",
        " padded ",
        "-",
        "{}",
    )
    files = ["a/x.jpg", "b/x.jpg", "b/x.png", "b/X.JPG", "c d/ü & <1>.jpg", "y.tar.jpg", "empty.png", "-.bmp"]
    rng = np.random.default_rng(5)
    sizes = rng.integers(30, 90, (len(files), 2))
    for file, size in zip(files, sizes.tolist(), strict=True):
        picture(folder / file, tuple(size))
    count = 60
    images = rng.integers(0, len(files) - 2, count)
    images = np.where(images >= files.index("empty.png"), images + 1, images)
    corners = rng.uniform(0, 1, (count, 2, 2)) * sizes[images][:, None]
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    boxes[0] = [0, 0, *sizes[images[0]]]
    boxes[1] = np.round(boxes[1])
    boxes[2] = [-1.25, -3, 200.5, 7]  # over the border
    boxes[3, 2] = boxes[3, 0]  # without area
    boxes[4] = [9.5, 8.25, 3, 2]  # inverted
    return Dataset(
        name="odd",
        root=folder,
        class_names=names,
        image_paths=[str(folder / file) for file in files],
        image_sizes=sizes,
        image_splits=["train", "train", "val", "train", "test", "val", "train", "train"] if splits else None,
        boxes=boxes,
        box_classes=rng.integers(0, len(names) - 1, count),
        box_images=images,
        box_crowd=rng.random(count) < 0.2,
    )


def matched(was: Dataset, now: Dataset) -> list[int]:
    """Rows of `now` in the order of `was`, by what the pictures show."""
    place = {Path(path).read_bytes(): index for index, path in enumerate(now.image_paths)}
    return [place[Path(path).read_bytes()] for path in was.image_paths]


def assert_same(was: Dataset, now: Dataset, *, crowd: bool) -> None:
    assert now.class_names == was.class_names
    assert len(now) == len(was)
    order = matched(was, now)
    assert len(set(order)) == len(was)
    for old, new in enumerate(order):
        assert now.image_sizes[new].tolist() == was.image_sizes[old].tolist()
        assert now.image_splits[new] == was.image_splits[old]
        a, b = was.boxes_of(old), now.boxes_of(new)
        np.testing.assert_allclose(now.boxes[b], was.boxes[a], rtol=0, atol=1e-3)
        np.testing.assert_array_equal(now.box_classes[b], was.box_classes[a])
        if crowd:
            np.testing.assert_array_equal(now.box_crowd[b], was.box_crowd[a])


def written(dataset: Dataset, folder: Path, kind: str, **options: Any) -> Dataset:
    """Written in a format and read back, the losses that are told aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        path = write_dataset(dataset, folder, kind, **options)
    assert path == folder
    return load_dataset(path, val=0)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("splits", [True, False], ids=["splits", "no splits"])
def test_round_trip(tmp_path: Path, kind: str, splits: bool) -> None:
    dataset = odd_dataset(tmp_path / "source", splits=splits)
    now = written(dataset, tmp_path / "written", kind)
    assert now.format == kind
    assert [p for p in now.source_problems if p.severity == "fatal"] == []
    if kind == "yolo" and not splits:
        now = now.replace(image_splits=None)  # YOLO has no images without a split, and says so
    assert_same(dataset, now, crowd=kind == "coco")


@pytest.mark.parametrize(
    "chain", [("voc", "yolo", "coco"), ("yolo", "coco", "voc"), ("coco", "voc", "yolo", "voc")]
)
def test_round_trip_through_all(tmp_path: Path, chain: tuple[str, ...]) -> None:
    dataset = now = odd_dataset(tmp_path / "source")
    for step, kind in enumerate(chain):
        now = written(now, tmp_path / f"{step} {kind}", kind)
    assert_same(dataset, now, crowd=False)


@pytest.mark.parametrize(("kind", "layout", "splits"), LAYOUTS[::3], ids=name_of)
@pytest.mark.parametrize("to", WRITERS)
def test_convert(tmp_path: Path, kind: str, layout: Callable, splits: bool, to: str) -> None:
    (tmp_path / "pets").mkdir()
    layout(tmp_path / "pets")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert convert(tmp_path / "pets", tmp_path / "new" / "place", to=to) == tmp_path / "new" / "place"
    dataset = load_dataset(tmp_path / "new" / "place", val=0)
    assert dataset.format == to
    check(dataset, splits=splits, atol=1e-3)


def test_coco_keeps_image_and_box_ids(tmp_path: Path) -> None:
    coco_images_in_between(tmp_path / "source")
    dataset = load_dataset(tmp_path / "source")
    now = written(dataset, tmp_path / "written", "coco")
    assert sorted(now.image_ids) == sorted(dataset.image_ids)
    assert sorted(now.box_ids) == sorted(dataset.box_ids)
    assert now.fingerprint() == written(now, tmp_path / "again", "coco").fingerprint()


def test_bccd_comes_back_from_every_format(bccd: Path, tmp_path: Path) -> None:
    dataset = load_dataset(bccd)
    for kind in WRITERS:
        now = written(dataset, tmp_path / kind, kind, images="link")
        assert_same(dataset, now, crowd=True)
        found = audit(now, decode=False).of("no_area")
        assert {Path(f.image).stem for f in found} == {"BloodImage_00338", "BloodImage_00343"}


def test_pycocotools_reads_what_we_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    dataset = odd_dataset(tmp_path / "source")
    folder = write_dataset(dataset, tmp_path / "written", "coco")
    boxes = 0
    for file in sorted((folder / "annotations").iterdir()):
        theirs = COCO(str(file))
        assert [c["name"] for c in theirs.loadCats(theirs.getCatIds())] == list(dataset.class_names)
        split = file.stem.removeprefix("instances_")
        assert len(theirs.getImgIds()) == dataset.split_counts()[split]
        for image in theirs.loadImgs(theirs.getImgIds()):
            path = next(
                p for p in (folder / image["file_name"], folder / split / image["file_name"]) if p.is_file()
            )
            with Image.open(path) as opened:
                assert opened.size == (image["width"], image["height"])
            boxes += len(theirs.getAnnIds(imgIds=image["id"]))
        crowds = theirs.getAnnIds(iscrowd=True)
        assert len(crowds) == (dataset.box_crowd & (dataset.image_splits == split)[dataset.box_images]).sum()
    assert boxes == dataset.num_boxes
    assert "error" not in capsys.readouterr().out.lower()


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


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("images", ["copy", "link", "none"])
def test_images_are_copied_linked_or_left(tmp_path: Path, kind: str, images: str) -> None:
    coco_as_published(tmp_path / "source")
    before = sorted(path.read_bytes() for path in (tmp_path / "source").rglob("*.jpg"))
    dataset = load_dataset(tmp_path / "source")
    folder = write_dataset(dataset, tmp_path / "written", kind, images=images)
    pixels = list(folder.rglob("*.jpg"))
    assert len(pixels) == (0 if images == "none" else 4)
    assert all(path.is_symlink() == (images == "link") for path in pixels)
    if images != "none":
        check(load_dataset(folder))
    assert sorted(path.read_bytes() for path in (tmp_path / "source").rglob("*.jpg")) == before


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_that_holds_something_is_refused(tmp_path: Path, kind: str) -> None:
    coco_one_file(tmp_path / "source")
    dataset = load_dataset(tmp_path / "source")
    put(tmp_path / "full/mine.txt", "keep me")
    with pytest.raises(FileExistsError, match=r"full is not empty \(it holds mine.txt\)"):
        write_dataset(dataset, tmp_path / "full", kind)
    with pytest.raises(FileExistsError, match="is a file"):
        write_dataset(dataset, tmp_path / "full/mine.txt", kind)
    assert [path.name for path in tmp_path.iterdir()].count("full") == 1
    assert (tmp_path / "full/mine.txt").read_text() == "keep me"
    (tmp_path / "empty").mkdir()
    check(load_dataset(write_dataset(dataset, tmp_path / "empty", kind)), splits=False)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco_one_file(tmp_path / "source")
    dataset = load_dataset(tmp_path / "source")
    hollow = picture(tmp_path / "source/images/c.jpg", SIZES["c"])
    hollow.unlink()
    os.mkfifo(hollow)  # exists, and cannot be copied
    with pytest.raises((OSError, ValueError)):
        write_dataset(dataset, tmp_path / "written", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_is_lost_is_told(tmp_path: Path) -> None:
    dataset = odd_dataset(tmp_path / "source")
    boxes = dataset.boxes.copy()
    boxes[7] = np.nan
    classes = dataset.box_classes.copy()
    classes[9] = -1
    dataset = dataset.replace(boxes=boxes, box_classes=classes)
    for kind in WRITERS:
        with pytest.warns(UserWarning, match="1 boxes? .*unknown class") as caught:
            write_dataset(dataset, tmp_path / kind, kind)
        message = str(caught[0].message)
        assert "finite" in message
        assert ("crowd" in message) == (kind != "coco")
        assert load_dataset(tmp_path / kind).num_boxes == dataset.num_boxes - 2


def test_a_missing_image_is_told_and_its_labels_kept(tmp_path: Path) -> None:
    coco_one_file(tmp_path / "source")
    (tmp_path / "source/images/a.jpg").unlink()
    dataset = load_dataset(tmp_path / "source")
    with pytest.warns(UserWarning, match="1 images? .*missing"):
        write_dataset(dataset, tmp_path / "written", "coco")
    now = load_dataset(tmp_path / "written")
    assert (len(now), now.num_boxes) == (4, 5)
    assert [Path(f.image).stem for f in od.audit(now).of("missing_image")] == ["a"]


def test_arguments_of_the_writer_that_make_no_sense(tmp_path: Path) -> None:
    coco_one_file(tmp_path / "source")
    dataset = load_dataset(tmp_path / "source")
    with pytest.raises(
        DatasetFormatError, match="cannot write the format 'csv'; it can write coco, voc, yolo"
    ):
        write_dataset(dataset, tmp_path / "written", "csv")
    with pytest.raises(DatasetFormatError, match="did you mean 'yolo'"):
        convert(tmp_path / "source", tmp_path / "written", to="yolov8")
    with pytest.raises(ValueError, match="images='move' must be one of 'copy', 'link', 'none'"):
        write_dataset(dataset, tmp_path / "written", images="move")
    assert not (tmp_path / "written").exists()


def test_many_images_of_one_name(tmp_path: Path) -> None:
    """A folder an object, each with its image.jpg: flat names must differ, and soon."""
    dataset = Dataset(
        class_names=["x"],
        root=tmp_path,
        image_paths=[str(tmp_path / f"{k:05d}/image.jpg") for k in range(3000)],
        image_sizes=np.full((3000, 2), 9),
        boxes=[],
        box_classes=[],
        box_images=[],
    )
    folder = write_dataset(dataset, tmp_path / "written", "voc", images="none")
    assert len(list((folder / "Annotations").iterdir())) == 3000


# -- garbage --------------------------------------------------------------------------------------------------------


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
    assert read > 0 or file.endswith(".json")


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
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_files_made_to_do_harm(tmp_path: Path, name: str, content: bytes) -> None:
    put(tmp_path / name, content)
    picture(tmp_path / "images/a.jpg", (9, 9))
    read_or_refused(tmp_path)
    assert not Path("pwned").exists()


def test_problems_without_number_are_counted(tmp_path: Path) -> None:
    dataset = one_coco(tmp_path, annotations=[annotation(k, image_id=-k) for k in range(1, 5001)])
    assert len(dataset.source_problems) < 1100
    assert any("4,000" in p.message for p in dataset.source_problems)


# -- slips of whole files -------------------------------------------------------------------------------------------


def test_a_split_whose_file_is_cut_short_is_not_passed_over(tmp_path: Path) -> None:
    coco_as_published(tmp_path)
    for name in ("train", "val"):  # names that odkit does not know for sure
        (tmp_path / f"annotations/instances_{name}2017.json").rename(tmp_path / f"annotations/{name}.json")
    path = tmp_path / "annotations/val.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetFormatError, match=r"val\.json is no JSON.*cut short"):
        load_dataset(tmp_path)


def test_a_file_of_everything_beside_those_of_the_splits_is_left_out(tmp_path: Path) -> None:
    coco_as_published(tmp_path)
    put(tmp_path / "annotations/instances_all.json", coco())
    check(load_dataset(tmp_path))


def test_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    coco_one_file(tmp_path)
    path = tmp_path / "labels.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    check(load_dataset(tmp_path), splits=False)


def test_categories_that_are_wrong(tmp_path: Path) -> None:
    categories = ["cat", {"name": "dog"}, {"id": 7}, {"id": [1]}, {"id": 18, "name": 5}]
    assert one_coco(tmp_path, categories=categories).class_counts() == {"category 7": 3, "5": 2}


def test_lists_of_voc_with_slips(tmp_path: Path) -> None:
    voc_with_sets(tmp_path)
    put(tmp_path / "ImageSets/Main/train.txt", "a.jpg\n\n b \nnowhere\n")
    put(tmp_path / "ImageSets/Main/val.txt", "b\nc\nd\n")
    dataset = load_dataset(tmp_path)
    check(dataset)
    assert kinds(dataset) == ["image_in_two_splits", "listed_without_labels"]


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


def test_csv_that_is_not_in_utf_8(tmp_path: Path) -> None:
    csv_one_file(tmp_path)
    path = tmp_path / "labels.csv"
    path.write_bytes(path.read_text().replace("cat", "Löwe").encode("latin-1"))
    assert load_dataset(tmp_path).class_names == ("Löwe", "dog")
