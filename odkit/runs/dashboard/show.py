"""A run shown until it ends, in whatever front end is there."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from odkit.runs.dashboard.notebook import show_static, show_widgets
from odkit.runs.dashboard.progress import FrontEnd, requested, where
from odkit.runs.dashboard.terminal import show_terminal
from odkit.system import frontend

if TYPE_CHECKING:
    from odkit.runs.run import Run


def front_end() -> FrontEnd:
    """Who looks: a browser on JupyterLab ("lab"), a notebook that nobody watches or that has no widgets, or a terminal.

    ODKIT_HEADLESS=1 makes any notebook count as unwatched.
    """
    if not frontend.in_notebook():
        return "terminal"
    return "lab" if frontend.front_end() is not None else "notebook-headless"


def show_run(run: "Run") -> None:
    """Show a run until it ends; at once, where it has ended. What is shown depends on `front_end()`.

    Interrupting (Ctrl-C, the kernel's stop button) ends the showing, not the run, and says how to attach again.
    """
    shows: dict[FrontEnd, Callable[[Run], None]] = {
        "lab": show_widgets,
        "notebook-headless": show_static,
        "terminal": show_terminal,
    }
    try:
        shows[front_end()](run)
    except KeyboardInterrupt:
        say_unwatched(run)


def say_unwatched(run: "Run") -> None:
    """Say how to attach to a run again that nobody watches any more; nothing where it has ended."""
    if not run.alive:
        return
    place = where(run)
    meanwhile = "saves and ends by itself" if requested(run) in ("now", "epoch") else "goes on"
    print(
        f"Not watching any more; {run.name} {meanwhile} in the background.\n"
        f"  watch again:    od.open_run({place!r}).wait()    or   odkit show {place}\n"
        f"  stop and save:  od.open_run({place!r}).stop()    or   odkit stop {place}",
        flush=True,
    )
