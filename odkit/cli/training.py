"""Commands that train."""

import contextlib
import dataclasses
import functools
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import orjson
from tyro.conf import Positional

from odkit.cli.flags import Changes, Classes, Flags, Reading
from odkit.cli.shared import (
    check_figure,
    command,
    print_json,
    read_dataset,
    say_background,
    say_end,
    warnings_said,
    watch,
    write_figure,
)
from odkit.runs import (
    RUNS,
    Run,
    check_machine,
    check_name,
    create_run,
    hold_lock,
    make_settings,
    open_run,
    prepare_torch,
    read_targets,
)
from odkit.system import LOCK_VARIABLE, InputError, end_with_parent, write_file


@command
def train(
    path: Positional[str | None] = None,
    *,
    config: Path | None = None,
    settings: Flags = Flags(),
    classes: Classes = Classes(),
    reading: Reading = Reading(),
    repair: bool = False,
    folder: Path = RUNS,
    name: str | None = None,
    track: tuple[str, ...] = (),
    prepare: bool = False,
    wait: bool = True,
) -> int:
    """Fine-tune a detector on a folder of labelled images, or on the word "demo".

    The first Ctrl-C asks the run to finish its step, save and stop; a second one stops waiting for that. SIGTERM (what
    `docker stop` sends) is the first Ctrl-C.

    Args:
        path: Folder or label file of a dataset, a saved Dataset (.npz), or "demo"; default: what the config names.
        config: File with settings, data and names (`odkit init` writes one), or a run's config.json. What is typed
            wins over it; --no-compile takes back a `compile: true`.
        settings: Settings of the run.
        classes: Which classes of the dataset, and under which names; the files stay as they are.
        reading: How the dataset is read.
        repair: Repair what can be repaired safely in what is trained on; the files stay as they are.
        folder: Where run folders are made.
        name: Name of the run; default: made from the dataset and the detector, numbered.
        track: Trackers that follow the run while it trains: tensorboard, mlflow, wandb, trackio; with where it keeps
            its runs as tensorboard=FOLDER, mlflow=http://127.0.0.1:5000, wandb=PROJECT.
        prepare: Only write the run folder and print the command that trains it, to be started elsewhere (see deploy/).
        wait: Show the progress until the end; otherwise the run goes on in the background.
    """
    from odkit.runs import RunFile, read_config

    checked = make_settings(dataclasses.asdict(settings))
    if name is not None:
        check_name(name)
    if not prepare:
        check_machine(checked)  # said before anything is read
    file = (
        read_config(config) if config else RunFile()
    )  # its settings are among those typed, see `with_config`
    path, track = path or file.data, track or file.track
    if path is None:
        raise InputError(
            "nothing is said of the data to train on: odkit train FOLDER, or `data:` in the config"
        )
    if not (classes.classes or classes.rename):
        classes = Classes(rename=file.rename, classes=file.classes)
    read_targets(track)  # what is missing is said before anything is read
    dataset = read_dataset(path, classes, reading)
    if repair:
        from odkit.data.audit import repaired

        dataset = repaired(dataset)
    with warnings_said():
        run = create_run(dataset, checked, folder, name, track=track, elsewhere=prepare)
    if prepare:
        for target in track:
            print(f"and while it trains: odkit track {run.path} --to {target}", file=sys.stderr)
        print(shlex.join(run.command()))
        return 0
    if not wait:
        return say_background(run.start())
    return watch(run, run.start)


def with_config(args: Sequence[str]) -> list[str]:
    """The command line of `odkit train` with what its --config says put before what is typed, which then wins.

    What the file switches on, as `compile: true`, is switched off by `--no-compile`.
    """
    given = list(args)
    for place, arg in enumerate(given):
        name, _, value = arg.partition("=")
        if name == "--config" and (value or given[place + 1 :]):
            from odkit.runs import read_config

            flags = read_config(value or given[place + 1]).flags()
            off = {f"--no-{flag[2:]}": flag for flag in flags if "=" not in flag}
            taken_back = {off[arg] for arg in given if arg in off}
            return [
                given[0],
                *(flag for flag in flags if flag not in taken_back),
                *(arg for arg in given[1:] if arg not in off),
            ]
    return given


@command
def init(file: Positional[Path] = Path("run.yaml"), *, data: str | None = None) -> int:
    """Write a file of settings to fill in, each with what it means and its default: for `odkit train --config FILE`.

    Args:
        file: A new file.
        data: Folder or label file of a dataset, a saved Dataset (.npz), or "demo".
    """
    from odkit.runs import write_config

    print(f"{write_config(file, data=data)}\n  odkit train --config {file}{'' if data else ' FOLDER'}")
    return 0


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
        print_json(found.to_dict())
    else:
        print(found)
    if not train:
        return 0
    if found.data is None:
        raise InputError("nothing is known of the data to train on: --data FOLDER")
    dataset = read_dataset(str(found.data), Classes(classes=found.classes))
    run = create_run(dataset, make_settings(found.settings), folder, name)
    return watch(run, run.start)


@command
def resume(
    run: Positional[str],
    *,
    changes: Changes = Changes(),  # type: ignore[valid-type]
    track: tuple[str, ...] | None = None,
    wait: bool = True,
) -> int:
    """Go on with a stopped, killed or finished run where its newest checkpoint stands.

    Args:
        run: Run folder, or the name of a run under runs/.
        changes: Settings that may change.
        track: Trackers to follow it from now on, as `odkit train --track` takes them. Default: those that did.
        wait: Show the progress until the end; otherwise the run goes on in the background.
    """
    given = {key: value for key, value in vars(changes).items() if value is not None}
    found = open_run(run)
    go_on = functools.partial(found.resume, wait=False, track=track, **given)
    return watch(found, go_on) if wait else say_background(go_on())


@command
def worker(run: Positional[Path]) -> int:
    """Train a run here and now, in this process: what `odkit train` and torchrun start.

    Args:
        run: Run folder.
    """
    import psutil

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
    settings: Flags = Flags(),
    fractions: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0),
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
    from odkit.training import plan_learning_curve

    check_figure(figure)
    checked = make_settings(dataclasses.asdict(settings))
    dataset = read_dataset(path, classes, reading)
    if repair:
        from odkit.data.audit import repaired

        dataset = repaired(dataset)
    plan = plan_learning_curve(dataset, checked, fractions=fractions, seeds=seeds, folder=folder, name=name)
    with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        for run in [run for run in plan.runs if run.state != "finished"]:
            print(plan.outlook(), flush=True)
            status = watch(run, functools.partial(plan.start, run))
            if status or run.state != "finished":
                print("The same command goes on with the curve.")
                return status or 1
    curve = plan.measure()
    if figure is not None:
        from odkit.analysis.figures import learning_curve as draw

        write_figure(draw(curve), figure)
    if json:
        print_json(curve.to_dict())
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
    return say_end(found)
