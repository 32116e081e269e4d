"""The dataset under audit: its columns and files, and what several checks need of them, computed once."""

import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkit.data.audit.files import Files, Unread, unread_files
from odkit.data.audit.unusual import boxes_told_before, same_label_sets
from odkit.data.boxes import clip_boxes
from odkit.data.dataset import UNKNOWN_CLASS, Dataset
from odkit.data.image_facts import file_hash, in_threads
from odkit.data.similarity import correlations, similar_pairs

OVERHANG = 0.5  # pixels over the border that are put down to rounding
_COPIED_BOXES = 2  # one box may well lie in the same place in two images
_DIFFERENT = (
    0.8  # correlation of thumbnails; of 999 in 1,000 pairs of photographs with other scenes it is below 0.76
)
_PROOF = 3  # boxes, from which so many that stick out are no slips
_FAR = 0.1  # of the image's side
_FITTING = 1.0  # pixels over the border when telling which of two sizes the boxes of an image were drawn on


# -- what the checks look at -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Subject:
    """A dataset, what its files say, and columns that several checks need; each is computed once."""

    dataset: Dataset
    files: Files | None
    tiny: float
    duplicate_iou: float

    @cached_property
    def finite(self) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.dataset.boxes).all(1))

    @cached_property
    def corners(self) -> NDArray[np.float64]:
        """Boxes with their corners in order; a box that is not finite lies in (0, 0, 0, 0)."""
        boxes = np.where(self.finite[:, None], self.dataset.boxes, 0).astype(np.float64)
        return np.concatenate(
            [np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1
        )

    @cached_property
    def sides(self) -> NDArray[np.float64]:
        """Width and height of `corners`, [B, 2]."""
        return self.corners[:, 2:] - self.corners[:, :2]

    @cached_property
    def solid(self) -> NDArray[np.bool_]:
        """Finite boxes that have an area once their corners are in order."""
        return self.finite & (self.sides > 0).all(1)

    @cached_property
    def box_frames(self) -> NDArray[np.float64]:
        """For each box the size of the image it was drawn on, infinite where unknown, [B, 2]."""
        return np.asarray(self.size_plan[1][self.dataset.box_images])

    @cached_property
    def outside(self) -> NDArray[np.bool_]:
        return self.solid & (self.shown <= 0).any(1)

    @cached_property
    def overhang(self) -> NDArray[np.float64]:
        """How far each box sticks out of its image on the worst side, in pixels; 0 where it lies inside, [B]."""
        over = np.concatenate([-self.corners[:, :2], self.corners[:, 2:] - self.box_frames], axis=1)
        return np.asarray(over.max(1, initial=0))

    @cached_property
    def canonical(self) -> NDArray[np.int64]:
        """Class index to the index of the most frequent class whose name differs only by case or space."""
        counts = np.array(list(self.dataset.class_counts().values()), np.int64)
        groups: dict[str, list[int]] = {}
        for index, name in enumerate(self.dataset.class_names):
            groups.setdefault(_class_key(name), []).append(index)
        table = np.arange(len(counts) + 1)
        table[-1] = UNKNOWN_CLASS  # index -1 stays -1
        for members in groups.values():
            table[members] = members[int(np.argmax(counts[members]))]
        return table

    @cached_property
    def size_plan(self) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
        """For each image what to do about its size ("" where it is right), [N], and the size its boxes were drawn on.

        The second is [N, 2], width and height in pixels, infinite where unknown.
        """
        data = self.dataset
        declared = data.image_sizes.astype(np.int64)
        has_size = np.asarray((declared > 0).all(1))
        plan = np.full(len(data), "", object)
        frame = np.where(has_size[:, None], declared, np.inf)
        if self.files is None:
            return plan, frame
        stored, upright, known = self.files.stored, self.files.upright, self.files.known
        fits_upright, fits_stored, fits_declared = (
            self._fits_in(size) for size in (upright, stored, declared)
        )
        right = (declared == upright).all(1)
        turned, heeded = self._drawn_stored()
        # what nothing tells of one image, the others may tell: who ignored the tag in some ignored it in all
        if _settled(turned, heeded):
            with_boxes = data.boxes_per_image() > 0
            turned = turned | (known & self.silent & fits_stored & (right | ~has_size) & with_boxes)
        wrong = known & has_size & ~right & ~turned
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = upright / declared
            resized = np.abs(scale[:, 0] / scale[:, 1] - 1) < 0.01
        # Boxes that all lie within the smaller of two sizes were hardly drawn on the larger one.
        larger, smaller = (declared >= upright).all(1), (declared <= upright).all(1)
        transposed = (declared == upright[:, ::-1]).all(1) & ~resized
        empty = data.boxes_per_image() == 0
        correct = empty | (fits_upright & (larger | transposed | ~fits_declared))
        rescale = resized & (smaller | ~fits_upright) & ~correct
        plan[wrong] = "drops the image"
        plan[wrong & rescale] = "scales the boxes"
        plan[(wrong & correct) | (known & ~has_size & ~turned)] = "corrects the size"
        plan[turned] = "turns the boxes"
        frame = np.where((plan == "corrects the size")[:, None], upright, frame)
        return plan, np.where(turned[:, None], stored, frame)

    def _drawn_stored(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which images stored turned were labelled on the stored pixels, and which on the upright ones, [N] each."""
        assert self.files is not None
        declared, stored, upright = self.dataset.image_sizes, self.files.stored, self.files.upright
        has_size, right = (declared > 0).all(1), (declared == upright).all(1)
        fits_upright, fits_stored = self._fits_in(upright), self._fits_in(stored)
        turns = self.files.known & (self.files.orientations >= 5) & (stored[:, 0] != stored[:, 1])
        # the declared size tells on which pixels the labels were drawn, unless the boxes themselves contradict it
        drawn = has_size & (declared == stored).all(1) & ~(fits_upright & ~fits_stored)
        drawn |= (~has_size | right) & fits_stored & ~fits_upright
        heeded = (fits_upright & ~fits_stored) | (right & (not self._unsized))
        return turns & drawn, turns & ~drawn & heeded

    @cached_property
    def orientations_heeded(self) -> bool:
        """Whether the images that can tell say that labels were drawn on upright ones."""
        drawn, heeded = self._drawn_stored()
        return _settled(heeded, drawn)

    @cached_property
    def silent(self) -> NDArray[np.bool_]:
        """Images with an EXIF orientation of which their own labels do not tell whether they were drawn on it, [N]."""
        assert self.files is not None
        files = self.files
        same_sides = (files.orientations <= 4) | (files.stored[:, 0] == files.stored[:, 1])
        return np.asarray((files.orientations >= 2) & (same_sides | self._unsized))

    @property
    def _unsized(self) -> bool:
        """Whether these labels declare no size, which would tell on which pixels they were drawn."""
        return self.dataset.format in ("yolo", "openimages", "createml", "kitti")

    @cached_property
    def corners_for_sides(self) -> bool:
        """Whether what a COCO file has for width and height are the right and the bottom edge.

        Read so, every box lies within its image; read as the format says, most stick out far, as neither slips do nor
        boxes that were never clipped.
        """
        data = self.dataset
        if data.format != "coco":
            return False
        rows = self.solid & np.isfinite(self.box_frames).all(1)
        boxes, frames = data.boxes[rows], self.box_frames[rows]
        out = int((boxes[:, 2:] > frames * (1 + _FAR)).any(1).sum())
        if out < _PROOF or out * 2 <= len(boxes):
            return False
        boxes = boxes.astype(np.float64)
        right_bottom = boxes[:, 2:] - boxes[:, :2]  # as the file has them
        fits = (
            (boxes[:, :2] >= -_FITTING) & (right_bottom > boxes[:, :2]) & (right_bottom <= frames + _FITTING)
        )
        return bool(fits.all())

    def _fits_in(self, sizes: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray((self._reach <= sizes + _FITTING).all(1))

    @cached_property
    def _reach(self) -> NDArray[np.float64]:
        """The largest x and y of each image's finite boxes, 0 where there are none, [N, 2]."""
        images = self.dataset.box_images[self.finite]
        reach = np.zeros((len(self.dataset), 2))
        if len(images):
            first = np.flatnonzero(np.diff(images, prepend=-1))
            reach[images[first]] = np.maximum.reduceat(self.corners[self.finite, 2:], first)
        return reach

    @cached_property
    def told_before(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each box the first one before it that is the same by `duplicate_iou`: of its class, of another; or -1."""
        data = self.dataset
        rows = np.flatnonzero(self.solid & ~data.box_crowd & (data.box_classes != UNKNOWN_CLASS))
        classes = self.canonical[data.box_classes[rows]]
        found = boxes_told_before(self.corners[rows], data.box_images[rows], classes, self.duplicate_iou)
        alike, other = np.full(data.num_boxes, -1), np.full(data.num_boxes, -1)
        for column, before in zip((alike, other), found, strict=True):
            column[rows[before >= 0]] = rows[before[before >= 0]]
        return alike, other

    @cached_property
    def copies(self) -> list[tuple[int, int, str]]:
        """Exact duplicate images: (the copy, the one to keep, "bytes" or "pixels")."""
        if self.files is None:
            return []
        paths, splits = self.dataset.image_paths.tolist(), self.dataset.image_splits.tolist()
        sound = self.files.problems == ""
        by_pixels = _alike(self.files.pixels, sound & (self.files.pixels != b""))
        alike = by_pixels if (self.files.pixels != b"").any() else _alike(self.files.lengths, sound)
        suspects = [i for group in alike for i in group]
        hashes = dict(zip(suspects, self._hashes([paths[i] for i in suspects]), strict=True))
        found = []
        for group in alike:
            parts = [group] if by_pixels else _alike_by(group, hashes)
            for part in parts:
                keep = min(part, key=lambda i: (_held_out_rank(splits[i]), i))
                what = {i: "bytes" if hashes[i] == hashes[keep] else "pixels" for i in part if i != keep}
                found += [(copy, keep, same) for copy, same in what.items()]
        return sorted(found)

    @cached_property
    def leaks(self) -> dict[int, list[tuple[float, int]]]:
        """Images that look like others which are held out more, by index: (similarity, the other), likest first.

        Exact copies are left out: `copies` has them.
        """
        if self.files is None:
            return {}
        splits = self.dataset.image_splits.tolist()
        original = {copy: keep for copy, keep, _ in self.copies}
        found: dict[int, list[tuple[float, int]]] = {}
        pairs = similar_pairs(self.files.looks.tolist())
        for pair in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.similarity.tolist(), strict=True):
            keep, leak = sorted(pair[:2], key=lambda i: (_held_out_rank(splits[i]), i))
            across = splits[keep] != splits[leak] and splits[keep] and splits[leak]
            if across and original.get(keep, keep) != original.get(leak, leak):
                found.setdefault(leak, []).append((pair[2], keep))
        return {leak: sorted(found[leak], key=lambda one: (-one[0], one[1])) for leak in sorted(found)}

    @cached_property
    def split_sizes(self) -> dict[str, int]:
        """Number of images of each split, train, val and test first."""
        return self.dataset.split_counts()

    @cached_property
    def shown(self) -> NDArray[np.float32]:
        """Width and height of what lies of each box within its image, [B, 2]; all of it where that is unknown."""
        return _clipped_sides(self.corners, self.box_frames)

    @cached_property
    def ordinary(self) -> NDArray[np.bool_]:
        """Boxes that one object of a known class was drawn with, and that no check of broken boxes names, [B]."""
        data = self.dataset
        rows = self.solid & ~self.outside & ~data.box_crowd & (data.box_classes != UNKNOWN_CLASS)
        return np.asarray(rows & (self.sides >= self.tiny).all(1))

    @cached_property
    def backgrounds(self) -> NDArray[np.bool_]:
        """Images known to show nothing that is labelled: those without a box of which no reader says why, [N]."""
        data = self.dataset
        explained = {p.image for p in data.source_problems if p.image}
        empty: NDArray[np.bool_] = data.boxes_per_image() == 0
        if any(
            p.kind == "mostly_unlabelled" for p in data.source_problems
        ):  # not labelled yet, rather than empty
            return np.zeros(len(data), bool)
        empty[[i for i in np.flatnonzero(empty).tolist() if data.image_ids[i] in explained]] = False
        return empty

    @cached_property
    def copied_labels(self) -> list[tuple[int, int]]:
        """Images that have the boxes of another which looks different: (the image, the first that has them)."""
        if self.files is None:
            return []
        looks, found = self.files.looks, []
        for group in same_label_sets(self.dataset, _COPIED_BOXES):
            first, *others = [i for i in group if looks[i]] or group[:1]
            alike = correlations(looks[first], [looks[i] for i in others])
            found += [
                (i, first) for i, value in zip(others, alike.tolist(), strict=True) if value < _DIFFERENT
            ]
        return sorted(found)

    @cached_property
    def unread(self) -> list[Unread]:
        """Files beside the images that may be pictures or labels, of kinds that no reader takes."""
        return [] if self.files is None else unread_files(self.dataset)

    def _hashes(self, paths: list[str]) -> list[str]:
        assert self.files is not None
        return in_threads(file_hash, paths, self.files.num_workers, "audit: comparing files") if paths else []


def _settled(these: NDArray[np.bool_], others: NDArray[np.bool_]) -> bool:
    """Whether what these images say may be taken for all: at least two do, and no other says something else."""
    return bool(these.sum() >= 2 and not others.any())


def _clipped_sides(corners: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float32]:
    clipped = clip_boxes(corners, sizes)
    return clipped[:, 2:] - clipped[:, :2]


def _alike(values: NDArray[Any], among: NDArray[np.bool_]) -> list[list[int]]:
    return _alike_by(np.flatnonzero(among).tolist(), values)


def _alike_by(members: list[int], values: Any) -> list[list[int]]:
    groups: dict[Any, list[int]] = {}
    for index in members:
        groups.setdefault(values[index], []).append(index)
    return [group for key, group in groups.items() if len(group) > 1 and key != ""]


def _held_out_rank(split: str) -> int:
    # what is held out must stay held out: the copy that training would see is the one to give up
    return {"test": 0, "val": 1, "train": 3, "": 4}.get(split, 2)


def _class_key(name: str) -> str:
    """What stays of a class name without case and space; "_" counts as a space, single letters stay themselves."""
    key = "".join(unicodedata.normalize("NFKC", name).replace("_", " ").split())
    return (
        key.casefold() if len(key) > 1 else f"{key} (as it is)"
    )  # "a" and "A" are two classes of a text reader
