"""What a hostile case is: what is made, what is typed, and what must come of it.

A case is a function that makes something bad or odd in a new folder, in a family (a file of this folder each). What is
typed on it stands beside it as a table from command lines to what is expected of them. `docs/reliability.md` is written
from these tables (page.py), and `test_corpus.py` holds every one of them by running it (trial.py).
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

FAMILIES: dict[str, str] = {
    "pictures": "Pictures",
    "coco": "COCO",
    "voc": "Pascal VOC",
    "yolo": "YOLO",
    "tables": "CSV and tables",
    "newer": "CVAT, CreateML, Label Studio, KITTI, Open Images, TFRecord",
    "names": "File names, and what is written under them",
    "folders": "Folders and what is in place of a file",
    "weights": "Detectors and weights",
    "run_folders": "Run folders",
    "command_line": "The command line",
}
"""The files of the families and their titles, in the order of the page."""
TYPED = ("weights", "run_folders", "command_line")
"""Those that are more about commands than about data sets: theirs are run with torch loaded."""


@dataclass(frozen=True)
class Expected:
    """What must come of a command.

    Attributes:
        status: Its exit status.
        says: Words that must stand in what it prints, on either stream.
        not_says: Words that must not.
        writes: For a command with a {target}: whether the target is there afterwards.
    """

    status: int = 0
    says: tuple[str, ...] = ()
    not_says: tuple[str, ...] = ()
    writes: bool | None = None


def right(*says: str, not_says: tuple[str, ...] = ()) -> Expected:
    """It succeeds, and says so; a {target} is written."""
    return Expected(0, says, not_says, writes=True)


def found(*says: str, not_says: tuple[str, ...] = ()) -> Expected:
    """It ends with findings: status 1, told in these words."""
    return Expected(1, says, not_says)


def refused(*says: str) -> Expected:
    """One message with these words, status 1, and no {target}."""
    return Expected(1, ("odkit: ", *says), writes=False)


def usage(*says: str) -> Expected:
    """The line itself is wrong: status 2, and no {target}."""
    return Expected(2, says, writes=False)


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        family: Key of FAMILIES.
        name: Its name within the family.
        what: What is in it, in a phrase that follows "a data set with" or stands alone.
        make: Makes it in a folder that is there and empty.
        commands: From the line that is typed to what is expected. {source} is the folder, {target} a path that is not
            there yet, {good} a data set of 8 good images, {run} a finished run, {runs} the folder that it alone is in,
            {detector} its detector's file; a case may change its copies of the last four. A line that begins with "$ "
            is a shell's, and `odkit` in it a process of its own; another one is run in a fork that has odkit loaded.
            "load" is od.load_dataset("{source}").
        seconds: Each command ends sooner, however loaded the machine.
        megabytes: Each command's resident memory stays under it.
        within: The commands run in {source}.
    """

    family: str
    name: str
    what: str
    make: Callable[[Path], object]
    commands: Mapping[str, Expected]
    seconds: float = 60
    megabytes: int = 700
    within: bool = False

    @property
    def id(self) -> str:
        return f"{self.family}/{self.name}"


CASES: dict[str, Case] = {}
"""Every case by family/name, in the order they are written in; see `every_case`."""


def every_case() -> dict[str, Case]:
    """All cases of all families."""
    for family in FAMILIES:
        importlib.import_module(f"tests.hostile.{family}")
    order = list(FAMILIES)
    return dict(sorted(CASES.items(), key=lambda item: order.index(item[1].family)))


def nothing(folder: Path) -> None:
    """Makes nothing: the case is in what is typed."""


def add(
    family: str,
    name: str,
    what: str,
    commands: Mapping[str, Expected],
    make: Callable[[Path], object] = nothing,
    *,
    seconds: float = 60,
    megabytes: int = 700,
    within: bool = False,
) -> None:
    """Put a case into the corpus."""
    case = Case(family, name, what, make, commands, seconds, megabytes, within)
    assert family in FAMILIES and case.id not in CASES, case.id
    CASES[case.id] = case


def dataset_case(
    family: str,
    name: str,
    what: str,
    make: Callable[[Path], object],
    *,
    audit: Expected,
    convert: Expected | None = None,
    load: Expected | None = None,
    to: str = "coco",
    also: Mapping[str, Expected] | None = None,
    seconds: float = 60,
    megabytes: int = 400,
) -> None:
    """Put a data set into the corpus: it is loaded, audited in words and as JSON, and converted.

    Args:
        family: Key of FAMILIES.
        name: Its name within the family.
        what: What is in it.
        make: Makes it in a folder.
        audit: What is expected of `odkit audit`; of `--json` the same status is, and that it is JSON.
        convert: What is expected of `odkit convert`; as a rule what `audit` leads to: a data set that is refused is
            refused, any other is written. Where labels would be lost (`lost(...)`), --partial is tried too.
        load: What is expected of od.load_dataset(); as a rule that it is refused where the audit has no data set
            to look at ("odkit: " in its words), and succeeds otherwise.
        to: The format to convert to.
        also: More lines.
        seconds: See Case.
        megabytes: See Case.
    """
    unreadable = "odkit: " in audit.says
    convert = convert or (refused() if unreadable else right())
    commands = {
        "load": load or (refused() if unreadable else right()),
        "audit {source}": audit,
        "audit {source} --json": refused() if unreadable else Expected(audit.status),
        f"convert {{source}} {{target}} --to {to}": convert,
    }
    if "--partial" in convert.says:
        commands[f"convert {{source}} {{target}} --to {to} --partial"] = Expected(
            1, convert.says[1:2], writes=True
        )
    add(family, name, what, {**commands, **(also or {})}, make, seconds=seconds, megabytes=megabytes)


def lost(words: str) -> Expected:
    """`convert` refuses, as labels would be lost, told in these words; with --partial it writes the rest."""
    return Expected(1, ("odkit: ", words, "--partial"), writes=False)


def incomplete(*says: str) -> Expected:
    """`convert` writes all labels and not all pictures, told in these words."""
    return Expected(1, ("is not the whole", *says), writes=True)
