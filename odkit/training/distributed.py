"""Several processes that train one detector: ranks, devices, and the collectives used."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from odkit.runs import Settings


@contextlib.contextmanager
def process_group(settings: Settings) -> Iterator[None]:
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    device = pick_device(settings)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where NCCL's messages are put together
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield
    dist.destroy_process_group()  # not after an error: it would wait for processes that are gone


def broadcast_value(value: int) -> int:
    """The first process' value."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values, 0)
    return values[0]


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Give all processes the first one's values."""
    for tensor in tensors:
        whole = tensor.detach().contiguous()
        dist.broadcast(whole, 0)
        if whole.data_ptr() != tensor.data_ptr():
            tensor.copy_(whole)


def all_reduce_max(values: Sequence[int | bool]) -> list[int]:
    """The largest of each value over all processes."""
    if not dist.is_initialized():
        return [int(value) for value in values]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    shared = torch.tensor([int(value) for value in values], device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    most: list[int] = shared.tolist()
    return most


def pick_device(settings: Settings) -> torch.device:
    """The device of this process; "auto" and "cuda" give each process of a machine its own GPU."""
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if settings.device == "auto":
        return own if torch.cuda.is_available() else torch.device("cpu")
    return own if settings.device == "cuda" else torch.device(settings.device)


def rank() -> int:
    """Number of this process, 0-based (torchrun's RANK)."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
