"""Planting into the demo the faults that datasets have in the wild."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

from odkit.data.boxes import box_iou
from odkit.data.dataset import Dataset
from odkit.data.demo.parts import PARTS, demo_image, save_jpeg
from odkit.system import InputError, MissingFileError

# -- planted faults --------------------------------------------------------------------------------------------------


class Planting:
    """Spoils labels and files, an image for each fault, and keeps the truth."""

    def __init__(
        self, folder: Path, seed: int, pictures: list["Picture"], names: list[str], last_number: int
    ) -> None:
        self.folder, self.seed, self.pictures, self.names = folder, seed, pictures, names
        self.rng = np.random.default_rng([seed, len(pictures), 404])
        self.number = last_number
        self.drawn = len(pictures)
        self.faults: list[dict[str, Any]] = []
        order = self.rng.permutation(len(pictures)).tolist()
        self.free: list[Picture] = [pictures[k] for k in order if pictures[k].labels]

    def plant(self) -> list[dict[str, Any]]:
        """Plant every kind; the counts are those of a demo of 300 images, and go with its size."""
        for spoil, count in (
            (self._exif_orientation, 3),
            (self._wrong_size, 3),
            (self._partly_outside, 4),
            (self._no_area, 3),
            (self._inverted, 3),
            (self._outside, 3),
            (self._tiny, 3),
            (self._duplicate_box, 4),
            (self._two_classes, 4),
            (self._wrong_class, 14),
            (self._bad_box, 12),
            (self._missing_box, 14),
            (self._spurious_box, 12),
            (self._duplicate_image, 3),
            (self._duplicate_across_splits, 3),
            (self._image_without_labels, 3),
            (self._missing_image, 3),
            (self._unreadable_image, 3),
        ):
            for _ in range(max(round(count * self.drawn / 300), 1)):
                spoil()
        self._class_name_variant()
        self.names.append("rivet")
        self._record("unused_class", None, None, **{"class": "rivet"})
        return self.faults

    def _record(self, kind: str, picture: "Picture | None", label: "Label | None", **more: Any) -> None:
        self.faults.append(
            {
                "kind": kind,
                "image": picture.id if picture else None,
                "annotation": label.number if label else None,
                "box": label.box if label else None,
                **more,
            }
        )

    def _take(self, fits: "Callable[[Picture], bool]" = lambda picture: True) -> "Picture":
        """An image without a fault that fits."""
        for k, picture in enumerate(self.free):
            if fits(picture):
                return self.free.pop(k)
        raise InputError(
            "this seed left no image for one of the faults: draw more images or take another seed"
        )

    def _clear_label(self, picture: "Picture") -> "Label":
        """A box large enough that a fault in it can be seen, the largest where none is."""
        large = [b for b in picture.labels if _short_side(b.box) >= 16]
        return (
            large[int(self.rng.integers(len(large)))]
            if large
            else max(picture.labels, key=lambda b: _short_side(b.box))
        )

    def _add(self, picture: "Picture", box: Sequence[float], name: str) -> "Label":
        self.number += 1
        label = Label(self.number, [float(v) for v in box], name)
        picture.labels.append(label)
        return label

    def _other_name(self, name: str) -> str:
        others = [other for other in PARTS if other != name]
        return others[int(self.rng.integers(len(others)))]

    def _no_area(self) -> None:
        picture = self._take()
        left, top, right, _ = self._clear_label(picture).box
        self._record("no_area", picture, self._add(picture, (left, top, right, top), picture.labels[0].name))

    def _inverted(self) -> None:
        picture = self._take()
        label = self._clear_label(picture)
        left, top, right, bottom = label.box
        label.box = [right, bottom, left, top]
        self._record("inverted", picture, label, true_box=[left, top, right, bottom])

    def _outside(self) -> None:
        picture = self._take()
        seen = self._clear_label(picture)
        left, top, right, bottom = seen.box
        away = picture.width + 5.0
        self._record(
            "outside", picture, self._add(picture, (left + away, top, right + away, bottom), seen.name)
        )

    def _partly_outside(self) -> None:
        touching = lambda p: any(_touches(b.box, p) for b in p.labels)  # noqa: E731
        picture = self._take(touching)
        label = next(b for b in picture.labels if _touches(b.box, picture))
        left, top, right, bottom = label.box
        beyond = float(self.rng.integers(5, 15))
        spoiled = [
            left - beyond if left <= 0 else left,
            top - beyond if top <= 0 else top,
            right + beyond if right >= picture.width else right,
            bottom + beyond if bottom >= picture.height else bottom,
        ]
        label.box = spoiled
        self._record("partly_outside", picture, label, true_box=[left, top, right, bottom])

    def _tiny(self) -> None:
        picture = self._take()
        x, y = self.rng.uniform(5, picture.width - 5), self.rng.uniform(5, picture.height - 5)
        label = self._add(picture, (round(x), round(y), round(x) + 1, round(y) + 1), picture.labels[0].name)
        self._record("tiny", picture, label)

    def _duplicate_box(self) -> None:
        picture = self._take()
        seen = self._clear_label(picture)
        self._record(
            "duplicate_box", picture, self._add(picture, seen.box, seen.name), annotations=[seen.number]
        )

    def _two_classes(self) -> None:
        picture = self._take()
        seen = self._clear_label(picture)
        label = self._add(picture, seen.box, self._other_name(seen.name))
        self._record("two_classes", picture, label, true_class=seen.name, annotations=[seen.number])

    def _wrong_class(self) -> None:
        picture = self._take(_has_clear_box)
        label = self._clear_label(picture)
        truth, label.name = label.name, self._other_name(label.name)
        self._record("wrong_class", picture, label, true_class=truth, **{"class": label.name})

    def _bad_box(self) -> None:
        picture = self._take(_has_clear_box)
        label = self._clear_label(picture)
        truth = label.box
        width, height = truth[2] - truth[0], truth[3] - truth[1]
        for _ in range(200):
            shift = self.rng.uniform(-0.4, 0.4, 4) * [width, height, width, height]
            box = np.round(np.clip(truth + shift, 0, [picture.width, picture.height] * 2))
            overlap = float(box_iou(np.array([box], np.float32), np.array([truth], np.float32))[0, 0])
            if 0.3 <= overlap <= 0.6 and min(box[2] - box[0], box[3] - box[1]) >= 6:
                label.box = [float(v) for v in box]
                break
        else:
            label.box = [truth[0], truth[1], truth[0] + round(width * 0.7), truth[1] + round(height * 0.7)]
        self._record("bad_box", picture, label, true_box=truth)

    def _missing_box(self) -> None:
        picture = self._take(_has_clear_box)
        label = self._clear_label(picture)
        picture.labels.remove(label)
        self._record("missing_box", picture, None, true_box=label.box, true_class=label.name)

    def _spurious_box(self) -> None:
        while True:
            picture = self._take()
            there = np.array([b.box for b in picture.labels], np.float32)
            for _ in range(100):
                side = self.rng.uniform(24, 64, 2)
                corner = self.rng.uniform(0, 1, 2) * ([picture.width, picture.height] - side)
                box = np.round(np.concatenate([corner, corner + side]))
                if float(box_iou(np.array([box], np.float32), there).max()) == 0:
                    label = self._add(picture, box.tolist(), list(PARTS)[int(self.rng.integers(len(PARTS)))])
                    self._record("spurious_box", picture, label, **{"class": label.name})
                    return

    def _copy(self, picture: "Picture", split: str) -> "Picture":
        """The same file and labels under another name."""
        number = len(self.pictures) + 1
        name = f"bench_{number - 1:04d}.jpg"  # a name like all others: nothing gives the copy away
        twin = Picture(picture.index, number, split, name, picture.width, picture.height)
        for label in list(picture.labels):
            self._add(twin, label.box, label.name)
        shutil.copyfile(self.folder / picture.id, self.folder / twin.id)
        self.pictures.append(twin)
        return twin

    def _duplicate_image(self) -> None:
        picture = self._take()
        self._record("duplicate_image", self._copy(picture, picture.split), None, other_image=picture.id)

    def _duplicate_across_splits(self) -> None:
        picture = self._take(lambda p: p.split == "train")
        twin = self._copy(picture, "val" if self.rng.random() < 0.7 else "test")
        self._record("duplicate_across_splits", twin, None, other_image=picture.id)

    def _image_without_labels(self) -> None:
        picture = self._take(lambda p: p.split == "train")
        picture.listed = False
        self._record("image_without_labels", picture, None)

    def _missing_image(self) -> None:
        picture = self._take()
        (self.folder / picture.id).unlink()
        self._record("missing_image", picture, None)

    def _unreadable_image(self) -> None:
        picture = self._take()
        path = self.folder / picture.id
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 5])
        self._record("unreadable_image", picture, None)

    def _wrong_size(self) -> None:
        picture = self._take(lambda p: p.width != p.height)
        truth = [picture.width, picture.height]
        picture.width, picture.height = 2 * picture.width, 2 * picture.height
        self._record("wrong_size", picture, None, true_size=truth)

    def _exif_orientation(self) -> None:
        """Pixels stored a quarter turn to the left with the tag that says so; labels drawn on them as stored."""
        picture = self._take(lambda p: p.width != p.height)
        exif = Image.Exif()
        exif[0x0112] = 6
        upright = demo_image(self.seed, picture.index)[0]
        stored = np.ascontiguousarray(np.rot90(upright))
        save_jpeg(self.folder / picture.id, stored, self.seed, picture.index, exif)
        truth, width = [picture.width, picture.height], picture.width
        picture.width, picture.height = picture.height, picture.width
        for label in picture.labels:
            left, top, right, bottom = label.box
            label.box = [top, width - right, bottom, width - left]
        self._record("exif_orientation", picture, None, true_size=truth)

    def _class_name_variant(self) -> None:
        variant, name = "Washer ", "washer"
        self.names.append(variant)
        changed = []
        for picture in [p for p in self.free if any(b.name == name for b in p.labels)][:4]:
            for label in picture.labels:
                if label.name == name:
                    label.name = variant
                    changed.append(label.number)
        self._record(
            "class_name_variant", None, None, true_class=name, annotations=changed, **{"class": variant}
        )


def _short_side(box: Sequence[float]) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def _has_clear_box(picture: "Picture") -> bool:
    return any(_short_side(label.box) >= 16 for label in picture.labels)


def _touches(box: Sequence[float], picture: "Picture") -> bool:
    """Whether a box reaches the picture's edge (and no opposite edge, so that the truth stays clear)."""
    edges = (box[0] <= 0, box[1] <= 0, box[2] >= picture.width, box[3] >= picture.height)
    return sum(edges) == 1 and _short_side(box) >= 12


def demo_faults(source: Dataset | Path | str) -> list[dict[str, Any]]:
    """The faults that were planted in a demo drawn with `faults=True`.

    Args:
        source: The dataset (or a part of it), or its folder.

    Returns:
        A dict a fault: "kind"; "image" (id) or None; "annotation" (COCO id) or None; "box" (xyxy as labelled) or None;
        where they apply "class", "true_class", "true_box", "true_size" (width, height), "other_image", "annotations".

    Raises:
        FileNotFoundError: No faults were planted there.
    """
    folder = source.root if isinstance(source, Dataset) else Path(source)
    path = folder / "faults.json"
    if not path.is_file():
        raise MissingFileError(f"{folder} has no faults.json: draw the demo with faults=True")
    return list(orjson.loads(path.read_bytes()))


@dataclass
class Label:
    """A box as it will stand in the labels."""

    number: int  # COCO's annotation id
    box: list[float]  # xyxy, pixels
    name: str  # of its class


@dataclass
class Picture:
    """An image as it will stand in the labels; `index` is the scene it shows."""

    index: int
    number: int  # COCO's image id
    split: str
    file: str
    width: int
    height: int
    labels: list[Label] = field(default_factory=list)
    listed: bool = True  # in the labels at all

    @property
    def id(self) -> str:
        return f"{self.split}/{self.file}"
