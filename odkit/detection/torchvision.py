"""torchvision's detectors: how each is built for a number of classes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

# torchvision trains the last three stages of a pre-trained backbone and freezes what stands before
RESNET_STEM = ("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1")
MOBILENET_STEM = tuple(f"backbone.body.{i}." for i in range(7))
SSD_STEM = tuple(f"backbone.features.{i}." for i in range(5))


class PyramidBackbone(nn.Module):
    """A backbone with a feature pyramid on its stages."""

    def __init__(self, body: nn.Module, in_channels: list[int], out_channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(in_channels, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = self.fpn(self.body(x))
        return features


def from_torchvision(builder: Callable[..., nn.Module], **options: Any) -> Callable[[int], nn.Module]:
    return partial(_build_torchvision, builder, options)


def _build_torchvision(
    builder: Callable[..., nn.Module], options: Mapping[str, Any], outputs: int
) -> nn.Module:
    module: nn.Module = builder(weights=None, weights_backbone=None, num_classes=outputs, **options)
    return module
