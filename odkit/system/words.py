"""Numbers in sentences for people."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, which is the first word: "1 box without area", "2 boxes without area"."""
    head, space, rest = noun.partition(" ")
    if number != 1:
        head += "es" if head.endswith(("x", "s")) else "s"
    return f"{number:,} {head}{space}{rest}"
