"""Where a run stands, from its events: what every front end shows."""

import contextlib
import fcntl
import math
import os
import time
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from odkit.runs.events import epoch_rows
from odkit.system import read_file

if TYPE_CHECKING:
    from odkit.runs.run import Run

FrontEnd = Literal["lab", "notebook-headless", "terminal"]
REQUESTS = {
    "now": "Stop asked for: the worker finishes its step, saves and ends.",
    "epoch": "Stop asked for: the worker finishes this epoch, judges it, saves and ends.",
    "checkpoint": "Checkpoint asked for: saved after this step.",
}
SHARE_OF_A_CORE = (
    0.03  # that the dashboards of a run may take from its training on a small machine, all together
)


# -- what the events amount to -----------------------------------------------------------------------------------------


@dataclass
class Progress:
    """A run's events so far, added up: what every way of showing a run draws from."""

    start: dict[str, Any] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)  # the first step event since the newest start
    last: dict[str, Any] = field(default_factory=dict)  # the newest step event
    # of each step, 16 bytes for both
    steps: "array[int]" = field(default_factory=lambda: array("q"))
    losses: "array[float]" = field(default_factory=lambda: array("d"))  # NaN where it was not finite
    judged: list[dict[str, Any]] = field(default_factory=list)  # epoch and evaluation events
    warnings: list[dict[str, Any]] = field(default_factory=list)
    preview: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)
    spent: float = (
        0.0  # seconds from the first step since the newest start to the newest event of training or judging
    )
    clock: float = 0.0  # what the clock said then
    epochs: int = 0  # how many the run will have; a time budget or a resume may change it

    def add(self, event: dict[str, Any]) -> None:
        """Take one event in; a start takes back what came after the step it starts from."""
        kind = event["event"]
        if kind == "start":
            self._take_back(event.get("from_step", 0))
            self.start = {**self.start, **event}
            self.epochs = event.get("epochs", self.epochs)
            self.end, self.first = {}, {}
        elif kind == "step":
            self._pass(event)
            self.steps.append(event["step"])
            self.losses.append(math.nan if event["loss"] is None else event["loss"])
            self.first, self.last = self.first or event, event
        elif kind in ("epoch", "evaluation"):
            self._pass(event)
            self.judged.append(event)
            self.epochs = event.get("epochs", self.epochs)
        elif kind == "warning":
            self.warnings.append(event)
        elif kind in ("preview", "checkpoint", "end"):
            setattr(self, kind, event)

    def _pass(self, event: dict[str, Any]) -> None:
        """Count the time up to an event; where the clock was set back, none."""
        now = float(event["time"])
        self.spent = self.spent + max(0.0, now - self.clock) if self.first else 0.0
        self.clock = now

    def _take_back(self, step: int) -> None:
        keep = bisect_right(self.steps, step)
        del self.steps[keep:], self.losses[keep:]
        self.judged = [event for event in self.judged if event["step"] <= step]
        if self.preview.get("step", 0) > step:
            self.preview = {}
        if self.last.get("step", 0) > step:
            self.last = {}

    @property
    def step(self) -> int:
        return self.steps[-1] if self.steps else int(self.start.get("from_step", 0))

    @property
    def steps_per_epoch(self) -> int:
        return int(self.start.get("steps_per_epoch", 0))

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row an epoch, as `Run.history()` gives."""
        return epoch_rows(self.judged)

    @property
    def best(self) -> dict[str, Any]:
        """The evaluation with the highest AP; empty before the first."""
        judged = [event for event in self.judged if event["event"] == "evaluation"]
        return max(judged, key=lambda event: event["ap"] or 0.0, default={})

    def seconds_left(self) -> float | None:
        """Estimated seconds to the end, judging included; None before there is anything to go by."""
        done = self.step - int(self.first.get("step", self.step))
        if done < 3 or not self.total_steps:
            return None
        return max(0.0, self.spent / done * (self.total_steps - self.step))


# -- how often it is drawn ---------------------------------------------------------------------------------------------


class Pace:
    """How often a dashboard looks and draws, so that all that show a run here together take `SHARE_OF_A_CORE`.

    Each holds a shared lock on the run's config.json, which Linux lists: so they are counted without a word between
    them. Elsewhere each takes itself for the only one.
    """

    def __init__(self, run: "Run", *, least: float) -> None:
        """least: Seconds between two looks where one dashboard shows the run and drawing is quick."""
        self.least, self._spent = least, time.process_time()
        self._file = (run.path / "config.json").open("rb")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def watching(self) -> int:
        """How many dashboards on this machine show the run, this one among them."""
        place = f":{os.fstat(self._file.fileno()).st_ino} ".encode()
        try:
            locks = Path("/proc/locks").read_bytes()
        except OSError:
            return 1
        return max(1, sum(place in line and b"FLOCK" in line for line in locks.splitlines()))

    def seconds(self) -> float:
        """Until the next look: by what this process has spent since the last one; 2 s at most where it is alone."""
        before, self._spent = self._spent, time.process_time()
        watching = self.watching()
        wanted = (self._spent - before) * watching / SHARE_OF_A_CORE
        return min(1.75 + 0.25 * watching, max(self.least, wanted))

    def close(self) -> None:
        """Be counted no more."""
        self._file.close()


# -- in words ----------------------------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Seconds as "1:02:03" or "2:03"; "?" for None."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number_text(value: float | None, digits: int = 3) -> str:
    """A number with so many digits after the point; "-" for None and what is not finite."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def start_line(event: dict[str, Any]) -> str:
    """A start event as a line: where the run is, or goes on, and what was chosen."""
    if event.get("rollback"):
        return f"back at step {event['from_step']}"
    choices = event.get("choices", {})
    settings = event.get("settings", {})
    reason = choices.get("reasons", {}).get("device", "") if settings.get("device") == "auto" else ""
    why = f" ({reason})" if reason else ""
    what = [f"{settings.get('detector', 'detector')} on {event.get('device', '?')}{why}"]
    if choices:
        size, tiles = f"{choices.get('image_size', '?')} px", choices.get("tiles")
        size += f" from tiles of {tiles.get('size', '?')} px" if tiles else ""
        what.append(f"batches of {choices.get('batch_size', '?')}, {size}, {choices.get('precision', '?')}")
        what.append(f"{choices.get('optimizer', '?')} at {choices.get('learning_rate', math.nan):.3g}")
    resumed = f"resumed at step {event['from_step']}: " if event.get("resumed") else ""
    return resumed + ", ".join(what)


def start_notes(event: Mapping[str, Any]) -> list[str]:
    """What a person should know of a start event's choices.

    A larger input size than the detector's own, tiles chosen or proposed, data workers fewer than wanted, or none for a
    GPU.
    """
    settings, choices = event.get("settings", {}), event.get("choices", {})
    reasons = choices.get("reasons", {})
    notes = []
    if not str(reasons.get("image_size", "the detector's own")).startswith("the detector's own"):
        notes.append(f"note: {choices.get('image_size', '?')} px: {reasons['image_size']}")
    if "tiles" in reasons:
        notes.append(f"note: tiles: {reasons['tiles']}")
    reason = str(reasons.get("num_workers", ""))
    notes += [f"note: {reason}"] if "/dev/shm" in reason else []
    if "cache" in reasons and event.get("cache") != settings.get("cache"):
        notes.append(f"note: images kept from epoch to epoch: {event.get('cache')}: {reasons['cache']}")
    workers = event.get("num_workers", settings.get("num_workers"))
    if workers == 0 and str(event.get("device", "")).startswith("cuda"):
        notes.append(
            "warning: no data workers: the process that trains decodes every image itself, and the GPU waits for it "
            "(--num-workers)"
        )
    return notes


def step_line(steps: Sequence[Mapping[str, Any]], progress: Progress) -> str:
    """Step events as a line: their mean loss and speed, and where the run stands after the last of them."""
    last = steps[-1]
    losses = [event["loss"] for event in steps if event["loss"] is not None]
    # an image: all batches have as many; a log that somebody has changed may lack any of these
    seconds = [
        1 / event["images_per_second"] if event.get("images_per_second") else math.nan for event in steps
    ]
    waited = sum(event.get("data_wait", math.nan) * took for event, took in zip(steps, seconds, strict=True))
    total, left = progress.total_steps, progress.seconds_left()
    parts = [
        f"step {last['step']:>{len(str(total))}}/{total}" if total else f"step {last['step']}",
        f"loss {number_text(sum(losses) / len(losses) if losses else None)}",
        f"lr {math.nan if last.get('learning_rate') is None else last['learning_rate']:.2g}",
        f"{len(steps) / sum(seconds):.1f} images/s",
        f"data wait {waited / sum(seconds):.0%}",
    ]
    if last.get("device_memory"):
        parts.append(f"GPU memory {last['device_memory'] / 1e9:.2f} GB")
    if left is not None:
        parts.append(f"{duration(left)} left")
    return "  ".join(parts)


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One epoch as a line of text."""
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", f"loss {number_text(row.get('loss'))}"]
    if row.get("ap") is not None:
        parts.append(
            f"val AP {number_text(row['ap'])}  AP50 {number_text(row.get('ap50'))}{' *' if row.get('best') else '  '}"
        )
    if row.get("images_per_second"):
        parts.append(f"{row['images_per_second']:.1f} images/s")
    if row.get("seconds"):
        parts.append(duration(row["seconds"]))
    return "  ".join(parts)


def closing_line(run: "Run") -> str:
    """What became of the run, and how to go on."""
    state, page = run.state, run.path / "report.html"
    if state == "finished" and page.exists():
        return f"{run!r}\nReport: {Path(where(run)) / page.name}"
    if state in ("stopped", "died", "failed") and run.checkpoints():
        return f"{run!r}\nSaved; od.open_run({where(run)!r}).resume() or `odkit resume {where(run)}` goes on."
    return repr(run)


def where(run: "Run") -> str:
    """The shortest path that opens a run from here."""
    here = Path.cwd()
    return str(run.path.relative_to(here)) if run.path.is_relative_to(here) else str(run.path)


def requested(run: "Run") -> str:
    """What the worker is asked for and has not done yet: "now", "epoch", "checkpoint", or "" for nothing."""
    try:
        return read_file(run.path / "stop", most_bytes=100).decode().strip()
    except (OSError, ValueError):
        return ""
