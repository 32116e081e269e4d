"""Put the executed notebooks into notebooks/ as they are committed: `make notebooks`.

A reader on the web is helped by tables and figures. What only lives in JupyterLab (widgets and their state, progress
bars), large pictures and the paths of the machine that ran them stay behind.
"""

import base64
import io
import re
import sys
from pathlib import Path

import nbformat
from app_pictures import picture_path, tagged
from nbformat import NotebookNode
from PIL import Image

PROJECT = Path(__file__).parents[1]
LARGE = 150_000  # characters of a picture in base64, beyond which JPEG stands in for PNG
PROGRESS = re.compile(r"^[^\n]*\d+%\|[^\n]*\|[^\n]*\[[^\n]*\]\s*$")


def tidied(notebook: NotebookNode) -> NotebookNode:
    """The notebook with what a reader needs."""
    language = {"name": "python"}
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": language})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_tidied_output, cell.outputs) if output is not None]
    return notebook


def with_pictures(notebook: NotebookNode, executed: Path) -> NotebookNode:
    """The notebook with a picture of the App, where app_pictures.py took one, in place of what such a cell said."""
    for k in tagged(notebook):
        taken = picture_path(executed, k)
        if taken.is_file():
            picture = base64.b64encode(taken.read_bytes()).decode()
            data = {"image/jpeg": picture, "text/plain": "FiftyOne's App"}
            notebook.cells[k].outputs = [nbformat.v4.new_output("display_data", data)]
    return notebook


def _tidied_output(output: NotebookNode) -> NotebookNode | None:
    if output.output_type == "stream":
        output.text = _no_paths(output.text)
        return None if output.name == "stderr" else output
    data = output.get("data", {})
    data.pop("application/vnd.jupyter.widget-view+json", None)
    if set(data) == {"text/plain"} and PROGRESS.match(data["text/plain"]):
        return None
    for kind, value in list(data.items()):
        if kind == "image/png" and len(value) > LARGE:
            data["image/jpeg"] = _as_jpeg(data.pop("image/png"))
        elif isinstance(value, str) and not kind.startswith("image/"):
            data[kind] = _no_paths(value)
    return output


def _as_jpeg(png: str) -> str:
    picture, file = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    picture.save(file, "JPEG", quality=85, optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _no_paths(text: str) -> str:
    return text.replace(f"{PROJECT}/", "").replace(str(Path.home()), "~")


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        place = PROJECT / "notebooks" / path.name
        notebook = nbformat.read(path, as_version=4)
        nbformat.write(with_pictures(tidied(notebook), path), place)
        print(f"{place.name}: {place.stat().st_size / 1000:.0f} kB")
