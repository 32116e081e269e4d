"""Colours of classes and of kinds of mistakes, known without matplotlib.

They are safe for colour-blind eyes (M. Okabe and K. Ito, "Color Universal Design", 2008) and follow the class index, so
that a class looks the same in every picture.
"""

KIND_COLORS = {
    "correct": "#7d8894",
    "Cls": "#cc79a7",
    "Loc": "#56b4e9",
    "Both": "#8c6bb1",
    "Dupe": "#f0e442",
    "Bkg": "#e69f00",
    "Miss": "#d55e00",
}
CLASS_COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#8c6bb1")


def class_color(index: int) -> str:
    """The colour of a class by its 0-based index, as "#rrggbb": eight colours, then darker and lighter rounds.

    White for the unknown class, -1.
    """
    if index < 0:
        return "#ffffff"
    base = _channels(CLASS_COLORS[index % len(CLASS_COLORS)])
    shade = index // len(CLASS_COLORS) % 3
    shaded = [(c, c * 0.6, 1 - (1 - c) * 0.5)[shade] for c in base]
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in shaded)


def ink_on(color: str) -> str:
    """Black or white, whichever is easier to read on a colour "#rrggbb" (WCAG 2.1, relative luminance)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(color))
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.22 else "#ffffff"


def _channels(color: str) -> list[float]:
    """Red, green and blue of "#rrggbb", 0 to 1."""
    return [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
