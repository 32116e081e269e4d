"""FiftyOne's App inside JupyterLab, looked at and used through Chromium."""

import json
import re
import time

import psutil
import pytest
from lab import Lab, app_frame, ask, outputs, shot, open_notebook, output, run_all, run_cell, start_lab, stop_lab, wait_for_grid
from playwright.sync_api import Frame, Page

pytestmark = pytest.mark.browser

MAKE = """
import numpy as np, odkit as od
from pathlib import Path
from PIL import Image
here, boxes = Path("pictures").absolute(), []
here.mkdir(exist_ok=True)
for i in range(6):
    picture = np.full((240, 320, 3), 200, np.uint8)
    picture[40:140, 40 + 10 * i:160 + 10 * i] = (200, 40, 40)
    picture[150:220, 200:290] = (40, 40, 200)
    Image.fromarray(picture).save(here / f"{i}.jpg")
    boxes += [(40 + 10 * i, 40, 160 + 10 * i, 140), (200, 150, 290, 220)]
dataset = od.Dataset(
    name="shapes", class_names=("red", "blue"), root=here, image_paths=[str(here / f"{i}.jpg") for i in range(6)],
    image_sizes=np.full((6, 2), (320, 240)), boxes=np.array(boxes, float), box_classes=[0, 1] * 6,
    box_images=np.repeat(range(6), 2), image_splits=["train"] * 4 + ["val"] * 2,
)
"""
READ_BACK = """
print("read back")
print("tagged", list(od.from_fiftyone(browser.dataset.match_tags("blurred")).image_ids))
print("selected", list(od.from_fiftyone(browser.selected).image_ids))
print("changes", browser.changes())
"""
SAVED_VIEW = """
browser.dataset.reload()
print("saved views", browser.dataset.list_saved_views())
if browser.dataset.has_saved_view("mine"):
    print(od.from_fiftyone(browser.dataset.load_saved_view("mine")))
"""


@pytest.fixture(params=["lab", "lab_below"])
def any_lab(request: pytest.FixtureRequest) -> Lab:
    return request.getfixturevalue(request.param)


def test_the_app_in_the_cell(any_lab: Lab, page: Page) -> None:
    any_lab.write("browse.ipynb", MAKE, "browser = od.browse(dataset)", READ_BACK, SAVED_VIEW)
    open_notebook(page, any_lab, "browse.ipynb")
    run_all(page)
    app = app_frame(page, 1)

    assert app.locator('[data-cy="looker"]').count() == 6
    assert outputs(page, 1) == ["Open the App in a tab of its own"], "nothing else is printed"
    shot(page, "grid")

    # what is selected in the App is known in the kernel
    select_image(app, 4)
    assert ask(page, 2, "selected ['4.jpg']")
    select_image(app, 4)

    # a tag given in the App is read back in the kernel
    select_image(app, 2)
    app.locator('[data-cy="action-tag-sample-labels"]').click()
    app.locator('[data-cy="sample-tag-input"]').fill("blurred")
    page.keyboard.press("Enter")
    app.get_by_text("Apply", exact=True).click()
    assert "tags: 1 (blurred (1))" in ask(page, 2, "tagged ['2.jpg']")

    # a filter saved as a view in the App is a Dataset in the kernel
    app.locator('[data-cy="sidebar-field-arrow-enabled-tags"]').click()
    app.locator('[data-cy="checkbox-val"]').click()
    page.wait_for_timeout(3000)
    shot(page, "filter")
    app.locator('[data-cy="saved-views-selection"]').click()
    app.locator('[data-cy="saved-views-create-new"]').click()
    page.wait_for_timeout(1000)
    shot(page, "save")
    print([e.get_attribute("data-cy") for e in app.locator("[data-cy*=view]").all()])
    app.locator('[data-cy="saved-views-input-name"]').fill("mine")
    app.locator('[data-cy="saved-views-btn-save"]').click()
    assert "2 images, 4 boxes" in ask(page, 3, "['mine']")

    # a sample opens
    app.locator('[data-cy="looker"]').first.click()
    app.locator('[data-cy="modal"]').wait_for()
    page.wait_for_timeout(3000)
    shot(page, "sample")
    page.keyboard.press("Escape")
    assert page.outside == [], "nothing is asked of the outside world"  # type: ignore[attr-defined]
    assert 0

def select_image(app: Frame, number: int) -> None:
    image = app.locator('[data-cy="looker"]').nth(number)
    image.hover()
    image.locator('[data-cy="looker-checkbox-"]').click()
