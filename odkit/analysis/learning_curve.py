"""What more training images would give: AP by number of images, and the power law through the points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odkit.analysis.bootstrap import IOUS, mean_over_classes, resampled
from odkit.analysis.evaluation import Evaluation
from odkit.system import InputError

FARTHEST = 4
"""How many times the images at hand the law is asked for at most: a few points say nothing of what lies beyond."""

LEAST_POINTS = 3
"""Points that a law with three unknowns takes."""

_EXPONENTS = np.geomspace(0.05, 2, 60)
# AP under which training found nothing: below the sizes for which there is a law
_NOTHING = 0.01
# by how much (standard deviation) AP moves with the seed alone, where nothing else says it
_SEED_NOISE = 0.01
# AP that twice the images must give, or the curve counts as flat; and the share of resamplings that must agree
_WORTH, _SURE = 0.01, 0.9


@dataclass(frozen=True)
class CurvePoint:
    """One size of the training set and what came of it.

    Attributes:
        images: Training images.
        ap: AP (IoU 0.50 to 0.95) on the validation images, mean over the runs.
        low, high: Interval that holds it with 95% confidence, as other validation images of the kind would have said.
        aps: AP of each run.
        runs: Folder of each run.
    """

    images: int
    ap: float
    low: float
    high: float
    aps: tuple[float, ...] = ()
    runs: tuple[Path, ...] = ()


class Expected(NamedTuple):
    """An AP that is expected, and the interval that holds it with about 95% confidence."""

    ap: float
    low: float
    high: float


@dataclass(frozen=True, eq=False, repr=False)
class LearningCurve:
    """AP against the number of training images, and what more images like these would give.

    The law is AP(n) = a - b (n / N)^-c with N the largest number measured: `a` is where the curve ends, `b` what is
    still to be won.

    Attributes:
        name: Name of the dataset.
        judged_on: Number of validation images, the same for every point.
        points: One a size of the training set, the smallest first.
        law: a, b and c.
        laws: The same from each resampling, float64 [S, 3]; the bands are made of them.
        notes: What was left out or differs, and why.
    """

    name: str
    judged_on: int
    points: tuple[CurvePoint, ...]
    law: tuple[float, float, float]
    laws: NDArray[np.float64] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def present(self) -> int:
        """The largest number of training images that was measured."""
        return self.points[-1].images

    def predict(self, images: float) -> Expected:
        """The AP to expect with so many training images of the same kind, by the law.

        Raises:
            InputError: `images` is not between the smallest number measured and four times the largest.
        """
        values = self._of_laws(images)
        return _expected(_values(np.array([self.law]), images / self.present)[0], values)

    def gain(self, images: float) -> Expected:
        """By how much that AP lies above the one at the present number of images, by the law.

        Raises:
            InputError: As `predict`.
        """
        now, then = (_values(np.array([self.law]), n / self.present)[0] for n in (self.present, images))
        return _expected(then - now, self._of_laws(images) - self._of_laws(self.present))

    def _of_laws(self, images: float) -> NDArray[np.float64]:
        first, last = self.points[0].images, FARTHEST * self.present
        if not first <= images <= last:
            raise InputError(
                f"this curve speaks of {first:,} to {last:,} images ({FARTHEST} times the {self.present:,} at hand), "
                f"not of {images:,.0f}: {len(self.points)} points do not reach further"
            )
        return _values(self.laws, images / self.present)

    @property
    def flattened(self) -> bool | None:
        """Whether twice the images would give less than 0.01 AP more; None where the points cannot tell.

        Nine in ten of the resamplings must agree.
        """
        twice = self._of_laws(2 * self.present) - self._of_laws(self.present)
        rising = (twice >= _WORTH).mean()
        return False if rising >= _SURE else True if rising <= 1 - _SURE else None

    @property
    def verdict(self) -> str:
        """The answer in a sentence or two."""
        last, twice = self.points[-1], 2 * self.present
        if last.ap < _NOTHING:
            return (
                f"With all {last.images:,} images hardly anything was found (AP {last.ap:.2f}), so there is no curve "
                "yet: more epochs first, and a look at the labels (odkit audit)."
            )
        then, gain = self.predict(twice), self.gain(twice)
        words = {
            False: "the curve has not flattened, more pictures like these help",
            True: "the curve has flattened, more pictures like these would hardly help",
            None: "whether the curve has flattened, these points cannot tell",
        }
        drop = "" if last.ap >= self.points[0].ap else " AP even fell with the number of pictures."
        return (
            f"Twice the pictures ({twice:,}) would give an AP of about {then.ap:.2f} ({then.low:.2f} to "
            f"{then.high:.2f}), {gain.low:.2f} to {gain.high:.2f} more than now: {words[self.flattened]}.{drop}"
        )

    # -- showing -------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON, with what twice and four times the images would give."""
        expected = [
            {
                "images": times * self.present,
                **self.predict(times * self.present)._asdict(),
                "gain": self.gain(times * self.present)._asdict(),
            }
            for times in (2, FARTHEST)
        ]
        return {
            "dataset": self.name,
            "validation_images": self.judged_on,
            "points": [
                {**vars(p), "aps": list(p.aps), "runs": [str(path) for path in p.runs]} for p in self.points
            ],
            "law": dict(zip("abc", self.law, strict=True)),
            "expected": expected,
            "flattened": self.flattened,
            "verdict": self.verdict,
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        lines = ["".join(f"{cell:>10}" for cell in row) for row in self._rows()]
        return "\n".join([self._caption(), *lines, self.verdict, *self.notes])

    def _repr_html_(self) -> str:
        head, *rows = self._rows()
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        heads = "".join(f"<th>{cell}</th>" for cell in head)
        notes = "".join(f"<br>{escape(note)}" for note in self.notes)
        return (
            f"<table><caption>{escape(self._caption())}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody>"
            f"</table><p><b>{escape(self.verdict)}</b>{notes}</p>"
        )

    def _caption(self) -> str:
        return f"Learning curve of {self.name}, judged on {self.judged_on:,} validation images"

    def _rows(self) -> list[tuple[str, ...]]:
        rows = [
            (f"{p.images:,}", f"{p.ap:.3f}", f"{p.low:.3f}", f"{p.high:.3f}", "measured") for p in self.points
        ]
        if self.points[-1].ap >= _NOTHING:
            for images in (2 * self.present, FARTHEST * self.present):
                ap, low, high = self.predict(images)
                rows.append((f"{images:,}", f"~{ap:.2f}", f"{low:.2f}", f"{high:.2f}", "expected"))
        return [("images", "AP", "from", "to", ""), *rows]


def fit_learning_curve(
    judged: Sequence[tuple[int, Evaluation, Path]],
    *,
    name: str = "dataset",
    notes: Sequence[str] = (),
    samples: int = 500,
    seed: int = 0,
) -> LearningCurve:
    """The learning curve through evaluations of detectors that were trained on more and more images.

    An inverse power law (C. Cortes et al., "Learning Curves", NeurIPS 1993; J. Hestness et al., 2017, arXiv:1712.00409;
    R. Mahmood et al., 2022, arXiv:2207.01725) is fitted by least squares with 0 <= a <= 1, b >= 0 and 0.05 <= c <= 2.
    Its band comes from fits to resampled points: the validation images are drawn with replacement, the same for every
    point, for they are the same images; and each point is moved by what the training images and the seed that it
    happened to get may have done to it. That is measured between runs of one size, where there are several; else it is
    how far the points lie from the law, and an AP of 0.01 at least. In a simulation (laws with c from 0.1 to 1.2) the
    band at twice and at four times the images held the truth 96 times in 100.

    What no band holds: that pictures to come may be of another kind, and that the law may not hold. Points at which
    nothing was found (AP under 0.01) lie before its range, and are left out of the fit where three others remain.

    Args:
        judged: Number of training images, evaluation and run folder of each run; all on the same validation images.
        name: Name of the dataset.
        notes: See `LearningCurve`.
        samples: Number of resamplings.
        seed: Seed of the resamplings.

    Raises:
        InputError: There are fewer than three sizes, or the validation images have no boxes.
    """
    sizes = sorted({images for images, *_ in judged})
    if len(sizes) < LEAST_POINTS:
        raise InputError(f"a learning curve needs {LEAST_POINTS} sizes of training set, not {len(sizes)}")
    if not all(math.isfinite(evaluation.ap) for _, evaluation, _ in judged):
        raise InputError("the validation images have no boxes: there is no AP to draw a curve of")
    rng = np.random.default_rng(seed)
    count = len(judged[0][1].dataset)
    draws = rng.multinomial(count, np.full(count, 1 / count), size=samples)
    resampled = np.stack([_resampled_ap(evaluation, draws) for _, evaluation, _ in judged])  # [R, S]
    resampled = resampled[:, np.isfinite(resampled).all(0)]  # a draw may have no box
    points, columns = [], []
    for size in sizes:
        rows = [row for row, (images, *_) in enumerate(judged) if images == size]
        aps = tuple(judged[row][1].ap for row in rows)
        columns.append(resampled[rows].mean(0))
        runs = tuple(judged[row][2] for row in rows)
        points.append(CurvePoint(size, *_expected(sum(aps) / len(aps), columns[-1]), aps, runs))
    law, laws = _fit_laws(points, np.stack(columns, axis=1), rng)
    return LearningCurve(name, count, tuple(points), law, laws, tuple(notes))


def _fit_laws(
    points: Sequence[CurvePoint], resampled: NDArray[np.float64], rng: np.random.Generator
) -> tuple[tuple[float, float, float], NDArray[np.float64]]:
    """The law through the points, and those through resampled points [S, P], float64 [S, 3]."""
    shares = np.array([p.images / points[-1].images for p in points])
    aps = np.array([p.ap for p in points])
    there = aps >= _NOTHING
    there = there if there.sum() >= LEAST_POINTS else np.ones(len(points), bool)
    law = _power_laws(shares[there], aps[there][None])
    a, b, c = law[0].tolist()
    runs = np.array([len(p.aps) for p in points])
    if (runs > 1).any():  # pooled over the sizes
        spread = sum(((np.array(p.aps) - p.ap) ** 2).sum() for p in points) / (runs - 1).sum()
        noise = np.sqrt(spread / runs[there])
    else:
        off = aps[there] - _values(law, shares[there][:, None])[:, 0]
        free = max(there.sum() - 3, 1)
        noise = np.full(there.sum(), max(float(np.sqrt((off**2).sum() / free)), _SEED_NOISE))
    moved = resampled[:, there] + rng.normal(size=(len(resampled), there.sum())) * noise
    return (a, b, c), _power_laws(shares[there], moved.clip(0, 1))


def _power_laws(shares: NDArray[np.float64], aps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares a, b, c of AP = a - b share^-c for each row of `aps` [S, P], float64 [S, 3].

    For each of a grid of exponents it is a straight line through the points, whose bounds are met exactly.
    """
    x = shares ** -_EXPONENTS[:, None]  # [C, P]
    centred, mean = x - x.mean(1, keepdims=True), aps.mean(1, keepdims=True)
    b = np.maximum(-((aps - mean) @ centred.T) / (centred**2).sum(1), 0)  # [S, C]
    a = mean + b * x.mean(1)
    too_high = a > 1
    a = np.where(too_high, 1, a)
    b = np.where(too_high, ((1 - aps) @ x.T) / (x**2).sum(1), b)
    errors = ((aps[:, None] - a[:, :, None] + b[:, :, None] * x) ** 2).sum(2)
    rows, best = np.arange(len(aps)), errors.argmin(1)
    return np.stack([a[rows, best], b[rows, best], _EXPONENTS[best]], axis=1)


def _values(laws: NDArray[np.float64], share: Any) -> NDArray[np.float64]:
    """AP by each law [S, 3] at a share of the present number of images."""
    a, b, c = laws.T
    values: NDArray[np.float64] = np.clip(a - b * share**-c, 0, 1)
    return values


def _expected(value: float, values: NDArray[np.float64]) -> Expected:
    """A value with the interval of its resamplings, which holds it in any case."""
    low, high = np.quantile(values, [0.025, 0.975]).tolist()
    return Expected(float(value), min(low, float(value)), max(high, float(value)))


def _resampled_ap(evaluation: Evaluation, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """AP over IoU 0.50 to 0.95 on each draw of images, float64 [S]; nan where a draw has no box.

    Args:
        evaluation: What was found.
        draws: How often each image was drawn, [S, N].
    """
    return mean_over_classes(resampled(evaluation, draws, IOUS)[0].mean(2))
