"""Weights of others as detectors: what torchvision's reference scripts save, state dicts, files of transformers.

A file says neither what its classes are called nor, always, which detector it is of. Both are asked for, and held
against the shapes in the file, so that a wrong guess ends in a sentence and not in wrong boxes.
"""

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odkit.detection.catalogue import CATALOGUE, CatalogueEntry, catalogue_entry
from odkit.system import InputError, MissingFileError, MissingPackageError, counted

BACKGROUND = ("__background__", "background", "_background_")
WHOLES = (
    "model_ema",
    "ema",
    "model",
    "state_dict",
    "model_state_dict",
)  # under which a checkpoint has its weights
WRAPPERS = (
    "module.",
    "_orig_mod.",
    "model.",
)  # put before names by DDP, torch.compile and training frameworks
UNCOUNTED = "num_batches_tracked"  # batch norms that are frozen do not count


class Fit(NamedTuple):
    """How a state dict stands to a detector of the catalogue."""

    outputs: int  # of its classification layers, 0 where these are not there or do not agree
    missing: list[str]
    extra: list[str]
    shapes: list[str]  # sentences on layers of another shape

    @property
    def good(self) -> bool:
        return bool(self.outputs) and not (self.missing or self.extra or self.shapes)

    @property
    def said(self) -> str:
        """What does not fit, in words."""
        wrong = [*self.shapes[:2]]
        for keys, what in ((self.missing, "missing"), (self.extra, "too many")):
            if keys:
                more = ", ..." if keys[2:] else ""
                wrong.append(f"{counted(len(keys), 'name')} {what} ({', '.join(keys[:2])}{more})")
        return "; ".join(wrong) or "figures of batch norms"


class _Left:
    """Stands for what a checkpoint holds besides numbers, a Namespace of arguments or a path: nothing of it is kept."""

    def __new__(cls, *given: Any, **named: Any) -> "_Left":
        return super().__new__(cls)

    def __init__(self, *given: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# Not the classes themselves: by these names a file gets the empty one above, and nothing that could run.
LEFT: list[Any] = [
    (_Left, name)
    for name in (
        "argparse.Namespace",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
    )
]


# -- reading -----------------------------------------------------------------------------------------------------------


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """The weights in a file that `torch.save` wrote: a state dict, or a checkpoint with one; averaged ones first.

    Names are as torchvision's or transformers' module has them: what DistributedDataParallel and torch.compile put
    before them is taken off. Nothing in the file can run.

    Raises:
        MissingFileError: There is no such file.
        InputError: It cannot be read, holds more than numbers, or no weights; the message says which.
    """
    if not path.is_file():
        raise MissingFileError(f"there is no file {path}")
    try:
        with torch.serialization.safe_globals(LEFT), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols, by the file's path in torch
            # weights_only: the file may come from anywhere, and must not be able to run anything
            whole = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        held = str(error).partition("GLOBAL ")[2].split()
        if held:
            raise InputError(
                f"{path} holds more than numbers ({held[0]}), which odkit does not load: it could run. Where it was "
                'made, save the weights alone: torch.save(model.state_dict(), "weights.pth")'
            ) from None
        raise InputError(f"{path} is damaged, or no file of torch.save") from None
    except (
        Exception
    ):  # torch raises whatever a damaged file makes of it, AssertionError and struct.error among them
        raise InputError(f"{path} is damaged, or no file of torch.save") from None
    for name in WHOLES:
        if isinstance(whole, dict) and isinstance(whole.get(name), dict):
            whole = whole[name]
            break
    if not isinstance(whole, dict):
        raise InputError(
            f"{path} holds a {type(whole).__name__}, not the weights of a detector by their names"
        )
    state = {
        str(key): value for key, value in whole.items() if isinstance(value, Tensor) and key != "n_averaged"
    }
    if not state:
        some = ", ".join(map(str, list(whole)[:5])) or "nothing"
        raise InputError(f"{path} holds no weights by their names, but: {some}")
    return unwrapped(state)


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without what wraps a module, where all of its names begin with that."""
    found = dict(state)
    while prefix := next((w for w in WRAPPERS if all(key.startswith(w) for key in found)), ""):
        bare = {key.removeprefix(prefix): value for key, value in found.items()}
        found = bare
    return found


def check_numbers(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in float32.

    Raises:
        InputError: Some of it is not finite, or quantised.
    """
    for key, value in state.items():
        if not value.is_floating_point() and not key.endswith(UNCOUNTED):
            raise InputError(
                f"{path}: {key} is {value.dtype}, and weights are floating point: quantised ones do not fit"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{path}: {key} has values that are not finite: that training went wrong")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


# -- fitting -----------------------------------------------------------------------------------------------------------


def fit(entry: CatalogueEntry, state: Mapping[str, Tensor]) -> Fit:
    """How a state dict fits a detector, whatever the number of classes: by names and shapes alone."""
    with torch.device("meta"):  # no memory
        two = entry.build(2).state_dict()
    expected = {key for key in two if not key.endswith(UNCOUNTED)}
    given = {key for key in state if not key.endswith(UNCOUNTED)}
    if expected != given:
        return Fit(0, sorted(expected - given), sorted(given - expected), [])
    with torch.device("meta"):
        three = entry.build(3).state_dict()
    counts: dict[int, int] = {}
    shapes = []
    for key in sorted(expected & given):
        shape, low, high = (list(one[key].shape) for one in (state, two, three))
        if low == high:
            if shape != low:
                shapes.append(f"{key} has the shape {shape}, expected {low}")
        elif len(shape) != len(low) or shape[1:] != low[1:]:
            shapes.append(f"{key} has the shape {shape}, expected {['classes', *low[1:]]}")
        else:  # rows grow evenly with the classes
            outputs, rest = divmod(shape[0] - low[0], high[0] - low[0])
            if rest or outputs < -1:
                shapes.append(f"{key} has {shape[0]} rows, which no number of classes gives it")
            else:
                counts[outputs + 2] = counts.get(outputs + 2, 0) + 1
    if len(counts) > 1:
        shapes.append(f"its layers disagree on the number of classes: {', '.join(map(str, sorted(counts)))}")
    return Fit(max(counts, key=lambda n: counts[n], default=0), [], [], shapes)


def require_fit(path: Path, name: str, state: Mapping[str, Tensor]) -> int:
    """The number of outputs of a state dict that fits a detector.

    Raises:
        InputError: It fits none, or another of the catalogue, which the message names.
    """
    found = fit(catalogue_entry(name), state)
    if found.good:
        return found.outputs
    if other := fitting_detector(state, name):
        raise InputError(
            f"{path} does not fit {name}: by its names and shapes it is a {other}. --detector {other}"
        )
    raise InputError(f"{path} fits neither {name} nor another detector of the catalogue: {found.said}")


def misfit(name: str, classes: int, state: Mapping[str, Tensor]) -> str:
    """Why saved weights do not fit the detector and the number of classes saved with them."""
    entry = catalogue_entry(name)
    if not state:
        return "there are no weights in it"
    found = fit(entry, state)
    outputs = found.outputs - entry.background
    if found.good and outputs != classes:
        given = "1 class" if classes == 1 else f"{classes:,} classes"
        return f"it names {given}, and its layers tell {outputs} apart: the names are not those it was saved with"
    if other := fitting_detector(state, name):
        return f"it says that it is a {name}, and by its names and shapes it is a {other}"
    return (
        f"it is damaged, or was saved by an odkit whose {name} was another network ({found.said}): open it with that "
        "version, or fine-tune anew"
    )


def fitting_detector(state: Mapping[str, Tensor], leave_out: str = "") -> str:
    """The first detector of the catalogue that a state dict fits; "" where there is none."""
    for name, entry in CATALOGUE.items():
        if name == leave_out:
            continue
        renamed = entry.family.from_published(state)
        if not any(key.startswith(entry.family.BACKBONE) for key in renamed):
            continue  # none of that family, and what builds it (transformers, for one) takes seconds to import
        try:
            if fit(entry, renamed).good:
                return name
        except (MissingPackageError, InputError, ImportError):  # an extra that is not installed
            continue
    return ""


def table_of(path: Path, entry: CatalogueEntry, outputs: int, class_names: Sequence[str]) -> list[str]:
    """The class of each output: `class_names`, the background before them where the detector has one.

    A background at the head of `class_names` is taken for what it is: torchvision's scripts count it as class 0 even
    for detectors without one.

    Raises:
        InputError: There are more names than outputs, or fewer; the message says how many are wanted.
    """
    names = list(class_names)
    if not names:
        raise InputError(
            f"{path} does not say what its classes are called: give their names, in the order of the file"
        )
    if len(set(names)) < len(names):
        raise InputError(f"the names of classes are not all different: {', '.join(names)}")
    headed = names[0].lower() in BACKGROUND
    if headed:
        names[0] = "__background__"
    full = names if headed or not entry.background else ["__background__", *names]
    if len(full) == outputs and len(full) > headed:
        return full
    wanted = outputs - entry.background
    why = f"{path} has {counted(outputs, 'output')}"
    if entry.background:
        why += ", the first of them for the background"
    elif not headed and len(names) == outputs - 1:
        raise InputError(
            f"{why} and {counted(len(names), 'name')} are given. Where its labels were counted from 1, as by "
            "torchvision's own scripts, the first output stands for nothing: put __background__ before the names"
        )
    raise InputError(f"{why}: it wants {counted(wanted, 'name')}, not {len(names) - headed}")
