"""A check's verdict and the report of them all."""

import textwrap
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Literal

from odkit.system import UnknownNameError, counted, run_line

Status = Literal["ok", "warning", "failure"]
ESSENTIAL = ("torch", "torchvision", "numpy", "fiftyone", "hotcoco", "jupyterlab", "ipykernel", "ipywidgets")
"""Packages whose versions matter most; the others that the lock pins may be missing."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at, in a word or two.
        status: "ok", "warning" (it works, but not as well as it could) or "failure" (it will not work).
        seen: What was found.
        meaning: What follows from it.
        command: What to type; one command a line.
        options: Options that the container should be started with, name to value (see `run_line`).
    """

    name: str
    status: Status
    seen: str
    meaning: str = ""
    command: str = ""
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The checks, as a table; `ok` and `exit_status` sum them up."""

    checks: tuple[Check, ...]
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """True where nothing failed; warnings do not count."""
        return not self.failures

    @property
    def exit_status(self) -> int:
        """0 where nothing failed, else 1."""
        return 0 if self.ok else 1

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if check.status == "failure"]

    @property
    def warnings(self) -> list[Check]:
        return [check for check in self.checks if check.status == "warning"]

    @property
    def command(self) -> str:
        """One command that starts the container with everything corrected; "" where no option would change anything."""
        options = {name: value for check in self.checks for name, value in check.options.items()}
        return run_line(options) if options else ""

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        raise UnknownNameError(
            f"no check {name!r}; there are {', '.join(check.name for check in self.checks)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, as `odkit doctor --json` prints it."""
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 2),
            "command": self.command,
            "checks": [asdict(check) for check in self.checks],
        }

    def summary(self) -> str:
        """One sentence: "14 checks: 2 warnings, 1 failure (driver)"."""
        failed = ", ".join(check.name for check in self.failures)
        parts = [counted(len(self.warnings), "warning"), counted(len(self.failures), "failure")]
        return f"{len(self.checks)} checks: {', '.join(parts)}" + (f" ({failed})" if failed else "")

    def to_text(self, *, problems_only: bool = False) -> str:
        """The report as lines of text; `problems_only` leaves out what is ok."""
        shown = [check for check in self.checks if check.status != "ok" or not problems_only]
        width = max((len(check.name) for check in shown), default=0)
        lines = []
        for check in shown:
            lines += _wrapped(f"{check.status:8} {check.name:{width}}  ", check.seen)
            if check.status != "ok":
                indent = " " * (width + 11)
                lines += _wrapped(indent, check.meaning) if check.meaning else []
                lines += [f"{indent}$ {line}" for line in check.command.splitlines()]
        lines += [""] if lines else []
        lines += [f"{self.summary()}, in {self.seconds:.1f} s"]
        if self.command:
            lines += [
                "Everything that the container's start can correct, in one command:",
                f"  {self.command}",
            ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        rows = []
        for check in self.checks:
            bad = check.status != "ok"
            meaning = f"<br>{escape(check.meaning)}" if bad and check.meaning else ""
            command = f"<pre>{escape(check.command)}</pre>" if bad and check.command else ""
            rows.append(
                f'<tr style="text-align:left"><td style="color:{_COLOURS[check.status]}"><b>{check.status}</b></td>'
                f'<td style="text-align:left">{escape(check.name)}</td>'
                f'<td style="text-align:left">{escape(check.seen)}{meaning}{command}</td></tr>'
            )
        whole = ""
        if self.command:
            whole = f"<p>All of it in one command:</p><pre>{escape(self.command)}</pre>"
        return f"<table><caption>{escape(self.summary())}</caption>{''.join(rows)}</table>{whole}"


_COLOURS = {"ok": "#1a7f37", "warning": "#9a6700", "failure": "#cf222e"}


def _wrapped(start: str, text: str, width: int = 110) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=start, subsequent_indent=" " * len(start)) or [
        start.rstrip()
    ]
