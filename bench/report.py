"""Runs the benchmarks, one after the other, and puts what they say into a table and a picture.

    python bench/report.py [NAME ...] [--minutes 8]        # make bench, make bench BENCH="loading reading"

Without a NAME all of ORDER; a NAME alone takes the place of that part in what was measured before on this machine.
Each script runs in a process of its own, with caches and temporary files in a folder that is gone afterwards, and keeps
its rows by `rows.row()`. One that fails or takes longer than --minutes is named in the table with what it last said,
the rows it had are kept, the others run, and the exit status is 1. What comes out lies beside this file: RESULTS.md,
results.svg (growth.svg, by growth.py), and results.json, which the other two are made from.
"""

import argparse
import ast
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
ORDER = ("start", "reading", "loading", "training", "bridge", "evaluation", "predict", "growth", "memory")
"""What `make bench` runs. accuracy.py and tiles.py train for hours, gpu.py wants a GPU: each is started by itself."""
TITLES = {
    "start": "Start",
    "reading": "Reading labels",
    "loading": "Loading images",
    "training": "Training",
    "bridge": "Into FiftyOne",
    "evaluation": "COCO's figures",
    "predict": "Prediction",
    "growth": "How cost grows",
    "memory": "Memory over many epochs",
}
PACKAGES = (
    *("torch", "torchvision", "numpy", "pillow", "simplejpeg", "msgspec", "orjson", "pycocotools", "hotcoco"),
    *("fiftyone", "onnxruntime"),
)
GOOD, BAD, PLAIN = "#1a7f37", "#bc4c00", "#57606a"  # reached, not reached, nothing wanted


# -- running -----------------------------------------------------------------------------------------------------------


def measured(script: Path, folder: Path, to: Path, *, minutes: float) -> dict[str, Any]:
    """A script's rows, how long it took, and "" or why it failed; its pictures are copied to where the results lie."""
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir()
    scratch.mkdir()
    environment = {
        **os.environ,
        "ODKIT_BENCH_OUT": str(out),
        "TMPDIR": str(scratch),
        "ODKIT_CACHE": str(scratch / "cache"),
        "FIFTYONE_DATABASE_DIR": str(scratch / "fiftyone"),
    }
    began, load, said = time.monotonic(), os.getloadavg()[0], folder / "stderr"
    with said.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=HERE.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            status = process.wait(minutes * 60)
            failed = f"exit status {status}" if status else ""
        except subprocess.TimeoutExpired:
            failed = f"it took longer than {minutes:g} minutes"
        finally:
            end(scratch)
            process.wait()
    if failed:
        words = said.read_text(errors="replace").strip()
        print(words[-4000:], file=sys.stderr, flush=True)
        last = words.splitlines()[-1].strip() if words else "it said nothing"
        failed = f"{failed}: {last[:200]}"
    kept = out / f"{script.stem}.json"
    for picture in out.glob("*.svg"):
        shutil.copy(picture, to)
    return {
        "rows": json.loads(kept.read_text()) if kept.is_file() else [],
        "failed": failed,
        "seconds": time.monotonic() - began,
        "load": load,
        "date": datetime.now(UTC).strftime("%d %B %Y"),
        "commit": commit(),
    }


def end(scratch: Path) -> None:
    """End a script and whatever it started, in sessions of their own too, known by their folder of temporary files."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(scratch):
                process.kill()


def commit() -> str:
    """The commit that is measured, and whether files differ from it (what is measured does not count)."""
    git = ["git", "-C", str(HERE.parent)]
    try:
        name = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        results = [f":!bench/{file}" for file in ("RESULTS.md", "results.json", "results.svg", "growth.svg")]
        state = subprocess.run(
            [*git, "status", "--porcelain", "--", ".", *results], check=False, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
    return name.stdout.strip() + (" with changes" if state.stdout.strip() else "")


def machine() -> dict[str, str]:
    """This machine and the packages that matter, in words."""
    from odkit.system import machine as here

    packages = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "processor": f"{here.processor()}, {here.cpu_count()} cores",
        "memory": f"{here.memory_total_bytes() / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {number}" for name, number in packages.items()),
    }


# -- saying ------------------------------------------------------------------------------------------------------------


def figure(value: float | None, unit: str = "") -> str:
    """A number with three digits that count."""
    if value is None:
        return ""
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def table(rows: Iterable[dict[str, Any]]) -> str:
    """A topic's rows as Markdown."""
    lines = ["| what | odkit | beside | ratio | wanted | |", "|---|---|---|---|---|---|"]
    notes = []
    for row in rows:
        beside = " ".join(filter(None, [figure(row["other"], row["unit"]), row["beside"]]))
        if row["other"] is not None and row["beside"]:
            beside = f"{figure(row['other'], row['unit'])} ({row['beside']})"
        ratio = "" if row["ratio"] is None else f"**{figure(row['ratio'])}** times"
        wanted, limit = row["wanted"], row["ratio"] is None
        if wanted is None:
            asked = ""
        elif limit:
            asked = f"{'at least' if row.get('more_is_better') else 'at most'} {figure(wanted, row['unit'])}"
        else:
            asked = f"{figure(wanted)} times"
        reached = {None: "", True: "reached", False: "**not reached**"}[row["reached"]]
        mark = ""
        if row["note"]:
            notes.append(row["note"])
            mark = f" ({len(notes)})"
        cells = [row["what"] + mark, figure(row["ours"], row["unit"]), beside, ratio, asked, reached]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    said = [f"{n}. {note}" for n, note in enumerate(notes, 1)]
    return "\n".join([*lines, *([""] if said else []), *said])


def about(script: Path) -> str:
    """What a script compares: the first paragraph of its docstring."""
    with contextlib.suppress(OSError, SyntaxError):
        return (ast.get_docstring(ast.parse(script.read_text())) or "").split("\n\n")[0]
    return ""


def page(results: dict[str, Any]) -> str:
    """RESULTS.md."""
    here, parts = results["machine"], results["parts"]
    order = sorted(parts, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    rows = [row for name in order for row in parts[name]["rows"]]
    asked = [row for row in rows if row["reached"] is not None]
    good = sum(row["reached"] for row in asked)
    failed = [name for name in order if parts[name]["failed"]]
    seconds = sum(part["seconds"] for part in parts.values())
    lines = [
        "# odkit beside the alternatives",
        "",
        "Written by `make bench`. Each comparison is made in one run, odkit and the alternative each in its own",
        "good settings. A ratio says how many times better odkit is: above 1 it is faster, or takes less memory. What",
        "the figures mean for a training of yours, and how each comparison is made: [docs/speed.md](../docs/speed.md).",
        "",
        f"- Machine: {here['processor']}, {here['memory']} of memory; {here['system']}.",
        f"- Packages: {here['packages']}.",
        f"- {len(rows)} figures in {seconds / 60:.0f} minutes; {good} of {len(asked)} reach what is wanted of them.",
        *(f"- **{name}.py failed**: {parts[name]['failed']}" for name in failed),
        "",
    ]
    if any(row["ratio"] for row in rows):
        lines += ["![Each ratio beside 1, and beside what is wanted](results.svg)", ""]
    for name in order:
        part = parts[name]
        busy = f"; load average at its start {part['load']:.1f}" if part["load"] > 1 else ""
        lines += [
            f"## {TITLES.get(name, name.capitalize())}",
            "",
            about(HERE / f"{name}.py"),
            "",
            *(
                [f"**The script failed**: {part['failed']}. The rows that it had until then:", ""]
                if part["failed"]
                else []
            ),
            table(part["rows"]) if part["rows"] else "No rows.",
            "",
            f"`bench/{name}.py`, {part['seconds']:.0f} s, {part['date']}, at {part['commit']}{busy}.",
            "",
        ]
        if name == "growth" and part["rows"]:
            lines += ["![Time and memory against the number of images](growth.svg)", ""]
    return "\n".join(lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """Each ratio as a bar from 1 on a logarithmic scale, and a mark where it is wanted."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    parts = results["parts"]
    names = [name for name in (*ORDER, *sorted(set(parts) - set(ORDER))) if name in parts]
    rows = [row for name in names for row in parts[name]["rows"] if row["ratio"]]
    if not rows:
        path.unlink(missing_ok=True)
        return
    # a background of its own: it reads the same on a light page and on a dark one
    with rc_context(
        {"svg.hashsalt": "odkit", "font.family": "DejaVu Sans", "font.size": 8, "svg.fonttype": "path"}
    ):
        canvas = Figure(figsize=(8.6, 0.7 + 0.24 * len(rows)), facecolor="#ffffff", layout="constrained")
        axes = canvas.add_subplot()
        ratios, wanted = [row["ratio"] for row in rows], [row["wanted"] for row in rows]
        low = min(0.5, *ratios) / 1.3
        high = max(2.0, *ratios, *(want for want in wanted if want)) * 2.2
        colours = [{None: PLAIN, True: GOOD, False: BAD}[row["reached"]] for row in rows]
        places = range(len(rows))
        axes.barh(places, [r - 1 for r in ratios], left=1, height=0.62, color=colours)
        for place, ratio, want in zip(places, ratios, wanted, strict=True):
            axes.annotate(
                f"{figure(ratio)} x",
                (max(ratio, want or 0, 1), place),
                (6, 0),
                textcoords="offset points",
                va="center",
            )
            if want:
                axes.plot([want, want], [place - 0.42, place + 0.42], color="#1f2328", linewidth=1.6)
        axes.axvline(1, color="#1f2328", linewidth=0.8)
        axes.set(xscale="log", xlim=(low, high), ylim=(len(rows) - 0.4, -0.6), yticks=places)
        axes.set_yticklabels([row["what"] for row in rows])
        ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= t <= high]
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(
            "times better than the alternative\nblack mark: wanted; green: reached, orange: not,\ngrey: none wanted"
        )
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#d0d7de", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        canvas.savefig(path, metadata={"Date": None})


def merged(before: dict[str, Any] | None, here: dict[str, str], parts: dict[str, Any]) -> dict[str, Any]:
    """New parts over those of before, which are dropped where they were measured on another machine."""
    old = before["parts"] if before and before["machine"] == here else {}
    return {"machine": here, "parts": {**old, **parts}}


def write(results: dict[str, Any], folder: Path) -> None:
    """results.json, results.svg and RESULTS.md."""
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    draw(results, folder / "results.svg")
    (folder / "RESULTS.md").write_text(page(results))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"parts, of {', '.join(ORDER)}; all without one"
    )
    parser.add_argument("--minutes", type=float, default=8, help="after which a script counts as hung")
    parser.add_argument("--to", type=Path, default=HERE, help="where the results are written")
    args = parser.parse_args(arguments)
    unknown = [name for name in args.names if not (HERE / f"{name}.py").is_file()]
    if unknown:
        parser.error(f"there is no bench/{unknown[0]}.py; there are {', '.join(ORDER)}")
    names = args.names or ORDER
    kept = args.to / "results.json"
    before = json.loads(kept.read_text()) if args.names and kept.is_file() else None
    parts: dict[str, Any] = {}
    here = machine()
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="odkit-bench-", ignore_cleanup_errors=True) as folder:
            part = measured(HERE / f"{name}.py", Path(folder), args.to, minutes=args.minutes)
        parts[name] = part
        print(
            f"    {part['seconds']:.0f} s{'; FAILED: ' + part['failed'] if part['failed'] else ''}",
            flush=True,
        )
        write(merged(before, here, parts), args.to)  # after each: what was measured is not lost
    failed = [name for name, part in parts.items() if part["failed"]]
    print(
        f"{args.to / 'RESULTS.md'}: {sum(p['seconds'] for p in parts.values()) / 60:.1f} minutes", flush=True
    )
    if failed:
        print(f"These failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs ends, and its folder goes
    sys.exit(main())
