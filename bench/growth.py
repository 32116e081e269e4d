"""How cost grows with a dataset: seconds and peak memory at 1,000, 10,000 and 100,000 images of 8 boxes each.

python bench/growth.py [--all] [WORK ...]

Each figure is of a process of its own, after its imports: seconds of the processor (all cores, its own processes), and
how far memory rose. The exponent is that of the last step up: 1 where ten times the images cost ten times as much.
Splits are dealt over real files that all look different, 64x48 pixels, and stop at 30,000; FiftyOne is given 10,000;
--all takes both to 100,000.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rows import row

SIZES = (1_000, 10_000, 100_000)
BOXES = 8  # an image
FOUND = 16  # predictions an image, half of them near a box
CLASSES = 80
LABELS = Path("labels", "coco")  # a reader that misses the images looks around for them
STEEP = 1.15  # what an exponent may be: sorting grows a little faster than what is sorted

# -- what is measured, each in a process of its own --------------------------------------------------------------------


def columns(images: int, folder: Path) -> Any:
    import odkit as od

    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 400, (images * BOXES, 2)), rng.uniform(10, 200, (images * BOXES, 2))
    return od.Dataset(
        name="random",
        root=folder,
        class_names=[f"class {k}" for k in range(CLASSES)],
        image_paths=[f"{folder}/{i // 1000:03}/{i:06}.jpg" for i in range(images)],
        image_sizes=np.full((images, 2), 640),
        boxes=np.concatenate([corner, corner + size], 1),
        box_classes=rng.integers(CLASSES, size=len(corner)),
        box_images=np.repeat(np.arange(images), BOXES),
    )


def read(images: int, folder: Path) -> Callable[[], object]:
    import odkit as od

    return lambda: od.load_dataset(folder / LABELS / f"{images}.json", val=0)  # none dealt, no file opened


def check(images: int, folder: Path) -> Callable[[], object]:
    import odkit as od

    dataset = columns(images, folder)
    dataset = dataset.replace(image_splits=np.where(np.arange(images) % 5, "train", "val"))
    return lambda: od.audit(dataset, files=False)


def headers(images: int, folder: Path) -> Callable[[], object]:
    import odkit as od

    dataset = columns(images, folder)
    corner, size = np.split(dataset.boxes, 2, axis=1)
    # within the files' 64x48 pixels, or each image were a finding
    corner, size = corner * 0.06, (size - corner) * 0.1 + 3
    boxes = np.concatenate([corner, corner + size], 1)
    dataset = dataset.replace(boxes=boxes, image_sizes=np.full((images, 2), (64, 48)))
    return lambda: od.audit(dataset, decode=False)


def split(images: int, folder: Path) -> Callable[[], object]:
    dataset = columns(images, folder)
    return lambda: dataset.with_splits(val=0.2, test=0.1)


def to_fiftyone(images: int, folder: Path) -> Callable[[], object]:
    import odkit as od

    od.to_fiftyone(columns(10, folder)).delete()  # starts the database
    dataset = columns(images, folder)
    return lambda: od.to_fiftyone(dataset)


def evaluate(images: int, folder: Path) -> Callable[[], object]:
    import odkit as od

    dataset, rng = columns(images, folder), np.random.default_rng(1)
    near = np.repeat(np.arange(images), FOUND) * BOXES + rng.integers(BOXES, size=images * FOUND)
    boxes = dataset.boxes[near] + rng.normal(0, 12, (len(near), 4)).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    found = od.Predictions(
        boxes=boxes,
        scores=rng.random(len(near)),
        classes=np.where(rng.random(len(near)) < 0.5, dataset.box_classes[near], 0),
        images=dataset.box_images[near],
        class_names=dataset.class_names,
    )
    return lambda: od.evaluate(dataset, found)


WORKS: dict[str, tuple[Callable[[int, Path], Callable[[], object]], str, tuple[int, ...]]] = {
    "read": (read, "read COCO's labels", SIZES),
    "check": (check, "every check that opens no file", SIZES),
    "headers": (headers, "the audit of files' headers", (1_000, 10_000, 30_000)),
    "split": (split, "deal splits: all files decoded and compared", (1_000, 10_000, 30_000)),
    "fiftyone": (to_fiftyone, "into FiftyOne", (1_000, 10_000)),
    "evaluate": (evaluate, "COCO's figures", SIZES),
}


def here(work: str, images: int, folder: Path) -> dict[str, float]:
    """Seconds and megabytes that a work takes in this process, its imports and preparations left out."""
    from odkit.system.machine import memory_peak_bytes

    make = WORKS[work][0]
    if work not in ("headers", "split", "fiftyone"):  # imports; these would warm a cache or fill a database
        make(SIZES[0], folder)()
    ready = make(images, folder)
    before, cpu, wall = memory_peak_bytes(restart=True), seconds(), time.perf_counter()
    ready()
    return {
        "seconds": seconds() - cpu,
        "wall": time.perf_counter() - wall,
        "megabytes": (memory_peak_bytes() - before) / 1e6,
    }


def seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


# -- the data, and the processes ---------------------------------------------------------------------------------------


def write_labels(images: int, folder: Path) -> None:
    """COCO's JSON with the columns' boxes."""

    dataset = columns(images, folder)
    xywh = np.column_stack([dataset.boxes[:, :2], dataset.boxes[:, 2:] - dataset.boxes[:, :2]]).round(2)
    pairs = zip(xywh.tolist(), dataset.box_classes.tolist(), dataset.box_images.tolist(), strict=True)
    labels = {
        "images": [
            {"id": i + 1, "file_name": path, "width": 640, "height": 640}
            for i, path in enumerate(dataset.image_ids)
        ],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(dataset.class_names)],
        "annotations": [
            {
                "id": n + 1,
                "image_id": i + 1,
                "category_id": k + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for n, (box, k, i) in enumerate(pairs)
        ],
    }
    (folder / LABELS).mkdir(parents=True, exist_ok=True)
    (folder / LABELS / f"{images}.json").write_text(json.dumps(labels))


def draw_images(images: int, folder: Path) -> None:
    """So many small JPEGs that all look different: a few random colours, smoothed."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i, colours in enumerate(rng.integers(0, 256, (images, 6, 8, 3), np.uint8)):
        path = folder / f"{i // 1000:03}" / f"{i:06}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(colours).resize((64, 48), Image.Resampling.BICUBIC).save(path, quality=75)


def apart(work: str, images: int, folder: Path) -> dict[str, float]:
    """`here` in a process of its own, which remembers nothing of those before."""
    command = [sys.executable, __file__, "--here", work, str(images), str(folder)]
    cache = {"ODKIT_CACHE": str(folder / "cache" / f"{work}-{images}")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **cache})
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def exponent(sizes: tuple[int, ...], values: list[float]) -> float:
    """The power of the number of images with which a cost grew at the last step up."""
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def draw(measured: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "odkit", "font.family": "DejaVu Sans", "font.size": 8}):
        canvas = Figure(figsize=(8.6, 4.6), facecolor="#ffffff", layout="constrained")
        for axes, column, label in zip(
            canvas.subplots(1, 2),
            ("seconds", "megabytes"),
            ("seconds of the processor", "memory, MB"),
            strict=True,
        ):
            for work, figures in measured.items():
                sizes, values = zip(*((n, figure[column]) for n, figure in figures.items()), strict=True)
                steep = exponent(sizes, [max(value, 1e-3) for value in values])
                axes.plot(sizes, values, marker="o", markersize=3.5, label=f"{WORKS[work][1]}: {steep:.2f}")
            axes.set(xscale="log", yscale="log", xlabel="images, of 8 boxes each", ylabel=label)
            axes.grid(color="#d0d7de", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(
                title="grows as images to the power",
                loc="upper center",
                bbox_to_anchor=(0.5, -0.14),
                frameon=False,
                fontsize=7,
                title_fontsize=7,
            )
        canvas.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"of {', '.join(WORKS)}; all without one")
    parser.add_argument("--all", action="store_true", help="splits and FiftyOne to 100,000 images, too")
    parser.add_argument("--plot", type=Path, help="where the picture is written (default: with the rows)")
    parser.add_argument("--here", nargs=3, metavar=("WORK", "IMAGES", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        work, images, folder = args.here
        print(json.dumps(here(work, int(images), Path(folder))))
        return
    measured: dict[str, dict[int, dict[str, float]]] = {}
    works = args.works or list(WORKS)
    with tempfile.TemporaryDirectory(prefix="odkit-growth-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        sizes = {work: SIZES if args.all else WORKS[work][2] for work in works}
        if files := [max(sizes[work]) for work in works if work in ("headers", "split", "fiftyone")]:
            draw_images(max(files), folder)
        for work in works:
            measured[work] = {}
            for images in sizes[work]:
                if work == "read":
                    write_labels(images, folder)
                measured[work][images] = apart(work, images, folder)
            said(WORKS[work][1], measured[work])
    out = os.environ.get("ODKIT_BENCH_OUT")
    if args.plot or out:
        draw(measured, args.plot or Path(str(out)) / "growth.svg")


def said(name: str, figures: dict[int, dict[str, float]]) -> None:
    sizes = tuple(figures)
    most = figures[sizes[-1]]
    steps = "; ".join(
        f"{n:,}: {figure['seconds']:.3g} s ({figure['wall']:.3g} on the clock), {figure['megabytes']:.3g} MB"
        for n, figure in figures.items()
    )
    row(f"{name}, {sizes[-1]:,} images: time", most["seconds"], note=steps)
    row(f"{name}, {sizes[-1]:,} images: memory", most["megabytes"], unit="MB")
    steep = exponent(sizes, [figures[n]["seconds"] for n in sizes])
    row(f"{name}: time grows as images to the power", steep, unit="", wanted=STEEP)
    steep = exponent(sizes, [max(figures[n]["megabytes"], 0.1) for n in sizes])
    row(f"{name}: memory grows as images to the power", steep, unit="", wanted=STEEP)


if __name__ == "__main__":
    main()
