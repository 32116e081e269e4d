"""How the command that starts this container is told, and what mends its packages."""

import os
import re

from odkit.system import machine

SHM = "8g"
"""Shared memory for a container: eight data workers with 64 images of 1024 px fit; only what is used takes memory."""


def run_line(options: dict[str, str]) -> str:
    """The command that starts the container, with options corrected.

    Args:
        options: Name to value: "gpus", "shm-size", "security-opt", "memory", "cpus", "user", "userns", "-v work".

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
    # the engines' own 64 MB of shared memory are for one small worker
    usual = {"shm-size": SHM}
    if options.get("gpus") or machine.gpu_devices():
        parts.append(
            "--device nvidia.com/gpu=all" if engine == "podman" else f"--gpus {options.get('gpus', 'all')}"
        )
        if machine.selinux_confined():
            usual = {"security-opt": "label=disable", **usual}
    parts += [
        f"--{name}={value}"
        for name, value in {**usual, **options}.items()
        if name not in ("gpus", "-v data", "-v work")
    ]
    parts += ["-p 127.0.0.1:8888:8888", f"-v {options.get('-v data', './data:/data')}"]
    image = os.environ.get("ODKIT_IMAGE") or ("odkit" if machine.own_image() else "IMAGE")
    parts += [f"-v {options.get('-v work', './work:/work')}", image]
    return " ".join(parts)


_KUBERNETES = {
    "gpus": "resources.limits: {{nvidia.com/gpu: 1}}",
    "security-opt": "securityContext: {{seLinuxOptions: {{type: spc_t}}}}",
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
    return kind if kind in machine.ENGINES and (machine.own_image() or not ours) else ""


def install_command(what: str, *, image: str = "make image") -> str:
    """What mends packages: in odkit's own image, whose environment nobody in it may change, a new image."""
    return f"{image}\n{run_line({})}" if machine.own_image() else f"pip install {what}"
