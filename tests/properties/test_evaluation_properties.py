"""Evaluation: pycocotools says the same of any boxes and predictions, and what cannot matter does not."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from odkit.analysis import evaluate
from tests.helpers import make_dataset, make_predictions, pycocotools_figures

# corners on a coarse grid and few scores, so that overlaps of exactly a threshold and ties are common
corners = st.integers(0, 12).map(lambda value: value * 10.0)
kinds, images = st.integers(0, 3), st.integers(0, 3)
scores = st.integers(1, 10).map(lambda value: value / 10)


@st.composite
def boxes(draw: st.DrawFn) -> list[float]:
    x, y = draw(corners), draw(corners)
    return [x, y, x + 10 + draw(corners), y + 10 + draw(corners)]


truths = st.lists(st.tuples(images, kinds, boxes(), st.booleans()), min_size=1, max_size=12)
founds = st.lists(st.tuples(images, kinds, scores, boxes()), max_size=25)


@given(truths, founds)
def test_the_figures_are_those_of_pycocotools(truth: list, found: list) -> None:
    truth = sorted(truth, key=lambda row: row[0])
    dataset = make_dataset([row[:3] for row in truth], images=4, crowd=[row[3] for row in truth])
    predictions = make_predictions(found)
    figures, per_class = pycocotools_figures(dataset, predictions)
    e = evaluate(dataset, predictions)
    ours = [e.ap, e.ap50, e.ap75, e.ap_small, e.ap_medium, e.ap_large]
    ours += [e.ar1, e.ar10, e.ar, e.ar_small, e.ar_medium, e.ar_large]
    np.testing.assert_allclose(np.array(ours, float), figures, atol=1e-9)
    classes = np.stack([e.class_ap, e.class_ap50, e.class_ap75, e.class_ar], axis=1)
    np.testing.assert_allclose(classes, per_class, atol=1e-9)


@given(truths)
def test_what_is_the_ground_truth_itself_is_perfect(truth: list) -> None:
    truth = sorted(truth, key=lambda row: row[0])
    dataset = make_dataset([row[:3] for row in truth], images=4)
    found = make_predictions([(image, kind, 1.0, box) for image, kind, box, _ in truth])
    np.testing.assert_allclose(evaluate(dataset, found).ap, 1)
