"""Makes the starter's weights: a small FCOS trained from nothing on images that `odkit.starter.draw` draws.

    python -m odkit.starter.make                # the published weights: about an hour on two cores
    python -m odkit.starter.make --steps 20 --out /tmp/try.safetensors

The images are drawn on the fly, each once, from the seed; their classes are other than the demo's, so that
fine-tuning on the demo is really a transfer. The same seed, steps and number of threads give the same weights.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from odkit.detectors import STARTER_WEIGHTS, Detector, build_detector, save_detector
from odkit.loading import Item, augmented, collate, to_device
from odkit.starter.draw import STARTER_CLASSES, starter_image


class Drawn(TorchDataset[Item]):
    """Freshly drawn images, one an index."""

    def __init__(self, seed: int, images: int, size: int) -> None:
        self.seed, self.images, self.size = seed, images, size

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Item:
        rgb, boxes, classes = starter_image(self.seed, index, self.size)
        image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)
        torch.manual_seed(self.seed * 1_000_003 + index)
        image, box_tensor, labels = augmented(
            image, torch.from_numpy(boxes), torch.from_numpy(classes), "photo"
        )
        return image, {"boxes": box_tensor, "labels": labels}


def make(
    *, steps: int, batch: int, size: int, seed: int, out: Path, workers: int, rate: float = 2e-3
) -> Path:
    """Train from random weights and save the averaged weights as float16 at `out`."""
    torch.manual_seed(seed)
    detector = build_detector("starter", STARTER_CLASSES, weights="random").to(
        memory_format=torch.channels_last
    )
    detector.train()
    average = torch.optim.swa_utils.AveragedModel(
        detector, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    decay = [p for p in detector.parameters() if p.ndim > 1]
    rest = [p for p in detector.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}], lr=rate
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.08)
    loader = DataLoader(
        Drawn(seed, steps * batch, size),
        batch_size=batch,
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=4,
    )
    began, mean = time.monotonic(), 0.0
    averaged = average.module
    assert isinstance(averaged, Detector)
    for step, (images, targets) in enumerate(loader, 1):
        losses = detector(*to_device(images, targets, "cpu"))
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(detector)
        mean = 0.98 * mean + 0.02 * float(loss.detach())
        if step % 100 == 0 or step == steps:
            rate_seen = step * batch / (time.monotonic() - began)
            print(
                f"step {step}/{steps}  loss {mean / (1 - 0.98**step):.3f}  {rate_seen:.1f} images/s",
                flush=True,
            )
        if step % 500 == 0:
            save_detector(averaged, out, half=True)
    return save_detector(averaged, out, half=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=4000, help="training steps")
    parser.add_argument("--batch", type=int, default=12, help="images a step")
    parser.add_argument("--size", type=int, default=320, help="longer side of an image in pixels")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="drawing processes")
    parser.add_argument("--out", type=Path, default=STARTER_WEIGHTS)
    print(make(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
