"""Box sides and the input size that they ask for."""

import math

import numpy as np
import pytest

from odkit.data import Dataset, fitting_image_size, long_sides, small_side


def photographs(
    sides: dict[str, list[float]],
    size: tuple[int, int] = (1000, 500),
    *,
    tall: float = 1.0,
    crowd: bool = False,
) -> Dataset:
    """One image with boxes of these sides by class, `tall` times as high as wide, the area as of squares."""
    rows = [(label, side) for label, some in enumerate(sides.values()) for side in some]
    stretch = math.sqrt(tall)
    return Dataset(
        class_names=tuple(sides),
        image_paths=["a.jpg"],
        image_sizes=[size],
        boxes=[[0, 0, side / stretch, side * stretch] for _, side in rows],
        box_classes=[label for label, _ in rows],
        box_images=[0] * len(rows),
        box_crowd=[crowd] * len(rows),
    )


@pytest.mark.parametrize(
    ("sides", "side", "whose"),
    [
        ({"cell": [20.0] * 30}, 20, "boxes"),
        ({"cell": [40.0] * 300, "platelet": [10.0] * 20}, 10, "boxes of 'platelet'"),  # under a tenth of all
        ({"cell": [40.0] * 300, "speck": [2.0] * 9}, 40, "boxes"),  # too few to speak of a tenth
        ({"cell": [40.0] * 5, "speck": [4.0] * 5}, 4, "boxes"),  # but all together are looked at
        ({"cell": [2.0] + [20.0] * 99}, 20, "boxes"),  # one slip of the hand decides nothing
    ],
)
def test_the_class_with_the_smallest_boxes_counts(
    sides: dict[str, list[float]], side: float, whose: str
) -> None:
    found, boxes = small_side(photographs(sides, tall=4))
    assert found == pytest.approx(side)
    assert boxes == whose
    assert small_side(photographs(sides), "image")[0] == pytest.approx(side / 1000)
    assert small_side(photographs(sides), "image", square=True)[0] == pytest.approx(side / math.sqrt(500_000))


def test_nothing_is_known_of_crowds_and_of_images_without_a_size() -> None:
    for nothing in (
        photographs({"a": []}),
        photographs({"a": [9.0] * 20}, crowd=True),
        photographs({"a": [9.0] * 20}, size=(0, 0)),
    ):
        assert math.isnan(small_side(nothing)[0])
        assert fitting_image_size(nothing, own=320, most=640, side=16)[0] == 320
    assert len(long_sides(photographs({"a": [9.0] * 20}, crowd=True))) == 0
    np.testing.assert_allclose(long_sides(photographs({"a": [9.0]}, tall=4)), [18], rtol=1e-6)


@pytest.mark.parametrize(
    ("side", "own", "most", "size", "said"),
    [
        (100, 320, 640, 320, "the detector's own: nine in ten boxes are 32 px or larger"),
        (50, 320, 640, 320, "the detector's own: nine in ten boxes are 16 px or larger"),
        (
            40,
            320,
            640,
            416,
            "nine in ten boxes are 17 px or larger, not 13 px as at",
        ),  # of 400, the next multiple
        (20, 320, 640, 640, "the largest that pays here, nine in ten boxes are 13 px"),
        (20, 320, 1280, 800, "nine in ten boxes are 16 px or larger, not 6 px"),
        (10, 320, 1280, 992, "as large as the pictures, nine in ten boxes are 10 px"),  # they are 1000 wide
        (10, 1024, 640, 1024, "the detector's own: nine in ten boxes are 10 px"),  # never under that
        (10, 300, 300, 300, "the detector's own"),
    ],
)
def test_the_input_size_fits_the_boxes(side: float, own: int, most: int, size: int, said: str) -> None:
    found, reason = fitting_image_size(photographs({"a": [side] * 30}), own=own, most=most, side=16)
    assert found == size
    assert reason.startswith(said)


def test_the_input_size_of_tiles_counts_from_the_tile() -> None:
    pictures = photographs({"a": [20.0] * 30})
    assert fitting_image_size(pictures, own=320, most=640, side=16, tile_size=500)[0] == 416
    assert (
        fitting_image_size(pictures, own=320, most=1280, side=32, tile_size=500)[0] == 480
    )  # no larger than it is
