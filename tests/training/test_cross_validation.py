"""Predictions for every image by a detector that has not seen it."""

from pathlib import Path

import numpy as np
import pytest

import odkit as od
from odkit.runs.run import list_runs
from odkit.runs.run import open_run as open_one
from tests.helpers import squares


@pytest.mark.worker
def test_every_image_is_judged_by_the_detector_that_has_not_seen_it(tmp_path: Path) -> None:
    dataset = squares(tmp_path / "squares", 12, val=0)
    quick = {"epochs": 2, "image_size": 64, "folder": tmp_path / "runs"}
    found = od.cross_val_predict(dataset, folds=2, **quick)
    assert list(found.image_ids) == list(dataset.image_ids)
    runs = sorted(list_runs(tmp_path / "runs"), key=lambda run: run.name)
    assert [run.state for run in runs] == ["finished", "finished"]
    trained = [set(run.dataset("train").image_ids) for run in runs]
    judged = [set(run.dataset("val").image_ids) for run in runs]
    assert trained[0] == judged[1]
    assert trained[1] == judged[0]
    assert trained[0].isdisjoint(trained[1])
    assert trained[0] | trained[1] == set(dataset.image_ids)
    for run in runs:
        here = run.predictions()
        for row, image_id in enumerate(here.image_ids):
            whole = found.of(list(found.image_ids).index(image_id))
            assert np.array_equal(found.boxes[whole], here.boxes[here.of(row)])
            assert np.array_equal(found.scores[whole], here.scores[here.of(row)])

    # called again: what is finished stays, what was broken off goes on
    log = (runs[1].path / "events.jsonl").read_text().splitlines(keepends=True)
    (runs[1].path / "events.jsonl").write_text("".join(log[:-1]))  # as if killed just before its end
    began = len(open_one(runs[0].path).events())
    again = od.cross_val_predict(dataset, folds=2, **quick)
    assert np.array_equal(again.boxes, found.boxes)
    assert len(open_one(runs[0].path).events()) == began


def test_too_few_or_too_many_parts(tmp_path: Path) -> None:
    dataset = squares(tmp_path / "squares", 4, val=0)
    for folds in (1, 5):
        with pytest.raises(ValueError, match=f"folds={folds} must be 2 to 4"):
            od.cross_val_predict(dataset, folds=folds, folder=tmp_path)


def test_folds_keep_duplicates_together(tmp_path: Path) -> None:
    dataset = squares(tmp_path / "squares", 9, val=0)
    Path(dataset.image_paths[8]).write_bytes(Path(dataset.image_paths[0]).read_bytes())
    folds = dataset.folds(3)
    assert folds[0] == folds[8]
    assert sorted(set(folds.tolist())) == [0, 1, 2]
    assert np.array_equal(folds, dataset.folds(3))
    with pytest.raises(ValueError, match="8 different images cannot be dealt to 9 parts"):
        dataset.folds(9)
