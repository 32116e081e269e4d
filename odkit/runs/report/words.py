"""Results, mistakes and limits in plain sentences."""

import math
from collections.abc import Sequence

MEANING = {
    "Cls": "It finds the object and gives it another class's name. Classes that look alike need more examples of each, "
    "and labels that mix them up cost here too.",
    "Loc": "It finds the object and draws the box badly. Small objects want a larger image size; boxes that were drawn "
    "loosely teach it to draw loosely.",
    "Both": "It is near an object and has neither its class nor its place right: too few examples, or a crowd.",
    "Dupe": "It marks one object twice. A higher score threshold hides most of these.",
    "Bkg": "It marks something where nothing is labelled: a false alarm, or an object that nobody labelled.",
    "Miss": "It does not find the object at all: too few examples like it, too small, hidden or cut off.",
}
"""What each of TIDE's kinds of mistake means to who uses the detector."""

KIND_NAMES = {
    "Cls": "wrong class",
    "Loc": "badly placed",
    "Both": "class and place",
    "Dupe": "found twice",
    "Bkg": "nothing there",
    "Miss": "not found",
}
SUSPICIONS = {
    "wrong_class": "wrong class",
    "missing": "not labelled",
    "bad_box": "badly drawn",
    "spurious": "nothing there",
    "duplicate": "labelled twice",
}


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names as "a, b and c"; of many, the first and how many more."""
    if len(names) > most:
        return f"{', '.join(names[: most - 2])} and {len(names) - most + 2} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def hundred(share: float) -> int:
    """A share, 0 to 1, as a whole number of a hundred; 0 and 100 only where they are true."""
    return round(share * 100) if share in (0, 1) else min(max(round(share * 100), 1), 99)


def of_hundred(share: float) -> str:
    """A share, 0 to 1, as a whole number of a hundred in words."""
    return {0: "none", 100: "all 100"}.get(hundred(share), str(hundred(share)))


def short(name: str, most: int = 40) -> str:
    """A name for a sentence: of a long one the beginning."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def result(found: float | None, right: float | None, score: float, images: str) -> str:
    """What a detector does at a score threshold, as a sentence.

    Args:
        found: Share of the objects that it finds, 0 to 1.
        right: Share of its boxes that are right, 0 to 1; None where it drew none.
        score: The score threshold.
        images: Which images say so, as "40 test images".
    """
    if found is None:
        return f"There are no labelled objects in {images}, so nothing says how many it finds."
    drawn = (
        "it drew no box there"
        if right is None
        else f"of 100 boxes that it drew, {of_hundred(right)} {'was' if of_hundred(right) == '1' else 'were'} right"
    )
    return (
        f"Of 100 labelled objects it found {of_hundred(found)}, and {drawn}: on {images}, at a score "
        f"of {score:.2f} and above."
    )


def limits(
    *,
    pictures: str,
    images: str,
    few: Sequence[str],
    unseen: Sequence[str],
    small: tuple[int, float],
    score: float | None,
    tested: bool,
    looks: int,
    epochs_judged: int,
) -> list[str]:
    """What a person should know before relying on a detector.

    Args:
        pictures: What it was trained on, as "280 pictures of 'demo'"; "": unknown.
        images: Those that the score threshold is of, in words.
        few: Classes with few boxes to learn from.
        unseen: Classes without a box in the images that it was judged on.
        small: How many boxes under 32 x 32 pixels it was judged on, and its AP on them.
        score: The score threshold of the sentences and pictures.
        tested: Whether test images had a say.
        looks: How often they were looked at.
        epochs_judged: How often the validation images were asked.
    """
    said = []
    if pictures:
        said.append(
            f"It learned from {pictures}. Pictures of another kind (another camera, light, place or season, other "
            "objects beside these) may go worse, and nothing here says by how much: try some of your own before "
            "you rely on it."
        )
    if few:
        said.append(
            f"It had fewer than 50 boxes to learn {listed(few)} from. Expect it to be weakest there, and their figures "
            "to be mostly chance."
        )
    if unseen:
        said.append(
            f"Nothing says how well it finds {listed(unseen)}: the images it was judged on have none."
        )
    boxes, ap = small
    if not boxes:
        said.append(
            "It was judged on no object smaller than 32 x 32 pixels: how well it finds small ones is unknown."
        )
    elif not math.isnan(ap):
        said.append(f"Objects smaller than 32 x 32 pixels ({boxes:,} of those judged) go at AP {ap:.3f}.")
    if score is not None:
        said.append(
            f"The score threshold of {score:.2f} balances misses and false alarms on {images}. A lower "
            "one finds more and is wrong more often; choose it by what a mistake costs you."
        )
    if not tested and epochs_judged > 1:
        said.append(
            f"The figures are of the validation images, which chose the best of {epochs_judged} epochs: other images "
            "would say a little less."
        )
    if looks > 1:
        said.append(
            f"The test images were looked at {looks} times: what was chosen by an earlier look, they flatter."
        )
    said.append(
        "The 95% intervals say how far a figure moves with other pictures of the same kind. They say nothing about "
        "pictures of another kind, nor about labels that are wrong."
        if tested
        else "There are no intervals without test images: with few pictures, figures move a lot."
    )
    return said
