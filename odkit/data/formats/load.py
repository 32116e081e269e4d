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
from odkit.data.formats.agreement import Agreement, Labels, compare
from odkit.data.formats.coco import find_coco, read_coco
from odkit.data.formats.createml import find_createml, read_createml
from odkit.data.formats.csv import find_csv, read_csv
from odkit.data.formats.cvat import find_cvat, read_cvat
from odkit.data.formats.kitti import find_kitti, read_kitti
from odkit.data.formats.label_map import order_by_label_map
from odkit.data.formats.labelme import find_labelme, read_labelme
from odkit.data.formats.labelstudio import find_labelstudio, read_labelstudio
from odkit.data.formats.names import TITLES
from odkit.data.formats.openimages import find_openimages, read_openimages
from odkit.data.formats.reader_base import (
    DatasetFormatError,
    Folder,
    Gathered,
    name_of,
    no_garbage_collection,
    split_of,
    suffix,
)
from odkit.data.formats.tfrecord import find_tfrecord, is_record_file, read_tfrecord
from odkit.data.formats.voc import find_voc, read_voc
from odkit.data.formats.yolo import find_yolo, read_yolo, yaml_layouts
from odkit.system import InputError, MissingFileError, counted


@dataclass(frozen=True, slots=True)
class Reader:
    """A row of `READERS`."""

    title: str
    looks_for: str
    find: Callable[[Folder], Any]  # what of this format lies in a folder; false for nothing
    read: Callable[..., Gathered]  # folder, what was found, options
    options: tuple[str, ...] = ()  # of load_dataset's, those that this reader knows
    richness: int = 2  # of two formats that say the same boxes, the one that holds more beside them is read
    alone: tuple[str, ...] = (
        ".json",
        ".xml",
        ".csv",
    )  # suffixes of label files that may be given without a folder


READERS: dict[str, Reader] = {
    "coco": Reader(
        TITLES["coco"],
        '.json files with "images", "annotations" and "categories" in the folder or one or two below',
        find_coco,
        read_coco,
        alone=(".json",),
        richness=4,  # crowds, ids, sizes, and a class table with an order and with classes that have no box
    ),
    "voc": Reader(
        TITLES["voc"],
        ".xml files with an <annotation>",
        find_voc,
        read_voc,
        ("first_pixel",),
        richness=3,  # sizes, difficult objects, images without objects, splits
        alone=(),
    ),
    "yolo": Reader(
        TITLES["yolo"],
        'data.yaml with "names" and "train" or "val", or .txt label files beside images or in labels/',
        find_yolo,
        read_yolo,
        richness=1,  # a class table with an order, and splits; neither sizes nor whole pixels
        alone=(".yaml", ".yml"),
    ),
    "csv": Reader(
        TITLES["csv"],
        ".csv files with the columns filename, class, xmin, ymin, xmax, ymax (width and height if known), as VoTT's",
        find_csv,
        read_csv,
        richness=0,  # a copy of the boxes, often made by a script from one of the others
        alone=(".csv",),
    ),
    "openimages": Reader(
        TITLES["openimages"],
        ".csv files with the columns ImageID, LabelName, Confidence, XMin, XMax, YMin, YMax",
        find_openimages,
        read_openimages,
        richness=2,  # groups as crowds, images without objects; no sizes
        alone=(".csv",),
    ),
    "cvat": Reader(
        TITLES["cvat"],
        ".xml files with <annotations>, as CVAT for images 1.1 writes them",
        find_cvat,
        read_cvat,
        richness=3,  # sizes, splits, and a class table with an order
        alone=(".xml",),
    ),
    "labelme": Reader(
        TITLES["labelme"],
        '.json files beside images with "shapes"',
        find_labelme,
        read_labelme,
        richness=2,  # sizes, as a person drew the boxes
        alone=(".json",),
    ),
    "createml": Reader(
        TITLES["createml"],
        '.json files with a list of "image" and "annotations"',
        find_createml,
        read_createml,
        richness=1,  # neither sizes nor a class table
        alone=(".json",),
    ),
    "labelstudio": Reader(
        TITLES["labelstudio"],
        '.json files with a list of tasks, each with "data" and "annotations" (or JSON-MIN)',
        find_labelstudio,
        read_labelstudio,
        richness=2,  # sizes, as a person drew the boxes
        alone=(".json",),
    ),
    "kitti": Reader(
        TITLES["kitti"],
        ".txt label files of 15 columns that begin with a name, in label_2/ for image_2/ or labels/ for images/",
        find_kitti,
        read_kitti,
        richness=1,  # no sizes
        alone=(),
    ),
    "tfrecord": Reader(
        TITLES["tfrecord"],
        ".record or .tfrecord files of TensorFlow's Object Detection API (and shards: train.record-00000-of-00010)",
        find_tfrecord,
        read_tfrecord,
        richness=1,  # made by a script from one of the others; it holds crowds and numbers of classes
        alone=(),
    ),
}
"""What `load_dataset` can read, by the name of the format."""
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
            .xml, .tfrecord; or what `Dataset.save()` wrote (.npz).
        format: Name of a format, a key of `READERS` ("coco", "voc", "yolo", "csv", ...); None to find out. Where
            several in a folder say the same boxes, the one that holds most beside them is read.
        seed: Seed of the deal where images are dealt to splits.
        val: Share of the images that is dealt to "val" where the dataset has no such split; 0 to deal none. Dealing
            decodes every image once (see `Dataset.with_splits`), which is remembered: an audit then has less to do.
        first_pixel: For VOC: the number of an image's first pixel in the corners, 1 or 0; None to find out.

    Raises:
        FileNotFoundError: There is nothing at the path.
        DatasetFormatError: It is in no format that is known, or in several that do not say the same; the message says
            how they differ.
        ValueError: An argument is out of range.
    """
    if not 0 <= val < 1:
        raise InputError(f"val={val} must be a share from 0 up to, but not, 1")
    if first_pixel not in (None, 0, 1):
        raise InputError(f"first_pixel={first_pixel} must be 0 or 1, or None to find out")
    if format is not None:
        choose(READERS, format, "read")
    path = Path(os.path.abspath(os.path.expanduser(path)))
    if not path.exists():
        near = difflib.get_close_matches(path.name, listed(path.parent), n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise MissingFileError(f"there is nothing at {path}{hint}")
    if path.suffix == ".npz" and path.is_file():
        return Dataset.load(path)
    options = {"first_pixel": first_pixel}
    read = _read_file if path.is_file() else _read_folder
    with no_garbage_collection():
        gathered, note = read(path, format, options)
    if not gathered.paths:
        raise DatasetFormatError(
            f"{path} looks like {READERS[gathered.format].title}, but its labels name no image"
            + "".join(f"\n  {p.file}: {p.message}" for p in gathered.problems[:3])
            + "".join(f"\n  {note}" for note in gathered.notes)
        )
    gathered.notes[:0] = note
    order_by_label_map(gathered)
    _say_unlabelled(gathered)
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


def _read_file(
    path: Path,
    format: str | None,  # noqa: A002
    options: dict[str, Any],
) -> tuple[Gathered, list[str]]:
    if is_record_file(path) and format in (None, "tfrecord"):  # shards end with numbers
        return read_tfrecord(Folder(path.parent), [path.name]), []
    end = path.suffix.lower()
    if end in _ARCHIVES:
        raise DatasetFormatError(f"{path} is an archive: unpack it and give the folder")
    kinds = [kind for kind, reader in READERS.items() if end in reader.alone and format in (None, kind)]
    if not kinds:
        suffixes = sorted({end for reader in READERS.values() for end in reader.alone})
        raise DatasetFormatError(
            f"{path} is one file, of which only {', '.join(suffixes)} are read"
            f"{'' if format is None else f' ({format}: ' + (', '.join(READERS[format].alone) or 'none') + ')'}; "
            "give the dataset's folder"
        )
    folder = _folder_of_file(path)
    file = path.relative_to(folder.root).as_posix()
    if kinds == ["yolo"]:
        layout = find_yolo(folder, file)
        assert layout is not None  # else an error was raised
        return read_yolo(folder, layout), []
    narrow = folder.only(file)
    found = {kind: what for kind in kinds if (what := READERS[kind].find(narrow))}
    if not found:
        lines = "".join(f"\n  {READERS[kind].title}: {READERS[kind].looks_for}" for kind in kinds)
        raise DatasetFormatError(f"{path} is no label file that odkit can read. Looked for:{lines}")
    gathered, notes = _settled(narrow, found, options)
    return _of_one_file(gathered), notes


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
    gathered, more = _settled(folder, found, options)
    return gathered, [*notes, *more]


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
    """What of each format lies in a folder.

    Raises:
        DatasetFormatError: Something does that cannot be read, so that its labels would be lost unseen.
    """
    found: dict[str, Any] = {}
    broken: list[DatasetFormatError] = []
    for kind, reader in READERS.items():
        if format in (None, kind):
            try:
                if what := reader.find(folder):
                    found[kind] = what
            except DatasetFormatError as error:
                broken.append(error)
    if broken and found:
        titles = " and ".join(READERS[kind].title for kind in found)
        how = f'load_dataset("{folder.root}", format="{next(iter(found))}") or --format {next(iter(found))}'
        raise DatasetFormatError(f"{broken[0]}\n{titles} is there too: {how} reads that alone") from broken[0]
    if broken:
        raise broken[0]
    return found


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
        lines.append(
            "These are images without labels. Copy the labels here too, or draw them in the App: browser = "
            f'od.browse(od.images_dataset("{folder.root}", ["a class", "another"])), then '
            'od.write_dataset(browser.edits(), "my-labels")'
        )
    return "\n".join(lines)


# -- several formats in one folder -----------------------------------------------------------------------------------


def _settled(folder: Folder, found: dict[str, Any], options: dict[str, Any]) -> tuple[Gathered, list[str]]:
    """What the one format says, or of several that say the same the richest; and what is to be said of the choice.

    Raises:
        DatasetFormatError: Several do not say the same.
    """
    if len(found) == 1:
        ((kind, what),) = found.items()
        return _read(folder, kind, what, options), []
    # Text files beside images name no format: they never stand against one that does
    weak = found.pop("yolo") if "yolo" in found and not _is_told(found["yolo"]) else None
    read, notes = _worth_comparing(folder, found, options)
    best, *others = sorted(
        read,
        key=lambda kind: (not read[kind].named_classes, -READERS[kind].richness, list(READERS).index(kind)),
    )
    chosen = read[best]
    mine = Labels(READERS[best].title, chosen)
    compared = {kind: compare(mine, Labels(READERS[kind].title, read[kind])) for kind in others}
    differing = [one for one in compared.values() if not one.same]
    if differing:
        raise DatasetFormatError(
            _how_they_differ(folder, differing, {kind: found[kind] for kind in read}, read)
        )
    for kind, agreement in compared.items():
        notes.append(_same_boxes(agreement, kind))
        notes += _take_splits(chosen, agreement)
    if weak is not None:
        notes += _beside(mine, chosen, weak)
    return chosen, notes


def _read(folder: Folder, kind: str, what: Any, options: dict[str, Any]) -> Gathered:
    reader = READERS[kind]
    return reader.read(folder, what, **{key: options[key] for key in reader.options})


def _worth_comparing(
    folder: Folder, found: dict[str, Any], options: dict[str, Any]
) -> tuple[dict[str, Gathered], list[str]]:
    """What each format says, but for those that cannot be read or say nothing; and which those are."""
    read: dict[str, Gathered] = {}
    aside: dict[str, str] = {}
    errors: list[DatasetFormatError] = []
    for kind, what in found.items():
        try:
            read[kind] = _read(folder, kind, what, options)
        except DatasetFormatError as error:  # a data.yaml that leads nowhere, say
            errors.append(error)
            aside[kind] = str(error)
    if not read:
        raise errors[0]
    if any(gathered.num_boxes for gathered in read.values()):
        for kind in [kind for kind, gathered in read.items() if not gathered.num_boxes]:
            aside[kind] = _without_boxes(read.pop(kind))
    return read, [f"{READERS[kind].title} is left aside: {why}" for kind, why in aside.items()]


def _without_boxes(gathered: Gathered) -> str:
    images = counted(len(gathered.paths), "image")
    text = f"it holds no box in {images}" if gathered.paths else "it holds no image"
    fatal = next((problem for problem in gathered.problems if problem.severity == "fatal"), None)
    return f"{text}; {fatal.file}: {fatal.message}" if fatal else text


def _same_boxes(agreement: Agreement, kind: str) -> str:
    best, other = agreement.first, agreement.second
    boxes, images = counted(agreement.boxes[0], "box"), counted(agreement.pictures, "image")
    text = f"{best.title} and {other.title} say the same {boxes} in {images}"
    if agreement.by_name:
        text += " (told by their file names, as each has copies of its own)"
    if agreement.apart >= 0.01:
        text += f", within {agreement.apart:.2f} pixels"
    if agreement.convention:
        text += f"; {agreement.convention}"
    if agreement.crowds:
        text += f"; {other.title} lacks {counted(agreement.crowds, 'crowd')}"
    alone = len(agreement.lone[0])
    if alone:
        text += f"; {other.title} says nothing of {counted(alone, 'image')} more"
    return f'{text}; read as {best.title} (format="{kind}" or --format {kind} reads {other.title})'


def _take_splits(chosen: Gathered, agreement: Agreement) -> list[str]:
    """Splits that only another format of the same boxes tells."""
    other = agreement.second
    if any(chosen.splits) or not other.data.split_counts():
        return []
    splits = dict(zip(agreement.keys[1], other.data.image_splits.tolist(), strict=True))
    chosen.splits = [splits.get(key, "") for key in agreement.keys[0]]
    without = chosen.splits.count("")
    rest = f"; {counted(without, 'image')} that it does not name in no split" if without else ""
    return [f"splits of {other.title}{rest}"]


def _beside(best: Labels, chosen: Gathered, layout: Any) -> list[str]:
    """What text files beside the images say, where that is something else; labels lost by it are a problem."""
    try:
        labels = Labels("YOLO", read_yolo(chosen.folder, layout))
    except DatasetFormatError:
        return []
    agreement = compare(best, labels)
    if agreement.same:
        return []
    how = "; ".join(line.strip() for line in agreement.differences())
    if len(agreement.lone[1]):
        chosen.problem(
            "text_labels_left_out",
            "",
            f"read as {best.title}, while text files beside the images, which are not read, say something else: {how}",
            'Say which is right: format="yolo" or --format yolo reads the text files. If each format has labels of its '
            "own, load one after the other and join them with od.concatenate.",
            severity="warning",
        )
    return [
        f'text files beside the images say something else and are not read: {how} (format="yolo" reads them)'
    ]


def _how_they_differ(
    folder: Folder, differing: list[Agreement], found: dict[str, Any], read: dict[str, Gathered]
) -> str:
    kinds = list(found)
    lines = [f"{folder.root} could be {' or '.join(READERS[kind].title for kind in kinds)}, and they differ:"]
    for kind, what in found.items():
        fatal = [problem for problem in read[kind].problems if problem.severity == "fatal"]
        wrong = f"; {counted(len(fatal), 'fault')}, {fatal[0].file}: {fatal[0].message}" if fatal else ""
        lines.append(f"  {READERS[kind].title}: {shown_path(_files(what))}{wrong}")
    for agreement in differing:
        lines += [f"  {line}" for line in agreement.differences()]
    ways = " or ".join(f'format="{kind}"' for kind in kinds)
    lines.append(
        f'Say which is right: load_dataset("{folder.root}", {ways}), on the command line --format {kinds[0]}'
    )
    if any(len(agreement.lone[0]) and len(agreement.lone[1]) for agreement in differing):
        lines.append("Do they belong together? Load one after the other, and join them with od.concatenate.")
    return "\n".join(lines)


def _is_told(layout: Any) -> bool:
    return layout is not None and str(layout.file).endswith((".yaml", ".yml"))


# -- labels that are not there ---------------------------------------------------------------------------------------


def _say_unlabelled(gathered: Gathered) -> None:
    """Say it loudly where more than half of the images have no label: they may be missing, or lie elsewhere."""
    with_boxes = len({row for rows in gathered.images for row in np.unique(rows).tolist()})
    without, left_out = len(gathered.paths) - with_boxes, gathered.count("image_without_labels")
    images = len(gathered.paths) + left_out
    if (without + left_out) * 2 <= images:
        return
    parts = {
        "without a label file": len(gathered.bare),
        "that no label names, left out": left_out,
        "said to hold nothing": without - len(gathered.bare),
    }
    reader = READERS[gathered.format]
    message = f"{without + left_out:,} of {counted(images, 'image')} without a box: " + ", ".join(
        f"{count:,} {what}" for what, count in parts.items() if count
    )
    gathered.notes.insert(0, f"MOST IMAGES HAVE NO LABEL: {message}")
    gathered.problem(
        "mostly_unlabelled",
        "",
        message,
        "If there is nothing in them, all is well: they are background. Else labels are missing, or lie where they are "
        f"not looked for. Looked for was {reader.title}: {reader.looks_for}.",
        severity="warning",
    )


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
