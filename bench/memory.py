"""Whether a training keeps its memory: the worker's over 50 epochs of a small run, judged after each.

python bench/memory.py [EPOCHS]

The worker notes its resident memory at each step; the last one of an epoch counts. What each of the last 40 epochs adds
is the slope of a straight line through them, with its standard error. A leak of 1 MB an epoch would be 60 MB after the
longest run that odkit chooses by itself; the limit is a quarter of that.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from rows import row

import odkit as od

WARM = 10  # epochs in which caches fill and the allocator finds its size
LIMIT = 0.25  # MB an epoch


def slope(values: np.ndarray) -> tuple[float, float]:
    """What is added from value to value, and its standard error: least squares."""
    place = np.arange(len(values)) - (len(values) - 1) / 2
    steep = float(place @ values / (place @ place))
    left = values - values.mean() - steep * place
    return steep, float(np.sqrt(left @ left / (len(values) - 2) / (place @ place)))


def main() -> None:
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory(prefix="odkit-memory-") as place:
        run = od.fine_tune(
            od.demo_dataset(24, folder=Path(place, "demo")),
            folder=Path(place, "runs"),
            epochs=epochs,
            image_size=96,
            batch_size=4,
            augment="strong",
            wait=False,
        )
        try:
            run.wait(show=False)
        finally:
            run.stop()
        events = run.events()
    memory = {event["epoch"]: event["memory"] / 1e6 for event in events if event["event"] == "step"}
    judged = sum(event["event"] == "evaluation" for event in events)
    values = np.array([memory[epoch] for epoch in sorted(memory)])
    print("MB at the end of each epoch:", " ".join(f"{value:.0f}" for value in values))
    warm = WARM if len(values) > 2 * WARM else len(values) // 2
    steep, error = slope(values[warm:])
    note = f"{steep:.3f} ± {error:.3f} MB; {values[warm]:.0f} MB after epoch {warm + 1}, {values[-1]:.0f} at the end"
    name = f"a training worker's memory, epochs {warm + 1} to {len(values)}, judged {judged} times: each adds"
    row(name, steep, unit="MB", wanted=LIMIT, note=note)


if __name__ == "__main__":
    main()
