"""What a person did in FiftyOne's App: the difference between a dataset and what comes back."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from odkit.browsing.annotate import AUDIT
from odkit.browsing.convert import from_fiftyone
from odkit.browsing.fo_dataset import GROUND_TRUTH, UNKNOWN_LABEL
from odkit.data import Dataset


@dataclass(frozen=True)
class Changes:
    """What differs between a dataset and what came back from FiftyOne.

    Images are named by id; boxes by (image id, box id), renamed ones with the old and the new class name as well.
    """

    images_removed: tuple[str, ...] = ()
    images_added: tuple[str, ...] = ()
    boxes_removed: tuple[tuple[str, str], ...] = ()
    boxes_added: tuple[tuple[str, str], ...] = ()
    boxes_moved: tuple[tuple[str, str], ...] = ()
    boxes_renamed: tuple[tuple[str, str, str, str], ...] = ()
    splits_changed: tuple[tuple[str, str, str], ...] = ()
    tags: Mapping[str, int] = field(default_factory=dict)  # images with a tag, those of the audit left out
    box_tags: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__dataclass_fields__)

    def __repr__(self) -> str:
        return "\n".join([f"{what}: {text}" for what, text in self._rows()]) or "nothing changed"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{escape(what)}</th><td style="text-align:left">{escape(text)}</td></tr>'
            for what, text in self._rows()
        )
        return f"<table>{rows}</table>" if rows else "nothing changed"

    def _rows(self) -> list[tuple[str, str]]:
        plain = ("images_removed", "images_added", "boxes_removed", "boxes_added", "boxes_moved")
        rows = [(n, [i if isinstance(i, str) else ", ".join(i) for i in getattr(self, n)]) for n in plain]
        renamed = [f"{image}, {box}: {old} -> {new}" for image, box, old, new in self.boxes_renamed]
        split = [f"{image}: {old or 'none'} -> {new or 'none'}" for image, old, new in self.splits_changed]
        rows += [("boxes_renamed", renamed), ("splits_changed", split)]
        rows += [
            (name, [f"{t} ({n:,})" for t, n in getattr(self, name).items()]) for name in ("tags", "box_tags")
        ]
        return [(name.replace("_", " "), _some(items)) for name, items in rows if items]


def _some(items: Sequence[str]) -> str:
    more = f"; and {len(items) - 5:,} more" if len(items) > 5 else ""
    return f"{len(items):,} ({'; '.join(items[:5])}{more})"


def changes(before: Dataset, view: Any, *, field: str = GROUND_TRUTH) -> Changes:
    """What a person did in the App: the difference between a dataset and a FiftyOne dataset or view of it.

    Args:
        before: The dataset as it was put into FiftyOne.
        view: A FiftyOne dataset or view, what `browse()` returned, or a Dataset that came back (without tags then).
        field: The field whose boxes are the ground truth.
    """
    view = getattr(view, "view", view) if not hasattr(view, "values") else view
    after = view if isinstance(view, Dataset) else from_fiftyone(view, field=field)
    old, new = _by_id(before), _by_id(after)
    shared = [key for key in old if key in new]
    a, b = np.array([old[k] for k in shared], np.int64), np.array([new[k] for k in shared], np.int64)
    names_a, names_b = (np.array([*d.class_names, UNKNOWN_LABEL], object) for d in (before, after))
    label_a, label_b = names_a[before.box_classes[a]], names_b[after.box_classes[b]]
    # half a hundredth of a pixel: what float32 leaves on the widest images
    moved = (np.abs(before.boxes[a] - after.boxes[b]) > 0.005).any(1)
    renamed = np.flatnonzero(label_a != label_b)
    splits_a, splits_b = (dict(zip(d.image_ids, d.image_splits, strict=True)) for d in (before, after))
    tags, box_tags = ({}, {}) if isinstance(view, Dataset) else _tags(view, field, before)
    return Changes(
        images_removed=tuple(i for i in splits_a if i not in splits_b),
        images_added=tuple(i for i in splits_b if i not in splits_a),
        boxes_removed=tuple(k[:2] for k in old if k not in new and k[0] in splits_b),
        boxes_added=tuple(k[:2] for k in new if k not in old and k[0] in splits_a),
        boxes_moved=tuple(shared[i][:2] for i in np.flatnonzero(moved)),
        boxes_renamed=tuple((*shared[i][:2], str(label_a[i]), str(label_b[i])) for i in renamed),
        splits_changed=tuple((i, s, splits_b[i]) for i, s in splits_a.items() if splits_b.get(i, s) != s),
        tags=tags,
        box_tags=box_tags,
    )


def _by_id(dataset: Dataset) -> dict[tuple[str, str, int], int]:
    """Row of each box by image id, box id and, should an id stand twice in an image, which of them."""
    seen: Counter[tuple[str, str]] = Counter()
    rows = {}
    for row, pair in enumerate(zip(dataset.image_ids[dataset.box_images], dataset.box_ids, strict=True)):
        rows[(*pair, seen[pair])] = row
        seen[pair] += 1
    return rows


def _tags(view: Any, field: str, before: Dataset) -> tuple[dict[str, int], dict[str, int]]:
    own = set(before.split_counts())
    tags, box_tags = view.count_values("tags"), view.count_values(f"{field}.detections.tags")
    return (
        {t: n for t, n in sorted(tags.items()) if t not in own and not t.startswith(AUDIT)},
        {t: n for t, n in sorted(box_tags.items()) if not t.startswith(AUDIT)},
    )
