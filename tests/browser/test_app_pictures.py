"""Pictures of the App for the committed notebooks, as `make notebooks` takes them."""

import base64
import importlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.browser.lab import PROJECT
from tests.browser.test_panels_in_lab import MAKE

pytestmark = [pytest.mark.browser, pytest.mark.notebook]


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(PROJECT / "tools")
    return importlib.import_module("app_pictures"), importlib.import_module("tidy_notebooks")


def notebook(path: Path, *cells: tuple[str, list[str]]) -> Path:
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source, metadata={"tags": tags}) for source, tags in cells]
    )
    nbformat.write(made, path)
    return path


def test_a_tagged_cell_gets_a_picture_of_the_app(chromium: str, tools: Any, tmp_path: Path) -> None:
    _, tidy = tools
    make = MAKE.replace('Path("patches").absolute()', f"Path({str(tmp_path / 'patches')!r})")
    path = notebook(
        tmp_path / "browsing.ipynb",
        ("import odkit as od", []),
        (make, []),
        ("browser = od.browse(evaluation)\nbrowser", ["app-picture"]),
        ("browser.view = browser.dataset.limit(3)\nbrowser.view", []),
        ("browser.open_evaluation()", ["app-picture"]),
        ("raise SystemExit('is not run: nothing after it is wanted')", []),
    )
    # a process of its own: Playwright runs once in a process, and the other tests have it here
    command = [sys.executable, str(PROJECT / "tools" / "app_pictures.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" kB") == 2, done.stdout
    read = nbformat.read(path, as_version=4)
    shown = tidy.with_pictures(tidy.tidied(read), path)
    pictures = []
    for k in (2, 4):
        (output,) = shown.cells[k].outputs
        jpeg = base64.b64decode(output.data["image/jpeg"])
        assert len(jpeg) < 120_000
        pictures.append(np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"), float))
        assert pictures[-1].shape[1] == 1000
    assert all(shown.cells[k].outputs == [] for k in (0, 1, 3, 5))
    red = [((one[..., 0] > 170) & (one[..., 1:] < 90).all(-1)).mean() for one in pictures]
    assert red[0] > 0.02, "the red squares of the first picture: its grid"
    assert red[1] < red[0] / 4, "and the second one is of figures"


def test_without_chromium_or_a_tag_the_stills_stay(
    tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app_pictures, tidy = tools
    monkeypatch.delenv("ODKIT_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    path = notebook(tmp_path / "some.ipynb", ("1 + 1", ["app-picture"]))
    app_pictures.main([path])
    assert "no Chromium here" in capsys.readouterr().out
    read = nbformat.read(path, as_version=4)
    read.cells[0].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "2"})]
    assert tidy.with_pictures(tidy.tidied(read), path).cells[0].outputs[0].data["text/plain"] == "2"
    monkeypatch.setenv("ODKIT_CHROMIUM", "/a/chromium")
    app_pictures.main([notebook(tmp_path / "none.ipynb", ("1 + 1", []))])
    assert "no cell asks for one" in capsys.readouterr().out
