"""What is wrong with a dataset, and the repaired view that leaves the source untouched.

`audit()` runs every check of the table `CHECKS` and lists what each finds; `repaired()` applies the repairs that are
safe and says what it did. To add a check, write one function that yields `Hit`s and give it a row in `CHECKS`.

A check looks at columns, never at boxes one by one; only what it finds becomes objects.
"""

import hashlib
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from odkit.boxes import clip_boxes, upright_boxes
from odkit.dataset import UNKNOWN_CLASS, Dataset, SourceProblem, file_hash
from odkit.watching import progress_bar

SEVERITIES = ("fatal", "warning", "info")
"""Fatal: training would crash or learn wrong boxes. Warning: look at it. Info: good to know."""

REPAIRS = {
    "drops the image": "dropped",
    "drops the box": "dropped",
    "swaps the corners": "put in order",
    "clips the box": "clipped at the image's border",
    "turns the boxes": "turned upright, image and boxes",
    "corrects the size": "corrected",
    "scales the boxes": "corrected and the boxes scaled to it, as for labels of a resized copy",
    "merges the classes": "merged into the most frequent spelling",
    "leaves it out": "left out",
}
"""What `repaired()` can do about a finding (`Finding.repair`), and how its notes say that it was done."""

_FEW_IMAGES = 10  # a split below this measures nothing
_IMBALANCE = 10  # times as many boxes in the most frequent class as in the rarest
_OVERHANG = 0.5  # pixels over the border that are put down to rounding
_FITTING = 1.0  # the same when telling which of two sizes the boxes of an image were drawn on
_EXIF_ORIENTATION = 0x0112
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, where, and what to do about it.

    Attributes:
        kind: Name of the check, a key of `CHECKS` (or of a reader's own, see `SourceProblem`).
        severity: "fatal", "warning" or "info".
        message: What is wrong here, with the values that show it.
        fix: What a person can do about it.
        file: The file to open: the image, or what a reader stumbled over; "" where it concerns the whole dataset.
        image: Image id, "" where no image of the dataset is concerned.
        box: Box id, "" where no box is concerned.
        image_index: Row of the image columns, -1 for none.
        box_index: Row of the box columns, -1 for none.
        repair: What `repaired()` does about it, a key of `REPAIRS`; "" where that is left to a person.
    """

    kind: str
    severity: str
    message: str
    fix: str
    file: str
    image: str = ""
    box: str = ""
    image_index: int = -1
    box_index: int = -1
    repair: str = ""

    @property
    def place(self) -> str:
        """Where it is: image and box, else the file; "" where it concerns the dataset as a whole."""
        return ", ".join(part for part in (self.image, self.box) if part) or self.file


class Hit(NamedTuple):
    """What a check yields: a message and the place; the rest comes from the check's row in `CHECKS`."""

    message: str
    image: int = -1
    box: int = -1
    repair: str | None = None  # in place of the row's
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A row of `CHECKS`."""

    severity: str
    title: str  # what one such finding is; its first word is made plural for several
    meaning: str  # why it matters
    fix: str
    repair: str = ""  # a key of REPAIRS, "" where a person must decide
    find: "Callable[[_Subject], Iterable[Hit]] | None" = (
        None  # None: met by a reader, comes with source_problems
    )


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """Every finding about a dataset, the gravest first; iterate, index by kind, print, or show in a notebook."""

    dataset: Dataset
    findings: tuple[Finding, ...]
    _subject: "_Subject" = field(repr=False)

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    @property
    def fatal(self) -> tuple[Finding, ...]:
        """The findings that training refuses."""
        return tuple(f for f in self.findings if f.severity == "fatal")

    @property
    def ok(self) -> bool:
        """True when nothing is fatal."""
        return not self.fatal

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind that was found, the gravest kinds first."""
        return dict(Counter(f.kind for f in self.findings))

    def of(self, kind: str) -> tuple[Finding, ...]:
        """The findings of one kind.

        Raises:
            KeyError: There is no such kind; the message names the nearest.
        """
        if kind not in CHECKS and kind not in self.counts:
            near = get_close_matches(kind, [*CHECKS, *self.counts], n=3, cutoff=0.3)
            raise KeyError(f"no kind of finding {kind!r}; near it: {', '.join(near) or ', '.join(CHECKS)}")
        return tuple(f for f in self.findings if f.kind == kind)

    def images(self, kind: str | None = None) -> NDArray[np.int64]:
        """Indices of the images that have a finding (of one kind, or of any), each once, ascending, int64."""
        found = self.findings if kind is None else self.of(kind)
        return np.unique(np.array([f.image_index for f in found if f.image_index >= 0], np.int64))

    def boxes(self, kind: str | None = None) -> NDArray[np.int64]:
        """Indices of the boxes that have a finding (of one kind, or of any), each once, ascending, int64."""
        found = self.findings if kind is None else self.of(kind)
        return np.unique(np.array([f.box_index for f in found if f.box_index >= 0], np.int64))

    def table(self, limit: int | None = 5) -> str:
        """The findings as text, grouped by kind.

        Args:
            limit: How many examples of each kind; None for all.
        """
        return "\n".join([self._headline(), *_group_lines(self.findings, limit), *self._advice()])

    def to_json(self) -> bytes:
        """The whole audit as UTF-8 JSON: dataset, ok, counts, and each finding with all its fields."""
        page = {
            "dataset": self.dataset.name,
            "root": str(self.dataset.root),
            "fingerprint": self.dataset.fingerprint(),
            "images": len(self.dataset),
            "boxes": self.dataset.num_boxes,
            "ok": self.ok,
            "counts": self.counts,
            "findings": [asdict(f) for f in self.findings],
        }
        return orjson.dumps(page, option=orjson.OPT_INDENT_2)

    def __repr__(self) -> str:
        return self.table(limit=3)

    def _repr_html_(self) -> str:
        parts = [f"<b>{escape(self._headline())}</b>"]
        for kind, found in _grouped(self.findings):
            rows = "".join(
                f'<tr><td style="text-align:left">{escape(f.place)}</td>'
                f'<td style="text-align:left">{escape(f.message)}</td></tr>'
                for f in found[:5]
            )
            more = f"<p>and {len(found) - 5:,} more</p>" if len(found) > 5 else ""
            title, meaning = _title(kind, found), CHECKS[kind].meaning if kind in CHECKS else ""
            parts.append(
                f"<details{' open' if found[0].severity == 'fatal' else ''}><summary><b>{found[0].severity}</b> "
                f"{escape(title)}</summary><p>{escape(meaning)}</p><table>{rows}</table>{more}"
                f"<p>{escape(_remedy(found))}</p></details>"
            )
        parts += [f"<p>{escape(line)}</p>" for line in self._advice() if line]
        return "<div>" + "".join(parts) + "</div>"

    def _headline(self) -> str:
        by = Counter(f.severity for f in self.findings)
        counts = f"{by['fatal']:,} fatal, {_count(by['warning'], 'warning')}, {by['info']:,} info"
        size = f"{_count(len(self.dataset), 'image')}, {_count(self.dataset.num_boxes, 'box')}"
        return f"Audit of {self.dataset.name!r} ({size}): {counts}"

    def _advice(self) -> list[str]:
        if not self.findings:
            return ["Nothing found."]
        mendable = [f for f in self.findings if f.repair]
        lines = []
        if mendable:
            kinds = len({f.kind for f in mendable})
            lines.append(
                f"dataset.repaired() repairs {_count(len(mendable), 'finding')} of {_count(kinds, 'kind')} "
                "(`--repair` on the command line); the files stay as they are."
            )
        stuck = [f for f in self.fatal if not f.repair]
        if stuck:
            lines.append(f"No repair mends {', '.join(dict.fromkeys(f.kind for f in stuck))}.")
        return ["", *lines] if lines else []


class DatasetFaultError(ValueError):
    """Training was asked for on a dataset with fatal findings; the message is their table, `audit` the whole."""

    def __init__(self, message: str, audit: Audit) -> None:
        super().__init__(message)
        self.audit = audit


def audit(
    dataset: Dataset,
    *,
    decode: bool = True,
    workers: int | None = None,
    files: bool = True,
    tiny: float = 2.0,
    duplicate_iou: float = 0.95,
) -> Audit:
    """Everything that is wrong with a dataset: its files, sizes, boxes, classes and splits.

    Nothing is changed and no file is written. The findings of the reader (`dataset.source_problems`) are included.

    Args:
        dataset: What to look at.
        decode: Decode every image in full, which finds those cut short and those with equal pixels; without it only
            headers are read, and files of equal length compared.
        workers: Threads that read images; None: two more than there are CPU cores.
        files: Open the image files at all; False looks at the columns alone.
        tiny: Boxes with a side below this are listed, in pixels.
        duplicate_iou: Boxes of one image that overlap by more than this (intersection over union) are the same box.

    Raises:
        ValueError: `tiny` is negative, `duplicate_iou` is not between 0.5 and 1, or `workers` is below 1.
    """
    if tiny < 0 or not 0.5 <= duplicate_iou < 1:
        raise ValueError(
            f"tiny={tiny} must be 0 or more and duplicate_iou={duplicate_iou} from 0.5 to below 1"
        )
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be 1 or more (None chooses)")
    read = _read_files(dataset, decode, workers or _cores() + 2) if files else None
    subject = _Subject(dataset, read, tiny, duplicate_iou)
    own = [
        _finding(dataset, kind, check, hit)
        for kind, check in CHECKS.items()
        if check.find is not None
        for hit in check.find(subject)
    ]
    findings = _with_source_problems(dataset, own)
    ranks = {kind: rank for rank, kind in enumerate(CHECKS)}
    findings.sort(key=lambda f: (SEVERITIES.index(f.severity), ranks.get(f.kind, len(ranks)), f.kind))
    return Audit(dataset, tuple(findings), subject)


def repaired(dataset: Dataset, audit: Audit | None = None) -> Dataset:
    """A view of the dataset with the safe repairs applied; the files are never touched, the notes say what was done.

    Every change answers a finding that says so in `Finding.repair`:

    - images that are missing, unreadable or cut short, or whose label file is unreadable, are dropped;
    - boxes without area, with a coordinate that is not a number, outside their image, of an unknown class, and second
      copies of a box are dropped; an image that loses its last box this way to broken corners is dropped as well, for
      as an image "without objects" it would teach that what stands on it is background;
    - inverted corners are swapped, which is exact; boxes partly outside are clipped;
    - a wrong declared size is corrected where the boxes lie within the real one and were hardly drawn on the declared:
      it is larger, too small for them, or has width and height swapped (or there are no boxes); where both sizes have
      the same proportions and the boxes lie within the declared, they are scaled, as for labels of a resized copy;
      else nobody can know where the boxes belong, and the image is dropped;
    - boxes drawn on the stored pixels of an image with an EXIF orientation are turned with it;
    - class names that differ only by case or space are merged into the most frequent;
    - of exact duplicates across splits the held-out copy stays (test before val before others before train), so that
      what is held out stays held out.

    Not repaired, because only a person can tell: a box with two classes, duplicates within one split, tiny boxes.

    Args:
        dataset: What to repair.
        audit: Its audit, where there is one already; else it is made, decoding every image.

    Raises:
        ValueError: `audit` is of another dataset.
    """
    found = _audit_of(dataset, audit)
    todo = [f for f in found if f.repair]
    return _Repair(dataset, found._subject, todo).run() if todo else dataset


def require_trainable(dataset: Dataset, audit: Audit | None = None) -> Audit:
    """The dataset's audit (made where not given), provided that nothing in it is fatal.

    Raises:
        DatasetFaultError: Something is fatal; the message lists it with the one call that repairs it.
        ValueError: `audit` is of another dataset.
    """
    found = _audit_of(dataset, audit)
    fatal = found.fatal
    if fatal:
        head = f"{dataset.name!r} has {_count(len(fatal), 'finding')} with which training would crash or go wrong."
        raise DatasetFaultError("\n".join([head, *_group_lines(fatal, 5), *found._advice()]), found)
    return found


def image_header(path: str | Path) -> tuple[int, int, int]:
    """Width and height of an image as stored, in pixels, and its EXIF orientation (1 to 8), without decoding it.

    Raises:
        OSError: The file is missing or is no image.
        PIL.Image.DecompressionBombError: The image is larger than Pillow opens (about 179 million pixels).
    """
    with Image.open(path) as image:
        return _header(image)


# -- reading the files -----------------------------------------------------------------------------------------------


class _File(NamedTuple):
    width: int = 0  # as stored
    height: int = 0
    orientation: int = 1
    length: int = -1  # bytes
    problem: str = ""  # a kind
    detail: str = ""
    mode: str = ""  # Pillow's name for the kind of pixels
    pixels: bytes = b""  # hash of the decoded pixels


@dataclass(frozen=True, eq=False)
class _Files:
    """What was read from the image files, as columns over the images."""

    stored: NDArray[np.int64]  # [N, 2] width, height; 0 where unreadable
    orientations: NDArray[np.int64]
    lengths: NDArray[np.int64]
    problems: NDArray[np.object_]
    details: NDArray[np.object_]
    modes: NDArray[np.object_]
    pixels: NDArray[np.object_]
    workers: int

    @property
    def known(self) -> NDArray[np.bool_]:
        return self.stored[:, 0] > 0

    @property
    def upright(self) -> NDArray[np.int64]:
        return np.where(self.orientations[:, None] >= 5, self.stored[:, ::-1], self.stored)


def _read_files(dataset: Dataset, decode: bool, workers: int) -> _Files:
    paths = dataset.image_paths.tolist()
    what = "decoding images" if decode else "reading image headers"
    rows = _in_threads(lambda path: _read_file(path, decode), paths, workers, f"audit: {what}")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_File._fields)
    width, height, orientation, length, problem, detail, mode, pixels = columns
    return _Files(
        stored=np.stack([np.array(width, np.int64), np.array(height, np.int64)], axis=1),
        orientations=np.array(orientation, np.int64),
        lengths=np.array(length, np.int64),
        problems=np.array(problem, object),
        details=np.array(detail, object),
        modes=np.array(mode, object),
        pixels=np.array(pixels, object),
        workers=workers,
    )


def _in_threads(work: Callable[[str], _T], paths: list[str], workers: int, label: str) -> list[_T]:
    chunks = [paths[i : i + 32] for i in range(0, len(paths), 32)]
    results: list[_T] = []
    # Pillow warns about odd but harmless files, once a thread and file; filters are the process's, so they are set here
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")
        try:
            with progress_bar(total=len(paths), desc=label, unit="image", delay=2) as bar:
                for done in pool.map(lambda chunk: [work(path) for path in chunk], chunks):
                    results += done
                    bar.update(len(done))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # an interrupt must not wait for the rest
            raise
    return results


def _read_file(path: str, decode: bool) -> _File:
    try:
        length = os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return _File(problem="missing_image")
    except (OSError, ValueError) as error:
        return _File(problem="unreadable_image", detail=f"it cannot be opened: {error}")
    try:
        with Image.open(path) as image:
            width, height, orientation = _header(image)
            file = _File(width, height, orientation, length, mode=image.mode)
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return _File(
            problem="huge_image", detail=f"it has more than {limit:,} pixels, the most that Pillow opens"
        )
    except (
        Exception
    ) as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and others
        return _File(length=length, problem="unreadable_image", detail=_why_unreadable(path, error))
    if min(width, height) < 1:
        return _File(
            length=length, problem="unreadable_image", detail=f"its header says {width} x {height} pixels"
        )
    if not decode:
        return file
    try:
        with Image.open(path) as image:
            # the bytes of a palette image say little without its palette
            pixels = image.convert("RGBA") if image.mode == "P" else image
            if image.mode not in ("RGB", "L", "P"):
                image.convert("RGB")  # as training does
            key = f"{pixels.size} {pixels.mode} {orientation}".encode()
            return file._replace(pixels=hashlib.sha256(key + pixels.tobytes()).digest())
    except Exception as error:  # see above
        return file._replace(
            problem="unreadable_image", detail=f"{width} x {height} by its header, but: {error}"
        )


def _header(image: Image.Image) -> tuple[int, int, int]:
    try:
        # the base class's method: PNG's own decodes the whole image first
        orientation = int(Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block raises anything; every viewer then shows the image as stored
        orientation = 1
    orientation = orientation if 1 <= orientation <= 8 else 1
    width, height = image.size
    # Pillow gives TIFFs their upright size already, in contrast to every other format
    if image.format == "TIFF" and orientation >= 5:
        width, height = height, width
    return width, height, orientation


_BEGINNINGS = {
    b"<!doctype html": "an HTML page (a download that failed?)",
    b"<html": "an HTML page (a download that failed?)",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"version https://git-lfs": "a Git LFS pointer (`git lfs pull` fetches the image)",
    b"%pdf": "a PDF document",
    b"pk\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"{": "a JSON file",
    b"\xff\xd8\xff": "a JPEG with a damaged header",
    b"\x89png": "a PNG with a damaged header",
    b"gif8": "a GIF with a damaged header",
    b"bm": "a BMP with a damaged header",
    b"ii*\x00": "a TIFF (or a camera's raw file) that Pillow cannot read",
    b"mm\x00*": "a TIFF (or a camera's raw file) that Pillow cannot read",
    b"\x00\x00\x00\x0cjxl": "a JPEG XL image, which Pillow cannot read",
}


def _why_unreadable(path: str, error: Exception) -> str:
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as opening:
        return f"it cannot be opened: {opening.strerror or opening}"
    if not head:
        return "the file is empty"
    if not head.strip(b"\x00"):
        return "the file begins with zero bytes (a copy that was interrupted?)"
    if head[4:8] == b"ftyp":
        brand = head[8:12].decode("ascii", "replace")
        return f"it looks like a HEIC, AVIF or video file (brand {brand!r}), which Pillow cannot read: make it a JPEG"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, name in _BEGINNINGS.items():
        if start.startswith(beginning):
            return f"it looks like {name}"
    return f"it is no image that Pillow knows (it begins with {head[:8]!r}; {type(error).__name__})"


def _cores() -> int:
    # the cores this process may use, which in a container or a batch job are fewer than the machine has
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- what the checks look at -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Subject:
    """A dataset, what its files say, and columns that several checks need; each is computed once."""

    dataset: Dataset
    files: _Files | None
    tiny: float
    duplicate_iou: float

    @cached_property
    def finite(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.dataset.boxes).all(1))

    @cached_property
    def corners(self) -> NDArray[np.float64]:
        """Boxes with their corners in order; a box that is not finite lies in (0, 0, 0, 0)."""
        boxes = np.where(self.finite[:, None], self.dataset.boxes, 0).astype(np.float64)
        return np.concatenate(
            [np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1
        )

    @cached_property
    def sides(self) -> NDArray[np.float64]:
        """Width and height of `corners`, [B, 2]."""
        return self.corners[:, 2:] - self.corners[:, :2]

    @cached_property
    def solid(self) -> NDArray[np.bool_]:
        """Finite boxes that have an area once their corners are in order."""
        return self.finite & (self.sides > 0).all(1)

    @cached_property
    def box_frames(self) -> NDArray[np.float64]:
        """For each box the size of the image it was drawn on, infinite where unknown, [B, 2]."""
        return np.asarray(self.size_plan[1][self.dataset.box_images])

    @cached_property
    def outside(self) -> NDArray[np.bool_]:
        return self.solid & (_clipped_sides(self.corners, self.box_frames) <= 0).any(1)

    @cached_property
    def overhang(self) -> NDArray[np.float64]:
        """How far each box sticks out of its image on the worst side, in pixels; 0 where it lies inside, [B]."""
        over = np.concatenate([-self.corners[:, :2], self.corners[:, 2:] - self.box_frames], axis=1)
        return np.asarray(over.max(1, initial=0))

    @cached_property
    def canonical(self) -> NDArray[np.int64]:
        """Class index to the index of the most frequent class whose name differs only by case or space."""
        counts = np.array(list(self.dataset.class_counts().values()), np.int64)
        groups: dict[str, list[int]] = {}
        for index, name in enumerate(self.dataset.class_names):
            groups.setdefault(_class_key(name), []).append(index)
        table = np.arange(len(counts) + 1)
        table[-1] = UNKNOWN_CLASS  # index -1 stays -1
        for members in groups.values():
            table[members] = members[int(np.argmax(counts[members]))]
        return table

    @cached_property
    def size_plan(self) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
        """For each image what to do about its size ("" where it is right), [N], and the size its boxes were drawn on.

        The second is [N, 2], width and height in pixels, infinite where unknown.
        """
        data = self.dataset
        declared = data.image_sizes.astype(np.int64)
        has_size = np.asarray((declared > 0).all(1))
        plan = np.full(len(data), "", object)
        frame = np.where(has_size[:, None], declared, np.inf)
        if self.files is None:
            return plan, frame
        files, stored, upright, known = self.files, self.files.stored, self.files.upright, self.files.known
        reach = self._reach()
        fits_upright, fits_stored, fits_declared = (
            (reach <= size + _FITTING).all(1) for size in (upright, stored, declared)
        )
        right = (declared == upright).all(1)
        as_stored = (declared == stored).all(1)
        turns = known & (files.orientations >= 5) & (stored[:, 0] != stored[:, 1])
        # the declared size tells on which pixels the labels were drawn, unless the boxes themselves contradict it
        drawn_stored = has_size & as_stored & ~(fits_upright & ~fits_stored)
        drawn_stored |= (~has_size | right) & fits_stored & ~fits_upright
        turned = turns & drawn_stored
        wrong = known & has_size & ~right & ~turned
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = upright / declared
            resized = np.abs(scale[:, 0] / scale[:, 1] - 1) < 0.01
        # Boxes that all lie within the smaller of two sizes were hardly drawn on the larger one.
        larger, smaller = (declared >= upright).all(1), (declared <= upright).all(1)
        transposed = (declared == upright[:, ::-1]).all(1) & ~resized
        empty = data.boxes_per_image() == 0
        correct = empty | (fits_upright & (larger | transposed | ~fits_declared))
        rescale = resized & (smaller | ~fits_upright) & ~correct
        plan[wrong] = "drops the image"
        plan[wrong & rescale] = "scales the boxes"
        plan[(wrong & correct) | (known & ~has_size & ~turned)] = "corrects the size"
        plan[turned] = "turns the boxes"
        frame = np.where((plan == "corrects the size")[:, None], upright, frame)
        return plan, np.where(turned[:, None], stored, frame)

    def _reach(self) -> NDArray[np.float64]:
        """The largest x and y of each image's finite boxes, 0 where there are none, [N, 2]."""
        images = self.dataset.box_images[self.finite]
        reach = np.zeros((len(self.dataset), 2))
        if len(images):
            first = np.flatnonzero(np.diff(images, prepend=-1))
            reach[images[first]] = np.maximum.reduceat(self.corners[self.finite, 2:], first)
        return reach

    @cached_property
    def same_boxes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of boxes of one image that are the same by `duplicate_iou`: rows first < second."""
        data = self.dataset
        rows = np.flatnonzero(self.solid & ~data.box_crowd & (data.box_classes != UNKNOWN_CLASS))
        rows = rows[np.lexsort((self.corners[rows, 0], data.box_images[rows]))]
        images, corners, sides = data.box_images[rows], self.corners[rows], self.sides[rows]
        # Overlapping by more than t leaves less than 1 - t of a box's width between the two left edges, so that each
        # box meets only its next few neighbours from left to right; nobody compares all pairs of an image.
        gap = (1 - self.duplicate_iou) * sides[:, 0]
        pairs = []
        left, step = np.arange(len(rows)), 0
        while len(left):
            step += 1
            left = left[left + step < len(rows)]
            right = left + step
            near = (images[left] == images[right]) & (corners[right, 0] - corners[left, 0] <= gap[left])
            left, right = left[near], right[near]
            same = _paired_iou(corners[left], corners[right]) > self.duplicate_iou
            pairs.append(np.stack([rows[left[same]], rows[right[same]]], axis=1))
        found = np.sort(np.concatenate([np.zeros((0, 2), np.int64), *pairs]), axis=1)
        found = found[np.lexsort((found[:, 0], found[:, 1]))]
        return found[:, 0], found[:, 1]

    @cached_property
    def copies(self) -> list[tuple[int, int, str]]:
        """Exact duplicate images: (the copy, the one to keep, "bytes" or "pixels")."""
        if self.files is None:
            return []
        paths, splits = self.dataset.image_paths.tolist(), self.dataset.image_splits.tolist()
        sound = self.files.problems == ""
        by_pixels = _alike(self.files.pixels, sound & (self.files.pixels != b""))
        alike = by_pixels if (self.files.pixels != b"").any() else _alike(self.files.lengths, sound)
        suspects = [i for group in alike for i in group]
        hashes = dict(zip(suspects, self._hashes([paths[i] for i in suspects]), strict=True))
        found = []
        for group in alike:
            parts = [group] if by_pixels else _alike_by(group, hashes)
            for part in parts:
                keep = min(part, key=lambda i: (_held_out_rank(splits[i]), i))
                what = {i: "bytes" if hashes[i] == hashes[keep] else "pixels" for i in part if i != keep}
                found += [(copy, keep, same) for copy, same in what.items()]
        return sorted(found)

    def _hashes(self, paths: list[str]) -> list[str]:
        assert self.files is not None
        return _in_threads(file_hash, paths, self.files.workers, "audit: comparing files") if paths else []


def _clipped_sides(corners: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float32]:
    clipped = clip_boxes(corners, sizes)
    return clipped[:, 2:] - clipped[:, :2]


def _paired_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    extent = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    inter = extent.prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inter
    return np.asarray(inter / union)


def _alike(values: NDArray[Any], among: NDArray[np.bool_]) -> list[list[int]]:
    return _alike_by(np.flatnonzero(among).tolist(), values)


def _alike_by(members: list[int], values: Any) -> list[list[int]]:
    groups: dict[Any, list[int]] = {}
    for index in members:
        groups.setdefault(values[index], []).append(index)
    return [group for key, group in groups.items() if len(group) > 1 and key != ""]


def _held_out_rank(split: str) -> int:
    # what is held out must stay held out: the copy that training would see is the one to give up
    return {"test": 0, "val": 1, "train": 3, "": 4}.get(split, 2)


def _class_key(name: str) -> str:
    """What stays of a class name without case and space; "_" counts as a space, single letters stay themselves."""
    key = "".join(unicodedata.normalize("NFKC", name).replace("_", " ").split())
    return (
        key.casefold() if len(key) > 1 else f"{key} (as it is)"
    )  # "a" and "A" are two classes of a text reader


# -- the checks ------------------------------------------------------------------------------------------------------


def _nothing(subject: _Subject) -> Iterator[Hit]:
    data = subject.dataset
    if not len(data):
        yield Hit("the dataset holds no image")
    elif not data.num_boxes:
        yield Hit(f"{_count(len(data), 'image')}, not one box")


def _file_problem(kind: str) -> Callable[[_Subject], Iterator[Hit]]:
    def find(subject: _Subject) -> Iterator[Hit]:
        files, data = subject.files, subject.dataset
        rows = [] if files is None else np.flatnonzero(files.problems == kind).tolist()
        folders: dict[Path, dict[str, str]] = {}
        for i in rows:
            assert files is not None
            detail = files.details[i] or _missing_detail(Path(data.image_paths[i]), folders)
            yield Hit(detail, image=i)

    return find


def _missing_detail(path: Path, folders: dict[Path, dict[str, str]]) -> str:
    folder = path.parent
    if folder not in folders:
        try:
            folders[folder] = {Path(name).stem.casefold(): name for name in sorted(os.listdir(folder))}
        except OSError:
            folders[folder] = {}
    if path.is_symlink():
        return f"it is a link to {os.readlink(path)}, which does not exist"
    near = folders[folder].get(path.stem.casefold())
    if near:
        return f"there is no such file, but {near} beside it"
    return "there is no such file" if folder.is_dir() else f"there is no folder {folder}"


def _wrong_size(subject: _Subject) -> Iterator[Hit]:
    if subject.files is None:
        return
    declared, upright = subject.dataset.image_sizes, subject.files.upright
    reasons = {
        "corrects the size": "its boxes fit the real size",
        "scales the boxes": "the proportions are the same: labels of a resized copy",
        "drops the image": "its boxes tell neither which size they were drawn on nor how to carry them over",
    }
    has_size = (declared > 0).all(1)
    for i in np.flatnonzero(has_size & np.isin(subject.size_plan[0], list(reasons))).tolist():
        repair = subject.size_plan[0][i]
        sizes = f"declared {_size(declared[i])}, the image has {_size(upright[i])} pixels"
        yield Hit(f"{sizes}; {reasons[repair]}", image=i, repair=repair)


def _unknown_size(subject: _Subject) -> Iterator[Hit]:
    data = subject.dataset
    for i in np.flatnonzero((data.image_sizes <= 0).any(1)).tolist():
        if subject.files is None:
            yield Hit("no size is declared, and the files were not read", image=i)
        elif subject.files.known[i] and subject.size_plan[0][i] == "corrects the size":
            yield Hit(
                f"no size is declared; the image has {_size(subject.files.upright[i])} pixels",
                image=i,
                repair="corrects the size",
            )


def _exif(subject: _Subject) -> Iterator[Hit]:
    if subject.files is None:
        return
    data, files = subject.dataset, subject.files
    for i in np.flatnonzero(subject.size_plan[0] == "turns the boxes").tolist():
        declared = _size(data.image_sizes[i]) if (data.image_sizes[i] > 0).all() else "no size"
        yield Hit(
            f"EXIF orientation {files.orientations[i]} shows it as {_size(files.upright[i])}, the labels were drawn on "
            f"the stored {_size(files.stored[i])} (declared: {declared})",
            image=i,
        )


def _exif_undecided(subject: _Subject) -> Iterator[Hit]:
    if subject.files is None:
        return
    data, files = subject.dataset, subject.files
    square = files.stored[:, 0] == files.stored[:, 1]
    # YOLO's labels declare no size, so that nothing tells on which pixels they were drawn
    silent = (files.orientations <= 4) | square | (data.format == "yolo")
    settled = np.isin(subject.size_plan[0], ["turns the boxes", "scales the boxes", "drops the image"])
    rows = files.known & (files.orientations >= 2) & silent & ~settled & (data.boxes_per_image() > 0)
    for i in np.flatnonzero(rows).tolist():
        orientation = files.orientations[i]
        yield Hit(
            f"EXIF orientation {orientation}: the labels are taken as drawn on the upright image", image=i
        )


def _deep_pixels(subject: _Subject) -> Iterator[Hit]:
    if subject.files is not None:
        deep = [mode[:2] in ("I", "I;", "F") for mode in subject.files.modes]
        for i in np.flatnonzero(deep).tolist():
            yield Hit(f"its pixels are of Pillow's mode {subject.files.modes[i]!r}", image=i)


def _not_finite(subject: _Subject) -> Iterator[Hit]:
    yield from _box_hits(subject, ~subject.finite, lambda i: f"corners {_corners(subject, i)}")


def _no_area(subject: _Subject) -> Iterator[Hit]:
    yield from _box_hits(
        subject,
        subject.finite & ~subject.solid,
        lambda i: f"{subject.sides[i, 0]:g} x {subject.sides[i, 1]:g} pixels, corners {_corners(subject, i)}",
    )


def _inverted(subject: _Subject) -> Iterator[Hit]:
    boxes = subject.dataset.boxes
    wrong = subject.solid & (boxes[:, 2:] < boxes[:, :2]).any(1)
    many = wrong.sum() >= 10 and wrong.mean() > 0.2
    fix = "So many are inverted that the columns may hold x, y, width, height: check that before repairing."
    for hit in _box_hits(subject, wrong, lambda i: f"the second corner comes first: {_corners(subject, i)}"):
        yield hit._replace(fix=fix) if many else hit


def _outside(subject: _Subject) -> Iterator[Hit]:
    yield from _box_hits(
        subject,
        subject.outside,
        lambda i: f"corners {_corners(subject, i)} in an image of {_size(subject.box_frames[i])}",
    )


def _partly_outside(subject: _Subject) -> Iterator[Hit]:
    yield from _box_hits(
        subject,
        subject.solid & ~subject.outside & (subject.overhang > _OVERHANG),
        lambda i: (
            f"{subject.overhang[i]:.4g} pixels beyond an image of {_size(subject.box_frames[i])}, "
            f"corners {_corners(subject, i)}"
        ),
    )


def _tiny(subject: _Subject) -> Iterator[Hit]:
    yield from _box_hits(
        subject,
        subject.solid & (subject.sides < subject.tiny).any(1),
        lambda i: f"{subject.sides[i, 0]:.3g} x {subject.sides[i, 1]:.3g} pixels",
    )


def _unknown_class(subject: _Subject) -> Iterator[Hit]:
    unknown = subject.dataset.box_classes == UNKNOWN_CLASS
    yield from _box_hits(subject, unknown, lambda i: "its class is not in the class table")


def _duplicate_box(subject: _Subject) -> Iterator[Hit]:
    data = subject.dataset
    for second, first in _first_of_same(subject, same_class=True).items():
        name = data.class_names[data.box_classes[second]]
        yield Hit(
            f"the same place and class ({name}) as {data.box_ids[first]}",
            int(data.box_images[second]),
            second,
        )


def _two_classes(subject: _Subject) -> Iterator[Hit]:
    data = subject.dataset
    copies = _first_of_same(subject, same_class=True)
    for second, first in _first_of_same(subject, same_class=False).items():
        if second not in copies and first not in copies:
            one, other = (data.class_names[data.box_classes[i]] for i in (second, first))
            yield Hit(
                f"{one} here, {other} in {data.box_ids[first]}, at the same place",
                int(data.box_images[second]),
                second,
            )


def _first_of_same(subject: _Subject, *, same_class: bool) -> dict[int, int]:
    first, second = subject.same_boxes
    classes = subject.canonical[subject.dataset.box_classes]
    chosen = (classes[first] == classes[second]) == same_class
    rows, where = np.unique(
        second[chosen], return_index=True
    )  # sorted by (second, first): the earliest of each
    return dict(zip(rows.tolist(), first[chosen][where].tolist(), strict=True))


def _class_name_variant(subject: _Subject) -> Iterator[Hit]:
    names = subject.dataset.class_names
    counts = subject.dataset.class_counts()
    for keep in np.unique(subject.canonical[:-1]).tolist():
        members = np.flatnonzero(subject.canonical[:-1] == keep).tolist()
        if len(members) > 1:
            yield Hit(", ".join(f"{names[i]!r} ({_count(counts[names[i]], 'box')})" for i in members))


def _unused_class(subject: _Subject) -> Iterator[Hit]:
    for name, count in subject.dataset.class_counts().items():
        if count == 0:
            yield Hit(f"{name!r} has no box")


def _class_imbalance(subject: _Subject) -> Iterator[Hit]:
    counts = {name: count for name, count in subject.dataset.class_counts().items() if count}
    if len(counts) > 1:
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        ratio = counts[most] / counts[least]
        if ratio > _IMBALANCE:
            times = f"{ratio:,.3g}" if ratio < 100 else f"{ratio:,.0f}"
            numbers = f"{counts[most]:,} against {counts[least]:,}"
            yield Hit(f"{most!r} has {times} times as many boxes as {least!r} ({numbers})")


def _class_missing_in_split(subject: _Subject) -> Iterator[Hit]:
    data = subject.dataset
    splits = list(data.split_counts())
    if len(splits) < 2:
        return
    known = data.box_classes != UNKNOWN_CLASS
    box_splits = data.image_splits[data.box_images]
    size = len(data.class_names)
    used = {s: np.bincount(data.box_classes[known & (box_splits == s)], minlength=size) for s in splits}
    total = sum(used.values())
    for split in splits:
        for index in np.flatnonzero((used[split] == 0) & (total > 0)).tolist():
            where = ", ".join(f"{s} has {used[s][index]:,}" for s in splits if used[s][index])
            yield Hit(f"{data.class_names[index]!r} has no box in {split} ({where})")


def _small_split(subject: _Subject) -> Iterator[Hit]:
    for split, count in subject.dataset.split_counts().items():
        if count < _FEW_IMAGES:
            yield Hit(f"{split} has {_count(count, 'image')}")


def _without_split(subject: _Subject) -> Iterator[Hit]:
    if subject.dataset.split_counts():
        for i in np.flatnonzero(subject.dataset.image_splits == "").tolist():
            yield Hit("it is in no split, while others are", image=i)


def _image_without_labels(subject: _Subject) -> Iterator[Hit]:
    data = subject.dataset
    explained = {p.image for p in data.source_problems}  # an unreadable label, say
    for i in np.flatnonzero(data.boxes_per_image() == 0).tolist():
        if data.image_ids[i] not in explained:
            yield Hit("no box in it", image=i)


def _duplicate_image(subject: _Subject) -> Iterator[Hit]:
    splits = subject.dataset.image_splits
    for copy, keep, what in subject.copies:
        if splits[copy] == splits[keep]:
            yield Hit(
                f"the same {what} as {subject.dataset.image_ids[keep]}{_other_labels(subject, copy, keep)}",
                copy,
            )


def _duplicate_across_splits(subject: _Subject) -> Iterator[Hit]:
    data = subject.dataset
    for copy, keep, what in subject.copies:
        if data.image_splits[copy] != data.image_splits[keep]:
            yield Hit(
                f"in {data.image_splits[copy] or 'no split'}, the same {what} as {data.image_ids[keep]} in "
                f"{data.image_splits[keep]}{_other_labels(subject, copy, keep)}",
                copy,
            )


def _other_labels(subject: _Subject, copy: int, keep: int) -> str:
    data = subject.dataset
    a, b = data.boxes_of(copy), data.boxes_of(keep)
    if np.array_equal(data.boxes[a], data.boxes[b]) and np.array_equal(
        data.box_classes[a], data.box_classes[b]
    ):
        return ""
    return f", but labelled otherwise ({_count(a.stop - a.start, 'box')} against {b.stop - b.start})"


def _box_hits(subject: _Subject, mask: NDArray[np.bool_], message: Callable[[int], str]) -> Iterator[Hit]:
    for i in np.flatnonzero(mask).tolist():
        yield Hit(message(i), int(subject.dataset.box_images[i]), i)


def _corners(subject: _Subject, row: int) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in subject.dataset.boxes[row].tolist()) + ")"


def _size(size: Any) -> str:
    return f"{size[0]:g} x {size[1]:g}"


_DRAW_AGAIN = "Draw the box again or delete it."

CHECKS: dict[str, Check] = {
    "no_boxes": Check(
        "fatal",
        "dataset without a box",
        "There is nothing to learn from.",
        "Check the path, the format, and whether the labels lie where the format expects them.",
        find=_nothing,
    ),
    "missing_image": Check(
        "fatal",
        "image not found on disk",
        "The labels name an image file that does not exist.",
        "Put the file back or delete its labels.",
        "drops the image",
        _file_problem("missing_image"),
    ),
    "unreadable_image": Check(
        "fatal",
        "image that cannot be read",
        "The file exists, but is no image, or is damaged or cut short.",
        "Get the file anew or delete it with its labels.",
        "drops the image",
        _file_problem("unreadable_image"),
    ),
    "huge_image": Check(
        "fatal",
        "image too large to open",
        "Pillow refuses it, as a small file could unpack to more than the memory holds.",
        "Cut it into tiles or make it smaller, its labels with it.",
        "drops the image",
        _file_problem("huge_image"),
    ),
    "unreadable_label": Check(
        "fatal",
        "label that cannot be read",
        "A label file or a line of it makes no sense, so its objects are not known.",
        "Correct the file at the place named.",
    ),
    "wrong_size": Check(
        "fatal",
        "image with a wrong declared size",
        "The labels state another size than the image has, so that their boxes may lie elsewhere.",
        "Correct the size in the labels, or put the image back that was labelled.",
        find=_wrong_size,
    ),
    "exif_orientation": Check(
        "fatal",
        "image with an EXIF orientation that the labels ignore",
        "The labels were drawn on the pixels as stored, while every viewer (and training) turns the image upright.",
        "Store the image upright without the EXIF tag, or turn its boxes.",
        "turns the boxes",
        _exif,
    ),
    "not_finite": Check(
        "fatal",
        "box with a corner that is not a number",
        "One NaN or infinite corner makes the whole loss NaN.",
        _DRAW_AGAIN,
        "drops the box",
        _not_finite,
    ),
    "no_area": Check(
        "fatal",
        "box without area",
        "Width or height is zero; detectors refuse such a box or divide by its side.",
        _DRAW_AGAIN,
        "drops the box",
        _no_area,
    ),
    "inverted": Check(
        "fatal",
        "box with inverted corners",
        "The second corner lies left of or above the first; detectors refuse such a box.",
        "Swap the corners.",
        "swaps the corners",
        _inverted,
    ),
    "outside": Check(
        "fatal",
        "box outside the image",
        "No pixel of the image lies in it.",
        _DRAW_AGAIN,
        "drops the box",
        _outside,
    ),
    "unknown_class": Check(
        "fatal",
        "box of an unknown class",
        "Its class is not in the dataset's class table.",
        "Add the class to the table or correct the label.",
        "drops the box",
        _unknown_class,
    ),
    "partly_outside": Check(
        "warning",
        "box partly outside the image",
        "The part beyond the border cannot be seen.",
        "Clip the box at the border.",
        "clips the box",
        _partly_outside,
    ),
    "tiny": Check(
        "warning",
        "box of tiny size",
        "A slip of the mouse, or an object too small for any detector.",
        "Delete it if it is a slip.",
        find=_tiny,
    ),
    "duplicate_box": Check(
        "warning",
        "box drawn twice",
        "Two boxes of one class at the same place; the detector is punished for finding one object.",
        "Delete one of the two.",
        "drops the box",
        _duplicate_box,
    ),
    "two_classes": Check(
        "warning",
        "box with two classes",
        "Two boxes at the same place say different classes; one of them is wrong.",
        "Decide which class is right and delete the other box.",
        find=_two_classes,
    ),
    "class_name_variant": Check(
        "warning",
        "class spelled in several ways",
        "Names that differ only by case or space are learned as different classes.",
        "Use one spelling.",
        "merges the classes",
        _class_name_variant,
    ),
    "label_without_image": Check(
        "warning",
        "label without an image",
        "There are labels, but no image that they belong to.",
        "Put the image back or delete the label.",
    ),
    "exif_undecided": Check(
        "warning",
        "image with an EXIF orientation that the labels may ignore",
        "It is stored turned or mirrored, and nothing in the labels tells whether they were drawn on it so.",
        "Look at its boxes; if they lie wrong, store the image upright without the tag.",
        find=_exif_undecided,
    ),
    "deep_pixels": Check(
        "warning",
        "image with more than 8 bits a pixel and channel",
        "Training converts it to 8 bits by cutting off at 255, so that most of it may turn white or black.",
        "Convert it to 8 bits with the contrast you want to train on.",
        find=_deep_pixels,
    ),
    "unknown_size": Check(
        "warning",
        "image of unknown size",
        "Without a size nobody can say whether boxes lie inside.",
        "State the size in the labels.",
        find=_unknown_size,
    ),
    "duplicate_across_splits": Check(
        "warning",
        "image in two splits",
        "The same image is trained on and tested with, so that the measured accuracy is too high.",
        "Keep it in one split.",
        "drops the image",
        _duplicate_across_splits,
    ),
    "duplicate_image": Check(
        "warning",
        "image held twice",
        "The same image several times; it counts more than others.",
        "Keep one, with the better labels.",
        find=_duplicate_image,
    ),
    "class_missing_in_split": Check(
        "warning",
        "class missing in a split",
        "Without it in train it is not learned, without it elsewhere it is not measured.",
        "Deal the images anew: dataset.with_splits().",
        find=_class_missing_in_split,
    ),
    "small_split": Check(
        "warning",
        "split too small",
        f"Below {_FEW_IMAGES} images, accuracy measured on a split is mostly chance.",
        "Deal the images anew, dataset.with_splits(val=...), or label more.",
        find=_small_split,
    ),
    "without_split": Check(
        "warning",
        "image in no split",
        "It is neither trained on nor measured with.",
        "Name it in a split list, or deal the images anew: dataset.with_splits().",
        find=_without_split,
    ),
    "unused_class": Check(
        "info",
        "class without boxes",
        "It stands in the class table, but nothing is labelled with it.",
        "Remove it from the class table, or label some.",
        find=_unused_class,
    ),
    "class_imbalance": Check(
        "info",
        "class imbalance",
        f"The most frequent class has over {_IMBALANCE} times the boxes of the rarest, whose accuracy will lag.",
        "Label more of the rare ones; read the accuracy class by class.",
        find=_class_imbalance,
    ),
    "image_without_labels": Check(
        "info",
        "image without labels",
        "It is used as a negative: nothing is to be found in it.",
        "Right if there is nothing in it; else label it.",
        find=_image_without_labels,
    ),
}
"""Every kind of finding: how grave, what it is, why it matters, what to do, what `repaired()` does, what finds it."""


# -- from hits to findings -------------------------------------------------------------------------------------------


def _finding(dataset: Dataset, kind: str, check: Check, hit: Hit) -> Finding:
    return Finding(
        kind=kind,
        severity=check.severity,
        message=hit.message,
        fix=check.fix if hit.fix is None else hit.fix,
        file=dataset.image_paths[hit.image] if hit.image >= 0 else "",
        image=dataset.image_ids[hit.image] if hit.image >= 0 else "",
        box=dataset.box_ids[hit.box] if hit.box >= 0 else "",
        image_index=hit.image,
        box_index=hit.box,
        repair=check.repair if hit.repair is None else hit.repair,
    )


def _with_source_problems(dataset: Dataset, own: list[Finding]) -> list[Finding]:
    """Our findings and the reader's; where both name the same thing, ours with the reader's words (it saw the file)."""
    if not dataset.source_problems:
        return own
    places = {image_id: index for index, image_id in enumerate(dataset.image_ids.tolist())}
    ours = {(f.kind, f.image, f.box): row for row, f in enumerate(own)}
    findings = list(own)
    for problem in dataset.source_problems:
        row = ours.get((problem.kind, problem.image, problem.box))
        image = places.get(problem.image, -1)
        if row is None:
            findings.append(_source_finding(dataset, problem, image))
        else:
            findings[row] = replace(own[row], message=problem.message, fix=problem.fix, file=problem.file)
    return findings


def _source_finding(dataset: Dataset, problem: SourceProblem, image: int) -> Finding:
    box = -1
    if problem.box and image >= 0:
        rows = dataset.boxes_of(image)
        same = np.flatnonzero(dataset.box_ids[rows] == problem.box)
        box = rows.start + int(same[0]) if len(same) else -1
    severity = problem.severity if problem.severity in SEVERITIES else "warning"
    repair = ""
    if severity == "fatal":  # without its labels an image would count as empty
        whole_image = image >= 0 and not problem.box
        repair = "drops the box" if box >= 0 else "drops the image" if whole_image else "leaves it out"
    return Finding(
        kind=problem.kind,
        severity=severity,
        message=problem.message,
        fix=problem.fix,
        file=problem.file,
        image=problem.image,
        box=problem.box,
        image_index=image,
        box_index=box,
        repair=repair,
    )


def _audit_of(dataset: Dataset, given: Audit | None) -> Audit:
    if given is None:
        return audit(dataset)
    if given.dataset is not dataset and given.dataset.fingerprint() != dataset.fingerprint():
        raise ValueError(
            f"the audit is of {given.dataset.name!r} ({given.dataset.fingerprint()}), not of this {dataset.name!r} "
            f"({dataset.fingerprint()}); give it the audit of this one, or none"
        )
    return given


# -- repairing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Repair:
    dataset: Dataset
    subject: _Subject
    todo: list[Finding]

    def run(self) -> Dataset:
        data = self.dataset
        boxes, sizes = self._boxes_and_sizes()
        dropped = self._mask(data.num_boxes, "drops the box", boxes=True)
        # Clipping and scaling round to float32, where a sliver can lose its area: none may leave here
        with np.errstate(invalid="ignore"):
            slivers = ~dropped & ~(boxes[:, 2:] > boxes[:, :2]).all(1)
        gone = self._mask(len(data), "drops the image")
        slivers &= ~gone[data.box_images]
        keep = ~dropped & ~slivers
        emptied = self._emptied(keep, slivers) & ~gone
        table, names = self._classes()
        mended = data.replace(
            boxes=boxes,
            image_sizes=sizes,
            class_names=names,
            box_classes=table[data.box_classes],
            source_problems=self._problems(dropped),
            notes=(*data.notes, *self._notes(slivers, emptied)),
        )
        return mended.select_boxes(keep).select(~gone & ~emptied)

    def _boxes_and_sizes(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        data, files = self.dataset, self.subject.files
        boxes, sizes = data.boxes.copy(), data.image_sizes.copy()
        moved = np.zeros(len(data), bool)
        if files is not None:
            turned = self._mask(len(data), "turns the boxes")
            scaled = self._mask(len(data), "scales the boxes")
            resized = turned | scaled | self._mask(len(data), "corrects the size")
            for orientation in np.unique(files.orientations[turned]).tolist():
                rows = np.flatnonzero((turned & (files.orientations == orientation))[data.box_images])
                boxes[rows] = upright_boxes(boxes[rows], files.stored[data.box_images[rows]], orientation)
            rows = np.flatnonzero(scaled[data.box_images])
            factor = files.upright[data.box_images[rows]] / sizes[data.box_images[rows]]
            boxes[rows] = boxes[rows] * np.tile(factor, 2)
            sizes[resized] = files.upright[resized]
            moved = turned | scaled
        rows = np.flatnonzero(
            self._mask(len(boxes), "swaps the corners", boxes=True) | moved[data.box_images]
        )
        boxes[rows] = np.concatenate(
            [np.minimum(boxes[rows, :2], boxes[rows, 2:]), np.maximum(boxes[rows, :2], boxes[rows, 2:])],
            axis=1,
        )
        rows = np.flatnonzero(self._mask(len(boxes), "clips the box", boxes=True) | moved[data.box_images])
        limits = sizes[data.box_images[rows]].astype(np.float64)
        boxes[rows] = clip_boxes(boxes[rows], np.where(limits > 0, limits, np.inf))
        return boxes, sizes

    def _mask(self, length: int, repair: str, *, boxes: bool = False) -> NDArray[np.bool_]:
        mask = np.zeros(length, bool)
        mask[[f.box_index if boxes else f.image_index for f in self.todo if f.repair == repair]] = True
        return mask

    def _emptied(self, keep: NDArray[np.bool_], slivers: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Images left without a box although something stands on them: nobody knows where."""
        data = self.dataset
        lost = np.zeros(len(data), bool)
        where_unknown = ("no_area", "not_finite", "outside")
        for f in self.todo:
            unread = f.repair == "leaves it out" and f.image_index >= 0
            if unread or (f.repair == "drops the box" and f.kind in where_unknown):
                lost[f.image_index] = True
        lost[data.box_images[slivers]] = True
        left = np.bincount(data.box_images[keep], minlength=len(data))
        empty: NDArray[np.bool_] = lost & (left == 0)
        return empty

    def _classes(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        names = self.dataset.class_names
        if not any(f.repair == "merges the classes" for f in self.todo):
            return np.array([*range(len(names)), UNKNOWN_CLASS]), names
        canonical = self.subject.canonical
        kept = np.unique(canonical[:-1])
        table = np.searchsorted(kept, canonical)
        table[-1] = UNKNOWN_CLASS
        return table, tuple(names[i] for i in kept)

    def _problems(self, dropped: NDArray[np.bool_]) -> tuple[SourceProblem, ...]:
        data = self.dataset
        rows = np.flatnonzero(dropped)
        settled = set(zip(data.image_ids[data.box_images[rows]], data.box_ids[rows], strict=True))
        problems = data.source_problems
        return tuple(p for p in problems if p.severity != "fatal" and (p.image, p.box) not in settled)

    def _notes(self, slivers: NDArray[np.bool_], emptied: NDArray[np.bool_]) -> list[str]:
        groups: dict[tuple[str, str], list[Finding]] = {}
        for f in self.todo:
            groups.setdefault((f.kind, f.repair), []).append(f)
        notes = []
        for (kind, repair), found in groups.items():
            places = [f.message if repair == "merges the classes" else f.place for f in found]
            notes.append(f"repaired: {_title(kind, found)} {REPAIRS[repair]} ({_examples(places)})")
        if slivers.any():
            notes.append(
                f"repaired: {_count(int(slivers.sum()), 'box')} dropped that had no area left once repaired"
            )
        if emptied.any():
            places = self.dataset.image_ids[emptied].tolist()
            notes.append(
                f"repaired: {_count(len(places), 'image')} dropped that had lost every box and would have passed for "
                f"empty ({_examples(places)})"
            )
        return notes


# -- words -----------------------------------------------------------------------------------------------------------


def _grouped(findings: Iterable[Finding]) -> list[tuple[str, list[Finding]]]:
    groups: dict[tuple[str, str], list[Finding]] = {}
    for f in findings:
        groups.setdefault((f.kind, f.severity), []).append(
            f
        )  # a reader may judge its case otherwise than the table
    return [(kind, found) for (kind, _), found in groups.items()]


def _group_lines(findings: Iterable[Finding], limit: int | None) -> list[str]:
    lines = []
    for kind, found in _grouped(findings):
        meaning = CHECKS[kind].meaning if kind in CHECKS else ""
        lines += ["", f"{found[0].severity}: {_title(kind, found)} [{kind}]. {meaning}".rstrip()]
        lines += [f"    {f.place + ': ' * bool(f.place)}{f.message}" for f in found[:limit]]
        if limit is not None and len(found) > limit:
            lines.append(f"    and {len(found) - limit:,} more")
        lines.append(f"  {_remedy(found)}")
    return lines


def _remedy(found: list[Finding]) -> str:
    repairs = list(dict.fromkeys(f.repair for f in found))
    does = f" repaired() {' or '.join(filter(None, repairs))}." if any(repairs) else ""
    return f"{found[0].fix}{does}"


def _title(kind: str, found: list[Finding]) -> str:
    if kind in CHECKS:
        return _count(len(found), CHECKS[kind].title)
    return f"{len(found):,} x {kind.replace('_', ' ')}"


def _examples(places: list[str]) -> str:
    return "; ".join(places[:3]) + (f"; and {len(places) - 3:,} more" if len(places) > 3 else "")


def _count(number: int, what: str) -> str:
    """A number with its noun, the first word of `what`: "1 box without area", "2 boxes without area"."""
    head, space, rest = what.partition(" ")
    if number != 1:
        head += "es" if head.endswith(("x", "s")) else "s"
    return f"{number:,} {head}{space}{rest}"
