"""Remembers what was found in image files, so that no file that stays the same is decoded twice.

In memory for this process, and in a small database in the cache folder for those after it. A cache is a convenience:
one that is damaged is made anew, one that cannot be read or written is done without, and no error comes of it.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

import PIL
from PIL import Image, ImageFile

from odkit.system import cache_folder

RACY = 2_000_000_000  # nanoseconds; a file changed less than that ago may change again and keep its time
MOST_IN_MEMORY = 50_000  # files, some 75 MB
MOST_ON_DISK = 1_000_000  # files, at most some 1.4 GB
WAIT = 2.0  # seconds for another process to finish writing
_FILE = "images-4.sqlite"  # another number for another table, or another look at the files
_COLUMNS = (
    "path, stamp, decoded, width, height, orientation, length, problem, detail, mode, pixels, look, colour"
)

_T = TypeVar("_T")


class ImageFacts(NamedTuple):
    """What was found in an image file.

    Without decoding, `problem` is one of its header, and `pixels`, `look` and `colour` are empty.
    """

    width: int = 0  # as stored; 0 where the header cannot be read
    height: int = 0
    orientation: int = 1
    length: int = -1  # bytes
    problem: str = ""  # the kind of finding that the audit makes of it
    detail: str = ""
    mode: str = ""  # Pillow's name for the kind of pixels
    pixels: bytes = b""  # hash of the decoded pixels
    look: bytes = b""  # the upright image as a grey thumbnail, LOOK_SIDE x LOOK_SIDE bytes
    colour: bytes = b""  # red, green and blue where the whole image is of one colour
    lasting: bool = True  # whether it would be found again, as far as one can know

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the upright image, in pixels; (0, 0) where unknown."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)

    def of_header(self) -> "ImageFacts":
        """What is found without decoding."""
        return self._replace(problem="", detail="", pixels=b"", look=b"", colour=b"") if self.width else self


class _Kept(NamedTuple):
    stamp: str
    decoded: bool
    facts: ImageFacts


_memory: dict[str, _Kept] = {}
_lock = Lock()


def stamp(path: str) -> str:
    """What tells a file from any other that was or will be at that path; "" where its times cannot tell yet."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return ""
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < RACY:  # git's rule for its index
        return ""
    reader = f"{PIL.__version__} {Image.MAX_IMAGE_PIXELS} {ImageFile.LOAD_TRUNCATED_IMAGES}"
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino} {reader}"


def recall(paths: Sequence[str], stamps: Sequence[str], *, decoded: bool) -> dict[str, ImageFacts]:
    """What is known of the files that are still the same; `decoded`: only what decoding them has shown."""
    wanted = {path: mark for path, mark in zip(paths, stamps, strict=True) if mark}
    known: dict[str, ImageFacts] = {}

    def take(found: dict[str, _Kept]) -> None:
        for path, kept in found.items():
            if kept.stamp == wanted[path] and (kept.decoded or not decoded):
                known[path] = kept.facts

    take({path: _memory[path] for path in wanted if path in _memory})
    if rest := [path for path in wanted if path not in known]:
        found = _read(rest)
        take(found)
        _keep(found)
    return known


def remember(
    paths: Sequence[str], stamps: Sequence[str], facts: Sequence[ImageFacts], *, decoded: bool
) -> None:
    """Keep what was found, where the file was an image and its stamp (made before looking) can be relied on."""
    new = {
        path: _Kept(mark, decoded, found)
        for path, mark, found in zip(paths, stamps, facts, strict=True)
        if mark and found.width and found.lasting
    }
    if new:
        _keep(new)
        _write(new)


def _keep(new: dict[str, _Kept]) -> None:
    with _lock:
        for path, kept in new.items():
            _memory.pop(path, None)  # so that it counts as the newest
            _memory[path] = kept
        while len(_memory) > MOST_IN_MEMORY:
            del _memory[next(iter(_memory))]


# -- on the disk -----------------------------------------------------------------------------------------------------


def _read(paths: list[str]) -> dict[str, _Kept]:
    keys = {os.fsencode(os.path.abspath(path)): path for path in paths}

    def work(database: sqlite3.Connection) -> dict[str, _Kept]:
        found, wanted = {}, list(keys)
        for start in range(0, len(wanted), 500):
            some = wanted[start : start + 500]
            query = f"SELECT {_COLUMNS} FROM images WHERE path IN ({','.join('?' * len(some))})"
            for key, mark, decoded, *facts in database.execute(query, some):
                found[keys[key]] = _Kept(mark, bool(decoded), ImageFacts(*facts))
        return found

    return _in_database(work, make=False) or {}


def _write(new: dict[str, _Kept]) -> None:
    rows = [
        (os.fsencode(os.path.abspath(path)), mark, decoded, *facts[:-1])
        for path, (mark, decoded, facts) in new.items()
    ]

    def work(database: sqlite3.Connection) -> None:
        database.execute(f"CREATE TABLE IF NOT EXISTS images ({_COLUMNS}, PRIMARY KEY (path))")
        database.executemany(f"INSERT OR REPLACE INTO images VALUES ({','.join('?' * len(rows[0]))})", rows)
        # a row that is replaced gets a new number, so the lowest are the oldest
        oldest = "SELECT max(rowid) - ? FROM images"
        database.execute(f"DELETE FROM images WHERE rowid <= ({oldest})", (MOST_ON_DISK,))

    _in_database(work, make=True)


def _in_database(work: Callable[[sqlite3.Connection], _T], *, make: bool) -> _T | None:
    """What `work` makes of the database; None where there is none, or whatever else is wrong with it."""
    path = Path()
    try:
        path = cache_folder() / _FILE
        if make:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            return None
        with contextlib.closing(sqlite3.connect(path, timeout=WAIT)) as database, database:
            return work(database)
    except (OSError, sqlite3.OperationalError):  # read-only, in use for too long, or the disk is full
        return None
    except sqlite3.DatabaseError:  # damaged
        with contextlib.suppress(OSError):
            path.unlink()
        return None
