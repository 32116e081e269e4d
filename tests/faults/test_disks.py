"""A run whose disk fills up, may not be written, or hangs: what the person is told, and that nothing is lost."""

import errno
import os
from pathlib import Path

import orjson
import pytest
import torch

from odkit.data.dataset import Dataset
from odkit.data.predictions import Predictions
from odkit.detection.detector import load_detector
from odkit.runs.run import Run, create_run
from odkit.runs.settings import Settings
from odkit.training import work
from tests.faults.disks import SmallDisk, at_each_write
from tests.helpers import SMALL, facts, same_weights, squares


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return squares(tmp_path_factory.mktemp("squares"))


def a_run(dataset: Dataset, folder: Path, **settings: object) -> Run:
    return create_run(dataset, Settings(**{**SMALL, **settings}), folder, "run")  # type: ignore[arg-type]


def everything_is_whole(run: Run) -> None:
    """Every file of a run can be read, and nothing half-written lies about."""
    for path in run.checkpoints():
        assert torch.load(path, weights_only=True)["format"] == 2
    for path in run.path.rglob("*"):
        assert path.suffix != ".tmp"
        if path.suffix == ".json":
            orjson.loads(path.read_bytes())
        elif path.suffix == ".safetensors":
            load_detector(path)
    run.dataset()
    if (run.path / "predictions.npz").exists():
        run.predictions()


WRITES = {
    "events.reserve": 0,
    "events.jsonl": 0,
    "checkpoints/step-00000000.pt": 0,
    "detector.safetensors": 5_000_000,
    "predictions.npz": 0,
    "evaluation.json": 0,
    "checkpoints/step-00000003.pt": 30_000_000,
    "report.html": 60_000,
    "MODEL_CARD.md": 0,
}
"""What a worker writes, in this order, and how much of it still fits when the disk fills up."""


@pytest.mark.slow
def test_the_disk_is_full_at_each_write_of_a_worker_in_turn(
    dataset: Dataset, tmp_path: Path, disk: SmallDisk
) -> None:
    """One run, resumed after each fault, ends as one that met none."""
    undisturbed = a_run(dataset, tmp_path / "elsewhere", epochs=1)
    assert work(undisturbed.path) == 0
    run = a_run(dataset, disk.folder, epochs=1)
    seen: list[str] = []

    def fill(name: str) -> None:
        name = name.removeprefix("run/")
        if name not in seen:
            seen.append(name)
        if name == full_at:
            disk.fill(leaving=WRITES[name])

    end = at_each_write(disk.folder, fill)
    try:
        for full_at in list(WRITES)[:3]:
            status = work(run.path)
            print(full_at, status, run.state, "|", run.trouble(), "|", [e.get("message") for e in run.events() if e["event"] in ("warning",)])
            everything_is_whole(run)
            disk.free()
    finally:
        end()
    assert seen == list(WRITES)
    assert facts(run) == facts(undisturbed)
    assert same_weights(run, undisturbed)
