"""The training loop: one epoch, a step a batch. What guards it (memory, faults, requests, saving) stands around it."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odkit.detection import Batch, autocast
from odkit.training.average import Average
from odkit.training.distributed import all_reduce_mean, no_sync

OVERFLOWS = 16  # fp16 steps in a row that may overflow: they take the loss's scale from 65,536 down to 1


@dataclass(frozen=True)
class Step:
    """What one step came to."""

    losses: dict[str, float]  # by term, the mean over the batch of all processes
    own_losses: dict[str, float]  # the same of this process' share of the batch
    grad_norm: float  # before clipping; not finite where the loss or the gradient was not
    updated: bool  # False: loss or gradient was not finite, and the weights stayed as they were


def train_epoch(
    detector: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: Average,
    *,
    rate: Callable[[], float],
    micro_batch_size: int,
    precision: torch.dtype | None = None,
    clip: float = 0.0,
) -> Iterator[Step]:
    """Train on batches, one optimizer step each; comes back after each step.

    Args:
        detector: Loss terms by name for a batch, in DistributedDataParallel where processes share batches.
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
    overflows = 0
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        images, terms = len(batch), dict[str, Tensor]()
        for first in range(0, images, micro_batch_size):
            part = batch.part(first, first + micro_batch_size)
            share = len(part) / images
            with no_sync(detector, when=first + micro_batch_size < images):
                with autocast(device, precision):
                    losses = detector(part)
                    loss = total_loss(losses)
                scaler.scale(loss * share).backward()
            for name, value in losses.items():
                terms[name] = terms.get(name, 0.0) + value.detach().float() * share
        own = torch.stack(list(terms.values()))
        mean = all_reduce_mean(own.clone())
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate()
        scaler.unscale_(optimizer)
        gradient = nn.utils.clip_grad_norm_(trained, clip or math.inf)
        # all that the host wants to know of the step in one message: the only time that it waits for the device here
        # (several processes wait once more, to agree on what was asked of them)
        *values, norm = torch.cat([own, mean, gradient.float().reshape(1)]).tolist()
        own_means, means = values[: len(terms)], values[len(terms) :]
        finite = all(map(math.isfinite, means))
        overflows = overflows + 1 if scaler.is_enabled() and finite and not math.isfinite(norm) else 0
        updated = finite and (math.isfinite(norm) or 0 < overflows <= OVERFLOWS)
        if updated:
            scaler.step(optimizer)
            average.update()
        scaler.update()
        yield Step(
            dict(zip(terms, means, strict=True)), dict(zip(terms, own_means, strict=True)), norm, updated
        )


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """What is minimized: the sum of a detector's loss terms, in float32, a scalar."""
    return torch.stack([value.float() for value in losses.values()]).sum()
