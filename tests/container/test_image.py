"""What the image promises, tried on running containers: `make image-test` (needs the built image, docker or podman)."""

import json
import os
import re
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.container.containers import IMAGE, TOKEN, engine, free_port, own

pytestmark = [pytest.mark.image, pytest.mark.timeout(3600)]

NOTEBOOKS = [
    "00_start_here",
    "01_check_gpu",
    "02_browse_dataset",
    "03_fine_tune",
    "04_visualize_predictions",
    "05_label_more",
    "06_export_and_use",
]
ROOT = Path(__file__).parents[2]
SOMEBODY = 12345  # a user id that the image has never heard of


def needs_root():
    if os.getuid() != 0:
        pytest.fail(
            "this test gives folders to other users: run it as root (or in rootful docker's group with sudo)"
        )


# -- JupyterLab -------------------------------------------------------------------------------------------------------


def test_jupyterlab_starts_and_says_where(lab, record_property):
    record_property("seconds from start to ready", round(lab.seconds, 1))
    log = lab.said("the doctor says", seconds=120)
    assert f"http://127.0.0.1:8888/lab/tree/notebooks/00_start_here.ipynb?token={TOKEN}" in log
    assert "Traceback" not in log
    assert not re.findall(r"^\[E .*", log, re.MULTILINE)  # Jupyter's errors
    assert [
        line for line in re.findall(r"^\[W .*", log, re.MULTILINE) if "extension was found" not in line
    ] == []


def test_nobody_gets_in_without_the_token(lab):
    for token in (None, "wrong"):
        assert lab.get("/api/contents", token=token)[0] == 403
        assert lab.get("/api/kernels", token=token, data=b"{}")[0] == 403
        assert lab.get("/lab", token=token)[0] == 302
        assert lab.get("/files/notebooks/00_start_here.ipynb", token=token)[0] in (302, 403)
        assert lab.get("/proxy/5151/", token=token)[0] in (302, 403)
        assert lab.get("/fiftyone/", token=token)[0] in (302, 403)
    assert lab.get("/lab")[0] == 200


@pytest.mark.parametrize("how", ["variable", "file"])
def test_an_empty_token_is_no_token(container, tmp_path, how):
    work = own(tmp_path / "work", os.getuid() or SOMEBODY)
    (tmp_path / "token").write_text("\n")
    secret = [
        "-v",
        f"{tmp_path / 'token'}:/run/secrets/token:ro",
        "-e",
        "JUPYTER_TOKEN_FILE=/run/secrets/token",
    ]
    options = ["-e", "JUPYTER_TOKEN="] + (secret if how == "file" else [])
    one = container(options=options, work=work, port=free_port())
    log = one.said("the doctor says")
    token = re.search(r"ipynb\?token=(\w+)", log)[1]
    assert len(token) >= 32
    assert one.get("/api/contents", token=None)[0] == 403
    assert one.get("/api/contents", token=token)[0] == 200


def test_a_password_takes_the_tokens_place(container, tmp_path, lab):
    script = "from jupyter_server.auth import passwd; print(passwd('secret', 'sha1'))"
    hashed = lab.exec("python", "-c", script).stdout.strip()
    work = own(tmp_path / "work", os.getuid() or SOMEBODY)
    one = container(options=["-e", f"JUPYTER_PASSWORD_HASH={hashed}"], work=work, port=free_port())
    one.said("the doctor says")
    assert one.get("/api/contents", token=None)[0] == 403
    assert one.log_in("wrong").get("/api/contents", token=None)[0] == 403
    assert one.log_in("secret").get("/api/contents", token=None)[0] == 200
    wait_for(lambda: one.health() == "healthy")


def test_the_container_turns_healthy_and_says_when_it_is_not(lab):
    lab.said("the doctor says")
    wait_for(lambda: lab.health() == "healthy")
    assert lab.exec("python", "-I", "/opt/odkit/healthcheck.py").stdout == "well\n"
    script = "import json; print(json.load(open('/tmp/odkit-container.json'))['server'])"
    server = lab.exec("python", "-c", script).stdout.strip()
    lab.exec("mv", server, f"{server}.away", user="0")
    sick = lab.exec("python", "-I", "/opt/odkit/healthcheck.py", check=False)
    lab.exec("mv", f"{server}.away", server, user="0")
    assert (sick.returncode, sick.stdout) == (1, "JupyterLab has ended\n")


def test_everything_runs_as_the_owner_of_work(lab):
    script = (
        "import os; from pathlib import Path\n"
        "print({os.stat(p).st_uid for p in Path('/proc').iterdir() if p.name.isdigit() and int(p.name) != os.getpid()\n"
        "       and b'jupyter-lab' in (p / 'cmdline').read_bytes()})"
    )
    owner = lab.work.stat().st_uid
    assert lab.exec("python", "-c", script).stdout.strip() == f"{{{owner}}}"
    assert {path.stat().st_uid for path in lab.work.rglob("*")} == {owner}
    # docker exec comes in as root; odkit does not stay it
    report = json.loads(lab.exec("odkit", "doctor", "--json", check=False).stdout)
    user = next(check for check in report["checks"] if check["name"] == "user")
    assert user["seen"].startswith(f"user {owner}:")


def test_nothing_but_jupyterlab_listens_on_a_port(lab):
    """What `ss -ltn` shows, read where it reads it, while the App, its database and a training run are up."""
    code = (
        "import odkit as od; data = od.demo_dataset(); browser = od.browse(data); print('URL', browser.url)\n"
    )
    code += "run = od.fine_tune(data, epochs=200, folder='/work/runs', name='up', wait=False)"
    assert "URL /fiftyone/" in lab.run_in_kernel(code)
    wait_for(lambda: '"event":"start"' in text_of(lab.work / "runs" / "up" / "events.jsonl"))
    table = lab.exec("sh", "-c", "awk '$4 == \"0A\" {print $2}' /proc/net/tcp /proc/net/tcp6").stdout.split()
    # the kernel that started them has ended, so on loopback nothing listens any more
    assert {int(line.rpartition(":")[2], 16) for line in table} == {8888}
    # FiftyOne's two sockets are their owner's alone
    owner = str(lab.work.stat().st_uid)
    sockets = lab.exec("sh", "-c", f"ls -ld /tmp/odkit-{owner} /tmp/odkit-{owner}/*.sock").stdout.splitlines()
    assert [line[4:10] for line in sockets] == ["------"] * 3
    lab.exec("odkit", "stop", "up", user=owner)
    wait_for(lambda: '"event":"end"' in text_of(lab.work / "runs" / "up" / "events.jsonl"))


def test_the_first_notebook_is_what_opens(lab):
    status, body = lab.get("/api/contents/notebooks?content=1")
    assert status == 200
    names = {entry["name"] for entry in json.loads(body)["content"]}
    assert names == {f"{name}.ipynb" for name in NOTEBOOKS}
    assert lab.get("/")[0] == 302
    script = "from urllib.request import urlopen as o, Request as R; print(o(R('http://127.0.0.1:8888/?token=%s')).url)"
    assert "/lab/tree/notebooks/00_start_here.ipynb" in lab.exec("python", "-c", script % TOKEN).stdout


# -- FiftyOne's App through the one port ------------------------------------------------------------------------------

BROWSE = "import odkit as od; browser = od.browse(od.demo_dataset()); print('URL', browser.url)\n"
BROWSE += "print('IMAGE', browser.dataset.first().filepath)"


@pytest.mark.parametrize("base", ["/", "/hub/user/me/"])
def test_the_app_is_reached_through_the_one_port_and_its_token(container, tmp_path, base):
    work = own(tmp_path / "work", os.getuid() or SOMEBODY)
    environment = ["-e", f"JUPYTER_TOKEN={TOKEN}", "-e", f"JUPYTER_BASE_URL={base}"]
    one = container(options=environment, work=work, port=free_port())
    one.ready(base)
    printed = one.run_in_kernel(BROWSE, base=base)
    path = re.search(r"URL (/\S*?fiftyone/)", printed)[1]
    image = re.search(r"IMAGE (\S+)", printed)[1]
    assert path == f"{base}fiftyone/"

    status, page = one.get(path)
    assert status == 200
    assert b"<title>" in page
    query = json.dumps({"query": "{ __typename }"}).encode()
    status, answer = one.get(f"{path}graphql", data=query)
    assert (status, json.loads(answer)) == (200, {"data": {"__typename": "Query"}})
    status, media = one.get(f"{path}media?filepath={image}")
    assert status == 200
    assert media[:2] in (b"\xff\xd8", b"\x89P")  # JPEG or PNG

    for what, data in (("", None), ("graphql", query), (f"media?filepath={image}", None)):
        status, body = one.get(path + what, token=None, data=data)
        assert status in (302, 403)
        assert media[:64] not in body


# -- the notebooks, inside --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["the image's own user", "anybody"])
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_runs_inside(container, tmp_path, notebook, user):
    """With nbval, as it comes, started as the README starts the image; "anybody" as Kubernetes and OpenShift do it."""
    needs_root()
    uid, options = (1000, []) if user == "the image's own user" else (SOMEBODY, ["--user", f"{SOMEBODY}:0"])
    work = own(tmp_path / "work", uid)
    copy = f"mkdir notebooks && cp /opt/odkit/notebooks/{notebook}.ipynb notebooks/ && id -u && set -x"
    test = f"python -m pytest -p no:cacheprovider --nbval-lax notebooks/{notebook}.ipynb"
    one = container("sh", "-c", f"{copy} && {test}", options=options, work=work)
    assert one.wait(1800) == 0, one.logs()
    cells = json.loads((work / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    executed = sum(cell["cell_type"] == "code" for cell in cells)
    assert f" {executed} passed" in one.logs()
    assert one.logs().startswith(f"{uid}\n")
    assert {path.stat().st_uid for path in work.rglob("*")} == {uid}


# -- training without a browser ---------------------------------------------------------------------------------------


def test_a_stop_leaves_a_run_that_resumes_and_belongs_to_its_owner(container, tmp_path):
    needs_root()
    work = own(tmp_path / "work", 1234)
    one = container("odkit", "train", "demo", "--epochs", "200", "--name", "long", work=work)
    run = work / "runs" / "long"
    events = run / "events.jsonl"
    wait_for(lambda: events.exists() and '"event":"checkpoint"' in events.read_text())
    one.stop(120)
    last = json.loads(events.read_text().splitlines()[-1])
    assert (last["event"], last["reason"]) == ("end", "stopped")
    checkpoints = sorted((run / "checkpoints").glob("step-*.pt"))
    assert checkpoints
    assert {path.stat().st_uid for path in work.rglob("*")} == {1234}
    again = container("odkit", "resume", "long", work=work)
    wait_for(
        lambda: (
            sum('"event":"start"' in line for line in (run / "events.jsonl").read_text().splitlines()) == 2
        )
    )
    again.stop(120)
    resumed = [
        e for e in map(json.loads, (run / "events.jsonl").read_text().splitlines()) if e["event"] == "start"
    ][-1]
    assert resumed["step"] > 0


def test_a_run_that_a_notebook_started_survives_the_stop_too(container, tmp_path):
    needs_root()
    work = own(tmp_path / "work", 1234)
    one = container(options=["-e", f"JUPYTER_TOKEN={TOKEN}"], work=work, port=free_port())
    one.ready()
    code = "import odkit as od; data = od.demo_dataset()\n"
    code += "od.fine_tune(data, epochs=200, folder='/work/runs', name='long', wait=False)"
    one.run_in_kernel(code)
    events = work / "runs" / "long" / "events.jsonl"
    wait_for(lambda: events.exists() and '"event":"checkpoint"' in events.read_text())
    one.stop(120)
    last = json.loads(events.read_text().splitlines()[-1])
    assert (last["event"], last["reason"]) == ("end", "stopped")
    assert list((events.parent / "checkpoints").glob("step-*.pt"))


def test_a_run_that_came_in_by_exec_survives_the_stop_too(container, tmp_path):
    needs_root()
    work = own(tmp_path / "work", 1234)
    one = container(options=["-e", f"JUPYTER_TOKEN={TOKEN}"], work=work, port=free_port())
    one.ready()
    train = [*engine(), "exec", one.name, "odkit", "train", "demo", "--epochs", "200", "--name", "long"]
    with subprocess.Popen(train, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        events = work / "runs" / "long" / "events.jsonl"
        wait_for(lambda: '"event":"checkpoint"' in text_of(events))
        one.stop(120)
    last = json.loads(events.read_text().splitlines()[-1])
    assert (last["event"], last["reason"]) == ("end", "stopped")
    assert {path.stat().st_uid for path in work.rglob("*")} == {1234}


def test_a_killed_container_s_work_goes_on_in_another_place(container, tmp_path):
    needs_root()
    work = own(tmp_path / "work", 1234)
    one = container("odkit", "train", "demo", "--epochs", "200", "--name", "long", work=work)
    wait_for(lambda: '"event":"checkpoint"' in text_of(work / "runs" / "long" / "events.jsonl"))
    subprocess.run([*engine(), "kill", one.name], capture_output=True, check=True)
    moved = work.rename(tmp_path / "elsewhere")
    looking = container("odkit", "runs", work=moved)
    assert looking.wait() == 0
    assert "died" in looking.logs()
    again = container("odkit", "resume", "long", work=moved)
    events = moved / "runs" / "long" / "events.jsonl"
    wait_for(lambda: text_of(events).count('"event":"start"') == 2)
    again.stop(120)
    last = json.loads(events.read_text().splitlines()[-1])
    assert (last["event"], last["reason"]) == ("end", "stopped")


def test_a_restart_after_the_folder_got_another_owner(container, tmp_path):
    needs_root()
    work = own(tmp_path / "work", 1000)
    one = container(options=["-e", f"JUPYTER_TOKEN={TOKEN}"], work=work, port=free_port())
    one.said("the doctor says")
    one.stop(60)
    for path in (work, *work.rglob("*")):
        os.chown(path, 1001, 1001)
    subprocess.run([*engine(), "start", one.name], capture_output=True, check=True)
    one.ready()
    assert "Traceback" not in one.logs()
    wait_for(lambda: one.health() == "healthy")


def test_compose_s_rights_are_enough_and_nobody_keeps_any(container, tmp_path):
    """For a folder that docker made, a stop that reaches JupyterLab, and a start under another owner."""
    needs_root()
    lab = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["lab"]
    (tmp_path / "work").mkdir()
    token = own(tmp_path / "secret", 1000) / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    os.chown(token, 1000, 1000)
    file = lab["environment"]["JUPYTER_TOKEN_FILE"]
    rights = [
        *(f"--cap-drop={name}" for name in lab["cap_drop"]),
        *(f"--cap-add={name}" for name in lab["cap_add"]),
        *(f"--security-opt={option.removesuffix(':true')}" for option in lab["security_opt"]),
    ]
    options = [*rights, "-v", f"{token}:{file}:ro", "-e", f"JUPYTER_TOKEN_FILE={file}"]
    one = container(options=options, work=tmp_path / "work", port=free_port())
    one.said("the doctor says")
    assert one.ready()
    assert (tmp_path / "work").stat().st_uid == 1000
    state = one.run_in_kernel("print(open('/proc/self/status').read())")
    assert re.search(r"^CapEff:\s+0+$", state, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", state, re.MULTILINE)
    one.stop(60)
    assert one.inspect("{{.State.ExitCode}}") == "0"  # JupyterLab's own end; 137 where nothing was passed on
    for path in (tmp_path / "work", *(tmp_path / "work").rglob("*"), token):
        os.chown(path, 1001, 1001)
    subprocess.run([*engine(), "start", one.name], capture_output=True, check=True)
    one.ready()
    wait_for(lambda: one.health() == "healthy")


def test_open_files_are_raised_and_an_old_driver_is_said(container, tmp_path):
    """The driver is a stand-in that serves CUDA 12.4; an image without CUDA has nothing to say of it."""
    work = own(tmp_path / "work", os.getuid() or SOMEBODY)
    code = "int cuDriverGetVersion(int *version) { *version = 12040; return 0; }"
    (tmp_path / "driver").mkdir()
    library = str(tmp_path / "driver" / "libcuda.so.1")
    subprocess.run(["gcc", "-shared", "-x", "c", "-", "-o", library], input=code, text=True, check=True)
    driver = ["-v", f"{tmp_path / 'driver'}:/driver:ro", "-e", "LD_LIBRARY_PATH=/driver"]
    script = "ulimit -n; cat /opt/odkit/cuda"
    one = container("sh", "-c", script, options=["--ulimit", "nofile=1024:16384", *driver], work=work)
    assert one.wait(120) == 0, one.logs()
    log = one.logs()
    assert "16384\n" in log
    old = re.search(r"^13\.\d$", log, re.MULTILINE) is not None
    assert old == ("THE GPU CANNOT BE USED: its driver on the host serves CUDA 12" in log)
    assert old == ("make image CUDA=126" in log)


@pytest.mark.parametrize(("batch", "size", "num_workers"), [(4, 160, 2), (32, 640, 0)])
def test_two_workers_with_the_default_64_mb_of_shared_memory(container, tmp_path, batch, size, num_workers):
    """Small batches go through it, and two workers remain; large ones would end in a bus error, so none is used."""
    work = own(tmp_path / "work", os.getuid() or SOMEBODY)
    flags = ["--epochs", "1", "--num-workers", "2", "--batch-size", str(batch), "--image-size", str(size)]
    script = "odkit demo demo --images 60 && df -k /dev/shm && odkit train demo --name small "
    one = container("sh", "-c", script + " ".join(flags), work=work)
    assert one.wait(900) == 0, one.logs()
    log = one.logs() + (work / "runs" / "small" / "worker.log").read_text()
    assert 60_000 < int(re.search(r"^shm\s+(\d+)", log, re.MULTILINE)[1]) < 66_000
    assert "bus error" not in log.lower()
    events = [json.loads(line) for line in text_of(work / "runs" / "small" / "events.jsonl").splitlines()]
    assert (events[-1]["event"], events[-1]["reason"]) == ("end", "finished")
    reason = events[0]["choices"]["reasons"]["num_workers"]
    assert reason.startswith("as set" if num_workers else "0 data workers in place of 2: /dev/shm has 6")


def text_of(path):
    return path.read_text() if path.exists() else ""


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


# -- folders ----------------------------------------------------------------------------------------------------------


def test_read_only_data_is_enough(container, tmp_path, lab):
    data = tmp_path / "data"
    data.mkdir()
    lab.exec(
        "sh", "-c", "cd /tmp && odkit demo /tmp/demo --images 20 && tar -C /tmp/demo -cf /work/demo.tar ."
    )
    subprocess.run(["tar", "-C", str(data), "-xf", str(lab.work / "demo.tar")], check=True)
    (lab.work / "demo.tar").unlink()
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    work = own(tmp_path / "work", os.getuid() or SOMEBODY)
    look = "import odkit as od; print(len(od.browse(od.load_dataset('/data'), height=1).dataset))"
    script = f'odkit audit /data; odkit train /data --epochs 1 --name one && python -c "{look}"'
    one = container("sh", "-c", script, options=["-v", f"{data}:/data:ro"], work=work)
    assert one.wait(1200) == 0, one.logs()
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


def test_work_of_another_user_is_explained(container, tmp_path):
    needs_root()
    work = own(tmp_path / "work", 1007)
    one = container(options=["--user", f"{SOMEBODY}:{SOMEBODY}"], work=work)
    assert one.wait(120) == 1
    log = one.logs()
    assert "cannot write to /work, which belongs to 1007:1007" in log
    assert "--user=1007:1007" in log
    assert "Traceback" not in log


def test_notebooks_of_another_user_are_explained_and_jupyterlab_starts(container, tmp_path):
    needs_root()
    work = own(tmp_path / "work", SOMEBODY)
    own(work / "notebooks", 0)
    one = container(options=["-e", f"JUPYTER_TOKEN={TOKEN}"], work=work, port=free_port())
    one.ready()
    log = one.said("sudo chown -R 12345:12345 ./work")
    assert "could not be put into /work/notebooks: Permission denied" in log
    assert "/work/notebooks belongs to 0:0; user 12345:12345 may not change it" in log
    assert "Traceback" not in log


def test_a_folder_that_docker_made_goes_to_the_image_s_user(container, tmp_path):
    needs_root()
    work = own(tmp_path / "work", 0)
    one = container("sh", "-c", "id -u; touch /work/file", work=work)
    assert one.wait(60) == 0
    assert one.logs().strip() == "1000"
    assert (work / "file").stat().st_uid == 1000


def test_an_edited_notebook_is_kept_and_a_newer_version_lands_beside_it(container, tmp_path):
    work = own(tmp_path / "work", os.getuid() or SOMEBODY)
    environment = ["-e", f"JUPYTER_TOKEN={TOKEN}"]

    def start_and_stop(*options):
        one = container(options=[*environment, *options], work=work, port=free_port())
        one.ready()
        one.stop(60)
        return one.logs()

    start_and_stop()
    mine = work / "notebooks" / "01_check_gpu.ipynb"
    content = json.loads(mine.read_text())
    content["metadata"]["mine"] = True
    edited = json.dumps(content)
    mine.write_text(edited)
    assert "01_check_gpu" not in start_and_stop().split("ready after")[0]  # the image has nothing newer
    assert mine.read_text() == edited
    assert sorted(path.stem for path in (work / "notebooks").glob("*.ipynb")) == NOTEBOOKS
    content["metadata"] = {"newer": True}
    newer = tmp_path / "newer.ipynb"
    newer.write_text(json.dumps(content))
    newer.chmod(0o644)
    log = start_and_stop("-v", f"{newer}:/opt/odkit/notebooks/01_check_gpu.ipynb:ro")
    assert "01_check_gpu.ipynb is yours and stays; the newer version is 01_check_gpu.new.ipynb" in log
    assert mine.read_text() == edited
    assert (work / "notebooks" / "01_check_gpu.new.ipynb").read_text() == newer.read_text()


def test_it_starts_without_a_network(container, tmp_path):
    work = own(tmp_path / "work", os.getuid() or SOMEBODY)
    one = container(options=["--network", "none"], work=work)
    log = one.said("the doctor says", seconds=60)
    assert "no way to download.pytorch.org" in log
    assert one.exec("python", "-I", "/opt/odkit/healthcheck.py").stdout == "well\n"


# -- packages and the doctor ------------------------------------------------------------------------------------------


def wheel(folder: Path, name: str, version: str) -> None:
    """A package with one module that holds its version, as the smallest wheel there can be."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"version = {version!r}\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def test_pip_installs_what_is_new_and_does_not_replace_torch(container, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel(wheels, "torch", "99.0")
    wheel(wheels, "somethingnew", "1.0")
    work = own(tmp_path / "work", os.getuid() or SOMEBODY)
    one = container("sleep", "600", options=["-v", f"{wheels}:/wheels:ro"], work=work)
    uid = str(work.stat().st_uid)
    pip = "pip install --no-index --find-links /wheels"
    refused = one.exec("sh", "-c", f"{pip} torch==99.0", user=uid, check=False)
    assert refused.returncode != 0
    assert "constraint" in refused.stdout + refused.stderr
    one.exec("sh", "-c", f"{pip} somethingnew", user=uid)
    script = "import somethingnew, torch; print(somethingnew.version, torch.__version__)"
    new, torch = one.exec("python", "-c", script, user=uid).stdout.split()
    assert new == "1.0"
    assert torch != "99.0"


def test_the_doctor_inside(container, tmp_path):
    work = own(tmp_path / "work", os.getuid() or SOMEBODY)
    one = container("odkit", "doctor", "--json", options=["--shm-size=64m", "--memory=6g"], work=work)
    status = one.wait(120)
    report = json.loads(one.logs())
    checks = {check["name"]: check for check in report["checks"]}
    assert status == 0, report
    assert checks["packages"]["status"] == "ok"
    assert checks["weights"]["status"] == "ok"
    assert checks["database"]["seen"].startswith("mongod starts at")
    assert checks["work"]["status"] == "ok"
    assert checks["shm"]["status"] == "warning"
    assert "--shm-size=8g" in checks["shm"]["command"]
    assert "(the container's limit)" in checks["memory"]["seen"]


def test_the_image_is_labelled_and_asks_for_a_driver_that_fits():
    done = subprocess.run([*engine(), "image", "inspect", IMAGE], capture_output=True, text=True, check=True)
    config = json.loads(done.stdout)[0]["Config"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "odkit"
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    assert "NVIDIA_VISIBLE_DEVICES" not in environment  # who starts the container says which GPUs it gets
    assert "PYTORCH_ALLOC_CONF" not in environment  # training's own: not every GPU can
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert environment["NVIDIA_REQUIRE_CUDA"] in ("cuda>=13.0", "cuda>=12.0", "")


def test_no_build_tools_and_no_caches_are_left(lab):
    found = lab.exec(
        "sh", "-c", "ls /usr/bin/gcc /usr/bin/cc /root/.cache /var/lib/apt/lists/* 2>/dev/null", check=False
    )
    assert found.stdout == ""
