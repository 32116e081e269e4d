"""How far COCO's figures move with the images: the same figures on images drawn anew, and the intervals they span.

Each image is matched once; a draw only says how often an image counts. What comes out is what `evaluate` says of a
dataset that holds each image as often as it was drawn, to the last digits; only where an image has several predictions
of one class with the very same score are its copies not counted one after the other. (hotcoco's own bootstrap counts
an image that is drawn twice once.)
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from odkit.analysis.matching import Matches, Overlaps, match_overlaps
from odkit.analysis.tables import as_html, as_text
from odkit.data import Dataset, Predictions
from odkit.system import InputError, counted, cpu_count, progress_bar

IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""The overlaps over which COCO's AP and AR are the mean."""
FIGURES = ("ap", "ap50", "ap75", "ar")
AT_SCORE = ("precision", "recall", "f1")
_SIDES = "lr" + "l" * len(FIGURES)
_RECALLS = np.linspace(0, 1, 101)  # at which COCO reads a precision; not k / 100: some differ in the last bit
_AT_ONCE = 4_000_000  # predictions times draws that are looked at together: some tens of megabytes


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Intervals:
    """COCO's figures with their 95% intervals: over all classes, and for each.

    A row has class, boxes, and for each of ap, ap50, ap75, ar, precision, recall and f1 the figure itself, as "ap", and
    the interval's ends, as "ap_low" and "ap_high"; nan where there is no ground truth to measure on. The last three are
    those of the predictions from `score` on, at IoU 0.5; over all classes they count all boxes alike.

    Attributes:
        images: Number of images.
        samples: How often as many images were drawn from them.
        score: Score threshold of precision, recall and F1.
        total: The row over all classes; its class is "all".
        per_class: One row a class.
    """

    images: int
    samples: int
    total: dict[str, Any]
    per_class: list[dict[str, Any]]
    score: float = math.nan

    def of(self, figure: str = "ap", class_name: str | None = None) -> tuple[float, float]:
        """The ends of one interval, over all classes or of one.

        Args:
            figure: "ap", "ap50", "ap75", "ar", "precision", "recall" or "f1".
            class_name: The class; all where not given.

        Raises:
            InputError: There is no such figure or class.
        """
        rows = [self.total] if class_name is None else [r for r in self.per_class if r["class"] == class_name]
        if figure not in (*FIGURES, *AT_SCORE) or not rows or figure not in rows[0]:
            names = ", ".join(row["class"] for row in self.per_class)
            figures = [f for f in (*FIGURES, *AT_SCORE) if f in self.total]
            raise InputError(
                f"no interval of {figure!r} for {class_name or 'all classes'!r}; there are {', '.join(figures)} "
                f"for the classes {names}"
            )
        return rows[0][f"{figure}_low"], rows[0][f"{figure}_high"]

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain values for JSON; nan becomes None."""
        return {
            "images": self.images,
            "samples": self.samples,
            **without_nan({"score": self.score}),
            "total": without_nan(self.total),
            "per_class": [without_nan(row) for row in self.per_class],
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Intervals":
        """What `to_dict()` made plain."""
        return cls(
            images=plain["images"],
            samples=plain["samples"],
            score=_with_nan({"score": plain.get("score")})["score"],  # older files have none
            total=_with_nan(plain["total"]),
            per_class=[_with_nan(row) for row in plain["per_class"]],
        )

    def __repr__(self) -> str:
        return "\n".join([self._caption(), *self.lines(), *(f"  {note}" for note in self._at_score())])

    def _repr_html_(self) -> str:
        return self.table_html(self._caption()) + "".join(f"<p>{note}</p>" for note in self._at_score())

    def _at_score(self) -> list[str]:
        if math.isnan(self.score):
            return []
        precision, recall, f1 = (_text(self.total, figure) for figure in AT_SCORE)
        return [f"At score {self.score:.2f} and above: precision {precision}, recall {recall}, F1 {f1}"]

    def _caption(self) -> str:
        return f"95% intervals: {counted(self.images, 'image')}, drawn anew {self.samples:,} times"

    def lines(self) -> list[str]:
        """The table as lines of text: a figure and its interval in a cell."""
        return as_text(self._rows(), _SIDES)

    def table_html(self, caption: str) -> str:
        """The table as HTML under a caption."""
        return as_html(self._rows(), caption, _SIDES)

    def _rows(self) -> list[tuple[str, ...]]:
        rows = [
            (row["class"], f"{row['boxes']:,}", *(_text(row, figure) for figure in FIGURES))
            for row in (*self.per_class, self.total)
        ]
        return [("class", "boxes", *(figure.upper() for figure in FIGURES)), *rows]


def _text(row: dict[str, Any], figure: str) -> str:
    """A figure of a row with its interval, as "0.692 (0.640 to 0.741)"; a dash where there is none."""
    value, low, high = (row[key] for key in (figure, f"{figure}_low", f"{figure}_high"))
    return "—" if math.isnan(value) else f"{value:.3f} ({low:.3f} to {high:.3f})"


class Judged(Protocol):
    """What is needed of an evaluation to judge it on other draws of its images, besides the figures themselves."""

    @property
    def dataset(self) -> Dataset: ...
    @property
    def predictions(self) -> Predictions: ...
    @property
    def best_score(self) -> float: ...
    @property
    def overlaps(self) -> Overlaps: ...
    @property
    def within(self) -> NDArray[np.bool_]: ...
    @property
    def class_boxes(self) -> NDArray[np.int64]: ...
    def matches(self, iou: float = 0.5) -> Matches: ...


def bootstrap(evaluation: Judged, *, samples: int, seed: int, score: float | None) -> Intervals:
    """The 95% intervals of an evaluation's figures; see `Evaluation.intervals`."""
    if samples < 1:
        raise InputError(f"samples must be 1 or more, not {samples}")
    draws = draw_images(len(evaluation.dataset), samples, seed)
    score = evaluation.best_score if score is None else score
    ap, recall = resampled(evaluation, draws, IOUS)
    drawn = {"ap": ap.mean(2), "ap50": ap[..., 0], "ap75": ap[..., 5], "ar": recall.mean(2)}  # each [S, K]
    drawn = {f: np.column_stack([values, mean_over_classes(values)]) for f, values in drawn.items()}
    drawn |= at_score(evaluation, draws, score)
    once = np.ones((1, len(evaluation.dataset)), np.uint8)
    figures = {f: np.append(getattr(evaluation, f"class_{f}"), getattr(evaluation, f)) for f in FIGURES} | {
        f: values[0] for f, values in at_score(evaluation, once, score).items()
    }

    def row(k: int, name: str, boxes: int) -> dict[str, Any]:
        of: dict[str, Any] = {f: float(values[k]) for f, values in figures.items()}
        for f in figures:
            of[f"{f}_low"], of[f"{f}_high"] = interval(of[f], drawn[f][:, k])
        return {"class": name, "boxes": boxes, **of}

    names, boxes = evaluation.dataset.class_names, evaluation.class_boxes.tolist()
    return Intervals(
        images=len(evaluation.dataset),
        samples=samples,
        score=score,
        total=row(-1, "all", sum(boxes)),
        per_class=[row(k, name, boxes[k]) for k, name in enumerate(names)],
    )


def at_score(evaluation: Judged, draws: NDArray[np.uint8], score: float) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1 at IoU 0.5 of the predictions with at least a score, by name, [S, K + 1] each.

    On each draw of images, of each class and of all together; nan where nothing is to be found.
    """
    data, found, hits = evaluation.dataset, evaluation.predictions, evaluation.matches()
    classes = len(data.class_names)

    def drawn(images: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.int64]:
        each = _drawn(draws, images, labels, classes)
        return np.column_stack([each, each.sum(1)])

    shown = (found.scores >= score) & (hits.kinds != "ignored")
    right = shown & (hits.boxes >= 0)
    true, all_shown = (drawn(found.images[rows], found.classes[rows]) for rows in (right, shown))
    there = drawn(data.box_images[~data.box_crowd], data.box_classes[~data.box_crowd])
    with np.errstate(invalid="ignore"):  # 0 / 0 is nan
        values = {
            "precision": true / all_shown,
            "recall": true / there,
            "f1": 2 * true / (all_shown + there),
        }
    return {name: np.where(there > 0, value, np.nan) for name, value in values.items()}


def _drawn(
    draws: NDArray[Any], images: NDArray[Any], labels: NDArray[Any], classes: int
) -> NDArray[np.int64]:
    """How many objects of each class there are on each draw, int64 [S, K], of their images and classes."""
    counts = np.zeros((draws.shape[1], classes), np.float32)  # exact up to 16 million, and multiplied by BLAS
    np.add.at(counts, (images, labels), 1)
    parts = [draws[start : start + 100].astype(np.float32) @ counts for start in range(0, len(draws), 100)]
    return np.concatenate(parts).astype(np.int64)


def draw_images(images: int, samples: int, seed: int) -> NDArray[np.uint8]:
    """How often each image is drawn where as many are drawn with replacement as there are, [samples, images]."""
    if not images:
        return np.zeros((samples, 0), np.uint8)
    rng, chance = np.random.default_rng(seed), np.full(images, 1 / images)
    # a few at a time: a multinomial is eight bytes a number, and nothing is drawn 256 times
    parts = [
        rng.multinomial(images, chance, size=min(100, samples - start)).astype(np.uint8)
        for start in range(0, samples, 100)
    ]
    return np.concatenate(parts)


def resampled(
    evaluation: Judged, draws: NDArray[Any], ious: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AP and recall of each class on each draw of images at each overlap, both float64 [S, K, T].

    Nan where a draw has no box of the class.

    Args:
        evaluation: What was found.
        draws: How often each image was drawn, integers [S, N].
        ious: Overlaps, T of them.
    """
    data, found = evaluation.dataset, evaluation.predictions
    classes = len(data.class_names)
    ap = np.full((len(draws), classes, len(ious)), np.nan)
    recall = ap.copy()
    surest = evaluation.overlaps.surest
    kept = surest[evaluation.within[surest]]
    order = kept[np.argsort(found.classes[kept], kind="stable")]
    first = np.searchsorted(found.classes[order], np.arange(classes + 1))
    bar = progress_bar(total=len(ious) + classes, desc="intervals", unit="step", delay=2)
    with bar:
        hits = []  # at each overlap: whether a prediction, in this order, is right; and whether it is left out
        for iou in ious:
            matched = _matched(evaluation, iou)
            hits.append((matched.boxes[order] >= 0, matched.kinds[order] == "ignored"))
            bar.update()
        positives = _drawn(
            draws, data.box_images[~data.box_crowd], data.box_classes[~data.box_crowd], classes
        )
        by_image = np.ascontiguousarray(draws.T)  # [N, S]: all draws of an image lie side by side

        def judge(k: int) -> None:
            rows = slice(first[k], first[k + 1])
            images = found.images[order[rows]]
            places = [(np.flatnonzero(true[rows]), np.flatnonzero(out[rows])) for true, out in hits]
            step = max(_AT_ONCE // max(len(images), 1), 1)
            for start in range(0, len(draws), step):
                part = slice(start, start + step)
                weights = by_image[:, part][images]  # [P, s]
                ap[part, k], recall[part, k] = _figures(weights, positives[part, k], places)

        with ThreadPoolExecutor(min(cpu_count(), 4)) as pool:  # NumPy lets others run while it counts
            largest_first = np.argsort(first[:-1] - first[1:], kind="stable").tolist()
            for _ in pool.map(judge, largest_first):
                bar.update()
    return ap, recall


def _matched(evaluation: Judged, iou: float) -> Matches:
    """The matches at an overlap; those at 0.5, which other figures want too, stay with the evaluation."""
    if iou == 0.5:
        return evaluation.matches()
    return match_overlaps(evaluation.overlaps, iou, evaluation.within)


def _figures(
    weights: NDArray[Any], positives: NDArray[np.int64], places: Sequence[tuple[NDArray[Any], NDArray[Any]]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """COCO's AP and recall of one class's predictions in order of score, each counted `weights` [P, s] times.

    Between two right predictions precision only falls, so that the right ones alone say what COCO reads.

    Args:
        weights: How often each prediction counts on each draw.
        positives: Number of boxes to be found on each draw, [s].
        places: For each of T overlaps, which of the P predictions are right and which are left out.

    Returns:
        Float64 [s, T] each; nan where there is nothing to be found.
    """
    draws = weights.shape[1]
    ap, recall = np.full((2, draws, len(places)), np.nan)
    good = positives > 0
    ever = np.unique(
        np.concatenate([true for true, _ in places])
    )  # the places of what is right at some overlap, U
    if not len(ever):
        ap[good] = recall[good] = 0
        return ap, recall
    between = np.add.reduceat(weights[: ever[-1] + 1], np.append(0, ever[:-1] + 1), axis=0, dtype=np.int32)
    total = np.cumsum(between.T, axis=1)  # predictions up to each of them, itself counted, [s, U]
    weights_ever = np.ascontiguousarray(weights[ever].T)
    reached, line = _recalls_reached(positives)
    for t, (true, out) in enumerate(places):
        if not len(true):
            ap[good, t] = recall[good, t] = 0
            continue
        among = np.searchsorted(ever, true)
        right = np.cumsum(np.take(weights_ever, among, axis=1), axis=1, dtype=np.int32)
        counted = np.take(total, among, axis=1)
        if len(out):
            left_out = np.cumsum(weights[out], axis=0, dtype=np.int32)
            left_out = np.concatenate([np.zeros((1, draws), np.int32), left_out])
            counted -= left_out[np.searchsorted(out, true)].T
        falling = (right / np.maximum(counted, 1))[:, ::-1]
        np.maximum.accumulate(falling, axis=1, out=falling)
        reads = np.diff(np.take(reached, right + line), axis=1, prepend=0)[:, ::-1]
        ap[good, t] = ((reads * falling).sum(1) / len(_RECALLS))[good]
        recall[good, t] = right[good, -1] / positives[good]
    return ap, recall


def _recalls_reached(positives: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """How many of COCO's recalls are reached on each draw with 0, 1, ... right ones of so many: [s * (most + 1)].

    And where each draw's numbers begin, [s, 1].
    """
    of, most = np.maximum(positives, 1)[:, None], int(positives.max(initial=0))
    least = np.ceil(_RECALLS * of)  # right ones that reach a recall, give or take the last bit
    least += least / of < _RECALLS
    least -= (least - 1) / of >= _RECALLS
    line = np.arange(len(positives))[:, None] * (most + 1)
    inside = (least <= most).nonzero()
    news = np.bincount(
        (line + least.astype(np.int64))[inside], minlength=len(positives) * (most + 1)
    ).reshape(len(positives), -1)
    return np.cumsum(news, axis=1, dtype=np.int32).ravel(), line


def mean_over_classes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each row [S, K] over the classes that have a figure; nan where none has."""
    count = (~np.isnan(values)).sum(1)
    return np.where(count > 0, np.nansum(values, axis=1) / np.maximum(count, 1), np.nan)


def interval(figure: float, drawn: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95% of a figure's values on drawn images, put so that their median is the figure; within 0 and 1.

    The median is moved because AP, which makes precision fall, comes out the higher the fewer different images there
    are, and a draw has but two thirds of them: without it the figure itself could lie outside.
    """
    low, high = middle(drawn)
    shift = figure - float(np.median(drawn[np.isfinite(drawn)])) if math.isfinite(low) else math.nan
    return max(low + shift, 0.0), min(high + shift, 1.0)


def middle(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95% of the values that are numbers; nan where none is."""
    good = values[np.isfinite(values)]
    if not len(good):
        return math.nan, math.nan
    low, high = np.quantile(good, [0.025, 0.975])
    return float(low), float(high)


def without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON has it: None for nan."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()
    }


def _with_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in row.items()}
