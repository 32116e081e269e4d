"""LabelMe's JSON: a file an image, with its shapes in pixels (https://github.com/wkentaro/labelme)."""

import math
from typing import Any

from odkit.data.formats.reader_base import (
    DatasetFormatError,
    Folder,
    Gathered,
    NamedBoxes,
    declared_size,
    folder_of,
    image_row,
    name_of,
    nearness,
    points_box,
    read_json,
    split_of_path,
    stem_of,
)
from odkit.system import InputError

_AROUND = {
    "polygon": "polygon",
    "oriented_rectangle": "box at an angle",
    "rotation": "box at an angle",  # X-AnyLabeling's word for it
    "mask": "mask",  # its points are the corners of the box around it
}
_NO_BOX = {"line": "line", "linestrip": "line", "point": "point", "points": "set of points"}


def find_labelme(folder: Folder) -> list[str]:
    """The label files of a folder; empty where there are none."""
    return [file for file, kind in folder.json_kinds.items() if kind == "labelme"]


def read_labelme(folder: Folder, files: list[str]) -> Gathered:
    """The images and boxes of LabelMe's files. Pictures that are embedded in them ("imageData") are left alone."""
    data = Gathered(folder, "labelme", [])
    boxes = NamedBoxes(data)
    for file in files:
        _read_file(data, boxes, file)
    data.notes.append(f"LabelMe: {len(files):,} JSON files with shapes")
    boxes.finish_one_file_an_image()
    return data


def _read_file(data: Gathered, boxes: NamedBoxes, file: str) -> None:
    content: Any = None
    try:
        content = read_json(data.folder.path(file))
        why = 'it has no list of "shapes"'
    except (DatasetFormatError, InputError) as error:
        why = str(error)
    content = content if isinstance(content, dict) else {}
    shapes = content.get("shapes")
    image = _image_of(data, file, content.get("imagePath"))
    if image is None:
        return
    size = declared_size(content.get("imageWidth"), content.get("imageHeight"))
    row = image_row(
        data, file, image, size, split_of_path(folder_of(image)) or split_of_path(folder_of(file))
    )
    if not isinstance(shapes, list):
        data.problem("unreadable_label", file, why, "Correct the file, or delete it.", image=image)
        return
    for number, shape in enumerate(shapes, 1):
        said = shape if isinstance(shape, dict) else {}
        kind = said.get("shape_type") or "polygon"  # files before version 3 have none
        if isinstance(kind, str) and kind in _NO_BOX:
            boxes.left_out[_NO_BOX[kind]] += 1
            continue
        corners, what = _box_of(str(kind), said.get("points"))
        if what:
            boxes.upright[what] += 1
        boxes.add(file, row, said.get("label"), corners, f"shape {number}", shown=shape)


def _image_of(data: Gathered, file: str, name: Any) -> str | None:
    """The image of a label file: the one that it names, else the one with its stem, else one of the same name.

    LabelMe writes the path from the label file to the picture, which is stale as soon as one of them is moved. None
    where it leads out of the folder and nothing in the folder is called like it; that is told of.
    """
    folder, place = data.folder, folder_of(file)
    inside = folder.inside(name, place) if isinstance(name, str) else ""
    own = folder.images_by_stem.get(stem_of(file), [])
    named = folder.images_by_name.get(name_of(inside or ""), [])
    for path in (f"{place}/{inside}", inside):
        if path in named:
            return path
    for options in (own, named):
        if options:
            return max(options, key=lambda image: (nearness(file, image), -len(image)))
    if inside is None:
        data.outside(file, name)
        return None
    image = f"{place}/{name_of(inside) or stem_of(file) + '.jpg'}".lstrip("/")
    data.missing_image(file, image)
    return image


def _box_of(kind: str, points: Any) -> tuple[list[float] | None, str]:
    """Left, top, right, bottom; and what it is that these are the upright box of, "" for an upright box."""
    box = points_box(points)
    if kind == "rectangle":
        return box, ""
    if kind == "circle":  # its centre and a point on it
        if box is None or len(points) != 2:
            return None, ""
        (x, y), edge = ((float(number) for number in point) for point in points)
        radius = math.dist((x, y), tuple(edge))
        return [x - radius, y - radius, x + radius, y + radius], "circle"
    return (box, _AROUND[kind]) if kind in _AROUND else (None, "")
