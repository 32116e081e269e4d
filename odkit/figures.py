"""Every picture odkit draws of its data, its training and its results, with matplotlib.

Each function returns a `Figure` that belongs to no window: as the last expression of a cell it shows itself once,
`.savefig(path)` writes it.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from odkit.comparison import Comparison
from odkit.dataset import Dataset
from odkit.evaluation import Evaluation, evaluate
from odkit.mistakes import KINDS, Mistakes, classify, mistakes
from odkit.predictions import Predictions
from odkit.sheets import CLASS_COLORS, GRID, INK, QUIET, Panel, Sheet, shorten, styled
from odkit.sheets import Figure as Figure
from odkit.sheets import class_color as class_color

KIND_COLORS = {
    "correct": "#7d8894",
    "wrong_class": "#cc79a7",
    "badly_placed": "#56b4e9",
    "both": "#8c6bb1",
    "duplicate": "#f0e442",
    "background": "#e69f00",
    "missed": "#d55e00",
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
    was missed.

    Args:
        dataset: The ground truth.
        predictions: What a detector found in these images.
        images: Indices or ids of the images; `count` of them drawn by `seed` where not given.
        score: Score a prediction needs to be shown.
        count: How many, where `images` is not given.
        seed: Seed of the draw.

    Raises:
        ValueError: The class tables differ by name, or the predictions are of other images.
    """
    chosen = _choose(dataset, images, count, seed)
    part = dataset.select(chosen)
    found = predictions.for_dataset(dataset).for_dataset(part).above(score)
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
            name = "" if rows.stop - rows.start > _CROWDED else _name(part, found.classes[row]) + " "
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
        for row in np.flatnonzero(kinds.boxes[boxes] == "missed") + boxes.start:
            tally["missed"] += 1
            label = f"missed {_name(data, data.box_classes[row])}"
            panel.box(data.boxes[row], KIND_COLORS["missed"], label, style="--", width=1.8)
        seen += tally
        wrong = ", ".join(f"{number} {_words(kind)}" for kind, number in tally.most_common() if kind in KINDS)
        panel.title(_short(data.image_ids[image]), wrong or "no mistake")
    return sheet.finish([Patch(color=KIND_COLORS[k], label=_words(k)) for k in KIND_COLORS if k in seen])


@styled
def show_suspects(found: Mistakes, *, count: int = 8, columns: int = 4) -> Figure:
    """The labels that are most probably wrong: the label dashed, what the detector sees solid.

    Args:
        found: Mistakes of a detector, best on images it was not trained on.
        count: How many suspects, the most suspicious first.
        columns: Images side by side.
    """
    suspects, data = found.suspects[:count], found.dataset
    sheet = Sheet(data, [suspect.image for suspect in suspects], columns)
    for panel, suspect in zip(sheet.panels, suspects, strict=True):
        if suspect.box >= 0:
            label = f"labelled {_name(data, data.box_classes[suspect.box])}"
            panel.box(data.boxes[suspect.box], KIND_COLORS["missed"], label, style="--", width=1.8)
        if suspect.suggestion is not None:
            panel.box(np.array(suspect.suggestion), CLASS_COLORS[5], f"{suspect.class_name}?", width=1.8)
        panel.title(f"{suspect.kind.replace('_', ' ')} ({suspect.score:.2f})", _short(suspect.image_id))
    dashed = Line2D([], [], color=KIND_COLORS["missed"], linestyle="--", label="the label")
    return sheet.finish([dashed, Line2D([], [], color=CLASS_COLORS[5], label="what the detector sees")])


def _draw_truth(panel: Panel, dataset: Dataset, image: int) -> int:
    rows = dataset.boxes_of(image)
    boxes, classes = dataset.boxes[rows], dataset.box_classes[rows]
    for box, label in zip(boxes, classes.tolist(), strict=True):
        panel.box(box, class_color(label), "" if len(boxes) > _CROWDED else _name(dataset, label))
    return len(boxes)


def _reason(found: Mistakes, row: int) -> str:
    data, kind = found.dataset, found.kinds.predictions[row]
    guess = f"{_name(data, found.predictions.classes[row])} {found.predictions.scores[row]:.2f}"
    if kind in ("wrong_class", "both"):
        return f"{guess}, is {_name(data, data.box_classes[found.kinds.box_of[row]])}"
    return "" if kind == "correct" else guess


def _choose(dataset: Dataset, images: Sequence[int | str] | None, count: int, seed: int) -> list[int]:
    if images is None:
        return sorted(np.random.default_rng(seed).permutation(len(dataset))[:count].tolist())
    chosen = [dataset.index_of(image) if isinstance(image, str) else int(image) for image in images]
    for index in chosen:
        if not -len(dataset) <= index < len(dataset):
            raise IndexError(f"{dataset.name} has images 0 to {len(dataset) - 1}, not {index}")
    return [index % len(dataset) for index in chosen]


def _class_legend(dataset: Dataset, *classes: NDArray[Any]) -> list[Artist]:
    used = sorted({int(label) for part in classes for label in np.unique(part)})
    if len(used) > 10:  # more than a line of names helps nobody
        return []
    return [Patch(facecolor=class_color(k), label=shorten(_name(dataset, k), 20)) for k in used]


def _name(dataset: Dataset, label: int) -> str:
    return dataset.class_names[label] if label >= 0 else "unknown"


def _words(kind: str) -> str:
    return {"both": "wrong class and place", "background": "nothing there"}.get(kind, kind.replace("_", " "))


def _short(image_id: str) -> str:
    return PurePosixPath(image_id).name


# -- training ------------------------------------------------------------------------------------------------------


@styled
def training_curves(history: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Loss, AP and learning rate by epoch.

    Args:
        history: One mapping an epoch, as `run.history()` gives: "epoch" (or "step"), "loss", "ap", "ap50",
            "learning_rate"; what is missing or None is left out.
        title: Heading of the figure.
    """
    figure, (loss, accuracy, rate) = _charts(3, title)
    _line(loss, history, "loss", CLASS_COLORS[3], "loss")
    _heading(loss, "Training loss", history)
    loss.set_ylim(bottom=0)
    for key, label, color in (("ap", "AP", CLASS_COLORS[0]), ("ap50", "AP50", CLASS_COLORS[5])):
        _line(accuracy, history, key, color, label)
    best = max((row for row in history if _given(row, "ap")), key=lambda row: float(row["ap"]), default=None)
    if best is not None:
        x, y = _at(best), float(best["ap"])
        accuracy.plot([x], [y], "o", color=CLASS_COLORS[0], markersize=6)
        accuracy.annotate(
            f"best {y:.3f}", (x, y), (0, -13), textcoords="offset points", ha="center", color=INK
        )
        accuracy.legend(loc="lower right")
    _heading(accuracy, "Validation accuracy", history)
    accuracy.set_ylim(0, 1)
    _line(rate, history, "learning_rate", CLASS_COLORS[2], "learning rate")
    _heading(rate, "Learning rate", history)
    rate.set_ylim(bottom=0)
    return figure


@styled
def compare_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str = "") -> Figure:
    """Loss, AP and AP50 of several runs in one picture.

    Args:
        runs: Name of each run to its history (see `training_curves`).
        title: Heading of the figure.
    """
    figure, axes = _charts(3, title, legend=True)
    everything = [row for history in runs.values() for row in history]
    for axis, key, heading in zip(
        axes, ("loss", "ap", "ap50"), ("Training loss", "Validation AP", "Validation AP50"), strict=True
    ):
        for index, (name, history) in enumerate(runs.items()):
            _line(axis, history, key, class_color(index), name)
        _heading(axis, heading, everything)
        axis.set_ylim(0, None if key == "loss" else 1)
    handles = [Line2D([], [], color=class_color(k), label=name) for k, name in enumerate(runs)]
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 5) or 1)
    return figure


def _charts(count: int, title: str, *, legend: bool = False) -> tuple[Figure, NDArray[Any]]:
    figure = Figure(figsize=(10, 3.0 + 0.3 * bool(title) + 0.3 * legend), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure, figure.subplots(1, count)


def _heading(axis: Axes, title: str, history: Sequence[Mapping[str, Any]]) -> None:
    axis.set_title(title)
    axis.set_xlabel("epoch" if any(_given(row, "epoch") for row in history) or not history else "step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y")
    if not axis.lines:
        axis.text(0.5, 0.5, "nothing recorded yet", transform=axis.transAxes, ha="center", color=QUIET)
        axis.set_xticks([])
        axis.set_yticks([])


def _line(axis: Axes, history: Sequence[Mapping[str, Any]], key: str, color: str, label: str) -> None:
    points = [(_at(row), float(row[key])) for row in history if _given(row, key)]
    if points:
        x, y = zip(*points, strict=True)
        axis.plot(x, y, color=color, label=label, marker="o" if len(points) < 2 else "")


def _at(row: Mapping[str, Any]) -> float:
    return float(row["epoch"] if _given(row, "epoch") else row.get("step", 0))


def _given(row: Mapping[str, Any], key: str) -> bool:
    value = row.get(key)
    return value is not None and math.isfinite(float(value))


# -- evaluation ----------------------------------------------------------------------------------------------------


@styled
def precision_recall(evaluation: Evaluation) -> Figure:
    """Precision against recall of every class at IoU 0.5, with the point of the best F1 and its score threshold.

    With more than ten classes the five best and the five worst are named, the others drawn thin.
    """
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    recall = np.linspace(0.01, 1, 200)
    for f1 in (0.2, 0.4, 0.6, 0.8):  # all points of one F1
        shown = recall > f1 / (2 - f1)
        axes.plot(
            recall[shown], f1 * recall[shown] / (2 * recall[shown] - f1), color=GRID, linewidth=1, zorder=0
        )
        axes.text(1.0, f1 / (2 - f1), f" F1 {f1:g}", color=QUIET, fontsize=7, va="center")
    ranked = [
        k
        for k in np.argsort(-evaluation.class_ap50, kind="stable")
        if not math.isnan(evaluation.class_ap50[k])
    ]
    named = ranked if len(ranked) <= 10 else ranked[:5] + ranked[-5:]
    for k in ranked[::-1]:
        curve = evaluation.curves[evaluation.class_names[k]]
        color, width = (class_color(int(k)), 1.8) if k in named else ("#c3c9d0", 0.8)
        some = curve.recall > 0
        axes.plot(
            curve.recall[some], curve.precision[some], color=color, linewidth=width, drawstyle="steps-pre"
        )
        if k in named and some.any():
            best = curve.f1.argmax()
            axes.plot(
                curve.recall[best], curve.precision[best], "o", color=color, markeredgecolor="white", ms=7
            )
    handles = [
        Line2D(
            [],
            [],
            color=class_color(k),
            marker="o",
            markeredgecolor="white",
            label=_pr_label(evaluation, int(k)),
        )
        for k in named
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside right upper", title="class, AP50, best score", alignment="left"
        )
    else:
        axes.text(0.5, 0.5, "no ground truth to measure on", ha="center", color=QUIET)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        xlabel="recall",
        ylabel="precision",
        title="Precision and recall at IoU 0.5",
    )
    return figure


def _pr_label(evaluation: Evaluation, k: int) -> str:
    name = evaluation.class_names[k]
    best = evaluation.curves[name].best_score
    return f"{shorten(name, 18)}  {evaluation.class_ap50[k]:.2f}" + (
        "" if math.isnan(best) else f"  at {best:.2f}"
    )


@styled
def confusion_matrix(evaluation: Evaluation, *, iou: float = 0.5, score: float | None = None) -> Figure:
    """What is there (rows) against what was predicted (columns), shaded by the share of the row, with the counts.

    Args:
        evaluation: What to show.
        iou: IoU a pair needs.
        score: Score a prediction needs to count; the one with the best F1 where not given.
    """
    matrix = evaluation.confusion_matrix(iou, score)
    counts, size = matrix.counts, len(matrix.names)
    share = matrix.share
    side = min(max(0.55 * size, 3.2), 11)
    figure = Figure(figsize=(side + 1.9, side + 1.0), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if size <= 26:
        for row in range(size):
            for column in range(size):
                if counts[row, column]:
                    ink = "#ffffff" if share[row, column] > 0.55 else INK
                    font = 9 if size <= 12 else 6
                    axes.text(
                        column,
                        row,
                        f"{counts[row, column]:,}",
                        ha="center",
                        va="center",
                        color=ink,
                        fontsize=font,
                    )
    else:
        axes.text(
            0, -0.01, "counts left out: too many classes", transform=axes.transAxes, va="top", color=QUIET
        )
    names = [shorten(name, 18) for name in matrix.names[:-1]]
    turned, font = size > 6, 9 if size <= 26 else 6
    axes.set_xticks(range(size), [*names, "missed"], rotation=90 if turned else 0, fontsize=font)
    axes.set_yticks(range(size), [*names, "nothing"], fontsize=font)
    axes.axhline(size - 1.5, color=QUIET, linewidth=0.8)
    axes.axvline(size - 1.5, color=QUIET, linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="is really")
    axes.set_title(f"Confusion at score {matrix.score:.2f}, IoU {matrix.iou:g}")
    return figure


@styled
def per_class_ap(evaluations: Evaluation | Mapping[str, Evaluation], *, most: int = 40) -> Figure:
    """AP of every class as bars with AP50 as a dot, the best class first; one or several evaluations side by side.

    Args:
        evaluations: One, or several by name ("before", "after") on datasets with the same classes.
        most: Classes shown; with more, the best and the worst of the first evaluation.
    """
    several = {"": evaluations} if isinstance(evaluations, Evaluation) else dict(evaluations)
    first = next(iter(several.values()))
    values = [
        dict(zip(e.class_names, zip(e.class_ap, e.class_ap50, strict=True), strict=True))
        for e in several.values()
    ]
    order = np.argsort(-np.nan_to_num(first.class_ap, nan=-1), kind="stable")
    names = [first.class_names[k] for k in order]
    left_out = max(len(names) - most, 0)
    if left_out:
        names = names[: most // 2] + names[len(names) - (most - most // 2) :]
    bar = 0.8 / len(several)
    figure = Figure(
        figsize=(7.5, 0.9 + max(len(names), 1) * (0.2 + 0.2 * len(several)) + 0.35), layout="constrained"
    )
    axes = figure.subplots()
    for number, table in enumerate(values):
        for row, name in enumerate(names):
            ap, ap50 = table.get(name, (math.nan, math.nan))
            y = row + (number - (len(several) - 1) / 2) * bar
            color = class_color(number) if len(several) > 1 else class_color(first.class_names.index(name))
            if math.isnan(ap):
                axes.text(0.005, y, "— no ground truth", va="center", color=QUIET, fontsize=8)
                continue
            axes.barh(y, ap, height=bar * 0.9, color=color)
            axes.plot(ap50, y, "o", color="white", markeredgecolor=INK, markersize=5)
            axes.text(
                ap + 0.008, y, f"{ap:.2f}", va="center", fontsize=8, color=INK
            ) if ap50 - ap > 0.07 else None
    axes.set_yticks(range(len(names)), [shorten(name, 24) for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.set_title("AP by class" + (f" ({left_out} classes in the middle left out)" if left_out else ""))
    handles: list[Any] = [
        Line2D([], [], linestyle="", marker="o", color="white", markeredgecolor=INK, label="AP50")
    ]
    if len(several) > 1:
        handles = [
            Patch(color=class_color(k), label=f"AP {name}") for k, name in enumerate(several)
        ] + handles
    else:
        handles = [Patch(color=QUIET, label="AP"), *handles]
    figure.legend(handles=handles, loc="outside lower left", ncols=4)
    return figure


@styled
def mistake_costs(found: Mistakes) -> Figure:
    """How many mistakes of each kind there are, and the AP50 that putting all of a kind right would win."""
    figure = Figure(figsize=(9, 3.1), layout="constrained")
    count, cost = figure.subplots(1, 2, sharey=True)
    kinds = list(KINDS)
    colors = [KIND_COLORS[kind] for kind in kinds]
    for axes, values, title, form in (
        (
            count,
            [found.counts[kind] for kind in kinds],
            f"Mistakes at score {found.score:.2f} and above",
            "{:,}",
        ),
        (
            cost,
            [found.costs[kind] for kind in kinds],
            f"AP50 they cost (AP50 is {found.evaluation.ap50:.3f})",
            "{:.3f}",
        ),
    ):
        bars = axes.barh(range(len(kinds)), values, color=colors)
        axes.bar_label(bars, [form.format(value) for value in values], padding=3)
        axes.margins(x=0.15)
        axes.set_title(title)
        axes.set_yticks(range(len(kinds)), [_words(kind) for kind in kinds])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    count.invert_yaxis()
    return figure


@styled
def mistakes_by_class(found: Mistakes, *, most: int = 30) -> Figure:
    """What became of every box of each class, and what else was predicted of it: one bar of kinds a class.

    Args:
        found: The mistakes to show.
        most: Classes shown, those with most mistakes first.
    """
    table = sorted(found.by_class(), key=lambda row: -sum(row[kind] for kind in KINDS))
    shown = [row for row in table if row["boxes"] or any(row[kind] for kind in KINDS)][:most]
    figure = Figure(figsize=(8.5, 1.3 + 0.32 * max(len(shown), 1)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(shown))
    for kind in ("correct", *KINDS):
        values = np.array([row[kind] for row in shown], float)
        axes.barh(
            range(len(shown)), values, left=left, height=0.7, color=KIND_COLORS[kind], label=_words(kind)
        )
        left += values
    axes.set_yticks(range(len(shown)), [shorten(row["group"], 24) for row in shown])
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("missed boxes, and predictions")
    axes.set_title(f"Right and wrong by class at score {found.score:.2f} and above")
    figure.legend(loc="outside lower left", ncols=4)
    return figure


@styled
def comparison_bars(comparison: Comparison, *, most: int = 30) -> Figure:
    """Change of AP50 from the first to the second evaluation, all classes and each, with its 95% interval.

    Args:
        comparison: What `compare` found.
        most: Classes shown, those that changed most first.
    """
    judged = [row for row in comparison.per_class if not math.isnan(row["difference"])]
    judged = sorted(judged, key=lambda row: -abs(row["difference"]))[:most]
    judged = [
        {"class": "all classes", **{k: getattr(comparison, k) for k in ("difference", "low", "high")}},
        *judged,
    ]
    figure = Figure(figsize=(7.5, 1.1 + 0.34 * len(judged)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(judged):
        color = CLASS_COLORS[2] if row["low"] > 0 else CLASS_COLORS[3] if row["high"] < 0 else QUIET
        width = 3.2 if place == 0 else 1.8
        axes.plot(
            [row["low"], row["high"]], [place, place], color=color, linewidth=width, solid_capstyle="butt"
        )
        axes.plot(row["difference"], place, "o", color=color, markeredgecolor="white", markersize=8)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(judged)), [shorten(row["class"], 24) for row in judged])
    axes.set_ylim(len(judged) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:+.2f}" if abs(value) > 1e-9 else "0")
    )
    axes.set_title("Change of AP50 (green: better, red: worse, grey: too close to call)")
    return figure


# -- the dataset ---------------------------------------------------------------------------------------------------


@styled
def class_distribution(dataset: Dataset, *, most: int = 40) -> Figure:
    """Number of boxes of each class, most frequent first, coloured by split.

    Args:
        dataset: What to show.
        most: Classes shown; the rarest beyond it are counted in the title.
    """
    splits = list(dataset.split_counts()) or [""]
    if "" in set(dataset.image_splits) and splits != [""]:
        splits.append("")
    known = dataset.box_classes >= 0
    of_box = dataset.image_splits[dataset.box_images]
    counts = np.stack(
        [
            np.bincount(dataset.box_classes[known & (of_box == split)], minlength=len(dataset.class_names))
            for split in splits
        ]
    )
    order = np.argsort(-counts.sum(0), kind="stable")
    shown = order[:most]
    figure = Figure(figsize=(7.5, 1.1 + 0.32 * max(len(shown), 1)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(shown))
    for index, split in enumerate(splits):
        axes.barh(
            range(len(shown)),
            counts[index, shown],
            left=left,
            height=0.7,
            color=class_color(index),
            label=split or "no split",
        )
        left += counts[index, shown]
    total = max(int(counts.sum()), 1)
    for row, k in enumerate(shown):
        boxes = int(counts[:, k].sum())
        axes.text(boxes, row, f"  {boxes:,}  ({boxes / total:.1%})", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [shorten(dataset.class_names[k], 24) for k in shown])
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    more = f", {len(order) - most} rarer classes left out" if len(order) > most else ""
    axes.set_title(f"Boxes by class: {int(counts.sum()):,} in {len(dataset):,} images{more}")
    if splits != [""]:
        figure.legend(loc="outside lower left", ncols=len(splits))
    return figure


@styled
def box_sizes(dataset: Dataset, *, most: int = 5000, seed: int = 0) -> Figure:
    """Width against height of the boxes, and how large they are beside their images.

    Args:
        dataset: What to show.
        most: Boxes drawn in the left chart; of more, a draw by `seed`.
        seed: Seed of that draw.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    sides, shares = figure.subplots(1, 2)
    extent = dataset.boxes[:, 2:] - dataset.boxes[:, :2]
    good = np.flatnonzero((extent > 0).all(1) & np.isfinite(extent).all(1))
    drawn = np.random.default_rng(seed).permutation(good)[:most]
    colors = [class_color(int(k)) for k in dataset.box_classes[drawn]]
    sides.scatter(extent[drawn, 0], extent[drawn, 1], s=9, c=colors, alpha=0.55, linewidths=0)
    low, high = (float(extent[good].min()), float(extent[good].max())) if len(good) else (10.0, 100.0)
    low, high = max(low, 0.1) / 1.3, high * 1.3
    for side, name in ((32, "32 x 32"), (96, "96 x 96")):  # COCO's borders between small, medium and large
        if low < side < high:
            edge = np.geomspace(low, high, 50)
            sides.plot(edge, side**2 / edge, color=QUIET, linewidth=0.8, linestyle="--")
            place = min(high, side**2 / low)
            sides.annotate(
                f"{name} ", (place, side**2 / place), color=QUIET, fontsize=7, ha="right", va="bottom"
            )
    sides.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    sides.set(xlabel="width in pixels", ylabel="height in pixels")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axis in (sides.xaxis, sides.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(NullFormatter())
    sides.set_title("Width and height" + (f" ({most:,} of {len(good):,} boxes)" if len(good) > most else ""))
    size = dataset.image_sizes[dataset.box_images[good]].astype(np.float64)
    seen = (size > 0).all(1)
    share = np.sqrt(extent[good][seen].prod(1) / size[seen].prod(1))
    bins = np.linspace(0, max(float(share.max(initial=0.01)), 0.01), 41)
    order = np.argsort(
        -np.bincount(dataset.box_classes[good] + 1, minlength=len(dataset.class_names) + 1)[1:], kind="stable"
    )
    shown = [int(k) for k in order[:8] if (dataset.box_classes[good] == k).any()]
    for k in shown:
        of_class = dataset.box_classes[good][seen] == k
        shares.hist(
            share[of_class],
            bins=bins,
            histtype="step",
            linewidth=1.8,
            color=class_color(k),
            label=shorten(_name(dataset, k), 20),
        )
    shares.set(xlabel="box side as a share of the image's (root of the areas)", ylabel="boxes")
    shares.set_title(
        "Size beside the image"
        + (f" (the {len(shown)} most frequent classes)" if len(dataset.class_names) > 8 else "")
    )
    shares.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    shares.grid(axis="y")
    if shown:
        shares.legend()
    if not len(good):
        sides.text(0.5, 0.5, "no boxes", transform=sides.transAxes, ha="center", color=QUIET)
    return figure
