"""What can be wrong with a dataset: one row a check in CHECKS, and the function that finds it."""

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odkit.data.audit.files import LABELS, PICTURES
from odkit.data.audit.subject import OVERHANG, Subject
from odkit.data.audit.unusual import class_shares, odd_in_class
from odkit.data.dataset import UNKNOWN_CLASS
from odkit.system import counted

REPAIRS = {
    "drops the image": "dropped",
    "drops the box": "dropped",
    "swaps the corners": "put in order",
    "reads them as corners": "read as left, top, right, bottom",
    "clips the box": "clipped at the image's border",
    "turns the boxes": "turned upright, image and boxes",
    "corrects the size": "corrected",
    "scales the boxes": "corrected and the boxes scaled to it, as for labels of a resized copy",
    "merges the classes": "merged into the most frequent spelling",
    "leaves it out": "left out",
}
"""What `repaired()` can do about a finding (`Finding.repair`), and how its notes say that it was done."""
_FEW_IMAGES = 10  # a split below this measures nothing
_IMBALANCE = 10  # times as many boxes in the most frequent class as in the rarest
_CROWDED = 100  # boxes in an image: what every detector of the catalogue finds at most, as COCO counts it
_WHOLE = 0.9  # of the image's area, from which a box covers nearly all of it
_EXTREME = 20  # times as long as wide, or as wide as long
_SKEW = 2  # times the share of the boxes that a class has in the other split
_CHANCE = 4  # standard errors; chance goes beyond once in 16,000 classes
_DIM = 64  # of 255: a picture of 16 bits whose brightest part is below it
_BACKGROUND = 0.5  # of the images without objects


class Hit(NamedTuple):
    """What a check yields: a message and the place; the rest comes from the check's row in `CHECKS`."""

    message: str
    image: int = -1
    box: int = -1
    repair: str | None = None  # in place of the row's
    fix: str | None = None
    file: str = ""  # where no image of the dataset is concerned


@dataclass(frozen=True, slots=True)
class Check:
    """A row of `CHECKS`."""

    severity: str
    title: str  # what one such finding is; its first word is made plural for several
    meaning: str  # why it matters
    fix: str
    repair: str = ""  # a key of REPAIRS, "" where a person must decide
    find: "Callable[[Subject], Iterable[Hit]] | None" = (
        None  # None: met by a reader, comes with source_problems
    )


# -- the checks ------------------------------------------------------------------------------------------------------


def _nothing(subject: Subject) -> Iterator[Hit]:
    data = subject.dataset
    if not len(data):
        yield Hit("the dataset holds no image")
    elif not data.num_boxes:
        yield Hit(f"{counted(len(data), 'image')}, not one box")


def _file_problem(kind: str) -> Callable[[Subject], Iterator[Hit]]:
    def find(subject: Subject) -> Iterator[Hit]:
        files, data = subject.files, subject.dataset
        rows = [] if files is None else np.flatnonzero(files.problems == kind).tolist()
        folders: dict[Path, dict[str, str]] = {}
        for i in rows:
            assert files is not None
            detail = files.details[i] or _missing_detail(Path(data.image_paths[i]), folders)
            yield Hit(detail, image=i)

    return find


def _missing_detail(path: Path, folders: dict[Path, dict[str, str]]) -> str:
    folder = path.parent
    if folder not in folders:
        try:
            folders[folder] = {_spelled(Path(name).stem): name for name in sorted(os.listdir(folder))}
        except OSError:
            folders[folder] = {}
    if path.is_symlink():
        return f"it is a link to {os.readlink(path)}, which does not exist"
    near = folders[folder].get(_spelled(path.stem))
    if near and unicodedata.normalize("NFC", near) == unicodedata.normalize("NFC", path.name):
        return f"there is no such file, but {near} beside it, whose accents are encoded otherwise: rename the file"
    if near:
        return f"there is no such file, but {near} beside it"
    return "there is no such file" if folder.is_dir() else f"there is no folder {folder}"


def _spelled(stem: str) -> str:
    """What two names have in common that differ by case, or by how accents are encoded (macOS takes them apart)."""
    return unicodedata.normalize("NFC", stem).casefold()


def _wrong_size(subject: Subject) -> Iterator[Hit]:
    if subject.files is None:
        return
    declared, upright = subject.dataset.image_sizes, subject.files.upright
    reasons = {
        "corrects the size": "its boxes fit the real size",
        "scales the boxes": "the proportions are the same: labels of a resized copy",
        "drops the image": "its boxes tell neither which size they were drawn on nor how to carry them over",
    }
    has_size = (declared > 0).all(1)
    for i in np.flatnonzero(has_size & np.isin(subject.size_plan[0], list(reasons))).tolist():
        repair = subject.size_plan[0][i]
        sizes = f"declared {_size(declared[i])}, the image has {_size(upright[i])} pixels"
        yield Hit(f"{sizes}; {reasons[repair]}", image=i, repair=repair)


def _unknown_size(subject: Subject) -> Iterator[Hit]:
    data = subject.dataset
    for i in np.flatnonzero((data.image_sizes <= 0).any(1)).tolist():
        if subject.files is None:
            yield Hit("no size is declared, and the files were not read", image=i)
        elif subject.files.known[i] and subject.size_plan[0][i] == "corrects the size":
            yield Hit(
                f"no size is declared; the image has {_size(subject.files.upright[i])} pixels",
                image=i,
                repair="corrects the size",
            )


def _exif(subject: Subject) -> Iterator[Hit]:
    if subject.files is None:
        return
    data, files = subject.dataset, subject.files
    for i in np.flatnonzero(subject.size_plan[0] == "turns the boxes").tolist():
        if subject.silent[i]:
            yield Hit(
                f"EXIF orientation {files.orientations[i]}: the labels of every other image that can tell were drawn "
                "on the stored pixels, so these are taken for that too",
                image=i,
            )
            continue
        declared = _size(data.image_sizes[i]) if (data.image_sizes[i] > 0).all() else "no size"
        yield Hit(
            f"EXIF orientation {files.orientations[i]} shows it as {_size(files.upright[i])}, the labels were drawn on "
            f"the stored {_size(files.stored[i])} (declared: {declared})",
            image=i,
        )


def _exif_undecided(subject: Subject) -> Iterator[Hit]:
    if subject.files is None or subject.orientations_heeded:
        return
    data, files = subject.dataset, subject.files
    settled = np.isin(subject.size_plan[0], ["turns the boxes", "scales the boxes", "drops the image"])
    rows = files.known & subject.silent & ~settled & (data.boxes_per_image() > 0)
    for i in np.flatnonzero(rows).tolist():
        orientation = files.orientations[i]
        yield Hit(
            f"EXIF orientation {orientation}: the labels are taken as drawn on the upright image", image=i
        )


def _deep_pixels(subject: Subject) -> Iterator[Hit]:
    if subject.files is None:
        return
    looks = subject.files.looks
    for i in np.flatnonzero([mode[:1] in ("I", "F") for mode in subject.files.modes]).tolist():
        mode = subject.files.modes[i]
        if mode[:2] != "I;":
            yield Hit(f"its pixels are of Pillow's mode {mode!r}: what is above 255 is white", image=i)
        elif looks[i] and max(looks[i]) < _DIM:  # 10, 12 or 14 bits in 16
            yield Hit(
                f"its 16 bits are hardly used: made 8, the brightest part is {max(looks[i])} of 255", image=i
            )


def _not_finite(subject: Subject) -> Iterator[Hit]:
    yield from _box_hits(subject, ~subject.finite, lambda i: f"corners {_corners(subject, i)}")


def _no_area(subject: Subject) -> Iterator[Hit]:
    yield from _box_hits(
        subject,
        subject.finite & ~subject.solid,
        lambda i: f"{subject.sides[i, 0]:g} x {subject.sides[i, 1]:g} pixels, corners {_corners(subject, i)}",
    )


def _inverted(subject: Subject) -> Iterator[Hit]:
    boxes = subject.dataset.boxes
    wrong = subject.solid & (boxes[:, 2:] < boxes[:, :2]).any(1)
    many = wrong.sum() >= 10 and wrong.mean() > 0.2
    fix = "So many are inverted that the columns may hold x, y, width, height: check that before repairing."
    for hit in _box_hits(subject, wrong, lambda i: f"the second corner comes first: {_corners(subject, i)}"):
        yield hit._replace(fix=fix) if many else hit


def _outside(subject: Subject) -> Iterator[Hit]:
    yield from _box_hits(
        subject,
        subject.outside,
        lambda i: f"corners {_corners(subject, i)} in an image of {_size(subject.box_frames[i])}",
    )


def _corners_for_sides(subject: Subject) -> Iterator[Hit]:
    data = subject.dataset
    if subject.corners_for_sides:
        for i in np.flatnonzero(subject.solid).tolist():
            x, y, right, bottom = data.boxes[i].tolist()
            yield Hit(
                f"{x:.6g}, {y:.6g}, {right - x:.6g}, {bottom - y:.6g} sticks out of {_size(subject.box_frames[i])} as "
                "left, top, width, height, or others do; as two corners all lie within their images",
                int(data.box_images[i]),
                i,
            )


def _partly_outside(subject: Subject) -> Iterator[Hit]:
    if subject.corners_for_sides:
        return
    yield from _box_hits(
        subject,
        subject.solid & ~subject.outside & (subject.overhang > OVERHANG),
        lambda i: (
            f"{subject.overhang[i]:.4g} pixels beyond an image of {_size(subject.box_frames[i])}, "
            f"corners {_corners(subject, i)}"
        ),
    )


def _tiny(subject: Subject) -> Iterator[Hit]:
    yield from _box_hits(
        subject,
        subject.solid & (subject.sides < subject.tiny).any(1),
        lambda i: f"{subject.sides[i, 0]:.3g} x {subject.sides[i, 1]:.3g} pixels",
    )


def _unknown_class(subject: Subject) -> Iterator[Hit]:
    unknown = subject.dataset.box_classes == UNKNOWN_CLASS
    yield from _box_hits(subject, unknown, lambda i: "its class is not in the class table")


def _duplicate_box(subject: Subject) -> Iterator[Hit]:
    data, (alike, _) = subject.dataset, subject.told_before
    for second in np.flatnonzero(alike >= 0).tolist():
        name = data.class_names[data.box_classes[second]]
        same = f"the same place and class ({name}) as {data.box_ids[alike[second]]}"
        yield Hit(same, int(data.box_images[second]), second)


def _two_classes(subject: Subject) -> Iterator[Hit]:
    data, (alike, other) = subject.dataset, subject.told_before
    for second in np.flatnonzero((other >= 0) & (alike < 0) & (alike[other] < 0)).tolist():
        first = other[second]
        one, before = (data.class_names[data.box_classes[i]] for i in (second, first))
        said = f"{one} here, {before} in {data.box_ids[first]}, at the same place"
        yield Hit(said, int(data.box_images[second]), second)


def _crowded_image(subject: Subject) -> Iterator[Hit]:
    data = subject.dataset
    counts = np.bincount(data.box_images[~data.box_crowd], minlength=len(data))
    for i in np.flatnonzero(counts > _CROWDED).tolist():
        yield Hit(f"{counts[i]:,} boxes, of which at most {_CROWDED / counts[i]:.0%} can be found", image=i)


def _huge_box(subject: Subject) -> Iterator[Hit]:
    rows = subject.ordinary
    with np.errstate(invalid="ignore", over="ignore"):  # a box of 1e38 pixels in an image of unknown size
        parts = subject.shown / subject.box_frames
        covered = parts[:, 0] * parts[:, 1]
    suspects = np.flatnonzero(rows & (covered >= _WHOLE))
    for i in odd_in_class(suspects, covered, subject.dataset.box_classes, rows & (covered > 0)).tolist():
        yield Hit(
            f"it covers {covered[i]:.0%} of the image, which is rare for {_class_of(subject, i)!r}",
            int(subject.dataset.box_images[i]),
            i,
        )


def _extreme_shape(subject: Subject) -> Iterator[Hit]:
    rows, sides = subject.ordinary, subject.sides
    with np.errstate(invalid="ignore", divide="ignore"):
        shape = sides[:, 0] / sides[:, 1]
    suspects = np.flatnonzero(rows & ((shape >= _EXTREME) | (shape <= 1 / _EXTREME)))
    # what the border cuts off may leave a sliver, rightly
    narrow = sides[suspects].argmin(1)
    beside = subject.box_frames[suspects, narrow] - subject.corners[suspects, 2 + narrow]
    suspects = suspects[(subject.corners[suspects, narrow] > 1) & (beside > 1)]
    for i in odd_in_class(suspects, shape, subject.dataset.box_classes, rows).tolist():
        yield Hit(
            f"{sides[i, 0]:.4g} x {sides[i, 1]:.4g} pixels, which is rare for {_class_of(subject, i)!r}",
            int(subject.dataset.box_images[i]),
            i,
        )


def _class_of(subject: Subject, row: int) -> str:
    return str(subject.dataset.class_names[subject.dataset.box_classes[row]])


def _copied_labels(subject: Subject) -> Iterator[Hit]:
    data = subject.dataset
    counts = data.boxes_per_image()
    for image, first in subject.copied_labels:
        same = f"the same {counts[image]} boxes as {data.image_ids[first]}"
        yield Hit(f"{same}, whose picture looks different", image=image)


def _one_colour(subject: Subject) -> Iterator[Hit]:
    if subject.files is None:
        return
    files, counts = subject.files, subject.dataset.boxes_per_image()
    for i in np.flatnonzero(files.colours != b"").tolist():
        if files.modes[i][0] in "IF":
            continue  # cut off at 255, as deep_pixels says
        colour = ", ".join(map(str, files.colours[i]))
        alpha = (
            "; what is drawn in its transparency is not read"
            if files.modes[i] in ("LA", "PA", "RGBA")
            else ""
        )
        boxes = f", yet it has {counted(counts[i], 'box')}" if counts[i] else ""
        yield Hit(f"red, green and blue are about {colour} everywhere{alpha}{boxes}", image=i)


def _unread(kinds: dict[str, str]) -> Callable[[Subject], Iterator[Hit]]:
    def find(subject: Subject) -> Iterator[Hit]:
        for folder, suffix, names in subject.unread:
            if suffix in kinds:
                more = ", ".join(names[1:4]) + ", ..." * (len(names) > 4)
                beside = f"; {len(names) - 1:,} more beside it: {more}" if more else ""
                yield Hit(f"{kinds[suffix]}{beside}", file=os.path.join(folder, names[0]))

    return find


def _case_collision(subject: Subject) -> Iterator[Hit]:
    paths = subject.dataset.image_paths.tolist()
    keys = [unicodedata.normalize("NFC", path).casefold() for path in paths]
    if len(set(keys)) < len(keys):
        first: dict[str, int] = {}
        for i, key in enumerate(keys):
            other = first.setdefault(key, i)
            if paths[other] != paths[i]:
                name = subject.dataset.image_ids[other]
                yield Hit(f"the same name as {name} but for the case of letters", image=i)


def _split_skew(subject: Subject) -> Iterator[Hit]:
    data = subject.dataset
    splits = [split for split, count in subject.split_sizes.items() if count >= _FEW_IMAGES]
    if splits[:1] != ["train"]:
        return
    shares, distances = class_shares(data, splits)
    least, most = shares.min(1), shares.max(1)
    skewed = (distances >= _CHANCE) & (most >= _SKEW * least)
    for row, split in enumerate(splits[1:]):
        for k in np.flatnonzero(skewed[row]).tolist():
            there, here = shares[row, :, k]
            yield Hit(f"{data.class_names[k]!r} has {here:.1%} of the boxes in {split}, {there:.1%} in train")
        yield from _background_skew(subject, split)


def _background_skew(subject: Subject, split: str) -> Iterator[Hit]:
    splits, empty = subject.dataset.image_splits, subject.backgrounds
    counts = np.array([(splits == name).sum() for name in ("train", split)])
    empties = np.array([empty[splits == name].sum() for name in ("train", split)])
    pooled, shares = empties.sum() / counts.sum(), empties / counts
    error = np.sqrt(pooled * (1 - pooled) * (1 / counts).sum())
    if shares.max() >= _SKEW * shares.min() and abs(shares[0] - shares[1]) >= _CHANCE * error > 0:
        yield Hit(f"{shares[1]:.1%} of the images in {split} are without objects, {shares[0]:.1%} in train")


def _mostly_background(subject: Subject) -> Iterator[Hit]:
    empty, images = int(subject.backgrounds.sum()), len(subject.dataset)
    if subject.dataset.num_boxes and empty > _BACKGROUND * images:
        yield Hit(f"{empty:,} of {images:,} images ({empty / images:.0%}) are without objects")


def _class_name_variant(subject: Subject) -> Iterator[Hit]:
    names = subject.dataset.class_names
    counts = subject.dataset.class_counts()
    order = np.argsort(subject.canonical[:-1], kind="stable")
    ends = np.flatnonzero(np.diff(subject.canonical[:-1][order])) + 1
    for members in np.split(order, ends):
        if len(members) > 1:
            yield Hit(
                ", ".join(f"{names[i]!r} ({counted(counts[names[i]], 'box')})" for i in members.tolist())
            )


def _unused_class(subject: Subject) -> Iterator[Hit]:
    for name, count in subject.dataset.class_counts().items():
        if count == 0:
            yield Hit(f"{name!r} has no box")


def _class_imbalance(subject: Subject) -> Iterator[Hit]:
    counts = {name: count for name, count in subject.dataset.class_counts().items() if count}
    if len(counts) > 1:
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        ratio = counts[most] / counts[least]
        if ratio > _IMBALANCE:
            times = f"{ratio:,.3g}" if ratio < 100 else f"{ratio:,.0f}"
            numbers = f"{counts[most]:,} against {counts[least]:,}"
            yield Hit(f"{most!r} has {times} times as many boxes as {least!r} ({numbers})")


def _class_missing_in_split(subject: Subject) -> Iterator[Hit]:
    data = subject.dataset
    splits = list(subject.split_sizes)
    if len(splits) < 2:
        return
    known = data.box_classes != UNKNOWN_CLASS
    box_splits = data.image_splits[data.box_images]
    size = len(data.class_names)
    used = {s: np.bincount(data.box_classes[known & (box_splits == s)], minlength=size) for s in splits}
    total = sum(used.values())
    for split in splits:
        for index in np.flatnonzero((used[split] == 0) & (total > 0)).tolist():
            where = ", ".join(f"{s} has {used[s][index]:,}" for s in splits if used[s][index])
            yield Hit(f"{data.class_names[index]!r} has no box in {split} ({where})")


def _small_split(subject: Subject) -> Iterator[Hit]:
    for split, count in subject.split_sizes.items():
        if count < _FEW_IMAGES:
            yield Hit(f"{split} has {counted(count, 'image')}")


def _without_split(subject: Subject) -> Iterator[Hit]:
    if subject.split_sizes:
        for i in np.flatnonzero(subject.dataset.image_splits == "").tolist():
            yield Hit("it is in no split, while others are", image=i)


def _image_without_labels(subject: Subject) -> Iterator[Hit]:
    data = subject.dataset
    explained = {p.image for p in data.source_problems}  # an unreadable label, say
    for i in np.flatnonzero(data.boxes_per_image() == 0).tolist():
        if data.image_ids[i] not in explained:
            yield Hit("no box in it", image=i)


def _duplicate_image(subject: Subject) -> Iterator[Hit]:
    splits = subject.dataset.image_splits
    for copy, keep, what in subject.copies:
        if splits[copy] == splits[keep]:
            yield Hit(
                f"the same {what} as {subject.dataset.image_ids[keep]}{_other_labels(subject, copy, keep)}",
                copy,
            )


def _duplicate_across_splits(subject: Subject) -> Iterator[Hit]:
    data = subject.dataset
    for copy, keep, what in subject.copies:
        if data.image_splits[copy] != data.image_splits[keep]:
            yield Hit(
                f"in {data.image_splits[copy] or 'no split'}, the same {what} as {data.image_ids[keep]} in "
                f"{data.image_splits[keep]}{_other_labels(subject, copy, keep)}",
                copy,
            )


def _near_duplicate_across_splits(subject: Subject) -> Iterator[Hit]:
    data = subject.dataset
    for image, others in subject.leaks.items():
        similarity, likest = others[0]
        more = f", and {len(others) - 1} more" if len(others) > 1 else ""
        yield Hit(
            f"in {data.image_splits[image]}, looks the same as {data.image_ids[likest]} in "
            f"{data.image_splits[likest]} (similarity {similarity:.3f}){more}",
            image,
        )


def _other_labels(subject: Subject, copy: int, keep: int) -> str:
    data = subject.dataset
    a, b = data.boxes_of(copy), data.boxes_of(keep)
    if np.array_equal(data.boxes[a], data.boxes[b]) and np.array_equal(
        data.box_classes[a], data.box_classes[b]
    ):
        return ""
    return f", but labelled otherwise ({counted(a.stop - a.start, 'box')} against {b.stop - b.start})"


def _box_hits(subject: Subject, mask: NDArray[np.bool_], message: Callable[[int], str]) -> Iterator[Hit]:
    for i in np.flatnonzero(mask).tolist():
        yield Hit(message(i), int(subject.dataset.box_images[i]), i)


def _corners(subject: Subject, row: int) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in subject.dataset.boxes[row].tolist()) + ")"


def _size(size: Any) -> str:
    return f"{size[0]:g} x {size[1]:g}"


_DRAW_AGAIN = "Draw the box again or delete it."
CHECKS: dict[str, Check] = {
    "no_boxes": Check(
        "fatal",
        "dataset without a box",
        "There is nothing to learn from.",
        "Check the path, the format, and whether the labels lie where the format expects them.",
        find=_nothing,
    ),
    "missing_image": Check(
        "fatal",
        "image not found on disk",
        "The labels name an image file that does not exist.",
        "Put the file back or delete its labels.",
        "drops the image",
        _file_problem("missing_image"),
    ),
    "unreadable_image": Check(
        "fatal",
        "image that cannot be read",
        "The file exists, but is no image, or is damaged or cut short.",
        "Get the file anew or delete it with its labels.",
        "drops the image",
        _file_problem("unreadable_image"),
    ),
    "huge_image": Check(
        "fatal",
        "image too large to open",
        "Pillow refuses it, as a small file could unpack to more than the memory holds.",
        "Cut it into tiles or make it smaller, its labels with it.",
        "drops the image",
        _file_problem("huge_image"),
    ),
    "unreadable_label": Check(
        "fatal",
        "label that cannot be read",
        "A label file or a line of it makes no sense, so its objects are not known.",
        "Correct the file at the place named.",
    ),
    "unreadable_folder": Check(
        "fatal",
        "folder that cannot be looked into",
        "Labels or images may lie in it, which are then missing without a trace.",
        "Make it readable, or move it out of the dataset's folder.",
    ),
    "path_outside": Check(
        "fatal",
        "label of an image outside the dataset's folder",
        "Nothing outside it is opened, so that its labels are left out.",
        "Write the path relative to the dataset's folder, and put the image there.",
    ),
    "missing_split": Check(
        "warning",
        "split without images",
        "It is named where the dataset is described, and nothing is there.",
        "Put its images there, or take it out of the file.",
    ),
    "image_in_two_splits": Check(
        "warning",
        "image listed in two splits",
        "It is kept in the first; in both it would be trained on and tested with.",
        "List each image in one split.",
    ),
    "wrong_size": Check(
        "fatal",
        "image with a wrong declared size",
        "The labels state another size than the image has, so that their boxes may lie elsewhere.",
        "Correct the size in the labels, or put the image back that was labelled.",
        find=_wrong_size,
    ),
    "exif_orientation": Check(
        "fatal",
        "image with an EXIF orientation that the labels ignore",
        "The labels were drawn on the pixels as stored, while every viewer (and training) turns the image upright.",
        "Store the image upright without the EXIF tag, or turn its boxes.",
        "turns the boxes",
        _exif,
    ),
    "not_finite": Check(
        "fatal",
        "box with a corner that is not a number",
        "One NaN or infinite corner makes the whole loss NaN.",
        _DRAW_AGAIN,
        "drops the box",
        _not_finite,
    ),
    "no_area": Check(
        "fatal",
        "box without area",
        "Width or height is zero; detectors refuse such a box or divide by its side.",
        _DRAW_AGAIN,
        "drops the box",
        _no_area,
    ),
    "inverted": Check(
        "fatal",
        "box with inverted corners",
        "The second corner lies left of or above the first; detectors refuse such a box.",
        "Swap the corners.",
        "swaps the corners",
        _inverted,
    ),
    "corners_for_sides": Check(
        "fatal",
        "box with corners for width and height",
        "COCO's bbox is left, top, width, height; here the last two are the right and the bottom edge, it seems.",
        "Write width and height: right - left and bottom - top.",
        "reads them as corners",
        _corners_for_sides,
    ),
    "outside": Check(
        "fatal",
        "box outside the image",
        "No pixel of the image lies in it.",
        _DRAW_AGAIN,
        "drops the box",
        _outside,
    ),
    "unknown_class": Check(
        "fatal",
        "box of an unknown class",
        "Its class is not in the dataset's class table.",
        "Add the class to the table or correct the label.",
        "drops the box",
        _unknown_class,
    ),
    "partly_outside": Check(
        "warning",
        "box partly outside the image",
        "The part beyond the border cannot be seen.",
        "Clip the box at the border.",
        "clips the box",
        _partly_outside,
    ),
    "tiny": Check(
        "warning",
        "box of tiny size",
        "A slip of the mouse, or an object too small for any detector.",
        "Delete it if it is a slip.",
        find=_tiny,
    ),
    "duplicate_box": Check(
        "warning",
        "box drawn twice",
        "Two boxes of one class at the same place; the detector is punished for finding one object.",
        "Delete one of the two.",
        "drops the box",
        _duplicate_box,
    ),
    "two_classes": Check(
        "warning",
        "box with two classes",
        "Two boxes at the same place say different classes; one of them is wrong.",
        "Decide which class is right and delete the other box.",
        find=_two_classes,
    ),
    "huge_box": Check(
        "warning",
        "box over nearly the whole image",
        f"It covers over {_WHOLE:.0%} of its image, and boxes of its class are far smaller: drawn around everything?",
        "Look at it; draw it around the object, or delete it.",
        find=_huge_box,
    ),
    "extreme_shape": Check(
        "warning",
        "box of extreme shape",
        f"One side is over {_EXTREME} times the other, and boxes of its class are not: a slip of the mouse?",
        _DRAW_AGAIN,
        find=_extreme_shape,
    ),
    "copied_labels": Check(
        "warning",
        "image with the labels of another",
        "Box for box the same as those of another image, which looks different: a copied label file?",
        "Look at both and label the wrong one anew. Right if nothing moved before a camera that stood still.",
        find=_copied_labels,
    ),
    "class_name_variant": Check(
        "warning",
        "class spelled in several ways",
        "Names that differ only by case or space are learned as different classes.",
        "Use one spelling.",
        "merges the classes",
        _class_name_variant,
    ),
    "label_without_image": Check(
        "warning",
        "label without an image",
        "There are labels, but no image that they belong to.",
        "Put the image back or delete the label.",
    ),
    "exif_undecided": Check(
        "warning",
        "image with an EXIF orientation that the labels may ignore",
        "It is stored turned or mirrored, and nothing in the labels tells whether they were drawn on it so.",
        "Look at its boxes; if they lie wrong, store the image upright without the tag.",
        find=_exif_undecided,
    ),
    "one_colour": Check(
        "warning",
        "image of one colour",
        "Nothing can be seen in it: a shot that failed, an empty page, a placeholder.",
        "Look at it; get the image anew, or delete it with its labels.",
        find=_one_colour,
    ),
    "deep_pixels": Check(
        "warning",
        "image with more than 8 bits a pixel and channel",
        "Training takes the upper 8 of 16 bits, and cuts off deeper pixels at 255: most may turn black or white.",
        "Convert it to 8 bits with the contrast you want to train on.",
        find=_deep_pixels,
    ),
    "unknown_size": Check(
        "warning",
        "image of unknown size",
        "Without a size nobody can say whether boxes lie inside.",
        "State the size in the labels.",
        find=_unknown_size,
    ),
    "duplicate_across_splits": Check(
        "warning",
        "image in two splits",
        "The same image is trained on and tested with, so that the measured accuracy is too high.",
        "Keep it in one split.",
        "drops the image",
        _duplicate_across_splits,
    ),
    "near_duplicate_across_splits": Check(
        "warning",
        "image much like one in another split",
        "The same shot, or the next of a burst, is trained on and tested with: the measured accuracy is too high.",
        "Look at both; put them into one split, or deal the images anew: dataset.with_splits().",
        find=_near_duplicate_across_splits,
    ),
    "duplicate_image": Check(
        "warning",
        "image held twice",
        "The same image several times; it counts more than others.",
        "Keep one, with the better labels.",
        find=_duplicate_image,
    ),
    "case_collision": Check(
        "warning",
        "image whose name is another's but for the case of letters",
        "On macOS and Windows, and in many an archive or cloud folder, one of the two overwrites the other.",
        "Rename one of them, its labels with it.",
        find=_case_collision,
    ),
    "unread_picture": Check(
        "warning",
        "kind of picture that is not read",
        "Pictures lie beside the images whose format odkit does not read; they are no part of the dataset.",
        "Convert them to JPEG or PNG and label them, or move them elsewhere.",
        find=_unread(PICTURES),
    ),
    "crowded_image": Check(
        "warning",
        f"image with more than {_CROWDED} boxes",
        f"A detector finds at most {_CROWDED} objects in an image, and COCO's evaluation counts as many of a class.",
        "Train on tiles (`--tiles 640`), of which each has its own; or leave the limit in mind when reading recall.",
        find=_crowded_image,
    ),
    "class_missing_in_split": Check(
        "warning",
        "class missing in a split",
        "Without it in train it is not learned, without it elsewhere it is not measured.",
        "Deal the images anew: dataset.with_splits().",
        find=_class_missing_in_split,
    ),
    "small_split": Check(
        "warning",
        "split too small",
        f"Below {_FEW_IMAGES} images, accuracy measured on a split is mostly chance.",
        "Deal the images anew, dataset.with_splits(val=...), or label more.",
        find=_small_split,
    ),
    "without_split": Check(
        "warning",
        "image in no split",
        "It is neither trained on nor measured with.",
        "Name it in a split list, or deal the images anew: dataset.with_splits().",
        find=_without_split,
    ),
    "unused_class": Check(
        "info",
        "class without boxes",
        "It stands in the class table, but nothing is labelled with it.",
        "Remove it from the class table, dataset.with_classes({name: None}), or label some.",
        find=_unused_class,
    ),
    "class_imbalance": Check(
        "info",
        "class imbalance",
        f"The most frequent class has over {_IMBALANCE} times the boxes of the rarest, whose accuracy will lag.",
        "Label more of the rare ones; read the accuracy class by class.",
        find=_class_imbalance,
    ),
    "split_skew": Check(
        "info",
        "share that differs between splits",
        f"{_SKEW} times that of the other split or more, which is not by chance: the splits show different things.",
        "Right if they were parted by place or day on purpose; else deal the images anew: dataset.with_splits().",
        find=_split_skew,
    ),
    "unread_labels": Check(
        "info",
        "kind of file that may hold labels and is not read",
        "It lies where labels would, in a format that odkit does not read.",
        "If it says more than the labels that were read, convert it to a format that is read.",
        find=_unread(LABELS),
    ),
    "mostly_background": Check(
        "info",
        "dataset of mostly empty images",
        "Over half of the images show no object; some keep false alarms down, so many make training longer.",
        "Right if the detector will see as many; else leave some out: dataset.select(...). Look whether all are empty.",
        find=_mostly_background,
    ),
    "image_without_labels": Check(
        "info",
        "image without labels",
        "It is used as a negative: nothing is to be found in it.",
        "Right if there is nothing in it; else label it.",
        find=_image_without_labels,
    ),
}
"""Every kind of finding: how grave, what it is, why it matters, what to do, what `repaired()` does, what finds it."""
