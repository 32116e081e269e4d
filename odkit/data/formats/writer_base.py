"""What every writer of a label format stands on: file names in the new folder, and the images put there."""

import errno
import hashlib
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from odkit.data.dataset import UNKNOWN_CLASS, Dataset, SourceProblem
from odkit.data.formats.reader_base import encodable, name_of, problem_count, suffix
from odkit.data.image_facts import header_sizes
from odkit.data.images import read_header
from odkit.system import InputError, counted, open_file

_SHOWN = 3
"""Of each kind of lost labels, so many are told of one by one."""
_STRAY = ("label_without_image", "text_labels_left_out")
_LOST = {
    "unreadable_label": "label that cannot be read",
    "path_outside": "label of an image outside the folder",
    "label_without_image": "label without an image",
    "text_labels_left_out": "label file beside the images",
    "missing_split": "split without images",
    "unreadable_folder": "folder that cannot be looked into",
    "duplicate_image_id": "image with the id of another",
}
"""What is lost with a problem that a reader met, by its kind."""


def kept_ids(dataset: Dataset) -> list[str]:
    """A path for each image that is its id wherever that is a path below a folder, made to differ where not."""
    return distinct([image_id if _is_plain(image_id) else _plain_name(image_id) for image_id in ids(dataset)])


def flat_names(dataset: Dataset, place: Callable[[str], str]) -> list[str]:
    """A path for each image: its file name in the folder that `place` gives its split; stems differ in each folder."""
    names = [
        f"{place(split)}/{_plain_name(image_id)}"
        for image_id, split in zip(ids(dataset), dataset.image_splits.tolist(), strict=True)
    ]
    return distinct(names, by_stem=True)


def ids(dataset: Dataset) -> list[str]:
    return [str(image_id) for image_id in dataset.image_ids]


def _is_plain(image_id: str) -> bool:
    parts = image_id.split("/")
    odd = any(part in ("", "..") or part.startswith(".") for part in parts)
    odd = (
        odd or len(image_id.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST for part in parts)
    )
    return not odd and not re.search(r"[\\\0]|^[A-Za-z]:", image_id) and parts[0].lower() != "annotations"


def _plain_name(image_id: str) -> str:
    name = _NO_NAME.sub("_", name_of(image_id.replace("\\", "/"))).lstrip(".")
    if len(name.encode()) > _LONGEST:
        end = suffix(name) if len(suffix(name)) < 10 else ""
        kept = name.encode()[: _LONGEST // 2].decode("utf-8", "ignore")
        name = f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:12]}{end}"
    return name or "image.jpg"


_NO_NAME = re.compile(
    r"[\0-\x1f\x7f\x85\u2028\u2029]"
)  # characters that would break a line of a list of names
_LONGEST = (
    240  # bytes of a file name, of which most file systems take 255: a number or another suffix may join it
)
_LONGEST_PATH = 1000


def distinct(paths: Sequence[str], *, by_stem: bool = False) -> list[str]:
    """The same paths, those that stand twice with a number added.

    Letter case makes no difference, nor whether an accent is a character of its own: to some file systems neither does.
    """

    def key(path: str) -> str:
        path = os.path.splitext(path)[0] if by_stem else path
        return path.casefold() if path.isascii() else unicodedata.normalize("NFC", path).casefold()

    taken: set[str] = set()
    wanted = {key(path) for path in paths}
    last: dict[str, int] = {}  # of each name that stands twice, the number given last
    result = []
    for path in paths:
        start, end = os.path.splitext(path)
        first = key(path)
        number = last.get(first, 1)
        while key(path) in taken or (number > 1 and key(path) in wanted):
            number += 1
            path = f"{start}_{number}{end}"
        last[first] = number
        taken.add(key(path))
        result.append(path)
    return result


def safe_name(split: str) -> str:
    """A split's name as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", split).strip("._") or "split"


def split_files(dataset: Dataset, unsplit: str) -> dict[str, str]:
    """Each split that has images to a file name of its own, without suffix; `unsplit` for images in none."""
    splits = [*dataset.split_counts(), *([""] if (dataset.image_splits == "").any() else [])]
    names = distinct([safe_name(split) if split else unsplit for split in splits])
    return dict(zip(splits, names, strict=True))


def put_images(dataset: Dataset, folder: Path, files: Sequence[str], how: str) -> tuple[list[str], list[str]]:
    """Copy or link each image to its place below a folder; in words which could not be, and what else is to be told."""
    if how == "none":
        return [], []
    for place in {os.path.dirname(file) for file in files}:
        (folder / place).mkdir(parents=True, exist_ok=True)
    paths = dataset.image_paths.tolist()
    put = _link if how == "link" else _copy
    leads_out = _leads_out(dataset.root, {os.path.dirname(path) for path in paths})
    with ThreadPoolExecutor(4) as pool:
        became = list(pool.map(lambda path, file: put(path, folder / file, leads_out(path)), paths, files))
    first = {what: row for row, what in reversed(list(enumerate(became)))}
    number = Counter(became)

    def told(what: str) -> str:
        are = "is" if number[what] == 1 else "are"
        return f"{counted(number[what], 'image')} {are} {what}: {_shown(paths[first[what]])}"

    return [told(what) for what in _NOT_PUT if number[what]], [
        told(what) for what in _WITH_A_WORD if number[what]
    ]


_MISSING = "missing, so that labels stand alone"
_NO_FILE = "no file that can be copied (a pipe, a device), so that labels stand alone"
_CLOSED = "not readable, so that labels stand alone"
_FOREIGN = "no picture but a link out of the folder, and not copied, so that labels stand alone"
_NOT_PUT = (_MISSING, _NO_FILE, _CLOSED, _FOREIGN)
_OUTSIDE = "reached by a link out of the folder, and copied from there"
_DAMAGED = "no picture that can be read, and copied as it is"
_WITH_A_WORD = (_OUTSIDE, _DAMAGED)
"""What becomes of an image, in words that follow "is" or "are"; where it is copied without a word: ""."""


def _copy(source: str, target: Path, leads_out: bool) -> str:
    try:
        open_file(source).close()  # a pipe would be waited for, a device copied for ever
    except InputError:
        return _NO_FILE
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
        return _MISSING  # and stays so: the audit of the new folder lists it too
    except OSError as error:
        return _MISSING if error.errno == errno.ENAMETOOLONG else _CLOSED
    try:
        read_header(source)
    except Exception:  # Pillow's readers raise anything
        damaged = True
    else:
        damaged = False
    if leads_out and damaged:
        return _FOREIGN  # /etc/passwd, say: what an unpacked archive links to is not to be had by it
    shutil.copy2(source, target)
    return _OUTSIDE if leads_out else _DAMAGED if damaged else ""


def _link(source: str, target: Path, leads_out: bool) -> str:
    if not os.path.isfile(source):
        return _NO_FILE if os.path.exists(source) and not os.path.isdir(source) else _MISSING
    target.symlink_to(os.path.realpath(source))
    return ""


def _leads_out(root: Path, folders: set[str]) -> Callable[[str], bool]:
    """What says of a path below the folder `root` whether links lead out of that; `folders`: where all images lie."""
    inside = f"{root}{os.sep}"
    real = f"{os.path.realpath(root)}{os.sep}"
    out = {folder for folder in folders if not f"{os.path.realpath(folder)}{os.sep}".startswith(real)}

    def leads_out(path: str) -> bool:
        if not path.startswith(inside):
            return False  # a list of images that lie elsewhere says so itself
        if os.path.islink(path):
            return not os.path.realpath(path).startswith(real)
        return os.path.dirname(path) in out

    return leads_out


def _shown(path: str) -> str:
    text = encodable(path + (f" -> {os.path.realpath(path)}" if os.path.islink(path) else ""))
    return text if len(text) <= 240 else f"{text[:120]}...{text[-100:]}"


def writable_boxes(dataset: Dataset) -> tuple[NDArray[np.bool_], list[str]]:
    """Which boxes can be written, and in words what is lost with the others."""
    finite = np.all(np.isfinite(dataset.boxes), axis=1)
    known = dataset.box_classes != UNKNOWN_CLASS
    lost = []
    for what, rows in (("of an unknown class", ~known), ("without four finite numbers", known & ~finite)):
        if rows.any():
            first = int(np.flatnonzero(rows)[0])
            where = f"{dataset.image_ids[dataset.box_images[first]]}, {dataset.box_ids[first]}"
            lost.append(f"{counted(int(rows.sum()), 'box')} {what}: {where}")
    return finite & known, lost


def unread_labels(dataset: Dataset) -> tuple[NDArray[np.bool_], list[str]]:
    """The images of which labels are lost as no reader could read them, [N]; and in words which labels those are."""
    images = np.zeros(len(dataset), bool)
    lost: dict[str, list[SourceProblem]] = {}
    there = set(dataset.image_ids) if dataset.source_problems else set()
    for problem in dataset.source_problems:
        # a label without an image is kept where a row of the dataset stands for the missing image
        stray = problem.kind in _STRAY and problem.severity == "warning" and problem.image not in there
        if stray or (problem.severity == "fatal" and problem.kind != "unknown_class"):
            lost.setdefault(problem.kind, []).append(problem)
    told = []
    for kind, problems in lost.items():
        number = counted(sum(map(problem_count, problems)), _LOST.get(kind, "label"))
        shown = [
            f"{_relative(problem.file, dataset.root)}: {problem.message}" for problem in problems[:_SHOWN]
        ]
        told.append("; ".join([number + ": " + shown[0], *shown[1:]]))
        concerned = {problem.image for problem in problems} & there
        images |= np.array([image in concerned for image in dataset.image_ids], bool) if concerned else False
    return images, told


def _relative(file: str, root: Path) -> str:
    return os.path.relpath(file, root) if file.startswith(f"{root}{os.sep}") else file


def lost_crowds(dataset: Dataset, title: str) -> list[str]:
    count = int(dataset.box_crowd.sum())
    return [f"{title} has no crowds: {count:,} boxes become plain ones"] if count else []


def known_sizes(dataset: Dataset) -> NDArray[np.int32]:
    """The declared sizes, those that are unknown from the headers; int32 [N, 2]."""
    sizes = dataset.image_sizes.copy()
    rows = np.flatnonzero((sizes <= 0).any(1))
    if len(rows):
        sizes[rows] = header_sizes(dataset.image_paths[rows].tolist())
    return sizes


def stem_path(file: str, end: str) -> str:
    """A path with another suffix."""
    return file[: len(file) - len(suffix(file))] + end


def xml_class_names(dataset: Dataset) -> tuple[list[str], list[str]]:
    """The class names as XML can hold them, and in words what is lost."""
    names = [xml_text(name) for name in dataset.class_names]
    changed = [repr(old) for old, new in zip(dataset.class_names, names, strict=True) if old != new]
    if not changed:
        return names, []
    return names, [f"XML cannot hold the class names {', '.join(changed)}; their odd characters are replaced"]


def xml_text(text: str) -> str:
    """Text without the characters that XML cannot hold, and without line breaks, which it does not keep."""
    return re.sub(
        r"[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", re.sub(r"[\t\r\n]", " ", text)
    )
