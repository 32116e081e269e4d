"""A real JupyterLab and a real Chromium for the browser tests; `lab.py` has the hands."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.browser.lab import CHROMIUM_ARGUMENTS, Lab, start_lab, stop_lab

PATIENCE = 120_000  # ms; the machine may be busy with other tests


# Of a file, and not of the session: FiftyOne's App takes a few percent of a core for as long as it is open.
@pytest.fixture(scope="module")
def lab(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab with a token."""
    running = start_lab(tmp_path_factory.mktemp("lab"))
    yield running
    stop_lab(running)


@pytest.fixture(scope="module")
def lab_below(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab that serves under a base URL."""
    running = start_lab(tmp_path_factory.mktemp("lab-below"), "/some/prefix/")
    yield running
    stop_lab(running)


@pytest.fixture(scope="session")
def chrome(chromium: str) -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chrome: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A fresh page; what it asks of the outside world is refused and listed in `page.outside`.

    ODKIT_SCREENSHOTS=DIR keeps a picture of it at the end of each test.
    """
    context = chrome.new_context(viewport={"width": 1400, "height": 1400})
    page = context.new_page()
    page.outside = []  # type: ignore[attr-defined]

    def only_loopback(route: Route) -> None:
        if route.request.url.startswith(("http://127.0.0.1", "data:", "blob:")):
            route.continue_()
        else:
            page.outside.append(route.request.url)  # type: ignore[attr-defined]
            route.abort()

    context.route("**/*", only_loopback)
    page.set_default_timeout(PATIENCE)
    yield page
    if folder := os.environ.get("ODKIT_SCREENSHOTS"):
        name = "".join(c if c.isalnum() else "-" for c in request.node.name)
        for number, one in enumerate(context.pages):
            one.screenshot(path=Path(folder, f"{name}-{number}.png"))
    context.close()
