"""Weights as files on this machine: the bundled starter's, torch's cache, hashes. No torch is imported for it."""

import hashlib
import os
import re
from pathlib import Path

from odkit.system import GB, cache_folder

STARTER_WEIGHTS = Path(__file__).parent / "starter.safetensors"


def weights_folder() -> Path:
    """Where torch keeps downloaded weights (the rule of `torch.hub.get_dir()`)."""
    if own := os.environ.get("TORCH_HOME"):
        return Path(os.path.expanduser(own)) / "hub" / "checkpoints"
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # nobody knows this account's home
        cache = cache_folder()
    return Path(os.path.expanduser(cache)) / "torch" / "hub" / "checkpoints"


def named_hash(path: Path) -> str:
    """The digits that a published file's SHA-256 begins with, as they stand in its name; "" where none do."""
    found = re.search(r"-([0-9a-f]{8,})\.", path.name)
    return found[1] if found else ""


def is_sound(path: Path, digits: str | None = None) -> bool:
    """Whether a file's SHA-256 begins with these digits; None: those in its name."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return found.startswith(named_hash(path) if digits is None else digits)


def damaged_weights(folder: Path, *, budget: int = 2 * GB) -> tuple[int, list[Path]]:
    """The files of a folder that are not what was published, of the first `budget` bytes.

    Returns:
        How many files were read, and the damaged ones.
    """
    read, damaged = 0, []
    for path in sorted([*folder.glob("*-*.pth"), *folder.glob("*-*.safetensors")]):
        size = path.stat().st_size
        if not named_hash(path) or size > budget:
            continue
        budget -= size
        read += 1
        if not is_sound(path):
            damaged.append(path)
    return read, damaged
