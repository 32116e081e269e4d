"""Every image judged by a detector that has not seen it: what finds label faults in training images too."""

from pathlib import Path
from typing import Any

import numpy as np

from odkit.data import Dataset, Predictions
from odkit.runs import RUNS, Run, RunError, fine_tune, open_run
from odkit.system import InputError


def cross_val_predict(
    dataset: Dataset, *, folds: int = 2, folder: str | Path = RUNS, seed: int = 0, **settings: Any
) -> Predictions:
    """Predictions for all images of a dataset, each by a detector that was not trained on it (cross-validation).

    A detector that has learnt a wrong label agrees with it, so the faults in its own training images stay hidden from
    it. Here the images are dealt to `folds` parts (each class in proportion, those that look the same together), and
    for each part a detector is fine-tuned on the others: `folds` runs, one after the other. Interrupted and called
    again, it goes on where it stopped; runs that are finished are not repeated.

    `odkit.mistakes(dataset, cross_val_predict(dataset)).suspects` are then the labels to look at.

    Args:
        dataset: Its own splits play no part.
        folds: Number of parts, 2 or more. More make better detectors and take longer.
        folder: Where run folders are made, one a fold.
        seed: Of the parts and of the runs.
        settings: As `fine_tune` takes them: detector, epochs and the fields of `Settings`.

    Raises:
        InputError: `folds` is less than 2 or more than there are images.
        RunError: A run was stopped before its end; the message says how to go on.
    """
    if not 2 <= folds <= len(dataset):
        raise InputError(f"folds={folds} must be 2 to {len(dataset)}, the number of images of {dataset.name}")
    part = dataset.folds(folds, seed=seed)
    found: list[Any] = [None] * len(dataset)
    for fold in range(folds):
        dealt = dataset.replace(image_splits=np.where(part == fold, "val", "train").astype(object))
        # the parts, and so the runs, go with the data: other data, other names
        name = f"{dataset.name}-{dealt.fingerprint()[:8]}-fold-{fold + 1}-of-{folds}".replace(" ", "-")
        run = _finished(dealt, Path(folder), name, {"seed": seed, "evaluate_every": 10**6, **settings})
        here = run.predictions()
        place = {image_id: i for i, image_id in enumerate(here.image_ids)}
        for image in np.flatnonzero(part == fold).tolist():
            rows = here.of(place[dataset.image_ids[image]])
            found[image] = here.boxes[rows], here.scores[rows], here.classes[rows]
    return Predictions.from_images(found, dataset.class_names, tuple(dataset.image_ids))


def _finished(dataset: Dataset, folder: Path, name: str, settings: dict[str, Any]) -> Run:
    """The run of that name, trained to its end."""
    if not (folder / name).exists():
        run = fine_tune(dataset, folder=folder, name=name, **settings)
    else:
        run = open_run(folder / name)
        if run.alive:
            run.wait()
        elif run.state != "finished":
            run.resume()
    if run.state != "finished":
        raise RunError(f"{run.name} is {run.state}, not finished; call this again to go on with it")
    return run
