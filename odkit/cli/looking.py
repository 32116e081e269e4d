"""Commands that look at runs."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from odkit.cli.flags import Reading
from odkit.cli.shared import command, print_json, read_dataset, say_end, table
from odkit.runs import RUNS, Run, check_name, look_for_runs, open_run, run_row
from odkit.system import InputError, counted, megabytes, printable


@command
def runs(
    folder: Positional[Path] = RUNS,
    *,
    compare: bool = False,
    json: bool = False,
    delete: str | None = None,
    yes: bool = False,
) -> int:
    """List the runs of a folder: state, epochs, best AP on the validation images, AP on the test images.

    A folder whose config.json cannot be read as a run's is a row as well, and why is said below.

    Args:
        folder: Where run folders lie.
        compare: Best validation AP first, with the settings and the data in which the runs differ.
        json: Print JSON.
        delete: Name of a run in the folder to remove with everything in it; you are asked first.
        yes: Do not ask.
    """
    if delete is not None:
        check_name(delete)
        remove(Run(folder / delete), sure=yes)
        return 0
    found, unreadable = look_for_runs(folder)
    rows = compared(found) if compare else [run.summary() if json else run_row(run) for run in found]
    if json:
        print_json(
            [*rows, *({"name": p.name, "state": "unreadable", "why": why} for p, why in unreadable.items())]
        )
        return 0
    rows += [{"name": path.name, "state": "unreadable"} for path in unreadable]
    print(table(rows) if rows else f"no runs in {folder}; `odkit train demo` makes one")
    for path, why in unreadable.items():
        print(printable(f"{path.name}: {why}"), file=sys.stderr)
    return 0


def remove(run: Run, *, sure: bool) -> None:
    """Remove a run, once the person who typed it has said yes.

    Raises:
        InputError: Nobody can be asked.
    """
    if not sure:
        sizes = [file.lstat().st_size for file in run.path.rglob("*") if not file.is_dir()]
        what = f"{run.path}: {run}, {counted(len(sizes), 'file')}, {megabytes(sum(sizes))}"
        if not sys.stdin or not sys.stdin.isatty():
            raise InputError(f"this would remove {what}. With --yes it does")
        print(f"{what}\nRemove it with everything in it? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return
    run.delete()
    print(f"removed {run.path}")


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
    return say_end(found)


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
        print_json(found.to_dict())
    else:
        print(found)
    return 0


@command
def report(run: Positional[str], *, out: Path | None = None) -> int:
    """Write a run as one page of HTML to keep, mail or print; each run also ends with one.

    Args:
        run: Run folder, or the name of a run under runs/.
        out: The page's file; default: report.html in the run's folder, with MODEL_CARD.md beside it.
    """
    print(open_run(run).report(out))
    return 0


@command
def track(run: Positional[str], *, to: str) -> int:
    """Send what a run has logged to a tracker: at once, and while it trains until it has ended.

    The curves, settings and warnings go there, and what a resume did over stands there once. Ctrl-C ends it, not the
    run; the same command goes on. `odkit train --track` does it by itself.

    Args:
        run: Run folder, or the name of a run under runs/.
        to: tensorboard, mlflow, wandb or trackio; with where it keeps its runs as tensorboard=FOLDER,
            mlflow=http://127.0.0.1:5000 or mlflow=sqlite:///mlflow.db, wandb=PROJECT. Default: ./tensorboard,
            $MLFLOW_TRACKING_URI, and what the others' own environment variables say.
    """
    from odkit.runs import in_background, read_targets
    from odkit.runs import track as follow

    found, (target,) = open_run(run), read_targets(to)
    if in_background(
        found, target
    ):  # nobody waits for an answer, and a tracker that hangs may not hold this process
        try:
            follow(found, to)
        finally:
            sys.stdout.flush()
            os._exit(0)
    if found.alive:
        print(f"{target.tracker.title} follows {found.name} until it has ended", file=sys.stderr)
    stands = follow(found, to)
    print(f"{target.tracker.title} has it: {stands}")
    if target.name == "tensorboard":
        print(f"  tensorboard --logdir {Path(stands).parent}")
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
