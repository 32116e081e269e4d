"""`python -m odkit` is the `odkit` command; training workers are started this way."""

import sys

from odkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
