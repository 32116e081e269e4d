"""How large boxes are, and at which input size of a detector the small ones can still be seen."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from odkit.data.boxes import box_area
from odkit.data.dataset import Dataset

SMALL_SHARE = 0.1  # small is what one box in ten falls short of
ENOUGH_BOXES = 10  # of a class, to speak of a tenth of them
STEP = 32  # input sizes are multiples of so many pixels, as most detectors' layers are


def small_side(
    dataset: Dataset, unit: Literal["pixel", "image"] = "pixel", *, square: bool = False
) -> tuple[float, str]:
    """The side that nine in ten boxes reach, in the class whose boxes are smallest; and which boxes these are.

    A box's side is the root of its area, as COCO measures size. Each class is looked at by itself, because each counts
    the same in the AP: blood's platelets are one box in thirteen and a third of its AP.

    Args:
        dataset: Crowd boxes and those of images of unknown size play no part.
        unit: "pixel" of the original images, or "image": as a share of the image's longer side.
        square: With "image", as a share of both sides: for detectors that stretch every image to a square.

    Returns:
        The side, and "boxes of 'platelet'" ("boxes" where all classes together have the smallest); (nan, "") where
        nothing is known.
    """
    sizes = dataset.image_sizes[dataset.box_images].astype(np.float64)
    area = box_area(dataset.boxes)
    known = ~dataset.box_crowd & (area > 0) & np.isfinite(area) & (sizes > 0).all(1)
    if not known.any():
        return math.nan, ""
    sides = np.sqrt(area[known])
    if unit == "image":
        sides = sides / (np.sqrt(sizes[known].prod(1)) if square else sizes[known].max(1))
    found = [(float(np.quantile(sides, SMALL_SHARE)), "boxes")]
    classes = dataset.box_classes[known]
    for label, name in enumerate(dataset.class_names):
        own = sides[classes == label]
        if len(own) >= ENOUGH_BOXES:
            found.append((float(np.quantile(own, SMALL_SHARE)), f"boxes of {name!r}"))
    return min(found)


def long_sides(dataset: Dataset) -> NDArray[np.float64]:
    """The longer side of each box in pixels, crowd boxes left out, float64."""
    boxes = dataset.boxes[~dataset.box_crowd].astype(np.float64)
    sides: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)
    return sides


def fitting_image_size(
    dataset: Dataset, *, own: int, most: int, side: float, square: bool = False, tile_size: int = 0
) -> tuple[int, str]:
    """The input size at which nine in ten boxes have sides of `side` pixels or more, and why it is this one.

    Never under the detector's own, which it was made with, nor over `most`, and no image is made larger than it is
    unless the detector's own size asks for that.

    Args:
        dataset: The images and boxes to be trained on.
        own: The detector's own longer side of an image, in pixels.
        most: The largest that is sensible here, in pixels.
        side: What a box's side should have, in pixels.
        square: Whether the detector stretches images to squares.
        tile_size: Side in pixels of the tiles that images are seen as; 0: they are seen whole.
    """
    if tile_size:
        small, whose = small_side(dataset)
        share, longest = small / tile_size, tile_size
    else:
        share, whose = small_side(dataset, "image", square=square)
        longest = int(dataset.image_sizes.max(initial=0))
    if not share > 0:
        return own, "the detector's own: no box of an image whose size is known says more"

    def reached(size: int) -> str:
        return f"nine in ten {whose} are {share * size:.0f} px or larger"

    wanted = math.ceil(side / share / STEP) * STEP
    largest = max(own, min(most, longest // STEP * STEP))
    size = min(max(own, wanted), largest)
    if size == own:
        return own, f"the detector's own: {reached(own)}"
    bound, cost = "", (size / own) ** 2
    if wanted > largest:
        what = f"as large as the {'tiles' if tile_size else 'pictures'}"
        bound = f"{what if longest <= most else 'the largest that pays here'}, "
    return size, (
        f"{bound}{reached(size)}, not {share * own:.0f} px as at the detector's own {own} px; {cost:.1f} times the "
        "work"
    )
