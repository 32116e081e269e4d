"""Boxes drawn into a picture: where they are, in their class's colour, on a copy."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from odkit.analysis.figures.colors import class_color
from odkit.analysis.figures.drawing import draw_boxes


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_boxes_are_drawn_where_they_are(mode: str) -> None:
    image = Image.new(mode, (200, 160))
    drawn = draw_boxes(image, [[20, 60, 120, 140], [150, 0, 190, 50]], [0, 1], ["bolt 0.90", "nut 0.50"])
    assert (drawn.size, drawn.mode) == ((200, 160), "RGB")
    assert image.getbbox() is None  # the one that was given stays as it was
    pixels = np.array(drawn)
    for x, y, label in ((20, 100, 0), (120, 100, 0), (70, 140, 0), (150, 40, 1), (190, 25, 1)):
        assert tuple(pixels[y, x]) == ImageColor.getrgb(class_color(label))
    assert not pixels[100, 60].any()  # inside a box, nothing is
    assert pixels[45:59, 20:90].any()  # its name stands above it


def test_nothing_found_is_nothing_drawn() -> None:
    assert draw_boxes(Image.new("RGB", (40, 30)), [], [], []).getbbox() is None
