"""Checkpoints: everything a resume needs, as plain tensors and numbers, on the disk whole or not at all."""

import errno
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from odkit.detection import last_line
from odkit.runs import EventLog, Run
from odkit.system import replacing


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
        raise OSError(errno.ENOSPC, f"could not write {path.name}: {last_line(error)}") from error
    return path.stat().st_size


def newest_checkpoint(run: Run, log: EventLog) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; a damaged one is passed over with a warning."""
    for path in reversed(run.checkpoints()):
        try:
            saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in many ways
            log.write(
                "warning", kind="damaged_checkpoint", message=f"{path.name} cannot be read: {error}", step=0
            )
            continue
        return saved
    return None


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
