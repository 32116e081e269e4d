"""Left-out batches, tried again: real detectors, and batches that really do spoil the loss."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from odkit.detection import Item, Pack
from odkit.detection.detector import build_detector
from odkit.runs.run import Run, create_run
from odkit.runs.settings import Settings
from odkit.system import InputError
from odkit.training import replay
from odkit.training.augment import draw
from tests.helpers import squares


@pytest.fixture
def run(tmp_path: Path) -> Run:
    settings = Settings(weights="random", image_size=64)
    return create_run(squares(tmp_path / "squares", 8), settings, tmp_path, "one")


def keep(run: Run, boxes: list[list[float]], *, spoilt: int = -1, **changes: Any) -> None:
    """A batch as the worker keeps it: an image a box, the detector's state beside it; one image may be spoilt."""
    torch.manual_seed(0)
    detector = build_detector("starter", run.class_names, weights="random", image_size=64)
    state = detector.state_dict()
    state.update(changes)
    items = [
        Item(
            torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8).permute(2, 0, 1),
            np.array([box], np.float32),
            np.zeros(1, np.int64),
            row,
            (64, 64),
            draw(
                "none", np.random.default_rng(0), 64, 64, np.array([box], np.float32), np.zeros(1, np.int64)
            )[0],
        )
        for row, box in enumerate(boxes)
    ]
    (run.path / "bad_batches").mkdir(exist_ok=True)
    batch = Pack(32)(items)
    if spoilt >= 0:
        batch.changes.colour[spoilt] = np.nan
    kept = {"batch": batch.to_tensors(), "detector": state}
    torch.save(kept, run.path / "bad_batches" / "step-00000003-1.pt")


def test_nothing_was_left_out(run: Run) -> None:
    assert replay(run) == []


def test_the_image_behind_it_is_named(run: Run) -> None:
    keep(run, [[10, 10, 40, 40], [10, 10, 30, 40], [20, 20, 50, 50]], spoilt=1)
    rows = replay(run)
    train = run.dataset("train")
    assert [row["image"] for row in rows] == list(train.image_ids[:3])
    assert {row["batch"] for row in rows} == {"step-00000003-1"}
    assert rows[1]["verdict"].startswith("this image alone does it: ")
    assert "first in the output of backbone.body.stem.conv" in rows[1]["verdict"]
    assert rows[1]["loss"] is None
    assert rows[0]["verdict"].startswith("finite alone; the whole batch is not")
    assert rows[0]["loss"] > 0


def test_the_layer_behind_it_is_named(run: Run) -> None:
    keep(
        run,
        [[10, 10, 40, 40]],
        **{"module.head.classes.weight": torch.full((2, 96, 3, 3), 1e38)},
    )
    (row,) = replay(run)
    assert "first in the output of head.classes" in row["verdict"]


def test_weights_that_were_spoilt_before_are_told_apart(run: Run) -> None:
    keep(
        run,
        [[10, 10, 40, 40]],
        **{"module.head.classes.bias": torch.tensor([1.0, float("nan")])},
    )
    (row,) = replay(run)
    assert "not finite any more" in row["verdict"]
    assert "classes.bias" in row["verdict"]


def test_a_batch_that_is_sound_here_says_so(run: Run) -> None:
    keep(run, [[10, 10, 40, 40], [5, 5, 30, 30]])
    assert {row["verdict"][:12] for row in replay(run)} == {"finite alone"}
    assert all("--precision fp32" in row["verdict"] for row in replay(run))


def test_a_batch_that_an_earlier_odkit_kept_is_said(run: Run) -> None:
    keep(run, [[10, 10, 40, 40]])
    (file,) = (run.path / "bad_batches").glob("*.pt")
    kept = torch.load(file, weights_only=True)
    torch.save({name: value for name, value in kept.items() if name != "batch"}, file)
    with pytest.raises(InputError, match=f"{file.name}: kept by an earlier odkit"):
        replay(run)
