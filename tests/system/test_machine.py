"""Facts about the machine, read from files in the kernel's own formats that each test lays out in a folder."""

import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import odkit
from odkit.cli import main
from odkit.system import machine
from odkit.system.machine import GB, MB
from odkit.training.trainer import machine as machine_of_run


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A /proc, /sys and / of our own."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "SYS", tmp_path / "sys")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "sys/fs/cgroup")
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(machine, "DEVICES", tmp_path / "dev")
    for name in ("KUBERNETES_SERVICE_HOST", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_limits_of_version_2_inside_a_container(kernel):
    write(kernel / "proc/self/cgroup", "0::/\n")
    write(kernel / "sys/fs/cgroup/memory.max", f"{4 * GB}\n")
    write(kernel / "sys/fs/cgroup/memory.current", f"{3 * GB}\n")
    write(kernel / "sys/fs/cgroup/memory.stat", f"anon 5\ninactive_file {GB}\n")
    write(kernel / "sys/fs/cgroup/cpu.max", "150000 100000\n")
    assert machine.cgroup_memory_limit() == 4 * GB
    assert machine.cgroup_memory_used() == 2 * GB  # caches that can go do not count
    assert machine.cpu_quota() == 1.5
    assert machine.cpu_count() == min(2, len(os.sched_getaffinity(0)))


def test_the_tightest_limit_above_a_session_counts(kernel):
    write(kernel / "proc/self/cgroup", "0::/user.slice/job_7\n")
    write(kernel / "sys/fs/cgroup/user.slice/job_7/memory.max", "max\n")
    write(kernel / "sys/fs/cgroup/user.slice/memory.max", f"{8 * GB}\n")
    write(kernel / "sys/fs/cgroup/user.slice/cpu.max", "max 100000\n")
    assert machine.cgroup_memory_limit() == 8 * GB
    assert machine.cpu_quota() is None


def test_limits_of_version_1(kernel):
    write(kernel / "proc/self/cgroup", "8:memory:/docker/abc\n3:cpu,cpuacct:/\n")
    write(kernel / "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", f"{2 * GB}\n")
    write(kernel / "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(kernel / "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", f"{GB}\n")
    write(kernel / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(kernel / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert machine.cgroup_memory_limit() == 2 * GB
    assert machine.cgroup_memory_used() == GB
    assert machine.cpu_quota() is None
    write(kernel / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n")
    assert machine.cpu_quota() == 0.5
    assert machine.cpu_count() == 1


def test_without_control_groups_the_machine_itself_is_the_limit(kernel):
    assert machine.cgroup_memory_limit() is None
    assert machine.cgroup_memory_used() is None
    assert machine.cpu_quota() is None
    assert machine.memory_total_bytes() > 0
    assert 0 < machine.memory_free_bytes() <= machine.memory_total_bytes()


def test_memory_under_a_limit(monkeypatch):
    monkeypatch.setattr(machine, "cgroup_memory_limit", lambda: 100 * MB)
    monkeypatch.setattr(machine, "cgroup_memory_used", lambda: 30 * MB)
    assert machine.memory_total_bytes() == 100 * MB
    assert machine.memory_free_bytes() == 70 * MB


@pytest.mark.parametrize(
    ("free", "wanted", "expected"),
    [(64 * MB, 2, 1), (64 * MB, 0, 0), (1 * MB, 4, 0), (GB, 8, 8), (None, 8, 8)],
)
def test_workers_that_fit_into_shared_memory(monkeypatch, free, wanted, expected):
    monkeypatch.setattr(machine, "shm_free_bytes", lambda: free)
    num_workers, reason = machine.workers_that_fit(wanted, 8 * MB, prefetch=4)
    assert num_workers == expected
    assert bool(reason) == (expected < wanted)
    if expected:
        assert free is None or machine.shm_needed_bytes(expected, 8 * MB) <= free
    if reason:
        assert "--shm-size=1g" in reason


def test_open_files():
    assert machine.open_files_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert (
        machine.open_files_needed(2, prefetch=4) - machine.open_files_needed(0) == 2 * 9
    )  # a batch is one file


@pytest.mark.parametrize(
    ("release", "family"),
    [
        ("ID=ubuntu\nID_LIKE=debian\n", "ubuntu"),
        ('NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\n', "ubuntu"),
        ("ID=debian\n", "debian"),
        ("ID=fedora\n", "fedora"),
        ('ID="cloudlinux"\nID_LIKE="rhel"\n', "fedora"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "fedora"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "suse"),
        ("ID=arch\n", ""),
    ],
)
def test_distribution(kernel, release, family):
    assert machine.distribution() == ""
    write(kernel / "etc/os-release", release)
    assert machine.distribution() == family


def test_what_selinux_confines(kernel):
    assert not machine.selinux_confined()
    label = kernel / "proc/self/attr/current"
    write(label, "system_u:system_r:container_t:s0:c57,c234\0")
    assert machine.selinux_confined()
    for free in (
        "unconfined_u:unconfined_r:unconfined_t:s0\0",
        "system_u:system_r:spc_t:s0\0",
        "system_u:system_r:container_runtime_t:s0\0",
        "docker-default (enforce)\n",
    ):
        write(label, free)
        assert not machine.selinux_confined()


@pytest.mark.parametrize(("size", "option"), [(1, "1g"), (GB, "1g"), (GB + 1, "2g"), (3 * GB, "4g")])
def test_size_option(size, option):
    assert machine.size_option(size) == option


def test_filesystem_of_the_innermost_mount(kernel):
    folder = kernel / "my data"
    folder.mkdir()
    escaped = str(folder).replace(" ", "\\040")
    write(
        kernel / "proc/self/mountinfo",
        f"1 0 0:1 / / rw shared:1 - overlay overlay rw\n2 1 0:2 / {escaped} rw - nfs4 server:/x rw\n",
    )
    assert machine.filesystem(folder / "not" / "there") == "nfs4"
    assert machine.filesystem(kernel) == "overlay"


def test_kind_of_container(kernel, monkeypatch):
    assert machine.container() == ""
    (kernel / ".singularity.d").mkdir()
    assert machine.container() == "apptainer"
    write(kernel / ".dockerenv", "")
    assert machine.container() == "docker"
    write(kernel / "run/.containerenv", "")
    assert machine.container() == "podman"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert machine.container() == "kubernetes"
    assert not machine.own_image()
    write(kernel / "opt/odkit/start.py", "")
    assert machine.own_image()


def test_rootless(kernel):
    write(kernel / "proc/self/uid_map", "         0          0 4294967295\n")
    assert not machine.rootless()
    write(
        kernel / "proc/self/uid_map", "         0       1000          1\n         1     100000      65536\n"
    )
    assert machine.rootless()


def test_listening_sockets(kernel):
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
    write(
        kernel / "proc/net/tcp",
        head
        + "   0: 0100007F:141F 00000000:0000 0A 0:0 0:0 0 0\n"
        + "   1: 00000000:22B8 00000000:0000 0A 0:0 0:0 0 0\n"
        + "   2: 0100007F:9999 0100007F:141F 01 0:0 0:0 0 0\n",
    )
    write(
        kernel / "proc/net/tcp6", head + "   0: " + "0" * 24 + "01000000:6989 " + "0" * 32 + ":0000 0A 0:0\n"
    )
    assert machine.listening() == [("0.0.0.0", 8888), ("127.0.0.1", 5151), ("::1", 27017)]
    assert [machine.is_loopback(address) for address, _ in machine.listening()] == [False, True, True]


def test_nvidia_driver_and_devices(kernel):
    assert machine.kernel_driver() == ""
    assert machine.pci_gpus() == 0
    assert machine.gpu_devices() == []
    write(
        kernel / "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: 12.2.0\n",
    )
    write(kernel / "sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    write(kernel / "sys/bus/pci/devices/0000:01:00.0/class", "0x030000\n")
    write(kernel / "sys/bus/pci/devices/0000:01:00.1/vendor", "0x10de\n")
    write(kernel / "sys/bus/pci/devices/0000:01:00.1/class", "0x040300\n")  # its sound device
    write(kernel / "dev/nvidia0", "")
    assert machine.kernel_driver() == "580.65.06"
    assert machine.pci_gpus() == 1
    assert machine.gpu_devices() == ["nvidia0"]


DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"


@pytest.mark.parametrize(
    ("files", "variables", "given", "withheld"),
    [
        ({}, {}, "", ""),
        ({"dev/nvidia0": ""}, {}, "/dev/nvidia0", None),
        ({"dev/nvidia0": "", ".dockerenv": ""}, {}, "/dev/nvidia0", None),
        # the control device alone is no GPU
        ({"dev/nvidiactl": "", "dev/nvidia-uvm": ""}, {}, "", ""),
        # nobody asked for one: a container sees its host's driver, and a laptop its card
        ({"proc/driver/nvidia/version": DRIVER, ".dockerenv": ""}, {}, "", "this container was given no GPU"),
        ({"proc/driver/nvidia/version": DRIVER}, {}, "", "this process was given no GPU"),
        (
            {"sys/bus/pci/devices/0/vendor": "0x10de\n", "sys/bus/pci/devices/0/class": "0x030000\n"},
            {},
            "",
            "has no NVIDIA driver",
        ),
        # asked for by a variable; a base image of NVIDIA's says "all" by itself, odkit's image does not
        ({".dockerenv": ""}, {"NVIDIA_VISIBLE_DEVICES": "GPU-3a23c669"}, "NVIDIA_VISIBLE_DEVICES=GPU-3a23c669", None),
        ({".dockerenv": ""}, {"NVIDIA_VISIBLE_DEVICES": "all"}, "", ""),
        ({"opt/odkit/start.py": ""}, {"NVIDIA_VISIBLE_DEVICES": "all"}, "NVIDIA_VISIBLE_DEVICES=all", None),
        ({"opt/odkit/start.py": ""}, {"NVIDIA_VISIBLE_DEVICES": "void"}, "", ""),
        ({"opt/odkit/start.py": ""}, {"NVIDIA_VISIBLE_DEVICES": "none"}, "", ""),
        # hidden on purpose; a number that is not there is a slip
        ({"dev/nvidia0": ""}, {"CUDA_VISIBLE_DEVICES": ""}, "", "CUDA_VISIBLE_DEVICES='' hides every GPU"),
        ({"dev/nvidia0": ""}, {"CUDA_VISIBLE_DEVICES": "-1"}, "", "CUDA_VISIBLE_DEVICES='-1' hides every GPU"),
        ({"dev/nvidia0": ""}, {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "", "hides every GPU"),
        ({"dev/nvidia0": ""}, {"CUDA_VISIBLE_DEVICES": "7"}, "/dev/nvidia0", None),
    ],
)  # fmt: skip
def test_which_gpu_was_given_or_asked_for(kernel, monkeypatch, files, variables, given, withheld):
    for name, text in files.items():
        write(kernel / name, text)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert machine.given_gpu() == given
    if withheld is not None:
        assert (withheld in machine.withheld_gpu()) if withheld else machine.withheld_gpu() == ""


def test_a_file_that_may_not_be_opened(kernel, monkeypatch):
    """On a machine it is a job or a user without a GPU; in a container it was handed in, and taken away again."""
    write(kernel / "dev/nvidia0", "")
    monkeypatch.setattr(
        os, "access", lambda path, mode: False
    )  # a test that runs as root may open everything
    assert machine.given_gpu() == ""
    assert machine.withheld_gpu() == "this user or job may not open the NVIDIA GPU of this machine"
    write(kernel / ".dockerenv", "")
    assert machine.given_gpu() == "/dev/nvidia0"


def test_windows_gives_its_file_to_any_makers_gpu(kernel, monkeypatch):
    write(kernel / "dev/dxg", "")
    monkeypatch.setattr(machine, "driver_cuda", lambda: None)
    assert machine.given_gpu() == ""
    monkeypatch.setattr(machine, "driver_cuda", lambda: (13, 0))
    assert machine.given_gpu() == "/dev/dxg"


def nvidia_smi(folder: Path, monkeypatch, script: str) -> None:
    """An nvidia-smi that says what a real one would."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_gpus_as_nvidia_smi_lists_them(tmp_path, monkeypatch):
    lines = "0, NVIDIA GeForce RTX 3090, 580.65.06, 24576, 24100, 8.6\n1, Orin, 540.4.0, [N/A], [N/A], 8.7"
    nvidia_smi(tmp_path, monkeypatch, f"echo '{lines}'")
    gpus, complaint = machine.gpus()
    assert complaint == ""
    assert gpus[0] == machine.Gpu(0, "NVIDIA GeForce RTX 3090", "580.65.06", 24576 * MB, 24100 * MB, (8, 6))
    assert (gpus[1].memory, gpus[1].capability) == (0, (8, 7))


def test_gpus_when_nvidia_smi_fails(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, "echo 'Failed to initialize NVML: Unknown Error'; exit 255")
    assert machine.gpus() == ([], "Failed to initialize NVML: Unknown Error")


def test_an_nvidia_smi_that_cannot_be_run_is_quoted(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("not a program")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == ([], "[Errno 8] Exec format error: 'nvidia-smi'")


def test_sizes_of_disk_and_shared_memory(tmp_path, monkeypatch):
    assert machine.disk_free_bytes(tmp_path / "not" / "there") > 0
    monkeypatch.setattr(machine, "SHM", tmp_path)
    assert 0 < machine.shm_free_bytes() <= machine.shm_total_bytes()
    monkeypatch.setattr(machine, "SHM", tmp_path / "missing")
    assert machine.shm_free_bytes() is None
    assert machine.shm_total_bytes() is None


def test_gpus_without_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == ([], "")


def test_a_checkout_that_is_not_installed_knows_its_version(monkeypatch, capsys):
    installed = metadata.Distribution.from_name

    def hidden(name):
        if name == "odkit":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata.Distribution, "from_name", hidden)
    assert machine.odkit_version() == odkit.__version__
    assert machine_of_run(torch.device("cpu"))["odkit"] == odkit.__version__
    assert main(["--version"]) == 0
    assert odkit.__version__ in capsys.readouterr().out


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts anew, others do not")
def test_the_peak_of_memory_is_this_process_own_and_counts_anew():
    block = bytearray(64 * MB)
    peak = machine.memory_peak_bytes()
    assert peak >= len(block)
    del block
    assert machine.memory_peak_bytes() >= 64 * MB, "it stays when memory is given back"
    assert machine.memory_peak_bytes(restart=True) < peak


def test_the_peak_is_read_where_linux_writes_it(kernel):
    assert machine.memory_peak_bytes(restart=True) > MB, "elsewhere the system is asked"
    write(kernel / "proc/self/status", "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n")
    assert machine.memory_peak_bytes() == 2 * MB


def test_a_processor_says_its_name(kernel):
    assert machine.processor() == platform.machine()
    write(kernel / "proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n")
    assert machine.processor() == "Some CPU @ 3 GHz"


KEEPS = """
import resource
import subprocess
import sys
import numpy as np
from odkit.system import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        [np.ones(3 * 2**18, np.float32) for _ in range(20)]  # 3 MiB each: too small for huge pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first, kept = faults(), keep_freed_memory()
faults()
print(kept, first, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc than glibc's")
def test_freed_memory_is_kept():
    environment = {**os.environ, "GLIBC_TUNABLES": ""}
    done = subprocess.run(
        [sys.executable, "-c", KEEPS], env=environment, capture_output=True, text=True, check=True
    )
    kept, before, after = done.stdout.split()
    assert kept == "True"
    assert int(after) < 1000 < 15_000 < int(before)
