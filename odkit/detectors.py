"""The catalogue of detectors: build, save and load one; where its weights come from.

A Detector wraps one of torchvision's detection modules and keeps its contract (Torchvision documentation, "Object
Detection": images and targets in, a dict of losses out while training, a list of prediction dicts in evaluation),
with two differences that spare people the usual faults: class indices are 0-based on the outside whatever the module
wants inside, and images arrive already resized, so that training and prediction see the same pixels.
"""

import hashlib
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import torch
from torch import Tensor, nn
from torchvision.models import detection as tv
from torchvision.models import mobilenet_v3_small
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d

Target = dict[str, Tensor]
STARTER_WEIGHTS = Path(__file__).parent / "starter" / "starter.safetensors"


class WeightsUnavailableError(RuntimeError):
    """Pre-trained weights are neither on disk nor to be had; the message gives the ways out."""


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
    frozen: tuple[
        str, ...
    ] = ()  # parameters that stay as pre-trained: torchvision's own choice for fine-tuning
    frozen_norm_eps: float | None = (
        None  # epsilon of batch norms frozen when pre-trained; None: they are trained
    )


# torchvision trains the last three stages of a pre-trained backbone and freezes what stands before
_RESNET_STEM = ("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1")
_MOBILENET_STEM = tuple(f"backbone.body.{i}." for i in range(7))
_SSD_STEM = tuple(f"backbone.features.{i}." for i in range(5))


def _starter(outputs: int) -> nn.Module:
    """FCOS (Tian et al., 2019, arXiv:1904.01355) on MobileNetV3-small (Howard et al., 2019, arXiv:1905.02244)."""
    stages = {"3": "stride8", "8": "stride16", "11": "stride32"}
    body = IntermediateLayerGetter(mobilenet_v3_small().features, stages)
    module: nn.Module = FCOS(
        _PyramidBackbone(body, [24, 48, 96], 96),
        num_classes=outputs,
        anchor_generator=AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3),
        head=FCOSHead(96, 1, outputs, num_convs=2),
        score_thresh=0.02,
    )
    return module


class _PyramidBackbone(nn.Module):
    def __init__(self, body: nn.Module, in_channels: list[int], out_channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(in_channels, out_channels)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = self.fpn(self.body(x))
        return features


def _torchvision(builder: Callable[..., nn.Module], **options: Any) -> Callable[[int], nn.Module]:
    return partial(_build_torchvision, builder, options)


def _build_torchvision(
    builder: Callable[..., nn.Module], options: Mapping[str, Any], outputs: int
) -> nn.Module:
    module: nn.Module = builder(weights=None, weights_backbone=None, num_classes=outputs, **options)
    return module


CATALOGUE: dict[str, CatalogueEntry] = {
    "starter": CatalogueEntry(
        build=_starter,
        summary="odkit's own small FCOS, weights bundled: fine-tunes in minutes on a CPU, with no network",
        background=False,
        image_size=320,
        optimizer="adamw",
        learning_rate=3e-3,
    ),
    "ssdlite320_mobilenet_v3_large": CatalogueEntry(
        build=_torchvision(tv.ssdlite320_mobilenet_v3_large, score_thresh=0.01, detections_per_img=100),
        summary="SSDlite: the fastest with COCO weights, for phones and small boards",
        weights=tv.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1,
        background=True,
        image_size=320,
        square=True,
        optimizer="adamw",
        learning_rate=1e-3,
    ),
    "ssd300_vgg16": CatalogueEntry(
        build=_torchvision(tv.ssd300_vgg16, score_thresh=0.01, detections_per_img=100),
        summary="SSD300: a classic one-stage detector",
        smallest=300,
        weights=tv.SSD300_VGG16_Weights.COCO_V1,
        background=True,
        image_size=300,
        square=True,
        optimizer="sgd",
        learning_rate=1e-3,
        frozen=_SSD_STEM,
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": CatalogueEntry(
        build=_torchvision(tv.fasterrcnn_mobilenet_v3_large_320_fpn, box_score_thresh=0.01),
        summary="Faster R-CNN at low resolution: two stages, still quick",
        weights=tv.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1,
        background=True,
        image_size=512,
        optimizer="sgd",
        learning_rate=0.02,
        frozen=_MOBILENET_STEM,
        frozen_norm_eps=0.0,
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": CatalogueEntry(
        build=_torchvision(tv.fasterrcnn_mobilenet_v3_large_fpn, box_score_thresh=0.01),
        summary="Faster R-CNN with a mobile backbone at full resolution",
        weights=tv.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1,
        background=True,
        image_size=1024,
        optimizer="sgd",
        learning_rate=0.02,
        frozen=_MOBILENET_STEM,
        frozen_norm_eps=0.0,
    ),
    "fasterrcnn_resnet50_fpn": CatalogueEntry(
        build=_torchvision(tv.fasterrcnn_resnet50_fpn, box_score_thresh=0.01),
        summary="Faster R-CNN R50-FPN: the reference two-stage detector",
        weights=tv.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
        background=True,
        image_size=1024,
        optimizer="sgd",
        learning_rate=0.02,
        frozen=_RESNET_STEM,
        frozen_norm_eps=0.0,
    ),
    "fasterrcnn_resnet50_fpn_v2": CatalogueEntry(
        build=_torchvision(tv.fasterrcnn_resnet50_fpn_v2, box_score_thresh=0.01),
        summary="Faster R-CNN v2: torchvision's most accurate (46.7 COCO AP by its authors); wants a GPU",
        weights=tv.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
        background=True,
        image_size=1024,
        optimizer="sgd",
        learning_rate=0.02,
        frozen=_RESNET_STEM,
    ),
    "retinanet_resnet50_fpn": CatalogueEntry(
        build=_torchvision(tv.retinanet_resnet50_fpn, score_thresh=0.01, detections_per_img=100),
        summary="RetinaNet R50-FPN: one stage, focal loss",
        weights=tv.RetinaNet_ResNet50_FPN_Weights.COCO_V1,
        background=False,
        image_size=1024,
        optimizer="sgd",
        learning_rate=0.01,
        frozen=_RESNET_STEM,
        frozen_norm_eps=0.0,
    ),
    "retinanet_resnet50_fpn_v2": CatalogueEntry(
        build=_torchvision(tv.retinanet_resnet50_fpn_v2, score_thresh=0.01, detections_per_img=100),
        summary="RetinaNet v2: the better recipe of the same",
        weights=tv.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1,
        background=False,
        image_size=1024,
        optimizer="adamw",
        learning_rate=1e-4,
        frozen=_RESNET_STEM,
    ),
    "fcos_resnet50_fpn": CatalogueEntry(
        build=_torchvision(tv.fcos_resnet50_fpn, score_thresh=0.01, detections_per_img=100),
        summary="FCOS R50-FPN: one stage, no anchors",
        weights=tv.FCOS_ResNet50_FPN_Weights.COCO_V1,
        background=False,
        image_size=1024,
        optimizer="sgd",
        learning_rate=0.01,
        frozen=_RESNET_STEM,
        frozen_norm_eps=1e-5,
    ),
}


def catalogue_entry(name: str) -> CatalogueEntry:
    """The entry of a detector.

    Raises:
        ValueError: No detector has that name; the message lists them and names the nearest.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = get_close_matches(name, CATALOGUE, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"no detector is called {name!r}{hint} There are: {', '.join(CATALOGUE)}")


def catalogue() -> list[dict[str, Any]]:
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


class Detector(nn.Module):
    """A detector with its class table: torchvision's contract with 0-based class indices.

    Attributes:
        name: Name in the catalogue.
        class_names: Class table; index i of a label is `class_names[i]`.
        image_size: Longer side in pixels that images are resized to before they come here.
        module: The torchvision module.
    """

    def __init__(self, name: str, class_names: Sequence[str], *, image_size: int | None = None) -> None:
        super().__init__()
        entry = catalogue_entry(name)
        if not class_names:
            raise ValueError("a detector needs at least one class name")
        self.name = name
        self.class_names = tuple(class_names)
        self.image_size = int(image_size or entry.image_size)
        if self.image_size < entry.smallest:
            raise ValueError(f"{name} needs images of {entry.smallest} pixels or more, not {self.image_size}")
        self.square = entry.square
        self.background = entry.background
        self.module = entry.build(len(self.class_names) + entry.background)
        self.module.transform = _ReadyBatch(self.module.transform)

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> Any:
        """Losses while training, predictions otherwise.

        Args:
            images: Float [3, H, W], 0 to 1, each already resized (`odkit.loading` does it); sizes may differ.
            targets: While training, one dict an image: `boxes` float32 [n, 4] xyxy in pixels of that resized
                image, `labels` int64 [n], 0-based.

        Returns:
            Training: dict of scalar losses by term. Evaluation: one dict an image, `boxes` float32 [n, 4],
            `scores` float32 [n] descending, `labels` int64 [n], 0-based.
        """
        if targets is not None:
            targets = [{**target, "labels": _shift(target["labels"], self.background)} for target in targets]
        output = self.module(images, targets)
        if isinstance(output, Mapping):
            return output
        return [{**found, "labels": _shift(found["labels"], self.background, back=True)} for found in output]

    def extra_repr(self) -> str:
        return f"{self.name}, classes={list(self.class_names)}, image_size={self.image_size}"

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        return (
            f"Detector {self.name!r}: {millions:.2f} million parameters, {self.image_size} px, "
            f"classes {', '.join(self.class_names)}"
        )


def _shift(labels: Tensor, background: bool, *, back: bool = False) -> Tensor:
    """The one place where 0-based class indices meet modules whose class 0 is the background."""
    if not background:
        return labels
    return labels - 1 if back else labels + 1


class _ReadyBatch(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's transform without its resizing: images come resized, and leave as one padded batch."""

    def __init__(self, original: GeneralizedRCNNTransform) -> None:
        # a batch of square images needs no padding; SSD's own transform pads to 1
        super().__init__(
            original.min_size,
            original.max_size,
            original.image_mean,
            original.image_std,
            size_divisible=original.size_divisible,
            fixed_size=original.fixed_size,
        )

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        return image, target

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        batch: Tensor = super().batch_images(images, size_divisible)
        return batch.contiguous(memory_format=torch.channels_last)


# -- building ------------------------------------------------------------------------------------------------------


def build_detector(
    name: str = "starter",
    class_names: Sequence[str] = (),
    *,
    weights: str | Path = "pretrained",
    image_size: int | None = None,
) -> Detector:
    """A detector for the given classes, pre-trained unless asked otherwise.

    The rows of the classification layers whose class names stand in the pre-trained table are carried over (names
    compared without regard to case); the others start as the module's authors start them.

    Args:
        name: A name of the catalogue.
        class_names: The classes to find.
        weights: "pretrained" (bundled, cached, or downloaded with its hash checked), "random", or the path of a
            detector file saved by odkit or of a `.pth` file as torchvision publishes it.
        image_size: Longer side in pixels that images are resized to; None: the catalogue's.

    Raises:
        ValueError: Unknown name, no classes, or weights that do not fit this detector.
        WeightsUnavailableError: The weights are neither on disk nor reachable; never silently from scratch.
    """
    entry = catalogue_entry(name)
    detector = Detector(name, class_names, image_size=image_size)
    if str(weights) == "random":
        return detector
    state, known_names = _pretrained_state(name, entry, weights)
    _load_carrying_rows(detector, state, known_names)
    if entry.frozen_norm_eps is not None:
        _freeze_batch_norms(detector.module, entry.frozen_norm_eps)
    freeze_stem(detector)
    return detector


def save_detector(detector: Detector, path: str | Path, *, half: bool = False) -> Path:
    """Weights, class table and settings as one `.safetensors` file: plain numbers, nothing that can run.

    Written to a temporary name, fsynced and renamed. `half=True` stores float16 (the batch norms' running figures
    stay float32).
    """
    from safetensors.torch import save

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {}
    for key, value in detector.module.state_dict().items():
        value = value.detach().to("cpu").contiguous()
        small = half and value.is_floating_point() and not key.endswith(("running_mean", "running_var"))
        state[key] = value.half() if small else value
    about = {"name": detector.name, "class_names": detector.class_names, "image_size": detector.image_size}
    write_atomically(path, save(state, metadata={"odkit": orjson.dumps({"format": 1, **about}).decode()}))
    return path


def load_detector(path: str | Path, *, device: str = "cpu") -> Detector:
    """A detector as `save_detector()` wrote it, in evaluation mode on `device`.

    A run folder is understood as the best detector in it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a detector saved by odkit.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "detector.safetensors"
    about, state = _read_safetensors(path)
    detector = shaped_like(about["name"], about["class_names"], state, image_size=about["image_size"])
    detector.module.load_state_dict(state)
    return detector.to(device).eval()


def shaped_like(
    name: str, class_names: Sequence[str], state: Mapping[str, Tensor], *, image_size: int | None = None
) -> Detector:
    """An untrained detector that a saved state dict fits: batch norms are frozen where they were when it was saved."""
    detector = Detector(name, class_names, image_size=image_size)
    entry = catalogue_entry(name)
    if entry.frozen_norm_eps is not None and not any(key.endswith("num_batches_tracked") for key in state):
        _freeze_batch_norms(detector.module, entry.frozen_norm_eps)
    return detector


def write_atomically(path: Path, data: bytes) -> None:
    """Bytes to a temporary name beside `path`, fsynced, then renamed: `path` holds the old or the new, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"no detector file at {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            about = orjson.loads((file.metadata() or {})["odkit"])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, KeyError, orjson.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a detector saved by odkit ({error})") from None
    return about, {key: v.float() if v.dtype == torch.float16 else v for key, v in state.items()}


def _load_carrying_rows(detector: Detector, state: dict[str, Tensor], known_names: Sequence[str]) -> None:
    """Load `state`, made for `known_names`, into a detector of other classes."""
    own = detector.module.state_dict()
    old = [_plain(name) for name in known_names]
    new = (["__background__"] if detector.background else []) + [_plain(n) for n in detector.class_names]
    rows = [(new.index(name), old.index(name)) for name in dict.fromkeys(new) if name in old]
    by_class = _class_layers(detector)
    merged = {}
    for key, value in own.items():
        if key not in state:
            if key.endswith("num_batches_tracked"):  # published from frozen batch norms, which do not count
                merged[key] = value
                continue
            raise ValueError(f"the weights do not fit {detector.name}: {key} is missing")
        given = state[key]
        if given.shape == value.shape and (old == new or key not in by_class):
            merged[key] = given
        elif given.shape[1:] == value.shape[1:] and given.shape[0] * len(new) == value.shape[0] * len(old):
            merged[key] = _carry_rows(key, given, value, len(old), len(new), rows)
        else:
            raise ValueError(
                f"the weights do not fit {detector.name}: {key} has the shape {list(given.shape)}, "
                f"expected {list(value.shape)}"
            )
    detector.module.load_state_dict(merged)


def _class_layers(detector: Detector) -> set[str]:
    """The parameters with a row for each class: those that another number of classes makes another shape."""
    with torch.device("meta"):  # shapes alone, no memory
        other = (
            catalogue_entry(detector.name)
            .build(len(detector.class_names) + detector.background + 1)
            .state_dict()
        )
    return {key for key, value in detector.module.state_dict().items() if value.shape != other[key].shape}


def _carry_rows(
    key: str, given: Tensor, own: Tensor, old: int, new: int, rows: Sequence[tuple[int, int]]
) -> Tensor:
    # Faster R-CNN's box layer counts class by class (four numbers each); classification layers anchor by anchor
    by_class = "bbox_pred" in key
    shape = (lambda t, n: (n, -1, *t.shape[1:])) if by_class else (lambda t, n: (-1, n, *t.shape[1:]))
    source, target = given.reshape(shape(given, old)), own.clone().reshape(shape(own, new))
    for to, origin in rows:
        if by_class:
            target[to] = source[origin]
        else:
            target[:, to] = source[:, origin]
    return target.reshape(own.shape)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().lower()) if name != "__background__" else name


def freeze_stem(detector: Detector) -> None:
    """Keep the first stages of a pre-trained backbone as they are, as torchvision does when fine-tuning."""
    frozen = catalogue_entry(detector.name).frozen
    for name, parameter in detector.module.named_parameters():
        if name.startswith(frozen):
            parameter.requires_grad_(False)


def _freeze_batch_norms(module: nn.Module, eps: float) -> None:
    """Batch norms with fixed figures: with a handful of images a batch, new ones would be noise."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            _freeze_batch_norms(child, eps)


# -- where weights come from ---------------------------------------------------------------------------------------


def _pretrained_state(
    name: str, entry: CatalogueEntry, weights: str | Path
) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict to start from and the class table of its rows."""
    if str(weights) == "pretrained" and entry.weights is None:
        path = STARTER_WEIGHTS
    elif str(weights) == "pretrained":
        path = find_weights(name)
    else:
        path = Path(weights)
        if not path.is_file():
            raise ValueError(
                f'weights must be "pretrained", "random" or the path of a file; there is no file {path}'
            )
    if path.suffix == ".safetensors":
        about, state = _read_safetensors(path)
        if about["name"] != name:
            raise ValueError(f"{path} holds a {about['name']} detector, not a {name}")
        background = ["__background__"] if entry.background else []
        return state, [*background, *about["class_names"]]
    if entry.weights is None:
        raise ValueError(f"{path}: {name} takes weights from a .safetensors file saved by odkit")
    # weights_only: the file may come from anywhere, and must not be able to run anything
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state, list(entry.weights.meta["categories"])


def weights_file(name: str) -> Path:
    """Where the pre-trained weights of a detector lie, or would lie, on this machine (torch's own cache)."""
    entry = catalogue_entry(name)
    if entry.weights is None:
        return STARTER_WEIGHTS
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(entry.weights.url).path).name


def find_weights(name: str, *, timeout: float = 5.0) -> Path:
    """The pre-trained weights of a detector as a file: from torch's cache, or downloaded into it, hash checked.

    The environment variable ODKIT_WEIGHTS_URL names a mirror to use in place of torchvision's address.

    Args:
        name: A name of the catalogue.
        timeout: Seconds to wait for the first connection before the network counts as absent.

    Raises:
        WeightsUnavailableError: Not cached and not to be had, or damaged.
    """
    entry = catalogue_entry(name)
    path = weights_file(name)
    if entry.weights is None:
        return path
    url = entry.weights.url
    if mirror := os.environ.get("ODKIT_WEIGHTS_URL"):
        url = f"{mirror.rstrip('/')}/{path.name}"
    wanted = re.search(r"-([0-9a-f]{8,})\.", path.name)
    prefix = wanted.group(1) if wanted else ""
    if path.is_file():
        if _sha256(path).startswith(prefix):
            return path
        raise WeightsUnavailableError(
            f"{path} is damaged: its SHA-256 does not begin with {prefix}. Delete it and try again."
        )
    try:
        _require_host(url, timeout)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=True)
    except (OSError, RuntimeError) as error:
        raise WeightsUnavailableError(
            f"The pre-trained weights of {name} are not on this machine and could not be downloaded ({error}). "
            "Three ways out:\n"
            f"  1. connect to the network (or set HTTPS_PROXY, or ODKIT_WEIGHTS_URL to a mirror) and try again;\n"
            f"  2. fetch {entry.weights.url} elsewhere and put it at {path};\n"
            '  3. use detector="starter", whose weights are bundled, or weights="random" to train from scratch.'
        ) from error
    return path


def _require_host(url: str, timeout: float) -> None:
    """Fail in seconds, not minutes, where there is no network."""
    parts = urlsplit(url)
    if os.environ.get(f"{parts.scheme}_proxy") or os.environ.get(f"{parts.scheme.upper()}_PROXY"):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), timeout=timeout).close()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
