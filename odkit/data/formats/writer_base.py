"""What every writer of a label format stands on: file names in the new folder, and the images put there."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from odkit.data.dataset import UNKNOWN_CLASS, Dataset, SourceProblem
from odkit.data.formats.reader_base import name_of, problem_count, suffix
from odkit.data.image_facts import header_sizes
from odkit.system import counted

_SHOWN = 3
"""Of each kind of lost labels, so many are told of one by one."""
_STRAY = ("label_without_image", "text_labels_left_out")
_LOST = {
    "unreadable_label": "label that cannot be read",
    "path_outside": "label of an image outside the folder",
    "label_without_image": "label without an image",
    "text_labels_left_out": "label file beside the images",
    "missing_split": "split that is not there",
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
    return not odd and not re.search(r"[\\\0]|^[A-Za-z]:", image_id) and parts[0].lower() != "annotations"


def _plain_name(image_id: str) -> str:
    name = re.sub(r"[\0-\x1f]", "_", name_of(image_id.replace("\\", "/"))).lstrip(".")
    return name or "image.jpg"


def distinct(paths: Sequence[str], *, by_stem: bool = False) -> list[str]:
    """The same paths, those that stand twice with a number added; letter case does not make a difference."""

    def key(path: str) -> str:
        return (os.path.splitext(path)[0] if by_stem else path).casefold()

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


def put_images(dataset: Dataset, folder: Path, files: Sequence[str], how: str) -> int:
    """Copy or link each image to its place below a folder; the number of those that could not be."""
    if how == "none":
        return 0
    for place in {os.path.dirname(file) for file in files}:
        (folder / place).mkdir(parents=True, exist_ok=True)
    targets = [folder / file for file in files]
    put = _link if how == "link" else _copy
    with ThreadPoolExecutor(4) as pool:
        return len(files) - sum(pool.map(put, dataset.image_paths.tolist(), targets, chunksize=32))


def _copy(source: str, target: Path) -> bool:
    try:
        shutil.copy2(source, target)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
        return False  # a missing image stays one: the audit of the new folder lists it too
    return True


def _link(source: str, target: Path) -> bool:
    if not os.path.isfile(source):
        return False
    target.symlink_to(os.path.realpath(source))
    return True


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
