"""Training batches: images, or tiles of them, varied from a seed, in the order of an epoch."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from odkit.data import Dataset
from odkit.detection import PREFETCH, DetectionImages, Item, Kept, Pack, Tiling, settle
from odkit.system import InputError
from odkit.training.augment import AUGMENTATIONS, ORIENTATIONS, blended, draw, mosaic, turned

MOSAIC_SCALES = (0.4, 1.0)  # of an image's size, for each part of a mosaic
EMPTY_TILES = 0.25  # tiles without a box that an epoch has for each one with boxes


class Turn(NamedTuple):
    """One image's turn in a batch."""

    row: int
    epoch: int = 0  # 0-based
    batch: int = 0  # its number in the epoch
    composed: bool = False  # whether it may be a mosaic or a blend of several images
    copy: int = 0  # how often it came in the epoch before


class TrainingImages(DetectionImages):
    """Images of a Dataset, varied at random; indexed by Turn, or by row for the first epoch.

    A row is an image. Where images are cut into tiles it is a tile: all those with boxes, and a part of those without,
    another one each epoch, as most of large images may be background.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        image_size: int,
        square: bool = False,
        tiling: Tiling | None = None,
        augment: str = "none",
        orientation: str = "mirror",
        mosaic: float = 0.0,
        mixup: float = 0.0,
        seed: int = 0,
        multi_scale: float = 0.0,
    ) -> None:
        if augment not in AUGMENTATIONS:
            raise InputError(f"augment must be one of {', '.join(AUGMENTATIONS)}, not {augment!r}")
        if orientation not in ORIENTATIONS:
            raise InputError(f"orientation must be one of {', '.join(ORIENTATIONS)}, not {orientation!r}")
        super().__init__(dataset, image_size=image_size, square=square, tiling=tiling)
        self.augment, self.orientation, self.seed, self.multi_scale = augment, orientation, seed, multi_scale
        self.mosaic, self.mixup = mosaic, mixup
        if multi_scale:
            self.largest = _sizes_of_batches(image_size, multi_scale, 1.0)
        self._always = np.arange(len(self.views.images))
        self._by_turns, self._empty = np.zeros(0, np.int64), 0
        if tiling is not None:
            counts = self.box_counts()
            self._always = np.flatnonzero(counts)
            # the whole image beside its tiles is there for large boxes alone
            empty = np.flatnonzero((counts == 0) & (self.views.tiles | ~self.views.parts.any(1)))
            self._by_turns = np.random.default_rng([seed, 405]).permutation(empty)
            self._empty = min(len(empty), math.ceil(len(self._always) * EMPTY_TILES) or len(empty))

    def __len__(self) -> int:
        """Rows of an epoch."""
        return len(self._always) + self._empty

    def view_of(self, row: int, epoch: int) -> int:
        """The view that a row is in an epoch (0-based)."""
        if row < len(self._always):
            return int(self._always[row])
        return int(self._by_turns[(epoch * self._empty + row - len(self._always)) % len(self._by_turns)])

    def path_of(self, row: int, epoch: int) -> str:
        """The file of the image that a row is, or is a tile of, in an epoch (0-based)."""
        return str(self.dataset.image_paths[self.views.images[self.view_of(row, epoch)]])

    def __getitem__(self, index: int | tuple[int, ...]) -> Item:
        turn = Turn(*index) if isinstance(index, tuple) else Turn(index)  # type: ignore[arg-type]
        view = self.view_of(turn.row, turn.epoch)
        size = self._size_of_batch(turn.epoch, turn.batch)
        if self.augment == "none":
            return self.read(view, size)
        # images that come several times in an epoch are varied anew
        rng = np.random.default_rng([self.seed, turn.epoch, view, *[turn.copy] * bool(turn.copy)])
        kept, kind = self.kept(view), self.augment
        item = self.shown(view, kept, size)
        if turn.composed and (self.mosaic or self.mixup):
            item, made = self._composed(item, kept, turn, size)
            # the parts of a mosaic have their own sizes: it is not zoomed again
            kind = "photo" if made and kind == "strong" else kind
        flip = False
        if self.orientation in ("mirror", "any"):
            # Both ways by turns, from either (Jordan, 2024, arXiv:2404.00498): of the few epochs of a fine-tuning,
            # draws would show some images one way alone.
            first = np.random.default_rng([self.seed, view, 404]).random() < 0.5
            flip = bool(first != ((turn.epoch + turn.copy) % 2 == 1))
        if self.orientation in ("turn", "any"):
            item = self._turned(item, turn, view)
        height, width = item.image.shape[-2:]
        change, boxes, labels = draw(kind, rng, width, height, item.boxes, item.labels, flip=flip)
        return item._replace(boxes=boxes, labels=labels, change=change)

    def _composed(self, item: Item, kept: Kept, turn: Turn, size: int) -> tuple[Item, bool]:
        """The image as one of four of a mosaic, or blended with another, or as it is; and whether it is a mosaic."""
        rng = np.random.default_rng([self.seed, turn.epoch, turn.row, 411, turn.copy])
        is_mosaic, is_blend = rng.random(2) < (self.mosaic, self.mixup)
        others = [self.view_of(int(row), turn.epoch) for row in rng.integers(len(self), size=4)]
        if is_mosaic:
            views = [self.view_of(turn.row, turn.epoch), *others[:3]]
            sizes = (size * rng.uniform(*MOSAIC_SCALES, 4)).round().clip(32).astype(int).tolist()
            parts = [self.shown(views[0], kept, sizes[0])]
            parts += [self.read(view, some) for view, some in zip(views[1:], sizes[1:], strict=True)]
            item = mosaic(rng, item, parts)
        if is_blend:
            item = blended(item, self.read(others[3], size))
        return item, bool(is_mosaic)

    def _turned(self, item: Item, turn: Turn, view: int) -> Item:
        """Turned by quarters: the images of a batch all lie or all stand, as they are padded to one size."""
        standing = np.random.default_rng([self.seed, turn.epoch, turn.batch, 90]).integers(2)
        half = np.random.default_rng([self.seed, turn.epoch, view, 180]).integers(2)
        return turned(item, int(standing + 2 * half))

    def _size_of_batch(self, epoch: int, batch: int) -> int:
        """One size a batch (multi-scale training), a multiple of 32 pixels."""
        if not self.multi_scale:
            return self.image_size
        rng = np.random.default_rng([self.seed, 77, epoch, batch])
        return _sizes_of_batches(self.image_size, self.multi_scale, rng.uniform(-1, 1))


def _sizes_of_batches(image_size: int, multi_scale: float, share: float) -> int:
    """A size of multi-scale training, from the smallest (share -1) to the largest (1), in pixels."""
    return max(64, round(image_size * (1 + multi_scale * share) / 32) * 32)


class EpochSampler(Sampler[list[Turn]]):
    """Batches of turns in an order that depends on seed and epoch alone.

    The last batch of an epoch is filled from the epoch's beginning, so that every batch has the same size, and each
    of `world` processes takes its own part of every batch: together they see exactly what one process would.

    With `shares`, float64 [length], a row comes as often as its share says, and an epoch is as long as without.

    Attributes:
        epoch: The epoch to deal (0-based).
        start: Batches of that epoch to leave out: where a resumed run goes on.
        stop: The epoch that is dealt no more: those before it follow the first one. 0: that one alone.
        composed: Epochs before this one may show mosaics and blends.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int = 0,
        world: int = 1,
        rank: int = 0,
        shares: NDArray[np.float64] | None = None,
    ) -> None:
        if batch_size % world:
            raise InputError(f"a batch of {batch_size} images cannot be dealt evenly to {world} processes")
        self.length, self.batch_size, self.seed, self.world, self.rank = length, batch_size, seed, world, rank
        self.epoch, self.start, self.stop, self.composed = 0, 0, 0, 0
        self.shares = shares

    def __len__(self) -> int:
        return math.ceil(self.length / self.batch_size)

    def rows(self, epoch: int | None = None) -> NDArray[np.int64]:
        """An epoch's images in order, int64 [batches, batch]; None: those of the epoch to deal."""
        rng = np.random.default_rng([self.seed, self.epoch if epoch is None else epoch])
        order = rng.permutation(self.length)
        if self.shares is not None:
            # systematic sampling: no row comes more than one time more or less often than its share says
            ends = self.shares.cumsum() / self.shares.sum() * self.length
            chosen = np.searchsorted(ends, np.arange(self.length) + rng.random())
            order = chosen.clip(max=self.length - 1)[order]
        return np.resize(order, (len(self), self.batch_size))

    def __iter__(self) -> Iterator[list[Turn]]:
        first, start = self.epoch, self.start
        for epoch in range(first, max(self.stop, first + 1)):
            yield from self._batches(epoch, start if epoch == first else 0)

    def _batches(self, epoch: int, start: int) -> Iterator[list[Turn]]:
        composed, share = epoch < self.composed, self.batch_size // self.world
        rows = self.rows(epoch)
        copies = np.zeros_like(rows) if self.shares is None else _earlier(rows.ravel()).reshape(rows.shape)
        mine = slice(self.rank * share, (self.rank + 1) * share)
        for number in range(start, len(rows)):
            pairs = zip(rows[number, mine].tolist(), copies[number, mine].tolist(), strict=True)
            yield [Turn(row, epoch, number, composed, copy) for row, copy in pairs]


def _earlier(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each value stands before its place, int64 [n]."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    earlier = np.empty_like(values)
    earlier[order] = np.arange(len(values)) - np.searchsorted(ranked, ranked)
    return earlier


def balanced_shares(dataset: Dataset, least: float) -> NDArray[np.float64]:
    """How often each image is to come, float64 [N], so that classes in few images are seen more often.

    Repeat factors (Gupta et al., 2019, arXiv:1908.03195): an image comes as often as its rarest class asks for, which
    is the root of `least` / f for a class in a share f of the images, and 1 for one in `least` of them or more.
    """
    pairs = np.unique(np.column_stack([dataset.box_images, dataset.box_classes]), axis=0)
    within = np.bincount(pairs[:, 1], minlength=len(dataset.class_names)) / max(1, len(dataset))
    repeats = np.sqrt(least / np.maximum(within, 1e-9)).clip(min=1)
    shares = np.ones(len(dataset))
    np.maximum.at(shares, pairs[:, 0], repeats[pairs[:, 1]])
    return shares


def training_loader(
    images: TrainingImages,
    sampler: EpochSampler,
    *,
    num_workers: int,
    divisible: int = 32,
    pin: bool = False,
    timeout: float = 0,
) -> Any:
    """A DataLoader over the sampler's batches; `num_workers` 0 loads in this process.

    A batch that takes a worker longer than `timeout` seconds (0: no limit) raises RuntimeError.
    """
    return DataLoader(
        images,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=Pack(divisible),
        pin_memory=pin,
        worker_init_fn=settle,
        persistent_workers=num_workers > 0,
        prefetch_factor=PREFETCH if num_workers else None,
        timeout=timeout if num_workers else 0,
        # each start draws a number: from the detector's own numbers, a resume would shift those that follow
        generator=torch.Generator(),
    )
