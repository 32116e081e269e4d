"""The report in a real Chromium: on a phone and a desk, in both themes, on paper, with names that want to be HTML."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from odkit.analysis import evaluate
from odkit.runs.report import report
from tests.helpers import found_in, squares

pytestmark = pytest.mark.browser

HOSTILE = "<script>document.title = 'taken'</script>"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an evaluation with long and odd names."""
    folder = tmp_path_factory.mktemp("report")
    data = squares(folder / "images", 12, size=96, val=0)
    long = "a_name_without_any_place_to_break_it_" * 3
    data = replace(data, name=f"<img src=http://example.org/x.png> {long}", class_names=(HOSTILE, long))
    return report(evaluate(data, found_in(data)), folder / "report.html")


def opened(browser: Browser, file: Path, width: int, theme: str) -> tuple[BrowserContext, Page, list[str]]:
    """The page, and every address that it asked for."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    return context, page, asked


@pytest.mark.parametrize("width", [390, 1400])
def test_it_fits_and_asks_for_nothing(chrome: Browser, file: Path, width: int) -> None:
    backgrounds = set()
    for theme in ("light", "dark"):
        context, page, asked = opened(chrome, file, width, theme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [url for url in asked if not url.startswith("data:image/jpeg")] == [file.as_uri()]
        assert page.locator("svg.photo image").count() > 0
        ap = page.locator("table.classes tbody td").first.bounding_box()
        assert ap and ap["x"] + ap["width"] <= width  # what matters most stands where nobody has to scroll
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        ink = page.evaluate("getComputedStyle(document.querySelector('.chart svg text')).fill")
        assert (max(map(int, re.findall(r"\d+", ink))) > 128) == (theme == "dark")  # figures follow the theme
        context.close()
    assert len(backgrounds) == 2


def test_names_stay_text(chrome: Browser, file: Path) -> None:
    context, page, _ = opened(chrome, file, 1400, "light")
    assert page.title().endswith(": report")
    assert page.evaluate("document.scripts.length") == 0
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.get_by_text(HOSTILE).count() > 1
    context.close()


def test_it_prints(chrome: Browser, file: Path) -> None:
    context, page, _ = opened(chrome, file, 390, "dark")
    paper = page.pdf(prefer_css_page_size=True)
    assert paper.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 12
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 680, "height": 900})  # A4 between its margins
    for value in page.locator(".tile .value").all():
        assert value.evaluate("e => e.scrollWidth <= e.clientWidth && e.offsetHeight < 50")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    context.close()
