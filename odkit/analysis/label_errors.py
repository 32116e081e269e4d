"""Labels that are probably wrong: where a trustworthy detector contradicts them, and the labels put right."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from odkit.analysis.evaluation import Evaluation
from odkit.analysis.matching import Rows, on_crowd
from odkit.data import Dataset, as_boxes, box_area, box_iou
from odkit.system import InputError

_LEAST = 0.05  # suspicion below which a label is left alone
_KIN = 50  # boxes of like size that say what is usual


@dataclass(frozen=True)
class Suspect:
    """A label that is probably wrong.

    `kind` is "wrong_class" (the box is probably a `class_name`), "missing" (there is probably a `class_name` without
    a label), "bad_box" (the object probably lies in `suggestion`), "spurious" (there is probably nothing), or
    "duplicate" (the object is probably labelled twice).
    """

    kind: str
    score: float  # how suspicious, 0 to 1
    image: int  # index of the image
    image_id: str
    box: int  # row of the ground truth box, -1 where the label is missing
    box_id: str  # where the box stands in its source, "" where it is missing
    prediction: int  # row of the prediction that disagrees, -1 where none does
    class_name: str  # the class the detector sees; the label's own where it sees nothing
    suggestion: tuple[float, ...] | None  # the box the detector sees, xyxy pixels

    def __str__(self) -> str:
        what = {
            "wrong_class": f"{self.box_id} is probably a {self.class_name}",
            "missing": f"a {self.class_name} is probably not labelled",
            "bad_box": f"{self.box_id} ({self.class_name}) is probably badly drawn",
            "spurious": f"{self.box_id} ({self.class_name}) is probably nothing",
            "duplicate": f"{self.box_id} ({self.class_name}) is probably a second label of one object",
        }
        return f"{self.image_id}: {what[self.kind]} ({self.score:.2f})"


def find_suspects(evaluation: Evaluation) -> list[Suspect]:
    """Labels that are probably wrong, the most suspicious first.

    A prediction is trusted as far as predictions of its score are right (precision at IoU 0.5), and a label is
    suspicious as far as the predictions that contradict it are trusted and none confirms it:

    - wrong_class: a prediction of another class lies on the box (IoU from 0.5), none of its own class does (and its
      own class is one that the detector knows);
    - bad_box: a prediction of its class overlaps the box less than is usual for boxes of that size;
    - spurious: nothing is predicted near the box, though boxes of its class and size are usually found;
    - duplicate: a box of the same class lies on it, and there is a prediction for that one only;
    - missing: a prediction lies where no box is (IoU under 0.5); of several in one place the surest counts.

    Each box is listed once, with its strongest suspicion. The list goes by suspicion, but the further down its own
    kind a suspect stands the later it comes, so that the one kind of contradiction which a weak detector is full of
    (objects it misses, say) cannot crowd out the others.
    """
    judge = _Judge(evaluation)
    strongest: dict[int, tuple[float, str, int]] = {}  # ground truth row: suspicion, kind, prediction row
    for accusations in (judge.wrong_classes(), judge.bad_boxes(), judge.spurious(), judge.duplicates()):
        for box, kind, suspicion, prediction in accusations:
            if suspicion > strongest.get(box, (_LEAST,))[0]:
                strongest[box] = (suspicion, kind, prediction)
    suspects = [judge.about_box(box, *accusation) for box, accusation in strongest.items()]
    explained = {prediction for _, _, prediction in strongest.values()}
    suspects += [judge.about_nothing(row, score) for row, score in judge.missing(explained)]
    return _taking_turns(suspects, evaluation.dataset.num_boxes)


def corrected(dataset: Dataset, suspects: Sequence[Suspect]) -> Dataset:
    """The dataset with the labels put right as the detector suggests: a view, the files stay as they are.

    A wrong class is replaced, a badly drawn box is redrawn, a spurious or second label is dropped, and a missing one
    is added under the id "suggested N". Only give what a person has looked at (`browser.accepted()`): a detector is
    wrong often enough, and one trained on its own opinions learns nothing.

    Args:
        dataset: The dataset the suspects are from, or one with the same images and box ids in it.
        suspects: What to accept, of `Mistakes.suspects`.

    Raises:
        ValueError: A suspect is about an image, box or class that is not in the dataset; the message names it.
    """
    images = {image_id: i for i, image_id in enumerate(dataset.image_ids)}
    rows = rows_of_boxes(dataset)
    classes = {name: k for k, name in enumerate(dataset.class_names)}

    boxes, box_classes = dataset.boxes.copy(), dataset.box_classes.copy()
    dropped: set[int] = set()
    added: list[tuple[int, tuple[float, ...], int]] = []  # image row, xyxy, class index
    for one in suspects:
        row = rows.get((one.image_id, one.box_id), -1)
        if one.image_id not in images or (row < 0 and one.kind != "missing") or one.class_name not in classes:
            raise InputError(f"this suspect is not about {dataset.name!r} ({len(dataset):,} images): {one}")
        if one.kind == "missing" and one.suggestion is not None:
            added.append((images[one.image_id], one.suggestion, classes[one.class_name]))
        elif one.kind == "wrong_class":
            box_classes[row] = classes[one.class_name]
        elif one.kind == "bad_box" and one.suggestion is not None:
            boxes[row] = one.suggestion
        else:
            dropped.add(row)

    kept = np.setdiff1d(np.arange(dataset.num_boxes), list(dropped))
    box_images = np.r_[dataset.box_images[kept], [image for image, _, _ in added]].astype(np.int32)
    order = np.argsort(box_images, kind="stable")
    taken = set(dataset.box_ids)
    new_ids = (f"suggested {n}" for n in range(1, len(taken) + len(added) + 2))
    fresh = [next(i for i in new_ids if i not in taken) for _ in added]
    counts = Counter(one.kind.replace("_", " ") for one in suspects)
    said = ", ".join(f"{n} {kind}" for kind, n in counts.items()) or "nothing"
    return dataset.replace(
        boxes=np.r_[boxes[kept], as_boxes([box for _, box, _ in added])][order],
        box_classes=np.r_[box_classes[kept], [k for _, _, k in added]].astype(np.int32)[order],
        box_images=box_images[order],
        box_crowd=np.r_[dataset.box_crowd[kept], np.zeros(len(added), bool)][order],
        box_ids=np.array([*dataset.box_ids[kept], *fresh], object)[order],
        notes=(*dataset.notes, f"corrected as a detector suggested: {said}"),
    )


def rows_of_boxes(dataset: Dataset) -> dict[tuple[str, str], int]:
    """Row of each ground truth box by image id and box id; the last, should an image have an id twice."""
    pairs = zip(dataset.image_ids[dataset.box_images], dataset.box_ids, strict=True)
    return {pair: row for row, pair in enumerate(pairs)}


def _taking_turns(suspects: list[Suspect], boxes: int) -> list[Suspect]:
    """By suspicion divided by 1 + rank within the kind / 1% of the boxes."""
    share = max(boxes / 100, 5.0)
    ranked: list[tuple[float, Suspect]] = []
    for kind in dict.fromkeys(suspect.kind for suspect in suspects):
        of_kind = [suspect for suspect in suspects if suspect.kind == kind]
        of_kind.sort(key=lambda suspect: (-suspect.score, suspect.image, suspect.box, suspect.prediction))
        ranked += [(suspect.score / (1 + rank / share), suspect) for rank, suspect in enumerate(of_kind)]
    return [suspect for _, suspect in sorted(ranked, key=lambda pair: -pair[0])]


_Accusations = Iterator[tuple[int, str, float, int]]


class _Judge:
    """What all kinds of suspicion rest on, worked out once."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.data, self.found, self.hits = evaluation.dataset, evaluation.predictions, evaluation.matches()
        self.pairs = evaluation.overlaps
        self.rows, self.boxes, self.iou = self.pairs.found, self.pairs.boxes, self.pairs.ious
        self.same = self.pairs.same_class
        self.trust = _precision_at(self.found.scores, self.hits.kinds)
        self.size = np.sqrt(box_area(self.data.boxes))
        self.known = evaluation.class_known[self.data.box_classes]
        well = self.same & (self.iou >= 0.5)
        self.confirmed = _highest(self.boxes[well], self.trust[self.rows[well]], self.data.num_boxes)

    def wrong_classes(self) -> _Accusations:
        on = ~self.same & (self.iou >= 0.5) & self.known[self.boxes]
        for row, box in zip(self.rows[on].tolist(), self.boxes[on].tolist(), strict=True):
            yield box, "wrong_class", float(self.trust[row] * (1 - self.confirmed[box])), row

    def bad_boxes(self) -> _Accusations:
        matched = np.flatnonzero(self.hits.predictions >= 0)
        usual = _lower_tail(self.size[matched], self.hits.ious[self.hits.predictions[matched]], self.size)
        fits = self.same & (self.iou >= usual[self.boxes])
        fitted = _highest(self.boxes[fits], self.trust[self.rows[fits]], self.data.num_boxes)
        best = _highest(self.rows[self.same], self.iou[self.same], len(self.found))
        off = self.same & ~fits & (self.iou >= 0.1) & (self.iou == best[self.rows])
        for row, box, iou in zip(
            self.rows[off].tolist(), self.boxes[off].tolist(), self.iou[off].tolist(), strict=True
        ):
            oddness = min((usual[box] - iou) / max(usual[box] - 0.3, 0.1), 1)
            yield box, "bad_box", float(self.trust[row] * oddness * (1 - fitted[box])), row

    def spurious(self) -> _Accusations:
        right = self.found.scores[self.hits.kinds == "true_positive"]
        usual_score = float(np.median(right)) if len(right) else 1.0
        near = np.minimum(self.iou / 0.5, 1) * np.minimum(self.found.scores[self.rows] / usual_score, 1)
        evidence = _highest(self.boxes, near, self.data.num_boxes)
        found = (self.confirmed > 0).astype(np.float64)
        for k in range(len(self.data.class_names)):
            kin = np.flatnonzero((self.data.box_classes == k) & ~self.data.box_crowd)
            order = kin[np.argsort(self.size[kin], kind="stable")]
            for place, box in enumerate(order.tolist()):
                if self.hits.predictions[box] < 0:
                    start = min(max(place - _KIN // 2, 0), max(len(order) - _KIN - 1, 0))
                    others = order[start : start + _KIN + 1]
                    usual = (found[others].sum() - found[box]) / max(len(others) - 1, 1)
                    yield box, "spurious", float(usual * (1 - evidence[box])), -1

    def duplicates(self) -> _Accusations:
        lost = self.hits.predictions < 0
        for image in np.unique(self.data.box_images[lost]).tolist():
            rows = self.data.boxes_of(image)
            labels, matched = self.data.box_classes[rows], self.hits.predictions[rows]
            overlap = box_iou(self.data.boxes[rows], self.data.boxes[rows])
            twins = (overlap >= 0.5) & (labels[:, None] == labels) & (matched[:, None] < 0) & (matched >= 0)
            twins[self.data.box_crowd[rows]] = False
            for first, second in np.argwhere(twins).tolist():
                row = int(matched[second])
                yield rows.start + first, "duplicate", float(overlap[first, second] * self.trust[row]), row

    def missing(self, explained: set[int]) -> Iterator[tuple[int, float]]:
        near = _highest(self.rows, self.iou, len(self.found))
        loose = (near < 0.5) & (self.hits.kinds == "false_positive")
        loose &= ~on_crowd(self.pairs, 0.5, same_class=False)
        suspicion = self.trust * (1 - near)
        loose &= suspicion > _LEAST
        loose[list(explained - {-1})] = False
        rows = np.flatnonzero(loose)
        images, starts = np.unique(self.found.images[rows], return_index=True)
        for of_image in np.split(rows, starts[1:]) if len(images) else ():
            surest = of_image[np.argsort(-suspicion[of_image], kind="stable")]
            beside = box_iou(self.found.boxes[surest], self.found.boxes[surest]) > 0.4
            left = np.ones(len(surest), bool)
            for place, row in enumerate(surest.tolist()):
                if left[place]:
                    left &= ~beside[place]
                    yield row, float(suspicion[row])

    def about_box(self, box: int, suspicion: float, kind: str, prediction: int) -> Suspect:
        image = int(self.data.box_images[box])
        seen = kind in ("wrong_class", "bad_box")
        label = self.found.classes[prediction] if seen else self.data.box_classes[box]
        return Suspect(
            kind=kind,
            score=suspicion,
            image=image,
            image_id=self.data.image_ids[image],
            box=box,
            box_id=self.data.box_ids[box],
            prediction=prediction,
            class_name=self.data.class_names[label],
            suggestion=tuple(self.found.boxes[prediction].tolist()) if seen else None,
        )

    def about_nothing(self, row: int, suspicion: float) -> Suspect:
        image = int(self.found.images[row])
        return Suspect(
            kind="missing",
            score=suspicion,
            image=image,
            image_id=self.data.image_ids[image],
            box=-1,
            box_id="",
            prediction=row,
            class_name=self.data.class_names[self.found.classes[row]],
            suggestion=tuple(self.found.boxes[row].tolist()),
        )


def _precision_at(scores: NDArray[np.float32], kinds: NDArray[np.str_]) -> NDArray[np.float64]:
    """Share of right predictions around each score, never falling as the score rises, float64 [P].

    Isotonic regression by pooling adjacent violators (R. E. Barlow et al., 1972), read off between the pools' centres.
    """
    counted = np.flatnonzero(kinds != "ignored")
    if not len(counted):
        return np.zeros(len(scores))
    order = counted[np.argsort(scores[counted], kind="stable")]
    hits = kinds[order] == "true_positive"
    # right ones and then wrong ones are one pool anyway
    starts = np.flatnonzero(np.r_[True, hits[1:] & ~hits[:-1]])
    sums = [
        np.add.reduceat(values, starts)
        for values in (hits * 1.0, np.ones(len(hits)), scores[order].astype(np.float64))
    ]
    pools: list[list[float]] = []  # right, number, sum of scores
    for pool in np.stack(sums, 1).tolist():
        pools.append(pool)
        while len(pools) > 1 and pools[-2][0] * pools[-1][1] >= pools[-1][0] * pools[-2][1]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    right, number, total = np.array(pools).T
    # one right and one wrong added to each pool: a handful of lucky predictions is not certainty
    value: NDArray[np.float64] = np.interp(
        scores, total / number, np.maximum.accumulate((right + 0.5) / (number + 1))
    )
    return value


def _lower_tail(
    sizes: NDArray[np.float64], values: NDArray[np.float64], at: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Tenth percentile of the values of the boxes nearest in size to each of `at`; 0.5 where there are none."""
    if not len(values):
        return np.full(len(at), 0.5)
    order = np.argsort(sizes, kind="stable")
    start = np.clip(np.searchsorted(sizes[order], at) - _KIN // 2, 0, max(len(order) - _KIN, 0))
    rows = start[:, None] + np.arange(min(_KIN, len(order)))
    result: NDArray[np.float64] = np.quantile(values[order][rows], 0.1, axis=1)
    return result


def _highest(rows: Rows, values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The highest value of each row, 0 where there is none, float64 [count]."""
    result = np.zeros(count)
    np.maximum.at(result, rows, values)
    return result
