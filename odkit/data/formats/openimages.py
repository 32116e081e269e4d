"""Open Images' CSV: a row a box, corners as shares of the image (https://storage.googleapis.com/openimages)."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from odkit.data.boxes import relative_to_xyxy
from odkit.data.formats.reader_base import (
    Folder,
    Gathered,
    NamedBoxes,
    beginning,
    folder_of,
    image_row,
    name_of,
    normal_split,
    place_names,
    short,
    split_of_path,
)
from odkit.system import InputError, counted, open_file

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_ABSENT = ("0", "0.0")  # the confidence of a label that people have found not to be there
_OF_OBJECTS = {"labelname", "labelname1", "imageid2"}  # columns of labels, relationships and the like
_NEEDED = ("imageid", "labelname", *_CORNERS)


def find_openimages(folder: Folder) -> dict[str, dict[str, int]]:
    """The files of boxes, each with the place of its columns; empty where there are none."""
    found = {}
    for file in folder.with_suffix(".csv", depth=2):
        columns = _columns(folder.path(file))
        if all(name in columns for name in _NEEDED):
            found[file] = columns
    return found


def _columns(path: Path) -> dict[str, int]:
    """Name of each column, in small letters, to its place."""
    header = re.split(rb"[\r\n]", beginning(path, 10_000), maxsplit=1)[0]
    cells = header.decode("utf-8-sig", errors="replace").strip().split(",")
    return {cell.strip().strip('"').lower(): place for place, cell in enumerate(cells)}


def read_openimages(folder: Folder, found: Mapping[str, Mapping[str, int]]) -> Gathered:
    """The images and boxes of Open Images' files, of those images that are there.

    The published files list millions of images, of which people have some: the boxes of the others are left out and
    counted. Class names come from the class descriptions beside, only those that occur. A group ("IsGroupOf") is a
    crowd. Labels of whole images are not read.
    """
    data = Gathered(folder, "openimages", [])
    boxes = NamedBoxes(data)
    descriptions, lists, of_images = _files_beside(data, found)
    rows: list[tuple[str, int, str, list[str], str, bool]] = []
    for file, columns in found.items():
        rows += _read_boxes(data, file, columns)
    splits = {split_of_path(file) for file in found}
    for file, columns in lists.items():
        _read_list(data, file, columns, splits)
    data.read_sizes()
    used = {row[2] for row in rows}
    names = {label: name for label, name in descriptions.items() if label in used}
    for file, image, label, corners, box_id, crowd in rows:
        if data.sizes[image] != (0, 0):
            boxes.add(file, image, names.get(label, label), corners, box_id, crowd=crowd)
    _tell_unknown_sizes(data, rows)
    boxes.finish(names.values(), relative_to_xyxy)
    data.unlabelled_images({folder_of(path) for path in data.paths})
    if not descriptions and any(label.startswith("/") for label in used):
        data.notes.append(
            "classes are called by their codes, as there is no class-descriptions-boxable.csv beside to name them"
        )
    if of_images:
        count = sum(sum(1 for _ in _rows_of(data, file)) for file in of_images)
        data.notes.append(f"left out: {count:,} labels of whole images ({', '.join(of_images)})")
    return data


def _files_beside(
    data: Gathered, found: Mapping[str, Mapping[str, int]]
) -> tuple[dict[str, str], dict[str, dict[str, int]], list[str]]:
    """Class code to name; the lists of images; the files of labels of whole images."""
    descriptions: dict[str, str] = {}
    lists: dict[str, dict[str, int]] = {}
    of_images: list[str] = []
    folder = Folder(data.folder.root)  # anew: where one file of boxes was asked for, it may know that alone
    for file in folder.with_suffix(".csv", depth=2):
        if file in found:
            continue
        columns = _columns(folder.path(file))
        if "class-descriptions" in name_of(file) or name_of(file) == "classes.csv":
            for _, row in _rows_of(data, file, after=0):
                if len(row) >= 2 and row[0] != "LabelName":
                    descriptions.setdefault(row[0].strip(), row[1].strip())
        elif "imageid" in columns and not columns.keys() & _OF_OBJECTS:
            lists[file] = columns
        elif {"imageid", "labelname", "confidence"} <= set(columns) and "xmin" not in columns:
            of_images.append(file)
    return descriptions, lists, of_images


def _rows_of(data: Gathered, file: str, *, after: int = 1) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file after its header, each with its line number."""
    try:
        with open_file(data.folder.path(file)) as opened:
            text = io.TextIOWrapper(opened, "utf-8-sig", errors="replace", newline="")
            for number, row in enumerate(csv.reader(text), 1):
                if number > after and any(row):
                    yield number, row
    except (OSError, csv.Error, InputError) as error:
        why = f"it cannot be read on: {error}"
        data.problem("unreadable_label", file, why, "Correct the file at this place.")


def _read_boxes(
    data: Gathered, file: str, columns: Mapping[str, int]
) -> list[tuple[str, int, str, list[str], str, bool]]:
    """Add a file's images; of each of their rows the file, image, class code, corners, box id and if it is a group."""
    split, needed = split_of_path(file), max(columns[name] for name in _NEEDED) + 1
    place, label, group = columns["imageid"], columns["labelname"], columns.get("isgroupof", -1)
    confidence = columns.get("confidence", -1)
    kept: list[tuple[str, str, list[str], str, bool]] = []
    there: dict[str, bool] = {}
    outside: set[str] = set()
    named: set[str] = set()
    lost = total = absent = 0
    for line, row in _rows_of(data, file):
        total += 1
        name = row[place].strip() if len(row) > place else ""
        if len(row) < needed or not name:
            data.problem(
                "unreadable_label",
                file,
                f"line {line} has {len(row)} cells, not {needed}, or names no image: {short(','.join(row))}",
                "Correct or delete the line.",
                box=f"line {line}",
            )
            continue
        if name not in there:
            there[name] = _is_there(data.folder, name)
            if data.folder.inside(name, folder_of(file)) is None:
                outside.add(name)
                data.outside(file, name)
        if name in outside:
            continue
        if not there[name]:
            lost += 1
            continue
        named.add(name)
        if 0 <= confidence < len(row) and row[confidence].strip() in _ABSENT:
            absent += 1
            continue
        corners = [row[columns[corner]] for corner in _CORNERS]
        is_group = 0 <= group < len(row) and row[group].strip() == "1"
        kept.append((name, row[label], corners, f"line {line}", is_group))
    if absent:
        data.notes.append(f"left out: {counted(absent, 'row')} of confidence 0, that is of what is not there")
    elsewhere = [name for name, found in there.items() if not found and name not in outside]
    if elsewhere:
        data.problem(
            "label_without_image",
            file,
            f"{lost:,} of its boxes belong to {len(elsewhere):,} images that are not there, as {short(elsewhere[0])}; "
            "they are left out",
            "Put those images there if they are meant to be part of the dataset.",
            severity="info",
        )
    paths = _paths(data.folder, sorted(named), file, split)
    images = {name: image_row(data, file, path, (0, 0), split) for name, path in paths.items()}
    data.notes.append(f"Open Images: {file} ({total:,} rows), corners as shares of the image")
    return [(file, images[row[0]], *row[1:]) for row in kept]


def _is_there(folder: Folder, name: str) -> bool:
    return name_of(name) in folder.images_by_stem or name_of(name) in folder.images_by_name


def _paths(folder: Folder, names: list[str], file: str, split: str) -> dict[str, str]:
    """Where the images lie that a file names without their suffix."""
    spelled = {}
    for name in dict.fromkeys(names):
        options = folder.images_by_stem.get(name_of(name), [])
        end = name_of(options[0])[len(name_of(name)) :] if options else ""
        if (inside := folder.inside(name + end, folder_of(file))) is not None:
            spelled[name] = inside
    paths = place_names(folder, spelled.values(), folder_of(file), split)
    return {name: paths[inside] for name, inside in spelled.items()}


def _read_list(data: Gathered, file: str, columns: Mapping[str, int], splits: set[str]) -> None:
    """Add the images that are listed and have no box: there is nothing in them, if their split has boxes at all."""
    place, subset = columns["imageid"], columns.get("subset")
    of_file = split_of_path(file)
    by_split: dict[str, list[str]] = {}
    for _, cells in _rows_of(data, file):
        name = cells[place].strip() if len(cells) > place else ""
        if name and _is_there(data.folder, name):
            told = cells[subset].strip() if subset is not None and len(cells) > subset else ""
            by_split.setdefault(normal_split(told) or of_file, []).append(name)
    for split, names in by_split.items():
        for path in _paths(data.folder, names, file, split).values():
            row = data.row(path)
            if row is not None:
                data.splits[row] = data.splits[row] or split
            elif split in splits or "" in splits:
                data.add_image(path, (0, 0), split)


def _tell_unknown_sizes(data: Gathered, rows: list[tuple[str, int, str, list[str], str, bool]]) -> None:
    unknown = {row[1]: row[0] for row in rows if data.sizes[row[1]] == (0, 0)}
    for image, file in unknown.items():
        data.problem(
            "unreadable_label",
            file,
            "its boxes have no place: the size of the image is not known",
            "Put a readable image there.",
            image=data.paths[image],
        )
