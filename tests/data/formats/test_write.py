"""Writing datasets: no box moves on the way there and back, and a write that fails leaves nothing."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import odkit as od
from odkit.data.audit.inspection import audit
from odkit.data.dataset import Dataset
from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from odkit.data.formats.write import WRITERS, convert, write_dataset
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
    hollow.unlink()
    os.mkfifo(hollow)  # exists, and cannot be copied
    with pytest.raises((OSError, ValueError)):
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
        with pytest.warns(UserWarning) as caught:
            write_dataset(dataset, tmp_path / kind, kind, partial=True)
        message = "; ".join(str(warning.message) for warning in caught)
        assert "1 box of an unknown class" in message
        assert "1 box without four finite numbers" in message
        assert ("crowd" in message) == (kind != "coco")
        assert load_dataset(tmp_path / kind).num_boxes == dataset.num_boxes - 2


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
