"""Which device and number format are taken, with machines that are not here."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from odkit.detection import devices, gpu_trouble
from odkit.detection.devices import (
    Accelerators,
    best_precision,
    device_reason,
    fast_precisions,
    pick_device,
)
from odkit.detection.gpu_trouble import Trouble
from odkit.doctor import gpu as doctors_gpu
from odkit.doctor.gpu import best_device
from odkit.doctor.report import Check
from odkit.doctor.subject import Subject
from odkit.system import InputError, machine


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine with other accelerators than this one's."""

    def has(*cuda: tuple[int, int], **facts: Any) -> None:
        monkeypatch.setattr(devices, "accelerators", lambda: Accelerators(cuda=cuda, **facts))

    return has


def test_auto_is_one_choice_for_doctor_prediction_and_training(computer: Callable[..., None]) -> None:
    computer()
    assert pick_device() == torch.device("cpu")
    assert best_device() == "cpu"
    assert device_reason("auto", pick_device()) == "no CUDA device is visible"
    computer(mps=True)
    assert pick_device("auto") == torch.device("cpu")  # no training step was ever tried on one
    assert best_device() == "cpu"
    assert "mps" in device_reason("auto", pick_device())
    computer((8, 6), mps=True)
    assert pick_device("auto") == torch.device("cuda")
    assert best_device() == "cuda"
    assert device_reason("auto", pick_device()) == "a CUDA device is there"
    assert device_reason("cuda", pick_device("cuda")) == "as set"


def test_a_device_is_taken_by_its_name_where_it_is(computer: Callable[..., None]) -> None:
    computer((8, 6), (8, 6), mps=True)
    for name in ("cpu", "cuda", "cuda:1", "mps"):
        assert pick_device(name) == torch.device(name)
    assert pick_device(torch.device("cuda", 1)) == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "device must be .*, not 'gpu'"),
        ("cuda:", "device must be"),
        ("cuda:1", "no device 'cuda:1' here, only cpu, cuda:0: GPUs are numbered from 0$"),
        ("mps", "no device 'mps' here, only cpu, cuda:0; `odkit doctor`"),
    ],
)
def test_a_device_that_is_not_here_is_said(computer: Callable[..., None], name: str, message: str) -> None:
    computer((8, 0))
    with pytest.raises(InputError, match=message):
        pick_device(name)
    computer()
    with pytest.raises(InputError, match="device"):
        pick_device(name)


def test_a_number_is_that_of_a_gpu_that_is_left_visible(
    computer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    computer((8, 0), (8, 0))
    with pytest.raises(InputError, match="numbered from 0 of those that CUDA_VISIBLE_DEVICES=4,5 leaves"):
        pick_device("cuda:4")


TROUBLE = Trouble(seen="the driver sleeps", meaning="Wake it.", command="knock\nknock twice")


def test_no_silent_cpu_where_a_gpu_was_given_and_cannot_be_used(
    computer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    computer(given="/dev/nvidia0")
    monkeypatch.setattr(devices, "gpu_trouble", lambda: TROUBLE)
    said = (
        "the driver sleeps. Wake it. To type: `knock`, then `knock twice`. To compute on the CPU all the same: "
        "--device cpu (in Python device='cpu')"
    )
    with pytest.raises(InputError) as refused:
        pick_device()
    assert (
        str(refused.value)
        == f"an NVIDIA GPU was given or asked for (/dev/nvidia0) and cannot be used: {said}"
    )
    with pytest.raises(InputError) as refused:
        pick_device("cuda")
    assert str(refused.value) == f"device 'cuda' cannot be used: {said}"
    assert pick_device("cpu") == torch.device("cpu")
    assert best_device() == "cpu"  # what is left to compute on; the doctor says the trouble elsewhere
    computer((8, 6), given="/dev/nvidia0")  # what can be used is
    assert pick_device() == torch.device("cuda")


def test_what_nobody_understands_is_no_reason_for_the_cpu_either(
    computer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    computer(given="/dev/nvidia0")
    monkeypatch.setattr(devices, "gpu_trouble", lambda: None)
    with pytest.raises(
        InputError, match=r"torch cannot use it\. `odkit doctor` looks at it\. To compute on the CPU"
    ):
        pick_device()


def test_a_gpu_that_was_not_given_is_named_and_left(computer: Callable[..., None]) -> None:
    computer(withheld="the host has an NVIDIA driver, this container was given no GPU")
    assert pick_device() == torch.device("cpu")
    reason = device_reason("auto", pick_device())
    assert reason.startswith("no CUDA device is visible (the host has an NVIDIA driver")


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_a_gpu_that_torch_has_no_code_for_is_refused(computer: Callable[..., None], name: str) -> None:
    computer((7, 0), (8, 6), architectures=("sm_75", "sm_80"))
    with pytest.raises(
        InputError, match=r"GPU 0: compute capability 7.0; torch has sm_75 sm_80.*CUDA 12.6.*cu126"
    ):
        pick_device(name)
    assert pick_device("cuda:1") == torch.device("cuda:1")


def test_one_diagnosis_for_device_and_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose driver is too old for torch: facts alone are stood in."""
    build = gpu_trouble.TorchBuild(
        version="2.14.1+cu130", cuda="13.0", architectures=("sm_80",), available=False
    )
    card = machine.Gpu(0, "T4", "550.54.15", 1 << 34, 1 << 34, (7, 5))
    facts = {
        "gpus": ([card], ""), "driver_cuda": (12, 4), "given_gpu": "/dev/nvidia0", "gpu_devices": ["nvidia0"],
        "container": "docker", "own_image": True,
    }  # fmt: skip
    for name, fact in facts.items():
        monkeypatch.setattr(machine, name, lambda fact=fact: fact)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for home in (gpu_trouble, doctors_gpu):
        monkeypatch.setattr(home, "torch_build", lambda: build)
    check = doctors_gpu.check_torch(Subject())
    assert isinstance(check, Check)
    with pytest.raises(InputError) as refused:
        pick_device()
    assert f"(/dev/nvidia0) and cannot be used: {check.seen}. {check.meaning} To type: `make image" in str(
        refused.value
    )


def test_asking_for_a_device_starts_nothing_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpu_devices", list)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("NVIDIA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "gpus", None)  # nvidia-smi is a process and takes its time
    assert pick_device() == torch.device("cpu")


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
    computer: Callable[..., None], capability: tuple[int, int], name: str, fast: dict[str, bool]
) -> None:
    computer((8, 0), capability)
    assert fast_precisions("cuda:1") == fast
    found, reason = best_precision(torch.device("cuda:1"))
    assert found == name
    assert "compute capability" in reason


def test_a_cpu_and_apples_gpu_stay_with_fp32(computer: Callable[..., None]) -> None:
    computer(mps=True)
    for device in ("cpu", "mps"):
        assert best_precision(device) == ("fp32", f"bf16 gains nothing on this {device}")
        assert not any(fast_precisions(device).values())


def test_this_machine_can_be_asked() -> None:
    there = devices.accelerators()
    assert bool(there.cuda) == torch.cuda.is_available()
    assert there.mps == torch.backends.mps.is_available()
