"""A case tried: made, every line typed on it, and what came of each, with what was broken of the promises to all.

What holds whatever is expected of a case: no traceback, an end in time, memory under the case's limit, no process left,
the source as it was (every byte, name and time), and of a {target} nothing but the whole of it.

python -m tests.hostile.trial PART...    # tries the cases whose family/name has a part in it, and prints all they say
"""

import hashlib
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import PROJECT
from tests.hostile.cases import Case, Expected, every_case

TRACEBACK = "Traceback (most recent call last)"


@dataclass
class Outcome:
    """What came of one line.

    Attributes:
        line: What was typed.
        status: Exit status; negative: the signal that ended it.
        output: What it printed on both streams.
        megabytes: Its largest resident memory.
        broken: What was promised and not held, in words.
    """

    line: str
    status: int
    output: str
    megabytes: float
    broken: list[str] = field(default_factory=list)


class Zygote:
    """A process that forks for each command; see zygote.py."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.zygote", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )

    def run(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


def fingerprint(folder: Path) -> str:
    """A hash of everything in a folder: names, kinds, permissions, times, links, and the bytes of regular files."""
    digest = hashlib.sha256()
    for inside, folders, files in os.walk(os.fsencode(folder)):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = os.path.join(inside, name)
            about = os.lstat(path)
            digest.update(path + f"{about.st_mode} {about.st_size} {about.st_mtime_ns}".encode())
            if stat.S_ISLNK(about.st_mode):
                digest.update(os.readlink(path))
            elif stat.S_ISREG(about.st_mode) and about.st_mode & 0o400:
                with open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def try_case(case: Case, place: Path, pantry: dict[str, Path], zygote: Zygote) -> list[Outcome]:
    """Make a case in a new folder and try every line of it.

    Args:
        case: The case.
        place: A folder that is there and empty.
        pantry: "good", "run": see Case.commands.
        zygote: What forks; one with torch, where a line wants it.
    """
    source = place / "source"
    source.mkdir()
    names = {"source": source, "good": pantry["good"], "target": place / "target", "place": place}
    lines = " ".join(case.commands)
    if any(f"{{{word}}}" in lines for word in ("run", "runs", "detector")):
        shutil.copytree(pantry["run"], place / "runs" / "good", symlinks=True)
        names |= {"runs": place / "runs", "run": place / "runs" / "good"}
        names["detector"] = names["run"] / "detector.safetensors"
    case.make(source)
    outcomes = []
    for line, expected in case.commands.items():
        before = fingerprint(source), sorted(os.listdir(place))
        outcome = _typed(case, line, names, place, zygote)
        outcome.broken += _broken(expected, outcome, names["target"])
        if fingerprint(source) != before[0]:
            outcome.broken.append("the source is not what it was")
        strange = set(os.listdir(place)) - set(before[1]) - {"target", "out", "err"}
        if strange and expected.writes is not None:
            outcome.broken.append(f"it leaves {', '.join(sorted(strange))}")
        _remove(names["target"])
        outcomes.append(outcome)
    return outcomes


def told(outcomes: list[Outcome]) -> str:
    """What was broken, line by line, with what was printed; empty where nothing was."""
    return "\n\n".join(
        f"odkit {outcome.line}: {'; '.join(outcome.broken)}\n{outcome.output[-2000:]}"
        for outcome in outcomes
        if outcome.broken
    )


def _typed(case: Case, line: str, names: dict[str, Path], place: Path, zygote: Zygote) -> Outcome:
    folder = names["source"] if case.within else place
    out, err = place / "out", place / "err"
    if line.startswith("$ "):
        shown = line[2:].format(**{key: shlex.quote(str(path)) for key, path in names.items()})
        request: dict[str, Any] = {
            "shell": f'odkit() {{ {shlex.quote(sys.executable)} -m odkit "$@"; }}\n{shown}'
        }
    else:
        words = ["load", "{source}"] if line == "load" else shlex.split(line)
        request = {"args": [word.format(**names) for word in words]}
    answer = zygote.run(
        **request,
        folder=str(folder),
        out=str(out),
        err=str(err),
        seconds=case.seconds,
        megabytes=case.megabytes,
    )
    output = "".join(path.read_text("utf-8", "replace") for path in (out, err) if path.exists())
    outcome = Outcome(line, answer["status"], output, answer["megabytes"])
    if answer["late"]:
        outcome.broken.append(f"no end after {case.seconds:g} s")
    if answer["left"]:
        outcome.broken.append("a process of it is left")
    if answer["megabytes"] > case.megabytes:
        outcome.broken.append(f"{answer['megabytes']:.0f} MB of memory, more than {case.megabytes}")
    if "--json" in line and answer["status"] in (0, 1) and "odkit: " not in output:
        try:
            json.loads(out.read_text("utf-8"))
        except ValueError as error:
            outcome.broken.append(f"its JSON is none: {error}")
    return outcome


def _broken(expected: Expected, outcome: Outcome, target: Path) -> Iterator[str]:
    if TRACEBACK in outcome.output:
        yield "a traceback"
    if outcome.status != expected.status:
        yield f"exit status {outcome.status}, not {expected.status}"
    flat = " ".join(outcome.output.split())  # a table folds its lines
    for words in expected.says:
        if " ".join(words.split()) not in flat:
            yield f"it does not say {words!r}"
    for words in expected.not_says:
        if words in flat:
            yield f"it says {words!r}"
    if (
        expected.writes is not None
        and "{target}" in outcome.line
        and expected.writes != os.path.lexists(target)
    ):
        yield f"the target is {'not ' if expected.writes else ''}there"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def removed(place: Path) -> Iterator[Path]:
    """A new folder that is removed at the end, whatever permissions are in it and whatever its names are."""
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        for inside, folders, _ in os.walk(os.fsencode(place)):
            for name in folders:
                if not os.path.islink(os.path.join(inside, name)):
                    os.chmod(os.path.join(inside, name), 0o700)
        shutil.rmtree(os.fsencode(place), ignore_errors=True)


def main(parts: list[str]) -> int:
    """Try the cases whose id has one of the parts in it; the number of those that break a promise."""
    from tests.hostile.conftest import stocked

    failed = 0
    with tempfile.TemporaryDirectory(prefix="odkit-hostile-") as place:
        pantry, zygote = stocked(Path(place, "pantry")), Zygote("--torch")
        for case in every_case().values():
            if any(part in case.id for part in parts):
                with removed(Path(place, "case")) as folder:
                    outcomes = try_case(case, folder, pantry, zygote)
                print(f"\n=== {case.id}: {case.what}")
                for outcome in outcomes:
                    print(
                        f"--- odkit {outcome.line}\n{outcome.output}--- {outcome.status}, {outcome.megabytes:.0f} MB"
                    )
                    print(*(f"BROKEN: {text}" for text in outcome.broken), sep="\n")
                failed += any(outcome.broken for outcome in outcomes)
        zygote.close()
    print(f"\n{failed} broken")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
