"""CSV with a box a row: filename, width, height, class, xmin, ymin, xmax, ymax, in pixels or as shares of the sides."""

import csv
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from odkit.data.dataset import UNKNOWN_CLASS
from odkit.data.formats.reader_base import (
    Folder,
    Gathered,
    declared_size,
    finite_rows,
    folder_of,
    in_pixels,
    mostly_shares,
    name_of,
    normal_split,
    place_names,
    read_text,
    short,
    split_of_path,
)

COLUMNS: dict[str, tuple[str, ...]] = {
    "filename": ("filename", "file", "filepath", "image", "imagename", "imagepath", "path", "img", "imageid"),
    "class": ("class", "classname", "label", "labelname", "name", "category", "categoryname"),
    "xmin": ("xmin", "x1", "left", "bboxx1"),
    "ymin": ("ymin", "y1", "top", "bboxy1"),
    "xmax": ("xmax", "x2", "right", "bboxx2"),
    "ymax": ("ymax", "y2", "bottom", "bboxy2"),
    "width": ("width", "imagewidth", "imgwidth", "w"),
    "height": ("height", "imageheight", "imgheight", "h"),
    "split": ("split", "set", "subset"),
}
"""What each column may be called, letter case, "_", "-" and spaces aside; the last three may be missing."""
_OPEN_IMAGES = {"imageid", "labelname", "xmin"}  # columns of Open Images, whose boxes mean something else
_NEEDED = ("filename", "class", "xmin", "ymin", "xmax", "ymax")
_CORNERS = _NEEDED[2:]
_Row = tuple[str, list[str], str, int, str]  # file, corners, class, row of the image, box id
_Said = tuple[str, str, tuple[float | str, ...], str]  # image, class, corners, split


def find_csv(folder: Folder) -> dict[str, dict[str, int]]:
    """The CSV files of a folder that hold boxes, each with the place of its columns."""
    found = {}
    for file in folder.with_suffix(".csv", depth=2):
        try:
            with folder.path(file).open("rb") as opened:
                header = opened.readline(10_000)
        except OSError:
            continue
        columns = _columns(header.decode("utf-8-sig", errors="replace"))
        if all(name in columns for name in _NEEDED):
            found[file] = columns
    return found


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _columns(header: str) -> dict[str, int]:
    """Name of each column that is known to its place."""
    try:
        row = next(csv.reader([header.rstrip("\r\n")], delimiter=_delimiter(header)), [])
    except csv.Error:
        return {}
    plain = ["".join(c for c in cell.lower() if c.isalnum()) for cell in row]
    if set(plain) >= _OPEN_IMAGES:
        return {}
    places = {}
    for name, aliases in COLUMNS.items():
        for alias in aliases:
            if alias in plain:
                places[name] = plain.index(alias)
                break
    return places


def read_csv(folder: Folder, found: Mapping[str, Mapping[str, int]]) -> Gathered:
    """The images and boxes of one or several CSV files; several are one a split, or parts of one dataset."""
    data = Gathered(folder, "csv", [])
    boxes: list[_Row] = []
    numbers: list[tuple[NDArray[np.float64], NDArray[np.bool_]]] = []  # of each file's boxes, see finite_rows
    relative: dict[str, bool] = {}
    places: set[str] = set()
    tables = {file: _placed_rows(data, file, found[file]) for file in _labels(data, found)}
    for file in _repeated(tables, found):
        del tables[file]
        data.notes.append(
            f"CSV: {file} is left aside: all of its rows stand in {', '.join(list(tables)[:3])} too"
        )
    for file, rows in tables.items():
        columns, split, first = found[file], split_of_path(file), len(boxes)
        for line, row, path in rows:
            image = _image(data, file, columns, row, path, split)
            places.add(folder_of(path))
            name = row[columns["class"]]
            corners = [row[columns[c]] for c in _CORNERS]
            if name.strip() or any(corner.strip() for corner in corners):
                boxes.append((file, corners, name if name.strip() else "", image, f"line {line}"))
        numbers.append(finite_rows([box[1] for box in boxes[first:]]))
        relative[file] = mostly_shares(*numbers[-1])
        how = "as shares of the image's sides" if relative[file] else "in pixels from 0"
        data.notes.append(f"CSV: {file} ({len(rows):,} rows), corners {how}")
    data.class_names = sorted({box[2] for box in boxes if box[2]})
    data.unlabelled_images(places)
    data.read_sizes()
    drawn, good = (np.concatenate(columns) for columns in zip(*numbers, strict=True))
    _add_boxes(data, boxes, drawn, good, relative)
    return data


def _labels(data: Gathered, found: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The files, without what is handed in to a competition where there is anything else."""
    labels = [file for file in found if "submission" not in name_of(file).lower()]
    for file in found if labels else ():
        if file not in labels:
            data.notes.append(f"CSV: {file} is left aside: by its name it is for what a detector finds")
    return labels or list(found)


def _placed_rows(data: Gathered, file: str, columns: Mapping[str, int]) -> list[tuple[int, list[str], str]]:
    """The rows of a file that name an image, each with its line number and the image's path."""
    rows, place, beside = _read_rows(data, file, columns), columns["filename"], folder_of(file)
    inside: dict[str, str] = {}
    for line, row in rows:
        name = row[place].strip()
        if not name:
            data.problem(
                "unreadable_label",
                file,
                f"line {line} names no image: {short(','.join(row))}",
                "Correct or delete the line.",
                box=f"line {line}",
            )
        elif name not in inside:
            path = data.folder.inside(name, beside)
            if path is None:
                data.outside(file, name)
            inside[name] = data.folder.completed(path) if path else ""
    paths = place_names(data.folder, (path for path in inside.values() if path), beside, split_of_path(file))
    return [(line, row, paths[path]) for line, row in rows if (path := inside.get(row[place].strip()))]


def _repeated(
    tables: Mapping[str, list[tuple[int, list[str], str]]], found: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """The files that say nothing which the others do not say too: copies, and one of everything beside its splits."""
    if len(tables) < 2:
        return []
    said: dict[str, set[_Said]] = {}
    for file, rows in tables.items():
        split, columns = split_of_path(file), found[file]
        said[file] = {_said(columns, row, path, split) for _, row, path in rows}
    repeated: list[str] = []
    for file in reversed(list(tables)):
        others = set().union(*(said[other] for other in said if other != file))
        others |= {(*key[:-1], "") for key in others}  # a row in no split is repeated by that of any
        if said[file] and said[file] <= others:
            del said[file]
            repeated.append(file)
    return repeated


def _said(columns: Mapping[str, int], row: list[str], path: str, split: str) -> _Said:
    """Image, class, corners and split of a row."""
    corners = tuple(map(_plain_number, (row[columns[name]] for name in _CORNERS)))
    own = row[columns["split"]].strip() if columns.get("split", len(row)) < len(row) else ""
    return path, row[columns["class"]].strip(), corners, normal_split(own) or split


def _plain_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text.strip()


def _read_rows(data: Gathered, file: str, columns: Mapping[str, int]) -> list[tuple[int, list[str]]]:
    """The rows of a file that are long enough, each with its line number."""
    needed = max(columns[name] for name in _NEEDED) + 1
    rows: list[tuple[int, list[str]]] = []
    try:
        lines = read_text(data.folder.path(file)).splitlines(keepends=True)
        reader = csv.reader(lines, delimiter=_delimiter(lines[0]), skipinitialspace=True)
        next(reader)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) < needed and row[columns["filename"] : columns["filename"] + 1] != row:
                data.problem(
                    "unreadable_label",
                    file,
                    f"line {reader.line_num} has {len(row)} cells, not {needed}: {short(','.join(row))}",
                    "Correct or delete the line.",
                    box=f"line {reader.line_num}",
                )
                continue
            rows.append((reader.line_num, row + [""] * (needed - len(row))))
    except (OSError, csv.Error) as error:
        data.problem(
            "unreadable_label", file, f"it cannot be read on: {error}", "Correct the file at this place."
        )
    return rows


def _image(
    data: Gathered, file: str, columns: Mapping[str, int], row: list[str], path: str, split: str
) -> int:
    cell = {name: row[k] if k < len(row) else "" for name, k in columns.items()}
    own = cell.get("split", "").strip()
    split = normal_split(own) or split
    known = data.row(path)
    if known is None:
        return data.add_image(path, declared_size(cell.get("width"), cell.get("height")), split)
    if data.splits[known] != split:
        data.problem(
            "image_in_two_splits",
            file,
            f"it is listed in {data.splits[known] or 'no split'} and in {split or 'no split'}; kept in the first",
            "List each image in one split.",
            severity="warning",
            image=path,
        )
    return known


def _add_boxes(
    data: Gathered,
    rows: list[_Row],
    boxes: NDArray[np.float64],
    good: NDArray[np.bool_],
    relative: Mapping[str, bool],
) -> None:
    """The rows as boxes in pixels; what cannot be one is told of.

    Args:
        data: What they are added to; with the images' sizes.
        rows: The rows.
        boxes: Their corners, [n, 4].
        good: Which of those are four numbers.
        relative: Of each file, whether its corners are shares of the image's sides.
    """
    index = {name: k for k, name in enumerate(data.class_names)}
    scaled = np.array([relative[row[0]] for row in rows], bool)
    images = np.array([row[3] for row in rows], np.int64)
    sizes = np.array(data.sizes, np.float64).reshape(-1, 2)[images]
    boxes, wrong = in_pixels(boxes, scaled, sizes)
    wrong |= dict.fromkeys(np.flatnonzero(~good).tolist(), "are not four numbers")
    for k in sorted(wrong):
        file, corners, _, image, box_id = rows[k]
        data.problem(
            "unreadable_label",
            file,
            f"{box_id}: {short(', '.join(corners))} {wrong[k]}; the box is left out",
            "Correct or delete the line.",
            image=data.paths[image],
            box=box_id,
        )
    kept = np.setdiff1d(np.arange(len(rows)), list(wrong))
    for k in kept.tolist():
        file, _, name, image, box_id = rows[k]
        if not name:
            data.problem(
                "unknown_class",
                file,
                f"{box_id} has a box and no class",
                "Name its class or delete the line.",
                image=data.paths[image],
                box=box_id,
            )
    classes = np.array([index.get(row[2], UNKNOWN_CLASS) for row in rows], np.int32)
    data.add_boxes(boxes[kept], classes[kept], images[kept], [rows[k][4] for k in kept.tolist()])
