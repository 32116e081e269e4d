"""The dashboard's charts and pictures as SVG.

Drawn by hand: a few lines of SVG cost a hundredth of a matplotlib figure, and training has the cores.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkit.data import Dataset

LOSS_COLOR, AP_COLOR, AP50_COLOR = "#d55e00", "#0072b2", "#56b4e9"
_INK = "var(--jp-ui-font-color1,#22272e)"
_FAINT = "var(--jp-ui-font-color2,#6b7480)"
_RULE = "var(--jp-border-color2,#e3e6ea)"


def quiet_svg(html: str) -> str:
    """HTML in the colour of what matters less."""
    return f'<span style="color:{_FAINT}">{html}</span>'


def bar_svg(label: str, share: float, note: str) -> str:
    """A bar filled by a share (0 to 1) between its label and a note."""
    share = min(1.0, max(0.0, share))
    return (
        '<div style="display:flex;align-items:center;gap:10px;line-height:1.5">'
        f'<span style="width:150px">{label}</span>'
        f'<span style="flex:0 1 420px;height:8px;border-radius:4px;background:{_RULE}">'
        f'<span style="display:block;height:8px;border-radius:4px;background:{AP_COLOR};'
        f'width:{share:.1%}"></span></span>'
        f"{quiet_svg(note)}</div>"
    )


@dataclass
class Series:
    """One line of a chart."""

    label: str
    color: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    opacity: float = 1.0
    width: float = 2.0
    dots: bool = False


def chart(
    title: str,
    series: Sequence[Series],
    until: float,
    *,
    top: float | None = None,
    axis: str = "epochs",
    size: tuple[int, int] = (470, 210),
) -> str:
    """A line chart as SVG.

    Args:
        title: Heading; "": none, and no room for one.
        series: The lines; values that are not finite are left out.
        until: Right end of the x axis.
        top: Upper end of the y axis; None: the largest value drawn.
        axis: What the x axis counts.
        size: Width and height.
    """
    (width, height), left, right, above, below = size, 44, 12, 30 if title else 10, 34
    values = np.concatenate([np.zeros(0), *(s.y[np.isfinite(s.y)] for s in series)])
    if not len(values):
        return _svg(
            width, height, _text(left, 18, title, bold=True) + _text(left, 100, "nothing yet", _FAINT)
        )
    # a first step can be ten times the rest: the axis then ends where nearly all of the values do
    high = top if top is not None else float(min(values.max(), np.quantile(values, 0.97) * 1.3)) or 1.0
    across, down = width - left - right, height - above - below

    def place_x(value: Any) -> Any:
        return left + across * value / until

    def place_y(value: Any) -> Any:
        return above + down * (1 - np.minimum(value, high) / high)

    parts = [_text(left, 18, title, bold=True)]
    for tick in ticks(high):
        y = float(place_y(tick))
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_RULE}"/>')
        parts.append(_text(left - 6, y + 4, f"{tick:g}", _FAINT, anchor="end"))
    foot = height - below + 16
    parts += [
        _text(float(place_x(tick)), foot, f"{tick:g}", _FAINT, anchor="middle") for tick in ticks(until)
    ]
    parts.append(_text(width - right, height - 4, axis, _FAINT, anchor="end"))
    label_x = width - right
    for s in reversed([s for s in series if s.label]):
        last = s.y[np.isfinite(s.y)]
        text = f"{s.label} {last[-1]:.3f}" if len(last) else s.label
        parts.append(_text(label_x, 18, text, s.color, anchor="end", bold=True))
        label_x -= 9 + 7 * len(text)
    for s in series:
        seen = np.isfinite(s.y)
        points = list(zip(place_x(s.x[seen]), place_y(s.y[seen]), strict=True))
        if len(points) < 2:  # no curve yet; the value stands above
            continue
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{s.color}" stroke-width="{s.width}" '
            f'stroke-opacity="{s.opacity}" stroke-linejoin="round"/>'
        )
        if s.dots and len(points) <= 40:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{s.color}"/>' for x, y in points]
    return _svg(width, height, "".join(parts))


def ticks(high: float, count: int = 4) -> list[float]:
    """Round numbers from 0 to `high`, about `count` steps apart."""
    rough = high / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    return [round(step * k, 10) for k in range(int(high / step * 1.001) + 1)]


def thinned(
    x: NDArray[np.float64], y: NDArray[np.float64], most: int = 300
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most `most` points: the means of neighbours, values that are not finite left out."""
    seen = np.isfinite(y)
    x, y = x[seen], y[seen]
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most + 1).astype(int)
    sizes = np.diff(edges)
    return np.add.reduceat(x, edges[:-1]) / sizes, np.add.reduceat(y, edges[:-1]) / sizes


def smoothed(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A running mean over a twentieth of the points to either side, narrower at the ends."""
    reach = max(1, len(y) // 20)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    reach_here = np.minimum(np.minimum(at, len(y) - 1 - at), reach)
    means: NDArray[np.float64] = (sums[at + reach_here + 1] - sums[at - reach_here]) / (2 * reach_here + 1)
    return means


def picture_with_boxes(dataset: Dataset, shown: dict[str, Any], class_names: Sequence[str]) -> str:
    """One held-out image with its predictions as SVG: dashed white lines are the ground truth.

    Args:
        dataset: The validation split.
        shown: Its part of a "preview" event: row, boxes (xyxy pixels), classes, scores.
        class_names: The class table.
    """
    row = int(shown["row"])
    data, (width, height), scale = _thumbnail(str(dataset.image_paths[row]))
    parts = [f'<image href="{data}" width="{width}" height="{height}"/>']
    for x1, y1, x2, y2 in dataset.boxes[dataset.boxes_of(row)] * scale:
        box = f'x="{x1:.1f}" y="{y1:.1f}" width="{max(0.0, x2 - x1):.1f}" height="{max(0.0, y2 - y1):.1f}"'
        parts.append(f'<rect {box} fill="none" stroke="#fff" stroke-width="1" stroke-dasharray="3 3"/>')
    from odkit.analysis.figures import class_color

    for box, label, score in zip(shown["boxes"], shown["classes"], shown["scores"], strict=True):
        x1, y1, x2, y2 = (value * scale for value in box)
        color, text = class_color(label), f"{class_names[label]} {score:.2f}"
        inside = y1 < 13
        parts.append(
            f'<rect x="{x1:.1f}" y="{y1:.1f}" width="{max(0.0, x2 - x1):.1f}" height="{max(0.0, y2 - y1):.1f}" '
            f'fill="none" stroke="{color}" stroke-width="2"/>'
            f'<text x="{x1 + 2:.1f}" y="{y1 + 11 if inside else y1 - 3:.1f}" font-size="11" fill="{color}" '
            f'stroke="#000" stroke-width="2.5" stroke-opacity="0.65" paint-order="stroke">{escape(text)}</text>'
        )
    name = escape(str(dataset.image_ids[row]))
    return f'<div title="{name}">{_svg(width, height, "".join(parts))}</div>'


@lru_cache(maxsize=32)
def _thumbnail(path: str, tall: int = 160) -> tuple[str, tuple[int, int], float]:
    """An image as a data address, its size in pixels, and by how much it was scaled."""
    from PIL import Image

    from odkit.data import ImageReadError, open_upright

    try:
        image = open_upright(path).convert("RGB")
    except ImageReadError:  # moved since: the dashboard must not end for it
        return "", (tall, tall), 1.0
    scale = min(1.0, tall / image.height, 1.4 * tall / image.width)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", size, scale


def _svg(width: int, height: int, inside: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'style="max-width:100%;font-family:var(--jp-ui-font-family,sans-serif)">{inside}</svg>'
    )


def _text(
    x: float, y: float, text: str, color: str = _INK, *, anchor: str = "start", bold: bool = False
) -> str:
    look = f'font-size="11" text-anchor="{anchor}" fill="{color}" font-weight="{600 if bold else 400}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'
