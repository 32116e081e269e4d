"""The run folder: events as they are written, locks held by real processes, names, states, requests."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from odkit.data.dataset import Dataset
from odkit.runs.events import EventLog, EventReader, backwards, effective, epoch_rows, follow
from odkit.runs.run import Run, best_run, create_run, list_runs, look_for_runs, open_run, runs_html
from odkit.runs.settings import Settings
from odkit.runs.worker import RunError, hold_lock, prepare_torch, worker_command
from odkit.system import FileInTheWayError
from odkit.system.processes import LOCK_VARIABLE
from tests.helpers import squares, until

SMALL = Settings(weights="random", epochs=3, batch_size=4, image_size=64, num_workers=0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Run:
    return create_run(dataset, SMALL, tmp_path / "runs", "one")


def write(run: Run, *events: dict[str, Any]) -> None:
    log = EventLog(run.path / "events.jsonl")
    for event in events:
        log.write(**event)
    log.close()


def start(step: int = 0) -> dict[str, Any]:
    return {"event": "start", "step": step, "from_step": step}


def steps(first: int, last: int, loss: float = 1.0) -> list[dict[str, Any]]:
    return [{"event": "step", "step": step, "loss": loss} for step in range(first, last + 1)]


def epoch(
    number: int, step: int, ap: float | None = None, loss: float = 1.0, *, best: float | None = None
) -> list[dict[str, Any]]:
    done: dict[str, Any] = {
        "event": "epoch",
        "epoch": number,
        "step": step,
        "loss": loss,
        "seconds": 30.0,
        "total_seconds": 30.0 * number,
    }
    if ap is None:
        return [done]
    judged = {
        "event": "evaluation",
        "epoch": number,
        "step": step,
        "ap": ap,
        "ap50": ap + 0.1,
        "seconds": 5.0,
        "best_so_far": {"epoch": number, "ap": best or ap, "ap50": (best or ap) + 0.1},
    }
    return [done, judged]


END = {"event": "end", "step": 9, "reason": "finished", "message": ""}


# -- a process that holds the lock, as a worker does ------------------------------------------------------------------

WORKER = """
import sys, time
from pathlib import Path
from odkit.runs.events import EventLog; from odkit.runs.worker import hold_lock
path = Path(sys.argv[1])
handle = hold_lock(path)
log = EventLog(path / "events.jsonl")
log.write("start", step=0, from_step=0)
print("holding", flush=True)
step = 0
while not (path / "stop").exists() or (path / "stop").read_text() not in sys.argv[2:]:
    step += 1
    log.write("step", step=step, loss=1.0)
    time.sleep(0.005)
log.write("end", step=step, reason="stopped", message="")
"""


def holder(run: Run, *obeys: str) -> "subprocess.Popen[str]":
    """A process that holds the run's lock and writes steps, until it is asked for one of `obeys`, or killed."""
    command = [sys.executable, "-c", WORKER, str(run.path), *obeys]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    return process


@pytest.fixture
def worker(run: Run) -> Iterator["subprocess.Popen[str]"]:
    process = holder(run, "now")
    yield process
    process.kill()
    process.communicate(timeout=60)


# -- events ------------------------------------------------------------------------------------------------------------


def test_reader_takes_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.new() == []  # no file yet
    path.write_bytes(b'{"event":"start","time":1,"from_step":0}\n{"event":"st')
    assert [e["event"] for e in reader.new()] == ["start"]
    assert reader.new() == []
    with path.open("ab") as file:
        file.write(b'ep","time":2,"step":1,"loss":0.5}\n')
    assert reader.new() == [{"event": "step", "time": 2, "step": 1, "loss": 0.5}]


@pytest.mark.parametrize(
    "torn", [b'{"event":"step","st', b"\x00\x00\x00", b"[1, 2]", b'{"step": 1}', b"", b"\xff\xfe"]
)
def test_reader_passes_over_what_a_crash_left(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event":"a"}\n' + torn)
    log = EventLog(path)
    log.write("b", step=1)
    log.close()
    assert [e["event"] for e in EventReader(path).new()] == ["a", "b"]


def test_log_writes_numpy_and_what_json_has_no_word_for(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write("step", step=1, loss=np.float32(0.5), boxes=np.zeros((1, 4), np.float32), bad=float("nan"))
    log.close()
    (event,) = EventReader(log.path).new()
    assert event["loss"] == 0.5
    assert event["boxes"] == [[0, 0, 0, 0]]
    assert event["bad"] is None
    assert event["time"] == pytest.approx(time.time(), abs=3600)


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = EventLog(Path("/dev/full"))
    log.write("step", step=1)
    log.close()
    assert "No space left" in capfd.readouterr().err


def test_reading_while_a_process_writes(run: Run, worker: "subprocess.Popen[str]") -> None:
    reader, seen = EventReader(run.path / "events.jsonl"), []
    until(lambda: seen.extend(reader.new()) or len(seen) >= 60)
    run.stop()
    seen += reader.new()
    assert [e["step"] for e in seen if e["event"] == "step"] == list(range(1, seen[-1]["step"] + 1))
    assert seen[-1]["event"] == "end"


def test_follow_gives_every_event_and_ends_with_the_worker(run: Run, worker: "subprocess.Popen[str]") -> None:
    seen: list[dict[str, Any]] = []
    for events in follow(run, interval=0.02):
        seen += events
        if len(seen) > 20:
            run.request("now")
    assert seen[0]["event"] == "start"
    assert seen[-1]["event"] == "end"
    assert seen == run.events(raw=True)


@pytest.mark.parametrize("block", [1, 64, 1000, 1 << 20])
def test_a_long_log_is_read_in_parts(run: Run, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odkit.runs.events.BLOCK", block)
    write(run, start(), *steps(1, 30), *epoch(1, 30, 0.5), start(20), *steps(21, 40), *epoch(2, 40, 0.6))
    path = run.path / "events.jsonl"
    with path.open("ab") as file:
        file.write(b' { "event": "step", "time": 1, "step": 41, "loss": 0.5}\n{"event":"step\n{"event":"st')
    lines = path.read_bytes().splitlines()
    events = [orjson.loads(line) for line in lines[:-2]]
    assert [e for some in EventReader(path).batches() for e in some] == events
    reader, sizes = EventReader(path), [path.stat().st_size, len(lines[0]) + 1, len(lines[0]) + 5, 0]
    assert [len(reader.new(upto=size)) for size in reversed(sizes)] == [0, 1, 0, len(events) - 1]
    for kinds in (("step",), ("epoch", "evaluation"), ("start",), ()):
        of_kind = [e for e in events if e["event"] in kinds]
        assert EventReader(path).new(only=kinds) == of_kind
        assert list(backwards(path, only=kinds)) == of_kind[::-1]
        assert run.events(only=kinds) == [e for e in run.events() if e["event"] in kinds]
        assert run.events(only=kinds, raw=True) == of_kind
    assert run.events(only="epoch") == run.events(only=["epoch"]) != []


def test_backwards_is_the_log_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert list(backwards(path)) == []
    event = {"event": "step", "time": 1, "loss": 0.5}
    lines = [orjson.dumps({**event, "step": step, "x": "x" * (step % 50)}) for step in range(200)]
    path.write_bytes(b"\n".join(lines))  # the last one is still being written
    events = [orjson.loads(line) for line in lines]
    for block in (1, 7, 64, 1 << 16):
        assert list(backwards(path, block=block)) == events[-2::-1]
    with path.open("ab") as file:
        file.write(b'\n{"event":"st\x00\n')  # torn by a crash, and gone on after it
    assert list(backwards(path)) == events[::-1]
    path.write_bytes(lines[0] + b"\n")
    assert list(backwards(path)) == events[:1]


def test_a_long_log_is_not_read_whole_to_say_how_a_run_stands(run: Run) -> None:
    """The log's beginning is a hole of 64 GB, which no one reads in a moment."""
    with (run.path / "events.jsonl").open("wb") as file:
        file.truncate(64 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n")
    write(run, *epoch(1, 3, 0.5), *epoch(2, 6, 0.25, loss=0.75, best=0.5), *steps(7, 8))
    assert run.state == "died"
    write(run, {"event": "start", "step": 6, "from_step": 6, "from_epoch": 2}, {**END, "reason": "stopped"})
    assert run.state == "stopped"
    summary = run.summary()
    assert (summary["epoch"], summary["loss"], summary["val_ap"], summary["minutes"]) == (2, 0.75, 0.5, 1.0)
    assert "stopped" in repr(run)


def test_the_best_run_is_a_finished_one_on_the_same_data(dataset: Dataset, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert best_run(dataset, runs) is None
    elsewhere = dataset.replace(root=tmp_path, image_ids=dataset.image_ids)

    def ended(name: str, data: Dataset, ap: float | None, reason: str = "finished") -> None:
        judged = {"event": "evaluation", "step": 3, "epoch": 1, "ap": ap, "ap50": ap}
        write(
            create_run(data, SMALL, runs, name),
            start(),
            judged,
            {"event": "end", "step": 3, "reason": reason},
        )

    ended("unjudged", dataset, None)
    found = best_run(dataset, runs)
    assert found is not None
    assert found.name == "unjudged"
    for name, data, ap, reason in (
        ("good", dataset, 0.5, "finished"),
        ("better", dataset, 0.6, "finished"),
        ("stopped", dataset, 0.7, "stopped"),
        ("of another name", dataset.replace(name="other"), 0.8, "finished"),
        ("of another folder", elsewhere, 0.9, "finished"),
    ):
        ended(name, data, ap, reason)
    found = best_run(dataset, runs)
    assert found is not None
    assert found.name == "better"


def test_whether_there_are_labelled_test_images(dataset: Dataset, tmp_path: Path) -> None:
    three = dataset.with_splits(val=0.25, test=0.25)
    assert not create_run(dataset, SMALL, tmp_path).has_test_images
    assert create_run(three, SMALL, tmp_path).has_test_images
    unlabelled = three.select_boxes(three.image_splits[three.box_images] != "test")
    assert not create_run(unlabelled, SMALL, tmp_path).has_test_images


def test_summary_leaves_out_what_was_done_over(run: Run) -> None:
    write(run, start(), *epoch(1, 3, 0.5), *epoch(2, 6, 0.75), *epoch(3, 9, 0.8))
    write(run, {"event": "start", "step": 6, "from_step": 6, "from_epoch": 1}, *steps(7, 8))
    assert (run.summary()["epoch"], run.summary()["val_ap"]) == (1, 0.5)
    write(run, start(0))
    assert (run.summary()["epoch"], run.summary()["val_ap"]) == (0, None)
    assert run.history() == []


EFFECTIVE = {
    "nothing": ([], []),
    "uninterrupted": (
        [start(), *steps(1, 3), END],
        [("start", 0), *(("step", s) for s in (1, 2, 3)), ("end", 9)],
    ),
    "killed after the checkpoint of step 2": (
        [start(), *steps(1, 4), start(2), *steps(3, 5)],
        [("start", 0), ("step", 1), ("step", 2), ("start", 2), ("step", 3), ("step", 4), ("step", 5)],
    ),
    "killed twice, the second time further back": (
        [start(), *steps(1, 4), start(3), *steps(4, 6), start(1), *steps(2, 2)],
        [("start", 0), ("step", 1), ("start", 3), ("start", 1), ("step", 2)],
    ),
    "warnings and ends are history, not progress": (
        [start(), *steps(1, 2), {"event": "warning", "step": 2}, {"event": "end", "step": 2}, start(0)],
        [("start", 0), ("warning", 2), ("end", 2), ("start", 0)],
    ),
    "epochs, evaluations, previews and checkpoints go with their steps": (
        [
            start(),
            *steps(1, 2),
            *epoch(1, 2, 0.5),
            {"event": "preview", "step": 2},
            {"event": "checkpoint", "step": 2},
            start(1),
        ],
        [("start", 0), ("step", 1), ("start", 1)],
    ),
}


@pytest.mark.parametrize("case", EFFECTIVE)
def test_effective_is_one_uninterrupted_history(case: str) -> None:
    events, expected = EFFECTIVE[case]
    assert [(e["event"], e["step"]) for e in effective(events)] == expected


def test_history_has_one_row_an_epoch(run: Run) -> None:
    write(
        run,
        start(),
        *steps(1, 3),
        *epoch(1, 3, 0.1),
        *steps(4, 6),
        *epoch(2, 6),
        *steps(7, 9),
        *epoch(3, 9, 0.4),
    )
    write(run, start(6), *steps(7, 9), *epoch(3, 9, 0.3, loss=0.5))
    rows = run.history()
    assert [(r["epoch"], r["step"], r.get("ap"), r["loss"]) for r in rows] == [
        (1, 3, 0.1, 1),
        (2, 6, None, 1),
        (3, 9, 0.3, 0.5),
    ]
    assert {r["seconds"] for r in rows} == {30.0}  # of training; judging has its own figure
    assert run.best["ap"] == 0.3
    assert epoch_rows([]) == []


def test_best_is_the_earliest_of_equals_and_knows_missing_ap(run: Run) -> None:
    assert run.best == {}
    write(run, *epoch(1, 3, 0.2), *epoch(2, 6, 0.2))
    assert run.best["epoch"] == 1
    write(run, {"event": "evaluation", "epoch": 3, "step": 9, "ap": None, "ap50": None})
    assert run.best["epoch"] == 1


# -- creating ----------------------------------------------------------------------------------------------------------


def test_precision_is_that_of_the_best_epochs_device(run: Run) -> None:
    def judged(number: int, *, best: bool) -> dict[str, Any]:
        figures = epoch(number, number, ap=number / 10)[1]
        return {**figures, "best": best}

    on_gpu = {**start(), "device": "cuda:1", "choices": {"precision": "bf16"}}
    write(run, on_gpu)
    assert run.precision("cuda") == "fp32", "nothing was judged yet"
    write(run, judged(1, best=True), {**start(1), "rollback": 1})  # says only where to
    assert [run.precision(name) for name in ("cuda", "cuda:0", "cpu")] == ["bf16", "bf16", "fp32"]
    write(run, {**on_gpu, **start(1), "device": "cpu"}, judged(2, best=False))
    assert [run.precision(name) for name in ("cuda", "cpu")] == ["bf16", "fp32"]
    write(run, judged(3, best=True))
    assert [run.precision(name) for name in ("cuda", "cpu")] == ["fp32", "bf16"]


def test_create_run_writes_what_a_worker_needs(run: Run, dataset: Dataset) -> None:
    assert run.state == "new"
    assert not run.alive
    assert run.settings == SMALL
    assert run.class_names == ("blue", "red")
    assert run.dataset().fingerprint() == dataset.fingerprint() == run.config["fingerprint"]
    assert len(run.dataset("val")) == run.config["images"]["val"] > 0
    assert run.history() == run.events() == run.checkpoints() == []
    assert run.log_tail() == ""
    assert orjson.loads((run.path / "config.json").read_bytes())["settings"] == SMALL.to_dict()


def test_create_run_deals_splits_where_there_are_none(dataset: Dataset, tmp_path: Path) -> None:
    plain = dataset.replace(image_splits=None)
    dealt = [create_run(plain, SMALL, tmp_path).dataset().split_counts() for _ in range(2)]
    assert dealt[0] == dealt[1]
    assert set(dealt[0]) == {"train", "val"}


def test_create_run_sets_the_test_split_aside(dataset: Dataset, tmp_path: Path) -> None:
    three = dataset.with_splits(val=0.25, test=0.25)
    run = create_run(three, SMALL, tmp_path)
    assert set(run.dataset().split_counts()) == {"train", "val"}
    assert run.dataset("test").fingerprint() == three.split("test").fingerprint()
    assert run.config["test_images"] == len(three.split("test"))
    two = create_run(three.select(three.image_splits != "test"), SMALL, tmp_path)
    assert two.config["fingerprint"] == run.config["fingerprint"]  # what is trained on is the same
    with pytest.raises(KeyError, match=r"no split 'test'; its splits: train .*, val"):
        two.dataset("test")


def test_what_chooses_the_epoch_is_no_test_split(dataset: Dataset, tmp_path: Path) -> None:
    named = dataset.replace(image_splits=np.where(dataset.image_splits == "val", "test", "train"))
    run = create_run(named, dataclasses.replace(SMALL, val_split="test"), tmp_path)
    assert run.dataset("test").fingerprint() == run.dataset().split("test").fingerprint()
    assert not (run.path / "test.npz").exists()
    other = dataclasses.replace(SMALL, val_split="test", test_split="held out")
    halves = named.image_splits.copy()
    halves[np.flatnonzero(halves == "train")[:3]] = "held out"
    assert len(create_run(named.replace(image_splits=halves), other, tmp_path).dataset("held out")) == 3


def test_faults_of_the_test_split_are_told_before_training(dataset: Dataset, tmp_path: Path) -> None:
    three = dataset.with_splits(val=0.25, test=0.25)
    classes = three.box_classes.copy()
    classes[np.flatnonzero(three.image_splits[three.box_images] == "test")[0]] = -1
    with pytest.raises(ValueError, match="1 finding with which training would crash or go wrong"):
        create_run(three.replace(box_classes=classes), SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_create_run_refuses_what_cannot_train(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        create_run(dataset.select([]), SMALL, tmp_path)
    with pytest.raises(ValueError, match="no boxes"):
        create_run(dataset.select_boxes([]), SMALL, tmp_path)
    with pytest.raises(KeyError, match="'validation'"):
        create_run(dataset, Settings(val_split="validation"), tmp_path)
    assert list(tmp_path.iterdir()) == []  # nothing half made


def test_names(dataset: Dataset, tmp_path: Path) -> None:
    made = [create_run(dataset.replace(name="my photos/2"), SMALL, tmp_path).name for _ in range(2)]
    assert made == ["my-photos-2-starter-1", "my-photos-2-starter-2"]
    assert create_run(dataset, SMALL, tmp_path, "fine").name == "fine"
    with pytest.raises(RunError, match="there is a run 'fine'"):
        create_run(dataset, SMALL, tmp_path, "fine")
    for name in ("../x", "a/b", "", ".", ".."):
        with pytest.raises(RunError, match="plain folder name"):
            create_run(dataset, SMALL, tmp_path, name)


def test_opening_and_listing(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list_runs() == []
    for age, name in enumerate(("newer", "older")):
        path = create_run(dataset, SMALL, name=name).path
        os.utime(path / "config.json", (1e9 - age, 1e9 - age))
    assert [run.name for run in list_runs()] == ["older", "newer"]
    assert open_run("newer").path == open_run("runs/newer").path == tmp_path / "runs" / "newer"
    with pytest.raises(RunError, match=r"Runs beside it: newer, older"):
        open_run("runs/nothing")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="not a run folder"):
        open_run("folder")
    assert "<td" in runs_html(list_runs())
    assert runs_html([]) == "<i>no runs</i>"


def test_a_folder_that_is_no_run_is_left_out_and_said(run: Run, tmp_path: Path) -> None:
    folder = run.path.parent
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.warns(UserWarning, match=r"model is left out: .*config\.json is no run's: settings"):
        found = list_runs(folder)
    assert [one.path for one in found] == [run.path]
    found, unreadable = look_for_runs(folder)
    assert [path.name for path in unreadable] == ["model"]
    with pytest.raises(RunError, match="Another program's, perhaps"):
        Run(folder / "model").delete()
    assert (folder / "model" / "config.json").exists()


def test_a_run_that_cannot_be_written_leaves_no_folder(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileInTheWayError, match="is a file"):
        create_run(dataset, SMALL, tmp_path / "file" / "runs")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("odkit.runs.run._write_json", full)
    with pytest.raises(RunError, match=r"the disk is full .*No space left"):
        create_run(dataset, SMALL, tmp_path / "runs", "one")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "is a plain folder name"),
        ("..", "is a plain folder name"),
        ("a/b", "is a plain folder name"),
        ("a\nb", "is a plain folder name"),
        ("a\udcff", "is a plain folder name"),
        ("-x", "does not begin with a hyphen"),
        ("é" * 150, "is too long: 300 bytes, and 200 are the most"),
    ],
)
def test_a_name_can_be_typed_and_printed(dataset: Dataset, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(RunError, match=said):
        create_run(dataset, SMALL, tmp_path / "runs", name)
    assert not (tmp_path / "runs").exists()


def test_a_long_name_of_a_dataset_is_cut_in_the_run_s_name(dataset: Dataset, tmp_path: Path) -> None:
    run = create_run(dataset.replace(name="-" + "é\n" * 200), SMALL, tmp_path / "runs")
    assert run.name.startswith("é-é-")
    assert run.name.endswith("-1")
    assert len(run.name.encode()) <= 200


def test_nothing_but_a_run_is_deleted(run: Run) -> None:
    link = run.path.parent / "link"
    link.symlink_to(run.path)
    with pytest.raises(RunError, match="is a link to"):
        Run(link).delete()
    assert run.path.exists()
    run.delete()
    assert not run.path.exists()


def test_worker_commands(tmp_path: Path) -> None:
    assert worker_command(tmp_path, 1) == [sys.executable, "-m", "odkit", "worker", str(tmp_path)]
    several = worker_command(tmp_path, 4)
    assert several[1:3] == ["-m", "torch.distributed.run"]
    assert "--nproc-per-node=4" in several
    assert several[-3:] == ["odkit", "worker", str(tmp_path)]


def test_torch_finds_its_environment_and_a_persons_own_stands() -> None:
    environment: dict[str, str] = {}
    prepare_torch(environment)
    assert environment["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "CUBLAS_WORKSPACE_CONFIG" not in environment
    prepare_torch(environment, deterministic=True)
    assert environment["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):  # the older name wins over the newer one
        own = {name: "max_split_size_mb:64", "CUBLAS_WORKSPACE_CONFIG": ":16:8", "OMP_WAIT_POLICY": "ACTIVE"}
        changed = dict(own)
        prepare_torch(changed, deterministic=True)
        assert changed == own


@pytest.mark.parametrize("deterministic", [False, True])
def test_however_a_worker_is_started_it_prepares_torch(
    dataset: Dataset, tmp_path: Path, deterministic: bool
) -> None:
    """By a launcher on another machine, say, which knows nothing of a run's settings."""
    made = create_run(dataset, dataclasses.replace(SMALL, deterministic=deterministic), tmp_path, "made")
    code = (
        "import os, sys\nfrom odkit import training\nfrom odkit.cli import main\n"
        "def work(path):\n"
        "    print(*map(os.environ.get, ('CUBLAS_WORKSPACE_CONFIG', 'PYTORCH_ALLOC_CONF')), 'torch' in sys.modules)\n"
        "    return 0\n"
        "training.work = work\nmain(['worker', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(made.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        ":4096:8" if deterministic else "None",
        "expandable_segments:True",
        "False",
    ]


# -- states and locks --------------------------------------------------------------------------------------------------


def test_states_of_the_dead(run: Run) -> None:
    assert run.state == "new"
    write(run, start(), *steps(1, 3))
    assert run.state == "died"
    write(run, {"event": "end", "step": 3, "reason": "stopped"})
    assert run.state == "stopped"
    write(run, start(3), {"event": "end", "step": 4, "reason": "failed", "message": "the disk is full"})
    assert run.state == "failed"
    assert run.trouble().splitlines() == ["one failed: the disk is full", "Nothing was saved yet."]
    with pytest.raises(RunError, match="the disk is full"):
        run.wait(show=False)
    write(run, start(3), END)
    assert run.state == "finished"
    assert run.trouble() == ""


def test_died_says_the_last_words(run: Run) -> None:
    write(run, start())
    (run.path / "worker.log").write_text("\n".join(f"line {i}" for i in range(40)))
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / "step-00000002.pt").touch()
    text = run.trouble()
    assert "odkit resume" in text
    assert "step-00000002.pt" in text
    assert text.endswith("line 39")
    assert "line 19\n" not in text


def test_summary_and_repr(run: Run) -> None:
    write(
        run,
        start(),
        *steps(1, 3),
        *epoch(1, 3, 0.25, loss=1.5),
        *epoch(2, 6, 0.125, loss=1.25, best=0.25),
        END,
    )
    summary = run.summary()
    assert summary == {
        "name": "one",
        "state": "finished",
        "detector": "starter",
        "epoch": 2,
        "epochs": 3,
        "loss": 1.25,
        "val_ap": 0.25,
        "val_ap50": 0.35,
        "test_ap": None,
        "test_low": None,
        "test_high": None,
        "minutes": 1.0,
    }
    assert repr(run) == "Run 'one': finished, starter, epoch 2/3, best val AP 0.250, AP50 0.350"
    assert "finished" in run._repr_html_()


def test_a_living_worker_is_seen_and_respected(run: Run, worker: "subprocess.Popen[str]") -> None:
    assert run.alive
    assert Run(run.path).state == "running"
    with pytest.raises(RunError, match="another worker"):
        hold_lock(run.path)
    with pytest.raises(RunError, match="running already"):
        run.start()
    with pytest.raises(RunError, match="stop it first"):
        run.resume()
    with pytest.raises(RunError, match="stop it first"):
        run.delete()
    assert run.path.exists()


@pytest.mark.worker
def test_a_second_worker_gives_up(run: Run, worker: "subprocess.Popen[str]") -> None:
    second = subprocess.run(
        [sys.executable, "-m", "odkit", "worker", str(run.path)], capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert "another worker" in second.stderr
    assert worker.poll() is None
    assert all(e["event"] != "end" for e in run.events())


def test_a_kill_releases_the_lock(run: Run, worker: "subprocess.Popen[str]") -> None:
    worker.send_signal(signal.SIGKILL)
    worker.wait(60)
    assert not run.alive
    assert run.state == "died"
    handle = hold_lock(run.path)
    assert run.alive
    os.close(handle)
    assert not run.alive


def test_lookers_do_not_keep_a_worker_out(run: Run) -> None:
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            Run(run.path).alive  # noqa: B018

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(20):
            os.close(hold_lock(run.path))
    finally:
        done.set()
        for looker in lookers:
            looker.join(60)


def test_the_lock_can_be_handed_to_a_child(run: Run) -> None:
    handle = hold_lock(run.path)
    code = (
        "import sys, time; from pathlib import Path; from odkit.runs import hold_lock; "
        "handle = hold_lock(Path(sys.argv[1])); "
        "print(handle, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)],
        env={**os.environ, LOCK_VARIABLE: str(handle)},
        pass_fds=(handle,),
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(handle)
    assert child.stdout is not None
    assert child.stdout.readline() == f"{handle}\n"
    assert run.alive  # through the child alone
    child.kill()
    child.communicate(timeout=60)
    assert not run.alive


def test_stop_reaches_the_worker_and_waits(run: Run, worker: "subprocess.Popen[str]") -> None:
    assert run.stop() is run
    assert worker.wait(10) == 0
    assert run.state == "stopped"
    assert run.stop().state == "stopped"  # of what has ended: nothing to do
    assert run.wait(show=False) is run


def test_stop_that_is_not_obeyed_says_so(run: Run) -> None:
    deaf = holder(run)
    try:
        with pytest.raises(RunError, match=r"not stopped after 0\.2 s"):
            run.stop("epoch", timeout=0.2)
        assert (run.path / "stop").read_text() == "epoch"
        assert run.stop(timeout=0).alive  # asks and goes
        assert (run.path / "stop").read_text() == "now"
    finally:
        deaf.kill()
        deaf.communicate(timeout=60)
    assert [p.name for p in run.path.glob("stop*")] == ["stop"]


def test_resume_refuses(run: Run) -> None:
    write(run, start(), END)
    with pytest.raises(RunError, match="finished"):
        run.resume()
    with pytest.raises(ValueError, match=r"learning_rate .*start a new run"):
        run.resume(learning_rate=0.5)
    with pytest.raises(TypeError, match="did you mean 'epochs'"):
        run.resume(epoch=5)
    with pytest.raises(ValueError, match="epochs must be 0 or more"):
        run.resume(epochs=-1)
    assert run.settings == SMALL


# what a run was, its end, what a resume changes; then what it goes on with, or why not
RESUMES: dict[str, tuple[dict[str, Any], str, dict[str, Any], dict[str, Any] | str]] = {
    "finished: nothing new": ({}, "finished", {}, "has 3 epochs behind it, 3 leave nothing to do"),
    "finished: the same epochs": ({}, "finished", {"epochs": 3}, "has 3 epochs behind it, 3 leave"),
    "finished: fewer epochs": ({}, "finished", {"epochs": 2}, "has 3 epochs behind it, 2 leave"),
    "finished: what changes no epoch": ({}, "finished", {"num_workers": 2}, "3 leave nothing to do"),
    "finished: more epochs": ({}, "finished", {"epochs": 50}, {"epochs": 50, "minutes": 0}),
    "finished: a time budget": ({}, "finished", {"minutes": 60}, {"epochs": 3, "minutes": 60}),
    "finished: a budget that is spent": (
        {},
        "finished",
        {"minutes": 1.5},
        "has trained for 1.5 minutes already",
    ),
    "budget: nothing new": ({"minutes": 2}, "finished", {}, "has 3 epochs behind it, 3 leave nothing to do"),
    "budget: a larger one": ({"minutes": 2}, "finished", {"minutes": 60}, {"epochs": 3, "minutes": 60}),
    "budget: a smaller one": ({"minutes": 2}, "finished", {"minutes": 1}, "minutes=1 leaves nothing to do"),
    "budget: epochs in its place": ({"minutes": 2}, "finished", {"epochs": 50}, {"epochs": 50, "minutes": 0}),
    "budget: both": (
        {"minutes": 2},
        "finished",
        {"epochs": 50, "minutes": 60},
        {"epochs": 50, "minutes": 60},
    ),
    "patience: nothing new": (
        {"epochs": 9, "patience": 2},
        "finished",
        {},
        "finished, after epoch 3 of 9 .*AP",
    ),
    "patience: without it": (
        {"epochs": 9, "patience": 2},
        "finished",
        {"patience": 0},
        {"epochs": 9, "patience": 0},
    ),
    "stopped: nothing new": ({"epochs": 9}, "stopped", {}, {"epochs": 9}),
    "stopped: fewer epochs": ({"epochs": 9}, "stopped", {"epochs": 2}, "has 3 epochs behind it, 2 leave"),
    "stopped: perhaps the last epoch is not judged": ({}, "stopped", {}, {"epochs": 3}),
    "stopped: another device": ({"epochs": 9}, "stopped", {"device": "cpu"}, {"device": "cpu", "epochs": 9}),
}


@pytest.mark.parametrize("case", RESUMES)
def test_a_resume_goes_on_or_says_that_nothing_is_left(
    case: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was, ended, changes, expected = RESUMES[case]
    run = create_run(dataset, dataclasses.replace(SMALL, **was), tmp_path, "one")
    rows = [event for number in (1, 2, 3) for event in epoch(number, 3 * number, 0.1)]
    fitted = [{**event, "epochs": 3 if was.get("minutes") else run.settings.epochs} for event in rows]
    write(run, start(), *fitted, {**END, "reason": ended})
    started: list[Path] = []
    monkeypatch.setattr("odkit.runs.run.start_worker", lambda path, processes: started.append(path))
    if isinstance(expected, str):
        before = run.settings
        with pytest.raises(RunError, match=rf"{expected}.*resume\(epochs=\.\.\.\).*odkit resume"):
            run.resume(wait=False, **changes)
        assert (run.settings, started) == (before, [])
    else:
        run.resume(wait=False, **changes)
        assert started == [run.path]
        assert run.settings == dataclasses.replace(SMALL, **{**was, **expected})


@pytest.fixture
def read_only(run: Run, dataset: Dataset) -> Iterator[Run]:
    """The run as one sees it who may not write there: a folder without the right, a process without root's."""
    for folder in (run.path, *run.path.parents, dataset.root, *dataset.root.parents):
        if folder != Path(tempfile.gettempdir()) and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o055)
    run.path.chmod(0o555)
    (run.path / "worker.lock").touch(0o644)
    was_root = os.geteuid() == 0
    if was_root:
        run.dataset()  # Python's own files, which this loads, may lie where nobody may look
        os.seteuid(65534)  # nobody
    yield run
    if was_root:
        os.seteuid(0)
    run.path.chmod(0o755)


def test_a_read_only_run_can_be_looked_at_and_no_more(read_only: Run, dataset: Dataset) -> None:
    assert read_only.state == "new"
    assert read_only.summary()["epoch"] == 0
    assert len(read_only.dataset()) > 0
    attempts = [
        read_only.start,
        read_only.resume,
        read_only.delete,
        lambda: read_only.resume(epochs=9),
        lambda: read_only.request("now"),
        lambda: hold_lock(read_only.path),
        lambda: create_run(dataset, SMALL, read_only.path / "below"),
    ]
    for attempt in attempts:
        with pytest.raises(RunError, match=r"cannot be written \((Permission denied|Read-only).*cp -r"):
            attempt()
    assert read_only.state == "new"


def test_delete(run: Run) -> None:
    run.delete()
    assert not run.path.exists()
    assert list_runs(run.path.parent) == []
