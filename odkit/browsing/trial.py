"""A detector tried on pictures of one's own, in the cell of a notebook."""

import base64
import io
import os
import tempfile
from collections import Counter
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from odkit import detection
from odkit.analysis.figures import draw_boxes
from odkit.data import ImageReadError, Predictions, open_upright
from odkit.runs import Run
from odkit.system import InputError, OdkitError, front_end

if TYPE_CHECKING:
    from odkit.detection import Detector, OnnxDetector

_FAINT = 0.05  # the lowest score that the slider shows
_SHOWN = 1000  # pixels of the longer side of what is shown


def try_it(
    detector: "Run | Detector | OnnxDetector | str | Path",
    picture: str | Path | None = None,
    *,
    score: float = 0.5,
) -> "Trial":
    """Try a detector on a picture of your own, here in the cell: upload one, and move the score.

    Args:
        detector: A run, a detector, or a detector's file, also one that `od.export` wrote.
        picture: What is shown until somebody uploads one.
        score: Boxes are shown from this score up, 0.05 to 1.

    Returns:
        What was seen last, with its boxes: `found`, as Predictions. Without a front end it is the picture.

    Raises:
        InputError: The score is out of range.
        ImageReadError: The picture cannot be read.
        MissingFileError: There is no such file.
    """
    if not _FAINT <= score <= 1:
        raise InputError(f"score={score} must be from {_FAINT} to 1")
    if isinstance(detector, Run):
        detector = detector.detector()
    elif isinstance(detector, str | Path):
        detector = detection.load_detector(detector)
    return Trial(detector, picture, score)


class Trial:
    """A detector, the picture that it saw last and what it found there.

    Attributes:
        detector: The detector.
        score: Boxes are shown from this score up.
        name: The picture's name; "" before the first.
        found: What was found in it, from a score of 0.05 up; None before the first.
    """

    def __init__(self, detector: "Detector | OnnxDetector", picture: str | Path | None, score: float) -> None:
        self.detector, self.score, self.name = detector, score, ""
        self.found: Predictions | None = None
        self._picture: Image.Image | None = None
        self._scale = 1.0  # pixels shown for one of the picture's
        if picture is not None:
            self.look(picture)
        self.widget: Any = None
        if front_end() is not None:
            self.widget = self._widget()
            self._draw()

    def look(self, picture: str | Path | bytes, name: str = "") -> "Trial":
        """Look for objects in a picture: a file, or what is in one.

        Args:
            picture: Path, or a file's bytes.
            name: What it is called; "": as its file.

        Raises:
            ImageReadError: It cannot be read as a picture; the last one stays.
            MissingFileError: There is no such file.
        """
        with tempfile.TemporaryDirectory(prefix="odkit-try-") as folder:
            if isinstance(picture, bytes):
                file = Path(folder, "picture")
                file.write_bytes(picture)
            else:
                file = Path(os.path.expanduser(picture))
            name = name or file.name
            try:
                whole = open_upright(file).convert("RGB")
                found = detection.predict(
                    self.detector, detection.images_dataset(file, self.detector.class_names), score=_FAINT
                )
            except ImageReadError:
                if not isinstance(picture, bytes):
                    raise
                raise ImageReadError(
                    f"{name} cannot be read as a picture; JPEG, PNG, WebP, BMP, GIF and TIFF can"
                ) from None
        self.found, self.name = found, name
        self._picture = whole.copy()
        self._picture.thumbnail((_SHOWN, _SHOWN), Image.Resampling.LANCZOS)
        self._scale = max(self._picture.size) / max(whole.size)
        return self

    def shown(self) -> Image.Image | None:
        """The picture, at most 1000 pixels wide and high, with its boxes drawn in; None before the first."""
        if self._picture is None or self.found is None:
            return None
        found = self.found.above(self.score)
        labels = found.classes.tolist()
        names = [
            f"{found.class_names[label]} {score:.2f}"
            for label, score in zip(labels, found.scores.tolist(), strict=True)
        ]
        return draw_boxes(self._picture, found.boxes * self._scale, labels, names)

    def __repr__(self) -> str:
        if self.found is None:
            return "No picture yet."
        found = self.found.above(self.score)
        counts = Counter(found.class_names[label] for label in found.classes.tolist())
        said = ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "nothing"
        return f"{self.name}: {said}, at a score of {self.score:.2f} or more"

    def _repr_mimebundle_(self, **_: Any) -> Any:
        if self.widget is not None:
            return self.widget._repr_mimebundle_()
        shown, text = self.shown(), {"text/plain": repr(self)}
        return text if shown is None else {**text, "image/jpeg": base64.b64encode(_jpeg(shown)).decode()}

    # -- in JupyterLab ---------------------------------------------------------------------------------------------

    def _widget(self) -> Any:
        import ipywidgets as widgets

        upload = widgets.FileUpload(
            accept="image/*", multiple=False, description="Your picture", layout={"width": "auto"}
        )
        # a Jupyter server hangs up on more than 10 MB at once
        upload.tooltip = "A picture from your own computer, up to 10 MB; a larger one by its path"
        path = widgets.Text(
            placeholder="or the path of a picture on the machine that computes, and Enter",
            continuous_update=False,
            layout={"width": "60%"},
        )
        score = widgets.FloatSlider(
            value=self.score, min=_FAINT, max=1.0, step=0.05, description="score", continuous_update=False
        )
        self._said = widgets.HTML()
        # at its own size: a box stretches what is in it
        layout = {"max_width": "100%", "align_self": "flex-start"}
        self._shown = widgets.Image(format="jpeg", layout=layout)
        upload.observe(lambda change: self._uploaded(change["new"]), "value")
        path.observe(lambda change: self._look(change["new"].strip()), "value")
        score.observe(lambda change: self._move(change["new"]), "value")
        box = widgets.VBox([widgets.HBox([upload, path]), score, self._said, self._shown])
        box.add_class("odkit-try")
        return box

    def _uploaded(self, files: Any) -> None:
        for file in files:
            self._look(bytes(file["content"]), str(file["name"]))

    def _look(self, picture: str | bytes, name: str = "") -> None:
        """Look, and say what is in the way instead of raising where nobody would see it."""
        if not picture:
            return
        self._said.value = "Looking ..."
        try:
            self.look(picture, name)
        except (OdkitError, OSError) as error:
            self._said.value = f"<b>{escape(str(error))}</b>"
        else:
            self._draw()

    def _move(self, score: float) -> None:
        self.score = score
        self._draw()

    def _draw(self) -> None:
        shown = self.shown()
        self._said.value = escape(repr(self))
        if shown is not None:
            self._shown.value = _jpeg(shown)


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88)
    return file.getvalue()
