"""CSV with a box a row: filename, width, height, class, xmin, ymin, xmax, ymax."""

import csv
from collections.abc import Mapping

import numpy as np

from odkit.data.dataset import UNKNOWN_CLASS
from odkit.data.formats.reader_base import (
    Folder,
    Gathered,
    declared_size,
    finite_rows,
    folder_of,
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
    boxes: list[tuple[str, list[str], str, int, str]] = []  # file, corners, class, row, box id
    places: set[str] = set()
    for file, columns in found.items():
        rows = _read_rows(data, file, columns)
        split = split_of_path(file)
        beside = folder_of(file)
        inside: dict[str, str] = {}
        for _, row in rows:
            name = row[columns["filename"]].strip()
            if name not in inside:
                path = folder.inside(name, beside) if name else ""
                if path is None:
                    data.outside(file, name)
                inside[name] = path or ""
        paths = place_names(folder, (path for path in inside.values() if path), beside, split)
        for line, row in rows:
            path = inside[row[columns["filename"]].strip()]
            if not path:
                if not row[columns["filename"]].strip():
                    data.problem(
                        "unreadable_label",
                        file,
                        f"line {line} names no image: {short(','.join(row))}",
                        "Correct or delete the line.",
                        box=f"line {line}",
                    )
                continue
            path = paths[path]
            image = _image(data, file, columns, row, path, split)
            places.add(folder_of(path))
            name = row[columns["class"]]
            corners = [row[columns[c]] for c in _CORNERS]
            if name.strip() or any(corner.strip() for corner in corners):
                boxes.append((file, corners, name if name.strip() else "", image, f"line {line}"))
        data.notes.append(f"CSV: {file} ({len(rows):,} rows), corners in pixels from 0")
    data.class_names = sorted({box[2] for box in boxes if box[2]})
    _add_boxes(data, boxes)
    data.unlabelled_images(places)
    data.read_sizes()
    return data


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


def _add_boxes(data: Gathered, rows: list[tuple[str, list[str], str, int, str]]) -> None:
    index = {name: k for k, name in enumerate(data.class_names)}
    boxes, good = finite_rows([row[1] for row in rows])
    kept = []
    for row, fine in zip(rows, good.tolist(), strict=True):
        if fine:
            kept.append(row)
            if not row[2]:
                data.problem(
                    "unknown_class",
                    row[0],
                    f"{row[4]} has a box and no class",
                    "Name its class or delete the line.",
                    image=data.paths[row[3]],
                    box=row[4],
                )
            continue
        file, corners, _, image, box_id = row
        data.problem(
            "unreadable_label",
            file,
            f"{box_id}: {short(', '.join(corners))} are not four numbers; the box is left out",
            "Correct or delete the line.",
            image=data.paths[image],
            box=box_id,
        )
    data.add_boxes(
        boxes[good],
        np.array([index.get(row[2], UNKNOWN_CLASS) for row in kept], np.int32),
        [row[3] for row in kept],
        [row[4] for row in kept],
    )
