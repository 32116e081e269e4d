"""What a file from elsewhere can do: say something of itself, and nothing else; and where commands write."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import odkit as od
from odkit.cli import main
from odkit.data import Predictions
from odkit.data.formats.write import write_dataset
from odkit.runs import Settings
from odkit.runs.events import EventLog
from odkit.runs.follower import track
from odkit.runs.run import create_run
from odkit.system import OdkitError, cache_folder
from odkit.training import replay
from odkit.training.checkpoints import newest_checkpoint
from tests.helpers import squares

PROJECT = Path(__file__).resolve().parents[2]


class Runs:
    """Makes a file where it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.made,)


def as_pickle(path: Path, made: Path) -> None:
    path.write_bytes(pickle.dumps(Runs(made)))


def as_torch(path: Path, made: Path) -> None:
    torch.save({"model": {"weight": torch.zeros(1)}, "more": Runs(made)}, path)


def as_old_torch(path: Path, made: Path) -> None:
    torch.save({"model": Runs(made)}, path, _use_new_zipfile_serialization=False)


def as_arrays(path: Path, made: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, image_paths=np.array([Runs(made)], object), boxes=np.array([Runs(made)], object))


READERS: dict[str, Callable[[Path], Any]] = {
    "detector.safetensors": od.load_detector,
    "detector.onnx": od.load_detector,
    "weights.pth": lambda path: od.build_detector("starter", ["a"], weights=str(path)),
    "weights.pt": lambda path: od.build_detector(
        "fasterrcnn_mobilenet_v3_large_fpn", ["a"], weights=str(path)
    ),
    "dataset.npz": od.Dataset.load,
    "predictions.npz": Predictions.load,
}


@pytest.mark.parametrize("write", [as_pickle, as_torch, as_old_torch, as_arrays])
@pytest.mark.parametrize("name", READERS)
def test_nothing_in_a_file_runs(name: str, write: Callable[[Path, Path], None], tmp_path: Path) -> None:
    made = tmp_path / "made"
    write(tmp_path / name, made)
    with pytest.raises(OdkitError):
        READERS[name](tmp_path / name)
    assert not made.exists()


def test_they_would_run_elsewhere(tmp_path: Path) -> None:
    as_torch(tmp_path / "weights.pth", tmp_path / "made")
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("write", [as_pickle, as_torch, as_old_torch])
def test_nothing_in_a_run_runs(write: Callable[[Path, Path], None], tmp_path: Path) -> None:
    run = create_run(squares(tmp_path / "squares"), Settings(weights="random"), tmp_path, "run")
    for name in ("checkpoints/step-00000001.pt", "bad_batches/batch.pt", "detector.safetensors"):
        path = run.path / name
        path.parent.mkdir(exist_ok=True)
        write(path, tmp_path / "made")
    log = EventLog(run.path / "events.jsonl")
    for read in (lambda: newest_checkpoint(run, log), lambda: replay(run), run.detector):
        with pytest.raises(OdkitError):
            read()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["worker.log", "config.json", "stop", "worker.lock", "checkpoints/any.pt"])
def test_a_run_s_links_lead_nothing_out_of_it(name: str, tmp_path: Path) -> None:
    """A run folder of somebody else's, taken up again: what it writes must not land in a file of the person's."""
    run = create_run(squares(tmp_path / "squares"), Settings(weights="random"), tmp_path, "run")
    (run.path / "checkpoints").mkdir(exist_ok=True)
    file, mine = run.path / name, tmp_path / "mine"
    mine.write_bytes(file.read_bytes() if file.exists() else b"")
    before = mine.read_bytes()
    file.unlink(missing_ok=True)
    file.symlink_to(mine)
    for write in (
        *(run.start, lambda: run.resume(epochs=3), lambda: run.request("now")),
        *(lambda: od.report(run), lambda: track(run, "tensorboard", wait=False)),
    ):
        with pytest.raises(OdkitError, match="is a link to") as told:
            write()
        assert str(mine) in str(told.value)
    assert mine.read_bytes() == before
    assert not (run.path / "report.html").exists()


def test_names_reach_the_terminal_as_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file name may hold what retitles a terminal's window, moves its cursor or hides a line."""
    hostile = "\x1b]0;owned\x07\x1b[2K\x9b31m"
    (tmp_path / "data").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "data" / f"{hostile}.png")
    page = {
        "images": [{"id": 1, "file_name": f"{hostile}.png", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": n, "bbox": [1, 1, 9, 9]} for n in (1, 2)],
        "categories": [{"id": 1, "name": f"class {hostile}"}],
    }
    (tmp_path / "data" / "labels.json").write_text(json.dumps(page))
    data = str(tmp_path / "data")
    for line in (
        ["audit", data],
        ["convert", data, str(tmp_path / "yolo"), "--to", "yolo"],
        ["convert", data, str(tmp_path / "yolo"), "--to", "yolo", "--partial"],
        ["audit", hostile],
        ["show", hostile],
    ):
        assert main(line) in (0, 1)
        said = capfd.readouterr()
        text = said.out + said.err
        assert "\\u001b" in text or line[0] == "convert", line
        assert text.replace("\n", "").isprintable(), line


def test_a_temporary_folder_that_leads_elsewhere_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another account could make a link there, to a folder of ours."""
    for name in ("ODKIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    link = tmp_path / f"odkit-{os.getuid()}"
    assert cache_folder() == link
    link.rmdir()
    (tmp_path / "mine").mkdir()
    link.symlink_to(tmp_path / "mine")
    assert cache_folder() != link
    assert cache_folder().parent == tmp_path


# -- where commands write ----------------------------------------------------------------------------------------------

# In every Python that is started: a line for each file or folder that it makes, changes or removes. An event has a path
# and mostly the folder that this begins at, an open file's number (or -1): here where they stand among its arguments.
WATCH = """
import os, sys
log = os.open(os.environ["WATCH_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
EVENTS = {"os.mkdir": [(0, 2)], "os.remove": [(0, 1)], "os.rmdir": [(0, 1)], "os.rename": [(0, 2), (1, 3)],
          "os.link": [(1, 3)], "os.symlink": [(1, 2)], "os.truncate": [(0, None)], "os.chmod": [(0, 2)],
          "os.chown": [(0, 3)], "os.utime": [(0, 3)]}
def watch(event, args):
    if event == "open":
        paths = [(args[0], -1)] if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else []
    else:
        paths = [(args[path], -1 if folder is None else args[folder]) for path, folder in EVENTS.get(event, ())]
    for path, folder in paths:
        if isinstance(path, (str, bytes)):
            begins = os.getcwd() if folder == -1 else os.readlink(f"/proc/self/fd/{folder}")
            os.write(log, os.path.normpath(os.fsencode(os.path.join(begins, os.fsdecode(path)))) + b"\\n")
sys.addaudithook(watch)
"""


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path leaves a socket's some room; where it has none, /tmp is written to."""
    with tempfile.TemporaryDirectory(prefix="odkit-test-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.worker
def test_commands_write_where_they_say(tmp_path: Path, short_folder: Path) -> None:
    """The run, the output, the cache and the temporary folder; the data set stays as it was, and may be read-only."""
    data = write_dataset(squares(tmp_path / "squares"), tmp_path / "data", "coco")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WATCH)
    may = {name: tmp_path / name for name in ("home", "cache", "runs", "out", "elsewhere")}
    for folder in may.values():
        folder.mkdir()
    may["temporary"] = short_folder
    # torch tells those that it starts where it keeps things, and where is of this process
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"} | {
        "HOME": str(may["home"]),
        "ODKIT_CACHE": str(may["cache"]),
        "TMPDIR": str(may["temporary"]),
        "WATCH_LOG": str(tmp_path / "log"),
        "PYTHONPATH": f"{tmp_path / 'site'}:{PROJECT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",  # what is computed is tiny: more would wait for one another
        "XDG_CACHE_HOME": str(may["cache"]),
    }

    def state() -> dict[str, str]:
        files = [path for path in data.rglob("*") if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before, small = (
        state(),
        [*("--weights", "random", "--image-size", "64", "--epochs", "1", "--batch-size", "4")],
    )
    run, out = str(may["runs"] / "one"), may["out"]
    picture = next(path for path in data.rglob("*.png"))
    lines = [
        ["audit", str(data)],
        ["convert", str(data), str(out / "yolo"), "--to", "yolo"],
        ["train", str(data), *small, "--num-workers", "1", "--folder", str(may["runs"]), "--name", "one"],
        ["show", run],
        ["predict", run, str(picture), "--out", str(out / "predicted.png")],
        ["evaluate", run, str(data), "--out", str(out / "evaluated")],
        ["export", run, "--out", str(out / "exported"), "--formats", "fp32"],
    ]
    script = "import json, sys; from odkit.cli import main; print([main(x) for x in json.loads(sys.argv[1])])"
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(lines)],
        env=environment,
        cwd=may["elsewhere"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == str([0] * len(lines)), done.stdout + done.stderr
    written = {Path(os.fsdecode(line)) for line in (tmp_path / "log").read_bytes().splitlines()}
    assert any(path.is_relative_to(run) for path in written)
    allowed = [
        *(may[name] for name in may if name not in ("home", "elsewhere")),
        Path("/dev/null"),
        Path("/dev/shm"),
    ]
    assert [
        p for p in written if not any(p.is_relative_to(a) for a in allowed) and p != tmp_path / "log"
    ] == []
    assert not any(may["elsewhere"].iterdir())
    assert not any(may["home"].iterdir())
    assert state() == before
