"""What goes wrong at hour three, for real: full disks, dead and hung data workers, a clock that jumps."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from odkit.dataset import Dataset
from odkit.run import Run, create_run
from odkit.settings import Settings
from odkit.training import work
from tests.test_training import SMALL, finished, one_thread, wait_for_steps, worker_pid  # noqa: F401
from tests.tiny import squares


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return squares(tmp_path_factory.mktemp("squares"))


def a_run(dataset: Dataset, folder: Path, **settings: object) -> Run:
    return create_run(dataset, Settings(**{**SMALL, **settings}), folder, "run")  # type: ignore[arg-type]


def wait_until_ended(run: Run, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while run.alive:
        assert time.monotonic() < end, run.log_tail()
        time.sleep(0.05)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 150 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this container may not mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_too_small_is_refused_before_the_start(dataset: Dataset, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(100_000_000))
    run = a_run(dataset, small_disk)
    assert work(run.path) == 1
    assert "checkpoints need about" in run.trouble()


def test_a_disk_that_fills_up_leaves_the_last_checkpoint_whole(dataset: Dataset, small_disk: Path) -> None:
    run = a_run(dataset, small_disk, epochs=200, checkpoint_steps=1)
    run.start()
    wait_for_steps(run, 3)
    with (small_disk / "filler").open("wb") as filler:
        try:
            while True:
                filler.write(bytes(1_000_000))
                filler.flush()
        except OSError:
            pass
    wait_until_ended(run)
    assert run.checkpoints()
    for path in run.checkpoints():
        assert torch.load(path, weights_only=True)["format"] == 1
    assert not list((run.path / "checkpoints").glob("*.tmp"))
    (small_disk / "filler").unlink()
    step = torch.load(run.checkpoints()[-1], weights_only=True)["progress"]["step"]
    run.resume(wait=False)
    wait_for_steps(run, step + 3)
    run.stop()
    assert run.state == "stopped", run.trouble()


def test_a_killed_data_worker_is_replaced(dataset: Dataset, tmp_path: Path) -> None:
    run = a_run(dataset, tmp_path, workers=1, epochs=200)
    run.start()
    wait_for_steps(run, 2)
    victims = [
        p
        for p in psutil.Process(worker_pid(run)).children(recursive=True)
        if "odkit" in " ".join(p.cmdline())
    ]
    assert victims
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    end = time.monotonic() + 60
    while not any(e.get("kind") == "data_worker" for e in run.events()):
        assert time.monotonic() < end, run.log_tail()
        time.sleep(0.05)
    steps = sum(e["event"] == "step" for e in run.events())
    wait_for_steps(run, steps + 2)
    run.stop()
    assert run.state == "stopped", run.trouble()


def test_a_hung_data_worker_ends_with_its_files_named(dataset: Dataset, tmp_path: Path) -> None:
    """An image replaced by a pipe that nobody writes to: reading it never ends."""
    own = squares(tmp_path / "own")
    run = create_run(own, Settings(**{**SMALL, "workers": 1, "worker_timeout": 3.0}), tmp_path, "run")  # type: ignore[arg-type]
    stuck = Path(own.split("train").image_paths[0])
    stuck.unlink()
    os.mkfifo(stuck)
    run.start()
    wait_until_ended(run)
    assert run.state == "failed"
    assert str(stuck) in run.trouble()
    assert any(e.get("kind") == "data_worker" for e in run.events())


def test_a_clock_that_jumps_changes_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_time, calls = time.time, [0]

    def jumping() -> float:
        calls[0] += 1
        return true_time() - 86_400 * (calls[0] % 3)

    monkeypatch.setattr(time, "time", jumping)
    run = a_run(dataset, tmp_path)
    assert work(run.path) == 0
    assert run.state == "finished"
    assert [row["epoch"] for row in run.history()] == [1, 2]
    assert all(row["seconds"] > 0 for row in run.history())


def test_a_vanished_run_can_go_on(dataset: Dataset, tmp_path: Path) -> None:
    """A worker whose machine went down: only its folder is left, moved elsewhere."""
    run = a_run(dataset, tmp_path, epochs=3)
    run.start()
    wait_for_steps(run, 4)
    os.kill(worker_pid(run), signal.SIGKILL)
    wait_until_ended(run)
    assert run.state == "died"
    moved = Run(run.path.rename(tmp_path / "elsewhere"))
    finished(moved.resume(wait=False))
    assert len(moved.history()) == 3
