"""What the image files say, as columns over the images of a dataset."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkit.data.dataset import Dataset
from odkit.data.image_facts import inspect_images
from odkit.system import cpu_count


@dataclass(frozen=True, eq=False)
class Files:
    """What was read from the image files, as columns over the images."""

    stored: NDArray[np.int64]  # [N, 2] width, height; 0 where unreadable
    orientations: NDArray[np.int64]
    lengths: NDArray[np.int64]
    problems: NDArray[np.object_]
    details: NDArray[np.object_]
    modes: NDArray[np.object_]
    pixels: NDArray[np.object_]
    looks: NDArray[np.object_]  # grey thumbnails, b"" where not decoded
    num_workers: int

    @property
    def known(self) -> NDArray[np.bool_]:
        return self.stored[:, 0] > 0

    @property
    def upright(self) -> NDArray[np.int64]:
        return np.where(self.orientations[:, None] >= 5, self.stored[:, ::-1], self.stored)


def read_files(dataset: Dataset, decode: bool, num_workers: int | None) -> Files:
    paths = dataset.image_paths.tolist()
    num_workers = num_workers or cpu_count() + 2
    label = f"audit: {'decoding images' if decode else 'reading image headers'}"
    facts = inspect_images(paths, decode=decode, num_workers=num_workers, label=label)

    def column(name: str, kind: type) -> NDArray[Any]:
        values: NDArray[Any] = np.empty(len(facts), kind)
        values[:] = [getattr(one, name) for one in facts]
        return values

    return Files(
        stored=np.stack([column("width", np.int64), column("height", np.int64)], axis=1),
        orientations=column("orientation", np.int64),
        lengths=column("length", np.int64),
        problems=column("problem", object),
        details=column("detail", object),
        modes=column("mode", object),
        pixels=column("pixels", object),
        looks=column("look", object),
        num_workers=num_workers,
    )
