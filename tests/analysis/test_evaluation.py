"""COCO's figures against pycocotools, and everything a person sees next against cases worked out by hand."""

import dataclasses
import html
import json
import math

import numpy as np
import pytest

from odkit.analysis.evaluation import evaluate
from tests.helpers import (
    NAMES,
    ORACLE_CASES,
    figures_of,
    make_dataset,
    make_predictions,
    pycocotools_arrays,
    pycocotools_figures,
    random_case,
)


@pytest.mark.parametrize("options", ORACLE_CASES.values(), ids=ORACLE_CASES.keys())
@pytest.mark.parametrize("limit", [300, 100, 10, 3, 1])
def test_figures_equal_pycocotools(options, limit):
    """210 random cases: the twelve figures, those of each class, and the arrays that all of them are means of."""
    for seed in range(7):
        dataset, predictions = random_case(seed, **options)
        evaluation = evaluate(dataset, predictions, max_detections=limit)
        precision, recall = pycocotools_arrays(dataset, predictions, limit)
        figures, per_class = figures_of(precision, recall)
        np.testing.assert_allclose(list(evaluation.metrics.values()), figures, atol=1e-9)
        columns = [evaluation.class_ap, evaluation.class_ap50, evaluation.class_ap75, evaluation.class_ar]
        np.testing.assert_allclose(np.stack(columns, 1), per_class, atol=1e-9)
        precision, recall = (np.where(array > -1, array, np.nan) for array in (precision, recall))
        np.testing.assert_allclose(evaluation.precision, precision[..., 0].swapaxes(1, 2), atol=1e-9)
        np.testing.assert_allclose(evaluation.recall, recall[:, :, 0, 2], atol=1e-9)


def test_figures_equal_pycocotools_at_the_edges():
    dataset, predictions = random_case(1)
    no_predictions = predictions.select(np.zeros(len(predictions), bool))
    no_boxes = dataset.select_boxes(np.zeros(dataset.num_boxes, bool))
    only_crowds = dataset.replace(box_crowd=np.ones(dataset.num_boxes, bool))
    flat = dataset.boxes.copy()
    flat[::3, 2] = flat[::3, 0]
    without_area = dataset.replace(boxes=flat)
    for truth, found in [
        (dataset, no_predictions),
        (no_boxes, predictions),
        (no_boxes, no_predictions),
        (only_crowds, predictions),
        (without_area, predictions),
    ]:
        figures, per_class = pycocotools_figures(truth, found)
        evaluation = evaluate(truth, found)
        np.testing.assert_allclose(list(evaluation.metrics.values()), figures, atol=1e-9)
        np.testing.assert_allclose(evaluation.class_ap, per_class[:, 0], atol=1e-9)


def test_a_thousand_detections_an_image_count_only_up_to_the_limit():
    rng = np.random.default_rng(0)
    dataset, _ = random_case(2, images=2, gap=0)
    corners = rng.uniform(0, 300, (1500, 2))
    boxes = np.hstack([corners, corners + rng.uniform(5, 90, (1500, 2))])
    rows = [(int(i % 2), int(rng.integers(3)), rng.random(), box) for i, box in enumerate(boxes)]
    predictions = make_predictions(rows)
    figures, _ = pycocotools_figures(dataset, predictions)
    evaluation = evaluate(dataset, predictions)
    np.testing.assert_allclose(list(evaluation.metrics.values()), figures, atol=1e-9)
    assert (evaluation.matches().kinds == "ignored").sum() > 800


def ap_of_curve(curve):
    """COCO's AP from a curve: precision, made to fall, read at 101 recalls."""
    if not len(curve.scores):
        return 0.0
    falling = np.maximum.accumulate(curve.precision[::-1])[::-1]
    place = np.searchsorted(curve.recall, np.linspace(0, 1, 101), side="left")
    return np.append(falling, 0)[place].mean()


@pytest.mark.parametrize("options", [{"crowd": 0.2}, {"crowd": 0}, {"gap": 0.6}])
def test_curves_come_from_the_same_matches_as_the_figures(options):
    for seed in range(8):
        evaluation = evaluate(*random_case(seed, **options))
        for k, name in enumerate(evaluation.class_names):
            if evaluation.class_boxes[k]:
                assert ap_of_curve(evaluation.curves[name]) == pytest.approx(
                    evaluation.class_ap50[k], abs=1e-9
                )
            else:
                assert len(evaluation.curves[name].scores) == 0
                assert math.isnan(evaluation.curves[name].best_f1)


# two cats and a dog in image 0, nothing in image 1, one bird in image 2
TRUTH = [
    (0, 0, (10, 10, 60, 60)),
    (0, 0, (100, 100, 200, 200)),
    (0, 1, (250, 250, 350, 350)),
    (2, 2, (10, 10, 110, 110)),
]
FOUND = [
    (0, 0, 0.9, (10, 10, 60, 60)),  # the first cat, exactly
    (0, 0, 0.8, (10, 10, 60, 55)),  # the first cat again
    (0, 0, 0.7, (100, 100, 200, 170)),  # the second cat, IoU 0.7
    (0, 2, 0.6, (250, 250, 350, 350)),  # the dog, called a bird
    (1, 1, 0.5, (0, 0, 50, 50)),  # a dog where nothing is
    (2, 2, 0.2, (10, 10, 110, 110)),  # the bird, unsure
]


@pytest.fixture
def by_hand():
    return evaluate(make_dataset(TRUTH, images=3), make_predictions(FOUND))


def test_matches_by_hand(by_hand):
    hits = by_hand.matches()
    true, false = "true_positive", "false_positive"
    assert hits.kinds.tolist() == [true, false, true, false, false, true]
    assert hits.boxes.tolist() == [0, -1, 1, -1, -1, 3]
    assert hits.predictions.tolist() == [0, 2, -1, 5]
    np.testing.assert_allclose(hits.ious, [1, 0, 0.7, 0, 0, 1])
    assert by_hand.matches(0.75).kinds.tolist() == [true, false, false, false, false, true]


def test_counts_of_each_image_by_hand(by_hand):
    counts = by_hand.per_image(score=0.4)
    assert counts.true_positives.tolist() == [2, 0, 0]
    assert counts.false_positives.tolist() == [2, 1, 0]
    assert counts.missed.tolist() == [1, 0, 1]
    np.testing.assert_allclose(counts.loss, [1 + 0.8 + 0.6 + 0.3, 0.5, 1], atol=1e-6)
    assert by_hand.worst_images(score=0.4).tolist() == [0, 2, 1]
    assert by_hand.worst_images(1, score=0.4).tolist() == [0]
    assert by_hand.per_image(score=0.1).missed.tolist() == [1, 0, 0]


def test_confusion_by_hand(by_hand):
    matrix = by_hand.confusion_matrix(score=0.4)
    expected = np.zeros((5, 5), int)
    expected[0, 0] = 2  # both cats
    expected[1, 2] = 1  # the dog is taken for a bird
    expected[2, 4] = 1  # the bird is missed below 0.4
    expected[4, 0] = 1  # the doubled cat
    expected[4, 1] = 1  # the dog that is not there
    np.testing.assert_array_equal(matrix.counts, expected)
    assert matrix.images_of("dog", "bird").tolist() == [0]
    assert matrix.images_of("background", "dog").tolist() == [1]
    assert matrix.images_of("bird", "background").tolist() == [2]
    with pytest.raises(KeyError, match="no class 'cow'; there are cat"):
        matrix.images_of("cow", "cat")


def test_best_score_is_the_threshold_with_the_highest_f1(by_hand):
    cat = by_hand.curves["cat"]
    assert cat.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    np.testing.assert_allclose(cat.precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(cat.recall, [1 / 2, 1 / 2, 1])
    assert cat.best_score == pytest.approx(0.7)
    assert cat.best_f1 == pytest.approx(0.8)
    assert by_hand.best_score == pytest.approx(0.2)  # 3 true of 6, 4 boxes: F1 0.6; at 0.7 2 of 3: F1 0.571
    assert by_hand.per_image().score == by_hand.best_score


def test_predictions_on_a_crowd_are_neither_right_nor_wrong():
    dataset = make_dataset([(0, 0, (0, 0, 200, 200)), (0, 0, (250, 250, 300, 300))], crowd=[True, False])
    found = [(0, 0, 0.9, (10, 10, 50, 50)), (0, 0, 0.8, (60, 60, 90, 90)), (0, 1, 0.7, (0, 0, 40, 40))]
    evaluation = evaluate(dataset, make_predictions(found))
    assert evaluation.matches().kinds.tolist() == ["ignored", "ignored", "false_positive"]
    assert evaluation.per_image(0.5).missed.tolist() == [1]
    counts = evaluation.confusion_matrix(score=0.5).counts
    assert counts.sum() == 1
    assert counts[0, 4] == 1


def test_classes_are_matched_by_name_and_images_by_id():
    dataset = make_dataset(TRUTH, images=3)
    order = [2, 0, 3, 1]
    names = tuple(NAMES[k] for k in order)
    shuffled = [(i, order.index(k), s, b) for i, k, s, b in FOUND]
    straight = evaluate(dataset, make_predictions(FOUND))
    assert evaluate(dataset, make_predictions(shuffled, names=names)).metrics == pytest.approx(
        straight.metrics, nan_ok=True
    )
    with_ids = make_predictions(FOUND, image_ids=tuple(dataset.image_ids))
    part = evaluate(dataset.select([2, 0]), with_ids)
    assert len(part.predictions) == 5
    assert part.predictions.images.tolist() == [0, 1, 1, 1, 1]
    assert part.curves["bird"].recall[-1] == 1


@pytest.mark.parametrize("seed", range(4))
def test_class_tables_that_differ(seed):
    """Held against the same data under one table: the detector's own classes there and empty, or taken out."""
    dataset, found = random_case(seed)
    gone = NAMES[0]
    # the folder lacks a class: as if nobody had labelled or predicted it
    lacking = evaluate(dataset.with_classes({gone: None}), found)
    without = found.select(found.classes != 0)
    assert lacking.metrics == pytest.approx(
        evaluate(dataset.select_boxes(dataset.box_classes != 0), without).metrics, nan_ok=True
    )
    left_out = int((found.classes == 0).sum())
    (note,) = lacking.notes
    assert note.startswith(f"The dataset does not have {gone!r}: {left_out:,} predictions left out")
    assert len(lacking.predictions) == len(without)
    assert lacking.class_known.all()
    # the detector lacks one: missed, as if it had never predicted it
    keep = np.flatnonzero(found.classes != 0)
    poorer = dataclasses.replace(
        found, **{c: getattr(found, c)[keep] for c in ("boxes", "scores", "images")},
        classes=found.classes[keep] - 1, class_names=found.class_names[1:],
    )  # fmt: skip
    missing = evaluate(dataset, poorer)
    assert missing.metrics == pytest.approx(evaluate(dataset, without).metrics, nan_ok=True)
    boxes = int((dataset.box_classes == 0).sum())
    assert boxes
    assert missing.per_class[0]["ap"] == 0
    assert missing.class_known.tolist() == [False, *[True] * (len(NAMES) - 1)]
    assert missing.notes == (
        f"The detector does not know {gone!r}: {boxes:,} boxes count as missed (with_classes() judges without them).",
    )
    for shown in (repr(missing), html.unescape(missing._repr_html_())):
        assert missing.notes[0] in shown
    assert missing.to_dict()["notes"] == list(missing.notes)
    alone = evaluate(dataset.with_classes(list(poorer.class_names)), poorer)
    assert alone.notes == ()
    assert alone.ap == pytest.approx(np.nanmean(missing.class_ap[1:]))


def test_a_class_under_another_name_is_pointed_at():
    dataset = make_dataset(TRUTH, images=3)
    notes = evaluate(dataset, make_predictions(FOUND, names=("Cats", "dog", "bird", "fish"))).notes
    assert notes[-1] == "If these are the same, rename them first: dataset.with_classes({'cat': 'Cats'})."
    assert evaluate(dataset, make_predictions(FOUND)).notes == ()


def test_refusals_name_the_fault_and_the_way_out():
    dataset, found = make_dataset(TRUTH, images=3), make_predictions(FOUND)
    with pytest.raises(
        ValueError, match=r"only the predictions know 'a', 'b', 'c', 'd'; only the dataset has 'cat'"
    ):
        evaluate(dataset, make_predictions(FOUND, names=("a", "b", "c", "d")))
    with pytest.raises(ValueError, match=r"image 2, made has images 0 to 1"):
        evaluate(dataset.select([0, 1]), found)
    seen = make_predictions(FOUND[:4], image_ids=("0.jpg",))
    with pytest.raises(ValueError, match=r"never looked at 2 of the 3 images of made, for example '1.jpg'"):
        evaluate(dataset, seen)
    unknown = dataset.replace(box_classes=np.array([0, -1, 1, 2]))
    with pytest.raises(
        ValueError, match=r"made has 1 boxes of unknown class, the first at 0.jpg, box 2; .*repaired"
    ):
        evaluate(unknown, found)
    with pytest.raises(ValueError, match="max_detections must be 1 or more"):
        evaluate(dataset, found, max_detections=0)


def test_it_shows_itself_as_text_html_and_json(by_hand):
    text, html = repr(by_hand), by_hand._repr_html_()
    assert "Evaluation on made: 3 images, 6 predictions" in text
    assert "cat" in text
    fish = next(line for line in text.splitlines() if line.strip().startswith("fish"))
    assert fish.split() == ["fish", "0", "—", "—", "—", "—"]
    assert html.startswith("<table>")
    assert ">bird<" in html
    assert "—" in html
    plain = json.loads(json.dumps(by_hand.to_dict(), allow_nan=False))
    assert plain["ap50"] == pytest.approx(by_hand.ap50)
    assert plain["per_class"][3]["ap"] is None
    assert [row["class"] for row in plain["per_class"]] == list(NAMES)


def test_it_says_which_split_it_is_of(by_hand):
    data, found = by_hand.dataset, by_hand.predictions
    for splits, split, name in (
        (["val"] * 3, "val", "made, val"),
        (["val", "val", "test"], "", "made"),
        (["val", "val", ""], "", "made"),
    ):
        evaluation = evaluate(data.replace(image_splits=splits), found)
        assert (evaluation.split, evaluation.data_name) == (split, name)
        assert f"Evaluation on {name}: 3 images" in repr(evaluation)


def test_names_are_escaped_in_html():
    dataset = make_dataset([(0, 0, (0, 0, 9, 9))], names=("<b>bold</b>",))
    html = evaluate(dataset, make_predictions([], names=("<b>bold</b>",)))._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;bold" in html


def test_a_dataset_without_images_or_classes_has_no_figures():
    empty = make_dataset([], images=0, names=())
    evaluation = evaluate(empty, make_predictions([], names=()))
    assert math.isnan(evaluation.ap)
    assert evaluation.worst_images().tolist() == []
    assert "—" in repr(evaluation)
