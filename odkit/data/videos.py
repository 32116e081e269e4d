"""Videos and cameras as pictures, and videos written: by PyAV (the extra `video`), imported where one is opened."""

import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odkit.system import MissingPackageError, OdkitError, sync_folder

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts")
)
TICKS = 60_000
"""Ticks a second of a video that is written: a whole number of them for 24, 25, 30, 50 and 60 pictures a second."""
# The first that is there: H.264 plays in every browser, VP9 in most, MPEG-4 in players.
_ENCODERS = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "libopenh264": {},
    "libvpx-vp9": {"crf": "30", "b": "0", "cpu-used": "6"},
    "mpeg4": {"qscale": "3"},
}


class VideoError(OdkitError, ValueError):
    """A video or a camera cannot be read, or a video not be written; the message names it."""


class VideoFrame(NamedTuple):
    """A picture of a video."""

    pixels: NDArray[np.uint8]  # RGB [H, W, 3], upright
    seconds: float  # since the video's beginning


class Video:
    """A video file or a camera, opened; going through it gives its pictures, once.

    Attributes:
        name: The file's path, or "camera:0".
        live: Whether it is a camera, which has no end.
        rate: Pictures a second, on average.
        expected: Number of pictures by what the file says; 0 where it says nothing.
        sound: Whether there is a sound track.
        pixel_aspect: Width of a pixel by its height, as players show it.
        damaged: Packets that could not be decoded so far, and are left out.
    """

    def __init__(self, source: str | Path) -> None:
        """Open a video or a camera.

        Args:
            source: A file, or "camera:0", "camera:1", ... (on Windows "camera:" and the camera's name).

        Raises:
            MissingPackageError: PyAV is not installed.
            VideoError: There is no such file or camera, or no pictures in it that PyAV can decode.
        """
        av = _pyav("to read videos and cameras")
        self.name, self.live = str(source), is_camera(source)
        where, how = _camera(self.name.partition(":")[2]) if self.live else (self.name, {})
        try:
            self._container = av.open(where, **how)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"there is no camera {self.name!r} that can be opened ({_why(error)}); give another number, and see "
                "that nothing else uses it"
                if self.live
                else f"{self.name}: cannot be read as a video ({_why(error)})"
            ) from None
        if not self._container.streams.video:
            self.close()
            raise VideoError(f"{self.name}: there are no pictures in it")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        self.sound = bool(self._container.streams.audio)
        self.pixel_aspect = self._stream.sample_aspect_ratio or Fraction(1)
        seconds = (self._container.duration or 0) / 1e6
        self.expected = 0 if self.live else self._stream.frames or round(seconds * self.rate)
        self.damaged = 0

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        start = None
        for count, frame in enumerate(self._frames()):
            time = frame.time if frame.time is not None else count / self.rate
            start = time if start is None else start
            # by what the file says of its turn: counterclockwise, in degrees
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            yield VideoFrame(np.ascontiguousarray(pixels), max(0.0, float(time - start)))

    def _frames(self) -> Iterator[Any]:
        """The frames as decoded; packets that cannot be are counted, a file that cannot be read on ends there."""
        from av.error import FFmpegError

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (FFmpegError, OSError):
                self.damaged += 1
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except (FFmpegError, OSError):
                self.damaged += 1
                continue
            yield from frames


class VideoWriter:
    """A video that is written picture by picture; it is in its place, playable, when this is closed, even early.

    H.264 where PyAV has it, pixels as every browser plays them (yuv420p), no sound. Odd sides get a row or column of
    pixels more, at the bottom or the right.
    """

    def __init__(self, path: str | Path, rate: Fraction, *, pixel_aspect: Fraction = Fraction(1)) -> None:
        """Begin a video.

        Args:
            path: The new file, .mp4; its folder must be there.
            rate: Pictures a second, on average; each picture brings its own time.
            pixel_aspect: Width of a pixel by its height.

        Raises:
            MissingPackageError: PyAV is not installed.
            VideoError: PyAV can write no kind of video that is known here.
        """
        self._av = _pyav("to write videos")
        self.path, self.rate, self.pixel_aspect = Path(path), rate, pixel_aspect
        self._encoder = next((name for name in _ENCODERS if _can_encode(self._av, name)), "")
        if not self._encoder:
            raise VideoError(f"this PyAV can write none of {', '.join(_ENCODERS)}; install another one")
        self._part = self.path.with_name(f"{self.path.name[:50]}.{secrets.token_hex(6)}.tmp")
        self._container: Any = None
        self._last = -1

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, pixels: NDArray[np.uint8], seconds: float) -> None:
        """Add a picture, RGB uint8 [H, W, 3], as large as the first, shown from a time on."""
        height, width = pixels.shape[:2]
        if self._container is None:
            self._begin(width + width % 2, height + height % 2)
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        self._last = max(self._last + 1, round(seconds * TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, TICKS)
        self._put(frame)

    def close(self) -> None:
        """End the video and put it in its place; nothing where no picture came."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            for packet in self._stream.encode():
                self._mux(container, packet)
            container.close()
            os.replace(self._part, self.path)
            sync_folder(self.path.parent)
        finally:
            with suppress(OSError):
                self._part.unlink(missing_ok=True)

    def _begin(self, width: int, height: int) -> None:
        # the index first, so that a browser plays it while it loads
        self._container = self._av.open(self._part, "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_stream(
            self._encoder, rate=self.rate.limit_denominator(1001), options=dict(_ENCODERS[self._encoder])
        )
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._stream.codec_context.sample_aspect_ratio = self.pixel_aspect

    def _put(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._mux(self._container, packet)

    def _mux(self, container: Any, packet: Any) -> None:
        packet.duration = packet.duration or round(TICKS / self.rate)  # how long the last one is shown
        container.mux(packet)


def is_camera(source: Any) -> bool:
    """Whether a source is the name of a camera, "camera:0", and not a file's."""
    return isinstance(source, str) and source.startswith("camera:")


def _camera(name: str) -> tuple[str, dict[str, Any]]:
    """What PyAV opens for a camera, and how."""
    if sys.platform == "darwin":
        return name, {"format": "avfoundation", "options": {"framerate": "30"}}
    if sys.platform == "win32":
        return f"video={name}", {"format": "dshow"}
    return f"/dev/video{name}" if re.fullmatch(r"\d+", name) else name, {"format": "v4l2"}


def _can_encode(av: Any, name: str) -> bool:
    try:
        av.codec.Codec(name, "w")
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _pyav(purpose: str) -> Any:
    try:
        import av
    except ImportError:
        raise MissingPackageError(
            f"{purpose}, odkit needs PyAV, which is not installed: pip install 'odkit[video]'"
        ) from None
    return av
