"""How accurate the default recipe is, what each part of it brings, and the starter beside an earlier one.

    python bench/accuracy.py --bccd PATH --cards PATH
    python bench/accuracy.py --bccd PATH --cards PATH --beside ../odkit-at-another-commit --ingredients
    python bench/accuracy.py --bccd PATH --beside ../odkit-at-another-commit --whole 24

The first trains on the demo (as notebook 03 does), on BCCD and on the playing cards with three seeds each, and writes
docs/accuracy.md; about an hour on two CPU cores. `--beside` also trains the odkit of another checkout on the same data,
for ten minutes where the recipe is the default, and `--ingredients` trains the recipe with one setting changed at
a time (one seed). What was trained stays in the folder and is not trained again, and what was written by hand at the
end of the file stays too.

`--whole EPOCHS` does one thing alone: so many epochs on BCCD by this odkit and by the one of `--beside`; it says how
long each took from the call to the end of the run, and their AP.

BCCD: https://github.com/Shenggan/BCCD_Dataset; the cards:
https://github.com/EdjeElectronics/TensorFlow-Object-Detection-API-Tutorial-Train-Multiple-Objects-Windows-10.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rows

import odkit as od
from odkit.system import cpu_count

ROOT = Path(__file__).parent.parent

BY_HAND = "<!-- written by hand from here on -->"

# What is done in a process of its own, by the odkit of any checkout: trained, and judged on images of a split.
WORK = """
import json, sys, time
import odkit as od
wanted = json.loads(sys.argv[1])
if wanted["data"]:
    data = od.load_dataset(wanted["data"], format=wanted["format"])
    data = od.repaired(data)
else:
    data = od.demo_dataset()
began = time.monotonic()
run = od.fine_tune(data, folder=wanted["folder"], name=wanted["name"], wait=False, **wanted["settings"])
run.wait(show=False)
seconds = time.monotonic() - began
judged = data.split(wanted["split"]) if wanted["split"] in data.split_counts() else run.dataset("val")
detector = run.detector()
found = od.evaluate(judged, od.predict(detector, judged))
said = {"ap": found.ap, "ap50": found.ap50, "seconds": seconds, "epochs": run.history()[-1]["epoch"],
        "image_size": detector.image_size, "train": len(run.dataset("train")), "judged": len(judged)}
if hasattr(found, "intervals"):
    said["intervals"] = {key: float(value) for key, value in found.intervals().total.items() if key != "class"}
print("said " + json.dumps(said))
"""

# The data: how it is read, the split to judge on, and what its runs set beside the defaults.
DATA: dict[str, dict[str, Any]] = {
    "demo": {"split": "val", "settings": {"epochs": 3}, "what": "drawn, validation images"},
    "bccd": {"split": "val", "settings": {}, "what": "blood cells, validation images", "format": "voc"},
    "cards": {"split": "test", "settings": {}, "what": "playing cards, test images", "format": "voc"},
}

# One setting changed at a time, from the recipe of a long run: zoomed, mirrored, averaged weights.
INGREDIENTS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "no zoom (augment photo)": {"augment": "photo"},
    "mirrored alone (augment flip)": {"augment": "flip"},
    "not mirrored (orientation upright)": {"orientation": "upright"},
    "turned and mirrored (orientation any)": {"orientation": "any"},
    "mosaic of half the images": {"mosaic": 0.5},
    "mixup of a fifth": {"mixup": 0.2},
    "class balance of a half": {"class_balance": 0.5},
    "no averaged weights (ema 0)": {"ema": 0.0},
}


def trained(
    folder: Path, name: str, data: str, path: Path | None, settings: dict[str, Any], tree: Path = ROOT
) -> dict[str, Any]:
    """Figures of a run on some data by the odkit of a checkout; those of an earlier call, where there was one."""
    file = folder / f"{name}.json"
    entry = DATA[data]
    settings = {**entry["settings"], **settings}
    if file.exists():
        figures = json.loads(file.read_text())
        if figures["settings"] != settings:
            raise SystemExit(
                f"{file} holds a run with {figures['settings']}, not {settings}: take another --folder"
            )
        return dict(figures)
    if (left := folder / "runs" / name).exists():  # broken off
        if od.open_run(left).alive:
            od.open_run(left).stop()
        shutil.rmtree(left)
    wanted = {
        "data": str(path) if path else "",
        "format": entry.get("format"),
        "split": entry["split"],
        "folder": str(folder / "runs"),
        "name": name,
        "settings": settings,
    }
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    asked = [sys.executable, "-c", WORK, json.dumps(wanted)]
    answer = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False, cwd=folder)
    said = [line for line in answer.stdout.splitlines() if line.startswith("said ")]
    if answer.returncode or not said:
        raise SystemExit(f"{name} failed:\n{answer.stdout[-2000:]}\n{answer.stderr[-4000:]}")
    figures = {**json.loads(said[-1][5:]), "settings": settings}
    file.write_text(json.dumps(figures))
    minutes = figures["seconds"] / 60
    print(f"{name:32} AP {figures['ap']:.3f}  AP50 {figures['ap50']:.3f}  {minutes:.1f} min", flush=True)
    return figures


def whole_beside(folder: Path, bccd: Path | None, beside: Path, epochs: int) -> None:
    """As many epochs by the odkit of another checkout and by this one, one after the other: time, AP, ratio."""
    settings = {"seed": 0, "epochs": epochs}
    theirs = trained(folder, f"whole-{epochs}-{beside.name}", "bccd", bccd, settings, beside)
    ours = trained(folder, f"whole-{epochs}", "bccd", bccd, settings)
    rows.row(
        f"BCCD, {epochs} epochs, whole", ours["seconds"], theirs["seconds"], beside=beside.name, wanted=1.4
    )
    rows.row(
        f"BCCD, {epochs} epochs: AP",
        ours["ap"],
        theirs["ap"],
        beside=beside.name,
        unit="AP",
        more_is_better=True,
        wanted=0.99,  # the order of sums moves it by some thousandths
    )
    events = od.open_run(folder / "runs" / f"whole-{epochs}").events()
    judged = (event for event in events if event["event"] == "evaluation")
    as_good = next((event for event in judged if event["ap"] >= theirs["ap"]), None)
    if as_good is not None:
        rows.row(
            "BCCD, until the validation AP is the other's at its end",
            as_good["time"] - events[0]["time"],
            theirs["seconds"],
            beside=f"{beside.name}, {epochs} epochs",
            note=f"after epoch {as_good['epoch']}, AP {as_good['ap']:.3f}",
        )


def mean(runs: Sequence[dict[str, Any]], key: str) -> float:
    return float(np.mean([run[key] for run in runs]))


def row(label: str, runs: Sequence[dict[str, Any]]) -> str:
    """A line of the table of datasets."""
    each = ", ".join(f"{run['ap']:.3f}" for run in runs)
    first, intervals = runs[0], {"ap": "", "ap50": ""}
    if "intervals" in first:
        for key in intervals:
            low, high = first["intervals"][f"{key}_low"], first["intervals"][f"{key}_high"]
            intervals[key] = f"{low:.3f} to {high:.3f}"
    return (
        f"| {label} | {first['image_size']} px, {first['epochs']} | **{mean(runs, 'ap'):.3f}** ({each}) | "
        f"{intervals['ap']} | {mean(runs, 'ap50'):.3f} | {intervals['ap50']} | {mean(runs, 'seconds') / 60:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bccd", type=Path, help="the folder of BCCD")
    parser.add_argument("--cards", type=Path, help="the folder of the playing cards")
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA), help="which of them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--beside", type=Path, help="another checkout, whose odkit is trained too")
    parser.add_argument("--beside-seeds", type=int, default=1)
    parser.add_argument("--beside-minutes", type=float, default=10, help="for data with the default recipe")
    parser.add_argument(
        "--beside-data", nargs="+", choices=list(DATA), default=list(DATA), help="on which data"
    )
    parser.add_argument("--whole", type=int, metavar="EPOCHS", help="on BCCD, beside --beside, and no more")
    parser.add_argument("--ingredients", action="store_true", help="also change one setting at a time")
    parser.add_argument("--ingredients-of", default="cards", choices=list(DATA), help="on which data")
    parser.add_argument("--ingredients-epochs", type=int, default=6)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs" / "accuracy", help="for what was trained"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "accuracy.md")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    paths = {
        "demo": None,
        "bccd": given.bccd and given.bccd.absolute(),
        "cards": given.cards and given.cards.absolute(),
    }
    used = [data for data, path in paths.items() if data in given.data and (path or data == "demo")]
    folder = given.folder.absolute()
    if given.whole:
        if not given.bccd or not given.beside:
            parser.error("--whole wants --bccd and --beside")
        whole_beside(folder, paths["bccd"], given.beside.absolute(), given.whole)
        return
    about = (
        f"Written by bench/accuracy.py with odkit {od.__version__}: {cpu_count()} CPU cores ({platform.machine()}), no "
        f"GPU. AP is COCO's: means of {given.seeds} seeds, each seed's AP in brackets, and the 95% interval of the "
        "first seed's (bootstrap over the images judged). Minutes are whole: start, training, judging each epoch."
    )
    lines = [
        "# Accuracy",
        "",
        about,
    ]
    for data in used:
        runs = [
            trained(folder, f"{data}-{seed}", data, paths[data], {"seed": seed})
            for seed in range(given.seeds)
        ]
        lines += [
            "",
            f"## {data}: {DATA[data]['what']}",
            "",
            f"{runs[0]['train']} images to train on, {runs[0]['judged']} judged.",
            "",
            "| | input, epochs | AP (each seed) | 95% interval | AP50 | 95% interval | minutes |",
            "|---|---|---|---|---|---|---|",
            row("starter, default recipe", runs),
        ]
        if given.beside and data in given.beside_data:
            same = {} if DATA[data]["settings"] else {"minutes": given.beside_minutes}
            old = [
                trained(
                    folder,
                    f"{data}-beside-{seed}",
                    data,
                    paths[data],
                    {"seed": seed, **same},
                    given.beside.absolute(),
                )
                for seed in range(given.beside_seeds)
            ]
            lines.append(row(f"starter of {given.beside.name}", old))
    if given.ingredients and given.ingredients_of in used:
        data = given.ingredients_of
        lines += [
            "",
            f"## One setting at a time: {data}, {given.ingredients_epochs} epochs, seed 0",
            "",
            "| | AP | AP50 | minutes |",
            "|---|---|---|---|",
        ]
        for label, change in INGREDIENTS.items():
            name = f"{data}-{label.split(' (')[0].replace(' ', '-')}"
            settings = {"seed": 0, "epochs": given.ingredients_epochs, "augment": "strong", **change}
            run = trained(folder, name, data, paths[data], settings)
            lines.append(f"| {label} | {run['ap']:.3f} | {run['ap50']:.3f} | {run['seconds'] / 60:.1f} |")
    by_hand = given.out.read_text().partition(BY_HAND)[2] if given.out.exists() else ""
    given.out.write_text("\n".join([*lines, "", BY_HAND]) + (by_hand or "\n"))
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
