"""What a report is about: the run or the evaluation, and what of it several sections need, worked out once."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from odkit import analysis
from odkit.analysis import Evaluation, Intervals, Mistakes, Suspect
from odkit.data import Dataset
from odkit.runs.dashboard import Progress
from odkit.runs.events import EventReader, epoch_rows
from odkit.runs.final_test import IMAGES
from odkit.runs.settings import Settings
from odkit.runs.worker import read_own
from odkit.system import OdkitError

if TYPE_CHECKING:
    from odkit.runs.final_test import FinalTest
    from odkit.runs.run import Run

FEW_BOXES = 50  # to learn a class from
TEMPLATES = Path(__file__).parent / "templates"


@dataclass
class Subject:
    """What a report is about, and when it must be done.

    Attributes:
        run: The run; None for an evaluation without one.
        given: The evaluation, where there is no run.
        seconds: How long the report may take; 0: as long as it does. What does not fit is left out, and said.
    """

    run: "Run | None"
    given: Evaluation | None
    seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)
    missing: list[str] = field(default_factory=list)  # what the report does not say, and why
    unread: dict[str, str] = field(default_factory=dict)  # pictures that it cannot show, and why

    def in_time(self, what: str) -> bool:
        """Whether there is time for a section; else it is noted as missing."""
        if not self.seconds or time.monotonic() - self.began < self.seconds:
            return True
        how = (
            f"`odkit report {self.run.name}` makes the whole" if self.run else "there is more with more time"
        )
        self.missing.append(f"No {what}: the report was given {self.seconds:g} s; {how}.")
        return False

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The run's events that a report tells of; those of steps are `losses`."""
        return self.run.events(only=("start", "epoch", "evaluation", "warning")) if self.run else []

    @cached_property
    def losses(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Number and loss of each step; a loss that was not finite is nan."""
        progress = Progress()
        if self.run:
            for some in EventReader(self.run.path / "events.jsonl").batches(only=("start", "step")):
                for event in some:
                    progress.add(event)
        return np.array(progress.steps), np.array(progress.losses)

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """One row an epoch, as `Run.history()` gives."""
        return epoch_rows(self.events)

    @cached_property
    def start(self) -> dict[str, Any]:
        """The start events in one: after a rollback they say only where to."""
        merged: dict[str, Any] = {}
        for event in self.events:
            if event["event"] == "start":
                merged = {**merged, **event}
        return merged

    @cached_property
    def settings(self) -> Settings | None:
        return self.run.settings if self.run else None

    @cached_property
    def state(self) -> str:
        """How the run ended; the worker that writes the report has said so, and lives yet."""
        return str(self.run.end.get("reason") or self.run.state) if self.run else ""

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The best epoch's, or the one given; None where nothing was judged yet."""
        if self.run is None:
            return self.given
        if not self.best:
            self.missing.append(
                f"No detector yet: it is saved with the first evaluation, and the run is {self.state} before it."
            )
            return None
        try:
            return self.run.evaluation()
        except (OdkitError, OSError) as error:
            self.missing.append(f"No figures of the validation images: {error}")
            return None

    @cached_property
    def mistakes(self) -> Mistakes | None:
        e = self.evaluation
        return analysis.mistakes(e) if e and e.class_boxes.sum() and self.in_time("mistakes") else None

    @cached_property
    def suspects(self) -> list[Suspect]:
        found = self.mistakes
        return found.suspects if found and self.in_time("label errors") else []

    @cached_property
    def tests(self) -> "list[FinalTest]":
        """The looks at test images by the best epoch's detector, oldest first."""
        if self.run is None or self.evaluation is None:
            return []
        return [test for test in self.run.tests() if test.is_of(self.best)]

    @property
    def test(self) -> "FinalTest | None":
        """The first look, which nothing was chosen by."""
        return self.tests[0] if self.tests else None

    @property
    def figures(self) -> Mapping[str, Any]:
        """COCO's figures by name: the test images' where they were looked at, else of what was judged."""
        e = self.evaluation
        return self.test.figures if self.test else e.metrics if e else {}

    @cached_property
    def best(self) -> dict[str, Any]:
        """What evaluation.json says of the best epoch; empty where nothing was judged yet."""
        file = self.run.path / "evaluation.json" if self.run else None
        return read_own(file) if file and file.exists() else {}

    @cached_property
    def intervals(self) -> Intervals | None:
        """Of the first look at test images; of an evaluation without a run, its own."""
        if self.test:
            return self.test.intervals
        e = self.given
        return e.intervals() if e and len(e.dataset) > 1 and self.in_time("intervals") else None

    @cached_property
    def score(self) -> float | None:
        return self.evaluation.best_score if self.evaluation else None

    @cached_property
    def images(self) -> str:
        """The images that were judged after each epoch, in words."""
        kind = "validation image" if self.run else "image"
        count = len(self.evaluation.dataset) if self.evaluation else 0
        return f"{count:,} {kind}{'s' * (count != 1)}"

    @cached_property
    def parts(self) -> dict[str, Dataset]:
        """The images by split, the test images included."""
        if self.run is None:
            e = self.given
            return {e.split or "judged": e.dataset} if e else {}
        splits = self.run.dataset()
        found = {name: splits.split(name) for name in splits.split_counts()}
        if (self.run.path / IMAGES).exists():
            aside = self.run.settings.test_split
            found[aside] = self.run.dataset(aside)
        return found

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.run.class_names if self.run else self.given.class_names if self.given else ()

    @property
    def learnt(self) -> Dataset | None:
        """What it was trained on; None for an evaluation without a run."""
        return self.parts.get(self.settings.train_split) if self.settings else None


def number(value: float | None, digits: int = 3) -> str:
    """A figure as text; a dash where there is none."""
    return "—" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def span(low: float, high: float) -> str:
    """An interval as text; "" where there is none."""
    return "" if math.isnan(low) or math.isnan(high) else f"{low:.3f} to {high:.3f}"
