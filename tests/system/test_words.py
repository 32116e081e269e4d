"""Numbers with their nouns, and texts as they may be printed."""

import json

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
        ("at 9.41\u202fAM\u3000猫.png\n", "at 9.41\u202fAM\u3000猫.png\n"),
        ("\x1b[31mred", "\\u001b[31mred"),
        ("a\rb\x9bc\x7f", "a\\rb\\u009bc\\u007f"),
        ("left\u202eright", "left\\u202eright"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_what_would_move_the_cursor_or_is_no_text_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_json_is_the_same_json_when_it_is_printed() -> None:
    value = {"caf\udce9\x7f": ["\x9b1m", "\xad\U000e0067", "\xa0"]}
    shown = printable(json.dumps(value, indent=1, ensure_ascii=False))
    assert json.loads(shown) == value
    assert not {"\x7f", "\x9b"} & set(shown)
