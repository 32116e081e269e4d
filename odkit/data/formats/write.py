"""Writing a dataset in a format, and converting between two."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from odkit.data.dataset import Dataset
from odkit.data.formats.coco import write_coco
from odkit.data.formats.createml import createml_places, write_createml
from odkit.data.formats.cvat import cvat_places, write_cvat
from odkit.data.formats.load import choose, listed, load_dataset, shown_path
from odkit.data.formats.names import TITLES
from odkit.data.formats.voc import write_voc
from odkit.data.formats.writer_base import flat_names, kept_ids, put_images, unread_labels, writable_boxes
from odkit.data.formats.yolo import write_yolo, yolo_places
from odkit.system import FileInTheWayError, InputError, LeftOutWarning, counted, sync_folder, sync_tree


@dataclass(frozen=True, slots=True)
class Writer:
    """A row of `WRITERS`."""

    title: str
    arrange: Callable[[Dataset], list[str]]  # where each image goes, relative to the new folder
    write: Callable[[Dataset, Path, Sequence[str]], list[str]]  # write the labels; in words what they become


def _voc_places(dataset: Dataset) -> list[str]:
    return flat_names(dataset, lambda split: "JPEGImages")


def _yolo_places(dataset: Dataset) -> list[str]:
    places = yolo_places(dataset)
    return flat_names(dataset, places.__getitem__)


WRITERS: dict[str, Writer] = {
    "coco": Writer(TITLES["coco"], kept_ids, write_coco),
    "voc": Writer(TITLES["voc"], _voc_places, write_voc),
    "yolo": Writer(TITLES["yolo"], _yolo_places, write_yolo),
    "cvat": Writer(TITLES["cvat"], cvat_places, write_cvat),
    "createml": Writer(TITLES["createml"], createml_places, write_createml),
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
    folder = Path(os.path.abspath(os.path.expanduser(folder)))
    _refuse_full(folder)
    dataset, left_out = _without_lost(dataset)
    if left_out and not partial:
        raise InputError(
            "\n  - ".join([f"{dataset.root} would lose labels, so nothing is written:", *left_out])
            + "\n`odkit audit` lists them all. Correct them, or write the rest with --partial (in Python partial=True)"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f"{_WRITING}{folder.name}-", dir=folder.parent))
    try:
        workshop.chmod(0o755)  # mkdtemp's folders are closed to others
        files = writer.arrange(dataset)
        missing = put_images(dataset, workshop, files, images)
        changed = writer.write(dataset, workshop, files)
        _refuse_full(folder)
        sync_tree(workshop)  # an empty label file would say that there is nothing in the image
        _move(workshop, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    if missing:
        left_out.append(f"{missing:,} images are missing, so their labels stand alone")
    if left_out:
        warnings.warn("\n  - ".join([f"{folder} lacks", *left_out]), LeftOutWarning, stacklevel=2)
    if changed:
        warnings.warn(f"{folder}: {'; '.join(changed)}", stacklevel=2)
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
