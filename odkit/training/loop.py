"""The training loop: one epoch, a step a batch. What guards it (memory, faults, requests, saving) stands around it."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from odkit.detection import autocast, to_device
from odkit.training.distributed import all_reduce_mean, no_sync

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]
"""Images, uint8 [3, H, W] of any sizes, and a target for each (see `TrainingImages`)."""


@dataclass(frozen=True)
class Step:
    """What one step came to."""

    losses: dict[str, float]  # by term, the mean over the batch of all processes
    own_losses: dict[str, float]  # the same of this process' share of the batch
    grad_norm: float  # before clipping; NaN where the loss was not finite
    updated: bool  # False: loss or gradient was not finite, and the weights stayed as they were


def train_epoch(
    detector: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: AveragedModel,
    *,
    rate: Callable[[], float],
    micro_batch_size: int,
    precision: torch.dtype | None = None,
    clip: float = 0.0,
) -> Iterator[Step]:
    """Train on batches, one optimizer step each; comes back after each step.

    Args:
        detector: Loss terms by name for images and targets, in DistributedDataParallel where processes share batches.
        batches: Each process' own share of every batch.
        optimizer: Its groups hold a `peak` learning rate.
        scaler: Scales the loss for fp16, and skips steps that overflow; disabled for other precisions.
        average: Follows the weights.
        rate: Share of the peak learning rate for the next step, 0 to 1.
        micro_batch_size: Images that go through at once; gradients of several parts are accumulated to the batch's.
        precision: What convolutions are computed in; None: float32.
        clip: Largest gradient norm; 0: no clipping.
    """
    device = next(detector.parameters()).device
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    for images, targets in batches:
        optimizer.zero_grad(set_to_none=True)
        terms: dict[str, Tensor] = {}
        for first in range(0, len(images), micro_batch_size):
            part = slice(first, first + micro_batch_size)
            share = len(images[part]) / len(images)
            with no_sync(detector, when=part.stop < len(images)):
                with autocast(device, precision):
                    losses = detector(*to_device(images[part], targets[part], device))
                    loss = total_loss(losses)
                scaler.scale(loss * share).backward()
            for name, value in losses.items():
                terms[name] = terms.get(name, 0.0) + value.detach().double() * share
        own = torch.stack(list(terms.values()))
        means = dict(zip(terms, all_reduce_mean(own.clone()).tolist(), strict=True))
        norm, finite = math.nan, all(map(math.isfinite, means.values()))
        if finite:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate()
            scaler.unscale_(optimizer)
            norm = float(nn.utils.clip_grad_norm_(trained, clip or math.inf))
            finite = scaler.is_enabled() or math.isfinite(norm)
        if finite:
            scaler.step(optimizer)
            scaler.update()
            average.update_parameters(detector)
        yield Step(means, dict(zip(terms, own.tolist(), strict=True)), norm, finite)


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """What is minimized: the sum of a detector's loss terms, in float32, a scalar."""
    return torch.stack([value.float() for value in losses.values()]).sum()
