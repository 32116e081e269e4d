"""Pictures with boxes, and curves, as SVG inside the page: in both themes, at any width, on paper."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from unicodedata import east_asian_width

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from odkit.analysis import Evaluation
from odkit.analysis.figures import ink_on
from odkit.data import Dataset, ImageReadError, open_upright, upright_size
from odkit.runs.dashboard import Series, chart
from odkit.runs.report.words import short

WIDE = 420  # pixels of a picture's longer side at most: sharp on a phone, and some 25 kB
_FONT, _LINE, _LETTERS = 15, 19, 28  # a label's font size and height in a picture's pixels, and most letters
_DASHES = {"solid": "", "dashed": ' stroke-dasharray="7 4"', "dotted": ' stroke-dasharray="2 4"'}
WHITE = "#ffffff"


@dataclass(frozen=True)
class Mark:
    """A box (xyxy, pixels of the full image) to be drawn, and what is written at it; "": nothing."""

    box: Sequence[float]
    color: str
    label: str = ""
    style: str = "solid"  # "dashed", "dotted"


@dataclass(frozen=True)
class Picture:
    """A picture with boxes as SVG, and why its pixels are not there ("": they are)."""

    svg: Markup
    fault: str


def picture(
    dataset: Dataset,
    image: int,
    marks: Sequence[Mark],
    title: str,
    *,
    around: Sequence[float] | None = None,
) -> Picture:
    """An image with boxes drawn over it.

    Args:
        dataset: Where the image is from.
        image: Its index.
        marks: What is drawn.
        title: What is to be seen, for who cannot see it.
        around: Only what lies around this box (xyxy pixels) is shown; None: the whole image.
    """
    path = dataset.image_paths[image]
    full = tuple(int(side) for side in dataset.image_sizes[image])
    if not all(full):
        full = upright_size(path)
    width, height = full if all(full) else (4 * WIDE, 3 * WIDE)
    x1, y1, x2, y2 = (
        (0.0, 0.0, float(width), float(height)) if around is None else _near(around, width, height)
    )
    scale = WIDE / max(x2 - x1, y2 - y1)
    size = (max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale)))
    data, fault = _pixels(path, (width, height), (x1, y1, x2, y2), size)
    parts = (
        [f'<image href="{data}" width="{size[0]}" height="{size[1]}" preserveAspectRatio="none"/>']
        if data
        else [_nothing(size, fault)]
    )
    placed = [
        (mark, [(mark.box[k] - (x1, y1)[k % 2]) * scale for k in range(4)])
        for mark in marks
        if all(map(math.isfinite, mark.box))
    ]
    for mark, (left, top, right, bottom) in placed:
        box = f'x="{left:.1f}" y="{top:.1f}" width="{max(0.0, right - left):.1f}" height="{max(0.0, bottom - top):.1f}"'
        # a dark line under the coloured one keeps it visible on any photograph
        parts.append(f'<rect {box} fill="none" stroke="#000" stroke-opacity=".45" stroke-width="4"/>')
        parts.append(
            f'<rect {box} fill="none" stroke="{mark.color}" stroke-width="2.2"{_DASHES[mark.style]}/>'
        )
    parts += _labels(placed, size)
    head = f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" class="photo"><title>{escape(title)}</title>'
    return Picture(Markup(head + "".join(parts) + "</svg>"), fault)


def _near(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float]:
    """A region of four to three around a box, within the image where that is large enough."""
    wide = max((box[2] - box[0]) * 2.2, (box[3] - box[1]) * 2.2 * 4 / 3, width / 8, 48.0)
    wide = min(wide, width, height * 4 / 3)
    high = wide * 3 / 4
    x = min(max((box[0] + box[2] - wide) / 2, 0.0), width - wide)
    y = min(max((box[1] + box[3] - high) / 2, 0.0), height - high)
    return x, y, x + wide, y + high


def _pixels(
    path: str, full: tuple[int, int], region: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[str, str]:
    """A region of an image as a data address, and why there is none."""
    least = [round(2 * size[k] * full[k] / max(region[k + 2] - region[k], 1)) for k in range(2)]
    try:
        image = open_upright(path, draft=("RGB", (least[0], least[1]))).convert("RGB")
    except ImageReadError as error:
        return "", "file not found" if isinstance(error.reason, FileNotFoundError) else "cannot be read"
    across, down = image.width / full[0], image.height / full[1]
    box = (region[0] * across, region[1] * down, region[2] * across, region[3] * down)
    box = (max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height))
    buffer = io.BytesIO()
    stored = (min(size[0], max(1, round(box[2] - box[0]))), min(size[1], max(1, round(box[3] - box[1]))))
    image.resize(stored, Image.Resampling.BICUBIC, box=box).save(buffer, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", ""


def _nothing(size: tuple[int, int], fault: str) -> str:
    middle = f'x="{size[0] / 2:.0f}" y="{size[1] / 2:.0f}" text-anchor="middle"'
    return (
        f'<rect width="{size[0]}" height="{size[1]}" fill="#8b95a1" fill-opacity=".35"/>'
        f'<text {middle} font-size="15" fill="currentColor">{escape(fault)}</text>'
    )


def _wide(text: str) -> float:
    """About how wide a text is in a picture's pixels; letters of East Asia and emoji are as wide as high."""
    return sum(_FONT * (1.05 if east_asian_width(letter) in "WF" else 0.56) for letter in text)


def _labels(placed: Sequence[tuple[Mark, Sequence[float]]], size: tuple[int, int]) -> list[str]:
    """Labels where there is room: above the box, in its top, below it; large boxes choose first."""
    taken: list[tuple[float, float, float, float]] = []
    parts = []
    for mark, (x1, y1, _x2, y2) in sorted(placed, key=lambda p: -(p[1][2] - p[1][0]) * (p[1][3] - p[1][1])):
        if not mark.label:
            continue
        text = short(mark.label, _LETTERS)
        wide = _wide(text) + 8
        left = min(max(x1 - 1, 0.0), max(size[0] - wide, 0.0))
        for top in (y1 - _LINE - 1, y1 + 1, y2 + 1, y2 - _LINE - 1):
            spot = (left, top, left + wide, top + _LINE)
            crossed = any(
                spot[0] < o[2] and o[0] < spot[2] and spot[1] < o[3] and o[1] < spot[3] for o in taken
            )
            if top >= 0 and spot[3] <= size[1] and not crossed:
                taken.append(spot)
                parts.append(
                    f'<rect x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{_LINE}" rx="2" '
                    f'fill="{mark.color}"/><text x="{left + 4:.1f}" y="{top + 14:.1f}" font-size="{_FONT}" '
                    f'fill="{ink_on(mark.color)}">{escape(text)}</text>'
                )
                break
    return parts


# -- curves ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curves:
    """A chart with its heading, the names and colours of its lines, and how to read it."""

    title: str
    svg: Markup
    legend: list[tuple[str, str]]
    note: str


def curves(
    title: str,
    note: str,
    axis: str,
    until: float,
    lines: Sequence[tuple[str, str, NDArray[np.float64], NDArray[np.float64]]],
    *,
    top: float | None = None,
) -> Curves:
    """A chart of lines, each its name, colour, x and y; a name "" stands in no legend."""
    series = [
        Series(
            "",
            color,
            x,
            y,
            width=2.4 if name else 1.2,
            opacity=1 if name else 0.55,
            dots=bool(name) and len(x) <= 40,
        )
        for name, color, x, y in lines
    ]
    svg = chart("", series, until, top=top, axis=axis, size=(430, 240))
    spoken = "; ".join([title, *(_in_words(name, y) for name, _, _, y in lines if name)])
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(spoken)}" ', 1)
    return Curves(title, Markup(svg), [(name, color) for name, color, _, _ in lines if name], note)


def _in_words(name: str, y: NDArray[np.float64]) -> str:
    """A line for who cannot see it: where it begins and ends."""
    known = y[np.isfinite(y)]
    return f"{name}: from {known[0]:.2f} to {known[-1]:.2f}" if len(known) else f"{name}: nothing"


def by_score(evaluation: Evaluation) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Score thresholds, and the shares of all predictions that are right there and of all boxes that are found."""
    curve, at = evaluation.curve, np.linspace(0.02, 0.98, 97)
    if not len(curve.scores):  # every prediction lies in a crowd
        return at, np.full(len(at), np.nan), np.zeros(len(at))
    row = np.searchsorted(-curve.scores, -at, side="right") - 1  # the last one with at least that score
    there = row >= 0
    return at, np.where(there, curve.precision[row], np.nan), np.where(there, curve.recall[row], 0.0)
