"""Every kind of finding on real image files, alone and all together; the repaired view; training's refusal."""

import hashlib
import json
import os
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from odkit.data.audit.checks import CHECKS, REPAIRS
from odkit.data.audit.inspection import DatasetFaultError, audit, require_trainable
from odkit.data.audit.repair import repaired
from odkit.data.boxes import box_iou, upright_boxes, voc_to_xyxy, xywh_to_xyxy
from odkit.data.dataset import Dataset, SourceProblem
from odkit.data.demo.dataset import write_demo
from odkit.data.demo.faults import demo_faults
from odkit.data.images import read_header

NAN = float("nan")


class Bench:
    """Twenty small images, ten in train and ten in val, with nothing wrong; a test spoils it and builds the Dataset."""

    def __init__(self, folder, *, splits=True, kind="made"):
        self.folder, self.kind = folder, kind
        self.names = ["bolt", "nut", "gear"]
        self.problems = []
        self.images = {}  # id: [size, split]
        self.labels = []  # [image id, class index, box]
        for i in range(20):
            split = "val" if i >= 10 else "train"
            self.add(f"{i:02}.png", split if splits else "")

    def add(
        self,
        name,
        split="",
        *,
        size=(40, 30),
        boxes=((0, (3, 4, 12, 14)), (1, (20, 5, 33, 25)), (2, (8, 16, 19, 29))),
    ):
        self.noise(name, size)
        self.images[name] = [list(size), split]
        for index, box in boxes:
            self.label(name, index, box)
        return name

    def noise(self, name, size, **options):
        """Write an image that is like no other."""
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(self.folder / name, **options)

    def label(self, name, index, box):
        self.labels.append([name, index, list(box)])
        return f"box {sum(1 for label in self.labels if label[0] == name)}"

    def clear(self, name):
        self.labels = [label for label in self.labels if label[0] != name]

    def path(self, name):
        return self.folder / name

    def build(self):
        ids = list(self.images)
        return Dataset(
            name="bench",
            root=self.folder,
            format=self.kind,
            class_names=self.names,
            image_paths=[str(self.folder / name) for name in ids],
            image_sizes=[size for size, _ in self.images.values()],
            image_splits=[split for _, split in self.images.values()],
            boxes=np.array([box for *_, box in self.labels], np.float32).reshape(-1, 4),
            box_classes=[index for _, index, _ in self.labels],
            box_images=[ids.index(name) for name, *_ in self.labels],
            source_problems=tuple(self.problems),
        )


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


# One function a kind: it spoils one image of its own and says where the finding must be.


def missing_image(bench):
    bench.path("00.png").unlink()
    return ["00.png", ""]


def unreadable_image(bench):
    bench.path("01.png").write_text("<!DOCTYPE html><title>404</title>")
    return ["01.png", ""]


def cut_short(bench):
    path = bench.path(bench.add("cut.jpg", "train"))
    path.write_bytes(path.read_bytes()[:-400])
    return ["cut.jpg", ""]


def huge_image(bench):
    # a header that claims 20,000 x 20,000 pixels; nothing of it is ever unpacked
    path = bench.path("02.png")
    data = bytearray(path.read_bytes())
    data[16:24] = (20000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    bench.images["02.png"][0] = [20000, 20000]
    return ["02.png", ""]


def unreadable_label(bench):
    bench.problems.append(
        SourceProblem(
            "unreadable_label", "fatal", "03.txt", "line 2 is 'x'", "Correct the line.", image="03.png"
        )
    )
    return ["03.png", ""]


def label_without_image(bench):
    bench.problems.append(
        SourceProblem("label_without_image", "warning", "lost.txt", "no image has this name", "Delete it.")
    )
    return ["", ""]


def wrong_size(bench):
    bench.images["04.png"][0] = [80, 60]
    return ["04.png", ""]


def exif_orientation(bench):
    bench.add("turned.jpg", "train")
    bench.noise("turned.jpg", (40, 30), exif=exif(6))
    return ["turned.jpg", ""]


def exif_undecided(bench):
    bench.add("mirrored.jpg", "train")
    bench.noise("mirrored.jpg", (40, 30), exif=exif(2))
    return ["mirrored.jpg", ""]


def deep_pixels(bench):
    deep = np.random.default_rng(16).integers(0, 65535, (30, 40)).astype(np.uint16)
    Image.fromarray(deep).save(bench.path("05.png"))
    return ["05.png", ""]


def unknown_size(bench):
    bench.images["06.png"][0] = [0, 0]
    return ["06.png", ""]


def not_finite(bench):
    return ["07.png", bench.label("07.png", 0, (3, NAN, 20, 10))]


def no_area(bench):
    return ["07.png", bench.label("07.png", 0, (3, 2, 20, 2))]


def inverted(bench):
    return ["07.png", bench.label("07.png", 0, (20, 3, 2, 25))]


def outside(bench):
    return ["07.png", bench.label("07.png", 0, (41, 3, 60, 25))]


def unknown_class(bench):
    return ["08.png", bench.label("08.png", -1, (1, 1, 20, 20))]


def partly_outside(bench):
    return ["08.png", bench.label("08.png", 0, (30, 1, 52, 20))]


def tiny(bench):
    return ["08.png", bench.label("08.png", 0, (30, 1, 31, 9))]


def duplicate_box(bench):
    return ["09.png", bench.label("09.png", 0, (3, 4, 12, 14.1))]


def two_classes(bench):
    return ["09.png", bench.label("09.png", 2, (20, 5, 33, 25))]


def class_name_variant(bench):
    bench.names.append(" Bolt")
    bench.label("10.png", len(bench.names) - 1, (1, 20, 6, 28))
    bench.label("03.png", len(bench.names) - 1, (1, 20, 6, 28))
    return ["", ""]


def unused_class(bench):
    bench.names.append("rivet")
    return ["", ""]


def class_imbalance(bench):
    bench.names += ["pin"]
    for name in ("11.png", "04.png"):
        bench.label(name, len(bench.names) - 1, (1, 20, 6, 28))
    bench.label("11.png", len(bench.names) - 1, (34, 1, 39, 9))
    for i in range(12, 20):
        for k in range(2):
            bench.label(f"{i}.png", 0, (k * 14, 1, k * 14 + 13, 3.5))
    return ["", ""]


def class_missing_in_split(bench):
    bench.names += ["spring"]
    for name in ("12.png", "13.png"):
        for k in range(5):
            bench.label(name, len(bench.names) - 1, (1 + k * 7, 25.5, 7 + k * 7, 29.5))
    return ["", ""]


def small_split(bench):
    bench.add("test.png", "test")
    for k in range(20):
        bench.label("test.png", k % 3, (k, 0, k + 3, 4 + k))
    return ["", ""]


def without_split(bench):
    bench.images["14.png"][1] = ""
    bench.add("another.png", "val")
    return ["14.png", ""]


def image_without_labels(bench):
    bench.clear("15.png")
    return ["15.png", ""]


def duplicate_image(bench):
    bench.add("copy.png", "train")
    shutil.copyfile(
        bench.path("00.png" if bench.path("00.png").exists() else "03.png"), bench.path("copy.png")
    )
    return ["copy.png", ""]


def duplicate_across_splits(bench):
    bench.add("leak.png", "train")
    shutil.copyfile(bench.path("16.png"), bench.path("leak.png"))
    return ["leak.png", ""]


def no_boxes(bench):
    bench.labels = []
    return ["", ""]


PLANTS = {
    plant: kind
    for kind, *plants in [
        ("missing_image", missing_image),
        ("unreadable_image", unreadable_image, cut_short),
        ("huge_image", huge_image),
        ("unreadable_label", unreadable_label),
        ("wrong_size", wrong_size),
        ("exif_orientation", exif_orientation),
        ("not_finite", not_finite),
        ("no_area", no_area),
        ("inverted", inverted),
        ("outside", outside),
        ("unknown_class", unknown_class),
        ("partly_outside", partly_outside),
        ("tiny", tiny),
        ("duplicate_box", duplicate_box),
        ("two_classes", two_classes),
        ("class_name_variant", class_name_variant),
        ("label_without_image", label_without_image),
        ("exif_undecided", exif_undecided),
        ("deep_pixels", deep_pixels),
        ("unknown_size", unknown_size),
        ("duplicate_image", duplicate_image),
        ("duplicate_across_splits", duplicate_across_splits),
        ("class_missing_in_split", class_missing_in_split),
        ("small_split", small_split),
        ("without_split", without_split),
        ("unused_class", unused_class),
        ("class_imbalance", class_imbalance),
        ("image_without_labels", image_without_labels),
    ]
    for plant in plants
}


def spots(found):
    return {(f.kind, f.image, f.box) for f in found}


def test_every_kind_has_a_case():
    assert set(PLANTS.values()) | {"no_boxes"} == set(CHECKS)
    assert {check.severity for check in CHECKS.values()} == {"fatal", "warning", "info"}
    assert all(check.repair in (*REPAIRS, "") for check in CHECKS.values())


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


def test_header_only_sees_all_but_damaged_pixels(tmp_path):
    bench = Bench(tmp_path)
    planted = {(kind, *plant(bench)) for plant, kind in PLANTS.items()}
    dataset = bench.build()
    assert spots(audit(dataset)) - spots(audit(dataset, decode=False)) == {
        ("unreadable_image", "cut.jpg", "")
    }
    columns_alone = {kind for kind, *_ in spots(audit(dataset, files=False))}
    on_files = {kind for kind, *_ in planted} - columns_alone
    assert on_files == {
        "missing_image", "unreadable_image", "huge_image", "wrong_size", "exif_orientation", "exif_undecided",
        "deep_pixels", "duplicate_image", "duplicate_across_splits",
    }  # fmt: skip


def test_table_text(tmp_path):
    bench = Bench(tmp_path)
    for _ in range(3):
        no_area(bench)
    inverted(bench)
    small_split(bench)
    found = audit(bench.build())
    table = f"""\
Audit of 'bench' (21 images, 87 boxes): 4 fatal, 1 warning, 0 info

fatal: 3 boxes without area [no_area]. {CHECKS["no_area"].meaning}
    07.png, box 4: 17 x 0 pixels, corners (3, 2, 20, 2)
    07.png, box 5: 17 x 0 pixels, corners (3, 2, 20, 2)
    and 1 more
  Draw the box again or delete it. repaired() drops the box.

fatal: 1 box with inverted corners [inverted]. {CHECKS["inverted"].meaning}
    07.png, box 7: the second corner comes first: (20, 3, 2, 25)
  Swap the corners. repaired() swaps the corners.

warning: 1 split too small [small_split]. Below 10 images, accuracy measured on a split is mostly chance.
    test has 1 image
  Deal the images anew, dataset.with_splits(val=...), or label more.

od.repaired(dataset) repairs 4 findings of 2 kinds (`--repair` on the command line); the files stay as they are."""
    assert found.table(limit=2) == table
    assert "box 6" in found.table(limit=None)
    assert "and 1 more" not in found.table(limit=None)


def test_json(tmp_path):
    bench = Bench(tmp_path)
    no_area(bench)
    dataset = bench.build()
    page = json.loads(audit(dataset).to_json())
    assert page == {
        "dataset": "bench",
        "root": str(tmp_path),
        "fingerprint": dataset.fingerprint(),
        "images": 20,
        "boxes": 61,
        "ok": False,
        "counts": {"no_area": 1},
        "findings": [
            {
                "kind": "no_area",
                "severity": "fatal",
                "message": "17 x 0 pixels, corners (3, 2, 20, 2)",
                "fix": "Draw the box again or delete it.",
                "file": str(tmp_path / "07.png"),
                "image": "07.png",
                "box": "box 4",
                "image_index": 7,
                "box_index": 24,
                "repair": "drops the box",
            }
        ],
    }


def test_html_is_escaped_and_grouped(tmp_path):
    bench = Bench(tmp_path)
    bench.names[0] = "<script>alert(1)</script>"
    bench.names.append("<SCRIPT>alert(1)</SCRIPT>")
    no_area(bench)
    page = audit(bench.build())._repr_html_()
    assert "<script" not in page.lower()
    assert "&lt;script&gt;" in page
    assert "<details open><summary><b>fatal</b> 1 box without area" in page
    assert "od.repaired(dataset)" in page


def test_kinds_and_indices(tmp_path):
    bench = Bench(tmp_path)
    for plant in (no_area, no_area, outside, unknown_class, small_split):
        plant(bench)
    found = audit(bench.build())
    assert [f.box for f in found.of("no_area")] == ["box 4", "box 5"]
    assert found.of("tiny") == ()
    assert found.images("no_area").tolist() == [7]
    assert found.images().tolist() == [7, 8]
    assert found.boxes("no_area").tolist() == [24, 25]
    assert found.images("small_split").tolist() == []
    with pytest.raises(KeyError, match="no kind of finding 'no_arae'; near it: no_area"):
        found.of("no_arae")


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


# -- what unreadable files are called ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x00" * 500, "begins with zero bytes"),
        (b"\n <html><body>Moved</body></html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a Git LFS pointer"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04aaaa", "a zip archive"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC, AVIF or video file (brand 'heic')"),
        (b"\xff\xd8\xff\xe0garbage", "a JPEG with a damaged header"),
        (b"just words", "no image that Pillow knows (it begins with b'just wor'"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value.split()[-1].strip("()'"),
)
def test_unreadable_files_are_named(tmp_path, content, message):
    bench = Bench(tmp_path)
    bench.path("00.png").write_bytes(content)
    (finding,) = audit(bench.build(), decode=False)
    assert finding.kind == "unreadable_image"
    assert message in finding.message


def test_unreadable_paths_are_named(tmp_path):
    bench = Bench(tmp_path)
    bench.path("00.png").unlink()
    bench.path("00.png").mkdir()
    bench.path("01.png").rename(bench.path("01.PNG"))
    bench.path("02.png").unlink()
    bench.path("02.png").symlink_to("nowhere.png")
    found = {f.image: (f.kind, f.message) for f in audit(bench.build())}
    assert found["00.png"][0] == "unreadable_image"
    assert "directory" in found["00.png"][1]
    assert found["01.png"] == ("missing_image", "there is no such file, but 01.PNG beside it")
    assert found["02.png"] == ("missing_image", "it is a link to nowhere.png, which does not exist")


# -- sizes and EXIF ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("real", "declared", "boxes", "repair", "after"),
    [
        # the boxes leave the declared size and fit the real one
        ((40, 30), (32, 20), [(1, 1, 39, 29)], "corrects the size", [(1, 1, 39, 29)]),
        # declared twice as large, yet all boxes lie within the real size
        ((40, 30), (80, 60), [(1, 1, 39, 29)], "corrects the size", [(1, 1, 39, 29)]),
        # labels of a copy twice as large, or half as large
        ((40, 30), (80, 60), [(10, 20, 70, 58)], "scales the boxes", [(5, 10, 35, 29)]),
        ((40, 30), (20, 15), [(1, 2, 19, 14)], "scales the boxes", [(2, 4, 38, 28)]),
        # width and height confused
        ((40, 30), (30, 40), [(1, 1, 20, 20)], "corrects the size", [(1, 1, 20, 20)]),
        # nothing to move
        ((40, 30), (33, 44), [], "corrects the size", []),
        # a stretched or a cropped copy: nobody knows
        ((40, 30), (25, 25), [(1, 1, 20, 20)], "drops the image", None),
        ((40, 30), (35, 50), [(1, 1, 20, 45)], "drops the image", None),
    ],
)
def test_wrong_sizes(tmp_path, real, declared, boxes, repair, after):
    bench = Bench(tmp_path)
    bench.add("odd.png", "train", size=real, boxes=[(0, box) for box in boxes])
    bench.images["odd.png"][0] = list(declared)
    dataset = bench.build()
    (finding,) = audit(dataset).of("wrong_size")
    assert finding.repair == repair
    assert finding.message.startswith(
        f"declared {declared[0]} x {declared[1]}, the image has {real[0]} x {real[1]}"
    )
    view = repaired(dataset)
    assert any(REPAIRS[repair] in note and "odd.png" in note for note in view.notes)
    if after is None:
        assert "odd.png" not in view.image_ids
    else:
        row = view.index_of("odd.png")
        assert view.image_sizes[row].tolist() == list(real)
        assert view.boxes[view.boxes_of(row)].tolist() == [list(box) for box in after]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_boxes_follow_the_exif_orientation(tmp_path, orientation, suffix):
    upright = np.zeros((30, 40, 3), np.uint8)
    truth = (4, 6, 15, 28)
    upright[6:28, 4:15] = 255
    # stored so that the orientation brings it back
    turn = {5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    plain = Image.fromarray(upright)
    plain.getexif()[0x0112] = turn
    stored = ImageOps.exif_transpose(plain)
    box = upright_boxes([truth], (40, 30), turn)[0].tolist()

    bench = Bench(tmp_path)
    name = bench.add(f"turned.{suffix}", "train", boxes=[(0, box)])
    bench.images[name][0] = [30, 40]
    stored.save(bench.path(name), exif=exif(orientation))
    assert read_header(bench.path(name))[:3] == (30, 40, orientation)
    dataset = bench.build()
    (finding,) = audit(dataset)
    assert (finding.kind, finding.image) == ("exif_orientation", name)
    assert finding.message == (
        f"EXIF orientation {orientation} shows it as 40 x 30, the labels were drawn on the stored 30 x 40 "
        "(declared: 30 x 40)"
    )
    view = repaired(dataset)
    row = view.index_of(name)
    assert view.image_sizes[row].tolist() == [40, 30]
    assert view.boxes[view.boxes_of(row)].tolist() == [list(truth)]
    with Image.open(bench.path(name)) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("L"))
    assert shown[6:28, 4:15].mean() > 200
    assert shown.mean() < 70


def test_exif_that_agrees_is_no_finding(tmp_path):
    bench = Bench(tmp_path)
    bench.add("fine.jpg", "train", size=(30, 40), boxes=[(0, (1, 2, 29, 39))])
    bench.noise("fine.jpg", (40, 30), exif=exif(6))  # stored 40 x 30, shown and labelled as 30 x 40
    assert audit(bench.build()).counts == {}


def test_boxes_overrule_the_declared_size(tmp_path):
    bench = Bench(tmp_path)
    # the size is the upright one, but the boxes fit the stored pixels alone; and the other way round
    bench.add("stored.jpg", "train", size=(30, 40), boxes=[(0, (1, 2, 39, 20))])
    bench.noise("stored.jpg", (40, 30), exif=exif(8))
    bench.add("upright.jpg", "train", size=(40, 30), boxes=[(0, (1, 2, 20, 39))])
    bench.noise("upright.jpg", (40, 30), exif=exif(8))
    dataset = bench.build()
    found = {f.image: (f.kind, f.repair) for f in audit(dataset)}
    assert found == {
        "stored.jpg": ("exif_orientation", "turns the boxes"),
        "upright.jpg": ("wrong_size", "corrects the size"),
    }
    view = repaired(dataset)
    assert audit(view).counts == {}
    assert view.boxes[view.boxes_of(view.index_of("stored.jpg"))].tolist() == [[2, 1, 20, 39]]


def test_exif_cannot_be_decided_without_a_declared_size(tmp_path):
    bench = Bench(tmp_path, kind="yolo")
    bench.add("a.jpg", "train", size=(30, 40), boxes=[(0, (1, 2, 20, 20))])
    bench.noise("a.jpg", (40, 30), exif=exif(6))
    bench.add("square.jpg", "train", size=(30, 30), boxes=[(0, (1, 2, 20, 20))])
    bench.noise("square.jpg", (30, 30), exif=exif(6))
    found = audit(bench.build())
    assert spots(found) == {("exif_undecided", "a.jpg", ""), ("exif_undecided", "square.jpg", "")}
    assert repaired(bench.build()).notes == ()


def test_tiff_sizes_are_those_stored(tmp_path):
    pixels = Image.fromarray(np.zeros((30, 40, 3), np.uint8))
    pixels.save(tmp_path / "a.tif", exif=exif(6))
    assert read_header(tmp_path / "a.tif")[:3] == (40, 30, 6)
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "b.tif")


# -- boxes, classes, copies -------------------------------------------------------------------------------------------


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


def test_many_inverted_boxes_are_called_into_question(tmp_path):
    bench = Bench(tmp_path)
    for label in bench.labels[:30]:
        x1, y1, x2, y2 = label[2]
        label[2] = [x1, y1, x2 - x1, y2 - y1]
    found = audit(bench.build())
    assert "x, y, width, height" in found.of("inverted")[0].fix


# -- what the reader met ----------------------------------------------------------------------------------------------


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


# -- the repaired view ------------------------------------------------------------------------------------------------


def test_repairs_say_what_they_did_and_leave_the_files_alone(tmp_path):
    bench = Bench(tmp_path)
    for plant in PLANTS:
        plant(bench)
    before = snapshot(tmp_path)
    dataset = bench.build()
    fingerprint = dataset.fingerprint()
    view = repaired(dataset)
    assert snapshot(tmp_path) == before
    assert dataset.fingerprint() == fingerprint
    notes = "\n".join(view.notes)
    assert "repaired: 1 box without area dropped (07.png, box 5)" in notes
    assert "repaired: 1 box with inverted corners put in order (07.png, box 6)" in notes
    assert "repaired: 1 image not found on disk dropped (00.png)" in notes
    assert "repaired: 1 image in two splits dropped (leak.png)" in notes
    assert view.boxes[view.boxes_of(view.index_of("07.png"))].tolist()[-1] == [2, 3, 20, 25]
    assert view.boxes[view.boxes_of(view.index_of("08.png"))].tolist()[-2] == [30, 1, 40, 20]


def snapshot(folder):
    return {
        path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
    }


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


# -- real data --------------------------------------------------------------------------------------------------------


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
