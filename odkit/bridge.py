"""Dataset and predictions to FiftyOne and back, in bulk.

FiftyOne keeps an image as one document in its database. Documents are written here straight into the collection,
shaped after one that FiftyOne itself made, because making an object a box costs fifty times as much. Reading back
is one query for all columns.

What odkit adds to FiftyOne's own fields: `image_id` on a sample and `box_id` on a label, so that what was changed,
deleted or added in the App is known when it comes back, and `odkit` in the dataset's info.
"""

import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from odkit import app
from odkit.boxes import relative_xywh_to_xyxy, xyxy_to_relative_xywh
from odkit.dataset import UNKNOWN_CLASS, Dataset, SourceProblem
from odkit.matching import match
from odkit.predictions import Predictions

if TYPE_CHECKING:
    from odkit.audit import Audit

GROUND_TRUTH = "ground_truth"
UNKNOWN_LABEL = "(unknown class)"
AUDIT = "audit: "  # how the tags and saved views made from an audit begin
DEFAULT_SCORE = 0.3  # predictions below this are left out unless told otherwise
_BATCH = 500  # images a write: a few megabytes
_STALE = timedelta(days=7)

# Applied before FiftyOne is imported; what a person has set in the environment stays.
_SETTINGS = {
    "FIFTYONE_DO_NOT_TRACK": "1",
    "FIFTYONE_LOGGING_LEVEL": "WARNING",
    "FIFTYONE_SHOW_PROGRESS_BARS": "false",
    "FIFTYONE_DEFAULT_APP_ADDRESS": app.LOOPBACK,
    "FIFTYONE_APP_DEFAULT_QUERY_PERFORMANCE": "false",  # the side bar lists tags and classes with their counts
}


def _fiftyone() -> Any:
    """The fiftyone module, quiet and connected to its database, which is started where it does not run.

    Raises:
        AppError: The database cannot start; the message says why.
        ImportError: FiftyOne is not installed.
    """
    first = "fiftyone" not in sys.modules
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("FIFTYONE_DATABASE_URI"):
        # our own mongod is known to fit; the check would only say that it is the oldest version supported
        os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
        if not os.access(os.path.expanduser("~"), os.W_OK):  # without a home it makes a folder named "~"
            os.environ.setdefault("FIFTYONE_DEFAULT_DATASET_DIR", str(app.state_folder() / "fiftyone"))
    uri = app.start_database() if first else ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation notes of its own imports
        import fiftyone as fo
        import fiftyone.core.odm.database as connection

        if not first and connection._client is None and fo.config.database_uri is None:
            uri = app.start_database()  # imported before odkit, not connected yet
        if uri:
            fo.config.database_uri = uri
            os.environ["FIFTYONE_DATABASE_URI"] = uri  # for child processes
            fo.list_datasets()  # connects, which warns as well
    return fo


def database_uri() -> str:
    """Address of the database this process is connected to."""
    fo = _fiftyone()
    from fiftyone.core.odm import get_db_conn

    host, port = get_db_conn().client.address
    return str(fo.config.database_uri or f"mongodb://{host}:{port}")


# -- to FiftyOne -----------------------------------------------------------------------------------------------------


def to_fiftyone(
    dataset: Dataset,
    *,
    name: str | None = None,
    predictions: Predictions | Mapping[str, Predictions] | None = None,
    audit: "Audit | None" = None,
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
        predictions: One detector's, or several by label; each becomes a field with "tp" or "fp" in `eval` (with
            several `eval_LABEL`), ground truth boxes get "tp" or "fn" there, and saved views list the images worst
            first, the false positives and the missed boxes.
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
    fo = _fiftyone()
    found = {"predictions": predictions} if isinstance(predictions, Predictions) else dict(predictions or {})
    there = _existing(fo, dataset, name or _name(dataset), keep_edits)
    made = there if there is not None else _make(fo, dataset, name or _name(dataset))
    edited = there is not None and is_edited(made)
    if persistent and not made.persistent:
        made.persistent = True
    if audit is not None:
        _put_findings(fo, made, dataset, audit)
    for label, one in found.items():
        least = score[label] if isinstance(score, Mapping) else score
        _put_predictions(fo, made, dataset, label, one, least)
    if found or audit is not None:
        _note(made, edited=edited)
    return made


def _name(dataset: Dataset) -> str:
    stem = re.sub(r"[^\w.-]+", "-", dataset.name).strip("-.") or "dataset"
    return f"{stem[:60]}-{dataset.fingerprint()[:8]}"


def _existing(fo: Any, dataset: Dataset, name: str, keep_edits: bool) -> Any:
    """The FiftyOne dataset of that name, holding this very data; None where there is none or it was emptied."""
    if not fo.dataset_exists(name):
        return None
    there = fo.load_dataset(name, reload=True)
    ours = there.info.get("odkit")
    if not ours:
        raise ValueError(f"FiftyOne has a dataset {name!r} that odkit did not make; give another name=")
    if not keep_edits or ours["fingerprint"] != dataset.fingerprint():
        return _refill(fo, there, dataset)
    if ours["root"] != str(dataset.root):  # the same data, moved
        edited = is_edited(there)
        paths = dict(zip(dataset.image_ids, dataset.image_paths, strict=True))
        ids, image_ids = there.values(["id", "image_id"])
        known = {i: paths[image_id] for i, image_id in zip(ids, image_ids, strict=True) if image_id in paths}
        there.set_values("filepath", known, key_field="id")
        _note(there, root=str(dataset.root), edited=edited)
    return there


def _make(fo: Any, dataset: Dataset, name: str) -> Any:
    """A new FiftyOne dataset, filled under a passing name and then named in one step.

    So another kernel that asks for the same name meets either nothing or the whole, and of two that make it at the
    same time one wins.
    """
    from fiftyone.core.odm import get_db_conn
    from fiftyone.core.utils import to_slug
    from pymongo.errors import DuplicateKeyError

    _forget_stale(fo)
    made = fo.Dataset(f"odkit-{uuid4().hex}")
    try:
        _fill(fo, made, dataset)
        get_db_conn().datasets.update_one(
            {"_id": made._doc.id}, {"$set": {"name": name, "slug": to_slug(name)}}
        )
    except BaseException as error:
        fo.delete_dataset(made.name)
        if not isinstance(error, DuplicateKeyError):
            raise
    return fo.load_dataset(name, reload=True)


def _refill(fo: Any, there: Any, dataset: Dataset) -> Any:
    there.clear()
    for view in there.list_saved_views():
        there.delete_saved_view(view)
    mine = [*there.info["odkit"].get("fields", ()), GROUND_TRUTH]
    there.delete_sample_fields([f for f in mine if there.has_field(f)])
    _fill(fo, there, dataset)
    return there


def _fill(fo: Any, made: Any, dataset: Dataset) -> None:
    """Insert all images and boxes, shaped after one sample that FiftyOne itself inserted."""
    from bson import ObjectId

    box = fo.Detection(label="a", bounding_box=[0, 0, 1, 1], iscrowd=False, box_id="a")
    sample = fo.Sample(
        "/pattern.jpg",
        image_id="a",
        metadata=fo.ImageMetadata(width=1, height=1),
        ground_truth=fo.Detections(detections=[box]),
    )
    made.add_sample(sample, dynamic=True)
    pattern = made._sample_collection.find_one_and_delete({})
    del pattern["_id"]
    (box_pattern,) = pattern[GROUND_TRUTH]["detections"]
    sizes = _sizes_to_draw(dataset)
    boxes = _relative(dataset, dataset.boxes, dataset.box_images, sizes)
    names = np.array([*dataset.class_names, UNKNOWN_LABEL], object)  # index -1 is the last
    rows = [
        {
            **box_pattern,
            "_id": ObjectId(),
            "tags": [],
            "label": label,
            "bounding_box": b,
            "iscrowd": crowd,
            "box_id": i,
        }
        for label, b, crowd, i in zip(
            names[dataset.box_classes], boxes, dataset.box_crowd.tolist(), dataset.box_ids, strict=True
        )
    ]
    first = np.searchsorted(dataset.box_images, np.arange(len(dataset) + 1)).tolist()
    dice = np.random.default_rng(0).random(len(dataset)).tolist()  # what FiftyOne draws samples by
    for start in range(0, len(dataset), _BATCH):
        documents = [
            {
                **pattern,
                "_id": ObjectId(),
                "filepath": dataset.image_paths[i],
                "tags": [dataset.image_splits[i]] if dataset.image_splits[i] else [],
                "metadata": {**pattern["metadata"], "width": int(sizes[i, 0]), "height": int(sizes[i, 1])},
                "_rand": dice[i],
                "image_id": dataset.image_ids[i],
                GROUND_TRUTH: {**pattern[GROUND_TRUTH], "detections": rows[first[i] : first[i + 1]]},
            }
            for i in range(start, min(start + _BATCH, len(dataset)))
        ]
        made._sample_collection.insert_many(documents, ordered=False)
    made.default_classes = list(dataset.class_names)
    _arrange(fo, made, color_by="value")
    made.set_label_schemas({GROUND_TRUTH: _annotation(dataset.class_names)})
    made.activate_label_schemas(GROUND_TRUTH)
    made.info = {
        "odkit": {
            "fingerprint": dataset.fingerprint(),
            "name": dataset.name,
            "root": str(dataset.root),
            "splits": list(dataset.split_counts()),
        }
    }
    _note(made)


def _annotation(class_names: Sequence[str]) -> dict[str, Any]:
    """What the App's "Annotate" offers to set on a box: one of the classes, and whether it stands for a crowd."""
    return {
        "type": "detections",
        "component": "radio" if len(class_names) <= 5 else "dropdown",
        "classes": list(class_names),
        "attributes": [
            {"name": "iscrowd", "type": "bool", "component": "toggle"},
            {"name": "tags", "type": "list<str>", "component": "text"},
        ],
    }


def _arrange(fo: Any, made: Any, *, color_by: str) -> None:
    """How the App starts: coloured by class or by whose boxes they are, tags and labels open in the side bar."""
    made.app_config.color_scheme = fo.ColorScheme(color_by=color_by)
    groups = fo.DatasetAppConfig.default_sidebar_groups(made)
    for group in groups:
        group.expanded = group.name in ("tags", "labels")
    made.app_config.sidebar_groups = sorted(groups, key=lambda group: not group.expanded)
    made.save()


def _note(made: Any, *, edited: bool = False, **facts: Any) -> None:
    """Write into the dataset's info when odkit last wrote to it, so that later edits are a person's."""
    newest = made.max("last_modified_at") or datetime.now(UTC).replace(tzinfo=None)
    made.info["odkit"].update(written_at=newest, edited=edited, **facts)
    made.save()


def is_edited(made: Any) -> bool:
    """True if somebody changed this FiftyOne dataset after odkit wrote it."""
    ours = made.info["odkit"]
    newest, deleted = made.max("last_modified_at"), made.last_deletion_at
    return bool(
        ours["edited"]
        or (newest is not None and _naive(newest) > _naive(ours["written_at"]))
        or (deleted is not None and _naive(deleted) > _naive(ours["written_at"]))
    )


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _forget_stale(fo: Any) -> None:
    """Delete what odkit put there long ago and nobody has touched or opened since; what a person edited stays."""
    from fiftyone.core.odm import get_db_conn

    before = datetime.now(UTC) - _STALE
    old = {"last_loaded_at": {"$lt": before}, "created_at": {"$lt": before}}
    for there in get_db_conn().datasets.find({"info.odkit": {"$exists": True}, **old}, {"name": 1}):
        if fo.dataset_exists(there["name"]) and not is_edited(fo.load_dataset(there["name"])):
            fo.delete_dataset(there["name"])


def _sizes_to_draw(dataset: Dataset) -> NDArray[np.int32]:
    """The declared size of each image; where none is known, from its header, else just large enough for its boxes."""
    sizes = dataset.image_sizes.copy()
    for i in np.flatnonzero((sizes <= 0).any(1)).tolist():
        sizes[i] = _upright_size(dataset.image_paths[i])
        if not sizes[i].all():
            extent = np.nan_to_num(dataset.boxes[dataset.boxes_of(i), 2:]).max(0, initial=1)
            sizes[i] = np.ceil(extent)
    return sizes


def _relative(dataset: Dataset, boxes: Any, images: Any, sizes: NDArray[np.int32]) -> list[list[float]]:
    relative = xyxy_to_relative_xywh(boxes, sizes[images])
    relative[~np.isfinite(relative).all(1)] = (
        0  # the App's JSON has no word for NaN; the audit names such boxes
    )
    return relative.tolist()  # type: ignore[no-any-return]


# -- predictions and findings ----------------------------------------------------------------------------------------


def _put_predictions(
    fo: Any, made: Any, dataset: Dataset, label: str, predictions: Predictions, score: float
) -> None:
    """One detector's predictions as a field, with true positives, false positives and misses marked."""
    from bson import ObjectId
    from pymongo import UpdateOne

    label = field_name(label)
    key = "eval" if label == "predictions" else f"eval_{label}"
    found = predictions.for_dataset(dataset).above(score)
    matches = match(dataset, found)
    marks = np.array(["fp", "tp", "ignored"])[
        np.select([matches.kinds == "true_positive", matches.kinds == "ignored"], [1, 2], 0)
    ]
    hit = matches.predictions >= 0
    box_marks = np.where(hit, "tp", np.where(dataset.box_crowd, "ignored", "fn"))
    box_ious = np.zeros(dataset.num_boxes)
    box_ious[hit] = matches.ious[matches.predictions[hit]]

    _declare(fo, made, label, key)
    pattern = fo.Detection(label="a", bounding_box=[0, 0, 1, 1]).to_dict()
    pattern.pop("_id", None)
    boxes = _relative(dataset, found.boxes, found.images, _sizes_to_draw(dataset))
    rows = [
        {
            **pattern,
            "_id": ObjectId(),
            "tags": [],
            "label": dataset.class_names[c],
            "bounding_box": b,
            "confidence": s,
            key: mark,
            f"{key}_iou": iou,
            f"{key}_id": "",
        }
        for c, b, s, mark, iou in zip(
            found.classes.tolist(),
            boxes,
            found.scores.tolist(),
            marks.tolist(),
            matches.ious.tolist(),
            strict=True,
        )
    ]
    n = len(dataset)
    count = {
        f"{key}_tp": np.bincount(found.images[marks == "tp"], minlength=n),
        f"{key}_fp": np.bincount(found.images[marks == "fp"], minlength=n),
        f"{key}_fn": np.bincount(dataset.box_images[box_marks == "fn"], minlength=n),
    }
    # one for each missed box, the score of each false positive, 1 - IoU of each true one
    cost = np.where(marks == "fp", found.scores, np.where(marks == "tp", 1 - matches.ious, 0))
    loss = count[f"{key}_fn"] + np.bincount(found.images, weights=cost, minlength=n)

    place = {image_id: i for i, image_id in enumerate(dataset.image_ids)}
    wanted = {"image_id": 1, f"{GROUND_TRUTH}.detections.box_id": 1, f"{GROUND_TRUTH}.detections._id": 1}
    operations = []
    for sample in made._sample_collection.find({}, wanted):
        i = place.get(sample.get("image_id"), -1)
        if i < 0:
            continue  # added in the App: the detector has not seen it
        values: dict[str, Any] = {name: int(column[i]) for name, column in count.items()}
        values[f"{key}_loss"] = float(loss[i])
        values[label] = {"_cls": "Detections", "detections": rows[found.of(i)]}
        for position, row in _rows_there(dataset, i, sample):
            by = int(matches.predictions[row])
            if by >= 0:
                rows[by][f"{key}_id"] = str(sample[GROUND_TRUTH]["detections"][position]["_id"])
            there = f"{GROUND_TRUTH}.detections.{position}.{key}"
            values[there] = str(box_marks[row])
            values[f"{there}_iou"] = float(box_ious[row])
            values[f"{there}_id"] = str(rows[by]["_id"]) if by >= 0 else ""
        operations.append(UpdateOne({"_id": sample["_id"]}, {"$set": values}))
        if len(operations) == _BATCH:
            made._sample_collection.bulk_write(operations, ordered=False)
            operations = []
    if operations:
        made._sample_collection.bulk_write(operations, ordered=False)
    made.reload()
    _arrange(fo, made, color_by="field")
    _register(made, label, key)
    _save_prediction_views(fo, made, label, key)


def field_name(label: str) -> str:
    """A label (a run's name, say) as the name of a FiftyOne field."""
    name = re.sub(r"\W+", "_", label).strip("_") or "predictions"
    return f"run_{name}" if name[0].isdigit() or name == GROUND_TRUTH else name


def _rows_there(dataset: Dataset, image: int, sample: Mapping[str, Any]) -> Iterable[tuple[int, int]]:
    """Position in FiftyOne and row in the dataset of each of an image's boxes that both still have."""
    there = [label.get("box_id") for label in (sample.get(GROUND_TRUTH) or {}).get("detections") or ()]
    rows = range(*dataset.boxes_of(image).indices(dataset.num_boxes))
    ids = [dataset.box_ids[row] for row in rows]
    if there == ids:
        return enumerate(rows)
    known = dict(zip(ids, rows, strict=True))
    return [(position, known[i]) for position, i in enumerate(there) if i in known]


def _declare(fo: Any, made: Any, label: str, key: str) -> None:
    """The fields that are about to be written, so that FiftyOne and its App know them."""
    made.add_sample_field(label, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for owner in (label, GROUND_TRUTH):
        made.add_sample_field(f"{owner}.detections.{key}", fo.StringField)
        made.add_sample_field(f"{owner}.detections.{key}_iou", fo.FloatField)
        made.add_sample_field(f"{owner}.detections.{key}_id", fo.StringField)
    for name in ("tp", "fp", "fn"):
        made.add_sample_field(f"{key}_{name}", fo.IntField)
    made.add_sample_field(f"{key}_loss", fo.FloatField)
    made.info["odkit"]["fields"] = sorted(
        {*made.info["odkit"].get("fields", ()), label, *(f"{key}_{n}" for n in ("tp", "fp", "fn", "loss"))}
    )
    made.save()


def _register(made: Any, label: str, key: str) -> None:
    """Tell FiftyOne that this is an evaluation, so that the App offers its patches by true and false positive."""
    from fiftyone.utils.eval.coco import COCOEvaluationConfig

    run = COCOEvaluationConfig(label, GROUND_TRUTH, iou=0.5, classwise=True).build()
    run.register_run(made, key, overwrite=True, cleanup=False)


def _save_prediction_views(fo: Any, made: Any, label: str, key: str) -> None:
    mark = fo.ViewField(key)
    prefix = "" if label == "predictions" else f"{label}: "
    worst = made.sort_by(f"{key}_loss", reverse=True)
    made.save_view(f"{prefix}worst first", worst, overwrite=True)
    wrong = made.filter_labels(label, mark == "fp").sort_by(f"{key}_fp", reverse=True)
    made.save_view(f"{prefix}false positives", wrong, overwrite=True)
    missed = made.filter_labels(GROUND_TRUTH, mark == "fn").sort_by(f"{key}_fn", reverse=True)
    made.save_view(f"{prefix}missed", missed, overwrite=True)


def _put_findings(fo: Any, made: Any, dataset: Dataset, audit: "Audit") -> None:
    """Audit findings as tags on images and boxes, with a saved view of each kind."""
    from pymongo import UpdateOne

    for view in made.list_saved_views():
        if view.startswith(AUDIT):
            made.delete_saved_view(view)
    old = [tag for tag in made.distinct("tags") if tag.startswith(AUDIT)]
    if old:
        made.untag_samples(old)
    labels = f"{GROUND_TRUTH}.detections.tags"
    if any(tag.startswith(AUDIT) for tag in made.distinct(labels)):
        made.untag_labels(
            [t for t in made.distinct(labels) if t.startswith(AUDIT)], label_fields=GROUND_TRUTH
        )
    tags: dict[int, set[str]] = {}
    box_tags: dict[int, set[str]] = {}
    for finding in audit.findings:
        tag = AUDIT + finding.kind.replace("_", " ")
        image, box = finding.image_index, finding.box_index
        if box >= 0:
            box_tags.setdefault(box, set()).add(tag)
            image = int(dataset.box_images[box])
        if image >= 0:
            tags.setdefault(image, set()).add(tag)
    place = {dataset.image_ids[i]: i for i in tags}
    wanted = {"image_id": {"$in": list(place)}}
    operations = []
    for sample in made._sample_collection.find(
        wanted, {"image_id": 1, f"{GROUND_TRUTH}.detections.box_id": 1}
    ):
        i = place[sample["image_id"]]
        new: dict[str, Any] = {"tags": {"$each": sorted(tags[i])}}
        for position, row in _rows_there(dataset, i, sample):
            if row in box_tags:
                new[f"{GROUND_TRUTH}.detections.{position}.tags"] = {"$each": sorted(box_tags[row])}
        operations.append(UpdateOne({"_id": sample["_id"]}, {"$addToSet": new}))
    if operations:
        made._sample_collection.bulk_write(operations, ordered=False)
    made.reload()
    for tag in sorted({*(t for one in tags.values() for t in one)}):
        made.save_view(tag, made.match_tags(tag), overwrite=True)


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
    whole = view._root_dataset
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
        image_paths=_text(paths),
        image_ids=_text(_image_ids(columns["image_id"], paths, root)),
        image_sizes=sizes,
        image_splits=_text(splits),
        boxes=boxes,
        box_classes=classes,
        box_images=images.astype(np.int32),
        box_crowd=np.array([bool(value) for value in _flat(columns["iscrowd"], counts)], bool),
        box_ids=_text(_box_ids(columns, counts)),
        notes=tuple(notes),
        source_problems=tuple(problems),
    )
    return made if usable.all() else made.select_boxes(usable)


def _text(values: Sequence[str]) -> NDArray[np.object_]:
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _of_images(view: Any, field: str) -> Any:
    """The same view with a row an image: patches become the images they were cut from, with just those boxes."""
    if view.media_type not in ("image", None) or getattr(view, "_is_frames", False):
        raise ValueError(
            f"{view.name or view._root_dataset.name} holds {view.media_type}s; odkit reads images"
        )
    if not getattr(view, "_is_patches", False):
        return view
    whole = view._root_dataset
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
    if field == GROUND_TRUTH and len(there) == 1:
        return there[0]
    raise ValueError(
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
    values = view.values(list(declared.values()), _allow_missing=True)
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
        sizes[i] = _upright_size(paths[i])
        if not sizes[i].all() and counts[i]:
            message = f"neither FiftyOne nor the file tells its size, so its {counts[i]} boxes have no pixels"
            fix = "restore the file, or compute_metadata() in FiftyOne"
            problems.append(SourceProblem("unknown_size", "warning", paths[i], message, fix))
    return sizes, problems


def _upright_size(path: str) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5
            return (image.height, image.width) if turned else (image.width, image.height)
    except (OSError, SyntaxError, ValueError):
        return 0, 0


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


# -- what changed ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Changes:
    """What differs between a dataset and what came back from FiftyOne.

    Images are named by id; boxes by (image id, box id), renamed ones with the old and the new class name as well.
    """

    images_removed: tuple[str, ...] = ()
    images_added: tuple[str, ...] = ()
    boxes_removed: tuple[tuple[str, str], ...] = ()
    boxes_added: tuple[tuple[str, str], ...] = ()
    boxes_moved: tuple[tuple[str, str], ...] = ()
    boxes_renamed: tuple[tuple[str, str, str, str], ...] = ()
    splits_changed: tuple[tuple[str, str, str], ...] = ()
    tags: Mapping[str, int] = field(default_factory=dict)  # images with a tag, those of the audit left out
    box_tags: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__dataclass_fields__)

    def __repr__(self) -> str:
        return "\n".join([f"{what}: {text}" for what, text in self._rows()]) or "nothing changed"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{escape(what)}</th><td style="text-align:left">{escape(text)}</td></tr>'
            for what, text in self._rows()
        )
        return f"<table>{rows}</table>" if rows else "nothing changed"

    def _rows(self) -> list[tuple[str, str]]:
        plain = ("images_removed", "images_added", "boxes_removed", "boxes_added", "boxes_moved")
        rows = [(n, [i if isinstance(i, str) else ", ".join(i) for i in getattr(self, n)]) for n in plain]
        renamed = [f"{image}, {box}: {old} -> {new}" for image, box, old, new in self.boxes_renamed]
        split = [f"{image}: {old or 'none'} -> {new or 'none'}" for image, old, new in self.splits_changed]
        rows += [("boxes_renamed", renamed), ("splits_changed", split)]
        rows += [
            (name, [f"{t} ({n:,})" for t, n in getattr(self, name).items()]) for name in ("tags", "box_tags")
        ]
        return [(name.replace("_", " "), _some(items)) for name, items in rows if items]


def _some(items: Sequence[str]) -> str:
    more = f"; and {len(items) - 5:,} more" if len(items) > 5 else ""
    return f"{len(items):,} ({'; '.join(items[:5])}{more})"


def changes(before: Dataset, view: Any, *, field: str = GROUND_TRUTH) -> Changes:
    """What a person did in the App: the difference between a dataset and a FiftyOne dataset or view of it.

    Args:
        before: The dataset as it was put into FiftyOne.
        view: A FiftyOne dataset or view, what `browse()` returned, or a Dataset that came back (without tags then).
        field: The field whose boxes are the ground truth.
    """
    view = getattr(view, "view", view) if not hasattr(view, "values") else view
    after = view if isinstance(view, Dataset) else from_fiftyone(view, field=field)
    old, new = _by_id(before), _by_id(after)
    shared = [key for key in old if key in new]
    a, b = np.array([old[k] for k in shared], np.int64), np.array([new[k] for k in shared], np.int64)
    names_a, names_b = (np.array([*d.class_names, UNKNOWN_LABEL], object) for d in (before, after))
    label_a, label_b = names_a[before.box_classes[a]], names_b[after.box_classes[b]]
    # half a hundredth of a pixel: what float32 leaves on the widest images
    moved = (np.abs(before.boxes[a] - after.boxes[b]) > 0.005).any(1)
    renamed = np.flatnonzero(label_a != label_b)
    splits_a, splits_b = (dict(zip(d.image_ids, d.image_splits, strict=True)) for d in (before, after))
    tags, box_tags = ({}, {}) if isinstance(view, Dataset) else _tags(view, field, before)
    return Changes(
        images_removed=tuple(i for i in splits_a if i not in splits_b),
        images_added=tuple(i for i in splits_b if i not in splits_a),
        boxes_removed=tuple(k[:2] for k in old if k not in new and k[0] in splits_b),
        boxes_added=tuple(k[:2] for k in new if k not in old and k[0] in splits_a),
        boxes_moved=tuple(shared[i][:2] for i in np.flatnonzero(moved)),
        boxes_renamed=tuple((*shared[i][:2], str(label_a[i]), str(label_b[i])) for i in renamed),
        splits_changed=tuple((i, s, splits_b[i]) for i, s in splits_a.items() if splits_b.get(i, s) != s),
        tags=tags,
        box_tags=box_tags,
    )


def _by_id(dataset: Dataset) -> dict[tuple[str, str, int], int]:
    """Row of each box by image id, box id and, should an id stand twice in an image, which of them."""
    seen: Counter[tuple[str, str]] = Counter()
    rows = {}
    for row, pair in enumerate(zip(dataset.image_ids[dataset.box_images], dataset.box_ids, strict=True)):
        rows[(*pair, seen[pair])] = row
        seen[pair] += 1
    return rows


def _tags(view: Any, field: str, before: Dataset) -> tuple[dict[str, int], dict[str, int]]:
    own = set(before.split_counts())
    tags, box_tags = view.count_values("tags"), view.count_values(f"{field}.detections.tags")
    return (
        {t: n for t, n in sorted(tags.items()) if t not in own and not t.startswith(AUDIT)},
        {t: n for t, n in sorted(box_tags.items()) if not t.startswith(AUDIT)},
    )
