"""A JupyterLab with odkit's settings, its App open, and a list of all that it serves."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.browser.lab import PROJECT, Lab, start_lab, stop_lab
from tests.helpers import until
from tests.kernels import run_code, start_kernel

ETC = PROJECT / "odkit" / "system" / "etc"
ROUTES = """
import json
from pathlib import Path

def _jupyter_server_extension_points():
    return [{"module": "routes"}]

def _load_jupyter_server_extension(app):
    def found(router):
        for rule in router.rules:
            inner = rule.target if hasattr(rule.target, "rules") else getattr(rule.target, "default_router", None)
            if inner is not None:
                yield from found(inner)
            elif hasattr(rule.matcher, "regex"):
                yield rule.matcher.regex.pattern, hasattr(rule.target, "on_message")

    def tell():
        part = Path(app.root_dir, "routes.part")
        part.write_text(json.dumps(list(found(app.web_app.default_router))))
        part.rename(Path(app.root_dir, "routes.json"))

    app.io_loop.call_later(0, tell)
"""


@dataclass
class Opened:
    """A JupyterLab whose kernel has FiftyOne's App open."""

    lab: Lab
    kernel: str
    picture: str  # one that the App shows
    routes: list[
        tuple[str, bool]
    ]  # every path it serves, a regular expression, and whether it is a WebSocket


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """JupyterLab with odkit's own settings, whatever is installed, and the App open in a kernel."""
    folder = tmp_path_factory.mktemp("secure")
    settings = folder / "etc"
    (settings / "jupyter_server_config.d").mkdir(parents=True)
    shutil.copy(ETC / "jupyter_server_config.py", settings)
    shutil.copy(ETC / "odkit.json", settings / "jupyter_server_config.d")
    (settings / "routes.py").write_text(ROUTES)
    listed = {"ServerApp": {"jpserver_extensions": {"routes": True}}}
    (settings / "jupyter_server_config.d" / "routes.json").write_text(json.dumps(listed))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JUPYTER_CONFIG_PATH", str(settings))
        environment.setenv("PYTHONPATH", str(settings))
        lab = start_lab(folder / "work")
    try:
        until((lab.folder / "routes.json").exists)
        kernel = start_kernel(lab.url, lab.token)
        said = run_code(
            lab.url,
            lab.token,
            kernel,
            "import odkit as od; browser = od.browse(od.demo_dataset()); print(browser.dataset.first().filepath)",
        )
        routes = [
            (path, bool(socket)) for path, socket in json.loads((lab.folder / "routes.json").read_text())
        ]
        yield Opened(lab, kernel, said.split()[-1], routes)
    finally:
        stop_lab(lab)
