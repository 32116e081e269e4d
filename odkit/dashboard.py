"""Showing a run while it trains: widgets in JupyterLab, one light output in a headless notebook, a bar in a terminal.

All three only read the run's events and leave requests in its folder, so they show the whole history from step 0 in
any kernel or terminal that attaches, and the run does not notice who looks.
"""

import base64
import importlib
import io
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from odkit import watching
from odkit.dataset import Dataset
from odkit.run import Run, epoch_rows, follow

FrontEnd = Literal["lab", "notebook-headless", "terminal"]

REQUESTS = {
    "now": "Stop asked for: the worker finishes its step, saves and ends.",
    "epoch": "Stop asked for: the worker finishes this epoch, judges it, saves and ends.",
    "checkpoint": "Checkpoint asked for: saved after this step.",
}
SHARE_OF_A_CORE = 0.03  # that drawing may take from training on a small machine


def front_end() -> FrontEnd:
    """Who looks: a browser on JupyterLab ("lab"), a notebook that nobody watches or that has no widgets, or a terminal.

    ODKIT_HEADLESS=1 makes any notebook count as unwatched.
    """
    if not watching.in_notebook():
        return "terminal"
    return "lab" if watching.front_end() is not None else "notebook-headless"


def show_run(run: Run) -> None:
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


def where(run: Run) -> str:
    """The shortest path that opens a run from here."""
    here = Path.cwd()
    return str(run.path.relative_to(here)) if run.path.is_relative_to(here) else str(run.path)


def requested(run: Run) -> str:
    """What the worker is asked for and has not done yet: "now", "epoch", "checkpoint", or "" for nothing."""
    try:
        return (run.path / "stop").read_text().strip()
    except OSError:
        return ""


# -- what the events amount to -----------------------------------------------------------------------------------------


@dataclass
class Progress:
    """A run's events so far, added up: what every way of showing a run draws from."""

    start: dict[str, Any] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)  # the first step event since the newest start
    last: dict[str, Any] = field(default_factory=dict)  # the newest step event
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # of each step; NaN where it was not finite
    judged: list[dict[str, Any]] = field(default_factory=list)  # epoch and evaluation events
    warnings: list[dict[str, Any]] = field(default_factory=list)
    preview: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0  # how many the run will have; a time budget or a resume may change it

    def add(self, event: dict[str, Any]) -> None:
        """Take one event in; a start takes back what came after the step it starts from."""
        kind = event["event"]
        if kind == "start":
            self._take_back(event.get("from_step", 0))
            self.start = {**self.start, **event}
            self.epochs = event.get("epochs", self.epochs)
            self.end, self.first = {}, {}
        elif kind == "step":
            self.steps.append(event["step"])
            self.losses.append(math.nan if event["loss"] is None else event["loss"])
            self.first, self.last = self.first or event, event
        elif kind in ("epoch", "evaluation"):
            self.judged.append(event)
            self.epochs = event.get("epochs", self.epochs)
        elif kind == "warning":
            self.warnings.append(event)
        elif kind in ("preview", "checkpoint", "end"):
            setattr(self, kind, event)

    def _take_back(self, step: int) -> None:
        keep = sum(1 for taken in self.steps if taken <= step)
        del self.steps[keep:], self.losses[keep:]
        self.judged = [event for event in self.judged if event["step"] <= step]
        if self.preview.get("step", 0) > step:
            self.preview = {}
        if self.last.get("step", 0) > step:
            self.last = {}

    @property
    def step(self) -> int:
        return self.steps[-1] if self.steps else int(self.start.get("from_step", 0))

    @property
    def steps_per_epoch(self) -> int:
        return int(self.start.get("steps_per_epoch", 0))

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row an epoch, as `Run.history()` gives."""
        return epoch_rows(self.judged)

    @property
    def best(self) -> dict[str, Any]:
        """The evaluation with the highest AP; empty before the first."""
        judged = [event for event in self.judged if event["event"] == "evaluation"]
        return max(judged, key=lambda event: event["ap"] or 0.0, default={})

    def seconds_left(self) -> float | None:
        """Estimated seconds to the end, judging included; None before there is anything to go by."""
        done = self.step - int(self.first.get("step", self.step))
        if done < 3 or not self.total_steps:
            return None
        latest = max(float(event["time"]) for event in (self.last, *self.judged[-1:]))
        spent = latest - float(self.first["time"])
        return max(0.0, spent / done * (self.total_steps - self.step))


def duration(seconds: float | None) -> str:
    """Seconds as "1:02:03" or "2:03"; "?" for None."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One epoch as a line of text."""
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", f"loss {_number(row.get('loss'))}"]
    if row.get("ap") is not None:
        parts.append(
            f"AP {_number(row['ap'])}  AP50 {_number(row.get('ap50'))}{' *' if row.get('best') else '  '}"
        )
    if row.get("images_per_second"):
        parts.append(f"{row['images_per_second']:.1f} images/s")
    if row.get("seconds"):
        parts.append(duration(row["seconds"]))
    return "  ".join(parts)


def closing_line(run: Run) -> str:
    """What became of the run, and how to go on."""
    state = run.state
    if state in ("stopped", "died", "failed") and run.checkpoints():
        return f"{run!r}\nSaved; od.open_run({where(run)!r}).resume() or `odkit resume {where(run)}` goes on."
    return repr(run)


# -- a terminal --------------------------------------------------------------------------------------------------------


def show_terminal(run: Run) -> None:
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
                    say(_start_line(event))
                elif kind == "warning":
                    say(f"warning: {event['message']}")
            _draw_bar(bar, progress)
        say_pending()


def _start_line(event: dict[str, Any]) -> str:
    if event.get("rollback"):
        return f"back at step {event['from_step']}"
    choices = event.get("choices", {})
    what = [f"{event.get('settings', {}).get('detector', 'detector')} on {event.get('device', '?')}"]
    if choices:
        what.append(f"batches of {choices['batch']}, {choices['image_size']} px, {choices['precision']}")
        what.append(f"{choices['optimizer']} at {choices['learning_rate']:.3g}")
    resumed = f"resumed at step {event['from_step']}: " if event.get("resumed") else ""
    return resumed + ", ".join(what)


def _draw_bar(bar: "tqdm[Any]", progress: Progress) -> None:
    if bar.disable or not progress.start:
        return
    bar.total = progress.total_steps or None
    epoch = progress.last.get("epoch", len(progress.rows) + 1)
    bar.set_description_str(f"epoch {min(epoch, progress.epochs)}/{progress.epochs}", refresh=False)
    if progress.last:
        figures = {
            "loss": _number(progress.last["loss"]),
            "lr": f"{progress.last['learning_rate']:.2g}",
            "images/s": _number(progress.last["images_per_second"], 1),
        }
        bar.set_postfix(figures, refresh=False)
    bar.update(progress.step - bar.n)
    bar.refresh()


# -- a notebook that nobody watches ------------------------------------------------------------------------------------


def show_static(run: Run) -> None:
    """One output, updated once an epoch: nothing in it needs a kernel when the notebook is opened later."""
    progress = Progress()
    handle = _display(_bundle(_lines(run, progress)))
    for events in follow(run, interval=0.5):
        for event in events:
            progress.add(event)
        if any(event["event"] in ("start", "epoch", "evaluation", "warning") for event in events):
            handle.update(_bundle(_lines(run, progress)), raw=True)
    _show_final(run, handle)


def _lines(run: Run, progress: Progress) -> str:
    lines = [f"{run.name}: {_start_line(progress.start) if progress.start else 'starting'}"]
    lines += [epoch_line(row, progress.epochs) for row in progress.rows]
    return "\n".join(lines + [f"warning: {event['message']}" for event in progress.warnings[-3:]])


def _display(shown: Any) -> Any:
    """Show a widget, or data by its type, as an output of the cell; returns the handle that updates it."""
    from IPython.display import display

    return display(shown, raw=isinstance(shown, dict), display_id=True)


def _bundle(text: str) -> dict[str, str]:
    return {"text/plain": text, "text/html": f"<pre>{escape(text)}</pre>"}


def _show_final(run: Run, handle: Any) -> None:
    """The run's end as a figure and a table, in place of what was shown while it trained."""
    history = run.history()
    text = closing_line(run)
    if not history:
        handle.update(_bundle(text), raw=True)
        return
    import odkit

    figure = odkit.figures.training_curves(history, title=run.name)
    picture = base64.b64encode(figure._repr_png_()).decode()
    handle.update({"image/png": picture, "text/plain": text}, raw=True)
    _display({"text/plain": _table_text(history), "text/html": _table_html(text, history)})


_COLUMNS = {
    "epoch": 0,
    "loss": 4,
    "ap": 3,
    "ap50": 3,
    "ap75": 3,
    "learning_rate": 6,
    "images_per_second": 1,
    "seconds": 1,
}


def _table_text(history: Sequence[dict[str, Any]]) -> str:
    return "\n".join(epoch_line(row, history[-1].get("epochs", len(history))) for row in history)


def _table_html(text: str, history: Sequence[dict[str, Any]]) -> str:
    judged = [row for row in history if row.get("ap") is not None]
    best = max(judged, key=lambda row: row["ap"], default=None)  # the first, where several are equal
    head = "".join(f"<th>{key.replace('_', ' ')}</th>" for key in _COLUMNS)
    body = ""
    for row in history:
        bold = ' style="font-weight:bold"' if row is best else ""
        cells = "".join(f"<td>{_number(row.get(key), digits)}</td>" for key, digits in _COLUMNS.items())
        body += f"<tr{bold}>{cells}</tr>"
    shown, many = "open" if len(history) <= 15 else "", "s" if len(history) > 1 else ""
    return (
        f"<p>{escape(text).replace(chr(10), '<br>')}</p>"
        f"<details {shown}><summary>{len(history)} epoch{many}</summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></details>"
    )


# -- JupyterLab --------------------------------------------------------------------------------------------------------


def show_widgets(run: Run) -> None:
    """The live dashboard; at the run's end a figure and a table take its place, so that no dead widget is saved."""
    if not run.alive:
        _show_final(run, _display(_bundle(run.name)))
        return
    # matplotlib comes now: an interrupt in the middle of its import would leave it broken when the end is drawn
    importlib.import_module("odkit.figures")
    board = Dashboard(run)
    handle = _display(board.widget)
    try:
        board.follow()
    finally:
        board.close()
        _show_final(run, handle)


class Dashboard:
    """The live view as widgets: `widget` to display, `follow()` to keep it up to date until the run ends."""

    def __init__(self, run: Run) -> None:
        import ipywidgets as widgets

        self.run, self.progress = run, Progress()
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
        next_charts = 0.0
        drawn_step, drawn_judged, drawn_preview = -1, -1, None
        for events in follow(self.run, interval=0.25):
            for event in events:
                self.progress.add(event)
            self._draw_head()
            now = time.monotonic()
            new = (self.progress.step, len(self.progress.judged)) != (drawn_step, drawn_judged)
            if new and now >= next_charts:
                self._draw_charts()
                self._draw_facts()
                drawn_step, drawn_judged = self.progress.step, len(self.progress.judged)
                next_charts = now + max(1.0, (time.monotonic() - now) / SHARE_OF_A_CORE)
            preview = (self.progress.preview.get("epoch"), self.progress.preview.get("time"))
            if self.progress.preview and preview != drawn_preview:
                self._draw_strip()
                drawn_preview = preview

    def close(self) -> None:
        """Close the widgets in kernel and browser."""
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
            line = _start_line(at.start)
        best = f" &middot; best AP {_number(at.best['ap'])} in epoch {at.best['epoch']}" if at.best else ""
        inside = at.step % at.steps_per_epoch if at.steps_per_epoch else 0
        whole = bool(at.last) and inside == 0
        epoch = min(at.last.get("epoch", len(at.rows) + 1), at.epochs or 1)
        bars = ""
        if at.start:
            share = 1.0 if whole else inside / at.steps_per_epoch
            judging = " &middot; judging" if whole and at.last.get("epoch", 0) > len(at.rows) else ""
            left = at.seconds_left()
            rest = f", {duration(left)} left" if left is not None else ""
            bars = _bar(
                f"epoch {epoch} of {at.epochs}{judging}",
                share,
                f"step {inside or at.steps_per_epoch * whole} of {at.steps_per_epoch}",
            )
            bars += _bar("run", at.step / max(1, at.total_steps), f"step {at.step} of {at.total_steps}{rest}")
        self._set(
            self.head, f"<b>{escape(self.run.name)}</b> {_quiet(escape(line) + best)}{bars}{self._request()}"
        )

    def _request(self) -> str:
        wish = REQUESTS.get(requested(self.run), "")
        return f'<div style="color:var(--jp-warn-color0,#b35900)">{wish}</div>'

    def _draw_charts(self) -> None:
        at, per_epoch = self.progress, max(1, self.progress.steps_per_epoch)
        epochs = np.array(at.steps) / per_epoch
        losses = np.array(at.losses)
        x, y = thinned(epochs, losses)
        series = [Series("", _LOSS, x, y, 0.35, 1.0), Series("loss", _LOSS, x, smoothed(y), 1.0, 2.0)]
        judged = [event for event in at.judged if event["event"] == "evaluation"]
        curves = []
        for key, label, color in (("ap50", "AP50", _AP50), ("ap", "AP", _AP)):
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
            "images/s": _number(at.last["images_per_second"], 1),
            "data wait": f"{at.last['data_wait']:.0%}",
            "memory": f"{at.last['memory'] / 1e9:.2f} GB",
            "GPU memory": f"{at.last['device_memory'] / 1e9:.2f} GB" if at.last.get("device_memory") else "",
            "gradient norm": _number(at.last["grad_norm"], 2),
            "last checkpoint": f"step {at.checkpoint['step']}" if at.checkpoint else "none yet",
        }
        cells = "".join(
            f'<span style="margin-right:22px">{_quiet(key)} <b>{escape(value)}</b></span>'
            for key, value in facts.items()
            if value
        )
        warnings = "".join(
            f'<div style="color:var(--jp-warn-color0,#b35900)">&#9888; {escape(event["message"])}</div>'
            for event in at.warnings[-3:]
        )
        self._set(self.facts, f'<div style="line-height:1.7">{cells}</div>{warnings}')

    def _draw_strip(self) -> None:
        if self.dataset is None:
            self.dataset = self.run.dataset(self.run.settings.val_split)
        preview = self.progress.preview
        pictures = "".join(
            picture_with_boxes(self.dataset, shown, self.run.class_names) for shown in preview["images"]
        )
        some = any(shown["boxes"] for shown in preview["images"])
        what = "predictions with a score of 0.3 and more" if some else "nothing found with a score of 0.3 yet"
        title = _quiet(f"Held-out images after epoch {preview['epoch']}: {what} (dashed: ground truth)")
        self._set(self.strip, f'{title}<div style="display:flex;flex-wrap:wrap;gap:8px">{pictures}</div>')


# -- drawing by hand: a few lines of SVG cost a hundredth of a matplotlib figure, and training has the cores ----------

_LOSS, _AP, _AP50 = "#d55e00", "#0072b2", "#56b4e9"
_INK = "var(--jp-ui-font-color1,#22272e)"
_FAINT = "var(--jp-ui-font-color2,#6b7480)"
_RULE = "var(--jp-border-color2,#e3e6ea)"


def _quiet(html: str) -> str:
    return f'<span style="color:{_FAINT}">{html}</span>'


def _bar(label: str, share: float, note: str) -> str:
    share = min(1.0, max(0.0, share))
    return (
        '<div style="display:flex;align-items:center;gap:10px;line-height:1.5">'
        f'<span style="width:150px">{label}</span>'
        f'<span style="flex:0 1 420px;height:8px;border-radius:4px;background:{_RULE}">'
        f'<span style="display:block;height:8px;border-radius:4px;background:{_AP};width:{share:.1%}"></span></span>'
        f"{_quiet(note)}</div>"
    )


@dataclass
class Series:
    """One line of a chart."""

    label: str
    color: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    opacity: float = 1.0
    width: float = 2.0
    dots: bool = False


def chart(title: str, series: Sequence[Series], until: float, *, top: float | None = None) -> str:
    """A line chart over epochs as SVG.

    Args:
        title: Heading.
        series: The lines; values that are not finite are left out.
        until: Right end of the x axis, in epochs.
        top: Upper end of the y axis; None: the largest value drawn.
    """
    width, height, left, right, above, below = 470, 210, 44, 12, 30, 34
    values = np.concatenate([np.zeros(0), *(s.y[np.isfinite(s.y)] for s in series)])
    if not len(values):
        return _svg(
            width, height, _text(left, 18, title, bold=True) + _text(left, 100, "nothing yet", _FAINT)
        )
    # a first step can be ten times the rest: the axis then ends where nearly all of the values do
    high = top if top is not None else float(min(values.max(), np.quantile(values, 0.97) * 1.3)) or 1.0
    across, down = width - left - right, height - above - below

    def place_x(value: Any) -> Any:
        return left + across * value / until

    def place_y(value: Any) -> Any:
        return above + down * (1 - np.minimum(value, high) / high)

    parts = [_text(left, 18, title, bold=True)]
    for tick in ticks(high):
        y = float(place_y(tick))
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_RULE}"/>')
        parts.append(_text(left - 6, y + 4, f"{tick:g}", _FAINT, anchor="end"))
    foot = height - below + 16
    parts += [
        _text(float(place_x(tick)), foot, f"{tick:g}", _FAINT, anchor="middle") for tick in ticks(until)
    ]
    parts.append(_text(width - right, height - 4, "epochs", _FAINT, anchor="end"))
    label_x = width - right
    for s in reversed([s for s in series if s.label]):
        last = s.y[np.isfinite(s.y)]
        text = f"{s.label} {last[-1]:.3f}" if len(last) else s.label
        parts.append(_text(label_x, 18, text, s.color, anchor="end", bold=True))
        label_x -= 9 + 7 * len(text)
    for s in series:
        seen = np.isfinite(s.y)
        points = list(zip(place_x(s.x[seen]), place_y(s.y[seen]), strict=True))
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{s.color}" stroke-width="{s.width}" '
            f'stroke-opacity="{s.opacity}" stroke-linejoin="round"/>'
        )
        if (s.dots and len(points) <= 40) or len(points) == 1:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{s.color}"/>' for x, y in points]
    return _svg(width, height, "".join(parts))


def ticks(high: float, count: int = 4) -> list[float]:
    """Round numbers from 0 to `high`, about `count` steps apart."""
    rough = high / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    return [round(step * k, 10) for k in range(int(high / step * 1.001) + 1)]


def thinned(
    x: NDArray[np.float64], y: NDArray[np.float64], most: int = 300
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most `most` points: the means of neighbours, values that are not finite left out."""
    seen = np.isfinite(y)
    x, y = x[seen], y[seen]
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most + 1).astype(int)
    sizes = np.diff(edges)
    return np.add.reduceat(x, edges[:-1]) / sizes, np.add.reduceat(y, edges[:-1]) / sizes


def smoothed(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A running mean over a twentieth of the points to either side, narrower at the ends."""
    reach = max(1, len(y) // 20)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    reach_here = np.minimum(np.minimum(at, len(y) - 1 - at), reach)
    means: NDArray[np.float64] = (sums[at + reach_here + 1] - sums[at - reach_here]) / (2 * reach_here + 1)
    return means


def picture_with_boxes(dataset: Dataset, shown: dict[str, Any], class_names: Sequence[str]) -> str:
    """One held-out image with its predictions as SVG: dashed white lines are the ground truth.

    Args:
        dataset: The validation split.
        shown: Its part of a "preview" event: row, boxes (xyxy pixels), classes, scores.
        class_names: The class table.
    """
    row = int(shown["row"])
    data, (width, height), scale = _thumbnail(str(dataset.image_paths[row]))
    parts = [f'<image href="{data}" width="{width}" height="{height}"/>']
    for x1, y1, x2, y2 in dataset.boxes[dataset.boxes_of(row)] * scale:
        box = f'x="{x1:.1f}" y="{y1:.1f}" width="{max(0.0, x2 - x1):.1f}" height="{max(0.0, y2 - y1):.1f}"'
        parts.append(f'<rect {box} fill="none" stroke="#fff" stroke-width="1" stroke-dasharray="3 3"/>')
    from odkit.sheets import class_color

    for box, label, score in zip(shown["boxes"], shown["classes"], shown["scores"], strict=True):
        x1, y1, x2, y2 = (value * scale for value in box)
        color, text = class_color(label), f"{class_names[label]} {score:.2f}"
        inside = y1 < 13
        parts.append(
            f'<rect x="{x1:.1f}" y="{y1:.1f}" width="{max(0.0, x2 - x1):.1f}" height="{max(0.0, y2 - y1):.1f}" '
            f'fill="none" stroke="{color}" stroke-width="2"/>'
            f'<text x="{x1 + 2:.1f}" y="{y1 + 11 if inside else y1 - 3:.1f}" font-size="11" fill="{color}" '
            f'stroke="#000" stroke-width="2.5" stroke-opacity="0.65" paint-order="stroke">{escape(text)}</text>'
        )
    name = escape(str(dataset.image_ids[row]))
    return f'<div title="{name}">{_svg(width, height, "".join(parts))}</div>'


@lru_cache(maxsize=32)
def _thumbnail(path: str, tall: int = 160) -> tuple[str, tuple[int, int], float]:
    """An image as a data address, its size in pixels, and by how much it was scaled."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except OSError:  # moved since: the dashboard must not end for it
        return "", (tall, tall), 1.0
    scale = min(1.0, tall / image.height, 1.4 * tall / image.width)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", size, scale


def _svg(width: int, height: int, inside: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'style="max-width:100%;font-family:var(--jp-ui-font-family,sans-serif)">{inside}</svg>'
    )


def _text(
    x: float, y: float, text: str, color: str = _INK, *, anchor: str = "start", bold: bool = False
) -> str:
    look = f'font-size="11" text-anchor="{anchor}" fill="{color}" font-weight="{600 if bold else 400}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'
