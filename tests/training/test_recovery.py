"""A device's first use, and how many images fit: found by two probes, with its memory as they would see it."""

from pathlib import Path

import pytest
import torch

from odkit.detection import Batch, Detector, build_detector
from odkit.training import recovery
from odkit.training.recovery import first_use, images_that_fit
from tests.helpers import squares

MB = 1_000_000


class Memory:
    """A device on which the weights take 100 MB and each image 50 MB, of a total in bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, total: int) -> None:
        self.total, self.most = total, 0
        whole = Detector.forward

        def forward(detector: Detector, batch: Batch, targets: None = None) -> object:
            used = 100 * MB + 50 * MB * len(batch)
            if used > total:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 50.00 MiB")
            self.most = max(self.most, used)
            return whole(detector, batch)

        monkeypatch.setattr(Detector, "forward", forward)

    def __call__(self) -> tuple[int, int]:
        most, self.most = self.most, 0
        return most, self.total


@pytest.mark.parametrize(
    ("total", "images"), [(2000 * MB, 29), (10_000 * MB, 157), (260 * MB, 2), (180 * MB, 1)]
)
def test_images_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, images: int) -> None:
    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64)
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    memory = Memory(monkeypatch, total)
    found = images_that_fit(detector, squares(tmp_path, 8), multi_scale=0.0, precision=None, memory=memory)
    assert found == images
    assert all(torch.equal(before[key], value) for key, value in detector.state_dict().items())
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_a_gpu_that_refuses_growing_segments_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: list[str] = []

    def refuses(device: torch.device) -> None:
        if not settings:
            raise RuntimeError("CUDA driver error: operation not supported")

    assert first_use(torch.device("cpu")) == ""
    monkeypatch.setattr(torch.cuda.memory, "_set_allocator_settings", settings.append)  # exists in this torch
    monkeypatch.setattr(recovery, "_allocate", refuses)
    said = first_use(torch.device("cuda"))
    assert settings == ["expandable_segments:False"]
    assert "operation not supported" in said
    assert "goes on without" in said


def test_a_gpu_that_fails_at_its_first_use_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(device: torch.device) -> None:
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")

    monkeypatch.setattr(recovery, "_allocate", fails)
    with pytest.raises(RuntimeError, match="ECC"):
        first_use(torch.device("cuda"))
