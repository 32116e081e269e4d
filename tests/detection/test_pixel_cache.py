"""The cache of resized images: what comes from it is what a file gives, or it is decoded anew."""

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from odkit.data import Dataset, ImageReadError, read_shrunk
from odkit.detection import DetectionImages, PixelCache, Tiling, make_caches
from odkit.training.batches import EpochSampler, TrainingImages, Turn, training_loader
from tests.helpers import squares


def cached(images: Any, **how: Any) -> PixelCache:
    images.cache = PixelCache(images.kept_sizes(), **{"budget": 1 << 30, **how})
    return images.cache


def same(one: Any, other: Any) -> None:
    assert torch.equal(one.image, other.image) and one.original == other.original
    np.testing.assert_array_equal(one.boxes, other.boxes)


VARIANTS: dict[str, dict[str, Any]] = {
    "strong": {"augment": "strong"},
    "turned": {"augment": "flip", "orientation": "any"},
    "several sizes": {"augment": "flip", "multi_scale": 0.5},
    "mosaic": {"augment": "strong", "mosaic": 0.7, "mixup": 0.5},
    "tiles": {"augment": "flip", "tiling": Tiling(64, 16, whole=True)},
    "square": {"augment": "flip", "square": True},
}


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("on_disk", [False, True])
def test_kept_pixels_are_those_of_the_file(tmp_path: Path, kind: str, on_disk: bool) -> None:
    dataset = squares(tmp_path, 6)
    kept = TrainingImages(dataset, image_size=48, **VARIANTS[kind])
    fresh = TrainingImages(dataset, image_size=48, **VARIANTS[kind])
    cached(kept, file=tmp_path / "pixels" if on_disk else None)
    for epoch in (0, 1, 2):
        for row in range(len(kept)):
            turn = Turn(row, epoch, row // 2, True)
            same(kept[turn], fresh[turn])


def test_workers_fill_one_cache_and_read_files_no_more(tmp_path: Path) -> None:
    images = TrainingImages(squares(tmp_path, 8), image_size=32)
    cached(images, file=tmp_path / "pixels")
    images.cache.forget_name()  # type: ignore[union-attr]
    assert not (tmp_path / "pixels").exists()
    sampler = EpochSampler(8, 4)
    loader = training_loader(images, sampler, num_workers=2)
    first = [batch.images for batch in loader]
    del loader
    for row in range(8):  # other processes' work is here
        path = images.dataset.image_paths[row]
        stamp = os.stat(path)
        Path(path).write_bytes(b"x" * stamp.st_size)  # decoding it would fail
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    again = training_loader(images, sampler, num_workers=2)
    assert all(torch.equal(one, other.images) for one, other in zip(first, again, strict=True))


def test_what_changed_or_is_half_written_is_decoded_anew(tmp_path: Path) -> None:
    images = DetectionImages(squares(tmp_path, 2), image_size=32)
    file = tmp_path / "pixels"
    cached(images, file=file)
    before = images[0].image.clone()
    with file.open("r+b") as torn:  # as who is killed while it writes leaves it
        torn.seek(2 * 20)
        torn.write(bytes(1000))
    other = copy.deepcopy(images)  # as a worker that is no fork has it
    assert torch.equal(other[0].image, before)
    path = Path(images.dataset.image_paths[0])
    with Image.open(path) as old:
        size = old.size
    Image.new("RGB", size, (9, 200, 30)).save(path)
    assert not torch.equal(images[0].image, before)
    path.unlink()
    with pytest.raises(ImageReadError, match="no such file"):
        images[0]


def test_what_does_not_fit_is_decoded_each_time(tmp_path: Path) -> None:
    dataset = squares(tmp_path, 5)
    images, fresh = (DetectionImages(dataset, image_size=32) for _ in range(2))
    each = int(images.kept_sizes()[0].prod()) * 3 + 20
    assert cached(images, budget=each * 2 + 10).places == 2
    for _ in range(2):
        for row in range(5):
            same(images[row], fresh[row])


def test_the_choice_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [np.full((100, 2), 1000), np.full((10, 2), 1000)]  # 330 MB
    free = {"memory": 0, "disk": 0}
    monkeypatch.setattr("odkit.system.machine.memory_free_bytes", lambda: free["memory"])
    monkeypatch.setattr("odkit.system.machine.disk_free_bytes", lambda _: free["disk"])
    system = ["ext4"]
    monkeypatch.setattr("odkit.system.machine.filesystem", lambda _: system[0])

    def choose(setting: str = "auto", memory: int = 0, disk: int = 0, passes: int = 9) -> tuple[str, str]:
        free.update(memory=memory * 10**6, disk=disk * 10**6)
        caches, kind, why = make_caches(setting, sizes, tmp_path / "pixels", passes=passes)
        assert all(cache is None for cache in caches) == (kind == "off")
        assert not list(tmp_path.iterdir())  # the file has no name
        return kind, why

    assert choose(memory=800) == (
        "memory",
        "all 110 images, resized, take 315 MB; the limit is 50% of the 763 MB free there",
    )
    assert choose(memory=400, disk=2000)[0] == "disk"
    kind, why = choose(memory=100)
    assert kind == "memory" and why.startswith("16 of 110 images")
    assert choose()[0] == choose("off", 800)[0] == choose(memory=800, passes=1)[0] == "off"
    assert choose("disk", 800, 2000)[0] == "disk"
    assert make_caches("memory", sizes, tmp_path / "pixels", passes=9, forked=False)[1] == "off"
    system[0] = "tmpfs"  # takes memory too, and all of it at once
    assert choose(memory=400, disk=2000)[0] == "memory"


# -- large JPEGs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(tmp_path: Path, mode: str, orientation: int) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (9, 13, 3), np.uint8)).resize((1003, 701), 3).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95, progressive=mode == "L")

    def fit(width: int, height: int) -> tuple[int, int]:
        return (80, 56) if width > height else (56, 80)

    small = read_shrunk(tmp_path / "a.jpg", fit)
    whole = read_shrunk(tmp_path / "a.jpg", lambda width, height: (width, height))
    assert small.size == whole.size == whole.pixels.shape[1::-1]
    assert small.size == ((701, 1003) if orientation == 6 else (1003, 701))
    assert small.pixels.shape[1::-1] == fit(*small.size)
    slow = np.asarray(Image.fromarray(whole.pixels).resize(fit(*whole.size), Image.Resampling.BILINEAR))
    assert np.abs(small.pixels.astype(int) - slow).mean() < 1.5
    # too few pixels would be left: all are given
    assert (
        read_shrunk(tmp_path / "a.jpg", lambda width, height: (width // 2, height // 2)).pixels.shape
        == whole.pixels.shape
    )


def test_boxes_of_a_large_jpeg_lie_where_they_lay(tmp_path: Path) -> None:
    picture = np.zeros((805, 1203, 3), np.uint8)
    picture[400:605, 900:1103] = 255
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95)
    dataset = Dataset(
        root=tmp_path,
        class_names=("thing",),
        image_paths=[str(tmp_path / "a.jpg")],
        image_sizes=[(1203, 805)],
        boxes=[[900, 400, 1103, 605]],
        box_classes=[0],
        box_images=[0],
    )
    item = DetectionImages(dataset, image_size=100)[0]
    assert item.original == (1203, 805)
    ys, xs = np.nonzero(item.image[0].numpy() > 127)
    seen = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    np.testing.assert_allclose(item.boxes[0], seen, atol=0.6)
    cut = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(ImageReadError, match=r"a\.jpg.*truncated"):
        DetectionImages(dataset, image_size=100)[0]
