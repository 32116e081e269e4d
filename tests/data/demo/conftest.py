"""The demo, clean and with faults, drawn once for its tests; and a cache of each test's own."""

from pathlib import Path

import pytest

from odkit.data.demo.dataset import write_demo


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo") / "clean", images=40, seed=3)


@pytest.fixture(scope="session")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo") / "faulty", images=60, seed=3, faults=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ODKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
