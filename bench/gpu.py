"""odkit on a GPU: does it compute what it should, does it live through what goes wrong, and how fast is it?

python bench/gpu.py [PART ...] [--device cuda] [--quick] [--minutes 8.5] [--out FOLDER]

Without a PART all of them, in the order of PARTS at the end of this file. Each prints a table, writes FOLDER/PART.json,
and leaves out what it has no time for after --minutes, saying so. A row with ok = False is a check that failed, and the
exit status is then 1. `--device cpu --quick` goes the same ways in small, to try the script itself: its figures mean
nothing. It needs no FiftyOne and no network, and all data is drawn here (BCCD is taken where ODKIT_BCCD names it).
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import orjson
import psutil
import torch
import torchvision
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import boxes as box_ops

PROJECT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(PROJECT)]  # so that a checkout will do

from odkit.analysis import evaluate  # noqa: E402
from odkit.data import Dataset  # noqa: E402
from odkit.data.demo import demo_dataset  # noqa: E402
from odkit.data.formats import load_dataset  # noqa: E402
from odkit.detection import (  # noqa: E402
    Batch,
    Detector,
    Item,
    Pack,
    autocast,
    best_precision,
    build_detector,
    catalogue_entry,
    list_detectors,
    predict,
    save_detector,
)
from odkit.detection.devices import DTYPES  # noqa: E402
from odkit.detection.pixels import prepare  # noqa: E402
from odkit.runs import Run, Settings, create_run, prepare_torch  # noqa: E402
from odkit.system import machine  # noqa: E402
from odkit.training.augment import draw  # noqa: E402
from odkit.training.average import Average  # noqa: E402
from odkit.training.batches import EpochSampler, TrainingImages, training_loader  # noqa: E402
from odkit.training.errors import is_out_of_memory  # noqa: E402
from odkit.training.loop import total_loss, train_epoch  # noqa: E402
from odkit.training.recipe import choose, make_optimizer  # noqa: E402
from odkit.training.recovery import fitting_micro_batch_size, images_that_fit  # noqa: E402

Row = dict[str, Any]
CLASSES = tuple(f"class {k}" for k in range(90))


@dataclass
class Bench:
    """What the parts are told: where to compute, how thoroughly, and until when."""

    device: torch.device
    quick: bool
    folder: Path  # pictures and runs
    minutes: float = 8.5  # a part
    left_out: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def cases(self, cases: Iterable[Any]) -> Iterator[Any]:
        """The cases, the important ones first; those for which no time is left are noted."""
        for case in cases:
            if time.monotonic() - self.began < 60 * self.minutes:
                yield case
            else:
                self.left_out.append(str(case))

    def seconds_left(self) -> float:
        return max(10.0, 60 * self.minutes - (time.monotonic() - self.began))

    def demo(self, images: int = 200) -> Dataset:
        images = 24 if self.quick else images
        return demo_dataset(images, folder=self.folder / f"demo-{images}")

    def precisions(self) -> list[str]:
        return ["fp32", "bf16"] if self.device.type == "cpu" else ["fp32", "bf16", "fp16"]

    def time(self, detector: str, size: int, batch: int, **options: Any) -> Row:
        """Stages of a training step, timed in a process of its own; options as `time_stages` has them."""
        small = {"warm": 1, "timed": 2} if self.quick else {}
        chosen = {"precision": best_precision(self.device)[0], **small, **options}
        return call(
            "time_stages",
            detector=detector,
            image_size=size,
            batch_size=batch,
            device=str(self.device),
            seconds=self.seconds_left() + 30,
            **chosen,
        )

    def settings(self, **settings: Any) -> Settings:
        """Settings of a run here; in a quick one they are made small."""
        small = {"image_size": 64, "epochs": 2, "batch_size": 4, "num_workers": 0} if self.quick else {}
        return Settings(**{"device": str(self.device), **small, **settings})

    def train(self, dataset: Dataset, name: str, *, wait: bool = True, **settings: Any) -> Run:
        """A run in a worker process of its own."""
        run = create_run(dataset, self.settings(**settings), self.folder / "runs", name)
        run.start()
        return self.ended(run) if wait else run

    def ended(self, run: Run) -> Run:
        end = time.monotonic() + self.seconds_left() + 60
        while run.alive:
            if time.monotonic() > end:
                run.stop()
            time.sleep(0.05)
        return run


# -- what the parts, and tests/gpu, compare ----------------------------------------------------------------------------


def seeded_detector(name: str, *, image_size: int, weights: str = "random") -> Detector:
    """A detector of 90 classes, the same each time; Faster R-CNN learns from all candidates, not from some it draws."""
    torch.manual_seed(0)
    detector = build_detector(name, CLASSES, weights=weights, image_size=image_size)
    for part in ("rpn", "roi_heads"):
        if hasattr(detector.module, part):
            getattr(detector.module, part).fg_bg_sampler.batch_size_per_image = 2**20
    if hasattr(detector.module, "config"):  # D-FINE's noise is drawn by each device's own generator
        detector.module.config.num_denoising = 0
    return detector


def drawn_batch(detector: Detector, *, images: int, boxes: int = 7, augment: str = "none") -> Batch:
    """A batch of smooth noise with boxes of all sizes, as data workers hand it over."""
    rng = np.random.default_rng(0)
    side = detector.image_size
    size = np.array([side, side if detector.square else side * 3 // 4])
    items = []
    for row in range(images):
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
        picture = torch.from_numpy(np.array(coarse.resize(tuple(size)))).permute(2, 0, 1)
        sides = rng.uniform(0.05, 0.5, (boxes, 2)) * size
        corner = rng.uniform(0, 1, (boxes, 2)) * (size - sides)
        labels = rng.integers(len(detector.class_names), size=boxes)
        there = np.hstack([corner, corner + sides]).astype(np.float32)
        change, there, labels = draw(augment, rng, *size.tolist(), there, labels)
        items.append(
            Item(picture, there, labels, row, tuple(size.tolist()), None if augment == "none" else change)
        )
    batch: Batch = Pack(detector.divisible)(items)
    return batch


@contextlib.contextmanager
def seen_by_nms() -> Iterator[set[torch.dtype]]:
    """The number formats of boxes and scores that reach torchvision's batched_nms while inside."""
    seen: set[torch.dtype] = set()

    def spied(function: Callable[..., Any]) -> Callable[..., Any]:
        def spy(boxes: torch.Tensor, scores: torch.Tensor, *rest: Any) -> Any:
            seen.update((boxes.dtype, scores.dtype))
            return function(boxes, scores, *rest)

        return spy

    names = ("_batched_nms_coordinate_trick", "_batched_nms_vanilla")
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(box_ops, name, spied(getattr(box_ops, name))))
        yield seen


def loss_and_gradient(
    detector: Detector, batch: Batch, device: torch.device, precision: torch.dtype | None
) -> dict[str, float]:
    """The losses of a batch by term, and the norm of their gradient, of a copy of the detector on a device."""
    state = {key: value.clone() for key, value in detector.state_dict().items()}
    detector.to(device).train()
    with autocast(device, precision):
        losses = detector(batch)
    total_loss(losses).backward()
    norms = [p.grad.float().norm() for p in detector.parameters() if p.grad is not None]
    figures = {name: float(value.detach()) for name, value in losses.items()}
    figures["gradient"] = float(torch.stack(norms).norm())
    detector.zero_grad(set_to_none=True)
    detector.to("cpu").load_state_dict(state)  # batch norms have counted the batch
    return figures


def found_by(
    detector: Detector, batch: Batch, device: torch.device, precision: torch.dtype | None
) -> tuple[list[dict[str, torch.Tensor]], set[torch.dtype]]:
    """What a detector finds in a batch, and the number formats that reached NMS on the way."""
    detector.to(device).eval()
    with torch.inference_mode(), autocast(device, precision), seen_by_nms() as seen:
        found = [{key: value.cpu() for key, value in one.items()} for one in detector(batch)]
    detector.to("cpu")
    return found, seen


def worst_error(figures: dict[str, float], reference: dict[str, float]) -> float:
    """The largest relative error of any figure."""
    return max(abs(figures[name] - value) / max(abs(value), 1e-6) for name, value in reference.items())


@contextlib.contextmanager
def without_tf32(off: bool = True) -> Iterator[None]:
    """Float32 as such: convolutions on a GPU are computed in tf32 otherwise."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    if off:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


# relative errors that may be met: the terms have random weights behind them, so a candidate more or less shows
TOLERANCE = {"fp32": 2e-3, "tf32": 3e-2, "bf16": 1.5e-1, "fp16": 3e-2}


def compared(name: str, device: torch.device, kinds: Iterable[str], *, image_size: int) -> list[Row]:
    """A detector's losses and gradient in each precision beside those on the CPU, and what reaches NMS."""
    detector = seeded_detector(name, image_size=max(image_size, catalogue_entry(name).smallest))
    batch = drawn_batch(detector, images=2)
    reference = loss_and_gradient(detector, batch, torch.device("cpu"), None)
    rows = []
    for kind in kinds:
        with without_tf32(kind == "fp32"):
            figures = loss_and_gradient(detector, batch, device, DTYPES.get(kind))
            found, seen = found_by(detector, batch, device, DTYPES.get(kind))
        error = worst_error(figures, reference)
        finite = all(bool(one["boxes"].isfinite().all()) for one in found)
        rows.append(
            {
                "what": name,
                "precision": kind,
                "worst error": error,
                "at NMS": ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in seen)),
                "ok": error <= TOLERANCE[kind] and finite and seen <= {torch.float32},
                "figures": figures,
                "reference": reference,
            }
        )
    return rows


def duplicates_left(device: torch.device, number_of_class: int, *, objects: int = 200, side: int = 48) -> int:
    """How many doubled boxes of separate objects survive NMS on a device: none should."""
    across = 1024 // (side + 4)
    at = torch.arange(objects)
    corner = torch.stack([at % across, at // across], 1) * (side + 4.0)
    boxes = torch.cat([corner, corner + side], 1)
    boxes = torch.cat([boxes, boxes + 3.0])
    scores = torch.linspace(1, 0.1, len(boxes))
    labels = torch.full((len(boxes),), number_of_class)
    labels[::objects] = 0  # other classes are there too, as they are in life
    kept = box_ops.batched_nms(boxes.to(device), scores.to(device), labels.to(device), 0.5).cpu()
    return int((kept >= objects).sum())


class _Waits(TorchDispatchMode):
    """Counts, on any device, operations that a GPU would have to be waited for, by where they are called.

    Copies to the host (`tolist()`, `cpu()`) are none of them on a CPU; on a GPU CUDA's own warnings count those too.
    """

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.sites: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__.split(".")[0]
        masked = name in ("index", "index_put_") and any(
            torch.is_tensor(index) and index.dtype == torch.bool for index in args[1] if index is not None
        )
        if name in self.WAITING or masked:
            self.sites[f"{_call_site()} {name}"] += 1
        return function(*args, **(kwargs or {}))


def waits(step: Callable[[], None], device: torch.device) -> Counter[str]:
    """How often the device is waited for in a step, by place: on a CUDA device counted by CUDA's own warnings."""
    if device.type != "cuda":
        with _Waits() as counted:
            step()
        return counted.sites
    sites: Counter[str] = Counter()

    def show(message: Any, *_: Any, **__: Any) -> None:
        if "synchronizing" in str(message):
            sites[_call_site()] += 1

    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sites


def _call_site() -> str:
    """The innermost line of odkit, else of anything but torch and this file, that is being executed."""
    frames = [f for f in traceback.extract_stack() if f.filename != __file__]
    for package in (PROJECT / "odkit", Path(torchvision.__file__).parent):
        for frame in reversed(frames):
            if Path(frame.filename).is_relative_to(package):
                return f"{Path(frame.filename).relative_to(package.parent)}:{frame.lineno}"
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "autograd"


@dataclass
class Steps:
    """A detector with what a training step needs, as the trainer has it."""

    detector: Detector
    optimizer: torch.optim.Optimizer
    average: Average
    scaler: torch.amp.GradScaler
    device: torch.device
    precision: torch.dtype | None

    def train(self, batch: Batch) -> None:
        """One step through odkit's own loop."""
        loop = train_epoch(
            self.detector,
            [batch],
            self.optimizer,
            self.scaler,
            self.average,
            rate=lambda: 1.0,
            micro_batch_size=len(batch.rows),
            precision=self.precision,
            clip=5.0,
        )
        for _ in loop:
            pass


def make_steps(name: str, *, image_size: int, device: torch.device, precision: str, **switches: Any) -> Steps:
    torch.manual_seed(0)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    detector = build_detector(name, CLASSES[:20], weights="random", image_size=image_size)
    layout = torch.channels_last if switches.get("channels_last", True) else torch.contiguous_format
    detector = detector.to(device).to(memory_format=layout).train()
    torch.backends.cudnn.benchmark = switches.get("cudnn_benchmark", False)
    if switches.get("compile"):
        detector.module.backbone.compile(dynamic=True)
    choices = choose(Settings(detector=name, device=str(device), image_size=image_size), device, 1000)
    return Steps(
        detector,
        make_optimizer(detector, choices, 1.0),
        Average(detector, 0.995),
        torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        device,
        DTYPES[precision],
    )


def waits_of_a_step(name: str, device: torch.device, *, image_size: int, images: int) -> Counter[str]:
    """Where a training step waits for the device, and how often."""
    steps = make_steps(name, image_size=image_size, device=device, precision=best_precision(device)[0])
    batch = drawn_batch(steps.detector, images=images)
    steps.train(batch)  # what is set up once
    return waits(lambda: steps.train(batch), device)


# -- functions that run in a process of their own ----------------------------------------------------------------------


def call(
    name: str, *, environment: dict[str, str] | None = None, seconds: float = 500, **arguments: Any
) -> Row:
    """What a function of CALLS returns in a new process; {"error": its last words} where it fails or is killed."""
    command = [sys.executable, __file__, "--call", name, json.dumps(arguments)]
    variables = {**os.environ, **(environment or {})}
    prepare_torch(variables)  # as a training worker has it
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {seconds:.0f} s"}
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(ANSWER):
            answer: Row = json.loads(line.removeprefix(ANSWER))
            return answer
    return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300]}


ANSWER = "answer: "


def work_under(path: str, *, fraction: float = 1.0, files: int = 0, fault_at: int = 0) -> Row:
    """Train a run in this process: with a share of the GPU's memory, few open files, or a wrong label on the device."""
    from odkit.training import work

    run = Run(path)
    device = torch.device(run.settings.device)
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if device.type == "cuda" and fraction < 1:
        torch.cuda.set_per_process_memory_fraction(fraction, device)
    forward, calls = Detector.forward, itertools.count(1)

    def faulty(self: Detector, *args: Any, **kwargs: Any) -> Any:
        if self.training and next(calls) == fault_at:
            torch.zeros(5, device=device)[torch.tensor([99], device=device)].sum().item()
        return forward(self, *args, **kwargs)

    with mock.patch.object(Detector, "forward", faulty if fault_at else forward):
        began = time.monotonic()
        status = work(path)
    row: Row = {"status": status, "seconds": time.monotonic() - began}
    if device.type == "cuda" and not fault_at:
        figures = torch.cuda.memory_stats()
        row["allocation_retries"] = figures["num_alloc_retries"]
        row["held_but_unused_bytes"] = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return row


def find_fitting(detector: str, image_size: int, device: str, fraction: float, data: str, wanted: int) -> Row:
    """How many images fit at once under a share of the GPU's memory, and what the trials leave behind of it.

    `wanted` images and fewer are tried; 0: what training foresees from two small trials.
    """
    place = torch.device(device)
    steps = make_steps(detector, image_size=image_size, device=place, precision=best_precision(place)[0])
    cuda = place.type == "cuda"
    if cuda:
        torch.cuda.set_per_process_memory_fraction(fraction, place)
    before = torch.cuda.memory_allocated() if cuda else 0
    began = time.monotonic()
    options: Row = {"multi_scale": 0.0, "precision": steps.precision}
    if wanted:
        fitting = fitting_micro_batch_size(steps.detector, Dataset.load(data), wanted, **options).images
    else:
        fitting = images_that_fit(steps.detector, Dataset.load(data), **options)
    after = torch.cuda.memory_allocated() if cuda else 0
    return {"fitting": fitting, "left_bytes": after - before, "seconds": time.monotonic() - began}


class Clock:
    """Times of stages: CUDA events on a GPU, which do not wait for it, else the wall clock."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.marks: list[Any] = []

    def mark(self) -> None:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def milliseconds(self) -> list[float]:
        """Between each mark and the next."""
        if self.cuda:
            torch.cuda.synchronize()
            return [first.elapsed_time(second) for first, second in itertools.pairwise(self.marks)]
        return [1000 * (second - first) for first, second in itertools.pairwise(self.marks)]


def time_stages(
    detector: str,
    image_size: int,
    batch_size: int,
    device: str,
    precision: str,
    *,
    boxes: int = 7,
    augment: str = "none",
    warm: int = 20,
    timed: int = 40,
    profile: int = 0,
    **switches: Any,
) -> Row:
    """Milliseconds of the stages of a training step on a batch from the host, and what memory it takes."""
    place = torch.device(device)
    steps = make_steps(detector, image_size=image_size, device=place, precision=precision, **switches)
    batch = drawn_batch(steps.detector, images=batch_size, boxes=boxes, augment=augment)
    trained = [p for p in steps.detector.parameters() if p.requires_grad]
    if place.type == "cuda":
        batch = batch._replace(images=batch.images.pin_memory())

    def step(clock: Clock) -> None:
        steps.optimizer.zero_grad(set_to_none=True)
        clock.mark()
        prepare(
            batch, place, mean=steps.detector.mean, std=steps.detector.std
        )  # the detector does it once more
        clock.mark()
        with autocast(place, steps.precision):
            loss = total_loss(steps.detector(batch))
        clock.mark()
        steps.scaler.scale(loss).backward()
        clock.mark()
        steps.scaler.unscale_(steps.optimizer)
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        steps.scaler.step(steps.optimizer)
        steps.scaler.update()
        clock.mark()
        steps.average.update()
        clock.mark()

    try:
        for _ in range(warm):
            step(Clock(place))
        clocks = [Clock(place) for _ in range(timed)]
        for clock in clocks:
            step(clock)
        stages = list(zip(*(clock.milliseconds() for clock in clocks), strict=True))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return {"error": "out of memory"}
    names = ("prepare_ms", "forward_ms", "backward_ms", "update_ms", "average_ms")
    row: Row = {name: statistics.median(times) for name, times in zip(names, stages, strict=True)}
    row["step_ms"] = sum(row.values()) - row["prepare_ms"]  # which forward_ms has in it
    row["images_per_second"] = 1000 * batch_size / row["step_ms"]
    if place.type == "cuda":
        row["peak_bytes"] = torch.cuda.max_memory_allocated()
    if profile:
        row |= _profiled(lambda: step(Clock(place)), place, profile)
    row["teraflops"] = _operations(steps, batch) / row["step_ms"] / 1e9
    return row


def _operations(steps: Steps, batch: Batch) -> int:
    """Floating point operations of a step's passes, as torch counts them: matrix products and convolutions alone."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        with autocast(steps.device, steps.precision):
            loss = total_loss(steps.detector(batch))
        loss.backward()
    return int(counter.get_total_flops())


def _profiled(step: Callable[[], None], device: torch.device, steps: int) -> Row:
    """Kernels a step, the share of the time that some kernel ran, and the kernels that took most of it."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]
    began = time.perf_counter()
    with profiler(activities=activities) as profiled:
        for _ in range(steps):
            step()
        if cuda:
            torch.cuda.synchronize()
    elapsed = 1e6 * (time.perf_counter() - began)
    spent = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = [e for e in profiled.key_averages() if not cuda or str(e.device_type).endswith("CUDA")]
    events.sort(key=lambda event: -getattr(event, spent))
    top = [f"{getattr(e, spent) / steps / 1000:.2f} ms {e.count // steps}x {e.key[:80]}" for e in events[:15]]
    return {
        "kernels_a_step": sum(event.count for event in events) // steps,
        "kernels_share": sum(getattr(event, spent) for event in events) / elapsed,
        "top": top,
    }


CALLS: dict[str, Callable[..., Row]] = {
    "work_under": work_under,
    "find_fitting": find_fitting,
    "time_stages": time_stages,
}


# -- parts: is it right? -----------------------------------------------------------------------------------------------


def facts(bench: Bench) -> list[Row]:
    """This machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    known: Row = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "device": str(bench.device),
        "cpu": _cpu_model(),
        "cores": machine.cpu_count(),
        "memory": machine.megabytes(machine.memory_total_bytes()),
        "shm": machine.megabytes(machine.shm_total_bytes() or 0),
        "open files": f"{soft} (at most {hard})",
        "container": machine.container() or "none",
        "best precision": ", ".join(best_precision(bench.device)),
    }
    if bench.device.type == "cuda":
        card = torch.cuda.get_device_properties(bench.device)
        known |= {
            "card": card.name,
            "card's memory": machine.megabytes(card.total_memory),
            "capability": f"{card.major}.{card.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _nvidia_smi("driver_version,clocks.max.sm,power.limit,mig.mode.current"),
        }
    doctor = [sys.executable, "-m", "odkit", "doctor", "--json"]
    if bench.device.type == "cuda":
        doctor.append("--need-gpu")
    said = subprocess.run(doctor, capture_output=True, text=True, cwd=PROJECT, timeout=300, check=False)
    (bench.folder / "doctor.json").write_text(said.stdout)
    known["doctor's exit status"] = said.returncode
    return [{"fact": key, "is": value} for key, value in known.items()]


def _cpu_model() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _nvidia_smi(what: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)


def correctness(bench: Bench) -> list[Row]:
    """Every detector: losses and gradient beside the CPU's in float32, and what reaches NMS."""
    rows: list[Row] = []
    names = ["starter", "ssdlite320_mobilenet_v3_large"] if bench.quick else [d["name"] for d in detectors()]
    for number in (0, 10, 40, 90):
        left = duplicates_left(bench.device, number)
        rows.append({"what": f"NMS, class {number}", "duplicates left": left, "ok": left == 0})
    kinds = [*bench.precisions(), *["tf32"] * (bench.device.type == "cuda")]
    for name in bench.cases(names):
        entry = catalogue_entry(name)
        size = max(entry.smallest, 128) if bench.quick else min(entry.image_size, 512)
        rows += compared(name, bench.device, kinds, image_size=size)
    return rows


def detectors() -> list[Row]:
    """The catalogue, a row a detector."""
    return [dict(row) for row in list_detectors()]


def learning(bench: Bench) -> list[Row]:
    """Some 60 steps in each precision: the loss falls, and nothing is warned of."""
    rows = []
    dataset = bench.demo(60)
    for precision in bench.cases(bench.precisions()):
        more = (
            {"epochs": 6, "learning_rate": 1e-3}
            if bench.quick
            else {"epochs": 12, "batch_size": 8, "image_size": 160}
        )
        run = bench.train(dataset, f"learning-{precision}", precision=precision, **more)
        losses = [event["loss"] for event in run.events() if event["event"] == "step"]
        few = max(1, len(losses) // 6)
        first, last = (
            statistics.mean(losses[:few] or [math.nan]),
            statistics.mean(losses[-few:] or [math.nan]),
        )
        rows.append(
            {
                "precision": precision,
                "state": run.state,
                "steps": len(losses),
                "first losses": first,
                "last losses": last,
                "ap": run.best.get("ap"),
                "scale": saved(run)["scaler"].get("scale") if run.checkpoints() else None,
                "warnings": warned(run),
                "ok": run.state == "finished" and last < first and not warned(run),
            }
        )
    return rows


def warned(run: Run) -> str:
    return "; ".join(f"{e['kind']}: {e['message']}" for e in run.events() if e["event"] == "warning")


def saved(run: Run) -> dict[str, Any]:
    """The newest checkpoint."""
    checkpoint: dict[str, Any] = torch.load(run.checkpoints()[-1], map_location="cpu", weights_only=True)
    return checkpoint


def largest_difference(first: Run, second: Run) -> float:
    """Between the weights, and their averages, at the ends of two runs."""
    a, b = saved(first), saved(second)
    pairs = [(a["detector"], b["detector"]), (a["average"]["detector"], b["average"]["detector"])]
    return max(
        float((one[key].double() - other[key].double()).abs().max())
        for one, other in pairs
        for key in one
        if one[key].numel()
    )


def broken_off(bench: Bench, dataset: Dataset, name: str, **settings: Any) -> Run:
    """A run that is stopped in the middle and resumed."""
    run = bench.train(dataset, name, wait=False, **settings)
    until(lambda: len(steps_of(run)) >= 3 or not run.alive, bench.seconds_left())
    run.stop()
    if run.state == "stopped":
        run.resume(wait=False)
    return bench.ended(run)


def steps_of(run: Run) -> list[Row]:
    return [event for event in run.events(raw=True) if event["event"] == "step"]


def until(ready: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def exactness(bench: Bench) -> list[Row]:
    """The same run again, and one that was broken off and resumed: how far apart are the weights at the end?"""
    rows: list[Row] = []
    dataset = bench.demo(60)
    size = {} if bench.quick else {"epochs": 4, "batch_size": 8, "image_size": 320}
    modes: list[Row] = [{"deterministic": True}, *[{}] * (not bench.quick)]
    for number, mode in enumerate(modes):
        for workers in bench.cases((2,) if bench.quick else (0, 4)):
            settings = {**size, **mode, "num_workers": workers}
            name = f"exact-{number}-{workers}"
            whole = bench.train(dataset, f"{name}-whole", **settings)
            again = bench.train(dataset, f"{name}-again", **settings)
            resumed = broken_off(bench, dataset, f"{name}-resumed", **settings)
            states = [run.state for run in (whole, again, resumed)]
            row: Row = {"workers": workers, "deterministic": bool(mode), "states": " ".join(states)}
            if set(states) == {"finished"}:
                row["again"] = largest_difference(whole, again)
                row["resumed"] = largest_difference(whole, resumed)
                row["images_per_second"] = speed_of(whole)["images_per_second"]
            # a GPU adds in no fixed order unless it is told to: how far apart is a figure there, and not a check
            exact = bench.device.type == "cpu" or mode
            row["ok"] = "again" in row and (not exact or row["again"] == row["resumed"] == 0.0)
            rows.append(row)
    return rows


def memory(bench: Bench) -> list[Row]:
    """A batch that does not fit: how soon it does, what is said, what is left of the trials."""
    dataset = bench.demo(100)
    data = bench.folder / "memory.npz"
    dataset.save(data)
    place, size, wanted = str(bench.device), 64 if bench.quick else 640, 8 if bench.quick else 64
    rows: list[Row] = []
    for name in bench.cases(["starter"] if bench.quick else ["starter", "retinanet_resnet50_fpn_v2"]):
        fraction = 1.0
        if bench.device.type == "cuda":  # twice what an eighth of the batch takes
            few = bench.time(name, size, wanted // 8, warm=2, timed=2)
            if "error" in few:
                rows.append({"what": name, **few, "ok": False})
                continue
            fraction = 2 * few["peak_bytes"] / torch.cuda.get_device_properties(bench.device).total_memory
        row = call("find_fitting", detector=name, image_size=size, device=place, fraction=min(1.0, fraction),
                   data=str(data), wanted=wanted)  # fmt: skip
        fits = "error" not in row and row["left_bytes"] == 0
        if bench.device.type == "cuda":
            fits = fits and 1 <= row["fitting"] < wanted
        rows.append({"what": f"{name}: trial", "fraction": fraction, **row, "ok": fits})
        settings = bench.settings(
            detector=name, weights="random", image_size=size, batch_size=wanted, epochs=1
        )
        run = create_run(dataset, settings, bench.folder / "runs", f"memory-{name}")
        row = call(
            "work_under", path=str(run.path), fraction=min(1.0, fraction), seconds=bench.seconds_left()
        )
        ok = run.state == "finished" and (bench.device.type == "cpu" or "out_of_memory" in warned(run))
        rows.append(
            {
                "what": f"{name}: run",
                "fraction": fraction,
                **row,
                "said": warned(run) or run.trouble(),
                "ok": ok,
            }
        )
    return rows


# waits for the GPU in a step; everything else is work that it can queue
FEW_WAITS = {"starter": 3, "fcos_resnet50_fpn": 3, "retinanet_resnet50_fpn_v2": 10}


def syncs(bench: Bench) -> list[Row]:
    """How often the GPU is waited for in one training step, and where."""
    rows = []
    names = (
        ["starter"]
        if bench.quick
        else [*FEW_WAITS, "ssdlite320_mobilenet_v3_large", "fasterrcnn_resnet50_fpn_v2"]
    )
    for name in bench.cases(names):
        entry = catalogue_entry(name)
        size = max(64, entry.smallest) if bench.quick else min(640, entry.image_size)
        sites = waits_of_a_step(name, bench.device, image_size=size, images=2 if bench.quick else 8)
        count = sum(sites.values())
        rows.append(
            {
                "what": name,
                "waits": count,
                "at most": FEW_WAITS.get(name),
                "most": ", ".join(f"{n}x {site}" for site, n in sites.most_common(6)),
                "sites": dict(sites.most_common()),
                "ok": count <= FEW_WAITS.get(name, count),
            }
        )
    return rows


# -- parts: does it live through what goes wrong? ----------------------------------------------------------------------


def faults(bench: Bench) -> list[Row]:
    """What goes wrong in life, made to happen: what is said, after how long, and whether the run goes on."""
    dataset = bench.demo(60)
    rows = []
    for fault in bench.cases([killed_data_worker, sigterm, wrong_label, wrong_device, two_on_one, few_files]):
        began = time.monotonic()
        for row in fault(bench, dataset):
            rows.append({"fault": fault.__name__, **row, "seconds": time.monotonic() - began})
            began = time.monotonic()
    return rows


def killed_data_worker(bench: Bench, dataset: Dataset) -> list[Row]:
    run = bench.train(dataset, "killed-data-worker", wait=False, num_workers=2, epochs=8)
    until(lambda: len(steps_of(run)) >= 2 or not run.alive, 120)
    killed = False
    for process in worker(run).children() if run.alive else []:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
            killed = True
    bench.ended(run)
    said = warned(run)
    return [
        {"state": run.state, "said": said, "ok": killed and run.state == "finished" and "data_worker" in said}
    ]


def worker(run: Run) -> psutil.Process:
    started = [event for event in run.events(raw=True) if event["event"] == "start"]
    return psutil.Process(started[-1]["machine"]["pid"])


def sigterm(bench: Bench, dataset: Dataset) -> list[Row]:
    run = bench.train(dataset, "sigterm", wait=False, epochs=8)
    until(lambda: len(steps_of(run)) >= 2 or not run.alive, 120)
    if run.alive:
        worker(run).send_signal(signal.SIGTERM)
    bench.ended(run)
    state, done = run.state, len(steps_of(run))
    if state == "stopped":
        bench.ended(run.resume(wait=False))
    row = {"state": f"{state}, then {run.state}", "said": f"{done} steps, {len(steps_of(run))} in all"}
    return [{**row, "ok": state == "stopped" and run.state == "finished"}]


def wrong_label(bench: Bench, dataset: Dataset) -> list[Row]:
    """An index beyond the classes, on the device: afterwards its context is spoilt for the whole process."""
    settings = bench.settings(epochs=3, checkpoint_steps=2)
    run = create_run(dataset, settings, bench.folder / "runs", "wrong-label")
    # the trial of memory is the first pass
    call("work_under", path=str(run.path), fault_at=5, seconds=bench.seconds_left())
    state, said = run.state, run.end.get("message", "")
    if state == "failed":
        bench.ended(run.resume(wait=False))
    return [
        {
            "state": f"{state}, then {run.state}",
            "said": said,
            "ok": state == "failed" and run.state == "finished",
        }
    ]


def wrong_device(bench: Bench, dataset: Dataset) -> list[Row]:
    run = bench.train(dataset, "wrong-device", device="cuda:63")
    said = run.end.get("message", "")
    return [{"state": run.state, "said": said, "ok": run.state == "failed" and "cuda:63" in said}]


def two_on_one(bench: Bench, dataset: Dataset) -> list[Row]:
    """Two processes: on a machine with one GPU that cannot be, and has to be said; on a CPU they share it."""
    run = bench.train(dataset, "two-processes", processes=2, batch_size=4, epochs=2,
                      device=bench.device.type)  # fmt: skip
    alone = bench.device.type == "cuda" and torch.cuda.device_count() == 1
    said = run.end.get("message", "")
    return [{"state": run.state, "said": said, "ok": run.state == ("failed" if alone else "finished")}]


def few_files(bench: Bench, dataset: Dataset) -> list[Row]:
    """Large batches under 1,024 open files, which is what new container engines allow."""
    rows, many = [], dataset if bench.quick else bench.demo(300)
    for batch in bench.cases([16] if bench.quick else [48, 96, 192]):
        settings = bench.settings(
            batch_size=min(batch, len(many.split("train"))),
            num_workers=2 if bench.quick else 8,
            image_size=160,
            epochs=2,
        )
        run = create_run(many, settings, bench.folder / "runs", f"few-files-{batch}")
        call("work_under", path=str(run.path), files=1024, seconds=min(200, bench.seconds_left()))
        said = warned(run) or run.trouble()
        rows.append(
            {"batch": batch, "state": run.state, "said": said, "ok": run.state == "finished" and not said}
        )
    return rows


# -- parts: how fast is it? --------------------------------------------------------------------------------------------

SIZES = [("starter", 320), ("starter", 640), ("retinanet_resnet50_fpn_v2", 640), ("fcos_resnet50_fpn", 640),
         ("fasterrcnn_resnet50_fpn_v2", 1024), ("retinanet_resnet50_fpn_v2", 1024),
         ("ssdlite320_mobilenet_v3_large", 320)]  # fmt: skip


def stages(bench: Bench) -> list[Row]:
    """Milliseconds of each stage of a step."""
    sizes = [("starter", 64)] if bench.quick else SIZES
    cases = [(name, size, batch, 7) for name, size in sizes for batch in ((2,) if bench.quick else (16, 64))]
    cases += [] if bench.quick else [("starter", 640, 16, boxes) for boxes in (50, 300)]
    rows = []
    for name, size, batch, boxes in bench.cases(cases):
        row = bench.time(name, size, batch, boxes=boxes)
        rows.append({"detector": name, "size": size, "batch": batch, "boxes": boxes, **row})
    return rows


def profiles(bench: Bench) -> list[Row]:
    """Kernels of a step, and those that take most of it."""
    rows = []
    for name, size in bench.cases([("starter", 64)] if bench.quick else SIZES[1:4]):
        row = bench.time(name, size, 2 if bench.quick else 16, profile=2 if bench.quick else 5)
        kept = {
            key: row[key]
            for key in ("step_ms", "kernels_a_step", "kernels_share", "top", "error")
            if key in row
        }
        rows.append({"detector": name, "size": size, **kept})
    return rows


SWITCHES: dict[str, Row] = {
    "as it is": {},
    "channels_last off": {"channels_last": False},
    "cudnn.benchmark": {"cudnn_benchmark": True},
    "expandable_segments off": {"environment": {"PYTORCH_ALLOC_CONF": "expandable_segments:False"}},
    "compile": {"compile": True},
    "fp32": {"precision": "fp32"},
    "strong augmentation": {"augment": "strong"},
}  # fmt: skip


def switches(bench: Bench) -> list[Row]:
    """One switch at a time."""
    sizes = [("starter", 64)] if bench.quick else [SIZES[1], SIZES[2]]
    few = ("channels_last off", "expandable_segments off", "strong augmentation")
    names = [name for name in SWITCHES if not bench.quick or name in few]  # a compiler alone takes a minute
    rows = []
    for (detector, size), name in bench.cases(itertools.product(sizes, names)):
        row = bench.time(detector, size, 2 if bench.quick else 16, **SWITCHES[name])
        rows.append({"detector": detector, "size": size, "switch": name, **row})
    return rows


def loader(bench: Bench) -> list[Row]:
    """Images a second that the data workers bring, with nobody computing."""
    small, size = bench.demo(200), 64 if bench.quick else 640
    sources = {
        "demo": small,
        "12 megapixels": enlarged(small, bench.folder / "large", 4 if bench.quick else 48),
    }
    workers = (2,) if bench.quick else sorted({4, 8, max(1, machine.cpu_count() - 1)}, reverse=True)
    kinds = ("none", "strong") if bench.quick else ("strong", "flip", "none", "photo")
    rows = []
    for source, count, augment in bench.cases(itertools.product(sources, workers, kinds)):
        dataset = sources[source]
        batch = 4 if bench.quick else 16
        images = TrainingImages(dataset, image_size=size, augment=augment)
        sampler = EpochSampler(len(dataset), batch)
        batches = training_loader(images, sampler, num_workers=count, pin=bench.device.type == "cuda")
        for _ in batches:  # workers start, files come into the system's cache
            pass
        sampler.epoch = 1
        began, busy, seen = time.perf_counter(), time.process_time(), 0
        while seen == 0 or (time.perf_counter() - began < (0 if bench.quick else 5)):
            seen += sum(batch for _ in batches)
            sampler.epoch += 1
        elapsed = time.perf_counter() - began
        rows.append(
            {
                "pictures": source,
                "workers": count,
                "augment": augment,
                "images_per_second": seen / elapsed,
                "main process busy": (time.process_time() - busy) / elapsed,
            }
        )
    return rows


def enlarged(dataset: Dataset, folder: Path, images: int) -> Dataset:
    """The first images of a dataset as a 12-megapixel camera would have taken them."""
    dataset = dataset.select(np.arange(min(images, len(dataset))))
    folder.mkdir(exist_ok=True)
    paths, sizes = [], []
    for index, path in enumerate(dataset.image_paths):
        with Image.open(path) as picture:
            scale = math.sqrt(12e6 / (picture.width * picture.height))
            size = round(picture.width * scale), round(picture.height * scale)
            paths.append(str(folder / f"{index}.jpg"))
            picture.resize(size).save(paths[-1], quality=90)
        sizes.append(size)
    factors = (np.array(sizes) / dataset.image_sizes)[dataset.box_images]
    boxes = (dataset.boxes * np.hstack([factors, factors])).astype(np.float32)
    return dataset.replace(
        root=folder, image_paths=np.array(paths, object), image_sizes=np.array(sizes), boxes=boxes
    )


def loop(bench: Bench) -> list[Row]:
    """Real runs: images a second, the share of the time that data is waited for, how busy the GPU is."""
    dataset = bench.demo(400)
    cases = [("starter", 320, "flip"), ("starter", 640, "strong"), ("retinanet_resnet50_fpn_v2", 640, "flip"),
             ("fcos_resnet50_fpn", 640, "strong"), ("fasterrcnn_resnet50_fpn_v2", 1024, "flip"),
             ("ssdlite320_mobilenet_v3_large", 320, "flip")]  # fmt: skip
    rows = []
    for name, size, augment in bench.cases([("starter", 64, "flip")] if bench.quick else cases):
        small = {} if bench.quick else {"image_size": size, "epochs": 4, "evaluate_every": 4}
        with busy_gpu(bench.device) as used:
            run = bench.train(dataset, f"loop-{name}-{size}-{augment}", detector=name, weights="random",
                              augment=augment, **small)  # fmt: skip
        row = {"detector": name, "size": size, "augment": augment, "state": run.state, **speed_of(run)}
        rows.append(
            {
                **row,
                "gpu busy": statistics.median(used) / 100 if used else None,
                "ok": run.state == "finished",
            }
        )
    return rows


def speed_of(run: Run) -> Row:
    """Medians over a run's steps after its first epoch, or over all where it has one."""
    events = run.events()
    start: Row = next((event for event in events if event["event"] == "start"), {})
    steps = [event for event in events if event["event"] == "step"]
    later = [event for event in steps if event["epoch"] > 1] or steps
    judged = [event["seconds"] for event in events if event["event"] == "evaluation"]
    written = [event for event in events if event["event"] == "checkpoint"]

    def middle(values: Iterable[float | None]) -> float | None:
        there = [value for value in values if value is not None]
        return statistics.median(there) if there else None

    return {
        "batch": start.get("choices", {}).get("batch_size"),
        "at once": start.get("choices", {}).get("micro_batch_size"),
        "images_per_second": middle(event.get("images_per_second") for event in later),
        "data_wait": middle(event.get("data_wait") for event in later),
        "device_memory": max((event.get("device_memory") or 0 for event in later), default=0),
        "evaluation_seconds": middle(judged),
        "checkpoint_seconds": middle(event["seconds"] for event in written),
        "checkpoint_bytes": middle(event["bytes"] for event in written),
    }


@contextlib.contextmanager
def busy_gpu(device: torch.device) -> Iterator[list[float]]:
    """Percentages that nvidia-smi gives while inside, five a second; none without a GPU."""
    used: list[float] = []
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        yield used
        return
    command = [
        "nvidia-smi",
        f"--id={device.index or 0}",
        "--query-gpu=utilization.gpu",
        "--format=csv,noheader,nounits",
    ]
    with subprocess.Popen([*command, "--loop-ms=200"], stdout=subprocess.PIPE, text=True) as process:

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                with contextlib.suppress(ValueError):
                    used.append(float(line))

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            yield used
        finally:
            process.terminate()
            listener.join(5)


def judging(bench: Bench) -> list[Row]:
    """Prediction by batch and precision, AP beside that of float32 on the CPU, and what else an epoch's end costs."""
    low = best_precision(bench.device)[0]
    rows: list[Row] = []
    trained: Row = {"starter": {"epochs": 3, "batch_size": 16}}
    if not bench.quick:
        large = {"weights": "random", "image_size": 1024, "minutes": 2, "evaluate_every": 100}
        trained["retinanet_resnet50_fpn_v2"] = large
    for name in bench.cases(trained):
        settings = {"epochs": 2} if bench.quick else trained[name]
        run = bench.train(bench.demo(400), f"judging-{name}", detector=name, **settings)
        if run.state != "finished":
            rows.append({"what": name, "said": run.trouble(), "ok": False})
            continue
        figures = speed_of(run)
        detector, held_out = run.detector(device="cpu"), run.dataset("val")
        cases = [("cpu", "fp32", 8), *((str(bench.device), kind, 8) for kind in bench.precisions())]
        cases += [(str(bench.device), low, batch) for batch in (16, 64)]
        rows += judged(detector, held_out, cases)
        began = time.perf_counter()
        path = save_detector(detector, bench.folder / "saved.safetensors")
        took = time.perf_counter() - began
        rows.append({"what": f"{name}: saved", "seconds": took, "bytes": path.stat().st_size})
        took, size = figures["checkpoint_seconds"], figures["checkpoint_bytes"]
        rows.append({"what": f"{name}: checkpoint", "seconds": took, "bytes": size})
    return rows


def judged(detector: Detector, dataset: Dataset, cases: Iterable[tuple[str, str, int]]) -> list[Row]:
    """AP and speed of a detector by (device, precision, batch); the first is what the others are compared with."""
    rows: list[Row] = []
    for place, precision, batch in dict.fromkeys(cases):
        began = time.perf_counter()
        found = predict(
            detector, dataset, batch_size=batch, device=place, precision=DTYPES[precision], num_workers=0
        )
        between = time.perf_counter()
        evaluation = evaluate(dataset, found)
        ap = rows[0]["ap"] if rows else evaluation.ap
        rows.append(
            {
                "what": f"{detector.name} on {place}",
                "precision": precision,
                "batch": batch,
                "images_per_second": len(dataset) / (between - began),
                "evaluate_seconds": time.perf_counter() - between,
                "ap": evaluation.ap,
                "ap75": evaluation.ap75,
                "ok": abs(evaluation.ap - ap) < (0.005 if precision == "fp32" else 0.02),
            }
        )
    return rows


def batches(bench: Bench) -> list[Row]:
    """The largest batch, in powers of two, that goes through at once, and what an image takes of the memory."""
    data = bench.folder / "batches.npz"
    bench.demo(100).save(data)
    rows = []
    for name, size in bench.cases([("starter", 64)] if bench.quick else SIZES):
        fits: Row = {"batch": 0}
        before: Row = {}
        for power in range(2 if bench.quick else 12):
            row = bench.time(name, size, 2**power, warm=1, timed=2)
            if "error" in row:
                fits["then"] = row["error"]
                break
            before, fits = fits, {"batch": 2**power, **row}
        if "peak_bytes" in before and "peak_bytes" in fits:
            more = fits["batch"] - before["batch"]
            fits["bytes_an_image"] = (fits["peak_bytes"] - before["peak_bytes"]) / more
        if bench.device.type == "cuda":
            answer = call("find_fitting", detector=name, image_size=size, device=str(bench.device), fraction=1.0,
                          data=str(data), wanted=0)  # fmt: skip
            fits["foreseen"] = answer.get("fitting", answer.get("error"))
        keep = ("batch", "foreseen", "peak_bytes", "bytes_an_image", "images_per_second", "then")
        rows.append({"detector": name, "size": size, **{key: fits[key] for key in keep if key in fits}})
    return rows


# -- part: what does it learn? -----------------------------------------------------------------------------------------


def accuracy(bench: Bench) -> list[Row]:
    """The README's runs here, three seeds each; and RetinaNet from random weights, for its schedule."""
    sets: dict[str, tuple[Dataset, int]] = {"demo": (bench.demo(400), 7)}
    if folder := os.environ.get("ODKIT_BCCD"):
        sets["BCCD"] = load_dataset(folder), 24
    cases: list[tuple[str, str, str, int, int]] = [
        (name, "starter", precision, batch, seed)
        for name in sets
        for batch in (16, 4)
        for precision in (best_precision(bench.device)[0], "fp32")
        for seed in range(3)
    ]
    cases += [("demo", "retinanet_resnet50_fpn_v2", best_precision(bench.device)[0], 16, 0)]
    rows = []
    for data, detector, precision, batch, seed in bench.cases(
        dict.fromkeys(cases[:1] if bench.quick else cases)
    ):
        dataset, epochs = sets[data]
        more: Row = {"epochs": 2} if bench.quick else {"epochs": epochs, "batch_size": batch}
        if detector != "starter":
            more |= {"weights": "random", "minutes": min(3.0, bench.seconds_left() / 60), "image_size": 640}
        run = bench.train(dataset, f"accuracy-{data}-{detector}-{precision}-{batch}-{seed}", detector=detector,
                          precision=precision, seed=seed, **more)  # fmt: skip
        last: Row = next((e for e in reversed(run.events()) if e["event"] == "epoch"), {})
        rows.append(
            {
                "data": data,
                "detector": detector,
                "precision": precision,
                "batch": run.settings.batch_size,
                "seed": seed,
                "state": run.state,
                "ap": run.best.get("ap"),
                "ap50": run.best.get("ap50"),
                "training_seconds": last.get("total_seconds"),
                "ok": run.state == "finished",
            }
        )
    return rows


# -- the script --------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    part.__name__: part
    for part in (
        facts, correctness, learning, exactness, memory, syncs, faults,
        stages, profiles, switches, loader, loop, judging, batches,
        accuracy,
    )
}  # fmt: skip
LONG = ("figures", "reference", "sites", "top")  # in the JSON alone


def table(rows: list[Row]) -> str:
    """Rows as aligned columns; long texts are cut, the JSON has them whole."""
    columns = [key for key in dict.fromkeys(itertools.chain(*rows)) if key not in LONG]
    cells = [columns, *([shown(row.get(key)) for key in columns] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(columns))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split())
    return text if len(text) <= 90 else f"{text[:87]}..."


def measure(name: str, device: torch.device, *, quick: bool, minutes: float, out: Path | None) -> bool:
    """Run a part, show it, write it down; whether all of its checks held."""
    with tempfile.TemporaryDirectory(prefix="odkit-bench-") as folder:
        bench = Bench(device, quick, Path(folder), minutes)
        rows = PARTS[name](bench)
        seconds = time.monotonic() - bench.began
        if out and name == "facts":
            out.mkdir(parents=True, exist_ok=True)
            shutil.copy(bench.folder / "doctor.json", out)
    print(
        f"\n{name}: {PARTS[name].__doc__} ({device}{', quick: figures mean nothing' * quick}, {seconds:.0f} s)\n"
    )
    print(table(rows))
    if bench.left_out:
        print(f"left out for want of time: {'; '.join(bench.left_out)}")
    sys.stdout.flush()
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_model()
    if out:
        out.mkdir(parents=True, exist_ok=True)
        about = {
            "part": name,
            "device": str(device),
            "card": card,
            "torch": torch.__version__,
            "quick": quick,
        }
        written = {**about, "seconds": seconds, "left_out": bench.left_out, "rows": rows}
        (out / f"{name}.json").write_bytes(orjson.dumps(written, default=str, option=orjson.OPT_INDENT_2))
    return all(row.get("ok", True) for row in rows)


def main() -> int:
    if sys.argv[1:2] == ["--call"]:
        print(ANSWER + json.dumps(CALLS[sys.argv[2]](**json.loads(sys.argv[3]))))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--quick", action="store_true", help="everything in small, to try the script")
    parser.add_argument("--minutes", type=float, default=8.5, help="time of a part")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; parts: {', '.join(PARTS)}")
    device = torch.device("cuda:0" if options.device == "cuda" else options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            "bench/gpu.py: there is no CUDA device here, nothing was measured (--device cpu --quick tries the script)"
        )
        return 1 if options.parts else 0
    if (
        options.quick and device.type == "cpu"
    ):  # small sums, beside whatever else runs: threads would be in the way
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    held = [
        measure(part, device, quick=options.quick, minutes=options.minutes, out=options.out)
        for part in options.parts or PARTS
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
