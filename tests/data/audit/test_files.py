"""What image files say: damage in words, sizes, EXIF orientation."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from odkit.data.audit.checks import REPAIRS
from odkit.data.audit.inspection import audit
from odkit.data.audit.repair import repaired
from odkit.data.boxes import upright_boxes
from odkit.data.images import read_header
from tests.data.audit.bench import Bench, exif, spots


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x00" * 500, "begins with zero bytes"),
        (b"\n <html><body>Moved</body></html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a Git LFS pointer"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04aaaa", "a zip archive"),
        (
            b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
            "a HEIC photograph, which Pillow cannot read: make it a JPEG (brand 'heic')",
        ),
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


def test_what_most_orientations_do_not_tell_those_that_do_tell(tmp_path):
    """Labels of the stored pixels in photographs stored turned by a quarter: then those stored upside down too."""
    bench = Bench(tmp_path, kind="coco")
    truth = (4, 6, 15, 28)
    for name, orientation, size in (
        ("a", 6, (40, 30)),
        ("b", 8, (40, 30)),
        ("c", 3, (40, 30)),
        ("d", 6, (30, 30)),
    ):
        bench.add(f"{name}.jpg", "train", size=size, boxes=[(0, truth)])
        bench.noise(f"{name}.jpg", size, exif=exif(orientation))
    dataset = bench.build()
    found = audit(dataset)
    assert {f.image for f in found.of("exif_orientation")} == {"a.jpg", "b.jpg", "c.jpg", "d.jpg"}
    assert found.counts == {"exif_orientation": 4}
    view = repaired(dataset, found)
    assert audit(view).counts == {}
    for name, orientation, size in (("c", 3, (40, 30)), ("d", 6, (30, 30))):
        box = view.boxes[view.boxes_of(view.index_of(f"{name}.jpg"))].tolist()
        assert box == upright_boxes([truth], size, orientation).tolist()

    bench.add(
        "e.jpg", "train", size=(30, 40), boxes=[(0, truth)]
    )  # and one that was drawn upright: nothing is certain
    bench.noise("e.jpg", (40, 30), exif=exif(6))
    assert audit(bench.build()).counts == {"exif_orientation": 2, "exif_undecided": 2}
