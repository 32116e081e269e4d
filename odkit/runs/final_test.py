"""The last figure of a run: its best detector on images that had no say in it, judged once and written down.

Validation images choose the epoch, so a run's own AP is a little better than what other images would say. Test images
stand aside from the run's first moment (`test.npz`). What they said is in `test.json`, a list that only grows: the
same detector is not judged again on the same images, and another one's figures stand behind the first.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from odkit import analysis, detection
from odkit.runs.worker import RunError, as_written, check_links, read_own, writing
from odkit.system import InputError, odkit_version, write_file

if TYPE_CHECKING:  # a list of runs needs none of this
    from odkit.analysis import Evaluation, Intervals
    from odkit.data import Dataset
    from odkit.runs.run import Run

FILE, IMAGES = "test.json", "test.npz"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FinalTest:
    """What test images said of a run's detector: COCO's figures with their 95% intervals.

    Attributes:
        run: Name of the run.
        date: When it was judged, ISO 8601 in UTC.
        detector: SHA-256 of the detector's file.
        epoch: The epoch that the detector is of, 1-based.
        validation_ap: Its AP on the validation images, which chose that epoch; None where they have no boxes.
        dataset: Name of the data, with the split that was judged on.
        fingerprint: Of the images and boxes that were judged on (`Dataset.fingerprint`).
        images, boxes: How many there are; crowds are not counted.
        look: 1 for the first look at these images; looks by the runs beside this one count.
        device, precision, image_size: What was judged with, the size in pixels.
        odkit: odkit's version.
        figures: COCO's twelve figures by name, 0 to 1; None where there is no ground truth to measure on.
        intervals: AP, AP50, AP75 and AR with their intervals, over all classes and of each.
        score: The score threshold with the best F1 on the validation images; None where nothing was written down.
        found, right: At that threshold, the share of the boxes that are found and the share of the predictions that are
            right (their class, IoU from 0.5), 0 to 1; None where there are none.
    """

    run: str
    date: str
    detector: str
    epoch: int
    validation_ap: float | None
    dataset: str
    fingerprint: str
    images: int
    boxes: int
    look: int
    device: str
    precision: str
    image_size: int
    odkit: str
    figures: dict[str, float | None]
    intervals: "Intervals"
    score: float | None = None
    found: float | None = None
    right: float | None = None

    @property
    def ap(self) -> float:
        """COCO's AP over all classes, 0 to 1."""
        return float(self.intervals.total["ap"])

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the AP's 95% interval."""
        return self.intervals.of("ap")

    def is_of(self, best: Mapping[str, Any]) -> bool:
        """Whether the detector of this best evaluation (its epoch and ap) was judged, not one from before a resume."""
        return _is_of(self.epoch, self.validation_ap, best)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**plain, "intervals": self.intervals.to_dict()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "FinalTest":
        """What `to_dict()` made plain."""
        return cls(**{**plain, "intervals": analysis.Intervals.from_dict(plain["intervals"])})

    def __repr__(self) -> str:
        return "\n".join([self._caption(), *self.intervals.lines(), *(f"  {note}" for note in self._notes())])

    def _repr_html_(self) -> str:
        return self.intervals.table_html(self._caption()) + "".join(
            f"<p>{escape(n)}</p>" for n in self._notes()
        )

    def _caption(self) -> str:
        counts = f"{self.images:,} images, {self.boxes:,} boxes"
        return f"Test of {self.run!r}, epoch {self.epoch}, on {self.dataset}: {counts}"

    def _notes(self) -> list[str]:
        said = "nothing" if self.validation_ap is None else f"{self.validation_ap:.3f}"
        notes = [
            f"In brackets the 95% intervals. The validation images, which chose the epoch, said AP {said}.",
            f"Judged on {self.date[:10]} on {self.device} in {self.precision}, and written down in {FILE}.",
        ]
        if self.score is not None and self.found is not None:
            right = "" if self.right is None else f", and {self.right:.0%} of what is drawn is right"
            notes.insert(
                0,
                f"At score {self.score:.2f}, the best on the validation images, {self.found:.0%} of the boxes are "
                f"found{right}.",
            )
        if self.look > 1:
            notes.append(
                f"Look {self.look} at these images, counting the runs beside this one: what was chosen by an earlier "
                "look, they flatter."
            )
        return notes


def read_tests(run: "Run") -> list[FinalTest]:
    """What test images said of a run's detectors, as it was written down, oldest first."""
    with as_written(run.path / FILE):
        return [FinalTest.from_dict(one) for one in _written_down(run.path / FILE)]


def tested_figures(run: "Run", best: Mapping[str, Any]) -> dict[str, float | None]:
    """What the first look at test images said of a best evaluation's detector: test_ap, test_low, test_high."""
    names = {"test_ap": "ap", "test_low": "ap_low", "test_high": "ap_high"}
    with as_written(run.path / FILE):
        for one in _written_down(run.path / FILE):
            if _is_of(one["epoch"], one["validation_ap"], best):
                total = {name: one["intervals"]["total"][known] for name, known in names.items()}
                return {name: None if value is None else float(value) for name, value in total.items()}
    return dict.fromkeys(("test_ap", "test_low", "test_high"))


def _written_down(file: Path) -> list[dict[str, Any]]:
    try:
        return list(read_own(file)["tests"])
    except FileNotFoundError:
        return []


def _is_of(epoch: int, validation_ap: float | None, best: Mapping[str, Any]) -> bool:
    return (epoch, validation_ap) == (best.get("epoch"), best.get("ap"))


def judge(run: "Run", given: "Dataset | str | Path | None", device: str) -> FinalTest:
    """A run's best detector on test images, or what was written down of it before; see `Run.test`."""
    if run.alive:
        raise RunError(
            f"{run.name} is running, and its best detector may still change: test it when it has ended "
            f"(odkit stop {run.path} ends it)"
        )
    file, judged = run.path / "detector.safetensors", run.path / "evaluation.json"
    if not judged.exists():
        raise run.no_detector()
    from odkit.data import file_hash

    data = _set_aside(run) if given is None else _fitting(run, given)
    if data.box_crowd.all():
        raise InputError(
            f"the test images of {data.name} have no boxes: nothing says what is to be found there"
        )
    fingerprint, detector = data.fingerprint(), file_hash(file)
    for known in read_tests(run):
        if (known.detector, known.fingerprint) == (detector, fingerprint):
            return known
    check_links(run.path)
    with writing(run.path), tempfile.TemporaryFile(dir=run.path):
        pass  # who may not write a look down may not look
    with as_written(judged):
        validation = read_own(judged)
        _ = int(validation["epoch"]), validation["ap"], validation["best_score"]
    place = detection.pick_device(device)
    precision = run.precision(place)
    loaded = run.detector(device=str(place))
    found = detection.predict(loaded, data, device=place, precision=detection.DTYPES[precision])
    evaluation = analysis.evaluate(data, found)
    intervals = evaluation.intervals()
    if run.alive or file_hash(file) != detector:
        raise RunError(f"{run.name} went on meanwhile; nothing was written down: test it when it has ended")
    figures = evaluation.to_dict()
    found_share, right_share = shares_at(evaluation, validation["best_score"])
    test = FinalTest(
        run=run.name,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        detector=detector,
        epoch=validation["epoch"],
        validation_ap=validation["ap"],
        dataset=evaluation.data_name,
        fingerprint=fingerprint,
        images=len(data),
        boxes=figures["boxes"],
        look=_looks(run.path.parent, fingerprint) + 1,
        device=str(place),
        precision=precision,
        image_size=loaded.image_size,
        odkit=odkit_version(),
        figures={name: figures[name] for name in evaluation.metrics},
        intervals=intervals,
        score=validation["best_score"],
        found=found_share,
        right=right_share,
    )
    tests = [*read_tests(run), test]  # read anew: somebody else may have looked as well
    page = {"format": 1, "tests": [one.to_dict() for one in tests]}
    with writing(run.path):
        write_file(
            run.path / FILE, orjson.dumps(page, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        )
    return test


def shares_at(evaluation: "Evaluation", score: float) -> tuple[float | None, float | None]:
    """The share of the boxes found at a score threshold, and the share of the predictions there that are right."""
    counts = evaluation.per_image(score)
    true, false, missed = (
        int(c.sum()) for c in (counts.true_positives, counts.false_positives, counts.missed)
    )
    return (
        true / (true + missed) if true + missed else None,
        true / (true + false) if true + false else None,
    )


def _set_aside(run: "Run") -> "Dataset":
    """The test images that the run has kept from its first moment."""
    from odkit.data import Dataset

    if (run.path / IMAGES).exists():
        return Dataset.load(run.path / IMAGES)
    settings = run.settings
    why = f"its dataset had no {settings.test_split!r} split when it was made"
    if settings.test_split in (settings.train_split, settings.val_split):
        why = f"it trained on its {settings.test_split!r} split, or chose its epoch by it"
    raise RunError(
        f"{run.name} has no test images: {why}. Set some aside before the next run, "
        "od.fine_tune(dataset.with_splits(val=0.2, test=0.2)), or give labelled images that this one has not seen: "
        f"run.test(dataset), odkit test {run.path} --data FOLDER"
    )


def _fitting(run: "Run", given: "Dataset | str | Path") -> "Dataset":
    """The test images of other data, with the run's class indices.

    Raises:
        InputError: It is not clear which images are meant, the run has seen some, or it does not know a class.
        DatasetFaultError: The audit has fatal findings.
    """
    import numpy as np

    from odkit.data import UNKNOWN_CLASS, Dataset
    from odkit.data.audit import require_trainable
    from odkit.data.formats import load_dataset

    data = given if isinstance(given, Dataset) else load_dataset(given, val=0)
    splits = data.split_counts()
    if run.settings.test_split in splits:
        data = data.split(run.settings.test_split)
    elif len(splits) > 1:
        raise InputError(
            f"{data.name} has the splits {', '.join(splits)} and no {run.settings.test_split!r}: say which images are "
            "meant, run.test(dataset.split(...))"
        )
    used = {real for _, real in _real_paths(run.dataset())}
    seen = [path for path, real in _real_paths(data) if real in used]
    if seen:
        raise InputError(
            f"{run.name} trained on {len(seen)} of the {len(data)} images of {data.name}, or chose its epoch by them "
            f"({seen[0]} for one): only images that it has not seen say how good it is"
        )
    known = {name: k for k, name in enumerate(run.class_names)}
    unknown = [name for name, count in data.class_counts().items() if count and name not in known]
    if unknown:
        raise InputError(
            f"{data.name} has boxes of {', '.join(map(repr, unknown))}, which {run.name} has not learned; its classes "
            f"are {', '.join(known)}"
        )
    table = np.array([*(known.get(name, UNKNOWN_CLASS) for name in data.class_names), UNKNOWN_CLASS])
    data = data.replace(class_names=run.class_names, box_classes=table[data.box_classes])
    require_trainable(data)
    return data


def _real_paths(data: "Dataset") -> Iterator[tuple[str, str]]:
    """The path of each image, as it stands there and without symbolic links; each folder is resolved once."""
    folders: dict[str, str] = {}
    for path in data.image_paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        real = os.path.join(folders[folder], name)
        yield path, os.path.realpath(real) if os.path.islink(real) else real


def _looks(folder: Path, fingerprint: str) -> int:
    """How often the runs of a folder have looked at the images of a fingerprint."""
    looks = 0
    for file in folder.glob(f"*/{FILE}"):
        with contextlib.suppress(RunError), as_written(file):  # another run's may be spoiled
            looks += sum(test["fingerprint"] == fingerprint for test in _written_down(file))
    return looks
