"""Showing a run: what its events amount to, in a terminal, in a notebook nobody watches, as widgets."""

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import termios
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

from odkit.data.dataset import Dataset
from odkit.runs.dashboard.charts import Series, chart, picture_with_boxes, smoothed, thinned, ticks
from odkit.runs.dashboard.notebook import Dashboard
from odkit.runs.dashboard.progress import Pace, Progress, duration, epoch_line
from odkit.runs.dashboard.show import front_end, show_run
from odkit.runs.dashboard.terminal import show_terminal
from odkit.runs.events import EventLog
from odkit.runs.run import Run, create_run
from odkit.runs.settings import Settings
from tests.helpers import squares

# A process that writes a run's events while it holds its lock: a worker, as far as anyone who looks can tell.
WORKER = """
import sys, time
from pathlib import Path
from odkit.runs.events import EventLog; from odkit.runs.worker import hold_lock
path = Path(sys.argv[1])
handle = hold_lock(path)
log = EventLog(path / "events.jsonl")
choices = {"batch_size": 4, "image_size": 64, "precision": "fp32", "optimizer": "adamw", "learning_rate": 0.001}
log.write("start", step=0, from_step=0, steps_per_epoch=3, epochs=2, device="cpu", choices=choices,
          settings={"detector": "starter"})
print("holding", flush=True)
more = dict(learning_rate=1e-3, grad_norm=1.0, images_per_second=20.0, data_wait=0.1, memory=1e9, device_memory=0)
step = 0
for epoch in (1, 2):
    for _ in range(3):
        step += 1
        log.write("step", step=step, epoch=epoch, loss=1 / step, losses={}, **more)
        time.sleep(0.02)
    log.write("epoch", epoch=epoch, epochs=2, step=step, loss=1 / step, learning_rate=1e-3, seconds=1.5,
              images_per_second=20.0)
    log.write("evaluation", epoch=epoch, step=step, ap=epoch / 10, ap50=epoch / 5, ap75=None, best=True, seconds=1.0)
    log.write("preview", epoch=epoch, step=step, images=[
        {"row": 0, "boxes": [[8, 8, 30, 30]], "classes": [1], "scores": [0.5]}, {"row": 1, "boxes": [], "classes": [],
        "scores": []}])
log.write("warning", kind="test", message="odd <b>thing</b>", step=step)
wish = path / "stop"
while "--wait" in sys.argv and not wish.exists():
    time.sleep(0.02)
log.write("end", step=step, reason="stopped" if wish.exists() else "finished", message="")
"""
EPOCH_1 = "epoch 1/2  loss 0.333  val AP 0.100  AP50 0.200 *  20.0 images/s  0:02"
EPOCH_2 = "epoch 2/2  loss 0.167  val AP 0.200  AP50 0.400 *  20.0 images/s  0:02"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    dataset = squares(tmp_path / "squares", 8)
    return create_run(dataset, Settings(epochs=2, weights="random"), tmp_path / "runs", "one")


@contextlib.contextmanager
def worker(run: Run, *options: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", WORKER, str(run.path), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "holding\n"
            yield process
        finally:
            process.kill()


def ended(run: Run) -> Run:
    with worker(run) as process:
        process.wait(60)
    return run


def step(number: int, *, time: float = 0.0, loss: float | None = 1.0) -> dict[str, Any]:
    return {"event": "step", "step": number, "time": time, "loss": loss, "epoch": 1 + (number - 1) // 4}


# -- what the events amount to -----------------------------------------------------------------------------------------


def test_progress_is_the_runs_own_history(run: Run) -> None:
    progress = Progress()
    for event in ended(run).events(raw=True):
        progress.add(event)
    assert progress.rows == run.history()
    assert progress.best == run.best
    assert (progress.step, progress.total_steps, progress.epochs) == (6, 6, 2)
    assert list(progress.losses) == [pytest.approx(1 / k) for k in range(1, 7)]
    assert progress.preview["epoch"] == 2
    assert progress.end["reason"] == "finished"


def test_a_resume_takes_back_what_it_does_again() -> None:
    progress = Progress()
    start = {"event": "start", "from_step": 0, "step": 0, "time": 0.0, "steps_per_epoch": 4, "epochs": 3}
    for event in (
        start,
        *(step(k) for k in range(1, 7)),
        {"event": "epoch", "epoch": 1, "step": 4, "loss": 1.0, "time": 0.0},
    ):
        progress.add(event)
    progress.add({"event": "preview", "step": 4, "epoch": 1, "images": []})
    progress.add({**start, "from_step": 5, "step": 5, "epochs": 6})
    assert (list(progress.steps), progress.epochs, len(progress.judged)) == ([1, 2, 3, 4, 5], 6, 1)
    progress.add(
        {"event": "start", "from_step": 2, "step": 2, "time": 0.0, "rollback": 1}
    )  # says only where to
    assert (list(progress.steps), progress.judged, progress.preview) == ([1, 2], [], {})
    assert (progress.steps_per_epoch, progress.epochs, progress.step) == (4, 6, 2)
    progress.add(step(3, loss=None))
    assert math.isnan(progress.losses[-1])


def test_time_left_goes_by_this_start_alone() -> None:
    progress = Progress()
    start = {"event": "start", "from_step": 0, "step": 0, "time": 0.0, "steps_per_epoch": 10, "epochs": 2}
    progress.add(start)
    assert progress.seconds_left() is None
    for number in range(1, 5):
        progress.add(step(number, time=100.0 + 2 * number))  # the worker took 102 s to its first step
    assert progress.seconds_left() == pytest.approx(2 * 16)
    progress.add({**start, "from_step": 4, "step": 4, "time": 9000.0})
    assert progress.seconds_left() is None
    for number in range(5, 11):
        progress.add(step(number, time=9000.0 + number))
    assert progress.seconds_left() == pytest.approx(10)


def test_time_left_outlives_a_clock_that_is_set_back() -> None:
    progress, day = Progress(), 86_400.0
    progress.add(
        {"event": "start", "from_step": 0, "step": 0, "time": day, "steps_per_epoch": 40, "epochs": 1}
    )
    for number in range(1, 21):
        progress.add(step(number, time=day + 2 * number - (day if number > 10 else 0)))
    assert progress.seconds_left() == pytest.approx(2 * 20, rel=0.1)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not list its file locks")
def test_dashboards_of_one_run_share_what_they_may_take(run: Run) -> None:
    def after_work(pace: Pace) -> float:
        pace.seconds()
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
        return pace.seconds()

    first = Pace(run, least=0.25)
    assert (first.watching(), after_work(first)) == (1, 2.0)
    others = [Pace(run, least=0.25) for _ in range(3)]
    assert (first.watching(), after_work(first)) == (4, 2.75)
    for other in others:
        other.close()
    assert first.watching() == 1
    first.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3725, "1:02:05"), (90000, "25:00:00")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_epoch_line() -> None:
    assert epoch_line({"epoch": 3, "loss": 0.5}, 12) == "epoch  3/12  loss 0.500"
    assert (
        epoch_line({"epoch": 3, "loss": None, "ap": 0.25, "ap50": None}, 3)
        == "epoch 3/3  loss -  val AP 0.250  AP50 -  "
    )


# -- a terminal --------------------------------------------------------------------------------------------------------


def test_without_a_terminal_there_is_a_line_an_epoch(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with worker(run) as process:
        assert front_end() == "terminal"
        show_run(run)
        process.wait(60)
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "starter on cpu, batches of 4, 64 px, fp32, adamw at 0.001",
        "step 1/6  loss 1.000  lr 0.001  20.0 images/s  data wait 10%",
        EPOCH_1,
        EPOCH_2,
        "warning: odd <b>thing</b>",
    ]
    assert said.err == ""


CHOICES = {
    "batch_size": 4,
    "image_size": 64,
    "precision": "bf16",
    "optimizer": "adamw",
    "learning_rate": 0.001,
}


def test_a_larger_input_size_and_tiles_are_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    log = EventLog(run.path / "events.jsonl")
    own = {"image_size": "the detector's own: nine in ten boxes are 20 px or larger"}
    grown = {
        "image_size": "nine in ten boxes are 16 px or larger",
        "tiles": "tiles of 800 px make that 16 px",
    }
    for reasons, tiles in ((own, {}), (grown, {"size": 800, "overlap": 100, "whole": False})):
        log.write(
            "start",
            step=0,
            from_step=0,
            device="cpu",
            choices={**CHOICES, "reasons": reasons, "tiles": tiles},
        )
    log.close()
    show_terminal(run)
    first, second, *notes = capsys.readouterr().out.splitlines()
    assert ", 64 px, bf16" in first
    assert ", 64 px from tiles of 800 px, bf16" in second
    assert notes == [f"note: 64 px: {grown['image_size']}", f"note: tiles: {grown['tiles']}"]


def test_a_log_gets_a_line_every_half_minute(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten seconds a step, and a clock that is set back in the middle; what a resume starts with is said at once."""
    log = EventLog(run.path / "events.jsonl")
    start = {"steps_per_epoch": 50, "epochs": 2, "device": "cuda:0", "choices": CHOICES}
    log.write("start", time=0.0, step=0, from_step=0, **start)
    figures = {"learning_rate": 0.001, "device_memory": 2.5e9, "epoch": 1}
    for number in range(1, 10):
        wrong = number % 3 == 0  # a loss that is not finite
        log.write(
            "step",
            time=1000.0 + 10 * number - 500 * (number > 7),
            step=number,
            loss=None if wrong else float(number),
            images_per_second=10.0 if wrong else 40.0,
            data_wait=0.5 if wrong else 0.0,
            **figures,
        )
    log.write("start", time=600.0, step=9, from_step=9, resumed=True, **start)
    for number in (10, 11):
        more = {"loss": 1.0, "images_per_second": 40.0, "data_wait": 0.0}
        log.write("step", time=600.0 + number, step=number, **more, **figures)
    log.close()
    show_terminal(run)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(("starter", "resumed", "detector"))] == [
        "step   1/100  loss 1.000  lr 0.001  40.0 images/s  data wait 0%  GPU memory 2.50 GB",
        # steps 2 to 4: their loss without the one that was left out, their speed and waiting by time
        "step   4/100  loss 3.000  lr 0.001  20.0 images/s  data wait 33%  GPU memory 2.50 GB  16:00 left",
        "step   7/100  loss 6.000  lr 0.001  20.0 images/s  data wait 33%  GPU memory 2.50 GB  15:30 left",
        "step   8/100  loss 8.000  lr 0.001  40.0 images/s  data wait 0%  GPU memory 2.50 GB  13:09 left",
        "step  10/100  loss 1.000  lr 0.001  40.0 images/s  data wait 0%  GPU memory 2.50 GB",
    ]


@pytest.mark.parametrize(
    ("device", "wanted", "workers", "reason", "notes"),
    [
        ("cpu", -1, 3, "4 cores for 1 process(es)", []),
        ("cpu", 0, 0, "as set", []),
        ("cuda:0", -1, 1, "1 data workers in place of 7: /dev/shm", ["note: 1 data workers in place of 7"]),
        ("cuda:0", -1, 0, "0 data workers in place of 7: /dev/shm", ["note: 0 data", "warning: no data"]),
        ("cuda:0", 0, 0, "as set", ["warning: no data workers"]),
    ],
)
def test_reasons_reach_the_person(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    device: str,
    wanted: int,
    workers: int,
    reason: str,
    notes: list[str],
) -> None:
    log = EventLog(run.path / "events.jsonl")
    choices = {**CHOICES, "reasons": {"device": "because", "num_workers": reason}}
    settings = {"detector": "starter", "device": "auto", "num_workers": wanted}
    event = {"step": 0, "from_step": 0, "device": device, "choices": choices, "num_workers": workers}
    log.write("start", **event, settings=settings)
    show_terminal(run)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"starter on {device} (because), batches of 4, 64 px, bf16, adamw at 0.001"
    assert [line[: len(note)] for line, note in zip(rest, notes, strict=True)] == notes
    log.write("start", **event, settings={**settings, "device": device})  # and nobody chose it
    show_terminal(run)
    assert f"on {device}, batches" in capsys.readouterr().out.splitlines()[-1 - len(notes)]
    figures = {"images_per_second": 9.0, "data_wait": 0.0, "memory": 1e9, "grad_norm": 1.0}
    log.write("step", step=1, loss=1.0, learning_rate=0.1, **figures)
    log.close()
    board = Dashboard(run)
    board.follow()
    assert all(note in board.facts.value for note in notes)
    board.close()


def test_in_a_terminal_a_bar_counts_the_steps(run: Run) -> None:
    """In a real pseudo-terminal."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    code = "import sys, odkit; odkit.open_run(sys.argv[1]).wait()"
    ended(run)
    process = subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end was closed
            break
        if not part:
            break
        text += part
    os.close(ours)
    assert process.wait(60) == 0
    assert re.search(rb"epoch 2/2: 100%.*6/6.*loss=0.167, lr=0.001, images/s=20.0", text)
    assert EPOCH_2.encode() in text
    assert b"data wait" not in text


def test_interrupting_leaves_the_run_running(run: Run) -> None:
    with worker(run, "--wait") as process:
        code = "import sys, odkit; print(odkit.open_run(sys.argv[1]).wait().alive)"
        command = [sys.executable, "-u", "-c", code, str(run.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as looking:
            try:
                assert looking.stdout is not None
                assert any("epoch 2/2" in line for line in looking.stdout)
                looking.send_signal(signal.SIGINT)
                said = looking.communicate(timeout=60)[0]
            finally:
                looking.kill()
        assert looking.returncode == 0
        assert "one goes on in the background" in said
        assert f"odkit show {run.path}" in said
        assert said.endswith("True\n")
        run.stop()
        assert process.wait(60) == 0
    assert run.state == "stopped"


# -- a notebook that nobody watches ------------------------------------------------------------------------------------


@pytest.mark.notebook
def test_headless_notebook_keeps_a_figure_and_a_table(run: Run) -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell(f"import odkit as od\nrun = od.open_run({str(run.path)!r})\nrun.wait()"),
        nbformat.v4.new_code_cell("from odkit.runs.dashboard.show import front_end\nfront_end()"),
    ]
    with worker(run) as process:
        nbclient.NotebookClient(
            notebook, timeout=120, resources={"metadata": {"path": str(run.path)}}
        ).execute()
        process.wait(60)
    figure, table, result = notebook.cells[0].outputs
    assert set(figure.data) == {"image/png", "text/plain"}
    assert table.data["text/plain"].splitlines() == [EPOCH_1, EPOCH_2]
    assert "<table>" in table.data["text/html"]
    assert "finished" in result.data["text/plain"]
    assert notebook.cells[1].outputs[0].data["text/plain"] == "'notebook-headless'"
    assert "widgets" not in notebook.metadata


# -- widgets -----------------------------------------------------------------------------------------------------------


def test_dashboard_shows_what_there_is(run: Run) -> None:
    board = Dashboard(ended(run))
    assert "starting" in board.head.value
    board.follow()
    assert "epoch 2 of 2" in board.head.value
    assert "step 6 of 6" in board.head.value
    assert "best val AP 0.200 in epoch 2" in board.head.value
    for fact in ("0.001", "20.0", "10%", "1.00 GB", "none yet"):
        assert f"<b>{fact}</b>" in board.facts.value
    assert "GPU memory" not in board.facts.value
    assert "odd &lt;b&gt;thing&lt;/b&gt;" in board.facts.value
    assert "after epoch 2" in board.strip.value
    assert board.strip.value.count("<svg") == 2
    assert "red 0.50" in board.strip.value
    board.close()


@pytest.mark.parametrize(
    ("button", "wish"),
    [("Stop now", "now"), ("Finish this epoch", "epoch"), ("Save a checkpoint", "checkpoint")],
)
def test_buttons_leave_their_request(run: Run, button: str, wish: str) -> None:
    board = Dashboard(run)
    (found,) = [b for b in board.buttons.children if b.description == button]
    found.click()
    assert (run.path / "stop").read_text() == wish
    board.follow()  # of a run without a worker: one look
    assert "asked for" in board.head.value.lower()
    board.close()


# -- drawing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("high", "expected"),
    [
        (1.0, [0, 0.5, 1]),
        (4.0, [0, 1, 2, 3, 4]),
        (12.0, [0, 5, 10]),
        (0.9, [0, 0.5]),
        (0.0007, [0, 0.0002, 0.0004, 0.0006]),
        (800, [0, 200, 400, 600, 800]),
    ],
)
def test_ticks(high: float, expected: list[float]) -> None:
    assert ticks(high) == pytest.approx(expected)


def test_thinned_keeps_mean_and_ends() -> None:
    x = np.arange(10_000.0)
    y = x % 7
    y[5] = np.nan
    few_x, few_y = thinned(x, y, most=100)
    assert len(few_x) == len(few_y) == 100
    assert few_y.mean() == pytest.approx(np.nanmean(y), abs=0.01)
    assert few_x[0] < 100
    assert few_x[-1] > 9900
    assert [len(part) for part in thinned(x[:10], y[:10])] == [9, 9]


def test_smoothed() -> None:
    flat = np.full(50, 2.0)
    np.testing.assert_allclose(smoothed(flat), flat)
    np.testing.assert_allclose(smoothed(np.arange(50.0)), np.arange(50.0))  # a straight line stays one
    assert smoothed(np.array([])).shape == (0,)
    noise = np.random.default_rng(0).normal(size=400)
    assert smoothed(noise).std() < 0.3


@pytest.mark.parametrize("values", [[], [1.0], [math.nan], [3.0, 2.0, 1.0], [1e9, 1.0, 1.0], [0.0, 0.0]])
def test_chart_is_sound_svg(values: list[float]) -> None:
    x = np.arange(1.0, len(values) + 1)
    svg = ET.fromstring(
        chart("Loss <1>", [Series("loss", "#000", x, np.array(values))], max(1.0, len(values)))
    )
    width, height = (float(svg.attrib[key]) for key in ("width", "height"))
    for line in svg.iter("polyline"):
        for point in line.attrib["points"].split():
            px, py = map(float, point.split(","))
            assert 0 <= px <= width
            assert 0 <= py <= height


def test_one_value_is_no_curve() -> None:
    svg = chart("AP", [Series("AP", "#000", np.array([1.0]), np.array([0.391]), dots=True)], 1.0, top=1.0)
    assert "AP 0.391" in svg
    assert "<polyline" not in svg
    assert "<circle" not in svg


def test_pictures_are_upright_and_boxes_lie_on_them(tmp_path: Path) -> None:
    """The file lies on its side (EXIF orientation 6): the white square must stay top left."""
    pixels = np.zeros((80, 40, 3), np.uint8)  # upright: 40 wide, 80 high
    pixels[10:30, 5:25] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "a.png", exif=exif)
    dataset = Dataset(
        class_names=("white",),
        root=tmp_path,
        image_paths=[str(tmp_path / "a.png")],
        image_sizes=[[40, 80]],
        boxes=[[5, 10, 25, 30]],
        box_classes=[0],
        box_images=[0],
    )
    shown = {"row": 0, "boxes": [[5, 10, 25, 30]], "classes": [0], "scores": [0.75]}
    html = picture_with_boxes(dataset, shown, ("white <&>",))
    svg = ET.fromstring(html).find("svg")
    assert svg is not None
    assert (svg.attrib["width"], svg.attrib["height"]) == ("40", "80")
    truth, found = svg.iter("rect")
    for box in (truth, found):
        assert [float(box.attrib[key]) for key in ("x", "y", "width", "height")] == [5, 10, 20, 20]
    assert [text.text for text in svg.iter("text")] == ["white <&> 0.75"]


def test_a_picture_that_has_gone_leaves_the_boxes(run: Run) -> None:
    dataset = run.dataset("val")
    Path(dataset.image_paths[0]).unlink()
    html = picture_with_boxes(dataset, {"row": 0, "boxes": [], "classes": [], "scores": []}, run.class_names)
    assert html.count("<rect") == 2
