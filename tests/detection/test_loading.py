"""Loading: upright pixels, boxes that follow them, the same randomness whoever draws it."""

import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from odkit.data.dataset import Dataset
from odkit.detection.loading import (
    ImageReadError,
    fit_size,
    read_image,
    resize_image,
    settle,
)
from odkit.system import LOCK_VARIABLE
from odkit.training.batches import EpochSampler, TrainingImages, training_loader
from tests.helpers import squares


def one_image(path: Path, size: tuple[int, int], boxes: list[list[float]]) -> Dataset:
    return Dataset(
        root=path.parent,
        class_names=("thing",),
        image_paths=[str(path)],
        image_sizes=[size],
        boxes=boxes,
        box_classes=[0] * len(boxes),
        box_images=[0] * len(boxes),
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_read_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((20, 30, 3), np.uint8)
    upright[2:8, 3:12] = 255  # a bright patch, off every axis
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = Image.fromarray(upright)
    stored = stored if undo is None else stored.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png").permute(1, 2, 0).numpy(), upright)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_any_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new(mode, (8, 6)).save(path)
    assert read_image(path).shape == (3, 6, 8)
    assert read_image(path).dtype == torch.uint8


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    for name in ("page.jpg", "absent.jpg"):
        with pytest.raises(ImageReadError, match=name):
            read_image(tmp_path / name)
    whole = tmp_path / "cut.jpg"
    Image.effect_noise((64, 64), 80).save(whole)
    whole.write_bytes(whole.read_bytes()[:600])
    with pytest.raises(ImageReadError, match=r"cut\.jpg"):
        read_image(whole)


def test_the_longer_side_fits() -> None:
    assert fit_size(640, 480, 320) == (320, 240)
    assert fit_size(480, 640, 320) == (240, 320)
    assert fit_size(640, 480, 300, square=True) == (300, 300)
    assert resize_image(torch.zeros(3, 480, 640, dtype=torch.uint8), 320, 240).shape == (3, 240, 320)


def test_boxes_follow_the_resizing(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (200, 100)).save(path)
    dataset = one_image(path, (200, 100), [[20, 10, 120, 90]])
    item = TrainingImages(dataset, image_size=100)[0]
    assert item.image.shape == (3, 50, 100)
    assert item.boxes.tolist() == [[10, 5, 60, 45]]
    assert item.original == (200, 100)
    item = TrainingImages(dataset, image_size=80, square=True)[0]
    assert item.image.shape == (3, 80, 80)
    assert item.boxes.tolist() == [[8, 8, 48, 72]]


def test_a_size_that_does_not_fit_its_labels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (200, 100)).save(path)
    with pytest.raises(ImageReadError, match="200x100 pixels, its labels say 100x200"):
        TrainingImages(one_image(path, (100, 200), []), image_size=64)[0]


def test_crowd_boxes_are_not_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (50, 50)).save(path)
    dataset = one_image(path, (50, 50), [[0, 0, 20, 20], [10, 10, 40, 40]]).replace(box_crowd=[True, False])
    assert len(TrainingImages(dataset, image_size=50)[0].boxes) == 1


def test_augmentation_depends_on_seed_epoch_and_image_alone(tmp_path: Path) -> None:
    images = TrainingImages(squares(tmp_path), image_size=64, augment="strong", seed=5)
    torch.manual_seed(1)
    first = images[(3, 2, 0)]
    before = torch.get_rng_state()
    torch.manual_seed(99)
    again = images[(3, 2, 7)]
    assert torch.equal(first.image, again.image)
    assert np.array_equal(first.boxes, again.boxes)
    assert all(np.array_equal(a, b) for a, b in zip(first.change, again.change, strict=True))
    others = [images[(3, epoch, 0)].change for epoch in range(3, 8)]
    assert any(not np.array_equal(first.change.colour, other.colour) for other in others)
    torch.manual_seed(1)
    images[(0, 0, 0)]
    assert torch.equal(before, torch.get_rng_state())  # the caller's generator is left where it was
    with pytest.raises(ValueError, match="augment"):
        TrainingImages(images.dataset, image_size=64, augment="wild")


@pytest.mark.parametrize("augment", ["flip", "photo", "strong"])
def test_every_image_is_flipped_every_other_epoch(tmp_path: Path, augment: str) -> None:
    images = TrainingImages(squares(tmp_path, 40), image_size=32, augment=augment)
    flips = np.array([[images[(row, epoch, 0)].change.flip[0] for row in range(40)] for epoch in range(4)])
    assert (flips[1:] != flips[:-1]).all()
    assert 10 <= flips[0].sum() <= 30


def test_multi_scale_gives_a_batch_one_size(tmp_path: Path) -> None:
    images = TrainingImages(squares(tmp_path), image_size=128, multi_scale=0.5)
    sizes = {batch: {images[(row, 0, batch)].image.shape[-1] for row in range(4)} for batch in range(6)}
    assert all(len(one) == 1 for one in sizes.values())
    assert len({next(iter(one)) for one in sizes.values()}) > 1
    assert all(next(iter(one)) % 32 == 0 for one in sizes.values())


def test_an_epoch_shows_every_image_and_processes_share_it() -> None:
    whole = EpochSampler(10, 4, seed=3)
    batches = [[turn.row for turn in batch] for batch in whole]
    assert [len(b) for b in batches] == [4, 4, 4]
    assert {row for batch in batches for row in batch} == set(range(10))
    parts = [EpochSampler(10, 4, seed=3, world=2, rank=rank) for rank in range(2)]
    together = [[turn.row for turn in (*first, *second)] for first, second in zip(*parts, strict=True)]
    assert together == batches
    whole.epoch = 1
    assert [[turn.row for turn in batch] for batch in whole] != batches
    whole.epoch, whole.start = 0, 2
    assert [[turn.row for turn in batch] for batch in whole] == batches[2:]
    with pytest.raises(ValueError, match="evenly"):
        EpochSampler(10, 5, world=2)


def test_workers_give_the_same_batches(tmp_path: Path) -> None:
    dataset = squares(tmp_path)
    images = TrainingImages(dataset, image_size=64, augment="strong")
    batches = []
    for num_workers in (0, 2):
        loader = training_loader(images, EpochSampler(len(dataset), 4), num_workers=num_workers)
        batches.append([batch.to_tensors() for batch in loader])
    for one, other in zip(*batches, strict=True):
        for mine, theirs in ((one, other), (one.pop("changes"), other.pop("changes"))):
            assert all(torch.equal(mine[name], theirs[name]) for name in mine if name != "changes")


def test_workers_do_with_a_temporary_folder_of_any_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch goes by a socket in it, whose path has 107 bytes at most."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 30)))
    Path(tempfile.gettempdir()).mkdir()
    dataset = squares(tmp_path)
    images = TrainingImages(dataset, image_size=64, augment="strong")
    batches = training_loader(images, EpochSampler(len(dataset), 4), num_workers=1, timeout=60)
    assert sum(len(batch.rows) for batch in batches) == len(dataset)


def _settled(handle_is_kept: "multiprocessing.Queue[bool]") -> None:
    """In a data worker: is the file open whose number stands where a forked one finds its run's lock?"""
    handle = os.open(os.devnull, os.O_RDONLY)
    os.environ[LOCK_VARIABLE] = str(handle)
    settle(0)
    try:
        os.fstat(handle)
        handle_is_kept.put(True)
    except OSError:
        handle_is_kept.put(False)


@pytest.mark.slow
@pytest.mark.parametrize(("start", "kept"), [("fork", False), ("spawn", True), ("forkserver", True)])
def test_only_a_forked_worker_lets_go_of_the_lock(start: Any, kept: bool) -> None:
    """Elsewhere the lock is not inherited, and its number is another file's."""
    context = multiprocessing.get_context(start)
    answer: multiprocessing.Queue[bool] = context.Queue()
    process = context.Process(target=_settled, args=(answer,))
    process.start()
    assert answer.get(timeout=60) is kept
    process.join(60)
    assert process.exitcode == 0
