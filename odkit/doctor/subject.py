"""The facts under judgement, and how the command that starts the container is told."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from odkit.system import machine


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the checks are about: folders, and how training will run."""

    data: Path | None = None
    data_given: bool = False
    work: Path = Path(".")
    need_gpu: bool = False
    num_workers: int = 2
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


def container_engine(*, ours: bool = False) -> str:
    """What starts this container with options of its own; "" where nothing does.

    Apptainer is no such engine: memory, cores, shared memory, folders and the user are the machine's own. `ours`: only
    where the container is one of odkit's image; in another, nobody knows who should be its user and own its folders.
    """
    kind = machine.container()
    return "" if kind == "apptainer" or (ours and not machine.own_image()) else kind


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def cache_folder() -> Path:
    """Where caches go (torch's weights among them)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
