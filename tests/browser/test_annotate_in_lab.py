"""Boxes drawn, moved, renamed and deleted in FiftyOne's App in the cell, and suggestions accepted there."""

import contextlib
import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Frame, Locator, Page, Response
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from odkit.data import box_iou
from odkit.data.formats import load_dataset
from odkit.runs import Run
from tests.browser.lab import Lab, app_frame, ask, open_notebook, output, run_all, run_cell, shot
from tests.browser.test_browse_in_lab import MAKE, select_image

pytestmark = [pytest.mark.browser, pytest.mark.notebook]

EDITS = """
edits = browser.edits()
print("read back", len(edits), edits.num_boxes, edits.class_counts())
print(browser.changes())
"""
TRAIN = """
run = od.fine_tune(edits, name="drawn", epochs=1, weights="random", image_size=64, batch_size=2, num_workers=0)
print("trained on", run.config["fingerprint"] == edits.fingerprint(), od.write_dataset(edits, "drawn").name)
"""


@pytest.fixture(autouse=True)
def tidy(lab: Lab) -> Iterator[None]:
    lab.stop_kernels()
    yield
    lab.stop_kernels()


def annotate(app: Frame, number: int = 0) -> None:
    """Open an image and its "Annotate" tab."""
    app.locator('[data-cy="looker"]').nth(number).click()
    app.locator('[data-cy="annotate"]').click()
    app.locator('[data-cy="lighter-sample-renderer-canvas"]').wait_for()
    app.locator('[data-cy="detection-mode"]').wait_for()


def close(app: Frame) -> None:
    """Close the image that is open: back from what is edited, then a click beside the image.

    Escape would do as well, but under load the App comes into a state in which it takes none any more.
    """
    modal, back = app.locator('[data-cy="modal"]'), app.locator('[data-cy="annotate-edit-back"]')
    for _ in range(20):
        if back.is_visible():
            back.click()
        app.locator("body").click(position={"x": 3, "y": 300})
        with contextlib.suppress(PlaywrightTimeout):
            modal.wait_for(state="detached", timeout=2_000)
            return
    raise AssertionError("the image stays open")


def point(app: Frame, x: float, y: float) -> tuple[float, float]:
    """Where on the page a point of the picture is, given relative to its top left corner and its sides."""
    place = app.locator('[data-cy="lighter-sample-renderer-canvas"]').bounding_box()
    assert place is not None
    # the picture keeps its proportions (4 to 3) in the middle of the canvas
    scale = min(place["width"] / 4, place["height"] / 3)
    left = place["x"] + (place["width"] - 4 * scale) / 2
    top = place["y"] + (place["height"] - 3 * scale) / 2
    return left + 4 * scale * x, top + 3 * scale * y


def drag(page: Page, app: Frame, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag from one point of the picture to another and wait until it is saved."""
    (x1, y1), (x2, y2) = point(app, *start), point(app, *end)
    page.mouse.move(x1, y1)
    page.mouse.down()
    page.mouse.move((x1 + x2) / 2, (y1 + y2) / 2, steps=5)
    page.mouse.move(x2, y2, steps=5)
    with page.expect_response(_saves):
        page.mouse.up()


def _saves(response: Response) -> bool:
    return response.request.method == "PATCH" and response.ok


def label(app: Frame) -> Locator:
    return app.locator('[data-cy="root_label_container"]')


def test_a_box_drawn_in_the_app_is_trained_on(lab: Lab, page: Page) -> None:
    lab.write("annotate.ipynb", MAKE, "browser = od.browse(dataset, keep_edits=False)", EDITS, TRAIN)
    open_notebook(page, lab, "annotate.ipynb")
    for number in (0, 1):
        run_cell(page, number)
    app = app_frame(page, 1)
    annotate(app)

    # a class that the dataset has not, then a box of it
    app.locator('[data-cy="open-schema-manager"]').click()
    app.locator('[data-cy="field-row-ground_truth"] [data-cy="edit"]').click()
    manager = app.locator('[data-cy="schema-manager"]')
    manager.get_by_text("Add class").click()
    page.keyboard.type("green")
    page.keyboard.press("Enter")
    shot(page, "annotate-new-class")
    manager.locator('[data-cy="primary-button"]').click()
    app.locator('[data-cy="close-schema-manager"]').click()
    app.locator('[data-cy="detection-mode"]').click()
    drag(page, app, (0.6, 0.1), (0.9, 0.4))
    with page.expect_response(_saves):
        label(app).get_by_text("green", exact=True).click()
    shot(page, "annotate-drawn")

    # the red box moved, the blue one deleted
    app.locator('[data-cy="annotate-edit-back"]').click()
    app.locator('[data-cy="select-action"]').click()
    app.locator('[data-cy^="annotate-label-"]').filter(has_text="red").click()
    drag(page, app, (0.3, 0.3), (0.2, 0.4))
    app.locator('[data-cy="annotate-edit-back"]').click()
    app.locator('[data-cy^="annotate-label-"]').filter(has_text="blue").click()
    app.locator('[data-cy="label-menu-trigger"]').click()
    with page.expect_response(_saves):
        app.locator('[data-cy="label-menu-delete"]').click()
    shot(page, "annotate-moved-and-deleted")
    page.keyboard.press("Escape")

    said = ask(page, 2, "read back 6 12 {'red': 6, 'blue': 5, 'green': 1}")
    assert re.search(r"boxes added: 1 \(0\.jpg, FiftyOne", said)
    assert "boxes moved: 1 (0.jpg, box 1)" in said
    assert "boxes removed: 1 (0.jpg, box 2)" in said
    run_cell(page, 3)
    assert "trained on True drawn" in output(page, 3, "trained on")

    run = Run(lab.folder / "runs" / "drawn")
    assert run.state == "finished"
    written = load_dataset(lab.folder / "drawn", val=0)
    for back in (run.dataset(), written):
        assert (back.class_names, len(back)) == (("red", "blue", "green"), 6)
        rows = back.boxes_of(back.index_of("0.jpg"))
        drawn, moved = ((192, 24, 288, 96), (8, 64, 128, 164))
        overlaps = box_iou(back.boxes[rows], np.array([drawn, moved], np.float32))
        assert overlaps.max(0).min() > 0.9, back.boxes[rows]
        assert back.box_classes[rows][overlaps.argmax(0)].tolist() == [2, 0]
    assert page.outside == []  # type: ignore[attr-defined]


def test_the_first_boxes_of_pictures_without_any_label(lab: Lab, page: Page) -> None:
    """No labels and no class names yet: the class is typed, and the next box has it already."""
    browse = "browser = od.browse(od.images_dataset(here, ()), keep_edits=False)"
    lab.write("first.ipynb", MAKE, browse, EDITS)
    open_notebook(page, lab, "first.ipynb")
    run_all(page)
    app = app_frame(page, 1)
    annotate(app)
    app.locator('[data-cy="detection-mode"]').click()
    drag(page, app, (0.1, 0.15), (0.5, 0.6))
    with page.expect_response(_saves):
        label(app).locator("input").fill("nut")
        label(app).locator("input").press("Enter")
    drag(page, app, (0.6, 0.6), (0.9, 0.95))
    shot(page, "annotate-first")
    page.keyboard.press("Escape")
    assert ask(page, 2, "read back 6 2 {'nut': 2}")


SUGGEST = """
pictures = od.images_dataset(here, ("red", "blue", "green"))
found = od.Predictions(
    boxes=dataset.boxes, scores=np.linspace(0.9, 0.4, 12), classes=[1, 1] + [0, 1] * 5, images=dataset.box_images,
    class_names=pictures.class_names, image_ids=tuple(pictures.image_ids),
)
suggestions = od.Prelabels(
    pictures=pictures, suggestions=found, doubt=np.array([5.0, 0, 1, 2, 3, 4]), score=0.4, reason="as asked for"
)
browser = od.browse(suggestions, keep_edits=False)
"""
MORE = """
edits = browser.edits()
print("accepted", list(edits.image_ids), [edits.class_names[k] for k in edits.box_classes])
print(browser.changes())
more = od.concatenate({"": dataset.select([1, 2]).replace(image_splits=["train", "val"]), "train": edits})
print("more", len(more), more.split_counts())
"""


def test_suggestions_are_corrected_and_accepted_by_clicks(lab: Lab, page: Page) -> None:
    lab.write("suggest.ipynb", MAKE, SUGGEST, MORE)
    open_notebook(page, lab, "suggest.ipynb")
    run_all(page)
    app = app_frame(page, 1)
    assert app.locator('[data-cy="looker"]').count() == 6
    app.get_by_text("to do, least sure first").wait_for()
    assert "more 2 {'train': 1, 'val': 1}" in output(page, 2, "more"), (
        "nothing is a label before it is accepted"
    )
    shot(page, "prelabel-grid")

    # the least sure picture: its red square was called blue; corrected and accepted beside it
    annotate(app)
    page.mouse.click(*point(app, 0.3, 0.35))
    with page.expect_response(_saves):
        label(app).get_by_text("red", exact=True).click()
    shot(page, "prelabel-correct")
    app.locator('[data-cy="annotate-edit-back"]').click()
    app.locator('[data-cy="sidebar"]').last.get_by_text("tags", exact=True).click()
    with page.expect_response(_saves):
        app.locator('[role="checkbox"][id$="accept"]').click()
    shot(page, "prelabel-accept")
    close(app)
    said = ask(page, 2, "accepted ['0.jpg'] ['red', 'blue']")
    assert "boxes renamed: 1 (0.jpg, suggestion 1: blue -> red)" in said

    # another one as it stands, by a tag given in the grid
    select_image(app, 1)
    app.locator('[data-cy="action-tag-sample-labels"]').click()
    app.locator('[data-cy="sample-tag-input"]').fill("accept")
    app.locator('[data-cy="sample-tag-input"]').press("Enter")
    app.get_by_text("Apply", exact=True).click()
    assert "more 4 {'train': 3, 'val': 1}" in ask(page, 2, "accepted ['0.jpg', '5.jpg']")
    assert page.outside == []  # type: ignore[attr-defined]
