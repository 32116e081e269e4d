"""A detector tried on pictures: what is shown, and what is said of a file that is none."""

import base64
import io
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from odkit.browsing import trial, try_it
from odkit.data import Dataset, ImageReadError
from odkit.detection import Detector, build_detector
from odkit.detection.inference import predict
from odkit.system import FrontEnd, InputError
from tests.helpers import squares


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return squares(tmp_path_factory.mktemp("squares"), 2, size=96, val=0)


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    made = build_detector("starter", ["blue", "red"], weights="random", image_size=64).eval()
    torch.nn.init.constant_(
        made.get_parameter("module.head.classes.bias"), 0.0
    )  # as sure as can be of anything
    return made


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "front_end", lambda: FrontEnd(os.getpid(), "/", "http://127.0.0.1:1/", ""))


def test_it_finds_what_predict_finds_and_shows_it(dataset: Dataset, detector: Detector) -> None:
    found = predict(detector, dataset.select([0]))
    score = float(np.sort(found.scores)[-5])  # five boxes at least
    tried = try_it(detector, dataset.image_paths[0], score=score)
    assert tried.found is not None
    np.testing.assert_array_equal(tried.found.boxes, found.above(0.05).boxes)
    assert repr(tried).startswith("000.png: ")
    assert sum(int(part.split()[-1]) for part in repr(tried).split(": ")[1].split(", at")[0].split(", ")) >= 5
    plain = Image.open(dataset.image_paths[0]).convert("RGB")
    shown = tried.shown()
    assert shown is not None
    assert shown.size == plain.size
    assert shown.tobytes() != plain.tobytes(), "boxes are drawn"
    bundle = tried._repr_mimebundle_()
    picture = Image.open(io.BytesIO(base64.b64decode(bundle["image/jpeg"])))
    assert picture.size == plain.size
    assert bundle["text/plain"] == repr(tried)
    nothing = try_it(detector, dataset.image_paths[0], score=1.0)
    assert repr(nothing) == "000.png: nothing, at a score of 1.00 or more"


def test_a_large_picture_is_shown_smaller_with_its_boxes_in_place(
    dataset: Dataset, detector: Detector, tmp_path: Path
) -> None:
    large = tmp_path / "large.png"
    Image.open(dataset.image_paths[0]).resize((2400, 1200), Image.Resampling.NEAREST).save(large)
    tried = try_it(detector, large, score=0.05)
    assert tried.found is not None
    assert tried.found.boxes.max() > 1000, "in pixels of the picture itself"
    shown = tried.shown()
    assert shown is not None
    assert shown.size == (1000, 500)


def test_without_a_picture_it_waits_for_one(detector: Detector) -> None:
    tried = try_it(detector)
    assert repr(tried) == "No picture yet."
    assert tried.shown() is None
    assert tried._repr_mimebundle_() == {"text/plain": "No picture yet."}


def test_what_is_given_wrongly_is_said(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="score=0 must be"):
        try_it(detector, score=0)
    with pytest.raises(ImageReadError, match="there is no such file"):
        try_it(detector, tmp_path / "gone.png")


def test_an_upload_is_looked_at_and_the_score_moves(
    dataset: Dataset, detector: Detector, watched: None
) -> None:
    tried = try_it(detector, dataset.image_paths[0])
    choose, score, said, shown = tried.widget.children
    upload, path = choose.children
    before = shown.value
    content = Path(dataset.image_paths[1]).read_bytes()
    file = {
        "name": "<b>mine</b>.png",
        "type": "image/png",
        "size": len(content),
        "last_modified": datetime.now(UTC),
    }
    upload.value = ({**file, "content": memoryview(content)},)
    assert tried.name == "<b>mine</b>.png"
    assert said.value.startswith("&lt;b&gt;mine&lt;/b&gt;.png: ")
    assert shown.value != before
    score.value = 1.0
    assert tried.score == 1.0
    assert "nothing, at a score of 1.00" in said.value
    upload.value = ({**file, "name": "notes.txt", "content": memoryview(b"no picture")},)
    assert "notes.txt cannot be read as a picture" in said.value
    assert tried.name == "<b>mine</b>.png", "the last one stays"
    path.value = dataset.image_paths[0]
    assert said.value.startswith("000.png: ")
    path.value = "/nowhere/at/all.png"
    assert "/nowhere/at/all.png: there is no such file" in said.value
