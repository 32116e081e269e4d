"""The figure of a benchmark: speed, memory and AP of detectors side by side."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from odkit.analysis.figures.colors import CLASS_COLORS
from odkit.analysis.figures.grid import INK, QUIET, Figure, shorten, styled
from odkit.detection import Benchmark, Measured, in_figures
from odkit.system import machine

_DARK, _PALE = CLASS_COLORS[0], "#9cc8e4"


@styled
def benchmark(found: Benchmark, *, title: str = "") -> Figure:
    """Latency, pictures a second, memory and, where it is known, AP of each detector, a row each.

    Args:
        found: What `od.benchmark` measured; rows that could not be measured are left out.
        title: Heading of the figure; "": the machine's name.
    """
    rows = [row for row in found.rows if row.latency is not None]
    panels = [_latency, _pace, _memory] + [_ap] * any(row.ap is not None for row in rows)
    figure = Figure(figsize=(2.3 * len(panels) + 1.4, 1.55 + 0.42 * max(len(rows), 1)), layout="constrained")
    figure.suptitle(
        title or f"On {found.machine}" + " (busy with other things too)" * bool(found.unquiet),
        x=0.01,
        ha="left",
        fontsize=10,
        fontweight="bold",
    )
    if not rows:
        axes = figure.subplots()
        axes.text(0.5, 0.5, "nothing was measured", transform=axes.transAxes, ha="center", color=QUIET)
        axes.set_axis_off()
        return figure
    all_axes: Sequence[Axes] = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, draw in zip(all_axes, panels, strict=True):
        draw(axes, rows)
        axes.set_xlim(0, axes.get_xlim()[1] * 1.22)  # room for the figures at the bars' ends
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=4)
    all_axes[0].set_yticks(range(len(rows)), [shorten(row.name, 28) for row in rows])
    all_axes[0].set_ylim(len(rows) - 0.5, -0.5)
    handles = [
        Patch(color=_DARK, label="the network alone; one picture at a time"),
        Patch(color=_PALE, label="with all around it; at the best batch size"),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure


def _latency(axes: Axes, rows: Sequence[Measured]) -> None:
    medians = [row.latency.median for row in rows if row.latency]
    p95 = [row.latency.p95 for row in rows if row.latency]
    network = [
        min(row.network.median, middle) if row.network else 0
        for row, middle in zip(rows, medians, strict=True)
    ]
    _bars(axes, medians, _PALE, in_figures, beside=p95)
    axes.barh(range(len(rows)), network, height=0.62, color=_DARK)
    axes.hlines(range(len(rows)), medians, p95, color=INK, linewidth=1)
    axes.plot(p95, range(len(rows)), "|", color=INK, markersize=7)
    axes.set_title("Latency, ms (line: to p95)")


def _pace(axes: Axes, rows: Sequence[Measured]) -> None:
    best = [row.best for row in rows]
    values = [pace.images_per_second if pace else 0 for pace in best]
    _bars(axes, values, _PALE, in_figures)
    axes.barh(range(len(rows)), [row.paces[0].images_per_second for row in rows], height=0.62, color=_DARK)
    axes.set_title("Pictures a second")


def _memory(axes: Axes, rows: Sequence[Measured]) -> None:
    _bars(axes, [row.memory / machine.MB for row in rows], _DARK, lambda value: f"{value:.0f}")
    axes.set_title("Memory, MB")


def _ap(axes: Axes, rows: Sequence[Measured]) -> None:
    values = [row.ap or 0.0 for row in rows]
    _bars(axes, values, _DARK, lambda value: f"{value:.3f}" if value else "not known")
    axes.set_title("AP")


def _bars(
    axes: Axes,
    values: Sequence[float],
    color: str,
    words: Callable[[float], str],
    *,
    beside: Sequence[float] | None = None,
) -> None:
    axes.barh(range(len(values)), values, height=0.62, color=color)
    for row, (value, end) in enumerate(zip(values, beside or values, strict=True)):
        axes.annotate(
            words(value), (end, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
