"""A detector over a dataset or over loose images: Predictions in pixels of the original upright images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from odkit.data import IMAGE_SUFFIXES, Dataset, ImageReadError, Predictions, upright_size
from odkit.data.formats import list_images
from odkit.detection.batch import Batch, Inputs
from odkit.detection.detector import Detector
from odkit.detection.devices import pick_device
from odkit.detection.loading import (
    DataWorkerError,
    DetectionImages,
    choose_workers,
    evaluation_loader,
    last_line,
    next_batch,
    start_epoch,
    workers_fork,
)
from odkit.detection.onnx_detector import OnnxDetector
from odkit.detection.pixels import prepare
from odkit.detection.tiles import SMALLEST_TILE, Found, Seen, Tiling, merge_views
from odkit.system import InputError, MissingFileError, cpu_count, progress_bar

FEW_IMAGES = 64  # under so many, starting data workers costs more than they bring


def predict(
    detector: Detector | OnnxDetector,
    dataset: Dataset,
    *,
    score: float = 0.0,
    tiles: int = -1,
    batch_size: int = 8,
    num_workers: int = -1,
    device: str | torch.device = "auto",
    precision: torch.dtype | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Predictions:
    """What a detector finds in every image of a dataset.

    Where images are seen as tiles, what is found in them is merged (`merge_views`), up to 1000 objects an image: of a
    crowd, more than `od.evaluate` looks at by default (its `max_detections`).

    Args:
        detector: Left as it was found: training or evaluation mode, device.
        dataset: Its boxes play no part.
        score: Predictions with a lower score are left out.
        tiles: Side in pixels of the tiles that images are looked at in, each resized as the detector resizes images;
            0: images are seen whole, -1: as the detector was trained.
        batch_size: Images at once.
        num_workers: Processes that decode images; 0: this one, -1: as many as pay (`workers_that_pay`).
        device: Where to compute: "cpu", "cuda", "cuda:1", "mps"; "auto": where the detector is if that is a GPU, else
            what training would choose.
        precision: torch.bfloat16 or float16 for autocast; None: float32.
        stop: Asked after each batch; once true, the predictions know only the images that were looked at.

    Raises:
        ImageReadError: An image cannot be read; the message names it.
        InputError: There is no such device, or a number is out of range.
    """
    place, num_workers = _place(detector, dataset, device, batch_size, num_workers)
    rows = predict_rows(
        detector,
        dataset,
        range(len(dataset)),
        tiles=tiles,
        batch_size=batch_size,
        num_workers=num_workers,
        device=place,
        precision=precision,
        stop=stop,
    )
    if len(rows) < len(dataset):
        seen = sorted(rows)
        dataset, rows = dataset.select(seen), {place: rows[row] for place, row in enumerate(seen)}
    return gather(rows, dataset, detector.class_names).above(score)


def features(
    detector: Detector,
    dataset: Dataset,
    *,
    batch_size: int = 8,
    num_workers: int = -1,
    device: str | torch.device = "auto",
) -> NDArray[np.float32]:
    """What a detector's backbone makes of every image of a dataset: numbers that are alike where images look alike.

    The mean of each of the backbone's feature maps over an image, each level's part of length 1 so that none outweighs
    the others, one after the other. Images are seen whole, also by detectors trained on tiles.

    Args:
        detector: Of any family; left as it was found.
        dataset: Its boxes play no part.
        batch_size: Images at once.
        num_workers: Processes that decode images; 0: this one, -1: as many as pay.
        device: Where to compute, as for `predict`.

    Returns:
        Float32 [N, D], a row an image; D depends on the detector (288 for the starter; 0 without an image).

    Raises:
        ImageReadError: An image cannot be read; the message names it.
        InputError: There is no such device, or a number is out of range.
    """
    place, num_workers = _place(detector, dataset, device, batch_size, num_workers)
    images = DetectionImages(dataset, image_size=detector.image_size, square=detector.square)
    loader = evaluation_loader(
        images,
        range(len(dataset)),
        batch_size=batch_size,
        num_workers=num_workers,
        divisible=detector.divisible,
        pin=place.type == "cuda",
        timeout=5.0,
    )
    found: dict[int, NDArray[np.float32]] = {}
    bar = progress_bar(total=len(dataset), desc="looking at images", unit="image", delay=2)
    with bar, _evaluating(detector, place), torch.inference_mode():
        for _, batch in _whole_batches(loader, images, 300.0):
            inputs = prepare(batch, place, mean=detector.mean, std=detector.std)
            maps = detector.family.features(detector.module, inputs.images)
            found.update(zip(batch.rows.tolist(), _pooled(maps, inputs).cpu().numpy(), strict=True))
            bar.update(len(batch))
    return np.stack([found[row] for row in range(len(dataset))]) if found else np.zeros((0, 0), np.float32)


def _pooled(maps: Sequence[Tensor], inputs: Inputs) -> Tensor:
    """The mean of each map [B, C, h, w] over an image without its padding, each of length 1: [B, sum of C]."""
    height, width = inputs.images.shape[-2:]
    parts = []
    for one in maps:
        ends = [(-(-h * one.shape[2] // height), -(-w * one.shape[3] // width)) for h, w in inputs.sizes]
        means = [image[:, :y, :x].float().mean((1, 2)) for image, (y, x) in zip(one, ends, strict=True)]
        parts.append(F.normalize(torch.stack(means), dim=1))
    return torch.cat(parts, 1)


def _place(
    detector: Detector | OnnxDetector,
    dataset: Dataset,
    device: str | torch.device,
    batch_size: int,
    num_workers: int,
) -> tuple[torch.device, int]:
    """Where a detector computes and how many processes decode for it, where a person left it open."""
    if batch_size < 1 or num_workers < -1:
        raise InputError(
            f"batch_size must be 1 or more, num_workers -1 or more, not {batch_size} and {num_workers}"
        )
    if isinstance(detector, OnnxDetector):
        place = _where_opened(detector, device)
    else:
        here = next(detector.parameters()).device
        place = here if device == "auto" and here.type != "cpu" else pick_device(device)
    if num_workers < 0:
        num_workers, _ = workers_that_pay(
            place, len(dataset), batch_size=batch_size, image_size=detector.image_size
        )
    return place, num_workers


def _where_opened(detector: OnnxDetector, device: str | torch.device) -> torch.device:
    """Where torch has a part in what a file computes: on the host; the file itself computes where it was opened."""
    if (
        str(device) not in ("auto", str(detector.device))
        and torch.device(device).type != detector.device.type
    ):
        raise InputError(
            f"{detector.path} was opened to be computed on {detector.device}; "
            f"od.load_detector({str(detector.path)!r}, device={str(device)!r}) opens it for another place"
        )
    return torch.device("cpu")


def predict_rows(
    detector: Detector | OnnxDetector,
    dataset: Dataset,
    rows: Sequence[int],
    *,
    tiles: int = -1,
    batch_size: int = 8,
    num_workers: int = 0,
    device: str | torch.device | None = None,
    precision: torch.dtype | None = None,
    worker_timeout: float = 300.0,
    stop: Callable[[], bool] = lambda: False,
) -> dict[int, Found]:
    """What is found in some images: row to (boxes float32 [n, 4], scores float32 [n], classes int32 [n]).

    Once `stop()` is true, the rows so far are returned.

    Raises:
        DataWorkerError: A process that decodes images died, or took more than `worker_timeout` seconds (0: no limit).
        ImageReadError: An image cannot be read.
        InputError: `tiles` is out of range.
    """
    if isinstance(detector, OnnxDetector):
        if precision is not None:
            raise InputError(f"{detector.path} has the number format that it was written in, and no other")
        device = torch.device("cpu")
    else:
        device = torch.device(device) if device is not None else next(detector.parameters()).device
    tiling = _tiling(detector, tiles)
    images = DetectionImages(dataset, image_size=detector.image_size, square=detector.square, tiling=tiling)
    views = rows if tiling is None else np.flatnonzero(np.isin(images.views.images, list(rows))).tolist()
    loader = evaluation_loader(
        images,
        views,
        batch_size=batch_size,
        num_workers=num_workers,
        divisible=detector.divisible,
        pin=device.type == "cuda",
        timeout=min(5.0, worker_timeout or 5.0),
    )
    merged = _Merged(images)
    bar = progress_bar(total=len(views), desc="predicting", unit="tile" if tiling else "image", delay=2)
    # moved outside of inference mode: parameters made within could not be trained after
    with bar, _evaluating(detector, device), torch.inference_mode(), autocast(device, precision):
        for batch_views, batch in _whole_batches(loader, images, worker_timeout):
            merged.take(batch_views, batch, _found(batch, detector(batch)))
            bar.update(len(batch))
            if stop():
                break
    return merged.found


def _tiling(detector: Detector | OnnxDetector, tiles: int) -> Tiling | None:
    """How images are cut for a detector: as it was trained (-1), not at all (0), or into tiles of so many pixels."""
    if tiles < 0:
        return detector.tiling
    if tiles == 0:
        return None
    if detector.tiling is not None and detector.tiling.size == tiles:
        return detector.tiling
    if tiles < SMALLEST_TILE:
        raise InputError(f"tiles must be 0 or {SMALLEST_TILE} pixels and more, not {tiles}")
    return Tiling(tiles, tiles // 5, whole=True)  # what SAHI takes where nothing is known of the boxes


class _Merged:
    """What was found in images, from what was found in their views as they come in."""

    def __init__(self, images: DetectionImages) -> None:
        self.images = images
        self.found: dict[int, Found] = {}
        self._seen: dict[int, list[Seen]] = {}
        self._views = np.bincount(images.views.images, minlength=len(images.dataset))

    def take(self, views: Sequence[int], batch: Batch, found: Sequence[Found]) -> None:
        """Take up a batch; an image is there with its last view."""
        tiling, all_views = self.images.tiling, self.images.views
        for index, (view, row) in enumerate(zip(views, batch.rows.tolist(), strict=True)):
            if tiling is None or self._views[row] == 1:
                self.found[row] = found[index]
                continue
            part, (boxes, scores, classes) = all_views.parts[view], found[index]
            boxes = boxes + np.tile(part[:2], 2).astype(np.float32)
            pixel = float((batch.originals[index] / batch.sizes[index]).max())
            seen = self._seen.setdefault(row, [])
            seen.append(Seen(part, bool(all_views.tiles[view]), (boxes, scores, classes), pixel))
            if len(seen) == self._views[row]:
                width, height = self.images.dataset.image_sizes[row].tolist()
                self.found[row] = merge_views(self._seen.pop(row), width, height, tiling)


def _found(batch: Batch, outputs: Sequence[dict[str, Tensor]]) -> list[Found]:
    """What was found in each view, in pixels of the original from the view's corner; one message from the device."""
    table = torch.cat(
        [
            torch.cat([one["boxes"], one["scores"][:, None], one["labels"][:, None].float()], 1)
            for one in outputs
        ]
    )
    ends = np.cumsum([len(one["scores"]) for one in outputs])
    parts = np.split(table.cpu().numpy(), ends[:-1])
    found = []
    for size, original, part in zip(batch.sizes, batch.originals, parts, strict=True):
        factors = np.tile(original / size, 2).astype(np.float32)
        found.append((part[:, :4] * factors, part[:, 4].copy(), part[:, 5].astype(np.int32)))
    return found


def workers_that_pay(
    device: torch.device, images: int, *, batch_size: int, image_size: int
) -> tuple[int, str]:
    """Data workers for predicting, and why: those that training would have, where they are worth their start.

    Args:
        device: Where the detector computes; a CPU needs most of its cores for that.
        images: Number of images.
        batch_size: Images at once.
        image_size: Longer side of an image, in pixels.
    """
    if images < FEW_IMAGES:
        return 0, f"{images} images are decoded sooner than workers start"
    if not workers_fork():
        return 0, "workers start slowly on this system"
    cores = cpu_count()
    wanted = -1 if device.type != "cpu" else cores // 4
    if wanted == 0:
        return 0, f"{cores} cores are busy computing"
    return choose_workers(wanted, batch_size=batch_size, image_size=image_size)


def gather(rows: dict[int, Found], dataset: Dataset, class_names: Sequence[str]) -> Predictions:
    """What `predict_rows` found in every image of a dataset as Predictions; each image counts once."""
    nothing = (np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    parts = [rows.get(row, nothing) for row in range(len(dataset))]
    return Predictions.from_images(parts, tuple(class_names), tuple(dataset.image_ids))


def images_dataset(path: str | Path, class_names: Sequence[str] = ("object",)) -> Dataset:
    """An image file, or all images under a folder (those that `load_dataset` would find), as a Dataset without boxes.

    Raises:
        MissingFileError: There is no such file, or no image in the folder.
        InputError: The name of a file is no text.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise MissingFileError(f"no file or folder at {path}")
    files = [path] if path.is_file() else [path / image for image in list_images(path)]
    if not files:
        raise MissingFileError(f"no images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {path}")
    for file in files:
        if any("\ud800" <= letter <= "\udfff" for letter in file.name):  # bytes that are no UTF-8
            raise InputError(
                f"the name of {str(file)!a} is no text, so no label can name it. Rename the file"
            )
    return Dataset(
        name=path.stem,
        root=path.parent if path.is_file() else path,
        format="images",
        class_names=tuple(class_names),
        image_paths=np.array([str(f) for f in files], object),
        image_sizes=np.array([upright_size(file) for file in files], np.int32),
        boxes=np.zeros((0, 4), np.float32),
        box_classes=np.zeros(0, np.int32),
        box_images=np.zeros(0, np.int32),
    )


def autocast(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[Any]:
    """Autocast to a lower precision on the device, or nothing."""
    return torch.autocast(device.type, dtype=precision) if precision is not None else nullcontext()


def _whole_batches(
    loader: Any, images: DetectionImages, limit: float
) -> Iterator[tuple[Sequence[int], Batch]]:
    """A loader's batches and their views; where its workers die or hang, an error with the images that were next."""
    batches = start_epoch(loader)
    for views in loader.batch_sampler:
        try:
            yield views, next_batch(batches, limit)
        except DataWorkerError as error:
            rows = dict.fromkeys(images.views.images[views].tolist())
            files = ", ".join(str(images.dataset.image_paths[row]) for row in rows)
            raise DataWorkerError(f"a data worker died or hung ({error}) at one of: {files}") from error
        except ImageReadError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise ImageReadError(last_line(error)) from None  # without the worker's traceback before it


@contextmanager
def _evaluating(detector: Detector | OnnxDetector, device: torch.device) -> Iterator[None]:
    """The detector in evaluation mode on the device; after it as it was, where it was."""
    if isinstance(detector, OnnxDetector):
        yield
        return
    was_training, here = detector.training, next(detector.parameters()).device
    detector.to(device).eval()
    try:
        yield
    finally:
        detector.to(here).train(was_training)
