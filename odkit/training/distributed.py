"""Several processes that train one detector, started by torchrun: ranks, devices, data parallelism, collectives."""

import contextlib
import inspect
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from odkit import detection
from odkit.system import InputError

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others. Longer than the first one judges, saves, or waits twice for a data worker
that hangs (`worker_timeout`); a process that has ended is noticed by torchrun, and needs no such limit."""

_FORWARD_SYNC = "forward_sync_buffers"
if _FORWARD_SYNC not in inspect.signature(DistributedDataParallel).parameters:
    _FORWARD_SYNC = "broadcast_buffers"  # its name before torch 2.14


def rank() -> int:
    """Number of this process, 0-based (torchrun's RANK)."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """Number of processes of this machine that train together: they share its cores and its memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def restarts_left() -> bool:
    """Whether torchrun starts the processes again if this one leaves with an exit status other than 0."""
    count, most = (os.environ.get(f"TORCHELASTIC_{name}", "0") for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    return int(count) < int(most)


def own_device(name: str) -> torch.device:
    """The device of this process by its setting; "auto" and "cuda" give each process of a machine its own GPU.

    Raises:
        InputError: There is no such device, or no GPU for each process.
    """
    device, processes = detection.pick_device(name), local_world_size()
    if device.type != "cuda" or (processes == 1 and device.index is not None):
        return device
    if device.index is not None:
        raise InputError(
            f"device {name!r} is one GPU, and {processes} processes want one each: --device cuda"
        )
    try:
        detection.pick_device(f"cuda:{processes - 1}")
    except InputError as error:
        raise InputError(f"{processes} processes on this machine want a GPU each, and {error}") from error
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Torch's process group while inside, where torchrun started several processes; else nothing."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where NCCL's messages are put together
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        timeout=PATIENCE,
        **_own_store(),
        device_id=device if device.type == "cuda" else None,
    )
    yield
    dist.destroy_process_group()  # not after an error: it would wait for processes that are gone


def _own_store() -> dict[str, Any]:
    """Where processes of one machine meet: on loopback, where torch would open a port to the network."""
    if local_world_size() != world_size() or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return {}  # several machines, or a torchrun that somebody else started and that lends its own
    if os.path.exists("/sys/class/net/lo"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else where the machine's name leads to
    port, server = int(os.environ["MASTER_PORT"]), None
    if rank() == 0:
        server = socket.create_server(("127.0.0.1", port), backlog=128)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1",
        port,
        world_size(),
        is_master=server is not None,
        timeout=PATIENCE,
        master_listen_fd=server.detach() if server else None,
    )
    return {"store": store, "rank": rank(), "world_size": world_size()}


def data_parallel(detector: nn.Module) -> nn.Module:
    """The detector in DistributedDataParallel where there are several processes; all take over the first one's weights.

    Batch norms keep a share's figures to themselves from then on: those of the first process are judged with and
    saved. Parameters that are frozen now stay outside, so wrap anew when that changes.
    """
    if not dist.is_initialized():
        return detector
    device = next(detector.parameters()).device
    broadcast_tensors(
        detector.buffers()
    )  # before torch 2.14 these are left out where they are not kept in step
    options: dict[str, Any] = {_FORWARD_SYNC: False}
    return DistributedDataParallel(
        detector,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **options,
    )


def no_sync(detector: nn.Module, *, when: bool) -> AbstractContextManager[Any]:
    """Inside, and `when` so, gradients stay with this process: more of them are added before they are shared."""
    if when and isinstance(detector, DistributedDataParallel):
        return detector.no_sync()
    return contextlib.nullcontext()


def all_reduce_mean(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if not dist.is_initialized():
        return values
    dist.all_reduce(values)
    return values / world_size()


def all_reduce_max(values: Sequence[int | bool]) -> list[int]:
    """The largest of each value over all processes."""
    if not dist.is_initialized():
        return [int(value) for value in values]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    shared = torch.tensor([int(value) for value in values], device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    most: list[int] = shared.tolist()
    return most


def all_gather(value: Any) -> list[Any]:
    """Every process' value, in the order of ranks."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: Any) -> Any:
    """The first process' value, a picklable one."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Give all processes the first one's values, in place."""
    if not dist.is_initialized():
        return
    for tensor in tensors:
        whole = tensor.detach().contiguous()
        dist.broadcast(whole, 0)
        if whole.data_ptr() != tensor.data_ptr():
            tensor.copy_(whole)
