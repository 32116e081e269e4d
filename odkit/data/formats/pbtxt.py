"""Protobuf's text format, as pipeline.config and label maps are written in it (protobuf.dev, "Text Format Language").

What the fields mean is not known here: a message is a list of fields, in the order of the file, each with its line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from odkit.data.formats.reader_base import read_text, short
from odkit.system import InputError, megabytes

MOST_BYTES = 2**23  # of a file; label maps of thousands of classes have less than one megabyte
_DEEPEST = 100  # messages within messages, as protobuf itself allows

Scalar = str | int | float | bool
Value = Union[Scalar, "Message"]


class PbtxtError(InputError):
    """A file is not in protobuf's text format; the message names file and line."""


@dataclass
class Field:
    """A field of a message; one of several values has a field for each."""

    name: str
    value: Value
    line: int


@dataclass
class Message:
    """A message: its fields in the order of the file."""

    line: int = 1
    fields: list[Field] = field(default_factory=list)

    def all(self, name: str) -> list[Value]:
        """Every value of a field, in order."""
        return [one.value for one in self.fields if one.name == name]

    def get(self, name: str) -> Value | None:
        """A field's value, the last if it stands more than once; None where it does not stand."""
        values = self.all(name)
        return values[-1] if values else None

    def scalar(self, name: str) -> Scalar | None:
        """A field's value as `get` has it; None where it is a message."""
        value = self.get(name)
        return None if isinstance(value, Message) else value

    def message(self, *names: str) -> "Message":
        """The message at a path of names; an empty one where there is none."""
        here = self
        for name in names:
            value = here.get(name)
            here = value if isinstance(value, Message) else Message(here.line)
        return here

    def leaves(self, above: str = "") -> Iterator[tuple[str, Scalar | None, int]]:
        """Path ("model.ssd.num_classes"), value and line of every field below; an empty message has None."""
        for one in self.fields:
            path = f"{above}.{one.name}" if above else one.name
            if not isinstance(one.value, Message):
                yield path, one.value, one.line
            elif one.value.fields:
                yield from one.value.leaves(path)
            else:
                yield path, None, one.line


def read_pbtxt(path: Path) -> Message:
    """A file in protobuf's text format.

    Raises:
        PbtxtError: It is not; the message names the line.
        OSError: It cannot be read.
    """
    if (size := path.stat().st_size) > MOST_BYTES:
        raise PbtxtError(f"{path} has {megabytes(size)}; odkit reads such text up to {megabytes(MOST_BYTES)}")
    try:
        return parse_pbtxt(read_text(path))
    except PbtxtError as error:
        raise PbtxtError(f"{path}, {error}") from None


def parse_pbtxt(text: str) -> Message:
    """A message from its text.

    Raises:
        PbtxtError: The text is no message; the error names the line.
    """
    parser = _Parser(text)
    message = parser.fields("", 0)
    assert parser.kind == "end"
    return message


_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r\n\f\v]|\#[^\n]*)+)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>(?:0[xX][0-9a-fA-F]+|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?[fF]?)(?![\w.]))
    |(?P<name>[A-Za-z_]\w*)
    |(?P<sign>[-:{}<>\[\],;./])""",
    re.VERBOSE | re.ASCII,
)
_ENDS = {"{": "}", "<": ">"}
_WORDS = {"true": True, "false": False, "True": True, "False": False}
_NUMBERS = {"inf": float("inf"), "infinity": float("inf"), "nan": float("nan")}
_ESCAPE = re.compile(
    r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.ASCII
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


class _Parser:
    """One token ahead of what has been read."""

    def __init__(self, text: str) -> None:
        self.source = text.removeprefix("\ufeff")
        self.at, self.line = 0, 1
        self.kind, self.text = "", ""
        self.take()

    def take(self) -> str:
        """The token in sight; the next comes into sight."""
        taken = self.text
        self.kind = "space"
        while self.kind == "space":
            if self.at >= len(self.source):
                self.kind, self.text = "end", "the end of the file"
                break
            match = _TOKEN.match(self.source, self.at)
            if match is None:
                rest = self.source[self.at : self.at + 30].partition("\n")[0]
                why = "a text that its line does not end" if rest[0] in "\"'" else "which makes no sense here"
                raise self.error(f"{short(rest)}: {why}")
            self.kind, self.text, self.at = str(match.lastgroup), match[0], match.end()
            if self.kind == "space":
                self.line += self.text.count("\n")
        return taken

    def error(self, what: str) -> PbtxtError:
        return PbtxtError(f"line {self.line}: {what}")

    def may_take(self, signs: str) -> bool:
        if self.kind == "sign" and self.text in signs:
            self.take()
            return True
        return False

    def fields(self, end: str, depth: int) -> Message:
        """Fields up to the sign that ends their message; "" for the file's end."""
        if depth > _DEEPEST:
            raise self.error(f"more than {_DEEPEST} messages within one another")
        message = Message(self.line)
        while not (self.kind == "end" if not end else self.kind == "sign" and self.text == end):
            if self.kind == "end":
                raise self.error(f"the message that begins in line {message.line} is not closed with {end!r}")
            line, name = self.line, self.name()
            colon = self.may_take(":")
            if self.may_take("["):
                while not self.may_take("]"):
                    message.fields.append(Field(name, self.value(depth), line))
                    if not self.may_take(",") and self.text != "]":
                        raise self.error(f"{short(self.text)} stands in the list of {name}, without a comma")
            elif colon or self.text in _ENDS:
                message.fields.append(Field(name, self.value(depth), line))
            else:
                raise self.error(f"after {name} stands {short(self.text)} in place of : or {{")
            self.may_take(",;")
        if end:
            self.take()
        return message

    def name(self) -> str:
        """A field's name; that of an extension, or of a type, stands in brackets."""
        if self.may_take("["):
            parts = []
            while not self.may_take("]"):
                if self.kind not in ("name", "number") and self.text not in ("/", ".", "-"):
                    raise self.error(f"{short(self.text)} stands in a name in brackets")
                parts.append(self.take())
            return f"[{''.join(parts)}]"
        if self.kind != "name":
            raise self.error(f"{short(self.text)} stands where the name of a field must stand")
        return self.take()

    def value(self, depth: int) -> Value:
        if self.kind == "sign" and self.text in _ENDS:
            return self.fields(_ENDS[self.take()], depth + 1)
        if self.kind == "string":
            parts = []
            while self.kind == "string":  # several in a row are one
                parts.append(_unescaped(self.take()[1:-1]))
            return "".join(parts)
        minus = self.may_take("-")
        if self.kind == "number":
            number = _number(self.take())
            return -number if minus else number
        if self.kind == "name":
            if self.text.lower() in _NUMBERS:
                return _NUMBERS[self.take().lower()] * (-1 if minus else 1)
            if not minus:
                word = self.take()  # true, false, or one of an enum's
                return _WORDS.get(word, word)
        raise self.error(f"{short(self.text)} stands where a value must stand")


def _number(text: str) -> int | float:
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    if re.fullmatch("0[0-7]+", text):
        return int(text, 8)
    if text.isdigit() and len(text) <= 20:
        return int(text)
    return float(text.rstrip("fF"))


def _unescaped(text: str) -> str:
    """A string as it is meant: escapes of bytes together are UTF-8."""
    if "\\" not in text:
        return text
    done = bytearray()
    at = 0
    for match in _ESCAPE.finditer(text):
        done += text[at : match.start()].encode("utf-8", errors="replace")
        octal, hexadecimal, short_code, long_code, letter = match.groups()
        if octal:
            done.append(int(octal, 8) & 0xFF)
        elif hexadecimal:
            done.append(int(hexadecimal, 16))
        elif code := short_code or long_code:
            point = int(code, 16)
            done += (chr(point) if point < 0x110000 else "\ufffd").encode("utf-8", errors="replace")
        else:
            done += _ESCAPES.get(letter, letter).encode("utf-8", errors="replace")
        at = match.end()
    return (bytes(done) + text[at:].encode("utf-8", errors="replace")).decode("utf-8", errors="replace")
