"""A detector with its class table: build, save and load one.

A Detector wraps a detection module of any family and keeps torchvision's contract (Torchvision documentation, "Object
Detection": images and targets in, a dict of losses out while training, a list of prediction dicts in evaluation),
with two differences that spare people the usual faults: class indices are 0-based on the outside whatever the module
wants inside, and images arrive already resized, so that training and prediction see the same pixels.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from odkit.data import Predictions
from odkit.detection import imported
from odkit.detection.batch import Batch
from odkit.detection.catalogue import catalogue_entry
from odkit.detection.devices import pick_device
from odkit.detection.family import ClassRows, Family, backbone
from odkit.detection.onnx_detector import OnnxDetector
from odkit.detection.pixels import prepare, stack
from odkit.detection.tiles import Tiling
from odkit.detection.weights import pretrained_state, read_safetensors, read_tensors, require_file
from odkit.system import InputError, write_file

Target = dict[str, Tensor]


class Detector(nn.Module):
    """A detector with its class table: torchvision's contract with 0-based class indices.

    Attributes:
        name: Name in the catalogue.
        class_names: Class table; index i of a label is `class_names[i]`.
        image_size: Longer side in pixels that images are resized to before they come here.
        tiling: The tiles that images are cut into before that, as in training; None: they are seen whole.
        module: The module of its family.
    """

    def __init__(self, name: str, class_names: Sequence[str], *, image_size: int | None = None) -> None:
        super().__init__()
        entry = catalogue_entry(name)
        if not class_names:
            raise InputError("a detector needs at least one class name")
        self.name = name
        self.class_names = tuple(class_names)
        self.image_size = int(image_size or entry.image_size)
        if self.image_size < entry.smallest:
            raise InputError(f"{name} needs images of {entry.smallest} pixels or more, not {self.image_size}")
        self.tiling: Tiling | None = None
        self.square = entry.square
        self.background = entry.background
        self.module = entry.build(len(self.class_names) + entry.background)
        self.mean, self.std, self.divisible = self.family.input_format(self.module)

    @property
    def family(self) -> Family:
        """What the module has in common with others of its kind (no attribute: a copy would copy it too)."""
        return catalogue_entry(self.name).family

    def forward(self, images: Batch | Sequence[Tensor], targets: Sequence[Target] | None = None) -> Any:
        """Losses while training, predictions otherwise.

        Args:
            images: A batch as data workers pack it, its targets included; or float [3, H, W] images, 0 to 1, each
                already resized (`DetectionImages` does it), whose sizes may differ.
            targets: With such images while training, one dict an image: `boxes` float32 [n, 4] xyxy in pixels of
                that resized image, `labels` int64 [n], 0-based.

        Returns:
            Training: dict of scalar losses by term. Evaluation: one dict an image, `boxes` float32 [n, 4],
            `scores` float32 [n] descending, `labels` int64 [n], 0-based. All of it float32, under autocast too.
        """
        device = next(self.parameters()).device
        if isinstance(images, Batch):
            inputs = prepare(images, device, mean=self.mean, std=self.std)
        else:
            inputs = stack(images, targets, device, mean=self.mean, std=self.std, divisible=self.divisible)
        if self.training:
            inputs = inputs._replace(labels=_shift(inputs.labels, self.background))
            with _fixed_norms(self.module, when=len(inputs.sizes) < 2):
                return self.family.losses(self.module, inputs)
        found = self.family.detections(self.module, inputs)
        return [{**one, "labels": _shift(one["labels"], self.background, back=True)} for one in found]

    def predict(self, source: Any, **how: Any) -> Predictions:
        """What this detector finds in pictures, videos, a dataset: `odkit.predict(detector, source)`, see there.

        Args:
            source: A path, folder, pattern, array, tensor, PIL image, video, camera, Dataset, or a list.
            **how: `score`, `tiles`, `batch_size`, `num_workers`, `device`, `precision`, `stop`.
        """
        from odkit.detection.inference import predict

        return predict(self, source, **how)

    def extra_repr(self) -> str:
        return f"{self.name}, classes={list(self.class_names)}, image_size={self.image_size}"

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        tiles = f" from tiles of {self.tiling.size} px" if self.tiling else ""
        return (
            f"Detector {self.name!r}: {millions:.2f} million parameters, {self.image_size} px{tiles}, "
            f"classes {', '.join(self.class_names)}"
        )


# -- building ----------------------------------------------------------------------------------------------------------


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
            detector file saved by odkit, or of a `.pth` file as torchvision publishes it or its reference scripts save
            it (of other classes than COCO's, whose names it does not say, no rows are carried over).
        image_size: Longer side in pixels that images are resized to; None: the catalogue's.

    Raises:
        InputError: Unknown name, no classes, or weights that do not fit this detector.
        WeightsUnavailableError: The weights are neither on disk nor reachable; never silently from scratch.
    """
    entry = catalogue_entry(name)
    detector = Detector(name, class_names, image_size=image_size)
    if str(weights) == "random":
        return detector
    state, known_names = pretrained_state(name, entry, weights)
    _load_carrying_rows(detector, state, known_names)
    freeze_norms(detector)
    freeze_stem(detector)
    return detector


def import_detector(
    path: str | Path,
    *,
    detector: str,
    class_names: Sequence[str],
    image_size: int | None = None,
    norm_eps: float | None = None,
) -> Detector:
    """A detector from weights that another program trained: ready to predict, to evaluate, and to be saved.

    Understood are state dicts and checkpoints as `torch.save` writes them (torchvision's reference scripts: what is
    under "model", or "model_ema" where averaged weights are there) and .safetensors files of transformers' D-FINE.
    Nothing in a file can run. The weights stay as they are: other thresholds apply (0.01 in place of torchvision's
    0.05), and images are resized to `image_size`.

    Args:
        path: The weights.
        detector: A name of the catalogue: what they are the weights of.
        class_names: Their classes, in the order that they were trained in, without the background. If labels were
            counted from 1 for a detector without a background (RetinaNet and FCOS by torchvision's scripts),
            "__background__" in front says so.
        image_size: Longer side in pixels that images are resized to; None: the catalogue's.
        norm_eps: Epsilon of batch norms that were frozen in training; None: 0 for torchvision's detectors that start
            from its COCO weights of 2019 and 2020, 1e-5 otherwise. A Faster R-CNN R50 or RetinaNet R50 of the first
            version that began from a backbone alone has 1e-5.

    Raises:
        MissingFileError: There is no such file.
        InputError: It is damaged or not of that detector, the number of classes is another, or weights are not finite;
            the message says what fits.
    """
    path, entry = Path(path), catalogue_entry(detector)
    require_file(path)
    state = read_tensors(path)[1] if path.suffix == ".safetensors" else imported.read_torch_file(path)
    state = imported.check_numbers(path, entry.family.from_published(state))
    outputs = imported.require_fit(path, detector, state)
    table = imported.table_of(path, entry, outputs, class_names)
    names = [name for name in table if name != "__background__"]
    made = Detector(detector, names, image_size=image_size)
    frozen = not any(
        key.startswith(made.family.BACKBONE) and key.endswith(imported.UNCOUNTED) for key in state
    )
    own_eps = entry.frozen_norm_eps
    if frozen and norm_eps is not None and own_eps is not None:
        for key in [
            key for key in state if key.startswith(made.family.BACKBONE) and key.endswith("running_var")
        ]:
            state[key] = state[key] + (norm_eps - own_eps)  # what the layer adds to it anyway
    _load_carrying_rows(made, state, table)
    if frozen:
        freeze_norms(made)
    return made.eval()


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
    if detector.tiling is not None:
        about["tiles"] = detector.tiling._asdict()
    write_file(path, save(state, metadata={"odkit": orjson.dumps({"format": 1, **about}).decode()}))
    return path


def load_detector(path: str | Path, *, device: str | torch.device = "auto") -> Detector | OnnxDetector:
    """A detector as `save_detector()` wrote it, in evaluation mode; or as `od.export()` did.

    Args:
        path: Detector file; a run folder is understood as the best detector in it. A file that ends in `.onnx` is
            opened by onnxruntime, one that ends in `.xml` by OpenVINO.
        device: Where it is put: "auto" (what training would choose), "cpu", "cuda", "cuda:1", "mps".

    Raises:
        MissingFileError: There is no such file.
        InputError: The file is not a detector saved by this odkit, or there is no such device.
    """
    path = Path(path)
    if path.suffix in (".onnx", ".xml"):
        return OnnxDetector(path, device=device)
    place = pick_device(device)
    if path.is_dir():
        path = path / "detector.safetensors"
    if path.is_file() and path.suffix in (".pth", ".pt", ".ckpt"):
        raise InputError(
            f"{path} is no detector saved by odkit. Weights of others, whose class names you know, become one by "
            f"`odkit import-weights {path} --detector NAME --classes ...` or od.import_detector"
        )
    about, state = read_safetensors(path)
    state = imported.check_numbers(path, state)
    detector = shaped_like(
        about["name"], about["class_names"], state, image_size=about["image_size"], origin=path
    )
    detector.module.load_state_dict(state)
    detector.tiling = Tiling(**about["tiles"]) if about.get("tiles") else None
    return detector.to(place).eval()


def shaped_like(
    name: str,
    class_names: Sequence[str],
    state: Mapping[str, Tensor],
    *,
    image_size: int | None = None,
    origin: str | Path = "the checkpoint",
) -> Detector:
    """An untrained detector that a saved state dict fits: batch norms are frozen where they were when it was saved.

    Raises:
        InputError: It fits none; the message names its origin.
    """
    try:
        # a layer has a row for each class: names without number would build one that fills the memory
        if len(class_names) > max((value.shape[0] for value in state.values() if value.ndim), default=0):
            raise InputError(imported.misfit(name, len(class_names), state))
        detector = Detector(name, class_names, image_size=image_size)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from None
    own = [key for key in state if key.startswith(detector.family.BACKBONE)]
    if not any(key.endswith(imported.UNCOUNTED) for key in own):
        freeze_norms(detector)
    shapes = {key: tensor.shape for key, tensor in detector.module.state_dict().items()}
    if shapes != {key: tensor.shape for key, tensor in state.items()}:
        raise InputError(f"{origin}: {imported.misfit(name, len(class_names), state)}")
    return detector


def freeze_norms(detector: Detector) -> None:
    """Fix the figures of the backbone's batch norms, on the CPU, where the catalogue says that fine-tuning does."""
    eps = catalogue_entry(detector.name).frozen_norm_eps
    if eps is not None:
        _freeze_batch_norms(backbone(detector.family, detector.module), eps)


def freeze_stem(detector: Detector) -> None:
    """Keep the first stages of a pre-trained backbone as they are, as torchvision does when fine-tuning."""
    frozen = catalogue_entry(detector.name).frozen
    for name, parameter in detector.module.named_parameters():
        if name.startswith(frozen):
            parameter.requires_grad_(False)


# -- inside the module -----------------------------------------------------------------------------------------------


def _shift(labels: Tensor, background: bool, *, back: bool = False) -> Tensor:
    """The one place where 0-based class indices meet modules whose class 0 is the background; -1 stays: no box."""
    if not background:
        return labels
    return labels - 1 if back else labels + (labels >= 0)


@contextmanager
def _fixed_norms(module: nn.Module, *, when: bool) -> Iterator[None]:
    """Inside, and `when` so, batch norms use their running figures: a single image has no batch to take them from."""
    norms = [
        one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.training
    ]
    for norm in norms if when else ():
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


def _freeze_batch_norms(module: nn.Module, eps: float) -> None:
    """Batch norms with fixed figures: with a handful of images a batch, new ones would be noise."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            _freeze_batch_norms(child, eps)


# -- weights made for other classes ------------------------------------------------------------------------------------


def _load_carrying_rows(detector: Detector, state: dict[str, Tensor], known_names: Sequence[str]) -> None:
    """Load `state`, made for `known_names`, into a detector of other classes."""
    own = detector.module.state_dict()
    old = [_plain(name) for name in known_names]
    new = (["__background__"] if detector.background else []) + [_plain(n) for n in detector.class_names]
    pairs = [(new.index(name), old.index(name)) for name in dict.fromkeys(new) if name in old]
    rows = ClassRows(len(old), len(new), pairs)
    by_class = _class_layers(detector)
    merged = {}
    for key, value in own.items():
        if key not in state:
            if key.endswith("num_batches_tracked"):  # published from frozen batch norms, which do not count
                merged[key] = value
                continue
            raise InputError(f"the weights do not fit {detector.name}: {key} is missing")
        given = state[key]
        if given.shape == value.shape and (old == new or key not in by_class):
            merged[key] = given
        elif (carried := detector.family.carry_rows(key, given, value, rows)) is not None:
            merged[key] = carried
        else:
            raise InputError(
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


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().lower()) if name != "__background__" else name
