"""Box functions: every convention there and back, and what they do with odd boxes."""

from collections.abc import Callable

import numpy as np
import pytest

from odkit.data.boxes import (
    as_boxes,
    box_area,
    box_iou,
    box_overlap_share,
    clip_boxes,
    cxcywh_to_xyxy,
    relative_to_xyxy,
    relative_xywh_to_xyxy,
    upright_boxes,
    voc_to_xyxy,
    xywh_to_xyxy,
    xyxy_to_cxcywh,
    xyxy_to_relative_xywh,
    xyxy_to_voc,
    xyxy_to_xywh,
    xyxy_to_yolo,
    yolo_to_xyxy,
)


def some_boxes(count: int = 1000, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes in images of many sizes: fractional corners, some over the border, inverted or without area."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 8000, (count, 2))
    corners = rng.uniform(-0.2, 1.2, (count, 4)) * np.tile(sizes, 2)
    corners[::3] = np.round(corners[::3])
    corners[::50, 2] = corners[::50, 0]
    return corners.astype(np.float32), sizes


# -- the conventions, by hand ------------------------------------------------------------------------------------------

BY_HAND = [
    (xywh_to_xyxy, [10, 20, 30, 40], (), [10, 20, 40, 60]),
    (xyxy_to_xywh, [10, 20, 40, 60], (), [10, 20, 30, 40]),
    (cxcywh_to_xyxy, [25, 40, 30, 40], (), [10, 20, 40, 60]),
    (xyxy_to_cxcywh, [10, 20, 40, 60], (), [25, 40, 30, 40]),
    (yolo_to_xyxy, [0.5, 0.25, 1, 0.5], ([200, 80],), [0, 0, 200, 40]),
    (xyxy_to_yolo, [0, 0, 200, 40], ([200, 80],), [0.5, 0.25, 1, 0.5]),
    (voc_to_xyxy, [1, 1, 640, 480], (), [0, 0, 640, 480]),  # the whole image
    (voc_to_xyxy, [7, 9, 7, 9], (), [6, 8, 7, 9]),  # one pixel
    (xyxy_to_voc, [0, 0, 640, 480], (), [1, 1, 640, 480]),
    (relative_to_xyxy, [0.25, 0.5, 0.75, 1], ([80, 40],), [20, 20, 60, 40]),
    (relative_xywh_to_xyxy, [0.25, 0.5, 0.5, 0.25], ([80, 40],), [20, 20, 60, 30]),
    (xyxy_to_relative_xywh, [20, 20, 60, 30], ([80, 40],), [0.25, 0.5, 0.5, 0.25]),
    (clip_boxes, [-5, 3, 120, 90], ([100, 50],), [0, 3, 100, 50]),
    (clip_boxes, [110, 60, 120, 90], ([100, 50],), [100, 50, 100, 50]),  # outside: no area is left
]


@pytest.mark.parametrize(("function", "given", "more", "expected"), BY_HAND)
def test_by_hand(function: Callable, given: list, more: tuple, expected: list) -> None:
    assert function([given], *more).tolist() == [expected]


THERE_AND_BACK = [
    (xyxy_to_xywh, xywh_to_xyxy, False),
    (xyxy_to_cxcywh, cxcywh_to_xyxy, False),
    (xyxy_to_voc, voc_to_xyxy, False),
    (xyxy_to_yolo, yolo_to_xyxy, True),
    (xyxy_to_relative_xywh, relative_xywh_to_xyxy, True),
]


@pytest.mark.parametrize(
    ("there", "back", "relative"), THERE_AND_BACK, ids=lambda value: getattr(value, "__name__", "")
)
def test_there_and_back(there: Callable, back: Callable, relative: bool) -> None:
    boxes, sizes = some_boxes()
    more = (sizes,) if relative else ()
    away = there(boxes, *more)
    assert away.dtype == np.float64
    again = back(away, *more)
    assert again.dtype == np.float32
    np.testing.assert_allclose(again, boxes, rtol=0, atol=1e-3)
    if not relative:
        np.testing.assert_array_equal(again, boxes)


@pytest.mark.parametrize(
    "function", [row[0] for row in BY_HAND] + [as_boxes, box_area], ids=lambda f: f.__name__
)
def test_no_boxes_and_wrong_shapes(function: Callable) -> None:
    more = () if function in (as_boxes, box_area) else next(row[2] for row in BY_HAND if row[0] is function)
    assert function([], *more).shape == ((0,) if function is box_area else (0, 4))
    for wrong in ([1, 2, 3, 4], [[1, 2, 3]], [[[1, 2, 3, 4]]]):
        with pytest.raises(ValueError, match=r"shape \[N, 4\]"):
            function(wrong, *more)


@pytest.mark.parametrize("function", [yolo_to_xyxy, xyxy_to_yolo, xyxy_to_relative_xywh, clip_boxes])
def test_sizes_for_all_boxes_or_one_a_box(function: Callable) -> None:
    boxes = [[1, 2, 3, 4], [5, 6, 7, 8]]
    np.testing.assert_array_equal(function(boxes, [50, 20]), function(boxes, [[50, 20], [50, 20]]))
    with pytest.raises(ValueError, match="width, height"):
        function(boxes, [50])


def test_what_is_given_is_not_changed() -> None:
    boxes, sizes = some_boxes(10)
    was = boxes.copy()
    for function in (xyxy_to_xywh, xyxy_to_voc, xyxy_to_cxcywh):
        function(boxes)
    clip_boxes(boxes, sizes)
    upright_boxes(boxes, sizes, 6)
    np.testing.assert_array_equal(boxes, was)


# -- area and overlap --------------------------------------------------------------------------------------------------


def test_area() -> None:
    boxes = [[0, 0, 10, 5], [3, 3, 3, 9], [9, 9, 1, 1], [9, 0, 1, 5], [0, 0, 0.5, 0.5]]
    assert box_area(boxes).tolist() == [50, 0, 0, 0, 0.25]


def test_iou_and_overlap_share_by_hand() -> None:
    first = [[0, 0, 10, 10], [20, 20, 20, 30]]
    second = [[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [0, 0, 5, 5]]
    np.testing.assert_allclose(box_iou(first, second), [[1, 1 / 3, 0, 0.25], [0, 0, 0, 0]])
    np.testing.assert_allclose(box_overlap_share(first, second), [[1, 0.5, 0, 0.25], [0, 0, 0, 0]])
    assert box_iou([], second).shape == (0, 4)
    assert box_overlap_share(first, []).shape == (2, 0)


def test_iou_is_that_of_pycocotools() -> None:
    from pycocotools import mask

    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 400, (150, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    first, second = boxes[:90], boxes[90:]
    rows = xyxy_to_xywh(first), xyxy_to_xywh(second)
    plain, crowd = [0] * len(second), [1] * len(second)
    np.testing.assert_allclose(box_iou(first, second), mask.iou(*rows, plain), atol=1e-9)
    np.testing.assert_allclose(box_overlap_share(first, second), mask.iou(*rows, crowd), atol=1e-9)


# -- EXIF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_boxes_follow_the_pixels(orientation: int) -> None:
    """Pillow turns the image; where the marked pixels come to lie is where the box must be."""
    from PIL import Image, ImageOps

    pixels = np.zeros((30, 50), np.uint8)
    pixels[4:11, 20:47] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(pixels)
    stored.info["exif"] = exif.tobytes()
    upright = np.asarray(ImageOps.exif_transpose(stored))
    rows, columns = np.flatnonzero(upright.any(1)), np.flatnonzero(upright.any(0))
    expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert upright_boxes([[20, 4, 47, 11]], [50, 30], orientation).tolist() == [expected]


@pytest.mark.parametrize("orientation", [0, 9, -1])
def test_no_such_orientation(orientation: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 8, not {orientation}"):
        upright_boxes([[0, 0, 1, 1]], [10, 10], orientation)
