"""A detector over a dataset or over loose images: Predictions in pixels of the original upright images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from odkit.data import IMAGE_SUFFIXES, Dataset, ImageReadError, Predictions, upright_size
from odkit.data.formats import list_images
from odkit.detection.batch import Batch
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
from odkit.system import InputError, MissingFileError, cpu_count, progress_bar

Found = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]
FEW_IMAGES = 64  # under so many, starting data workers costs more than they bring


def predict(
    detector: Detector,
    dataset: Dataset,
    *,
    score: float = 0.0,
    batch_size: int = 8,
    num_workers: int = -1,
    device: str | torch.device = "auto",
    precision: torch.dtype | None = None,
) -> Predictions:
    """What a detector finds in every image of a dataset.

    Args:
        detector: Left as it was found: training or evaluation mode, device.
        dataset: Its boxes play no part.
        score: Predictions with a lower score are left out.
        batch_size: Images at once.
        num_workers: Processes that decode images; 0: this one, -1: as many as pay (`workers_that_pay`).
        device: Where to compute: "cpu", "cuda", "cuda:1", "mps"; "auto": where the detector is if that is a GPU, else
            what training would choose.
        precision: torch.bfloat16 or float16 for autocast; None: float32.

    Raises:
        ImageReadError: An image cannot be read; the message names it.
        InputError: There is no such device, or a number is out of range.
    """
    if batch_size < 1 or num_workers < -1:
        raise InputError(
            f"batch_size must be 1 or more, num_workers -1 or more, not {batch_size} and {num_workers}"
        )
    here = next(detector.parameters()).device
    place = here if device == "auto" and here.type != "cpu" else pick_device(device)
    if num_workers < 0:
        num_workers, _ = workers_that_pay(
            place, len(dataset), batch_size=batch_size, image_size=detector.image_size
        )
    rows = predict_rows(
        detector,
        dataset,
        range(len(dataset)),
        batch_size=batch_size,
        num_workers=num_workers,
        device=place,
        precision=precision,
    )
    return gather(rows, dataset, detector.class_names).above(score)


def predict_rows(
    detector: Detector,
    dataset: Dataset,
    rows: Sequence[int],
    *,
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
    """
    device = torch.device(device) if device is not None else next(detector.parameters()).device
    images = DetectionImages(dataset, image_size=detector.image_size, square=detector.square)
    loader = evaluation_loader(
        images,
        rows,
        batch_size=batch_size,
        num_workers=num_workers,
        divisible=detector.divisible,
        pin=device.type == "cuda",
        timeout=min(5.0, worker_timeout or 5.0),
    )
    found: dict[int, Found] = {}
    bar = progress_bar(total=len(rows), desc="predicting", unit="image", delay=2)
    # moved outside of inference mode: parameters made within could not be trained after
    with bar, _evaluating(detector, device), torch.inference_mode(), autocast(device, precision):
        for batch in _whole_batches(loader, dataset, worker_timeout):
            found.update(_found(batch, detector(batch)))
            bar.update(len(batch))
            if stop():
                break
    return found


def _found(batch: Batch, outputs: Sequence[dict[str, Tensor]]) -> Iterator[tuple[int, Found]]:
    """Each image's row and what was found in it, in pixels of the original image; one message from the device."""
    table = torch.cat(
        [
            torch.cat([one["boxes"], one["scores"][:, None], one["labels"][:, None].float()], 1)
            for one in outputs
        ]
    )
    ends = np.cumsum([len(one["scores"]) for one in outputs])
    parts = np.split(table.cpu().numpy(), ends[:-1])
    for row, size, original, part in zip(
        batch.rows.tolist(), batch.sizes, batch.originals, parts, strict=True
    ):
        factors = np.tile(original / size, 2).astype(np.float32)
        yield row, (part[:, :4] * factors, part[:, 4].copy(), part[:, 5].astype(np.int32))


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
    """
    path = Path(path).absolute()
    if not path.exists():
        raise MissingFileError(f"no file or folder at {path}")
    files = [path] if path.is_file() else [path / image for image in list_images(path)]
    if not files:
        raise MissingFileError(f"no images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {path}")
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


def _whole_batches(loader: Any, dataset: Dataset, limit: float) -> Iterator[Batch]:
    """A loader's batches; where its workers die or hang, an error with the images that were next."""
    batches = start_epoch(loader)
    for rows in loader.batch_sampler:
        try:
            yield next_batch(batches, limit)
        except DataWorkerError as error:
            files = ", ".join(str(dataset.image_paths[row]) for row in rows)
            raise DataWorkerError(f"a data worker died or hung ({error}) at one of: {files}") from error
        except ImageReadError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise ImageReadError(last_line(error)) from None  # without the worker's traceback before it


@contextmanager
def _evaluating(detector: Detector, device: torch.device) -> Iterator[None]:
    """The detector in evaluation mode on the device; after it as it was, where it was."""
    was_training, here = detector.training, next(detector.parameters()).device
    detector.to(device).eval()
    try:
        yield
    finally:
        detector.to(here).train(was_training)
