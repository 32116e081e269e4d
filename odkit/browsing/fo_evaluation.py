"""Our evaluation as FiftyOne stores one, so that the App's Model Evaluation panel shows our figures.

FiftyOne would compute it anew, sample by sample, and by a rule of its own for crowds. Imported only where FiftyOne is
loaded, by name from its database too: the App's server makes a `PanelResults` of what was written there.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from fiftyone.utils.eval.coco import COCODetectionResults, COCOEvaluationConfig
from numpy.typing import NDArray

from odkit.analysis import Evaluation, Matches
from odkit.browsing.fo_dataset import GROUND_TRUTH
from odkit.data import Dataset, Predictions

NOTHING = "(nothing)"  # what stands for no box and for no prediction
IOU = 0.5
MOST_CLASSES = 20  # whose AP is listed in the panel's summary


class PanelResults(COCODetectionResults):  # type: ignore[misc]
    """FiftyOne's results of a COCO evaluation, with figures of odkit's `Evaluation`.

    Precision, recall and F1 come from pairs matched within a class, as COCO matches. The confusion matrix has pairs of
    its own, matched whatever the class (see `odkit.analysis.Confusion`).

    Attributes:
        confusion: Four lists with an item a case: label of the box, label of the prediction, and their ids; None where
            there is none.
    """

    def __init__(self, *args: Any, confusion: Sequence[Sequence[Any]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.confusion = [list(column) for column in confusion]

    def metrics(self, *args: Any, **options: Any) -> dict[str, Any]:
        """FiftyOne's figures and ours; of a part of the images, only those that are counted on that part."""
        figures: dict[str, Any] = super().metrics(*args, **options)
        for one in self.custom_metrics.values() if self.has_subset else ():
            figures.pop(one["key"], None)
        return figures

    def mAP(self, classes: Any = None) -> Any:
        """Mean AP; a part of the images has none here.

        Raises:
            ValueError: The results are restricted to a part of the images.
        """
        self._refuse_part()
        return super().mAP(classes)

    def mAR(self, classes: Any = None) -> Any:
        """Mean recall over the IoUs; a part of the images has none here.

        Raises:
            ValueError: The results are restricted to a part of the images.
        """
        self._refuse_part()
        return super().mAR(classes)

    def _refuse_part(self) -> None:
        if self.has_subset:
            raise ValueError("evaluate this part of the images by itself to have its AP: od.evaluate()")

    def _confusion_matrix(self, *args: Any, **options: Any) -> Any:
        truth, found, boxes, predictions = (np.array(column, object) for column in self.confusion)
        if self.has_subset:
            kept, kept_found = set(self.ytrue_ids), set(self.ypred_ids)
            pairs = zip(boxes, predictions, strict=True)
            keep = np.array([b in kept if b else p in kept_found for b, p in pairs], bool)
            truth, found, boxes, predictions = truth[keep], found[keep], boxes[keep], predictions[keep]
        other = copy.copy(self)  # the App's server may count twice at the same time
        other.ytrue, other.ypred = (np.where(c == None, self.missing, c) for c in (truth, found))  # noqa: E711
        other.ytrue_ids, other.ypred_ids = boxes, predictions
        return COCODetectionResults._confusion_matrix(other, *args, **options)

    @classmethod
    def _from_dict(cls, d: dict[str, Any], *args: Any, **options: Any) -> Any:
        return super()._from_dict(d, *args, confusion=d["confusion"], **options)


def store(
    made: Any,
    key: str,
    label: str,
    evaluation: Evaluation | None,
    *,
    score: float,
    matches: Matches,
    box_ids: Sequence[str | None],
    prediction_ids: Sequence[str],
) -> None:
    """Write an evaluation into FiftyOne's dataset, under the key of the fields that mark its labels.

    Args:
        made: FiftyOne's dataset.
        key: The evaluation's key.
        label: The field of the predictions.
        evaluation: What the figures are of; None: the labels cannot be judged, and FiftyOne knows of the marks alone.
        score: Predictions below it are left out of all figures but AP and AR.
        matches: The predictions from that score on, matched.
        box_ids: FiftyOne's id of each row of the dataset's boxes; None where the box was deleted.
        prediction_ids: FiftyOne's id of each of these predictions.
    """
    limit = evaluation.max_detections if evaluation else 100
    config = COCOEvaluationConfig(
        label, GROUND_TRUTH, iou=IOU, classwise=True, compute_mAP=True, max_preds=limit, score=score
    )
    run = config.build()
    run.register_run(made, key, overwrite=True, cleanup=False)
    if evaluation is None:
        return
    boxes, found = np.array(box_ids, object), np.array(prediction_ids, object)
    figures = {"AP50": evaluation.ap50, "AP75": evaluation.ap75}
    if len(evaluation.class_names) <= MOST_CLASSES:  # the panel's table of classes has no column for AP
        each = zip(evaluation.class_names, evaluation.class_ap.tolist(), strict=True)
        figures |= {f"AP of {name}": value for name, value in each}
    figures["Score threshold"] = score
    results = PanelResults(
        *(made, config, key),
        _pairs(evaluation.dataset, evaluation.predictions.above(score), matches, boxes, found),
        _without_nan(evaluation.precision),
        np.linspace(0, 1, 101),
        config.iou_threshs,
        list(evaluation.class_names),
        recall_sweep=_without_nan(evaluation.recall),
        missing=NOTHING,
        custom_metrics={
            f"odkit/{name}": {"key": name, "label": name, "value": float(value), "lower_is_better": False}
            for name, value in figures.items()
            if np.isfinite(value)
        },
        backend=run,
        confusion=_confused(evaluation, score, boxes, found),
    )
    run.save_run_results(made, key, results)


def _without_nan(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # COCO's and FiftyOne's mark of a class without ground truth
    return np.where(np.isnan(values), -1, values)


def _pairs(
    dataset: Dataset, found: Predictions, matches: Matches, boxes: NDArray[Any], predictions: NDArray[Any]
) -> list[tuple[Any, ...]]:
    """Label of the box, of the prediction, IoU, score, ids: the predictions that count, then the missed boxes."""
    names = np.array([*dataset.class_names, None], object)  # the last stands for -1
    ids = _and_none(boxes)
    rows = np.flatnonzero(matches.kinds != "ignored")
    hit = matches.boxes[rows]
    ious = matches.ious[rows].astype(object)
    ious[hit < 0] = None
    columns = (
        names[np.append(dataset.box_classes, -1)[hit]],
        names[found.classes[rows]],
        ious,
        found.scores[rows].astype(float).astype(object),
        ids[hit],
        predictions[rows],
    )
    missed = np.flatnonzero((matches.predictions < 0) & ~dataset.box_crowd)
    left = zip(names[dataset.box_classes[missed]], ids[missed], strict=True)
    return [*zip(*columns, strict=True), *((name, None, None, None, i, None) for name, i in left)]


def _confused(
    evaluation: Evaluation, score: float, boxes: NDArray[Any], predictions: NDArray[Any]
) -> list[list[Any]]:
    """The cases of our confusion matrix as `PanelResults.confusion` has them."""
    cases = evaluation.confusion_matrix(score=score)
    names = np.array([*evaluation.class_names, None], object)  # the last is the background
    # of each prediction, its place among those from that score on; the last is for -1
    place = np.append(np.cumsum(evaluation.predictions.scores >= score) - 1, -1)
    columns = (
        names[cases.truth],
        names[cases.predicted],
        _and_none(boxes)[cases.boxes],
        _and_none(predictions)[place[cases.predictions]],
    )
    return [column.tolist() for column in columns]


def _and_none(values: NDArray[Any]) -> NDArray[Any]:
    """With None at the end, where the row -1 looks."""
    return np.array([*values, None], object)
