"""Detectors side by side on this machine: PyTorch and every exported file, with their AP, in one table."""

import contextlib
import itertools
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import orjson

from odkit import analysis, detection
from odkit.data import Dataset, Predictions, evenly, file_hash
from odkit.detection import Benchmark, Measured
from odkit.runs.export import PAGE as EXPORTED
from odkit.runs.run import RUNS, Run, open_run
from odkit.runs.worker import RunError, as_written, check_links, prepare_torch, read_own
from odkit.system import (
    InputError,
    MissingFileError,
    OdkitError,
    counted,
    cpu_count,
    machine,
    odkit_version,
    progress_bar,
    write_file,
)

if TYPE_CHECKING:
    from odkit.detection import Detector, OnnxDetector

    Given: TypeAlias = Run | Detector | OnnxDetector | str | Path

FILE = "benchmark.json"
_TITLES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


class _Subject(NamedTuple):
    """What one thing that was given comes down to."""

    name: str
    files: list[Path]  # of detectors: PyTorch's and exported ones
    run: Run | None = None


def benchmark(
    detectors: "Given | Sequence[Given]",
    dataset: Dataset | str | Path | None = None,
    *,
    device: str = "auto",
    seconds: float = 5.0,
    images: int = 500,
    largest_batch: int = 64,
) -> Benchmark:
    """How fast detectors are on this machine, what memory they take, and how good they are: a table.

    Of a run its PyTorch detector is measured, in float32 and in the 16-bit format that the device gains from, and each
    file that `od.export` has made of it: by ONNX Runtime, and by OpenVINO where that is installed. Each is measured in
    a process of its own: one that crashes, or is missing a package, has its reason in its row and leaves the others
    alone. Of a single run the answer is kept in its folder, `benchmark.json`.

        od.benchmark(run)
        od.figures.benchmark(od.benchmark([run, "detector.int8.onnx"]))

    Args:
        detectors: A run, the folder of one or of an export, a detector's file, a detector; or several of them.
        dataset: What is timed on and judged on: its "val" split, or all of it where it has none; None: the first run's
            validation images. Without any, drawn pictures are timed on, and there is no AP.
        device: Where to compute: "cpu", "cuda", "cuda:1", "mps"; "auto": what training would choose.
        seconds: That each is timed, about; the start of its process and AP come on top.
        images: AP is of so many images of the dataset at most, evenly over it; 0: no AP.
        largest_batch: The largest batch size that is tried; from 1 each is twice the last.

    Raises:
        InputError: A number is out of range, there is nothing to measure, or no such device.
        MissingFileError: There is no such run or file.
        RunError: A run has no detector yet.
    """
    if not 0 < seconds < 3600 or images < 0 or largest_batch < 1:
        raise InputError(
            f"seconds must be over 0 and under 3600, images 0 or more and largest_batch 1 or more, not {seconds}, "
            f"{images} and {largest_batch}"
        )
    place = str(detection.pick_device(device))  # a device that is not there is said here
    given = (
        [detectors] if isinstance(detectors, str | Path) or not isinstance(detectors, Sequence) else detectors
    )
    with tempfile.TemporaryDirectory(prefix="odkit-benchmark-") as folder:
        subjects = [_subject(one, Path(folder, str(k))) for k, one in enumerate(given)]
        if not subjects:
            raise InputError("nothing was given to measure: a run, a detector or a file")
        runs = [subject.run for subject in subjects if subject.run]
        data = _images(dataset, runs)
        judged = None if data is None or not images else evenly(data, images)
        rows = [
            _measured(row, subject.run, data, judged, seconds, largest_batch)
            for subject, row in progress_bar(
                _rows(subjects, place, device), desc="measuring", unit="detector"
            )
        ]
    if data is None:
        told, (width, height) = "drawn pictures", detection.DRAWN
    else:
        chosen = detection.timed_on(data)
        told = f"{counted(len(chosen), 'picture')} of {data.name}"
        width, height = data.image_sizes[chosen[0]].tolist()
    splits = [] if judged is None else list(judged.split_counts())
    found = Benchmark(
        rows=tuple(rows),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=_machine(place),
        cores=cpu_count(),
        system=platform.platform(),
        pictures=f"{told}, {width} x {height} pixels",
        dataset=", ".join([judged.name, *splits[:1]]) if judged is not None else "",
        images=len(judged) if judged is not None else 0,
        fingerprint=judged.fingerprint() if judged is not None else "",
        odkit=odkit_version(),
    )
    if len(subjects) == 1 and runs:
        _keep(runs[0], found)
    return found


def read_benchmark(run: Run) -> Benchmark | None:
    """What was measured last of a run and kept in its folder; None where nothing was."""
    try:
        with as_written(run.path / FILE):
            return Benchmark.from_dict(read_own(run.path / FILE))
    except FileNotFoundError:
        return None


def _keep(run: Run, found: Benchmark) -> None:
    with contextlib.suppress(OSError, RunError):  # whoever may only look at a run has the answer all the same
        check_links(run.path)
        write_file(
            run.path / FILE,
            orjson.dumps(found.to_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        )


# -- what is measured --------------------------------------------------------------------------------------------------


def _subject(given: "Given", folder: Path) -> _Subject:
    """What one thing that was given comes down to; a detector that is no file yet is written into `folder`."""
    if isinstance(given, str | Path):
        path = Path(given)
        if path.is_file():
            return _Subject(path.stem, [path])
        exported = _exported(path)
        if exported and not (path / "config.json").exists():
            return _Subject(path.name, exported)
        if not path.exists() and not (RUNS / path).exists():
            raise MissingFileError(
                f"{given} is neither a run (folder, or name under {RUNS}/), nor the folder of an export, nor a "
                "detector's file"
            )
        given = open_run(path)
    if isinstance(given, Run):
        return _Subject(given.name, [given.detector_file(), *_exported(given.path / "export")], given)
    if isinstance(given, detection.OnnxDetector):
        return _Subject(given.path.stem, [given.path])
    return _Subject(given.name, [detection.save_detector(given, folder / "detector.safetensors")])


def _exported(folder: Path) -> list[Path]:
    """The detectors of an export's folder, the most exact first."""
    order = ("detector", "detector.fp16", "detector.int8")
    files = [path for path in folder.glob("*.onnx") if path.is_file()]
    return sorted(files, key=lambda path: (order.index(path.stem) if path.stem in order else 9, path.name))


def _rows(subjects: Sequence[_Subject], place: str, device: str) -> list[tuple[_Subject, Measured]]:
    """The rows to be filled in: a detector's file is measured in each number format that its runtime gains from."""
    fast, _ = detection.best_precision(place)
    rows = []
    for subject in subjects:
        for file in subject.files:
            if file.suffix == ".onnx":  # its runtimes may know no GPU where torch does
                where = "auto" if device == "auto" else place
                formats = [next((part for part in ("fp16", "int8") if part in file.stem.split(".")), "fp32")]
                runtimes = (
                    ["onnxruntime", "openvino"] if _for_openvino(formats[0], place) else ["onnxruntime"]
                )
            elif file.suffix == ".xml":
                where, formats, runtimes = "cpu", ["fp32"], ["openvino"]
            else:
                where, formats, runtimes = place, list(dict.fromkeys(("fp32", fast))), ["torch"]
            for runtime, precision in itertools.product(runtimes, formats):
                name = f"{_TITLES[runtime]} {precision}"
                row = Measured(
                    name=name if len(subjects) == 1 else f"{subject.name}: {name}",
                    file=str(file),
                    file_bytes=file.stat().st_size,
                    runtime=runtime,
                    precision=precision,
                    device="cpu" if runtime == "openvino" else where,
                )
                rows.append((subject, row))
    return rows


def _for_openvino(precision: str, place: str) -> bool:
    """Whether OpenVINO has a row: where it is installed, on a CPU, which computes float16 as float32."""
    return place == "cpu" and precision != "fp16" and find_spec("openvino") is not None


def _measured(
    row: Measured,
    run: Run | None,
    data: Dataset | None,
    judged: Dataset | None,
    seconds: float,
    largest_batch: int,
) -> Measured:
    """A row filled in: measured in a process of its own, and judged."""
    known = None if judged is None or run is None else _known(row, run, judged)
    told = None if judged is None else _as_exported(row, judged)
    environment = dict(os.environ)
    prepare_torch(environment)  # as where it trains: torch's threads sleep while they wait
    apart = detection.measure_apart(
        row,
        dataset=judged if judged is not None else data,
        predicting=judged is not None and known is None and told is None,
        seconds=seconds,
        largest_batch=largest_batch,
        environment=environment,
    )
    measured, predictions = apart.measured, apart.predictions if known is None else known
    if told is not None and not measured.why_not:
        return replace(measured, ap=told["ap"], ap50=told["ap50"], remark="AP as exported")
    if judged is None or predictions is None or measured.why_not:
        return measured
    try:
        figures = analysis.evaluate(judged, predictions).to_dict()
    except OdkitError as error:  # of other classes
        return replace(measured, remark=f"no AP: {error}")
    return replace(measured, ap=figures["ap"], ap50=figures["ap50"])


def _known(row: Measured, run: Run, judged: Dataset) -> Predictions | None:
    """What the run's own detector has found in these images already, with the same number format."""
    if row.file != str(run.path / "detector.safetensors"):
        return None
    return run.found_in(judged, device=row.device, precision=row.precision)


def _as_exported(row: Measured, judged: Dataset) -> dict[str, float | None] | None:
    """AP and AP50 of a file on these images, as `od.export` has measured them on a CPU and written them down beside it.

    None where they are of other images, or older than one of them, of another file or runtime, or where the file is to
    be computed elsewhere.
    """
    file = Path(row.file)
    if row.runtime != {".onnx": "onnxruntime", ".xml": "openvino"}.get(file.suffix):
        return None
    try:
        page = file.parent / EXPORTED
        figures = orjson.loads(page.read_bytes())["figures"]
        told: dict[str, Any] = figures["files"][file.name]
        same = figures["fingerprint"] == judged.fingerprint() and told["sha256"] == file_hash(file)
        exported = page.stat().st_mtime_ns
        same &= all(os.stat(path).st_mtime_ns <= exported for path in judged.image_paths)
    except (OSError, ValueError, LookupError, TypeError):
        return None  # no export, one of an odkit that did not write them down, or a picture that is gone
    return told if same and _on_cpu(row) else None


def _on_cpu(row: Measured) -> bool:
    """Whether an exported file is computed on the CPU."""
    if row.device != "auto":
        return row.device == "cpu"
    import onnxruntime

    return "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


def _images(dataset: Dataset | str | Path | None, runs: Sequence[Run]) -> Dataset | None:
    """What is timed on and judged on: the dataset given, else the first run's validation images."""
    if dataset is None:
        return runs[0].dataset(runs[0].settings.val_split) if runs else None
    if not isinstance(dataset, Dataset):
        from odkit.data.formats import load_dataset

        dataset = load_dataset(dataset)
    chosen = dataset.split("val") if "val" in dataset.split_counts() else dataset
    if not len(chosen):
        raise InputError(f"{dataset.name} has no images to measure on")
    return chosen


def _machine(place: str) -> str:
    if place.startswith("cuda"):
        import torch

        return f"{torch.cuda.get_device_name(place)} ({machine.processor()})"
    return machine.processor()
