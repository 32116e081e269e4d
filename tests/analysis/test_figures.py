"""Every figure on small drawn images: what is on it, and that odd input gives a picture rather than a crash."""

import io
import math
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image, ImageDraw

from odkit.analysis import figures
from odkit.analysis.comparison import compare
from odkit.analysis.evaluation import evaluate
from odkit.analysis.figures.colors import KIND_COLORS
from odkit.analysis.tide import mistakes
from odkit.data.dataset import Dataset
from odkit.data.duplicates import SimilarPair
from odkit.data.predictions import Predictions
from tests.helpers import make_dataset, make_predictions

NAMES = ("nut", "bolt", "$5 note")


@pytest.fixture
def dataset(tmp_path):
    """Five images of coloured squares; the last file is missing."""
    rng = np.random.default_rng(0)
    paths, boxes, classes, images = [], [], [], []
    for image in range(5):
        picture = Image.new("RGB", (120, 90), "#556677")
        for label in range(2 + image % 2):
            x, y = rng.integers(0, 70), rng.integers(0, 50)
            box = [int(x), int(y), int(x) + 40, int(y) + 30]
            ImageDraw.Draw(picture).rectangle(box, fill=("#aa8844", "#ccccdd", "#88aa66")[label])
            boxes.append(box)
            classes.append(label)
            images.append(image)
        paths.append(tmp_path / f"{image}.png")
        if image < 4:
            picture.save(paths[-1])
    return Dataset(
        name="shapes",
        root=tmp_path,
        class_names=NAMES,
        image_paths=list(map(str, paths)),
        image_sizes=[(120, 90)] * 5,
        image_splits=["train", "train", "train", "val", "val"],
        boxes=boxes,
        box_classes=classes,
        box_images=images,
    )


@pytest.fixture
def predictions(dataset):
    """The first box of each image is found, the second gets the wrong class, one is invented."""
    rows = []
    for image in range(len(dataset)):
        first, second, *_ = range(*dataset.boxes_of(image).indices(dataset.num_boxes))
        rows.append((image, 0, 0.9, dataset.boxes[first] + [1, 0, 2, 1]))
        rows.append((image, 2, 0.7, dataset.boxes[second]))
        rows.append((image, 1, 0.6, [100, 70, 119, 89]))
        rows.append((image, 0, 0.1, [0, 0, 9, 9]))
    return Predictions(
        boxes=[box for *_, box in rows],
        scores=[score for _, _, score, _ in rows],
        classes=[label for _, label, _, _ in rows],
        images=[image for image, *_ in rows],
        class_names=NAMES,
        image_ids=tuple(dataset.image_ids),
    )


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB")).astype(int)


def has_color(figure, color, least=20):
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(pixels(figure) - wanted).max(2) <= 12).sum() >= least


def texts(figure):
    """All that is written on a figure, legends included."""
    return " | ".join(t.get_text() for t in figure.findobj(mpl.text.Text) if t.get_text())


HISTORY = [
    {
        "epoch": k + 1,
        "step": 10 * k,
        "loss": 2 / (k + 1),
        "learning_rate": 1e-3,
        "ap": 0.1 * k,
        "ap50": 0.15 * k,
    }
    for k in range(6)
]


def test_show_images(dataset):
    figure = figures.show_images(dataset)
    assert "2 boxes" in texts(figure)
    assert "3 boxes" in texts(figure)
    assert "0.png" in texts(figure)
    assert "file not found" in texts(figure)
    assert "$5 note" in texts(figure)
    assert all(has_color(figure, figures.class_color(k)) for k in range(3))
    height, width, _ = pixels(figure).shape
    assert width == 1000
    assert height < 700


def test_images_are_chosen_by_index_id_or_seed(dataset):
    assert "1.png" in texts(figures.show_images(dataset, [1]))
    assert "0.png" not in texts(figures.show_images(dataset, [1]))
    assert "3.png" in texts(figures.show_images(dataset, ["3.png", -1]))
    once, again = (texts(figures.show_images(dataset, count=2, seed=7)) for _ in range(2))
    assert once == again
    with pytest.raises(IndexError, match="shapes has images 0 to 4, not 9"):
        figures.show_images(dataset, [9])
    with pytest.raises(KeyError, match=r"no image 'x\.png'"):
        figures.show_images(dataset, ["x.png"])


@pytest.mark.parametrize("classes", [1, 3, 30])
def test_calibration(classes):
    rng = np.random.default_rng(0)
    truth = [(i, i % classes, (10, 10, 60, 60)) for i in range(600)]
    # half of what is found with a score of 0.85 is right, and all with 0.45
    found = [
        (i, i % classes, 0.85, (10, 10, 60, 60) if rng.random() < 0.5 else (200, 200, 250, 250))
        for i in range(600)
    ]
    found += [(i, i % classes, 0.45, (10, 10, 60, 60)) for i in range(600) if found[i][3][0] > 60]
    names = tuple(f"part {k}" for k in range(classes))
    evaluation = evaluate(make_dataset(truth, images=600, names=names), make_predictions(found, names=names))
    written = texts(figures.calibration(evaluation))
    assert f"all  {evaluation.calibration().error:.2f}" in written
    assert "grey: under 0.3, not looked at" in written
    assert written.count("part ") == {1: 0, 3: 3, 30: 6}[classes]
    assert ("24 others" in written) == (classes == 30)
    own = figures.calibration(evaluation.calibration(least=0, iou=0.75))
    assert "not looked at" not in texts(own)
    assert "share that is right (IoU 0.75)" in texts(own)
    least = figures.calibration(evaluation.calibration(least=0.9))
    assert "nothing predicted with a score from 0.9 on" in texts(least)
    assert has_color(least, "#f2f3f5")


def test_show_predictions(dataset, predictions):
    figure = figures.show_predictions(dataset, predictions, [0, 1])
    written = texts(figure)
    assert "1 right, 2 wrong, 1 missed" in written
    assert "1 right, 2 wrong, 2 missed" in written
    assert "nut 0.90" in written
    assert "0.10" not in written
    assert len(figure.axes) == 4
    assert len(figures.show_predictions(dataset, predictions, [2]).axes) == 2


def test_show_predictions_without_image_ids(dataset, predictions):
    positional = Predictions(
        boxes=predictions.boxes,
        scores=predictions.scores,
        classes=predictions.classes,
        images=predictions.images,
        class_names=NAMES,
    )
    assert texts(figures.show_predictions(dataset, positional, [3])) == texts(
        figures.show_predictions(dataset, predictions, [3])
    )


def test_show_worst_puts_the_reason_on_the_image(dataset, predictions):
    figure = figures.show_worst(dataset, predictions, count=2, score=0.5)
    written = texts(figure)
    assert "missed $5 note" in written
    assert "$5 note 0.70, is bolt" in written
    assert "nothing there" in written
    assert "1.png" in written
    assert "3.png" in written
    assert has_color(figure, KIND_COLORS["Cls"])
    assert has_color(figure, KIND_COLORS["Miss"])
    evaluation = evaluate(dataset, predictions)
    for found in (evaluation, mistakes(evaluation, score=0.5)):
        assert len(figures.show_worst(dataset, found, count=3, score=0.5).axes) == 3


def test_show_suspects(dataset, predictions):
    found = mistakes(dataset, predictions)
    figure = figures.show_suspects(found, count=3)
    assert len(figure.axes) == 3
    assert f"wrong class? ({found.suspects[0].score:.2f})" in texts(figure)
    assert "labelled bolt" in texts(figure)
    assert "$5 note?" in texts(figure)
    nothing = mistakes(dataset.select([]), predictions.select([]))
    assert figures.show_suspects(nothing)._repr_png_()


def test_training_curves():
    figure = figures.training_curves(HISTORY, title="a run")
    assert "best 0.500" in texts(figure)
    assert "a run" in texts(figure)
    assert [line.get_label() for line in figure.axes[1].lines][:2] == ["AP", "AP50"]
    assert len(figure.axes[0].lines[0].get_xdata()) == 6


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"epoch": 1, "loss": 1.5}],
        [{"epoch": 1, "loss": None, "ap": math.nan}, {"epoch": 2, "loss": math.inf, "ap": None}],
        [{"step": 10, "loss": 2.0, "learning_rate": 0.1}, {"step": 20, "loss": 1.0, "learning_rate": 0.2}],
    ],
)
def test_training_curves_of_little(history):
    assert figures.training_curves(history)._repr_png_()
    assert figures.compare_curves({"one": history, "other": []})._repr_png_()


def test_one_epoch_is_written_out_and_no_dot_stands_for_a_curve():
    figure = figures.training_curves(HISTORY[1:2])
    assert not any(axes.lines for axes in figure.axes)
    for written in ("loss 1", "AP 0.1", "AP50 0.15", "learning rate 0.001", "after one epoch"):
        assert written in texts(figure)
    alone = figures.compare_curves({"one": HISTORY[1:2], "other": HISTORY[2:3]})
    assert not any(axes.lines for axes in alone.axes)
    assert "one 0.1" in texts(alone)
    beside = figures.compare_curves({"one": HISTORY[1:2], "other": HISTORY})
    assert [len(axes.lines) for axes in beside.axes] == [2, 2, 2]


def test_compare_curves():
    figure = figures.compare_curves({"fine-tuned": HISTORY, "from random weights": HISTORY[:3]})
    assert "fine-tuned" in texts(figure)
    assert "from random weights" in texts(figure)
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 2]


def test_figures_of_an_evaluation(dataset, predictions):
    evaluation = evaluate(dataset, predictions)
    curves = figures.precision_recall(evaluation)
    assert "nut  1.00  at 0.90" in texts(curves)
    matrix = figures.confusion_matrix(evaluation, score=0.5)
    assert "missed" in texts(matrix)
    assert "score 0.50" in texts(matrix)
    bars = figures.per_class_ap({"before": evaluation, "after": evaluation})
    assert "AP before" in texts(bars)
    assert "AP after" in texts(bars)
    assert "$5 note" in texts(figures.per_class_ap(evaluation))
    costs = figures.mistake_costs(mistakes(evaluation, score=0.5))
    assert "Mistakes at score 0.50" in texts(costs)
    assert "wrong class" in texts(costs)
    kinds = figures.mistakes_by_class(mistakes(evaluation, score=0.5))
    assert "nothing there" in texts(kinds)
    assert has_color(kinds, KIND_COLORS["Cls"])
    change = figures.comparison_bars(compare(evaluation, evaluation, samples=20))
    assert "all classes" in texts(change)
    for figure in (curves, matrix, bars, costs, kinds, change):
        assert figure._repr_png_()


def test_a_title_says_which_split_the_figures_are_of(dataset, predictions):
    of_val = evaluate(dataset.split("val"), predictions)
    for draw in (figures.precision_recall, figures.confusion_matrix, figures.per_class_ap):
        assert ", val images" in texts(draw(of_val))
        assert "val images" not in texts(draw(evaluate(dataset, predictions)))
    for draw in (figures.mistake_costs, figures.mistakes_by_class):
        assert ", val images" in texts(draw(mistakes(of_val, score=0.5)))
    assert ", val images" in texts(figures.comparison_bars(compare(of_val, of_val, samples=5)))
    of_train = evaluate(dataset.split("train"), predictions)
    assert " images" not in texts(figures.per_class_ap({"val": of_val, "train": of_train}))


def test_figures_of_a_dataset(dataset):
    bars = figures.class_distribution(dataset)
    assert "train" in texts(bars)
    assert "val" in texts(bars)
    assert "5  (41.7%)" in texts(bars)
    assert "Width and height" in texts(figures.box_sizes(dataset))
    unsplit = figures.class_distribution(dataset.replace(image_splits=None))
    assert "train" not in texts(unsplit)
    assert unsplit._repr_png_()


def test_empty_and_odd_data_still_give_a_picture(dataset, predictions):
    nothing = dataset.select([])
    bare = dataset.select_boxes([])
    none = predictions.select([])
    for data in (nothing, bare):
        for draw in (figures.show_images, figures.class_distribution, figures.box_sizes):
            assert draw(data)._repr_png_()
        evaluation = evaluate(data, none)
        assert figures.show_predictions(data, none)._repr_png_()
        assert figures.show_worst(data, evaluation)._repr_png_()
        for draw in (figures.precision_recall, figures.confusion_matrix, figures.per_class_ap):
            assert draw(evaluation)._repr_png_()
        for draw in (figures.mistake_costs, figures.mistakes_by_class):
            assert draw(mistakes(evaluation))._repr_png_()
        if len(data):
            assert figures.comparison_bars(compare(evaluation, evaluation, samples=5))._repr_png_()
    odd = dataset.boxes.copy()
    odd[0], odd[1] = np.nan, [50, 50, 20, 20]
    unknown = dataset.box_classes.copy()
    unknown[2] = -1
    strange = dataset.replace(boxes=odd, box_classes=unknown)
    for draw in (figures.show_images, figures.class_distribution, figures.box_sizes):
        assert draw(strange)._repr_png_()


def test_many_classes_stay_readable():
    rng = np.random.default_rng(1)
    names = tuple(f"a rather long class name {k}" for k in range(60))
    corner = rng.uniform(0, 300, (400, 2))
    boxes = np.hstack([corner, corner + rng.uniform(5, 200, (400, 2))])
    images, classes = np.sort(rng.integers(0, 20, 400)), rng.integers(0, 60, 400)
    dataset = Dataset(
        class_names=names,
        image_paths=[f"/none/{k}.jpg" for k in range(20)],
        image_sizes=[(500, 500)] * 20,
        boxes=boxes,
        box_classes=classes,
        box_images=images,
    )
    found = Predictions(
        boxes=boxes + 2, scores=rng.random(400), classes=classes, images=images, class_names=names
    )
    evaluation = evaluate(dataset, found)
    drawn = [
        figures.precision_recall(evaluation),
        figures.confusion_matrix(evaluation),
        figures.per_class_ap(evaluation),
        figures.class_distribution(dataset),
        figures.box_sizes(dataset),
        figures.show_images(dataset),
    ]
    for figure in drawn:
        height, width, _ = pixels(figure).shape
        assert width <= 1400
        assert height <= 2400
    assert "20 classes in the middle left out" in texts(drawn[2])
    assert "20 rarer classes left out" in texts(drawn[3])
    assert "the 25 classes confused most of 60" in texts(drawn[1])
    rare = evaluate(dataset.select_boxes(dataset.box_classes < 20), found)
    assert "AP by class (40 without ground truth)" in texts(figures.per_class_ap(rare))


def test_a_few_boxes_far_off_do_not_stretch_the_chart_of_sizes():
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 200, (200, 2)), rng.uniform(40, 90, (200, 2))
    boxes = np.hstack([corner, corner + side])
    boxes[:2, 2:] = boxes[:2, :2] + 1
    columns = {"image_paths": ["/none/a.jpg"], "image_sizes": [(400, 400)], "class_names": ("a",)}
    data = Dataset(boxes=boxes, box_classes=[0] * 200, box_images=[0] * 200, **columns)
    figure = figures.box_sizes(data)
    assert figure.axes[0].get_xlim()[0] > 25
    assert "2 far beyond, x at the edge" in texts(figure)
    alike = figures.box_sizes(data.select_boxes(range(2, 200)))
    assert "beyond" not in texts(alike)
    few = figures.box_sizes(data.select_boxes([0, 5, 6]))
    assert few.axes[0].get_xlim()[0] < 1, "of three boxes none is odd"


def test_images_of_a_row_are_equally_high_and_fill_it(tmp_path):
    sizes = [(120, 90), (60, 100), (120, 90), (100, 100), (90, 120), (400, 40)]
    for k, size in enumerate(sizes):
        Image.new("RGB", size, "#556677").save(tmp_path / f"{k}.png")
    data = Dataset(
        class_names=("a",),
        root=tmp_path,
        image_paths=[str(tmp_path / f"{k}.png") for k in range(6)],
        image_sizes=sizes,
        boxes=[],
        box_classes=[],
        box_images=[],
    )
    figure = figures.show_images(data, columns=3, count=6)
    places = [axes.get_position(original=True) for axes in figure.axes]
    for row in (places[:3], places[3:]):
        assert len({round(place.height, 6) for place in row}) == 1
        assert row[0].x0 == 0
        assert row[-1].x1 == pytest.approx(1)
    assert all(axes.get_aspect() == 1 for axes in figure.axes)


def test_show_pairs(dataset):
    pair = SimilarPair(0.97, 0, 3, "0.png", "3.png", "train", "val")
    written = texts(figures.show_pairs(dataset, [pair]))
    for part in ("0.png", "3.png", "train", "val, similarity 0.970"):
        assert part in written
    same = replace(pair, second_split="", equal=True)
    assert "no split, equal pixels" in texts(figures.show_pairs(dataset, [same, pair]))
    assert "no two images look the same" in texts(figures.show_pairs(dataset, []))


def test_speed_bars():
    figure = figures.speed_bars({"fast": 120.0, "slow": 0.25})
    assert {"120", "0.25", "fast", "slow"} <= set(texts(figure).split(" | "))
    assert figure._repr_png_()
    assert "no detector was measured" in texts(figures.speed_bars({}))


def test_what_a_lower_score_finds_is_told_beside_the_misses():
    """Four boxes: one found, two found with a low score only, one not at all."""
    dataset = make_dataset([(k, 0, (20, 20, 80, 80)) for k in range(4)], images=4)
    seen = [(k, 0, score, (20, 20, 80, 80)) for k, score in enumerate((0.9, 0.3, 0.2))]
    found = mistakes(evaluate(dataset, make_predictions(seen)), score=0.5)
    assert (found.counts["Miss"], found.found_later) == (3, 2)
    assert "2 of them found with a lower score" in texts(figures.mistake_costs(found))
    all_scores = mistakes(evaluate(dataset, make_predictions(seen)), score=0.1)
    assert (all_scores.counts["Miss"], all_scores.found_later) == (1, 0)
    assert "lower score" not in texts(figures.mistake_costs(all_scores))


def test_figures_of_mistakes_say_where_there_is_nothing_to_show(dataset):
    perfect = Predictions(
        boxes=dataset.boxes,
        scores=np.full(dataset.num_boxes, 0.9),
        classes=dataset.box_classes,
        images=dataset.box_images,
        class_names=NAMES,
    )
    found = mistakes(dataset, perfect)
    assert "no mistake" in texts(figures.mistake_costs(found))
    assert "no label is contradicted" in texts(figures.show_suspects(found))
    bare = mistakes(dataset.select_boxes([]), perfect.select([]))
    assert "no ground truth to measure on" in texts(figures.mistake_costs(bare))
    assert "nothing labelled, nothing predicted" in texts(figures.confusion_matrix(bare.evaluation))
    (bars,) = figures.per_class_ap({"before": bare.evaluation, "after": bare.evaluation}).axes
    low, high = sorted(bars.get_ylim())
    assert all(low < t.get_position()[1] < high for t in bars.texts), (
        "what is said stands inside of the chart"
    )
    assert "nan" not in texts(figures.mistake_costs(bare))


def test_a_notebook_shows_a_figure_once_and_pyplot_keeps_none(dataset):
    import matplotlib.pyplot as plt
    from IPython.core.formatters import DisplayFormatter

    before = dict(mpl.rcParams)
    figure = figures.show_images(dataset)
    shown, _ = DisplayFormatter().format(figure)
    assert sorted(shown) == ["image/png", "text/plain"]
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before
