"""Twenty dashboards on one run, and five runs at once: what the looking costs the worker.

python bench/dashboards.py [--dashboards 20] [--runs 1] [--windows 3] [--seconds 40]

A real JupyterLab with a kernel for each dashboard, each in `run.wait()` as a cell has it, its messages read through the
server's own WebSockets as a browser does. The run trains on the demo on the CPU. Windows with the dashboards and
without take turns (their kernels are stopped by SIGSTOP meanwhile, so that nothing is started anew in between); a
step's time is the median over each window's steps, by the events' own times, and the windows of a kind are averaged.
With --runs 5, five runs train at once and the dashboards watch the first.
"""

import argparse
import itertools
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import websocket
from rows import row

import odkit as od

LIMIT = 3.0  # percent


class Lab:
    """A JupyterLab on a port of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.token = secrets.token_hex(16)
        options = ["--ServerApp.open_browser=False", "--ServerApp.ip=127.0.0.1", "--allow-root"]
        options += [f"--ServerApp.port={self.port}", f"--IdentityProvider.token={self.token}"]
        with (folder / "lab.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyter", "lab", *options, f"--ServerApp.root_dir={folder}"],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        for _ in range(600):
            try:
                self.ask("api")
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit((folder / "lab.log").read_text())

    def ask(self, path: str, data: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}", json.dumps(data).encode() if data is not None else None
        )
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "null")


class Watcher:
    """A kernel that shows a run, and who reads what it sends."""

    def __init__(self, lab: Lab, run: Path) -> None:
        self.kernel = lab.ask("api/kernels", {"name": "python3"})["id"]
        self.messages = self.bytes = 0
        self.socket = websocket.create_connection(
            f"ws://127.0.0.1:{lab.port}/api/kernels/{self.kernel}/channels?token={lab.token}", timeout=60
        )
        code = (
            f"import odkit as od, os; print('PID', os.getpid(), flush=True); od.open_run({str(run)!r}).wait()"
        )
        self.pid = 0
        self.charts = False
        self._send(
            "execute_request", {"code": code, "silent": False, "store_history": False, "user_expressions": {}}
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _send(self, kind: str, content: dict[str, Any]) -> None:
        header = {"msg_id": uuid.uuid4().hex, "username": "", "session": uuid.uuid4().hex, "msg_type": kind}
        header |= {"version": "5.3", "date": "2026-01-01T00:00:00Z"}
        message = {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
        }
        self.socket.send(json.dumps({**message, "buffers": []}))

    def _read(self) -> None:
        self.socket.settimeout(None)
        while True:
            try:
                text = self.socket.recv()
            except (OSError, websocket.WebSocketException):
                return
            self.messages += 1
            self.bytes += len(text)
            if not self.pid and b"PID" in (text.encode() if isinstance(text, str) else text):
                shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
                found = shown.partition("PID ")[2].split("\\n")[0].strip()
                self.pid = int(found) if found.isdigit() else 0
            self.charts |= (b"<svg" if isinstance(text, bytes) else "<svg") in text


def step_seconds(run: Any, begin: float, end: float) -> list[float]:
    """The time between steps that follow each other within an epoch, of those that ended in a window."""
    steps = [event for event in run.events(only=("step",)) if begin <= event["time"] <= end]
    pairs = itertools.pairwise(steps)
    return [
        b["time"] - a["time"] for a, b in pairs if b["epoch"] == a["epoch"] and b["step"] == a["step"] + 1
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dashboards", type=int, default=20)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="odkit-dashboards-") as place:
        folder = Path(place)
        runs = [
            od.fine_tune(
                od.demo_dataset(),
                folder=folder / "runs",
                name=f"run-{number}",
                wait=False,
                seed=number,
                epochs=200,
                batch_size=4,
                image_size=320,
                device="cpu",
            )
            for number in range(given.runs)
        ]
        lab = Lab(folder)
        try:
            watchers = [Watcher(lab, runs[0].path) for _ in range(given.dashboards)]
            deadline = time.monotonic() + 300
            while not all(one.pid and one.charts for one in watchers):
                assert time.monotonic() < deadline, [(one.pid, one.messages) for one in watchers]
                assert all(run.alive for run in runs)
                time.sleep(0.5)
            processes = [psutil.Process(one.pid) for one in watchers]
            seconds: dict[bool, list[float]] = {True: [], False: []}
            used: list[float] = []
            for window in range(2 * given.windows):
                looking = window % 2 == 0
                for process in processes:
                    process.send_signal(signal.SIGCONT if looking else signal.SIGSTOP)
                time.sleep(3)  # those that go on catch up
                before, begin = sum(sum(one.cpu_times()[:2]) for one in processes), time.time()
                time.sleep(given.seconds)
                if looking:
                    spent = sum(sum(one.cpu_times()[:2]) for one in processes) - before
                    used.append(spent / (time.time() - begin) / len(processes))
                found = step_seconds(runs[0], begin, time.time())
                seconds[looking].append(statistics.median(found))
                kind, each = "with" if looking else "without", seconds[looking][-1] * 1000
                print(f"{kind}: {each:.1f} ms, {len(found)} steps", flush=True)
            for process in processes:
                process.send_signal(signal.SIGCONT)
            with_, without = (statistics.mean(seconds[looking]) for looking in (True, False))
            spread = float(np.std([a / b for a, b in zip(seconds[True], seconds[False], strict=True)]) * 100)
            row(
                f"{given.dashboards} dashboards on one of {given.runs} runs: the worker's step grows by",
                (with_ / without - 1) * 100,
                unit="%",
                wanted=LIMIT,
                note=f"{without * 1000:.0f} ms to {with_ * 1000:.0f} ms, pairs of windows differ by {spread:.1f} %; "
                f"a dashboard takes {np.mean(used):.2%} of a core; {os.cpu_count()} cores",
            )
        finally:
            lab.process.terminate()
            for run in runs:
                run.stop(timeout=120)
            lab.process.wait(60)


if __name__ == "__main__":
    main()
