"""FiftyOne's App inside JupyterLab, looked at and used through Chromium."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from playwright.sync_api import Frame, Page, expect

from odkit.browsing import services
from tests.accounts import is_closed_to_others
from tests.browser.lab import (
    Lab,
    app_frame,
    ask,
    open_notebook,
    output,
    outputs,
    run_all,
    shot,
    start_lab,
    stop_lab,
    wait_for_grid,
)

pytestmark = [pytest.mark.browser, pytest.mark.notebook]

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
    any_lab.write(
        "browse.ipynb", MAKE, "browser = od.browse(dataset, keep_edits=False)", READ_BACK, SAVED_VIEW
    )
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
    tag = app.locator('[data-cy="sample-tag-input"]')
    expect(tag).to_have_attribute("placeholder", "+ tag selected sample")
    tag.fill("blurred")
    tag.press("Enter")
    shot(page, "tagging")
    app.get_by_text("blurred", exact=True).first.wait_for()
    app.get_by_text("Apply", exact=True).click()
    assert "tags: 1 (blurred (1))" in ask(page, 2, "tagged ['2.jpg']")

    # a filter saved as a view in the App is a Dataset in the kernel
    app.locator('[data-cy="sidebar-field-arrow-enabled-tags"]').click()
    app.locator('[data-cy="checkbox-val"]').click()
    app.locator('[data-cy="saved-views-selection"]').click()
    app.locator('[data-cy="saved-views-create-new"]').click()
    app.locator('[data-cy="saved-views-input-name"]').fill("mine")
    shot(page, "saving")
    app.locator('[data-cy="saved-views-btn-save"]').click()
    assert "2 images, 4 boxes" in ask(page, 3, "['mine']")

    # a sample opens
    app.locator('[data-cy="looker"]').first.click()
    app.locator('[data-cy="modal"]').wait_for()
    app.locator('[data-cy="modal"] canvas').first.wait_for()
    shot(page, "sample")
    page.keyboard.press("Escape")
    assert page.outside == [], "nothing is asked of the outside world"  # type: ignore[attr-defined]


def test_the_app_in_a_tab_of_its_own(any_lab: Lab, page: Page) -> None:
    any_lab.stop_kernels()
    any_lab.write("tab.ipynb", MAKE, "browser = od.browse(dataset)")
    open_notebook(page, any_lab, "tab.ipynb")
    run_all(page)
    app_frame(page, 1)
    with page.context.expect_page() as opened:
        page.get_by_text("Open the App in a tab of its own").click()
    tab = opened.value
    wait_for_grid(tab)
    assert tab.locator('[data-cy="looker"]').count() == 6
    assert page.outside == []  # type: ignore[attr-defined]


JUDGED = """
found = od.Predictions(
    boxes=dataset.boxes, scores=np.linspace(0.9, 0.6, 12), classes=[1, 1] + [0, 1] * 5, images=dataset.box_images,
    class_names=dataset.class_names,
)
browser = od.browse(od.evaluate(dataset, found))
"""
OPENED = """
print("opened", browser.view.values("image_id"), len(browser.accepted()))
"""


def test_a_cell_of_the_confusion_matrix_opens_its_images(lab: Lab, page: Page) -> None:
    lab.stop_kernels()
    lab.write("confusion.ipynb", MAKE, JUDGED, "browser.confusion_matrix()", OPENED)
    open_notebook(page, lab, "confusion.ipynb")
    run_all(page)
    app = app_frame(page, 1)
    assert app.locator('[data-cy="looker"]').count() == 6
    cell = page.locator('button[title="red found as blue: show these images"]')
    cell.wait_for()
    shot(page, "confusion")
    cell.click()
    assert ask(page, 3, "opened ['0.jpg'] 0")
    page.locator(".jp-Notebook .jp-CodeCell").nth(1).locator("iframe").scroll_into_view_if_needed()
    expect(app.locator('[data-cy="looker"]')).to_have_count(1)
    shot(page, "opened")


def test_running_the_cell_again_keeps_what_was_done_and_one_app(lab: Lab, page: Page) -> None:
    lab.stop_kernels()
    again = """
browser.view.limit(2).tag_samples("kept")
browser = od.browse(dataset)
print(browser.dataset.count_sample_tags())
"""
    lab.write("again.ipynb", MAKE, "browser = od.browse(dataset, keep_edits=False)", again)
    open_notebook(page, lab, "again.ipynb")
    run_all(page)
    app = app_frame(page, 2)
    assert "'kept': 2" in output(page, 2, "kept")
    assert app.locator('[data-cy="looker"]').count() == 6
    assert outputs(page, 1) == ["The App has moved to a later cell; run this cell again to have it here."]
    assert len(helpers_of(lab)) == 2, "one App, one database"

    # another notebook, another kernel: the same App
    other = MAKE.replace('"shapes"', '"other"') + "browser = od.browse(dataset.split('val'))"
    lab.write("other.ipynb", other)
    open_notebook(page, lab, "other.ipynb")
    run_all(page)
    assert app_frame(page, 0).locator('[data-cy="looker"]').count() == 2
    assert len(helpers_of(lab)) == 2


def test_without_the_token_everything_is_refused(any_lab: Lab, page: Page) -> None:
    any_lab.stop_kernels()
    path = "import json; print(json.dumps([browser.url, browser.dataset.first().filepath]))"
    any_lab.write("refused.ipynb", MAKE, "browser = od.browse(dataset)", path)
    open_notebook(page, any_lab, "refused.ipynb")
    run_all(page)
    app_frame(page, 1)
    url, filepath = json.loads(output(page, 2, "proxy"))
    below = "fiftyone/"
    assert url.startswith(f"{urlsplit(any_lab.url).path}{below}datasets/")
    query = json.dumps({"query": '{ datasets(search: "", first: 9) { edges { node { name } } } }'}).encode()
    asked = {
        "the page": (below, None),
        "an asset": (f"{below}favicon.ico", None),
        "media": (f"{below}media?filepath={filepath}", None),
        "GraphQL": (f"{below}graphql", query),
        "events": (f"{below}events", b"{}"),
    }
    for what, (address, data) in asked.items():
        status, text = any_lab.get(address, token=False, data=data)
        assert status in (302, 403), f"{what} answered {status}: {text[:200]}"
    assert any_lab.get(below, token=True)[0] == 200
    assert any_lab.get(f"{below}media?filepath={filepath}", token=True)[0] == 200
    listed = any_lab.get(f"{below}graphql", token=True, data=query)
    assert listed[0] == 200
    assert "shapes" in listed[1]


def test_app_and_database_are_closed_to_others_and_end_with_jupyterlab(
    page: Page, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("lab-that-ends")
    monkeypatch.setenv("FIFTYONE_DATABASE_DIR", str(folder / "database"))
    lab = start_lab(folder)
    try:
        lab.write("end.ipynb", MAKE, "browser = od.browse(dataset)")
        open_notebook(page, lab, "end.ipynb")
        run_all(page)
        app_frame(page, 1)
        helpers = helpers_of(lab)
        assert len(helpers) == 2
        for helper in helpers:
            listening = [c.status for c in helper.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            assert not listening, f"{helper} listens on a port"
        sockets = [Path(c.laddr) for h in helpers for c in h.net_connections("unix") if ".sock" in c.laddr]
        assert len(set(sockets)) == 2
        assert all(is_closed_to_others(one) for one in sockets)
    finally:
        stop_lab(lab)
    _gone, alive = psutil.wait_procs(helpers, timeout=60)
    assert not alive, f"{alive} outlived JupyterLab"


def helpers_of(lab: Lab) -> list[psutil.Process]:
    """The processes of FiftyOne that belong to a JupyterLab: its App's server and its database."""
    app, database = str(services.app_socket(lab.process.pid)), ["--dbpath", str(lab.database)]
    found = {p: p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])}
    return [p for p, words in found.items() if app in words or words[1:3] == database]


def select_image(app: Frame, number: int) -> None:
    image = app.locator('[data-cy="looker"]').nth(number)
    image.hover()
    image.locator('[data-cy="looker-checkbox-"]').click()
