"""Write what the image installs, out of the two files that say it: pyproject.toml and requirements.lock.

    torch.txt  PyTorch and NVIDIA's libraries: the large layer, which changes with their versions alone
    rest.txt   everything else that odkit needs, transformers for D-FINE, and nbval, so that the image can run its own
               notebooks
    keep.txt   what a later `pip install` inside the image must not replace
    build.txt  what builds odkit's wheel

All but keep.txt hold lines of the lock, word for word, hashes and dependencies included: pip has nothing to decide.
keep.txt has no hashes: a constraint's would refuse the builds of torch for another CUDA. Developers' tools, which the
lock pins too, are left out.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

TORCH = re.compile(r"(torch|torchvision|nvidia-.*|cuda-.*)$")
KEEP = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*|numpy|fiftyone.*|hotcoco|ipykernel)$")

# torch asks for triton, which compiles kernels for torch.compile, with a C compiler that is not in the image either:
# 0.9 GB. Settings.compile says so and goes on without.
LEFT_OUT = {"triton"}


def read_lock(path: Path) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """What the lock says of each name.

    Returns:
        Name to its pins, each with its hashes on lines of their own (more than one where Python versions differ), and
        name to what it needs ("# via" turned round).
    """
    lines: dict[str, list[str]] = {}
    needs: dict[str, set[str]] = {}
    name = ""
    for line in path.read_text().splitlines():
        if found := re.match(r"([\w.-]+)==", line):
            name = found[1]
            lines.setdefault(name, []).append(line)
        elif line.startswith("    --hash="):
            lines[name][-1] += f"\n{line}"
        elif found := re.match(r"\s+#\s+(?:via )?([\w.-]+)$", line):
            needs.setdefault(found[1], set()).add(name)
    return lines, needs


def closure(roots: Iterable[str], needs: dict[str, set[str]]) -> set[str]:
    """The roots and all that they need, directly or not."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in LEFT_OUT:
            found.add(name)
            waiting += needs.get(name, set())
    return found


def plan(source: Path, target: Path) -> None:
    """Read pyproject.toml and requirements.lock in `source`, write the four files to `target`."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + project.get("optional-dependencies", {}).get("dfine", [])
    direct = [re.match(r"[\w.-]+", line)[0].lower() for line in asked]  # type: ignore[index]
    lines, needs = read_lock(source / "requirements.lock")
    wanted = closure([*direct, "nbval", "pytest"], needs)
    missing = wanted - set(lines)
    if missing:
        raise SystemExit(f"requirements.lock lacks {', '.join(sorted(missing))}: run `make lock`")
    chosen = {
        "torch.txt": [name for name in wanted if TORCH.match(name)],
        "rest.txt": [name for name in wanted if not TORCH.match(name)],
        "keep.txt": [name for name in lines if KEEP.match(name)],
        "build.txt": closure(["hatchling"], needs),
    }
    for file, names in chosen.items():
        pins = [pin for name in sorted(names) for pin in lines[name]]
        if file == "keep.txt":
            pins = [pin.partition(" \\\n")[0] for pin in pins]
        (target / file).write_text("".join(f"{pin}\n" for pin in pins))


if __name__ == "__main__":
    plan(Path(sys.argv[1]), Path(sys.argv[2]))
