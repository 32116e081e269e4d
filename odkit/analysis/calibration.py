"""Does a score mean what it says: of the predictions with a score of 0.8, are 80% right?"""

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkit.analysis.bootstrap import without_nan
from odkit.analysis.matching import Matches
from odkit.analysis.tables import as_figure, as_html, as_text
from odkit.data import Predictions
from odkit.system import InputError, UnknownNameError


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Calibration:
    """How far scores are from the share of right predictions, over all classes and for each.

    A row has class, predictions, score (their mean score), precision (the share of them that is right), error and
    la_error; nan where nothing was predicted.

    `error` is the detection expected calibration error (D-ECE), of the score alone: predictions are sorted into bins
    by their score, and it is the mean distance of mean score and precision in a bin, each bin weighted by its
    predictions. `la_error` (LaECE) measures the score against precision times mean IoU instead, so that a score must
    also say how well the box is placed; over all classes it is the mean of the classes'. Both are 0 to 1, 0 is best,
    and both are of the predictions from `least` on: with all, the many that have next to no score would outweigh the
    others.

    Attributes:
        class_names: The classes, and "all".
        data_name: The images that it was measured on.
        iou: IoU from which on a prediction is right.
        least: Score from which on predictions are looked at.
        counts: Predictions of each class in each bin, the last row of all classes, int64 [K + 1, bins].
        mean_scores, precision: Their mean score and the share that is right, float64 [K + 1, bins]; nan for none.
        total: The row over all classes; its class is "all".
        per_class: One row a class.

    Source: F. Küppers et al., "Multivariate Confidence Calibration for Object Detection", 2020; K. Oksuz, T. Joy and
    P. K. Dokania, "Towards Building Self-Aware Object Detectors via Reliable Uncertainty Quantification and
    Calibration", 2023.
    """

    class_names: tuple[str, ...]
    data_name: str
    iou: float
    least: float
    counts: NDArray[np.int64]
    mean_scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    total: dict[str, Any]
    per_class: list[dict[str, Any]]

    @property
    def error(self) -> float:
        """The detection expected calibration error over all classes; nan where nothing was predicted."""
        return float(self.total["error"])

    @property
    def la_error(self) -> float:
        """The localisation-aware calibration error, the mean of the classes'; nan where nothing was predicted."""
        return float(self.total["la_error"])

    def curve(self, class_name: str | None = None) -> list[dict[str, Any]]:
        """One row a bin with predictions: low and high (its scores), predictions, score (their mean), precision.

        Args:
            class_name: The class; all together where not given.

        Raises:
            KeyError: There is no such class.
        """
        if class_name not in (None, *self.class_names[:-1]):
            raise UnknownNameError(f"no class {class_name!r}; there are {', '.join(self.class_names[:-1])}")
        k = -1 if class_name is None else self.class_names.index(class_name)
        bins = self.counts.shape[1]
        return [
            {
                "low": b / bins,
                "high": (b + 1) / bins,
                "predictions": int(self.counts[k, b]),
                "score": float(self.mean_scores[k, b]),
                "precision": float(self.precision[k, b]),
            }
            for b in np.flatnonzero(self.counts[k]).tolist()
        ]

    @property
    def sentence(self) -> str:
        """What the scores are worth, in words, with the bin that most of the error comes from.

        Up to an error of 0.05 scores are called chances.
        """
        rows = self.curve()
        if not rows:
            return f"Nothing was predicted with a score of {self.least:g} or more."
        row = max(rows, key=lambda row: row["predictions"] * abs(row["score"] - row["precision"]))
        example = (
            f"of the {row['predictions']:,} predictions with a score around {row['score']:.2f}, "
            f"{row['precision']:.2f} are right"
        )
        surer = self.total["score"] - self.total["precision"]
        if self.error < 0.05:
            return f"Scores can be read as chances: {example}."
        if abs(surer) < self.error / 2:
            return f"Scores are off in both directions: {example}."
        return f"The detector is {'surer' if surer > 0 else 'less sure'} than it should be: {example}."

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON; nan becomes None."""
        return {
            "iou": self.iou,
            "least": self.least,
            "sentence": self.sentence,
            "total": without_nan(self.total),
            "per_class": [without_nan(row) for row in self.per_class],
            "curve": self.curve(),
        }

    def __repr__(self) -> str:
        return "\n".join([self._caption(), *as_text(self._rows()), f"  {self.sentence}"])

    def _repr_html_(self) -> str:
        return as_html(self._rows(), self._caption()) + f"<p>{escape(self.sentence)}</p>"

    def _caption(self) -> str:
        return f"Calibration on {self.data_name}, predictions from score {self.least:g} on, right from IoU {self.iou:g}"

    def _rows(self) -> list[tuple[str, ...]]:
        keys = ("score", "precision", "error", "la_error")
        return [
            ("class", "predictions", "mean score", "precision", "D-ECE", "LaECE"),
            *(
                (row["class"], f"{row['predictions']:,}", *(as_figure(row[key]) for key in keys))
                for row in (*self.per_class, self.total)
            ),
        ]


def measure_calibration(
    predictions: Predictions, matches: Matches, *, bins: int, least: float, data_name: str
) -> Calibration:
    """The calibration of matched predictions; see `Calibration`.

    Raises:
        InputError: There is no bin, or `least` is not 0 to 1.
    """
    if bins < 1:
        raise InputError(f"bins must be 1 or more, not {bins}")
    if not 0 <= least <= 1:
        raise InputError(f"the score that predictions are looked at from is 0 to 1, not {least:g}")
    names = (*predictions.class_names, "all")
    rows = np.flatnonzero((matches.kinds != "ignored") & (predictions.scores >= least))
    scores = predictions.scores[rows].astype(np.float64).clip(0, 1)
    place = np.minimum((scores * bins).astype(np.int64), bins - 1) + predictions.classes[rows] * bins

    def sums(values: NDArray[Any] | None = None) -> NDArray[Any]:
        """Of each class and bin, and of all classes, [K + 1, bins]."""
        each = np.bincount(place, values, minlength=bins * (len(names) - 1)).reshape(-1, bins)
        return np.concatenate([each, each.sum(0, keepdims=True)])

    counts, score = sums(), sums(scores)
    right = sums((matches.boxes[rows] >= 0).astype(np.float64))
    placed = sums(matches.ious[rows])  # precision times mean IoU is the mean IoU where a wrong one has none
    many = counts.sum(1)
    with np.errstate(invalid="ignore"):  # 0 / 0: nan where nothing was predicted
        error = np.abs(score - right).sum(1) / many
        la_error = np.abs(score - placed).sum(1) / many
        mean_score, precision = score.sum(1) / many, right.sum(1) / many
        mean_scores, precisions = score / counts, right / counts
    if len(rows):
        la_error[-1] = la_error[:-1][many[:-1] > 0].mean()
    table = [
        {
            "class": name,
            "predictions": int(many[k]),
            "score": float(mean_score[k]),
            "precision": float(precision[k]),
            "error": float(error[k]),
            "la_error": float(la_error[k]),
        }
        for k, name in enumerate(names)
    ]
    return Calibration(
        class_names=names,
        data_name=data_name,
        iou=matches.iou,
        least=least,
        counts=counts.astype(np.int64),
        mean_scores=mean_scores,
        precision=precisions,
        total=table[-1],
        per_class=table[:-1],
    )
