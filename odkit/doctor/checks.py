"""Will training work on this machine, and if not, what to type: the checks in their order."""

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from odkit.doctor.gpu import check_computing, check_driver, check_gpu_memory, check_precision, check_torch
from odkit.doctor.host import (
    check_cpu,
    check_data,
    check_disk,
    check_memory,
    check_open_files,
    check_packages,
    check_shm,
    check_user,
    check_work,
)
from odkit.doctor.report import Check, Report
from odkit.doctor.services import check_database, check_network, check_ports, check_weights
from odkit.doctor.subject import Subject
from odkit.system import InputError, machine


def check(
    *,
    data: str | Path | None = None,
    work: str | Path | None = None,
    need_gpu: bool = False,
    num_workers: int = 2,
    batch_size: int = 8,
    image_size: int = 640,
    only: Iterable[str] = (),
) -> Report:
    """Look at everything that training here depends on; see `Check` for what is said of each.

    Args:
        data: Folder with the images; None: $ODKIT_DATA, else /data in odkit's image.
        work: Folder that runs are written to; None: $ODKIT_WORK, else /work in odkit's image, else the current one.
        need_gpu: Whether a missing GPU is a failure in place of a warning.
        num_workers: Data workers that training will have.
        batch_size: Images a step.
        image_size: Side of a training image in pixels.
        only: Names of the checks wanted (the keys of `CHECKS`); none: all.

    Returns:
        The report. It raises nothing about the machine: what is wrong with it is in the report.

    Raises:
        InputError: `only` holds an unknown name.
    """
    chosen = tuple(only)
    unknown = [name for name in chosen if name not in CHECKS]
    if unknown:
        raise InputError(f"there is no check {', '.join(map(repr, unknown))}; there are {', '.join(CHECKS)}")
    started = time.monotonic()
    subject = Subject(
        data=Path(data) if data else _default_folder("ODKIT_DATA", "/data"),
        data_given=bool(data or os.environ.get("ODKIT_DATA")),
        work=Path(work) if work else _default_folder("ODKIT_WORK", "/work") or Path.cwd(),
        need_gpu=need_gpu,
        num_workers=num_workers,
        batch_bytes=batch_size * 3 * image_size * image_size,
    )
    names = [name for name in CHECKS if not chosen or name in chosen]
    # side by side, because most of them wait: for torch's import, the database, the network
    with ThreadPoolExecutor(max_workers=4) as pool:
        groups = list(pool.map(lambda name: _judged(name, subject), names))
    return Report(tuple(one for group in groups for one in group), time.monotonic() - started)


def _judged(name: str, subject: "Subject") -> list[Check]:
    try:
        found = CHECKS[name](subject)
        return found if isinstance(found, list) else [found]
    except Exception as error:  # a fact that cannot be had must not hide the others
        seen = f"could not be looked at: {type(error).__name__}: {error}"
        return [Check(name, "warning", seen, "A fault of this check; please report it.")]


CHECKS: dict[str, Callable[[Subject], Check | list[Check]]] = {
    "driver": check_driver,
    "torch": check_torch,
    "gpu memory": check_gpu_memory,
    "computing": check_computing,
    "precision": check_precision,
    "shm": check_shm,
    "open files": check_open_files,
    "memory": check_memory,
    "cpu": check_cpu,
    "disk": check_disk,
    "data": check_data,
    "work": check_work,
    "user": check_user,
    "ports": check_ports,
    "database": check_database,
    "network": check_network,
    "weights": check_weights,
    "packages": check_packages,
}
"""Every check by name, in the order of the report."""


def _default_folder(variable: str, inside: str) -> Path | None:
    """The folder that a variable names, else the one that odkit's own image has for it."""
    if given := os.environ.get(variable):
        return Path(given)
    return Path(inside) if machine.own_image() and Path(inside).is_dir() else None
