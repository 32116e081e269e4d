"""Training on tiles: what an epoch shows, what is chosen when, exact resume, and that it finds what is small."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from odkit.data import Dataset
from odkit.detection import Tiling, load_detector, predict
from odkit.runs.run import Run, create_run
from odkit.runs.settings import Settings
from odkit.training import work
from odkit.training.batches import TrainingImages
from odkit.training.recipe import choose_view
from tests.helpers import SMALL, facts, same_weights, squares, trained

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TILES = {**SMALL, "tiles": 96, "epochs": 2, "augment": "strong"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Squares of 20 pixels in images of 256."""
    return squares(tmp_path_factory.mktemp("large"), 8, size=256)


# -- an epoch ----------------------------------------------------------------------------------------------------------


def test_an_epoch_has_all_tiles_with_boxes_and_some_without(dataset: Dataset) -> None:
    images = TrainingImages(dataset, image_size=64, tiling=Tiling(64, 20, whole=False), seed=3)
    counts = images.box_counts()
    full, empty = np.flatnonzero(counts), np.flatnonzero(counts == 0)
    assert len(empty) > len(full) > 0
    extra = len(images) - len(full)
    assert extra == -(-len(full) // 4)
    shown: set[int] = set()
    for epoch in range(-(-len(empty) // extra)):
        views = [images.view_of(row, epoch) for row in range(len(images))]
        assert set(full) <= set(views)
        assert len(set(views)) == len(views)
        shown |= set(views)
    assert shown == set(range(len(counts)))  # in the end, all
    again = TrainingImages(dataset, image_size=64, tiling=Tiling(64, 20, whole=False), seed=3)
    assert all(again.view_of(row, 1) == images.view_of(row, 1) for row in range(len(images)))
    for row in range(len(images)):
        item = images[(row, 1, 0)]
        assert dataset.image_paths[item.row] == images.path_of(row, 1)
        assert len(item.boxes) == counts[images.view_of(row, 1)]
    assert len(TrainingImages(dataset, image_size=64)) == len(dataset)


# -- the choice --------------------------------------------------------------------------------------------------------


def large_pictures(side: float, size: tuple[int, int] = (4000, 3000), boxes: int = 50) -> Dataset:
    return Dataset(
        class_names=("part",),
        image_paths=["a.jpg"],
        image_sizes=[size],
        boxes=[[10 * k, 0, 10 * k + side, side] for k in range(boxes)],
        box_classes=[0] * boxes,
        box_images=[0] * boxes,
    )


@pytest.mark.parametrize(
    ("settings", "device", "side", "size", "tiling"),
    [
        ({}, CPU, 250, 320, None),
        ({}, CPU, 150, 544, None),  # 20 px
        ({}, CPU, 80, 640, None),  # 13 px: small, and still to be seen
        ({}, CUDA, 80, 1024, None),
        ({}, CPU, 20, 640, None),  # 3 px, and tiles are proposed
        ({}, CUDA, 20, 640, (640, 80, False)),
        ({}, CUDA, 10, 640, (640, 80, False)),  # no larger than they are
        ({"tiles": 0}, CUDA, 20, 1280, None),
        ({"tiles": 500}, CPU, 20, 480, (500, 63, False)),
        ({"tiles": 500, "image_size": 96}, CPU, 20, 96, (500, 63, False)),
        ({"image_size": 320}, CUDA, 20, 320, (320, 40, False)),
        ({"image_size": 320}, CPU, 20, 320, None),
        ({"detector": "fcos_resnet50_fpn"}, CUDA, 20, 1024, (1024, 128, False)),
        ({"detector": "ssd300_vgg16"}, CPU, 250, 300, None),
    ],
)
def test_input_size_and_tiles_are_chosen_by_the_boxes(
    settings: dict[str, Any],
    device: torch.device,
    side: float,
    size: int,
    tiling: tuple[int, int, bool] | None,
) -> None:
    view = choose_view(Settings(**settings), device, large_pictures(side))
    assert view.image_size == size
    assert view.tiling == tiling
    assert ("image_size" in view.reasons) != ("image_size" in settings)
    chosen = view.reasons.get("tiles", "")
    assert bool(chosen) == ("tiles" not in settings and side <= 20)
    assert chosen.endswith(". To train on them: --tiles 640") == (
        device == CPU and bool(chosen) and not settings
    )


def test_tiles_are_said_in_plain_words() -> None:
    reason = choose_view(Settings(), CPU, large_pictures(20)).reasons["tiles"]
    assert reason == (
        "none, because they take long on a CPU; but one in ten boxes is under 3 px at 640 px; tiles of 640 px "
        "make that 20 px. To train on them: --tiles 640"
    )


@pytest.mark.parametrize("nothing", [large_pictures(20, boxes=0), large_pictures(20, size=(0, 0))])
def test_without_boxes_and_sizes_the_detectors_own_stands(nothing: Dataset) -> None:
    view = choose_view(Settings(), CUDA, nothing)
    assert (view.image_size, view.tiling) == (320, None)
    assert "no box of an image whose size is known" in view.reasons["image_size"]


def test_pictures_hardly_larger_than_a_tile_are_not_cut() -> None:
    assert choose_view(Settings(), CUDA, large_pictures(8, size=(900, 700))).tiling is None


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_run_on_tiles_resumes_exactly_and_its_detector_knows_them(dataset: Dataset, tmp_path: Path) -> None:
    whole = trained(dataset, tmp_path, "whole", **TILES)
    start = whole.events()[0]
    assert start["choices"]["tiles"] == {"size": 96, "overlap": 20, "whole": False}
    assert start["steps_per_epoch"] > -(-len(whole.dataset("train")) // 4)
    stopped = create_run(dataset, Settings(**TILES), tmp_path, "stopped")  # type: ignore[arg-type]
    stopped.request("now")
    assert work(stopped.path) == 0
    assert stopped.state == "stopped"
    assert work(stopped.path) == 0
    assert facts(stopped) == facts(whole)
    assert same_weights(stopped, whole)
    workers = trained(dataset, tmp_path, "workers", **{**TILES, "num_workers": 2})
    assert facts(workers) == facts(whole)
    assert same_weights(workers, whole)
    detector = load_detector(whole.path, device="cpu")
    assert detector.tiling == (96, 20, False)
    found, judged = predict(detector, whole.dataset("val")), whole.predictions()
    np.testing.assert_allclose(found.boxes, judged.boxes, atol=0.01)
    np.testing.assert_allclose(found.scores, judged.scores, atol=1e-4)


def test_the_chosen_size_stays_over_a_resume(tmp_path: Path) -> None:
    """Of a run whose size was not set: its boxes of 20 pixels in 640 ask for more than the starter's own 320."""
    small = squares(tmp_path / "pictures", 6, size=640)
    settings = {"weights": "random", "num_workers": 0, "batch_size": 4, "epochs": 1}
    run: Run = create_run(small, Settings(**settings), tmp_path, "sized")  # type: ignore[arg-type]
    run.request("now")
    assert work(run.path) == 0
    assert work(run.path) == 0
    starts = [e for e in run.events(raw=True) if e["event"] == "start"]
    assert [e["choices"]["image_size"] for e in starts] == [640, 640]
    assert starts[1]["choices"]["reasons"]["image_size"] == starts[0]["choices"]["reasons"]["image_size"]
    assert load_detector(run.path, device="cpu").image_size == 640


@pytest.mark.slow
def test_tiles_find_what_whole_images_do_not_show(dataset: Dataset, tmp_path: Path) -> None:
    """Boxes of 20 pixels in 256, seen as 5 in 64 or as 20."""
    settings = {"weights": "pretrained", "epochs": 8, "learning_rate": 2e-3, "evaluate_every": 8}
    tiles = trained(dataset, tmp_path, "tiles", **settings, tiles=64)
    whole = trained(dataset, tmp_path, "whole", **settings, tiles=0)
    assert tiles.best["ap50"] > 0.5
    assert tiles.best["ap50"] > whole.best["ap50"] + 0.2
