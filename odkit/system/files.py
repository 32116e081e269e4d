"""The one writer of files: whole or not at all, on the disk when it returns."""

import os
from pathlib import Path


def write_file(path: Path, data: bytes) -> None:
    """Bytes to a temporary name beside `path`, fsynced, then renamed: `path` holds the old or the new, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
