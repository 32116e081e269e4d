"""Prediction: boxes in pixels of the original images, the detector left as it was found; device and data workers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from odkit.data import ImageReadError
from odkit.detection import inference, loading
from odkit.detection.detector import Detector, build_detector
from odkit.detection.inference import (
    FEW_IMAGES,
    gather,
    predict,
    predict_rows,
    workers_that_pay,
)
from odkit.detection.pictures import images_dataset
from odkit.system import InputError
from tests.helpers import squares


def test_boxes_come_back_in_original_pixels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dataset = squares(tmp_path, 6, size=96)
    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64).train()
    found = predict(detector, dataset, batch_size=4)
    assert detector.training
    assert found.class_names == ("blue", "red")
    assert found.image_ids == tuple(dataset.image_ids)
    assert len(found)
    assert found.boxes.max() <= 96
    assert found.boxes.max() > 64  # the boxes are not those of the 64-pixel image
    again = predict(detector, dataset, batch_size=1, num_workers=1)
    # single images are not padded by their neighbours, all are of one size here: the same but for rounding
    np.testing.assert_allclose(found.boxes, again.boxes, atol=0.05)
    assert (predict(detector, dataset, score=0.9).scores >= 0.9).all()


def test_parts_gather_to_the_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dataset = squares(tmp_path, 5)
    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64)
    even, odd = (
        predict_rows(detector, dataset, [0, 2, 4], batch_size=1),
        predict_rows(detector, dataset, [1, 3], batch_size=1),
    )
    whole = predict(detector, dataset, batch_size=1)
    joined = gather({**odd, **even}, dataset, detector.class_names)
    np.testing.assert_array_equal(joined.boxes, whole.boxes)
    np.testing.assert_array_equal(joined.images, whole.images)


def test_loose_images_become_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "deep/a.jpg"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    dataset = images_dataset(tmp_path)
    assert list(dataset.image_ids) == ["b.png", "deep/a.jpg"]
    assert len(images_dataset(tmp_path / "b.png")) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images"):
        images_dataset(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        images_dataset(tmp_path / "absent")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_image_is_named_and_the_detector_is_left_as_it_was(
    tmp_path: Path, num_workers: int
) -> None:
    dataset = squares(tmp_path, 3)
    Path(dataset.image_paths[1]).write_text("no image")
    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64).train()
    with pytest.raises(ImageReadError) as caught:
        predict(detector, dataset, num_workers=num_workers)
    assert str(caught.value).startswith(str(dataset.image_paths[1]))
    assert "Traceback" not in str(caught.value)
    assert detector.training


def test_each_part_of_a_detector_is_left_in_its_own_mode() -> None:
    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64).train()
    parts = list(detector.modules())
    parts[len(parts) // 2].training = False  # as a part that is not to learn
    before = [part.training for part in parts]
    detector.predict(np.zeros((64, 64, 3), np.uint8))
    assert [part.training for part in parts] == before
    with pytest.raises(InputError, match=r"a detector comes first, and this is a str; od.load_detector"):
        predict("run", np.zeros((64, 64, 3), np.uint8))  # type: ignore[arg-type]


def test_a_detector_is_moved_where_it_can_still_be_trained_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters that come to another device within inference mode could not be."""
    within: list[bool] = []

    def seen(self: Detector, device: torch.device) -> Detector:
        within.append(torch.is_inference_mode_enabled())
        self.place = torch.nn.Parameter(torch.empty(0, device=device))
        return self

    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64)
    detector.register_parameter(
        "place", torch.nn.Parameter(torch.empty(0, device="meta"))
    )  # the first of them
    monkeypatch.setattr(Detector, "to", seen)
    predict(detector, squares(tmp_path, 2), device="cpu")
    assert within == [False, False]  # there and back
    assert detector.place.device.type == "meta"


def test_what_cannot_be_is_said_before_the_work(tmp_path: Path) -> None:
    dataset = squares(tmp_path, 2)
    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64)
    for wrong in ({"batch_size": 0}, {"num_workers": -2}, {"device": "gpu"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            predict(detector, dataset, **wrong)


def test_data_workers_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for room in (inference, loading):
        monkeypatch.setattr(room, "cpu_count", lambda: 16)
    monkeypatch.setattr(loading, "workers_that_fit", lambda wanted, size, **_: (wanted, ""))
    monkeypatch.setattr(inference, "workers_fork", lambda: True)
    sizes = {"batch_size": 8, "image_size": 320}
    assert workers_that_pay(gpu, FEW_IMAGES, **sizes) == (15, "16 cores for 1 process(es)")
    assert workers_that_pay(cpu, FEW_IMAGES, **sizes)[0] == 4
    assert workers_that_pay(gpu, FEW_IMAGES - 1, **sizes)[0] == 0  # decoded before a worker has started
    for room in (inference, loading):
        monkeypatch.setattr(room, "cpu_count", lambda: 2)
    assert workers_that_pay(cpu, 10_000, **sizes)[0] == 0
    assert workers_that_pay(gpu, 10_000, **sizes)[0] == 1
    for room in (inference, loading):
        monkeypatch.setattr(room, "cpu_count", lambda: 4)
    monkeypatch.setattr(loading, "workers_that_fit", lambda wanted, size, **_: (1, "/dev/shm is small"))
    assert workers_that_pay(gpu, 10_000, **sizes) == (1, "/dev/shm is small")
    monkeypatch.setattr(inference, "workers_fork", lambda: False)
    assert workers_that_pay(gpu, 10_000, **sizes)[0] == 0  # each would import torch anew


def test_predict_takes_the_workers_that_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = squares(tmp_path, 4)
    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64)
    asked = []
    monkeypatch.setattr(
        inference, "workers_that_pay", lambda device, images, **_: (asked.append(images) or 1, "")
    )
    chosen = predict(detector, dataset, batch_size=2, device="cpu")
    assert asked == [4]
    given = predict(detector, dataset, batch_size=2, num_workers=0, device="cpu")
    assert asked == [4]
    np.testing.assert_array_equal(chosen.boxes, given.boxes)


def test_what_is_found_does_not_depend_on_the_neighbours(tmp_path: Path) -> None:
    """Sizes are mixed; padding would reach the features of the smaller one."""
    dataset = squares(tmp_path, 4)
    wide = Path(dataset.image_paths[1])
    Image.open(wide).resize((160, 64)).save(wide)
    sizes = dataset.image_sizes.copy()
    sizes[1] = 160, 64
    dataset = dataset.replace(image_sizes=sizes)
    torch.manual_seed(0)
    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64)
    together = predict_rows(detector, dataset, range(4), batch_size=4)
    alone = predict_rows(detector, dataset, range(4), batch_size=1)
    assert sorted(together) == sorted(alone) == [0, 1, 2, 3]
    for row in range(4):
        for one, other in zip(together[row], alone[row], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
