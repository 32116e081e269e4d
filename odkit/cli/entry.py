"""The `odkit` command: a command a function of this room, its flags made by tyro from the function's arguments.

Only the command that is typed is read so, and commands import what they need when they run: looking at runs and asking
for help import neither torch nor numpy.
"""

import contextlib
import functools
import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TextIO

import tyro
from tyro.extras import SubcommandApp

# isort: off
from odkit.cli import training, looking, data, detectors, predicting, benchmark, machine  # noqa: F401  (in this order)

# isort: on
from odkit.cli.shared import COMMANDS
from odkit.cli.training import with_config
from odkit.system import OdkitError, odkit_version, printable

DESCRIPTION = "Fine-tune object detectors and look at every mistake they make."
CONFIG = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.PositionalMetavarFromFieldName,
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the `odkit` command; returns its exit status.

    0: it is done; 1: something was found, or went wrong, and an error meant for people is one message
    (ODKIT_TRACEBACK=1 shows where it comes from); 2: the line itself is wrong; 130 and 143: ended by Ctrl-C, SIGTERM.
    Any other error is a fault of ours, and keeps its traceback.
    """
    given = list(sys.argv[1:] if args is None else args)
    _make_streams_bear_all()
    with _interrupts() as interrupted:
        try:
            if given == ["--version"]:
                print(f"odkit {odkit_version()}")
                return 0
            if given[:1] == ["train"]:
                given = with_config(given)
            asked = _read(given)
            with contextlib.redirect_stdout(_Plain(sys.stdout)):
                status = asked()
            sys.stdout.flush()
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # `odkit runs | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except Exception as error:
            if interrupted:  # in the midst of an import, of which the rest then fails
                return 130
            meant = isinstance(error, OdkitError | OSError | UnicodeEncodeError | MemoryError) or _homeless(
                error
            )
            if os.environ.get("ODKIT_TRACEBACK") or not meant or _is_ours(error):
                raise
            print(f"odkit: {printable(_said(error))}", file=sys.stderr)
            return 1
        return status


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Holds each Ctrl-C that came, as long as nothing inside takes them for itself."""
    came: list[int] = []

    def take(number: int, frame: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or not _in_main_thread():
        yield came
        return
    signal.signal(signal.SIGINT, take)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class _Plain:
    """An output to which names of files and classes go as text alone: none may move the cursor or retitle a window."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _make_streams_bear_all() -> None:
    """What goes to a closed output is lost in silence, and what an output's encoding has not is shown as an escape."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # closed; the next file that is opened must not get its number, and what is said
            if not _is_open(number):
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _is_ours(error: BaseException) -> bool:
    """Whether it is a fault of ours; a locale whose encoding has no name for a file is none."""
    return isinstance(error, UnicodeEncodeError) and sys.getfilesystemencoding() == "utf-8"


def _homeless(error: BaseException) -> bool:
    """Whether it is what pathlib says of a "~" that stands for nobody's home."""
    return isinstance(error, RuntimeError) and "home directory" in str(error)


def _said(error: BaseException) -> str:
    """What is said of an error: of the system's own, a full disk is the usual one."""
    if isinstance(error, UnicodeEncodeError):
        return (
            f"the locale's encoding ({error.encoding}) has no {error.object[error.start : error.end]!r}, which a file "
            "is called by: unset PYTHONUTF8, or type LC_ALL=C.UTF-8 before the command"
        )
    if _homeless(error):
        return 'there is no home here that this "~" stands for: give the whole path'
    if isinstance(error, MemoryError):
        return "this takes more memory than there is; less at once (a smaller --batch-size, fewer images) may fit"
    if isinstance(error, OSError) and not isinstance(error, OdkitError) and error.strerror:
        places = [
            os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)
        ]
        return ": ".join([" -> ".join(places), error.strerror] if places else [error.strerror])
    return str(error)


def _read(given: Sequence[str]) -> Callable[[], int]:
    """What a command line asks for, ready to be called.

    Raises:
        SystemExit: Help was asked for, and is printed, or the line is wrong, which is said.
    """
    name = given[0].replace("_", "-") if given else ""
    if name in COMMANDS:
        # called once all of the line has been read, so that its own errors are not taken for errors of that
        return _parsed(_later(COMMANDS[name]), f"odkit {name}", given[1:])
    if name.startswith("--tyro-"):  # a script that completes the line in a shell has to know every flag
        app = SubcommandApp()
        for known, function in COMMANDS.items():
            app.command(name=known)(_later(function))
        app.cli(prog="odkit", description=DESCRIPTION, args=given, config=CONFIG)
    if name in ("-h", "--help"):
        print(overview())
        sys.exit(0)
    near = get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    wrong = f"there is no command {given[0]!r}; {hint}" if given else "which command? "
    print(f"odkit: {wrong}`odkit --help` lists them", file=sys.stderr)
    sys.exit(2)


def _parsed(function: Callable[..., Callable[[], int]], prog: str, args: Sequence[str]) -> Callable[[], int]:
    call: Callable[[], int] = tyro.cli(function, prog=prog, args=args, config=CONFIG)
    return call


def _later(function: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """A function with the same arguments that only takes them."""

    @functools.wraps(function)
    def taken(*args: Any, **options: Any) -> Callable[[], int]:
        return functools.partial(function, *args, **options)

    return taken


def overview() -> str:
    """What `odkit --help` says: each command with the first paragraph of what is said of it."""
    width = max(map(len, COMMANDS)) + 2
    columns = min(shutil.get_terminal_size().columns, 110)
    lines = ["usage: odkit COMMAND ...", "       odkit --version", "", DESCRIPTION]
    lines += ["`odkit COMMAND --help` says more of a command.", ""]
    for name, function in COMMANDS.items():
        said = " ".join((function.__doc__ or "").partition("\n\n")[0].split())
        lines += textwrap.wrap(
            said, columns, initial_indent=f"  {name:{width}}", subsequent_indent=" " * (width + 2)
        )
    return "\n".join(lines)
