"""Disks that fail for real: one that fills up, one that may not be written, one that hangs; files that never open."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

MAY_NOT = "neither this user nor a namespace of their own may mount a file system here"


class SmallDisk:
    """A file system of its own, some megabytes large."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, *, leaving: int = 0) -> None:
        """Fill it up to so many bytes."""
        with (self.folder / "filler").open("ab", buffering=0) as file:
            size = 1 << 20
            while size:  # ever smaller pieces: to the last byte
                try:
                    if not file.write(bytes(size)):
                        size //= 2
                except OSError:
                    size //= 2
            if leaving:
                file.truncate(max(0, file.tell() - leaving))

    def free(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[SmallDisk | None]:
    """A disk in memory at a folder that is made (`size` as mount has it); None where this process may mount none."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(command, capture_output=True).returncode:
        yield None
        return
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def may_in_a_namespace() -> bool:
    """Whether whoever is not root may mount in a namespace of their own."""
    try:
        tried = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(tried, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


class LoopDisk:
    """A file system on a loop device, ext4, which can hang and break as one on a real disk does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = folder.with_name(f"{folder.name}.image")

    def make(self) -> bool:
        """Whether it could be made: root alone may, where there are loop devices."""
        self.folder.mkdir()
        with self.image.open("wb") as file:
            file.truncate(300 << 20)
        return _done("mkfs.ext4", "-q", "-E", "lazy_itable_init=1", self.image) and self._mount()

    def hang(self, yes: bool) -> None:
        """Let what is written to it wait, or go on."""
        assert _done("fsfreeze", "-f" if yes else "-u", self.folder)

    def turn_read_only(self) -> None:
        """As after an error of the disk's: nothing can be written any more, not even to files that are open."""
        device = os.stat(self.folder).st_dev
        name = Path("/sys/dev/block", f"{os.major(device)}:{os.minor(device)}").resolve().name
        Path("/sys/fs/ext4", name, "trigger_fs_error").write_text("1")

    def repair(self) -> None:
        """As a person does after such an error: checked, and mounted anew."""
        assert _done("umount", self.folder)
        _done("e2fsck", "-f", "-y", self.image)
        assert self._mount()

    def remove(self) -> None:
        _done("fsfreeze", "-u", self.folder)
        _done("umount", "-l", self.folder)
        self.image.unlink(missing_ok=True)

    def _mount(self) -> bool:
        return _done("mount", "-o", "loop,errors=remount-ro", self.image, self.folder)


def _done(*command: str | Path) -> bool:
    try:
        return subprocess.run(list(map(str, command)), capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


class Hanging:
    """Files that never open: whoever tries waits, as on a network disk whose server is gone, until `end()`.

    They are regular files that this process holds a lease on, which a file server does to be asked before others read;
    it just never answers. Linux waits 45 s for it, then opens them all the same.
    """

    def __init__(self) -> None:
        self._held: list[int] = []
        self._before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # how the system asks

    def file(self, path: str | Path) -> None:
        handle = os.open(path, os.O_RDWR)
        self._held.append(handle)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    def end(self) -> None:
        for handle in self._held:
            os.close(handle)
        self._held.clear()
        signal.signal(signal.SIGIO, self._before)


def at_each_write(folder: Path, act: Callable[[str], None]) -> Callable[[], None]:
    """Have `act` called before each file below a folder is opened to be written, with its path there; returns the end.

    A file that is written whole or not at all (`odkit.system.replacing`) counts under the name that it is to take.
    """
    on, below = [True], f"{folder}{os.sep}"

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not on[0] or event != "open" or not isinstance(arguments[0], str):
            return
        path, _, flags = arguments
        if path.startswith(below) and int(flags) & (os.O_WRONLY | os.O_RDWR):  # type: ignore[call-overload]
            name = path.removeprefix(below)
            on[0] = False  # what `act` writes is no write of theirs
            try:
                act(name.rsplit(".", 2)[0] if name.endswith(".tmp") else name)
            finally:
                on[0] = True

    sys.addaudithook(hook)  # there is no taking it away

    def end() -> None:
        on[0] = False

    return end
