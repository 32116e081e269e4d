"""Paired comparison: the interval holds what it should, and the right images are named."""

import json

import numpy as np
import pytest

from odkit.analysis.comparison import compare
from odkit.analysis.evaluation import evaluate
from tests.helpers import make_dataset, make_predictions, random_case

BOX = (100, 100, 200, 200)
DATASET = make_dataset([(k, k % 2, BOX) for k in range(60)], images=60)


def detector(found, score=0.9):
    """Finds the boxes of these images and invents one in each of the others."""
    return evaluate(
        DATASET,
        make_predictions(
            [(k, k % 2, score - k / 1000, BOX if k in found else (0, 0, 30, 30)) for k in range(60)]
        ),
    )


def test_the_same_twice_is_no_difference():
    one = detector(set(range(40)))
    same = compare(one, one)
    assert (same.difference, same.low, same.high, same.better) == (0, 0, 0, 0)
    assert "Too close to call on 60 images" in same.verdict
    assert len(same.got_worse()) == len(same.got_better()) == 0


def test_a_clear_gain_is_called_and_its_mirror_a_loss():
    few, many = detector(set(range(20))), detector(set(range(50)) - {3})
    gain, loss = compare(few, many), compare(many, few)
    assert gain.low > 0
    assert "The second is better" in gain.verdict
    assert gain.better == 1
    assert gain.difference == pytest.approx(many.ap50 - few.ap50)
    assert gain.low < gain.difference < gain.high
    assert "The second is worse" in loss.verdict
    assert (loss.low, loss.high) == pytest.approx((-gain.high, -gain.low))
    assert gain.got_worse().tolist() == [3]
    assert set(gain.got_better().tolist()) == set(range(20, 50))
    assert loss.got_worse(2).tolist() == gain.got_better(2).tolist()


def test_one_image_more_is_too_close_to_call():
    close = compare(detector(set(range(40))), detector(set(range(39)) | {45}))
    assert close.low <= 0 <= close.high


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(60):  # both find seven of ten: the true difference is nothing
        a, b = (detector(set(np.flatnonzero(rng.random(60) < 0.7).tolist())) for _ in range(2))
        result = compare(a, b, samples=200)
        inside += result.low <= 0 <= result.high
    assert 52 <= inside <= 60


def test_it_shows_itself_as_text_html_and_json():
    result = compare(*(evaluate(*random_case(1)) for _ in range(2)))
    assert "Too close" in repr(result)
    assert "fish" in repr(result)
    assert "—" in result._repr_html_()
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["per_class"][3]["low"] is None
    assert [row["size"] for row in plain["per_size"]] == ["small", "medium", "large"]


def test_seeds_repeat_and_other_data_is_refused():
    a, b = detector(set(range(30))), detector(set(range(35)))
    assert compare(a, b, seed=4).low == compare(a, b, seed=4).low
    other = make_dataset([(k, k % 2, (0, 0, 50, 50)) for k in range(60)], images=60)
    with pytest.raises(ValueError, match="different boxes"):
        compare(a, evaluate(other, a.predictions))
    with pytest.raises(ValueError, match="different images"):
        compare(a, evaluate(DATASET.select(range(30)), b.predictions))


def test_nothing_to_compare_on():
    empty = evaluate(make_dataset([], images=3), make_predictions([]))
    result = compare(empty, empty)
    assert result.verdict == "There is no ground truth to compare on."
    assert result.to_dict()["low"] is None
