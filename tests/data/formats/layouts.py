"""One small dataset, laid out in every way that people have it, and what must come of reading it."""

import json
import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from odkit.data.dataset import Dataset
from odkit.data.formats.load import load_dataset
from odkit.data.formats.write import write_dataset
from tests.data.formats.record_writer import detection, label_map, write_records

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
    return {Path(image_id).stem: index for index, image_id in enumerate(dataset.image_ids)}


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


CODES = {"cat": "/m/01yrx", "dog": "/m/0bt9lr"}


def openimages(split: str | None = None, codes: dict[str, str] = CODES) -> str:
    """Open Images' rows of the truth: corners as shares, ids without suffix; images without boxes have none."""
    text = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    text += "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
    for stem in of(split):
        width, height = SIZES[stem]
        for name, (x1, y1, x2, y2) in BOXES[stem]:
            text += f"{stem},xclick,{codes[name]},1,{x1 / width},{x2 / width},{y1 / height},{y2 / height},0,0,0,0,0\n"
    return text


def openimages_as_published(folder: Path) -> None:
    """With the lists of images (of which people have a part), and with what odkit does not read."""
    for split, name in {"train": "oidv6-train", "val": "validation"}.items():
        put(folder / f"{name}-annotations-bbox.csv", openimages(split))
        listed = "".join(
            f"{stem},{name},https://example.org/{stem}.jpg\n" for stem in [*of(split), "elsewhere"]
        )
        put(folder / f"{name}-images-boxable-with-rotation.csv", "ImageID,Subset,OriginalURL\n" + listed)
    put(folder / "class-descriptions-boxable.csv", "/m/011k07,Tortoise\n/m/01yrx,cat\n/m/0bt9lr,dog\n")
    labels = "ImageID,Source,LabelName,Confidence\na,verification,/m/01yrx,1\na,verification,/m/011k07,0\n"
    put(folder / "train-annotations-human-imagelabels-boxable.csv", labels)
    pictures(folder, val="validation")


def openimages_fiftyone(folder: Path) -> None:
    """As FiftyOne's zoo downloads it."""
    for split, name in {"train": "train", "val": "validation"}.items():
        put(folder / name / "labels/detections.csv", openimages(split))
        put(folder / name / "metadata/classes.csv", "/m/01yrx,cat\n/m/0bt9lr,dog\n")
        put(
            folder / name / "metadata/image_ids.csv",
            "ImageID,Subset\n" + "".join(f"{s},{name}\n" for s in of(split)),
        )
    pictures(folder, "{split}/data/{stem}.jpg", val="validation")


def openimages_one_file(folder: Path) -> None:
    """As CVAT and others write it: class names in place of codes, one list of all images."""
    put(folder / "annotations/default-annotations-bbox.csv", openimages(codes={"cat": "cat", "dog": "dog"}))
    put(folder / "annotations/class-descriptions.csv", "LabelName,DisplayName\ncat,cat\ndog,dog\n")
    put(
        folder / "annotations/image_ids_and_rotation.csv",
        "ImageID,Subset\n" + "".join(f"{s},\n" for s in SIZES),
    )
    pictures(folder, "images/default/{stem}.jpg")


OPENIMAGES_LAYOUTS = {
    openimages_as_published: True,
    openimages_fiftyone: True,
    openimages_one_file: False,
}


def cvat(
    split: str | None = None, *, subsets: bool = False, name: str = "{stem}.jpg", extra: str = ""
) -> str:
    """CVAT's XML for images of the truth; `extra` stands in the first image."""
    images = ""
    for number, stem in enumerate(of(split)):
        width, height = SIZES[stem]
        subset = f' subset="{SPLITS[stem]}"' if subsets else ""
        images += f'<image id="{number}" name="{name.format(stem=stem, split=SPLITS[stem])}"{subset} '
        images += f'width="{width}" height="{height}">\n'
        for label, (x1, y1, x2, y2) in BOXES[stem]:
            images += f'<box label="{label}" source="manual" occluded="0" xtl="{x1:.2f}" ytl="{y1:.2f}" '
            images += (
                f'xbr="{x2:.2f}" ybr="{y2:.2f}" z_order="0"><attribute name="age">old</attribute></box>\n'
            )
        images += (extra if number == 0 else "") + "</image>\n"
    labels = "".join(
        f"<label><name>{name}</name><color>#fa3253</color><type>any</type><attributes></attributes></label>"
        for name in NAMES
    )
    kind = "project" if subsets else "task"
    meta = f"<meta><{kind}><id>7</id><name>pets</name><labels>{labels}</labels></{kind}><dumped>2024</dumped></meta>"
    start = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
    return f"{start}{meta}\n{images}</annotations>\n"


def cvat_task(folder: Path) -> None:
    put(folder / "annotations.xml", cvat())
    pictures(folder, "images/{stem}.jpg")


def cvat_project(folder: Path) -> None:
    put(folder / "annotations.xml", cvat(subsets=True))
    pictures(folder, "images/{split}/{stem}.jpg")


def cvat_file_a_task(folder: Path) -> None:
    put(folder / "labels/train.xml", cvat("train", name="{split}/{stem}.jpg"))
    put(folder / "labels/val.xml", cvat("val", name="{split}/{stem}.jpg"))
    pictures(folder, "images/{split}/{stem}.jpg")


CVAT_LAYOUTS = {cvat_task: False, cvat_project: True, cvat_file_a_task: True}


def labelme(
    stem: str, path: str = "{stem}.jpg", shapes: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """LabelMe's file of an image; boxes are drawn from corner to corner, in whatever direction."""
    width, height = SIZES[stem]
    if shapes is None:
        shapes = [
            {"label": name, "points": [[x2, y1], [x1, y2]], "group_id": None, "description": "",
             "shape_type": "rectangle", "flags": {}, "mask": None}
            for name, (x1, y1, x2, y2) in BOXES[stem]
        ]  # fmt: skip
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": path.format(stem=stem),
        "imageData": "/9j/4AAQSkZJRgABAQAAAQABAAD",  # the picture itself, which nobody should unpack
        "imageHeight": height,
        "imageWidth": width,
    }


def labelme_beside_images(folder: Path) -> None:
    for stem in SIZES:
        put(folder / f"{stem}.json", labelme(stem))
    pictures(folder, "{stem}.jpg")


def labelme_split_folders(folder: Path) -> None:
    for stem, split in SPLITS.items():
        put(folder / split / f"{stem}.json", labelme(stem))
    pictures(folder)


def labelme_apart(folder: Path) -> None:
    """Labels in a folder of their own, the way back written on Windows, and one stale."""
    for stem in SIZES:
        put(
            folder / f"ann/{stem}.json",
            labelme(stem, "..\\img\\{stem}.jpg" if stem != "b" else "C:\\x\\{stem}.jpg"),
        )
    pictures(folder, "img/{stem}.jpg")


LABELME_LAYOUTS = {labelme_beside_images: False, labelme_split_folders: True, labelme_apart: False}


def createml(
    split: str | None = None, image: str = "image", annotations: str = "annotations", name: str = "{stem}.jpg"
) -> list[dict[str, Any]]:
    """CreateML's list of the truth, or of one split of it."""
    return [
        {
            image: name.format(stem=stem),
            annotations: [
                {
                    "label": label,
                    "coordinates": {
                        "x": (x1 + x2) / 2,
                        "y": (y1 + y2) / 2,
                        "width": x2 - x1,
                        "height": y2 - y1,
                    },
                }
                for label, (x1, y1, x2, y2) in BOXES[stem]
            ],
        }
        for stem in of(split)
    ]


def createml_roboflow(folder: Path) -> None:
    for split, place in {"train": "train", "val": "valid"}.items():
        put(folder / f"{place}/_annotations.createml.json", createml(split))
    pictures(folder, val="valid")


def createml_apple(folder: Path) -> None:
    """With the keys of Apple's own page."""
    put(folder / "annotations.json", createml(image="imagefilename", annotations="annotation"))
    pictures(folder, "{stem}.jpg")


CREATEML_LAYOUTS = {createml_roboflow: True, createml_apple: False}


def labelstudio(stem: str, address: str, **more: Any) -> dict[str, Any]:
    """A task of Label Studio's export."""
    width, height = SIZES[stem]
    results = [
        {
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "x": x1 / width * 100,
                "y": y1 / height * 100,
                "width": (x2 - x1) / width * 100,
                "height": (y2 - y1) / height * 100,
                "rotation": 0,
                "rectanglelabels": [name],
            },
            "id": f"{stem}{number}",
            "from_name": "label",
            "to_name": "image",
            "type": "rectanglelabels",
            "origin": "manual",
        }
        for number, (name, (x1, y1, x2, y2)) in enumerate(BOXES[stem])
    ]
    annotation = {
        "id": ord(stem),
        "completed_by": 1,
        "result": results,
        "was_cancelled": False,
        "ground_truth": False,
    }
    return {
        "id": ord(stem),
        "annotations": [annotation],
        "file_upload": f"8f3a9c1d-{stem}.jpg",
        "drafts": [],
        "predictions": [],
        "data": {"image": address.format(stem=stem)},
        "meta": {},
        "project": 1,
        **more,
    }


ADDRESSES = {
    "a": "/data/upload/1/8f3a9c1d-{stem}.jpg",
    "b": "/data/local-files/?d=pets/images/{stem}.jpg",
    "c": "https://example.org/bucket/{stem}.jpg?sig=1%2F2",
    "d": "s3://bucket/pets/{stem}.jpg",
}


LABELSTUDIO_FILE = "project-1-at-2024-05-01-10-00-4f2c8d1a.json"


def labelstudio_json(folder: Path) -> None:
    put(
        folder / LABELSTUDIO_FILE,
        [labelstudio(s, a) for s, a in ADDRESSES.items()],
    )
    pictures(folder, "images/{stem}.jpg")


def labelstudio_uploads(folder: Path) -> None:
    """The image in another key, a file a split."""
    pictures(folder, "images/{stem}.jpg")
    for split in SPLIT_FOLDERS:
        tasks = [labelstudio(s, "", data={"id": "x", "photo": f"/data/upload/1/{s}.jpg"}) for s in of(split)]
        put(folder / f"{split}.json", tasks)


def labelstudio_min(folder: Path) -> None:
    tasks = []
    for stem, address in ADDRESSES.items():
        results = labelstudio(stem, address)["annotations"][0]["result"]
        label = [
            r["value"] | {"original_width": r["original_width"], "original_height": r["original_height"]}
            for r in results
        ]
        tasks.append({"image": address.format(stem=stem), "id": ord(stem), "label": label, "annotator": 1,
                      "annotation_id": 1, "created_at": "2024-05-01", "lead_time": 4.2})  # fmt: skip
    put(folder / "export.json", tasks)
    pictures(folder, "images/{stem}.jpg")


LABELSTUDIO_LAYOUTS = {labelstudio_json: False, labelstudio_uploads: True, labelstudio_min: False}


def kitti(stem: str, dont_care: bool = False) -> str:
    """KITTI's label file of an image; empty where it has no objects."""
    lines = [
        f"{name} 0.00 0 -1.58 {x1} {y1} {x2} {y2} 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59"
        for name, (x1, y1, x2, y2) in BOXES[stem]
    ]
    lines += ["DontCare -1 -1 -10 5.0 5.0 9.0 9.0 -1 -1 -1 -1000 -1000 -1000 -10"] * dont_care
    return "".join(line + "\n" for line in lines)


def kitti_as_published(folder: Path) -> None:
    """With the right camera's pictures and the calibrations beside."""
    for stem in SIZES:
        put(folder / f"label_2/{stem}.txt", kitti(stem, dont_care=stem == "a"))
        put(folder / f"calib/{stem}.txt", "P0: " + " ".join(["7.2e+02"] * 12) + "\n")
    pictures(folder, "image_2/{stem}.jpg")
    for stem, size in SIZES.items():
        picture(folder / f"image_3/{stem}.jpg", size)


def kitti_tao(folder: Path) -> None:
    """As NVIDIA's TAO has it."""
    for stem, split in SPLITS.items():
        put(folder / split / f"labels/{stem}.txt", kitti(stem))
    pictures(folder, "{split}/images/{stem}.jpg")


KITTI_LAYOUTS = {kitti_as_published: False, kitti_tao: True}


def tutorial(folder: Path, *, test: bool = True) -> Path:
    """TensorFlow's tutorials: XML beside the pictures, and what their script makes of it, its numbers as they are."""
    put(folder / "training/labelmap.pbtxt", "item {\n  id: 1\n  name: 'cat'\n}\n")
    pictures(folder, "images/{split}/{stem}.jpg", val="test")
    for split, place in (("train", "train"), ("val", "test")):
        text = HEADER
        for stem in of(split):
            put(folder / f"images/{place}/{stem}.xml", voc(stem))
            for name, (x1, y1, x2, y2) in BOXES[stem]:
                width, height = SIZES[stem]
                text += f"{stem}.jpg,{width},{height},{name},{x1 + 1},{y1 + 1},{x2},{y2}\n"
        if test or split == "train":
            put(folder / f"images/{place}_labels.csv", text)
    return folder


def tfrecord_examples(folder: Path, split: str | None = None, *, keep: bool = False) -> list[dict[str, Any]]:
    """The truth as Examples, their pictures inside; `keep`: the pictures lie in images/ too."""
    place = folder / "images" if keep else folder.parent / f"elsewhere of {folder.name}"
    return [
        detection(picture(place / f"{stem}.jpg", SIZES[stem]), SIZES[stem], BOXES[stem], names=NAMES)
        for stem in of(split)
    ]


def tfrecord_one_file(folder: Path) -> None:
    write_records(folder / "pets.tfrecord", tfrecord_examples(folder))


def tfrecord_a_split(folder: Path) -> None:
    for split in ("train", "val"):
        write_records(folder / f"{split}.record", tfrecord_examples(folder, split), packed=False)
    put(folder / "label_map.pbtxt", label_map(NAMES))


def tfrecord_shards(folder: Path) -> None:
    for split in ("train", "val"):
        for k, one in enumerate(tfrecord_examples(folder, split)):
            write_records(folder / f"data/pets_{split}.record-{k:05d}-of-00002", [one])


def tfrecord_packed(folder: Path) -> None:
    write_records(folder / "data/pets.tfrecords.gz", tfrecord_examples(folder))


def tfrecord_beside_images(folder: Path) -> None:
    write_records(folder / "pets.record", tfrecord_examples(folder, keep=True))


TFRECORD_LAYOUTS = {
    tfrecord_one_file: False,
    tfrecord_a_split: True,
    tfrecord_shards: True,
    tfrecord_packed: False,
    tfrecord_beside_images: False,
}


LAYOUTS = [
    (kind, layout, splits)
    for kind, layouts in (
        ("coco", COCO_LAYOUTS),
        ("voc", VOC_LAYOUTS),
        ("yolo", YOLO_LAYOUTS),
        ("csv", CSV_LAYOUTS),
        ("tfrecord", TFRECORD_LAYOUTS),
        ("openimages", OPENIMAGES_LAYOUTS),
        ("cvat", CVAT_LAYOUTS),
        ("labelme", LABELME_LAYOUTS),
        ("createml", CREATEML_LAYOUTS),
        ("labelstudio", LABELSTUDIO_LAYOUTS),
        ("kitti", KITTI_LAYOUTS),
    )
    for layout, splits in layouts.items()
]


def name_of(value: Any) -> str | None:
    return getattr(value, "__name__", None)


def annotation(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 101, "category_id": 7, "bbox": [1, 2, 3, 4], **changes}


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


def written(dataset: Dataset, folder: Path, kind: str, **options: Any) -> Dataset:
    """Written in a format and read back, the losses that are told aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        path = write_dataset(dataset, folder, kind, **options)
    assert path == folder
    return load_dataset(path, val=0)
