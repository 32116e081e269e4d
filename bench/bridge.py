"""A dataset with predictions into FiftyOne: odkit.to_fiftyone() beside FiftyOne's own samples, one by one.

python bench/bridge.py [IMAGES]
"""

import sys
import tempfile
import time
from pathlib import Path

from evaluation import make
from PIL import Image

import odkit as od
from odkit.browsing import fo_dataset
from odkit.data.boxes import xyxy_to_relative_xywh


def by_samples(fo, dataset: od.Dataset, found: od.Predictions):
    """As FiftyOne's documentation does it."""

    def detections(boxes, classes, scores=None):
        relative = xyxy_to_relative_xywh(boxes, [[640, 640]] * len(boxes)).tolist() if len(boxes) else []
        return fo.Detections(
            detections=[
                fo.Detection(
                    label=dataset.class_names[k],
                    bounding_box=box,
                    confidence=None if scores is None else float(scores[n]),
                )
                for n, (box, k) in enumerate(zip(relative, classes.tolist(), strict=True))
            ]
        )

    samples = []
    for i, path in enumerate(dataset.image_paths):
        sample = fo.Sample(filepath=path)
        rows, these = dataset.boxes_of(i), found.of(i)
        sample["ground_truth"] = detections(dataset.boxes[rows], dataset.box_classes[rows])
        sample["predictions"] = detections(found.boxes[these], found.classes[these], found.scores[these])
        samples.append(sample)
    there = fo.Dataset()
    there.add_samples(samples, progress=False)
    there.evaluate_detections("predictions", gt_field="ground_truth", eval_key="eval", progress=False)
    return there


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    dataset, found = make(images)
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, f"{i}.jpg")) for i in range(images)]
        for path in paths:
            Image.new("RGB", (640, 640)).save(path)
        dataset = dataset.replace(root=folder, image_paths=paths)
        fo = fo_dataset.fiftyone()
        start = time.perf_counter()
        ours = od.to_fiftyone(dataset, predictions=found, score=0.0)
        between = time.perf_counter()
        theirs = by_samples(fo, dataset, found)
        end = time.perf_counter()
        assert ours.count("predictions.detections") == theirs.count("predictions.detections") == len(found)
        ours.delete()
        theirs.delete()
    mine, other = between - start, end - between
    print(f"{images:,} images with {len(found):,} predictions into FiftyOne, matched with the ground truth")
    print(f"  odkit {mine:.2f} s, sample by sample {other:.2f} s: {other / mine:.1f} times as fast")


if __name__ == "__main__":
    main()
