"""Every setting of a training run: one flat dataclass, from which the command line, notebooks and docs derive."""

import ast
import dataclasses
import functools
import inspect
import itertools
import math
import operator
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_type_hints

from odkit import detection
from odkit.system import InputError, UnknownSettingError, machine

MAY_CHANGE = ("epochs", "minutes", "num_workers", "worker_timeout", "cache", "patience", "evaluate_every",
              "checkpoint_minutes", "checkpoint_steps", "keep", "device")  # fmt: skip
"""Settings that a resumed run may change: they leave every step that was taken as it was."""

MOST = 2**31 - 1
"""No whole number of a run is larger, its seed excepted: files, counters and other tools hold it."""
SMALL_IMAGE = 320  # pixels: what no detector resizes images to less than, unless it is told to
SMALLEST_IMAGE = 64  # pixels; what some detectors want besides, they say
_AT_LEAST = {
    "epochs": 0,
    "batch_size": 0,
    "micro_batch_size": 0,
    "image_size": 0,
    "tiles": -1,
    "learning_rate": 0,
    "clip": 0,
    "minutes": 0,
    "freeze_epochs": 0,
    "patience": 0,
    "processes": 1,
    "num_workers": -1,
    "evaluate_every": 1,
    "checkpoint_minutes": 0,
    "checkpoint_steps": 0,
    "keep": 1,
    "worker_timeout": 0,
    "seed": 0,
}
_BETWEEN = {
    "warmup": (0, 1),
    "ema": (0, 0.99999),
    "multi_scale": (0, 0.5),
    "mosaic": (0, 1),
    "mixup": (0, 1),
    "class_balance": (0, 1),
    "layer_decay": (0.01, 1),
}
_CHOICES = {
    "optimizer": ("auto", "adamw", "sgd"),
    "augment": ("auto", "none", "flip", "photo", "strong"),
    "orientation": ("auto", "upright", "mirror", "turn", "any"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "cache": ("auto", "memory", "disk", "off"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a run; 0 or "auto" means that odkit chooses, and says what and why in the run's events."""

    detector: str = "starter"
    """Name in the catalogue (`odkit detectors`)."""
    weights: str = "pretrained"
    """"pretrained", "random", or the path of a weights file."""
    image_size: int = 0
    """Longer side in pixels that images are resized to; 0: the detector's own, or larger where small boxes want it."""
    tiles: int = -1
    """Side in pixels of overlapping tiles that large images are seen as, each resized to `image_size`; 0: none.
    -1: where boxes stay too small at any sensible size, chosen on a GPU and proposed on a CPU."""
    epochs: int = 0
    """Passes over the training images. 0: by the number of images, or as many as fit into `minutes`."""
    minutes: float = 0.0
    """Time budget in minutes: the number of epochs is fitted to it after the first steps; 0: none."""
    batch_size: int = 0
    """Images a step, over all processes; 0: 4 on a CPU, 16 a GPU."""
    micro_batch_size: int = 0
    """Images that go through the detector at once; smaller ones are accumulated to a batch. 0: as many as fit."""
    optimizer: Literal["auto", "adamw", "sgd"] = "auto"
    """"auto": what the detector was made with."""
    learning_rate: float = 0.0
    """Peak learning rate; 0: the detector's, scaled to the batch."""
    weight_decay: float = -1.0
    """Weight decay; -1: the detector's own, else 0.02 for AdamW, 0.0001 for SGD. Norms and biases have none."""
    warmup: float = 0.1
    """Share of the run over which the learning rate rises; a cosine brings it down again. At most 500 steps."""
    clip: float = 5.0
    """Largest gradient norm; 0: no clipping."""
    ema: float = 0.995
    """Decay of the averaged weights that are evaluated and saved (it warms up); 0: no averaging."""
    augment: Literal["auto", "none", "flip", "photo", "strong"] = "auto"
    """How training images are varied. none: not at all; flip: as `orientation` allows; photo: also light, colour and
    blur; strong: also zoom. "auto": by the length of the run."""
    orientation: Literal["auto", "upright", "mirror", "turn", "any"] = "auto"
    """How training images may lie: upright (as they are), mirror, turn (by quarters) or any (both). "auto": mirror,
    unless a class is a letter, a number, left or right, which a mirror would turn into another."""
    mosaic: float = 0.0
    """Share of training images that are put together from four; none in the last quarter of the epochs."""
    mixup: float = 0.0
    """Share of training images that are blended with another; none in the last quarter of the epochs."""
    class_balance: float = 0.0
    """Show images of rare classes more often: of those in less than this share of the images. 0: all equally often."""
    multi_scale: float = 0.0
    """Vary the image size from batch to batch by up to this share, 0 to 0.5."""
    freeze_epochs: int = 0
    """Keep the backbone fixed for so many epochs."""
    layer_decay: float = 1.0
    """Factor on the learning rate for each stage (the starter: each block) further from the head; 1: the same rate
    everywhere."""
    patience: int = 0
    """Stop when the AP has not risen for so many epochs; 0: never."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """"auto": bf16 where the device gains from it, else fp32."""
    compile: bool = False
    """Try torch.compile on the backbone; falls back with the reason."""
    deterministic: bool = False
    """The same weights from run to run and over a resume on a GPU too, as far as PyTorch can; slower."""
    device: str = "auto"
    """"auto", "cpu", "cuda", "cuda:1", "mps"."""
    processes: int = 1
    """Training processes (one a GPU), started by torchrun."""
    num_workers: int = -1
    """Data workers a process; -1: chosen from cores, memory and /dev/shm."""
    worker_timeout: float = 300.0
    """Seconds after which a data worker counts as hung."""
    cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Where decoded and resized images are kept from epoch to epoch: in half of the free memory, or in a file of the
    run folder, in a quarter of what is free on its disk; it is gone when the worker ends. "auto": where they fit."""
    seed: int = 0
    """Seed of everything random."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str = "val"
    """Split to judge on, after each epoch."""
    test_split: str = "test"
    """Split that is set aside for `run.test()`, where the dataset has it."""
    evaluate_every: int = 1
    """Epochs between evaluations; the last epoch always has one."""
    checkpoint_minutes: float = 5.0
    """At most so many minutes of work are at risk."""
    checkpoint_steps: int = 0
    """Also save a checkpoint every so many steps; 0: by time and by epoch only."""
    keep: int = 2
    """Checkpoints to keep."""

    def __post_init__(self) -> None:
        if problems := list(self._take_kinds()):
            raise InputError("; ".join(problems))
        for name, least in _AT_LEAST.items():
            if getattr(self, name) < least:
                problems.append(f"{name} must be {least} or more, not {getattr(self, name)}")
        if self.weight_decay < 0 and self.weight_decay != -1:
            problems.append(f"weight_decay must be -1 or 0 and more, not {self.weight_decay}")
        if 0 < self.image_size < SMALLEST_IMAGE:
            problems.append(
                f"image_size must be 0 or {SMALLEST_IMAGE} pixels and more, not {self.image_size}"
            )
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,2})?", self.device):
            problems.append(f'device must be "auto", "cpu", "cuda", "cuda:1" or "mps", not {self.device!r}')
        for name, (low, high) in _BETWEEN.items():
            if not low <= getattr(self, name) <= high:
                problems.append(f"{name} must be {low} to {high}, not {getattr(self, name)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                problems.append(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        if 0 < self.tiles < detection.SMALLEST_TILE:
            problems.append(
                f"tiles must be -1, 0 or {detection.SMALLEST_TILE} pixels and more, not {self.tiles}"
            )
        if self.augment == "none" and (
            self.mosaic or self.mixup or self.orientation not in ("auto", "upright")
        ):
            problems.append(
                "augment none varies nothing: leave out mosaic, mixup and orientation, or take flip"
            )
        if self.batch_size and self.micro_batch_size > self.batch_size:
            problems.append(
                f"micro_batch_size ({self.micro_batch_size}) is larger than batch_size ({self.batch_size})"
            )
        if self.batch_size and self.processes > 0 and self.batch_size % self.processes:
            problems.append(
                f"batch_size ({self.batch_size}) cannot be dealt evenly to {self.processes} processes"
            )
        if self.processes > 1 and self.device.startswith("cuda:"):
            problems.append(
                f'device {self.device!r} is one GPU, and {self.processes} processes want one each: take "cuda"; '
                "CUDA_VISIBLE_DEVICES=1,2 in front of the command says which"
            )
        if problems:
            raise InputError("; ".join(problems))

    def _take_kinds(self) -> Iterator[str]:
        """Make each value one of its field's type, NumPy's numbers too; what is none, in words."""
        for name, kind in _kinds().items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, _of_kind(kind, value))
            except (TypeError, ValueError, OverflowError):
                wanted = {int: "a whole number", float: "a number", bool: "True or False"}.get(kind, "a text")
                yield f"{name} must be {wanted}, not {_short(value)}"
                continue
            most = 2**63 - 1 if name == "seed" else MOST
            if kind is float and not math.isfinite(getattr(self, name)):
                yield f"{name} must be a finite number, not {_short(value)}"
            elif kind in (int, float) and abs(getattr(self, name)) > most:
                yield f"{name} must be a number up to {most:,}, not {_short(value)}"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@functools.cache
def _kinds() -> dict[str, Any]:
    return get_type_hints(Settings)


def _of_kind(kind: Any, value: Any) -> Any:
    """A value as one of a field's type.

    Raises:
        TypeError, ValueError, OverflowError: It is none.
    """
    truth = type(value).__name__ in ("bool", "bool_")  # Python's, and NumPy's old and new
    if kind is bool:
        if not truth:
            raise TypeError
        return bool(value)
    if kind in (int, float):
        if truth or isinstance(value, str | bytes):
            raise TypeError
        return operator.index(value) if kind is int else float(value)
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError
    text.encode()  # a path that is no UTF-8 cannot be written down
    return text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def setting_docs(kind: type) -> dict[str, str]:
    """The sentence under each field of a dataclass, by its name: Python keeps it in the source alone."""
    tree = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for field, doc in itertools.pairwise(tree.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(doc, ast.Expr)
            and isinstance(doc.value, ast.Constant)
        ):
            docs[ast.unparse(field.target)] = str(doc.value.value)
    return docs


IMAGES_OF_A_RUN = 4500  # images seen, one by one; one of many tiles counts once
EPOCHS = (12, 60)  # for any number of images


def fitting_epochs(images: int) -> int:
    """Passes over a number of training images, where nothing else is said."""
    return min(max(round(IMAGES_OF_A_RUN / max(1, images)), EPOCHS[0]), EPOCHS[1])


def with_epochs(settings: Settings, images: int) -> Settings:
    """The settings with the number of epochs filled in that fits so many training images, where it was left open."""
    return settings if settings.epochs else dataclasses.replace(settings, epochs=fitting_epochs(images))


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Settings from keyword values.

    Raises:
        UnknownSettingError: The message names the nearest.
        InputError: A value is out of range.
    """
    names = [f.name for f in dataclasses.fields(Settings)]
    for name in values:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise UnknownSettingError(f"there is no setting {name!r}{hint} Settings: {', '.join(names)}")
    return Settings(**values)


def check_detector(settings: Settings) -> None:
    """Raises InputError where there is no such detector, or it cannot take images of that size."""
    if settings.detector == "starter":  # known without torch
        return
    entry = detection.catalogue_entry(settings.detector)
    if 0 < settings.image_size < entry.smallest:
        raise InputError(
            f"{settings.detector} needs images of {entry.smallest} pixels or more, not {settings.image_size}"
        )


def check_machine(settings: Settings) -> None:
    """Raises InputError, with the figures, where this machine cannot hold what was set, or has no such file."""
    problems = []
    cores, most = machine.cpu_count(), machine.most_workers()
    if settings.num_workers * settings.processes > most:
        of = f" for each of {settings.processes} processes" if settings.processes > 1 else ""
        problems.append(
            f"num_workers is {settings.num_workers}{of}, each a process of some 200 MB: with {cores} cores, "
            f"{most} in all are the most here. -1 chooses by cores and memory"
        )
    if settings.processes > most:
        problems.append(
            f"processes is {settings.processes}: this machine has {cores} cores, and a GPU wants one process each"
        )
    side = settings.image_size or SMALL_IMAGE
    wanted, memory = 2 * 3 * side**2 * settings.batch_size, machine.memory_total_bytes()
    if wanted > memory / 2:  # its pictures as bytes, singly and packed
        fitting = int(memory / 2 / (2 * 3 * side**2))
        problems.append(
            f"batch_size is {settings.batch_size:,}: pictures of {side} pixels take "
            f"{machine.megabytes(wanted)} of memory for such a batch, and this machine has "
            f"{machine.megabytes(memory)}; at most {fitting:,}"
        )
    if settings.weights not in ("pretrained", "random") and not os.path.isfile(settings.weights):
        problems.append(
            f'weights must be "pretrained", "random" or a file of weights, and there is no file {settings.weights!r}'
        )
    if problems:
        raise InputError("; ".join(problems))


def resumed_settings(old: Settings, changes: Mapping[str, Any]) -> Settings:
    """The settings with which a run of settings `old` goes on.

    `minutes` is the budget of the whole run, to which its epochs are fitted anew; `epochs` without it takes the place
    of a budget.

    Raises:
        UnknownSettingError: A name is unknown.
        InputError: A value is out of range, or a setting changed that would make the resumed run another run.
    """
    if "epochs" in changes and "minutes" not in changes:
        changes = {**changes, "minutes": 0.0}
    new = make_settings({**old.to_dict(), **changes})
    check_resume(old, new)
    return new


def check_resume(old: Settings, new: Settings) -> dict[str, tuple[Any, Any]]:
    """What changes when a run saved with `old` resumes with `new`: name to (old, new).

    Raises:
        InputError: A setting changed that would make the resumed run another run.
    """
    changes = {
        name: (value, getattr(new, name))
        for name, value in old.to_dict().items()
        if value != getattr(new, name)
    }
    refused = [
        f"{name} ({was!r} to {now!r})" for name, (was, now) in changes.items() if name not in MAY_CHANGE
    ]
    if refused:
        raise InputError(
            f"a resumed run keeps its settings; these cannot change: {', '.join(refused)}. "
            f"Free to change: {', '.join(MAY_CHANGE)}. For the others start a new run."
        )
    return changes
