"""Browsing without a front end: everything but the showing. With one, see tests/browser/."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient

import odkit as od
from odkit.analysis.evaluation import evaluate
from odkit.analysis.tide import mistakes
from odkit.browsing.browser import browse
from odkit.data.dataset import Dataset
from odkit.data.predictions import Predictions
from tests.helpers import found_in

pytestmark = [pytest.mark.database, pytest.mark.notebook, pytest.mark.usefixtures("fo")]


class SomeRun:
    """As much of a Run as browsing asks of one."""

    def __init__(self, name: str, dataset: Dataset, score: float) -> None:
        self.name = name
        self.dataset, self.score = dataset, score

    def evaluation(self):
        return evaluate(self.dataset, found_in(self.dataset).above(self.score))


def test_a_dataset_is_browsed_without_a_front_end(
    dataset: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    browser = browse(dataset)
    assert browser.dataset.count() == len(browser.view) == 8
    assert browser.url == ""
    assert len(browser.selected) == 0
    assert not browser.changes()
    browser.view.limit(2).tag_samples("dark")
    browser.refresh()
    browser.show()
    assert browser.changes().tags == {"dark": 2}
    assert len(od.from_fiftyone(browser)) == 8
    assert len(od.from_fiftyone(browser.dataset.match_tags("dark"))) == 2
    browser.view = browser.dataset.match_tags("val")
    assert len(od.from_fiftyone(browser)) == len(dataset.split("val"))
    assert "2 of 8 images, not shown" in repr(browser)
    assert browser.dataset.persistent is False, "a script leaves nothing behind"
    out, err = capfd.readouterr()
    assert out + err == "", "it is quiet"


def test_findings_of_the_audit_are_saved_views(dataset: Dataset) -> None:
    boxes = dataset.boxes.copy()
    boxes[4] = [10, 10, 10, 30]
    views = browse(dataset.replace(boxes=boxes)).dataset.list_saved_views()
    assert any(view.startswith("audit: ") and "area" in view for view in views), views


def test_an_evaluation_and_a_run_open_worst_first(dataset: Dataset) -> None:
    evaluation = evaluate(dataset, found_in(dataset))
    browser = browse(evaluation)
    assert browser.view.name == "worst first"
    assert browser.view.first().image_id == "000.png"
    lowest = min(s for one in browser.dataset.values("predictions.detections.confidence") for s in one or ())
    assert lowest >= evaluation.best_score - 1e-6
    run = browse(SomeRun("first", dataset, 0.0), score=0.75)
    assert run.dataset.name == browser.dataset.name
    assert run.dataset.count("predictions.detections") == int((found_in(dataset).scores >= 0.75).sum())


def test_what_any_detector_found_is_browsed_beside_its_dataset(dataset: Dataset) -> None:
    found = found_in(dataset)
    rows = [
        {"image_id": dataset.image_ids[i], "category_id": found.class_names[k], "bbox": box, "score": score}
        for i, k, score, box in zip(
            *(found.images.tolist(), found.classes.tolist(), found.scores.tolist()),
            np.hstack([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]]).tolist(),
            strict=True,
        )
    ]
    browser = browse(dataset, Predictions.from_coco(rows, dataset), score=0.75)
    assert browser.view.name == "worst first"
    assert browser.dataset.count("predictions.detections") == int((found.scores >= 0.75).sum())
    with pytest.raises(ValueError, match="takes predictions beside a Dataset, not beside Evaluation"):
        browse(evaluate(dataset, found), found)


def test_mistakes_open_at_the_very_images(dataset: Dataset) -> None:
    found = mistakes(dataset, found_in(dataset), score=0.5)
    browser = browse(found)
    assert browser.dataset.count("predictions.detections") == int((found_in(dataset).scores >= 0.5).sum())
    browser.open_images(found.images_with("Bkg"))
    assert browser.view.values("image_id") == ["007.png"]
    confusion = found.evaluation.confusion_matrix(score=0.5)
    browser.open_images(confusion.images_of("red", "blue"))
    assert browser.view.values("image_id") == ["000.png"]
    browser.open_images(["005.png", "001.png"])
    assert browser.view.values("image_id") == ["005.png", "001.png"]
    assert browser.dataset.has_saved_view("suspects first")
    with pytest.raises(ValueError, match="rows of which dataset"):
        browse(browser.dataset).open_images([1])


def test_the_confusion_matrix_is_a_figure_where_nobody_can_press_it(dataset: Dataset) -> None:
    found = mistakes(dataset, found_in(dataset), score=0.5)
    assert isinstance(browse(found).confusion_matrix(), Figure)
    with pytest.raises(ValueError, match="a dataset has no confusion matrix"):
        browse(dataset).confusion_matrix()


def test_suspects_accepted_in_the_app_put_the_labels_right(dataset: Dataset) -> None:
    exact = Predictions(
        boxes=dataset.boxes,
        scores=np.full(dataset.num_boxes, 0.9),
        classes=dataset.box_classes,
        images=dataset.box_images,
        class_names=dataset.class_names,
    )
    classes = dataset.box_classes.copy()
    classes[3] = 1 - classes[3]
    spoiled = dataset.replace(box_classes=classes).select_boxes(np.arange(dataset.num_boxes) != 7)
    browser = browse(mistakes(spoiled, exact))
    assert browser.accepted() == []
    browser.dataset.tag_labels("accept", "suspects")
    accepted = browser.accepted()
    assert {one.kind for one in accepted} == {"wrong_class", "missing"}
    right = od.corrected(spoiled, accepted)
    assert right.class_counts() == dataset.class_counts()
    assert np.abs(right.boxes - dataset.boxes).max() < 0.01
    with pytest.raises(ValueError, match="has no suspects of odkit's"):
        browse(browser.dataset).accepted()


def test_runs_side_by_side(dataset: Dataset) -> None:
    runs = [SomeRun("starter", dataset, 0.0), SomeRun("starter", dataset, 0.7)]
    there = browse(runs).dataset
    assert there.has_field("run_1_starter")
    assert there.has_field("run_2_starter")
    other = SomeRun("other", dataset.select([0, 1]), 0.0)
    with pytest.raises(ValueError, match="judged on other data"):
        browse([runs[0], other])


def test_what_fiftyone_has_is_browsed_as_it_is(dataset: Dataset) -> None:
    there = od.to_fiftyone(dataset)
    browser = browse(there.match_tags("val"))
    assert browser.dataset.name == there.name
    assert len(browser.view) == len(dataset.split("val"))
    with pytest.raises(ValueError, match="does not know what it was before"):
        browser.changes()
    with pytest.raises(ValueError, match="not list"):
        browse([3])


def test_in_a_notebook_without_a_server_a_picture_is_shown(dataset: Dataset, tmp_path: Path) -> None:
    """Under nbconvert and nbval: no App, but a picture of what it would show, and the same objects."""
    dataset.save(tmp_path / "data.npz")
    found_in(dataset).save(tmp_path / "found.npz")
    cells = [
        "import odkit as od\ndataset = od.Dataset.load('data.npz')\nfound = od.Predictions.load('found.npz')",
        "browser = od.browse(dataset)",
        "assert len(od.from_fiftyone(browser)) == 8 and browser.url == ''",
        "browser = od.browse(od.mistakes(dataset, found))",
        "browser = od.browse(browser.dataset.match_tags('val'))",
        "browser = od.browse(browser.dataset.match_tags('nowhere'))",
        "browser.view = browser.dataset.limit(1)\nbrowser.show()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [[shown_in(output) for output in cell.outputs] for cell in notebook.cells]
    still = ["a picture", "A picture of it; in JupyterLab the App itself is here."]
    assert shown == [[], still, [], still, still, [], still]


def shown_in(output: nbformat.NotebookNode) -> str:
    return "a picture" if "image/png" in output.get("data", {}) else output.get("text", "").strip()


def test_without_a_database_the_reason_is_given(dataset: Dataset, tmp_path: Path) -> None:
    """In a script an error; where a front end looks, a picture in the App's place."""
    dataset.save(tmp_path / "data.npz")
    (tmp_path / "file").touch()
    code = (
        "import json, os, sys\nimport ipykernel, odkit as od\nfrom odkit.browsing.services import AppError\n"
        f"os.environ['FIFTYONE_DATABASE_DIR'] = {str(tmp_path / 'file' / 'database')!r}\n"
        f"dataset = od.Dataset.load({str(tmp_path / 'data.npz')!r})\n"
        "try:\n    od.browse(dataset)\nexcept AppError as error:\n    print('error:', error)\n"
        "os.environ['JPY_PARENT_PID'] = str(os.getpid())\n"
        f"os.environ['JUPYTER_RUNTIME_DIR'] = {str(tmp_path)!r}\n"
        f"open({str(tmp_path)!r} + f'/jpserver-{{os.getpid()}}.json', 'w').write("
        "json.dumps({'base_url': '/', 'url': 'http://127.0.0.1:9/', 'token': ''}))\n"
        "browser = od.browse(dataset)\nprint(repr(browser))\n"
        "for ask in ('view', 'edits', 'open_evaluation', 'open_map'):\n"
        "    try:\n        getattr(browser, ask)()\n    except AppError as error:\n        print('still', ask, error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "FIFTYONE_DATABASE_URI"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    text, reason = done.stdout, "FiftyOne's database could not start"
    assert "database cannot be written to" in text
    assert f"error: {reason}" in text
    assert "The App cannot run here, so here is a picture of some images" in text
    assert "Figure(" in text
    for ask in ("view", "edits", "open_evaluation", "open_map"):
        assert f"still {ask} {reason}" in text
