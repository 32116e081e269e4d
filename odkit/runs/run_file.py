"""A run from a file: settings, data and names in YAML or JSON, read with line numbers, and written with comments.

Only plain values are read (no tags, no anchors, nothing that can run or grow), and none is guessed at: a name is text
even where YAML 1.1 would read `no` or `1e-3` its own way.
"""

import dataclasses
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import orjson
import yaml

from odkit.runs.settings import Settings, make_settings, setting_docs
from odkit.system import FileInTheWayError, InputError, MissingFileError, UnknownSettingError, write_file

MOST_BYTES, MOST_LEVELS = 200_000, 8  # reading takes seconds beyond; a run's file has two levels
EXAMPLES = {
    "data": "pictures/labels.json",
    "format": "coco",
    "first_pixel": "1",
    "rename": "[hexnut=hex nut, hex-nut=hex nut]",
    "classes": "[bolt, hex nut]",
    "repair": "true",
    "folder": "experiments",
    "name": "second-try",
    "track": "[tensorboard, wandb=project]",
}
"""What a name of `RunFile` that has no default to be shown could be given."""


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """A run as a file tells of it, for `fine_tune(load_dataset(file.data), **file.settings)`.

    Attributes:
        settings: Fields of `Settings` that the file gives.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    data: str | None = None
    """Folder or label file of a dataset, a saved Dataset (.npz), or demo."""
    format: str | None = None
    """Format of the dataset. Default: found out, and said."""
    first_pixel: Literal[0, 1] | None = None
    """For Pascal VOC: the number of an image's first pixel in the corners. Default: found out, and said."""
    rename: tuple[str, ...] = ()
    """Classes as OLD=NEW; several with one new name are merged. The others keep their names."""
    classes: tuple[str, ...] = ()
    """Only these classes, in this order (by their new names); boxes of others are left out. Default: all."""
    repair: bool = False
    """Repair what can be repaired safely in what is trained on; the files stay as they are."""
    folder: str | None = None
    """Where run folders are made. Default: runs."""
    name: str | None = None
    """Name of the run. Default: made from the dataset and the detector, numbered."""
    track: tuple[str, ...] = ()
    """Trackers that follow the run while it trains: tensorboard, mlflow, wandb, trackio."""

    def flags(self) -> list[str]:
        """What `odkit train` takes as flags of one value each: all but data, classes, names to change and trackers."""
        values: dict[str, Any] = {**self.settings, "format": self.format, "first_pixel": self.first_pixel}
        values |= {"repair": self.repair, "folder": self.folder, "name": self.name}
        found = []
        for name, value in values.items():
            flag = f"--{name.replace('_', '-')}"
            if value is True:
                found.append(flag)
            elif value is not None and value is not False:
                found.append(f"{flag}={value}")
        return found


def _kinds() -> dict[str, Any]:
    """Every name that a file may hold, and the type of its value."""
    own = {name: kind for name, kind in get_type_hints(RunFile).items() if name != "settings"}
    return {**own, **get_type_hints(Settings)}


# -- reading -----------------------------------------------------------------------------------------------------------


def read_config(path: str | Path) -> RunFile:
    """Read a run's file: YAML or JSON with fields of `Settings` and of `RunFile`, or a run's own config.json.

    A relative `data` or `folder` counts from the current folder, as on the command line. Of a run's config.json the
    settings, classes and trackers are taken, and its data as that run has them; what odkit chose there is chosen anew.

    Raises:
        MissingFileError: There is no such file.
        InputError, UnknownSettingError: It is no such file, or holds an unknown name, a name twice, a value of the
            wrong type or out of range; the message says in which line.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a run's file; `odkit init` writes one to fill in")
    if not path.is_file():
        raise MissingFileError(f"there is no file {path}; `odkit init {path}` writes one to fill in")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes: no run's file is that long")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start})") from None
    if text.lstrip().startswith("{"):
        if (own := _of_a_run(path, text)) is not None:
            return own
        text = text.replace("\t", " ")  # JSON may be indented so, YAML not
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    kinds = _kinds()
    for key, node in _entries(path, text):
        line = node.start_mark.line + 1
        if key not in kinds:
            near = get_close_matches(key, kinds, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise UnknownSettingError(
                f"{path}, line {line}: there is no setting {key!r}{hint} `odkit init` writes a file with all of them"
            )
        if key in lines:
            raise InputError(f"{path}, line {line}: {key} stands in line {lines[key]} already")
        lines[key] = line
        if not _is_empty(node):
            values[key] = _value(f"{path}, line {line}: {key}", node, kinds[key])
    return _made(path, values)


def _made(path: Path, values: Mapping[str, Any]) -> RunFile:
    settings = {field.name for field in dataclasses.fields(Settings)}
    chosen = {key: value for key, value in values.items() if key in settings}
    try:
        make_settings(chosen)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return RunFile(settings=chosen, **{key: value for key, value in values.items() if key not in settings})


def _of_a_run(path: Path, text: str) -> RunFile | None:
    """What a run's own config.json says; None where it is another file."""
    try:
        config = orjson.loads(text)
        settings, classes = dict(config["settings"]), tuple(config["class_names"])
        data = path.parent / "dataset.npz"
        for name in config["chosen"]:
            settings.pop(name, None)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    track = tuple(config.get("track", ()))
    return _made(path, {**settings, "data": str(data), "classes": classes, "track": track})


def _entries(path: Path, text: str) -> Iterator[tuple[str, yaml.Node]]:
    try:
        level = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise InputError(
                    f"{path}: a run's file has no anchors and aliases (& and *); write the value out"
                )
            opens = isinstance(event, yaml.CollectionStartEvent)
            level += opens - isinstance(event, yaml.CollectionEndEvent)
            if (
                level > MOST_LEVELS
            ):  # stopped here, as the time to read brackets grows with their number squared
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise InputError(f"{path}, line {line}: lists within lists: a run's file has none")
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        problem = error.problem or ""
        if "'\\t'" in problem:
            problem = "there is a tab: YAML wants spaces"
        raise InputError(f"{path}{where}: this is neither YAML nor JSON ({problem})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is neither YAML nor JSON ({' '.join(str(error).split())[:200]})") from None
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path}: a run's file holds a line `name: value` for each setting")
    for key, node in root.value:
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{path}, line {key.start_mark.line + 1}: a setting's name is a word")
        yield key.value, node


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _value(where: str, node: yaml.Node, kind: Any) -> Any:
    """A node as a value of a type."""
    origin, choices = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):  # a type or None
        return _value(where, node, next(choice for choice in choices if choice is not type(None)))
    if origin is tuple:
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        return tuple(_value(where, item, str) for item in items)
    if not isinstance(node, yaml.ScalarNode):
        raise InputError(f"{where} has one value, not a list or further names")
    text = _text(node)
    if origin is Literal:
        counts = isinstance(choices[0], int) and text.isdecimal() and len(text) < 19
        value: Any = int(text) if counts else text
        if value not in choices:
            raise InputError(f"{where} is one of {', '.join(map(str, choices))}, not {text!r}")
        return value
    if kind is str:
        return text
    if kind is bool:
        known = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        if text.lower() not in known:
            raise InputError(f"{where} is true or false, not {text!r}")
        return known[text.lower()]
    try:
        number = kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise InputError(f"{where} is {wanted}, not {text[:60]!r}") from None
    if not abs(number) < 2**63:  # nan is neither
        raise InputError(f"{where} is {text[:60]}, which is no number to train with")
    return number


def _text(node: yaml.ScalarNode) -> str:
    """A scalar's text; what JSON writes as two halves of a character (surrogates) is that character."""
    text: str = node.value
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# -- writing -----------------------------------------------------------------------------------------------------------


def write_config(path: str | Path, *, data: str | None = None) -> Path:
    """Write a run's file to fill in: every setting with its sentence and its default, commented out.

    Args:
        path: A new file.
        data: The dataset that it shall name.

    Raises:
        FileInTheWayError: There is such a file.
    """
    path = Path(path)
    if path.exists():
        raise FileInTheWayError(f"{path} is there already, and stays as it is; give another name")
    lines = [
        "# A run of odkit: odkit train --config " + path.name,
        "# Lines that begin with # say what odkit does by itself; take the # away to change it, and give several",
        "# values as [a, b]. Flags on the command line win over this file.",
    ]
    for field_ in dataclasses.fields(RunFile):
        if field_.name == "settings":
            continue
        given = data if field_.name == "data" else None
        lines += ["", *_comment(setting_docs(RunFile)[field_.name]), _line(field_.name, given)]
    lines += [
        "",
        '# -- Settings: what odkit chooses itself (0, -1 or "auto"), the run says with the reason. --',
    ]
    for setting in dataclasses.fields(Settings):
        lines += ["", *_comment(setting_docs(Settings)[setting.name])]
        lines += [f"# {setting.name}: {_plain(setting.default)}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, ("\n".join(lines) + "\n").encode())
    return path


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )


def _line(name: str, value: str | None) -> str:
    if value is not None:
        return f"{name}: {_plain(value)}"
    example = EXAMPLES.get(name, "")
    return f"# {name}:" + (f"    # as {example}" if example else "")


def _plain(value: Any) -> str:
    """A value as YAML and JSON both have it."""
    return orjson.dumps(value).decode()
