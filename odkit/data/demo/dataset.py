"""Draws the demo dataset: workshop parts on a bench, as photographs that never were.

`demo_dataset()` gives it as a Dataset (drawn once, then kept), `write_demo()` writes it as a COCO folder that any tool
reads. With `faults=True` the labels carry the usual faults, each one recorded, so that the audit and the search for
label errors can be measured against the truth.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from odkit.data.dataset import Dataset
from odkit.data.demo.faults import Label, Picture, Planting
from odkit.data.demo.parts import PARTS, demo_image, save_jpeg
from odkit.data.texts import Texts
from odkit.system import FileInTheWayError, InputError, cache_folder, progress_bar, sync_folder, sync_tree

DEMO_VERSION = 4
"""Counts the changes that alter the pictures or boxes; part of the name of the cached folder."""
FEWEST_IMAGES = 3  # one a split
FEWEST_WITH_FAULTS = 60  # each fault gets an image of its own


# -- files -----------------------------------------------------------------------------------------------------------


def demo_dataset(
    images: int = 400, *, seed: int = 0, faults: bool = False, folder: Path | str | None = None
) -> Dataset:
    """The demo: workshop parts on a bench, five classes, split into "train", "val" and "test" (70, 20 and 10 %).

    Drawn at the first call and kept; the next call with the same arguments only reads it.

    Args:
        images: How many images; at least 3, with faults at least 60.
        seed: Another seed gives other images.
        faults: Plant the usual faults in labels and files; `demo_faults()` lists them.
        folder: Where to keep it. Default: a folder of its own in `$ODKIT_CACHE`, else in the user's cache folder, else
            (where that cannot be written) in the system's temporary folder.

    Raises:
        ValueError: Too few images, or a negative seed.
        FileExistsError: `folder` holds something else.
    """
    _check(images, seed, faults)
    if folder is None:
        folder = cache_folder() / _key(images, seed, faults)
        if folder.exists() and not _is_complete(folder, images, seed, faults):
            shutil.rmtree(folder, ignore_errors=True)  # ours, and damaged
    root = write_demo(folder, images=images, seed=seed, faults=faults)
    if faults:  # read as a stranger's folder would be: that is what the faults are for
        from odkit.data.formats import load_dataset

        return load_dataset(root).replace(name="demo with faults")
    dataset = Dataset.load(root / "dataset.npz")
    paths = Texts.of(root / image_id for image_id in dataset.image_ids)
    return dataset.replace(root=root, image_paths=paths)


def write_demo(folder: Path | str, *, images: int = 400, seed: int = 0, faults: bool = False) -> Path:
    """Write the demo as a COCO folder: pictures in train/, val/ and test/, labels in annotations/instances_*.json.

    It is drawn beside the folder and renamed when whole, so that an interrupted call leaves nothing half done and two
    processes may write at once. A folder that already holds this very demo is left as it is.

    Args:
        folder: Where to; it must not exist or be empty.
        images: How many images; at least 3, with faults at least 60.
        seed: Another seed gives other images.
        faults: Plant the usual faults and list them in faults.json.

    Returns:
        The folder's absolute path.

    Raises:
        ValueError: Too few images, or a negative seed.
        FileExistsError: The folder holds something else, or is a file.
    """
    _check(images, seed, faults)
    folder = Path(os.path.abspath(os.path.expanduser(folder)))
    if _is_complete(folder, images, seed, faults):
        return folder
    _refuse_foreign(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    inside = folder if folder.exists() and not os.access(folder.parent, os.W_OK) else folder.parent
    workshop = Path(tempfile.mkdtemp(prefix=f"{_DRAWING}{folder.name}-", dir=inside))
    try:
        workshop.chmod(0o755)  # mkdtemp's folders are closed to others
        _draw_all(workshop, folder, images, seed, faults)
        sync_tree(workshop)
        _move(workshop, folder, images, seed, faults)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return folder


_DRAWING = ".drawing-"  # how the folders begin in which an unfinished demo lies
_SPLITS = {"train": 0.7, "val": 0.2, "test": 0.1}


def _check(images: int, seed: int, faults: bool) -> None:
    fewest = FEWEST_WITH_FAULTS if faults else FEWEST_IMAGES
    if images < fewest:
        why = (
            "each planted fault needs an image of its own"
            if faults
            else "one for each of train, val and test"
        )
        raise InputError(f"images={images} is too few: at least {fewest} ({why})")
    if seed < 0:
        raise InputError(f"seed={seed} must be 0 or more")


def _key(images: int, seed: int, faults: bool) -> str:
    return f"demo-v{DEMO_VERSION}-{images}-seed{seed}{'-faults' if faults else ''}"


def _is_complete(folder: Path, images: int, seed: int, faults: bool) -> bool:
    """Whether the folder holds this very demo, whole: demo.json is written last, and all files are still there."""
    try:
        marker = orjson.loads((folder / "demo.json").read_bytes())
        files = sum(len(list(os.scandir(folder / split))) for split in _SPLITS)
    except (OSError, orjson.JSONDecodeError):
        return False
    return bool(marker.get("demo") == _key(images, seed, faults) and marker.get("files") == files)


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileInTheWayError(f"{folder} is a file; the demo needs a folder: give another path")
    there = [entry.name for entry in os.scandir(folder) if not entry.name.startswith(_DRAWING)]
    if "demo.json" in there:
        raise FileInTheWayError(
            f"{folder} holds another demo (other images, seed, faults or version, or files missing); "
            "delete it or give another folder"
        )
    if there:
        some = ", ".join(sorted(there)[:3]) + (", ..." if len(there) > 3 else "")
        raise FileInTheWayError(f"{folder} is not empty (it holds {some}); give a new or an empty folder")


def _sweep(folder: Path) -> None:
    """Remove what interrupted calls left behind: unfinished drawings a day old."""
    for place in (folder.parent, folder):
        if place.is_dir():
            for left in place.glob(f"{_DRAWING}{folder.name}-*"):
                try:
                    if time.time() - left.stat().st_mtime > 86_400:
                        shutil.rmtree(left, ignore_errors=True)
                except OSError:
                    continue


def _move(workshop: Path, folder: Path, images: int, seed: int, faults: bool) -> None:
    """Put the finished drawing where it belongs: in one step, or into a folder that cannot be replaced (a mount)."""
    try:
        if workshop.parent != folder:
            os.replace(workshop, folder)
            return
    except OSError:
        if _is_complete(folder, images, seed, faults):  # another process was faster
            return
        _refuse_foreign(folder)
    folder.mkdir(exist_ok=True)
    for entry in sorted(workshop.iterdir(), key=lambda path: path.name == "demo.json"):
        shutil.move(entry, folder / entry.name)
    sync_tree(folder)


def _draw_all(workshop: Path, folder: Path, images: int, seed: int, faults: bool) -> None:
    """Draw everything in `workshop`; the paths in it are those of `folder`, where it will be."""
    dealt = _deal(images, seed)
    for split in _SPLITS:
        (workshop / split).mkdir()
    (workshop / "annotations").mkdir()
    pictures, number = [], 0
    for index in progress_bar(range(images), desc="drawing the demo", unit="image", delay=1):
        rgb, boxes, classes = demo_image(seed, index)
        picture = Picture(
            index, index + 1, dealt[index], f"bench_{index:04d}.jpg", rgb.shape[1], rgb.shape[0]
        )
        for box, name in zip(boxes.tolist(), (list(PARTS)[k] for k in classes), strict=True):
            number += 1
            picture.labels.append(Label(number, box, name))
        save_jpeg(workshop / picture.id, rgb, seed, index)
        pictures.append(picture)
    names = list(PARTS)
    if faults:
        planted = Planting(workshop, seed, pictures, names, number)
        found = planted.plant()
        (workshop / "faults.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    else:
        _columns(folder, pictures, names).save(workshop / "dataset.npz")
    for split in _SPLITS:
        coco = _coco([p for p in pictures if p.split == split and p.listed], names, split)
        (workshop / "annotations" / f"instances_{split}.json").write_bytes(orjson.dumps(coco))
    (workshop / "README.txt").write_text(_readme(images, seed, faults), encoding="utf-8")
    files = sum(len(list(os.scandir(workshop / split))) for split in _SPLITS)
    (workshop / "demo.json").write_bytes(orjson.dumps({"demo": _key(images, seed, faults), "files": files}))


def _deal(images: int, seed: int) -> list[str]:
    """The split of each image; every split gets at least one."""
    val, test = max(round(images * _SPLITS["val"]), 1), max(round(images * _SPLITS["test"]), 1)
    order = np.random.default_rng([seed, images, 702]).permutation(images)
    splits = np.full(images, "train", object)
    splits[order[:val]] = "val"
    splits[order[val : val + test]] = "test"
    return splits.tolist()


def _columns(folder: Path, pictures: Sequence[Picture], names: Sequence[str]) -> Dataset:
    labels = [(k, label) for k, picture in enumerate(pictures) for label in picture.labels]
    return Dataset(
        name="demo",
        root=folder,
        format="demo",
        class_names=tuple(names),
        image_paths=Texts.of(folder / p.id for p in pictures),
        image_sizes=np.array([(p.width, p.height) for p in pictures], np.int32),
        image_splits=np.array([p.split for p in pictures], object),
        boxes=np.array([label.box for _, label in labels], np.float32),
        box_classes=np.array([names.index(label.name) for _, label in labels], np.int32),
        box_images=np.array([k for k, _ in labels], np.int32),
        box_ids=Texts.of(label.number for _, label in labels),
        notes=(f"drawn by odkit (demo version {DEMO_VERSION})",),
    )


def _coco(pictures: Sequence[Picture], names: Sequence[str], split: str) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        size = {"width": picture.width, "height": picture.height}
        images.append({"id": picture.number, "file_name": picture.file, **size, "license": 1})
        for label in picture.labels:
            left, top, right, bottom = label.box
            width, height = right - left, bottom - top
            annotations.append(
                {
                    "id": label.number,
                    "image_id": picture.number,
                    "category_id": names.index(label.name) + 1,
                    "bbox": [left, top, width, height],
                    "area": abs(width * height),
                    "iscrowd": 0,
                    "segmentation": [],
                }
            )
    return {
        "info": {"description": f"odkit demo, {split}", "version": str(DEMO_VERSION)},
        "licenses": [
            {"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}
        ],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": name, "supercategory": "part"} for k, name in enumerate(names, 1)],
    }


def _readme(images: int, seed: int, faults: bool) -> str:
    told = "Faults were planted on purpose; faults.json lists every one with the truth.\n" if faults else ""
    return (
        f"odkit demo: {images} drawn scenes of workshop parts (seed {seed}, version {DEMO_VERSION}).\n"
        "No photograph, no person, no rights: CC0.\n\n"
        "train/ val/ test/                   the pictures (JPEG)\n"
        "annotations/instances_SPLIT.json    the labels (COCO: boxes as x, y, width, height in pixels)\n"
        f"{told}\n"
        f"The same again: odkit demo FOLDER --images {images} --seed {seed}{' --faults' if faults else ''}\n"
    )
