"""COCO's JSON: what tools and people write into it that is not what the format says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile.cases import dataset_case, refused, right


def picture(path: Path, size: tuple[int, int] = (64, 48), seed: int = 0) -> Path:
    """A picture of noise, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def labels(images: int = 4, **changes: Any) -> dict[str, Any]:
    """COCO's JSON of some images with a box each; `changes` replace whole keys."""
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(images)],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1 + i % 2,
                "bbox": [4, 4, 20, 16],
                "area": 320,
                "iscrowd": 0,
            }
            for i in range(images)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "bird"}],
        **changes,
    }


def write(folder: Path, content: Any, images: int = 4) -> None:
    """The pictures, and the JSON beside them."""
    for i in range(images):
        picture(folder / f"{i}.jpg", seed=i)
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    (folder / "labels.json").write_bytes(text.encode() if isinstance(text, str) else text)


def case(name: str, what: str, content: Any, **expected: Any) -> None:
    dataset_case("coco", name, what, lambda folder: write(folder, content), **expected)


case("good", "nothing wrong", labels(), audit=right("0 fatal"))
case(
    "cut-short",
    "a JSON file that ends in the middle",
    json.dumps(labels())[:200],
    audit=refused("it may be cut short"),
)
