"""MODEL_CARD.md: a short version of the report, with the front matter of the Hugging Face Hub.

Source of the front matter: huggingface.co/docs/hub/model-cards, and `modelcard.md` in huggingface/hub-docs.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from odkit.runs.report.facts import licences, limits
from odkit.runs.report.results import sentence
from odkit.runs.report.subject import TEMPLATES, Subject, number, span
from odkit.runs.report.words import listed
from odkit.system import counted

if TYPE_CHECKING:
    from odkit.runs.run import Run

HUB_LICENCES = {
    "Apache-2.0": "apache-2.0",
    "BSD-3-Clause": "bsd-3-clause",
    "MIT": "mit",
}  # as the Hub names them
FIGURES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar": "AR"}


def model_card(run: "Run", *, exported: Sequence[Mapping[str, Any]] = ()) -> str:
    """A run's model card as Markdown: what the detector is, how good, made from what, how to use it, its limits.

    Its front matter is what the Hugging Face Hub reads, so that it can be uploaded as the README.md of a repository.

    Args:
        run: The run.
        exported: The files of an export, beside which the card is to lie, as `Export.rows()` has them; else it lies in
            the run's folder.
    """
    return card_text(Subject(run, None), exported)


def card_text(subject: Subject, exported: Sequence[Mapping[str, Any]] = ()) -> str:
    """The card of a run whose report is being written."""
    run, settings, e = subject.run, subject.settings, subject.evaluation
    assert run is not None
    assert settings is not None
    test, source = subject.test, subject.figures
    figures = {
        name: {
            "value": number(source[key]),
            "interval": "" if test is None else span(*test.intervals.of(key)),
        }
        for key, name in FIGURES.items()
        if source and source[key] is not None and not math.isnan(source[key])
    }
    tested = {row["class"]: row for row in test.intervals.per_class} if test else {}
    body = _template().render(
        name=run.name,
        detector=settings.detector,
        dataset=run.config["dataset"],
        finds=listed(subject.class_names, most=20),
        sentence=sentence(subject)[0],
        images=f"{test.images:,} test images" if test else subject.images if e else "",
        has_test=test is not None,
        figures=figures,
        classes=[
            {
                "name": row["class"],
                "boxes": tested.get(row["class"], row)["boxes"],
                "ap": number(tested.get(row["class"], row)["ap"]),
                "ap50": number(tested.get(row["class"], row)["ap50"]),
            }
            for row in (e.per_class if e else [])
        ],
        splits=[f"{counted(len(part), 'image')} ({name})" for name, part in subject.parts.items()],
        fingerprint=run.config["fingerprint"],
        epochs=subject.best.get("epoch", 0),
        machine=subject.start.get("machine", {}),
        device=subject.start.get("device", "?"),
        seed=settings.seed,
        licences=licences(subject),
        limits=limits(subject),
        score=f"{subject.score:.2f}" if subject.score is not None else "",
        exported=[
            {
                "file": row["file"],
                "ap": number(row["ap"], 4),
                "change": "" if row["loss"] is None else f"{-row['loss']:+z.4f}",
                "size": row["size"],
            }
            for row in exported
        ],
    )
    front = yaml.safe_dump(_front_matter(subject), sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{front}---\n\n{body}"


def _front_matter(subject: Subject) -> dict[str, Any]:
    run, settings, e = subject.run, subject.settings, subject.evaluation
    assert run is not None
    assert settings is not None
    dataset = run.config["dataset"]
    slug = re.sub(r"[^\w.-]+", "-", dataset, flags=re.ASCII).strip("-.") or "dataset"
    front: dict[str, Any] = {
        "library_name": "odkit",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", "odkit", settings.detector],
        **_licence(subject),
        "metrics": ["mean_average_precision"],
    }
    if e is None:
        return front
    test, source = subject.test, subject.figures
    split = run.settings.test_split if test else run.settings.val_split
    name = test.dataset if test else e.data_name
    metrics = [
        {
            "type": "mean_average_precision" if key == "ap" else key,
            "name": label,
            "value": round(source[key], 4),
        }
        for key, label in FIGURES.items()
        if source[key] is not None and not math.isnan(source[key])
    ]
    if metrics:
        result = {
            "task": {"type": "object-detection", "name": "Object detection"},
            "dataset": {"type": slug, "name": name, "split": split},
            "metrics": metrics,
        }
        front["model-index"] = [{"name": run.name, "results": [result]}]
    return front


def _licence(subject: Subject) -> dict[str, str]:
    """The licence of the weights that training began with, else of the code, in the Hub's words."""
    terms = dict(licences(subject))
    said = terms.get("Pre-trained weights", "")
    if said.startswith("none"):
        said = next((value for name, value in terms.items() if name.startswith("Code of")), "")
    known = HUB_LICENCES.get(said.partition(",")[0])
    return {"license": known} if known else {"license": "other", "license_name": "unknown"}


@cache
def _template() -> Any:
    # in Markdown, too, names are anybody's: whatever a template puts in is escaped
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        finalize=_as_text,
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("MODEL_CARD.md")


def _as_text(value: Any) -> Any:
    """A value as Markdown that shows it and does nothing else, on one line."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = " ".join(value.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~$!])", r"\\\1", text)
