"""Large images seen as overlapping tiles: where they lie, which boxes are in them, and what was found, merged again.

Slicing as in SAHI (Akyon et al., 2022, arXiv:2202.06934): a detector is trained on tiles and looks at tiles, each
resized as a whole image would be, so that small objects keep their pixels. Tiles are squares in pixels of the original
image, moved inwards at its border, and overlap so far that most boxes lie whole in one of them.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from odkit.data import Dataset, long_sides
from odkit.system import InputError

SMALLEST_TILE = 64  # pixels
OVERLAP_BOXES = 0.9  # the overlap of tiles is as long as this share of the boxes ...
OVERLAPS = (1 / 8, 1 / 2)  # ... and between these shares of a tile
INSIDE = 0.4  # a box belongs to a tile with this share of its area, cut at the tile's border
SAME = 0.5  # overlap (IoU; where one is cut: share of the smaller) from which two tiles mean the same object
CUT_TRUST = 0.5  # factor on the score of an object cut by a tile's border that no other tile confirms
MOST_FOUND = 1000  # in an image; evaluation takes the best 100 of each class by itself

Boxes = NDArray[np.float32]
Found = tuple[Boxes, NDArray[np.float32], NDArray[np.int32]]


class Tiling(NamedTuple):
    """How images are cut into tiles."""

    size: int  # side of a tile in pixels of the original image
    overlap: int  # pixels that neighbouring tiles share at least
    whole: bool  # whether the whole image is looked at as well, for what is larger than the overlap


class Views(NamedTuple):
    """What a detector is shown of a dataset, in the order of its images: tiles, and images as a whole."""

    images: NDArray[np.int64]  # [V] the image's index
    parts: NDArray[np.int64]  # [V, 4] xyxy in pixels of the original; all 0: the image, whatever its size
    tiles: NDArray[
        np.bool_
    ]  # [V] True: scaled as tiles are; False: a whole image, fitted into the input size


class Seen(NamedTuple):
    """What was found in one view of an image."""

    part: NDArray[np.int64]  # [4] the view, xyxy in pixels of the original
    tile: bool  # as in Views
    found: Found  # boxes in pixels of the original
    pixel: float  # pixels of the original for a pixel that the detector saw


# -- cutting -----------------------------------------------------------------------------------------------------------


def fitting_tiling(dataset: Dataset, size: int) -> Tiling:
    """Tiles of `size` pixels that overlap as a dataset's boxes want it.

    Raises:
        InputError: The tiles are too small.
    """
    if size < SMALLEST_TILE:
        raise InputError(f"tiles must have {SMALLEST_TILE} pixels or more, not {size}")
    sides = long_sides(dataset)
    wanted = float(np.quantile(sides, OVERLAP_BOXES)) if len(sides) else 0.0
    overlap = math.ceil(min(max(wanted, size * OVERLAPS[0]), size * OVERLAPS[1]))
    return Tiling(size, overlap, bool((sides > overlap).any()))


@cache
def tile_grid(width: int, height: int, size: int, overlap: int) -> NDArray[np.int64]:
    """Tiles that cover an image, row after row: xyxy in pixels [T, 4]; none is larger than the image."""
    xs, ys = (_starts(side, size, overlap) for side in (width, height))
    top_left = np.stack([np.tile(xs, len(ys)), np.repeat(ys, len(xs))], 1)
    grid = np.concatenate([top_left, np.minimum(top_left + size, [width, height])], 1)
    grid.setflags(write=False)  # shared by all images of that size
    return grid


def _starts(side: int, size: int, overlap: int) -> NDArray[np.int64]:
    """Where tiles begin along a side: evenly, the first at 0 and the last ending at the side's end."""
    if side <= size:
        return np.zeros(1, np.int64)
    count = math.ceil((side - overlap) / (size - overlap))
    return np.arange(count) * (side - size) // (count - 1)


def make_views(dataset: Dataset, tiling: Tiling | None) -> Views:
    """The views of all images, image after image; images of unknown size are seen whole."""
    images = np.arange(len(dataset))
    if tiling is None:
        return Views(images, np.zeros((len(images), 4), np.int64), np.zeros(len(images), bool))
    parts, tiles = [np.zeros((0, 4), np.int64)], [np.zeros(0, bool)]
    for width, height in dataset.image_sizes.tolist():
        known = width > 0 and height > 0
        grid = tile_grid(width, height, tiling.size, tiling.overlap) if known else np.zeros((0, 4), np.int64)
        whole = not known or (tiling.whole and len(grid) > 1)
        parts.append(np.concatenate([grid, [[0, 0, width, height]]]) if whole else grid)
        tiles.append(np.arange(len(parts[-1])) < len(grid))
    counts = [len(part) for part in parts[1:]]
    return Views(np.repeat(images, counts), np.concatenate(parts), np.concatenate(tiles))


def boxes_inside(
    boxes: Boxes, parts: NDArray[np.int64], tiles: NDArray[np.bool_], tiling: Tiling
) -> NDArray[np.bool_]:
    """Which boxes [n, 4] of an image belong to which of its views (rows of `Views`), bool [views, n].

    To a tile belongs what is in it by `INSIDE` of its area; to the whole image beside its tiles only what is large
    enough to be told there, half the overlap or more: tiles have the rest.
    """
    boxes = boxes.astype(np.float64)
    cut = boxes.clip(np.tile(parts[:, None, :2], 2), np.tile(parts[:, None, 2:], 2))  # [views, n, 4]
    area, inside = ((some[..., 2:] - some[..., :2]).clip(0).prod(-1) for some in (boxes, cut))
    large = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) >= tiling.overlap / 2
    within: NDArray[np.bool_] = (inside > 0) & (inside >= INSIDE * area)
    return np.where(tiles[:, None], within, large)


# -- merging -----------------------------------------------------------------------------------------------------------


def merge_views(seen: Sequence[Seen], width: int, height: int, tiling: Tiling) -> Found:
    """What was found in the views of an image as one list, the surest first, at most `MOST_FOUND`.

    Class by class, the surest first, each takes out what means the same object in *another* view (what one view
    tells apart stays apart). An object cut by a tile's inner border gives way to the neighbour's that has it whole,
    even if that is less sure by half; two pieces cut by the borders of two tiles become the box around both; a piece
    that nobody confirms counts half. Of the whole image counts what the overlap of the tiles cannot hold.

    Args:
        seen: The views.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        tiling: How the image was cut.
    """
    columns = []
    for view, (part, tile, (boxes, scores, classes), pixel) in enumerate(seen):
        rows = slice(None) if tile else (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) > tiling.overlap
        cut = _cut(boxes, part, width, height, pixel) if tile else np.zeros(len(boxes), bool)
        views = np.full(len(boxes), view)
        columns.append(tuple(column[rows] for column in (boxes, scores, classes, cut, views)))
    boxes, scores, classes, cut, views = (np.concatenate(column) for column in zip(*columns, strict=True))
    keep = ~(cut | _seen_twice(boxes, views, np.stack([view.part for view in seen])))
    for label in np.unique(classes):
        _merge_class(boxes, scores, cut, views, np.flatnonzero((classes == label) & ~keep), keep)
    order = np.flatnonzero(keep)
    order = order[np.argsort(-scores[order], kind="stable")][:MOST_FOUND]
    return boxes[order], scores[order], classes[order]


def _seen_twice(boxes: Boxes, views: NDArray[np.int64], parts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which boxes reach into another view that found something: most lie in one tile alone, and are done with."""
    others = np.unique(views)
    starts, ends = (side(boxes[:, None], parts[others]) for side in (np.maximum, np.minimum))
    shared = ends[..., 2:] > starts[..., :2]
    reach: NDArray[np.bool_] = (shared.all(2) & (views[:, None] != others)).any(1)
    return reach


def _cut(boxes: Boxes, part: NDArray[np.int64], width: int, height: int, pixel: float) -> NDArray[np.bool_]:
    """Which boxes end at a border of the tile that is none of the image: within 2 pixels of the detector's, or 5 %."""
    near = 2 * pixel + 0.05 * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    inner = part != [0, 0, width, height]
    touching: NDArray[np.bool_] = ((np.abs(boxes - part) <= near) & inner).any(1)
    return touching


def _merge_class(
    boxes: Boxes,
    scores: NDArray[np.float32],
    cut: NDArray[np.bool_],
    views: NDArray[np.int64],
    rows: NDArray[np.int64],
    keep: NDArray[np.bool_],
) -> None:
    """Merge the rows of one class in place: `keep`, and boxes and scores of pieces."""
    left = rows[np.argsort(-scores[rows] * np.where(cut[rows], CUT_TRUST, 1), kind="stable")]
    while len(left):
        best, left = left[0], left[1:]
        keep[best], confirmed, growing = True, not cut[best], True
        while growing:  # once more where the box has grown
            starts, ends = (side(boxes[left], boxes[best]) for side in (np.maximum, np.minimum))
            shared = (ends[:, 2:] - starts[:, :2]).clip(0).prod(1)
            areas = (boxes[left, 2:] - boxes[left, :2]).prod(1)
            own = (boxes[best, 2:] - boxes[best, :2]).prod()
            same = shared > SAME * (own + areas - shared)
            piece = cut[left] & (shared > SAME * (np.minimum(own, areas) if cut[best] else areas))
            same, piece = (found & (views[left] != views[best]) for found in (same, piece))
            pieces, left = left[piece], left[~(same | piece)]
            growing = bool(cut[best] and len(pieces))
            if growing:
                boxes[best, :2] = np.minimum(boxes[best, :2], boxes[pieces, :2].min(0))
                boxes[best, 2:] = np.maximum(boxes[best, 2:], boxes[pieces, 2:].max(0))
                scores[best] = max(scores[best], scores[pieces].max())
                confirmed = True
        if not confirmed:
            scores[best] *= CUT_TRUST
