"""The `odkit` command: a subcommand a function below, its flags made by tyro from the function's own arguments.

Looking at runs, making the demo and asking for help import no torch: commands import what they need when they run.
"""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import inspect
import io
import itertools
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import orjson
import psutil
import tyro
from tyro.conf import Positional
from tyro.extras import SubcommandApp

from odkit import analysis, detection
from odkit.data import Dataset, Predictions
from odkit.data.formats import READERS, WRITERS
from odkit.runs import (
    MAY_CHANGE,
    RUNS,
    Run,
    RunError,
    Settings,
    create_run,
    dashboard,
    hold_lock,
    list_runs,
    make_settings,
    open_run,
    prepare_torch,
    run_row,
)
from odkit.system import (
    LOCK_VARIABLE,
    InputError,
    MissingFileError,
    OdkitError,
    end_with_parent,
    odkit_version,
    write_file,
)
from odkit.training import FRACTIONS, plan_learning_curve

if TYPE_CHECKING:
    from odkit.detection import Detector

    Readable: TypeAlias = str
    Writable: TypeAlias = str
else:  # what can be read and written, in help and checks, is what the tables hold
    Readable, Writable = Literal[tuple(READERS)], Literal[tuple(WRITERS)]

app = SubcommandApp()
PICTURES = (".png", ".svg", ".pdf")
DESCRIPTION = (
    "Fine-tune object detectors and look at every mistake they make. `odkit COMMAND --help` says more."
)


# -- functions as commands -------------------------------------------------------------------------------------------


def command(function: Callable[..., int]) -> Callable[..., int]:
    """Make a function a subcommand.

    It is called after all of the command line has been read, so that its own errors are not taken for errors of that.
    """

    @functools.wraps(function)
    def later(*args: Any, **options: Any) -> Callable[[], int]:
        return functools.partial(function, *args, **options)

    app.command(later)
    return function


class Flags(Settings):
    """Settings as flags. 0 or "auto": odkit chooses, and says what and why."""

    def __post_init__(self) -> None:
        pass  # checked when the command runs, where a message comes out plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes:
    """What becomes of a dataset's classes, see `Dataset.with_classes`."""

    rename: tuple[str, ...] = ()
    """Classes as OLD=NEW; several with one new name are merged. The others keep their names."""
    classes: tuple[str, ...] = ()
    """Only these classes, in this order (by their new names); boxes of others are left out. Default: all."""


FORMATS = ", ".join(f"{name} ({reader.title})" for name, reader in READERS.items())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How a folder of labelled images is read, see `load_dataset`."""

    format: Annotated[
        Readable | None,
        tyro.conf.arg(help=f"Format of the dataset: {FORMATS}. Default: found out, and said."),
    ] = None
    first_pixel: Literal[0, 1] | None = None
    """For Pascal VOC: the number of an image's first pixel in the corners. Default: found out, and said."""


def _setting_docs() -> dict[str, str]:
    """The sentence under each field of Settings, by its name: Python keeps it in the source alone."""
    tree = ast.parse(inspect.getsource(Settings)).body[0]
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for field, doc in itertools.pairwise(tree.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(doc, ast.Expr)
            and isinstance(doc.value, ast.Constant)
        ):
            docs[ast.unparse(field.target)] = str(doc.value.value)
    return docs


def _changes() -> type:
    """The settings that a resume may change, each None unless it is given."""
    docs, fields = _setting_docs(), {f.name: f.type for f in dataclasses.fields(Settings)}
    rows = []
    for name in MAY_CHANGE:
        kind: Any = fields[name]
        flag = tyro.conf.arg(
            metavar=kind.__name__.upper(), help=docs[name], help_behavior_hint="(default: as it was)"
        )
        rows.append((name, Annotated[kind | None, flag], None))
    return dataclasses.make_dataclass(
        "Changes", rows, kw_only=True, namespace={"__doc__": "Settings that may change."}
    )


Changes = _changes()


# -- training --------------------------------------------------------------------------------------------------------


@command
def train(
    path: Positional[str],
    *,
    settings: Flags = Flags(),  # noqa: B008  (frozen)
    classes: Classes = Classes(),
    reading: Reading = Reading(),
    repair: bool = False,
    folder: Path = RUNS,
    name: str | None = None,
    prepare: bool = False,
    wait: bool = True,
) -> int:
    """Fine-tune a detector on a folder of labelled images, or on the word "demo".

    The first Ctrl-C asks the run to finish its step, save and stop; a second one stops waiting for that. SIGTERM (what
    `docker stop` sends) is the first Ctrl-C.

    Args:
        path: Folder or label file of a dataset, a saved Dataset (.npz), or "demo".
        settings: Settings of the run.
        classes: Which classes of the dataset, and under which names; the files stay as they are.
        reading: How the dataset is read.
        repair: Repair what can be repaired safely in what is trained on; the files stay as they are.
        folder: Where run folders are made.
        name: Name of the run; default: made from the dataset and the detector, numbered.
        prepare: Only write the run folder and print the command that trains it, to be started elsewhere (see deploy/).
        wait: Show the progress until the end; otherwise the run goes on in the background.
    """
    checked = make_settings(dataclasses.asdict(settings))
    dataset = read_dataset(path, classes, reading)
    if repair:
        from odkit.data.audit import repaired

        dataset = repaired(dataset)
    run = create_run(dataset, checked, folder, name)
    if prepare:
        print(shlex.join(run.command()))
        return 0
    if not wait:
        return _say_background(run.start())
    return _watch(run, run.start)


@command
def import_tfod(
    source: Positional[Path],
    *,
    data: str | None = None,
    detector: str = "",
    device: str = "auto",
    out: Path | None = None,
    quick: bool = False,
    json: bool = False,
    train: bool = False,
    folder: Path = RUNS,
    name: str | None = None,
) -> int:
    """Read a pipeline.config of TensorFlow's Object Detection API: what of it is taken over, and what to type.

    Prints what became of each key of the config, how long the run would take here, and the command that trains it;
    with --train it is trained at once.

    Args:
        source: The pipeline.config, or a folder with one.
        data: Folder or label file of the dataset; default: what the config names, looked for by file name near it,
            else the folder.
        detector: A name of the catalogue; default: the nearest to the config's where a GPU is, else the starter.
        device: Where to train: auto, cpu, cuda, cuda:1, mps.
        out: File to write all that is printed into, as JSON.
        quick: Do not time the detectors in question here, which takes some seconds each.
        json: Print JSON.
        train: Train it at once, and show the progress until the end.
        folder: Where run folders are made.
        name: Name of the run; default: made from the dataset and the detector, numbered.
    """
    from odkit.runs import import_tfod as read_config

    if not quick:
        print("timing the detectors in question on this machine (--quick leaves it out)", file=sys.stderr)
    found = read_config(source, data, detector=detector, device=device, measure=not quick)
    if out is not None:
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        write_file(out, orjson.dumps(found.to_dict(), option=options))
    if json:
        _print_json(found.to_dict())
    else:
        print(found)
    if not train:
        return 0
    if found.data is None:
        raise InputError("nothing is known of the data to train on: --data FOLDER")
    dataset = read_dataset(str(found.data), Classes(classes=found.classes))
    run = create_run(dataset, make_settings(found.settings), folder, name)
    return _watch(run, run.start)


@command
def resume(run: Positional[str], *, changes: Changes = Changes(), wait: bool = True) -> int:  # type: ignore[valid-type]  # noqa: B008
    """Go on with a stopped, killed or finished run where its newest checkpoint stands.

    Args:
        run: Run folder, or the name of a run under runs/.
        changes: Settings that may change.
        wait: Show the progress until the end; otherwise the run goes on in the background.
    """
    given = {key: value for key, value in vars(changes).items() if value is not None}
    found = open_run(run)
    if not wait:
        return _say_background(found.resume(wait=False, **given))
    return _watch(found, functools.partial(found.resume, wait=False, **given))


@command
def worker(run: Positional[Path]) -> int:
    """Train a run here and now, in this process: what `odkit train` and torchrun start.

    Args:
        run: Run folder.
    """
    found = Run(run)
    if "WORLD_SIZE" in os.environ:  # the launcher's processes save themselves and end if it is killed
        end_with_parent(signal.SIGTERM)
        launched = psutil.Process(os.getppid()).create_time()
        if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" and found.end.get("time", 0.0) > launched:
            return 1  # started again in vain: what ended the run would end it again
    # before the seconds that importing torch takes; data workers, forked from here, let go of it by the variable
    first = os.environ.get("RANK", "0") == "0"  # of the processes of one run, one is its owner
    handle = hold_lock(found.path, inherited_alone=not first)
    os.environ[LOCK_VARIABLE] = "" if handle is None else str(handle)
    prepare_torch(os.environ, deterministic=found.settings.deterministic)
    from odkit.training import work

    status = work(found.path)
    with contextlib.suppress(OSError):  # a full disk under worker.log
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)  # tearing torch down takes seconds in which the run would still count as alive


@command
def learning_curve(
    path: Positional[str],
    *,
    settings: Flags = Flags(),  # noqa: B008  (frozen)
    fractions: tuple[float, ...] = FRACTIONS,
    seeds: int = 1,
    classes: Classes = Classes(),
    reading: Reading = Reading(),
    repair: bool = False,
    folder: Path = RUNS,
    name: str | None = None,
    figure: Path | None = None,
    json: bool = False,
) -> int:
    """Say how many pictures you need: AP with parts of the training images, and what more would give.

    A training run for each part, one after the other; together they take about as long as so many runs of `odkit
    train`. Interrupted and started again, it goes on where it stopped. Ctrl-C and SIGTERM act as for `odkit train`.

    Args:
        path: Folder or label file of a dataset, a saved Dataset (.npz), or "demo".
        settings: Settings of the run on all training images; those on fewer have as many steps.
        fractions: Shares of the training images, 0 to 1; the whole is always among them.
        seeds: How often each part is drawn and trained: several measure how much is luck.
        classes: Classes to rename, merge or leave out.
        reading: How the dataset is read.
        repair: Repair what can be repaired safely in what is trained on; the files stay as they are.
        folder: Where the curve's folder is made.
        name: Name of that folder; default: made from the dataset and the detector.
        figure: Picture file to draw the curve into (.png, .svg, .pdf).
        json: Print JSON; all else that is said then goes to stderr.
    """
    if figure is not None and (figure.suffix.lower() not in PICTURES or not figure.parent.is_dir()):
        raise InputError(f"--figure {figure}: a file ({', '.join(PICTURES)}) in a folder that is there")
    checked = make_settings(dataclasses.asdict(settings))
    dataset = read_dataset(path, classes, reading)
    if repair:
        from odkit.data.audit import repaired

        dataset = repaired(dataset)
    plan = plan_learning_curve(dataset, checked, fractions=fractions, seeds=seeds, folder=folder, name=name)
    with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        for run in [run for run in plan.runs if run.state != "finished"]:
            print(plan.outlook(), flush=True)
            status = _watch(run, functools.partial(plan.start, run))
            if status or run.state != "finished":
                print("The same command goes on with the curve.")
                return status or 1
    curve = plan.measure()
    if figure is not None:
        from odkit.analysis.figures import learning_curve as draw

        picture = io.BytesIO()
        draw(curve).savefig(picture, format=figure.suffix[1:].lower())
        write_file(figure, picture.getvalue())
    if json:
        _print_json(curve.to_dict())
    else:
        print(curve)
    return 0


@command
def stop(run: Positional[str], *, when: Literal["now", "epoch"] = "now") -> int:
    """Ask a run to save and stop, and wait until it has.

    Args:
        run: Run folder, or the name of a run under runs/.
        when: Finish the step ("now") or the epoch before.
    """
    found = open_run(run)
    if not found.alive:
        print(f"{found.name} is not running: {found.state}")
        return 0
    found.stop(when)  # a step or an epoch takes what it takes; Ctrl-C ends the waiting
    return _say_end(found)


# -- looking at runs -------------------------------------------------------------------------------------------------


@command
def runs(
    folder: Positional[Path] = RUNS, *, compare: bool = False, json: bool = False, delete: str | None = None
) -> int:
    """List the runs of a folder: state, epochs, best AP on the validation images, AP on the test images.

    Args:
        folder: Where run folders lie.
        compare: Best validation AP first, with the settings and the data in which the runs differ.
        json: Print JSON.
        delete: Name of a run to remove with everything in it.
    """
    if delete is not None:
        Run(folder / delete).delete()
        print(f"removed {folder / delete}")
        return 0
    found = list_runs(folder)
    rows = compared(found) if compare else [run.summary() if json else run_row(run) for run in found]
    if json:
        _print_json(rows)
    else:
        print(table(rows) if rows else f"no runs in {folder}; `odkit train demo` makes one")
    return 0


@command
def show(run: Positional[str]) -> int:
    """Show a run: its progress while it trains, its epochs when it has ended. Ctrl-C leaves it running.

    Args:
        run: Run folder, or the name of a run under runs/.
    """
    found = open_run(run)
    if found.alive:
        found.wait()
    else:
        rows = found.history()
        columns = {
            "epoch": "epoch",
            "loss": "loss",
            "val_ap": "ap",
            "val_ap50": "ap50",
            **{key: key for key in ("learning_rate", "seconds", "images_per_second")},
        }
        print(
            table([{name: row.get(key) for name, key in columns.items()} for row in rows])
            if rows
            else "no epoch finished yet"
        )
    return _say_end(found)


@command
def test(
    run: Positional[str],
    *,
    data: str | None = None,  # noqa: PT028  (a command)
    reading: Reading = Reading(),  # noqa: PT028
    device: str = "auto",  # noqa: PT028
    json: bool = False,  # noqa: PT028
) -> int:
    """Judge a run's best detector on the test images, once, with 95% intervals, and write down what they said.

    The test images are those that its dataset had in a split "test" (`odkit train --test-split`) when the run was
    made. Asked again, it says what was written down; only another detector, after a resume, is judged anew.

    Args:
        run: Run folder, or the name of a run under runs/.
        data: Other labelled images that the run has not seen, folder or label file: their test split, or all of them.
        reading: How those are read.
        device: Where to compute: auto (what training would choose), cpu, cuda, cuda:1, mps.
        json: Print JSON.
    """
    given = None if data is None else read_dataset(data, reading=reading, val=0)
    found = open_run(run).test(given, device=device)
    if json:
        _print_json(found.to_dict())
    else:
        print(found)
    return 0


@command
def tensorboard(run: Positional[str], *, out: Path = Path("tensorboard")) -> int:
    """Write what a run has logged for TensorBoard.

    Args:
        run: Run folder, or the name of a run under runs/.
        out: Folder for all runs; this one goes to a folder of its name in it.
    """
    from odkit.runs import export_tensorboard

    print(f"{export_tensorboard(open_run(run), out)}\n  tensorboard --logdir {out}")
    return 0


@command
def mlflow(run: Positional[str], *, tracking: str | None = None, experiment: str = "odkit") -> int:
    """Send what a run has logged to MLflow.

    Args:
        run: Run folder, or the name of a run under runs/.
        tracking: Where MLflow keeps its runs, as http://127.0.0.1:5000 or sqlite:///mlflow.db; default:
            $MLFLOW_TRACKING_URI, else MLflow's own.
        experiment: The experiment that the run goes to.
    """
    from odkit.runs import export_mlflow

    print(f"MLflow's run {export_mlflow(open_run(run), tracking, experiment=experiment)} in {experiment!r}")
    return 0


@command
def replay(run: Positional[str]) -> int:
    """Go again through the batches of a run whose loss was not finite, and name the images behind it.

    Args:
        run: Run folder, or the name of a run under runs/.
    """
    from odkit.training import replay as replay_batches

    rows = replay_batches(open_run(run))
    print(table(rows) if rows else "no batch of this run was left out")
    return 0


# -- data ------------------------------------------------------------------------------------------------------------


@command
def audit(
    path: Positional[str], *, reading: Reading = Reading(), examples: int = 5, json: bool = False
) -> int:
    """Say everything that is wrong with a dataset; the exit status is 1 where something must be repaired to train.

    Args:
        path: Folder or label file of a dataset, or "demo".
        reading: How the dataset is read.
        examples: Examples of each kind of finding to print.
        json: Print JSON, with all findings.
    """
    from odkit.data.audit import audit as audit_dataset

    found = audit_dataset(read_dataset(path, reading=reading))
    print(found.to_json().decode() if json else found.table(limit=examples))
    return 0 if found.ok else 1


@command
def convert(
    source: Positional[str],
    target: Positional[Path],
    *,
    to: Writable,
    classes: Classes = Classes(),
    reading: Reading = Reading(),
) -> int:
    """Write a dataset in another format; the source stays as it is. No splits are dealt.

    Args:
        source: Folder or label file of a dataset, or "demo".
        target: Folder to write to.
        to: Format to write.
        classes: Which classes of the dataset, and under which names; the files stay as they are.
        reading: How the source is read.
    """
    from odkit.data.formats import write_dataset

    with _warnings_said():  # what the format cannot hold
        written = write_dataset(read_dataset(source, classes, reading, val=0), target, to)
    print(f"written to {written} ({to})\n  odkit audit {target}")
    return 0


@command
def demo(folder: Positional[Path], *, images: int = 400, seed: int = 0, faults: bool = False) -> int:
    """Draw the demo dataset into a folder: workshop parts on a bench, five classes, COCO's format.

    Args:
        folder: Folder to write to; new or empty.
        images: Number of images.
        seed: Another seed gives other images.
        faults: Plant the faults that datasets have in the wild, for `odkit audit` to find.
    """
    from odkit.data.demo import write_demo

    written = write_demo(folder, images=images, seed=seed, faults=faults)
    print(f"{images} images in {written}\n  odkit audit {folder}\n  odkit train {folder}")
    return 0


# -- detectors -------------------------------------------------------------------------------------------------------


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
        _print_json(rows)
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
        _print_json(evaluation.to_dict())
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
    source = demo_dataset() if _means_the_demo(path) else path
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
        with _signals_to(ask):
            made = suggest(pictures, run or found, score=score, tiles=tiles, keep=keep, stop=stop, **how)
    except Interrupted as ended:
        print(ended, file=sys.stderr)
        return 128 + asked[0]
    with _warnings_said():  # what the format cannot hold
        write_dataset(made.as_labels(), out, to, images=images)
    write_file(out / "suggestions.json", orjson.dumps(made.to_dict(), option=orjson.OPT_INDENT_2))
    print(f"{made}\nwritten to {out} ({to}; scores and the order to look in: suggestions.json)")
    return 0


def _chosen(
    detector: "Detector",
    run: Run | None,
    device: str,
    precision: str,
    images: int,
    batch_size: int,
    num_workers: int,
) -> dict[str, Any]:
    """Arguments of `detection.predict`; what odkit chooses in them is said, with the reason, on stderr."""
    place = detection.pick_device(device)
    if device == "auto":
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


@command
def doctor(
    *,
    data: Path | None = None,
    work: Path | None = None,
    need_gpu: bool = False,
    only: tuple[str, ...] = (),
    json: bool = False,
) -> int:
    """Say whether training will work on this machine, and if not, what to type; the exit status is 1 if it will not.

    Args:
        data: Folder with the images; default: $ODKIT_DATA, or /data in odkit's image.
        work: Folder that runs are written to; default: $ODKIT_WORK, /work in odkit's image, or the current one.
        need_gpu: A missing GPU is a failure in place of a warning.
        only: Names of the checks wanted, as the report shows them; default: all.
        json: Print JSON.
    """
    from odkit.doctor import check

    report = check(data=data, work=work, need_gpu=need_gpu, only=only)
    if json:
        _print_json(report.to_dict())
    else:
        print(report)
    return report.exit_status


# -- what the commands share -----------------------------------------------------------------------------------------


def read_dataset(
    path: str, classes: Classes = Classes(), reading: Reading = Reading(), *, val: float = 0.2
) -> Dataset:
    """The dataset at a path (a folder, a label file, or what `Dataset.save()` wrote), or the demo.

    What was recognised in a folder or label file, and chosen, is said on stderr.

    Args:
        path: The path, or "demo".
        classes: What becomes of its classes.
        reading: How it is read.
        val: Share that is dealt to "val" where it has no such split.
    """
    from odkit.data.demo import demo_dataset
    from odkit.data.formats import load_dataset

    if _means_the_demo(path):
        dataset = demo_dataset()
    else:
        dataset = load_dataset(path, val=val, **vars(reading))
        if not path.endswith(".npz"):
            print(f"{path}:", *(f"  - {note}" for note in dataset.notes), sep="\n", file=sys.stderr)
    if classes.rename:
        pairs = [text.partition("=") for text in classes.rename]
        if wrong := [old for old, _, new in pairs if not new]:
            raise InputError(f"--rename wants OLD=NEW, not {wrong[0]!r} alone")
        dataset = dataset.with_classes({old: new for old, _, new in pairs})
    return dataset.with_classes(classes.classes) if classes.classes else dataset


def _means_the_demo(path: str) -> bool:
    """Whether the word "demo" is meant, and no folder of that name."""
    return path == "demo" and not Path(path).exists()


def read_detector(name: str, device: str = "auto") -> tuple[Run | None, "Detector"]:
    """The detector of a run (folder or name under runs/), and that run; or of a file, and None.

    Raises:
        RunError: The run has no detector yet.
        MissingFileError: There is neither such a run nor such a file.
    """
    path = Path(name)
    if path.is_file():
        return None, detection.load_detector(path, device=device)
    if not path.exists() and not (RUNS / path).exists():
        raise MissingFileError(f"{name} is neither a run (folder, or name under {RUNS}/) nor a detector file")
    run = open_run(path)
    if not (run.path / "detector.safetensors").exists():
        raise RunError(f"{run.name} has no detector yet: it is saved with the first evaluation ({run.state})")
    return run, run.detector(device=device)


def compared(found: Sequence[Run]) -> list[dict[str, Any]]:
    """Rows to compare runs by: the best validation AP first, and only the settings (and data) in which they differ."""
    facts = [{"dataset": run.config["dataset"], "data": run.config["fingerprint"]} for run in found]
    facts = [{**fact, **run.settings.to_dict()} for fact, run in zip(facts, found, strict=True)]
    differing = [key for key in (facts[0] if facts else {}) if len({str(fact[key]) for fact in facts}) > 1]
    rows = [
        {
            **{key: row[key] for key in ("name", "state", "val_ap", "val_ap50", "loss", "epoch", "minutes")},
            **{key: fact[key] for key in differing},
        }
        for fact, row in zip(facts, (run.summary() for run in found), strict=True)
    ]
    return sorted(rows, key=lambda row: -(row["val_ap"] or 0.0))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as text: a column a key of the first row, numbers to the right."""

    def cell(value: Any) -> str:
        if value is None:
            return "-"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    heads = list(rows[0])
    texts = [[cell(row.get(key)) for key in heads] for row in rows]
    widths = [max(len(line[i]) for line in [heads, *texts]) for i in range(len(heads))]
    numeric = [all(isinstance(row.get(key), int | float | None) for row in rows) for key in heads]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [heads, *texts]
    ]
    return "\n".join(lines)


@contextmanager
def _warnings_said() -> Iterator[None]:
    """Afterwards each warning is a line on stderr."""
    with warnings.catch_warnings(record=True) as said:
        yield
    for warning in said:
        print(f"warning: {warning.message}", file=sys.stderr)


def _print_json(value: Any) -> None:
    """A value as JSON, arrays included."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    print(orjson.dumps(value, option=options, default=str).decode())


def _say_background(run: Run) -> int:
    print(f"{run.name} trains in the background.\n  odkit show {run.path}\n  odkit stop {run.path}")
    return 0


def _say_end(run: Run) -> int:
    print(run)
    if run.state in ("stopped", "died") and run.checkpoints():
        print(f"Saved: {run.checkpoints()[-1]}\nGo on: odkit resume {run.path}")
    return 0


def _watch(run: Run, start: Callable[[], object]) -> int:
    """Start and show a run until it ends; 0, or 128 and the number of the signal that ended it, as shells count.

    Ctrl-C and SIGTERM ask the run to save and stop; a second Ctrl-C doesn't wait for that.
    """
    _ = dashboard.show_run  # loaded before the start, so that Ctrl-C meets who is ready for it
    asked: list[int] = []
    started = False

    def ask(number: int, frame: Any) -> None:
        if started and asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        run.request("now")
        # not print(): a signal may arrive in the middle of one
        os.write(
            2,
            f"\n{run.name}: saving and stopping after this step. Ctrl-C again: don't wait for it.\n".encode(),
        )

    try:
        with _signals_to(ask):
            start()  # is not cut short: half a start would leave a worker that has no request
            started = True
            if asked:  # while it started, which clears older requests
                run.request("now")
            if signal.SIGINT in asked[1:]:
                raise KeyboardInterrupt
            run.wait()
    except KeyboardInterrupt:
        dashboard.say_unwatched(run)
    if run.alive:
        return 130
    _say_end(run)
    return 128 + asked[0] if asked and run.state != "finished" else 0


@contextmanager
def _signals_to(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """While inside, Ctrl-C and SIGTERM call `handler`."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def main(args: Sequence[str] | None = None) -> int:
    """Run the `odkit` command; returns its exit status.

    An error meant for people is one message and status 1 (ODKIT_TRACEBACK=1 shows where it comes from); any other is a
    fault of ours, and keeps its traceback.
    """
    given = list(sys.argv[1:] if args is None else args)
    if given == ["--version"]:
        print(f"odkit {odkit_version()}")
        return 0
    config = (
        tyro.conf.OmitArgPrefixes,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.PositionalMetavarFromFieldName,
    )
    try:
        call = app.cli(prog="odkit", description=DESCRIPTION, args=given, config=config)
        status: int = call()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `odkit runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OdkitError, OSError) as error:  # of the machine's own, a full disk is the usual one
        if os.environ.get("ODKIT_TRACEBACK"):
            raise
        print(f"odkit: {error}", file=sys.stderr)
        return 1
    return status
