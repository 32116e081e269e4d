"""A run in a terminal: a line an epoch and a bar."""

import sys
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from odkit.runs.dashboard.progress import Progress, epoch_line, number_text, start_line
from odkit.runs.events import epoch_rows, follow

if TYPE_CHECKING:
    from odkit.runs.run import Run


def show_terminal(run: "Run") -> None:
    """A bar over the steps and a line an epoch; without a terminal (a log file) only the lines."""
    progress = Progress()
    pending: dict[str, Any] = {}  # an epoch that waits for its evaluation, so that both make one line

    def say(text: str) -> None:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def say_pending() -> None:
        if pending:
            say(epoch_line(pending, progress.epochs))
            pending.clear()

    bar = tqdm(total=0, unit="step", dynamic_ncols=True, disable=None, leave=False, desc="starting")
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
                    say(start_line(event))
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
