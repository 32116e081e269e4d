"""Boxes drawn into a picture itself, pixel for pixel: what `odkit predict --out` writes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from odkit.analysis.figures.colors import class_color, ink_on


def draw_boxes(
    image: Image.Image, boxes: ArrayLike, classes: Sequence[int], names: Sequence[str]
) -> Image.Image:
    """A copy of an image (RGB) with boxes drawn in, in the colours of their classes.

    Args:
        image: Upright.
        boxes: xyxy in pixels [n, 4].
        classes: The class index of each box [n], 0-based: its colour.
        names: What stands at each box [n], as "bolt 0.87".
    """
    picture = image.convert("RGB").copy()
    pen, thick = ImageDraw.Draw(picture), max(2, round(max(picture.size) / 400))
    font: Any = ImageFont.load_default(size=max(11, 5 * thick))
    corners: NDArray[Any] = np.asarray(boxes, float).reshape(-1, 4)
    for (x1, y1, x2, y2), label, name in zip(corners.tolist(), classes, names, strict=True):
        color = class_color(label)
        pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=color, width=thick)
        left, _, right, bottom = pen.textbbox((0, 0), name, font=font)
        y = y1 - bottom - 2 if y1 > bottom + 2 else y1
        pen.rectangle((x1, y, x1 + right - left + 4, y + bottom + 2), fill=color)
        pen.text((x1 + 2 - left, y), name, fill=ink_on(color), font=font)
    return picture
