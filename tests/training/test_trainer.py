"""Training through its public functions: real files, real worker processes, real kills, on a CPU."""

import dataclasses
import multiprocessing
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import psutil
import pytest
import torch

from odkit.analysis.evaluation import evaluate
from odkit.data.dataset import Dataset
from odkit.detection import Batch
from odkit.detection.detector import Detector, load_detector
from odkit.detection.inference import predict
from odkit.runs.run import Run, create_run, fine_tune, open_run
from odkit.runs.settings import Settings
from odkit.runs.worker import RunError, worker_command, worker_environment
from odkit.system import LOCK_VARIABLE
from odkit.training import replay, work
from odkit.training.batches import EpochSampler, TrainingImages
from tests.helpers import (
    SMALL,
    facts,
    finished,
    same_weights,
    squares,
    started,
    trained,
    until,
    wait_for_steps,
    worker_pid,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return squares(tmp_path_factory.mktemp("squares"))


def test_a_run_leaves_its_folder_complete(dataset: Dataset, tmp_path: Path) -> None:
    run = trained(dataset, tmp_path, "whole")
    assert run.state == "finished"
    assert [row["epoch"] for row in run.history()] == [1, 2]
    assert {"loss", "ap", "ap50", "learning_rate", "images_per_second"} <= set(run.history()[0])
    assert len(run.checkpoints()) == run.settings.keep
    detector = load_detector(run.path)
    assert detector.class_names == ("blue", "red")
    assert run.predictions().class_names == ("blue", "red")
    assert run.evaluation().ap == pytest.approx(run.best["ap"])
    start = run.events()[0]
    assert start["event"] == "start"
    assert start["choices"]["reasons"]["device"]
    previews = [e for e in run.events() if e["event"] == "preview"]
    assert len(previews) == 2
    assert {"row", "boxes", "classes", "scores"} <= set(previews[0]["images"][0])


def test_the_same_seed_trains_the_same_weights(dataset: Dataset, tmp_path: Path) -> None:
    first, second = trained(dataset, tmp_path, "a"), trained(dataset, tmp_path, "b")
    assert facts(first) == facts(second)
    assert same_weights(first, second)
    assert facts(trained(dataset, tmp_path, "c", seed=1)) != facts(first)


def test_data_workers_change_nothing(dataset: Dataset, tmp_path: Path) -> None:
    assert facts(trained(dataset, tmp_path, "a")) == facts(trained(dataset, tmp_path, "b", num_workers=2))


@pytest.mark.slow
def test_it_learns(dataset: Dataset, tmp_path: Path) -> None:
    run = trained(dataset, tmp_path, "learns", weights="pretrained", epochs=12)
    assert run.best["ap50"] > 0.5


@pytest.mark.worker
@pytest.mark.parametrize(
    ("threads", "settings"),
    [
        (2, {"weights": "pretrained"}),  # its batch norms are fixed: each thread computes a part of the batch
        (1, {"detector": "dfine_nano"}),
    ],
    ids=str,
)
def test_a_stop_request_leaves_a_run_that_resumes_exactly(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, settings: dict[str, str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    monkeypatch.setenv("MKL_NUM_THREADS", str(threads))
    whole = started(dataset, tmp_path, "whole", **settings)
    assert whole.events()[0]["machine"]["threads"] == threads
    stopped = create_run(dataset, Settings(**{**SMALL, **settings}), tmp_path, "stopped")  # type: ignore[arg-type]
    stopped.start()
    wait_for_steps(stopped, 1)
    stopped.stop()
    assert stopped.state in ("stopped", "finished")
    if stopped.state == "stopped":
        finished(stopped.resume(wait=False))
    assert facts(stopped) == facts(whole)
    assert same_weights(stopped, whole)


@pytest.mark.worker
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_stop(dataset: Dataset, tmp_path: Path, number: signal.Signals) -> None:
    run = create_run(dataset, Settings(**{**SMALL, "epochs": 50}), tmp_path, "signalled")  # type: ignore[arg-type]
    run.start()
    wait_for_steps(run, 2)
    os.kill(worker_pid(run), number)
    end = time.monotonic() + 60
    while run.alive:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert run.state == "stopped"
    newest = torch.load(run.checkpoints()[-1], weights_only=True)
    assert newest["progress"]["step"] == max(e["step"] for e in run.events() if e["event"] == "step")


@pytest.mark.worker
def test_twenty_kills_lose_nothing(dataset: Dataset, tmp_path: Path) -> None:
    """SIGKILL at random moments, checkpoint writes among them: weights, average and history as if undisturbed."""
    settings = {"epochs": 10, "checkpoint_steps": 1, "keep": 2}
    whole = started(dataset, tmp_path, "whole", **settings)
    run = create_run(dataset, Settings(**{**SMALL, **settings}), tmp_path, "killed")  # type: ignore[arg-type]
    dice, kills, torn = random.Random(0), 0, 0
    while kills < 20:
        before = len(run.events(raw=True))
        run.start()
        while run.alive and len(run.events(raw=True)) <= before:
            time.sleep(0.005)
        target = len(run.events(raw=True)) + dice.randint(1, 4)
        while run.alive and len(run.events(raw=True)) < target:
            time.sleep(0.001)
        if kills % 4 == 3:  # every fourth one while a checkpoint is being written
            while run.alive and not list(run.path.glob("checkpoints/*.tmp")):
                pass
        else:
            time.sleep(dice.uniform(0, 0.04))
        if not run.alive:
            break
        os.kill(worker_pid(run), signal.SIGKILL)
        while run.alive:
            time.sleep(0.005)
        kills += 1
        torn += bool(list(run.path.glob("checkpoints/*.tmp")))
        assert run.state == "died"
    assert kills == 20
    assert torn, "no kill met a checkpoint that was being written"
    finished(run.resume(wait=False))
    assert facts(run) == facts(whole)
    assert same_weights(run, whole)


@pytest.mark.worker
def test_a_torn_checkpoint_is_passed_over(dataset: Dataset, tmp_path: Path) -> None:
    whole = trained(dataset, tmp_path, "whole")
    run = trained(dataset, tmp_path, "torn", epochs=1)
    newest = run.checkpoints()[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    finished(run.resume(wait=False, epochs=2))
    assert any(e.get("kind") == "damaged_checkpoint" for e in run.events())
    assert len(facts(run)) == len(facts(whole))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: torch.save({"detector": {}}, file), "it is none of a run's: average, choices"),
        (lambda file: torch.save([1, 2], file), "it is none of a run's"),
        (
            lambda file: torch.save(Path, file),
            "it is damaged, or holds what no checkpoint has, and is not loaded",
        ),
        (lambda file: file.write_bytes(b"PK" * 500), ""),
    ],
    ids=["other", "list", "code", "text"],
)
def test_no_run_begins_anew_where_its_checkpoints_cannot_be_read(
    dataset: Dataset, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    run = trained(dataset, tmp_path, "spoiled", epochs=1)
    best = run.detector_file().read_bytes()
    for file in run.checkpoints():
        spoil(file)
    assert work(run.path) == 1
    assert run.end["message"].startswith("none of the run's 2 checkpoints can be read (")
    assert said in run.end["message"]
    assert f"odkit train --config {run.path / 'config.json'}" in run.end["message"]
    assert not any("weights_only" in str(event) for event in run.events())
    assert run.detector_file().read_bytes() == best
    for file in run.checkpoints():
        file.unlink()
    assert work(run.path) == 1
    assert "checkpoints are gone" in run.end["message"]
    assert run.detector_file().read_bytes() == best


def test_a_stop_is_taken_up_before_the_first_step(dataset: Dataset, tmp_path: Path) -> None:
    run = create_run(dataset, Settings(**{**SMALL, "epochs": 1}), tmp_path, "early")  # type: ignore[arg-type]
    run.request("now")
    assert work(run.path) == 0
    assert (run.state, run.events(only="step")) == ("stopped", [])
    assert not (run.path / "stop").exists()
    assert work(run.path) == 0
    assert facts(run)[-4:] == facts(trained(dataset, tmp_path, "whole", epochs=1))[-4:]


def test_a_stop_is_taken_up_while_the_first_batch_is_waited_for(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingImages, "__getitem__", lambda self, turn: time.sleep(600))
    settings = {**SMALL, "epochs": 1, "num_workers": 1}
    run = create_run(dataset, Settings(**settings), tmp_path, "waits")  # type: ignore[arg-type]

    def ask() -> None:
        until(multiprocessing.active_children)  # the data worker, which has taken the first batch
        run.request("now")

    asks = threading.Thread(target=ask)
    asks.start()
    assert work(run.path) == 0
    asks.join()
    assert (run.state, run.events(only="step")) == ("stopped", [])
    assert len(run.checkpoints()) == 1


def test_resume_refuses_other_settings(dataset: Dataset, tmp_path: Path) -> None:
    run = trained(dataset, tmp_path, "done", epochs=1)
    with pytest.raises(ValueError, match="batch"):
        run.resume(batch_size=8)
    with pytest.raises(RunError, match="leave nothing to do"):
        run.resume()


@pytest.mark.worker
def test_micro_batches_train_as_one_process_would_share(dataset: Dataset, tmp_path: Path) -> None:
    """Two gloo processes take the same steps as one process that accumulates the same two shares."""
    # SGD: Adam divides by the gradient's own size, and makes steps out of rounding where that is nothing
    settings = {**SMALL, "epochs": 1, "optimizer": "sgd"}
    one = started(dataset, tmp_path, "one", **settings, micro_batch_size=2)
    two = finished(fine_tune(dataset, folder=tmp_path, name="two", wait=False, processes=2, **settings))
    steps = [[e for e in run.events() if e["event"] == "step"] for run in (one, two)]
    assert len(steps[0]) == len(steps[1])
    for a, b in zip(*steps, strict=True):
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-3)
        assert b["loss"] == pytest.approx(
            a["loss"], rel=1e-3
        )  # the whole batch's, not the first process' share
        assert b["losses"] == pytest.approx(a["losses"], rel=1e-3, abs=1e-6)
    a, b = (torch.load(run.checkpoints()[-1], weights_only=True)["detector"] for run in (one, two))
    trained_keys = [key for key in a if "running" not in key and "num_batches" not in key]
    for key in trained_keys:
        torch.testing.assert_close(b[key], a[key], rtol=1e-4, atol=1e-5)
    assert two.evaluation().ap == pytest.approx(two.best["ap"])
    # what was judged, by both processes, is what was saved
    alone = predict(load_detector(two.path), two.dataset("val"), batch_size=1)
    assert evaluate(two.dataset("val"), alone).ap == pytest.approx(two.best["ap"], abs=1e-3)


def family(run: Run) -> tuple[psutil.Process, list[psutil.Process]]:
    """torchrun's launcher and its training processes, the first (which writes) in front."""
    first = psutil.Process(worker_pid(run))
    launcher = first.parent()
    assert launcher is not None
    assert "torch.distributed.run" in " ".join(launcher.cmdline())
    return launcher, [first, *(child for child in launcher.children() if child.pid != first.pid)]


@pytest.mark.worker
@pytest.mark.parametrize(
    ("victims", "number", "states"),
    [
        (("launcher",), signal.SIGKILL, ("stopped",)),
        (("launcher", "second"), signal.SIGKILL, ("failed", "stopped", "died")),
        (("second",), signal.SIGTERM, ("stopped",)),  # all leave together, whoever was asked
        (("launcher",), signal.SIGTERM, ("stopped",)),  # what SLURM, Kubernetes and `docker stop` send
    ],
    ids=str,
)
def test_a_lost_process_ends_the_run_resumably(
    dataset: Dataset,
    tmp_path: Path,
    victims: tuple[str, ...],
    number: signal.Signals,
    states: tuple[str, ...],
) -> None:
    """Training processes and torchrun itself are killed: all the others end too, and the lock is free only then."""
    settings = {**SMALL, "epochs": 200, "processes": 2, "checkpoint_steps": 1}
    run = fine_tune(dataset, folder=tmp_path, name="two", wait=False, **settings)
    wait_for_steps(run, 3)
    launcher, (first, second) = family(run)
    named = {"launcher": launcher, "first": first, "second": second}
    everyone = [*named.values(), *launcher.children(recursive=True)]
    sockets = [one for process in named.values() for one in process.net_connections("inet")]
    assert {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN} == {"127.0.0.1"}, (
        "not to the network"
    )
    for victim in victims:
        named[victim].send_signal(number)
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in (first, second)):
        # as long as one of them may write, nobody else is let in
        if run.alive:
            time.sleep(0.02)
            continue
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in (first, second))
    end = time.monotonic() + 90
    while run.alive:
        assert time.monotonic() < end, run.log_tail()
        time.sleep(0.05)
    assert not [p for p in everyone if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], "an orphan"
    found = open_run(run.path)
    assert found.state in states, found.trouble()
    if found.state == "failed":
        assert "another process of this run has ended" in found.trouble()
    saved = torch.load(found.checkpoints()[-1], weights_only=True)["progress"]["step"]
    seen = max(e["step"] for e in found.events() if e["event"] == "step")
    assert seen - 2 <= saved <= seen + 1  # a checkpoint is written while the next step is computed
    if len(victims) == 2:
        found.resume(wait=False)
        wait_for_steps(found, len([e for e in found.events(raw=True) if e["event"] == "step"]) + 2)
        assert found.stop().state == "stopped", found.trouble()
        steps = [e["step"] for e in found.events() if e["event"] == "step"]
        assert steps == list(range(1, len(steps) + 1))


@pytest.mark.worker
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_killed_in_the_middle_of_a_step_is_started_again(
    dataset: Dataset, tmp_path: Path, victim: int
) -> None:
    """One of two is killed between forward and backward; the run finishes by itself, as if undisturbed."""
    settings = {**SMALL, "epochs": 3, "processes": 2, "checkpoint_steps": 1}
    undisturbed = finished(fine_tune(dataset, folder=tmp_path, name="whole", wait=False, **settings))
    run = create_run(dataset, Settings(**settings), tmp_path, "killed")  # type: ignore[arg-type]
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    launcher = [*worker_command(run.path, 2)[:-4], str(script), str(run.path), str(victim)]
    environment = {**worker_environment(), LOCK_VARIABLE: ""}
    done = subprocess.run(launcher, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert run.state == "finished"
    assert [e["event"] for e in run.events(raw=True)].count("start") == 2
    # Adam makes steps out of rounding, and the sums of two processes may come in another order
    steps = [[e for e in one.events() if e["event"] == "step"] for one in (undisturbed, run)]
    assert [e["step"] for e in steps[0]] == [e["step"] for e in steps[1]] == list(range(1, 10))
    for a, b in zip(*steps, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)
    assert run.evaluation().ap == pytest.approx(run.best["ap"])


KILLED = """
import os, signal, sys
from odkit.cli import main
from odkit.detection import Detector

whole, calls = Detector.forward, [0]
first_time = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

def forward(self, images, targets=None):
    found = whole(self, images, targets)
    calls[0] += self.training
    if calls[0] == 6 and first_time and os.environ["RANK"] == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return found

Detector.forward = forward
sys.exit(main(["worker", sys.argv[1]]))
"""


@pytest.mark.worker
def test_a_fault_in_one_of_two_processes_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    """An image that only the second process reads is gone: its words, not the first one's, say how the run ended."""
    own = squares(tmp_path / "data")
    run = create_run(own, Settings(**{**SMALL, "processes": 2, "epochs": 1}), tmp_path, "two")  # type: ignore[arg-type]
    rows = EpochSampler(len(own.split("train")), 4).rows()
    gone = Path(own.split("train").image_paths[rows[0][2]])  # the second half of the first batch
    gone.unlink()
    run.start()
    until(lambda: not run.alive)
    assert run.state == "failed"
    assert str(gone) in run.trouble()
    assert [e["event"] for e in run.events(raw=True)].count("start") == 1, "it is not tried again in vain"


def test_a_fault_keeps_its_traceback_and_the_steps_that_were_taken(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A ValueError from the depths of NumPy, in the third step."""
    whole, calls = Detector.forward, [0]

    def broken(self: Detector, images: Batch, targets: object = None) -> object:
        calls[0] += 1
        if calls[0] == 4:
            np.zeros(2) + np.zeros(3)
        return whole(self, images)

    monkeypatch.setattr(Detector, "forward", broken)
    run = create_run(dataset, Settings(**SMALL), tmp_path, "broken")  # type: ignore[arg-type]
    assert work(run.path) == 1
    assert "np.zeros(2) + np.zeros(3)" in capfd.readouterr().err
    assert "could not be broadcast" in run.trouble()
    assert torch.load(run.checkpoints()[-1], weights_only=True)["progress"]["step"] == 2
    monkeypatch.setattr(Detector, "forward", whole)
    assert work(run.path) == 0
    undisturbed = trained(dataset, tmp_path, "undisturbed")
    assert facts(run) == facts(undisturbed)
    assert same_weights(run, undisturbed)


def test_a_single_image_that_does_not_fit_is_said(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Detector, "forward", lambda *_: torch.empty(1 << 60, dtype=torch.uint8))
    run = create_run(dataset, Settings(**SMALL), tmp_path, "none")  # type: ignore[arg-type]
    assert work(run.path) == 1
    assert "out of memory with a single 64-pixel image" in run.trouble()
    assert "try a smaller --image-size" in run.trouble()


def test_memory_that_runs_short_in_the_middle_starts_again_with_less(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was enough when it was tried; the steps taken until then are not lost."""
    whole, calls = Detector.forward, [0]

    def narrow(self: Detector, images: Batch, targets: object = None) -> object:
        calls[0] += self.training
        found = whole(self, images)
        if self.training and calls[0] > 3 and len(images) > 2:
            torch.empty(1 << 60, dtype=torch.uint8)
        return found

    monkeypatch.setattr(Detector, "forward", narrow)
    run = trained(dataset, tmp_path, "tight")
    assert [e["kind"] for e in run.events() if e["event"] == "warning"] == ["out_of_memory"]
    assert [e["from_step"] for e in run.events(raw=True) if e["event"] == "start"] == [0, 2]
    assert [e["step"] for e in run.events() if e["event"] == "step"] == list(range(1, 7))


def test_memory_that_runs_short_between_two_steps_is_not_the_micro_batchs_fault(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of the third batch finds no memory: fewer images at once would not help."""
    whole, calls = TrainingImages.__getitem__, [0]

    def narrow(self: TrainingImages, index: int | tuple[int, int, int]) -> object:
        calls[0] += 1
        if calls[0] == 9:
            torch.empty(1 << 60, dtype=torch.uint8)
        return whole(self, index)

    monkeypatch.setattr(TrainingImages, "__getitem__", narrow)
    run = create_run(dataset, Settings(**SMALL), tmp_path, "tight")  # type: ignore[arg-type]
    assert work(run.path) == 1
    assert "out of memory" in run.trouble()
    assert f"odkit resume {run.path} --num-workers 0" in run.trouble()
    assert not [e for e in run.events() if e.get("kind") == "out_of_memory"]
    assert torch.load(run.checkpoints()[-1], weights_only=True)["progress"]["step"] == 2
    assert work(run.path) == 0


def test_a_run_with_a_time_budget_goes_further(dataset: Dataset, tmp_path: Path) -> None:
    """With a larger budget its epochs are fitted anew; with a number of epochs, that many are trained."""
    run = trained(dataset, tmp_path, "budget", minutes=0.01, batch_size=2)
    first = len(run.history())
    run_again(run, minutes=60.0)
    assert run.state == "stopped"
    assert len(run.history()) == first + 1
    assert run.history()[-1]["epochs"] > first + 1
    run_again(run, minutes=0.0, epochs=300)
    assert run.history()[-1]["epochs"] == 300


def run_again(run: Run, **changes: object) -> None:
    """One more epoch in this process, under other settings."""
    config = orjson.loads((run.path / "config.json").read_bytes())
    config["settings"] |= changes
    (run.path / "config.json").write_bytes(orjson.dumps(config))
    run.request("epoch")
    assert work(run.path) == 0


def test_a_loss_that_is_not_finite_rolls_back_and_then_ends(dataset: Dataset, tmp_path: Path) -> None:
    run = create_run(
        dataset,
        Settings(**{**SMALL, "epochs": 40, "learning_rate": 2e9, "clip": 0.0, "warmup": 0.0}),  # type: ignore[arg-type]
        tmp_path,
        "wild",
    )
    assert work(run.path) == 1
    kinds = [e.get("kind") for e in run.events(raw=True) if e["event"] == "warning"]
    assert "not_finite" in kinds
    assert "rollback" in kinds
    assert run.state == "failed"
    assert "learning-rate" in run.trouble()
    assert list((run.path / "bad_batches").glob("*.pt"))


def test_a_batch_that_is_not_finite_leaves_nothing_behind(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Infinite pixels in one batch: batch norms see them, the detector must not keep them."""
    whole, calls = Detector.forward, [0]

    def spoilt(self: Detector, images: Batch, targets: object = None) -> object:
        if self.training:
            calls[0] += 1
            if calls[0] == 3:  # in the second step: memory was tried with one pass before
                changes = images.changes._replace(colour=np.full_like(images.changes.colour, np.nan))
                images = dataclasses.replace(images, changes=changes)
        return whole(self, images)

    monkeypatch.setattr(Detector, "forward", spoilt)
    run = trained(dataset, tmp_path, "spoilt")
    monkeypatch.setattr(Detector, "forward", whole)
    (warning,) = [e for e in run.events() if e["event"] == "warning"]
    assert warning["kind"] == "not_finite"
    assert ".png" in warning["message"]
    losses = [e["loss"] for e in run.events() if e["event"] == "step"]
    assert losses[1] is None
    assert all(loss is not None for loss in losses[:1] + losses[2:])
    saved = torch.load(run.checkpoints()[-1], weights_only=True)
    assert saved["progress"]["skipped"] == 1
    assert all(torch.isfinite(value).all() for value in saved["detector"].values())
    assert all(torch.isfinite(value).all() for value in saved["average"]["detector"].values())
    assert {row["verdict"].split(" and")[0] for row in replay(run)} == {"finite alone"}  # the pixels were not


def test_an_image_that_vanishes_is_named(tmp_path: Path) -> None:
    dataset = squares(tmp_path / "data")
    run = create_run(dataset, Settings(**SMALL), tmp_path, "missing")  # type: ignore[arg-type]
    gone = Path(dataset.split("train").image_paths[0])
    gone.unlink()
    assert work(run.path) == 1
    assert str(gone) in run.trouble()


def test_out_of_memory_halves_the_micro_batch(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU's own allocator error, raised for more than two images at once, after the pass through them."""
    whole = Detector.forward

    def narrow(self: Detector, images: Batch, targets: object = None) -> object:
        found = whole(self, images)
        if len(images) > 2:
            torch.empty(1 << 60, dtype=torch.uint8)  # really asks for an exabyte
        return found

    monkeypatch.setattr(Detector, "forward", narrow)
    run = trained(dataset, tmp_path, "tight")
    warnings = [e["message"] for e in run.events() if e.get("kind") == "out_of_memory"]
    assert len(warnings) == 1, "judging goes by the same number"
    assert "2 images at once from now on, accumulated to the same batch of 4" in warnings[0]
    monkeypatch.setattr(Detector, "forward", whole)
    two = trained(dataset, tmp_path, "two", micro_batch_size=2)
    assert facts(run) == facts(two), "the first, failed pass has left no trace"
    assert same_weights(run, two)


def test_out_of_memory_while_judging(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Detector.forward

    def narrow(self: Detector, images: Batch, targets: object = None) -> object:
        if not self.training and len(images) > 1:
            torch.empty(1 << 60, dtype=torch.uint8)
        return whole(self, images)

    monkeypatch.setattr(Detector, "forward", narrow)
    run = trained(dataset, tmp_path, "tight", epochs=1)
    assert [e["message"] for e in run.events() if e["event"] == "warning"] == [
        "out of memory while judging: 2 images at once from now on",
        "out of memory while judging: 1 images at once from now on",
    ]


def test_a_stop_while_judging_does_not_wait_for_it(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judging can take longer than an epoch: it is left, and done by the resumed run."""
    undisturbed = trained(dataset, tmp_path, "undisturbed")
    whole, seen = Detector.forward, [0]
    run = create_run(dataset, Settings(**{**SMALL, "micro_batch_size": 1}), tmp_path, "stopped")  # type: ignore[arg-type]

    def asked(self: Detector, images: Batch, targets: object = None) -> object:
        if not self.training:
            seen[0] += 1
            if seen[0] == 2:
                run.request("checkpoint")
            if seen[0] == 3:
                run.request("now")
        return whole(self, images)

    monkeypatch.setattr(Detector, "forward", asked)
    assert work(run.path) == 0
    assert seen[0] == 3, "of 4 held-out images"
    assert run.state == "stopped"
    assert not [e for e in run.events() if e["event"] == "evaluation"]
    assert [e["event"] for e in run.events()][-4:] == ["checkpoint", "checkpoint", "stop", "end"]
    assert work(run.path) == 0
    assert run.state == "finished"
    assert [(row["epoch"], row["step"]) for row in run.history()] == [
        (row["epoch"], row["step"]) for row in undisturbed.history()
    ]
    assert [row["ap"] is not None for row in run.history()] == [True, True]


def test_options_train(dataset: Dataset, tmp_path: Path) -> None:
    run = trained(
        dataset, tmp_path, "options", augment="strong", multi_scale=0.3, freeze_epochs=1, layer_decay=0.8,
        optimizer="sgd", precision="bf16", patience=1, epochs=3,
    )  # fmt: skip
    assert run.state == "finished"
    frozen = [e for e in run.events() if e["event"] == "step"]
    assert all(np.isfinite(e["loss"]) for e in frozen)


@pytest.mark.parametrize(("detector", "where"), [("starter", "backbone."), ("dfine_nano", "model.backbone.")])
def test_a_frozen_backbone_stays_as_it_was_and_is_trained_after(
    dataset: Dataset, tmp_path: Path, detector: str, where: str
) -> None:
    run = trained(dataset, tmp_path, "frozen", epochs=3, freeze_epochs=2, keep=9, detector=detector)
    by_step = {path.name: torch.load(path, weights_only=True)["detector"] for path in run.checkpoints()}
    first, _, frozen, thawed = by_step.values()
    body = [key for key in first if key.startswith(where)]
    assert body
    assert all(torch.equal(first[key], frozen[key]) for key in body), "running figures among them"
    assert not any(torch.equal(frozen[key], thawed[key]) for key in body if key.endswith("running_mean"))
    assert any(not torch.equal(first[key], frozen[key]) for key in first if key not in body), (
        "the head learns"
    )


def test_patience_ends_a_run_that_does_not_get_better(dataset: Dataset, tmp_path: Path) -> None:
    run = trained(dataset, tmp_path, "patient", epochs=20, patience=2, learning_rate=1e-12)
    assert run.state == "finished"
    assert len(run.history()) == run.best["epoch"] + 2 < 20
    (note,) = [e for e in run.events() if e.get("kind") == "early_stop"]
    assert "the AP has not risen for 2 epochs" in note["message"]


def test_a_wished_batch_is_reached_by_accumulation(dataset: Dataset, tmp_path: Path) -> None:
    """The same batch in one, two and four parts: as many steps at the same rate, and nearly the same loss."""
    settings = {"batch_size": 4, "epochs": 1, "augment": "none"}
    runs = [trained(dataset, tmp_path, str(m), micro_batch_size=m, **settings) for m in (4, 2)]
    steps = [[e for e in run.events() if e["event"] == "step"] for run in runs]
    assert [len(some) for some in steps] == [3, 3]
    assert [e["learning_rate"] for e in steps[0]] == [e["learning_rate"] for e in steps[1]]
    assert steps[0][0]["loss"] == pytest.approx(steps[1][0]["loss"], rel=0.1)


@pytest.mark.worker
def test_a_compiler_that_does_not_work_is_named_and_done_without(dataset: Dataset, tmp_path: Path) -> None:
    """A C++ compiler that is not there."""
    run = create_run(dataset, Settings(**{**SMALL, "epochs": 1, "compile": True}), tmp_path, "compiled")  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CXX", str(tmp_path / "no-such-compiler"))
        environment.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
        run.start()
    finished(run)
    (warning,) = [e for e in run.events() if e["event"] == "warning"]
    assert warning["kind"] == "compile"
    assert "training goes on without" in warning["message"]
    assert "no-such-compiler" in warning["message"]
    plain = started(dataset, tmp_path, "plain", epochs=1)
    assert facts(run) == facts(plain), "the attempt has left no trace"


def test_a_time_budget_fits_the_epochs(dataset: Dataset, tmp_path: Path) -> None:
    run = trained(dataset, tmp_path, "budget", minutes=0.05, epochs=1, batch_size=2)
    note = next(e for e in run.events() if e.get("kind") == "time_budget")
    assert "epochs" in note["message"]
    assert run.history()[-1]["epoch"] == run.history()[-1]["epochs"]


def test_a_heavy_detector_on_a_cpu_says_the_hours_first(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first pass takes ten minutes, by a clock that jumps; with --device cpu it trains."""
    whole, clock, late = Detector.forward, time.monotonic, [0.0]

    def slow(self: Detector, images: Batch, targets: object = None) -> object:
        late[0] += 600.0 * (late[0] == 0)
        return whole(self, images)

    monkeypatch.setattr(time, "monotonic", lambda: clock() + late[0])
    monkeypatch.setattr(Detector, "forward", slow)
    settings = {**SMALL, "detector": "ssd300_vgg16", "image_size": 300, "epochs": 2, "device": "auto"}
    run = create_run(dataset, Settings(**settings), tmp_path, "auto")  # type: ignore[arg-type]
    assert work(run.path) == 1
    assert "2 epochs of 12 images would take about 1 h on this CPU" in run.trouble()
    assert "--device cpu" in run.trouble()
    assert not [e for e in run.events() if e["event"] == "step"]
    late[0] = 0.0
    asked = create_run(dataset, Settings(**{**settings, "device": "cpu", "epochs": 1}), tmp_path, "cpu")  # type: ignore[arg-type]
    assert work(asked.path) == 0
