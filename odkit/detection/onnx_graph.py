"""A detector as an ONNX graph: pictures as bytes in, boxes, scores and labels out.

The graph normalizes, blanks the padding, finds and suppresses; what is left to do before it is resizing and padding.
torch writes it (`torch.onnx.export`, through `torch.export`); odkit's own two operations (`fixed.py`) are given here.

    images  uint8 [B, 3, H, W]   RGB, resized as the detector resizes, padded at the right and at the bottom
    sizes   int64 [B, 2]         width and height of each picture without its padding, in pixels
    boxes   float32 [B, M, 4]    xyxy in pixels of the resized pictures, the surest first
    scores  float32 [B, M]       0 where a row holds no detection
    labels  int64 [B, M]         0-based class indices; -1 where a row holds no detection
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson
import torch
from torch import Tensor, nn

from odkit.detection.catalogue import catalogue_entry
from odkit.detection.detector import Detector
from odkit.detection.dfine import MOST
from odkit.detection.fixed import Fixed
from odkit.detection.onnx_detector import KEY
from odkit.system import OdkitError, odkit_version

OPSET = 18  # ONNX 1.13; read by every onnxruntime since 1.14

NETWORK = (
    "network/"  # what the names of nodes begin with that hold no pixels, and may compute in less than float32
)
MOST_IMAGES = 1024  # a batch
MOST_STRIDES = 1024  # a side


class ExportError(OdkitError, RuntimeError):
    """A detector could not be made a file that does as it does; the message says what stood in the way."""


class Graph(nn.Module):
    """A detector in evaluation mode as a function of tensors alone."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.family, self.module, self.background = detector.family, detector.module, detector.background
        mean, std = (torch.tensor(values)[:, None, None] for values in (detector.mean, detector.std))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", mean / std)

    def forward(self, images: Tensor, sizes: Tensor) -> Fixed:
        normal = images.float() * self.get_buffer("scale") - self.get_buffer("shift")
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=images.device)[:, None] < sizes[:, 1, None, None]
        columns = torch.arange(width, device=images.device) < sizes[:, 0, None, None]
        found = self.family.fixed(self.module, normal * (rows & columns)[:, None], sizes)
        return found._replace(labels=(found.labels - int(self.background)).clamp(min=-1))


def onnx_graph(detector: Detector, about: Mapping[str, Any] | None = None) -> Any:
    """The graph of a detector (see above), with what there is to know of it as metadata.

    Batches may have any number of pictures. Where the detector takes pictures with their own proportions, so may be
    height and width any multiple of `divisible`; where it stretches them to a square, that has its image size.

    Args:
        detector: Left as it was found.
        about: More to know of it, for the metadata: names and values that JSON can hold.

    Returns:
        An `onnx.ModelProto`.

    Raises:
        ExportError: torch cannot write it; the message says why.
    """
    from torch.export import Dim

    from odkit.detection.onnx_operators import TRANSLATIONS

    was_training, device = detector.training, next(detector.parameters()).device
    height = width = -(-detector.image_size // detector.divisible) * detector.divisible
    batch = Dim("batch", min=1, max=MOST_IMAGES)
    images: dict[int, Any] = {0: batch}
    if not detector.square:
        step = detector.divisible
        # neither of the other: what is equal in the example would be equal in the graph
        height, width = ((-(-detector.image_size // step) + more) * step for more in (1, 2))
        images |= {
            2: step * Dim("rows", min=1, max=MOST_STRIDES),
            3: step * Dim("columns", min=1, max=MOST_STRIDES),
        }
    example = torch.zeros(2, 3, height, width, dtype=torch.uint8), torch.tensor([[width, height]] * 2)
    detector.to("cpu").eval()
    try:
        with _quietly(detector.name), torch.no_grad():
            graph = Graph(detector)
            detector(
                [torch.zeros(3, detector.image_size, detector.image_size)]
            )  # what torchvision's modules settle at their first picture
            program = torch.onnx.export(
                graph,
                example,
                dynamo=True,
                input_names=["images", "sizes"],
                output_names=["boxes", "scores", "labels"],
                dynamic_shapes={"images": images, "sizes": {0: batch}},
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                verbose=False,
            )
            assert program is not None
            model = program.model_proto
    finally:
        detector.to(device).train(was_training)
    for given in model.graph.input:  # torch falls back on less than was asked for without a word
        wanted = {"images": images, "sizes": {0: batch}}[given.name]
        if any(not given.type.tensor_type.shape.dim[axis].dim_param for axis in wanted):
            raise ExportError(
                f"torch writes {detector.name} for pictures of one number and size alone: something in it turns a "
                "symbol into a number"
            )
    _rename(model, detector)
    entry = catalogue_entry(detector.name)
    facts = {
        "format": 1,
        "odkit": odkit_version(),
        "detector": detector.name,
        "class_names": detector.class_names,
        "image_size": detector.image_size,
        "square": detector.square,
        "divisible": detector.divisible,
        "resize": "bilinear, antialiased",
        "mean": detector.mean,
        "std": detector.std,
        "scores": [0, 1],
        "tiles": detector.tiling._asdict() if detector.tiling else None,
        "precision": "fp32",
        "code_licence": entry.code_licence,
        "weights_licence": entry.weights_licence,
        **(about or {}),
    }
    model.metadata_props.add(key=KEY, value=orjson.dumps(facts).decode())
    return model


class Limits(NamedTuple):
    """What decides which detections of an image are kept, where the least difference may decide otherwise."""

    overlap: (
        float | None
    )  # the IoU above which a better box of a class suppresses another; None: nothing does
    least: float  # the score that must be exceeded
    most: int  # detections an image


def limits(detector: Detector) -> Limits:
    """By which limits a detector keeps what it finds."""
    module: Any = detector.module
    module = getattr(module, "roi_heads", module)
    if not hasattr(module, "nms_thresh"):
        return Limits(None, 0.0, MOST)
    return Limits(module.nms_thresh, module.score_thresh, module.detections_per_img)


def _rename(model: Any, detector: Detector) -> None:
    """Mark the nodes of the layers that hold no pixels, by name; and take out where the code lay that made it."""
    prefixes = tuple(f"module.{name}" for name in detector.family.LAYERS)
    for node in model.graph.node:
        scopes = {prop.key: prop.value for prop in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "")
        inside = any(f"'{prefix}" in scopes for prefix in prefixes)
        node.name = f"{NETWORK}{node.name}" if inside else node.name
        node.doc_string = ""
        del node.metadata_props[:]
    for kept in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del kept.metadata_props[:]
        kept.doc_string = ""
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.graph.name, model.producer_name, model.producer_version = "detector", "odkit", odkit_version()


@contextlib.contextmanager
def _quietly(name: str) -> Iterator[None]:
    """What the exporters print and warn of is kept, and shown where they fail."""
    said, level = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        if isinstance(error, OdkitError):
            raise
        last = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ExportError(
            f"torch cannot write {name} as an ONNX graph: {last[0] if last else type(error).__name__}\n"
            f"{said.getvalue()[-2000:]}".strip()
        ) from error
    finally:
        logging.disable(level)
