"""The demo as it lies on the disk, read without odkit."""

from pathlib import Path

import orjson

from odkit.data.dataset import Dataset
from odkit.data.image_facts import file_hash


def contents_of(folder: Path) -> dict[str, str]:
    """Hash of every file; of a dataset.npz the fingerprint, as it names the folder it lies in."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (
            Dataset.load(path).fingerprint() if path.suffix == ".npz" else file_hash(path)
        )
        for path in files
    }


def labels_of(folder: Path) -> dict[str, dict]:
    """COCO's images by id, each with its annotations under "labels" and its split."""
    images = {}
    for split in ("train", "val", "test"):
        coco = orjson.loads((folder / "annotations" / f"instances_{split}.json").read_bytes())
        names = {c["id"]: c["name"] for c in coco["categories"]}
        here = {image["id"]: {**image, "labels": {}, "split": split} for image in coco["images"]}
        for label in coco["annotations"]:
            x, y, w, h = label["bbox"]
            here[label["image_id"]]["labels"][label["id"]] = (
                [x, y, x + w, y + h],
                names[label["category_id"]],
            )
        images.update({f"{split}/{image['file_name']}": image for image in here.values()})
    return images
