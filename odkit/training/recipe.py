"""The recipe of a run: what the settings leave open is chosen here, each choice with its reason."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from odkit.data import Dataset, fitting_image_size, small_side
from odkit.detection import SMALLEST_TILE, Detector, Tiling, best_precision, catalogue_entry, fitting_tiling
from odkit.runs import Settings
from odkit.training.distributed import world_size

LONG_RUN = 16  # epochs
PLAIN_SHARE = 0.25  # of the epochs at the end that see no mosaics and blends
# class names of what a mirror makes into another class, or into none
_ONE_WAY = re.compile(
    r"[a-z]|\d+|(.*[ _-])?(letters?|digits?|texts?|words?|left|right)([ _-].*)?", re.IGNORECASE
)
STEPS_AN_EPOCH = 50  # at least so many, before a batch on a GPU becomes larger than 16 images
# Input size and tiles, in pixels that the detector sees:
# Nine in ten boxes of every class shall have this side, two and a half cells of the finest features: with 21 pixels in
# place of 16, BCCD's platelets gain 0.016 AP50 in the same minutes.
SMALL_SIDE = 20
TOO_SMALL_SIDE = 12  # with less at the largest sensible size, images are better seen as tiles
LARGEST_SIZE = {"cpu": 640, "mps": 1024, "cuda": 1280}  # sensible: an epoch ends in reasonable time
TILE_INPUT_SIZE = 640  # what tiles are resized to, or the detector's own where that is larger
LARGER_THAN_TILES = 1.5  # times a tile's side: smaller images are not cut by odkit's own choice


@dataclass
class Choices:
    """What the worker chose where the settings left it open, each with its reason; kept over a resume."""

    batch_size: int
    micro_batch_size: int
    image_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    precision: str
    augment: str
    orientation: str = "mirror"
    backbone_rate: float = 1.0  # factor on the learning rate in the backbone
    tiles: dict[str, Any] = field(default_factory=dict)  # the fields of a Tiling; none: images are seen whole
    reasons: dict[str, str] = field(default_factory=dict)


class View(NamedTuple):
    """How images are shown to the detector, in training and after it."""

    image_size: int  # longer side of an image, or side of a tile, after resizing, in pixels
    tiling: Tiling | None
    reasons: dict[str, str]


def choose_view(settings: Settings, device: torch.device, dataset: Dataset) -> View:
    """Input size and tiles where the settings leave them open, by the boxes to be learnt, with reasons.

    Tiles multiply the work of training and of every prediction after it: on a GPU they are chosen where nothing else
    shows the detector its objects, on others the reason says what they would bring.

    Args:
        settings: What was set.
        device: Where to train.
        dataset: The training images.
    """
    entry = catalogue_entry(settings.detector)
    own, square = entry.image_size, entry.square
    most = LARGEST_SIZE.get(device.type, LARGEST_SIZE["cpu"])

    def fitting(most: int, tile_size: int = 0) -> tuple[int, dict[str, str]]:
        if settings.image_size:
            return settings.image_size, {}
        size, reason = fitting_image_size(
            dataset, own=own, most=most, side=SMALL_SIDE, square=square, tile_size=tile_size
        )
        return size, {"image_size": reason}

    if settings.tiles > 0:
        size, reasons = fitting(most, settings.tiles)
        return View(size, fitting_tiling(dataset, settings.tiles), reasons)
    size, reasons = fitting(most)
    if settings.tiles == 0:
        return View(size, None, reasons)
    tile_input = settings.image_size or max(own, TILE_INPUT_SIZE)
    tile, why = _fitting_tile(dataset, size, tile_input, square=square)
    if not tile:
        return View(size, None, reasons)
    if device.type == "cpu":
        reasons["tiles"] = (
            f"none, because they take long on a CPU; but {why}. To train on them: --tiles {tile}"
        )
        return View(size, None, reasons)
    size, reasons = fitting(tile_input, tile)
    return View(size, fitting_tiling(dataset, tile), {**reasons, "tiles": why})


def _fitting_tile(dataset: Dataset, size: int, tile_input: int, *, square: bool) -> tuple[int, str]:
    """Side in pixels of tiles that show what images of `size` pixels do not, and why; 0 where none do."""
    share, whose = small_side(dataset, "image", square=square)
    pixels, _ = small_side(dataset)
    longest = int(dataset.image_sizes.max(initial=0))
    if not share * size < TOO_SMALL_SIDE:
        return 0, ""
    # no pixel is made of less than one of the image
    tile = max(SMALLEST_TILE, tile_input, int(tile_input * pixels / SMALL_SIDE) // 32 * 32)
    shown = pixels * tile_input / tile
    if longest < LARGER_THAN_TILES * tile or shown < 1.2 * share * size:
        return 0, ""
    return tile, (
        f"one in ten {whose} is under {share * size:.0f} px at {size} px; tiles of {tile} px make that "
        f"{shown:.0f} px"
    )


def choose(
    settings: Settings,
    device: torch.device,
    images: int,
    fitting: int | None = None,
    view: View | None = None,
    class_names: Sequence[str] = (),
) -> Choices:
    """Batch, precision, optimizer and rates where the settings leave them open, with reasons.

    Args:
        settings: What was set.
        device: Where to train.
        images: Training images (or tiles) of an epoch.
        fitting: Images that the memory of a GPU holds at once.
        view: How they are shown; None: whole, at the size that was set, or the detector's own.
        class_names: What is to be found.
    """
    entry = catalogue_entry(settings.detector)
    view = view or View(settings.image_size or entry.image_size, None, {})
    reasons = dict(view.reasons)
    world = world_size()
    batch = settings.batch_size
    if not batch:
        per_process, reasons["batch_size"] = _fitting_batch(device, images // world, fitting)
        batch = max(world, min(per_process * world, images - images % world))
    micro = min(settings.micro_batch_size or batch, math.ceil(batch / world))
    optimizer = settings.optimizer if settings.optimizer != "auto" else entry.optimizer
    if settings.optimizer == "auto":
        reasons["optimizer"] = f"what {settings.detector} was made with"
    rate = settings.learning_rate
    if not rate:
        rate = (
            entry.learning_rate if optimizer == entry.optimizer else {"adamw": 5e-4, "sgd": 0.01}[optimizer]
        )
        # the usual rules: linear in the batch for SGD (Goyal et al., 2017), its root for Adam (Malladi et al., 2022)
        rate *= (batch / 16) ** (1.0 if optimizer == "sgd" else 0.5)
        reasons["learning_rate"] = f"{settings.detector}'s own, scaled from a batch of 16 to {batch}"
    decay = {"adamw": 0.02, "sgd": 1e-4}[optimizer]
    if optimizer == entry.optimizer and entry.weight_decay is not None:
        decay = entry.weight_decay
    if settings.weight_decay >= 0:
        decay = settings.weight_decay
    backbone_rate = 1.0 if settings.weights == "random" else entry.backbone_rate
    if backbone_rate != 1:
        reasons["backbone_rate"] = "the backbone is pre-trained: its authors' factor on the learning rate"
    augment: str = settings.augment
    if augment == "auto":
        augment, reasons["augment"] = fitting_augmentation(settings)
    orientation: str = settings.orientation
    if orientation == "auto":
        orientation, reasons["orientation"] = _fitting_orientation(class_names)
    precision, reasons["precision"] = choose_precision(settings, device)
    return Choices(
        batch_size=batch,
        micro_batch_size=micro,
        image_size=view.image_size,
        optimizer=optimizer,
        learning_rate=rate,
        weight_decay=decay,
        precision=precision,
        augment=augment,
        orientation=orientation,
        backbone_rate=backbone_rate,
        tiles=view.tiling._asdict() if view.tiling else {},
        reasons=reasons,
    )


def choose_precision(settings: Settings, device: torch.device) -> tuple[str, str]:
    """The number format of convolutions ("fp32", "bf16", "fp16"), and why."""
    return best_precision(device) if settings.precision == "auto" else (settings.precision, "as set")


def _fitting_batch(device: torch.device, images: int, fitting: int | None) -> tuple[int, str]:
    """Images a step of one process: what learns well in the number of images, and what its memory holds."""
    if device.type != "cuda":
        # they cost the same there one by one, and more steps learn more
        return 4, f"4 images a process on a {device.type} device"
    if fitting is None or fitting < 32 or images < 32 * STEPS_AN_EPOCH:
        held = "" if fitting is None else f" (its memory holds about {fitting} at once)"
        return 16, f"16 images a process on a cuda device{held}"
    most = min(64, fitting, images // STEPS_AN_EPOCH)
    size = 1 << (most.bit_length() - 1)
    return (
        size,
        f"its memory holds about {fitting} at once, and {images} images make {images // size} steps an epoch",
    )


def fitting_augmentation(settings: Settings) -> tuple[str, str]:
    """Measured: zooming costs a short run some accuracy, and keeps a long one from learning its images by heart."""
    if settings.minutes:
        return "strong", "a time budget leaves the number of epochs open: what serves a long run"
    if settings.epochs >= LONG_RUN:
        return "strong", f"a run of {LONG_RUN} epochs or more sees each image often: vary its size too"
    return "flip", f"a run of under {LONG_RUN} epochs sees each image a few times: flips are variety enough"


def _fitting_orientation(class_names: Sequence[str]) -> tuple[str, str]:
    """Mirrored, but where that makes a class another. Measured: it helps even where what is seen has letters on it."""
    for name in class_names:
        if _ONE_WAY.fullmatch(name.strip()):
            return "upright", f"a mirror would make {name!r} another class, or none"
    return "mirror", "no class is a letter, a number, left or right: a mirror image is as good"


def make_optimizer(detector: Detector, choices: Choices, layer_decay: float) -> torch.optim.Optimizer:
    """AdamW or SGD with a `peak` learning rate a group: by depth in the backbone, norms and biases without decay."""
    depths = _depths(detector)
    deepest = max(depths.values(), default=0)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in detector.named_parameters():
        groups.setdefault((depths.get(name, deepest), parameter.ndim > 1), []).append(parameter)
    rows = []
    for (depth, decays), parameters in sorted(groups.items(), key=lambda item: (-item[0][0], -item[0][1])):
        rate = choices.learning_rate * layer_decay ** (deepest - depth)
        if depth < deepest:
            rate *= choices.backbone_rate
        decay = choices.weight_decay if decays else 0.0
        rows.append({"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay})
    if choices.optimizer == "sgd":
        return torch.optim.SGD(rows, lr=choices.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(rows, lr=choices.learning_rate, fused=True)


def _depths(detector: Detector) -> dict[str, int]:
    """Stage of each backbone parameter, counted from the image; everything else is one deeper than the last."""
    order: dict[str, int] = {}
    depths = {}
    for name, _ in detector.module.named_parameters():
        if stage := detector.family.STAGE.match(name):
            depths[f"module.{name}"] = order.setdefault(stage[1], len(order))
    return {**depths, "": len(order)}


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at a step (0-based): a linear rise, then a cosine down to a hundredth."""
    rise = max(1, min(500, round(total * warmup)))
    if step < rise:
        return (step + 1) / rise
    along = min(1.0, (step - rise) / max(1, total - rise))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along))
