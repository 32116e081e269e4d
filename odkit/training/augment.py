"""Augmentation: how an image is varied, drawn from a seed, and where its boxes are then.

Drawn here, by data workers; the pixels are changed a batch at a time where the detector computes
(`odkit.detection.pixels`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from odkit.detection import GREY, Changes, Item

AUGMENTATIONS = ("none", "flip", "photo", "strong")
"""none; flips and turns; these and light, colour and blur; the same with zoom in and out."""

ORIENTATIONS = ("upright", "mirror", "turn", "any")
"""As they are; left and right may change places; turned by quarters; both, all eight ways of laying a photo down."""

Boxes = NDArray[np.float32]
Labels = NDArray[np.int64]

_GREY = 114 / 255  # contrast is about this: what padding is filled with, and nearly the mean of photographs
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_TO_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # least IoU of a crop with some box; 1: no crop


def draw(
    kind: str,
    rng: np.random.Generator,
    width: int,
    height: int,
    boxes: Boxes,
    labels: Labels,
    *,
    flip: bool | None = None,
) -> tuple[Changes, Boxes, Labels]:
    """A random change of one image, with its boxes after it; those left outside are dropped.

    Args:
        kind: One of AUGMENTATIONS.
        rng: Draws.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        boxes: Float32 [n, 4] xyxy in pixels.
        labels: Int64 [n].
        flip: Whether left and right change places; None draws that too.
    """
    flip = kind != "none" and (rng.random() < 0.5 if flip is None else flip)
    if flip:
        boxes = np.column_stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]])
    source = target = np.array([0, 0, width, height])
    if kind == "strong":
        source, target, keep = _zoom(rng, width, height, boxes)
        scale = (target[2:] - target[:2]) / (source[2:] - source[:2])
        boxes = (boxes[keep] - np.tile(source[:2], 2)) * np.tile(scale, 2) + np.tile(target[:2], 2)
        labels = labels[keep]
    coloured = kind in ("photo", "strong")
    blur = rng.uniform(0.1, 1.2) if coloured and rng.random() < 0.1 else 0.0
    colour = _colour(rng) if coloured else np.eye(3, 4)
    boxes = boxes.clip(0, [width, height] * 2).astype(np.float32)
    whole = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf) >= (0 if kind == "none" else 1)
    change = Changes(
        np.array([flip]),
        source[None],
        target[None],
        np.array([blur], np.float32),
        colour[None].astype(np.float32),
    )
    return change, boxes[whole], labels[whole]


def turned(item: Item, quarters: int) -> Item:
    """An image and its boxes turned by so many quarters, counterclockwise."""
    image, boxes = item.image, item.boxes
    for _ in range(quarters % 4):
        width = image.shape[-1]
        image = image.rot90(1, (-2, -1))
        boxes = np.column_stack([boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]])
    image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # channels last again
    return item._replace(image=image, boxes=boxes)


def mosaic(rng: np.random.Generator, item: Item, parts: Sequence[Item]) -> Item:
    """Four images around a point of a canvas of the first one's size (Bochkovskiy et al., 2020, arXiv:2004.10934).

    What of an image doesn't fit into its quarter is cut, and a box stays if its centre is seen.

    Args:
        rng: Draws the point and the cuts.
        item: Whose place it takes.
        parts: Top left, top right, bottom left and bottom right, at the sizes that they are to have.
    """
    height, width = item.image.shape[-2:]
    canvas = torch.full_like(item.image, GREY)
    size = np.array([width, height])
    middle = (size * rng.uniform(0.3, 0.7, 2)).astype(np.int64)
    boxes, labels = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
    for quarter, part in enumerate(parts):
        right, below = quarter % 2, quarter // 2
        after = np.array([right, below], bool)
        room = np.where(after, size - middle, middle)
        own = np.array(part.image.shape[:0:-1])
        shown = np.minimum(own, room)
        # the part of the image that shows starts here
        cut = (rng.random(2) * (own - shown + 1)).astype(np.int64)
        start = np.where(after, middle, middle - shown)
        (x, y), (left, top), (w, h) = start.tolist(), cut.tolist(), shown.tolist()
        canvas[:, y : y + h, x : x + w] = part.image[:, top : top + h, left : left + w]
        centres = (part.boxes[:, :2] + part.boxes[:, 2:]) / 2 - cut
        seen = ((centres > 0) & (centres < shown)).all(1)
        moved = (part.boxes[seen] - np.tile(cut, 2)).clip(0, np.tile(shown, 2)) + np.tile(start, 2)
        boxes.append(moved.astype(np.float32))
        labels.append(part.labels[seen])
    return item._replace(image=canvas, boxes=np.concatenate(boxes), labels=np.concatenate(labels))


def blended(item: Item, other: Item) -> Item:
    """Two images half and half, with the boxes of both (mixup: Zhang et al., 2019, arXiv:1902.04103)."""
    image = item.image.clone()
    height, width = (min(a, b) for a, b in zip(image.shape[-2:], other.image.shape[-2:], strict=True))
    common = (slice(None), slice(height), slice(width))
    image[common] = ((image[common].int() + other.image[common]) // 2).to(torch.uint8)
    centres = (other.boxes[:, :2] + other.boxes[:, 2:]) / 2
    seen = (centres < [width, height]).all(1)
    boxes = other.boxes[seen].clip(0, [width, height] * 2).astype(np.float32)
    return item._replace(
        image=image,
        boxes=np.concatenate([item.boxes, boxes]),
        labels=np.concatenate([item.labels, other.labels[seen]]),
    )


def _zoom(
    rng: np.random.Generator, width: int, height: int, boxes: Boxes
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Out onto a larger canvas, then into a part of it: the part of the image that shows, where, and which boxes.

    SSD's way (Liu et al., 2016, arXiv:1512.02325): three in ten images shrink to as little as 1/1.6, four in ten are
    cropped to half a side or more.
    """
    size = np.array([width, height])
    canvas, start = size, np.zeros(2, np.int64)  # where the image lies on the canvas
    if rng.random() < 0.3:
        canvas = (size * rng.uniform(1.0, 1.6)).astype(np.int64)
        start = (rng.random(2) * (canvas - size)).astype(np.int64)
    part, keep = np.array([0, 0, *canvas]), np.ones(len(boxes), bool)
    if rng.random() < 0.4:
        part, keep = _crop(rng, canvas, boxes + np.tile(start, 2))
    source = np.concatenate([(part[:2] - start).clip(0), np.minimum(part[2:] - start, size)])
    scale = size / (part[2:] - part[:2])
    target = ((source + np.tile(start - part[:2], 2)) * np.tile(scale, 2)).round().astype(np.int64)
    if (target[2:] <= target[:2]).any() or (source[2:] <= source[:2]).any():  # next to nothing of the image
        whole = np.array([0, 0, width, height])
        return whole, whole, np.ones(len(boxes), bool)
    return source, target, keep


def _crop(
    rng: np.random.Generator, canvas: NDArray[np.int64], boxes: Boxes
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A part of a canvas, xyxy, that overlaps some box as much as was drawn, and the boxes whose centre is in it."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    whole, everything = np.array([0, 0, *canvas]), np.ones(len(boxes), bool)
    for least in rng.permutation(_OVERLAPS):
        if least >= 1:
            return whole, everything
        sides = (canvas * rng.uniform(0.5, 1.0, (40, 2))).astype(np.int64)
        starts = ((canvas - sides) * rng.random((40, 2))).astype(np.int64)
        ends = starts + sides
        inside = np.all((starts[:, None] < centres) & (centres < ends[:, None]), axis=2)  # [40, n]
        shared = np.minimum(ends[:, None], boxes[:, 2:]) - np.maximum(starts[:, None], boxes[:, :2])
        common = shared.clip(0).prod(2)
        union = sides.prod(1)[:, None] + (boxes[:, 2:] - boxes[:, :2]).prod(1) - common
        overlap = np.where(inside, common / union, -1.0).max(1, initial=-1.0)
        shape = sides[:, 0] / sides[:, 1].clip(1)
        good = np.flatnonzero((overlap >= least) & (shape >= 0.5) & (shape <= 2))
        if len(good):
            return np.concatenate([starts[good[0]], ends[good[0]]]), inside[good[0]]
    return whole, everything


def _colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """Brightness, contrast, saturation and a small turn of the hue as one matrix [3, 4] for RGB (0 to 1) and 1."""
    light, contrast, saturation = rng.uniform(0.7, 1.3, 3)
    turn = 2 * np.pi * rng.uniform(-0.03, 0.03)
    if rng.random() >= 0.7:
        light, contrast, saturation, turn = 1.0, 1.0, 1.0, 0.0
    if rng.random() < 0.03:
        saturation = 0.0
    # in YIQ the grey axis is Y and the hue is the angle in the plane of I and Q
    sine, cosine = saturation * np.sin(turn), saturation * np.cos(turn)
    turned = np.linalg.inv(_TO_YIQ) @ [[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]] @ _TO_YIQ
    return np.column_stack([light * contrast * turned, np.full(3, (1 - contrast) * _GREY)])
