"""Images that are nearly the same: the same shot saved twice, resized, re-encoded, brightened, or the next of a burst.

On two sides of a split they make a detector look better than it is, so `Dataset.with_splits` deals them to one, and the
audit lists those that a dataset's own splits have. Copies with equal pixels are among them, and say so: the audit has
those of one split as well, `repaired()` takes those of two splits apart.
"""

from dataclasses import dataclass

from odkit.data.dataset import Dataset
from odkit.data.image_facts import inspect_images
from odkit.data.similarity import SIMILARITY, similar_pairs


@dataclass(frozen=True)
class SimilarPair:
    """Two images that look the same; `similarity` is the correlation of their grey thumbnails, up to 1.

    `equal` where every pixel is the same: one is a copy of the other.
    """

    similarity: float
    first: int
    second: int
    first_id: str
    second_id: str
    first_split: str
    second_split: str
    equal: bool = False

    @property
    def across_splits(self) -> bool:
        return self.first_split != self.second_split

    def __str__(self) -> str:
        where = f"{self.first_split or 'no split'} and {self.second_split or 'no split'}"
        alike = "equal pixels" if self.equal else f"{self.similarity:.3f}"
        return f"{self.first_id} and {self.second_id} ({where}): {alike}"


def near_duplicates(dataset: Dataset, *, similarity: float = SIMILARITY) -> list[SimilarPair]:
    """Pairs of images that look the same, those in two splits first, then the most similar.

    Difference hashes pick the candidates, the correlation of 32 x 32 grey thumbnails decides; see `similarity.py`.
    Images without contrast and files that cannot be read are left out. Of an image that resembles hundreds of others
    (a still camera's), only the pairs with the 64 likest later ones are listed. Every image is decoded once; an
    earlier audit or deal has done that already.

    Args:
        dataset: The images to look at; its boxes play no part.
        similarity: Correlation a pair needs, 0 to 1.
    """
    facts = inspect_images(dataset.image_paths.tolist(), decode=True, label="looking for near-duplicates")
    ids, splits = dataset.image_ids, dataset.image_splits
    pairs = [
        SimilarPair(
            similarity=value,
            first=first,
            second=second,
            first_id=ids[first],
            second_id=ids[second],
            first_split=splits[first],
            second_split=splits[second],
            equal=facts[first].pixels == facts[second].pixels != b"",
        )
        for first, second, value in zip(
            *(column.tolist() for column in similar_pairs([f.look for f in facts], similarity)), strict=True
        )
    ]
    return sorted(pairs, key=lambda pair: (not pair.across_splits, -pair.similarity, pair.first, pair.second))
