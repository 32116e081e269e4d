"""What an audit found, as an object to look at, filter and save."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from html import escape
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from odkit.data.audit.checks import CHECKS
from odkit.data.audit.subject import Subject
from odkit.data.columns import json_bytes
from odkit.data.dataset import Dataset
from odkit.system import InputError, UnknownNameError, counted

SEVERITIES = ("fatal", "warning", "info")
"""Fatal: training would crash or learn wrong boxes. Warning: look at it. Info: good to know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, where, and what to do about it.

    Attributes:
        kind: Name of the check, a key of `CHECKS` (or of a reader's own, see `SourceProblem`).
        severity: "fatal", "warning" or "info".
        message: What is wrong here, with the values that show it.
        fix: What a person can do about it.
        file: The file to open: the image, or what a reader stumbled over; "" where it concerns the whole dataset.
        image: Image id, "" where no image of the dataset is concerned.
        box: Box id, "" where no box is concerned.
        image_index: Row of the image columns, -1 for none.
        box_index: Row of the box columns, -1 for none.
        repair: What `repaired()` does about it, a key of `REPAIRS`; "" where that is left to a person.
    """

    kind: str
    severity: str
    message: str
    fix: str
    file: str
    image: str = ""
    box: str = ""
    image_index: int = -1
    box_index: int = -1
    repair: str = ""

    @property
    def place(self) -> str:
        """Where it is: image and box, else the file; "" where it concerns the dataset as a whole."""
        return ", ".join(part for part in (self.image, self.box) if part) or self.file


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """Every finding about a dataset, the gravest first; iterate, index by kind, print, or show in a notebook."""

    dataset: Dataset
    findings: tuple[Finding, ...]
    _subject: "Subject" = field(repr=False)

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    @property
    def fatal(self) -> tuple[Finding, ...]:
        """The findings that training refuses."""
        return tuple(f for f in self.findings if f.severity == "fatal")

    @property
    def ok(self) -> bool:
        """True when nothing is fatal."""
        return not self.fatal

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind that was found, the gravest kinds first."""
        return dict(Counter(f.kind for f in self.findings))

    def of(self, kind: str) -> tuple[Finding, ...]:
        """The findings of one kind.

        Raises:
            KeyError: There is no such kind; the message names the nearest.
        """
        if kind not in CHECKS and kind not in self.counts:
            near = get_close_matches(kind, [*CHECKS, *self.counts], n=3, cutoff=0.3)
            raise UnknownNameError(
                f"no kind of finding {kind!r}; near it: {', '.join(near) or ', '.join(CHECKS)}"
            )
        return tuple(f for f in self.findings if f.kind == kind)

    def images(self, kind: str | None = None) -> NDArray[np.int64]:
        """Indices of the images that have a finding (of one kind, or of any), each once, ascending, int64."""
        found = self.findings if kind is None else self.of(kind)
        return np.unique(np.array([f.image_index for f in found if f.image_index >= 0], np.int64))

    def boxes(self, kind: str | None = None) -> NDArray[np.int64]:
        """Indices of the boxes that have a finding (of one kind, or of any), each once, ascending, int64."""
        found = self.findings if kind is None else self.of(kind)
        return np.unique(np.array([f.box_index for f in found if f.box_index >= 0], np.int64))

    def table(self, limit: int | None = 5) -> str:
        """The findings as text, grouped by kind.

        Args:
            limit: How many examples of each kind; None for all.

        Raises:
            InputError: `limit` is below 0.
        """
        if limit is not None and limit < 0:
            raise InputError(f"{limit} examples of each kind: give 0 or more (in Python None for all)")
        return "\n".join([self._headline(), *group_lines(self.findings, limit), *self._advice()])

    def summary(self, examples: int = 3) -> list[dict[str, Any]]:
        """One row a kind: kind, severity, title, count, meaning, fix, and the first places with their messages."""
        return [
            {
                "kind": kind,
                "severity": found[0].severity,
                "title": finding_title(kind, found),
                "count": len(found),
                "meaning": CHECKS[kind].meaning if kind in CHECKS else "",
                "fix": _remedy(found),
                "examples": [{"place": f.place, "message": f.message} for f in found[:examples]],
            }
            for kind, found in _grouped(self.findings)
        ]

    def to_json(self) -> bytes:
        """The whole audit as UTF-8 JSON: dataset, notes, ok, counts, and each finding with all its fields."""
        page = {
            "dataset": self.dataset.name,
            "root": str(self.dataset.root),
            "fingerprint": self.dataset.fingerprint(),
            "images": len(self.dataset),
            "boxes": self.dataset.num_boxes,
            "notes": list(self.dataset.notes),
            "ok": self.ok,
            "counts": self.counts,
            "findings": self.findings,  # a million of them as dictionaries would take a gigabyte
        }
        return json_bytes(page, orjson.OPT_INDENT_2)

    def __repr__(self) -> str:
        return self.table(limit=3)

    def _repr_html_(self) -> str:
        parts = [f"<b>{escape(self._headline())}</b>"]
        for kind, found in _grouped(self.findings):
            rows = "".join(
                f'<tr><td style="text-align:left">{escape(f.place)}</td>'
                f'<td style="text-align:left">{escape(f.message)}</td></tr>'
                for f in found[:5]
            )
            more = f"<p>and {len(found) - 5:,} more</p>" if len(found) > 5 else ""
            title, meaning = finding_title(kind, found), CHECKS[kind].meaning if kind in CHECKS else ""
            parts.append(
                f"<details{' open' if found[0].severity == 'fatal' else ''}><summary><b>{found[0].severity}</b> "
                f"{escape(title)}</summary><p>{escape(meaning)}</p><table>{rows}</table>{more}"
                f"<p>{escape(_remedy(found))}</p></details>"
            )
        parts += [f"<p>{escape(line)}</p>" for line in self._advice() if line]
        return "<div>" + "".join(parts) + "</div>"

    def _headline(self) -> str:
        by = Counter(f.severity for f in self.findings)
        counts = f"{by['fatal']:,} fatal, {counted(by['warning'], 'warning')}, {by['info']:,} info"
        size = f"{counted(len(self.dataset), 'image')}, {counted(self.dataset.num_boxes, 'box')}"
        return f"Audit of {self.dataset.name!r} ({size}): {counts}"

    def _advice(self) -> list[str]:
        if not self.findings:
            return ["Nothing found."]
        mendable = [f for f in self.findings if f.repair]
        lines = []
        if mendable:
            kinds = len({f.kind for f in mendable})
            lines.append(
                f"od.repaired(dataset) repairs {counted(len(mendable), 'finding')} of {counted(kinds, 'kind')} "
                "(`--repair` on the command line); the files stay as they are."
            )
        stuck = [f for f in self.fatal if not f.repair]
        if stuck:
            lines.append(f"No repair mends {', '.join(dict.fromkeys(f.kind for f in stuck))}.")
        return ["", *lines] if lines else []


# -- words -----------------------------------------------------------------------------------------------------------


def _grouped(findings: Iterable[Finding]) -> list[tuple[str, list[Finding]]]:
    groups: dict[tuple[str, str], list[Finding]] = {}
    for f in findings:
        groups.setdefault((f.kind, f.severity), []).append(
            f
        )  # a reader may judge its case otherwise than the table
    return [(kind, found) for (kind, _), found in groups.items()]


def group_lines(findings: Iterable[Finding], limit: int | None) -> list[str]:
    lines = []
    for kind, found in _grouped(findings):
        meaning = CHECKS[kind].meaning if kind in CHECKS else ""
        lines += ["", f"{found[0].severity}: {finding_title(kind, found)} [{kind}]. {meaning}".rstrip()]
        lines += [f"    {f.place + ': ' * bool(f.place)}{f.message}" for f in found[:limit]]
        if limit is not None and len(found) > limit:
            lines.append(f"    and {len(found) - limit:,} more")
        lines.append(f"  {_remedy(found)}")
    return lines


def _remedy(found: list[Finding]) -> str:
    repairs = list(dict.fromkeys(f.repair for f in found))
    does = f" repaired() {' or '.join(filter(None, repairs))}." if any(repairs) else ""
    return f"{found[0].fix}{does}"


def finding_title(kind: str, found: list[Finding]) -> str:
    if kind in CHECKS:
        return counted(len(found), CHECKS[kind].title)
    return f"{len(found):,} x {kind.replace('_', ' ')}"


def shown_examples(places: list[str]) -> str:
    return "; ".join(places[:3]) + (f"; and {len(places) - 3:,} more" if len(places) > 3 else "")
