"""Resized images kept from pass to pass, one copy for all data workers, so that a file is decoded once in a run.

In memory (a mapping without a file, made before the workers are forked), or in a file of the run folder that the
workers map. Either way the system gives a page when it is first written, and takes all of them back when the last
process ends, however it ends: the file has no name any more once it is open (where workers are not forked it must keep
one; it goes when this process ends). So a run leaves nothing behind, and a resumed one fills its cache anew.

An image counts as kept once the checksum of its pixels is there, written after them: what a killed worker left half
done is decoded again. It holds for the file's size and time of change that were seen before it was decoded.
"""

import atexit
import mmap
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from odkit.system import machine, megabytes

MEMORY_SHARE = 1 / 2  # of the memory that is free; the rest is for training
DISK_SHARE = 1 / 4  # of what is free on the run folder's disk
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "lustre", "ceph", "glusterfs")
_IN_MEMORY = ("tmpfs", "ramfs")
_HEAD = 4 + 8 + 8  # bytes an image besides its pixels: checksum, size and time of change of its file

Stamp = tuple[int, int]
"""A file's size in bytes and its time of change in ns; another stamp means other pixels."""


def file_stamp(path: str) -> Stamp | None:
    """A file's stamp; None where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


class PixelCache:
    """Pixels of images by their number, uint8, at sizes that are known before.

    Attributes:
        bytes: What it takes when it is full.
        places: How many images have a place.
    """

    def __init__(self, sizes: NDArray[np.int64], *, budget: int, file: Path | None = None) -> None:
        """Make an empty one.

        Args:
            sizes: [V, 2] width and height of each image in pixels; 0: unknown, such an image has no place.
            budget: Most bytes; the images that come first have a place.
            file: Where to keep them; None: in memory, for this process and its forks.

        Raises:
            OSError: There is no such memory, or no room on the disk.
        """
        self._sizes = sizes
        needed = sizes.prod(1) * 3 + _HEAD
        needed[sizes.prod(1) == 0] = 0
        ends = needed.cumsum()
        placed = (needed > 0) & (ends <= budget)
        self.places, self.bytes = int(placed.sum()), int(needed[placed].sum())
        pixels = np.where(placed, sizes.prod(1) * 3, 0)
        first = len(sizes) * _HEAD
        self._starts = np.where(placed, first + pixels.cumsum() - pixels, -1)
        self._length = max(1, first + int(pixels.sum()))
        self._file = file
        if file is None:
            self._map(mmap.mmap(-1, self._length))
        else:
            file.unlink(missing_ok=True)  # of a worker that was killed at this very place
            with file.open("xb") as made:
                try:
                    if hasattr(os, "posix_fallocate"):  # else a full disk would kill who writes
                        os.posix_fallocate(made.fileno(), 0, self._length)
                    else:
                        made.truncate(self._length)
                except OSError:
                    file.unlink()
                    raise
            self._open()

    def get(self, number: int, stamp: Stamp) -> Tensor | None:
        """An image's pixels, uint8 [3, h, w], to be read only; None where they are not kept."""
        start = int(self._starts[number])
        checksum = self._checksums[number]
        if start < 0 or not checksum or (self._files[number] != stamp).any():
            return None
        pixels = self._pixels(number, start)
        if self._seen[number] != checksum:  # once a process
            if _checksum(pixels) != checksum:
                return None
            self._seen[number] = checksum
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def put(self, number: int, stamp: Stamp, image: Tensor) -> None:
        """Keep an image's pixels, uint8 [3, h, w], if it has a place."""
        start = int(self._starts[number])
        if start < 0:
            return
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        kept = self._pixels(number, start)
        if pixels.shape != kept.shape:  # the file has another size than was declared; that is said elsewhere
            return
        self._checksums[number] = 0
        kept[...] = pixels
        self._files[number] = stamp
        # of what was to be there: another worker may write here too, from a file that has just changed
        self._checksums[number] = _checksum(pixels)

    def forget_name(self) -> None:
        """Take the file's name away: its bytes stay until the last process that has it open ends."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _pixels(self, number: int, start: int) -> NDArray[np.uint8]:
        width, height = self._sizes[number].tolist()
        return self._bytes[start : start + width * height * 3].reshape(height, width, 3)

    def _open(self) -> None:
        assert self._file is not None
        with self._file.open("r+b") as file:
            self._map(mmap.mmap(file.fileno(), self._length))

    def _map(self, mapped: mmap.mmap) -> None:
        count = len(self._sizes)
        self._bytes = np.frombuffer(mapped, np.uint8)
        self._files = self._bytes[: count * 16].view(np.int64).reshape(count, 2)
        self._checksums = self._bytes[count * 16 : count * 20].view(np.uint32)
        self._seen = np.zeros(count, np.uint32)  # this process' own

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is no fork, and maps the file anew."""
        mapped = ("_bytes", "_files", "_checksums", "_seen")
        return {name: value for name, value in vars(self).items() if name not in mapped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()


def _checksum(pixels: NDArray[np.uint8]) -> int:
    return zlib.crc32(pixels.data) or 1  # 0: nothing there


def make_caches(
    setting: str,
    sizes: Sequence[NDArray[np.int64]],
    file: Path,
    *,
    passes: int,
    processes: int = 1,
    forked: bool = True,
) -> tuple[list[PixelCache | None], str, str]:
    """Caches for several sets of images, as a setting wants them.

    Each process of a machine has its own: they share what is free.

    Args:
        setting: "auto", "memory", "disk" or "off".
        sizes: Of each set, as `PixelCache` takes them; the first set is served first.
        file: Its name is used for files, a number after it.
        passes: How often the first set is read.
        processes: Processes of this machine that do the same.
        forked: Whether data workers are forks, which share this process' memory.

    Returns:
        A cache for each set, None where it has none; what they are ("memory", "disk", "off"), and why.
    """
    nothing: list[PixelCache | None] = [None] * len(sizes)
    if setting == "off":
        return nothing, "off", "as set"
    if setting == "auto" and passes < 2:
        return nothing, "off", "there is one pass, nothing is read twice"
    if setting == "memory" and not forked:
        return nothing, "off", "data workers share memory only where they are forked; --cache disk is for all"
    wanted = sum(int(some.prod(1).sum()) * 3 + len(some) * _HEAD for some in sizes)
    free = {"memory": machine.memory_free_bytes(), "disk": machine.disk_free_bytes(file)}
    budgets = {
        "memory": int(free["memory"] * MEMORY_SHARE / processes) if forked else 0,
        "disk": int(free["disk"] * DISK_SHARE / processes),
    }
    if setting == "auto" and machine.filesystem(file) in _NETWORK + _IN_MEMORY:
        budgets["disk"] = 0  # no faster than the images themselves, or memory that would be taken at once
    kinds = [setting] if setting != "auto" else sorted(budgets, key=lambda kind: -min(budgets[kind], wanted))
    problem = ""
    for kind in kinds:
        budget = budgets[kind]
        caches: list[PixelCache | None] = []
        try:
            for number, some in enumerate(sizes):
                place = file.with_name(f"{file.name}-{number}") if kind == "disk" else None
                made = PixelCache(some, budget=budget, file=place)
                if place is not None and forked:
                    made.forget_name()
                elif place is not None:  # others open it by its name
                    atexit.register(made.forget_name)
                budget -= made.bytes
                caches.append(made if made.places else None)
        except OSError as error:
            problem = f"{kind}: {error}"
            continue
        places, images = sum(made.places for made in caches if made is not None), sum(map(len, sizes))
        if not places:
            break
        share = f"{MEMORY_SHARE if kind == 'memory' else DISK_SHARE:.0%} of the {megabytes(free[kind])} free there"
        each = f" for each of {processes} processes" if processes > 1 else ""
        how_many = f"all {images:,} images" if places == images else f"{places:,} of {images:,} images"
        took = sum(made.bytes for made in caches if made is not None)
        reason = f"{how_many}, resized, take {megabytes(max(took, machine.MB))}{each}; the limit is {share}"
        return caches, kind, reason
    return nothing, "off", problem or "no image has a place: too little is free, or sizes are unknown"
