"""Is one detector better than another on the same images, by how much for sure, where, and where not."""

import math
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkit.analysis.bootstrap import draw_images, mean_over_classes, middle, resampled, without_nan
from odkit.analysis.evaluation import Evaluation
from odkit.data import Dataset
from odkit.system import InputError


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Two evaluations on the same images; every difference is the second less the first, so above 0 is better.

    Attributes:
        first, second: The evaluations.
        difference: Difference of AP50 over all classes.
        low, high: Interval that holds the difference with 95% confidence (see `compare`).
        better: Share of the resampled sets of images on which the second has the higher AP50, 0 to 1.
        per_class: One row a class: class, boxes, ap50 of each, difference, low and high.
        per_size: One row a box size: ap of each and difference (AP over IoU 0.50 to 0.95, without an interval).
        loss_change: Change of each image's loss (see `PerImage`), float64 [N]; above 0 is worse.
    """

    first: Evaluation
    second: Evaluation
    samples: int
    difference: float
    low: float
    high: float
    better: float
    per_class: list[dict[str, Any]]
    per_size: list[dict[str, Any]]
    loss_change: NDArray[np.float64]

    @property
    def verdict(self) -> str:
        """One sentence: better, worse, or too close to call on so many images."""
        span = f"AP50 {self.difference:+.3f} (95% interval {self.low:+.3f} to {self.high:+.3f})"
        if math.isnan(self.difference):
            return "There is no ground truth to compare on."
        if self.low > 0:
            return f"The second is better: {span}."
        if self.high < 0:
            return f"The second is worse: {span}."
        return f"Too close to call on {len(self.loss_change):,} images: {span}."

    def got_worse(self, count: int | None = None) -> NDArray[np.int64]:
        """Indices of the images whose loss rose, the most first."""
        order = np.argsort(-self.loss_change, kind="stable")
        return order[self.loss_change[order] > 1e-9][:count]

    def got_better(self, count: int | None = None) -> NDArray[np.int64]:
        """Indices of the images whose loss fell, the most first."""
        order = np.argsort(self.loss_change, kind="stable")
        return order[self.loss_change[order] < -1e-9][:count]

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain values for JSON; nan becomes None."""
        plain = {"difference": self.difference, "low": self.low, "high": self.high, "better": self.better}
        return {
            **without_nan(plain),
            "samples": self.samples,
            "verdict": self.verdict,
            "per_class": [without_nan(row) for row in self.per_class],
            "per_size": [without_nan(row) for row in self.per_size],
            "images_worse": len(self.got_worse()),
            "images_better": len(self.got_better()),
        }

    def __repr__(self) -> str:
        head, *rows = self._rows()
        width = max(len(row[0]) for row in (head, *rows))
        lines = [f"  {row[0]:<{width}}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in (head, *rows)]
        return "\n".join([self.verdict, *lines, f"  {self._images()}"])

    def _repr_html_(self) -> str:
        head, *rows = self._rows()
        cells = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        heads = "".join(f"<th>{cell}</th>" for cell in head)
        return (
            f"<p><b>{escape(self.verdict)}</b> {escape(self._images())}</p><table><thead><tr>{heads}</tr></thead>"
            f"<tbody>{cells}</tbody></table>"
        )

    def _images(self) -> str:
        return f"{len(self.got_better()):,} images got better, {len(self.got_worse()):,} got worse."

    def _rows(self) -> list[tuple[str, ...]]:
        head = ("AP50", "first", "second", "change", "from", "to")
        rows = [
            (r["class"], r["first"], r["second"], r["difference"], r["low"], r["high"])
            for r in self.per_class
        ]
        rows.append(("all", self.first.ap50, self.second.ap50, self.difference, self.low, self.high))
        text = lambda value, sign: "—" if math.isnan(value) else f"{value:{sign}.3f}"  # noqa: E731
        return [head, *((r[0], text(r[1], ""), text(r[2], ""), *(text(v, "+") for v in r[3:])) for r in rows)]


def compare(first: Evaluation, second: Evaluation, *, samples: int = 1000, seed: int = 0) -> Comparison:
    """The difference of two evaluations on the same images, with a paired bootstrap over the images.

    The images are drawn with replacement `samples` times, both detectors are judged on each draw, and the middle 95%
    of the differences are the interval: what other images of the same kind would have said. An image drawn twice
    counts twice.

    Args:
        first: The evaluation to compare with.
        second: The evaluation that is hoped to be better.
        samples: Number of draws.
        seed: Seed of the draws.

    Raises:
        ValueError: The two are not of the same images, boxes and classes.

    Source: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile interval).
    """
    _refuse_different(first.dataset, second.dataset)
    data = first.dataset
    draws = draw_images(len(data), samples, seed)
    one, other = (
        resampled(evaluation, draws, [0.5])[0][..., 0] for evaluation in (first, second)
    )  # [samples, K]
    change = other - one
    total = mean_over_classes(other) - mean_over_classes(one)
    low, high = middle(total)
    rows = []
    for k, name in enumerate(data.class_names):
        class_low, class_high = middle(change[:, k])
        a, b = float(first.class_ap50[k]), float(second.class_ap50[k])
        row = {
            "class": name,
            "boxes": int(first.class_boxes[k]),
            "first": a,
            "second": b,
            "difference": b - a,
        }
        rows.append({**row, "low": class_low, "high": class_high})
    sizes = [
        (size, getattr(first, f"ap_{size}"), getattr(second, f"ap_{size}"))
        for size in ("small", "medium", "large")
    ]
    return Comparison(
        first=first,
        second=second,
        samples=samples,
        difference=second.ap50 - first.ap50,
        low=low,
        high=high,
        better=float((total > 0).mean()) if np.isfinite(total).any() else math.nan,
        per_class=rows,
        per_size=[{"size": size, "first": a, "second": b, "difference": b - a} for size, a, b in sizes],
        loss_change=second.per_image().loss - first.per_image().loss,
    )


def _refuse_different(first: Dataset, second: Dataset) -> None:
    if first is second:
        return
    for what, same in (
        ("images", np.array_equal(first.image_ids, second.image_ids)),
        ("class names", first.class_names == second.class_names),
        ("boxes", np.array_equal(first.boxes, second.boxes, equal_nan=True)),
        ("classes of the boxes", np.array_equal(first.box_classes, second.box_classes)),
    ):
        if not same:
            raise InputError(
                f"the evaluations are of different {what} ({first.name} and {second.name}); evaluate both predictions "
                "on one dataset"
            )
