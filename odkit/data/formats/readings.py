"""What the numbers in the results of another tool mean: which image, which class, and whether that fits the labels.

Such files name images and classes by numbers, and nothing in them says by whose. Each way to read the numbers is a
reading with a name. The label file's own is the rule; where another one fits the ground truth far better, or where
there is no rule and the readings cannot be told apart, that is said and nothing is guessed.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkit.data.boxes import Boxes, box_iou, rows_of
from odkit.data.dataset import Dataset
from odkit.data.formats.names import IMAGE_READINGS, READINGS
from odkit.data.formats.reader_base import folder_of, is_float, mostly_shares, name_of, stem_of
from odkit.data.formats.writer_base import known_sizes
from odkit.system import InputError, counted

_COCO_91 = tuple(k for k in range(1, 91) if k not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
_FEW = 5  # boxes of the ground truth that must be found before a reading can be told from another
_LOOKED_AT = 400  # images that readings are compared on, at most

Columns = dict[str, Any]
Key = Any  # int or str, as it stands in the file


@dataclass
class Rows:
    """Rows of results as they come in, of whatever layout; one entry of each list a row."""

    images: list[Key] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)  # the image's file name, where a row says it
    classes: list[Key] = field(default_factory=list)
    boxes: list[Any] = field(default_factory=list)  # COCO's left, top, width, height
    scores: list[Any] = field(default_factory=list)
    masks: int = 0  # rows that have a mask alone
    image_table: dict[Key, str] = field(default_factory=dict)  # the file's own: id to file name
    class_table: dict[Key, str] = field(default_factory=dict)  # the file's own: id to class name

    def select(self, rows: NDArray[np.int64]) -> "Rows":
        columns = ("images", "names", "classes", "boxes", "scores")
        chosen = {column: [getattr(self, column)[k] for k in rows.tolist()] for column in columns}
        return Rows(**chosen, masks=self.masks, image_table=self.image_table, class_table=self.class_table)


def refuse_unknown_reading(argument: str, given: Any, readings: Sequence[str]) -> None:
    if given is not None and not isinstance(given, Mapping) and given not in readings:
        raise InputError(f"{argument}={given!r} must be one of {', '.join(readings)}, or a table")


def kept(
    keep: NDArray[np.int64],
    table: Sequence[str],
    names: Sequence[str | None],
    boxes: Boxes,
    scores: NDArray[np.float64],
    images: NDArray[np.int64],
) -> Columns:
    """Of the rows of all columns those to keep, each class name as its place in the table."""
    place = {name: k for k, name in enumerate(table)}
    return {
        "boxes": boxes[keep],
        "scores": scores[keep],
        "classes": [place[str(names[k])] for k in keep.tolist()],
        "images": images[keep],
    }


def finished(columns: Columns, table: Sequence[str], dataset: Dataset, notes: list[str]) -> Columns:
    scores, images = np.asarray(columns["scores"]), np.asarray(columns["images"], np.int64)
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        notes.append(
            f"scores from {scores.min():g} to {scores.max():g}, not within 0 to 1: AP asks for their order alone, "
            "thresholds are in their unit"
        )
    sizes = dataset.image_sizes[images]
    corners = np.asarray(columns["boxes"], np.float64).reshape(-1, 4)
    known = (sizes > 0).all(1)
    off = known & ((corners[:, :2] >= sizes).any(1) | (corners[:, 2:] <= 0).any(1))
    if off.any():
        notes.append(f"{counted(int(off.sum()), 'box')} wholly outside of the image, kept as COCO does")
    without = np.setdiff1d(np.arange(len(dataset)), images)
    missed = int(np.isin(dataset.box_images[~dataset.box_crowd], without).sum())
    if missed:
        notes.append(
            f"nothing was found in {len(without):,} of {counted(len(dataset), 'image')}; their "
            f"{counted(missed, 'box')} count as missed, as in COCO's figures"
        )
    return {
        **columns,
        "class_names": tuple(table),
        "image_ids": tuple(dataset.image_ids),
        "image_sizes": dataset.image_sizes,
        "image_paths": tuple(dataset.image_paths),
        "notes": tuple(notes),
    }


def say_unknown(notes: list[str], wrong: NDArray[np.bool_], keys: Sequence[Key], noun: str, of: str) -> None:
    if wrong.any():
        named = Counter(repr(keys[k]) for k in np.flatnonzero(wrong).tolist())
        first = ", ".join(key for key, _ in named.most_common(6)) + (" and others" if len(named) > 6 else "")
        notes.append(
            f"{counted(int(wrong.sum()), 'row')} left out, as their {noun} is of no {of} that is known: {first}"
        )


# -- which images ----------------------------------------------------------------------------------------------------

UNKNOWN, ELSEWHERE = (
    -1,
    -2,
)  # of no image that is known; of an image that the dataset's selection leaves out


class ImageNames:
    """The images of a dataset by their names, whole or in part."""

    def __init__(self, dataset: Dataset) -> None:
        self.rows = {image_id: row for row, image_id in enumerate(dataset.image_ids.tolist())}
        self.elsewhere = {name_of(image_id) for image_id in dataset.source_ids.images} - {
            name_of(image_id) for image_id in self.rows
        }
        self.by_name: dict[str, list[str]] = {}
        self.by_stem: dict[str, list[str]] = {}
        self.by_number: dict[int, list[str]] = {}
        for image_id in self.rows:
            stem = stem_of(image_id)
            self.by_name.setdefault(name_of(image_id), []).append(image_id)
            self.by_stem.setdefault(stem, []).append(image_id)
            if stem.isascii() and stem.isdigit() and len(stem) < 19:
                self.by_number.setdefault(int(stem), []).append(image_id)

    def row(self, key: Key) -> int:
        """The row of an image that is called so: by its path, its file name, its stem, the number that is its stem."""
        if isinstance(key, bool) or not isinstance(key, int | str):
            return UNKNOWN
        if isinstance(key, int):
            return self._only(self.by_number.get(key, ()), "")
        name = key.replace("\\", "/").removeprefix("./")
        if name in self.rows:
            return self.rows[name]
        row = self._only(self.by_name.get(name_of(name), ()), name)
        row = self._only(self.by_stem.get(stem_of(name), ()), name) if row == UNKNOWN else row
        if row == UNKNOWN:
            row = self._only(self.by_stem.get(name_of(name), ()), name)
        return ELSEWHERE if row == UNKNOWN and name_of(name) in self.elsewhere else row

    def _only(self, there: Sequence[str], name: str) -> int:
        """The one image of several with that file name whose folders agree most; none where two do."""
        if len(there) > 1:
            folders = folder_of(name).split("/")[::-1]
            agree = [_agreeing(folder_of(image_id).split("/")[::-1], folders) for image_id in there]
            best = max(agree)
            there = [one for one, count in zip(there, agree, strict=True) if count == best]
        return self.rows[there[0]] if len(there) == 1 else UNKNOWN


def _agreeing(first: Sequence[str], second: Sequence[str]) -> int:
    return next(
        (k for k, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )


def image_readings(
    keys: Sequence[tuple[Key, str | None]],
    rows: Rows,
    dataset: Dataset,
    given: str | Mapping[Any, str] | None,
) -> dict[str, NDArray[np.int64]]:
    """Row of the image of each result by each reading, the rule first."""
    names = ImageNames(dataset)
    order = list(dataset.source_ids.images) or dataset.image_ids.tolist()
    by_label: dict[str, list[str]] = {}
    for image_id, key in dataset.source_ids.images.items():
        by_label.setdefault(key, []).append(image_id)

    def place(image_id: str) -> int:
        return names.rows.get(image_id, ELSEWHERE)

    def by_labels(key: Key) -> int:
        there = by_label.get(str(int(key)) if isinstance(key, float) and key.is_integer() else str(key), [])
        here = [image_id for image_id in there if image_id in names.rows]
        if len(here) == 1:  # label files of two splits may both count from 1
            return names.rows[here[0]]
        return ELSEWHERE if there and not here else UNKNOWN

    def counted_from(start: int) -> Callable[[Key], int]:
        def one(key: Key) -> int:
            inside = isinstance(key, int) and 0 <= key - start < len(order)
            return place(order[key - start]) if inside else UNKNOWN

        return one

    if isinstance(given, Mapping):
        table = {str(key): str(name) for key, name in given.items()}
        return {"table": _each(keys, lambda k: names.row(table.get(str(k[0]))))}
    readings: dict[str, NDArray[np.int64]] = {}
    own = rows.image_table
    if given is None and own:
        readings["file"] = _each(keys, lambda k: names.row(own.get(k[0], own.get(_other(k[0])))))
    if given is None and keys and all(name is not None for _, name in keys):
        readings["file"] = _each(keys, lambda k: names.row(k[1]))
    if "file" in readings and (readings["file"] >= 0).any():
        return {"file": readings["file"]}
    readings = {}
    if by_label:
        readings["labels"] = _each(keys, lambda k: by_labels(k[0]))
    readings["names"] = _each(keys, lambda k: names.row(k[0] if k[1] is None else k[1]))
    readings["from-0"] = _each(keys, lambda k: counted_from(0)(k[0]))
    readings["from-1"] = _each(keys, lambda k: counted_from(1)(k[0]))
    return readings


def _each(keys: Sequence[Any], read: Callable[[Any], int]) -> NDArray[np.int64]:
    known: dict[Any, int] = {}
    for key in keys:
        if key not in known:
            known[key] = read(key)
    return np.array([known[key] for key in keys], np.int64)


def _other(key: Key) -> Key:
    """A number as text, or text as a number."""
    if isinstance(key, str):
        return int(key) if key.isascii() and key.isdigit() and len(key) < 19 else None
    return str(key)


def chosen_images(
    readings: dict[str, NDArray[np.int64]],
    keys: Sequence[tuple[Key, str | None]],
    corners: NDArray[Any],
    scores: NDArray[np.float64],
    dataset: Dataset,
    what: str,
    given: str | Mapping[Any, str] | None,
    notes: list[str],
) -> NDArray[np.int64]:
    """Row of the image of each result, negative where it is left out; what is left out is said."""
    if isinstance(given, str) and given not in readings:
        raise InputError(f"image_ids={given!r}: {dataset.name} was not read from a label file with image ids")
    rule = given if isinstance(given, str) else next(iter(readings))
    if (
        rule == "labels"
        and not (readings[rule] >= 0).any()
        and (readings["names"] >= 0).any()
        and given is None
    ):
        rule = "names"
        notes.append("no image_id is one of the label file's; they were read as file names")
    images = readings[rule]
    if len(keys) and not (images >= 0).any():
        seen = ", ".join(repr(k if n is None else n) for k, n in list(dict.fromkeys(keys))[:3])
        labels = list(dataset.source_ids.images.values())[:3]
        there = f", image ids {', '.join(labels)}" if labels else " (its format has no image ids)"
        raise InputError(
            f"none of the {counted(len(keys), 'row')} of {what} is of an image of {dataset.name}: they speak of "
            f"{seen}; it has {', '.join(map(repr, dataset.image_ids.tolist()[:3]))}{there}. Say what the numbers are: "
            "give the COCO label file that they were made with (ids_from=, --ids-from), or their meaning (image_ids=, "
            f"--image-ids {'|'.join(IMAGE_READINGS)}); rows may also carry file_name"
        )
    if given is None and rule != "file":
        fit = {
            name: _share_found(dataset, corners, scores, one)
            for name, one in readings.items()
            if (one >= 0).any()
        }
        _refuse_better("the image ids", "image_ids", rule, fit, readings, dataset, what, _image_words)
    say_unknown(notes, images == UNKNOWN, [k if n is None else n for k, n in keys], "image id", "image")
    if elsewhere := int((images == ELSEWHERE).sum()):
        notes.append(f"{counted(elsewhere, 'row')} of other images of the label file left aside")
    return images


def _image_words(reading: str, _: Dataset) -> str:
    return {
        "labels": "read as the label file's ids",
        "names": "read as file names",
        "from-0": "counted from 0 in the label file's order",
        "from-1": "counted from 1 in the label file's order",
    }.get(reading, reading)


def boxes_in_pixels(
    corners: NDArray[Any],
    boxes: NDArray[np.float64],
    images: NDArray[np.int64],
    scores: NDArray[np.float64],
    dataset: Dataset,
    what: str,
    notes: list[str],
) -> NDArray[Any]:
    """The boxes in pixels, xyxy: also those that came as shares of the image; corners in place of sizes are refused."""
    if mostly_shares(corners, np.ones(len(corners), bool)):
        sizes = known_sizes(dataset)[np.maximum(images, 0)]
        notes.append("boxes are shares of the image's sides")
        return corners * np.tile(sizes, 2)
    fine = (boxes[:, 2:] >= boxes[:, :2]).all(1)
    if len(boxes) and fine.all():
        fit = {
            "xywh": _share_found(dataset, corners, scores, images),
            "xyxy": _share_found(dataset, boxes, scores, images),
        }
        if _far_better(fit["xyxy"], fit["xywh"]):
            raise InputError(
                f"the boxes of {what} are left, top, right, bottom, it seems: read so they hit "
                f"{_percent(fit['xyxy'])} of the labelled boxes, and as COCO's left, top, width, height "
                f"{_percent(fit['xywh'])}. COCO's bbox is [left, top, width, height]: write right - left and bottom - "
                "top in the places of right and bottom"
            )
    return corners


# -- which classes ---------------------------------------------------------------------------------------------------


def chosen_classes(
    rows: Rows,
    truth: "Hits",
    dataset: Dataset,
    what: str,
    given: str | Mapping[Any, str] | None,
    notes: list[str],
) -> list[str | None]:
    """Class name of each result, None where its number is of no class."""
    keys = rows.classes
    tables = _class_tables(rows, dataset)
    if isinstance(given, Mapping):
        return named(keys, {str(key): str(name) for key, name in given.items()})
    distinct = list(dict.fromkeys(str(key) for key in keys))
    if given is None and not rows.class_table and distinct and not any(map(is_float, distinct)):
        return [None if key is None else str(key) for key in keys]  # names in place of numbers
    read = {name: named(keys, table) for name, table in tables.items()}
    right = {name: truth.agreement(one) for name, one in read.items()}
    if isinstance(given, str):
        if given not in read:
            raise InputError(
                f"category_ids={given!r}: "
                + {
                    "labels": f"{dataset.name} was not read from a label file with numbers of classes",
                    "file": "no table came with the results",
                }.get(
                    given, f"that is for COCO's 80 classes, and {dataset.name} has {len(dataset.class_names)}"
                )
            )
        return read[given]
    if not keys:
        return []
    rule = "file" if "file" in read else "labels" if dataset.format == "coco" and "labels" in read else ""
    if rule:
        _refuse_better("the category ids", "category_ids", rule, right, read, dataset, what, _class_words)
        truth.refuse_other_order(read[rule], keys, what, f"category_ids={rule!r} (--category-ids {rule})")
        lost = None in read[rule] and None not in read["from-0"] and right[rule].of < _FEW
        if lost or not any(read[rule]):
            raise InputError(
                f"the category ids of {what} ({_span(distinct)}) are not all in the label file, whose ids are "
                f"{_span(list(tables[rule]))}. Say what they are: category_ids= or --category-ids "
                f"{'|'.join(READINGS)}, or the label file that they were made with (ids_from=, --ids-from)"
            )
        return read[rule]
    whole = [name for name in tables if name != "labels" and None not in read[name]]
    if not whole:
        raise InputError(
            f"the category ids of {what} ({_span(distinct)}) are not numbers of the {len(dataset.class_names)} classes "
            f"of {dataset.name}, counted from 0 or from 1. Give the COCO label file that they were made with "
            "(ids_from=, --ids-from), or a table (category_ids={number: name})"
        )
    whole.sort(key=lambda name: -right[name].share)
    best, others = whole[0], whole[1:]
    if others and not _far_better(right[best], right[others[0]]):
        raise InputError(
            f"the category ids of {what} ({_span(distinct)}) may be read in {len(whole)} ways: "
            + "; ".join(f"{_class_words(n, dataset)}: {right[n].words()} have the right class" for n in whole)
            + f". Say which it is: category_ids={best!r} or {others[0]!r} (--category-ids), or give the COCO label "
            "file that they were made with (ids_from=, --ids-from)"
        )
    truth.refuse_other_order(read[best], keys, what, f"category_ids={best!r} (--category-ids {best})")
    notes.append(
        f"category ids {_span(distinct)} {_class_words(best, dataset)}: "
        + (f"{right[best].words()} have the right class" if right[best].of else "nothing else fits")
    )
    return read[best]


def _class_tables(rows: Rows, dataset: Dataset) -> dict[str, dict[str, str]]:
    """Each reading's table of class numbers, as text, to class names."""
    own = dataset.source_ids.classes
    numbers = all(key.isascii() and key.isdigit() for key in own)
    names = [own[key] for key in sorted(own, key=int)] if own and numbers else list(dataset.class_names)
    tables: dict[str, dict[str, str]] = {}
    if rows.class_table:
        tables["file"] = {str(key): name for key, name in rows.class_table.items()}
    if own:
        tables["labels"] = dict(own)
    tables["from-0"] = {str(k): name for k, name in enumerate(names)}
    tables["from-1"] = {str(k): name for k, name in enumerate(names, 1)}
    if len(names) == len(_COCO_91):
        tables["coco-91"] = {str(k): name for k, name in zip(_COCO_91, names, strict=True)}
    return tables


def named(keys: Sequence[Key], table: Mapping[str, str]) -> list[str | None]:
    return [table.get(str(int(key) if isinstance(key, float) and key.is_integer() else key)) for key in keys]


def _class_words(reading: str, dataset: Dataset) -> str:
    first = dataset.class_names[0] if dataset.class_names else ""
    return {
        "labels": "read as the label file's",
        "file": "read by the table that came with them",
        "from-0": f"counted from 0 (0 is {first!r})",
        "from-1": f"counted from 1 (1 is {first!r})",
        "coco-91": "read as COCO's own (1 to 90)",
    }.get(reading, reading)


def _span(keys: Sequence[str]) -> str:
    numbers = sorted(int(key) for key in keys if key.isascii() and key.isdigit())
    if numbers and len(numbers) == len(keys):
        return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
    return ", ".join(keys[:5])


# -- does a reading fit ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """A number of boxes of so many."""

    count: int
    of: int

    @property
    def share(self) -> float:
        return self.count / self.of if self.of else 0.0

    def words(self) -> str:
        return f"{self.count:,} of {self.of:,} boxes found"


def _percent(share: Share) -> str:
    return f"{100 * share.share:.0f}%"


def _far_better(one: Share, other: Share) -> bool:
    """Whether a reading fits so much better than another that this is no chance."""
    return one.count >= _FEW and one.share >= 0.3 and one.share >= 2 * other.share


@dataclass
class Hits:
    """Ground truth boxes that some result lies on (IoU from 0.5), each with the surest of those, whatever its class."""

    rows: list[int]  # of the results
    names: list[str]  # of the classes of the ground truth boxes
    boxes: int  # how many ground truth boxes were looked at

    def agreement(self, names: Sequence[str | None]) -> Share:
        """How many have the right class."""
        right = sum(names[row] == name for row, name in zip(self.rows, self.names, strict=True))
        return Share(right, len(self.rows))

    def refuse_other_order(
        self, names: Sequence[str | None], keys: Sequence[Key], what: str, keep: str
    ) -> None:
        """Numbers that mostly lie on boxes of another class, each on another one, are of a table in another order.

        Args:
            names: Class name of each result as it is read, None for none.
            keys: The number of its class.
            what: The results, in words.
            keep: What to give so that the numbers are read so all the same.
        """
        now = self.agreement(names)
        pairs = Counter((str(keys[row]), name) for row, name in zip(self.rows, self.names, strict=True))
        table: dict[str, str] = {}
        for (key, name), _ in pairs.most_common():
            if key not in table and name not in table.values():
                table[key] = name
        other = Share(sum(pairs[pair] for pair in table.items()), now.of)
        if len(table) > 1 and other.share >= 0.8 and other.count >= 2 * _FEW and _far_better(other, now):
            table = dict(sorted(table.items()))
            flags = " ".join(f"{key}={name}" for key, name in table.items())
            raise InputError(
                f"the class numbers of {what} are of a table in another order, it seems: {now.words()} have the right "
                f"class, and {other.count:,} would have it with {table}. If that is it, give this table "
                f"(--class-numbers {flags}); {keep} keeps to the order as it is"
            )


def _share_found(
    dataset: Dataset, corners: NDArray[Any], scores: NDArray[np.float64], images: NDArray[np.int64]
) -> Share:
    """How many of the ground truth boxes some result lies on, in images that have results."""
    hits = hits_of(dataset, corners, scores, images)
    return Share(len(hits.rows), hits.boxes)


def hits_of(
    dataset: Dataset, corners: NDArray[Any], scores: NDArray[np.float64], images: NDArray[np.int64]
) -> Hits:
    known = np.flatnonzero(images >= 0)
    order = known[np.argsort(images[known], kind="stable")]
    labelled = np.unique(dataset.box_images[~dataset.box_crowd & (dataset.box_classes >= 0)])
    both = np.intersect1d(labelled, images[known])
    both = both[:: max(len(both) // _LOOKED_AT, 1)][:_LOOKED_AT]
    hits = Hits([], [], 0)
    sorted_images = images[order]
    for image in both.tolist():
        mine = order[rows_of(sorted_images, image)]
        mine = mine[np.argsort(-scores[mine], kind="stable")][:100]
        there = dataset.boxes_of(image)
        rows = np.arange(there.start, there.stop)
        rows = rows[~dataset.box_crowd[rows] & (dataset.box_classes[rows] >= 0)]
        on = box_iou(dataset.boxes[rows], corners[mine]) >= 0.5  # [truth, results], the surest first
        hit = on.any(1)
        hits.rows += mine[on.argmax(1)[hit]].tolist()
        hits.names += [dataset.class_names[k] for k in dataset.box_classes[rows[hit]].tolist()]
        hits.boxes += len(rows)
    return hits


def _refuse_better(
    subject: str,
    argument: str,
    rule: str,
    fit: Mapping[str, Share],
    readings: Mapping[str, Sequence[Any] | NDArray[Any]],
    dataset: Dataset,
    what: str,
    words: Callable[[str, Dataset], str],
) -> None:
    """Refuse results that another reading fits far better than the rule does."""
    same = [name for name in fit if name != rule and list(readings[name]) == list(readings[rule])]
    others = [name for name in fit if name != rule and name not in same]
    best = max(others, key=lambda name: fit[name].share, default=None)
    if best is None or not _far_better(fit[best], fit.get(rule, Share(0, 0))):
        return
    flag = "--" + argument.replace("_", "-")
    verb = "have the right class" if argument == "category_ids" else "of the labelled ones"
    now = fit.get(rule, Share(0, 0))
    raise InputError(
        f"{subject} of {what} do not fit {dataset.name}: {words(rule, dataset)}, {now.words()} {verb}; "
        f"{words(best, dataset)}, {fit[best].words()}. If that is what they are, say so: {argument}={best!r} "
        f"({flag} {best}); {argument}={rule!r} ({flag} {rule}) keeps to the first"
    )
