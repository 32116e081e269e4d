"""What the cases stand on: a good data set, a finished run, and the processes that fork for each command."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import squares, trained
from tests.hostile.trial import Zygote


@pytest.fixture(scope="session")
def pantry(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return stocked(tmp_path_factory.mktemp("pantry"))


def stocked(place: Path) -> dict[str, Path]:
    """A good data set of 8 images in COCO's format, and a run that was trained on it."""
    from odkit.data.formats import write_dataset

    good = write_dataset(squares(place / "squares", 8), place / "good")
    run = trained(squares(place / "squares", 8), place / "runs", "good", epochs=1, seed=0)
    return {"good": good, "run": run.path}


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope="session")
def torch_zygote() -> Iterator[Zygote]:
    process = Zygote("--torch")
    yield process
    process.close()
