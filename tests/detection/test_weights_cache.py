"""Weights as files: torch's own cache, hashes in names."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from odkit.detection.weights_cache import (
    STARTER_WEIGHTS,
    damaged_weights,
    is_sound,
    named_hash,
    weights_folder,
)

SOUND = hashlib.sha256(b"weights").hexdigest()[:8]


@pytest.mark.parametrize(
    "variables",
    [{}, {"TORCH_HOME": "/somewhere/torch"}, {"XDG_CACHE_HOME": "/cache"}, {"TORCH_HOME": "~/torch"}],
)
def test_the_folder_is_torchs(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(weights_folder()) == f"{torch.hub.get_dir()}/checkpoints"


def test_the_hash_stands_in_the_name(tmp_path: Path) -> None:
    good, own = tmp_path / f"good-{SOUND}.pth", tmp_path / "own.pth"
    for path in (good, own):
        path.write_bytes(b"weights")
    assert (named_hash(good), named_hash(own)) == (SOUND, "")
    assert is_sound(good)
    assert is_sound(own)  # nothing is known of it
    good.write_bytes(b"weig")
    assert not is_sound(good)


def test_damaged_files_are_found_within_a_budget(tmp_path: Path) -> None:
    assert damaged_weights(tmp_path / "none") == (0, [])
    (tmp_path / f"good-{SOUND}.pth").write_bytes(b"weights")
    (tmp_path / "own.pth").write_bytes(b"no digits, no judgement")
    assert damaged_weights(tmp_path) == (1, [])
    bad = tmp_path / f"broken-{SOUND}.safetensors"
    bad.write_bytes(b"weig")
    assert damaged_weights(tmp_path) == (2, [bad])
    assert damaged_weights(tmp_path, budget=4) == (1, [bad])  # what is too much to read now is left


def test_the_doctor_asks_without_torch() -> None:
    code = (
        "import sys; from odkit.detection import STARTER_WEIGHTS, damaged_weights, weights_folder; "
        "damaged_weights(weights_folder()); assert STARTER_WEIGHTS.is_file(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert STARTER_WEIGHTS.is_file()
