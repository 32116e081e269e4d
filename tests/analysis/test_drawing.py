"""Boxes drawn into a picture: where they are, in their class's colour, on a copy."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from odkit.analysis.figures import annotate_video, draw_predictions
from odkit.analysis.figures.colors import class_color
from odkit.analysis.figures.drawing import draw_boxes
from odkit.data import Predictions, Video
from odkit.detection import build_detector
from tests.helpers import made_video


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_boxes_are_drawn_where_they_are(mode: str) -> None:
    image = Image.new(mode, (200, 160))
    drawn = draw_boxes(image, [[20, 60, 120, 140], [150, 0, 190, 50]], [0, 1], ["bolt 0.90", "nut 0.50"])
    assert (drawn.size, drawn.mode) == ((200, 160), "RGB")
    assert image.getbbox() is None  # the one that was given stays as it was
    pixels = np.array(drawn)
    for x, y, label in ((20, 100, 0), (120, 100, 0), (70, 140, 0), (150, 40, 1), (190, 25, 1)):
        assert tuple(pixels[y, x]) == ImageColor.getrgb(class_color(label))
    assert not pixels[100, 60].any()  # inside a box, nothing is
    assert pixels[45:59, 20:90].any()  # its name stands above it


def test_nothing_found_is_nothing_drawn() -> None:
    assert draw_boxes(Image.new("RGB", (40, 30)), [], [], []).getbbox() is None


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return build_detector("starter", ["blue", "red"], weights="random", image_size=64)


def test_pictures_are_drawn_under_their_ids(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.gif", "nosuffix"):
        Image.new("RGB", (80, 60)).save(tmp_path / "in" / name, format="PNG")
    names = ("a.png", "deep/b.gif", "nosuffix")
    found = Predictions(
        boxes=[[10, 20, 50, 50]],
        scores=[0.5],
        classes=[0],
        images=[0],
        class_names=("cat",),
        image_ids=names,
        image_sizes=[(80, 60)] * 3,
        image_paths=tuple(str(tmp_path / "in" / name) for name in names),
    )
    made = draw_predictions(found, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in made] == [
        "a.png",
        "deep/b.gif.png",
        "nosuffix.png",
    ]
    drawn = np.array(Image.open(made[0]).convert("RGB"))
    assert drawn[20:51, 10:51].any()
    assert not drawn[52:].any()
    assert not np.array(Image.open(made[1]).convert("RGB")).any()
    with pytest.raises(FileExistsError, match="is there already"):
        draw_predictions(found, tmp_path / "out")
    white = [np.full((60, 80, 3), 255, np.uint8)] * 3
    held = dataclasses.replace(found, image_paths=("", "", ""))
    with pytest.raises(ValueError, match="give them as pictures="):
        draw_predictions(held, tmp_path / "other")
    other = draw_predictions(held, tmp_path / "other", pictures=white)
    assert np.array(Image.open(other[0]).convert("RGB"))[55].min() == 255


def test_a_video_is_drawn_at_the_pace_of_the_original(tmp_path, detector):
    clip = made_video(tmp_path / "clip.mp4", 6, rate=Fraction(30000, 1001), sound=True)
    before = clip.read_bytes()
    with pytest.warns(UserWarning, match="the sound of .* is left out"):
        found = annotate_video(detector, clip, tmp_path / "found.mp4", score=0)
    assert found.image_ids == tuple(f"clip-{k:06d}" for k in range(6))
    assert len(found)
    with Video(clip) as one, Video(tmp_path / "found.mp4") as other:
        assert one.rate == other.rate
        assert not other.sound
        pairs = list(zip(one, other, strict=True))
    assert [round(a.seconds, 3) for a, _ in pairs] == [round(b.seconds, 3) for _, b in pairs]
    assert all(np.abs(a.pixels.astype(int) - b.pixels).mean() > 3 for a, b in pairs)  # boxes are drawn in
    assert clip.read_bytes() == before
    with pytest.raises(FileExistsError, match="is there already"):
        annotate_video(detector, clip, tmp_path / "found.mp4")
    with pytest.raises(ValueError, match=r"written as \.mp4"):
        annotate_video(detector, clip, tmp_path / "found.avi")


def test_stopping_leaves_a_video_of_what_was_done(tmp_path, detector):
    clip = made_video(tmp_path / "clip.mp4", 12)

    def pressed(frame):
        if frame.image_id == "clip-000004":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annotate_video(detector, clip, tmp_path / "found.mp4", each=pressed, batch_size=2)
    with Video(tmp_path / "found.mp4") as video:
        assert len(list(video)) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "found.mp4"]
