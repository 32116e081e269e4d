"""What is found in image files: header, damage, a hash of the pixels, a thumbnail.

Each file is looked at once, see image_cache. However many cores there are and however large the pictures, those that
are decoded at once hold `MEMORY` together, or one of them alone what it needs.
"""

import contextlib
import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from odkit.data import image_cache
from odkit.data.image_cache import ImageFacts
from odkit.data.images import ImageReadError, decoding_bytes, loaded, opened, read_header
from odkit.system import InputError, cpu_count, open_file, progress_bar

LOOK_SIDE = 32  # pixels, the side of the thumbnail
MEMORY = 512 << 20  # bytes for pictures that are decoded at once, if there are no more than 8 threads,
MEMORY_OF_THREAD = 64 << 20  # else so much for each
_STRIP = 1 << 20  # pixels that are converted at a time
ONE_COLOUR = 8
"""Levels of 255 between the darkest and the brightest value of each channel in an image of one colour.

JPEG moves an even area by one or two, a covered lens's noise by a few; a white wall is darker in the corners by 20.
"""

_T = TypeVar("_T")


def inspect_images(
    paths: Sequence[str], *, decode: bool, num_workers: int | None = None, label: str = "reading images"
) -> list[ImageFacts]:
    """What is in each file: remembered where it was found before and the file is the same, else looked at now.

    Args:
        paths: The files.
        decode: Decode them in full, which finds those cut short and gives the hash of the pixels and the thumbnail.
        num_workers: Threads; None: two more than there are CPU cores.
        label: Words for the progress bar.
    """
    num_workers = num_workers or cpu_count() + 2
    once = list(dict.fromkeys(paths))
    marks = in_threads(image_cache.stamp, once, num_workers, "looking for images")
    stamps = dict(zip(once, marks, strict=True))
    known = image_cache.recall(once, list(stamps.values()), decoded=decode)
    todo = [path for path in stamps if path not in known]
    found: list[ImageFacts] = []
    room = _Room(max(MEMORY, num_workers * MEMORY_OF_THREAD))
    try:
        in_threads(lambda path: _inspect(path, decode, room), todo, num_workers, label, into=found)
    finally:  # what was found before an interrupt is not looked for again
        done = todo[: len(found)]
        image_cache.remember(done, [stamps[path] for path in done], found, decoded=decode)
    known.update(zip(todo, found, strict=True))
    return [known[path] if decode else known[path].of_header() for path in paths]


def header_sizes(paths: Sequence[Path | str]) -> list[tuple[int, int]]:
    """Width and height of each image, upright, from its header; (0, 0) where it cannot be read."""
    found = inspect_images([str(path) for path in paths], decode=False, label="reading image headers")
    return [facts.upright_size for facts in found]


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes; "" where it cannot be read."""
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, InputError):
        return ""


def in_threads(
    work: Callable[[str], _T],
    paths: Sequence[str],
    num_workers: int,
    label: str,
    into: list[_T] | None = None,
) -> list[_T]:
    """What `work` says of each path, in order; put into `into`, which after an error holds what was done before it."""
    results: list[_T] = [] if into is None else into
    chunks = [paths[i : i + 32] for i in range(0, len(paths), 32)]
    if not chunks:
        return results
    stopped = threading.Event()

    def done_of(chunk: Sequence[str]) -> list[_T]:
        return [work(path) for path in chunk if not stopped.is_set()]

    # Pillow warns about odd but harmless files, once a thread and file; filters are the process's, so they are set here
    with warnings.catch_warnings(), ThreadPoolExecutor(num_workers) as pool:
        warnings.simplefilter("ignore")
        try:
            with progress_bar(total=len(paths), desc=label, unit="image", delay=2) as bar:
                for done in pool.map(done_of, chunks):
                    results += done
                    bar.update(len(done))
        except BaseException:
            stopped.set()  # an interrupt waits for the image that each thread is at, and for no more
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


# -- one file --------------------------------------------------------------------------------------------------------


class _Room:
    """So much memory, taken before a picture is decoded and given back after; who asks for more waits to be alone."""

    def __init__(self, size: int) -> None:
        self._size, self._free, self._changed = size, size, threading.Condition()

    @contextlib.contextmanager
    def __call__(self, wanted: int) -> Iterator[None]:
        wanted = min(wanted, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


def _inspect(path: str, decode: bool, room: _Room) -> ImageFacts:
    try:
        length = os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return ImageFacts(problem="missing_image")
    except (OSError, ValueError) as error:
        return ImageFacts(
            problem="unreadable_image",
            detail=f"it cannot be opened: {getattr(error, 'strerror', None) or error}",
        )
    try:
        header = read_header(path)
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return ImageFacts(
            problem="huge_image", detail=f"it has more than {limit:,} pixels, the most that Pillow opens"
        )
    except Exception as error:  # Pillow's readers raise anything
        return ImageFacts(length=length, problem="unreadable_image", detail=_why_unreadable(path, error))
    width, height, orientation, mode = header
    if min(width, height) < 1:
        return ImageFacts(
            length=length, problem="unreadable_image", detail=f"its header says {width} x {height} pixels"
        )
    facts = ImageFacts(width, height, orientation, length, mode=mode)
    if not decode:
        return facts
    try:
        with opened(path) as image, room(decoding_bytes(image)):
            stored, turn = loaded(image)
            look = _look_of(stored, turn)
            colour = _colour_of(stored) if max(look) - min(look) <= ONE_COLOUR else b""
            return facts._replace(pixels=_hash_of(stored, orientation), look=look, colour=colour)
    except (ImageReadError, MemoryError) as error:
        reason = getattr(error, "reason", error)
        # a disk that fails, too many open files or too little memory may pass; damage stays
        lasting = not isinstance(reason, MemoryError) and getattr(reason, "errno", None) is None
        detail = f"{width} x {height} by its header, but: {reason}"
        return facts._replace(problem="unreadable_image", detail=detail, lasting=lasting)


def _hash_of(image: Image.Image, orientation: int) -> bytes:
    """A hash of the pixels as they are stored, and of how they are turned."""
    digest = hashlib.sha256(f"{image.size} {image.mode} {orientation}".encode())
    for strip in _strips(image):
        if image.mode not in ("RGB", "L", "P"):
            strip.convert("RGB")  # as training does
        # the bytes of a palette image say little without its palette
        digest.update((strip.convert("RGBA") if image.mode == "P" else strip).tobytes())
    return digest.digest()


def _look_of(image: Image.Image, turn: Image.Transpose | None) -> bytes:
    size = (LOOK_SIDE, LOOK_SIDE)
    if image.mode == "LAB":  # which Pillow makes grey by way of RGB alone
        image = image.convert("RGB")
    look = image.convert("L").resize(size, Image.Resampling.BOX)
    return (look if turn is None else look.transpose(turn)).tobytes()


def _colour_of(image: Image.Image) -> bytes:
    """The colour of an image that has just one, red, green and blue, as training sees it; else nothing."""
    found = np.array([strip.convert("RGB").getextrema() for strip in _strips(image)], np.int64)
    low, high = found[:, :, 0].min(0), found[:, :, 1].max(0)
    return bytes(((low + high) // 2).tolist()) if (high - low).max() <= ONE_COLOUR else b""


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    """An image from top to bottom, so many rows at a time as convert without doubling what a large one takes."""
    width, height = image.size
    rows = max(_STRIP // width, 1)
    if rows >= height:
        yield image
        return
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(top + rows, height)))


_BEGINNINGS = {
    b"<!doctype html": "an HTML page (a download that failed?)",
    b"<html": "an HTML page (a download that failed?)",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"version https://git-lfs": "a Git LFS pointer (`git lfs pull` fetches the image)",
    b"%pdf": "a PDF document",
    b"%!ps": "a PostScript file",
    b"8bps": "a Photoshop file: save it as JPEG or PNG",
    b"gimp xcf": "a GIMP file: export it as JPEG or PNG",
    b"pk\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"{": "a JSON file",
    b"\xff\xd8\xff": "a JPEG with a damaged header",
    b"\x89png": "a PNG with a damaged header",
    b"gif8": "a GIF with a damaged header",
    b"bm": "a BMP with a damaged header",
    b"riff": "a WebP (or a sound or a video) that is cut short or damaged",
    b"ii*\x00": "a TIFF (or a camera's raw file) that Pillow cannot read",
    b"mm\x00*": "a TIFF (or a camera's raw file) that Pillow cannot read",
    b"\x00\x00\x00\x0cjp  ": "a JPEG 2000 image that is cut short or damaged",
    b"\x00\x00\x00\x0cjxl": "a JPEG XL image, which Pillow cannot read: make it a JPEG",
}
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "an AVIF image that is cut short or damaged"),
    **dict.fromkeys(
        (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"),
        "a HEIC photograph, which Pillow cannot read: make it a JPEG",
    ),
}


def _why_unreadable(path: str, error: Exception) -> str:
    if isinstance(error, InputError):  # a pipe, a device
        return str(error).removeprefix(f"{path} ")
    try:
        with open_file(path) as file:
            head = file.read(64)
    except (OSError, InputError) as opening:
        return f"it cannot be opened: {getattr(opening, 'strerror', None) or opening}"
    if not head:
        return "the file is empty"
    if not head.strip(b"\x00"):
        return "the file begins with zero bytes (a copy that was interrupted?)"
    if head[4:8] == b"ftyp":
        return f"it looks like {_BRANDS.get(head[8:12], 'a video')} (brand {head[8:12].decode('latin-1')!r})"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, name in _BEGINNINGS.items():
        if start.startswith(beginning):
            why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
            return f"it looks like {name}{why}"
    return f"it is no image that Pillow knows (it begins with {head[:8]!r}; {type(error).__name__})"
