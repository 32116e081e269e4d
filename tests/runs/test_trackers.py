"""A run's events as TensorBoard and MLflow read them."""

import contextlib
import importlib.util
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from odkit.runs import follower, trackers
from odkit.runs.events import EventLog, follow
from odkit.runs.follower import Follower, track
from odkit.runs.run import Run, create_run, fine_tune
from odkit.runs.settings import Settings
from odkit.runs.trackers import TRACKERS, Tracker, mlflow_name, read_targets
from odkit.runs.worker import own_lock
from tests.helpers import extra, squares, until

MORE = {"learning_rate": 0.5, "grad_norm": 2.0, "images_per_second": 8.0, "data_wait": 0.25, "memory": 1e9}


@contextlib.contextmanager
def logging(run: Run) -> Iterator[EventLog]:
    log = EventLog(run.path / "events.jsonl")
    yield log
    log.close()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = create_run(squares(tmp_path / "squares", 8), Settings(epochs=2), tmp_path / "runs", "one")
    log = EventLog(run.path / "events.jsonl")
    log.write("start", step=0, from_step=0)
    for step in (1, 2):
        losses = {"box": 0.75, "class": 0.25}
        log.write("step", step=step, epoch=1, loss=1.0 / step, losses=losses, device_memory=0, **MORE)
    log.write("start", step=1, from_step=1, resumed=True)
    log.write("step", step=2, epoch=1, loss=None, losses={}, device_memory=5, **MORE)
    log.write("step", step=3, epoch=1, loss=0.25, losses={}, device_memory=5, **MORE)
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
    extra("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


def test_mlflow_reads_what_was_logged(run: Run, tracking: str) -> None:
    MlflowClient = extra("mlflow.tracking").MlflowClient
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


def test_sent_again_a_run_goes_on_or_takes_the_place_of_the_last(
    run: Run, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    MlflowClient = extra("mlflow.tracking").MlflowClient
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    client = MlflowClient(tracking)
    first = track(run, f"mlflow={tracking}")
    experiment = client.get_experiment_by_name("mine").experiment_id
    other = client.create_run(experiment).info.run_id
    with logging(run) as log:
        log.write("step", step=4, epoch=2, loss=0.125, losses={}, device_memory=0, **MORE)
        log.write("end", step=4, reason="finished", message="")
    assert track(run, f"mlflow={tracking}") == first
    assert MLFLOW.read(run, tracking) == [(1, 1.0), (3, 0.25), (4, 0.125)]
    assert client.get_run(first).info.status == "FINISHED"

    (run.path / "track-mlflow.json").unlink()  # as where it was sent from a copy of the folder
    second = track(run, f"mlflow={tracking}")
    assert {one.info.run_id for one in client.search_runs([experiment])} == {second, other}
    assert client.get_run(first).info.lifecycle_stage == "deleted"
    assert MLFLOW.read(run, tracking) == [(1, 1.0), (3, 0.25), (4, 0.125)]


def test_long_runs_and_odd_class_names_reach_mlflow(run: Run, tracking: str) -> None:
    MlflowClient = extra("mlflow.tracking").MlflowClient
    odd = {"nut (M4)": 0.1, "a/b": 0.2, "..": 0.3, "Größe 5": 0.4, "x+y": 0.5, "x*y": 0.6}
    with logging(run) as log:
        for step in range(4, 404):
            log.write("step", step=step, epoch=2, loss=1.0, losses={}, device_memory=0, **MORE)
        log.write("evaluation", epoch=2, step=403, ap=0.5, per_class=odd)
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
    extra("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RuntimeError, match=r"MLflow did not take one at http://127.0.0.1:9: .*"):
        track(run, "mlflow=http://127.0.0.1:9")


def test_without_mlflow_the_error_says_what_to_type(
    run: Run, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(RuntimeError, match=r"pip install 'odkit\[mlflow\]'"):
        track(run, f"mlflow={tracking}")


# -- while it trains ---------------------------------------------------------------------------------------------------


def tensorboard_loss(run: Run, place: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(Path(place) / run.name))
    read.Reload()
    return [(point.step, point.value) for point in read.Scalars("train/loss")]


def mlflow_loss(run: Run, place: str) -> list[tuple[int, float]]:
    client = extra("mlflow.tracking").MlflowClient(place)
    experiments = [one.experiment_id for one in client.search_experiments()]
    (found,) = (one for one in client.search_runs(experiments) if one.info.run_name == run.name)
    return [(p.step, p.value) for p in client.get_metric_history(found.info.run_id, "train/loss")]


def leveldb_records(data: bytes, block: int = 32768) -> Iterator[bytes]:
    """Records of a file in LevelDB's log format, behind W&B's own 7 bytes, which count in the first block."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if block - place % block < 7:  # no header fits
            place += block - place % block
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole in itself, or the last part
            yield whole
            whole = b""


def wandb_loss(run: Run, place: str) -> list[tuple[int, float]]:
    """Of the offline files, those of the newest run: another process would upload them."""
    records = importlib.import_module("wandb.proto.wandb_internal_pb2")
    identity = orjson.loads((run.path / "track-wandb.json").read_bytes())["identity"]
    (file,) = Path(os.environ["WANDB_DIR"]).glob(f"wandb/offline-run-*-{identity}/*.wandb")
    found = []
    for data in leveldb_records(file.read_bytes()):
        record = records.Record()
        record.ParseFromString(data)
        row = {"/".join(i.nested_key) or i.key: orjson.loads(i.value_json) for i in record.history.item}
        if "train/loss" in row:
            found.append((row["step"], row["train/loss"]))
    return found


def trackio_loss(run: Run, place: str) -> list[tuple[int, float]]:
    rows = importlib.import_module("trackio.sqlite_storage").SQLiteStorage.get_logs(place, run.name)
    return [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]


class Kept(NamedTuple):
    """A tracker that keeps its runs on this machine."""

    name: str
    package: str
    place: Callable[[Path], str]
    read: Callable[[Run, str], list[tuple[int, float]]]


MLFLOW = Kept("mlflow", "sqlalchemy", lambda folder: f"sqlite:///{folder}/mlflow.db", mlflow_loss)
KEPT = [
    Kept("tensorboard", "tensorboard", lambda folder: str(folder / "board"), tensorboard_loss),
    MLFLOW,
    Kept("wandb", "wandb", lambda folder: "project", wandb_loss),
    Kept("trackio", "trackio", lambda folder: "project", trackio_loss),
]


class Living(NamedTuple):
    """A run whose worker is this test, with a follower in a thread."""

    run: Run
    log: EventLog
    end: Callable[[], None]


@contextlib.contextmanager
def living(run: Run, to: str) -> Iterator[Living]:
    """`run` alive, and followed until the block ends it."""
    handle = own_lock(run.path)
    assert handle is not None
    (target,) = read_targets(to)
    thread = threading.Thread(target=Follower(run, target).follow)
    thread.start()
    held = [handle]

    def end() -> None:
        if held:
            os.close(held.pop())
        thread.join()

    try:
        with logging(run) as log:
            yield Living(run, log, end)
    finally:
        end()


def sent(run: Run, name: str) -> bool:
    """Whether the tracker has all that stands in the log."""
    try:
        stands = orjson.loads((run.path / f"track-{name}.json").read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return False
    return bool(stands["sent"] == (run.path / "events.jsonl").stat().st_size)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "INTERVAL", 0.02)
    monkeypatch.setattr(follower, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(follower, "LAST_TRIES", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.name)
def test_what_is_done_over_stands_there_once(
    kept: Kept, run: Run, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra(kept.package, required=kept.name != "trackio")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    if kept.name == "trackio":
        monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path)
        monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path)
    place = kept.place(tmp_path)
    with living(run, f"{kept.name}={place}") as (_, log, end):
        until(lambda: sent(run, kept.name))
        log.write("step", step=4, epoch=2, loss=64.0, losses={}, device_memory=0, **MORE)
        log.write("epoch", epoch=2, step=4, loss=64.0, seconds=4.0)
        until(lambda: sent(run, kept.name))
        # the checkpoint is of step 3, after which the epoch was closed
        log.write("start", step=3, from_step=3, from_epoch=1, rollback=1)
        log.write("step", step=4, epoch=2, loss=0.125, losses={}, device_memory=0, **MORE)
        until(lambda: sent(run, kept.name))
        end()
    assert kept.read(run, place) == [(1, 1.0), (3, 0.25), (4, 0.125)]

    with living(run, f"{kept.name}={place}") as (
        _,
        log,
        end,
    ):  # resumed, by another process for all that it knows
        log.write("start", step=4, from_step=4, from_epoch=1, resumed=True)
        log.write("step", step=5, epoch=2, loss=0.0625, losses={}, device_memory=0, **MORE)
        log.write("end", step=5, reason="finished", message="")
        until(lambda: sent(run, kept.name))
        end()
    assert kept.read(run, place) == [(1, 1.0), (3, 0.25), (4, 0.125), (5, 0.0625)]


class Faulty:
    """A board that fails as it is told to, and keeps what it took."""

    faults: list[Callable[[], object]] = []  # noqa: RUF012  (of one test at a time)
    steps: list[int] = []  # noqa: RUF012

    def __init__(self, about: Any, place: str) -> None:
        self.identity = "one"

    def begin(self, kept: str) -> bool:
        if not kept:
            self.steps.clear()
        return bool(kept)

    def send(self, events: Sequence[Mapping[str, Any]]) -> None:
        if events and self.faults:
            self.faults.pop()()
        self.steps.extend(event["step"] for event in events if event["event"] == "step")

    def unsay(self, step: int) -> bool:
        return False

    def end(self, state: str, when: float | None) -> None:
        self.steps.append(-1)


def fails() -> None:
    raise ConnectionError("the server\nis gone")


@pytest.mark.parametrize("fault", [fails, threading.Event().wait, sys.exit], ids=["raises", "hangs", "exits"])
def test_a_tracker_that_fails_is_tried_again_and_said_once(
    fault: Callable[[], object], run: Run, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "faulty", Tracker("Faulty", Faulty, "sys", ""))
    monkeypatch.setattr(follower, "PATIENCE", 0.2)
    Faulty.faults = [fault, fault]
    with living(run, "faulty") as (_, log, end):
        told = [e for events in islice(follow(run, interval=0.02), 20) for e in events if "Faulty" in str(e)]
        until(lambda: sent(run, "faulty"))
        Faulty.faults = [fault]
        log.write("step", step=4, epoch=2, loss=1.0, losses={}, device_memory=0, **MORE)
        until(lambda: sent(run, "faulty"))
        end()
    assert Faulty.steps == [1, 2, 3, 4, -1]
    (warning,) = told
    assert warning["event"] == "warning"
    assert "Faulty did not take one at its default place" in warning["message"]
    assert "the run goes on without it" in warning["message"]
    assert "it is well again" in (run.path / "track-faulty.log").read_text()


def test_a_tracker_is_followed_once(run: Run, quick: None, tmp_path: Path) -> None:
    to = f"tensorboard={tmp_path / 'board'}"
    with living(run, to):
        until(lambda: sent(run, "tensorboard"))
        with pytest.raises(RuntimeError, match="one is followed by TensorBoard already"):
            track(run, to)
    assert track(run, to)


def test_a_server_that_does_not_answer_ends_the_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extra("mlflow.tracking")
    monkeypatch.setattr(follower, "SILENCE", 0.01)  # the server has a second
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(RuntimeError, match=f"MLflow did not take one at {address}: .*[Tt]imeout"):
            track(run, f"mlflow={address}")
    assert "MLflow has not answered for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("to", "said"),
    [
        (["tensorbord"], "did you mean 'tensorboard'"),
        (["mlflow", "mlflow=x"], "mlflow is named twice"),
        (["mlflow=http://me:secret@host"], "MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_what_is_no_tracker_is_said(to: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(ValueError, match=said) as caught:
        read_targets(to)
    assert "secret" not in str(caught.value)


def test_a_missing_tracker_is_said_before_a_run_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    data = squares(tmp_path / "squares", 8)
    with pytest.raises(RuntimeError, match=r"pip install 'odkit\[wandb\]'"):
        fine_tune(data, folder=tmp_path / "runs", track=["wandb"])
    assert not (tmp_path / "runs").exists()


def test_followers_import_no_torch_and_end_with_a_worker_that_dies(run: Run, tmp_path: Path) -> None:
    """With real processes: a worker that holds the lock and is killed, and the follower that a run starts."""
    code = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(1, flush=True); "
    code += "time.sleep(999)"
    command = [sys.executable, "-c", code, str(run.path / "worker.lock")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.read(1)
        trackers.start_followers(run.path, [f"tensorboard={tmp_path / 'board'}"])
        until(lambda: sent(run, "tensorboard"))
        maps = Path(f"/proc/{trackers.children[-1].pid}/maps")
        if sys.platform == "linux":
            assert "libtorch" not in maps.read_text()
    finally:
        holder.kill()
        holder.communicate()
    assert trackers.children[-1].wait(60) == 0
    assert "the run has ended (died)" in (run.path / "track-tensorboard.log").read_text()
    assert tensorboard_loss(run, str(tmp_path / "board")) == [(1, 1.0), (3, 0.25)]


@pytest.mark.worker
def test_a_run_goes_on_without_its_follower(tmp_path: Path) -> None:
    data, to = squares(tmp_path / "squares", 8), f"tensorboard={tmp_path / 'board'}"
    small = {"weights": "random", "image_size": 64, "num_workers": 0, "device": "cpu", "batch_size": 2}
    run = fine_tune(data, epochs=40, folder=tmp_path, name="a", track=[to], wait=False, **small)
    process = trackers.children[-1]
    until(lambda: bool((run.path / "track-tensorboard.json").exists() and run.history()))
    process.kill()
    process.wait()
    assert run.alive
    run.stop("epoch")
    assert run.state == "stopped"
    done = run.history()[-1]["epoch"]
    run.resume(epochs=done + 1).wait()  # whose follower goes on
    assert run.state == "finished"
    trackers.children[-1].wait(60)
    losses = [(e["step"], e["loss"]) for e in run.events() if e["event"] == "step"]
    assert tensorboard_loss(run, str(tmp_path / "board")) == [(s, pytest.approx(loss)) for s, loss in losses]
