"""A Dataset to FiftyOne and back, in bulk: `to_fiftyone()`, `from_fiftyone()`.

There by documents written straight into FiftyOne's database (`fo_dataset`), back by one query for all columns.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from odkit.analysis import Evaluation, Suspect
from odkit.browsing import annotate, fo_dataset, fo_private
from odkit.browsing.fo_dataset import GROUND_TRUTH, UNKNOWN_LABEL
from odkit.data import (
    UNKNOWN_CLASS,
    Dataset,
    Predictions,
    SourceProblem,
    Texts,
    object_array,
    relative_xywh_to_xyxy,
    upright_size,
)
from odkit.runs import Prelabels
from odkit.system import InputError

if TYPE_CHECKING:
    from odkit.data.audit import Audit

DEFAULT_SCORE = 0.3  # predictions below this are left out unless told otherwise


def to_fiftyone(
    dataset: Dataset,
    *,
    name: str | None = None,
    predictions: Predictions | Evaluation | Mapping[str, Predictions | Evaluation] | None = None,
    audit: "Audit | None" = None,
    suspects: Sequence[Suspect] | None = None,
    score: float | Mapping[str, float] = DEFAULT_SCORE,
    persistent: bool = False,
    keep_edits: bool = True,
) -> Any:
    """The dataset in FiftyOne: ground truth, splits as tags, predictions, audit findings as saved views.

    The same data has the same name there. Where it exists already it is updated in place: predictions and findings
    are replaced, and what a person did in the App (tags, deleted, moved or renamed boxes) stays.

    Args:
        dataset: What to show; the files stay where they are.
        name: Name in FiftyOne; by default the dataset's name and fingerprint.
        predictions: One detector's, or several by label; or evaluations of them, of this very dataset. Each becomes a
            field with "tp" or "fp" in `eval` (with several `eval_LABEL`) and the kind of mistake in `mistake`, ground
            truth boxes "tp" or "fn"; saved views list the images worst first, the false positives, the missed boxes
            and each kind of mistake; and the App's Model Evaluation panel has the figures of `od.evaluate`, AP of all
            predictions, the others of those from `score` on.
        suspects: Labels that are probably wrong become a field of boxes and a saved view, the most suspicious first.
        audit: Its findings become tags and saved views, one a kind.
        score: Predictions below it are left out, and their matches with them; one for all or one a label.
        persistent: Keep it in the database after the last process that uses FiftyOne has ended.
        keep_edits: False starts anew, without what was done in the App.

    Returns:
        A `fiftyone.Dataset`.

    Raises:
        AppError: FiftyOne's database cannot start.
        ValueError: `name` belongs to a dataset that odkit did not make, or the predictions are not of this dataset.
    """
    fo = fo_dataset.fiftyone()
    if isinstance(predictions, Predictions | Evaluation):
        predictions = {"predictions": predictions}
    found = dict(predictions or {})
    made, edited = _put(fo, dataset, name or fo_dataset.name_of(dataset), persistent, keep_edits)
    written = False
    if audit is not None:
        written |= annotate.put_findings(made, dataset, audit)
    for label, one in found.items():
        least = score[label] if isinstance(score, Mapping) else score
        written |= annotate.put_predictions(fo, made, dataset, label, one, least)
    if suspects is not None:
        written |= annotate.put_suspects(fo, made, dataset, suspects)
    if written:
        fo_dataset.note(made, edited=edited)
    return made


def suggestions_to_fiftyone(
    prelabels: Prelabels, *, persistent: bool = False, keep_edits: bool = True
) -> Any:
    """Pictures with a detector's suggestions in FiftyOne, see `to_fiftyone`; a dataset of their own."""
    fo = fo_dataset.fiftyone()
    # the next detector knows one class more, perhaps: the pictures, and what was done with them, stay the same
    pictures = prelabels.pictures.replace(class_names=())
    name = f"{fo_dataset.name_of(pictures)}-suggestions"
    made, edited = _put(fo, pictures, name, persistent, keep_edits)
    annotate.put_suggestions(fo, made, prelabels)
    fo_dataset.note(made, edited=edited)
    return made


def _put(fo: Any, dataset: Dataset, name: str, persistent: bool, keep_edits: bool) -> tuple[Any, bool]:
    """The FiftyOne dataset of that name with this data, and whether a person has changed it."""
    there = fo_dataset.existing(fo, dataset, name, keep_edits)
    made = there if there is not None else fo_dataset.make(fo, dataset, name)
    if persistent and not made.persistent:
        made.persistent = True
    return made, there is not None and fo_dataset.is_edited(made)


# -- from FiftyOne ---------------------------------------------------------------------------------------------------

_SPLIT_TAGS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def from_fiftyone(view: Any, *, field: str = GROUND_TRUTH) -> Dataset:
    """A FiftyOne dataset or view as a Dataset: what was filtered, deleted, moved, renamed or added in it holds.

    Datasets that odkit did not make work as well: sizes come from FiftyOne's metadata or the files' headers, splits
    from tags named train, val and test.

    Args:
        view: A `fiftyone.Dataset`, a view of one (of images or of patches), or what `browse()` returned.
        field: The field whose boxes are the ground truth. Where there is none of that name and only one field of
            detections, that one is read.

    Raises:
        ValueError: The view is not of images, or there is no such field of detections; the message lists those there
            are.
    """
    view = getattr(view, "view", view) if not hasattr(view, "values") else view
    view.reload()
    view = _of_images(view, field)
    whole = fo_private.whole_of(view)
    field = _detections_field(whole, field)
    ours = whole.info.get("odkit") or {}
    columns = _columns(view, whole, field)
    paths = columns["filepath"]
    root = Path(ours["root"]) if "root" in ours else _common_folder(paths)
    counts = np.array([len(b or ()) for b in columns["bounding_box"]], np.int64)
    images = np.repeat(np.arange(len(paths)), counts)
    sizes, problems = _sizes_of(paths, columns, counts)
    relative = np.array([b for boxes in columns["bounding_box"] for b in boxes or ()], np.float64).reshape(
        -1, 4
    )
    usable = (sizes[images] > 0).all(1)
    labels = np.array(_flat(columns["label"], counts), object)
    class_names, classes = _classes(whole, field, labels, ours)
    boxes = np.zeros((len(images), 4), np.float32)
    boxes[usable] = relative_xywh_to_xyxy(relative[usable], sizes[images[usable]])
    splits, ambiguous = _splits(columns["tags"], ours.get("splits", ()))
    notes = [
        f"from FiftyOne's {whole.name!r}: {len(paths):,} of {whole.count():,} images, boxes of {field!r}"
    ]
    if ambiguous:
        notes.append(f"{ambiguous:,} images are tagged with two splits; the last given counts")
    made = Dataset(
        name=ours.get("name", whole.name),
        root=root,
        format="fiftyone",
        class_names=class_names,
        image_paths=Texts.of(paths),
        image_ids=Texts.of(_image_ids(columns["image_id"], paths, root)),
        image_sizes=sizes,
        image_splits=object_array(splits),
        boxes=boxes,
        box_classes=classes,
        box_images=images.astype(np.int32),
        box_crowd=np.array([bool(value) for value in _flat(columns["iscrowd"], counts)], bool),
        box_ids=Texts.of(_box_ids(columns, counts)),
        notes=tuple(notes),
        source_problems=tuple(problems),
    )
    return made if usable.all() else made.select_boxes(usable)


def _of_images(view: Any, field: str) -> Any:
    """The same view with a row an image: patches become the images they were cut from, with just those boxes."""
    if view.media_type not in ("image", None) or fo_private.is_frames(view):
        raise InputError(
            f"{view.name or fo_private.whole_of(view).name} holds {view.media_type}s; odkit reads images"
        )
    if not fo_private.is_patches(view):
        return view
    whole = fo_private.whole_of(view)
    chosen = whole.select(list(dict.fromkeys(view.values("sample_id"))), ordered=True)
    if not view.has_field(field):
        return chosen
    ids = [
        i
        for one in view.values(f"{field}.detections.id" if _is_list(view, field) else f"{field}.id")
        for i in (one if isinstance(one, list) else [one])
        if i
    ]
    return chosen.select_labels(ids=ids, fields=[field], omit_empty=False)


def _is_list(view: Any, field: str) -> bool:
    return view.get_field(f"{field}.detections") is not None


def _detections_field(whole: Any, field: str) -> str:
    import fiftyone as fo

    there: list[str] = [
        name
        for name, kind in whole.get_field_schema(ftype=fo.EmbeddedDocumentField).items()
        if issubclass(kind.document_type, fo.Detections)
    ]
    if field in there:
        return field
    if field == GROUND_TRUTH and there == [annotate.SUGGESTIONS] and whole.info.get("odkit"):
        raise InputError(
            f"{whole.name} has a detector's suggestions, which are no labels before a person accepts them: "
            f"browser.edits() has those that were, field={annotate.SUGGESTIONS!r} all of them"
        )
    if field == GROUND_TRUTH and len(there) == 1:
        return there[0]
    raise InputError(
        f"{whole.name} has no field {field!r} of detections; fields of detections: {', '.join(there) or 'none'}. "
        "Name one with field="
    )


def _columns(view: Any, whole: Any, field: str) -> dict[str, list[Any]]:
    """Every column that is needed, a list an image, in one query; None throughout where a column is not there."""
    path = {
        "filepath": "filepath",
        "tags": "tags",
        "image_id": "image_id",
        "width": "metadata.width",
        "height": "metadata.height",
        **{
            name: f"{field}.detections.{name}"
            for name in ("id", "bounding_box", "label", "iscrowd", "box_id")
        },
    }
    declared = {name: p for name, p in path.items() if whole.get_field(p) is not None}
    # width and height are declared on first use; asking for what is not there is an error in FiftyOne
    values = fo_private.values(view, list(declared.values()))
    columns = dict(zip(declared, values, strict=True))
    rows = len(columns["filepath"])
    return {name: columns.get(name) or [None] * rows for name in path}


def _flat(column: Sequence[Any], counts: NDArray[np.int64]) -> list[Any]:
    """A ragged column as one list with a value a box; None where an image has no values."""
    return [v for values, n in zip(column, counts.tolist(), strict=True) for v in (values or [None] * n)]


def _sizes_of(
    paths: Sequence[str], columns: Mapping[str, Sequence[Any]], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int32], list[SourceProblem]]:
    sizes = np.array(
        [[w or 0, h or 0] for w, h in zip(columns["width"], columns["height"], strict=True)], np.int32
    )
    sizes = sizes.reshape(-1, 2)
    problems = []
    for i in np.flatnonzero((sizes <= 0).any(1)).tolist():
        sizes[i] = upright_size(paths[i])
        if not sizes[i].all() and counts[i]:
            message = f"neither FiftyOne nor the file tells its size, so its {counts[i]} boxes have no pixels"
            fix = "restore the file, or compute_metadata() in FiftyOne"
            problems.append(SourceProblem("unknown_size", "warning", paths[i], message, fix))
    return sizes, problems


def _classes(
    whole: Any, field: str, labels: NDArray[Any], ours: Mapping[str, Any]
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The class table (FiftyOne's own, then labels that are new to it) and each box's index in it."""
    table = list(whole.classes.get(field) or whole.default_classes or ())
    if not ours:  # a view's classes are its dataset's, so that two views of it agree
        table += sorted(set(filter(None, whole.distinct(f"{field}.detections.label"))) - set(table))
    known = set(filter(None, labels.tolist())) - {UNKNOWN_LABEL}
    table += sorted(known - set(table))
    index = {name: i for i, name in enumerate(table)}
    return tuple(table), np.array([index.get(label, UNKNOWN_CLASS) for label in labels.tolist()], np.int32)


def _splits(tags: Sequence[Sequence[str] | None], own: Sequence[str]) -> tuple[list[str], int]:
    """The split each image is tagged with, and how many are tagged with two."""
    names = {**_SPLIT_TAGS, **{name: name for name in own}}
    found = [[names[tag] for tag in given or () if tag in names] for given in tags]
    return [f[-1] if f else "" for f in found], sum(len(set(f)) > 1 for f in found)


def _image_ids(given: Sequence[str | None], paths: Sequence[str], root: Path) -> list[str]:
    ids = [i or Path(os.path.relpath(path, root)).as_posix() for i, path in zip(given, paths, strict=True)]
    twice = {i for i, count in Counter(ids).items() if count > 1}
    return [f"{i}#{row}" if i in twice else i for row, i in enumerate(ids)]


def _box_ids(columns: Mapping[str, Sequence[Any]], counts: NDArray[np.int64]) -> list[str]:
    pairs = zip(_flat(columns["box_id"], counts), _flat(columns["id"], counts), strict=True)
    return [str(own or f"FiftyOne {label_id}") for own, label_id in pairs]


def _common_folder(paths: Sequence[str]) -> Path:
    try:
        return Path(os.path.commonpath([os.path.dirname(path) for path in paths]))
    except ValueError:  # none at all, or on different drives
        return Path()
