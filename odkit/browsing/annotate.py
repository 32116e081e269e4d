"""Predictions, suspects and findings on the images in FiftyOne: fields, tags and saved views.

A prediction is marked "tp" or "fp" and a ground truth box "tp" or "fn", as FiftyOne's own evaluation does, and both
say what kind of mistake they are (see `odkit.mistakes`).
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from odkit.analysis import KINDS, Evaluation, Suspect, classify, evaluate, match, rows_of_boxes
from odkit.browsing import fo_private
from odkit.browsing.fo_dataset import (
    GROUND_TRUTH,
    annotation,
    arrange,
    last_changes,
    object_ids,
    offer_classes,
    relative_boxes,
    rows_there,
    sizes_to_draw,
)
from odkit.data import Dataset, Predictions, relative_xywh_to_xyxy
from odkit.runs import Prelabels, suggestion_ids
from odkit.system import InputError, odkit_version

if TYPE_CHECKING:
    from odkit.data.audit import Audit

IMAGES_A_WRITE = 100
VIEWS = ("worst first", "false positives", "missed")  # saved beside one for each kind of mistake
AUDIT = "audit: "  # how the tags and saved views made from an audit begin
SUSPECTS = "suspects"
SUSPECTS_FIRST = "suspects first"
SUGGESTIONS = "suggestions"
ACCEPT, REJECT = "accept", "reject"  # tags that a person gives in the App
TO_DO = "to do, least sure first"  # the saved view of pictures with neither


def put_predictions(
    fo: Any,
    made: Any,
    dataset: Dataset,
    label: str,
    predictions: Predictions | Evaluation,
    score: float,
) -> bool:
    """One detector's predictions as a field, each with what it is: a hit, or which kind of mistake.

    And the evaluation as FiftyOne keeps one: made here of predictions that come without. Where these very predictions
    are there already, and nothing was changed since, nothing is written.

    Returns:
        Whether something was written.
    """
    from pymongo import UpdateOne

    label, key, kind = names_of(label)
    if isinstance(predictions, Evaluation):
        if predictions.dataset.fingerprint() != dataset.fingerprint():
            raise InputError(f"the evaluation of {label!r} is of other images or labels than this dataset")
        evaluation: Evaluation | None = predictions
        all_found, limit = predictions.predictions, predictions.max_detections
    else:
        all_found, limit = predictions.for_dataset(dataset), 100
        evaluation = None
    columns = (all_found.boxes, all_found.scores, all_found.classes, all_found.images)
    digest = _digest_of(made, score, limit, *columns)
    if _is_put(made, label, digest) and _is_whole(made, label, key):
        return False
    from odkit.browsing import fo_evaluation

    if not isinstance(predictions, Evaluation):
        evaluation = _evaluation(dataset, all_found)
    found = all_found.above(score)
    matches = match(dataset, found, max_detections=limit)
    kinds = classify(dataset, found, max_detections=limit)
    marks = np.where(
        matches.kinds == "true_positive", "tp", np.where(matches.kinds == "ignored", "ignored", "fp")
    )
    hit = matches.predictions >= 0
    box_marks = np.where(hit, "tp", np.where(dataset.box_crowd, "ignored", "fn"))
    box_ious = np.zeros(dataset.num_boxes)
    box_ious[hit] = matches.ious[matches.predictions[hit]]

    tagged = _tagged(made, label)
    _forget(made, label)
    _declare(fo, made, label, key, kind)
    pattern, names = _pattern(fo), np.array(dataset.class_names, object)
    boxes = relative_boxes(found.boxes, found.images, sizes_to_draw(dataset))
    totals = _totals(dataset, found, marks, box_marks, matches.ious, key)
    ids = object_ids(len(found))
    box_ids: list[str | None] = [None] * dataset.num_boxes
    place = dict(zip(dataset.image_ids, range(len(dataset)), strict=True))
    there = f"{GROUND_TRUTH}.detections"

    def operation(image: int, sample: Mapping[str, Any]) -> Any:
        here, first = found.of(image), dataset.boxes_of(image).start
        values = (
            *(ids[here], names[found.classes[here]].tolist(), boxes[here].tolist()),
            *(found.scores[here].tolist(), marks[here].tolist(), matches.ious[here].tolist()),
            kinds.predictions[here].tolist(),
        )
        rows = [
            {
                **pattern,
                "_id": id_,
                "tags": [],
                "label": name,
                "bounding_box": box,
                "confidence": confidence,
                key: mark,
                f"{key}_iou": iou,
                f"{key}_id": "",
                kind: what,
            }
            for id_, name, box, confidence, mark, iou, what in zip(*values, strict=True)
        ]
        for row in rows if tagged else ():
            row["tags"] = tagged.get((sample["_id"], *_place(row)), [])
        changed: dict[str, Any] = {name: column[image] for name, column in totals.items()}
        changed[label] = {"_cls": "Detections", "detections": rows}
        these = dataset.boxes_of(image)
        columns = (matches.predictions, box_marks, box_ious, kinds.boxes)
        of_boxes = list(zip(*(column[these].tolist() for column in columns), strict=True))
        for position, box_row in rows_there(dataset, image, sample):
            by, mark, iou, what = of_boxes[box_row - first]
            box_ids[box_row] = box_id = str(sample[GROUND_TRUTH]["detections"][position]["_id"])
            if by >= 0:
                rows[by - here.start][f"{key}_id"] = box_id
            box = f"{there}.{position}"
            changed[f"{box}.{key}"], changed[f"{box}.{key}_iou"] = mark, iou
            changed[f"{box}.{key}_id"] = str(ids[by]) if by >= 0 else ""
            changed[f"{box}.{kind}"] = what
        return UpdateOne({"_id": sample["_id"]}, {"$set": changed})

    wanted = {"image_id": 1, f"{there}.box_id": 1, f"{there}._id": 1}
    samples = ((place.get(one.get("image_id"), -1), one) for one in fo_private.samples(made).find({}, wanted))
    # what was added in the App has no place: the detector has not seen it
    operations = (operation(image, one) for image, one in samples if image >= 0)
    _write(made, operations)
    arrange(fo, made, color_by="field")
    fo_evaluation.store(
        *(made, key, label, evaluation),
        score=score,
        matches=matches,
        box_ids=box_ids,
        prediction_ids=list(map(str, ids)),
    )
    _save_views(fo, made, label, key, kind)
    _believe(made, label, digest)
    return True


def _is_whole(made: Any, label: str, key: str) -> bool:
    """Whether predictions have all that goes with them: somebody may have deleted the evaluation or a view."""
    views = {_prefix(label) + name for name in VIEWS}
    return made.has_field(label) and made.has_evaluation(key) and views <= set(made.list_saved_views())


def _digest_of(made: Any, *values: Any) -> str:
    """What tells one set of predictions or findings from another, and from the same before a person's last change."""
    digest = hashlib.blake2b(digest_size=16)
    for value in (odkit_version(), last_changes(made), *values):
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(value)
        else:
            value = repr(value).encode()
        digest.update(value)
    return digest.hexdigest()


def _tagged(made: Any, label: str) -> dict[tuple[Any, ...], list[str]]:
    """The tags that a person gave predictions, by image, class and place: the same ones shall have them again."""
    there = f"{label}.detections"
    return {
        (sample["_id"], *_place(row)): row["tags"]
        for sample in fo_private.samples(made).find({f"{there}.tags": {"$type": "string"}}, {there: 1})
        for row in sample[label]["detections"]
        if row.get("tags") and row.get("label") and row.get("bounding_box")
    }


def _evaluation(dataset: Dataset, predictions: Predictions) -> Evaluation | None:
    try:
        return evaluate(dataset, predictions)
    except InputError:  # boxes of unknown class, say, which the App shows all the same
        return None


def field_name(label: str) -> str:
    """A label (a run's name, say) as the name of a FiftyOne field."""
    name = re.sub(r"\W+", "_", label).strip("_") or "predictions"
    return f"run_{name}" if name[0].isdigit() or name in (GROUND_TRUTH, SUSPECTS) else name


def names_of(label: str) -> tuple[str, str, str]:
    """The field of a label's predictions, of their true and false positives, and of their kinds of mistake."""
    label = field_name(label)
    return (
        (label, "eval", "mistake") if label == "predictions" else (label, f"eval_{label}", f"mistake_{label}")
    )


def _totals(
    dataset: Dataset, found: Predictions, marks: Any, box_marks: Any, ious: Any, key: str
) -> dict[str, list[Any]]:
    """Counts and loss of each image: one for each missed box, a false positive's score, 1 - IoU of a true one."""
    count = len(dataset)
    missed = np.bincount(dataset.box_images[box_marks == "fn"], minlength=count)
    cost = np.where(marks == "fp", found.scores, np.where(marks == "tp", 1 - ious, 0))
    return {
        f"{key}_tp": np.bincount(found.images[marks == "tp"], minlength=count).tolist(),
        f"{key}_fp": np.bincount(found.images[marks == "fp"], minlength=count).tolist(),
        f"{key}_fn": missed.tolist(),
        f"{key}_loss": (missed + np.bincount(found.images, weights=cost, minlength=count)).tolist(),
    }


def _pattern(fo: Any) -> dict[str, Any]:
    """A box's document as FiftyOne writes it, without its id."""
    pattern: dict[str, Any] = dict(fo.Detection(label="a", bounding_box=[0, 0, 1, 1]).to_dict())
    pattern.pop("_id", None)
    return pattern


def _write(made: Any, operations: Iterable[Any]) -> None:
    """Write a change an image as they come, so that not all of them are there at once."""
    left = iter(operations)
    while some := list(itertools.islice(left, IMAGES_A_WRITE)):
        fo_private.samples(made).bulk_write(some, ordered=False)
    made.reload()


def _is_put(made: Any, what: str, digest: str) -> bool:
    return bool(made.info["odkit"].get("put", {}).get(what) == digest)


def _believe(made: Any, what: str, digest: str) -> None:
    """Which predictions or findings were written last, once they are there whole."""
    made.info["odkit"].setdefault("put", {})[what] = digest
    made.save()


def _forget(made: Any, what: str) -> None:
    """Before they are written: a writer that is ended in the middle must not be believed."""
    if made.info["odkit"].get("put", {}).pop(what, None):
        made.save()


def _declare(fo: Any, made: Any, label: str, key: str, kind: str) -> None:
    """The fields that are about to be written, so that FiftyOne and its App know them."""
    made.add_sample_field(label, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for owner in (label, GROUND_TRUTH):
        for name in (key, f"{key}_id", kind):
            made.add_sample_field(f"{owner}.detections.{name}", fo.StringField)
        made.add_sample_field(f"{owner}.detections.{key}_iou", fo.FloatField)
    counts = [f"{key}_tp", f"{key}_fp", f"{key}_fn"]
    for name in counts:
        made.add_sample_field(name, fo.IntField)
    made.add_sample_field(f"{key}_loss", fo.FloatField)
    _remember(made, label, *counts, f"{key}_loss")


def _remember(made: Any, *fields: str) -> None:
    """Which fields are ours, to be deleted when the dataset is filled anew."""
    made.info["odkit"]["fields"] = sorted({*made.info["odkit"].get("fields", ()), *fields})
    made.save()


def _save_views(fo: Any, made: Any, label: str, key: str, kind: str) -> None:
    prefix = _prefix(label)
    mark, mistake = fo.ViewField(key), fo.ViewField(kind)
    worst, wrong, missed = VIEWS
    views = {
        worst: made.sort_by(f"{key}_loss", reverse=True),
        wrong: made.filter_labels(label, mark == "fp").sort_by(f"{key}_fp", reverse=True),
        missed: made.filter_labels(GROUND_TRUTH, mark == "fn").sort_by(f"{key}_fn", reverse=True),
    }
    counts = made.count_values(f"{label}.detections.{kind}")
    for what in KINDS:
        if counts.get(what):  # "Miss" is a kind of ground truth boxes alone
            of_kind = made.filter_labels(label, mistake == what)
            most_first = fo.ViewField(f"{label}.detections").length()
            views[f"mistake: {what.replace('_', ' ')}"] = of_kind.sort_by(most_first, reverse=True)
    for old in made.list_saved_views():
        if old.startswith(f"{prefix}mistake: "):
            made.delete_saved_view(old)
    for name, view in views.items():
        made.save_view(prefix + name, view, overwrite=True)


def _prefix(label: str) -> str:
    return "" if label == "predictions" else f"{label}: "


def put_suspects(fo: Any, made: Any, dataset: Dataset, suspects: Sequence[Suspect]) -> bool:
    """Labels that are probably wrong as a field of boxes (as the detector sees them), and a view, worst first.

    Returns:
        Whether something was written: nothing is where these suspects are there and nothing was changed since.
    """
    from bson import ObjectId
    from pymongo import UpdateOne

    digest = _digest_of(made, list(suspects))
    if _is_put(made, SUSPECTS, digest) and SUSPECTS_FIRST in made.list_saved_views():
        return False
    _forget(made, SUSPECTS)
    made.add_sample_field(SUSPECTS, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for name in ("kind", "box_id", "what"):
        made.add_sample_field(f"{SUSPECTS}.detections.{name}", fo.StringField)
    made.add_sample_field("suspicion", fo.FloatField)
    _remember(made, SUSPECTS, "suspicion")
    xyxy = [dataset.boxes[one.box] if one.suggestion is None else one.suggestion for one in suspects]
    images = np.array([one.image for one in suspects], np.int64)
    boxes = relative_boxes(xyxy, images, sizes_to_draw(dataset)).tolist()
    pattern = _pattern(fo)
    by_image: dict[int, list[Any]] = {}
    for one, box in zip(suspects, boxes, strict=True):
        row = {**pattern, "_id": ObjectId(), "tags": [], "label": one.class_name, "bounding_box": box}
        row |= {"confidence": float(one.score), "kind": one.kind, "box_id": one.box_id, "what": str(one)}
        by_image.setdefault(one.image, []).append(row)
    place = {image_id: i for i, image_id in enumerate(dataset.image_ids)}
    operations = []
    for sample in fo_private.samples(made).find({}, {"image_id": 1, f"{SUSPECTS}.detections": 1}):
        rows = by_image.get(place.get(sample.get("image_id"), -1), [])
        tagged = {_same(row): row["tags"] for row in (sample.get(SUSPECTS) or {}).get("detections", ())}
        for row in rows:
            row["tags"] = tagged.get(_same(row), [])
        changed: dict[str, Any] = {SUSPECTS: {"_cls": "Detections", "detections": rows}}
        changed["suspicion"] = max((row["confidence"] for row in rows), default=0.0)
        operations.append(UpdateOne({"_id": sample["_id"]}, {"$set": changed}))
    _write(made, operations)
    suspicious = made.match(fo.ViewField("suspicion") > 0).sort_by("suspicion", reverse=True)
    made.save_view(SUSPECTS_FIRST, suspicious, overwrite=True)
    _believe(made, SUSPECTS, digest)
    return True


def _same(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells that a suspect is one that was there before, tagged perhaps."""
    return row["kind"], row["box_id"], *_place(row)


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["label"], *(round(value, 3) for value in row["bounding_box"])


def suspects_tagged(made: Any, dataset: Dataset, tag: str) -> list[Suspect]:
    """The suspects that a person gave a tag in the App, the most suspicious first."""
    place = {image_id: i for i, image_id in enumerate(dataset.image_ids)}
    rows, sizes = rows_of_boxes(dataset), sizes_to_draw(dataset)
    found = []
    wanted = {f"{SUSPECTS}.detections.tags": tag}
    for sample in fo_private.samples(made).find(wanted, {"image_id": 1, f"{SUSPECTS}.detections": 1}):
        image = place.get(sample.get("image_id"), -1)
        for row in sample[SUSPECTS]["detections"] if image >= 0 else ():
            if tag not in row["tags"]:
                continue
            seen = relative_xywh_to_xyxy([row["bounding_box"]], sizes[[image]])[0]
            found.append(
                Suspect(
                    kind=row["kind"],
                    score=row["confidence"],
                    image=image,
                    image_id=sample["image_id"],
                    box=rows.get((sample["image_id"], row["box_id"]), -1),
                    box_id=row["box_id"],
                    prediction=-1,
                    class_name=row["label"],
                    suggestion=None if row["kind"] in ("spurious", "duplicate") else tuple(seen.tolist()),
                )
            )
    return sorted(found, key=lambda one: -one.score)


def put_suggestions(fo: Any, made: Any, prelabels: Prelabels) -> None:
    """A detector's suggestions as a field of boxes to correct, and views: what is to do, the least sure first.

    Pictures that a person has judged or corrected keep what was suggested for them before.
    """
    from bson import ObjectId
    from pymongo import UpdateOne

    pictures, found = prelabels.pictures, prelabels.suggestions
    made.add_sample_field(SUGGESTIONS, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    made.add_sample_field(f"{SUGGESTIONS}.detections.box_id", fo.StringField)
    made.add_sample_field(f"{SUGGESTIONS}.detections.iscrowd", fo.BooleanField)
    if made.has_field(GROUND_TRUTH):  # what is drawn shall stand beside what was suggested
        made.delete_sample_field(GROUND_TRUTH)
    made.add_sample_field("doubt", fo.FloatField)
    made.add_sample_field("suggested", fo.StringField)
    _remember(made, SUGGESTIONS, "doubt", "suggested")
    boxes = relative_boxes(found.boxes, found.images, sizes_to_draw(pictures)).tolist()
    pattern = _pattern(fo)
    rows = [
        {
            **pattern,
            "_id": ObjectId(),
            "tags": [],
            "label": found.class_names[label],
            "bounding_box": box,
            "confidence": score,
            "box_id": box_id,
        }
        for label, box, score, box_id in zip(
            found.classes.tolist(), boxes, found.scores.tolist(), suggestion_ids(found), strict=True
        )
    ]
    place = {image_id: i for i, image_id in enumerate(pictures.image_ids)}
    operations = []
    wanted = {"image_id": 1, "tags": 1, "suggested": 1, f"{SUGGESTIONS}.detections": 1}
    for sample in fo_private.samples(made).find({}, wanted):
        i = place.get(sample.get("image_id"), -1)
        there = (sample.get(SUGGESTIONS) or {}).get("detections") or []
        judged = {ACCEPT, REJECT} & set(sample.get("tags") or ())
        if i < 0 or judged or (sample.get("suggested") or _marks([])) != _marks(there):
            continue
        new = rows[found.of(i)]
        changed = {SUGGESTIONS: {"_cls": "Detections", "detections": new}, "suggested": _marks(new)}
        operations.append(
            UpdateOne({"_id": sample["_id"]}, {"$set": {**changed, "doubt": float(prelabels.doubt[i])}})
        )
    _write(made, operations)
    arrange(fo, made, color_by="value")
    if SUGGESTIONS not in made.label_schemas:
        schema = annotation(())
        score = {"name": "confidence", "type": "float", "component": "text", "read_only": True}
        schema["attributes"] = [score, *schema["attributes"]]
        verdict = {"type": "list<str>", "component": "checkboxes", "values": [ACCEPT, REJECT]}
        made.set_label_schemas({SUGGESTIONS: schema, "tags": verdict})
        made.activate_label_schemas([SUGGESTIONS, "tags"])
    # in place of what the detector before offered, beside what a person added
    offer_classes(made, pictures.class_names, in_place_of=made.info["odkit"].get("classes", ()))
    made.info["odkit"]["classes"] = list(pictures.class_names)
    made.save()
    views = {
        TO_DO: made.match_tags([ACCEPT, REJECT], bool=False).sort_by("doubt", reverse=True),
        "accepted": made.match_tags(ACCEPT),
        "rejected": made.match_tags(REJECT),
    }
    for name, view in views.items():
        made.save_view(name, view, overwrite=True)


def _marks(rows: Sequence[dict[str, Any]]) -> str:
    """Suggestions as one short text, by which they are known again unless a person changed them."""
    told = [(row.get("label"), row.get("bounding_box"), row.get("tags") or []) for row in rows]
    return hashlib.sha256(orjson.dumps(told)).hexdigest()[:16]


def accepted_view(fo: Any, made: Any) -> Any:
    """The pictures that a person accepted, without the suggestions tagged as rejected.

    Raises:
        InputError: No picture was accepted, but boxes were.
    """
    accepted = made.match_tags(ACCEPT).match_tags(REJECT, bool=False)
    boxes = made.count_label_tags(SUGGESTIONS).get(ACCEPT, 0)
    if boxes and not len(accepted):
        raise InputError(
            f"{boxes:,} boxes are tagged {ACCEPT!r}, and no picture is: pictures are accepted whole, as one with a box "
            "left out teaches that there is nothing. Select the pictures and tag those"
        )
    return accepted.filter_labels(SUGGESTIONS, ~fo.ViewField("tags").contains(REJECT), only_matches=False)


def put_findings(made: Any, dataset: Dataset, audit: "Audit") -> bool:
    """Audit findings as tags on images and boxes, with a saved view of each kind.

    Returns:
        Whether something was written: nothing is where these findings are there and nothing was changed since.
    """
    from pymongo import UpdateOne

    digest = _digest_of(made, [(one.kind, one.image_index, one.box_index) for one in audit.findings])
    views = {
        AUDIT + one.kind.replace("_", " ")
        for one in audit.findings
        if max(one.image_index, one.box_index) >= 0
    }
    if _is_put(made, AUDIT, digest) and views <= set(made.list_saved_views()):
        return False
    _forget(made, AUDIT)

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
    for sample in fo_private.samples(made).find(
        wanted, {"image_id": 1, f"{GROUND_TRUTH}.detections.box_id": 1}
    ):
        i = place[sample["image_id"]]
        new: dict[str, Any] = {"tags": {"$each": sorted(tags[i])}}
        for position, row in rows_there(dataset, i, sample):
            if row in box_tags:
                new[f"{GROUND_TRUTH}.detections.{position}.tags"] = {"$each": sorted(box_tags[row])}
        operations.append(UpdateOne({"_id": sample["_id"]}, {"$addToSet": new}))
    _write(made, operations)
    for tag in sorted({*(t for one in tags.values() for t in one)}):
        made.save_view(tag, made.match_tags(tag), overwrite=True)
    _believe(made, AUDIT, digest)
    return True
