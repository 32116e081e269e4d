"""What the commands share: how a function becomes one, what they read, how they show a run and their answers."""

import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from odkit import detection
from odkit.cli.flags import Classes, Further, Reading
from odkit.runs import RUNS, Run, dashboard, open_run
from odkit.system import FileInTheWayError, InputError, MissingFileError, printable, write_file

if TYPE_CHECKING:
    from odkit.analysis import Calibration, Evaluation, Intervals, Thresholds
    from odkit.analysis.figures import Figure
    from odkit.data import Dataset
    from odkit.detection import Detector, OnnxDetector

COMMANDS: dict[str, Callable[..., int]] = {}
"""Every command by its name, in their order."""
PICTURES = (".png", ".svg", ".pdf")


def command(function: Callable[..., int]) -> Callable[..., int]:
    """Make a function a command."""
    COMMANDS[function.__name__.replace("_", "-")] = function
    return function


def read_dataset(
    path: str, classes: Classes = Classes(), reading: Reading = Reading(), *, val: float = 0.2
) -> "Dataset":
    """The dataset at a path (a folder, a label file, or what `Dataset.save()` wrote), or the demo.

    What was recognised in a folder or label file, and chosen, is said on stderr.

    Args:
        path: The path, or "demo".
        classes: What becomes of its classes.
        reading: How it is read.
        val: Share that is dealt to "val" where it has no such split.
    """
    from odkit.data.demo import demo_dataset
    from odkit.data.formats import load_dataset

    if means_the_demo(path):
        dataset = demo_dataset()
    else:
        dataset = load_dataset(path, val=val, **vars(reading))
        if not path.endswith(".npz"):
            notes = (f"  - {printable(note)}" for note in dataset.notes)
            print(f"{printable(path)}:", *notes, sep="\n", file=sys.stderr)
    if classes.rename:
        pairs = [text.partition("=") for text in classes.rename]
        if wrong := [old for old, _, new in pairs if not new]:
            raise InputError(f"--rename wants OLD=NEW, not {wrong[0]!r} alone")
        dataset = dataset.with_classes({old: new for old, _, new in pairs})
    return dataset.with_classes(classes.classes) if classes.classes else dataset


def means_the_demo(path: str) -> bool:
    """Whether the word "demo" is meant, and no folder of that name."""
    return path == "demo" and not Path(path).exists()


def read_detector(name: str, device: str = "auto") -> tuple[Run | None, "Detector | OnnxDetector"]:
    """The detector of a run (folder or name under runs/), and that run; or of a file, and None.

    Raises:
        RunError: The run has no detector yet.
        MissingFileError: There is neither such a run nor such a file.
    """
    path = Path(name)
    if path.exists() and not path.is_dir():
        return None, detection.load_detector(path, device=device)
    if not path.exists() and not (RUNS / path).exists():
        raise MissingFileError(f"{name} is neither a run (folder, or name under {RUNS}/) nor a detector file")
    run = open_run(path)
    return run, run.detector(device=device)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as text: a column a key of the first row, numbers to the right."""

    def cell(value: Any) -> str:
        if value is None:
            return "-"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    heads = list(rows[0])
    texts = [[cell(row.get(key)) for key in heads] for row in rows]
    widths = [max(len(line[i]) for line in [heads, *texts]) for i in range(len(heads))]
    numeric = [all(isinstance(row.get(key), int | float | None) for row in rows) for key in heads]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [heads, *texts]
    ]
    return "\n".join(lines)


@contextmanager
def warnings_said() -> Iterator[list[warnings.WarningMessage]]:
    """Afterwards each warning is a line on stderr; what was warned of is in the list then."""
    with warnings.catch_warnings(record=True) as said:
        yield said
    for warning in said:
        print(f"warning: {printable(str(warning.message))}", file=sys.stderr)


def check_figure(path: Path | None) -> None:
    """Raises InputError where --figure names no file that a figure can be written to: said before hours of work."""
    if path is not None and (path.suffix.lower() not in PICTURES or not path.parent.is_dir()):
        raise InputError(f"--figure {path}: a file ({', '.join(PICTURES)}) in a folder that is there")


def write_figure(figure: "Figure", path: Path) -> None:
    """A figure as a file, in the format of its suffix."""
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower())
    write_file(path, picture.getvalue())


def print_json(value: Any) -> None:
    """A value as JSON, arrays included."""
    print(json_text(value, orjson.OPT_INDENT_2))


def json_text(value: Any, option: int = 0) -> str:
    """A value as JSON that stdout can bear: what its encoding has not, and what is no text, as escapes of JSON."""
    try:
        text = orjson.dumps(value, option=option | orjson.OPT_SERIALIZE_NUMPY, default=str).decode()
        text.encode(sys.stdout.encoding or "utf-8")
    except (TypeError, UnicodeEncodeError):
        # orjson takes no lone surrogates, which stand for what is no text
        bare = json.dumps(value, default=_as_plain)
        plain = json.loads(bare, parse_constant=lambda name: None)  # no NaN, as orjson
        text = json.dumps(plain, indent=2 if option & orjson.OPT_INDENT_2 else None)
    return text


def _as_plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def said_further(
    evaluation: "Evaluation", further: Further
) -> "dict[str, Thresholds | Intervals | Calibration]":
    """What is asked for besides COCO's figures, by name."""
    more: dict[str, Thresholds | Intervals | Calibration] = {}
    if further.want_precision is not None:
        more["for_precision"] = evaluation.score_for(precision=further.want_precision)
    if further.want_recall is not None:
        more["for_recall"] = evaluation.score_for(recall=further.want_recall)
    if further.calibration:
        more["calibration"] = evaluation.calibration()
    if further.intervals:
        more["intervals"] = evaluation.intervals()
    return more


def say_background(run: Run) -> int:
    print(f"{run.name} trains in the background.\n  odkit show {run.path}\n  odkit stop {run.path}")
    return 0


def say_end(run: Run) -> int:
    print(run)
    if (page := run.path / "report.html").exists() and not run.alive:
        print(f"Report: {page}")
    if run.state in ("stopped", "died") and run.checkpoints():
        print(f"Saved: {run.checkpoints()[-1]}\nGo on: odkit resume {run.path}")
    return 0


def watch(run: Run, start: Callable[[], object]) -> int:
    """Start and show a run until it ends; 0, or 128 and the number of the signal that ended it, as shells count.

    Ctrl-C and SIGTERM ask the run to save and stop; a second Ctrl-C doesn't wait for that.
    """
    _ = dashboard.show_run  # loaded before the start, so that Ctrl-C meets who is ready for it
    asked: list[int] = []
    started = False

    def ask(number: int, frame: Any) -> None:
        if started and asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        run.request("now")
        # not print(): a signal may arrive in the middle of one
        os.write(
            2,
            f"\n{run.name}: saving and stopping after this step. Ctrl-C again: don't wait for it.\n".encode(),
        )

    try:
        with signals_to(ask):
            start()  # is not cut short: half a start would leave a worker that has no request
            started = True
            if asked:  # while it started, which clears older requests
                run.request("now")
            if signal.SIGINT in asked[1:]:
                raise KeyboardInterrupt
            run.wait()
    except KeyboardInterrupt:
        dashboard.say_unwatched(run)
    if run.alive:
        return 130
    say_end(run)
    return 128 + asked[0] if asked and run.state != "finished" else 0


def refuse_filled(out: Path) -> None:
    """A folder that is written to is new or empty, so that nothing in it is written over."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileInTheWayError(f"--out {out} is there already; give a new or an empty folder")


class Stop:
    """Whether Ctrl-C or SIGTERM (`signals_to(stop.ask)`) asked a loop to end, which it asks after each batch.

    Before the first batch there is nothing to keep, and a second Ctrl-C does not wait for the batch: both interrupt.

    Attributes:
        signal: Number of the first signal; 0: none came.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._looking = False

    def __call__(self) -> bool:
        self._looking = True
        return bool(self.signal)

    def ask(self, number: int, frame: Any) -> None:
        if not self._looking or (self.signal and number == signal.SIGINT):
            raise KeyboardInterrupt
        self.signal = self.signal or number
        os.write(2, b"\nStopping after this batch.\n")


@contextmanager
def tidied() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP (`docker stop`, a terminal that is closed) end it as an error does.

    So what is half written is removed. The exit status is 128 and the number of the signal, as shells count.
    """

    def end(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one does not cut the tidying short
        raise SystemExit(128 + number)

    wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in wanted}
    try:
        for number, earlier in before.items():
            if earlier == signal.SIG_DFL:  # `nohup` has SIGHUP ignored
                signal.signal(number, end)
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def signals_to(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """While inside, Ctrl-C and SIGTERM call `handler`."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
