"""What every test stands on: a quiet, offline environment of its own, and where the real things are.

The environment is set here, before anything imports odkit, FiftyOne or Jupyter, and is inherited by the kernels and
workers that tests start. Nothing of the person's own (databases, caches, Jupyter settings) is read or written.
"""

import atexit
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def _new_home() -> Path:
    """A folder for this session, removed at its end; those that killed sessions left behind go after a day."""
    for left in Path(tempfile.gettempdir()).glob("odkit-tests-*"):
        if left.stat().st_mtime < time.time() - 86_400:
            shutil.rmtree(left, ignore_errors=True)
    home = Path(tempfile.mkdtemp(prefix="odkit-tests-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


# With pytest-xdist the controller makes the folder and its workers inherit it, each with a part of its own.
TEST_HOME = Path(os.environ.get("ODKIT_TEST_HOME") or _new_home())
OWN = TEST_HOME / os.environ.get("PYTEST_XDIST_WORKER", "main")

os.environ["ODKIT_TEST_HOME"] = str(TEST_HOME)
os.environ["ODKIT_CACHE"] = str(TEST_HOME / "cache")  # shared: the demo is drawn once a session
os.environ["XDG_DATA_HOME"] = str(OWN / "data")
os.environ["TORCH_HOME"] = str(OWN / "torch")
os.environ["IPYTHONDIR"] = str(OWN / "ipython")
os.environ["JUPYTER_CONFIG_DIR"] = str(OWN / "jupyter" / "config")
os.environ["JUPYTER_DATA_DIR"] = str(OWN / "jupyter" / "data")
os.environ["JUPYTER_RUNTIME_DIR"] = str(OWN / "jupyter" / "runtime")
os.environ["FIFTYONE_DATABASE_DIR"] = str(OWN / "fiftyone" / "database")
os.environ["FIFTYONE_DEFAULT_DATASET_DIR"] = str(OWN / "fiftyone" / "datasets")
os.environ["FIFTYONE_DO_NOT_TRACK"] = "1"
os.environ["MPLBACKEND"] = "Agg"
for variable in ("FIFTYONE_DATABASE_URI", "ODKIT_WEIGHTS_URL", "ODKIT_DATA", "ODKIT_WORK"):
    os.environ.pop(variable, None)

# torch and its kin share the cores between the test processes, kernels and training workers included.
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_THREADS = max(1, _CORES // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(min(_THREADS, 2))


@pytest.fixture(scope="session")
def bccd() -> Path:
    """The BCCD dataset: 364 photographs of blood cells, in Pascal VOC's format.

    It is looked for at ODKIT_BCCD, else beside the checkout; tests that want it are skipped where it is at neither.
    """
    if named := os.environ.get("ODKIT_BCCD"):
        assert Path(named, "Annotations").is_dir(), f"ODKIT_BCCD={named} has no Annotations folder"
        return Path(named)
    folder = PROJECT.parent / "shared" / "data" / "bccd"
    if not (folder / "Annotations").is_dir():
        pytest.skip("BCCD is not here: ODKIT_BCCD names its folder (the one with Annotations and JPEGImages)")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium to drive; without one, browser tests are skipped, or fail if ODKIT_REQUIRE_BROWSER is set."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("ODKIT_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found:
        return found
    reason = f"no Chromium: install one ({', '.join(names)}) or name it with ODKIT_CHROMIUM"
    if os.environ.get("ODKIT_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)
