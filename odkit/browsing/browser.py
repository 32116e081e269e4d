"""FiftyOne's App inside the notebook: look at a dataset, at predictions, at runs side by side.

The App is shown in the cell through JupyterLab's own port, so behind its token and under its base URL. In a notebook
without a front end (nbconvert, nbval) a picture of some images stands there, and a script shows nothing.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from odkit import detection
from odkit.analysis import Confusion, Evaluation, Mistakes, Suspect, evaluate, mistakes
from odkit.browsing import fo_dataset, fo_private, services
from odkit.browsing.annotate import SUGGESTIONS, TO_DO, accepted_view, names_of, suspects_tagged
from odkit.browsing.changes import Changes, changes
from odkit.browsing.convert import from_fiftyone, suggestions_to_fiftyone, to_fiftyone
from odkit.browsing.fo_dataset import GROUND_TRUTH
from odkit.browsing.services import AppError
from odkit.data import Dataset, Predictions
from odkit.data.audit import audit
from odkit.runs import Prelabels
from odkit.system import FrontEnd, InputError, UnknownNameError, front_end, in_notebook

if TYPE_CHECKING:
    from odkit.detection import Detector
    from odkit.runs import Run


def browse(
    x: "Dataset | Prelabels | Evaluation | Mistakes | Run | Sequence[Run] | Any",
    predictions: Predictions | None = None,
    *,
    height: int = 600,
    score: float | None = None,
    keep_edits: bool = True,
) -> "Browser":
    """Look at a dataset, an evaluation or runs in FiftyOne's App, here in the cell.

    Browsing the same data again shows what was tagged and edited before.

    Args:
        x: A Dataset (with its audit's findings as saved views), a Run, an Evaluation or Mistakes (with predictions,
            what each got wrong, and the labels that are probably wrong), several Runs side by side, Prelabels (the
            pictures still to do, those the detector is least sure of first), or a FiftyOne dataset or view.
        predictions: What any detector found in a Dataset, which is then shown as its Evaluation.
        height: Height of the App in the cell, pixels.
        score: Predictions below it are left out; by default the score with the best F1.
        keep_edits: False starts anew, without what was done in the App.

    Returns:
        A `Browser`: `.edits()` is the dataset as a person left it in the App, `.view` and `.selected` are what is open
        and chosen there, and `od.from_fiftyone(browser.view)` brings it back.

    Raises:
        AppError: Without a front end only: FiftyOne's database cannot start. In a notebook the reason is shown, with
            a picture of the images instead.
        ValueError: Runs side by side were judged on different data.
    """
    if predictions is not None:
        if not isinstance(x, Dataset):
            raise InputError(f"browse() takes predictions beside a Dataset, not beside {type(x).__name__}")
        x = evaluate(x, predictions)
    seen_from = front_end()
    try:
        if seen_from is None:
            browser = Browser(*_content(x, score=score, persistent=False, keep_edits=keep_edits), source=x)
            browser.show()
            return browser
        # the App's server and FiftyOne here take seconds each to import
        with ThreadPoolExecutor(1) as beside:
            starting = beside.submit(services.start_app, fo_dataset.connect(), jupyter=seen_from.pid)
            browser = Browser(*_content(x, score=score, persistent=True, keep_edits=keep_edits), source=x)
            starting.result()
        browser._open(seen_from)
        browser.show(height=height)
    except AppError as error:
        if seen_from is None:
            raise
        return _show_instead(x, error)
    return browser


class Browser:
    """What is open in the App, and what a person has chosen there.

    Attributes:
        before: The Dataset it was made from, None where FiftyOne's own was given.
        mistakes: What the detector got wrong, None where a dataset was given.
        prelabels: The suggestions that are judged in the App, None where something else was given.
        url: Path of the App on JupyterLab's address; "" without a front end.
    """

    def __init__(
        self,
        dataset: Any,
        view: Any,
        before: Dataset | None = None,
        mistakes: Mistakes | None = None,
        evaluations: Sequence[str] = (),
        source: Any = None,
    ) -> None:
        self._dataset = dataset
        self.before = before
        self.mistakes = mistakes
        self.prelabels = source if isinstance(source, Prelabels) else None
        self.url = ""
        self._source = source  # what was given to browse()
        self._evaluations = tuple(evaluations)  # FiftyOne's keys of them
        self._view = view
        self._session: Any = None
        self._path = ""

    @property
    def dataset(self) -> Any:
        """The `fiftyone.Dataset`; its database is started again where it was killed."""
        fo_dataset.connect()
        return self._dataset

    # -- what is there -------------------------------------------------------------------------------------------

    @property
    def view(self) -> Any:
        """The FiftyOne view that is open in the App (filters of the side bar left out); it can be set."""
        session = self._live()
        view = session.view if session is not None else self._view
        return self.dataset.view() if view is None else view

    @view.setter
    def view(self, view: Any) -> None:
        self._view = view
        session = self._live()
        if session is not None:
            session.view = view

    @property
    def selected(self) -> Any:
        """A view of the samples and labels that are selected in the App; empty where none are."""
        session = self._live()
        chosen = session.selected_view if session is not None else None
        return self.dataset.select([]) if chosen is None else chosen

    def edits(self) -> Dataset:
        """The dataset as it stands in the App, to train on or to write to disk (`od.write_dataset`).

        Boxes that were drawn, moved, renamed or deleted, new classes, pictures deleted or tagged with another split:
        all of it holds, and the notes say what was changed. Of suggestions it is the pictures tagged "accept", with
        their boxes as they stand there now; suggestions tagged "reject" are left out.

        Raises:
            ValueError: Boxes were tagged "accept" in place of pictures.
        """
        self.dataset.reload()
        if self.prelabels is None:
            after, notes = from_fiftyone(self.dataset), () if self.before is None else self.before.notes
        else:
            after = from_fiftyone(accepted_view(fo_dataset.fiftyone(), self.dataset), field=SUGGESTIONS)
            notes = (f"accepted in the App: {len(after):,} of {self.dataset.count():,} pictures",)
        done = self.changes() if self.before is not None else None
        said = [f"in the App: {line}" for line in repr(done).splitlines()] if done else []
        return after.replace(notes=(*notes, *after.notes, *said))

    def add_classes(self, *names: str) -> None:
        """Offer more classes for the boxes that are drawn in the App; there, "Edit schema" does the same."""
        fo_dataset.offer_classes(self.dataset, names)
        self.refresh()

    def changes(self) -> Changes:
        """What was changed in the App since the dataset was put there.

        Raises:
            ValueError: The App was opened on a dataset of FiftyOne's own, so there is nothing to compare with.
        """
        if self.before is None:
            raise InputError(
                "this App was opened on a FiftyOne dataset; odkit does not know what it was before"
            )
        field = GROUND_TRUTH if self.prelabels is None else SUGGESTIONS
        return changes(self.before, self.dataset, field=field)

    def accepted(self, tag: str = "accept") -> list[Suspect]:
        """The suspects that were tagged so in the App; `od.corrected(dataset, browser.accepted())` puts them right.

        Raises:
            ValueError: The App was opened on a dataset of FiftyOne's own.
        """
        if self.before is None:
            raise InputError("this App was opened on a FiftyOne dataset, which has no suspects of odkit's")
        if self.prelabels is not None:
            raise InputError("these are suggestions: browser.edits() has the pictures that were accepted")
        self.dataset.reload()
        return suspects_tagged(self.dataset, self.before, tag)

    def open_images(self, images: Sequence[int | str] | NDArray[np.int64]) -> None:
        """Open these images in the App, in this order: row numbers of the dataset browsed, or image ids.

        Such rows are what `Confusion.images_of()`, `Mistakes.images_with()` and `Audit.images()` give.

        Raises:
            ValueError: Rows were given, but the App was opened on a dataset of FiftyOne's own.
        """
        ids = []
        for image in images:
            if isinstance(image, str):
                ids.append(image)
            elif self.before is None:
                raise InputError(
                    "rows of which dataset? This App was opened on FiftyOne's own; give image ids"
                )
            else:
                ids.append(str(self.before.image_ids[int(image)]))
        self.view = self.dataset.select_by("image_id", ids, ordered=True)

    def open_evaluation(self) -> None:
        """Open the App's Model Evaluation panel: our figures, per class, the confusion matrix, two runs compared.

        Raises:
            ValueError: There are no predictions to be judged.
        """
        if not self._evaluations:
            raise InputError(
                "there is no evaluation here: browse a Run, an Evaluation, Mistakes or several Runs"
            )
        self.dataset.reload()
        self._arrange(fo_dataset.evaluation_panel(self.dataset, self._evaluations))

    def open_map(self, detector: "Detector | None" = None) -> None:
        """Open a map of the images in the App: the more alike a detector finds two images, the closer they lie.

        Press "map" in the panel that opens. Circle points to see their images; colour them by `split`, by `main_class`
        (the class with most boxes) or by an evaluation's counts (`eval_fp`, say). With an image selected, the App's
        "sort by similarity" is ready too; so is `similar()`. Computed once a detector, and kept in FiftyOne.

        Args:
            detector: By default the run's best one, for data that comes without a run the starter as it comes.

        Raises:
            ValueError: The App was opened on a dataset of FiftyOne's own.
            ImageReadError: An image cannot be read.
        """
        self._map(detector)
        self._arrange(fo_dataset.map_panel())

    def similar(self, image: int | str, *, detector: "Detector | None" = None) -> Any:
        """Open all images in the App, those most like this one first; the view, which begins with it.

        Args:
            image: Row number in the dataset browsed, or image id.
            detector: Whose features are compared, as for `open_map`.

        Raises:
            KeyError: There is no such image.
        """
        from odkit.browsing import fo_map

        self._map(detector)
        assert self.before is not None
        image_id = image if isinstance(image, str) else str(self.before.image_ids[int(image)])
        found = self.dataset.match(fo_dataset.fiftyone().ViewField("image_id") == image_id).values("id")
        if not found:
            raise UnknownNameError(f"no image {image_id!r} in {self.dataset.name!r}")
        self.view = self.dataset.sort_by_similarity(found[0], brain_key=fo_map.SIMILAR)
        return self.view

    def _map(self, detector: "Detector | None") -> None:
        from odkit.browsing import fo_map  # and torch with it, which takes seconds

        if self.before is None:
            raise InputError(
                "this App was opened on a FiftyOne dataset; browse a Dataset or a Run to have its map"
            )
        if detector is None:
            source = self._source[0] if isinstance(self._source, Sequence) else self._source
            if hasattr(source, "detector"):
                detector = source.detector()
            else:
                detector = detection.build_detector("starter", self.before.class_names)
        fo_map.put_map(fo_dataset.fiftyone(), self.dataset, self.before, detector)

    def _arrange(self, panels: Any) -> None:
        session = self._live()
        if session is not None:
            session.spaces = panels
            session.refresh()  # so that the App knows what was just stored

    def confusion_matrix(self) -> Any:
        """The confusion matrix as a table of buttons, each of which opens its images in the App.

        With more classes than fit, those that are confused most are shown. Without a front end it is a figure.

        Raises:
            ValueError: The App was opened on a dataset, so there are no predictions to be confused.
        """
        if self.mistakes is None:
            raise InputError("a dataset has no confusion matrix: browse a Run, an Evaluation or Mistakes")
        evaluation, score = self.mistakes.evaluation, self.mistakes.score
        if not self._path:
            from odkit.analysis import figures

            return figures.confusion_matrix(evaluation, score=score)
        return _buttons(evaluation.confusion_matrix(score=score), self.open_images)

    def refresh(self) -> None:
        """Show in the App what was changed from the notebook."""
        self.dataset.reload()
        session = self._live()
        if session is not None:
            session.refresh()

    def __repr__(self) -> str:
        shown = f"open at {self.url}" if self.url else "not shown: there is no front end"
        return f"Browser of {self.dataset.name!r}: {len(self.view):,} of {self.dataset.count():,} images, {shown}"

    # -- showing -------------------------------------------------------------------------------------------------

    def show(self, *, height: int = 600) -> None:
        """Show the App again, in the cell that runs now; an earlier cell of this notebook gives it up.

        Where no front end is, a notebook gets a picture of the first images in its place.
        """
        if not self._path:
            if in_notebook():
                self._show_picture()
            return
        from IPython.display import HTML, display

        global _shown
        if _shown is not None:
            _shown.update(
                HTML("<p>The App has moved to a later cell; run this cell again to have it here.</p>")
            )
        here = f"{self._path}?{fo_private.APP_QUERY}{self._path}"
        page = (
            f'<a href="{self.url}" target="_blank">Open the App in a tab of its own</a>'
            f'<iframe src="{here}" width="100%" height="{int(height)}" style="border:0" '
            'allow="clipboard-write"></iframe>'
        )
        _shown = display(HTML(page), display_id=True)

    def _show_picture(self) -> None:
        from IPython.display import display

        from odkit.analysis import figures

        first = self.view.limit(4 if self.mistakes else 8)
        if self.before is None:
            try:
                data = from_fiftyone(first)
            except InputError:
                return  # no images with boxes
            images = list(data.image_ids)
        else:
            data, known = self.before, set(self.before.image_ids)
            images = [i for i in first.values("image_id") if i in known]
        if not images:
            return
        if self.mistakes is None:
            figure = figures.show_images(data, images)
        else:
            found = self.mistakes.predictions
            figure = figures.show_predictions(data, found, images, score=self.mistakes.score)
        display(figure)
        print("A picture of it; in JupyterLab the App itself is here.")

    def _open(self, seen_from: FrontEnd) -> None:
        """Point the App at this dataset; one server and, in a kernel, one session serve all calls."""
        global _session
        if not seen_from.serves(services.APP):
            raise AppError(
                "JupyterLab does not pass the App on: its environment lacks jupyter-server-proxy or odkit. "
                "pip install jupyter-server-proxy odkit there and start JupyterLab anew"
            )
        if _session is None:
            app = services.app_socket(seen_from.pid)
            _session = fo_dataset.session(app, self.dataset, self._view)
        else:
            _show_in(_session, self.dataset, self._view)
        self._session = _session
        self._path = seen_from.path(services.APP)
        self.url = f"{self._path}datasets/{self.dataset.slug}?proxy={self._path}"

    def _live(self) -> Any:
        """The session, if it still shows this dataset and not one browsed later."""
        session = self._session
        if session is None or session.dataset is None or session.dataset.name != self.dataset.name:
            return None
        return session


def _show_in(session: Any, dataset: Any, view: Any) -> None:
    """Point a session at a view, or at a dataset; where the App was started anew, wait until the session finds it."""
    end = time.monotonic() + RECONNECT_SECONDS
    while True:
        try:
            if view is not None:
                session.view = view
            else:
                session.dataset = dataset
        except RuntimeError as error:  # "Client is not connected": it looks for the App every ten seconds
            if time.monotonic() > end:
                raise AppError(
                    f"this notebook's session with FiftyOne's App is broken ({error}): restart the kernel"
                ) from error
            time.sleep(0.2)
        else:
            return


RECONNECT_SECONDS = 60.0

_session: Any = None  # FiftyOne's session of this kernel
_shown: Any = None  # the display of the cell that has the App


# -- what to show ----------------------------------------------------------------------------------------------------


def _content(
    x: Any, *, score: float | None, persistent: bool, keep_edits: bool
) -> tuple[Any, Any, Dataset | None, Mistakes | None, Sequence[str]]:
    """What a `Browser` is made of, for whatever was given."""
    options: dict[str, Any] = {"persistent": persistent, "keep_edits": keep_edits}
    if isinstance(x, Dataset):
        return to_fiftyone(x, audit=audit(x), **options), None, x, None, ()
    if isinstance(x, Prelabels):
        there = suggestions_to_fiftyone(x, **options)
        return there, there.load_saved_view(TO_DO), x.as_labels(), None, ()
    if fo_private.is_fiftyones(x):  # a view or a dataset of FiftyOne's
        root = fo_private.whole_of(x)
        return root, (None if x is root else x), None, None, ()
    judged = _judged(x, score)
    first = next(iter(judged.values()))
    for label, one in judged.items():
        if one.dataset.fingerprint() != first.dataset.fingerprint():
            raise InputError(
                f"{label!r} was judged on other data than {next(iter(judged))!r}; side by side only runs with the same "
                "validation images and labels can be shown"
            )
    there = to_fiftyone(
        first.dataset,
        predictions={label: one.evaluation for label, one in judged.items()},
        suspects=first.suspects if len(judged) == 1 else None,
        score={label: one.score for label, one in judged.items()},
        **options,
    )
    view = there.load_saved_view("worst first") if len(judged) == 1 else None
    return there, view, first.dataset, first, [names_of(label)[1] for label in judged]


MOST_CLASSES = 20  # in a table of buttons


def _buttons(confusion: Confusion, open_images: Callable[[NDArray[np.int64]], None]) -> Any:
    """A confusion matrix of buttons; one that is empty cannot be pressed."""
    import ipywidgets as widgets

    off_diagonal = confusion.counts - np.diag(np.diag(confusion.counts))
    confused = (off_diagonal.sum(0) + off_diagonal.sum(1))[:-1]  # background always has its row and column
    chosen = [*np.sort(np.argsort(-confused, kind="stable")[:MOST_CLASSES]).tolist(), len(confused)]
    names = [*confusion.names[:-1], "nothing"]
    share = confusion.share

    def text(what: str) -> Any:
        style = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap;line-height:28px"
        return widgets.HTML(f'<div style="{style}" title="{escape(what)}">{escape(what)}</div>')

    cells = [text("is \\ found as"), *(text("missed" if k == len(confused) else names[k]) for k in chosen)]
    for row in chosen:
        cells.append(text(names[row]))
        for column in chosen:
            count, blue = int(confusion.counts[row, column]), float(share[row, column])
            wrong = row != column
            paint = (
                f"rgba({'200,60,40' if wrong else '40,90,180'},{0.1 + 0.6 * blue:.2f})"
                if count
                else "transparent"
            )
            button = widgets.Button(
                description=f"{count:,}" if count else "",
                disabled=not count,
                tooltip=f"{names[row]} found as {names[column]}: show these images" if count else "",
                layout={"width": "auto", "height": "28px", "margin": "1px"},
            )
            button.style.button_color = paint
            cell = (confusion.names[row], confusion.names[column])
            button.on_click(lambda _, cell=cell: open_images(confusion.images_of(*cell)))
            cells.append(button)
    grid = widgets.GridBox(
        cells,
        layout={
            "grid_template_columns": f"110px repeat({len(chosen)}, minmax(40px, 84px))",
            "grid_gap": "0px",
        },
    )
    if len(chosen) - 1 < len(confused):
        note = f"The {MOST_CLASSES} classes confused most, of {len(confused):,}."
        return widgets.VBox([widgets.HTML(note), grid])
    return grid


def _judged(x: Any, score: float | None) -> dict[str, Mistakes]:
    """What was got wrong, by label."""
    if isinstance(x, Mistakes):
        return {"predictions": x if score is None else mistakes(x.evaluation, score=score)}
    if isinstance(x, Evaluation):
        return {"predictions": mistakes(x, score=score)}
    if hasattr(x, "evaluation"):
        return {"predictions": mistakes(x.evaluation(), score=score)}
    if isinstance(x, Sequence) and len(x) and all(hasattr(one, "evaluation") for one in x):
        if len(x) == 1:
            return _judged(x[0], score)
        return {f"run_{i}_{run.name}": mistakes(run.evaluation(), score=score) for i, run in enumerate(x, 1)}
    raise InputError(
        "browse() shows a Dataset, a Run, an Evaluation, Mistakes, several Runs, Prelabels or a FiftyOne dataset or "
        "view, not "
        f"{type(x).__name__} {x!r:.80}"
    )


def _show_instead(x: Any, error: AppError) -> Browser:
    """Say why there is no App and show some of the images without it."""
    from IPython.display import display

    from odkit.analysis import figures

    print(f"The App cannot run here, so here is a picture of some images.\n{error}")
    if isinstance(x, Dataset | Prelabels):
        figure = figures.show_images(x if isinstance(x, Dataset) else x.as_labels())
    else:
        first = next(iter(_judged(x, None).values()))
        figure = figures.show_worst(first.dataset, first)
    display(figure)
    return _NoBrowser(error)


class _NoBrowser(Browser):
    """What `browse()` returns where FiftyOne cannot run: asking it for anything says why."""

    def __init__(self, error: AppError) -> None:
        self.error = error
        self.url = self._path = ""

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("__", "_repr", "_ipython")):  # IPython asks for what it could show
            raise AttributeError(name)
        raise self.error

    def __repr__(self) -> str:
        return f"no Browser: {self.error}"
