"""Pure box functions on NumPy arrays.

Inside odkit a box is `xyxy`: left, top, right, bottom in absolute pixels of the upright image, float32, where
`0 <= x1 < x2 <= width` and the image's own corners are (0, 0) and (width, height). Every other convention is
converted here, once, at the border.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from odkit.system import InputError

Boxes = NDArray[np.float32]


def as_boxes(boxes: ArrayLike) -> Boxes:
    """Any array-like of boxes as float32 [N, 4]; an empty one becomes [0, 4].

    Raises:
        ValueError: The array cannot be read as rows of four numbers.
    """
    array = np.asarray(boxes, dtype=np.float32)
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise InputError(f"boxes must have the shape [N, 4], not {list(array.shape)}")
    return array


def rows_of(images: NDArray[Any], image: int) -> slice:
    """The rows that belong to one image.

    Args:
        images: Index of each row's image, integers [B], non-decreasing.
        image: The image's index.
    """
    # of the column's own type, or NumPy converts the whole column first
    first, last = np.searchsorted(images, np.array([image, image + 1], images.dtype))
    return slice(int(first), int(last))


def xywh_to_xyxy(boxes: ArrayLike) -> Boxes:
    """COCO's left, top, width, height in pixels to xyxy, float32 [N, 4]."""
    left, top, width, height = _columns(boxes)
    return _stack(left, top, left + width, top + height)


def xyxy_to_xywh(boxes: ArrayLike) -> NDArray[np.float64]:
    """Xyxy to COCO's left, top, width, height in pixels, float64 [N, 4] (so that the way back is exact)."""
    x1, y1, x2, y2 = _columns(boxes)
    return np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)


def cxcywh_to_xyxy(boxes: ArrayLike) -> Boxes:
    """Center x, center y, width, height to xyxy in the same unit, float32 [N, 4]."""
    cx, cy, width, height = _columns(boxes)
    return _stack(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)


def xyxy_to_cxcywh(boxes: ArrayLike) -> NDArray[np.float64]:
    """Xyxy to center x, center y, width, height in the same unit, float64 [N, 4]."""
    x1, y1, x2, y2 = _columns(boxes)
    return np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1)


def yolo_to_xyxy(boxes: ArrayLike, sizes: ArrayLike) -> Boxes:
    """YOLO's center x, center y, width, height as shares of the image (0 to 1) to xyxy, float32 [N, 4].

    Args:
        boxes: Array-like [N, 4].
        sizes: Width and height in pixels, [2] for all boxes or [N, 2] one a box.
    """
    cx, cy, width, height = _columns(boxes)
    image_width, image_height = _size_columns(sizes)
    return _stack(
        (cx - width / 2) * image_width,
        (cy - height / 2) * image_height,
        (cx + width / 2) * image_width,
        (cy + height / 2) * image_height,
    )


def xyxy_to_yolo(boxes: ArrayLike, sizes: ArrayLike) -> NDArray[np.float64]:
    """Xyxy to YOLO's relative center x, center y, width, height, float64 [N, 4]; `sizes` as in `yolo_to_xyxy`."""
    x1, y1, x2, y2 = _columns(boxes)
    image_width, image_height = _size_columns(sizes)
    return np.stack(
        [
            (x1 + x2) / 2 / image_width,
            (y1 + y2) / 2 / image_height,
            (x2 - x1) / image_width,
            (y2 - y1) / image_height,
        ],
        axis=1,
    )


def voc_to_xyxy(boxes: ArrayLike) -> Boxes:
    """Pascal VOC's xmin, ymin, xmax, ymax (pixel numbers from 1, both ends inside the box) to xyxy, float32 [N, 4].

    VOC counts pixels from 1, so a box over the whole image is (1, 1, width, height): only the first corner moves
    (The PASCAL VOC development kit, section "Annotation file format").
    """
    xmin, ymin, xmax, ymax = _columns(boxes)
    return _stack(xmin - 1, ymin - 1, xmax, ymax)


def xyxy_to_voc(boxes: ArrayLike) -> NDArray[np.float64]:
    """Xyxy to Pascal VOC's 1-based xmin, ymin, xmax, ymax, float64 [N, 4]."""
    x1, y1, x2, y2 = _columns(boxes)
    return np.stack([x1 + 1, y1 + 1, x2, y2], axis=1)


def xyxy_to_relative_xywh(boxes: ArrayLike, sizes: ArrayLike) -> NDArray[np.float64]:
    """Xyxy to FiftyOne's left, top, width, height as shares of the image, float64 [N, 4]."""
    x1, y1, x2, y2 = _columns(boxes)
    width, height = _size_columns(sizes)
    return np.stack([x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height], axis=1)


def relative_xywh_to_xyxy(boxes: ArrayLike, sizes: ArrayLike) -> Boxes:
    """FiftyOne's relative left, top, width, height to xyxy, float32 [N, 4]; `sizes` as in `yolo_to_xyxy`."""
    left, top, box_width, box_height = _columns(boxes)
    width, height = _size_columns(sizes)
    return _stack(left * width, top * height, (left + box_width) * width, (top + box_height) * height)


def relative_to_xyxy(boxes: ArrayLike, sizes: ArrayLike) -> Boxes:
    """Open Images' left, top, right, bottom as shares of the image to xyxy, float32; `sizes` as in `yolo_to_xyxy`."""
    x1, y1, x2, y2 = _columns(boxes)
    width, height = _size_columns(sizes)
    return _stack(x1 * width, y1 * height, x2 * width, y2 * height)


def clip_boxes(boxes: ArrayLike, sizes: ArrayLike) -> Boxes:
    """Boxes cut at their image's border; a box wholly outside ends with no area.

    Args:
        boxes: Xyxy, pixels, [N, 4].
        sizes: Width and height in pixels, [2] or [N, 2].
    """
    x1, y1, x2, y2 = _columns(boxes)
    width, height = _size_columns(sizes)
    return _stack(
        np.clip(x1, 0, width), np.clip(y1, 0, height), np.clip(x2, 0, width), np.clip(y2, 0, height)
    )


def box_area(boxes: ArrayLike) -> NDArray[np.float64]:
    """Area in square pixels, float64 [N]; zero where a box is inverted or has no extent."""
    x1, y1, x2, y2 = _columns(boxes)
    return np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)


def box_iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of every pair, float64 [N, M], 0 to 1; pairs without any area have 0."""
    a, b = as_boxes(first).astype(np.float64), as_boxes(second).astype(np.float64)
    inter = _intersection(a, b)
    union = box_area(a)[:, None] + box_area(b)[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def box_overlap_share(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Share of each first box that lies inside each second box, float64 [N, M], 0 to 1 (COCO's measure for crowds)."""
    a, b = as_boxes(first).astype(np.float64), as_boxes(second).astype(np.float64)
    inter = _intersection(a, b)
    area = np.broadcast_to(box_area(a)[:, None], inter.shape)
    return np.divide(inter, area, out=np.zeros_like(inter), where=area > 0)


def upright_boxes(boxes: ArrayLike, sizes: ArrayLike, orientation: int) -> Boxes:
    """Boxes drawn on the stored pixels, moved to where they lie once the EXIF orientation is applied.

    Args:
        boxes: Xyxy, pixels of the stored (raw) image, [N, 4].
        sizes: Width and height of the stored image in pixels, [2] or [N, 2].
        orientation: EXIF tag 0x0112, 1 to 8 (CIPA DC-008, "Orientation").

    Raises:
        ValueError: `orientation` is not 1 to 8.
    """
    x1, y1, x2, y2 = _columns(boxes)
    width, height = _size_columns(sizes)
    if orientation == 1:
        return _stack(x1, y1, x2, y2)
    if orientation == 2:
        return _stack(width - x2, y1, width - x1, y2)
    if orientation == 3:
        return _stack(width - x2, height - y2, width - x1, height - y1)
    if orientation == 4:
        return _stack(x1, height - y2, x2, height - y1)
    if orientation == 5:
        return _stack(y1, x1, y2, x2)
    if orientation == 6:
        return _stack(height - y2, x1, height - y1, x2)
    if orientation == 7:
        return _stack(height - y2, width - x2, height - y1, width - x1)
    if orientation == 8:
        return _stack(y1, width - x2, y2, width - x1)
    raise InputError(f"an EXIF orientation is 1 to 8, not {orientation}")


def _columns(boxes: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    # float64 inside, so that a conversion and its inverse meet again after rounding to float32
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        array = array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise InputError(f"boxes must have the shape [N, 4], not {list(array.shape)}")
    return tuple(array.T)


def _size_columns(sizes: ArrayLike) -> tuple[Any, Any]:
    array = np.asarray(sizes, dtype=np.float64)
    if array.shape[-1:] != (2,):
        raise InputError(f"sizes must have the shape [2] or [N, 2] (width, height), not {list(array.shape)}")
    return array[..., 0], array[..., 1]


def _stack(*columns: Any) -> Boxes:
    return np.stack(columns, axis=1).astype(np.float32)


def _intersection(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    extent = np.clip(bottom_right - top_left, 0, None)
    area: NDArray[np.float64] = extent[..., 0] * extent[..., 1]
    return area
