"""A Dataset's images for a detector: decoded, cut, resized, packed into batches by processes that are watched."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from odkit.data import Dataset, HeldPicture, ImageReadError, read_pixels, read_shrunk
from odkit.detection.batch import Batch, Changes
from odkit.detection.pixel_cache import PixelCache, file_stamp
from odkit.detection.pixels import padded_size
from odkit.detection.tiles import SMALLEST_TILE, Tiling, boxes_inside, make_views
from odkit.system import (
    LOCK_VARIABLE,
    OdkitError,
    cpu_count,
    end_with_parent,
    most_workers,
    open_all_files,
    sockets_parent,
    workers_that_fit,
)

PREFETCH = 2  # batches that a data worker prepares ahead


class Item(NamedTuple):
    """An image or a tile of one, decoded and resized, with what is to be found in it."""

    image: Tensor  # uint8 [3, H, W], channels last in memory
    boxes: NDArray[np.float32]  # [n, 4] xyxy in pixels of the resized image
    labels: NDArray[np.int64]  # [n] 0-based class indices
    row: int  # the image's index in the dataset
    original: tuple[int, int]  # width and height of the image, or of the tile, before resizing, in pixels
    change: Changes | None = None  # how it is to be varied: columns of length 1


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


def resize_image(image: Tensor, width: int, height: int) -> Tensor:
    """A uint8 [3, H, W] image resized (bilinear, antialiased) to a size in pixels; training and prediction share it."""
    if image.shape[-2:] == (height, width):
        return image
    resized: Tensor = v2.functional.resize(image, [height, width], antialias=True)
    return resized


class Kept(NamedTuple):
    """An image or a tile of one as it is kept: no larger than it is needed, and never enlarged."""

    image: Tensor  # uint8 [3, h, w], to be read only
    size: tuple[int, int]  # width and height before resizing, in pixels of the file


class DetectionImages(TorchDataset[Item]):
    """Images of a Dataset resized for a detector, with their boxes; indexed by view.

    Crowd boxes are left out: no detector here can learn from them.

    Attributes:
        views: What is looked at. Without tiles, view i is image i of the dataset.
        cache: Where decoded and resized images are kept from pass to pass; None: nowhere. What comes from there is
            the same to the last bit.
        largest: The largest size that a view is resized to, in pixels of its longer side: what is kept is made for
            that, and smaller ones from what is kept.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        image_size: int,
        square: bool = False,
        tiling: Tiling | None = None,
        held: Mapping[int, HeldPicture] | None = None,
        cache: PixelCache | None = None,
    ) -> None:
        self.dataset, self.image_size, self.square, self.tiling = dataset, image_size, square, tiling
        self.held = held or {}  # pictures in memory, by row: they take the place of files
        self.views = make_views(dataset, tiling)
        self.cache, self.largest = cache, image_size
        self._last: tuple[int, Tensor] | None = None  # tiles of one image follow one another in predicting

    def __len__(self) -> int:
        return len(self.views.images)

    def __getitem__(self, view: int) -> Item:
        return self.read(view, self.image_size)

    def read(self, view: int, image_size: int) -> Item:
        """A view with its boxes: an image whose longer side is made `image_size` pixels, or a tile that is made so.

        Raises:
            ImageReadError: The file cannot be read, or has another size than its labels say.
        """
        return self.shown(view, self.kept(view), image_size)

    def kept(self, view: int) -> Kept:
        """A view's pixels as they are kept: from the cache, or decoded and resized, and then kept.

        Raises:
            ImageReadError: As `read`.
        """
        row = int(self.views.images[view])
        path, stamp = self.dataset.image_paths[row], None
        if self.cache is not None and row not in self.held and (stamp := file_stamp(path)) is not None:
            image = self.cache.get(view, stamp)
            if image is not None:
                return Kept(image, self._extent(view))
        image, size = self._decoded(view, row)
        image = resize_image(image, *self._kept_size(view, *size))
        if self.cache is not None and stamp is not None:
            self.cache.put(view, stamp, image)
        return Kept(image, size)

    def shown(self, view: int, kept: Kept, image_size: int) -> Item:
        """A view from its kept pixels as `read` gives it."""
        width, height = kept.size
        image = resize_image(kept.image, *self._fit(view, width, height, image_size))
        factors = np.array([image.shape[-1] / width, image.shape[-2] / height] * 2, np.float32)
        boxes, labels = self.boxes_of(view)
        return Item(image, boxes * factors, labels, int(self.views.images[view]), kept.size)

    def boxes_of(self, view: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """A view's boxes in pixels of the original from its corner, cut at a tile's border; and their labels."""
        boxes, labels, inside = self._boxes(slice(view, view + 1))
        boxes, labels = boxes[inside[0]], labels[inside[0]]
        if not self.views.tiles[view]:
            return boxes, labels
        first, last = np.tile(self.views.parts[view].astype(np.float32).reshape(2, 2), 2)
        return boxes.clip(first, last) - first, labels

    def view_sizes(self, image_size: int) -> NDArray[np.int64]:
        """Width and height of each view after resizing, in pixels, int64 [V, 2]; 0 where they are unknown."""
        return self._sizes(lambda view, width, height: self._fit(view, width, height, image_size))

    def kept_sizes(self) -> NDArray[np.int64]:
        """Width and height of each view as it is kept, in pixels, int64 [V, 2]; 0 where they are unknown."""
        return self._sizes(self._kept_size)

    def _sizes(self, size: Callable[[int, int, int], tuple[int, int]]) -> NDArray[np.int64]:
        """What a function makes of each view's number, width and height: of views alike it is asked once."""
        sides = self.views.parts[:, 2:] - self.views.parts[:, :2]
        if self.tiling is None:
            sides = self.dataset.image_sizes.astype(np.int64)
        kinds, kind = np.unique(np.column_stack([sides, self.views.tiles]), axis=0, return_inverse=True)
        first = np.unique(kind.reshape(-1), return_index=True)[1]
        sizes = [
            size(view, w, h) if w and h else (0, 0)
            for view, (w, h) in zip(first.tolist(), kinds[:, :2].tolist(), strict=True)
        ]
        return np.array(sizes, np.int64).reshape(-1, 2)[kind.reshape(-1)]

    def box_counts(self) -> NDArray[np.int64]:
        """Number of boxes in each view, int64 [V]."""
        counts = [np.zeros(0, np.int64)]
        firsts = np.searchsorted(self.views.images, np.arange(len(self.dataset) + 1))
        for first, stop in itertools.pairwise(firsts.tolist()):
            counts.append(self._boxes(slice(first, stop))[2].sum(1))
        return np.concatenate(counts)

    def _fit(self, view: int, width: int, height: int, image_size: int) -> tuple[int, int]:
        """Width and height of a view after resizing: all tiles have one scale, those of a small image too."""
        if self.views.tiles[view] and self.tiling is not None and not self.square:
            image_size = max(SMALLEST_TILE, round(image_size * max(width, height) / self.tiling.size))
        return fit_size(width, height, image_size, square=self.square)

    def _kept_size(self, view: int, width: int, height: int) -> tuple[int, int]:
        wide, high = self._fit(view, width, height, self.largest)
        return min(wide, width), min(high, height)

    def _extent(self, view: int) -> tuple[int, int]:
        """Declared width and height of a view, in pixels."""
        left, top, right, bottom = self.views.parts[view].tolist()
        if self.tiling is None:
            right, bottom = self.dataset.image_sizes[self.views.images[view]].tolist()
        return right - left, bottom - top

    def _boxes(self, views: slice) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
        """Boxes and labels of the image that some views are of, and which belong to which view, bool [views, n]."""
        dataset = self.dataset
        rows = dataset.boxes_of(int(self.views.images[views][0]))
        keep = ~dataset.box_crowd[rows]
        boxes, labels = dataset.boxes[rows][keep], dataset.box_classes[rows][keep].astype(np.int64)
        parts = self.views.parts[views]
        if self.tiling is None or not parts.any():
            return boxes, labels, np.ones((len(parts), len(boxes)), bool)
        return boxes, labels, boxes_inside(boxes, parts, self.views.tiles[views], self.tiling)

    def _decoded(self, view: int, row: int) -> tuple[Tensor, tuple[int, int]]:
        """A view's pixels, all of them or as many as are kept, and its width and height before that."""
        if self.tiling is None:
            return self._image(row, lambda width, height: self._kept_size(view, width, height))
        # the image that was decoded last stays at hand: it has other tiles, which want all its pixels
        if self._last is None or self._last[0] != row:
            self._last = row, self._image(row, lambda width, height: (width, height))[0]
        image = self._last[1]
        if self.views.tiles[view]:
            left, top, right, bottom = self.views.parts[view].tolist()
            image = image[:, top:bottom, left:right]
        return image, (image.shape[-1], image.shape[-2])

    def _image(self, row: int, fit: Callable[[int, int], tuple[int, int]]) -> tuple[Tensor, tuple[int, int]]:
        """An image's pixels, all of them or as `fit` says, and its width and height."""
        dataset = self.dataset
        if row in self.held:
            image = torch.from_numpy(self.held[row].pixels()).permute(2, 0, 1)
            size = self.held[row].size
        else:
            pixels, size = read_shrunk(dataset.image_paths[row], fit)
            image = torch.from_numpy(pixels).permute(2, 0, 1)
        declared = dataset.image_sizes[row]
        if declared.any() and size != tuple(declared):
            raise ImageReadError(
                f"{dataset.image_paths[row]}: the image is {size[0]}x{size[1]} pixels, its labels say "
                f"{declared[0]}x{declared[1]}; od.repaired(dataset) (or --repair) settles what can be settled"
            )
        return image, size


class Pack:
    """Makes a Batch of items; sides are padded to a multiple of `divisible` pixels, as a detector's layers want."""

    def __init__(self, divisible: int) -> None:
        self.divisible = divisible

    def __call__(self, items: Sequence[Item]) -> Batch:
        sizes = np.array([item.image.shape[:0:-1] for item in items], np.int64).reshape(-1, 2)
        width, height = padded_size(sizes.max(0), self.divisible).tolist()
        images = torch.zeros(len(items), height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        for image, item in zip(images, items, strict=True):
            image[:, : item.image.shape[1], : item.image.shape[2]] = item.image
        changes = [item.change for item in items if item.change is not None]
        return Batch(
            images,
            sizes,
            np.concatenate([item.boxes for item in items], dtype=np.float32),
            np.concatenate([item.labels for item in items], dtype=np.int64),
            np.array([len(item.boxes) for item in items], np.int64),
            np.array([item.row for item in items], np.int64),
            np.array([item.original for item in items], np.int64),
            Changes(*map(np.concatenate, zip(*changes, strict=True))) if changes else None,
        )


def evaluation_loader(
    images: DetectionImages,
    views: Sequence[int],
    *,
    batch_size: int,
    num_workers: int,
    divisible: int = 32,
    pin: bool = False,
    timeout: float = 0,
    kept: bool = False,
) -> Any:
    """A DataLoader over the given views, without augmentation; one that is `kept` keeps its workers for the next time.

    Views of one padded size share a batch, so that what is found in an image does not depend on its neighbours (the
    padding reaches a detector's features).

    A batch that takes a worker longer than `timeout` seconds (0: no limit) raises RuntimeError; see `next_batch`.
    """
    return DataLoader(
        images,
        batch_sampler=_alike(images, np.asarray(views, np.int64), batch_size, divisible),
        num_workers=num_workers,
        collate_fn=Pack(divisible),
        pin_memory=pin,
        worker_init_fn=settle,
        persistent_workers=kept and num_workers > 0,
        prefetch_factor=PREFETCH if num_workers else None,
        timeout=timeout if num_workers else 0,
        generator=torch.Generator(),  # its own: judging draws nothing that training would draw
    )


def _alike(
    images: DetectionImages, views: NDArray[np.int64], batch_size: int, divisible: int
) -> list[list[int]]:
    """Views in batches of one padded size, in order; those whose size is unknown are taken by themselves."""
    padded = padded_size(images.view_sizes(images.image_size)[views], divisible)
    batches = []
    for size in np.unique(padded, axis=0):
        same = views[(padded == size).all(1)]
        step = batch_size if size.all() else 1
        batches += [same[first : first + step].tolist() for first in range(0, len(same), step)]
    return batches


def choose_workers(
    num_workers: int, *, batch_size: int, image_size: int, processes: int = 1
) -> tuple[int, str]:
    """Data workers for each of some processes, and why: no more than the machine bears, and /dev/shm holds batches of.

    Args:
        num_workers: What was set; -1: nothing was.
        batch_size: Images a batch of one process.
        image_size: Longer side of an image, in pixels.
        processes: Processes of this machine that load data.
    """
    wanted, reason, cores = num_workers, "as set", cpu_count()
    if num_workers > (most := most_workers() // processes):  # on a larger machine, perhaps
        wanted, reason = most, f"{num_workers} were set, and {cores} cores bear no more"
    if num_workers < 0:
        # one is left for the process that trains; more than 16 feed any GPU
        wanted, reason = min(16, max(1, cores // processes - 1)), f"{cores} cores for {processes} process(es)"
    width, height = padded_size(np.array(fit_size(4, 3, image_size)), 32).tolist()
    fit, why = workers_that_fit(wanted * processes, batch_size * width * height * 3, prefetch=PREFETCH)
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


def next_batch(batches: Iterator[Any], limit: float, stop: Callable[[], bool] = lambda: False) -> Any:
    """The next batch; None after the last, or where `stop` says that nobody waits for it.

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
                if stop():
                    return None


def settle(worker: int) -> None:
    """A data worker's beginning: one thread, deaf to Ctrl-C, an end with its parent, no hold on the run's lock.

    And room for the path of the socket by which its batches go: without one they would be lost without a word to the
    process that waits for them. (Python 3.14 sees to it by itself.)
    """
    tempfile.tempdir = sockets_parent()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the parent, which may want its last batches
    open_all_files()
    end_with_parent(signal.SIGKILL)  # one that hangs would not notice
    # the run's lock is its training process' alone: a hung data worker must not hold it beyond that one's end. Only
    # a forked one has it: elsewhere (macOS, Python 3.14) that number is another file's.
    if workers_fork() and (handle := os.environ.get(LOCK_VARIABLE)):
        with contextlib.suppress(OSError):
            os.close(int(handle))


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
