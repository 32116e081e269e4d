"""Reading a dataset in whatever format it is: which one, and why."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odkit.data.dataset import Dataset
from odkit.data.formats.coco import find_coco, is_coco, read_coco
from odkit.data.formats.createml import find_createml, read_createml
from odkit.data.formats.csv import find_csv, read_csv
from odkit.data.formats.cvat import find_cvat, read_cvat
from odkit.data.formats.kitti import find_kitti, read_kitti
from odkit.data.formats.labelme import find_labelme, read_labelme
from odkit.data.formats.labelstudio import find_labelstudio, read_labelstudio
from odkit.data.formats.openimages import find_openimages, read_openimages
from odkit.data.formats.reader_base import (
    DatasetFormatError,
    Folder,
    Gathered,
    json_kind,
    name_of,
    read_json,
    split_of,
    suffix,
)
from odkit.data.formats.voc import find_voc, read_voc
from odkit.data.formats.yolo import find_yolo, read_yolo, yaml_layouts
from odkit.system import InputError, MissingFileError


@dataclass(frozen=True, slots=True)
class Reader:
    """A row of `READERS`."""

    title: str
    looks_for: str
    find: Callable[[Folder], Any]  # what of this format lies in a folder; false for nothing
    read: Callable[..., Gathered]  # folder, what was found, options
    options: tuple[str, ...] = ()  # of load_dataset's, those that this reader knows


READERS: dict[str, Reader] = {
    "coco": Reader(
        "COCO",
        '.json files with "images", "annotations" and "categories" in the folder or one or two below',
        find_coco,
        read_coco,
    ),
    "voc": Reader("Pascal VOC", ".xml files with an <annotation>", find_voc, read_voc, ("first_pixel",)),
    "yolo": Reader(
        "YOLO",
        'data.yaml with "names" and "train" or "val", or .txt label files beside images or in labels/',
        find_yolo,
        read_yolo,
    ),
    "csv": Reader(
        "CSV",
        ".csv files with the columns filename, class, xmin, ymin, xmax, ymax (width and height if known), as VoTT's",
        find_csv,
        read_csv,
    ),
    "openimages": Reader(
        "Open Images",
        ".csv files with the columns ImageID, LabelName, Confidence, XMin, XMax, YMin, YMax",
        find_openimages,
        read_openimages,
    ),
    "cvat": Reader(
        "CVAT",
        ".xml files with <annotations>, as CVAT for images 1.1 writes them",
        find_cvat,
        read_cvat,
    ),
    "labelme": Reader("LabelMe", '.json files beside images with "shapes"', find_labelme, read_labelme),
    "createml": Reader(
        "CreateML",
        '.json files with a list of "image" and "annotations"',
        find_createml,
        read_createml,
    ),
    "labelstudio": Reader(
        "Label Studio",
        '.json files with a list of tasks, each with "data" and "annotations" (or JSON-MIN)',
        find_labelstudio,
        read_labelstudio,
    ),
    "kitti": Reader(
        "KITTI",
        ".txt label files of 15 columns that begin with a name, in label_2/ for image_2/ or labels/ for images/",
        find_kitti,
        read_kitti,
    ),
}
"""What `load_dataset` can read, by the name of the format."""
_OF_ONE_FILE: dict[str, tuple[str, ...]] = {
    ".json": ("coco", "createml", "labelstudio", "labelme"),
    ".yaml": ("yolo",),
    ".yml": ("yolo",),
    ".csv": ("csv", "openimages"),
    ".xml": ("cvat",),
}
"""Suffix to the formats of which one file can be the whole dataset, or a split of it."""
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_DEEPEST = 3  # so many folders down a dataset is looked for


def load_dataset(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    seed: int = 0,
    val: float = 0.2,
    first_pixel: int | None = None,
) -> Dataset:
    """A folder of labelled images as a Dataset; `dataset.notes` say what it was recognised as, and why.

    What a reader meets and cannot use (an unreadable line, a label without an image) is listed in
    `dataset.source_problems`, and so in `od.audit(dataset)`; no file is changed.

    Label files cannot lead out of the dataset: an image name that climbs out of its folder, or is absolute and lies
    elsewhere, is refused as a fatal problem ("path_outside"). What people set up themselves is followed: links that
    lie in the folder, and the folders and lists that a data.yaml names, wherever they are.

    Args:
        path: Folder; or one label file: .json (COCO, CreateML, Label Studio, LabelMe), YOLO's data.yaml, .csv, CVAT's
            .xml; or what `Dataset.save()` wrote (.npz).
        format: A key of `READERS`: "coco", "voc", "yolo", "csv", "openimages", "cvat", "labelme", "createml",
            "labelstudio" or "kitti"; None to find out.
        seed: Seed of the deal where images are dealt to splits.
        val: Share of the images that is dealt to "val" where the dataset has no such split; 0 to deal none. Dealing
            decodes every image once (see `Dataset.with_splits`), which is remembered: an audit then has less to do.
        first_pixel: For VOC: the number of an image's first pixel in the corners, 1 or 0; None to find out.

    Raises:
        FileNotFoundError: There is nothing at the path.
        DatasetFormatError: It is in no format that is known, or it could be in several.
        ValueError: An argument is out of range.
    """
    if not 0 <= val < 1:
        raise InputError(f"val={val} must be a share from 0 up to, but not, 1")
    if first_pixel not in (None, 0, 1):
        raise InputError(f"first_pixel={first_pixel} must be 0 or 1, or None to find out")
    if format is not None:
        choose(READERS, format, "read")
    path = Path(os.path.abspath(Path(path).expanduser()))
    if not path.exists():
        near = difflib.get_close_matches(path.name, listed(path.parent), n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise MissingFileError(f"there is nothing at {path}{hint}")
    if path.suffix == ".npz" and path.is_file():
        return Dataset.load(path)
    options = {"first_pixel": first_pixel}
    gathered, note = _read_file(path, format) if path.is_file() else _read_folder(path, format, options)
    if not gathered.paths:
        raise DatasetFormatError(
            f"{path} looks like {READERS[gathered.format].title}, but its labels name no image"
            + "".join(f"\n  {p.file}: {p.message}" for p in gathered.problems[:3])
        )
    gathered.notes[:0] = note
    dataset = gathered.dataset(gathered.folder.root.name or "dataset")
    return _with_val(dataset, val, seed)


def choose(table: dict[str, Any], name: str, verb: str) -> Any:
    """A row of a table of formats.

    Raises:
        DatasetFormatError: There is none; the message lists those there are and the nearest.
    """
    if name in table:
        return table[name]
    near = difflib.get_close_matches(str(name).lower(), table, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise DatasetFormatError(
        f"odkit cannot {verb} the format {name!r}; it can {verb} {', '.join(table)}{hint}"
    )


# -- which format ----------------------------------------------------------------------------------------------------


def _read_file(path: Path, format: str | None) -> tuple[Gathered, list[str]]:  # noqa: A002
    end = path.suffix.lower()
    if end in _ARCHIVES:
        raise DatasetFormatError(f"{path} is an archive: unpack it and give the folder")
    kinds = [kind for kind in _OF_ONE_FILE.get(end, ()) if format in (None, kind)]
    if not kinds:
        formats = "; ".join(
            f"{end} ({', '.join(READERS[kind].title for kind in kinds)})"
            for end, kinds in _OF_ONE_FILE.items()
        )
        raise DatasetFormatError(
            f"{path} is one file, of which {'these' if format is None else 'for ' + format + ' none'} are read: "
            f"{formats}; give the dataset's folder"
        )
    folder = _folder_of_file(path)
    file = path.relative_to(folder.root).as_posix()
    if end == ".json" and json_kind(path) in kinds:
        kinds = [json_kind(path)]
    if kinds[0] == "coco":
        content = read_json(path)
        if not is_coco(content):
            raise DatasetFormatError(f'{path} is no COCO file: it has no "images" with "annotations"')
        return _of_one_file(read_coco(folder, {file: content})), []
    if kinds[0] == "yolo":
        layout = find_yolo(folder, file)
        assert layout is not None  # else an error was raised
        return read_yolo(folder, layout), []
    for kind in kinds:
        found = READERS[kind].find(folder) or []
        if file in found:
            own = {file: found[file]} if isinstance(found, dict) else [file]
            return _of_one_file(READERS[kind].read(folder, own)), []
    wanted = " or ".join(f"{READERS[kind].title}: {READERS[kind].looks_for}" for kind in kinds)
    raise DatasetFormatError(
        f"{path} is not what odkit reads from such a file ({wanted}); give the dataset's folder"
    )


def _of_one_file(gathered: Gathered) -> Gathered:
    """Without the images that this file does not name, if there are others beside it that may."""
    if any(gathered.splits):
        gathered.forget("image_without_labels")
    return gathered


def _folder_of_file(path: Path) -> Folder:
    """The folder of the dataset that a label file belongs to: its own, or the one above if the images are there."""
    if re.fullmatch(r"annotations?|labels?|json", path.parent.name.lower()):
        return Folder(path.parent.parent)
    own = Folder(path.parent)
    return own if own.images or path.suffix.lower() in (".yaml", ".yml") else Folder(path.parent.parent)


def _read_folder(
    path: Path,
    format: str | None,  # noqa: A002
    options: dict[str, Any],
) -> tuple[Gathered, list[str]]:
    folder = _past_lone_folders(Folder(path))
    notes = [] if folder.root == path else [f"read from {folder.root}, as nothing else is in {path}"]
    found = _fitting(folder, format)
    if format is None and found and not _is_told(found.get("yolo")):
        elsewhere = [place for place in yaml_layouts(folder) if not _holds_all(place, found)]
        if elsewhere:
            raise DatasetFormatError(_several([str(folder.path(place)) for place in ["", *elsewhere]]))
    if not found:
        deeper = _deeper(folder, format)
        if len(deeper) != 1:
            raise DatasetFormatError(_what_was_seen(folder, format, [place for place, _ in deeper]))
        folder, found = deeper[0]
        notes = [f"read from {folder.root}, the one folder in {path} that is a dataset"]
    if len(found) > 1 and "yolo" in found and not _is_told(found["yolo"]):
        del found["yolo"]  # text files beside images say less than files that name their format
    if len(found) > 1:
        raise DatasetFormatError(
            f"{folder.root} could be {' or '.join(READERS[kind].title for kind in found)}: "
            + "; ".join(f"{READERS[kind].title}: {shown_path(_files(what))}" for kind, what in found.items())
            + f'. Say which: load_dataset("{folder.root}", format="{next(iter(found))}")'
        )
    ((kind, what),) = found.items()
    reader = READERS[kind]
    return reader.read(folder, what, **{key: options[key] for key in reader.options}), notes


def _past_lone_folders(folder: Folder) -> Folder:
    """The folder, or the one below that holds all it holds (as in VOCdevkit/VOC2007); a split's name is kept."""
    for _ in range(_DEEPEST):
        tops = {file.partition("/")[0] for file in folder.files}
        only = min(tops, default="")
        if len(tops) != 1 or only in folder.files or split_of(only):
            break
        folder = Folder(folder.root / only)
    return folder


def _holds_all(place: str, found: dict[str, Any]) -> bool:
    """Whether everything that was found lies in one folder."""
    files = [file for what in found.values() for file in _files(what)]
    return all(file.startswith(f"{place}/") for file in files)


def _fitting(folder: Folder, format: str | None) -> dict[str, Any]:  # noqa: A002
    kinds = READERS if format is None else {format: READERS[format]}
    return {kind: found for kind, reader in kinds.items() if (found := reader.find(folder))}


def _deeper(folder: Folder, format: str | None) -> list[tuple[Folder, dict[str, Any]]]:  # noqa: A002
    """The topmost folders further down that are datasets."""
    fitting: list[tuple[Folder, dict[str, Any]]] = []
    level = [""]
    below = sorted({"/".join(file.split("/")[:depth]) for file in folder.files for depth in range(1, _DEEPEST + 1)
                    if file.count("/") >= depth})  # fmt: skip
    for depth in range(1, _DEEPEST + 1):
        level = [place for place in below if place.count("/") == depth - 1]
        for place in level:
            here = Folder(folder.root / place)
            if found := _fitting(here, format):
                fitting.append((here, found))
        if fitting:
            break
    return fitting


def _is_told(layout: Any) -> bool:
    return layout is not None and str(layout.file).endswith((".yaml", ".yml"))


def _files(found: Any) -> list[str]:
    return list(found) if isinstance(found, dict | list) else [found.file or ".txt label files"]


def shown_path(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _several(places: list[str]) -> str:
    return f"there are several datasets: {shown_path(places, 5)}. Load one, or join them with od.concatenate"


def _what_was_seen(folder: Folder, format: str | None, several: list[Folder]) -> str:  # noqa: A002
    if several:
        return _several([str(place.root) for place in several])
    kinds = READERS if format is None else {format: READERS[format]}
    lines = [
        f"{folder.root} is no dataset that odkit can read{'' if format is None else ' as ' + format}. Looked for:"
    ]
    lines += [f"  {reader.title}: {reader.looks_for}" for reader in kinds.values()]
    counts = Counter(suffix(file) or "no suffix" for file in folder.files)
    seen = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common(8)) or "no file at all"
    lines.append(f"There is: {seen}")
    archives = [file for file in folder.files if suffix(file) in _ARCHIVES]
    if archives:
        lines.append(f"Unpack the archive first: {shown_path(map(name_of, archives))}")
    elif folder.images and len(folder.images) == len(folder.files):
        lines.append("These are images without labels; label them, or copy the labels here too.")
    return "\n".join(lines)


# -- splits ----------------------------------------------------------------------------------------------------------


def _with_val(dataset: Dataset, val: float, seed: int) -> Dataset:
    """The dataset with a "val" split: its own, or dealt from all images or from those of "train"."""
    counts = dataset.split_counts()
    if val == 0 or "val" in counts or (counts and "train" not in counts):
        return dataset
    rows = np.flatnonzero(dataset.image_splits == "train") if counts else np.arange(len(dataset))
    try:
        dealt = dataset.select(rows).with_splits(val, seed=seed)
    except ValueError as error:
        return dataset.replace(notes=(*dataset.notes, f"no val split: {error}"))
    splits = dataset.image_splits.copy()
    splits[rows] = dealt.image_splits
    why = "there is no val split, so it was taken from train: " if counts else "the dataset has no splits: "
    return dataset.replace(image_splits=splits, notes=(*dataset.notes, why + dealt.notes[-1]))
