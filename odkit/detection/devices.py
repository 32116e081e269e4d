"""Where to compute and in which number format: one rule for training, prediction and the doctor."""

import os
import re
from dataclasses import dataclass

import torch

from odkit.detection.gpu_trouble import foreign_architecture, gpu_trouble
from odkit.system import InputError, machine

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""A number format's name to what autocast takes for it; None: no autocast."""

_ON_THE_CPU = "To compute on the CPU all the same: --device cpu (in Python device='cpu')"


@dataclass(frozen=True, kw_only=True)
class Accelerators:
    """What this machine computes on besides its CPU."""

    cuda: tuple[tuple[int, int], ...] = ()  # compute capability of each CUDA device that torch can use
    architectures: tuple[str, ...] = ()  # what torch has code for, "sm_75"; () where it does not matter
    mps: bool = False  # Apple's GPU
    given: str = ""  # where torch can use none: what shows that an NVIDIA GPU was given or asked for
    withheld: str = ""  # where none was: in words, an NVIDIA GPU of this machine that is not for this process


def accelerators() -> Accelerators:
    """What torch can use here; everything below asks this first, and nothing else where that is enough."""
    mps = torch.backends.mps.is_available()
    if not torch.cuda.is_available():
        return Accelerators(mps=mps, given=machine.given_gpu(), withheld=machine.withheld_gpu())
    return Accelerators(
        cuda=tuple(torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())),
        architectures=tuple(torch.cuda.get_arch_list()),
        mps=mps,
    )


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device of a name; "auto" is a CUDA device where there is one, else the CPU.

    The CPU is not taken in silence for an NVIDIA GPU that was given to this process and cannot be used: days would be
    lost. Apple's GPU is taken where it is asked for by name alone: no step of the training loop has been tried on one.

    Args:
        name: "auto", "cpu", "cuda", "cuda:1", "mps", or a device as torch has it.

    Raises:
        InputError: There is no such device (the message says which there are), or the GPU cannot be used (it says why,
            and what to type).
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,2})?", str(name)):  # torch takes 256 for 0
        raise InputError(f'device must be "auto", "cpu", "cuda", "cuda:1" or "mps", not {str(name)!r}')
    if str(name) == "cpu":
        return torch.device("cpu")
    there = accelerators()
    if name == "auto":
        if not there.cuda and there.given:
            trouble = gpu_trouble()
            why = trouble.sentence() if trouble else "torch cannot use it. `odkit doctor` looks at it."
            raise InputError(
                f"an NVIDIA GPU was given or asked for ({there.given}) and cannot be used: {why} {_ON_THE_CPU}"
            )
        name = "cuda" if there.cuda else "cpu"
    device = torch.device(name)
    if device.type == "mps" and not there.mps:
        raise InputError(f"{_no_device(name, there)}; `odkit doctor` says what there is")
    if device.type == "cuda":
        _check_cuda(device, there)
    return device


def _check_cuda(device: torch.device, there: Accelerators) -> None:
    """Raises InputError where torch cannot use a CUDA device, with the reason."""
    index = device.index or 0
    if index < len(there.cuda):
        trouble = foreign_architecture(f"GPU {index}", there.cuda[index], there.architectures)
    elif there.cuda:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        of = f" of those that CUDA_VISIBLE_DEVICES={seen} leaves" if seen else ""
        raise InputError(f"{_no_device(device, there)}: GPUs are numbered from 0{of}")
    else:
        trouble = gpu_trouble()
        if trouble is None:
            raise InputError(f"{_no_device(device, there)}; `odkit doctor` says what is in the way")
    if trouble:
        raise InputError(f"device {str(device)!r} cannot be used: {trouble.sentence()} {_ON_THE_CPU}")


def _no_device(name: str | torch.device, there: Accelerators) -> str:
    names = ["cpu", *(f"cuda:{index}" for index in range(len(there.cuda))), *["mps"] * there.mps]
    return f"there is no device {str(name)!r} here, only {', '.join(names)}"


def device_reason(name: str | torch.device, device: torch.device) -> str:
    """Why `pick_device(name)` took `device`."""
    if name != "auto":
        return "as set"
    if device.type == "cuda":
        return "a CUDA device is there"
    there = accelerators()
    if there.withheld:
        return f"no CUDA device is visible ({there.withheld})"
    if there.mps:
        return 'no CUDA device is visible; Apple\'s GPU is taken only where device="mps" asks for it'
    return "no CUDA device is visible"


def fast_precisions(device: torch.device | str) -> dict[str, bool]:
    """Whether "bf16", "fp16" and "tf32" make computing faster on a device (not merely possible)."""
    device = torch.device(device)
    if device.type != "cuda":  # autocast on a CPU costs what it gains: fp32 was never slower
        return {"bf16": False, "fp16": False, "tf32": False}
    capability = accelerators().cuda[device.index or 0]
    return {"bf16": capability >= (8, 0), "fp16": capability >= (7, 0), "tf32": capability >= (8, 0)}


def best_precision(device: torch.device | str) -> tuple[str, str]:
    """The number format that a detector gains most from on a device ("bf16", "fp16" or "fp32"), and why."""
    fast = fast_precisions(device)
    if fast["bf16"]:
        return "bf16", "the GPU computes bf16 fast (compute capability 8 or more)"
    if fast["fp16"]:
        return "fp16", "the GPU is older than bf16 (compute capability under 8): fp16 with loss scaling"
    if torch.device(device).type == "cuda":
        return "fp32", "the GPU is older than fast 16-bit formats (compute capability under 7)"
    return "fp32", f"bf16 gains nothing on this {torch.device(device).type}"
