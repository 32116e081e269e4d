"""Checkpoints: everything a resume needs, as plain tensors and numbers, on the disk whole or not at all."""

import errno
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from odkit.detection import last_line
from odkit.runs import EventLog, Run


def write_checkpoint(path: Path, state: dict[str, Any]) -> int:
    """A checkpoint written to a temporary name, fsynced and renamed; returns its size in bytes."""
    path.parent.mkdir(exist_ok=True)
    for leftover in path.parent.glob("*.tmp"):
        leftover.unlink(missing_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name, too, is on the disk
        finally:
            os.close(folder)
    except RuntimeError as error:  # how torch reports a write that the system refused
        temporary.unlink(missing_ok=True)
        raise OSError(errno.ENOSPC, f"could not write {path.name}: {last_line(error)}") from error
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
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
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
