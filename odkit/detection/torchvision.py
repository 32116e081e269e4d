"""torchvision's detectors: how one is built for a number of classes, and which of its first stages stay as they are."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

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
