"""Tiles: they cover the image, boxes go there and back, and what several tiles see is found once."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from odkit.data import Dataset
from odkit.detection import Tiling, build_detector, fitting_tiling, load_detector, predict, save_detector
from odkit.detection.loading import DetectionImages
from odkit.detection.tiles import MOST_FOUND, Seen, make_views, merge_views, tile_grid
from odkit.system import InputError
from tests.helpers import squares

GRIDS = [
    (1600, 1200, 640, 80),
    (4000, 3000, 800, 100),
    (640, 640, 640, 80),  # one tile
    (641, 640, 640, 80),
    (300, 200, 640, 80),  # smaller than a tile
    (1000, 90, 64, 32),
    (97, 1013, 64, 9),
]


@pytest.mark.parametrize(("width", "height", "size", "overlap"), GRIDS)
def test_tiles_cover_every_pixel_and_overlap(width: int, height: int, size: int, overlap: int) -> None:
    grid = tile_grid(width, height, size, overlap)
    seen = np.zeros((height, width), bool)
    for left, top, right, bottom in grid.tolist():
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (right - left, bottom - top) == (min(size, width), min(size, height))
        seen[top:bottom, left:right] = True
    assert seen.all()
    for side in (0, 1):
        starts = np.unique(grid[:, side])
        assert all(first + size - second >= overlap for first, second in itertools.pairwise(starts))
    assert len(np.unique(grid, axis=0)) == len(grid)


@pytest.mark.parametrize(("width", "height", "size", "overlap"), GRIDS)
def test_a_box_no_longer_than_the_overlap_is_whole_in_some_tile(
    width: int, height: int, size: int, overlap: int
) -> None:
    rng = np.random.default_rng(0)
    sides = rng.uniform(1, np.minimum(overlap, [width, height]), (500, 2))
    corners = rng.uniform(0, 1, (500, 2)) * ([width, height] - sides)
    grid = tile_grid(width, height, size, overlap)
    within = (grid[:, None, :2] <= corners) & (corners + sides <= grid[:, None, 2:])
    assert within.all(2).any(0).all()


def large(folder: Path, boxes: Any, size: tuple[int, int] = (300, 200)) -> Dataset:
    """One grey image with a red rectangle in each box."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), 110, np.uint8)
    for left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = 250, 20, 20
    Image.fromarray(pixels).save(folder / "a.png")
    return Dataset(
        root=folder,
        class_names=("red",),
        image_paths=[str(folder / "a.png")],
        image_sizes=[size],
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        box_classes=[0] * len(boxes),
        box_images=[0] * len(boxes),
    )


@pytest.mark.parametrize("image_size", [64, 100, 256])
@pytest.mark.parametrize("square", [False, True])
def test_boxes_go_into_tiles_and_back(tmp_path: Path, image_size: int, square: bool) -> None:
    boxes = [[10, 20, 30, 44], [90, 95, 110, 105], [250, 150, 300, 200], [0, 0, 12, 12]]
    dataset = large(tmp_path, boxes)
    images = DetectionImages(
        dataset, image_size=image_size, square=square, tiling=Tiling(100, 30, whole=False)
    )
    sizes = images.view_sizes(image_size)
    met = np.zeros(len(boxes), bool)
    for view in range(len(images)):
        item = images[view]
        assert tuple(item.image.shape[:0:-1]) == tuple(sizes[view])
        assert len(item.boxes) == images.box_counts()[view]
        left, top, right, bottom = images.views.parts[view].tolist()
        assert item.original == (right - left, bottom - top)
        factors = np.tile(np.array(item.original) / item.image.shape[:0:-1], 2)
        back = item.boxes * factors + [left, top, left, top]
        for box, scaled in zip(back, item.boxes, strict=True):
            same = np.abs(np.clip(boxes, [left, top] * 2, [right, bottom] * 2) - box).max(1) < 0.01
            assert same.sum() == 1  # of one box, cut at the tile's border
            met |= same & (np.abs(boxes - box).max(1) < 0.01)
            x, y = ((scaled[:2] + scaled[2:]) / 2).astype(int)
            assert item.image[0, y, x] > 200  # and there it is
    assert met.all()  # each whole somewhere


def test_a_box_belongs_to_a_tile_by_its_share_in_it(tmp_path: Path) -> None:
    tiling = Tiling(100, 20, whole=True)
    for left, tiles in ((40, [0]), (86, [0, 1]), (93, [1]), (120, [1])):  # tiles are 0 to 100 and 80 to 180
        dataset = large(tmp_path / str(left), [[left, 10, left + 20, 30]], (180, 100))
        views = make_views(dataset, tiling)
        assert views.parts.tolist() == [[0, 0, 100, 100], [80, 0, 180, 100], [0, 0, 180, 100]]
        assert views.tiles.tolist() == [True, True, False]
        counts = DetectionImages(dataset, image_size=64, tiling=tiling).box_counts()
        # in the whole image is what is too large for the overlap, or nearly
        assert np.flatnonzero(counts).tolist() == [*tiles, 2]
    small = large(tmp_path / "small", [[40, 10, 49, 19]], (180, 100))
    assert DetectionImages(small, image_size=64, tiling=tiling).box_counts().tolist() == [1, 0, 0]


def test_small_images_and_those_of_unknown_size_are_one_view(tmp_path: Path) -> None:
    tiling = Tiling(100, 20, whole=True)
    small = DetectionImages(large(tmp_path, [], (50, 40)), image_size=200, tiling=tiling)
    assert len(small) == 1
    assert small[0].image.shape == (3, 80, 100)  # the scale of all tiles
    unknown = large(tmp_path, [[10, 10, 60, 60]]).replace(image_sizes=[[0, 0]])
    whole = DetectionImages(unknown, image_size=64, tiling=tiling)
    assert whole.views.tiles.tolist() == [False]
    assert whole[0].image.shape == (3, 43, 64)
    assert len(whole[0].boxes) == 1


def test_the_overlap_is_as_long_as_nine_in_ten_boxes(tmp_path: Path) -> None:
    def fitting(sides: list[int], size: int = 640) -> tuple[Any, ...]:
        return tuple(fitting_tiling(large(tmp_path, [[0, 0, side, 1] for side in sides]), size))

    assert fitting([20] * 20) == (640, 80, False)  # an eighth at least
    assert fitting([100] * 20) == (640, 100, False)
    assert fitting([100] * 19 + [200]) == (640, 100, True)
    assert fitting([300] * 20, 400) == (400, 200, True)  # half at most
    assert fitting([], 400) == (400, 50, False)
    with pytest.raises(InputError, match="64 pixels or more, not 50"):
        fitting([20], 50)


# -- merging -----------------------------------------------------------------------------------------------------------

# Two tiles, 0 to 100 and 70 to 170, of an image of 170x100 pixels; and the image itself.
TWO = Tiling(100, 30, whole=True)
PARTS = {"left": [0, 0, 100, 100], "right": [70, 0, 170, 100], "whole": [0, 0, 170, 100]}


def merged(*rows: tuple[str, int, float, list[float]]) -> list[tuple[int, float, list[float]]]:
    """(view, class, score, box) rows merged: (class, score, box) rows."""
    seen = []
    for name, part in PARTS.items():
        own = [row[1:] for row in rows if row[0] == name]
        boxes = np.array([box for *_, box in own], np.float32).reshape(-1, 4)
        scores, classes = (
            np.array([s for _, s, _ in own], np.float32),
            np.array([k for k, *_ in own], np.int32),
        )
        seen.append(Seen(np.array(part), name != "whole", (boxes, scores, classes), 1.0))
    boxes, scores, classes = merge_views(seen, 170, 100, TWO)
    assert (boxes.dtype, scores.dtype, classes.dtype) == (np.float32, np.float32, np.int32)
    rows_out = zip(classes.tolist(), scores.round(4).tolist(), boxes.round(1).tolist(), strict=True)
    return [(label, round(score, 4), box) for label, score, box in rows_out]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(
            [("left", 0, 0.8, [76, 20, 90, 34]), ("right", 0, 0.9, [77, 20, 91, 34])],
            [(0, 0.9, [77, 20, 91, 34])],
            id="what two tiles see is there once, as the surer one saw it",
        ),
        pytest.param(
            [("left", 0, 0.8, [76, 20, 90, 34]), ("right", 1, 0.9, [77, 20, 91, 34])],
            [(1, 0.9, [77, 20, 91, 34]), (0, 0.8, [76, 20, 90, 34])],
            id="two classes are two objects",
        ),
        pytest.param(
            [("left", 0, 0.9, [20, 20, 40, 40]), ("left", 0, 0.8, [26, 20, 46, 40])],
            [(0, 0.9, [20, 20, 40, 40]), (0, 0.8, [26, 20, 46, 40])],
            id="what one tile tells apart stays apart",
        ),
        pytest.param(
            [("left", 0, 0.95, [88, 20, 100, 40]), ("right", 0, 0.6, [88, 20, 112, 40])],
            [(0, 0.6, [88, 20, 112, 40])],
            id="on the seam: cut here, whole there",
        ),
        pytest.param(
            [("left", 0, 0.95, [95, 20, 100, 40]), ("right", 0, 0.6, [95, 20, 119, 40])],
            [(0, 0.6, [95, 20, 119, 40])],
            id="a sliver of it",
        ),
        pytest.param(
            [("left", 0, 0.9, [60, 20, 100, 40]), ("right", 0, 0.7, [70, 21, 120, 41])],
            [(0, 0.9, [60, 20, 120, 41])],
            id="longer than the overlap: two pieces are one box",
        ),
        pytest.param(
            [
                ("left", 0, 0.9, [60, 20, 100, 40]),
                ("right", 0, 0.7, [70, 21, 120, 41]),
                ("whole", 0, 0.5, [61, 20, 119, 41]),
            ],
            [(0, 0.5, [61, 20, 119, 41])],
            id="whole in the whole image",
        ),
        pytest.param(
            [("left", 0, 0.9, [90, 20, 100, 40])],
            [(0, 0.45, [90, 20, 100, 40])],
            id="a piece nobody confirms",
        ),
        pytest.param(
            [("left", 0, 0.9, [0, 20, 10, 40]), ("right", 0, 0.8, [160, 90, 170, 100])],
            [(0, 0.9, [0, 20, 10, 40]), (0, 0.8, [160, 90, 170, 100])],
            id="the border of the image cuts nothing",
        ),
        pytest.param(
            [("left", 0, 0.4, [20, 20, 36, 36]), ("whole", 0, 0.9, [19, 19, 38, 38])],
            [(0, 0.4, [20, 20, 36, 36])],
            id="of the whole image counts what is larger than the overlap",
        ),
        pytest.param(
            [("left", 0, 0.3, [82, 20, 100, 40]), ("right", 0, 0.1, [82, 20, 105, 40])],
            [(0, 0.15, [82, 20, 100, 40])],
            id="a neighbour that is hardly sure confirms nothing",
        ),
    ],
)
def test_views_are_merged(rows: list[Any], found: list[Any]) -> None:
    assert merged(*rows) == [(label, pytest.approx(score, abs=1e-4), box) for label, score, box in found]


def test_a_crowd_is_cut_off_at_the_least_sure() -> None:
    boxes = np.array([[x, y, x + 1, y + 1] for x in range(5, 65, 2) for y in range(5, 95, 2)], np.float32)
    scores = np.random.default_rng(0).permutation(np.linspace(0.1, 0.9, len(boxes))).astype(np.float32)
    seen = [Seen(np.array(PARTS["left"]), True, (boxes, scores, np.zeros(len(boxes), np.int32)), 0.1)]
    kept, sure, _ = merge_views(seen, 170, 100, TWO)
    assert len(boxes) > MOST_FOUND == len(kept)
    np.testing.assert_array_equal(sure, np.sort(scores)[::-1][:MOST_FOUND])


# -- predicting --------------------------------------------------------------------------------------------------------


@pytest.fixture
def detector() -> Any:
    torch.manual_seed(0)
    return build_detector("starter", ["blue", "red"], weights="random", image_size=64)


def test_a_tile_as_large_as_the_image_changes_nothing(tmp_path: Path, detector: Any) -> None:
    dataset = squares(tmp_path, 4, size=96)
    whole = predict(detector, dataset)
    for tiles in (96, 0):
        found = predict(detector, dataset, tiles=tiles)
        for column in ("boxes", "scores", "classes", "images"):
            np.testing.assert_array_equal(getattr(found, column), getattr(whole, column))


def test_tiles_are_seen_as_pictures_of_their_own(tmp_path: Path, detector: Any) -> None:
    """What is found in the corner tile is what is found in a picture of it, where its neighbours see nothing."""
    dataset = squares(tmp_path / "pictures", 3, size=160)
    detector.tiling = Tiling(80, 16, whole=False)
    found = predict(detector, dataset, batch_size=2)
    assert found.boxes.max() > 100
    assert found.boxes.max() <= 160
    for batch_size, num_workers in ((1, 0), (8, 0), (2, 2)):
        again = predict(detector, dataset, batch_size=batch_size, num_workers=num_workers)
        np.testing.assert_allclose(again.scores, found.scores, atol=1e-4)
    part = squares(tmp_path / "parts", 3, size=160)
    for path in part.image_paths:
        image = Image.open(path).crop((0, 0, 80, 80))
        image.save(path)
    alone = predict(detector, part.replace(image_sizes=[[80, 80]] * 3, boxes=part.boxes.clip(0, 80)), tiles=0)
    inside = [
        box for box in alone.boxes[alone.images == 0] if (box[2:] < 56).all()
    ]  # where no neighbour sees it
    kept = found.boxes[found.images == 0]
    assert inside
    assert all(np.abs(kept - box).max(1).min() < 0.01 for box in inside)


def test_the_tiles_go_with_the_detector(tmp_path: Path, detector: Any) -> None:
    assert load_detector(save_detector(detector, tmp_path / "whole.safetensors")).tiling is None
    detector.tiling = Tiling(80, 16, whole=True)
    loaded = load_detector(save_detector(detector, tmp_path / "tiles.safetensors"))
    assert loaded.tiling == detector.tiling
    assert "64 px from tiles of 80 px" in repr(loaded)


def test_tiles_that_cannot_be_are_said(tmp_path: Path, detector: Any) -> None:
    with pytest.raises(InputError, match="tiles must be 0 or 64 pixels and more, not 10"):
        predict(detector, squares(tmp_path, 2), tiles=10)
