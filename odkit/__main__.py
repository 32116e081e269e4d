"""`python -m odkit` is the `odkit` command; training workers are started this way."""

import signal
import sys


def main() -> int:
    """The command; Ctrl-C ends it without a word while it is loaded, and once it is done."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # and not ignored, as of what runs in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from odkit.cli import main as command

    signal.signal(signal.SIGINT, before)
    status = command()
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return status


if __name__ == "__main__":
    sys.exit(main())
