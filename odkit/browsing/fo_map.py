"""A map of a dataset's images for the App: where a detector's features are alike, images lie side by side.

FiftyOne's brain keeps the map and the index behind "sort by similarity" (Apache-2.0; it comes with FiftyOne). The map
itself is PCA, computed here: the brain's own methods store what they fitted as a pickle in the database.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkit.browsing import fo_private
from odkit.browsing.fo_dataset import is_edited, note
from odkit.data import Dataset
from odkit.detection import Detector, features
from odkit.system import InputError

MAP, SIMILAR = "map", "similar"  # brain keys
KEPT = 64  # directions that tell images apart best, kept to compare them by


def put_map(fo: Any, made: Any, dataset: Dataset, detector: Detector) -> None:
    """Store the map and the index of similar images, unless they are there from this very detector."""
    import fiftyone.brain as fob
    from pymongo import UpdateOne

    ids = dict(zip(*made.values(["image_id", "id"]), strict=True))
    rows = [row for row, image_id in enumerate(dataset.image_ids) if image_id in ids]
    if not rows:
        raise InputError(f"{dataset.name} has no images to make a map of")
    of = _digest(detector)
    if made.info["odkit"].get("map") == of and {MAP, SIMILAR} <= set(made.list_brain_runs()):
        return
    for key in {MAP, SIMILAR} & set(made.list_brain_runs()):
        made.delete_brain_run(key)
    edited = is_edited(made)
    directions = principal(features(detector, dataset))
    there = made if len(rows) == made.count() else made.select([ids[dataset.image_ids[row]] for row in rows])
    vectors = {ids[dataset.image_ids[row]]: directions[row] for row in rows}
    made.add_sample_field("split", fo.StringField)
    made.add_sample_field("main_class", fo.StringField)
    fo_private.samples(made).bulk_write(
        [
            UpdateOne(
                {"image_id": dataset.image_ids[row]},
                {"$set": {"split": str(dataset.image_splits[row]) or None, "main_class": name}},
            )
            for row, name in zip(rows, main_classes(dataset)[rows].tolist(), strict=True)
        ],
        ordered=False,
    )
    made.info["odkit"]["fields"] = sorted({*made.info["odkit"].get("fields", ()), "split", "main_class"})
    points = {sample: vector[:2] for sample, vector in vectors.items()}
    fob.compute_visualization(there, points=points, brain_key=MAP, create_index=False)
    fob.compute_similarity(
        there, embeddings=vectors, brain_key=SIMILAR, backend="sklearn", metric="euclidean"
    )
    note(made, edited=edited, map=of)


def principal(vectors: NDArray[np.float32], kept: int = KEPT) -> NDArray[np.float32]:
    """Vectors [N, D] along the directions in which they differ most, the first one most: float32 [N, kept or fewer].

    Distances stay what they were, but for what the directions left out would add. Source: K. Pearson, "On lines and
    planes of closest fit to systems of points in space", 1901.
    """
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)
    directions = directions[:, ::-1][:, : max(kept, 2)]
    # either way round is right; one is chosen
    directions = directions * np.sign(
        directions[np.abs(directions).argmax(0), np.arange(directions.shape[1])]
    )
    along: NDArray[np.float32] = (centred @ directions).astype(np.float32)
    return along


def main_classes(dataset: Dataset) -> NDArray[np.object_]:
    """The class that has most boxes of each image, object [N]; "(none)" where an image has no boxes."""
    usable = dataset.box_classes >= 0
    counts = np.zeros((len(dataset), max(len(dataset.class_names), 1)), np.int64)
    np.add.at(counts, (dataset.box_images[usable], dataset.box_classes[usable]), 1)
    names = np.array([*dataset.class_names, "(none)"], object)
    return names[np.where(counts.any(1), counts.argmax(1), -1)]


def _digest(detector: Detector) -> str:
    """What tells one detector's features from another's: the backbone's weights, and how large it sees images."""
    digest = hashlib.sha256(f"{detector.name} {detector.image_size}".encode())
    for name, value in sorted(detector.module.state_dict().items()):
        if name.startswith(detector.family.BACKBONE):
            digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
