"""Where to compute and in which number format: one rule for training, prediction and the doctor."""

import re
from dataclasses import dataclass

import torch

from odkit.system import InputError


@dataclass(frozen=True, kw_only=True)
class Accelerators:
    """What this machine computes on besides its CPU."""

    cuda: tuple[tuple[int, int], ...] = ()  # compute capability of each CUDA device that torch can use
    mps: bool = False  # Apple's GPU


def accelerators() -> Accelerators:
    """What torch can use here; everything below asks this and nothing else."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Accelerators(
        cuda=tuple(torch.cuda.get_device_capability(index) for index in range(count)),
        mps=torch.backends.mps.is_available(),
    )


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device of a name; "auto" is a CUDA device where there is one, else the CPU.

    Apple's GPU is taken where it is asked for by name alone: no step of the training loop has been tried on one.

    Args:
        name: "auto", "cpu", "cuda", "cuda:1", "mps", or a device as torch has it.

    Raises:
        InputError: There is no such device; the message says which there are.
    """
    if name == "auto":
        return torch.device("cuda" if accelerators().cuda else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", str(name)):
        raise InputError(f'device must be "auto", "cpu", "cuda", "cuda:1" or "mps", not {str(name)!r}')
    device = torch.device(name)
    if device.type == "cpu":
        return device
    there = accelerators()
    if not (there.mps if device.type == "mps" else (device.index or 0) < len(there.cuda)):
        names = ["cpu", *(f"cuda:{index}" for index in range(len(there.cuda))), *["mps"] * there.mps]
        raise InputError(
            f"there is no device {str(name)!r} here, only {', '.join(names)}; `odkit doctor` says what is in the way"
        )
    return device


def device_reason(name: str | torch.device, device: torch.device) -> str:
    """Why `pick_device(name)` took `device`."""
    if name != "auto":
        return "as set"
    if device.type == "cuda":
        return "a CUDA device is there"
    if accelerators().mps:
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
