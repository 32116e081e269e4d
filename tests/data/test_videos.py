"""Videos read upright and at their time, and written so that they play."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from odkit.data import Video, VideoError, VideoWriter, videos
from odkit.system import MissingPackageError
from tests.helpers import made_video


def test_pictures_come_with_their_time_and_turned_upright(tmp_path: Path) -> None:
    plain = made_video(tmp_path / "plain.mp4", 5, rate=Fraction(30000, 1001))
    with Video(plain) as video:
        assert (video.rate, video.expected, video.sound, video.live) == (
            Fraction(30000, 1001),
            5,
            False,
            False,
        )
        frames = list(video)
    assert [round(frame.seconds * 30000 / 1001, 3) for frame in frames] == [0, 1, 2, 3, 4]
    lying = frames[0].pixels
    assert lying.shape == (48, 64, 3)
    for degrees, turns in ((90, 1), (-90, 3), (180, 2)):
        turned = made_video(tmp_path / f"{degrees}.mp4", 5, turned=degrees, rate=Fraction(30000, 1001))
        with Video(turned) as video:
            pixels = next(iter(video)).pixels.astype(int)
        # x264 does not promise the same bytes twice; the square's red alone is 70 and more below the noise's
        np.testing.assert_allclose(pixels, np.rot90(lying, turns), atol=20)


def test_what_is_damaged_is_left_out_and_counted(tmp_path: Path) -> None:
    data = bytearray(made_video(tmp_path / "a.mkv", 30).read_bytes())
    with Video(tmp_path / "a.mkv") as video:
        whole = len(list(video))
    (tmp_path / "a.mkv").write_bytes(data[: len(data) * 2 // 3])
    with Video(tmp_path / "a.mkv") as video:
        assert 0 < len(list(video)) < whole == 30


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    for path in (tmp_path / "a.mp4", tmp_path / "absent.mp4"):
        with pytest.raises(VideoError, match=f"{path.name}: cannot be read as a video"):
            Video(path)
    with av.open(str(tmp_path / "sound.m4a"), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.rate = 8000
        container.mux([*stream.encode(silence), *stream.encode()])
    with pytest.raises(VideoError, match="no pictures in it"):
        Video(tmp_path / "sound.m4a")
    with pytest.raises(VideoError, match="there is no camera 'camera:77'"):
        Video("camera:77")


def test_without_pyav_it_is_said_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'odkit\[video\]'"):
        Video("a.mp4")


@pytest.mark.parametrize("encoder", list(videos._ENCODERS))
def test_a_written_video_has_every_picture_at_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    if not videos._can_encode(av, encoder):
        pytest.skip(f"this PyAV has no {encoder}")
    monkeypatch.setattr(videos, "_ENCODERS", {encoder: videos._ENCODERS[encoder]})
    times = [0, 0.04, 0.08, 0.2, 0.24]  # a phone's pictures come as they like
    with VideoWriter(tmp_path / "out.mp4", Fraction(25)) as writer:
        for number, seconds in enumerate(times):
            writer.write(np.full((33, 47, 3), 40 * number, np.uint8), seconds)
        assert not (tmp_path / "out.mp4").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.codec_context.pix_fmt) == (48, 34, "yuv420p")
        frames = list(container.decode(stream))
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=1e-3)
    for number, frame in enumerate(frames):
        assert abs(int(np.median(frame.to_ndarray(format="rgb24"))) - 40 * number) < 12


def test_a_video_that_ends_early_is_there_and_one_without_a_picture_is_not(tmp_path: Path) -> None:

    def interrupted() -> None:
        with VideoWriter(tmp_path / "out.mp4", Fraction(25)) as writer:
            for number in range(10):
                writer.write(np.zeros((32, 32, 3), np.uint8), number / 25)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with Video(tmp_path / "out.mp4") as video:
        assert len(list(video)) == 10
    with VideoWriter(tmp_path / "none.mp4", Fraction(25)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
