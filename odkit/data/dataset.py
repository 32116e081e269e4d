"""Dataset: images, boxes and class names as columns.

A dataset is a handful of arrays, so that checks are vector expressions, COCO's 860,000 boxes fit in tens of megabytes,
all processes of a machine share one copy of a saved one, and every step (split, select, repair) is a new view of the
same columns. Nothing here changes an image:
files belong to their owner. Dealing splits looks at them, and nothing else here does.
"""

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from odkit.data.boxes import as_boxes, rows_of
from odkit.data.columns import load_columns, save_columns
from odkit.data.splits import Deal, deal
from odkit.data.texts import CHUNK, Numbered, Texts, TextTable, object_array
from odkit.system import InputError, OutOfRangeError, UnknownNameError

UNKNOWN_CLASS = -1
"""Class index of a box whose class is not in the class table; `audit()` lists such boxes, training refuses them."""


@dataclass(frozen=True)
class SourceProblem:
    """Something a reader met in the files and could not put into a column; `audit()` lists it with its own findings."""

    kind: str  # short name in snake case, for example "unreadable_label"
    severity: str  # "fatal", "warning" or "info"
    file: str  # the file to open, as a path
    message: str  # what is wrong, where
    fix: str  # what to do about it
    image: str = ""  # image id, where one is concerned
    box: str = ""  # box id, where one is concerned


@dataclass(frozen=True)
class SourceIds:
    """What images and classes are called in the label file, by which the results of other tools name them.

    Attributes:
        images: Image id to the id of the image in its label file, as text; in the order of the label file. Kept as
            columns (TextTable).
        classes: Number of a class in the label file, as text, to the name of the class.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", TextTable.of(self.images))


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Labelled images as columns; every method returns a new Dataset and leaves this one and the files alone.

    Attributes:
        image_paths: Absolute path of each image, Texts [N].
        image_ids: Stable id of each image, Texts [N]: its path relative to `root` with "/" between.
        image_sizes: Width and height in pixels of the upright image as the labels declare them (from the file's
            header where they do not), int32 [N, 2]; (0, 0) where unknown.
        image_splits: "train", "val", "test" or another name; "" where the dataset has no splits; object array [N].
        boxes: Float32 [B, 4], xyxy, absolute pixels of the upright image.
        box_classes: 0-based index into `class_names`, int32 [B]; -1 for a class that is not in the table.
        box_images: Index into the images, int32 [B], non-decreasing.
        box_crowd: True where one box stands for a group (COCO's iscrowd), bool [B].
        box_ids: Where the box stands in its source ("object 12", "line 3", a COCO annotation id), Texts [B].

    Raises:
        ValueError: A column has the wrong length, shape or range; the message says which, expected and actual.
    """

    class_names: tuple[str, ...]
    image_paths: Texts
    image_sizes: NDArray[np.int32]
    boxes: NDArray[np.float32]
    box_classes: NDArray[np.int32]
    box_images: NDArray[np.int32]
    name: str = "dataset"
    root: Path = Path()
    format: str = ""  # what it was read from: "coco", "voc", "yolo", "csv", "demo", "fiftyone"
    image_ids: Texts = None  # type: ignore[assignment]  # default: from image_paths and root
    image_splits: NDArray[np.object_] = None  # type: ignore[assignment]  # default: "" for all
    box_crowd: NDArray[np.bool_] = None  # type: ignore[assignment]  # default: False for all
    box_ids: Texts = None  # type: ignore[assignment]  # default: "box 1", "box 2", ... within an image
    notes: tuple[str, ...] = ()  # what was recognised, chosen or repaired, and why
    source_problems: tuple[SourceProblem, ...] = field(default=(), repr=False)
    source_ids: SourceIds = field(default=SourceIds(), repr=False)  # of COCO's and YOLO's files; else empty

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731  (the class is frozen)
        put("class_names", tuple(str(name) for name in self.class_names))
        put("root", Path(self.root))
        put("image_paths", Texts.of(self.image_paths))
        put("image_sizes", np.asarray(self.image_sizes, np.int32).reshape(-1, 2))
        put("boxes", as_boxes(self.boxes))
        put("box_classes", np.asarray(self.box_classes, np.int32).reshape(-1))
        put("box_images", np.asarray(self.box_images, np.int32).reshape(-1))
        images, boxes = len(self.image_paths), len(self.boxes)
        if self.image_ids is None:
            put("image_ids", Texts.of(_relative(path, self.root) for path in self.image_paths))
        else:
            put("image_ids", Texts.of(self.image_ids))
        put("image_splits", object_array([""] * images if self.image_splits is None else self.image_splits))
        crowd = (
            np.zeros(boxes, bool) if self.box_crowd is None else np.asarray(self.box_crowd, bool).reshape(-1)
        )
        put("box_crowd", crowd)
        if self.box_ids is not None:
            put("box_ids", Texts.of(self.box_ids))
        _validate_lengths(self)  # sorting by image needs whole columns
        if (self.box_images[1:] < self.box_images[:-1]).any():
            order = np.argsort(self.box_images, kind="stable")
            for column in ("boxes", "box_classes", "box_images", "box_crowd", "box_ids"):
                if getattr(self, column) is not None:
                    put(column, getattr(self, column)[order])
        if self.box_ids is None:
            first = np.searchsorted(self.box_images, self.box_images)
            put("box_ids", Numbered("box ", np.arange(1, boxes + 1, dtype=np.int32) - first.astype(np.int32)))
        _validate(self)

    # -- looking -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_paths)

    @property
    def num_boxes(self) -> int:
        return len(self.boxes)

    def boxes_of(self, image: int) -> slice:
        """The rows of the box columns that belong to one image (an index, 0-based)."""
        return rows_of(self.box_images, image)

    def boxes_per_image(self) -> NDArray[np.int64]:
        """Number of boxes of each image, int64 [N]."""
        return np.bincount(self.box_images, minlength=len(self))

    def class_counts(self) -> dict[str, int]:
        """Number of boxes of each class name, in the order of the class table."""
        known = self.box_classes[self.box_classes >= 0]
        return dict(
            zip(self.class_names, np.bincount(known, minlength=len(self.class_names)).tolist(), strict=True)
        )

    def split_counts(self) -> dict[str, int]:
        """Number of images of each split, train, val and test first; empty where there are no splits."""
        counts = Counter(self.image_splits.tolist())
        counts.pop("", None)
        order = ["train", "val", "test"]
        return {
            name: counts[name]
            for name in sorted(counts, key=lambda n: (order.index(n) if n in order else 9, n))
        }

    def index_of(self, image_id: str) -> int:
        """Index of an image by its id.

        Raises:
            KeyError: There is no such image; the message names a few near ones.
        """
        found = np.flatnonzero(self.image_ids == image_id)
        if len(found):
            return int(found[0])
        near = get_close_matches(image_id, self.image_ids, n=3, cutoff=0.4)
        raise UnknownNameError(f"no image {image_id!r} in {self.name}; near it: {', '.join(near) or 'none'}")

    def fingerprint(self) -> str:
        """A short hash of what is trained on: class table, image ids and sizes, splits, boxes (not the pixels).

        The same data gives the same fingerprint wherever it lies on disk.
        """
        digest = hashlib.sha256()
        for part in (self.class_names, self.image_ids, self.image_splits):
            for first in range(0, len(part), CHUNK):
                some = "\x00".join(part[first : first + CHUNK])
                digest.update(b"\x00" * (first > 0) + some.encode("utf-8", "surrogatepass"))
            digest.update(b"\x01")
        for array in (self.image_sizes, self.boxes, self.box_classes, self.box_images, self.box_crowd):
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            digest.update(b"\x01")
        return digest.hexdigest()[:16]

    # -- making new views ----------------------------------------------------------------------------------------

    def replace(self, **columns: Any) -> "Dataset":
        """The same dataset with some columns replaced (and validated again)."""
        return dataclasses.replace(self, **columns)

    def select(self, images: ArrayLike | Sequence[int]) -> "Dataset":
        """The images of a boolean mask [N] or of a list of indices, in that order, with their boxes."""
        chosen = _indices(images, len(self), "images")
        place = np.full(len(self), -1, np.int32)
        place[chosen] = np.arange(len(chosen), dtype=np.int32)
        if np.count_nonzero(place >= 0) != len(chosen):
            raise InputError("select() was given the same image twice; a Dataset holds each image once")
        keep = place[self.box_images] >= 0
        kept_ids = set(self.image_ids[chosen]) if self.source_problems else set()
        problems = tuple(p for p in self.source_problems if not p.image or p.image in kept_ids)
        return self.replace(
            image_paths=self.image_paths[chosen],
            image_ids=self.image_ids[chosen],
            image_sizes=self.image_sizes[chosen],
            image_splits=self.image_splits[chosen],
            boxes=self.boxes[keep],
            box_classes=self.box_classes[keep],
            box_images=place[self.box_images[keep]],
            box_crowd=self.box_crowd[keep],
            box_ids=self.box_ids[keep],
            source_problems=problems,
        )

    def select_boxes(self, boxes: ArrayLike) -> "Dataset":
        """All images with only the boxes of a boolean mask [B] or of a list of indices."""
        keep = np.sort(_indices(boxes, self.num_boxes, "boxes"))
        return self.replace(
            boxes=self.boxes[keep],
            box_classes=self.box_classes[keep],
            box_images=self.box_images[keep],
            box_crowd=self.box_crowd[keep],
            box_ids=self.box_ids[keep],
        )

    def with_classes(self, classes: Mapping[str, str | None] | Sequence[str]) -> "Dataset":
        """Classes renamed, merged, dropped, chosen or put in another order.

        A mapping says what becomes of the classes it names, and leaves the others as they are: an old name to its new
        one (several to the same new one are merged, also into a class that has that name already), or to None to drop
        the class. A class stands in the table where the first of those that went into it stood. A list says which
        classes there are, in that order; all others are dropped. One after the other they do everything:

            dataset.with_classes({"rbc": "cell", "wbc": "cell"}).with_classes(["platelet", "cell"])

        A dropped class takes its boxes with it; the images stay, so that what was labelled in them is background from
        now on. Boxes of unknown class (-1) stay what they are.

        Args:
            classes: Old name to new name or None; or the names wanted.

        Raises:
            KeyError: There is no class of a name; the message names the nearest.
            ValueError: A list names a class twice, a new name is empty, or no class is left.
        """
        if isinstance(classes, str):
            raise InputError(f"with_classes() takes a list or a mapping of names, not {classes!r} alone")
        self._refuse_unknown_classes(classes)
        if isinstance(classes, Mapping):
            new_names = [classes.get(name, name) for name in self.class_names]
            table = tuple(dict.fromkeys(name for name in new_names if name is not None))
        else:
            new_names = [name if name in classes else None for name in self.class_names]
            table = tuple(classes)
        if not table or not all(str(name).strip() for name in table):
            raise InputError(
                f"with_classes() would leave {self.name} without any class"
                if not table
                else "with_classes() was given an empty name for a class; None drops it"
            )
        place = {name: index for index, name in enumerate(table)}
        dropped = np.array([*(name is None for name in new_names), False])  # index -1 stays -1
        new_index = [0 if name is None else place[name] for name in new_names]
        keep = ~dropped[self.box_classes]
        kept = self.select_boxes(keep)
        note = _about_classes(self, new_names, table, keep)
        return kept.replace(
            class_names=table,
            box_classes=np.array([*new_index, UNKNOWN_CLASS], np.int32)[kept.box_classes],
            notes=(*self.notes, note) if note else self.notes,
            source_ids=self._renamed_ids(dict(zip(self.class_names, new_names, strict=True))),
        )

    def _renamed_ids(self, new_names: Mapping[str, str | None]) -> SourceIds:
        """The label file's class numbers with new names; those of dropped classes keep the old ones."""
        pairs = [(key, name, new_names.get(name)) for key, name in self.source_ids.classes.items()]
        taken = set(new_names.values())
        renamed = {key: new or old for key, old, new in pairs if new is not None or old not in taken}
        return SourceIds(self.source_ids.images, renamed)

    def _refuse_unknown_classes(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.class_names:
                near = near_name(str(name), self.class_names)
                hint = f"; did you mean {near!r}?" if near else ""
                there = ", ".join(self.class_names[:20]) + ", ..." * (len(self.class_names) > 20)
                raise UnknownNameError(f"no class {name!r} in {self.name}, which has {there}{hint}")

    def split(self, name: str) -> "Dataset":
        """The images of one split.

        Raises:
            KeyError: There is no such split; the message lists those there are.
        """
        counts = self.split_counts()
        if name not in counts:
            there = (
                ", ".join(f"{k} ({v} images)" for k, v in counts.items()) or "none; with_splits() makes them"
            )
            raise UnknownNameError(f"{self.name} has no split {name!r}; its splits: {there}")
        return self.select(self.image_splits == name)

    def with_splits(self, val: float = 0.2, test: float = 0.0, *, seed: int = 0) -> "Dataset":
        """Images dealt anew to "train", "val" and "test", from a seed, each class in proportion.

        Images with the same bytes, and near-duplicates (see `odkit.near_duplicates`), land on the same side: the
        next shot of a burst would be judged as if it were new. Every image is decoded for that once, and what is found
        is remembered for the audit; files that are missing or damaged resemble nothing. Classes are dealt rarest first
        (iterative stratification: Sechidis, Tsoumakas and Vlahavas, 2011), images without boxes last.

        Args:
            val: Share of the images for validation, 0 to 1.
            test: Share of the images for the test, 0 to 1.
            seed: Seed of the deal.

        Raises:
            ValueError: The shares are negative or leave nothing to train on, or there are too few images.
        """
        shares = {"train": 1 - val - test, "val": val, "test": test}
        if min(val, test) < 0 or shares["train"] <= 0:
            raise InputError(
                f"val={val} and test={test} must be shares of 0 or more that leave some images to train on"
            )
        wanted = {name: share for name, share in shares.items() if share > 0}
        dealt = self._deal(list(wanted.values()), seed, "splits")
        splits = [list(wanted)[side] for side in dealt.sides.tolist()]
        counts = Counter(splits)
        note = f"splits dealt from seed {seed}, stratified by class: " + ", ".join(
            f"{k} {counts[k]}" for k in wanted
        )
        return self.replace(image_splits=splits, notes=(*self.notes, note + dealt.note))

    def folds(self, count: int, *, seed: int = 0) -> NDArray[np.int64]:
        """The part of each image in a cross-validation, dealt as `with_splits` deals, int64 [N] from 0.

        Raises:
            ValueError: There are fewer different images than parts.
        """
        return self._deal([1 / count] * count, seed, "parts").sides

    def _deal(self, shares: Sequence[float], seed: int, sides: str) -> Deal:
        class_boxes = np.zeros((len(self), len(self.class_names)), np.int64)
        known = self.box_classes >= 0
        np.add.at(class_boxes, (self.box_images[known], self.box_classes[known]), 1)
        return deal(self.image_paths.tolist(), class_boxes, shares, seed=seed, sides=sides)

    # -- saving --------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """The columns as one `.npz` file (plain arrays, no pickle), whole or not at all (`replacing`)."""
        about = {
            "class_names": self.class_names,
            "name": self.name,
            "root": str(self.root),
            "format": self.format,
            "notes": self.notes,
            "source_problems": [dataclasses.asdict(p) for p in self.source_problems],
            "source_ids": {"classes": self.source_ids.classes},
        }
        columns = {column: getattr(self, column) for column in _COLUMNS}
        keys = TextTable.of(self.source_ids.images)
        if len(keys):
            columns["source_keys"] = keys.texts
            if keys.names is not self.image_ids:
                columns["source_images"] = keys.names
        return save_columns(path, about, columns)

    @classmethod
    def load(cls, path: str | Path) -> "Dataset":
        """A dataset as `save()` wrote it; its columns stay in the file (read-only) until they are looked at.

        While it is in use the file may be deleted, or another may take its place (`save()`, `mv`); its own bytes must
        not be written over (`cp` onto it), see `load_columns`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a saved dataset.
        """
        try:
            about, columns = load_columns(path)
            about["source_problems"] = tuple(SourceProblem(**p) for p in about["source_problems"])
            about["notes"] = tuple(about["notes"])
            ids = {"images": {}, "classes": {}, **about.get("source_ids", {})}  # older files have none
            images, keys = (
                columns.pop("source_images", columns.get("image_ids")),
                columns.pop("source_keys", None),
            )
            if keys is not None:  # older files have them as a table of JSON
                ids["images"] = TextTable(images, keys)
            about["source_ids"] = SourceIds(**ids)
            return cls(**about, **columns)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is no dataset that odkit saved, or is damaged: {error}") from error

    # -- showing -------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        lines = [
            f"Dataset {self.name!r}: {len(self):,} images, {self.num_boxes:,} boxes, {len(self.class_names)} classes"
        ]
        lines += [f"  {key}: {value}" for key, value in self._facts().items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        facts = {"images": f"{len(self):,}", "boxes": f"{self.num_boxes:,}", **self._facts()}
        rows = "".join(
            f'<tr><th style="text-align:left">{escape(key)}</th><td style="text-align:left">{escape(value)}</td></tr>'
            for key, value in facts.items()
        )
        return f"<table><caption><b>{escape(self.name)}</b></caption>{rows}</table>"

    def _facts(self) -> dict[str, str]:
        counts = sorted(self.class_counts().items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {count:,}" for name, count in counts[:12])
        more = f" and {len(counts) - 12} more" if len(counts) > 12 else ""
        empty = int((self.boxes_per_image() == 0).sum())
        facts = {
            "format": self.format,
            "classes": shown + more,
            "splits": ", ".join(f"{name} {count:,}" for name, count in self.split_counts().items()) or "none",
            "without boxes": f"{empty:,} images" if empty else "",
        }
        return {key: value for key, value in facts.items() if value}


_COLUMNS = (
    *("image_paths", "image_ids", "image_sizes", "image_splits"),
    *("boxes", "box_classes", "box_images", "box_crowd", "box_ids"),
)


def evenly(dataset: Dataset, count: int) -> Dataset:
    """So many images of a dataset at most, evenly over it."""
    return dataset if len(dataset) <= count else dataset.select(np.arange(count) * len(dataset) // count)


def concatenate(parts: Mapping[str, "Dataset"], *, name: str = "dataset") -> Dataset:
    """Several datasets as one, each image's split set to its part's key; class tables are merged by name.

    Args:
        parts: Split name to dataset; a "" key keeps the part's own splits.
        name: Name of the whole.

    Raises:
        ValueError: There are no parts, or two hold the same image id.
    """
    if not parts:
        raise InputError("concatenate() was given nothing to join")
    names: dict[str, int] = {}
    for part in parts.values():
        for class_name in part.class_names:
            names.setdefault(class_name, len(names))
    joined: dict[str, list[Any]] = {column: [] for column in _COLUMNS}
    offset = 0
    for split, part in parts.items():
        table = np.array(
            [*(names[n] for n in part.class_names), UNKNOWN_CLASS], np.int32
        )  # index -1 stays -1
        columns = {column: getattr(part, column) for column in joined}
        columns["box_classes"] = table[part.box_classes]
        columns["box_images"] = part.box_images + offset
        if split:
            columns["image_splits"] = np.full(len(part), split, object)
        for column, values in columns.items():
            joined[column].append(values)
        offset += len(part)
    first = next(iter(parts.values()))
    return Dataset(
        name=name,
        root=first.root,
        format=first.format,
        class_names=tuple(names),
        notes=tuple(dict.fromkeys(note for part in parts.values() for note in part.notes)),
        source_problems=tuple(dict.fromkeys(p for part in parts.values() for p in part.source_problems)),
        source_ids=SourceIds(
            _one_mapping([part.source_ids.images for part in parts.values()]),
            one_table(part.source_ids.classes for part in parts.values()),
        ),
        **{column: _end_to_end(values) for column, values in joined.items()},
    )


def _end_to_end(parts: Sequence[Any]) -> Any:
    return Texts.join(parts) if isinstance(parts[0], Texts) else np.concatenate(parts)


def _one_mapping(tables: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    if all(table is tables[0] for table in tables):  # parts of one dataset
        return tables[0]
    return {image: key for table in tables for image, key in table.items()}


def one_table(tables: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Several tables of class numbers as one; empty where they do not agree what a number means."""
    joined: dict[str, str] = {}
    for table in tables:
        if any(joined.get(key, name) != name for key, name in table.items()):
            return {}
        joined.update(table)
    return joined


def near_name(name: str, names: Iterable[str]) -> str:
    """The name most like this one, whatever the case of its letters; "" where none is."""
    by_lower = {other.lower(): other for other in names}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[near[0]] if near else ""


def _about_classes(
    dataset: Dataset, new_names: Sequence[str | None], table: Sequence[str], keep: NDArray[np.bool_]
) -> str:
    """What `with_classes` did, as a note; "" for nothing."""
    old_names, said = dataset.class_names, []
    for name in table:
        old = [repr(one) for one, new in zip(old_names, new_names, strict=True) if new == name]
        if old != [repr(name)]:
            said.append(f"{' and '.join(old)} {'is' if len(old) == 1 else 'are'} now {name!r}")
    dropped = [repr(one) for one, new in zip(old_names, new_names, strict=True) if new is None]
    if dropped:
        emptied = len(np.setdiff1d(dataset.box_images, dataset.box_images[keep]))
        left = f", which leaves {emptied:,} image{'s' * (emptied != 1)} without any" if emptied else ""
        gone = int((~keep).sum())
        said.append(f"{' and '.join(dropped)} dropped with {gone:,} box{'es' * (gone != 1)}{left}")
    if not said and tuple(table) != old_names:
        said.append("in another order")
    return f"classes: {'; '.join(said)}" if said else ""


def _validate_lengths(dataset: Dataset) -> None:
    images, boxes = len(dataset.image_paths), len(dataset.boxes)
    for column in ("image_ids", "image_sizes", "image_splits"):
        if len(getattr(dataset, column)) != images:
            raise InputError(f"{column} has {len(getattr(dataset, column))} rows for {images} images")
    for column in ("box_classes", "box_images", "box_crowd", "box_ids"):
        values = getattr(dataset, column)
        if values is not None and len(values) != boxes:
            raise InputError(f"{column} has {len(values)} rows for {boxes} boxes")


def _validate(dataset: Dataset) -> None:
    images, boxes = len(dataset.image_paths), len(dataset.boxes)
    if boxes and not (dataset.box_images.min() >= 0 and dataset.box_images.max() < images):
        raise InputError(
            f"box_images must be 0 to {images - 1}; it has {dataset.box_images.min()} to {dataset.box_images.max()}"
        )
    classes = len(dataset.class_names)
    if boxes and not (dataset.box_classes.min() >= UNKNOWN_CLASS and dataset.box_classes.max() < classes):
        row = int(np.flatnonzero((dataset.box_classes < UNKNOWN_CLASS) | (dataset.box_classes >= classes))[0])
        image = dataset.image_ids[dataset.box_images[row]]
        raise InputError(
            f"box_classes must be 0 to {classes - 1} (or -1, unknown); {image}, {dataset.box_ids[row]} has "
            f"{dataset.box_classes[row]}"
        )
    repeated = [name for name, count in Counter(dataset.class_names).items() if count > 1]
    if repeated:
        raise InputError(f"class names must differ; {', '.join(map(repr, repeated))} stands more than once")
    if (twice := dataset.image_ids.repeated()) is not None:
        raise InputError(f"image ids must differ; {twice!r} stands more than once")


def _relative(path: str, root: Path) -> str:
    start = f"{root}{os.sep}"
    if os.sep == "/" and path.startswith(start) and os.path.normpath(path) == path:
        return path[len(start) :]
    try:
        return Path(path).relative_to(root).as_posix()
    except ValueError:
        return Path(path).as_posix()


def _indices(chosen: Any, length: int, what: str) -> NDArray[np.int64]:
    array = np.asarray(chosen)
    if array.dtype == bool:
        if array.shape != (length,):
            raise InputError(f"a mask of {what} must have {length} values, not {list(array.shape)}")
        return np.flatnonzero(array)
    array = array.astype(np.int64).reshape(-1)
    if len(array) and not (-length <= array.min() and array.max() < length):
        raise OutOfRangeError(
            f"indices of {what} must be 0 to {length - 1}; got {array.min()} to {array.max()}"
        )
    return np.where(array < 0, array + length, array)
