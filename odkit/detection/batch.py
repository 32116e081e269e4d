"""A batch on its way: packed by a data worker as one tensor of bytes, and as a detector takes it on its device."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Changes(NamedTuple):
    """How each image of a batch is to be varied: first flipped, then resized into place, blurred, coloured.

    Drawn by the data worker, which moves the boxes accordingly; the pixels are changed on the training device.
    """

    flip: NDArray[np.bool_]  # [B] left to right
    source: NDArray[np.int64]  # [B, 4] xyxy, the part of the flipped image that is kept, in pixels
    target: NDArray[np.int64]  # [B, 4] xyxy, where in the new image of the same size that part goes; grey around it
    blur: NDArray[np.float32]  # [B] sigma of a Gaussian, in pixels; 0: none
    colour: NDArray[np.float32]  # [B, 3, 4] what RGB (0 to 1) and 1 are multiplied by


class Batch(NamedTuple):
    """Images of one batch, decoded and resized, with what is to be found in them.

    One tensor, the rest NumPy: only a tensor costs an open file on its way from a data worker, and what stays on
    the host is known there without asking the device.
    """

    images: Tensor  # uint8 [B, 3, H, W], channels last in memory, padded at the right and at the bottom
    sizes: NDArray[np.int64]  # [B, 2] width and height of each image within, in pixels
    boxes: NDArray[np.float32]  # [N, 4] xyxy in pixels of the resized (and varied) images, image after image
    labels: NDArray[np.int64]  # [N] 0-based class indices
    counts: NDArray[np.int64]  # [B] boxes of each image
    rows: NDArray[np.int64]  # [B] each image's index in the dataset
    changes: Changes | None = None  # None: the images are taken as they are


class Inputs(NamedTuple):
    """A batch as a detector's layers take it, on its device."""

    images: Tensor  # float32 [B, 3, H, W], channels last, normalized, 0 where padded
    sizes: list[tuple[int, int]]  # height and width of each image within, in pixels (torchvision's order)
    boxes: Tensor  # float32 [B, M, 4] xyxy in pixels; M: the most boxes that an image has; zeros where it has fewer
    labels: Tensor  # int64 [B, M] class indices as the module counts them (see `Detector.background`); -1: no box
