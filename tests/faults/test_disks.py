"""A run whose disk fills up, may not be written, or hangs: what the person is told, and that nothing is lost."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import psutil
import pytest
import torch

from odkit.data.dataset import Dataset
from odkit.detection.detector import load_detector
from odkit.runs.run import Run, create_run
from odkit.runs.settings import Settings
from odkit.runs.worker import RunError
from odkit.system import read_file
from odkit.training import work
from tests.faults.disks import Hanging, LoopDisk, SmallDisk, at_each_write
from tests.helpers import SMALL, facts, same_weights, squares, until, wait_for_steps, worker_pid


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return squares(tmp_path_factory.mktemp("squares"))


def a_run(dataset: Dataset, folder: Path, **settings: object) -> Run:
    return create_run(dataset, Settings(**{**SMALL, **settings}), folder, "run")  # type: ignore[arg-type]


def wait_until_ended(run: Run) -> None:
    until(lambda: not run.alive)


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


# -- full -------------------------------------------------------------------------------------------------------------


def test_a_disk_too_small_is_refused_before_the_start(dataset: Dataset, disk: SmallDisk) -> None:
    disk.fill(leaving=50_000_000)
    run = a_run(dataset, disk.folder)
    assert work(run.path) == 1
    assert "checkpoints need about" in run.trouble()


@pytest.mark.worker
def test_a_disk_that_fills_up_leaves_the_last_checkpoint_whole(dataset: Dataset, disk: SmallDisk) -> None:
    run = a_run(dataset, disk.folder, epochs=200, checkpoint_steps=1)
    run.start()
    wait_for_steps(run, 3)
    disk.fill()
    wait_until_ended(run)
    assert run.state == "failed"
    assert "the disk is full" in run.trouble()
    assert run.checkpoints()
    everything_is_whole(run)
    assert not (run.path / "events.reserve").exists()
    disk.free()
    step = torch.load(run.checkpoints()[-1], weights_only=True)["progress"]["step"]
    run.resume(wait=False)
    wait_for_steps(run, step + 3)
    run.stop()
    assert run.state == "stopped", run.trouble()


WRITES = {
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
    full_at = ""

    def fill(name: str) -> None:
        name = name.removeprefix("run/")
        seen.append(name)
        if name == full_at:
            disk.fill(leaving=WRITES[name])

    end = at_each_write(disk.folder, fill)
    try:
        for full_at in WRITES:
            status = work(run.path)
            everything_is_whole(run)
            disk.free()
            if full_at in ("report.html", "MODEL_CARD.md"):  # the run itself is over, and went well
                assert (status, run.state) == (0, "finished")
                said = run.events()[-1]["message"]
                assert "the report could not be written" in said
                assert "`odkit report" in said
            else:
                assert (status, run.state) == (1, "failed")
                said = run.trouble()
                assert "the disk is full" in said
                assert "Free some space, then: odkit resume" in said
            assert f"No space left on device: '{run.path / full_at}'" in said
    finally:
        end()
    assert set(seen) == {*WRITES, "events.reserve", "events.jsonl"}, (
        "another file is written, and not tried here"
    )
    assert facts(run) == facts(undisturbed)
    assert same_weights(run, undisturbed)


def test_the_disk_is_full_at_each_write_of_a_new_run(dataset: Dataset, disk: SmallDisk) -> None:
    """Nothing is left of it, its name included."""
    tried = dataset.with_splits(val=0.25, test=0.25)
    full_at = ""
    end = at_each_write(disk.folder, lambda name: disk.fill() if name == full_at else None)
    try:
        for name in ("dataset.npz", "test.npz", "audit.json", "config.json"):
            full_at = f"run/{name}"
            with pytest.raises(RunError, match=f"the disk is full .*{name}.*Free some space, then try again"):
                a_run(tried, disk.folder)
            assert [path.name for path in disk.folder.iterdir()] == ["filler"]
            disk.free()
    finally:
        end()
    assert a_run(tried, disk.folder).state == "new"


def test_a_run_on_a_full_disk_is_not_started_and_not_changed(dataset: Dataset, disk: SmallDisk) -> None:
    run = a_run(dataset, disk.folder)
    config = run.config
    disk.fill()
    for attempt in (run.start, run.resume, lambda: run.resume(epochs=9), lambda: run.request("now")):
        with pytest.raises(RunError, match=r"the disk is full .*Free some space, then try again"):
            attempt()
    assert (run.config, run.state) == (config, "new")
    assert "new" in repr(run), "it can be looked at"


def test_a_disk_that_turns_read_only_in_mid_training(
    dataset: Dataset, loop_disk: LoopDisk, capfd: pytest.CaptureFixture[str]
) -> None:
    """As the system mounts it anew after an error of the disk's."""
    run = a_run(dataset, loop_disk.folder, epochs=1)
    (run.path / "worker.lock").touch()  # as whoever starts a worker does
    end = at_each_write(
        loop_disk.folder, lambda name: loop_disk.turn_read_only() if "detector" in name else None
    )
    try:
        status = work(run.path)
    finally:
        end()
    assert (status, run.state) == (1, "died"), "its last word could not be written"
    assert "the disk is read-only" in run.trouble()
    assert "`odkit resume" in run.trouble()
    assert "the disk is read-only now" in capfd.readouterr().err
    everything_is_whole(run)
    for attempt in (run.resume, lambda: run.request("now")):
        with pytest.raises(RunError, match=r"cannot be written \(Read-only file system"):
            attempt()
    loop_disk.repair()
    assert work(run.path) == 0
    assert run.state == "finished"


# -- hanging ----------------------------------------------------------------------------------------------------------


def test_a_disk_that_hangs_for_a_while_is_waited_for(dataset: Dataset, loop_disk: LoopDisk) -> None:
    run = a_run(dataset, loop_disk.folder, epochs=1)
    hung: list[str] = []
    looked: list[str] = []

    def look() -> None:
        looked.append(f"{run!r}")
        loop_disk.hang(False)

    def hang(name: str) -> None:
        if "detector" in name and not hung:
            hung.append(name)
            loop_disk.hang(True)
            threading.Timer(0.5, look).start()

    end = at_each_write(loop_disk.folder, hang)
    try:
        assert work(run.path) == 0
    finally:
        end()
    assert run.state == "finished"
    assert len(looked) == 1
    assert "epoch 1/1" in looked[0], "it can be looked at meanwhile"
    everything_is_whole(run)


def test_a_file_on_loan_is_waited_for(tmp_path: Path, hanging: Hanging) -> None:
    (tmp_path / "a.txt").write_text("here")
    hanging.file(tmp_path / "a.txt")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_file, tmp_path / "a.txt")
        time.sleep(0.1)
        hanging.end()
        assert reading.result(60) == b"here"


@pytest.mark.worker
def test_a_hung_data_worker_ends_with_its_files_named(
    dataset: Dataset, tmp_path: Path, hanging: Hanging
) -> None:
    own = squares(tmp_path / "own")
    run = create_run(own, Settings(**{**SMALL, "num_workers": 1, "worker_timeout": 2.0}), tmp_path, "run")  # type: ignore[arg-type]
    stuck = Path(own.split("train").image_paths[0])
    hanging.file(stuck)
    run.start()
    wait_until_ended(run)
    assert run.state == "failed"
    assert str(stuck) in run.trouble()
    assert any(e.get("kind") == "data_worker" for e in run.events())


@pytest.mark.slow
def test_a_hung_data_worker_while_judging_is_named_too(tmp_path: Path, hanging: Hanging) -> None:
    own = squares(tmp_path / "own")
    settings = {**SMALL, "num_workers": 1, "worker_timeout": 2.0, "epochs": 1}
    run = create_run(own, Settings(**settings), tmp_path, "run")  # type: ignore[arg-type]
    stuck = Path(own.split("val").image_paths[1])
    hanging.file(stuck)
    assert work(run.path) == 1
    assert str(stuck) in run.trouble()
    assert [e["kind"] for e in run.events() if e["event"] == "warning"] == ["data_worker"]
    assert [e["event"] for e in run.events()].count("step") == 3


@pytest.mark.worker
def test_a_killed_worker_takes_its_hung_data_worker_along(tmp_path: Path, hanging: Hanging) -> None:
    own = squares(tmp_path / "own")
    run = create_run(own, Settings(**{**SMALL, "num_workers": 1}), tmp_path, "run")  # type: ignore[arg-type]
    for image in own.split("train").image_paths:
        hanging.file(image)
    run.start()
    end = time.monotonic() + 120
    while not any(e["event"] == "start" for e in run.events()) or not (
        helpers := [p for p in psutil.Process(worker_pid(run)).children() if "worker" in p.cmdline()]
    ):
        assert time.monotonic() < end, run.log_tail()
        time.sleep(0.02)
    time.sleep(0.2)  # until it has opened its first image, at the latest
    os.kill(worker_pid(run), signal.SIGKILL)
    _, left = psutil.wait_procs(helpers, timeout=30)
    assert not left
    wait_until_ended(run)
    assert run.state == "died"
