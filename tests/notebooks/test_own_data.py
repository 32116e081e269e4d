"""Every notebook on odd data of a person's own: top to bottom, without a traceback, and with sentences that fit."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.notebooks.odd_data import ODD_SETS

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
pytestmark = [pytest.mark.notebook, pytest.mark.worker, pytest.mark.database]

# In this order: 04 and 06 look at the best run of those before them. 01 takes no data.
TAKES_DATA: dict[str, Mapping[str, object]] = {
    "00_start_here": {"EPOCHS": 1},
    "02_browse_dataset": {},
    "03_fine_tune": {"EPOCHS": 1},
    "04_visualize_predictions": {},
    "05_label_more": {"EPOCHS": 1},
    "06_export_and_use": {},
}
EXPORTS = "no_labels_in_val"  # the one set that 06 is run on: it measures for half a minute whatever the data
ALONE = "grey_pngs"  # the one set whose 04 finds no run and trains one
COMPARES = "twelve_pictures"  # the one set that is trained on from random weights too
SAYS = {
    "one_class": ["10 pictures to train on are few"],
    "twelve_pictures": [
        "pictures to train on are few",
        "No test pictures are set aside",
        "no labelled test pictures",
    ],
    "no_labels_in_val": ["No picture of the split 'val' has a box", "0 labels put right"],
    "sixty_classes": ["60 classes"],
    "boxes_of_5_pixels": ["have sides of 5 pixels or less"],
    "grey_pngs": ["10 pictures to train on are few"],
    "tensorflow_tutorial": ["splits: train 9, val 3, test 4", "9 pictures to train on are few"],
}


def with_parameters(notebook: NotebookNode, values: Mapping[str, object]) -> NotebookNode:
    """The notebook with a cell behind the one tagged `parameters` that sets them, as papermill does it."""
    (place,) = [k for k, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    for name in values:
        assert re.search(rf"^{name} = ", notebook.cells[place].source, re.MULTILINE), f"no parameter {name}"
    lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines))
    return notebook


def run_notebook(name: str, kernel: KernelManager, values: Mapping[str, object], kept: Path) -> str:
    """Run a notebook in a kernel whose names are forgotten first, and give all that it said."""
    notebook = with_parameters(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4), values)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    client = NotebookClient(notebook, km=kernel, timeout=300)
    try:
        client.execute()
    finally:
        nbformat.write(notebook, kept / f"{name}.ipynb")  # for whoever looks why a test failed
        if client.kc is not None:
            client.kc.stop_channels()
    said = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            assert output.get("name") != "stderr", f"{name} says beside its outputs: {text}"
            said.append(text)
            if figure := output.get("data", {}).get("image/png"):
                assert len(figure) > 1000
    return "\n".join(said)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[KernelManager]:
    """One kernel for all notebooks of a set: importing torch and FiftyOne takes longer than most cells."""
    Path(os.environ["IPYTHONDIR"]).mkdir(parents=True, exist_ok=True)
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(NOTEBOOKS))
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ODD_SETS)
def test_the_notebooks_run_on_odd_data(kind: str, tmp_path: Path, kernel: KernelManager) -> None:
    folder = ODD_SETS[kind](tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    said = ""
    for name, parameters in TAKES_DATA.items():
        if name == "06_export_and_use" and kind != EXPORTS:
            continue
        own: dict[str, object] = {"DATA": str(folder), **parameters}
        if name != "02_browse_dataset":
            own["RUNS"] = str(tmp_path / "runs")
        if name == "04_visualize_predictions" and kind == ALONE:
            own["RUNS"] = str(tmp_path / "alone")
        if name == "03_fine_tune":
            own["COMPARE"] = kind == COMPARES
        said += run_notebook(name, kernel, own, tmp_path)
    for sentence in SAYS[kind]:
        assert sentence in said
    assert not re.search(r"\bnan\b|\binf\b", said), "a number that is none"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    runs = sorted(path.parent.name for path in (tmp_path / "runs").glob("*/config.json"))
    assert len(runs) == 4 + (kind == COMPARES), "00's, 03's and 05's two; 04 and 06 take one of them"
    assert (tmp_path / "alone").exists() == (kind == ALONE)
