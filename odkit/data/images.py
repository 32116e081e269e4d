"""The one reader of pictures: suffixes, header, size, orientation, pixels."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
)


def header_sizes(paths: Sequence[Path | str]) -> list[tuple[int, int]]:
    """Width and height of each image, upright, from its header; (0, 0) where it cannot be read."""
    if not paths:
        return []
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        return list(pool.map(_header_size, paths, chunksize=64))


def _header_size(path: Path | str) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.format == "TIFF":  # whose size Pillow gives upright already, in newer versions
                width, height = image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (
        Exception
    ):  # Pillow's readers raise anything on a damaged file; the audit says what is wrong with it
        return 0, 0
    return (height, width) if turned else (width, height)


def upright_size(path: str) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5
            return (image.height, image.width) if turned else (image.width, image.height)
    except (OSError, SyntaxError, ValueError):
        return 0, 0
