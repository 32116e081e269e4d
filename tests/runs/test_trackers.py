"""A run's events as TensorBoard and MLflow read them."""

import sys
from pathlib import Path

import pytest

from odkit.runs.events import EventLog
from odkit.runs.run import Run, create_run
from odkit.runs.settings import Settings
from odkit.runs.follower import track
from odkit.runs.trackers import mlflow_name
from tests.helpers import squares


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = create_run(squares(tmp_path / "squares", 8), Settings(epochs=2), tmp_path / "runs", "one")
    log = EventLog(run.path / "events.jsonl")
    log.write("start", step=0, from_step=0)
    more = {
        "learning_rate": 0.5,
        "grad_norm": 2.0,
        "images_per_second": 8.0,
        "data_wait": 0.25,
        "memory": 1e9,
    }
    for step in (1, 2):
        losses = {"box": 0.75, "class": 0.25}
        log.write("step", step=step, epoch=1, loss=1.0 / step, losses=losses, device_memory=0, **more)
    log.write("start", step=1, from_step=1, resumed=True)
    log.write("step", step=2, epoch=1, loss=None, losses={}, device_memory=5, **more)
    log.write("step", step=3, epoch=1, loss=0.25, losses={}, device_memory=5, **more)
    log.write("epoch", epoch=1, step=3, loss=0.5, seconds=4.0)
    log.write(
        "evaluation", epoch=1, step=3, ap=0.5, ap50=None, best=True, seconds=1.0, per_class={"red": 0.25}
    )
    log.write("warning", step=3, kind="x", message="mind the gap")
    log.close()
    return run


def test_tensorboard_reads_what_was_logged(run: Run, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    to = f"tensorboard={tmp_path / 'board'}"
    target = Path(track(run, to))
    assert target == tmp_path / "board" / "one"
    (target / "events.out.tfevents.0.other").touch()
    track(run, to)  # again: in place of the first, and nothing else is touched
    assert sorted(path.suffix for path in target.iterdir()) == [".odkit", ".other"]

    read = EventAccumulator(str(next(target.glob("*.odkit"))))
    read.Reload()
    loss = read.Scalars("train/loss")
    assert [(point.step, point.value) for point in loss] == [(1, 1.0), (3, 0.25)]
    assert loss[0].wall_time == pytest.approx(run.events()[1]["time"], abs=1e-3)
    tags = read.Tags()["scalars"]
    assert read.Scalars("val/ap")[0].value == 0.5
    assert read.Scalars("val_class/red")[0].value == 0.25
    assert {"train/loss_box", "speed/data_wait_share", "memory/device_bytes", "epoch/loss"} <= set(tags)
    assert not {"val/ap50", "val/best", "val/epoch", "val/step", "val/time"} & set(tags)


def test_without_tensorboard_the_error_says_what_to_type(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # what Python does where it is missing
    with pytest.raises(RuntimeError, match=r"pip install 'odkit\[tensorboard\]'"):
        track(run, f"tensorboard={tmp_path / 'board'}")
    assert not (tmp_path / "board").exists()


# -- MLflow ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that MLflow keeps its runs in: what it does without a server and without a database's driver."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


def test_mlflow_reads_what_was_logged(run: Run, tracking: str) -> None:
    from mlflow.tracking import MlflowClient

    identity = track(run, f"mlflow={tracking}")
    client = MlflowClient(tracking)
    kept = client.get_run(identity)
    assert kept.info.run_name == "one"
    assert kept.info.status == "FAILED"  # no worker holds it, and it has no end
    assert kept.data.params["epochs"] == "2"
    assert set(kept.data.params) == set(run.settings.to_dict())
    assert kept.data.tags["odkit.fingerprint"] == run.config["fingerprint"]
    assert "- step 3: mind the gap" in kept.data.tags["mlflow.note.content"]
    loss = client.get_metric_history(identity, "train/loss")
    assert [(point.step, point.value) for point in loss] == [(1, 1.0), (3, 0.25)]
    assert loss[0].timestamp == int(run.events()[1]["time"] * 1000)
    assert kept.data.metrics["val/ap"] == 0.5
    assert kept.data.metrics["val_class/red"] == 0.25
    assert not {"val/ap50", "val/best", "val/epoch"} & set(kept.data.metrics)


def test_a_new_export_takes_the_place_of_the_last(run: Run, tracking: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking)
    first = track(run, f"mlflow={tracking}")
    other = client.create_run(client.get_experiment_by_name("mine").experiment_id).info.run_id
    log = EventLog(run.path / "events.jsonl")
    log.write("end", step=3, reason="finished", message="")
    log.close()
    second = track(run, f"mlflow={tracking}")
    left = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert {one.info.run_id for one in left} == {second, other}
    assert client.get_run(first).info.lifecycle_stage == "deleted"
    assert client.get_run(second).info.status == "FINISHED"


def test_long_runs_and_odd_class_names_reach_mlflow(run: Run, tracking: str) -> None:
    from mlflow.tracking import MlflowClient

    log = EventLog(run.path / "events.jsonl")
    more = {"learning_rate": 0.5, "grad_norm": 2.0, "images_per_second": 8.0, "data_wait": 0.25, "memory": 1}
    for step in range(4, 404):
        log.write("step", step=step, epoch=2, loss=1.0, losses={}, device_memory=0, **more)
    odd = {"nut (M4)": 0.1, "a/b": 0.2, "..": 0.3, "Größe 5": 0.4, "x+y": 0.5, "x*y": 0.6}
    log.write("evaluation", epoch=2, step=403, ap=0.5, per_class=odd)
    log.close()
    data = MlflowClient(tracking)
    identity = track(run, f"mlflow={tracking}")
    assert len(data.get_metric_history(identity, "train/loss")) == 402
    kept = data.get_run(identity).data.metrics
    assert [kept[mlflow_name(f"val_class/{name}")] for name in odd] == list(odd.values())
    assert mlflow_name("val_class/Größe 5") == "val_class/Größe 5"
    assert mlflow_name("val_class/x+y") == "val_class/xx2by"


def test_mlflow_that_refuses_says_where_and_why(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RuntimeError, match=r"MLflow did not take one at http://127.0.0.1:9: .*"):
        track(run, "mlflow=http://127.0.0.1:9")


def test_without_mlflow_the_error_says_what_to_type(
    run: Run, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(RuntimeError, match=r"pip install 'odkit\[mlflow\]'"):
        track(run, f"mlflow={tracking}")
