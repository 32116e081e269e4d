"""How long an epoch of a detector takes on this machine."""

import time

import torch

from odkit.detection.catalogue import catalogue_entry
from odkit.detection.detector import Detector, freeze_norms, freeze_stem
from odkit.detection.devices import pick_device

SECONDS = 3.0  # of steps, at least one


def minutes_an_epoch(
    name: str,
    *,
    images: int = 1000,
    image_size: int | None = None,
    device: str = "auto",
    seconds: float = SECONDS,
) -> float:
    """Minutes that the steps of an epoch of so many images take here, in float32, decoding and judging aside.

    A few steps of two images of the detector's own size (or `image_size`, in pixels) are timed, after one to warm up,
    for at least so many seconds. Speed does not depend on the weights, which are random.

    Raises:
        InputError: No detector has that name, or there is no such device.
    """
    where = pick_device(device)
    size = image_size or catalogue_entry(name).image_size
    detector = Detector(name, ("one", "two"), image_size=size)
    freeze_norms(detector)  # as in fine-tuning
    freeze_stem(detector)
    detector.to(where).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=1e-6)
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.rand(3, size, size, generator=generator) for _ in range(2)]
    corner = torch.rand(8, 2, generator=generator) * size / 2
    target = {
        "boxes": torch.cat([corner, corner + size / 4], 1),
        "labels": torch.arange(8) % 2,
    }
    began, steps = 0.0, -1  # the first is not counted
    while steps < 1 or time.monotonic() - began < seconds:
        loss = torch.stack(list(detector(pictures, [target] * 2).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss.detach())  # a GPU is waited for
        steps += 1
        if steps == 0:
            began = time.monotonic()
    return (time.monotonic() - began) / steps / len(pictures) * images / 60
