import numpy as np
import pytest

from odkit.data.demo.parts import PARTS
from odkit.data.demo.scenes import (
    BENCHES,
    Canvas,
    Light,
    Material,
    Pen,
    Sprite,
    Staging,
    box_outline,
    circle,
    draw_scene,
    hsv,
    noise,
    random_light,
    scatter,
)

NO_SHADOW = Light(shadow=0.0)


def _square(side: int, *, cover: float = 1.0) -> Sprite:
    ones = np.ones((side, side), np.float32)
    return Sprite(np.ones((side, side, 3), np.float32), ones, ones.copy(), cover=cover)


def _canvas(width: int = 100, height: int = 80) -> Canvas:
    return Canvas(np.zeros((height, width, 3), np.float32), NO_SHADOW)


def test_a_box_is_the_extent_of_what_was_laid() -> None:
    canvas = _canvas()
    canvas.lay(_square(20), 30, 10, 4)
    boxes, classes = canvas.boxes()
    assert boxes.tolist() == [[30, 10, 50, 30]]
    assert classes.tolist() == [4]


@pytest.mark.parametrize(
    ("left", "top", "seen"),
    [(-8, 10, [0, 10, 12, 30]), (90, 70, [90, 70, 100, 80]), (30, -19, [30, 0, 50, 1])],
)
def test_the_picture_cuts_a_box(left: int, top: int, seen: list[int]) -> None:
    canvas = _canvas()
    canvas.lay(_square(20), left, top, 0)
    assert canvas.boxes()[0].tolist() == [seen]


def test_what_hides_an_object_makes_its_box_smaller() -> None:
    canvas = _canvas()
    canvas.lay(_square(20), 30, 10, 0)
    canvas.lay(_square(20), 40, 10, 1)
    assert canvas.boxes()[0].tolist() == [[30, 10, 40, 30], [40, 10, 60, 30]]


def test_what_is_translucent_hides_nothing() -> None:
    canvas = _canvas()
    canvas.lay(_square(20), 30, 10, 0)
    canvas.lay(_square(20, cover=0.3), 40, 10, 1)
    assert canvas.boxes()[0].tolist() == [[30, 10, 50, 30], [40, 10, 60, 30]]


def test_unlabelled_things_hide_and_have_no_box() -> None:
    canvas = _canvas()
    canvas.lay(_square(20), 30, 10, 0)
    canvas.lay(_square(20), 30, 25, -1)
    assert canvas.boxes()[0].tolist() == [[30, 10, 50, 25]]


def test_wholly_hidden_objects_have_no_box() -> None:
    canvas = _canvas()
    canvas.lay(_square(10), 30, 10, 0)
    canvas.lay(_square(20), 25, 5, 1)
    assert canvas.boxes()[1].tolist() == [1]


def test_fits_guards_both_sides() -> None:
    canvas = _canvas()
    assert canvas.fits(_square(20), 30, 10, 0.3)
    canvas.lay(_square(20), 30, 10, 0)
    assert not canvas.fits(_square(20), 32, 10, 0.3)  # would hide 90 % of the first
    assert canvas.fits(_square(20), 46, 10, 0.3)  # hides 20 %
    assert not canvas.fits(_square(20), 90, 10, 0.3)  # half of it would lie outside
    assert not canvas.fits(_square(20), 200, 10, 0.3)


def test_fits_asks_for_contrast() -> None:
    canvas = Canvas(np.ones((80, 100, 3), np.float32), NO_SHADOW)
    assert not canvas.fits(_square(20), 30, 10, 0.3, contrast=0.05)  # white on white
    canvas.rgb[:] = 0.5
    assert canvas.fits(_square(20), 30, 10, 0.3, contrast=0.05)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("radius", [11.0, 30.0, 60.0])
def test_boxes_are_tight_around_drawn_pixels(name: str, radius: float) -> None:
    """On a ground of a colour that no part has, the pixels that changed are the object."""
    rng = np.random.default_rng([7, int(radius)])
    ground = np.array([1.0, 0.0, 1.0], np.float32)
    canvas = Canvas(np.tile(ground, (200, 200, 1)), Light(shadow=0.0, tilt=0.4))
    sprite = PARTS[name](rng, radius, canvas.light)
    canvas.lay(sprite, (200 - sprite.mask.shape[1]) // 2, (200 - sprite.mask.shape[0]) // 2, 0)
    changed = np.abs(canvas.rgb - ground).sum(2) > 0.3
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert np.abs(canvas.boxes()[0][0] - seen).max() <= 1


def test_hidden_share_is_kept() -> None:
    staging = Staging(count=(30, 30), radius=(10, 30), hidden=0.4)
    canvas = Canvas(np.full((240, 320, 3), 0.5, np.float32), NO_SHADOW)
    scatter(np.random.default_rng(2), canvas, PARTS, staging)
    shares = [float(item.visible.sum()) / item.whole for item in canvas.laid]
    assert len(shares) > 10
    assert min(shares) >= 0.6 - 1e-3


@pytest.mark.parametrize("name", BENCHES)
def test_backgrounds_are_pictures(name: str) -> None:
    for width, height in ((97, 64), (64, 97)):
        rgb = BENCHES[name](np.random.default_rng(1), width, height)
        assert rgb.shape == (height, width, 3)
        assert np.isfinite(rgb).all()
        assert 0.02 < rgb.mean() < 1


def test_any_shapes_make_a_scene() -> None:
    def tile(rng: np.random.Generator, radius: float, light: Light) -> Sprite:
        pen = Pen(rng, radius, light, Material((0.9, 0.1, 0.1)), angle=0.0, flat=True)
        pen.solid(box_outline(-0.7, -0.7, 0.7, 0.7), 0.1)
        return pen.sprite()

    staging = Staging(count=(3, 3), radius=(20, 20), distractors=(0, 0))
    rgb, boxes, classes = draw_scene(np.random.default_rng(4), 160, 120, {"tile": tile}, staging=staging)
    assert rgb.shape == (120, 160, 3)
    assert rgb.dtype == np.uint8
    assert set(classes.tolist()) == {0}
    assert 1 <= len(boxes) <= 3
    again = draw_scene(np.random.default_rng(4), 160, 120, {"tile": tile}, staging=staging)
    assert np.array_equal(rgb, again[0])


def test_holes_show_what_lies_below() -> None:
    light = Light(shadow=0.0)
    pen = Pen(np.random.default_rng(0), 30, light, Material((0.5, 0.5, 0.5)))
    pen.solid(circle(), 0.1)
    pen.hole(circle(radius=0.5))
    sprite = pen.sprite()
    middle = sprite.alpha.shape[0] // 2
    assert sprite.alpha[middle, middle] == 0
    assert sprite.alpha[middle, middle + 22] == 1


def test_a_sprite_of_nothing_is_harmless() -> None:
    canvas = _canvas()
    canvas.lay(Pen(np.random.default_rng(0), 5, NO_SHADOW, Material((1, 1, 1))).sprite(), 5, 5, 0)
    assert len(canvas.boxes()[0]) == 0


@pytest.mark.parametrize("rough", range(4))
def test_noise_is_centred_and_of_the_asked_size(rough: int) -> None:
    values = noise(np.random.default_rng(0), 300, 200, 1, 1, rough)
    assert values.shape == (200, 300)
    assert abs(float(values.mean())) < 1
    assert 0.3 < float(values.std()) < 2


@pytest.mark.parametrize(
    ("colour", "expected"), [((0, 1, 1), (1, 0, 0)), ((1 / 3, 1, 1), (0, 1, 0)), ((0.5, 0, 0.4), (0.4,) * 3)]
)
def test_hsv(colour: tuple[float, ...], expected: tuple[float, ...]) -> None:
    assert hsv(*colour) == pytest.approx(expected, abs=1e-6)


def test_lights_shine_from_above() -> None:
    for seed in range(20):
        light = random_light(np.random.default_rng(seed))
        assert np.linalg.norm(light.direction) == pytest.approx(1)
        assert light.direction[2] > 0.5
