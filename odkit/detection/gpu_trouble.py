"""Why an NVIDIA GPU that is here cannot be used, and what to type: one diagnosis for whoever asks."""

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata

from odkit.system import install_command, machine, run_line

DRIVER_FOR_CUDA = {11: 450, 12: 525, 13: 580}
"""Oldest NVIDIA driver for each CUDA major version (NVIDIA's table of minor version compatibility)."""
CPU_COMMAND = "odkit train FOLDER --detector starter --device cpu"
_GUIDE = "docs/gpu.md, '{}'"


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What keeps a GPU from being used."""

    seen: str
    meaning: str
    command: str = ""  # what to type; one command a line
    options: dict[str, str] = field(default_factory=dict)  # of the container's start, see `run_line`

    def sentence(self) -> str:
        """All of it in one line, for an error's message."""
        typed = ", then ".join(f"`{line}`" for line in self.command.splitlines())
        return f"{self.seen}. {self.meaning}" + (f" To type: {typed}." if typed else "")


@dataclass(frozen=True, kw_only=True)
class TorchBuild:
    """What the installed torch was built for, and what it makes of this machine."""

    version: str
    cuda: str  # CUDA version of the build, "" for a build without
    architectures: tuple[str, ...]  # "sm_75", "compute_120", ...
    available: bool  # whether torch can use a CUDA device
    reason: str = ""  # torch's own words, where it cannot
    mps: bool = False  # Apple's GPU

    @property
    def label(self) -> str:
        return f"torch {self.version}, " + (
            f"built for CUDA {self.cuda}" if self.cuda else "a build without CUDA"
        )


def torch_build() -> TorchBuild:
    """The installed torch (imports it; nothing else here does)."""
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


def gpu_trouble() -> Trouble | None:
    """Why no GPU can be used: the driver's trouble, else torch's; None where nothing shows a GPU."""
    if trouble := driver_trouble():
        return trouble
    build = torch_build()
    if trouble := torch_trouble(build):
        return trouble
    given = machine.given_gpu()
    return _unusable(build, given) if given and not build.available else None


# -- the driver -------------------------------------------------------------------------------------------------------


def driver_trouble() -> Trouble | None:
    """What is wrong with the NVIDIA driver: missing, not seen from inside the container, not answering."""
    gpus, complaint = machine.gpus()
    kernel, cuda, kind = machine.kernel_driver(), machine.driver_cuda(), machine.container()
    devices = [name for name in machine.gpu_devices() if name != "dxg"]  # WSL has it for any maker's GPU
    if complaint:
        return _complaint(complaint, kind)
    if cuda is not None and (gpus or devices):  # nvidia-smi itself may be missing: NVIDIA_DRIVER_CAPABILITIES
        return None
    if kind in machine.ENGINES and (gpus or devices or kernel or machine.gpu_asked_for()):
        return _not_handed_in(kernel, devices, kind)
    if kind == "apptainer" and (gpus or devices or kernel):
        return Trouble(
            seen=f"the host has NVIDIA driver {kernel}, this container does not see its libraries",
            meaning="Apptainer hands the GPU in only when asked to.",
            command="apptainer exec --nv odkit.sif odkit doctor",
        )
    if gpus or devices or kernel:
        return Trouble(
            seen=f"NVIDIA kernel driver {kernel or 'loaded'}, but its library libcuda.so.1 is missing",
            meaning=f"The driver is installed by half: programs cannot reach the GPU. {_driver_guide()}",
            command=_driver_command(),
        )
    if count := machine.pci_gpus():
        return Trouble(
            seen=f"{count} NVIDIA device{'s' * (count > 1)} on the PCI bus, no driver loaded",
            meaning=(
                "There is a GPU, and nothing can use it before its driver is installed on the host. "
                + _driver_guide()
            ),
            command=_driver_command(),
        )
    return None


def _driver_guide() -> str:
    guide = _GUIDE.format("The driver")
    if machine.container() or machine.distribution() in ("ubuntu", ""):
        return f"See {guide}."
    return f"NVIDIA's package repository comes first: {guide}."


def _driver_command(oldest: int = 0) -> str:
    """What installs NVIDIA's driver here (`oldest`: at least that); "" in a container, which cannot tell its host's."""
    if machine.container():
        return ""
    ubuntu = f"sudo apt-get install -y nvidia-driver-{oldest}" if oldest else "sudo ubuntu-drivers install"
    install = {
        "ubuntu": ubuntu,
        "debian": "sudo apt-get install -y nvidia-open",
        "fedora": "sudo dnf install -y nvidia-open",
        "suse": "sudo zypper install -y nvidia-open",
    }.get(machine.distribution())
    return f"{install} && sudo reboot" if install else ""


def _complaint(complaint: str, kind: str) -> Trouble:
    """A driver that is there and does not answer: the known sentences of nvidia-smi and what each calls for."""
    lower, engine = complaint.lower(), kind in machine.ENGINES
    options: dict[str, str] = {}
    if "version mismatch" in lower:
        meaning = "The driver was updated, and the old kernel module is still loaded: restart the host."
        command = "sudo reboot"
    elif "unknown error" in lower and engine:
        meaning = (
            "The container had a GPU and lost it: a 'systemctl daemon-reload' on the host takes it away from "
            "containers whose cgroups systemd manages and whose GPU came by a hook. Start the container anew. To "
            f"prevent it ({_GUIDE.format('Errors')}): hand the GPU in by CDI (--device nvidia.com/gpu=all), name its "
            "device files (--device /dev/nvidia0 and so on), or let docker manage cgroups itself (cgroupfs)."
        )
        action = "kubectl delete pod" if kind == "kubernetes" else f"{kind} restart"
        command = f"{action} {socket.gethostname()}"
    elif "insufficient permissions" in lower and engine:
        options = {"gpus": "all", "security-opt": "label=disable"}
        meaning = (
            "The GPU's device files may not be opened in here. On Fedora, RHEL and their kin it is SELinux, which "
            "label=disable lifts for this container. In a rootless engine it may be the files' own mode: all must be "
            "allowed to read and write them (second command, on the host)."
        )
        command = f"{run_line(options)}\nls -l /dev/nvidia*"
    elif "insufficient permissions" in lower:
        meaning = "This user may not open the GPU's device files, or a scheduler gave this job no GPU."
        command = "ls -l /dev/nvidia*"
    elif "couldn't communicate" in lower or "no devices were found" in lower:
        meaning = (
            "The kernel module is not loaded (often after a kernel update), or the GPU fell off the bus."
        )
        ubuntu = machine.distribution() == "ubuntu" and not kind
        command = "sudo modprobe nvidia" + " || sudo ubuntu-drivers install" * ubuntu
    else:
        meaning = "The driver does not answer; its log on the host says why."
        command = "sudo dmesg | grep -i nvrm | tail"
    return Trouble(seen=f"nvidia-smi: {complaint}", meaning=meaning, command=command, options=options)


def _not_handed_in(kernel: str, devices: list[str], kind: str) -> Trouble:
    """A container that was started without the GPU, or with a part of what it takes."""
    if devices:
        meaning = (
            "The device files are here, the driver's libraries are not: the container was started with --device alone, "
            "or NVIDIA_DRIVER_CAPABILITIES lacks 'compute,utility'."
        )
    elif asked := machine.gpu_asked_for():
        meaning = f"{asked} asks for a GPU, and the engine took no notice: its own option hands one in."
    else:
        meaning = "The container was started without the GPU."
    options = {"gpus": "all"}
    command = run_line(options)
    toolkit = _GUIDE.format("The toolkit")
    if kind == "docker" and machine.rootless():
        meaning += (
            " If docker answers 'could not select device driver', NVIDIA's container toolkit is missing on the host "
            f"({toolkit}), or this rootless docker does not know it: the other commands tell it."
        )
        command += (
            "\nnvidia-ctk runtime configure --runtime=docker --config=$HOME/.config/docker/daemon.json"
            "\nsudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place"
            "\nsystemctl --user restart docker"
        )
    elif kind == "docker":
        meaning += (
            " If docker answers 'could not select device driver', the host lacks NVIDIA's container toolkit: "
            f"{toolkit}, has its repository for apt, dnf and zypper; then the second command."
        )
        command += "\nsudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
    elif kind == "podman":
        meaning += (
            " Podman finds GPUs through a CDI file, which a service of NVIDIA's container toolkit keeps: the second "
            f"command lets it write the file anew and lists what is in it ({toolkit})."
        )
        command += "\nsudo systemctl restart nvidia-cdi-refresh.service && nvidia-ctk cdi list"
    else:
        meaning += (
            " The node needs NVIDIA's device plugin (second command: 0 or none means that it is missing)."
        )
        command += "\nkubectl get nodes -o custom-columns=NAME:.metadata.name,GPU:.status.allocatable.nvidia\\.com/gpu"
    seen = "GPU devices, no driver" if devices else "no GPU in this container"
    if kernel:
        seen = f"the host has NVIDIA driver {kernel}, this container cannot use it"
    return Trouble(seen=seen, meaning=meaning, command=command, options=options)


# -- torch ------------------------------------------------------------------------------------------------------------


def torch_trouble(build: TorchBuild) -> Trouble | None:
    """What keeps the installed torch from a GPU whose driver answers; None where nothing does, or no GPU is there."""
    gpus, complaint = machine.gpus()
    served = machine.driver_cuda()
    if complaint or served is None or not (gpus or machine.given_gpu()):
        return None
    name = gpus[0].name if gpus else "an NVIDIA GPU"
    if not build.cuda:
        return Trouble(
            seen=f"{build.label}, while there is a {name}",
            meaning="It cannot use the GPU. Build the image without CUDA=cpu, or install the other build.",
            command=install_command(f"--force-reinstall torch=={build.version.split('+')[0]}"),
        )
    major = int(build.cuda.split(".")[0])
    if served[0] < major:
        return _old_driver(build, major, served, gpus[0].driver if gpus else machine.kernel_driver())
    if not build.available:
        return _unusable(build, name)
    return None


def _old_driver(build: TorchBuild, major: int, served: tuple[int, int], driver: str) -> Trouble:
    oldest = DRIVER_FOR_CUDA.get(major, 0)
    meaning = (
        f"The host's driver is too old: CUDA {major} needs {oldest or 'a newer one'} or newer "
        f"({_GUIDE.format('The driver')})."
    )
    commands = [_driver_command(oldest)]
    if served[0] == 12 < major:
        meaning += f" The build of torch for CUDA 12.6 runs with this one ({_GUIDE.format('The image')})."
        commands.append(_older_build())
    return Trouble(
        seen=f"{build.label}; driver {driver} serves CUDA up to {served[0]}.{served[1]}",
        meaning=meaning,
        command="\n".join(filter(None, commands)),
    )


def _older_build() -> str:
    """What installs the torch of this version that was built for CUDA 12.6."""
    pinned = [f"{name}=={metadata.version(name).split('+')[0]}" for name in ("torch", "torchvision")]
    index = "--index-url https://download.pytorch.org/whl/cu126"
    return install_command(f"--force-reinstall {' '.join(pinned)} {index}", image="make image CUDA=126")


def _unusable(build: TorchBuild, name: str) -> Trouble:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    meaning, command = "torch gives the reason above.", "python -c 'import torch; torch.cuda.init()'"
    if visible is not None and not re.fullmatch(r"\s*(\d+|GPU-\S+|MIG-\S+)(\s*,.*)?", visible):
        meaning = f"CUDA_VISIBLE_DEVICES is {visible!r}, which hides every GPU from programs."
        command = "unset CUDA_VISIBLE_DEVICES"
    elif visible is not None and "No CUDA GPUs are available" in build.reason:
        meaning = f"CUDA_VISIBLE_DEVICES is {visible!r}: there is no such GPU (they are counted from 0)."
        command = "nvidia-smi --list-gpus"
    elif "Error 802" in build.reason:
        meaning = (
            "GPUs that an NVSwitch connects wait for NVIDIA's fabric manager, which does not run on the host."
        )
        command = "sudo systemctl start nvidia-fabricmanager"
    elif machine.gpu_devices() != ["dxg"] and "nvidia-uvm" not in machine.gpu_devices():
        meaning = "The device /dev/nvidia-uvm is missing: the module behind it is not loaded on the host."
        command = "sudo nvidia-modprobe -u -c=0"
    return Trouble(
        seen=f"{build.label}; {name} is there, torch cannot use it: {build.reason or 'it does not say why'}",
        meaning=meaning,
        command=command,
    )


def foreign_architecture(
    name: str, capability: tuple[int, int], architectures: Sequence[str]
) -> Trouble | None:
    """A GPU that the installed torch has no code for; None where it has.

    Args:
        name: What the GPU is called in the sentence.
        capability: Its compute capability.
        architectures: What torch was built for; none, where a build does not say.
    """
    built = sorted(_architecture(name) for name in architectures)
    if not built or runs_on(capability, architectures):
        return None
    commands = [CPU_COMMAND]
    if capability > built[0]:
        meaning = "This torch is older than the GPU and has no code for it: a newer one is needed."
        if machine.own_image():
            commands = ["make image", run_line({})]  # without CUDA=126
    elif capability >= (5, 0):
        meaning = (
            "This torch has no code for so old a GPU. The build for CUDA 12.6 still has, for Maxwell to Volta "
            f"({_GUIDE.format('The image')})."
        )
        commands = [_older_build()]
    else:
        meaning = "This torch has no code for so old a GPU: train on the CPU."
    return Trouble(
        seen=f"{name}: compute capability {capability[0]}.{capability[1]}; torch has {' '.join(architectures)}",
        meaning=meaning,
        command="\n".join(commands),
    )


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
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
