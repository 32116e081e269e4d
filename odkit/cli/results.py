"""Whose results a command is given: a run's or a detector's, to be made now, or those that any tool has written."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from odkit.cli.flags import Numbers
from odkit.system import InputError, MissingFileError, counted

if TYPE_CHECKING:
    from odkit.data import Dataset, Predictions

Kind = Literal["detector", "coco", "yolo", "predictions"]
_TITLES = {"coco": "COCO results", "yolo": "YOLO's text files", "predictions": "saved Predictions"}


def kind_of(name: str) -> Kind:
    """What a name on the command line is: results of a tool by their suffix or what lies in the folder.

    Raises:
        InputError: A folder is a run and holds text files too.
        MissingFileError: There is no such file of results.
    """
    path = Path(name)
    if path.suffix.lower() in (".json", ".npz") and not path.exists():
        raise MissingFileError(f"there is no file {name}")
    if path.is_file() and path.suffix.lower() in (".json", ".npz"):
        return "coco" if path.suffix.lower() == ".json" else "predictions"
    if not path.is_dir():
        return "detector"
    texts = any(path.glob("*.txt")) or any((path / "labels").glob("*.txt"))
    run = (path / "config.json").exists()
    if texts and run:
        raise InputError(
            f"{name} is a run, and there are text files in it, which may be YOLO's: give the folder of those "
            "themselves, or move them"
        )
    return "yolo" if texts else "detector"


def read_results(name: str, dataset: "Dataset", numbers: Numbers) -> "Predictions":
    """What a tool has written, as predictions on the dataset's images."""
    from odkit.data import Predictions

    kind = kind_of(name)
    pairs = [text.partition("=") for text in numbers.class_numbers]
    if wrong := [key for key, _, class_name in pairs if not class_name]:
        raise InputError(f"--class-numbers wants NUMBER=NAME, not {wrong[0]!r} alone")
    table = {key: class_name for key, _, class_name in pairs} or None
    if kind == "yolo":
        return Predictions.from_yolo(name, dataset, class_names=table)
    if kind == "predictions":
        return Predictions.load(name)
    return Predictions.from_coco(
        name,
        dataset,
        category_ids=table or numbers.category_ids,
        image_ids=numbers.image_ids,
        ids_from=numbers.ids_from,
    )


def images_judged(
    name: str, found: "Predictions", dataset: "Dataset", split: str | None, only_judged: bool
) -> "Dataset":
    """The images of a dataset on which results are judged; what is chosen is said on stderr.

    Args:
        name: What the results are called on the command line.
        found: The results, on the whole dataset.
        dataset: The whole dataset.
        split: The split that is wanted; "" for all images; None for the one that all results are of, else all images.
        only_judged: Leave out the images that the results do not speak of.
    """
    import numpy as np

    kind = _TITLES[kind_of(name)]
    place = {image_id: row for row, image_id in enumerate(dataset.image_ids)}
    rows = np.unique(found.images)
    spoken = [place[found.image_ids[k]] for k in rows.tolist() if found.image_ids[k] in place]
    looked_at = [place[image_id] for image_id in found.image_ids if image_id in place]
    splits = set(dataset.image_splits[spoken].tolist())
    judged = dataset
    if split:
        judged = dataset.split(split)
        if splits and split not in splits:
            others = ", ".join(sorted(other or "no split" for other in splits))
            raise InputError(
                f"{name} speaks of images in {others} alone, none of them in {split}; leave --split out"
            )
    elif split is None and len(splits) == 1 and (splits < set(dataset.image_splits.tolist())):
        (own,) = splits
        judged = dataset.select(dataset.image_splits == own)
        print(
            f"{name}: {kind}, all of images in {own or 'no split'}, which are judged (--split)",
            file=sys.stderr,
        )
    else:
        print(f"{name}: {kind}", file=sys.stderr)
    if only_judged or (split is None and len(looked_at) < len(dataset)):
        among = set(spoken if only_judged else looked_at)
        keep = [k for k, image_id in enumerate(judged.image_ids) if place[image_id] in among]
        if len(keep) < len(judged):
            print(
                f"judged on the {counted(len(keep), 'image')} of {len(judged):,} that the results speak of",
                file=sys.stderr,
            )
            judged = judged.select(keep)
    return judged
