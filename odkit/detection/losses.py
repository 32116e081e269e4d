"""Losses of one-stage detectors, the whole batch at once: torchvision's, which it takes image by image, and aligned.

A GPU is waited for once: to know which anchors are to find an object.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from odkit.detection.batch import Inputs
from odkit.detection.decoding import decode_distances, decode_offsets, encode_offsets

BELOW, BETWEEN = -1, -2  # an anchor's match: an index of a box, no box at all, or too good for the background
PAIRS = 2**24  # of boxes and anchors that are compared at once: some hundred megabytes


def fcos_losses(
    module: Any, inputs: Inputs, outputs: dict[str, Tensor], anchors: Tensor, counts: list[int]
) -> dict[str, Tensor]:
    """FCOS (Tian et al., 2019, arXiv:1904.01355): focal, GIoU and centerness losses a foreground anchor.

    Args:
        module: The module, for its thresholds.
        inputs: The batch.
        outputs: The head's, float32 [B, A, ...].
        anchors: Float32 [A, 4] xyxy in pixels.
        counts: How many anchors each level has.
    """

    def match(boxes: Tensor, _: Tensor) -> Tensor:
        return _match_points(boxes, anchors, module.center_sampling_radius, counts)

    front = _foreground(_matched(match, inputs, anchors), inputs, anchors)
    number = max(1, len(front.rows))
    logits = outputs["cls_logits"]
    weights = logits.new_full((1, 1), 1 / number)
    predicted = decode_distances(_rows(outputs["bbox_regression"], front), front.anchors)
    centre = 0.5 * (front.anchors[:, :2] + front.anchors[:, 2:])
    before, after = centre - front.boxes[:, :2], front.boxes[:, 2:] - centre
    centerness = (torch.minimum(before, after) / torch.maximum(before, after)).prod(1).sqrt()
    return {
        "classification": _focal_loss(logits, front, weights),
        "bbox_regression": _giou_loss(predicted, front.boxes).sum() / number,
        "bbox_ctrness": F.binary_cross_entropy_with_logits(
            _rows(outputs["bbox_ctrness"], front).squeeze(1), centerness, reduction="sum"
        )
        / number,
    }


def retinanet_losses(
    module: Any, inputs: Inputs, outputs: dict[str, Tensor], anchors: Tensor
) -> dict[str, Tensor]:
    """RetinaNet (Lin et al., 2017, arXiv:1708.02002): focal and box losses, each image's over its own foreground."""
    matcher = module.proposal_matcher

    def match(boxes: Tensor, there: Tensor) -> Tensor:
        return _match_overlaps(boxes, there, anchors, matcher.low_threshold, matcher.high_threshold)

    matched = _matched(match, inputs, anchors)
    front = _foreground(matched, inputs, anchors)
    share = 1 / ((matched >= 0).sum(1, keepdim=True).clamp(min=1) * len(matched))  # [B, 1]
    codes = _rows(outputs["bbox_regression"], front)
    head = module.head.regression_head
    if head._loss_type == "giou":
        box_losses = _giou_loss(decode_offsets(head.box_coder, codes, front.anchors), front.boxes)
    else:
        box_losses = (codes - encode_offsets(head.box_coder, front.boxes, front.anchors)).abs().sum(1)
    return {
        "classification": _focal_loss(outputs["cls_logits"], front, (matched != BETWEEN) * share),
        "bbox_regression": (box_losses * share.flatten()[front.image]).sum(),
    }


def ssd_losses(module: Any, inputs: Inputs, outputs: dict[str, Tensor], anchors: Tensor) -> dict[str, Tensor]:
    """SSD (Liu et al., 2016, arXiv:1512.02325): smooth L1, and cross entropy with the hardest of the background."""
    threshold = module.proposal_matcher.low_threshold

    def match(boxes: Tensor, there: Tensor) -> Tensor:
        return _match_each_box(boxes, there, anchors, threshold)

    front = _foreground(_matched(match, inputs, anchors), inputs, anchors)
    number = max(1, len(front.rows))
    wanted = encode_offsets(module.box_coder, front.boxes, front.anchors)
    box_loss = F.smooth_l1_loss(_rows(outputs["bbox_regression"], front), wanted, reduction="sum")
    logits = outputs["cls_logits"]
    classes = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)
    classes.view(-1).index_copy_(0, front.rows, front.labels)
    class_losses = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view_as(classes)
    with torch.no_grad():
        positive = classes > 0
        order = class_losses.masked_fill(positive, -torch.inf).argsort(1, descending=True)
        wanted_negatives = module.neg_to_pos_ratio * positive.sum(1, keepdim=True)
        chosen = positive.float() + (order.argsort(1) < wanted_negatives)
    return {
        "bbox_regression": box_loss / number,
        "classification": (class_losses * chosen).sum() / number,
    }


CANDIDATES = 10  # places at most that are to find one object
BOX_WEIGHT = 2.0  # of the boxes' loss beside the classes'


def aligned_losses(inputs: Inputs, outputs: dict[str, Tensor], places: Tensor) -> dict[str, Tensor]:
    """Task-aligned learning (Feng et al., 2021, arXiv:2108.07755): quality focal loss, and GIoU by quality.

    Args:
        inputs: The batch.
        outputs: The head's, float32 [B, A, ...].
        places: Float32 [A, 4] xyxy in pixels, a square of one stride around each.
    """
    logits = outputs["cls_logits"]
    predicted = decode_distances(outputs["bbox_regression"], places)
    matched, quality = _match_aligned(inputs, logits.detach(), predicted.detach(), places)
    front = _foreground(matched, inputs, places)
    wanted = quality.flatten()[front.rows]
    total = wanted.sum().clamp(min=1)
    box_losses = _giou_loss(_rows(predicted, front), front.boxes) * wanted
    return {
        "classification": _quality_focal_loss(logits, front, wanted) / total,
        "bbox_regression": BOX_WEIGHT * box_losses.sum() / total,
    }


# -- which anchor is to find which box -------------------------------------------------------------------------------


@torch.no_grad()
def _matched(match: Callable[[Tensor, Tensor], Tensor], inputs: Inputs, anchors: Tensor) -> Tensor:
    """Each anchor's box, int64 [B, A]: its index in the image, BELOW or BETWEEN.

    `match` is given some images' boxes [b, M, 4] and which of them are no padding [b, M], M at least 1.
    """
    boxes, there = inputs.boxes, inputs.labels >= 0
    if not boxes.shape[1]:
        return torch.full((len(boxes), len(anchors)), BELOW, device=boxes.device)
    images = max(1, PAIRS // (len(anchors) * boxes.shape[1]))
    return torch.cat([match(*part) for part in zip(boxes.split(images), there.split(images), strict=True)])


def _match_points(boxes: Tensor, anchors: Tensor, radius: float, counts: list[int]) -> Tensor:
    """FCOS: the smallest box whose middle is near and whose sides are as far away as suits the anchor's level."""
    sizes = anchors[:, 2] - anchors[:, 0]
    nearest, farthest = sizes * 4, sizes * 8
    nearest[: counts[0]] = 0
    farthest[-counts[-1] :] = torch.inf
    x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).unbind(1)  # [A]
    left, top, right, bottom = boxes.unsqueeze(-1).unbind(2)  # [b, M, 1]
    off_centre = torch.maximum((x - (left + right) / 2).abs(), (y - (top + bottom) / 2).abs())
    fits = off_centre < radius * sizes
    distances = torch.stack((x - left, y - top, right - x, bottom - y))  # [4, b, M, A]
    far = distances.amax(0)
    fits &= (distances.amin(0) > 0) & (far > nearest) & (far < farthest)
    areas = (right - left) * (bottom - top)
    smallness, best = torch.where(fits, 1e8 - areas, 0.0).max(1)
    return best.masked_fill_(smallness < 1e-5, BELOW)


def _match_overlaps(boxes: Tensor, there: Tensor, anchors: Tensor, low: float, high: float) -> Tensor:
    """RetinaNet: the box with the highest IoU; each box's best anchors (all that are equal) whatever the IoU."""
    overlaps = _overlaps(boxes, anchors)
    highest, best = overlaps.max(1)
    matched = best.masked_fill(highest < high, BETWEEN).masked_fill_(highest < low, BELOW)
    # no overlap reaches 2, so padding is nobody's best
    best_of_box = overlaps.amax(2, keepdim=True).masked_fill_(~there[..., None], 2)
    return torch.where((overlaps == best_of_box).any(1), best, matched)


def _match_each_box(boxes: Tensor, there: Tensor, anchors: Tensor, threshold: float) -> Tensor:
    """SSD: the box with the highest IoU from the threshold on; each box's best anchor whatever the IoU."""
    overlaps = _overlaps(boxes, anchors)
    highest, best = overlaps.max(1)
    matched = F.pad(best.masked_fill_(highest < threshold, BELOW), (0, 1))  # a place more, for padding
    own = overlaps.argmax(2).masked_fill_(~there, len(anchors))
    numbers = torch.arange(boxes.shape[1], device=boxes.device).expand_as(own)
    return matched.scatter_(1, own, numbers)[:, :-1]


@torch.no_grad()
def _match_aligned(
    inputs: Inputs, logits: Tensor, predicted: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """Each place's box, int64 [B, A] (its index in the image, or BELOW), and how well it is to score, float32 [B, A].

    A box is given to the places within it that find it best already: by score times IoU to the sixth. The best of them
    is to score its IoU, the others as much less as they find it worse.
    """
    boxes, labels = inputs.boxes, inputs.labels
    if not boxes.shape[1]:
        shape = (len(boxes), len(places))
        return boxes.new_full(shape, BELOW, dtype=torch.int64), boxes.new_zeros(shape)
    images = max(1, PAIRS // (len(places) * boxes.shape[1]))
    parts = zip(*(one.split(images) for one in (boxes, labels, logits, predicted)), strict=True)
    matched, quality = zip(*(_align(places, *part) for part in parts), strict=True)
    return torch.cat(matched), torch.cat(quality)


def _align(
    places: Tensor, boxes: Tensor, labels: Tensor, logits: Tensor, predicted: Tensor
) -> tuple[Tensor, Tensor]:
    """`_match_aligned` for some images, each with M boxes or padding for them."""
    x, y = ((places[:, :2] + places[:, 2:]) / 2).unbind(1)  # [A]
    left, top, right, bottom = boxes.unsqueeze(-1).unbind(2)  # [b, M, 1]
    inside = torch.minimum(torch.minimum(x - left, right - x), torch.minimum(y - top, bottom - y)) > 0
    inside &= (labels >= 0)[..., None]
    overlaps = _overlaps(boxes, predicted)  # [b, M, A]
    index = labels.clamp(min=0)[:, None].expand(-1, len(places), -1)
    scores = logits.gather(2, index).sigmoid().transpose(1, 2)  # [b, M, A]
    alignment = scores * overlaps**6
    # where none overlaps anything yet, the nearest
    far = (x - (left + right) / 2) ** 2 + (y - (top + bottom) / 2) ** 2
    order = torch.where(
        inside, alignment + 1e-9 / (1 + far / ((right - left) * (bottom - top)).clamp(min=1)), 0
    )
    best = order.topk(min(CANDIDATES, len(places)), 2)
    chosen = torch.zeros_like(inside).scatter_(2, best.indices, best.values > 0)
    overlap, own = torch.where(chosen, overlaps, -1).max(
        1
    )  # a place finds one box: that which it overlaps most
    chosen &= torch.zeros_like(chosen).scatter_(1, own[:, None], True)
    alignment, overlaps = alignment * chosen, overlaps * chosen
    quality = alignment / alignment.amax(2, keepdim=True).clamp(min=1e-12) * overlaps.amax(2, keepdim=True)
    return own.masked_fill_(overlap < 0, BELOW), quality.amax(1)


def _overlaps(boxes: Tensor, anchors: Tensor) -> Tensor:
    """IoU of boxes [b, M, 4] and anchors [A, 4] or [b, A, 4] as [b, M, A]; 0 for padding, which is a point."""
    x1, y1, x2, y2 = anchors.unsqueeze(-3).unbind(-1)  # [1, A] or [b, 1, A]
    left, top, right, bottom = boxes.unsqueeze(-1).unbind(2)  # [b, M, 1]
    width = (torch.minimum(right, x2) - torch.maximum(left, x1)).clamp_(min=0)
    height = (torch.minimum(bottom, y2) - torch.maximum(top, y1)).clamp_(min=0)
    shared = width.mul_(height)
    union = (right - left) * (bottom - top) + (x2 - x1) * (y2 - y1) - shared
    return shared.div_(union.clamp_(min=1e-7))  # a box found may be a point too


class _Foreground(NamedTuple):
    """The anchors of a batch that are to find an object."""

    rows: Tensor  # int64 [n] in all images' anchors, one after another
    image: Tensor  # int64 [n]
    anchors: Tensor  # float32 [n, 4]
    boxes: Tensor  # float32 [n, 4], the objects'
    labels: Tensor  # int64 [n]


def _foreground(matched: Tensor, inputs: Inputs, anchors: Tensor) -> _Foreground:
    matched = matched.flatten()
    rows = (matched >= 0).nonzero().squeeze(1)
    image = rows // len(anchors)
    box = matched[rows] + image * inputs.boxes.shape[1]
    return _Foreground(
        rows,
        image,
        anchors[rows % len(anchors)],
        inputs.boxes.flatten(0, 1)[box],
        inputs.labels.flatten()[box],
    )


def _rows(output: Tensor, front: _Foreground) -> Tensor:
    """The foreground's rows [n, ...] of a head's output [B, A, ...]."""
    return output.flatten(0, 1).index_select(0, front.rows)


# -- loss terms --------------------------------------------------------------------------------------------------------


def _focal_loss(logits: Tensor, front: _Foreground, weights: Tensor) -> Tensor:
    """Sum over anchors of weight [B, A] times focal loss of all classes; front: what is there, all else is not."""
    loss: Tensor = _FocalLoss.apply(logits, front.rows * logits.shape[-1] + front.labels, weights)
    return loss


class _FocalLoss(torch.autograd.Function):
    """Focal loss with alpha 0.25 and gamma 2 (Lin et al., 2017, arXiv:1708.02002).

    The gradient is computed with the loss: one tensor of the logits' size is kept instead of ten.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, positives: Tensor, weights: Tensor) -> Tensor:
        """Logits [B, A, C], indices of the positives among all of them, weights [B, A] (or [1, 1])."""
        wrong = logits.clone(memory_format=torch.contiguous_format)  # the logit of the wrong answer
        _scale(wrong, positives, -1)
        probability, entropy = wrong.sigmoid(), F.softplus(wrong)
        squared = torch.square(probability, out=wrong)  # these are a GPU's largest tensors: few at a time
        loss = squared * entropy
        _scale(loss, positives, 0.25 / 0.75)
        total = 0.75 * (loss.sum(-1) * weights).sum()
        if ctx.needs_input_grad[0]:
            slope = torch.mul(entropy, 1 - probability, out=loss).mul_(2).add_(probability).mul_(squared)
            _scale(slope, positives, -0.25 / 0.75)
            ctx.save_for_backward(slope.mul_(0.75 * weights[..., None]))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0], None, None


def _quality_focal_loss(logits: Tensor, front: _Foreground, wanted: Tensor) -> Tensor:
    """Sum over all places and classes of (score - wanted)^2 times cross entropy (Li et al., 2020, arXiv:2006.04388).

    Wanted [n] is the score in the foreground; everywhere else it is 0.
    """
    everywhere = _FocalLoss.apply(logits, front.rows[:0], logits.new_full((1, 1), 1 / 0.75))
    chosen = _rows(logits, front).gather(1, front.labels[:, None]).squeeze(1)
    score = chosen.sigmoid()
    right = (score - wanted) ** 2 * F.binary_cross_entropy_with_logits(chosen, wanted, reduction="none")
    loss: Tensor = everywhere + (right - score**2 * F.softplus(chosen)).sum()
    return loss


def _scale(values: Tensor, places: Tensor, factor: float) -> None:
    """Multiply some of a contiguous tensor's values in place."""
    flat = values.view(-1)
    flat.index_copy_(0, places, flat[places] * factor)


def _giou_loss(boxes: Tensor, wanted: Tensor) -> Tensor:
    """1 - GIoU (Rezatofighi et al., 2019, arXiv:1902.09630) of boxes [n, 4] pair by pair, with no mask inside."""
    common = torch.minimum(boxes[:, 2:], wanted[:, 2:]) - torch.maximum(boxes[:, :2], wanted[:, :2])
    shared = _area(common.clamp(min=0))
    union = _area(boxes[:, 2:] - boxes[:, :2]) + _area(wanted[:, 2:] - wanted[:, :2]) - shared
    around = _area(torch.maximum(boxes[:, 2:], wanted[:, 2:]) - torch.minimum(boxes[:, :2], wanted[:, :2]))
    return 1 - shared / (union + 1e-7) + (around - union) / (around + 1e-7)


def _area(sides: Tensor) -> Tensor:
    """Of widths and heights [n, 2]; the backward pass of `prod` would ask the device how many of them are 0."""
    return sides[:, 0] * sides[:, 1]
