"""Every test of training: one thread, so that sums have one order."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # torch goes by MKL's where both are there
        monkeypatch.setenv(name, "1")  # for the workers: as many as this process, and the same order of sums
    torch.set_num_threads(1)
