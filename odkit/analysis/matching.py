"""Which prediction hit which ground truth box: COCO's greedy matching, over sparse pairs in NumPy.

The predictions must carry the dataset's class and image indices (`Predictions.for_dataset`). Only pairs that overlap
are ever kept, so half a million predictions match in seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from odkit.data import Dataset, Predictions, box_area

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Matches:
    """Which prediction hit which ground truth box, by COCO's rule at one IoU threshold.

    In order of score, each prediction takes the free box of its own class that it overlaps most. Matching goes by
    falling score, so a score threshold only takes matches away: mask by the predictions' scores.

    Attributes:
        iou: The IoU a match needs.
        kinds: "true_positive", "false_positive" or "ignored" (on a crowd, or beyond the detections allowed an image
            and class), array [P] of str.
        boxes: Row of the ground truth box each prediction matched, -1 for none, int64 [P].
        ious: IoU with that box, 0 for none, float64 [P].
        predictions: Row of the prediction that matched each ground truth box, -1 for none, int64 [B].
    """

    iou: float
    kinds: NDArray[np.str_]
    boxes: Rows
    ious: NDArray[np.float64]
    predictions: Rows


def match(
    dataset: Dataset, predictions: Predictions, iou: float = 0.5, *, max_detections: int = 100
) -> Matches:
    """COCO's matching at one IoU threshold, for `max_detections` predictions an image and class.

    Source: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", 2014; pycocotools' order in ties.
    """
    kept = within_limit(predictions, max_detections)
    boxes, ious, taken = match_greedily(dataset, predictions, iou, kept)
    ignored = ~kept | (on_crowd(dataset, predictions, iou) & (boxes < 0))
    kinds = np.where(boxes >= 0, "true_positive", np.where(ignored, "ignored", "false_positive"))
    return Matches(iou=iou, kinds=kinds, boxes=boxes, ious=ious, predictions=taken)


def overlaps(
    dataset: Dataset, predictions: Predictions, minimum: float
) -> tuple[Rows, Rows, NDArray[np.float64]]:
    """Every prediction and ground truth box of one image that overlap at all, with an IoU of `minimum` or more.

    Returns:
        Row of the prediction, row of the ground truth box (crowds left out), IoU; each [M].
    """
    found, boxes, iou = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for f, b, inter in _touching(dataset, predictions, np.flatnonzero(~dataset.box_crowd)):
        value = inter / (box_area(predictions.boxes[f]) + box_area(dataset.boxes[b]) - inter)
        keep = value >= minimum
        found.append(f[keep])
        boxes.append(b[keep])
        iou.append(value[keep])
    return np.concatenate(found), np.concatenate(boxes), np.concatenate(iou)


def match_greedily(
    dataset: Dataset,
    predictions: Predictions,
    iou: float,
    shown: NDArray[np.bool_],
    *,
    same_class: bool = True,
) -> tuple[Rows, NDArray[np.float64], Rows]:
    """In order of score each shown prediction takes the free box it overlaps most, from `iou` on.

    Returns:
        Ground truth row of each prediction [P], its IoU [P], prediction row of each ground truth box [B]; -1 and 0
        where there is none.
    """
    found, boxes, overlap = overlaps(dataset, predictions, min(iou, 1 - 1e-10))
    keep = shown[found]
    if same_class:
        keep &= predictions.classes[found] == dataset.box_classes[boxes]
    found, boxes, overlap = found[keep], boxes[keep], overlap[keep]
    # pycocotools: of equal scores the earlier prediction goes first, of equal overlaps the later box is taken
    order = np.lexsort((-boxes, -overlap, found, -predictions.scores[found].astype(np.float64)))
    box_of, prediction_of = np.full(len(predictions), -1), np.full(dataset.num_boxes, -1)
    iou_of = np.zeros(len(predictions))
    done: set[int] = set()
    taken: set[int] = set()
    for row, box, value in zip(
        found[order].tolist(), boxes[order].tolist(), overlap[order].tolist(), strict=True
    ):
        if row not in done and box not in taken:
            done.add(row)
            taken.add(box)
            box_of[row], iou_of[row], prediction_of[box] = box, value, row
    return box_of, iou_of, prediction_of


def on_crowd(
    dataset: Dataset, predictions: Predictions, iou: float, *, same_class: bool = True
) -> NDArray[np.bool_]:
    """Predictions with a share of at least `iou` of their own area inside a crowd box, bool [P]."""
    on = np.zeros(len(predictions), bool)
    for found, boxes, inter in _touching(dataset, predictions, np.flatnonzero(dataset.box_crowd)):
        inside = inter / box_area(predictions.boxes[found]) >= min(iou, 1 - 1e-10)
        if same_class:
            inside &= predictions.classes[found] == dataset.box_classes[boxes]
        on[found[inside]] = True
    return on


def within_limit(predictions: Predictions, limit: int) -> NDArray[np.bool_]:
    """The `limit` best predictions of every image and class, bool [P]."""
    group = predictions.images.astype(np.int64) * max(len(predictions.class_names), 1) + predictions.classes
    order = np.lexsort((np.arange(len(group)), -predictions.scores.astype(np.float64), group))
    place = np.arange(len(order)) - np.searchsorted(group[order], group[order], side="left")
    keep = np.zeros(len(order), bool)
    keep[order] = place < limit
    return keep


def _touching(
    dataset: Dataset, predictions: Predictions, rows: Rows, chunk: int = 2_000_000
) -> Iterator[tuple[Rows, Rows, NDArray[np.float64]]]:
    """All pairs of a prediction and one of the given ground truth rows that share some area, image by image.

    Yields prediction rows, ground truth rows and intersection in square pixels, about `chunk` pairs looked at a time.
    """
    images = np.arange(len(dataset) + 1)
    first_found = np.searchsorted(predictions.images, images)
    first_box = np.searchsorted(dataset.box_images[rows], images)
    pairs = np.diff(first_found) * np.diff(first_box)  # [N], pairs of each image
    group = np.cumsum(pairs) // chunk
    for number in np.unique(group[pairs > 0]):
        chosen = np.flatnonzero((group == number) & (pairs > 0))
        size, width = pairs[chosen], np.diff(first_box)[chosen]
        offset = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        found = np.repeat(first_found[chosen], size) + offset // np.repeat(width, size)
        boxes = rows[np.repeat(first_box[chosen], size) + offset % np.repeat(width, size)]
        a, b = predictions.boxes[found].astype(np.float64), dataset.boxes[boxes].astype(np.float64)
        inter = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(1)
        keep = inter > 0
        yield found[keep], boxes[keep], inter[keep]
