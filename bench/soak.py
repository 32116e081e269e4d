"""An hour of start, stop, kill, resume, evaluate, export and browse in a loop: is anything left, lost or growing?

python bench/soak.py [MINUTES] [--seed 0] [--out FOLDER]        # make soak

One process stays for the whole time, as a notebook's kernel does, and in each round

- starts a run and, at a step drawn by chance, stops it (now, after the epoch), interrupts or kills its worker or one of
  its data workers, perhaps again while it goes on, and resumes until it is finished;
- holds its detector against that of the same run that nobody disturbed: the same bytes, whatever happened to it;
- judges it, tests it, reads its report, lists and checks all runs; every third time exports it;
- browses the data in FiftyOne from here, and from a second process that then ends, is interrupted or is killed;
- removes what is older than a few runs.

After each round nothing may be left: no process but those that a kernel keeps, no unfinished file, no torn event, no
checkpoint that cannot be read, no dataset in the database that is not this kernel's. Memory, open files, threads and
the sizes of folders are noted, and what they grow by from round to round is the slope of a straight line, with its
standard error. At the end the process is gone, and the database with it. soak.json and soak.svg are written to --out.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
from memory import slope

MARK = "ODKIT_SOAK"  # in the environment of every process that the soak starts
WARM = 0.2  # of the rounds: caches fill, and the allocator finds its size
HARMS = ("nothing", "stop", "stop after the epoch", "SIGTERM", "SIGINT", "SIGKILL", "data worker killed")
BROWSING = """
import signal, sys, time
import odkit as od
browser = od.browse(od.Dataset.load(sys.argv[1]))
assert len(browser.view) == int(sys.argv[2])
print("browsed", flush=True)
time.sleep(60 if sys.argv[3] != "nothing" else 0)
"""
SETTINGS = {
    "epochs": 3,
    "image_size": 96,
    "batch_size": 4,
    "num_workers": 1,
    "device": "cpu",
    "augment": "strong",
}
LIMITS = {
    "memory of this process": 0.5,
    "memory of the database": 1.0,
    "memory of a worker": 0.5,
}  # MB a round


def ours() -> list[psutil.Process]:
    """Every process that the soak started, itself left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == os.environ[MARK]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(true: Any, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds:g} s not: {what}")
        time.sleep(0.02)


class Soak:
    """The one process that stays, and what it has seen."""

    def __init__(self, place: Path, seed: int) -> None:
        import odkit as od

        self.od, self.place, self.chance = od, place, random.Random(seed)
        self.dataset = od.demo_dataset(24, folder=place / "demo").with_splits(val=0.25, test=0.2)
        self.saved = self.dataset.save(place / "demo.npz")
        self.rounds: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self.counts = dict.fromkeys((*HARMS, "resumes", "exports", "browsed here", "browsed elsewhere"), 0)
        undisturbed = self.start("undisturbed")
        undisturbed.wait(show=False)
        self.expected = undisturbed.detector_file().read_bytes()

    def start(self, name: str) -> Any:
        return self.od.fine_tune(
            self.dataset, folder=self.place / "runs", name=name, wait=False, seed=0, **SETTINGS
        )

    # -- a round -----------------------------------------------------------------------------------------------------

    def round(self, number: int) -> None:
        run = self.start(f"round-{number:03}")
        harms = []
        while True:
            harm = self.chance.choice(HARMS)
            harms.append(harm)
            self.counts[harm] += 1
            self.harm(run, harm)
            self.check_folder(run)
            if run.state == "finished":
                break
            assert run.state in ("stopped", "died", "failed"), run.state
            if (
                not run.checkpoints()
            ):  # it ended before its first step was saved: begun anew under another name
                run.delete()
                run = self.start(run.name)
            else:
                run.resume(wait=False)
                self.counts["resumes"] += 1
            if len(harms) == 3:
                run.wait(show=False)
                break
        self.check_folder(run)
        if run.detector_file().read_bytes() != self.expected:
            self.fault(f"{run.name} has another detector than the undisturbed run, after {', '.join(harms)}")
        self.look_at(run, number)
        self.browse(number)
        for old in self.od.list_runs(self.place / "runs"):
            if old.name != "undisturbed" and old.name < f"round-{number - 2:03}":
                old.delete()
        self.check_processes()
        self.note(run, number, harms)

    def harm(self, run: Any, harm: str) -> None:
        """Let the run come to a step drawn by chance, do it harm, and wait until its worker has ended."""
        step = run.last_event.get("step", 0) + self.chance.randint(0, 6)
        until(
            lambda: not run.alive or run.last_event.get("step", -1) >= step, 120, f"step {step} of {run.name}"
        )
        workers = [one for one in ours() if str(run.path) in self.line(one) and "odkit" in self.line(one)]
        if harm == "stop":
            run.stop(timeout=60)
        elif harm == "stop after the epoch":
            run.stop("epoch", timeout=120)
        elif harm.startswith("SIG"):
            for worker in workers[:1]:
                self.send(worker, getattr(signal, harm))
        elif harm == "data worker killed":
            for worker in [one for one in workers if one.parent() in workers][:1]:
                self.send(worker, signal.SIGKILL)
        until(lambda: not run.alive, 180, f"an end of {run.name} after {harm}")

    @staticmethod
    def line(process: psutil.Process) -> str:
        try:
            return " ".join(process.cmdline())
        except psutil.Error:
            return ""

    @staticmethod
    def send(process: psutil.Process, number: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)

    def look_at(self, run: Any, number: int) -> None:
        evaluation = run.evaluation()
        again = self.od.evaluate(run.dataset("val"), run.detector().predict(run.dataset("val")))
        if abs(evaluation.ap - again.ap) > 1e-6:
            self.fault(f"{run.name}: AP {evaluation.ap} in its folder, {again.ap} when judged again")
        run.test()
        if not (run.path / "report.html").stat().st_size:
            self.fault(f"{run.name} has an empty report")
        for args in (
            ["runs", str(run.path.parent), "--json"],
            ["show", str(run.path)],
            ["audit", str(self.saved)],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "odkit", *args],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            if done.returncode or "Traceback" in done.stderr:
                self.fault(f"odkit {args[0]} ends with {done.returncode}: {done.stderr[-500:]}")
        if number % 3 == 0:
            made = self.od.export(run, self.place / "exported")
            self.counts["exports"] += 1
            assert any(Path(self.place / "exported").glob("*.onnx")), made
            shutil.rmtree(self.place / "exported")

    def browse(self, number: int) -> None:
        browser = self.od.browse(self.dataset)
        assert len(browser.view) == len(self.dataset)
        self.counts["browsed here"] += 1
        end = self.chance.choice(("nothing", "SIGINT", "SIGKILL"))
        other = subprocess.Popen(
            [sys.executable, "-c", BROWSING, str(self.saved), str(len(self.dataset)), end],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert other.stdout
        said = other.stdout.readline()
        if end != "nothing":
            other.send_signal(getattr(signal, end))
        _, errors = other.communicate(timeout=120)
        if said != "browsed\n":
            self.fault(f"a second process could not browse: {errors[-500:]}")
        self.counts["browsed elsewhere"] += 1

    # -- what must hold ----------------------------------------------------------------------------------------------

    def fault(self, text: str) -> None:
        print(f"FAULT: {text}", flush=True)
        self.faults.append(text)

    def check_folder(self, run: Any) -> None:
        """A run that has ended, however it did: all of it can be read, and nothing unfinished lies in it."""
        import torch

        for file in run.checkpoints():
            torch.load(file, weights_only=True)
        lines = (
            (run.path / "events.jsonl").read_bytes().split(b"\n")
            if (run.path / "events.jsonl").exists()
            else []
        )
        torn = 0
        for line in lines[:-1]:
            try:
                orjson.loads(line)
            except orjson.JSONDecodeError:
                torn += 1
        if torn:  # a killed worker may leave half a line, which the next one ends
            self.counts["torn lines"] = self.counts.get("torn lines", 0) + torn
        run.summary()
        if run.state == "finished":
            rows = [row["epoch"] for row in run.history()]
            if rows != list(range(1, SETTINGS["epochs"] + 1)):
                self.fault(f"{run.name} is finished with the epochs {rows}")
            left = [str(path.relative_to(run.path)) for path in run.path.rglob("*.tmp")]
            if left:
                self.fault(f"{run.name} is finished, and {left} is left in it")

    def check_processes(self) -> None:
        """What a kernel keeps is the database and its keeper; pytorch's own resource tracker stays as well."""
        kept = ("odkit.browsing.services", "mongod", "resource_tracker", "forkserver")

        def strangers() -> list[str]:
            return [
                line for line in map(self.line, ours()) if line and not any(word in line for word in kept)
            ]

        try:
            until(lambda: not strangers(), 20, "only what a kernel keeps")
        except AssertionError:
            self.fault(f"processes are left: {strangers()}")

    def note(self, run: Any, number: int, harms: list[str]) -> None:
        import fiftyone as fo

        mongods = [one for one in ours() if "mongod" in self.line(one)[:200].split(" ")[0]]
        if len(mongods) != 1:
            self.fault(f"{len(mongods)} databases run")
        me = psutil.Process()
        steps = run.events(only=("step",))
        self.rounds.append(
            {
                "round": number,
                "seconds": round(time.monotonic() - BEGAN),
                "harms": harms,
                "memory of this process": me.memory_info().rss / 1e6,
                "memory of the database": sum(one.memory_info().rss for one in mongods) / 1e6,
                "memory of a worker": max(event["memory"] for event in steps) / 1e6,
                "open files": me.num_fds() if hasattr(me, "num_fds") else 0,
                "threads": me.num_threads(),
                "datasets in the database": len(fo.list_datasets()),
                "shared memory": len(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else 0,
                "temporary files": sum("odkit" in name for name in os.listdir(tempfile.gettempdir())),
            }
        )
        shown = {key: round(value) for key, value in self.rounds[-1].items() if isinstance(value, float)}
        print(f"round {number}, {self.rounds[-1]['seconds']} s: {', '.join(harms)}; {shown}", flush=True)


def growth(rounds: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each figure: at the first round that is warm, at the end, and what a round adds."""
    warm = rounds[int(len(rounds) * WARM) :]
    found = {}
    for key in [key for key, value in rounds[0].items() if isinstance(value, int | float)][2:]:
        values = np.array([one[key] for one in warm], float)
        steep, error = slope(values) if len(values) > 2 else (0.0, 0.0)
        found[key] = {"first": values[0], "last": values[-1], "a round": steep, "error": error}
    return {key: {name: round(value, 4) for name, value in one.items()} for key, one in found.items()}


def picture(rounds: list[dict[str, Any]], path: Path) -> None:
    """Memory over the time, as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "odkit"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for key in LIMITS:
        minutes = [one["seconds"] / 60 for one in rounds]
        axes.plot(minutes, [one[key] for one in rounds], marker=".", linewidth=1.2, label=key)
    axes.set(
        xlabel="minutes",
        ylabel="MB",
        ylim=(0, None),
        title="Memory through start, stop, kill, resume, browse",
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc=(0.4, 0.28))
    figure.savefig(path, metadata={"Date": None})


def work(minutes: float, seed: int, place: Path, out: Path) -> None:
    """The rounds, in the process that stays."""
    soak = Soak(place, seed)
    number = 0
    while time.monotonic() - BEGAN < minutes * 60:
        number += 1
        try:
            soak.round(number)
        except Exception:
            soak.fault(f"round {number}: {traceback.format_exc()[-1500:]}")
            if len(soak.faults) > 10:
                break
        result = {
            "minutes": round((time.monotonic() - BEGAN) / 60, 1),
            "rounds": number,
            "counts": soak.counts,
            "faults": soak.faults,
            "growth": growth(soak.rounds) if soak.rounds else {},
            "samples": soak.rounds,
        }
        (out / "soak.json").write_text(json.dumps(result, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("minutes", nargs="?", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs")
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.place:
        work(given.minutes, given.seed, given.place, given.out)
        return 0
    with tempfile.TemporaryDirectory(prefix="odkit-soak-") as place:
        (Path(place) / "tmp").mkdir()
        os.environ |= {
            MARK: place,
            "FIFTYONE_DATABASE_DIR": f"{place}/database",
            "ODKIT_CACHE": f"{place}/cache",
            "XDG_DATA_HOME": f"{place}/data",
            "TMPDIR": f"{place}/tmp",
            "FIFTYONE_DO_NOT_TRACK": "1",
        }
        os.environ.pop("FIFTYONE_DATABASE_URI", None)
        command = [sys.executable, *sys.argv, "--place", place]
        status = subprocess.run(command, check=False).returncode
        result = json.loads((given.out / "soak.json").read_text())
        try:
            until(lambda: not ours(), 60, "no process")
        except AssertionError:
            result["faults"].append(f"at the end these are left: {[Soak.line(one) for one in ours()]}")
        if status:
            result["faults"].append(f"the process that stays ended with {status}")
    picture(result["samples"], given.out / "soak.svg")
    for key, limit in LIMITS.items():
        grown = result["growth"][key]
        if grown["a round"] - 2 * grown["error"] > limit:
            result["faults"].append(f"{key} grows by {grown['a round']:.2f} MB a round")
    (given.out / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "samples"}, indent=1))
    print(f"{result['rounds']} rounds in {result['minutes']} minutes, {len(result['faults'])} faults")
    return bool(result["faults"])


BEGAN = time.monotonic()
if __name__ == "__main__":
    sys.exit(main())
