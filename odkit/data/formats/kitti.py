"""KITTI's text files: a file an image, a line a box (the object development kit of the KITTI benchmark)."""

from odkit.data.formats.reader_base import (
    Folder,
    Gathered,
    NamedBoxes,
    beginning,
    folder_of,
    image_row,
    is_float,
    lines_of,
    nearness,
    read_text,
    short,
    split_of_path,
    stem_of,
    why_unreadable,
)
from odkit.system import InputError, counted

IGNORED = "DontCare"
"""The type of regions where objects were not labelled."""
_NUMBERS = 14
"""Truncated, occluded, alpha, 4 corners, 3 sides, 3 places, an angle; results have a score behind."""


def find_kitti(folder: Folder) -> list[str]:
    """The label files of a folder; empty where there are none.

    A folder's text files are KITTI's if most of their first lines are a name and fourteen numbers; YOLO's begin with a
    number, and the calibrations that lie beside KITTI's labels have fewer.
    """
    by_folder: dict[str, list[str]] = {}
    for file in folder.with_suffix(".txt"):
        by_folder.setdefault(folder_of(file), []).append(file)
    found = []
    for files in by_folder.values():
        paired = [file for file in files if stem_of(file) in folder.images_by_stem]
        boxes = [_is_box(line) for file in paired[:200] if (line := _first_line(folder, file))]
        if sum(boxes) * 2 > len(boxes):
            alone = set(files).difference(paired)
            found += paired + [file for file in sorted(alone) if _is_box(_first_line(folder, file))]
    return found


def _first_line(folder: Folder, file: str) -> str:
    head = beginning(folder.path(file), 2000).decode("utf-8", errors="replace")
    return next(iter(lines_of(head)), "").strip()


def _is_box(line: str) -> bool:
    name, numbers = _parts(line)
    return bool(name) and len(numbers) in (_NUMBERS, _NUMBERS + 1)


def _parts(line: str) -> tuple[str, list[str]]:
    """The name that a line begins with, which may have blanks in it, and the numbers after it."""
    parts = line.split()
    start = max((k + 1 for k, part in enumerate(parts) if not is_float(part)), default=0)
    return " ".join(parts[:start]), parts[start:]


def read_kitti(folder: Folder, files: list[str]) -> Gathered:
    """The images and boxes of KITTI's label files; an empty one is of an image without objects."""
    data = Gathered(folder, "kitti", [])
    boxes = NamedBoxes(data)
    ignored = 0
    for file in files:
        image = _image_of(data, file)
        row = image_row(data, file, image, (0, 0), split_of_path(folder_of(image)))
        try:
            lines = lines_of(read_text(folder.path(file)))
        except (OSError, InputError) as error:
            why = f"it cannot be read: {why_unreadable(error, folder.path(file))}"
            data.problem("unreadable_label", file, why, "Make it readable.", image=image)
            continue
        for number, line in enumerate(lines, 1):
            name, numbers = _parts(line)
            if name == IGNORED:
                ignored += 1
            elif name and len(numbers) >= _NUMBERS:
                boxes.add(file, row, name, numbers[3:7], f"line {number}")
            elif line.strip():
                data.problem(
                    "unreadable_label",
                    file,
                    f"line {number} is not a name and {_NUMBERS} numbers: {short(line)}; it is left out",
                    "Correct or delete the line.",
                    image=image,
                    box=f"line {number}",
                )
    data.notes.append(f"KITTI: {len(files):,} label files, corners in pixels from 0")
    if ignored:
        regions = counted(ignored, f"region {IGNORED}")
        data.notes.append(f"left out: {regions}, in which nothing was labelled")
    boxes.finish_one_file_an_image()
    return data


def _image_of(data: Gathered, file: str) -> str:
    """The image of a label file: the one in image_2/ for label_2/, in images/ for labels/, else the nearest."""
    usual = "/".join(part.replace("label", "image", 1) for part in folder_of(file).split("/"))
    options = data.folder.images_by_stem.get(stem_of(file), [])
    if options:
        return max(options, key=lambda image: (folder_of(image) == usual, nearness(file, image), -len(image)))
    image = f"{usual}/{stem_of(file)}.png".lstrip("/")
    data.problem(
        "label_without_image",
        file,
        f"there is no image for it (such as {image})",
        "Put the image back or delete the label file.",
        severity="warning",
        image=image,
    )
    return image
