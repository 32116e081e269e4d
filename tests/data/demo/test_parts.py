"""The demo's pictures: the same from the same seed, with boxes that fit."""

import hashlib
import subprocess
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from odkit.data.demo.parts import PARTS, demo_image
from tests.data.demo.read_back import contents_of


def test_same_seed_same_image_other_seed_another() -> None:
    def draw(seed, index):
        return hashlib.sha256(b"".join(a.tobytes() for a in demo_image(seed, index))).hexdigest()

    assert draw(5, 2) == draw(5, 2)
    assert len({draw(5, 2), draw(5, 3), draw(6, 2)}) == 3


def test_another_process_draws_the_same_bytes(clean: Path, tmp_path: Path) -> None:
    code = "import sys; from odkit.data.demo.dataset import write_demo; write_demo(sys.argv[1], images=40, seed=3)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True)
    assert contents_of(tmp_path / "again") == contents_of(clean)


def test_boxes_lie_inside_and_are_large_enough() -> None:
    counts: Counter[int] = Counter()
    empty = 0
    for index in range(60):
        rgb, boxes, classes = demo_image(0, index)
        height, width, _ = rgb.shape
        assert rgb.dtype == np.uint8
        assert boxes.dtype == np.float32
        assert classes.dtype == np.int64
        assert len(boxes) == len(classes)
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= [width, height]).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 4).all()
        counts.update(classes.tolist())
        empty += len(boxes) == 0
    assert set(counts) == set(range(len(PARTS)))
    assert max(counts.values()) < 2 * min(counts.values())
    assert 0 < empty < 12


def test_jpeg_quality_varies(clean: Path) -> None:
    tables = set()
    for path in (clean / "train").iterdir():
        with Image.open(BytesIO(path.read_bytes())) as image:
            tables.add(tuple(image.quantization[0]))
    assert len(tables) > 10
