"""The errors that are meant for people, under one base; any other error is a fault of ours and keeps its traceback.

Each is also the builtin error that Python people would expect there, so `except ValueError` and its kin catch it.
"""


class OdkitError(Exception):
    """An error meant for people: its message says what is wrong, where (file, image, box), and what to do."""


class InputError(OdkitError, ValueError):
    """What was given does not fit: a value out of range, columns that do not agree, a damaged file."""


class UnknownNameError(OdkitError, KeyError):
    """Nothing has that name; the message lists what there is, or names the nearest."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would put the message in quotes


class UnknownSettingError(OdkitError, TypeError):
    """No setting has that name; the message names the nearest and lists them all."""


class OutOfRangeError(OdkitError, IndexError):
    """An index beyond the images or boxes that there are; the message says how many there are."""


class MissingFileError(OdkitError, FileNotFoundError):
    """There is no file or folder at that path, or nothing in it of the kind that was asked for."""


class FileInTheWayError(OdkitError, FileExistsError):
    """Something is where a new file or folder was to go; nothing of it was touched."""


class MissingPackageError(OdkitError, RuntimeError):
    """A package that only this needs is not installed; the message says what to type."""


class LeftOutWarning(UserWarning):
    """What was written is not the whole: the message says what was left out, and how many."""
