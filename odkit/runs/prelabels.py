"""Pre-labelling: boxes that a detector suggests for pictures without labels, for a person to accept or correct.

Nothing that is suggested is a label before a person has accepted it: a detector that is taught what it said itself
learns its own mistakes. The pictures that it is least sure of come first, because their labels teach it most (see
Settles, "Active Learning Literature Survey", 2009).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odkit import detection
from odkit.data import IMAGE_SUFFIXES, Dataset, Predictions, Texts, box_iou, upright_size
from odkit.data.audit import repaired
from odkit.data.formats import list_images, load_dataset
from odkit.runs.run import Run
from odkit.system import InputError, OdkitError

if TYPE_CHECKING:
    from odkit.detection import Detector, OnnxDetector

NOT_LABELS = "These boxes are a detector's suggestions, not labels: accept, correct or delete each of them."
DEFAULT_SCORE = 0.5  # of a detector that comes without a run
FAINT = 0.05  # boxes from this score up say how sure the detector is of a picture
SAME_OBJECT = 0.7  # IoU from which boxes of two classes are taken for one object
_NO_LABELS = (
    ".db",
    ".ini",
    ".md",
)  # what lies beside pictures and is nobody's label: Thumbs.db, desktop.ini, README.md


class Interrupted(OdkitError):
    """Pre-labelling was stopped before its end; the message says what is kept and how to go on."""


class Unlabelled(NamedTuple):
    """The pictures of a folder or dataset that have no labels, as a Dataset without boxes, and the labelled rest."""

    pictures: Dataset
    labelled: Dataset | None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prelabels:
    """Boxes that a detector suggests for pictures without labels; `od.browse` opens them to accept or correct.

    Attributes:
        pictures: The pictures, a Dataset without boxes; its classes are the labels', then the detector's others.
        suggestions: The boxes, with a score of `score` or more, one an object.
        doubt: How unsure the detector is of each picture, float64 [N]: 1 for each box whose score is the threshold, 0
            for one that is certain or certainly nothing, as it is between; and 1 where it suggests nothing.
        score: The threshold; and `reason`, why this one.
        labelled: The labelled images of the same folder or dataset; None where there are none.
        notes: What was looked at and left out.
    """

    pictures: Dataset
    suggestions: Predictions
    doubt: NDArray[np.float64]
    score: float
    reason: str
    labelled: Dataset | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    def order(self) -> NDArray[np.int64]:
        """The rows of the pictures, those that the detector is least sure of first, int64 [N]."""
        return np.argsort(-self.doubt, kind="stable")

    def as_labels(self) -> Dataset:
        """The pictures with the suggestions as if they were labels, which nobody has accepted yet."""
        found = self.suggestions
        return self.pictures.replace(
            name=f"{self.pictures.name}-suggestions",
            boxes=found.boxes,
            box_classes=found.classes,
            box_images=found.images,
            box_crowd=np.zeros(len(found), bool),
            box_ids=Texts.of(suggestion_ids(found)),
            source_problems=(),  # are of the labels, whose place these take
            notes=(*self.pictures.notes, NOT_LABELS),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON: each picture with its doubt and boxes, the least sure first."""
        found = self.suggestions
        pictures = []
        for row in self.order().tolist():
            part = found.of(row)
            columns = (found.classes[part], found.scores[part], found.boxes[part])
            objects = [
                {"class": found.class_names[label], "score": float(score), "box": box.tolist()}
                for label, score, box in zip(*columns, strict=True)
            ]
            one = {"picture": self.pictures.image_ids[row], "doubt": round(float(self.doubt[row]), 4)}
            pictures.append({**one, "objects": objects})
        about = {"about": NOT_LABELS, "score": self.score, "reason": self.reason, "notes": list(self.notes)}
        return {**about, "pictures": pictures}

    def __repr__(self) -> str:
        empty = len(self) - len(np.unique(self.suggestions.images))
        lines = [
            f"Prelabels of {self.pictures.name!r}: {len(self.suggestions):,} boxes suggested in {len(self):,} pictures",
            f"  score: {self.score:.2f} or more, {self.reason}",
            f"  nothing suggested in: {empty:,} of them",
        ]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, f"  {NOT_LABELS}"])


def suggestion_ids(found: Predictions) -> list[str]:
    """What each suggestion is called within its picture, the surest first."""
    first = np.searchsorted(found.images, found.images)
    return [f"suggestion {k + 1}" for k in (np.arange(len(found)) - first).tolist()]


def prelabel(
    pictures: Dataset | Unlabelled | str | Path,
    detector: "Run | Detector | OnnxDetector",
    *,
    score: float | None = None,
    every_picture: bool = False,
    tiles: int = -1,
    keep: str | Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    **how: Any,
) -> Prelabels:
    """Boxes that a detector suggests for the pictures without labels, to be accepted or corrected by a person.

        suggestions = od.prelabel("my-folder", run)
        browser = od.browse(suggestions)          # in the App: correct them, tag pictures "accept"
        more = od.concatenate({"": suggestions.labelled, "train": browser.edits()})
        run = od.fine_tune(more)

    Put what was accepted into "train": validation images with a detector's own suggestions as labels flatter it.

    Args:
        pictures: A folder: the images that no label names and those labelled as having no objects (most formats cannot
            tell the two apart), or all where there are no labels at all; or a Dataset: its images without boxes.
        detector: A run, or its detector or another.
        score: Suggest boxes from this score up; None: the score with the best F1 on the run's validation images, 0.5
            for a detector without a run.
        every_picture: Also the pictures that have labels.
        tiles: As in `od.predict`.
        keep: A file that holds what was found, should `stop` end it: the same call then goes on with it.
        stop: Asked after each batch; once true, what was found is kept and Interrupted raised.
        **how: `batch_size`, `num_workers`, `device` and `precision`, as in `od.predict`.

    Raises:
        MissingFileError: There is nothing at the path, or no images.
        DatasetFormatError: There are labels that cannot be read.
        InputError: Every picture has labels, the detector knows none of their classes, or a number is out of range.
        Interrupted: `stop` said so.
    """
    if score is not None and not 0 <= score <= 1:
        raise InputError(f"score={score} must be from 0 to 1")
    found = pictures if isinstance(pictures, Unlabelled) else find_unlabelled(pictures, every_picture)
    run = detector if isinstance(detector, Run) else None
    if isinstance(detector, Run):
        detector = detector.detector(device=str(how.get("device", "auto")))
    table = _class_table(found, detector.class_names)
    unread = found.pictures.replace(class_names=table, notes=())
    chosen = repaired(unread)  # one picture that cannot be read must not cost the others their suggestions
    notes = [*found.pictures.notes, *chosen.notes, *_trained_as_empty(run, chosen)]
    if not len(chosen):
        raise InputError(f"none of the {len(unread):,} pictures can be read: {'; '.join(chosen.notes)}")
    threshold, reason = (score, "as asked for") if score is not None else _best_score(run)
    least = min(FAINT, threshold)
    seen = _look(detector, chosen, keep=keep, stop=stop, score=least, tiles=tiles, **how)
    everything = seen.for_dataset(chosen, same_classes=False)
    suggestions = _one_an_object(everything.above(threshold))
    return Prelabels(
        pictures=chosen,
        suggestions=suggestions,
        doubt=_doubts(everything, suggestions, threshold, len(chosen)),
        score=threshold,
        reason=reason,
        labelled=found.labelled,
        notes=tuple(notes),
    )


# -- which pictures ----------------------------------------------------------------------------------------------------


def find_unlabelled(source: Dataset | str | Path, every_picture: bool = False, **reading: Any) -> Unlabelled:
    """The pictures of a folder or dataset that have no labels, see `prelabel`; `reading` as in `od.load_dataset`.

    Raises:
        MissingFileError: There is nothing at the path, or no images.
        DatasetFormatError: There are labels that cannot be read.
        InputError: Every picture has labels.
    """
    if isinstance(source, Dataset) or Path(source).suffix == ".npz":
        dataset, extra = source if isinstance(source, Dataset) else load_dataset(source), []
        where = "give the folder to have the pictures that no label names"
    else:
        path = Path(os.path.expanduser(source)).absolute()
        if path.exists() and _holds_only_pictures(path):
            alone = detection.images_dataset(path, ())
            return Unlabelled(alone.replace(notes=("there are no labels beside the pictures",)), None)
        # with a "val" dealt as everywhere, so that the labelled images are those that a run of theirs was trained on
        dataset = load_dataset(path, **reading)
        extra, where = _unnamed(dataset), f"and there are none beside them in {path}"
    empty = dataset.select(np.full(len(dataset), every_picture) | (dataset.boxes_per_image() == 0))
    labelled = dataset.select(dataset.boxes_per_image() > 0)
    paths = [*empty.image_paths, *(str(dataset.root / name) for name in extra)]
    if not paths:
        raise InputError(
            f"every picture of {dataset.name} has labels ({where}); every_picture=True (--every-picture) suggests for "
            "them all the same"
        )
    kinds = {
        "that no label names": len(extra),
        "that have labels": len(empty) if every_picture else 0,
        "without boxes": 0 if every_picture else len(empty),
    }
    note = ", ".join(
        f"{count:,} picture{'s' * (count != 1)} {kind}" for kind, count in kinds.items() if count
    )
    pictures = Dataset(
        name=dataset.name,
        root=dataset.root,
        format="images",
        class_names=dataset.class_names,
        image_paths=Texts.of(paths),
        image_ids=Texts.of([*empty.image_ids, *extra]),
        image_sizes=np.array([*empty.image_sizes, *map(upright_size, paths[len(empty) :])], np.int32),
        boxes=np.zeros((0, 4), np.float32),
        box_classes=np.zeros(0, np.int32),
        box_images=np.zeros(0, np.int32),
        notes=(note,),
    )
    return Unlabelled(pictures, labelled if len(labelled) else None)


def _holds_only_pictures(path: Path) -> bool:
    files = [path] if path.is_file() else [file for file in path.rglob("[!.]*") if file.is_file()]
    ends = {file.suffix.lower() for file in files}
    return bool(ends & IMAGE_SUFFIXES) and ends <= {*IMAGE_SUFFIXES, *_NO_LABELS}


def _unnamed(dataset: Dataset) -> list[str]:
    """The images beside the labelled ones that no label names; elsewhere lie masks and the like."""
    named = set(dataset.image_ids)
    folders = {image_id.rpartition("/")[0] for image_id in named}
    beside = (file for file in list_images(dataset.root) if file.rpartition("/")[0] in folders)
    return [file for file in beside if file not in named]


def _class_table(found: Unlabelled, known: tuple[str, ...]) -> tuple[str, ...]:
    """The labels' classes, then those that only the detector knows."""
    names = found.labelled.class_names if found.labelled else ()
    if names and not set(names) & set(known):
        raise InputError(
            f"the detector knows {', '.join(known)}, and the labels have {', '.join(names)}: no class is in both. Give "
            "a detector of these classes; dataset.with_classes({old: new}) renames those of labels"
        )
    return tuple(dict.fromkeys((*names, *known)))


def _trained_as_empty(run: Run | None, pictures: Dataset) -> list[str]:
    """A note on pictures that the run was trained on as if nothing were in them: it learnt to find nothing there."""
    if run is None:
        return []
    seen = run.dataset()
    seen = seen.select((seen.boxes_per_image() == 0) & (seen.image_splits == run.settings.train_split))
    count = int(np.isin(pictures.image_paths, seen.image_paths).sum())
    note = (
        f"{run.name} was trained on {count:,} of these pictures as if nothing were in them, so it will overlook what "
        "is: train without them, as od.fine_tune(dataset.select(dataset.boxes_per_image() > 0))"
    )
    return [note] if count else []


# -- what to suggest ---------------------------------------------------------------------------------------------------


def _best_score(run: Run | None) -> tuple[float, str]:
    if run is None:
        return DEFAULT_SCORE, "as a detector without its run says nothing better"
    judged = run.evaluation()
    if not judged.ap50 > 0:  # nan without ground truth
        return DEFAULT_SCORE, f"as {run.name} has found nothing on its validation images to judge a score by"
    best = judged.best_score
    return best, f"the score with the best F1 on the validation images of {run.name}"


def _look(
    detector: "Detector | OnnxDetector",
    pictures: Dataset,
    *,
    keep: str | Path | None,
    stop: Callable[[], bool],
    **how: Any,
) -> Predictions:
    """What the detector finds in all pictures; what an earlier call kept in a file is not looked for again."""
    kept = Path(keep) if keep is not None else None
    before = Predictions.load(kept) if kept is not None and kept.exists() else None
    seen = {} if before is None else {image: _of(before, row) for row, image in enumerate(before.image_ids)}
    todo = pictures.select([row for row, image in enumerate(pictures.image_ids) if image not in seen])
    if len(todo):
        done = detection.predict(detector, todo, stop=stop, **how)
        seen |= {image: _of(done, row) for row, image in enumerate(done.image_ids)}
    found = Predictions.from_images(seen.values(), detector.class_names, tuple(seen))
    missing = len(pictures) - int(np.isin(pictures.image_ids, list(seen)).sum())
    if missing:
        if kept is not None:
            found.save(kept)
        way_on = "The same call goes on with the others" if kept is not None else "Nothing is kept"
        raise Interrupted(f"stopped with {missing:,} of {len(pictures):,} pictures left. {way_on}.")
    if kept is not None:
        kept.unlink(missing_ok=True)
    return found


def _of(found: Predictions, image: int) -> tuple[Any, Any, Any]:
    rows = found.of(image)
    return found.boxes[rows], found.scores[rows], found.classes[rows]


def _one_an_object(found: Predictions) -> Predictions:
    """Of boxes that lie on one another, whatever their classes, the surest; the surest of each picture first."""
    found = found.select(np.lexsort((-found.scores, found.images)))
    keep = np.ones(len(found), bool)
    for image in np.unique(found.images).tolist():
        rows = found.of(image)
        same = np.triu(box_iou(found.boxes[rows], found.boxes[rows]) > SAME_OBJECT, 1)
        for k in range(rows.stop - rows.start):
            if keep[rows][k]:
                keep[rows] &= ~same[k]
    return found.select(keep)


def _doubts(
    everything: Predictions, suggested: Predictions, threshold: float, count: int
) -> NDArray[np.float64]:
    """See `Prelabels.doubt`; squared, so that a crowd of faint boxes does not outweigh a real question."""
    below = everything.scores / max(threshold, 1e-6)
    above = (1 - everything.scores) / max(1 - threshold, 1e-6)
    doubts = np.bincount(everything.images, np.clip(np.minimum(below, above), 0, 1) ** 2, minlength=count)
    nothing: NDArray[np.bool_] = np.bincount(suggested.images, minlength=count) == 0
    return np.asarray(doubts + nothing, np.float64)
