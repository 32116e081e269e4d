"""Devices of several processes, with machines that are not here; the group and its data parallelism on a CPU."""

import inspect

import pytest
import torch
import torch.distributed as dist
from torch import nn

from odkit.detection import devices
from odkit.detection.devices import Accelerators
from odkit.system import InputError
from odkit.training import distributed
from odkit.training.distributed import data_parallel, own_device, process_group


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "accelerators", lambda: Accelerators(cuda=((8, 0), (8, 0))))


def local(monkeypatch: pytest.MonkeyPatch, rank: int, processes: int) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))


@pytest.mark.usefixtures("two_gpus")
def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_device("auto") == torch.device("cuda:0")
    assert own_device("cuda:1") == torch.device("cuda:1")
    for rank in (0, 1):
        local(monkeypatch, rank, 2)
        assert own_device("auto") == own_device("cuda") == torch.device("cuda", rank)
        assert own_device("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("rank", [0, 3])
def test_fewer_gpus_than_processes_are_refused_by_all_of_them(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    local(monkeypatch, rank, 4)
    with pytest.raises(InputError, match=r"4 processes .* only cpu, cuda:0, cuda:1"):
        own_device("auto")
    with pytest.raises(InputError, match="'cuda:1' is one GPU, and 4 processes want one each"):
        own_device("cuda:1")
    with pytest.raises(InputError, match=r"^there is no device 'cuda:2' here"):
        own_device("cuda:2")


def test_a_group_waits_long_and_knows_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def spied(backend: str, **options: object) -> None:
        inspect.signature(dist.init_process_group).bind(backend, **options)
        asked.append((backend, options["device_id"], options["timeout"]))

    monkeypatch.setattr(dist, "init_process_group", spied)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    with process_group(torch.device("cpu")):
        assert not asked, "one process needs none"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("cpu", "cuda:1"):
        with process_group(torch.device(name)):
            pass
    wait = distributed.PATIENCE
    assert asked == [("gloo", None, wait), ("nccl", torch.device("cuda:1"), wait)]
    assert wait.total_seconds() > 2 * 300, "a data worker that hangs is waited for twice"


def test_batch_norms_are_not_kept_in_step() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = data_parallel(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
        # torch 2.14 has this by two names, older torch by one
        assert wrapped.broadcast_buffers is False
        wrapped(torch.zeros(2, 3, 4, 4)).sum().backward()
    finally:
        dist.destroy_process_group()
