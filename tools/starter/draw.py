"""The images the starter is trained on: everyday and abstract things, printed signs, cells, in every sort of picture.

None of its classes is one of the demo's, so that a detector that starts from these weights has seen how to find
things, not the things it will be asked for. `starter_image()` draws one labelled image from a seed and an index, fast
enough to feed training as it goes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from odkit.data.demo.scenes import (
    BENCHES,
    Background,
    Canvas,
    Colour,
    Floats,
    Light,
    Material,
    Pen,
    Shape,
    Sprite,
    Staging,
    arc,
    box_outline,
    circle,
    hsv,
    metal,
    mix,
    noise,
    photograph,
    plastic,
    random_light,
    scaled,
    scatter,
)

# -- fills: what a thing's surface looks like ------------------------------------------------------------------------


def _material(rng: Generator) -> Material:
    """Any material: plastic, paint, metal, wood, paper."""
    kind = rng.random()
    if kind < 0.22:
        return metal(rng)
    if kind < 0.4:
        return plastic(rng)
    colour = hsv(rng.uniform(0, 1), rng.uniform(0, 1) ** 0.7, rng.uniform(0.08, 0.98))
    return Material(colour, 0.0, rng.uniform(0, 0.5), rng.uniform(5, 40), rng.uniform(0, 0.4))


def _ink(rng: Generator) -> Colour:
    return hsv(rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.98))


def _finish(pen: Pen, rng: Generator) -> Sprite:
    """Light the drawing, then now and then give it a pattern, a gradient or less opacity."""
    relief = 0.0 if rng.random() < 0.2 else rng.uniform(0.5, 1.6)
    opacity = rng.uniform(0.55, 0.9) if rng.random() < 0.08 else 1.0
    sprite = pen.sprite(bevel=rng.uniform(0.02, 0.1), relief=relief, opacity=opacity)
    kind = rng.random()
    if kind < 0.3:
        h, w = sprite.mask.shape
        x, y = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)[:, None]
        angle, step = rng.uniform(0, math.pi), max(rng.uniform(0.08, 0.5) * pen.radius, 3.0)
        u = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / step)
        v = (y * math.cos(angle) - x * math.sin(angle)) * (2 * math.pi / step)
        if kind < 0.08:
            share = (np.sin(u) > rng.uniform(-0.5, 0.5)).astype(np.float32)
        elif kind < 0.13:
            share = (np.sin(u) * np.sin(v) > rng.uniform(-0.2, 0.4)).astype(np.float32)
        elif kind < 0.21:
            share = np.clip(0.5 + (u - u.mean()) / (np.ptp(u) + 1e-6), 0, 1)
        else:
            share = np.clip(0.5 + 0.5 * noise(rng, w, h, 2, 2, int(rng.integers(1, 4))), 0, 1)
        sprite.rgb += (np.asarray(_ink(rng), np.float32) - sprite.rgb) * (share * rng.uniform(0.3, 0.9))[
            ..., None
        ]
    return sprite


# -- the things ------------------------------------------------------------------------------------------------------

Drawing = Callable[[Pen, Generator], None]


def _star(pen: Pen, rng: Generator) -> None:
    points = int(rng.integers(4, 8))
    angle = np.arange(2 * points) * math.pi / points
    reach = np.where(np.arange(2 * points) % 2, rng.uniform(0.35, 0.6), 1.0)
    pen.solid(np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1), rng.uniform(0, 0.3))


def _cross(pen: Pen, rng: Generator) -> None:
    arm, long = rng.uniform(0.12, 0.35), rng.uniform(0.6, 0.95)
    thick = rng.uniform(0, 0.3)
    pen.solid(box_outline(-0.93, -arm, 0.93, arm), thick)
    pen.solid(box_outline(-arm, -long, arm, long * 0.9), thick)


def _arrow(pen: Pen, rng: Generator) -> None:
    shaft, head, neck = rng.uniform(0.08, 0.25), rng.uniform(0.4, 0.7), rng.uniform(0.0, 0.5)
    half = [(-1, shaft), (neck, shaft), (neck - rng.uniform(0, 0.2), head), (1, 0)]
    pen.solid(np.array(half + [(x, -y) for x, y in half[-2::-1]]), rng.uniform(0, 0.2))


def _ring_piece(pen: Pen, rng: Generator) -> None:
    span, inner = rng.uniform(0.7, 2.6), rng.uniform(0.4, 0.75)
    pen.solid(np.concatenate([arc(1, -span, span), arc(inner, span, -span)]), rng.uniform(0, 0.3))


def _crescent(pen: Pen, rng: Generator) -> None:
    tip = rng.uniform(1.2, 1.9)
    bulge = rng.uniform(0.2, 0.65)
    inner = arc(1, tip, -tip) * np.array([bulge, 1.0])
    inner[:, 0] += math.cos(tip) * (1 - bulge)
    pen.solid(np.concatenate([arc(1, -tip, tip), inner]), rng.uniform(0, 0.2))


def _heart(pen: Pen, rng: Generator) -> None:
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    pen.solid(np.stack([x, y - 2], 1) / 17.5, rng.uniform(0, 0.3))


def _letter(strokes: list[list[tuple[float, float]]]) -> Drawing:
    def draw(pen: Pen, rng: Generator) -> None:
        width, wide = rng.uniform(0.16, 0.36), rng.uniform(0.7, 1.0)
        for line in strokes:
            pen.stroke(np.array(line) * [wide, 1.0], width)

    return draw


_LETTER_A = _letter([[(-0.6, 0.78), (0, -0.8), (0.6, 0.78)], [(-0.36, 0.2), (0.36, 0.2)]])
_LETTER_E = _letter([[(0.5, -0.75), (-0.45, -0.75), (-0.45, 0.75), (0.5, 0.75)], [(-0.45, 0), (0.35, 0)]])
_LETTER_R = _letter(
    [
        [(-0.45, 0.8), (-0.45, -0.75), (0.2, -0.75), (0.48, -0.4), (0.2, -0.02), (-0.45, -0.02)],
        [(0, 0), (0.5, 0.8)],
    ]
)
_NUMBER_5 = _letter(
    [[(0.45, -0.78), (-0.35, -0.78), (-0.4, -0.1), (0.1, -0.2), (0.48, 0.25), (0.2, 0.72), (-0.45, 0.7)]]
)
_NUMBER_8 = _letter([arc(0.36, 0, 6.3, 0, -0.42).tolist(), arc(0.42, 0, 6.3, 0, 0.38).tolist()])


def _disc(pen: Pen, rng: Generator) -> None:
    pen.solid(circle(radius=1.0, y_radius=rng.uniform(0.45, 1.0)), rng.uniform(0, 0.3))


def _coin(pen: Pen, rng: Generator) -> None:
    thick = rng.uniform(0.05, 0.15)
    pen.solid(circle(), thick, height=0.9)
    pen.fill(circle(radius=0.86), z=thick, height=0.5, shade=0.92)
    points = circle(radius=0.5, points=int(rng.integers(3, 9)))
    pen.fill(points * rng.uniform(0.6, 1.2), z=thick, height=0.95, shade=1.05)


def _button(pen: Pen, rng: Generator) -> None:
    pen.solid(circle(), 0.15)
    pen.fill(circle(radius=0.75), z=0.15, height=0.6, shade=0.9)
    count = int(rng.choice([2, 4]))
    for k in range(count):
        turn = k * 2 * math.pi / count
        pen.hole(circle(0.27 * math.cos(turn), 0.27 * math.sin(turn), rng.uniform(0.1, 0.16)), thickness=0.15)


def _tyre(pen: Pen, rng: Generator) -> None:
    rubber, rim = scaled((1, 1, 1), rng.uniform(0.08, 0.25)), scaled((1, 1, 1), rng.uniform(0.5, 0.85))
    pen.solid(circle(), 0.3, colour=rubber, height=0.8)
    pen.fill(circle(radius=0.62), z=0.3, colour=rim, height=0.4)
    spokes = int(rng.integers(3, 9))
    for k in range(spokes):
        turn = k * 2 * math.pi / spokes
        spot = circle(0.4 * math.cos(turn), 0.4 * math.sin(turn), rng.uniform(0.07, 0.11))
        pen.paint(np.asarray(spot), scaled(rubber, 0.8), height=0.1, z=0.3)
    pen.fill(circle(radius=0.14), z=0.3, colour=rim, height=0.7)


def _striped_ball(pen: Pen, rng: Generator) -> None:
    other = _ink(rng)
    pen.fill(circle(), height=0.25)
    count = int(rng.integers(2, 7))
    edges = np.linspace(0, math.pi, count * 2 + 1)
    for a, b in zip(edges[::2], edges[1::2], strict=False):
        x = np.cos([a, b])
        lines = [np.stack([x_ * np.cos(t), np.sin(t)], 1) for x_, t in ((x[0], _T), (x[1], _T[::-1]))]
        pen.paint(np.concatenate(lines), other)
    for share in (0.9, 0.75, 0.55, 0.3):
        _raise(pen, circle(radius=share), math.sqrt(1 - share * share * 0.9))
    pen._thickness = 1.0


_T = np.linspace(-math.pi / 2, math.pi / 2, 16)


def _raise(pen: Pen, points: Floats, height: float) -> None:
    """Lift a part of what is drawn without changing its colour."""
    pen._pens[1].polygon(pen.place(points), fill=round(255 * height))


def _mug(pen: Pen, rng: Generator) -> None:
    for share in (1.0, 0.55):
        pen.stroke(arc(0.34, -1.7, 1.7, 0.42, 0.1), 0.2 * share, height=0.3 + 0.6 * (1 - share))
    pen.rod((-0.1, 0.85), (-0.1, -0.7), 0.6, end_radius=rng.uniform(0.55, 0.68))
    pen.fill(circle(-0.1, -0.7, 0.62, 0.18), height=0.7, shade=1.1)
    pen.fill(circle(-0.1, -0.69, 0.54, 0.13), height=0.2, colour=_ink(rng), shade=0.6)


def _bottle(pen: Pen, rng: Generator) -> None:
    body, neck, shoulder = rng.uniform(0.24, 0.36), rng.uniform(0.08, 0.13), rng.uniform(-0.35, 0.1)
    pen.rod((0, 0.98), (0, shoulder), body)
    pen.rod((0, shoulder), (0, shoulder - 0.25), body, end_radius=neck)
    pen.rod((0, shoulder - 0.22), (0, -0.9), neck)
    pen.rod((0, -0.85), (0, -1), neck * 1.25, colour=_ink(rng))
    if rng.random() < 0.7:
        pen.paint(box_outline(-body, shoulder + 0.2, body, shoulder + rng.uniform(0.4, 0.6)), _ink(rng))


def _leaf(pen: Pen, rng: Generator) -> None:
    wide, n = rng.uniform(0.25, 0.55), 24
    x = np.linspace(-0.8, 1, n)
    y = wide * np.sin(np.linspace(0, math.pi, n)) ** rng.uniform(0.6, 1.2)
    y *= 1 + rng.uniform(0, 0.12) * np.cos(np.arange(n) * math.pi)
    pen.fill(np.concatenate([np.stack([x, y], 1), np.stack([x, -y], 1)[::-1]]), height=0.7)
    pen.stroke([(-1, 0), (-0.7, 0)], 0.06, shade=0.7)
    pen.mark([(-0.8, 0), (0.95, 0)], 0.03, shade=0.6, height=0.4)
    for k in range(3, n - 4, 4):
        for side in (-1, 1):
            pen.mark([(x[k], 0), (x[k + 3], side * y[k + 3] * 0.9)], 0.02, shade=0.7)


def _flower(pen: Pen, rng: Generator) -> None:
    petals = int(rng.integers(5, 10))
    size = min(math.pi * 0.62 / petals * rng.uniform(0.9, 1.4), 0.38)
    for k in range(petals):
        turn = k * 2 * math.pi / petals
        t = np.linspace(0, 2 * math.pi, 18, endpoint=False)
        petal = np.stack([0.62 + 0.36 * np.cos(t), size * np.sin(t)], 1)
        spin = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        pen.fill(petal @ spin, height=0.6 + 0.3 * (k % 2), shade=0.9 + 0.1 * (k % 2))
    pen.fill(circle(radius=rng.uniform(0.2, 0.34)), colour=_ink(rng))


def _tree(pen: Pen, rng: Generator) -> None:
    pen.fill(box_outline(-0.1, 0.5, 0.1, 1), colour=(0.4, 0.27, 0.15))
    tiers = int(rng.integers(2, 5))
    for k in range(tiers):
        base, wide = 0.6 - k * 1.1 / tiers, 0.62 * (1 - k * 0.6 / tiers)
        pen.fill([(-wide, base), (wide, base), (0, base - 1.5 / tiers)], shade=0.8 + 0.1 * k)


def _fish(pen: Pen, rng: Generator) -> None:
    t = np.linspace(0, 2 * math.pi, 30, endpoint=False)
    tall = rng.uniform(0.3, 0.5)
    pen.fill([(-0.45, 0), (-1, -tall), (-0.85, 0), (-1, tall)], shade=0.85, height=0.5)
    pen.fill(np.stack([0.2 + 0.78 * np.cos(t), tall * np.sin(t) * (1 + 0.2 * np.cos(t))], 1), height=0.9)
    pen.paint(circle(0.65, -tall * 0.25, 0.08), (0.97, 0.97, 0.97))
    pen.paint(circle(0.66, -tall * 0.25, 0.045), (0.05, 0.05, 0.05))
    pen.mark(arc(0.35, -1, 1, 0.1, 0), 0.03, shade=0.6)


def _bird(pen: Pen, rng: Generator) -> None:
    pen.fill(circle(-0.05, 0.1, 0.55, 0.36))
    pen.fill([(-0.45, 0), (-1, -0.25), (-0.95, 0.15), (-0.4, 0.3)], shade=0.8)
    pen.fill(circle(0.45, -0.3, 0.28))
    pen.fill([(0.68, -0.4), (0.98, -0.28), (0.68, -0.18)], colour=(0.9, 0.6, 0.1))
    pen.fill([(-0.3, 0), (0.3, 0), (-0.35, 0.42)], shade=0.7, height=0.6)
    pen.paint(circle(0.52, -0.36, 0.06), (0.05, 0.05, 0.05))


def _house(pen: Pen, rng: Generator) -> None:
    wide, eaves = rng.uniform(0.5, 0.75), rng.uniform(-0.25, 0.0)
    pen.fill(box_outline(-wide, eaves, wide, 0.65), height=0.7)
    pen.fill([(-wide - 0.14, eaves), (0, -0.85), (wide + 0.14, eaves)], colour=_ink(rng))
    pen.paint(box_outline(-0.12, 0.2, 0.14, 0.65), _ink(rng), height=0.4)
    for x in (-wide * 0.6, wide * 0.6):
        pen.paint(box_outline(x - 0.11, eaves + 0.15, x + 0.11, eaves + 0.37), (0.75, 0.85, 0.95), height=0.4)


def _key(pen: Pen, rng: Generator) -> None:
    bow = rng.uniform(0.25, 0.34)
    pen.solid(circle(-1 + bow, 0, bow), 0.08)
    pen.solid(box_outline(-0.5, -0.08, 0.98, 0.08), 0.08)
    for x in np.linspace(0.45, 0.88, int(rng.integers(2, 5))):
        pen.solid(box_outline(x, 0, x + 0.09, rng.uniform(0.18, 0.32)), 0.08)
    pen.hole(circle(-1 + bow, 0, bow * rng.uniform(0.35, 0.6)), thickness=0.08)


def _cone(pen: Pen, rng: Generator) -> None:
    other = (0.95, 0.95, 0.93) if rng.random() < 0.7 else _ink(rng)
    pen.fill([(-0.7, 0.92), (-0.62, 0.7), (0.62, 0.7), (0.7, 0.92)], shade=0.8, height=0.5)
    pen.rod((0, 0.76), (0, -0.95), 0.45, end_radius=0.07)
    for top, bottom in ((-0.5, -0.2), (0.1, 0.4)):
        above, below = (0.45 + (0.07 - 0.45) * (0.76 - y) / 1.71 for y in (top, bottom))
        pen.paint([(-above, top), (above, top), (below, bottom), (-below, bottom)], other)


def _spiral(pen: Pen, rng: Generator) -> None:
    turns = rng.uniform(2, 4)
    t = np.linspace(0.1, 1, 60)
    angle = t * turns * 2 * math.pi
    pen.stroke(np.stack([t * np.cos(angle), t * np.sin(angle)], 1) * 0.93, rng.uniform(0.3, 0.5) / turns)


def _warning_sign(pen: Pen, rng: Generator) -> None:
    ink = (0.05, 0.05, 0.05) if rng.random() < 0.6 else _ink(rng)
    corners = circle(points=3) @ np.array([[0, -1], [1, 0]])
    pen.fill(corners, colour=ink, height=0.5)
    pen.fill(corners * 0.76, height=0.6)
    pen.paint([(-0.09, -0.42), (0.09, -0.42), (0.04, 0.12), (-0.04, 0.12)], ink)
    pen.paint(circle(0, 0.26, 0.07), ink)


def _stop_sign(pen: Pen, rng: Generator) -> None:
    rim = (0.95, 0.95, 0.95) if rng.random() < 0.7 else _ink(rng)
    octagon = circle(points=8)
    pen.fill(octagon, colour=rim, height=0.5)
    pen.fill(octagon * 0.88, height=0.5)
    pen.paint(box_outline(-0.6, -0.14, 0.6, 0.14), rim)


def _pawn(pen: Pen, rng: Generator) -> None:
    pen.fill([(-0.5, 0.95), (-0.42, 0.75), (0.42, 0.75), (0.5, 0.95)], height=0.7)
    pen.rod((0, 0.76), (0, -0.3), 0.34, end_radius=0.14)
    pen.fill(box_outline(-0.3, -0.36, 0.3, -0.24), height=0.9)
    pen.fill(circle(0, -0.62, 0.34), height=0.6)
    pen.fill(circle(-0.05, -0.66, 0.2), height=1.0)


def _domino(pen: Pen, rng: Generator) -> None:
    pips = scaled((1, 1, 1), 0.05 if sum(pen.material.colour) > 1.2 else 0.95)
    pen.solid(box_outline(-0.88, -0.44, 0.88, 0.44), 0.18, height=0.9)
    pen.mark([(0, -0.4), (0, 0.4)], 0.03, z=0.18, shade=0.5)
    for middle in (-0.44, 0.44):
        for k in rng.choice(9, int(rng.integers(1, 7)), replace=False).tolist():
            spot = circle(middle + (k % 3 - 1) * 0.26, (k // 3 - 1) * 0.26, 0.085)
            pen.paint(spot, pips, height=0.4, z=0.18)


def _die(pen: Pen, rng: Generator) -> None:
    pips = scaled((1, 1, 1), 0.05 if sum(pen.material.colour) > 1.2 else 0.95)
    pen.solid(box_outline(-0.65, -0.65, 0.65, 0.65), 0.8, height=0.9)
    for k in rng.choice(9, int(rng.integers(1, 7)), replace=False).tolist():
        pen.paint(circle((k % 3 - 1) * 0.38, (k // 3 - 1) * 0.38, 0.12), pips, height=0.4, z=0.8)


def _hammer(pen: Pen, rng: Generator) -> None:
    pen.rod((0, 0.98), (0, -0.6), rng.uniform(0.07, 0.12), colour=_ink(rng))
    pen.rod((-0.45, -0.72), (0.3, -0.72), 0.16)
    pen.rod((0.3, -0.72), (0.6, -0.68), 0.14, end_radius=0.03)


def _spanner(pen: Pen, rng: Generator) -> None:
    pen.fill(box_outline(-0.75, -0.11, 0.75, 0.11), height=0.8)
    pen.fill(circle(-0.72, 0, 0.27))
    pen.fill(circle(0.7, 0, 0.28))
    pen.hole([(0.72, -0.13), (1.1, -0.13), (1.1, 0.13), (0.72, 0.13)])
    pen.hole(circle(-0.72, 0, 0.14, points=6))


def _scissors(pen: Pen, rng: Generator) -> None:
    steel, gape = scaled((1, 1, 1), rng.uniform(0.6, 0.85)), rng.uniform(0.08, 0.4)
    for side in (-1, 1):
        tip = np.array([0.98 * math.cos(gape), -side * 0.98 * math.sin(gape)])
        back = np.array([-0.55, side * (0.18 + gape * 0.4)])
        pen.fill(np.stack([back * 0.7, tip, tip * 0.2 + [0, -side * 0.1]]), colour=steel)
        pen.stroke(np.stack([back * 0.3, back]), 0.1)
        pen.stroke(arc(0.22, 0, 6.4, back[0] - 0.12, back[1]), 0.1)


def _ladder(pen: Pen, rng: Generator) -> None:
    wide, bar = rng.uniform(0.25, 0.4), rng.uniform(0.06, 0.1)
    for y in np.linspace(-0.75, 0.75, int(rng.integers(4, 8))):
        pen.rod((-wide, y), (wide, y), bar * 0.45)
    for x in (-wide, wide):
        pen.rod((x, -0.9), (x, 0.9), bar * 0.6)


def _window(pen: Pen, rng: Generator) -> None:
    tall, bar = rng.uniform(0.55, 0.78), 0.05
    glass = hsv(rng.uniform(0.5, 0.65), rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.9))
    wide = 0.6
    pen.fill(box_outline(-wide, -tall, wide, tall), height=0.9)
    rows = int(rng.integers(1, 4))
    for row in range(rows):
        top = -tall + 0.08 + row * (2 * tall - 0.08) / rows
        for left in (-wide + 0.08, bar / 2):
            pane = box_outline(left, top, left + wide - 0.1, top + (2 * tall - 0.08) / rows - 0.06)
            pen.paint(pane, scaled(glass, rng.uniform(0.85, 1.15)), height=0.4)


def _bulb(pen: Pen, rng: Generator) -> None:
    pen.rod((0, 0.3), (0, 0.9), 0.26, colour=(0.6, 0.6, 0.6))
    for y in (0.5, 0.62, 0.74):
        pen.mark([(-0.26, y), (0.26, y + 0.03)], 0.04, shade=0.5, height=0.4)
    pen.rod((0, -0.1), (0, 0.42), 0.52, end_radius=0.24, height=0.8)
    for share in (1.0, 0.75, 0.45):
        pen.fill(circle(0, -0.35, 0.58 * share), height=math.sqrt(1.02 - share * share * 0.8))


def _spoon(pen: Pen, rng: Generator) -> None:
    pen.rod((-1, 0), (0.4, 0), rng.uniform(0.05, 0.09), end_radius=0.05, height=0.8)
    pen.fill(circle(0.62, 0, 0.36, 0.24))
    pen.fill(circle(0.62, 0, 0.28, 0.17), height=0.35, shade=0.85)


def _envelope(pen: Pen, rng: Generator) -> None:
    pen.fill(box_outline(-0.85, -0.52, 0.85, 0.52), height=0.6)
    pen.mark([(-0.85, -0.5), (0, 0.12), (0.85, -0.5)], 0.04, shade=0.6, height=0.4)
    if rng.random() < 0.4:
        pen.paint(circle(0, 0.05, 0.15), _ink(rng))


def _chip(pen: Pen, rng: Generator) -> None:
    pins = int(rng.integers(3, 8))
    for x in np.linspace(-0.75, 0.75, pins):
        pen.fill(box_outline(x - 0.05, -0.52, x + 0.05, 0.52), colour=(0.8, 0.8, 0.8), height=0.3)
    pen.solid(box_outline(-0.86, -0.38, 0.86, 0.38), 0.2)
    pen.paint(circle(-0.7, 0, 0.07), scaled(pen.material.colour, 0.5), z=0.2)


def _car(pen: Pen, rng: Generator) -> None:
    pen.fill(
        [
            (-0.95, 0.3),
            (-0.95, 0),
            (-0.5, -0.08),
            (-0.3, -0.42),
            (0.3, -0.42),
            (0.6, -0.06),
            (0.95, 0.02),
            (0.95, 0.3),
        ]
    )
    pen.paint([(-0.4, -0.08), (-0.24, -0.34), (0.0, -0.34), (0.0, -0.08)], (0.2, 0.25, 0.3))
    pen.paint([(0.06, -0.08), (0.06, -0.34), (0.26, -0.34), (0.46, -0.08)], (0.2, 0.25, 0.3))
    for x in (-0.55, 0.55):
        pen.fill(circle(x, 0.3, 0.2), colour=(0.08, 0.08, 0.08), height=0.5)
        pen.fill(circle(x, 0.3, 0.1), colour=(0.7, 0.7, 0.7), height=0.7)


def _blob(pen: Pen, rng: Generator) -> None:
    pen.fill(_wobbly(rng, 0.12), height=0.8)
    pen.fill(_wobbly(rng, 0.1) * 0.6, height=1.0)


def _wobbly(rng: Generator, strength: float, harmonics: int = 5) -> Floats:
    """A closed curve around the origin that is almost a circle, [40, 2]."""
    angle = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    reach = 1 + sum(
        rng.normal(0, strength / k**0.8) * np.cos(k * angle + rng.uniform(0, 6.28))
        for k in range(2, 2 + harmonics)
    )
    outline = np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1) / max(float(np.max(reach)), 1e-6)
    return outline.astype(np.float32)


# -- things under the microscope -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stain:
    """The colours of one microscope slide: what passes through its background, its cells and their nuclei."""

    field: Colour
    cell: Colour
    plasma: Colour
    nucleus: Colour
    strength: float  # of the cells' colour, 0 to 1
    pallor: float  # how much paler a ring cell's middle is, 0 to 1
    rim: float  # how much darker its edge is
    ragged: float  # how far outlines stray from a circle


def _stain(rng: Generator) -> _Stain:
    """A stain as in blood smears in half of the cases, else any colours."""
    field = hsv(rng.uniform(0, 1), rng.uniform(0, 0.12), rng.uniform(0.78, 0.98))
    if rng.random() < 0.6:
        cell = hsv(rng.uniform(0.96, 1.04) % 1, rng.uniform(0.2, 0.5), rng.uniform(0.85, 0.98))
        nucleus = hsv(rng.uniform(0.64, 0.78), rng.uniform(0.35, 0.75), rng.uniform(0.45, 0.85))
    else:
        cell = hsv(rng.uniform(0, 1), rng.uniform(0.1, 0.6), rng.uniform(0.6, 0.95))
        nucleus = hsv(rng.uniform(0, 1), rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.7))
    red, green, blue = (0.45 * a + 0.55 * b for a, b in zip(nucleus, (1, 1, 1), strict=True))
    ragged = rng.uniform(0.01, 0.09)
    return _Stain(
        field,
        cell,
        (red, green, blue),
        nucleus,
        rng.uniform(0.6, 1),
        rng.uniform(0, 0.9),
        rng.uniform(0, 0.5),
        ragged,
    )


def _profile(radius: float, outlines: list[Floats], soft: float) -> Floats:
    """Outlines [n, 2] in units of a radius, filled: a mask with an edge `soft` pixels wide, float32 [s, s]."""
    ss = 4 if radius < 14 else 2
    side = 2 * math.ceil(radius + 2)
    image = Image.new("L", (side * ss, side * ss))
    pen = ImageDraw.Draw(image)
    for outline in outlines:
        pen.polygon([(x, y) for x, y in (outline * (radius * ss) + side * ss / 2).tolist()], fill=255)
    image = image.reduce(ss)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(soft)) if soft > 0.4 else image, np.float32) / 255


def _squeezed(rng: Generator, outline: Floats, least: float) -> Floats:
    """The outline pressed to an oval in some direction."""
    turn = rng.uniform(0, math.pi)
    spin = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    squeezed: Floats = ((outline @ spin) * [1.0, rng.uniform(least, 1.0)] @ spin.T).astype(np.float32)
    return squeezed


def _mottle(rng: Generator, mask: Floats, scale: float, rough: int) -> Floats:
    """Noise of a mask's size."""
    return noise(rng, mask.shape[1], mask.shape[0], scale, scale, rough)


def _filter(mask: Floats, layers: list[tuple[Floats, Colour]], cover: float) -> Sprite:
    """A translucent thing: layers (share, colour) that each take their part of the light."""
    through = np.ones((*mask.shape, 3), np.float32)
    for share, colour in layers:
        through *= 1 - share[..., None] * (1 - np.asarray(colour, np.float32))
    return Sprite(np.clip(through, 0, 1.3), np.ones_like(mask), mask, cover=cover, absorbs=True)


def _ring_cell(rng: Generator, radius: float, light: Light, stain: _Stain) -> Sprite:
    outline = _squeezed(rng, _wobbly(rng, stain.ragged), 0.75 if rng.random() < 0.8 else 0.45)
    mask = _profile(radius, [outline], 0.5)
    depth = _profile(radius, [outline], radius * 0.15)
    share = mask * stain.strength * rng.uniform(0.85, 1.1)
    share *= 1 + 0.06 * _mottle(rng, mask, 2, 2)
    if stain.pallor > 0.1 and rng.random() < 0.85:
        middle = outline * rng.uniform(0.3, 0.62) + rng.normal(0, 0.05, 2)
        pale = _profile(radius, [middle.astype(np.float32)], radius * rng.uniform(0.05, 0.14))
        share *= 1 - pale * stain.pallor * rng.uniform(0.6, 1.05)
    share *= 1 + stain.rim * np.exp(-(((depth - 0.6) / 0.16) ** 2))
    sprite = _filter(mask, [(share, stain.cell)], 0.3)
    if rng.random() < 0.15:  # a glint, as of a lens
        spot = circle(rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4), rng.uniform(0.06, 0.14))
        sprite.rgb *= 1 + 0.5 * _profile(radius, [spot], 0.5)[..., None]
    return sprite


def _lobed_cell(rng: Generator, radius: float, light: Light, stain: _Stain) -> Sprite:
    outline = _squeezed(rng, _wobbly(rng, max(stain.ragged, 0.03)), 0.8)
    mask = _profile(radius, [outline], 0.6)
    lobes, spread = int(rng.integers(1, 6)), rng.uniform(0.2, 0.5)
    size = rng.uniform(0.6, 0.85) if lobes == 1 else rng.uniform(0.22, 0.36)
    pieces, at = [], np.array([0.0, 0.0]) if lobes == 1 else np.array([-spread, rng.uniform(-0.3, 0.3)])
    for _ in range(lobes):
        pieces.append((_wobbly(rng, 0.08) * size * rng.uniform(0.8, 1.15) + at).astype(np.float32))
        turn = rng.uniform(0, 2 * math.pi)
        step = at + size * 1.3 * np.array([math.cos(turn), math.sin(turn)])
        at = step if np.hypot(*step) < 0.62 else -at * rng.uniform(0.3, 0.9)
    nucleus = _profile(radius, pieces, max(radius * 0.03, 0.6)) * mask
    mottle = 1 + 0.12 * _mottle(rng, mask, 1.5, 2)
    faint = mask * rng.uniform(0.25, 0.8) * (1 + 0.25 * _mottle(rng, mask, 1, 1))
    return _filter(mask, [(faint, stain.plasma), (nucleus * mottle, stain.nucleus)], 0.45)


def _speck(rng: Generator, radius: float, light: Light, stain: _Stain) -> Sprite:
    radius = max(radius, 3.5)
    outline = _squeezed(rng, _wobbly(rng, 0.12), 0.6)
    mask = _profile(radius, [outline], 0.5)
    core = _profile(radius, [outline * rng.uniform(0.5, 0.8)], max(radius * 0.15, 0.5))
    return _filter(
        mask, [(mask * rng.uniform(0.3, 0.8), stain.plasma), (core * rng.uniform(0.5, 1), stain.nucleus)], 0.4
    )


def _rod_cell(rng: Generator, radius: float, light: Light, stain: _Stain) -> Sprite:
    wide, bend = rng.uniform(0.16, 0.32), rng.uniform(-0.35, 0.35)
    x = np.linspace(-1, 1, 20)
    thick = wide * np.sqrt(np.clip(1 - np.abs(x) ** 6, 0, 1))
    y = bend * (x * x - 0.5)
    turn = rng.uniform(0, 2 * math.pi)
    spin = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    outline = np.concatenate([np.stack([x, y + thick], 1), np.stack([x, y - thick], 1)[::-1]]) @ spin * 0.95
    mask = _profile(radius, [outline.astype(np.float32)], 0.5)
    depth = _profile(radius, [outline.astype(np.float32)], max(radius * 0.08, 0.5))
    share = mask * stain.strength * (1 + stain.rim * np.exp(-(((depth - 0.55) / 0.2) ** 2)))
    return _filter(mask, [(share, stain.nucleus if rng.random() < 0.4 else stain.cell)], 0.4)


class _Cell(Protocol):
    def __call__(self, rng: Generator, radius: float, light: Light, stain: _Stain) -> Sprite: ...


_CELLS: dict[str, _Cell] = {
    "ring cell": _ring_cell,
    "lobed cell": _lobed_cell,
    "speck": _speck,
    "rod cell": _rod_cell,
}


def _slide(rng: Generator, width: int, height: int) -> tuple[Canvas, Staging]:
    """A field of view full of cells of about one size, with larger nucleated ones and specks among them."""
    stain = _stain(rng)
    field_ = np.asarray(stain.field, np.float32) * (1 + 0.02 * noise(rng, width, height, 6, 6, 3))[..., None]
    if rng.random() < 0.4:
        field_ = field_ * (1 + 0.03 * noise(rng, width, height, 1.5, 1.5, 2))[..., None]
    light = Light((0.0, 0.0, 1.0), 1.0, shadow=0.0)
    canvas = Canvas(field_.astype(np.float32), light)
    shapes = {name: partial(draw, stain=stain) for name, draw in _CELLS.items()}
    radius = float(np.exp(rng.uniform(math.log(8), math.log(44))))
    most = min(int(1.1 * width * height / (math.pi * radius * radius)) + 2, 42)
    staging = Staging(
        hidden=0.6,
        contrast=0.03,
        alike=0.0,
        clustered=0.0,
        vignette=0.3,
        blur=1.3,
        grain=0.02,
        depth_of_field=0.05,
    )
    kinds = rng.permutation([0, 3]) if rng.random() < 0.15 else [0]
    for kind in kinds:
        count = int(rng.integers(1 if most < 4 else most // 5, most + 1))
        cells = replace(staging, radius=(radius * 0.82, radius * 1.18), clustered=0.3)
        scatter(rng, canvas, shapes, cells, order=[int(kind)] * count)
    large = replace(staging, radius=(min(radius * 1.2, 60), min(radius * 2.3, 80)))
    scatter(rng, canvas, shapes, large, order=[1] * int(rng.choice([0, 1, 1, 2, 3, 5])))
    small = replace(staging, radius=(max(radius * 0.2, 3.5), max(radius * 0.42, 5)))
    scatter(rng, canvas, shapes, small, order=[2] * int(rng.choice([0, 0, 1, 2, 4, 8])))
    return canvas, staging


# -- backgrounds beyond the bench ------------------------------------------------------------------------------------


def _clouds(rng: Generator, width: int, height: int) -> Floats:
    """Coloured noise of any grain."""
    rough = int(rng.integers(1, 4))
    grain = float(np.exp(rng.uniform(0, 2)))
    share = 0.5 + rng.uniform(0.1, 0.35) * noise(
        rng, width, height, grain, grain * rng.uniform(0.5, 2), rough
    )
    return mix(_ink(rng), _ink(rng), share)


def _natural(rng: Generator, width: int, height: int) -> Floats:
    """Noise with the spectrum of photographs, colours that wander."""
    bright = 0.5 + rng.uniform(0.1, 0.25) * noise(rng, width, height, 3, 3, 2)
    warm, green = (rng.uniform(0.02, 0.1) * noise(rng, width, height, 3, 3, 2) for _ in range(2))
    return np.stack([bright + warm, bright + green, bright - warm], axis=2) + rng.normal(0, 0.08)


def _gradient(rng: Generator, width: int, height: int) -> Floats:
    x = np.linspace(-1, 1, width, dtype=np.float32) * rng.uniform(-0.6, 0.6)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * rng.uniform(-0.6, 0.6)
    return mix(_ink(rng), _ink(rng), 0.5 + x + y)


def _plain(rng: Generator, width: int, height: int) -> Floats:
    colour = (
        hsv(rng.uniform(0, 1), rng.uniform(0, 0.3), rng.uniform(0.7, 1.0))
        if rng.random() < 0.6
        else _ink(rng)
    )
    return np.asarray(colour, np.float32) * np.ones((height, width, 1), np.float32)


def _grating(rng: Generator, width: int, height: int) -> Floats:
    """Stripes, checks or dots, soft or hard, with some noise."""
    angle, step = (
        rng.uniform(0, math.pi),
        float(np.exp(rng.uniform(math.log(5), math.log(70)))) / (2 * math.pi),
    )
    x, y = np.arange(width, dtype=np.float32) / step, np.arange(height, dtype=np.float32)[:, None] / step
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    wave = [np.sin(u), np.sin(u) * np.sin(v), np.sin(u) + np.sin(v) - 1][int(rng.integers(3))]
    share = np.clip(0.5 + wave * float(np.exp(rng.uniform(-1, 2))), 0, 1)
    a, b = _ink(rng), _ink(rng)
    keep = rng.uniform(0.15, 0.8)
    c = tuple(p + (q - p) * keep for p, q in zip(a, b, strict=True))
    return mix(a, c, share) * (1 + 0.05 * noise(rng, width, height, 3, 3, 2))[..., None]


def _mosaic(rng: Generator, width: int, height: int) -> Floats:
    """Overlapping patches, as walls, fields and shelves look from afar."""
    image = Image.new("RGB", (width, height), tuple(round(255 * c) for c in _ink(rng)))
    pen = ImageDraw.Draw(image)
    upright = rng.random() < 0.5
    for _ in range(int(rng.integers(3, 14))):
        x, y = rng.uniform(-0.2, 1.1, 2) * [width, height]
        w, h = rng.uniform(0.1, 0.9, 2) * [width, height]
        corners = box_outline(x, y, x + w, y + h)
        if not upright:
            corners = corners + rng.normal(0, 25, (4, 2))
        pen.polygon([(a, b) for a, b in corners.tolist()], fill=tuple(round(255 * c) for c in _ink(rng)))
    rgb = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 3))), np.float32) / 255
    middle = rgb.mean((0, 1))
    muted = middle + (rgb - middle) * rng.uniform(0.2, 0.8)
    mottled: Floats = muted * (1 + 0.06 * noise(rng, width, height, 3, 3, 2))[..., None]
    return mottled


def _landscape(rng: Generator, width: int, height: int) -> Floats:
    """Sky above, ground below."""
    skyline = (height * rng.uniform(0.25, 0.7) + 14 * noise(rng, width, 1, 5, 1, 3)[0]).astype(np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    sky = mix(
        hsv(rng.uniform(0.52, 0.65), rng.uniform(0.1, 0.6), 0.9),
        (0.9, 0.9, 0.9),
        y / height * np.ones(width, np.float32),
    )
    sky = sky + 0.06 * np.clip(noise(rng, width, height, 6, 3, 3), 0, 2)[..., None]
    tone = 1 + 0.15 * noise(rng, width, height, 2, 1.2, 2) + 0.1 * noise(rng, width, height, 1, 1, 1)
    ground = (
        np.asarray(hsv(rng.uniform(0.05, 0.4), rng.uniform(0.1, 0.6), rng.uniform(0.25, 0.7)), np.float32)
        * tone[..., None]
    )
    return np.where((y > skyline)[..., None], ground, sky)


_BACKGROUNDS: tuple[tuple[Background, float], ...] = (
    *((paint, 0.6) for paint in BENCHES.values()),
    (_clouds, 1.3),
    (_natural, 2.0),
    (_gradient, 0.8),
    (_plain, 1.0),
    (_grating, 0.9),
    (_mosaic, 1.2),
    (_landscape, 0.8),
)


def _scrap(rng: Generator, radius: float, light: Light) -> Sprite:
    """Something without a name: an odd polygon, a scribble, a bar."""
    pen = Pen(rng, radius, light, _material(rng))
    kind = rng.random()
    if kind < 0.4:
        angle = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 8))))
        reach = rng.uniform(0.3, 1.0, len(angle))
        pen.solid(np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1), rng.uniform(0, 0.3))
    elif kind < 0.7:
        pen.stroke(rng.uniform(-0.9, 0.9, (int(rng.integers(2, 6)), 2)), rng.uniform(0.03, 0.2))
    else:
        pen.rod((-1, 0), (1, 0), rng.uniform(0.03, 0.15))
    return _finish(pen, rng)


# -- the list, and the image -----------------------------------------------------------------------------------------

_DRAWINGS: dict[str, Drawing] = {
    "star": _star,
    "cross": _cross,
    "arrow": _arrow,
    "ring piece": _ring_piece,
    "crescent": _crescent,
    "heart": _heart,
    "letter A": _LETTER_A,
    "letter E": _LETTER_E,
    "letter R": _LETTER_R,
    "number 5": _NUMBER_5,
    "number 8": _NUMBER_8,
    "disc": _disc,
    "coin": _coin,
    "button": _button,
    "tyre": _tyre,
    "striped ball": _striped_ball,
    "mug": _mug,
    "bottle": _bottle,
    "leaf": _leaf,
    "flower": _flower,
    "tree": _tree,
    "fish": _fish,
    "bird": _bird,
    "house": _house,
    "key": _key,
    "traffic cone": _cone,
    "spiral": _spiral,
    "warning sign": _warning_sign,
    "stop sign": _stop_sign,
    "chess pawn": _pawn,
    "domino": _domino,
    "die": _die,
    "hammer": _hammer,
    "spanner": _spanner,
    "scissors": _scissors,
    "ladder": _ladder,
    "window": _window,
    "light bulb": _bulb,
    "spoon": _spoon,
    "envelope": _envelope,
    "chip": _chip,
    "car": _car,
    "blob": _blob,
}


def _shape(draw: Drawing) -> Shape:
    def shape(rng: Generator, radius: float, light: Light) -> Sprite:
        upright = rng.random() < 0.3
        angle = rng.normal(0, 0.15) if upright else rng.uniform(0, 2 * math.pi)
        pen = Pen(rng, radius, light, _material(rng), angle=angle, flat=rng.random() < 0.4)
        draw(pen, rng)
        return _finish(pen, rng)

    return shape


_SHAPES: dict[str, Shape] = {name: _shape(draw) for name, draw in _DRAWINGS.items()}

STARTER_CLASSES: tuple[str, ...] = (*_CELLS, *_DRAWINGS)
"""The classes of the starter's training images; a box's class is an index into these."""


def _things(rng: Generator, width: int, height: int) -> tuple[Canvas, Staging]:
    """Things of a few classes, few and large to many and small, on any background."""
    light = random_light(rng)
    if rng.random() < 0.2:
        light = replace(light, shadow=0.0)
    share = np.array([weight for _, weight in _BACKGROUNDS])
    paint = _BACKGROUNDS[int(rng.choice(len(share), p=share / share.sum()))][0]
    canvas = Canvas(np.clip(paint(rng, width, height), 0.02, 1).astype(np.float32), light)
    count = 0 if rng.random() < 0.03 else int(np.exp(rng.uniform(math.log(1.6), math.log(41))))
    largest = float(np.clip(0.62 * math.sqrt(width * height / max(count, 1)), 14, 105))
    smallest = min(5.0 if rng.random() < 0.35 else 10.0, largest * 0.6)
    staging = Staging(
        radius=(smallest, largest),
        alike=0.4,
        hidden=rng.uniform(0.25, 0.6),
        contrast=0.08,
        clustered=0.2,
        blur=1.4,
        grain=0.05,
        vignette=0.4,
    )
    if rng.random() < 0.5:
        scraps = replace(staging, radius=(4.0, 60.0), hidden=1.0, alike=0.0)
        scatter(rng, canvas, {"scrap": _scrap}, scraps, order=[0] * int(rng.integers(1, 6)))
        canvas.laid.clear()
    kinds = rng.choice(len(_SHAPES), int(np.exp(rng.uniform(0, math.log(20)))), replace=False)
    scatter(rng, canvas, _SHAPES, staging, order=rng.choice(kinds, count).tolist())
    for item in canvas.laid:
        item.index += len(_CELLS)
    return canvas, staging


def starter_image(
    seed: int, index: int, size: int = 320
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """One training image of the starter.

    Args:
        seed: Seed of the series.
        index: Number of the image, 0-based; each is drawn independently of the others.
        size: Longer side in pixels; the shorter is between 0.7 and 1 of it.

    Returns:
        The picture, uint8 [height, width, 3]; boxes, float32 [n, 4], xyxy pixels; classes, int64 [n], indices into
        `STARTER_CLASSES`.
    """
    rng = np.random.default_rng([seed, index])
    width, height = size, round(size * (0.75 if rng.random() < 0.7 else rng.uniform(0.7, 1)))
    if rng.random() < 0.2:
        width, height = height, width
    canvas, staging = (_slide if rng.random() < 0.25 else _things)(rng, width, height)
    boxes, classes = canvas.boxes()
    rgb = photograph(rng, canvas.rgb, canvas.light, staging)
    if rng.random() < 0.06:
        rgb = 255 - rgb
    if rng.random() < 0.08:
        grey = rgb.mean(2, keepdims=True).astype(np.uint8)
        rgb = np.repeat(grey, 3, axis=2)
    if rng.random() < 0.5:
        memory = BytesIO()
        Image.fromarray(rgb).save(memory, "JPEG", quality=int(rng.integers(30, 95)))
        rgb = np.array(Image.open(memory))  # a copy: PIL's own memory is read-only
    keep = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) >= 3
    return rgb, boxes[keep], classes[keep]
