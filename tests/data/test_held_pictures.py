"""Pictures in memory: the same pixels as their files give, and a sentence for what is no picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from odkit.data import HeldPicture, ImageReadError, is_held, open_upright, read_pixels, split_held
from odkit.system import InputError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
GREY = RGB[..., 0]

SAME = {
    "array": RGB,
    "array that may not be written": np.frombuffer(RGB.tobytes(), np.uint8).reshape(RGB.shape),
    "array with opacity": np.concatenate([RGB, RGB[..., :1]], 2),
    "view from the right": np.ascontiguousarray(RGB[:, ::-1])[:, ::-1],
    "float32": RGB.astype(np.float32) / 255,
    "float64": RGB / 255,
    "float16": (RGB / 255).astype(np.float16),
    "tensor": torch.from_numpy(RGB).permute(2, 0, 1),
    "float tensor": torch.from_numpy(RGB).permute(2, 0, 1) / 255,
    "bfloat16 tensor of black and white": torch.from_numpy(RGB // 128).permute(2, 0, 1).bfloat16(),
    "PIL image": Image.fromarray(RGB),
}


@pytest.mark.parametrize("kind", SAME)
def test_a_picture_is_rgb_whatever_it_came_as(kind: str) -> None:
    held = HeldPicture(SAME[kind], "it")
    assert held.size == (9, 6)
    pixels = held.pixels()
    expected = RGB // 128 * 255 if "black and white" in kind else RGB
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable  # as torch wants it


@pytest.mark.parametrize(
    "grey", [GREY, GREY[..., None], torch.from_numpy(GREY.copy()), torch.from_numpy(GREY.copy())[None]]
)
def test_grey_has_three_equal_channels(grey: object) -> None:
    np.testing.assert_array_equal(HeldPicture(grey, "it").pixels(), np.repeat(GREY[..., None], 3, 2))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_a_pil_image_is_turned_as_its_file_is(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RGB).save(path, exif=exif)
    held = HeldPicture(Image.open(path), "it")
    np.testing.assert_array_equal(held.pixels(), read_pixels(path))
    assert held.size == ((6, 9) if orientation >= 5 else (9, 6))
    # what has been turned once is not turned again
    np.testing.assert_array_equal(HeldPicture(open_upright(path), "it").pixels(), read_pixels(path))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16"])
def test_a_pil_image_of_any_mode_is_read_as_its_file_would_be(tmp_path: Path, mode: str) -> None:
    image = Image.new("I;16", (9, 6), 99) if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    image.save(path := tmp_path / "a.tif")
    np.testing.assert_array_equal(HeldPicture(Image.open(path), "it").pixels(), read_pixels(path))


NO_PICTURE = {
    "it: an array of shape [3, 6, 9] seems to be [channels, height, width]": RGB.transpose(2, 0, 1),
    "it: a tensor of shape [6, 9, 3] seems to be [height, width, channels]": torch.from_numpy(RGB),
    "holds int64, where a picture has uint8": RGB.astype(np.int64),
    "divide 16-bit pixels by 65535": RGB.astype(np.uint16),
    "holds bool, where": RGB > 9,
    "holds floats from 0 to 255, where those of a picture are 0 to 1": np.array([[0.0, 255.0]]),
    "holds floats from nan to nan": np.full((2, 2), np.nan),
    "floats from -2 to 1": np.array([[-2.0, 1.0]]),
    "has the shape [6, 9, 5]": np.zeros((6, 9, 5), np.uint8),
    "has the shape [0, 9, 3]": RGB[:0],
    "has the shape [9]": RGB[0, :, 0],
}


@pytest.mark.parametrize("message", NO_PICTURE)
def test_what_is_no_picture_is_said(message: str) -> None:
    with pytest.raises(InputError) as caught:
        HeldPicture(NO_PICTURE[message], "it")
    assert message in str(caught.value)


def test_a_damaged_file_behind_a_pil_image_is_named(tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(path := tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ImageReadError, match=r"it: the PIL image of .*a\.jpg cannot be read"):
        HeldPicture(Image.open(path), "it")


def test_several_in_one_array_are_told_from_one_and_from_names() -> None:
    assert len(split_held(np.stack([RGB, RGB]))) == len(split_held(torch.zeros(2, 3, 4, 5))) == 2
    assert len(split_held(RGB)) == 1
    assert is_held(RGB)
    assert is_held(torch.zeros(3, 4, 4))
    assert not is_held(np.array(["a.jpg"], object))
    assert not is_held("a.jpg")
    assert not is_held([RGB])
