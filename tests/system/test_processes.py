"""What a process may open, and how it says so to those it starts."""

import subprocess
import sys

PROGRAM = """
import resource
from odkit.system import open_all_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
open_all_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def limits(soft: int, hard: int) -> list[int]:
    program = PROGRAM.format(soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_open_files_are_raised_to_what_the_system_allows() -> None:
    assert limits(1024, 4096) == [4096, 4096]
    assert limits(2048, 2048) == [2048, 2048]
