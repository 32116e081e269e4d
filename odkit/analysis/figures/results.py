"""Figures of results: precision and recall, calibration, confusion, mistakes, comparisons."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from odkit.analysis.calibration import Calibration
from odkit.analysis.comparison import Comparison
from odkit.analysis.evaluation import Evaluation
from odkit.analysis.figures.colors import CLASS_COLORS, KIND_COLORS, class_color
from odkit.analysis.figures.grid import (
    GRID,
    INK,
    QUIET,
    Figure,
    in_words,
    shorten,
    styled,
)
from odkit.analysis.tide import KINDS, Mistakes

_MANY_CLASSES = 15  # from which on a figure of them must be sparing


def _whose(evaluation: Evaluation) -> str:
    """The end of a title: of which split's images a figure is; "" where they are of several or of none."""
    return f", {evaluation.split} images" if evaluation.split else ""


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
        title=f"Precision and recall at IoU 0.5{_whose(evaluation)}",
    )
    return figure


def _pr_label(evaluation: Evaluation, k: int) -> str:
    name = evaluation.class_names[k]
    best = evaluation.curves[name].best_score
    return f"{shorten(name, 18)}  {evaluation.class_ap50[k]:.2f}" + (
        "" if math.isnan(best) else f"  at {best:.2f}"
    )


@styled
def calibration(measured: Evaluation | Calibration) -> Figure:
    """The share of right predictions against their score: on the diagonal scores mean what they say.

    The black curve is of all classes together; points of fewer than ten predictions are hollow, and those of a class
    are left out. With more than six classes those are named that most of the error comes from, the others drawn thin.
    The bars below say how many predictions have which score.

    Args:
        measured: An evaluation, or what its `calibration()` measured with other bins, IoU or lowest score.
    """
    found = measured.calibration() if isinstance(measured, Evaluation) else measured
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--", zorder=1)
    places = {
        (0.03, 0.97, "top", "left"): "scores are too low",
        (0.97, 0.03, "bottom", "right"): "scores are too high",
    }
    for (x, y, vertical, horizontal), said in places.items():
        axes.text(x, y, said, color=QUIET, fontsize=8, va=vertical, ha=horizontal)
    bins, classes = found.counts.shape[1], len(found.class_names) - 1
    # a class alone is the black curve already
    several = [k for k in range(classes) if (found.counts[k] >= _SPEAKING).any()] if classes > 1 else []
    ranked = sorted(several, key=lambda k: -found.per_class[k]["error"] * found.per_class[k]["predictions"])
    named = ranked[:6]
    handles = [Line2D([], [], color=INK, marker="o", label=f"all  {_error(found.total)}")]
    for k in ranked[::-1]:
        speaking = found.counts[k] >= _SPEAKING
        color, width = (class_color(k), 1.4) if k in named else ("#c3c9d0", 0.8)
        axes.plot(
            found.mean_scores[k][speaking], found.precision[k][speaking], color=color, linewidth=width,
            marker="o" if k in named else "", markersize=4, markeredgecolor="white",
        )  # fmt: skip
    for k in named:
        label = f"{shorten(found.class_names[k], 18)}  {_error(found.per_class[k])}"
        handles.append(Line2D([], [], color=class_color(k), marker="o", markersize=4, label=label))
    if len(ranked) > len(named):
        handles.append(
            Line2D([], [], color="#c3c9d0", linewidth=0.8, label=f"{len(ranked) - len(named)} others")
        )
    score, right, counts = found.mean_scores[-1], found.precision[-1], found.counts[-1]
    speaking, few = counts >= _SPEAKING, (counts > 0) & (counts < _SPEAKING)
    axes.plot(score[speaking], right[speaking], "o-", color=INK, linewidth=2.4, ms=7, markeredgecolor="white")
    axes.plot(score[few], right[few], "o", color="white", markeredgecolor=INK, markersize=5)
    if not counts.any():
        axes.text(
            0.65, 0.25, f"nothing predicted with a score from {found.least:g} on", ha="center", color=QUIET
        )
        below.set_ylim(0, 1)
    below.bar((np.arange(bins) + 0.5) / bins, found.counts[-1], width=0.9 / bins, color=QUIET)
    for each in (axes, below):
        if found.least:
            each.axvspan(0, found.least, color=GRID, alpha=0.5, linewidth=0, zorder=0)
        each.grid(axis="y")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    below.set(xlabel=f"score (grey: under {found.least:g}, not looked at)" if found.least else "score")
    below.set(xlim=(0, 1), ylabel="predictions")
    axes.set(ylim=(-0.02, 1.02), ylabel=f"share that is right (IoU {found.iou:g})")
    whose = f", {found.data_name}" if found.data_name else ""
    axes.set_title(f"Do scores mean what they say{shorten(whose, 40)}")
    figure.legend(handles=handles, loc="outside right upper", title="calibration error", alignment="left")
    return figure


_SPEAKING = 10  # predictions in a bin from which on a class's share of right ones is drawn


def _error(row: dict[str, Any]) -> str:
    return "" if math.isnan(row["error"]) else f"{row['error']:.2f}"


@styled
def confusion_matrix(
    evaluation: Evaluation, *, iou: float = 0.5, score: float | None = None, most: int = 25
) -> Figure:
    """What is there (rows) against what was predicted (columns), shaded by the share of the row, with the counts.

    Args:
        evaluation: What to show.
        iou: IoU a pair needs.
        score: Score a prediction needs to count; the one with the best F1 where not given.
        most: Classes shown; of more, those that are confused most.
    """
    matrix = evaluation.confusion_matrix(iou, score)
    wrong = matrix.counts - np.diag(np.diag(matrix.counts))
    confused = (wrong.sum(0) + wrong.sum(1))[:-1]  # background always has its row and column
    chosen = [*np.sort(np.argsort(-confused, kind="stable")[:most]).tolist(), len(confused)]
    counts, share, size = (
        matrix.counts[np.ix_(chosen, chosen)],
        matrix.share[np.ix_(chosen, chosen)],
        len(chosen),
    )
    side = min(max(0.55 * size, 3.2), 11)
    figure = Figure(figsize=(side + 1.9, side + 1.0), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    font = 9 if size <= 12 else 7
    for row, column in np.argwhere(counts).tolist():
        ink = "#ffffff" if share[row, column] > 0.55 else INK
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=ink, fontsize=font)
    if not counts.any():
        nothing = "nothing labelled, nothing predicted"
        axes.text(0.5, 0.5, nothing, transform=axes.transAxes, ha="center", va="center", color=QUIET)
    names = [shorten(matrix.names[k], 18) for k in chosen[:-1]]
    axes.set_xticks(range(size), [*names, "missed"], rotation=90 if size > 6 else 0)
    axes.set_yticks(range(size), [*names, "nothing"])
    axes.axhline(size - 1.5, color=QUIET, linewidth=0.8)
    axes.axvline(size - 1.5, color=QUIET, linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="is really")
    some = f"; the {most} classes confused most of {len(confused):,}" if len(confused) > most else ""
    axes.set_title(f"Confusion at score {matrix.score:.2f}, IoU {matrix.iou:g}{_whose(evaluation)}{some}")
    return figure


@styled
def per_class_ap(evaluations: Evaluation | Mapping[str, Evaluation], *, most: int = 40) -> Figure:
    """AP of every class as bars with AP50 as a dot, the best class first; one or several evaluations side by side.

    Args:
        evaluations: One, or several by name ("before", "after") on datasets with the same classes.
        most: Classes shown; with more, the best and the worst of the first evaluation. Of many classes those without
            ground truth are only counted.
    """
    several = {"": evaluations} if isinstance(evaluations, Evaluation) else dict(evaluations)
    first = next(iter(several.values()))
    values = [
        dict(zip(e.class_names, zip(e.class_ap, e.class_ap50, strict=True), strict=True))
        for e in several.values()
    ]
    order = np.argsort(-np.nan_to_num(first.class_ap, nan=-1), kind="stable")
    names = [first.class_names[k] for k in order]
    measured = [name for name in names if any(name in v and not math.isnan(v[name][0]) for v in values)]
    unmeasured = len(names) - len(measured) if len(names) > _MANY_CLASSES else 0
    names = measured if unmeasured else names
    left_out = max(len(names) - most, 0)
    if left_out:
        names = names[: most // 2] + names[len(names) - (most - most // 2) :]
    bar = 0.8 / len(several)
    high = (0.12 + 0.12 * len(several)) if len(names) > _MANY_CLASSES else (0.2 + 0.2 * len(several))
    figure = Figure(figsize=(7.5, 1.25 + max(len(names), 1) * high), layout="constrained")
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
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    whose = _whose(first) if {e.split for e in several.values()} == {first.split} else ""
    said = [f"{left_out} classes in the middle left out"] * bool(left_out)
    said += [f"{unmeasured} without ground truth"] * bool(unmeasured)
    axes.set_title(f"AP by class{whose}" + (f" ({', '.join(said)})" if said else ""))
    handles: list[Any] = [
        Line2D([], [], linestyle="", marker="o", color="white", markeredgecolor=INK, label="AP50")
    ]
    if len(several) > 1:
        handles = [
            Patch(color=class_color(k), label=f"AP {name}" + ("" if math.isnan(e.ap) else f": {e.ap:.3f}"))
            for k, (name, e) in enumerate(several.items())
        ] + handles
    else:
        handles = [Patch(color=QUIET, label="AP"), *handles]
    figure.legend(handles=handles, loc="outside lower left", ncols=4)
    return figure


@styled
def mistake_costs(found: Mistakes) -> Figure:
    """How many mistakes of each kind there are at a score, and the AP50 that putting all of a kind right would win.

    The two sides look at different predictions, and say so: the left one at those from the score on, as whoever uses
    the detector at that score meets them, the right one at all, as AP50 does. An object that is missed on the left and
    found with a lower score is no mistake on the right; it is the pale part of its bar.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    count, cost = figure.subplots(1, 2, sharey=True)
    kinds, rows = list(KINDS), range(len(KINDS))
    colors = [KIND_COLORS[kind] for kind in kinds]
    counts, costs = [found.counts[kind] for kind in kinds], [found.costs[kind] for kind in kinds]
    bars = count.barh(rows, counts, color=colors)
    count.bar_label(bars, [f"{value:,}" for value in counts], padding=3)
    later = found.found_later
    if later:
        miss = kinds.index("Miss")
        count.barh(miss, -later, left=counts[miss], color="#ffffff", alpha=0.6, hatch="///", edgecolor=QUIET)
        inside = f"{later:,} of them found with a lower score"
        count.text(counts[miss] / 2, miss + 0.52, inside, ha="center", va="top", fontsize=7, color=QUIET)
        count.set_ylim(-0.6, len(kinds) - 0.1)
    count.set_title(f"Mistakes at score {found.score:.2f} and above")
    count.xaxis.set_major_locator(MaxNLocator(integer=True))
    bars = cost.barh(rows, costs, color=colors)
    cost.bar_label(bars, [f"{value:.3f}" for value in costs], padding=3)
    ap50 = found.evaluation.ap50
    cost.set_title("AP50 they cost, over all scores")
    if not math.isnan(ap50):
        cost.set_xlabel(f"AP50 is {ap50:.3f}{_whose(found.evaluation)}")
    for axes, values in ((count, counts), (cost, costs)):
        axes.set_yticks(rows, [in_words(kind) for kind in kinds])
        axes.margins(x=0.15)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        if not any(values):
            axes.set_xticks([])
            axes.set_xlim(0, 1)
    if not found.evaluation.class_boxes.any():
        cost.text(
            0.5, 0.5, "no ground truth to measure on", transform=cost.transAxes, ha="center", color=QUIET
        )
    elif not any(counts):
        count.text(0.5, 0.5, "no mistake", transform=count.transAxes, ha="center", color=QUIET)
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
            range(len(shown)), values, left=left, height=0.7, color=KIND_COLORS[kind], label=in_words(kind)
        )
        left += values
    axes.set_yticks(range(len(shown)), [shorten(row["group"], 24) for row in shown])
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("missed boxes, and predictions")
    axes.set_title(f"Right and wrong by class at score {found.score:.2f} and above{_whose(found.evaluation)}")
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
    axes.set_title(
        f"Change of AP50{_whose(comparison.second)} (green: better, red: worse, grey: too close to call)"
    )
    return figure
