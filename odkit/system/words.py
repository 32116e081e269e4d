"""Numbers in sentences for people, and texts as they may be printed."""

import json
import unicodedata


def counted(number: int, noun: str) -> str:
    """A number with its noun, which is the first word: "1 box without area", "2 boxes without area"."""
    head, space, rest = noun.partition(" ")
    if number != 1:
        head += "es" if head.endswith(("x", "s")) else "s"
    return f"{number:,} {head}{space}{rest}"


def printable(text: str) -> str:
    """A text as it may be printed: a file's or a class's name must not move the cursor or colour what follows.

    What must not stand there is shown by JSON's escapes, so that JSON is the same JSON afterwards.
    """
    if text.replace("\n", "").isprintable():
        return text
    odd = {letter for letter in set(text) if not _may_stand(letter)}
    return text.translate({ord(letter): json.dumps(letter)[1:-1] for letter in odd})


def _may_stand(letter: str) -> bool:
    # blanks of any width may: Python calls none but one printable
    return letter.isprintable() or letter == "\n" or unicodedata.category(letter) == "Zs"
