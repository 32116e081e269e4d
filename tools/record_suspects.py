"""Writes suspects.npz: what detectors found on the demo with planted faults, each image by one that had not seen it.

    python -m tools.record_suspects      # two runs of 24 epochs: some ten minutes on two cores

test_label_errors.py counts how many of the planted faults are among the first suspects these predictions lead to.
Run it again when the demo or the default recipe changes.
"""

import tempfile
from pathlib import Path

import odkit as od

OUT = Path(__file__).parents[1] / "tests" / "analysis" / "suspects.npz"
LEAST = 0.1  # scores below it are many, and little suspicion rests on them


def main() -> None:
    dataset = od.repaired(od.demo_dataset(faults=True))
    with tempfile.TemporaryDirectory() as folder:
        found = od.cross_val_predict(dataset, folds=2, epochs=24, folder=folder)
    found.above(LEAST).save(OUT)
    print(f"{OUT.name}: {found.above(LEAST)}, {OUT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
