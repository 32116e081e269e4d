"""Colours that stay readable and images that open upright, small, or not at all."""

import numpy as np
import pytest
from PIL import Image

from odkit.analysis.figures.colors import CLASS_COLORS, class_color, ink_on
from odkit.analysis.figures.grid import Sheet, open_picture, shorten
from odkit.data.dataset import Dataset


def one_image(path, size=(0, 0)):
    return Dataset(
        class_names=("a",),
        image_paths=[str(path)],
        image_sizes=[size],
        boxes=[],
        box_classes=[],
        box_images=[],
    )


def test_class_colours_are_fixed_and_differ():
    assert [class_color(k) for k in range(8)] == list(CLASS_COLORS)
    assert len({class_color(k) for k in range(24)}) == 24
    assert class_color(-1) == "#ffffff"


def test_ink_is_readable_on_every_class_colour():
    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for k in range(24):
        low, high = sorted((luminance(class_color(k)), luminance(ink_on(class_color(k)))))
        assert (high + 0.05) / (low + 0.05) > 3.9


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_images_open_upright_and_small(tmp_path, orientation):
    upright = Image.new("RGB", (80, 40), "white")
    upright.paste("red", (0, 0, 20, 10))  # the upright image has a red corner at the top left
    turn = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright if turn[orientation] is None else upright.transpose(turn[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    picture = open_picture(one_image(tmp_path / "a.png"), 0, 40)
    assert (picture.width, picture.height) == (80, 40)
    assert picture.pixels.shape == (20, 40, 3)
    assert picture.pixels[1, 2].tolist() == [255, 0, 0]
    assert picture.pixels[-2, -4].tolist() == [255, 255, 255]


def test_a_large_jpeg_keeps_its_full_size_as_coordinates(tmp_path):
    Image.fromarray(np.zeros((1200, 1600, 3), np.uint8)).save(tmp_path / "big.jpg")
    picture = open_picture(one_image(tmp_path / "big.jpg"), 0, 100)
    assert (picture.width, picture.height) == (1600, 1200)
    assert picture.pixels.shape == (75, 100, 3)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n broken"])
def test_a_broken_file_becomes_a_reason(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    picture = open_picture(one_image(tmp_path / "a.png", (30, 20)), 0, 40)
    assert picture.pixels is None
    assert (picture.width, picture.height, picture.fault) == (
        30,
        20,
        "cannot be read",
    )


def test_a_missing_file_becomes_a_reason():
    picture = open_picture(one_image("/nowhere/a.png"), 0, 40)
    assert picture.pixels is None
    assert (picture.width, picture.height, picture.fault) == (
        4,
        3,
        "file not found",
    )


def test_labels_never_cover_each_other(tmp_path):
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    sheet = Sheet(one_image(tmp_path / "a.png"), [0], 4)
    for shift in range(12):
        sheet.panels[0].box(np.array([10 + shift, 10 + shift, 60, 60]), "#e69f00", f"label {shift}")
    figure = sheet.finish([])
    figure.canvas.draw()
    written = [t for t in figure.axes[0].texts if t.get_text().startswith("label")]
    spots = [t.get_window_extent() for t in written]
    assert 2 <= len(spots) < 12
    assert not any(a.overlaps(b) for i, a in enumerate(spots) for b in spots[:i])


def test_shorten():
    assert shorten("short", 5) == "short"
    assert shorten("longer", 5) == "long…"
