"""Label Studio's export, JSON and JSON-MIN: boxes in percent of the image (https://labelstud.io/guide/export)."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from odkit.data.formats.reader_base import (
    DatasetFormatError,
    Folder,
    Gathered,
    NamedBoxes,
    counted_all,
    declared_size,
    folder_of,
    image_row,
    name_of,
    nearness,
    no_garbage_collection,
    points_box,
    read_json,
    short,
    split_of_path,
    suffix,
    turned_box,
    turned_ellipse_box,
)
from odkit.data.images import IMAGE_SUFFIXES

_NAMES = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels")
_SHAPES = ("rectangle", "polygon", "ellipse")  # with their class in another result of the same id
_NO_BOX = {
    "brushlabels": "mask",
    "brush": "mask",
    "keypointlabels": "keypoint",
    "keypoint": "keypoint",
    "vectorlabels": "vector",
}


def find_labelstudio(folder: Folder) -> list[str]:
    """The exports of a folder; empty where there are none."""
    return [file for file in folder.with_suffix(".json", depth=2) if folder.json_kinds[file] == "labelstudio"]


@dataclass
class _Task:
    """An image as somebody has labelled it."""

    file: str
    row: int
    results: list[Any]


def read_labelstudio(folder: Folder, files: Sequence[str]) -> Gathered:
    """The images and boxes of Label Studio's exports.

    Of each task the first annotation counts that was not cancelled; further ones, predictions and tasks that nobody
    has labelled are left out and counted. Addresses of images are not opened: images are found in the folder by name.

    Raises:
        DatasetFormatError: A file is no JSON, or is no list of tasks.
    """
    data = Gathered(folder, "labelstudio", [])
    names = _ImageNames(folder)
    boxes = NamedBoxes(data)
    aside: Counter[str] = Counter()
    tasks: list[_Task] = []
    told: dict[str, str] = {}
    with no_garbage_collection():
        for file in sorted(sorted(files, reverse=True), key=_project):  # of a project the latest export first
            content = read_json(folder.path(file))
            if not isinstance(content, list):
                raise DatasetFormatError(
                    f"{folder.path(file)} is no list of tasks, as Label Studio's exports are"
                )
            tasks += _read_tasks(data, names, file, content, aside, told)
            data.notes.append(f"Label Studio: {file} ({len(content):,} tasks), boxes in percent of the image")
    data.read_sizes()
    for task in tasks:
        _add_results(data, boxes, task, aside)
    if aside:
        data.notes.append(f"left out: {counted_all(aside)}")
    boxes.finish()
    data.unlabelled_images({folder_of(path) for path in data.paths})
    return data


def _project(file: str) -> str:
    """The project that Label Studio's own name of an export tells (project-3-at-2024-05-01-10-00-4f2c8d1a.json)."""
    return re.sub(r"(^|/)(project-\d+)-at-\d{4}-[^/]*$", r"\1\2", file)


def _read_tasks(
    data: Gathered,
    names: "_ImageNames",
    file: str,
    content: list[Any],
    aside: Counter[str],
    told: dict[str, str],
) -> Iterator[_Task]:
    """A file's tasks, their images added; what is left out is counted in `aside`.

    `told` holds of each image the file that told of it: of one project's exports, the latest one.
    """
    done: set[Any] = set()
    for number, task in enumerate(content, 1):
        if not isinstance(task, dict):
            data.problem("unreadable_label", file, f"task {number} is {short(task)}", "Correct or delete it.")
            continue
        results = _results(task, aside)
        if results is None:
            continue
        key = task.get("id")
        if "data" not in task and isinstance(key, int | str):  # JSON-MIN has an entry an annotation
            if key in done:
                aside["annotation by somebody else"] += 1
                continue
            done.add(key)
        address = _address(task)
        if not address:
            data.problem(
                "unreadable_label",
                file,
                f"task {number} names no image: {short(task.get('data', task))}",
                "Correct or delete it.",
            )
            continue
        path, why = names.find(address)
        first = told.setdefault(path, file)
        if first != file and _project(first) == _project(file):
            aside["task of which there is a later export"] += 1
            continue
        if why and data.row(path) is None:
            data.problem(
                "label_without_image",
                file,
                f"task {number} is of {short(address)}, and {why}",
                "Put the image into the dataset's folder, under the name that it has in Label Studio.",
                severity="warning",
                image=path,
            )
        sizes = (declared_size(r.get("original_width"), r.get("original_height")) for r in results)
        size = next((size for size in sizes if size != (0, 0)), (0, 0))
        yield _Task(file, image_row(data, file, path, size, split_of_path(file)), results)


def _results(task: dict[str, Any], aside: Counter[str]) -> list[dict[str, Any]] | None:
    """What somebody has drawn; None where nobody has labelled the image."""
    if "data" not in task and "annotations" not in task:
        # JSON-MIN: beside the image, under the names of the controls that drew it
        lists = [value for value in task.values() if isinstance(value, list)]
        return [{**item, "value": item} for items in lists for item in items if isinstance(item, dict)]
    annotations = task.get("annotations", task.get("completions"))
    rows = [row for row in annotations if isinstance(row, dict)] if isinstance(annotations, list) else []
    kept = [row for row in rows if not row.get("was_cancelled")]
    predictions = task.get("predictions")
    if isinstance(predictions, list) and predictions:
        aside["prediction"] += len(predictions)
    if len(rows) > len(kept):
        aside["annotation cancelled"] += len(rows) - len(kept)
    if not kept:
        aside["task that nobody has labelled"] += 1
        return None
    if len(kept) > 1:
        aside["annotation by somebody else"] += len(kept) - 1
    found = kept[0].get("result")
    return [result for result in found if isinstance(result, dict)] if isinstance(found, list) else []


def _address(task: dict[str, Any]) -> str:
    """Where Label Studio has the image from; "" where it names none."""
    said = task.get("data", task)
    texts = (
        {key: text for key, text in said.items() if isinstance(text, str)} if isinstance(said, dict) else {}
    )
    if texts.get("image"):
        return texts["image"]
    return next((text for text in texts.values() if suffix(_path_of(text)) in IMAGE_SUFFIXES), "")


# -- images ----------------------------------------------------------------------------------------------------------


def _path_of(address: str) -> str:
    """The path in an address: of a local file ("/data/local-files/?d=a/b.jpg"), an upload or a URL."""
    if "?d=" in address:
        return parse_qs(address.partition("?")[2]).get("d", [""])[0]
    if "://" in address:
        try:
            return unquote(urlsplit(address).path)
        except ValueError:
            return ""
    return address.replace("\\", "/")


@dataclass
class _ImageNames:
    """The images of a folder by the names that Label Studio gives them."""

    folder: Folder

    @cached_property
    def _uploaded(self) -> dict[str, list[str]]:
        """Name as Label Studio stores an uploaded file, without blanks and odd characters, to the images."""
        names: dict[str, list[str]] = {}
        for image in self.folder.images:
            names.setdefault(re.sub(r"[^-\w.]", "", name_of(image).strip().replace(" ", "_")), []).append(
                image
            )
        return names

    def find(self, address: str) -> tuple[str, str]:
        """The image of an address; or a name for it, and why there is none.

        An uploaded file has eight letters and a hyphen before its name (8f3a9c1d-name.jpg); people have the file under
        that name or under its own.
        """
        path = _path_of(address)
        stored = name_of(path)
        own = re.sub(r"^[0-9a-f]{8}-", "", stored)
        for name in dict.fromkeys((stored, unquote(stored), own, unquote(own))):
            for names in (self.folder.images_by_name, self._uploaded):
                options = names.get(name, [])
                if options:
                    near = [nearness(path, image) for image in options]
                    best = [image for image, n in zip(options, near, strict=True) if n == max(near)]
                    if len(best) > 1:  # to guess would put boxes on another image
                        return stored, f"several images are called so: {', '.join(best[:3])}"
                    return best[0], ""
        return (name_of(stored) or "image.jpg"), "there is no image of that name"


# -- boxes -----------------------------------------------------------------------------------------------------------


def _add_results(data: Gathered, boxes: NamedBoxes, task: _Task, aside: Counter[str]) -> None:
    named = {str(result.get("id")) for result in task.results if result.get("type") == "labels"}
    size_missing = 0
    for number, result in enumerate(task.results, 1):
        value, kind = result.get("value"), result.get("type")
        if not isinstance(value, dict):
            continue
        if kind is None:  # JSON-MIN
            kind = next((key for key in (*_NAMES, *_NO_BOX) if key in value), None)
        if isinstance(kind, str) and kind in _NO_BOX:
            boxes.left_out[_NO_BOX[kind]] += 1
        if kind not in (*_NAMES, *_SHAPES) or (kind in _SHAPES and str(result.get("id")) in named):
            continue
        if result.get("image_rotation"):
            data.problem(
                "unreadable_label",
                task.file,
                f"result {number} was drawn on the image turned by {short(result['image_rotation'])} degrees, which "
                "odkit does not read; it is left out",
                "Turn the image back in Label Studio, and export again.",
                image=data.paths[task.row],
                box=f"result {number}",
            )
            continue
        size = declared_size(result.get("original_width"), result.get("original_height"))
        size = size if size != (0, 0) else data.sizes[task.row]
        if size == (0, 0):
            size_missing += 1
            continue
        corners, what = _box_of(value, size)
        if what:
            boxes.upright[what] += 1
        labels = value.get(kind)
        name = labels[0] if isinstance(labels, list) and labels else None
        if isinstance(labels, list) and len(labels) > 1:
            aside["class beyond the first of a box"] += len(labels) - 1
        boxes.add(task.file, task.row, name, corners, f"result {number}", shown=value)
    if size_missing:
        data.problem(
            "unreadable_label",
            task.file,
            f"its {size_missing} boxes have no place: the size of the image is not known",
            "Put a readable image there.",
            image=data.paths[task.row],
        )


def _box_of(value: dict[str, Any], size: tuple[int, int]) -> tuple[list[float] | None, str]:
    """Left, top, right, bottom in pixels; and what it is that these are the upright box of, "" for an upright box."""
    across, down = size[0] / 100, size[1] / 100
    if "points" in value:
        box = points_box(value["points"])
        return ([box[0] * across, box[1] * down, box[2] * across, box[3] * down] if box else None), "polygon"
    ellipse = "radiusX" in value
    sides = ("radiusX", "radiusY") if ellipse else ("width", "height")
    try:
        x, y, width, height = (float(value[key]) for key in ("x", "y", *sides))
        degrees = float(value.get("rotation") or 0)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None, ""
    if not all(abs(number) < 1e6 for number in (x, y, width, height, degrees)):  # also nan
        return None, ""
    left, top, width, height = x * across, y * down, width * across, height * down
    if ellipse:
        return turned_ellipse_box(left, top, width, height, degrees), "ellipse"
    box = [left, top, left + width, top + height]
    return (turned_box(box, degrees, (left, top)), "box at an angle") if degrees else (box, "")
