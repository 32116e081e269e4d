"""TFRecord files written by the documented rules, sharing nothing with odkit's reader.

Framing: tensorflow.org/tutorials/load_data/tfrecord; messages: tensorflow/core/example/{example,feature}.proto, encoded
as protobuf.dev/programming-guides/encoding says.
"""

import gzip
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def crc32c(data: bytes) -> int:
    """Bit by bit, as the polynomial is defined (RFC 3720)."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def delimited(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(values: Sequence[Any], *, packed: bool = True) -> bytes:
    """A Feature of bytes, floats or integers, by the first value; without values it is of bytes."""
    if not values or isinstance(values[0], bytes | str):
        parts = [value.encode() if isinstance(value, str) else value for value in values]
        return delimited(1, b"".join(delimited(1, part) for part in parts))
    if isinstance(values[0], float):
        parts, field, kind = [struct.pack("<f", value) for value in values], 2, 5
    else:
        parts, field, kind = [varint(int(value)) for value in values], 3, 0
    if packed:
        return delimited(field, delimited(1, b"".join(parts)))
    return delimited(field, b"".join(varint(1 << 3 | kind) + part for part in parts))


def example(features: Mapping[str, Sequence[Any]], *, packed: bool = True) -> bytes:
    entries = [
        delimited(1, delimited(1, key.encode()) + delimited(2, feature(values, packed=packed)))
        for key, values in features.items()
    ]
    return delimited(1, b"".join(entries))


def detection(
    picture: Path | bytes | None,
    size: tuple[int, int],
    objects: Sequence[tuple[str, Sequence[float]]],
    *,
    names: Sequence[str] = (),
    **more: Sequence[Any],
) -> dict[str, Sequence[Any]]:
    """The features of an image as the API's tools write them; objects are class and corners in pixels.

    Args:
        picture: Its file, whose name goes in too, or its bytes.
        size: Width and height in pixels.
        objects: Class name and xyxy of each.
        names: The label map, numbers from 1; without it there are no numbers.
        more: Other keys, "__" for "/"; they replace those made here.
    """
    width, height = size
    features: dict[str, Sequence[Any]] = {"image/width": [width], "image/height": [height]}
    if isinstance(picture, Path):
        features |= {"image/filename": [picture.name], "image/source_id": [picture.name]}
        features |= {"image/encoded": [picture.read_bytes()], "image/format": ["jpeg"]}
    elif picture is not None:
        features["image/encoded"] = [picture]
    for corner, side, k in (("xmin", width, 0), ("ymin", height, 1), ("xmax", width, 2), ("ymax", height, 3)):
        features[f"image/object/bbox/{corner}"] = [float(box[k]) / side for _, box in objects]
    features["image/object/class/text"] = [name for name, _ in objects]
    if names:
        features["image/object/class/label"] = [names.index(name) + 1 for name, _ in objects]
    return features | {key.replace("__", "/"): values for key, values in more.items()}


def write_records(
    path: Path, examples: Iterable[Mapping[str, Sequence[Any]] | bytes], *, packed: bool = True
) -> Path:
    """A record file; compressed where its name ends with ".gz"."""
    whole = b"".join(
        frame(one if isinstance(one, bytes) else example(one, packed=packed)) for one in examples
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(whole, mtime=0) if path.name.endswith(".gz") else whole)
    return path


def label_map(names: Sequence[str]) -> str:
    return "".join(f"item {{\n  id: {k}\n  name: '{name}'\n}}\n\n" for k, name in enumerate(names, 1))
