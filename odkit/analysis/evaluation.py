"""How good a detector is: COCO's figures, per class, curves, confusion, and which images went worst.

COCO's average precision comes from hotcoco, called in one place (`_coco_arrays`) and held equal to pycocotools by
the tests. What a person looks at next is matched here by COCO's rule, so that every figure can be traced to rows of
the predictions and of the ground truth.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkit.analysis.bootstrap import Intervals, bootstrap, without_nan
from odkit.analysis.calibration import Calibration, measure_calibration
from odkit.analysis.matching import (
    Matches,
    Overlaps,
    match_greedily,
    match_overlaps,
    on_crowd,
    order_of_classes,
    overlaps,
    within_limit,
)
from odkit.analysis.tables import as_figure, as_html
from odkit.analysis.thresholds import Thresholds, find_thresholds
from odkit.data import Dataset, Predictions, box_area, near_name, xyxy_to_xywh
from odkit.system import InputError, UnknownNameError, counted


def evaluate(dataset: Dataset, predictions: Predictions, *, max_detections: int = 100) -> "Evaluation":
    """COCO's figures of the predictions on the dataset's ground truth, equal to pycocotools'.

    Classes are matched by name, in whatever order. The ground truth decides which count, as COCO's does, and
    `Evaluation.notes` say where the two tables differ:

    - A class that the dataset has not is not judged: its predictions are left out, for where nobody labelled such
      objects, a prediction is neither right nor wrong.
    - A class that stands in the dataset's table and has no box in it has no AP, and no part in the mean.
    - A class that the detector does not know counts with AP 0, all its boxes missed: whoever needs those objects found
      does not get them, and leaving them out would flatter. To judge the others alone, say so:
      `dataset.with_classes(list(predictions.class_names))`.

    Args:
        dataset: The ground truth; every image in it counts, those without boxes as well.
        predictions: What the detector found, down to low scores (a threshold would cut the curves short).
        max_detections: Best predictions counted an image and class (COCO's maxDets).

    Raises:
        ValueError: The class tables share no name, the predictions are of other images, or the ground truth has
            boxes of unknown class or without numbers (the audit names them, `repaired()` drops them).

    Source: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", 2014; cocodataset.org/#detection-eval.
    """
    if max_detections < 1:
        raise InputError(f"max_detections must be 1 or more, not {max_detections}")
    _refuse_unusable(dataset)
    notes = (*_class_notes(dataset, predictions), *predictions.notes)
    known = np.array([name in predictions.class_names for name in dataset.class_names], bool)
    predictions = predictions.for_dataset(dataset, same_classes=False)
    ap, ar, precision = _coco_arrays(dataset, predictions, max_detections)
    classes = range(len(dataset.class_names))
    return Evaluation(
        dataset=dataset,
        predictions=predictions,
        max_detections=max_detections,
        ap=_mean(ap[:, :, 0]),
        ap50=_mean(ap[0, :, 0]),
        ap75=_mean(ap[5, :, 0]),
        ap_small=_mean(ap[:, :, 1]),
        ap_medium=_mean(ap[:, :, 2]),
        ap_large=_mean(ap[:, :, 3]),
        ar1=_mean(ar[:, :, 0, 0]),
        ar10=_mean(ar[:, :, 0, 1]),
        ar=_mean(ar[:, :, 0, 2]),
        ar_small=_mean(ar[:, :, 1, 2]),
        ar_medium=_mean(ar[:, :, 2, 2]),
        ar_large=_mean(ar[:, :, 3, 2]),
        class_ap=np.array([_mean(ap[:, k, 0]) for k in classes]),
        class_ap50=ap[0, :, 0],
        class_ap75=ap[5, :, 0],
        class_ar=np.array([_mean(ar[:, k, 0, 2]) for k in classes]),
        class_known=known,
        precision=precision,
        recall=ar[:, :, 0, 2],
        notes=notes,
    )


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall of one class at IoU 0.5 as the score threshold falls; one point a distinct score.

    Empty where the class has no ground truth.
    """

    class_name: str
    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    @property
    def f1(self) -> NDArray[np.float64]:
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)

    @property
    def best_f1(self) -> float:
        """The highest F1 any score threshold gives; nan where the curve is empty."""
        return float(self.f1.max()) if len(self.scores) else math.nan

    @property
    def best_score(self) -> float:
        """The score threshold that gives `best_f1`; nan where the curve is empty."""
        return float(self.scores[self.f1.argmax()]) if len(self.scores) else math.nan


@dataclass(frozen=True, eq=False)
class PerImage:
    """Counts of each image at one score threshold, int64 [N], and the loss `worst_images()` sorts by, float64 [N].

    The loss of an image is one for each missed box, the score of each false positive, 1 - IoU of each true one.
    """

    score: float
    true_positives: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    missed: NDArray[np.int64]
    loss: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Confusion:
    """A confusion matrix: rows are what is there, columns what was predicted, the last of each is background.

    In order of score, each prediction takes the free ground truth box it overlaps most, whatever its class.

    Attributes:
        counts: Int64 [K + 1, K + 1].
        names: The class names and "background".
        truth, predicted: Row and column of each of the M counted cases in `counts`, int64 [M].
        images, boxes, predictions: Image, ground truth row and prediction row of each case, int64 [M]; -1 for none.
    """

    iou: float
    score: float
    counts: NDArray[np.int64]
    names: tuple[str, ...]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    images: NDArray[np.int64]
    boxes: NDArray[np.int64]
    predictions: NDArray[np.int64]

    @property
    def share(self) -> NDArray[np.float64]:
        """Each count as a share of its row, 0 to 1, float64 [K + 1, K + 1]; 0 in an empty row."""
        share: NDArray[np.float64] = self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1)
        return share

    def images_of(self, truth: str, predicted: str) -> NDArray[np.int64]:
        """Indices of the images behind one cell, those with most cases first.

        Raises:
            KeyError: There is no such class; "background" stands for none.
        """
        for name in (truth, predicted):
            if name not in self.names:
                raise UnknownNameError(f"no class {name!r}; there are {', '.join(self.names)}")
        cell = (self.truth == self.names.index(truth)) & (self.predicted == self.names.index(predicted))
        images, counts = np.unique(self.images[cell], return_counts=True)
        return images[np.argsort(-counts, kind="stable")]

    def __repr__(self) -> str:
        width = max(len(name) for name in self.names) + 2
        lines = [f"Confusion at IoU {self.iou:g}, score {self.score:.2f} (rows: truth, columns: predicted)"]
        lines += [" " * width + "".join(f"{name:>{width}}" for name in self.names)]
        for name, row in zip(self.names, self.counts.tolist(), strict=True):
            lines.append(f"{name:>{width}}" + "".join(f"{count:>{width}}" for count in row))
        return "\n".join(lines)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """COCO's figures for one set of predictions, and the ways into them.

    All figures are 0 to 1, and nan where there is no ground truth to measure on. `ap` is the mean over IoU 0.50 to
    0.95 and over the classes with ground truth; "small" is a box under 32 x 32 pixels, "large" one over 96 x 96.
    `ar1` and `ar10` are the recall with 1 and 10 detections an image and class, `ar` with `max_detections`.

    Attributes:
        dataset: The ground truth.
        predictions: The predictions with the dataset's class and image indices; rows everywhere below are its rows.
        class_ap, class_ap50, class_ap75, class_ar: One figure a class, float64 [K].
        class_known: Whether the detector knows the class, bool [K].
        precision: COCO's precision of each class at the IoUs 0.50, 0.55, ..., 0.95 and the recalls 0, 0.01, ..., 1,
            float64 [10, K, 101]; its mean over all of them is the class's AP.
        recall: Recall of each class at these IoUs, float64 [10, K].
        notes: Where the class tables of dataset and detector differ, and what follows from it (see `evaluate`); and
            what `Predictions.notes` say.
    """

    dataset: Dataset
    predictions: Predictions
    max_detections: int
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar: float
    ar_small: float
    ar_medium: float
    ar_large: float
    class_ap: NDArray[np.float64]
    class_ap50: NDArray[np.float64]
    class_ap75: NDArray[np.float64]
    class_ar: NDArray[np.float64]
    class_known: NDArray[np.bool_]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.dataset.class_names

    @property
    def split(self) -> str:
        """The split that all of the images are of; "" where they are of several or of none."""
        splits = self.dataset.split_counts()
        return next(iter(splits)) if list(splits.values()) == [len(self.dataset)] else ""

    @property
    def data_name(self) -> str:
        """The dataset's name with the split, as "photos, val"."""
        return ", ".join(filter(None, (self.dataset.name, self.split)))

    @cached_property
    def class_boxes(self) -> NDArray[np.int64]:
        """Number of ground truth boxes of each class, crowds not counted, int64 [K]."""
        return np.bincount(self.dataset.box_classes[~self.dataset.box_crowd], minlength=len(self.class_names))

    @property
    def metrics(self) -> dict[str, float]:
        """COCO's twelve figures by name."""
        return {name: getattr(self, name) for name in _METRICS}

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """One row a class: class, boxes, ap, ap50, ap75, ar, best_f1 and the score threshold that gives it."""
        return [
            {
                "class": name,
                "boxes": int(self.class_boxes[k]),
                "ap": float(self.class_ap[k]),
                "ap50": float(self.class_ap50[k]),
                "ap75": float(self.class_ap75[k]),
                "ar": float(self.class_ar[k]),
                "best_f1": self.curves[name].best_f1,
                "best_score": self.curves[name].best_score,
            }
            for k, name in enumerate(self.class_names)
        ]

    def intervals(self, *, samples: int = 1000, seed: int = 0, score: float | None = None) -> Intervals:
        """AP, AP50, AP75 and AR, over all classes and of each, with the intervals that hold them with 95% confidence.

        And precision, recall and F1 at IoU 0.5 of the predictions from a score on.

        As many images as there are, are drawn from them with replacement `samples` times, and each figure is what
        `evaluate` would say of the draw: the middle 95% of these, around the figure itself, are what as many other
        images of the same kind would have said. Matching is done once: half a million predictions take ten seconds
        or so.

        Args:
            samples: Number of draws.
            seed: Seed of the draws.
            score: Score threshold of precision, recall and F1; `best_score` where not given, which was chosen on these
                very images: one chosen on others says more.

        Source: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile
        interval).
        """
        return bootstrap(self, samples=samples, seed=seed, score=score)

    @cached_property
    def thresholds(self) -> Thresholds:
        """The score threshold with the best F1 at IoU 0.5, one for all classes and one of each class's own."""
        return self._find_thresholds()

    def score_for(self, *, precision: float | None = None, recall: float | None = None) -> Thresholds:
        """The score threshold for a wanted precision or recall at IoU 0.5, one for all classes and one for each.

        Of the thresholds with at least the wanted precision it is that with the highest recall, of those with the
        wanted recall that with the highest precision. Where none has it, the threshold is nan, and a sentence in
        `notes` says how far it goes. Like everything that is chosen on some images, it holds a little less well on
        others: the more boxes a class has, the better.

        Args:
            precision: Share of the predictions that is to be right, above 0 and at most 1.
            recall: Share of the boxes that is to be found; give one of the two.

        Raises:
            ValueError: Neither is given, or both, or one that is not above 0 and at most 1.
        """
        if precision is None and recall is None:
            raise InputError(
                "score_for() needs a precision or a recall; `thresholds` has those of the best F1"
            )
        return self._find_thresholds(precision, recall)

    def _find_thresholds(self, precision: float | None = None, recall: float | None = None) -> Thresholds:
        return find_thresholds(
            [*self.curves.values(), self.curve],
            [*self.class_boxes.tolist(), int(self.class_boxes.sum())],
            precision=precision,
            recall=recall,
            data_name=self.data_name,
        )

    def calibration(self, *, bins: int = 10, iou: float = 0.5, least: float = 0.3) -> Calibration:
        """Whether a score means what it says: of the predictions with a score of 0.8, are 80% right?

        Args:
            bins: Into how many equal stretches scores from 0 to 1 are divided.
            iou: IoU from which on a prediction is right.
            least: Score from which on predictions are looked at; with all of them, the many that have next to no
                score would outweigh the others.

        Raises:
            ValueError: There is no bin, or `least` is not 0 to 1.
        """
        return measure_calibration(
            self.predictions, self.matches(iou), bins=bins, least=least, data_name=self.data_name
        )

    # -- what hit what -------------------------------------------------------------------------------------------

    @cached_property
    def overlaps(self) -> Overlaps:
        """Which predictions and boxes overlap, and how much: what all matching goes by."""
        return overlaps(self.dataset, self.predictions)

    @cached_property
    def within(self) -> NDArray[np.bool_]:
        """The predictions that are among the `max_detections` best of their image and class, bool [P]."""
        return within_limit(self.predictions, self.max_detections)

    def matches(self, iou: float = 0.5) -> Matches:
        """Which prediction hit which ground truth box at this IoU, all scores (see `Matches`)."""
        cache: dict[float, Matches] = self.__dict__.setdefault("_matches", {})
        if iou not in cache:
            cache[iou] = match_overlaps(self.overlaps, iou, self.within)
        return cache[iou]

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """Precision and recall at IoU 0.5 by class name."""
        rows = self._counted
        order = rows[order_of_classes(self.predictions.classes[rows])]
        ends = np.searchsorted(self.predictions.classes[order], np.arange(len(self.class_names) + 1))
        return {
            name: self._curve(name, order[ends[k] : ends[k + 1]], int(self.class_boxes[k]))
            for k, name in enumerate(self.class_names)
        }

    @cached_property
    def curve(self) -> Curve:
        """Precision and recall at IoU 0.5 of all classes together, where one score threshold is for all."""
        return self._curve("all", self._counted, int(self.class_boxes.sum()))

    @property
    def best_score(self) -> float:
        """The one score threshold with the highest F1 over all classes at IoU 0.5; 0.5 where nothing matches."""
        return self.curve.best_score if self.curve.best_f1 > 0 else 0.5

    @cached_property
    def _counted(self) -> NDArray[np.int64]:
        """Rows of the predictions that are right or wrong at IoU 0.5, the surest first."""
        surest = self.overlaps.surest
        rows: NDArray[np.int64] = surest[(self.matches().kinds != "ignored")[surest]]
        return rows

    def per_image(self, score: float | None = None) -> PerImage:
        """True and false positives, missed boxes and loss of every image at IoU 0.5.

        Args:
            score: Score a prediction needs to count; `best_score` where not given.
        """
        score = self.best_score if score is None else score
        hits, data, found = self.matches(), self.dataset, self.predictions
        shown = found.scores >= score
        true, false = shown & (hits.kinds == "true_positive"), shown & (hits.kinds == "false_positive")
        missed = ~data.box_crowd & ~_pick(shown, hits.predictions, False)
        missed_count = np.bincount(data.box_images[missed], minlength=len(data))
        loss = missed_count.astype(np.float64)
        np.add.at(loss, found.images[false], found.scores[false].clip(0, 1))
        np.add.at(loss, found.images[true], 1 - hits.ious[true])
        return PerImage(
            score=score,
            true_positives=np.bincount(found.images[true], minlength=len(data)),
            false_positives=np.bincount(found.images[false], minlength=len(data)),
            missed=missed_count,
            loss=loss,
        )

    def worst_images(self, count: int | None = None, *, score: float | None = None) -> NDArray[np.int64]:
        """Indices of the images, the highest loss (see `PerImage`) first; all of them or the first `count`."""
        return np.argsort(-self.per_image(score).loss, kind="stable")[:count]

    def confusion_matrix(self, iou: float = 0.5, score: float | None = None) -> Confusion:
        """What is there against what was predicted, classes and background (see `Confusion`).

        Predictions on a crowd box that hit nothing else are left out, as in COCO's figures.

        Args:
            iou: IoU a pair needs.
            score: Score a prediction needs to count; `best_score` where not given.
        """
        score = self.best_score if score is None else score
        data, found = self.dataset, self.predictions
        shown = found.scores >= score
        boxes, _, taken_by = match_greedily(self.overlaps, iou, shown, same_class=False)
        rows = np.flatnonzero(shown & ~(on_crowd(self.overlaps, iou, same_class=False) & (boxes < 0)))
        missed = np.flatnonzero(~data.box_crowd & (taken_by < 0))
        background, none = len(self.class_names), np.full(len(missed), -1)
        truth = np.concatenate([_pick(data.box_classes, boxes[rows], background), data.box_classes[missed]])
        predicted = np.concatenate([found.classes[rows], none + 1 + background])
        counts = np.zeros((background + 1, background + 1), np.int64)
        np.add.at(counts, (truth, predicted), 1)
        return Confusion(
            iou=iou,
            score=score,
            counts=counts,
            names=(*self.class_names, "background"),
            truth=truth.astype(np.int64),
            predicted=predicted.astype(np.int64),
            images=np.concatenate([found.images[rows], data.box_images[missed]]).astype(np.int64),
            boxes=np.concatenate([boxes[rows], missed]),
            predictions=np.concatenate([rows, none]),
        )

    def _curve(self, name: str, rows: NDArray[np.int64], boxes: int) -> Curve:
        """The curve of some predictions, the surest first, that are to find so many boxes."""
        rows = rows if boxes else rows[:0]
        score = self.predictions.scores[rows].astype(np.float64)
        true = (self.matches().boxes[rows] >= 0).cumsum()
        last = np.append(score[1:] != score[:-1], True)[: len(score)]  # a threshold takes all of equal score
        return Curve(
            name, score[last], (true / np.arange(1, len(score) + 1))[last], true[last] / max(boxes, 1)
        )

    # -- showing -------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain numbers for JSON; nan becomes None."""
        return {
            "images": len(self.dataset),
            "boxes": int(self.class_boxes.sum()),
            "predictions": len(self.predictions),
            "max_detections": self.max_detections,
            "best_score": self.best_score,
            **without_nan(self.metrics),
            "notes": list(self.notes),
            "per_class": [without_nan(row) for row in self.per_class],
        }

    def __repr__(self) -> str:
        rows = self._rows()
        width = max(len(row[0]) for row in rows)
        table = [f"  {row[0]:<{width}}" + "".join(f"{cell:>9}" for cell in row[1:]) for row in rows]
        notes = [f"  {line}" for line in (self._footnote(), *self.notes)]
        return "\n".join([f"Evaluation on {self._caption()}", *table, *notes])

    def _repr_html_(self) -> str:
        notes = "<br>".join(escape(line) for line in (self._footnote(), *self.notes))
        return as_html(self._rows(), f"Evaluation on {self._caption()}") + f"<p>{notes}</p>"

    def _caption(self) -> str:
        images, found = counted(len(self.dataset), "image"), counted(len(self.predictions), "prediction")
        return f"{self.data_name}: {images}, {found}"

    def _footnote(self) -> str:
        sizes = ", ".join(
            f"{size} {as_figure(getattr(self, 'ap_' + size))}" for size in ("small", "medium", "large")
        )
        return f"AP by box size: {sizes}. Score threshold with the best F1: {self.best_score:.2f}"

    def _rows(self) -> list[tuple[str, ...]]:
        keys = ("ap", "ap50", "ap75", "ar")
        rows = [(r["class"], f"{r['boxes']:,}", *(as_figure(r[key]) for key in keys)) for r in self.per_class]
        total = ("all", f"{int(self.class_boxes.sum()):,}", *(as_figure(getattr(self, key)) for key in keys))
        return [("class", "boxes", "AP", "AP50", "AP75", "AR"), *rows, total]


_METRICS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar", "ar_small", "ar_medium", "ar_large"),
)


def _class_notes(dataset: Dataset, predictions: Predictions) -> tuple[str, ...]:
    """Where the class tables differ, and what `evaluate` makes of it."""
    notes = []
    boxes = dataset.class_counts()
    missed = [name for name in dataset.class_names if boxes[name] and name not in predictions.class_names]
    if missed:
        count = sum(boxes[name] for name in missed)
        notes.append(
            f"The detector does not know {_quoted(missed)}: {count:,} boxes count as missed (with_classes() judges "
            "without them)."
        )
    unlabelled = [name for name in predictions.class_names if name not in dataset.class_names]
    if unlabelled:
        out = np.isin(predictions.classes, [predictions.class_names.index(name) for name in unlabelled])
        notes.append(
            f"The dataset does not have {_quoted(unlabelled)}: {int(out.sum()):,} predictions left out, for nothing "
            "tells whether they are right."
        )
    twins = {name: near_name(name, unlabelled) for name in missed}
    twins = {name: near for name, near in twins.items() if near}
    if twins:
        notes.append(f"If these are the same, rename them first: dataset.with_classes({twins}).")
    return tuple(notes)


def _quoted(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(map(repr, names[:8])) + more


def _refuse_unusable(dataset: Dataset) -> None:
    for what, rows in (
        ("of unknown class", dataset.box_classes < 0),
        ("with a coordinate that is not a finite number", ~np.isfinite(dataset.boxes).all(1)),
    ):
        if rows.any():
            row = int(np.flatnonzero(rows)[0])
            first = f"{dataset.image_ids[dataset.box_images[row]]}, {dataset.box_ids[row]}"
            raise InputError(
                f"{dataset.name} has {int(rows.sum())} boxes {what}, the first at {first}; evaluate on "
                "od.repaired(dataset), which drops them"
            )


def _coco_arrays(
    dataset: Dataset, predictions: Predictions, max_detections: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The only caller of hotcoco: AP [10 IoUs, K, 4 areas], recall [10, K, 4, 3 detection limits]; nan for none.

    And the precision that AP is the mean of, for all areas, [10, K, 101 recalls].

    Areas: all, small, medium, large. Limits: 1, 10 and `max_detections`, the first two never above the last.
    """
    import hotcoco

    classes = len(dataset.class_names)
    ap, ar = np.full((10, classes, 4), np.nan), np.full((10, classes, 4, 3), np.nan)
    curves = np.full((10, classes, 101), np.nan)
    if not classes or not len(dataset):
        return ap, ar, curves
    sizes = enumerate(dataset.image_sizes.tolist())
    truth = hotcoco.COCO.from_arrays(
        # ids count from 1: COCO's own evaluation takes an annotation with the id 0 for "no match"
        [{"id": i + 1, "width": width, "height": height} for i, (width, height) in sizes],
        [{"id": k + 1, "name": name} for k, name in enumerate(dataset.class_names)],
        dataset.box_images.astype(np.int64) + 1,
        dataset.box_classes.astype(np.int64) + 1,
        xyxy_to_xywh(dataset.boxes),
        ids=np.arange(1, dataset.num_boxes + 1),
        area=box_area(dataset.boxes),
        iscrowd=dataset.box_crowd,
    )
    found = np.empty((len(predictions), 7))
    found[:, 0], found[:, 5], found[:, 6] = (
        predictions.images + 1,
        predictions.scores,
        predictions.classes + 1,
    )
    found[:, 1:5] = xyxy_to_xywh(predictions.boxes)
    engine = hotcoco.COCOeval(truth, truth.load_res(found), "bbox")
    engine.params.maxDets = [1, min(10, max_detections), max_detections]
    engine.evaluate()
    engine.accumulate()
    result = engine.eval
    assert result is not None
    precision, recall = result["precision"][..., -1], result["recall"]  # [10, 101, K, 4], [10, K, 4, 3]
    valid = precision[:, 0] > -1  # COCO writes -1 where a class has no ground truth of that area
    ap[valid] = precision.mean(1)[valid]
    ar[recall > -1] = recall[recall > -1]
    curves[valid[..., 0]] = precision[..., 0].swapaxes(1, 2)[valid[..., 0]]
    return ap, ar, curves


def _pick(values: NDArray[Any], rows: NDArray[np.int64], other: Any) -> NDArray[Any]:
    """`values[rows]`, and `other` where a row is -1."""
    return np.append(values, np.asarray([other], values.dtype))[np.where(rows < 0, len(values), rows)]


def _mean(values: NDArray[np.float64]) -> float:
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if len(valid) else math.nan
