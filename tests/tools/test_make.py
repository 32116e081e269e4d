"""The script that made the starter's weights: the same seed, the same weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from odkit.detection.detector import load_detector
from odkit.detection.starter import efficientnet_lite0
from odkit.detection.weights_cache import STARTER_WEIGHTS
from tools.starter.draw import STARTER_CLASSES
from tools.starter.make import make


def made(path: Path, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    asked = {"steps": 3, "batch_size": 2, "size": 96, "num_workers": 0, "rate": 2e-3, "backbone_rate": 0.0}
    return load_file(make(efficientnet_lite0().state_dict(), seed=seed, out=path, **asked))


@pytest.mark.slow
def test_the_same_seed_makes_the_same_weights(tmp_path: Path) -> None:
    first, again, other = (made(tmp_path / f"{n}.safetensors", seed) for n, seed in enumerate((1, 1, 2)))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_the_bundled_weights_are_what_the_script_makes(tmp_path: Path) -> None:
    """The same tensors, of the same sizes and types, for the same classes."""
    bundled, own = load_file(STARTER_WEIGHTS), made(tmp_path / "own.safetensors", 1)
    assert {key: (v.shape, v.dtype) for key, v in bundled.items()} == {
        key: (v.shape, v.dtype) for key, v in own.items()
    }
    assert load_detector(STARTER_WEIGHTS).class_names == STARTER_CLASSES
