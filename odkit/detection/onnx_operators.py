"""odkit's own two operations (`fixed.py`) in ONNX's words, for the exporter."""

from collections.abc import Sequence
from typing import Any

import onnxscript
import torch

from odkit.detection import fixed  # noqa: F401  (they are registered there)

INT32, BOOL = 6, 9  # ONNX's numbers for them
op: Any = onnxscript.opset18  # its annotations are of other numbers than its functions take


def _ints(*values: int) -> Any:
    return op.Constant(value_ints=values)


def _suppress(boxes: Any, scores: Any, overlap: float, least: float, most: int) -> Any:
    found = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, _ints(1)),  # of one class
        _ints(most),
        op.Constant(value_floats=[overlap]),
        op.Constant(value_floats=[least]),
    )
    places = op.Gather(found, _ints(0, 2), axis=1)  # [n, 2] image and box
    nothing = op.Expand(op.Constant(value_float=-1.0), op.Shape(scores))
    return op.ScatterND(nothing, places, op.GatherND(scores, places))


def _pool(
    maps: Sequence[Any], boxes: Any, levels: Any, scales: Sequence[float], side: int, sampling: int
) -> Any:
    rows = op.Shape(boxes, start=0, end=2)
    count = op.Squeeze(op.Shape(boxes, start=0, end=1), _ints(0))
    images = op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1))
    images = op.Reshape(op.Expand(op.Unsqueeze(images, _ints(1)), rows), _ints(-1))
    flat = op.Reshape(boxes, _ints(-1, 4))
    channels = op.Shape(maps[0], start=1, end=2)
    shape = op.Concat(op.ReduceProd(rows, keepdims=1), channels, _ints(side, side), axis=0)
    pooled = op.Expand(op.Constant(value_float=0.0), shape)
    for level, (one, scale) in enumerate(zip(maps, scales, strict=True)):
        here = op.Reshape(op.NonZero(op.Equal(levels, op.Constant(value_int=level))), _ints(-1))
        some = op.RoiAlign(
            one,
            op.Gather(flat, here, axis=0),
            op.Gather(images, here, axis=0),
            coordinate_transformation_mode="output_half_pixel",
            mode="avg",
            output_height=side,
            output_width=side,
            sampling_ratio=sampling,
            spatial_scale=scale,
        )
        pooled = op.ScatterND(pooled, op.Unsqueeze(here, _ints(1)), some)
    return pooled


def _all_true(values: Any) -> Any:
    """What transformers asks in checks of its inputs, which no graph needs and the exporter does not know."""
    return op.Cast(op.ReduceMin(op.Cast(values, to=INT32), keepdims=0), to=BOOL)


TRANSLATIONS: dict[Any, Any] = {
    torch.ops.odkit.suppress.default: _suppress,
    torch.ops.odkit.pool.default: _pool,
    torch.ops.aten._is_all_true.default: _all_true,
}
"""Operators to the functions that write them."""
