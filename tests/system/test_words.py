"""Numbers with their nouns, and texts as they may be printed."""

import pytest

from odkit.system import counted, printable


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café 猫.jpg\nnext", "café 猫.jpg\nnext"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\rb\x9bc", "a\\rb\\x9bc"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_what_would_move_the_cursor_or_is_no_text_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
