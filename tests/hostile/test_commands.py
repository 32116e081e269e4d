"""Every hostile weights file, run folder and line: the right thing or one message, and nothing broken or lost."""

from pathlib import Path

import pytest

from tests.hostile.cases import TYPED, Case, every_case
from tests.hostile.trial import Zygote, removed, told, try_case

CASES = [case for case in every_case().values() if case.family in TYPED]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_hostile_command(case: Case, tmp_path: Path, pantry: dict[str, Path], torch_zygote: Zygote) -> None:
    with removed(tmp_path / "case") as place:
        broken = told(try_case(case, place, pantry, torch_zygote))
    assert not broken, broken
