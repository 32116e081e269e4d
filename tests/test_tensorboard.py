"""A run's events as TensorBoard reads them."""

import sys
from pathlib import Path

import pytest

from odkit.run import EventLog, Run, create_run
from odkit.settings import Settings
from odkit.tensorboard import export_tensorboard
from tests.tiny import squares


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = create_run(squares(tmp_path / "squares", 8), Settings(epochs=2), tmp_path / "runs", "one")
    log = EventLog(run.path / "events.jsonl")
    log.write("start", step=0, from_step=0)
    more = {
        "learning_rate": 0.5,
        "grad_norm": 2.0,
        "images_per_second": 8.0,
        "data_wait": 0.25,
        "memory": 1e9,
    }
    for step in (1, 2):
        losses = {"box": 0.75, "class": 0.25}
        log.write("step", step=step, epoch=1, loss=1.0 / step, losses=losses, device_memory=0, **more)
    log.write("start", step=1, from_step=1, resumed=True)
    log.write("step", step=2, epoch=1, loss=None, losses={}, device_memory=5, **more)
    log.write("step", step=3, epoch=1, loss=0.25, losses={}, device_memory=5, **more)
    log.write("epoch", epoch=1, step=3, loss=0.5, seconds=4.0)
    log.write(
        "evaluation", epoch=1, step=3, ap=0.5, ap50=None, best=True, seconds=1.0, per_class={"red": 0.25}
    )
    log.write("warning", step=3, kind="x", message="mind the gap")
    log.close()
    return run


def test_tensorboard_reads_what_was_logged(run: Run, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    target = export_tensorboard(run, tmp_path / "board")
    assert target == tmp_path / "board" / "one"
    (target / "events.out.tfevents.0.other").touch()
    export_tensorboard(run, tmp_path / "board")  # again: in place of the first, and nothing else is touched
    assert sorted(path.suffix for path in target.iterdir()) == [".odkit", ".other"]

    read = EventAccumulator(str(next(target.glob("*.odkit"))))
    read.Reload()
    loss = read.Scalars("train/loss")
    assert [(point.step, point.value) for point in loss] == [(1, 1.0), (3, 0.25)]
    assert loss[0].wall_time == pytest.approx(run.events()[1]["time"], abs=1e-3)
    tags = read.Tags()["scalars"]
    assert read.Scalars("val/ap")[0].value == 0.5
    assert read.Scalars("val_class/red")[0].value == 0.25
    assert {"train/loss_box", "speed/data_wait_share", "memory/device_bytes", "epoch/loss"} <= set(tags)
    assert not {"val/ap50", "val/best", "val/epoch", "val/step", "val/time"} & set(tags)


def test_without_tensorboard_the_error_says_what_to_type(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # what Python does where it is missing
    with pytest.raises(RuntimeError, match=r"pip install 'odkit\[tensorboard\]'"):
        export_tensorboard(run, tmp_path / "board")
    assert not (tmp_path / "board").exists()
