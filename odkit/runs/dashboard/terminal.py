"""A run in a terminal: a line an epoch and a bar; in a log, a line every half minute as well."""

import math
import sys
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from odkit.runs.dashboard.progress import (
    Progress,
    epoch_line,
    number_text,
    start_line,
    start_notes,
    step_line,
)
from odkit.runs.events import epoch_rows, follow

if TYPE_CHECKING:
    from odkit.runs.run import Run


LINE_EVERY = 30.0


def show_terminal(run: "Run", *, line_every: float = LINE_EVERY) -> None:
    """A bar over the steps and a line an epoch; into a log, in place of the bar, the first step and later ones.

    Args:
        run: Alive or dead.
        line_every: Seconds, by the events' own time, between two lines of steps in a log.
    """
    progress = Progress()
    unsaid: list[dict[str, Any]] = []  # steps since the last line of them
    said = -math.inf  # when that was
    pending: dict[str, Any] = {}  # an epoch that waits for its evaluation, so that both make one line

    def say(text: str) -> None:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def say_pending() -> None:
        if pending:
            say(epoch_line(pending, progress.epochs))
            pending.clear()

    bar = tqdm(total=0, unit="step", dynamic_ncols=True, disable=None, leave=False, desc="starting")
    to_a_log = bar.disable or not sys.stdout.isatty()
    with bar:
        for events in follow(run, interval=0.3):
            for event in events:
                progress.add(event)
                kind = event["event"]
                if kind in ("epoch", "evaluation"):
                    pending.update(epoch_rows([event])[0])
                if kind != "epoch":
                    say_pending()
                if kind == "start":
                    bar.reset()
                    bar.initial = bar.n = progress.step
                    for line in (start_line(event), *start_notes(event)):
                        say(line)
                    unsaid.clear()
                    said = -math.inf
                elif kind == "step" and to_a_log:
                    unsaid.append(event)
                    if abs(event["time"] - said) >= line_every:  # clocks are also set back
                        say(step_line(unsaid, progress))
                        unsaid.clear()
                        said = event["time"]
                elif kind == "warning":
                    say(f"warning: {event['message']}")
            _draw_bar(bar, progress)
        say_pending()


def _draw_bar(bar: "tqdm[Any]", progress: Progress) -> None:
    if bar.disable or not progress.start:
        return
    bar.total = progress.total_steps or None
    epoch = progress.last.get("epoch", len(progress.rows) + 1)
    bar.set_description_str(f"epoch {min(epoch, progress.epochs)}/{progress.epochs}", refresh=False)
    if progress.last:
        figures = {
            "loss": number_text(progress.last["loss"]),
            "lr": f"{progress.last['learning_rate']:.2g}",
            "images/s": number_text(progress.last["images_per_second"], 1),
        }
        bar.set_postfix(figures, refresh=False)
    bar.update(progress.step - bar.n)
    bar.refresh()
