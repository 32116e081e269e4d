"""Columns in one file that processes share: an uncompressed `.npz` whose arrays lie so that they can be mapped.

Mapped, a column costs a process nothing until it is looked at, and all processes of a machine look at the same pages.
`np.load` reads the same file. Files of older versions, compressed, are read too.
"""

import json
import math
import mmap
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from odkit.data.texts import Numbered, Texts, object_array
from odkit.system import FileInTheWayError, open_file, replacing

_ALIGNED = 64  # bytes; where arrays may begin, the same as inside of a .npy file
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member; ends with the lengths of its name and extra field


def save_columns(path: str | Path, about: Mapping[str, Any], columns: Mapping[str, Any]) -> Path:
    """One file of columns, whole or not at all (`replacing`).

    Args:
        path: The file; missing folders are made.
        about: Everything that is no column, as JSON takes it.
        columns: Name to Texts, an array of numbers, or an object array of strings, few of them different.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise FileInTheWayError(
            f"{path} cannot be written: {path.parent} is no folder, but a file or in one"
        ) from error
    arrays: dict[str, NDArray[Any]] = {}
    kinds: dict[str, Any] = {}
    for name, column in columns.items():
        if isinstance(column, Numbered):
            arrays[name], kinds[name] = column.numbers, {"numbered": column.words}
        elif isinstance(column, Texts):
            first, last = column.starts[0], column.starts[-1]
            arrays[name], arrays[f"{name}.starts"] = column.letters[first:last], column.starts - first
            kinds[name] = "texts"
        elif column.dtype == object:
            different = list(dict.fromkeys(column.tolist()))
            place = {text: code for code, text in enumerate(different)}
            arrays[name] = np.fromiter((place[text] for text in column.tolist()), np.int32, len(column))
            kinds[name] = {"among": different}
        else:
            arrays[name] = column
    text = json_bytes({**about, "columns": kinds})
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in {"text": np.frombuffer(text, np.uint8), **arrays}.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            # after the header and its extra fields, zip64's and this one
            begin = archive.start_dir + _LOCAL_HEADER.size + len(member.filename) + 20 + 4
            gap = -begin % _ALIGNED
            member.extra = struct.pack("<HH", 0x6B6F, gap) + bytes(gap)
            with archive.open(member, "w", force_zip64=True) as out:
                np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
    return path


def load_columns(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `save_columns` wrote; arrays are mapped from the file and read-only.

    They stay what they are where the file is deleted or another takes its name, as `save_columns` has it. Whoever
    writes over the bytes of a file that is in use (`cp` onto it) ends the processes that have mapped it: SIGBUS.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is a pipe or a device.
        ValueError: It holds something else, or is damaged.
    """
    with open_file(path) as file:
        try:
            return _loaded(file)
        except DAMAGES as error:
            raise ValueError(f"its columns cannot be read: {error}") from error


def _loaded(file: BinaryIO) -> tuple[dict[str, Any], dict[str, Any]]:
    mapped = _mapped(file)
    with zipfile.ZipFile(file) as archive:  # not np.load, which takes any file that NumPy ever wrote
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        arrays = {name: _array(mapped, archive, name) for name in names}
    about = _json(arrays.pop("text").tobytes())
    kinds = about.pop("columns", None)
    if kinds is None:  # an older file: strings stand in the text
        return about, arrays
    starts = {name: arrays.pop(f"{name}.starts") for name, kind in kinds.items() if kind == "texts"}
    return about, {name: _column(array, kinds.get(name), starts.get(name)) for name, array in arrays.items()}


def json_bytes(value: Any, option: int = 0) -> bytes:
    """JSON, also of names of files that are no valid UTF-8: what Python has in place of such bytes is escaped.

    Dataclasses may be in it.
    """
    try:
        return orjson.dumps(value, option=option)
    except TypeError:
        return json.dumps(value, indent=2 if option & orjson.OPT_INDENT_2 else None, default=asdict).encode()


def _json(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)  # which reads those escapes


DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, struct.error),  # of the archive
    *(SyntaxError, tokenize.TokenError),  # of an array's header
    *(LookupError, TypeError, AttributeError, EOFError, OverflowError, MemoryError),
    # seeking to nowhere; packed in a way that Python does not know; encrypted
    *(OSError, NotImplementedError, RuntimeError),
)
"""What a damaged file makes of zipfile, NumPy and the code above, beside ValueError."""


def _column(array: NDArray[Any], kind: Any, starts: NDArray[Any] | None) -> Any:
    if starts is not None:
        return Texts(array, starts)
    if kind is None:
        return array
    if "numbered" in kind:
        return Numbered(str(kind["numbered"]), array)
    return object_array(kind["among"])[array]


def _mapped(file: BinaryIO) -> mmap.mmap | None:
    """The whole file, mapped once: each map is an open file. None where its file system has no shared maps."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # ValueError: it is empty
        return None


def _array(mapped: mmap.mmap | None, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """An array of the archive: a part of the map where it lies there as it is, else read."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as packed:
        shape, fortran, dtype = _header(packed)
        size, begin = math.prod(shape) * dtype.itemsize, packed.tell()
        if size + begin != member.file_size or min(shape, default=0) < 0:  # before memory is asked for
            raise ValueError(
                f"{name} has {member.file_size - begin:,} bytes where its header speaks of {size:,}"
            )
        if mapped is None or member.compress_type != zipfile.ZIP_STORED or fortran or not size:
            packed.seek(0)
            return np.asarray(np.lib.format.read_array(packed, allow_pickle=False))
    lengths = _LOCAL_HEADER.unpack_from(mapped, member.header_offset)
    start = member.header_offset + _LOCAL_HEADER.size + sum(lengths) + begin
    return np.frombuffer(mapped, dtype, math.prod(shape), start).reshape(shape)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("an array of objects is no column")
    return shape, fortran, dtype
