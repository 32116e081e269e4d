"""Forward passes of every family: torchvision's own results, with pixels in float32 and few waits for a GPU."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
import torchvision.models.detection as tv
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops import boxes as box_ops

from odkit.detection import losses as dense_losses
from odkit.detection import torchvision
from odkit.detection.batch import Inputs
from odkit.detection.catalogue import CATALOGUE
from odkit.detection.decoding import encode_offsets
from odkit.detection.forward import detections, losses
from tests.helpers import count_syncs

CLASSES = 5


class SmallBackbone(nn.Module):
    """MobileNetV3-small with a pyramid on strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        stages = {"3": "stride8", "8": "stride16", "11": "stride32"}
        self.body = IntermediateLayerGetter(mobilenet_v3_small().features, stages)
        self.fpn = FeaturePyramidNetwork([24, 48, 96], 96)
        self.out_channels = 96

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.fpn(self.body(x))
        return maps


def small_fcos(outputs: int) -> nn.Module:
    return tv.FCOS(
        SmallBackbone(),
        outputs,
        anchor_generator=AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3),
        head=FCOSHead(96, 1, outputs, num_convs=2),
        score_thresh=0.02,
    )


def small_retinanet(outputs: int, *, second: bool) -> nn.Module:
    """RetinaNet; the second version's norms and box loss where asked for."""
    head = RetinaNetHead(96, 6, outputs, norm_layer=partial(nn.GroupNorm, 32) if second else None)
    if second:
        head.regression_head._loss_type = "giou"
    return tv.RetinaNet(
        SmallBackbone(),
        outputs,
        anchor_generator=AnchorGenerator(((24, 32), (48, 64), (96, 128)), ((0.5, 1.0, 2.0),) * 3),
        head=head,
        score_thresh=0.01,
    )


SMALL: dict[str, Callable[[int], nn.Module]] = {
    "FCOS": small_fcos,
    "RetinaNet": partial(small_retinanet, second=False),
    "RetinaNet v2": partial(small_retinanet, second=True),
    "SSD": CATALOGUE["ssdlite320_mobilenet_v3_large"].build,
    "Faster R-CNN": CATALOGUE["fasterrcnn_mobilenet_v3_large_320_fpn"].build,
}
BACKGROUND = ("SSD", "Faster R-CNN")


def made(family: str) -> nn.Module:
    torch.manual_seed(0)
    module = SMALL[family](CLASSES + (family in BACKGROUND))
    enlivened(module)
    return module


def enlivened(module: nn.Module, size: int = 96) -> None:
    """A fresh module says the same everywhere: give its norms figures of noise, and let its last layers speak."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        maps = module.train().backbone(torch.randn(4, 3, size, size, generator=random))
        if hasattr(module, "head"):
            module.head(list(maps.values()))
    for name, parameter in module.named_parameters():
        if "cls_logits" in name or "cls_score" in name:
            nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else nn.init.constant_(parameter, -2)


def a_batch(
    counts: Sequence[int], *, size: int = 96, sizes: Sequence[tuple[int, int]] = (), background: bool = False
) -> Inputs:
    """Noise with as many boxes in each image; the last two boxes of an image are the same, with other labels."""
    random = torch.Generator().manual_seed(len(counts))
    sizes = list(sizes) or [(size, size)] * len(counts)
    images = torch.zeros(len(counts), 3, size, size)
    boxes = torch.zeros(len(counts), max(counts), 4)
    labels = torch.full((len(counts), max(counts)), -1)
    for index, (count, (height, width)) in enumerate(zip(counts, sizes, strict=True)):
        images[index, :, :height, :width] = torch.randn(3, height, width, generator=random)
        side = 2 ** (torch.rand(count, 2, generator=random) * 3 + 2.5)
        side = side.minimum(torch.tensor([width - 1, height - 1]))
        corner = torch.rand(count, 2, generator=random) * (torch.tensor([width, height]) - side)
        boxes[index, :count] = torch.cat((corner, corner + side), 1)
        labels[index, :count] = torch.arange(count) % CLASSES + background
        if count > 1:
            boxes[index, count - 1] = boxes[index, count - 2]
    return Inputs(images.contiguous(memory_format=torch.channels_last), sizes, boxes, labels)


class Given(nn.Module):
    """A transform that hands on what it was given: a batch that is ready."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.batch = ImageList(inputs.images, inputs.sizes)

    def forward(self, images: object, targets: object) -> tuple[ImageList, object]:
        return self.batch, targets

    def postprocess(self, found: object, *sizes: object) -> object:
        return found


def by_torchvision(module: nn.Module, inputs: Inputs) -> Any:
    """The module's own forward pass."""
    own, module.transform = module.transform, Given(inputs)
    counts = (inputs.labels >= 0).sum(1).tolist()
    targets = [
        {"boxes": boxes[:count], "labels": labels[:count]}
        for boxes, labels, count in zip(inputs.boxes, inputs.labels, counts, strict=True)
    ]
    try:
        return module(list(inputs.images), targets if module.training else None)
    finally:
        module.transform = own


def gradients(module: nn.Module, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    given = torch.autograd.grad(torch.stack(list(terms.values())).sum(), list(trained.values()))
    return dict(zip(trained, given, strict=True))


def assert_same_losses(module: nn.Module, inputs: Inputs) -> None:
    module.train()
    torch.manual_seed(0)  # Faster R-CNN draws which anchors count
    wanted = by_torchvision(module, inputs)
    torch.manual_seed(0)
    given = losses(module, inputs)
    assert given.keys() == wanted.keys()
    for name, loss in given.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, wanted[name], rtol=1e-5, atol=1e-7)
    wanted, given = gradients(module, wanted), gradients(module, given)
    scale = torch.stack([gradient.norm() for gradient in wanted.values()]).max()
    for name, gradient in given.items():
        assert float((gradient - wanted[name]).norm()) <= 1e-4 * float(wanted[name].norm() + scale / 100), (
            name
        )


def assert_same_detections(module: nn.Module, inputs: Inputs) -> None:
    module.eval()
    with torch.inference_mode():
        wanted, given = by_torchvision(module, inputs), detections(module, inputs)
    for one, other in zip(given, wanted, strict=True):
        assert len(other["boxes"]) == len(one["boxes"]) > 10
        torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-6, atol=0)
        # scores that are all but equal may stand in either order
        rows, others = (
            torch.cat((x["boxes"], x["labels"][:, None], x["scores"][:, None]), 1) for x in (one, other)
        )
        apart = (rows[:, None] - others).abs().amax(2)
        assert float(apart.amin(0).max()) < 1e-4
        assert float(apart.amin(1).max()) < 1e-4


# -- torchvision's results ---------------------------------------------------------------------------------------------

SIZES = [(96, 96), (64, 96), (96, 50), (91, 77)]
COUNTS = {
    "some images without boxes": (3, 0, 7, 1),
    "no box in any image": (0, 0, 0, 0),
    "many boxes": (9, 30, 2, 17),
}


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS.keys())
def test_losses_are_torchvisions(family: str, counts: Sequence[int]) -> None:
    inputs = a_batch(counts, sizes=SIZES, background=family in BACKGROUND)
    assert_same_losses(made(family), inputs)


@pytest.mark.parametrize("family", SMALL)
def test_detections_are_torchvisions(family: str) -> None:
    assert_same_detections(made(family), a_batch((0, 0, 0, 0), sizes=SIZES))


@pytest.mark.parametrize("family", SMALL)
def test_nothing_found_is_no_fault(family: str) -> None:
    module = made(family).eval()
    (module.roi_heads if family == "Faster R-CNN" else module).score_thresh = 1.0
    with torch.inference_mode():
        found = detections(module, a_batch((0, 0)))
    assert [tuple(one["boxes"].shape) for one in found] == [(0, 4), (0, 4)]
    assert all(one["scores"].shape == one["labels"].shape == (0,) for one in found)


THEIRS = [name for name, entry in CATALOGUE.items() if entry.family is torchvision]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in THEIRS])
def test_every_entry_computes_what_torchvision_does(name: str) -> None:
    entry = CATALOGUE[name]
    torch.manual_seed(0)
    module = entry.build(CLASSES + entry.background)
    size = max(entry.smallest, 128)
    enlivened(module, size)
    inputs = a_batch((4, 0), size=size, background=entry.background)
    assert_same_detections(module, inputs)
    assert_same_losses(module, inputs)


@pytest.mark.parametrize("family", ["FCOS", "RetinaNet", "SSD"])
def test_a_batch_that_is_matched_in_parts_has_the_same_losses(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = made(family).train()
    inputs = a_batch((3, 0, 7, 1), background=family in BACKGROUND)
    whole = losses(module, inputs)
    monkeypatch.setattr(dense_losses, "PAIRS", 1)
    for name, loss in losses(module, inputs).items():
        assert torch.equal(loss, whole[name])


# -- few waits -----------------------------------------------------------------------------------------------------

# How often the host waits for a GPU: a forward pass of 16 images, and its backward pass.
WAITS = {
    "FCOS": (1, 0),
    "RetinaNet": (1, 0),
    "RetinaNet v2": (1, 0),
    "SSD": (2, 0),  # one of them on the host in truth: its boxes are made there whatever the device
    # torchvision's own, today's number: sampling 4 an image, proposals 3, choosing among them and matching 1 each
    "Faster R-CNN": (150, 0),
}


@pytest.mark.parametrize(("family", "most"), WAITS.items())
def test_a_gpu_is_seldom_waited_for(family: str, most: tuple[int, int]) -> None:
    module = made(family).train()
    inputs = a_batch((3, 0, 7, 1) * 4, background=family in BACKGROUND)
    losses(module, inputs)  # pooling learns the levels' scales at its first use
    with count_syncs() as forward:
        loss = torch.stack(list(losses(module, inputs).values())).sum()
    with count_syncs() as backward:
        loss.backward()
    assert len(forward) <= most[0], sorted(Counter(forward).items())
    assert len(backward) <= most[1], sorted(Counter(backward).items())


@pytest.mark.parametrize("family", ["FCOS", "SSD"])
def test_detections_are_waited_for_once_an_image(family: str) -> None:
    module = made(family).eval()
    module.topk_candidates = 20  # suppressed together: with more boxes a CPU goes class by class
    with torch.inference_mode(), count_syncs() as waits:
        detections(module, a_batch((0,) * 16))
    assert len(waits) <= 16 + 2, sorted(Counter(waits).items())


@pytest.mark.parametrize("inference", [False, True])
def test_what_would_wait_for_a_gpu_is_counted(inference: bool) -> None:
    values, mask = torch.arange(4.0), torch.tensor([True, False, True, False])
    with torch.inference_mode(inference), count_syncs() as waits:
        values[mask].sum().item()
        (
            values.tolist(),
            bool(mask[0]),
            float(values[0]),
            mask.nonzero(),
            torch.where(mask),
            torch.equal(mask, mask),
        )
        torch.tensor([1.0], device=values.device)
        torch.repeat_interleave(torch.tensor([1, 2]))
        values[mask] = torch.ones(2)
    assert len(waits) == 11, waits
    assert all(place.split(" in ")[1].startswith("test_forward.py:") for place in waits)
    with torch.inference_mode(inference), count_syncs() as waits:
        values[mask] = 0.0
        values[torch.tensor([0, 2])], torch.where(mask, values, 0.0), values.masked_fill(mask, 1)
        torch.repeat_interleave(torch.tensor([1, 2]), output_size=3), values.repeat_interleave(2)
    assert not waits, waits


def test_what_would_wait_for_a_gpu_is_counted_in_a_backward_pass() -> None:
    values, mask = torch.arange(4.0, requires_grad=True), torch.tensor([True, False, True, False])
    taken = values[mask].sum() + values[torch.tensor([0, 2])].sum()
    with count_syncs() as waits:
        taken.backward()
    assert len(waits) == 1, waits
    assert "taken.backward()" in waits[0]
    product = values.view(2, 2).prod(1).sum()
    with count_syncs() as waits:
        product.backward()
    assert waits


# -- pixels in float32 -----------------------------------------------------------------------------------------------


@contextmanager
def in_bfloat16(on: bool = True) -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16, enabled=on):
        yield


@pytest.fixture
def suppressed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.dtype, torch.dtype]]:
    """Number formats of the boxes and scores that reach NMS, wherever it is called: all look it up in one place."""
    formats = []
    original = box_ops.batched_nms

    def spy(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
        formats.append((boxes.dtype, scores.dtype))
        return original(boxes, scores, labels, threshold)

    monkeypatch.setattr(box_ops, "batched_nms", spy)
    return formats


@pytest.mark.parametrize("family", SMALL)
def test_under_autocast_what_has_pixels_is_float32(
    family: str, suppressed: list[tuple[torch.dtype, torch.dtype]]
) -> None:
    module = made(family)
    features, anchors = [], []
    generator = module.rpn.anchor_generator if family == "Faster R-CNN" else module.anchor_generator
    generator.register_forward_hook(lambda _, given, made: anchors.append(made[0]))
    module.backbone.register_forward_hook(lambda _, given, made: features.extend(made.values()))
    inputs = a_batch((3, 0), background=family in BACKGROUND)
    with in_bfloat16():
        terms = losses(module.train(), inputs)
        with torch.inference_mode():
            found = detections(module.eval(), inputs)
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    assert all(one["boxes"].dtype == one["scores"].dtype == torch.float32 for one in found)
    assert {feature.dtype for feature in features} == {torch.bfloat16}  # the convolutions are fast
    assert len(suppressed) == (6 if family == "Faster R-CNN" else 2)  # its proposals, in training too
    assert set(suppressed) == {(torch.float32, torch.float32)}
    detections(module, inputs)  # without autocast
    assert all(torch.equal(one, anchors[-1]) for one in anchors)
    assert {one.dtype for one in anchors} == {torch.float32}


class Planted(nn.Module):
    """A backbone or a head that gives what it was told to, in bf16 where convolutions would."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given

    def forward(self, x: object) -> Any:
        return autocast_as_convolutions(self.given)


def autocast_as_convolutions(given: Any) -> Any:
    if isinstance(given, Tensor):
        return given.bfloat16() if torch.is_autocast_enabled("cpu") else given
    if isinstance(given, dict):
        return {name: autocast_as_convolutions(value) for name, value in given.items()}
    return [autocast_as_convolutions(value) for value in given]


SIDE = 1024
STRIDES = {
    "FCOS": (8, 16, 32, 64, 128),
    "RetinaNet": (8, 16, 32, 64, 128),
    "SSD": (16, 32, 64),
    "RPN": (4, 8, 16),
}


def objects() -> tuple[Tensor, Tensor]:
    """Objects [n, 4] of 16 pixels all over an image of 1024, and one duplicate each, a pixel to the right."""
    random = torch.Generator().manual_seed(0)
    grid = torch.cartesian_prod(torch.arange(40.0, SIDE - 60, 150), torch.arange(40.0, SIDE - 60, 150))
    corners = grid + torch.rand(grid.shape, generator=random) * 20
    boxes = torch.cat((corners, corners + 16), 1)
    return boxes, boxes + torch.tensor([1.0, 0, 1, 0])


def features(family: str) -> dict[str, Tensor]:
    """Feature maps of no depth: what is on them is looked at by nobody."""
    return {str(n): torch.zeros(1, 1, SIDE // n, SIDE // n) for n in STRIDES[family]}


def planted_codes(coder: BoxCoder | None, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Box codes [A, 4], exact in bf16, that decode to the objects and their duplicates, and the anchors that do so.

    Without a coder: FCOS' distances.
    """
    codes = torch.zeros(len(anchors), 4)
    places: list[Tensor] = []
    for boxes in objects():
        far = torch.cdist((anchors[:, :2] + anchors[:, 2:]) / 2, (boxes[:, :2] + boxes[:, 2:]) / 2)
        far += torch.cdist(anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2])
        for taken in places:
            far[taken] = torch.inf
        place = far.argmin(0)
        if coder is None:
            sides = anchors[place, 2:] - anchors[place, :2]
            centre = (anchors[place, 2:] + anchors[place, :2]) / 2
            codes[place] = torch.cat(((centre - boxes[:, :2]) / sides, (boxes[:, 2:] - centre) / sides), 1)
        else:
            codes[place] = encode_offsets(coder, boxes, anchors[place])
        places.append(place)
    return codes.bfloat16().float(), places[0], places[1]


def planted_one_stage(family: str) -> nn.Module:
    torch.manual_seed(0)
    backbone = Planted(features(family))
    backbone.out_channels = 32
    if family == "FCOS":
        module = tv.FCOS(backbone, 90, nms_thresh=0.5)
    elif family == "RetinaNet":
        module = tv.RetinaNet(backbone, 90)
    else:
        generator = DefaultBoxGenerator([[2, 3]] * 3, scales=[0.03, 0.1, 0.2, 0.3])
        backbone.out_channels = [32] * 3
        module = SSD(backbone, generator, (SIDE, SIDE), 91)
    maps = list(features(family).values())
    (anchors,) = module.anchor_generator(ImageList(torch.empty(1, 3, SIDE, SIDE), [(SIDE, SIDE)]), maps)
    codes, first, second = planted_codes(None if family == "FCOS" else module.box_coder, anchors)
    logits = torch.full((1, len(anchors), 91 if family == "SSD" else 90), -8.0)
    if family == "SSD":
        logits[..., 0] = 8
        logits[0, first, 0] = logits[0, second, 0] = 0
    logits[0, first, -1], logits[0, second, -1] = 4.0, 3.0
    outputs = {"cls_logits": logits, "bbox_regression": codes[None]}
    if family == "FCOS":
        outputs["bbox_ctrness"] = torch.full((1, len(anchors), 1), 4.0)
    module.head = Planted(outputs)
    return module


class TheSmallOnes(nn.Module):
    """A second stage's last layer that knows the objects by the proposals' size: all are of the last class."""

    def forward(self, proposals: Tensor) -> Any:
        small = ((proposals[:, 2:] - proposals[:, :2] - 16).abs() < 2).all(1)
        logits = torch.zeros(len(proposals), 91)
        logits[:, 0], logits[:, -1] = torch.where(small, -4.0, 8.0), torch.where(small, 4.0, -8.0)
        return autocast_as_convolutions([logits, torch.zeros(len(proposals), 91 * 4)])


class Proposals(nn.Module):
    """A pooling layer that hands on the proposals themselves."""

    def forward(self, maps: object, proposals: list[Tensor], sizes: object) -> Tensor:
        return proposals[0].float()


def planted_two_stage() -> nn.Module:
    backbone = Planted(features("RPN"))
    backbone.out_channels = 32
    generator = AnchorGenerator(((32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 3)
    # proposals are suppressed by the second stage alone: there are no two classes in the first
    module = tv.FasterRCNN(
        backbone, 91, rpn_anchor_generator=generator, rpn_nms_thresh=0.95, rpn_pre_nms_top_n_test=200
    )
    maps = list(features("RPN").values())
    (anchors,) = generator(ImageList(torch.empty(1, 3, SIDE, SIDE), [(SIDE, SIDE)]), maps)
    codes, first, second = planted_codes(module.rpn.box_coder, anchors)
    objectness = torch.full((len(anchors), 1), -8.0)
    objectness[first], objectness[second] = 4.0, 3.0
    levels = [3 * (SIDE // stride) ** 2 for stride in STRIDES["RPN"]]

    def as_maps(values: Tensor) -> list[Tensor]:  # [A, C] to [1, 3 * C, H, W] a level
        return [
            level.view(SIDE // stride, SIDE // stride, -1).permute(2, 0, 1)[None]
            for level, stride in zip(values.split(levels), STRIDES["RPN"], strict=True)
        ]

    module.rpn.head = Planted([as_maps(objectness), as_maps(codes)])
    module.roi_heads.box_roi_pool, module.roi_heads.box_head = Proposals(), nn.Identity()
    module.roi_heads.box_predictor = TheSmallOnes()
    return module


@pytest.mark.parametrize("family", ["FCOS", "RetinaNet", "SSD", "Faster R-CNN"])
def test_small_objects_of_the_last_of_many_classes_are_found_once_and_in_place(family: str) -> None:
    module = (planted_two_stage() if family == "Faster R-CNN" else planted_one_stage(family)).eval()
    inputs = a_batch((0,), size=SIDE)
    with torch.inference_mode():
        (wanted,) = detections(module, inputs)
        with in_bfloat16():
            (given,) = detections(module, inputs)
    there, _ = objects()
    last = 90 if family in BACKGROUND else 89
    for found in (wanted, given):
        assert len(found["boxes"]) == len(there)  # no duplicate
        assert set(found["labels"].tolist()) == {last}
    nearest = torch.cdist(given["boxes"], wanted["boxes"], p=torch.inf).amin(1)
    assert float(nearest.max()) < 0.05
    overlaps = box_ops.box_iou(there, given["boxes"]).amax(1)
    assert float(overlaps.min()) > 0.9
