"""How fast each detector trains on this machine, and how long a run of yours would take."""

import gc
import math
import time
from dataclasses import dataclass
from html import escape

from odkit import detection
from odkit.runs import Settings, with_epochs
from odkit.system import GB, OdkitError, machine

_STEPS_SECONDS = 1.0  # for which the steps of one detector are timed
_NEEDED = (
    4 * GB
)  # free memory that two images of any detector but the starter need on a CPU, with room to spare


@dataclass(frozen=True)
class Speed:
    """How fast a detector trains here: `images_per_second`, or `why_not` it was not measured."""

    name: str
    image_size: int  # longer side in pixels
    images_per_second: float = math.nan
    minutes: float = math.nan  # of a run
    why_not: str = ""

    def __str__(self) -> str:
        if self.why_not:
            return f"{self.name}: {self.why_not}"
        return f"{self.name}: {self.images_per_second:.3g} images/s, {in_time(self.minutes)} for a run"


@dataclass(frozen=True, repr=False)
class Speeds:
    """The speed of every detector of the catalogue on one device, the fastest first, those not measured last.

    Attributes:
        rows: A row a detector.
        device: Where they were measured, as "cpu" or "cuda".
        images: Training images of the run that is reckoned with.
        epochs: Its passes over them: what odkit would choose.
    """

    rows: tuple[Speed, ...]
    device: str
    images: int
    epochs: int

    @property
    def images_per_second(self) -> dict[str, float]:
        """The speed of each detector that was measured, by name."""
        return {row.name: row.images_per_second for row in self.rows if not row.why_not}

    def _caption(self) -> str:
        return (
            f"Training on {self.device}; a run: {self.images:,} training images, {self.epochs} epochs "
            "(decoding and judging take some more)"
        )

    def __repr__(self) -> str:
        return "\n".join([self._caption(), *(f"  {row}" for row in self.rows)])

    def _repr_html_(self) -> str:
        left = 'style="text-align:left"'
        head = "".join(f"<th {left}>{name}</th>" for name in ("detector", "pixels", "images/s", "a run"))
        body = ""
        for row in self.rows:
            cells = [f"{row.images_per_second:.3g}", in_time(row.minutes)]
            told = (
                f"<td {left} colspan=2>{escape(row.why_not)}</td>"
                if row.why_not
                else "".join(f"<td {left}>{cell}</td>" for cell in cells)
            )
            body += f"<tr><td {left}>{escape(row.name)}</td><td {left}>{row.image_size}</td>{told}</tr>"
        return f"<table><caption>{escape(self._caption())}</caption><tr>{head}</tr>{body}</table>"


def detector_speeds(*, images: int = 300, device: str = "auto", seconds: float = 30.0) -> Speeds:
    """How many images a second each detector trains on here, and how long a run of so many images would take.

    A few steps of two drawn images are timed, in float32 and with random weights, on which speed does not depend. Not
    measured, with the reason in its row, is what would take a CPU hours an epoch, what does not fit into memory, and
    what is left when `seconds` have passed.

    Args:
        images: Training images of the run that is reckoned with.
        device: "cpu", "cuda", "cuda:1", "mps"; "auto": what training would choose.
        seconds: After so many no further detector is begun.

    Raises:
        InputError: There is no such device.
    """
    place = detection.pick_device(device)
    epochs = with_epochs(Settings(), images).epochs
    ends = time.monotonic() + seconds
    rows = []
    for detector in detection.list_detectors():
        name = detector["name"]
        why_not = _why_not(name, place.type) or (
            "not begun: the time was up" if time.monotonic() > ends else ""
        )
        pace = math.nan
        if not why_not:
            pace, why_not = _measured(name, str(place))
        minutes = images * epochs / pace / 60
        rows.append(Speed(name, detector["image_size"], pace, minutes, why_not))
    rows.sort(key=lambda row: (bool(row.why_not), -row.images_per_second if not row.why_not else 0))
    return Speeds(tuple(rows), str(place), images, epochs)


def _why_not(name: str, kind: str) -> str:
    if kind != "cpu":
        return ""
    if detection.catalogue_entry(name).heavy:
        return "made for a GPU: an epoch of a few hundred images takes a CPU hours"
    free = machine.memory_free_bytes()
    if name != "starter" and free < _NEEDED:
        return f"not measured: of memory only {free / GB:.1f} GB are free"
    return ""


def _measured(name: str, device: str) -> tuple[float, str]:
    """Images a second, and why there are none."""
    import torch

    try:
        minutes = detection.minutes_an_epoch(name, images=1, device=device, seconds=_STEPS_SECONDS)
        return 1 / (60 * minutes), ""
    except torch.OutOfMemoryError:
        why_not = "two images of it do not fit into the GPU's memory"
    except OdkitError as error:  # D-FINE needs a package that may not be here
        why_not = f"{error}"
    gc.collect()  # what the failed attempt holds, before the next one needs it
    return math.nan, why_not


def in_time(minutes: float) -> str:
    """Minutes in words, as roughly as they are known: "under a minute", "14 min", "3 h", "2 days"."""
    if minutes < 1:
        return "under a minute"
    if minutes < 90:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 36 else f"{hours / 24:.0f} days"
