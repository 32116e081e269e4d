"""Training through its public functions: real files, real worker processes, real kills, on a CPU."""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from odkit.dataset import Dataset
from odkit.detectors import load_detector
from odkit.run import Run, RunError, create_run, fine_tune
from odkit.settings import Settings
from odkit.training import work
from tests.tiny import squares

SMALL = {"weights": "random", "workers": 0, "image_size": 64, "batch": 4, "epochs": 2}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "OMP_NUM_THREADS", "1"
    )  # for the workers: as many as this process, and the same order of sums
    torch.set_num_threads(1)


def trained(dataset: Dataset, folder: Path, name: str, **settings: object) -> Run:
    run = create_run(dataset, Settings(**{**SMALL, **settings}), folder, name)  # type: ignore[arg-type]
    assert work(run.path) == 0
    return run


def started(dataset: Dataset, folder: Path, name: str, **settings: object) -> Run:
    """A run trained by a worker process; its sums have the same order in every such process."""
    run = create_run(dataset, Settings(**{**SMALL, **settings}), folder, name)  # type: ignore[arg-type]
    return finished(run.start())


def finished(run: Run) -> Run:
    while run.alive:
        time.sleep(0.05)
    assert run.state == "finished", run.trouble()
    return run


def facts(run: Run) -> list[tuple[object, ...]]:
    """What a run did, without times and file sizes."""
    keep = (
        "event",
        "step",
        "epoch",
        "loss",
        "losses",
        "learning_rate",
        "grad_norm",
        "ap",
        "ap50",
        "best",
        "per_class",
    )
    events = [e for e in run.events() if e["event"] in ("step", "epoch", "evaluation")]
    return [tuple((k, str(e[k])) for k in keep if k in e) for e in events]


def same_weights(first: Run, second: Run) -> bool:
    a, b = (torch.load(run.checkpoints()[-1], weights_only=True) for run in (first, second))
    return all(torch.equal(a[part][key], b[part][key]) for part in ("detector", "average") for key in a[part])


def wait_for_steps(run: Run, steps: int, *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while sum(e["event"] == "step" for e in run.events(raw=True)) < steps:
        assert time.monotonic() < end, run.log_tail()
        time.sleep(0.01)


def worker_pid(run: Run) -> int:
    return int(next(e for e in reversed(run.events(raw=True)) if e["event"] == "start")["machine"]["pid"])


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
    assert facts(trained(dataset, tmp_path, "a")) == facts(trained(dataset, tmp_path, "b", workers=2))


def test_it_learns(dataset: Dataset, tmp_path: Path) -> None:
    run = trained(dataset, tmp_path, "learns", weights="pretrained", epochs=12)
    assert run.best["ap50"] > 0.5


def test_a_stop_request_leaves_a_run_that_resumes_exactly(dataset: Dataset, tmp_path: Path) -> None:
    whole = started(dataset, tmp_path, "whole")
    stopped = create_run(dataset, Settings(**SMALL), tmp_path, "stopped")  # type: ignore[arg-type]
    stopped.start()
    wait_for_steps(stopped, 1)
    stopped.stop()
    assert stopped.state in ("stopped", "finished")
    if stopped.state == "stopped":
        finished(stopped.resume(wait=False))
    assert facts(stopped) == facts(whole)
    assert same_weights(stopped, whole)


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


def test_twenty_kills_lose_nothing(dataset: Dataset, tmp_path: Path) -> None:
    """SIGKILL at random moments, checkpoint writes among them: weights, average and history as if undisturbed."""
    settings = {"epochs": 10, "checkpoint_steps": 1, "keep": 2}
    whole = started(dataset, tmp_path, "whole", **settings)
    run = create_run(dataset, Settings(**{**SMALL, **settings}), tmp_path, "killed")  # type: ignore[arg-type]
    dice, kills = random.Random(0), 0
    while kills < 20:
        before = len(run.events(raw=True))
        run.start()
        while run.alive and len(run.events(raw=True)) <= before:
            time.sleep(0.005)
        target = len(run.events(raw=True)) + dice.randint(1, 4)
        while run.alive and len(run.events(raw=True)) < target:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.04))
        if not run.alive:
            break
        os.kill(worker_pid(run), signal.SIGKILL)
        while run.alive:
            time.sleep(0.005)
        kills += 1
        assert run.state == "died"
    assert kills == 20
    finished(run.resume(wait=False))
    assert facts(run) == facts(whole)
    assert same_weights(run, whole)


def test_a_torn_checkpoint_is_passed_over(dataset: Dataset, tmp_path: Path) -> None:
    whole = trained(dataset, tmp_path, "whole")
    run = trained(dataset, tmp_path, "torn", epochs=1)
    newest = run.checkpoints()[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    finished(run.resume(wait=False, epochs=2))
    assert any(e.get("kind") == "damaged_checkpoint" for e in run.events())
    assert len(facts(run)) == len(facts(whole))


def test_resume_refuses_other_settings(dataset: Dataset, tmp_path: Path) -> None:
    run = trained(dataset, tmp_path, "done", epochs=1)
    with pytest.raises(ValueError, match="batch"):
        run.resume(batch=8)
    with pytest.raises(RunError, match="finished"):
        run.resume()


def test_micro_batches_train_as_one_process_would_share(dataset: Dataset, tmp_path: Path) -> None:
    """Two gloo processes take the same steps as one process that accumulates the same two shares."""
    # SGD: Adam divides by the gradient's own size, and makes steps out of rounding where that is nothing
    settings = {**SMALL, "epochs": 1, "optimizer": "sgd"}
    one = started(dataset, tmp_path, "one", **settings, micro_batch=2)
    two = finished(fine_tune(dataset, folder=tmp_path, name="two", wait=False, processes=2, **settings))
    steps = [[e for e in run.events() if e["event"] == "step"] for run in (one, two)]
    assert len(steps[0]) == len(steps[1])
    for a, b in zip(*steps, strict=True):
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-3)
    a, b = (torch.load(run.checkpoints()[-1], weights_only=True)["detector"] for run in (one, two))
    trained_keys = [key for key in a if "running" not in key and "num_batches" not in key]
    for key in trained_keys:
        torch.testing.assert_close(b[key], a[key], rtol=1e-4, atol=1e-5)
    assert two.evaluation().ap == pytest.approx(two.best["ap"])


def test_a_lost_process_ends_the_run_resumably(dataset: Dataset, tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 60, "processes": 2, "checkpoint_steps": 1}
    run = fine_tune(dataset, folder=tmp_path, name="two", wait=False, **settings)
    wait_for_steps(run, 3)
    os.kill(worker_pid(run), signal.SIGKILL)
    end = time.monotonic() + 90
    while run.alive:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert run.state in ("died", "failed")
    assert torch.load(run.checkpoints()[-1], weights_only=True)["progress"]["step"] >= 2


def test_a_loss_that_is_not_finite_rolls_back_and_then_ends(dataset: Dataset, tmp_path: Path) -> None:
    run = create_run(
        dataset,
        Settings(**{**SMALL, "epochs": 40, "learning_rate": 1e18, "clip": 0.0, "warmup": 0.0}),  # type: ignore[arg-type]
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
    """The CPU's own allocator error, raised for more than two images at once."""
    from odkit.detectors import Detector

    whole = Detector.forward

    def narrow(self: Detector, images: list[torch.Tensor], targets: object = None) -> object:
        if self.training and len(images) > 2:
            torch.empty(1 << 60, dtype=torch.uint8)  # really asks for an exabyte
        return whole(self, images, targets)  # type: ignore[arg-type]

    monkeypatch.setattr(Detector, "forward", narrow)
    run = trained(dataset, tmp_path, "tight", epochs=1)
    warnings = [e for e in run.events() if e["event"] == "warning" and e["kind"] == "out_of_memory"]
    assert len(warnings) == 1
    monkeypatch.setattr(Detector, "forward", whole)
    assert facts(run)[0] == facts(trained(dataset, tmp_path, "two", micro_batch=2, epochs=1))[0]


def test_options_train(dataset: Dataset, tmp_path: Path) -> None:
    run = trained(
        dataset, tmp_path, "options", augment="strong", multi_scale=0.3, freeze_epochs=1, layer_decay=0.8,
        optimizer="sgd", precision="bf16", patience=1, epochs=3,
    )  # fmt: skip
    assert run.state == "finished"
    frozen = [e for e in run.events() if e["event"] == "step"]
    assert all(np.isfinite(e["loss"]) for e in frozen)


def test_a_time_budget_fits_the_epochs(dataset: Dataset, tmp_path: Path) -> None:
    run = trained(dataset, tmp_path, "budget", minutes=0.05, epochs=1, batch=2)
    note = next(e for e in run.events() if e.get("kind") == "time_budget")
    assert "epochs" in note["message"]
    assert run.history()[-1]["epoch"] == run.history()[-1]["epochs"]
