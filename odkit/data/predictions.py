"""Predictions: what a detector found in a dataset's images, as columns."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray

from odkit.data.boxes import Boxes, as_boxes, rows_of, xyxy_to_xywh
from odkit.data.columns import DAMAGES
from odkit.data.dataset import Dataset
from odkit.data.texts import Texts
from odkit.system import InputError, MissingPackageError, OutOfRangeError, open_file, replacing


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions:
    """What a detector found, as columns with one row a predicted box.

    Attributes:
        boxes: Float32 [P, 4], xyxy, absolute pixels of the upright original image.
        scores: Confidence of each prediction, float32 [P], usually 0 to 1.
        classes: 0-based index into `class_names`, int32 [P].
        images: Index of the image, int32 [P], non-decreasing (rows are sorted by it where they are not).
        class_names: The detector's class table.
        image_ids: Ids of the images the detector looked at, in the order `images` counts them. Where they are
            given, predictions find their images by id in any selection of the dataset; where not, by position.
        image_sizes: Width and height of each of these images in pixels, upright, int32 [N, 2]; none where not known.
        image_paths: Path of each of these images, "" for what was no file of its own (a frame, an array); none where
            not known.
        notes: What was recognised, chosen or left out where they were read from another tool's files.

    Raises:
        ValueError: A column has the wrong length, shape or range; the message says which and where.
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]
    images: NDArray[np.int32]
    class_names: tuple[str, ...]
    image_ids: tuple[str, ...] = ()
    image_sizes: NDArray[np.int32] = None  # type: ignore[assignment]  # default: none
    image_paths: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        columns: dict[str, NDArray[Any]] = {
            "boxes": as_boxes(self.boxes),
            "scores": np.asarray(self.scores, np.float32).reshape(-1),
            "classes": np.asarray(self.classes, np.int32).reshape(-1),
            "images": np.asarray(self.images, np.int32).reshape(-1),
        }
        rows = len(columns["boxes"])
        for column, values in columns.items():
            if len(values) != rows:
                raise InputError(f"predictions: {column} has {len(values)} rows for {rows} boxes")
        order = np.argsort(columns["images"], kind="stable")
        for column, values in columns.items():
            object.__setattr__(self, column, values[order])
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        object.__setattr__(self, "image_ids", tuple(map(str, self.image_ids)))
        sizes = np.asarray([] if self.image_sizes is None else self.image_sizes, np.int32).reshape(-1, 2)
        object.__setattr__(self, "image_sizes", sizes)
        object.__setattr__(self, "image_paths", tuple(map(str, self.image_paths)))
        object.__setattr__(self, "notes", tuple(map(str, self.notes)))
        _validate(self)

    @classmethod
    def from_images(
        cls,
        found: Iterable[tuple[ArrayLike, ArrayLike, ArrayLike]],
        class_names: Sequence[str],
        image_ids: Sequence[str] = (),
    ) -> "Predictions":
        """Columns from one (boxes [n, 4], scores [n], classes [n]) an image, in the order of the images."""
        parts = [(as_boxes(b), np.reshape(s, -1), np.reshape(c, -1)) for b, s, c in found]
        if len(image_ids) and len(image_ids) != len(parts):
            raise InputError(f"predictions of {len(parts)} images came with {len(image_ids)} image ids")
        return cls(
            boxes=np.concatenate([np.zeros((0, 4), np.float32), *(part[0] for part in parts)]),
            scores=np.concatenate([np.zeros(0, np.float32), *(part[1] for part in parts)]),
            classes=np.concatenate([np.zeros(0, np.int32), *(part[2] for part in parts)]),
            images=np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts]),
            class_names=tuple(class_names),
            image_ids=tuple(image_ids),
        )

    @classmethod
    def joined(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """The predictions of several lots of images as one, of the same classes in the same order.

        Raises:
            InputError: There is nothing to join, the class tables differ, or an image is in two of them.
        """
        if not parts or len({part.class_names for part in parts}) > 1:
            raise InputError("joined() takes predictions of the same classes, one or more of them")
        ids = tuple(image for part in parts for image in part.image_ids)
        if len(set(ids)) < len(ids):
            raise InputError(
                "joined() takes predictions of different images; an image id stands in two of them"
            )
        before = np.cumsum([0, *(len(part.image_ids) for part in parts)])
        images = [part.images + first for part, first in zip(parts, before.tolist(), strict=False)]
        known = all(len(part.image_sizes) == len(part.image_ids) for part in parts)
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS[:3]
        }
        return cls(
            **columns,
            images=np.concatenate(images),
            class_names=parts[0].class_names,
            image_ids=ids,
            image_sizes=np.concatenate([part.image_sizes for part in parts] if known else [_NO_SIZES]),
            image_paths=tuple(path for part in parts for path in part.image_paths) if known else (),
            notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        )

    # -- of other tools ------------------------------------------------------------------------------------------

    @classmethod
    def from_coco(
        cls,
        results: str | Path | Sequence[Any] | Mapping[str, Any],
        dataset: Dataset,
        *,
        category_ids: str | Mapping[Any, str] | None = None,
        image_ids: str | Mapping[Any, str] | None = None,
        ids_from: str | Path | None = None,
    ) -> "Predictions":
        """What any detector found, from COCO's results: rows of image_id, category_id, bbox (xywh, pixels), score.

        Also read are such rows in a dict ("annotations", "predictions", ...), in a list an image ("instances"), beside
        their own tables of images and categories, or with a mask in place of a box; and a dict of boxes (xyxy), scores
        and labels an image, as torchvision's detectors give and torchmetrics takes.

        Images are found by the `file_name` of a row where it has one, else by the ids of the label file that the
        dataset was read from, else by name (Ultralytics has the file's stem for an id). Classes are found by the
        label file's category ids or, where that has none, by the numbering from 0 or 1 that gives most of the boxes
        found the right class. Numbers that fit far better in another way are refused: read as they stand, they would
        give a low AP without a word. What was left out, and why, is said in `notes`.

        Args:
            results: The .json file, or what it holds.
            dataset: The ground truth. An image that the results do not speak of counts as one where nothing was found;
                `dataset.select(np.unique(predictions.images))` has only the others.
            category_ids: "labels" (the label file's), "from-0", "from-1", "coco-91" (COCO's own numbers of its 80
                classes) or "file" (the table in the results or of `ids_from`), or a table of number to class name; None
                to find out.
            image_ids: "labels" (the label file's), "names", "from-0" or "from-1" (the place in the label file), or a
                table of id to image; None to find out.
            ids_from: The COCO label file whose ids these are, for a dataset that was read from other files.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It holds no results, or their numbers do not fit the dataset; the message says which and what
                to give.

        Source: cocodataset.org/#format-results.
        """
        from odkit.data.formats import coco_results

        columns = coco_results(
            results, dataset, category_ids=category_ids, image_ids=image_ids, ids_from=ids_from
        )
        return cls(**columns)

    @classmethod
    def from_yolo(
        cls,
        folder: str | Path,
        dataset: Dataset,
        *,
        class_names: Sequence[str] | Mapping[Any, str] | None = None,
    ) -> "Predictions":
        """What a YOLO found, from text files, one an image: class, center x, center y, width, height, confidence.

        All but the class are shares of the image. Ultralytics writes them with `save_txt=True save_conf=True`;
        outlines are read as the boxes around them. An image without a file is one where nothing was found.

        Args:
            folder: The folder of the text files, or the one above its labels/.
            dataset: The ground truth, whose images have the files' names.
            class_names: Class names by number; None for those of a data.yaml or classes.txt in the folder or above,
                else of the dataset's own data.yaml, else the dataset's classes in their order.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: A line has no confidence or is none of YOLO's; no file has the name of an image; the numbers
                are of a table in another order.
        """
        from odkit.data.formats import yolo_results

        return cls(**yolo_results(folder, dataset, class_names=class_names))

    @classmethod
    def from_supervision(
        cls, detections: Any, dataset: Dataset | None = None, *, class_names: Sequence[str] | None = None
    ) -> "Predictions":
        """What was found, from `supervision.Detections`, which are known by their attributes alone.

        Args:
            detections: One for each image, in the dataset's order; or a dict of image name to it; or just one.
            dataset: The ground truth; None for predictions that know their images by position.
            class_names: What `class_id` counts in, where `data["class_name"]` is not there; None for the dataset's.

        Raises:
            ValueError: There are not as many as images, or confidences or classes are missing.

        Source: supervision.roboflow.com/latest/detection/core.
        """
        from odkit.data.formats import supervision_results

        return cls(**supervision_results(detections, dataset, class_names))

    # -- looking and choosing ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of predictions."""
        return len(self.boxes)

    def __repr__(self) -> str:
        images = len(self.image_ids) or len(np.unique(self.images))
        head = f"Predictions: {len(self):,} boxes of {len(self.class_names)} classes in {images:,} images"
        return "\n  - ".join([head, *self.notes])

    def of(self, image: int) -> slice:
        """The rows that belong to one image (an index, 0-based)."""
        return rows_of(self.images, image)

    def select(self, rows: ArrayLike) -> "Predictions":
        """The rows of a boolean mask [P] or of a list of indices."""
        chosen = np.asarray(rows)
        chosen = chosen if chosen.dtype == bool else chosen.astype(np.int64)
        return dataclasses.replace(self, **{column: getattr(self, column)[chosen] for column in _COLUMNS})

    def above(self, score: float) -> "Predictions":
        """The predictions with at least this score."""
        return self.select(self.scores >= score)

    def for_dataset(self, dataset: Dataset, *, same_classes: bool = True) -> "Predictions":
        """The same predictions with the dataset's class indices and image indices.

        Classes are matched by name. Images are matched by id where the predictions carry ids; predictions for
        images that are not in the dataset are then left out.

        Args:
            dataset: What the indices are to count in.
            same_classes: Both must have the same classes, in any order. False: predictions of classes that the
                dataset has not are left out, and nothing is predicted of classes that only the dataset has.

        Raises:
            ValueError: A class name is missing on one side (or, where that may be, they share none), or an image of
                the dataset was never looked at.
        """
        _compare_class_tables(self, dataset, same_classes)
        place = {name: index for index, name in enumerate(dataset.class_names)}
        table = np.array([place.get(name, -1) for name in self.class_names], np.int32)
        images = self._images_in(dataset)
        keep = images >= 0
        if len(self):
            keep &= table[self.classes] >= 0
        return Predictions(
            boxes=self.boxes[keep],
            scores=self.scores[keep],
            classes=table[self.classes[keep]] if keep.any() else [],  # type: ignore[arg-type]  # made an array there
            images=images[keep],
            class_names=dataset.class_names,
            image_ids=tuple(dataset.image_ids),
            image_sizes=dataset.image_sizes,
            image_paths=tuple(dataset.image_paths),
            notes=self.notes,
        )

    def dataset(self) -> Dataset:
        """The images that the detector looked at, as a Dataset without boxes.

        Raises:
            InputError: These predictions do not know them (they were made by something else, or saved long ago).
        """
        count = len(self.image_ids)
        if not count or len(self.image_sizes) != count or len(self.image_paths) != count:
            raise InputError(
                "these predictions do not know their images' sizes and paths; give the dataset that they were made on"
            )
        return Dataset(
            name="predicted",
            class_names=self.class_names,
            image_paths=Texts.of(self.image_paths),
            image_ids=Texts.of(self.image_ids),
            image_sizes=self.image_sizes,
            boxes=np.zeros((0, 4), np.float32),
            box_classes=np.zeros(0, np.int32),
            box_images=np.zeros(0, np.int32),
        )

    def _images_in(self, dataset: Dataset) -> NDArray[np.int32]:
        """Index of each prediction's image in the dataset, -1 where it is not there, int32 [P]."""
        if not self.image_ids:
            if len(self) and self.images[-1] >= len(dataset):
                raise InputError(
                    f"the predictions speak of image {self.images[-1]}, {dataset.name} has images 0 to "
                    f"{len(dataset) - 1}; predictions without image ids fit only the images they were made on"
                )
            return self.images
        seen = {image_id: index for index, image_id in enumerate(self.image_ids)}
        never = [image_id for image_id in dataset.image_ids if image_id not in seen]
        if never:
            raise InputError(
                f"the detector never looked at {len(never)} of the {len(dataset)} images of {dataset.name}, for "
                f"example {never[0]!r}; predict them first, or select() the images it has seen"
            )
        new = np.full(len(self.image_ids), -1, np.int32)
        new[[seen[image_id] for image_id in dataset.image_ids]] = np.arange(len(dataset))
        return new[self.images]

    # -- for other tools, and saving ------------------------------------------------------------------------------

    def to_supervision(self, image: int = 0) -> Any:
        """What was found in one image as a `supervision.Detections`, class names included.

        Args:
            image: Index of the image, 0-based, in the order of `image_ids`.

        Raises:
            MissingPackageError: supervision is not installed.
            OutOfRangeError: There is no such image.
        """
        try:
            import supervision
        except ImportError as error:
            # older ones bring an opencv-python that overwrites the opencv-python-headless FiftyOne needs
            raise MissingPackageError(
                f"supervision is not installed ({error}): pip install 'supervision>=0.31'"
            ) from error
        count = len(self.image_ids) or int(self.images.max(initial=-1)) + 1
        if not 0 <= image < count:
            raise OutOfRangeError(
                f"there is no image {image}: these predictions are of {count:,} images, numbered from 0"
            )
        rows = self.of(image)
        classes = self.classes[rows].astype(np.int64)
        return supervision.Detections(
            xyxy=self.boxes[rows].copy(),
            confidence=self.scores[rows].copy(),
            class_id=classes,
            data={"class_name": np.array(self.class_names, str)[classes]},
        )

    def to_coco(self, dataset: Dataset | None = None) -> list[dict[str, Any]]:
        """COCO's results format: a list of {image_id, category_id, bbox [left, top, width, height], score}.

        Both ids count from 1 in the order of the dataset's images and classes (without one: of the images that were
        looked at, and the detector's classes). `file_name` stands beside them, so that the rows can be joined with a
        table that numbers its images otherwise.
        """
        dataset = self.dataset() if dataset is None else dataset
        here = self.for_dataset(dataset)
        boxes = xyxy_to_xywh(here.boxes).tolist()
        rows = zip(here.images.tolist(), here.classes.tolist(), boxes, here.scores.tolist(), strict=True)
        ids = dataset.image_ids
        return [
            {"image_id": i + 1, "category_id": c + 1, "bbox": box, "score": score, "file_name": ids[i]}
            for i, c, box, score in rows
        ]

    def save(self, path: str | Path) -> Path:
        """The columns as one `.npz` file (plain arrays, no pickle), whole or not at all (`replacing`)."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        about: dict[str, Any] = {
            "class_names": self.class_names,
            "image_ids": self.image_ids,
            "notes": self.notes,
        }
        if self.image_paths:
            about["image_paths"] = self.image_paths
        text = orjson.dumps(about)
        arrays: dict[str, Any] = {column: getattr(self, column) for column in _COLUMNS}
        if len(self.image_sizes):
            arrays["image_sizes"] = self.image_sizes
        with replacing(path) as file:
            np.savez_compressed(file, predictions=np.frombuffer(text, np.uint8), **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Predictions":
        """Predictions as `save()` wrote them.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file does not hold predictions.
        """
        with open_file(path) as file:
            try:
                # not np.load, which takes any file that NumPy ever wrote
                with np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
                    if "predictions" not in arrays:
                        raise InputError(
                            f"{path} does not hold predictions saved by odkit (no part 'predictions' in it)"
                        )
                    text = orjson.loads(arrays["predictions"].tobytes())
                    there = [column for column in (*_COLUMNS, "image_sizes") if column in arrays]
                    columns: dict[str, Any] = {column: arrays[column] for column in there}
                    return cls(**text, **columns)
            except InputError:
                raise
            except (ValueError, *DAMAGES) as error:
                raise InputError(
                    f"{path} holds no predictions that odkit saved, or is damaged: {error}"
                ) from error


_NO_SIZES = np.zeros((0, 2), np.int32)
_COLUMNS = ("boxes", "scores", "classes", "images")


def _validate(found: Predictions) -> None:
    classes, images = len(found.class_names), len(found.image_ids)
    for column in ("image_sizes", "image_paths"):
        if len(getattr(found, column)) not in (0, images):
            raise InputError(
                f"predictions: {column} has {len(getattr(found, column))} rows for {images} image ids"
            )
    if len(set(found.class_names)) != classes:
        raise InputError(f"predictions: class names must differ: {', '.join(found.class_names)}")
    faults = {
        "a box that is not finite": ~np.isfinite(found.boxes).all(1),
        "a box that ends before it begins": (found.boxes[:, 2:] < found.boxes[:, :2]).any(1),
        "a score that is not finite": ~np.isfinite(found.scores),
        f"a class outside 0 to {classes - 1}": (found.classes < 0) | (found.classes >= classes),
        "a negative image index": found.images < 0,
        f"an image index beyond its {images} image ids": (found.images >= images) & bool(images),
    }
    for fault, rows in faults.items():
        if rows.any():
            row = int(np.flatnonzero(rows)[0])
            raise InputError(
                f"predictions: {int(rows.sum())} rows with {fault}; the first is row {row}: box "
                f"{found.boxes[row].tolist()}, score {found.scores[row]:g}, class {found.classes[row]}, "
                f"image {found.images[row]}"
            )


def _compare_class_tables(found: Predictions, dataset: Dataset, same_classes: bool) -> None:
    unknown = [name for name in found.class_names if name not in dataset.class_names]
    missing = [name for name in dataset.class_names if name not in found.class_names]
    shared = set(found.class_names) & set(dataset.class_names)
    if (unknown or missing) and (same_classes or not shared):
        only = [f"only the predictions know {', '.join(map(repr, unknown))}"] if unknown else []
        only += [f"only the dataset has {', '.join(map(repr, missing))}"] if missing else []
        raise InputError(
            f"the class tables of the predictions and of {dataset.name} differ: {'; '.join(only)}. Use a dataset "
            "with the classes the detector was trained on; dataset.with_classes({old: new}) renames, merges and drops "
            "classes"
        )
