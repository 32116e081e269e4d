"""Dealing images to splits and folds: from a seed, each class in proportion, what looks the same on one side."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odkit.data.image_facts import file_hash, inspect_images
from odkit.data.similarity import Pairs, similar_pairs
from odkit.system import InputError


class Deal(NamedTuple):
    """Which side each image was dealt to."""

    sides: NDArray[np.int64]  # [N], from 0
    together: int  # groups of near-duplicates, each on one side
    apart: int  # pairs of near-duplicates on two sides, see `deal`

    @property
    def note(self) -> str:
        """What happened to near-duplicates, as the end of a sentence; "" where there are none."""
        words = ""
        if self.together:
            many = "s" * (self.together > 1)
            words += f"; {self.together} group{many} of near-duplicates, each on one side"
        if self.apart:
            many = "s" * (self.apart > 1)
            words += (
                f"; {self.apart} pair{many} of near-duplicates on two sides, because with all that are like them they "
                "would fill more than half of the smallest (od.near_duplicates lists them)"
            )
        return words


def deal(
    paths: Sequence[str],
    class_boxes: NDArray[np.int64],
    shares: Sequence[float],
    *,
    seed: int,
    sides: str,
) -> Deal:
    """Images dealt from a seed, each class in proportion, exact copies and near-duplicates on one side.

    Classes are dealt rarest first (iterative stratification: Sechidis, Tsoumakas and Vlahavas, 2011), images without
    boxes last. Then groups of near-duplicates that stand on several sides are taken back and dealt again, each as a
    whole, to where room is; all other images stay. Every image is decoded for that, once: what is found is remembered
    (see image_cache), and the audit needs it too. Files that are missing or damaged resemble nothing.

    A group is made of its likest pairs first, and stops growing at half of the smallest side: a still camera's
    pictures are all alike, and must not be one group. `Deal.apart` counts the pairs that then stand on two sides.

    Args:
        paths: Path of each image.
        class_boxes: Number of boxes of each image and class, [N, K].
        shares: Share of the images for each side; they sum to 1.
        seed: Seed of the deal.
        sides: What the sides are called in the error.

    Raises:
        ValueError: There are fewer different images than sides.
    """
    rng = np.random.default_rng(seed)
    counts = np.concatenate([class_boxes, np.ones((len(paths), 1), np.int64)], axis=1)
    copies = _copies(paths)
    if len(copies) < len(shares):
        raise InputError(f"{len(copies)} different images cannot be dealt to {len(shares)} {sides}")
    side = _stratified(_summed(counts, copies), shares, rng, np.full(len(copies), -1))
    of_image, copy_of = _spread(side, copies), _spread(np.arange(len(copies)), copies)
    looks = [facts.look for facts in inspect_images(paths, decode=True, label="looking for near-duplicates")]
    pairs = similar_pairs(looks)
    most = max(int(min(shares) * len(paths) / 2), 2)
    groups = _joined(copies, pairs, most=most, least_groups=len(shares))
    torn = [len(set(of_image[members].tolist())) > 1 for members in groups]
    side = np.where(torn, -1, [of_image[members[0]] for members in groups])
    of_image = _spread(_stratified(_summed(counts, groups), shares, rng, side), groups)
    return Deal(
        sides=of_image,
        together=sum(len(set(copy_of[members].tolist())) > 1 for members in groups),
        apart=int((of_image[pairs.first] != of_image[pairs.second]).sum()),
    )


# -- what belongs together -------------------------------------------------------------------------------------------


def _copies(paths: Sequence[str]) -> list[list[int]]:
    """Images grouped so that exact duplicates stand together: same size, same last bytes, and only then all bytes."""
    groups = [list(range(len(paths)))]
    for key in (_file_size, _file_end, file_hash):
        finer: list[list[int]] = []
        for members in groups:
            if len(members) == 1:
                finer.append(members)
                continue
            by_key: dict[Any, list[int]] = {}
            for index in members:
                by_key.setdefault(key(paths[index]) or ("unreadable", index), []).append(index)
            finer += by_key.values()
        groups = finer
    return sorted(groups)


def _file_size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _file_end(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(-min(4096, _file_size(path)), 2)
            return file.read()
    except OSError:
        return b""


def _joined(copies: list[list[int]], pairs: Pairs, *, most: int, least_groups: int) -> list[list[int]]:
    """Groups of images with those joined that hold a pair, the likest first, up to `most` images a group."""
    parent = list(range(len(copies)))
    size = [len(members) for members in copies]
    group_of = _spread(np.arange(len(copies)), copies)

    def root(group: int) -> int:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    left = len(copies) - least_groups  # joins, until there are too few groups for the sides
    order = np.lexsort((pairs.second, pairs.first, -pairs.similarity))
    for first, second in zip(
        group_of[pairs.first[order]].tolist(), group_of[pairs.second[order]].tolist(), strict=True
    ):
        one, other = sorted((root(first), root(second)))
        if one != other and left and size[one] + size[other] <= most:
            parent[other] = one
            size[one] += size[other]
            left -= 1
    joined: dict[int, list[int]] = {}
    for group, members in enumerate(copies):
        joined.setdefault(root(group), []).extend(members)
    return [sorted(members) for members in joined.values()]


# -- dealing ---------------------------------------------------------------------------------------------------------


def _summed(counts: NDArray[np.int64], groups: list[list[int]]) -> NDArray[np.int64]:
    """Rows of images [N, K + 1] added up to rows of their groups [G, K + 1]."""
    summed = np.zeros((len(groups), counts.shape[1]), np.int64)
    np.add.at(summed, _spread(np.arange(len(groups)), groups), counts)
    return summed


def _spread(values: NDArray[np.int64], groups: list[list[int]]) -> NDArray[np.int64]:
    """A value a group [G] as a value an image [N]."""
    spread = np.empty(sum(map(len, groups)), np.int64)
    for value, members in zip(values.tolist(), groups, strict=True):
        spread[members] = value
    return spread


def _stratified(
    counts: NDArray[np.int64], shares: Sequence[float], rng: np.random.Generator, side: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The side of each group [G]: `side`, and where that is -1 dealt to what room there is.

    Args:
        counts: Boxes of each group and class, and in the last column its images, [G, K + 1].
        shares: Share of each side.
        rng: Decides among equals.
        side: Sides that are settled, -1 for the others, [G].
    """
    side = side.copy()
    totals = counts.sum(0)
    room = np.array(shares)[:, None] * totals[None]  # [sides, K + 1]: what each side still wants
    for taken in range(len(shares)):
        room[taken] -= counts[side == taken].sum(0)
    for row in _rarest_first(counts, rng):
        if side[row] >= 0:
            continue
        present = np.append(np.flatnonzero(counts[row, :-1]), counts.shape[1] - 1)
        # the rarest class in the group decides; the number of images breaks the tie
        rarest = present[np.argmin(totals[present])]
        wish = np.lexsort((room[:, -1], room[:, rarest]))
        side[row] = wish[-1]
        room[side[row]] -= counts[row]
    for want in range(len(shares)):  # tiny datasets: no side stays empty
        if not (side == want).any():
            donor = np.bincount(side, minlength=len(shares)).argmax()
            side[np.flatnonzero(side == donor)[-1]] = want
    return side


def _rarest_first(counts: NDArray[np.int64], rng: np.random.Generator) -> Iterator[int]:
    totals = counts[:, :-1].sum(0)
    shuffled = rng.permutation(len(counts))
    rarity = np.where(counts[:, :-1] > 0, totals.astype(np.float64), np.inf).min(1, initial=np.inf)
    yield from shuffled[np.argsort(rarity[shuffled], kind="stable")].tolist()
