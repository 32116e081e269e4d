"""A new person's first minutes in JupyterLab: nothing asks them anything, and they choose their folder."""

import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.lab import Lab, open_notebook, output, run_cell, shot, start_lab, stop_lab
from tests.helpers import make_lab

pytestmark = [pytest.mark.browser, pytest.mark.notebook]

CHOOSE = "import odkit as od\nchosen = od.choose_folder()\nchosen"


def test_make_lab_asks_nothing_about_news(chromium: str, tmp_path: Path, page: Page) -> None:
    application = tmp_path / "venv" / "share" / "jupyter" / "lab"
    make_lab(tmp_path / "venv")
    for part in ("static", "schemas", "themes"):
        (application / part).symlink_to(Path(sys.prefix) / "share" / "jupyter" / "lab" / part)
    running = start_lab(tmp_path / "work", application=application)
    try:
        running.write("a.ipynb", "1 + 1")
        open_notebook(page, running, "a.ipynb")
        run_cell(page, 0)
        output(page, 0, "2")
        page.wait_for_timeout(3000)  # the question comes with the page's last plugins
        expect(page.get_by_text("Jupyter news")).to_have_count(0)
        shot(page, "nothing-asked")
        settings = tmp_path / "work-settings"
        assert not [path for path in settings.rglob("*notification*") if path.is_file()], (
            "nothing was decided"
        )
    finally:
        running.stop_kernels()
        stop_lab(running)


def test_a_folder_is_chosen_by_keyboard_and_remembered(lab: Lab, page: Page) -> None:
    photos = lab.folder / "my photos"
    photos.mkdir()
    for name in ("a.jpg", "b.jpg", "a.xml"):
        (photos / name).touch()
    lab.write("choose.ipynb", CHOOSE, "print(chosen.folder)")
    lab.write("other.ipynb", "import odkit as od\nprint(od.chosen_folder())\nod.choose_folder().use(None)")
    open_notebook(page, lab, "choose.ipynb")
    run_cell(page, 0)
    chooser = page.locator(".odkit-chooser")
    path = chooser.locator("input[type=text]")
    path.fill(str(lab.folder))
    path.press("Enter")
    listed = chooser.locator("select option")
    expect(listed.filter(has_text="2 pictures, 1 .xml file")).to_have_count(1)
    path.fill("~nobody-of-that-name")
    path.press("Enter")
    expect(chooser.get_by_text("Could not determine home directory")).to_be_visible()
    expect(path).to_have_value(str(lab.folder))  # what the buttons are about
    path.press("End")
    page.keyboard.type("/my photos")
    page.keyboard.press("Enter")
    expect(chooser.get_by_text("In this folder: 2 pictures, 1 .xml file.")).to_be_visible()
    chooser.get_by_role("button", name="Use this folder").focus()
    page.keyboard.press("Space")
    chooser.get_by_text(f"Chosen: {photos}, with 2 pictures, 1 .xml file").wait_for()
    shot(page, "chooser")
    run_cell(page, 1)
    output(page, 1, str(photos))
    open_notebook(page, lab, "other.ipynb")
    run_cell(page, 0)
    output(page, 0, str(photos))
    lab.stop_kernels()
