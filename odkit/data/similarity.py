"""Which images look the same: the same shot saved twice, resized, re-encoded, brightened, or the next of a burst.

Three sieves over grey thumbnails, each with its reason. A bound on their correlation that needs 65 numbers of an image
leaves few pairs; a difference hash (N. Krawetz, "Kind of Like That", 2013) throws out those that only share light and
shadow, as photographs on one table do; the correlation itself decides.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from odkit.data.image_facts import LOOK_SIDE

SIMILARITY = 0.95
"""Correlation of the thumbnails from which two images look the same.

Seen on photographs: bursts have 0.977 and more, other scenes under the same light 0.94 and less.
"""
MOST_LIKE = (
    64  # later images that count for one, the nearest by hash: a still camera resembles itself endlessly
)
_NEAR_BITS = 45  # of the hash's 240
_LEAST_SPREAD = 2  # standard deviation in grey levels of 255: an empty picture resembles every other
_COARSE = 8  # the side of the thumbnail behind the bound
_AT_ONCE = 1 << 24  # pairs whose bound is held in memory
_IN_A_BLOCK = 512  # images at most
_DIRECTIONS = 8  # along which blocks are told apart


class Pairs(NamedTuple):
    """Pairs of images that look the same, in the order of their rows: `first` < `second`."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: NDArray[np.float64]  # correlation of the thumbnails, up to 1


def similar_pairs(looks: Sequence[bytes], similarity: float = SIMILARITY) -> Pairs:
    """The pairs of images that look the same; those without contrast resemble nothing.

    Images are compared in blocks of like ones, and only with the blocks that are near enough; a comparison is a matrix
    product over 65 numbers an image.

    Args:
        looks: Thumbnail of each image (`ImageFacts.look`), "" where there is none.
        similarity: Correlation a pair needs, up to 1.
    """
    index = np.array([row for row, look in enumerate(looks) if look], np.int64)
    grey = np.frombuffer(b"".join(looks), np.uint8).reshape(len(index), LOOK_SIDE**2)
    coarse, bits, contrast = _described(grey)
    index, grey, coarse, bits = index[contrast], grey[contrast], coarse[contrast], bits[contrast]
    rows, others, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for row, near in _near(coarse, bits, similarity):
        value = _correlation(grey[row], grey[near])
        alike = value >= similarity
        rows.append(np.full(int(alike.sum()), index[row]))
        others.append(index[near[alike]])
        values.append(value[alike])
    first, second, value = np.concatenate(rows), np.concatenate(others), np.concatenate(values)
    order = np.lexsort((second, first))
    return Pairs(first[order], second[order], value[order])


def correlations(look: bytes, others: Sequence[bytes]) -> NDArray[np.float64]:
    """Correlation of a thumbnail with others, [M]; NaN where one has no contrast, and would resemble every other."""
    values = [np.zeros(0)]
    for start in range(0, len(others), 4096):
        some = np.frombuffer(b"".join([look, *others[start : start + 4096]]), np.uint8).reshape(
            -1, LOOK_SIDE**2
        )
        plain = some.std(1) < _LEAST_SPREAD
        with np.errstate(invalid="ignore", divide="ignore"):
            values.append(np.where(plain[0] | plain[1:], np.nan, _correlation(some[0], some[1:])))
    return np.concatenate(values)


def _described(
    grey: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.uint64], NDArray[np.bool_]]:
    """What the sieves need of thumbnails [M, 1024]: bound's vectors [M, 65], hash [M, 4], contrast enough [M]."""
    coarse = np.zeros((len(grey), _COARSE**2 + 1), np.float32)
    bits = np.zeros((len(grey), 32), np.uint8)
    spread = np.zeros(len(grey))
    for start in range(0, len(grey), 4096):
        part = slice(start, start + 4096)
        image = grey[part].astype(np.float32)
        spread[part] = image.std(1)
        image -= image.mean(1, keepdims=True)
        image /= np.maximum(np.linalg.norm(image, axis=1, keepdims=True), 1e-6)
        # the part of a unit vector within the coarse pixels, and the length of what is left: the product of two such
        # rows is the most that the whole vectors' can be
        step = LOOK_SIDE // _COARSE
        inside = image.reshape(-1, _COARSE, step, _COARSE, step).sum((2, 4)).reshape(-1, _COARSE**2) / step
        coarse[part, :-1] = inside
        coarse[part, -1] = np.sqrt(np.clip(1 - (inside**2).sum(1), 0, 1))
        half = LOOK_SIDE // 2
        blocks = grey[part].reshape(-1, half, 2, half, 2).sum((2, 4), dtype=np.int64)
        hashed = np.packbits(np.diff(blocks, axis=2).reshape(-1, half * (half - 1)) > 0, axis=1)
        bits[part, : hashed.shape[1]] = hashed
    return coarse, bits.view(np.uint64), spread >= _LEAST_SPREAD


def _near(
    coarse: NDArray[np.float32], bits: NDArray[np.uint64], similarity: float
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each row and the later rows that may look the same, by the first two sieves; rows come in any order."""
    least = similarity - 1e-4  # float32 rounds
    for block, those in _blocks(coarse, 2 * (1 - least) + 1e-3) if len(coarse) > 1 else ():
        vectors = coarse[those].T
        step = max(_AT_ONCE // max(len(those), 1), 1)
        for start in range(0, len(block), step):
            rows = block[start : start + step]
            for row, bounds in zip(rows.tolist(), coarse[rows] @ vectors, strict=True):
                others = those[np.flatnonzero(bounds >= least)]
                others = others[np.searchsorted(others, row, "right") :]
                if not len(others):
                    continue
                distance = np.bitwise_count(bits[others] ^ bits[row]).sum(1)
                nearest = np.argsort(distance, kind="stable")[:MOST_LIKE]
                others = np.sort(others[nearest[distance[nearest] <= _NEAR_BITS]])
                if len(others):
                    yield row, others


def _blocks(
    coarse: NDArray[np.float32], reach: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All rows [M, 65] in blocks of like ones, each with the rows that may be within `reach` of one of it.

    A product of unit vectors says how far apart they are, and along some directions they are no farther apart. So all
    are halved at the median of the direction in which they differ most, and so on (a k-d tree), and to each part go
    those that are near what it spans. Both kinds of rows rise.

    Args:
        coarse: Unit vectors.
        reach: Square of a distance.
    """
    sample = coarse[:: max(len(coarse) // 10_000, 1)]
    along = coarse @ np.linalg.eigh(sample.T @ sample)[1][:, -_DIRECTIONS:].astype(np.float32)
    todo = [(np.arange(len(coarse)), np.arange(len(coarse)))]
    while todo:
        rows, those = todo.pop()
        span, there = along[rows], along[those]
        apart = np.maximum(there - span.max(0), 0) + np.maximum(span.min(0) - there, 0)
        those = those[np.einsum("ij,ij->i", apart, apart) <= reach]
        if len(rows) <= _IN_A_BLOCK:
            yield rows, those
            continue
        order = np.argpartition(span[:, span.std(0).argmax()], len(rows) // 2)
        middle = len(rows) // 2
        todo += [(rows[np.sort(half)], those) for half in (order[:middle], order[middle:])]


def _correlation(one: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Correlation of a thumbnail [1024] with others [M, 1024], the same to the last bit on every machine."""
    a, b = one.astype(np.int64), others.astype(np.int64)
    cross = a.size * (b @ a) - b.sum(1) * a.sum()
    spread_a = float(a.size * (a @ a) - a.sum() ** 2)
    spread_b = (a.size * (b * b).sum(1) - b.sum(1) ** 2).astype(np.float64)
    correlation: NDArray[np.float64] = np.minimum(cross / np.sqrt(spread_a * spread_b), 1.0)
    return correlation
