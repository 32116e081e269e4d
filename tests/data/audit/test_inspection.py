"""The audit as a whole: thresholds, depth, real data, the demo's planted faults, training's refusal."""

import json
import os
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from odkit.data.audit.checks import CHECKS
from odkit.data.audit.inspection import DatasetFaultError, audit, require_trainable
from odkit.data.audit.repair import repaired
from odkit.data.boxes import voc_to_xyxy, xywh_to_xyxy
from odkit.data.dataset import Dataset, SourceProblem
from odkit.data.demo.dataset import write_demo
from odkit.data.demo.faults import demo_faults
from odkit.data.images import read_header
from tests.data.audit.bench import PLANTS, Bench, exif, no_area, no_boxes, spots, tiny


def test_nothing_wrong(tmp_path):
    dataset = Bench(tmp_path).build()
    found = audit(dataset)
    assert len(found) == 0
    assert found.ok
    assert found.counts == {}
    assert (
        repr(found) == "Audit of 'bench' (20 images, 60 boxes): 0 fatal, 0 warnings, 0 info\nNothing found."
    )
    assert repaired(dataset) is dataset
    assert require_trainable(dataset).ok


def test_header_only_sees_all_but_damaged_pixels(tmp_path):
    bench = Bench(tmp_path)
    planted = {(kind, *plant(bench)) for plant, kind in PLANTS.items()}
    dataset = bench.build()
    assert spots(audit(dataset)) - spots(audit(dataset, decode=False)) == {
        ("unreadable_image", "cut.jpg", ""),
        ("near_duplicate_across_splits", "again.jpg", ""),
        ("one_colour", "grey.png", ""),
        ("copied_labels", "repeat.png", ""),
        ("deep_pixels", "05.png", ""),
    }
    columns_alone = {kind for kind, *_ in spots(audit(dataset, files=False))}
    on_files = {kind for kind, *_ in planted} - columns_alone
    assert on_files == {
        "missing_image", "unreadable_image", "huge_image", "wrong_size", "exif_orientation", "exif_undecided",
        "deep_pixels", "duplicate_image", "duplicate_across_splits",
        "near_duplicate_across_splits", "one_colour", "copied_labels", "unread_picture", "unread_labels",
    }  # fmt: skip


def test_thresholds_are_parameters(tmp_path):
    bench = Bench(tmp_path)
    bench.label("00.png", 0, (3, 5, 12, 15))  # overlaps the first by 0.82
    dataset = bench.build()
    assert audit(dataset).counts == {}
    assert audit(dataset, duplicate_iou=0.8).counts == {"duplicate_box": 1}
    assert audit(dataset, tiny=10).counts["tiny"] == 21
    assert audit(dataset, num_workers=1).counts == {}
    for wrong in ({"tiny": -1}, {"duplicate_iou": 1.0}, {"num_workers": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            audit(dataset, **wrong)


def test_empty_datasets(tmp_path):
    bench = Bench(tmp_path)
    no_boxes(bench)
    found = audit(bench.build())
    assert found.counts == {"no_boxes": 1, "unused_class": 3, "image_without_labels": 20}
    assert "No repair mends no_boxes." in found.table()
    with pytest.raises(DatasetFaultError, match="20 images, not one box"):
        require_trainable(bench.build())
    bench.images = {}
    assert audit(bench.build()).of("no_boxes")[0].message == "the dataset holds no image"
    assert repaired(bench.build()).num_boxes == 0


def test_an_audit_of_another_dataset_is_refused(tmp_path):
    bench = Bench(tmp_path)
    found = audit(bench.build())
    no_area(bench)
    with pytest.raises(ValueError, match=r"the audit is of 'bench' .* not of this"):
        repaired(bench.build(), found)
    with pytest.raises(ValueError, match="the audit is of"):
        require_trainable(bench.build(), found)


def test_training_refuses_fatal_findings(tmp_path):
    bench = Bench(tmp_path)
    no_area(bench)
    tiny(bench)
    dataset = bench.build()
    with pytest.raises(DatasetFaultError) as caught:
        require_trainable(dataset)
    text = str(caught.value)
    assert text.startswith("'bench' has 1 finding with which training would crash or go wrong.")
    assert "fatal: 1 box without area [no_area]" in text
    assert "07.png, box 4: 17 x 0 pixels" in text
    assert "tiny" not in text
    assert "od.repaired(dataset) repairs 1 finding of 1 kind (`--repair` on the command line)" in text
    assert caught.value.audit.counts == {"no_area": 1, "tiny": 1}
    assert require_trainable(repaired(dataset)).counts == {"tiny": 1}


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_broken_nothing_fatal_is_left(tmp_path, seed):
    rng = np.random.default_rng(seed)
    bench = Bench(tmp_path, splits=bool(seed % 2))
    for i in range(12):
        bench.add(f"random{i}.jpg", str(rng.choice(["train", "val", "test", ""])))
    for name in list(bench.images):
        spoil = rng.integers(0, 16)
        size = bench.images[name][0]
        if spoil == 0:
            bench.path(name).unlink()
        elif spoil == 1:
            data = bench.path(name).read_bytes()
            bench.path(name).write_bytes(data[: int(len(data) * rng.random())])
        elif spoil == 2 or spoil == 3:
            bench.images[name][0] = (np.array(size) * rng.choice([0.5, 2, 3, 0.37, 0])).astype(int).tolist()
        elif spoil == 4:
            bench.images[name][0] = rng.integers(1, 90, 2).tolist()
        elif spoil == 5:
            shutil.copyfile(bench.path("19.png"), bench.path(name)) if bench.path("19.png").exists() else None
        elif spoil == 6:
            bench.problems.append(SourceProblem("unreadable_label", "fatal", "x", "no", "do", name))
        elif spoil >= 12:
            with Image.open(bench.path(name)) as image:
                image.load()
            image.save(bench.path(name), exif=exif(int(rng.integers(1, 9))))
    for label in bench.labels:
        box = np.array(label[2], float)
        spoil = rng.integers(0, 16)
        if spoil == 0:
            box[rng.integers(4)] = rng.choice([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38])
        elif spoil == 1:
            box = box[rng.permutation(4)]
        elif spoil == 2:
            box = box + rng.normal(0, 50, 4)
        elif spoil == 3:
            box[2:] = box[:2] + rng.choice([0, 1e-6, 0.3], 2)
        elif spoil == 4:
            box = np.full(4, rng.choice([0, 40, 39.99999]))
        elif spoil == 5:
            label[1] = -1
        label[2] = box.tolist()
    for name, _, box in list(bench.labels):
        if rng.random() < 0.05:
            bench.label(name, int(rng.integers(3)), box)
    dataset = bench.build()
    assert not audit(dataset).ok
    view = repaired(dataset)
    assert view.num_boxes > 10
    assert audit(view).fatal == ()
    again = repaired(view)
    assert audit(again).fatal == ()
    # what training hands to the detector: finite, in order, inside the image
    sizes = view.image_sizes[view.box_images].astype(np.float64)
    assert np.isfinite(view.boxes).all()
    assert (view.boxes[:, 2:] > view.boxes[:, :2]).all()
    assert (view.boxes[:, :2] > -0.51).all()
    assert (view.boxes[:, 2:] < sizes + 0.51).all()
    assert all(os.path.exists(path) for path in view.image_paths)


def test_bccd_has_its_two_boxes_without_area(bccd):
    dataset = read_bccd(bccd)
    found = audit(dataset)
    assert [(Path(f.image).stem, f.box) for f in found.of("no_area")] == [
        ("BloodImage_00338", "object 13"),
        ("BloodImage_00343", "object 4"),
    ]
    assert found.fatal == found.of("no_area")
    view = repaired(dataset, found)
    assert view.num_boxes == dataset.num_boxes - 2
    assert len(view) == len(dataset)
    assert audit(view, decode=False).ok


def read_bccd(folder):
    names = ["Platelets", "RBC", "WBC"]
    paths, sizes, boxes, classes, images, box_ids = [], [], [], [], [], []
    for i, xml in enumerate(sorted((folder / "Annotations").glob("*.xml"))):
        root = ET.parse(xml).getroot()
        paths.append(folder / "JPEGImages" / f"{xml.stem}.jpg")
        sizes.append([int(root.findtext(f"size/{side}")) for side in ("width", "height")])
        for number, thing in enumerate(root.iter("object"), 1):
            corners = [int(thing.findtext(f"bndbox/{c}")) for c in ("xmin", "ymin", "xmax", "ymax")]
            same = corners[:2] == corners[2:]
            boxes.append(corners if same else voc_to_xyxy([corners])[0])
            classes.append(names.index(thing.findtext("name")))
            images.append(i)
            box_ids.append(f"object {number}")
    return Dataset(
        name="bccd",
        root=folder,
        class_names=names,
        image_paths=paths,
        image_sizes=sizes,
        boxes=np.array(boxes),
        box_classes=classes,
        box_images=images,
        box_ids=box_ids,
    )


@pytest.mark.slow
def test_the_audit_finds_what_the_demo_plants(tmp_path):
    """Every fault that can be seen without knowing what the pictures show; the others are for `mistakes()` to find."""
    write_demo(tmp_path, images=60, faults=True)
    dataset = read_demo(tmp_path)
    found = audit(dataset)
    needs_eyes = {"wrong_class", "bad_box", "missing_box", "spurious_box"}
    planted = [fault for fault in demo_faults(tmp_path) if fault["kind"] not in needs_eyes]
    assert len(planted) >= 16
    for fault in planted:
        spots = {(f.image, f.box) for f in found.of(fault["kind"])}
        # of two copies either may be named
        image = {fault["image"] or "", fault.get("other_image")}
        boxes = {str(fault["annotation"] or ""), *map(str, fault.get("annotations", ()))}
        assert any(i in image and box in boxes for i, box in spots), f"{fault} is not among {spots}"
    assert len(found.fatal) == sum(CHECKS[fault["kind"]].severity == "fatal" for fault in planted)

    view = repaired(dataset, found)
    assert audit(view).ok
    truths = [
        fault for fault in planted if "true_size" in fault or fault["kind"] in ("inverted", "partly_outside")
    ]
    assert {fault["kind"] for fault in truths} == {
        "wrong_size",
        "exif_orientation",
        "inverted",
        "partly_outside",
    }
    for fault in truths:
        row = view.index_of(fault["image"])
        with Image.open(view.image_paths[row]) as image:
            assert ImageOps.exif_transpose(image).size == tuple(view.image_sizes[row])
        if "true_box" in fault:
            at = int(np.flatnonzero(view.box_ids[view.boxes_of(row)] == str(fault["annotation"]))[0])
            assert view.boxes[view.boxes_of(row)][at].tolist() == fault["true_box"]
    # and the boxes lie where they were before the size was spoiled or the image turned
    clean = tmp_path / "clean"
    write_demo(clean, images=60)
    truth = read_demo(clean)
    for fault in truths:
        row, true_row = view.index_of(fault["image"]), truth.index_of(fault["image"])
        np.testing.assert_allclose(
            view.boxes[view.boxes_of(row)], truth.boxes[truth.boxes_of(true_row)], atol=0.01
        )


def read_demo(folder):
    """The demo's COCO files as a Dataset, with images that are in no list as images without labels."""
    ids, sizes, splits, boxes, classes, images, box_ids, names = [], [], [], [], [], [], [], []
    for split in ("train", "val", "test"):
        page = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
        places = {}
        names = {category["id"]: category["name"] for category in page["categories"]}
        for image in page["images"]:
            places[image["id"]] = len(ids)
            ids.append(f"{split}/{image['file_name']}")
            sizes.append((image["width"], image["height"]))
        for label in page["annotations"]:
            boxes.append(label["bbox"])
            classes.append(list(names).index(label["category_id"]))
            images.append(places[label["image_id"]])
            box_ids.append(str(label["id"]))
        for path in sorted((folder / split).glob("*.jpg")):
            if f"{split}/{path.name}" not in ids:
                ids.append(f"{split}/{path.name}")
                sizes.append(read_header(path)[:2])
        splits += [split] * (len(ids) - len(splits))
    return Dataset(
        name="demo",
        root=folder,
        format="coco",
        class_names=tuple(names.values()),
        image_paths=[str(folder / name) for name in ids],
        image_sizes=sizes,
        image_splits=splits,
        boxes=xywh_to_xyxy(boxes),
        box_classes=classes,
        box_images=images,
        box_ids=box_ids,
    )
