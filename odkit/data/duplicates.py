"""Images that are nearly the same: the same shot saved twice, resized, re-encoded, brightened, or the next of a burst.

Exact copies are the audit's; these have other bytes. On two sides of a split they make a detector look better than
it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from odkit.data.dataset import Dataset
from odkit.data.images import ImageReadError, open_upright

_SIDE = 16  # the difference hash has 16 x 16 bits
_NEAR_BITS = 48  # of 256: more than that apart are never looked at closely
_DETAIL = 32  # pixels, the side of the grey thumbnail that decides


@dataclass(frozen=True)
class SimilarPair:
    """Two images that look the same; `similarity` is the correlation of their grey thumbnails, up to 1."""

    similarity: float
    first: int
    second: int
    first_id: str
    second_id: str
    first_split: str
    second_split: str

    @property
    def across_splits(self) -> bool:
        return self.first_split != self.second_split

    def __str__(self) -> str:
        where = f"{self.first_split or 'no split'} and {self.second_split or 'no split'}"
        return f"{self.first_id} and {self.second_id} ({where}): {self.similarity:.3f}"


def near_duplicates(dataset: Dataset, *, similarity: float = 0.95) -> list[SimilarPair]:
    """Pairs of images that look the same, those in two splits first, then the most similar.

    Difference hashes (N. Krawetz, "Kind of Like That", 2013) pick the candidates, the correlation of 32 x 32 grey
    thumbnails decides. Images without contrast and files that cannot be read are left out. The work grows with the
    square of the number of images: some seconds for ten thousand, beside the time to open them.

    Args:
        dataset: The images to look at; its boxes play no part.
        similarity: Correlation a pair needs, 0 to 1.
    """
    index, bits, detail = _describe(dataset)
    pairs = []
    for row, others in _near(bits):
        likeness = detail[others] @ detail[row]
        for other, value in zip(
            others[likeness >= similarity].tolist(), likeness[likeness >= similarity], strict=True
        ):
            first, second = int(index[row]), int(index[other])
            pairs.append(
                SimilarPair(
                    similarity=min(float(value), 1.0),
                    first=first,
                    second=second,
                    first_id=dataset.image_ids[first],
                    second_id=dataset.image_ids[second],
                    first_split=dataset.image_splits[first],
                    second_split=dataset.image_splits[second],
                )
            )
    return sorted(pairs, key=lambda pair: (not pair.across_splits, -pair.similarity, pair.first, pair.second))


def _describe(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.float32]]:
    """Index [M], hash [M, 4] and normalised thumbnail [M, 1024] of every image that can be read and has contrast."""
    index, bits, detail = [], [], []
    for image, path in enumerate(dataset.image_paths):
        try:
            grey = open_upright(path, draft=("L", (4 * _DETAIL, 4 * _DETAIL))).convert("L")
        except ImageReadError:  # the audit's to name
            continue
        small = np.asarray(grey.resize((_DETAIL, _DETAIL), Image.Resampling.BOX), np.float32).ravel()
        steps = np.asarray(grey.resize((_SIDE + 1, _SIDE), Image.Resampling.BOX), np.int16)
        spread = float(small.std())
        if spread < 2:  # grey levels of 255: an empty picture resembles every other
            continue
        index.append(image)
        bits.append(np.packbits(np.diff(steps, axis=1) > 0).view(np.uint64))
        detail.append((small - small.mean()) / (spread * np.sqrt(small.size)))
    return (
        np.array(index, np.int64),
        np.array(bits, np.uint64).reshape(-1, _SIDE * _SIDE // 64),
        np.array(detail, np.float32).reshape(-1, _DETAIL**2),
    )


def _near(bits: NDArray[np.uint64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each row and the later rows whose hash is near."""
    for row in range(len(bits) - 1):
        distance = np.bitwise_count(bits[row + 1 :] ^ bits[row]).sum(1)
        others = np.flatnonzero(distance <= _NEAR_BITS) + row + 1
        if len(others):
            yield row, others
