"""A step of the loop: how often the host waits for the device, and what fp16's overflows come to."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from odkit.detection import Batch, Detector, Item, Pack, build_detector
from odkit.training.average import Average
from odkit.training.loop import OVERFLOWS, Step, train_epoch
from tests.helpers import count_syncs

PIXELS = 64


def batches(images: int, steps: int, divisible: int = 32) -> Iterator[Batch]:
    """Noise with two boxes an image."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        yield Pack(divisible)(
            [
                Item(
                    torch.from_numpy(rng.integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)).permute(2, 0, 1),
                    np.array([[4, 4, 30, 30], [20, 20, 60, 50]], np.float32),
                    np.array([0, 1]),
                    row,
                    (PIXELS, PIXELS),
                )
                for row in range(images)
            ]
        )


def steps_of(
    detector: Detector, images: int, steps: int, scaler: torch.amp.GradScaler | None = None
) -> Iterator[Step]:
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW([{"params": trained, "lr": 1e-4, "peak": 1e-4}], fused=True)
    return train_epoch(
        detector.train(),
        batches(images, steps, detector.divisible),
        optimizer,
        scaler or torch.amp.GradScaler("cpu", enabled=False),
        Average(detector, 0.99),
        rate=lambda: 1.0,
        micro_batch_size=images,
        clip=5.0,
    )


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("starter", 3),
        ("fcos_resnet50_fpn", 3),
        ("retinanet_resnet50_fpn_v2", 10),
        ("ssdlite320_mobilenet_v3_large", 5),
    ],
)
def test_the_host_waits_for_the_device_a_few_times_a_step(name: str, most: int) -> None:
    """Augmented and normalized pixels, losses, gradients, clipping, update, average: all of a step."""
    detector = build_detector(name, ["a", "b"], weights="random")
    steps = steps_of(detector, 16, 2)
    next(steps)  # the optimizer's moments are made
    with count_syncs() as waits:
        next(steps)
    assert 1 <= len(waits) <= most, "\n".join(waits)


def test_fp16_that_never_recovers_is_a_bad_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient that stays infinite while the loss is finite: first the scale comes down, then it is said."""
    torch.manual_seed(0)
    detector = build_detector("starter", ["a", "b"], weights="random", image_size=PIXELS)
    detector.module.head.classes.bias.register_hook(lambda gradient: gradient * np.inf)
    before = detector.module.head.classes.bias.detach().clone()
    steps = list(steps_of(detector, 2, OVERFLOWS + 2, torch.amp.GradScaler("cpu")))
    assert all(np.isfinite(list(step.losses.values())).all() for step in steps)
    assert [step.updated for step in steps] == [True] * OVERFLOWS + [False] * 2
    assert torch.equal(before, detector.module.head.classes.bias)
