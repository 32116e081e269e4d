"""Writing a dataset in a format, and converting between two."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from odkit.data.audit import on_file_pixels
from odkit.data.dataset import Dataset
from odkit.data.formats.coco import write_coco
from odkit.data.formats.createml import createml_places, write_createml
from odkit.data.formats.cvat import cvat_places, write_cvat
from odkit.data.formats.load import choose, listed, load_dataset, shown_path
from odkit.data.formats.names import TITLES
from odkit.data.formats.reader_base import short
from odkit.data.formats.voc import write_voc
from odkit.data.formats.writer_base import flat_names, kept_ids, put_images, unread_labels, writable_boxes
from odkit.data.formats.yolo import write_yolo, yolo_places
from odkit.system import FileInTheWayError, InputError, LeftOutWarning, counted, sync_folder, sync_tree


@dataclass(frozen=True, slots=True)
class Writer:
    """A row of `WRITERS`."""

    title: str
    arrange: Callable[[Dataset], list[str]]  # where each image goes, relative to the new folder
    sizes: Literal[
        "stated", "of the files", "shares"
    ]  # whether the labels state images' sizes; or shares of them
    write: Callable[[Dataset, Path, Sequence[str]], list[str]]  # write the labels; in words what they become


def _voc_places(dataset: Dataset) -> list[str]:
    return flat_names(dataset, lambda split: "JPEGImages")


def _yolo_places(dataset: Dataset) -> list[str]:
    places = yolo_places(dataset)
    return flat_names(dataset, places.__getitem__)


WRITERS: dict[str, Writer] = {
    "coco": Writer(TITLES["coco"], kept_ids, "stated", write_coco),
    "voc": Writer(TITLES["voc"], _voc_places, "stated", write_voc),
    "yolo": Writer(TITLES["yolo"], _yolo_places, "shares", write_yolo),
    "cvat": Writer(TITLES["cvat"], cvat_places, "stated", write_cvat),
    "createml": Writer(TITLES["createml"], createml_places, "of the files", write_createml),
}
"""What `write_dataset` can write, by the name of the format."""
# -- writing ---------------------------------------------------------------------------------------------------------

_IMAGES = ("copy", "link", "none")
_WRITING = ".writing-"  # how the folders begin in which an unfinished dataset lies


def write_dataset(
    dataset: Dataset,
    folder: str | Path,
    format: str = "coco",  # noqa: A002
    *,
    images: str = "copy",
    partial: bool = False,
) -> Path:
    """Write a dataset into a new folder; it is there whole or not at all, and the source stays as it is.

    Boxes come back from it within a thousandth of a pixel. Where labels would be lost (they could not be read, or have
    no class) nothing is written unless `partial` says so. What the format holds otherwise, and images that are not
    there, are told in a warning. Image ids stay as they are in COCO; the others want their own folders, so there they
    are JPEGImages/NAME (VOC), images/SPLIT/NAME (YOLO), images/NAME (CVAT) and SPLIT/NAME (CreateML).

    Args:
        dataset: What to write.
        folder: Where to; it must not exist or be empty.
        format: "coco", "voc", "yolo", "cvat" or "createml".
        images: "copy" them, "link" to them (symbolic links), or "none" to write only the labels.
        partial: Leave out the labels that cannot be carried over, and the images of which no label is left then: as
            images without objects they would teach that what stands on them is background. A LeftOutWarning says
            what is left out.

    Returns:
        The folder's absolute path.

    Raises:
        DatasetFormatError: The format is not known.
        InputError: Labels would be lost; the message says which.
        FileExistsError: The folder holds something, or is a file.
        ValueError: `images` is none of the three.
    """
    writer: Writer = choose(WRITERS, format, "write")
    if images not in _IMAGES:
        raise InputError(f"images={images!r} must be one of {', '.join(map(repr, _IMAGES))}")
    folder = _new_folder(folder)
    dataset, left_out = _without_lost(dataset)
    changed: list[str] = []
    if writer.sizes != "stated":
        dataset, more, changed = _on_the_files(dataset, writer)
        left_out += more
    if left_out and not partial:
        raise InputError(
            "\n  - ".join([f"{dataset.root} would lose labels, so nothing is written:", *left_out])
            + "\n`odkit audit` lists them all. Correct them, or write the rest with --partial (in Python partial=True)"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f"{_WRITING}{folder.name[:40]}-", dir=folder.parent))
    try:
        workshop.chmod(0o755)  # mkdtemp's folders are closed to others
        files = writer.arrange(dataset)
        missing, more = put_images(dataset, workshop, files, images)
        left_out, changed = left_out + missing, changed + more
        changed += writer.write(dataset, workshop, files)
        _refuse_full(folder)
        sync_tree(workshop)  # an empty label file would say that there is nothing in the image
        _move(workshop, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    if left_out:
        warnings.warn("\n  - ".join([f"{folder} is not the whole:", *left_out]), LeftOutWarning, stacklevel=2)
    if changed:
        warnings.warn("\n  - ".join([f"{folder}:", *changed]), stacklevel=2)
    return folder


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: str = "coco",
    images: str = "copy",
    format: str | None = None,  # noqa: A002
    partial: bool = False,
) -> Path:
    """Write the dataset at `source` into the new folder `target` in another format; see `write_dataset`.

    No splits are dealt: what has none stays without. `format` says what the source is read as, see `load_dataset`.
    """
    choose(WRITERS, to, "write")
    return write_dataset(
        load_dataset(source, format=format, val=0), target, to, images=images, partial=partial
    )


def _without_lost(dataset: Dataset) -> tuple[Dataset, list[str]]:
    """What of a dataset can be written, and in words what is left out."""
    unread, left_out = unread_labels(dataset)
    keep, more = writable_boxes(dataset)
    left_out += more
    if not left_out:
        return dataset, []
    finite = np.isfinite(dataset.boxes).all(1)
    unread[dataset.box_images[~finite]] = True  # where an object is, nobody knows: as if it had not been read
    kept = dataset.select_boxes(keep)
    emptied = unread & (kept.boxes_per_image() == 0)
    if emptied.any():
        first = dataset.image_ids[int(np.flatnonzero(emptied)[0])]
        left_out.append(f"{counted(int(emptied.sum()), 'image')} of which no label is left: {first}")
        kept = kept.select(~emptied)
    return kept, left_out


def _on_the_files(dataset: Dataset, writer: Writer) -> tuple[Dataset, list[str], list[str]]:
    """The boxes on the files' pixels, for labels that state no sizes; what is left out, and what is changed."""
    now, undecided = on_file_pixels(dataset)
    left_out, changed = [], []
    moved = np.unique(dataset.box_images[(now.boxes != dataset.boxes).any(1)])
    if len(moved):
        changed.append(
            f"{writer.title} states no sizes: the boxes of {counted(len(moved), 'image')} were drawn on another size "
            f"than the file's, or on its pixels as stored, and are moved to where they lie on it upright: "
            f"{dataset.image_ids[int(moved[0])]}"
        )
    if undecided.any():
        row = int(np.flatnonzero(undecided)[0])
        width, height = dataset.image_sizes[row].tolist()
        left_out.append(
            f"{counted(int(undecided.sum()), 'image')} whose boxes may be drawn on another size than the file's: "
            f"{dataset.image_ids[row]}, declared {width} x {height}"
        )
    unknown = np.asarray((now.image_sizes <= 0).any(1)) & (writer.sizes == "shares")
    boxes = unknown[now.box_images]
    if boxes.any():
        where = now.image_ids[now.box_images[int(np.flatnonzero(boxes)[0])]]
        left_out.append(f"{counted(int(boxes.sum()), 'box')} in an image of unknown size: {where}")
        undecided |= unknown & (now.boxes_per_image() > 0)
    return (now.select(~undecided) if undecided.any() else now), left_out, changed


def _new_folder(path: str | Path) -> Path:
    """A path for a new folder, absolute.

    Raises:
        FileInTheWayError: It holds something, or it or a folder above it is a file.
        InputError: Its name is too long, or its "~" stands for nobody's home.
    """
    try:
        folder = Path(os.path.abspath(Path(path).expanduser()))
    except RuntimeError:
        raise InputError(f'{path}: there is no home that this "~" stands for: give the whole path') from None
    if longest := next((part for part in folder.parts if len(os.fsencode(part)) > 255), None):
        raise InputError(
            f"{short(longest)} has {len(os.fsencode(longest))} bytes, and names of files at most 255"
        )
    if folder.is_symlink() and not folder.exists():
        raise FileInTheWayError(
            f"{folder} is a link to {os.readlink(folder)}, which is not there; give another path"
        )
    _refuse_full(folder)
    if blocking := next((above for above in folder.parents if above.exists() and not above.is_dir()), None):
        raise FileInTheWayError(f"{blocking} is a file, so that {folder} cannot be made; give another path")
    return folder


def _refuse_full(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileInTheWayError(f"{folder} is a file; give the path of a new folder")
    there = sorted(listed(folder))
    if there:
        raise FileInTheWayError(
            f"{folder} is not empty (it holds {shown_path(there)}); give a new or an empty folder"
        )


def _move(workshop: Path, folder: Path) -> None:
    """Put the finished dataset where it belongs: in one step, or into an empty folder that cannot be replaced."""
    try:
        if folder.is_dir() and not folder.is_symlink():
            folder.rmdir()
        os.replace(workshop, folder)
    except OSError:
        folder.mkdir(exist_ok=True)
        for entry in sorted(workshop.iterdir()):
            shutil.move(entry, folder / entry.name)
        sync_tree(folder)
