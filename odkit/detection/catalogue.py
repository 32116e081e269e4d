"""The catalogue of detectors: one entry each, with how it is built, its weights, sizes and what it was trained with."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from torch import nn
from torchvision.models import detection as tv

from odkit.detection.starter import build_starter
from odkit.detection.torchvision import MOBILENET_STEM, RESNET_STEM, SSD_STEM, from_torchvision
from odkit.system import InputError


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """What the catalogue knows of a detector."""

    build: Callable[..., nn.Module]  # called with the number of outputs its classification layer shall have
    summary: str  # one line for a person choosing
    weights: Any = None  # torchvision's weights entry (COCO); None: bundled with odkit
    background: bool  # True where the module's class 0 is the background
    image_size: int  # default length of the longer side in pixels
    smallest: int = 64  # the shortest longer side, in pixels, that its layers can take
    square: bool = False  # True where the module was made for square images: sides are stretched, not padded
    optimizer: str  # "adamw" or "sgd"
    learning_rate: float  # at a batch of 16 images
    heavy: bool = False  # True where an epoch of a few hundred images takes a CPU hours
    # parameters that stay as pre-trained: torchvision's own choice for fine-tuning
    frozen: tuple[str, ...] = ()
    # epsilon of batch norms frozen when pre-trained, torchvision's own; None: they are trained
    frozen_norm_eps: float | None = None


CATALOGUE: dict[str, CatalogueEntry] = {
    "starter": CatalogueEntry(
        build=build_starter,
        summary="odkit's own small FCOS, weights bundled: fine-tunes in minutes on a CPU, with no network",
        background=False,
        image_size=320,
        optimizer="adamw",
        learning_rate=3e-3,
    ),
    "ssdlite320_mobilenet_v3_large": CatalogueEntry(
        build=from_torchvision(tv.ssdlite320_mobilenet_v3_large, score_thresh=0.01, detections_per_img=100),
        summary="SSDlite: the fastest with COCO weights, for phones and small boards",
        weights=tv.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1,
        background=True,
        image_size=320,
        square=True,
        optimizer="adamw",
        learning_rate=1e-3,
    ),
    "ssd300_vgg16": CatalogueEntry(
        build=from_torchvision(tv.ssd300_vgg16, score_thresh=0.01, detections_per_img=100),
        summary="SSD300: a classic one-stage detector",
        smallest=300,
        weights=tv.SSD300_VGG16_Weights.COCO_V1,
        background=True,
        image_size=300,
        square=True,
        heavy=True,
        optimizer="sgd",
        learning_rate=1e-3,
        frozen=SSD_STEM,
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": CatalogueEntry(
        build=from_torchvision(tv.fasterrcnn_mobilenet_v3_large_320_fpn, box_score_thresh=0.01),
        summary="Faster R-CNN at low resolution: two stages, still quick",
        weights=tv.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1,
        background=True,
        image_size=512,
        optimizer="sgd",
        learning_rate=0.02,
        frozen=MOBILENET_STEM,
        frozen_norm_eps=1e-5,
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": CatalogueEntry(
        build=from_torchvision(tv.fasterrcnn_mobilenet_v3_large_fpn, box_score_thresh=0.01),
        summary="Faster R-CNN with a mobile backbone at full resolution",
        weights=tv.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1,
        background=True,
        image_size=1024,
        optimizer="sgd",
        learning_rate=0.02,
        frozen=MOBILENET_STEM,
        frozen_norm_eps=1e-5,
    ),
    "fasterrcnn_resnet50_fpn": CatalogueEntry(
        build=from_torchvision(tv.fasterrcnn_resnet50_fpn, box_score_thresh=0.01),
        summary="Faster R-CNN R50-FPN: the reference two-stage detector",
        weights=tv.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
        background=True,
        image_size=1024,
        heavy=True,
        optimizer="sgd",
        learning_rate=0.02,
        frozen=RESNET_STEM,
        frozen_norm_eps=0.0,
    ),
    "fasterrcnn_resnet50_fpn_v2": CatalogueEntry(
        build=from_torchvision(tv.fasterrcnn_resnet50_fpn_v2, box_score_thresh=0.01),
        summary="Faster R-CNN v2: torchvision's most accurate (46.7 COCO AP by its authors); wants a GPU",
        weights=tv.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
        background=True,
        image_size=1024,
        heavy=True,
        optimizer="sgd",
        learning_rate=0.02,
        frozen=RESNET_STEM,
    ),
    "retinanet_resnet50_fpn": CatalogueEntry(
        build=from_torchvision(tv.retinanet_resnet50_fpn, score_thresh=0.01, detections_per_img=100),
        summary="RetinaNet R50-FPN: one stage, focal loss",
        weights=tv.RetinaNet_ResNet50_FPN_Weights.COCO_V1,
        background=False,
        image_size=1024,
        heavy=True,
        optimizer="sgd",
        learning_rate=0.01,
        frozen=RESNET_STEM,
        frozen_norm_eps=0.0,
    ),
    "retinanet_resnet50_fpn_v2": CatalogueEntry(
        build=from_torchvision(tv.retinanet_resnet50_fpn_v2, score_thresh=0.01, detections_per_img=100),
        summary="RetinaNet v2: the better recipe of the same",
        weights=tv.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1,
        background=False,
        image_size=1024,
        heavy=True,
        optimizer="adamw",
        learning_rate=1e-4,
        frozen=RESNET_STEM,
    ),
    "fcos_resnet50_fpn": CatalogueEntry(
        build=from_torchvision(tv.fcos_resnet50_fpn, score_thresh=0.01, detections_per_img=100),
        summary="FCOS R50-FPN: one stage, no anchors",
        weights=tv.FCOS_ResNet50_FPN_Weights.COCO_V1,
        background=False,
        image_size=1024,
        heavy=True,
        optimizer="sgd",
        learning_rate=0.01,
        frozen=RESNET_STEM,
        frozen_norm_eps=1e-5,
    ),
}


def catalogue_entry(name: str) -> CatalogueEntry:
    """The entry of a detector.

    Raises:
        InputError: No detector has that name; the message lists them and names the nearest.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = get_close_matches(name, CATALOGUE, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise InputError(f"no detector is called {name!r}{hint} There are: {', '.join(CATALOGUE)}")


def list_detectors() -> list[dict[str, Any]]:
    """The catalogue as rows: name, summary, image size in pixels, COCO AP by torchvision (0 to 1), weights' file."""
    rows = []
    for name, entry in CATALOGUE.items():
        meta = entry.weights.meta if entry.weights else {}
        ap = meta.get("_metrics", {}).get("COCO-val2017", {}).get("box_map")
        rows.append(
            {
                "name": name,
                "summary": entry.summary,
                "image_size": entry.image_size,
                "coco_ap": ap / 100 if ap is not None else None,
                "parameters": meta.get("num_params"),
                "weights": Path(urlsplit(entry.weights.url).path).name if entry.weights else "bundled",
            }
        )
    return rows
