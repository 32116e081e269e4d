"""The usual, flawless COCO file decoded straight into columns.

What is not wanted of it, masks above all, never becomes an object. A file that is unusual in any way is left to the
careful reader in coco.py, which has the words for it: what is read here means the same there.
"""

import codecs
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from odkit.data.formats.reader_base import no_garbage_collection

_CHUNK = 4096  # annotations that are objects at one time


class Image(msgspec.Struct, gc=False):
    """An image of the list; of a file that is read carefully, made of what its entry holds."""

    id: int | str
    file_name: str
    width: Any = None
    height: Any = None


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0
    area: float | None = None


class _File(msgspec.Struct):
    images: list[Image]
    annotations: list[msgspec.Raw]
    categories: msgspec.Raw = msgspec.Raw(b"[]")
    info: msgspec.Raw = msgspec.Raw(b"null")


@dataclass(frozen=True, eq=False)
class Annotations:
    """The annotations of a file as columns, [n] each."""

    ids: NDArray[np.int64]
    images: NDArray[np.int64]
    categories: NDArray[np.int64]
    boxes: NDArray[np.float64]  # [n, 4], left, top, width, height
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]  # NaN where not stated


def in_columns(text: bytes) -> dict[str, Any] | None:
    """A COCO file with its images as `Image` and its annotations as columns; None where any has another type."""
    try:
        with no_garbage_collection():
            found = msgspec.json.decode(text, type=_File)
            first = orjson.loads(memoryview(found.annotations[0])) if found.annotations else {}
            captions = isinstance(first, dict) and "caption" in first
            plain = all(
                image.file_name and (isinstance(image.id, str) or abs(image.id) < 2**63)
                for image in found.images
            )
            if captions or not plain or not _is_utf8(text):
                return None
            return {
                "images": found.images,
                "annotations": _annotation_columns(found.annotations),
                "categories": orjson.loads(memoryview(found.categories)),
                "info": orjson.loads(memoryview(found.info)),
            }
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None


def _annotation_columns(found: list[msgspec.Raw]) -> Annotations:
    count = len(found)
    ids, images, categories, crowd = (np.empty(count, np.int64) for _ in range(4))
    boxes, areas = np.empty((count, 4)), np.empty(count)
    decode = msgspec.json.Decoder(list[_Annotation]).decode
    for start in range(0, count, _CHUNK):
        rows = decode(b"[" + b",".join(found[start : start + _CHUNK]) + b"]")
        part = slice(start, start + len(rows))
        ids[part] = [row.id for row in rows]
        images[part] = [row.image_id for row in rows]
        categories[part] = [row.category_id for row in rows]
        crowd[part] = [row.iscrowd for row in rows]
        boxes[part] = [row.bbox for row in rows]
        areas[part] = [np.nan if row.area is None else row.area for row in rows]
    return Annotations(ids, images, categories, boxes, crowd == 1, areas)


def _is_utf8(text: bytes) -> bool:
    """Whether a text is UTF-8 to its end: what is not wanted of a file is skipped unseen."""
    if text.isascii():
        return True
    decoder, step = codecs.getincrementaldecoder("utf-8")(), 1 << 20
    try:
        for start in range(0, len(text), step):
            decoder.decode(text[start : start + step], final=start + step >= len(text))
    except UnicodeDecodeError:
        return False
    return True
