"""Label maps of TensorFlow's Object Detection API (label_map.pbtxt): which number means which class."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from odkit.data.dataset import UNKNOWN_CLASS
from odkit.data.formats.pbtxt import MOST_BYTES, Message, PbtxtError, read_pbtxt
from odkit.data.formats.reader_base import Folder, Gathered, short
from odkit.system import InputError, read_file

OWN_ORDER = ("coco", "yolo")
"""Formats that say themselves which class has which number."""
_ITEM = re.compile(rb"(^|[\s}>,;])item\s*:?\s*[{<\[]")


@dataclass(frozen=True)
class LabelMap:
    """The items of a label map, in the order of their numbers."""

    file: str
    titles: dict[int, str]  # number to class name
    aliases: dict[str, str]  # every name in the file ("/m/01g317" beside "Person") to class name

    @property
    def names(self) -> tuple[str, ...]:
        """The class names in the order of their numbers, each once."""
        return tuple(dict.fromkeys(self.titles.values()))


def read_label_map(path: Path, file: str = "") -> LabelMap:
    """A label map.

    Where `name` is an identifier of Google's Knowledge Graph ("/m/01g317"), or missing, `display_name` is the class's
    name, else `name` is.

    Args:
        path: The file.
        file: What to call it in messages; default: its path.

    Raises:
        PbtxtError: It is none; the message names file and line.
        OSError: It cannot be read.
    """
    file = file or str(path)
    titles: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for item in read_pbtxt(path).all("item"):
        if not isinstance(item, Message):
            raise PbtxtError(f"{file}: an item is {short(item)}, not {{ id: ... name: ... }}")
        number, name, shown = (item.get(key) for key in ("id", "name", "display_name"))
        names = [str(text) for text in (name, shown) if isinstance(text, str) and text.strip()]
        if type(number) is not int or not 0 <= number < 2**31 or not names:
            raise PbtxtError(f"{file}, line {item.line}: an item wants an id from 0 up and a name")
        title = names[-1] if not isinstance(name, str) or name.startswith("/") else names[0]
        if number in titles:
            raise PbtxtError(f"{file}, line {item.line}: the id {number} stands there for the second time")
        titles[number] = title
        for text in names:
            aliases.setdefault(text, title)
    if not titles:
        raise PbtxtError(f"{file} has no item {{ id: ... name: ... }}")
    return LabelMap(file, dict(sorted(titles.items())), aliases)


def label_maps(folder: Folder, data: Gathered | None = None) -> list[LabelMap]:
    """The label maps of a folder; those that cannot be read are listed in `data`'s problems."""
    found = []
    for file in folder.with_suffix(".pbtxt"):
        path = folder.path(file)
        try:
            if path.stat().st_size > MOST_BYTES or not _ITEM.search(read_file(path)):
                continue  # a graph, say
            found.append(read_label_map(path, file))
        except (OSError, InputError) as error:
            if data is not None:
                data.problem(
                    "unreadable_label_map",
                    file,
                    f"{error}; it is not used",
                    "Correct it, or delete it.",
                    severity="warning",
                )
    return found


def fitting_map(maps: list[LabelMap], names: set[str]) -> LabelMap | None:
    """The label map that has all of these names and the fewest others; None where none has."""
    fitting = [one for one in maps if names and names <= set(one.aliases)]
    return min(fitting, key=lambda one: len(one.titles)) if fitting else None


def order_by_label_map(data: Gathered) -> None:
    """Put the classes into the order of a label map that lies in the folder and names them all; its note says so."""
    alphabetical = data.class_names == sorted(data.class_names)
    if data.format in OWN_ORDER or not (alphabetical or data.format == "tfrecord"):
        return
    found = fitting_map(label_maps(data.folder, data), set(data.class_names))
    if found is None:
        return
    place = {title: rank for rank, title in enumerate(found.names)}
    order = sorted(range(len(data.class_names)), key=lambda k: place[found.aliases[data.class_names[k]]])
    rank = np.empty(len(order) + 1, np.int32)
    rank[order] = np.arange(len(order))
    rank[UNKNOWN_CLASS] = UNKNOWN_CLASS  # the last
    data.class_names = [data.class_names[k] for k in order]
    data.classes = [rank[classes] for classes in data.classes]
    more = len(found.names) - len(order)
    others = f"; its {more:,} other class{'es' * (more != 1)} no box has" if more else ""
    data.notes.append(f"classes in the order of {found.file}{others}")
