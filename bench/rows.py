"""What a benchmark says: a row a comparison, printed, and kept as JSON where `make bench` gathers them.

A script measures odkit and the alternative in one run, each in its own good settings, and calls `row()` for each
comparison. With ODKIT_BENCH_OUT set, the rows land there in a file named after the script.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

_said: list[dict[str, Any]] = []


def row(
    what: str,
    ours: float,
    other: float | None = None,
    *,
    beside: str = "",
    unit: str = "s",
    more_is_better: bool = False,
    wanted: float | None = None,
    note: str = "",
) -> float | None:
    """One comparison.

    Args:
        what: What is measured, as the table names it: "COCO's labels read: time".
        ours: odkit's figure.
        other: The alternative's figure; None where a figure stands against a limit alone.
        beside: What the alternative is: "pycocotools 2.0.11, COCO()".
        unit: Of both figures: "s", "MB", "images/s".
        more_is_better: Whether the larger figure wins (rates), or the smaller (times, memory).
        wanted: The ratio to reach; without `other`, the limit to stay within.
        note: What a reader must know besides.

    Returns:
        How many times better odkit is; None without `other`.
    """
    ratio = None if other is None else (ours / other if more_is_better else other / ours)
    reached = None
    if wanted is not None:
        within = ours >= wanted if more_is_better else ours <= wanted
        reached = within if ratio is None else ratio >= wanted
    _said.append(
        {
            "what": what,
            "ours": ours,
            "other": other,
            "beside": beside,
            "unit": unit,
            "more_is_better": more_is_better,
            "ratio": ratio,
            "wanted": wanted,
            "reached": reached,
            "note": note,
        }
    )
    text = f"{what}: {ours:.3g} {unit}"
    if ratio is not None:
        text += f"; {beside} {other:.3g} {unit}; {ratio:.2f} times"
    if wanted is not None:
        text += f" ({'reached' if reached else 'NOT reached'}: {wanted:g})"
    print(text + (f"; {note}" if note else ""), flush=True)
    if folder := os.environ.get("ODKIT_BENCH_OUT"):
        Path(folder, f"{Path(sys.argv[0]).stem}.json").write_text(json.dumps(_said, indent=1))
    return ratio
