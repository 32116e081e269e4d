"""Boxes drawn into pictures and videos themselves, pixel for pixel: what `odkit predict --out` writes."""

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from odkit import detection
from odkit.analysis.figures.colors import class_color, ink_on
from odkit.data import HeldPicture, Predictions, Video, VideoWriter, open_upright
from odkit.data.formats import distinct, kept_ids
from odkit.system import FileInTheWayError, InputError, progress_bar

if TYPE_CHECKING:
    from odkit.detection import Detector, OnnxDetector, SeenFrame

_KEPT = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # written as they came, others as PNG


def draw_boxes(
    image: Image.Image, boxes: ArrayLike, classes: Sequence[int], names: Sequence[str]
) -> Image.Image:
    """A copy of an image (RGB) with boxes drawn in, in the colours of their classes.

    Args:
        image: Upright.
        boxes: xyxy in pixels [n, 4].
        classes: The class index of each box [n], 0-based: its colour.
        names: What stands at each box [n], as "bolt 0.87".
    """
    picture = image.convert("RGB").copy()
    pen, thick = ImageDraw.Draw(picture), max(2, round(max(picture.size) / 400))
    font: Any = ImageFont.load_default(size=max(11, 5 * thick))
    corners: NDArray[Any] = np.asarray(boxes, float).reshape(-1, 4)
    for (x1, y1, x2, y2), label, name in zip(corners.tolist(), classes, names, strict=True):
        color = class_color(label)
        pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=color, width=thick)
        left, _, right, bottom = pen.textbbox((0, 0), name, font=font)
        y = y1 - bottom - 2 if y1 > bottom + 2 else y1
        pen.rectangle((x1, y, x1 + right - left + 4, y + bottom + 2), fill=color)
        pen.text((x1 + 2 - left, y), name, fill=ink_on(color), font=font)
    return picture


def draw_found(
    image: Image.Image, boxes: ArrayLike, scores: ArrayLike, classes: ArrayLike, class_names: Sequence[str]
) -> Image.Image:
    """A copy of an upright image with what was found drawn in: the boxes, their classes and scores."""
    labels: list[int] = np.asarray(classes, np.int64).tolist()
    sure: list[float] = np.asarray(scores, np.float64).tolist()
    names = [f"{class_names[label]} {score:.2f}" for label, score in zip(labels, sure, strict=True)]
    return draw_boxes(image, boxes, labels, names)


def draw_predictions(
    found: Predictions, folder: str | Path, *, pictures: Sequence[Any] | None = None
) -> list[Path]:
    """Write each picture, upright, with what was found drawn in, under its id below a folder.

    JPEG, PNG, WebP, BMP and TIFF stay what they are, all else becomes PNG.

    Args:
        found: The predictions; `above(score)` chooses among them.
        folder: Where to; nothing there is replaced.
        pictures: What was predicted on, in its order, where that were no files: arrays, PIL images, tensors.

    Raises:
        FileInTheWayError: A picture is there already.
        InputError: The predictions do not know their pictures' files, or `pictures` are others.
        ImageReadError: A picture cannot be read (any more).
    """
    dataset = found.dataset()
    if pictures is not None and len(pictures) != len(dataset):
        raise InputError(f"{len(pictures)} pictures were given for predictions of {len(dataset)}")
    if pictures is None and not all(dataset.image_paths):
        raise InputError("some of these pictures were in no file: give them as pictures=, in the same order")
    targets = [Path(folder) / name for name in distinct([picture_name(name) for name in kept_ids(dataset)])]
    for target in targets:
        if target.exists():
            raise FileInTheWayError(f"{target} is there already; give a new folder")
    for image, target in enumerate(targets):
        if pictures is None:
            picture = open_upright(dataset.image_paths[image])
        else:
            picture = Image.fromarray(HeldPicture(pictures[image], dataset.image_ids[image]).pixels())
        rows = found.of(image)
        target.parent.mkdir(parents=True, exist_ok=True)
        columns = (found.boxes[rows], found.scores[rows], found.classes[rows])
        draw_found(picture, *columns, found.class_names).save(target, quality=92)
    return targets


def picture_name(image_id: str) -> str:
    """The file name for a picture with boxes: its id, with a suffix that can be written."""
    return image_id if os.path.splitext(image_id)[1].lower() in _KEPT else f"{image_id}.png"


def annotate_video(
    detector: "Detector | OnnxDetector",
    source: Any,
    target: str | Path,
    *,
    score: float = 0.3,
    each: "Callable[[SeenFrame], object]" = lambda frame: None,
    **how: Any,
) -> Predictions:
    """Write a video with what a detector finds drawn in, at the pace of the original and without its sound.

    However long it is, no more than a few batches of pictures are in memory at once. `stop` and Ctrl-C leave a video
    of what was done until then; of a camera, Ctrl-C is the usual end.

        od.annotate_video(detector, "clip.mp4", "clip-found.mp4")

    Args:
        detector: Left as it was found.
        source: Path of a video, a camera (0 or "camera:0"), or an iterator of pictures (25 a second).
        target: The new file, .mp4.
        score: What the detector is less sure of is left out, 0 to 1.
        each: Called with each picture and what was found in it.
        **how: `tiles`, `batch_size`, `device`, `precision`, `stop`, as in `od.predict`.

    Returns:
        What was found, with an id for each picture; `above(score)` of it.

    Raises:
        FileInTheWayError: There is a file at `target` already.
        InputError: `target` is no .mp4, or the source no stream of pictures.
        VideoError: The video or camera cannot be opened.
        MissingPackageError: PyAV is not installed.
    """
    target = Path(target)
    if target.suffix.lower() != ".mp4":
        raise InputError(f"{target}: a video is written as .mp4")
    if target.exists():
        raise FileInTheWayError(f"{target} is there already; give the path of a new file")
    if not target.parent.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}")
    opened = detection.OpenedStream.of(source)
    video = opened.frames if isinstance(opened.frames, Video) else None
    rate, aspect = (video.rate, video.pixel_aspect) if video else (Fraction(25), Fraction(1))
    found = detection.FoundFrames(detector)
    bar = progress_bar(
        total=(video and video.expected) or None, desc=f"drawing {target.name}", unit="image", delay=2
    )
    frames = detection.predict_stream(detector, opened, score=score, **how)
    with bar, closing(frames), VideoWriter(target, rate, pixel_aspect=aspect) as writer:
        try:
            for number, frame in enumerate(frames):
                drawn = draw_found(
                    Image.fromarray(frame.pixels),
                    frame.boxes,
                    frame.scores,
                    frame.classes,
                    detector.class_names,
                )
                writer.write(np.asarray(drawn), frame.seconds if video else float(number / rate))
                found.take(frame)
                each(frame)
                bar.update()
        except KeyboardInterrupt:
            if video is None or not video.live:
                raise
    if video and video.sound:
        warnings.warn(f"{target}: the sound of {video.name} is left out", stacklevel=2)
    return found.predictions()
