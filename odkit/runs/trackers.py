"""A run's events for other tools' boards: further readers of the same log, not further loggers.

An export may be made at any time, of a run alive or dead, and again: it then takes the place of the last one.
"""

import importlib
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from odkit.runs.run import Run, State
from odkit.runs.worker import RunError
from odkit.system import MissingPackageError

SUFFIX = ".odkit"  # of TensorBoard's files written here, so that a new export replaces the last one and nothing else
FOLDER_TAG = "odkit.folder"  # by which MLflow finds the last export of a run
STATUS: dict[State, str] = {
    "new": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
    "died": "FAILED",
}
METRICS_A_CALL, PARAMETERS_A_CALL = 1000, 100  # what MLflow takes at once


def export_tensorboard(run: Run, folder: str | Path = "tensorboard") -> Path:
    """Write what a run has logged so far as TensorBoard's event files; `tensorboard --logdir FOLDER` shows them.

    Steps, epochs and evaluations keep the time they happened at; what a resume did over stands there once.

    Args:
        run: Alive or dead.
        folder: One folder for all runs: this one goes to a folder of its name in it.

    Returns:
        The folder written to.

    Raises:
        MissingPackageError: TensorBoard is not installed; the message says what to type.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingPackageError(
            f"TensorBoard is not installed ({error}): pip install 'odkit[tensorboard]', or pip install tensorboard"
        ) from error
    target = Path(folder) / run.name
    for old in target.glob(f"events.out.tfevents.*{SUFFIX}"):
        old.unlink()
    writer = SummaryWriter(str(target), filename_suffix=SUFFIX)
    try:
        settings = "\n".join(f"| {name} | {value} |" for name, value in run.settings.to_dict().items())
        writer.add_text("settings", f"| setting | value |\n|---|---|\n{settings}", 0)
        for event in run.events():
            for tag, value in scalars(event).items():
                writer.add_scalar(tag, value, event["step"], walltime=event["time"])
            if event["event"] == "warning":
                writer.add_text("warnings", str(event["message"]), event["step"], walltime=event["time"])
    finally:
        writer.close()
    return target


def export_mlflow(run: Run, tracking: str | None = None, *, experiment: str = "odkit") -> str:
    """Send what a run has logged so far to MLflow: settings as parameters, the same curves as TensorBoard's.

    Steps, epochs and evaluations keep the time they happened at; what a resume did over stands there once. An earlier
    export of the same folder is moved to MLflow's bin.

    Args:
        run: Alive or dead.
        tracking: Where MLflow keeps its runs, as "http://127.0.0.1:5000" or "sqlite:///mlflow.db"; None: what
            $MLFLOW_TRACKING_URI says, else MLflow's own default.
        experiment: The experiment that the run goes to; made if there is none of this name.

    Returns:
        MLflow's id of the run.

    Raises:
        MissingPackageError: MLflow is not installed; the message says what to type.
        RunError: MLflow does not take the run.
    """
    os.environ.setdefault(
        "MLFLOW_DISABLE_TELEMETRY", "true"
    )  # an export goes where it is told to and nowhere else
    try:
        entities = importlib.import_module("mlflow.entities")
        tracking_module = importlib.import_module("mlflow.tracking")
        refusal = importlib.import_module("mlflow.exceptions").MlflowException
    except ImportError as error:
        raise MissingPackageError(
            f"MLflow is not installed ({error}): pip install 'odkit[mlflow]', or mlflow-skinny where a server keeps "
            "the runs"
        ) from error
    try:
        return _send_to_mlflow(run, tracking_module.MlflowClient(tracking), entities, experiment)
    except refusal as error:
        place = tracking or os.environ.get("MLFLOW_TRACKING_URI") or "its default place"
        raise RunError(f"MLflow did not take {run.name} at {place}: {error}") from error


def _send_to_mlflow(run: Run, client: Any, entities: Any, experiment: str) -> str:
    found = client.get_experiment_by_name(experiment)
    place = found.experiment_id if found else client.create_experiment(experiment)
    quoted = str(run.path).replace("'", "\\'")
    for old in client.search_runs([place], filter_string=f"tags.`{FOLDER_TAG}` = '{quoted}'"):
        client.delete_run(old.info.run_id)
    events, config, state = run.events(), run.config, run.state
    milliseconds = [int(event["time"] * 1000) for event in events]
    warnings = [f"- step {e['step']}: {e['message']}" for e in events if e["event"] == "warning"]
    tags = {
        FOLDER_TAG: str(run.path),
        "odkit.dataset": str(config["dataset"]),
        "odkit.fingerprint": str(config["fingerprint"]),
        "odkit.state": state,
        "mlflow.note.content": "\n".join(["Warnings:", *warnings])[:5000] if warnings else "",
    }
    identity: str = client.create_run(
        place, start_time=min(milliseconds, default=None), tags=tags, run_name=run.name
    ).info.run_id
    parameters = [entities.Param(name, str(value)) for name, value in run.settings.to_dict().items()]
    for some in _parts(parameters, PARAMETERS_A_CALL):
        client.log_batch(identity, params=some)
    points = (
        entities.Metric(mlflow_name(tag), value, when, event["step"])
        for event, when in zip(events, milliseconds, strict=True)
        for tag, value in scalars(event).items()
    )
    for some in _parts(points, METRICS_A_CALL):
        client.log_batch(identity, metrics=some)
    if state in ("new", "running"):
        client.update_run(identity, status=STATUS[state])
    else:
        client.set_terminated(identity, STATUS[state], max(milliseconds, default=None))
    return identity


def _parts(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part


def mlflow_name(tag: str) -> str:
    """A tag as MLflow takes it: characters of class names that it refuses stand as their code point, as in "x2b"."""
    group, _, name = tag.partition("/")
    name = re.sub(r"[^\w.\- ]", lambda found: f"x{ord(found[0]):x}", name)
    return f"{group}/{name if name.strip('.') else name.replace('.', 'x2e')}"


def scalars(event: dict[str, Any]) -> dict[str, float]:
    """The numbers of an event that make a curve, by their tag: "train/loss", "val/ap", "val_class/NAME", ..."""
    if event["event"] == "step":
        found = {
            "train/loss": event["loss"],
            "train/learning_rate": event["learning_rate"],
            "train/gradient_norm": event["grad_norm"],
            "speed/images_per_second": event["images_per_second"],
            "speed/data_wait_share": event["data_wait"],
            "memory/host_bytes": event["memory"],
            "memory/device_bytes": event["device_memory"] or None,
            **{f"train/loss_{name}": value for name, value in event["losses"].items()},
        }
    elif event["event"] == "epoch":
        found = {"epoch/loss": event["loss"], "epoch/seconds": event["seconds"]}
    elif event["event"] == "evaluation":
        skip = ("epoch", "step", "time", "seconds", "best")
        found = {f"val/{k}": v for k, v in event.items() if isinstance(v, int | float) and k not in skip}
        found |= {f"val_class/{name}": value for name, value in event.get("per_class", {}).items()}
    else:
        found = {}
    return {tag: float(value) for tag, value in found.items() if value is not None}
