"""What processes tell each other: locks handed over, ends that follow a parent."""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

LOCK_VARIABLE = "ODKIT_LOCK_FD"
"""Environment variable that tells a worker which open file holds its run's lock."""


def end_with_parent(number: int) -> None:
    """Have the system send this process a signal when its parent is gone, killed or not (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG, prctl(2)


def open_all_files() -> None:
    """Allow this process, and those it starts, 65,536 open files, or as many as the system lets it have.

    New container engines start programs with 1,024, and each batch on its way from a data worker is an open file.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if most == resource.RLIM_INFINITY else min(65_536, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS knows a limit that it does not take
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def package_path() -> str:
    """PYTHONPATH under which a child finds this very odkit, installed or not."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
