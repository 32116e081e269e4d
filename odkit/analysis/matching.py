"""Which prediction hit which ground truth box: COCO's greedy matching, over sparse pairs in NumPy.

The predictions must carry the dataset's class and image indices (`Predictions.for_dataset`). Which pairs overlap, and
how much, is found once (`overlaps`); whatever is matched, at any IoU, is a vector expression over them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Every prediction and ground truth box of one image that share some area.

    Pairs go by rising row of the prediction, then of the box.

    Attributes:
        found, boxes: Row of the prediction and of the ground truth box, crowds left out, int64 [M].
        ious: Their IoU, float64 [M].
        crowd_found, crowd_boxes: Row of the prediction and of the crowd box, int64 [C].
        crowd_shares: Share of the prediction's own area inside the crowd box, float64 [C].
    """

    dataset: Dataset
    predictions: Predictions
    found: Rows
    boxes: Rows
    ious: NDArray[np.float64]
    crowd_found: Rows
    crowd_boxes: Rows
    crowd_shares: NDArray[np.float64]

    @cached_property
    def surest(self) -> Rows:
        """Rows of the predictions in order of score, of equal scores the earlier first (as pycocotools), int64 [P]."""
        return order_of_scores(self.predictions.scores)

    @cached_property
    def same_class(self) -> NDArray[np.bool_]:
        """Whether prediction and box are of one class, bool [M]."""
        same: NDArray[np.bool_] = self.predictions.classes[self.found] == self.dataset.box_classes[self.boxes]
        return same


def overlaps(dataset: Dataset, predictions: Predictions) -> Overlaps:
    """Every prediction and ground truth box of one image that overlap, and by how much."""
    of_found, of_box = box_area(predictions.boxes), box_area(dataset.boxes)
    found, boxes, inter = _touching(dataset, predictions, np.flatnonzero(~dataset.box_crowd))
    ious = inter / (of_found[found] + of_box[boxes] - inter)
    crowd_found, crowd_boxes, inside = _touching(dataset, predictions, np.flatnonzero(dataset.box_crowd))
    return Overlaps(
        dataset=dataset,
        predictions=predictions,
        found=found,
        boxes=boxes,
        ious=ious,
        crowd_found=crowd_found,
        crowd_boxes=crowd_boxes,
        crowd_shares=inside / of_found[crowd_found],
    )


def match(
    dataset: Dataset, predictions: Predictions, iou: float = 0.5, *, max_detections: int = 100
) -> Matches:
    """COCO's matching at one IoU threshold, for `max_detections` predictions an image and class.

    Source: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", 2014; pycocotools' order in ties.
    """
    return match_overlaps(overlaps(dataset, predictions), iou, within_limit(predictions, max_detections))


def match_overlaps(pairs: Overlaps, iou: float, within: NDArray[np.bool_]) -> Matches:
    """COCO's matching of what overlaps, of the predictions within the limit (see `within_limit`)."""
    boxes, ious, taken = match_greedily(pairs, iou, within)
    ignored = ~within | (on_crowd(pairs, iou) & (boxes < 0))
    kinds = np.where(boxes >= 0, "true_positive", np.where(ignored, "ignored", "false_positive"))
    return Matches(iou=iou, kinds=kinds, boxes=boxes, ious=ious, predictions=taken)


def match_greedily(
    pairs: Overlaps, iou: float, shown: NDArray[np.bool_], *, same_class: bool = True
) -> tuple[Rows, NDArray[np.float64], Rows]:
    """In order of score each shown prediction takes the free box it overlaps most, from `iou` on.

    Returns:
        Ground truth row of each prediction [P], its IoU [P], prediction row of each ground truth box [B]; -1 and 0
        where there is none.
    """
    count, num_boxes = len(pairs.predictions), pairs.dataset.num_boxes
    box_of, prediction_of, iou_of = np.full(count, -1), np.full(num_boxes, -1), np.zeros(count)
    keep = (pairs.ious >= min(iou, 1 - 1e-10)) & shown[pairs.found]
    if same_class:
        keep &= pairs.same_class
    found, boxes, ious = pairs.found[keep], pairs.boxes[keep], pairs.ious[keep]
    place = np.empty(count, np.int64)
    place[pairs.surest] = np.arange(count)
    while len(found):
        # nobody can be before a prediction at its box where it is the surest that box has left: all such at once
        first = np.full(num_boxes, count)
        np.minimum.at(first, boxes, place[found])
        best = best_of_each(found, ious, last=True)  # pycocotools: of equal overlaps the later box is taken
        best = best[place[found[best]] == first[boxes[best]]]
        rows, taken = found[best], boxes[best]
        box_of[rows], iou_of[rows], prediction_of[taken] = taken, ious[best], rows
        keep = (box_of[found] < 0) & (prediction_of[boxes] < 0)
        found, boxes, ious = found[keep], boxes[keep], ious[keep]
    return box_of, iou_of, prediction_of


def best_of_each(found: Rows, ious: NDArray[np.float64], *, last: bool = False) -> Rows:
    """Where among pairs, sorted by `found`, each prediction's highest IoU stands; of equal ones the first or last."""
    if not len(found):
        return np.zeros(0, np.int64)
    start = np.flatnonzero(np.append(True, found[1:] != found[:-1]))
    highest = np.repeat(np.maximum.reduceat(ious, start), np.diff(np.append(start, len(found))))
    top = np.flatnonzero(ious == highest)
    other = found[top[1:]] != found[top[:-1]]
    kept: Rows = top[np.append(other, True) if last else np.append(True, other)]
    return kept


def on_crowd(pairs: Overlaps, iou: float, *, same_class: bool = True) -> NDArray[np.bool_]:
    """Predictions with a share of at least `iou` of their own area inside a crowd box, bool [P]."""
    inside = pairs.crowd_shares >= min(iou, 1 - 1e-10)
    if same_class:
        classes = pairs.predictions.classes[pairs.crowd_found]
        inside &= classes == pairs.dataset.box_classes[pairs.crowd_boxes]
    on = np.zeros(len(pairs.predictions), bool)
    on[pairs.crowd_found[inside]] = True
    return on


def within_limit(predictions: Predictions, limit: int) -> NDArray[np.bool_]:
    """The `limit` best predictions of every image and class, bool [P]."""
    keep = np.ones(len(predictions), bool)
    # only where an image has more of all classes together can one class be over the limit
    many = np.flatnonzero(np.bincount(predictions.images)[predictions.images] > limit)
    group = predictions.images[many].astype(np.int64) * max(len(predictions.class_names), 1)
    group += predictions.classes[many]
    order = np.lexsort((-predictions.scores[many].astype(np.float64), group))
    place = np.arange(len(order)) - np.searchsorted(group[order], group[order], side="left")
    keep[many[order[place >= limit]]] = False
    return keep


def order_of_scores(scores: NDArray[np.float32]) -> Rows:
    """Rows in order of finite scores, the highest first, of equal ones the earlier first, int64 [P].

    As `np.argsort(-scores, kind="stable")`, several times as fast: the bits of a float, read as a whole number, are in
    the order of the floats (those below 0 the other way round), and with the row in its lower half each is another.
    """
    bits = (0 - scores).view(np.int32)  # 0 - 0 and 0 - -0 are the same zero
    bits ^= (bits >> 31) & 0x7FFFFFFF
    keys = (bits.astype(np.int64) << 32) | np.arange(len(scores))
    keys.sort()
    return keys & 0xFFFFFFFF


def order_of_classes(classes: NDArray[np.int32]) -> Rows:
    """Rows in order of class, of equal ones the earlier first, int64 [P]."""
    # two bytes are sorted by their digits, several times as fast; 32,767 classes are more than anybody has
    few = not len(classes) or classes.max() < 2**15
    return np.argsort(classes.astype(np.int16) if few else classes, kind="stable")


def _touching(
    dataset: Dataset, predictions: Predictions, rows: Rows
) -> tuple[Rows, Rows, NDArray[np.float64]]:
    """All pairs of a prediction and one of the given ground truth rows that share some area.

    Returns:
        Prediction rows, ground truth rows and intersection in square pixels, [M] each.
    """
    images = np.arange(len(dataset) + 1)
    first_box = np.searchsorted(dataset.box_images[rows], images)
    first, boxes_there = (
        first_box[predictions.images],
        np.diff(first_box)[predictions.images],
    )  # of each prediction
    ends = np.cumsum(boxes_there)
    a, b = predictions.boxes.T.copy(), dataset.boxes[rows].T.copy()  # columns are read faster
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for start, stop in _parts_of(ends):
        many = boxes_there[start:stop]
        within = first[start:stop] - (ends[start:stop] - many)
        base = ends[start] - boxes_there[start]
        box = np.arange(base, ends[stop - 1]) + np.repeat(within, many)
        left, top, right, bottom = (np.repeat(column[start:stop], many) for column in a)
        touch = (left < b[2][box]) & (right > b[0][box]) & (top < b[3][box]) & (bottom > b[1][box])
        pairs = np.flatnonzero(touch)
        found, box = np.repeat(np.arange(start, stop), many)[pairs], box[pairs]
        one, other = a[:, found].astype(np.float64), b[:, box].astype(np.float64)
        inter = np.minimum(one[2], other[2]) - np.maximum(one[0], other[0])
        inter *= np.minimum(one[3], other[3]) - np.maximum(one[1], other[1])
        keep = inter > 0  # a box without width or height touches others and shares no area
        parts.append((found[keep], rows[box[keep]], inter[keep]))
    found, boxes, inter = (np.concatenate(column) for column in zip(*parts, strict=True))
    return found, boxes, inter


def _parts_of(ends: Rows, size: int = 200_000) -> Iterator[tuple[int, int]]:
    """Stretches of predictions with about `size` pairs each (few enough to stay in a core's cache), first and end."""
    total = int(ends[-1]) if len(ends) else 0
    edges = np.unique([0, *np.searchsorted(ends, np.arange(size, total, size)).tolist(), len(ends)])
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if ends[stop - 1] > (ends[start - 1] if start else 0):
            yield start, stop
