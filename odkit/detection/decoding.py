"""What a one-stage head puts out, made into boxes, scores and labels.

The whole batch at once; image by image only where overlapping boxes are suppressed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import boxes as box_ops

from odkit.detection.batch import Inputs
from odkit.detection.fixed import Fixed, best_apart, limits_of

Decode = Callable[[Tensor, Tensor], Tensor]


def dense_detections(
    module: Any,
    inputs: Inputs,
    outputs: dict[str, Tensor],
    anchors: Tensor,
    counts: list[int],
    *,
    decode: Decode,
) -> list[dict[str, Tensor]]:
    """Detections of FCOS, RetinaNet and the starter.

    Args:
        module: The module, for its thresholds.
        inputs: The batch.
        outputs: The head's, float32 [B, A, ...].
        anchors: Float32 [A, 4] xyxy in pixels.
        counts: How many anchors each level has.
        decode: Makes boxes of box codes and anchors.
    """
    return _detections(module, inputs, outputs, anchors, *dense_candidates(module, outputs, counts), decode)


def dense_candidates(
    module: Any, outputs: dict[str, Tensor], counts: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The highest scores of each level, with their anchors' indices and their labels: all [B, K]."""
    names = [name for name in ("cls_logits", "bbox_ctrness") if name in outputs]
    candidates = []
    first = 0
    for level in zip(*(outputs[name].split(counts, 1) for name in names), strict=True):
        scores, places, labels = _candidates(module.topk_candidates, *level)
        candidates.append((scores, places + first, labels))
        first += level[0].shape[1]
    scores, places, labels = (torch.cat(column, 1) for column in zip(*candidates, strict=True))
    return scores, places, labels


def _candidates(most: int, logits: Tensor, centerness: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The highest scores of a level, with their anchors' indices in it and their labels: all [B, most] or fewer."""
    # they are of the anchors whose best class is among the best: few of all logits need a score
    best = _scores(logits.amax(2, keepdim=True), centerness).squeeze(2)
    places = best.topk(
        torch.sym_min(most, best.shape[1]), 1
    ).indices  # a number, a symbol in an exported graph
    of_places = places[..., None]
    logits = logits.gather(1, of_places.expand(-1, -1, logits.shape[2]))
    scores = _scores(logits, centerness if centerness is None else centerness.gather(1, of_places))
    classes = logits.shape[2]
    top = scores.flatten(1).topk(torch.sym_min(most, scores.shape[1] * classes), 1)
    return top.values, places.gather(1, top.indices // classes), top.indices % classes


def _scores(logits: Tensor, centerness: Tensor | None) -> Tensor:
    """Scores 0 to 1 of logits [B, A, K] and, in FCOS, of the anchors' centerness [B, A, 1]."""
    scores = logits.sigmoid()
    return scores if centerness is None else torch.sqrt(scores * centerness.sigmoid())


def ssd_detections(
    module: Any, inputs: Inputs, outputs: dict[str, Tensor], anchors: Tensor
) -> list[dict[str, Tensor]]:
    """Detections of SSD and SSDlite, whose class 0 is the background (arguments as above)."""
    decode = partial(decode_offsets, module.box_coder)
    return _detections(module, inputs, outputs, anchors, *ssd_candidates(module, outputs), decode)


def ssd_candidates(module: Any, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The highest scores of each class, with their anchors' indices and their labels: all [B, K]."""
    scores = outputs["cls_logits"].softmax(-1)[..., 1:].transpose(1, 2)  # [B, classes, A]
    best = scores.topk(min(module.topk_candidates, scores.shape[2]), 2)
    labels = torch.arange(1, scores.shape[1] + 1, device=scores.device)[:, None].expand_as(best.indices)
    return best.values.flatten(1), best.indices.flatten(1), labels.flatten(1)


def _detections(
    module: Any,
    inputs: Inputs,
    outputs: dict[str, Tensor],
    anchors: Tensor,
    scores: Tensor,
    places: Tensor,
    labels: Tensor,
    decode: Decode,
) -> list[dict[str, Tensor]]:
    """The candidates with their scores, anchors' indices and labels (all [B, K]) decoded, and the best of them."""
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    counts = (scores > module.score_thresh).sum(1).tolist()  # the one wait before suppressing
    order = order[:, : max(counts)]
    places, labels = places.gather(1, order), labels.gather(1, order)
    codes = outputs["bbox_regression"].gather(1, places[..., None].expand(-1, -1, 4))
    sides = torch.tensor([[width, height] * 2 for height, width in inputs.sizes], dtype=torch.float32)
    limits = sides[:, None].to(codes.device, non_blocking=True)
    boxes = decode(codes, anchors[places]).clamp(min=0).minimum(limits)
    found = []
    for index, count in enumerate(counts):
        kept = box_ops.batched_nms(
            boxes[index, :count], scores[index, :count], labels[index, :count], module.nms_thresh
        )[: module.detections_per_img]
        found.append(
            {"boxes": boxes[index, kept], "scores": scores[index, kept], "labels": labels[index, kept]}
        )
    return found


def fixed_detections(
    module: Any,
    outputs: dict[str, Tensor],
    anchors: Tensor,
    candidates: tuple[Tensor, Tensor, Tensor],
    sizes: Tensor,
    decode: Decode,
) -> Fixed:
    """The same, in shapes that do not depend on what is found; `sizes` are widths and heights, int64 [B, 2]."""
    scores, places, labels = candidates
    codes = outputs["bbox_regression"].gather(1, places[..., None].expand(-1, -1, 4))
    boxes = decode(codes, anchors[places]).clamp(min=0).minimum(limits_of(sizes))
    return best_apart(
        boxes,
        scores,
        labels,
        labels,
        overlap=module.nms_thresh,
        least=module.score_thresh,
        most=module.detections_per_img,
    )


# -- box codes: as torchvision's coders, for any leading dimensions and with no constant uploaded --------------------


def decode_distances(codes: Tensor, anchors: Tensor) -> Tensor:
    """FCOS: distances [..., 4] from the anchor's centre to the four sides, in anchor sides, as xyxy."""
    sides = anchors[..., 2:] - anchors[..., :2]
    centre = 0.5 * (anchors[..., :2] + anchors[..., 2:])
    return torch.cat((centre - codes[..., :2] * sides, centre + codes[..., 2:] * sides), -1)


def decode_offsets(coder: BoxCoder, codes: Tensor, anchors: Tensor) -> Tensor:
    """R-CNN's parameters (Girshick et al., 2014, arXiv:1311.2524, appendix C), weighted, as xyxy."""
    sides = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + 0.5 * sides
    of_centre, _, of_sides, _ = coder.weights  # the same in both directions
    centre = codes[..., :2] / of_centre * sides + centre
    half = 0.5 * ((codes[..., 2:] / of_sides).clamp(max=coder.bbox_xform_clip).exp() * sides)
    return torch.cat((centre - half, centre + half), -1)


def encode_offsets(coder: BoxCoder, boxes: Tensor, anchors: Tensor) -> Tensor:
    """The codes [..., 4] that `decode_offsets` makes these boxes of."""
    of_centre, _, of_sides, _ = coder.weights
    sides, box_sides = anchors[..., 2:] - anchors[..., :2], boxes[..., 2:] - boxes[..., :2]
    moved = (boxes[..., :2] + 0.5 * box_sides) - (anchors[..., :2] + 0.5 * sides)
    return torch.cat((of_centre * moved / sides, of_sides * torch.log(box_sides / sides)), -1)
