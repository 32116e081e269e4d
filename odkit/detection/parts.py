"""A batch computed in parts on a CPU, a thread each: operations this small leave cores idle that share each of them.

What a module's network makes of one image does not depend on the others, so its images may be dealt to threads; the
losses, which are of the whole batch, take the parts put together again. Gradients are added in the order of the parts:
the same batch on as many threads comes to the same bits.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Network = Callable[[Tensor], dict[str, Tensor]]
_T = TypeVar("_T")
_pool: "_Pool | None" = None  # of this process; None: batches are computed whole


@contextmanager
def batches_in_parts(threads: int) -> Iterator[None]:
    """Inside, batches on a CPU are computed in so many parts at once; with 1 thread as anywhere else."""
    global _pool
    if threads < 2:
        yield
        return
    before, _pool = _pool, _Pool(threads)
    try:
        yield
    finally:
        _pool.executor.shutdown()
        _pool = before


def in_parts(network: Network, module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What a network makes of images: `network(images)`, its parts computed by threads inside of `batches_in_parts`.

    Args:
        network: Outputs [B, ...] by name for images [B, 3, H, W]; draws no random numbers. Outputs without a gradient
            may be among them.
        module: What it computes with.
        images: On a CPU they are dealt to threads, unless batch norms take their figures from the batch.
    """
    pool = _pool
    if pool is None or images.device.type != "cpu" or len(images) < 2 or _looks_at_the_batch(module):
        return network(images)
    trained = [one for one in module.parameters() if one.requires_grad]
    if torch.is_grad_enabled() and trained:
        names: list[str] = []
        return dict(zip(names, _InParts.apply(pool, network, names, images, *trained), strict=False))
    outputs = pool.each(network, images.chunk(pool.threads))
    return {name: torch.cat([one[name] for one in outputs]) for name in outputs[0]}


def _looks_at_the_batch(module: nn.Module) -> bool:
    return any(isinstance(one, nn.modules.batchnorm._BatchNorm) and one.training for one in module.modules())


class _Pool:
    """Threads that compute, each with its share of the cores."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="part")

    def each(self, function: Callable[[Any], _T], parts: Sequence[Any]) -> list[_T]:
        """A function's values for all parts, computed at once as this thread would compute them."""
        before, grad, inference = (
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
        )
        precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        cores = max(1, self.threads // len(parts))

        def compute(part: Any) -> _T:
            # OpenMP counts threads for each thread of Python, MKL for the whole process: hence set for every turn
            torch.set_num_threads(cores)
            with (
                torch.inference_mode(inference),
                torch.set_grad_enabled(grad),
                # not cached: all threads share the one cache, and who comes to an end empties it, so that chance would
                # say whether the gradients of a weight that is used several times are added before they are rounded
                torch.autocast("cpu", precision, enabled=precision is not None, cache_enabled=False),
            ):
                return function(part)

        turns = [self.executor.submit(compute, part) for part in parts]
        try:
            wait(turns)  # for all, also where one fails: the others hold memory
        finally:
            torch.set_num_threads(before)
        # taken out one by one: the traceback of one that failed would hold itself, and what the others made, in memory
        return [turns.pop(0).result() for _ in parts]


class _InParts(torch.autograd.Function):
    """The parts' graphs as one node of the batch's graph."""

    @staticmethod
    def forward(
        ctx: Any, pool: _Pool, network: Network, names: list[str], images: Tensor, *trained: Tensor
    ) -> tuple[Tensor, ...]:
        """The network's outputs, whose names go into `names`."""
        with torch.enable_grad():
            parts = pool.each(network, images.chunk(pool.threads))
        names.extend(parts[0])
        whole = {name: torch.cat([part[name].detach() for part in parts]) for name in names}
        taught = [name for name in names if parts[0][name].requires_grad]
        ctx.mark_non_differentiable(*(whole[name] for name in names if name not in taught))
        ctx.set_materialize_grads(False)
        ctx.pool, ctx.trained = pool, trained
        ctx.parts = [[part[name] if name in taught else None for name in names] for part in parts]
        return tuple(whole.values())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        """The sum of the parts' gradients, the first part's first."""
        lengths = [next(len(one) for one in part if one is not None) for part in ctx.parts]
        shares = [None if one is None else one.split(lengths) for one in gradients]

        def backwards(number: int) -> Sequence[Tensor | None]:
            pairs = [
                (output, share[number])
                for output, share in zip(ctx.parts[number], shares, strict=True)
                if output is not None and share is not None
            ]
            outputs, given = zip(*pairs, strict=True)
            found: Sequence[Tensor | None] = torch.autograd.grad(
                outputs, ctx.trained, given, allow_unused=True
            )
            return found

        total, *others = ctx.pool.each(backwards, range(len(ctx.parts)))
        ctx.parts = None  # and with them what they kept for this
        known = [index for index, one in enumerate(total) if one is not None]
        for other in others:
            torch._foreach_add_([total[index] for index in known], [other[index] for index in known])
        return None, None, None, None, *total
