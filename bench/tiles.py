"""Tiles beside whole images, on large drawn pictures with small parts in them.

    python bench/tiles.py --folder /tmp/tiles

draws the pictures (1600x1200, parts of 14 to 22 pixels) and trains the starter on them: on tiles, and as whole images
of the tiles' input size, once for as many epochs and once for about as many steps. Prints a table; about a quarter of
an hour on two CPU cores. `--size 800 600 --parts 8 14 --image-size 320` is the same in small.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import odkit as od
from odkit.data.demo.parts import CLUTTER, PARTS
from odkit.data.demo.scenes import Staging, draw_scene
from odkit.detection import fitting_tiling
from odkit.training.batches import TrainingImages


def large_pictures(
    folder: Path, images: int, *, size: tuple[int, int], parts: tuple[int, int], seed: int = 0
) -> od.Dataset:
    """Pictures of some size with so many small parts as a Dataset: a quarter of them to judge on."""
    staging = Staging(
        count=parts, radius=(7, 11), hidden=0.05, contrast=0.12, distractors=(1, 3), blur=0.4, grain=0.01
    )
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[Any]] = {"boxes": [], "box_classes": [], "box_images": []}
    paths = []
    for index in range(images):
        rng = np.random.default_rng([seed, index])
        rgb, boxes, classes = draw_scene(rng, *size, PARTS, distractors=CLUTTER, staging=staging)
        paths.append(folder / f"{index:03d}.jpg")
        Image.fromarray(rgb).save(paths[-1], quality=92)
        for box, label in zip(boxes, classes.tolist(), strict=True):
            columns["boxes"].append(box)
            columns["box_classes"].append(label)
            columns["box_images"].append(index)
    return od.Dataset(
        name="large-pictures",
        root=folder,
        class_names=tuple(PARTS),
        image_paths=np.array(list(map(str, paths)), object),
        image_sizes=np.tile(np.array(size, np.int32), (images, 1)),
        image_splits=np.array(["val" if index % 4 == 3 else "train" for index in range(images)], object),
        **columns,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for pictures and runs")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument(
        "--size", type=int, nargs=2, default=(1600, 1200), help="of a picture: width and height"
    )
    parser.add_argument("--parts", type=int, nargs=2, default=(25, 40), help="in a picture: fewest and most")
    arguments = parser.parse_args()
    dataset = large_pictures(
        arguments.folder / "pictures",
        arguments.images,
        size=tuple(arguments.size),
        parts=tuple(arguments.parts),
    )
    train, size = dataset.split("train"), arguments.image_size
    tiling = fitting_tiling(train, size)
    times = len(TrainingImages(train, image_size=size, tiling=tiling)) / len(train)
    print(f"{train}, {tiling}, {times:.1f} tiles an image and epoch", flush=True)
    kinds = {
        "tiles": {"tiles": size, "epochs": arguments.epochs},
        "whole, as many epochs": {"tiles": 0, "epochs": arguments.epochs},
        "whole, as many steps": {"tiles": 0, "epochs": round(arguments.epochs * times)},
    }
    for kind, settings in kinds.items():
        began = time.monotonic()
        name = kind.replace(",", "").replace(" ", "-")
        settings |= {"image_size": size, "evaluate_every": settings["epochs"], "augment": "flip"}
        run = od.fine_tune(dataset, folder=arguments.folder / "runs", name=name, wait=False, **settings)
        run.wait(show=False)
        best, minutes = run.best, (time.monotonic() - began) / 60
        print(
            f"{kind:24} {settings['epochs']:3} epochs  AP {best['ap']:.3f}  AP50 {best['ap50']:.3f}  "
            f"{minutes:.1f} min",
            flush=True,
        )


if __name__ == "__main__":
    main()
