"""Who looks at this process, and the bars they are shown."""

import json
import os
import subprocess
import sys
import termios
import textwrap
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import nbformat
import pytest
from nbclient import NotebookClient

from odkit.system.frontend import FrontEnd, front_end, progress_bar


def test_no_front_end_outside_jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert front_end() is None
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    assert front_end() is None
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getpid()))  # as under nbval: a parent that is no server
    assert front_end() is None


def test_the_front_end_is_the_server_the_kernel_belongs_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.delenv("ODKIT_HEADLESS", raising=False)
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getpid()))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    info = {"base_url": "/user/ann/", "url": "http://127.0.0.1:9/user/ann/", "token": "secret"}
    (tmp_path / f"jpserver-{os.getpid()}.json").write_text(json.dumps(info))
    seen_from = front_end()
    assert seen_from is not None
    assert seen_from.path("fiftyone") == "/user/ann/fiftyone/"
    assert seen_from.serves("fiftyone"), "a server that cannot be asked may have it"
    monkeypatch.setenv("ODKIT_HEADLESS", "1")
    assert front_end() is None


def test_a_server_that_lacks_a_name_is_noticed(tmp_path: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    (tmp_path / "there").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        seen_from = FrontEnd(1, "/", f"http://127.0.0.1:{server.server_port}/", "secret")
        assert seen_from.serves("there")
        assert not seen_from.serves("fiftyone")
        server.shutdown()


def test_a_bar_in_a_log_file_is_invisible_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar(range(3), desc="counting")) == [0, 1, 2]
    with progress_bar(total=3, desc="counting") as bar:
        bar.update(3)
    assert capsys.readouterr() == ("", "")


def test_a_bar_in_a_terminal_is_gone_when_it_ends() -> None:
    terminal, its_other_end = os.openpty()
    termios.tcsetwinsize(its_other_end, (24, 80))
    os.set_blocking(terminal, False)
    code = "from odkit.system.frontend import progress_bar\nlist(progress_bar(range(3), desc='counting'))"
    subprocess.run([sys.executable, "-c", code], stderr=its_other_end, check=True)
    shown = os.read(terminal, 4096).decode()
    os.close(terminal)
    os.close(its_other_end)
    assert "counting" in shown
    assert shown.rsplit("\r", 2)[1].isspace(), "the line is wiped"


def only_output(code: str, folder: Path) -> str:
    """What a cell that nobody watches prints; an error if it leaves anything else."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute(cwd=str(folder))
    (output,) = notebook.cells[0].outputs
    return str(output["text"])


@pytest.mark.notebook
def test_a_notebook_that_nobody_watches_saves_no_bar(tmp_path: Path) -> None:
    code = (
        "from odkit.system.frontend import progress_bar\nprint(sum(progress_bar(range(3), desc='counting')))"
    )
    assert only_output(code, tmp_path) == "3\n"


@pytest.mark.notebook
def test_a_widget_bar_leaves_nothing_to_the_garbage_collector(tmp_path: Path) -> None:
    """An interrupt that arrives while a bar's finalizer runs would be lost."""
    code = """
    import gc, json, os, pathlib, weakref
    from odkit.system.frontend import front_end, progress_bar
    os.environ |= {"JPY_PARENT_PID": str(os.getpid()), "JUPYTER_RUNTIME_DIR": os.getcwd()}
    server = {"base_url": "/", "url": "http://127.0.0.1:9/", "token": ""}
    pathlib.Path(f"jpserver-{os.getpid()}.json").write_text(json.dumps(server))
    assert front_end() is not None
    gc.disable()
    bars = [progress_bar(total=3, desc="counting", delay=5), progress_bar(range(3), delay=5)]
    with bars[0]:
        bars[0].update(3)
    list(bars[1])
    left = [weakref.ref(bar) for bar in bars]
    bars.clear()
    print([one() for one in left])
    """
    assert only_output(textwrap.dedent(code), tmp_path) == "[None, None]\n"
