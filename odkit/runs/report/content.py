"""What stands in a report: figures, tables and sentences as plain values, section by section."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from odkit import analysis
from odkit.analysis import KINDS, Evaluation, Intervals, Mistakes, Suspect
from odkit.analysis.figures import KIND_COLORS, class_color
from odkit.data import Dataset, box_area
from odkit.data.audit import audit
from odkit.detection import catalogue_entry
from odkit.runs.dashboard import duration, smoothed, thinned
from odkit.runs.report import words
from odkit.runs.report.drawings import WHITE, Curves, Mark, Picture, by_score, curves, picture
from odkit.runs.settings import Settings
from odkit.system import InputError, OdkitError, counted, odkit_version

if TYPE_CHECKING:
    from odkit.runs.final_test import FinalTest
    from odkit.runs.run import Run

BEST, WORST, SUSPECTS = 3, 6, 6  # pictures shown
FEW_BOXES = 50  # to learn a class from
LIKELY = 0.5  # suspicion from which a label counts as a likely error
LOSS, AP, AP50 = "var(--loss)", "var(--ap)", "var(--ap50)"


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

    def in_time(self, what: str) -> bool:
        """Whether there is time for a section; else it is noted as missing."""
        if not self.seconds or time.monotonic() - self.began < self.seconds:
            return True
        how = f"`odkit report {self.run.name}` makes the whole" if self.run else "there is more with more time"
        self.missing.append(f"No {what}: the report was given {self.seconds:g} s; {how}.")
        return False

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        return self.run.events() if self.run else []

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
        if not (self.run.path / "evaluation.json").exists():
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
        best = orjson.loads((self.run.path / "evaluation.json").read_bytes())
        own = (best["epoch"], best["ap"])
        return [test for test in self.run.tests() if (test.epoch, test.validation_ap) == own]

    @cached_property
    def intervals(self) -> Intervals | None:
        """Of the first look at test images; of an evaluation without a run, its own."""
        if self.tests:
            return self.tests[0].intervals
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
        if (self.run.path / "test.npz").exists():
            found[self.run.settings.test_split] = Dataset.load(self.run.path / "test.npz")
        return found

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.run.class_names if self.run else self.given.class_names if self.given else ()


def content(subject: Subject) -> dict[str, Any]:
    """Everything the page's template shows."""
    page = {
        "title": subject.run.name if subject.run else f"{subject.given.data_name}" if subject.given else "",
        "subtitle": _subtitle(subject),
        "result": _result(subject),
        "test": _test(subject),
        "curves": list(_curves(subject)),
        "classes": _classes(subject),
        "pictures": _pictures(subject),
        "mistakes": _mistakes(subject),
        "suspects": _suspects(subject),
        "data": _data(subject),
        "settings": _settings(subject),
        "machine": _machine(subject),
        "licences": licences(subject),
        "speed": _speed(subject),
        "use": _use(subject),
        "limits": limits(subject),
        "by_evaluation": subject.run is None,
    }
    made = datetime.now(UTC)
    return {
        **page,
        "missing": subject.missing,
        "made": f"{made.day} {made:%B %Y}",
        "odkit": odkit_version(),
        "seconds": time.monotonic() - subject.began,
    }


# -- the result --------------------------------------------------------------------------------------------------------


def _subtitle(subject: Subject) -> str:
    if subject.run is None or subject.settings is None:
        return "Detections of any detector, judged"
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
    e, test = subject.evaluation, subject.tests[0] if subject.tests else None
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
    counts = e.per_image(subject.score)
    true, false, missed = (
        int(c.sum()) for c in (counts.true_positives, counts.false_positives, counts.missed)
    )
    found = true / (true + missed) if true + missed else None
    right = true / (true + false) if true + false else None
    return words.result(found, right, subject.score, subject.images), found, right


def _result(subject: Subject) -> dict[str, Any]:
    said, found, right = sentence(subject)
    e, test = subject.evaluation, subject.tests[0] if subject.tests else None
    tiles = []
    if e:
        ap, of = (test.ap, "test") if test else (e.ap, "validation" if subject.run else "all images")
        ap50 = test.figures["ap50"] if test else e.ap50
        tiles.append({"label": f"AP, {of}", "value": number(ap), "note": _interval_text(subject, "ap")})
        tiles.append({"label": f"AP50, {of}", "value": number(ap50), "note": _interval_text(subject, "ap50")})
    return {
        "finds": f"Finds {words.listed(subject.class_names)}.",
        "sentence": said,
        "dots": [
            {"share": share, "hundred": round(share * 100), "label": label}
            for share, label in ((found, "of 100 objects are found"), (right, "of 100 boxes it draws are right"))
            if share is not None
        ],
        "tiles": tiles,
    }


def _interval_text(subject: Subject, figure: str) -> str:
    if subject.intervals is None:
        return ""
    low, high = subject.intervals.of(figure)
    return "" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def _test(subject: Subject) -> dict[str, Any]:
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
            f"{test.dataset}: {counted(test.images, 'image')}, {counted(test.boxes, 'box')}, judged on {test.date[:10]} "
            f"on {test.device} in {test.precision}, look {test.look} at these images: AP {number(test.ap)}"
        )
    if e:
        source = subject.tests[0].figures if subject.tests else e.metrics
        found["sizes"] = [
            {"name": name, "value": number(source[f"ap_{name}"])} for name in ("small", "medium", "large")
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


def number(value: float | None, digits: int = 3) -> str:
    """A figure as text; a dash where there is none."""
    return "—" if value is None or math.isnan(value) else f"{value:.{digits}f}"


# -- curves and classes ------------------------------------------------------------------------------------------------


def _curves(subject: Subject) -> Iterator[Curves]:
    rows = subject.run.history() if subject.run else []
    until = max([row["epoch"] for row in rows] or [1])
    steps = [event for event in subject.events if event["event"] == "step"]
    per = max(1, int(subject.start.get("steps_per_epoch") or 1))
    if steps:
        x, y = thinned(
            np.array([event["step"] / per for event in steps], float),
            np.array([math.nan if event["loss"] is None else event["loss"] for event in steps], float),
        )
        loss = [("", LOSS, x, y), ("loss", LOSS, x, smoothed(y))]
        note = "How far it is from the labels on the images it learns from. It falls steeply, then slowly."
        yield curves("Loss", note, "epochs", max(until, float(x.max(initial=1))), loss)
    judged = [row for row in rows if row.get("ap") is not None]
    if judged:
        at = np.array([row["epoch"] for row in judged], float)
        ap = [
            (name, color, at, np.array([row.get(key) or math.nan for row in judged], float))
            for name, color, key in (("AP50", AP50, "ap50"), ("AP", AP, "ap"))
        ]
        note = "Judged on the validation images after each epoch. Where it still rises at the end, more epochs help."
        if len(judged) > 1:
            yield curves("AP, epoch by epoch", note, "epochs", until, ap, top=1.0)
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
        yield curves("Precision by recall", note, "share of the objects found", 1.0, lines, top=1.0)
        at, right, found = by_score(e)
        scores = [("boxes that are right", AP, at, right), ("objects found", LOSS, at, found)]
        note = f"What a score threshold gives, at IoU 0.5. The best balance is at {e.best_score:.2f}."
        yield curves("Which score to ask for", note, "score threshold", 1.0, scores, top=1.0)


def _classes(subject: Subject) -> list[dict[str, Any]]:
    e, train = subject.evaluation, _training_part(subject)
    learnt = train.class_counts() if train else {}
    tested = {row["class"]: row for row in subject.intervals.per_class} if subject.intervals else {}
    rows = {row["class"]: row for row in e.per_class} if e else {}
    return [
        {
            "name": name,
            "color": class_color(k),
            "learnt": learnt.get(name),
            "boxes": rows.get(name, {}).get("boxes"),
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


def _ends(row: dict[str, Any] | None) -> str:
    if row is None or math.isnan(row["ap_low"]):
        return ""
    return f"{row['ap_low']:.3f} to {row['ap_high']:.3f}"


def _share(value: float | None) -> float:
    return 0.0 if value is None or math.isnan(value) else value


def _training_part(subject: Subject) -> Dataset | None:
    return subject.parts.get(subject.settings.train_split) if subject.settings else None


# -- pictures ----------------------------------------------------------------------------------------------------------


def _pictures(subject: Subject) -> dict[str, list[dict[str, Any]]]:
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


def _shown(
    subject: Subject, drawn: Iterator[tuple[Picture, str, str]]
) -> list[dict[str, Any]]:
    rows, faults = [], []
    while subject.in_time("more pictures") and (one := next(drawn, None)):
        svg, name, caption = one
        rows.append({"svg": svg.svg, "name": name, "caption": caption})
        faults += [f"{name} ({svg.fault})"] * bool(svg.fault)
    if faults:
        subject.missing.append(
            f"{counted(len(faults), 'picture')} could not be shown: {words.listed(faults, 3)}. Were they moved?"
        )
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
    crowded = len(shown) > 8
    marks = []
    for row in shown[np.argsort(~right, kind="stable")].tolist():
        kind, label = kinds.predictions[row], int(guesses.classes[row])
        text = f"{names[label]} {guesses.scores[row]:.2f}"
        if kind in ("Cls", "Both"):
            text += f", is {names[int(data.box_classes[kinds.box_of[row]])]}"
        if kind == "correct":
            marks.append(Mark(guesses.boxes[row].tolist(), class_color(label), "" if crowded else text))
        else:
            marks.append(Mark(guesses.boxes[row].tolist(), class_color(label), text, "dashed"))
    for row in missed.tolist():
        label = names[int(data.box_classes[row])]
        marks.append(Mark(data.boxes[row].tolist(), WHITE, f"missed: {label}", "dotted"))
    name = PurePath(str(data.image_ids[image])).name
    wrong = len(shown) - int(right.sum())
    said = [f"{int(right.sum())} right", f"{wrong} wrong" * bool(wrong), f"{len(missed)} missed" * bool(len(missed))]
    caption = ", ".join(filter(None, said))
    return picture(data, image, marks, f"{name}: {caption}"), name, caption


# -- mistakes and label errors -----------------------------------------------------------------------------------------


def _mistakes(subject: Subject) -> dict[str, Any] | None:
    found = subject.mistakes
    if found is None:
        return None
    most = max([found.costs[kind] for kind in KINDS] or [0.0])
    rows = [
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


def _suspects(subject: Subject) -> dict[str, Any]:
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


# -- data --------------------------------------------------------------------------------------------------------------


def _data(subject: Subject) -> dict[str, Any]:
    parts = subject.parts
    everything = [box_area(part.boxes[~part.box_crowd]) for part in parts.values()]
    area = np.concatenate(everything) if everything else np.zeros(0)
    sizes = np.concatenate([part.image_sizes for part in parts.values()]) if parts else np.zeros((0, 2))
    each = np.concatenate([part.boxes_per_image() for part in parts.values()]) if parts else np.zeros(0)
    facts = []
    if len(sizes):
        middle = np.median(sizes, axis=0)
        low, high = sizes.min(0), sizes.max(0)
        same = "" if (low == high).all() else f" in the middle, {low[0]} x {low[1]} to {high[0]} x {high[1]}"
        facts.append(("Image size", f"{middle[0]:.0f} x {middle[1]:.0f} pixels{same}"))
        facts.append(("Objects an image", f"{each.mean():.1f} on average, at most {int(each.max())}"))
        facts.append(("Images without objects", f"{int((each == 0).sum()):,} of {len(each):,}"))
    if len(area):
        side = np.sqrt(np.maximum(area, 0))
        bounds = np.histogram(side, [0, 32, 96, np.inf])[0] / len(side)
        facts.append(("Object size", f"{np.median(side):.0f} pixels in the middle (root of the area)"))
        facts.append(
            ("Small, medium, large", f"{bounds[0]:.0%} under 32, {bounds[1]:.0%} to 96, {bounds[2]:.0%} over 96 pixels")
        )
    counts = {name: part.class_counts() for name, part in parts.items()}
    most = max([c for table in counts.values() for c in table.values()] or [1]) or 1
    first = next(iter(counts.values()), {})
    return {
        "name": subject.run.config["dataset"] if subject.run else subject.given.dataset.name if subject.given else "",
        "splits": [
            {"name": name, "images": len(part), "boxes": part.num_boxes} for name, part in parts.items()
        ],
        "facts": facts,
        "classes": [
            {
                "name": name,
                "color": class_color(k),
                "counts": [table.get(name, 0) for table in counts.values()],
                "bar": first.get(name, 0) / most,
            }
            for k, name in enumerate(subject.class_names)
        ],
        "notes": [note for part in list(parts.values())[:1] for note in part.notes],
        "audit": _audit(subject),
    }


def _audit(subject: Subject) -> dict[str, Any] | None:
    """What the audit found before the run; else what the labels alone say, which needs no file opened."""
    file = subject.run.path / "audit.json" if subject.run else None
    if file and file.exists():
        rows = orjson.loads(file.read_bytes())["findings"]
        checks = "Every check ran before training, the pixels of all images included; nothing fatal was left."
    elif subject.in_time("audit of the labels"):
        whole = subject.run.dataset() if subject.run else subject.given.dataset if subject.given else None
        if whole is None:
            return None
        rows = audit(whole, files=False).summary()
        checks = (
            "Only what labels, sizes and splits say by themselves was checked here, not the image files: odkit audit "
            "looks at those too."
        )
    else:
        return None
    return {"checks": checks, "rows": rows}


# -- settings, machine, licences, speed --------------------------------------------------------------------------------


def _settings(subject: Subject) -> dict[str, Any] | None:
    settings = subject.settings
    if settings is None:
        return None
    choices = subject.start.get("choices", {})
    values = {**settings.to_dict(), **subject.start, **choices}
    chosen = [
        {"name": name, "value": _value(name, values.get(name)), "why": reason}
        for name, reason in choices.get("reasons", {}).items()
    ]
    defaults = {f.name: f.default for f in fields(Settings)}
    picked = {row["name"] for row in chosen} | {"detector"}
    given = {name: value for name, value in settings.to_dict().items() if value != defaults[name]}
    auto = set(subject.run.config.get("chosen", ())) if subject.run else set()
    return {
        "chosen": chosen,
        "given": [
            {"name": name, "value": _value(name, value), "default": _value(name, defaults[name])}
            for name, value in given.items()
            if name not in auto
        ],
        "rest": [
            {"name": name, "value": _value(name, value)}
            for name, value in settings.to_dict().items()
            if name not in given and name not in picked
        ],
        "warnings": [
            {"step": event["step"], "message": event["message"]}
            for event in subject.events
            if event["event"] == "warning"
        ][-12:],
        "starts": sum(event["event"] == "start" and not event.get("rollback") for event in subject.events),
    }


def _value(name: str, value: Any) -> str:
    if name == "tiles" and isinstance(value, dict):
        return f"{value['size']} pixels" if value else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "—" if value is None else str(value)


def _machine(subject: Subject) -> list[tuple[str, str]]:
    start, run = subject.start, subject.run
    if run is None:
        e = subject.given
        return [("Data fingerprint", e.dataset.fingerprint())] if e else []
    machine, config = start.get("machine", {}), run.config
    epoch = subject.tests[0].epoch if subject.tests else run.best.get("epoch")
    rows = [
        ("Device", f"{start.get('device', '?')} ({machine.get('device', '?')})" if start else ""),
        ("Processes", str(start.get("processes", ""))),
        ("odkit", " ".join(filter(None, [machine.get("odkit", ""), _commit(machine.get("commit", ""))]))),
        ("PyTorch", f"{machine.get('torch', '')}, torchvision {machine.get('torchvision', '')}" if machine else ""),
        ("Python", f"{machine.get('python', '')}, NumPy {machine.get('numpy', '')}" if machine else ""),
        ("System", machine.get("system", "")),
        ("Seed", str(config["settings"].get("seed", ""))),
        ("Data fingerprint", config["fingerprint"]),
        ("Best epoch", str(epoch or "")),
        ("Detector, SHA-256", subject.tests[0].detector if subject.tests else ""),
    ]
    return [(name, value) for name, value in rows if value]


def _commit(commit: str) -> str:
    return f"(git commit {commit[:12]})" if commit else ""


def licences(subject: Subject) -> list[tuple[str, str]]:
    """Of the code and of the weights that training began with."""
    if subject.settings is None:
        return []
    weights = subject.settings.weights
    try:
        entry = catalogue_entry(subject.settings.detector)
    except InputError:  # of another version of odkit
        return [("Detector", f"{subject.settings.detector}: not in this odkit's catalogue, its licence is unknown here")]
    began = {
        "pretrained": entry.weights_licence,
        "random": "none: it was trained from random weights",
    }.get(weights, f"unknown: training began with {PurePath(weights).name}, a file of your own")
    return [
        ("odkit", "Apache-2.0"),
        (f"Code of {subject.settings.detector}", entry.code_licence),
        ("Pre-trained weights", began),
        ("Your pictures and labels", "as you have them; the detector learned from them"),
    ]


def _speed(subject: Subject) -> dict[str, Any]:
    facts: list[tuple[str, str]] = []
    rows = subject.run.history() if subject.run else []
    if rows and rows[-1].get("images_per_second"):
        facts.append(("Training", f"{rows[-1]['images_per_second']:.1f} images a second, {duration(rows[-1].get('seconds'))} an epoch"))
    judged = [event for event in subject.events if event["event"] == "evaluation" and event.get("seconds")]
    e = subject.evaluation
    if judged and e:
        each = judged[-1]["seconds"] / max(1, len(e.dataset))
        facts.append(("Judging", f"{1 / each:.1f} images a second on {subject.start.get('device', 'this device')}, reading and figures included"))
    return {"facts": facts, "benchmark": _benchmark(subject)}


def _benchmark(subject: Subject) -> dict[str, Any] | None:
    """The rows of `benchmark.json`, where `odkit benchmark` has written one."""
    file = subject.run.path / "benchmark.json" if subject.run else None
    if file is None or not file.exists():
        return None
    page = orjson.loads(file.read_bytes())
    rows = [row for row in page.get("rows", ()) if isinstance(row, dict)]
    heads = [key for key, value in rows[0].items() if isinstance(value, str | int | float | None)] if rows else []
    cells = [[_value(key, row.get(key)) for key in heads] for row in rows]
    return {"heads": [head.replace("_", " ") for head in heads], "rows": cells} if rows else None


# -- use and limits ----------------------------------------------------------------------------------------------------


def _use(subject: Subject) -> dict[str, str] | None:
    if subject.run is None or subject.score is None:
        return None
    name = subject.run.name
    return {
        "python": (
            "import odkit as od\n\n"
            'detector = od.load_detector("detector.safetensors")  # of the run\'s folder\n'
            'found = od.predict(detector, "pictures").above('
            f"{subject.score:.2f})"
        ),
        "shell": f"odkit predict {name} PICTURES\nodkit export {name}",
    }


def limits(subject: Subject) -> list[str]:
    """What a person should know before relying on the detector."""
    e, train = subject.evaluation, _training_part(subject)
    if e is None:
        return []
    learnt = train.class_counts() if train else {}
    small = int((box_area(e.dataset.boxes[~e.dataset.box_crowd]) < 32**2).sum())
    return words.limits(
        pictures=f"{counted(len(train), 'picture')} of {e.dataset.name!r}" if train else "",
        few=[name for name, count in learnt.items() if count < FEW_BOXES],
        unseen=[name for name, count in zip(e.class_names, e.class_boxes.tolist(), strict=True) if not count],
        small=(small, e.ap_small),
        score=subject.score,
        tested=subject.intervals is not None,
        looks=max([test.look for test in subject.tests] or [0]),
        epochs_judged=sum(event["event"] == "evaluation" for event in subject.events),
    )
