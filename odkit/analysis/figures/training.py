"""Figures of training: curves of one run or of several, and what more images would give."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from odkit.analysis.figures.colors import CLASS_COLORS, class_color
from odkit.analysis.figures.grid import INK, QUIET, Figure, styled
from odkit.analysis.learning_curve import FARTHEST, LearningCurve

# -- training ------------------------------------------------------------------------------------------------------


@styled
def training_curves(history: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Loss, AP and learning rate by epoch.

    Args:
        history: One mapping an epoch, as `run.history()` gives: "epoch" (or "step"), "loss", "ap", "ap50",
            "learning_rate"; what is missing or None is left out. One epoch makes no curve, so it is written out.
        title: Heading of the figure.
    """
    figure, (loss, accuracy, rate) = _charts(3, title)
    _line(loss, history, "loss", CLASS_COLORS[3], "loss")
    _heading(loss, "Training loss", history)
    loss.set_ylim(bottom=0)
    for key, label, color in (("ap", "AP", CLASS_COLORS[0]), ("ap50", "AP50", CLASS_COLORS[5])):
        _line(accuracy, history, key, color, label)
    best = max((row for row in history if _given(row, "ap")), key=lambda row: float(row["ap"]), default=None)
    if best is not None and accuracy.lines:
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
        beside = any(sum(_given(row, key) for row in history) > 1 for history in runs.values())
        for index, (name, history) in enumerate(runs.items()):
            _line(axis, history, key, class_color(index), name, dot=beside)
        _heading(axis, heading, everything)
        axis.set_ylim(0, None if key == "loss" else 1)
    handles = [Line2D([], [], color=class_color(k), label=name) for k, name in enumerate(runs)]
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 5) or 1)
    return figure


@styled
def learning_curve(curve: LearningCurve) -> Figure:
    """AP against the number of training images, with intervals, and the power law through it, dashed where it guesses.

    Args:
        curve: What `odkit.learning_curve` measured.
    """
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    blue, present = CLASS_COLORS[0], curve.present
    measured = np.array([point.images for point in curve.points])
    for first, last, style, shade in (
        (measured[0], present, "-", 0.12),
        (present, FARTHEST * present, "--", 0.2),
    ):
        images = np.geomspace(first, last, 60)
        ap, low, high = np.array([curve.predict(float(n)) for n in images]).T
        axes.fill_between(images, low, high, color=blue, alpha=shade, linewidth=0)
        axes.plot(images, ap, style, color=blue, linewidth=1.6)
    aps = np.array([point.ap for point in curve.points])
    below, above = (aps - [p.low for p in curve.points], [p.high for p in curve.points] - aps)
    axes.errorbar(
        measured,
        aps,
        np.clip([below, above], 0, None),
        fmt="o",
        color=INK,
        markersize=6,
        elinewidth=1.4,
        capsize=3,
        zorder=3,
    )
    for point in curve.points:
        if len(point.aps) > 1:
            axes.plot([point.images] * len(point.aps), point.aps, "_", color=INK, markersize=8, zorder=3)
    twice = curve.predict(2 * present)
    axes.plot([2 * present], [twice.ap], "o", color="white", markeredgecolor=blue, markersize=7, zorder=3)
    axes.annotate(
        f"about {twice.ap:.2f}\n({twice.low:.2f} to {twice.high:.2f})",
        (2 * present, twice.low),
        (0, -6),
        textcoords="offset points",
        ha="center",
        va="top",
        color=INK,
    )
    axes.axvline(present, color=QUIET, linewidth=0.8, linestyle=":")
    axes.annotate(
        f" now: {present:,}",
        (present, 1),
        (2, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        color=QUIET,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([*measured.tolist(), 2 * present, FARTHEST * present]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    axes.set_ylim(max(low - 0.03, 0), min(high + 0.03, 1.02))
    axes.grid(axis="y")
    axes.set(xlabel="training images (logarithmic)", ylabel=f"AP on {curve.judged_on:,} validation images")
    axes.set_title(f"What more pictures would give: {curve.name}")
    handles = [
        Line2D([], [], color=INK, marker="o", linestyle="", label="measured, 95% interval"),
        Line2D([], [], color=blue, label="power law"),
        Line2D([], [], color=blue, linestyle="--", label="extrapolated, 95% band"),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=3)
    return figure


@styled
def speed_bars(
    images_per_second: Mapping[str, float], *, title: str = "How fast each detector trains"
) -> Figure:
    """Images a second of each detector as bars, on a logarithmic axis: twice as long is not twice as fast.

    Args:
        images_per_second: Name of each detector to its speed, in the order to show them in.
        title: Heading of the figure.
    """
    figure = Figure(figsize=(7.5, 1.0 + 0.34 * max(len(images_per_second), 1)), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    names, values = list(images_per_second), list(images_per_second.values())
    if not values:
        axes.text(0.5, 0.5, "no detector was measured", transform=axes.transAxes, ha="center", color=QUIET)
        axes.set_axis_off()
        return figure
    bars = axes.barh(range(len(names)), values, height=0.7, color=CLASS_COLORS[0])
    axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=3)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 3, max(values) * 2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("images a second, training")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
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
        if not axis.texts:
            axis.text(0.5, 0.5, "nothing recorded yet", transform=axis.transAxes, ha="center", color=QUIET)
        else:
            axis.set_xlabel("after one epoch")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)


def _line(
    axis: Axes, history: Sequence[Mapping[str, Any]], key: str, color: str, label: str, *, dot: bool = False
) -> None:
    """A curve through what is given; a single value is written out, or a dot where it stands beside curves."""
    points = [(_at(row), float(row[key])) for row in history if _given(row, key)]
    if len(points) == 1 and not dot:
        place = (0.5, 0.62 - 0.14 * len(axis.texts))
        axis.text(*place, f"{label} {points[0][1]:.3g}", transform=axis.transAxes, ha="center", color=color)
    elif points:
        x, y = zip(*points, strict=True)
        axis.plot(x, y, color=color, label=label, marker="o" if len(points) == 1 else "")


def _at(row: Mapping[str, Any]) -> float:
    return float(row["epoch"] if _given(row, "epoch") else row.get("step", 0))


def _given(row: Mapping[str, Any], key: str) -> bool:
    value = row.get(key)
    return value is not None and math.isfinite(float(value))
