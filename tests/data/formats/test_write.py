"""Writing datasets: no box moves on the way there and back, and a write that fails leaves nothing."""

import dataclasses
import os
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import odkit as od
from odkit.data.audit.inspection import audit
from odkit.data.dataset import Dataset
from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from odkit.data.formats.write import WRITERS, convert, write_dataset
from odkit.system import LeftOutWarning
from tests.data.formats.layouts import (
    LAYOUTS,
    SIZES,
    check,
    coco_as_published,
    coco_one_file,
    name_of,
    odd_dataset,
    picture,
    put,
    written,
)


def matched(was: Dataset, now: Dataset) -> list[int]:
    """Rows of `now` in the order of `was`, by what the pictures show."""
    place = {Path(path).read_bytes(): index for index, path in enumerate(now.image_paths)}
    return [place[Path(path).read_bytes()] for path in was.image_paths]


def assert_same(was: Dataset, now: Dataset, *, crowd: bool) -> None:
    assert now.class_names == was.class_names
    assert len(now) == len(was)
    order = matched(was, now)
    assert len(set(order)) == len(was)
    for old, new in enumerate(order):
        assert now.image_sizes[new].tolist() == was.image_sizes[old].tolist()
        assert now.image_splits[new] == was.image_splits[old]
        a, b = was.boxes_of(old), now.boxes_of(new)
        np.testing.assert_allclose(now.boxes[b], was.boxes[a], rtol=0, atol=1e-3)
        np.testing.assert_array_equal(now.box_classes[b], was.box_classes[a])
        if crowd:
            np.testing.assert_array_equal(now.box_crowd[b], was.box_crowd[a])


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("splits", [True, False], ids=["splits", "no splits"])
def test_round_trip(tmp_path: Path, kind: str, splits: bool) -> None:
    dataset = odd_dataset(tmp_path / "source", splits=splits)
    now = written(dataset, tmp_path / "written", kind)
    assert now.format == kind
    assert [p for p in now.source_problems if p.severity == "fatal"] == []
    if kind == "yolo" and not splits:
        now = now.replace(image_splits=None)  # YOLO has no images without a split, and says so
    assert_same(dataset, now, crowd=kind == "coco")


@pytest.mark.parametrize(
    "chain",
    [
        ("voc", "yolo", "coco"),
        ("yolo", "cvat", "voc"),
        ("coco", "voc", "yolo", "voc"),
        ("createml", "cvat", "createml"),
    ],
)
def test_round_trip_through_all(tmp_path: Path, chain: tuple[str, ...]) -> None:
    dataset = now = odd_dataset(tmp_path / "source")
    for step, kind in enumerate(chain):
        now = written(now, tmp_path / f"{step} {kind}", kind)
    assert_same(dataset, now, crowd=False)


@pytest.mark.parametrize(("kind", "layout", "splits"), LAYOUTS[::3], ids=name_of)
@pytest.mark.parametrize("to", WRITERS)
def test_convert(tmp_path: Path, kind: str, layout: Callable, splits: bool, to: str) -> None:
    (tmp_path / "pets").mkdir()
    layout(tmp_path / "pets")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert convert(tmp_path / "pets", tmp_path / "new" / "place", to=to) == tmp_path / "new" / "place"
    dataset = load_dataset(tmp_path / "new" / "place", val=0)
    assert dataset.format == to
    check(dataset, splits=splits, atol=1e-3)


def test_bccd_comes_back_from_every_format(bccd: Path, tmp_path: Path) -> None:
    dataset = load_dataset(bccd)
    for kind in WRITERS:
        now = written(dataset, tmp_path / kind, kind, images="link")
        assert_same(dataset, now, crowd=True)
        found = audit(now, decode=False).of("no_area")
        assert {Path(f.image).stem for f in found} == {"BloodImage_00338", "BloodImage_00343"}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("images", ["copy", "link", "none"])
def test_images_are_copied_linked_or_left(tmp_path: Path, kind: str, images: str) -> None:
    coco_as_published(tmp_path / "source")
    before = sorted(path.read_bytes() for path in (tmp_path / "source").rglob("*.jpg"))
    dataset = load_dataset(tmp_path / "source")
    folder = write_dataset(dataset, tmp_path / "written", kind, images=images)
    pixels = list(folder.rglob("*.jpg"))
    assert len(pixels) == (0 if images == "none" else 4)
    assert all(path.is_symlink() == (images == "link") for path in pixels)
    if images != "none":
        check(load_dataset(folder))
    assert sorted(path.read_bytes() for path in (tmp_path / "source").rglob("*.jpg")) == before


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_that_holds_something_is_refused(tmp_path: Path, kind: str) -> None:
    coco_one_file(tmp_path / "source")
    dataset = load_dataset(tmp_path / "source")
    put(tmp_path / "full/mine.txt", "keep me")
    with pytest.raises(FileExistsError, match=r"full is not empty \(it holds mine.txt\)"):
        write_dataset(dataset, tmp_path / "full", kind)
    with pytest.raises(FileExistsError, match="is a file"):
        write_dataset(dataset, tmp_path / "full/mine.txt", kind)
    assert [path.name for path in tmp_path.iterdir()].count("full") == 1
    assert (tmp_path / "full/mine.txt").read_text() == "keep me"
    (tmp_path / "empty").mkdir()
    check(load_dataset(write_dataset(dataset, tmp_path / "empty", kind)), splits=False)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco_one_file(tmp_path / "source")
    dataset = load_dataset(tmp_path / "source")
    hollow = picture(tmp_path / "source/images/c.jpg", SIZES["c"])
    long = hollow.with_name("x" * 251 + ".jpg")
    hollow.rename(long)
    places = [
        "/".join(["d" * 250] * 20 + [str(row)]) for row in range(len(dataset))
    ]  # longer than a path may be
    monkeypatch.setitem(WRITERS, kind, dataclasses.replace(WRITERS[kind], arrange=lambda _: places))
    with pytest.raises(OSError, match="too long"):
        write_dataset(dataset, tmp_path / "written", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_is_lost_is_told(tmp_path: Path) -> None:
    dataset = odd_dataset(tmp_path / "source")
    boxes = dataset.boxes.copy()
    boxes[7] = np.nan
    classes = dataset.box_classes.copy()
    classes[9] = -1
    dataset = dataset.replace(boxes=boxes, box_classes=classes)
    for kind in WRITERS:
        with pytest.raises(ValueError, match=r"(?s)lose labels.*1 box of an unknown class.*--partial"):
            write_dataset(dataset, tmp_path / kind, kind)
        assert not (tmp_path / kind).exists()
        with pytest.warns(UserWarning, match="is not the whole") as caught:
            write_dataset(dataset, tmp_path / kind, kind, partial=True)
        message = "; ".join(str(warning.message) for warning in caught)
        assert "1 box of an unknown class" in message
        assert "1 box without four finite numbers" in message
        assert ("crowd" in message) == (kind != "coco")
        assert load_dataset(tmp_path / kind).num_boxes == dataset.num_boxes - 2


def test_labels_that_could_not_be_read_are_not_made_background(tmp_path: Path) -> None:
    for row in range(4):
        picture(tmp_path / f"source/images/{row}.jpg", (64, 48))
        put(tmp_path / f"source/labels/{row}.txt", "0 .5 .5 .2 .2\n")
    put(tmp_path / "source/labels/0.txt", "0 .5 oops\n")
    put(tmp_path / "source/labels/1.txt", "0 .5 .5 .2 .2\n0 .5 .5\n")
    put(tmp_path / "source/labels/9.txt", "0 .5 .5 .2 .2\n")
    put(tmp_path / "source/data.yaml", "train: images\nnames: [cat]\n")
    dataset = load_dataset(tmp_path / "source", val=0)
    with pytest.raises(
        ValueError, match=r"(?s)2 labels that cannot be read: labels.0.txt: line 1.*--partial"
    ) as error:
        write_dataset(dataset, tmp_path / "written", "coco")
    assert "1 label without an image: labels/9.txt" in str(error.value)
    assert "1 image of which no label is left: images/0.jpg" in str(error.value)
    with pytest.warns(LeftOutWarning, match="2 labels that cannot be read"):
        convert(tmp_path / "source", tmp_path / "written", partial=True)
    now = load_dataset(tmp_path / "written", val=0)
    assert [Path(path).stem for path in now.image_paths] == ["1", "2", "3"]
    assert now.boxes_per_image().tolist() == [1, 1, 1]
    with pytest.raises(
        ValueError, match="1 label without an image"
    ) as error:  # which no repair puts anywhere
        write_dataset(od.repaired(dataset), tmp_path / "repaired")
    assert "cannot be read" not in str(error.value)


def test_labels_beyond_the_thousandth_are_counted(tmp_path: Path) -> None:
    picture(tmp_path / "source/images/0.jpg", (64, 48))
    put(tmp_path / "source/labels/0.txt", "0 .5 .5 .2 .2\n" + "0 .5\n" * 1200)
    put(tmp_path / "source/data.yaml", "train: images\nnames: [cat]\n")
    with pytest.raises(ValueError, match="1,200 labels that cannot be read"):
        convert(tmp_path / "source", tmp_path / "written")


@pytest.mark.parametrize("kind", ["yolo", "createml"])
def test_labels_without_sizes_hold_what_lies_on_the_files(tmp_path: Path, kind: str) -> None:
    """Declared are half the size, the stored pixels of a picture that EXIF turns, nonsense that boxes contradict."""
    declared = [(32, 24), (64, 48), (100, 100)]
    drawn = [[4, 6, 14, 18], [4, 4, 24, 20], [4, 4, 24, 20]]
    expected = [[8, 12, 28, 36], [28, 4, 44, 24], [4, 4, 24, 20]]
    for row in range(3):
        path = picture(tmp_path / f"{row}.jpg", (64, 48))
        exif = Image.Exif()
        exif[0x112] = 6 if row == 1 else 1
        Image.open(path).copy().save(path, exif=exif)
    dataset = Dataset(
        class_names=["x"],
        root=tmp_path,
        image_paths=[str(tmp_path / f"{row}.jpg") for row in range(3)],
        image_sizes=declared,
        boxes=drawn,
        box_classes=[0, 0, 0],
        box_images=[0, 1, 2],
    )
    with pytest.warns(UserWarning, match="the boxes of 2 images were drawn on another size"):
        folder = write_dataset(dataset, tmp_path / "written", kind)
    now = load_dataset(folder, val=0)
    np.testing.assert_allclose(now.boxes, expected, rtol=0, atol=1e-3)
    assert now.image_sizes.tolist() == [[64, 48], [48, 64], [64, 48]]
    lost = dataset.replace(image_sizes=[(40, 60), (64, 48), (64, 48)])
    with pytest.raises(
        ValueError, match=r"1 image whose boxes may be drawn on another size.*0.jpg, declared 40 x 60"
    ):
        write_dataset(lost, tmp_path / "lost", kind)
    back = load_dataset(write_dataset(dataset, tmp_path / "coco", "coco"), val=0)  # which states the sizes
    np.testing.assert_allclose(back.boxes, drawn, rtol=0, atol=1e-3)


def test_links_are_followed_with_a_word_and_to_pictures_alone(tmp_path: Path) -> None:
    coco_one_file(tmp_path / "source")
    secret = put(tmp_path / "secret", "root:x:0:0")
    far = picture(tmp_path / "far.jpg", SIZES["b"])
    for name, to in (("a", secret), ("b", far)):
        (tmp_path / f"source/images/{name}.jpg").unlink()
        (tmp_path / f"source/images/{name}.jpg").symlink_to(to)
    (tmp_path / "source/images/c.jpg").unlink()
    os.mkfifo(tmp_path / "source/images/c.jpg")  # is not waited for
    with pytest.warns(UserWarning, match="folder") as caught:
        folder = write_dataset(load_dataset(tmp_path / "source", val=0), tmp_path / "written", "coco")
    left_out, told = (str(warning.message) for warning in caught)
    assert caught[0].category is LeftOutWarning
    assert "1 image is no picture but a link out of the folder, and not copied" in left_out
    assert "1 image is no file that can be copied" in left_out
    assert "1 image is reached by a link out of the folder, and copied from there" in told
    assert sorted(path.name for path in folder.rglob("*.jpg")) == ["b.jpg", "d.jpg"]


def test_names_that_are_too_long_or_the_same_elsewhere(tmp_path: Path) -> None:
    long = ["x" * 251 + ".jpg", "a/" + "x" * 251 + ".jpg", "y" * 5000 + ".jpg", "b/" * 2000 + "c.jpg"]
    alike = ["\u00fcx.jpg", "u\u0308x.jpg", "\u00dcX.jpg"]
    names = [*long, *alike]
    dataset = Dataset(
        class_names=["x"],
        root=tmp_path,
        image_paths=[str(tmp_path / name) for name in names],
        image_ids=names,
        image_sizes=np.full((len(names), 2), 9),
        boxes=[[1, 1, 5, 5]] * len(names),
        box_classes=[0] * len(names),
        box_images=range(len(names)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        folders = {kind: write_dataset(dataset, tmp_path / kind, kind, images="none") for kind in WRITERS}
    for kind in set(folders) - {"yolo"}:  # whose labels without pictures are no images
        now = load_dataset(folders[kind], val=0)
        assert (len(now), now.num_boxes) == (len(names), len(names))
    labels = sorted((tmp_path / "yolo/labels").iterdir())
    assert len({unicodedata.normalize("NFC", path.name).casefold() for path in labels}) == len(names)
    assert max(len(os.fsencode(path.name)) for path in labels) <= 255


def test_a_missing_image_is_told_and_its_labels_kept(tmp_path: Path) -> None:
    coco_one_file(tmp_path / "source")
    (tmp_path / "source/images/a.jpg").unlink()
    dataset = load_dataset(tmp_path / "source")
    with pytest.warns(UserWarning, match="1 images? .*missing"):
        write_dataset(dataset, tmp_path / "written", "coco")
    now = load_dataset(tmp_path / "written")
    assert (len(now), now.num_boxes) == (4, 5)
    assert [Path(f.image).stem for f in od.audit(now).of("missing_image")] == ["a"]


def test_arguments_of_the_writer_that_make_no_sense(tmp_path: Path) -> None:
    coco_one_file(tmp_path / "source")
    dataset = load_dataset(tmp_path / "source")
    with pytest.raises(
        DatasetFormatError,
        match="cannot write the format 'csv'; it can write coco, voc, yolo, cvat, createml",
    ):
        write_dataset(dataset, tmp_path / "written", "csv")
    with pytest.raises(DatasetFormatError, match="did you mean 'yolo'"):
        convert(tmp_path / "source", tmp_path / "written", to="yolov8")
    with pytest.raises(ValueError, match="images='move' must be one of 'copy', 'link', 'none'"):
        write_dataset(dataset, tmp_path / "written", images="move")
    assert not (tmp_path / "written").exists()


def test_many_images_of_one_name(tmp_path: Path) -> None:
    """A folder an object, each with its image.jpg: flat names must differ, and soon."""
    dataset = Dataset(
        class_names=["x"],
        root=tmp_path,
        image_paths=[str(tmp_path / f"{k:05d}/image.jpg") for k in range(3000)],
        image_sizes=np.full((3000, 2), 9),
        boxes=[],
        box_classes=[],
        box_images=[],
    )
    folder = write_dataset(dataset, tmp_path / "written", "voc", images="none")
    assert len(list((folder / "Annotations").iterdir())) == 3000
