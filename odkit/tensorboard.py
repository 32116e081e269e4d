"""A run's events for TensorBoard: a second reader of the same log, not a second logger."""

from pathlib import Path
from typing import Any

from odkit.run import Run

SUFFIX = ".odkit"  # of the files written here, so that a new export replaces the last one and nothing else


def export_tensorboard(run: Run, folder: str | Path = "tensorboard") -> Path:
    """Write what a run has logged so far as TensorBoard's event files; `tensorboard --logdir FOLDER` shows them.

    Steps, epochs and evaluations keep the time they happened at; what a resume did over stands there once.

    Args:
        run: Alive or dead.
        folder: One folder for all runs: this one goes to a folder of its name in it.

    Returns:
        The folder written to.

    Raises:
        RuntimeError: TensorBoard is not installed; the message says what to type.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RuntimeError(
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


def scalars(event: dict[str, Any]) -> dict[str, float]:
    """The numbers of an event that make a curve, by TensorBoard's tag."""
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
