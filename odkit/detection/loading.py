"""A Dataset's images to tensors for a detector: decoded, resized, in batches, by processes that are watched."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from odkit.data import Dataset, ImageReadError, read_pixels
from odkit.system import LOCK_VARIABLE, OdkitError, cpu_count, end_with_parent, workers_that_fit

Item = tuple[Tensor, dict[str, Tensor]]


class DataWorkerError(OdkitError, RuntimeError):
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
    return torch.from_numpy(read_pixels(path)).permute(2, 0, 1)


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


class DetectionImages(TorchDataset[Item]):
    """Images of a Dataset as (uint8 image [3, H, W], target), resized for a detector; indexed by row.

    A target holds `boxes` float32 [n, 4] xyxy in pixels of the resized image, `labels` int64 [n] 0-based,
    `row` int64, the image's index in the dataset, and `size` int64 [2], its width and height before resizing.
    Crowd boxes are left out: no detector here can learn from them.
    """

    def __init__(self, dataset: Dataset, *, image_size: int, square: bool = False) -> None:
        self.dataset, self.image_size, self.square = dataset, image_size, square

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Item:
        return self.read(row, self.image_size)

    def read(self, row: int, image_size: int) -> Item:
        """An image, its longer side `image_size` pixels, with its target.

        Raises:
            ImageReadError: The file cannot be read, or has another size than its labels say.
        """
        dataset = self.dataset
        image = read_image(dataset.image_paths[row])
        height, width = image.shape[-2:]
        declared = dataset.image_sizes[row]
        if declared.any() and (width, height) != tuple(declared):
            raise ImageReadError(
                f"{dataset.image_paths[row]}: the image is {width}x{height} pixels, its labels say "
                f"{declared[0]}x{declared[1]}; od.repaired(dataset) (or --repair) settles what can be settled"
            )
        rows = dataset.boxes_of(row)
        keep = ~dataset.box_crowd[rows]
        image = resize_image(image, image_size, square=self.square)
        boxes = torch.from_numpy(dataset.boxes[rows][keep])
        return image, {
            "boxes": _scaled(boxes, (width, height), (image.shape[-1], image.shape[-2])),
            "labels": torch.from_numpy(dataset.box_classes[rows][keep].astype(np.int64)),
            "row": torch.tensor(row),
            "size": torch.tensor([width, height]),
        }


def collate(items: Sequence[Item]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Items as (list of images, list of targets): sizes differ, so nothing is stacked here."""
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)


def evaluation_loader(
    images: DetectionImages,
    rows: Sequence[int],
    *,
    batch_size: int,
    num_workers: int,
    pin: bool = False,
    timeout: float = 0,
) -> Any:
    """A DataLoader over the given rows in order, without augmentation.

    A batch that takes a worker longer than `timeout` seconds (0: no limit) raises RuntimeError; see `next_batch`.
    """
    indices = [list(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    return DataLoader(
        images,
        batch_sampler=indices,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=settle,
        timeout=timeout if num_workers else 0,
    )


def choose_workers(
    num_workers: int, *, batch_size: int, image_size: int, processes: int = 1, prefetch: int = 4
) -> tuple[int, str]:
    """Data workers for each of some processes, and why: no more than the cores, and than /dev/shm holds batches of.

    Args:
        num_workers: What was set; -1: nothing was.
        batch_size: Images a batch of one process.
        image_size: Longer side of an image, in pixels.
        processes: Processes of this machine that load data.
        prefetch: Batches a worker prepares ahead.
    """
    wanted, reason = num_workers, "as set"
    if num_workers < 0:
        cores = cpu_count()
        wanted, reason = min(8, max(1, cores // processes)), f"{cores} cores for {processes} process(es)"
    width, height = fit_size(4, 3, image_size)
    fit, why = workers_that_fit(wanted * processes, batch_size * width * height * 3, prefetch=prefetch)
    if fit < wanted * processes:
        return fit // processes, why
    return wanted, reason


def workers_fork() -> bool:
    """Whether data workers are forks of this process: they start at once, and inherit what it has open."""
    # asked so that the choice stays open: a person may still call multiprocessing.set_start_method()
    chosen = multiprocessing.get_start_method(allow_none=True)
    return (chosen or multiprocessing.get_all_start_methods()[0]) == "fork"


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


def to_device(
    images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], device: torch.device | str
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """A batch on the device: images as float 0 to 1 (cast there, so that a quarter of the bytes travel)."""
    device = torch.device(device)
    moved = [image.to(device, non_blocking=True).float().div_(255) for image in images]
    return moved, [{key: value.to(device, non_blocking=True) for key, value in t.items()} for t in targets]


def settle(worker: int) -> None:
    """A data worker's beginning: one thread, an end with its parent, no hold on the run's lock."""
    torch.set_num_threads(1)
    end_with_parent(signal.SIGKILL)  # one that hangs would not notice
    # the run's lock is its training process' alone: a hung data worker must not hold it beyond that one's end. Only
    # a forked one has it: elsewhere (macOS, Python 3.14) that number is another file's.
    if workers_fork() and (handle := os.environ.get(LOCK_VARIABLE)):
        with contextlib.suppress(OSError):
            os.close(int(handle))


def _scaled(boxes: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Boxes in an image of width and height `old`, moved into one of `new`."""
    if old == new:
        return boxes.clone()
    factors = torch.tensor([new[0] / old[0], new[1] / old[1]] * 2, dtype=boxes.dtype)
    return boxes * factors


@contextlib.contextmanager
def _said_plainly() -> Iterator[None]:
    """What a DataLoader raises where a worker is lost, as a DataWorkerError."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise DataWorkerError(last_line(error)) from error
    except (EOFError, ConnectionError, FileNotFoundError) as error:
        # the batch had been announced, and who was to hand it over is gone
        raise DataWorkerError(f"it was gone before its batch was taken: {last_line(error)}") from error
