"""What processes tell each other: locks handed over, ends that follow a parent."""

import ctypes
import os
import sys
from pathlib import Path

LOCK_VARIABLE = "ODKIT_LOCK_FD"
"""Environment variable that tells a worker which open file holds its run's lock."""


def end_with_parent(number: int) -> None:
    """Have the system send this process a signal when its parent is gone, killed or not (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG, prctl(2)


def package_path() -> str:
    """PYTHONPATH under which a child finds this very odkit, installed or not."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
