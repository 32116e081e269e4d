"""YOLO's text files: a line a box, a label file an image, data.yaml for the classes and splits; and DOTA's alike.

Turned boxes (YOLO's of eight shares, https://docs.ultralytics.com/datasets/obb/; DOTA's of eight pixels with a class
name, https://captain-whu.github.io/DOTA/dataset.html) and outlines become the upright boxes around them.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from odkit.data.boxes import xyxy_to_yolo, yolo_to_xyxy
from odkit.data.dataset import UNKNOWN_CLASS, Dataset
from odkit.data.formats.reader_base import (
    UTF_16_MARKS,
    DatasetFormatError,
    Folder,
    Gathered,
    beginning,
    folder_of,
    is_float,
    lines_of,
    name_of,
    nearness,
    normal_split,
    read_names,
    read_text,
    short,
    split_of,
    split_of_path,
    stem_of,
    suffix,
    why_unreadable,
)
from odkit.data.formats.writer_base import lost_crowds, split_files, stem_path, writable_boxes
from odkit.data.image_facts import header_sizes
from odkit.data.images import IMAGE_SUFFIXES
from odkit.system import InputError, counted, open_file, read_file

NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "_darknet.labels", "names.txt")
UNSPLIT = "unsplit"
"""The key under which our own data.yaml lists images that are in no split, while others are."""
MOST_YAML = 2**21
"""Bytes of a data.yaml; with 100,000 class names it has as many."""
_YAML: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # in C where PyYAML has it: three times as fast
_DEEPEST_YAML = 20
_USUAL_YAML = ("data", "dataset")  # what people call it
_CLASSES_KEY = re.compile(r"(?:^|[{,\s])[\"']?(?:names|nc)[\"']?\s*:")
_MOST_LABELS = 2**25  # bytes of one image's label file: half a million boxes
_SPLIT_KEYS = ("train", "val", "valid", "validation", "test", "minival")
_DOTA_HEADS = ("imagesource:", "gsd:")
_NO_SPLITS = ("path", "names", "nc", "download", "yaml_file", "train_label_dir", "val_label_dir", UNSPLIT)


@dataclass
class Layout:
    """Where a YOLO dataset says that things are."""

    file: str  # relative path of data.yaml or of the list of names, "" for none
    names: dict[int, str] = field(default_factory=dict)  # by class number
    splits: dict[str, list[str]] = field(
        default_factory=dict
    )  # split to folders or lists, as they are spelled
    lists: dict[str, str] = field(
        default_factory=dict
    )  # without a data.yaml: split to the list of its images, as darknet has them
    base: str = ""  # the key "path"
    keypoints: bool = False
    named: bool = True  # whether the names are more than "class 0", "class 1"
    notes: list[str] = field(default_factory=list)


def find_yolo(folder: Folder, file: str = "") -> Layout | None:
    """How a YOLO dataset is laid out: from its data.yaml, else from label files beside images; None for neither.

    Raises:
        DatasetFormatError: Two YAML files describe a dataset, or the one given does not.
    """
    candidates = [file] if file else folder.with_suffix(".yaml", ".yml", depth=0)
    found = {name: layout for name in candidates if (layout := _layout(folder, name, told=bool(file)))}
    if len(found) > 1:
        found = {name: layout for name, layout in found.items() if stem_of(name) in _USUAL_YAML} or found
    if len(found) > 1:
        raise DatasetFormatError(
            f"several files describe a YOLO dataset in {folder.root}: {', '.join(found)}; give the path of one"
        )
    if found:
        return next(iter(found.values()))
    for name in candidates:
        _refuse_broken(folder.path(name))
    layout = _layout_without_yaml(folder)
    if layout is not None:
        layout.notes += [
            f"{name} is left aside: it says neither where images are nor which classes there are"
            for name in candidates
            if stem_of(name) in _USUAL_YAML
        ]
    return layout


def _refuse_broken(path: Path) -> None:
    """A data.yaml with a slip in it is an error: without it, classes and splits would be guessed."""
    try:
        yaml_content(path)
    except (OSError, InputError) as error:
        if path.stem in _USUAL_YAML:
            raise DatasetFormatError(f"{path} cannot be read: {why_unreadable(error, path)}") from None
    except (ValueError, yaml.YAMLError) as error:
        if re.search(rb"^(names|nc|train|val) *:", beginning(path, MOST_YAML), re.MULTILINE):
            raise DatasetFormatError(f"{path} is no YAML: {_yaml_fault(error)}") from None


def _yaml_fault(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{getattr(error, 'problem', '')} (line {mark.line + 1})" if mark else str(error)


def yaml_content(path: Path) -> Any:
    """What a YAML file says, every value a text, so that a class called "no" or "1e3" keeps its name.

    A file that has no key for class names is no dataset's, and is not parsed: that takes seconds a megabyte.

    Raises:
        InputError: It is no regular file, or speaks of classes and is too large.
        OSError: It cannot be read.
        ValueError: It is nested deeper than any data.yaml.
        yaml.YAMLError: It is no YAML.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
    if size > MOST_YAML:
        if _CLASSES_KEY.search(beginning(path, 2**16).decode("utf-8", errors="replace")):
            read_file(path, most_bytes=MOST_YAML)  # which refuses it
        return None
    text = read_text(path)
    if not _CLASSES_KEY.search(text):
        return None
    depth = 0
    for event in yaml.parse(text, Loader=_YAML):  # the loader calls itself at each level, without a limit
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST_YAML:
            raise ValueError(f"it is nested more than {_DEEPEST_YAML} levels deep")
    return yaml.load(text, Loader=_YAML)


def _layout(folder: Folder, file: str, *, told: bool) -> Layout | None:
    def no(why: str) -> Layout | None:
        if told:
            raise DatasetFormatError(f"{folder.path(file)} is no YOLO data.yaml: {why}")
        return None

    try:
        content = yaml_content(folder.path(file))
    except (OSError, InputError) as error:
        return no(why_unreadable(error, folder.path(file)))
    except (ValueError, yaml.YAMLError) as error:
        return no(_yaml_fault(error))
    if not isinstance(content, dict):
        return no("it holds no keys")
    splits = {
        key: value
        for key, value in ((str(key), _texts(value)) for key, value in content.items())
        if value and (key in _SPLIT_KEYS or key == UNSPLIT or _is_place(folder, content, key, value))
    }
    if not splits or ("names" not in content and "nc" not in content):
        return no("it has no 'names' with a 'train' or 'val'")
    layout = Layout(file)
    for key, value in splits.items():
        layout.splits.setdefault(_split_of_key(key), []).extend(value)
    layout.base = content["path"] if isinstance(content.get("path"), str) else ""
    layout.keypoints = "kpt_shape" in content
    _read_names(layout, content, told=told, path=folder.path(file))
    return layout


def _split_of_key(key: str) -> str:
    return "" if key == UNSPLIT else normal_split(key.removesuffix(" (split)"))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value.strip() else []
    return [item for item in value if isinstance(item, str) and item] if isinstance(value, list) else []


def _is_place(folder: Folder, content: dict[Any, Any], key: str, value: list[str]) -> bool:
    """Whether a key that is no usual one leads to images all the same: somebody's own split."""
    if key in _NO_SPLITS:
        return False
    base = content.get("path")
    start = folder.root / base if isinstance(base, str) else folder.root
    return all("\0" not in item and (start / item).exists() and len(item) > 1 for item in value)


def _read_names(layout: Layout, content: dict[Any, Any], *, told: bool, path: Path) -> None:
    names = content.get("names")
    if isinstance(names, list):
        layout.names = {k: _scalar(name, k) for k, name in enumerate(names)}
    elif isinstance(names, dict):
        for key, name in names.items():
            if not _is_number(key):
                raise DatasetFormatError(f"{path}: the key {key!r} under names is no class number")
            layout.names[int(key)] = _scalar(name, int(key))
    if unnamed := sum(not isinstance(name, str) or not name for name in _values(names)):
        layout.notes.append(
            f"{counted(unnamed, 'name')} in {layout.file} that {'is' if unnamed == 1 else 'are'} no text: "
            "such a class is called by its number"
        )
    nc = content.get("nc")
    if isinstance(nc, str) and _is_number(nc):
        if not layout.names:
            layout.names = {k: f"class {k}" for k in range(min(int(nc), 100_000))}
            layout.named = False
            layout.notes.append(
                f"{layout.file} names no classes; they are called class 0 to class {len(layout.names) - 1}"
            )
        elif int(nc) != len(layout.names):
            layout.notes.append(
                f"{layout.file} says nc: {nc} and names {len(layout.names)} classes; the names count"
            )


def _values(names: Any) -> list[Any]:
    return list(names.values()) if isinstance(names, dict) else names if isinstance(names, list) else []


def _is_number(text: Any) -> bool:
    return isinstance(text, str) and text.isascii() and text.strip().isdigit() and len(text) < 7


def _scalar(name: Any, number: int) -> str:
    return name if isinstance(name, str) and name else f"class {number}"


def _layout_without_yaml(folder: Folder) -> Layout | None:
    """Label files beside images (or in labels/ for images/) say enough, if they look like YOLO's."""
    tops = {file.partition("/")[0] for file in folder.files}
    if (len(tops) == 1 and not split_of(min(tops))) or yaml_layouts(folder):
        return None  # what is told further down, class names above all, would be missed from up here
    labels = [file for file in folder.with_suffix(".txt") if name_of(file).lower() not in NAME_FILES]
    stems = folder.images_by_stem
    paired = [file for file in labels if stem_of(file) in stems]
    if not _hold_labels([folder.path(file) for file in paired[:200]]):
        return None
    layout = Layout("")
    lists = [file for file in folder.with_suffix(*{suffix(n) for n in NAME_FILES}, depth=1)
             if name_of(file) in NAME_FILES]  # fmt: skip
    if lists:
        layout.file = lists[0]
        lines = read_names(folder.path(lists[0]))
        while lines and not lines[-1].strip():
            lines.pop()
        layout.names = dict(enumerate(line.strip() or f"class {k}" for k, line in enumerate(lines)))
    for image in folder.images:
        layout.splits.setdefault(split_of_path(folder_of(image)), []).append(image)
    if not any(layout.splits):
        layout.lists = {
            split: file
            for file in folder.with_suffix(".txt", depth=1)
            if (split := normal_split(stem_of(file))) in ("train", "val", "test")
            and suffix(_first_line(folder.path(file)).strip()) in IMAGE_SUFFIXES
        }
    return layout


def yaml_layouts(folder: Folder) -> list[str]:
    """The folders below that hold a data.yaml of their own."""
    files = [file for file in folder.with_suffix(".yaml", ".yml", depth=3) if "/" in file][:100]
    here = [file for file in files if _layout(Folder(folder.path(file).parent), name_of(file), told=False)]
    return sorted({folder_of(file) for file in here})


def _hold_labels(paths: Sequence[Path]) -> bool:
    """Whether most text files look like labels, as far as they hold anything, and not all of them are empty.

    Not all of them: a slip in one would hide all others, and is told of once they are read.
    """
    boxes = [_looks_like_box(text) for path in paths if (text := _first_line(path))]
    return sum(boxes) * 2 > len(boxes)


def _first_line(path: Path) -> str:
    """The first line of a label file that may be a box."""
    lines = lines_of(beginning(path, 4000).decode("utf-8", errors="replace"))
    return next((line for line in lines if not line.lower().startswith(_DOTA_HEADS)), "")


def _looks_like_box(line: str) -> bool:
    parts = line.split()
    if _is_dota(parts):
        return True
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return False
    return len(numbers) >= 5 and numbers[0].is_integer() and all(-0.5 < n < 1.5 for n in numbers[1:5])


def _is_dota(parts: Sequence[str]) -> bool:
    """Whether a line holds eight numbers, the name of a class, and perhaps how difficult the object is."""
    return len(parts) in (9, 10) and all(map(is_float, parts[:8])) and not is_float(parts[8])


# -- where the images are --------------------------------------------------------------------------------------------


def read_yolo(folder: Folder, layout: Layout) -> Gathered:
    """The images and boxes of a YOLO dataset; an image without a label file is one without objects.

    Raises:
        DatasetFormatError: None of the folders that data.yaml names holds an image.
    """
    data = Gathered(folder, "yolo", [])
    if layout.file and not layout.file.endswith((".yaml", ".yml")):
        data.notes.append(f"YOLO: label files beside images, class names from {layout.file}")
    else:
        data.notes.append(f"YOLO: {layout.file or 'label files beside images, no data.yaml'}")
    data.notes += layout.notes
    places = _images(data, folder, layout)
    if not places:
        named = "; ".join(f"{key}: {', '.join(value[:3])}" for key, value in layout.splits.items())
        raise DatasetFormatError(
            f"{folder.path(layout.file)} leads to no images ({named}); looked from {folder.root}"
        )
    outside = [path for path in places if not _is_below(path, folder.root)]
    if outside:  # data.yaml sends us elsewhere: that folder is then the dataset's
        root = Path(os.path.commonpath([os.path.dirname(path) for path in places]))
        data.folder = Folder(root)
        data.notes.append(f"the images lie in {root}, where {layout.file} says")
    for path, split in places.items():
        relative = Path(path).relative_to(data.folder.root).as_posix()
        data.add_image(relative, (0, 0), split)
    _read_labels(data, layout, list(places))
    return data


def _is_below(path: str, root: Path) -> bool:
    return path.startswith(str(root).rstrip(os.sep) + os.sep)


def _images(data: Gathered, folder: Folder, layout: Layout) -> dict[str, str]:
    """Absolute path of each image to its split."""
    if not layout.file.endswith((".yaml", ".yml")):
        places = {
            str(folder.path(image)): split for split, images in layout.splits.items() for image in images
        }
        for split, file in layout.lists.items():
            path = folder.path(file)
            for image in _listed(data, path, [folder.root, path.parent]):
                if image in places and not places[image]:
                    places[image] = split
        if layout.lists:
            data.notes.append(f"splits of {', '.join(layout.lists.values())}")
        return places
    start = folder.path(layout.file).parent
    bases = [start]
    if layout.base:
        own = Path(os.path.normpath(start / os.path.expanduser(layout.base)))
        if own.is_dir():
            bases = [own, start]
        else:
            data.notes.append(
                f"path: {layout.base} in {layout.file} is not there; looked beside {layout.file}"
            )
    places = {}
    for split, values in layout.splits.items():
        for value in values:
            found = _resolve(bases, value)
            if found is None:
                data.problem(
                    "missing_split",
                    layout.file,
                    f"it names {short(value)} for {split or 'no split'}, which is not there",
                    "Put the folder or list back, or take it out of the file.",
                    severity="fatal" if split == "train" else "warning",
                )
                continue
            if not found.as_posix().endswith(re.sub(r"^(\.\.?/)+", "", value.replace("\\", "/")).rstrip("/")):
                data.notes.append(f"{layout.file} says {value} for {split or 'no split'}; read from {found}")
            if found.is_dir():
                images = _below(data, found)
            else:
                images = _listed(data, found, [*bases, found.parent])
            if not images:
                data.problem(
                    "missing_split",
                    layout.file,
                    f"it names {short(value)} for {split or 'no split'}, and there is no image in {found}",
                    "Put the images there, or take it out of the file.",
                    severity="fatal" if split == "train" else "warning",
                )
            again = [image for image in images if places.setdefault(image, split) != split]
            if len(again) > 1 and len(again) == len(images):  # as in coco128: nothing is held out
                _in_two_splits(data, layout, f"every image of {split}: {value}", places[again[0]], split)
                continue
            for image in again:
                _in_two_splits(data, layout, image, places[image], split)
    return places


def _in_two_splits(data: Gathered, layout: Layout, what: str, first: str, second: str) -> None:
    data.problem(
        "image_in_two_splits",
        layout.file,
        f"{what} is in {first or 'no split'} and in {second or 'no split'}; kept in the first",
        "List each image in one split.",
        severity="warning",
    )


def _resolve(bases: Sequence[Path], value: str) -> Path | None:
    """Where a place lies that data.yaml names: below the dataset's folders if it can be, else where it says."""
    value = value.strip().replace("\\", "/")
    if "\0" in value:
        return None
    # Roboflow writes ../train/images for a folder that lies beside data.yaml
    bare = re.sub(r"^(\.\.?/)+", "", value)
    tries = [base / bare for base in bases] + [base / value for base in bases]
    if _is_absolute(value):  # on another machine, perhaps: the last part alone must then speak of a split
        tries += [base / end for end in _ends(value) if "/" in end or split_of(end) for base in bases]
    for path in tries:
        try:
            if path.exists():
                return Path(os.path.normpath(path))
        except OSError:
            continue
    return None


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or bool(re.match(r"[A-Za-z]:/", path))


def _ends(path: str) -> list[str]:
    """The path without its first part, without its first two parts, and so on."""
    parts = [part for part in path.split("/") if part]
    return ["/".join(parts[k:]) for k in range(0 if path.startswith("/") else 1, len(parts))]


def _below(data: Gathered, place: Path) -> list[str]:
    listing = Folder(place)
    if listing.images or "" in listing.closed:
        data.closed_folders(listing)
    return [str(place / image) for image in listing.images]


def _listed(data: Gathered, file: Path, bases: Sequence[Path]) -> list[str]:
    """The images of a list file; those that lead out of the dataset are left out and told of."""
    if suffix(file.name) in IMAGE_SUFFIXES:
        return [str(file)]
    images = []
    try:
        lines = lines_of(read_text(file))
    except (OSError, InputError) as error:
        data.problem(
            "unreadable_label",
            file,
            f"the list of images cannot be read: {why_unreadable(error, file)}",
            "Make it readable.",
        )
        return []
    for number, line in enumerate(lines, 1):
        name = line.strip().replace("\\", "/")
        if not name:
            continue
        # A list may have been written elsewhere: C:/pets/images/a.jpg or data/images/a.jpg for images/a.jpg
        ends = [end for end in _ends(name) if "/" in end or _is_absolute(name)] if ".." not in name else []
        found = [
            path
            for path in (os.path.normpath(base / text) for text in (name, *ends) for base in bases)
            if "\0" not in path and "://" not in name and any(_is_below(path, root) for root in bases)
        ]
        there = next((path for path in found if os.path.exists(path)), None)
        if there is None and (not found or _is_absolute(name)):
            data.outside(file, name)
        elif suffix(name) not in IMAGE_SUFFIXES:
            data.problem(
                "unreadable_label",
                file,
                f"line {number} names no image: {short(name)}",
                "Correct or delete the line.",
            )
        else:
            images.append(there or found[0])
    return images


# -- the labels ------------------------------------------------------------------------------------------------------


def label_path(image: str) -> list[str]:
    """Where an image's label file may lie: in labels/ for images/, or beside it."""
    bare = os.path.splitext(image)[0] + ".txt"
    parts = bare.split(os.sep)
    options = []
    for k in range(len(parts) - 2, -1, -1):  # the last "images" in the path, as YOLO's own loaders do
        if parts[k].lower() == "images":
            options.append(os.sep.join([*parts[:k], "labels", *parts[k + 1 :]]))
            break
    return [*options, bare]


def _read_labels(data: Gathered, layout: Layout, images: list[str]) -> None:
    found = [_open_first(image) for image in images]
    for row, path in _labels_elsewhere(data, found).items():
        found[row] = _opened([path])
    data.sizes = header_sizes(images)
    data.bare = {row for row, label in enumerate(found) if label.missing}
    lines: list[_Line] = []
    rows: list[int] = []
    for row, label in enumerate(found):
        if label.error:
            data.problem(
                "unreadable_label",
                label.path,
                f"the label file cannot be read: {label.error}",
                "Make it readable.",
                image=data.paths[row],
            )
        read = _parse_file(data, row, label, layout.keypoints)
        if data.sizes[row] == (0, 0) and any(not line.pixels for line in read):
            data.problem(
                "unreadable_label",
                label.path,
                f"its {len(read)} boxes have no place: the size of the image is not known",
                "Put a readable image there.",
                image=data.paths[row],
            )
            continue
        lines += read
        rows += [row] * len(read)
    table = _class_table(data, layout, lines)
    classes = [table.get(line.key, UNKNOWN_CLASS) for line in lines]
    for k in [k for k, index in enumerate(classes) if index == UNKNOWN_CLASS]:
        data.problem(
            "unknown_class",
            found[rows[k]].path,
            f"line {lines[k].number} has the class {lines[k].key}, the table has {_range(table)}",
            "Add the class to the names or correct the line.",
            image=data.paths[rows[k]],
            box=f"line {lines[k].number}",
        )
    sizes = np.array(data.sizes, np.float64).reshape(-1, 2)[rows]
    sizes[[line.pixels for line in lines]] = 1
    numbers = np.array([line.box for line in lines], np.float64).reshape(-1, 4)
    data.add_boxes(yolo_to_xyxy(numbers, sizes), classes, rows, [f"line {line.number}" for line in lines])
    _note_lines(data, lines)
    _labels_without_images(data, images, {label.path for label in found})


class _Line(NamedTuple):
    number: int  # in its file, from 1
    key: int | str  # class number, or DOTA's class name
    box: list[float]  # center x, center y, width, height
    pixels: bool = False  # whether that is in pixels, not in shares of the image's sides
    corners: int = 0  # how many corners it was read from; 0 for an upright box
    difficult: bool = False


def _parse_file(data: Gathered, row: int, label: "_LabelFile", keypoints: bool) -> list[_Line]:
    """The boxes of a label file; lines that hold none are told of."""
    read = []
    for number, line in enumerate(lines_of(label.text), 1):
        parts = line.split()
        if not parts or (number < 3 and line.lower().startswith(_DOTA_HEADS)):
            continue
        parsed = _parse_line(number, parts, keypoints)
        if isinstance(parsed, _Line):
            read.append(parsed)
            continue
        data.problem(
            "unreadable_label",
            label.path,
            f"line {number} {parsed}: {short(line)}; it is left out",
            "Correct or delete the line.",
            image=data.paths[row],
            box=f"line {number}",
        )
    return read


def _note_lines(data: Gathered, lines: list[_Line]) -> None:
    if data.bare:
        data.notes.append(
            f"{counted(len(data.bare), 'image')} without a label file: without objects, that is"
        )
    turned = sum(line.corners == 4 for line in lines)
    outlines = sum(line.corners not in (0, 4) for line in lines)
    if turned or outlines:
        what = [counted(turned, "outline of four corners (a turned box, say)")] * bool(turned)
        what += [counted(outlines, "outline of other corners")] * bool(outlines)
        data.notes.append(f"{' and '.join(what)} read as upright boxes")
    if difficult := sum(line.difficult for line in lines):
        data.notes.append(f"{counted(difficult, 'object')} marked as difficult, kept like the others")


def _labels_elsewhere(data: Gathered, found: Sequence["_LabelFile"]) -> dict[int, str]:
    """Label files in a folder where YOLO does not look, as row to path.

    It is the folder whose text files have the names of most images in a folder that has no labels at all: a sibling,
    as Annotations/ or labelTxt/, or any other below the dataset's folder that is no other images' own.
    """
    groups: dict[str, list[int]] = {}
    for row, path in enumerate(data.paths):
        groups.setdefault(folder_of(path), []).append(row)
    groups = {place: rows for place, rows in groups.items() if all(found[row].missing for row in rows)}
    if not groups:
        return {}
    taken = {os.path.dirname(label.path) for label in found if not label.missing}
    by_stem: dict[str, list[str]] = {}
    for file in data.folder.with_suffix(".txt"):
        if name_of(file).lower() not in NAME_FILES and str(data.folder.path(file).parent) not in taken:
            by_stem.setdefault(stem_of(file), []).append(file)
    chosen: dict[str, tuple[str, dict[int, str]]] = {}  # folder of images to that of labels, and row to file
    for place, rows in groups.items():
        fitting = {row: by_stem[stem] for row in rows if (stem := stem_of(data.paths[row])) in by_stem}
        counts = Counter(folder_of(file) for files in fitting.values() for file in files)
        near = {where: nearness(f"{where}/x", data.paths[rows[0]]) for where in counts}
        for where in sorted(counts, key=lambda where: (-counts[where], -near[where], where)):
            own = {row: file for row, files in fitting.items() for file in files if folder_of(file) == where}
            if _hold_labels([data.folder.path(file) for file in list(own.values())[:200]]):
                chosen[place] = where, own
                break
    fits = Counter(file for _, own in chosen.values() for file in own.values())
    if twice := [file for file, count in fits.items() if count > 1]:
        what = counted(len(twice), "label")
        data.notes.append(f"left out, as they fit images of several folders: {what}, {twice[0]} for one")
    found_there: dict[int, str] = {}
    for place, (where, own) in chosen.items():
        mine = {row: str(data.folder.path(file)) for row, file in own.items() if fits[file] == 1}
        found_there.update(mine)
        if mine:
            of = f"{len(mine):,} of {counted(len(groups[place]), 'image')} in {place or 'the folder'}"
            why = "none are in labels/ or beside the images"
            data.notes.append(f"labels of {of} found in {where or 'the folder'}: {why}")
    return found_there


@dataclass(frozen=True, slots=True)
class _LabelFile:
    path: str
    text: str  # "" where there is none
    missing: bool = False
    error: str = ""  # why a file that is there cannot be read


def _open_first(image: str) -> _LabelFile:
    """An image's label file, where YOLO looks for it."""
    return _opened(label_path(image))


def _opened(options: Sequence[str]) -> _LabelFile:
    """The first of these files that is there."""
    for path in options:
        try:
            text = read_file(path, most_bytes=_MOST_LABELS)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, InputError) as error:
            return _LabelFile(path, "", error=why_unreadable(error, path))
        encoding = "utf-16" if text.startswith(UTF_16_MARKS) else "utf-8-sig"
        return _LabelFile(path, text.decode(encoding, errors="replace"))
    return _LabelFile(options[0], "", missing=True)


def _class_table(data: Gathered, layout: Layout, lines: list[_Line]) -> dict[int | str, int]:
    """Class number, or name where lines hold names, to class index; sets the class names."""
    names = layout.names
    data.named_classes = layout.named
    spelled = sorted({line.key for line in lines if isinstance(line.key, str)})
    if not names:
        highest = max((line.key for line in lines if isinstance(line.key, int)), default=-1)
        names = {k: f"class {k}" for k in range(min(highest + 1, 10_000))}
        if names or not spelled:
            data.notes.append("no list of class names; they are called class 0, class 1, ...")
            data.named_classes = False
        data.class_names = [*names.values(), *spelled]
    else:
        data.class_names = list(dict.fromkeys(names[number] for number in sorted(names)))
        if len(data.class_names) < len(names):
            data.notes.append("classes of the same name are one class")
    index = {name: k for k, name in enumerate(data.class_names)}
    table: dict[int | str, int] = {number: index[name] for number, name in names.items()}
    data.class_keys = {str(number): name for number, name in sorted(names.items())}
    return table | {name: index[name] for name in spelled if name in index}


def _range(table: dict[int | str, int]) -> str:
    numbers = [key for key in table if isinstance(key, int)]
    return f"{min(numbers)} to {max(numbers)}" if numbers else "none"


def _parse_line(number: int, parts: list[str], keypoints: bool) -> _Line | str:
    """The box of a line; or what is wrong with it."""
    if _is_dota(parts):
        points = [float(part) for part in parts[:8]]
        if not all(abs(value) < 1e6 for value in points):  # also nan
            return "holds a number that cannot be"
        return _Line(number, parts[8], _around(points), True, 4, parts[9:] not in ([], ["0"]))
    try:
        values = [float(part) for part in parts]
    except ValueError:
        return "holds something that is no number"
    if not all(abs(value) < 1e6 for value in values):
        return "holds a number that cannot be"
    if values[0] != int(values[0]):
        return "does not begin with a class number"
    count = len(values)
    if count in (5, 6) or (keypoints and count > 5):  # the sixth is a confidence or a track number
        return _Line(number, int(values[0]), values[1:5])
    if count >= 7 and count % 2:
        return _Line(number, int(values[0]), _around(values[1:]), corners=count // 2)
    return f"has {count} numbers, where a box has 5 and an outline 7, 9, 11 or more"


def _around(points: list[float]) -> list[float]:
    """Center x, center y, width and height of the upright box around points (x, y, x, y, ...)."""
    x, y = points[0::2], points[1::2]
    left, top, right, bottom = min(x), min(y), max(x), max(y)
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def _labels_without_images(data: Gathered, images: list[str], used: set[str]) -> None:
    places = {os.path.dirname(file) for file in used}
    stems = {os.path.splitext(file)[0] for file in images}
    for place in sorted(places):
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue
        for name in names:
            path = os.path.join(place, name)
            if suffix(name) != ".txt" or path in used or name.lower() in NAME_FILES:
                continue
            if os.path.splitext(path)[0] in stems or not _looks_like_box(_first_line(Path(path))):
                continue
            data.problem(
                "label_without_image",
                path,
                f"there is no image for the label file {name}",
                "Put the image back or delete the label file.",
                severity="warning",
            )


# -- writing ---------------------------------------------------------------------------------------------------------


def write_yolo(dataset: Dataset, folder: Path, files: Sequence[str]) -> list[str]:
    """Write labels/SPLIT/*.txt and data.yaml for images in images/SPLIT/; what is lost."""
    lost = write_yolo_labels(dataset, folder, files)
    content: dict[str, Any] = {}
    for split, place in yolo_places(dataset).items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        content[_key(split) if place != "images" else "train"] = place
    if "" in yolo_places(dataset) and not dataset.split_counts():
        lost.append("YOLO knows no images without a split: data.yaml lists all as train")
    content["nc"] = len(dataset.class_names)
    content["names"] = dict(enumerate(dataset.class_names))
    (folder / "data.yaml").write_text(
        yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8"
    )
    return lost


def write_yolo_labels(
    dataset: Dataset, folder: Path, files: Sequence[str], scores: NDArray[np.float32] | None = None
) -> list[str]:
    """Write labels/*.txt for images at `files`, images/*, with each box's score as sixth number; what is lost."""
    keep, lost = writable_boxes(dataset)
    lost += lost_crowds(dataset, "YOLO")
    # The reader takes sizes from the files, so relative numbers are taken by those too; boxes are on those pixels
    sizes = np.array(header_sizes(dataset.image_paths.tolist()), np.int64).reshape(-1, 2)
    unread = (sizes == 0).any(1)
    sizes[unread] = dataset.image_sizes[unread]
    nowhere = keep & np.any(sizes <= 0, axis=1)[dataset.box_images]
    if nowhere.any():
        lost.append(f"{int(nowhere.sum()):,} boxes are left out, as the size of their image is not known")
        keep &= ~nowhere
    numbers = xyxy_to_yolo(dataset.boxes, np.maximum(sizes, 1)[dataset.box_images])
    ends = [""] * len(numbers) if scores is None else [f" {score:.6g}" for score in scores.tolist()]
    for row, file in enumerate(files):
        rows = dataset.boxes_of(row)
        lines = [
            f"{dataset.box_classes[k]} " + " ".join(f"{value:.10g}" for value in numbers[k]) + ends[k]
            for k in range(rows.start, rows.stop)
            if keep[k]
        ]
        path = folder / ("labels" + stem_path(file, ".txt").removeprefix("images"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return lost


def yolo_places(dataset: Dataset) -> dict[str, str]:
    """Each split to its folder of images."""
    if not dataset.split_counts():
        return {"": "images"}
    return {split: f"images/{name}" for split, name in split_files(dataset, UNSPLIT).items()}


def _key(split: str) -> str:
    if not split:
        return UNSPLIT
    return f"{split} (split)" if split in _NO_SPLITS else split
