"""The catalogue of detectors: one entry each, with how it is built, its weights, sizes and what it was trained with."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from safetensors import safe_open
from torch import nn
from torchvision.models import detection as tv

from odkit.detection import dfine, starter, torchvision
from odkit.detection.family import Family, Published
from odkit.detection.torchvision import MOBILENET_STEM, RESNET_STEM, SSD_STEM, from_torchvision
from odkit.detection.weights_cache import STARTER_WEIGHTS, named_hash
from odkit.system import InputError

# Its README says of them too that the terms of the data may apply ("Pre-trained Model License").
TORCHVISION_WEIGHTS = "BSD-3-Clause, see torchvision"


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """What the catalogue knows of a detector."""

    build: Callable[..., nn.Module]  # called with the number of outputs its classification layer shall have
    family: Family = torchvision  # what its module has in common with others
    summary: str  # one line for a person choosing
    weights: Any = None  # published (COCO), described as torchvision does it; None: bundled with odkit
    code_licence: str = "BSD-3-Clause"  # of who wrote the layers
    weights_licence: str = TORCHVISION_WEIGHTS  # of who trained them
    background: bool  # True where the module's class 0 is the background
    image_size: int  # default length of the longer side in pixels
    smallest: int = 64  # the shortest longer side, in pixels, that its layers can take
    square: bool = False  # True where the module was made for square images: sides are stretched, not padded
    optimizer: str  # "adamw" or "sgd"
    learning_rate: float  # at a batch of 16 images
    backbone_rate: float = 1.0  # factor on it for the backbone, where that is pre-trained
    weight_decay: float | None = None  # None: the optimizer's usual one
    heavy: bool = False  # True where an epoch of a few hundred images takes a CPU hours
    # parameters that stay as pre-trained: the authors' own choice for fine-tuning
    frozen: tuple[str, ...] = ()
    # epsilon of the backbone's batch norms, frozen when pre-trained, the authors' own; None: they are trained
    frozen_norm_eps: float | None = None

    @property
    def file_name(self) -> str:
        """What the file of the published weights is called on this machine and on a mirror; "": they are bundled."""
        if self.weights is None:
            return ""
        if isinstance(self.weights, Published):
            return self.weights.file_name
        return Path(urlsplit(self.weights.url).path).name

    @property
    def sha256(self) -> str:
        """The digits that the SHA-256 of that file begins with; "" where none are known."""
        if isinstance(self.weights, Published):
            return self.weights.sha256
        return named_hash(Path(self.file_name))


# COCO's 80 classes in its order, without the background and the numbers that it left free.
COCO = [
    name
    for name in tv.FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    if name not in ("__background__", "N/A")
]

# What D-FINE's entries have in common. Its authors trained on images stretched to a square of 640 pixels, and it
# counts positions in shares of the image's sides: padding would be foreign to it. The weights are those trained on COCO
# alone, which its authors give under Apache-2.0; those that saw Objects365 first they do not (Peterande/D-FINE,
# issue 357), but a file of them can be named.
DFINE: dict[str, Any] = {
    "family": dfine,
    "code_licence": "Apache-2.0",
    "weights_licence": "Apache-2.0",
    "background": False,
    "image_size": 640,
    "square": True,
    "optimizer": "adamw",
    "frozen_norm_eps": 1e-5,
}

CATALOGUE: dict[str, CatalogueEntry] = {
    "starter": CatalogueEntry(
        build=starter.Starter,
        family=starter,
        summary="odkit's own small detector, weights bundled: fine-tunes in minutes on a CPU, with no network",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0",
        background=False,
        image_size=320,
        optimizer="adamw",
        learning_rate=5e-4,
        frozen=starter.STEM,
        frozen_norm_eps=starter.NORM_EPS,
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
    "dfine_nano": CatalogueEntry(
        build=dfine.dfine("nano"),
        **DFINE,
        summary="D-FINE nano, a DETR: more accurate than RetinaNet v2 at a tenth of its size; trains on a CPU",
        # seen alike in four places that fetched it, with its size in bytes
        weights=dfine.published(
            "nano",
            sha256="19e06bdc873da819920a8d373b879721a5b9759d822f8213220bb09abbdab58b",
            ap=42.8,
            parameters=3_782_693,
            class_names=COCO,
        ),
        learning_rate=3e-4,
        backbone_rate=0.5,
        weight_decay=1e-4,
    ),
    "dfine_small": CatalogueEntry(
        build=dfine.dfine("small"),
        **DFINE,
        summary="D-FINE small: more accurate than any of torchvision's, and quicker; wants a GPU",
        weights=dfine.published(
            "small",
            sha256="a144baff3a27bfd538fe37b11fa8d4fca5744b8c054b5301e7c699a1379cd18f",
            ap=48.5,
            parameters=10_321_877,
            class_names=COCO,
        ),
        heavy=True,
        learning_rate=1.8e-4,
        backbone_rate=0.5,
        weight_decay=1.25e-4,
    ),
    "dfine_medium": CatalogueEntry(
        build=dfine.dfine("medium"),
        **DFINE,
        summary="D-FINE medium: wants a GPU",
        # known by its first digits alone, as torchvision's files are
        weights=dfine.published(
            "medium", sha256="5a53154f", ap=52.3, parameters=19_590_064, class_names=COCO
        ),
        heavy=True,
        learning_rate=1.8e-4,
        backbone_rate=0.1,
        weight_decay=1.25e-4,
    ),
    "dfine_large": CatalogueEntry(
        build=dfine.dfine("large"),
        **DFINE,
        summary="D-FINE large: the most accurate here; wants a GPU; download its weights yourself",
        weights=dfine.published("large", sha256="", ap=54.0, parameters=31_289_848, class_names=COCO),
        heavy=True,
        learning_rate=1.8e-4,
        backbone_rate=0.05,
        weight_decay=1.25e-4,
        frozen=(dfine.EMBEDDER,),
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
    """The catalogue as rows.

    Returns:
        Name, summary, image size in pixels, COCO AP by the authors (0 to 1), parameters, the weights' file, and the
        licences of code and of weights.
    """
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
                "parameters": meta["num_params"] if meta else _parameters(STARTER_WEIGHTS),
                "weights": entry.file_name or "bundled",
                "code_licence": entry.code_licence,
                "weights_licence": entry.weights_licence,
            }
        )
    return rows


def _parameters(path: Path) -> int:
    """How many parameters a detector file has: all its numbers but the running figures of batch norms."""
    with safe_open(str(path), framework="numpy") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118  (not a dict)
    figures = ("running_mean", "running_var", "num_batches_tracked")
    return sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(figures))
