"""Containers for the tests beside this file; `containers.py` has the hands."""

import os

import pytest

from tests.container.containers import TOKEN, Container, free_port


@pytest.fixture
def container(request):
    """Makes containers, and removes them (their logs are shown where the test failed)."""
    made = []

    def make(*command, options=(), work=None, port=None):
        made.append(Container(*command, options=options, work=work, port=port))
        return made[-1]

    yield make
    for one in made:
        print(f"--- {one.name}\n{one.logs()[-6000:]}")
        one.remove()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """One JupyterLab, as the README starts it, that the tests of a file share."""
    work = tmp_path_factory.mktemp("lab") / "work"
    work.mkdir()
    os.chown(work, 1234, 1234) if os.getuid() == 0 else None
    one = Container(options=["-e", f"JUPYTER_TOKEN={TOKEN}"], work=work, port=free_port())
    one.work = work
    one.seconds = one.ready()
    yield one
    print(one.logs()[-6000:])
    one.remove()


def pytest_terminal_summary(terminalreporter):
    """What was measured, at the end of the report."""
    for report in terminalreporter.stats.get("passed", []):
        for what, value in report.user_properties:
            terminalreporter.write_line(f"{what}: {value}")
