"""Augmentation: boxes stay on what they mark, and everything depends on the seed alone."""

import numpy as np
import pytest
import torch

from odkit.detection import Item, Pack
from odkit.detection.pixels import prepare
from odkit.training.augment import AUGMENTATIONS, draw

MEAN, STD = (0.0, 0.0, 0.0), (1 / 255,) * 3  # pixels come out as 0 to 255
BOX = np.array([[40, 30, 90, 60]], np.float32)


def varied(kind: str, seed: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """A white square on black, its box and label, varied."""
    image = torch.zeros(96, 128, 3, dtype=torch.uint8)
    image[30:60, 40:90] = 255
    change, boxes, labels = draw(kind, np.random.default_rng(seed), 128, 96, BOX, np.array([3]))
    batch = Pack(32)([Item(image.permute(2, 0, 1), boxes, labels, 0, (128, 96), change)])
    return prepare(batch, torch.device("cpu"), mean=MEAN, std=STD).images[0], boxes, labels


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_boxes_stay_on_what_they_mark(kind: str) -> None:
    found = 0
    for seed in range(200):
        pixels, boxes, labels = varied(kind, seed)
        if not len(boxes):
            continue
        found += 1
        assert labels.tolist() == [3]
        rows, columns = torch.where(pixels.mean(0) > 150)
        extent = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(extent - boxes[0]).max() <= (0 if kind in ("none", "flip") else 1.5), seed
        assert boxes[:, 0::2].max() <= 128
        assert boxes[:, 1::2].max() <= 96
    assert found > 190


def test_each_kind_does_what_it_says() -> None:
    def changed(kind: str) -> dict[str, int]:
        drawn = [
            draw(kind, np.random.default_rng(seed), 128, 96, BOX, np.array([3]))[0] for seed in range(300)
        ]
        return {
            "flip": sum(bool(one.flip[0]) for one in drawn),
            "out": sum(bool((one.target[0, 2:] - one.target[0, :2] < [128, 96]).any()) for one in drawn),
            "in": sum(bool((one.source[0, 2:] - one.source[0, :2] < [128, 96]).any()) for one in drawn),
            "blur": sum(bool(one.blur[0]) for one in drawn),
            "colour": sum(not np.allclose(one.colour[0], np.eye(3, 4)) for one in drawn),
        }

    assert changed("none") == dict.fromkeys(("flip", "out", "in", "blur", "colour"), 0)
    flip, photo, strong = changed("flip"), changed("photo"), changed("strong")
    assert 120 < flip["flip"] < 180
    assert {name: flip[name] for name in ("out", "in", "blur", "colour")} == dict.fromkeys(
        ("out", "in", "blur", "colour"), 0
    )
    assert photo["out"] == photo["in"] == 0
    assert all(180 < one["colour"] < 240 and 15 < one["blur"] < 50 for one in (photo, strong))
    assert 50 < strong["out"] < 110
    assert 70 < strong["in"] < 130


def test_colours_turn_about_grey() -> None:
    """Grey stays grey, whatever the hue and the saturation; contrast leaves the middle where it is."""
    for seed in range(50):
        change, _, _ = draw("photo", np.random.default_rng(seed), 8, 8, BOX, np.array([3]))
        out = change.colour[0] @ np.array([0.4, 0.4, 0.4, 1.0])
        assert np.ptp(out) < 2e-3


def test_an_image_without_boxes_is_varied_too() -> None:
    for seed in range(50):
        change, boxes, labels = draw(
            "strong",
            np.random.default_rng(seed),
            100,
            80,
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.int64),
        )
        assert boxes.shape == (0, 4)
        assert labels.shape == (0,)
        assert (change.source[0, 2:] > change.source[0, :2]).all()


def test_a_tall_sliver_of_an_image_survives() -> None:
    for seed in range(100):
        box = np.array([[0, 0, 2, 90]], np.float32)
        change, boxes, _ = draw("strong", np.random.default_rng(seed), 3, 100, box, np.array([0]))
        sizes = change.target[0, 2:] - change.target[0, :2]
        assert (sizes >= 1).all()
        assert (boxes >= 0).all()


def test_a_change_is_drawn_from_the_seed_alone() -> None:
    first, second = (draw("strong", np.random.default_rng(7), 128, 96, BOX, np.array([3])) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert np.array_equal(first[1], second[1])
