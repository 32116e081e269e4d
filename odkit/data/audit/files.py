"""What the image files say, as columns over the images of a dataset; and what lies beside them and is not read."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odkit.data.dataset import Dataset
from odkit.data.image_facts import inspect_images
from odkit.system import cpu_count


@dataclass(frozen=True, eq=False)
class Files:
    """What was read from the image files, as columns over the images."""

    stored: NDArray[np.int64]  # [N, 2] width, height; 0 where unreadable
    orientations: NDArray[np.int64]
    lengths: NDArray[np.int64]
    problems: NDArray[np.object_]
    details: NDArray[np.object_]
    modes: NDArray[np.object_]
    pixels: NDArray[np.object_]
    looks: NDArray[np.object_]  # grey thumbnails, b"" where not decoded
    colours: NDArray[np.object_]  # RGB of images of one colour, else b""
    num_workers: int

    @property
    def known(self) -> NDArray[np.bool_]:
        return self.stored[:, 0] > 0

    @property
    def upright(self) -> NDArray[np.int64]:
        return np.where(self.orientations[:, None] >= 5, self.stored[:, ::-1], self.stored)


def read_files(dataset: Dataset, decode: bool, num_workers: int | None) -> Files:
    paths = dataset.image_paths.tolist()
    num_workers = num_workers or cpu_count() + 2
    label = f"audit: {'decoding images' if decode else 'reading image headers'}"
    facts = inspect_images(paths, decode=decode, num_workers=num_workers, label=label)

    def column(name: str, kind: type) -> NDArray[Any]:
        values: NDArray[Any] = np.empty(len(facts), kind)
        values[:] = [getattr(one, name) for one in facts]
        return values

    return Files(
        stored=np.stack([column("width", np.int64), column("height", np.int64)], axis=1),
        orientations=column("orientation", np.int64),
        lengths=column("length", np.int64),
        problems=column("problem", object),
        details=column("detail", object),
        modes=column("mode", object),
        pixels=column("pixels", object),
        looks=column("look", object),
        colours=column("colour", object),
        num_workers=num_workers,
    )


# -- what lies beside them -------------------------------------------------------------------------------------------

PICTURES = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC, as iPhones take them"),
    **dict.fromkeys((".jxl",), "JPEG XL"),
    **dict.fromkeys((".j2c", ".jpc", ".jpf"), "JPEG 2000"),
    **dict.fromkeys((".psd", ".psb"), "Photoshop"),
    **dict.fromkeys((".xcf",), "GIMP"),
    **dict.fromkeys((".svg", ".svgz"), "SVG, a drawing without pixels"),
    **dict.fromkeys(
        (
            ".dng",
            ".raw",
            ".cr2",
            ".cr3",
            ".crw",
            ".nef",
            ".nrw",
            ".arw",
            ".sr2",
            ".orf",
            ".rw2",
            ".raf",
            ".pef",
            ".srw",
        ),
        "a camera's raw format",
    ),
    **dict.fromkeys((".exr", ".hdr"), "high dynamic range"),
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    **{suffix: suffix[1:].upper() for suffix in (".pcx", ".dds", ".ico", ".qoi")},
}
"""Suffixes of pictures that no reader takes (see `IMAGE_SUFFIXES`), and what they are."""
LABELS = {
    ".mat": "MATLAB",
    **dict.fromkeys((".pkl", ".pickle"), "a Python pickle"),
    **dict.fromkeys((".h5", ".hdf5"), "HDF5"),
    **dict.fromkeys((".parquet", ".feather", ".arrow"), "a table of Arrow's"),
    **dict.fromkeys((".jsonl", ".ndjson"), "JSON lines"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet"),
    **dict.fromkeys((".lst", ".rec"), "MXNet"),
    ".manifest": "an augmented manifest",
}
"""Suffixes of files that may hold labels, none of which a reader takes, and what they are."""
_CALLED = re.compile(r"annot|label|bbox|ground.?truth|^gt$", re.IGNORECASE)


class Unread(NamedTuple):
    """Files of one kind in one folder that no reader takes."""

    folder: str
    suffix: str  # a key of PICTURES or of LABELS
    names: list[str]  # sorted


def unread_files(dataset: Dataset) -> list[Unread]:
    """Pictures and labels of kinds that no reader takes, by folder and kind.

    Looked at are the folders in which images lie; for labels also those above, up to the dataset's own, and those in
    them that are called like labels. Nothing else, for a folder beside the images may hold anything.
    """
    of_images = {os.path.dirname(path) for path in dataset.image_paths.tolist()}
    above = _folders_above(dataset, of_images)
    inside = {folder: _inside(folder) for folder in of_images | above}
    called = {
        os.path.join(folder, name) for folder in above for name in inside[folder][1] if _CALLED.search(name)
    }
    inside |= {folder: _inside(folder) for folder in called - set(inside)}
    found: dict[tuple[str, str], list[str]] = {}
    for folder, (files, _) in inside.items():
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in LABELS or (suffix in PICTURES and folder in of_images):
                found.setdefault((folder, suffix), []).append(name)
    if not found:
        return []
    own = set(dataset.image_paths.tolist())
    stems = {os.path.splitext(path)[0].casefold() for path in own}

    def is_new(path: str, suffix: str) -> bool:
        # a raw picture beside the JPEG that the camera made of it is no other picture
        return path not in own and (suffix in LABELS or os.path.splitext(path)[0].casefold() not in stems)

    new = [
        Unread(folder, suffix, [name for name in sorted(names) if is_new(os.path.join(folder, name), suffix)])
        for (folder, suffix), names in sorted(found.items())
    ]
    return [one for one in new if one.names]


def _folders_above(dataset: Dataset, of_images: set[str]) -> set[str]:
    """The folders from those of the images up to the dataset's own; none where that is not known to be its own."""
    root = str(dataset.root)
    # one of a dataset that was made by hand, or comes from FiftyOne, may be a whole disk
    if dataset.format in ("", "fiftyone") or not all(
        Path(folder).is_relative_to(root) for folder in of_images
    ):
        return set()
    above = {root}
    for folder in of_images:
        while folder not in above:
            above.add(folder)
            folder = os.path.dirname(folder)
    return above


def _inside(folder: str) -> tuple[list[str], list[str]]:
    """Names of the files and of the folders in a folder, without hidden ones."""
    names: tuple[list[str], list[str]] = ([], [])
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    names[entry.is_dir()].append(entry.name)
    except OSError:
        pass  # what is missing or closed is told of its images
    return names
