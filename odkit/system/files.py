"""The one writer of files, whole or not at all; the one opener of a person's files; and where caches go."""

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from odkit.system.errors import FileInTheWayError, InputError

_NO_FILE = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: str | Path, *, most_bytes: int | None = None) -> BufferedReader:
    """Open a person's file to read its bytes: a regular one, and no larger than what it can be.

    A pipe would be waited for and a device read for ever, so neither is opened, nor what a link to one leads to.

    Args:
        path: The file.
        most_bytes: Larger ones are refused; None: any size.

    Raises:
        InputError: It is no regular file, or too large; the message names it.
        OSError: It is not there, or may not be read.
    """
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    try:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            kind = _NO_FILE.get(stat.S_IFMT(about.st_mode), "no regular file")
            raise InputError(f"{path} is {kind}, not a file; remove it, or put the file itself in its place")
        if most_bytes is not None and about.st_size > most_bytes:
            raise InputError(
                f"{path} has {about.st_size:,} bytes, more than the {most_bytes:,} that such a file is read up to"
            )
    except BaseException:
        file.close()
        raise
    return file


def _without_waiting(name: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to is not waited for."""
    try:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
    except BlockingIOError:  # a regular one that a file server has lent to somebody and calls back
        return os.open(name, flags)


def read_file(path: str | Path, *, most_bytes: int | None = None) -> bytes:
    """The bytes of a person's file; see `open_file`.

    Raises:
        InputError: It is no regular file, or too large.
        OSError: It is not there, or may not be read.
    """
    with open_file(path, most_bytes=most_bytes) as file:
        return file.read()


def write_file(path: str | Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a whole file: `path` holds what it held before or all of `data`, whatever happens; see `replacing`."""
    with replacing(path, mode=mode) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: str | Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write into that takes the place of `path` when the block ends, and never if it ends with an error.

    It is written under a name of its own in the same folder, fsynced and renamed, and so is the folder's entry: a
    reader, a crash or a power cut meets the old file or the new one, never a part. An error leaves nothing behind;
    only a process that is killed leaves its `.tmp` file. A symbolic link stays one: the file it leads to is replaced.

    Args:
        path: The file; its folder must be there.
        mode: Its permissions, less the process' umask.

    Raises:
        FileInTheWayError: `path` is a folder.
        OSError: The disk is full, the folder is missing or cannot be written; the error names `path`.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise FileInTheWayError(f"{path} is a folder; give the path of a file, in it perhaps")
    temporary = path.with_name(f"{path.name[:50]}.{secrets.token_hex(6)}.tmp")
    try:
        file = open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):  # what is still buffered may not fit either
                file.close()
            raise
        file.close()
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def sync_folder(folder: str | Path) -> None:
    """Put a folder's entries (new names, renames) on the disk, where its file system can."""
    try:
        _sync(folder)
    except OSError as error:
        # a folder that may be written but not read, a file system that knows no such thing
        if error.errno not in (errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise


def _sync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: str | Path) -> None:
    """Put a whole new folder on the disk, its files and all entries; what symbolic links lead to is left alone."""
    with ThreadPoolExecutor(8) as pool:  # the disk takes many at once
        for inside, _, names in os.walk(folder):
            paths = [os.path.join(inside, name) for name in names]
            list(pool.map(_sync, (path for path in paths if not os.path.islink(path))))
            sync_folder(inside)


def sockets_parent() -> str:
    """The temporary folder, or /tmp where that one's path leaves a socket's no room: 107 bytes, 103 on macOS."""
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) <= 64 else "/tmp"


def cache_folder() -> Path:
    """A folder for what can be made again: `$ODKIT_CACHE`, else in the user's cache folder, else in the temporary one.

    Raises:
        OSError: None of them can be made.
    """
    if os.environ.get("ODKIT_CACHE"):
        return Path(os.path.expanduser(os.environ["ODKIT_CACHE"])).absolute()
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "odkit"
        base.mkdir(parents=True, exist_ok=True)
        if os.access(base, os.W_OK):
            return base.absolute()
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        pass
    user = os.getuid() if hasattr(os, "getuid") else "user"
    base = Path(tempfile.gettempdir()) / f"odkit-{user}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = base.lstat()
    # whoever made it could put there what they like
    if found.st_uid != user or not stat.S_ISDIR(found.st_mode):
        base = Path(tempfile.mkdtemp(prefix="odkit-"))
    return base
