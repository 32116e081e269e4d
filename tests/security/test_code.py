"""What the code never does, whatever it is given: read off the code itself."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
FILES = sorted([*PROJECT.glob("odkit/**/*.py"), *PROJECT.glob("container/*.py")])

# Whatever unpickles runs what a file says; none is imported but for the error that torch raises of one.
UNPICKLE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pandas"}
FOR_ITS_ERROR = {"odkit/detection/imported.py", "odkit/training/checkpoints.py"}
# By which code, a shell's line or an archive's own paths come to be what runs or is written.
NEVER = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "pty.spawn",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all",
}
NEVER_METHODS = {"extractall", "unpack_archive"}


def name_of(node: ast.AST) -> str:
    """ "torch.load" of torch.load(...)."""
    return (
        f"{name_of(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    )


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield name_of(node.func), node


def given(call: ast.Call, name: str) -> object:
    """What a call gives an argument by name: a constant, or how it is written."""
    for one in call.keywords:
        if one.arg == name:
            return one.value.value if isinstance(one.value, ast.Constant) else ast.unparse(one.value)
    return None


def loaders(tree: ast.AST, called: object) -> set[str]:
    """The names that end in Loader where one is given, or in what the file says that its name means."""
    said = [str(called)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            said += [ast.unparse(node.value) for target in targets if name_of(target) == called]
    return set(re.findall(r"\w*Loader\b", " ".join(said))) or {"none"}


def faults(place: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if {name.partition(".")[0] for name in names} & UNPICKLE and place not in FOR_ITS_ERROR:
            yield f"imports {names}"
        if (
            isinstance(node, ast.Attribute)
            and name_of(node.value) == "pickle"
            and node.attr != "UnpicklingError"
        ):
            yield f"{name_of(node)} is more than its error"
    for name, call in calls(tree):
        last = name.rpartition(".")[2]
        if name in NEVER or last in NEVER_METHODS:
            yield f"{name}()"
        if name == "torch.load" and given(call, "weights_only") is not True:
            yield "torch.load() without weights_only=True"
        if name in ("torch.hub.load", "torch.jit.load", "torch.package.PackageImporter"):
            yield f"{name}() runs code"
        if last in ("load", "NpzFile", "read_array") and name.startswith("np.") and last != "load":
            if given(call, "allow_pickle") is not False:
                yield f"{name}() without allow_pickle=False"
        elif name == "np.load" and given(call, "allow_pickle") not in (False, None):
            yield "np.load() with pickles"
        if name == "yaml.load" and not loaders(tree, given(call, "Loader")) <= {"BaseLoader", "CBaseLoader"}:
            yield f"yaml.load() with {given(call, 'Loader')}"
        if given(call, "shell") not in (None, False):
            yield f"{name}() in a shell"
        if given(call, "trust_remote_code") not in (None, False):
            yield f"{name}() runs what it downloads"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_nothing_that_is_read_is_run(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert list(faults(str(path.relative_to(PROJECT)), tree)) == []


@pytest.mark.parametrize("path", sorted(PROJECT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_nor_in_the_notebooks(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert list(faults(path.name, ast.parse("".join(cell["source"])))) == []


@pytest.mark.parametrize(
    "line",
    [
        *(
            "import pickle",
            "from joblib import load",
            "torch.load(path)",
            "torch.load(path, weights_only=False)",
        ),
        *("LOADER = yaml.Loader; yaml.load(text, Loader=LOADER)", "yaml.load(text, LOADER)"),
        *("yaml.load(text, Loader=yaml.Loader)", "np.load(path, allow_pickle=True)", "os.system('ls')"),
        *("subprocess.run('ls', shell=True)", "archive.extractall(folder)", "np.lib.format.read_array(file)"),
        *("eval(text)", "AutoModel.from_pretrained(name, trust_remote_code=True)", "pickle.loads(data)"),
    ],
)
def test_these_would_be_found(line: str) -> None:
    assert list(faults("odkit/some.py", ast.parse(line)))
