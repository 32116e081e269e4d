"""Commands for detectors."""

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson
from tyro.conf import Positional

from odkit import analysis, detection
from odkit.cli.flags import Classes, Reading, Writable
from odkit.cli.shared import (
    command,
    means_the_demo,
    print_json,
    read_dataset,
    read_detector,
    signals_to,
    table,
    warnings_said,
)
from odkit.data import Predictions
from odkit.runs import Run
from odkit.system import InputError, write_file

if TYPE_CHECKING:
    from odkit.detection import Detector, OnnxDetector


@command
def detectors(*, measure: tuple[str, ...] = (), json: bool = False) -> int:
    """List the detectors that can be fine-tuned.

    Args:
        measure: Detectors to time here: minutes that the steps of an epoch of 1,000 images take.
        json: Print JSON.
    """
    rows: list[dict[str, Any]] = detection.list_detectors()
    for name in measure:
        detection.catalogue_entry(name)  # a wrong name is said before the first is timed
    for row in rows:
        if row["name"] in measure:
            row["minutes_an_epoch"] = round(detection.minutes_an_epoch(row["name"]), 2)
    if json:
        print_json(rows)
    else:
        columns = [
            "name",
            "image_size",
            "coco_ap",
            "parameters",
            "code_licence",
            "weights_licence",
            "summary",
        ]
        if measure:
            columns.insert(4, "minutes_an_epoch")
            rows = [row for row in rows if row["name"] in measure]
        print(table([{key: row[key] for key in columns} for row in rows]))
    return 0


@command
def evaluate(
    detector: Positional[str],
    path: Positional[str],
    *,
    split: str = "val",
    classes: Classes = Classes(),
    reading: Reading = Reading(),
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    batch_size: int = 8,
    num_workers: int = -1,
    json: bool = False,
) -> int:
    """Measure a detector on a dataset: COCO's figures and a table of classes, which are matched by name.

    Args:
        detector: Run (folder or name) or detector file.
        path: Folder or label file of a dataset, or "demo".
        split: Split to judge on; "" for all images.
        classes: Which classes of the dataset, and under which names; the files stay as they are.
        reading: How the dataset is read.
        device: Where to compute: auto (what training would choose), cpu, cuda, cuda:1, mps.
        precision: Number format of convolutions; auto: what the run was judged with, on the same kind of device, else
            fp32.
        batch_size: Images at once.
        num_workers: Processes that decode images; -1: as many as pay.
        json: Print JSON.
    """
    run, found = read_detector(detector, device)
    dataset = read_dataset(path, classes, reading)
    judged = dataset.split(split) if split else dataset
    how = _chosen(found, run, device, precision, len(judged), batch_size, num_workers)
    evaluation = analysis.evaluate(judged, detection.predict(found, judged, **how))
    if json:
        print_json(evaluation.to_dict())
    else:
        print(evaluation)
    return 0


@command
def predict(
    detector: Positional[str],
    images: Positional[Path],
    *,
    out: Path | None = None,
    score: float = 0.3,
    tiles: int = -1,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    batch_size: int = 8,
    num_workers: int = -1,
) -> int:
    """Find objects in an image or in all images of a folder; prints one JSON object an image.

    Args:
        detector: Run (folder or name) or detector file.
        images: Image file or folder.
        out: Folder for pictures with the boxes drawn in and predictions.json; default: only print.
        score: Leave out what the detector is less sure of, 0 to 1.
        tiles: Side in pixels of tiles that the images are looked at in; 0: whole images, -1: as the detector was
            trained.
        device: Where to compute: auto (what training would choose), cpu, cuda, cuda:1, mps.
        precision: Number format of convolutions; auto: what the run was judged with, on the same kind of device, else
            fp32.
        batch_size: Images at once.
        num_workers: Processes that decode images; -1: as many as pay.
    """
    run, found = read_detector(detector, device)
    dataset = detection.images_dataset(images, found.class_names)
    if out is not None and out.resolve() == dataset.root.resolve():
        raise InputError(f"--out {out} is where the images are: their pictures would take their place")
    how = _chosen(found, run, device, precision, len(dataset), batch_size, num_workers)
    predictions = detection.predict(found, dataset, score=score, tiles=tiles, **how)
    rows = [
        {"image": str(path), "objects": _objects(predictions, image)}
        for image, path in enumerate(dataset.image_paths)
    ]
    if out is not None:
        for image, path in enumerate(dataset.image_paths):
            _draw_objects(path, predictions, image, out / dataset.image_ids[image])
        write_file(out / "predictions.json", orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    for row in rows:
        print(orjson.dumps(row).decode())
    return 0


@command
def export(
    run: Positional[str],
    *,
    out: Path | None = None,
    formats: tuple[Literal["fp32", "fp16", "int8"], ...] = ("fp32", "fp16", "int8"),
    data: str | None = None,
    reading: Reading = Reading(),
) -> int:
    """Write a run's best detector as a folder that does without odkit and PyTorch, checked against PyTorch.

    It holds detector.onnx, the same in float16 and with 8-bit layers, predict.py, which needs onnxruntime, NumPy and
    Pillow alone, and export.json with the checks and the AP of each file. `odkit predict` and `odkit evaluate` take
    these files as detectors.

    Args:
        run: Run folder, or the name of a run under runs/; or a detector file, with --data.
        out: Folder to write, new or empty; default: export in the run's folder.
        formats: Which files; detector.onnx (fp32) is always there.
        data: Other labelled images to check and judge on, folder or label file; default: the run's own.
        reading: How those are read.
    """
    from odkit.runs import export as write

    found = read_detector(run, "cpu")
    given = None if data is None else read_dataset(data, reading=reading)
    if isinstance(found[1], detection.OnnxDetector):
        raise InputError(
            f"{run} is an exported file already; export the run or the detector that it was made of"
        )
    print(write(found[0] or found[1], out, dataset=given, formats=formats))
    return 0


@command
def prelabel(
    path: Positional[str],
    *,
    detector: str,
    reading: Reading = Reading(),
    out: Path | None = None,
    to: Writable = "coco",
    images: Literal["copy", "link", "none"] = "copy",
    score: float | None = None,
    every_picture: bool = False,
    tiles: int = -1,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    batch_size: int = 8,
    num_workers: int = -1,
) -> int:
    """Suggest boxes for the pictures without labels, as a new dataset to be corrected, and suggestions.json.

    What is written holds a detector's suggestions and not labels: each box wants a person's eyes before anything is
    trained on it (in a notebook: od.browse(od.prelabel(...))). The source stays as it is. Ctrl-C stops after a batch,
    and the same command goes on with the pictures left.

    Args:
        path: Folder: the images that no label names and those labelled as having no objects, or all where there are
            no labels; or a saved Dataset (.npz), or "demo".
        detector: Run (folder or name) or detector file.
        reading: How the folder is read.
        out: Folder to write to; default: the name of the data with -suggestions, here.
        to: Format to write.
        images: Copy the images there, link to them, or write only the labels.
        score: Suggest what the detector is this sure of, 0 to 1; default: the score with the best F1 on the run's
            validation images, 0.5 for a detector file.
        every_picture: Also the pictures that have labels.
        tiles: Side in pixels of tiles that the images are looked at in; 0: whole images, -1: as the detector was
            trained.
        device: Where to compute: auto (what training would choose), cpu, cuda, cuda:1, mps.
        precision: Number format of convolutions; auto: what the run was judged with, on the same kind of device, else
            fp32.
        batch_size: Images at once.
        num_workers: Processes that decode images; -1: as many as pay.
    """
    from odkit.data import file_hash
    from odkit.data.demo import demo_dataset
    from odkit.data.formats import write_dataset
    from odkit.runs import Interrupted, find_unlabelled
    from odkit.runs import prelabel as suggest

    run, found = read_detector(detector, device)
    source = demo_dataset() if means_the_demo(path) else path
    pictures = find_unlabelled(source, every_picture, **vars(reading))
    root, out = pictures.pictures.root, Path.cwd() / (out or f"{Path(path).stem}-suggestions")
    if out.resolve().is_relative_to(root.resolve()):
        raise InputError(f"--out {out} is in the folder of the data, which stays as it is; give another")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"--out {out} is there already; give a new or an empty folder")
    how = _chosen(found, run, device, precision, len(pictures.pictures), batch_size, num_workers)
    weights = file_hash(run.path / "detector.safetensors" if run else detector)
    same = f"{weights} {root.resolve()!a} {tiles} {how['precision']} {score}"  # whose beginning this can go on with
    keep = out.with_name(f".{out.name}-{hashlib.sha256(same.encode()).hexdigest()[:12]}.npz")
    asked: list[int] = []
    looking = False

    def stop() -> bool:
        nonlocal looking
        looking = True
        return bool(asked)

    def ask(number: int, frame: Any) -> None:
        if not looking or (asked and number == signal.SIGINT):
            raise KeyboardInterrupt
        asked.append(number)
        os.write(2, b"\nStopping after this batch.\n")

    try:
        with signals_to(ask):
            made = suggest(pictures, run or found, score=score, tiles=tiles, keep=keep, stop=stop, **how)
    except Interrupted as ended:
        print(ended, file=sys.stderr)
        return 128 + asked[0]
    with warnings_said():  # what the format cannot hold
        write_dataset(made.as_labels(), out, to, images=images)
    write_file(out / "suggestions.json", orjson.dumps(made.to_dict(), option=orjson.OPT_INDENT_2))
    print(f"{made}\nwritten to {out} ({to}; scores and the order to look in: suggestions.json)")
    return 0


def _chosen(
    detector: "Detector | OnnxDetector",
    run: Run | None,
    device: str,
    precision: str,
    images: int,
    batch_size: int,
    num_workers: int,
) -> dict[str, Any]:
    """Arguments of `detection.predict`; what odkit chooses in them is said, with the reason, on stderr."""
    if isinstance(detector, detection.OnnxDetector):
        place = detector.device
        print(f"on {place}: computed by onnxruntime ({', '.join(detector.providers)})", file=sys.stderr)
    else:
        place = detection.pick_device(device)
    if device == "auto" and not isinstance(detector, detection.OnnxDetector):
        print(f"on {place}: {detection.device_reason(device, place)}", file=sys.stderr)
    if precision == "auto":
        precision = run.precision(place) if run else "fp32"
        if precision != "fp32":
            print(f"in {precision}: what the run was judged with", file=sys.stderr)
    if num_workers == -1:
        num_workers, why = detection.workers_that_pay(
            place, images, batch_size=batch_size, image_size=detector.image_size
        )
        if num_workers:
            print(f"{num_workers} data workers: {why}", file=sys.stderr)
    return {
        "device": place,
        "precision": detection.DTYPES[precision],
        "batch_size": batch_size,
        "num_workers": num_workers,
    }


def _objects(predictions: Predictions, image: int) -> list[dict[str, Any]]:
    """What was found in an image, the surest first, for JSON: class, score, box (xyxy in pixels)."""
    part = predictions.of(image)
    columns = (predictions.classes[part], predictions.scores[part], predictions.boxes[part])
    return [
        {
            "class": predictions.class_names[label],
            "score": round(float(score), 4),
            "box": [round(float(value), 1) for value in box],
        }
        for label, score, box in zip(*columns, strict=True)
    ]


def _draw_objects(path: str, predictions: Predictions, image: int, target: Path) -> None:
    """An image, upright, with what was found drawn in, under a new name."""
    from odkit.analysis.figures import draw_boxes
    from odkit.data import open_upright

    part = predictions.of(image)
    classes = predictions.classes[part].tolist()
    names = [
        f"{predictions.class_names[label]} {score:.2f}"
        for label, score in zip(classes, predictions.scores[part], strict=True)
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    draw_boxes(open_upright(path), predictions.boxes[part], classes, names).save(target, quality=92)
