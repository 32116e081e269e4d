"""Small datasets with real image files, built in a moment."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from odkit.dataset import Dataset


def squares(folder: Path, images: int = 16, *, size: int = 64, seed: int = 0, val: float = 0.25) -> Dataset:
    """Blue and red squares on grey noise: two classes, two boxes an image, splits dealt."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[Any]] = {"image_paths": [], "boxes": [], "box_classes": [], "box_images": []}
    for index in range(images):
        pixels = rng.integers(90, 120, (size, size, 3)).astype(np.uint8)
        for kind, colour in enumerate(((20, 20, 250), (250, 20, 20))):
            x, y = rng.integers(0, size - 20, 2)
            pixels[y : y + 20, x : x + 20] = colour
            columns["boxes"].append([x, y, x + 20, y + 20])
            columns["box_classes"].append(kind)
            columns["box_images"].append(index)
        path = folder / f"{index:03d}.png"
        Image.fromarray(pixels).save(path)
        columns["image_paths"].append(str(path))
    dataset = Dataset(
        name="squares",
        root=folder,
        class_names=("blue", "red"),
        image_sizes=np.full((images, 2), size, np.int32),
        **columns,
    )
    return dataset.with_splits(val=val) if val else dataset
