"""Writes the page: by itself when a run ends, when asked, and of evaluations without a run."""

import time
import warnings
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from odkit.analysis import Evaluation
from odkit.runs.report import facts, results, words
from odkit.runs.report.card import card_text
from odkit.runs.report.subject import TEMPLATES, Subject
from odkit.runs.worker import check_links, writing
from odkit.system import InputError, OdkitError, counted, odkit_version, write_file

if TYPE_CHECKING:
    from odkit.runs.events import EventLog
    from odkit.runs.run import Run

REPORT, CARD = "report.html", "MODEL_CARD.md"
SECONDS_AT_THE_END = 20.0  # that a worker which has trained gives to its report


def report(of: "Run | Evaluation", path: str | Path | None = None, *, seconds: float = 0.0) -> Path:
    """Write a run, or an evaluation of anybody's detections, as one page of HTML that needs nothing else.

    The page has no script and loads nothing: figures and pictures are in it. Beside a run's report.html stands its
    MODEL_CARD.md, with the front matter of the Hugging Face Hub.

    Args:
        of: A run, in whatever state; or an evaluation, whoever's detections it is of.
        path: The page's file; None: report.html in the run's folder. A card is written only there.
        seconds: How long it may take, after which further sections are left out, and named; 0: as long as it does.

    Returns:
        The page's file.

    Raises:
        InputError: An evaluation needs a path.
        RunError: The run's folder cannot be written: give another path.
    """
    run = None if isinstance(of, Evaluation) else of
    if path is None and run is None:
        raise InputError('an evaluation has no folder of its own: od.report(evaluation, "report.html")')
    subject = Subject(run, of if isinstance(of, Evaluation) else None, seconds)
    page = page_text(subject)
    if path is not None or run is None:
        target = Path(path or REPORT)
        if target.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"a report is a page of HTML: {target} should end in .html")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, page.encode())
        return target
    check_links(run.path)
    with writing(run.path):
        write_file(run.path / REPORT, page.encode())
        write_file(run.path / CARD, card_text(subject).encode())
    return run.path / REPORT


def report_at_the_end(run: "Run", log: "EventLog") -> None:
    """A run's report by the worker that has trained it, within a time; whatever goes wrong is a warning in the log.

    The page says how long it took; in the log the end of the run stays the last word where all goes well.
    """
    try:
        report(run, seconds=SECONDS_AT_THE_END)
    except Exception as error:  # whatever it is: the run is over, and went well
        what = f"{error}" if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        why = f"the report could not be written ({what}); `odkit report {run.path}` tries again"
        log.write("warning", kind="report", message=why, step=run.last_event.get("step", 0))


def report_anew(run: "Run") -> None:
    """A run's report written again because there is more to say; a warning where that does not work."""
    try:
        report(run, seconds=SECONDS_AT_THE_END)
    except (OdkitError, OSError) as error:
        warnings.warn(f"{run.path / REPORT} stays as it was: {error}", stacklevel=3)


def page_text(subject: Subject) -> str:
    """The page of a run or an evaluation."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return _templates().get_template("report.html").render(_content(subject), style=style)


def _content(subject: Subject) -> dict[str, Any]:
    """Everything the page's template shows."""
    page = {
        "title": subject.run.name if subject.run else f"{subject.given.data_name}" if subject.given else "",
        "subtitle": results.subtitle(subject),
        "result": results.result(subject),
        "test": results.test(subject),
        "curves": list(results.curves(subject)),
        "thresholds": results.thresholds(subject),
        "images": subject.images,
        "classes": results.classes(subject),
        "pictures": results.pictures(subject),
        "mistakes": results.mistakes(subject),
        "suspects": results.suspects(subject),
        "data": facts.data(subject),
        "settings": facts.settings(subject),
        "machine": facts.machine(subject),
        "licences": facts.licences(subject),
        "speed": facts.speed(subject),
        "use": facts.use(subject),
        "limits": facts.limits(subject),
        "by_evaluation": subject.run is None,
    }
    if subject.unread:
        faults = [f"{name} ({fault})" for name, fault in subject.unread.items()]
        subject.missing.append(
            f"{counted(len(faults), 'picture')} could not be shown: {words.listed(faults, 3)}. Were they moved?"
        )
    made = datetime.now(UTC)
    return {
        **page,
        "missing": subject.missing,
        "made": f"{made.day} {made:%B %Y}",
        "odkit": odkit_version(),
        "seconds": time.monotonic() - subject.began,
    }


@cache
def _templates() -> Environment:
    # names of classes, files and datasets are anybody's: all of them are escaped
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
