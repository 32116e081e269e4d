"""What a worker process sets up before it trains, and what it keeps from one try to the next."""

import os
import signal
import weakref
from pathlib import Path

import pytest
import torch

from odkit.training.errors import ShortOfMemoryError
from odkit.training.trainer import Trainer
from tests.helpers import squares, trained


def test_a_fixed_order_is_for_the_run_that_asks_for_it(tmp_path: Path) -> None:
    dataset = squares(tmp_path / "images", 8)
    cudnn = torch.backends.cudnn
    was = (cudnn.deterministic, cudnn.benchmark)
    try:
        cudnn.benchmark = True
        trained(dataset, tmp_path, "plain", epochs=1)
        assert not torch.are_deterministic_algorithms_enabled()
        assert not cudnn.deterministic
        trained(dataset, tmp_path, "fixed", epochs=1, deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
    finally:
        torch.use_deterministic_algorithms(False)
        cudnn.deterministic, cudnn.benchmark = was


def test_nothing_of_a_pass_that_did_not_fit_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights and moments of the first try would leave the second one less room; a signal between them counts."""
    tries: list[weakref.ref[Trainer]] = []
    train = Trainer.train

    def short(self: Trainer) -> str:
        assert [one() for one in tries] == [None] * len(tries)
        tries.append(weakref.ref(self))
        if len(tries) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            raise ShortOfMemoryError("Tried to allocate 2 GiB")
        return train(self)

    monkeypatch.setattr(Trainer, "train", short)
    run = trained(squares(tmp_path / "images", 8), tmp_path, "short", epochs=3)
    assert len(tries) == 2
    assert run.state == "stopped"
