"""Every test of training: one thread, so that sums have one order."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "OMP_NUM_THREADS", "1"
    )  # for the workers: as many as this process, and the same order of sums
    torch.set_num_threads(1)
