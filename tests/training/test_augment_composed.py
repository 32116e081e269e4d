"""Images turned, put together and balanced: boxes stay on what they mark, and the seed alone decides."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from odkit.data import Dataset
from odkit.detection import GREY, Item, Pack
from odkit.detection.pixels import prepare
from odkit.training.augment import blended, mosaic, turned
from odkit.training.batches import EpochSampler, TrainingImages, Turn, balanced_shares, training_loader
from tests.helpers import make_dataset

WIDTH, HEIGHT = 60, 40


def painted(width: int, height: int, boxes: list[list[int]], colours: list[int], *, ground: int = 0) -> Item:
    """An image with each box filled with a grey of its own, which is its label too."""
    image = torch.full((height, width, 3), ground, dtype=torch.uint8)
    for (x1, y1, x2, y2), colour in zip(boxes, colours, strict=True):
        image[y1:y2, x1:x2] = colour
    return Item(
        image.permute(2, 0, 1),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(colours, np.int64),
        7,
        (width, height),
    )


def extent(image: torch.Tensor, colour: int) -> list[int] | None:
    """Where a colour is, xyxy; None: nowhere."""
    rows, columns = torch.where((image == colour).all(0))
    if not len(rows):
        return None
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def same(one: Item, other: Item) -> bool:
    """Pixels, boxes, labels and how they are to be varied."""
    changes = [item.change or () for item in (one, other)]
    return (
        torch.equal(one.image, other.image)
        and np.array_equal(one.boxes, other.boxes)
        and np.array_equal(one.labels, other.labels)
        and all(np.array_equal(a, b) for a, b in zip(*changes, strict=True))
    )


# -- turned ----------------------------------------------------------------------------------------------------------

TURNABLE = ([[3, 5, 23, 12], [40, 0, 60, 33]], [50, 200])


@pytest.mark.parametrize("quarters", range(4))
def test_boxes_turn_with_the_pixels(quarters: int) -> None:
    item = painted(WIDTH, HEIGHT, *TURNABLE)
    result = turned(item, quarters)
    assert np.array_equal(result.image.numpy(), np.rot90(item.image.numpy(), quarters, (1, 2)))
    assert result.boxes.dtype == np.float32
    assert [extent(result.image, colour) for colour in (50, 200)] == result.boxes.tolist()
    assert result.labels.tolist() == [50, 200]
    assert (result.row, result.original) == (7, (WIDTH, HEIGHT))
    assert result.image.stride(0) == 1  # channels last


def test_four_quarters_are_none() -> None:
    item = painted(WIDTH, HEIGHT, *TURNABLE)
    step = item
    for quarters in range(1, 5):
        step = turned(step, 1)
        assert same(step, turned(item, quarters))
    assert same(step, item)
    assert same(turned(item, -1), turned(item, 3))


def test_an_image_without_boxes_turns_too() -> None:
    result = turned(painted(WIDTH, HEIGHT, [], []), 1)
    assert result.image.shape == (3, WIDTH, HEIGHT)
    assert result.boxes.shape == (0, 4)


# -- mosaic ----------------------------------------------------------------------------------------------------------


def four_parts(seed: int) -> tuple[Item, list[Item]]:
    """An image of 128 x 96, and four of different sizes, each with a box somewhere; the ground is near white."""
    rng = np.random.default_rng([seed, 1])
    parts = []
    for colour in (10, 60, 160, 210):
        width, height = (int(n) for n in rng.integers(40, 150, 2))
        w, h = (int(n) for n in rng.integers(12, 26, 2))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        box = [x, y, x + w, y + h]  # smaller than any quarter: it is cut at one end or not at all
        parts.append(painted(width, height, [box], [colour], ground=250))
    return painted(128, 96, [], []), parts


def test_every_box_of_a_mosaic_is_what_shows_of_it_and_its_centre_does() -> None:
    kept = 0
    for seed in range(60):
        item, parts = four_parts(seed)
        result = mosaic(np.random.default_rng(seed), item, parts)
        assert result.image.shape == item.image.shape
        assert result.image.dtype == torch.uint8
        assert (result.row, result.original) == (item.row, item.original)
        assert result.boxes.dtype == np.float32 and result.labels.dtype == np.int64
        boxes = dict(zip(result.labels.tolist(), result.boxes.tolist(), strict=True))
        for part, colour in zip(parts, (10, 60, 160, 210), strict=True):
            shown, (width, height) = extent(result.image, colour), part.boxes[0, 2:] - part.boxes[0, :2]
            if colour in boxes:
                kept += 1
                x1, y1, x2, y2 = (int(value) for value in boxes[colour])
                assert [x1, y1, x2, y2] == shown == boxes[colour]
                assert (result.image[:, y1:y2, x1:x2] == colour).all()
                assert x2 - x1 >= width / 2 and y2 - y1 >= height / 2
                assert 0 <= x1 < x2 <= 128 and 0 <= y1 < y2 <= 96
            elif shown is not None:
                assert shown[2] - shown[0] <= width / 2 or shown[3] - shown[1] <= height / 2
    assert 100 < kept < 240


def test_parts_of_a_mosaic_meet_in_one_point_and_the_rest_is_grey() -> None:
    parts = [painted(20, 10, [], [], ground=ground) for ground in (10, 60, 160, 210)]
    result = mosaic(np.random.default_rng(0), painted(128, 96, [], []), parts)
    lefts, tops, rights, bottoms = zip(*(extent(result.image, n) for n in (10, 60, 160, 210)), strict=True)
    x, y = lefts[1], tops[2]
    assert 0.3 * 128 - 1 <= x <= 0.7 * 128
    assert 0.3 * 96 - 1 <= y <= 0.7 * 96
    assert (lefts, rights) == ((x - 20, x, x - 20, x), (x, x + 20, x, x + 20))
    assert (tops, bottoms) == ((y - 10, y - 10, y, y), (y, y, y + 10, y + 10))
    assert int((result.image == GREY).sum()) == 3 * (128 * 96 - 4 * 20 * 10)
    assert result.boxes.shape == (0, 4)


def test_a_mosaic_is_drawn_from_the_seed_alone() -> None:
    item, parts = four_parts(3)
    first, again, other = (mosaic(np.random.default_rng(seed), item, parts) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)
    assert int(item.image.max()) == 0  # the image it takes the place of is left as it was


# -- blended ---------------------------------------------------------------------------------------------------------


def test_a_blend_is_the_mean_of_two_images_with_the_boxes_of_both() -> None:
    item = painted(60, 40, [[5, 5, 25, 20]], [100], ground=20)
    other = painted(80, 30, [[10, 0, 30, 30], [50, 10, 66, 30], [58, 0, 80, 10]], [201, 202, 203], ground=31)
    before = item.image.clone()
    result = blended(item, other)
    both = (before[:, :30].int() + other.image[:, :, :60]) // 2
    assert torch.equal(result.image[:, :30].int(), both)
    assert torch.equal(result.image[:, 30:], before[:, 30:])  # the other one doesn't reach there
    # of the other's boxes the second is cut, and the centre of the third is not seen
    assert result.boxes.tolist() == [[5, 5, 25, 20], [10, 0, 30, 30], [50, 10, 60, 30]]
    assert result.labels.tolist() == [100, 201, 202]
    assert result.image.dtype == torch.uint8 and result.boxes.dtype == np.float32
    assert torch.equal(item.image, before)


def test_a_blend_with_an_image_without_boxes_keeps_its_own() -> None:
    item, empty = painted(60, 40, [[5, 5, 25, 20]], [100]), painted(60, 40, [], [])
    assert blended(item, empty).boxes.tolist() == blended(empty, item).boxes.tolist() == [[5, 5, 25, 20]]


# -- training images -------------------------------------------------------------------------------------------------

BOX = [
    4,
    2,
    24,
    14,
]  # it lies near a corner: each of the eight ways of laying the image down puts it elsewhere


@pytest.fixture
def pictures(tmp_path: Path) -> Dataset:
    """Twelve images of 60 x 40, black, each with one white box in the same place."""
    paths = []
    for index in range(12):
        pixels = painted(WIDTH, HEIGHT, [BOX], [255]).image.permute(1, 2, 0).numpy()
        paths.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(np.ascontiguousarray(pixels)).save(paths[-1])
    return Dataset(
        root=tmp_path,
        class_names=("thing",),
        image_paths=paths,
        image_sizes=[(WIDTH, HEIGHT)] * 12,
        boxes=[BOX] * 12,
        box_classes=[0] * 12,
        box_images=range(12),
    )


def images(dataset: Dataset, **settings: Any) -> TrainingImages:
    return TrainingImages(dataset, image_size=WIDTH, **{"augment": "flip", **settings})


def seen(item: Item) -> torch.Tensor:
    """The pixels as a detector would have them, 0 to 255."""
    inputs = prepare(Pack(1)([item]), torch.device("cpu"), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    return inputs.images[0].round()


@pytest.mark.parametrize(("orientation", "ways"), [("upright", 1), ("mirror", 2), ("turn", 4), ("any", 8)])
def test_images_lie_in_as_many_ways_as_they_may(pictures: Dataset, orientation: str, ways: int) -> None:
    training = images(pictures, orientation=orientation)
    found = set()
    for epoch in range(4):
        for row in range(12):
            item = training[Turn(row, epoch, row // 4)]
            assert extent(seen(item), 255) == item.boxes[0].tolist()
            found.add(tuple(item.boxes[0].tolist()))
    assert len(found) == ways
    assert (tuple(BOX) in found) or ways > 2


def test_mirrored_images_are_shown_both_ways_in_two_epochs(pictures: Dataset) -> None:
    training = images(pictures, orientation="mirror")
    for row in range(12):
        both = {tuple(training[Turn(row, epoch)].boxes[0].tolist()) for epoch in (0, 1)}
        assert both == {tuple(BOX), (WIDTH - 24, 2, WIDTH - 4, 14)}


@pytest.mark.parametrize("orientation", ["turn", "any"])
def test_turned_images_of_a_batch_have_one_shape(pictures: Dataset, orientation: str) -> None:
    training = images(pictures, orientation=orientation)
    shapes = [
        {tuple(training[Turn(row, epoch, batch)].image.shape) for row in range(12)}
        for epoch in range(2)
        for batch in range(6)
    ]
    assert all(len(one) == 1 for one in shapes)
    assert set().union(*shapes) == {(3, HEIGHT, WIDTH), (3, WIDTH, HEIGHT)}


def test_without_augmentation_images_lie_as_they_are(pictures: Dataset) -> None:
    plain = images(pictures, augment="none", orientation="any", mosaic=1.0, mixup=1.0)
    item = plain[Turn(3, 1, 2, composed=True)]
    assert item.change is None
    assert item.boxes.tolist() == [BOX]
    with pytest.raises(ValueError, match="orientation must be one of upright, mirror, turn, any, not 'down'"):
        images(pictures, orientation="down")


@pytest.mark.parametrize(("share", "changed"), [({"mosaic": 1.0}, 4), ({"mixup": 1.0}, 1), ({}, 0)])
def test_images_are_composed_only_in_their_turn(pictures: Dataset, share: Any, changed: int) -> None:
    training, plain = (
        images(pictures, orientation="upright", **share),
        images(pictures, orientation="upright"),
    )
    for row in range(12):
        single = training[Turn(row, 1)]
        assert same(single, plain[Turn(row, 1)])
        composed = training[Turn(row, 1, composed=True)]
        assert composed.image.shape == single.image.shape
        assert composed.row == row
        assert same(composed, single) == (not changed)


def test_boxes_stay_on_what_they_mark_in_composed_images_however_they_lie(pictures: Dataset) -> None:
    boxes = 0
    for augment in ("flip", "photo"):
        training = images(pictures, augment=augment, orientation="any", mosaic=1.0)
        for row in range(12):
            for epoch in range(3):
                item = training[Turn(row, epoch, composed=True)]
                pixels = seen(item)
                for x1, y1, x2, y2 in item.boxes.round().astype(int).tolist():
                    inside = pixels[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
                    assert not inside.numel() or inside.min() > 150
                    boxes += 1
                height, width = pixels.shape[1:]
                assert (item.boxes >= 0).all() and (item.boxes <= [width, height] * 2).all()
    assert boxes > 100


def test_a_share_of_the_images_is_composed(pictures: Dataset) -> None:
    training, plain = images(pictures, mosaic=0.5), images(pictures)
    made = [
        not same(training[Turn(row, epoch, composed=True)], plain[Turn(row, epoch)])
        for epoch in range(8)
        for row in range(12)
    ]
    assert 30 < sum(made) < 66


COMPOSED = {"augment": "strong", "orientation": "any", "mosaic": 0.5, "mixup": 0.5, "seed": 5}


def test_what_is_drawn_depends_on_seed_epoch_and_row_alone(pictures: Dataset) -> None:
    first, again = (images(pictures, **COMPOSED) for _ in range(2))
    other = images(pictures, **{**COMPOSED, "seed": 6})
    turns = [Turn(row, epoch, row // 4, composed=True) for epoch in range(2) for row in range(12)]
    items = {turn: first[turn] for turn in turns}
    torch.manual_seed(9)
    np.random.seed(9)  # noqa: NPY002  (whatever the global one does)
    assert all(same(items[turn], again[turn]) for turn in reversed(turns))
    assert not all(same(items[turn], other[turn]) for turn in turns)
    assert not all(same(items[turn], items[turn._replace(epoch=1)]) for turn in turns[:12])


def test_workers_give_the_same_composed_batches(pictures: Dataset) -> None:
    batches = []
    for num_workers in (0, 2):
        sampler = EpochSampler(12, 4, shares=np.linspace(1, 3, 12))
        sampler.composed = 1
        loader = training_loader(images(pictures, **COMPOSED), sampler, num_workers=num_workers)
        batches.append([batch.to_tensors() for batch in loader])
    for one, other in zip(*batches, strict=True):
        for mine, theirs in ((one, other), (one.pop("changes"), other.pop("changes"))):
            assert all(torch.equal(mine[name], theirs[name]) for name in mine if name != "changes")


def test_the_sampler_says_which_turns_may_be_composed() -> None:
    sampler = EpochSampler(6, 3)
    assert {turn.composed for batch in sampler for turn in batch} == {False}
    sampler.epoch, sampler.stop, sampler.composed = 2, 4, 3
    assert {(turn.epoch, turn.composed) for batch in sampler for turn in batch} == {(2, True), (3, False)}


# -- balance ---------------------------------------------------------------------------------------------------------


def ten_images() -> Dataset:
    """Cats in nine of ten images, dogs in four, birds in one, fish in none; one image has nothing."""
    cats, dogs, birds = [(image, 0) for image in range(9)], [(image, 1) for image in range(4)], [(3, 2)] * 5
    return make_dataset([(image, label, [0, 0, 9, 9]) for image, label in cats + dogs + birds], images=10)


@pytest.mark.parametrize(
    ("least", "shares"),
    [
        # the root of least / share of the images, of the rarest class in each
        (
            0.4,
            [1, 1, 1, 2, 1, 1, 1, 1, 1, 1],
        ),  # dogs are in enough, birds in a quarter of that, however many boxes
        (0.9, [1.5, 1.5, 1.5, 3, 1, 1, 1, 1, 1, 1]),
        (0.1, [1] * 10),
        (0.0, [1] * 10),
    ],
)
def test_images_of_rare_classes_come_more_often_by_the_root_of_how_rare(
    least: float, shares: list[float]
) -> None:
    assert balanced_shares(ten_images(), least) == pytest.approx(shares)


def test_a_dataset_without_boxes_has_nothing_to_balance() -> None:
    assert balanced_shares(make_dataset([], images=3), 0.5).tolist() == [1, 1, 1]


def test_every_row_comes_as_often_as_its_share_says_but_for_less_than_once() -> None:
    shares = np.random.default_rng(0).uniform(1, 6, 40)
    expected = shares / shares.sum() * 40
    sampler, plain = EpochSampler(40, 4, shares=shares), EpochSampler(40, 4)
    assert len(sampler) == len(plain) == 10
    total = np.zeros(40)
    for sampler.epoch in range(200):
        rows = sampler.rows()
        assert rows.shape == (10, 4)
        counts = np.bincount(rows.flat, minlength=40)
        assert (counts >= np.floor(expected)).all() and (counts <= np.ceil(expected)).all()
        total += counts
    assert np.abs(total / 200 - expected).max() < 0.15
    assert not np.array_equal(rows.flat, np.sort(rows.flat))  # the order is drawn too


def test_equal_shares_show_every_row_once() -> None:
    sampler = EpochSampler(10, 4, shares=np.full(10, 2.5))
    for sampler.epoch in range(20):
        assert np.bincount(sampler.rows().flat[:10], minlength=10).tolist() == [1] * 10


def test_a_class_in_few_images_is_shown_more_often() -> None:
    dataset = ten_images()
    sampler = EpochSampler(10, 5, shares=balanced_shares(dataset, 0.9))
    times = np.zeros(10)
    for sampler.epoch in range(100):
        times += np.bincount(sampler.rows().flat, minlength=10)
    assert times.sum() == 1000
    assert times[3] / 100 == pytest.approx(
        3 / 13.5 * 10, rel=0.05
    )  # the bird, three times as often as cats alone
    assert times[4:].mean() / 100 == pytest.approx(1 / 13.5 * 10, rel=0.05)


def test_an_image_that_comes_again_is_varied_anew(pictures: Dataset) -> None:
    turns = [turn for batch in EpochSampler(4, 4, shares=np.array([7.0, 1, 1, 1])) for turn in batch]
    assert sorted(turn.copy for turn in turns if turn.row == 0) == list(range(sum(t.row == 0 for t in turns)))
    assert all(turn.copy == 0 for batch in EpochSampler(6, 4) for turn in batch)  # the last one is filled up
    varied = images(pictures, augment="strong", seed=1)
    first, second = varied[Turn(0)], varied[Turn(0, copy=1)]
    assert not same(first, second)
    assert first.change is not None
    assert second.change is not None
    assert first.change.flip != second.change.flip


def test_processes_share_a_balanced_epoch() -> None:
    shares = np.linspace(1, 4, 12)
    whole = list(EpochSampler(12, 4, seed=3, shares=shares))
    parts = [EpochSampler(12, 4, seed=3, world=2, rank=rank, shares=shares) for rank in range(2)]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole
