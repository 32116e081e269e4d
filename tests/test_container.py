"""The image's files as far as they can be tried without an engine: what is installed, who owns what, how it ends."""

import http.server
import importlib.util
import itertools
import json
import os
import re
import resource
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from odkit.doctor import gpu

ROOT = Path(__file__).parents[1]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "container" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


start, healthcheck, plan = script("start"), script("healthcheck"), script("plan")


# -- what is installed ------------------------------------------------------------------------------------------------


def test_the_plan_is_the_lock_without_developers_tools(tmp_path):
    plan.plan(ROOT, tmp_path)
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    files = {path.stem: path.read_text().splitlines() for path in tmp_path.iterdir()}
    assert set(files) == {"torch", "rest", "keep", "build"}
    for line in files.pop("keep"):
        assert any(locked.startswith(line) for locked in lock)
        assert "\\" not in line, "a constraint with hashes refuses torch's other builds"
    for lines in files.values():
        assert set(lines) <= set(lock)
        pins = [line for line in lines if not line.startswith(" ")]
        hashed = [a for a, b in itertools.pairwise(lines) if b.startswith("    --hash=sha256:")]
        assert set(pins) <= set(hashed)
    installed = {re.match(r"[\w.-]+", line)[0] for line in files["torch"] + files["rest"] if line[0] != " "}
    assert {
        "torch",
        "torchvision",
        "nvidia-cudnn-cu13",
        "numpy",
        "fiftyone",
        "jupyterlab",
        "transformers",
        "nbval",
    } <= installed
    assert not installed & {"mypy", "ruff", "playwright", "uv", "triton", "pre-commit"}
    assert not {name for name in installed if name.startswith("types-")}
    # torch's small dependencies are in the second layer
    assert {"sympy", "jinja2", "filelock"} <= {line.partition("==")[0] for line in files["rest"]}


def test_both_versions_of_a_package_are_kept_with_their_markers(tmp_path):
    (tmp_path / "requirements.lock").write_text(
        "a==1 ; python_full_version < '3.12'\n    # via odkit (pyproject.toml)\n"
        "a==2 ; python_full_version >= '3.12'\n    # via odkit (pyproject.toml)\n"
        "b==1\n    # via\n    #   a\n    #   c\nnbval==1\npytest==1\nhatchling==1\ntriton==1\n    # via a\n"
    )
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["A>=1"]\n')
    plan.plan(tmp_path, tmp_path)
    assert (tmp_path / "rest.txt").read_text().splitlines() == [
        "a==1 ; python_full_version < '3.12'",
        "a==2 ; python_full_version >= '3.12'",
        "b==1",
        "nbval==1",
        "pytest==1",
    ]


def test_a_lock_that_lacks_a_dependency_stops_the_build(tmp_path):
    (tmp_path / "requirements.lock").write_text("nbval==1\npytest==1\n")
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["torch"]\n')
    with pytest.raises(SystemExit, match="lacks torch: run `make lock`"):
        plan.plan(tmp_path, tmp_path)


def wheel(folder, name, version, needs=()):
    """A wheel with nothing in it but its name, and what it needs."""
    stem = f"{name.replace('-', '_')}-{version}"
    about = "".join(f"Requires-Dist: {need}\n" for need in needs)
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        archive.writestr(
            f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{about}"
        )
        archive.writestr(
            f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{stem}.dist-info/RECORD", "")


def simple_index(folder):
    """pip's pages over wheels that lie in folders of their packages' names."""
    for package in folder.iterdir():
        links = "".join(f'<a href="{file.name}">{file.name}</a>' for file in package.glob("*.whl"))
        (package / "index.html").write_text(links)


@pytest.mark.parametrize("cuda", ["126", "cpu"])
def test_another_cuda_brings_its_own_libraries_and_nothing_else(tmp_path, cuda):
    """From an index that has no other packages: what torch needs besides is the lock's, and comes later."""
    index = tmp_path / "index" / ("cpu" if cuda == "cpu" else f"cu{cuda}")
    label = "cpu" if cuda == "cpu" else f"cu{cuda}"
    libraries = [] if cuda == "cpu" else ["nvidia-cublas-cu12==12.6.4; python_version > '3'", "triton==3.7"]
    wheel(index / "torch", "torch", f"2.14.1+{label}", [*libraries, "sympy>=1.13"])
    wheel(index / "torch", "torch", f"2.15.0+{label}")
    wheel(index / "torchvision", "torchvision", f"0.29.1+{label}", ["numpy"])
    wheel(index / "nvidia-cublas-cu12", "nvidia-cublas-cu12", "12.6.4", ["nvidia-nvrtc-cu12"])
    wheel(index / "nvidia-nvrtc-cu12", "nvidia-nvrtc-cu12", "12.6.77")
    simple_index(index)
    (tmp_path / "torch.txt").write_text(
        "nvidia-cublas==13.0 \\\n    --hash=sha256:00\ntorch==2.14.1 \\\n    --hash=sha256:00\n"
        "torchvision==0.29.1 ; python_version > '3' \\\n    --hash=sha256:00\n"
    )
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    install = [str(ROOT / "container" / "torch.sh"), str(tmp_path / "venv"), str(tmp_path / "torch.txt")]
    alone = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([*install, cuda, (tmp_path / "index").as_uri()], env=alone, check=True)
    listed = [str(tmp_path / "venv" / "bin" / "pip"), "list", "--format", "json"]
    found = json.loads(subprocess.run(listed, env=alone, capture_output=True, check=True).stdout)
    versions = {entry["name"]: entry["version"] for entry in found}
    expected = {"torch": f"2.14.1+{label}", "torchvision": f"0.29.1+{label}"}
    if cuda != "cpu":
        expected |= {"nvidia-cublas-cu12": "12.6.4", "nvidia-nvrtc-cu12": "12.6.77"}
    assert {
        name: version for name, version in versions.items() if name not in ("pip", "setuptools")
    } == expected


@pytest.mark.parametrize(
    ("cuda", "arguments"),
    [
        ("", []),
        ("cpu", ["CUDA=cpu", "NVIDIA_REQUIRE_CUDA="]),
        ("126", ["CUDA=126", "NVIDIA_REQUIRE_CUDA=cuda>=12.0"]),
    ],
)
def test_make_image_asks_for_a_driver_of_the_same_cuda(cuda, arguments):
    command = ["make", "--dry-run", "image", "ENGINE=podman", f"CUDA={cuda}"]
    said = shlex.split(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    given = [value for option, value in itertools.pairwise(said) if option == "--build-arg"]
    assert [value for value in given if "CUDA" in value] == arguments


def dockerfile():
    return (ROOT / "Dockerfile").read_text()


def test_the_driver_that_the_image_asks_for_fits_the_locked_torch():
    lock = (ROOT / "requirements.lock").read_text()
    cuda = re.search(r"^nvidia-cuda-runtime==(\d+)\.(\d+)", lock, re.MULTILINE)
    asked = re.search(r'NVIDIA_REQUIRE_CUDA="cuda>=(\d+)\.(\d+)"', dockerfile())
    assert cuda.groups() == asked.groups()
    assert int(cuda[1]) in gpu.DRIVER_FOR_CUDA  # so that the doctor can name the driver that is needed


def test_the_dockerfile_is_clean():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed; `make lint` runs it")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_everything_the_dockerfile_copies_is_sent_to_the_builder():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from=)(.+)$", dockerfile(), re.MULTILINE):
        for source in line.split()[:-1]:
            assert source in allowed or source.split("/")[0] in allowed, source
            assert list(ROOT.glob(source)), f"{source} is not there"
    for line in re.findall(r"^COPY --from=plan (.+)$", dockerfile(), re.MULTILINE):
        assert all(source.startswith(("/plan/", "/source/")) for source in line.split()[:-1]), line


def test_compose_gives_gpu_shared_memory_and_volumes():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for service in services.values():
        assert service["ports"] == ["127.0.0.1:${ODKIT_PORT:-8888}:8888"]
        assert service["shm_size"] == "${ODKIT_SHM:-8g}"
        assert service["ulimits"]["nofile"] >= 65536
        assert service["ulimits"]["memlock"] == -1
        assert service["restart"].startswith("on-failure:"), (
            "any other one repeats a start that cannot succeed"
        )
        assert service["cap_drop"] == ["ALL"]
        assert service["environment"]["JUPYTER_TOKEN_FILE"] == f"/run/secrets/{service['secrets'][0]}"
        assert f"--interval={service['healthcheck']['interval']} " in dockerfile()
        assert service["stop_grace_period"] == "2m"
        assert service["healthcheck"]["test"][-1] == "/opt/odkit/healthcheck.py"
        assert [volume.split(":", 1)[-1] for volume in service["volumes"]][-1] == "/home/odkit"
    device = services["lab"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "deploy" not in services["lab-cpu"]
    assert services["lab"]["image"] != services["lab-cpu"]["image"]
    assert services["lab-cpu"]["build"]["args"] == {"CUDA": "cpu", "NVIDIA_REQUIRE_CUDA": ""}


def test_compose_describes_what_it_mounts_and_starts_nothing_twice():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    lab, without_gpu = compose["services"]["lab"], compose["services"]["lab-cpu"]
    named = {volume.split(":")[0] for volume in lab["volumes"] if not volume.startswith("$")}
    assert named == set(compose["volumes"])
    assert lab["volumes"][:2] == ["${ODKIT_DATA:-./data}:/data:ro", "${ODKIT_WORK:-./work}:/work"]
    assert without_gpu["profiles"] == ["cpu"]  # `docker compose up` starts the other alone
    assert "profiles" not in lab


def test_the_manifest_gives_gpu_shared_memory_and_no_root():
    kinds = {d["kind"]: d for d in yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())}
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["fsGroup"]) == start.USER
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["terminationGracePeriodSeconds"] == 120
    assert "livenessProbe" not in container, "a slow JupyterLab would end the training beside it"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert (
        kinds["Service"]["spec"]["selector"] == kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    )


# -- the notebooks ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """The image's notebooks, first version, and an empty /work."""
    image, work = tmp_path / "image", tmp_path / "work"
    image.mkdir()
    work.mkdir()
    (image / "00_start.ipynb").write_text("first")
    (image / "01_check.ipynb").write_text("first")
    return image, work


def contents(work):
    return {path.name: path.read_text() for path in sorted(work.glob("*.ipynb"))}


def test_notebooks_are_seeded_once(folders):
    image, work = folders
    assert start.seed(image, work) == []
    assert contents(work) == {"00_start.ipynb": "first", "01_check.ipynb": "first"}
    before = {path: path.stat().st_mtime_ns for path in work.glob("*.ipynb")}
    assert start.seed(image, work) == []
    assert {path: path.stat().st_mtime_ns for path in work.glob("*.ipynb")} == before


def test_an_edited_notebook_stays_and_the_newer_one_lands_beside_it_once(folders):
    image, work = folders
    start.seed(image, work)
    (work / "01_check.ipynb").write_text("mine")
    assert start.seed(image, work) == []  # nothing newer: nothing to say
    (image / "00_start.ipynb").write_text("second")
    (image / "01_check.ipynb").write_text("second")
    assert start.seed(image, work) == [
        "00_start.ipynb was as it came; it is the newer version now",
        "01_check.ipynb is yours and stays; the newer version is 01_check.new.ipynb",
    ]
    assert contents(work) == {
        "00_start.ipynb": "second",
        "01_check.ipynb": "mine",
        "01_check.new.ipynb": "second",
    }
    assert start.seed(image, work) == []
    (image / "01_check.ipynb").write_text("third")  # the copy beside was not touched: it is renewed
    assert start.seed(image, work) == [
        "01_check.ipynb is yours and stays; the newer version is 01_check.new.ipynb"
    ]
    assert contents(work)["01_check.new.ipynb"] == "third"
    (work / "01_check.new.ipynb").write_text("mine too")
    (image / "01_check.ipynb").write_text("fourth")
    assert start.seed(image, work) == [
        "01_check.ipynb and 01_check.new.ipynb are yours and stay; delete one to get the newer version"
    ]
    assert contents(work)["01_check.new.ipynb"] == "mine too"


def test_somebody_elses_notebook_of_that_name_and_a_broken_record_are_left_alone(folders):
    image, work = folders
    (work / "00_start.ipynb").write_text("there before the container")
    (work / ".odkit").mkdir()
    (work / ".odkit" / "seeded.json").write_text("not json")
    start.seed(image, work)
    assert contents(work)["00_start.ipynb"] == "there before the container"


def test_a_deleted_notebook_comes_back(folders):
    image, work = folders
    start.seed(image, work)
    (work / "00_start.ipynb").unlink()
    start.seed(image, work)
    assert contents(work)["00_start.ipynb"] == "first"


# -- who we are -------------------------------------------------------------------------------------------------------


def test_rootless_containers_are_told_by_their_uid_map():
    assert not start.rootless("         0          0 4294967295\n")
    assert start.rootless("         0       1000          1\n         1     100000      65536\n")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_the_user_is_the_owner_of_the_work_folder(tmp_path):
    os.chown(tmp_path, 1234, 5678)
    assert start.target_user(tmp_path, rootless=False) == (1234, 5678)
    assert start.target_user(tmp_path, rootless=True) == (0, 0)
    os.chown(tmp_path, 0, 0)
    assert start.target_user(tmp_path, rootless=False) == start.USER
    assert (tmp_path.stat().st_uid, tmp_path.stat().st_gid) == start.USER  # docker made it: it was nobody's
    os.chown(tmp_path, 0, 0)
    tmp_path.chmod(0o777)
    assert start.target_user(tmp_path, rootless=False) == start.USER
    assert tmp_path.stat().st_uid == 0  # anybody may write already


def test_a_home_is_found_where_the_given_one_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    start.find_home()
    assert os.environ["HOME"] == str(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    start.find_home()
    assert os.environ["HOME"] == f"/tmp/home-{os.getuid()}"
    assert "does not outlive the container" in capsys.readouterr().err


def test_a_second_user_of_a_home_gets_a_folder_in_it(tmp_path, monkeypatch):
    (tmp_path / ".local").mkdir()
    tmp_path.chmod(0o1777)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(start, "writable", lambda folder: folder != tmp_path / ".local")
    start.find_home()
    assert os.environ["HOME"] == str(tmp_path / f"user-{os.getuid()}")


def test_an_earlier_start_s_note_is_taken_away_while_root(tmp_path, monkeypatch):
    """As root, which may; as the user that it becomes it may not, in a /tmp where each may remove their own alone."""
    order = []
    monkeypatch.setattr(start, "STATE", tmp_path / "state.json")
    monkeypatch.setattr(start, "WORK", tmp_path)
    monkeypatch.setattr(start.os, "getuid", lambda: 0)
    monkeypatch.setattr(start, "target_user", lambda *_, **__: (1234, 1234))
    monkeypatch.setattr(start, "become", lambda *_: order.append((tmp_path / "state.json").exists()))
    monkeypatch.setattr(start, "find_home", lambda: None)
    monkeypatch.setattr(start, "supervise", lambda command, lab: order.append(command) or 0)
    (tmp_path / "state.json").write_text("an earlier start's")
    assert start.main(["odkit", "runs"]) == 0
    assert order == [False, ["odkit", "runs"]]


def test_where_the_note_cannot_be_written_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(start, "STATE", tmp_path / "missing" / "state.json")
    start.note({"gpus": 0})
    assert "start the container with --tmpfs /tmp" in capsys.readouterr().err


# -- the machine ------------------------------------------------------------------------------------------------------


def test_an_old_driver_is_said_with_what_helps():
    assert start.DRIVER_FOR_CUDA.items() <= gpu.DRIVER_FOR_CUDA.items()
    said = start.driver_trouble("13.0", 12)
    assert "serves CUDA 12, this image has CUDA 13.0" in said
    assert f"driver {gpu.DRIVER_FOR_CUDA[13]} or newer" in said
    assert "make image CUDA=126" in said
    assert "make image" not in start.driver_trouble("12.6", 11)  # nothing is built for it any more
    for built_for, served in [("13.0", 13), ("12.6", 13), ("13.0", None), ("", 12), ("", None)]:
        assert start.driver_trouble(built_for, served) == ""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="stands a driver library in, which takes a compiler")
@pytest.mark.parametrize(("failed", "served"), [(0, 12), (3, None)])
def test_the_driver_is_asked_without_torch(tmp_path, failed, served):
    (tmp_path / "cuda.c").write_text(f"int cuDriverGetVersion(int *v) {{ *v = 12080; return {failed}; }}")
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-o", str(library), str(tmp_path / "cuda.c")], check=True)
    assert start.driver_cuda(str(library)) == served
    assert start.driver_cuda(str(tmp_path / "missing.so")) is None


def test_open_files_go_up_to_what_may_be(monkeypatch):
    limit = {"now": (0, 0)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limit["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limit.update(now=new))
    endless = resource.RLIM_INFINITY
    for before, after in [
        ((1024, 524288), (524288, 524288)),
        ((1024, endless), (2**20, endless)),
        ((4096, 4096), (4096, 4096)),
        ((endless, endless), (endless, endless)),
    ]:
        limit["now"] = before
        start.raise_open_files()
        assert limit["now"] == after


# -- the token --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "file", "token"),
    [
        ("", None, None),
        (" \n", None, None),
        ("secret\n", None, "secret"),
        (None, "", None),
        (None, "\n", None),
        (None, "from a secret\n", "from a secret"),
        ("", "from a secret", "from a secret"),
        ("mine", "from a secret", "mine"),
    ],
)
def test_an_empty_token_is_none_and_a_line_break_is_not_part_of_it(
    tmp_path, monkeypatch, variable, file, token
):
    monkeypatch.delenv("JUPYTER_TOKEN", raising=False)
    monkeypatch.delenv("JUPYTER_TOKEN_FILE", raising=False)
    if variable is not None:
        monkeypatch.setenv("JUPYTER_TOKEN", variable)
    if file is not None:
        (tmp_path / "token").write_text(file)
        monkeypatch.setenv("JUPYTER_TOKEN_FILE", str(tmp_path / "token"))
    start.set_token()
    assert os.environ.get("JUPYTER_TOKEN") == token
    assert "JUPYTER_TOKEN_FILE" not in os.environ


def test_a_token_file_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("JUPYTER_TOKEN", raising=False)
    monkeypatch.setenv("JUPYTER_TOKEN_FILE", str(tmp_path / "missing"))
    with pytest.raises(SystemExit, match="missing cannot be read"):
        start.set_token()


def test_a_hub_s_server_is_a_lab_and_is_missed_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(start, "WORK", tmp_path)
    monkeypatch.setattr(start, "STATE", tmp_path / "state.json")
    monkeypatch.setattr(start, "NOTEBOOKS", ROOT / "notebooks")
    monkeypatch.setattr(start, "find_home", lambda: None)
    monkeypatch.setattr(start, "become", lambda *_: None)
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "t")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="FROM odkit\n  RUN /opt/venv/bin/pip install jupyterhub"):
        start.main(["jupyterhub-singleuser", "--debug"])
    assert (tmp_path / "notebooks" / "00_start_here.ipynb").exists()
    program = tmp_path / "jupyterhub-singleuser"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    started = []
    monkeypatch.setattr(start, "supervise", lambda command, lab: started.append((command, lab)) or 0)
    root = ["--ServerApp.allow_root=True"] if os.getuid() == 0 else []
    for arguments in (["jupyterhub-singleuser", "--debug"], ["lab", "--debug"]):
        assert start.main(arguments) == 0
        assert started.pop() == ([str(program), *root, "--debug"], True)


# -- the end ----------------------------------------------------------------------------------------------------------

TRAINER = """
import signal, subprocess, sys, time
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # a data worker
def stop(*_):
    assert helper.poll() is None, "the data worker was ended first"
    time.sleep(0.5)
    open(sys.argv[1], "w").write("saved")
    helper.kill()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[1] + ".started", "w")
time.sleep(60)
"""

# What JupyterLab does, in short: it starts a trainer in a session of its own and ends at once when told to.
LAB = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], start_new_session=True)
time.sleep(60)
"""

# tini's part: adopt orphans (PR_SET_CHILD_SUBREAPER is 36) and pass the signal on to the one child.
TINI = """
import ctypes, signal, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
child = subprocess.Popen(sys.argv[1:])
signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number))
sys.exit(child.wait())
"""


def test_what_came_in_by_docker_exec_is_ended_too(monkeypatch):
    """Its parent is outside: 0. On a machine whose processes are not a container's, 0 says nothing."""
    table = {
        1: start.Process(0, 1, 0),
        7: start.Process(1, 1, 0),
        8: start.Process(7, 8, 0),
        40: start.Process(0, 40, 1),
        41: start.Process(40, 41, 0),
        42: start.Process(41, 41, 0),
    }
    monkeypatch.setattr(start, "processes", lambda: table)
    assert start.session_leaders(1) == [8, 40, 41]
    assert start.session_leaders(7) == [8, 40, 41]  # where the engine put an init of its own before tini
    assert start.session_leaders(8) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the container is Linux")
def test_a_stop_waits_for_the_training_run_that_a_kernel_left_behind(tmp_path):
    supervise = f"import sys; sys.path.insert(0, {str(ROOT / 'container')!r}); import start; "
    supervise += "sys.exit(start.supervise(sys.argv[1:], lab=True))"
    saved = tmp_path / "checkpoint"
    lab = [sys.executable, "-c", LAB, TRAINER, str(saved)]
    container = subprocess.Popen(
        [sys.executable, "-c", TINI, sys.executable, "-c", supervise, *lab],
        env={**os.environ, "HOME": str(tmp_path)},
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "checkpoint.started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    container.send_signal(signal.SIGTERM)
    assert container.wait(30) == 128 + signal.SIGTERM
    assert saved.read_text() == "saved"


def test_a_command_that_is_not_there_is_named(capfd):
    assert start.supervise(["no-such-program"], lab=False) == 127
    assert "cannot run 'no-such-program': No such file or directory" in capfd.readouterr().err


# -- the health check -------------------------------------------------------------------------------------------------


def test_the_health_is_asked_as_the_user_whose_files_tell_it(tmp_path, monkeypatch):
    became = []
    (tmp_path / "state.json").write_text('{"gpus": 0}')
    monkeypatch.setattr(healthcheck, "STATE", tmp_path / "state.json")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(os, "setgid", lambda group: became.append(("group", group)))
    monkeypatch.setattr(os, "setuid", lambda user: became.append(("user", user)))
    assert healthcheck.trouble() == ""
    status = (tmp_path / "state.json").stat()
    assert became == [("group", status.st_gid), ("user", status.st_uid)]


def test_health_before_and_after_jupyterlab(tmp_path, monkeypatch):
    monkeypatch.setattr(healthcheck, "STATE", tmp_path / "state.json")
    assert healthcheck.trouble() == "JupyterLab has not answered yet"
    (tmp_path / "state.json").write_text(json.dumps({"server": str(tmp_path / "jpserver-1.json"), "gpus": 0}))
    assert healthcheck.trouble() == "JupyterLab has ended"
    (tmp_path / "jpserver-1.json").write_text(
        json.dumps({"port": 9, "base_url": "/", "token": "t", "secure": False})
    )
    assert healthcheck.trouble().startswith("JupyterLab does not answer: ")
    (tmp_path / "state.json").write_text(json.dumps({"gpus": 0}))  # a headless command
    assert healthcheck.trouble() == ""


class Answer(http.server.BaseHTTPRequestHandler):
    """Jupyter's: `api` tells anybody, `api/status` who has the token."""

    def do_GET(self):
        allowed = self.path == "/api" or self.headers["Authorization"] == "token t"
        self.send_response(200 if allowed else 403)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("token", ["t", ""], ids=["token", "password"])
def test_jupyterlab_is_asked_directly(tmp_path, monkeypatch, token, secure):
    """With a token or a password, under a certificate for another name, past a proxy that leads nowhere."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        if secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate(tmp_path))
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        info = {"port": server.server_port, "base_url": "/", "token": token, "secure": secure}
        (tmp_path / "jpserver-1.json").write_text(json.dumps(info))
        assert healthcheck.jupyter_trouble(tmp_path / "jpserver-1.json") == ""
        assert start.answers(info)
        if token:
            info["token"] = "another"
            (tmp_path / "jpserver-1.json").write_text(json.dumps(info))
            assert "403" in healthcheck.jupyter_trouble(tmp_path / "jpserver-1.json")
        server.shutdown()


def certificate(folder):
    """Key and certificate in one file, for a host that is not this one."""
    path = folder / "certificate.pem"
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(path)]
    made = ["-out", str(folder / "only.pem"), "-subj", "/CN=elsewhere.example"]
    subprocess.run(["openssl", "req", "-x509", *key, *made], check=True, capture_output=True)
    path.write_text(path.read_text() + (folder / "only.pem").read_text())
    return path


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("echo 'GPU 0: A'; echo 'GPU 1: A'", ""),
        ("echo 'GPU 0: A'", "1 of 2 GPUs gone: GPU 0: A; restart the container"),
        (
            "echo 'Failed to initialize NVML: Unknown Error'; exit 255",
            "2 of 2 GPUs gone: Failed to initialize NVML: Unknown Error; restart the container",
        ),
    ],
)
def test_a_gpu_that_is_gone_is_reported(tmp_path, monkeypatch, answer, expected):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert healthcheck.gpu_trouble(2) == expected
    assert healthcheck.gpu_trouble(0) == ""  # there never was one
