"""docs/reliability.md says what the cases say."""

import collections
import json

from tests.hostile.cases import every_case
from tests.hostile.page import MEASURED, PAGE, page


def test_the_page_is_written_from_the_cases() -> None:
    assert PAGE.read_text() == page(), "python -m tests.hostile.page writes it anew"


def test_its_totals_are_of_these_cases() -> None:
    families = json.loads(MEASURED.read_text())["families"]
    cases = collections.Counter(case.family for case in every_case().values())
    assert {name: row["cases"] for name, row in families.items()} == cases, "--measure them anew"
    assert not any(
        row[key] for row in families.values() for key in ("tracebacks", "hangs", "modified", "otherwise")
    )


def test_there_are_400_cases_and_every_family_has_some() -> None:
    families = collections.Counter(case.family for case in every_case().values())
    assert sum(families.values()) >= 400
    assert min(families.values()) >= 5
