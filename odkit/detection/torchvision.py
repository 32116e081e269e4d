"""torchvision's detectors: how one is built, and what their modules have in common."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from odkit.detection.family import ClassRows, InputFormat
from odkit.detection.forward import detections as detections
from odkit.detection.forward import fixed as fixed
from odkit.detection.forward import losses as losses

BACKBONE = "backbone"
STAGE = re.compile(r"backbone\.(?:body|features)\.([^.]+)\.")
LAYERS = ("backbone", "head", "rpn.head", "roi_heads.box_head", "roi_heads.box_predictor")

# torchvision trains the last three stages of a pre-trained backbone and freezes what stands before
RESNET_STEM = ("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1")
MOBILENET_STEM = tuple(f"backbone.body.{i}." for i in range(7))
SSD_STEM = tuple(f"backbone.features.{i}." for i in range(5))


def from_torchvision(builder: Callable[..., nn.Module], **options: Any) -> Callable[[int], nn.Module]:
    """An entry's `build`: torchvision's builder with these options, for a number of outputs, without weights."""
    return partial(_build_torchvision, builder, options)


def _build_torchvision(
    builder: Callable[..., nn.Module], options: Mapping[str, Any], outputs: int
) -> nn.Module:
    module: nn.Module = builder(weights=None, weights_backbone=None, num_classes=outputs, **options)
    return module


def input_format(module: Any) -> InputFormat:
    """What torchvision's modules do first, and `prepare` does here, a batch at a time."""
    transform = module.transform
    return InputFormat(tuple(transform.image_mean), tuple(transform.image_std), int(transform.size_divisible))


def features(module: Any, images: Tensor) -> list[Tensor]:
    """The backbone's feature maps [B, C, h, w], by level."""
    return list(module.backbone(images).values())


def carry_rows(key: str, given: Tensor, own: Tensor, rows: ClassRows) -> Tensor | None:
    """Faster R-CNN's box layer counts class by class (four numbers each); classification layers anchor by anchor."""
    if given.shape[1:] != own.shape[1:] or given.shape[0] * rows.new != own.shape[0] * rows.old:
        return None
    by_class = "bbox_pred" in key
    shape = (lambda t, n: (n, -1, *t.shape[1:])) if by_class else (lambda t, n: (-1, n, *t.shape[1:]))
    source, target = given.reshape(shape(given, rows.old)), own.clone().reshape(shape(own, rows.new))
    for to, origin in rows.pairs:
        if by_class:
            target[to] = source[origin]
        else:
            target[:, to] = source[:, origin]
    return target.reshape(own.shape)


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As it is: torchvision publishes its modules' own state."""
    return dict(state)
