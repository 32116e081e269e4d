"""The facts under judgement."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the checks are about: folders, and how training will run."""

    data: Path | None = None
    data_given: bool = False
    work: Path = Path(".")
    need_gpu: bool = False
    num_workers: int = 2
    batch_bytes: int = 8 * 3 * 640 * 640


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def cache_folder() -> Path:
    """Where caches go (torch's weights among them)."""
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
