"""What other tools found, as the columns of Predictions: COCO's results and supervision's Detections."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkit.data.boxes import xywh_to_xyxy
from odkit.data.dataset import Dataset
from odkit.data.formats.coco import segmentation_box
from odkit.data.formats.names import IMAGE_READINGS, READINGS
from odkit.data.formats.reader_base import finite_rows, is_float, no_garbage_collection, read_json, short
from odkit.data.formats.readings import (
    Columns,
    ImageNames,
    Key,
    Rows,
    boxes_in_pixels,
    chosen_classes,
    chosen_images,
    finished,
    hits_of,
    image_readings,
    kept,
    refuse_unknown_reading,
    say_unknown,
)
from odkit.system import InputError, MissingFileError, counted

_LISTS = ("annotations", "predictions", "results", "detections", "instances", "objects")
_IMAGE_KEYS = ("image_id", "img_id", "image")
_NAME_KEYS = ("file_name", "filename", "image_path", "path")
_CLASS_KEYS = ("category_id", "category", "class_id", "class", "category_name", "class_name", "label")
_SCORE_KEYS = ("score", "confidence", "conf")


# -- COCO's results --------------------------------------------------------------------------------------------------


def coco_results(
    results: Any,
    dataset: Dataset,
    *,
    category_ids: str | Mapping[Any, str] | None = None,
    image_ids: str | Mapping[Any, str] | None = None,
    ids_from: str | Path | None = None,
) -> Columns:
    """The columns of Predictions from COCO's results; see `Predictions.from_coco`."""
    refuse_unknown_reading("category_ids", category_ids, READINGS)
    refuse_unknown_reading("image_ids", image_ids, IMAGE_READINGS)
    what = str(results) if isinstance(results, str | Path) else "the results"
    with no_garbage_collection():
        content = _read_results(Path(results)) if isinstance(results, str | Path) else results
        rows = _flattened(content, what, dataset)
    if ids_from is not None:
        rows.image_table, rows.class_table = _tables(read_json(Path(ids_from)))
        if not rows.image_table and not rows.class_table:
            raise InputError(f'{ids_from} is no COCO label file: it has neither "images" nor "categories"')
    return _columns(rows, dataset, what, category_ids, image_ids)


def _read_results(path: Path) -> Any:
    if not path.exists():
        raise MissingFileError(f"there is nothing at {path}")
    if path.is_dir():
        raise InputError(f"{path} is a folder; COCO's results are one .json file")
    return read_json(path)


def _flattened(content: Any, what: str, dataset: Dataset) -> Rows:
    """The rows of whatever layout: a list, a list under a key, a list an image, columns an image."""
    rows = Rows()
    if isinstance(content, Mapping):
        rows.image_table, rows.class_table = _tables(content)
        if _is_columns(content):
            content = [content]
        else:
            key = next((key for key in _LISTS if isinstance(content.get(key), list)), None)
            if key is None:
                raise InputError(
                    f"{what} holds no list of results, but the keys {short(list(content))}: COCO's results are a list "
                    "of {image_id, category_id, bbox, score}, or such a list under "
                    + ", ".join(map(repr, _LISTS[:-1]))
                )
            content = content[key]
    if not isinstance(content, Sequence) or isinstance(content, str | bytes):
        raise InputError(f"{what} is no list of results, but {short(content)}")
    if len(content) and all(isinstance(one, Mapping) and _is_columns(one) for one in content):
        _take_columns(rows, content, what, dataset)
    else:
        for number, row in enumerate(content, 1):
            if not isinstance(row, Mapping):
                raise InputError(
                    f"{what}: entry {number} of the list is {short(row)}, not a result {{image_id, category_id, bbox, "
                    "score}"
                )
            inner = None
            if "bbox" not in row:
                inner = next((row[key] for key in _LISTS if isinstance(row.get(key), list)), None)
            if inner is None:
                _take(rows, row, row)
            else:
                for one in inner:
                    if isinstance(one, Mapping):
                        _take(rows, one, row)
    if rows.boxes and all(score is None for score in rows.scores):
        raise InputError(
            f"no row of {what} has a score, so nothing can be ranked: these look like labels, not like results. A "
            "detector's results have one, as {image_id, category_id, bbox, score}"
        )
    return rows


def _tables(content: Any) -> tuple[dict[Key, str], dict[Key, str]]:
    """The tables that a COCO file brings along: image id to file name, category id to class name."""
    if not isinstance(content, Mapping):
        return {}, {}

    def table(list_name: str, key: str) -> dict[Key, str]:
        listed = content.get(list_name)
        entries = listed if isinstance(listed, list) else []
        return {
            one["id"]: str(one[key])
            for one in entries
            if isinstance(one, Mapping) and isinstance(one.get("id"), int | str) and key in one
        }

    return table("images", "file_name"), table("categories", "name")


def _is_columns(one: Mapping[str, Any]) -> bool:
    return "boxes" in one and "scores" in one and "labels" in one


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    for key in keys:  # half a million rows: a generator takes three times as long
        if (value := row.get(key)) is not None:
            return value
    return None


def _take(rows: Rows, row: Mapping[str, Any], parent: Mapping[str, Any]) -> None:
    image = _first(row, _IMAGE_KEYS)
    name = _first(row, _NAME_KEYS)
    if row is not parent:
        image = _first(parent, _IMAGE_KEYS) if image is None else image
        name = _first(parent, _NAME_KEYS) if name is None else name
    box = row.get("bbox")
    if (
        box is None and isinstance(row.get("box"), list) and len(row["box"]) == 4
    ):  # as `odkit predict` says it
        x1, y1, x2, y2 = row["box"]
        box = [x1, y1, x2 - x1, y2 - y1] if all(map(is_float, map(str, row["box"]))) else row["box"]
    if not box and row.get("segmentation"):
        box = segmentation_box(row["segmentation"])
        rows.masks += box is not None
    rows.images.append(image)
    rows.names.append(name if isinstance(name, str) else None)
    rows.classes.append(_first(row, _CLASS_KEYS))
    rows.boxes.append(box)
    rows.scores.append(_first(row, _SCORE_KEYS))


def _take_columns(rows: Rows, content: Sequence[Mapping[str, Any]], what: str, dataset: Dataset) -> None:
    """One dict of boxes (xyxy), scores and labels an image, as torchvision's detectors and torchmetrics have them."""
    ids = [_first(one, _IMAGE_KEYS) for one in content]
    names = [_first(one, _NAME_KEYS) for one in content]
    if all(i is None and n is None for i, n in zip(ids, names, strict=True)):
        if len(content) != len(dataset):
            raise InputError(
                f"{what} holds the boxes of {counted(len(content), 'image')} and no image_id, while {dataset.name} has "
                f"{len(dataset):,}: without ids there must be one for each image, in the dataset's order"
            )
        names = [str(image_id) for image_id in dataset.image_ids]
    for one, image, name in zip(content, ids, names, strict=True):
        boxes, scores, labels = (as_array(one[key]) for key in ("boxes", "scores", "labels"))
        boxes = boxes.reshape(-1, 4)
        if not len(boxes) == len(scores) == len(labels):
            raise InputError(
                f"{what}: image {short(image if name is None else name)} has {len(boxes)} boxes, {len(scores)} scores "
                f"and {len(labels)} labels"
            )
        count = len(boxes)
        rows.images += [image.item() if hasattr(image, "item") else image] * count
        rows.names += [name if isinstance(name, str) else None] * count
        rows.classes += labels.tolist()
        rows.boxes += np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
        rows.scores += scores.tolist()


def _plain(keys: Sequence[Any]) -> list[Any]:
    """Ids to look things up by; a list or an object in place of one is none, and told as it is written."""
    return [str(key) if isinstance(key, list | Mapping) else key for key in keys]


def as_array(values: Any) -> NDArray[Any]:
    """An array of a list, an array or a tensor, wherever that is."""
    for step in ("detach", "cpu"):
        values = getattr(values, step)() if hasattr(values, step) else values
    return np.asarray(values)


# -- from rows to columns --------------------------------------------------------------------------------------------


def _columns(
    rows: Rows,
    dataset: Dataset,
    what: str,
    category_ids: str | Mapping[Any, str] | None,
    image_ids: str | Mapping[Any, str] | None,
) -> Columns:
    notes: list[str] = []
    boxes, good_box = finite_rows(rows.boxes)
    good_box &= (boxes[:, 2:] >= 0).all(1)
    scores, good_score = _numbers(rows.scores)
    _say_left_out(
        notes, rows, ~good_box, "without a box of four finite numbers, no side below 0,", rows.boxes
    )
    _say_left_out(notes, rows, good_box & ~good_score, "without a score that is a finite number", rows.scores)
    keep = np.flatnonzero(good_box & good_score)
    if len(rows.boxes) and not len(keep):
        raise InputError(f"nothing in {what} can be judged: {'; '.join(notes)}")
    boxes, scores = boxes[keep], scores[keep]
    if len(keep) < len(rows.boxes):
        rows = rows.select(keep)
    if rows.masks:
        notes.append(
            f"{counted(rows.masks, 'row')} with a mask and no box: the box around the mask was taken"
        )

    rows.images, rows.classes = _plain(rows.images), _plain(rows.classes)
    keys = list(zip(rows.images, rows.names, strict=True))
    found = image_readings(keys, rows, dataset, image_ids)
    corners = xywh_to_xyxy(boxes)
    images = chosen_images(found, keys, corners, scores, dataset, what, image_ids, notes)
    corners = boxes_in_pixels(corners, boxes, images, scores, dataset, what, notes)

    inside = images >= 0
    truth = hits_of(dataset, corners, scores, images)
    names = chosen_classes(rows, truth, dataset, what, category_ids, notes)
    unknown = np.array([name is None for name in names], bool)
    say_unknown(notes, inside & unknown, rows.classes, "category id", "class")
    keep = np.flatnonzero(inside & ~unknown)
    table = _class_table(names, dataset, rows.class_table.values())
    return finished(kept(keep, table, names, corners, scores, images), table, dataset, notes)


def _numbers(values: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Numbers as float64, and which of them are finite ones that float32 can hold."""
    try:
        array = np.array(values, np.float64).reshape(len(values))
    except (TypeError, ValueError, OverflowError):
        array = np.array([float(v) if is_float(str(v)) else np.nan for v in values], np.float64)
    with np.errstate(invalid="ignore"):
        return array, np.abs(array) < 3e38


def _say_left_out(
    notes: list[str], rows: Rows, wrong: NDArray[np.bool_], why: str, values: Sequence[Any]
) -> None:
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        image = rows.names[first] if rows.names[first] is not None else rows.images[first]
        notes.append(
            f"{counted(int(wrong.sum()), 'row')} {why} left out, the first is row {first + 1} (image {short(image)}): "
            f"{short(values[first])}"
        )


def _class_table(names: Sequence[str | None], dataset: Dataset, own: Iterable[str]) -> list[str]:
    """The detector's class table: the file's own where it has one, else the label file's, and what else is named."""
    start = list(own) or [*dataset.class_names, *dataset.source_ids.classes.values()]
    return list(dict.fromkeys([*start, *(name for name in names if name is not None)]))


# -- supervision's Detections ----------------------------------------------------------------------------------------


def supervision_results(
    detections: Any, dataset: Dataset | None, class_names: Sequence[str] | None
) -> Columns:
    """The columns of Predictions from supervision's Detections; see `Predictions.from_supervision`."""
    if isinstance(detections, Mapping):
        if dataset is None:
            raise InputError("detections by the names of their images need the dataset that has these images")
        names = ImageNames(dataset)
        rows = [names.row(str(key)) for key in detections]
        if wrong := [key for key, row in zip(detections, rows, strict=True) if row < 0]:
            raise InputError(
                f"{counted(len(wrong), 'image')} of the detections in no image of {dataset.name}: "
                + ", ".join(map(repr, wrong[:3]))
            )
        parts = list(detections.values())
    else:
        parts = [detections] if hasattr(detections, "xyxy") else list(detections)
        if dataset is not None and len(parts) != len(dataset):
            raise InputError(
                f"there are detections of {counted(len(parts), 'image')}, and {dataset.name} has {len(dataset):,}: "
                "give one an image in the dataset's order, or a dict of image name to detections"
            )
        rows = list(range(len(parts)))
    columns: dict[str, list[Any]] = {"boxes": [], "scores": [], "classes": [], "images": []}
    named: list[str] = []
    if class_names is None:
        class_names = () if dataset is None else dataset.class_names
    for row, part in zip(rows, parts, strict=True):
        where = str(dataset.image_ids[row]) if dataset is not None else f"image {row}"
        boxes = as_array(part.xyxy).reshape(-1, 4)
        if not len(boxes):
            continue
        if part.confidence is None:
            raise InputError(
                f"the detections of {where} have no confidence: they are labels, or it was dropped"
            )
        columns["boxes"] += boxes.tolist()
        columns["scores"] += as_array(part.confidence).tolist()
        columns["images"] += [row] * len(boxes)
        named += _supervision_names(part, where, class_names)
    table = list(dict.fromkeys([*class_names, *named]))
    place = {name: k for k, name in enumerate(table)}
    columns["classes"] = [place[name] for name in named]
    if dataset is not None:
        return finished(columns, table, dataset, [])
    return {**columns, "class_names": tuple(table)}


def _supervision_names(part: Any, where: str, class_names: Sequence[str]) -> list[str]:
    data = getattr(part, "data", None)
    if isinstance(data, Mapping) and data.get("class_name") is not None:
        return [str(name) for name in as_array(data["class_name"])]
    if part.class_id is None:
        raise InputError(f"the detections of {where} have neither class_id nor data['class_name']")
    numbers = as_array(part.class_id).astype(int).tolist()
    if wrong := [k for k in numbers if not 0 <= k < len(class_names)]:
        raise InputError(
            f"the detections of {where} have the class_id {wrong[0]}, and there are names for 0 to "
            f"{len(class_names) - 1}; give the detector's class names (class_names=)"
        )
    return [class_names[k] for k in numbers]
