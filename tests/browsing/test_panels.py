"""What the App's panels are filled with, read back through FiftyOne's own objects; the panels: tests/browser/."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import odkit as od
from odkit.analysis import Evaluation, evaluate
from odkit.browsing.browser import browse
from odkit.data import Dataset, Predictions
from tests.helpers import random_case, squares

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("fo")]


def judged(seed: int) -> Evaluation:
    """Random boxes, crowds and guesses, some of them beyond the detections allowed."""
    dataset, found = random_case(seed)
    return evaluate(dataset, found, max_detections=[100, 3][seed % 2])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_panel_has_our_figures(seed: int, share: float) -> None:
    evaluation = judged(seed)
    score = float(np.quantile(evaluation.predictions.scores, share))
    there = od.to_fiftyone(evaluation.dataset, predictions=evaluation, score=score)
    there.reload()
    there.clear_cache()
    results = there.load_evaluation_results("eval")  # written, and read from the database

    same = {"rel": 0, "abs": 1e-9, "nan_ok": True}
    names = [*evaluation.class_names]
    assert results.mAP() == pytest.approx(evaluation.ap, **same)
    assert results.mAR() == pytest.approx(evaluation.ar, **same)
    for name, ap in zip(names, evaluation.class_ap.tolist(), strict=True):
        assert results.mAP(classes=[name]) == pytest.approx(-1 if math.isnan(ap) else ap, **same)
    figures = results.metrics()
    assert figures["AP50"] == pytest.approx(evaluation.ap50, **same)
    assert figures["AP75"] == pytest.approx(evaluation.ap75, **same)
    assert figures["Score threshold"] == pytest.approx(score, **same)

    counts = evaluation.per_image(score)
    true, false, missed = (
        int(c.sum()) for c in (counts.true_positives, counts.false_positives, counts.missed)
    )
    precision, recall = true / max(true + false, 1), true / max(true + missed, 1)
    assert figures["precision"] == pytest.approx(precision, **same)
    assert figures["recall"] == pytest.approx(recall, **same)
    assert figures["fscore"] == pytest.approx(2 * true / max(2 * true + false + missed, 1), **same)
    assert figures["support"] == evaluation.class_boxes.sum()
    report = results.report()
    for name, curve in evaluation.curves.items():
        at = np.searchsorted(-curve.scores, -score, side="right") - 1  # the lowest score that is shown
        row = report[name]
        assert row["support"] == evaluation.class_boxes[names.index(name)]
        if at >= 0 and row["support"]:
            assert row["precision"] == pytest.approx(curve.precision[at], **same)
            assert row["recall"] == pytest.approx(curve.recall[at], **same)
            assert row["f1-score"] == pytest.approx(curve.f1[at], **same)
    ours = evaluation.confusion_matrix(score=score).counts
    assert results.confusion_matrix(include_missing=True).tolist() == ours.tolist()

    # the fields on images and boxes that the panel's views are made from
    assert sum(there.values("eval_tp")) == true == np.count_nonzero(results.ytrue == results.ypred)
    assert sum(there.values("eval_fp")) == false == np.count_nonzero(results.ytrue == results.missing)
    assert sum(there.values("eval_fn")) == missed == np.count_nonzero(results.ypred == results.missing)
    assert set(results.ypred_ids) - {None} <= set(there.values("predictions.detections.id", unwind=True))
    assert len(there.load_evaluation_view("eval")) == len(evaluation.dataset)
    marks = [there.count_values(f"{name}.detections.eval") for name in ("ground_truth", "predictions")]
    ignored = sum(one.get("ignored", 0) for one in marks)
    assert len(there.to_evaluation_patches("eval")) == len(results.ytrue) + ignored


def test_a_part_of_the_images_has_its_own_counts() -> None:
    """The panel's scenarios: what is counted is that part's, AP is of no part."""
    evaluation = judged(0)
    dataset = evaluation.dataset
    there = od.to_fiftyone(dataset, predictions=evaluation, score=0.0)
    half = list(range(0, len(dataset), 2))
    there.match(field("image_id").is_in([dataset.image_ids[i] for i in half])).tag_samples("half")
    results = there.load_evaluation_results("eval")
    part = evaluate(dataset.select(half), evaluation.predictions.for_dataset(dataset.select(half)))
    with results.use_subset({"type": "field", "field": "tags", "value": "half"}):
        counts = part.per_image(0.0)
        true, false = int(counts.true_positives.sum()), int(counts.false_positives.sum())
        assert results.metrics()["precision"] == pytest.approx(true / (true + false))
        assert "AP50" not in results.metrics()
        matrix = results.confusion_matrix(include_missing=True)
        assert matrix.tolist() == part.confusion_matrix(score=0.0).counts.tolist()
        with pytest.raises(ValueError, match="to have its AP"):
            results.mAP()
    assert results.mAP() == pytest.approx(evaluation.ap)


def field(name: str) -> Any:
    from fiftyone import ViewField

    return ViewField(name)


def test_runs_side_by_side_have_an_evaluation_each_and_a_new_one_takes_the_old_ones_place() -> None:
    evaluation = judged(2)
    few = evaluate(evaluation.dataset, evaluation.predictions.above(0.5))
    both = od.to_fiftyone(evaluation.dataset, predictions={"run_1": evaluation, "run_2": few}, score=0.5)
    assert {"eval_run_1", "eval_run_2"} <= set(both.list_evaluations())
    assert both.load_evaluation_results("eval_run_1").mAP() == pytest.approx(evaluation.ap)
    assert both.load_evaluation_results("eval_run_2").mAP() == pytest.approx(few.ap)
    again = od.to_fiftyone(evaluation.dataset, predictions={"run_1": few}, score=0.5)
    again.clear_cache()
    assert again.load_evaluation_results("eval_run_1").mAP() == pytest.approx(few.ap)
    assert again.has_saved_view("run_1: worst first")


def test_predictions_alone_are_judged_and_what_cannot_be_judged_is_shown_all_the_same() -> None:
    evaluation = judged(0)
    dataset = evaluation.dataset
    there = od.to_fiftyone(dataset, predictions=evaluation.predictions, score=0.2)
    assert there.load_evaluation_results("eval").mAP() == pytest.approx(evaluation.ap)
    classes = dataset.box_classes.copy()
    classes[0] = -1
    unknown = od.to_fiftyone(dataset.replace(box_classes=classes), predictions=evaluation.predictions)
    assert unknown.list_evaluations() == ["eval"]
    assert unknown.load_evaluation_results("eval") is None
    with pytest.raises(ValueError, match="of other images or labels"):
        od.to_fiftyone(dataset.select([0, 1]), predictions=evaluation)


def test_a_box_deleted_in_the_app_keeps_the_figures() -> None:
    evaluation = judged(0)
    there = od.to_fiftyone(evaluation.dataset, predictions=evaluation, score=0.0)
    first = there.match(field("ground_truth.detections").length() > 0).first()
    first.ground_truth.detections = first.ground_truth.detections[1:]
    first.save()
    again = od.to_fiftyone(evaluation.dataset, predictions=evaluation, score=0.0)
    results = again.load_evaluation_results("eval")
    assert results.mAP() == pytest.approx(evaluation.ap)
    assert results.metrics()["support"] == evaluation.class_boxes.sum()


def halves(folder: Path) -> Dataset:
    """Squares, every second picture of them darkened to a tenth."""
    from PIL import Image

    dataset = squares(folder, 8)
    for path in dataset.image_paths[1::2]:
        Image.open(path).point(lambda value: value // 10).save(path)
    return dataset


def test_the_map_and_the_search_know_what_looks_alike(tmp_path: Path) -> None:
    dataset = halves(tmp_path / "squares")
    browser = browse(dataset)
    browser.open_map()
    there = browser.dataset
    points = there.load_brain_results("map").points
    assert points.shape == (8, 2)
    assert np.isfinite(points).all()
    middle = [points[k::2].mean(0) for k in (0, 1)]
    near = [np.linalg.norm(points[k::2] - middle[k], axis=1).max() for k in (0, 1)]
    assert np.linalg.norm(middle[0] - middle[1]) > 2 * max(near), "dark and light lie apart"
    view = browser.similar(3)
    found = view.values("image_id")
    assert found[0] == "003.png"
    assert set(found[:4]) == {"001.png", "003.png", "005.png", "007.png"}
    assert browser.view == view
    assert browser.similar("000.png").first().image_id == "000.png"
    assert there.values("split") == dataset.image_splits.tolist()
    assert set(there.values("main_class")) <= {*dataset.class_names, "(none)"}
    assert not browser.changes(), "a map is no edit"
    with pytest.raises(KeyError, match=r"no image 'x\.png'"):
        browser.similar("x.png")
    with pytest.raises(ValueError, match="browse a Dataset or a Run"):
        browse(there).open_map()
    there.delete_samples(there.match({"image_id": {"$ne": "003.png"}}))
    browse(dataset).open_map(od.build_detector("starter", ["red"], weights="random"))
    there.clear()
    with pytest.raises(ValueError, match="has no images to make a map of"):
        browse(dataset).open_map()


def test_a_map_is_computed_once_a_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from odkit.browsing import fo_map

    dataset = squares(tmp_path / "squares", 4)
    looked: list[int] = []
    features = fo_map.features
    monkeypatch.setattr(fo_map, "features", lambda *a, **k: looked.append(1) or features(*a, **k))
    browse(dataset).open_map()
    browse(dataset).similar(1)
    assert len(looked) == 1, "kept in FiftyOne"
    browse(dataset).open_map(od.build_detector("starter", ["red"], weights="random"))
    assert len(looked) == 2, "another detector has another map"
    browse(dataset, keep_edits=False).open_map()
    assert len(looked) == 3, "begun anew"


def test_an_evaluation_panel_needs_an_evaluation(tmp_path: Path) -> None:
    dataset = squares(tmp_path / "squares", 4)
    with pytest.raises(ValueError, match="no evaluation here"):
        browse(dataset).open_evaluation()
    assert browse(evaluate(dataset, exact(dataset))).open_evaluation() is None


def test_tags_of_predictions_stay_with_them(tmp_path: Path) -> None:
    dataset = squares(tmp_path / "squares", 4)
    found = exact(dataset)
    there = browse(evaluate(dataset, found)).dataset
    blue = there.match({"image_id": "001.png"}).filter_labels("predictions", field("label") == "blue")
    blue.tag_labels("look", "predictions")
    again = browse(evaluate(dataset, found)).dataset
    assert again.count_label_tags("predictions") == {"look": 1}
    (label,) = again.match({"image_id": "001.png"}).first().predictions.detections[:1]
    assert (label.label, label.tags) == ("blue", ["look"])
    red = found.select(found.classes == 1)
    assert browse(evaluate(dataset, red)).dataset.count_label_tags("predictions") == {}


def test_a_list_of_one_is_that_one(tmp_path: Path) -> None:
    """As `od.list_runs()` gives it after a first run."""
    dataset = squares(tmp_path / "squares", 4)
    run = SimpleNamespace(name="first", evaluation=lambda: evaluate(dataset, exact(dataset)))
    browser = browse([run])
    assert browser.dataset.list_evaluations() == ["eval"]
    assert browser.view.count() == 4


def exact(dataset: Dataset) -> Predictions:
    return Predictions(
        boxes=dataset.boxes,
        scores=np.full(dataset.num_boxes, 0.9),
        classes=dataset.box_classes,
        images=dataset.box_images,
        class_names=dataset.class_names,
    )
