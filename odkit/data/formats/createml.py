"""CreateML's JSON: a list of images, each with its boxes by their centres in pixels (Apple, MLObjectDetector)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from odkit.data.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from odkit.data.dataset import Dataset
from odkit.data.formats.reader_base import (
    CLASSES_FILE,
    DatasetFormatError,
    Folder,
    Gathered,
    NamedBoxes,
    folder_of,
    image_row,
    listed_classes,
    name_of,
    no_garbage_collection,
    place_names,
    read_json,
    short,
    split_of,
    split_of_path,
)
from odkit.data.formats.writer_base import flat_names, lost_crowds, split_files, writable_boxes

LABELS_FILE = "_annotations.createml.json"
_NUMBERS = ("x", "y", "width", "height")


def find_createml(folder: Folder) -> list[str]:
    """The CreateML files of a folder; empty where there are none."""
    return [file for file in folder.with_suffix(".json", depth=2) if folder.json_kinds[file] == "createml"]


def read_createml(folder: Folder, files: Sequence[str]) -> Gathered:
    """The images and boxes of one or several CreateML files, which are one a split, or parts of one dataset.

    Raises:
        DatasetFormatError: A file is no JSON, or is no list.
    """
    data = Gathered(folder, "createml", [])
    boxes = NamedBoxes(data)
    places: set[str] = set()
    with no_garbage_collection():
        for file in files:
            content = read_json(folder.path(file))
            if not isinstance(content, list):
                raise DatasetFormatError(f"{folder.path(file)} is no list of images, as CreateML's files are")
            places |= _read_file(data, boxes, file, content)
            data.notes.append(f"CreateML: {file} ({len(content):,} images), centres and sides in pixels")
    data.read_sizes()
    listed = listed_classes(folder, boxes.names)
    if listed:
        data.notes.append(f"class names in the order of {CLASSES_FILE}")
    boxes.finish(listed, lambda numbers, _: cxcywh_to_xyxy(numbers))
    data.unlabelled_images(places)
    return data


def _read_file(data: Gathered, boxes: NamedBoxes, file: str, content: list[Any]) -> set[str]:
    """Add a file's images and boxes; the folders of the images."""
    beside, split = folder_of(file), split_of_path(file)
    found: list[tuple[str, Any]] = []
    for number, entry in enumerate(content, 1):
        name = (entry.get("image") or entry.get("imagefilename")) if isinstance(entry, dict) else None
        if not isinstance(name, str):
            data.problem(
                "unreadable_label",
                file,
                f"entry {number} of the list names no image: {short(entry)}",
                "Correct or delete it.",
            )
            continue
        inside = data.folder.inside(name, beside)
        if inside is None:
            data.outside(file, name)
        else:
            found.append((inside, entry.get("annotations", entry.get("annotation", []))))
    paths = place_names(data.folder, (name for name, _ in found), beside, split)
    for name, annotations in found:
        row = image_row(data, file, paths[name], (0, 0), split)
        if not isinstance(annotations, list):
            data.problem(
                "unreadable_label",
                file,
                f"its annotations are {short(annotations)}, not a list",
                "Correct or delete them.",
                image=paths[name],
            )
            continue
        for number, annotation in enumerate(annotations, 1):
            said = annotation if isinstance(annotation, dict) else {}
            place = said.get("coordinates")
            numbers = [place.get(key) for key in _NUMBERS] if isinstance(place, dict) else None
            boxes.add(file, row, said.get("label"), numbers, f"annotation {number}", shown=annotation)
    return {folder_of(path) for path in paths.values()}


# -- writing ---------------------------------------------------------------------------------------------------------


def createml_places(dataset: Dataset) -> list[str]:
    """Where each image goes: into a folder a split, or beside the labels where there are no splits."""
    if not dataset.split_counts():
        return [name.removeprefix("/") for name in flat_names(dataset, lambda split: "")]
    places = split_files(dataset, "unsplit")
    return flat_names(dataset, places.__getitem__)


def write_createml(dataset: Dataset, folder: Path, files: Sequence[str]) -> list[str]:
    """Write _annotations.createml.json into each folder of images, and classes.txt; what is lost."""
    keep, lost = writable_boxes(dataset)
    lost += lost_crowds(dataset, "CreateML")
    lost += [
        f"CreateML has no splits but train, val and test: {split!r} is the name of a folder"
        for split in dataset.split_counts()
        if split_of(split) != split
    ]
    numbers = xyxy_to_cxcywh(dataset.boxes).tolist()
    images: dict[str, list[Any]] = {}
    for row, file in enumerate(files):
        rows = dataset.boxes_of(row)
        annotations = [
            {
                "label": dataset.class_names[dataset.box_classes[k]],
                "coordinates": dict(zip(_NUMBERS, numbers[k], strict=True)),
            }
            for k in np.flatnonzero(keep[rows]) + rows.start
        ]
        images.setdefault(folder_of(file), []).append({"image": name_of(file), "annotations": annotations})
    for place, content in images.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / LABELS_FILE).write_bytes(orjson.dumps(content))
    text = "".join(f"{name}\n" for name in dataset.class_names)
    (folder / CLASSES_FILE).write_text(text, encoding="utf-8")
    return lost
