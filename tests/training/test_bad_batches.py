"""Left-out batches, tried again: real detectors, and batches that really do spoil the loss."""

from pathlib import Path
from typing import Any

import pytest
import torch

from odkit.detection.detector import build_detector
from odkit.runs.run import Run, create_run
from odkit.runs.settings import Settings
from odkit.training import replay
from tests.helpers import squares


@pytest.fixture
def run(tmp_path: Path) -> Run:
    settings = Settings(weights="random", image_size=64)
    return create_run(squares(tmp_path / "squares", 8), settings, tmp_path, "one")


def keep(run: Run, boxes: list[list[float]], **changes: Any) -> None:
    """A batch as the worker keeps it: an image a box, the detector's state beside it."""
    torch.manual_seed(0)
    detector = build_detector("starter", run.class_names, weights="random", image_size=64)
    state = detector.state_dict()
    state.update(changes)
    images = [torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8) for _ in boxes]
    targets = [
        {
            "boxes": torch.tensor([box], dtype=torch.float32),
            "labels": torch.tensor([0]),
            "row": torch.tensor(row),
            "size": torch.tensor([64, 64]),
        }
        for row, box in enumerate(boxes)
    ]
    (run.path / "bad_batches").mkdir(exist_ok=True)
    kept = {"images": images, "targets": targets, "detector": state}
    torch.save(kept, run.path / "bad_batches" / "step-00000003-1.pt")


def test_nothing_was_left_out(run: Run) -> None:
    assert replay(run) == []


def test_the_image_behind_it_is_named(run: Run) -> None:
    keep(run, [[10, 10, 40, 40], [10, 10, float("inf"), 40], [20, 20, 50, 50]])
    rows = replay(run)
    train = run.dataset("train")
    assert [row["image"] for row in rows] == list(train.image_ids[:3])
    assert {row["batch"] for row in rows} == {"step-00000003-1"}
    assert rows[1]["verdict"].startswith("this image alone does it: bbox_regression")
    assert rows[1]["loss"] is None
    assert rows[0]["verdict"].startswith("finite alone; the whole batch is not")
    assert rows[0]["loss"] > 0


def test_the_layer_behind_it_is_named(run: Run) -> None:
    keep(
        run,
        [[10, 10, 40, 40]],
        **{"module.head.classification_head.cls_logits.weight": torch.full((2, 96, 3, 3), 1e38)},
    )
    (row,) = replay(run)
    assert "first in the output of head.classification_head.cls_logits" in row["verdict"]


def test_weights_that_were_spoilt_before_are_told_apart(run: Run) -> None:
    keep(
        run,
        [[10, 10, 40, 40]],
        **{"module.head.classification_head.cls_logits.bias": torch.tensor([1.0, float("nan")])},
    )
    (row,) = replay(run)
    assert "not finite any more" in row["verdict"]
    assert "cls_logits.bias" in row["verdict"]


def test_a_batch_that_is_sound_here_says_so(run: Run) -> None:
    keep(run, [[10, 10, 40, 40], [5, 5, 30, 30]])
    assert {row["verdict"][:12] for row in replay(run)} == {"finite alone"}
    assert all("--precision fp32" in row["verdict"] for row in replay(run))
