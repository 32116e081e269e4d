"""What a detector gets wrong, what each kind of mistake costs, and whether it is the detector or the labels.

The kinds of mistake and their cost follow TIDE (D. Bolya, S. Foley, J. Hays, J. Hoffman, "TIDE: A General Toolbox
for Identifying Object Detection Errors", 2020): a prediction is in the foreground from IoU 0.5 with a ground truth
box and in the background up to 0.1, and a kind costs the AP50 that would be won if all mistakes of that kind, and
only they, were put right.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from odkit.analysis.evaluation import Evaluation, evaluate
from odkit.analysis.label_errors import Suspect, find_suspects
from odkit.analysis.matching import (
    Overlaps,
    Rows,
    best_of_each,
    match_greedily,
    on_crowd,
    order_of_classes,
    overlaps,
    within_limit,
)
from odkit.data import Dataset, Predictions, box_area, box_iou
from odkit.system import InputError, UnknownNameError

FOREGROUND, BACKGROUND = 0.5, 0.1
KINDS = {
    "Cls": "on an object, well placed, but of another class",
    "Loc": "on an object of its class, but with an IoU under 0.5",
    "Both": "neither the class nor the place is right, but an object is near",
    "Dupe": "on an object that a surer prediction has found already",
    "Bkg": "where nothing is labelled",
    "Miss": "an object that no prediction comes near",
}
"""TIDE's six kinds of mistake (Cls, Loc, Both, Dupe, Bkg, Miss), in the order they are tested, and what they mean."""


@dataclass(frozen=True, eq=False)
class Kinds:
    """The kind of every prediction and of every ground truth box.

    Attributes:
        predictions: "correct", a key of `KINDS`, "ignored" (on a crowd, or beyond the limit) or "hidden" (below the
            score), array [P] of str.
        boxes: "correct", "Miss", "Cls" or "Loc" (what its best prediction is) or "crowd", array
            [B] of str.
        box_of: Ground truth row each prediction is about, -1 for background, int64 [P].
        prediction_of: Row of the best prediction about each ground truth box, -1 for none, int64 [B].
        prediction_codes, box_codes: `predictions` and `boxes` as places in `_NAMES`, int8.
    """

    box_of: Rows
    prediction_of: Rows
    prediction_codes: NDArray[np.int8]
    box_codes: NDArray[np.int8]

    @cached_property
    def predictions(self) -> NDArray[np.str_]:
        return _NAMES[self.prediction_codes]

    @cached_property
    def boxes(self) -> NDArray[np.str_]:
        return _NAMES[self.box_codes]


_NAMES = np.array(["correct", "ignored", "hidden", "crowd", *KINDS])
_CODES = {name: np.int8(code) for code, name in enumerate(_NAMES.tolist())}  # compared sooner than words


def classify(
    dataset: Dataset, predictions: Predictions, *, score: float = 0.0, max_detections: int = 100
) -> Kinds:
    """TIDE's kind of every prediction with at least this score and of every ground truth box.

    The predictions must carry the dataset's class and image indices. Where TIDE takes the best 100 predictions of an
    image, `max_detections` is counted an image and class, as COCO's AP does; predictions on a crowd are left out.
    """
    return _classify(overlaps(dataset, predictions), within_limit(predictions, max_detections), score)


def _classify(pairs: Overlaps, within: NDArray[np.bool_], score: float, lowest: Kinds | None = None) -> Kinds:
    """The kinds of what overlaps, of the predictions within the limit, at a score.

    Where the kinds at a lower score are known, those of the predictions still shown are the same: matching goes by
    falling score.
    """
    dataset, predictions = pairs.dataset, pairs.predictions
    shown = within & (predictions.scores >= score)
    if lowest is None:
        codes, box_of = _prediction_kinds(pairs, within, shown)
    else:
        codes, box_of = lowest.prediction_codes.copy(), lowest.box_of
    codes[within & ~shown] = _CODES["hidden"]

    # a box nothing matched is explained by the surest prediction that is only misnamed or only misplaced
    prediction_of = np.full(dataset.num_boxes, -1)
    correct = np.flatnonzero(codes == _CODES["correct"])
    prediction_of[box_of[correct]] = correct
    rows = pairs.surest[((codes == _CODES["Cls"]) | (codes == _CODES["Loc"]))[pairs.surest]]
    rows = rows[prediction_of[box_of[rows]] < 0]
    box_codes = np.where(prediction_of >= 0, _CODES["correct"], _CODES["Miss"])
    explained, first = np.unique(box_of[rows], return_index=True)
    prediction_of[explained] = rows[first]
    box_codes[explained] = codes[rows[first]]
    box_codes[dataset.box_crowd] = _CODES["crowd"]
    return Kinds(box_of=box_of, prediction_of=prediction_of, prediction_codes=codes, box_codes=box_codes)


def _prediction_kinds(
    pairs: Overlaps, within: NDArray[np.bool_], shown: NDArray[np.bool_]
) -> tuple[NDArray[np.int8], Rows]:
    """Code of each prediction's kind, and the ground truth row that it is about, -1 for background."""
    matched, _, _ = match_greedily(pairs, FOREGROUND, shown)
    ignored = shown & (matched < 0) & on_crowd(pairs, FOREGROUND)
    near, near_iou = _best_box(pairs, pairs.same_class)
    other, other_iou = _best_box(pairs, ~pairs.same_class)

    codes = np.full(len(matched), _CODES["Both"])
    codes[np.maximum(near_iou, other_iou) <= BACKGROUND] = _CODES["Bkg"]
    codes[near_iou >= FOREGROUND] = _CODES["Dupe"]  # not matched though well placed: its box was taken
    codes[other_iou >= FOREGROUND] = _CODES["Cls"]
    codes[(near_iou >= BACKGROUND) & (near_iou <= FOREGROUND)] = _CODES["Loc"]
    codes[matched >= 0] = _CODES["correct"]
    codes[ignored | ~within] = _CODES["ignored"]
    box_of = np.where(codes == _CODES["Cls"], other, np.where(codes == _CODES["Bkg"], -1, near))
    box_of = np.where((codes == _CODES["Both"]) & (other_iou > near_iou), other, box_of)
    return codes, np.where(matched >= 0, matched, box_of)


def _best_box(pairs: Overlaps, keep: NDArray[np.bool_]) -> tuple[Rows, NDArray[np.float64]]:
    """The ground truth row each prediction overlaps most among the kept pairs, and the IoU; -1 and 0 for none."""
    found, boxes, iou = pairs.found[keep], pairs.boxes[keep], pairs.ious[keep]
    best, value = np.full(len(pairs.predictions), -1), np.zeros(len(pairs.predictions))
    top = best_of_each(found, iou)
    best[found[top]], value[found[top]] = boxes[top], iou[top]
    return best, value


# -- what each kind costs ------------------------------------------------------------------------------------------


def average_precisions(
    classes: NDArray[Any], true: NDArray[np.bool_], positives: NDArray[Any]
) -> NDArray[np.float64]:
    """COCO's AP of each class at one IoU: precision, made to fall, read at the recalls 0, 0.01, ..., 1; float64 [K].

    Args:
        classes: Class of each prediction that counts, the surest prediction first [P].
        true: Whether it is a true positive [P].
        positives: Number of ground truth boxes of each class [K]; without any a class has an AP of 0.
    """
    count = len(positives)
    if (classes[1:] < classes[:-1]).any():
        order = order_of_classes(classes)
        classes, true = classes[order], true[order]
    right = np.flatnonzero(true)  # between two right predictions precision only falls
    first = np.searchsorted(classes, np.arange(count + 1))
    ends = np.searchsorted(right, first)
    values = np.zeros(count)
    for k in np.flatnonzero((np.diff(ends) > 0) & (positives > 0)).tolist():
        places = right[ends[k] : ends[k + 1]] - first[k]
        hits = np.arange(1, len(places) + 1)
        precision = np.maximum.accumulate((hits / (places + 1))[::-1])[::-1]
        read = np.searchsorted(hits / positives[k], _RECALLS, side="left")
        values[k] = np.append(precision, 0.0)[read].mean()
    return values


_RECALLS = np.linspace(0, 1, 101)


def _costs(pairs: Overlaps, kinds: Kinds) -> dict[str, float]:
    """AP50 that putting right all mistakes of one kind would win, by kind; and of all false positives and misses.

    The kinds are those of all predictions, none of them hidden.
    """
    dataset, predictions, surest = pairs.dataset, pairs.predictions, pairs.surest
    order = surest[order_of_classes(predictions.classes[surest])]  # once for all of the kinds
    code_of, classes = kinds.prediction_codes[order], predictions.classes[order]
    counted, true = code_of != _CODES["ignored"], code_of == _CODES["correct"]
    box_classes = dataset.box_classes[~dataset.box_crowd]
    box_codes = kinds.box_codes[~dataset.box_crowd]
    positives = np.bincount(box_classes, minlength=len(dataset.class_names))

    def mean_ap(
        keep: NDArray[np.bool_] = counted,
        true: NDArray[np.bool_] = true,
        classes: NDArray[Any] = classes,
        wanted: NDArray[Any] = positives,
    ) -> float:
        values = average_precisions(classes[keep], true[keep], wanted)
        there = np.bincount(classes[keep], minlength=len(positives)) > 0
        # with nothing left to find and nothing found, a class no longer counts
        values = values[(positives > 0) & (there | (wanted > 0))]
        return float(values.mean()) if len(values) else 0.0

    base = mean_ap()
    costs = {}
    for kind in KINDS:
        these = code_of == _CODES[kind]
        if kind in ("Cls", "Loc"):
            # the surest prediction about a box not found otherwise becomes right, the others of the kind vanish
            explained = kinds.prediction_of[kinds.box_codes == _CODES[kind]]
            fixed, right_classes = np.zeros(len(predictions), bool), predictions.classes.copy()
            fixed[explained] = True
            right_classes[explained] = dataset.box_classes[kinds.box_of[explained]]
            rows = (
                order if kind == "Loc" else surest
            )  # what gets another class has its place among that one's
            code = kinds.prediction_codes[rows]
            right, keep = (code == _CODES["correct"]) | fixed[rows], fixed[rows]
            keep |= (code != _CODES["ignored"]) & (code != _CODES[kind])
            costs[kind] = mean_ap(keep, right, right_classes[rows])
        elif kind == "Miss":
            lost = np.bincount(box_classes[box_codes == _CODES["Miss"]], minlength=len(positives))
            costs[kind] = mean_ap(wanted=positives - lost)
        else:
            costs[kind] = mean_ap(counted & ~these)
    right_first = np.argsort(~true, kind="stable")
    costs["FalsePos"] = mean_ap(counted[right_first], true[right_first], classes[right_first])
    costs["FalseNeg"] = mean_ap(
        wanted=np.bincount(box_classes[box_codes == _CODES["correct"]], minlength=len(positives))
    )
    return {kind: max(value - base, 0.0) for kind, value in costs.items()}


# -- the answer ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Mistakes:
    """Every prediction and every ground truth box, sorted by what went right or wrong.

    Attributes:
        evaluation: The figures these mistakes belong to; rows below are rows of its `predictions` and `dataset`.
        score: Score a prediction needs to be shown; those below it are "hidden".
        kinds: What each prediction and each ground truth box is at that score, see `Kinds`.
        costs: AP50 (0 to 1) that putting right all mistakes of a kind would win, measured on all predictions as TIDE
            does; "FalsePos" and "FalseNeg" are its two sums over kinds. They do not add up.
        found_later: How many of the objects missed at that score are found, rightly, by a prediction below it.
    """

    evaluation: Evaluation
    score: float
    kinds: Kinds
    costs: dict[str, float]
    found_later: int

    @property
    def dataset(self) -> Dataset:
        return self.evaluation.dataset

    @property
    def predictions(self) -> Predictions:
        return self.evaluation.predictions

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of mistakes of each kind, and of correct predictions."""
        of_code = np.bincount(self.kinds.prediction_codes, minlength=len(_NAMES))
        counts = {kind: int(of_code[_CODES[kind]]) for kind in ("correct", *KINDS)}
        return {**counts, "Miss": int((self.kinds.box_codes == _CODES["Miss"]).sum())}

    @cached_property
    def suspects(self) -> list[Suspect]:
        """Labels that are probably wrong, the most suspicious first (see `odkit.suspects`).

        Best on images the detector was not trained on: a detector that has learnt a wrong label agrees with it.
        """
        return find_suspects(self.evaluation)

    def rows(self, kind: str) -> Rows:
        """Rows of the predictions of one kind, the surest first; for "Miss", rows of the ground truth boxes.

        Raises:
            KeyError: There is no such kind; the message lists them.
        """
        if kind not in ("correct", *KINDS):
            raise UnknownNameError(f"no kind {kind!r}; there are correct, {', '.join(KINDS)}")
        if kind == "Miss":
            return np.flatnonzero(self.kinds.boxes == kind)
        rows = np.flatnonzero(self.kinds.predictions == kind)
        return rows[np.argsort(-self.predictions.scores[rows], kind="stable")]

    def images_with(self, kind: str) -> Rows:
        """Indices of the images with mistakes of this kind, those with most first."""
        column = self.dataset.box_images if kind == "Miss" else self.predictions.images
        images, counts = np.unique(column[self.rows(kind)], return_counts=True)
        return images[np.argsort(-counts, kind="stable")].astype(np.int64)

    def by_class(self) -> list[dict[str, Any]]:
        """One row a class: boxes found and not, and the wrong predictions of this class by kind."""
        names = [*self.dataset.class_names]
        return self._table(names, self.dataset.box_classes, self.predictions.classes)

    def by_size(self) -> list[dict[str, Any]]:
        """One row a box size in COCO's sense: small under 32 x 32 pixels, large over 96 x 96."""
        truth, guess = (
            np.digitize(box_area(x.boxes), [32**2, 96**2]) for x in (self.dataset, self.predictions)
        )
        return self._table(["small", "medium", "large"], truth, guess)

    def by_crowding(self) -> list[dict[str, Any]]:
        """One row a degree of crowding: alone, touching another box, overlapping one by an IoU over 0.2."""
        data, found = self.dataset, self.predictions
        truth, guess = np.zeros(data.num_boxes, np.int64), np.zeros(len(found), np.int64)
        for image in range(len(data)):
            rows, guesses = data.boxes_of(image), found.of(image)
            among = box_iou(data.boxes[rows], data.boxes[rows])
            np.fill_diagonal(among, 0)
            truth[rows] = _degree(among)
            near = box_iou(found.boxes[guesses], data.boxes[rows])
            if near.shape[1]:  # the box a prediction is about is not its neighbour
                near[np.arange(len(near)), near.argmax(1)] = 0
            guess[guesses] = _degree(near)
        return self._table(["alone", "touching", "overlapping"], truth, guess)

    def by_image(self, labels: Sequence[str]) -> list[dict[str, Any]]:
        """One row a label of the images: a split, a camera, a tag given by hand.

        Args:
            labels: One label an image [N].
        """
        if len(labels) != len(self.dataset):
            raise InputError(f"by_image() got {len(labels)} labels for {len(self.dataset)} images")
        names, group = np.unique(np.array(labels, str), return_inverse=True)
        return self._table(names.tolist(), group[self.dataset.box_images], group[self.predictions.images])

    def _table(
        self, names: Sequence[str], boxes: NDArray[Any], predictions: NDArray[Any]
    ) -> list[dict[str, Any]]:
        rows = []
        for index, name in enumerate(names):
            there = self.kinds.boxes[(boxes == index) & (self.kinds.boxes != "crowd")]
            found = self.kinds.predictions[predictions == index]
            correct = int((found == "correct").sum())
            shown = int((~np.isin(found, ("ignored", "hidden"))).sum())
            row: dict[str, Any] = {
                "group": name,
                "boxes": len(there),
                "recall": float((there == "correct").mean()) if len(there) else math.nan,
                "precision": correct / shown if shown else math.nan,
                "correct": correct,
            }
            row |= {kind: int((found == kind).sum()) for kind in KINDS}
            rows.append(row | {"Miss": int((there == "Miss").sum())})
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Counts, costs and the first hundred suspects as plain values for JSON."""
        return {
            "score": self.score,
            "ap50": None if math.isnan(self.evaluation.ap50) else self.evaluation.ap50,
            "counts": self.counts,
            "costs": self.costs,
            "suspects": [asdict(suspect) for suspect in self.suspects[:100]],
        }

    def __repr__(self) -> str:
        lines = [f"  {kind:<13}{count:>8}{cost:>12}  {what}" for kind, count, cost, what in self._rows()]
        head = f"  {'kind':<13}{'count':>8}{'AP50 cost':>12}"
        return "\n".join([f"{self._caption()}", head, *lines])

    def _repr_html_(self) -> str:
        cells = "".join(
            f'<tr><td style="text-align:left">{kind}</td><td>{count}</td><td>{cost}</td>'
            f'<td style="text-align:left">{what}</td></tr>'
            for kind, count, cost, what in self._rows()
        )
        head = "<tr><th>kind</th><th>count</th><th>AP50 cost</th><th></th></tr>"
        return f"<table><caption>{escape(self._caption())}</caption>{head}{cells}</table>"

    def _caption(self) -> str:
        ap50 = self.evaluation.ap50
        return (
            f"Mistakes on {self.evaluation.data_name} at score {self.score:.2f} and above: "
            f"{self.counts['correct']:,} of {int(self.evaluation.class_boxes.sum()):,} boxes found, AP50 "
            f"{'—' if math.isnan(ap50) else f'{ap50:.3f}'}"
        )

    def _rows(self) -> list[tuple[str, str, str, str]]:
        return [
            (kind, f"{self.counts[kind]:,}", f"{self.costs[kind]:.3f}", what) for kind, what in KINDS.items()
        ]


class Evaluated(Protocol):
    """What has an evaluation of its own to give, as a Run has."""

    def evaluation(self) -> Evaluation: ...


def mistakes(
    dataset: Dataset | Evaluation | Evaluated,
    predictions: Predictions | None = None,
    *,
    score: float | None = None,
) -> Mistakes:
    """Every mistake by kind, what each kind costs, and the labels that are probably wrong.

    Args:
        dataset: The ground truth; or an `Evaluation` of it, or a `Run`, which have their predictions themselves.
        predictions: What the detector found, down to low scores.
        score: Score a prediction needs to be looked at; the one with the best F1 where not given.

    Raises:
        ValueError: As `evaluate`.
    """
    if isinstance(dataset, Dataset):
        if predictions is None:
            raise InputError(
                "mistakes() needs predictions beside the dataset, or an Evaluation or a Run alone"
            )
        evaluation = evaluate(dataset, predictions)
    else:
        evaluation = dataset if isinstance(dataset, Evaluation) else dataset.evaluation()
    pairs, within = evaluation.overlaps, evaluation.within
    score = evaluation.best_score if score is None else score
    everything = _classify(pairs, within, -math.inf)
    shown = _classify(pairs, within, score, everything)
    return Mistakes(
        evaluation=evaluation,
        score=score,
        kinds=shown,
        costs=_costs(pairs, everything),
        found_later=int(
            ((shown.box_codes == _CODES["Miss"]) & (everything.box_codes == _CODES["correct"])).sum()
        ),
    )


def _degree(overlap: NDArray[np.float64]) -> NDArray[np.int64]:
    most = overlap.max(1) if overlap.shape[1] else np.zeros(len(overlap))
    return np.where(most > 0.2, 2, np.where(most > 0, 1, 0))
