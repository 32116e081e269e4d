"""What is wrong with a dataset and what to do next, in a few sentences, each with the call to make or the notebook."""

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from odkit.data.audit.checks import CHECKS
from odkit.data.audit.inspection import audit_of
from odkit.data.audit.report import Audit, Finding, finding_title
from odkit.data.box_sides import small_side
from odkit.data.dataset import Dataset
from odkit.system import counted

FEW_IMAGES = 50  # to train on, below which figures jump from run to run
SMALL_SIDE = 16  # pixels, below which a detector sees little of an object
MOST_WARNINGS = 3  # kinds that are told; the audit has them all


@dataclass(frozen=True)
class Step:
    """One sentence or two about a dataset, and what to do."""

    about: str  # "stop": training would refuse; "look": worth a look; "next": the way on
    text: str
    do: str = ""  # a call, a command or a notebook


@dataclass(frozen=True, repr=False)
class NextSteps:
    """What stands in the way, what is worth a look, and where to go on; `audit` has every finding."""

    audit: Audit
    steps: tuple[Step, ...]

    def __repr__(self) -> str:
        return "\n".join(f"- {step.text}" + f"\n    {step.do}" * bool(step.do) for step in self.steps)

    def _repr_html_(self) -> str:
        items = "".join(
            f'<li style="margin:4px 0"><b style="color:{_COLOURS[step.about]}">{_WORDS[step.about]}</b> '
            f"{escape(step.text)}" + f"<br><code>{escape(step.do)}</code>" * bool(step.do) + "</li>"
            for step in self.steps
        )
        return f'<ul style="list-style:none;padding-left:0;text-align:left">{items}</ul>'


_WORDS = {"stop": "First:", "look": "Worth a look:", "next": "Next:"}
_COLOURS = {"stop": "#cf222e", "look": "#9a6700", "next": "#1a7f37"}


def next_steps(dataset: Dataset, audit: Audit | None = None) -> NextSteps:
    """What stands in the way of training, what is worth a look, and where to go on.

    The audit's gravest findings in sentences; then what a person starting out should know: no labels, few pictures,
    nothing to choose the epoch by or to test on, objects too small to see.

    Args:
        dataset: As `load_dataset` read it.
        audit: Its audit, where there is one already; else it is made, decoding every image.

    Raises:
        ValueError: `audit` is of another dataset.
    """
    found = audit_of(dataset, audit)
    if not dataset.num_boxes:
        labels = Step(
            "stop",
            f"{counted(len(dataset), 'picture')}, and not one box: there is nothing to learn from yet. "
            "Draw the first ones in the App, or look whether the labels lie in another folder.",
            'browser = od.browse(dataset), then od.write_dataset(browser.edits(), "my-labels")',
        )
        return NextSteps(found, (labels,))
    steps = [*_in_the_way(found), *_worth_a_look(found), *_small(dataset), *_splits(dataset)]
    return NextSteps(found, (*steps, _on(found)))


def _in_the_way(audit: Audit) -> Iterator[Step]:
    for kind, found in _kinds(audit, "fatal"):
        repair = next((f.repair for f in found if f.repair), "")
        meaning = CHECKS[kind].meaning if kind in CHECKS else found[0].message
        text = f"{finding_title(kind, found)}. {meaning}"
        yield Step("stop", text, f"od.repaired(dataset) {repair}" if repair else found[0].fix)


def _worth_a_look(audit: Audit) -> Iterator[Step]:
    kinds = [pair for pair in _kinds(audit, "warning") if pair[0] not in _SAID_BELOW]
    for kind, found in kinds[:MOST_WARNINGS]:
        meaning = CHECKS[kind].meaning if kind in CHECKS else found[0].message
        yield Step("look", f"{finding_title(kind, found)}. {meaning}", found[0].fix)
    if len(kinds) > MOST_WARNINGS:
        rest = ", ".join(finding_title(kind, found) for kind, found in kinds[MOST_WARNINGS:])
        yield Step(
            "look", f"Also: {rest}.", "od.audit(dataset) has them all, notebook 02_browse_dataset shows them"
        )


_SAID_BELOW = ("small_split",)  # in `_splits`, with what it means for a run


def _kinds(audit: Audit, severity: str) -> list[tuple[str, list[Finding]]]:
    groups: dict[str, list[Finding]] = {}
    for finding in audit:
        if finding.severity == severity:
            groups.setdefault(finding.kind, []).append(finding)
    return list(groups.items())


def _small(dataset: Dataset) -> Iterator[Step]:
    side, whose = small_side(dataset)
    if not math.isnan(side) and side < SMALL_SIDE:
        yield Step(
            "look",
            f"A tenth of the {whose} have sides of {side:.0f} pixels or less, of which detectors see little. Training "
            "takes larger images by itself where that helps, and proposes tiles; photographs from nearer by help more.",
            "od.fine_tune(dataset, image_size=1024), or tiles=512 for large photographs",
        )


def _splits(dataset: Dataset) -> Iterator[Step]:
    counts, deal = dataset.split_counts(), "dataset = dataset.with_splits(val=0.2, test=0.2)"
    labelled = {name: int(dataset.split(name).num_boxes > 0) for name in counts}
    images = counts.get("train", 0 if counts else len(dataset))
    if images < FEW_IMAGES:
        yield Step(
            "look",
            f"{counted(images, 'picture')} to train on {'is' if images == 1 else 'are'} few: what is measured jumps "
            "from run to run, and each further picture helps. A first detector can propose the boxes of the next "
            "pictures.",
            "notebook 05_label_more",
        )
    if counts and not labelled.get("val"):
        why = "There is no split 'val'" if "val" not in counts else "No picture of the split 'val' has a box"
        yield Step("look", f"{why}, so nothing would say how good the detector gets.", deal)
    elif 0 < counts.get("val", 0) < 10:
        few = counted(counts["val"], "picture")
        yield Step("look", f"{few} to choose the epoch by: what they say is mostly chance.", deal)
    if counts and not labelled.get("test"):
        yield Step(
            "look",
            "No test pictures are set aside, so a run ends without a figure on pictures that had no say in it.",
            deal,
        )


def _on(audit: Audit) -> Step:
    folder = "demo" if audit.dataset.format == "demo" else shlex.quote(str(audit.dataset.root))
    if audit.fatal and not all(finding.repair for finding in audit.fatal):
        return Step("next", "Put right what stands first, then look again.", f"odkit audit {folder}")
    if audit.fatal:
        return Step(
            "next",
            "Look at what is to be repaired, then train on the repaired view; your files stay as they are.",
            f"notebooks 02_browse_dataset and 03_fine_tune, or: odkit train {folder} --repair",
        )
    return Step(
        "next", "Nothing stands in the way of training.", f"notebook 03_fine_tune, or: odkit train {folder}"
    )
