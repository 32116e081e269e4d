"""torchvision imported without torch's compiler, which takes as long to import as torch itself.

One file of torchvision's imports it, for one question that is asked only where torchvision cannot compute RoIAlign with
its own operator (pytorch/vision, pull request 8436, which meant to avoid just that). While that file is imported, which
takes a millisecond, something stands in for the compiler that imports it as soon as it is used, by whomever.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_FILE = "torchvision.ops.roi_align"
_COMPILER = "torch._dynamo"
_ASKED = "torch._dynamo.utils"


class _StandIn(ModuleType):
    """A module that has what the compiler's own has, which is imported for it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_compiler(), name)


def _compiler() -> ModuleType:
    if isinstance(sys.modules.get(_ASKED), _StandIn):
        sys.modules.pop(_ASKED, None)
    return importlib.import_module(_ASKED)


def _is_compile_supported(device_type: str) -> bool:
    return bool(_compiler().is_compile_supported(device_type))


class _Finder(MetaPathFinder):
    """Finds that file alone, where Python would have found it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _FILE or _COMPILER in sys.modules:  # it is there already, or on its way
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        stand_in = _StandIn(_ASKED)
        vars(stand_in)["is_compile_supported"] = _is_compile_supported
        there = sys.modules.setdefault(_ASKED, stand_in)  # the compiler, if another thread imports it by now
        try:
            super().exec_module(module)
        finally:
            if there is stand_in and sys.modules.get(_ASKED) is stand_in:
                del sys.modules[_ASKED]


def without_compiler() -> None:
    """From now on torchvision, unless it is imported already, is imported without torch's compiler."""
    sys.meta_path.insert(0, _Finder())
