"""Checks of the GPU: driver, PyTorch, memory, computing, precision."""

import os
import re
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from odkit import detection
from odkit.doctor.report import Check, counted
from odkit.doctor.subject import Subject, first_line, run_line
from odkit.system import GB, machine, megabytes

if TYPE_CHECKING:
    import torch

DRIVER_FOR_CUDA = {11: 450, 12: 525, 13: 580}
"""Oldest NVIDIA driver for each CUDA major version (NVIDIA's table of minor version compatibility)."""


# -- the GPU ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TorchBuild:
    """What the installed torch was built for, and what it makes of this machine."""

    version: str
    cuda: str  # CUDA version of the build, "" for a build without
    architectures: tuple[str, ...]  # "sm_75", "compute_120", ...
    available: bool  # whether torch can use a CUDA device
    reason: str = ""  # torch's own words, where it cannot
    mps: bool = False  # Apple's GPU


def torch_build() -> TorchBuild:
    """The installed torch (imports it)."""
    import torch

    reason = ""
    available = torch.cuda.is_available()
    if torch.version.cuda and not available:
        try:
            torch.zeros(1, device="cuda")
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())
    return TorchBuild(
        version=torch.__version__,
        cuda=torch.version.cuda or "",
        architectures=tuple(torch.cuda.get_arch_list()) if torch.version.cuda else (),
        available=available,
        reason=reason,
        mps=torch.backends.mps.is_available(),
    )


def check_driver(subject: Subject) -> Check | list[Check]:
    """The NVIDIA driver: there, seen from inside the container, and answering."""
    gpus, complaint = machine.gpus()
    kernel, cuda, devices = machine.kernel_driver(), machine.driver_cuda(), machine.gpu_devices()
    kind = machine.container()
    if gpus and cuda is not None:
        seen = f"NVIDIA driver {gpus[0].driver}, serves CUDA up to {cuda[0]}.{cuda[1]}"
        return Check("driver", "ok", seen)
    if complaint:
        return _driver_complaint(complaint, kind)
    if gpus or devices or kernel:
        if kind in ("docker", "podman", "kubernetes"):
            return _hidden_gpu(kernel, devices, kind)
        if kind == "apptainer":
            return Check(
                "driver",
                "failure",
                f"the host has NVIDIA driver {kernel}, this container does not see its libraries",
                "Apptainer hands the GPU in only when asked to.",
                "apptainer exec --nv odkit.sif odkit doctor",
            )
        return Check(
            "driver",
            "failure",
            f"NVIDIA kernel driver {kernel or 'loaded'}, but its library libcuda.so.1 is missing",
            "The driver is installed by half: programs cannot reach the GPU.",
            "sudo ubuntu-drivers install && sudo reboot",
        )
    if machine.pci_gpus():
        return Check(
            "driver",
            "failure",
            f"{counted(machine.pci_gpus(), 'NVIDIA device')} on the PCI bus, no driver loaded",
            "There is a GPU, and nothing can use it before its driver is installed on the host.",
            "sudo ubuntu-drivers install && sudo reboot",
        )
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


def _driver_complaint(complaint: str, kind: str) -> Check:
    """A driver that is there and does not answer: the known sentences of nvidia-smi and what each calls for."""
    lower = complaint.lower()
    meaning, command = (
        "The driver does not answer; its log on the host says why.",
        "sudo dmesg | grep -i nvrm | tail",
    )
    if "version mismatch" in lower:
        meaning = "The driver was updated, and the old kernel module is still loaded: restart the host."
        command = "sudo reboot"
    elif ("unknown error" in lower or "insufficient permissions" in lower) and kind:
        meaning = (
            "The container had a GPU and lost it: a 'systemctl daemon-reload' on the host takes the device away from "
            "containers whose cgroups systemd manages. Start the container anew; to prevent it, create the device "
            "links (nvidia-ctk system create-dev-char-symlinks --create-all) or use the cgroupfs driver."
        )
        command = {
            "docker": f"docker restart {socket.gethostname()}",
            "podman": f"podman restart {socket.gethostname()}",
            "kubernetes": f"kubectl delete pod {socket.gethostname()}",
        }.get(kind, "apptainer exec --nv odkit.sif odkit doctor")
    elif "couldn't communicate" in lower or "no devices were found" in lower:
        meaning = (
            "The kernel module is not loaded (often after a kernel update), or the GPU fell off the bus."
        )
        command = "sudo modprobe nvidia || sudo ubuntu-drivers install"
    return Check("driver", "failure", f"nvidia-smi: {complaint}", meaning, command)


def _hidden_gpu(kernel: str, devices: list[str], kind: str) -> Check:
    if devices:
        meaning = (
            "The device files are here, the driver's libraries are not: the container was started with --device alone, "
            "or NVIDIA_DRIVER_CAPABILITIES lacks 'compute,utility'."
        )
    else:
        meaning = "The container was started without the GPU."
    options = {"gpus": "all"}
    command = run_line(options)
    if kind == "docker":
        meaning += (
            " If docker answers 'could not select device driver', the host lacks NVIDIA's container toolkit: "
            "install it first (the second command)."
        )
        command += (
            "\nsudo apt-get install -y nvidia-container-toolkit && sudo nvidia-ctk runtime configure "
            "--runtime=docker && sudo systemctl restart docker"
        )
    elif kind == "podman":
        meaning += " Podman finds GPUs through a CDI file, which the second command writes."
        command += "\nsudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
    elif kind == "kubernetes":
        meaning += (
            " The node needs NVIDIA's device plugin (second command: 0 or none means that it is missing)."
        )
        command += "\nkubectl get nodes -o custom-columns=NAME:.metadata.name,GPU:.status.allocatable.nvidia\\.com/gpu"
    seen = (
        f"the host has NVIDIA driver {kernel}, this container cannot use it"
        if kernel
        else "GPU devices, no driver"
    )
    return Check("driver", "failure", seen, meaning, command, options)


def check_torch(subject: Subject) -> Check | list[Check]:
    """The installed torch against the driver and the GPUs."""
    build = torch_build()
    gpus, _ = machine.gpus()
    cuda = machine.driver_cuda()
    label = f"torch {build.version}" + (
        f", built for CUDA {build.cuda}" if build.cuda else ", a build without CUDA"
    )
    if not gpus:
        return Check("torch", "ok", f"{label}; Apple's GPU is there (--device mps)" if build.mps else label)
    if not build.cuda:
        return Check(
            "torch",
            "failure" if subject.need_gpu else "warning",
            f"{label}, while there is a {gpus[0].name}",
            "It cannot use the GPU. Build the image without TORCH_INDEX, or install the other build.",
            install_command(f"--force-reinstall torch=={build.version.split('+')[0]}"),
        )
    major = int(build.cuda.split(".")[0])
    if cuda is not None and cuda[0] < major:
        wanted = DRIVER_FOR_CUDA.get(major, 0)
        return Check(
            "torch",
            "failure",
            f"{label}; driver {gpus[0].driver} serves CUDA up to {cuda[0]}.{cuda[1]}",
            f"The host's driver is too old: CUDA {major} needs {wanted or 'a newer one'} or newer.",
            f"sudo apt-get install -y nvidia-driver-{wanted} && sudo reboot",
        )
    if not build.available:
        return _unusable(build, label, gpus)
    checks = [
        _foreign_architecture(gpu, build) for gpu in gpus if not runs_on(gpu.capability, build.architectures)
    ]
    return checks or [Check("torch", "ok", f"{label}, sees {counted(len(gpus), 'GPU')}")]


def _unusable(build: TorchBuild, label: str, gpus: list[machine.Gpu]) -> Check:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    meaning, command = "torch gives the reason above.", "python -c 'import torch; torch.cuda.init()'"
    if visible is not None and not re.fullmatch(r"\s*(\d+|GPU-\S+|MIG-\S+)(\s*,.*)?", visible):
        meaning = f"CUDA_VISIBLE_DEVICES is {visible!r}, which hides every GPU from programs."
        command = "unset CUDA_VISIBLE_DEVICES"
    elif "nvidia-uvm" not in machine.gpu_devices():
        meaning = "The device /dev/nvidia-uvm is missing: the module behind it is not loaded on the host."
        command = "sudo nvidia-modprobe -u -c=0"
    return Check(
        "torch",
        "failure",
        f"{label}; {gpus[0].name} is there, torch cannot use it: {build.reason or 'it does not say why'}",
        meaning,
        command,
    )


def _foreign_architecture(gpu: machine.Gpu, build: TorchBuild) -> Check:
    own = f"{gpu.capability[0]}.{gpu.capability[1]}"
    if gpu.capability < min(_architecture(name) for name in build.architectures):
        meaning = (
            "This torch has no code for so old a GPU. An older torch, or one built for an older CUDA, still has: "
            "https://pytorch.org/get-started/previous-versions. Until then, train on the CPU."
        )
    else:
        meaning = "This torch is older than the GPU and has no code for it: a newer one is needed."
    return Check(
        "torch",
        "failure",
        f"GPU {gpu.index}, {gpu.name}: compute capability {own}; torch has {' '.join(build.architectures)}",
        meaning,
        "CUDA_VISIBLE_DEVICES= odkit train FOLDER --detector starter",
    )


def runs_on(capability: tuple[int, int], architectures: Iterable[str]) -> bool:
    """Whether a build has code for a device: "sm_" within one major version, "compute_" (PTX) for anything newer."""
    for name in architectures:
        built = _architecture(name)
        if name.startswith("compute_") and capability >= built:
            return True
        if name.startswith("sm_") and capability[0] == built[0] and capability[1] >= built[1]:
            return True
    return False


def _architecture(name: str) -> tuple[int, int]:
    digits = re.sub(r"\D", "", name.partition("_")[2])
    return int(digits[:-1]), int(digits[-1])


def check_gpu_memory(_: Subject) -> Check | list[Check]:
    """What each GPU is, and whether somebody else fills its memory."""
    checks = []
    for gpu in machine.gpus()[0]:
        major, minor = gpu.capability
        seen = (
            f"GPU {gpu.index}: {gpu.name}, compute capability {major}.{minor}, "
            f"{megabytes(gpu.free)} of {megabytes(gpu.memory)} free"
        )
        # 0 bytes in all: a device that shares the machine's memory and reports none of its own
        if gpu.memory and gpu.free < min(2 * GB, gpu.memory / 2):
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
    """The device that training would choose: "cuda" or "cpu"."""
    return str(detection.pick_device("auto"))


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
        command = "CUDA_VISIBLE_DEVICES= odkit train FOLDER --detector starter"
    elif "torchvision" in lower:
        meaning = "torchvision's own operators are missing: its build does not belong to this torch."
    elif device != "cpu":
        meaning = "The GPU is there and computes wrongly or not at all; the host's log has the driver's error (Xid)."
        command = "sudo dmesg | grep -i xid | tail"
    return Check("computing", "failure", f"on {device}: {text}", meaning, command)


def _reinstall() -> str:
    pinned = [f"{name}=={metadata.version(name).split('+')[0]}" for name in ("torch", "torchvision")]
    return install_command(f"--force-reinstall {' '.join(pinned)}")


def install_command(what: str) -> str:
    """What mends packages: in odkit's own image, whose environment nobody in it may change, a new image."""
    return f"make image\n{run_line({})}" if machine.own_image() else f"pip install {what}"


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
