"""The event log of a run: written by its worker, read by everybody else."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson

from odkit.system import InputError, open_file, read_file

# -- writing -----------------------------------------------------------------------------------------------------------


class EventLog:
    """Appends events to `events.jsonl`, one write a line, so that readers never see half of one for long.

    With `reserve`, so many bytes are kept in a file beside it, which gives way when the disk is full: the events that
    say so can then be written.
    """

    def __init__(self, path: Path, *, reserve: int = 0) -> None:
        self.path = path
        self.reserve = path.with_name("events.reserve") if reserve else None
        if self.reserve:
            with contextlib.suppress(OSError):  # the disk is full already
                self.reserve.write_bytes(bytes(reserve))
        self.file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self.file).st_size
        # by a crash: the line is not gone on with
        self.torn = size > 0 and os.pread(self.file, 1, size - 1) != b"\n"

    def write(self, event: str, **fields: Any) -> None:
        """Append one event; on a full disk it is told to worker.log and lost."""
        line = orjson.dumps(
            {"event": event, "time": time.time(), **fields},
            option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE,
        )
        if not self._append(line) and self.reserve and self.reserve.exists():
            self._give_way()
            self._append(line)

    def _append(self, line: bytes) -> bool:
        """Whether the line could be written whole."""
        try:
            whole = b"\n" + line if self.torn else line
            self.torn = os.write(self.file, whole) < len(whole)  # on a disk that has just filled up
        except OSError as error:  # a full disk must not end what the log only describes
            tell(f"events.jsonl: {error}")
            return False
        return not self.torn

    def close(self) -> None:
        """No more events come; the reserve is given back."""
        os.close(self.file)
        self._give_way()

    def _give_way(self) -> None:
        if self.reserve:
            with contextlib.suppress(
                OSError
            ):  # two threads may find the disk full; it may be read-only by now
                self.reserve.unlink()


def tell(text: str) -> None:
    """Print to stderr, for a worker its worker.log; where the disk under that is full, nothing else is lost with it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


# -- reading -----------------------------------------------------------------------------------------------------------


BLOCK = 1 << 22
"""Bytes of a log that are read at a time: those of a million steps, as objects all at once, would fill gigabytes."""


class EventReader:
    """Reads `events.jsonl` while it is written: only whole lines, and a torn one is passed over."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0

    def new(self, *, upto: int | None = None, only: Collection[str] | None = None) -> list[dict[str, Any]]:
        """Events written since the last call.

        Args:
            upto: Those within so many bytes of the file.
            only: Those of these kinds; the others cost next to nothing.
        """
        return [event for some in self.batches(upto=upto, only=only) for event in some]

    def batches(
        self, *, upto: int | None = None, only: Collection[str] | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """The same, `BLOCK` bytes of the file at a time; each batch counts as read when it is given."""
        size = BLOCK
        with contextlib.suppress(FileNotFoundError), open_file(self.path) as file:
            while True:
                most = size if upto is None else max(0, min(size, upto - self.offset))
                file.seek(self.offset)
                data = file.read(most)
                end = data.rfind(b"\n") + 1
                self.offset += end
                if end:
                    size = BLOCK
                    yield list(_parsed(data[:end].splitlines(), only))
                elif len(data) == size:  # a line that is longer than that
                    size *= 2
                else:
                    return
                if len(data) < most:
                    return


def backwards(
    path: Path, *, only: Collection[str] | None = None, block: int = 1 << 16
) -> Iterator[dict[str, Any]]:
    """The whole events of an `events.jsonl`, newest first; only as much of the file is read as is asked for.

    Args:
        path: The file.
        only: The kinds wanted; the others cost next to nothing.
        block: Bytes that are read at a time.
    """
    try:
        file = open_file(path)
    except FileNotFoundError:
        return
    with file:
        place, rest, newest = file.seek(0, os.SEEK_END), b"", True
        while place:
            size = min(max(block, len(rest)), place)  # a long line is not put together from many small parts
            place -= size
            file.seek(place)
            rest, *lines = (file.read(size) + rest).split(b"\n")
            if newest and lines:
                lines.pop()  # what stands after the last line's end: nothing, or a line being written
                newest = False
            yield from _parsed(reversed(lines), only)
        if not newest:
            yield from _parsed([rest], only)


class Followed(Protocol):
    """What is needed of a Run to follow it."""

    path: Path

    @property
    def alive(self) -> bool: ...


def follow(run: Followed, *, interval: float | Callable[[], float] = 0.2) -> Iterator[list[dict[str, Any]]]:
    """Batches of new events until the worker has ended; the last of a look is often empty (time to redraw).

    What stands in the way of a tracker (`follower.py`) is a warning among them, once.

    Args:
        run: The run.
        interval: Seconds between two looks, or what says them after each.
    """
    reader, told = EventReader(run.path / "events.jsonl"), {""}
    while True:
        alive = run.alive
        yield from reader.batches()
        events: list[dict[str, Any]] = []
        for trouble in _tracking_troubles(run.path):
            if trouble not in told:
                told.add(trouble)
                events.append({"event": "warning", "time": time.time(), "step": 0, "message": trouble})
        yield events
        if not alive:
            return
        time.sleep(interval() if callable(interval) else interval)


def _tracking_troubles(path: Path) -> list[str]:
    """What the run's followers say is in the way of their trackers."""
    found = []
    for file in sorted(path.glob("track-*.json")):
        with contextlib.suppress(OSError, InputError, orjson.JSONDecodeError, TypeError, KeyError):
            found.append(str(orjson.loads(read_file(file))["trouble"]))
    return found


# -- what the events amount to -----------------------------------------------------------------------------------------


def effective(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of one uninterrupted history: what a resume did over replaces what it stood for."""
    kept: list[dict[str, Any]] = []
    for event in events:
        if event["event"] == "start" and kept:
            step, epoch = event.get("from_step", 0), event.get("from_epoch", math.inf)
            by_step, by_epoch = ("step", "checkpoint"), ("epoch", "evaluation", "preview")
            # the last step of an epoch may be saved and what closes the epoch not yet
            kept = [
                e for e in kept if e["event"] not in by_epoch or (e["step"] <= step and e["epoch"] <= epoch)
            ]
            kept = [e for e in kept if e["event"] not in by_step or e.get("step", 0) <= step]
        kept.append(event)
    return kept


def epoch_rows(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Epoch and evaluation events merged to one row an epoch, in order."""
    rows: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["event"] in ("epoch", "evaluation"):
            row = rows.setdefault(event["epoch"], {})
            for key, value in event.items():
                if key in ("event", "time") or (event["event"] == "evaluation" and key == "seconds"):
                    continue
                row[key] = value
    return [rows[epoch] for epoch in sorted(rows)]


_BEGINNING = (
    b'{"event":"'  # as `EventLog` writes it: what a line is about can be told without taking it apart
)


_WHOLE, _NUMBER, _NUMBER_OR_NONE = (int,), (int, float), (int, float, type(None))
_EACH: dict[str, tuple[type, ...]] = {"time": _NUMBER}
_NEEDED = {
    "start": {**_EACH, "from_step": _WHOLE},
    "step": {**_EACH, "step": _WHOLE, "loss": _NUMBER_OR_NONE},
    "epoch": {**_EACH, "epoch": _WHOLE, "step": _WHOLE},
    "evaluation": {**_EACH, "epoch": _WHOLE, "step": _WHOLE, "ap": _NUMBER_OR_NONE},
    "preview": {**_EACH, "epoch": _WHOLE, "step": _WHOLE, "images": (list,)},
    "checkpoint": {**_EACH, "step": _WHOLE},
    "warning": {**_EACH, "message": (str,)},
    "end": {**_EACH, "reason": (str,)},
}
"""What an event of a kind must have for anything to be told by it."""
_WHERE_THERE: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("step", "from_epoch", "epochs", "steps_per_epoch"), _WHOLE),
    **dict.fromkeys(("seconds", "total_seconds", "images_per_second", "data_wait", "device_memory"), _NUMBER),
    **dict.fromkeys(("loss", "learning_rate", "grad_norm", "ap50", "ap75"), _NUMBER_OR_NONE),
    **dict.fromkeys(("choices", "settings", "machine", "best_so_far", "losses", "per_class"), (dict,)),
    **dict.fromkeys(("message", "device"), (str,)),
}
"""What these are where an event has them."""
_INSIDE: dict[str, dict[str, tuple[type, ...]]] = {
    "choices": {
        **dict.fromkeys(("image_size", "batch_size"), _WHOLE),
        **dict.fromkeys(("precision", "optimizer"), (str,)),
        "learning_rate": _NUMBER,
        "tiles": (dict, type(None)),
        "reasons": (dict,),
    },
    "best_so_far": {
        **dict.fromkeys(("epoch", "step"), _WHOLE),
        **dict.fromkeys(("ap", "ap50"), _NUMBER_OR_NONE),
    },
}
"""What these are in those, where they have them."""


def _fits(event: Any) -> bool:
    """Whether something is an event that can be worked with."""
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return False
    needed = _NEEDED.get(event["event"], {})
    return (
        all(name in event and _is(event[name], types) for name, types in needed.items())
        and all(_is(value, _WHERE_THERE[name]) for name, value in event.items() if name in _WHERE_THERE)
        and all(
            _is(event[name][key], types)
            for name, inside in _INSIDE.items()
            if name in event
            for key, types in inside.items()
            if key in event[name]
        )
    )


def _is(value: Any, types: tuple[type, ...]) -> bool:
    """Whether a value is of one of these types; whole numbers are of 64 bits."""
    return isinstance(value, types) and not (isinstance(value, int) and abs(value) >= 2**63)


def _parsed(lines: Iterable[bytes], only: Collection[str] | None) -> Iterator[dict[str, Any]]:
    """The events of lines, `only` of these kinds; what a crash tore, or somebody mangled, is passed over."""
    wanted = tuple(_BEGINNING + kind.encode() + b'"' for kind in only or ())
    for line in lines:
        if only is not None and line.startswith(_BEGINNING) and not line.startswith(wanted):
            continue
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if _fits(event) and (only is None or event["event"] in only):
            yield event
