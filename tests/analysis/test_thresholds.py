"""Thresholds for what is wanted: against every threshold tried one by one."""

import json
import math

import numpy as np
import pytest

from odkit.analysis.evaluation import evaluate
from tests.helpers import make_dataset, make_predictions, random_case


def tried(evaluation, k):
    """(score, precision, recall, F1) at each score of a class's predictions (-1: of all), counted one by one."""
    kinds, found = evaluation.matches().kinds, evaluation.predictions
    mine = np.ones(len(found), bool) if k < 0 else found.classes == k
    boxes = evaluation.class_boxes.sum() if k < 0 else evaluation.class_boxes[k]
    for score in np.unique(found.scores[mine & (kinds != "ignored")]) if boxes else []:
        shown = mine & (found.scores >= score)
        true = int((kinds[shown] == "true_positive").sum())
        false = int((kinds[shown] == "false_positive").sum())
        yield float(score), true / (true + false), true / boxes, 2 * true / (true + false + boxes)


def best(rows, what, least):
    """The row with most of the other (or of F1), the surest of equal ones; None where none has enough."""
    enough = [row for row in rows if row[2] > 0 and (what is None or row[what] >= least - 1e-12)]
    order = {None: (3, 0), 1: (2, 1, 0), 2: (1, 2, 0)}[what]
    return max(enough, key=lambda row: tuple(row[k] for k in order), default=None)


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ({}, None),
        *(({"precision": p}, 1) for p in (0.3, 0.6, 1)),
        *(({"recall": r}, 2) for r in (0.2, 0.5, 0.9)),
    ],
)
@pytest.mark.parametrize("options", [{}, {"ties": True}, {"crowd": 0.4}])
def test_thresholds_are_the_best_of_all_tried(wanted, what, options):
    for seed in range(4):
        evaluation = evaluate(*random_case(seed, **options))
        found = evaluation.score_for(**wanted) if wanted else evaluation.thresholds
        for k, row in enumerate([*found.per_class, found.total]):
            rows = list(tried(evaluation, -1 if row is found.total else k))
            expected = best(rows, what, next(iter(wanted.values()), 0))
            figures = [row[key] for key in ("score", "precision", "recall", "f1")]
            if expected is None:
                assert np.isnan(figures).all()
                who = "All classes together" if row is found.total else repr(row["class"])
                assert any(note.startswith(f"{who}: no ") for note in found.notes) == bool(row["boxes"])
            elif what is None:  # equal F1 may differ in the last bit
                assert figures[3] == pytest.approx(expected[3])
                assert figures == pytest.approx(next(r for r in rows if r[0] == figures[0]))
            else:
                assert figures == pytest.approx(expected)


TRUTH = [(0, 0, (10, 10, 60, 60)), (0, 0, (100, 100, 200, 200)), (0, 1, (250, 250, 350, 350))]
FOUND = [
    (0, 0, 0.9, (10, 10, 60, 60)),
    (0, 0, 0.8, (300, 10, 350, 60)),  # no cat
    (0, 0, 0.7, (100, 100, 200, 200)),
    (0, 1, 0.6, (10, 10, 60, 60)),  # no dog
]


def test_thresholds_by_hand():
    evaluation = evaluate(
        make_dataset(TRUTH, names=("cat", "dog")), make_predictions(FOUND, names=("cat", "dog"))
    )
    sure, complete = evaluation.score_for(precision=0.9), evaluation.score_for(recall=0.6)
    assert (sure.of("cat"), sure.score) == pytest.approx((0.9, 0.9))
    assert (complete.of("cat"), complete.score) == pytest.approx((0.7, 0.7))
    assert complete.total["precision"] == complete.total["recall"] == pytest.approx(2 / 3)
    assert math.isnan(sure.of("dog"))
    assert sure.notes == ("'dog': no prediction is right at any threshold.",)
    assert evaluation.score_for(recall=0.9).notes[-1] == (
        "All classes together: no threshold gives recall 0.9; the most is 0.667, at score 0.70."
    )
    assert evaluation.thresholds.score == evaluation.best_score == pytest.approx(0.7)
    # a threshold is a score that occurs: taken as it is, it shows what it says
    assert evaluation.per_image(complete.score).true_positives.sum() == 2
    with pytest.raises(KeyError, match="no class 'cow'; there are cat, dog"):
        sure.of("cow")
    text, html = repr(sure), sure._repr_html_()
    assert text.startswith("Score thresholds for precision 0.9, found on made\n")
    assert sure.notes[0] in text
    assert html.startswith("<table>")
    assert "&#x27;dog&#x27;" in html
    assert json.loads(json.dumps(sure.to_dict(), allow_nan=False))["per_class"][1]["score"] is None


def test_many_classes_without_a_threshold_are_counted():
    names = tuple(f"c{k}" for k in range(30))
    truth = [(0, k, (10 * k, 0, 10 * k + 9, 9)) for k in range(30)]
    found = evaluate(make_dataset(truth, names=names), make_predictions([], names=names)).thresholds
    assert len(found.notes) == 9
    assert found.notes[-1] == "And 23 more like these."
    assert math.isnan(found.score)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "needs a precision or a recall"),
        ({"precision": 0.5, "recall": 0.5}, "not for both"),
        ({"precision": 90}, "a wanted precision is above 0 and at most 1, not 90"),
        ({"recall": 0}, "a wanted recall is above 0 and at most 1, not 0"),
    ],
)
def test_refusals(wanted, message):
    evaluation = evaluate(*random_case(0))
    with pytest.raises(ValueError, match=message):
        evaluation.score_for(**wanted)
