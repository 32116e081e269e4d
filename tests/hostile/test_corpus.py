"""Every hostile data set: the right thing or one message, and nothing broken, lost, changed or left."""

from pathlib import Path

import pytest

from tests.hostile.cases import TYPED, Case, every_case
from tests.hostile.trial import Zygote, removed, told, try_case

DATA = [case for case in every_case().values() if case.family not in TYPED]


@pytest.mark.slow
@pytest.mark.parametrize("case", DATA, ids=lambda case: case.id)
def test_a_hostile_data_set(case: Case, tmp_path: Path, pantry: dict[str, Path], zygote: Zygote) -> None:
    with removed(tmp_path / "case") as place:
        broken = told(try_case(case, place, pantry, zygote))
    assert not broken, broken
