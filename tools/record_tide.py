"""Record what TIDE's published package says about the random cases of test_tide.py, into tests/analysis/tide.json.

Run by hand where `tidecv` is installed (1.0.1 made the recorded numbers); it cannot stand among the project's own
requirements, for it brings an OpenCV that replaces the one FiftyOne needs.

    python -m tools.record_tide
"""

import json
from pathlib import Path

from tests.helpers import random_case

SEEDS = range(12)
TIDE_NAMES = {"Cls": "Cls", "Loc": "Loc", "Both": "Both", "Dupe": "Dupe"}
TIDE_NAMES |= {
    "Bkg": "Bkg",
    "Miss": "Miss",
    "FalsePos": "FalsePos",
    "FalseNeg": "FalseNeg",
}


def tide_case(seed):
    """All four classes have boxes (TIDE averages over classes without any, COCO does not), and there are no crowds."""
    return random_case(seed, images=25, crowd=0, present=4)


def tide(dataset, predictions):
    """AP50, cost and count of each kind by the published package, in percent."""
    from tidecv import TIDE, Data

    truth, found = Data("truth", max_dets=10**6), Data("found", max_dets=10**6)
    for data in (truth, found):
        for image in range(len(dataset)):
            data.add_image(image, str(image))

    def xywh(box):
        x1, y1, x2, y2 = map(float, box)
        return [x1, y1, x2 - x1, y2 - y1]

    for image, label, box in zip(dataset.box_images, dataset.box_classes, dataset.boxes, strict=True):
        truth.add_ground_truth(int(image), int(label), xywh(box))
    p = predictions
    for image, label, score, box in zip(p.images, p.classes, p.scores, p.boxes, strict=True):
        found.add_detection(int(image), int(label), float(score), xywh(box))
    run = TIDE().evaluate(truth, found, mode=TIDE.BOX)
    costs = {**run.fix_main_errors(), **run.fix_special_errors()}
    counts = dict.fromkeys(list(TIDE_NAMES.values())[:6], 0)
    for error in run.errors:
        counts[TIDE_NAMES[error.short_name]] += 1
    costs = {TIDE_NAMES[kind.short_name]: float(cost) for kind, cost in costs.items()}
    return {"ap": float(run.ap), "costs": costs, "counts": counts}


if __name__ == "__main__":
    recorded = {str(seed): tide(*tide_case(seed)) for seed in SEEDS}
    (Path(__file__).parents[1] / "tests" / "analysis" / "tide.json").write_text(
        json.dumps(recorded, indent=1) + "\n"
    )
