"""Planted label faults, by hand and by the hundred: a good detector's contradictions point at them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import odkit as od
from odkit.analysis.evaluation import evaluate
from odkit.analysis.label_errors import Suspect, corrected, find_suspects
from odkit.data.boxes import box_iou
from odkit.data.demo.faults import demo_faults
from tests.helpers import NAMES, fault_ranks, make_dataset, make_predictions

GOOD = [(k, k % 2, (20 + k, 20, 80 + k, 80)) for k in range(40)]  # one sound label in each of forty images
SEEN = [(k, label, 0.9 + k / 1000, box) for k, label, box in GOOD]


def suspects(labels, seen, images=41):
    return find_suspects(evaluate(make_dataset(labels, images=images), make_predictions(seen)))


def test_sound_labels_are_left_alone():
    assert suspects(GOOD, SEEN) == []


BOX = (100, 100, 200, 200)
CASES = {
    "wrong_class": ([(40, 0, BOX)], [(40, 1, 0.95, BOX)]),
    "missing": ([], [(40, 1, 0.95, BOX)]),
    "bad_box": ([(40, 1, BOX)], [(40, 1, 0.95, (140, 120, 240, 220))]),
    "spurious": ([(40, 1, BOX)], []),
    "duplicate": ([(40, 1, BOX), (40, 1, (100, 100, 190, 195))], [(40, 1, 0.95, BOX)]),
}


@pytest.mark.parametrize("kind", CASES)
def test_each_kind_by_hand(kind):
    labels, seen = CASES[kind]
    found = suspects(GOOD + labels, SEEN + seen)
    assert [suspect.kind for suspect in found] == [kind]
    (suspect,) = found
    assert suspect.image == 40
    assert suspect.image_id == "40.jpg"
    assert suspect.score > 0.4
    assert suspect.box == {"missing": -1, "duplicate": 41}.get(kind, 40)
    assert suspect.class_name == "dog"
    seen_there = kind in ("wrong_class", "missing", "bad_box")
    assert suspect.suggestion == (pytest.approx(seen[0][3]) if seen_there else None)
    assert suspect.prediction == (-1 if kind == "spurious" else 40)
    assert "40.jpg" in str(suspect)
    assert "probably" in str(suspect)


@pytest.mark.parametrize("kind", CASES)
def test_each_kind_is_put_right(kind):
    labels, seen = CASES[kind]
    dataset = make_dataset(sorted([*GOOD, *labels], key=lambda row: row[0]), images=41)
    found = find_suspects(evaluate(dataset, make_predictions(SEEN + seen)))
    right = corrected(dataset, found)
    assert (right.boxes_per_image()[:40] == 1).all()
    mended = right.boxes_of(40)
    truth = {
        "wrong_class": [(1, BOX)],
        "missing": [(1, BOX)],
        "bad_box": [(1, seen[0][3] if seen else None)],
        "spurious": [],
        "duplicate": [(1, BOX)],
    }
    assert [(c, tuple(b)) for c, b in zip(right.box_classes[mended], right.boxes[mended], strict=True)] == (
        truth[kind]
    )
    assert right.notes[-1] == f"corrected as a detector suggested: 1 {kind.replace('_', ' ')}"
    assert suspects_of(right, SEEN + seen) == [], "nothing is left to accuse"
    assert corrected(right, []).fingerprint() == right.fingerprint()


def suspects_of(dataset, seen):
    return find_suspects(evaluate(dataset, make_predictions(seen)))


def test_a_missing_label_is_added_where_it_belongs():
    dataset = make_dataset(GOOD, images=41)
    truth = [*GOOD, (20, 1, (200, 200, 300, 300))]
    seen = [(k, label, 0.95, box) for k, label, box in truth]
    right = corrected(dataset, suspects_of(dataset, seen))
    assert right.num_boxes == 41
    assert right.boxes[right.boxes_of(20)].tolist() == [[40, 20, 100, 80], [200, 200, 300, 300]]
    assert right.box_ids[right.boxes_of(20)][1] == "suggested 1"
    assert dataset.num_boxes == 40, "the dataset itself stays as it is"


def test_a_suspect_of_another_dataset_is_refused():
    labels, seen = CASES["wrong_class"]
    found = suspects(GOOD + labels, SEEN + seen)
    with pytest.raises(ValueError, match=r"not about 'made' \(40 images\): 40.jpg"):
        corrected(make_dataset(GOOD, images=40), found)


def test_an_unsure_contradiction_ranks_below_a_sure_one():
    unsure = [(k, 1 - label, 0.2, (200, 200, 260, 260)) for k, label, _ in GOOD[:20]]  # wrong every time
    found = suspects([*GOOD, (40, 0, BOX)], [*SEEN, *unsure, (40, 1, 0.95, BOX)])
    assert found[0].kind == "wrong_class"
    assert all(suspect.score < found[0].score / 2 for suspect in found[1:])


def test_predictions_on_crowds_accuse_nobody():
    dataset = make_dataset([*GOOD, (40, 0, BOX)], images=41, crowd=[False] * 40 + [True])
    assert find_suspects(evaluate(dataset, make_predictions([*SEEN, (40, 1, 0.95, BOX)]))) == []


def test_a_class_that_is_never_found_is_not_spurious():
    labels = [*GOOD, *((k, 2, (200, 200, 260, 260)) for k in range(40))]
    assert suspects(labels, SEEN) == []


def test_labels_of_classes_that_the_detector_does_not_know_are_not_called_wrong():
    def image(k):
        return [(k, 0, (50, 50, 150, 150)), (k, 1, (200, 200, 300, 300))]

    dataset = make_dataset([row for k in range(40) for row in image(k)], images=40)
    sure = [(k, 0, 0.9, (50, 50, 150, 150)) for k in range(40)]
    taken_for_another = [(k, 0, 0.9, (200, 200, 300, 300)) for k in range(12)]
    every, alone = (make_predictions(sure + taken_for_another, names=names) for names in (NAMES, NAMES[:1]))
    assert {one.kind for one in find_suspects(evaluate(dataset, every))} == {"wrong_class"}
    assert find_suspects(evaluate(dataset, alone)) == []


def planted(seed, images=150):
    """Labels with faults of four kinds, what is really there, and the faults as (kind, image, box)."""
    rng = np.random.default_rng(seed)
    truth, labels, faults = [], [], []
    for image in range(images):
        boxes = []
        while len(boxes) < 5:
            corner, size = rng.uniform(0, 300, 2), rng.uniform(30, 100, 2)
            box = np.r_[corner, corner + size]
            if not boxes or box_iou([box], boxes).max() < 0.2:
                boxes.append(box)
        objects = [(image, int(rng.integers(3)), box) for box in boxes]
        truth += objects
        kind = [None, "wrong_class", "bad_box", "missing", "spurious"][
            int(rng.choice(5, p=[0.6, 0.1, 0.1, 0.1, 0.1]))
        ]
        _, label, box = objects[0]
        if kind == "wrong_class":
            objects[0] = (image, (label + 1) % 3, box)
        elif kind == "bad_box":
            objects[0] = (image, label, box + np.tile(box[2:] - box[:2], 2) * [0.3, 0.2, 0.3, 0.2])
        elif kind == "missing":
            objects = objects[1:]
        elif kind == "spurious":
            objects.insert(0, (image, label, np.r_[330, 330, 390, 390] + rng.uniform(0, 9)))
        if kind:
            faults.append((kind, image, objects[0][2] if kind != "missing" else box))
        labels += objects
    return labels, truth, faults


def test_nine_of_ten_planted_faults_are_among_the_first_suspects():
    rng = np.random.default_rng(1)
    labels, truth, faults = planted(0)
    seen = []
    for image, label, box in truth:  # a good detector, neither perfect nor sure
        size = np.tile(box[2:] - box[:2], 2)
        if rng.random() < 0.97:
            guess = label if rng.random() < 0.98 else int(rng.integers(3))
            seen.append((image, guess, rng.beta(8, 2), box + rng.normal(0, 0.03, 4) * size))
        elif rng.random() < 0.8:
            seen.append((image, label, rng.beta(2, 6), box + rng.normal(0, 0.05, 4) * size))
    for _ in range(60):
        corner = rng.uniform(0, 300, 2)
        seen.append(
            (int(rng.integers(150)), int(rng.integers(3)), rng.beta(1.5, 5), np.r_[corner, corner + 60])
        )
    found = suspects(labels, seen, images=150)[: 2 * len(faults)]
    near = [
        any(suspect.kind == kind and suspect.image == image for suspect in found) for kind, image, _ in faults
    ]
    assert len(faults) > 40
    assert np.mean(near) >= 0.9


def test_what_a_weak_detector_misses_does_not_crowd_out_the_rest():
    labels = [(k, 0, (20, 20, 80, 80)) for k in range(100)] + [(k, 1, BOX) for k in range(100)]
    seen = [(k, 0, 0.5, (20, 20, 80, 80)) for k in range(60)] + [(k, 1, 0.5, BOX) for k in range(60)]
    swapped = [(k, 1, (300, 300, 360, 360)) for k in range(3)]
    found = suspects([*labels, *swapped], [*seen, *((k, 0, 0.5, box) for k, _, box in swapped)], images=100)
    assert sum(suspect.kind == "spurious" for suspect in found) == 80
    assert [suspect.kind for suspect in found[:6]].count("wrong_class") == 3


# -- the demo's planted faults, and what real detectors make of them ------------------------------------------------


@pytest.fixture(scope="module")
def faulty():
    return od.repaired(od.demo_dataset(faults=True))


@pytest.fixture(scope="module")
def real_suspects(faulty):
    """By predictions that record_suspects.py recorded: no image was judged by a detector that was trained on it."""
    recorded = od.Predictions.load(Path(__file__).with_name("suspects.npz"))
    return od.mistakes(faulty, recorded).suspects


@pytest.mark.slow
def test_real_detectors_lead_to_nine_in_ten_planted_faults(faulty, real_suspects):
    ranks = fault_ranks(faulty, real_suspects)
    assert len(ranks) >= 70
    assert sum(0 <= rank < 2 * len(ranks) for rank in ranks) >= 0.9 * len(ranks)


@pytest.mark.slow
def test_on_the_images_that_notebook_04_judges_the_first_suspects_are_label_errors(faulty):
    """Its text takes the first eight for accepted where nobody looked, and says that each is one."""
    judged = faulty.select(faulty.image_splits != "train")
    recorded = od.Predictions.load(Path(__file__).with_name("suspects.npz"))
    found = od.mistakes(judged, recorded.for_dataset(faulty).for_dataset(judged))
    ranks = fault_ranks(judged, found.suspects)
    errors = len(ranks)
    assert errors > 20
    assert sum(0 <= rank < 2 * errors for rank in ranks) >= 0.9 * errors
    assert set(range(8)) <= set(ranks)
    mended = od.evaluate(od.corrected(judged, found.suspects[:8]), found.predictions)
    assert mended.ap > found.evaluation.ap


@pytest.mark.slow
def test_accepting_what_points_at_a_fault_brings_the_labels_nearer_the_truth(faulty, real_suspects):
    found = sorted({rank for rank in fault_ranks(faulty, real_suspects) if rank >= 0})
    right = od.corrected(faulty, [real_suspects[rank] for rank in found])
    truth = od.demo_dataset()
    assert labels_apart(right, truth) < 0.35 * labels_apart(faulty, truth)


def labels_apart(dataset, truth):
    """Labels of either that have no counterpart of the same class and place (IoU from 0.6) in the other."""
    apart = 0
    for row, image_id in enumerate(truth.image_ids):
        if image_id not in dataset.image_ids:
            continue
        here, there = dataset.boxes_of(dataset.index_of(image_id)), truth.boxes_of(row)
        same = (
            np.array(dataset.class_names)[dataset.box_classes[here]][:, None]
            == (np.array(truth.class_names)[truth.box_classes[there]][None])
        )
        pairs = same & (box_iou(dataset.boxes[here], truth.boxes[there]) >= 0.6)
        apart += int((~pairs.any(1)).sum() + (~pairs.any(0)).sum())
    return apart


@pytest.mark.slow
def test_ranks_of_faults(faulty):
    wanted = [f for f in demo_faults(faulty) if f["kind"] == "wrong_class" and f["image"] in faulty.image_ids]
    one = Suspect(
        "wrong_class", 0.9, 0, wanted[0]["image"], 0, str(wanted[0]["annotation"]), -1, "gear", None
    )
    here = faulty.select([faulty.index_of(wanted[0]["image"])])
    assert fault_ranks(here, []) == [-1]
    assert fault_ranks(here, [one]) == [0]
    elsewhere = replace(one, image_id="somewhere else")
    assert fault_ranks(here, [elsewhere, one]) == [1]
