"""What a person gives to predict on (paths, folders, globs, arrays, videos, a list of them) as pictures with ids."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from odkit.data import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Dataset,
    HeldPicture,
    Texts,
    is_camera,
    is_held,
    split_held,
    upright_size,
)
from odkit.data.formats import distinct, list_images
from odkit.system import InputError, MissingFileError


@dataclass(frozen=True)
class Pictures:
    """Pictures that are all there: files, and what is held in memory."""

    dataset: Dataset  # without boxes; the path of what is held in memory is ""
    held: Mapping[int, HeldPicture] = field(default_factory=dict)  # by row of the dataset


@dataclass(frozen=True)
class Stream:
    """Pictures that come one after the other: a video, a camera, or what somebody makes them with."""

    name: str  # what its pictures' ids begin with
    source: str | Iterator[Any]  # path of a video, "camera:0", or an iterator of pictures

    @property
    def path(self) -> str:
        """Of a video's file; "" where it is none."""
        return self.source if isinstance(self.source, str) and not is_camera(self.source) else ""

    def id_of(self, number: int) -> str:
        """Id of a picture by its number, which counts from 0."""
        return f"{self.name}-{number:06d}"


_Thing = Path | HeldPicture | Stream  # a file, and what else there is


def find_pictures(source: Any, class_names: Sequence[str]) -> list[Pictures | Stream]:
    """What there is to look at, in the order given; what stands together as pictures is one part.

    Ids are paths relative to the folder that all files have in common, "picture-000003" for what is held in memory.

    Args:
        source: As `predict` takes it.
        class_names: Class table of the datasets.

    Raises:
        MissingFileError: There is nothing at a path, or no picture.
        InputError: It cannot be looked at; the message says why.
    """
    roots: list[Path] = []
    things = list(_things(source, roots, _Counter()))
    if not things:
        raise MissingFileError("there is nothing to look at: the list is empty")
    root = _common(roots)
    names = [_name(thing, root) for thing in things]
    if len(set(names)) < len(names):  # the same file twice, or two videos of one name
        names = distinct(names)
    parts: list[Pictures | Stream] = []
    for together, group in _runs(list(zip(names, things, strict=True))):
        if together:
            parts.append(_pictures(group, root, class_names))
        else:
            parts += [Stream(name, thing.source) for name, thing in group if isinstance(thing, Stream)]
    return parts


def images_dataset(path: str | Path, class_names: Sequence[str] = ("object",)) -> Dataset:
    """An image file, or all images under a folder (those that `load_dataset` would find), as a Dataset without boxes.

    Raises:
        MissingFileError: There is no such file, or no image in the folder.
        InputError: The name of a file is no text.
    """
    path = Path(path).absolute()
    files, root = _files_at(path), path.parent if path.is_file() else path
    ids = [_relative(file, root) for file in files]
    return _dataset(list(zip(ids, files, strict=True)), root, class_names).replace(name=path.stem)


# -- what was given ----------------------------------------------------------------------------------------------------


class _Counter:
    """Numbers what is held in memory."""

    def __init__(self) -> None:
        self.count = -1

    def next_name(self) -> str:
        self.count += 1
        return f"picture-{self.count:06d}"


def _things(source: Any, roots: list[Path], counter: _Counter) -> Iterator[_Thing]:
    """The single things in a source; the folder that each file's id is relative to is put into `roots`."""
    if source is None or isinstance(source, bool | bytes | Mapping):
        raise InputError(f"{_kind(source)} is nothing to look at; {_TAKEN}")
    if isinstance(source, Dataset):
        raise InputError("a Dataset is looked at by itself, not within a list")
    if isinstance(source, int | np.integer):
        yield Stream(f"camera-{source}", f"camera:{source}")
    elif isinstance(source, str | os.PathLike):
        yield from _at(os.fspath(source), roots)
    elif is_held(source):
        for picture in split_held(source):
            name = counter.next_name()
            yield HeldPicture(picture, name)
    elif isinstance(source, Iterator):
        yield Stream("frame", source)
    elif isinstance(source, Iterable):
        for one in source:
            yield from _things(one, roots, counter)
    else:
        raise InputError(f"{_kind(source)} is nothing to look at; {_TAKEN}")


_TAKEN = (
    "give a Dataset, a path, folder or glob, a PIL image, array or tensor, a video, a camera (0 or "
    '"camera:0"), or a list of such'
)


def _kind(source: Any) -> str:
    return "nothing (None)" if source is None else f"a {type(source).__name__}"


def _at(name: str, roots: list[Path]) -> Iterator[_Thing]:
    """The files that a text names."""
    if is_camera(name):
        yield Stream(re.sub(r"[^\w.-]+", "-", name), name)
        return
    if re.match(r"[A-Za-z][\w+.-]+://", name):
        raise InputError(
            f"{name} is an address: odkit fetches nothing. Fetch it first (curl -O {name}) and give the file"
        )
    if "\0" in name or not name:
        raise InputError(f"{name!r} is no path")
    path = Path(os.path.abspath(os.path.expanduser(name)))
    if not path.exists() and glob.has_magic(name):
        yield from _matching(path, roots)
        return
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        roots.append(path.parent)
        yield Stream(str(path), str(path))
        return
    files = _files_at(path)
    roots.append(path if path.is_dir() else path.parent)
    yield from files


def _matching(pattern: Path, roots: list[Path]) -> Iterator[_Thing]:
    """The pictures and videos that a pattern fits."""
    ends = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    found = sorted(Path(file) for file in glob.glob(str(pattern), recursive=True))
    files = [file for file in found if file.suffix.lower() in ends and file.is_file()]
    if not files:
        raise MissingFileError(f"no picture and no video fits {pattern}")
    for file in files:
        yield from _at(str(file), roots)


def _files_at(path: Path) -> list[Path]:
    """A file, or the pictures below a folder."""
    if not path.exists():
        raise MissingFileError(f"no file or folder at {path}")
    if not path.is_file() and not path.is_dir():
        raise InputError(
            f"{path} is neither a file nor a folder (a pipe or a device?); give the name of a file"
        )
    files = [path] if path.is_file() else [path / image for image in list_images(path)]
    if not files:
        videos = any(file.suffix.lower() in VIDEO_SUFFIXES for file in path.iterdir())
        more = "; there are videos: give their names" if videos else ""
        raise MissingFileError(f"no images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {path}{more}")
    for file in files:
        if any("\ud800" <= letter <= "\udfff" for letter in file.name):  # bytes that are no UTF-8
            raise InputError(
                f"the name of {str(file)!a} is no text, so no label can name it. Rename the file"
            )
    return files


# -- ids, and what lies together ---------------------------------------------------------------------------------------


def _common(roots: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(roots)) if roots else Path.cwd()
    except ValueError:  # on several drives
        return Path()


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix().lstrip("/")


def _name(thing: _Thing, root: Path) -> str:
    if isinstance(thing, Path):
        return _relative(thing, root)
    if isinstance(thing, HeldPicture):
        return thing.name
    return os.path.splitext(_relative(Path(thing.path), root))[0] if thing.path else thing.name


def _runs(named: Sequence[tuple[str, _Thing]]) -> Iterator[tuple[bool, list[tuple[str, _Thing]]]]:
    """Pictures that stand together, and streams that do."""
    for streams, group in groupby(named, lambda one: isinstance(one[1], Stream)):
        yield not streams, list(group)


def _pictures(named: Sequence[tuple[str, _Thing]], root: Path, class_names: Sequence[str]) -> Pictures:
    held = {row: thing for row, (_, thing) in enumerate(named) if isinstance(thing, HeldPicture)}
    return Pictures(_dataset(named, root, class_names), held)


def _dataset(named: Sequence[tuple[str, Any]], root: Path, class_names: Sequence[str]) -> Dataset:
    files = [thing if isinstance(thing, Path) else None for _, thing in named]
    sizes = [
        upright_size(file) if file else thing.size for file, (_, thing) in zip(files, named, strict=True)
    ]
    return Dataset(
        name=root.name or "pictures",
        root=root,
        format="images",
        class_names=tuple(class_names),
        image_paths=Texts.of(file or "" for file in files),
        image_ids=Texts.of(name for name, _ in named),
        image_sizes=np.array(sizes, np.int32),
        boxes=np.zeros((0, 4), np.float32),
        box_classes=np.zeros(0, np.int32),
        box_images=np.zeros(0, np.int32),
    )
