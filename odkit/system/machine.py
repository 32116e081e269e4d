"""What this machine, and the container around it, really allow: memory, cores, shared memory, disks, GPUs.

Facts only, one small function each, without torch, so that asking costs nothing. `odkit.doctor` judges them;
training asks them when it chooses workers.
"""

import contextlib
import ctypes
import math
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

GB = 1024**3
MB = 1024**2
# Where Linux shows these facts; constants, so that a test can point them at folders of its own.
PROC = Path("/proc")
SYS = Path("/sys")
CGROUPS = Path("/sys/fs/cgroup")
DEVICES = Path("/dev")
SHM = Path("/dev/shm")
ROOT = Path("/")
ENGINES = ("docker", "podman", "kubernetes")
"""Containers whose options are given where they are started; Apptainer's processes have the machine's own devices."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_NO_LIMIT = 1 << 60  # cgroup v1 writes "no limit" as the largest multiple of the page size


def odkit_version() -> str:
    """Version of the odkit that runs, also where it is a checkout that nobody has installed."""
    return str(sys.modules["odkit"].__version__)  # in memory before any of its parts is


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver reports it."""

    index: int
    name: str
    driver: str  # the driver's version, for example "580.65.06"
    memory: int  # bytes
    free: int  # bytes
    capability: tuple[int, int]  # compute capability, for example (8, 6)


# -- memory and cores -------------------------------------------------------------------------------------------------


def cgroup_memory_limit() -> int | None:
    """The smallest memory limit, in bytes, of the control groups this process is in; None where there is none."""
    limits = [_number(folder / name) for folder in _cgroup_folders("memory") for name in _MEMORY_LIMITS]
    real = [limit for limit in limits if limit is not None and 0 < limit < _NO_LIMIT]
    return min(real, default=None)


def cgroup_memory_used() -> int | None:
    """Memory in use, in bytes, in the control group that has the limit, file caches that can go left out."""
    for folder in _cgroup_folders("memory"):
        limits = [_number(folder / name) for name in _MEMORY_LIMITS]
        if not any(limit is not None and 0 < limit < _NO_LIMIT for limit in limits):
            continue
        for name in ("memory.current", "memory.usage_in_bytes"):
            used = _number(folder / name)
            if used is not None:
                return max(used - _cache_bytes(folder), 0)
    return None


def memory_total_bytes() -> int:
    """Memory this process may use, in bytes: the machine's, or its control group's limit where that is smaller."""
    total = int(psutil.virtual_memory().total)
    limit = cgroup_memory_limit()
    return total if limit is None else min(total, limit)


def memory_free_bytes() -> int:
    """Memory still to be had, in bytes, within the machine and the control group's limit."""
    free = int(psutil.virtual_memory().available)
    limit, used = cgroup_memory_limit(), cgroup_memory_used()
    return free if limit is None else max(min(free, limit - (used or 0)), 0)


def memory_peak_bytes(*, restart: bool = False) -> int:
    """The most memory that this process has held at once, in bytes; `restart`: from now on count anew (Linux alone)."""
    if restart:
        with contextlib.suppress(OSError):
            (PROC / "self" / "clear_refs").write_text("5")
    # not ru_maxrss where it can be helped: a new program inherits its parent's there
    for line in _text(PROC / "self" / "status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def keep_freed_memory() -> bool:
    """Keep what this process frees for what it asks for next; whether that can be had (glibc's malloc alone).

    glibc hands large blocks back to the system at once and gets them anew, filled with zeros a page at a time: where
    training frees all activations after every step, on a CPU, that is a seventh of the time (bench/training.py).
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    kept = mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    return bool(
        kept and any(mallopt(_M_MMAP_THRESHOLD, size) for size in (2**30, 2**25))
    )  # older ones: 32 MiB


def processor() -> str:
    """What the processor calls itself, or its kind ("x86_64", "arm64") where it does not say."""
    for line in _text(PROC / "cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def cpu_quota() -> float | None:
    """Cores the control group grants (1.5 = one and a half); None without a quota."""
    quotas = []
    for folder in _cgroup_folders("cpu"):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        words = _text(folder / "cpu.max").split()
        if len(words) == 2 and words[0].isdigit():
            quota, period = int(words[0]), int(words[1])
        if quota and period and quota > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)


def cpu_count() -> int:
    """Cores this process may use: its affinity and its quota (rounded up) considered; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def most_workers() -> int:
    """Data workers that this machine may be asked for: more than a few a core only cost memory."""
    return max(16, 4 * cpu_count())


# -- shared memory and disks ------------------------------------------------------------------------------------------


def shm_total_bytes() -> int | None:
    """Size of /dev/shm in bytes; None where there is no such thing (macOS)."""
    return shutil.disk_usage(SHM).total if SHM.is_dir() else None


def shm_free_bytes() -> int | None:
    """Free bytes of /dev/shm, through which data workers hand over batches; None where there is no such thing."""
    return shutil.disk_usage(SHM).free if SHM.is_dir() else None


def shm_needed_bytes(num_workers: int, batch_bytes: int, *, prefetch: int = 4) -> int:
    """Bytes of /dev/shm that data workers may fill: `prefetch` batches each, one in use, and a quarter of slack."""
    return 0 if num_workers <= 0 else int((num_workers * prefetch + 1) * batch_bytes * 1.25)


def workers_that_fit(num_workers: int, batch_bytes: int, *, prefetch: int = 4) -> tuple[int, str]:
    """As many data workers as shared memory carries, and why there are fewer than asked for.

    A batch that does not fit into /dev/shm kills its worker with a bus error, so training asks here first.

    Args:
        num_workers: Workers wanted, 0 or more.
        batch_bytes: Size of one batch as it lies in shared memory, in bytes.
        prefetch: Batches a worker prepares ahead.

    Returns:
        The number of workers (0: load in the training process itself) and the reason, "" where nothing changed.
    """
    free = shm_free_bytes()
    if free is None:
        return num_workers, ""
    fitting = num_workers
    while fitting and shm_needed_bytes(fitting, batch_bytes, prefetch=prefetch) > free:
        fitting -= 1
    if fitting == num_workers:
        return num_workers, ""
    needed = shm_needed_bytes(num_workers, batch_bytes, prefetch=prefetch)
    return fitting, (
        f"{fitting} data workers in place of {num_workers}: /dev/shm has {megabytes(free)} free and {num_workers} "
        f"workers may need {megabytes(needed)} (start the container with --shm-size={size_option(needed)})"
    )


def open_files_limit() -> int:
    """How many files this process may have open at once, at most: as far as it may raise its own limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 30 if hard == resource.RLIM_INFINITY else hard


def open_files_needed(num_workers: int, *, prefetch: int = 4) -> int:
    """Files that training may have open: a batch on its way is one, a worker's queues are a few more, and the rest.

    The rest (libraries, a GPU's contexts, a kernel's sockets) is a round figure of what processes were seen to hold.
    """
    return 256 + num_workers * (prefetch + 1 + 4)


def disk_free_bytes(path: str | Path) -> int:
    """Free bytes on the disk of a path (or of its nearest parent that exists)."""
    return shutil.disk_usage(existing_parent(path)).free


def filesystem(path: str | Path) -> str:
    """Kind of file system a path lies on ("ext4", "overlay", "nfs4", "9p"); "" where it cannot be told."""
    target = os.path.realpath(existing_parent(path))
    kind, longest = "", -1
    for line in _text(PROC / "self" / "mountinfo").splitlines():
        words = line.split()
        if "-" not in words:
            continue
        mount = words[4].encode().decode("unicode_escape")  # blanks stand there as \040
        inside = target == mount or target.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= longest:
            kind, longest = words[words.index("-") + 1], len(mount)
    return kind


def existing_parent(path: str | Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    path = Path(path).absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def size_option(needed: int) -> str:
    """A size in bytes as a round figure for --shm-size or --memory, in whole gigabytes: "1g", "2g", "4g"."""
    return f"{max(1, 2 ** math.ceil(math.log2(max(needed / GB, 0.5))))}g"


def megabytes(size: int) -> str:
    """A size in bytes for people: "64 MB", "23.4 GB"."""
    return f"{size / GB:.1f} GB" if size >= GB else f"{size / MB:.0f} MB"


# -- where we are -----------------------------------------------------------------------------------------------------


def container() -> str:
    """The kind of container around this process: "kubernetes", "podman", "docker", "apptainer", or "" for none."""
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if (ROOT / "run" / ".containerenv").exists():
        return "podman"
    if (ROOT / ".dockerenv").exists():
        return "docker"
    return "apptainer" if (ROOT / ".singularity.d").exists() else ""


def own_image() -> bool:
    """Whether this is a container of odkit's own image, which starts in /opt/odkit."""
    return (ROOT / "opt" / "odkit" / "start.py").exists()


def rootless() -> bool:
    """Whether this is a user namespace in which root is really the person who started it (rootless podman, docker)."""
    words = _text(PROC / "self" / "uid_map").split()
    return len(words) >= 3 and words[:3] != ["0", "0", "4294967295"]


def distribution() -> str:
    """Family of the Linux distribution: "ubuntu", "debian", "fedora" (with RHEL's kin), "suse", else "".

    In a container it is the image's; nothing there tells the host's.
    """
    words: list[str] = []
    for line in _text(ROOT / "etc" / "os-release").splitlines():
        name, _, value = line.partition("=")
        if name in ("ID", "ID_LIKE"):
            words += value.strip().strip("\"'").split()
    families = {"ubuntu": "ubuntu", "debian": "debian", "fedora": "fedora", "rhel": "fedora", "suse": "suse"}
    return next((family for word, family in families.items() if word in words), "")


def selinux_confined() -> bool:
    """Whether SELinux holds this process to what a container usually may."""
    return ":container_t:" in _text(PROC / "self" / "attr" / "current")


def listening() -> list[tuple[str, int]]:
    """Address and port of every TCP socket that listens in this network namespace (Linux; else empty)."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in _text(PROC / "net" / name).splitlines()[1:]:
            words = line.split()
            if len(words) > 3 and words[3] == "0A":
                address, port = words[1].split(":")
                found.add((_address(address), int(port, 16)))
    return sorted(found)


def is_loopback(address: str) -> bool:
    """Whether an address of `listening()` is reachable from this machine alone."""
    return address.startswith(("127.", "::1", "::ffff:127."))


# -- GPUs -------------------------------------------------------------------------------------------------------------


def kernel_driver() -> str:
    """Version of the NVIDIA kernel driver of the host, which a container sees too; "" where none is loaded."""
    text = _text(PROC / "driver" / "nvidia" / "version")
    for word in text.split():
        if word[:1].isdigit() and word.count(".") in (1, 2) and word.replace(".", "").isdigit():
            return word
    return ""


def pci_gpus() -> int:
    """Number of NVIDIA display or compute devices on the PCI bus, whether or not a driver is there."""
    count = 0
    for device in (SYS / "bus" / "pci" / "devices").glob("*"):
        if _text(device / "vendor").strip() == "0x10de" and _text(device / "class").startswith("0x03"):
            count += 1
    return count


def gpu_devices() -> list[str]:
    """Names of the NVIDIA device files that this process can see ("nvidia0", "nvidiactl", "nvidia-uvm", "dxg")."""
    return sorted(path.name for pattern in ("nvidia*", "dxg") for path in DEVICES.glob(pattern))


def gpus_hidden() -> str:
    """CUDA_VISIBLE_DEVICES where somebody says with it that no GPU is to be used; else ""."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip()
    return f"CUDA_VISIBLE_DEVICES={value!r}" if value.lower() in ("", "-1", "none", "nodevfiles") else ""


def gpu_asked_for() -> str:
    """NVIDIA_VISIBLE_DEVICES where it asks for a GPU; else "".

    NVIDIA's base images say "all" on their own, so that this counts in odkit's image alone, which does not.
    """
    value = os.environ.get("NVIDIA_VISIBLE_DEVICES", "").strip()
    nobody = value in ("", "void", "none") or (value == "all" and not own_image())
    return "" if nobody else f"NVIDIA_VISIBLE_DEVICES={value}"


def given_gpu() -> str:
    """What shows that an NVIDIA GPU was given to this process or asked for: a device file, a variable; "" for nothing.

    Only files and variables are looked at, so that asking costs nothing where there is no GPU. No sign are: a driver
    in /proc (every container sees its host's), a file that may not be opened (as of a cluster's job without a GPU), a
    card without NVIDIA's driver, and GPUs that somebody hides.
    """
    if gpus_hidden():
        return ""
    devices = [name for name in gpu_devices() if re.fullmatch(r"nvidia\d+", name)]
    if not devices and "dxg" in gpu_devices() and driver_cuda():  # WSL has the file for any maker's GPU
        devices = ["dxg"]
    # an engine makes the file of a GPU that it hands in; where it may not be opened, something took it away again
    given = [name for name in devices if container() in ENGINES or _may_open(DEVICES / name)]
    return f"/dev/{given[0]}" if given else gpu_asked_for()


def withheld_gpu() -> str:
    """An NVIDIA GPU of this machine that this process was not given, in words; "" where nothing shows one."""
    if hidden := gpus_hidden():
        return f"{hidden} hides every GPU"
    if any(re.fullmatch(r"nvidia\d+", name) for name in gpu_devices()):
        return "this user or job may not open the NVIDIA GPU of this machine"
    if kernel_driver():
        inside = container() in ENGINES
        return f"the host has an NVIDIA driver, this {'container' if inside else 'process'} was given no GPU"
    return "the NVIDIA GPU of this machine has no NVIDIA driver" if pci_gpus() else ""


def _may_open(device: Path) -> bool:
    return os.access(device, os.R_OK | os.W_OK)  # asks control groups too, and wakes no GPU


def driver_cuda() -> tuple[int, int] | None:
    """Newest CUDA version the driver library can serve, for example (13, 0); None where there is no such library."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int(0)
    if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


def gpus() -> tuple[list[Gpu], str]:
    """The GPUs that `nvidia-smi` lists, and what it said where it failed ("" where there is no nvidia-smi).

    It is asked, and not torch, because it answers without taking memory on the device.
    """
    fields = "index,name,driver_version,memory.total,memory.free,compute_cap"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except FileNotFoundError:
        return [], ""
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], str(error)
    if done.returncode:
        return [], " ".join((done.stdout + done.stderr).split())
    return [_gpu(line) for line in done.stdout.splitlines() if line.count(",") >= 5], ""


def _gpu(line: str) -> Gpu:
    index, name, driver, total, free, capability = (word.strip() for word in line.split(",")[:6])
    major, _, minor = capability.partition(".")
    return Gpu(
        index=int(index),
        name=name,
        driver=driver,
        memory=_whole(total) * MB,
        free=_whole(free) * MB,
        capability=(_whole(major), _whole(minor)),
    )


def _whole(word: str) -> int:
    """A number of nvidia-smi, which writes "[N/A]" for what a device does not tell."""
    try:
        return int(float(word))
    except ValueError:
        return 0


# -- reading ----------------------------------------------------------------------------------------------------------

_MEMORY_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None  # missing, or "max"


def _cache_bytes(folder: Path) -> int:
    for line in _text(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _cgroup_folders(controller: str) -> list[Path]:
    """This process's control group folder and those above it (version 2, then version 1), innermost first.

    Inside a container the own group is usually mounted as the root; outside, a limit may stand anywhere above.
    """
    folders: list[Path] = []
    for line in _text(PROC / "self" / "cgroup").splitlines():
        number, names, inner = line.split(":", 2)
        if number == "0":
            base = CGROUPS
        elif controller in names.split(","):
            base = CGROUPS / controller
        else:
            continue
        folder = base / inner.strip("/")
        while folder not in (base, folder.parent):
            folders.append(folder)
            folder = folder.parent
        folders.append(base)
    return [folder for folder in folders if folder.is_dir()] or [CGROUPS, CGROUPS / controller]


def _address(text: str) -> str:
    """An address of /proc/net/tcp (hexadecimal, each 32-bit word in the machine's byte order) in the usual form."""
    words = bytes.fromhex(text)
    swapped = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
    return socket.inet_ntop(socket.AF_INET if len(swapped) == 4 else socket.AF_INET6, swapped)
