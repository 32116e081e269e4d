"""A follower: sends a run's events to a tracker while they are written, in a process of its own.

The training loop knows nothing of it, so that no tracker can fail, slow or block a run. A follower outlives the kernel
that started it, ends when the run has ended, and goes on where it stopped when the run resumes. In the run's folder it
has

    track-NAME.lock    held while it lives: a tracker follows a run once
    track-NAME.json    where it stands: the run's identity at the tracker, the bytes of events.jsonl that are there,
                       and what is in the way, which the dashboard and the terminal show as a warning
    track-NAME.log     what it and the tracker's own package say
"""

import contextlib
import fcntl
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from odkit.runs.events import EventReader, effective
from odkit.runs.run import Run
from odkit.runs.trackers import About, Board, Target, missing, read_targets, start_followers
from odkit.runs.worker import RunError, check_links

INTERVAL = 2.0  # seconds between two looks at the events
PATIENCE = 90.0  # seconds that a tracker has for one call: after that it counts as hung
SILENCE = 10.0  # seconds of it after which whoever waits is told so
EVENTS_A_CALL = 500
FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0  # seconds between tries, doubled from the first to the longest
LAST_TRIES = 150.0  # seconds of trying after the run has ended

BY_STEP, BY_EPOCH = ("step", "checkpoint"), ("epoch", "evaluation", "preview")  # what a start may undo

T = TypeVar("T")


def track(run: Run, to: str, *, wait: bool = True) -> str:
    """Send what a run logs to a tracker: of a run that trains, until it has ended; of another, all of it at once.

    Settings, warnings and curves go there (loss, learning rate, speed, AP, AP a class), at the time they happened. What
    a resume did over stands there once. Sent again, a run takes the place of what was sent of it before, or goes on
    where that ended. `fine_tune(..., track=...)` does the same by itself.

    Args:
        run: Alive or dead.
        to: "tensorboard", "mlflow", "wandb" or "trackio"; with where it keeps its runs as "tensorboard=FOLDER",
            "mlflow=http://127.0.0.1:5000", "wandb=PROJECT". Without, what the tracker's own environment variables say.
        wait: False: in the background, as `fine_tune` does it; track-NAME.log in the run's folder says how it goes.

    Returns:
        What finds the run at the tracker: TensorBoard's folder, MLflow's and W&B's id, Trackio's name; "" where not
        waited for.

    Raises:
        InputError: No tracker has that name.
        MissingPackageError: It is not installed; the message says what to type.
        RunError: It does not take the run, or another follower is at it.
    """
    (target,) = read_targets(to)
    check_links(run.path)
    if not wait:
        start_followers(run.path, [str(target)])
        return ""
    return Follower(run, target).follow()


def in_background(run: Run, target: Target) -> bool:
    """Whether this process was started to follow, and prints into that tracker's log."""
    try:
        return os.path.samestat(os.fstat(2), os.stat(run.path / f"track-{target.name}.log"))
    except OSError:
        return False


class Follower:
    """One tracker at one run."""

    def __init__(self, run: Run, target: Target) -> None:
        self.run, self.target = run, target
        self.title = target.tracker.title
        self.background = in_background(run, target)
        self.reader = EventReader(run.path / "events.jsonl")
        self.board: Board | None = None
        self.identity = ""
        self.sure = ("", 0)  # the identity and how many bytes of the log are known to be there
        self.step, self.epoch = -1, -1  # the furthest that stands there
        self.when: float | None = None  # the last event there
        self.trouble = ""

    def follow(self) -> str:
        """Follow until the run has ended and all is sent."""
        if self.background:
            os.nice(10)  # what trains goes first
        with self._alone():
            self.sure = self._kept()
            try:
                return self._follow()
            except Exception as error:
                self._note(str(error), aloud=False)
                raise

    def _follow(self) -> str:
        wait, ended = FIRST_WAIT, math.inf
        alive = self.run.alive
        live = (
            alive or self.background
        )  # what happens while a run trains may pass; who waits for a result is told
        while True:
            try:
                self._catch_up()
                if not alive and self._end():
                    return self.identity
                self._note("")
                wait = FIRST_WAIT
            except ImportError as error:
                raise missing(self.target.name, error) from error
            except Exception as error:
                self.board = None  # whatever state it is in
                if not self.run.path.exists():
                    raise RunError(f"{self.run.path} is gone") from error
                told = os.environ.get("MLFLOW_TRACKING_URI") if self.target.name == "mlflow" else ""
                place = self.target.place or told or "its default place"
                problem = f"{self.title} did not take {self.run.name} at {place}: {_line(error)}"
                ended = math.inf if alive else min(ended, time.monotonic())
                if not live:
                    raise RunError(problem) from error
                if time.monotonic() - ended > LAST_TRIES:
                    again = f"`odkit track {self.run.path} --to {self.target}` sends it whole"
                    raise RunError(f"{problem}. Given up; {again}") from error
                self._note(f"{problem}. Trying again; the run goes on without it")
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                time.sleep(INTERVAL)
            alive = self.run.alive  # before its last events are read

    # -- sending -----------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Send what is new; where that fails, as if nothing of it had been sent."""
        fresh = False
        if self.board is None:
            identity, sent = self.sure
            fresh = not self._begin(identity)
            self.reader.offset = 0
            if not fresh:
                self._mark(effective(self.reader.new(upto=sent)))
        before = self.reader.offset
        events = self.reader.new()
        try:
            self._send(effective(events) if fresh else events)
        except BaseException:
            self.reader.offset = before
            raise
        if (self.identity, self.reader.offset) != self.sure:
            self.sure = self.identity, self.reader.offset
            self._save()

    def _begin(self, kept: str) -> bool:
        """Make the board; whether it goes on where an earlier follower stopped."""
        config = self.run.config
        about = About(
            self.run.name,
            self.run.path,
            str(config["dataset"]),
            str(config["fingerprint"]),
            config["settings"],
            next((event["time"] for some in EventReader(self.reader.path).batches() for event in some), None),
        )
        board: Board = self.target.tracker.board(about, self.target.place)
        goes_on = self._in_time(board.begin, kept)
        self.board, self.identity = board, board.identity
        self.step, self.epoch = -1, -1
        self._say(f"{self.title} {'goes on with' if goes_on else 'begins'} {board.identity}")
        return goes_on

    def _send(self, events: Sequence[dict[str, Any]]) -> None:
        unsent: list[dict[str, Any]] = []
        for event in events:
            if event["event"] == "start" and self._undoes(event, unsent):
                self._deliver(unsent)
                unsent = self._undo(event)
            else:
                unsent.append(event)
        self._deliver(unsent)

    def _undoes(self, start: Mapping[str, Any], unsent: Sequence[Mapping[str, Any]]) -> bool:
        """Whether some of what stands there, or is about to, is done over from this start on."""
        step: int = max([self.step, *(e["step"] for e in unsent if e["event"] in BY_STEP)])
        epoch: int = max([self.epoch, *(e["epoch"] for e in unsent if e["event"] in BY_EPOCH)])
        return bool(step > start.get("from_step", 0) or epoch > start.get("from_epoch", math.inf))

    def _undo(self, start: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Take back what is done over; returns what is to stand there besides what was left."""
        assert self.board is not None
        events = EventReader(self.reader.path).new()
        standing = effective(events[: events.index(dict(start)) + 1])
        step = start.get("from_step", 0)
        self._say(f"from step {step} on it is done over")
        self.step, self.epoch = -1, -1
        if self._in_time(self.board.unsay, step):
            self._mark(e for e in standing if e.get("step", 0) < step)
            return [e for e in standing if e.get("step", 0) >= step]
        self.sure = "", 0
        self._save()
        self._begin("")
        return standing

    def _deliver(self, events: Sequence[dict[str, Any]]) -> None:
        assert self.board is not None
        for first in range(0, len(events), EVENTS_A_CALL):
            some = events[first : first + EVENTS_A_CALL]
            self._in_time(self.board.send, some)
            self._mark(some)

    def _mark(self, events: Iterable[Mapping[str, Any]]) -> None:
        for event in events:
            self.when = event["time"]
            if event["event"] in BY_STEP:
                self.step = max(self.step, event["step"])
            elif event["event"] in BY_EPOCH:
                self.step, self.epoch = max(self.step, event["step"]), max(self.epoch, event["epoch"])

    def _end(self) -> bool:
        """Say at the tracker how the run ended; False where it has been taken up again meanwhile."""
        assert self.board is not None
        state = self.run.state
        if state == "running":
            return False
        self._in_time(self.board.end, state, self.when)
        self.trouble = ""
        self._save()
        self._say(f"the run has ended ({state}); all of it is there")
        return True

    def _in_time(self, function: Callable[..., T], *args: Any) -> T:
        """See below; a person who waits for an answer is told what is waited for."""
        return _in_time(function, *args, waiting=self._tell_waiting)

    def _tell_waiting(self) -> None:
        if not self.background:
            print(
                f"{self.title} has not answered for {SILENCE:g} s; given up after {PATIENCE:g} (Ctrl-C: now)",
                file=sys.stderr,
                flush=True,
            )

    # -- its files in the run's folder -------------------------------------------------------------------------------

    def _file(self, suffix: str) -> Path:
        return self.run.path / f"track-{self.target.name}.{suffix}"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock; an earlier follower may still be about its last words."""
        try:
            handle = os.open(self._file("lock"), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:  # a folder that may only be read
            yield
            return
        try:
            for second in range(int(LAST_TRIES + PATIENCE) if self.background else 1):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if second == 0:
                        self._say("another follower is at it")
                    if self.background:
                        time.sleep(1)
            else:
                raise RunError(
                    f"{self.run.name} is followed by {self.title} already; {self._file('log')} says how it goes"
                )
            yield
        finally:
            os.close(handle)

    def _kept(self) -> tuple[str, int]:
        """Where an earlier follower of this very run at this very place stopped: identity, bytes of the log."""
        try:
            kept = orjson.loads(self._file("json").read_bytes())
            own = (kept["folder"], kept["to"]) == (str(self.run.path), str(self.target))
            return (str(kept["identity"]), int(kept["sent"])) if own else ("", 0)
        except (OSError, ValueError, TypeError, KeyError):
            return "", 0

    def _save(self) -> None:
        stands = {
            "folder": str(self.run.path),
            "to": str(self.target),
            "identity": self.sure[0],
            "sent": self.sure[1],
            "trouble": self.trouble,
        }
        with contextlib.suppress(OSError):  # a full disk, a folder that may only be read
            self._file("json").write_bytes(orjson.dumps(stands))

    def _note(self, trouble: str, *, aloud: bool = True) -> None:
        if trouble == self.trouble:
            return
        self.trouble = trouble
        self._save()
        self._say(trouble or "it is well again")
        if trouble and aloud and not self.background:
            print(f"warning: {trouble}", file=sys.stderr, flush=True)

    def _say(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
        with contextlib.suppress(OSError):
            if self.background:
                print(line, end="", file=sys.stderr, flush=True)
            else:
                with self._file("log").open("a") as file:
                    file.write(line)


def _in_time(function: Callable[..., T], *args: Any, waiting: Callable[[], object] = lambda: None) -> T:
    """What a tracker's function returns or raises, TimeoutError if neither; `waiting` is called on the way."""
    found: list[T] = []
    raised: list[BaseException] = []

    def call() -> None:
        try:
            found.append(function(*args))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(min(SILENCE, PATIENCE))
    if thread.is_alive():
        waiting()
        thread.join(max(0.0, PATIENCE - SILENCE))
    if thread.is_alive():
        raise TimeoutError(f"no answer in {PATIENCE:.0f} s")
    if raised:
        error = raised[0]
        raise error if isinstance(error, Exception) else RuntimeError(_line(error))
    return found[0]


def _line(error: BaseException, most: int = 300) -> str:
    """An error in a line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
