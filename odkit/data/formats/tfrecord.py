"""TFRecord files of TensorFlow's Object Detection API: a tf.train.Example an image, its picture inside.

The keys are those of the API's own tools (research/object_detection/g3doc/using_your_own_dataset.md): image/encoded,
image/filename, image/object/bbox/xmin and so on, as shares of the picture, image/object/class/text and label. A
Dataset wants files: a picture whose very bytes lie in the folder is that file, the others are unpacked into odkit's
cache, each once, named by its content.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkit.data.boxes import as_boxes
from odkit.data.dataset import UNKNOWN_CLASS
from odkit.data.formats.label_map import LabelMap, fitting_map, label_maps
from odkit.data.formats.reader_base import (
    MOST_PROBLEMS,
    Folder,
    Gathered,
    declared_size,
    finite_rows,
    name_of,
    short,
    split_of_path,
    suffix,
)
from odkit.data.formats.records import DamagedError, Values, begins_with_record, parse_example, read_records
from odkit.data.image_facts import inspect_images
from odkit.data.images import IMAGE_SUFFIXES
from odkit.system import (
    InputError,
    cache_folder,
    counted,
    megabytes,
    progress_bar,
    read_file,
    sync_folder,
    sync_tree,
)

RECORD_SUFFIXES = (".record", ".records", ".tfrecord", ".tfrecords")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_BOX_KEYS = [f"image/object/bbox/{corner}" for corner in _CORNERS]
_KEYS = frozenset(
    (
        "image/encoded",
        "image/filename",
        "image/source_id",
        "image/width",
        "image/height",
        "image/format",
        "image/object/class/text",
        "image/object/class/label",
        "image/object/is_crowd",
        "image/object/group_of",
        "image/object/difficult",
        *_BOX_KEYS,
    )
)
_BEGINNINGS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
_WORKSHOP = ".unpacking-"  # how the folders begin in which pictures lie that are not all there yet
_FIX = (
    "Make the file anew from what it was made of; or keep what can be read: "
    "`odkit convert FOLDER NEW_FOLDER --to coco`, and go on with that."
)


def find_tfrecord(folder: Folder) -> list[str]:
    """The record files of a folder: by their suffix, shards without one by how they begin."""
    likely = [file for file in folder.files if "record" in file[-30:].lower() or "-of-" in file[-13:]]
    return [file for file in likely if is_record_file(folder.path(file))]


def is_record_file(path: Path) -> bool:
    name = path.name.removesuffix(".gz")
    if suffix(_SHARD.sub("", name)) in RECORD_SUFFIXES:
        return True
    return bool(_SHARD.search(name)) and begins_with_record(path)


def stem(file: str) -> str:
    """A record file's name without folder, shard number and suffix: "data/train.record-00000-of-00010" is "train"."""
    name = _SHARD.sub("", name_of(file).removesuffix(".gz"))
    return os.path.splitext(name)[0] if suffix(name) in RECORD_SUFFIXES else name


def read_tfrecord(folder: Folder, files: list[str]) -> Gathered:
    """The images and boxes of TFRecord files.

    Raises:
        InputError: The pictures in them cannot be unpacked, as the disk is full, say.
    """
    with _Pictures(folder) as pictures:
        reading = _Reading(folder, pictures)
        total = sum(_length(folder.path(file)) for file in files)
        with progress_bar(total=total, desc="reading records", unit="B", unit_scale=True, delay=2) as bar:
            for file in files:
                reading.add_file(file)
                bar.update(_length(folder.path(file)))
        pictures.put_in_place()
    return reading.finish(files)


def _length(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


@dataclass
class _Reading:
    """The state of reading one dataset."""

    folder: Folder
    pictures: "_Pictures"
    ids: dict[tuple[str, str], str] = field(default_factory=dict)  # wanted id and content to the id
    numbered: Counter[str] = field(default_factory=Counter)  # wanted id to how many pictures wanted it
    origins: list[tuple[str, int]] = field(default_factory=list)  # file and record of each row
    objects: Counter[int] = field(default_factory=Counter)  # row to its number of objects
    corners: list[NDArray[np.float64]] = field(default_factory=list)  # [n, 4] a record, shares of the picture
    classes: list[tuple[str, int]] = field(
        default_factory=list
    )  # name and number of each box; "" and 0 for none
    rows: list[int] = field(default_factory=list)
    box_ids: list[str] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    records: int = 0
    difficult: int = 0
    groups: int = 0

    def __post_init__(self) -> None:
        self.data = Gathered(self.folder, "tfrecord", [])

    def add_file(self, file: str) -> None:
        split = split_of_path(file)
        wrong, before = 0, self.records
        for record in read_records(self.folder.path(file)):
            if wrong == MOST_PROBLEMS:
                self._unreadable(
                    file, record.number, f"{wrong:,} records before it are damaged: it is read no further"
                )
                break
            self.records += 1
            try:
                if record.fault:
                    raise DamagedError(record.fault)
                self.add(file, record.number, parse_example(record.data, _KEYS), split)
            except DamagedError as error:
                wrong += 1
                self._unreadable(file, record.number, str(error))
        if self.records == before:
            self._unreadable(file, 1, "the file is empty")

    def _unreadable(self, file: str, number: int, why: str, image: str = "") -> None:
        self.data.problem(
            "unreadable_label", file, f"record {number}: {why}", _FIX, image=image, box=f"record {number}"
        )

    def add(self, file: str, number: int, example: dict[str, Values], split: str) -> None:
        if not any(key.startswith("image/") for key in example):
            raise DamagedError("it holds none of the keys image/encoded, image/filename, image/object/...")
        encoded = _bytes(example, "image/encoded")
        named = _text(example, "image/filename") or _text(example, "image/source_id") or f"record {number}"
        declared = declared_size(_number(example, "image/width"), _number(example, "image/height"))
        row = self._row(file, number, named, encoded, split)
        if self.data.sizes[row] == (0, 0):
            self.data.sizes[row] = declared
        self._add_objects(file, number, row, example)

    def _row(self, file: str, number: int, named: str, encoded: bytes, split: str) -> int:
        """The row of a record's picture; new, or that of an earlier record with the same one."""
        data = self.data
        image, content = self.pictures.find(_plain(named), encoded)
        if not image:
            image = self._id_of(file, _plain(named), encoded, content)
        row = data.row(image)
        if row is None:
            row = data.add_image(image, split=split)
            self.origins.append((file, number))
            if content:
                data.elsewhere[image] = self.pictures.file_for(content, encoded)
            elif not encoded and image not in self.folder.images_by_name.get(name_of(image), ()):
                data.problem(
                    "label_without_image",
                    file,
                    f"record {number} holds no picture, and there is no file {named!r}",
                    "Put the image back, or make the record with image/encoded.",
                    severity="warning",
                    image=image,
                )
            return row
        if data.splits[row] != split:
            data.problem(
                "image_in_two_splits",
                file,
                f"record {number}: it is in {data.splits[row] or 'no split'} and in {split or 'no split'}; "
                "kept in the first",
                "Put each image into the records of one split.",
                severity="warning",
                image=image,
            )
        else:
            data.problem(
                "image_listed_twice",
                file,
                f"record {number}: another record is of the same image, {image}; the boxes of both are joined",
                "Keep one record an image.",
                severity="warning",
                image=image,
            )
        return row

    def _id_of(self, file: str, name: str, encoded: bytes, content: str) -> str:
        """A readable id: the picture's name below the record file's; numbered where another picture has it."""
        if not encoded:
            there = self.folder.images_by_name.get(name_of(name), [])
            return there[0] if len(there) == 1 else name
        start, end = os.path.splitext(name)
        if end.lower() not in IMAGE_SUFFIXES:
            start, end = name, suffix(content)
        above = stem(file)
        if f"{above}/{name}" in self.folder.images_by_name.get(name_of(name), ()):
            above = name_of(file)  # another picture lies there
        wanted = f"{above}/{start}{end}"
        if (wanted, content) not in self.ids:
            image = wanted
            while not self.numbered[wanted] or self.data.row(image) is not None:
                self.numbered[wanted] += 1
                count = self.numbered[wanted]
                image = wanted if count == 1 else f"{above}/{start}_{count}{end}"
            self.ids[wanted, content] = image
        return self.ids[wanted, content]

    def _add_objects(self, file: str, number: int, row: int, example: dict[str, Values]) -> None:
        columns = [_floats(example, key) for key in _BOX_KEYS]
        counts = [len(column) for column in columns]
        image = self.data.paths[row]
        if len(set(counts)) > 1:
            listed = ", ".join(f"{count} {corner}" for count, corner in zip(counts, _CORNERS, strict=True))
            self._unreadable(file, number, f"its boxes are no boxes: {listed}; they are left out", image)
            return
        count = counts[0]
        texts = [
            value.decode("utf-8", errors="replace") for value in _list(example, "image/object/class/text")
        ]
        labels = _integers(example, "image/object/class/label")
        for what, values in (("class names", texts), ("class numbers", labels)):
            if values and len(values) != count:
                why = f"it has {count} boxes and {len(values)} {what}; its boxes are left out"
                self._unreadable(file, number, why, image)
                return
        first = self.objects[row]  # of an earlier record of this picture
        self.objects[row] += count
        if not count:
            return
        corners, good = finite_rows(np.stack(columns, axis=1).tolist())
        crowd = _flags(example, "image/object/is_crowd", count)
        group = _flags(example, "image/object/group_of", count)
        self.groups += int((group & ~crowd & good).sum())
        self.difficult += int((_flags(example, "image/object/difficult", count) & good).sum())
        self.corners.append(corners[good])
        for k in range(count):
            box_id = f"object {first + k + 1}"
            if not good[k]:
                listed = short(corners[k].tolist())
                why = f"{box_id} has no box of four numbers: {listed}; it is left out"
                self._unreadable(file, number, why, image)
                continue
            text = sys.intern(texts[k].strip()) if texts else ""
            self.classes.append((text, max(0, labels[k]) if labels else 0))
            self.rows.append(row)
            self.box_ids.append(box_id)
            self.crowd.append(bool(crowd[k] or group[k]))

    def finish(self, files: list[str]) -> Gathered:
        data = self.data
        count = f"{counted(len(files), 'file')} with {counted(self.records, 'record')}"
        shown = ", ".join(files[:3]) + (f" and {len(files) - 3:,} more" if len(files) > 3 else "")
        data.notes.append(f"TFRecord: {count}: {shown}; checksums verified, corners as shares of the picture")
        if any(data.splits):
            data.notes.append("splits of the record files' names")
        sizes = self._sizes()
        corners = np.concatenate([*self.corners, np.zeros((0, 4))])
        if len(corners) and np.median(corners.max(axis=1)) > 2:
            data.notes.append(
                "most corners are larger than 2, so they are taken for pixels, not for shares of the picture as the "
                "API has them"
            )
        else:
            corners *= np.tile(sizes[self.rows], 2)
        data.add_boxes(as_boxes(corners), self._class_indices(), self.rows, self.box_ids, self.crowd)
        if self.difficult:
            data.notes.append(f"{self.difficult:,} objects marked as difficult are kept like the others")
        if self.groups:
            data.notes.append(f"{self.groups:,} boxes marked as group_of stand for a group, as crowds do")
        data.notes += self.pictures.notes()
        return data

    def _sizes(self) -> NDArray[np.int32]:
        """Width and height of the picture that each image's boxes are shares of, in pixels; they become the sizes.

        TensorFlow turns no picture upright, so it is the picture as stored; only where the record itself states the
        size of the upright one, that. Any other stated size is of a picture before it was resized.
        """
        data = self.data
        other = 0
        facts = inspect_images(
            [data.file_of(path) for path in data.paths], decode=False, label="reading headers"
        )
        for row, found in enumerate(facts):
            if found.width:
                declared = data.sizes[row]
                right = (found.width, found.height), found.upright_size
                other += declared != (0, 0) and declared not in right
                data.sizes[row] = declared if declared in right else right[0]
        if other:
            data.notes.append(
                f"{other:,} records state another size than their picture has; boxes are shares: the picture's is taken"
            )
        return np.array(data.sizes, np.int32).reshape(-1, 2)

    # -- classes -----------------------------------------------------------------------------------------------------

    def _class_indices(self) -> list[int]:
        """Class index of each box; sets the class names: those in the records, else a label map's for the numbers."""
        data = self.data
        kinds = dict.fromkeys(self.classes)
        maps = label_maps(self.folder)  # what is wrong with one is said where classes are put into order
        texts = {text for text, _ in kinds if text}
        labels = {label for text, label in kinds if label and not text}
        found = fitting_map(maps, texts)
        if labels:
            named = [one for one in maps if labels <= set(one.titles)] or maps
            found = found or (named[0] if named else None)
            if found:
                data.notes.append(f"class names of {found.file} for the numbers in the records")
            else:
                data.notes.append("no class names and no label map; they are called class 1, class 2, ...")
                data.named_classes = bool(texts)
        names = {kind: _class_name(*kind, found) for kind in kinds}
        data.class_names = _by_number(names)
        index = {name: k for k, name in enumerate(data.class_names)}
        classes = [index.get(names[kind], UNKNOWN_CLASS) for kind in self.classes]
        for box in np.flatnonzero(np.array(classes) == UNKNOWN_CLASS).tolist():
            row, number = self.rows[box], self.classes[box][1]
            file, record = self.origins[row]
            known = (
                f"the class number {number}, which {found.file} has not" if found and number else "no class"
            )
            data.problem(
                "unknown_class",
                file,
                f"record {record}: {self.box_ids[box]} has {known}",
                "Add the class to the label map, or correct the record.",
                image=data.paths[row],
                box=self.box_ids[box],
            )
        return classes


def _class_name(text: str, label: int, found: LabelMap | None) -> str:
    """The name of a class; "" for none."""
    if text:
        return found.aliases.get(text, text) if found else text
    if not label:
        return ""
    return found.titles.get(label, "") if found else f"class {label}"


def _by_number(names: dict[tuple[str, int], str]) -> list[str]:
    """The class names in the order of their numbers where each has one of its own, else of the alphabet."""
    numbers: dict[str, set[int]] = {}
    for (_, label), name in names.items():
        if name:
            numbers.setdefault(name, set()).add(label)
    own = {name: min(labels) for name, labels in numbers.items() if len(labels) == 1}
    if len(own) == len(numbers) == len(set(own.values())) and 0 not in own.values():
        return sorted(own, key=own.__getitem__)
    return sorted(numbers)


# -- values ----------------------------------------------------------------------------------------------------------


def _list(example: dict[str, Values], key: str) -> list[bytes]:
    values = example.get(key, [])
    if isinstance(values, np.ndarray):
        raise DamagedError(f"{key} holds numbers where bytes belong")
    return values


def _bytes(example: dict[str, Values], key: str) -> bytes:
    values = _list(example, key)
    return values[0] if values else b""


def _text(example: dict[str, Values], key: str) -> str:
    values = example.get(key, [])  # some write source_id as a number
    if not len(values):
        return ""
    first: Any = values[0]
    return first.decode("utf-8", errors="replace").strip() if isinstance(first, bytes) else str(first)


def _numbers(example: dict[str, Values], key: str) -> NDArray[Any]:
    values = example.get(key, [])
    if isinstance(values, list) and values:
        raise DamagedError(f"{key} holds bytes where numbers belong")
    return np.asarray(values)


def _number(example: dict[str, Values], key: str) -> float:
    values = _numbers(example, key)
    return float(values[0]) if len(values) else 0


def _floats(example: dict[str, Values], key: str) -> NDArray[np.float32]:
    return _numbers(example, key).astype(np.float32)


def _integers(example: dict[str, Values], key: str) -> list[int]:
    values = _numbers(example, key)
    if not np.isfinite(values).all():
        raise DamagedError(f"{key} holds a number that is none")
    return [int(value) for value in values]


def _flags(example: dict[str, Values], key: str, count: int) -> NDArray[np.bool_]:
    """Flags of each box; none where their number is another, as where a tool left them out."""
    values = _numbers(example, key)
    return values != 0 if len(values) == count else np.zeros(count, bool)


def _plain(name: str) -> str:
    """A picture's name in a record as a plain relative path: no drive, no climbing, nothing hidden or unprintable."""
    parts = re.sub(r"[\x00-\x1f\x7f<>:\"|?*]", "_", name.replace("\\", "/")).split("/")
    absolute = name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name)
    parts = [part.strip().lstrip(".")[-100:] for part in (parts[-1:] if absolute else parts)]
    return "/".join(part for part in parts if part)[-200:].lstrip("/") or "image"


# -- pictures --------------------------------------------------------------------------------------------------------


class _Pictures:
    """The pictures of records as files: those of the folder itself, else in the cache, named by their content.

    New ones are written into a folder of their own and put in place together, when they are on the disk: what stands
    under its name is whole.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.place = cache_folder() / "tfrecord"
        self.workshop: Path | None = None
        self.given: Counter[str] = Counter()  # name of each picture in the cache to the images that it is of
        self.size = 0  # bytes of them all
        self.new: list[str] = []
        self.lying = 0

    def __enter__(self) -> "_Pictures":
        return self

    def __exit__(self, *raised: object) -> None:
        if self.workshop is not None:
            shutil.rmtree(self.workshop, ignore_errors=True)

    def find(self, name: str, encoded: bytes) -> tuple[str, str]:
        """The path in the folder where these very bytes lie, and ""; or "", and the picture's name in the cache."""
        if not encoded:
            return "", ""
        for file in self.folder.images_by_name.get(name_of(name), ()):
            if self._is_same(file, encoded):
                self.lying += 1
                return file, ""
        return "", hashlib.sha256(encoded).hexdigest()[:40] + _suffix_of(encoded)

    def file_for(self, content: str, encoded: bytes) -> str:
        """The file of a picture of this name; each image has one of its own, also where two have the same bytes."""
        start, end = os.path.splitext(content)
        self.given[content] += 1
        name = content if self.given[content] == 1 else f"{start}-{self.given[content]}{end}"
        if _length(self.place / name) != len(encoded):
            try:
                self._write(name, encoded)
            except OSError as error:
                raise self._no_room(error) from error
        self.size += len(encoded)
        return str(self.place / name)

    def _write(self, name: str, encoded: bytes) -> None:
        if self.workshop is None:
            self.place.mkdir(parents=True, exist_ok=True)
            for left in self.place.glob(f"{_WORKSHOP}*"):  # by a process that was killed
                if left.stat().st_mtime < time.time() - 86_400:
                    shutil.rmtree(left, ignore_errors=True)
            self.workshop = Path(tempfile.mkdtemp(prefix=_WORKSHOP, dir=self.place))
        (self.workshop / name).write_bytes(encoded)
        self.new.append(name)

    def _is_same(self, file: str, encoded: bytes) -> bool:
        path = self.folder.path(file)
        with contextlib.suppress(OSError, InputError):
            return path.stat().st_size == len(encoded) and read_file(path) == encoded
        return False

    def put_in_place(self) -> None:
        if self.workshop is None:
            return
        try:
            sync_tree(self.workshop)
            for name in self.new:
                os.replace(self.workshop / name, self.place / name)
            sync_folder(self.place)
        except OSError as error:
            raise self._no_room(error) from error

    def _no_room(self, error: OSError) -> InputError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else error.strerror or str(error)
        return InputError(
            f"the pictures in the records cannot be unpacked into {self.place}, after "
            f"{megabytes(self.size)}: {why}. Free some space, or name a folder with room in front of "
            "the command: ODKIT_CACHE=/path/to/folder"
        )

    def notes(self) -> Iterator[str]:
        if self.lying:
            yield f"{self.lying:,} records hold the same bytes as an image in the folder, which is then that file"
        if self.given:
            room = megabytes(self.size) if self.size > 2**20 else "less than 1 MB"
            made = f"{len(self.new):,} of them now" if self.new else "all of them earlier"
            yield (
                f"{self.given.total():,} pictures out of the records lie as files in {self.place} "
                f"({room}; {made}), odkit's cache; "
                f"`odkit convert {self.folder.root} NEW_FOLDER --to coco` makes a folder of them to keep"
            )


def _suffix_of(encoded: bytes) -> str:
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return ".webp"
    found = (end for beginning, end in _BEGINNINGS.items() if encoded.startswith(beginning))
    return next(found, ".jpg")  # the audit says what it is instead
