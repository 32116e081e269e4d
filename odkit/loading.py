"""Dataset to tensors: decode, resize, augment, batch.

Images are decoded upright (EXIF applied), resized so that the longer side is the detector's image size, and carried
as uint8 until they reach the device. Every random choice comes from a generator seeded by (seed, epoch, place in the
epoch), so an image's augmentation is the same whichever worker process draws it, and again after a resume.
"""

import contextlib
import math
import os
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from odkit.dataset import Dataset
from odkit.settings import LOCK_VARIABLE, end_with_parent

AUGMENTATIONS = ("none", "flip", "photo", "strong")
"""none; left-right flips; flips and light, colour and blur; the same with zoom in and out."""

Item = tuple[Tensor, dict[str, Tensor]]


class ImageReadError(ValueError):
    """An image file cannot be read, or is not what its labels say; the message names the file."""


class DataWorkerError(RuntimeError):
    """A process that decodes images died or hangs."""


def last_line(error: BaseException) -> str:
    """The line of an error that says what happened, without the tracebacks of other processes before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    return last.split("Error: ", 1)[-1]


def read_image(path: str | Path) -> Tensor:
    """An image file as uint8 [3, H, W] RGB, upright.

    Raises:
        ImageReadError: The file is missing, damaged or no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's notes on odd metadata do not concern the pixels
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image)
                array = np.array(upright.convert("RGB"))
    except FileNotFoundError:
        raise ImageReadError(f"{path}: there is no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageReadError(
            f"{path}: cannot be read as an image ({error}); `odkit audit` lists all such"
        ) from None
    return torch.from_numpy(array).permute(2, 0, 1)


def fit_size(width: int, height: int, image_size: int, *, square: bool = False) -> tuple[int, int]:
    """Width and height in pixels after resizing: the longer side becomes `image_size` (both sides, if `square`)."""
    if square:
        return image_size, image_size
    scale = image_size / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize_image(image: Tensor, image_size: int, *, square: bool = False) -> Tensor:
    """A uint8 [3, H, W] image resized (bilinear, antialiased) as `fit_size` says; training and prediction share it."""
    height, width = image.shape[-2:]
    new_width, new_height = fit_size(width, height, image_size, square=square)
    if (new_width, new_height) == (width, height):
        return image
    resized: Tensor = v2.functional.resize(image, [new_height, new_width], antialias=True)
    return resized


class TrainingImages(TorchDataset[Item]):
    """Items of a Dataset as (uint8 image [3, H, W], target); indexed by (row, epoch) pairs.

    A target holds `boxes` float32 [n, 4] xyxy in pixels of the resized image, `labels` int64 [n] 0-based,
    `row` int64, the image's index in the dataset, and `size` int64 [2], its width and height before resizing.
    Crowd boxes are left out: no detector here can learn from them.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        image_size: int,
        square: bool = False,
        augment: str = "none",
        seed: int = 0,
        multi_scale: float = 0.0,
    ) -> None:
        if augment not in AUGMENTATIONS:
            raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}, not {augment!r}")
        self.dataset, self.image_size, self.square = dataset, image_size, square
        self.augment, self.seed, self.multi_scale = augment, seed, multi_scale

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int, int]) -> Item:
        row, epoch, batch = index if isinstance(index, tuple) else (index, 0, 0)
        dataset = self.dataset
        image = read_image(dataset.image_paths[row])
        height, width = image.shape[-2:]
        declared = dataset.image_sizes[row]
        if declared.any() and (width, height) != tuple(declared):
            raise ImageReadError(
                f"{dataset.image_paths[row]}: the image is {width}x{height} pixels, its labels say "
                f"{declared[0]}x{declared[1]}; dataset.repaired() (or --repair) settles what can be settled"
            )
        rows = dataset.boxes_of(row)
        keep = ~dataset.box_crowd[rows]
        boxes = torch.from_numpy(dataset.boxes[rows][keep])
        labels = torch.from_numpy(dataset.box_classes[rows][keep].astype(np.int64))
        image_size = self._size_of_batch(epoch, batch)
        image = resize_image(image, image_size, square=self.square)
        boxes = _scaled(boxes, (width, height), (image.shape[-1], image.shape[-2]))
        if self.augment != "none":
            # the torch generator is the one transforms.v2 draws from; fork so that the caller's stays where it was
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_mixed_seed(self.seed, epoch, row))
                image, boxes, labels = augmented(image, boxes, labels, self.augment)
        return image, {
            "boxes": boxes,
            "labels": labels,
            "row": torch.tensor(row),
            "size": torch.tensor([width, height]),
        }

    def _size_of_batch(self, epoch: int, batch: int) -> int:
        """One size a batch (multi-scale training), a multiple of 32 pixels."""
        if not self.multi_scale:
            return self.image_size
        rng = np.random.default_rng([self.seed, 77, epoch, batch])
        size = self.image_size * rng.uniform(1 - self.multi_scale, 1 + self.multi_scale)
        return max(64, round(size / 32) * 32)


def augmented(image: Tensor, boxes: Tensor, labels: Tensor, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """One image and its boxes, randomly changed by torchvision's transforms.v2; boxes left outside are dropped."""
    height, width = image.shape[-2:]
    sample = {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
        "labels": labels,
    }
    changed = _transform(kind, height, width)(sample)
    return changed["image"].as_subclass(Tensor), changed["boxes"].as_subclass(Tensor), changed["labels"]


def _transform(kind: str, height: int, width: int) -> v2.Compose:
    steps: list[Any] = [v2.RandomHorizontalFlip()]
    if kind == "strong":
        steps += [
            v2.RandomApply([v2.RandomZoomOut(fill=114, side_range=(1.0, 1.6), p=1.0)], p=0.3),
            v2.RandomApply([v2.RandomIoUCrop(min_scale=0.5)], p=0.4),
            v2.Resize((height, width), antialias=True),
        ]
    if kind in ("photo", "strong"):
        steps += [
            v2.RandomApply([v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.03)], p=0.7),
            v2.RandomApply([v2.GaussianBlur(3, sigma=(0.1, 1.2))], p=0.1),
            v2.RandomGrayscale(p=0.03),
        ]
    steps += [v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=1)]
    return v2.Compose(steps)


def _scaled(boxes: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    if old == new:
        return boxes.clone()
    factors = torch.tensor([new[0] / old[0], new[1] / old[1]] * 2, dtype=boxes.dtype)
    return boxes * factors


def _mixed_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class EpochSampler(Sampler[list[tuple[int, int, int]]]):
    """Batches of (row, epoch, batch number) in an order that depends on seed and epoch alone.

    The last batch of an epoch is filled from the epoch's beginning, so that every batch has the same size, and each
    of `world` processes takes its own part of every batch: together they see exactly what one process would.

    Attributes:
        epoch: The epoch to deal (0-based).
        start: Batches of that epoch to leave out: where a resumed run goes on.
    """

    def __init__(self, length: int, batch: int, *, seed: int = 0, world: int = 1, rank: int = 0) -> None:
        if batch % world:
            raise ValueError(f"a batch of {batch} images cannot be dealt evenly to {world} processes")
        self.length, self.batch, self.seed, self.world, self.rank = length, batch, seed, world, rank
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return math.ceil(self.length / self.batch)

    def rows(self) -> NDArray[np.int64]:
        """The epoch's images in order, int64 [batches, batch]."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        return np.resize(order, (len(self), self.batch))

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        epoch, share = self.epoch, self.batch // self.world
        for number, rows in list(enumerate(self.rows()))[self.start :]:
            mine = rows[self.rank * share : (self.rank + 1) * share]
            yield [(int(row), epoch, number) for row in mine]


def collate(items: Sequence[Item]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Items as (list of images, list of targets): sizes differ, so nothing is stacked here."""
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)


def training_loader(
    images: TrainingImages, sampler: EpochSampler, *, workers: int, pin: bool = False, timeout: float = 0
) -> Any:
    """A DataLoader over the sampler's batches; `workers` 0 loads in this process.

    A batch that takes a worker longer than `timeout` seconds (0: no limit) raises RuntimeError.
    """
    return DataLoader(
        images,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=_settle,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        timeout=timeout if workers else 0,
    )


def evaluation_loader(
    images: TrainingImages,
    rows: Sequence[int],
    *,
    batch: int,
    workers: int,
    pin: bool = False,
    timeout: float = 0,
) -> Any:
    """A DataLoader over the given rows in order, without augmentation; `timeout` as for `training_loader`."""
    indices = [list(rows[i : i + batch]) for i in range(0, len(rows), batch)]
    return DataLoader(
        images,
        batch_sampler=indices,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=_settle,
        timeout=timeout if workers else 0,
    )


def start_epoch(loader: Any) -> Iterator[Any]:
    """A loader's batches, to be asked for with `next_batch`.

    Raises:
        DataWorkerError: A data worker of the epoch before has died since.
    """
    with _said_plainly():
        return iter(loader)


def next_batch(batches: Iterator[Any], limit: float) -> Any:
    """The next batch, None after the last.

    The loader is made with a short timeout and asked again, so that a dead worker is noticed soon, and one that has
    taken more than `limit` seconds (0: no limit) is one that hangs.

    Raises:
        DataWorkerError: A data worker died or hangs.
    """
    began = time.monotonic()
    while True:
        with _said_plainly():
            try:
                return next(batches, None)
            except RuntimeError as error:
                if "timed out" not in str(error) or (limit and time.monotonic() - began >= limit):
                    raise


@contextlib.contextmanager
def _said_plainly() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise DataWorkerError(last_line(error)) from error
    except (EOFError, ConnectionError, FileNotFoundError) as error:
        # the batch had been announced, and who was to hand it over is gone
        raise DataWorkerError(f"it was gone before its batch was taken: {last_line(error)}") from error


def to_device(
    images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], device: torch.device | str
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """A batch on the device: images as float 0 to 1 (cast there, so that a quarter of the bytes travel)."""
    device = torch.device(device)
    moved = [image.to(device, non_blocking=True).float().div_(255) for image in images]
    return moved, [{key: value.to(device, non_blocking=True) for key, value in t.items()} for t in targets]


def _settle(worker: int) -> None:
    torch.set_num_threads(1)
    end_with_parent(signal.SIGKILL)  # one that hangs would not notice
    # the run's lock is its training process' alone: a hung data worker must not hold it beyond that one's end
    if handle := os.environ.get(LOCK_VARIABLE):
        with contextlib.suppress(OSError):
            os.close(int(handle))
