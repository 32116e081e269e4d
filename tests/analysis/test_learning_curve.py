"""The learning curve: the law through known points, its band, and words that fit what was measured."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from odkit.analysis import figures
from odkit.analysis.evaluation import evaluate
from odkit.analysis.learning_curve import LearningCurve, _resampled_ap, fit_learning_curve
from odkit.system import InputError
from tests.analysis.test_figures import texts
from tests.helpers import make_dataset, make_predictions, random_case

BOX = (100, 100, 200, 200)
SIZES = (40, 100, 200, 400)
LAWS = {  # a, b, c: where the curve ends, what is still to be won, how fast
    "steep": (0.9, 0.2, 0.5),
    "slow": (0.95, 0.4, 0.2),
    "nearly flat": (0.7, 0.02, 1.0),
}


def ap(law: tuple[float, float, float], images: float) -> float:
    a, b, c = law
    return a - b * (images / SIZES[-1]) ** -c


def judged(images: int, aps: dict[int, float], luck: np.ndarray | None = None):
    """Evaluations on so many images of one box each: for an AP of 0.6 six in ten of them are found, by their luck."""
    dataset = make_dataset([(k, 0, BOX) for k in range(images)], images=images, names=("nut",))
    luck = (np.arange(images) + 0.5) / images if luck is None else luck
    return [
        (
            size,
            dataclasses.replace(evaluate(dataset, found(luck < value)), ap=value),  # not in steps of 0.01
            Path(f"runs/{size}"),
        )
        for size, value in aps.items()
    ]


def found(where: np.ndarray):
    return make_predictions([(k, 0, 0.9 - k / 10_000, BOX) for k in np.flatnonzero(where)], names=("nut",))


def curve_of(aps: dict[int, float], images: int = 200, **more) -> LearningCurve:
    return fit_learning_curve(judged(images, aps), samples=100, **more)


@pytest.mark.parametrize("name", LAWS)
def test_a_power_law_is_found_again(name: str) -> None:
    law = LAWS[name]
    curve = curve_of({size: ap(law, size) for size in SIZES}, images=1000)
    for images in (60, 400, 800, 1600):
        expected = curve.predict(images)
        assert expected.ap == pytest.approx(ap(law, images), abs=0.002)
        assert expected.low < ap(law, images) < expected.high
    assert curve.gain(800).ap == pytest.approx(ap(law, 800) - ap(law, 400), abs=0.002)
    assert curve.gain(400) == (0, 0, 0)


@pytest.mark.slow
def test_the_band_holds_the_truth_about_as_often_as_it_says() -> None:
    """Other validation images each time, the same for all points; and other luck in training."""
    inside = gains = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        law = (0.85, rng.uniform(0.02, 0.2), rng.uniform(0.2, 1.0))
        trained = {size: ap(law, size) + rng.normal(0, 0.01) for size in SIZES}
        curve = fit_learning_curve(judged(100, trained, rng.random(100)), samples=100, seed=seed)
        low, high = curve.predict(800)[1:]
        inside += low <= ap(law, 800) <= high
        low, high = curve.gain(800)[1:]
        gains += low <= ap(law, 800) - ap(law, 400) <= high
    assert 35 <= inside <= 40
    assert 35 <= gains <= 40


def test_it_reaches_as_far_as_the_points_do() -> None:
    curve = curve_of(dict(zip(SIZES, (0.4, 0.5, 0.6, 0.65), strict=True)))
    assert (
        curve.predict(1600).high - curve.predict(1600).low > curve.predict(400).high - curve.predict(400).low
    )
    for images in (39, 1601):
        with pytest.raises(InputError, match=f"40 to 1,600 images .* not of {images:,}"):
            curve.predict(images)


WORDS = {
    "has not flattened": (0.2, 0.35, 0.5, 0.65),
    "has flattened": (0.3, 0.7, 0.7, 0.7),
    "cannot tell": (0.5, 0.6, 0.66, 0.66),
    "AP even fell with the number of pictures": (0.6, 0.59, 0.58, 0.57),
    "hardly anything was found": (0, 0, 0, 0),
}


@pytest.mark.parametrize("words", WORDS)
def test_the_answer_in_words(words: str) -> None:
    curve = curve_of(dict(zip(SIZES, WORDS[words], strict=True)))
    assert words in curve.verdict
    assert words in repr(curve)
    assert words in curve._repr_html_()
    plain = json.loads(json.dumps(curve.to_dict(), allow_nan=False))
    assert [point["images"] for point in plain["points"]] == list(SIZES)
    assert [row["images"] for row in plain["expected"]] == [800, 1600]
    assert plain["verdict"] == curve.verdict
    for images in (40, 400, 1600):
        assert 0 <= curve.predict(images).low <= curve.predict(images).ap <= curve.predict(images).high <= 1
    assert figures.learning_curve(curve)._repr_png_()


def test_a_curve_that_falls_promises_nothing() -> None:
    curve = curve_of(dict(zip(SIZES, WORDS["AP even fell with the number of pictures"], strict=True)))
    assert curve.gain(800).ap == 0
    assert curve.predict(1600).ap == pytest.approx(0.585, abs=0.01)


def test_what_found_nothing_lies_before_the_law() -> None:
    law = (0.9, 0.3, 0.5)
    aps = {10: 0.0, **{size: ap(law, size) for size in SIZES}}
    assert curve_of(aps, images=1000).predict(800).ap == pytest.approx(ap(law, 800), abs=0.002)


def test_several_runs_of_a_size_are_one_point_and_tell_their_noise() -> None:
    aps = dict(zip(SIZES, (0.4, 0.5, 0.55, 0.58), strict=True))
    close = judged(200, aps) + judged(200, {size: value + 0.01 for size, value in aps.items()})
    far = judged(200, {size: value - 0.1 for size, value in aps.items()}) + judged(
        200, {size: value + 0.1 for size, value in aps.items()}
    )
    one, other = (fit_learning_curve(runs, samples=100) for runs in (close, far))
    assert [len(point.aps) for point in one.points] == [2] * 4
    assert one.points[0].runs == (Path("runs/40"), Path("runs/40"))
    for point, value in zip(other.points, aps.values(), strict=True):
        assert point.ap == pytest.approx(value, abs=0.01)
    assert other.gain(800).high - other.gain(800).low > one.gain(800).high - one.gain(800).low


def test_the_same_seed_gives_the_same_curve() -> None:
    aps = dict(zip(SIZES, (0.4, 0.5, 0.55, 0.58), strict=True))
    assert curve_of(aps, seed=3).to_dict() == curve_of(aps, seed=3).to_dict()
    assert curve_of(aps, seed=3).to_dict() != curve_of(aps, seed=4).to_dict()


def test_too_few_sizes_and_nothing_to_judge_by() -> None:
    with pytest.raises(InputError, match="needs 3 sizes of training set, not 2"):
        curve_of({100: 0.4, 200: 0.5})
    empty = evaluate(make_dataset([], images=3), make_predictions([]))
    with pytest.raises(InputError, match="no boxes"):
        fit_learning_curve([(size, empty, Path()) for size in SIZES])


@pytest.mark.parametrize("seed", range(4))
def test_a_draw_of_images_is_judged_as_an_evaluation_of_them(seed: int) -> None:
    dataset, predictions = random_case(seed, images=20)
    found = predictions.for_dataset(dataset)  # with image ids, so that a selection finds its own
    draws = np.zeros((3, 20), np.int64)
    draws[0] = 1
    draws[1, ::2] = 1
    aps = _resampled_ap(evaluate(dataset, found), draws)
    half = evaluate(dataset.select(np.arange(0, 20, 2)), found)
    assert aps[:2] == pytest.approx([evaluate(dataset, found).ap, half.ap], abs=1e-9)
    assert math.isnan(aps[2])  # without an image there is no box


def test_the_figure_says_what_is_measured_and_what_is_guessed() -> None:
    curve = curve_of(dict(zip(SIZES, (0.4, 0.5, 0.6, 0.65), strict=True)), name="nuts")
    figure = figures.learning_curve(curve)
    twice = curve.predict(800)
    assert f"about {twice.ap:.2f}\n({twice.low:.2f} to {twice.high:.2f})" in texts(figure)
    assert "What more pictures would give: nuts" in texts(figure)
    assert "now: 400" in texts(figure)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert list(axes.get_xticks()) == [*SIZES, 800, 1600]
    dashed = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert (dashed.get_xdata()[0], dashed.get_xdata()[-1]) == (400, 1600)
