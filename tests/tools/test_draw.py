import numpy as np
import pytest

from odkit.data.demo.parts import PARTS
from tools.starter.draw import STARTER_CLASSES, starter_image


def test_classes_are_many_and_none_is_the_demos() -> None:
    assert len(STARTER_CLASSES) >= 30
    assert len(set(STARTER_CLASSES)) == len(STARTER_CLASSES)
    assert not {name.lower() for name in STARTER_CLASSES} & {name.lower() for name in PARTS}


def test_images_are_what_they_promise() -> None:
    seen, counts = set(), []
    for index in range(110):
        rgb, boxes, classes = starter_image(1, index)
        height, width, _ = rgb.shape
        assert max(width, height) == 320
        assert min(width, height) >= 224
        assert rgb.dtype == np.uint8
        assert rgb.flags.writeable
        assert boxes.dtype == np.float32
        assert classes.dtype == np.int64
        assert boxes.shape == (len(classes), 4)
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= [width, height]).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 3).all()
        seen.update(classes.tolist())
        counts.append(len(boxes))
    assert seen == set(range(len(STARTER_CLASSES)))
    assert min(counts) == 0
    assert max(counts) > 25


def test_same_seed_and_index_same_image() -> None:
    for index in (0, 9, 31):
        for one, two in zip(starter_image(4, index), starter_image(4, index), strict=True):
            assert np.array_equal(one, two)
    assert not np.array_equal(starter_image(4, 0)[0][:224, :224], starter_image(5, 0)[0][:224, :224])


@pytest.mark.parametrize("size", [160, 416])
def test_other_sizes(size: int) -> None:
    for index in range(6):
        rgb, boxes, _ = starter_image(0, index, size)
        assert max(rgb.shape[:2]) == size
        assert (boxes <= size).all()
