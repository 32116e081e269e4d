"""How long odkit takes before it speaks: each command in fresh processes, the best of several after one that warms up.

    python bench/start.py

Limits stand alone where nothing is comparable; `import torch, torchvision` stands beside odkit's detectors, which need
both. What Python itself takes to start is taken off `import odkit` alone, and printed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import row

PROJECT = Path(__file__).parents[1]
COMMANDS = (  # what is typed, and the seconds it may take
    (["--help"], 0.3),
    (["runs"], 0.25),
    (["doctor"], 4.0),
    (["--version"], None),
    (["train", "--help"], None),
    (["detectors"], None),
)


def seconds(command: list[str], folder: str, times: int) -> float:
    """The quickest of several starts of a command, in seconds; of a slow one fewer, so that all is over in a minute."""
    # as people have it: modules compiled at their first import stay so
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(PROJECT)
    taken = []
    while len(taken) <= times:
        started = time.perf_counter()
        done = subprocess.run(
            command, check=False, cwd=folder, env=environment, capture_output=True, text=True
        )
        taken.append(time.perf_counter() - started)
        if done.returncode not in (0, 1) or "Traceback" in done.stderr:  # 1: what the doctor finds
            raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
        if len(taken) > 1 and sum(taken) > 5:
            break
    return min(taken[1:])


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    flags.add_argument("--times", type=int, default=3, help="starts of each command that are timed")
    times = flags.parse_args().times
    with tempfile.TemporaryDirectory() as folder:

        def python(code: str, times: int = times) -> float:
            return seconds([sys.executable, "-c", code], folder, times)

        bare = python("pass", 2 * times)
        row("Python alone", bare)
        row("import odkit, beyond Python's own start", python("import odkit", 2 * times) - bare, wanted=0.03)
        for arguments, limit in COMMANDS:
            taken = seconds([sys.executable, "-m", "odkit", *arguments], folder, times)
            row(f"odkit {' '.join(arguments)}", taken, wanted=limit)
        row(
            "a detector at hand: od.load_detector",
            python("import odkit; odkit.load_detector"),
            python("import torch, torchvision"),
            beside="import torch, torchvision",
        )
        row("a list of runs at hand: od.list_runs", python("import odkit; odkit.list_runs"))


if __name__ == "__main__":
    main()
