"""Detections as tensors of fixed shapes: for graphs, where no shape may depend on what is found in a picture.

What `decoding.py` does image by image, for the whole batch, in operations that an exporter follows. Two operations are
odkit's own, since theirs would have such shapes: each runs here as well, and `onnx_graph.py` says what it is in ONNX.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms, roi_align


class Fixed(NamedTuple):
    """The best of each image, the surest first; a row without a detection has score 0 and label -1."""

    boxes: Tensor  # float32 [B, M, 4] xyxy in pixels
    scores: Tensor  # float32 [B, M]
    labels: Tensor  # int64 [B, M]


def limits_of(sizes: Tensor) -> Tensor:
    """What boxes are cut at, float32 [B, 1, 4], of widths and heights int64 [B, 2] in pixels."""
    return sizes.float().repeat(1, 2)[:, None]


def best_apart(
    boxes: Tensor, scores: Tensor, groups: Tensor, labels: Tensor, *, overlap: float, least: float, most: int
) -> Fixed:
    """The best boxes of each image that do not overlap a better one of their group.

    Groups are kept apart as `torchvision.ops.batched_nms` does it, by moving each to a place of its own.

    Args:
        boxes: Float32 [B, K, 4] xyxy in pixels, none negative.
        scores: Float32 [B, K].
        groups: Int64 [B, K]: boxes of different groups do not suppress one another.
        labels: Int64 [B, K].
        overlap: The IoU above which a box is suppressed.
        least: The score that must be exceeded.
        most: Boxes an image.
    """
    moved = boxes + groups[..., None].float() * (boxes.amax((1, 2), keepdim=True) + 1)
    kept = torch.ops.odkit.suppress(moved, scores, overlap, least, most)
    # never fewer than `most` to choose from
    best = torch.cat([kept, kept.new_full((kept.shape[0], most), -1.0)], 1).topk(most, 1)
    none = best.values < 0
    rows = torch.where(none, 0, best.indices)
    return Fixed(
        boxes.gather(1, rows[..., None].expand(-1, -1, 4)).masked_fill(none[..., None], 0.0),
        best.values.clamp(min=0),
        labels.gather(1, rows).masked_fill(none, -1),
    )


@torch.library.custom_op("odkit::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, overlap: float, least: float, most: int) -> Tensor:
    """The scores [B, K] of the boxes [B, K, 4] that stay; -1 for those of `least` or less, suppressed or too many."""
    kept = torch.full_like(scores, -1)
    for some, given, target in zip(boxes, scores, kept, strict=True):
        rows = (given > least).nonzero()[:, 0]
        rows = rows[nms(some[rows], given[rows], overlap)[:most]]
        target[rows] = given[rows]
    return kept


@torch.library.custom_op("odkit::pool", mutates_args=())
def pool(
    maps: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    side: int,
    sampling: int,
) -> Tensor:
    """What feature maps [B, C, h, w] have in boxes [B, R, 4], each of its level's (int64 [B * R]): [B * R, C, s, s]."""
    images = torch.arange(boxes.shape[0], device=boxes.device).repeat_interleave(boxes.shape[1])
    rois = torch.cat([images[:, None].to(boxes), boxes.flatten(0, 1)], 1)
    pooled = maps[0].new_zeros(len(rois), maps[0].shape[1], side, side)
    for level, (one, scale) in enumerate(zip(maps, scales, strict=True)):
        rows = (levels == level).nonzero()[:, 0]
        pooled[rows] = roi_align(one, rois[rows], side, scale, sampling)
    return pooled


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, overlap: float, least: float, most: int) -> Tensor:
    return torch.empty_like(scores)


@pool.register_fake
def _(
    maps: Sequence[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    side: int,
    sampling: int,
) -> Tensor:
    return maps[0].new_empty(levels.shape[0], maps[0].shape[1], side, side)
