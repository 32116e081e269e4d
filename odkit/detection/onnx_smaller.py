"""Smaller files of a detector's graph: float16, and 8-bit layers fitted on pictures.

Only layers whose names say that they hold no pixels (`NETWORK`) are made smaller; boxes, suppression and normalizing
stay float32.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from odkit.data import Dataset
from odkit.detection.detector import Detector
from odkit.detection.loading import DetectionImages, evaluation_loader
from odkit.detection.onnx_detector import KEY
from odkit.detection.onnx_graph import NETWORK

LAYERS = ("Conv", "Gemm", "MatMul")  # what has weights
EIGHT_BIT = ("Conv", "Clip", "Relu", "Add", "MaxPool", "Resize")  # what is computed, or handed on, in 8 bits


def as_float16(model: Any) -> Any:
    """A graph (`onnx.ModelProto`) with float16 layers: half the size, for GPUs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = type(model)()
    copy.CopyFrom(model)
    kept = [node.name for node in copy.graph.node if not node.name.startswith(NETWORK)]
    with _quietly():
        half = convert_float_to_float16(copy, keep_io_types=True, node_block_list=kept)
    return _said(half, "fp16")


def as_int8(model: Any, detector: Detector, dataset: Dataset) -> Any:
    """A graph (`onnx.ModelProto`) with 8-bit convolutions, fitted on what they see in the pictures of a dataset.

    Weights have a scale for each channel and 7 of the 8 bits, since CPUs without VNNI add two products in 16 bits. The
    last convolutions stay float32: what they say is a score or a place.

    Source: onnxruntime's static quantization, onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
    """
    import onnx
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, _quietly():
        whole, plain, small = (Path(folder, name) for name in ("whole.onnx", "plain.onnx", "small.onnx"))
        whole.write_bytes(model.SerializeToString())
        options = SessionOptions()  # constants, batch norms among them, become weights
        options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(plain)
        options.log_severity_level = 3
        InferenceSession(str(whole), options, providers=["CPUExecutionProvider"])
        nodes = [node for node in onnx.load(plain).graph.node if node.name.startswith(NETWORK)]
        last = _last_layers(nodes)
        chosen = [node.name for node in nodes if node.op_type in EIGHT_BIT and node.name not in last]
        quantize_static(
            str(plain),
            str(small),
            _Pictures(detector, dataset),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(EIGHT_BIT),
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        made = onnx.load(small)
    used = {node.domain for node in made.graph.node} | {""}
    for index in reversed(range(len(made.opset_import))):
        if made.opset_import[index].domain not in used:  # onnxruntime lists all that it knows
            del made.opset_import[index]
    return _said(made, "int8")


class _Pictures:
    """A dataset's pictures as onnxruntime asks for them, one at a time."""

    def __init__(self, detector: Detector, dataset: Dataset) -> None:
        images = DetectionImages(
            dataset, image_size=detector.image_size, square=detector.square, tiling=detector.tiling
        )
        views = range(len(images.views.images))
        self.batches = iter(
            evaluation_loader(images, views, batch_size=1, num_workers=0, divisible=detector.divisible)
        )

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch.images.contiguous().numpy(), "sizes": batch.sizes}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (one := self.get_next()) is not None:
            yield one

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Onnxruntime may ask for a part of them; all of them come anyhow."""


def _last_layers(nodes: list[Any]) -> set[str]:
    """Names of the layers after which there is none, among nodes in their order."""
    leads: set[str] = set()  # values that lead to a layer
    last = set()
    for node in reversed(nodes):
        onward = any(output in leads for output in node.output)
        if node.op_type in LAYERS and not onward:
            last.add(node.name)
        if onward or node.op_type in LAYERS:
            leads.update(node.input)
    return last


def _said(model: Any, precision: str) -> Any:
    """The graph, whose metadata says its number format."""
    for prop in model.metadata_props:
        if prop.key == KEY:
            prop.value = orjson.dumps({**orjson.loads(prop.value), "precision": precision}).decode()
    return model


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what the converters print and log, which is about nodes that they leave as they are."""
    level, said = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
