"""Run: the run folder as an object. Start a worker, follow it, stop it, resume it.

The run folder is the interface between the worker process that trains and everyone who watches: notebook, command
line, report. It holds

    config.json         settings (a resume writes down what it changes), name, fingerprint and classes of the data
    dataset.npz         what is trained on and judged on after each epoch, as columns
    test.npz            the test images, which nothing looks at but `Run.test()`
    events.jsonl        what happened, one JSON object a line, only ever appended to
    checkpoints/        step-00000120.pt and so on: everything a resume needs
    detector.safetensors, evaluation.json, predictions.npz    the best epoch's detector and what it found
    test.json           what the test images said, look by look
    track-NAME.json, .log, .lock    how far a tracker has followed, and what it says (`follower.py`)
    benchmark.json      what `od.benchmark()` measured last
    audit.json          what the audit said of the data before the run began
    report.html, MODEL_CARD.md    the run as a page to hand on, and as a card for the Hub, written when it ends
    stop                a request to the worker: "now", "epoch" or "checkpoint"
    events.reserve      while a worker is at it: room on the disk for its last words, should the disk fill up
    micro_batch_size    with how many images at once a worker that ran short of memory starts again
    worker.lock         held by the living worker, released by the system when it ends, however it ends
    worker.log          what the worker printed

This module imports neither torch nor numpy: looking at runs is quick in any kernel, terminal or container that sees
the folder.

Events, each with `event`, `time` (Unix seconds) and `step` (optimizer steps taken so far):

    start       machine, versions, settings, choices with their reasons, num_workers (data workers a process), dataset
                fingerprint, git commit; from_step and from_epoch: where a resume goes on
    step        epoch, loss, losses by term (means over the batch of all processes), learning_rate, grad_norm,
                images_per_second, data_wait (share of the step spent waiting for data, 0 to 1), memory (bytes of
                this process), device_memory (bytes)
    epoch       epoch (1-based), loss (mean), learning_rate, seconds, images_per_second, total_seconds (of training
                since step 0)
    evaluation  epoch, ap, ap50, ap75, per_class, seconds, best (whether it is the best so far), best_so_far (epoch,
                ap, ap50)
    preview     epoch, predictions on a few held-out images (for the dashboard)
    checkpoint  file, seconds, bytes
    warning     kind, message
    stop        reason: what was asked for, or by which signal
    end         reason ("finished", "stopped", "failed"), message, seconds
"""

import math
import os
import shutil
import time
import warnings
import zipfile
from collections.abc import Collection, Mapping, Sequence
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from odkit import analysis, data, detection
from odkit.runs import dashboard
from odkit.runs import report as reports
from odkit.runs.events import EventReader, backwards, effective, epoch_rows
from odkit.runs.final_test import IMAGES, FinalTest, judge, read_tests, tested_figures
from odkit.runs.settings import (
    Settings,
    check_detector,
    check_machine,
    make_settings,
    resumed_settings,
    with_epochs,
)
from odkit.runs.trackers import read_targets, start_followers
from odkit.runs.worker import (
    RunError,
    check_links,
    disk_trouble,
    is_locked,
    read_own,
    start_worker,
    worker_command,
    writing,
)
from odkit.system import (
    FileInTheWayError,
    InputError,
    OdkitError,
    UnknownSettingError,
    open_file,
    sync_folder,
    write_file,
)

if TYPE_CHECKING:
    from odkit.analysis import Evaluation
    from odkit.data import Dataset, Predictions
    from odkit.detection import Detector

RUNS = Path("runs")
MOST_NAME = 200  # bytes of a run's name: a folder's may have 255 and whoever copies it adds to it
State = Literal["new", "running", "finished", "stopped", "failed", "died"]
Precision = Literal["fp32", "bf16", "fp16"]


class Run:
    """One training run, alive or dead, seen through its folder.

    Raises:
        RunError: The folder is not a run's.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        try:
            _read_config(self.path / "config.json")
        except (FileNotFoundError, NotADirectoryError):
            near = sorted(folder.name for folder in _folders_with_config(self.path.parent))
            raise RunError(
                f"{path} is not a run folder (no config.json). Runs beside it: {', '.join(near) or 'none'}"
            ) from None

    # -- looking -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> dict[str, Any]:
        """What config.json holds: settings, class names, fingerprint, counts."""
        return _read_config(self.path / "config.json")

    @property
    def settings(self) -> Settings:
        return make_settings(self.config["settings"])

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.config["class_names"])

    def dataset(self, split: str | None = None) -> "Dataset":
        """What the run trains on and is judged on after each epoch; one split of it if named, or the test split."""
        if split == self.settings.test_split and (self.path / IMAGES).exists():
            return data.Dataset.load(self.path / IMAGES)
        dataset = data.Dataset.load(self.path / "dataset.npz")
        return dataset.split(split) if split else dataset

    def events(self, *, raw: bool = False, only: Collection[str] | None = None) -> list[dict[str, Any]]:
        """All events so far; `raw` keeps those that a resume did over.

        Args:
            raw: See above.
            only: The kinds wanted, or the one ("epoch", "evaluation"...); without "step" a long log is read in a
                fraction of the time and memory.
        """
        reader = EventReader(self.path / "events.jsonl")
        only = (only,) if isinstance(only, str) else only
        if raw or only is None:
            events = reader.new(only=only)
            return events if raw else effective(events)
        events = effective(reader.new(only={*only, "start"}))
        return [event for event in events if event["event"] in only]

    def history(self) -> list[dict[str, Any]]:
        """One row an epoch: epoch, step, loss, learning_rate, seconds, images_per_second; ap, ap50, ... if judged."""
        return epoch_rows(self.events(only=("epoch", "evaluation")))

    def checkpoints(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*.pt"))

    @property
    def alive(self) -> bool:
        """Whether a worker holds the run's lock."""
        return is_locked(self.path)

    @property
    def state(self) -> State:
        """One of "new", "running", "finished", "stopped" (resumable), "failed" and "died" (killed; resumable)."""
        if self.alive:
            return "running"
        if end := self.end:
            reason: State = end.get("reason", "failed")
            return reason
        return "died" if self.last_event or (self.path / "worker.log").exists() else "new"

    @property
    def last_event(self) -> dict[str, Any]:
        """The newest event; empty before the first."""
        return next(backwards(self.path / "events.jsonl"), {})

    @property
    def end(self) -> dict[str, Any]:
        """The event that says how the newest worker ended; empty where it lives or was killed."""
        # of several processes the others may write a few words after the one that says why the run ends
        for event in islice(backwards(self.path / "events.jsonl"), 5):
            if event["event"] in ("start", "end"):
                return event if event["event"] == "end" else {}
        return {}

    @property
    def best(self) -> dict[str, Any]:
        """The best evaluation event; empty before the first."""
        judged = self.events(only=("evaluation",))
        return max(judged, key=lambda e: (e["ap"] or 0.0, -e["step"]), default={})

    def no_detector(self) -> RunError:
        """What is raised where the run has no detector yet."""
        return RunError(
            f"{self.name} has no detector yet: it is saved with the first evaluation ({self.state})"
        )

    def detector_file(self) -> Path:
        """The file of the best epoch's detector.

        Raises:
            RunError: The run has no detector yet.
        """
        file = self.path / "detector.safetensors"
        if not file.exists():
            raise self.no_detector()
        return file

    def detector(self, *, device: str = "auto") -> "Detector":
        """The best epoch's detector, in evaluation mode, on a device; "auto": the one that training would choose.

        Raises:
            RunError: The run has no detector yet.
        """
        found = detection.load_detector(self.detector_file(), device=device)
        assert isinstance(found, detection.Detector)
        return found

    def precision(self, device: object) -> Precision:
        """The number format that gives `detector()` the run's own figures on a device (as "cuda:1" or torch has it).

        It is the one that its best epoch was judged with, where that was a device of this kind, else "fp32".
        """
        kind, precision = self._judged_on()
        return precision if kind == _kind(device) else "fp32"

    def _judged_on(self) -> tuple[str, Precision]:
        """The kind of device that the best epoch was judged on, "" before there is one, and the number format."""
        start: dict[str, Any] = {}
        judged: dict[str, Any] = {}
        for event in self.events(only=("start", "evaluation")):
            if event["event"] == "start":
                start = {**start, **event}  # after a rollback it says only where to
            elif event["event"] == "evaluation" and event.get("best"):
                judged = start
        precision: Precision = judged["choices"]["precision"] if judged.get("device") else "fp32"
        return _kind(judged.get("device", "")), precision

    def predictions(self) -> "Predictions":
        """What the best epoch's detector found on the validation split (`run.dataset("val")`)."""
        return data.Predictions.load(self.path / "predictions.npz")

    def found_in(self, dataset: "Dataset", *, device: object, precision: str) -> "Predictions | None":
        """What the best epoch's detector found in these images when it was judged.

        None where it was not judged on all of them, on another kind of device or in another number format, or where a
        picture is newer than that.
        """
        if (_kind(device), precision) != self._judged_on():
            return None
        own = self.dataset(self.settings.val_split)
        known = dict(zip(own.image_ids, own.image_paths, strict=True))
        asked = dict(zip(dataset.image_ids, dataset.image_paths, strict=True))
        if not asked.items() <= known.items():
            return None
        try:
            judged = (self.path / "predictions.npz").stat().st_mtime_ns
            # the detector's file is written first: a newer one is another's
            files: list[str | Path] = [self.path / "detector.safetensors", *asked.values()]
            same = all(os.stat(file).st_mtime_ns <= judged for file in files)
        except OSError:  # one is not there, which whoever looks at it says
            return None
        return self.predictions() if same else None

    def evaluation(self) -> "Evaluation":
        """The best epoch's predictions against the validation split's ground truth, which chose that epoch.

        `test()` says what other images say.
        """
        return analysis.evaluate(self.dataset(self.settings.val_split), self.predictions())

    def test(self, dataset: "Dataset | str | Path | None" = None, *, device: str = "auto") -> FinalTest:
        """Judge the best epoch's detector on the test images, once, and write down what they said.

        They are those that stood aside when the run was made (`Settings.test_split`). They are not judged again while
        the detector is the same: the next call returns what `test.json` holds. Another detector of this run, after a
        resume, is judged anew and stands behind the first, and its figures say how often the images were looked at
        (by the runs beside this one as well): who chooses by test figures chooses the luckiest.

        Args:
            dataset: Other labelled images, or their folder: their test split if they have one, else all of them.
                Classes are matched by name.
            device: Where to compute; "auto": where training would. Precision and image size are the run's own.

        Raises:
            RunError: The run is running, has no detector yet, or has no test images; the message says what to do.
            InputError: The run has seen some of the other images, or does not know a class of theirs.
            DatasetFaultError: The audit of the other images has fatal findings.
        """
        looks = len(self.tests())
        test = judge(self, dataset, device)
        if len(self.tests()) > looks:
            reports.report_anew(self)
        return test

    @property
    def has_test_images(self) -> bool:
        """Whether images with boxes were set aside for `test()` when the run was made."""
        return (self.path / IMAGES).exists() and not data.Dataset.load(self.path / IMAGES).box_crowd.all()

    def tests(self) -> list[FinalTest]:
        """What test images have said of this run's detectors, oldest first; empty before the first `test()`."""
        return read_tests(self)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines the worker printed."""
        try:
            with open_file(self.path / "worker.log") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - (1 << 16)))
                text = file.read().decode(errors="replace")
        except (OSError, InputError):  # there is none, or something else is in its place
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def report(self, path: str | Path | None = None) -> Path:
        """Write the run as one page of HTML, report.html in its folder, and MODEL_CARD.md beside it; see `od.report`.

        Args:
            path: Another file for the page; no card is written then.
        """
        return reports.report(self, path)

    # -- doing ---------------------------------------------------------------------------------------------------

    def command(self) -> list[str]:
        """The command that trains this run: what `start()` starts, and what a person could type."""
        return worker_command(self.path, self.settings.processes)

    def start(self) -> "Run":
        """Start a worker in a session of its own; it goes on from the newest checkpoint, if there is one.

        The run's trackers follow it, each in a process of its own.

        Raises:
            RunError: A worker is already at it, or the folder cannot be written.
        """
        start_worker(self.path, self.settings.processes)
        start_followers(self.path, self.config.get("track", []))
        return self

    def stop(self, when: Literal["now", "epoch"] = "now", *, timeout: float | None = None) -> "Run":
        """Ask the worker to save and end, and wait until it has; nothing happens where none is at it.

        Args:
            when: Finish the step ("now") or the epoch first.
            timeout: Seconds to wait at most; None: as long as it takes, 0: ask and return at once. Interrupting ends
                the waiting; the request stands either way.

        Raises:
            RunError: It has not ended in `timeout` seconds, or the folder cannot be written.
        """
        if not self.alive:
            return self
        self.request(when)
        if timeout == 0:
            return self
        end = math.inf if timeout is None else time.monotonic() + timeout
        while self.alive:
            if time.monotonic() > end:
                raise RunError(
                    f"{self.name} has not stopped after {timeout:g} s; the request stays in its folder"
                )
            time.sleep(0.05)
        return self

    def request(self, what: Literal["now", "epoch", "checkpoint"]) -> None:
        """Leave a request for the worker and return at once."""
        check_links(self.path)
        with writing(self.path):
            write_file(self.path / "stop", what.encode())

    def resume(self, *, wait: bool = True, track: Sequence[str] | None = None, **changes: Any) -> "Run":
        """Go on where the newest checkpoint stands, as if there had been no break.

        The weights are exactly those of a run without one where a single process trains on a CPU; on a GPU, as far as
        PyTorch takes sums in a fixed order (`deterministic`).

        Args:
            wait: Show the progress until the end.
            track: Trackers to follow it from now on, see `fine_tune`; None: those that did.
            changes: Settings to change; only those of `settings.MAY_CHANGE`. `epochs` and `minutes` count from the
                run's beginning: with more of either, a finished run goes on.

        Raises:
            RunError: A worker is at it, there is nothing left to do, or none of its checkpoints can be read.
            MissingPackageError: A tracker is not installed.
            InputError, UnknownSettingError: A setting may not change, is out of range or unknown, or there is no such
                device here.
        """
        if self.alive:
            raise RunError(f"{self.name} is running; stop it first")
        config = self.config
        tracked = config.get("track", []) if track is None else [str(one) for one in read_targets(track)]
        old = make_settings(config["settings"])
        new = with_epochs(resumed_settings(old, changes), config["images"][old.train_split])
        if reason := self._nothing_left(old, new):
            raise RunError(
                f"{reason}; resume(epochs=...) or resume(minutes=...) with more, counted from the run's beginning, "
                f"takes it further (odkit resume {self.path} --epochs ...)"
            )
        if lost := self._lost_checkpoints():
            raise RunError(lost)
        check_machine(make_settings({**changes, "processes": new.processes}))
        if new.device not in (old.device, "auto", "cpu"):
            detection.pick_device(new.device)  # before it is written down, and holds for the next resume too
        check_links(self.path)
        if new != old or tracked != config.get("track", []):
            if changes.get("epochs"):
                config["chosen"] = []
            config |= {"settings": new.to_dict(), "track": tracked}
            with writing(self.path):
                _write_json(self.path / "config.json", config)
        self.start()
        return self.wait() if wait else self

    def wait(self, *, show: bool = True) -> "Run":
        """Show the run until it ends: a dashboard in a notebook, a progress bar in a terminal.

        Interrupting (the kernel's stop button, Ctrl-C) ends the waiting, not the run.

        Raises:
            RunError: The run failed; the message says why and how to go on.
        """
        if show:
            dashboard.show_run(self)
        else:
            while self.alive:
                time.sleep(0.05)
        if not self.alive and self.state in ("failed", "died"):
            raise RunError(self.trouble())
        return self

    def trouble(self) -> str:
        """Why the run failed or died, and what to do; "" where nothing is wrong."""
        if self.state not in ("failed", "died"):
            return ""
        end = self.end
        saved = self.checkpoints()
        way_on = (
            f"`odkit resume {self.path}` goes on from {saved[-1].name}."
            if saved
            else "Nothing was saved yet."
        )
        if self.state == "failed" and end.get("message"):
            return f"{self.name} failed: {end['message']}\n{way_on}"
        why = disk_trouble(self.path) or "killed?"
        return f"{self.name}: the worker ended without a word ({why}). {way_on}\nIts last lines:\n{self.log_tail()}"

    def delete(self) -> None:
        """Remove the run's folder, and all that is in it.

        Raises:
            RunError: It is running, or the folder is a link to it, or cannot be written.
        """
        if self.alive:
            raise RunError(f"{self.name} is running; stop it first")
        if self.path.is_symlink():
            raise RunError(
                f"{self.path} is a link to {self.path.resolve()}: remove the link yourself, or the run there"
            )
        with writing(self.path):
            shutil.rmtree(self.path)

    # -- showing -------------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """The run in a row.

        name, state, detector, epoch, epochs, loss; val_ap and val_ap50, the best, of the validation images; test_ap
        with its 95% interval, test_low to test_high, once the test images were asked about that detector; minutes.
        """
        settings = self.settings
        epoch, judged = self._newest_figures()
        best = judged.get("best_so_far", judged)
        return {
            "name": self.name,
            "state": self.state,
            "detector": settings.detector,
            "epoch": epoch.get("epoch", 0),
            "epochs": epoch.get("epochs", settings.epochs) if settings.minutes else settings.epochs,
            "loss": epoch.get("loss"),
            "val_ap": best.get("ap"),
            "val_ap50": best.get("ap50"),
            **tested_figures(self, best),
            "minutes": round(epoch.get("total_seconds", 0.0) / 60, 2),
        }

    def _newest_figures(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The last epoch event and the last evaluation that stand, from the end of the log; empty before the first."""
        found: dict[str, dict[str, Any]] = {}
        step, epoch = math.inf, math.inf  # later ones were done over
        for event in backwards(self.path / "events.jsonl", only=("start", "epoch", "evaluation")):
            kind = event["event"]
            if kind == "start":
                step, epoch = min(step, event["from_step"]), min(epoch, event.get("from_epoch", math.inf))
            elif kind in ("epoch", "evaluation") and event["step"] <= step and event["epoch"] <= epoch:
                found.setdefault(kind, event)
            if len(found) == 2 or step == 0:
                break
        return found.get("epoch", {}), found.get("evaluation", {})

    def _lost_checkpoints(self) -> str:
        """Why the run cannot go on from where it was, though it has been somewhere; "" where it can."""
        saved = self.checkpoints()
        if not saved and (self.path / "detector.safetensors").exists():
            return f"{self.name} has no checkpoint left in {self.path / 'checkpoints'}. {self.no_way_on()}"
        if saved and not any(_is_archive(file) for file in saved):
            return (
                f"none of the checkpoints of {self.name} can be read: {', '.join(file.name for file in saved)} "
                f"{'is' if len(saved) == 1 else 'are'} cut short or damaged. {self.no_way_on()}"
            )
        return ""

    def no_way_on(self) -> str:
        """What is to be done where no checkpoint can be read."""
        return (
            "To start from the beginning would replace what it has found so far. A copy of a checkpoint put there goes "
            f"on; a new run with the same settings and data is: odkit train --config {self.path / 'config.json'}"
        )

    def _nothing_left(self, old: Settings, new: Settings) -> str:
        """Why a worker with these settings would end at once, or go on against `patience`; "" where it has work."""
        newest, _ = self._newest_figures()
        done, finished = newest.get("epoch", 0), self.state == "finished"
        minutes = newest.get("total_seconds", 0.0) / 60
        if new.minutes and new.minutes != old.minutes:  # the worker fits the epochs to the new budget
            spent = f"{self.name} has trained for {minutes:.3g} minutes already"
            return f"{spent}, minutes={new.minutes:g} leaves nothing to do" if minutes >= new.minutes else ""
        total = newest.get("epochs", new.epochs) if new.minutes else new.epochs
        # an epoch counts once it is judged and saved, which of one that was broken off is not known from here
        if (done if finished else done - 1) >= total:
            return f"{self.name} has {done} epochs behind it, {total} leave nothing to do"
        if finished and (new.epochs, new.minutes, new.patience) == (old.epochs, old.minutes, old.patience):
            why = (
                f" (its AP had not risen for {old.patience} epochs: patience=0 goes on)"
                if old.patience
                else ""
            )
            return f"{self.name} is finished, after epoch {done} of {total}{why}"
        return ""

    def __repr__(self) -> str:
        s = self.summary()
        judged = f", best val AP {s['val_ap']:.3f}" if s["val_ap"] is not None else ""
        judged += f", AP50 {s['val_ap50']:.3f}" if s["val_ap50"] is not None else ""
        tested = f", test AP {_with_interval(s)}" if s["test_ap"] is not None else ""
        return f"Run {s['name']!r}: {s['state']}, {s['detector']}, epoch {s['epoch']}/{s['epochs']}{judged}{tested}"

    def _repr_html_(self) -> str:
        return runs_html([self])


def _is_archive(file: Path) -> bool:
    """Whether a checkpoint is whole at its end, where the archive that it is has its table."""
    try:
        with open_file(file) as opened, zipfile.ZipFile(opened) as archive:
            return bool(archive.namelist())
    except (OSError, InputError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _kind(device: object) -> str:
    return str(device).partition(":")[0]


def fine_tune(
    dataset: "Dataset",
    *,
    detector: str = "starter",
    epochs: int = 0,
    folder: str | Path = RUNS,
    name: str | None = None,
    track: Sequence[str] = (),
    wait: bool = True,
    **settings: Any,
) -> Run:
    """Fine-tune a detector on a dataset in a worker process of its own, and return the Run.

    Args:
        dataset: What to train on and to choose the epoch by: its "train" and "val" splits (dealt from the seed, if it
            has none). Its "test" split, if there is one, stays aside for `Run.test`. It must have no fatal audit
            findings.
        detector: A name of the catalogue.
        epochs: Passes over the training images; 0: by their number, or as many as fit into `minutes`.
        folder: Where run folders are made.
        name: Name of the run folder; None: made from dataset and detector, numbered.
        track: Trackers that follow the run while it trains, each in a process of its own: "tensorboard", "mlflow",
            "wandb", "trackio", with where it keeps its runs as `od.track` takes it. One that fails says so in the
            dashboard and in track-NAME.log; the run goes on without it.
        wait: Show the progress until the end; False returns at once. Either way the run outlives the kernel.
        settings: Any other field of `odkit.Settings`.

    Raises:
        DatasetFaultError: The audit has fatal findings; the message is their table and the call that repairs them.
        RunError: A run of that name exists, or training failed.
        UnknownSettingError, InputError: A setting is unknown or out of range, or a tracker unknown.
        MissingPackageError: A tracker is not installed.
    """
    made = make_settings({"detector": detector, "epochs": epochs, **settings})
    run = create_run(dataset, made, folder, name, track=track)
    run.start()
    return run.wait() if wait else run


def create_run(
    dataset: "Dataset",
    settings: Settings,
    folder: str | Path = RUNS,
    name: str | None = None,
    *,
    track: Sequence[str] = (),
    elsewhere: bool = False,
) -> Run:
    """Write a run folder, ready for a worker, whole or not at all; see `fine_tune` for arguments and errors.

    With `elsewhere` it is to be trained on another machine, and what this one has and can hold is not asked.
    """
    from odkit.data.audit import require_trainable

    if name is not None:
        check_name(name)
    check_detector(settings)
    if not elsewhere:
        check_machine(settings)
    tracked = [str(target) for target in read_targets(track)]
    if not len(dataset):
        raise InputError(f"{dataset.name} has no images")
    if not dataset.split_counts():
        dataset = dataset.with_splits(val=0.2, seed=settings.seed)
    for split in (settings.train_split, settings.val_split):
        dataset.split(split)  # says which splits there are, if this one is missing
    use = (dataset.image_splits == settings.train_split) | (dataset.image_splits == settings.val_split)
    aside = (dataset.image_splits == settings.test_split) & ~use
    used, test = dataset.select(use), dataset.select(aside)
    if not len(used.split(settings.train_split).boxes):
        raise InputError(
            f"the {settings.train_split!r} split of {dataset.name} has no boxes: nothing to learn from"
        )
    found = require_trainable(dataset.select(use | aside))
    chosen = [] if settings.epochs else ["epochs"]
    settings = with_epochs(settings, used.split_counts()[settings.train_split])
    if settings.train_split == settings.val_split:
        warnings.warn(
            f"the run is trained on the images of {settings.train_split!r} and judged on the same ones: its figures "
            "will not say what it makes of others",
            stacklevel=2,
        )
    config = {
        "format": 1,
        "settings": settings.to_dict(),
        "dataset": dataset.name,
        "class_names": dataset.class_names,
        "fingerprint": used.fingerprint(),
        "images": used.split_counts(),
        "test_images": len(test),
        "chosen": chosen,
        "track": tracked,
    }
    audited = {"format": 1, "images": len(found.dataset), "boxes": found.dataset.num_boxes}
    path = _new_folder(Path(folder), name, f"{dataset.name}-{settings.detector}")
    try:
        with writing(path):
            used.save(path / "dataset.npz")
            if len(test):
                test.save(path / IMAGES)
            _write_json(path / "audit.json", {**audited, "findings": found.summary()})
            _write_json(path / "config.json", config)
    except BaseException:  # a full disk, Ctrl-C: half a run would hold the name
        shutil.rmtree(path, ignore_errors=True)
        raise
    return Run(path)


def open_run(path: str | Path) -> Run:
    """A run by its folder, or by its name under `runs/`; alive or dead, from any kernel.

    Raises:
        RunError: There is no such run.
    """
    path = Path(path)
    if len(path.parts) == 1 and not os.path.exists(path) and os.path.exists(RUNS / path):
        path = RUNS / path
    return Run(path)


def list_runs(folder: str | Path = RUNS) -> list[Run]:
    """The runs of a folder, newest last; a folder in it that cannot be read as a run is left out, with a warning."""
    runs, unreadable = look_for_runs(folder)
    for path, why in unreadable.items():
        warnings.warn(f"{path.name} is left out: {why}", stacklevel=2)
    return runs


def look_for_runs(folder: str | Path = RUNS) -> tuple[list[Run], dict[Path, str]]:
    """The runs of a folder, newest last, and the folders in it with a config.json that are no runs, each with why.

    Raises:
        InputError: The folder is none, or may not be read.
    """
    found: list[Run] = []
    unreadable: dict[Path, str] = {}
    for path in _folders_with_config(Path(folder)):
        try:
            run = Run(path)
            run.summary()
        except (OdkitError, OSError) as error:
            unreadable[path] = str(error)
        else:
            found.append(run)
    return found, unreadable


def _folders_with_config(folder: Path) -> list[Path]:
    """The folders in one that have something called config.json, the newest of these last."""
    try:
        inside = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{folder} cannot be looked into for runs ({error.strerror})") from error
    times: dict[Path, float] = {}
    for entry in inside:
        try:
            times[folder / entry.name] = os.stat(folder / entry.name / "config.json").st_mtime
        except PermissionError:
            times[folder / entry.name] = 0.0  # may be one; what is in the way is said
        except OSError:  # no folder, or none with such a file
            continue
    return sorted(times, key=lambda path: times[path])


def _read_config(file: Path) -> dict[str, Any]:
    """What a run's config.json holds.

    Raises:
        FileNotFoundError: There is none.
        RunError: It is not one that odkit wrote; the message says what is wrong with it.
    """
    config = read_own(file)
    kinds = {"settings": dict, "dataset": str, "class_names": list, "fingerprint": str, "images": dict}
    if missing := [name for name in kinds if name not in config]:
        raise RunError(f"{file} is no run's: {', '.join(missing)} is not in it. Another program's, perhaps")
    wrong = [name for name, kind in kinds.items() if not isinstance(config[name], kind)]
    wrong += [name for name in ("chosen", "track") if not isinstance(config.get(name, []), list)]
    texts = [*config["class_names"], *config.get("chosen", []), *config.get("track", [])] if not wrong else []
    if not wrong and not all(isinstance(text, str) for text in texts):
        wrong.append("class_names")
    if not wrong and not all(isinstance(count, int) for count in config["images"].values()):
        wrong.append("images")
    if wrong:
        raise RunError(f"{file} is damaged: {', '.join(wrong)} is not as odkit wrote it")
    try:
        make_settings(config["settings"])
    except UnknownSettingError as error:
        raise RunError(
            f"{file} is of another version of odkit, or changed: {str(error).partition('.')[0]}"
        ) from None
    except InputError as error:
        raise RunError(f"{file} has settings that no run can have: {error}") from None
    return config


def best_run(dataset: "Dataset", folder: str | Path = RUNS) -> Run | None:
    """The finished run on a dataset (its name and folder) with the highest validation AP; None where there is none."""
    there = [
        run for run in list_runs(folder) if run.config["dataset"] == dataset.name and run.state == "finished"
    ]
    own = [run for run in there if run.dataset().root == dataset.root]
    return max(own, key=lambda run: run.best.get("ap") or 0.0, default=None)


def run_row(run: Run) -> dict[str, Any]:
    """A run's summary for a table: the test figure and its interval in one cell."""
    row = run.summary()
    test = None if row["test_ap"] is None else _with_interval(row)
    return {
        key: test if key == "test_ap" else row[key] for key in row if key not in ("test_low", "test_high")
    }


def _with_interval(summary: Mapping[str, Any]) -> str:
    if summary["test_low"] is None or summary["test_high"] is None:
        return f"{summary['test_ap']:.3f}"
    return f"{summary['test_ap']:.3f} ({summary['test_low']:.3f} to {summary['test_high']:.3f})"


def runs_html(runs: Sequence[Run]) -> str:
    """A table of runs as HTML."""
    rows = [run_row(run) for run in runs]
    if not rows:
        return "<i>no runs</i>"

    def cell(value: Any) -> str:
        text = "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
        return f'<td style="text-align:left">{escape(text)}</td>'

    head = "".join(f'<th style="text-align:left">{escape(key.replace("_", " "))}</th>' for key in rows[0])
    body = "".join("<tr>" + "".join(cell(v) for v in row.values()) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def check_name(name: str) -> None:
    """Raises RunError where a run cannot be called so: its name is a folder's, is printed and is typed."""
    shown = repr(name if len(name) <= 60 else f"{name[:57]}...")
    if Path(name).name != name or name in ("", ".", "..") or not name.isprintable():
        raise RunError(f"a run's name is a plain folder name, not {shown}")
    if name.startswith("-"):
        raise RunError(
            f"a run's name does not begin with a hyphen, as {shown} does: commands take that for a flag"
        )
    if len(name.encode()) > MOST_NAME:
        raise RunError(
            f"the name {shown} is too long: {len(name.encode())} bytes, and {MOST_NAME} are the most"
        )


def _new_folder(folder: Path, name: str | None, stem: str) -> Path:
    with writing(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # as in /proc, where nothing can be made
            raise RunError(
                f"no runs can be kept in {folder}: no folder can be made there. Give another --folder"
            ) from None
        except (FileExistsError, NotADirectoryError):
            parent = next(one for one in (folder, *folder.parents) if one.exists() and not one.is_dir())
            raise FileInTheWayError(
                f"no runs can be kept in {folder}: {parent} is a file. Give another --folder"
            ) from None
        made = _made_folder(folder, name, stem)
        sync_folder(folder)
        return made


def _made_folder(folder: Path, name: str | None, stem: str) -> Path:
    if name is not None:
        try:
            (folder / name).mkdir()
        except FileExistsError:
            if not (folder / name / "config.json").exists():
                raise RunError(f"{folder / name} is there already and no run; give another name") from None
            raise RunError(
                f"there is a run {name!r} in {folder} already: open_run() attaches to it, .resume() takes it further, "
                ".delete() removes it"
            ) from None
        return folder / name
    plain = plain_name(stem)
    number = 1
    while True:
        try:
            (folder / f"{plain}-{number}").mkdir()
            return folder / f"{plain}-{number}"
        except FileExistsError:
            number += 1


def plain_name(stem: str) -> str:
    """A name for a folder from one that may hold anything."""
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in stem).lstrip("-.")
    return plain.encode()[: MOST_NAME - 50].decode(errors="ignore") or "run"  # room for what is added to it


def _write_json(path: Path, value: Any) -> None:
    write_file(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
