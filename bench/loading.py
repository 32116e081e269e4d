"""Images on their way to a detector, beside torchvision: CocoDetection, transforms.v2 and a DataLoader.

    python bench/loading.py                 # about 3 minutes on two quiet cores
    python bench/loading.py --images 8      # quicker

The script draws its photographs: 12 megapixels, 3 to 5 MB each, and 640 x 480. A pass ends with float32 batches,
resized to 320 pixels, varied and normalized, for which odkit does the last part in the process that trains and
torchvision all in its workers. Both have as many workers as odkit would choose here, kept from pass to pass.

torchvision is taken as quick as it goes: images as uint8, resized before everything else, boxes alone of the labels
(`wrap_dataset_for_transforms_v2`). Its references' own recipe for detection, which varies and converts images at their
full size and resizes within the detector, is a row of its own.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from rows import row
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from odkit.data import Dataset
from odkit.data.demo.scenes import noise
from odkit.data.formats import load_dataset
from odkit.detection import build_detector, make_caches
from odkit.detection.loading import choose_workers, settle
from odkit.detection.pixels import prepare
from odkit.training.batches import EpochSampler, TrainingImages, training_loader
from odkit.training.loop import total_loss

SIZE = 320  # pixels, the longer side for the detector
BATCH = 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BESIDE = f"torchvision {torchvision.__version__}"


# -- pictures ----------------------------------------------------------------------------------------------------------


def draw(path: Path, width: int, height: int, seed: int) -> None:
    """A picture with the spectrum of a photograph: soft colours, texture at every scale, a sensor's noise."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(20, 236, (9, 12, 3), np.uint8)).resize((width, height), 3)
    grain = noise(rng, width, height) * 18 + rng.standard_normal((height, width), np.float32) * 6
    pixels = np.asarray(soft, np.float32) + grain[..., None]
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def draw_dataset(folder: Path, count: int, width: int, height: int, pool: ProcessPoolExecutor) -> Dataset:
    """Pictures with three boxes each, in COCO's format."""
    folder.mkdir()
    names = [f"{k:03}.jpg" for k in range(count)]
    list(pool.map(draw, [folder / n for n in names], [width] * count, [height] * count, range(count)))
    rng = np.random.default_rng(0)
    labels = []
    for k in range(count * 3):
        sides = rng.uniform(0.15, 0.4, 2) * [width, height]
        x, y = rng.random(2) * ([width, height] - sides)
        box = [float(v) for v in (x, y, *sides)]
        labels.append(
            {"id": k + 1, "image_id": k // 3, "category_id": 1 + k % 2, "bbox": box,
             "area": box[2] * box[3], "iscrowd": 0}
        )  # fmt: skip
    images = [{"id": k, "file_name": n, "width": width, "height": height} for k, n in enumerate(names)]
    kinds = [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}]
    content = {"images": images, "annotations": labels, "categories": kinds}
    (folder / "labels.json").write_text(json.dumps(content))
    return load_dataset(folder)


# -- passes ------------------------------------------------------------------------------------------------------------


class Ours:
    """odkit's loader: `passes()` gives the batches of one pass after the other."""

    def __init__(self, dataset: Dataset, augment: str, workers: int, *, cache: bool) -> None:
        self.images = TrainingImages(dataset, image_size=SIZE, augment=augment)
        if cache:
            file = Path(tempfile.gettempdir(), "odkit-bench-pixels")
            (self.images.cache,), kind, why = make_caches("auto", [self.images.kept_sizes()], file, passes=2)
            print(f"cache: {kind}: {why}")
        self.sampler = EpochSampler(len(self.images), BATCH)
        self.loader = training_loader(self.images, self.sampler, num_workers=workers)

    def batches(self) -> Iterator[Any]:
        yield from self.loader
        self.sampler.epoch += 1

    def take(self, batch: Any) -> Tensor:
        return prepare(batch, torch.device("cpu"), mean=MEAN, std=STD).images


class Theirs:
    """torchvision's."""

    def __init__(
        self, dataset: Dataset, transforms: Any, workers: int, take: Callable[[Any], Tensor]
    ) -> None:
        folder = Path(str(dataset.root))
        with contextlib.redirect_stdout(None):  # it tells of its index
            data = CocoDetection(str(folder), str(folder / "labels.json"), transforms=transforms)
        self.loader = DataLoader(
            wrap_dataset_for_transforms_v2(data, target_keys=("boxes", "labels")),
            batch_size=BATCH,
            shuffle=True,
            num_workers=workers,
            collate_fn=in_lists,
            worker_init_fn=settle,  # one thread a worker, as odkit's
            persistent_workers=workers > 0,
            prefetch_factor=2 if workers else None,
        )
        self.take = take

    def batches(self) -> Iterator[Any]:
        yield from self.loader


def in_lists(items: list[tuple[Tensor, Any]]) -> tuple[list[Tensor], list[Any]]:
    return [item[0] for item in items], [item[1] for item in items]


def stacked(batch: Any) -> Tensor:
    return torch.stack(batch[0])


def resized_within(batch: Any) -> Tensor:
    """As torchvision's detectors do it."""
    inside = GeneralizedRCNNTransform(SIZE * 3 // 4, SIZE, list(MEAN), list(STD))
    with torch.no_grad():
        images: Tensor = inside(batch[0])[0].tensors
    return images


def recipe(strength: str, *, resize_first: bool = True) -> v2.Compose:
    """transforms.v2 that vary as much as odkit's "flip" and "strong" do."""
    fit = [v2.Resize((SIZE * 3 // 4, SIZE), antialias=True)]
    vary: list[Any] = [v2.RandomHorizontalFlip(0.5)]
    if strength == "strong":
        vary = [
            v2.RandomPhotometricDistort(p=0.7),
            v2.RandomApply([v2.GaussianBlur(3, (0.1, 1.2))], 0.1),
            v2.RandomZoomOut(fill=114, side_range=(1.0, 1.6), p=0.3),
            v2.RandomApply([v2.RandomIoUCrop(min_scale=0.5)], 0.4),
            *vary,
        ]
    to_floats = [v2.ToDtype(torch.float32, scale=True)]
    if not resize_first:
        return v2.Compose([v2.ToImage(), *vary, *to_floats, v2.SanitizeBoundingBoxes()])
    after = fit if strength == "strong" else []  # what was zoomed has another size
    normal = [v2.Normalize(list(MEAN), list(STD)), v2.SanitizeBoundingBoxes()]
    return v2.Compose([v2.ToImage(), *fit, *vary, *after, *to_floats, *normal])


def seconds(loader: Ours | Theirs, passes: int = 1) -> float:
    """Wall-clock seconds a pass."""
    began = time.perf_counter()
    for _ in range(passes):
        for batch in loader.batches():
            loader.take(batch)
    return (time.perf_counter() - began) / passes


def waiting(loader: Ours, seconds_long: float) -> tuple[float, float]:
    """The share of its time, in percent, that training the starter waits for batches; and its images a second."""
    detector = build_detector("starter", ("bolt", "nut"), image_size=SIZE).train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4)
    waited = images = 0.0
    batches = iter(())
    began, ready = 0.0, False
    while not began or time.perf_counter() - began < seconds_long:
        asked = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            batches = loader.batches()
            batch = next(batches)
        if began:
            waited += time.perf_counter() - asked
        optimizer.zero_grad()
        total_loss(detector(batch)).backward()
        optimizer.step()
        images += len(batch) if began else 0
        if not began and ready:
            began = time.perf_counter()
        ready = True  # the first two steps warm up
    spent = time.perf_counter() - began
    return 100 * waited / spent, images / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="pictures of 12 megapixels")
    parser.add_argument("--small", type=int, default=320, help="pictures of 640 x 480")
    given = parser.parse_args()
    workers, why = choose_workers(-1, batch_size=BATCH, image_size=SIZE)
    print(f"{workers} data worker(s): {why}")
    with tempfile.TemporaryDirectory() as place, ProcessPoolExecutor() as pool:
        large = draw_dataset(Path(place, "large"), given.images, 4000, 3000, pool)
        small = draw_dataset(Path(place, "small"), given.small, 640, 480, pool)
        files = list(Path(place, "large").glob("*.jpg"))
        print(f"12 megapixels: {sum(file.stat().st_size for file in files) / len(files) / 1e6:.1f} MB a file")
        for name, dataset, strength in (("12 MP", large, "flip"), ("640x480", small, "strong")):
            compare(name, dataset, strength, workers)


def compare(name: str, dataset: Dataset, strength: str, workers: int) -> None:
    """The first pass, later passes, and the wait, of one set of pictures."""
    count = len(dataset)
    first, other, within = [], [], []
    for _ in range(2):  # by turns; the better one counts
        mine = Ours(dataset, strength, workers, cache=True)
        first.append(seconds(mine))
        theirs = Theirs(dataset, recipe(strength), workers, stacked)
        other.append(seconds(theirs))
    later, other_later = [], []
    passes = max(1, 640 // count)
    for _ in range(3):
        later.append(seconds(mine, passes))
        other_later.append(seconds(theirs) if len(other_later) < 2 else min(other_later))
    reference = Theirs(dataset, recipe(strength, resize_first=False), workers, resized_within)
    within.append(seconds(reference))
    size = f'{name} -> {SIZE} px, "{strength}"'
    a_second = {"unit": "images/s", "more_is_better": True}
    wanted = 25 if strength == "flip" else 4
    resized = f"{BESIDE}, resized first"
    row(
        f"first pass, {size}",
        count / min(first),
        count / min(other),
        beside=resized,
        wanted=wanted,
        **a_second,
    )
    row(
        f"first pass, {size}, beside the references' recipe",
        count / min(first),
        count / min(within),
        beside=f"{BESIDE}, resized within the detector",
        wanted=wanted,
        **a_second,
    )
    row(
        f"later passes, {size}",
        count / min(later),
        count / min(other_later),
        beside=resized,
        wanted=100 if strength == "flip" else 4,
        **a_second,
    )
    row(
        f"later passes, {size}, beside the references' recipe, all of whose passes are alike",
        count / min(later),
        count / min(within),
        beside=f"{BESIDE}, resized within the detector",
        wanted=100 if strength == "flip" else 4,
        **a_second,
    )
    share, rate = waiting(mine, 10)
    row(
        f"later passes, {size}: the starter's training waits",
        share,
        unit="%",
        wanted=2,
        note=f"{rate:.1f} images/s",
    )
    fresh = Ours(dataset, strength, workers, cache=False)
    share, rate = waiting(fresh, 10)
    row(f"first pass, {size}: the starter's training waits", share, unit="%", note=f"{rate:.1f} images/s")


if __name__ == "__main__":
    main()
