"""Checkpoints: everything a resume needs, as plain tensors and numbers, on the disk whole or not at all."""

import copy
import errno
import pickle
import random
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odkit.detection import last_line
from odkit.runs import EventLog, Run
from odkit.system import open_file, replacing
from odkit.training.errors import TrainingError


@dataclass
class Progress:
    """Where a run stands: everything that is no tensor and that a checkpoint holds."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches of the current epoch that are done
    step: int = 0  # optimizer steps taken
    total_epochs: int = 0
    best_ap: float = -1.0
    best_epoch: int = 0
    best_figures: dict[str, Any] = field(default_factory=dict)  # epoch, ap, ap50
    skipped: int = 0  # batches left out for a loss that was not finite
    bad_in_a_row: int = 0
    rollbacks: int = 0
    rate_factor: float = 1.0
    seconds: float = 0.0  # training time over all workers
    fitted: bool = False  # whether a time budget has set total_epochs
    loss_sum: float = 0.0  # of the current epoch
    loss_count: int = 0
    epoch_seconds: float = 0.0


def write_checkpoint(path: Path, state: dict[str, Any]) -> int:
    """A checkpoint, whole or not at all; returns its size in bytes."""
    path.parent.mkdir(exist_ok=True)
    for leftover in path.parent.glob("*.tmp"):  # of a worker that was killed while it wrote
        leftover.unlink(missing_ok=True)
    try:
        with replacing(path) as file:
            torch.save(state, file)
    except RuntimeError as error:  # how torch reports a write that the system refused
        refused = error.__context__
        if isinstance(refused, OSError) and refused.errno:
            raise OSError(refused.errno, refused.strerror, str(path)) from error
        raise OSError(errno.ENOSPC, f"could not write {path.name}: {last_line(error)}") from error
    return path.stat().st_size


class CheckpointWriter:
    """Writes a run's checkpoints in a thread, one at a time, while the training goes on.

    What is written is a copy of the state as it was handed over. The oldest checkpoints beyond `keep` go when a new one
    is on the disk, and then the log has it.
    """

    def __init__(self, run: Run, log: EventLog) -> None:
        self.run, self.log = run, log
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._under_way: Future[None] | None = None

    def write(self, step: int, state: dict[str, Any]) -> None:
        """Write a state after a step (steps taken so far); waits for the one before.

        Raises:
            OSError: That one could not be written.
        """
        self.wait()
        self._under_way = self._thread.submit(self._write, step, _copied(state))

    def check(self) -> None:
        """Raise what kept the last one from being written, if that is known by now (OSError)."""
        if self._under_way is not None and self._under_way.done():
            self.wait()

    def wait(self) -> None:
        """Until the last one is on the disk.

        Raises:
            OSError: It could not be written.
        """
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def close(self) -> None:
        """The end: what is being written is written, and nothing is raised."""
        self._thread.shutdown()

    def _write(self, step: int, state: dict[str, Any]) -> None:
        began = time.monotonic()
        path = self.run.path / "checkpoints" / f"step-{step:08d}.pt"
        size = write_checkpoint(path, state)
        for old in self.run.checkpoints()[: -self.run.settings.keep]:
            old.unlink(missing_ok=True)
        self.log.write("checkpoint", step=step, file=path.name, bytes=size, seconds=time.monotonic() - began)


def _copied(value: Any) -> Any:
    """A state as it is now, its tensors on the host; numbers and the tuples of random states do not change."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        copied = copy.copy(value)  # with what a state dict knows besides: versions of layers
        copied.update({key: _copied(one) for key, one in value.items()})
        return copied
    return [_copied(one) for one in value] if isinstance(value, list) else value


def newest_checkpoint(run: Run, log: EventLog) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; a damaged one is passed over with a warning. None before the first.

    Raises:
        TrainingError: There are some, or were, and none can be read: a start from scratch would replace the detector.
    """
    paths = run.checkpoints()
    for path in reversed(paths):
        try:
            with open_file(path) as file:
                saved = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in many ways
            why = why_unreadable(error)
        else:
            missing = _PARTS - set(saved) if isinstance(saved, dict) else _PARTS
            if not missing:
                return dict(saved)
            why = f"it is none of a run's: {', '.join(sorted(missing))} is not in it"
        log.write("warning", kind="damaged_checkpoint", message=f"{path.name} cannot be read: {why}", step=0)
    if paths:
        raise TrainingError(
            f"none of the run's {len(paths)} checkpoints can be read ({why}). {run.no_way_on()}"
        )
    if (run.path / "detector.safetensors").exists():
        raise TrainingError(f"the run's checkpoints are gone. {run.no_way_on()}")
    return None


_PARTS = {
    "detector",
    "average",
    "optimizer",
    "scaler",
    "choices",
    "progress",
    "random",
    "settings",
    "fingerprint",
}


def why_unreadable(error: Exception) -> str:
    """Why a checkpoint cannot be read, without torch's advice to load it all the same."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or holds what no checkpoint has, and is not loaded"
    return last_line(error)


def random_state() -> dict[str, Any]:
    """The state of every random generator that this process draws from, as plain tensors and numbers."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002  (libraries may draw from it)
    state = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()  # of the current device
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Set every random generator to a state of `random_state`."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available():
        cuda = state["cuda"]
        if isinstance(cuda, list):  # before format 2: of all devices
            cuda = cuda[torch.cuda.current_device() % len(cuda)]
        torch.cuda.set_rng_state(cuda)
