"""Datasets of ours in FiftyOne's database: make, find again, fill; quiet and connected.

FiftyOne keeps an image as one document. Documents are written here straight into the collection, shaped after one
that FiftyOne itself made, because making an object a box takes thirteen times as long.

What odkit adds to FiftyOne's own fields: `image_id` on a sample and `box_id` on a label, so that what was changed,
deleted or added in the App is known when it comes back, and `odkit` in the dataset's info.
"""

import os
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from odkit.browsing import fo_private, services
from odkit.data import Dataset, upright_size, xyxy_to_relative_xywh
from odkit.system import InputError

GROUND_TRUTH = "ground_truth"
UNKNOWN_LABEL = "(unknown class)"
_BATCH = 10_000  # boxes a write: a few megabytes
_STALE = timedelta(days=7)


def connect() -> str:
    """Address of the database this process uses; it is started where it does not run, FiftyOne is not imported.

    Raises:
        AppError: The database cannot start.
    """
    _set_environment()
    return fo_private.their_database() or services.start_database()


def _set_environment() -> None:
    for name, value in fo_private.SETTINGS.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("FIFTYONE_DATABASE_URI"):
        # our own mongod is known to fit; the check would only say that it is the oldest version supported
        os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
    if not os.access(os.path.expanduser("~"), os.W_OK):  # without a home it makes a folder named "~"
        os.environ.setdefault("FIFTYONE_DEFAULT_DATASET_DIR", str(services.state_folder() / "fiftyone"))
        os.environ.setdefault(
            "MPLCONFIGDIR", str(services.state_folder() / "matplotlib")
        )  # it imports matplotlib


def fiftyone() -> Any:
    """The fiftyone module, quiet and connected to its database, which is started where it does not run.

    Raises:
        AppError: The database cannot start; the message says why.
        ImportError: FiftyOne is not installed.
    """
    uri = connect()
    os.environ["FIFTYONE_DATABASE_URI"] = uri  # FiftyOne reads it on import, child processes inherit it
    if fo_private.connected():
        fo_private.keep_quiet()
        return sys.modules["fiftyone"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation notes of its own imports
        import fiftyone as fo

        fo.config.database_uri = uri
        fo.config.database_validation = (
            os.environ.get("FIFTYONE_DATABASE_VALIDATION", "true").lower() != "false"
        )
        fo.list_datasets()  # connects, which warns as well
    fo_private.keep_quiet()
    return fo


def session(app: Path, dataset: Any, view: Any) -> Any:
    """FiftyOne's session with the App's server behind a unix socket, opened at a dataset or a view of it."""
    return fo_private.session(fiftyone(), app, dataset, view)


def evaluation_panel(made: Any, keys: Sequence[str]) -> Any:
    """The App laid out with its Model Evaluation panel in front, at one evaluation, or at two to be compared."""
    fo = fiftyone()
    kind = {"type": "detection", "method": "coco"}
    # the panel's server lists them too, but the panel may look for its evaluation before that, and break
    known = [{"key": key, "id": fo_private.evaluation_id(made, key), **kind} for key in keys]
    at = {"page": "evaluation", "init": True, **known[0]}
    if len(keys) > 1:
        at["compareKey"] = keys[1]
    state = {"state": {"view": at, "evaluations": known}}
    front = fo.Panel(type=fo_private.EVALUATION_PANEL, state=state)
    return fo.Space(children=[fo.Panel(type="Samples", pinned=True), front], active_child=front.component_id)


def map_panel() -> Any:
    """The App laid out with the images on the left and a map of them on the right."""
    fo = fiftyone()
    beside = [fo.Panel(type="Samples", pinned=True), fo.Panel(type="Embeddings")]
    halves = [fo.Space(children=[panel], active_child=panel.component_id) for panel in beside]
    return fo.Space(children=halves, orientation="horizontal")


# -- ours in FiftyOne -----------------------------------------------------------------------------------------------


def name_of(dataset: Dataset) -> str:
    stem = re.sub(r"[^\w.-]+", "-", dataset.name).strip("-.") or "dataset"
    return f"{stem[:60]}-{dataset.fingerprint()[:8]}"


def existing(fo: Any, dataset: Dataset, name: str, keep_edits: bool) -> Any:
    """The FiftyOne dataset of that name, holding this very data; None where there is none or it was emptied."""
    if not fo.dataset_exists(name):
        return None
    there = fo.load_dataset(name, reload=True)
    ours = there.info.get("odkit")
    if not ours:
        raise InputError(f"FiftyOne has a dataset {name!r} that odkit did not make; give another name=")
    if not keep_edits or ours["fingerprint"] != dataset.fingerprint():
        return _refill(fo, there, dataset)
    if ours["root"] != str(dataset.root):  # the same data, moved
        edited = is_edited(there)
        paths = dict(zip(dataset.image_ids, dataset.image_paths, strict=True))
        ids, image_ids = there.values(["id", "image_id"])
        known = {i: paths[image_id] for i, image_id in zip(ids, image_ids, strict=True) if image_id in paths}
        there.set_values("filepath", known, key_field="id")
        note(there, root=str(dataset.root), edited=edited)
    # put there before the App was set up to annotate
    if there.has_field(GROUND_TRUTH) and GROUND_TRUTH not in there.label_schemas:
        _offer_to_annotate(there)
    return there


def make(fo: Any, dataset: Dataset, name: str) -> Any:
    """A new FiftyOne dataset, filled under a passing name and then named in one step.

    So another kernel that asks for the same name meets either nothing or the whole, and of two that make it at the
    same time one wins.
    """
    from pymongo.errors import DuplicateKeyError

    _forget_stale(fo)
    made = fo.Dataset(f"odkit-{uuid4().hex}")
    try:
        _fill(fo, made, dataset)
        fo_private.give_name(made, name)
    except BaseException as error:
        fo.delete_dataset(made.name)
        if not isinstance(error, DuplicateKeyError):
            raise
    return fo.load_dataset(name, reload=True)


def _refill(fo: Any, there: Any, dataset: Dataset) -> Any:
    there.info["odkit"]["fingerprint"] = ""  # whoever meets it half filled, fills it anew
    there.save()
    there.delete_evaluations()
    there.delete_brain_runs()
    there.clear()
    for view in there.list_saved_views():
        there.delete_saved_view(view)
    mine = [*there.info["odkit"].get("fields", ()), GROUND_TRUTH]
    there.delete_sample_fields([f for f in mine if there.has_field(f)])
    _fill(fo, there, dataset)
    there.reload()  # times as the database has them
    return there


def _fill(fo: Any, made: Any, dataset: Dataset) -> None:
    """Insert all images and boxes, shaped after one sample that FiftyOne itself inserted."""
    box = fo.Detection(label="a", bounding_box=[0, 0, 1, 1], iscrowd=False, box_id="a")
    sample = fo.Sample(
        "/pattern.jpg",
        image_id="a",
        metadata=fo.ImageMetadata(width=1, height=1),
        ground_truth=fo.Detections(detections=[box]),
    )
    made.add_sample(sample, dynamic=True)
    pattern = fo_private.samples(made).find_one_and_delete({})
    del pattern["_id"]
    (box_pattern,) = pattern[GROUND_TRUTH]["detections"]
    sizes = sizes_to_draw(dataset)
    boxes = relative_boxes(dataset.boxes, dataset.box_images, sizes)
    names = np.array([*dataset.class_names, UNKNOWN_LABEL], object)  # index -1 is the last
    counts = dataset.boxes_per_image()
    dice = np.random.default_rng(0).random(len(dataset))  # what FiftyOne draws samples by
    for images in batches(counts):
        these = slice(dataset.boxes_of(images.start).start, dataset.boxes_of(images.stop - 1).stop)
        columns = (
            object_ids(these.stop - these.start),
            names[dataset.box_classes[these]].tolist(),
            boxes[these].tolist(),
            dataset.box_crowd[these].tolist(),
            dataset.box_ids[these].tolist(),
        )
        rows = [
            {**box_pattern, "_id": i, "label": label, "bounding_box": box, "iscrowd": crowd, "box_id": box_id}
            for i, label, box, crowd, box_id in zip(*columns, strict=True)
        ]
        ends = np.cumsum(counts[images]).tolist()
        of_images = (
            object_ids(len(ends)),
            dataset.image_paths[images].tolist(),
            dataset.image_splits[images].tolist(),
            sizes[images].tolist(),
            dice[images].tolist(),
            dataset.image_ids[images].tolist(),
            [rows[first:last] for first, last in zip([0, *ends[:-1]], ends, strict=True)],
        )
        documents = [
            {
                **pattern,
                "_id": i,
                "filepath": path,
                "tags": [split] if split else [],
                "metadata": {**pattern["metadata"], "width": width, "height": height},
                "_rand": die,
                "image_id": image_id,
                GROUND_TRUTH: {**pattern[GROUND_TRUTH], "detections": detections},
            }
            for i, path, split, (width, height), die, image_id, detections in zip(*of_images, strict=True)
        ]
        fo_private.samples(made).insert_many(documents, ordered=False)
    made.default_classes = list(dataset.class_names)
    arrange(fo, made, color_by="value")
    _offer_to_annotate(made)
    made.info = {
        "odkit": {
            "fingerprint": dataset.fingerprint(),
            "name": dataset.name,
            "root": str(dataset.root),
            "splits": list(dataset.split_counts()),
        }
    }
    note(made)


def batches(counts: NDArray[np.int64]) -> Iterator[slice]:
    """The images, so many at a time that their boxes are one write.

    Args:
        counts: Boxes of each image, int64 [N].
    """
    ends = np.cumsum(counts + 2)  # an image without boxes is about as large as two boxes
    first = 0
    while first < len(counts):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _BATCH, "right")))
        yield slice(first, last)
        first = last


def object_ids(count: int) -> list[Any]:
    """New ids for MongoDB, as `bson.ObjectId()` makes them one by one: the time, a random number, a counter.

    They rise from call to call, as its own do: FiftyOne orders by them here and there.
    """
    from bson import ObjectId

    seconds, rest = divmod(time.time_ns(), 10**9)
    start = seconds.to_bytes(4, "big") + ((rest << 24) // 10**9).to_bytes(3, "big") + os.urandom(2)
    raw = np.empty((count, 12), np.uint8)
    raw[:, :9] = np.frombuffer(start, np.uint8)
    # three bytes, of 16 million: no list of documents is that long
    raw[:, 9:] = np.arange(count, dtype=">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    together = raw.tobytes()
    return [ObjectId(together[at : at + 12]) for at in range(0, len(together), 12)]


def _offer_to_annotate(made: Any) -> None:
    made.set_label_schemas({GROUND_TRUTH: annotation(made.default_classes)})
    made.activate_label_schemas(GROUND_TRUTH)


def annotation(class_names: Sequence[str]) -> dict[str, Any]:
    """What the App's "Annotate" offers to set on a box: one of the classes, and whether it stands for a crowd.

    Where there are no classes yet, a person types them.
    """
    few = "radio" if len(class_names) <= 5 else "dropdown"
    choice = {"component": few, "classes": list(class_names)} if class_names else {"component": "text"}
    return {
        "type": "detections",
        **choice,
        "attributes": [
            {"name": "iscrowd", "type": "bool", "component": "toggle"},
            {"name": "tags", "type": "list<str>", "component": "text"},
        ],
    }


def offer_classes(made: Any, names: Sequence[str], *, in_place_of: Sequence[str] = ()) -> None:
    """Add classes to those that "Annotate" offers for a dataset's boxes, perhaps in place of others."""

    def offered(now: Sequence[str]) -> list[str]:
        return list(dict.fromkeys((*(name for name in now if name not in in_place_of), *names)))

    made.default_classes = offered(made.default_classes)
    schemas = made.label_schemas
    for schema in schemas.values():
        if schema["type"] == "detections":
            classes = offered(schema.get("classes", ()))
            schema.update(annotation(classes), attributes=schema["attributes"])
    made.set_label_schemas(schemas)


def arrange(fo: Any, made: Any, *, color_by: str) -> None:
    """How the App starts: coloured by class or by whose boxes they are, tags and labels open in the side bar."""
    made.app_config.color_scheme = fo.ColorScheme(color_by=color_by)
    groups = fo.DatasetAppConfig.default_sidebar_groups(made)
    for group in groups:
        group.expanded = group.name in ("tags", "labels")
    made.app_config.sidebar_groups = sorted(groups, key=lambda group: not group.expanded)
    made.save()


def note(made: Any, *, edited: bool = False, **facts: Any) -> None:
    """Write into the dataset's info when odkit last wrote to it, so that later edits are a person's."""
    newest = made.max("last_modified_at") or datetime.now(UTC).replace(tzinfo=None)
    made.info["odkit"].update(written_at=newest, edited=edited, **facts)
    made.save()


def is_edited(made: Any) -> bool:
    """True if somebody changed this FiftyOne dataset after odkit wrote it."""
    ours = made.info["odkit"]
    newest, deleted = last_changes(made)
    return bool(
        ours["edited"]
        or (newest is not None and _naive(newest) > _naive(ours["written_at"]))
        or (deleted is not None and _naive(deleted) > _naive(ours["written_at"]))
    )


def last_changes(made: Any) -> tuple[datetime | None, datetime | None]:
    """When an image was last changed, and one deleted, by FiftyOne or its App; odkit's own writes leave both."""
    return made.max("last_modified_at"), made.last_deletion_at


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _forget_stale(fo: Any) -> None:
    """Delete what odkit put there long ago and nobody has touched or opened since; what a person edited stays."""
    for name in fo_private.names_of_old(datetime.now(UTC) - _STALE):
        if fo.dataset_exists(name) and not is_edited(fo.load_dataset(name)):
            fo.delete_dataset(name)


def sizes_to_draw(dataset: Dataset) -> NDArray[np.int32]:
    """The declared size of each image; where none is known, from its header, else just large enough for its boxes."""
    sizes = dataset.image_sizes.copy()
    for i in np.flatnonzero((sizes <= 0).any(1)).tolist():
        sizes[i] = upright_size(dataset.image_paths[i])
        if not sizes[i].all():
            extent = np.nan_to_num(dataset.boxes[dataset.boxes_of(i), 2:]).max(0, initial=1)
            sizes[i] = np.ceil(extent)
    return sizes


def relative_boxes(boxes: Any, images: Any, sizes: NDArray[np.int32]) -> NDArray[np.float64]:
    relative = xyxy_to_relative_xywh(boxes, sizes[images])
    # the App's JSON has no word for NaN; the audit names such boxes
    relative[~np.isfinite(relative).all(1)] = 0
    return relative


def rows_there(dataset: Dataset, image: int, sample: Mapping[str, Any]) -> Iterable[tuple[int, int]]:
    """Position in FiftyOne and row in the dataset of each of an image's boxes that both still have."""
    there = [label.get("box_id") for label in (sample.get(GROUND_TRUTH) or {}).get("detections") or ()]
    these = dataset.boxes_of(image)
    rows, ids = range(these.start, these.stop), dataset.box_ids[these].tolist()
    if there == ids:
        return enumerate(rows)
    known = dict(zip(ids, rows, strict=True))
    return [(position, known[i]) for position, i in enumerate(there) if i in known]
