"""Training batches: images, or tiles of them, varied from a seed, in the order of an epoch."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from odkit.data import Dataset
from odkit.detection import PREFETCH, DetectionImages, Item, Pack, Tiling, settle
from odkit.system import InputError
from odkit.training.augment import AUGMENTATIONS, draw

EMPTY_TILES = 0.25  # tiles without a box that an epoch has for each one with boxes


class TrainingImages(DetectionImages):
    """Images of a Dataset, varied at random; indexed by (row, epoch, batch number), or by row for the first epoch.

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
        seed: int = 0,
        multi_scale: float = 0.0,
    ) -> None:
        if augment not in AUGMENTATIONS:
            raise InputError(f"augment must be one of {', '.join(AUGMENTATIONS)}, not {augment!r}")
        super().__init__(dataset, image_size=image_size, square=square, tiling=tiling)
        self.augment, self.seed, self.multi_scale = augment, seed, multi_scale
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

    def __getitem__(self, index: int | tuple[int, int, int]) -> Item:
        row, epoch, batch = index if isinstance(index, tuple) else (index, 0, 0)
        view = self.view_of(row, epoch)
        item = self.read(view, self._size_of_batch(epoch, batch))
        if self.augment == "none":
            return item
        height, width = item.image.shape[-2:]
        rng = np.random.default_rng([self.seed, epoch, view])
        # Both ways by turns, from either (Jordan, 2024, arXiv:2404.00498): of the few epochs of a fine-tuning, draws
        # would show some images one way alone.
        flip = (np.random.default_rng([self.seed, view, 404]).random() < 0.5) != (epoch % 2 == 1)
        change, boxes, labels = draw(self.augment, rng, width, height, item.boxes, item.labels, flip=flip)
        return item._replace(boxes=boxes, labels=labels, change=change)

    def _size_of_batch(self, epoch: int, batch: int) -> int:
        """One size a batch (multi-scale training), a multiple of 32 pixels."""
        if not self.multi_scale:
            return self.image_size
        rng = np.random.default_rng([self.seed, 77, epoch, batch])
        size = self.image_size * rng.uniform(1 - self.multi_scale, 1 + self.multi_scale)
        return max(64, round(size / 32) * 32)


class EpochSampler(Sampler[list[tuple[int, int, int]]]):
    """Batches of (row, epoch, batch number) in an order that depends on seed and epoch alone.

    The last batch of an epoch is filled from the epoch's beginning, so that every batch has the same size, and each
    of `world` processes takes its own part of every batch: together they see exactly what one process would.

    Attributes:
        epoch: The epoch to deal (0-based).
        start: Batches of that epoch to leave out: where a resumed run goes on.
    """

    def __init__(self, length: int, batch_size: int, *, seed: int = 0, world: int = 1, rank: int = 0) -> None:
        if batch_size % world:
            raise InputError(f"a batch of {batch_size} images cannot be dealt evenly to {world} processes")
        self.length, self.batch_size, self.seed, self.world, self.rank = length, batch_size, seed, world, rank
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return math.ceil(self.length / self.batch_size)

    def rows(self) -> NDArray[np.int64]:
        """The epoch's images in order, int64 [batches, batch]."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return np.resize(order, (len(self), self.batch_size))

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        epoch, share = self.epoch, self.batch_size // self.world
        for number, rows in list(enumerate(self.rows()))[self.start :]:
            mine = rows[self.rank * share : (self.rank + 1) * share]
            yield [(int(row), epoch, number) for row in mine]


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
