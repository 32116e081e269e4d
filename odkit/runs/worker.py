"""The worker process of a run: its command and the lock that it holds."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from odkit.system import LOCK_VARIABLE, OdkitError


class RunError(OdkitError, RuntimeError):
    """A run cannot do what was asked; the message says why and what to do."""


def worker_command(path: Path, processes: int) -> list[str]:
    """How a worker is started: one process, or torch's own launcher for several."""
    if processes == 1:
        return [sys.executable, "-m", "odkit", "worker", str(path)]
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    return [*launcher, "-m", "odkit", "worker", str(path)]


def hold_lock(path: Path, *, inherited_alone: bool = False) -> int | None:
    """The run's lock for this process: the one it was started with, else a new one (None if `inherited_alone`).

    Raises:
        RunError: Another worker holds it.
    """
    inherited = int(os.environ.get(LOCK_VARIABLE) or -1)
    with contextlib.suppress(OSError):  # no such handle, or no lock file yet
        if inherited >= 0 and os.path.samestat(os.fstat(inherited), os.stat(path / "worker.lock")):
            if inherited == 0:  # helpers that this process starts must not hold it by their stdin
                inherited = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
                nothing = os.open(os.devnull, os.O_RDONLY)
                os.dup2(nothing, 0)
                os.close(nothing)
            return inherited
    if inherited_alone:
        return None
    with writing(path):
        handle = own_lock(path)
    if handle is None:
        raise RunError(f"another worker is at {path}")
    return handle


CHILDREN: list[subprocess.Popen[bytes]] = []


def own_lock(path: Path) -> int | None:
    """The exclusive lock, or None where a worker holds it; who only looks holds it for an instant, so try again."""
    handle = os.open(path / "worker.lock", os.O_RDWR | os.O_CREAT, 0o644)
    for _ in range(20):
        if locked(handle, fcntl.LOCK_EX):
            return handle
        time.sleep(0.01)
    os.close(handle)
    return None


def locked(handle: int, kind: int) -> bool:
    """Whether the file could be locked at once; the lock is gone when the last copy of the handle is closed."""
    for child in CHILDREN:
        child.poll()  # a worker that ended is not left as a zombie
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise RunError(
            f"the file system of this run cannot lock files ({error.strerror}), and without a lock two workers could "
            "write one run: keep runs on another disk (--folder)"
        ) from error
    return True


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write in a run's folder into an error that says what can be done."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise RunError(
            f"{path} cannot be written ({error.strerror}): it can be looked at, but not trained, stopped or deleted "
            f"from here. Do that as its owner, or on a copy: cp -r {path} runs/"
        ) from error


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
