"""What a benchmark says: how fast detectors are on a machine, what memory they take, how good they are."""

import math
from dataclasses import asdict, dataclass
from html import escape
from textwrap import fill
from typing import Any

from odkit.system import machine

_WIDE = 1.5  # p95 over the median, from which on times tell of a busy machine as much as of the detector
_OTHERS = 0.25  # cores that others are busy with, from which on they disturb


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Times of one thing done again and again, in milliseconds."""

    median: float
    p95: float  # 95 of 100 were quicker
    count: int  # how often it was done


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How many pictures go through at a batch size."""

    batch_size: int
    images_per_second: float
    memory: int  # bytes, at most, that the detector took up to here; see Measured


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One detector in one runtime on one device, or why it could not be measured.

    Attributes:
        name: What it is called in the table: "PyTorch fp32".
        file: Its file.
        file_bytes: That file's size.
        runtime: What computes, with its version: "torch 2.11.0".
        precision: Number format: "fp32", "bf16", "fp16", "int8".
        device: Where: "cpu", "cuda:0".
        image_size: Longer side of the pictures that the network sees, in pixels.
        threads: Threads that it computes with on a CPU.
        latency: From one decoded picture to boxes in that picture's pixels: resizing, packing, network, what is left to
            do after it.
        network: Of that the network alone: from a picture that is resized and packed to boxes of the resized picture,
            normalizing and suppressing doubles within.
        paces: Pictures a second, the same way as latency, at each batch size that was tried; the first is 1.
        loaded_bytes: Memory that the process held before the detector was loaded: Python and libraries; 0 on a GPU.
        others: Cores that other processes were busy with meanwhile.
        ap, ap50: COCO's, on the benchmark's images; None where nothing says.
        why_not: Why there are no figures, "" where there are.
        remark: What else is to be said of them.
    """

    name: str
    file: str
    file_bytes: int = 0
    runtime: str = ""
    precision: str = "fp32"
    device: str = "cpu"
    image_size: int = 0
    threads: int = 0
    latency: Timing | None = None
    network: Timing | None = None
    paces: tuple[Pace, ...] = ()
    loaded_bytes: int = 0
    others: float = 0.0
    ap: float | None = None
    ap50: float | None = None
    why_not: str = ""
    remark: str = ""

    @property
    def best(self) -> Pace | None:
        """The batch size with the most pictures a second; None where nothing was measured."""
        return max(self.paces, key=lambda pace: pace.images_per_second, default=None)

    @property
    def memory(self) -> int:
        """Bytes that loading the detector and using it for one picture at a time took at their peak.

        On a CPU of the process' resident memory, without `loaded_bytes`; on a GPU of the device's.
        """
        return self.paces[0].memory if self.paces else 0

    @property
    def spread(self) -> bool:
        """Whether the times lie so far apart that they say as much of what else runs here as of the detector."""
        return self.latency is not None and self.latency.p95 > _WIDE * self.latency.median

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON, with `memory` and the best batch size."""
        best = self.best
        return {**asdict(self), "memory": self.memory, "best_batch_size": best.batch_size if best else None}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Measured":
        """What `to_dict()` made plain."""
        own = {key: plain[key] for key in cls.__dataclass_fields__ if key in plain}
        for key in ("latency", "network"):
            own[key] = Timing(**own[key]) if own.get(key) else None
        return cls(**{**own, "paces": tuple(Pace(**pace) for pace in own.get("paces", ()))})


@dataclass(frozen=True, kw_only=True, repr=False)
class Benchmark:
    """Detectors side by side on one machine.

    Attributes:
        rows: A row a detector and runtime, in the order they were given.
        date: ISO 8601, UTC.
        machine: What its processor, or GPU, calls itself.
        cores: That may be used.
        system: Operating system.
        pictures: What was timed on, in words.
        dataset: Name of the data that AP is of, with its split; "" where there is none.
        images: How many images of it AP is of.
        fingerprint: Of those images and their boxes (`Dataset.fingerprint`).
        odkit: odkit's version.
    """

    rows: tuple[Measured, ...]
    date: str
    machine: str
    cores: int
    system: str
    pictures: str
    dataset: str = ""
    images: int = 0
    fingerprint: str = ""
    odkit: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {"format": 1, **asdict(self), "rows": [row.to_dict() for row in self.rows]}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Benchmark":
        """What `to_dict()` made plain."""
        own = {key: plain[key] for key in cls.__dataclass_fields__ if key in plain}
        return cls(**{**own, "rows": tuple(map(Measured.from_dict, plain["rows"]))})

    @property
    def notes(self) -> list[str]:
        """How the figures are to be read, a sentence or two each."""
        threads = sorted({row.threads for row in self.rows if row.paces and row.device == "cpu"})
        said = f", {' or '.join(map(str, threads))} threads" if threads else ""
        notes = [
            f"Measured on {self.machine}, {self.cores} cores{said}, on {self.date[:10]}; timed on {self.pictures}.",
            _HOW,
        ]
        if self.dataset:
            notes.append(f"AP is of {self.images:,} images: {self.dataset}.")
        notes += [f"{row.name}: {row.remark}." for row in self.rows if row.remark]
        if self.unquiet:
            notes.append(f"The machine was not quiet: {self.unquiet}. Measure again when it is.")
        return notes

    @property
    def unquiet(self) -> str:
        """What shows that the figures are of a busy machine, in words; "" where nothing does."""
        wide, others = [row.name for row in self.rows if row.spread], max(row.others for row in self.rows)
        why = [f"p95 is over {_WIDE:g} times the median of {', '.join(wide)}"] * bool(wide)
        return ", and ".join(why + [f"other processes kept {others:.1f} cores busy"] * (others > _OTHERS))

    def __repr__(self) -> str:
        cells = [_HEADS, *(_cells(row) for row in self.rows if row.paces)]
        widths = [max(len(line[k]) for line in cells) for k in range(len(_HEADS))]
        lines = [
            "  ".join(
                cell.ljust(width) if k == 0 else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in cells
        ]
        lines += [f"{row.name}: not measured, {row.why_not}" for row in self.rows if not row.paces]
        return "\n".join(
            [*lines, *(fill(note, 110, initial_indent="  ", subsequent_indent="  ") for note in self.notes)]
        )

    def _repr_html_(self) -> str:
        left = 'style="text-align:left"'
        head = "".join(f"<th {left if k == 0 else ''}>{name}</th>" for k, name in enumerate(_HEADS))
        body = ""
        for row in self.rows:
            first = f"<td {left}>{escape(row.name)}</td>"
            if row.paces:
                body += (
                    f"<tr>{first}" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(row)[1:]) + "</tr>"
                )
            else:
                why = f"not measured: {escape(row.why_not)}"
                body += f"<tr>{first}<td {left} colspan={len(_HEADS) - 1}>{why}</td></tr>"
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"


_HOW = (
    "Latency is from a decoded picture to boxes in its pixels, one picture at a time, the network's part of it from "
    "the resized picture on. Memory is the most that loading and using the detector so took, beside Python and its "
    "libraries."
)
_HEADS = ("", "median ms", "p95 ms", "network ms", "images/s", "at best batch", "memory", "file", "AP")


def _cells(row: Measured) -> list[str]:
    latency, network, best = row.latency, row.network, row.best
    assert latency is not None
    assert best is not None
    return [
        row.name,
        in_figures(latency.median),
        in_figures(latency.p95),
        in_figures(network.median) if network else "-",
        in_figures(row.paces[0].images_per_second),
        f"{in_figures(best.images_per_second)} ({best.batch_size})",
        machine.megabytes(row.memory),
        f"{row.file_bytes / machine.MB:.1f} MB",
        "-" if row.ap is None or math.isnan(row.ap) else f"{row.ap:.3f}",
    ]


def in_figures(value: float) -> str:
    """A number with three figures, without an exponent: "1,234", "56.7", "0.89"."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
