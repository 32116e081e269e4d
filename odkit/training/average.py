"""The averaged weights: what is judged and saved."""

import copy
from typing import Any

import torch
from torch import Tensor

from odkit.detection import Detector


class Average:
    """An exponential average of a detector's weights and buffers whose decay rises from 0.1 to `decay`.

    So the first epochs already show in it. The count is the host's own number: nothing is asked of the device.

    Attributes:
        detector: The detector with the averaged weights.
        count: Updates so far; the first one copies.
    """

    def __init__(self, detector: Detector, decay: float) -> None:
        self.detector, self.decay, self.count = copy.deepcopy(detector).requires_grad_(False), decay, 0
        pairs = list(zip(_tensors(self.detector), _tensors(detector), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Follow the detector by one step."""
        keep = min(self.decay, (1 + self.count) / (10 + self.count)) if self.count else 0.0
        mine, theirs = map(list, zip(*self._averaged, strict=True))
        torch._foreach_lerp_(mine, theirs, 1 - keep)
        if self._copied:
            mine, theirs = map(list, zip(*self._copied, strict=True))
            torch._foreach_copy_(mine, theirs)
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        """Weights and count, as plain tensors and numbers."""
        return {"detector": self.detector.module.state_dict(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, or what torch's AveragedModel did in checkpoints of earlier versions."""
        if "n_averaged" in state:
            weights = {key.removeprefix("module.module."): value for key, value in state.items()}
            state = {"count": weights.pop("n_averaged"), "detector": weights}
        self.detector.module.load_state_dict(state["detector"])
        self.count = int(state["count"])


def _tensors(detector: Detector) -> list[Tensor]:
    return [tensor.detach() for tensor in (*detector.parameters(), *detector.buffers())]
