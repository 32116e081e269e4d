"""How fast a detector is at use, and what memory it takes: measured in a process that does nothing else.

A process of its own, because memory that another detector has left behind would be counted, threads of one runtime
disturb those of another, and what crashes takes nothing with it.
"""

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import psutil
import torch
from torch import Tensor

from odkit.data import Dataset, Predictions, Texts
from odkit.detection.benchmark import Measured, Pace, Timing
from odkit.detection.detector import Detector, load_detector
from odkit.detection.devices import DTYPES
from odkit.detection.inference import _evaluating, _found, _Merged, autocast, predict
from odkit.detection.loading import DetectionImages, Pack, read_image
from odkit.detection.onnx_detector import OnnxDetector
from odkit.detection.openvino_file import OpenVinoSession
from odkit.system import OdkitError, cpu_count, end_with_parent, machine, package_path, write_file

LARGEST_BATCH = 64
SECONDS = 5.0
DRAWN = (640, 480)  # width and height of the drawn pictures, where no others are given
_PICTURES = 8  # decoded, and gone through in turn
_WARM, _LEAST, _MOST = 3, 5, 2000  # calls that are not counted; that are, at least and at most
_PATIENCE = 300.0  # seconds after which a process that has measured nothing is given up


class Apart(NamedTuple):
    """What came of measuring in a process of its own."""

    measured: Measured
    predictions: Predictions | None  # what was found in the dataset's images, where that was asked for


def measure_apart(
    row: Measured,
    *,
    dataset: Dataset | None = None,
    predicting: bool = False,
    seconds: float = SECONDS,
    largest_batch: int = LARGEST_BATCH,
    environment: Mapping[str, str] | None = None,
) -> Apart:
    """A row filled in by a process of its own; where that fails, or dies, the row says why.

    Args:
        row: Names `file`, `device`, `precision` and, for OpenVINO in place of onnxruntime, `runtime`: "openvino".
        dataset: Whose images to time on; None: drawn ones.
        predicting: Also predict on all images of the dataset.
        seconds: That are measured, about; a slow detector takes longer, because it is timed five times at least.
        largest_batch: Batch sizes up to this one are tried.
        environment: Of the process; None: this one's.
    """
    with tempfile.TemporaryDirectory(prefix="odkit-benchmark-") as folder:
        measured, found = Path(folder, "measured.json"), Path(folder, "found.npz")
        job: dict[str, Any] = {
            "row": row.to_dict(),
            "dataset": "",
            "seconds": seconds,
            "largest_batch": largest_batch,
            "measured": str(measured),
            "found": str(found) if predicting and dataset is not None else "",
        }
        if dataset is not None:
            dataset.save(Path(folder, "dataset.npz"))
            job["dataset"] = str(Path(folder, "dataset.npz"))
        own = {**(os.environ if environment is None else environment), "PYTHONPATH": package_path()}
        said = _work(job, measured, _PATIENCE + 10 * seconds, own)
        if not measured.exists():
            return Apart(replace(row, why_not=said or "its process ended without a word"), None)
        done = Measured.from_dict(orjson.loads(measured.read_bytes()))
        if job["found"] and not done.why_not and not found.exists():
            done = replace(done, why_not=said or "its process ended while it predicted")
        return Apart(done, Predictions.load(found) if found.exists() else None)


def _work(job: dict[str, Any], measured: Path, limit: float, environment: Mapping[str, str]) -> str:
    """Run a measuring process to its end; its last words where it failed."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "odkit.detection.latency"],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env=environment,
        )
        try:
            assert process.stdin is not None
            with process.stdin as pipe:
                pipe.write(orjson.dumps(job))
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                if not measured.exists():
                    return f"it has measured nothing in {limit:.0f} s"
                process.wait()  # it predicts, which takes as long as there are images
        except BrokenPipeError:
            process.wait()
        finally:
            process.kill()
            process.wait()
        if process.returncode == 0:
            return ""
        said.seek(max(0, said.seek(0, os.SEEK_END) - 4096))
        words = [line.strip() for line in said.read().decode(errors="replace").splitlines() if line.strip()]
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{hint}"
        return words[-1] if words else f"its process ended with status {process.returncode}"


# -- in the process ----------------------------------------------------------------------------------------------------


def measure(
    row: Measured,
    *,
    dataset: Dataset | None = None,
    seconds: float = SECONDS,
    largest_batch: int = LARGEST_BATCH,
) -> Measured:
    """A row filled in by this process, see `measure_apart`.

    Raises:
        MissingFileError, InputError: The file is none, or does not fit.
    """
    torch.set_num_threads(min(torch.get_num_threads(), cpu_count()))  # of a container's share of the cores
    place = _place(row)
    pictures, pixels = _pictures(dataset)
    memory, clock = _Memory(place, own=Path(row.file).suffix == ".onnx"), _Clock()
    detector = _opened(row, place)
    subject = _Subject(detector, pictures, pixels, place)
    # in the order in which memory grows, so that each figure is of what came before it
    with _evaluating(detector, place), torch.inference_mode(), autocast(place, _precision(row)):
        latency, network = _timings(subject.whole, subject.network, seconds=seconds * 0.6)
        paces: list[Pace] = []
        while pace := _next_pace(subject, paces, seconds * 0.1, largest_batch, memory):
            paces.append(pace)
    return replace(
        row,
        runtime=subject.runtime,
        device=str(place),
        image_size=detector.image_size,
        threads=subject.threads,
        latency=latency,
        network=network,
        paces=tuple(paces),
        loaded_bytes=memory.before,
        others=clock.others(),
    )


def _place(row: Measured) -> torch.device:
    """Where a row is computed: "auto" is a GPU for onnxruntime if it is built for one."""
    if row.device != "auto":
        return torch.device(row.device)
    import onnxruntime

    return torch.device("cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu")


def _opened(row: Measured, place: torch.device) -> Detector | OnnxDetector:
    detector = load_detector(row.file, device=place)
    if row.runtime == "openvino" and isinstance(detector, OnnxDetector):
        detector.session = OpenVinoSession(detector.path)
    return detector


def _precision(row: Measured) -> torch.dtype | None:
    """What autocast takes; an exported file has its number format in itself."""
    return None if Path(row.file).suffix in (".onnx", ".xml") else DTYPES[row.precision]


class _Subject:
    """A detector, pictures to time it on, and the two things that are timed."""

    def __init__(
        self,
        detector: Detector | OnnxDetector,
        pictures: Dataset,
        pixels: Sequence[Tensor],
        place: torch.device,
    ) -> None:
        self.detector, self.place = detector, place
        self.images = _Decoded(pictures, pixels, detector)
        self.pack = Pack(detector.divisible)
        runtime, self.threads = "torch", torch.get_num_threads()
        if isinstance(detector, OnnxDetector):
            runtime = detector.runtime
            self.threads = cpu_count()
        self.runtime = f"{runtime} {version(runtime)}"
        self._next = 0
        self._packed = itertools.cycle([self.pack([self.images[view]]) for view in range(len(pictures))])

    def whole(self, batch_size: int = 1) -> int:
        """From decoded pictures to boxes in their pixels, so many at once; how many pictures that were.

        Where pictures are looked at in tiles, it is one picture, and so many tiles at once.
        """
        tiled = self.images.tiling is not None
        rows = [(self._next + k) % len(self.images.dataset) for k in range(1 if tiled else batch_size)]
        self._next = (rows[-1] + 1) % len(self.images.dataset)
        views = np.flatnonzero(self.images.views.images == rows[0]).tolist() if tiled else rows
        merged = _Merged(self.images)
        for first in range(0, len(views), batch_size):
            part = views[first : first + batch_size]
            batch = self.pack([self.images[view] for view in part])
            merged.take(part, batch, _found(batch, self.detector(batch)))  # a GPU is waited for
        return len(rows)

    def network(self) -> None:
        """The detector alone, on one picture, or tile, that is resized and packed."""
        self.detector(next(self._packed))
        if self.place.type == "cuda":
            torch.cuda.synchronize(self.place)


class _Decoded(DetectionImages):
    """Pictures that were decoded before: what is timed begins behind the disk."""

    def __init__(
        self, pictures: Dataset, pixels: Sequence[Tensor], detector: Detector | OnnxDetector
    ) -> None:
        how: dict[str, Any] = {"square": detector.square, "tiling": detector.tiling}
        super().__init__(pictures, image_size=detector.image_size, **how)
        self._pixels = pixels

    def _image(self, row: int, _: object) -> tuple[Tensor, tuple[int, int]]:
        image = self._pixels[row]
        return image, (image.shape[-1], image.shape[-2])


def _pictures(dataset: Dataset | None) -> tuple[Dataset, list[Tensor]]:
    """What is timed on, with its pixels, uint8 [3, H, W]."""
    if dataset is not None:
        chosen = dataset.select(timed_on(dataset)).select_boxes([])
        return chosen, [read_image(path) for path in chosen.image_paths]
    width, height = DRAWN
    blocks = np.random.default_rng(0).integers(0, 256, (_PICTURES, 3, height // 20, width // 20), np.uint8)
    drawn = Dataset(
        name="drawn",
        root=Path(),
        class_names=("object",),
        image_paths=Texts.of(f"{k}.png" for k in range(_PICTURES)),
        image_sizes=np.array([DRAWN] * _PICTURES, np.int32),
        boxes=np.zeros((0, 4), np.float32),
        box_classes=np.zeros(0, np.int32),
        box_images=np.zeros(0, np.int32),
    )
    return drawn, list(torch.from_numpy(blocks.repeat(20, 2).repeat(20, 3)))


def timed_on(dataset: Dataset) -> list[int]:
    """The rows of the images that are timed on: of the size that most have, from all over the dataset."""
    _, kind, counts = np.unique(dataset.image_sizes, axis=0, return_inverse=True, return_counts=True)
    same = np.flatnonzero(kind.reshape(-1) == counts.argmax())
    places = np.linspace(0, len(same) - 1, min(_PICTURES, len(same))).round().astype(int)
    rows: list[int] = same[places].tolist()
    return rows


def _timings(*things: Callable[[], object], seconds: float) -> list[Timing]:
    """How long each of some things takes, in milliseconds.

    They are done in turn, so that a machine that is busy for a while is so for all of them, and a few times first to
    warm up.
    """
    for do in things * _WARM:
        do()
    times: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(times) < _LEAST or (time.perf_counter() < end and len(times) < _MOST):
        row = []
        for do in things:
            began = time.perf_counter()
            do()
            row.append((time.perf_counter() - began) * 1000)
        times.append(row)
    median, p95 = np.percentile(times, (50, 95), axis=0).tolist()
    return [
        Timing(median=middle, p95=high, count=len(times)) for middle, high in zip(median, p95, strict=True)
    ]


def _next_pace(
    subject: _Subject, paces: Sequence[Pace], seconds: float, largest: int, memory: "_Memory"
) -> Pace | None:
    """The pace at the next batch size, twice the last; None where a larger one promises nothing more."""
    batch_size = 1
    if paces:
        batch_size = 2 * paces[-1].batch_size
        speeds = [pace.images_per_second for pace in paces]
        level = len(speeds) > 2 and max(speeds[-2:]) < 1.02 * max(speeds[:-2])
        if batch_size > largest or level or speeds[-1] < 0.9 * max(speeds):
            return None
        if subject.place.type == "cpu" and paces[-1].memory > machine.memory_free_bytes():
            return None  # what it may take on top
    try:
        subject.whole(batch_size)
        began, count = time.perf_counter(), 0
        while not count or time.perf_counter() - began < seconds:
            count += subject.whole(batch_size)
        speed = count / (time.perf_counter() - began)
    except Exception:  # out of memory, in a runtime's own words, or a file of a fixed batch size
        if not paces:
            raise
        return None
    return Pace(batch_size=batch_size, images_per_second=speed, memory=memory.most())


class _Memory:
    """The most bytes that were held at once from its making on, beyond what was held then.

    On a GPU torch counts its own; what another runtime takes there (`own=True`) shows in what the device has left, and
    such a runtime gives nothing back.
    """

    def __init__(self, place: torch.device, *, own: bool) -> None:
        self._place, self._own = place, own
        if place.type == "cuda" and not own:
            torch.cuda.reset_peak_memory_stats(place)
        machine.memory_peak_bytes(restart=True)
        self.before = self._now()

    def most(self) -> int:
        return max(0, self._now() - self.before)

    def _now(self) -> int:
        if self._place.type != "cuda":
            return machine.memory_peak_bytes()
        if not self._own:
            return int(torch.cuda.max_memory_allocated(self._place))
        free, total = torch.cuda.mem_get_info(self._place)
        return int(total - free)


class _Clock:
    """How many cores others keep busy from its making on."""

    def __init__(self) -> None:
        self._began = self._now()

    def others(self) -> float:
        wall, all_busy, own = (now - then for now, then in zip(self._now(), self._began, strict=True))
        return max(0.0, (all_busy - own) / max(wall, 1e-9))

    def _now(self) -> tuple[float, float, float]:
        """Seconds: of the wall, of all cores' work, of this process' work."""
        times, own = psutil.cpu_times(), psutil.Process().cpu_times()
        return (
            time.monotonic(),
            times.user + times.system + getattr(times, "nice", 0.0),
            own.user + own.system,
        )


def _main() -> None:
    """What `measure_apart` starts: a job on stdin, the row into a file, and what was found into another."""
    end_with_parent(signal.SIGKILL)
    job = orjson.loads(sys.stdin.buffer.read())
    row = Measured.from_dict(job["row"])
    dataset = Dataset.load(job["dataset"]) if job["dataset"] else None
    try:
        row = measure(row, dataset=dataset, seconds=job["seconds"], largest_batch=job["largest_batch"])
    except OdkitError as error:
        row = replace(row, why_not=str(error))
    write_file(Path(job["measured"]), orjson.dumps(row.to_dict()))
    if job["found"] and dataset is not None and not row.why_not:
        detector = _opened(row, torch.device(row.device))
        predict(detector, dataset, device=row.device, precision=_precision(row)).save(job["found"])


if __name__ == "__main__":
    _main()
