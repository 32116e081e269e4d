"""A config of another tool as odkit would train it: its settings, and what became of each of its keys."""

import shlex
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

Part = Literal["taken over", "changed", "without counterpart"]
PARTS: tuple[Part, ...] = ("taken over", "changed", "without counterpart")


@dataclass(frozen=True)
class Key:
    """What became of a key of the config."""

    part: Part
    name: str  # its path, "train_config.batch_size"
    value: str
    becomes: str  # a setting as a flag, or what stands for it; "" for nothing
    why: str


@dataclass(frozen=True, kw_only=True)
class ImportedConfig:
    """A pipeline.config of TensorFlow's Object Detection API, as odkit would train it.

    Attributes:
        config: The file.
        data: The dataset, for `load_dataset` and `odkit train`; None where it was not found.
        settings: Settings that differ from odkit's own, for `fine_tune(dataset, **settings)`.
        classes: The classes of the label map, where the data has more; () for all.
        keys: What became of each key.
        outlook: What the run means on this machine, in sentences.
    """

    config: Path
    data: Path | None
    settings: dict[str, Any]
    classes: tuple[str, ...]
    keys: tuple[Key, ...]
    outlook: tuple[str, ...]

    def flags(self) -> list[str]:
        """The settings as flags of `odkit train`."""
        flags = [
            text
            for name, value in self.settings.items()
            for text in (f"--{name.replace('_', '-')}", shown(value))
        ]
        return flags + (["--classes", *self.classes] if self.classes else [])

    def command(self) -> str:
        """What to type to train."""
        return shlex.join(["odkit", "train", str(self.data or "FOLDER"), *self.flags()])

    def part(self, name: Part) -> list[Key]:
        return [key for key in self.keys if key.part == name]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        parts = {
            name: [
                {"key": k.name, "value": k.value, "becomes": k.becomes, "why": k.why} for k in self.part(name)
            ]
            for name in PARTS
        }
        return {
            "config": str(self.config),
            "data": None if self.data is None else str(self.data),
            "settings": self.settings,
            "classes": list(self.classes),
            "command": self.command(),
            "keys": parts,
            "outlook": list(self.outlook),
        }

    def __repr__(self) -> str:
        lines = [str(self.config)]
        for name in PARTS[:2]:
            lines += ["", name.capitalize()]
            for key in self.part(name):
                lines += [f"  {key.name} = {_cut(key.value)}" if key.value else f"  {key.name}"]
                lines += _wrapped(f"{key.becomes}: {key.why}" if key.becomes else key.why, 6)
        lines += ["", PARTS[2].capitalize()]
        for why, keys in _grouped(self.part(PARTS[2])).items():
            lines += _wrapped(why, 2)
            listed = (f"{_end(k.name)} = {_cut(k.value)}" if k.value else _end(k.name) for k in keys)
            lines += _wrapped("; ".join(listed), 6)
        return "\n".join([*lines, "", *self.outlook, f"To train:\n  {self.command()}"])

    def _repr_html_(self) -> str:
        rows = []
        for name in PARTS:
            rows.append(f'<tr><th colspan="4" style="text-align:left">{name.capitalize()}</th></tr>')
            for key in self.part(name):
                cells = (key.name, key.value, key.becomes, key.why)
                rows.append(
                    "<tr>" + "".join(f'<td style="text-align:left">{escape(c)}</td>' for c in cells) + "</tr>"
                )
        end = "".join(f"<p>{escape(line)}</p>" for line in self.outlook)
        return f"<table>{''.join(rows)}</table>{end}<pre>{escape(self.command())}</pre>"


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def _end(name: str) -> str:
    """The last parts of a key's path, enough to find it by."""
    return ".".join(name.split(".")[-2:])


def _cut(text: str, most: int = 100) -> str:
    """A value on one line: a long one without its middle."""
    return text if len(text) <= most else f"{text[: most // 3]} ... {text[-most // 2 :]}"


def _grouped(keys: Iterable[Key]) -> dict[str, list[Key]]:
    groups: dict[str, list[Key]] = {}
    for key in keys:
        groups.setdefault(key.why, []).append(key)
    return groups


def _wrapped(text: str, indent: int) -> list[str]:
    spaces = " " * indent
    return textwrap.wrap(text, 110, initial_indent=spaces, subsequent_indent=spaces, break_long_words=False)
