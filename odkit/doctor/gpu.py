"""Checks of the GPU: driver, PyTorch, memory, computing, precision."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from odkit import detection
from odkit.detection import (
    CPU_COMMAND,
    Trouble,
    driver_trouble,
    foreign_architecture,
    torch_build,
    torch_trouble,
)
from odkit.detection import DRIVER_FOR_CUDA as DRIVER_FOR_CUDA  # what tells a person the driver to install
from odkit.doctor.report import Check
from odkit.doctor.subject import Subject, first_line
from odkit.system import GB, InputError, counted, install_command, machine, megabytes

if TYPE_CHECKING:
    import torch

# -- the GPU ----------------------------------------------------------------------------------------------------------


def check_driver(subject: Subject) -> Check | list[Check]:
    """The NVIDIA driver: there, seen from inside the container, and answering."""
    if trouble := driver_trouble():
        return _failure("driver", trouble)
    gpus, cuda = machine.gpus()[0], machine.driver_cuda()
    if cuda is not None and (gpus or machine.given_gpu()):
        version = gpus[0].driver if gpus else machine.kernel_driver()
        seen = f"NVIDIA driver {version}, serves CUDA up to {cuda[0]}.{cuda[1]}"
        return Check("driver", "ok", seen + ("" if gpus else " (there is no nvidia-smi here)"))
    return Check(
        "driver",
        "failure" if subject.need_gpu else "warning",
        "no NVIDIA GPU here",
        (
            "Training runs on the CPU. That is fine for detector 'starter' (minutes on a few hundred images); the "
            "ResNet-50 detectors would take days. Everything else works the same."
        ),
        "odkit train FOLDER --detector starter",
    )


def check_torch(_: Subject) -> Check | list[Check]:
    """The installed torch against the driver and the GPUs."""
    build = torch_build()
    if trouble := torch_trouble(build):
        return _failure("torch", trouble)
    gpus, _complaint = machine.gpus()
    if not gpus:
        seen = f"{build.label}; Apple's GPU is there (--device mps)" if build.mps else build.label
        return Check("torch", "ok", seen)
    foreign = [
        foreign_architecture(f"GPU {gpu.index}, {gpu.name}", gpu.capability, build.architectures)
        for gpu in gpus
    ]
    failures = [_failure("torch", trouble) for trouble in foreign if trouble]
    return failures or [Check("torch", "ok", f"{build.label}, sees {counted(len(gpus), 'GPU')}")]


def _failure(name: str, trouble: Trouble) -> Check:
    return Check(name, "failure", trouble.seen, trouble.meaning, trouble.command, trouble.options)


def torch_memory(index: int) -> tuple[int, int] | None:
    """Free and total bytes of a CUDA device as torch has them; None where it cannot use one of that number."""
    import torch

    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        return None
    return torch.cuda.mem_get_info(index)


def check_gpu_memory(_: Subject) -> Check | list[Check]:
    """What each GPU is, and whether somebody else fills its memory."""
    checks = []
    for gpu in machine.gpus()[0]:
        major, minor = gpu.capability
        # nvidia-smi says nothing of a part of a GPU (MIG) in a container, nor of memory that is the machine's own
        told = (gpu.free, gpu.memory) if gpu.memory else torch_memory(gpu.index)
        memory = (
            f"{megabytes(told[0])} of {megabytes(told[1])} free" if told else "which does not tell its memory"
        )
        seen = f"GPU {gpu.index}: {gpu.name}, compute capability {major}.{minor}, {memory}"
        if told and told[0] < min(2 * GB, told[1] / 2):
            checks.append(
                Check(
                    "gpu memory",
                    "warning",
                    seen,
                    "Another program holds the memory (a kernel that was left running?): training may run out.",
                    "nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv",
                )
            )
        else:
            checks.append(Check("gpu memory", "ok", seen))
    return checks


# -- really computing -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A computation that was tried: how many seconds it took, and what is wrong with its result ("" = right)."""

    name: str
    seconds: float = 0.0
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem

    def __repr__(self) -> str:
        return f"{self.name}: {self.problem or f'right, in {self.seconds * 1000:.2f} ms'}"


def best_device() -> str:
    """The device that training would choose: "cuda" or "cpu"; "cpu" also where it would refuse and name the trouble."""
    try:
        return str(detection.pick_device("auto"))
    except InputError:
        return "cpu"


def compute_steps(device: str) -> list[Step]:
    """Matrix product, convolution, NMS and a bf16 training step on a device, timed, compared with the CPU's results."""
    steps = []
    for name, attempt in (
        ("matmul", _matmul),
        ("convolution", _convolution),
        ("NMS", _nms),
        ("bf16 step", _bf16_step),
    ):
        try:
            seconds, error = attempt(device)
            problem = "" if error < _TOLERANCE[name] else f"the result is wrong (off by {error:.3g})"
            steps.append(Step(name, seconds, problem))
        except Exception as error:  # whatever a broken driver throws is the finding
            steps.append(Step(name, problem=first_line(error)))
    return steps


# Largest difference to the CPU's float32 result that is still rounding: tf32 keeps 10 bits, bf16 keeps 7.
_TOLERANCE = {"matmul": 0.02, "convolution": 0.02, "NMS": 0.5, "bf16 step": 0.1}


def _matmul(device: str) -> tuple[float, float]:
    import torch

    side = 256 if device == "cpu" else 2048
    a, b = _random(side, side), _random(side, side)
    seconds, found = _timed(device, lambda x, y: x @ y, a, b)
    rows = slice(0, 16)
    wanted = a[rows].double() @ b.double()
    return seconds, float((found[rows].cpu() - wanted).abs().max() / wanted.std().to(torch.float64))


def _convolution(device: str) -> tuple[float, float]:
    from torch.nn.functional import conv2d

    images, kernels = _random(2, 16, 64, 64), _random(32, 16, 3, 3)
    seconds, found = _timed(device, lambda x, w: conv2d(x, w, padding=1), images, kernels)
    wanted = conv2d(images.double(), kernels.double(), padding=1)
    return seconds, float((found.cpu() - wanted).abs().max() / wanted.std())


def _nms(device: str) -> tuple[float, float]:
    import torch
    from torchvision.ops import nms

    corners = _random(1000, 2).abs() * 100
    boxes = torch.cat([corners, corners + 20 + 5 * _random(1000, 2).abs()], dim=1)
    scores = torch.linspace(1, 0, 1000)
    seconds, found = _timed(device, lambda x, y: nms(x, y, 0.5), boxes, scores)
    return seconds, float(found.cpu().tolist() != nms(boxes, scores, 0.5).tolist())


def _bf16_step(device: str) -> tuple[float, float]:
    import torch
    from torch.nn.functional import conv2d

    images, kernels = _random(2, 8, 32, 32), _random(8, 8, 3, 3)

    def gradient(x: "torch.Tensor", w: "torch.Tensor") -> "torch.Tensor":
        leaf = w.detach().requires_grad_()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            loss = conv2d(x, leaf, padding=1).float().square().mean()
        return torch.autograd.grad(loss, leaf)[0]

    half = True
    seconds, found = _timed(device, gradient, images, kernels)
    half = False
    wanted = gradient(images, kernels)
    return seconds, float((found.cpu() - wanted).abs().max() / wanted.std())


def _random(*shape: int) -> "torch.Tensor":
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _timed(
    device: str, compute: Callable[..., "torch.Tensor"], *inputs: "torch.Tensor"
) -> tuple[float, "torch.Tensor"]:
    """Seconds of the second call (the first one loads libraries), and the result."""
    import torch

    moved = [tensor.to(device) for tensor in inputs]
    wait: Callable[[], None] = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(
        device, lambda: None
    )
    compute(*moved)
    wait()
    started = time.perf_counter()
    result = compute(*moved)
    wait()
    return time.perf_counter() - started, result


def check_computing(_: Subject) -> Check | list[Check]:
    """Whether the device that training would choose really computes."""
    device = best_device()
    steps = compute_steps(device)
    wrong = [f"{step.name}: {step.problem}" for step in steps if step.problem]
    if not wrong:
        timed = ", ".join(f"{step.name} {step.seconds * 1000:.2f} ms" for step in steps)
        return Check("computing", "ok", f"on {device}: {timed}")
    text = "; ".join(wrong)
    meaning, command = "torch or torchvision is damaged, or the two do not belong together.", _reinstall()
    lower = text.lower()
    if "out of memory" in lower:
        meaning = "The GPU's memory is full: another program holds it."
        command = "nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv"
    elif "no kernel image" in lower:
        meaning = "This torch has no code for this GPU (see the check 'torch')."
        command = CPU_COMMAND
    elif "torchvision" in lower:
        meaning = "torchvision's own operators are missing: its build does not belong to this torch."
    elif device != "cpu":
        meaning = "The GPU is there and computes wrongly or not at all; the host's log has the driver's error (Xid)."
        command = "sudo dmesg | grep -i xid | tail"
    return Check("computing", "failure", f"on {device}: {text}", meaning, command)


def _reinstall() -> str:
    pinned = [f"{name}=={metadata.version(name).split('+')[0]}" for name in ("torch", "torchvision")]
    return install_command(f"--force-reinstall {' '.join(pinned)}")


def precision_support(device: str) -> dict[str, bool]:
    """Whether "bf16", "fp16" and "tf32" make training faster on a device (not merely possible)."""
    return detection.fast_precisions(device)


def check_precision(_: Subject) -> Check | list[Check]:
    """Which number formats pay on this device."""
    device = best_device()
    formats = [
        f"{name} {'faster' if fast else 'no gain'}" for name, fast in precision_support(device).items()
    ]
    return Check("precision", "ok", f"{device}: {', '.join(formats)}")
