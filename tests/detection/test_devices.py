"""Which device and number format are taken, with machines that are not here."""

from collections.abc import Callable

import pytest
import torch

from odkit.detection import devices
from odkit.detection.devices import (
    Accelerators,
    best_precision,
    device_reason,
    fast_precisions,
    pick_device,
)
from odkit.doctor.gpu import best_device
from odkit.system import InputError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine with other accelerators than this one's."""

    def has(*cuda: tuple[int, int], mps: bool = False) -> None:
        monkeypatch.setattr(devices, "accelerators", lambda: Accelerators(cuda=cuda, mps=mps))

    return has


def test_auto_is_one_choice_for_doctor_prediction_and_training(machine: Callable[..., None]) -> None:
    machine()
    assert pick_device() == torch.device("cpu")
    assert best_device() == "cpu"
    assert device_reason("auto", pick_device()) == "no CUDA device is visible"
    machine(mps=True)
    assert pick_device("auto") == torch.device("cpu")  # no training step was ever tried on one
    assert best_device() == "cpu"
    assert "mps" in device_reason("auto", pick_device())
    machine((8, 6), mps=True)
    assert pick_device("auto") == torch.device("cuda")
    assert best_device() == "cuda"
    assert device_reason("auto", pick_device()) == "a CUDA device is there"
    assert device_reason("cuda", pick_device("cuda")) == "as set"


def test_a_device_is_taken_by_its_name_where_it_is(machine: Callable[..., None]) -> None:
    machine((8, 6), (8, 6), mps=True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert pick_device(name) == torch.device(name)
    assert pick_device(torch.device("cuda", 1)) == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "device must be .*, not 'gpu'"),
        ("cuda:", "device must be"),
        ("cuda:1", "no device 'cuda:1' here, only cpu, cuda:0;"),
        ("mps", "no device 'mps' here, only cpu, cuda:0; `odkit doctor`"),
    ],
)
def test_a_device_that_is_not_here_is_said(machine: Callable[..., None], name: str, message: str) -> None:
    machine((8, 0))
    with pytest.raises(InputError, match=message):
        pick_device(name)
    machine()
    with pytest.raises(InputError, match="device"):
        pick_device(name)


@pytest.mark.parametrize(
    ("capability", "name", "fast"),
    [
        ((9, 0), "bf16", {"bf16": True, "fp16": True, "tf32": True}),
        ((8, 0), "bf16", {"bf16": True, "fp16": True, "tf32": True}),
        ((7, 5), "fp16", {"bf16": False, "fp16": True, "tf32": False}),
        ((6, 1), "fp32", {"bf16": False, "fp16": False, "tf32": False}),
    ],
)
def test_the_best_precision_is_one_that_is_fast(
    machine: Callable[..., None], capability: tuple[int, int], name: str, fast: dict[str, bool]
) -> None:
    machine((8, 0), capability)
    assert fast_precisions("cuda:1") == fast
    found, reason = best_precision(torch.device("cuda:1"))
    assert found == name
    assert "compute capability" in reason


def test_a_cpu_and_apples_gpu_stay_with_fp32(machine: Callable[..., None]) -> None:
    machine(mps=True)
    for device in ("cpu", "mps"):
        assert best_precision(device) == ("fp32", f"bf16 gains nothing on this {device}")
        assert not any(fast_precisions(device).values())


def test_this_machine_can_be_asked() -> None:
    there = devices.accelerators()
    assert bool(there.cuda) == torch.cuda.is_available()
    assert there.mps == torch.backends.mps.is_available()
