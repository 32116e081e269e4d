"""The files to copy under deploy/, run as they stand on a CPU; what only a cluster has is stood in for."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from odkit.data.formats.write import write_dataset
from odkit.runs.run import Run
from tests.helpers import squares

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
SMALL = [
    *("--weights", "random", "--image-size", "64", "--epochs", "1"),
    *("--batch-size", "4", "--num-workers", "0"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_dataset(squares(tmp_path / "squares"), tmp_path / "data", "coco")
    return tmp_path / "data"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where `odkit` and `torchrun` are on the path, and programs that only a cluster has are stood in for."""
    stands_in = {
        "nvidia-smi": "echo 'GPU 0: one'; echo '  MIG 1g.10gb Device 0: (UUID: x)'; echo 'GPU 1: two'",
        "scontrol": "echo 127.0.0.1",
        "srun": 'exec "$@"',
        "odkit": f'exec {sys.executable} -m odkit "$@"',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    }
    for name, code in stands_in.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{code}\n")
        program.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(DEPLOY.parent),
        "OMP_NUM_THREADS": "1",
        "PORT": port,
    }


def finished(run: Run, processes: int) -> None:
    assert run.state == "finished", run.trouble()
    (start,) = [event for event in run.events() if event["event"] == "start"]
    assert start["processes"] == processes
    assert run.history()[-1]["ap"] is not None
    assert run.settings.batch_size == 4, "further options win"


@pytest.mark.worker
def test_one_machine_with_several_gpus(data: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    command = [str(DEPLOY / "eight-gpus.sh"), str(data), "starter", *SMALL, "--device", "cpu"]
    subprocess.run([*command, "--name", "eight"], env=environment, cwd=tmp_path, check=True)
    finished(Run(tmp_path / "runs" / "eight"), processes=2)


@pytest.mark.worker
def test_two_machines(data: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """Two launchers that find each other over TCP, as on two machines with a shared folder."""
    environment |= {"HEAD": "127.0.0.1", "NODES": "2", "GPUS": "1"}
    command = [str(DEPLOY / "two-machines.sh"), str(data), str(tmp_path / "shared"), "both", *SMALL]
    machines = [subprocess.Popen(command, env=environment, cwd=tmp_path) for _ in range(2)]
    assert [machine.wait(240) for machine in machines] == [0, 0]
    finished(Run(tmp_path / "shared" / "both"), processes=2)


def test_a_failed_preparation_lets_nobody_wait(tmp_path: Path, environment: dict[str, str]) -> None:
    """Neither the first machine nor one that came while it still tried."""
    environment |= {"HEAD": "127.0.0.1"}
    (tmp_path / "bin" / "odkit").write_text("#!/bin/sh\nsleep 2\nexit 3\n")
    (tmp_path / "bin" / "torchrun").write_text("#!/bin/sh\n")
    command = [str(DEPLOY / "two-machines.sh"), "/nothing", str(tmp_path), "one"]
    machines = [subprocess.Popen(command, env=environment, cwd=tmp_path) for _ in range(2)]
    assert sorted(machine.wait(30) for machine in machines) == [1, 3]
    assert not list(tmp_path.glob(".one.claim"))


def test_slurm_hands_on_its_cores_in_a_container_too(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "config.json").touch()
    (tmp_path / "bin" / "srun").write_text('#!/bin/sh\necho "$SRUN_CPUS_PER_TASK" "$@"\n')
    job = {"SLURM_JOB_NODELIST": "here", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": "7"}
    environment |= {**job, "SLURM_CPUS_PER_TASK": "48", "CONTAINER": "apptainer exec --nv odkit.sif"}
    del environment["PORT"]
    script = ["bash", str(DEPLOY / "slurm.sbatch"), "/nothing", str(tmp_path), "job"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("48 apptainer exec --nv odkit.sif torchrun ")
    assert "--rdzv-endpoint 127.0.0.1:15007 " in done.stdout


@pytest.mark.worker
def test_slurm(data: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    environment |= {
        "SLURM_JOB_NODELIST": "here",
        "SLURM_NNODES": "1",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_JOB_ID": "7",
    }
    script = ["bash", str(DEPLOY / "slurm.sbatch"), str(data), str(tmp_path / "shared"), "job"]
    subprocess.run([*script, *SMALL], env=environment, cwd=tmp_path, check=True)
    finished(Run(tmp_path / "shared" / "job"), processes=2)


def test_kubeflow_trains_with_the_command_a_person_types() -> None:
    runtime, job = yaml.safe_load_all((DEPLOY / "kubeflow-trainjob.yaml").read_text())
    assert {document["apiVersion"] for document in (runtime, job)} == {"trainer.kubeflow.org/v1alpha1"}
    assert [document["kind"] for document in (runtime, job)] == ["TrainingRuntime", "TrainJob"]
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    trainer = job["spec"]["trainer"]
    assert trainer["command"][:4] == ["torchrun", "-m", "odkit", "worker"]
    assert trainer["command"][4].startswith("/work/")
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (replicated["name"], container["name"]) == ("node", "node")
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert "/dev/shm" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert pod["terminationGracePeriodSeconds"] > 30  # what torchrun gives its processes
    assert runtime["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] > 0
    assert set(trainer["resourcesPerNode"]["requests"]) == {"cpu", "memory"}
    deployment = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    claims = {d["metadata"]["name"]: d["spec"] for d in deployment if d["kind"] == "PersistentVolumeClaim"}
    for volume in pod["volumes"]:
        if "persistentVolumeClaim" in volume:
            claim = claims[volume["persistentVolumeClaim"]["claimName"]]
            assert claim["accessModes"] == ["ReadWriteMany"], "two machines mount it"
    lab = next(d for d in deployment if d["kind"] == "Deployment")["spec"]["template"]["spec"]
    # `command` passes start.py by, which gives up root
    assert pod["securityContext"] == lab["securityContext"]
    assert container["securityContext"] == lab["containers"][0]["securityContext"]


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*.s*")), ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text()
    assert script.suffix == ".sbatch" or os.access(script, os.X_OK)
