"""Small disks for the tests beside this file; `disks.py` makes them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disks import MAY_NOT, Hanging, LoopDisk, SmallDisk, may_in_a_namespace, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk | None]:
    """A file system of 400 MB of its own; who may not mount has the test run where they may, see below."""
    with small_disk(tmp_path / "disk", "400m") as made:
        yield made


@pytest.fixture
def loop_disk(tmp_path: Path) -> Iterator[LoopDisk]:
    """A file system on a loop device."""
    disk = LoopDisk(tmp_path / "disk")
    try:
        if not disk.make():
            pytest.skip("only root can make a disk that hangs and breaks: ext4 on a loop device")
        yield disk
    finally:
        disk.remove()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """Lets files hang until the test is over."""
    files = Hanging()
    yield files
    files.end()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that wants a disk and may mount none is run in a namespace of its own, where it is root."""
    if "disk" not in pyfuncitem.funcargs or pyfuncitem.funcargs["disk"] is not None:
        return None
    if not may_in_a_namespace():
        pytest.skip(MAY_NOT)
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", *command],
        cwd=pyfuncitem.config.rootpath,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout, done.stdout
    return True
