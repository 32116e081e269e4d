"""The sparse matching against a plain one, pair by pair."""

import dataclasses

import numpy as np
import pytest

from odkit.analysis import matching
from odkit.data.boxes import box_iou
from odkit.data.dataset import Dataset
from odkit.data.predictions import Predictions


def random_case(seed, images=3, classes=2):
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner = rng.uniform(0, 60, (count, 2))
        return np.hstack([corner, corner + rng.uniform(10, 50, (count, 2))]).astype(np.float32)

    names = tuple("abc"[:classes])
    dataset = Dataset(
        class_names=names,
        image_paths=[f"/x/{i}" for i in range(images)],
        image_sizes=[(110, 110)] * images,
        boxes=boxes(40),
        box_classes=rng.integers(0, classes, 40),
        box_images=rng.integers(0, images, 40),
    )
    found = Predictions(
        boxes=boxes(400),
        scores=rng.random(400),
        classes=rng.integers(0, classes, 400),
        images=rng.integers(0, images, 400),
        class_names=names,
    )
    return dataset, found


def plain_matching(dataset, found, threshold):
    iou = box_iou(found.boxes, dataset.boxes)
    fits = (found.images[:, None] == dataset.box_images) & (found.classes[:, None] == dataset.box_classes)
    iou[~fits] = 0
    result = np.full(len(found), -1)
    for row in np.argsort(-found.scores, kind="stable"):
        box = int(iou[row].argmax())
        if iou[row, box] >= threshold:
            result[row] = box
            iou[:, box] = 0
    return result


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_matching_equals_the_plain_one(threshold):
    seen = 0
    for seed in range(10):
        dataset, found = random_case(seed)
        hits = matching.match(dataset, found, threshold)
        expected = plain_matching(dataset, found, threshold)
        np.testing.assert_array_equal(hits.boxes, expected)
        np.testing.assert_array_equal(hits.kinds == "true_positive", expected >= 0)
        matched = np.flatnonzero(expected >= 0)
        np.testing.assert_array_equal(hits.predictions[expected[matched]], matched)
        pairs = box_iou(found.boxes, dataset.boxes)[matched, expected[matched]]
        np.testing.assert_allclose(hits.ious[matched], pairs)
        seen += len(matched)
    assert seen > 30


def test_overlaps_lists_every_pair_of_one_image():
    dataset, found = random_case(3)
    pairs = matching.overlaps(dataset, found)
    everything = box_iou(found.boxes, dataset.boxes) * (found.images[:, None] == dataset.box_images)
    np.testing.assert_array_equal(np.stack([pairs.found, pairs.boxes], 1), np.argwhere(everything > 0))
    np.testing.assert_allclose(pairs.ious, everything[pairs.found, pairs.boxes])


def test_a_long_chain_of_boxes_each_wanted_by_the_next_is_matched_in_its_order():
    """Each prediction overlaps its own box and, more, the one that the surer prediction before it takes."""
    left = np.arange(200) * 10.0
    truth = np.stack([left, 0 * left, left + 30, 0 * left + 30], 1)
    dataset = Dataset(
        class_names=("a",), image_paths=["/x/0"], image_sizes=[(3000, 30)], boxes=truth,
        box_classes=np.zeros(200, int), box_images=np.zeros(200, int),
    )  # fmt: skip
    found = Predictions(
        boxes=truth - [6, 0, 6, 0], scores=np.linspace(0.9, 0.1, 200), classes=np.zeros(200, int),
        images=np.zeros(200, int), class_names=("a",),
    )  # fmt: skip
    for scores in (found.scores, found.scores[::-1]):
        again = dataclasses.replace(found, scores=scores)
        hits = matching.match(dataset, again, 0.3, max_detections=1000)
        np.testing.assert_array_equal(hits.boxes, plain_matching(dataset, again, 0.3))


def test_the_limit_keeps_the_best_of_each_image_and_class():
    dataset, found = random_case(4)
    keep = matching.within_limit(found, 2)
    for image in range(len(dataset)):
        for label in range(2):
            rows = np.flatnonzero((found.images == image) & (found.classes == label))
            best = rows[np.argsort(-found.scores[rows])][:2]
            assert set(rows[keep[rows]]) == set(best)


@pytest.mark.parametrize("digits", [1, 9])
def test_orders_are_those_of_a_stable_sort(digits):
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 30, 3000).round(digits).astype(np.float32)
    scores[:6] = 0.0, -0.0, 1e-42, -1e-42, 3e38, -3e38
    np.testing.assert_array_equal(matching.order_of_scores(scores), np.argsort(-scores, kind="stable"))
    for most in (20, 100_000):
        classes = rng.integers(0, most, 3000, np.int32)
        expected = np.argsort(classes, kind="stable")
        np.testing.assert_array_equal(matching.order_of_classes(classes), expected)
    for order in (matching.order_of_scores(scores[:0]), matching.order_of_classes(classes[:0])):
        assert order.shape == (0,)
