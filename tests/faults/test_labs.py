"""Two JupyterLabs on one folder, whose parts are killed one after another: the rest works, and nothing is lost."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from odkit.browsing import services
from odkit.runs.run import Run
from tests.browser.lab import Lab, start_lab, stop_lab
from tests.helpers import until
from tests.kernels import run_code, start_kernel

BROWSE = """
import odkit as od
browser = od.browse(od.demo_dataset(8, folder="parts"))
seen = lambda: browser.dataset.match_tags("seen").count()
print(seen(), "seen")
"""
TAG = """
browser.dataset.limit(2).tag_samples("seen")
import time; time.sleep(0.5)  # the database's journal is written every 0.1 s
"""
TRAIN = """
od.fine_tune(browser.before, name="one", wait=False, weights="random", epochs=900, image_size=64, batch_size=4,
             num_workers=0)
"""


class Kernel:
    """A kernel of a JupyterLab, as a notebook has one."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.id = start_kernel(lab.url, lab.token)

    def run(self, code: str) -> str:
        """What it printed."""
        return run_code(self.lab.url, self.lab.token, self.id, code, seconds=240).strip()

    def process(self) -> psutil.Process:
        return psutil.Process(int(self.run("import os; print(os.getpid())")))


@pytest.fixture
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Lab, Lab]]:
    """Two JupyterLabs of one folder and one database."""
    monkeypatch.setenv("FIFTYONE_DATABASE_DIR", str(tmp_path / "database"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with contextlib.ExitStack() as stack:
        both = []
        for base_url in ("/", "/second/"):
            both.append(start_lab(tmp_path / "work", base_url))
            stack.callback(stop_lab, both[-1])
        yield both[0], both[1]
        for config in (tmp_path / "work").glob("runs/*/config.json"):
            Run(config.parent).stop()


def killed(process: psutil.Process) -> None:
    process.kill()
    psutil.wait_procs([process], 30)


def app_of(lab: Lab) -> psutil.Process:
    words = [str(services.app_socket(lab.process.pid)), str(lab.process.pid)]
    (found,) = (p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-2:] == words)
    return found


def shows(lab: Lab) -> bool:
    """Whether the App answers through this JupyterLab, with the datasets of its database."""
    query = json.dumps({"query": '{ datasets(search: "", first: 9) { edges { node { name } } } }'}).encode()
    status, text = lab.get("fiftyone/graphql", token=True, data=query)
    return status == 200 and '"name"' in text


@pytest.mark.notebook
@pytest.mark.database
@pytest.mark.worker
def test_two_labs_of_one_folder_lose_their_parts_one_after_another(labs: tuple[Lab, Lab]) -> None:
    first, second = labs
    mine, other = Kernel(first), Kernel(second)
    assert mine.run(BROWSE).endswith("0 seen")
    mine.run(TAG)
    assert other.run(BROWSE).endswith("2 seen"), "both look at the same database"
    assert shows(first)
    assert shows(second)

    # the database
    mongod = psutil.Process(int((first.database / "mongod.lock").read_text()))
    keeper = mongod.parent()
    killed(mongod)
    assert mine.run("print(seen())") == "2"
    assert shows(first)
    assert shows(second), "the App goes on by itself"
    mongod = psutil.Process(int((first.database / "mongod.lock").read_text()))
    killed(keeper)
    killed(mongod)
    assert other.run("print(seen())") == "2"
    assert mine.run("print(len(browser.edits()))") == "8"
    assert shows(first)

    # the App of the one
    killed(app_of(first))
    assert not shows(first)
    assert shows(second)
    assert mine.run(BROWSE).endswith("2 seen"), "the cell is run again"
    assert shows(first)

    # its kernel, from which a run was started
    mine.run(TRAIN)
    run = Run(first.folder / "runs" / "one")
    until(run.history)
    killed(mine.process())
    until(lambda: "idle" in first.get(f"api/kernels/{mine.id}", token=True)[1])
    assert mine.run(f"{BROWSE}print(od.open_run('one').state)").endswith("2 seen\nrunning")

    # the one JupyterLab as a whole
    app, kernel = app_of(first), mine.process()
    killed(psutil.Process(first.process.pid))
    _, left = psutil.wait_procs([app, kernel], 30)
    assert not left, "its App and its kernels end with it"
    epochs = len(run.history())
    assert shows(second)
    assert other.run("print(seen())") == "2"
    until(lambda: len(run.history()) > epochs)
    assert other.run("print(od.open_run('one').stop().state)") == "stopped"
