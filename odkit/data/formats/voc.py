"""Pascal VOC's XML: one file an image, splits in ImageSets/Main (the PASCAL VOC development kit)."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkit.data.boxes import voc_to_xyxy, xyxy_to_voc
from odkit.data.dataset import UNKNOWN_CLASS, Dataset
from odkit.data.formats.reader_base import (
    CLASSES_FILE,
    Folder,
    Gathered,
    LabelError,
    class_name,
    declared_size,
    finite_rows,
    folder_of,
    is_absolute,
    listed_classes,
    moved_note,
    name_of,
    nearness,
    normal_split,
    read_text,
    short,
    split_of,
    split_of_path,
    stem_of,
    xml_root,
)
from odkit.data.formats.writer_base import (
    known_sizes,
    lost_crowds,
    split_files,
    stem_path,
    writable_boxes,
    xml_class_names,
    xml_text,
)
from odkit.system import InputError, open_file

EXACT = "odkit: exact corners"
"""Stands in <source><annotation> of the files we write: there 0 or xmin = xmax mean just that."""
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_ROOT = re.compile(rb"<annotation[\s/>]")  # not <annotations>, which is CVAT's
_JOINED_SPLITS = ("trainval", "all", "default")  # lists that repeat others


def find_voc(folder: Folder) -> list[str]:
    """The label files of a folder; empty where there are none."""
    files = folder.with_suffix(".xml")
    if any(_begins_as_voc(folder.path(file)) for file in files[:20]):
        return files
    return []


def _begins_as_voc(path: Path) -> bool:
    try:
        with open_file(path) as file:
            # letter by letter in UTF-16 too
            return _ROOT.search(file.read(4096).replace(b"\0", b"")) is not None
    except (OSError, InputError):
        return False


def read_voc(folder: Folder, files: list[str], *, first_pixel: int | None = None) -> Gathered:
    """The images and boxes of VOC's label files.

    Args:
        folder: The dataset's files.
        files: Its label files.
        first_pixel: Number of an image's first pixel in the corners, 1 as VOC says or 0; None: 0 where any corner is.
    """
    reading = _Reading(folder)
    others = 0
    for file in files:
        try:
            root = xml_root(folder.path(file), "annotation", "annotations")
            if root.tag == "annotations":  # CVAT's, beside VOC's
                others += 1
            else:
                reading.add(file, root)
        except LabelError as error:
            image = reading.image_of(file, None)
            there = image or ""
            if image and reading.data.row(image) is None:
                reading.data.add_image(image)
            reading.data.problem(
                "unreadable_label", file, str(error), "Correct the file, or delete it.", image=there
            )
    return reading.finish(len(files) - others, first_pixel)


class _Reading:
    """The state of reading one dataset."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.data = Gathered(folder, "voc", [])
        self.label_stems: dict[str, list[int]] = {}  # stem of the label file to rows
        self.rows: list[list[Any]] = []
        self.names: list[str | None] = []
        self.images: list[int] = []
        self.box_ids: list[str] = []
        self.exact: list[bool] = []
        self.objects: dict[int, int] = {}  # row to its number of objects
        self.difficult = 0
        self.moved: dict[str, str] = {}  # absolute paths of another machine to the images taken for them

    def image_of(self, file: str, name: str | None) -> str | None:
        """The image with the label file's stem, else the one that it names; None: neither is there.

        The stem is what VOC's lists go by; the name inside is often stale, as files are renamed and copied.
        """
        own = self.folder.images_by_stem.get(stem_of(file), [])
        named = self.folder.images_by_name.get(name_of(name), []) if name else []
        stem = self.folder.images_by_stem.get(stem_of(name) if name else "", [])
        for options in (own, named, stem):
            if options:
                # of a.png and a.jpg side by side, the name inside says which
                return max(options, key=lambda image: (nearness(file, image), image in named, -len(image)))
        return None

    def add(self, file: str, root: ET.Element) -> None:
        data = self.data
        name = (root.findtext("filename") or "").strip()
        image = self.image_of(file, name.replace("\\", "/") or None)
        if name and self.folder.inside(name, folder_of(file)) is None:
            if image is None or not is_absolute(name):
                data.outside(file, name)
                return
            self.moved.setdefault(name, image)
        if image is None:
            place = _usual_place(file)
            image = f"{place}/{name_of(name)}" if place and name else name_of(name) or f"{stem_of(file)}.jpg"
            if data.row(image) is None:
                data.missing_image(file, image)
        row = data.row(image)
        if row is not None:
            data.problem(
                "image_listed_twice",
                file,
                f"another label file is for the same image, {image}; the boxes of both are joined",
                "Keep one label file an image.",
                severity="warning",
                image=image,
            )
        else:
            row = data.add_image(
                image, declared_size(root.findtext("size/width"), root.findtext("size/height"))
            )
        self.label_stems.setdefault(stem_of(file), []).append(row)
        exact = (root.findtext("source/annotation") or "").strip() == EXACT
        things = root.findall("object")
        first = self.objects.get(row, 0)  # of an earlier label file for this image
        self.objects[row] = first + len(things)
        for number, thing in enumerate(things, first + 1):
            self.rows.append([thing.findtext(f"bndbox/{corner}") for corner in _CORNERS])
            self.names.append(class_name(thing.findtext("name")))
            self.images.append(row)
            self.box_ids.append(f"object {number}")
            self.exact.append(exact)
            self.difficult += (thing.findtext("difficult") or "").strip() == "1"
            self._check(file, row, number, thing)

    def _check(self, file: str, row: int, number: int, thing: ET.Element) -> None:
        if self.names[-1] is None:
            self.data.problem(
                "unknown_class",
                file,
                f"object {number} has no name",
                "Name it or delete it.",
                image=self.data.paths[row],
                box=f"object {number}",
            )
        if not finite_rows(self.rows[-1:])[1].all():
            corners = ", ".join(f"{c} {v}" for c, v in zip(_CORNERS, self.rows[-1], strict=True))
            what = "no <bndbox>" + ", only a polygon" * (thing.find("polygon") is not None)
            if thing.find("bndbox") is not None:
                what = f"no box of four numbers: {short(corners)[1:-1]}"
            self.data.problem(
                "unreadable_label",
                file,
                f"object {number} has {what}; it is left out",
                "Correct or delete it.",
                image=self.data.paths[row],
                box=f"object {number}",
            )

    def finish(self, files: int, first_pixel: int | None) -> Gathered:
        data = self.data
        data.notes.append(f"Pascal VOC: {files:,} XML files with an <annotation>")
        data.class_names = self._class_table()
        corners, good = finite_rows(self.rows)
        keep = np.flatnonzero(good).tolist()
        exact = np.array(self.exact, bool)
        boxes = self._boxes(corners, exact, good, first_pixel)
        index = {name: k for k, name in enumerate(data.class_names)}
        names = [self.names[k] for k in keep]
        classes = [UNKNOWN_CLASS if name is None else index[name] for name in names]
        data.add_boxes(boxes[good], classes, [self.images[k] for k in keep], [self.box_ids[k] for k in keep])
        if self.moved:
            data.notes.append(moved_note(len(self.moved), *next(iter(self.moved.items()))))
        if self.difficult:
            data.notes.append(f"{self.difficult:,} objects marked as difficult are kept like the others")
        self._read_splits()
        data.unlabelled_images({folder_of(path) for path in data.paths})
        data.read_sizes()
        return data

    def _class_table(self) -> list[str]:
        used = {name for name in self.names if name is not None}
        listed = listed_classes(self.folder, used)
        if listed:
            self.data.notes.append(f"class names in the order of {CLASSES_FILE}")
        return listed or sorted(used)

    def _boxes(self, corners: Any, exact: Any, good: Any, first_pixel: int | None) -> Any:
        foreign = good & ~exact
        drawn = (corners[:, 2:] > corners[:, :2]).all(1)  # 0 0 0 0 in place of a box says nothing
        zeros = foreign & drawn & (corners[:, :2] == 0).any(1)
        if first_pixel is None and zeros.any():
            row = int(np.flatnonzero(zeros)[0])
            self.data.notes.append(
                f"corners count pixels from 0, not from 1 as VOC says: {int(zeros.sum()):,} boxes begin at 0, first "
                f"{self.data.paths[self.images[row]]}, {self.box_ids[row]} (load_dataset(..., first_pixel=1) overrules)"
            )
            first_pixel = 0
        boxes = voc_to_xyxy(corners).astype(np.float64)
        if first_pixel == 0:
            boxes[foreign] = corners[foreign]
        # Elsewhere a corner equal to its opposite is a click that drew nothing, not a box one pixel wide
        for low, high in ((0, 2), (1, 3)):
            click = foreign & (corners[:, low] == corners[:, high])
            boxes[click, high] = boxes[click, low]
        return boxes

    def _read_splits(self) -> None:
        lists: dict[str, list[tuple[int, str]]] = {}
        for file in self.folder.with_suffix(".txt"):
            if f"/{folder_of(file)}".endswith("/ImageSets/Main"):
                lines = self._read_lines(file)
                if not _is_of_class(file, lines):
                    lists[file] = lines
        if not lists:
            self._splits_of_folders()
            return
        own = [file for file in lists if stem_of(file).lower() not in _JOINED_SPLITS]
        for file in own:
            self._put_split(file, lists[file], normal_split(stem_of(file)))
        for file in lists:
            if file not in own:  # of what "trainval" lists, the rest beside train and val
                self._put_split(file, lists[file], "train", again=bool(own))
        self.data.notes.append(f"splits of {', '.join(own or lists)}"[:300])

    def _read_lines(self, file: str) -> list[tuple[int, str]]:
        """The lines of a list that hold something, with their numbers."""
        try:
            lines = read_text(self.folder.path(file)).splitlines()
        except OSError as error:
            self.data.problem(
                "unreadable_label", file, f"it cannot be read: {error.strerror}", "Correct the file."
            )
            return []
        return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]

    def _put_split(self, file: str, lines: list[tuple[int, str]], split: str, *, again: bool = False) -> None:
        data = self.data
        base = file[: -len(f"ImageSets/Main/{name_of(file)}")]
        for number, name in lines:
            row = self._row_of(name, base)
            if row is None:
                if not again:
                    data.problem(
                        "listed_without_labels",
                        file,
                        f"line {number} lists {short(name)}, which has no label file",
                        "Label it, or take it off the list.",
                        severity="info",
                    )
            elif not data.splits[row]:
                data.splits[row] = split
            elif data.splits[row] != split and not again:
                data.problem(
                    "image_in_two_splits",
                    file,
                    f"line {number}: it is already listed in {data.splits[row]} and stays there",
                    "List each image in one split.",
                    severity="warning",
                    image=data.paths[row],
                )

    def _row_of(self, name: str, base: str) -> int | None:
        spellings = (name_of(name), stem_of(name), name.split()[0])
        rows = next((found for text in spellings if (found := self.label_stems.get(text))), [])
        near = [row for row in rows if self.data.paths[row].startswith(base)] or rows
        return near[0] if near else None

    def _splits_of_folders(self) -> None:
        data = self.data
        data.splits = [split_of_path(folder_of(path)) for path in data.paths]
        if any(data.splits):
            data.notes.append("splits of the folders' names")


def _is_of_class(file: str, lines: list[tuple[int, str]]) -> bool:
    """Whether a list is one of those that VOC keeps of each class ("dog_train": name and 1, 0 or -1)."""
    before, _, last = stem_of(file).rpartition("_")
    return bool(before and split_of(last) and lines and re.search(r"\s(-1|0|1)$", lines[0][1]))


def _usual_place(file: str) -> str:
    """Where a label file's image would lie in VOC's own layout."""
    parts = folder_of(file).split("/")
    return "/".join("JPEGImages" if part == "Annotations" else part for part in parts)


# -- writing ---------------------------------------------------------------------------------------------------------


def write_voc(dataset: Dataset, folder: Path, files: Sequence[str]) -> list[str]:
    """Write Annotations/*.xml, ImageSets/Main/*.txt and classes.txt for images in JPEGImages/; what is lost."""
    lost = write_voc_labels(dataset, folder, files)
    names, _ = xml_class_names(dataset)
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, name in split_files(dataset, "").items():
        if split:
            stems = [stem_of(files[row]) for row in np.flatnonzero(dataset.image_splits == split).tolist()]
            (lists / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
            if name != split:
                lost.append(f"the split {split!r} is called {name!r}")
    (folder / CLASSES_FILE).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return lost


def write_voc_labels(
    dataset: Dataset, folder: Path, files: Sequence[str], scores: NDArray[np.float32] | None = None
) -> list[str]:
    """Write Annotations/*.xml for images at `files`, with each box's score in <confidence>; what is lost."""
    keep, lost = writable_boxes(dataset)
    lost += lost_crowds(dataset, "Pascal VOC")
    names, changed = xml_class_names(dataset)
    lost += changed
    corners = xyxy_to_voc(dataset.boxes)
    sizes = known_sizes(dataset)
    (folder / "Annotations").mkdir()
    for row, file in enumerate(files):
        rows = dataset.boxes_of(row)
        things = [
            (names[dataset.box_classes[k]], corners[k], None if scores is None else float(scores[k]))
            for k in range(rows.start, rows.stop)
            if keep[k]
        ]
        path = folder / "Annotations" / stem_path(name_of(file), ".xml")
        path.write_bytes(_label_xml(name_of(file), sizes[row].tolist(), things))
    return lost


def _label_xml(name: str, size: list[int], things: list[tuple[str, Any, float | None]]) -> bytes:
    root = ET.Element("annotation")

    def put(parent: ET.Element, tag: str, text: object = None) -> ET.Element:
        element = ET.SubElement(parent, tag)
        element.text = None if text is None else str(text)
        return element

    put(root, "folder", "JPEGImages")
    put(root, "filename", xml_text(name))
    source = put(root, "source")
    put(source, "annotation", EXACT)
    whole = put(root, "size")
    for tag, side in (("width", size[0]), ("height", size[1]), ("depth", 3)):
        put(whole, tag, side)
    put(root, "segmented", 0)
    for name_of_class, corners, score in things:
        thing = put(root, "object")
        for tag, value in (
            ("name", name_of_class),
            ("pose", "Unspecified"),
            ("truncated", 0),
            ("difficult", 0),
        ):
            put(thing, tag, value)
        if score is not None:
            put(thing, "confidence", f"{score:.6g}")
        box = put(thing, "bndbox")
        for corner, number in zip(_CORNERS, corners.tolist(), strict=True):
            put(box, corner, int(number) if number == int(number) else repr(number))
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")  # in one piece: to bytes it goes many times slower
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()
