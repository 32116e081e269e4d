"""What a detector found as files for other tools: COCO results, YOLO, Pascal VOC, CSV and JSON, with the scores."""

import csv
import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import ArrayLike

from odkit.data.dataset import Dataset
from odkit.data.formats.load import choose
from odkit.data.formats.reader_base import CLASSES_FILE
from odkit.data.formats.voc import write_voc_labels
from odkit.data.formats.writer_base import flat_names, ids, kept_ids, known_sizes
from odkit.data.formats.yolo import write_yolo_labels
from odkit.data.predictions import Predictions
from odkit.system import FileInTheWayError, sync_folder, sync_tree

_Write = Callable[[Predictions, Dataset, Path], list[str]]  # in words what is lost


def write_predictions(
    found: Predictions,
    folder: str | Path,
    to: str | Sequence[str] = "coco",
    *,
    dataset: Dataset | None = None,
) -> Path:
    """Write what a detector found as files for other tools; they are there whole or not at all.

    - "coco": results.json, as COCO's evaluation reads it, and images.json, the images and classes it numbers,
    - "yolo": labels/*.txt, a line a box: class number, center, width and height as shares of the sides, score (as
      Ultralytics saves them), and classes.txt,
    - "voc": Annotations/*.xml, the score of an object in <confidence>, which VOC does not define, and classes.txt,
    - "csv": predictions.csv, a row a box with its score, and a row without one for an image with nothing in it,
    - "json": predictions.json, a list of images, each with its objects, the surest first.

    Boxes are in pixels of the upright image but for YOLO. What a format cannot hold is told in a warning.

    Args:
        found: The predictions; `above(score)` chooses among them.
        folder: Where to; what is there already stays.
        to: A format or several.
        dataset: The images, where the predictions do not know their sizes; its classes are then taken.

    Returns:
        The folder's absolute path.

    Raises:
        DatasetFormatError: A format is not known.
        FileInTheWayError: A file that is to be written is there already.
        InputError: The images' sizes are not known.
    """
    names = [to] if isinstance(to, str) else list(to)
    writers: list[_Write] = [choose(RESULTS, name, "write") for name in names]
    dataset = found.dataset() if dataset is None else dataset
    found = found.for_dataset(dataset)
    folder = Path(os.path.abspath(os.path.expanduser(folder)))
    folder.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    lost: list[str] = []
    try:
        for write in writers:
            lost += write(found, dataset, workshop)
        made = sorted(workshop.iterdir())
        for entry in made:
            if (folder / entry.name).exists():
                raise FileInTheWayError(f"{folder / entry.name} is there already; give a new folder")
        sync_tree(workshop)
        for entry in made:
            entry.rename(folder / entry.name)
        sync_folder(folder)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    if lost:
        warnings.warn(f"{folder}: {'; '.join(dict.fromkeys(lost))}", stacklevel=2)
    return folder


def as_labels(found: Predictions, dataset: Dataset) -> Dataset:
    """The images with what was found in them (row for row) as their boxes."""
    return dataset.replace(
        boxes=found.boxes,
        box_classes=found.classes,
        box_images=found.images,
        box_crowd=None,
        box_ids=None,
    )


def json_rows(found: Predictions, names: Sequence[str]) -> list[dict[str, Any]]:
    """What was found in each image, in the order of the rows, for JSON.

    Args:
        found: The predictions.
        names: What each image is called.
    """
    parts = [found.of(image) for image in range(len(names))]
    return [
        {
            "image": name,
            "objects": json_objects(
                found.class_names, found.boxes[part], found.scores[part], found.classes[part]
            ),
        }
        for name, part in zip(names, parts, strict=True)
    ]


def json_objects(
    class_names: Sequence[str], boxes: ArrayLike, scores: ArrayLike, classes: ArrayLike
) -> list[dict[str, Any]]:
    """What was found in one image for JSON: class, score, box (xyxy in pixels)."""
    columns = (np.asarray(column).tolist() for column in (classes, scores, boxes))
    return [
        {"class": class_names[label], "score": round(score, 4), "box": [round(value, 1) for value in box]}
        for label, score, box in zip(*columns, strict=True)
    ]


def _write_coco(found: Predictions, dataset: Dataset, folder: Path) -> list[str]:
    sizes, files = known_sizes(dataset).tolist(), ids(dataset)
    content = {
        "info": {"description": "the images and classes that results.json numbers"},
        "images": [
            {"id": row + 1, "file_name": file, "width": width, "height": height}
            for row, (file, (width, height)) in enumerate(zip(files, sizes, strict=True))
        ],
        "annotations": [],
        "categories": [{"id": k, "name": name} for k, name in enumerate(dataset.class_names, 1)],
    }
    (folder / "results.json").write_bytes(orjson.dumps(found.to_coco(dataset)))
    (folder / "images.json").write_bytes(orjson.dumps(content))
    return []


def _write_yolo(found: Predictions, dataset: Dataset, folder: Path) -> list[str]:
    files = [f"images/{file}" for file in kept_ids(dataset)]
    _write_classes(found, folder)
    return write_yolo_labels(as_labels(found, dataset), folder, files, found.scores)


def _write_voc(found: Predictions, dataset: Dataset, folder: Path) -> list[str]:
    files = flat_names(dataset.replace(image_splits=None), lambda split: "JPEGImages")
    _write_classes(found, folder)
    return write_voc_labels(as_labels(found, dataset), folder, files, found.scores)


def _write_classes(found: Predictions, folder: Path) -> None:
    names = (" ".join(name.splitlines()) for name in found.class_names)
    (folder / CLASSES_FILE).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _write_csv(found: Predictions, dataset: Dataset, folder: Path) -> list[str]:
    sizes = known_sizes(dataset).tolist()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", "score"])
    for image, (file, size) in enumerate(zip(ids(dataset), sizes, strict=True)):
        rows = found.of(image)
        for row in range(rows.start, rows.stop):
            corners = [f"{value:.9g}" for value in found.boxes[row]]
            name = found.class_names[found.classes[row]]
            table.writerow([file, *size, name, *corners, f"{found.scores[row]:.6g}"])
        if rows.start == rows.stop:
            table.writerow([file, *size, "", "", "", "", "", ""])
    (folder / "predictions.csv").write_text(text.getvalue(), encoding="utf-8")
    return []


def _write_json(found: Predictions, dataset: Dataset, folder: Path) -> list[str]:
    paths = [path or name for path, name in zip(dataset.image_paths, ids(dataset), strict=True)]
    rows = json_rows(found.select(np.lexsort((-found.scores, found.images))), paths)
    (folder / "predictions.json").write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    return []


RESULTS: dict[str, _Write] = {
    "coco": _write_coco,
    "yolo": _write_yolo,
    "voc": _write_voc,
    "csv": _write_csv,
    "json": _write_json,
}
"""What `write_predictions` can write, by the name of the format."""
