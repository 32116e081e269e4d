"""Whether two formats in one folder say the same: their pictures and boxes held against each other, as columns."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from odkit.data.dataset import Dataset
from odkit.data.formats.reader_base import Gathered, name_of
from odkit.system import counted

NEAR = 0.999
"""Boxes are the same whose edges lie less than this apart, in pixels: formats of whole pixels round, or cut off."""
_CROWDED = (
    1000  # boxes of one class in one picture; above, boxes are held against each other in their order alone
)
_BLOCK = 1 << 20  # pairs of boxes at once

_Rows = NDArray[np.int64]


class Labels:
    """What one format says, as columns.

    Attributes:
        title: Name of the format, for people.
        data: Its images and boxes.
        named: Which images it speaks of, bool [N]: not those that are listed and have no label file.
        keys: What tells an image from all others whichever format names it: its path, or its name if it is not there.
        has_names: Whether its class names are its own, not made up.
    """

    def __init__(self, title: str, gathered: Gathered) -> None:
        self.title = title
        self.data: Dataset = gathered.dataset(title)
        self.named = np.ones(len(self.data), bool)
        self.named[list(gathered.bare)] = False
        there = set(gathered.folder.images)
        pairs = zip(gathered.paths, self.data.image_paths.tolist(), strict=True)
        self.keys = [whole if path in there else name_of(path) for path, whole in pairs]
        self.has_names = gathered.named_classes

    def box(self, row: int) -> str:
        """A box in words."""
        corners = ", ".join(f"{value:.6g}" for value in self.data.boxes[row].tolist())
        label = int(self.data.box_classes[row])
        name = self.data.class_names[label] if label >= 0 else "of an unknown class"
        return f"{self.data.box_ids[row]}: {name} ({corners})"


@dataclass(frozen=True)
class Agreement:
    """Two formats held against each other.

    Attributes:
        first: One of them.
        second: The other.
        pictures: How many images both speak of.
        boxes: How many boxes each has in those.
        alone: How many of these boxes have no partner in the other format.
        examples: Some of them: rows of `first`'s boxes, rows of `second`'s.
        lone: Images with boxes that only one of them speaks of: rows of `first`, rows of `second`.
        shift: How far `second`'s left and top, and right and bottom edges lie beyond `first`'s, in pixels: -1, 0 or 1,
            the same for every box. It tells how pixels are counted (from 0 or from 1), not where objects are.
        crowds: How many crowds of `first` were left out of it: formats without crowds often leave them out.
        apart: Largest distance between edges of the same box beside that, in pixels.
        splits: Rows of `first`'s images that are in another split in `second`, and the rows there.
        keys: What each side's images were told by.
        by_name: Whether those are file names alone, as the two name copies of the same images.
    """

    first: Labels
    second: Labels
    pictures: int
    boxes: tuple[int, int]
    alone: tuple[int, int]
    examples: tuple[_Rows, _Rows]
    lone: tuple[_Rows, _Rows]
    shift: tuple[int, int]
    crowds: int
    apart: float
    splits: tuple[_Rows, _Rows]
    keys: tuple[list[str], list[str]]
    by_name: bool

    @property
    def same(self) -> bool:
        """Whether `second` says nothing that `first` does not say too."""
        return self.pictures > 0 and not (any(self.alone) or len(self.lone[1]) or len(self.splits[0]))

    @property
    def convention(self) -> str:
        """How the pixels of the two are counted, in words; "" where they are counted alike."""
        moved = [
            f"all {edges} edges of {self.second.title} lie 1 pixel further {where[by < 0]}"
            for edges, where, by in (
                ("left and top", ("right and down", "left and up"), self.shift[0]),
                ("right and bottom", ("right and down", "left and up"), self.shift[1]),
            )
            if by
        ]
        return f"{' and '.join(moved)}, which is how pixels are counted (from 1 or from 0)" if moved else ""

    def differences(self) -> list[str]:
        """How the two differ, in numbers and with an example of each kind."""
        both, lines = (self.first, self.second), []
        for one, rows in zip(both, self.lone, strict=True):
            if len(rows):
                boxes = int(one.data.boxes_per_image()[rows].sum())
                lines.append(
                    f"labelled in {one.title} alone: {counted(len(rows), 'image')} with {counted(boxes, 'box')}, "
                    f"{one.data.image_ids[rows[0]]} for one"
                )
        if any(self.alone):
            counts = " and ".join(f"{n:,} in {one.title}" for n, one in zip(self.boxes, both, strict=True))
            alone = " and ".join(
                f"{n:,} in {one.title} alone" for n, one in zip(self.alone, both, strict=True) if n
            )
            lines.append(f"of the boxes in the {counted(self.pictures, 'image')} of both ({counts}): {alone}")
            lines.append(f"  {self._example()}")
            lines += self._class_names()
        rows, others = self.splits
        if len(rows):
            was, now = self.first.data.image_splits[rows[0]], self.second.data.image_splits[others[0]]
            lines.append(
                f"in different splits: {counted(len(rows), 'image')}, {self.first.data.image_ids[rows[0]]} for one, "
                f"{was} in {self.first.title} and {now} in {self.second.title}"
            )
        return lines or ["they name no image in common"]

    def _example(self) -> str:
        """The first box without a partner, with what the other format has there."""
        side = 0 if len(self.examples[0]) else 1
        one, other = (self.first, self.second) if side == 0 else (self.second, self.first)
        keys, others = self.keys if side == 0 else self.keys[::-1]
        row = int(self.examples[side][0])
        image = int(one.data.box_images[row])
        there = others.index(keys[image])
        rows = self.examples[1 - side]
        rows = rows[other.data.box_images[rows] == there]
        told = "no such box"
        if len(rows):
            gaps = np.abs(other.data.boxes[rows] - one.data.boxes[row]).max(1)
            told = other.box(int(rows[gaps.argmin()]))
        return f"{one.data.image_ids[image]}: {one.title}, {one.box(row)}; {other.title}, {told}"

    def _class_names(self) -> list[str]:
        """The class names that only one of them uses."""
        lines = []
        if self.first.has_names and self.second.has_names:
            for one, other in ((self.first, self.second), (self.second, self.first)):
                used = [name for name, count in one.data.class_counts().items() if count]
                alone = [repr(name) for name in used if name not in other.data.class_names]
                if alone:
                    lines.append(f"the class names {', '.join(alone[:5])} are in {one.title} alone")
        return lines


def compare(first: Labels, second: Labels) -> Agreement:
    """Hold two formats of one folder against each other. No image is opened.

    Boxes are partners that are of one image and one class (by name) and whose edges lie less than `NEAR` apart, after
    the one shift of all edges that is only a way to count pixels.
    """
    one, other = first.data, second.data
    keys, by_name = _common_keys(first.keys, second.keys)
    place = {key: row for row, key in enumerate(keys[1])}
    to_second = np.array([place.get(key, -1) for key in keys[0]], np.int64)
    both = (to_second >= 0) & first.named & np.append(second.named, False)[to_second]
    to_first = np.full(len(other) + 1, -1, np.int64)
    to_first[to_second[both]] = np.flatnonzero(both)
    to_first = to_first[:-1]
    lone = (
        np.flatnonzero(~both & first.named & (one.boxes_per_image() > 0)),
        np.flatnonzero((to_first < 0) & second.named & (other.boxes_per_image() > 0)),
    )
    rows = np.flatnonzero(both[one.box_images]), np.flatnonzero(to_first[other.box_images] >= 0)
    names = {name: k for k, name in enumerate(dict.fromkeys((*one.class_names, *other.class_names)))}
    images = one.box_images.astype(np.int64), to_first[other.box_images]
    groups = [side * (len(names) + 1) for side in images]
    if first.has_names and second.has_names:
        groups = [
            group + _shared_classes(data, names) for group, data in zip(groups, (one, other), strict=True)
        ]

    def matched() -> _Partners:
        return _partners(one.boxes[rows[0]], other.boxes[rows[1]], groups[0][rows[0]], groups[1][rows[1]])

    found = matched()
    lost = rows[0][found.examples[0]]
    crowds = lost[one.box_crowd[lost]] if not other.box_crowd.any() else lost[:0]
    if len(crowds):
        rows = np.setdiff1d(rows[0], crowds), rows[1]
        found = matched()
    known = np.flatnonzero(both)
    was, now = one.image_splits[known], other.image_splits[to_second[known]]
    moved = known[(was != now) & (was != "") & (now != "")]
    return Agreement(
        first,
        second,
        pictures=len(known),
        boxes=(len(rows[0]), len(rows[1])),
        alone=found.alone,
        examples=(rows[0][found.examples[0]], rows[1][found.examples[1]]),
        lone=lone,
        shift=found.shift,
        crowds=len(crowds),
        apart=found.apart,
        splits=(moved, to_second[moved]),
        keys=keys,
        by_name=by_name,
    )


def _common_keys(first: list[str], second: list[str]) -> tuple[tuple[list[str], list[str]], bool]:
    """What tells images apart on both sides: paths; or, if none is common, as one side has copies, their names."""
    if set(first).isdisjoint(second):
        names = [name_of(key) for key in first], [name_of(key) for key in second]
        if all(len(set(side)) == len(side) for side in names) and not set(names[0]).isdisjoint(names[1]):
            return names, True
    return (first, second), False


def _shared_classes(data: Dataset, names: dict[str, int]) -> _Rows:
    table = np.array([*(names[name] for name in data.class_names), len(names)], np.int64)  # -1: unknown
    return table[data.box_classes]  # of each box


# -- partners --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Partners:
    shift: tuple[int, int]
    apart: float
    alone: tuple[int, int]
    examples: tuple[_Rows, _Rows]


def _partners(a: NDArray[np.float32], b: NDArray[np.float32], group_a: _Rows, group_b: _Rows) -> _Partners:
    """Which boxes have a partner among those of their group (an image and a class) on the other side.

    Who converts boxes keeps their order, so they are first held against each other one by one; only where that fails
    is each box of a group held against each.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    _, inverse = np.unique(np.concatenate([group_a, group_b]), return_inverse=True)
    ga, gb = inverse[: len(a)], inverse[len(a) :]
    count = int(inverse.max(initial=-1)) + 1
    na, nb = np.bincount(ga, minlength=count), np.bincount(gb, minlength=count)
    order_a, order_b = np.argsort(ga, kind="stable"), np.argsort(gb, kind="stable")
    even = na == nb
    in_order = order_a[even[ga[order_a]]], order_b[even[gb[order_b]]]
    gaps = b[in_order[1]] - a[in_order[0]]
    shift = _common_shift(gaps[:, :2]), _common_shift(gaps[:, 2:])
    by = np.repeat(np.array(shift, np.float64), 2)
    off = np.abs(gaps - by).max(1, initial=0)
    wrong = ~even
    wrong[ga[in_order[0][off >= NEAR]]] = True
    best_a, best_b = np.where(wrong[ga], np.inf, 0.0), np.where(wrong[gb], np.inf, 0.0)
    best_a[in_order[0]] = best_b[in_order[1]] = off
    crowded = np.maximum(na, nb) > _CROWDED
    starts = np.cumsum(na) - na, np.cumsum(nb) - nb
    for i, j in _pairs(np.flatnonzero(wrong & ~crowded & (na > 0) & (nb > 0)), (na, nb), starts):
        rows_a, rows_b = order_a[i], order_b[j]
        gap = np.abs(b[rows_b] - a[rows_a] - by).max(1)
        np.minimum.at(best_a, rows_a, gap)
        np.minimum.at(best_b, rows_b, gap)
    lone_a, lone_b = best_a >= NEAR, best_b >= NEAR
    # Of boxes drawn twice on one side and once on the other, each has a partner: there the numbers tell
    spare = (na - nb) - (np.bincount(ga[lone_a], minlength=count) - np.bincount(gb[lone_b], minlength=count))
    return _Partners(
        shift,
        float(np.concatenate([best_a[~lone_a], best_b[~lone_b]]).max(initial=0)),
        (int(lone_a.sum() + spare[spare > 0].sum()), int(lone_b.sum() - spare[spare < 0].sum())),
        (np.flatnonzero(lone_a | (spare > 0)[ga]), np.flatnonzero(lone_b | (spare < 0)[gb])),
    )


def _common_shift(gaps: NDArray[np.float64]) -> int:
    """The whole number of pixels, -1 to 1, by which most edges lie further on."""
    return max((0, 1, -1), key=lambda by: int((np.abs(gaps - by) < 0.5).sum()))


def _pairs(
    groups: _Rows, counts: tuple[_Rows, _Rows], starts: tuple[_Rows, _Rows]
) -> Iterator[tuple[_Rows, _Rows]]:
    """Every pair of boxes of each group, as places in the order of groups on either side, some groups at a time."""
    sizes = counts[0][groups] * counts[1][groups]
    block = np.cumsum(sizes) // _BLOCK
    for number in np.unique(block).tolist():
        chosen = block == number
        owner = np.repeat(groups[chosen], sizes[chosen])
        ends = np.cumsum(sizes[chosen])
        place = np.arange(len(owner)) - np.repeat(ends - sizes[chosen], sizes[chosen])
        across = counts[1][owner]
        yield starts[0][owner] + place // across, starts[1][owner] + place % across
