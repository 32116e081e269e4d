"""What stands out among many: boxes odd for their class, shares that differ between splits, labels told twice."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkit.data.dataset import UNKNOWN_CLASS, Dataset

_ODD = 3.5  # modified z-scores: Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993
_LEAST_SPREAD = 0.25  # of the logarithms: boxes that are all alike make one a quarter larger no oddity
_LEAST_BOXES = 20  # of a class, from which one can say what is usual in it
_NEIGHBOURS = 64  # boxes that begin at the same place, of which each is compared with so many
_SAME_PLACE = 10_000  # of an image's side: corners that agree to that part of it lie on the same pixel


def odd_in_class(
    suspects: NDArray[np.int64], values: NDArray[Any], classes: NDArray[np.int32], among: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Those of some boxes that lie far from the median of their class: modified z-scores above 3.5.

    Args:
        suspects: Rows of the boxes in question.
        values: A number a box, compared by its logarithm, above 0 where `among` is true, [B].
        classes: Class index of each box, [B].
        among: The boxes of which a class is made, [B]; one of fewer than 20 has nothing odd.
    """
    rows = np.flatnonzero(among & np.isin(classes, classes[suspects])) if len(suspects) else suspects
    # NumPy sorts short integers in linear time
    rows = rows[
        np.argsort(classes[rows].astype(np.min_scalar_type(int(classes.max(initial=0)))), kind="stable")
    ]
    ends = np.flatnonzero(np.diff(classes[rows], append=-1)) + 1
    suspects = suspects[np.argsort(classes[suspects], kind="stable")]
    theirs, odd = classes[suspects], []
    for members in np.split(rows, ends[:-1]):
        if len(members) >= _LEAST_BOXES:
            logs = np.log(values[members])
            centre = np.median(logs)
            spread = max(float(np.median(np.abs(logs - centre))), _LEAST_SPREAD)
            start, stop = (np.searchsorted(theirs, classes[members[0]], side) for side in ("left", "right"))
            asked = suspects[start:stop]
            odd.append(asked[0.6745 * np.abs(np.log(values[asked]) - centre) > _ODD * spread])
    return np.sort(np.concatenate([*odd, suspects[:0]]))


def boxes_told_before(
    corners: NDArray[np.float64], images: NDArray[Any], classes: NDArray[Any], least_iou: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each box the first one before it that is the same: of its class, and of another; -1 for none.

    Equal boxes of a class are found whatever their number. Of others that lie so close that hundreds begin at one
    place, each is compared with the nearest from left to right and from top to bottom: the time is linear in the boxes.

    Args:
        corners: Boxes with an area, their corners in order, [B, 4].
        images: Image of each, [B].
        classes: Class of each, [B].
        least_iou: Boxes that overlap by more (intersection over union) are the same.
    """
    none = len(corners)
    one, told = np.full(none, none), np.full(none, none)
    places = _first_equal([images, *corners.T])
    first = _first_equal([places, classes])
    # of boxes at one place, the first of each class; and of many classes the first two, which tell the others
    rows = np.flatnonzero(first == np.arange(none))
    extra = _ranks(places[rows]) >= 2
    told[rows[extra]] = places[rows[extra]]
    rows = rows[~extra]
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    for side in (0, 1):
        # Overlapping by more than t leaves less than 1 - t of a box's width between the two left edges, so that each
        # box meets only its next few neighbours from left to right; nobody compares all pairs of an image.
        rows = rows[np.lexsort((corners[rows, side], images[rows]))]
        image, kind, area, edges = images[rows], classes[rows], areas[rows], corners[rows].T.copy()
        reach = edges[side] + (1 - least_iou) * (edges[2 + side] - edges[side])
        left = np.arange(len(rows))
        for step in range(1, _NEIGHBOURS + 1):
            left = left[: np.searchsorted(left, len(rows) - step)]
            left = left[(image[left] == image[left + step]) & (edges[side, left + step] <= reach[left])]
            if not len(left):
                break
            right = left + step
            across, down = (
                np.minimum(edges[2 + i, left], edges[2 + i, right])
                - np.maximum(edges[i, left], edges[i, right])
                for i in (0, 1)
            )
            both = across.clip(0) * down.clip(0)
            same = both > least_iou * (area[left] + area[right] - both)
            a, b = left[same], right[same]
            before, after = np.minimum(rows[a], rows[b]), np.maximum(rows[a], rows[b])
            agree = kind[a] == kind[b]
            np.minimum.at(one, after[agree], before[agree])
            np.minimum.at(told, after[~agree], before[~agree])
        rows = rows[np.isin(image, image[left])]  # where more lie than were compared, also from top to bottom
    repeats = first != np.arange(none)
    one[repeats] = np.minimum(first, one[first])[repeats]
    return np.where(one < none, one, -1), np.where(told < none, told, -1)


def _first_equal(columns: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """For each row of some columns the first row that is equal, itself as a rule."""
    hashes = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        bits = column.astype(np.float64).view(np.uint64)  # numbers of rows and of pixels, which are exact so
        hashes = _mixed(hashes ^ bits)
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))
    first = np.empty(len(order), np.int64)
    first[order] = np.repeat(order[starts], np.diff(starts, append=len(order)))
    return first


def _ranks(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many rows before each are of its group."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return ranks


def same_label_sets(dataset: Dataset, least: int) -> list[list[int]]:
    """Groups of images that have the same boxes and classes, to the pixel, at least so many boxes each.

    Corners are compared as parts of the image's sides, for a YOLO file that is copied fits an image of any size.
    """
    boxes, images = dataset.boxes, dataset.box_images
    if not len(boxes):
        return []
    sizes = np.maximum(dataset.image_sizes[images], 1)  # of unknown size: pixels
    with np.errstate(invalid="ignore", over="ignore"):
        places = np.nan_to_num(
            np.rint(boxes / np.tile(sizes, 2).astype(np.float64) * _SAME_PLACE), posinf=0, neginf=0
        )
        places = np.clip(places, -(2**40), 2**40).astype(np.int64)
    # a hash a box and, whatever their order, the sum an image: among a million images two are equal by chance once in
    # tens of millions of datasets
    hashes = _mixed(dataset.box_classes.astype(np.int64).view(np.uint64))
    for side in range(4):
        hashes = _mixed(hashes ^ places[:, side].view(np.uint64))
    first = np.flatnonzero(np.diff(images, prepend=-1))
    totals, counts = np.add.reduceat(hashes, first), np.diff(first, append=len(images))
    owners, totals = images[first][counts >= least], totals[counts >= least]
    order = np.argsort(totals, kind="stable")
    groups = np.split(owners[order], np.flatnonzero(np.diff(totals[order])) + 1)
    return sorted(group.tolist() for group in groups if len(group) > 1)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer: S. Vigna, public domain, 2015."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def class_shares(dataset: Dataset, splits: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each class's share of the boxes in the first split and in each other, and how far apart the two are.

    Only classes that have boxes in both count; the others have shares of 0. The distance is in standard errors. The
    boxes of an image go together, so that the error is that of images drawn, not of boxes drawn (a ratio estimate:
    W. G. Cochran, "Sampling Techniques", 1977, chapter 6).

    Returns:
        Shares [S - 1, 2, K], in the first split and in the other; distances [S - 1, K].
    """
    known = dataset.box_classes != UNKNOWN_CLASS
    size = len(dataset.class_names)
    places = dataset.box_images[known].astype(np.int64) * size + dataset.box_classes[known]
    cells, counts = np.unique(places, return_counts=True)
    owner, kind = np.divmod(cells, max(size, 1))
    inside = [(dataset.image_splits == split)[owner] for split in splits]
    boxes = np.array([np.bincount(kind[mask], counts[mask], size) for mask in inside])
    shares, distances = np.zeros((len(splits) - 1, 2, size)), np.zeros((len(splits) - 1, size))
    for row in range(1, len(splits)):
        both = boxes[[0, row]] * (boxes[[0, row]] > 0).all(0)
        totals = np.maximum(both.sum(1), 1)
        shares[row - 1] = both / totals[:, None]
        pooled, variance = both.sum(0) / totals.sum(), np.zeros(size)
        for mask, total in zip((inside[0], inside[row]), totals.tolist(), strict=True):
            here = mask & (both[0] > 0)[kind]
            count = counts[here].astype(np.float64)
            whole = np.bincount(owner[here], count)  # boxes of each image
            squares = np.bincount(kind[here], count**2, size)
            mixed = np.bincount(kind[here], count * whole[owner[here]], size)
            # the sum over the images of (boxes of the class - pooled share * boxes) squared
            variance += (squares - 2 * pooled * mixed + pooled**2 * (whole**2).sum()) / total**2
        distances[row - 1] = np.abs(np.diff(shares[row - 1], axis=0)[0]) / np.sqrt(
            np.maximum(variance, 1e-300)
        )
    return shares, distances
