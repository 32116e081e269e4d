"""What the audit reads off each image file: header, size, orientation, hash, damage."""

import hashlib
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from odkit.data.dataset import Dataset
from odkit.system import progress_bar

_EXIF_ORIENTATION = 0x0112
_T = TypeVar("_T")


def image_header(path: str | Path) -> tuple[int, int, int]:
    """Width and height of an image as stored, in pixels, and its EXIF orientation (1 to 8), without decoding it.

    Raises:
        OSError: The file is missing or is no image.
        PIL.Image.DecompressionBombError: The image is larger than Pillow opens (about 179 million pixels).
    """
    with Image.open(path) as image:
        return _header(image)


# -- reading the files -----------------------------------------------------------------------------------------------


class _File(NamedTuple):
    width: int = 0  # as stored
    height: int = 0
    orientation: int = 1
    length: int = -1  # bytes
    problem: str = ""  # a kind
    detail: str = ""
    mode: str = ""  # Pillow's name for the kind of pixels
    pixels: bytes = b""  # hash of the decoded pixels


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
    num_workers: int

    @property
    def known(self) -> NDArray[np.bool_]:
        return self.stored[:, 0] > 0

    @property
    def upright(self) -> NDArray[np.int64]:
        return np.where(self.orientations[:, None] >= 5, self.stored[:, ::-1], self.stored)


def read_files(dataset: Dataset, decode: bool, num_workers: int) -> Files:
    paths = dataset.image_paths.tolist()
    what = "decoding images" if decode else "reading image headers"
    rows = in_threads(lambda path: _read_file(path, decode), paths, num_workers, f"audit: {what}")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_File._fields)
    width, height, orientation, length, problem, detail, mode, pixels = columns
    return Files(
        stored=np.stack([np.array(width, np.int64), np.array(height, np.int64)], axis=1),
        orientations=np.array(orientation, np.int64),
        lengths=np.array(length, np.int64),
        problems=np.array(problem, object),
        details=np.array(detail, object),
        modes=np.array(mode, object),
        pixels=np.array(pixels, object),
        num_workers=num_workers,
    )


def in_threads(work: Callable[[str], _T], paths: list[str], num_workers: int, label: str) -> list[_T]:
    chunks = [paths[i : i + 32] for i in range(0, len(paths), 32)]
    results: list[_T] = []
    # Pillow warns about odd but harmless files, once a thread and file; filters are the process's, so they are set here
    with warnings.catch_warnings(), ThreadPoolExecutor(num_workers) as pool:
        warnings.simplefilter("ignore")
        try:
            with progress_bar(total=len(paths), desc=label, unit="image", delay=2) as bar:
                for done in pool.map(lambda chunk: [work(path) for path in chunk], chunks):
                    results += done
                    bar.update(len(done))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # an interrupt must not wait for the rest
            raise
    return results


def _read_file(path: str, decode: bool) -> _File:
    try:
        length = os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return _File(problem="missing_image")
    except (OSError, ValueError) as error:
        return _File(problem="unreadable_image", detail=f"it cannot be opened: {error}")
    try:
        with Image.open(path) as image:
            width, height, orientation = _header(image)
            file = _File(width, height, orientation, length, mode=image.mode)
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return _File(
            problem="huge_image", detail=f"it has more than {limit:,} pixels, the most that Pillow opens"
        )
    except (
        Exception
    ) as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and others
        return _File(length=length, problem="unreadable_image", detail=_why_unreadable(path, error))
    if min(width, height) < 1:
        return _File(
            length=length, problem="unreadable_image", detail=f"its header says {width} x {height} pixels"
        )
    if not decode:
        return file
    try:
        with Image.open(path) as image:
            # the bytes of a palette image say little without its palette
            pixels = image.convert("RGBA") if image.mode == "P" else image
            if image.mode not in ("RGB", "L", "P"):
                image.convert("RGB")  # as training does
            key = f"{pixels.size} {pixels.mode} {orientation}".encode()
            return file._replace(pixels=hashlib.sha256(key + pixels.tobytes()).digest())
    except Exception as error:  # see above
        return file._replace(
            problem="unreadable_image", detail=f"{width} x {height} by its header, but: {error}"
        )


def _header(image: Image.Image) -> tuple[int, int, int]:
    try:
        # the base class's method: PNG's own decodes the whole image first
        orientation = int(Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block raises anything; every viewer then shows the image as stored
        orientation = 1
    orientation = orientation if 1 <= orientation <= 8 else 1
    width, height = image.size
    # Pillow gives TIFFs their upright size already, in contrast to every other format
    if image.format == "TIFF" and orientation >= 5:
        width, height = height, width
    return width, height, orientation


_BEGINNINGS = {
    b"<!doctype html": "an HTML page (a download that failed?)",
    b"<html": "an HTML page (a download that failed?)",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"version https://git-lfs": "a Git LFS pointer (`git lfs pull` fetches the image)",
    b"%pdf": "a PDF document",
    b"pk\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"{": "a JSON file",
    b"\xff\xd8\xff": "a JPEG with a damaged header",
    b"\x89png": "a PNG with a damaged header",
    b"gif8": "a GIF with a damaged header",
    b"bm": "a BMP with a damaged header",
    b"ii*\x00": "a TIFF (or a camera's raw file) that Pillow cannot read",
    b"mm\x00*": "a TIFF (or a camera's raw file) that Pillow cannot read",
    b"\x00\x00\x00\x0cjxl": "a JPEG XL image, which Pillow cannot read",
}


def _why_unreadable(path: str, error: Exception) -> str:
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as opening:
        return f"it cannot be opened: {opening.strerror or opening}"
    if not head:
        return "the file is empty"
    if not head.strip(b"\x00"):
        return "the file begins with zero bytes (a copy that was interrupted?)"
    if head[4:8] == b"ftyp":
        brand = head[8:12].decode("ascii", "replace")
        return f"it looks like a HEIC, AVIF or video file (brand {brand!r}), which Pillow cannot read: make it a JPEG"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, name in _BEGINNINGS.items():
        if start.startswith(beginning):
            return f"it looks like {name}"
    return f"it is no image that Pillow knows (it begins with {head[:8]!r}; {type(error).__name__})"


def _cores() -> int:
    # the cores this process may use, which in a container or a batch job are fewer than the machine has
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
