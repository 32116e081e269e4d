"""What every test stands on: a quiet, offline environment of its own, an end, and where the real things are.

The environment is set here, before anything imports odkit, FiftyOne or Jupyter, and is inherited by the kernels and
workers that tests start. Nothing of the person's own (databases, caches, Jupyter settings) is read or written.
"""

import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
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
for variable in (
    "FIFTYONE_DATABASE_URI",
    "ODKIT_WEIGHTS_URL",
    "ODKIT_DATA",
    "ODKIT_WORK",
    "PYTHONDONTWRITEBYTECODE",  # hundreds of processes are started, and each would compile odkit anew
):
    os.environ.pop(variable, None)

# torch and its kin share the cores between the test processes, kernels and training workers included.
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_THREADS = max(1, _CORES // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(min(_THREADS, 2))

# A script's background job ignores SIGINT, and what nohup starts SIGHUP, and so would every process that it starts:
# with a handler in place of SIG_IGN this one stays as deaf, and those hear.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(_number, lambda number, frame: None)


# -- every test ends -------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Bound the clean-up too: pytest-timeout interrupts a test once, and what it does then could wait for ever.

    What the test started is killed a while after its time is up, which ends all that waits for it. Should that not
    help, pytest's faulthandler says where the session stands and ends it (pyproject.toml).
    """
    global _running
    marker = item.get_closest_marker("timeout")
    seconds = marker.args[0] if marker else item.config.getoption("timeout") or item.config.getini("timeout")
    killer = threading.Timer(float(seconds) + 20, kill_children)
    killer.daemon = True
    if not item.config.getoption("usepdb"):
        killer.start()
    # a notebook may start what it likes, and what runs in a container is no process of this test
    free = item.path.suffix != ".py" or item.get_closest_marker("image")
    _running = None if free else item
    try:
        return (yield)
    finally:
        _running = None
        killer.cancel()


def kill_children() -> None:
    for process in psutil.Process().children(recursive=True):
        process.kill()


# -- the tiers are what they say ---------------------------------------------------------------------------------------

# `make check` leaves out the tests with these marks; one that starts such a process without the mark fails anywhere.
STARTS = {
    "worker": ("odkit worker", "odkit train", "odkit resume", "torch.distributed.run"),
    "database": ("mongod", "odkit.browsing.services"),
    "browser": ("chrom", "playwright"),
    "notebook": ("ipykernel_launcher", "jupyter"),
}
_running: pytest.Item | None = None


def mark_needed(command: Sequence[Any] | str) -> str | None:
    """The mark of a test that starts this command; what a Python's inline code (-c) speaks of starts nothing yet."""
    words = [command] if isinstance(command, str | os.PathLike) else list(command)
    if "-c" in words:
        words = words[: words.index("-c")]
    line = " ".join(os.fsdecode(word).rpartition("/")[2] for word in words)
    return next((mark for mark, parts in STARTS.items() if any(part in line for part in parts)), None)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and _running is not None:
        mark = mark_needed(arguments[1])
        if mark and _running.get_closest_marker(mark) is None:
            pytest.fail(f"it starts {arguments[1]!r:.200}, so it needs @pytest.mark.{mark}")


sys.addaudithook(_watch)


# -- the long ones first -----------------------------------------------------------------------------------------------

_LONG = {"notebook", "browser", "slow", "worker", "database"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first, notebooks before all, so that no core waits at the end for one that began last.

    But for the notebooks that look at the best run: they come when there is one, and need not train their own.
    """
    long = {item.path for item in items if _LONG & {mark.name for mark in item.iter_markers()}}

    def place(item: pytest.Item) -> int:
        if item.path.suffix == ".ipynb":
            return 2 if item.path.name >= "04" else 0
        return 1 if item.path in long else 3

    items.sort(key=place)  # else as they were


# -- where the real things are -----------------------------------------------------------------------------------------


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
def cards() -> Path:
    """Photographs of playing cards in the layout of TensorFlow's tutorials: VOC's XML beside them, and CSV of the same.

    They are looked for at ODKIT_CARDS, else beside the checkout; tests that want them are skipped where they are not.
    """
    if named := os.environ.get("ODKIT_CARDS"):
        assert Path(named, "images").is_dir(), f"ODKIT_CARDS={named} has no images folder"
        return Path(named)
    folder = PROJECT.parent / "shared" / "data" / "cards"
    if not (folder / "images").is_dir():
        pytest.skip(
            "the cards are not here: ODKIT_CARDS names their folder (the one with images and training)"
        )
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium to drive; without one, browser tests are skipped, or fail if ODKIT_REQUIRE_BROWSER is set."""
    from tests.browser.lab import CHROMIUMS, chromium_path

    found = chromium_path()
    if found:
        return found
    reason = f"no Chromium: install one ({', '.join(CHROMIUMS)}) or name it with ODKIT_CHROMIUM"
    if os.environ.get("ODKIT_REQUIRE_BROWSER"):
        pytest.fail(reason)
    pytest.skip(reason)
