"""What the detector was made from and how: data, settings, machine, licences, speed; how to use it, and its limits."""

from dataclasses import fields
from pathlib import PurePath
from typing import Any

import numpy as np

from odkit.analysis.figures import class_color
from odkit.data import box_area
from odkit.data.audit import audit
from odkit.detection import catalogue_entry
from odkit.runs.dashboard import duration
from odkit.runs.report import words
from odkit.runs.report.subject import FEW_BOXES, Subject, number
from odkit.runs.settings import Settings
from odkit.runs.worker import as_written, read_own
from odkit.system import InputError, counted, megabytes

LEFT_TO_ODKIT = ("image_size", "tiles", "epochs", "batch_size", "micro_batch_size", "learning_rate", "weight_decay",
                 "num_workers")  # by 0 or -1  # fmt: skip

# -- data --------------------------------------------------------------------------------------------------------------


def data(subject: Subject) -> dict[str, Any]:
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
            (
                "Small, medium, large",
                f"{bounds[0]:.0%} under 32, {bounds[1]:.0%} to 96, {bounds[2]:.0%} over 96 pixels",
            )
        )
    counts = {name: part.class_counts() for name, part in parts.items()}
    most = max([c for table in counts.values() for c in table.values()] or [1]) or 1
    first = next(iter(counts.values()), {})
    return {
        "name": subject.run.config["dataset"]
        if subject.run
        else subject.given.dataset.name
        if subject.given
        else "",
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
        with as_written(file):
            told = ("severity", "title", "meaning", "fix")
            rows = [{name: str(row[name]) for name in told} for row in read_own(file)["findings"]]
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


def settings(subject: Subject) -> dict[str, Any] | None:
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
            {"name": name, "value": _value(name, value), "default": _default(name, defaults[name])}
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


def _default(name: str, value: Any) -> str:
    """What a setting is where nobody sets it: for many, what odkit makes of the data and the machine."""
    return "odkit's choice" if value == "auto" or name in LEFT_TO_ODKIT else _value(name, value)


def _value(name: str, value: Any) -> str:
    if name == "tiles" and isinstance(value, dict):
        return f"{value['size']} pixels" if value else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "—" if value is None else str(value)


def machine(subject: Subject) -> list[tuple[str, str]]:
    start, run = subject.start, subject.run
    if run is None:
        e = subject.given
        return [("Data fingerprint", e.dataset.fingerprint())] if e else []
    machine, config = start.get("machine", {}), run.config
    rows = [
        ("Device", f"{start.get('device', '?')} ({machine.get('device', '?')})" if start else ""),
        ("Processes", str(start.get("processes", ""))),
        ("odkit", " ".join(filter(None, [machine.get("odkit", ""), _commit(machine.get("commit", ""))]))),
        (
            "PyTorch",
            f"{machine.get('torch', '')}, torchvision {machine.get('torchvision', '')}" if machine else "",
        ),
        ("Python", f"{machine.get('python', '')}, NumPy {machine.get('numpy', '')}" if machine else ""),
        ("System", machine.get("system", "")),
        ("Seed", str(config["settings"].get("seed", ""))),
        ("Data fingerprint", config["fingerprint"]),
        ("Best epoch", str(subject.best.get("epoch", ""))),
        ("Detector, SHA-256", subject.test.detector if subject.test else ""),
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
        return [
            (
                "Detector",
                f"{subject.settings.detector}: not in this odkit's catalogue, its licence is unknown here",
            )
        ]
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


def speed(subject: Subject) -> dict[str, Any]:
    facts: list[tuple[str, str]] = []
    rows = subject.history
    if rows and rows[-1].get("images_per_second"):
        facts.append(
            (
                "Training",
                f"{rows[-1]['images_per_second']:.1f} images a second, {duration(rows[-1].get('seconds'))} an epoch",
            )
        )
    judged = [event for event in subject.events if event["event"] == "evaluation" and event.get("seconds")]
    e = subject.evaluation
    if judged and e:
        each = judged[-1]["seconds"] / max(1, len(e.dataset))
        facts.append(
            (
                "Judging",
                f"{1 / each:.1f} images a second on {subject.start.get('device', '?')}, reading and figures included",
            )
        )
    return {"facts": facts, "benchmark": _benchmark(subject)}


def _benchmark(subject: Subject) -> dict[str, Any] | None:
    """What `odkit benchmark` has measured of the run and kept in its folder, as a table."""
    file = subject.run.path / "benchmark.json" if subject.run else None
    if file is None or not file.exists():
        return None
    with as_written(file):
        return _benchmark_table(read_own(file))


def _benchmark_table(page: dict[str, Any]) -> dict[str, Any] | None:
    rows = []
    for row in page.get("rows", ()):
        took, paces = row.get("latency") or {}, row.get("paces") or ()
        best = max(paces, key=lambda pace: pace["images_per_second"], default=None)
        rows.append(
            {
                "name": f"{row['name']} ({row['device']})" if row.get("device") else row["name"],
                "latency": f"{took['median']:.1f} ms ({took['p95']:.1f} ms)" if took else "—",
                "pace": f"{best['images_per_second']:.1f} at {best['batch_size']}" if best else "—",
                "memory": megabytes(row["memory"]) if row.get("memory") else "—",
                "file": megabytes(row["file_bytes"]) if row.get("file_bytes") else "—",
                "ap": number(row.get("ap")),
                "said": row.get("why_not") or row.get("remark") or "",
            }
        )
    where = ", ".join(str(page[key]) for key in ("machine", "pictures") if page.get(key))
    return {"rows": rows, "where": f"Measured on {where}, {page.get('date', '')[:10]}."} if rows else None


# -- use and limits ----------------------------------------------------------------------------------------------------


def use(subject: Subject) -> dict[str, str] | None:
    if subject.run is None or subject.score is None:
        return None
    name = subject.run.name
    return {
        "python": (
            "import odkit as od\n\n"
            'detector = od.load_detector("detector.safetensors")\n'
            'found = od.predict(detector, "pictures").above('
            f"{subject.score:.2f})"
        ),
        "shell": f"odkit predict {name} PICTURES\nodkit export {name}",
    }


def limits(subject: Subject) -> list[str]:
    """What a person should know before relying on the detector."""
    e, train = subject.evaluation, subject.learnt
    if e is None:
        return []
    learnt = train.class_counts() if train else {}
    small = int((box_area(e.dataset.boxes[~e.dataset.box_crowd]) < 32**2).sum())
    return words.limits(
        pictures=f"{counted(len(train), 'picture')} of {e.dataset.name!r}" if train else "",
        images="the validation images" if subject.run else "these images",
        few=[name for name, count in learnt.items() if count < FEW_BOXES],
        unseen=[name for name, count in zip(e.class_names, e.class_boxes.tolist(), strict=True) if not count],
        small=(small, e.ap_small),
        score=subject.score,
        tested=subject.intervals is not None,
        looks=max([test.look for test in subject.tests] or [0]),
        epochs_judged=sum(event["event"] == "evaluation" for event in subject.events),
    )
