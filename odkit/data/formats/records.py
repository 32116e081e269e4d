"""TFRecord files of tf.train.Example, read without TensorFlow: framing, checksums, and as much of protobuf as they use.

A file is a row of records, each the length of its data (uint64), a checksum of that, the data, and a checksum of the
data (tensorflow.org/tutorials/load_data/tfrecord). The data is a protobuf message, an Example: a map from names to
lists of bytes, floats or integers (tensorflow/core/example/example.proto and feature.proto). Whatever a file holds,
reading it ends, in memory that has a bound.
"""

import gzip
import os
import struct
import zlib
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odkit.system import InputError, megabytes, open_file

MOST_BYTES = 2**28  # of one record: far more than a picture has, and it must fit into memory
MOST_VALUES = 100_000  # fields of one record, and numbers in one list
UNPACKED = 200  # a compressed file may unpack to so many times its size: pictures hardly shrink, a bomb grows by 1,000
_SPARE = 2**26  # bytes that it may unpack to in any case
_MASK = 0xA282EAD8
_HEAD = struct.Struct("<QI")

Values = list[bytes] | NDArray[np.float32] | NDArray[np.int64]


class DamagedError(ValueError):
    """A record, or the rest of a file, cannot be read; the message says why."""


class Record(NamedTuple):
    """A record of a file, or why there is none at this place."""

    number: int  # from 1
    data: bytes
    fault: str = ""


# -- records of a file -----------------------------------------------------------------------------------------------


def begins_with_record(path: Path) -> bool:
    """Whether a file begins with a length and its right checksum, compressed with GZIP or not."""
    try:
        with open_file(path) as file:
            head = file.read(_HEAD.size)
            if _is_packed(head):
                file.seek(0)
                head = gzip.GzipFile(fileobj=file).read(_HEAD.size)
    except (OSError, EOFError, zlib.error, InputError):
        return False
    return _is_head(head)


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file, checksums verified. What is damaged comes as a `fault`; after some nothing can follow."""
    number = 0
    try:
        with open_file(path) as file:
            head = file.read(_HEAD.size)
            file.seek(0)
            size = os.fstat(file.fileno()).st_size
            packed = _is_packed(head)
            opened: BinaryIO = gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[assignment]
            left = _SPARE + UNPACKED * size if packed else size
            while head := opened.read(_HEAD.size):
                number += 1
                data, fault = _read_record(opened, head, left - len(head), packed)
                yield Record(number, data, fault)
                left -= len(head) + len(data) + 4
    except DamagedError as error:
        yield Record(number, b"", f"{error}; nothing after it in the file can be read")
    except (OSError, EOFError, zlib.error, InputError) as error:
        why = "it ends too early" if isinstance(error, EOFError) else str(error)
        yield Record(number + 1, b"", f"the file cannot be read on: {why}")


def _read_record(file: BinaryIO, head: bytes, left: int, packed: bool) -> tuple[bytes, str]:
    """The data of the record with this head, or what is wrong with it alone.

    Raises:
        DamagedError: Where the next record begins is not known.
    """
    if len(head) < _HEAD.size:
        raise DamagedError(f"the file ends {len(head)} bytes into the record's length and checksum")
    length = _HEAD.unpack(head)[0]
    if not _is_head(head):
        raise DamagedError("the checksum of its length is wrong")
    if length > MOST_BYTES:
        raise DamagedError(
            f"it has {megabytes(length)}, and odkit reads records up to {megabytes(MOST_BYTES)}"
        )
    if length + 4 > left:
        if packed:
            raise DamagedError(
                f"the file unpacks to more than {UNPACKED} times its size, which no pictures do"
            )
        raise DamagedError(f"it has {length:,} bytes, and the file ends after {max(0, left - 4):,} of them")
    data = file.read(length + 4)
    if len(data) < length + 4:
        raise DamagedError(
            f"it has {length:,} bytes, and the file ends after {min(len(data), length):,} of them"
        )
    data, check = data[:length], data[length:]
    if masked_crc32c(data) != int.from_bytes(check, "little"):
        return data, "the checksum of its data is wrong"
    return data, ""


def _is_head(head: bytes) -> bool:
    return len(head) == _HEAD.size and masked_crc32c(head[:8]) == _HEAD.unpack(head)[1]


def _is_packed(head: bytes) -> bool:
    """Whether a file that begins so is compressed; a record's length may begin with the same two bytes."""
    return head.startswith(b"\x1f\x8b") and not _is_head(head)


# -- checksums -------------------------------------------------------------------------------------------------------
#
# A CRC is linear: the register after some words is the XOR of what each word has become by then, and what a word
# becomes on the way of 2^k words is a table. So a long row of words is folded onto itself, all words of a half at once.

_CRC32C = 0x82F63B78  # Castagnoli's polynomial, its bits in reverse


def masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecord files: CRC-32C (RFC 3720, appendix B.4), turned by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes; hundreds of megabytes a second, by NumPy."""
    if len(data) < 4:
        register = 0xFFFFFFFF
        for bit in range(8 * len(data)):
            register ^= data[bit // 8] >> bit % 8 & 1
            register = register >> 1 ^ (_CRC32C if register & 1 else 0)
        return register ^ 0xFFFFFFFF
    log = min(12, max(0, len(data).bit_length() - 5))  # words in a row of the folding: measured
    zeros = -len(data) % (4 << log)  # in front they change nothing
    padded = np.zeros(zeros + len(data), np.uint8)
    padded[zeros:] = np.frombuffer(data, np.uint8)
    padded[zeros : zeros + 4] ^= 0xFF  # the register begins with ones
    rows = padded.view("<u4").reshape(-1, 1 << log)
    words = rows[0].copy()
    for row in rows[1:]:
        words = _moved(words, log) ^ row
    for half in reversed(range(log)):
        words = _moved(words[: 1 << half], half) ^ words[1 << half :]
    return int(_moved(words, 0)[0]) ^ 0xFFFFFFFF


def _moved(words: NDArray[np.uint32], log: int) -> NDArray[np.uint32]:
    """What each register becomes over 2^log words of zeros."""
    low, high = _tables(log)
    halves = words.view("<u2").reshape(-1, 2)
    moved: NDArray[np.uint32] = low[halves[:, 0]] ^ high[halves[:, 1]]
    return moved


@lru_cache(maxsize=16)
def _tables(log: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    bits = _moved_bits(log)
    return _combinations(bits[:16]), _combinations(bits[16:])


def _moved_bits(log: int) -> NDArray[np.uint32]:
    """What each of the register's 32 bits becomes over 2^log words of zeros, uint32 [32]."""
    bits = np.array([_CRC32C, *(1 << k for k in range(31))], "<u4")  # over one bit
    for _ in range(5 + log):
        low, high = _combinations(bits[:16]), _combinations(bits[16:])
        halves = bits.view("<u2").reshape(-1, 2)
        bits = low[halves[:, 0]] ^ high[halves[:, 1]]
    return bits


def _combinations(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The XOR of each choice of the bits, uint32 [2 ** len(bits)]."""
    table = np.zeros(1, "<u4")
    for bit in bits:
        table = np.concatenate([table, table ^ bit])
    return table


# -- examples --------------------------------------------------------------------------------------------------------

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types


def parse_example(data: bytes, keys: Collection[str]) -> dict[str, Values]:
    """The features of an Example that have these keys: lists of bytes, float32 [n] or int64 [n].

    Raises:
        DamagedError: It is no Example, or holds more than any has.
    """
    features: dict[str, Values] = {}
    budget = [MOST_VALUES]
    for number, part in _messages(memoryview(data), budget):
        if number == 1:  # Example.features
            for inner, entry in _messages(part, budget):
                if inner == 1:  # Features.feature
                    key, feature = _map_entry(entry, budget)
                    if key in keys:
                        features[key] = _values(feature, key, budget)
    return features


def _map_entry(entry: memoryview, budget: list[int]) -> tuple[str, memoryview]:
    key, feature = b"", memoryview(b"")
    for number, part in _messages(entry, budget):
        if number == 1:
            key = bytes(part)
        elif number == 2:
            feature = part
    return key.decode("utf-8", errors="replace"), feature


def _values(feature: memoryview, key: str, budget: list[int]) -> Values:
    values: Values = []
    for number, part in _messages(feature, budget):  # of several the last counts
        if number == 1:  # BytesList; FloatList, Int64List
            values = [bytes(value) for inner, value in _messages(part, budget) if inner == 1]
        elif number == 2:
            values = _floats(part, budget)
        elif number == 3:
            values = _integers(part, budget)
        if len(values) > MOST_VALUES:
            raise DamagedError(f"{key!r} has more than {MOST_VALUES:,} values")
    return values


def _floats(data: memoryview, budget: list[int]) -> NDArray[np.float32]:
    parts = []
    for number, kind, value in _fields(data, budget):
        if number == 1:
            if isinstance(value, int) or kind == _FIXED64 or len(value) % 4:
                raise DamagedError("its floats have no multiple of 4 bytes")
            parts.append(bytes(value))
    return np.frombuffer(b"".join(parts), "<f4")


def _integers(data: memoryview, budget: list[int]) -> NDArray[np.int64]:
    numbers: list[int] = []
    for number, kind, value in _fields(data, budget):
        if number != 1:
            continue
        if isinstance(value, int):
            numbers.append(value)
        elif kind == _BYTES:
            at = 0
            while at < len(value) and len(numbers) <= MOST_VALUES:
                one, at = _varint(value, at)
                numbers.append(one)
        else:
            raise DamagedError("its integers are not varints")
    return np.array(numbers, np.uint64).view(np.int64)


def _messages(data: memoryview, budget: list[int]) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that have a length: messages, strings, packed lists."""
    for number, kind, value in _fields(data, budget):
        if kind == _BYTES and not isinstance(value, int):
            yield number, value


def _fields(data: memoryview, budget: list[int]) -> Iterator[tuple[int, int, int | memoryview]]:
    """Number, wire type and value of each field of a message; `budget` holds how many more there may be.

    Raises:
        DamagedError: The bytes are no message, or there are too many fields.
    """
    at = 0
    while at < len(data):
        budget[0] -= 1
        if budget[0] < 0:
            raise DamagedError(f"it has more than {MOST_VALUES:,} fields")
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, kind, value
            continue
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise DamagedError(f"it is no tf.train.Example: a field of the unknown type {kind}")
        if number == 0 or length > len(data) - at:
            raise DamagedError("it is no tf.train.Example: a field reaches beyond its end")
        yield number, kind, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An integer of up to 64 bits, and where it ends."""
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if value >> 64:
                break
            return value, at + place + 1
    raise DamagedError("it is no tf.train.Example: a number has no end")
