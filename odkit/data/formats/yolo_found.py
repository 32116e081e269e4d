"""What a YOLO found, as the columns of Predictions: text files, one an image, with confidences."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from odkit.data.boxes import yolo_to_xyxy
from odkit.data.dataset import Dataset
from odkit.data.formats.reader_base import Folder, is_float, lines_of, name_of, read_names, read_text, short
from odkit.data.formats.readings import (
    ELSEWHERE,
    UNKNOWN,
    Columns,
    ImageNames,
    Rows,
    finished,
    hits_of,
    kept,
    named,
    say_unknown,
)
from odkit.data.formats.writer_base import known_sizes
from odkit.data.formats.yolo import NAME_FILES, yaml_content
from odkit.system import InputError, MissingFileError, counted


def yolo_results(
    folder: str | Path, dataset: Dataset, *, class_names: Sequence[str] | Mapping[Any, str] | None = None
) -> Columns:
    """The columns of Predictions from a folder of YOLO's text files; see `Predictions.from_yolo`."""
    root = Path(folder)
    if not root.is_dir():
        raise MissingFileError(f"there is no folder {root}")
    files = _text_files(Folder(root))
    if not files:
        raise InputError(
            f"there are no .txt files in {root}: Ultralytics writes them with save_txt=True save_conf=True, into the "
            "folder labels of the run"
        )
    if (root / "labels").is_dir() and all(file.startswith("labels/") for file in files):
        root, files = root / "labels", [file.removeprefix("labels/") for file in files]
    names = ImageNames(dataset)
    rows, notes = Rows(), list[str]()
    images: list[int] = []
    without: list[str] = []
    for file in files:
        image = names.row(file[: -len(".txt")])
        if image == UNKNOWN:
            without.append(file)
        for number, line in enumerate(lines_of(read_text(root / file)), 1):
            if line.split():
                label, box, score = _parse(line.split(), root / file, number)
                rows.classes.append(label)
                rows.boxes.append(box)
                rows.scores.append(score)
                images.append(image)
    if without:
        first = ", ".join(without[:3]) + (" and others" if len(without) > 3 else "")
        if len(without) == len(files):
            raise InputError(
                f"no text file of {len(files):,} in {root} has the name of an image of {dataset.name}: "
                f"they are {first}; it has {', '.join(map(repr, dataset.image_ids.tolist()[:3]))}"
            )
        notes.append(
            f"{counted(len(without), 'text file')} left out, as no image has the name, or several have: {first}"
        )
    at = np.array(images, np.int64)
    sizes = known_sizes(dataset)
    unsized = (at >= 0) & (sizes[np.maximum(at, 0)] <= 0).any(1)
    if unsized.any():
        first = str(dataset.image_ids[at[np.flatnonzero(unsized)[0]]])
        raise InputError(
            f"the size of {first} is not known, so its boxes, which are shares of it, have no place"
        )
    corners = yolo_to_xyxy(np.array(rows.boxes, np.float64).reshape(-1, 4), sizes[np.maximum(at, 0)])
    scores = np.array(rows.scores, np.float64)
    truth = hits_of(dataset, corners, scores, at)
    table, whence = _yolo_names(root, dataset, class_names)
    found = named(rows.classes, table)
    if class_names is None:
        truth.refuse_other_order(
            found, rows.classes, str(root), "class_names= (a data.yaml beside the files)"
        )
    notes.append(f"class numbers by {whence}")
    unknown = np.array([name is None for name in found], bool)
    say_unknown(notes, (at >= 0) & unknown, rows.classes, "class number", "class")
    if elsewhere := int((at == ELSEWHERE).sum()):
        notes.append(f"{counted(elsewhere, 'line')} of other images of the label files left aside")
    keep = np.flatnonzero((at >= 0) & ~unknown)
    listed = list(dict.fromkeys(table.values()))
    return finished(kept(keep, listed, found, corners, scores, at), listed, dataset, notes)


def _text_files(folder: Folder) -> list[str]:
    return [file for file in folder.with_suffix(".txt", depth=3) if name_of(file).lower() not in NAME_FILES]


def _parse(parts: list[str], path: Path, number: int) -> tuple[int, list[float], float]:
    """Class number, box (center x, center y, width, height) and score of a line.

    Ultralytics writes the class, the box or the outline, the score, and the number of the track where it tracks
    (`Results.save_txt`, https://docs.ultralytics.com/reference/engine/results/).
    """

    def wrong(why: str) -> InputError:
        return InputError(f"{path}, line {number}: {why}: {short(' '.join(parts))}")

    if not all(map(is_float, parts)):
        raise wrong(
            "a line of YOLO's results holds numbers: class, center x, center y, width, height, confidence"
        )
    values = [float(part) for part in parts]
    if not np.isfinite(values).all() or values[0] != int(values[0]) or values[0] < 0:
        raise wrong("it does not begin with a class number, or holds a number that is not finite")
    if len(values) < 5:
        raise wrong(f"it has {len(values)} numbers, where a box with its confidence has 6")
    tracked = len(values) % 2 == 1 and len(values) > 6 and values[-1] >= 1 and values[-1].is_integer()
    if tracked:
        values = values[:-1]
    if len(values) % 2:
        raise wrong(
            "it has no confidence, so nothing can be ranked; predict again with save_conf=True beside save_txt=True"
        )
    shape, score = values[1:-1], values[-1]
    if max(shape) > 2 or min(shape) < -1:
        raise wrong("its box is not in shares of the image (0 to 1), as YOLO's boxes are")
    if not 0 <= score <= 1:
        raise wrong(f"the confidence, which stands last, is {score:g}")
    if len(shape) == 4:
        if min(shape[2:]) < 0:
            raise wrong("its box has a negative size")
        return int(values[0]), shape, score
    x, y = shape[0::2], shape[1::2]
    left, top, right, bottom = min(x), min(y), max(x), max(y)
    return int(values[0]), [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], score


def _yolo_names(
    root: Path, dataset: Dataset, given: Sequence[str] | Mapping[Any, str] | None
) -> tuple[dict[str, str], str]:
    """Class number, as text, to class name; and where that is from."""
    if isinstance(given, Mapping):
        return {str(key): str(name) for key, name in given.items()}, "the table that was given"
    if given is not None:
        return {str(k): str(name) for k, name in enumerate(given)}, "the names that were given"
    for place in (root, root.parent):
        for name in ("data.yaml", "dataset.yaml"):
            if table := _yaml_names(place / name):
                return table, os.path.relpath(place / name, root.parent)
        for name in NAME_FILES:
            if (place / name).is_file():
                lines = read_names(place / name)
                return {str(k): line.strip() for k, line in enumerate(lines)}, f"{name} beside the text files"
    if dataset.format == "yolo" and dataset.source_ids.classes:
        return dict(dataset.source_ids.classes), "the dataset's own file of class names"
    return {
        str(k): name for k, name in enumerate(dataset.class_names)
    }, "the dataset's classes, counted from 0"


def _yaml_names(path: Path) -> dict[str, str]:
    try:
        content = yaml_content(path)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        return {str(k): str(name) for k, name in enumerate(names)}
    return {str(key): str(name) for key, name in names.items()} if isinstance(names, dict) else {}
