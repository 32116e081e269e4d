"""The one reader of pictures: suffixes, header, size, orientation, pixels.

An image file holds its pixels as stored and, in its EXIF block, how to turn them: its orientation, 1 to 8. Everything
in odkit (boxes, declared sizes, training) is of the upright image.
"""

import struct
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from odkit.system import OdkitError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
)
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
    with Image.open(path) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):  # Pillow has swapped them already, for some orientations
            width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
        elif isinstance(image, PngImageFile):
            _read_png_end(image)
        return Header(width, height, _orientation(image), image.mode)


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
    try:
        with Image.open(path) as image:
            if draft is not None:
                image.draft(*draft)
            return turned_upright(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise anything on a damaged file
        missing = isinstance(error, FileNotFoundError)
        why = f"cannot be read as an image ({error}); `odkit audit` lists all such"
        failed = ImageReadError(f"{path}: {'there is no such file' if missing else why}")
        failed.reason = error
        raise failed from None


def turned_upright(image: Image.Image) -> Image.Image:
    """An image of Pillow's loaded and turned as its EXIF block says; the turned one says nothing more of it.

    Raises:
        Exception: Its file is damaged; Pillow's readers raise anything.
    """
    image.load()
    # loading turns a TIFF by itself
    turn = None if isinstance(image, TiffImageFile) else _TO_UPRIGHT.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    for told in _TOLD_IN:  # a copy has them all, and would be turned again
        turned.info.pop(told, None)
    return turned


def read_pixels(path: str | Path) -> NDArray[np.uint8]:
    """An image file as RGB, upright, uint8 [H, W, 3].

    Raises:
        ImageReadError: The file is missing, damaged or no image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's notes on odd metadata do not concern the pixels
        return np.array(open_upright(path).convert("RGB"))
