"""Which score threshold to use: for the best F1, or for a wanted precision or recall, over all classes and for each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from odkit.analysis.bootstrap import without_nan
from odkit.analysis.tables import as_figure, as_html, as_text
from odkit.system import InputError, UnknownNameError

_SAID = 8  # classes for which a sentence each says why they have no threshold


class PrecisionRecall(Protocol):
    """What is needed of a curve: a point for each score threshold, from the highest threshold down."""

    @property
    def class_name(self) -> str: ...
    @property
    def scores(self) -> NDArray[np.float64]: ...
    @property
    def precision(self) -> NDArray[np.float64]: ...
    @property
    def recall(self) -> NDArray[np.float64]: ...
    @property
    def f1(self) -> NDArray[np.float64]: ...


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Thresholds:
    """Score thresholds that do what is wanted of them, and what the detector does with each at IoU 0.5.

    A row has class, boxes, score (the threshold), and the precision, recall and f1 of the predictions with at least
    that score; nan where no threshold does what is wanted, and where there is no ground truth to measure on.

    Attributes:
        wanted: "the best F1", or as "precision 0.9", "recall 0.95".
        data_name: The images that the thresholds were found on.
        total: The row of the one threshold for all classes; its class is "all".
        per_class: One row a class, each with a threshold of its own.
        notes: A sentence for each class that no threshold does what is wanted for.
    """

    wanted: str
    data_name: str
    total: dict[str, Any]
    per_class: list[dict[str, Any]]
    notes: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The one threshold for all classes; nan where there is none."""
        return float(self.total["score"])

    def of(self, class_name: str) -> float:
        """The threshold for one class; nan where there is none.

        Raises:
            KeyError: There is no such class.
        """
        for row in self.per_class:
            if row["class"] == class_name:
                return float(row["score"])
        names = ", ".join(row["class"] for row in self.per_class)
        raise UnknownNameError(f"no class {class_name!r}; there are {names}")

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON; nan becomes None."""
        return {
            "wanted": self.wanted,
            "total": without_nan(self.total),
            "per_class": [without_nan(row) for row in self.per_class],
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        notes = [f"  {note}" for note in self.notes]
        return "\n".join([self._caption(), *as_text(self._rows()), *notes])

    def _repr_html_(self) -> str:
        notes = "<br>".join(map(escape, self.notes))
        return as_html(self._rows(), self._caption()) + (f"<p>{notes}</p>" if notes else "")

    def _caption(self) -> str:
        return f"Score thresholds for {self.wanted}, found on {self.data_name}"

    def _rows(self) -> list[tuple[str, ...]]:
        keys = ("precision", "recall", "f1")
        return [
            ("class", "boxes", "score", "precision", "recall", "F1"),
            *(
                (row["class"], f"{row['boxes']:,}", *(as_figure(row[key]) for key in ("score", *keys)))
                for row in (*self.per_class, self.total)
            ),
        ]


def check_wanted(what: str, least: float | None) -> None:
    """Raises InputError where a wanted precision or recall is not above 0 and at most 1; None wants nothing."""
    if least is not None and not 0 < least <= 1:
        raise InputError(f"a wanted {what} is above 0 and at most 1, not {least:g}")


def find_thresholds(
    curves: Sequence[PrecisionRecall],
    boxes: Sequence[int],
    *,
    precision: float | None = None,
    recall: float | None = None,
    data_name: str = "",
) -> Thresholds:
    """Thresholds for the best F1, or a wanted precision or recall; the last curve is that of all classes together.

    Raises:
        InputError: Both are wanted, or one that is not above 0 and at most 1.
    """
    if precision is not None and recall is not None:
        raise InputError(
            "a threshold is for a wanted precision or for a wanted recall, not for both; ask twice"
        )
    what, least = ("recall", recall) if recall is not None else ("precision", precision)
    check_wanted(what, least)
    rows, notes = [], []
    for curve, count in zip(curves, boxes, strict=True):
        point = _best_f1(curve) if least is None else _best_other(curve, what, least)
        row: dict[str, Any] = {"class": curve.class_name, "boxes": count}
        for key in ("scores", "precision", "recall", "f1"):
            value = math.nan if point is None else float(getattr(curve, key)[point])
            row["score" if key == "scores" else key] = value
        rows.append(row)
        if point is None and count:
            who = "All classes together" if len(rows) == len(curves) else repr(curve.class_name)
            notes.append(f"{who}: {_why_not(curve, what, least)}")
    said = (
        notes if len(notes) <= _SAID + 1 else [*notes[:_SAID], f"And {len(notes) - _SAID} more like these."]
    )
    return Thresholds(
        wanted="the best F1" if least is None else f"{what} {least:g}",
        data_name=data_name,
        total=rows[-1],
        per_class=rows[:-1],
        notes=tuple(said),
    )


def _best_f1(curve: PrecisionRecall) -> int | None:
    return int(curve.f1.argmax()) if curve.recall.any() else None


def _best_other(curve: PrecisionRecall, what: str, least: float) -> int | None:
    """Of the points with so much of one of the two, that with most of the other; of equal ones the surest."""
    wanted, other = (
        (curve.precision, curve.recall) if what == "precision" else (curve.recall, curve.precision)
    )
    enough = np.flatnonzero((wanted >= least - 1e-12) & (curve.recall > 0))
    if not len(enough):
        return None
    return int(enough[np.lexsort((-wanted[enough], -other[enough]))[0]])


def _why_not(curve: PrecisionRecall, what: str, least: float | None) -> str:
    if not curve.recall.any():
        return "no prediction is right at any threshold."
    values = curve.precision if what == "precision" else curve.recall
    most = int(values.argmax())
    return (
        f"no threshold gives {what} {least:g}; the most is {values[most]:.3f}, at score "
        f"{curve.scores[most]:.2f}."
    )
