"""CVAT's XML for images, version 1.1: one file for all images (https://docs.cvat.ai, "XML annotation format")."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from odkit.data.dataset import Dataset
from odkit.data.formats.reader_base import (
    DatasetFormatError,
    Folder,
    Gathered,
    LabelError,
    NamedBoxes,
    beginning,
    class_name,
    declared_size,
    folder_of,
    image_row,
    name_of,
    normal_split,
    place_names,
    points_box,
    split_of_path,
    stem_of,
    turned_box,
    turned_ellipse_box,
    xml_root,
)
from odkit.data.formats.writer_base import (
    flat_names,
    known_sizes,
    lost_crowds,
    writable_boxes,
    xml_class_names,
    xml_text,
)

LABELS_FILE = "annotations.xml"
_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_WITH_BOX: dict[str, tuple[str, ...]] = {
    "box": _CORNERS,
    "polygon": ("points",),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "mask": ("left", "top", "width", "height"),
}
_NO_BOX = {
    "polyline": "polyline",
    "points": "set of points",
    "tag": "tag",
    "cuboid": "cuboid",
    "skeleton": "skeleton",
}
_WHOLE = "default"  # CVAT's own name of what is in no subset


def find_cvat(folder: Folder) -> list[str]:
    """The CVAT files of a folder; empty where there are none."""
    files = folder.with_suffix(".xml", depth=2)
    first = files[:20] + [file for file in files[20:] if stem_of(file).startswith("annotations")]
    if not any(_begins_as_cvat(folder.path(file)) for file in first):
        return []
    return [file for file in files if _begins_as_cvat(folder.path(file))]


def _begins_as_cvat(path: Path) -> bool:
    return bool(re.search(rb"<annotations[\s/>]", beginning(path, 4096)))


def read_cvat(folder: Folder, files: Sequence[str]) -> Gathered:
    """The images and boxes of one or several CVAT files (one a task); their tables of labels are joined by name.

    Raises:
        DatasetFormatError: A file is no XML, or is CVAT's format for videos.
    """
    data = Gathered(folder, "cvat", [])
    boxes = NamedBoxes(data)
    names: list[str] = []
    places: set[str] = set()
    for file in files:
        try:
            root = xml_root(folder.path(file), "annotations")
        except LabelError as error:
            raise DatasetFormatError(f"{folder.path(file)} cannot be read as CVAT's XML: {error}") from None
        images = root.findall("image")
        if not images and root.find("track") is not None:
            raise DatasetFormatError(
                f"{folder.path(file)} is CVAT's format for videos (its boxes are in <track>), which odkit does not "
                'read. In CVAT, export the same task as "CVAT for images 1.1": it splits tracks into frames'
            )
        names += [name for label in root.iterfind("meta//labels/label") if (name := _label_name(label))]
        places |= _read_images(data, boxes, file, images)
        data.notes.append(f"CVAT for images: {file} ({len(images):,} images)")
    boxes.finish(names)
    data.unlabelled_images(places)
    data.read_sizes()
    return data


def _label_name(label: ET.Element) -> str | None:
    """The name in a row of CVAT's table; None for a part of a skeleton, which has no box of its own."""
    return None if (label.findtext("parent") or "").strip() else class_name(label.findtext("name"))


def _read_images(data: Gathered, boxes: NamedBoxes, file: str, images: list[ET.Element]) -> set[str]:
    """Add a file's images and boxes; the folders of the images."""
    beside, of_file = folder_of(file), split_of_path(file)
    by_split: dict[str, list[tuple[str, ET.Element]]] = {}
    for number, image in enumerate(images, 1):
        name = image.get("name")
        if not name:
            data.problem(
                "unreadable_label", file, f"image {number} of the file has no name", "Correct or delete it."
            )
            continue
        inside = data.folder.inside(name, beside)
        subset = image.get("subset", "")
        if inside is None:
            data.outside(file, name)
        else:
            split = of_file if subset in ("", _WHOLE) else normal_split(subset)
            by_split.setdefault(split, []).append((inside, image))
    places: set[str] = set()
    for split, found in by_split.items():
        paths = place_names(data.folder, (name for name, _ in found), beside, split)
        places.update(folder_of(path) for path in paths.values())
        for name, image in found:
            size = declared_size(image.get("width"), image.get("height"))
            row = image_row(data, file, paths[name], size, split)
            for number, shape in enumerate(image, 1):
                _add_shape(boxes, file, row, shape, f"{shape.tag} {number}")
    return places


def _add_shape(boxes: NamedBoxes, file: str, row: int, shape: ET.Element, box_id: str) -> None:
    if shape.tag in _NO_BOX:
        boxes.left_out[_NO_BOX[shape.tag]] += 1
    elif shape.tag in _WITH_BOX:
        corners, what = _box_of(shape)
        if what:
            boxes.upright[what] += 1
        boxes.add(file, row, shape.get("label"), corners, box_id, shown=dict(shape.attrib))


def _box_of(shape: ET.Element) -> tuple[list[float] | None, str]:
    """Left, top, right, bottom; and what it is that these are the upright box of, "" for an upright box."""
    if shape.tag == "polygon":
        return points_box([pair.split(",") for pair in shape.get("points", "").split(";")]), "polygon"
    numbers = _numbers(shape, _WITH_BOX[shape.tag])
    turned = _numbers(shape, ("rotation",)) if "rotation" in shape.attrib else [0.0]
    if numbers is None or turned is None:
        return None, ""
    if shape.tag == "mask":
        left, top, width, height = numbers
        return [left, top, left + width, top + height], "mask"
    if shape.tag == "ellipse":
        x, y, radius_x, radius_y = numbers
        return turned_ellipse_box(x, y, radius_x, radius_y, turned[0]), "ellipse"
    if turned[0] == 0:
        return numbers, ""
    centre = (numbers[0] + numbers[2]) / 2, (numbers[1] + numbers[3]) / 2
    return turned_box(numbers, turned[0], centre), "box at an angle"


def _numbers(shape: ET.Element, keys: Sequence[str]) -> list[float] | None:
    try:
        numbers = [float(shape.get(key, "")) for key in keys]
    except ValueError:
        return None
    return numbers if all(abs(number) < 1e9 for number in numbers) else None


# -- writing ---------------------------------------------------------------------------------------------------------


def cvat_places(dataset: Dataset) -> list[str]:
    """Where each image goes."""
    return flat_names(dataset, lambda split: "images")


def write_cvat(dataset: Dataset, folder: Path, files: Sequence[str]) -> list[str]:
    """Write annotations.xml for images in images/; what is lost."""
    keep, lost = writable_boxes(dataset)
    lost += lost_crowds(dataset, "CVAT")
    names, changed = xml_class_names(dataset)
    lost += changed
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    subsets = {split: xml_text(split) for split in dataset.split_counts()}
    meta = ET.SubElement(ET.SubElement(root, "meta"), "project" if subsets else "task")
    ET.SubElement(meta, "name").text = xml_text(dataset.name)
    if subsets:  # a project has a task a subset
        tasks = ET.SubElement(meta, "tasks")
        for subset in subsets.values():
            task = ET.SubElement(tasks, "task")
            ET.SubElement(task, "name").text = subset
            ET.SubElement(task, "subset").text = subset
    labels = ET.SubElement(meta, "labels")
    for name in names:
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text = name
        ET.SubElement(label, "type").text = "rectangle"
        ET.SubElement(label, "attributes")
    if subsets:
        ET.SubElement(meta, "subsets").text = "\n".join(subsets.values())
    lost += [
        f"CVAT would read the split {split!r} as {subset!r}"
        for split, subset in subsets.items()
        if (normal_split(subset) if subset != _WHOLE else "") != split
    ]
    sizes = known_sizes(dataset).tolist()
    corners = dataset.boxes.tolist()
    for row, file in enumerate(files):
        image = ET.SubElement(root, "image", id=str(row), name=xml_text(name_of(file)))
        if split := str(dataset.image_splits[row]):
            image.set("subset", subsets[split])
        image.set("width", str(sizes[row][0]))
        image.set("height", str(sizes[row][1]))
        rows = dataset.boxes_of(row)
        for k in range(rows.start, rows.stop):
            if keep[k]:
                box = ET.SubElement(
                    image, "box", label=names[dataset.box_classes[k]], source="manual", occluded="0"
                )
                for key, number in zip(_CORNERS, corners[k], strict=True):
                    box.set(key, repr(number))
                box.set("z_order", "0")
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")  # in one piece: to bytes it goes many times slower
    (folder / LABELS_FILE).write_text(f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n', encoding="utf-8")
    return lost
