"""The App's own panels inside JupyterLab, filled with odkit's figures: looked at through Chromium."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.lab import Lab, app_frame, open_notebook, output, run_all, run_cell, shot

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


def test_the_evaluation_panel_has_our_figures(lab: Lab, page: Page) -> None:
    lab.stop_kernels()
    lab.write(
        "panel.ipynb",
        MAKE,
        "browser = od.browse(evaluation, keep_edits=False)",
        "browser.open_evaluation(); print(f'ours {evaluation.ap:.3f} {evaluation.ap50:.3f}')",
    )
    open_notebook(page, lab, "panel.ipynb")
    run_cell(page, 0)
    run_cell(page, 1)
    app = app_frame(page, 1)
    run_cell(page, 2)
    said = output(page, 2, "ours")
    shot(page, "panel-overview")
    import time; time.sleep(8)
    shot(page, "panel-overview2")
    print(app.locator("body").inner_text())


def test_the_map_shows_the_images(lab: Lab, page: Page) -> None:
    lab.stop_kernels()
    lab.write(
        "map.ipynb",
        MAKE,
        "browser = od.browse(evaluation, keep_edits=False)",
        "browser.open_map(); print('mapped')",
    )
    open_notebook(page, lab, "map.ipynb")
    run_cell(page, 0)
    run_cell(page, 1)
    app = app_frame(page, 1)
    run_cell(page, 2)
    output(page, 2, "mapped")
    import time; time.sleep(12)
    shot(page, "map")
    print(app.locator("body").inner_text())
    print(output(page, 2, "mapped"))
