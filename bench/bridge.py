"""Into FiftyOne and back: odkit beside FiftyOne's own importer, samples, evaluation and export, on the same data.

python bench/bridge.py [IMAGES]

10,000 images, the default, have 100,000 boxes. FiftyOne's importer takes the most of it, about a minute. Both sides
write the same: path, size (from the label file on both sides; no image is opened), boxes and labels. The database is
one of its own, in a temporary folder. The times are a clock's, as mongod works beside Python. `add_samples` and
FiftyOne's own evaluation, which are slow, are given a part of the images, and the same part is put there by odkit.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rows import row

import odkit as od
from odkit.browsing import fo_dataset
from odkit.data.boxes import xyxy_to_relative_xywh

WIDTH, HEIGHT, CLASSES, BOXES, FOUND = 640, 480, 80, 10, 20  # boxes and predictions an image
PART = 300  # images of the slow ones


def write(folder: Path, images: int) -> Path:
    """Images and their COCO file: one picture under many names."""
    rng = np.random.default_rng(0)
    (folder / "data").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "one.jpg")
    names = [f"{i:07}.jpg" for i in range(images)]
    for name in names:
        os.link(folder / "one.jpg", folder / "data" / name)
    corner, size = rng.uniform(0, 300, (images * BOXES, 2)), rng.uniform(20, 150, (images * BOXES, 2))
    boxes = np.concatenate([corner, size], 1).round(2).tolist()
    classes = (rng.integers(CLASSES, size=len(boxes)) + 1).tolist()
    facts = {
        "images": [
            {"id": i + 1, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)
        ],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(CLASSES)],
        "annotations": [
            {
                "id": n + 1,
                "image_id": n // BOXES + 1,
                "category_id": k,
                "bbox": b,
                "area": b[2] * b[3],
                "iscrowd": 0,
            }
            for n, (b, k) in enumerate(zip(boxes, classes, strict=True))
        ],
    }
    (folder / "labels.json").write_text(json.dumps(facts))
    return folder / "labels.json"


def guesses(dataset: od.Dataset) -> od.Predictions:
    """Predictions near the boxes, two a box."""
    rng = np.random.default_rng(1)
    rows = np.repeat(np.arange(dataset.num_boxes), FOUND // BOXES)
    boxes = dataset.boxes[rows] + rng.normal(0, 8, (len(rows), 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    other = rng.integers(CLASSES, size=len(rows))
    return od.Predictions(
        boxes=boxes,
        scores=rng.random(len(rows)),
        classes=np.where(rng.random(len(rows)) < 0.7, dataset.box_classes[rows], other),
        images=dataset.box_images[rows],
        class_names=dataset.class_names,
    )


def by_samples(fo: Any, dataset: od.Dataset, found: od.Predictions | None) -> Any:
    """As FiftyOne's documentation does it: an object a box, and all samples added in one call."""

    def detections(boxes: Any, classes: Any, scores: Any = None) -> Any:
        relative = xyxy_to_relative_xywh(boxes, [[WIDTH, HEIGHT]] * len(boxes)).tolist()
        scores = [None] * len(boxes) if scores is None else scores.tolist()
        return fo.Detections(
            detections=[
                fo.Detection(label=dataset.class_names[k], bounding_box=box, confidence=score)
                for box, k, score in zip(relative, classes.tolist(), scores, strict=True)
            ]
        )

    samples = []
    for i, path in enumerate(dataset.image_paths):
        sample = fo.Sample(filepath=path, metadata=fo.ImageMetadata(width=WIDTH, height=HEIGHT))
        rows = dataset.boxes_of(i)
        sample["ground_truth"] = detections(dataset.boxes[rows], dataset.box_classes[rows])
        if found is not None:
            these = found.of(i)
            sample["predictions"] = detections(found.boxes[these], found.classes[these], found.scores[these])
        samples.append(sample)
    there = fo.Dataset()
    there.add_samples(samples, progress=False)
    if found is not None:
        options = {"gt_field": "ground_truth", "eval_key": "eval", "progress": False}
        there.evaluate_detections("predictions", **options)
    return there


def warm_up(fo: Any, folder: Path, labels: Path) -> None:
    """Each call once with ten images: what is imported and made at the first one is in no figure."""
    few = od.load_dataset(labels).select(range(10))
    ours = od.to_fiftyone(few, name="warm", predictions=guesses(few), score=0.0)
    od.write_dataset(od.from_fiftyone(ours), folder / "warm", "coco", images="none")
    theirs = by_samples(fo, few, guesses(few))
    theirs.export(**coco_labels(fo, folder / "warm.json"))
    imported = fo.Dataset.from_dir(**coco_folder(fo, folder, labels), max_samples=10)
    for one in (ours, theirs, imported):
        one.delete()


def coco_folder(fo: Any, folder: Path, labels: Path) -> dict[str, Any]:
    kind = fo.types.COCODetectionDataset
    return {
        "dataset_type": kind,
        "data_path": str(folder / "data"),
        "labels_path": str(labels),
        "progress": False,
    }


def coco_labels(fo: Any, path: Path) -> dict[str, Any]:
    kind = fo.types.COCODetectionDataset
    return {
        "dataset_type": kind,
        "labels_path": str(path),
        "label_field": "ground_truth",
        "progress": False,
    }


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # the database is still open
        folder = Path(name)
        os.environ["FIFTYONE_DATABASE_DIR"] = str(folder / "database")
        labels = write(folder, images)
        fo = fo_dataset.fiftyone()
        version = f"FiftyOne {fo.__version__}"
        size = f"{images:,} images, {images * BOXES:,} boxes"
        warm_up(fo, folder, labels)

        reading, dataset = seconds(lambda: od.load_dataset(labels))
        putting, ours = seconds(lambda: od.to_fiftyone(dataset))
        importing, theirs = seconds(lambda: fo.Dataset.from_dir(**coco_folder(fo, folder, labels)))
        boxes = "ground_truth.detections"
        assert ours.count(boxes) == theirs.count("detections.detections") == images * BOXES
        assert ours.bounds("metadata.width") == theirs.bounds("metadata.width") == (WIDTH, WIDTH)
        row(
            f"COCO's labels into FiftyOne, read and put there, {size}",
            *(reading + putting, importing),
            beside=f"{version}, from_dir",
            wanted=3,
            note=f"{reading:.2f} s of odkit's are the reading",
        )

        few = dataset.select(range(min(PART, images)))
        fresh, made = seconds(lambda: od.to_fiftyone(few, name="few"))
        adding, added = seconds(lambda: by_samples(fo, few, None))
        assert made.count(boxes) == added.count(boxes) == few.num_boxes
        row(f"a Dataset into FiftyOne, {len(few):,} images", fresh, adding, beside=f"{version}, add_samples")
        made.delete()
        added.delete()
        found = guesses(few)
        fresh, made = seconds(lambda: od.to_fiftyone(few, name="judged", predictions=found, score=0.0))
        adding, added = seconds(lambda: by_samples(fo, few, found))
        assert made.count("predictions.detections") == added.count("predictions.detections") == len(found)
        row(
            f"with {len(found):,} predictions, matched and judged",
            *(fresh, adding),
            beside=f"{version}, add_samples and evaluate_detections",
            note="odkit's has AP and kinds of mistake besides",
        )

        found = guesses(dataset)
        judged = od.evaluate(dataset, found)
        first, _ = seconds(lambda: od.to_fiftyone(dataset, predictions=judged, score=0.0))
        again, _ = seconds(lambda: od.to_fiftyone(dataset, predictions=judged, score=0.0))
        row(f"{len(found):,} predictions onto images that are there", first)
        row("the same shown again", again, first, beside="odkit, the first time")

        back, came = seconds(lambda: od.from_fiftyone(ours))
        assert came.fingerprint() == dataset.fingerprint()
        fields = [f"{boxes}.{field}" for field in ("id", "bounding_box", "label")]
        values, _ = seconds(
            lambda: theirs.values(
                ["filepath", "tags", "metadata.width", "metadata.height"]
                + [field.replace("ground_truth", "detections") for field in fields]
            )
        )
        row(f"back, as a Dataset, {size}", back, values, beside=f"{version}, values() alone")
        exported, _ = seconds(lambda: added.export(**coco_labels(fo, folder / "out.json")))
        written, _ = seconds(
            lambda: od.write_dataset(od.from_fiftyone(made), folder / "out", "coco", images="none")
        )
        row(
            f"back, as a COCO file, {len(few):,} images",
            *(written, exported),
            beside=f"{version}, export of labels alone",
        )
        for one in (ours, theirs, made, added):
            one.delete()


if __name__ == "__main__":
    main()
