"""Arguments that several commands take: settings, classes, how a folder is read."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

import tyro

from odkit.data.formats import IMAGE_READINGS, READINGS, TITLES, WRITABLE
from odkit.runs import MAY_CHANGE, Settings, setting_docs

if TYPE_CHECKING:
    Readable: TypeAlias = str
    Writable: TypeAlias = str
    ClassReading: TypeAlias = str
    ImageReading: TypeAlias = str
else:
    Readable, Writable = Literal[tuple(TITLES)], Literal[WRITABLE]
    ClassReading, ImageReading = Literal[READINGS], Literal[IMAGE_READINGS]


class Flags(Settings):
    """Settings as flags. 0 or "auto": odkit chooses, and says what and why."""

    def __post_init__(self) -> None:
        pass  # checked when the command runs, where a message comes out plain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes:
    """What becomes of a dataset's classes, see `Dataset.with_classes`."""

    rename: tuple[str, ...] = ()
    """Classes as OLD=NEW; several with one new name are merged. The others keep their names."""
    classes: tuple[str, ...] = ()
    """Only these classes, in this order (by their new names); boxes of others are left out. Default: all."""


FORMATS = ", ".join(f"{name} ({title})" for name, title in TITLES.items())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How a folder of labelled images is read, see `load_dataset`."""

    format: Annotated[
        Readable | None,
        tyro.conf.arg(help=f"Format of the dataset: {FORMATS}. Default: found out, and said."),
    ] = None
    first_pixel: Literal[0, 1] | None = None
    """For Pascal VOC: the number of an image's first pixel in the corners. Default: found out, and said."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Further:
    """What an evaluation says besides COCO's figures, see `Evaluation`."""

    intervals: bool = False
    """The figures of each class with their 95% intervals."""
    calibration: bool = False
    """Whether scores mean what they say: of the predictions with a score of 0.8, are 80% right?"""
    want_precision: float | None = None
    """The score thresholds that give this precision (0 to 1), one for all classes and one for each."""
    want_recall: float | None = None
    """The score thresholds that give this recall (0 to 1), one for all classes and one for each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbers:
    """What the numbers in another tool's results mean, see `Predictions.from_coco`."""

    category_ids: ClassReading | None = None
    """Category ids of COCO results: those of the label file, the place of the class counted from 0 or from 1, COCO's
    own 1 to 90, or by the table in the file of results. Default: found out; what cannot be told is said."""
    image_ids: ImageReading | None = None
    """Image ids of COCO results: those of the label file, file names, or the place in the label file. Default: found
    out; what cannot be told is said."""
    class_numbers: tuple[str, ...] = ()
    """What each class number stands for, as NUMBER=NAME, where neither the data nor a data.yaml says it."""
    ids_from: Path | None = None
    """The COCO label file that the ids of COCO results are of, where the data is in another format."""


def _changes() -> type:
    """The settings that a resume may change, each None unless it is given."""
    docs, fields = setting_docs(Settings), {f.name: f.type for f in dataclasses.fields(Settings)}
    rows = []
    for name in MAY_CHANGE:
        kind: Any = fields[name]
        choices = get_args(kind)
        metavar = f"{{{','.join(choices)}}}" if choices else kind.__name__.upper()
        flag = tyro.conf.arg(metavar=metavar, help=docs[name], help_behavior_hint="(default: as it was)")
        rows.append((name, Annotated[kind | None, flag], None))
    return dataclasses.make_dataclass(
        "Changes", rows, kw_only=True, namespace={"__doc__": "Settings that may change."}
    )


Changes = _changes()
