"""The repaired view of a dataset, the files untouched."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from odkit.data.audit.checks import REPAIRS
from odkit.data.audit.files import read_files
from odkit.data.audit.inspection import DUPLICATE_IOU, TINY, audit_of, findings_of
from odkit.data.audit.report import Audit, Finding, finding_title, shown_examples
from odkit.data.audit.subject import Subject
from odkit.data.boxes import clip_boxes, upright_boxes
from odkit.data.dataset import UNKNOWN_CLASS, Dataset, SourceProblem
from odkit.system import counted


def repaired(dataset: Dataset, audit: Audit | None = None) -> Dataset:
    """A view of the dataset with the safe repairs applied; the files are never touched, the notes say what was done.

    Every change answers a finding that says so in `Finding.repair`:

    - images that are missing, unreadable or cut short, or whose label file is unreadable, are dropped;
    - boxes without area, with a coordinate that is not a number, outside their image, of an unknown class, and second
      copies of a box are dropped; an image that loses its last box this way to broken corners is dropped as well, for
      as an image "without objects" it would teach that what stands on it is background;
    - boxes of a COCO file that has corners in place of width and height are read as such;
    - inverted corners are swapped, which is exact; boxes partly outside are clipped;
    - a wrong declared size is corrected where the boxes lie within the real one and were hardly drawn on the declared:
      it is larger, too small for them, or has width and height swapped (or there are no boxes); where both sizes have
      the same proportions and the boxes lie within the declared, they are scaled, as for labels of a resized copy;
      else nobody can know where the boxes belong, and the image is dropped;
    - boxes drawn on the stored pixels of an image with an EXIF orientation are turned with it;
    - class names that differ only by case or space are merged into the most frequent;
    - of exact duplicates across splits the held-out copy stays (test before val before others before train), so that
      what is held out stays held out.

    Not repaired, because only a person can tell: a box with two classes, duplicates within one split, tiny boxes,
    whatever merely stands out.

    Args:
        dataset: What to repair.
        audit: Its audit, where there is one already; else it is made, decoding every image.

    Raises:
        ValueError: `audit` is of another dataset.
    """
    found = audit_of(dataset, audit)
    todo = [f for f in found if f.repair]
    return _Repair(dataset, found._subject, todo).run() if todo else dataset


def on_file_pixels(dataset: Dataset) -> tuple[Dataset, NDArray[np.bool_]]:
    """The boxes as they lie on the upright pixels of the files, and of which images nobody can tell that, [N].

    For label formats that state no sizes: what `repaired` does about sizes and orientations, and nothing else. Only
    headers are read; an image without a readable one stays as it is declared.
    """
    subject = Subject(dataset, read_files(dataset, False, None), TINY, DUPLICATE_IOU)
    kinds = ("wrong_size", "unknown_size", "exif_orientation")
    todo = [finding for kind in kinds for finding in findings_of(kind, subject)]
    boxes, sizes = _Repair(dataset, subject, todo)._boxes_and_sizes()
    undecided = (subject.size_plan[0] == "drops the image") & (dataset.boxes_per_image() > 0)
    return dataset.replace(boxes=boxes, image_sizes=sizes), undecided


# -- repairing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Repair:
    dataset: Dataset
    subject: Subject
    todo: list[Finding]

    def run(self) -> Dataset:
        data = self.dataset
        boxes, sizes = self._boxes_and_sizes()
        dropped = self._mask(data.num_boxes, "drops the box", boxes=True)
        # Clipping and scaling round to float32, where a sliver can lose its area: none may leave here
        with np.errstate(invalid="ignore"):
            slivers = ~dropped & ~(boxes[:, 2:] > boxes[:, :2]).all(1)
        gone = self._mask(len(data), "drops the image")
        slivers &= ~gone[data.box_images]
        keep = ~dropped & ~slivers
        emptied = self._emptied(keep, slivers) & ~gone
        table, names = self._classes()
        mended = data.replace(
            boxes=boxes,
            image_sizes=sizes,
            class_names=names,
            box_classes=table[data.box_classes],
            source_problems=self._problems(dropped),
            notes=(*data.notes, *self._notes(slivers, emptied)),
        )
        return mended.select_boxes(keep).select(~gone & ~emptied)

    def _boxes_and_sizes(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        data, files = self.dataset, self.subject.files
        boxes, sizes = data.boxes.copy(), data.image_sizes.copy()
        moved = np.zeros(len(data), bool)
        rows = np.flatnonzero(self._mask(len(boxes), "reads corners", boxes=True))
        boxes[rows, 2:] -= boxes[rows, :2]
        if files is not None:
            turned = self._mask(len(data), "turns the boxes")
            scaled = self._mask(len(data), "scales the boxes")
            resized = turned | scaled | self._mask(len(data), "corrects the size")
            for orientation in np.unique(files.orientations[turned]).tolist():
                rows = np.flatnonzero((turned & (files.orientations == orientation))[data.box_images])
                boxes[rows] = upright_boxes(boxes[rows], files.stored[data.box_images[rows]], orientation)
            rows = np.flatnonzero(scaled[data.box_images])
            factor = files.upright[data.box_images[rows]] / sizes[data.box_images[rows]]
            boxes[rows] = boxes[rows] * np.tile(factor, 2)
            sizes[resized] = files.upright[resized]
            moved = turned | scaled
        rows = np.flatnonzero(
            self._mask(len(boxes), "swaps the corners", boxes=True) | moved[data.box_images]
        )
        boxes[rows] = np.concatenate(
            [np.minimum(boxes[rows, :2], boxes[rows, 2:]), np.maximum(boxes[rows, :2], boxes[rows, 2:])],
            axis=1,
        )
        rows = np.flatnonzero(self._mask(len(boxes), "clips the box", boxes=True) | moved[data.box_images])
        limits = sizes[data.box_images[rows]].astype(np.float64)
        boxes[rows] = clip_boxes(boxes[rows], np.where(limits > 0, limits, np.inf))
        return boxes, sizes

    def _mask(self, length: int, repair: str, *, boxes: bool = False) -> NDArray[np.bool_]:
        mask = np.zeros(length, bool)
        mask[[f.box_index if boxes else f.image_index for f in self.todo if f.repair == repair]] = True
        return mask

    def _emptied(self, keep: NDArray[np.bool_], slivers: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Images left without a box although something stands on them: nobody knows where."""
        data = self.dataset
        lost = np.zeros(len(data), bool)
        where_unknown = ("no_area", "not_finite", "outside")
        for f in self.todo:
            unread = f.repair == "leaves it out" and f.image_index >= 0
            if unread or (f.repair == "drops the box" and f.kind in where_unknown):
                lost[f.image_index] = True
        lost[data.box_images[slivers]] = True
        left = np.bincount(data.box_images[keep], minlength=len(data))
        empty: NDArray[np.bool_] = lost & (left == 0)
        return empty

    def _classes(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        names = self.dataset.class_names
        if not any(f.repair == "merges the classes" for f in self.todo):
            return np.array([*range(len(names)), UNKNOWN_CLASS]), names
        canonical = self.subject.canonical
        kept = np.unique(canonical[:-1])
        table = np.searchsorted(kept, canonical)
        table[-1] = UNKNOWN_CLASS
        return table, tuple(names[i] for i in kept)

    def _problems(self, dropped: NDArray[np.bool_]) -> tuple[SourceProblem, ...]:
        data = self.dataset
        rows = np.flatnonzero(dropped)
        settled = set(zip(data.image_ids[data.box_images[rows]], data.box_ids[rows], strict=True))
        problems = data.source_problems
        return tuple(p for p in problems if p.severity != "fatal" and (p.image, p.box) not in settled)

    def _notes(self, slivers: NDArray[np.bool_], emptied: NDArray[np.bool_]) -> list[str]:
        groups: dict[tuple[str, str], list[Finding]] = {}
        for f in self.todo:
            groups.setdefault((f.kind, f.repair), []).append(f)
        notes = []
        for (kind, repair), found in groups.items():
            places = [f.message if repair == "merges the classes" else f.place for f in found]
            notes.append(
                f"repaired: {finding_title(kind, found)} {REPAIRS[repair]} ({shown_examples(places)})"
            )
        if slivers.any():
            notes.append(
                f"repaired: {counted(int(slivers.sum()), 'box')} dropped that had no area left once repaired"
            )
        if emptied.any():
            places = self.dataset.image_ids[emptied].tolist()
            notes.append(
                f"repaired: {counted(len(places), 'image')} dropped that had lost every box and would have passed for "
                f"empty ({shown_examples(places)})"
            )
        return notes
