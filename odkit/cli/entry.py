"""The `odkit` command: a subcommand a function of this room, its flags made by tyro from the function's arguments.

Looking at runs, making the demo and asking for help import no torch: commands import what they need when they run.
"""

import os
import sys
from collections.abc import Sequence

import tyro

# isort: off
from odkit.cli import training, looking, data, detectors, predicting, benchmark, machine  # noqa: F401  (in this order)

# isort: on
from odkit.cli.shared import app
from odkit.cli.training import with_config
from odkit.system import OdkitError, odkit_version

DESCRIPTION = (
    "Fine-tune object detectors and look at every mistake they make. `odkit COMMAND --help` says more."
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
    config = (
        tyro.conf.OmitArgPrefixes,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.PositionalMetavarFromFieldName,
    )
    try:
        if given[:1] == ["train"]:
            given = with_config(given)
        call = app.cli(prog="odkit", description=DESCRIPTION, args=given, config=config)
        status: int = call()
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
