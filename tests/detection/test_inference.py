"""Prediction: boxes in pixels of the original images, the detector left as it was found."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from odkit.detection.detector import build_detector
from odkit.detection.inference import gather, images_dataset, predict, predict_rows
from tests.helpers import squares


def test_boxes_come_back_in_original_pixels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dataset = squares(tmp_path, 6, size=96)
    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64).train()
    found = predict(detector, dataset, batch_size=4)
    assert detector.training
    assert found.class_names == ("blue", "red")
    assert found.image_ids == tuple(dataset.image_ids)
    assert len(found)
    assert found.boxes.max() <= 96
    assert found.boxes.max() > 64  # the boxes are not those of the 64-pixel image
    again = predict(detector, dataset, batch_size=1, num_workers=1)
    # single images are not padded by their neighbours, all are of one size here: the same but for rounding
    np.testing.assert_allclose(found.boxes, again.boxes, atol=0.05)
    assert (predict(detector, dataset, score=0.9).scores >= 0.9).all()


def test_parts_gather_to_the_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dataset = squares(tmp_path, 5)
    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64)
    even, odd = (
        predict_rows(detector, dataset, [0, 2, 4], batch_size=1),
        predict_rows(detector, dataset, [1, 3], batch_size=1),
    )
    whole = predict(detector, dataset, batch_size=1)
    joined = gather({**odd, **even}, dataset, detector.class_names)
    np.testing.assert_array_equal(joined.boxes, whole.boxes)
    np.testing.assert_array_equal(joined.images, whole.images)


def test_loose_images_become_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "deep/a.jpg"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    dataset = images_dataset(tmp_path)
    assert list(dataset.image_ids) == ["b.png", "deep/a.jpg"]
    assert len(images_dataset(tmp_path / "b.png")) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images"):
        images_dataset(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        images_dataset(tmp_path / "absent")
