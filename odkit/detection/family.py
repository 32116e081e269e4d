"""What a family of detectors answers, so that nothing else has to know what its modules are made of.

A family is a file of functions with these names (`torchvision.py`, `dfine.py`); a detector's entry in the catalogue
names its own, and says how a module is built. Predicting, saving and loading are the same for all: `inference.py` and
`detector.py`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from odkit.detection.batch import Inputs
from odkit.detection.fixed import Fixed


class InputFormat(NamedTuple):
    """Images as a module takes them: (colours of 0 to 1 - `mean`) / `std`, sides a multiple of `divisible` pixels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    divisible: int


class ClassRows(NamedTuple):
    """Weights made for some classes that are to start others; the background counts where a module has one."""

    old: int  # classes that they were made for
    new: int  # classes that they are wanted for
    pairs: Sequence[tuple[int, int]]  # index of a class in the new table, and its index in the old one


class Published(NamedTuple):
    """Published weights, for those whose file is not called by its hash; otherwise as torchvision describes its own."""

    url: str
    file_name: str  # on this machine and on a mirror
    sha256: str  # of the file, or as many of its first digits as are known; "": it is not downloaded, but can be named
    meta: Mapping[str, Any]  # "categories": the class table; "num_params"; "_metrics"


class Family(Protocol):
    """A family of detectors: what its modules have in common."""

    @property
    def BACKBONE(self) -> str:
        """Where the backbone is in a module: the name of the submodule."""

    @property
    def STAGE(self) -> re.Pattern[str]:
        """Matches the names of the backbone's parameters; its group is the stage they belong to."""

    def input_format(self, module: Any, /) -> InputFormat:
        """The images that a module takes."""

    def features(self, module: Any, images: Tensor, /) -> list[Tensor]:
        """The backbone's feature maps [B, C, h, w] of images as `Inputs` has them, by level."""

    def losses(self, module: Any, inputs: Inputs, /) -> dict[str, Tensor]:
        """Losses of a batch by term, float32 scalars; the same terms for every batch."""

    def detections(self, module: Any, inputs: Inputs, /) -> list[dict[str, Tensor]]:
        """What is found in each image.

        Returns:
            One dict an image: `boxes` float32 [n, 4] xyxy in pixels, `scores` float32 [n] descending, `labels`
            int64 [n] as the module counts them.
        """

    @property
    def LAYERS(self) -> tuple[str, ...]:
        """The submodules that may compute in less than float32: nothing in them holds a pixel."""

    def fixed(self, module: Any, images: Tensor, sizes: Tensor, /) -> Fixed:
        """What is found in images, as a graph can say it: in shapes that do not depend on it.

        Args:
            module: In evaluation mode.
            images: As `Inputs` has them, float32 [B, 3, H, W].
            sizes: Width and height of each image without padding, int64 [B, 2].
        """

    def carry_rows(self, key: str, given: Tensor, own: Tensor, rows: ClassRows, /) -> Tensor | None:
        """A layer's `own` weights with the rows of the classes that `given` knows; None where the shapes do not fit."""

    def from_published(self, state: Mapping[str, Tensor], /) -> dict[str, Tensor]:
        """The state dict of a published file under the names that modules have."""


def backbone(family: Family, module: nn.Module) -> nn.Module:
    """A module's backbone."""
    return module.get_submodule(family.BACKBONE)
