"""What broke a parser once is read ever after; and every target reads its own good file."""

from pathlib import Path

import pytest

from tests.fuzz.targets import FOUND, TARGETS, Prepared


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_what_broke_a_parser_is_answered(name: str, tmp_path: Path) -> None:
    prepared = Prepared(name, tmp_path)
    prepared.target.read(prepared.folder, prepared.file)  # the good one, and without an error of any kind
    for file in sorted(FOUND.glob(f"{name}-*")):
        prepared.read(file.read_bytes())
