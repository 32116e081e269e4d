"""A detector as a folder to take away: ONNX files, a script that needs no torch, and the checks that they passed.

    detector.onnx         the detector, its classes and how pictures are prepared for it
    detector.fp16.onnx    the same in float16 but for pixels, half the size: for GPUs
    detector.int8.onnx    the same with 8-bit layers, a quarter of the size: for CPUs
    detector.xml, .bin    the same for OpenVINO, where that is asked for
    predict.py            finds objects in a picture; needs onnxruntime, NumPy and Pillow
    MODEL_CARD.md         what the detector is, how good, made from what; of a run
    export.json           what was checked, the AP of each file, versions

Nothing is called good that was not held against PyTorch on real pictures: the folder is there whole or not at all.
"""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from odkit import analysis, detection
from odkit.data import Dataset, Predictions, box_iou, evenly, file_hash
from odkit.runs.report import model_card
from odkit.runs.run import Run, open_run
from odkit.system import (
    FileInTheWayError,
    InputError,
    counted,
    megabytes,
    odkit_version,
    progress_bar,
    sync_folder,
    sync_tree,
    write_file,
)

if TYPE_CHECKING:
    from odkit.detection import Detector, Limits

FILES = {
    "fp32": "detector.onnx",
    "fp16": "detector.fp16.onnx",
    "int8": "detector.int8.onnx",
    "openvino": "detector.xml",
}
PAGE = "export.json"
BOX_PIXELS, SCORE = 0.5, 1e-3  # what a file may differ by from PyTorch
OVERLAP = 0.01  # how near an IoU must be to the limit of suppression to be a tie
MOST_LOST = 0.05  # AP
PICTURES, JUDGED = 32, 500  # that are compared, and judged by AP
CALIBRATION = 100  # that are looked at before rounding to 8 bits


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How what a file finds agrees with what PyTorch finds.

    Attributes:
        images, detections: How many were compared.
        box_pixels, score: The largest difference of a box's side, in pixels of the picture, and of a score.
        ties: Detections that one of the two left out at a limit: the lowest score or the most detections an image, or
            an overlap at which a box is suppressed.
        differing: Detections of one that the other has not, for no such reason.
    """

    images: int
    detections: int
    box_pixels: float
    score: float
    ties: int
    differing: int

    @property
    def said(self) -> str:
        """The same in words, after the name of a file."""
        return (
            f"against PyTorch, {self.detections:,} detections in {counted(self.images, 'picture')}: boxes within "
            f"{self.box_pixels:.2g} px, scores within {self.score:.1g}, classes equal, {counted(self.ties, 'tie')}"
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class Export:
    """What `od.export` wrote.

    Attributes:
        folder: Where.
        detector: Name in the catalogue.
        agreement: How `detector.onnx` agrees with PyTorch.
        ap: AP on held-out pictures by precision, "pytorch" for the detector itself, 0 to 1; None without boxes there.
        bytes: Size of each file by its name, but for export.json and MODEL_CARD.md, which tell of the others.
        judged: How many pictures the AP is of, and which: "500 of 812 images of cells (val)".
        notes: What there is to know besides, in sentences.
    """

    folder: Path
    detector: str
    agreement: Agreement
    ap: dict[str, float | None]
    bytes: dict[str, int]
    judged: str
    notes: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """A row a file: name, AP, how far from PyTorch's, bytes."""
        whole = self.ap["pytorch"]
        rows: list[dict[str, Any]] = [{"file": "PyTorch", "ap": whole, "loss": None, "size": "-"}]
        for precision, name in FILES.items():
            if name in self.bytes:
                ap = self.ap[precision]
                loss = None if ap is None or whole is None else round(whole - ap, 6)
                size = self.bytes[name] + (self.bytes["detector.bin"] if precision == "openvino" else 0)
                rows.append({"file": name, "ap": ap, "loss": loss, "size": megabytes(size)})
        return rows

    def __repr__(self) -> str:
        lines = [
            f"Export of {self.detector!r} in {self.folder}",
            f"detector.onnx {self.agreement.said}",
        ]
        for row in self.rows():
            ap = "-" if row["ap"] is None else f"{row['ap']:.4f}"
            loss = "" if row["loss"] is None else f" ({-row['loss']:+z.4f})"
            lines.append(f"  {row['file']:20} AP {ap}{loss:12} {row['size']}")
        return "\n".join([*lines, f"AP on {self.judged}", *self.notes])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """What export.json holds."""
        return {**asdict(self), "folder": str(self.folder), "files": self.rows()}


def export(
    run_or_detector: "Run | Detector | str | Path",
    folder: str | Path | None = None,
    *,
    dataset: Dataset | None = None,
    formats: Sequence[str] = ("fp32", "fp16", "int8"),
    pictures: int = PICTURES,
    judged: int = JUDGED,
    calibration: int = CALIBRATION,
) -> Export:
    """Write a detector as a folder that does without odkit and PyTorch, checked against PyTorch on real pictures.

    `od.load_detector(folder / "detector.onnx")` opens a file of it again, for `od.predict` and all that follows.

    Args:
        run_or_detector: A run (or its folder or name), whose best detector is meant, or a detector.
        folder: Where to write; it must be new or empty. Default: `export` in the run's folder.
        dataset: Labelled pictures to check and judge on: their split "val" if they have one, else all of them; a
            split "train" is what 8-bit layers are fitted on. Default: the run's own. A detector without a run needs it.
        formats: Of "fp32" (always written), "fp16", "int8" and "openvino" (its own format, by its own converter).
        pictures: On how many pictures each detection is compared with PyTorch's.
        judged: On how many pictures, at most, the AP is measured.
        calibration: On how many pictures 8-bit layers are fitted.

    Raises:
        ExportError: The detector cannot be written as a graph, or does not find what PyTorch finds. Nothing is left.
        FileInTheWayError: There is something in the folder.
        InputError: A format is unknown, there are no pictures, or classes do not fit.
        MissingPackageError: OpenVINO is asked for and not installed.
        RunError: The run has no detector yet.
    """
    unknown = [name for name in formats if name not in FILES]
    if unknown:
        raise InputError(f"formats are {', '.join(FILES)}, not {', '.join(map(repr, unknown))}")
    if min(pictures, judged, calibration) < 1:
        raise InputError("pictures, judged and calibration must be 1 or more")
    if "openvino" in formats:
        detection.require_openvino()
    run, detector = _detector(run_or_detector)
    if folder is None:
        if run is None:
            raise InputError(
                "a detector without a run needs a folder to be written to: od.export(detector, folder)"
            )
        folder = run.path / "export"
    held, shown = _pictures(run, dataset)
    target = Path(folder).absolute()
    with _new_folder(target) as work:
        made, figures = _write(
            work,
            detector,
            run,
            held,
            shown,
            [*dict.fromkeys(["fp32", *formats])],
            pictures,
            judged,
            calibration,
        )
        exported = Export(folder=target, **made)
        if run is not None:
            card = model_card(run, exported=exported.rows())
            write_file(work / "MODEL_CARD.md", card.encode())
        page = {"format": 1, **exported.to_dict(), "figures": figures, "versions": _versions(formats)}
        del page["folder"]  # it may be moved
        write_file(work / PAGE, orjson.dumps(page, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return exported


def _write(
    work: Path,
    detector: "Detector",
    run: Run | None,
    held: Dataset,
    shown: Dataset,
    formats: Sequence[str],
    pictures: int,
    judged: int,
    calibration: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the files into a folder and check them.

    Returns:
        The fields of `Export`; and what each file was judged to be, with its hash, on images of which fingerprint.
    """
    bar = progress_bar(total=2 + 2 * len(formats), desc="exporting", unit="step")
    with bar:

        def step(what: str) -> None:
            bar.update()
            bar.set_description(what)

        bar.set_description("looking with PyTorch")  # first, since pictures that are gone show here
        looked = evenly(held, max(judged, pictures))
        seen, some = evenly(looked, judged), evenly(looked, pictures)
        known = run.found_in(seen, device="cpu", precision="fp32") if run else None
        expected = detection.predict(detector, looked if known is None else some, device="cpu")
        step("judging PyTorch")
        ap: dict[str, float | None] = {"pytorch": _figures(seen, expected if known is None else known)["ap"]}
        expected = expected.for_dataset(some)
        step("writing the graph")
        graph = detection.onnx_graph(detector, _about(run))
        write_file(work / "predict.py", (Path(__file__).parent / "onnx_predict.py").read_bytes())
        files: dict[str, dict[str, Any]] = {}
        notes: list[str] = []
        if run is None:
            notes.append("There is no MODEL_CARD.md: it tells of a run, and this is a detector without one.")
        if detector.tiling is not None:
            notes.append(
                f"The detector looks at tiles of {detector.tiling.size} px: odkit cuts and merges them, predict.py "
                "does not, and says so."
            )
        for precision in formats:
            path = work / FILES[precision]
            step(f"writing {path.name}")
            if precision == "fp32":
                write_file(path, graph.SerializeToString())
            elif precision == "fp16":
                write_file(path, detection.as_float16(graph).SerializeToString())
            elif precision == "int8":
                fitted = evenly(shown, calibration)
                write_file(path, detection.as_int8(graph, detector, fitted).SerializeToString())
            elif precision == "openvino":
                detection.write_openvino(work / FILES["fp32"], path)
            step(f"judging {path.name}")
            found = detection.predict(detection.OnnxDetector(path, device="cpu"), looked, device="cpu")
            if precision == "fp32":
                agreement = _agreement(detector, expected, path, found, some)
            elif precision == "openvino":
                notes.append(f"{path.name} {_agreement(detector, expected, path, found, some).said}")
            files[path.name] = {"sha256": file_hash(path), **_figures(seen, found)}
            ap[precision] = files[path.name]["ap"]
            before, after = ap["pytorch"], ap[precision]
            if before is not None and after is not None and before - after > MOST_LOST:
                path.unlink()
                path.with_suffix(".bin").unlink(missing_ok=True)  # OpenVINO's weights
                notes.append(
                    f"{path.name} was left out: its AP is {after:.3f}, PyTorch's {before:.3f}, and a file may lose "
                    f"{MOST_LOST}."
                )
    sizes = {path.name: path.stat().st_size for path in sorted(work.iterdir())}
    of = f"{len(seen)} of " if len(seen) < len(held) else ""
    made = {
        "detector": detector.name,
        "agreement": agreement,
        "ap": ap,
        "bytes": sizes,
        "judged": f"{of}{len(held)} pictures of {held.name}",
        "notes": tuple(notes),
    }
    return made, {"fingerprint": seen.fingerprint(), "files": files}


def _detector(given: "Run | Detector | str | Path") -> tuple[Run | None, "Detector"]:
    if isinstance(given, detection.Detector):
        return None, given
    run = given if isinstance(given, Run) else open_run(given)
    return run, run.detector(device="cpu")


def _pictures(run: Run | None, dataset: Dataset | None) -> tuple[Dataset, Dataset]:
    """The pictures to compare and judge on, and those to fit 8-bit layers on."""
    train, val = (run.settings.train_split, run.settings.val_split) if run else ("train", "val")
    if dataset is None:
        if run is None:
            raise InputError(
                "a file is checked on real pictures: od.export(detector, folder, dataset=...) with some that the "
                "detector was made for"
            )
        dataset = run.dataset()
    splits = dataset.split_counts()
    held = dataset.split(val) if val in splits else dataset
    shown = dataset.split(train) if train in splits else held
    if not len(held):
        raise InputError(f"{dataset.name} has no pictures to check a file on")
    return held, shown


def _about(run: Run | None) -> dict[str, Any]:
    """What a file says of where its detector comes from."""
    if run is None:
        return {"run": None, "fingerprint": None, "weights": None}
    weights = file_hash(run.detector_file())
    return {"run": run.name, "fingerprint": run.config["fingerprint"], "weights": weights}


def _versions(formats: Sequence[str]) -> dict[str, str]:
    names = ["torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow"]
    names += ["openvino"] * ("openvino" in formats)
    python = ".".join(map(str, sys.version_info[:3]))
    return {"odkit": odkit_version(), "python": python, **{name: version(name) for name in names}}


def _figures(dataset: Dataset, found: Predictions) -> dict[str, float | None]:
    """AP and AP50 of what was found in pictures, 0 to 1; None where they have no boxes."""
    figures = analysis.evaluate(dataset, found).to_dict()
    return {name: figures[name] for name in ("ap", "ap50")}


# -- comparing -------------------------------------------------------------------------------------------------------


def _agreement(
    detector: "Detector", expected: Predictions, file: Path, found: Predictions, dataset: Dataset
) -> Agreement:
    """What was found by a file, against PyTorch, which found what is expected in these pictures.

    Raises:
        ExportError: They do not agree.
    """
    found = found.for_dataset(dataset)
    agreement = agree(expected, found, detection.limits(detector), images=len(dataset))
    if agreement.differing or agreement.box_pixels > BOX_PIXELS or agreement.score > SCORE:
        raise detection.ExportError(
            f"{file.name} of {detector.name} does not find what PyTorch finds in {len(dataset)} pictures of "
            f"{dataset.name}: of {agreement.detections} detections {agreement.differing} differ (boxes may by "
            f"{BOX_PIXELS} pixels, scores by {SCORE}). Nothing was kept; please report it with the detector's name"
        )
    return agreement


def agree(first: Predictions, second: Predictions, limits: "Limits", *, images: int) -> Agreement:
    """How two detectors' predictions on the same pictures agree, ties treated fairly.

    Each detection is paired with the nearest of the other's of its class whose box and score are within the limits:
    the order among equal scores does not matter. What is left over is a tie where the least difference decides: its
    score is that of the last of as many as an image may have, or the one that must be exceeded, or its box overlaps a
    better one by just what suppresses it.

    Args:
        first: One's.
        second: The other's.
        limits: By which detections are kept.
        images: How many pictures.
    """
    box, score, ties, differing = 0.0, 0.0, 0, 0
    for image in range(images):
        sides = [
            (some.boxes[part], some.scores[part], some.classes[part])
            for some, part in ((first, first.of(image)), (second, second.of(image)))
        ]
        pairs = _pairs(*sides)
        for a, b in pairs:
            box = max(box, float(np.abs(sides[0][0][a] - sides[1][0][b]).max()))
            score = max(score, float(abs(sides[0][1][a] - sides[1][1][b])))
        full = [float(side[1].min()) for side in sides if len(side[1]) >= limits.most]
        cut = max([limits.least, *full])
        taken = [{a for a, _ in pairs}, {b for _, b in pairs}]
        for side, used in zip(sides, taken, strict=True):
            for row in set(range(len(side[1]))) - used:
                tie = side[1][row] <= cut + SCORE or _nearly_suppressed(side, sides, row, limits.overlap)
                ties, differing = ties + tie, differing + (not tie)
    return Agreement(
        images=images,
        detections=len(first),
        box_pixels=box,
        score=score,
        ties=int(ties),
        differing=int(differing),
    )


Side = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]


def _pairs(first: Side, second: Side) -> list[tuple[int, int]]:
    """Rows of both that mean the same: of one class, within the limits, the nearest first."""
    boxes = np.abs(first[0][:, None] - second[0][None]).max(2)
    scores = np.abs(first[1][:, None] - second[1][None])
    near = (boxes <= BOX_PIXELS) & (scores <= SCORE) & (first[2][:, None] == second[2][None])
    rows, columns = np.nonzero(near)
    order = np.argsort(boxes[rows, columns] + scores[rows, columns], kind="stable")
    pairs, used, taken = [], set(), set()
    for a, b in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if a not in used and b not in taken:
            pairs.append((a, b))
            used.add(a)
            taken.add(b)
    return pairs


def _nearly_suppressed(side: Side, sides: Sequence[Side], row: int, overlap: float | None) -> bool:
    """Whether a detection overlaps a better one of its class, of either side, by just what suppresses it."""
    if overlap is None:
        return False
    boxes, scores, classes = (np.concatenate(column) for column in zip(*sides, strict=True))
    better = (classes == side[2][row]) & (scores >= side[1][row] - SCORE)
    iou = box_iou(side[0][row : row + 1], boxes[better])
    return bool((np.abs(iou - overlap) <= OVERLAP).any())


# -- a folder, whole or not at all -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder to write into that takes its place when the block ends, and never if it ends with an error."""
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise FileInTheWayError(
            f"{target} is there already; give a new or an empty folder, or remove it first"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name[:50]}.{secrets.token_hex(6)}.tmp")
    work.mkdir()
    try:
        yield work
        sync_tree(work)
        os.rename(work, target)  # takes the place of an empty folder and of no other
        sync_folder(target.parent)
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        if (
            isinstance(error, OSError)
            and not isinstance(error, FileInTheWayError)
            and target.exists()
            and any(target.iterdir())
        ):
            raise FileInTheWayError(f"{target} was filled meanwhile; nothing was written there") from error
        raise
