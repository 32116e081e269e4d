"""odkit: from a folder of labelled photographs to a fine-tuned detector and a look at every mistake it makes.

    import odkit as od

    dataset = od.load_dataset("photos")
    run = od.fine_tune(dataset.repaired())
    od.browse(run)

Importing odkit costs next to nothing: each public name below loads its module when it is first used (PEP 562).
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"  # the one place; pyproject.toml reads it from here

# The same names three times over, for three readers: this block for editors and mypy, _MODULES for Python, __all__
# for `import *`. A test holds them together.
if TYPE_CHECKING:
    from odkit import boxes as boxes
    from odkit import doctor as doctor
    from odkit import figures as figures
    from odkit.audit import Audit as Audit
    from odkit.audit import Finding as Finding
    from odkit.audit import audit as audit
    from odkit.audit import repaired as repaired
    from odkit.bridge import from_fiftyone as from_fiftyone
    from odkit.bridge import to_fiftyone as to_fiftyone
    from odkit.browse import browse as browse
    from odkit.comparison import Comparison as Comparison
    from odkit.comparison import compare as compare
    from odkit.dashboard import show_run as show_run
    from odkit.dataset import Dataset as Dataset
    from odkit.dataset import concatenate as concatenate
    from odkit.demo import demo_dataset as demo_dataset
    from odkit.demo import demo_faults as demo_faults
    from odkit.demo import write_demo as write_demo
    from odkit.detectors import Detector as Detector
    from odkit.detectors import build_detector as build_detector
    from odkit.detectors import catalogue as catalogue
    from odkit.detectors import load_detector as load_detector
    from odkit.evaluation import Evaluation as Evaluation
    from odkit.evaluation import evaluate as evaluate
    from odkit.exporters import export_mlflow as export_mlflow
    from odkit.exporters import export_tensorboard as export_tensorboard
    from odkit.formats import convert as convert
    from odkit.formats import load_dataset as load_dataset
    from odkit.formats import write_dataset as write_dataset
    from odkit.held_out import predict_held_out as predict_held_out
    from odkit.mistakes import mistakes as mistakes
    from odkit.prediction import predict as predict
    from odkit.predictions import Predictions as Predictions
    from odkit.run import Run as Run
    from odkit.run import fine_tune as fine_tune
    from odkit.run import list_runs as list_runs
    from odkit.run import open_run as open_run
    from odkit.settings import Settings as Settings
    from odkit.similar import near_duplicates as near_duplicates
    from odkit.suspects import corrected as corrected
    from odkit.suspects import fault_ranks as fault_ranks

# public name -> the module it stands in; a name that is its own module is that module
_MODULES = {
    "Audit": "odkit.audit",
    "Comparison": "odkit.comparison",
    "Dataset": "odkit.dataset",
    "Detector": "odkit.detectors",
    "Evaluation": "odkit.evaluation",
    "Finding": "odkit.audit",
    "Predictions": "odkit.predictions",
    "Run": "odkit.run",
    "Settings": "odkit.settings",
    "audit": "odkit.audit",
    "boxes": "odkit",
    "browse": "odkit.browse",
    "build_detector": "odkit.detectors",
    "catalogue": "odkit.detectors",
    "compare": "odkit.comparison",
    "concatenate": "odkit.dataset",
    "convert": "odkit.formats",
    "corrected": "odkit.suspects",
    "demo_dataset": "odkit.demo",
    "demo_faults": "odkit.demo",
    "doctor": "odkit",
    "evaluate": "odkit.evaluation",
    "export_mlflow": "odkit.exporters",
    "export_tensorboard": "odkit.exporters",
    "fault_ranks": "odkit.suspects",
    "figures": "odkit",
    "fine_tune": "odkit.run",
    "from_fiftyone": "odkit.bridge",
    "list_runs": "odkit.run",
    "load_dataset": "odkit.formats",
    "load_detector": "odkit.detectors",
    "mistakes": "odkit.mistakes",
    "near_duplicates": "odkit.similar",
    "open_run": "odkit.run",
    "predict": "odkit.prediction",
    "predict_held_out": "odkit.held_out",
    "repaired": "odkit.audit",
    "show_run": "odkit.dashboard",
    "to_fiftyone": "odkit.bridge",
    "write_dataset": "odkit.formats",
    "write_demo": "odkit.demo",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(_unknown(name))
    from importlib import import_module

    if _MODULES[name] == __name__:
        return import_module(f"{__name__}.{name}")  # which also sets it on this package
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _unknown(name: str) -> str:
    if name.startswith("__"):  # Python and its tools ask for such names by the dozen
        return f"module 'odkit' has no attribute {name!r}"
    from difflib import get_close_matches

    near = get_close_matches(name, _MODULES, n=1, cutoff=0.5)
    return f"odkit has no {name!r}" + (
        f"; did you mean {near[0]!r}?" if near else "; dir(odkit) lists what it has"
    )


class _Package(ModuleType):
    """The package, on which the functions `audit` and `browse` win over the modules of the same name.

    Importing a submodule sets it as an attribute of its package: without this, `od.audit` would be the function or
    the module, depending on what was imported before. `from odkit.audit import ...` reaches the module either way.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _MODULES.get(name) == f"{__name__}.{name}":
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
