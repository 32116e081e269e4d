"""The starter: odkit's own small FCOS, whose weights are in the package (tools/starter/ makes them)."""

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops import FeaturePyramidNetwork


def build_starter(outputs: int) -> nn.Module:
    """FCOS (Tian et al., 2019, arXiv:1904.01355) on MobileNetV3-small (Howard et al., 2019, arXiv:1905.02244)."""
    stages = {"3": "stride8", "8": "stride16", "11": "stride32"}
    body = IntermediateLayerGetter(mobilenet_v3_small().features, stages)
    module: nn.Module = FCOS(
        PyramidBackbone(body, [24, 48, 96], 96),
        num_classes=outputs,
        anchor_generator=AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3),
        head=FCOSHead(96, 1, outputs, num_convs=2),
        score_thresh=0.02,
    )
    return module


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
