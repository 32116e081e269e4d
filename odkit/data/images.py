"""The one reader of pictures: suffixes, header, size, orientation, pixels.

An image file holds its pixels as stored and, in its EXIF block, how to turn them: its orientation, 1 to 8. Everything
in odkit (boxes, declared sizes, training) is of the upright image.
"""

import contextlib
import math
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from odkit.system import OdkitError, open_file

_JPEG, _NETPBM, _JPEG_2000 = (
    (".jpg", ".jpeg", ".jpe", ".jfif"),
    (".ppm", ".pgm", ".pbm", ".pnm"),
    (".jp2", ".j2k", ".jpx"),
)
IMAGE_SUFFIXES = frozenset(
    (*_JPEG, ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".mpo", ".tga", *_NETPBM, *_JPEG_2000)
)
"""The names of pictures, whoever looks for them. What a file is, its bytes say, among `_FORMATS`."""
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000", "TGA", "DIB")
"""What Pillow may take a picture for; a file of its other formats could start other programs (EPS: Ghostscript)."""
_EXIF_ORIENTATION = 0x0112
_TOLD_IN = (
    "exif",
    "Raw profile type exif",
    "XML:com.adobe.xmp",
    "xmp",
)  # where Pillow looks for an orientation
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

DRAFT_MARGIN = 1.5
"""A JPEG is decoded at 1/2, 1/4 or 1/8 where each side keeps so many times the pixels that are asked for, so that what
is resized after still weighs its neighbours: pixels differ by 0.4 of 255 in the mean from those of a whole decoding."""


_DECODER_BYTES = {"WEBP": 12, "AVIF": 8, "JPEG2000": 12, "TIFF": 4}
"""What some decoders hold of each pixel while they work, beside the picture itself, in bytes (measured); a progressive
JPEG's holds 8."""


class ImageReadError(OdkitError, ValueError):
    """An image file cannot be read, or is not what its labels say; the message names the file."""

    reason: Exception | None = None  # what Pillow or the system said


class Header(NamedTuple):
    """What an image file says of itself before its pixels."""

    width: int  # pixels, as stored
    height: int
    orientation: int  # EXIF's, 1 to 8; 1 where there is none, or one that cannot be read
    mode: str  # Pillow's name for the kind of pixels

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the upright image, in pixels."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


# -- without decoding ------------------------------------------------------------------------------------------------


def read_header(path: str | Path) -> Header:
    """An image's header; its pixels are not decoded.

    Raises:
        OSError: The file is missing or is no image.
        PIL.Image.DecompressionBombError: The image is larger than Pillow opens (about 179 million pixels).
        Exception: The header is damaged; Pillow's readers raise anything.
    """
    with open_file(path) as file, Image.open(file, formats=_FORMATS) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):  # Pillow has swapped them already, for some orientations
            width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
        elif isinstance(image, PngImageFile):
            _read_png_end(image)
        return Header(width, height, _orientation(image), "I;16" if _is_sixteen(image) else image.mode)


def upright_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image in pixels, upright, from its header; (0, 0) where it cannot be read."""
    try:
        return read_header(path).upright_size
    except Exception:  # see above; the audit says what is wrong with it
        return 0, 0


def _orientation(image: Image.Image) -> int:
    try:
        # the base class's method: PNG's own decodes the whole image first
        orientation = int(Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block raises anything; every viewer then shows the image as stored
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def _read_png_end(image: PngImageFile) -> None:
    """Let Pillow read what stands behind a PNG's pixels, where an EXIF block may be, and skip the pixels."""
    if image.fp is None or image.png is None:
        return
    image.fp.seek(8)  # behind the signature
    pixels = False
    try:
        while True:
            length, kind = struct.unpack(">I4s", image.fp.read(8))
            start = image.fp.tell()
            pixels |= kind == b"IDAT"
            if kind == b"IEND" or (pixels and kind == b"fcTL"):  # the end, or an animation's next picture
                break
            if pixels and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                image.png.call(kind, start, length)
            image.fp.seek(start + length + 4)
    except Exception:  # cut short or damaged: that is found when its pixels are decoded
        pass
    image.info.update(image.png.im_info)


# -- decoding --------------------------------------------------------------------------------------------------------


def open_upright(path: str | Path, *, draft: tuple[str, tuple[int, int]] | None = None) -> Image.Image:
    """An image file decoded and turned upright, its pixels of the kind that is stored.

    Args:
        path: The file.
        draft: Mode and size that will do: a JPEG is then decoded at about that size, which is quicker.

    Raises:
        ImageReadError: The file is missing, damaged or no image.
    """
    with opened(path) as image:
        if draft is not None:
            image.draft(*draft)
        return turned_upright(image)


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """An image file open as Pillow has it; what is raised within is an ImageReadError of that file."""
    try:
        with open_file(path) as file, Image.open(file, formats=_FORMATS) as image:
            yield image
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise anything on a damaged file
        if isinstance(error, FileNotFoundError):
            why = "there is no such file"
        else:
            unknown = isinstance(error, UnidentifiedImageError)  # which speaks of the open file's address
            reason = "it is none that Pillow knows" if unknown else error
            why = f"cannot be read as an image ({reason}); `odkit audit` lists all such"
        failed = ImageReadError(f"{path}: {why}")
        failed.reason = error
        raise failed from None


def turned_upright(image: Image.Image) -> Image.Image:
    """An image of Pillow's loaded and turned as its EXIF block says; the turned one says nothing more of it.

    Raises:
        Exception: Its file is damaged; Pillow's readers raise anything.
    """
    image, turn = loaded(image)
    if turn is None:
        return image
    turned = image.transpose(turn)
    for told in _TOLD_IN:  # a copy has them all, and would be turned again
        turned.info.pop(told, None)
    return turned


def loaded(image: Image.Image) -> tuple[Image.Image, Image.Transpose | None]:
    """An image of Pillow's decoded, 16-bit grey as the upper 8 of its bits, and how it is turned upright (None: it is).

    Raises:
        Exception: Its file is damaged; Pillow's readers raise anything.
    """
    sixteen = _is_sixteen(image)
    image.load()
    # loading turns a TIFF by itself
    turn = None if isinstance(image, TiffImageFile) else _TO_UPRIGHT.get(_orientation(image))
    if not sixteen:
        return image, turn
    # as Pillow does of 16-bit colours; of grey it would cut off at 255, and nearly all would be white
    upper = np.empty(image.size[::-1], np.uint8)
    np.right_shift(np.asarray(image), 8, out=upper, casting="unsafe")
    grey = Image.fromarray(upper)
    grey.info = dict(image.info)
    return grey, turn


def decoding_bytes(image: Image.Image) -> int:
    """How much memory decoding an image takes at most, and looking at it, by its header."""
    stored = {"1": 1, "L": 1, "P": 1}.get(image.mode, 8 if image.mode[0] in "IF" else 4)
    grey = 1 if image.mode in ("1", "L", "P", "LA", "RGB", "RGBA") else 5  # others become RGB on the way
    progressive = 8 if image.info.get("progressive") else 0
    extra = _DECODER_BYTES.get(image.format or "", progressive)
    return image.size[0] * image.size[1] * (stored + grey + extra)


def _is_sixteen(image: Image.Image) -> bool:
    """Whether an image is grey of 16 bits, from 0 to 65535; netpbm's Pillow holds in 32, made so bright."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def read_pixels(path: str | Path) -> NDArray[np.uint8]:
    """An image file as RGB, upright, uint8 [H, W, 3].

    Raises:
        ImageReadError: The file is missing, damaged or no image.
    """
    return read_shrunk(path, lambda width, height: (width, height)).pixels


class Shrunk(NamedTuple):
    """An image's pixels, or as many as were asked for."""

    pixels: NDArray[np.uint8]  # RGB [h, w, 3], upright
    size: tuple[int, int]  # width and height of the upright image as the file has it, in pixels


def read_shrunk(path: str | Path, fit: Callable[[int, int], tuple[int, int]]) -> Shrunk:
    """An image file as RGB, upright: a JPEG of many more pixels than are asked for is made so small on the way.

    A JPEG's blocks of 8 x 8 pixels can be decoded as 4 x 4, 2 x 2 or 1 x 1, which is several times quicker; the rest
    is resized (bilinear, antialiased). Where that would leave a side with less than `DRAFT_MARGIN` times what is asked
    for, and of other kinds of files, all pixels are returned.

    Args:
        path: The file.
        fit: The size that is asked for, from the image's width and height (turned if they are), in pixels.

    Raises:
        ImageReadError: The file is missing, damaged or no image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's notes on odd metadata do not concern the pixels
        with opened(path) as image:
            stored, asked = image.size, fit(*image.size)
            drafted = image.draft(
                "RGB", (math.ceil(asked[0] * DRAFT_MARGIN), math.ceil(asked[1] * DRAFT_MARGIN))
            )
            if drafted is None or image.size == stored:
                upright = turned_upright(image)
                return Shrunk(np.array(_as_rgb(upright)), upright.size)
            # its last blocks may reach over the edge: the image ends where its box does
            small = _as_rgb(image).resize(asked, Image.Resampling.BILINEAR, box=drafted[1])
            whole = stored[::-1] if _orientation(small) >= 5 else stored
            return Shrunk(np.array(turned_upright(small)), whole)


def _as_rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")
