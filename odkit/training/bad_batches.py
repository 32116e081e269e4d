"""Going again through the batches that a run left out because a loss or gradient was not finite.

The worker keeps each such batch with the weights it met; here it is put through the same detector, whole and image by
image, on the CPU in float32, until the first layer or the image behind it is found.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from odkit.data import Dataset
from odkit.detection import Batch, Detector, shaped_like
from odkit.runs import Run
from odkit.system import InputError, open_file
from odkit.training.checkpoints import why_unreadable
from odkit.training.loop import total_loss


def replay(run: Run) -> list[dict[str, Any]]:
    """What the left-out batches of a run do when they are tried again.

    Returns:
        One row an image of each batch, in order: `batch` (name of the kept file), `image` (its id), `boxes` (count),
        `loss` (of this image alone, None where it is not finite), `verdict` (what was found).
    """
    files = sorted((run.path / "bad_batches").glob("*.pt"))
    dataset = run.dataset(run.settings.train_split) if files else None
    rows = []
    for file in files:
        assert dataset is not None
        rows += _replay_batch(run, file, dataset)
    return rows


def _replay_batch(run: Run, file: Path, dataset: Dataset) -> list[dict[str, Any]]:
    try:
        # weights_only: a run folder may come from anywhere, and must not be able to run anything
        with open_file(file) as opened:
            kept = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(
            f"{file} cannot be read: {why_unreadable(error)}. Move it away, and the others are replayed"
        ) from None
    if not isinstance(kept, dict) or not {"batch", "detector"} <= set(kept):
        raise InputError(
            f"{file}: kept by an earlier odkit, which laid batches out otherwise; train anew to replay"
        )
    batch = Batch.from_tensors(kept["batch"])
    images = [batch.part(index, index + 1) for index in range(len(batch))]
    state = {key.removeprefix("module."): value for key, value in kept["detector"].items()}
    spoilt = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if spoilt:
        place = (
            f"the weights were not finite any more when it came ({len(spoilt)} tensors, first {spoilt[0]})"
        )
        return [_row(file, dataset, one, None, place) for one in images]
    whole = _first_trouble(_detector(run, state), batch)[1]
    rows = []
    for image in images:
        loss, trouble = _first_trouble(_detector(run, state), image)
        if trouble:
            verdict = f"this image alone does it: {trouble}"
        elif whole:
            verdict = f"finite alone; the whole batch is not: {whole}"
        else:
            verdict = "finite alone and in its batch, in float32 on the CPU: try --precision fp32"
        rows.append(_row(file, dataset, image, loss, verdict))
    return rows


def _row(file: Path, dataset: Dataset, image: Batch, loss: float | None, verdict: str) -> dict[str, Any]:
    return {
        "batch": file.stem,
        "image": dataset.image_ids[int(image.rows[0])],
        "boxes": len(image.labels),
        "loss": loss,
        "verdict": verdict,
    }


def _detector(run: Run, state: dict[str, Tensor]) -> Detector:
    """The detector as it was; anew each time, as going through it in training mode changes its batch norms."""
    settings = run.settings
    detector = shaped_like(settings.detector, run.class_names, state, image_size=settings.image_size or None)
    detector.module.load_state_dict(state)
    return detector.train()


def _first_trouble(detector: Detector, batch: Batch) -> tuple[float | None, str]:
    """The loss (None where it is not finite) and where the first value that is not finite comes up, "" for nowhere."""
    first: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not first and isinstance(output, Tensor) and not torch.isfinite(output).all():
                first.append(f"first in the output of {name}")

        return hook

    for name, module in detector.module.named_modules():
        if not list(module.children()):
            module.register_forward_hook(look(name))
    losses = detector(batch)
    bad = [name for name, value in losses.items() if not torch.isfinite(value).all()]
    total = total_loss(losses)
    if bad:
        return None, ", ".join([f"{' and '.join(bad)} not finite", *first])
    total.backward()
    for name, parameter in detector.module.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return float(total.detach()), f"the loss is finite, the gradient of {name} is not"
    return float(total.detach()), ""
