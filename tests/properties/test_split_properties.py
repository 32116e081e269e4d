"""Splits and folds: what holds for any labels, shares and seeds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from odkit.data import Dataset
from odkit.data.splits import deal

counts = st.integers(6, 40).flatmap(
    lambda images: st.integers(1, 5).flatmap(
        lambda classes: arrays(np.int64, (images, classes), elements=st.integers(0, 3))
    )
)
shares = st.sampled_from([(0.8, 0.2), (0.5, 0.5), (0.7, 0.2, 0.1), (0.25,) * 4, (0.9, 0.1)])
seeds = st.integers(0, 2**32)


def nowhere(images: int) -> list[str]:
    return [f"/nowhere/{number}.jpg" for number in range(images)]  # which resemble nothing


@given(counts, shares, seeds)
def test_every_image_is_dealt_once_in_proportion_and_the_same_again(
    boxes: np.ndarray, sides: tuple[float, ...], seed: int
) -> None:
    dealt = deal(nowhere(len(boxes)), boxes, sides, seed=seed, sides="splits").sides
    assert dealt.shape == (len(boxes),)
    each = np.bincount(dealt, minlength=len(sides))
    assert len(each) == len(sides)
    assert np.abs(each - np.array(sides) * len(boxes)).max() <= 1
    again = deal(nowhere(len(boxes)), boxes, sides, seed=seed, sides="splits").sides
    np.testing.assert_array_equal(again, dealt)


@given(counts, seeds)
def test_a_class_with_a_box_for_every_side_is_on_every_side(boxes: np.ndarray, seed: int) -> None:
    sides = (0.5, 0.5)
    dealt = deal(nowhere(len(boxes)), boxes, sides, seed=seed, sides="splits").sides
    rarest = int(np.argmin(np.where((boxes > 0).sum(0) >= 2, (boxes > 0).sum(0), 10**6)))
    if (boxes[:, rarest] > 0).sum() >= 2:
        assert {dealt[row] for row in np.flatnonzero(boxes[:, rarest])} == {0, 1}


@given(counts, st.integers(2, 5), seeds)
def test_every_image_is_in_one_fold_and_folds_are_as_large_as_each_other(
    boxes: np.ndarray, count: int, seed: int
) -> None:
    images, classes = np.nonzero(boxes)
    dataset = Dataset(
        name="made",
        root="/nowhere",
        class_names=[f"class {k}" for k in range(boxes.shape[1])],
        image_paths=nowhere(len(boxes)),
        image_sizes=[(64, 64)] * len(boxes),
        boxes=np.tile(np.float32([4, 4, 20, 20]), (len(images), 1)),
        box_classes=classes,
        box_images=images,
    )
    folds = dataset.folds(count, seed=seed)
    each = np.bincount(folds, minlength=count)
    assert folds.shape == (len(boxes),)
    assert len(each) == count
    assert each.max() - each.min() <= 2
    np.testing.assert_array_equal(dataset.folds(count, seed=seed), folds)
