"""Commands for detectors."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson
from tyro.conf import Positional

from odkit import analysis, detection
from odkit.cli.flags import Classes, Further, Numbers, Reading, Writable
from odkit.cli.results import images_judged, kind_of, read_results
from odkit.cli.shared import (
    Stop,
    command,
    means_the_demo,
    print_json,
    read_dataset,
    read_detector,
    refuse_filled,
    said_further,
    signals_to,
    table,
    warnings_said,
)
from odkit.runs import Run
from odkit.system import InputError, write_file

if TYPE_CHECKING:
    from odkit.data import Predictions
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
    split: str | None = None,
    classes: Classes = Classes(),
    reading: Reading = Reading(),
    numbers: Numbers = Numbers(),
    only_judged: bool = False,
    mistakes: bool = False,
    label_errors: bool = False,
    compare: str | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    batch_size: int = 8,
    num_workers: int = -1,
    further: Further = Further(),
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Measure a detector, or what any detector found, on a dataset: COCO's figures and a table of classes.

    Classes are matched by name. Results of other tools are read as `Predictions.from_coco` and `.from_yolo` say.

    Args:
        detector: Run (folder or name) or detector file; or results: COCO's (.json), a folder of YOLO's text files
            with confidences, saved Predictions (.npz).
        path: Folder or label file of a dataset, or "demo".
        split: Split to judge on; "" for all images. Default: val for a run or detector; for results the split that
            all of them are of, else all images.
        classes: Which classes of the dataset, and under which names; the files stay as they are.
        reading: How the dataset is read.
        numbers: What the numbers in results of other tools mean.
        only_judged: Leave out images that results do not speak of. Default: their objects count as missed, as in
            COCO's figures.
        mistakes: Also every mistake by kind, and what each kind costs.
        label_errors: Also the labels that are probably wrong.
        compare: Another run, detector or results: the difference, with its 95% interval, on the same images.
        device: Where to compute: auto (what training would choose), cpu, cuda, cuda:1, mps.
        precision: Number format of convolutions; auto: what the run was judged with, on the same kind of device, else
            fp32.
        batch_size: Images at once.
        num_workers: Processes that decode images; -1: as many as pay.
        further: What else is to be said.
        out: File to write all that is found into, as JSON.
        json: Print JSON.
    """
    foreign = kind_of(detector) != "detector"
    if out is not None and out.exists():
        raise InputError(f"--out {out} is there already; give another")
    analysis.check_wanted("precision", further.want_precision)  # said before hours of work
    analysis.check_wanted("recall", further.want_recall)
    judge = None if foreign else read_detector(detector, device)
    dataset = read_dataset(path, classes, reading, val=0 if foreign else 0.2)
    read: Predictions | None = None
    if foreign:
        read = read_results(detector, dataset, numbers)
        judged = images_judged(detector, read, dataset, split, only_judged)
        if judged is not dataset:  # what is said of images is then of fewer
            read = read_results(detector, judged, numbers)
    else:
        split = "val" if split is None else split
        judged = dataset.split(split) if split else dataset

    def made_by(run: Run | None, found: "Detector | OnnxDetector") -> "Predictions":
        how = chosen(found, run, device, precision, len(judged), batch_size, num_workers)
        return detection.predict(found, judged, **how)

    if read is None:
        assert judge is not None  # a detector, then
        read = made_by(*judge)
    evaluation = analysis.evaluate(judged, read)
    page: dict[str, Any] = evaluation.to_dict()
    more = said_further(evaluation, further)
    page |= {name: part.to_dict() for name, part in more.items()}
    texts = [repr(evaluation), *map(repr, more.values())]
    if mistakes or label_errors:
        wrong = analysis.mistakes(evaluation)
        told = wrong.to_dict()
        suspects = told.pop("suspects")
        if mistakes:
            page["mistakes"] = told
            texts.append(repr(wrong))
        if label_errors:
            page["label_errors"] = suspects
            texts.append(_suspects_told(wrong.suspects))
    if compare is not None:
        own = kind_of(compare) == "detector"
        other = made_by(*read_detector(compare, device)) if own else read_results(compare, judged, numbers)
        compared = analysis.compare(analysis.evaluate(judged, other), evaluation)
        page["comparison"] = {"first": compare, "second": detector, **compared.to_dict()}
        texts.append(f"The first is {compare}, the second {detector}.\n{compared!r}")
    if out is not None:
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
        write_file(out, orjson.dumps(page, option=options))
    if json:
        print_json(page)
    else:
        print("\n\n".join(texts))
    return 0


def _suspects_told(suspects: "Sequence[analysis.Suspect]", most: int = 20) -> str:
    """The labels that are probably wrong, a line each."""
    if not suspects:
        return "No label looks wrong."
    lines = [f"Labels that are probably wrong, the most suspicious of {len(suspects):,} first"]
    return "\n  ".join([*lines, *map(str, suspects[:most])])


@command
def export(
    run: Positional[str],
    *,
    out: Path | None = None,
    formats: tuple[Literal["fp32", "fp16", "int8", "openvino"], ...] = ("fp32", "fp16", "int8"),
    data: str | None = None,
    reading: Reading = Reading(),
) -> int:
    """Write a run's best detector as a folder that does without odkit and PyTorch, checked against PyTorch.

    It holds detector.onnx, the same in float16 and with 8-bit layers, predict.py, which needs onnxruntime, NumPy and
    Pillow alone, MODEL_CARD.md, and export.json with the checks and the AP of each file. `odkit predict` and `odkit
    evaluate` take these files as detectors.

    Args:
        run: Run folder, or the name of a run under runs/; or a detector file, with --data.
        out: Folder to write, new or empty; default: export in the run's folder.
        formats: Which files; detector.onnx (fp32) is always there. openvino writes detector.xml and .bin besides.
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
    refuse_filled(out)
    how = chosen(found, run, device, precision, len(pictures.pictures), batch_size, num_workers)
    weights = file_hash(run.path / "detector.safetensors" if run else detector)
    same = f"{weights} {root.resolve()!a} {tiles} {how['precision']} {score}"  # whose beginning this can go on with
    keep = out.with_name(f".{out.name}-{hashlib.sha256(same.encode()).hexdigest()[:12]}.npz")
    stop = Stop()
    try:
        with signals_to(stop.ask):
            made = suggest(pictures, run or found, score=score, tiles=tiles, keep=keep, stop=stop, **how)
    except Interrupted as ended:
        print(ended, file=sys.stderr)
        return 128 + stop.signal
    with warnings_said():  # what the format cannot hold
        write_dataset(made.as_labels(), out, to, images=images)
    write_file(out / "suggestions.json", orjson.dumps(made.to_dict(), option=orjson.OPT_INDENT_2))
    print(f"{made}\nwritten to {out} ({to}; scores and the order to look in: suggestions.json)")
    return 0


@command
def import_weights(
    file: Positional[Path],
    *,
    detector: str,
    classes: tuple[str, ...],
    out: Path = Path("detector.safetensors"),
    image_size: int | None = None,
    norm_eps: float | None = None,
) -> int:
    """Make a detector file of weights that another program trained: torchvision's scripts, a state dict, D-FINE's.

    Args:
        file: What torch.save wrote, or a .safetensors file of transformers' D-FINE. Nothing in it can run.
        detector: A name of the catalogue: what they are the weights of.
        classes: Names of the classes in the order that they were trained in, without the background. Where labels were
            counted from 1 for a detector without one (RetinaNet, FCOS), put __background__ in front.
        out: File to write.
        image_size: Longer side in pixels that images are resized to; default: the catalogue's.
        norm_eps: Epsilon of frozen batch norms, see od.import_detector; default: the catalogue's.
    """
    if out.exists():
        raise InputError(f"--out {out} is there already; give another")
    made = detection.import_detector(
        file, detector=detector, class_names=classes, image_size=image_size, norm_eps=norm_eps
    )
    detection.save_detector(made, out)
    print(
        f"{made}\nwritten to {out}\n  odkit evaluate {out} FOLDER\n"
        f"  odkit train FOLDER --detector {detector} --weights {out}"
    )
    return 0


def chosen(
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
        by = ", ".join(detector.providers)
        print(f"on {place}: computed by {detector.runtime} ({by})", file=sys.stderr)
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
