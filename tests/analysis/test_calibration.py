"""Calibration: errors against hotcoco's and worked out one by one, words and refusals."""

import dataclasses
import json
import math

import numpy as np
import pytest

from odkit.analysis.evaluation import evaluate
from tests.helpers import make_dataset, make_predictions, random_case


@pytest.mark.parametrize("options", [{}, {"crowd": 0.4}, {"ties": True}])
@pytest.mark.parametrize("bins", [1, 7, 10])
def test_errors_equal_hotcocos(options, bins):
    from hotcoco.metrics import calibration_error

    for seed in range(3):
        evaluation = evaluate(*random_case(seed, images=30, **options))
        for iou, least in ((0.5, 0.0), (0.75, 0.3)):
            found, hits = evaluation.calibration(bins=bins, iou=iou, least=least), evaluation.matches(iou)
            counted = (hits.kinds != "ignored") & (evaluation.predictions.scores >= least)
            for k, row in enumerate([*found.per_class, found.total]):
                rows = counted & ((evaluation.predictions.classes == k) | (row is found.total))
                scores = evaluation.predictions.scores[rows].astype(float)
                error, _ = calibration_error(scores, hits.boxes[rows] >= 0, bins)
                assert row["error"] == pytest.approx(error)
                assert row["predictions"] == rows.sum()
                assert row["precision"] == pytest.approx((hits.boxes[rows] >= 0).mean())


def test_the_error_with_places_by_its_definition():
    """LaECE: of each class and bin |mean score - precision * mean IoU of the right ones|, by share of predictions."""
    evaluation = evaluate(*random_case(3, images=30))
    found, hits, predictions = evaluation.calibration(least=0), evaluation.matches(), evaluation.predictions
    of_classes = []
    for k in range(4):
        mine = (predictions.classes == k) & (hits.kinds != "ignored")
        value = 0.0
        for b in range(10):
            low, high = b / 10, (b + 1) / 10
            rows = mine & (predictions.scores >= low) & (predictions.scores < high)
            right = rows & (hits.boxes >= 0)
            if rows.any():
                placed = right.sum() / rows.sum() * (hits.ious[right].mean() if right.any() else 0)
                value += rows.sum() / mine.sum() * abs(predictions.scores[rows].mean() - placed)
        of_classes.append(value)
    np.testing.assert_allclose([row["la_error"] for row in found.per_class], of_classes, rtol=1e-5)
    assert found.la_error == pytest.approx(np.mean(of_classes))


def judged(right, wrong):
    """Ten objects of one class; so many found with a score, so many invented with one."""
    truth = [(0, 0, (40 * k, 0, 40 * k + 30, 30)) for k in range(10)]
    rows = [(0, 0, score, truth[k][2]) for k, score in enumerate(right)]
    rows += [(0, 0, score, (40 * k, 300, 40 * k + 30, 330)) for k, score in enumerate(wrong)]
    return evaluate(make_dataset(truth, names=("a",)), make_predictions(rows, names=("a",)))


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        (
            [0.82] * 4,
            [0.82],
            "Scores can be read as chances: of the 5 predictions with a score around 0.82, 0.80 are",
        ),
        (
            [0.95],
            [0.95] * 3,
            "The detector is surer than it should be: of the 4 predictions with a score around 0.95",
        ),
        (
            [0.35] * 3,
            [],
            "The detector is less sure than it should be: of the 3 predictions with a score around 0.35",
        ),
        ([0.4] * 5, [0.6] * 5, "Scores are off in both directions"),
        ([0.2], [0.1], "Nothing was predicted with a score of 0.3 or more."),
    ],
)
def test_what_it_says(right, wrong, sentence):
    found = judged(right, wrong).calibration()
    assert found.sentence.startswith(sentence)
    assert found.sentence in repr(found)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["sentence"] == found.sentence


def test_its_curve_and_tables():
    found = judged([0.85, 0.85, 1.0], [0.82, 0.31]).calibration()
    rows = found.curve()
    assert [(row["low"], row["predictions"]) for row in rows] == [(0.3, 1), (0.8, 3), (0.9, 1)]
    assert rows[1]["precision"] == pytest.approx(2 / 3)
    assert rows[1]["score"] == pytest.approx(0.84)
    assert found.curve("a") == rows
    assert found.error == pytest.approx((0.31 + 3 * (0.84 - 2 / 3) + 0) / 5)
    assert found.error == found.la_error  # every right one lies exactly on its box
    assert "Calibration on made, predictions from score 0.3 on, right from IoU 0.5" in repr(found)
    assert found._repr_html_().startswith("<table>")
    assert math.isnan(judged([], []).calibration().error)


def test_refusals():
    evaluation = judged([0.9], [])
    with pytest.raises(ValueError, match="bins must be 1 or more"):
        evaluation.calibration(bins=0)
    with pytest.raises(ValueError, match="is 0 to 1, not 30"):
        evaluation.calibration(least=30)
    with pytest.raises(KeyError, match="no class 'b'; there are a"):
        evaluation.calibration().curve("b")
    odd = dataclasses.replace(evaluation.predictions, scores=np.array([7.0]))
    assert evaluate(evaluation.dataset, odd).calibration().curve()[0]["score"] == 1  # as far as a chance goes
