"""What detectors of every family make of images, for maps and search by likeness."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import odkit as od
from odkit.detection.catalogue import CATALOGUE
from tests.helpers import squares

SMALL = {"starter": 64, "ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}  # pixels; 128 for others


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_detector_of_the_catalogue_has_features(name: str, tmp_path: Path) -> None:
    if name.startswith("dfine"):
        pytest.importorskip("transformers")
    dataset = squares(tmp_path / "squares", 3)
    Image.open(dataset.image_paths[0]).save(dataset.image_paths[2])  # the same picture twice
    torch.manual_seed(0)
    detector = od.build_detector(name, ["red"], weights="random", image_size=SMALL.get(name, 128))
    detector.train()
    vectors = od.features(detector, dataset, device="cpu")
    assert detector.training, "left as it was found"
    assert vectors.dtype == np.float32
    assert vectors.shape[0] == 3
    assert vectors.shape[1] >= 64
    assert np.isfinite(vectors).all()
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-6), "alike where images are"
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-5, "and no constant"


def test_features_are_an_images_own(tmp_path: Path) -> None:
    """Neither its neighbours in a batch nor the padding around it tell: it is the mean of the maps over the image."""
    dataset = squares(tmp_path / "squares", 4)
    for path, size in zip(dataset.image_paths, ((64, 40), (64, 64), (30, 64), (64, 40)), strict=True):
        Image.open(path).resize(size).save(path)
    dataset = dataset.replace(image_sizes=[(64, 40), (64, 64), (30, 64), (64, 40)])
    detector = od.build_detector("starter", ["red"], image_size=64)
    together = od.features(detector, dataset, device="cpu", batch_size=4)
    assert together.shape == (4, 288)
    for row in range(4):
        alone = od.features(detector, dataset.select([row]), device="cpu")
        assert alone[0] == pytest.approx(together[row], abs=1e-5)
    levels = np.linalg.norm(together.reshape(4, 3, 96), axis=2)
    assert levels == pytest.approx(1, abs=1e-5), "no level outweighs the others"
    assert len(od.features(detector, dataset.select([]))) == 0
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        od.features(detector, dataset, batch_size=0)
