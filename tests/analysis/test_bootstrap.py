"""Intervals: each draw's figures are the evaluator's own, and the interval holds what it should."""

import json
import math

import numpy as np
import pytest

from odkit.analysis.bootstrap import IOUS, Intervals, at_score, draw_images, interval, resampled
from odkit.analysis.evaluation import evaluate
from odkit.data.dataset import Dataset
from odkit.data.predictions import Predictions
from tests.helpers import ORACLE_CASES, make_dataset, make_predictions, random_case

BOX = (100, 100, 200, 200)


def as_often_as(dataset, predictions, counts):
    """The dataset and its predictions with every image as often as it was drawn."""
    images = np.repeat(np.arange(len(dataset)), counts)
    boxes = [np.arange(len(dataset.boxes))[dataset.boxes_of(i)] for i in images]
    found = [np.arange(len(predictions))[predictions.of(i)] for i in images]
    rows, hits = np.concatenate(boxes), np.concatenate(found)
    place = np.arange(len(images))
    drawn = Dataset(
        class_names=dataset.class_names,
        image_paths=[f"/drawn/{k}.jpg" for k in place],
        image_sizes=dataset.image_sizes[images],
        boxes=dataset.boxes[rows],
        box_classes=dataset.box_classes[rows],
        box_images=np.repeat(place, [len(part) for part in boxes]),
        box_crowd=dataset.box_crowd[rows],
    )
    return drawn, Predictions(
        boxes=predictions.boxes[hits],
        scores=predictions.scores[hits],
        classes=predictions.classes[hits],
        images=np.repeat(place, [len(part) for part in found]),
        class_names=predictions.class_names,
    )


@pytest.mark.parametrize("options", [v for v in ORACLE_CASES.values() if not v.get("ties")])
@pytest.mark.parametrize("limit", [100, 3])
def test_a_draw_is_the_evaluation_of_the_drawn_images(options, limit):
    for seed in range(3):
        dataset, predictions = random_case(seed, images=15, **options)
        evaluation = evaluate(dataset, predictions, max_detections=limit)
        draws = draw_images(15, 5, seed)
        ap, recall = resampled(evaluation, draws, IOUS)
        for s in range(5):
            plain = evaluate(*as_often_as(dataset, evaluation.predictions, draws[s]), max_detections=limit)
            np.testing.assert_allclose(ap[s].mean(1), plain.class_ap, atol=1e-12)
            np.testing.assert_allclose(ap[s, :, 0], plain.class_ap50, atol=1e-12)
            np.testing.assert_allclose(ap[s, :, 5], plain.class_ap75, atol=1e-12)
            np.testing.assert_allclose(recall[s].mean(1), plain.class_ar, atol=1e-12)


def test_every_image_drawn_once_gives_the_figures_themselves():
    for options in ORACLE_CASES.values():  # equal scores as well
        evaluation = evaluate(*random_case(3, images=20, **options))
        for often in (1, 2):
            ap, recall = resampled(evaluation, np.full((1, 20), often), IOUS)
            if often == 1 or not options.get("ties"):
                np.testing.assert_allclose(ap[0].mean(1), evaluation.class_ap, atol=1e-12)
                np.testing.assert_allclose(recall[0].mean(1), evaluation.class_ar, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"crowd": 0.4}, {"ties": True}])
def test_precision_recall_and_f1_at_a_score_are_those_of_the_drawn_images(options):
    for seed in range(3):
        evaluation = evaluate(*random_case(seed, images=15, **options))
        draws = draw_images(15, 5, seed)
        drawn = at_score(evaluation, draws, 0.4)
        for s in range(5):
            plain = evaluate(*as_often_as(evaluation.dataset, evaluation.predictions, draws[s]))
            for k, boxes in enumerate([*plain.class_boxes.tolist(), plain.class_boxes.sum()]):
                mine = (plain.predictions.classes == k) | (k == 4)
                kinds = plain.matches().kinds[mine & (plain.predictions.scores >= 0.4)]
                true, false = (kinds == "true_positive").sum(), (kinds == "false_positive").sum()
                with np.errstate(invalid="ignore"):
                    expected = np.array([true, true, 2 * true]) / [true + false, boxes, true + false + boxes]
                got = [drawn[figure][s, k] for figure in ("precision", "recall", "f1")]
                np.testing.assert_allclose(got, expected if boxes else [np.nan] * 3)


def test_draws_are_drawn_with_replacement_and_repeat_by_their_seed():
    draws = draw_images(30, 250, 1)
    assert (draws.shape, set(draws.sum(1).tolist())) == ((250, 30), {30})
    assert len(np.unique(draws, axis=0)) == 250
    assert np.array_equal(draws, draw_images(30, 250, 1))
    assert not np.array_equal(draws, draw_images(30, 250, 2))


def test_intervals_hold_their_figures_and_narrow_with_more_images():
    widths = []
    for images in (15, 240):
        evaluation = evaluate(*random_case(5, images=images))
        found = evaluation.intervals(samples=200)
        assert (found.images, found.samples) == (images, 200)
        assert found.total["ap"] == evaluation.ap
        assert [row["class"] for row in found.per_class] == list(evaluation.class_names)
        for row, class_name in ((found.total, None), *((row, row["class"]) for row in found.per_class[:3])):
            for figure in ("ap", "ap50", "ap75", "ar", "precision", "recall", "f1"):
                low, high = found.of(figure, class_name)
                assert (low, high) == (row[f"{figure}_low"], row[f"{figure}_high"])
                assert 0 <= low <= row[figure] <= high <= 1
        where = evaluation.thresholds.total
        assert found.score == where["score"]
        for figure in ("precision", "recall", "f1"):
            assert found.total[figure] == pytest.approx(where[figure])
        assert math.isnan(found.per_class[3]["f1_low"])
        assert math.isnan(found.per_class[3]["ap_low"])  # a class without boxes
        widths.append(np.diff(found.of())[0])
    assert widths[1] < widths[0] / 2
    assert found.of("ap", "cat") != evaluation.intervals(samples=200, seed=1).of("ap", "cat")
    assert found.to_dict() == evaluation.intervals(samples=200).to_dict()


def test_the_interval_holds_what_other_images_say_about_as_often_as_it_says():
    rng = np.random.default_rng(0)

    def judged():
        """Fifty images of a detector that finds three of four boxes, and invents one in each image."""
        right, invented = rng.random(50) < 0.75, rng.random(50) < 0.5
        scores, other = rng.beta(5, 2, 50), rng.beta(2, 4, 50)
        found = [(k, 0, scores[k], BOX) for k in np.flatnonzero(right).tolist()]
        found += [(k, 0, other[k], (0, 0, 30, 30)) for k in np.flatnonzero(invented).tolist()]
        truth = make_dataset([(k, 0, BOX) for k in range(50)], images=50, names=("a",))
        return evaluate(truth, make_predictions(found, names=("a",)))

    mean = np.mean([judged().ap for _ in range(200)])
    spans = [judged().intervals(samples=200).of() for _ in range(60)]
    assert 52 <= sum(low <= mean <= high for low, high in spans) <= 60


def test_the_middle_is_moved_onto_the_figure_and_kept_within_bounds():
    drawn = np.linspace(0.5, 0.7, 101)
    assert interval(0.6, drawn) == pytest.approx((0.505, 0.695))
    assert interval(0.4, drawn) == pytest.approx((0.305, 0.495))
    assert interval(0.99, drawn) == pytest.approx((0.895, 1.0))
    assert interval(0.01, drawn) == pytest.approx((0.0, 0.105))
    assert np.isnan(interval(0.5, np.full(3, np.nan))).all()


def test_it_shows_itself_as_text_html_and_json():
    evaluation = evaluate(*random_case(1))
    found = evaluation.intervals(samples=50)
    text, html = repr(found), found._repr_html_()
    assert "95% intervals: 12 images, drawn anew 50 times" in text
    assert f"{found.total['ap']:.3f} ({found.total['ap_low']:.3f} to " in text
    assert next(line for line in text.splitlines() if "fish" in line).split() == ["fish", "0", *"————"]
    assert html.startswith("<table>")
    assert ">bird<" in html
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["per_class"][3]["ap_low"] is None
    assert repr(Intervals.from_dict(plain)) == text
    at_score = f"  At score {evaluation.best_score:.2f} and above: precision {found.total['precision']:.3f} ("
    assert text.splitlines()[-1].startswith(at_score)


def test_intervals_written_down_by_older_versions_are_read():
    plain = evaluate(*random_case(1)).intervals(samples=5, score=0.5).to_dict()
    old = {"ap", "ap50", "ap75", "ar"}
    rows = [{k: v for k, v in row.items() if k in ("class", "boxes") or k.split("_")[0] in old}
            for row in (plain["total"], *plain["per_class"])]  # fmt: skip
    found = Intervals.from_dict({"images": 12, "samples": 5, "total": rows[0], "per_class": rows[1:]})
    assert found.of("ap") == (plain["total"]["ap_low"], plain["total"]["ap_high"])
    assert repr(found).splitlines()[-1].split()[0] == "all"
    with pytest.raises(
        ValueError, match="no interval of 'f1' for 'all classes'; there are ap, ap50, ap75, ar for"
    ):
        found.of("f1")


def test_nothing_to_measure_on():
    for dataset in (make_dataset([], images=3), make_dataset([], images=0)):
        found = evaluate(dataset, make_predictions([])).intervals(samples=5)
        assert np.isnan(found.of()).all()
        assert "—" in repr(found)


def test_refusals():
    evaluation = evaluate(*random_case(1))
    with pytest.raises(ValueError, match="samples must be 1 or more"):
        evaluation.intervals(samples=0)
    found = evaluation.intervals(samples=2)
    with pytest.raises(
        ValueError, match="no interval of 'ap60' for 'all classes'; there are ap, ap50, ap75, ar, prec"
    ):
        found.of("ap60")
    with pytest.raises(ValueError, match=r"for 'cow'; .*cat, dog, bird, fish"):
        found.of("ap", "cow")
