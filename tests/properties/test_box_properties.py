"""Boxes: what holds for any of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from odkit.data import boxes as b

sides = st.integers(1, 20_000)
sizes = st.tuples(sides, sides)


@st.composite
def boxes_in(draw: st.DrawFn, size: tuple[int, int], most: int = 6) -> np.ndarray:
    """Boxes of an image, at least a pixel wide and high, their corners at eighths of pixels."""
    count = draw(st.integers(0, most))
    found = []
    for _ in range(count):
        corners = []
        for side in size:
            low = draw(st.integers(0, 8 * (side - 1)))
            corners.append((low / 8, draw(st.integers(low + 8, 8 * side)) / 8))
        found.append([corners[0][0], corners[1][0], corners[0][1], corners[1][1]])
    return np.array(found, np.float32).reshape(-1, 4)


@st.composite
def images(draw: st.DrawFn) -> tuple[tuple[int, int], np.ndarray]:
    size = draw(sizes)
    return size, draw(boxes_in(size))


@given(images())
def test_every_convention_comes_back(image: tuple[tuple[int, int], np.ndarray]) -> None:
    size, boxes = image
    for there, back in (
        (b.xyxy_to_xywh(boxes), b.xywh_to_xyxy),
        (b.xyxy_to_cxcywh(boxes), b.cxcywh_to_xyxy),
        (b.xyxy_to_voc(boxes), b.voc_to_xyxy),
    ):
        np.testing.assert_array_equal(back(there), boxes)
    for there, relative_back in (
        (b.xyxy_to_yolo(boxes, size), b.yolo_to_xyxy),
        (b.xyxy_to_relative_xywh(boxes, size), b.relative_xywh_to_xyxy),
    ):
        assert (there >= 0).all()
        assert (there <= 1).all()
        np.testing.assert_allclose(relative_back(there, size), boxes, rtol=0, atol=1e-3)


@given(images(), st.integers(1, 8))
def test_turning_upright_keeps_area_and_image_and_is_undone(
    image: tuple[tuple[int, int], np.ndarray], orientation: int
) -> None:
    size, boxes = image
    upright = size[::-1] if orientation >= 5 else size
    turned = b.upright_boxes(boxes, size, orientation)
    np.testing.assert_allclose(b.box_area(turned), b.box_area(boxes), rtol=1e-6)
    np.testing.assert_array_equal(b.clip_boxes(turned, upright), turned)
    undone = {6: 8, 8: 6}.get(orientation, orientation)
    np.testing.assert_array_equal(b.upright_boxes(turned, upright, undone), boxes)


numbers = st.floats(-1e5, 1e5, width=32)


@given(arrays(np.float32, st.tuples(st.integers(0, 8), st.just(4)), elements=numbers), sizes)
def test_clipping_is_within_the_image_and_settled_after_once(
    boxes: np.ndarray, size: tuple[int, int]
) -> None:
    clipped = b.clip_boxes(boxes, size)
    assert (clipped >= 0).all()
    assert (clipped <= np.tile(size, 2)).all()
    np.testing.assert_array_equal(b.clip_boxes(clipped, size), clipped)
    assert (b.box_area(clipped) <= b.box_area(boxes)).all()


some = arrays(np.float32, st.tuples(st.integers(0, 8), st.just(4)), elements=numbers)


@given(some, some)
def test_overlap_is_a_share_and_the_same_from_both_sides(first: np.ndarray, second: np.ndarray) -> None:
    overlap = b.box_iou(first, second)
    assert overlap.shape == (len(first), len(second))
    assert ((overlap >= 0) & (overlap <= 1)).all()
    np.testing.assert_allclose(overlap, b.box_iou(second, first).T, rtol=0, atol=1e-12)
    share = b.box_overlap_share(first, second)
    assert (share >= overlap - 1e-9).all()  # of a part, not of both
    own = b.box_iou(first, first).diagonal()
    np.testing.assert_allclose(own[b.box_area(first) > 0], 1)


@pytest.mark.parametrize("name", ["xywh_to_xyxy", "xyxy_to_voc", "box_area"])
@given(arrays(np.float32, st.tuples(st.integers(0, 3), st.integers(0, 6)), elements=numbers))
def test_what_has_no_four_columns_is_refused(name: str, values: np.ndarray) -> None:
    if values.size and values.shape[1] != 4:
        with pytest.raises(ValueError, match=r"must have the shape \[N, 4\]"):
            getattr(b, name)(values)
    else:
        assert len(getattr(b, name)(values)) == (len(values) if values.size else 0)
