"""What guards a step: a snapshot to go back to, batches left out, and the memory that is there for images."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from odkit.data import Dataset
from odkit.detection import Batch, DetectionImages, Detector, Item, Pack, autocast, last_line
from odkit.runs import Run
from odkit.system import read_file, write_file
from odkit.training.checkpoints import random_state, set_random_state
from odkit.training.distributed import rank, world_size
from odkit.training.errors import OutOfMemoryError, fault_line, is_out_of_memory
from odkit.training.loop import total_loss

KEPT_BATCHES = 20  # of those left out, for a replay


class Snapshot:
    """What the passes of a step change besides gradients: random states and the running figures of batch norms."""

    def __init__(self, detector: nn.Module) -> None:
        self.running: list[Tensor] = [
            buffer
            for module in detector.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for buffer in module.buffers(recurse=False)
        ]
        self.copies = [torch.clone(buffer) for buffer in self.running]
        self.random: dict[str, Any] | None = None  # None: between two steps

    def take(self) -> None:
        """Remember how things are, at the beginning of a step."""
        self.random = random_state()
        if self.running:
            torch._foreach_copy_(self.copies, self.running)

    @torch.no_grad()
    def restore(self) -> None:
        """Make things as they were when the step began; between two steps nothing changes."""
        if self.random is None:
            return
        set_random_state(self.random)
        if self.running:
            torch._foreach_copy_(self.running, self.copies)
        self.random = None

    def drop(self) -> None:
        """The step stands."""
        self.random = None


# -- batches that are left out -----------------------------------------------------------------------------------------


def keep_batch(run: Run, batch: Batch, detector: Detector, random: Any, *, name: str) -> None:
    """Write a batch with the weights and the random state it met into the run's folder, for `odkit replay`."""
    folder = run.path / "bad_batches"
    if len(list(folder.glob("*.pt"))) >= KEPT_BATCHES:
        return
    folder.mkdir(exist_ok=True)
    part = f"-{rank()}" if world_size() > 1 else ""
    kept = {"batch": batch.to_tensors(), "random": random, "detector": detector.state_dict()}
    torch.save(kept, folder / f"{name}{part}.pt")


# -- memory ------------------------------------------------------------------------------------------------------------


def first_use(device: torch.device) -> str:
    """Make the first tensor on a device; what had to be given up for that, in a sentence, "" if nothing.

    Memory segments that grow want CUDA's virtual addresses, which some virtual GPUs refuse: there it goes without.

    Raises:
        RuntimeError: The device cannot be used.
    """
    try:
        _allocate(device)
    except RuntimeError as error:
        if "CUDA driver error" not in str(error):
            raise
        torch.cuda.memory._set_allocator_settings("expandable_segments:False")
        _allocate(device)
        said = fault_line(error)
        return f"memory segments that grow are not for this GPU ({said}): it goes on without, with more waste"
    return ""


def _allocate(device: torch.device) -> None:
    torch.zeros(1, device=device)


class Trial(NamedTuple):
    """What trying the largest batch came to."""

    images: int  # that went forward and backward at once
    seconds: float  # that they took


def fitting_micro_batch_size(
    detector: Detector, dataset: Dataset, wanted: int, *, multi_scale: float, precision: torch.dtype | None
) -> Trial:
    """The largest of `wanted`, its half, its quarter, ... whose largest padded batch goes forward and backward here.

    The batch tried has the widest and the highest image's sides and the boxes of the images that have most. Room for
    the optimizer's moments and for gradients on their way between processes is held meanwhile.

    Raises:
        OutOfMemoryError: A single image does not fit.
    """
    parameters = sum(p.numel() * p.element_size() for p in detector.parameters() if p.requires_grad)
    device = next(detector.parameters()).device
    said = ""
    for size in _halves(wanted):
        batch = _largest_batch(detector, dataset, size, multi_scale)
        began = time.monotonic()
        try:
            _room = torch.empty(3 * parameters, dtype=torch.uint8, device=device)
            _forward_and_backward(detector, batch, precision)
            return Trial(size, time.monotonic() - began)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            said = last_line(error)  # not the error itself: its traceback holds the tensors
        finally:
            _room = None  # type: ignore[assignment]
            if device.type == "cuda":
                torch.cuda.empty_cache()
    raise no_memory_at_all(detector.image_size, said)


def images_that_fit(
    detector: Detector,
    dataset: Dataset,
    *,
    multi_scale: float,
    precision: torch.dtype | None,
    memory: Callable[[], tuple[int, int]] | None = None,
) -> int:
    """Images of the largest padded size that a step on this GPU holds, by the memory of two and of four of them.

    Args:
        detector: On the device.
        dataset: The training images.
        multi_scale: As the setting.
        precision: What convolutions are computed in; None: float32.
        memory: Most bytes used since it was last asked, and bytes that could be used in all; None: the device's.
    """
    memory = memory or partial(_device_memory, next(detector.parameters()).device)
    used = []
    for size in (2, 4):
        memory()
        try:
            _forward_and_backward(detector, _largest_batch(detector, dataset, size, multi_scale), precision)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return size // 2
        used.append(memory()[0])
    an_image = max(1, (used[1] - used[0]) // 2)
    fixed = used[0] - 2 * an_image
    # the optimizer's moments and DDP's buckets come on top, and a fifth stays free for what varies
    parameters = sum(p.numel() * p.element_size() for p in detector.parameters() if p.requires_grad)
    return max(1, int((0.8 * memory()[1] - fixed - 3 * parameters) // an_image))


def _device_memory(device: torch.device) -> tuple[int, int]:
    most = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    torch.cuda.empty_cache()
    return most, torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_allocated(device)


def _forward_and_backward(detector: Detector, batch: Batch, precision: torch.dtype | None) -> None:
    """A step's passes; gradients, running figures and random states are as before when it ends."""
    before = Snapshot(detector)
    before.take()
    detector.train()
    try:
        with autocast(next(detector.parameters()).device, precision):
            losses = detector(batch)
        total_loss(losses).backward()
    finally:
        losses = None
        detector.zero_grad(set_to_none=True)
        before.restore()


def no_memory_at_all(image_size: int, said: str) -> OutOfMemoryError:
    """The error where not even one image fits."""
    return OutOfMemoryError(
        f"out of memory with a single {image_size}-pixel image ({said}); "
        "try a smaller --image-size or a smaller detector"
    )


def _halves(size: int) -> list[int]:
    return [size >> shift for shift in range(size.bit_length())]


def _largest_batch(detector: Detector, dataset: Dataset, size: int, multi_scale: float) -> Batch:
    longest = round(detector.image_size * (1 + multi_scale))
    images = DetectionImages(dataset, image_size=longest, square=detector.square, tiling=detector.tiling)
    sides = images.view_sizes(longest)
    width, height = sides.max(0).tolist() if sides.any() else (longest, longest)
    most = np.argsort(-images.box_counts(), kind="stable")[np.arange(size) % len(images)]
    items = []
    for view in most.tolist():
        boxes, labels = images.boxes_of(view)
        part = images.views.parts[view]
        extent = part[2:] - part[:2] if part.any() else dataset.image_sizes[images.views.images[view]]
        extent = np.maximum(extent, 1)
        boxes = boxes / np.tile(extent, 2) * np.array([width, height] * 2)
        # what lies outside or has no area (sizes may be unknown) costs the same as a box in the middle
        odd = (
            (boxes[:, 2:] - boxes[:, :2] < 1).any(1)
            | (boxes < 0).any(1)
            | (boxes[:, 2:] > [width, height]).any(1)
        )
        boxes[odd] = [width / 4, height / 4, width / 2, height / 2]
        image = torch.full((height, width, 3), 114, dtype=torch.uint8).permute(2, 0, 1)
        items.append(Item(image, boxes.astype(np.float32), labels.clip(0), view, (width, height)))
    return Pack(detector.divisible)(items)


def noted_micro_batch_size(path: Path) -> int | None:
    """The micro-batch size that a process of the run in a folder fell back to; None where none ran short of memory."""
    try:
        return max(1, int(read_file(path / "micro_batch_size", most_bytes=100)))
    except (FileNotFoundError, ValueError):  # there is none, or what is there is no number
        return None


def note_micro_batch_size(path: Path, size: int) -> None:
    """Write down what the run's processes are to start again with."""
    write_file(path / "micro_batch_size", f"{size}\n".encode())
