"""odkit: from a folder of labelled photographs to a fine-tuned detector and a look at every mistake it makes.

    import odkit as od

    dataset = od.load_dataset("photos")
    run = od.fine_tune(od.repaired(dataset))
    od.browse(run)

Importing odkit costs next to nothing: each public name, listed in `__init__.pyi`, loads its module at its first use.
"""

import lazy_loader

__version__ = "0.1.0"  # the one place; pyproject.toml reads it from here

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name in __all__ or name.startswith("__"):  # Python and its tools ask for dunder names by the dozen
        return _load(name)
    from difflib import get_close_matches

    near = get_close_matches(name, __all__, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "dir(odkit) lists what it has"
    raise AttributeError(f"odkit has no {name!r}; {hint}")
