"""A process that has odkit loaded and forks itself for each command, bounded in time and memory.

A command of root's is held to permissions like anybody's.

python -m tests.hostile.zygote [--torch]

A request is a line of JSON on stdin, the answer one on stdout; trial.py has both.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer requests until stdin ends."""
    import numpy as np  # noqa: F401
    import PIL.Image

    PIL.Image.init()
    import odkit.data.audit
    import odkit.data.formats
    import odkit.data.formats.results
    from odkit.cli import main as command

    # what a command would load for itself, half of its time: tyro's and tqdm's parts, and Pillow's for GIFs
    for name in (
        "asyncio",
        "multiprocessing.synchronize",
        "numpy.ma",
        "tqdm.std",
        "typeguard",
        "unittest.mock",
    ):
        importlib.import_module(name)
    _ = odkit.data.audit.audit, odkit.data.formats.load_dataset, odkit.data.formats.write_dataset
    if "--torch" in sys.argv:
        import torch  # noqa: F401

        import odkit.analysis.figures
        import odkit.detection
        import odkit.runs.export

        _ = odkit.detection.load_detector, odkit.detection.Detector, odkit.analysis.evaluate
    with open(os.devnull, "w") as nobody, redirect_stdout(nobody), redirect_stderr(nobody):
        for name in ("audit", "predict"):  # what reads a line is loaded by the first that is read
            command([name, f"{os.devnull}/nothing", "nothing"][: 2 + (name == "predict")])
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run one command in a fork; what became of it.

    Args:
        request: "args", or "shell" for a line of one; "folder" (where it runs), "out" and "err" (files for its output),
            "seconds", "megabytes".
    """
    begin = time.monotonic()
    child = os.fork()
    if not child:
        _run(request)
    ended = 0
    late = False
    while not ended:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if not ended:
            if time.monotonic() - begin > request["seconds"] and not late:
                late = True
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.002)
    left = _left_in(child)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - begin,
        "megabytes": usage.ru_maxrss / (1 if sys.platform == "darwin" else 1024),
        "late": late,
        "left": left,
    }


def _left_in(group: int) -> bool:
    """Whether a process of the command outlives it; it is killed."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _obey_permissions() -> None:
    """Give up what lets root on Linux read and write by permissions, so that these hold as for everybody."""
    if sys.platform == "linux" and os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        head, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # version 3, this process
        if libc.capget(head, sets):
            raise OSError(ctypes.get_errno(), "capget")
        for k in range(3):  # effective, permitted, inheritable
            sets[k] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if libc.capset(head, sets):
            raise OSError(ctypes.get_errno(), "capset")


def _run(request: dict[str, Any]) -> None:
    status = 70
    try:
        os.setsid()
        os.chdir(request["folder"])
        for number, path in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
        sys.stdout = open(1, "w", encoding="utf-8", errors="strict", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        # what is mapped already counts; a command that wants far more than it may keep ends with MemoryError
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = mapped + 3 * request["megabytes"] * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))  # a copy without end
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _obey_permissions()
        if "shell" in request:
            os.execv("/bin/bash", ["bash", "-c", request["shell"]])
        status = _status(request["args"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _status(args: list[str]) -> int:
    import traceback

    import odkit
    from odkit.cli import main
    from odkit.system import OdkitError

    try:
        if args[0] == "load":
            try:
                print(odkit.load_dataset(args[1]))
            except (OdkitError, OSError) as error:
                print(f"odkit: {error}", file=sys.stderr)
                return 1
            return 0
        sys.argv = ["odkit", *args]
        return main(args)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 99


if __name__ == "__main__":
    main()
