"""Checkpoints written by a thread: the state as it was handed over, and what the disk says reaches who waits."""

import errno
from collections import OrderedDict
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from odkit.runs.events import EventLog
from odkit.runs.run import create_run
from odkit.runs.settings import Settings
from odkit.training import checkpoints
from odkit.training.checkpoints import CheckpointWriter
from tests.helpers import SMALL, squares


def test_a_checkpoint_is_the_state_as_it_was(tmp_path: Path) -> None:
    """Weights go on changing while it is written; the oldest ones go; the log has it when it is on the disk."""
    run = create_run(squares(tmp_path / "data"), Settings(**SMALL), tmp_path, "run")  # type: ignore[arg-type]
    writer = CheckpointWriter(run, EventLog(run.path / "events.jsonl"))
    weights = torch.zeros(1000)
    state: dict[str, Any] = {"detector": OrderedDict(w=weights), "list": [weights], "numbers": (1, 2)}
    for step in range(1, 5):
        weights.fill_(step)
        writer.write(step, state)
        weights.fill_(-1)
    writer.wait()
    writer.close()
    assert [path.name for path in run.checkpoints()] == ["step-00000003.pt", "step-00000004.pt"]
    saved = torch.load(run.checkpoints()[-1], weights_only=True)
    assert saved["detector"]["w"].eq(4).all()
    assert saved["list"][0].eq(4).all()
    assert saved["numbers"] == (1, 2)
    lines = (run.path / "events.jsonl").read_bytes().splitlines()
    assert [event["step"] for event in map(orjson.loads, lines)] == [1, 2, 3, 4]


def test_a_full_disk_is_said_once_and_by_whoever_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(squares(tmp_path / "data"), Settings(**SMALL), tmp_path, "run")  # type: ignore[arg-type]
    writer, whole = CheckpointWriter(run, EventLog(run.path / "events.jsonl")), checkpoints.write_checkpoint

    def full(path: Path, state: dict[str, Any]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoints, "write_checkpoint", full)
    writer.write(1, {})
    with pytest.raises(OSError, match=r"No space left .*step-00000001.pt"):
        writer.wait()
    writer.wait()
    writer.write(2, {})
    with pytest.raises(OSError, match="No space left"):
        writer.write(3, {})
    monkeypatch.setattr(checkpoints, "write_checkpoint", whole)
    writer.write(3, {"step": 3})
    writer.wait()
    writer.close()
    assert [path.name for path in run.checkpoints()] == ["step-00000003.pt"]
