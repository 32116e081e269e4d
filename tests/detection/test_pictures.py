"""Predicting on whatever a person has: the same boxes whichever way the same pictures are given."""

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import odkit
from odkit.data import Dataset, ImageReadError, Predictions, VideoError, videos
from odkit.detection import Detector, build_detector, find_pictures, images_dataset, predict, predict_stream
from odkit.detection.tiles import Tiling
from odkit.system import InputError, MissingFileError
from tests.helpers import made_video, squares

COLUMNS = ("boxes", "scores", "classes", "images")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures, one of them wide, one in a folder below."""
    folder = tmp_path_factory.mktemp("pictures")
    squares(folder, 6)
    with Image.open(folder / "001.png") as picture:
        picture.resize((150, 64)).save(folder / "001.png")
    (folder / "deep").mkdir()
    shutil.move(folder / "005.png", folder / "deep")
    return folder


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return build_detector("starter", ["blue", "red"], weights="random", image_size=64)


def the_same(one: Predictions, other: Predictions) -> None:
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(one, column), getattr(other, column))
    np.testing.assert_array_equal(one.image_sizes, other.image_sizes)


@pytest.mark.parametrize("tiles", [0, 64])
def test_the_same_pictures_give_the_same_boxes(folder: Path, detector: Detector, tiles: int) -> None:
    dataset = images_dataset(folder, ("blue", "red"))
    expected = predict(detector, dataset, tiles=tiles)
    assert len(expected)
    files = dataset.image_paths.tolist()
    arrays = [np.array(Image.open(file).convert("RGB")) for file in files]
    tensors = [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
    ways = {
        "folder": folder,
        "text": str(folder),
        "paths": [Path(file) for file in files],
        "column of paths": dataset.image_paths,
        "pattern": str(folder / "**" / "*.png"),
        "arrays": arrays,
        "PIL images": [Image.open(file) for file in files],
        "tensors": tensors,
        "floats": [tensor / 255 for tensor in tensors],
        "mixed": [files[0], arrays[1], tensors[2], Image.fromarray(arrays[3]), [files[4], arrays[5]]],
    }
    if tiles:  # the way is the same; each costs more
        ways = {way: ways[way] for way in ("folder", "mixed")}
    for way, source in ways.items():
        found = (
            detector.predict(source, tiles=tiles) if way == "text" else predict(detector, source, tiles=tiles)
        )
        the_same(found, expected)
        if way in ("folder", "text", "paths", "column of paths", "pattern"):
            assert (
                list(found.image_ids)
                == dataset.image_ids.tolist()
                == [*(f"00{k}.png" for k in range(5)), "deep/005.png"]
            )
            assert list(found.image_paths) == files
        if way == "mixed":
            assert found.image_ids[:2] == ("000.png", "picture-000000")
            assert found.image_paths[:2] == (files[0], "")
    same = [row for row in range(6) if row != 1]
    batch = predict(detector, np.stack([arrays[row] for row in same]), tiles=tiles)
    the_same(batch, predict(detector, torch.stack([tensors[row] for row in same]), tiles=tiles))


def test_one_picture_is_looked_at_alone(folder: Path, detector: Detector) -> None:
    found = detector.predict(folder / "000.png")
    assert found.image_ids == ("000.png",)
    the_same(found, detector.predict(Image.open(folder / "000.png")))
    assert (detector.predict(folder / "000.png", score=0.5).scores >= 0.5).all()


def test_processes_that_decode_change_nothing(folder: Path, detector: Detector) -> None:
    the_same(predict(detector, folder, num_workers=1), predict(detector, folder, num_workers=0))


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("tiles", [0, 64])
def test_what_cannot_be_read_costs_the_others_nothing(
    folder: Path, detector: Detector, tmp_path: Path, num_workers: int, tiles: int
) -> None:
    expected = predict(detector, folder, tiles=tiles)
    shutil.copytree(folder, tmp_path / "some")
    whole = (folder / "000.png").read_bytes()
    for name in ("000a.png", "deep/a.png"):  # the header is whole: decoding finds out
        (tmp_path / "some" / name).write_bytes(whole[: len(whole) // 2])
    (tmp_path / "some" / "003a.jpg").write_text("no image")
    with pytest.warns(UserWarning, match=r"3 pictures left out: .*000a\.png: cannot be read"):
        found = predict(detector, tmp_path / "some", num_workers=num_workers, tiles=tiles)
    assert found.image_ids == expected.image_ids
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)  # other neighbours in the batch
    with pytest.raises(ImageReadError, match=r"003a\.jpg: cannot be read"):
        predict(detector, tmp_path / "some" / "003a.jpg")
    with pytest.raises(ImageReadError, match="none of 2 pictures can be read"):
        predict(detector, str(tmp_path / "some" / "00*a.*"))
    (tmp_path / "some" / "003a.jpg").unlink()  # which not even a Dataset can be made of
    with pytest.raises(
        ImageReadError, match=r"000a\.png|deep/a\.png"
    ):  # of a dataset it is an error, as ever
        predict(detector, images_dataset(tmp_path / "some"))


def test_stopping_keeps_what_was_looked_at(folder: Path, detector: Detector) -> None:
    asked = itertools.count()
    found = predict(detector, [folder, folder / "000.png"], batch_size=2, stop=lambda: next(asked) >= 1)
    assert found.image_ids == ("000.png", "001.png", "002.png")  # the wide one is a batch by itself
    assert found.image_paths == tuple(images_dataset(folder).image_paths[:3])


def test_ids_differ_where_names_do_not(folder: Path) -> None:
    (part,) = find_pictures([folder / "000.png", folder / "000.png", folder / "deep"], ("a",))
    assert part.dataset.image_ids.tolist() == ["000.png", "000_2.png", "deep/005.png"]


NOTHING_TO_LOOK_AT: dict[str, Any] = {
    "no file or folder at": "absent.jpg",
    "no picture and no video fits": "*.nothing",
    "is an address: odkit fetches nothing": "https://example.org/a.jpg",
    "the list is empty": [],
    "nothing (None)": None,
    "a dict is nothing to look at": {},
    "a float is": 0.5,
    "a bool is": [True],
    "a bytes is": b"a.jpg",
    "'' is no path": "",
    "is no path": "a\0b",
    "picture-000001: the array holds int64": [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.int64)],
    "a Dataset is looked at by itself": [
        Dataset(
            class_names=("a",),
            image_paths=[],
            image_sizes=[],
            boxes=np.zeros((0, 4)),
            box_classes=[],
            box_images=[],
        )
    ],
    "no folder": "~nobody-of-this-name/a.jpg",
    "neither a file nor a folder": "pipe",
    "no images (": "empty",
    "there are videos: give their names": "only-videos",
}


@pytest.mark.parametrize("message", NOTHING_TO_LOOK_AT)
def test_what_is_nothing_to_look_at_is_said(
    message: str, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("empty").mkdir()
    Path("only-videos").mkdir()
    Path("only-videos/a.mp4").touch()
    with pytest.raises((InputError, MissingFileError)) as caught:
        predict(detector, NOTHING_TO_LOOK_AT[message])
    assert message.replace("no folder", "no file or folder") in str(caught.value)


@pytest.mark.parametrize("score", [-0.1, 1.5, float("nan")])
def test_a_score_is_from_0_to_1(score: float, detector: Detector, folder: Path) -> None:
    with pytest.raises(InputError, match="score must be from 0 to 1"):
        predict(detector, folder, score=score)


# -- videos, cameras, iterators ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_video(tmp_path_factory.mktemp("clip") / "clip.mp4", 10)


def test_a_video_is_its_pictures(clip: Path, detector: Detector, folder: Path) -> None:
    with videos.Video(clip) as video:
        pixels = [frame.pixels for frame in video]
    expected = predict(detector, pixels, batch_size=4)
    found = predict(detector, clip, batch_size=4)
    the_same(found, expected)
    assert found.image_ids == tuple(f"clip-{k:06d}" for k in range(10))
    the_same(predict(detector, iter(pixels), batch_size=4), expected)
    both = predict(detector, [folder / "000.png", clip], batch_size=4)
    assert len(both.image_ids) == 11
    tiled = predict(detector, clip, tiles=64)
    the_same(tiled, predict(detector, pixels, tiles=64))


def test_a_stream_gives_each_picture_with_what_is_in_it(clip: Path, detector: Detector) -> None:
    detector.train()
    whole = predict(detector, clip, score=0.01, batch_size=4)
    seen = list(predict_stream(detector, clip, score=0.01, batch_size=4))
    assert [frame.image_id for frame in seen] == list(whole.image_ids)
    np.testing.assert_array_equal(np.concatenate([frame.boxes for frame in seen]), whole.boxes)
    assert [round(frame.seconds * 25) for frame in seen] == list(range(10))
    frames = predict_stream(detector, clip, batch_size=4)
    assert not detector.training or next(frames)  # begun, it is in evaluation mode
    assert not detector.training
    frames.close()
    assert detector.training
    detector.eval()
    stopped = predict_stream(detector, clip, stop=lambda: True)
    assert len(list(stopped)) == 1
    for wrong in ([clip, clip], np.zeros((4, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="one video, camera or iterator"):
            predict_stream(detector, wrong)


def test_no_more_than_a_few_batches_are_in_memory(detector: Detector) -> None:
    given, asked = itertools.count(), 0

    def endless() -> Iterator[Any]:
        while True:
            next(given)
            yield np.zeros((48, 64, 3), np.uint8)

    for frame in predict_stream(detector, endless(), batch_size=4):
        asked += 1
        if frame.image_id == "frame-000020":
            break
    assert next(given) - asked <= 4


def test_what_an_iterator_gives_is_looked_at_before_it_is_predicted(detector: Detector) -> None:
    with pytest.raises(InputError, match="frame-000000: the iterator gave a int"):
        list(predict_stream(detector, iter([1])))


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that PyAV draws."""
    if "lavfi" not in __import__("av").formats_available:
        pytest.skip("this PyAV draws no test pictures")
    monkeypatch.setattr(videos, "_camera", lambda name: ("testsrc=size=64x48:rate=25", {"format": "lavfi"}))


@pytest.mark.usefixtures("camera")
@pytest.mark.parametrize("source", [0, np.int64(0), "camera:0"])
def test_a_camera_is_looked_at_until_it_is_enough(source: Any, detector: Detector) -> None:
    asked = itertools.count(1)
    found = predict(detector, source, stop=lambda: next(asked) >= 3)
    assert found.image_ids[:3] == ("camera-0-000000", "camera-0-000001", "camera-0-000002")
    assert len(found.image_ids) == 3


@pytest.mark.usefixtures("camera")
def test_ctrl_c_ends_a_camera_and_keeps_what_was_found(detector: Detector) -> None:
    asked = itertools.count(1)

    def pressed() -> bool:
        if next(asked) == 5:
            raise KeyboardInterrupt
        return False

    assert len(predict(detector, "camera:0", stop=pressed).image_ids) == 5


def test_a_damaged_video_gives_what_is_whole(clip: Path, detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be read as a video"):
        predict(detector, tmp_path / "a.mp4")


def test_a_tiled_detector_looks_at_frames_in_tiles(clip: Path, detector: Detector) -> None:
    detector.tiling = Tiling(64, 12, whole=False)
    try:
        assert len(odkit.predict(detector, clip).image_ids) == 10
    finally:
        detector.tiling = None
