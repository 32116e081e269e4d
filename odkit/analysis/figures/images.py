"""Figures of images with their boxes, predictions, mistakes and label errors."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from odkit.analysis.evaluation import Evaluation, evaluate
from odkit.analysis.figures.colors import CLASS_COLORS, KIND_COLORS, class_color
from odkit.analysis.figures.grid import (
    QUIET,
    Figure,
    Panel,
    Sheet,
    class_name,
    in_words,
    shorten,
    styled,
)
from odkit.analysis.tide import KINDS, Mistakes, classify, mistakes
from odkit.data import Dataset, Predictions, SimilarPair
from odkit.system import OutOfRangeError

_SUSPICIONS = {  # the kinds of `Suspect` in words
    "wrong_class": "wrong class?",
    "missing": "not labelled?",
    "bad_box": "badly drawn?",
    "spurious": "nothing there?",
    "duplicate": "labelled twice?",
}
_CROWDED = 10  # boxes in an image from which on labels would hide it; the legend names the colours


# -- images and boxes ----------------------------------------------------------------------------------------------


@styled
def show_images(
    dataset: Dataset,
    images: Sequence[int | str] | None = None,
    *,
    count: int = 8,
    columns: int = 4,
    seed: int = 0,
) -> Figure:
    """Images with their ground truth boxes.

    Args:
        dataset: What to show.
        images: Indices or ids of the images; `count` of them drawn by `seed` where not given.
        count: How many, where `images` is not given.
        columns: Images side by side.
        seed: Seed of the draw.
    """
    chosen = _choose(dataset, images, count, seed)
    sheet = Sheet(dataset, chosen, columns)
    for panel, image in zip(sheet.panels, chosen, strict=True):
        boxes = _draw_truth(panel, dataset, image)
        panel.title(_short(dataset.image_ids[image]), f"{boxes} box{'' if boxes == 1 else 'es'}")
    return sheet.finish(_class_legend(dataset, *(dataset.box_classes[dataset.boxes_of(i)] for i in chosen)))


@styled
def show_predictions(
    dataset: Dataset,
    predictions: Predictions,
    images: Sequence[int | str] | None = None,
    *,
    score: float = 0.4,
    count: int = 4,
    seed: int = 0,
) -> Figure:
    """Ground truth beside predictions: two panels an image.

    In the right panel a solid box is right (its class, IoU from 0.5), a dashed one is not, and a dotted white box
    was missed. Predictions of classes that the dataset has not are left out, as `odkit.evaluate` leaves them out.

    Args:
        dataset: The ground truth.
        predictions: What a detector found in these images.
        images: Indices or ids of the images; `count` of them drawn by `seed` where not given.
        score: Score a prediction needs to be shown.
        count: How many, where `images` is not given.
        seed: Seed of the draw.

    Raises:
        ValueError: The class tables share no name, or the predictions are of other images.
    """
    chosen = _choose(dataset, images, count, seed)
    part = dataset.select(chosen)
    found = predictions.for_dataset(dataset, same_classes=False).for_dataset(part).above(score)
    kinds = classify(part, found)
    sheet = Sheet(part, [image for image in range(len(part)) for _ in range(2)], 2 if len(part) == 1 else 4)
    for image, (left, right) in enumerate(zip(sheet.panels[::2], sheet.panels[1::2], strict=True)):
        _draw_truth(left, part, image)
        left.title(_short(part.image_ids[image]), "ground truth")
        boxes, rows = part.boxes_of(image), found.of(image)
        missed = ~np.isin(kinds.boxes[boxes], ("correct", "crowd"))
        for box in part.boxes[boxes][missed]:
            right.box(box, "#ffffff", "", style=":")
        for row in range(rows.start, rows.stop):
            name = "" if rows.stop - rows.start > _CROWDED else class_name(part, found.classes[row]) + " "
            style = "--" if kinds.predictions[row] in KINDS else "-"
            label = f"{name}{found.scores[row]:.2f}"
            right.box(found.boxes[row], class_color(int(found.classes[row])), label, style=style)
        good = int((kinds.predictions[rows] == "correct").sum())
        wrong = int(np.isin(kinds.predictions[rows], list(KINDS)).sum())
        right.title("predictions", f"{good} right, {wrong} wrong, {int(missed.sum())} missed")
    right_line = Line2D([], [], color=QUIET, label="right")
    wrong_line = Line2D([], [], color=QUIET, linestyle="--", label="wrong")
    missed_line = Line2D([], [], color=QUIET, linestyle=":", label="missed")
    lines = [right_line, wrong_line, missed_line]
    return sheet.finish([*_class_legend(part, part.box_classes, found.classes), *lines])


@styled
def show_worst(
    dataset: Dataset,
    found: Predictions | Evaluation | Mistakes,
    *,
    count: int = 8,
    columns: int = 4,
    score: float | None = None,
) -> Figure:
    """The images with the highest loss first (see `Evaluation.worst_images`), every mistake drawn with its reason.

    Args:
        dataset: The ground truth.
        found: Predictions, or their evaluation or mistakes.
        count: How many images.
        columns: Images side by side.
        score: Score a prediction needs to be shown; the one with the best F1 where not given.

    Raises:
        ValueError: As `evaluate`.
    """
    if not isinstance(found, Mistakes):
        found = mistakes(found if isinstance(found, Evaluation) else evaluate(dataset, found), score=score)
    data, kinds = found.dataset, found.kinds
    chosen = found.evaluation.worst_images(count, score=found.score).tolist()
    sheet = Sheet(data, chosen, columns)
    seen: Counter[str] = Counter()
    for panel, image in zip(sheet.panels, chosen, strict=True):
        tally: Counter[str] = Counter()
        rows, boxes = found.predictions.of(image), data.boxes_of(image)
        for row in range(rows.start, rows.stop):
            kind = str(kinds.predictions[row])
            if kind in KIND_COLORS:
                tally[kind] += 1
                width = 1.0 if kind == "correct" else 1.8
                panel.box(found.predictions.boxes[row], KIND_COLORS[kind], _reason(found, row), width=width)
        for row in np.flatnonzero(kinds.boxes[boxes] == "Miss") + boxes.start:
            tally["Miss"] += 1
            label = f"missed {class_name(data, data.box_classes[row])}"
            panel.box(data.boxes[row], KIND_COLORS["Miss"], label, style="--", width=1.8)
        seen += tally
        wrong = ", ".join(
            f"{number} {in_words(kind)}" for kind, number in tally.most_common() if kind in KINDS
        )
        panel.title(_short(data.image_ids[image]), wrong or "no mistake")
    return sheet.finish([Patch(color=KIND_COLORS[k], label=in_words(k)) for k in KIND_COLORS if k in seen])


@styled
def show_suspects(found: Mistakes, *, count: int = 8, columns: int = 4) -> Figure:
    """The labels that are most probably wrong: the label dashed, what the detector sees solid.

    Args:
        found: Mistakes of a detector, best on images it was not trained on.
        count: How many suspects, the most suspicious first.
        columns: Images side by side.
    """
    suspects, data = found.suspects[:count], found.dataset
    nothing = "no label is contradicted by the detector"
    sheet = Sheet(data, [suspect.image for suspect in suspects], columns, nothing=nothing)
    for panel, suspect in zip(sheet.panels, suspects, strict=True):
        if suspect.box >= 0:
            label = f"labelled {class_name(data, data.box_classes[suspect.box])}"
            panel.box(data.boxes[suspect.box], KIND_COLORS["Miss"], label, style="--", width=1.8)
        if suspect.suggestion is not None:
            panel.box(np.array(suspect.suggestion), CLASS_COLORS[5], f"{suspect.class_name}?", width=1.8)
        panel.title(f"{_SUSPICIONS[suspect.kind]} ({suspect.score:.2f})", _short(suspect.image_id))
    dashed = Line2D([], [], color=KIND_COLORS["Miss"], linestyle="--", label="the label")
    return sheet.finish([dashed, Line2D([], [], color=CLASS_COLORS[5], label="what the detector sees")])


@styled
def show_pairs(dataset: Dataset, pairs: Sequence[SimilarPair], *, count: int = 4) -> Figure:
    """Images that look the same, two and two beside each other.

    Args:
        dataset: Where they are from.
        pairs: What `odkit.near_duplicates` found in it.
        count: How many pairs, the first of the list.
    """
    shown = list(pairs)[:count]
    images = [image for pair in shown for image in (pair.first, pair.second)]
    columns = 2 if len(shown) == 1 else 4
    sheet = Sheet(dataset, images, columns, nothing="no two images look the same")
    for pair, (left, right) in zip(
        shown, zip(sheet.panels[::2], sheet.panels[1::2], strict=True), strict=True
    ):
        left.title(_short(pair.first_id), pair.first_split or "no split")
        alike = "equal pixels" if pair.equal else f"similarity {pair.similarity:.3f}"
        right.title(_short(pair.second_id), f"{pair.second_split or 'no split'}, {alike}")
    return sheet.finish([])


def _draw_truth(panel: Panel, dataset: Dataset, image: int) -> int:
    rows = dataset.boxes_of(image)
    boxes, classes = dataset.boxes[rows], dataset.box_classes[rows]
    for box, label in zip(boxes, classes.tolist(), strict=True):
        panel.box(box, class_color(label), "" if len(boxes) > _CROWDED else class_name(dataset, label))
    return len(boxes)


def _reason(found: Mistakes, row: int) -> str:
    data, kind = found.dataset, found.kinds.predictions[row]
    guess = f"{class_name(data, found.predictions.classes[row])} {found.predictions.scores[row]:.2f}"
    if kind in ("Cls", "Both"):
        return f"{guess}, is {class_name(data, data.box_classes[found.kinds.box_of[row]])}"
    return "" if kind == "correct" else guess


def _choose(dataset: Dataset, images: Sequence[int | str] | None, count: int, seed: int) -> list[int]:
    if images is None:
        return sorted(np.random.default_rng(seed).permutation(len(dataset))[:count].tolist())
    chosen = [dataset.index_of(image) if isinstance(image, str) else int(image) for image in images]
    for index in chosen:
        if not -len(dataset) <= index < len(dataset):
            raise OutOfRangeError(f"{dataset.name} has images 0 to {len(dataset) - 1}, not {index}")
    return [index % len(dataset) for index in chosen]


def _class_legend(dataset: Dataset, *classes: NDArray[Any]) -> list[Artist]:
    used = sorted({int(label) for part in classes for label in np.unique(part)})
    if len(used) > 10:  # more than a line of names helps nobody
        return []
    return [Patch(facecolor=class_color(k), label=shorten(class_name(dataset, k), 20)) for k in used]


def _short(image_id: str) -> str:
    return PurePosixPath(image_id).name
