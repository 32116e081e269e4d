"""Every kind of finding on real image files, alone and all together."""

import shutil

import numpy as np
import pytest
from PIL import Image

from odkit.data.audit.checks import CHECKS, REPAIRS
from odkit.data.audit.inspection import audit, require_trainable
from odkit.data.audit.repair import repaired
from odkit.data.boxes import box_iou
from odkit.data.dataset import Dataset, SourceProblem
from tests.data.audit.bench import PLANTS, Bench, spots


def test_every_kind_has_a_case():
    assert set(PLANTS.values()) | {"no_boxes"} == set(CHECKS)
    assert {check.severity for check in CHECKS.values()} == {"fatal", "warning", "info"}
    assert all(check.repair in (*REPAIRS, "") for check in CHECKS.values())


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_each_fault_alone(tmp_path, plant):
    bench = Bench(tmp_path)
    image, box = plant(bench)
    dataset = bench.build()
    found = audit(dataset)
    assert spots(found) == {(PLANTS[plant], image, box)}
    (finding,) = found
    assert finding.severity == CHECKS[PLANTS[plant]].severity
    assert finding.message
    assert finding.fix
    if CHECKS[finding.kind].find is not None:  # else a reader met it, and names the label file
        assert finding.file == (str(bench.path(image)) if image else "")
    assert finding.box_index == (-1 if not box else int(np.flatnonzero(dataset.box_ids == box)[-1]))
    assert found.ok == (finding.severity != "fatal")

    view = repaired(dataset, found)
    assert audit(view).ok
    if finding.repair:
        assert finding.kind not in audit(view).counts
        assert any(REPAIRS[finding.repair] in note for note in view.notes)
    else:
        assert view is dataset


def test_all_faults_together(tmp_path):
    bench = Bench(tmp_path)
    planted = {(kind, *plant(bench)) for plant, kind in PLANTS.items()}
    dataset = bench.build()
    found = audit(dataset)
    assert spots(found) >= planted
    assert {kind for kind, *_ in spots(found)} == set(PLANTS.values())
    assert [f.severity for f in found] == sorted(
        (f.severity for f in found), key=("fatal", "warning", "info").index
    )

    view = repaired(dataset, found)
    assert audit(view).ok
    assert require_trainable(view)


def test_same_boxes_against_every_pair(tmp_path):
    """The sweep from left to right finds exactly what comparing all pairs finds."""
    rng = np.random.default_rng(3)
    corners = rng.integers(0, 4, (400, 2)) * 6
    boxes = np.concatenate([corners, corners + rng.integers(10, 13, (400, 2))], axis=1) + rng.normal(
        0, 0.05, (400, 4)
    )
    images, classes = np.sort(rng.integers(0, 6, 400)), rng.integers(0, 3, 400)
    crowd = rng.random(400) < 0.05
    dataset = Dataset(
        class_names=("a", "b", "c"),
        image_paths=[f"{i}.jpg" for i in range(6)],
        image_sizes=[(64, 64)] * 6,
        boxes=boxes,
        box_classes=classes,
        box_images=images,
        box_crowd=crowd,
    )
    same = (box_iou(dataset.boxes, dataset.boxes) > 0.95) & (images[:, None] == images)
    same &= ~crowd[:, None] & ~crowd & (np.arange(400)[:, None] > np.arange(400))
    copies = (same & (classes[:, None] == classes)).any(1)
    mixed = (same & (classes[:, None] != classes) & ~copies).any(1) & ~copies
    found = audit(dataset, files=False)
    assert found.boxes("duplicate_box").tolist() == np.flatnonzero(copies).tolist()
    assert set(found.boxes("two_classes").tolist()) == set(np.flatnonzero(mixed).tolist())
    assert copies.sum() > 20
    assert mixed.sum() > 10


def test_class_names_are_merged_into_the_most_frequent(tmp_path):
    bench = Bench(tmp_path)
    bench.names = ["Traffic light", "nut", "gear", "traffic_light", "TRAFFIC  LIGHT", "a", "A", "rest"]
    for name, index in [
        ("00.png", 3),
        ("00.png", 3),
        ("01.png", 4),
        ("02.png", 5),
        ("03.png", 6),
        ("04.png", 7),
    ]:
        bench.label(name, index, (1 + 10 * (len(bench.labels) % 3), 20, 9 + 10 * (len(bench.labels) % 3), 29))
    bench.label("05.png", 3, (3, 4, 12, 14))  # the same thing under another spelling: a box drawn twice
    dataset = bench.build()
    found = audit(dataset)
    assert [f.message for f in found.of("class_name_variant")] == [
        "'Traffic light' (20 boxes), 'traffic_light' (3 boxes), 'TRAFFIC  LIGHT' (1 box)"
    ]
    assert "two_classes" not in found.counts
    view = repaired(dataset)
    assert view.class_names == ("Traffic light", "nut", "gear", "a", "A", "rest")
    assert list(view.class_counts().values()) == [23, 20, 20, 1, 1, 1]


def test_copies_are_found_by_bytes_and_by_pixels(tmp_path):
    bench = Bench(tmp_path, splits=False)
    bench.add("bytes.png")
    shutil.copyfile(bench.path("00.png"), bench.path("bytes.png"))
    bench.add("pixels.png", boxes=[(0, (3, 4, 12, 14))])
    with Image.open(bench.path("00.png")) as image:
        image.save(bench.path("pixels.png"), compress_level=0)
    dataset = bench.build()
    assert {f.image: f.message for f in audit(dataset)} == {
        "bytes.png": "the same bytes as 00.png",
        "pixels.png": "the same pixels as 00.png, but labelled otherwise (1 box against 3)",
    }
    assert [f.image for f in audit(dataset, decode=False)] == ["bytes.png"]


def test_held_out_copies_stay_held_out(tmp_path):
    bench = Bench(tmp_path)
    for name, split in [("a.png", "train"), ("b.png", "val"), ("c.png", "test"), ("d.png", "train")]:
        bench.add(name, split)
        shutil.copyfile(bench.path("00.png"), bench.path(name))
    found = audit(bench.build())
    assert {f.image for f in found.of("duplicate_across_splits")} == {"00.png", "a.png", "b.png", "d.png"}
    view = repaired(bench.build())
    assert "c.png" in view.image_ids
    assert not {"00.png", "a.png", "b.png", "d.png"} & set(view.image_ids)
    assert "duplicate_across_splits" not in audit(view).counts


def test_images_alike_in_two_splits_are_named_on_both_sides(tmp_path):
    """One finding an image, at the one that is held out less; copies, one split, and no split are not its business."""
    bench = Bench(tmp_path)

    def again(name, split, of, shift):
        bench.add(name, split)
        with Image.open(bench.path(of)) as image:
            image.point(lambda value: value * 0.9 + shift).save(bench.path(name))

    again("a.png", "train", "12.png", 5)
    again("b.png", "test", "12.png", 9)
    again("c.png", "train", "00.png", 5)
    again("d.png", "", "13.png", 5)
    bench.add("e.png", "train")
    shutil.copyfile(bench.path("14.png"), bench.path("e.png"))
    dataset = bench.build()
    found = audit(dataset).of("near_duplicate_across_splits")
    messages = {f.image: f.message for f in found}
    assert messages == {
        "12.png": "in val, looks the same as b.png in test (similarity 1.000)",
        "a.png": "in train, looks the same as b.png in test (similarity 1.000), and 1 more",
    }
    assert {(f.severity, f.repair) for f in found} == {("warning", "")}
    assert audit(dataset).of("near_duplicate_across_splits") == found
    assert [f.image for f in audit(dataset).of("duplicate_across_splits")] == ["e.png"]
    assert "near_duplicate_across_splits" not in audit(dataset.with_splits(val=0.3)).counts


def test_many_inverted_boxes_are_called_into_question(tmp_path):
    bench = Bench(tmp_path)
    for label in bench.labels[:30]:
        x1, y1, x2, y2 = label[2]
        label[2] = [x1, y1, x2 - x1, y2 - y1]
    found = audit(bench.build())
    assert "x, y, width, height" in found.of("inverted")[0].fix


def test_source_problems_are_listed_once_with_the_readers_words(tmp_path):
    bench = Bench(tmp_path)
    box = bench.label("00.png", -1, (1, 1, 9, 9))
    bench.problems = [
        SourceProblem(
            "unknown_class", "warning", "00.txt", "class 17, the table ends at 2", "Add it.", "00.png", box
        ),
        SourceProblem(
            "unreadable_label", "fatal", "01.txt", "line 3 is no box", "Correct it.", "01.png", "line 3"
        ),
        SourceProblem("odd_comma", "info", "labels.csv", "a comma too many in line 9", "Delete it."),
    ]
    dataset = bench.build()
    found = audit(dataset)
    assert found.counts == {"unreadable_label": 1, "unknown_class": 1, "odd_comma": 1}
    (unknown,) = found.of("unknown_class")
    assert (unknown.severity, unknown.message, unknown.file, unknown.box_index) == (
        "fatal", "class 17, the table ends at 2", "00.txt", 3,
    )  # fmt: skip
    assert found.of("unreadable_label")[0].image_index == 1
    assert "1 x odd comma [odd_comma]" in found.table()
    view = repaired(dataset)
    assert len(view) == 20  # one line of a label file is lost, not the image
    assert view.num_boxes == 60
    assert audit(view).counts == {"odd_comma": 1}


def test_an_image_that_lost_every_box_does_not_pass_for_empty(tmp_path):
    bench = Bench(tmp_path)
    for name in ("00.png", "01.png", "02.png"):
        bench.clear(name)
    bench.label("00.png", 0, (5, 5, 5, 9))  # something is there, nobody knows where
    bench.label("01.png", -1, (5, 5, 9, 9))  # a class that is not wanted: rightly empty
    view = repaired(bench.build())
    assert "00.png" not in view.image_ids
    assert {"01.png", "02.png"} <= set(view.image_ids)
    assert any("1 image dropped that had lost every box" in note and "00.png" in note for note in view.notes)
