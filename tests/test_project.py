"""The project's own promises: dependencies that agree, habits by name, a light import, rooms with doors, a true map."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import grimp
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import odkit
from tests.helpers import make_lab

PROJECT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
LOCK = [
    Requirement(line.removesuffix("\\"))
    for line in (PROJECT / "requirements.lock").read_text().splitlines()
    if line and not line.startswith((" ", "#"))  # hashes and who asked
]
DECLARED = [Requirement(r) for r in PYPROJECT["dependencies"] + PYPROJECT["optional-dependencies"]["dev"]]
MAKEFILE = (PROJECT / "Makefile").read_text()


# -- dependencies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", DECLARED, ids=lambda r: r.name)
def test_lock_satisfies_pyproject(wanted: Requirement) -> None:
    locked = [r for r in LOCK if canonicalize_name(r.name) == canonicalize_name(wanted.name)]
    assert locked, f"{wanted.name} is declared in pyproject.toml but not locked: make lock"
    for requirement in locked:
        (pin,) = requirement.specifier
        assert wanted.specifier.contains(pin.version), (
            f"{requirement} is locked, {wanted} declared: make lock"
        )


def test_lock_pins_every_version_and_names_no_source() -> None:
    text = (PROJECT / "requirements.lock").read_text()
    for requirement in LOCK:
        assert [pin.operator for pin in requirement.specifier] == ["=="], f"{requirement} is not pinned"
    assert not re.search(r"://|^-|@ ", text, re.MULTILINE), "the lock names an address or an option of pip's"


@pytest.mark.skipif("CI" not in os.environ, reason="who develops may have another version of a package")
def test_environment_is_the_lock() -> None:
    """What is installed here is what is locked, so that a green run says something about the lock."""
    differing = {}
    for requirement in LOCK:
        if requirement.marker is None or requirement.marker.evaluate():
            (pin,) = requirement.specifier
            if version(requirement.name) != pin.version:
                differing[requirement.name] = f"{version(requirement.name)} installed, {pin.version} locked"
    assert not differing, "make setup"


def test_conda_environment_installs_the_lock() -> None:
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python="))
    assert SpecifierSet(PYPROJECT["requires-python"]).contains(python.removeprefix("python=") + ".0")
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip == ["-r requirements.lock"]  # odkit has no hash, so pip takes it by itself
    assert "pip" in environment["dependencies"]


# -- habits ----------------------------------------------------------------------------------------------------------


def test_make_help_lists_every_target() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE)
    assert {"help", "lab", "run", "test", "lint"} <= set(targets)
    shown = subprocess.run(
        ["make", "help"], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert re.findall(r"^  ([a-z-]+) +\S", shown, re.MULTILINE) == targets
    phony = re.search(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert sorted(phony[1].split()) == sorted(targets)


def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    command = ["make", "setup", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}"]
    made = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert made.returncode != 0
    assert "odkit needs Python 3.11 or newer; tried: no-such-python" in made.stderr
    assert "make setup PYTHON=" in made.stderr


def test_make_says_when_python_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    made = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert made.returncode != 0
    assert f"{old} is Python 3.9.2" in made.stderr
    assert not (tmp_path / "venv").exists()


def test_make_says_when_venv_is_missing(tmp_path: Path) -> None:
    """Debian's python3 comes without ensurepip: `python3 -m venv` then fails."""
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/sh\n[ "$2" = venv ] && exit 1\nexec {sys.executable} "$@"\n')
    bare.chmod(0o755)
    command = ["make", "setup", f"PYTHON={bare}", f"VENV={tmp_path / 'venv'}"]
    made = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert made.returncode != 0
    assert "its venv or pip is missing" in made.stderr
    assert f"apt-get install python3.{sys.version_info.minor}-venv" in made.stderr


def test_make_lab_has_the_images_defaults_and_overwrites_none(tmp_path: Path) -> None:
    make_lab(tmp_path / "new")
    defaults = tmp_path / "new" / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    assert (
        json.loads(defaults.read_text())["@jupyterlab/apputils-extension:notification"]["fetchNews"]
        == "false"
    )
    own = tmp_path / "own" / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    own.parent.mkdir(parents=True)
    own.write_text("{}")
    make_lab(tmp_path / "own")
    assert own.read_text() == "{}"


@pytest.mark.parametrize(
    ("command", "mark"),
    [
        ([sys.executable, "-m", "odkit", "worker", "nothing"], "worker"),
        ([sys.executable, "-m", "torch.distributed.run", "--help"], "worker"),
        ([Path("/opt/mongodb/bin/mongod"), "--version"], "database"),
        (["/usr/bin/chromium", "--version"], "browser"),
        ([sys.executable, "-m", "ipykernel_launcher", "--help"], "notebook"),
    ],
)
def test_what_make_check_leaves_out_cannot_be_started_unmarked(command: list[str], mark: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=f"needs @pytest.mark.{mark}"):
        subprocess.Popen(command)


# -- the package root ------------------------------------------------------------------------------------------------


def python(code: str) -> str:
    """Output of Python code run in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def loaded_by(statement: str) -> set[str]:
    """Names of the top-level packages that a statement loads in a fresh Python."""
    names = json.loads(python(f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"))
    return {name.split(".")[0] for name in names}


def test_import_odkit_loads_nothing_heavy() -> None:
    heavy = {
        "torch",
        "torchvision",
        "fiftyone",
        "matplotlib",
        "numpy",
        "PIL",
        "IPython",
        "ipywidgets",
        "hotcoco",
    }
    assert not heavy & loaded_by("import odkit; odkit.__version__; dir(odkit)")


def test_browsing_a_dataset_loads_no_torch() -> None:
    assert not {"torch", "fiftyone"} & loaded_by(
        "import odkit as od; od.browse, od.choose_folder, od.prelabel"
    )


def test_looking_at_runs_loads_no_torch() -> None:
    assert not {"torch", "fiftyone", "matplotlib"} & loaded_by(
        "import odkit; odkit.Run, odkit.list_runs, odkit.open_run"
    )


@pytest.mark.parametrize("name", ["audit", "doctor", "figures", "boxes"])
def test_a_name_stays_what_it_is(name: str) -> None:
    """Whatever of odkit is imported, and when: `audit` is a function in a room called audit."""
    after = python(
        f"import importlib, pkgutil, odkit\n"
        f"before = odkit.{name}\n"
        f"for room in ('data', 'data.audit', 'analysis', 'doctor'):\n"
        f"    door = importlib.import_module('odkit.' + room)\n"
        f"    [importlib.import_module(m.name) for m in pkgutil.iter_modules(door.__path__, door.__name__ + '.')]\n"
        f"from odkit import {name}\n"
        f"print(before is odkit.{name} is {name})"
    )
    assert after == "True"


def test_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(AttributeError, match="odkit has no 'fine_tun'; did you mean 'fine_tune'"):
        _ = odkit.fine_tun
    with pytest.raises(AttributeError, match="dir\\(odkit\\)"):
        _ = odkit.qqqqqq
    assert not hasattr(odkit, "__wrapped__")


# -- rooms and their doors ---------------------------------------------------------------------------------------------

PACKAGE = PROJECT / "odkit"
# A room is a package with a door: `__init__.pyi` lists what others may use. The root's names are for people.
ROOMS = {
    ".".join(stub.parent.relative_to(PROJECT).parts): stub for stub in sorted(PACKAGE.rglob("__init__.pyi"))
}


def names_in_door(room: str) -> dict[str, str]:
    """Public name to what stands before its `import`: "" for a module of the room itself."""
    return {
        alias.asname or alias.name: node.module or ""
        for node in ast.parse(ROOMS[room].read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def room_of(module: str) -> str:
    """The innermost room that holds a module, or is it."""
    while module not in ROOMS:
        module = module.rpartition(".")[0]
    return module


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_a_door_loads(room: str) -> None:
    door = importlib.import_module(room)
    for name in names_in_door(room):
        scope: dict[str, object] = {}
        exec(f"from {room} import {name}", scope)
        assert scope[name] is getattr(door, name)
        assert name in dir(door)


def test_every_package_has_a_door_with_its_sentence() -> None:
    packages = {path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE / "system" / "etc"}
    assert packages == {stub.parent for stub in ROOMS.values()}
    for room in ROOMS:
        assert importlib.import_module(room).__doc__, f"{room} says nowhere what is done in it"


def test_rooms_use_one_another_by_their_doors() -> None:
    graph = grimp.build_graph("odkit", cache_dir=None)
    around = []
    for importer in graph.modules:
        for used in graph.find_modules_directly_imported_by(importer):
            room = room_of(used)
            inside = f"{importer}.".startswith(f"{room}.")
            shown = used in ROOMS or used.rpartition(".")[2] in names_in_door(room)
            if not inside and not shown:
                around.append(f"{importer} imports {used}, not a name of {room}'s door")
    assert not around


def test_a_door_shows_what_others_use_and_no_more() -> None:
    used: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]:
        package = ".".join(path.parent.relative_to(PROJECT).parts)
        tree = ast.parse(path.read_text())
        doors: dict[str, str] = {}  # a room that is imported by its own name
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = ".".join(filter(None, [package if node.level else "", node.module]))
                for alias in node.names:
                    if module in used and room_of(package) != module:
                        used[module].add(alias.name)
                    if f"{module}.{alias.name}" in ROOMS:
                        doors[alias.asname or alias.name] = f"{module}.{alias.name}"
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in doors
            ):
                used[doors[node.value.id]].add(node.attr)
    public = {"odkit", "odkit.analysis.figures", "odkit.doctor"}  # wholly for people
    unused = {
        room: [
            n for n in names_in_door(room) if n not in used[room] and not n.endswith("Error")
        ]  # to be caught
        for room in ROOMS
        if room not in public
    }
    assert not {room: names for room, names in unused.items() if names}


# -- the map of the house ----------------------------------------------------------------------------------------------


def house() -> dict[str, str]:
    """What CONTRIBUTING.md's tree lists, path (of a folder with its slash) to purpose."""
    text = (PROJECT / "CONTRIBUTING.md").read_text()
    (tree,) = re.findall(r"^## The house\n(?:(?!    ).*\n)*((?:    .*\n)+)", text, re.MULTILINE)
    places: dict[str, str] = {}
    folders: list[str] = []
    for line in tree.splitlines():
        name, _, purpose = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2 - 2
        assert len(folders) >= depth, f"{name} stands too far to the right"
        del folders[depth:]
        places["".join(folders) + name] = purpose.strip()
        if name.endswith("/"):
            folders.append(name)
    return places


def test_the_map_is_the_house() -> None:
    places = house()
    missing = [
        place
        for place in places
        if not (PROJECT / place).exists() or (PROJECT / place).is_dir() != place.endswith("/")
    ]
    assert not missing, "CONTRIBUTING.md lists what is not there"
    silent = [place for place, purpose in places.items() if len(purpose) < 10]
    assert not silent, "CONTRIBUTING.md does not say what these are for"
    there = {f"{path.relative_to(PROJECT)}" for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    there |= {f"{stub.parent.relative_to(PROJECT)}/" for stub in ROOMS.values()}
    assert not there - set(places), "CONTRIBUTING.md does not list what is there"


def test_the_map_lists_the_top_of_the_tree() -> None:
    top = {path.relative_to(PROJECT).parts[0] for path in tracked()}
    listed = {place.split("/")[0] for place in house()}
    assert not {name for name in top if not name.startswith(".")} - listed - {"LICENSE", "NOTICE"}


# -- what is committed -----------------------------------------------------------------------------------------------


def tracked(*patterns: str) -> list[Path]:
    """Files that git tracks; skips the test where this is no git checkout."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", *patterns], cwd=PROJECT, capture_output=True, text=True, check=True
        ).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so nothing says which files are the project's")
    return [PROJECT / name for name in listed.split("\0") if name and (PROJECT / name).is_file()]


def test_no_tracked_file_is_large() -> None:
    sizes = {path.name: path.stat().st_size for path in tracked()}
    assert sizes.pop("starter.safetensors") < 9_000_000
    assert not {name: size for name, size in sizes.items() if size > 4_500_000}, "a file of more than 4.5 MB"


def test_notebooks_hold_no_widget_state_and_no_ones_paths() -> None:
    for path in tracked("*.ipynb"):
        text = path.read_text()
        notebook = json.loads(text)
        assert "widgets" not in notebook["metadata"], f"{path.name} holds widget state"
        assert "application/vnd.jupyter.widget-view+json" not in text, (
            f"{path.name} shows a widget that is gone"
        )
        assert not re.search(r"\d%\|.*\d+/\d+ \[", text), (
            f"{path.name} shows a progress bar that stands still"
        )
        homes = re.findall(r"(?:/home/|/root/|/Users/)[^\"'\s]*", text)
        assert not homes, f"{path.name} holds somebody's paths"
        assert str(PROJECT) not in text, f"{path.name} holds the path of the checkout it was run in"
