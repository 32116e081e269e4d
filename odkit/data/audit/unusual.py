"""What stands out among many: boxes odd for their class, shares that differ between splits, labels told twice."""

import numpy as np
from numpy.typing import NDArray

from odkit.data.dataset import UNKNOWN_CLASS, Dataset

_ODD = 3.5  # modified z-scores: Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993
_LEAST_SPREAD = 0.25  # of the logarithms: boxes that are all alike make one a quarter larger no oddity
_LEAST_BOXES = 20  # of a class, from which one can say what is usual in it
_SAME_PLACE = 10_000  # of an image's side: corners that agree to that part of it lie on the same pixel


def odd_in_class(
    values: NDArray[np.float64], classes: NDArray[np.int32], among: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which boxes lie far from the median of their class, by modified z-scores above 3.5, [B].

    Args:
        values: A number a box, above 0, compared by its logarithm, [B].
        classes: Class index of each box, [B].
        among: The boxes that count, [B]; a class of fewer than 20 has nothing odd.
    """
    rows = np.flatnonzero(among & (classes != UNKNOWN_CLASS))
    odd = np.zeros(len(values), bool)
    logs, number = np.log(values[rows]), classes[rows]
    counts = np.bincount(number, minlength=1)
    distance = np.abs(logs - _medians(logs, number, counts)[number])
    spread = np.maximum(_medians(distance, number, counts), _LEAST_SPREAD)
    odd[rows] = (0.6745 * distance > _ODD * spread[number]) & (counts[number] >= _LEAST_BOXES)
    return odd


def _medians(
    values: NDArray[np.float64], groups: NDArray[np.int32], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The (lower) median of each group's values, 0 for an empty group."""
    ordered = values[np.lexsort((values, groups))]
    middle = np.cumsum(counts) - counts + np.maximum(counts - 1, 0) // 2
    medians = np.zeros(len(counts))
    medians[counts > 0] = ordered[middle[counts > 0]]
    return medians


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


def class_shares(dataset: Dataset, one: str, other: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each class's share of the boxes in two splits, [2, K], and by how many standard errors they differ, [K].

    The boxes of an image go together, so that the error is that of images drawn, not of boxes (a ratio estimate:
    W. G. Cochran, "Sampling Techniques", 1977, section 6); a class that differs by chance has 2, hardly ever 4.
    """
    known = dataset.box_classes != UNKNOWN_CLASS
    classes, images = dataset.box_classes[known].astype(np.int64), dataset.box_images[known].astype(np.int64)
    size = len(dataset.class_names)
    per_image = np.bincount(images, minlength=len(dataset)).astype(np.float64)
    cells, counts = np.unique(images * size + classes, return_counts=True)
    owner, kind = np.divmod(cells, max(size, 1))
    inside = [dataset.image_splits == split for split in (one, other)]
    here = [mask[owner] for mask in inside]
    boxes = np.array([np.bincount(kind[mask], counts[mask], size) for mask in here])
    totals = np.array([per_image[mask].sum() for mask in inside])
    pooled = boxes.sum(0) / max(totals.sum(), 1)
    error = np.zeros(size)
    for mask, cell, total in zip(inside, here, totals, strict=True):
        squares = np.bincount(kind[cell], counts[cell].astype(np.float64) ** 2, size)
        mixed = np.bincount(kind[cell], counts[cell] * per_image[owner[cell]], size)
        # sum over the images of (boxes of the class - pooled share * boxes) squared
        spread = squares - 2 * pooled * mixed + pooled**2 * (per_image[mask] ** 2).sum()
        error += spread / max(total, 1) ** 2
    shares = boxes / np.maximum(totals, 1)[:, None]
    return shares, np.abs(shares[0] - shares[1]) / np.sqrt(np.maximum(error, 1e-300))
