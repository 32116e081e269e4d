"""Tables of results as text and as HTML."""

import math
from collections.abc import Sequence
from html import escape

Row = Sequence[str]


def as_figure(value: float) -> str:
    """A figure with three digits behind the point; a dash for nan."""
    return "—" if math.isnan(value) else f"{value:.3f}"


def as_text(rows: Sequence[Row], sides: str = "") -> list[str]:
    """Lines of text, a row each, the first of them the head.

    Args:
        rows: Cells.
        sides: "l" or "r" for each column; by default numbers, all but the first column, stand to the right.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    sides = sides or "l" + "r" * (len(widths) - 1)
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if side == "l" else cell.rjust(width)
            for cell, width, side in zip(row, widths, sides, strict=True)
        ).rstrip()
        for row in rows
    ]


def as_html(rows: Sequence[Row], caption: str, sides: str = "") -> str:
    """A table under a caption, everything escaped; the first row is the head, the last one, the total, is bold."""
    sides = sides or "l" + "r" * (len(rows[0]) - 1)

    def line(tag: str, row: Row) -> str:
        cells = (
            f'<{tag} style="text-align:{"left" if side == "l" else "right"}">{escape(cell)}</{tag}>'
            for cell, side in zip(row, sides, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    head, *body, total = rows
    lines = "".join(line("td", row) for row in body) + line("th", total)
    return (
        f"<table><caption>{escape(caption)}</caption><thead>{line('th', head)}</thead>"
        f"<tbody>{lines}</tbody></table>"
    )
