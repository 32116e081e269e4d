"""The starter: which places find which boxes, where they stand, and the weights that come with the package."""

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d, box_iou, generalized_box_iou_loss

from odkit.detection import losses as dense_losses
from odkit.detection import starter
from odkit.detection.batch import Inputs
from odkit.detection.catalogue import CATALOGUE, list_detectors
from odkit.detection.detector import build_detector, load_detector
from odkit.detection.losses import aligned_losses
from odkit.detection.starter import STRIDES, ConvNorm, Starter, efficientnet_lite0
from odkit.detection.weights_cache import STARTER_WEIGHTS
from tests.helpers import count_syncs
from tools.starter.draw import starter_image

CLASSES = 3
SIZE = 96  # pixels

# -- aligned losses --------------------------------------------------------------------------------------------------


def places() -> Tensor:
    """The places [A, 4] of an image of 96 pixels."""
    squares = []
    for stride in STRIDES:
        for row in range(SIZE // stride):
            for column in range(SIZE // stride):
                x, y = column * stride, row * stride
                squares.append([x - stride / 2, y - stride / 2, x + stride / 2, y + stride / 2])
    return torch.tensor(squares)


def a_batch(counts: Sequence[int], seed: int = 0) -> Inputs:
    """Boxes of 6 to 50 pixels, as many in each image, padded; the last two of an image are the same."""
    random = torch.Generator().manual_seed(seed)
    boxes = torch.zeros(len(counts), max(counts), 4)
    labels = torch.full((len(counts), max(counts)), -1)
    for index, count in enumerate(counts):
        side = 2 ** (torch.rand(count, 2, generator=random) * 3 + 2.6)
        corner = torch.rand(count, 2, generator=random) * (SIZE - side)
        boxes[index, :count] = torch.cat((corner, corner + side), 1)
        labels[index, :count] = torch.randint(CLASSES, (count,), generator=random)
        if count > 1:
            boxes[index, count - 1] = boxes[index, count - 2]
    images = torch.randn(len(counts), 3, SIZE, SIZE, generator=random)
    return Inputs(images, [(SIZE, SIZE)] * len(counts), boxes, labels)


def some_outputs(images: int, *, farthest: float = 4.0) -> dict[str, Tensor]:
    """What a head might say: distances of up to so many strides."""
    random = torch.Generator().manual_seed(images)
    number = len(places())
    logits = torch.randn(images, number, CLASSES, generator=random) * 2 - 1
    distances = torch.rand(images, number, 4, generator=random) * farthest
    return {"cls_logits": logits.requires_grad_(), "bbox_regression": distances.requires_grad_()}


def candidates(box: Tensor, scores: Tensor, found: Tensor, centres: Tensor) -> dict[int, tuple[float, float]]:
    """The ten places at most that find a box best of those within it: place to (alignment, IoU)."""
    x1, y1, x2, y2 = box.tolist()
    rated = []
    for place, (x, y) in enumerate(centres.tolist()):
        if not (x1 < x < x2 and y1 < y < y2):
            continue
        iou = float(box_iou(box[None], found[place : place + 1]).nan_to_num(0))
        alignment = float(scores[place]) * iou**6
        # a little for being near, for the time when nothing overlaps yet
        far = (x - (x1 + x2) / 2) ** 2 + (y - (y1 + y2) / 2) ** 2
        nearness = 1e-9 / (1 + far / max(1, (x2 - x1) * (y2 - y1)))
        rated.append((alignment + nearness, place, alignment, iou))
    rated.sort(reverse=True)
    return {place: (alignment, iou) for _, place, alignment, iou in rated[:10]}


def step_by_step(inputs: Inputs, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Task-aligned learning (Feng et al., 2021) one box and one place at a time, in float64."""
    logits, distances = outputs["cls_logits"].double(), outputs["bbox_regression"].double()
    squares = places().double()
    centres, strides = (squares[:, :2] + squares[:, 2:]) / 2, squares[:, 2:] - squares[:, :2]
    wanted = torch.zeros_like(logits)
    box_loss, total = 0 * distances.sum(), 0.0
    for image, (boxes, labels) in enumerate(zip(inputs.boxes.double(), inputs.labels.tolist(), strict=True)):
        found = torch.cat(
            (centres - distances[image, :, :2] * strides, centres + distances[image, :, 2:] * strides), 1
        )
        there = [number for number, label in enumerate(labels) if label >= 0]
        claims = {
            number: candidates(
                boxes[number], logits[image, :, labels[number]].detach().sigmoid(), found.detach(), centres
            )
            for number in there
        }
        owner: dict[int, int] = {}  # a place finds the box that it overlaps most
        for number in there:
            for place, (_, iou) in claims[number].items():
                if place not in owner or iou > claims[owner[place]][place][1]:
                    owner[place] = number
        for number in there:
            own = {place: values for place, values in claims[number].items() if owner[place] == number}
            best_alignment = max((alignment for alignment, _ in own.values()), default=0.0)
            best_iou = max((iou for _, iou in own.values()), default=0.0)
            for place, (alignment, _) in own.items():
                quality = alignment / max(best_alignment, 1e-12) * best_iou
                wanted[image, place, labels[number]] = quality
                box_loss = box_loss + quality * generalized_box_iou_loss(found[place], boxes[number])
                total += quality
    scores = logits.sigmoid()
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return {
        "classification": ((scores - wanted) ** 2 * entropy).sum() / max(1, total),
        "bbox_regression": 2 * box_loss / max(1, total),
    }


def assert_as_step_by_step(inputs: Inputs, outputs: dict[str, Tensor]) -> None:
    given, wanted = aligned_losses(inputs, outputs, places()), step_by_step(inputs, outputs)
    assert given.keys() == wanted.keys()
    for name, loss in given.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.double(), wanted[name], rtol=1e-5, atol=1e-7)
    for output in outputs.values():
        slopes = [
            torch.autograd.grad(sum(terms.values()), output, retain_graph=True)[0]
            for terms in (given, wanted)
        ]
        torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-7)


COUNTS = {
    "some images without boxes": (3, 0, 7, 1),
    "no box in any image": (0, 0),
    "many boxes": (9, 25, 2),
}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
def test_losses_are_those_of_the_paper_step_by_step(counts: Sequence[int]) -> None:
    assert_as_step_by_step(a_batch(counts), some_outputs(len(counts)))


def test_where_nothing_overlaps_anything_the_losses_are_finite() -> None:
    """Boxes found that are points, beside padding, which is a point too."""
    inputs, outputs = a_batch((4, 1, 0)), some_outputs(3, farthest=0)
    assert_as_step_by_step(inputs, outputs)
    terms = aligned_losses(inputs, outputs, places())
    assert all(term.isfinite() for term in terms.values())
    assert terms["bbox_regression"].item() == 0


def test_a_box_that_holds_no_place_is_looked_for_by_none() -> None:
    inputs, outputs = a_batch((3, 2)), some_outputs(2)
    wanted = aligned_losses(inputs, outputs, places())
    small = torch.tensor([[[17.0, 33, 23, 39]], [[8, 0, 16, 8]]])  # between the centres; from one to the next
    more = inputs._replace(
        boxes=torch.cat((inputs.boxes, small), 1),
        labels=torch.cat((inputs.labels, torch.zeros(2, 1).long()), 1),
    )
    assert_as_step_by_step(more, outputs)
    for name, loss in aligned_losses(more, outputs, places()).items():
        torch.testing.assert_close(loss, wanted[name])


def test_padding_changes_no_loss() -> None:
    inputs, outputs = a_batch((3, 2)), some_outputs(2)
    padded = inputs._replace(
        boxes=nn.functional.pad(inputs.boxes, (0, 0, 0, 4)),
        labels=nn.functional.pad(inputs.labels, (0, 4), value=-1),
    )
    wanted = aligned_losses(inputs, outputs, places())
    for name, loss in aligned_losses(padded, outputs, places()).items():
        assert torch.equal(loss, wanted[name])


def test_a_batch_that_is_matched_in_parts_has_the_same_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, outputs = a_batch((3, 0, 7, 1)), some_outputs(4)
    whole = aligned_losses(inputs, outputs, places())
    monkeypatch.setattr(dense_losses, "PAIRS", 1)
    for name, loss in aligned_losses(inputs, outputs, places()).items():
        assert torch.equal(loss, whole[name])


# -- the module ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("groups", [1, 8])
def test_a_frozen_norm_within_the_convolution_is_the_norm_after_it(groups: int, active: bool) -> None:
    random = torch.Generator().manual_seed(0)
    layer = ConvNorm(8, 16, 3, stride=2, groups=groups, active=active).double()
    frozen = FrozenBatchNorm2d(16, eps=1e-3).double()
    for figures in (frozen.weight, frozen.bias, frozen.running_mean, frozen.running_var):
        figures.copy_(torch.rand(16, generator=random).double() + 0.1)
    layer.norm = frozen
    x = torch.randn(2, 8, 11, 9, generator=random, dtype=torch.float64, requires_grad=True)
    apart = frozen(layer.conv(x))
    apart = nn.functional.relu6(apart) if active else apart
    given = layer(x)
    torch.testing.assert_close(given, apart, rtol=1e-10, atol=1e-12)
    slope = torch.randn(given.shape, generator=random, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(one, (x, layer.conv.weight), slope) for one in (given, apart))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_cell_of_the_backbone_looks_at_the_pixel_of_its_place() -> None:
    """As far to either side of pixel `cell * stride`: what of the image reaches the cell, without its activations."""
    torch.manual_seed(0)
    body = efficientnet_lite0().double()
    for layer in body.modules():
        if isinstance(layer, ConvNorm):
            layer.norm, layer.active = nn.Identity(), False
    for block, stride in (("4", 8), ("10", 16), ("15", 32)):
        for across in (False, True):  # a long strip, lying and standing
            strip = torch.zeros(1, 3, 32, 1024, dtype=torch.float64)
            strip = (strip.mT if across else strip).requires_grad_()
            feature = strip
            for name, child in body.named_children():
                feature = child(feature)
                if name == block:
                    break
            line = feature.sum((0, 1, 3 if across else 2))
            (slope,) = torch.autograd.grad(line[512 // stride], strip)
            reached = slope.abs().sum((0, 1, 3 if across else 2)).nonzero().squeeze(1)
            assert len(reached) > 2 * stride
            assert int(reached[0] + reached[-1]) / 2 == 512, (block, across)


class Planted(nn.Module):
    """A backbone that gives what it was told to."""

    def __init__(self, maps: Sequence[Tensor]) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, x: object) -> dict[str, Tensor]:
        return {str(level): one for level, one in enumerate(self.maps)}


@pytest.mark.parametrize("level", range(3))
@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 2), (1, 0), (1, 2)])
def test_what_a_cell_finds_is_around_the_pixel_where_it_stands(level: int, row: int, column: int) -> None:
    """The first stands on the first pixel, and each a stride from the next."""
    height, width, stride = 64, 96, STRIDES[level]
    maps = [torch.zeros(1, 96, height // one, width // one) for one in STRIDES]
    maps[level][0, 5, row, column] = 1
    module = Starter(2).eval()
    module.backbone = Planted(maps)
    head = module.head
    head.class_tower = head.box_tower = nn.Identity()
    with torch.no_grad():
        head.classes.weight.zero_()[1, 5, 1, 1] = 16
        head.classes.bias.fill_(-8)
        head.distances.weight.zero_()
        head.distances.bias.copy_(torch.tensor([1.0, 0.5, 0.25, 0.75]))
    inputs = Inputs(
        torch.zeros(1, 3, height, width), [(height, width)], torch.zeros(1, 0, 4), torch.zeros(1, 0).long()
    )
    with torch.inference_mode():
        (found,) = starter.detections(module, inputs)
    x, y = column * stride, row * stride
    box = [max(0, x - stride), max(0, y - stride / 2), x + stride / 4, y + 3 * stride / 4]
    assert found["boxes"].tolist() == [box]
    assert found["labels"].tolist() == [1]


def test_under_autocast_losses_and_boxes_are_float32() -> None:
    torch.manual_seed(0)
    module, inputs = Starter(CLASSES), a_batch((3, 0))
    maps: list[Tensor] = []
    module.backbone.register_forward_hook(lambda _, given, made: maps.extend(made.values()))
    with torch.autocast("cpu", torch.bfloat16):
        terms = starter.losses(module.train(), inputs)
        module.score_thresh = 0.0
        with torch.inference_mode():
            found = starter.detections(module.eval(), inputs)
    assert {one.dtype for one in maps} == {torch.bfloat16}  # the convolutions are fast
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    assert all(one["boxes"].dtype == one["scores"].dtype == torch.float32 for one in found)
    assert all(len(one["boxes"]) for one in found)


def test_a_gpu_is_seldom_waited_for() -> None:
    torch.manual_seed(0)
    module, inputs = Starter(CLASSES).train(), a_batch((3, 0, 7, 1))
    with count_syncs() as forward:
        loss = sum(starter.losses(module, inputs).values())
    with count_syncs() as backward:
        loss.backward()
    assert len(forward) <= 1, sorted(Counter(forward).items())
    assert not backward, sorted(Counter(backward).items())


# -- the bundled weights ---------------------------------------------------------------------------------------------


def test_things_that_move_by_a_cell_are_found_moved() -> None:
    detector = load_detector(STARTER_WEIGHTS, device="cpu")
    seen = 0
    for index in (1, 2):
        pixels = torch.from_numpy(starter_image(3, index, 192)[0].copy()).permute(2, 0, 1) / 255
        height, width = pixels.shape[-2:]
        images = torch.full((2, 3, 448, 448), 127 / 255)  # what a detector pads with
        for image, start in zip(images, (96, 128), strict=True):
            image[:, start : start + height, start : start + width] = pixels
        with torch.inference_mode():
            before, after = detector(list(images))
        sure = before["scores"] > 0.4
        far = (before["boxes"][sure][:, None] + 32 - after["boxes"]).abs().amax(2)
        far[before["labels"][sure][:, None] != after["labels"]] = torch.inf
        assert (far.amin(1) < 1).all()
        seen += int(sure.sum())
    assert seen


def test_the_bundled_weights_are_small_and_plain_numbers() -> None:
    """Float16, but for the running figures of norms; the file is a header of JSON and then the numbers."""
    assert STARTER_WEIGHTS.stat().st_size < 9e6
    with STARTER_WEIGHTS.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        rest = len(file.read())
    assert max(one["data_offsets"][1] for name, one in header.items() if name != "__metadata__") == rest
    figures = ("running_mean", "running_var")
    state = load_file(STARTER_WEIGHTS)
    for name, value in state.items():
        assert value.dtype == (torch.float32 if name.endswith(figures) else torch.float16), name
        assert value.isfinite().all(), name
    with safe_open(str(STARTER_WEIGHTS), framework="numpy") as file:  # without torch too
        assert np.isfinite(file.get_tensor("head.classes.weight")).all()


def test_the_backbones_norms_and_first_stages_are_frozen() -> None:
    module = build_detector("starter", ["cat"]).module
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
    kept = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    assert kept == {name for name, _ in module.named_parameters() if name.startswith(starter.STEM)}
    assert len(kept) == 9  # convolutions: the stem's, two of the first block, three of each of the next two


def test_the_catalogue_knows_its_parameters_and_licences() -> None:
    (row,) = (row for row in list_detectors() if row["name"] == "starter")
    classes = len(load_detector(STARTER_WEIGHTS, device="cpu").class_names)
    module = CATALOGUE["starter"].build(classes)
    assert row["parameters"] == sum(parameter.numel() for parameter in module.parameters())
    assert row["weights"] == "bundled"
    # EfficientNet-Lite0's are its authors', who give code and weights under the same licence
    assert row["code_licence"] == row["weights_licence"] == "Apache-2.0"
