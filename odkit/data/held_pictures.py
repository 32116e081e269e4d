"""Pictures in memory (arrays, tensors, Pillow's images) as pixels, as the one reader would give their files."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from odkit.data.images import ImageReadError, turned_upright
from odkit.system import InputError

_CHANNELS = (1, 3, 4)  # grey, RGB, RGB with opacity, which is left out as it is of files


class HeldPicture:
    """A picture in memory, looked at before the work: what cannot be one is refused with a sentence.

    Attributes:
        name: What it is called.
        size: Width and height of the upright picture, in pixels.
    """

    def __init__(self, picture: Any, name: str) -> None:
        """Take up a picture.

        Args:
            picture: A PIL image of any mode, turned as its EXIF block says; a tensor [3, H, W] or [1, H, W]; an array
                [H, W, 3] (RGB), [H, W, 4], [H, W, 1] or [H, W]. Arrays and tensors are uint8, or floats from 0 to 1,
                and upright.
            name: What the picture is called in messages.

        Raises:
            InputError: It has another shape or other numbers.
            ImageReadError: The file behind a PIL image is damaged.
        """
        self.name = name
        self._image: Image.Image | None = None
        if isinstance(picture, Image.Image):
            try:
                self._image = turned_upright(picture)
            except Exception as error:  # Pillow's readers raise anything on a damaged file
                file = getattr(picture, "filename", "")
                of = f" of {file}" if file else ""
                raise ImageReadError(f"{name}: the PIL image{of} cannot be read ({error})") from None
            self.size = self._image.size
        else:
            self._array = _rows_of_pixels(picture, name)
            self.size = self._array.shape[1::-1]

    def pixels(self) -> NDArray[np.uint8]:
        """RGB, upright, uint8 [H, W, 3]."""
        if self._image is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as for files
                return np.array(self._image.convert("RGB"))
        array = self._array
        if array.dtype != np.uint8:
            array = np.round(array.astype(np.float32) * 255).astype(np.uint8)
        array = array[..., :3] if array.shape[2] > 1 else np.repeat(array, 3, axis=2)
        return np.require(array, np.uint8, ["C", "W"])  # torch wants memory that may be written


def is_held(thing: Any) -> bool:
    """Whether this is a picture in memory, or several in one array, and no name of a file or several."""
    if isinstance(thing, Image.Image) or hasattr(thing, "detach"):
        return True
    kind = getattr(getattr(thing, "dtype", None), "kind", "O")
    return hasattr(thing, "__array__") and kind not in "OUS"


def split_held(thing: Any) -> list[Any]:
    """The pictures of an array [B, H, W, channels] or a tensor [B, channels, H, W]; else the one there is."""
    return list(thing) if not isinstance(thing, Image.Image) and thing.ndim == 4 else [thing]


def _rows_of_pixels(picture: Any, name: str) -> NDArray[Any]:
    """An array [H, W, channels] of uint8, or of floats from 0 to 1."""
    tensor = hasattr(picture, "detach")
    if tensor:
        picture = picture.detach().cpu()
        if str(picture.dtype) == "torch.bfloat16":  # which NumPy lacks
            picture = picture.float()
    array: NDArray[Any] = np.asarray(picture)
    what, shape = "tensor" if tensor else "array", list(array.shape)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        sixteen = array.dtype == np.uint16
        todo = "divide 16-bit pixels by 65535" if sixteen else "give array.astype(numpy.uint8) of 0 to 255"
        raise InputError(
            f"{name}: the {what} holds {array.dtype}, where a picture has uint8, 0 to 255, or floats, 0 to 1; {todo}"
        )
    if tensor:
        if array.ndim == 3 and array.shape[0] not in _CHANNELS and array.shape[2] in _CHANNELS:
            raise InputError(
                f"{name}: a tensor of shape {shape} seems to be [height, width, channels]; give "
                "tensor.permute(2, 0, 1), or the NumPy array"
            )
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
        wanted = "[3, height, width]"
    else:
        if array.ndim == 3 and array.shape[2] not in _CHANNELS and array.shape[0] in _CHANNELS:
            raise InputError(
                f"{name}: an array of shape {shape} seems to be [channels, height, width]; give "
                "array.transpose(1, 2, 0), or a tensor"
            )
        wanted = "[height, width, 3] (RGB), or [height, width]"
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in _CHANNELS or not array.size:
        raise InputError(f"{name}: the {what} has the shape {shape}, where a picture has {wanted}")
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # also nan
            raise InputError(
                f"{name}: the {what} holds floats from {low:g} to {high:g}, where those of a picture are 0 to 1; undo "
                "what normalized them, or divide by 255"
            )
    return array
