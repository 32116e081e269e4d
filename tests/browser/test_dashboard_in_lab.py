"""The dashboard of a training run inside JupyterLab, looked at and used through Chromium."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Locator, Page

from odkit.runs.run import Run
from odkit.runs.worker import RunError
from tests.browser.lab import Lab, open_notebook, output, run_all, run_cell, shot

pytestmark = [pytest.mark.browser, pytest.mark.notebook]

# one thread and small images: a step must take moments on a busy machine, too
DATA = "%env OMP_NUM_THREADS=1\nimport odkit as od\ndataset = od.demo_dataset(24, folder='parts')\ndataset"
TRAIN = (
    "run = od.fine_tune(dataset, name={!r}, weights='random', epochs=900, "
    "image_size=64, batch_size=4, num_workers=0)"
)
PATIENCE = 120_000  # ms: starting a worker and a few steps beside other tests
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(autouse=True)
def tidy(lab: Lab) -> Iterator[None]:
    yield
    for config in lab.folder.glob("runs/*/config.json"):
        Run(config.parent).stop()
    lab.stop_kernels()


def board(page: Page, number: int) -> Locator:
    """The dashboard in a cell, once steps are counted in it."""
    found = page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator(".odkit-dashboard")
    found.get_by_text(re.compile(r"step \d+ of \d+, .* left")).wait_for(timeout=PATIENCE)
    return found


def wait_until(page: Page, ready: Callable[[], bool], what: str) -> None:
    for _ in range(PATIENCE // 50):
        if ready():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came: {what}")


def events(run: Run, kind: str) -> list[dict]:
    return [event for event in run.events() if event["event"] == kind]


def idle(page: Page) -> None:
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")


def saved_outputs(page: Page, path: Path, number: int) -> list[dict]:
    """A cell's outputs as they stand in the file, after Ctrl+S."""
    before = path.read_bytes()

    def whole() -> bool:
        text = path.read_bytes()
        return text != before and text.endswith(b"}\n")  # not while it is being written

    page.keyboard.press("Control+s")
    wait_until(page, whole, "the saved notebook")
    return json.loads(path.read_text())["cells"][number]["outputs"]


def test_buttons_reach_the_worker_while_the_cell_waits(lab: Lab, page: Page) -> None:
    lab.write("train.ipynb", DATA, TRAIN.format("one"), "run.state")
    open_notebook(page, lab, "train.ipynb")
    run_all(page)
    shown = board(page, 1)
    run = Run(lab.folder / "runs" / "one")
    for name in (
        "Training loss",
        "Validation AP",
        "learning rate",
        "images/s",
        "data wait",
        "memory",
        "Validation images",
    ):
        shown.get_by_text(name).first.wait_for()
    assert shown.locator("svg image").count() == 4, "held-out images with what is found in them"
    wait_until(page, lambda: len(run.history()) >= 3, "three epochs")
    shot(page, "dashboard")

    before = len(events(run, "checkpoint"))
    shown.get_by_role("button", name="Save a checkpoint").click()
    asked = time.time()
    wait_until(page, lambda: len(events(run, "checkpoint")) > before, "the checkpoint")
    assert run.alive

    shown.get_by_role("button", name="Stop now").click()
    asked = time.time()
    assert "'stopped'" in output(page, 2, "stopped")
    idle(page)
    steps = events(run, "step")
    assert run.state == "stopped"
    assert run.checkpoints()[-1].name == f"step-{steps[-1]['step']:08d}.pt"
    assert sum(step["time"] > asked + 2 for step in steps) <= 1, "saved within 2 s and a step"
    shot(page, "stopped")

    # what stays is a figure and a table, and nothing that needs a kernel
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(1)
    assert cell.locator(".jupyter-widgets").count() == 0
    cell.locator(".jp-RenderedImage img").wait_for()
    kept = saved_outputs(page, lab.folder / "train.ipynb", 1)
    kinds = {kind for one in kept for kind in one.get("data", {})}
    assert "image/png" in kinds
    assert WIDGET not in kinds
    assert "odkit resume" in output(page, 1, "goes on")


def test_a_new_kernel_shows_everything_from_step_0(lab: Lab, page: Page) -> None:
    lab.write("first.ipynb", DATA, TRAIN.format("two"))
    open_notebook(page, lab, "first.ipynb")
    run_all(page)
    board(page, 1)
    run = Run(lab.folder / "runs" / "two")
    wait_until(page, lambda: len(run.history()) >= 2, "two epochs")
    page.goto("about:blank")
    kernels = [
        p for p in psutil.Process(lab.process.pid).children() if "ipykernel_launcher" in " ".join(p.cmdline())
    ]
    assert kernels
    for kernel in kernels:
        kernel.kill()
    lab.stop_kernels()
    count = len(events(run, "step"))
    wait_until(page, lambda: len(events(run, "step")) > count + 3, "steps without kernel and page")

    lab.write("second.ipynb", "import odkit as od\nrun = od.open_run('two')\nrun.wait()")
    open_notebook(page, lab, "second.ipynb")
    run_all(page)
    shown = board(page, 0)
    wait_until(page, lambda: shown.locator("polyline").count() >= 3, "the curves")
    loss = shown.locator("svg").first
    points = loss.locator("polyline").first.get_attribute("points")
    assert points is not None
    assert len(points.split()) > count, "every step, those before this kernel was there among them"
    assert points.split()[-1].startswith("458.0,"), (
        "the curve ends at the right end, so it begins at the left one"
    )
    shown.get_by_text("Validation images").wait_for()
    shot(page, "attached")

    shown.get_by_role("button", name="Finish this epoch").click()
    page.locator(".jp-RenderedImage img").wait_for()
    idle(page)
    assert run.state == "stopped"
    steps, rows = events(run, "step"), run.history()
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert rows[-1]["step"] == steps[-1]["step"], "the epoch was finished"
    assert rows[-1]["ap"] is not None
    assert page.locator("table").get_by_text(str(len(rows)), exact=True).count() >= 1
    shot(page, "ended")


def test_a_reloaded_page_shows_the_run_again(lab: Lab, page: Page) -> None:
    lab.write("reload.ipynb", DATA, TRAIN.format("four"), "od.open_run('four').wait()")
    open_notebook(page, lab, "reload.ipynb")
    run_cell(page, 0)
    run_cell(page, 1)
    board(page, 1)
    run = Run(lab.folder / "runs" / "four")
    page.reload()
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(2).locator(".cm-content")
    cell.wait_for()
    assert page.locator(".odkit-dashboard").count() == 0, (
        "JupyterLab has saved nothing of it, and the kernel waits"
    )
    indicator = page.locator(".jp-Notebook-ExecutionIndicator").first

    def interrupted() -> bool:
        page.keyboard.press("i")
        page.keyboard.press("i")
        page.wait_for_timeout(5000)  # else the second time might meet the next cell
        return indicator.get_attribute("data-status") == "idle"

    cell.click()
    page.keyboard.press("Escape")
    wait_until(page, interrupted, "the kernel, to which the page must first find back")
    count = len(events(run, "step"))
    run_cell(page, 2)
    shown = board(page, 2)
    loss = shown.locator("svg").first.locator("polyline").first
    wait_until(
        page, lambda: len((loss.get_attribute("points") or "").split()) > count, "all steps and one more"
    )
    shot(page, "reloaded")
    shown.get_by_role("button", name="Stop now").click()
    wait_until(page, lambda: run.state == "stopped", "the end")
    steps = events(run, "step")
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1)), "it never noticed"


def test_interrupting_the_kernel_ends_the_watching_alone(lab: Lab, page: Page) -> None:
    lab.write("interrupt.ipynb", DATA, TRAIN.format("three"), "print('alive', run.alive)", "run.stop()")
    open_notebook(page, lab, "interrupt.ipynb")
    run_cell(page, 0)
    run_cell(page, 1)
    board(page, 1)
    page.keyboard.press("Escape")  # command mode, where i, i interrupts the kernel
    page.keyboard.press("i")
    page.keyboard.press("i")
    text = output(page, 1, "Not watching any more")
    assert "od.open_run(" in text
    assert "KeyboardInterrupt" not in text
    idle(page)
    assert page.locator(".jupyter-widgets").count() == 0
    shot(page, "interrupted")
    run_cell(page, 2)
    output(page, 2, "alive True")
    run_cell(page, 3)
    output(page, 3, "stopped")
    with pytest.raises(RunError, match="not a run folder"):
        Run(lab.folder)
