"""Who looks at this process: a browser through a Jupyter server, a terminal, or nobody."""

import json
import os
import sys
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class FrontEnd:
    """The Jupyter server whose kernel this process is: a browser is looking.

    Attributes:
        pid: Process id of the Jupyter server.
        base_url: Path under which it serves, "/" or "/some/prefix/".
        url: Its own address as seen from this machine.
        token: Its token, "" where it asks for a password instead.
    """

    pid: int
    base_url: str
    url: str
    token: str

    def path(self, name: str) -> str:
        """Path, on the address the browser already uses, of what jupyter-server-proxy has under a name."""
        return f"{self.base_url}{name}/"

    def serves(self, name: str) -> bool:
        """False if this Jupyter server certainly has nothing under that name."""
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/{name}/", headers={"Authorization": f"token {self.token}"}
        )
        # a proxy named in the environment neither reaches this machine's port nor may see the token
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=5) as answer:
                return bool(answer.status < 400)
        except urllib.error.HTTPError as error:
            return error.code != 404
        except OSError:
            return True  # a certificate of its own, a socket in place of a port: not known, so the browser may try


def front_end() -> FrontEnd | None:
    """The Jupyter server that shows this kernel's output; None in a script, under nbconvert or nbval, in CI.

    A kernel is told its parent's process id (JPY_PARENT_PID), and a Jupyter server writes its address into
    Jupyter's runtime folder under its own process id. Where the two agree a front end is there; nbconvert and nbval
    start kernels too, but are no servers. ODKIT_HEADLESS=1 says there is none whatever is found.
    """
    if os.environ.get("ODKIT_HEADLESS", "0") not in ("", "0") or "ipykernel" not in sys.modules:
        return None
    parent = os.environ.get("JPY_PARENT_PID", "")
    if not parent.isdigit() or not psutil.pid_exists(int(parent)):
        return None
    from jupyter_core.paths import jupyter_runtime_dir

    try:
        info = json.loads(Path(jupyter_runtime_dir(), f"jpserver-{parent}.json").read_text("utf-8"))
        return FrontEnd(int(parent), info["base_url"], info["url"], info.get("token", ""))
    except (OSError, ValueError, KeyError):
        return None


def in_notebook() -> bool:
    """True in a Jupyter kernel, watched or not."""
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> Any:
    """A tqdm bar where somebody looks, and an invisible one where nobody does.

    In JupyterLab it is a widget, in a terminal a line on stderr. A log file gets none, and neither does a notebook
    executed without a browser: what is shown there is saved, and a bar that stands still for ever tells nothing.

    Args:
        items: What to go through; without it the caller moves the bar.
        **options: tqdm's own: total, desc, unit, and `delay`, the seconds before a bar is shown at all.
    """
    from tqdm import tqdm

    if not in_notebook():  # None: tqdm itself looks whether stderr is a terminal
        return tqdm(items, disable=None, leave=False, **options)
    if front_end() is None:
        return tqdm(items, disable=True, leave=False, **options)
    return _widget_bar()(items, leave=False, **options)


@lru_cache
def _widget_bar() -> Any:
    from tqdm.notebook import tqdm

    class WidgetBar(tqdm):  # type: ignore[type-arg]
        """tqdm's widget, which goes when it is closed.

        Its own `disp` refers back to it, so it would wait for the garbage collector, and a kernel's interrupt that
        arrives while that runs is raised in its finalizer, where Python ignores it: the cell would go on.
        """

        def close(self) -> None:
            super().close()
            self.disp = lambda *_, **__: None

    return WidgetBar
