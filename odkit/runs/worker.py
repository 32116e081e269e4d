"""The worker process of a run: how it is started, and the lock that it holds while it lives.

The lock is a file lock (flock) on `worker.lock` in the run's folder. A worker is handed the locked file by whoever
starts it, so there is no moment without an owner; the system lets go of it when the last process that has it ends,
however it ends.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import orjson

from odkit.system import LOCK_VARIABLE, InputError, OdkitError, machine, package_path, read_file

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What asks a worker to finish its step, save and end, like a request in its folder."""

RESTARTS = 3
"""How often several processes start again, from the last checkpoint, when one of them is lost."""

MOST_BYTES = 1 << 26
"""Of a JSON file in a run's folder: 100,000 classes make a hundredth of it."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""How the system says that a disk is full, or a person's share of it."""

ROOM = 1 << 20
"""Bytes that a worker needs to say anything at all."""

children: list[subprocess.Popen[bytes]] = []
"""Processes that this one started, to be asked whether they have ended."""


class RunError(OdkitError, RuntimeError):
    """A run cannot do what was asked; the message says why and what to do."""


# -- starting ----------------------------------------------------------------------------------------------------------


def worker_command(path: Path, processes: int) -> list[str]:
    """How a worker is started: one process, or torch's own launcher for several."""
    if processes == 1:
        return [sys.executable, "-m", "odkit", "worker", str(path)]
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        # they find each other by a file: --standalone opens a port to the network, and unpickles what it is sent there
        *("--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file"),
        f"--max-restarts={RESTARTS}",
        f"--nproc-per-node={processes}",
    ]
    return [*launcher, "-m", "odkit", "worker", str(path)]


def start_worker(path: Path, processes: int) -> None:
    """Start a worker for the run in a folder, in a session of its own; what it prints goes to `worker.log`.

    Raises:
        RunError: A worker is already at it, or the folder cannot be written, or its disk is full.
    """
    if full := disk_full(path):  # it could not even say so
        raise RunError(f"{full}. Free some space, then try again")
    check_links(path)
    with writing(path):
        handle = own_lock(path)
        if handle is None:
            raise RunError(f"{path.name} is running already; open_run({str(path)!r}) attaches to it")
        (path / "stop").unlink(missing_ok=True)
    try:
        with writing(path), (path / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                worker_command(path, processes),
                stdin=handle,  # the lock; torchrun's own children inherit it as well
                stdout=log,
                stderr=subprocess.STDOUT,
                env=worker_environment(),
                start_new_session=True,
            )
    finally:
        os.close(handle)
    children.append(process)


def disk_full(path: Path) -> str:
    """That the disk of a run's folder has no room for a word, in words; "" where it has."""
    disk = shutil.disk_usage(path)
    if disk.free < ROOM and disk.total:  # one whose total is 0 says nothing of itself
        return f"the disk is full ({disk.free:,} bytes free at {path})"
    return ""


def disk_trouble(path: Path) -> str:
    """What is wrong with the disk of a run's folder, so that a worker may end without a word; "" where nothing is."""
    if full := disk_full(path):
        return full
    try:
        os.close(os.open(path / "worker.lock", os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno == errno.EROFS:
            return f"the disk is read-only ({path}), as a system makes it after an error there: `dmesg` may say more"
    return ""


def worker_environment() -> dict[str, str]:
    """The environment of a worker, or of the launcher of several."""
    environment = {**os.environ, LOCK_VARIABLE: "0", "PYTHONPATH": package_path()}
    # torchrun's own store would outlive a restart, and processes started again would look for the old ones' addresses
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    prepare_torch(environment)
    return environment


def prepare_torch(environment: MutableMapping[str, str], *, deterministic: bool = False) -> None:
    """What torch and its libraries read when they are loaded, where it is not set already.

    Args:
        environment: Changed in place.
        deterministic: Whether sums are to be taken in a fixed order on a GPU.
    """
    # Threads that wait must sleep: spinning ones slow training twentyfold as soon as anything else wants a core. A
    # wait of a few microseconds comes first, because to wake a sleeper costs more than that in a virtual machine.
    if not environment.get("GOMP_SPINCOUNT"):
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if environment["OMP_WAIT_POLICY"].upper() == "PASSIVE":
            environment["GOMP_SPINCOUNT"] = "5000"
    # Batches differ in size, which leaves holes in segments that cannot grow. CUDA's own, older name wins over this.
    # Not under WSL, some of whose drivers fail at it (pytorch/pytorch#192330); elsewhere training's first use of the
    # GPU tells.
    if "PYTORCH_CUDA_ALLOC_CONF" not in environment and "dxg" not in machine.gpu_devices():
        environment.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    if deterministic:  # cuBLAS shares its workspace between streams otherwise
        environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


# -- the lock ----------------------------------------------------------------------------------------------------------


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
    check_links(path)
    with writing(path):
        handle = own_lock(path)
    if handle is None:
        raise RunError(f"another worker is at {path}")
    return handle


def own_lock(path: Path) -> int | None:
    """The exclusive lock, or None where a worker holds it; who only looks holds it for an instant, so try again."""
    lock = path / "worker.lock"
    if lock.is_dir():
        raise RunError(f"{lock} is a folder; remove it: a worker's lock, a file, belongs there")
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o644)  # a pipe would not be waited for
    for _ in range(20):
        if _locked(handle, fcntl.LOCK_EX):
            return handle
        time.sleep(0.01)
    os.close(handle)
    return None


def is_locked(path: Path) -> bool:
    """Whether a worker holds the run's lock."""
    try:
        # the folder may be read-only, and a pipe in its place is not waited for
        handle = os.open(path / "worker.lock", os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    # shared: two who look at once must not take each other for the worker
    held = not _locked(handle, fcntl.LOCK_SH)
    os.close(handle)
    return held


def _locked(handle: int, kind: int) -> bool:
    """Whether the file could be locked at once; the lock is gone when the last copy of the handle is closed."""
    for child in children:
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


# -- what is in a run's folder, and may be spoiled ---------------------------------------------------------------------


def read_own(file: Path) -> dict[str, Any]:
    """The JSON that odkit wrote into a run's folder.

    Raises:
        FileNotFoundError, NotADirectoryError: There is no such file.
        RunError: It is damaged, or something else; the message names it.
    """
    try:
        content = orjson.loads(read_file(file, most_bytes=MOST_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise
    except InputError as error:
        raise RunError(str(error)) from None
    except OSError as error:
        raise RunError(f"{file} cannot be read ({error.strerror})") from error
    except orjson.JSONDecodeError as error:
        why = f"not JSON: {error}" if file.stat().st_size else "empty"
        raise RunError(f"{file} is damaged ({why})") from None
    if not isinstance(content, dict):
        raise RunError(f"{file} is none of odkit's: it holds no object with names")
    return content


@contextlib.contextmanager
def as_written(file: Path) -> Iterator[None]:
    """Turn what is missing or of another kind in a file of a run's into an error that names the file."""
    try:
        yield
    except OdkitError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{file} is not as odkit wrote it ({type(error).__name__}: {error}): put the file itself back, or move "
            "it away"
        ) from error


# -- a folder that cannot be written -----------------------------------------------------------------------------------


def check_links(path: Path) -> None:
    """Look that what is written in a run's folder stays there, before anything is; the folder may come from anybody.

    Raises:
        RunError: A file in it is a link. Folders of it may lie on another disk.
    """
    for folder, _, names in os.walk(path):
        for file in (Path(folder, name) for name in names):
            if file.is_symlink():
                raise RunError(
                    f"{file} is a link to {os.readlink(file)}, and what the run writes would go there: put the file "
                    "itself in its place, or remove it"
                )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write in a run's folder into an error that says what can be done."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise RunError(f"the disk is full ({error}). Free some space, then try again") from error
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise RunError(
            f"{path} cannot be written ({error.strerror}): it can be looked at, but not trained, stopped or deleted "
            f"from here. Do that as its owner, or on a copy: cp -r {path} runs/"
        ) from error
