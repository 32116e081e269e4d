"""A run's events at other tools' boards: TensorBoard, MLflow, Weights & Biases, Trackio.

Each is a further reader of the same log, not a further logger. It is sent the curves (`scalars`), the settings and the
warnings; nothing else of a run, no pictures, weights or code, and nothing about this machine. None of them imports
torch. `follower.py` says when what is sent.

What a rollback or a resume does over stands on no board twice. TensorBoard takes points back. The others can't: there a
new run takes the place of the old one, which MLflow moves to its bin, Trackio deletes, and Weights & Biases keeps,
marked "done over".
"""

import contextlib
import importlib
import importlib.util
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from odkit.runs.events import tell
from odkit.runs.worker import children
from odkit.system import LOCK_VARIABLE, InputError, MissingPackageError, OdkitError, package_path

SUFFIX = ".odkit"  # of TensorBoard's files written here, so that a new one replaces the last and nothing else
FOLDER_TAG = "odkit.folder"  # by which a board finds what an earlier follower of this run sent
STATUS = {
    "new": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
    "died": "FAILED",
}
METRICS_A_CALL, PARAMETERS_A_CALL = 1000, 100  # what MLflow takes at once
ANSWER = 30  # seconds that a server has to answer a request


class About(NamedTuple):
    """What a board is told of a run besides its events."""

    name: str
    path: Path
    dataset: str
    fingerprint: str
    settings: Mapping[str, Any]
    began: float | None  # Unix seconds; None before the first event

    @property
    def marks(self) -> dict[str, str]:
        """By which the run and its data are found again at a board."""
        return {
            FOLDER_TAG: str(self.path),
            "odkit.dataset": self.dataset,
            "odkit.fingerprint": self.fingerprint,
        }


class Board(Protocol):
    """A run at a tracker. Any of these may raise whatever the tracker's own package raises."""

    identity: str  # of the run there: what finds it again

    def begin(self, kept: str) -> bool:
        """Get ready; whether it goes on with `kept`, an earlier `identity`, in place of beginning anew ("": none)."""

    def send(self, events: Sequence[Mapping[str, Any]], /) -> None:
        """Put events there, at their own time where the tracker takes that."""

    def unsay(self, step: int, /) -> bool:
        """Take back what stands at a step and later; False where it cannot, and a new run must take its place."""

    def end(self, state: str, when: float | None, /) -> None:
        """Nothing more comes; `state` is the run's, `when` its last event was (Unix seconds)."""


# -- which there are ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tracker:
    """One row of the table of trackers."""

    title: str
    board: type[Any]  # a Board, made of an About and a place
    package: str  # whose import it needs
    place: str  # what may stand behind "=", for help and messages


class Target(NamedTuple):
    """A tracker and where it keeps its runs, as "mlflow=http://127.0.0.1:5000" says it."""

    name: str
    place: str

    @property
    def tracker(self) -> Tracker:
        return TRACKERS[self.name]

    def __str__(self) -> str:
        return f"{self.name}={self.place}" if self.place else self.name


def read_targets(texts: str | Iterable[str]) -> list[Target]:
    """Trackers by their names, each with the place behind "=" if it is told one, ready to be used from any folder.

    Raises:
        InputError: No tracker has that name (the message names the nearest), one is named twice, or a password stands
            in an address.
        MissingPackageError: Its package is not installed; the message says what to type.
    """
    found: list[Target] = []
    for text in [texts] if isinstance(texts, str) else texts:
        name, _, place = text.partition("=")
        if name not in TRACKERS:
            near = get_close_matches(name, TRACKERS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise InputError(f"no tracker is called {name!r}{hint} There are: {', '.join(TRACKERS)}")
        if any(name == other.name for other in found):
            raise InputError(f"{name} is named twice: a run is followed by each tracker once")
        if "://" in place and urlsplit(place).password:
            raise InputError(
                f"{text.partition('://')[0]}://...: the address holds a password, which would be written into the "
                "run's folder. Give it in the tracker's own environment variable (MLFLOW_TRACKING_PASSWORD)"
            )
        if importlib.util.find_spec(TRACKERS[name].package) is None:
            raise missing(name)
        if name == "tensorboard":
            place = str(Path(os.path.expanduser(place or "tensorboard")).absolute())
        elif re.match(r"sqlite:///[^/]", place):
            place = f"sqlite:///{Path(place.removeprefix('sqlite:///')).absolute()}"
        found.append(Target(name, place))
    return found


def missing(name: str, error: ImportError | None = None) -> MissingPackageError:
    """What is said where a tracker's package is not there, or cannot be imported."""
    why = f" ({error})" if error else ""
    instead = " (or mlflow-skinny, where a server keeps the runs)" if name == "mlflow" else ""
    return MissingPackageError(
        f"{TRACKERS[name].title} is not installed{why}: pip install 'odkit[{name}]', or pip install {name}{instead}"
    )


def start_followers(path: Path, texts: Iterable[str]) -> None:
    """Start a follower for each tracker, in a session of its own; what becomes of it stands in `track-NAME.log`."""
    for text in texts:
        try:
            read_targets(text)
        except OdkitError as error:  # a run goes on elsewhere than it began
            tell(f"warning: {path.name} is not followed by {text}: {error}")
            continue
        log = path / f"track-{text.partition('=')[0]}.log"
        with contextlib.suppress(OSError), log.open("ab") as file:  # tracking never fails a run
            children.append(
                subprocess.Popen(
                    [sys.executable, "-m", "odkit", "track", str(path), "--to", text],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, LOCK_VARIABLE: "", "PYTHONPATH": package_path()},
                    start_new_session=True,
                )
            )


# -- TensorBoard -------------------------------------------------------------------------------------------------------


class TensorBoard:
    """An event file in a folder of the run's name; each follower writes it anew."""

    def __init__(self, about: About, place: str) -> None:
        self.about, self.target = about, Path(place) / about.name
        self.identity = str(self.target)

    def begin(self, kept: str) -> bool:
        event = importlib.import_module("tensorboard.compat.proto.event_pb2")
        summary = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        tensor = importlib.import_module("tensorboard.compat.proto.tensor_pb2")
        shape = importlib.import_module("tensorboard.compat.proto.tensor_shape_pb2")
        text = importlib.import_module("tensorboard.plugins.text.metadata")
        writer = importlib.import_module("tensorboard.summary.writer.record_writer").RecordWriter
        self.event, self.summary, self.tensor, self.shape, self.text = event, summary, tensor, shape, text
        self.target.mkdir(parents=True, exist_ok=True)
        old = list(self.target.glob(f"events.out.tfevents.*{SUFFIX}"))
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}{SUFFIX}"
        self.file = (self.target / name).open("wb")
        self.records = writer(self.file)
        self._write(event.Event(wall_time=time.time(), file_version="brain.Event:2"))
        self.unsay(0)  # a TensorBoard that is open has read the old ones
        for path in old:
            path.unlink(missing_ok=True)
        rows = "\n".join(f"| {key} | {value} |" for key, value in self.about.settings.items())
        self._say("settings", f"| setting | value |\n|---|---|\n{rows}", 0, time.time())
        self.file.flush()
        return False

    def send(self, events: Sequence[Mapping[str, Any]]) -> None:
        value = self.summary.Summary.Value
        for event in events:
            if points := scalars(event):
                summary = self.summary.Summary(
                    value=[value(tag=tag, simple_value=point) for tag, point in points.items()]
                )
                self._write(self.event.Event(wall_time=event["time"], step=event["step"], summary=summary))
            elif event["event"] == "warning":
                self._say("warnings", str(event["message"]), event["step"], event["time"])
        self.file.flush()

    def unsay(self, step: int) -> bool:
        """TensorBoard takes a session's start for a restart, and forgets what stood from its step on."""
        start = self.event.SessionLog(status=self.event.SessionLog.START)
        self._write(self.event.Event(wall_time=time.time(), step=step, session_log=start))
        return True

    def end(self, state: str, when: float | None) -> None:
        self.file.close()

    def _say(self, tag: str, text: str, step: int, when: float) -> None:
        tensor = self.tensor.TensorProto(
            dtype="DT_STRING",
            string_val=[text.encode()],
            tensor_shape=self.shape.TensorShapeProto(dim=[self.shape.TensorShapeProto.Dim(size=1)]),
        )
        value = self.summary.Summary.Value(
            tag=f"{tag}/text_summary",
            metadata=self.text.create_summary_metadata(display_name="", description=""),
            tensor=tensor,
        )
        summary = self.summary.Summary(value=[value])
        self._write(self.event.Event(wall_time=when, step=step, summary=summary))

    def _write(self, event: Any) -> None:
        self.records.write(event.SerializeToString())


# -- MLflow ------------------------------------------------------------------------------------------------------------


class MLflow:
    """A run of the experiment $MLFLOW_EXPERIMENT_NAME, else "odkit"; settings are its parameters."""

    def __init__(self, about: About, place: str) -> None:
        self.about, self.place, self.identity = about, place, ""
        self.warnings = ""

    def begin(self, kept: str) -> bool:
        os.environ.setdefault(
            "MLFLOW_DISABLE_TELEMETRY", "true"
        )  # events go where they are told to, nowhere else
        # its own would wait for a server that is gone a quarter of an hour
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(ANSWER))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        self.entities = importlib.import_module("mlflow.entities")
        refusal = importlib.import_module("mlflow.exceptions").MlflowException
        self.client = importlib.import_module("mlflow.tracking").MlflowClient(self.place or None)
        if kept:
            try:
                earlier = self.client.get_run(kept)
            except refusal as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            else:
                if earlier.info.lifecycle_stage == "active":
                    self.identity = kept
                    self.warnings = earlier.data.tags.get("mlflow.note.content", "")
                    self.client.update_run(kept, status="RUNNING")
                    return True
        self._create()
        return False

    def _create(self) -> None:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "odkit"
        found = self.client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else self.client.create_experiment(experiment)
        quoted = str(self.about.path).replace("'", "\\'")
        for old in self.client.search_runs([place], filter_string=f"tags.`{FOLDER_TAG}` = '{quoted}'"):
            self.client.delete_run(old.info.run_id)
        self.identity = self.client.create_run(
            place, start_time=_milliseconds(self.about.began), tags=self.about.marks, run_name=self.about.name
        ).info.run_id
        parameters = [self.entities.Param(key, str(value)) for key, value in self.about.settings.items()]
        for some in _parts(parameters, PARAMETERS_A_CALL):
            self.client.log_batch(self.identity, params=some)

    def send(self, events: Sequence[Mapping[str, Any]]) -> None:
        points = (
            self.entities.Metric(mlflow_name(tag), value, _milliseconds(event["time"]), event["step"])
            for event in events
            for tag, value in scalars(event).items()
        )
        for some in _parts(points, METRICS_A_CALL):
            self.client.log_batch(self.identity, metrics=some)
        said = [f"- step {e['step']}: {e['message']}" for e in events if e["event"] == "warning"]
        if said:
            self.warnings = "\n".join([self.warnings or "Warnings:", *said])[:5000]
            self.client.set_tag(self.identity, "mlflow.note.content", self.warnings)

    def unsay(self, step: int) -> bool:
        return False

    def end(self, state: str, when: float | None) -> None:
        self.client.set_tag(self.identity, "odkit.state", state)
        if state == "new":
            self.client.update_run(self.identity, status=STATUS[state])
        else:
            self.client.set_terminated(self.identity, STATUS[state], _milliseconds(when))


# -- Weights & Biases --------------------------------------------------------------------------------------------------


class WandB:
    """A run of a project, in W&B's own mode: $WANDB_MODE, or what `wandb offline` set."""

    def __init__(self, about: About, place: str) -> None:
        self.about, self.place, self.identity = about, place, ""
        self.warnings: list[str] = []

    def begin(self, kept: str) -> bool:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = importlib.import_module("wandb")
        # offline files cannot be added to: what is uploaded of them later would lie over one another
        goes_on = bool(kept) and wandb.setup().settings.mode == "online"
        self.identity = kept if goes_on else secrets.token_hex(4)
        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            init_timeout=ANSWER,
            quiet=True,
            reinit="create_new",
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self.run = wandb.init(
            project=self.place or os.environ.get("WANDB_PROJECT") or "odkit",
            id=self.identity,
            name=self.about.name,
            group=self.about.name,
            config={**self.about.settings, **self.about.marks},
            resume="allow" if goes_on else None,
            settings=settings,
        )
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        return goes_on

    def send(self, events: Sequence[Mapping[str, Any]]) -> None:
        for event in events:
            if points := scalars(event):
                self.run.log({**points, "step": event["step"], "_timestamp": event["time"]})
            elif event["event"] == "warning":
                self.warnings.append(f"step {event['step']}: {event['message']}")
                self.run.summary["warnings"] = "\n".join(self.warnings[-50:])

    def unsay(self, step: int) -> bool:
        self.run.tags = (*(self.run.tags or ()), "done over")
        self.run.finish(exit_code=0)
        return False

    def end(self, state: str, when: float | None) -> None:
        self.run.summary["state"] = state
        self.run.finish(exit_code=0 if state in ("finished", "stopped") else 1)


# -- Trackio -----------------------------------------------------------------------------------------------------------


class Trackio:
    """A run of a project in Trackio's local database ($TRACKIO_DIR), or where its own environment variables point."""

    def __init__(self, about: About, place: str) -> None:
        self.about, self.place, self.identity = about, place or "odkit", about.name

    def begin(self, kept: str) -> bool:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        self.trackio = importlib.import_module("trackio")
        goes_on = bool(kept) and bool(self._earlier())
        if not goes_on:
            for old in self._earlier():
                old.delete()
        self.run = self.trackio.init(
            project=self.place,
            name=self.identity,
            config={**self.about.settings, **self.about.marks},
            resume="allow" if goes_on else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return goes_on

    def _earlier(self) -> list[Any]:
        """What earlier followers of this very run left there."""
        try:
            runs = list(self.trackio.Api().runs(self.place))
        except ValueError:  # no such project yet
            return []
        return [
            one
            for one in runs
            if one.name == self.identity and (one.config or {}).get(FOLDER_TAG) == str(self.about.path)
        ]

    def send(self, events: Sequence[Mapping[str, Any]]) -> None:
        for event in events:
            if points := scalars(event):
                self.run.log(points, step=event["step"])

    def unsay(self, step: int) -> bool:
        self.run.finish()
        return False

    def end(self, state: str, when: float | None) -> None:
        self.run.finish()


TRACKERS: dict[str, Tracker] = {
    "tensorboard": Tracker("TensorBoard", TensorBoard, "tensorboard", "folder for all runs: ./tensorboard"),
    "mlflow": Tracker("MLflow", MLflow, "mlflow", "address, as http://127.0.0.1:5000: $MLFLOW_TRACKING_URI"),
    "wandb": Tracker("Weights & Biases", WandB, "wandb", "project: $WANDB_PROJECT, else odkit"),
    "trackio": Tracker("Trackio", Trackio, "trackio", "project: odkit"),
}


# -- what they are sent ------------------------------------------------------------------------------------------------


def _milliseconds(when: float | None) -> int | None:
    return None if when is None else int(when * 1000)


def _parts(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part


def mlflow_name(tag: str) -> str:
    """A tag as MLflow takes it: characters of class names that it refuses stand as their code point, as in "x2b"."""
    group, _, name = tag.partition("/")
    name = re.sub(r"[^\w.\- ]", lambda found: f"x{ord(found[0]):x}", name)
    return f"{group}/{name if name.strip('.') else name.replace('.', 'x2e')}"


def scalars(event: Mapping[str, Any]) -> dict[str, float]:
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
