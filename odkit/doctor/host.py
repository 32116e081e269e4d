"""Checks of the host or container: memory, cores, disks, folders, users, packages."""

import os
import re
import tempfile
from importlib import metadata
from pathlib import Path

from odkit.doctor.report import ESSENTIAL, Check, Status
from odkit.doctor.subject import Subject, cache_folder
from odkit.system import GB, SHM, container_engine, counted, install_command, machine, megabytes, run_line

# -- memory, cores, disks ---------------------------------------------------------------------------------------------


def check_shm(subject: Subject) -> Check | list[Check]:
    """/dev/shm against workers x batch bytes."""
    total, free = machine.shm_total_bytes(), machine.shm_free_bytes()
    if total is None or free is None:
        return Check("shm", "ok", "no /dev/shm on this system; data workers do not need it")
    needed = machine.shm_needed_bytes(subject.num_workers, subject.batch_bytes)
    seen = f"/dev/shm: {megabytes(free)} of {megabytes(total)} free"
    batches = f"{counted(subject.num_workers, 'worker')} with batches of {megabytes(subject.batch_bytes)}"
    need = f"{batches} may need {megabytes(needed)}"
    if needed <= free:
        return Check("shm", "ok", f"{seen}; {need}")
    fitting, _ = machine.workers_that_fit(subject.num_workers, subject.batch_bytes)
    meaning = f"{need}. Training will use {fitting} in place of {subject.num_workers} and may wait for data."
    options = {"shm-size": machine.size_option(max(needed, int(SHM[:-1]) * GB))}
    if container_engine():
        command = run_line(options)
    else:
        options, command = {}, f"sudo mount -o remount,size={machine.size_option(needed).upper()} /dev/shm"
    return Check("shm", "warning", seen, meaning, command, options)


def check_open_files(subject: Subject) -> Check | list[Check]:
    """How many files may be open at once, of which every batch on its way is one."""
    limit, needed = machine.open_files_limit(), machine.open_files_needed(subject.num_workers)
    seen = f"up to {limit:,} files may be open at once"
    need = f"training with {counted(subject.num_workers, 'worker')} may need {needed:,}"
    if limit >= needed:
        return Check("open files", "ok", f"{seen}; {need}")
    options = {"ulimit": "nofile=65536:65536"} if container_engine() in ("docker", "podman") else {}
    return Check(
        "open files",
        "warning",
        seen,
        f"{need[0].upper()}{need[1:]}: data workers would end with 'Too many open files'.",
        run_line(options) if options else "sudo prlimit --pid $$ --nofile=65536:65536",
        options,
    )


def check_memory(_: Subject) -> Check | list[Check]:
    """RAM within the limits of the machine and of the control group."""
    total, free, limit = (
        machine.memory_total_bytes(),
        machine.memory_free_bytes(),
        machine.cgroup_memory_limit(),
    )
    where = "the container's limit" if container_engine() else "the limit of this session"
    seen = f"{megabytes(free)} of {megabytes(total)} free" + (f" ({where})" if limit == total else "")
    if free >= 2 * GB:
        return Check("memory", "ok", seen)
    status: Status = "failure" if free < GB / 2 else "warning"
    meaning = (
        "Training with FiftyOne beside it wants 4 GB; below that the kernel ends the process without a word."
    )
    options: dict[str, str] = {}
    command = "ps -eo pid,rss,comm --sort=-rss | head"
    if limit == total:
        options = {"memory": "8g"}
        command = run_line(options) if container_engine() else "ulimit -v; systemctl --user show -p MemoryMax"
        options = options if container_engine() else {}
    return Check("memory", status, seen, meaning, command, options)


def check_cpu(subject: Subject) -> Check | list[Check]:
    """Cores within affinity and quota."""
    cores, quota = machine.cpu_count(), machine.cpu_quota()
    seen = counted(cores, "core") + (f" (a quota of {quota:g})" if quota is not None else "")
    if cores > subject.num_workers or cores >= 2:
        return Check("cpu", "ok", seen)
    options = {"cpus": "4"} if container_engine() and quota is not None else {}
    return Check(
        "cpu",
        "warning",
        seen,
        f"Training and {counted(subject.num_workers, 'worker')} share one core: images come slowly.",
        run_line(options) if options else "odkit train FOLDER --num-workers 0",
        options,
    )


def check_disk(subject: Subject) -> Check | list[Check]:
    """Room for checkpoints, and for caches and the database."""
    checks = []
    work, caches = subject.work, cache_folder()
    for what, path, command in (
        ("checkpoints", work, f"du -xh --max-depth=2 {work} | sort -h | tail"),
        ("caches", caches, f"du -sh {caches}/*"),
    ):
        free = machine.disk_free_bytes(path)
        seen = f"{megabytes(free)} free for {what} ({path})"
        if free >= 5 * GB:
            checks.append(Check("disk", "ok", seen))
            continue
        checks.append(
            Check(
                "disk",
                "failure" if free < GB / 2 else "warning",
                seen,
                "A checkpoint takes up to 0.7 GB and two are kept; a full disk ends the run at the next one.",
                command,
            )
        )
    return checks


# -- folders and who may write them -----------------------------------------------------------------------------------


def current_user() -> tuple[int, int]:
    """User and group id of this process."""
    return os.getuid(), os.getgid()


def can_write(folder: Path) -> str:
    """Why no file can be made in a folder; "" where one can (it is tried)."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".odkit-"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def unwritable_inside(work: Path) -> list[Path]:
    """What another user left in a work folder, where this one needs to write: notebooks, their folder, the runs'."""
    notebooks, runs = work / "notebooks", work / "runs"
    needed = [notebooks, *sorted(notebooks.glob("*.ipynb")), runs, *sorted(runs.glob("*"))]
    return [path for path in needed if path.exists() and not os.access(path, os.W_OK)]


def owner(path: Path) -> tuple[int, int]:
    """User and group id of the owner of a path."""
    status = path.stat()
    return status.st_uid, status.st_gid


_SELINUX = (
    "On Fedora, RHEL and their kin SELinux keeps containers out of folders that are not labelled for them: the "
    "mount's option z labels it."
)


def check_data(subject: Subject) -> Check | list[Check]:
    """The folder with the images: there, readable, not empty."""
    data = subject.data
    if data is None:
        return Check("data", "ok", "no data folder given; the notebooks bring a demo dataset")
    status: Status = "failure" if subject.data_given else "warning"
    mount = {"-v data": "/path/to/your/data:/data:ro"}
    options = mount if container_engine(ours=True) and data == Path("/data") else {}
    command = run_line(options) if options else f"ls -la {data}"
    if not data.is_dir():
        seen, meaning = (
            f"{data} does not exist",
            "There is nothing to read. The path is wrong, or nothing is mounted there.",
        )
        return Check("data", status, seen, meaning, command, options)
    try:
        with os.scandir(data) as entries:
            empty = next(entries, None) is None
    except OSError as error:
        uid, its_uid = current_user()[0], owner(data)[0]
        if options and uid in (0, its_uid):
            options = {"-v data": "./data:/data:ro,z"}
            meaning, command = f"You own it and are refused. {_SELINUX}", run_line(options)
        else:
            meaning = f"User {uid} may not open it; it belongs to {its_uid}. Grant reading, on the host."
            options, command = {}, f"chmod -R a+rX {'./data' if options else data}"
        return Check("data", "failure", f"{data} cannot be read: {error.strerror}", meaning, command, options)
    if empty and not subject.data_given:
        return Check(
            "data", "ok", f"{data} is empty: nothing is mounted there; the notebooks bring a demo dataset"
        )
    if empty:
        return Check(
            "data", "warning", f"{data} is empty", "It is the wrong folder, or nothing is mounted.", command
        )
    return Check("data", "ok", f"{data} is readable")


def check_work(subject: Subject) -> Check | list[Check]:
    """The folder that runs are written to: writable, and by whom."""
    work = subject.work
    uid, gid = current_user()
    if not work.is_dir():
        parent = machine.existing_parent(work)
        if not can_write(parent):
            return Check("work", "ok", f"{work} will be made (by user {uid})")
        return Check(
            "work",
            "failure",
            f"{work} does not exist, and user {uid} may not make it in {parent}",
            "Runs have no place. Name a folder of your own.",
            "export ODKIT_WORK=~/odkit-work && mkdir -p $ODKIT_WORK",
        )
    reason = can_write(work)
    engine = container_engine(ours=True)
    # in a rootless container root is the person, whose own id it must be on the host
    person = "$(id -u):$(id -g)" if engine and machine.rootless() and not uid else f"{uid}:{gid}"
    hand_over = f"sudo chown -R {person} {'./work' if engine else work}"
    if not reason:
        if left := unwritable_inside(work):
            its_uid, its_gid = owner(left[0])
            return Check(
                "work",
                "failure",
                f"{left[0]} belongs to {its_uid}:{its_gid}; user {uid}:{gid} may not change it"
                + (f" (nor {len(left) - 1} more in {work})" if left[1:] else ""),
                "Another user wrote it, most likely an earlier container's. Take it over (on the host, where this is "
                "a container).",
                hand_over,
            )
        return Check("work", "ok", f"{work} is writable by user {uid}")
    its_uid, its_gid = owner(work)
    seen = f"user {uid}:{gid} cannot write to {work}, which belongs to {its_uid}:{its_gid}: {reason}"
    if "read-only" in reason.lower():
        options = {"-v work": "./work:/work"} if engine else {}
        command = run_line(options) if options else f"findmnt -T {work}"
        meaning = "It is mounted read-only; runs, notebooks and checkpoints need to be written."
    elif engine in ("docker", "podman") and uid == its_uid:
        options = {"-v work": "./work:/work:z"}
        command = f"{run_line(options)}\nchmod u+rwx ./work"
        meaning = (
            f"You own it and are refused. {_SELINUX} Else the folder's mode lacks writing (second command)."
        )
    elif engine and machine.rootless() and not uid:
        options, command = {}, hand_over
        meaning = "You are root in here and yourself on the host, where the folder is another's: take it over there."
    elif engine == "docker" and machine.rootless():
        options, command = {}, run_line({})
        meaning = "In rootless docker you are root in here and yourself on the host: start it without --user."
    elif engine == "podman" and machine.rootless():
        options = {"userns": f"keep-id:uid={uid},gid={gid}"}
        command = run_line(options)
        meaning = (
            "Rootless podman maps you to root in here; keep-id maps you to the container's user instead."
        )
    elif engine == "kubernetes" and not its_uid:
        options = {"fsGroup": str(gid)}
        command = run_line(options)
        meaning = "The volume belongs to root: let Kubernetes give it to the pod's group."
    elif not engine and uid == its_uid:
        options, command = {}, "export ODKIT_WORK=~/odkit-work && mkdir -p $ODKIT_WORK"
        meaning = "It is yours and takes no files all the same, so it is no place for runs. Name another."
    elif engine:
        options = {"user": f"{its_uid}:{its_gid}"} if its_uid else {}
        command = run_line(options) if options else hand_over
        meaning = (
            "Start the container as the folder's owner."
            if options
            else "The folder belongs to root (docker makes missing folders so): hand it over, on the host."
        )
    else:
        options, command = {}, hand_over
        meaning = "Runs cannot be saved there: take the folder over, or name another with --work."
    return Check("work", "failure", seen, meaning, command, options)


def check_user(_: Subject) -> Check | list[Check]:
    """The user and a home that can be written to."""
    uid, gid = current_user()
    home = Path(os.environ.get("HOME") or "/")
    if not home.is_dir() or can_write(home):
        inside = container_engine(ours=True)
        home_option = "[{name: HOME, value: /work/.home}]" if inside == "kubernetes" else "HOME=/work/.home"
        return Check(
            "user",
            "failure",
            f"user {uid}:{gid}, whose home {home} cannot be written to",
            "Jupyter, matplotlib, FiftyOne's database and torch's weights all keep files there.",
            run_line({"env": home_option}) if inside else "export HOME=$(mktemp -d)",
            {"env": home_option} if inside else {},
        )
    if uid == 0 and container_engine(ours=True) and not machine.rootless():
        return Check(
            "user",
            "warning",
            "root",
            "Files written from here belong to root on the host. Give your own ids.",
            run_line(
                {"user": "1000:1000" if container_engine(ours=True) == "kubernetes" else "$(id -u):$(id -g)"}
            ),
        )
    return Check("user", "ok", f"user {uid}:{gid}, home {home}")


# -- packages ---------------------------------------------------------------------------------------------------------


def lock_file() -> Path | None:
    """The list of pinned versions: $ODKIT_LOCK, or requirements.lock beside the package; None where there is none."""
    for path in (os.environ.get("ODKIT_LOCK"), Path(__file__).parents[2] / "requirements.lock"):
        if path and Path(path).is_file():
            return Path(path)
    return None


def installed_version(name: str) -> str:
    """Version of an installed package without its build label; "" where it is not installed."""
    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return ""


def check_packages(_: Subject) -> Check | list[Check]:
    """Installed versions against the lock; a pair of torch and torchvision that do not belong together."""
    lock = lock_file()
    if lock is None:
        return Check("packages", "ok", "no requirements.lock here to compare with")
    pinned = {}
    for line in lock.read_text().splitlines():
        if found := re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)(?![^;]*;)", line):
            pinned[found[1]] = found[2].split("+")[0]
    different = [
        f"{name} {has or 'missing'}, not {want}"
        for name, want in pinned.items()
        # the lock also pins what only developers install
        if (has := installed_version(name)) != want and (has or name in ESSENTIAL)
    ]
    if not different:
        return Check("packages", "ok", "installed packages are as locked")
    shown = "; ".join(different[:5]) + (f"; and {len(different) - 5} more" if len(different) > 5 else "")
    core = any(entry.split()[0] in ESSENTIAL for entry in different)
    return Check(
        "packages",
        "warning",
        shown,
        "Other versions than those that were tested"
        + (", among them one that the rest depends on closely." if core else "; most likely they work too."),
        install_command(f"-r {lock}"),
    )
