"""Makes the starter's weights: a small FCOS trained from nothing on images that `tools.starter.draw` draws.

    python -m tools.starter.make                # the published weights: about half an hour on two cores
    python -m tools.starter.make --steps 20 --crop-steps 20 --out /tmp/try.safetensors

Two stages. First the backbone learns to tell the drawn things apart on 64-pixel crops, one thing each, hundreds a
second; then the whole detector learns to find them. The images are drawn on the fly, each once, from the seed; their
classes are other than the demo's, so that fine-tuning on the demo is really a transfer. The same seed, steps and
number of threads give the same weights.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from odkit.detection.detector import Detector, build_detector, save_detector
from odkit.detection.loading import Item, Pack
from odkit.detection.weights_cache import STARTER_WEIGHTS
from odkit.training.augment import draw
from odkit.training.average import Average
from tools.starter.draw import STARTER_CLASSES, starter_image

CROP = 64  # pixels
CROPS_AN_IMAGE = 16


class Drawn(TorchDataset[Item]):
    """Freshly drawn images, one an index."""

    def __init__(self, seed: int, images: int, size: int) -> None:
        self.seed, self.images, self.size = seed, images, size

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Item:
        rgb, boxes, classes = starter_image(self.seed, index, self.size)
        image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)
        height, width = image.shape[-2:]
        rng = np.random.default_rng([self.seed, index])
        change, boxes, classes = draw("photo", rng, width, height, boxes, classes)
        return Item(image, boxes, classes, index, (width, height), change)


class Crops(TorchDataset[tuple[Tensor, Tensor]]):
    """Square crops around the things of freshly drawn images: uint8 [n, 3, 64, 64] and their classes int64 [n]."""

    def __init__(self, seed: int, images: int, size: int) -> None:
        self.seed, self.images, self.size = seed, images, size

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        # another seed than the detector's images: nothing is seen twice
        rgb, boxes, classes = starter_image(self.seed + 1000, index, self.size)
        rng = np.random.default_rng([self.seed, index])
        picture = Image.fromarray(rgb)
        chosen = rng.permutation(np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).max(1) >= 10))[:CROPS_AN_IMAGE]
        crops = np.zeros((len(chosen), CROP, CROP, 3), np.uint8)
        for place, (x1, y1, x2, y2) in enumerate(boxes[chosen].tolist()):
            side = max(x2 - x1, y2 - y1) * rng.uniform(1.0, 1.5)
            x, y = (
                (x1 + x2) / 2 + side * rng.uniform(-0.1, 0.1),
                (y1 + y2) / 2 + side * rng.uniform(-0.1, 0.1),
            )
            square = (
                round(x - side / 2),
                round(y - side / 2),
                round(x + side / 2) + 1,
                round(y + side / 2) + 1,
            )
            crop = picture.crop(square).resize((CROP, CROP), Image.Resampling.BILINEAR)
            crops[place] = np.asarray(crop)[:, :: rng.choice([-1, 1])]
        return torch.from_numpy(crops).permute(0, 3, 1, 2), torch.from_numpy(classes[chosen])


class Namer(nn.Module):
    """The backbone with a classifier on each of its three strides: each learns to tell things apart by itself."""

    def __init__(self, body: nn.Module, channels: Sequence[int] = (24, 48, 96)) -> None:
        super().__init__()
        self.body = body
        self.heads = nn.ModuleList(nn.Linear(c, len(STARTER_CLASSES)) for c in channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.body(images).values()
        return [head(f.mean((2, 3))) for head, f in zip(self.heads, features, strict=True)]


def learn_names(detector: Detector, *, steps: int, seed: int, num_workers: int, rate: float = 3e-3) -> None:
    """The first stage: the detector's backbone, trained to classify crops."""
    backbone: Any = detector.module.backbone
    namer = Namer(backbone.body).to(memory_format=torch.channels_last).train()
    optimizer, schedule = _optimizer(namer, rate, steps)
    crops = DataLoader(
        Crops(seed, steps * 12, 256),
        batch_size=12,
        num_workers=num_workers,
        collate_fn=list,
        prefetch_factor=4 if num_workers else None,
    )
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    for parts, say in _counted(crops, steps, "crops"):
        images, labels = (torch.cat(column) for column in zip(*parts, strict=True))
        batch = (images.float() / 255 * (0.8 + 0.4 * torch.rand(len(images), 1, 1, 1)) - mean) / std
        guesses = namer(batch.contiguous(memory_format=torch.channels_last))
        losses = torch.stack([nn.functional.cross_entropy(g, labels, label_smoothing=0.05) for g in guesses])
        _step(namer, losses.sum(), optimizer, schedule)
        say(float((guesses[-1].argmax(1) == labels).float().mean()), len(images))


def learn_boxes(
    detector: Detector,
    out: Path,
    *,
    steps: int,
    batch_size: int,
    size: int,
    seed: int,
    num_workers: int,
    rate: float = 2e-3,
) -> Path:
    """The second stage: the whole detector; the averaged weights are saved as float16 at `out`."""
    detector.to(memory_format=torch.channels_last).train()
    average = Average(detector, 0.998)
    optimizer, schedule = _optimizer(detector, rate, steps)
    drawn = DataLoader(
        Drawn(seed, steps * batch_size, size),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=Pack(detector.divisible),
        prefetch_factor=4 if num_workers else None,
    )
    for number, (batch, say) in enumerate(_counted(drawn, steps, "images"), 1):
        losses = detector(batch)
        loss = torch.stack(list(losses.values())).sum()
        _step(detector, loss, optimizer, schedule)
        average.update()
        say(float(loss.detach()), len(batch))
        if number % 250 == 0:
            save_detector(average.detector, out, half=True)
    return save_detector(average.detector, out, half=True)


def make(
    *, crop_steps: int, steps: int, batch_size: int, size: int, seed: int, out: Path, num_workers: int
) -> Path:
    """Both stages from random weights; returns `out`."""
    torch.manual_seed(seed)
    detector = build_detector("starter", STARTER_CLASSES, weights="random")
    learn_names(detector, steps=crop_steps, seed=seed, num_workers=num_workers)
    return learn_boxes(
        detector, out, steps=steps, batch_size=batch_size, size=size, seed=seed, num_workers=num_workers
    )


def _optimizer(
    module: nn.Module, rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    decay = [p for p in module.parameters() if p.ndim > 1]
    rest = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.08)


def _step(
    module: nn.Module,
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.OneCycleLR,
) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 5.0)
    optimizer.step()
    schedule.step()


def _counted(loader: DataLoader, steps: int, what: str) -> Iterator:  # type: ignore[type-arg]
    """Each batch with a function that is told a figure to average and how many were seen, and prints now and then."""
    began, mean, seen = time.monotonic(), 0.0, 0
    for step, batch in enumerate(loader, 1):

        def say(figure: float, count: int, step: int = step) -> None:
            nonlocal mean, seen
            mean, seen = 0.98 * mean + 0.02 * figure, seen + count
            if step % 100 == 0 or step == steps:
                speed = seen / (time.monotonic() - began)
                print(f"step {step}/{steps}  {mean / (1 - 0.98**step):.3f}  {speed:.0f} {what}/s", flush=True)

        yield batch, say


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--crop-steps", type=int, default=1200, help="steps of the first stage, 12 drawn images each"
    )
    parser.add_argument("--steps", type=int, default=1600, help="steps of the second stage")
    parser.add_argument("--batch-size", type=int, default=12, help="images a step of the second stage")
    parser.add_argument("--size", type=int, default=256, help="longer side of an image in pixels")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--num-workers", type=int, default=1, help="drawing processes")
    parser.add_argument("--out", type=Path, default=STARTER_WEIGHTS)
    print(make(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
