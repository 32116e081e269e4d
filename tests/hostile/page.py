"""docs/reliability.md, written from the cases and the faults; with --measure, they are tried and the totals noted.

python -m tests.hostile.page [--measure]

The page is what the cases expect, which the tests hold; its totals are of the last --measure (reliability.json).
"""

import collections
import json
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from odkit.system import printable
from tests.conftest import PROJECT
from tests.faults.table import FAULTS
from tests.hostile.cases import CASES, FAMILIES, TYPED, Case, Expected, every_case
from tests.hostile.conftest import stocked
from tests.hostile.trial import TRACEBACK, Zygote, removed, told, try_case

PAGE = PROJECT / "docs" / "reliability.md"
MEASURED = PROJECT / "docs" / "reliability.json"
SOAK = PROJECT / "docs" / "soak.json"

OPENING = """# What odkit does with bad input, and through faults

This page is written from the cases in `tests/hostile/` (`python -m tests.hostile.page`), and a test holds it to them:
what stands here is what is asserted.

Exit statuses: 0, it is done; 1, something was found or went wrong, and is said in one message; 2, the line itself is
wrong; 130 and 143, ended by Ctrl-C and by SIGTERM. `odkit audit` ends with 1 where something must be repaired to train,
and `odkit convert` where something of the source is not in what it wrote.

Of every case: no traceback, an end in time, memory under the case's limit, no process left, the source untouched (every
byte, name and time), and of what was to be written the whole or nothing.

A row is a case: what is made, and what comes of lines typed on it (`odkit` left out), as an exit status and words that
the message has among others. SOURCE is what the case makes, in the words of its row; GOOD is a good data set, RUN a
finished run in the folder RUNS, and DETECTOR its detector's file, or the case's spoiled copy of it; TARGET is a path
that is not there yet.
"""

FAULTS_OPENING = """What can happen to a run and to those who look at it, from `tests/faults/table.py`. Each row is
held by tests, and the words in quotation marks are words that they assert.
"""


def measure() -> dict[str, Any]:
    """Try every case; the totals by family."""
    families: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="odkit-hostile-") as place:
        pantry = stocked(Path(place, "pantry"))
        zygotes = {False: Zygote(), True: Zygote("--torch")}
        for case in every_case().values():
            total = families.setdefault(case.family, collections.defaultdict(int))
            with removed(Path(place, "case")) as folder:
                outcomes = try_case(case, folder, pantry, zygotes[case.family in TYPED])
            if said := told(outcomes):
                print(f"{case.id}\n{said}\n")
            total["cases"] += 1
            total["commands"] += len(outcomes)
            total["tracebacks"] += sum(TRACEBACK in outcome.output for outcome in outcomes)
            total["hangs"] += sum("no end after" in text for outcome in outcomes for text in outcome.broken)
            total["modified"] += any(
                "source is not" in text for outcome in outcomes for text in outcome.broken
            )
            total["otherwise"] += any(outcome.broken for outcome in outcomes)
            total["megabytes"] = max(total["megabytes"], *(round(outcome.megabytes) for outcome in outcomes))
        for zygote in zygotes.values():
            zygote.close()
    return {"families": families, "python": platform.python_version(), "system": platform.system()}


def page() -> str:
    """The page, in Markdown."""
    cases = every_case()
    measured = json.loads(MEASURED.read_text())
    lines = [OPENING, "## Totals", ""]
    lines += [
        "| | cases | commands | tracebacks | hangs | sources modified | otherwise than expected | peak memory, MB |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    columns = ("cases", "commands", "tracebacks", "hangs", "modified", "otherwise")
    families = measured["families"]
    for family, title in FAMILIES.items():
        row = families.get(family, {})
        lines.append(f"| {title} | {' | '.join(str(row.get(key, 0)) for key in (*columns, 'megabytes'))} |")
    sums = [sum(row.get(key, 0) for row in families.values()) for key in columns]
    most = max(row["megabytes"] for row in families.values())
    lines += [f"| **all** | {' | '.join(f'**{value:,}**' for value in (*sums, most))} |", ""]
    where = f"Measured with Python {measured['python']} on {measured['system']}"
    lines += [
        f"{where}; memory is a command's largest resident set, odkit itself (and torch, in the last three) included."
    ]
    lines.append("")
    for family, title in FAMILIES.items():
        lines += [f"## {title}", "", "| case | what comes of it |", "|---|---|"]
        lines += [_row(case) for case in cases.values() if case.family == family]
        lines.append("")
    lines += _soak(json.loads(SOAK.read_text()))
    lines += ["## Faults", "", FAULTS_OPENING]
    for title, faults in FAULTS.items():
        lines += [f"### {title}", "", "| what happens | what one sees | what survives |", "|---|---|---|"]
        lines += [
            f"| {_cell(fault.what)} | {_cell(fault.sees)} | {_cell(fault.survived)} |" for fault in faults
        ]
        lines.append("")
    return "\n".join(lines)


def _soak(soak: dict[str, Any]) -> list[str]:
    """What `make soak` measured last."""
    done = ", ".join(f"{name}: {count}" for name, count in soak["counts"].items() if count)
    lines = ["## An hour of it", ""]
    what = (
        "`make soak` starts runs, does them harm at a step drawn by chance and resumes them; each must end with the "
        "very weights of the run that nobody disturbed. Then it judges, tests, exports and browses."
    )
    rounds = f"In {soak['minutes']:g} minutes, beside other work on two cores: {soak['rounds']} rounds."
    lines += [
        f"{what} {rounds} What was done: {done}.",
        "",
        f"Found: {'; '.join(soak['faults']) or 'nothing'}.",
        "",
        "| | after the first fifth | at the end | a round adds |",
        "|---|---|---|---|",
    ]
    for name, grown in soak["growth"].items():
        unit = " MB" if "memory of" in name else ""
        added = f"{grown['a round']:.2f} ± {grown['error']:.2f}"
        lines.append(f"| {name} | {grown['first']:,.0f}{unit} | {grown['last']:,.0f}{unit} | {added}{unit} |")
    return [*lines, "", "![Memory over the hour](soak.svg)", "", soak.get("note", ""), ""]


def _row(case: Case) -> str:
    lines: dict[str, list[str]] = {}  # those of which the same comes stand together
    for line in [line for line in case.commands if _tells(line)] or case.commands:
        lines.setdefault(_what(case.commands[line]), []).append(f"`{_typed(line)}`")
    said = "<br>".join(f"{', '.join(typed)} → {what}" for what, typed in lines.items())
    return f"| {_cell(case.what)} | {said} |"


def _typed(line: str) -> str:
    """A line as it is typed, made-up names in capitals and very long ones cut."""
    words = re.sub(r"\{(\w+)\}", lambda name: name[1].upper(), line.removeprefix("$ "))
    words = re.sub(r"(\w)\1{40,}", r"\1\1\1...", words)
    return printable(words).replace("\n", "\\n").replace("|", "\\|")


def _tells(line: str) -> bool:
    """Whether it says more than the lines around it: loading is what audit does, JSON the same in another dress."""
    return line != "load" and not line.endswith("--json")


def _what(expected: Expected) -> str:
    words = [text for text in expected.says if text != "odkit: "]
    said = "; ".join(f"“{_cell(text)}”" for text in words)
    return f"{expected.status}{': ' + said if said else ''}"


def _cell(text: str) -> str:
    return printable(text).replace("\n", "\\n").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    if "--measure" in sys.argv:
        MEASURED.write_text(json.dumps(measure(), indent=1) + "\n")
    PAGE.write_text(page())
    print(f"{len(CASES)} cases in {PAGE}")
