"""The starter: a small FCOS whose weights are in the package."""

from pathlib import Path

from torch import nn
from torchvision.models import mobilenet_v3_small
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead

from odkit.detection.torchvision import PyramidBackbone

STARTER_WEIGHTS = Path(__file__).parent / "starter.safetensors"


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
