"""Choosing the folder of one's pictures in a notebook, and remembering it for the other notebooks."""

import os
import time
from collections import Counter, deque
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import orjson

from odkit.browsing.services import state_folder
from odkit.data import IMAGE_SUFFIXES
from odkit.system import front_end, machine, write_file

LABEL_SUFFIXES = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml", ".record", ".tfrecord")
_MOST_FILES = 5000  # looked at in a folder, the folders in it included
_PATIENCE = (
    2.0  # seconds for which a folder, or those of a list, are looked into: a network disk may take long
)
_REMEMBERED = "chosen-folder.json"


def choose_folder(default: str | Path | None = None) -> "FolderChooser":
    """Choose the folder of your pictures, here in the cell: it says of each folder how many pictures and labels it has.

    With the keyboard: type a path, which is completed, and press Enter; Tab goes on to the buttons, and the space bar
    presses one. What is chosen is remembered for `chosen_folder()`, by which the other notebooks find it.

    Args:
        default: What is chosen until somebody chooses; None: what was chosen before, else the demo.

    Returns:
        Its `folder` is the chosen one, None for the demo. Without a front end it is `default`, whatever was chosen
        before, so that a notebook executed on its own depends on its parameters alone.
    """
    return FolderChooser(default)


def chosen_folder() -> Path | None:
    """The folder that was chosen with `choose_folder()`; None where it was the demo, is gone, or nobody looks."""
    if front_end() is None:
        return None
    try:
        folder = orjson.loads((state_folder() / _REMEMBERED).read_bytes())["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(folder, str):
        return None
    if not os.path.isdir(folder):  # also where one may not look
        print(f"{folder}, chosen before, is not there any more: choose again with od.choose_folder()")
        return None
    return Path(folder)


def remember_folder(folder: str | Path | None) -> None:
    """Make a folder what `chosen_folder()` gives, for every notebook of this account; None: the demo."""
    chosen = None if folder is None else str(Path(os.path.expanduser(folder)).resolve())
    write_file(state_folder() / _REMEMBERED, orjson.dumps({"folder": chosen}))


class FolderChooser:
    """A folder of pictures, and in JupyterLab the widget to choose it with.

    Attributes:
        folder: The chosen folder; None for the demo.
        here: The folder that is being looked at.
    """

    def __init__(self, default: str | Path | None = None) -> None:
        self.folder = Path(os.path.expanduser(default)) if default else chosen_folder()
        self.here = _start(self.folder)
        self.widget: Any = None
        if front_end() is not None:
            self.widget = self._widget()
            self._draw()
            self._say(self._chosen())

    # -- what a person does ----------------------------------------------------------------------------------------

    def go_to(self, folder: str | Path) -> None:
        """Look into a folder; one that is not there or may not be read is said, and nothing changes."""
        try:
            place = Path(os.path.abspath(Path(folder).expanduser()))  # which says that a home is nobody's
            os.scandir(place).close()
        except (OSError, RuntimeError, ValueError) as error:  # nobody's home, a path that can be none
            self._say(f"{folder}: {error.strerror if isinstance(error, OSError) else error}")
            if self.widget is not None:
                self._path.value = str(self.here)  # what "Use this folder" would take
            return
        self.here = place
        if self.widget is not None:
            self._draw()

    def use(self, folder: str | Path | None) -> None:
        """Choose a folder, or None for the demo, and remember it."""
        self.folder = None if folder is None else Path(folder)
        remember_folder(self.folder)
        self._say(f"{self._chosen()} Now run the cells below.")

    # -- what is shown ---------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return self._chosen()

    def _repr_mimebundle_(self, **_: Any) -> Any:
        if self.widget is None:
            return {"text/plain": repr(self)}
        return self.widget._repr_mimebundle_()

    def _chosen(self) -> str:
        if self.folder is None:
            return "Chosen: the demo, pictures that come with odkit. (DATA = None)"
        return f'Chosen: {self.folder}, with {describe(self.folder)}. (DATA = "{self.folder}")'

    def _widget(self) -> Any:
        import ipywidgets as widgets

        wide = {"width": "auto"}
        # JupyterLab takes keys for its own outside of text fields (arrows, letters, Enter): what the list can do, the
        # field above it can
        options: dict[str, Any] = {"continuous_update": False, "ensure_option": False}
        self._path = widgets.Combobox(description="Folder", layout={"width": "98%"}, **options)
        self._inside = widgets.Select(rows=8, layout={"width": "98%"})
        self._about, self._said = widgets.HTML(), widgets.HTML()
        buttons = []
        for text, icon, tip, do in (
            ("Open", "folder-open", "Look into the folder that is marked in the list", self._open),
            ("Up", "level-up", "Look into the folder above", lambda: self.go_to(self.here.parent)),
            ("Use this folder", "check", "Choose the folder that the line on top names", self._use_here),
            ("Use the demo", "picture-o", "Choose the pictures that come with odkit", lambda: self.use(None)),
        ):
            button = widgets.Button(description=text, icon=icon, tooltip=tip, layout=wide)
            button.on_click(lambda _, do=do: do())
            buttons.append(button)
        self._path.observe(lambda change: self._typed(change["new"]), "value")
        box = widgets.VBox([self._path, self._inside, widgets.HBox(buttons), self._about, self._said])
        box.add_class("odkit-chooser")
        return box

    def _draw(self) -> None:
        self._path.value = str(self.here)
        until = time.monotonic() + _PATIENCE
        names = subfolders(self.here)
        self._path.options = [str(self.here / name) for name in names]
        self._inside.options = [
            (f"{name}/" + (f"   {describe(self.here / name)}" if time.monotonic() < until else ""), name)
            for name in names
        ]
        self._about.value = escape(f"In this folder: {describe(self.here)}.")

    def _say(self, text: str) -> None:
        if self.widget is None:
            print(text)
        else:
            self._said.value = f"<b>{escape(text)}</b>"

    def _typed(self, path: str) -> None:
        if path != str(self.here):  # else it was written there by us
            self.go_to(path)

    def _open(self) -> None:
        if self._inside.value is not None:
            self.go_to(self.here / self._inside.value)

    def _use_here(self) -> None:
        self.use(self.here)


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted; none where it cannot be read.

    Hidden ones are left out, and those whose names are no text, which a browser cannot be sent.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (
                    entry.name
                    for entry in entries
                    if _is_text(entry.name) and not _is_hidden(entry) and _is_folder(entry)
                ),
                key=str.casefold,
            )
    except OSError:
        return []


def describe(folder: Path) -> str:
    """How many pictures and label files lie in a folder and below it: "240 pictures, 240 .xml files, 2 .csv files"."""
    counts: Counter[str] = Counter()
    until = time.monotonic() + _PATIENCE
    for number, name in enumerate(_files(folder)):
        if number == _MOST_FILES or time.monotonic() > until:
            counts["more"] = 1
            break
        end = os.path.splitext(name)[1].lower()
        counts["pictures" if end in IMAGE_SUFFIXES else end] += 1
    pictures, least = counts["pictures"], "at least " if counts["more"] else ""
    if not pictures and not any(counts[end] for end in LABEL_SUFFIXES):
        return "no pictures" + " among the first files" * bool(least)
    said = [f"{least}{pictures:,} picture{'s' * (pictures != 1)}"]
    said += [f"{counts[end]:,} {end} file{'s' * (counts[end] != 1)}" for end in LABEL_SUFFIXES if counts[end]]
    return ", ".join(said)


def _files(folder: Path) -> Iterator[str]:
    """The names of the files in a folder and below it that a reader of labels would find, and "" for each folder.

    Listed as they are asked for, so that the first of a million come at once.
    """
    seen: set[tuple[int, int]] = set()  # a link may lead back to a folder above it
    left = deque([os.fspath(folder)])
    while left:
        place = left.popleft()
        try:
            here = os.stat(place)
            if (here.st_dev, here.st_ino) in seen:
                continue
            seen.add((here.st_dev, here.st_ino))
            with os.scandir(place) as entries:
                for entry in entries:
                    if _is_hidden(entry):
                        continue
                    inside = _is_folder(entry)
                    if inside:
                        left.append(entry.path)
                    yield "" if inside else entry.name
        except OSError:
            continue


def _is_hidden(entry: "os.DirEntry[str]") -> bool:
    return entry.name.startswith(".") or entry.name == "__MACOSX"


def _is_text(name: str) -> bool:
    """False for bytes on the disk that are no UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _start(chosen: Path | None) -> Path:
    """Where to look first: at what is chosen, where the container has the data, else at home."""
    data = os.environ.get("ODKIT_DATA") or ("/data" if machine.own_image() else "")
    for place in (chosen, Path(data) if data else None, Path(os.path.expanduser("~"))):
        if place is not None and os.path.isdir(place):
            return Path(os.path.abspath(place))
    return Path.cwd()
