"""How fast each detector trains here, told for every one of the catalogue."""

import math

import pytest
import torch

from odkit import detection
from odkit.doctor import speed
from odkit.doctor.speed import Speed, Speeds, detector_speeds, in_time
from odkit.system import GB, InputError


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Minutes an image by detector, in place of a measurement; what is not in it takes a minute."""
    pace: dict[str, float] = {}
    monkeypatch.setattr(detection, "minutes_an_epoch", lambda name, **_: pace.get(name, 1.0))
    monkeypatch.setattr(speed.machine, "memory_free_bytes", lambda: 16 * GB)
    return pace


def test_every_detector_has_its_row_and_the_fastest_is_first(paced: dict[str, float]) -> None:
    paced.update({"starter": 1 / 600, "dfine_nano": 1 / 60})
    found = detector_speeds(images=300, device="cpu")
    assert {row.name for row in found.rows} == {row["name"] for row in detection.list_detectors()}
    assert [row.name for row in found.rows][:2] == ["starter", "dfine_nano"]
    starter = found.rows[0]
    assert starter.images_per_second == pytest.approx(10)
    assert (found.images, found.epochs) == (300, 15)
    assert starter.minutes == pytest.approx(300 * 15 / 10 / 60)
    assert "made for a GPU" in found.rows[-1].why_not
    assert "fasterrcnn_resnet50_fpn" not in found.images_per_second
    assert "starter: 10 images/s, 8 min for a run" in repr(found)
    assert "<td" in found._repr_html_()
    assert "nan " not in repr(found)
    assert ">nan<" not in found._repr_html_()


def test_little_memory_leaves_the_starter(paced: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed.machine, "memory_free_bytes", lambda: GB)
    found = detector_speeds(device="cpu")
    assert list(found.images_per_second) == ["starter"]
    assert "of memory only 1.0 GB are free" in repr(found)


def test_what_fails_is_told_in_its_row(paced: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **_: object) -> float:
        if name == "dfine_nano":
            raise InputError("D-FINE needs the package transformers")
        if name.startswith("ssdlite"):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 0.01

    monkeypatch.setattr(detection, "minutes_an_epoch", fail)
    rows = {row.name: row for row in detector_speeds(device="cpu").rows}
    assert rows["dfine_nano"].why_not == "D-FINE needs the package transformers"
    assert "do not fit into the GPU's memory" in rows["ssdlite320_mobilenet_v3_large"].why_not
    assert not rows["starter"].why_not


def test_when_the_time_is_up_no_further_one_is_begun(paced: dict[str, float]) -> None:
    found = detector_speeds(device="cpu", seconds=-1)
    assert not found.images_per_second
    assert "not begun: the time was up" in repr(found)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(InputError, match="cuda:63"):
        detector_speeds(device="cuda:63")


def test_the_starter_is_really_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in detection.list_detectors() if row["name"] == "starter"]
    monkeypatch.setattr(detection, "list_detectors", lambda: rows)
    monkeypatch.setattr(speed, "_STEPS_SECONDS", 0.0)
    (row,) = detector_speeds(device="cpu").rows
    assert row.images_per_second > 0
    assert row.minutes == pytest.approx(300 * 15 / row.images_per_second / 60)


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(0.3, "under a minute"), (14.2, "14 min"), (89, "89 min"), (150, "2 h"), (60 * 47, "2 days")],
)
def test_time_in_words(minutes: float, words: str) -> None:
    assert in_time(minutes) == words


def test_nothing_measured_is_said() -> None:
    nothing = Speeds((Speed("starter", 320, math.nan, math.nan, "not begun"),), "cpu", 300, 15)
    assert "starter: not begun" in repr(nothing)
