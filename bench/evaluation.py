"""COCO's figures, the tables and mistakes beside them, and intervals: odkit beside pycocotools, on random predictions.

python bench/evaluation.py [IMAGES]

5,000 images are COCO's size: 35,000 boxes of 80 classes, 500,000 predictions. Times are seconds of the processor, all
cores together, so that a busy machine says the same; the best of three but for pycocotools' and the intervals'.
"""

import contextlib
import io
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import TypeVar

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rows import row

import odkit as od
from odkit.data.boxes import xyxy_to_xywh

CLASSES = 80
BOXES, FOUND = 7, 100  # an image
Result = TypeVar("Result")


def make(images: int) -> tuple[od.Dataset, od.Predictions]:
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 400, (images * BOXES, 2)), rng.uniform(20, 200, (images * BOXES, 2))
    boxes = np.concatenate([corner, corner + size], 1)
    dataset = od.Dataset(
        name="random",
        root="/nowhere",
        class_names=tuple(f"class {k}" for k in range(CLASSES)),
        image_paths=[f"/nowhere/{i}.jpg" for i in range(images)],
        image_sizes=[(640, 640)] * images,
        boxes=boxes,
        box_classes=rng.integers(CLASSES, size=len(boxes)),
        box_images=np.repeat(np.arange(images), BOXES),
    )
    rows = np.repeat(np.arange(images), FOUND) * BOXES + rng.integers(BOXES, size=images * FOUND)
    guess = dataset.boxes[rows] + rng.normal(0, 12, (len(rows), 4))
    guess[:, 2:] = np.maximum(guess[:, 2:], guess[:, :2] + 1)
    found = od.Predictions(
        boxes=guess,
        scores=rng.random(len(rows)),
        classes=np.where(
            rng.random(len(rows)) < 0.7, dataset.box_classes[rows], rng.integers(CLASSES, size=len(rows))
        ),
        images=dataset.box_images[rows],
        class_names=dataset.class_names,
    )
    return dataset, found


def pycocotools_ap(dataset: od.Dataset, found: od.Predictions) -> float:
    def rows(boxes, images, classes, **more):
        columns = zip(xyxy_to_xywh(boxes).tolist(), images.tolist(), classes.tolist(), strict=True)
        return [
            {
                "id": n + 1,
                "image_id": i + 1,
                "category_id": k + 1,
                "bbox": b,
                "area": b[2] * b[3],
                "iscrowd": 0,
            }
            | {name: float(values[n]) for name, values in more.items()}
            for n, (b, i, k) in enumerate(columns)
        ]

    truth = COCO()
    truth.dataset = {
        "images": [{"id": i + 1} for i in range(len(dataset))],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(dataset.class_names)],
        "annotations": rows(dataset.boxes, dataset.box_images, dataset.box_classes),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes(rows(found.boxes, found.images, found.classes, score=found.scores))
        engine = COCOeval(truth, results, "bbox")
        engine.evaluate()
        engine.accumulate()
        engine.summarize()
    return float(engine.stats[0])


def timed(work: Callable[[], Result], times: int = 3) -> tuple[Result, float]:
    """What the work gives, and the processor's seconds it takes, the least of several times."""
    least = float("inf")
    for _ in range(times):
        start = time.process_time()
        result = work()
        least = min(least, time.process_time() - start)
    return result, least


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    dataset, found = make(images)
    str(od.mistakes(dataset.select([0]), found.select(found.images < 1)))  # imports
    evaluation, figures = timed(lambda: od.evaluate(dataset, found))
    _, printed = timed(lambda: str(od.evaluate(dataset, found)))
    _, mistakes = timed(lambda: str(od.mistakes(dataset, found)))
    _, calibrated = timed(lambda: str(od.evaluate(dataset, found).calibration()))
    interval, drawn = timed(lambda: evaluation.intervals().of("ap"), 1)
    theirs, other = timed(lambda: pycocotools_ap(dataset, found), 1)
    assert abs(evaluation.ap - theirs) < 1e-6, (evaluation.ap, theirs)
    print(f"{images:,} images, {len(found):,} predictions of {CLASSES} classes (AP {theirs:.4f} both)")
    beside = f"pycocotools {version('pycocotools')}, the figures alone"
    for name, seconds in (
        ("COCO's figures: evaluate()", figures),
        ("with tables: print(evaluate())", printed),
        ("and what went wrong: print(mistakes())", mistakes),
        ("and calibration()", calibrated),
    ):
        row(name, seconds, other, beside=beside)
    low, high = interval
    row(
        "95 % intervals from 1,000 draws of the images",
        drawn,
        note=f"AP {theirs:.4f}, {low:.4f} to {high:.4f}",
    )


if __name__ == "__main__":
    main()
