"""What goes wrong at hour three, for real: dead data workers, lost GPUs, a clock that jumps; disks: tests/faults."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from odkit.data.dataset import Dataset
from odkit.runs.run import Run, create_run
from odkit.runs.settings import Settings
from odkit.training import replay, work
from odkit.training.errors import (
    ShortOfMemoryError,
    explained,
    is_lost_device,
    is_lost_peer,
    is_out_of_memory,
)
from tests.helpers import SMALL, facts, finished, same_weights, squares, wait_for_steps, worker_pid


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


@pytest.mark.worker
def test_a_killed_data_worker_is_replaced(dataset: Dataset, tmp_path: Path) -> None:
    run = a_run(dataset, tmp_path, num_workers=1, epochs=200)
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


FAULTY = """
import os, sys
import torch
from odkit.cli import main
from odkit.detection.detector import Detector

whole, calls, rank = Detector.forward, [0], os.environ.get("RANK", "0")

def gone():
    raise torch.AcceleratorError("CUDA error: device lost\\nCUDA kernel errors might be reported asynchronously")

def vanishing(self, images, targets=None):
    calls[0] += 1
    found = whole(self, images, targets)
    if calls[0] == 7:
        if "dead" in sys.argv:  # nothing can be read from it any more
            Detector.state_dict = lambda self: gone()
            type(self.module).state_dict = lambda self, *args, **kwargs: gone()
        gone()
    return found

def short_of_memory(self, images, targets=None):
    calls[0] += 1
    found = whole(self, images, targets)
    if self.training and rank == "1":
        if len(images) > 1:
            torch.empty(1 << 60, dtype=torch.uint8)
        if calls[0] == 7:  # in the third step: memory was tried twice, then two micro-batches a step
            return {name: loss * float("inf") for name, loss in found.items()}
    return found

Detector.forward = vanishing if "vanishing" in sys.argv else short_of_memory
sys.exit(main(["worker", sys.argv[1]]))
"""


@pytest.mark.worker
@pytest.mark.parametrize("device", ["readable", "dead"])
def test_a_gpu_that_vanishes_leaves_a_run_that_goes_on_elsewhere(
    dataset: Dataset, tmp_path: Path, device: str
) -> None:
    """The very error that torch raises for it, in the middle of a worker's seventh pass: its fifth step."""
    run = a_run(dataset, tmp_path)
    command = [sys.executable, "-c", FAULTY, str(run.path), "vanishing", device]
    worker = subprocess.run(command, capture_output=True, text=True, check=False)
    assert worker.returncode == 1, worker.stderr
    assert "AcceleratorError" in worker.stderr, "the traceback is kept"
    assert run.state == "failed"
    text = run.trouble()
    assert "the GPU failed or is gone (CUDA error: device lost" in text
    assert f"odkit resume {run.path}" in text
    assert "--device cpu" in text
    taken = max(e["step"] for e in run.events() if e["event"] == "step")
    saved = torch.load(run.checkpoints()[-1], weights_only=True)["progress"]["step"]
    unsaved = [e["message"] for e in run.events() if e.get("kind") == "no_checkpoint"]
    if device == "dead":
        assert "CUDA error: device lost" in unsaved[0]
        assert (saved, taken) == (3, 4)
    else:
        assert not unsaved
        assert saved == taken == 4  # memory tried, three steps, a pass to judge them, and one more step
    finished(run.resume(wait=False))
    undisturbed = create_run(dataset, Settings(**SMALL), tmp_path, "undisturbed")  # type: ignore[arg-type]
    finished(undisturbed.start())
    assert facts(run) == facts(undisturbed)
    assert same_weights(run, undisturbed)


DUPLICATE = """NCCL error in: NCCLUtils.hpp:275, invalid usage (run with NCCL_DEBUG=WARN for details)
ncclInvalidUsage: This usually reflects invalid usage of NCCL library.
Last error:
Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000"""


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), "the GPU failed"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "the GPU failed"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "the GPU failed"),
        (torch.distributed.DistNetworkError("Connection reset by peer"), "another process"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory (CUDA out of"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "out of memory"),
        (MemoryError(), "out of memory"),
        (
            ShortOfMemoryError("Tried to allocate 2 GiB"),
            "out of memory (Tried to allocate 2 GiB). To go on with fewer",
        ),
        (RuntimeError("GET was unable to find an engine to execute this computation"), "out of memory"),
        (
            torch.AcceleratorError("CUDA error: invalid device ordinal\nGPU device may be"),
            "this process has no GPU",
        ),
        (torch.distributed.DistBackendError(DUPLICATE), "this process has no GPU of its own (Duplicate GPU"),
        (RuntimeError("shape mismatch"), ""),
        (OSError(errno.EIO, "Input/output error"), ""),
        (ValueError("CUDA error is only a word here"), ""),
    ],
    ids=str,
)
def test_what_an_error_means(error: BaseException, meaning: str) -> None:
    said = explained(error, "runs/one")
    assert said.startswith(meaning)
    assert bool(said) == bool(meaning)
    assert not said or "odkit resume runs/one" in said
    # torchrun starts processes again for these alone, and in vain where a number is wrong
    assert (is_lost_device(error) or is_lost_peer(error)) == said.startswith(("the GPU", "another process"))


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("FIND was unable to find an engine to execute this computation"), True),
        (MemoryError(), True),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), False),
        (RuntimeError("shape mismatch"), False),
    ],
    ids=str,
)
def test_out_of_memory_is_told_from_other_faults(error: BaseException, short: bool) -> None:
    assert is_out_of_memory(error) == short


@pytest.mark.worker
def test_one_of_two_processes_short_of_memory_and_with_a_bad_batch(dataset: Dataset, tmp_path: Path) -> None:
    """Both processes take smaller parts from the start, and both leave the batch out that spoils one's loss."""
    settings = {"optimizer": "sgd", "epochs": 1}
    one = a_run(dataset, tmp_path / "one", micro_batch_size=1, **settings)
    assert work(one.path) == 0
    two = a_run(dataset, tmp_path / "two", processes=2, **settings)
    script = tmp_path / "faulty.py"
    script.write_text(FAULTY)
    launcher = [*(sys.executable, "-m", "torch.distributed.run"), "--standalone", "--nproc-per-node=2"]
    worker = subprocess.run(
        [*launcher, str(script), str(two.path)], capture_output=True, text=True, check=False
    )
    assert worker.returncode == 0, worker.stderr
    warnings = [(e["kind"], e["message"]) for e in two.events() if e["event"] == "warning"]
    assert [kind for kind, _ in warnings][:2] == ["out_of_memory", "not_finite"]
    steps = [[e for e in run.events() if e["event"] == "step"] for run in (one, two)]
    assert [len(some) for some in steps] == [3, 3]
    for a, b in list(zip(*steps, strict=True))[:2]:
        # sums in another order: float32's tolerance, grown by the step between
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=5e-3)
        assert b["loss"] == pytest.approx(a["loss"], rel=5e-3)
    assert steps[1][2]["loss"] is None
    (kept,) = (two.path / "bad_batches").glob("*.pt")
    assert kept.name == "step-00000002-1-1.pt"
    images = [row["image"] for row in replay(two)]
    assert len(images) == 2, "the second process' half of the batch"
    assert all(image in warnings[1][1] for image in images)


@pytest.mark.worker
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
