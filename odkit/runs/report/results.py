"""What the detector is worth: figures, curves, classes, pictures, mistakes, labels that look wrong."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from odkit.analysis import KINDS, Evaluation, Mistakes, Suspect
from odkit.analysis.figures import KIND_COLORS, class_color
from odkit.runs.dashboard import duration, smoothed, thinned
from odkit.runs.final_test import shares_at
from odkit.runs.report import words
from odkit.runs.report.drawings import WHITE, Curves, Mark, Picture, by_score, picture
from odkit.runs.report.drawings import curves as drawn
from odkit.runs.report.subject import FEW_BOXES, Subject, number, span
from odkit.system import counted

BEST, WORST, SUSPECTS = 3, 6, 6  # pictures shown
LIKELY = 0.5  # suspicion from which a label counts as a likely error
LOSS, AP, AP50 = "var(--loss)", "var(--ap)", "var(--ap50)"


# -- the result --------------------------------------------------------------------------------------------------------


def subtitle(subject: Subject) -> str:
    if subject.run is None or subject.settings is None:
        e = subject.given
        return f"{len(e.predictions):,} detections judged on {counted(len(e.dataset), 'image')}" if e else ""
    summary = subject.run.summary()
    what = f"{subject.settings.detector}, fine-tuned on {subject.run.config['dataset']}"
    went = {
        "finished": f"finished after {counted(summary['epoch'], 'epoch')}",
        "running": f"still running, epoch {summary['epoch']} of {summary['epochs']} behind it",
    }.get(subject.state, f"{subject.state} after {summary['epoch']} of {summary['epochs']} epochs")
    minutes = f" in {duration(summary['minutes'] * 60)}" if summary["minutes"] else ""
    return f"{what} · {went}{minutes}"


def sentence(subject: Subject) -> tuple[str, float | None, float | None]:
    """The result in a sentence, and the shares that it speaks of: found, and right."""
    e, test = subject.evaluation, subject.test
    if e is None or subject.score is None:
        return "", None, None
    if test and test.score is not None:
        return (
            words.result(
                test.found, test.right, test.score, f"{test.images:,} test image{'s' * (test.images != 1)}"
            ),
            test.found,
            test.right,
        )
    found, right = shares_at(e, subject.score)
    return words.result(found, right, subject.score, subject.images), found, right


def result(subject: Subject) -> dict[str, Any]:
    said, found, right = sentence(subject)
    e, test = subject.evaluation, subject.test
    tiles = []
    if e:
        ap, of = (test.ap, ", test") if test else (e.ap, ", validation" if subject.run else "")
        ap50 = test.figures["ap50"] if test else e.ap50
        tiles.append({"label": f"AP{of}", "value": number(ap), "note": _interval_text(subject, "ap")})
        tiles.append({"label": f"AP50{of}", "value": number(ap50), "note": _interval_text(subject, "ap50")})
    return {
        "finds": f"Looks for {words.listed([words.short(name) for name in subject.class_names])}.",
        "sentence": said,
        "dots": [
            {"share": share, "hundred": words.hundred(share), "label": label}
            for share, label in ((found, "of 100 objects are found"), (right, "of 100 boxes drawn are right"))
            if share is not None
        ],
        "tiles": tiles,
    }


def _interval_text(subject: Subject, figure: str) -> str:
    if subject.intervals is None:
        return ""
    return span(*subject.intervals.of(figure))


def test(subject: Subject) -> dict[str, Any]:
    e, run, intervals = subject.evaluation, subject.run, subject.intervals
    found: dict[str, Any] = {"rows": [], "looks": [], "how": "", "validation": None, "sizes": []}
    if intervals:
        names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar": "AR"}
        found["rows"] = [
            {
                "name": name,
                "value": number(intervals.total[key]),
                "interval": _interval_text(subject, key),
                "low": intervals.total[f"{key}_low"],
                "high": intervals.total[f"{key}_high"],
                "at": intervals.total[key],
            }
            for key, name in names.items()
            if not math.isnan(intervals.total[key])
        ]
    for test in subject.tests:
        found["looks"].append(
            f"{test.dataset}: {counted(test.images, 'image')}, {counted(test.boxes, 'box')}, judged on "
            f"{test.date[:10]} on {test.device} in {test.precision}, look {test.look} at these images: AP "
            f"{number(test.ap)}"
        )
    if e:
        sizes = {name: number(subject.figures[f"ap_{name}"]) for name in ("small", "medium", "large")}
        found["sizes"] = [
            {"name": name, "value": value if value != number(None) else "none there"}
            for name, value in sizes.items()
        ]
    if run and e:
        found["validation"] = {
            "images": len(e.dataset), "ap": number(e.ap), "ap50": number(e.ap50), "ap75": number(e.ap75),
        }  # fmt: skip
        if not subject.tests:
            found["how"] = (
                f"odkit test {run.name}"
                if run.has_test_images
                else f"odkit test {run.name} --data LABELLED_IMAGES_IT_HAS_NOT_SEEN"
            )
    return found


# -- curves and classes ------------------------------------------------------------------------------------------------


def curves(subject: Subject) -> Iterator[Curves]:
    rows = subject.history
    until = max([row["epoch"] for row in rows] or [1])
    steps, losses = subject.losses
    per = max(1, int(subject.start.get("steps_per_epoch") or 1))
    if len(steps):
        x, y = thinned(steps / per, losses)
        loss = [("", LOSS, x, y), ("loss", LOSS, x, smoothed(y))]
        note = "How far it is from the labels on the images it learns from. It falls steeply, then slowly."
        yield drawn("Loss", note, "epochs", max(until, float(x.max(initial=1))), loss)
    judged = [row for row in rows if row.get("ap") is not None]
    if judged:
        at = np.array([row["epoch"] for row in judged], float)
        ap = [
            (name, color, at, np.array([row.get(key) or math.nan for row in judged], float))
            for name, color, key in (("AP50", AP50, "ap50"), ("AP", AP, "ap"))
        ]
        note = "Judged on the validation images after each epoch. Where it still rises at the end, more epochs help."
        if len(judged) > 1:
            yield drawn("AP, epoch by epoch", note, "epochs", until, ap, top=1.0)
    e = subject.evaluation
    if e and e.class_boxes.sum() and len(e.predictions):
        recall = np.linspace(0, 1, 101)
        many = len(e.class_names) > 8
        lines = [
            ("", class_color(k), recall, e.precision[0, k])
            for k in range(len(e.class_names))
            if not many and len(e.class_names) > 1 and e.class_boxes[k]
        ]
        mean = [e.precision[i][~np.isnan(e.precision[i, :, 0])].mean(0) for i in (0, 5)]
        lines += [("IoU 0.75", AP50, recall, mean[1]), ("IoU 0.5", AP, recall, mean[0])]
        thin = ", thin lines: each class at IoU 0.5" if len(lines) > 2 else ""
        note = f"How many of its boxes are right when so large a share of the objects is to be found{thin}."
        yield drawn("Precision by recall", note, "share of the objects found", 1.0, lines, top=1.0)
        at, right, found = by_score(e)
        scores = [("boxes that are right", AP, at, right), ("objects found", LOSS, at, found)]
        note = f"What a score threshold gives, at IoU 0.5. The best balance is at {e.best_score:.2f}."
        yield drawn("Which score to ask for", note, "score threshold", 1.0, scores, top=1.0)
        calibration = e.calibration()
        bins = calibration.curve()
        if bins:
            score, share = (np.array([row[key] for row in bins]) for key in ("score", "precision"))
            lines = [("a score that is a chance", "var(--soft)", np.array([0.0, 1.0]), np.array([0.0, 1.0]))]
            lines += [("boxes that are right", AP, score, share)]
            note = (
                f"{calibration.sentence} The mean distance from the straight line is {calibration.error:.2f}."
            )
            yield drawn("What a score means", note, "score", 1.0, lines, top=1.0)


WISHES = (0.95, 0.9, 0.8)  # of precision, and of recall: the first that some threshold reaches is shown


def thresholds(subject: Subject) -> list[dict[str, str]]:
    """Score thresholds for the best balance, for few false alarms and for few misses, with what they give."""
    e = subject.evaluation
    if not e or not e.class_boxes.sum() or not len(e.predictions):
        return []
    found = {"best balance (F1)": e.thresholds.total}
    for key, what in (("precision", "boxes right"), ("recall", "objects found")):
        for wish in WISHES:
            row = e.score_for(**{key: wish}).total
            if not math.isnan(row["score"]):
                found[f"{wish:.0%} of {what}"] = row
                break
    return [
        {
            "wanted": wanted,
            "score": f"{row['score']:.2f}",
            "found": str(words.hundred(row["recall"])),
            "right": str(words.hundred(row["precision"])),
        }
        for wanted, row in found.items()
        if not math.isnan(row["score"])
    ]


def classes(subject: Subject) -> list[dict[str, Any]]:
    e, train = subject.evaluation, subject.learnt
    learnt = train.class_counts() if train else {}
    tested = {row["class"]: row for row in subject.intervals.per_class} if subject.intervals else {}
    rows = {row["class"]: row for row in e.per_class} if e else {}
    return [
        {
            "name": name,
            "color": class_color(k),
            "learnt": _count(learnt.get(name)),
            "boxes": _count(rows.get(name, {}).get("boxes")),
            "ap": number(rows.get(name, {}).get("ap")),
            "bar": _share(rows.get(name, {}).get("ap")),
            "ap50": number(rows.get(name, {}).get("ap50")),
            "score": number(rows.get(name, {}).get("best_score"), 2),
            "test": number(tested.get(name, {}).get("ap")),
            "interval": _ends(tested.get(name)),
            "few": bool(train) and learnt.get(name, 0) < FEW_BOXES,
        }
        for k, name in enumerate(subject.class_names)
    ]


def _count(value: int | None) -> str:
    return "—" if value is None else f"{value:,}"


def _ends(row: dict[str, Any] | None) -> str:
    return span(row["ap_low"], row["ap_high"]) if row else ""


def _share(value: float | None) -> float:
    return 0.0 if value is None or math.isnan(value) else value


# -- pictures ----------------------------------------------------------------------------------------------------------


def pictures(subject: Subject) -> dict[str, list[dict[str, Any]]]:
    e, found = subject.evaluation, subject.mistakes
    if e is None or found is None:
        return {"best": [], "worst": []}
    counts = e.per_image(found.score)
    boxes = counts.true_positives + counts.missed
    faults = counts.false_positives + counts.missed
    # the fullest of those without a fault
    best = [i for i in np.lexsort((counts.loss, -boxes, faults)).tolist() if boxes[i]][:BEST]
    worst = [i for i in e.worst_images(WORST).tolist() if counts.loss[i] > 0 and i not in best]
    shown = {"best": best, "worst": worst}
    return {
        kind: _shown(subject, ((_judged_picture(found, image)) for image in images))
        for kind, images in shown.items()
    }


def _shown(subject: Subject, drawn: Iterator[tuple[Picture, str, str]]) -> list[dict[str, Any]]:
    """Pictures to show; those whose files cannot be read are named in the page, and left out."""
    rows = []
    while subject.in_time("more pictures") and (one := next(drawn, None)):
        svg, name, caption = one
        if svg.fault:
            subject.unread.setdefault(name, svg.fault)
        else:
            rows.append({"svg": svg.svg, "name": name, "caption": caption})
    return rows


def _judged_picture(found: Mistakes, image: int) -> tuple[Picture, str, str]:
    data, guesses, kinds = found.dataset, found.predictions, found.kinds
    rows = data.boxes_of(image)
    own = np.arange(rows.start, rows.stop)
    missed = own[kinds.boxes[own] == "Miss"]
    place = guesses.of(image)
    shown = np.arange(place.start, place.stop)
    shown = shown[~np.isin(kinds.predictions[shown], ("ignored", "hidden"))]
    right = kinds.predictions[shown] == "correct"
    names = data.class_names
    # labels would hide a crowded picture: there colours and lines speak for themselves
    crowded, many = len(shown) + len(missed) > 8, int((~right).sum()) + len(missed) > 6
    marks = []
    for row in shown[np.argsort(~right, kind="stable")].tolist():
        kind, guess = kinds.predictions[row], int(guesses.classes[row])
        text = f"{names[guess]} {guesses.scores[row]:.2f}"
        if kind in ("Cls", "Both"):
            text += f", is {names[int(data.box_classes[kinds.box_of[row]])]}"
        if kind == "correct":
            marks.append(Mark(guesses.boxes[row].tolist(), class_color(guess), "" if crowded else text))
        else:
            marks.append(
                Mark(guesses.boxes[row].tolist(), class_color(guess), "" if many else text, "dashed")
            )
    for row in missed.tolist():
        label = names[int(data.box_classes[row])]
        marks.append(Mark(data.boxes[row].tolist(), WHITE, "" if many else f"missed: {label}", "dotted"))
    name = PurePath(str(data.image_ids[image])).name
    wrong = len(shown) - int(right.sum())
    said = [
        f"{int(right.sum())} right",
        f"{wrong} wrong" * bool(wrong),
        f"{len(missed)} missed" * bool(len(missed)),
    ]
    caption = ", ".join(filter(None, said))
    return picture(data, image, marks, f"{name}: {caption}"), name, caption


# -- mistakes and label errors -----------------------------------------------------------------------------------------


def mistakes(subject: Subject) -> dict[str, Any] | None:
    found = subject.mistakes
    if found is None:
        return None
    most = max([found.costs[kind] for kind in KINDS] or [0.0])
    rows: list[dict[str, Any]] = [
        {
            "kind": kind,
            "color": KIND_COLORS[kind],
            "name": words.KIND_NAMES[kind],
            "count": found.counts[kind],
            "cost": number(found.costs[kind]),
            "bar": found.costs[kind] / most if most else 0.0,
            "meaning": words.MEANING[kind],
        }
        for kind in KINDS
    ]
    dearest, commonest = max(rows, key=lambda row: row["bar"]), max(rows, key=lambda row: row["count"])
    matrix = found.evaluation.confusion_matrix()
    off = matrix.counts[:-1, :-1].copy()
    np.fill_diagonal(off, 0)
    pairs = [divmod(int(place), len(off)) for place in np.argsort(-off, axis=None, kind="stable")[:5]]
    return {
        "rows": rows,
        "score": found.score,
        "dearest": dearest if dearest["bar"] else None,
        "commonest": commonest if commonest["count"] else None,
        "found_later": found.found_later,
        "confused": [
            {"truth": matrix.names[t], "guess": matrix.names[g], "count": int(off[t, g])}
            for t, g in pairs
            if off[t, g]
        ],
    }


def suspects(subject: Subject) -> dict[str, Any]:
    e = subject.evaluation
    likely = [one for one in subject.suspects if one.score >= LIKELY]
    kinds = Counter(one.kind for one in likely)
    drawn = _shown(subject, (_suspect_picture(e, one) for one in likely[:SUSPECTS])) if e else []
    return {
        "looked": bool(e and subject.mistakes),
        "count": len(likely),
        "boxes": int(e.class_boxes.sum()) if e else 0,
        "kinds": [(words.SUSPICIONS[kind], count) for kind, count in kinds.most_common()],
        "pictures": drawn,
    }


def _suspect_picture(e: Evaluation, one: Suspect) -> tuple[Picture, str, str]:
    data, names = e.dataset, e.class_names
    marks = []
    around: Sequence[float] = one.suggestion or ()
    if one.box >= 0:
        around = data.boxes[one.box].tolist()
        marks.append(Mark(around, WHITE, f"labelled {names[int(data.box_classes[one.box])]}", "dotted"))
    if one.suggestion is not None:
        color = class_color(names.index(one.class_name))
        marks.append(Mark(one.suggestion, color, f"seen: {one.class_name}", "dashed"))
    name = PurePath(one.image_id).name
    what = f"{words.SUSPICIONS[one.kind]}? ({one.score:.0%})"
    return picture(data, one.image, marks, f"{name}: {what}", around=around), name, what
