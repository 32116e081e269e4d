"""torchvision imported without torch's compiler, which takes as long to import as torch itself.

torchvision's RoIAlign imports it for one question, which it asks only where it cannot compute with its own operator
(pytorch/vision, pull request 8436, which meant to avoid just that). Here the question stands in for the compiler while
torchvision is imported, and imports it if it is ever asked.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_COMPILER = "torch._dynamo"


class _Finder(MetaPathFinder):
    """Finds torchvision alone, where Python would have found it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        if _COMPILER in sys.modules:  # it is there already, or on its way
            super().exec_module(module)
            return
        part = f"{_COMPILER}.utils"
        instead = ModuleType(part)
        vars(instead)["is_compile_supported"] = _is_compile_supported
        sys.modules[part] = instead
        try:
            super().exec_module(module)
        finally:
            if sys.modules.get(part) is instead:
                del sys.modules[part]


def _is_compile_supported(device_type: str) -> bool:
    compiler = importlib.import_module(f"{_COMPILER}.utils")
    return bool(compiler.is_compile_supported(device_type))


def without_compiler() -> None:
    """From now on torchvision, unless it is imported already, is imported without torch's compiler."""
    sys.meta_path.insert(0, _Finder())
