"""A detector over whatever there is to look at: Predictions in pixels of the original upright images."""

import itertools
import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from odkit.data import (
    Dataset,
    HeldPicture,
    ImageReadError,
    Predictions,
    Texts,
    Video,
    VideoFrame,
    is_camera,
    is_held,
    read_pixels,
)
from odkit.detection.batch import Batch, Inputs
from odkit.detection.detector import Detector
from odkit.detection.devices import pick_device
from odkit.detection.loading import (
    DataWorkerError,
    DetectionImages,
    Item,
    choose_workers,
    evaluation_loader,
    last_line,
    next_batch,
    start_epoch,
    workers_fork,
)
from odkit.detection.onnx_detector import OnnxDetector
from odkit.detection.pictures import Pictures, Stream, find_pictures
from odkit.detection.pixel_cache import PixelCache
from odkit.detection.pixels import prepare
from odkit.detection.tiles import SMALLEST_TILE, Found, Seen, Tiling, merge_views
from odkit.system import InputError, counted, cpu_count, most_workers, progress_bar

FEW_IMAGES = 64  # under so many, starting data workers costs more than they bring
LARGEST_TILE = 2**16  # pixels
AHEAD = 2  # batches of a video that are decoded while another is looked at


def predict(
    detector: Detector | OnnxDetector,
    source: Any,
    *,
    score: float = 0.0,
    tiles: int = -1,
    batch_size: int = 8,
    num_workers: int = -1,
    device: str | torch.device = "auto",
    precision: torch.dtype | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Predictions:
    """What a detector finds in every image of a dataset, in pictures, videos, or what a camera shows.

        found = od.predict(detector, "photos")                     # or detector.predict("photos")
        found = od.predict(detector, ["a.jpg", array, pil_image])

    Where images are seen as tiles, what is found in them is merged (`merge_views`), up to 1000 objects an image: of a
    crowd, more than `od.evaluate` looks at by default (its `max_detections`).

    A picture among several that cannot be read is left out of the predictions, and a warning says so. Of a Dataset it
    is an error: `od.repaired(dataset)` leaves such images out. And so it is of an iterator, whose pictures are known by
    their place alone.

    Args:
        detector: Left as it was found: training or evaluation mode, device.
        source: One of these, or a list of several:
            - a Dataset (by itself; its boxes play no part),
            - the path of a picture or a video, a folder (the pictures below it), a pattern such as "*/left*.jpg",
            - a PIL image of any mode, turned as its EXIF block says,
            - an array [H, W, 3] or [H, W], or [B, H, W, 3]; a tensor [3, H, W] or [B, 3, H, W]: uint8, or floats 0
              to 1, upright, RGB (OpenCV reads BGR: give `image[..., ::-1]`),
            - a camera, as 0 or "camera:0": looked at until `stop` says so or Ctrl-C ends it,
            - an iterator of pictures, looked at as they come.
            Videos and cameras need PyAV. Their pictures are not kept; `predict_stream` gives them one by one.
        score: Predictions with a lower score are left out, 0 to 1.
        tiles: Side in pixels of the tiles that images are looked at in, each resized as the detector resizes images;
            0: images are seen whole, -1: as the detector was trained.
        batch_size: Images at once; of a camera always one.
        num_workers: Processes that decode image files; 0: this one, -1: as many as pay (`workers_that_pay`).
        device: Where to compute: "cpu", "cuda", "cuda:1", "mps"; "auto": where the detector is if that is a GPU, else
            what training would choose.
        precision: torch.bfloat16 or float16 for autocast; None: float32.
        stop: Asked after each batch; once true, the predictions know only the images that were looked at.

    Raises:
        MissingFileError: There is nothing at a path, or no picture there.
        ImageReadError: An image of a dataset, or the only one, cannot be read; the message names it.
        InputError: There is no such device, a number is out of range, or this is nothing to look at.
        VideoError: A video or camera cannot be opened.
        MissingPackageError: PyAV is not installed.
    """
    if not 0 <= score <= 1:
        raise InputError(f"score must be from 0 to 1, not {score}")
    _refuse_other(detector)
    if isinstance(source, Dataset | Pictures | Stream):
        parts = [Pictures(source) if isinstance(source, Dataset) else source]
    else:
        parts = find_pictures(source, detector.class_names)
    place = _place(detector, device, batch_size, num_workers)
    how = {"tiles": tiles, "batch_size": batch_size, "device": place, "precision": precision, "stop": stop}
    looked: list[Predictions] = []
    unread: list[str] = []
    with _evaluating(detector, place):  # once, not for every part
        for part in parts:
            if isinstance(part, Stream):
                looked.append(_look_at_stream(detector, part, score, **how))
            else:
                forgiving = None if part.dataset is source else unread
                looked.append(_look_at_pictures(detector, part, num_workers, forgiving, **how))
            if stop():
                break
    found = Predictions.joined(looked)
    if unread:
        _say_unread(unread, alone=not found.image_ids)
    return found.above(score)


def _refuse_other(detector: Any) -> None:
    if not isinstance(detector, Detector | OnnxDetector):
        raise InputError(
            f"a detector comes first, and this is a {type(detector).__name__}; od.load_detector() opens that of a run "
            "or a file"
        )


def _say_unread(unread: Sequence[str], *, alone: bool) -> None:
    """What is wrong with pictures that were left out: an error where there are no others."""
    if alone:
        few = len(unread) == 1
        raise ImageReadError(
            unread[0] if few else f"none of {len(unread):,} pictures can be read: {unread[0]}"
        )
    more = f"; and {len(unread) - 3:,} more" if len(unread) > 3 else ""
    what = f"{counted(len(unread), 'picture')} left out"
    warnings.warn(f"{what}: {'; '.join(unread[:3])}{more}", stacklevel=3)


class SeenFrame(NamedTuple):
    """A picture of a video, a camera or an iterator, and what was found in it, the surest first."""

    image_id: str
    pixels: NDArray[np.uint8]  # RGB [H, W, 3], upright
    seconds: float  # since the first picture; 0 of pictures without a time
    boxes: NDArray[np.float32]  # [n, 4] xyxy in pixels
    scores: NDArray[np.float32]  # [n]
    classes: NDArray[np.int32]  # [n] 0-based


def predict_stream(
    detector: Detector | OnnxDetector,
    source: Any,
    *,
    score: float = 0.0,
    tiles: int = -1,
    batch_size: int = 8,
    device: str | torch.device = "auto",
    precision: torch.dtype | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[SeenFrame]:
    """The pictures of a video, a camera or an iterator one by one, each with what a detector finds in it.

        for frame in od.predict_stream(detector, "clip.mp4", score=0.3):
            print(frame.seconds, len(frame.boxes))

    However long it is, no more than a few batches of pictures are in memory at once.

    Args:
        detector: In evaluation mode, on the device, until the last picture; then as it was found.
        source: Path of a video, a camera (0 or "camera:0"), or an iterator of pictures as `predict` takes
            them (`batch_size=1` where each is to be answered before the next one comes).
        score: What the detector is less sure of is left out, 0 to 1.
        tiles: As in `predict`, and so are `device` and `precision`.
        batch_size: Pictures at once; of a camera always one.
        device: Where to compute.
        precision: Number format of convolutions.
        stop: Asked after each picture; once true, the stream ends.

    Raises:
        InputError: This is no video, camera or iterator, or one of its pictures is none.
        VideoError: A video or camera cannot be opened.
        MissingPackageError: PyAV is not installed.
    """
    _refuse_other(detector)
    place = _place(detector, device, batch_size, 0)
    how: dict[str, Any] = {
        "tiles": tiles,
        "batch_size": batch_size,
        "device": place,
        "precision": precision,
    }
    part = source.stream if isinstance(source, OpenedStream) else as_stream(source)
    frames = source.frames if isinstance(source, OpenedStream) else _open(part)
    return _seen_frames(detector, part, frames, stop=stop, score=score, **how)


def as_stream(source: Any) -> Stream:
    """A source that is one video, camera or iterator.

    Raises:
        InputError: It is something else.
    """
    parts = [source] if isinstance(source, Stream) else find_pictures(source, ())
    part = parts[0]
    if len(parts) != 1 or not isinstance(part, Stream):
        raise InputError(
            "this takes one video, camera or iterator of pictures; od.predict() takes everything"
        )
    return part


class OpenedStream(NamedTuple):
    """A stream and its pictures, for who must know of a video before it begins."""

    stream: Stream
    frames: "Video | Iterator[VideoFrame]"

    @classmethod
    def of(cls, source: Any) -> "OpenedStream":
        """A video, camera or iterator, opened; see `predict_stream` for what it raises."""
        part = as_stream(source)
        return cls(part, _open(part))


def _look_at_pictures(
    detector: Detector | OnnxDetector, part: Pictures, num_workers: int, unread: list[str] | None, **how: Any
) -> Predictions:
    """What is found in pictures that are all there; those that cannot be read go into `unread`, if there is such."""
    dataset = part.dataset
    if part.held:
        num_workers = 0  # little is left to decode, and processes would be handed what is
    elif num_workers < 0:
        sizes = {"batch_size": how["batch_size"], "image_size": detector.image_size}
        num_workers, _ = workers_that_pay(how["device"], len(dataset), **sizes)
    rows = predict_rows(
        detector, dataset, range(len(dataset)), held=part.held, unread=unread, num_workers=num_workers, **how
    )
    seen = sorted(rows)
    found = [rows[row] for row in seen]
    return _with_images(
        found,
        detector,
        dataset.image_ids[seen].tolist(),
        dataset.image_sizes[seen],
        dataset.image_paths[seen].tolist(),
    )


def _look_at_stream(detector: Detector | OnnxDetector, part: Stream, score: float, **how: Any) -> Predictions:
    found = FoundFrames(detector)
    frames = _open(part)
    expected = frames.expected if isinstance(frames, Video) else 0
    seen = _seen_frames(detector, part, frames, score=score, **how)
    bar = progress_bar(total=expected or None, desc=f"predicting {part.name}", unit="image", delay=2)
    with bar, closing(seen):
        try:
            for frame in seen:
                found.take(frame)
                bar.update()
        except KeyboardInterrupt:
            if not is_camera(part.source):  # a camera has no other end
                raise
    return found.predictions()


class FoundFrames:
    """What was found in the pictures of a stream, without the pictures."""

    def __init__(self, detector: Detector | OnnxDetector) -> None:
        self._detector = detector
        self._ids: list[str] = []
        self._sizes: list[tuple[int, int]] = []
        self._found: list[Found] = []

    def take(self, frame: SeenFrame) -> None:
        """Take up what was found in a picture."""
        height, width = frame.pixels.shape[:2]
        self._ids.append(frame.image_id)
        self._sizes.append((width, height))
        self._found.append((frame.boxes, frame.scores, frame.classes))

    def predictions(self) -> Predictions:
        return _with_images(self._found, self._detector, self._ids, self._sizes, [""] * len(self._ids))


def _with_images(
    found: Sequence[Found],
    detector: Detector | OnnxDetector,
    ids: Sequence[str],
    sizes: Any,
    paths: Sequence[str],
) -> Predictions:
    predictions = Predictions.from_images(found, detector.class_names, tuple(ids))
    return replace(predictions, image_sizes=np.array(sizes, np.int32), image_paths=tuple(paths))


def _open(part: Stream) -> "Video | Iterator[VideoFrame]":
    return Video(part.source) if isinstance(part.source, str) else _given_frames(part)


def _given_frames(part: Stream) -> Iterator[VideoFrame]:
    """The pictures of somebody's iterator."""
    assert not isinstance(part.source, str)
    for number, one in enumerate(part.source):
        if isinstance(one, VideoFrame):
            yield one
        elif isinstance(one, str | os.PathLike):
            yield VideoFrame(read_pixels(os.fspath(one)), 0.0)
        elif is_held(one):
            yield VideoFrame(HeldPicture(one, part.id_of(number)).pixels(), 0.0)
        else:
            raise InputError(
                f"{part.id_of(number)}: the iterator gave a {type(one).__name__}, which is no picture"
            )


def _seen_frames(
    detector: Detector | OnnxDetector,
    part: Stream,
    frames: "Video | Iterator[VideoFrame]",
    *,
    score: float,
    batch_size: int,
    device: torch.device,
    stop: Callable[[], bool],
    **how: Any,
) -> Generator[SeenFrame]:
    """See `predict_stream`; closes a video at its end, and says what was damaged in it."""
    video = frames if isinstance(frames, Video) else None
    size = 1 if video is not None and video.live else batch_size
    each = iter(frames)
    ahead = AHEAD if video is not None and not video.live else 0  # somebody's iterator stays in their thread
    batches = _ahead(iter(lambda: list(itertools.islice(each, size)), []), ahead)
    numbers = itertools.count()
    try:
        with _evaluating(detector, device):
            for batch in batches:
                rows = _look_at_frames(detector, batch, batch_size=size, device=device, **how)
                for row, (pixels, seconds) in enumerate(batch):
                    boxes, scores, classes = rows[row]
                    keep = scores >= score
                    found = (boxes[keep], scores[keep], classes[keep])
                    yield SeenFrame(part.id_of(next(numbers)), pixels, seconds, *found)
                    if stop():
                        return
    finally:
        batches.close()  # before the video: a thread may be reading it
        if video is not None:
            video.close()
            if video.damaged:
                warnings.warn(f"{video.name} is damaged: what could not be decoded is left out", stacklevel=2)


def _look_at_frames(
    detector: Detector | OnnxDetector, frames: Sequence[VideoFrame], **how: Any
) -> dict[int, Found]:
    held = {row: HeldPicture(frame.pixels, "picture") for row, frame in enumerate(frames)}
    dataset = Dataset(
        class_names=detector.class_names,
        image_paths=Texts.of([""] * len(frames)),
        image_ids=Texts.of(range(len(frames))),
        image_sizes=np.array([picture.size for picture in held.values()], np.int32),
        boxes=np.zeros((0, 4), np.float32),
        box_classes=np.zeros(0, np.int32),
        box_images=np.zeros(0, np.int32),
    )
    return predict_rows(detector, dataset, range(len(frames)), held=held, watched=False, **how)


_T = TypeVar("_T")


def _ahead(items: Iterator[_T], depth: int) -> Generator[_T]:
    """The same items, none of them None; so many of them are made ahead by a thread, which ends with this."""
    if not depth:
        yield from items
        return
    with ThreadPoolExecutor(1) as pool:
        coming = deque(pool.submit(next, items, None) for _ in range(depth))
        while (item := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, items, None))
            yield item


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
    place = _place(detector, device, batch_size, num_workers)
    if num_workers < 0:
        num_workers, _ = workers_that_pay(
            place, len(dataset), batch_size=batch_size, image_size=detector.image_size
        )
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
    detector: Detector | OnnxDetector, device: str | torch.device, batch_size: int, num_workers: int
) -> torch.device:
    """Where a detector computes; what cannot be is said before the work."""
    if batch_size < 1 or num_workers < -1:
        raise InputError(
            f"batch_size must be 1 or more, num_workers -1 or more, not {batch_size} and {num_workers}"
        )
    if num_workers > (most := most_workers()):
        raise InputError(
            f"num_workers is {num_workers:,}, each a process of some 200 MB: {most} are the most with "
            f"{counted(cpu_count(), 'core')}. -1 chooses by cores and memory"
        )
    if isinstance(detector, OnnxDetector):
        return _where_opened(detector, device)
    here = next(detector.parameters()).device
    return here if device == "auto" and here.type != "cpu" else pick_device(device)


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
    held: Mapping[int, HeldPicture] | None = None,
    unread: list[str] | None = None,
    watched: bool = True,
    loader: Any = None,
) -> dict[int, Found]:
    """What is found in some images: row to (boxes float32 [n, 4], scores float32 [n], classes int32 [n]).

    Once `stop()` is true, the rows so far are returned. Pictures in memory are `held`, by row. Where there is a list
    `unread`, what is wrong with images that cannot be read is put into it, and they are left out. Progress is shown
    where it is `watched`. Who looks at the same rows again may give the `rows_loader` of them.

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
    if loader is None:
        loader = rows_loader(
            detector,
            dataset,
            rows,
            tiles=tiles,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
            worker_timeout=worker_timeout,
            held=held,
        )
    images: DetectionImages = loader.dataset
    merged = _Merged(images)
    unit, number = "tile" if images.tiling else "image", sum(map(len, loader.batch_sampler))
    bar = progress_bar(total=number, desc="predicting", unit=unit, delay=2) if watched else _Unwatched()
    # moved outside of inference mode: parameters made within could not be trained after
    with bar, _evaluating(detector, device), torch.inference_mode(), autocast(device, precision):
        for batch_views, batch in _whole_batches(loader, images, worker_timeout, unread):
            merged.take(batch_views, batch, _found(batch, detector(batch)))
            bar.update(len(batch))
            if stop():
                break
    return merged.found


def rows_loader(
    detector: Detector | OnnxDetector,
    dataset: Dataset,
    rows: Sequence[int],
    *,
    tiles: int = -1,
    batch_size: int = 8,
    num_workers: int = 0,
    device: torch.device,
    worker_timeout: float = 300.0,
    held: Mapping[int, HeldPicture] | None = None,
    cache: PixelCache | None = None,
    kept: bool = False,
) -> Any:
    """The images of some rows as `predict_rows` looks at them; see there, and `evaluation_loader`.

    Resized images are kept in a `cache` made for the dataset's views as the detector sees them.
    """
    tiling = _tiling(detector, tiles)
    images = DetectionImages(
        dataset,
        image_size=detector.image_size,
        square=detector.square,
        tiling=tiling,
        held=held or {},
        cache=cache,
    )
    views = rows if tiling is None else np.flatnonzero(np.isin(images.views.images, list(rows))).tolist()
    return evaluation_loader(
        images,
        views,
        batch_size=batch_size,
        num_workers=num_workers,
        divisible=detector.divisible,
        pin=device.type == "cuda",
        timeout=min(5.0, worker_timeout or 5.0),
        kept=kept,
    )


def _tiling(detector: Detector | OnnxDetector, tiles: int) -> Tiling | None:
    """How images are cut for a detector: as it was trained (-1), not at all (0), or into tiles of so many pixels."""
    if not -1 <= tiles <= LARGEST_TILE:
        raise InputError(
            f"tiles must be {SMALLEST_TILE} to {LARGEST_TILE:,} pixels, not {tiles}; 0: whole images, -1: as trained"
        )
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


def autocast(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[Any]:
    """Autocast to a lower precision on the device, or nothing."""
    return torch.autocast(device.type, dtype=precision) if precision is not None else nullcontext()


class _Unwatched(nullcontext["_Unwatched"]):
    """In place of a progress bar."""

    def __enter__(self) -> "_Unwatched":
        return self

    def update(self, count: int) -> None:
        pass


def _whole_batches(
    loader: Any, images: DetectionImages, limit: float, unread: list[str] | None = None
) -> Iterator[tuple[Sequence[int], Batch]]:
    """A loader's batches and their views; where its workers die or hang, an error with the images that were next.

    Where there is a list `unread`, images that cannot be read are named in it and left out of their batch.
    """
    batches = start_epoch(loader)
    bad: set[int] = set()  # rows
    for views in loader.batch_sampler:
        try:
            yield views, next_batch(batches, limit)
        except DataWorkerError as error:
            rows = dict.fromkeys(images.views.images[views].tolist())
            files = ", ".join(str(images.dataset.image_paths[row]) for row in rows)
            raise DataWorkerError(f"a data worker died or hung ({error}) at one of: {files}") from error
        except ImageReadError as error:
            if unread is not None:
                good = _readable(images, views, bad, unread)
                if good:
                    yield [view for view, _ in good], loader.collate_fn([item for _, item in good])
            elif "DataLoader worker" in str(error):
                raise ImageReadError(last_line(error)) from None  # without the worker's traceback before it
            else:
                raise


def _readable(
    images: DetectionImages, views: Sequence[int], bad: set[int], unread: list[str]
) -> list[tuple[int, Item]]:
    """Those views of a batch that can be read, read once more; the others' images go into `bad`, and why."""
    good = []
    for view in views:
        row = int(images.views.images[view])
        if row in bad:
            continue
        try:
            good.append((view, images[view]))
        except ImageReadError as error:
            bad.add(row)
            unread.append(str(error))
    return good


@contextmanager
def _evaluating(detector: Detector | OnnxDetector, device: torch.device) -> Iterator[None]:
    """The detector in evaluation mode on the device; after it as it was, where it was."""
    if isinstance(detector, OnnxDetector):
        yield
        return
    here = next(detector.parameters()).device
    training = [part for part in detector.modules() if part.training]
    if here != device:  # moving what is there already costs more than looking at a small picture on a GPU
        detector.to(device)
    if training:
        detector.eval()
    try:
        yield
    finally:
        if here != device:
            detector.to(here)
        for part in training:
            part.training = True
