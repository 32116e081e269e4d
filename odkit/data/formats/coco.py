"""COCO's JSON: one file for all images or one a split (https://cocodataset.org/#format-data)."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from odkit.data.boxes import box_area, xywh_to_xyxy, xyxy_to_xywh
from odkit.data.dataset import UNKNOWN_CLASS, Dataset, one_table
from odkit.data.formats.coco_columns import Annotations, Image, in_columns
from odkit.data.formats.reader_base import (
    DatasetFormatError,
    Folder,
    Gathered,
    declared_size,
    finite_rows,
    folder_of,
    holds_text,
    in_pixels,
    json_bytes,
    json_content,
    mostly_shares,
    moved_images,
    no_garbage_collection,
    normal_split,
    place_names,
    read_json,
    short,
    split_of_path,
    stem_of,
)
from odkit.data.formats.writer_base import known_sizes, split_files, writable_boxes
from odkit.data.texts import Numbered
from odkit.system import InputError, counted

Json = dict[str, Any]
_YES = (1, "1", "true", "True")


def find_coco(folder: Folder) -> dict[str, Json]:
    """The COCO files of a folder, parsed, by their relative path; empty where there are none.

    Raises:
        DatasetFormatError: Several describe the same images, or cannot be told apart.
    """
    files = [file for file in folder.with_suffix(".json", depth=2) if folder.json_kinds[file] == "coco"]
    # COCO's own annotations folder also holds captions and key points of the same images
    instances = [file for file in files if stem_of(file).startswith("instances")]
    parsed: dict[str, Json] = {}
    for file in instances or files:
        try:
            text = json_bytes(folder.path(file))
            data = in_columns(text)
            fits = data is not None
            if data is None:
                data = json_content(text, folder.path(file))
                fits = is_coco(data)
                if fits and _has_huge_ids(data):  # which are rounded otherwise, so that several become one
                    data = json_content(text, folder.path(file), exact=True)
        except DatasetFormatError:
            if _speaks_of_coco(folder.path(file)):  # cut short; to go on without it would lose a split unseen
                raise
            continue
        if fits:
            parsed[file] = data
    return _told_apart(parsed) if len(parsed) > 1 else parsed


def _has_huge_ids(data: Json) -> bool:
    rows = (data["images"], data.get("annotations"), data.get("categories"))
    values = (
        row.get(key)
        for row in itertools.chain.from_iterable(part for part in rows if isinstance(part, list))
        if isinstance(row, dict)
        for key in ("id", "image_id", "category_id")
    )
    return any(isinstance(value, float) and abs(value) >= 2**53 for value in values)


def _speaks_of_coco(path: Path) -> bool:
    try:
        return holds_text(path, b'"images"', b'"annotations"')
    except (OSError, InputError):
        return True


def is_coco(data: Any) -> bool:
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        return False
    annotations = data.get("annotations", [])
    if not isinstance(annotations, list) or not ("annotations" in data or "categories" in data):
        return False
    first = annotations[0] if annotations else None
    return not (isinstance(first, dict) and "caption" in first)


def _told_apart(parsed: dict[str, Json]) -> dict[str, Json]:
    """One file a split; a file of everything beside them is left out, anything else is ambiguous."""
    splits: dict[str, list[str]] = {}
    for file in parsed:
        splits.setdefault(_split_of_file(file, parsed[file]), []).append(file)
    others = [file for split, files in splits.items() if split for file in files]
    named = {file: {_file_name(image) for image in data["images"]} for file, data in parsed.items()}
    listed = set().union(*(named[file] for file in others)) if others else set()
    whole = [file for file in splits.get("", []) if listed and named[file] & listed]
    kept = {file: data for file, data in parsed.items() if file not in whole}
    twice = [
        f"{', '.join(files)} ({split or 'no split'})"
        for split, files in splits.items()
        if len([file for file in files if file in kept]) > 1
    ]
    if twice:
        raise DatasetFormatError(
            f"several COCO files cannot be told apart: {'; '.join(twice)}. Give the path of the one to read "
            '(load_dataset("folder/labels.json")), or name them by split (train.json, val.json, test.json)'
        )
    return kept


def _split_of_file(file: str, content: Json) -> str:
    info = content.get("info")
    told = info.get("split") if isinstance(info, dict) else None
    return normal_split(told) if isinstance(told, str) else split_of_path(file)


def _file_name(image: Any) -> Any:
    if isinstance(image, Image):
        return image.file_name
    name = image.get("file_name") if isinstance(image, dict) else None
    return name if isinstance(name, str) else None


def read_coco(folder: Folder, parsed: Mapping[str, Json]) -> Gathered:
    """The images and boxes of one or several COCO files; their category tables are joined by name."""
    names, tables, doubtful = _class_tables(parsed)
    data = Gathered(folder, "coco", names)
    image_folders: set[str] = set()
    with no_garbage_collection():
        for file, content in parsed.items():
            split = _split_of_file(file, content)
            places = _read_images(data, file, content["images"], split, image_folders)
            marked = content.get("annotations", [])
            if isinstance(marked, Annotations) and not _read_columns(
                data, file, marked, places, tables[file]
            ):
                marked = read_json(folder.path(file)).get("annotations", [])
            if not isinstance(marked, Annotations):
                _read_annotations(data, file, marked, places, tables[file], doubtful[file])
            data.notes.append(f"COCO: {file} ({len(content['images']):,} images)")
            data.notes += _joined_names(file, tables[file], names)
            for key, row in places.items():
                data.image_keys.setdefault(row, str(key))
    data.image_keys.pop(-1, None)  # images that are left out
    named = ({str(key): names[k] for key, k in table.items()} for table in tables.values())
    data.class_keys = one_table(named)
    data.unlabelled_images(image_folders)
    data.read_sizes()
    return data


def _class_tables(
    parsed: Mapping[str, Json],
) -> tuple[list[str], dict[str, dict[Any, int]], dict[str, dict[Any, list[str]]]]:
    """The class names in the order of their category ids, and for each file category id to class index.

    Last, for each file, the ids that stand for several categories, with the names of these: they are in no table.
    """
    place: dict[str, Any] = {}
    by_file: dict[str, dict[Any, list[str]]] = {}
    for file, content in parsed.items():
        table = by_file[file] = {}
        rows = content.get("categories", [])
        for row in rows if isinstance(rows, list) else []:
            key = _key(row.get("id")) if isinstance(row, dict) else None
            if key is None:
                continue
            name = str(row.get("name", f"category {key}"))
            if name not in (names := table.setdefault(key, [])):
                names.append(name)
            order = (0, key, "") if isinstance(key, int) else (1, 0, key)
            place[name] = min(place.get(name, order), order)
    names = sorted(place, key=lambda name: (place[name], name))
    index = {name: k for k, name in enumerate(names)}
    tables = {
        file: {key: index[own[0]] for key, own in table.items() if len(own) == 1}
        for file, table in by_file.items()
    }
    doubtful = {
        file: {key: own for key, own in table.items() if len(own) > 1} for file, table in by_file.items()
    }
    return names, tables, doubtful


def _joined_names(file: str, table: dict[Any, int], names: list[str]) -> list[str]:
    """What is to be said of categories with one name."""
    keys: dict[int, list[str]] = {}
    for key, index in table.items():
        keys.setdefault(index, []).append(str(key))
    return [
        f"{file}: the categories {', '.join(own)} are all called {short(names[index])}, and are one class"
        for index, own in keys.items()
        if len(own) > 1
    ]


def _key(value: Any) -> int | str | None:
    """An id as it is looked up: a whole number or a text, also where it is written as 7.0; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) else None


def _read_images(
    data: Gathered, file: str, images: list[Any], split: str, image_folders: set[str]
) -> dict[Any, int]:
    """Add the images of a file; its image ids to rows, -1 for an image that is left out."""
    folder, beside = data.folder, folder_of(file)
    good: list[tuple[str, Image]] = []
    places: dict[Any, int] = {}
    usable = list(_usable_images(data, file, images))
    moved = moved_images(data, (image.file_name for image in usable))
    for image in usable:
        inside = folder.inside(moved.get(image.file_name, image.file_name), beside)
        if inside is None:
            data.outside(file, image.file_name)
            places[image.id] = -1
        else:
            good.append((inside, image))
    paths = place_names(folder, (name for name, _ in good), beside, split)
    for name, image in good:
        key, path = image.id, paths[name]
        if key in places and places[key] >= 0:
            data.problem(
                "duplicate_image_id",
                file,
                f"the image id {key} of {path} is also that of {data.paths[places[key]]}; the first one has the boxes",
                "Give each image an id of its own.",
                image=path,
            )
            if data.row(path) is None:
                data.add_image(path, declared_size(image.width, image.height), split)
            continue
        row = data.row(path)
        if row is None:
            row = data.add_image(path, declared_size(image.width, image.height), split)
            image_folders.add(folder_of(path))
        elif data.splits[row] != split:
            data.problem(
                "image_in_two_splits",
                file,
                f"it is listed in {data.splits[row] or 'no split'} and in {split or 'no split'}; kept in the first, "
                "with that one's boxes",
                "List each image in one split.",
                severity="warning",
                image=path,
            )
            row = -1
        else:
            data.problem(
                "image_listed_twice",
                file,
                f"it is listed again with the id {key}; the boxes of both are joined",
                "List each image once.",
                severity="warning",
                image=path,
            )
        places[key] = row
    return places


def _usable_images(data: Gathered, file: str, images: list[Any]) -> Iterator[Image]:
    for number, image in enumerate(images, 1):
        if isinstance(image, Image):
            yield image
            continue
        name = _file_name(image)
        key = _key(image.get("id")) if isinstance(image, dict) else None
        if name and key is not None:
            yield Image(key, name, image.get("width"), image.get("height"))
        else:
            data.problem(
                "unreadable_label",
                file,
                f"image {number} of the list has no usable id and file_name: {short(image)}",
                "Correct its entry.",
            )


def _read_annotations(
    data: Gathered,
    file: str,
    annotations: list[Any],
    places: dict[Any, int],
    table: dict[Any, int],
    doubtful: dict[Any, list[str]],
) -> None:
    rows: list[Any] = []
    classes: list[int] = []
    images: list[int] = []
    crowd: list[bool] = []
    areas: list[Any] = []
    ids: list[str] = []
    used: set[str] = set()
    outlines = 0
    for number, found in enumerate(annotations, 1):
        if not isinstance(found, dict):
            data.problem(
                "unreadable_label",
                file,
                f"annotation {number} of the list is {short(found)}",
                "Correct or delete it.",
            )
            continue
        key = found.get("id")
        box_id = f"annotation {number}" if key is None else str(key)
        if box_id in used:
            data.problem(
                "duplicate_box_id",
                file,
                f"the annotation id {box_id} stands more than once",
                "Give each annotation an id of its own; other programs drop or mix up such boxes.",
                severity="warning",
            )
            box_id = f"{box_id} (annotation {number} of the list)"
        used.add(box_id)
        image = found.get("image_id")
        row = places.get(image) if isinstance(image, int | float | str) else None
        if row is None:  # "7" where the list of images says 7, or the other way round
            row = places.get(_other_spelling(image))
        if row is None:
            whose = (
                "has no image_id"
                if image is None
                else f"belongs to the image id {short(image)}, which is not in the list of images"
            )
            data.problem(
                "label_without_image",
                file,
                f"annotation {box_id} {whose}",
                "Add the image to the list, correct the id, or delete the annotation.",
            )
            continue
        if row < 0:  # an image that was left out, and was told of
            continue
        category = found.get("category_id")
        known = isinstance(category, int | float | str)
        several = doubtful.get(category) or doubtful.get(_other_spelling(category)) if known else None
        if several:
            data.problem(
                "unreadable_label",
                file,
                f"its category_id {short(category)} stands for {len(several)} categories, "
                f"{' and '.join(short(name) for name in several[:3])}; the box is left out",
                "Give each category an id of its own, in the list of categories and in the annotations.",
                image=data.paths[row],
                box=box_id,
            )
            continue
        index = table.get(category, UNKNOWN_CLASS) if known else UNKNOWN_CLASS
        if index == UNKNOWN_CLASS:
            index = table.get(_other_spelling(category), UNKNOWN_CLASS)
        if index == UNKNOWN_CLASS:
            data.problem(
                "unknown_class",
                file,
                f"its category_id is {short(category)}, which is not in the list of categories",
                "Add the category to the list or correct the annotation.",
                image=data.paths[row],
                box=box_id,
            )
        own = found.get("bbox")
        rows.append(own or segmentation_box(found.get("segmentation")))
        outlines += not own and rows[-1] is not None
        classes.append(index)
        images.append(row)
        crowd.append(found.get("iscrowd") in _YES)
        areas.append(found.get("area"))
        ids.append(box_id)
    boxes, good = finite_rows(rows)
    corners: Any = xywh_to_xyxy(np.where(good[:, None], boxes, 0))
    wrong: dict[int, str] = {}
    relative = mostly_shares(corners, good)
    if relative:
        data.read_sizes()
        data.notes.append(f"{file}: boxes as shares of the image's sides")
        sizes = np.array(data.sizes, np.float64).reshape(-1, 2)[images]
        corners, wrong = in_pixels(corners, np.full(len(rows), True), sizes)
    wrong |= dict.fromkeys(np.flatnonzero(~good).tolist(), "is not four numbers (left, top, width, height)")
    for k in sorted(wrong):
        data.problem(
            "unreadable_label",
            file,
            f"its bbox {short(rows[k])}: {wrong[k]}; the box is left out",
            "Correct or delete the annotation.",
            image=data.paths[images[k]],
            box=ids[k],
        )
    if wrong:
        keep = np.setdiff1d(np.arange(len(rows)), list(wrong)).tolist()
        corners, ids = corners[keep], [ids[k] for k in keep]
        classes, images = ([column[k] for k in keep] for column in (classes, images))
        crowd = [crowd[k] for k in keep]
    data.add_boxes(corners, classes, images, ids, crowd)
    if len(areas) == len(corners):
        _say_areas(data, file, corners, areas)
    if outlines:
        without = counted(outlines, "annotation without a bbox")
        data.notes.append(f"{file}: {without}, read as the boxes around their masks")


def _read_columns(
    data: Gathered, file: str, found: Annotations, places: dict[Any, int], table: dict[Any, int]
) -> bool:
    """Add the boxes of annotations that are columns; False, and nothing is added, where anything is unusual."""
    ids = found.ids
    rows, classes = _looked_up(places, found.images), _looked_up(table, found.categories)
    if rows is None or classes is None or ids.min(initial=0) < 0:
        return False
    ordered = ids if (np.diff(ids) > 0).all() else np.sort(ids)
    if (ordered[1:] == ordered[:-1]).any():
        return False
    keep = rows >= 0  # the others were left out, and were told of
    ids, rows, classes, boxes = ids[keep], rows[keep], classes[keep], found.boxes[keep]
    good = finite_rows(boxes)[1]
    if not good.all() or mostly_shares(corners := xywh_to_xyxy(boxes), good):
        return False
    data.add_boxes(corners, classes, rows, Numbered("", ids), found.crowd[keep])
    _say_areas(data, file, corners, found.areas[keep])
    return True


def _looked_up(table: Mapping[Any, int], keys: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The values of a table for these keys, [n]; None where it lacks one of them."""
    pairs = {key: value for key, value in table.items() if isinstance(key, int) and abs(key) < 2**63}
    if not pairs:
        return None if len(keys) else keys
    known, values = np.array(list(pairs), np.int64), np.array(list(pairs.values()), np.int64)
    order = np.argsort(known)
    known, values = known[order], values[order]
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return values[places] if np.array_equal(known[places], keys) else None


def _say_areas(data: Gathered, file: str, corners: Any, areas: Any) -> None:
    if moved := _size_classes_by_area(corners, areas):
        data.notes.append(
            f"{file}: {counted(moved, 'box')} of another size by the file's areas (of masks) than by the box; AP by "
            "size goes by the box here, by the area in pycocotools"
        )


def _size_classes_by_area(corners: Any, areas: Any) -> int:
    """How many boxes are small, medium or large in COCO's sense by the stated area and another by their own."""
    try:
        stated = np.array(areas, np.float64).reshape(len(corners))
    except (TypeError, ValueError, OverflowError):
        return 0
    edges = [32**2, 96**2]
    there = np.isfinite(stated) & (stated > 0)
    by_area, by_box = (np.digitize(values, edges) for values in (stated, box_area(corners)))
    return int((there & (by_area != by_box)).sum())


def _other_spelling(key: Any) -> Any:
    """A number as text, or text as a number; None for neither."""
    if isinstance(key, str):
        return int(key) if key.isascii() and key.isdigit() and len(key) < 19 else None
    return str(key) if isinstance(key, int) else None


# -- masks -----------------------------------------------------------------------------------------------------------


def segmentation_box(segmentation: Any) -> list[float] | None:
    """Left, top, width, height around a mask: polygons, or runs with plain or packed counts; None for none."""
    try:
        if isinstance(segmentation, dict):
            return _run_box(segmentation)
        if isinstance(segmentation, list) and segmentation:
            parts = segmentation if isinstance(segmentation[0], list) else [segmentation]
            points = np.array([value for part in parts for value in part], np.float64).reshape(-1, 2)
            low, high = points.min(0), points.max(0)
            return [*low.tolist(), *(high - low).tolist()]
    except (TypeError, ValueError, KeyError, IndexError, OverflowError, AttributeError):
        return None
    return None


def _run_box(mask: Mapping[str, Any]) -> list[float] | None:
    """The box around a run-length mask: runs of 0 and 1 by turns, down the columns, from the top left."""
    height, width = (int(side) for side in mask["size"])
    counts = mask["counts"]
    if isinstance(counts, str | bytes):
        counts = unpack_counts(counts)
    runs = np.array(counts, np.int64)
    ends = np.cumsum(runs)
    first, last = ends[0::2], ends[1::2] - 1  # of each run of 1
    first = first[: len(last)]
    first, last = first[first <= last], last[first <= last]
    if height <= 0 or (runs < 0).any() or not len(first) or last[-1] >= height * width:
        return None
    left, right = int(first[0]) // height, int(last[-1]) // height + 1
    one_column = first // height == last // height
    # a run over several columns touches the bottom of one and the top of the next
    top = int(np.where(one_column, first % height, 0).min())
    bottom = int(np.where(one_column, last % height, height - 1).max()) + 1
    return [left, top, right - left, bottom - top]


def unpack_counts(packed: str | bytes) -> list[int]:
    """COCO's packed runs: six bits a character from "0" on, low bits first, each run from the third on as a difference.

    The sixth bit (32) says that more follows, the fifth (16) of the last one is the sign; the difference is to the
    run two before.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for byte in packed.encode() if isinstance(packed, str) else packed:
        bits = byte - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("packed runs hold characters from '0' to 'o'")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("packed runs end in the middle of one")
    return counts


# -- writing ---------------------------------------------------------------------------------------------------------


def write_coco(dataset: Dataset, folder: Path, files: Sequence[str]) -> list[str]:
    """Write annotations/instances_SPLIT.json for images that lie at `files` below the folder; what is lost."""
    keep, lost = writable_boxes(dataset)
    bboxes = xyxy_to_xywh(dataset.boxes)
    numbers = _annotation_ids(dataset)
    sizes = known_sizes(dataset)
    categories = [
        {"id": k, "name": name, "supercategory": ""} for k, name in enumerate(dataset.class_names, 1)
    ]
    (folder / "annotations").mkdir()
    for split, name in split_files(dataset, "unsplit").items():
        rows = np.flatnonzero(dataset.image_splits == split).tolist()
        # The usual layout, train/ with bare names in the label file, where the images lie so
        start = f"{split}/"
        bare = split in ("train", "val", "test") and all(files[row].startswith(start) for row in rows)
        bare = bare and (folder / split).is_dir()
        images = [
            {
                "id": row + 1,
                "file_name": files[row].removeprefix(start) if bare else files[row],
                "width": int(sizes[row, 0]),
                "height": int(sizes[row, 1]),
            }
            for row in rows
        ]
        chosen = keep & (dataset.image_splits == split)[dataset.box_images]
        annotations = [
            {
                "id": numbers[k],
                "image_id": int(dataset.box_images[k]) + 1,
                "category_id": int(dataset.box_classes[k]) + 1,
                "bbox": bboxes[k].tolist(),
                "area": float(max(bboxes[k, 2], 0) * max(bboxes[k, 3], 0)),
                "iscrowd": int(dataset.box_crowd[k]),
                "segmentation": [],
            }
            for k in np.flatnonzero(chosen).tolist()
        ]
        content = {
            "info": {"description": dataset.name, "split": split},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        (folder / "annotations" / f"instances_{name}.json").write_bytes(orjson.dumps(content))
    return lost


def _annotation_ids(dataset: Dataset) -> list[int]:
    """The boxes' own ids where they are numbers and differ, else 1, 2, ..."""
    own = [box_id for box_id in dataset.box_ids if box_id.isascii() and box_id.isdigit() and len(box_id) < 16]
    numbers = [int(box_id) for box_id in own]
    usable = len(own) == dataset.num_boxes == len(set(numbers)) and 0 not in numbers
    return numbers if usable else list(range(1, dataset.num_boxes + 1))
