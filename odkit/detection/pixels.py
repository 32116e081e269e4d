"""A batch of bytes made into what a detector's layers take, on the device that computes: varied, coloured, normalized.

One rule holds here: nothing is asked of the device. Sizes, boxes and how an image is varied are known on the host, so
a GPU is never waited for, and a CPU runs the same code.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from odkit.detection.batch import Batch, Changes, Inputs
from odkit.system import InputError

GREY = 114  # 0 to 255, around an image that is made smaller


def prepare(batch: Batch, device: torch.device, *, mean: Sequence[float], std: Sequence[float]) -> Inputs:
    """A batch on the device, varied as its changes say, normalized by mean and std of RGB (0 to 1).

    Labels stay 0-based.
    """
    boxes, labels = padded_targets(batch.boxes, batch.labels, batch.counts)
    with torch.autocast(device.type, enabled=False):  # colours and normalizing in float32
        images = batch.images.to(device, non_blocking=True)
        if batch.changes is not None:
            images = _moved(images, batch.sizes, batch.changes)
        images = _normalized(images, batch.changes, mean, std)
    for image, (width, height) in zip(images, batch.sizes.tolist(), strict=True):
        if height < image.shape[1]:
            image[:, height:].zero_()
        if width < image.shape[2]:
            image[:, :, width:].zero_()
    return Inputs(
        images,
        [(height, width) for width, height in batch.sizes.tolist()],
        torch.from_numpy(boxes).to(device, non_blocking=True),
        torch.from_numpy(labels).to(device, non_blocking=True),
    )


def stack(
    images: Sequence[Tensor],
    targets: Sequence[dict[str, Tensor]] | None,
    device: torch.device,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    divisible: int = 32,
) -> Inputs:
    """Float images [3, H, W], 0 to 1, and torchvision's targets, as `prepare` makes a batch of bytes.

    Raises:
        InputError: A target's boxes have no area, as torchvision would say too.
    """
    sizes = np.array([image.shape[:0:-1] for image in images], np.int64)
    width, height = padded_size(sizes.max(0), divisible).tolist()
    stacked = torch.zeros(len(images), 3, height, width, device=device)
    stacked = stacked.contiguous(memory_format=torch.channels_last)
    middle, spread = (torch.tensor(values, device=device)[:, None, None] for values in (mean, std))
    for place, image in zip(stacked, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = (image.to(device) - middle) / spread
    boxes = [np.zeros((0, 4), np.float32)] + [target["boxes"].cpu().numpy() for target in targets or ()]
    labels = [np.zeros(0, np.int64)] + [target["labels"].cpu().numpy() for target in targets or ()]
    for index, some in enumerate(boxes[1:]):
        if not (some[:, 2:] > some[:, :2]).all():
            raise InputError(f"image {index} of the batch has a box without area: {some.tolist()}")
    counts = np.array([len(some) for some in labels[1:]] or [0] * len(images), np.int64)
    padded = padded_targets(np.concatenate(boxes), np.concatenate(labels), counts)
    return Inputs(
        stacked,
        [(height, width) for width, height in sizes.tolist()],
        *(torch.from_numpy(column).to(device) for column in padded),
    )


def padded_size(size: NDArray[np.int64], divisible: int) -> NDArray[np.int64]:
    """Widths and heights in pixels, each rounded up to a multiple of `divisible`."""
    return -(-size // divisible) * divisible


def padded_targets(
    boxes: NDArray[np.float32], labels: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Boxes [N, 4] and labels [N] of several images as [B, M, 4] (0 where there is none) and [B, M] (-1 there)."""
    there = np.arange(counts.max(initial=0)) < counts[:, None]  # [B, M]
    all_boxes, all_labels = np.zeros((*there.shape, 4), np.float32), np.full(there.shape, -1, np.int64)
    all_boxes[there], all_labels[there] = boxes, labels
    return all_boxes, all_labels


def _moved(images: Tensor, sizes: NDArray[np.int64], changes: Changes) -> Tensor:
    """Flipped, resized into place, blurred; the images are 8-bit before and after."""
    images = images.clone(memory_format=torch.preserve_format)
    for index, (width, height) in enumerate(sizes.tolist()):
        image = images[index, :, :height, :width]
        if changes.flip[index]:
            image.copy_(image.flip(-1))
        source, target = changes.source[index].tolist(), changes.target[index].tolist()
        if source != target:
            left, top, right, bottom = target
            part = image[:, source[1] : source[3], source[0] : source[2]].clone()
            placed = F.resize(part, [bottom - top, right - left], antialias=True)
            if [left, top, right, bottom] != [0, 0, width, height]:
                image.fill_(GREY)
            image[:, top:bottom, left:right] = placed
        if changes.blur[index]:
            image.copy_(F.gaussian_blur(image, [3, 3], [float(changes.blur[index])] * 2))
    return images


def _normalized(
    images: Tensor, changes: Changes | None, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Colours changed and normalized by one 3x4 matrix an image: float32, channels last."""
    count, _, height, width = images.shape
    colour = np.eye(3, 4, dtype=np.float32)[None].repeat(count, 0) if changes is None else changes.colour
    # a colour is 0 to 1 and images are 0 to 255
    middle, spread = np.array(mean, np.float32), np.array(std, np.float32)
    matrix = colour / spread[:, None]
    matrix[..., :3] /= 255
    matrix[..., 3] -= middle / spread
    on_device = torch.from_numpy(matrix).to(images.device, non_blocking=True)
    # a channel at a time, from channels last and back to it: such copies are several times quicker than those of all
    planes = torch.empty(count, 3, height, width, device=images.device)
    for channel in range(3):
        planes[:, channel] = images[:, channel]
    planes = torch.baddbmm(on_device[..., 3:], on_device[..., :3], planes.view(count, 3, -1)).view_as(planes)
    normalized = torch.empty_like(images, dtype=torch.float32, memory_format=torch.channels_last)
    for channel, (low, high) in enumerate(zip(-middle / spread, (1 - middle) / spread, strict=True)):
        if changes is None:
            normalized[:, channel] = planes[:, channel]
        else:
            torch.clamp(planes[:, channel], float(low), float(high), out=normalized[:, channel])
    return normalized
