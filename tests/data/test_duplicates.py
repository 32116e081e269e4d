"""Images that are nearly the same are found whatever was done to the file; others, and empty ones, are not."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from odkit.data.dataset import Dataset
from odkit.data.duplicates import near_duplicates


def scene(seed):
    """Soft blobs on a gradient: something like a photograph."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8).astype(np.uint8))
    return noise.resize((240, 180), Image.Resampling.BICUBIC)


def make(folder, pictures, splits=None, **options):
    paths = []
    for name, picture in pictures.items():
        paths.append(str(folder / name))
        picture.save(paths[-1], **options)
    return Dataset(
        root=folder,
        class_names=("a",),
        image_paths=paths,
        image_sizes=[(0, 0)] * len(paths),
        image_splits=splits,
        boxes=[],
        box_classes=[],
        box_images=[],
    )


CHANGES = {
    "resized": lambda image: image.resize((120, 90)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "nudged": lambda image: image.crop((3, 2, 240, 180)),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(tmp_path, change):
    pictures = {f"{k}.jpg": scene(k) for k in range(12)}
    pictures["copy.jpg"] = CHANGES[change](scene(5))
    (pair,) = near_duplicates(make(tmp_path, pictures, quality=55))
    assert (pair.first_id, pair.second_id) == ("5.jpg", "copy.jpg")
    assert 0.95 <= pair.similarity <= 1
    assert not pair.across_splits


def test_pairs_on_two_sides_of_a_split_come_first(tmp_path):
    pictures = {
        "a.png": scene(1),
        "a2.png": scene(1),
        "b.png": scene(2),
        "b2.png": CHANGES["blurred"](scene(2)),
    }
    found = near_duplicates(make(tmp_path, pictures, ["train", "train", "train", "val"]))
    assert [(pair.first_id, pair.second_id) for pair in found] == [("b.png", "b2.png"), ("a.png", "a2.png")]
    assert found[0].across_splits
    assert [pair.equal for pair in found] == [False, True]
    assert str(found[1]) == "a.png and a2.png (train and train): equal pixels"
    assert "b.png and b2.png (train and val): 1.000" in str(found[0])
    assert near_duplicates(make(tmp_path, pictures), similarity=0.99999)[0].first_id == "a.png"


def test_empty_broken_and_missing_images_resemble_nothing(tmp_path):
    dataset = make(tmp_path, {f"{k}.png": Image.new("RGB", (40, 30), "white") for k in range(4)})
    (tmp_path / "2.png").write_bytes(b"no image")
    (tmp_path / "3.png").unlink()
    assert near_duplicates(dataset) == []
    assert near_duplicates(dataset.select([])) == []
    assert near_duplicates(dataset.select([0])) == []


def test_the_turned_copy_of_a_phone_is_found(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(3).save(tmp_path / "upright.jpg")
    scene(3).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif)
    dataset = make(tmp_path, {"other.jpg": scene(4)})
    paths = [str(tmp_path / name) for name in ("upright.jpg", "turned.jpg", "other.jpg")]
    dataset = dataset.replace(image_paths=paths, image_ids=None, image_sizes=[(0, 0)] * 3, image_splits=None)
    assert [pair.second_id for pair in near_duplicates(dataset)] == ["turned.jpg"]
