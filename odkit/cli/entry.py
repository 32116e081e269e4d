"""The `odkit` command: a command a function of this room, its flags made by tyro from the function's arguments.

Only the command that is typed is read so, and commands import what they need when they run: looking at runs and asking
for help import neither torch nor numpy.
"""

import functools
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import tyro
from tyro.extras import SubcommandApp

# isort: off
from odkit.cli import training, looking, data, detectors, predicting, benchmark, machine  # noqa: F401  (in this order)

# isort: on
from odkit.cli.shared import COMMANDS
from odkit.cli.training import with_config
from odkit.system import OdkitError, odkit_version

DESCRIPTION = "Fine-tune object detectors and look at every mistake they make."
CONFIG = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.PositionalMetavarFromFieldName,
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the `odkit` command; returns its exit status.

    An error meant for people is one message and status 1 (ODKIT_TRACEBACK=1 shows where it comes from); any other is a
    fault of ours, and keeps its traceback.
    """
    given = list(sys.argv[1:] if args is None else args)
    if given == ["--version"]:
        print(f"odkit {odkit_version()}")
        return 0
    try:
        if given[:1] == ["train"]:
            given = with_config(given)
        status = _read(given)()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `odkit runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OdkitError, OSError) as error:  # of the machine's own, a full disk is the usual one
        if os.environ.get("ODKIT_TRACEBACK"):
            raise
        print(f"odkit: {error}", file=sys.stderr)
        return 1
    return status


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
