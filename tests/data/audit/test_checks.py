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
from tests.data.audit.bench import PLANTS, Bench, crowded_image, spots


def test_every_kind_has_a_case():
    of_the_whole = {"no_boxes", "corners_for_sides", "split_skew", "mostly_background"}
    assert set(PLANTS.values()) | of_the_whole == set(CHECKS)
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
        unread = {"unread_picture": "telephone.HEIC", "unread_labels": "boxes.mat"}
        file = image or unread.get(finding.kind, "")
        assert finding.file == (str(bench.path(file)) if file else "")
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


def labelled(index, box, *names):
    def plant(bench):
        for name in names or ("07.png",):
            bench.label(name, index, box)

    return plant


def large_class(bench):
    for i in range(12):
        bench.label(f"{i:02}.png", 2, (0, 0, 38 - i / 4, 29))
    for label in bench.labels:
        if label[1] == 2 and label[2][1] > 10:
            label[2][0], label[2][1] = label[2][0] - 8, 1


def slender_class(bench):
    for i in range(20):
        bench.labels[3 * i + 1][2] = [1 + i / 40, 6, 39, 8.5 - i / 40]
    bench.label("07.png", 1, (0, 3, 40, 5))


def few_of_the_class(bench):
    bench.names.append("few")
    for i in range(18):
        bench.label(f"{i:02}.png", 3, (1, 18, 7, 24))
    bench.label("18.png", 3, (0, 0, 40, 30))


def moved_a_pixel(bench):
    (*others, (index, box)) = bench.boxes_of("18.png")
    bench.add("repeat.png", "train", boxes=[*others, (index, (*box[:3], box[3] - 0.4))])


def one_box_the_same(bench):
    bench.add("one.png", "train", boxes=[(0, (3, 4, 12, 14))])
    bench.add("two.png", "train", boxes=[(0, (3, 4, 12, 14))])


def other_classes(bench):
    bench.add(
        "repeat.png", "train", boxes=[((index + 1) % 3, box) for index, box in bench.boxes_of("18.png")]
    )


def the_same_scene(bench):
    bench.add("later.png", "val", boxes=bench.boxes_of("18.png"))
    with Image.open(bench.path("18.png")) as image:
        noise = np.random.default_rng(1).normal(0, 40, (30, 40, 3))
        pixels = np.clip(np.asarray(image) * 0.8 + noise, 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(bench.path("later.png"))


def a_dot_on_grey(bench):
    bench.add("dot.png", "train", size=(400, 300))
    pixels = np.full((300, 400, 3), 90, np.uint8)
    pixels[150, 200] = 250
    Image.fromarray(pixels).save(bench.path("dot.png"))


def colours_of_one_brightness(bench):
    bench.add("hues.png", "train")
    pixels = np.full((30, 40, 3), (120, 60, 60), np.uint8)
    pixels[:, 20:] = (60, 91, 60)
    Image.fromarray(pixels).save(bench.path("hues.png"))


def raw_beside_the_jpeg(bench):
    bench.path("00.CR2").write_bytes(b"II*")
    bench.path(".hidden.heic").write_bytes(b"x")
    bench.path("folder.psd").mkdir()
    (bench.folder / "icons").mkdir()
    bench.path("icons/logo.svg").write_text("<svg/>")
    bench.path("icons/boxes.mat").write_text("x")
    bench.path("README.md").write_text("x")


def the_same_name_elsewhere(bench):
    (bench.folder / "more").mkdir()
    bench.add("more/00.PNG", "train")


@pytest.mark.parametrize(
    "plant",
    [
        labelled(0, (1, 1, 39, 28.3)),  # 86% of the image
        large_class,
        few_of_the_class,
        labelled(0, (0, 3, 39.8, 5)),  # 19.9 times
        labelled(0, (0, 0, 2, 41), "tall.png"),  # at the border
        slender_class,
        moved_a_pixel,
        one_box_the_same,
        other_classes,
        the_same_scene,
        a_dot_on_grey,
        colours_of_one_brightness,
        raw_beside_the_jpeg,
        the_same_name_elsewhere,
        lambda bench: crowded_image(bench, 100),
    ],
)
def test_near_misses_are_no_findings(tmp_path, plant):
    bench = Bench(tmp_path)
    bench.add("tall.png", "train", size=(40, 60))
    plant(bench)
    assert spots(audit(bench.build())) == set()


def test_what_stands_out_says_why(tmp_path):
    bench = Bench(tmp_path)
    for kind in (
        "huge_box",
        "extreme_shape",
        "copied_labels",
        "one_colour",
        "case_collision",
        "crowded_image",
    ):
        next(plant for plant, of in PLANTS.items() if of == kind)(bench)
    assert {f.kind: f.message for f in audit(bench.build())} == {
        "huge_box": "it covers 99% of the image, which is rare for 'bolt'",
        "extreme_shape": "40 x 2 pixels, which is rare for 'nut'",
        "copied_labels": "the same 3 boxes as original.png, whose picture looks different",
        "one_colour": "red, green and blue are about 90, 91, 92 everywhere, yet it has 3 boxes",
        "case_collision": "the same name as 19.png but for the case of letters",
        "crowded_image": "101 boxes, of which at most 99% can be found",
    }


def test_a_drawing_in_the_transparency_alone_is_an_image_of_one_colour(tmp_path):
    bench = Bench(tmp_path)
    bench.add("logo.png", "train", boxes=[])
    pixels = np.zeros((30, 40, 4), np.uint8)
    pixels[5:20, 5:20, 3] = 255
    Image.fromarray(pixels).save(bench.path("logo.png"))
    (finding,) = audit(bench.build()).of("one_colour")
    assert finding.message == (
        "red, green and blue are about 0, 0, 0 everywhere; what is drawn in its transparency is not read"
    )


def test_unread_files_are_told_by_kind_and_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "Annotations").mkdir()
    bench = Bench(tmp_path / "images", kind="voc")
    for i in range(5):
        bench.path(f"IMG_{i}.heic").write_bytes(b"x")
    for i in range(2):
        (tmp_path / f"Annotations/{i}.mat").write_bytes(b"x")
    bench.path("scan.psd").write_bytes(b"x")
    (tmp_path / "boxes.parquet").write_bytes(b"x")
    dataset = bench.build().replace(root=tmp_path)
    found = {(f.kind, f.file): f.message for f in audit(dataset)}
    assert found == {
        ("unread_picture", str(bench.path("IMG_0.heic"))): (
            "HEIC, as iPhones take them; 4 more beside it: IMG_1.heic, IMG_2.heic, IMG_3.heic, ..."
        ),
        ("unread_picture", str(bench.path("scan.psd"))): "Photoshop",
        ("unread_labels", str(tmp_path / "Annotations/0.mat")): "MATLAB; 1 more beside it: 1.mat",
        ("unread_labels", str(tmp_path / "boxes.parquet")): "a table of Arrow's",
    }
    assert audit(dataset, files=False).counts == {}
    # made by hand, the root may be a whole disk: only what lies beside the images is looked at
    assert set(audit(dataset.replace(format="")).counts) == {"unread_picture"}


def columns(split_boxes, *, class_names=("bolt", "nut"), problems=()):
    """A dataset of no files: split to the boxes of each class in each image."""
    images = [(split, counts) for split, rows in split_boxes.items() for counts in rows]
    places = [(i, k) for i, (_, counts) in enumerate(images) for k, n in enumerate(counts) for _ in range(n)]
    corners = np.random.default_rng(0).random((len(places), 2)) * 900
    return Dataset(
        class_names=class_names,
        image_paths=[f"{i}.jpg" for i in range(len(images))],
        image_sizes=[(1000, 1000)] * len(images),
        image_splits=[split for split, _ in images],
        boxes=np.concatenate([corners, corners + 30], axis=1),
        box_classes=[k for _, k in places],
        box_images=[i for i, _ in places],
        source_problems=problems,
    )


@pytest.mark.parametrize(
    ("train", "val", "messages"),
    [
        # a third against a tenth, in many images
        ([(2, 1)] * 100, [(9, 1)] * 40, ["'nut' has 10.0% of the boxes in val, 33.3% in train"]),
        # less than twice
        ([(2, 1)] * 100, [(4, 1)] * 40, []),
        # one image has them all: chance
        ([(9, 1)] * 100, [(9, 0)] * 39 + [(20, 60)], []),
        # a split too small to have shares
        ([(2, 1)] * 100, [(9, 1)] * 9, []),
        # a class that is missing altogether is another finding
        ([(1, 1)] * 100, [(1, 0)] * 40, []),
        # images without objects
        (
            [(1, 1)] * 100,
            [(1, 1)] * 30 + [(0, 0)] * 10,
            ["25.0% of the images in val are without objects, 0.0% in train"],
        ),
        ([(1, 1)] * 90 + [(0, 0)] * 10, [(1, 1)] * 38 + [(0, 0)] * 2, []),
    ],
)
def test_shares_that_differ_between_splits(train, val, messages):
    found = audit(columns({"train": train, "val": val}), files=False)
    assert [f.message for f in found.of("split_skew")] == messages
    assert {f.kind for f in found} <= {
        "split_skew",
        "class_missing_in_split",
        "image_without_labels",
        "small_split",
    }


def test_shares_are_held_against_those_of_train():
    same, other = [(2, 1)] * 100, [(9, 1)] * 100
    assert "split_skew" not in audit(columns({"val": same, "test": other}), files=False).counts
    found = audit(columns({"train": other, "val": same, "test": same}), files=False)
    assert [f.message.split(" in ")[1].split(",")[0] for f in found.of("split_skew")] == ["val", "test"]


@pytest.mark.parametrize(("empty", "says"), [(10, None), (11, "11 of 21 images (52%) are without objects")])
def test_a_dataset_of_mostly_empty_images(empty, says):
    found = audit(columns({"": [(1, 1)] * 10 + [(0, 0)] * empty}), files=False)
    assert [f.message for f in found.of("mostly_background")] == ([says] if says else [])


@pytest.mark.parametrize("kind", ["mostly_unlabelled", "unreadable_label"])
def test_images_that_may_have_objects_are_no_background(kind):
    """Not yet labelled, or with labels that cannot be read: another finding says so."""
    images = [f"{i}.jpg" for i in range(10, 30)] if kind == "unreadable_label" else [""]
    problems = tuple(SourceProblem(kind, "warning", "labels", "no labels", "Label them.", i) for i in images)
    found = audit(columns({"": [(1, 1)] * 10 + [(0, 0)] * 20}, problems=problems), files=False)
    assert "mostly_background" not in found.counts


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


@pytest.mark.parametrize("apart", [0, 1e-4])
def test_boxes_at_one_place_are_compared_in_linear_time(apart):
    """Every pair of them would be two billion."""
    number = 60_000
    boxes = np.tile([4.0, 4.0, 24.0, 20.0], (number, 1))
    boxes[:, [0, 2]] += apart * np.arange(number)[::-1, None] / number
    classes = np.arange(number) % 2 if apart else np.arange(number) % 1000
    found = audit(one_image(boxes, classes), files=False)
    # the first of each class is told with another class, but for the very first of all
    kinds = int(classes.max()) + 1
    assert found.counts["duplicate_box"] == number - kinds
    assert found.counts["two_classes"] == kinds - 1
    assert {f.box_index for f in found.of("two_classes")} == set(range(1, kinds))


def test_names_of_very_many_classes_are_compared_in_linear_time():
    number = 50_000
    boxes = np.tile([4.0, 4.0, 24.0, 20.0], (number, 1))
    dataset = one_image(boxes, np.arange(number))
    names = [f"class {i // 2}" if i % 2 else f"Class {i // 2}" for i in range(number)]
    variants = audit(dataset.replace(class_names=tuple(names)), files=False).of("class_name_variant")
    assert len(variants) == number // 2
    assert variants[0].message == "'Class 0' (1 box), 'class 0' (1 box)"


def one_image(boxes, classes):
    return Dataset(
        class_names=[f"{k}" for k in range(int(classes.max()) + 1)],
        image_paths=["a.jpg"],
        image_sizes=[(64, 48)],
        boxes=boxes,
        box_classes=classes,
        box_images=np.zeros(len(boxes), int),
    )


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
    bench.add("bytes.png", boxes=bench.boxes_of("00.png"))
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


def test_coco_boxes_that_are_corners(tmp_path):
    """x, y, right, bottom where x, y, width, height belong: told once they cannot be the latter, and read as such."""
    corners = [(20, 10, 33, 25), (3, 4, 39, 29), (15, 12, 30, 28)]
    bench = Bench(tmp_path, kind="coco")
    bench.labels = [
        [name, k, (x, y, x + right, y + bottom)]
        for name in bench.images
        for k, (x, y, right, bottom) in enumerate(corners)
    ]
    found = audit(bench.build())
    assert found.counts["corners_for_sides"] == 60
    assert "partly_outside" not in found.counts
    assert "20, 10, 33, 25" in found.of("corners_for_sides")[0].message
    view = repaired(bench.build(), found)
    assert view.boxes[:3].tolist() == [list(box) for box in corners]
    assert "corners_for_sides" not in audit(view).counts

    bench.labels[-1][2] = (30, 20, 35, 25)  # one that cannot be corners: then they may all be sides
    assert audit(bench.build()).counts["partly_outside"] == 59

    bench.labels = [[name, 0, (2, 2, 42, 32)] for name in bench.images]  # whole images, never clipped
    counts = audit(bench.build()).counts
    assert "corners_for_sides" not in counts
    assert counts["partly_outside"] == len(bench.images)
