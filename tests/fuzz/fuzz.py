"""Every parser fed with what coverage leads to, for a while each; what breaks one is kept.

python -m tests.fuzz.fuzz [TARGET ...] [--seconds 30]        # make fuzz

Atheris (libFuzzer) changes a good file so as to reach new lines of odkit. A file that ends in anything but a value or
an error meant for people, or takes over 10 seconds or 2 GB, is put into tests/fuzz/found/, where a test reads it ever
after.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

WRITES = [
    "odkit.data.formats",
    "odkit.data.dataset",
    "odkit.data.predictions",
    "odkit.data.columns",
    "odkit.data.texts",
]
WRITES += ["odkit.runs", "odkit.detection.loading", "odkit.detection.detector", "odkit.data.audit"]


def fuzz(name: str, options: list[str]) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=WRITES):
        from tests.fuzz.targets import Prepared
    prepared = Prepared(name)
    seeds = Path(options[-1])
    (seeds / "good").write_bytes(prepared.good)
    atheris.Setup([sys.argv[0], *options], prepared.read)
    try:
        atheris.Fuzz()
    finally:
        prepared.close()


def main() -> int:
    from tests.fuzz.targets import FOUND, TARGETS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--seconds", type=int, default=30)
    given = parser.parse_args()
    broken = 0
    for name in given.targets:
        with tempfile.TemporaryDirectory(prefix="odkit-seeds-") as seeds:
            options = [
                f"-max_total_time={given.seconds}",
                "-timeout=10",
                "-rss_limit_mb=2048",
                "-max_len=20000",
            ]
            options += [
                "-seed=1",
                "-verbosity=0",
                "-print_final_stats=1",
                f"-artifact_prefix={FOUND}/{name}-",
                seeds,
            ]
            begun = [sys.executable, "-m", "tests.fuzz.fuzz", "--one", name, *options]
            done = subprocess.run(
                begun, capture_output=True, text=True, timeout=given.seconds + 180, check=False
            )
        said = done.stderr + done.stdout
        runs = [line.split()[-1] for line in said.splitlines() if "number_of_executed_units" in line]
        print(f"{name}: {'broken' if done.returncode else 'held'}; {' '.join(runs)} files", flush=True)
        if done.returncode:
            broken += 1
            print("\n".join(said.splitlines()[-25:]), flush=True)
    return bool(broken)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
