"""Columns of strings without a string for each row, so that ten million paths cost what their letters do.

A list or object array of strings costs about 50 bytes a row above its letters, is copied page by page into every worker
that reads it (a look at a string changes its reference count), and cannot be mapped from a file. These columns are
plain arrays: workers and processes share them.
"""

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

CHUNK = 65_536
"""Rows that are strings at one time where a whole column is gone through."""

# file names may hold bytes that are no text, which Python keeps as lone surrogates
_CODEC = ("utf-8", "surrogatepass")


def object_array(values: Iterable[Any]) -> NDArray[np.object_]:
    """An object array [N] of strings, each `str(value)`: for columns of which few values differ, as splits."""
    rows = [str(value) for value in values]
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


class Texts(Sequence[str]):
    """An immutable column of strings: their UTF-8 letters in one array, and where each begins.

    An index gives a str; a slice, a mask or an array of indices gives Texts; `==` with a string gives a mask, bool [N].
    `np.asarray(texts)` makes an object array, `tolist()` a list.

    Attributes:
        letters: UTF-8 of all rows one after the other, uint8 [number of bytes].
        starts: Where each row begins in `letters`, and where the last one ends, int64 [N + 1].
    """

    __slots__ = ("_distinct", "letters", "starts")

    def __init__(self, letters: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        if letters.dtype != np.uint8 or starts.dtype != np.int64 or letters.ndim != 1 or starts.ndim != 1:
            raise ValueError("a column of texts wants its letters as uint8 and its starts as int64")
        if not len(starts) or starts[0] < 0 or starts[-1] > len(letters) or (starts[1:] < starts[:-1]).any():
            raise ValueError("the starts of a column of texts must rise from 0 to the number of its letters")
        self.letters, self.starts = letters, starts
        self._distinct = False

    @staticmethod
    def of(values: Iterable[Any]) -> "Texts":
        """The column of these values, each as `str(value)`; what is one already stays as it is."""
        if isinstance(values, Texts):
            return values
        if isinstance(values, np.ndarray):
            values = values.tolist()  # NumPy's own strings are slow
        rows = [value if type(value) is str else str(value) for value in values]
        joined = "".join(rows)
        letters = np.frombuffer(joined.encode(*_CODEC), np.uint8)
        if len(letters) == len(joined):
            lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        else:
            lengths = np.fromiter((len(row.encode(*_CODEC)) for row in rows), np.int64, len(rows))
        return Texts(letters, np.concatenate([[0], np.cumsum(lengths)]))

    @staticmethod
    def join(parts: Sequence["Texts"]) -> "Texts":
        """Several columns, one below the other."""
        if parts and all(isinstance(part, Numbered) and part.words == parts[0].words for part in parts):
            numbered = [part.numbers for part in parts if isinstance(part, Numbered)]
            return Numbered(parts[0].words, np.concatenate(numbered))
        parts = [part.spelled() for part in parts]
        ends = np.cumsum([0, *(int(part.starts[-1] - part.starts[0]) for part in parts)])
        letters = [part.letters[part.starts[0] : part.starts[-1]] for part in parts]
        starts = [part.starts[:-1] - part.starts[0] + end for part, end in zip(parts, ends, strict=False)]
        return Texts(
            np.concatenate(letters) if letters else np.zeros(0, np.uint8),
            np.concatenate([*starts, ends[-1:]]),
        )

    @property
    def words(self) -> str | None:
        """What all rows begin with where the rest is a number (`Numbered`); else None."""
        return None

    def spelled(self) -> "Texts":
        """The same rows with all their letters."""
        return self

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, row: int | np.integer[Any]) -> str: ...
    @overload
    def __getitem__(self, row: Any) -> "Texts": ...
    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, int) or getattr(row, "shape", None) == ():  # NumPy's numbers, torch's
            place = operator.index(row)
            if not -len(self) <= place < len(self):
                raise IndexError(f"row {place} of {len(self)} texts")
            return self._row(place % len(self))
        if isinstance(row, slice) and row.step in (None, 1):
            first, last, _ = row.indices(len(self))
            taken = self._slice(first, max(first, last))
        else:
            rows = self._rows(row)
            taken = self._take(rows)
            if (rows[1:] <= rows[:-1]).any():
                return taken  # a row may be there twice
        taken._distinct = self._distinct
        return taken

    def _rows(self, chosen: Any) -> NDArray[np.int64]:
        """The rows of a slice, a mask or indices, from 0."""
        if isinstance(chosen, slice):
            return np.arange(*chosen.indices(len(self)))
        array = np.asarray(chosen)
        if array.dtype == bool:
            if array.shape != (len(self),):
                raise IndexError(f"a mask of {len(self)} texts has so many values, not {list(array.shape)}")
            return np.flatnonzero(array)
        if array.size and array.dtype.kind not in "iu":  # an empty list has no integers
            raise IndexError(f"rows of texts are whole numbers or a mask, not {array.dtype}")
        rows = array.astype(np.int64).reshape(-1)
        if len(rows) and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)} texts")
        return np.where(rows < 0, rows + len(self), rows)

    def _row(self, row: int) -> str:
        return str(self.letters[self.starts[row] : self.starts[row + 1]].tobytes(), *_CODEC)

    def _slice(self, first: int, last: int) -> "Texts":
        return Texts(self.letters, self.starts[first : last + 1])

    def _take(self, rows: NDArray[np.int64]) -> "Texts":
        begin, lengths = self.starts[rows], self.starts[rows + 1] - self.starts[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        letters = np.empty(starts[-1], np.uint8)
        for first in range(0, len(rows), CHUNK):  # a place is eight times as large as its letter
            last = min(first + CHUNK, len(rows))
            ours = np.arange(starts[first], starts[last])
            places = ours + np.repeat(begin[first:last] - starts[first:last], lengths[first:last])
            letters[starts[first] : starts[last]] = self.letters[places]
        return Texts(letters, starts)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), CHUNK):
            yield from self._strings(first, min(first + CHUNK, len(self)))

    def _strings(self, first: int, last: int) -> list[str]:
        ends = (self.starts[first : last + 1] - self.starts[first]).tolist()
        raw = self.letters[self.starts[first] : self.starts[last]].tobytes()
        pairs = itertools.pairwise(ends)
        if raw.isascii():
            text = raw.decode("ascii")
            return [text[begin:end] for begin, end in pairs]
        return [str(raw[begin:end], *_CODEC) for begin, end in pairs]

    def tolist(self) -> list[str]:
        """All rows as a list of str."""
        return list(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a column of texts becomes an array by a copy")
        array = object_array(self)
        return array if dtype in (None, object) else array.astype(dtype)

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and bool((self == text).any())

    def __eq__(self, other: object) -> Any:
        """The rows that are this text, or are those of another column, bool [N]."""
        if not isinstance(other, str):
            return np.asarray(self) == (np.asarray(other) if isinstance(other, Texts) else other)
        wanted = np.frombuffer(other.encode(*_CODEC), np.uint8)
        rows = np.flatnonzero(np.diff(self.starts) == len(wanted))
        for place in range(len(wanted) - 1, -1, -1):  # ends differ most: few rows are left after some letters
            rows = rows[self.letters[self.starts[rows] + place] == wanted[place]]
        found = np.zeros(len(self), bool)
        found[rows] = True
        return found

    def __ne__(self, other: object) -> Any:
        return ~(self == other)

    __hash__ = None  # type: ignore[assignment]

    def repeated(self) -> str | None:
        """A text that stands in more than one row; None where all differ. What was found is remembered."""
        if self._distinct or len(self) < 2:
            return None
        hashes = np.fromiter(map(hash, self), np.int64, len(self))
        order = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
        for first, second in zip(order[same].tolist(), order[same + 1].tolist(), strict=True):
            if self._row(first) == self._row(second):
                return self._row(first)
        self._distinct = True
        return None

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:6])) + ", ..." * (len(self) > 6)
        return f"Texts([{shown}], {len(self):,} rows)"

    def __reduce__(self) -> Any:
        first, last = self.starts[0], self.starts[-1]
        return Texts, (np.array(self.letters[first:last]), self.starts - first)


class Numbered(Texts):
    """A column of strings that are the same words and a number each, as "box 12" or "4711"; only numbers are kept.

    Attributes:
        numbers: Integers of 0 or more, [N].
    """

    __slots__ = ("_words", "numbers")

    def __init__(self, words: str | None, numbers: NDArray[Any]) -> None:
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise ValueError("a column of numbered texts wants whole numbers")
        self._words, self.numbers, self._distinct = words or "", numbers, False

    @property
    def words(self) -> str | None:
        return self._words

    def spelled(self) -> Texts:
        return Texts.of(list(self))

    def __len__(self) -> int:
        return len(self.numbers)

    def _row(self, row: int) -> str:
        return f"{self._words}{self.numbers[row]}"

    def _slice(self, first: int, last: int) -> Texts:
        return Numbered(self._words, self.numbers[first:last])

    def _take(self, rows: NDArray[np.int64]) -> Texts:
        return Numbered(self._words, self.numbers[rows])

    def _strings(self, first: int, last: int) -> list[str]:
        return [f"{self._words}{number}" for number in self.numbers[first:last].tolist()]

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, str):
            return np.asarray(self) == (np.asarray(other) if isinstance(other, Texts) else other)
        number = other[len(self._words) :]
        wanted = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else -1
        if f"{self._words}{wanted}" != other:  # other words, "box 07"
            return np.zeros(len(self), bool)
        return np.asarray(self.numbers == wanted)

    __hash__ = None

    def __reduce__(self) -> Any:
        return Numbered, (self._words, np.array(self.numbers))


class TextTable(Mapping[str, str]):
    """Texts to texts, as two columns; a dictionary is made of them when one is first looked up.

    Attributes:
        names: What is looked up, each once, Texts [N].
        texts: What stands for it, Texts [N].
    """

    __slots__ = ("_made", "names", "texts")

    def __init__(self, names: Texts, texts: Texts) -> None:
        if len(names) != len(texts):
            raise ValueError(f"a table of texts has {len(texts)} texts for {len(names)} names")
        self.names, self.texts = names, texts
        self._made: dict[str, str] | None = None

    @staticmethod
    def of(table: Mapping[str, str]) -> "TextTable":
        """The table of a mapping; what is one already stays as it is."""
        if isinstance(table, TextTable):
            return table
        return TextTable(Texts.of(table.keys()), Texts.of(table.values()))

    def __getitem__(self, name: str) -> str:
        if self._made is None:
            self._made = dict(zip(self.names, self.texts, strict=True))
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"TextTable({self.names!r}, {self.texts!r})"

    def __reduce__(self) -> Any:
        return TextTable, (self.names, self.texts)
