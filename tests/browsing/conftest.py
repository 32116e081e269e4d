"""What the tests of browsing share: FiftyOne with an empty database, and a small data set."""

from pathlib import Path
from typing import Any

import pytest

from odkit.browsing import fo_dataset
from odkit.data.dataset import Dataset
from tests.helpers import squares


@pytest.fixture
def fo() -> Any:
    """FiftyOne, with its database running and empty."""
    fiftyone = fo_dataset.fiftyone()
    fiftyone.delete_datasets("*")
    return fiftyone


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return squares(tmp_path / "squares", 8)
