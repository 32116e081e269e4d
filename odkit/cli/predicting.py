"""The command that finds objects in pictures and videos."""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson
from tyro.conf import Positional

from odkit import data, detection
from odkit.cli.detectors import chosen
from odkit.cli.shared import Stop, command, json_text, read_detector, refuse_filled, signals_to, warnings_said
from odkit.data import formats
from odkit.system import InputError, write_file

if TYPE_CHECKING:
    from odkit.data import Predictions
    from odkit.detection import Detector, OnnxDetector, Pictures, SeenFrame, Stream

_DRAWN = ("pictures", "video")


@command
def predict(
    detector: Positional[str],
    sources: Positional[tuple[str, ...]],
    *,
    out: Path | None = None,
    to: tuple[Literal["json", "pictures", "video", "coco", "yolo", "voc", "csv"], ...] = (),
    score: float = 0.3,
    tiles: int = -1,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    batch_size: int = 8,
    num_workers: int = -1,
) -> int:
    """Find objects in pictures, folders of them, videos or what a camera shows; prints one JSON object a picture.

    Ctrl-C stops after a batch, and what was found until then is written; a camera is looked at until then.

    Args:
        detector: Run (folder or name) or detector file.
        sources: Pictures, folders, patterns in quotes ("*/left*.jpg"), videos, cameras (camera:0).
        out: New folder for what is found; default: only print.
        to: What is written there, several if you like: json (predictions.json), pictures and video (with the boxes
            drawn in), coco, yolo, voc, csv (with scores). Default: json, pictures, and a video of each video.
        score: Leave out what the detector is less sure of, 0 to 1.
        tiles: Side in pixels of tiles that the images are looked at in; 0: whole images, -1: as the detector was
            trained.
        device: Where to compute: auto (what training would choose), cpu, cuda, cuda:1, mps.
        precision: Number format of convolutions; auto: what the run was judged with, on the same kind of device, else
            fp32.
        batch_size: Images at once.
        num_workers: Processes that decode images; -1: as many as pay.
    """
    if not sources:
        raise InputError("give something to look at: a picture, a folder, a video, camera:0")
    if to and out is None:
        raise InputError("--to says what is written, and --out where to: give a folder for it")
    if not 0 <= score <= 1:
        raise InputError(f"--score must be from 0 to 1, not {score}")
    run, found = read_detector(detector, device)
    parts = detection.find_pictures(sources, found.class_names)
    if out is not None:
        _refuse(out, sources, parts)
        out.mkdir(parents=True, exist_ok=True)
    count = sum(1 if isinstance(part, detection.Stream) else len(part.dataset) for part in parts)
    how = chosen(found, run, device, precision, count, batch_size, num_workers)
    stop = Stop()
    how |= {"score": score, "tiles": tiles, "stop": stop}
    lots: list[Predictions] = []
    rows: list[dict[str, Any]] = []
    with signals_to(stop.ask), warnings_said():
        for part in parts:
            try:
                lot, its_rows = _look(found, part, out, to, how)
            except (data.ImageReadError, data.VideoError) as error:
                if len(parts) == 1:
                    raise
                warnings.warn(f"left out: {error}", stacklevel=1)
                continue
            lots.append(lot)
            rows += its_rows
            if stop.signal:
                break
        if not lots:
            raise InputError("nothing of this can be read; see the warnings")
        if out is not None:
            _write(data.Predictions.joined(lots), rows, out, to)
    if out is not None:
        print(f"written to {out}", file=sys.stderr)
    ended = any(isinstance(part, detection.Stream) and data.is_camera(part.source) for part in parts)
    return 128 + stop.signal if stop.signal and not ended else 0


def _refuse(out: Path, sources: Sequence[str], parts: "Sequence[Pictures | Stream]") -> None:
    """The pictures stay as they are, and what was written before too."""
    place = Path(os.path.expanduser(out)).resolve()
    folders = [Path(os.path.expanduser(source)).resolve() for source in sources if os.path.isdir(source)]
    files = [path for part in parts for path in _files(part)]
    if any(place.is_relative_to(folder) for folder in folders) or place in {
        Path(file).resolve().parent for file in files
    }:
        raise InputError(f"--out {out} is where the images are, which stay as they are; give another folder")
    refuse_filled(out)


def _files(part: "Pictures | Stream") -> list[str]:
    if isinstance(part, detection.Stream):
        return [part.path] if part.path else []
    return list(filter(None, part.dataset.image_paths))


def _look(
    detector: "Detector | OnnxDetector",
    part: "Pictures | Stream",
    out: Path | None,
    to: Sequence[str],
    how: dict[str, Any],
) -> "tuple[Predictions, list[dict[str, Any]]]":
    """What is found in a part, printed, and drawn where that is wanted; and as rows for JSON."""
    from PIL import Image

    from odkit.analysis import figures

    if not isinstance(part, detection.Stream):
        found = detection.predict(detector, part, **how)
        of_pictures = formats.json_rows(found, found.image_paths)
        _say(of_pictures)
        if out is not None and (not to or "pictures" in to):
            figures.draw_predictions(found, out)
        return found, of_pictures
    how = {name: value for name, value in how.items() if name != "num_workers"}
    rows: list[dict[str, Any]] = []

    def each(frame: "SeenFrame") -> None:
        objects = formats.json_objects(detector.class_names, frame.boxes, frame.scores, frame.classes)
        about = {
            "image": part.path or part.name,
            "frame": len(rows),
            "seconds": round(frame.seconds, 3),
        }
        rows.append({**about, "objects": objects})
        _say(rows[-1:])
        if out is not None and "pictures" in to:
            target = out / figures.picture_name(f"{frame.image_id}.jpg")
            target.parent.mkdir(parents=True, exist_ok=True)
            columns = (frame.boxes, frame.scores, frame.classes, detector.class_names)
            figures.draw_found(Image.fromarray(frame.pixels), *columns).save(target, quality=92)

    if out is not None and (not to or "video" in to):
        target = out / f"{part.name}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        return figures.annotate_video(detector, part, target, each=each, **how), rows
    kept = detection.FoundFrames(detector)
    for frame in detection.predict_stream(detector, part, **how):
        kept.take(frame)
        each(frame)
    return kept.predictions(), rows


def _write(found: "Predictions", rows: list[dict[str, Any]], out: Path, to: Sequence[str]) -> None:
    if not to or "json" in to:
        write_file(out / "predictions.json", json_text(rows, orjson.OPT_INDENT_2).encode())
    if others := [name for name in to if name not in (*_DRAWN, "json")]:
        formats.write_predictions(found, out, others)


def _say(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        print(json_text(row), flush=True)  # whoever reads on wants each as it comes
