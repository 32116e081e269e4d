"""What the container does when it starts.

It becomes the user that /work belongs to, hands out the notebooks, starts JupyterLab, and sees to it that a stop leaves
every training run saved.

    lab [options]   JupyterLab (the default command); options go to it
    anything else   that program, as the same user, in /work

It needs nothing but Python itself.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import resource
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NamedTuple

WORK = Path(os.environ.get("ODKIT_WORK", "/work"))
NOTEBOOKS = Path("/opt/odkit/notebooks")
USER = (1000, 1000)  # the image's own user
STATE = Path("/tmp/odkit-container.json")  # what the health check compares with

CUDA = Path("/opt/odkit/cuda")  # the version that the image's torch was built for, "13.0"; empty without CUDA
DRIVER_FOR_CUDA = {12: 525, 13: 580}  # as in odkit/doctor, which is not imported here: it takes a second

# JupyterLab on loopback is asked directly: a proxy named in the environment neither reaches it nor may see its token,
# and a certificate names another host than 127.0.0.1.
LOOPBACK = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
)


def say(text: str) -> None:
    print(f"odkit: {text}", file=sys.stderr, flush=True)  # a command's output (doctor --json) stays its own


# -- who we are -------------------------------------------------------------------------------------------------------


def rootless(uid_map: str) -> bool:
    """Whether root in here is an ordinary person outside (rootless docker and podman), by /proc/self/uid_map."""
    words = uid_map.split()
    return bool(words) and words[:3] != ["0", "0", "4294967295"]


def target_user(work: Path, *, rootless: bool) -> tuple[int, int]:
    """User and group that own what is written: the owner of /work, so that files belong to whose folder it is.

    A folder of root's is one that docker made because it was missing: it goes to the image's user. Where root is the
    person itself (rootless), root it stays.
    """
    if rootless:
        return 0, 0
    status = work.stat()
    if status.st_uid:
        return status.st_uid, status.st_gid
    if not status.st_mode & stat.S_IWOTH:
        with contextlib.suppress(OSError):  # a file system without owners
            os.chown(work, *USER)
    return USER


def become(uid: int, gid: int) -> None:
    """Give up root for good; groups that were added (--group-add) stay."""
    if os.getuid() != 0 or uid == 0:
        return
    groups = {gid, *(group for group in os.getgroups() if group)}
    try:
        os.setgroups(sorted(groups))
        os.setgid(gid)
        os.setuid(uid)
    except PermissionError:
        raise SystemExit(
            f"odkit: root may not become user {uid} here (capabilities were dropped). "
            f"Start the container as that user: --user {uid}:{gid}"
        ) from None


def writable(folder: Path) -> bool:
    """Whether a file can be made in a folder (tried, because access() does not know every file system)."""
    probe = folder / f".odkit-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def find_home() -> None:
    """A home that can be written to: Jupyter, matplotlib, torch and FiftyOne's database keep files there.

    A volume that another user's container filled first is shared by giving each further user a folder in it.
    """
    home = Path(os.environ.get("HOME", "/"))
    if home.is_dir() and writable(home):
        foreign = next((f for f in home.glob(".*") if f.is_dir() and not writable(f)), None)
        if foreign is None:
            return
        chosen = home / f"user-{os.getuid()}"
        why = f"{foreign} belongs to another user or is read-only; HOME is {chosen}"
    else:
        chosen = Path(f"/tmp/home-{os.getuid()}")
        why = f"{home} cannot be written to; HOME is {chosen}, which does not outlive the container"
    try:
        chosen.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SystemExit(
            f"odkit: {why}, but {error.strerror}: start the container with --tmpfs /tmp"
        ) from None
    say(why)
    os.environ["HOME"] = str(chosen)


def set_token() -> None:
    """Take the token from JUPYTER_TOKEN, or from the file that JUPYTER_TOKEN_FILE names (a mounted secret).

    Jupyter takes an empty one for "no token asked for", and a line break at the end for a part of it. Here an empty one
    is none, so that Jupyter makes one up.
    """
    token, file = os.environ.pop("JUPYTER_TOKEN", "").strip(), os.environ.pop("JUPYTER_TOKEN_FILE", "")
    if file and not token:
        try:
            token = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SystemExit(f"odkit: JUPYTER_TOKEN_FILE={file} cannot be read: {error}") from None
    if token:
        os.environ["JUPYTER_TOKEN"] = token


# -- the machine ------------------------------------------------------------------------------------------------------


def driver_cuda(library: str = "libcuda.so.1") -> int | None:
    """Newest major version of CUDA that the driver serves; None where no driver was handed in."""
    version = ctypes.c_int(0)
    try:
        failed = ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed else version.value // 1000


def driver_trouble(built_for: str, served: int | None) -> str:
    """Why the GPU that was handed in cannot be used by the image's torch; "" where it can, or where there is none.

    Engines that hand GPUs in by CDI do not look at NVIDIA_REQUIRE_CUDA. Only said, not refused: looking at data needs
    no GPU, and training refuses by itself.
    """
    wanted = int(built_for.split(".")[0] or 0)
    if served is None or served >= wanted:
        return ""
    driver = DRIVER_FOR_CUDA.get(wanted, "a newer one")
    older = " Or build the image for it: make image CUDA=126" if served == 12 else ""
    return (
        f"THE GPU CANNOT BE USED: its driver on the host serves CUDA {served}, this image has CUDA {built_for}. "
        f"Install NVIDIA driver {driver} or newer on the host.{older}"
    )


def raise_open_files() -> None:
    """As many open files as may be: engines of today start with 1,024, and data workers want more.

    Not beyond a million: some programs walk through all that they might have open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2**20 if hard == resource.RLIM_INFINITY else min(hard, 2**20)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


# -- the notebooks ----------------------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def seed(source: Path, folder: Path) -> list[str]:
    """Put the image's notebooks into a person's folder, never over what the person changed.

    A notebook that is missing is put there. One that is as some earlier image put it is renewed. One that was changed
    stays, and a newer version is put beside it, once.

    Returns:
        What was done, a sentence each.
    """
    record = folder / ".odkit" / "seeded.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    try:
        given: dict[str, list[str]] = json.loads(record.read_text())
    except (OSError, ValueError):
        given = {}
    done = []
    for notebook in sorted(source.glob("*.ipynb")):
        name, new = notebook.name, digest(notebook)
        place = folder / name
        before = given.get(name, [])
        if place.exists() and digest(place) not in (new, *before):
            beside = folder / f"{notebook.stem}.new.ipynb"
            if before and before[-1] != new and not (beside.exists() and digest(beside) == new):
                if not beside.exists() or digest(beside) in before:
                    shutil.copyfile(notebook, beside)
                    done.append(f"{name} is yours and stays; the newer version is {beside.name}")
                else:
                    done.append(
                        f"{name} and {beside.name} are yours and stay; delete one to get the newer version"
                    )
        elif not place.exists() or digest(place) != new:
            shutil.copyfile(notebook, place)
            if before:
                done.append(f"{name} was as it came; it is the newer version now")
        given[name] = [*(d for d in before if d != new), new]
    temporary = record.with_suffix(".tmp")
    temporary.write_text(json.dumps(given, indent=1))
    temporary.replace(record)
    return done


def hand_out(source: Path, folder: Path) -> None:
    """`seed`, said aloud; where another user owns what is there, JupyterLab starts all the same."""
    try:
        for sentence in seed(source, folder):
            say(sentence)
    except OSError as error:
        say(
            f"the notebooks could not be put into {folder}: {error.strerror}: {error.filename} (see 'work' below)"
        )


# -- processes --------------------------------------------------------------------------------------------------------


class Process(NamedTuple):
    """A line of /proc/*/stat, as far as it matters here."""

    parent: int
    session: int
    terminal: int  # 0: none


def processes() -> dict[int, Process]:
    """Every process that can be seen, by its id; not those that have ended."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(entry.name)] = Process(int(fields[1]), int(fields[3]), int(fields[4]))
    return found


def session_leaders(ancestor: int) -> list[int]:
    """Descendants of a process that lead a session: training workers, the database, kernels.

    Their own children (data workers above all) get no signal from here: a trainer that is told to stop still needs
    them to finish its step. What came in by `docker exec` descends from nobody in here; below the container's first
    process it counts all the same.
    """
    table = processes()
    family = {ancestor}
    if 1 in (ancestor, table[ancestor].parent if ancestor in table else 0):
        family |= {pid for pid, process in table.items() if process.parent == 0 and pid != 1}
    while True:
        more = {pid for pid, process in table.items() if process.parent in family} - family
        if not more:
            break
        family |= more
    return sorted(pid for pid in family - {ancestor, os.getpid()} if table[pid].session == pid)


def signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_all(ancestor: int, *, seconds: float = 600.0) -> None:
    """Ask every session below a process to end, and wait until all have (a training run has to save itself)."""
    signal_all(session_leaders(ancestor), signal.SIGTERM)
    table = processes()
    # an interactive shell does not mind SIGTERM; a terminal that hangs up ends it
    shells = [pid for pid in session_leaders(ancestor) if pid in table and table[pid].terminal]
    signal_all(shells, signal.SIGHUP)
    deadline = time.monotonic() + seconds
    while session_leaders(ancestor) and time.monotonic() < deadline:
        time.sleep(0.1)


def supervise(command: list[str], *, lab: bool) -> int:
    """Run a command; pass a stop on; leave when it, and every training run it started, has ended.

    tini is our parent and adopts what is orphaned, so that all of this container's processes descend from it, however
    the container was started.
    """
    interactive = sys.stdin.isatty() and not lab  # a shell must keep the terminal
    try:
        child = subprocess.Popen(command, start_new_session=not interactive)
    except OSError as error:
        say(f"cannot run {command[0]!r}: {error.strerror}")
        return 127
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and interactive:
            return  # the terminal has told the child already
        first = not stopping.is_set()
        stopping.set()
        signal_all([child.pid], number if not lab else signal.SIGTERM)
        if lab and first:
            signal_all([pid for pid in session_leaders(os.getppid()) if pid != child.pid], signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    if lab:
        threading.Thread(target=announce, args=(child.pid, stopping.is_set), daemon=True).start()
    status = child.wait()
    end_all(os.getppid())  # what a headless command left behind; asking twice does no harm
    return 128 - status if status < 0 else status


# -- JupyterLab -------------------------------------------------------------------------------------------------------


def jupyter_command(options: list[str]) -> list[str]:
    """JupyterLab, or JupyterHub's single-user server where a hub has started this container."""
    root = (
        ["--ServerApp.allow_root=True"] if os.getuid() == 0 else []
    )  # only where root is the person (rootless)
    if os.environ.get("JUPYTERHUB_API_TOKEN"):
        program = shutil.which("jupyterhub-singleuser")
        if program is None:
            raise SystemExit(
                "odkit: JupyterHub started this container, which lacks the hub's own server. Build on top of it, with "
                "the hub's version:\n  FROM odkit\n  RUN /opt/venv/bin/pip install jupyterhub==VERSION"
            )
        return [program, *root, *options]
    return ["jupyter", "lab", *root, *options]


def server_file(pid: int) -> Path:
    """Where the Jupyter server of this process id writes its address and its token."""
    folder = os.environ.get("JUPYTER_RUNTIME_DIR") or Path(os.environ["HOME"], ".local/share/jupyter/runtime")
    return Path(folder) / f"jpserver-{pid}.json"


def server_info(pid: int) -> dict[str, object] | None:
    """What the Jupyter server of this process id wrote about itself; None before it has."""
    try:
        info: dict[str, object] = json.loads(server_file(pid).read_text())
    except (OSError, ValueError):
        return None
    return info


def announce(pid: int, stopped: Callable[[], bool]) -> None:
    """Wait until JupyterLab answers, print the link to open, then what the doctor finds."""
    started = time.monotonic()
    while not stopped():
        info = server_info(pid)
        if info and answers(info):
            break
        time.sleep(0.1)
    else:
        return
    path = f"{info['base_url']}lab/tree/notebooks/00_start_here.ipynb"
    path += f"?token={info['token']}" if info["token"] else ""
    link = f"{address(info)}{path}"
    say(f"ready after {time.monotonic() - started:.1f} s. Open\n\n    {link}\n")
    say("(published on another port, or behind a proxy: the same path on that address)")
    note({"server": str(server_file(pid)), "gpus": count_gpus()})
    say(f"the doctor says:\n\n{ask_doctor('')}")


def note(state: dict[str, object]) -> None:
    """Write down what the health check asks about."""
    try:
        STATE.write_text(json.dumps(state))
    except OSError as error:
        say(
            f"the health check will not work ({STATE}: {error.strerror}): start the container with --tmpfs /tmp"
        )


def address(info: dict[str, object]) -> str:
    return f"{'https' if info['secure'] else 'http'}://127.0.0.1:{info['port']}"


def answers(info: dict[str, object]) -> bool:
    """Whether the Jupyter server takes requests (asked for what it tells anybody)."""
    try:
        with LOOPBACK.open(f"{address(info)}{info['base_url']}api", timeout=2) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


def count_gpus() -> int:
    """GPUs that the driver lists now; 0 without a driver."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if not listed.returncode else 0


def ask_doctor(only: str) -> str:
    """What is wrong with this machine, with the commands that mend it; of one check, or of all."""
    script = (
        f"from odkit.doctor import check; print(check(only={only.split()!r}).to_text(problems_only=True))"
    )
    # -P: a file of the person's called torch.py must not be taken for torch
    found = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    return found.stdout or found.stderr


def main(arguments: list[str]) -> int:
    if arguments[:1] != ["--become"]:
        # an earlier start's, perhaps another user's: while we are still root
        with contextlib.suppress(OSError):
            STATE.unlink(missing_ok=True)
    if os.getuid() == 0:
        become(*target_user(WORK, rootless=rootless(Path("/proc/self/uid_map").read_text())))
    find_home()
    raise_open_files()
    if arguments[:1] == ["--become"]:
        os.execvp(arguments[1], arguments[1:])
    if trouble := driver_trouble(CUDA.read_text().strip() if CUDA.exists() else "", driver_cuda()):
        say(trouble)
    named = arguments[:1] in (["lab"], ["jupyterhub-singleuser"])  # the second is what a hub asks for by name
    options = arguments[1:] if named else arguments
    if not named and options and not options[0].startswith("-"):
        note({"gpus": count_gpus()})
        return supervise(arguments, lab=False)
    if not writable(WORK):
        say(f"nothing can be saved in {WORK}, so JupyterLab is not started:\n\n{ask_doctor('work')}")
        return 1
    hand_out(NOTEBOOKS, WORK / "notebooks")
    set_token()
    return supervise(jupyter_command(options), lab=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
