"""Numbers in sentences for people."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, which is the first word: "1 box without area", "2 boxes without area"."""
    head, space, rest = noun.partition(" ")
    if number != 1:
        head += "es" if head.endswith(("x", "s")) else "s"
    return f"{number:,} {head}{space}{rest}"


def printable(text: str) -> str:
    """A text as it may be printed: a file's or a class's name must not move the cursor or colour what follows."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in text
    )
