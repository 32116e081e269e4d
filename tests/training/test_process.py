"""What a worker process sets up before it trains."""

from pathlib import Path

import torch

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
