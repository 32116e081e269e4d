"""Pictures of FiftyOne's App for the committed notebooks: `make notebooks`, after all notebooks were executed.

Executed without a browser, a cell that browses has a still picture. Here each notebook with cells tagged
`app-picture` runs once more in a real JupyterLab, and what the App shows right after such a cell ran is kept beside
the executed notebooks, where tidy_notebooks.py takes it from. Needs Chromium; without one the stills stay.
"""

import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from tests.browser.lab import (  # noqa: E402
    CHROMIUM_ARGUMENTS,
    Lab,
    chromium_path,
    open_notebook,
    start_lab,
    stop_lab,
    wait_for_app,
)

TAG = "app-picture"
WIDTH, LARGEST = 1000, 120_000  # pixels, bytes
PATIENCE = 900_000  # ms a cell: one that predicts over a data set takes minutes where there is no GPU
APP_PATIENCE = 180_000  # ms until the App shows what it has


def picture_path(notebook: Path, cell: int) -> Path:
    """Where the picture of a cell of an executed notebook is kept."""
    return notebook.parent / "app-pictures" / f"{notebook.stem}-{cell}.jpg"


def tagged(notebook: NotebookNode) -> list[int]:
    """Indices of the cells whose App is to be seen."""
    return [k for k, cell in enumerate(notebook.cells) if TAG in cell.metadata.get("tags", [])]


def in_few_cells(notebook: NotebookNode) -> tuple[list[str], list[int]]:
    """The sources up to the last tagged cell, all that stands between two of them as one; which of them are tagged.

    JupyterLab keeps only the cells near the visible ones in the page, so that a short notebook is easier to drive.
    """
    wanted = tagged(notebook)
    sources, pictured = [f"import os\nos.chdir({str(PROJECT / 'notebooks')!r})"], []
    between: list[str] = []
    for k, cell in enumerate(notebook.cells[: wanted[-1] + 1]):
        if cell.cell_type != "code":
            continue
        if k not in wanted:
            between.append(cell.source)
            continue
        # what these cells show is not looked at; an error is shown all the same
        sources.append("%%capture\n" + "\n\n".join(between or ["pass"]))
        pictured.append(len(sources))
        sources.append(cell.source)
        between = []
    return sources, pictured


def run_cell(page: Page, number: int) -> None:
    """Run a cell to its end.

    Raises:
        RuntimeError: It ended in an error.
    """
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(number)
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    cell.locator(".jp-InputPrompt").filter(has_text=f"[{number + 1}]:").wait_for(timeout=PATIENCE)
    error = cell.locator('[data-mime-type="application/vnd.jupyter.error"], [data-mime-type$="stderr"]')
    if error.count() and "Traceback" in error.first.inner_text():
        raise RuntimeError(f"cell {number} of a notebook failed:\n{error.first.inner_text()}")


def as_jpeg(png: bytes) -> bytes:
    """The picture, 1000 pixels wide, in no more bytes than a notebook should carry."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    for quality in range(85, 20, -10):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= LARGEST:
            break
    return file.getvalue()


def picture_of_app(page: Page) -> bytes:
    """The App, wherever it is shown in the notebook, as PNG."""
    element = page.locator(".jp-Notebook iframe").first
    element.wait_for()
    element.scroll_into_view_if_needed()
    frame = element.element_handle().content_frame()
    assert frame is not None
    page.mouse.move(0, 0)  # what it points at looks otherwise
    wait_for_app(frame)
    return element.screenshot()


@contextlib.contextmanager
def jupyterlab() -> Iterator[Lab]:
    """A JupyterLab with a database of its own: what a person did in FiftyOne is not in the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        lab = start_lab(Path(folder, "lab"), database=Path(folder, "database"))
        try:
            yield lab
        finally:
            stop_lab(lab)


def main(paths: list[Path]) -> None:
    """Take the pictures of these executed notebooks."""
    notebooks = {path: nbformat.read(path, as_version=4) for path in paths}
    notebooks = {path: notebook for path, notebook in notebooks.items() if tagged(notebook)}
    for path in notebooks:
        for old in path.parent.glob(f"app-pictures/{path.stem}-*.jpg"):
            old.unlink()
    program = chromium_path()
    if program is None or not notebooks:
        print(
            "No picture of the App is taken: " + ("no cell asks for one" if program else "no Chromium here")
        )
        return
    with jupyterlab() as lab, sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=program, args=CHROMIUM_ARGUMENTS)
        for path, notebook in notebooks.items():
            sources, pictured = in_few_cells(notebook)
            lab.write(path.name, *sources)
            page = chrome.new_page(viewport={"width": 1460, "height": 1000})
            page.set_default_timeout(APP_PATIENCE)
            open_notebook(page, lab, path.name)
            wanted = iter(tagged(notebook))
            for number in range(len(sources)):
                run_cell(page, number)
                if number not in pictured:
                    continue
                place = picture_path(path, next(wanted))
                try:
                    picture = as_jpeg(picture_of_app(page))
                except PlaywrightTimeout:
                    print(f"{place.stem}: the App did not come, the still stays")
                    continue
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(picture)
                print(f"{place}: {len(picture) / 1000:.0f} kB")
            page.close()
        chrome.close()


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
