"""Changes that keep a file's form, so that what is behind its reader's first check is reached as well.

Bytes changed at random are no JSON, no XML and no archive any more, nearly always. Here a value, an element, a field
or a member is changed, and the file written anew around it: lengths and checksums are right again.
"""

import copy
import io
import json
import random
import re
import struct
import xml.etree.ElementTree as ET
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from odkit.data.formats.records import masked_crc32c

# of numbers, as NumPy writes them
_KINDS = ["<i4", "<i8", "<u8", "<f4", "<f8", ">i4", "<f2", "|u1", "|b1", "|S1", "<U1", "|V4", "<c8", "|O8"]
Form = Callable[[bytes, random.Random], bytes]

_HUGE = "a number of 5,000 digits"  # which json.dumps does not write
_WORDS = [
    "",
    " ",
    "\t",
    "1",
    "-1",
    "nan",
    "inf",
    "1e999",
    "1_0",
    "٣",
    "0x1f",
    "1,5",
    "1 2 3 4",
    "true",
    "null",
]
_WORDS += ["[]", "{}", "<a/>", "&a;", "|", "'", '"', "%s", "{0}", "é", "..", "/", ".", "a/b", "../a.jpg"]
_WORDS += ["/etc/passwd", "C:\\a.jpg", "a" * 300]
_NUMBERS = [0, -1, 3, 0.5, -0.0, 1e-320, 1e308, -1e308, float("inf"), float("nan"), 10**30, 10**400]
_NUMBERS += [sign * 2**bits + more for bits in (31, 53, 63, 64) for sign in (-1, 1) for more in (-1, 0, 1)]
_TEXTS = [*_WORDS, "9" * 5000, *map(str, _NUMBERS)]
_VALUES: list[Any] = [*_TEXTS, *_NUMBERS, *_NUMBERS, None, True, False, "\0", "\n", "\ud800", _HUGE]
_VALUES += [[], {}, [[]], [None], [0, 0, 0, 0], [1e308] * 4, {"a": 1}, [1] * 500]


def json_form(content: bytes, rng: random.Random) -> bytes:
    """One value of a JSON file changed, moved, repeated or left out; of one line, where each is JSON."""
    try:
        whole = [json.loads(content)]
    except ValueError:
        lines = content.split(b"\n")
        if len(lines) == 1:
            raise
        place = rng.choice([k for k, line in enumerate(lines) if line.strip()])
        lines[place] = json_form(lines[place], rng)
        return b"\n".join(_shuffled(lines, rng) if not rng.randrange(4) else lines)
    places: list[tuple[Any, Any]] = [(whole, 0)]
    for inside, key in places:  # which grows on the way
        below = inside[key]
        keys = below if isinstance(below, dict) else range(len(below) if isinstance(below, list) else 0)
        places += [(below, k) for k in keys]
    inside, key = rng.choice(places)
    old, (others, other) = inside[key], rng.choice(places)
    how = rng.randrange(7)
    if how < 2:
        inside[key] = rng.choice(_VALUES)
    elif how == 2:
        inside[key] = copy.deepcopy(others[other])
    elif how == 3 and inside is not whole:
        del inside[key]
    elif how == 4 and isinstance(inside, dict):
        inside[rng.choice([str(k) for _, k in places] + _TEXTS)] = inside.pop(key)
    elif how == 4 and inside is not whole:
        inside.insert(rng.randrange(len(inside) + 1), copy.deepcopy(old))
    elif how == 5 and isinstance(old, int | float):
        inside[key] = old * rng.choice([-1, 0, 10, 1e-9, 1e9]) + rng.choice([0, 0, 1, -1])
    else:
        inside[key] = rng.choice([str(old), [old], {"a": old}])
    return json.dumps(whole[0], separators=(",", ":")).replace(f'"{_HUGE}"', "9" * 5000).encode()


def xml_form(content: bytes, rng: random.Random) -> bytes:
    """One element of an XML file changed, moved, repeated or left out."""
    root = ET.fromstring(content)
    above = [(parent, child) for parent in root.iter() for child in parent]
    parent, child = rng.choice(above)
    other = rng.choice(above)[1]
    how = rng.randrange(8)
    if how < 2 or (how < 4 and not child.attrib):
        child.text = rng.choice(_TEXTS)
    elif how < 4:
        child.set(rng.choice(list(child.attrib)), rng.choice(_TEXTS))
    elif how == 4:
        parent.remove(child)
    elif how == 5:
        parent.insert(rng.randrange(len(parent) + 1), child)
    elif how == 6:
        child.tag = other.tag
    elif child.attrib:
        del child.attrib[rng.choice(list(child.attrib))]
    else:
        child.text = other.text
    return ET.tostring(root)


def text_form(content: bytes, rng: random.Random) -> bytes:
    """One field of one line changed, or a line moved, repeated or left out."""
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    parts = re.split(rb"([,;\t =:{}\[\]\"]+)", lines[place])
    words = [*(text.encode() for text in _TEXTS), *parts[::2]]
    parts[rng.randrange(0, len(parts), 2)] = rng.choice(words)
    if not rng.randrange(3):
        parts = _shuffled(parts, rng)
    lines[place] = b"".join(parts)
    return b"\n".join(_shuffled(lines, rng) if not rng.randrange(3) else lines)


def archive_form(content: bytes, rng: random.Random) -> bytes:
    """One array of an .npz file changed: its values, its header, or the JSON that is one of them."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    # NumPy's headers have 128 bytes
    texts = [name for name, member in members.items() if member[128:129] == b"{"]
    how = rng.randrange(3)
    if how == 0 and texts:
        name = rng.choice(texts)
        text = json_form(members[name][128:], rng)
        members[name] = _array(members[name], "|u1", f"({len(text)},)", False, text)
    elif how == 1:
        name = rng.choice(list(members))
        numbers = members[name][128:]
        kind = rng.choice(_KINDS)
        count = len(numbers) // (int(kind[2]) * (4 if kind == "<U1" else 1))
        shapes = [f"({count},)", f"({count // 2}, 2)", f"({count // 4}, 4)", "()", "(0,)", "(-1,)", "(0, 4)"]
        shape = rng.choice([*shapes, f"({2**62}, 4)"])
        members[name] = _array(members[name], kind, shape, not rng.randrange(4), numbers)
    else:
        name = rng.choice(list(members))
        whole = bytearray(members[name])
        at = rng.randrange(0, max(len(whole) - 8, 1), 4)
        floats = [struct.pack("<d", value) for value in (-1, 1e308, float("nan"), float("inf"))]
        whole[at : at + 8] = rng.choice(
            [*floats, *(struct.pack("<q", value) for value in (-1, 2**31, 2**62, 7))]
        )
        members[name] = bytes(whole)
    if not rng.randrange(10):
        del members[rng.choice(list(members))]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member)
    return out.getvalue()


def _array(old: bytes, kind: str, shape: str, columns_first: bool, numbers: bytes) -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': {columns_first}, 'shape': {shape}, }}"
    return old[:10] + header.ljust(117).encode() + b"\n" + numbers


def records_form(content: bytes, rng: random.Random) -> bytes:
    """One record of a TFRecord file with some of its bytes changed, in its frame with the right sums."""
    records = []
    while content:
        length = int.from_bytes(content[:8], "little")
        records.append(content[12 : 12 + length])
        content = content[16 + length :]
        if len(records) > 20:
            break
    place = rng.randrange(len(records))
    record = bytearray(records[place])
    for _ in range(rng.randrange(1, 4)):
        # most of a record is a picture; what is read of it stands around the names of its features
        near = [match.start() for match in re.finditer(rb"image/[a-z/]+", bytes(record))] or [0]
        at = min(max(rng.choice(near) + rng.randrange(-8, 60), 0), max(len(record) - 1, 0))
        record[at : at + rng.randrange(0, 4)] = rng.choice(
            [b"", b"\0", b"\xff", b"\x7f", rng.randbytes(1), rng.randbytes(4), b"\xff" * 9 + b"\x01"]
        )
    records[place] = bytes(record)
    records = _shuffled(records, rng) if not rng.randrange(4) else records
    lengths = [struct.pack("<Q", len(record)) for record in records]
    sums = [[struct.pack("<I", masked_crc32c(part)) for part in pair] for pair in zip(lengths, records, strict=True)]
    frames = zip(lengths, (first for first, _ in sums), records, (second for _, second in sums), strict=True)
    return b"".join(map(b"".join, frames))


def picture_form(content: bytes, rng: random.Random) -> bytes:
    """Bytes of a picture changed, most of them near its beginning; of a PNG in a chunk, with the sums right again."""
    if not content.startswith(b"\x89PNG"):
        whole = bytearray(content)
        _spoil(whole, rng, rng.choice([40, 200, len(whole)]))
        return bytes(whole)
    chunks, at = [], 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append(bytearray(content[at + 4 : at + 8 + length]))  # its name and what it holds
        at += 12 + length
    _spoil(rng.choice(chunks), rng, 200)
    chunks = _shuffled(chunks, rng) if not rng.randrange(4) else chunks
    sums = [struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    lengths = [struct.pack(">I", len(chunk) - 4) for chunk in chunks]
    return content[:8] + b"".join(b"".join(parts) for parts in zip(lengths, chunks, sums, strict=True))


def _spoil(data: bytearray, rng: random.Random, most: int) -> None:
    for _ in range(rng.randrange(1, 6) if data else 0):
        data[rng.randrange(min(len(data), most))] = rng.choice([0, 1, 255, 128, rng.randrange(256)])


def _shuffled(parts: list[Any], rng: random.Random) -> list[Any]:
    """The same with one left out, repeated or moved."""
    if not parts:
        return parts
    at, to = rng.randrange(len(parts)), rng.randrange(len(parts))
    how = rng.randrange(3)
    one = parts[at]
    rest = parts if how == 1 else parts[:at] + parts[at + 1 :]
    return rest if how == 0 else [*rest[:to], one, *rest[to:]]
