"""The table of faults says what the tests hold."""

import ast
import re

import pytest

from tests.conftest import PROJECT
from tests.faults.table import FAULTS, Fault

ROWS = [fault for rows in FAULTS.values() for fault in rows]


@pytest.mark.parametrize("fault", ROWS, ids=lambda fault: fault.what[:40])
def test_a_row_names_tests_that_assert_its_words(fault: Fault) -> None:
    said = ""
    for name in fault.tests:
        file, _, wanted = name.partition("::")
        tree = ast.parse((PROJECT / "tests" / file).read_text(encoding="utf-8"))
        (test,) = (one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == wanted)
        said += "\n".join(
            node.value
            for node in ast.walk(test)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
    words = re.findall("“(.+?)”", fault.sees + fault.survived)
    assert [text for text in words if text not in said] == []


def test_every_row_is_its_own() -> None:
    assert len({fault.what for fault in ROWS}) == len(ROWS)
