"""CSV with a box a row: filename, width, height, class, xmin, ymin, xmax, ymax, in pixels or as shares of the sides."""

import csv
import itertools
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from odkit.data.dataset import UNKNOWN_CLASS
from odkit.data.formats.reader_base import (
    MOST_PROBLEMS,
    UTF_16_MARKS,
    Folder,
    Gathered,
    beginning,
    declared_size,
    folder_of,
    in_pixels,
    mostly_shares,
    moved_images,
    name_of,
    normal_split,
    open_text,
    place_names,
    short,
    split_of_path,
)
from odkit.data.texts import Numbered
from odkit.system import InputError

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


@dataclass
class _Table:
    """The rows of a file that name an image, as columns: a file of millions of rows has no object a row.

    Attributes:
        file: The file.
        lines: The row's line in the file.
        images: Its image, as a place in `names`.
        classes: Its class, as a place in `class_names`; -1 for none.
        splits: Its split, as a place in `split_names`.
        corners: Four a row; nan where a cell holds no number.
        drawn: Whether there is a box in it.
        spelled: The corners' cells where they are not four numbers: of the first thousand such rows.
    """

    file: str
    lines: "array[int]" = field(default_factory=lambda: array("q"))
    images: "array[int]" = field(default_factory=lambda: array("q"))
    classes: "array[int]" = field(default_factory=lambda: array("q"))
    splits: "array[int]" = field(default_factory=lambda: array("q"))
    corners: "array[float]" = field(default_factory=lambda: array("d"))
    drawn: "array[int]" = field(default_factory=lambda: array("b"))
    spelled: dict[int, list[str]] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)  # of images, as they are spelled
    sizes: list[tuple[int, int]] = field(default_factory=list)  # of each name, by its first row
    class_names: dict[str, int] = field(default_factory=dict)
    split_names: dict[str, int] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)  # of each name; "" where it leads out of the folder

    def boxes(self) -> NDArray[np.float64]:
        """The corners of all rows, [n, 4]."""
        return np.frombuffer(self.corners, np.float64).reshape(-1, 4)

    def column(self, name: str) -> NDArray[np.int64]:
        return np.array(getattr(self, name), np.int64)


def find_csv(folder: Folder) -> dict[str, dict[str, int]]:
    """The CSV files of a folder that hold boxes, each with the place of its columns."""
    found = {}
    for file in folder.with_suffix(".csv", depth=2):
        head = beginning(folder.path(file), 10_000)
        encoding = "utf-16" if head.startswith(UTF_16_MARKS) else "utf-8-sig"
        columns = _columns(head.decode(encoding, errors="replace"))
        if all(name in columns for name in _NEEDED):
            found[file] = columns
    return found


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _columns(header: str) -> dict[str, int]:
    """Name of each column that is known to its place."""
    header = re.split(r"[\r\n]", header, maxsplit=1)[0]
    try:
        row = next(csv.reader([header], delimiter=_delimiter(header)), [])
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
    tables = {file: _placed_table(data, file, found[file]) for file in _labels(data, found)}
    for file in _repeated(tables):
        del tables[file]
        data.notes.append(
            f"CSV: {file} is left aside: all of its rows stand in {', '.join(list(tables)[:3])} too"
        )
    names = {name for table in tables.values() for name in table.class_names}
    data.class_names = sorted(names)
    rows = {file: _add_images(data, table) for file, table in tables.items()}
    data.unlabelled_images({folder_of(path) for path in data.paths})
    data.read_sizes()
    for file, table in tables.items():
        relative = _add_boxes(data, table, rows[file])
        how = "as shares of the image's sides" if relative else "in pixels from 0"
        data.notes.append(f"CSV: {file} ({len(table.lines):,} rows), corners {how}")
    return data


def _labels(data: Gathered, found: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The files, without what is handed in to a competition where there is anything else."""
    labels = [file for file in found if "submission" not in name_of(file).lower()]
    for file in found if labels else ():
        if file not in labels:
            data.notes.append(f"CSV: {file} is left aside: by its name it is for what a detector finds")
    return labels or list(found)


def _placed_table(data: Gathered, file: str, columns: Mapping[str, int]) -> _Table:
    """The rows of a file that name an image, and where the images lie; rows of images outside are left out."""
    table, beside = _read_table(data, file, columns), folder_of(file)
    moved = moved_images(data, table.names)
    inside: list[str] = []
    for name in table.names:
        path = moved.get(name) or data.folder.inside(name, beside)
        if path is None:
            data.outside(file, name)
        inside.append(data.folder.completed(path) if path else "")
    paths = place_names(data.folder, (path for path in inside if path), beside, split_of_path(file))
    table.paths = [paths.get(path, "") for path in inside]
    return table


def _repeated(tables: Mapping[str, _Table]) -> list[str]:
    """The files that say nothing which the others do not say too: copies, and one of everything beside its splits."""
    if len(tables) < 2:
        return []
    own = {file: _said(table) for file, table in tables.items()}
    # a row in no split is repeated by that of any
    said = {file: np.unique(np.concatenate(keys)) for file, keys in own.items()}
    every, files = np.unique(np.concatenate(list(said.values())), return_counts=True)
    repeated: list[str] = []
    for file in reversed(list(tables)):
        places = np.searchsorted(every, own[file][0])
        if len(places) and (files[places] > 1).all():
            files[np.searchsorted(every, said[file])] -= 1
            repeated.append(file)
    return repeated


def _said(table: _Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A hash of each row's image, class, corners and split; and one of the same without the split."""
    classes, splits = [*map(str.strip, table.class_names), ""], list(table.split_names)
    keys: list[tuple[int, int]] = []
    rows = zip(table.images, table.classes, table.splits, table.boxes().tolist(), strict=True)
    for k, (image, kind, split, corners) in enumerate(rows):
        if table.paths[image]:
            cells = [_plain_number(cell) for cell in table.spelled[k]] if k in table.spelled else corners
            said = (table.paths[image], classes[kind], *("nan" if cell != cell else cell for cell in cells))
            keys.append((hash((*said, splits[split])), hash((*said, ""))))
    hashes = np.array(keys, np.int64).reshape(-1, 2)
    return hashes[:, 0], hashes[:, 1]


def _plain_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text.strip()


def _read_table(data: Gathered, file: str, columns: Mapping[str, int]) -> _Table:
    """The rows of a file that are long enough and name an image."""
    table, of_file = _Table(file), split_of_path(file)
    name_at, class_at, split_at = columns["filename"], columns["class"], columns.get("split", -1)
    corners_at = [columns[name] for name in _CORNERS]
    sides_at = [columns.get(name, -1) for name in ("width", "height")]
    for line, row in _rows(data, file, columns):
        name = row[name_at].strip()
        if not name:
            data.problem(
                "unreadable_label",
                file,
                f"line {line} names no image: {short(','.join(row))}",
                "Correct or delete the line.",
                box=f"line {line}",
            )
            continue
        image = table.names.setdefault(name, len(table.names))
        if image == len(table.sizes):
            table.sizes.append(declared_size(*(row[k] if 0 <= k < len(row) else "" for k in sides_at)))
        kind = row[class_at] if row[class_at].strip() else ""
        split = normal_split(row[split_at].strip() if 0 <= split_at < len(row) else "") or of_file
        cells = [row[k] for k in corners_at]
        try:
            corners = [float(cell) for cell in cells]
        except ValueError:
            corners = [np.nan] * 4
            if len(table.spelled) < MOST_PROBLEMS:
                table.spelled[len(table.lines)] = cells
        table.lines.append(line)
        table.images.append(image)
        table.classes.append(table.class_names.setdefault(kind, len(table.class_names)) if kind else -1)
        table.splits.append(table.split_names.setdefault(split, len(table.split_names)))
        table.corners.extend(corners)
        table.drawn.append(bool(kind or any(cell.strip() for cell in cells)))
    return table


def _rows(data: Gathered, file: str, columns: Mapping[str, int]) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file that are long enough, each with its line number."""
    needed, name_at = max(columns[name] for name in _NEEDED) + 1, columns["filename"]
    try:
        with open_text(data.folder.path(file)) as opened:
            header = opened.readline()
            lines = itertools.chain([header], opened)
            reader = csv.reader(lines, delimiter=_delimiter(header), skipinitialspace=True)
            next(reader)
            for row in reader:
                if len(row) >= needed:
                    if any(map(str.strip, row)):
                        yield reader.line_num, row
                elif any(map(str.strip, row)):
                    if row[name_at : name_at + 1] == row:
                        yield reader.line_num, row + [""] * (needed - len(row))
                        continue
                    data.problem(
                        "unreadable_label",
                        file,
                        f"line {reader.line_num} has {len(row)} cells, not {needed}: {short(','.join(row))}",
                        "Correct or delete the line.",
                        box=f"line {reader.line_num}",
                    )
    except (OSError, csv.Error, InputError) as error:
        data.problem(
            "unreadable_label", file, f"it cannot be read on: {error}", "Correct the file at this place."
        )


def _add_images(data: Gathered, table: _Table) -> NDArray[np.int64]:
    """Add a file's images; the row of each of its names, -1 where that leads out of the folder."""
    rows = np.full(len(table.names), -1, np.int64)
    splits = list(table.split_names)
    pairs = table.column("images") * max(1, len(splits)) + table.column("splits")
    first = np.sort(np.unique(pairs, return_index=True)[1])
    for pair in pairs[first].tolist():
        name, split = pair // len(splits), splits[pair % len(splits)]
        path = table.paths[name]
        if not path:
            continue
        known = data.row(path)
        if known is None:
            known = data.add_image(path, table.sizes[name], split)
        elif data.splits[known] != split:
            first_split = data.splits[known] or "no split"
            data.problem(
                "image_in_two_splits",
                table.file,
                f"it is listed in {first_split} and in {split or 'no split'}; kept in the first",
                "List each image in one split.",
                severity="warning",
                image=path,
            )
        rows[name] = known
    return rows


def _add_boxes(data: Gathered, table: _Table, rows: NDArray[np.int64]) -> bool:
    """A file's boxes, in pixels; what cannot be one is told of. Whether the corners are shares of the image's sides.

    Args:
        data: What they are added to; with the images' sizes.
        table: The file.
        rows: Row of each of its images.
    """
    images = rows[table.column("images")]
    drawn = np.flatnonzero((images >= 0) & (table.column("drawn") > 0))
    images, corners, lines = images[drawn], table.boxes()[drawn], table.column("lines")[drawn]
    good = np.all(np.abs(corners) < 1e9, axis=1)  # so much float32 can hold
    relative = mostly_shares(corners, good)
    sizes = np.array(data.sizes, np.float64).reshape(-1, 2)[images]
    boxes, wrong = in_pixels(corners, np.full(len(drawn), relative), sizes)
    wrong |= dict.fromkeys(np.flatnonzero(~good).tolist(), "are not four numbers")
    for k in sorted(wrong):
        cells = table.spelled.get(int(drawn[k])) or [f"{corner:.12g}" for corner in corners[k].tolist()]
        data.problem(
            "unreadable_label",
            table.file,
            f"line {lines[k]}: {short(', '.join(cells))} {wrong[k]}; the box is left out",
            "Correct or delete the line.",
            image=data.paths[images[k]],
            box=f"line {lines[k]}",
        )
    kept = np.ones(len(drawn), bool)
    kept[list(wrong)] = False
    index = {name: k for k, name in enumerate(data.class_names)}
    numbers = np.array([*(index[name] for name in table.class_names), UNKNOWN_CLASS], np.int32)
    classes = numbers[table.column("classes")[drawn]]  # -1, none, is the last
    for k in np.flatnonzero(kept & (classes == UNKNOWN_CLASS)).tolist():
        data.problem(
            "unknown_class",
            table.file,
            f"line {lines[k]} has a box and no class",
            "Name its class or delete the line.",
            image=data.paths[images[k]],
            box=f"line {lines[k]}",
        )
    data.add_boxes(boxes[kept], classes[kept], images[kept], Numbered("line ", lines[kept]))
    return relative
