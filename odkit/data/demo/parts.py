"""The parts and the clutter of the demo, drawn from code."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from odkit.data.demo.scenes import (
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


def save_jpeg(
    path: Path, rgb: NDArray[np.uint8], seed: int, index: int, exif: Image.Exif | None = None
) -> None:
    quality = int(np.random.default_rng([seed, index, 1]).integers(55, 94))
    Image.fromarray(rgb).save(path, quality=quality, exif=exif or Image.Exif())
