"""The project's own promises: dependencies that agree, habits by name, a light import, modules in order."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import odkit

PROJECT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
LOCK = [
    Requirement(line.split("#")[0])
    for line in (PROJECT / "requirements.lock").read_text().splitlines()
    if line.split("#")[0].strip()
]
DECLARED = [Requirement(r) for r in PYPROJECT["dependencies"] + PYPROJECT["optional-dependencies"]["dev"]]
MAKEFILE = (PROJECT / "Makefile").read_text()

# No module imports one that stands after it. A new module gets its place here and its line in CONTRIBUTING.md.
ORDER = (
    *("kernel", "watching", "boxes", "dataset"),
    *("gathering", "placing", "coco", "voc", "yolo", "csv_labels", "formats"),
    *("audit", "similar", "scenes", "demo"),
    *("predictions", "matching", "evaluation", "suspects", "mistakes", "comparison"),
    *("sheets", "figures"),
    *("machine", "keeper", "app", "store", "marking", "bridge", "edits", "browse"),
    *("settings", "loading", "detectors", "prediction"),
    *("run", "held_out", "checkpoints", "faults", "recipe", "training", "replay", "exporters"),
    *("dashboard", "report", "export", "doctor", "cli"),
)


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
    assert pip == ["-r requirements.lock", "-e ."]
    assert "pip" in environment["dependencies"]


def test_ipykernel_is_one_whose_buttons_work_while_a_cell_is_busy() -> None:
    """6.x has no subshells, 7.4 sends widget messages back to the busy shell; see pyproject.toml."""
    (ipykernel,) = [r for r in DECLARED if r.name == "ipykernel"]
    works = [
        v for v in ("6.31.0", "7.0.1", "7.1.0", "7.3.0", "7.4.0", "8.0.0") if ipykernel.specifier.contains(v)
    ]
    assert works == ["7.1.0", "7.3.0"]


# -- habits ----------------------------------------------------------------------------------------------------------


def test_make_help_lists_every_target() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE)
    assert {"help", "lab", "run", "test", "lint"} <= set(targets)
    shown = subprocess.run(["make", "help"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  ([a-z-]+) +\S", shown, re.MULTILINE) == targets
    phony = re.search(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert sorted(phony[1].split()) == sorted(targets)


def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    command = ["make", "setup", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}"]
    made = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert made.returncode != 0
    assert "odkit needs Python 3.11 or newer; tried: no-such-python" in made.stderr
    assert "make setup PYTHON=" in made.stderr


def test_make_says_when_python_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    made = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert made.returncode != 0
    assert f"{old} is Python 3.9.2" in made.stderr
    assert not (tmp_path / "venv").exists()


def test_make_says_when_venv_is_missing(tmp_path: Path) -> None:
    """Debian's python3 comes without ensurepip: `python3 -m venv` then fails."""
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/sh\n[ "$2" = venv ] && exit 1\nexec {sys.executable} "$@"\n')
    bare.chmod(0o755)
    command = ["make", "setup", f"PYTHON={bare}", f"VENV={tmp_path / 'venv'}"]
    made = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert made.returncode != 0
    assert "its venv or pip is missing" in made.stderr
    assert f"apt-get install python3.{sys.version_info.minor}-venv" in made.stderr


def test_ci_and_pre_commit_run_the_makefile() -> None:
    ci = PROJECT / ".ci" / "run"
    assert ci.stat().st_mode & 0o111, ".ci/run is not executable"
    assert [line for line in ci.read_text().splitlines() if line.startswith("make ")] == [
        "make lint",
        "make test",
    ]
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for repo in hooks for hook in repo["hooks"]] == ["make lint"]


def test_readme_opens_with_the_two_commands() -> None:
    first_screen = "\n".join((PROJECT / "README.md").read_text().splitlines()[:40])
    assert "make lab" in first_screen
    assert "make test" in first_screen


# -- the package root ------------------------------------------------------------------------------------------------


def python(code: str) -> str:
    """Output of Python code run in a process of its own."""
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
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


def test_looking_at_runs_loads_no_torch() -> None:
    assert not {"torch", "fiftyone", "matplotlib"} & loaded_by("import odkit.run")


@pytest.mark.parametrize("name", odkit.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(odkit, name) is not None
    assert name in dir(odkit)


@pytest.mark.parametrize("name", ["audit", "browse", "mistakes"])
def test_function_wins_over_its_module(name: str) -> None:
    """Whatever is imported, and when, `odkit.audit` is the function and `odkit.audit`'s module can be imported from."""
    after = python(
        f"import importlib, sys, odkit\n"
        f"module = importlib.import_module('odkit.{name}')\n"
        f"assert callable(odkit.{name}), odkit.{name}\n"
        f"from odkit import {name}\n"
        f"from odkit.{name} import {name} as inner\n"
        f"import odkit.{name}\n"
        f"assert odkit.{name} is {name} is inner\n"
        f"assert sys.modules['odkit.{name}'] is module is not inner\n"
        f"importlib.reload(module)\n"
        f"assert callable(odkit.{name})\n"
        f"print('same')"
    )
    assert after == "same"


def test_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(AttributeError, match="odkit has no 'fine_tun'; did you mean 'fine_tune'"):
        _ = odkit.fine_tun
    with pytest.raises(AttributeError, match="dir\\(odkit\\)"):
        _ = odkit.qqqqqq
    assert not hasattr(odkit, "__wrapped__")


def test_editors_and_python_see_the_same_names() -> None:
    tree = ast.parse((PROJECT / "odkit" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and _is_type_checking(node)]
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == odkit._MODULES


# -- the house -------------------------------------------------------------------------------------------------------


def test_every_module_has_its_place_and_its_line() -> None:
    modules = {path.stem for path in (PROJECT / "odkit").glob("*.py")} - {"__init__", "__main__"}
    assert not modules - set(ORDER), "a module without a place in ORDER (tests/test_project.py)"
    house = (PROJECT / "CONTRIBUTING.md").read_text()
    assert not [name for name in modules if f" {name}.py " not in house], (
        "a module without its line in CONTRIBUTING.md"
    )


@pytest.mark.parametrize("path", sorted((PROJECT / "odkit").glob("*.py")), ids=lambda p: p.stem)
def test_module_imports_only_what_stands_before_it(path: Path) -> None:
    if path.stem.startswith("__"):
        return  # the package root and the entry point know everything
    tree = ast.parse(path.read_text())
    place = ORDER.index(path.stem)
    wrong = []
    for node, name, inside_function in _odkit_imports(tree):
        if (
            name == "odkit" and not inside_function and path.stem != "cli"
        ):  # the command line knows everything
            wrong.append(
                f"line {node.lineno}: `import odkit` belongs into the function that needs a later module"
            )
        elif name != "odkit" and name not in ORDER[:place]:
            wrong.append(f"line {node.lineno}: odkit.{name} does not stand before odkit.{path.stem}")
    assert not wrong


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _odkit_imports(node: ast.AST, inside_function: bool = False) -> list[tuple[ast.stmt, str, bool]]:
    """Statement, module of odkit's ("odkit" for the root itself) and whether a function holds it, of every import."""
    found: list[tuple[ast.stmt, str, bool]] = []
    for child in ast.iter_child_nodes(node):
        if _is_type_checking(child):
            continue
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: imports are written out in full"
            names = [child.module or ""]
            if child.module == "odkit":
                names = [f"odkit.{alias.name}" for alias in child.names]
        else:
            function = inside_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            found += _odkit_imports(child, function)
            continue
        for name in names:
            if name.split(".")[0] == "odkit":
                found.append((child, name.removeprefix("odkit.").split(".")[0], inside_function))
    return found


def test_order_test_sees_what_it_should() -> None:
    tree = ast.parse(
        "import odkit\nfrom odkit import run\nimport odkit.cli\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from odkit.data.audit.report import Audit\n"
        "def f():\n    import odkit\n    from odkit.demo import x\n"
    )
    seen = [(name, inside) for _, name, inside in _odkit_imports(tree)]
    assert seen == [("odkit", False), ("run", False), ("cli", False), ("odkit", True), ("demo", True)]


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
    large = {path.name: path.stat().st_size for path in tracked() if path.stat().st_size > 4_500_000}
    assert not large, "a file of more than 4.5 MB"


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


def test_public_names_are_importable_one_by_one() -> None:
    """`from odkit import name` works as `odkit.name` does."""
    for name in odkit.__all__:
        scope: dict[str, object] = {}
        exec(f"from odkit import {name}", scope)
        assert scope[name] is getattr(importlib.import_module("odkit"), name)
