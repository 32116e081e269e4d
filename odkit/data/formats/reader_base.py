"""What every reader of a label format stands on: the files of a folder, split names, and the rows as they come in.

A reader looks an image up among the files that lie in the dataset's folder; it never opens a path that a label file
spells out. A label file can therefore name what it wants: nothing outside the folder is touched.
"""

import gc
import itertools
import json
import math
import os
import re
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from odkit.data.dataset import UNKNOWN_CLASS, Dataset, SourceIds, SourceProblem
from odkit.data.image_facts import header_sizes
from odkit.data.images import IMAGE_SUFFIXES
from odkit.data.texts import Texts, TextTable, object_array
from odkit.system import OdkitError, counted, read_file

CLASSES_FILE = "classes.txt"
"""Stands beside what we write in formats that have no table of classes."""
MOST_PROBLEMS = 1000
"""Of each kind, so many problems are listed one by one; what comes after is counted."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # halves of characters, which JSON can spell and UTF-8 cannot
_NO_FILE = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")  # those that no file name has as Python spells it
_ODD_PATH = re.compile(
    r"[\\\0:\ud800-\udfff]|^/|/$|//|(^|/)\.\.?(/|$)"
)  # what is not simply names with "/" between
_OVERSHOT = 0.1  # so far beyond 0 and 1, as a share of a side, corners of objects at the border may lie
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "minival", "valset"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "testset", "testdev"), "test"),
}


class DatasetFormatError(OdkitError, ValueError):
    """A folder or file is no dataset that odkit can read; the message says what was looked for and what is there."""


def split_of(text: str) -> str:
    """The split that a file or folder name speaks of: "instances_val2017" is "val"; "" where it names none."""
    for word in re.split(r"[^a-z]+", text.lower()):
        if word in _SPLIT_WORDS:
            return _SPLIT_WORDS[word]
    return ""


def normal_split(name: str) -> str:
    """A split's name as odkit writes it: "valid" is "val", "Train2017" is "train", another name stays."""
    return _SPLIT_WORDS.get(re.sub(r"[\W_\d]+", "", name.lower()), name)


def split_of_path(path: str) -> str:
    """The split that a relative path speaks of, its last part first."""
    for part in reversed(PurePosixPath(path).parts):
        if found := split_of(part):
            return found
    return ""


def read_text(path: Path | str) -> str:
    """A text file, whatever wrote it: UTF-8 with or without a mark, UTF-16 with one, else Latin-1."""
    data = read_file(path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def encodable(text: str) -> str:
    """A text that UTF-8 can hold, so that it can be printed, hashed and written."""
    return text if text.isascii() else _SURROGATE.sub(_spelled, text)


def _spelled(surrogate: re.Match[str]) -> str:
    return f"{{{ord(surrogate[0]):x}}}"


@dataclass(frozen=True)
class Folder:
    """The files below a folder, listed once: relative paths with "/" between, sorted."""

    root: Path

    @cached_property
    def files(self) -> list[str]:
        found: list[str] = []
        seen: set[tuple[int, int]] = set()  # a link may lead back to a folder above it
        todo = [""]
        while todo:
            inside = todo.pop()
            try:
                here = os.stat(self.root / inside)
                entries = list(os.scandir(self.root / inside))
            except OSError:
                continue
            if (here.st_dev, here.st_ino) in seen:
                continue
            seen.add((here.st_dev, here.st_ino))
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                path = f"{inside}/{entry.name}" if inside else entry.name
                try:
                    is_folder = entry.is_dir()
                except OSError:
                    is_folder = False
                (todo if is_folder else found).append(path)
        return sorted(found)

    @cached_property
    def by_suffix(self) -> dict[str, list[str]]:
        return _grouped((suffix(file), file) for file in self.files)

    @cached_property
    def images(self) -> list[str]:
        return self.with_suffix(*IMAGE_SUFFIXES)

    @cached_property
    def images_by_name(self) -> dict[str, list[str]]:
        """File name to the images so called."""
        return _grouped((name_of(file), file) for file in self.images)

    @cached_property
    def images_by_stem(self) -> dict[str, list[str]]:
        """File name without its suffix to the images so called."""
        return _grouped((stem_of(file), file) for file in self.images)

    def only(self, file: str) -> "Folder":
        """The same folder as if this label file and the images were all that is in it."""
        narrow = Folder(self.root)
        narrow.__dict__["files"] = sorted({*self.images, file})  # in place of what would be listed
        narrow.__dict__["images"] = self.images
        return narrow

    def completed(self, name: str) -> str:
        """An image's name as labels spell it; with the suffix of the image of that stem where it has none itself."""
        if name_of(name) in self.images_by_name:
            return name
        there = self.images_by_stem.get(name_of(name))
        return name + there[0][len(there[0]) - len(suffix(there[0])) :] if there else name

    def with_suffix(self, *suffixes: str, depth: int = 99) -> list[str]:
        """Files with one of the suffixes at most so many folders down."""
        found = [f for end in suffixes for f in self.by_suffix.get(end, ()) if f.count("/") <= depth]
        return sorted(found)

    @cached_property
    def json_kinds(self) -> dict[str, str]:
        """Each .json file to the format that its beginning speaks of, see `json_kind`."""
        return {file: json_kind(self.path(file)) for file in self.with_suffix(".json")}

    def path(self, relative: str) -> Path:
        return self.root / relative

    def inside(self, name: str, beside: str = "") -> str | None:
        """A path as a label file spells it, relative and with plain "/"; None where it leads out of the folder.

        Args:
            name: The path.
            beside: The label file's folder, relative to this one: what ".." starts from.
        """
        if not _ODD_PATH.search(name):
            return name
        name = _NO_FILE.sub(_spelled, name.replace("\\", "/"))
        if "\0" in name or "://" in name or re.match(r"[A-Za-z]:/", name):
            return None
        if name.startswith("/"):
            try:
                return PurePosixPath(os.path.normpath(name)).relative_to(self.root.as_posix()).as_posix()
            except ValueError:
                return None
        if ".." in name.split("/"):
            name = f"{beside}/{name}" if beside else name
        name = os.path.normpath(name).replace("\\", "/")
        return None if name == ".." or name.startswith("../") else name


def list_images(folder: Path) -> list[str]:
    """The images below a folder, as every reader here finds them: relative paths with "/" between, sorted."""
    return Folder(folder).images


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


def stem_of(path: str) -> str:
    return os.path.splitext(name_of(path))[0]


def nearness(file: str, image: str) -> int:
    """How many folders two files share, from the top and from the bottom."""
    a, b = folder_of(file).split("/"), folder_of(image).split("/")
    top = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[::-1], b[::-1]
    bottom = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return top + bottom


def suffix(path: str) -> str:
    head, dot, end = path.rpartition(".")
    return f".{end.lower()}" if dot and "/" not in end and head and head[-1] != "/" else ""


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return dict(groups)


def place_names(folder: Folder, names: Iterable[str], beside: str, split: str) -> dict[str, str]:
    """Where the images lie that one label file names.

    A label file names images relative to a folder that it does not tell ("images", "../train2017", its own). Every
    folder in question is weighed: one of another split comes last, then the one that explains the most names wins.

    Args:
        folder: The dataset's files.
        names: Image names out of the label file, as `Folder.inside` makes them.
        beside: The label file's folder.
        split: The label file's split; "" where it has none.

    Returns:
        Name to relative path, also for images that are not there: those are taken to lie where most of the others do.
    """
    options: dict[str, list[str]] = {}
    count: Counter[str] = Counter()
    everything, by_name = set(folder.images), folder.images_by_name
    for name in dict.fromkeys(names):
        if "/" in name and name in everything:  # a whole path from the dataset's folder: no need to weigh
            options[name] = [""]
            count[""] += 1
            continue
        there = [
            file[: len(file) - len(name)]
            for file in by_name.get(name_of(name), ())
            if file == name or file.endswith("/" + name)
        ]
        options[name] = there
        for start in there:
            count[start] += 1

    def rank(start: str) -> tuple[Any, ...]:
        other = split_of_path(start)
        return (
            not (split and other and other != split),
            count[start],
            bool(split) and other == split,
            start.rstrip("/") == beside,
            nearness(f"{beside}/x", f"{start}x"),
            -len(start),
            start,
        )

    best = sorted(count, key=rank, reverse=True)
    order = {start: place for place, start in enumerate(best)}
    above = re.sub(r"(^|/)(annotations?|labels?|json)$", "", beside, flags=re.IGNORECASE)
    usual = best[0] if best else (f"{above}/" if above else "")

    def first(there: list[str]) -> str:
        if len(there) == 1:
            return there[0]
        return min(there, key=lambda start: order[start]) if there else usual

    return {name: first(there) + name for name, there in options.items()}


@dataclass
class Gathered:
    """What a reader has read so far; `dataset()` makes the columns of it."""

    folder: Folder
    format: str
    class_names: list[str]
    paths: list[str] = field(default_factory=list)  # relative to the folder, or absolute where outside
    sizes: list[tuple[int, int]] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    boxes: list[Any] = field(default_factory=list)  # arrays [n, 4], xyxy
    classes: list[Any] = field(default_factory=list)  # arrays [n]
    images: list[Any] = field(default_factory=list)  # arrays [n]
    crowd: list[Any] = field(default_factory=list)  # arrays [n]
    box_ids: list[Sequence[str]] = field(default_factory=list)  # lists or Texts [n]
    notes: list[str] = field(default_factory=list)
    problems: list[SourceProblem] = field(default_factory=list)
    bare: set[int] = field(default_factory=set)  # rows of images that are listed and have no label file
    named_classes: bool = True  # False where the class names are made up, as "class 0"
    elsewhere: dict[str, str] = field(default_factory=dict)  # image id to its file outside the folder
    image_keys: dict[int, str] = field(default_factory=dict)  # row to the image's id in its label file
    class_keys: dict[str, str] = field(default_factory=dict)  # number in the label file to class name
    _rows: dict[str, int] = field(default_factory=dict)
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _files: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def num_boxes(self) -> int:
        return sum(map(len, self.boxes))

    def row(self, path: str) -> int | None:
        """Row of an image that is already there."""
        return self._rows.get(path)

    def add_image(self, path: str, size: tuple[int, int] = (0, 0), split: str = "") -> int:
        """A new image; its row."""
        row = self._rows[path] = len(self.paths)
        self.paths.append(path)
        self.sizes.append(size)
        self.splits.append(split)
        return row

    def add_boxes(
        self,
        boxes: NDArray[Any],
        classes: Sequence[int] | NDArray[Any],
        images: Sequence[int] | NDArray[Any],
        box_ids: Sequence[str],
        crowd: Sequence[bool] | NDArray[Any] | None = None,
    ) -> None:
        """Boxes, float [n, 4] xyxy in pixels, finite, with their class index, image row and id."""
        self.boxes.append(np.asarray(boxes, np.float64).reshape(-1, 4))
        self.classes.append(np.asarray(classes, np.int32))
        self.images.append(np.asarray(images, np.int32))
        self.crowd.append(np.zeros(len(box_ids), bool) if crowd is None else np.asarray(crowd, bool))
        self.box_ids.append(box_ids)

    def problem(
        self,
        kind: str,
        file: str | Path,
        message: str,
        fix: str,
        *,
        severity: str = "fatal",
        image: str = "",
        box: str = "",
    ) -> None:
        key = (kind, severity)
        self._counts[key] += 1
        self._files.setdefault(key, str(self.folder.root / file))
        if self._counts[key] <= MOST_PROBLEMS:
            path = str(self.folder.root / file)
            words = (encodable(text) for text in (message, fix, image, box))
            self.problems.append(SourceProblem(kind, severity, path, *words))

    def count(self, kind: str) -> int:
        """How many problems of a kind there are, those beyond `MOST_PROBLEMS` too."""
        return sum(count for (name, _), count in self._counts.items() if name == kind)

    def forget(self, kind: str) -> None:
        """Take back the problems of a kind."""
        self.problems = [problem for problem in self.problems if problem.kind != kind]
        self._counts = Counter({key: count for key, count in self._counts.items() if key[0] != kind})

    def missing_image(self, file: str, image: str) -> None:
        """There is no image for a label file that is for one image."""
        self.problem(
            "label_without_image",
            file,
            f"there is no image {name_of(image)!r} for it",
            "Put the image back or delete the label file.",
            severity="warning",
            image=image,
        )

    def outside(self, file: str | Path, name: str) -> None:
        """A label file names an image outside the dataset's folder."""
        self.problem(
            "path_outside",
            file,
            f"it names the image {_short(name)}, which is outside {self.folder.root}; its labels are left out",
            "Write the path relative to the dataset's folder, and put the image there.",
        )

    def unlabelled_images(self, folders: Iterable[str]) -> None:
        """Note the images in these folders that no label names; they are not part of the dataset."""
        wanted = set(folders)
        for file in self.folder.images:
            if folder_of(file) in wanted and file not in self._rows:
                self.problem(
                    "image_without_labels",
                    file,
                    "no label file names it, so it is left out",
                    "List it as an image without objects if there is nothing in it; else label it.",
                    severity="info",
                    image=file,
                )

    def file_of(self, path: str) -> str:
        """Absolute path of an image's file."""
        return self.elsewhere.get(path) or os.path.join(self.folder.root, path)

    def read_sizes(self) -> None:
        """Sizes that the labels do not state, from the files' headers."""
        rows = [row for row, size in enumerate(self.sizes) if size == (0, 0)]
        for row, size in zip(
            rows, header_sizes([self.file_of(self.paths[row]) for row in rows]), strict=True
        ):
            self.sizes[row] = size

    def dataset(self, name: str) -> Dataset:
        problems = list(self.problems)
        for (kind, severity), count in self._counts.items():
            if count > MOST_PROBLEMS:
                problems.append(
                    SourceProblem(
                        kind,
                        severity,
                        self._files[kind, severity],
                        f"and {count - MOST_PROBLEMS:,} more of this kind",
                        "Correct those that are listed; the next reading lists the others.",
                    )
                )
        image_ids = Texts.of(map(encodable, self.paths))
        return Dataset(
            name=name,
            root=self.folder.root,
            format=self.format,
            class_names=tuple(map(encodable, self.class_names)),
            image_paths=Texts.of(map(self.file_of, self.paths)),
            image_ids=image_ids,
            image_sizes=np.array(self.sizes, np.int32).reshape(-1, 2),
            image_splits=object_array([encodable(split) for split in self.splits]),
            boxes=_joined(self.boxes, np.zeros((0, 4), np.float32)).astype(np.float32),
            box_classes=_joined(self.classes, np.zeros(0, np.int32)),
            box_images=_joined(self.images, np.zeros(0, np.int32)),
            box_crowd=_joined(self.crowd, np.zeros(0, bool)),
            box_ids=_column(self.box_ids),
            notes=tuple(self.notes),
            source_problems=tuple(problems),
            source_ids=SourceIds(
                TextTable(
                    image_ids
                    if list(self.image_keys) == list(range(len(image_ids)))
                    else image_ids[list(self.image_keys)],
                    Texts.of(map(encodable, self.image_keys.values())),
                ),
                {encodable(key): encodable(name) for key, name in self.class_keys.items()},
            ),
        )


def problem_count(problem: SourceProblem) -> int:
    """How many problems a row of `source_problems` stands for: 1, or those that are not listed one by one."""
    more = re.fullmatch(r"and ([\d,]+) more of this kind", problem.message)
    return int(more[1].replace(",", "")) if more else 1


def is_float(text: str) -> bool:
    """Whether Python reads a text as a number; "nan" and "inf" are some."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def declared_size(width: Any, height: Any) -> tuple[int, int]:
    """A size as labels state it; (0, 0) where it is none."""
    try:
        size = round(float(width)), round(float(height))
    except (TypeError, ValueError, OverflowError):
        return 0, 0
    return size if all(0 < side < 2**31 for side in size) else (0, 0)


def finite_rows(rows: Sequence[Any] | NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Rows of four numbers as float64 [n, 4], and which of them hold four numbers that float32 can hold.

    The usual, flawless case is one call of NumPy; only where it fails is each row looked at.
    """
    try:
        array = np.array(rows, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None or array.shape != (len(rows), 4):
        array = np.array([_row_or_nan(row) for row in rows], np.float64)
    array = array.reshape(-1, 4)
    with np.errstate(invalid="ignore"):
        good = np.all(np.abs(array) < 1e9, axis=1)
    return array, good


def are_shares(corners: NDArray[Any]) -> NDArray[np.bool_]:
    """Which boxes, xyxy [n, 4], can only be shares of an image's sides: corners in 0..1, but not zeros for no box."""
    within = np.all((corners >= -_OVERSHOT) & (corners <= 1 + _OVERSHOT), axis=1)
    area = np.all(corners[:, 2:] > corners[:, :2], axis=1)
    shares: NDArray[np.bool_] = within & (area | np.any(corners != np.round(corners), axis=1))
    return shares


def mostly_shares(corners: NDArray[Any], good: NDArray[np.bool_]) -> bool:
    """Whether most of a file's boxes are shares of the image's sides; zeros for no box have no vote."""
    pixels = np.any((corners < -_OVERSHOT) | (corners > 1 + _OVERSHOT), axis=1)
    return bool((are_shares(corners) & good).sum() > (pixels & good).sum())


def in_pixels(
    corners: NDArray[np.float64], relative: NDArray[np.bool_], sizes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Boxes of which some are shares of their image's sides, in pixels; and by row what is wrong with the others.

    Args:
        corners: Xyxy [n, 4].
        relative: Whether most boxes of the box's file are shares, [n]; one that is not what the others are is wrong.
        sizes: Width and height of the box's image in pixels, [n, 2]; 0 where unknown.
    """
    outside = np.any((corners < -_OVERSHOT) | (corners > 1 + _OVERSHOT), axis=1)
    reasons = (
        (relative & outside, "are no shares of the image's sides (0 to 1), as most in the file are"),
        (~relative & are_shares(corners), "lie within 0 to 1, while most in the file are pixels"),
        (relative & ~outside & (sizes == 0).any(1), "are shares of an image whose size is not known"),
    )
    wrong = {int(k): why for rows, why in reasons for k in np.flatnonzero(rows)}
    return np.where(relative[:, None], corners * np.tile(sizes, 2), corners), wrong


def _row_or_nan(row: Any) -> list[float]:
    if not isinstance(row, list | tuple):
        return [np.nan] * 4
    try:
        numbers = [float(value) for value in row]
    except (TypeError, ValueError, OverflowError):
        return [np.nan] * 4
    return numbers if len(numbers) == 4 else [np.nan] * 4


def _short(text: Any, length: int = 80) -> str:
    written = repr(text)
    half = length // 2
    return written if len(written) <= length else f"{written[:half]}...{written[-half:]}"


short = _short


def _column(parts: Sequence[Sequence[str]]) -> Texts:
    if parts and all(isinstance(part, Texts) for part in parts):
        return Texts.join([part for part in parts if isinstance(part, Texts)])
    return Texts.of(map(encodable, itertools.chain.from_iterable(parts)))


def _joined(parts: list[Any], empty: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else empty


# -- JSON and XML ---------------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """A JSON file; like Python's own reader it accepts a byte order mark, NaN and Infinity.

    Raises:
        DatasetFormatError: It is no JSON, or is cut short.
    """
    return json_content(json_bytes(path), path)


def json_bytes(path: Path) -> bytes:
    """The bytes of a JSON file without a byte order mark.

    Raises:
        DatasetFormatError: It cannot be read.
    """
    try:
        return read_file(path).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DatasetFormatError(f"{path} cannot be read: {error.strerror}") from error


def json_content(data: bytes, path: Path) -> Any:
    """What JSON says, see `read_json`; the path is for the message."""
    with no_garbage_collection():
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError as error:
            try:
                return json.loads(data)
            except (ValueError, RecursionError):
                raise DatasetFormatError(
                    f"{path} is no JSON ({error}); it may be cut short: get it anew or write it again"
                ) from None


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    # The collector would walk through millions of fresh dicts again and again, which takes longer than making them
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def json_kind(path: Path) -> str:
    """The format of a JSON file by its beginning alone, as a file may have hundreds of megabytes.

    Returns:
        "labelme", "createml" or "labelstudio"; "coco" for any other object, "" for any other list.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8192).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return "coco"  # whose reader says why it cannot be read
    keys = set(re.findall(rb'"(\w+)"\s*:', head))
    if not head.startswith(b"["):
        return "labelme" if keys & _LABELME_KEYS and not keys & _COCO_KEYS else "coco"
    if keys & _LABELSTUDIO_KEYS:
        return "labelstudio"
    boxes = re.search(
        rb'"annotations?"\s*:\s*\[\s*[{\]]', head
    )  # of objects: other lists of images have numbers
    return "createml" if boxes and keys & _CREATEML_KEYS else ""


_COCO_KEYS = {b"images", b"annotations", b"categories"}
_LABELME_KEYS = {b"shapes", b"imagePath", b"imageData"}
_CREATEML_KEYS = {
    b"image",
    b"imagefilename",
    b"coordinates",
}  # the first image's many boxes may come before its name
_LABELSTUDIO_KEYS = {b"data", b"result", b"was_cancelled", b"annotator", b"annotation_id", b"completions"} | {
    b"rectanglelabels",
    b"polygonlabels",
    b"ellipselabels",
}


class LabelError(ValueError):
    """A label file that cannot be read; the message says why."""


def xml_root(path: Path, *tags: str) -> ET.Element:
    """The root of an XML file. One with a DOCTYPE is refused: labels need none, and it can unpack without end.

    Raises:
        LabelError: It is no XML whose root is one of the `tags`.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise LabelError(f"it cannot be read: {error.strerror}") from error
    if b"\0" in data:
        raise LabelError("it holds zero bytes: it is no XML in UTF-8")
    if b"<!doctype" in data[:4096].lower() or b"<!ENTITY" in data.upper():
        raise LabelError(
            "it declares a DOCTYPE or entities, which labels have no use for and odkit does not expand"
        )
    try:
        root = ET.fromstring(data)
    except (ET.ParseError, ValueError, LookupError, RecursionError) as error:
        raise LabelError(f"it is no XML: {error}") from None
    if root.tag not in tags:
        raise LabelError(f"its root is <{short(root.tag)[1:-1]}>, not <{tags[0]}>")
    return root


def listed_classes(folder: Folder, used: set[str]) -> list[str]:
    """The class names in classes.txt, in their order; none where it is of something else, as it lacks one in use."""
    path = folder.path(CLASSES_FILE)
    text = read_text(path) if path.is_file() else ""
    listed = list(dict.fromkeys(line.removesuffix("\r") for line in text.split("\n") if line.strip()))
    return listed if used <= set(listed) else []


def class_name(text: Any) -> str | None:
    """A class name as a label file spells it; None where it is none."""
    if not isinstance(text, str) or not text.strip():
        return None
    return text.strip() if "\n" in text else text  # a line break is the file's layout, not part of the name


# -- boxes with the names of their classes ---------------------------------------------------------------------------


def image_row(data: Gathered, file: str, path: str, size: tuple[int, int], split: str) -> int:
    """The row of an image that a label file lists: a new one, or the one that it has; that is told of."""
    row = data.row(path)
    if row is None:
        return data.add_image(path, size, split)
    if data.splits[row] != split:
        data.problem(
            "image_in_two_splits",
            file,
            f"it is listed in {data.splits[row] or 'no split'} and in {split or 'no split'}; kept in the first",
            "List each image in one split.",
            severity="warning",
            image=path,
        )
    else:
        data.problem(
            "image_listed_twice",
            file,
            "it is listed a second time; the boxes of both are joined",
            "List each image once.",
            severity="warning",
            image=path,
        )
    return row


@dataclass
class NamedBoxes:
    """Boxes that come with the name of their class; `finish` makes columns and a class table of them."""

    data: Gathered
    upright: Counter[str] = field(default_factory=Counter)  # what is read as its upright box, by its name
    left_out: Counter[str] = field(default_factory=Counter)  # what has no extent, or none that can be told
    _rows: list[Any] = field(default_factory=list)
    _named: list[tuple[str, str | None, int, str, bool]] = field(default_factory=list)

    def add(
        self,
        file: str,
        image: int,
        name: Any,
        corners: Any,
        box_id: str,
        *,
        crowd: bool = False,
        shown: Any = None,
    ) -> None:
        """One box.

        Args:
            file: The label file.
            image: Row of its image.
            name: What should be the name of its class.
            corners: What should be four numbers.
            box_id: How a person finds it in the file.
            crowd: Whether it stands for several objects.
            shown: What the file holds in place of four numbers, where that is something else.
        """
        self._rows.append(corners if shown is None or corners is not None else short(shown))
        self._named.append((file, class_name(name), image, box_id, crowd))

    @property
    def names(self) -> set[str]:
        """The class names in use."""
        return {row[1] for row in self._named if row[1] is not None}

    def finish_one_file_an_image(self) -> None:
        """Finish where each image has a label file of its own, in folders that may be named after splits."""
        data = self.data
        if any(data.splits):
            data.notes.append("splits of the folders' names")
        self.finish()
        data.unlabelled_images({folder_of(path) for path in data.paths})
        data.read_sizes()

    def finish(
        self,
        order: Iterable[str] = (),
        convert: Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[Any]] | None = None,
    ) -> None:
        """Put the boxes and the class table into the columns.

        Args:
            order: The first of the class names; those that are not among them follow sorted.
            convert: What makes xyxy of the four numbers and the sizes of their images; None where they are xyxy.
        """
        data = self.data
        names = list(dict.fromkeys(order))
        data.class_names = names + sorted(self.names.difference(names))
        index = {name: k for k, name in enumerate(data.class_names)}
        boxes, good = finite_rows(self._rows)
        kept = []
        for raw, row, fine in zip(self._rows, self._named, good.tolist(), strict=True):
            file, name, image, box_id, _ = row
            if not fine:
                data.problem(
                    "unreadable_label",
                    file,
                    f"{box_id} has no box of four numbers: {short(raw)}; it is left out",
                    "Correct or delete it.",
                    image=data.paths[image],
                    box=box_id,
                )
                continue
            kept.append(row)
            if name is None:
                data.problem(
                    "unknown_class",
                    file,
                    f"{box_id} has a box and no class",
                    "Name its class or delete it.",
                    image=data.paths[image],
                    box=box_id,
                )
        boxes, kept = self._each_once(boxes[good], kept)
        images = [row[2] for row in kept]
        if convert is not None:
            boxes = convert(boxes, np.array(data.sizes, np.int64).reshape(-1, 2)[images])
        data.add_boxes(
            boxes,
            [UNKNOWN_CLASS if row[1] is None else index[row[1]] for row in kept],
            images,
            [row[3] for row in kept],
            [row[4] for row in kept],
        )
        if self.upright:
            data.notes.append(f"read as upright boxes: {counted_all(self.upright)}")
        if self.left_out:
            data.notes.append(f"left out, as they have no box: {counted_all(self.left_out)}")

    def _each_once(
        self, boxes: NDArray[np.float64], kept: list[Any]
    ) -> tuple[NDArray[np.float64], list[Any]]:
        """The boxes without those that an earlier file says too, to the last digit: of a copy of it, say."""
        if len({row[0] for row in kept}) < 2:
            return boxes, kept
        first: dict[tuple[Any, ...], str] = {}
        keys = [(row[2], row[1], *box) for row, box in zip(kept, boxes.tolist(), strict=True)]
        new = [first.setdefault(key, row[0]) == row[0] for key, row in zip(keys, kept, strict=True)]
        if not all(new):
            self.data.notes.append(
                f"left out: {counted(new.count(False), 'box')} that an earlier file has too"
            )
        return boxes[new], [row for row, is_new in zip(kept, new, strict=True) if is_new]


def counted_all(things: Mapping[str, int]) -> str:
    """Several things with their numbers in words: "2 polylines and 1 tag"."""
    words = [counted(number, noun) for noun, number in things.items()]
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def points_box(points: Any) -> list[float] | None:
    """Left, top, right, bottom around points [[x, y], ...]; None where that is not what they are."""
    try:
        array = np.array(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if array.ndim != 2 or array.shape[1] != 2 or len(array) < 2 or not np.isfinite(array).all():
        return None
    return [*array.min(0).tolist(), *array.max(0).tolist()]


def turned_box(box: Sequence[float], degrees: float, pivot: tuple[float, float]) -> list[float]:
    """The upright box around a turned one.

    Args:
        box: Left, top, right, bottom before it is turned.
        degrees: By how much it is turned, clockwise as one sees it.
        pivot: The point that stays where it is.
    """
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    corners = [(x - pivot[0], y - pivot[1]) for x in box[0::2] for y in box[1::2]]
    xs = [pivot[0] + x * cos - y * sin for x, y in corners]
    ys = [pivot[1] + x * sin + y * cos for x, y in corners]
    return [min(xs), min(ys), max(xs), max(ys)]


def turned_ellipse_box(x: float, y: float, radius_x: float, radius_y: float, degrees: float) -> list[float]:
    """The upright box around an ellipse with its centre at x, y that is turned about it."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    half = math.hypot(radius_x * cos, radius_y * sin), math.hypot(radius_x * sin, radius_y * cos)
    return [x - half[0], y - half[1], x + half[0], y + half[1]]
