"""Photograph-like scenes from code: textures, lit and shaded objects, shadows, a camera, and the boxes that fit.

A shape is a function that draws one object with a `Pen` in unit coordinates and returns its `Sprite`; `draw_scene()`
lays sprites on a background under one light, keeps track of what each object hides of the others, and measures every
box on the pixels that stay visible. `odkit.demo` and the starter's training images are two lists of shapes for it.

Everything is drawn from one NumPy generator, so a seed gives the same pixels again. NumPy and Pillow only.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.floating[Any]]  # drawing mixes float32 and float64; only boxes promise one of them
Colour = tuple[float, float, float]  # red, green, blue, each 0 to 1
VISIBLE = 0.5
"""A pixel belongs to an object's box when at least this share of it shows the object."""


@dataclass(frozen=True)
class Light:
    """How a scene is lit and seen.

    Attributes:
        direction: Unit vector from the bench towards the lamp: right, down, up.
        ambient: Light that comes from everywhere, 0 to 1.
        tint: Colour of the light, multiplied into the finished picture.
        shadow: How dark a shadow is, 0 (none) to 1 (black).
        softness: Blur of a shadow as a share of the height that throws it.
        tilt: Angle of the camera from straight above, radians; it looks "up" the picture.
        exposure: Factor on the finished picture.
    """

    direction: tuple[float, float, float] = (-0.5, -0.5, 0.7)
    ambient: float = 0.45
    tint: Colour = (1.0, 1.0, 1.0)
    shadow: float = 0.5
    softness: float = 0.6
    tilt: float = 0.0
    exposure: float = 1.0


def random_light(rng: Generator, *, tilt: float = 0.65) -> Light:
    """A lamp somewhere above, warm to cold, hard to soft; the camera tilted by up to `tilt` radians."""
    azimuth, elevation = rng.uniform(0, 2 * math.pi), rng.uniform(0.6, 1.25)
    warmth = rng.normal(0, 0.06)
    return Light(
        direction=(
            math.cos(azimuth) * math.cos(elevation),
            math.sin(azimuth) * math.cos(elevation),
            math.sin(elevation),
        ),
        ambient=rng.uniform(0.35, 0.55),
        tint=(1 + warmth, 1.0, 1 - warmth),
        shadow=rng.uniform(0.3, 0.7),
        softness=rng.uniform(0.25, 0.9),
        tilt=rng.uniform(0, tilt) if rng.random() < 0.8 else 0.0,
        exposure=rng.uniform(0.8, 1.15),
    )


@dataclass
class Sprite:
    """One object as pixels, ready to be laid down.

    Attributes:
        rgb: Colour after lighting, float32 [h, w, 3], 0 to 1.
        alpha: How much of what lies below it covers, float32 [h, w], 0 to 1.
        mask: What belongs to the object for its box, float32 [h, w], 0 to 1; a translucent cell has more mask than
            alpha.
        rise: Height above the bench in pixels: how far its shadow falls.
        cover: How much it counts as hiding what lies below, 0 to 1.
        absorbs: Laid down as a filter (what lies below times `rgb`) rather than as paint.
    """

    rgb: Floats
    alpha: Floats
    mask: Floats
    rise: float = 0.0
    cover: float = 1.0
    absorbs: bool = False


Shape = Callable[[Generator, float, Light], Sprite]
"""Draws an object of a given radius in pixels (half of its longest extent) under a light."""
Background = Callable[[Generator, int, int], Floats]
"""Paints a background of a given width and height: float32 [height, width, 3], 0 to 1."""


# -- noise and textures ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _noise_bank() -> tuple[tuple[Image.Image, ...], ...]:
    """Tileable random fields of mean 0 and deviation 1 with spectra from white to 1/f^2, by roughness, then number."""
    side, rng = 512, np.random.default_rng(20240229)
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = 1.0
    bank = []
    for exponent in (0.0, 0.8, 1.3, 2.0):
        fields = []
        for _ in range(2):
            spectrum = np.fft.rfft2(rng.standard_normal((side, side))) / frequency**exponent
            spectrum[0, 0] = 0
            values = np.fft.irfft2(spectrum, s=(side, side))
            values = np.clip(values / values.std(), -3.5, 3.5).astype(np.float32)
            fields.append(Image.fromarray(np.tile(values, (2, 2))))
        bank.append(tuple(fields))
    return tuple(bank)


def noise(
    rng: Generator, width: int, height: int, x_scale: float = 1.0, y_scale: float = 1.0, rough: int = 2
) -> Floats:
    """A random field with mean about 0 and deviation about 1.

    Args:
        rng: The generator.
        width: Width in pixels.
        height: Height in pixels.
        x_scale: Pixels to one grain along x; above 1 stretches.
        y_scale: Pixels to one grain along y.
        rough: Spectrum: 0 white, 1 sandy, 2 cloudy (about 1/f), 3 smooth hills.

    Returns:
        Float32 [height, width].
    """
    fields = _noise_bank()[rough]
    field = fields[int(rng.integers(len(fields)))]
    across, down = min(width / x_scale, 1000.0), min(height / y_scale, 1000.0)
    left, top = rng.uniform(0, min(512.0, 1024 - across)), rng.uniform(0, min(512.0, 1024 - down))
    method = Image.Resampling.BICUBIC if x_scale >= 1 and y_scale >= 1 else Image.Resampling.BILINEAR
    piece = np.asarray(field.resize((width, height), method, box=(left, top, left + across, top + down)))
    flip = int(rng.integers(4))
    return piece[:: -1 if flip & 1 else 1, :: -1 if flip & 2 else 1]


def mix(dark: Sequence[float], light: Sequence[float], share: Floats) -> Floats:
    """Colours from `dark` (share 0) to `light` (share 1), float32 [..., 3]."""
    a, b = np.asarray(dark, np.float32), np.asarray(light, np.float32)
    return a + (b - a) * share[..., None]


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue, saturation and value, each 0 to 1."""
    red, green, blue = (
        value - value * saturation * max(0.0, min(k, 4 - k, 1.0))
        for k in ((n + hue * 6) % 6 for n in (5, 3, 1))
    )
    return red, green, blue


def wood(rng: Generator, width: int, height: int) -> Floats:
    """Planks with grain, growth lines, seams and stains."""
    turned = rng.random() < 0.4
    w, h = (height, width) if turned else (width, height)
    hue, value = rng.uniform(0.055, 0.105), rng.uniform(0.42, 0.88)
    light, dark = (
        hsv(hue, rng.uniform(0.3, 0.6), value),
        hsv(hue - 0.012, rng.uniform(0.45, 0.75), value * 0.62),
    )
    stretch = rng.uniform(12, 30)
    share = 0.62 + 0.16 * noise(rng, w, h, stretch, 1.3, 1) + 0.1 * noise(rng, w, h, stretch * 2, 4, 2)
    bend = noise(rng, w, h, 9, 2.2, 3)
    lines = np.arange(h, dtype=np.float32)[:, None] / h * rng.uniform(2, 9) + bend * rng.uniform(0.5, 1.6)
    lines -= np.floor(lines)
    share -= rng.uniform(0.1, 0.35) * lines**3
    plank = rng.uniform(0.25, 1.3) * h
    edge = rng.uniform(0, plank)
    starts = [0, *range(int(edge), h, max(int(plank), 8)), h]
    for top, bottom in pairwise(starts):
        share[top:bottom] = np.roll(share[top:bottom], int(rng.integers(w)), axis=1) + rng.normal(0, 0.07)
        if top:
            share[max(top - 1, 0) : top + 1] -= rng.uniform(0.3, 0.9)
    rgb = mix(dark, light, np.clip(share, -0.7, 1.2))
    return rgb.swapaxes(0, 1) if turned else rgb


def brushed_steel(rng: Generator, width: int, height: int) -> Floats:
    """Sheet metal: brush strokes one way, a broad reflection, a few scratches."""
    turned = rng.random() < 0.5
    w, h = (height, width) if turned else (width, height)
    value = rng.uniform(0.35, 0.72)
    share = value + rng.uniform(0.02, 0.05) * noise(rng, w, h, 60, 1, 0) + 0.03 * noise(rng, w, h, 8, 8, 2)
    place = (np.arange(w, dtype=np.float32) / w - rng.uniform(0, 1)) * rng.uniform(1.5, 4)
    share = share + rng.uniform(0.05, 0.2) * np.exp(-(place**2))
    rgb = share[..., None] * np.asarray([0.97, 1.0, 1.03 + rng.normal(0, 0.03)], np.float32)
    rgb = scratched(rng, rgb, int(rng.integers(0, 14)), 0.16)
    return rgb.swapaxes(0, 1) if turned else rgb


def scratched(rng: Generator, rgb: Floats, count: int, strength: float) -> Floats:
    """The same surface with thin random strokes, lighter or darker."""
    height, width = rgb.shape[:2]
    for sign in (1, -1):
        canvas = Image.new("L", (width, height))
        pen = ImageDraw.Draw(canvas)
        for _ in range(count // 2):
            x, y, angle = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, math.pi)
            length = rng.uniform(5, 70)
            tip = (x + length * math.cos(angle), y + length * math.sin(angle))
            pen.line([(x, y), tip], fill=int(rng.integers(80, 255)))
        rgb = rgb + (sign * strength / 255) * np.asarray(canvas, np.float32)[..., None]
    return rgb


def cutting_mat(rng: Generator, width: int, height: int) -> Floats:
    """A self-healing mat: dull colour, a ruled grid, knife marks."""
    base = hsv(rng.choice([0.42, 0.45, 0.6, 0.55, 0.95]), rng.uniform(0.25, 0.7), rng.uniform(0.2, 0.45))
    step, angle = rng.uniform(16, 55), rng.uniform(-0.4, 0.4) if rng.random() < 0.7 else 0.0
    lines = Image.new("L", (width * 2, height * 2))
    pen = ImageDraw.Draw(lines)
    reach, along, across = (
        width + height,
        (math.cos(angle), math.sin(angle)),
        (-math.sin(angle), math.cos(angle)),
    )
    fine = rng.random() < 0.5
    for k in range(-int(reach / step) - 1, int(reach / step) + 2):
        for (ux, uy), (vx, vy) in ((along, across), (across, along)):
            x, y = width + k * step * 2 * vx, height + k * step * 2 * vy
            ends = [(x - reach * 2 * ux, y - reach * 2 * uy), (x + reach * 2 * ux, y + reach * 2 * uy)]
            pen.line(ends, fill=255, width=3 if k % 5 == 0 else 2)
            if fine:
                x, y = x + step * vx, y + step * vy
                pen.line([(x - reach * ux, y - reach * uy), (x + reach * ux, y + reach * uy)], fill=90)
    share = np.asarray(lines.reduce(2), np.float32) / 255 * rng.uniform(0.25, 0.6)
    ink = hsv(rng.uniform(0, 1), 0.1, rng.uniform(0.75, 0.95))
    grain = 0.025 * noise(rng, width, height, 1.5, 1.5, 1) + 0.03 * noise(rng, width, height, 20, 20, 3)
    return scratched(rng, mix(base, ink, share) + grain[..., None], int(rng.integers(0, 16)), 0.12)


def paper(rng: Generator, width: int, height: int) -> Floats:
    """White, cream or kraft paper, sometimes ruled or squared, with folds and smudges."""
    kind = rng.integers(3)
    base = [(0.93, 0.93, 0.91), (0.9, 0.86, 0.76), (0.72, 0.58, 0.42)][kind]
    share = 0.012 * noise(rng, width, height, 1, 1, 0) + rng.uniform(0.01, 0.035) * noise(
        rng, width, height, 3, 3, 2
    )
    rgb = np.asarray(base, np.float32) * rng.uniform(0.85, 1.03) + share[..., None]
    if rng.random() < 0.5:
        step, ink = (
            rng.uniform(9, 24),
            np.asarray(hsv(rng.choice([0.55, 0.62, 0.95]), 0.35, 0.75), np.float32),
        )
        rows = (np.arange(height) % step < 1)[:, None] | np.zeros(width, bool)
        if rng.random() < 0.6:
            rows = rows | (np.arange(width) % step < 1)
        rgb = np.where(rows[..., None], rgb * 0.4 + 0.6 * ink, rgb)
    for _ in range(int(rng.integers(0, 3))):
        at, tilt = rng.uniform(0, width), rng.normal(0, 0.5)
        line = np.arange(width, dtype=np.float32) - at + np.arange(height, dtype=np.float32)[:, None] * tilt
        rgb = rgb + (0.05 * np.sign(line) * np.exp(-np.abs(line) / 9))[..., None]
    return rgb


def concrete(rng: Generator, width: int, height: int) -> Floats:
    """Grey floor: clouds of stain, sand, pits, now and then a crack."""
    value = rng.uniform(0.4, 0.7)
    clouds = noise(rng, width, height, 2.5, 2.5, 2)
    sand = noise(rng, width, height, 1, 1, 1)
    share = value + rng.uniform(0.03, 0.07) * clouds + rng.uniform(0.02, 0.05) * sand
    share = share - 0.22 * (noise(rng, width, height, 1.6, 1.6, 1) > rng.uniform(2.2, 2.8))
    if rng.random() < 0.3:
        share = share - 0.2 * np.exp(-((clouds / 0.02) ** 2)) * (noise(rng, width, height, 4, 4, 3) > 0.8)
    warm = rng.normal(0, 0.025)
    rgb: Floats = share[..., None] * np.asarray([1 + warm, 1.0, 1 - warm], np.float32)
    return rgb


def painted(rng: Generator, width: int, height: int) -> Floats:
    """A painted bench top: one colour, worn and dirty."""
    base = np.asarray(hsv(rng.uniform(0, 1), rng.uniform(0.05, 0.4), rng.uniform(0.25, 0.75)), np.float32)
    share = 1 + 0.05 * noise(rng, width, height, 6, 6, 2) + 0.03 * noise(rng, width, height, 1, 1, 1)
    rgb = base * share[..., None]
    if rng.random() < 0.6:
        worn = np.clip(noise(rng, width, height, 3, 3, 2) - rng.uniform(1.2, 2.0), 0, 0.35) / 0.35
        rgb = (
            rgb
            + (np.asarray(hsv(0.08, 0.15, rng.uniform(0.3, 0.6)), np.float32) - rgb) * worn[..., None] * 0.6
        )
    return scratched(rng, rgb, int(rng.integers(0, 20)), 0.14)


def cloth(rng: Generator, width: int, height: int) -> Floats:
    """Woven cloth with soft folds."""
    base = np.asarray(hsv(rng.uniform(0, 1), rng.uniform(0.05, 0.5), rng.uniform(0.25, 0.8)), np.float32)
    step = rng.uniform(2.2, 4.5)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    weave = np.sin(x * (2 * math.pi / step)) * np.sin(y * (2 * math.pi / step))
    folds = noise(rng, width, height, 9, 9, 3)
    share = 1 + rng.uniform(0.03, 0.1) * weave + rng.uniform(0.05, 0.13) * folds
    share = share + 0.05 * noise(rng, width, height, 1, 1, 0)
    rgb: Floats = base * share[..., None]
    return rgb


BENCHES: dict[str, Background] = {
    "wood": wood,
    "steel": brushed_steel,
    "cutting mat": cutting_mat,
    "paper": paper,
    "concrete": concrete,
    "painted": painted,
    "cloth": cloth,
}


# -- materials and the pen -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Material:
    """What an object is made of.

    Attributes:
        colour: Its own colour.
        metal: 0 (plastic, paper) to 1 (bare metal: its reflections carry its colour and dominate).
        gloss: Strength of highlights, 0 to 1.
        sharpness: Exponent of the highlight; higher is smaller and sharper.
        grime: Strength of dirt and mottling, 0 to 1.
        rust: Share of the surface that is rusty, 0 to 1.
    """

    colour: Colour
    metal: float = 0.0
    gloss: float = 0.3
    sharpness: float = 20.0
    grime: float = 0.1
    rust: float = 0.0


_METALS: tuple[Colour, ...] = (
    (0.70, 0.71, 0.73),  # steel
    (0.82, 0.82, 0.80),  # stainless, zinc
    (0.56, 0.57, 0.60),  # iron
    (0.30, 0.30, 0.32),  # black oxide
    (0.83, 0.68, 0.36),  # brass
    (0.80, 0.72, 0.48),  # yellow zinc
    (0.76, 0.50, 0.36),  # copper
)


def metal(rng: Generator, *, rusty: float = 0.25) -> Material:
    """A metal: steel most often, also black oxide, brass, copper; rusty in a share `rusty` of cases."""
    base = _METALS[int(rng.choice(len(_METALS), p=[0.26, 0.22, 0.16, 0.12, 0.1, 0.08, 0.06]))]
    shift = rng.normal(0, 0.035)
    red, green, blue = (min(max(c + shift + rng.normal(0, 0.012), 0.12), 0.95) for c in base)
    rust = rng.uniform(0.15, 0.8) if rng.random() < rusty else 0.0
    gloss = rng.uniform(0.35, 1.0) * (1 - 0.6 * rust)
    return Material((red, green, blue), 1.0, gloss, rng.uniform(12, 60), rng.uniform(0.05, 0.3), rust)


def plastic(rng: Generator) -> Material:
    """A plastic of any colour, white and black included."""
    kind = rng.random()
    if kind < 0.25:
        colour = hsv(rng.uniform(0, 1), 0.05, rng.uniform(0.75, 0.95))
    elif kind < 0.5:
        colour = hsv(rng.uniform(0, 1), 0.1, rng.uniform(0.1, 0.22))
    else:
        colour = hsv(rng.uniform(0, 1), rng.uniform(0.5, 0.9), rng.uniform(0.45, 0.9))
    return Material(colour, 0.0, rng.uniform(0.15, 0.6), rng.uniform(10, 40), rng.uniform(0.0, 0.12))


def scaled(colour: Sequence[float], factor: float) -> Colour:
    """A colour made darker or lighter."""
    red, green, blue = (min(max(c * factor, 0.0), 1.0) for c in colour)
    return red, green, blue


def circle(
    x: float = 0.0, y: float = 0.0, radius: float = 1.0, y_radius: float | None = None, points: int = 0
) -> Floats:
    """Outline of a disc or an upright ellipse, [n, 2]."""
    count = points or (40 if radius > 0.3 else 20)
    angle = np.arange(count, dtype=np.float32) * np.float32(2 * math.pi / count)
    y_radius = radius if y_radius is None else y_radius
    return np.stack([x + radius * np.cos(angle), y + y_radius * np.sin(angle)], axis=1)


def arc(radius: float, start: float, end: float, x: float = 0.0, y: float = 0.0, points: int = 24) -> Floats:
    """Points along an arc, angles in radians, [n, 2]."""
    angle = np.linspace(start, end, points, dtype=np.float32)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def box_outline(left: float, top: float, right: float, bottom: float) -> Floats:
    """The four corners of an upright rectangle, [4, 2]."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


class Pen:
    """Draws one object in unit coordinates: the object lies within the unit disc, x right, y down, before turning.

    Each stroke goes into three supersampled layers at once: what is covered, how high it stands (which the light
    needs), and its colour. `sprite()` blurs the heights into bevels, lights them and hands the pixels over.
    """

    def __init__(
        self,
        rng: Generator,
        radius: float,
        light: Light,
        material: Material,
        *,
        angle: float | None = None,
        flat: bool = False,
    ) -> None:
        """Start an object.

        Args:
            rng: The generator.
            radius: Half of the object's longest extent in pixels.
            light: The scene's light and camera.
            material: What it is made of.
            angle: Turn in radians; drawn at random where None.
            flat: Printed rather than standing: the camera's tilt leaves it alone.
        """
        self.rng, self.radius, self.light, self.material = rng, radius, light, material
        self.ss = 4 if radius < 14 else 3 if radius < 32 else 2  # supersampling
        turn = rng.uniform(0, 2 * math.pi) if angle is None else angle
        tilt = 0.0 if flat else light.tilt
        self._squash = math.cos(tilt)
        self._lift = math.sin(tilt) * radius * self.ss  # supersampled pixels upwards for one unit of height
        self._turn = np.array(
            [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]], np.float32
        )
        self._centre = math.ceil(radius * self.ss * 1.45) + 4 * self.ss
        side = -(-2 * self._centre // self.ss) * self.ss
        self._alpha = Image.new("L", (side, side))
        self._height = Image.new("L", (side, side))
        self._colour = Image.new("RGB", (side, side), _bytes(material.colour))
        self._pens = [ImageDraw.Draw(layer) for layer in (self._alpha, self._height, self._colour)]
        self._thickness = 0.0

    def place(self, points: ArrayLike, z: float = 0.0) -> list[tuple[float, float]]:
        """Unit coordinates to supersampled pixels, at a height `z` in units above the bench."""
        turned = (np.asarray(points, np.float32) @ self._turn) * (self.radius * self.ss)
        turned[:, 1] = turned[:, 1] * self._squash - z * self._lift
        return [(x, y) for x, y in (turned + self._centre).tolist()]

    def fill(
        self,
        points: ArrayLike,
        *,
        shade: float = 1.0,
        height: float = 1.0,
        z: float = 0.0,
        colour: Colour | None = None,
    ) -> None:
        """A filled polygon, points [n, 2].

        Args:
            points: Outline in unit coordinates.
            shade: Factor on the colour.
            height: Surface height for the light, 0 to 1.
            z: Height above the bench in units, which the camera's tilt turns into a shift.
            colour: Another colour than the material's.
        """
        corners = self.place(points, z)
        alpha, heights, colours = self._pens
        alpha.polygon(corners, fill=255)
        heights.polygon(corners, fill=round(255 * min(max(height, 0.0), 1.0)))
        colours.polygon(corners, fill=_bytes(scaled(colour or self.material.colour, shade)))

    def solid(
        self,
        points: ArrayLike,
        thickness: float,
        *,
        shade: float = 1.0,
        height: float = 1.0,
        colour: Colour | None = None,
    ) -> None:
        """A filled polygon that stands `thickness` units high: its side walls show when the camera is tilted."""
        self._thickness = max(self._thickness, thickness)
        steps = min(math.ceil(thickness * self._lift / 2), 14)
        for step in range(steps):
            wall = 0.5 + 0.3 * step / max(steps, 1)
            self.fill(
                points, shade=shade * wall, height=height * 0.35, z=thickness * step / steps, colour=colour
            )
        self.fill(points, shade=shade, height=height, z=thickness, colour=colour)

    def hole(self, points: ArrayLike, *, thickness: float = 0.0) -> None:
        """A hole: what lies below shows through; the inner wall of a thick object stays."""
        outline = np.asarray(points, np.float32)
        if thickness * self._lift > 1:
            self.fill(outline, shade=0.35, height=0.15, z=thickness)
            top = Image.new("L", self._alpha.size)
            bottom = Image.new("L", self._alpha.size)
            ImageDraw.Draw(top).polygon(self.place(outline, thickness), fill=255)
            ImageDraw.Draw(bottom).polygon(self.place(outline), fill=255)
            top.paste(0, mask=bottom.point(_INVERTED))
            self._alpha.paste(0, mask=top)
            self._height.paste(0, mask=top)
        else:
            corners = self.place(outline, thickness)
            self._pens[0].polygon(corners, fill=0)
            self._pens[1].polygon(corners, fill=0)

    def rod(
        self,
        start: Sequence[float],
        end: Sequence[float],
        radius: float,
        *,
        end_radius: float | None = None,
        shade: float = 1.0,
        height: float = 1.0,
        colour: Colour | None = None,
    ) -> None:
        """A round bar (or cone) between two points, drawn as strips that rise towards its axis."""
        self._thickness = max(self._thickness, radius)
        a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
        along = (b - a) / max(float(np.hypot(*(b - a))), 1e-6)
        side = np.array([-along[1], along[0]], np.float32)
        thin = radius if end_radius is None else end_radius
        wide = radius * self.radius * self.ss
        for share in (1.0, 0.94, 0.82, 0.64, 0.4, 0.16) if wide > 8 else (1.0, 0.75, 0.4):
            strip = [
                a - side * radius * share,
                b - side * thin * share,
                b + side * thin * share,
                a + side * radius * share,
            ]
            self.fill(
                np.stack(strip),
                shade=shade,
                height=height * math.sqrt(1.0 - 0.92 * share * share),
                colour=colour,
            )

    def stroke(
        self,
        points: ArrayLike,
        width: float,
        *,
        shade: float = 1.0,
        height: float = 1.0,
        colour: Colour | None = None,
    ) -> None:
        """A thick line with round joints along points [n, 2], `width` units wide."""
        corners = self.place(points)
        thick = max(round(width * self.radius * self.ss), 1)
        paint = _bytes(scaled(colour or self.material.colour, shade))
        inks: tuple[int | tuple[int, ...], ...] = (255, round(255 * min(height, 1.0)), paint)
        for pen, ink in zip(self._pens, inks, strict=True):
            pen.line(corners, fill=ink, width=thick, joint="curve")
            for x, y in (corners[0], corners[-1]):
                pen.ellipse([x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2], fill=ink)
        self._thickness = max(self._thickness, width / 2)

    def mark(
        self,
        points: ArrayLike,
        width: float,
        *,
        shade: float = 0.4,
        height: float | None = None,
        z: float = 0.0,
    ) -> None:
        """A thin line drawn on what is already there (a groove, a letter's stroke): it covers nothing new."""
        corners = self.place(points, z)
        thick = max(round(width * self.radius * self.ss), 1)
        self._pens[2].line(corners, fill=_bytes(scaled(self.material.colour, shade)), width=thick)
        if height is not None:
            self._pens[1].line(corners, fill=round(255 * height), width=thick)

    def paint(
        self, points: ArrayLike, colour: Colour, *, height: float | None = None, z: float = 0.0
    ) -> None:
        """A filled polygon of colour on what is already there: it covers nothing new."""
        corners = self.place(points, z)
        self._pens[2].polygon(corners, fill=_bytes(colour))
        if height is not None:
            self._pens[1].polygon(corners, fill=round(255 * height))

    def pixels(self, length: float) -> float:
        """A length in units as pixels of the finished picture."""
        return length * self.radius

    def sprite(self, *, bevel: float = 0.06, relief: float = 1.0, opacity: float = 1.0) -> Sprite:
        """Light what was drawn.

        Args:
            bevel: Width of rounded edges in units.
            relief: How strongly heights turn into slopes.
            opacity: Below 1 what lies underneath shines through.
        """
        bounds = self._alpha.getbbox()
        if bounds is None:
            empty = np.zeros((1, 1), np.float32)
            return Sprite(np.zeros((1, 1, 3), np.float32), empty, empty)
        left, top = (max(v // self.ss - 2, 0) * self.ss for v in bounds[:2])
        side = self._alpha.width
        right, bottom = (min(-(-v // self.ss) * self.ss + 2 * self.ss, side) for v in bounds[2:])
        window = (left, top, right, bottom)
        alpha = np.asarray(self._alpha.reduce(self.ss, box=window), np.float32) / 255
        soft = self._height.reduce(self.ss, box=window).filter(
            ImageFilter.GaussianBlur(min(max(bevel * self.radius, 0.6), 4.0))
        )
        heights = np.asarray(soft, np.float32) / 255
        albedo = np.asarray(self._colour.reduce(self.ss, box=window), np.float32) / 255
        depth = min(max(bevel * self.radius, 0.6), 4.0) * 2.2 * relief
        rgb = shade(self.rng, albedo, heights * depth, self.material, self.light)
        rise = self._thickness * self.radius
        return Sprite(rgb, alpha * opacity if opacity < 1 else alpha, alpha, rise)


_INVERTED = [255 - v for v in range(256)]


def _bytes(colour: Sequence[float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * min(max(c, 0.0), 1.0)) for c in colour)
    return red, green, blue


def shade(rng: Generator, albedo: Floats, heights: Floats, material: Material, light: Light) -> Floats:
    """Light a surface: diffuse and ambient light, a highlight, a metal's reflections of the room, dirt and rust.

    Args:
        rng: The generator.
        albedo: Colour of the surface, float32 [h, w, 3].
        heights: Surface height in pixels, float32 [h, w].
        material: What it is made of.
        light: The scene's light.

    Returns:
        Float32 [h, w, 3], 0 to 1.
    """
    h, w = heights.shape
    padded = np.pad(heights, 1)
    gx = (padded[1:-1, 2:] - padded[1:-1, :-2]) * 0.5
    gy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) * 0.5
    up = 1.0 / np.sqrt(1.0 + gx * gx + gy * gy)
    lx, ly, lz = light.direction
    diffuse = np.clip((lz - gx * lx - gy * ly) * up, 0, 1)
    half = math.sqrt(lx * lx + ly * ly + (lz + 1) ** 2)
    glint = np.clip(((lz + 1) - gx * lx - gy * ly) * up / half, 0, 1) ** material.sharpness
    x = np.linspace(-1, 1, w, dtype=np.float32)
    y = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
    base = albedo
    if material.grime > 0.02 or material.rust:
        spots = noise(rng, w, h, 1.5, 1.5, 2)
        base = base * (1 - material.grime * 0.45 * np.clip(spots + 0.3, 0, 2))[..., None]
        if material.rust:
            crust = np.clip((spots - 1.6 + 2.4 * material.rust) * 1.5, 0, 1)
            tone = noise(rng, w, h, 1, 1, 1) * 0.16 + 0.85
            rusty = np.asarray(hsv(rng.uniform(0.03, 0.065), 0.72, 0.5), np.float32) * tone[..., None]
            base = base + (rusty - base) * (crust * 0.85)[..., None]
            glint = glint * (1 - 0.8 * crust)
    room: Floats | float = 0.0
    if material.metal:
        phase, turns = rng.uniform(0, 6.28), rng.uniform(1.5, 3.5)
        across = (lx * x + ly * y) * rng.uniform(0.5, 1.6)
        room = np.sin(turns * (gx * 1.3 - gy) * up + across * 1.6 + phase) * (
            0.2 * material.metal * material.gloss
        )
    lit = light.ambient + (1.05 - light.ambient) * diffuse + room
    lit = lit + 0.06 * (lx * x + ly * y)
    tinted = base * (0.35 + 0.65 * material.metal) + 0.65 * (1 - material.metal)
    return np.clip(base * lit[..., None] + tinted * (glint * material.gloss * 0.9)[..., None], 0, 1).astype(
        np.float32
    )


# -- the scene -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Staging:
    """How a scene is filled and photographed.

    Attributes:
        count: Fewest and most objects.
        radius: Smallest and largest radius of an object in pixels, drawn log-uniformly.
        alike: Share of scenes whose objects are all of about one size.
        hidden: Largest share of an object that others (or the picture's edge) may hide.
        contrast: Least mean difference between an object's pixels and what it covers, 0 to 1.
        distractors: Fewest and most unlabelled things.
        clustered: Share of scenes whose objects crowd around one spot.
        blur: Largest blur in pixels (deviation).
        grain: Largest noise (deviation, 0 to 1).
        depth_of_field: Share of the scenes with a blurred far or near side.
        vignette: Largest darkening of the corners.
    """

    count: tuple[int, int] = (2, 9)
    radius: tuple[float, float] = (11.0, 60.0)
    alike: float = 0.3
    hidden: float = 0.45
    contrast: float = 0.05
    distractors: tuple[int, int] = (0, 3)
    clustered: float = 0.25
    blur: float = 0.9
    grain: float = 0.025
    depth_of_field: float = 0.25
    vignette: float = 0.35


@dataclass
class _Laid:
    """An object on the canvas: its place, how much of each of its pixels shows, and how much there was."""

    left: int
    top: int
    visible: Floats  # of the part inside the picture
    whole: float
    index: int


@dataclass
class Canvas:
    """A picture in the making; `lay()` adds objects, `boxes()` measures what can be seen of them."""

    rgb: Floats
    light: Light
    laid: list[_Laid] = field(default_factory=list)

    def fits(self, sprite: Sprite, left: int, top: int, hidden: float, contrast: float = 0.0) -> bool:
        """Whether the sprite, laid there, can be told from what it covers and leaves all others visible enough."""
        inside = self._window(sprite, left, top)
        if inside is None:
            return False
        rows, columns, down, across = inside
        part = sprite.mask[rows, columns]
        area = float(part.sum())
        if area < (1 - hidden) * float(sprite.mask.sum()):
            return False
        if contrast:
            below, rgb = self.rgb[down, across], sprite.rgb[rows, columns]
            change = below * (1 - rgb) if sprite.absorbs else rgb - below
            share = part * sprite.alpha[rows, columns]
            if float((np.abs(change).mean(2) * share).sum()) < contrast * area:
                return False
        above, beside = max(top, 0), max(left, 0)
        for other in self.laid:
            overlap = _overlap(other, beside, above, part.shape)
            if overlap is None:
                continue
            theirs, ours = overlap
            lost = float((other.visible[theirs] * part[ours]).sum()) * sprite.cover
            if lost and (float(other.visible.sum()) - lost) < (1 - hidden) * other.whole:
                return False
        return True

    def lay(self, sprite: Sprite, left: int, top: int, index: int) -> None:
        """Put a sprite down with its shadow; `index` is its class, -1 for a thing without a label."""
        inside = self._window(sprite, left, top)
        if inside is None:
            return
        if self.light.shadow and sprite.rise > 0.3:
            self._shadow(sprite, left, top)
        rows, columns, down, across = inside
        alpha = sprite.alpha[rows, columns, None]
        below = self.rgb[down, across]
        if sprite.absorbs:
            below *= 1 - alpha * (1 - sprite.rgb[rows, columns])
        else:
            below += (sprite.rgb[rows, columns] - below) * alpha
        part = sprite.mask[rows, columns]
        above, beside = max(top, 0), max(left, 0)
        for other in self.laid:
            overlap = _overlap(other, beside, above, part.shape)
            if overlap is not None:
                theirs, ours = overlap
                other.visible[theirs] *= 1 - sprite.cover * part[ours]
        if index >= 0:
            self.laid.append(_Laid(beside, above, part.copy(), float(sprite.mask.sum()), index))

    def boxes(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Boxes of what shows of each labelled object, float32 [n, 4] xyxy pixels, and their classes, int64 [n]."""
        boxes, classes = [], []
        for item in self.laid:
            shows = item.visible >= VISIBLE
            rows, columns = np.flatnonzero(shows.any(1)), np.flatnonzero(shows.any(0))
            if len(rows) and len(columns):
                x, y = item.left, item.top
                boxes.append((x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1))
                classes.append(item.index)
        return np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(classes, np.int64)

    def _window(self, sprite: Sprite, left: int, top: int) -> tuple[slice, slice, slice, slice] | None:
        """Rows and columns of the sprite inside the picture, then those of the picture."""
        height, width = self.rgb.shape[:2]
        h, w = sprite.mask.shape
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + w, width), min(top + h, height)
        if x0 >= x1 or y0 >= y1:
            return None
        return slice(y0 - top, y1 - top), slice(x0 - left, x1 - left), slice(y0, y1), slice(x0, x1)

    def _shadow(self, sprite: Sprite, left: int, top: int) -> None:
        lx, ly, lz = self.light.direction
        reach = min(sprite.rise, 30.0) / max(lz, 0.3)
        blur = 0.7 + reach * self.light.softness * 0.45
        pad = math.ceil(2.5 * blur)
        h, w = sprite.mask.shape
        canvas = Image.new("L", (w + 2 * pad, h + 2 * pad))
        canvas.paste(Image.fromarray((sprite.mask * 255).astype(np.uint8)), (pad, pad))
        dark = np.asarray(canvas.filter(ImageFilter.GaussianBlur(blur)), np.float32) * (
            self.light.shadow / 255
        )
        inside = self._window(
            Sprite(sprite.rgb, dark, dark), left - pad - round(lx * reach), top - pad - round(ly * reach)
        )
        if inside is not None:
            rows, columns, down, across = inside
            self.rgb[down, across] *= 1 - dark[rows, columns, None]


def _overlap(
    item: _Laid, left: int, top: int, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Where a window of a given place and shape meets an object: slices into the object, slices into the window."""
    h, w = item.visible.shape
    x0, y0 = max(left, item.left), max(top, item.top)
    x1, y1 = min(left + shape[1], item.left + w), min(top + shape[0], item.top + h)
    if x0 >= x1 or y0 >= y1:
        return None
    theirs = slice(y0 - item.top, y1 - item.top), slice(x0 - item.left, x1 - item.left)
    return theirs, (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def draw_scene(
    rng: Generator,
    width: int,
    height: int,
    shapes: Mapping[str, Shape],
    *,
    backgrounds: Mapping[str, Background] = BENCHES,
    distractors: Sequence[Shape] = (),
    staging: Staging = Staging(),
    light: Light | None = None,
    weights: Sequence[float] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """Draw one scene.

    Args:
        rng: The generator; the same state gives the same scene.
        width: Width in pixels.
        height: Height in pixels.
        shapes: Class name to the function that draws it; its position is the class index.
        backgrounds: Name to the function that paints it; one is chosen.
        distractors: Shapes that appear without a label.
        staging: How many, how large, how they are photographed.
        light: The light; drawn at random where None.
        weights: Relative frequency of each class; equal where None.

    Returns:
        The picture, uint8 [height, width, 3]; boxes, float32 [n, 4], xyxy pixels, tight around what can be seen;
        classes, int64 [n], 0-based.
    """
    light = light or random_light(rng)
    paint = list(backgrounds.values())[int(rng.integers(len(backgrounds)))]
    canvas = Canvas(np.clip(paint(rng, width, height), 0.02, 1).astype(np.float32), light)
    for _ in range(
        int(rng.integers(staging.distractors[0], staging.distractors[1] + 1)) if distractors else 0
    ):
        sprite = distractors[int(rng.integers(len(distractors)))](
            rng, rng.uniform(0.18, 0.5) * max(width, height), light
        )
        h, w = sprite.mask.shape
        left, top = (
            round(rng.uniform(-0.4 * w, width - 0.6 * w)),
            round(rng.uniform(-0.4 * h, height - 0.6 * h)),
        )
        canvas.lay(sprite, left, top, -1)
    scatter(rng, canvas, shapes, staging, weights=weights)
    boxes, classes = canvas.boxes()
    return photograph(rng, canvas.rgb, light, staging), boxes, classes


def scatter(
    rng: Generator,
    canvas: Canvas,
    shapes: Mapping[str, Shape],
    staging: Staging,
    *,
    weights: Sequence[float] | None = None,
    order: Sequence[int] | None = None,
) -> None:
    """Lay a random number of objects on a canvas where they fit; `order` fixes the classes instead."""
    height, width = canvas.rgb.shape[:2]
    names = list(shapes)
    if order is None:
        share = None if weights is None else np.asarray(weights) / np.sum(weights)
        order = rng.choice(
            len(names), int(rng.integers(staging.count[0], staging.count[1] + 1)), p=share
        ).tolist()
    low, high = np.log(staging.radius)
    typical = rng.uniform(low, high) if rng.random() < staging.alike else None
    focus = (
        (rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height)
        if rng.random() < staging.clustered
        else None
    )
    for index in order:
        size = (
            rng.uniform(low, high) if typical is None else np.clip(typical + rng.normal(0, 0.16), low, high)
        )
        sprite = shapes[names[index]](rng, float(np.exp(size)), canvas.light)
        h, w = sprite.mask.shape
        for _ in range(6):
            if focus is None:
                x, y = rng.uniform(0.04, 0.96) * width, rng.uniform(0.04, 0.96) * height
            else:
                x, y = focus[0] + rng.normal(0, 0.2) * width, focus[1] + rng.normal(0, 0.2) * height
            left, top = round(x - w / 2), round(y - h / 2)
            if canvas.fits(sprite, left, top, staging.hidden, staging.contrast):
                canvas.lay(sprite, left, top, index)
                break


def photograph(rng: Generator, rgb: Floats, light: Light, staging: Staging) -> NDArray[np.uint8]:
    """What the camera makes of it: falling light, vignette, colour, depth of field, blur, noise; uint8 [h, w, 3]."""
    height, width = rgb.shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    lx, ly, _ = light.direction
    fall = (
        1 + rng.uniform(0, 0.3) * (lx * x + ly * y) - rng.uniform(0, staging.vignette) * (x * x + y * y) * 0.5
    )
    rgb = rgb * (fall * light.exposure)[..., None] * np.asarray(light.tint, np.float32)
    contrast = rng.uniform(0.85, 1.15)
    rgb = (rgb - 0.45) * contrast + 0.45
    picture = Image.fromarray((np.clip(rgb, 0, 1) * 255).astype(np.uint8))
    blur = rng.uniform(0, staging.blur)
    sharp = picture.filter(ImageFilter.GaussianBlur(blur)) if blur > 0.3 else picture
    if rng.random() < staging.depth_of_field:
        far = rng.choice([-1.0, 1.0])
        share = np.clip((y * far + rng.uniform(-0.6, 0.2)) * 1.6, 0, 1) * np.ones((1, width), np.float32)
        veil = Image.fromarray((share * 255).astype(np.uint8))
        sharp = Image.composite(
            picture.filter(ImageFilter.GaussianBlur(blur + rng.uniform(0.8, 2.2))), sharp, veil
        )
    grain = rng.uniform(0.1, 1) * staging.grain * 255
    speckle = rng.standard_normal((height, width), np.float32)
    values = np.asarray(sharp, np.float32)
    values = values + (speckle * grain)[..., None]
    values[..., 0] += np.roll(speckle, 7, 1) * (grain * 0.5)
    values[..., 2] += np.roll(speckle, 11, 0) * (grain * 0.6)
    return np.clip(values, 0, 255).astype(np.uint8)
