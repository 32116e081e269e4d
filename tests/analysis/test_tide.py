"""The kinds of mistake against TIDE's published package on random data, and case by case by hand."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from odkit.analysis.evaluation import evaluate
from odkit.analysis.tide import KINDS, average_precisions, classify, mistakes
from tests.helpers import make_dataset, make_predictions, random_case
from tools.record_tide import SEEDS, tide_case

RECORDED = json.loads(Path(__file__).with_name("tide.json").read_text())


@pytest.mark.parametrize("seed", SEEDS)
def test_kinds_and_costs_equal_what_tide_says(seed):
    dataset, predictions = tide_case(seed)
    assert set(dataset.box_classes) == {0, 1, 2, 3}
    mine, tide = mistakes(dataset, predictions, score=0.0), RECORDED[str(seed)]
    assert {kind: mine.counts[kind] for kind in KINDS} == tide["counts"]
    # TIDE reads the curve at k / 100, COCO at np.linspace(0, 1, 101), which differ in the last bit for some k and
    # then read another point: at most 1 / 101 of one class of four
    assert mine.evaluation.ap50 * 100 == pytest.approx(tide["ap"], abs=0.25)
    assert set(mine.costs) == set(tide["costs"])
    for kind, cost in tide["costs"].items():
        assert mine.costs[kind] * 100 == pytest.approx(cost, abs=0.25), kind


BOX = (100, 100, 200, 200)
CASES = {
    "correct": [(0, 0, 0.9, (100, 100, 200, 190))],
    "Cls": [(0, 1, 0.9, (100, 100, 200, 190))],
    "Loc": [(0, 0, 0.9, (150, 100, 250, 200))],  # IoU 1/3
    "Both": [(0, 1, 0.9, (150, 100, 250, 200))],
    "Dupe": [(0, 0, 0.9, BOX), (0, 0, 0.8, (100, 100, 200, 180))],
    "Bkg": [(0, 0, 0.9, (190, 190, 290, 290))],  # IoU under 0.01
}


@pytest.mark.parametrize("kind", CASES)
def test_each_kind_by_hand(kind):
    dataset = make_dataset([(0, 0, BOX)])
    found = mistakes(dataset, make_predictions(CASES[kind]), score=0.5)
    assert found.kinds.predictions[-1] == kind
    explained = {
        "Cls": "Cls",
        "Loc": "Loc",
        "correct": "correct",
        "Dupe": "correct",
    }
    assert found.kinds.boxes.tolist() == [explained.get(kind, "Miss")]
    assert found.kinds.box_of[-1] == (-1 if kind == "Bkg" else 0)
    assert found.kinds.prediction_of[0] == (-1 if kind in ("Both", "Bkg") else 0)
    assert found.counts["Miss"] == (kind in ("Both", "Bkg"))


def test_the_cost_is_what_putting_right_would_win():
    dataset = make_dataset([(0, 0, BOX), (0, 1, (300, 300, 350, 350))])
    found = mistakes(dataset, make_predictions([(0, 1, 0.9, BOX), (0, 1, 0.8, (300, 300, 350, 350))]))
    # now: cat AP 0, dog AP 1/2; with the class put right both are 1
    assert found.evaluation.ap50 == pytest.approx(0.25)
    assert found.costs["Cls"] == pytest.approx(0.75)
    assert found.costs["Miss"] == 0
    assert found.costs["Dupe"] == 0


def test_one_fault_of_several_about_a_box_is_put_right():
    dataset = make_dataset([(0, 0, BOX)])
    rows = [(0, 1, 0.9, BOX), (0, 0, 0.8, (150, 100, 250, 200)), (0, 2, 0.7, BOX)]
    found = mistakes(dataset, make_predictions(rows), score=0.1)
    assert found.kinds.predictions.tolist() == ["Cls", "Loc", "Cls"]
    assert found.kinds.boxes.tolist() == ["Cls"]
    assert found.kinds.prediction_of.tolist() == [0]
    assert found.costs["Cls"] == pytest.approx(1.0)
    assert found.costs["Loc"] == 0  # the surest prediction about the box is another one


def test_below_the_score_nothing_is_shown_but_everything_counts_for_the_cost():
    dataset = make_dataset([(0, 0, BOX), (0, 0, (300, 300, 350, 350))])
    found = mistakes(
        dataset, make_predictions([(0, 0, 0.9, BOX), (0, 1, 0.2, (300, 300, 350, 350))]), score=0.5
    )
    assert found.kinds.predictions.tolist() == ["correct", "hidden"]
    assert found.counts["Cls"] == 0
    assert found.counts["Miss"] == 1
    assert found.costs["Cls"] > 0
    assert found.costs["Miss"] == 0


def test_crowds_are_neither_found_nor_missed():
    dataset = make_dataset([(0, 0, (0, 0, 200, 200)), (0, 0, (300, 300, 350, 350))], crowd=[True, False])
    kinds = classify(
        dataset, make_predictions([(0, 0, 0.9, (10, 10, 60, 60)), (0, 0, 0.8, (300, 300, 350, 350))])
    )
    assert kinds.predictions.tolist() == ["ignored", "correct"]
    assert kinds.boxes.tolist() == [
        "crowd",
        "correct",
    ]


def test_rows_and_images_of_a_kind():
    rows = [(0, 0, 0.5, (0, 0, 9, 9)), (1, 0, 0.6, (0, 0, 9, 9)), (1, 1, 0.9, (50, 50, 90, 90))]
    found = mistakes(make_dataset([(2, 0, BOX)], images=3), make_predictions(rows), score=0.1)
    assert found.rows("Bkg").tolist() == [2, 1, 0]
    assert found.images_with("Bkg").tolist() == [1, 0]
    assert found.rows("Miss").tolist() == [0]
    assert found.images_with("Miss").tolist() == [2]
    with pytest.raises(KeyError, match="no kind 'odd'; there are correct, Cls"):
        found.rows("odd")


def test_breakdowns_by_hand():
    truth = [
        (0, 0, (0, 0, 20, 20)),
        (0, 0, (10, 0, 60, 50)),
        (0, 1, (200, 200, 350, 350)),
        (1, 1, (100, 100, 150, 150)),
    ]
    guess = [
        (0, 0, 0.9, (0, 0, 20, 20)),
        (0, 1, 0.9, (200, 200, 350, 350)),
        (1, 0, 0.9, (100, 100, 150, 150)),
    ]
    found = mistakes(make_dataset(truth, images=2), make_predictions(guess), score=0.5)
    tables = {
        "class": found.by_class(),
        "size": found.by_size(),
        "crowding": found.by_crowding(),
        "image": found.by_image(["day", "night"]),
    }
    recall = {name: {row["group"]: row["recall"] for row in table} for name, table in tables.items()}
    assert recall["class"]["cat"] == 0.5
    assert recall["class"]["dog"] == 0.5
    assert math.isnan(recall["class"]["fish"])
    assert recall["size"] == {"small": 1, "medium": 0, "large": 1}
    assert recall["crowding"]["alone"] == 0.5
    assert recall["crowding"]["touching"] == 0.5
    assert recall["image"] == {"day": pytest.approx(2 / 3), "night": 0}
    for table in tables.values():
        assert sum(row["boxes"] for row in table) == 4
        assert sum(row["correct"] for row in table) == 2
        assert sum(row["Cls"] for row in table) == 1
    with pytest.raises(ValueError, match="1 labels for 2 images"):
        found.by_image(["day"])


def test_it_takes_an_evaluation_and_shows_itself():
    dataset, predictions = random_case(3)
    evaluation = evaluate(dataset, predictions)
    found = mistakes(evaluation)
    assert found.evaluation is evaluation
    assert found.score == evaluation.best_score
    assert all(kind in repr(found) and meaning in repr(found) for kind, meaning in KINDS.items())
    assert "<table>" in found._repr_html_()
    assert set(found.to_dict()["costs"]) == {*KINDS, "FalsePos", "FalseNeg"}
    run = SimpleNamespace(evaluation=lambda: evaluation)  # a Run gives its evaluation this way
    assert mistakes(run).evaluation is evaluation
    with pytest.raises(ValueError, match="needs predictions"):
        mistakes(dataset)
    nothing = mistakes(make_dataset([], images=1), make_predictions([]))
    assert nothing.counts["correct"] == 0
    assert all(cost == 0 for cost in nothing.costs.values())


def test_average_precisions_equal_the_evaluations():
    dataset, predictions = random_case(5, images=30)
    evaluation = evaluate(dataset, predictions)
    hits, surest = evaluation.matches(), np.argsort(-evaluation.predictions.scores, kind="stable")
    rows = surest[hits.kinds[surest] != "ignored"]
    values = average_precisions(
        evaluation.predictions.classes[rows], hits.boxes[rows] >= 0, evaluation.class_boxes
    )
    assert evaluation.class_boxes[-1] == 0
    np.testing.assert_allclose(values, np.nan_to_num(evaluation.class_ap50), atol=1e-9)


def test_where_there_is_nothing_it_reads_so():
    found = mistakes(make_dataset([]), make_predictions([]))
    assert repr(found).startswith("Mistakes on made at score 0.50 and above: 0 of 0 boxes found, AP50 —\n")
    assert repr(found.evaluation).startswith("Evaluation on made: 1 image, 0 predictions\n")
