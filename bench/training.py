"""Training on the demo: a real run's images a second, beside the bare step and a plain loop over the same detector.

python bench/training.py [--steps 30] [--epochs 2] [--size PIXELS]

All three train the starter at the same image size, batch of 4, AdamW and threads, each in a process of its own:

- the bare step: forward, backward and the optimizer's step, again and again on one batch in memory; also with memory
  that is freed kept by the process (`odkit.system.keep_freed_memory`), as odkit's workers do;
- a plain loop in the manner of torchvision's references/detection: CocoDetection, transforms.v2, a DataLoader with a
  worker for each core, lists of images and targets, the sum of the losses, one `.item()` a step;
- `od.fine_tune`, a real run: augmentation, averaged weights, clipping, events, checkpoints. Its pace is taken from its
  events' times, first to last step of each epoch, so that everything between two steps counts; judging and start-up
  are in the whole time alone.

The run stands between two measurements of the others, the better of which counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import row
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

import odkit as od
from odkit.detection import Pack
from odkit.runs.worker import worker_environment
from odkit.system import cpu_count, keep_freed_memory
from odkit.training.batches import TrainingImages

BATCH = 4


def starter(size: int) -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(0)
    detector = od.build_detector("starter", od.demo_dataset().class_names, image_size=size)
    detector = detector.to(memory_format=torch.channels_last).train()
    trained = [one for one in detector.parameters() if one.requires_grad]
    return detector, torch.optim.AdamW(trained, lr=1e-4, fused=True)


def bare(size: int, steps: int) -> float:
    """Images a second of the bare step."""
    detector, optimizer = starter(size)
    images = TrainingImages(od.demo_dataset().split("train"), image_size=size, augment="flip")
    batch = Pack(detector.divisible)([images[row] for row in range(BATCH)])
    for step in range(steps + 3):
        if step == 3:
            began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        sum(detector(batch).values()).backward()
        optimizer.step()
    return steps * BATCH / (time.perf_counter() - began)


def plain(size: int, steps: int, coco: Path) -> float:
    """Images a second of a loop as torchvision's references have it."""
    detector, optimizer = starter(size)
    labels = coco / "annotations" / "instances_train.json"
    change = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomHorizontalFlip(0.5),
            v2.Resize(size=None, max_size=size),
            v2.ToDtype(torch.float32, scale=True),
            v2.SanitizeBoundingBoxes(),
        ]
    )
    data = CocoDetection(coco / "train", str(labels), transforms=change)
    wrapped = wrap_dataset_for_transforms_v2(data, target_keys=["boxes", "labels"])
    # as the references do: images without boxes are left out
    labelled = [row for row, image in enumerate(data.ids) if data.coco.getAnnIds(imgIds=[image])]
    loader = DataLoader(
        torch.utils.data.Subset(wrapped, labelled),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=cpu_count(),
        collate_fn=lambda items: tuple(zip(*items, strict=True)),
        persistent_workers=True,
    )
    first = min(json.loads(labels.read_text())["categories"], key=lambda one: one["id"])["id"]
    done = 0
    while True:
        for images, targets in loader:
            if done == 3:
                began = time.perf_counter()
            targets = [{"boxes": one["boxes"], "labels": one["labels"] - first} for one in targets]
            losses = sum(detector(images, targets).values())
            if not np.isfinite(losses.item()):
                raise SystemExit("the loss is not finite")
            optimizer.zero_grad()
            losses.backward()
            optimizer.step()
            done += 1
            if done == steps + 3:
                return steps * BATCH / (time.perf_counter() - began)


def run_of(size: int, epochs: int, folder: Path) -> dict[str, float]:
    """A real run: its images a second, the share of its steps that waits for data, its whole time in seconds."""
    began = time.perf_counter()
    given = {
        "detector": "starter",
        "batch_size": BATCH,
        "image_size": size,
        "epochs": epochs,
        "device": "cpu",
    }
    run = od.fine_tune(od.demo_dataset(), folder=folder, name="bench", wait=False, seed=0, **given)
    run.wait(show=False)
    whole = time.perf_counter() - began
    steps = [event for event in run.events() if event["event"] == "step"]
    images, seconds = 0, 0.0
    for epoch in range(1, epochs + 1):
        times = [event["time"] for event in steps if event["epoch"] == epoch]
        images += BATCH * (len(times) - 1)
        seconds += times[-1] - times[0]
    # the first steps find no batch ready: the workers have just started
    took = np.array([[BATCH / event["images_per_second"], event["data_wait"]] for event in steps[4:]])
    wait = float(took.prod(1).sum() / took[:, 0].sum())
    return {"pace": images / seconds, "wait": wait, "whole": whole, "ap": run.best["ap"]}


def apart(what: str, *given: Any) -> float:
    """A figure measured in a process of its own, with the environment that runs have."""
    command = [sys.executable, __file__, "--only", what, *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return float(done.stdout.split()[-1])


def environment() -> dict[str, str]:
    made = {key: value for key, value in worker_environment().items() if key != "ODKIT_BENCH_OUT"}
    return {**made, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), made["PYTHONPATH"]])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="of the bare step and of the plain loop")
    parser.add_argument("--epochs", type=int, default=2, help="of the run")
    parser.add_argument("--size", type=int, default=320, help="longer side of the images in pixels")
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        what, *rest = given.only
        size, steps = map(int, rest[:2])
        if what == "kept":
            keep_freed_memory()
        print(plain(size, steps, Path(rest[2])) if what == "plain" else bare(size, steps))
        return
    dataset = od.demo_dataset()
    with tempfile.TemporaryDirectory() as folder:
        coco = od.write_dataset(dataset, Path(folder, "coco"), "coco", images="link")
        found: dict[str, list[float]] = {"bare": [], "kept": [], "plain": []}
        for last in (False, True):
            for what, figures in found.items():
                figures.append(apart(what, given.size, given.steps, *([coco] if what == "plain" else [])))
            if not last:
                run = run_of(given.size, given.epochs, Path(folder, "runs"))
    best = {what: max(figures) for what, figures in found.items()}
    cores = f"{cpu_count()} cores, {given.size} px, batch {BATCH}"
    for what, other, beside, wanted in (
        ("the bare step", "bare", "forward, backward, step on one batch in memory", 0.95),
        (
            "the bare step, freed memory kept",
            "kept",
            "the same with glibc's malloc set as odkit sets it",
            0.95,
        ),
        ("a plain loop", "plain", f"as torchvision's references/detection, torch {torch.__version__}", 1.3),
    ):
        row(
            f"Training beside {what}",
            run["pace"],
            best[other],
            beside=beside,
            unit="images/s",
            more_is_better=True,
            wanted=wanted,
            note=cores,
        )
    row("Training: share of the steps that waits for data", 100 * run["wait"], unit="%", wanted=2)
    row(
        f"Training: {given.epochs} epochs of the demo, whole",
        run["whole"],
        note=f"validation AP {run['ap']:.3f}",
    )


if __name__ == "__main__":
    main()
