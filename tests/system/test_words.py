"""Numbers with their nouns."""

import pytest

from odkit.system import counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "box", "1 box"),
        (2, "box without area", "2 boxes without area"),
        (1, "box without area", "1 box without area"),
        (12345, "class", "12,345 classes"),
    ],
)
def test_counted(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text
