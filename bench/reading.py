"""A label file of COCO's size: read, and every check that needs no pixels, beside pycocotools' COCO().

python bench/reading.py [IMAGES]

The file is drawn from a seed: 118,000 images as instances_train2017.json has, 7.3 boxes an image with polygons of their
masks, a few of them crowds with runs. The image files lie beside it, empty, as no check looks into them. Each side runs
in processes of its own, by turns; a figure is the best of its runs, memory the peak of the whole process.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
from rows import row

RUNS = 2
BOXES = 7.3  # an image
SIDES = ("odkit", "pycocotools")


def write_labels(path: Path, images: int, seed: int = 0) -> int:
    """An `instances` file as COCO's; the number of its boxes."""
    rng = np.random.default_rng(seed)
    categories = [{"supercategory": "thing", "id": k, "name": f"thing {k}"} for k in range(1, 91) if k % 9]
    kinds = np.array([entry["id"] for entry in categories])
    usual = rng.dirichlet(np.full(len(kinds), 0.3))
    keys = rng.permutation(images * 5)[:images] + 1
    sizes = np.where(rng.random((images, 1)) < 0.7, [[640, 480]], [[480, 640]])
    about = {"info": {"description": "drawn"}, "licenses": [{"id": 1, "name": "none", "url": "http://none"}]}
    number = 0
    with path.open("wb") as file:
        file.write(orjson.dumps(about)[:-1] + b', "images": [')
        for place, image in enumerate(rng.permutation(images)):  # annotations come in another order
            key, (width, height) = int(keys[image]), sizes[image].tolist()
            entry = {
                "license": 1,
                "file_name": f"{key:012d}.jpg",
                "coco_url": f"http://images.cocodataset.org/train2017/{key:012d}.jpg",
                "height": height,
                "width": width,
                "date_captured": "2013-11-14 17:02:52",
                "flickr_url": f"http://farm9.staticflickr.com/8186/8119368305_{key:010x}_z.jpg",
                "id": key,
            }
            file.write(b", " * bool(place) + orjson.dumps(entry))
        file.write(b'], "annotations": [')
        for first in range(0, images, 4096):
            counts = np.minimum(rng.geometric(1 / (BOXES + 1), min(4096, images - first)) - 1, 90)
            owner = np.repeat(np.arange(first, first + len(counts)), counts)
            frame = sizes[owner]
            extent = frame * np.exp(rng.normal(-1.8, 0.9, (len(owner), 1))).clip(0.01, 0.98)
            extent = (extent * np.exp(rng.normal(0, 0.3, extent.shape))).clip(2, frame - 1)
            corner = rng.random(extent.shape) * (frame - extent)
            points = rng.integers(4, 13, len(owner))
            ends = np.cumsum(points)
            turns = rng.random(ends[-1])
            spread = np.stack([np.cos(turns * 6.28), np.sin(turns * 6.28)], 1) / 2 + 0.5
            outline = (spread * np.repeat(extent, points, 0) + np.repeat(corner, points, 0)).round(2)
            flat, ends = outline.ravel().tolist(), (ends * 2).tolist()
            boxes = np.concatenate([corner, extent], 1).round(2).tolist()
            classes = kinds[rng.choice(len(kinds), len(owner), p=usual)].tolist()
            areas = (extent.prod(1) * 0.6).round(4).tolist()
            crowds = (rng.random(len(owner)) < 0.012).tolist()
            owners, frames = keys[owner].tolist(), frame[:, ::-1].tolist()
            entries = []
            for k, end in enumerate(ends):
                mask = [flat[end - 2 * int(points[k]) : end]]
                if crowds[k]:
                    mask = {"counts": [int(value) for value in mask[0]], "size": frames[k]}
                entries.append(
                    {
                        "segmentation": mask,
                        "area": areas[k],
                        "iscrowd": int(crowds[k]),
                        "image_id": owners[k],
                        "bbox": boxes[k],
                        "category_id": classes[k],
                        "id": (number + k + 1) * 2,
                    }
                )
            file.write(b", " * bool(number) + orjson.dumps(entries)[1:-1])
            number += len(entries)
        file.write(b'], "categories": ' + orjson.dumps(categories) + b"}")
    for key in keys.tolist():
        (path.parent / f"{key:012d}.jpg").touch()
    return number


def measure(side: str, path: str) -> None:
    """One side, in this process; prints its figures as JSON."""
    start, cpu = time.perf_counter(), time.process_time()
    if side == "pycocotools":
        from pycocotools.coco import COCO

        boxes, parts = len(COCO(path).anns), {}
    else:
        import odkit as od

        dataset = od.load_dataset(path, val=0)
        read = time.perf_counter() - start
        found = od.audit(dataset, files=False)
        assert not found.fatal, found
        boxes, parts = dataset.num_boxes, {"read": read}
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    from odkit.system.machine import memory_peak_bytes

    figures = {
        "seconds": seconds,
        "cpu": cpu,
        "megabytes": memory_peak_bytes() / 1e6,
        "boxes": boxes,
        **parts,
    }
    print(json.dumps(figures))


def in_process(side: str, path: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, side, str(path)], stdout=subprocess.PIPE, check=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 118_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "instances_train2017.json")
        boxes = write_labels(path, images)
        size = os.path.getsize(path) / 1e6
        runs = {side: [] for side in SIDES}
        for _ in range(RUNS):
            for side in SIDES:
                runs[side].append(in_process(side, path))
                assert runs[side][-1]["boxes"] == boxes
    best = {side: {name: min(run[name] for run in runs[side]) for name in runs[side][0]} for side in SIDES}
    ours, other = best["odkit"], best["pycocotools"]
    what = f"labels of {images:,} images, {boxes:,} boxes ({size:.0f} MB of JSON)"
    print(f"{what}: odkit {ours['cpu']:.1f} s of CPU time, pycocotools {other['cpu']:.1f} s")
    row(
        f"{what}: read, and every check that needs no pixels",
        ours["seconds"],
        other["seconds"],
        beside="pycocotools' COCO(), which checks nothing",
        wanted=2,
        note=f"reading alone {ours['read']:.2f} s",
    )
    row(
        f"{what}: peak memory of it",
        ours["megabytes"],
        other["megabytes"],
        beside="pycocotools' COCO()",
        unit="MB",
        wanted=2,
    )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in SIDES:
        measure(sys.argv[1], sys.argv[2])
    else:
        main()
