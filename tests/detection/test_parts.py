"""Batches computed in parts by threads: the same losses, gradients and detections as whole ones."""

import contextlib
import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from odkit.detection import Batch, Detector, Item, Pack, batches_in_parts, build_detector
from odkit.detection.parts import in_parts
from odkit.training.loop import total_loss

PIXELS = 64


@pytest.fixture(autouse=True)
def as_many_threads_after() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


def batch(images: int, divisible: int) -> Batch:
    """Noise; the first image without a box, the others with one or two."""
    rng = np.random.default_rng(0)
    boxes, labels = np.array([[4, 4, 30, 30], [20, 20, 60, 50]], np.float32), np.array([0, 1])
    items = []
    for row in range(images):
        pixels = torch.from_numpy(rng.integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)).permute(2, 0, 1)
        items.append(Item(pixels, boxes[: row % 3], labels[: row % 3], row, (PIXELS, PIXELS)))
    return Pack(divisible)(items)


def step(detector: Detector, threads: int, images: int) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
    """Loss, all gradients and what is found."""
    detector.zero_grad(set_to_none=True)
    packed = batch(images, detector.divisible)
    torch.manual_seed(1)
    with batches_in_parts(threads):
        loss = total_loss(detector.train()(packed))
        loss.backward()
        with torch.inference_mode():
            found = detector.eval()(packed)
    trained = [one.grad.flatten() for one in detector.parameters() if one.grad is not None]
    return loss.detach(), torch.cat(trained), found


def test_a_batch_in_parts_is_the_same_batch() -> None:
    """Three images, computed whole and by two threads, twice: sums in a fixed order, losses of the whole batch."""
    detector = build_detector("starter", ["a", "b"], image_size=PIXELS)
    whole, parts, again = (step(detector, threads, 3) for threads in (1, 2, 2))
    assert torch.equal(parts[1], again[1])
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-5, atol=1e-6)
    assert float((parts[1] - whole[1]).norm() / whole[1].norm()) < 1e-4
    for one, other in zip(parts[2], whole[2], strict=True):
        torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("training", "seen"), [(True, [3]), (False, [1, 2])])
def test_batch_norms_that_are_trained_see_the_whole_batch(training: bool, seen: list[int]) -> None:
    layers, sizes = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train(training), list[int]()

    def network(images: Tensor) -> dict[str, Tensor]:
        sizes.append(len(images))
        return {"out": layers(images)}

    with batches_in_parts(2):
        assert in_parts(network, layers, torch.rand(3, 3, 8, 8))["out"].shape == (3, 4, 8, 8)
    assert sorted(sizes) == seen


def test_threads_compute_as_their_caller_would() -> None:
    """Number formats, gradients or none, outputs without a gradient, and faults."""
    layer = nn.Conv2d(3, 4, 1)
    seen: list[tuple[bool, bool, torch.dtype]] = []

    def network(images: Tensor) -> dict[str, Tensor]:
        out = layer(images)
        seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled(), out.dtype))
        return {"out": out, "shape": images[:, 0]}

    images = torch.rand(2, 3, 8, 8)
    with batches_in_parts(2):
        outputs = in_parts(network, layer, images)
        assert outputs["out"].requires_grad
        assert not outputs["shape"].requires_grad
        assert torch.equal(outputs["shape"], images[:, 0])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            in_parts(network, layer, images)
        with pytest.raises(RuntimeError, match="channels"):
            in_parts(network, layer, images[:, :2])
        layer.requires_grad_(False)
        assert not in_parts(network, layer, images)["out"].requires_grad
    assert seen[:2] == [(True, False, torch.float32)] * 2
    assert seen[2:4] == [(False, True, torch.bfloat16)] * 2


def test_a_part_that_fails_leaves_nothing_in_memory() -> None:
    """Where memory runs short, the next try with fewer images needs all of it, and at once."""
    layer = nn.Conv2d(3, 4, 1)
    made: list[weakref.ref[Tensor]] = []

    def network(images: Tensor) -> dict[str, Tensor]:
        out = layer(images)
        made.append(weakref.ref(out))
        if images.sum() == 0:
            raise MemoryError
        return {"out": out}

    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    gc.collect()
    gc.disable()
    try:
        with batches_in_parts(2), contextlib.suppress(MemoryError):
            in_parts(network, layer, images)
        assert [one() for one in made] == [None, None]
    finally:
        gc.enable()


def test_rounded_weights_are_each_parts_own() -> None:
    """A weight that is used three times, in bf16: its gradients are added as those of two parts alone, in float32."""
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 4, 1)
    images = torch.rand(2, 4, 8, 8)

    def network(images: Tensor) -> dict[str, Tensor]:
        return {"out": layer(layer(layer(images)))}

    alone = []
    for part in images.chunk(2):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            out = network(part)["out"]
        alone += torch.autograd.grad(out.float().sum(), [layer.weight])
    with batches_in_parts(2), torch.autocast("cpu", torch.bfloat16):
        in_parts(network, layer, images)["out"].float().sum().backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, alone[0] + alone[1])
