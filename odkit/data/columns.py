"""Columns in one file that processes share: an uncompressed `.npz` whose arrays lie so that they can be mapped.

Mapped, a column costs a process nothing until it is looked at, and all processes of a machine look at the same pages.
`np.load` reads the same file. Files of older versions, compressed, are read too.
"""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from odkit.data.texts import Numbered, Texts
from odkit.system import replacing

_ALIGNED = 64  # bytes; where arrays may begin, the same as inside of a .npy file
_LOCAL_HEADER = struct.Struct(
    "<26xHH"
)  # the end of a zip member's header: lengths of its name and extra field


def save_columns(path: str | Path, about: Mapping[str, Any], columns: Mapping[str, Any]) -> Path:
    """One file of columns, whole or not at all (`replacing`).

    Args:
        path: The file; missing folders are made.
        about: Everything that is no column, as JSON takes it.
        columns: Name to Texts, an array of numbers, or an object array of strings, few of them different.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
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
    text = orjson.dumps({**about, "columns": kinds})
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in {"text": np.frombuffer(text, np.uint8), **arrays}.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            begin = (
                archive.start_dir + 30 + len(member.filename) + 20 + 4
            )  # with zip64's and this extra field
            gap = -begin % _ALIGNED
            member.extra = struct.pack("<HH", 0x6B6F, gap) + bytes(gap)
            with archive.open(member, "w", force_zip64=True) as out:
                np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
    return path


def load_columns(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `save_columns` wrote; arrays are mapped from the file and read-only.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error: It holds something else.
    """
    # not np.load, which takes any file that NumPy ever wrote
    with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
        about = orjson.loads(archive["text"].tobytes())
        names = [name for name in archive.files if name != "text"]
        arrays = {name: _mapped(path, file, archive, name) for name in names}
    if "columns" not in about:  # an older file: strings stand in the text
        return about, arrays
    columns: dict[str, Any] = {}
    kinds = about.pop("columns")
    for name, array in arrays.items():
        kind = kinds.get(name)
        if kind == "texts":
            columns[name] = Texts(array, arrays[f"{name}.starts"])
        elif isinstance(kind, dict) and "numbered" in kind:
            columns[name] = Numbered(kind["numbered"], array)
        elif isinstance(kind, dict):
            columns[name] = np.array(kind["among"] or [""], object)[array]
        elif not name.endswith(".starts"):
            columns[name] = array
    return about, columns


def _mapped(path: str | Path, file: BinaryIO, archive: Any, name: str) -> NDArray[Any]:
    member = archive.zip.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED or not member.file_size:
        return np.asarray(archive[name])
    file.seek(member.header_offset)
    name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    file.seek(member.header_offset + _LOCAL_HEADER.size + name_length + extra_length)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or fortran or not np.prod(shape):
        return np.asarray(archive[name])  # which refuses objects
    return np.asarray(np.memmap(path, dtype, "r", file.tell(), shape))
