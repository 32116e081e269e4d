"""Every parser fed with what coverage leads to, for a while each; what breaks one is kept.

python -m tests.fuzz.fuzz [TARGET ...] [--seconds 30]        # make fuzz

Atheris (libFuzzer) changes a good file, its bytes or what its form holds (mutate.py), so as to reach new lines of
odkit. A file that ends in anything but a value or an error meant for people, or takes over 10 seconds of a processor or
2 GB, is put into tests/fuzz/found/, where a test reads it ever after; of those that end at one line, the smallest.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path

SLOW = 10  # seconds of a processor, which no file of 40 kB should take
_LIMITS = ["-timeout=60", "-rss_limit_mb=2048", "-max_len=40000", "-report_slow_units=1000"]
_TOLD = "odkit.fuzz found "


class Slow(Exception):
    """A file took too long."""


def fuzz(name: str, place: Path, options: list[str]) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    os.environ["ODKIT_CACHE"] = str(place / "cache")
    with atheris.instrument_imports(include=["odkit"]):
        from tests.fuzz.targets import FOUND, Prepared

        prepared = Prepared(name, place)
        prepared.target.read(prepared.folder, prepared.file)  # modules that are loaded when they are needed
    for number, seed in enumerate(prepared.seeds):
        (place / f"seeds/{number}").write_bytes(seed)
    FOUND.mkdir(exist_ok=True)

    def read(content: bytes) -> None:
        begun = time.process_time()
        try:
            prepared.read(content)
            if time.process_time() - begun > SLOW:
                raise Slow
        except Exception as error:  # kept, and gone on with
            keep(error, content)

    def keep(error: Exception, content: bytes) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f"{frame.filename}:{frame.lineno}" for frame in frames if "/odkit/" in frame.filename]
        where = zlib.crc32(f"{ours[-1:]}".encode())
        file = FOUND / f"{name}-{type(error).__name__}-{where:08x}"
        if not file.exists() or len(content) < file.stat().st_size:
            known = file.exists()
            file.write_bytes(content)
            if not known:
                print(f"{_TOLD}{file.name}", file=sys.stderr)
                traceback.print_exception(error)
                print(_TOLD, file=sys.stderr, flush=True)

    def changed(content: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.randrange(3):
            try:
                for _ in range(rng.choice([1, 1, 1, 2, 4])):
                    content = prepared.target.form(content, rng)
                if len(content) <= most:
                    return content
            except Exception:  # it has no such form (any more)
                pass
        return bytes(atheris.Mutate(content[:most], most))

    atheris.Setup([sys.argv[0], *options, str(place / "seeds")], read, custom_mutator=changed)
    atheris.Fuzz()


def run(name: str, seconds: int) -> tuple[str, str]:
    """Fuzz a target for a while, beginning anew where a file ended the process.

    Returns:
        A line that says what came of it, and what was found with its traceback.
    """
    from tests.fuzz.targets import FOUND

    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    files, reached, found, end = 0, 0, "", time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="odkit-fuzz-", dir=memory) as place:
        seeds = Path(place, "seeds")
        seeds.mkdir()
        for attempt in range(1, 21):
            left = round(end - time.monotonic())
            if left < 1 and attempt > 1:
                break
            with tempfile.TemporaryDirectory(dir=place) as inside:
                os.symlink(seeds, Path(inside, "seeds"))
                options = [*_LIMITS, f"-max_total_time={left}", f"-seed={attempt}", "-print_final_stats=1"]
                options += [f"-artifact_prefix={FOUND}/{name}-"]
                begun = [sys.executable, "-m", "tests.fuzz.fuzz", "--one", name, inside, *options]
                done = subprocess.run(begun, capture_output=True, timeout=left + 300, check=False)
            said = done.stderr.decode(errors="replace")
            ran = re.findall(r"number_of_executed_units: (\d+)", said)
            files += sum(map(int, ran))
            reached = max([reached, *map(int, re.findall(r"\bcov: (\d+)", said))])
            for told in re.findall(f"{_TOLD}(.+?){_TOLD}", said, re.DOTALL):
                found += told
            if done.returncode:
                found += said[-3000:]
            if not done.returncode or not ran:
                break
    return f"{name}: {files:,} files, {reached:,} places in the code reached", found


def main() -> int:
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", default=list(TARGETS), choices=[*TARGETS, list(TARGETS)])
    parser.add_argument("--seconds", type=int, default=30)
    given = parser.parse_args()
    broken = []
    for name in given.targets:
        line, found = run(name, given.seconds)
        print(f"{line}; {'BROKEN' if found else 'held'}", flush=True)
        if found:
            broken.append(name)
            print(found, flush=True)
    if broken:
        print(f"broken: {', '.join(broken)}; the files are in tests/fuzz/found", flush=True)
    return bool(broken)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    else:
        sys.exit(main())
