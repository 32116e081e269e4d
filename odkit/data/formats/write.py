"""Writing a dataset in a format, and converting between two."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from odkit.data.dataset import Dataset
from odkit.data.formats.coco import write_coco
from odkit.data.formats.createml import createml_places, write_createml
from odkit.data.formats.cvat import cvat_places, write_cvat
from odkit.data.formats.load import choose, listed, load_dataset, shown_path
from odkit.data.formats.names import TITLES
from odkit.data.formats.voc import write_voc
from odkit.data.formats.writer_base import flat_names, kept_ids, put_images
from odkit.data.formats.yolo import write_yolo, yolo_places
from odkit.system import FileInTheWayError, InputError, sync_folder, sync_tree


@dataclass(frozen=True, slots=True)
class Writer:
    """A row of `WRITERS`."""

    title: str
    arrange: Callable[[Dataset], list[str]]  # where each image goes, relative to the new folder
    write: Callable[[Dataset, Path, Sequence[str]], list[str]]  # write the labels; in words what is lost


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
) -> Path:
    """Write a dataset into a new folder; it is there whole or not at all, and the source stays as it is.

    Boxes come back from it within a thousandth of a pixel. What the format cannot hold is told in a warning. Image
    ids stay as they are in COCO; the others want their own folders, so there they are JPEGImages/NAME (VOC),
    images/SPLIT/NAME (YOLO), images/NAME (CVAT) and SPLIT/NAME (CreateML).

    Args:
        dataset: What to write.
        folder: Where to; it must not exist or be empty.
        format: "coco", "voc", "yolo", "cvat" or "createml".
        images: "copy" them, "link" to them (symbolic links), or "none" to write only the labels.

    Returns:
        The folder's absolute path.

    Raises:
        DatasetFormatError: The format is not known.
        FileExistsError: The folder holds something, or is a file.
        ValueError: `images` is none of the three.
    """
    writer: Writer = choose(WRITERS, format, "write")
    if images not in _IMAGES:
        raise InputError(f"images={images!r} must be one of {', '.join(map(repr, _IMAGES))}")
    folder = Path(os.path.abspath(os.path.expanduser(folder)))
    _refuse_full(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f"{_WRITING}{folder.name}-", dir=folder.parent))
    try:
        workshop.chmod(0o755)  # mkdtemp's folders are closed to others
        files = writer.arrange(dataset)
        missing = put_images(dataset, workshop, files, images)
        lost = writer.write(dataset, workshop, files)
        _refuse_full(folder)
        sync_tree(workshop)  # an empty label file would say that there is nothing in the image
        _move(workshop, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    if missing:
        lost.append(f"{missing:,} images are missing, so their labels stand alone")
    if lost:
        warnings.warn(f"{folder}: {'; '.join(lost)}", stacklevel=2)
    return folder


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: str = "coco",
    images: str = "copy",
    format: str | None = None,  # noqa: A002
) -> Path:
    """Write the dataset at `source` into the new folder `target` in another format; see `write_dataset`.

    No splits are dealt: what has none stays without. `format` says what the source is read as, see `load_dataset`.
    """
    choose(WRITERS, to, "write")
    return write_dataset(load_dataset(source, format=format, val=0), target, to, images=images)


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
