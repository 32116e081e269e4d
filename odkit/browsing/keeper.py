"""A helper process that several processes share: started once, ended when the last of its owners is gone.

A small keeper process (`python -m odkit.browsing.keeper`) stands between: it starts the helper, notes its port in
a file and watches its owners. Files in the state folder, by the helper's name: `.json` its port, while it runs;
`.owners/` a
file for each process it runs for; `.child` its process; `.log` what it printed; `.start` and `.lock` are locks.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from odkit.system import InputError, package_path

LOOPBACK = "127.0.0.1"
START_SECONDS = 90.0  # an App server takes 5 s on an idle machine; a busy one must not fail for that
GRACE_SECONDS = 5.0  # how long a helper outlives its last owner, so that the next script finds it running
HELD = "held by another process"


class HelperError(RuntimeError):
    """A helper did not start; `command` is what was run and `log` what it said."""

    def __init__(self, command: Sequence[str], log: str) -> None:
        super().__init__(f"{command[0]} did not start: {log[-2000:]}")
        self.command, self.log = command, log


def ensure(
    name: str,
    state: Path,
    command: Callable[[int], list[str]],
    *,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    logs: Sequence[Path] = (),
) -> int:
    """The port of the named helper, started under a keeper of its own unless it runs; this owner is noted.

    Args:
        name: Name of the helper in the state folder.
        state: The state folder, made where there is none.
        command: What starts the helper on a given port.
        port: The port it must have; by default a free one.
        environment: Variables it needs beside this process's own.
        logs: Files it writes its log to, beside what it prints.

    Raises:
        HelperError: It did not start.
        ValueError: It runs on another port already.
    """
    (state / f"{name}.owners").mkdir(parents=True, exist_ok=True)
    with _locked(state / f"{name}.start"):
        _add_owner(state / f"{name}.owners")
        running = _running(state / f"{name}.json")
        if running:
            if port and running != port:
                raise InputError(
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
                [sys.executable, "-m", "odkit.browsing.keeper", str(state), name, str(chosen), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # interrupting or restarting the kernel must not reach it
                env={**os.environ, "PYTHONPATH": package_path(), **(environment or {})},
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
        raise HelperError(arguments, text)


# Held so that Python neither warns of a process left running nor leaves a zombie behind when it ends.
_keepers: "list[subprocess.Popen[bytes]]" = []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


def _running(note: Path) -> int | None:
    """The port a keeper noted, if that keeper lives and its helper listens."""
    try:
        noted = json.loads(note.read_text("utf-8"))
        if _alive(noted["keeper"], noted["keeper_started"]) and listens(noted["port"]):
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
            raise RuntimeError(f"{path} is {HELD}") from None
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
            while child.poll() is None and not listens(port):
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


if __name__ == "__main__":
    sys.exit(_keep(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
