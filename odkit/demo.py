"""Draws the demo dataset: workshop parts on a bench, as photographs that never were.

`demo_dataset()` gives it as a Dataset (drawn once, then kept), `write_demo()` writes it as a COCO folder that any tool
reads. With `faults=True` the labels carry the usual faults, each one recorded, so that the audit and the search for
label errors can be measured against the truth.
"""

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from odkit.boxes import box_iou
from odkit.dataset import Dataset
from odkit.scenes import (
    Colour,
    Light,
    Material,
    Pen,
    Shape,
    Sprite,
    Staging,
    arc,
    box_outline,
    circle,
    draw_scene,
    hsv,
    metal,
    plastic,
    scaled,
)
from odkit.watching import progress_bar

DEMO_VERSION = 4
"""Counts the changes that alter the pictures or boxes; part of the name of the cached folder."""

FEWEST_IMAGES = 3  # one a split
FEWEST_WITH_FAULTS = 60  # each fault gets an image of its own

# -- the parts -------------------------------------------------------------------------------------------------------


def _nut(rng: Generator, radius: float, light: Light) -> Sprite:
    material = plastic(rng) if rng.random() < 0.12 else metal(rng)
    pen = Pen(rng, radius, light, material)
    thick, bore = rng.uniform(0.45, 0.85), rng.uniform(0.46, 0.56)
    hexagon = circle(points=6)
    pen.solid(hexagon, thick, height=0.62)
    pen.fill(circle(radius=0.86), height=0.95, z=thick, shade=1.05)
    if pen.pixels(1) > 14:
        pen.fill(circle(radius=bore + 0.1), height=0.8, z=thick, shade=0.8)
        pen.fill(circle(radius=bore + 0.05), height=0.4, z=thick, shade=0.55)
        if rng.random() < 0.2:  # a nut with a nylon ring
            pen.fill(
                circle(radius=bore + 0.14), height=0.9, z=thick, colour=hsv(rng.uniform(0.5, 0.65), 0.5, 0.75)
            )
    pen.hole(circle(radius=bore), thickness=thick)
    return pen.sprite(bevel=0.07, relief=1.2)


def _washer(rng: Generator, radius: float, light: Light) -> Sprite:
    material = plastic(rng) if rng.random() < 0.2 else metal(rng)
    pen = Pen(rng, radius, light, material)
    thick, bore, kind = rng.uniform(0.05, 0.13), rng.uniform(0.36, 0.62), rng.random()
    if kind < 0.15:  # toothed lock washer
        angles = np.linspace(0, 2 * math.pi, 2 * int(rng.integers(9, 15)), endpoint=False)
        reach = np.where(np.arange(len(angles)) % 2, 1.0, rng.uniform(0.8, 0.87))
        pen.solid(np.stack([reach * np.cos(angles), reach * np.sin(angles)], 1), thick)
        bore = min(bore, 0.55)
    else:
        pen.solid(circle(), thick)
    if 0.15 < kind < 0.4:
        pen.fill(circle(radius=(1 + bore) / 2 + 0.1), z=thick, height=0.8, shade=0.93)
    pen.hole(circle(radius=bore), thickness=thick)
    if kind > 0.86:  # spring lock washer: split
        cut = rng.uniform(0.05, 0.1)
        pen.hole(np.array([[bore * 0.8, -cut], [1.1, -cut - 0.12], [1.1, cut - 0.12], [bore * 0.8, cut]]))
    return pen.sprite(bevel=0.05, relief=1.3)


def _bolt(rng: Generator, radius: float, light: Light) -> Sprite:
    radius *= 1.25  # it is long and thin: as many pixels as the round parts
    pen = Pen(rng, radius, light, metal(rng, rusty=0.3))
    shaft = rng.uniform(0.13, 0.22)
    head = shaft * rng.uniform(1.75, 2.1)
    head_end = -1 + shaft * rng.uniform(1.1, 1.6)
    thread = rng.uniform(-0.45, 0.4) if rng.random() < 0.7 else head_end
    pen.rod((head_end, 0), (0.96, 0), shaft, height=0.75)
    pen.rod((0.9, 0), (1, 0), shaft, end_radius=shaft * 0.75, height=0.7)
    pitch = max(shaft * rng.uniform(0.28, 0.42), 2.2 / radius)
    for x in np.arange(thread + pitch, 0.98, pitch):
        pen.mark(
            [(x - pitch * 0.25, -shaft), (x + pitch * 0.25, shaft)], pitch * 0.45, shade=0.45, height=0.25
        )
    kind = rng.random()
    if kind < 0.6:  # hexagon head, two or three facets to be seen
        turn = rng.choice([0.0, 0.5])
        edges = [-head, -head * 0.5, head * 0.5, head] if turn == 0 else [-head * 0.87, 0.0, head * 0.87]
        for a, b in pairwise(edges):
            middle = abs(a + b) / 2 / head
            cut_a, cut_b = (0.3 * shaft if abs(y) > 0.8 * head else 0.0 for y in (a, b))  # chamfered corners
            facet = [(-1 + cut_a, a), (head_end, a), (head_end, b), (-1 + cut_b, b)]
            pen.fill(facet, height=1 - 0.45 * middle, shade=1.05 - 0.3 * middle)
            pen.mark([(-1, b), (head_end, b)], 0.015, shade=0.55)
        if rng.random() < 0.6:
            flange = [
                (head_end, -head),
                (head_end + 0.06, -head * 1.05),
                (head_end + 0.06, head * 1.05),
                (head_end, head),
            ]
            pen.fill(flange, height=0.55, shade=0.9)
    elif kind < 0.85:  # socket cap: a knurled cylinder
        wide = head * 0.86
        pen.rod((-1, 0), (head_end + 0.08, 0), wide)
        for y in np.linspace(-wide, wide, 13)[1:-1]:
            pen.mark([(-0.9, y), (head_end + 0.04, y)], 0.012, shade=0.6)
        pen.paint(box_outline(-1, -wide * 0.45, -0.97, wide * 0.45), (0.08, 0.08, 0.08))
    else:  # round or countersunk head
        dome = arc(head * 1.02, math.pi / 2, 3 * math.pi / 2, head_end + 0.02)
        dome[:, 0] = head_end + (dome[:, 0] - head_end) * (1 + head_end) / head
        pen.fill(dome, height=0.9)
        at = np.array([head_end, 0.0])
        for share in (0.75, 0.45):
            pen.fill(at + (dome - at) * share, height=1.0 if share < 0.5 else 0.97, shade=1.04)
    pen._thickness = head
    return pen.sprite(bevel=0.045, relief=1.5)


def _gear(rng: Generator, radius: float, light: Light) -> Sprite:
    material = plastic(rng) if rng.random() < 0.4 else metal(rng, rusty=0.15)
    pen = Pen(rng, radius, light, material)
    teeth = int(rng.integers(9, 17 if radius < 25 else 29))
    root = 1 - min(2.6 / teeth, 0.22) * rng.uniform(0.85, 1.1)
    step = 2 * math.pi / teeth
    slots = np.array([(-0.30, root), (-0.15, 1.0), (0.15, 1.0), (0.30, root)])
    angle = (np.arange(teeth)[:, None] * step + slots[:, 0] * step).ravel()
    reach = np.tile(slots[:, 1], teeth)
    thick, bore = rng.uniform(0.15, 0.45), rng.uniform(0.1, 0.25)
    pen.solid(np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1), thick, height=0.75)
    rim, hub = root - rng.uniform(0.1, 0.2), bore + rng.uniform(0.1, 0.2)
    kind = rng.random()
    if kind < 0.6:
        pen.fill(circle(radius=rim), z=thick, height=0.45, shade=0.82)
    if kind < 0.3 and rim - hub > 0.3 and radius > 16:
        count = int(rng.integers(3, 8))
        middle, size = (rim + hub) / 2, min((rim - hub) * 0.36, math.pi * (rim + hub) / 2 / count * 0.7)
        for k in range(count):
            turn = k * 2 * math.pi / count
            pen.hole(circle(middle * math.cos(turn), middle * math.sin(turn), size), thickness=thick)
    pen.fill(circle(radius=hub), z=thick, height=0.95)
    pen.hole(circle(radius=bore), thickness=thick)
    if rng.random() < 0.4 and radius > 16:
        pen.hole(box_outline(0, -bore * 0.3, bore * 1.35, bore * 0.3), thickness=thick)
    return pen.sprite(bevel=0.045, relief=1.3)


def _spring(rng: Generator, radius: float, light: Light) -> Sprite:
    radius *= 1.15
    pen = Pen(rng, radius, light, metal(rng, rusty=0.15))
    coils, wide = int(rng.integers(5, 8 if radius < 22 else 13)), rng.uniform(0.22, 0.42)
    pitch = 1.86 / coils
    wire = pitch * rng.uniform(0.34, 0.48)
    hooks = rng.random() < 0.35
    ends = 0.78 if hooks else 0.93
    pitch *= ends / 0.93
    starts = -ends + pitch * np.arange(coils)
    for x in starts[1:]:
        pen.rod((x, wide), (x - pitch * 0.5, -wide), wire * 0.46, shade=0.5, height=0.35)
    for x in starts:
        ends_at = (x, -wide), (x + pitch * 0.5, wide)
        for point in ends_at:
            pen.fill(circle(*point, wire * 0.5), shade=0.85, height=0.55)
        pen.rod(*ends_at, wire * 0.5, height=1.0)
    if hooks:
        for side, turn in ((-1, math.pi), (1, 0.0)):
            pen.stroke(arc(wide * 0.55, turn - 2.2, turn + 2.2, side * (ends + 0.05)), wire * 0.8, height=0.8)
    pen._thickness = wide
    return pen.sprite(bevel=0.03, relief=2.0)


PARTS: dict[str, Shape] = {
    "hex nut": _nut,
    "bolt": _bolt,
    "washer": _washer,
    "gear": _gear,
    "spring": _spring,
}
"""The demo's classes: name to the function that draws one."""


# -- things that lie around and carry no label -----------------------------------------------------------------------


def _pencil(rng: Generator, radius: float, light: Light) -> Sprite:
    paint = hsv(rng.uniform(0, 1), rng.uniform(0.6, 0.95), rng.uniform(0.4, 0.9))
    pen = Pen(rng, radius, light, Material(paint, 0, 0.5, 25, 0.05))
    wide = min(max(0.045, 4 / radius), 0.09)
    tip = 1 - wide * 4
    pen.rod((-1, 0), (tip, 0), wide)
    pen.rod((-1, 0), (-1 + wide * 2, 0), wide, colour=(0.85, 0.55, 0.5))
    pen.rod((-1 + wide * 2, 0), (-1 + wide * 4, 0), wide * 1.05, colour=(0.75, 0.72, 0.6))
    pen.rod((tip, 0), (1, 0), wide, end_radius=0.004, colour=(0.85, 0.7, 0.5))
    pen.rod((1 - wide * 1.1, 0), (1, 0), wide * 0.28, end_radius=0.004, colour=(0.12, 0.12, 0.13))
    for y in (-wide * 0.45, wide * 0.45):
        pen.mark([(-1 + wide * 4, y), (tip, y)], 0.008, shade=0.7)
    return pen.sprite(bevel=0.02)


def _tape(rng: Generator, radius: float, light: Light) -> Sprite:
    colour = hsv(rng.choice([0.12, 0.13, 0.6, 0.0, 0.35]), rng.uniform(0.2, 0.8), rng.uniform(0.5, 0.9))
    pen = Pen(rng, radius, light, Material(colour, 0, 0.15, 10, 0.12), flat=True)
    wide = rng.uniform(0.1, 0.22)
    y = np.linspace(-wide, wide, 9)
    left, right = (np.stack([x + rng.normal(0, 0.015, 9), y], 1) for x in (-0.95, 0.95))  # torn ends
    pen.fill(np.concatenate([left, right[::-1]]), height=0.3)
    return pen.sprite(bevel=0.01, opacity=rng.uniform(0.75, 1.0))


def _ruler(rng: Generator, radius: float, light: Light) -> Sprite:
    steel = rng.random() < 0.5
    material = (
        metal(rng, rusty=0.1)
        if steel
        else Material(hsv(rng.uniform(0.1, 0.16), rng.uniform(0.3, 0.8), 0.85), 0, 0.3)
    )
    pen = Pen(rng, radius, light, material, flat=True)
    wide = rng.uniform(0.08, 0.14)
    pen.solid(box_outline(-0.97, -wide, 0.97, wide), 0.02, height=0.5)
    step = max(0.022, 2.5 / radius)
    for k, x in enumerate(np.arange(-0.93, 0.93, step)):
        pen.mark(
            [(x, -wide), (x, -wide + wide * (0.8 if k % 10 == 0 else 0.6 if k % 5 == 0 else 0.35))],
            0.004,
            shade=0.25,
        )
    return pen.sprite(bevel=0.015)


def _cable(rng: Generator, radius: float, light: Light) -> Sprite:
    pen = Pen(rng, radius, light, plastic(rng), flat=True)
    t = np.linspace(0, 1, 28)[:, None]
    a, b, c, d = (np.array([x, rng.uniform(-0.6, 0.6)]) for x in (-0.85, -0.3, 0.3, 0.85))
    curve = (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t * t * (1 - t) * c + t**3 * d
    wide = rng.uniform(0.03, 0.07)
    for share, height in ((1.0, 0.3), (0.7, 0.7), (0.35, 1.0)):
        pen.stroke(curve, wide * share, height=height)
    return pen.sprite(bevel=0.02)


def _hex_key(rng: Generator, radius: float, light: Light) -> Sprite:
    pen = Pen(rng, radius, light, metal(rng, rusty=0.2))
    corner, wide = rng.uniform(0.12, 0.2), rng.uniform(0.05, 0.08)
    path = np.concatenate(
        [
            [(0.95, 0.3)],
            arc(corner, math.pi / 2, math.pi, -0.75, 0.3 - corner)[:, :],
            [(-0.75 - corner, -0.4)],
        ]
    )
    for share, height in ((1.0, 0.4), (0.6, 0.85), (0.2, 1.0)):
        pen.stroke(path, wide * share * 1.6, height=height)
    return pen.sprite(bevel=0.02)


def _screwdriver(rng: Generator, radius: float, light: Light) -> Sprite:
    handle = hsv(rng.uniform(0, 1), rng.uniform(0.6, 0.95), rng.uniform(0.35, 0.85))
    pen = Pen(rng, radius, light, Material(handle, 0.1, 0.7, 30, 0.05))
    steel: Colour = (0.7, 0.7, 0.72)
    wide = rng.uniform(0.1, 0.14)
    pen.rod((0, 0), (0.85, 0), wide * 0.3, colour=steel)
    pen.rod((0.85, 0), (0.98, 0), wide * 0.4, end_radius=wide * 0.25, colour=scaled(steel, 0.8))
    pen.rod((-0.95, 0), (-0.1, 0), wide)
    pen.rod((-0.1, 0), (0.04, 0), wide * 0.9, end_radius=wide * 0.5, shade=0.7)
    for y in np.linspace(-wide, wide, 7)[1:-1]:
        pen.mark([(-0.85, y), (-0.2, y)], 0.012, shade=0.6, height=0.4)
    return pen.sprite(bevel=0.03)


def _shaving(rng: Generator, radius: float, light: Light) -> Sprite:
    radius = min(radius, rng.uniform(8, 26))
    material = metal(rng, rusty=0.1) if rng.random() < 0.5 else Material(hsv(0.09, 0.45, 0.75), 0, 0.2)
    pen = Pen(rng, radius, light, material)
    turn = np.linspace(0, rng.uniform(2, 7), 26)
    grow = np.linspace(0.25, 0.85, 26)
    pen.stroke(
        np.stack([grow * np.cos(turn) * rng.uniform(0.4, 1), grow * np.sin(turn)], 1), 0.13, height=0.7
    )
    return pen.sprite(bevel=0.05)


def _stain(rng: Generator, radius: float, light: Light) -> Sprite:
    radius *= rng.uniform(0.3, 0.8)
    pen = Pen(
        rng, radius, light, Material(hsv(rng.uniform(0.05, 0.1), 0.5, 0.12), 0, 0.0, 10, 0.0), flat=True
    )
    angle = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    reach = 0.7 + sum(rng.normal(0, 0.12 / k) * np.cos(k * angle + rng.uniform(0, 6.28)) for k in range(1, 7))
    pen.fill(np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1) * 0.9, height=0.0)
    if rng.random() < 0.5:  # the ring a cup leaves
        pen.hole(np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1) * 0.82)
    return pen.sprite(bevel=0.05, opacity=rng.uniform(0.15, 0.4))


CLUTTER: tuple[Shape, ...] = (
    _pencil,
    _tape,
    _ruler,
    _cable,
    _hex_key,
    _screwdriver,
    _shaving,
    _shaving,
    _stain,
    _stain,
)
"""Things that lie on the bench and carry no label."""

_SIZES = ((320, 240), (320, 240), (320, 240), (320, 240), (240, 320), (320, 320), (320, 214), (280, 320))


def demo_image(seed: int, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """One image of the demo.

    Args:
        seed: Seed of the dataset.
        index: Number of the image, 0-based.

    Returns:
        The picture, uint8 [height, width, 3]; boxes, float32 [n, 4], xyxy pixels; classes, int64 [n].
    """
    rng = np.random.default_rng([seed, index])
    width, height = _SIZES[int(rng.integers(len(_SIZES)))]
    count = (0, 0) if rng.random() < 0.04 else (1, 3) if rng.random() < 0.3 else (3, 6)
    # parts lie apart and are large: a small detector can tell a nut from a washer after minutes on a CPU
    staging = Staging(
        count=count,
        radius=(36, 72) if count[1] < 4 else (26, 50),
        hidden=0.1,
        contrast=0.12,
        distractors=(0, 2),
        clustered=0.0,
        blur=0.5,
        grain=0.015,
        depth_of_field=0.1,
    )
    return draw_scene(rng, width, height, PARTS, distractors=CLUTTER, staging=staging)


# -- planted faults --------------------------------------------------------------------------------------------------


class _Planting:
    """Spoils labels and files, an image for each fault, and keeps the truth."""

    def __init__(
        self, folder: Path, seed: int, pictures: list["_Picture"], names: list[str], last_number: int
    ) -> None:
        self.folder, self.seed, self.pictures, self.names = folder, seed, pictures, names
        self.rng = np.random.default_rng([seed, len(pictures), 404])
        self.number = last_number
        self.drawn = len(pictures)
        self.faults: list[dict[str, Any]] = []
        order = self.rng.permutation(len(pictures)).tolist()
        self.free: list[_Picture] = [pictures[k] for k in order if pictures[k].labels]

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

    def _record(self, kind: str, picture: "_Picture | None", label: "_Label | None", **more: Any) -> None:
        self.faults.append(
            {
                "kind": kind,
                "image": picture.id if picture else None,
                "annotation": label.number if label else None,
                "box": label.box if label else None,
                **more,
            }
        )

    def _take(self, fits: "Callable[[_Picture], bool]" = lambda picture: True) -> "_Picture":
        """An image without a fault that fits."""
        for k, picture in enumerate(self.free):
            if fits(picture):
                return self.free.pop(k)
        raise ValueError(
            "this seed left no image for one of the faults: draw more images or take another seed"
        )

    def _clear_label(self, picture: "_Picture") -> "_Label":
        """A box large enough that a fault in it can be seen, the largest where none is."""
        large = [b for b in picture.labels if _short_side(b.box) >= 16]
        return (
            large[int(self.rng.integers(len(large)))]
            if large
            else max(picture.labels, key=lambda b: _short_side(b.box))
        )

    def _add(self, picture: "_Picture", box: Sequence[float], name: str) -> "_Label":
        self.number += 1
        label = _Label(self.number, [float(v) for v in box], name)
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

    def _copy(self, picture: "_Picture", split: str) -> "_Picture":
        """The same file and labels under another name."""
        number = len(self.pictures) + 1
        name = f"bench_{number - 1:04d}.jpg"  # a name like all others: nothing gives the copy away
        twin = _Picture(picture.index, number, split, name, picture.width, picture.height)
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
        _save_jpeg(self.folder / picture.id, stored, self.seed, picture.index, exif)
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


def _has_clear_box(picture: "_Picture") -> bool:
    return any(_short_side(label.box) >= 16 for label in picture.labels)


def _touches(box: Sequence[float], picture: "_Picture") -> bool:
    """Whether a box reaches the picture's edge (and no opposite edge, so that the truth stays clear)."""
    edges = (box[0] <= 0, box[1] <= 0, box[2] >= picture.width, box[3] >= picture.height)
    return sum(edges) == 1 and _short_side(box) >= 12


# -- files -----------------------------------------------------------------------------------------------------------


def demo_dataset(
    images: int = 400, *, seed: int = 0, faults: bool = False, folder: Path | str | None = None
) -> Dataset:
    """The demo: workshop parts on a bench, five classes, split into "train", "val" and "test" (70, 20 and 10 %).

    Drawn at the first call and kept; the next call with the same arguments only reads it.

    Args:
        images: How many images; at least 3, with faults at least 60.
        seed: Another seed gives other images.
        faults: Plant the usual faults in labels and files; `demo_faults()` lists them.
        folder: Where to keep it. Default: a folder of its own in `$ODKIT_CACHE`, else in the user's cache folder, else
            (where that cannot be written) in the system's temporary folder.

    Raises:
        ValueError: Too few images, or a negative seed.
        FileExistsError: `folder` holds something else.
    """
    _check(images, seed, faults)
    if folder is None:
        folder = _cache_folder() / _key(images, seed, faults)
        if folder.exists() and not _is_complete(folder, images, seed, faults):
            shutil.rmtree(folder, ignore_errors=True)  # ours, and damaged
    root = write_demo(folder, images=images, seed=seed, faults=faults)
    if faults:  # read as a stranger's folder would be: that is what the faults are for
        from odkit.formats import load_dataset

        return load_dataset(root).replace(name="demo with faults")
    dataset = Dataset.load(root / "dataset.npz")
    paths = np.array([str(root / image_id) for image_id in dataset.image_ids], object)
    return dataset.replace(root=root, image_paths=paths)


def write_demo(folder: Path | str, *, images: int = 400, seed: int = 0, faults: bool = False) -> Path:
    """Write the demo as a COCO folder: pictures in train/, val/ and test/, labels in annotations/instances_*.json.

    It is drawn beside the folder and renamed when whole, so that an interrupted call leaves nothing half done and two
    processes may write at once. A folder that already holds this very demo is left as it is.

    Args:
        folder: Where to; it must not exist or be empty.
        images: How many images; at least 3, with faults at least 60.
        seed: Another seed gives other images.
        faults: Plant the usual faults and list them in faults.json.

    Returns:
        The folder's absolute path.

    Raises:
        ValueError: Too few images, or a negative seed.
        FileExistsError: The folder holds something else, or is a file.
    """
    _check(images, seed, faults)
    folder = Path(os.path.abspath(Path(folder).expanduser()))
    if _is_complete(folder, images, seed, faults):
        return folder
    _refuse_foreign(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    inside = folder if folder.exists() and not os.access(folder.parent, os.W_OK) else folder.parent
    workshop = Path(tempfile.mkdtemp(prefix=f"{_DRAWING}{folder.name}-", dir=inside))
    try:
        workshop.chmod(0o755)  # mkdtemp's folders are closed to others
        _draw_all(workshop, folder, images, seed, faults)
        _move(workshop, folder, images, seed, faults)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return folder


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
        raise FileNotFoundError(f"{folder} has no faults.json: draw the demo with faults=True")
    return list(orjson.loads(path.read_bytes()))


_DRAWING = ".drawing-"  # how the folders begin in which an unfinished demo lies
_SPLITS = {"train": 0.7, "val": 0.2, "test": 0.1}


@dataclass
class _Label:
    """A box as it will stand in the labels."""

    number: int  # COCO's annotation id
    box: list[float]  # xyxy, pixels
    name: str  # of its class


@dataclass
class _Picture:
    """An image as it will stand in the labels; `index` is the scene it shows."""

    index: int
    number: int  # COCO's image id
    split: str
    file: str
    width: int
    height: int
    labels: list[_Label] = field(default_factory=list)
    listed: bool = True  # in the labels at all

    @property
    def id(self) -> str:
        return f"{self.split}/{self.file}"


def _check(images: int, seed: int, faults: bool) -> None:
    fewest = FEWEST_WITH_FAULTS if faults else FEWEST_IMAGES
    if images < fewest:
        why = (
            "each planted fault needs an image of its own"
            if faults
            else "one for each of train, val and test"
        )
        raise ValueError(f"images={images} is too few: at least {fewest} ({why})")
    if seed < 0:
        raise ValueError(f"seed={seed} must be 0 or more")


def _key(images: int, seed: int, faults: bool) -> str:
    return f"demo-v{DEMO_VERSION}-{images}-seed{seed}{'-faults' if faults else ''}"


def _cache_folder() -> Path:
    """A folder of the user's that can be written, or one that is theirs in the temporary folder."""
    if os.environ.get("ODKIT_CACHE"):
        return Path(os.environ["ODKIT_CACHE"]).expanduser().absolute()
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "odkit"
        base.mkdir(parents=True, exist_ok=True)
        if os.access(base, os.W_OK):
            return base.absolute()
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        pass
    user = os.getuid() if hasattr(os, "getuid") else "user"
    base = Path(tempfile.gettempdir()) / f"odkit-{user}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    return base


def _is_complete(folder: Path, images: int, seed: int, faults: bool) -> bool:
    """Whether the folder holds this very demo, whole: demo.json is written last, and all files are still there."""
    try:
        marker = orjson.loads((folder / "demo.json").read_bytes())
        files = sum(len(list(os.scandir(folder / split))) for split in _SPLITS)
    except (OSError, orjson.JSONDecodeError):
        return False
    return bool(marker.get("demo") == _key(images, seed, faults) and marker.get("files") == files)


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; the demo needs a folder: give another path")
    there = [entry.name for entry in os.scandir(folder) if not entry.name.startswith(_DRAWING)]
    if "demo.json" in there:
        raise FileExistsError(
            f"{folder} holds another demo (other images, seed, faults or version, or files missing); "
            "delete it or give another folder"
        )
    if there:
        some = ", ".join(sorted(there)[:3]) + (", ..." if len(there) > 3 else "")
        raise FileExistsError(f"{folder} is not empty (it holds {some}); give a new or an empty folder")


def _sweep(folder: Path) -> None:
    """Remove what interrupted calls left behind: unfinished drawings a day old."""
    for place in (folder.parent, folder):
        if place.is_dir():
            for left in place.glob(f"{_DRAWING}{folder.name}-*"):
                try:
                    if time.time() - left.stat().st_mtime > 86_400:
                        shutil.rmtree(left, ignore_errors=True)
                except OSError:
                    continue


def _move(workshop: Path, folder: Path, images: int, seed: int, faults: bool) -> None:
    """Put the finished drawing where it belongs: in one step, or into a folder that cannot be replaced (a mount)."""
    try:
        if workshop.parent != folder:
            os.replace(workshop, folder)
            return
    except OSError:
        if _is_complete(folder, images, seed, faults):  # another process was faster
            return
        _refuse_foreign(folder)
    folder.mkdir(exist_ok=True)
    for entry in sorted(workshop.iterdir(), key=lambda path: path.name == "demo.json"):
        shutil.move(entry, folder / entry.name)


def _draw_all(workshop: Path, folder: Path, images: int, seed: int, faults: bool) -> None:
    """Draw everything in `workshop`; the paths in it are those of `folder`, where it will be."""
    dealt = _deal(images, seed)
    for split in _SPLITS:
        (workshop / split).mkdir()
    (workshop / "annotations").mkdir()
    pictures, number = [], 0
    for index in progress_bar(range(images), desc="drawing the demo", unit="image", delay=1):
        rgb, boxes, classes = demo_image(seed, index)
        picture = _Picture(
            index, index + 1, dealt[index], f"bench_{index:04d}.jpg", rgb.shape[1], rgb.shape[0]
        )
        for box, name in zip(boxes.tolist(), (list(PARTS)[k] for k in classes), strict=True):
            number += 1
            picture.labels.append(_Label(number, box, name))
        _save_jpeg(workshop / picture.id, rgb, seed, index)
        pictures.append(picture)
    names = list(PARTS)
    if faults:
        planted = _Planting(workshop, seed, pictures, names, number)
        found = planted.plant()
        (workshop / "faults.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    else:
        _columns(folder, pictures, names).save(workshop / "dataset.npz")
    for split in _SPLITS:
        coco = _coco([p for p in pictures if p.split == split and p.listed], names, split)
        (workshop / "annotations" / f"instances_{split}.json").write_bytes(orjson.dumps(coco))
    (workshop / "README.txt").write_text(_readme(images, seed, faults), encoding="utf-8")
    files = sum(len(list(os.scandir(workshop / split))) for split in _SPLITS)
    (workshop / "demo.json").write_bytes(orjson.dumps({"demo": _key(images, seed, faults), "files": files}))


def _deal(images: int, seed: int) -> list[str]:
    """The split of each image; every split gets at least one."""
    val, test = max(round(images * _SPLITS["val"]), 1), max(round(images * _SPLITS["test"]), 1)
    order = np.random.default_rng([seed, images, 702]).permutation(images)
    splits = np.full(images, "train", object)
    splits[order[:val]] = "val"
    splits[order[val : val + test]] = "test"
    return splits.tolist()


def _save_jpeg(
    path: Path, rgb: NDArray[np.uint8], seed: int, index: int, exif: Image.Exif | None = None
) -> None:
    quality = int(np.random.default_rng([seed, index, 1]).integers(55, 94))
    Image.fromarray(rgb).save(path, quality=quality, exif=exif or Image.Exif())


def _columns(folder: Path, pictures: Sequence[_Picture], names: Sequence[str]) -> Dataset:
    labels = [(k, label) for k, picture in enumerate(pictures) for label in picture.labels]
    return Dataset(
        name="demo",
        root=folder,
        format="demo",
        class_names=tuple(names),
        image_paths=np.array([str(folder / p.id) for p in pictures], object),
        image_sizes=np.array([(p.width, p.height) for p in pictures], np.int32),
        image_splits=np.array([p.split for p in pictures], object),
        boxes=np.array([label.box for _, label in labels], np.float32),
        box_classes=np.array([names.index(label.name) for _, label in labels], np.int32),
        box_images=np.array([k for k, _ in labels], np.int32),
        box_ids=np.array([str(label.number) for _, label in labels], object),
        notes=(f"drawn by odkit (demo version {DEMO_VERSION})",),
    )


def _coco(pictures: Sequence[_Picture], names: Sequence[str], split: str) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        size = {"width": picture.width, "height": picture.height}
        images.append({"id": picture.number, "file_name": picture.file, **size, "license": 1})
        for label in picture.labels:
            left, top, right, bottom = label.box
            width, height = right - left, bottom - top
            annotations.append(
                {
                    "id": label.number,
                    "image_id": picture.number,
                    "category_id": names.index(label.name) + 1,
                    "bbox": [left, top, width, height],
                    "area": abs(width * height),
                    "iscrowd": 0,
                    "segmentation": [],
                }
            )
    return {
        "info": {"description": f"odkit demo, {split}", "version": str(DEMO_VERSION)},
        "licenses": [
            {"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}
        ],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": name, "supercategory": "part"} for k, name in enumerate(names, 1)],
    }


def _readme(images: int, seed: int, faults: bool) -> str:
    told = "Faults were planted on purpose; faults.json lists every one with the truth.\n" if faults else ""
    return (
        f"odkit demo: {images} drawn scenes of workshop parts (seed {seed}, version {DEMO_VERSION}).\n"
        "No photograph, no person, no rights: CC0.\n\n"
        "train/ val/ test/                   the pictures (JPEG)\n"
        "annotations/instances_SPLIT.json    the labels (COCO: boxes as x, y, width, height in pixels)\n"
        f"{told}\n"
        f"The same again: odkit demo FOLDER --images {images} --seed {seed}{' --faults' if faults else ''}\n"
    )
