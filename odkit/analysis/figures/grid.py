"""Pages of images with boxes drawn on them, and the look that every figure shares."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as PlainFigure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from odkit.analysis.figures.colors import ink_on
from odkit.data import Dataset, ImageReadError, open_upright, upright_size

KIND_WORDS = {
    "correct": "correct",
    "Cls": "Cls (wrong class)",
    "Loc": "Loc (badly placed)",
    "Both": "Both (class and place)",
    "Dupe": "Dupe (found twice)",
    "Bkg": "Bkg (nothing there)",
    "Miss": "Miss (not found)",
}
INK, QUIET, GRID = "#22272e", "#6b7480", "#e3e6ea"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a class may be called "$5 note"
}


class Figure(PlainFigure):
    """A matplotlib figure outside pyplot: a notebook shows it once, as a PNG, and nothing stays open behind it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


_Arguments = ParamSpec("_Arguments")


def styled(function: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
    """Draw in odkit's look, whatever a notebook has set, and leave its settings alone."""

    @wraps(function)
    def wrapper(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)
            return function(*args, **kwargs)

    return wrapper


def class_name(dataset: Dataset, label: int) -> str:
    return dataset.class_names[label] if label >= 0 else "unknown"


def in_words(kind: str) -> str:
    return KIND_WORDS.get(kind, kind)


def shorten(text: str, room: int) -> str:
    """At most `room` characters of a text, an ellipsis for the rest."""
    return text if len(text) <= room else text[: max(room - 1, 1)] + "…"


@dataclass(frozen=True)
class Picture:
    """An upright image, made small, and its full size; no pixels but a reason where it cannot be read."""

    pixels: NDArray[np.uint8] | None
    width: int
    height: int
    fault: str = ""


def open_picture(dataset: Dataset, image: int, size: int) -> Picture:
    """One image of a dataset, upright (EXIF applied), at most `size` pixels wide and twice as high."""
    path = dataset.image_paths[image]
    width, height = (int(side) for side in dataset.image_sizes[image])
    try:
        small = open_upright(path, draft=("RGB", (size * 2, size * 2))).convert("RGB")
        small.thumbnail((size, size * 2), Image.Resampling.LANCZOS)
        return Picture(np.asarray(small), *upright_size(path))
    except ImageReadError as error:
        fault = "file not found" if isinstance(error.reason, FileNotFoundError) else "cannot be read"
    return Picture(None, *((width, height) if width and height else (4, 3)), fault)


class Sheet:
    """A page of images in rows; the images of a row are equally high and fill it. `panels` has one Panel an image."""

    width = 10.0  # inches, at 100 pixels each
    gap, head, foot = 0.08, 0.42, 0.36  # inches between panels, above each row, below the last
    narrowest, widest = (
        0.65,
        2.2,
    )  # width over height of a panel; an image beyond it is shown smaller in its panel

    def __init__(
        self, dataset: Dataset, images: Sequence[int], columns: int, *, nothing: str = "no images to show"
    ) -> None:
        columns = max(min(columns, len(images)), 1)
        cell = (self.width - self.gap * (columns - 1)) / columns
        # larger than a cell: beside narrow images a wide one gets more than its share of the row
        pictures = [open_picture(dataset, image, round(cell * 140)) for image in images]
        rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
        shapes = [[min(max(p.width / p.height, self.narrowest), self.widest) for p in row] for row in rows]
        heights = [min(cell * len(row) / sum(row), cell * 1.3) for row in shapes]
        total = sum(heights) + self.head * len(rows) + self.foot
        self.figure = Figure(figsize=(self.width, max(total, 1.2)))
        self.panels: list[Panel] = []
        top = total
        for row, row_shapes, height in zip(rows, shapes, heights, strict=True):
            top -= self.head + height
            left = 0.0
            for picture, shape in zip(row, row_shapes, strict=True):
                wide = height * shape
                place = (left / self.width, top / total, wide / self.width, height / total)
                self.panels.append(Panel(self.figure.add_axes(place), picture, wide * 100, height * 100))
                left += wide + self.gap
        if not rows:
            self.figure.text(0.5, 0.5, nothing, ha="center", va="center", color=QUIET)

    def finish(self, legend: Sequence[Artist]) -> Figure:
        """The figure, with all labels written and a legend below."""
        for panel in self.panels:
            panel.write_labels()
        if legend and self.panels:
            corner: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 0), "borderaxespad": 0.3}
            spacing: dict[str, Any] = {"handlelength": 1.4, "columnspacing": 1.4}
            self.figure.legend(handles=list(legend), ncols=len(legend), **corner, **spacing)
        return self.figure


class Panel:
    """One image on a sheet: its boxes, and as many of their labels as fit without covering each other."""

    def __init__(self, axes: Axes, picture: Picture, width: float, height: float) -> None:
        self.axes = axes
        self.scale = min(width / picture.width, height / picture.height)  # screen pixels an image pixel
        self.width, self.height = picture.width * self.scale, picture.height * self.scale  # screen pixels
        self._labels: list[tuple[NDArray[Any], str, str]] = []
        axes.set_xlim(0, picture.width)
        axes.set_ylim(picture.height, 0)
        axes.set_aspect("equal", anchor="NW")
        axes.set_axis_off()
        if picture.pixels is not None:
            axes.imshow(
                picture.pixels, extent=(0, picture.width, picture.height, 0), interpolation="antialiased"
            )
        else:
            axes.add_patch(Rectangle((0, 0), picture.width, picture.height, color="#d5d9de"))
            axes.text(
                picture.width / 2, picture.height / 2, picture.fault, ha="center", va="center", color=QUIET
            )
        axes.set_autoscale_on(False)

    def title(self, first: str, second: str) -> None:
        """Two lines above the image, cut where they would run into the next panel."""
        lines = (
            (first, 15, {"fontsize": 9, "weight": "bold"}, 6.6),
            (second, 3, {"fontsize": 8, "color": QUIET}, 5.9),
        )
        for text, rise, look, letter in lines:
            place = (0.0, 1 + rise / max(self.height, 1))
            shown = shorten(text, int(self.width / letter))
            self.axes.text(*place, shown, transform=self.axes.transAxes, va="bottom", **look)  # type: ignore[arg-type]

    def box(self, box: NDArray[Any], color: str, label: str, *, style: str = "-", width: float = 1.6) -> None:
        """A box (xyxy, pixels of the full image) and the label to write beside it where there is room."""
        x1, y1, x2, y2 = (float(value) for value in box)
        if not all(map(math.isfinite, (x1, y1, x2, y2))):
            return
        if width > 1:  # a dark line under the coloured one keeps it visible on any photograph
            under = {"edgecolor": "#000000", "linewidth": width + 0.9, "alpha": 0.35}
            self.axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **under))  # type: ignore[arg-type]
        over: dict[str, Any] = {"edgecolor": color, "linewidth": width, "linestyle": style}
        self.axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **over))
        if label:
            self._labels.append((np.array([x1, y1, x2, y2]), color, label))

    def write_labels(self, size: float = 7.0) -> None:
        """Labels where there is room: above the box, in its top, below it, in its bottom; large boxes choose first."""
        taken: list[tuple[float, float, float, float]] = []
        by_area = sorted(self._labels, key=lambda item: -float(np.prod(item[0][2:] - item[0][:2])))
        for box, color, text in by_area:
            x1, y1, _, y2 = (float(value) for value in box * self.scale)
            wide, high = len(text) * size * 0.86 + 3, size * 1.75  # screen pixels
            left = min(max(x1, 0.0), max(self.width - wide, 0.0))
            for top in (y1 - high, y1, y2, y2 - high):
                spot = (left, top, left + wide, top + high)
                if top >= 0 and top + high <= self.height and not any(_cross(spot, other) for other in taken):
                    taken.append(spot)
                    self._write(left / self.scale, top / self.scale, text, color, size)
                    break

    def _write(self, x: float, y: float, text: str, color: str, size: float) -> None:
        look = {"boxstyle": "square,pad=0.15", "facecolor": color, "edgecolor": "none", "alpha": 0.92}
        self.axes.text(x, y, text, fontsize=size, va="top", color=ink_on(color), bbox=look)


def _cross(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
