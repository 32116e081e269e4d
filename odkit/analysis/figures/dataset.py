"""Figures of a dataset: classes and box sizes."""

from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from odkit.analysis.figures.colors import class_color
from odkit.analysis.figures.grid import QUIET, Figure, class_name, shorten, styled
from odkit.data import Dataset

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
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    more = f", {len(order) - most} rarer classes left out" if len(order) > most else ""
    axes.set_title(f"Boxes by class: {int(counts.sum()):,} in {len(dataset):,} images{more}")
    if splits != [""]:
        figure.legend(loc="outside lower left", ncols=len(splits))
    return figure


@styled
def box_sizes(dataset: Dataset, *, most: int = 5000, seed: int = 0) -> Figure:
    """Width against height of the boxes, and how large they are beside their images.

    The left chart spans what all but a few boxes are; those few that are far smaller or larger stand as crosses at its
    edge, and are counted in its title.

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
    low, high = _span(extent[good])
    odd = ((extent[good] < low) | (extent[good] > high)).any(1)
    near = drawn[((extent[drawn] >= low) & (extent[drawn] <= high)).all(1)]
    far = good[odd][:most]
    low, high = low / 1.3, high * 1.3
    colors = [class_color(int(k)) for k in dataset.box_classes[near]]
    sides.scatter(extent[near, 0], extent[near, 1], s=9, c=colors, alpha=0.55, linewidths=0)
    colors = [class_color(int(k)) for k in dataset.box_classes[far]]
    edge = np.clip(extent[far], low * 1.06, high / 1.06)
    sides.scatter(edge[:, 0], edge[:, 1], s=28, c=colors, marker="x", linewidths=1.2)
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
    some = f"{most:,} of {len(good):,} boxes" if len(good) > most else ""
    beyond = f"{int(odd.sum())} far beyond, x at the edge" if odd.any() else ""
    said = ", ".join(filter(None, (some, beyond)))
    sides.set_title("Width and height" + (f" ({said})" if said else ""))
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
            label=shorten(class_name(dataset, k), 20),
        )
    shares.set(xlabel="box side as a share of the image's (root of the areas)", ylabel="boxes")
    shares.set_title(
        "Size beside the image"
        + (f" (the {len(shown)} most frequent classes)" if len(dataset.class_names) > 8 else "")
    )
    shares.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    shares.yaxis.set_major_locator(MaxNLocator(integer=True))
    shares.grid(axis="y")
    if shown:
        shares.legend()
    if not len(good):
        sides.text(0.5, 0.5, "no boxes", transform=sides.transAxes, ha="center", color=QUIET)
    return figure


def _span(extent: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """The shortest and the longest side to draw, in pixels: one box in a hundred may lie beyond, by a factor of 2."""
    if not len(extent):
        return 10.0, 100.0
    shortest, longest = np.sort(extent.min(1)), np.sort(extent.max(1))
    few = max(len(extent) // 100, 1) if len(extent) >= 20 else 0
    low = shortest[shortest >= shortest[few] / 2][0]
    high = longest[longest <= longest[-1 - few] * 2][-1]
    return max(float(low), 0.1), float(high)
