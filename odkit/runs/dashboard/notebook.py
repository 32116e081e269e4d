"""A run in a notebook: widgets that live, or one light output."""

import base64
import time
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from odkit.analysis import figures
from odkit.data import Dataset
from odkit.runs.dashboard.charts import (
    AP50_COLOR,
    AP_COLOR,
    LOSS_COLOR,
    Series,
    bar_svg,
    chart,
    picture_with_boxes,
    quiet_svg,
    smoothed,
    thinned,
)
from odkit.runs.dashboard.progress import (
    REQUESTS,
    Pace,
    Progress,
    closing_line,
    duration,
    epoch_line,
    number_text,
    requested,
    start_line,
    start_notes,
)
from odkit.runs.events import follow

if TYPE_CHECKING:
    from odkit.runs.run import Run

_COLUMNS = {
    "epoch": 0,
    "loss": 4,
    "ap": 3,
    "ap50": 3,
    "ap75": 3,
    "learning_rate": 6,
    "images_per_second": 1,
    "seconds": 1,
}  # of the table of epochs: digits after the point
_JUDGED = ("ap", "ap50", "ap75")  # of the validation images

# -- a notebook that nobody watches ------------------------------------------------------------------------------------


def show_static(run: "Run") -> None:
    """One output, updated once an epoch: nothing in it needs a kernel when the notebook is opened later."""
    progress = Progress()
    handle = _display(_bundle(_lines(run, progress)))
    for events in follow(run, interval=0.5):
        for event in events:
            progress.add(event)
        if any(event["event"] in ("start", "epoch", "evaluation", "warning") for event in events):
            handle.update(_bundle(_lines(run, progress)), raw=True)
    _show_final(run, handle)


def _lines(run: "Run", progress: Progress) -> str:
    lines = [f"{run.name}: {start_line(progress.start) if progress.start else 'starting'}"]
    lines += start_notes(progress.start)
    lines += [epoch_line(row, progress.epochs) for row in progress.rows]
    return "\n".join(lines + [f"warning: {event['message']}" for event in progress.warnings[-3:]])


def _display(shown: Any) -> Any:
    """Show a widget, or data by its type, as an output of the cell; returns the handle that updates it."""
    from IPython.display import display

    return display(shown, raw=isinstance(shown, dict), display_id=True)


def _bundle(text: str) -> dict[str, str]:
    return {"text/plain": text, "text/html": f"<pre>{escape(text)}</pre>"}


def _show_final(run: "Run", handle: Any) -> None:
    """The run's end as a figure (from two epochs on) and a table, in place of what was shown while it trained."""
    history = run.history()
    text = closing_line(run)
    if not history:
        handle.update(_bundle(text), raw=True)
        return
    table = {"text/plain": _table_text(history), "text/html": _table_html(text, history)}
    if len(history) == 1:  # which makes no curve
        handle.update(table, raw=True)
        return
    figure = figures.training_curves(history, title=run.name)
    picture = base64.b64encode(figure._repr_png_()).decode()
    handle.update({"image/png": picture, "text/plain": text}, raw=True)
    _display(table)


def _table_text(history: Sequence[dict[str, Any]]) -> str:
    return "\n".join(epoch_line(row, history[-1].get("epochs", len(history))) for row in history)


def _table_html(text: str, history: Sequence[dict[str, Any]]) -> str:
    judged = [row for row in history if row.get("ap") is not None]
    best = max(judged, key=lambda row: row["ap"], default=None)  # the first, where several are equal
    head = "".join(f"<th>{'val ' * (key in _JUDGED)}{key.replace('_', ' ')}</th>" for key in _COLUMNS)
    body = ""
    for row in history:
        bold = ' style="font-weight:bold"' if row is best else ""
        cells = "".join(f"<td>{number_text(row.get(key), digits)}</td>" for key, digits in _COLUMNS.items())
        body += f"<tr{bold}>{cells}</tr>"
    shown, many = "open" if len(history) <= 15 else "", "s" if len(history) > 1 else ""
    return (
        f"<p>{escape(text).replace(chr(10), '<br>')}</p>"
        f"<details {shown}><summary>{len(history)} epoch{many}</summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></details>"
    )


# -- JupyterLab --------------------------------------------------------------------------------------------------------


def show_widgets(run: "Run") -> None:
    """The live dashboard; at the run's end a figure and a table take its place, so that no dead widget is saved."""
    if not run.alive:
        _show_final(run, _display(_bundle(run.name)))
        return
    # matplotlib comes now: an interrupt in the middle of its import would leave it broken when the end is drawn
    _ = figures.training_curves
    board = Dashboard(run)
    handle = _display(board.widget)
    try:
        board.follow()
    finally:
        board.close()
        _show_final(run, handle)


class Dashboard:
    """The live view as widgets: `widget` to display, `follow()` to keep it up to date until the run ends."""

    def __init__(self, run: "Run") -> None:
        import ipywidgets as widgets

        self.run, self.progress, self.pace = run, Progress(), Pace(run, least=0.25)
        self.dataset: Dataset | None = None
        self.head, self.charts, self.facts, self.strip = (widgets.HTML() for _ in range(4))
        # Callbacks run in another thread of the kernel while the cell waits: they leave a request, and no more.
        buttons = []
        for text, what, icon, tip in (
            ("Stop now", "now", "stop", "Finish the step, save, end; resume() goes on exactly there"),
            ("Finish this epoch", "epoch", "flag-checkered", "Finish and judge the epoch, save, end"),
            ("Save a checkpoint", "checkpoint", "save", "Save after this step and go on"),
        ):
            button = widgets.Button(description=text, icon=icon, tooltip=tip, layout={"width": "160px"})
            button.on_click(lambda _, what=what: run.request(what))
            buttons.append(button)
        self.buttons = widgets.HBox(buttons)
        self.widget = widgets.VBox([self.head, self.buttons, self.charts, self.facts, self.strip])
        self.widget.add_class("odkit-dashboard")
        self.shown: dict[int, str] = {}
        self._draw_head()

    def follow(self) -> None:
        """Take in the run's events as they come and redraw, until the worker has ended."""
        next_charts = 0.0  # which cost a browser more than the head does
        drawn_step, drawn_judged, drawn_preview = -1, -1, None
        for events in follow(self.run, interval=self.pace.seconds):
            for event in events:
                self.progress.add(event)
            self._draw_head()
            now = time.monotonic()
            new = (self.progress.step, len(self.progress.judged)) != (drawn_step, drawn_judged)
            if new and now >= next_charts:
                self._draw_charts()
                self._draw_facts()
                drawn_step, drawn_judged = self.progress.step, len(self.progress.judged)
                next_charts = now + 1.0
            preview = (self.progress.preview.get("epoch"), self.progress.preview.get("time"))
            if self.progress.preview and preview != drawn_preview:
                self._draw_strip()
                drawn_preview = preview

    def close(self) -> None:
        """Close the widgets in kernel and browser."""
        self.pace.close()
        for widget in (*self.buttons.children, self.buttons, self.head, self.charts, self.facts, self.strip):
            widget.close()
        self.widget.close()

    def _set(self, widget: Any, html: str) -> None:
        if widget.value != html:  # each change is a message to the browser
            widget.value = html

    def _draw_head(self) -> None:
        at = self.progress
        if not at.start:
            line = "starting: the worker loads torch, the detector and the data"
        else:
            line = start_line(at.start)
        best = (
            f" &middot; best val AP {number_text(at.best['ap'])} in epoch {at.best['epoch']}"
            if at.best
            else ""
        )
        inside = at.step % at.steps_per_epoch if at.steps_per_epoch else 0
        whole = bool(at.last) and inside == 0
        epoch = min(at.last.get("epoch", len(at.rows) + 1), at.epochs or 1)
        bars = ""
        if at.start:
            share = 1.0 if whole else inside / at.steps_per_epoch
            judging = " &middot; judging" if whole and at.last.get("epoch", 0) > len(at.rows) else ""
            left = at.seconds_left()
            rest = f", {duration(left)} left" if left is not None else ""
            bars = bar_svg(
                f"epoch {epoch} of {at.epochs}{judging}",
                share,
                f"step {inside or at.steps_per_epoch * whole} of {at.steps_per_epoch}",
            )
            bars += bar_svg(
                "run", at.step / max(1, at.total_steps), f"step {at.step} of {at.total_steps}{rest}"
            )
        self._set(
            self.head,
            f"<b>{escape(self.run.name)}</b> {quiet_svg(escape(line) + best)}{bars}{self._request()}",
        )

    def _request(self) -> str:
        wish = REQUESTS.get(requested(self.run), "")
        return f'<div style="color:var(--jp-warn-color0,#b35900)">{wish}</div>'

    def _draw_charts(self) -> None:
        at, per_epoch = self.progress, max(1, self.progress.steps_per_epoch)
        epochs = np.array(at.steps) / per_epoch
        losses = np.array(at.losses)
        x, y = thinned(epochs, losses)
        series = [
            Series("", LOSS_COLOR, x, y, 0.35, 1.0),
            Series("loss", LOSS_COLOR, x, smoothed(y), 1.0, 2.0),
        ]
        judged = [event for event in at.judged if event["event"] == "evaluation"]
        curves = []
        for key, label, color in (("ap50", "AP50", AP50_COLOR), ("ap", "AP", AP_COLOR)):
            points = [(e["step"] / per_epoch, e[key]) for e in judged if e.get(key) is not None]
            if points:
                columns = np.array(points).T
                curves.append(Series(label, color, columns[0], columns[1], 1.0, 2.0, dots=True))
        until = max(float(epochs[-1]) if len(epochs) else 0.0, 1e-9)
        html = chart("Training loss", series, until) + chart("Validation AP", curves, until, top=1.0)
        self._set(self.charts, f'<div style="display:flex;flex-wrap:wrap;gap:12px">{html}</div>')

    def _draw_facts(self) -> None:
        at = self.progress
        if not at.last:
            return
        facts = {
            "learning rate": f"{at.last['learning_rate']:.3g}",
            "images/s": number_text(at.last["images_per_second"], 1),
            "data wait": f"{at.last['data_wait']:.0%}",
            "memory": f"{at.last['memory'] / 1e9:.2f} GB",
            "GPU memory": f"{at.last['device_memory'] / 1e9:.2f} GB" if at.last.get("device_memory") else "",
            "gradient norm": number_text(at.last["grad_norm"], 2),
            "last checkpoint": f"step {at.checkpoint['step']}" if at.checkpoint else "none yet",
        }
        cells = "".join(
            f'<span style="margin-right:22px">{quiet_svg(key)} <b>{escape(value)}</b></span>'
            for key, value in facts.items()
            if value
        )
        warnings = "".join(
            f'<div style="color:var(--jp-warn-color0,#b35900)">&#9888; {escape(event["message"])}</div>'
            for event in at.warnings[-3:]
        )
        notes = "".join(f"<div>{quiet_svg(escape(note))}</div>" for note in start_notes(at.start))
        self._set(self.facts, f'<div style="line-height:1.7">{cells}</div>{notes}{warnings}')

    def _draw_strip(self) -> None:
        if self.dataset is None:
            self.dataset = self.run.dataset(self.run.settings.val_split)
        preview = self.progress.preview
        pictures = "".join(
            picture_with_boxes(self.dataset, shown, self.run.class_names) for shown in preview["images"]
        )
        some = any(shown["boxes"] for shown in preview["images"])
        what = "predictions with a score of 0.3 and more" if some else "nothing found with a score of 0.3 yet"
        title = quiet_svg(f"Validation images after epoch {preview['epoch']}: {what} (dashed: ground truth)")
        self._set(self.strip, f'{title}<div style="display:flex;flex-wrap:wrap;gap:8px">{pictures}</div>')
