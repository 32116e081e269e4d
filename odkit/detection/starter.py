"""The starter: odkit's own small detector, a family of its own, whose weights are in the package.

FCOS' way (Tian et al., 2019, arXiv:1904.01355) on EfficientNet-Lite0: each place of a feature pyramid says how far away
the four sides of an object around it are. Which places are to find an object is decided by how well they do already
(`losses.aligned_losses`), and a score says how well a box fits too, so that there is no centerness.
tools/starter/ makes the weights.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d

from odkit.detection.batch import Inputs
from odkit.detection.decoding import decode_distances, dense_candidates, dense_detections, fixed_detections
from odkit.detection.family import InputFormat
from odkit.detection.fixed import Fixed
from odkit.detection.losses import aligned_losses
from odkit.detection.torchvision import carry_rows as carry_rows

BACKBONE = "backbone"
STAGE = re.compile(r"backbone\.body\.([^.]+)\.")
LAYERS = ("backbone", "head")
STEM = tuple(f"backbone.body.{name}." for name in ("stem", "0", "1", "2"))  # up to stride 4
NORM_EPS = 1e-3  # TensorFlow's, with which the ImageNet weights were trained
STRIDES = (8, 16, 32)  # pixels


class Starter(nn.Module):
    """The module: backbone, pyramid and head, for a number of classes."""

    score_thresh, nms_thresh, topk_candidates, detections_per_img = 0.005, 0.6, 1000, 100

    def __init__(self, outputs: int) -> None:
        super().__init__()
        body = IntermediateLayerGetter(efficientnet_lite0(), {"4": "8", "10": "16", "15": "32"})
        self.backbone = PyramidBackbone(body, [40, 112, 320], 96)
        self.head = Head(96, outputs)


class PyramidBackbone(nn.Module):
    """A backbone with a feature pyramid on its stages."""

    def __init__(self, body: nn.Module, in_channels: list[int], out_channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(in_channels, out_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = self.fpn(self.body(x))
        return features


class Head(nn.Module):
    """Class logits [B, A, classes] and distances to the four sides [B, A, 4], in strides, of all levels' places."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.class_tower, self.box_tower = _tower(channels), _tower(channels)
        self.classes = nn.Conv2d(channels, outputs, 3, padding=1)
        self.distances = nn.Conv2d(channels, 4, 3, padding=1)
        for layer in (self.classes, self.distances):
            nn.init.normal_(layer.weight, std=0.01)
        with torch.no_grad():
            self.classes.bias.fill_(-4.6)  # type: ignore[union-attr]  # one place in a hundred has an object
            self.distances.bias.fill_(3.0)  # type: ignore[union-attr]  # boxes of a size to overlap something

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        classes = [_rows(self.classes(self.class_tower(one))) for one in features]
        distances = [_rows(F.relu(self.distances(self.box_tower(one)))) for one in features]
        return {"cls_logits": torch.cat(classes, 1), "bbox_regression": torch.cat(distances, 1)}


def _tower(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(2):
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        layers += [conv, nn.GroupNorm(32, channels), nn.ReLU()]
    return nn.Sequential(*layers)


def _rows(output: Tensor) -> Tensor:
    """[B, K, h, w] as [B, h * w, K]."""
    return output.permute(0, 2, 3, 1).flatten(1, 2)


# -- what a family answers -------------------------------------------------------------------------------------------


def input_format(module: Any) -> InputFormat:
    """As the ImageNet weights were trained: (pixel - 127) / 128."""
    return InputFormat((127 / 255,) * 3, (128 / 255,) * 3, 32)


def features(module: Any, images: Tensor) -> list[Tensor]:
    """The pyramid's feature maps [B, 96, h, w], by level."""
    return list(module.backbone(images).values())


def losses(module: Any, inputs: Inputs) -> dict[str, Tensor]:
    """`classification` and `bbox_regression`, float32 scalars."""
    outputs, places, _ = _forward(module, inputs.images)
    with _float32(inputs):
        return aligned_losses(inputs, outputs, places)


def detections(module: Any, inputs: Inputs) -> list[dict[str, Tensor]]:
    """What is found in each image (`Family.detections`)."""
    outputs, places, counts = _forward(module, inputs.images)
    with _float32(inputs):
        return dense_detections(module, inputs, outputs, places, counts, decode=decode_distances)


def fixed(module: Any, images: Tensor, sizes: Tensor) -> Fixed:
    """The same in fixed shapes (`Family.fixed`)."""
    outputs, places, counts = _forward(module, images)
    candidates = dense_candidates(module, outputs, counts)
    return fixed_detections(module, outputs, places, candidates, sizes, decode_distances)


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As it is: the weights are odkit's own."""
    return dict(state)


def _float32(inputs: Inputs) -> torch.autocast:
    return torch.autocast(inputs.images.device.type, enabled=False)


def _forward(module: Any, images: Tensor) -> tuple[dict[str, Tensor], Tensor, list[int]]:
    """The head's outputs, the places they are of, and how many of them each level has.

    A place [A, 4] is a square of a stride's side, xyxy in pixels.
    """
    maps = features(module, images)
    outputs = {name: output.float() for name, output in module.head(maps).items()}
    places = [_places(one, stride) for one, stride in zip(maps, STRIDES, strict=True)]
    return outputs, torch.cat(places), [some.shape[0] for some in places]


def _places(feature: Tensor, stride: int) -> Tensor:
    height, width = feature.shape[-2:]
    y, x = (torch.arange(n, device=feature.device, dtype=torch.float32) * stride for n in (height, width))
    centres = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), 2).flatten(0, 1)
    return torch.cat((centres - stride / 2, centres + stride / 2), 1)


# -- EfficientNet-Lite0 ----------------------------------------------------------------------------------------------

# repeats, kernel, stride of the first, expansion, output channels
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def efficientnet_lite0() -> nn.Sequential:
    """EfficientNet-Lite0 up to its last block: children `stem` and `0` to `15`, as its authors count blocks.

    Padded evenly, where TensorFlow pads the right and the bottom: the same network, whose cells then stand where FCOS
    takes them to be.
    """
    network = nn.Sequential()
    network.add_module("stem", ConvNorm(3, 32, 3, stride=2))
    channels = 32
    for repeats, kernel, first_stride, expansion, out in _STAGES:
        for index in range(repeats):
            stride = first_stride if index == 0 else 1
            network.add_module(str(len(network) - 1), MBConv(channels, out, kernel, stride, expansion))
            channels = out
    return network


class MBConv(nn.Module):
    """Inverted residual block (Sandler et al., 2018, arXiv:1801.04381), ReLU6, without squeeze-excite."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = ConvNorm(channels, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, kernel, stride=stride, groups=inner)
        self.project = ConvNorm(inner, out, 1, active=False)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU6; a frozen norm is computed within the convolution, which saves two passes."""

    def __init__(
        self, channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out, eps=NORM_EPS)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        if isinstance(norm, FrozenBatchNorm2d):
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight = self.conv.weight * scale[:, None, None, None]
            x = self.conv._conv_forward(x, weight, norm.bias - norm.running_mean * scale)
        else:
            x = norm(self.conv(x))
        if not self.active:
            return x
        # in place it is taken apart and traced three times over where a graph is written, for half of all the time
        return F.relu6(x, inplace=not torch.compiler.is_exporting())
