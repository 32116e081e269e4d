"""Small data sets of a person's own, as odd as they come, drawn from a seed and written in several formats."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from odkit.data import Dataset
from odkit.data.formats import write_dataset

SPLITS = ("train",) * 10 + ("val",) * 4 + ("test",) * 2


def drawn(
    folder: Path,
    *,
    names: Sequence[str],
    images: int = len(SPLITS),
    boxes: int = 2,
    side: tuple[int, int] = (24, 40),
    size: int = 96,
    mode: str = "RGB",
    splits: Sequence[str] | None = None,
    seed: int = 0,
) -> Dataset:
    """Filled squares on noise, in the colour of their class; `side` is their least and greatest length in pixels."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    colours = np.random.default_rng(99).integers(0, 255, (len(names), 3))
    columns: dict[str, list[Any]] = {"image_paths": [], "boxes": [], "box_classes": [], "box_images": []}
    for index in range(images):
        pixels = rng.integers(100, 130, (size, size, 3)).astype(np.uint8)
        for number in range(boxes):
            label = (index * boxes + number) % len(names)
            wide, high = rng.integers(side[0], side[1] + 1, 2)
            x, y = rng.integers(0, size - wide), rng.integers(0, size - high)
            pixels[y : y + high, x : x + wide] = colours[label]
            columns["boxes"].append([x, y, x + wide, y + high])
            columns["box_classes"].append(label)
            columns["box_images"].append(index)
        path = folder / f"photo_{index:02d}.png"
        Image.fromarray(pixels).convert(mode).save(path)
        columns["image_paths"].append(str(path))
    return Dataset(
        name=folder.name,
        root=folder,
        class_names=tuple(names),
        image_sizes=np.full((images, 2), size, np.int32),
        image_splits=None if splits is None else np.array(splits, object),
        **columns,
    )


def one_class(folder: Path) -> Path:
    return write_dataset(
        drawn(folder / "drawn", names=["part"], splits=SPLITS), folder / "parts", format="voc"
    )


def twelve_pictures(folder: Path) -> Path:
    return write_dataset(
        drawn(folder / "drawn", names=["cup", "plate"], images=12), folder / "cups", format="coco"
    )


def no_labels_in_val(folder: Path) -> Path:
    whole = drawn(folder / "drawn", names=["cat", "dog"], splits=SPLITS)
    labelled = whole.image_splits[whole.box_images] != "val"
    return write_dataset(whole.select_boxes(labelled), folder / "pets", format="yolo")


def sixty_classes(folder: Path) -> Path:
    names = [f"kind number {k}" for k in range(60)]
    whole = drawn(folder / "drawn", names=names, boxes=8, side=(14, 24), splits=SPLITS)
    return write_dataset(whole, folder / "kinds", format="coco")


def boxes_of_5_pixels(folder: Path) -> Path:
    whole = drawn(folder / "drawn", names=["bead", "seed"], boxes=4, side=(5, 5), size=128, splits=SPLITS)
    return write_dataset(whole, folder / "beads", format="yolo")


def grey_pngs(folder: Path) -> Path:
    whole = drawn(folder / "drawn", names=["crack", "pore"], mode="L", splits=SPLITS)
    return write_dataset(whole, folder / "scans", format="voc")


def tensorflow_tutorial(folder: Path) -> Path:
    """Pictures with VOC's XML beside them in images/train and images/test, the same boxes in images/*_labels.csv."""
    whole = drawn(folder / "drawn", names=["ace", "king", "queen"], splits=["train"] * 12 + ["test"] * 4)
    root = folder / "card_detector"
    for split in ("train", "test"):
        place = root / "images" / split
        place.mkdir(parents=True)
        rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
        part = whole.split(split)
        for image, path in enumerate(map(Path, part.image_paths)):
            Image.open(path).convert("RGB").save(place / f"{path.stem}.jpg", quality=92)
            width, height = part.image_sizes[image]
            objects = ""
            for row in range(*part.boxes_of(image).indices(part.num_boxes)):
                name, corners = part.class_names[part.box_classes[row]], part.boxes[row].astype(int)
                rows.append(f"{path.stem}.jpg,{width},{height},{name},{','.join(map(str, corners))}")
                tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
                box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
                objects += f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
            size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
            page = f"<annotation><filename>{path.stem}.jpg</filename>{size}{objects}</annotation>"
            (place / f"{path.stem}.xml").write_text(page)
        (root / "images" / f"{split}_labels.csv").write_text("\n".join(rows) + "\n")
    return root


ODD_SETS: dict[str, Callable[[Path], Path]] = {
    make.__name__: make
    for make in (
        one_class,
        twelve_pictures,
        no_labels_in_val,
        sixty_classes,
        boxes_of_5_pixels,
        grey_pngs,
        tensorflow_tutorial,
    )
}
"""Each draws its set into a new folder and gives the folder that a person would choose."""
