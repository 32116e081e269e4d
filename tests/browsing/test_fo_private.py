"""What odkit uses of FiftyOne without a promise: that it is there, and that one file touches it."""

import importlib
import re
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from odkit.browsing import fo_private
from odkit.browsing.convert import to_fiftyone
from odkit.data.dataset import Dataset
from tests.helpers import found_in

BROWSING = Path(fo_private.__file__).parent


def test_the_version_of_fiftyone_is_one_that_was_looked_at() -> None:
    there = metadata.version("fiftyone")
    assert there == fo_private.CHECKED, (
        f"odkit was checked with FiftyOne {fo_private.CHECKED}, and this is {there}. Look at each of NAMES and the "
        "words below them in odkit/browsing/fo_private.py: is it there, does it mean the same, is there a public way "
        "by now? Run tests/browsing and tests/browser, look at the App in a notebook (browse, open_evaluation, "
        "open_map, Annotate), then set CHECKED"
    )


WORDS = {re.split(r"[:.]", name)[-1] for name in fo_private.NAMES}


@pytest.mark.parametrize("word", sorted(word for word in WORDS if word.startswith("_")))
def test_one_file_touches_it(word: str) -> None:
    """Names with an underscore; `fo_evaluation` overrides two of FiftyOne's methods."""
    touched = re.compile(rf"(?<!self)\.{word}\b|[\"']{word}\b")
    files = {path.name for path in BROWSING.glob("*.py") if touched.search(path.read_text())}
    assert files <= {"fo_private.py", "fo_evaluation.py"}


def test_its_inner_modules_are_imported_in_one_file() -> None:
    inner = re.compile(r"(from|import) fiftyone\.(?!brain)")
    files = {path.name for path in BROWSING.parent.rglob("*.py") if inner.search(path.read_text())}
    assert files == {"fo_private.py", "fo_evaluation.py"}


@pytest.mark.database
@pytest.mark.usefixtures("fo")
def test_all_names_are_there(dataset: Dataset, fo: Any) -> None:
    made = to_fiftyone(dataset, predictions=found_in(dataset))
    stands_for = {"Dataset": made, "View": made.view()}
    missing = []
    for name in fo_private.NAMES:
        where, what = name.split(":")
        try:
            attrgetter(what)(stands_for[where] if where in stands_for else importlib.import_module(where))
        except (ImportError, AttributeError) as error:
            missing.append(f"{name} ({fo_private.NAMES[name]}): {error}")
    assert not missing
    package = Path(fo.__file__).parent
    assert (package / "server" / "main.py").is_file(), "odkit.doctor knows the App's process by this folder"
    app = b"".join(file.read_bytes() for file in (package / "server" / "static" / "assets").glob("index*.js"))
    assert fo_private.SEEN.encode() in app
    panels = (package.parent / "plugins" / "panels" / "fiftyone.yml").read_text()
    assert fo_private.EVALUATION_PANEL in panels


@pytest.mark.database
@pytest.mark.usefixtures("fo")
def test_what_they_give(dataset: Dataset) -> None:
    made = to_fiftyone(dataset, predictions=found_in(dataset))
    patches = made.to_patches("ground_truth")
    assert fo_private.connected()
    assert fo_private.samples(made).count_documents({}) == len(dataset)
    assert fo_private.is_fiftyones(patches)
    assert not fo_private.is_fiftyones(dataset)
    assert fo_private.is_patches(patches)
    assert not fo_private.is_patches(made)
    assert fo_private.whole_of(patches).name == made.name
    assert fo_private.evaluation_id(made, "eval")
    assert fo_private.values(made, ["image_id", "metadata.width"])[1] == dataset.image_sizes[:, 0].tolist()
