"""A real JupyterLab with a token, and a person's hands on it: open, Run All, run a cell."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import Frame, Page, expect

PROJECT = Path(__file__).resolve().parents[2]
CHROMIUM_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SETTINGS = ("--ServerApp.open_browser=False", "--ServerApp.ip=127.0.0.1")


def chromium_path() -> str | None:
    """A Chromium to drive: ODKIT_CHROMIUM, or one of these names."""
    return os.environ.get("ODKIT_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)


@dataclass
class Lab:
    """A running JupyterLab."""

    folder: Path  # what it serves
    url: str  # ends with its base URL
    token: str
    database: Path  # the folder of FiftyOne's database
    process: "subprocess.Popen[bytes]"

    def get(self, path: str, *, token: bool, data: bytes | None = None) -> tuple[int, str]:
        """Status and text of an answer, redirects not followed; POST where there is data."""
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"token {self.token}"
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        try:
            with urllib.request.build_opener(_Stay).open(request, timeout=60) as answer:
                return answer.status, answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode("utf-8", "replace")

    def write(self, name: str, *cells: str) -> None:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, self.folder / name)

    def has_idle_kernel(self, name: str) -> bool:
        sessions = json.loads(self.get("api/sessions", token=True)[1])
        return any(
            s["path"] == name and s["kernel"]["execution_state"] == "idle" and s["kernel"]["connections"]
            for s in sessions
        )

    def stop_kernels(self) -> None:
        """JupyterLab keeps a kernel per notebook path: without this a test would run in the last one's."""
        for session in json.loads(self.get("api/sessions", token=True)[1]):
            request = urllib.request.Request(f"{self.url}api/sessions/{session['id']}", method="DELETE")
            request.add_header("Authorization", f"token {self.token}")
            urllib.request.urlopen(request, timeout=60).close()


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args, **kwargs):  # a login page is an answer of its own
        return None


def start_lab(
    folder: Path, base_url: str = "/", *, application: Path | None = None, database: Path | None = None
) -> Lab:
    """A JupyterLab that serves a folder.

    Args:
        folder: What it serves.
        base_url: Where.
        application: Its own folder of settings, and then a new person's settings.
        database: FiftyOne's database; default: where FIFTYONE_DATABASE_DIR says.
    """
    database = database or Path(os.environ["FIFTYONE_DATABASE_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    settings = folder.with_name(f"{folder.name}-settings")
    notification = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    notification.parent.mkdir(parents=True, exist_ok=True)
    if application is None:
        notification.write_text('{"fetchNews": "false"}')  # else it asks over the page whether to fetch news
    python_path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    # earlier tests of this process may have connected to a database of their own
    environment = {key: value for key, value in os.environ.items() if key != "FIFTYONE_DATABASE_URI"}
    environment["FIFTYONE_DATABASE_DIR"] = str(database)
    log = (folder / "lab.log").open("ab")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyter", "lab", "--allow-root", *SETTINGS, f"--ServerApp.port={port}"),
            *(f"--IdentityProvider.token={token}", f"--ServerApp.base_url={base_url}"),
            f"--ServerApp.root_dir={folder}",
            *(() if application is None else (f"--app-dir={application}",)),
        ],
        env={**environment, "PYTHONPATH": python_path, "JUPYTERLAB_SETTINGS_DIR": str(settings)},
        cwd=folder,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    log.close()
    lab = Lab(
        folder,
        f"http://127.0.0.1:{port}{base_url}",
        token,
        database,
        process,
    )
    for _ in range(2400):
        try:
            if lab.get("api", token=True)[0] == 200:
                return lab
        except OSError:
            assert process.poll() is None, (folder / "lab.log").read_text()
        time.sleep(0.1)
    process.kill()
    raise AssertionError((folder / "lab.log").read_text())


def stop_lab(lab: Lab) -> None:
    lab.process.terminate()
    lab.process.wait(60)


def open_notebook(page: Page, lab: Lab, name: str) -> None:
    page.goto(f"{lab.url}lab/tree/{name}?token={lab.token}&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    while not lab.has_idle_kernel(name):
        page.wait_for_timeout(100)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()


def run_all(page: Page) -> None:
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def run_cell(page: Page, number: int) -> None:
    page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")


def output(page: Page, number: int, text: str) -> str:
    """Wait until a cell's output holds a text, and return the whole output."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator(".jp-OutputArea-output")
    cell.filter(has_text=text).first.wait_for()
    return "\n".join(cell.all_inner_texts())


def ask(page: Page, number: int, text: str) -> str:
    """Run a cell again until its whole output holds a text; what is done in the App takes a moment to arrive."""
    deadline = time.monotonic() + 60
    prompt = page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator(".jp-InputPrompt")
    while time.monotonic() < deadline:
        run_cell(page, number)
        page.wait_for_timeout(1000)
        expect(prompt).not_to_have_text("[*]:")
        said = "\n".join(outputs(page, number))
        if text in said:
            return said
    raise AssertionError(f"{text!r} is not in the output of cell {number}: {said}")


def outputs(page: Page, number: int) -> list[str]:
    """The texts of a cell's outputs."""
    return (
        page.locator(".jp-Notebook .jp-CodeCell")
        .nth(number)
        .locator(".jp-OutputArea-output")
        .all_inner_texts()
    )


def shot(page: Page, name: str) -> None:
    """Keep a picture of the page, if ODKIT_SCREENSHOTS names a folder for them."""
    if folder := os.environ.get("ODKIT_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"))


def app_frame(page: Page, number: int = 0) -> Frame:
    """FiftyOne's App in a cell, once its grid shows images."""
    element = page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator("iframe")
    element.wait_for()
    element.scroll_into_view_if_needed()
    frame = element.element_handle().content_frame()
    assert frame is not None
    wait_for_grid(frame)
    return frame


def wait_for_grid(app: Frame | Page) -> None:
    app.locator('[data-cy="looker"] canvas[canvas-loaded="true"]').first.wait_for()


def wait_for_app(app: Frame) -> None:
    """Wait until what the App is laid out with is there: its images, its evaluation, its map; open the map's run."""
    grid = app.locator('[data-cy="looker"] canvas[canvas-loaded="true"]').first
    figures = app.get_by_text("Summary", exact=True).first
    grid.or_(figures).first.wait_for()
    if app.get_by_text("Embeddings", exact=True).count():
        open_map(app)
    app.page.wait_for_timeout(3000)  # pictures are drawn one by one, and nothing says that the last one is


def open_map(app: Frame) -> None:
    """Press the one map in the panel of maps, and wait for its points."""
    points = app.get_by_text(re.compile(r"\d+ points")).first
    listed = app.locator(".emb-runs-stack").get_by_text("map", exact=True)
    points.or_(listed).first.wait_for()
    if listed.count():
        listed.click()
    points.wait_for()
