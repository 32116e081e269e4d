"""What a detector's layers take, from a batch of bytes: torchvision's own pixels, varied as drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from odkit.detection import Batch, Changes, Item, Pack
from odkit.detection.catalogue import CATALOGUE
from odkit.detection.detector import build_detector
from odkit.detection.pixels import prepare

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def packed(*sizes: tuple[int, int], divisible: int = 32) -> Batch:
    """A batch of noise; a box an image."""
    rng = np.random.default_rng(0)
    items = [
        Item(
            torch.from_numpy(rng.integers(0, 256, (height, width, 3), np.uint8)).permute(2, 0, 1),
            np.array([[1, 2, width - 3, height - 4]], np.float32),
            np.array([row]),
            row,
            (2 * width, 2 * height),
        )
        for row, (width, height) in enumerate(sizes)
    ]
    return Pack(divisible)(items)


def unchanged(batch: Batch) -> Changes:
    whole = np.column_stack([np.zeros_like(batch.sizes), batch.sizes])
    colour = np.eye(3, 4, dtype=np.float32)[None].repeat(len(batch), 0)
    return Changes(np.zeros(len(batch), bool), whole, whole.copy(), np.zeros(len(batch), np.float32), colour)


def test_a_batch_is_one_tensor() -> None:
    """Each tensor is an open file on its way from a data worker."""
    batch = packed((40, 30), (30, 40), (20, 20))
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 1
    assert batch.images.shape == (3, 3, 64, 64)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["ssd300_vgg16", "ssdlite320_mobilenet_v3_large"])
def test_pixels_are_torchvisions_own(name: str) -> None:
    transform = CATALOGUE[name].build(3).transform
    detector = build_detector(name, ["a", "b"], weights="random")
    batch = packed((70, 50), (64, 50), divisible=detector.divisible)
    floats = [
        image[:, :height, :width].float() / 255
        for image, (width, height) in zip(batch.images, batch.sizes.tolist(), strict=True)
    ]
    wanted = transform.batch_images(
        [transform.normalize(image) for image in floats], transform.size_divisible
    )
    inputs = prepare(batch, torch.device("cpu"), mean=detector.mean, std=detector.std)
    assert inputs.images.dtype == torch.float32
    assert inputs.images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(inputs.images, wanted, rtol=0, atol=1e-5 / min(detector.std))
    assert inputs.sizes == [(50, 70), (50, 64)]
    assert inputs.boxes.tolist() == [[[1, 2, 67, 46]], [[1, 2, 61, 46]]]
    assert inputs.labels.tolist() == [[0], [1]]


def test_autocast_leaves_pixels_alone() -> None:
    batch = packed((64, 64))
    plain = prepare(batch, torch.device("cpu"), mean=MEAN, std=STD).images
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = prepare(batch, torch.device("cpu"), mean=MEAN, std=STD).images
    assert torch.equal(plain, cast)


def test_changes_are_applied_image_by_image() -> None:
    batch = packed((60, 50), (60, 50), (60, 50))
    changes = unchanged(batch)
    changes.flip[1] = True
    changes.colour[2] *= 0.5  # half as bright
    images = prepare(replace(batch, changes=changes), torch.device("cpu"), mean=MEAN, std=STD).images
    plain = prepare(batch, torch.device("cpu"), mean=MEAN, std=STD).images
    torch.testing.assert_close(images[0], plain[0])
    torch.testing.assert_close(images[1, :, :50, :60], plain[1, :, :50, :60].flip(-1))
    assert not images[1, :, :, 60:].any(), "padding stays what it is"
    spread, middle = (torch.tensor(values)[:, None, None] for values in (STD, MEAN))
    half = (plain[2, :, :50, :60] * spread + middle) / 2
    torch.testing.assert_close(images[2, :, :50, :60], (half - middle) / spread, rtol=0, atol=1e-5)


def test_a_part_is_resized_into_place_with_grey_around_it() -> None:
    batch = packed((64, 64))
    changes = unchanged(batch)
    changes.source[0] = [32, 32, 64, 64]
    changes.target[0] = [16, 16, 48, 48]  # not resized: moved
    images = prepare(replace(batch, changes=changes), torch.device("cpu"), mean=MEAN, std=STD).images
    plain = prepare(batch, torch.device("cpu"), mean=MEAN, std=STD).images
    torch.testing.assert_close(images[0, :, 16:48, 16:48], plain[0, :, 32:, 32:])
    grey = (torch.tensor([114 / 255] * 3) - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(images[0, :, 0, 0], grey)
    assert torch.equal(batch.images, packed((64, 64)).images), "the bytes that came are as they were"


def test_parts_are_the_whole() -> None:
    batch = packed((64, 48), (48, 64), (30, 30))
    batch = replace(batch, changes=unchanged(batch))
    last = batch.part(1, 3)
    assert last.rows.tolist() == [1, 2]
    assert last.labels.tolist() == [1, 2]
    assert last.changes.source.tolist() == [[0, 0, 48, 64], [0, 0, 30, 30]]
    again = Batch.from_tensors(last.to_tensors())
    assert torch.equal(again.images, last.images)
    assert all(np.array_equal(a, b) for a, b in zip(again.changes, last.changes, strict=True))


def test_torchvisions_contract_and_a_packed_batch_agree() -> None:
    torch.manual_seed(0)
    detector = build_detector("starter", ["a", "b"], weights="random", image_size=64)
    batch = packed((64, 48), (48, 64))
    images = [
        image[:, :height, :width].float() / 255
        for image, (width, height) in zip(batch.images, batch.sizes.tolist(), strict=True)
    ]
    targets = [
        {"boxes": torch.from_numpy(batch.boxes[[i]]), "labels": torch.from_numpy(batch.labels[[i]])}
        for i in range(2)
    ]
    one, other = detector(batch), detector(images, targets)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)
    targets[1]["boxes"] = torch.tensor([[5.0, 5.0, 5.0, 9.0]])
    with pytest.raises(ValueError, match="image 1 of the batch has a box without area"):
        detector(images, targets)


def test_a_single_image_trains_with_batch_norms() -> None:
    """SSDlite's last maps are one pixel: a batch norm cannot take a spread from that."""
    detector = build_detector("ssdlite320_mobilenet_v3_large", ["a", "b"], weights="random").train()
    losses = detector(packed((320, 320), divisible=1))
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(module.training for module in detector.modules())
