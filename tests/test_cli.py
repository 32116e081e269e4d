"""The `odkit` command: as a person types it, with real datasets, processes and signals."""

import dataclasses
import inspect
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from PIL import Image

import odkit
from odkit.cli import main
from odkit.cli.shared import COMMANDS, table
from odkit.data import Video
from odkit.data.formats.load import READERS
from odkit.data.formats.write import WRITERS
from odkit.runs.events import EventLog
from odkit.runs.run import Run, create_run
from odkit.runs.settings import MAY_CHANGE, Settings
from odkit.runs.worker import RunError
from odkit.system import InputError
from tests.data.formats.layouts import tutorial
from tests.helpers import made_video, squares, trained, until

SMALL = ["--weights", "random", "--image-size", "64", "--batch-size", "4", "--num-workers", "0"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "parts"
    assert main(["demo", str(folder), "--images", "12"]) == 0
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dataset as a notebook saves it."""
    folder = tmp_path_factory.mktemp("squares")
    return squares(folder, 12).save(folder / "squares.npz")


@pytest.fixture
def ended(tmp_path: Path) -> Run:
    """A run with two epochs behind it."""
    run = create_run(squares(tmp_path / "squares", 8), Settings(epochs=2), tmp_path / "runs", "ended")
    log = EventLog(run.path / "events.jsonl")
    log.write("start", step=0, from_step=0)
    for epoch in (1, 2):
        log.write("epoch", epoch=epoch, epochs=2, step=epoch, loss=1 / epoch, seconds=2.0)
        log.write("evaluation", epoch=epoch, step=epoch, ap=epoch / 10, ap50=epoch / 5)
    log.write("end", step=2, reason="finished", message="")
    log.close()
    return run


def typed(*args: object) -> "subprocess.Popen[str]":
    """The command in a process of its own."""
    command = [sys.executable, "-m", "odkit", *map(str, args)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(odkit.__file__).parents[1],
    )


def steps(run: Run) -> int:
    return sum(event["event"] == "step" for event in run.events())


# -- reading the command line ------------------------------------------------------------------------------------------


def test_light_commands_import_nothing_heavy(ended: Run, tmp_path: Path) -> None:
    tested = {"ap": 0.25, "ap_low": 0.2, "ap_high": 0.3}
    look = {"epoch": 2, "validation_ap": 0.2, "intervals": {"total": tested}}
    (ended.path / "test.json").write_bytes(orjson.dumps({"tests": [look]}))
    commands = [
        ["--version"],
        ["--help"],
        ["runs", str(ended.path.parent)],
        ["runs", str(ended.path.parent), "--json"],
        ["runs", str(ended.path.parent), "--compare"],
        ["show", str(ended.path)],
        ["stop", str(ended.path)],
        ["show", "nothing"],
        ["bogus"],
        *([name, "--help"] for name in COMMANDS),
        ["demo", str(tmp_path / "demo"), "--images", "3"],  # draws: numpy, but nothing heavier
    ]
    code = (
        "import sys; from odkit.cli import main\n"
        "heavy = {'torch', 'torchvision', 'fiftyone', 'matplotlib', 'IPython', 'numpy', 'PIL', 'yaml'}\n"
        f"for args in {commands!r}:\n"
        "    heavy -= {'numpy', 'PIL', 'yaml'} if args[0] == 'demo' and '--help' not in args else set()\n"
        "    try: main(args)\n"
        "    except SystemExit: pass\n"
        "    if found := heavy & set(sys.modules): sys.exit(f'{args} imported {found}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_overview_lists_every_command_and_a_wrong_one_is_told_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[:2] == "  " and line[2] != " "] == list(COMMANDS)
    with pytest.raises(SystemExit, match="2"):
        main(["trane", "demo"])
    assert capsys.readouterr().err == (
        "odkit: there is no command 'trane'; did you mean 'train'? `odkit --help` lists them\n"
    )


def test_commands_and_flags_are_completed_by_a_script_for_the_shell(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["--tyro-print-completion", "bash"])
    script = capsys.readouterr().out
    assert all(name in script for name in (*COMMANDS, "--learning-rate"))


def test_a_learning_curve_has_the_points_that_the_function_has() -> None:
    default = inspect.signature(COMMANDS["learning-curve"]).parameters["fractions"].default
    assert default == inspect.signature(odkit.learning_curve).parameters["fractions"].default


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"odkit {odkit.__version__}\n"


def test_help_names_every_setting_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    text = capsys.readouterr().out
    flags = [
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(Settings)
        if field.name != "compile"
    ]
    assert [flag for flag in flags if flag not in text] == []
    assert "Passes over the training images." in text
    with pytest.raises(SystemExit, match="0"):
        main(["resume", "--help"])
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in text for name in MAY_CHANGE)
    assert "--learning-rate" not in text
    assert "Checkpoints to keep. (default: as it was)" in text


@pytest.mark.parametrize(
    "args", [["bogus"], ["train", "demo", "--epoch", "3"], ["stop", "x", "--when", "later"], []]
)
def test_a_wrong_command_line_exits_with_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    assert "odkit" in capsys.readouterr().err


WRONG = {
    "show nothing": "is not a run folder",
    "stop nothing": "is not a run folder",
    "train": "nothing is said of the data to train on",
    "resume nothing --epochs 3": "is not a run folder",
    "worker nothing": "is not a run folder",
    "runs . --delete nothing": "is not a run folder",
    "test nothing": "is not a run folder",
    "replay nothing": "is not a run folder",
    "train nothing": "nothing",
    "train demo --epochs -1 --seed -1": "epochs must be 0 or more, not -1",
    "train demo --batch-size 4 --micro-batch-size 8": "micro_batch_size (8) is larger than batch_size (4)",
    "audit nothing": "nothing",
    "evaluate nothing demo": "neither a run",
    "predict nothing demo": "neither a run",
    "prelabel demo --detector nothing": "neither a run",
    "demo . --images 1": "at least 3",
    "learning-curve nothing": "nothing",
    "learning-curve demo --figure curve.gif": "--figure curve.gif: a file (.png, .svg, .pdf)",
    "learning-curve demo --figure nowhere/curve.png": "in a folder that is there",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_is_one_message_and_1(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 1
    said = capsys.readouterr()
    assert WRONG[line] in said.err
    assert said.err.startswith("odkit: ")
    assert "Traceback" not in said.err
    assert said.out == ""


def test_the_traceback_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODKIT_TRACEBACK", "1")
    with pytest.raises(RunError):
        main(["show", "nothing"])


def test_a_fault_of_ours_keeps_its_traceback(ended: Run) -> None:
    planted = (
        "from odkit.runs import Run; Run.summary = lambda self: {}['settings']; from odkit.cli import main; "
    )
    line = [sys.executable, "-c", f"{planted} main(['runs', {str(ended.path.parent)!r}])"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Traceback")
    assert "KeyError: 'settings'" in done.stderr


def test_what_is_raised_on_purpose_is_told_and_what_is_not_is_a_fault(
    ended: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are a ValueError that comes out of the same function."""

    def planted(self: Run) -> object:
        return np.zeros(3) + np.zeros(4)

    def on_purpose(self: Run) -> object:
        raise InputError("the boxes of a.jpg are upside down")

    monkeypatch.setattr(Run, "summary", planted)
    with pytest.raises(ValueError, match="could not be broadcast"):
        main(["show", str(ended.path)])
    monkeypatch.setattr(Run, "summary", on_purpose)
    capsys.readouterr()
    assert main(["show", str(ended.path)]) == 1
    assert capsys.readouterr().err == "odkit: the boxes of a.jpg are upside down\n"


def test_a_name_that_is_not_there_is_told_without_quotes(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(saved), "--val-split", "dev", "--folder", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("odkit: squares has no split 'dev'; its splits: ")


# -- runs --------------------------------------------------------------------------------------------------------------


def test_runs_lists_and_deletes(ended: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(ended.path.parent)
    assert main(["runs", folder]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["name", "state", "detector"]
    assert line.split()[:5] == ["ended", "finished", "starter", "2", "2"]
    assert main(["runs", folder, "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out) == [ended.summary()]
    assert main(["runs", folder, "--delete", "ended"]) == 1  # nobody is there to be asked
    assert "--yes" in capsys.readouterr().err
    assert main(["runs", folder, "--delete", "ended", "--yes"]) == 0
    assert main(["runs", folder, "--json"]) == 0
    assert capsys.readouterr().out.endswith("[]\n")


def test_runs_compare_by_what_differs(ended: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ended.path.parent
    other = create_run(ended.dataset(), Settings(epochs=2, learning_rate=0.5), folder, "other")
    log = EventLog(other.path / "events.jsonl")
    log.write("evaluation", epoch=1, step=1, ap=0.5, ap50=0.75)
    log.close()
    assert main(["runs", str(folder), "--compare", "--json"]) == 0
    best, worst = orjson.loads(capsys.readouterr().out)
    assert (best["name"], best["val_ap"], best["learning_rate"]) == ("other", 0.5, 0.5)
    assert (worst["name"], worst["val_ap"], worst["learning_rate"]) == ("ended", 0.2, 0.0)
    assert "epochs" not in best
    assert "data" not in best
    assert main(["runs", str(tmp_path), "--compare"]) == 0


def test_show_prints_the_epochs_of_an_ended_run(ended: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(ended.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["epoch", "loss", "val_ap", "val_ap50"]
    assert lines[2].split()[:4] == ["2", "0.5", "0.2", "0.4"]
    assert lines[-1] == "Run 'ended': finished, starter, epoch 2/2, best val AP 0.200, AP50 0.400"


def test_table() -> None:
    rows = [{"name": "a", "ap": 0.123456, "epoch": 1}, {"name": "long", "ap": None, "epoch": 12}]
    assert table(rows) == "name      ap  epoch\na     0.1235      1\nlong       -     12"


def test_a_closed_pipe_is_no_fault(ended: Run) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "odkit", "runs", str(ended.path.parent)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


# -- data --------------------------------------------------------------------------------------------------------------


def test_audit_says_in_its_exit_status_whether_it_trains(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(demo)]) == 0
    assert "0 fatal" in capsys.readouterr().out
    assert main(["demo", str(tmp_path / "faulty"), "--images", "60", "--faults"]) == 0
    capsys.readouterr()
    assert main(["audit", str(tmp_path / "faulty"), "--json"]) == 1
    page = orjson.loads(capsys.readouterr().out)
    assert page["ok"] is False
    assert main(["train", str(tmp_path / "faulty"), "--folder", str(tmp_path)]) == 1
    assert "repair" in capsys.readouterr().err


def test_audit_of_the_labels_alone_needs_no_image(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "annotations").mkdir()
    for file in sorted((demo / "annotations").iterdir()):
        (tmp_path / "annotations" / file.name).write_bytes(file.read_bytes())
    label = str(tmp_path / "annotations" / "instances_train.json")
    assert main(["audit", label, "--labels-only"]) == 0
    said = capsys.readouterr()
    assert "0 fatal" in said.out
    assert "val" not in said.err, "no split was dealt"
    assert main(["audit", label]) == 1
    assert "[missing_image]" in capsys.readouterr().out


@pytest.mark.parametrize("to", WRITERS)
def test_convert(demo: Path, tmp_path: Path, to: str) -> None:
    assert main(["convert", str(demo), str(tmp_path / to), "--to", to]) == 0
    was, now = odkit.load_dataset(demo), odkit.load_dataset(tmp_path / to)
    assert now.format == to
    assert (len(now), now.class_counts(), now.split_counts()) == (
        len(was),
        was.class_counts(),
        was.split_counts(),
    )


@pytest.mark.parametrize("to", WRITERS)
def test_convert_deals_no_splits(tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    squares(tmp_path / "images", 10, val=0).save(tmp_path / "plain.npz")
    odkit.write_dataset(odkit.load_dataset(tmp_path / "plain.npz", val=0), tmp_path / "plain")
    assert main(["convert", str(tmp_path / "plain"), str(tmp_path / "command"), "--to", to]) == 0
    assert ("YOLO knows no images without a split" in capsys.readouterr().err) == (to == "yolo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odkit.convert(tmp_path / "plain", tmp_path / "function", to=to)
    by_command, by_function = (odkit.load_dataset(tmp_path / n, val=0) for n in ("command", "function"))
    known = {"train": 10} if to == "yolo" else {}  # as it warns: it has no other place for them
    assert by_command.split_counts() == by_function.split_counts() == known
    assert by_command.fingerprint() == by_function.fingerprint()
    assert files(tmp_path / "command") == files(tmp_path / "function")


def test_what_else_an_evaluation_says(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from odkit.detection import build_detector, save_detector

    detector = build_detector(
        "starter", odkit.load_dataset(saved).class_names, weights="random", image_size=64
    )
    file = str(save_detector(detector, tmp_path / "detector.safetensors"))
    asked = ["--calibration", "--want-precision", "0.9", "--want-recall", "0.5"]
    judge = ["evaluate", file, str(saved), "--device", "cpu"]
    assert main([*judge, *asked]) == 0
    said = capsys.readouterr().out
    heads = ("Evaluation on", "thresholds for precision 0.9", "thresholds for recall 0.5", "Calibration on")
    assert all(head in said for head in heads)
    assert main([*judge, *asked, "--intervals", "--json"]) == 0
    page = orjson.loads(capsys.readouterr().out)
    assert page["for_precision"]["wanted"] == "precision 0.9"
    assert page["for_recall"]["total"]["boxes"] == page["boxes"] == page["intervals"]["total"]["boxes"]
    assert page["calibration"]["per_class"][0]["class"] == "blue"
    for what in ("precision", "recall"):  # before anything is opened
        assert main(["evaluate", "nowhere.safetensors", "nowhere", f"--want-{what}", "9"]) == 1
        assert f"a wanted {what} is above 0 and at most 1, not 9" in capsys.readouterr().err


def test_classes_under_other_names(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One pair of flags, wherever a dataset is converted, trained on or judged."""
    from odkit.detection import build_detector, save_detector

    flags = ["--rename", "blue=square", "red=square"]
    assert main(["convert", str(saved), str(tmp_path / "coco"), "--to", "coco", *flags]) == 0
    was, now = odkit.load_dataset(saved), odkit.load_dataset(tmp_path / "coco")
    assert now.class_counts() == {"square": was.num_boxes}
    assert (
        main(["train", str(saved), "--folder", str(tmp_path), "--name", "a", "--prepare", "--classes", "red"])
        == 0
    )
    run = Run(tmp_path / "a")
    assert run.class_names == ("red",)
    assert run.dataset().num_boxes == was.class_counts()["red"]
    detector = build_detector("starter", ["square"], weights="random", image_size=64)
    file = save_detector(detector, tmp_path / "detector.safetensors")
    capsys.readouterr()
    assert main(["evaluate", str(file), str(saved), "--json", "--device", "cpu", *flags]) == 0
    page = orjson.loads(capsys.readouterr().out)
    assert ([row["class"] for row in page["per_class"]], page["notes"]) == (["square"], [])
    assert main(["evaluate", str(file), str(saved), "--device", "cpu"]) == 1
    assert "only the predictions know 'square'" in capsys.readouterr().err
    for wrong, message in (
        (["--rename", "blue"], "--rename wants OLD=NEW, not 'blue' alone"),
        (["--classes", "bleu"], "no class 'bleu' in squares, which has blue, red; did you mean 'blue'?"),
    ):
        assert main(["convert", str(saved), str(tmp_path / "b"), "--to", "voc", *wrong]) == 1
        assert message in capsys.readouterr().err


def two_formats(folder: Path) -> Path:
    """VOC's XML and CSV that do not say the same: the cat of picture a lies elsewhere."""
    tutorial(folder)
    path = folder / "images/train_labels.csv"
    path.write_text(path.read_text().replace("cat,5,7,20,30", "cat,25,7,45,30"))
    return folder


@pytest.mark.parametrize(
    ("line", "status", "then"),
    [
        ("audit {data}", 0, ""),
        ("train {data} --folder {out} --name a --prepare", 0, ""),
        ("convert {data} {out}/coco --to coco", 0, ""),
        ("evaluate {detector} {data} --split test --device cpu", 0, ""),
        ("test nothing --data {data}", 1, "is not a run folder"),
        ("learning-curve {data} --fractions 2 --folder {out}", 1, "fractions"),
    ],
)
def test_every_command_that_reads_a_dataset_takes_its_format(
    line: str, status: int, then: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from odkit.detection import build_detector, save_detector

    data = two_formats(tmp_path / "pets")
    detector = tmp_path / "detector.safetensors"
    if "{detector}" in line:
        save_detector(build_detector("starter", ["cat", "dog"], weights="random", image_size=64), detector)
    args = line.format(data=data, out=tmp_path, detector=detector).split()
    assert main(args) == 1
    said = capsys.readouterr()
    assert "could be Pascal VOC or CSV, and they differ" in said.err
    assert "--format voc" in said.err
    assert main([*args, "--format", "csv"]) == status
    said = capsys.readouterr()
    assert "  - CSV: " in said.err
    assert then in said.err
    if args[0] == "convert":
        boxes = odkit.load_dataset(tmp_path / "coco").boxes
        assert [25, 7, 45, 30] in boxes.tolist()


def test_the_function_converts_what_it_is_told_to(tmp_path: Path) -> None:
    data = two_formats(tmp_path / "pets")
    odkit.convert(data, tmp_path / "coco", format="voc")
    assert [4, 6, 20, 30] in odkit.load_dataset(tmp_path / "coco").boxes.tolist()


def test_formats_in_help_are_those_of_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "audit", "convert", "evaluate", "test", "learning-curve"):
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        text = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
        assert [kind for kind, row in READERS.items() if f"{kind} ({row.title})" not in text] == []
        flags = text.replace(", ", ",")  # a long list is wrapped behind a comma
        assert f"--format {{None,{','.join(READERS)}}}" in flags
        if name == "convert":
            assert f"--to {{{','.join(WRITERS)}}}" in flags
    with pytest.raises(SystemExit, match="2"):
        main(["audit", "demo", "--format", "voca"])


def test_what_was_recognised_is_said_beside_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tutorial(tmp_path / "pets")
    assert main(["audit", str(data), "--json"]) == 0
    said = capsys.readouterr()
    assert orjson.loads(said.out)["ok"]
    notes = odkit.load_dataset(data).notes
    assert "Pascal VOC and CSV say the same 5 boxes in 3 images" in notes[0]
    assert said.err.splitlines()[: len(notes) + 1] == [f"{data}:", *(f"  - {note}" for note in notes)]
    for path in data.rglob("*.csv"):
        path.unlink()
    for stem in ("b", "c"):
        next(data.rglob(f"{stem}.xml")).unlink()
    assert main(["audit", str(data)]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[1].startswith("  - MOST IMAGES HAVE NO LABEL: 3 of 4 images without a box")
    assert "[mostly_unlabelled]" in said.out
    assert main(["convert", str(data), str(tmp_path / "zero"), "--to", "coco", "--first-pixel", "0"]) == 0
    assert [5, 7, 20, 30] in odkit.load_dataset(tmp_path / "zero").boxes.tolist()


def files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, with what it holds; the folder's own name left out of it."""
    return {
        str(file.relative_to(folder)): file.read_bytes().replace(folder.name.encode(), b"")
        for file in folder.rglob("*")
        if file.is_file()
    }


# -- detectors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_what_is_chosen_is_said_and_what_is_given_is_taken(
    command: str,
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from odkit.detection import build_detector, devices, inference, save_detector

    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64)
    file = save_detector(detector, tmp_path / "detector.safetensors")
    asked: list[dict[str, Any]] = []
    real = inference.predict_rows

    def spied(*args: Any, **options: Any) -> Any:
        asked.append(options)
        return real(*args, **options)

    monkeypatch.setattr(inference, "predict_rows", spied)
    monkeypatch.setattr(devices, "accelerators", devices.Accelerators)
    target = str(saved if command == "evaluate" else saved.parent)
    assert main([command, str(file), target]) == 0
    assert "on cpu: no CUDA device is visible\n" in capsys.readouterr().err
    options = ["--device", "cpu", "--batch-size", "3", "--num-workers", "1"]
    assert main([command, str(file), target, *options]) == 0
    assert "CUDA" not in capsys.readouterr().err
    assert main([command, str(file), target, "--device", "cpu", "--precision", "bf16"]) == 0
    taken = [(o["batch_size"], o["num_workers"], o["precision"]) for o in asked]
    assert taken == [(8, 0, None), (3, 1, None), (8, 0, torch.bfloat16)]
    assert main([command, str(file), target, "--device", "cuda:1"]) == 1
    assert "there is no device 'cuda:1' here, only cpu" in capsys.readouterr().err


def test_the_ap_that_a_run_reports_is_evaluates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Judged in another number format than a detector file is by itself."""
    data = squares(tmp_path / "images", 16)
    data.save(tmp_path / "squares.npz")
    run = trained(
        data, tmp_path, "low", weights="pretrained", precision="bf16", learning_rate=1e-3, epochs=10
    )
    assert run.best["ap"] > 0.05
    args = ["evaluate", str(run.path), str(tmp_path / "squares.npz"), "--device", "cpu", "--json"]
    assert main(args) == 0
    said = capsys.readouterr()
    assert "in bf16: what the run was judged with" in said.err
    assert orjson.loads(said.out)["ap"] == pytest.approx(run.best["ap"], abs=1e-6)


def test_the_test_images_are_asked_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = squares(tmp_path / "images", 16, val=0).with_splits(val=0.25, test=0.25)
    run = trained(data, tmp_path / "runs", "one", epochs=1)
    assert main(["test", str(run.path), "--device", "cpu"]) == 0
    (found,) = run.tests()
    assert capsys.readouterr().out == f"{found!r}\n"
    assert main(["test", str(run.path), "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out) == found.to_dict()
    assert main(["runs", str(tmp_path / "runs")]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert "val_ap  val_ap50  test_ap" in head
    assert f"{found.ap:.3f} ({found.interval[0]:.3f} to {found.interval[1]:.3f})" in line
    assert main(["runs", str(tmp_path / "runs"), "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out)[0]["test_ap"] == found.ap
    data.replace(image_splits=None).save(tmp_path / "all.npz")
    assert main(["test", str(run.path), "--data", str(tmp_path / "all.npz")]) == 1
    assert "trained on 12 of the 16 images of squares" in capsys.readouterr().err
    # what is written down is read without torch
    code = (
        "import sys; from odkit.cli import main\n"
        f"main(['test', {str(run.path)!r}]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)


# -- training ----------------------------------------------------------------------------------------------------------


def test_prelabel_writes_suggestions_and_goes_on_after_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from odkit.detection import build_detector, inference, save_detector

    dataset = squares(tmp_path / "squares", 8)
    odkit.write_dataset(dataset.select([0, 1]), tmp_path / "data", "coco")
    for path in dataset.image_paths[2:]:
        shutil.copy(path, tmp_path / "data")
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    detector = build_detector("starter", ("blue", "red"), weights="random", image_size=64)
    save_detector(detector, tmp_path / "detector.safetensors")
    monkeypatch.chdir(tmp_path)
    args = ["prelabel", "data", "--detector", "detector.safetensors", "--score", "0.01", "--batch-size", "4"]
    assert main([*args, "--out", "data/inside"]) == 1
    assert "is in the folder of the data" in capsys.readouterr().err

    real, looked = inference.predict_rows, []

    def pressed(*given: Any, stop: Any, **how: Any) -> Any:
        looked.append(len(given[2]))
        return real(*given, stop=lambda: stop() or signal.raise_signal(signal.SIGINT) or stop(), **how)

    monkeypatch.setattr(inference, "predict_rows", pressed)
    assert main(args) == 128 + signal.SIGINT
    assert "2 of 6 pictures left" in capsys.readouterr().err
    assert not Path("data-suggestions").exists()
    shutil.copytree(tmp_path / "data", tmp_path / "other" / "data")
    other = [
        args[0],
        "other/data",
        *args[2:],
    ]  # pictures of the same names, but perhaps not the same pictures
    assert main(other) == 128 + signal.SIGINT
    assert main(other) == 0
    shutil.rmtree("data-suggestions")
    assert main(args) == 0
    assert looked == [6, 6, 2, 2]
    out = capsys.readouterr().out
    assert "a detector's suggestions, not labels" in out
    assert main([*args, "--to", "yolo"]) == 1
    assert "is there already" in capsys.readouterr().err

    suggested = odkit.load_dataset("data-suggestions", val=0)
    told = orjson.loads(Path("data-suggestions/suggestions.json").read_bytes())
    assert (len(suggested), suggested.num_boxes) == (6, sum(len(one["objects"]) for one in told["pictures"]))
    assert "not labels" in told["about"]
    assert all(0.01 <= thing["score"] <= 1 for one in told["pictures"] for thing in one["objects"])
    assert {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob(".data*")), "what was kept for going on is gone"


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A detector file beside a folder of pictures, one of them damaged, and a video; the working folder."""
    from odkit.detection import build_detector, save_detector

    squares(tmp_path / "photos", 3)
    (tmp_path / "photos" / "bad.jpg").write_text("no image")
    made_video(tmp_path / "clip.mp4", 5)
    torch.manual_seed(0)
    detector = build_detector("starter", ("blue", "red"), weights="random", image_size=64)
    save_detector(detector, tmp_path / "detector.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_predict_writes_what_is_asked_for_and_leaves_the_sources(
    given: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in given.rglob("*") if path.is_file()}
    args = ["predict", "detector.safetensors", "photos", "clip.mp4", "--score", "0.01", "--device", "cpu"]
    formats = ["json", "pictures", "video", "coco", "yolo", "voc", "csv"]
    assert main([*args, "--out", "found", "--to", *formats]) == 0
    said = capsys.readouterr()
    lines = [orjson.loads(line) for line in said.out.splitlines()]
    assert orjson.loads((given / "found" / "predictions.json").read_bytes()) == lines
    assert [Path(line["image"]).name for line in lines] == [
        "000.png",
        "001.png",
        "002.png",
        *["clip.mp4"] * 5,
    ]
    assert [line["frame"] for line in lines[3:]] == [0, 1, 2, 3, 4]
    assert "1 picture left out" in said.err
    assert "bad.jpg" in said.err
    written = {path.relative_to("found").as_posix() for path in Path("found").rglob("*") if path.is_file()}
    assert written >= {
        "photos/000.png",
        "clip.mp4",
        "clip-000004.jpg",
        "results.json",
        "images.json",
        "labels/photos/000.txt",
        "labels/clip-000000.txt",
        "Annotations/000.xml",
        "predictions.csv",
        "classes.txt",
    }
    assert {path: path.read_bytes() for path in before} == before
    assert main([*args, "--out", "found"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main([*args, "--out", "other"]) == 0
    assert sorted(path.name for path in Path("other").iterdir()) == ["clip.mp4", "photos", "predictions.json"]


PREDICT_WRONG = {
    "photos --out photos": "is where the images are",
    "photos --out photos/out": "is where the images are",
    "photos/000.png --out photos": "is where the images are",
    "clip.mp4 --out .": "is where the images are",
    "photos --to coco": "--out where to",
    "photos --score 2": "--score must be from 0 to 1",
    "photos --score nan": "--score must be from 0 to 1",
    "absent": "no file or folder at",
    "https://example.org/a.jpg": "odkit fetches nothing",
    "camera:99": "there is no camera",
    "photos/bad.jpg": "cannot be read as an image",
    "": "give something to look at",
    "photos --device cuda:9": "there is no device",
}


@pytest.mark.parametrize("line", PREDICT_WRONG)
def test_what_predict_cannot_do_is_one_message(
    line: str, given: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from odkit.detection import devices

    monkeypatch.setattr(devices, "accelerators", devices.Accelerators)
    assert main(["predict", "detector.safetensors", *line.split()]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("odkit: ")
    assert PREDICT_WRONG[line] in said


def test_ctrl_c_ends_predict_with_what_was_found(
    given: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from odkit.detection import inference

    real = inference._look_at_frames

    def pressed(*args: Any, **how: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real(*args, **how)

    monkeypatch.setattr(inference, "_look_at_frames", pressed)
    args = [
        "predict",
        "detector.safetensors",
        "photos/000.png",
        "clip.mp4",
        "--device",
        "cpu",
        "--out",
        "found",
    ]
    assert main(args) == 128 + signal.SIGINT
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    with Video(given / "found" / "clip.mp4") as video:
        assert len(list(video)) == 1
    assert len(orjson.loads((given / "found" / "predictions.json").read_bytes())) == 2


@pytest.mark.worker
def test_train_in_the_background_stop_resume_evaluate_predict(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run_path = str(tmp_path), str(tmp_path / "a")
    train = ["train", str(demo), "--folder", folder, "--name", "a", "--epochs", "500", *SMALL]
    assert main([*train, "--learning_rate", "0.0005", "--augment", "flip", "--no-wait"]) == 0
    run = Run(run_path)
    assert "odkit show" in capsys.readouterr().out
    assert (run.settings.learning_rate, run.settings.augment, run.settings.epochs) == (0.0005, "flip", 500)
    assert main(train) == 1  # the name is taken
    assert main(["resume", run_path]) == 1
    assert "running" in capsys.readouterr().err
    until(lambda: len(run.history()) >= 1)
    assert main(["stop", run_path, "--when", "epoch"]) == 0
    assert "odkit resume" in capsys.readouterr().out
    assert run.state == "stopped"
    done = run.history()[-1]["epoch"]

    resumed = typed("resume", run_path, "--epochs", done + 1)
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    assert f"epoch {done + 1}/{done + 1}" in out
    assert "resumed at step" in out
    assert run.state == "finished"

    assert main(["evaluate", run_path, str(demo), "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out)["ap"] == pytest.approx(run.best["ap"], abs=1e-6)
    assert main(["predict", run_path, str(demo), "--score", "0", "--out", str(tmp_path / "found")]) == 0
    lines = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 12
    assert set(lines[0]["objects"][0]) == {"class", "score", "box"}
    assert orjson.loads((tmp_path / "found" / "predictions.json").read_bytes()) == lines
    for line in lines:
        picture = tmp_path / "found" / Path(line["image"]).relative_to(demo)
        with Image.open(picture) as drawn, Image.open(line["image"]) as source:
            assert drawn.size == source.size
    assert main(["predict", run_path, str(demo), "--out", str(demo)]) == 1  # the source is never modified
    assert main(["replay", run_path]) == 0
    assert "no batch" in capsys.readouterr().out


@pytest.mark.worker
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(saved: Path, tmp_path: Path, number: signal.Signals) -> None:
    train = typed("train", saved, "--folder", tmp_path, "--name", "a", "--epochs", 500, *SMALL)
    until((tmp_path / "a" / "config.json").exists, process=train)
    run = Run(tmp_path / "a")
    until(lambda: steps(run) > 0, process=train)
    train.send_signal(number)
    out, err = train.communicate(timeout=120)
    assert train.returncode == 128 + number
    assert "saving and stopping" in err
    assert f"odkit resume {run.path}" in out
    assert run.state == "stopped"
    assert run.checkpoints()[-1].name == f"step-{steps(run):08d}.pt"


@pytest.mark.worker
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_signal_while_the_worker_starts_is_not_lost(
    saved: Path, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Run.start

    def interrupted(run: Run) -> Run:
        if moment == "before":
            signal.raise_signal(signal.SIGINT)
        start(run)
        if moment == "after":
            signal.raise_signal(signal.SIGINT)
        return run

    monkeypatch.setattr(Run, "start", interrupted)
    train = ["train", str(saved), "--folder", str(tmp_path), "--name", "a", "--epochs", "500", *SMALL]
    assert main(train) == 128 + signal.SIGINT
    assert Run(tmp_path / "a").state == "stopped"


@pytest.mark.worker
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_after_another_signal_while_the_worker_starts_is_answered(
    saved: Path,
    tmp_path: Path,
    first: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = Run.start

    def interrupted(run: Run) -> Run:
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGINT)
        return start(run)

    monkeypatch.setattr(Run, "start", interrupted)
    train = ["train", str(saved), "--folder", str(tmp_path), "--name", "a", "--epochs", "500", *SMALL]
    assert main(train) == 130
    assert "saves and ends by itself" in capsys.readouterr().out
    run = Run(tmp_path / "a")
    until(lambda: not run.alive)
    assert run.state == "stopped"


@pytest.mark.worker
def test_a_second_interrupt_does_not_wait(saved: Path, tmp_path: Path) -> None:
    train = typed("train", saved, "--folder", tmp_path, "--name", "a", "--epochs", 500, *SMALL)
    until((tmp_path / "a" / "config.json").exists, process=train)
    run = Run(tmp_path / "a")
    until(lambda: run.alive, process=train)
    # the worker imports torch meanwhile, and will see the request with its first step
    train.send_signal(signal.SIGINT)
    until((run.path / "stop").exists, process=train)
    train.send_signal(signal.SIGINT)
    out, _ = train.communicate(timeout=120)
    assert train.returncode == 130
    assert "saves and ends by itself" in out
    assert "odkit show" in out
    until(lambda: not run.alive)
    assert run.state == "stopped"


# -- machine -----------------------------------------------------------------------------------------------------------


def test_detectors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detectors", "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out) == odkit.list_detectors()
    assert main(["detectors"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("starter ")
    assert main(["detectors", "--measure", "starter", "--json"]) == 0
    first, second = orjson.loads(capsys.readouterr().out)[:2]
    assert first["minutes_an_epoch"] > 0
    assert "minutes_an_epoch" not in second
    assert main(["detectors", "--measure", "startr"]) == 1
    assert "did you mean 'starter'" in capsys.readouterr().err


@pytest.mark.database
def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    report = orjson.loads(capsys.readouterr().out)
    assert status == (0 if report["ok"] else 1)
    assert {"cpu", "disk", "packages"} <= {check["name"] for check in report["checks"]}


def test_prepare_writes_the_folder_and_says_how_to_train_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = squares(tmp_path / "images").save(tmp_path / "squares.npz")
    assert main(["train", str(saved), "--folder", str(tmp_path), "--name", "ready", "--prepare"]) == 0
    assert capsys.readouterr().out.strip().endswith(f"-m odkit worker {tmp_path / 'ready'}")
    assert Run(tmp_path / "ready").state == "new"
