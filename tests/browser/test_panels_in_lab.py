"""The App's own panels inside JupyterLab, filled with odkit's figures: looked at through Chromium."""

import pytest
from playwright.sync_api import Frame, Page, expect

from tests.browser.lab import Lab, app_frame, open_map, open_notebook, output, outputs, run_cell, shot

pytestmark = [pytest.mark.browser, pytest.mark.notebook]

MAKE = """
import numpy as np, odkit as od
from pathlib import Path
from PIL import Image
here, boxes = Path("patches").absolute(), []
here.mkdir(exist_ok=True)
for i in range(12):
    picture = np.full((240, 320, 3), 200 if i % 2 else 90, np.uint8)
    picture[40:140, 40 + 10 * i:160 + 10 * i] = (200, 40, 40)
    picture[150:220, 200:290] = (40, 40, 200)
    Image.fromarray(picture).save(here / f"{i}.jpg")
    boxes += [(40 + 10 * i, 40, 160 + 10 * i, 140), (200, 150, 290, 220)]
dataset = od.Dataset(
    name="patches", class_names=("red", "blue"), root=here, image_paths=[str(here / f"{i}.jpg") for i in range(12)],
    image_sizes=np.full((12, 2), (320, 240)), boxes=np.array(boxes, float), box_classes=[0, 1] * 12,
    box_images=np.repeat(range(12), 2), image_splits=["train"] * 8 + ["val"] * 4,
)
rng = np.random.default_rng(0)
def found(shift):
    return od.Predictions(
        boxes=dataset.boxes + rng.normal(0, shift, dataset.boxes.shape), scores=np.linspace(0.9, 0.4, 24),
        classes=[1, 1] + [0, 1] * 11, images=dataset.box_images, class_names=dataset.class_names,
    )
evaluation = od.evaluate(dataset, found(4))
"""


RUNS = """
class Judged:
    def __init__(self, name, shift):
        self.name, self.of = name, od.evaluate(dataset, found(shift))
    def evaluation(self):
        return self.of
runs = [Judged("near", 3), Judged("far", 12)]
"""
FIGURES = "print('ours', *(f'{x:.3f}'.rstrip('0') for x in (evaluation.ap, evaluation.ap50, evaluation.class_ap[0])))"


def browsed(lab: Lab, page: Page, name: str, *cells: str) -> Frame:
    """The App in the cell that browses, the second one, once it and the first one ran."""
    lab.stop_kernels()
    lab.write(name, *cells)
    open_notebook(page, lab, name)
    run_cell(page, 0)
    run_cell(page, 1)
    return app_frame(page, 1)


def row(app: Frame, metric: str) -> list[str]:
    """The cells of a metric's row in the panel's summary."""
    found = app.locator("tr").filter(has=app.get_by_text(metric, exact=True)).first
    found.wait_for()
    return [text.strip() for text in found.locator("td, th").all_inner_texts()]


def test_the_evaluation_panel_has_our_figures_and_no_note_of_fiftyone(lab: Lab, page: Page) -> None:
    app = browsed(
        lab,
        page,
        "panel.ipynb",
        MAKE,
        "browser = od.browse(evaluation, keep_edits=False, height=900)",
        f"browser.open_evaluation()\n{FIGURES}",
    )
    run_cell(page, 2)
    ap, ap50, ap_of_red = output(page, 2, "ours").split()[1:4]
    app.get_by_text("Summary", exact=True).wait_for()
    assert row(app, "mAP")[1] == ap
    assert row(app, "AP50")[1] == ap50
    assert row(app, "AP of red")[1] == ap_of_red
    assert row(app, "False Positives")[1] == "1"
    page.locator(".jp-Notebook iframe").scroll_into_view_if_needed()
    shot(page, "panel-evaluation")
    app.get_by_text("Confusion Matrices").click()
    app.locator(".js-plotly-plot:visible").first.wait_for()
    page.wait_for_timeout(2000)  # for the picture alone
    shot(page, "panel-confusion")
    # what FiftyOne's session hears of its App used to be answered with notes under whatever cell ran
    said = "\n".join(text for number in range(3) for text in outputs(page, number))
    assert "has been removed" not in said
    assert said.split("\n")[0] == "Open the App in a tab of its own"
    assert len(outputs(page, 1)) == 1
    assert page.outside == []  # type: ignore[attr-defined]


def test_two_runs_are_compared_in_the_panel(lab: Lab, page: Page) -> None:
    app = browsed(
        lab,
        page,
        "compared.ipynb",
        MAKE + RUNS,
        "browser = od.browse(runs, keep_edits=False, height=900)",
        "browser.open_evaluation()\nprint('ours', *(f'{run.of.ap:.3f}'.rstrip('0') for run in runs))",
    )
    run_cell(page, 2)
    near, far = output(page, 2, "ours").split()[1:3]
    app.get_by_text("Summary", exact=True).wait_for()
    for key in ("eval_run_1_near", "eval_run_2_far"):
        app.get_by_text(key).first.wait_for()
    expect(app.locator("tr").filter(has=app.get_by_text("mAP", exact=True)).first).to_contain_text(far)
    shown = row(app, "mAP")
    assert near in shown[1]
    assert far in shown[2]
    page.locator(".jp-Notebook iframe").scroll_into_view_if_needed()
    shot(page, "panel-compared")


def test_the_map_shows_the_images_and_the_app_sorts_them_by_likeness(lab: Lab, page: Page) -> None:
    app = browsed(
        lab,
        page,
        "map.ipynb",
        MAKE,
        "browser = od.browse(evaluation, keep_edits=False)",
        "browser.open_map()\nprint('mapped')",
        "print('most like', browser.similar('3.jpg').values('image_id')[:6])",
    )
    run_cell(page, 2)
    output(page, 2, "mapped")
    open_map(app)
    expect(app.get_by_text("12 points").first).to_be_visible()
    page.locator(".jp-Notebook iframe").scroll_into_view_if_needed()
    page.wait_for_timeout(3000)  # for the picture alone
    shot(page, "panel-map")
    run_cell(page, 3)
    said = output(page, 3, "most like")
    assert set(said.split("[")[1].split("]")[0].replace("'", "").split(", ")) == {
        f"{k}.jpg" for k in range(1, 12, 2)
    }
    expect(app.get_by_text("SortBySimilarity").first).to_be_attached()  # an input's measure
    assert page.outside == []  # type: ignore[attr-defined]
