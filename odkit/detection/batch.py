"""A batch on its way: packed by a data worker as one tensor of bytes, and as a detector takes it on its device."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Changes(NamedTuple):
    """How each image of a batch is to be varied: first flipped, then resized into place, blurred, coloured.

    Drawn by the data worker, which moves the boxes accordingly; the pixels are changed on the training device.
    """

    flip: NDArray[np.bool_]  # [B] left to right
    source: NDArray[np.int64]  # [B, 4] xyxy, the part of the flipped image that is kept, in pixels
    target: NDArray[
        np.int64
    ]  # [B, 4] xyxy, where in the new image of the same size that part goes; grey around it
    blur: NDArray[np.float32]  # [B] sigma of a Gaussian, in pixels; 0: none
    colour: NDArray[np.float32]  # [B, 3, 4] what RGB (0 to 1) and 1 are multiplied by

    def part(self, first: int, stop: int) -> "Changes":
        """Those of images `first` to `stop` (not included)."""
        columns: list[Any] = [column[first:stop] for column in self]
        return Changes(*columns)


@dataclass(frozen=True)
class Batch:
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
    originals: NDArray[np.int64]  # [B, 2] width and height of each image before resizing, in pixels
    changes: Changes | None = None  # None: the images are taken as they are

    def __len__(self) -> int:
        return len(self.rows)

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, which a GPU copies from while the host goes on (a DataLoader asks)."""
        return replace(self, images=self.images.pin_memory())

    def part(self, first: int, stop: int) -> "Batch":
        """Images `first` to `stop` (not included) as a batch of their own."""
        start, end = self.counts[:first].sum(), self.counts[:stop].sum()
        return Batch(
            self.images[first:stop],
            self.sizes[first:stop],
            self.boxes[start:end],
            self.labels[start:end],
            self.counts[first:stop],
            self.rows[first:stop],
            self.originals[first:stop],
            self.changes.part(first, stop) if self.changes else None,
        )

    def to_tensors(self) -> dict[str, Any]:
        """The batch as a dict of tensors, which `torch.load` reads with `weights_only=True`."""
        kept = {name: torch.as_tensor(value) for name, value in vars(self).items() if name != "changes"}
        changes = self.changes._asdict() if self.changes else {}
        return {**kept, "changes": {name: torch.as_tensor(value) for name, value in changes.items()}}

    @classmethod
    def from_tensors(cls, kept: dict[str, Any]) -> "Batch":
        """The batch that `to_tensors` made a dict of."""
        columns = {name: value.numpy() for name, value in kept.items() if name not in ("images", "changes")}
        changes = {name: value.numpy() for name, value in kept["changes"].items()}
        return cls(images=kept["images"], **columns, changes=Changes(**changes) if changes else None)


class Inputs(NamedTuple):
    """A batch as a detector's layers take it, on its device."""

    images: Tensor  # float32 [B, 3, H, W], channels last, normalized, 0 where padded
    sizes: list[tuple[int, int]]  # height and width of each image within, in pixels (torchvision's order)
    boxes: Tensor  # float32 [B, M, 4] xyxy in pixels; M: the most boxes that an image has; zeros where it has fewer
    labels: (
        Tensor  # int64 [B, M] class indices as the module counts them (see `Detector.background`); -1: no box
    )
