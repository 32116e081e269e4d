"""A picture of one's own given to a detector in the cell, by upload and by path, and the score moved."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from odkit.detection.detector import build_detector, save_detector
from tests.browser.lab import Lab, open_notebook, run_cell, shot
from tests.helpers import squares

pytestmark = [pytest.mark.browser, pytest.mark.notebook]


def test_a_picture_is_uploaded_and_the_score_moves(lab: Lab, page: Page, tmp_path: Path) -> None:
    dataset = squares(tmp_path, 2, size=200, val=0)
    first, second = map(Path, dataset.image_paths)
    detector = build_detector("starter", ["blue", "red"], image_size=64)
    save_detector(detector, lab.folder / "detector.safetensors")
    lab.write(
        "try.ipynb",
        f"import odkit as od\ntried = od.try_it('detector.safetensors', {str(first)!r}, score=0.05)\ntried",
        "print(tried.name, len(tried.found), tried.score)",
    )
    open_notebook(page, lab, "try.ipynb")
    run_cell(page, 0)
    trial = page.locator(".odkit-try")
    expect(trial.get_by_text("000.png: ")).to_be_visible()
    picture = trial.locator("img")
    expect(picture).to_have_js_property("naturalWidth", 200)
    before = picture.get_attribute("src")
    with page.expect_file_chooser() as chooser:
        trial.get_by_role("button", name="Your picture").click()
    chooser.value.set_files(second)
    expect(trial.get_by_text("001.png: ")).to_be_visible()
    expect(picture).not_to_have_attribute("src", before or "")
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    with page.expect_file_chooser() as chooser:
        trial.get_by_role("button", name="Your picture").click()
    chooser.value.set_files(notes)
    expect(trial.get_by_text("notes.txt cannot be read as a picture")).to_be_visible()
    path = trial.locator("input[type=text]")
    path.fill(str(first))
    path.press("Enter")
    expect(trial.get_by_text("000.png: ")).to_be_visible()
    handle = trial.locator(".noUi-handle")
    handle.focus()
    page.keyboard.press("End")
    expect(trial.get_by_text("nothing, at a score of 1.00 or more")).to_be_visible()
    shot(page, "try-it")
    run_cell(page, 1)
    expect(page.get_by_text("1.0", exact=False).last).to_be_visible()
    lab.stop_kernels()
