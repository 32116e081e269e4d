"""Dataset: columns that fit together, views that leave the rest alone, splits dealt, files saved whole."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odkit.data.dataset import Dataset, SourceProblem, concatenate
from odkit.data.image_facts import file_hash
from odkit.data.texts import Texts


def made(**columns: Any) -> Dataset:
    """Three images, four boxes, two classes; given out of order."""
    return Dataset(
        **{
            "class_names": ("cat", "dog"),
            "root": "/data",
            "image_paths": ["/data/train/a.jpg", "/data/train/b.jpg", "/data/c.jpg"],
            "image_sizes": [[100, 50], [80, 80], [0, 0]],
            "image_splits": ["train", "train", "val"],
            "boxes": [[5, 5, 9, 9], [1, 2, 30, 40], [0, 0, 80, 80], [2, 2, 8, 8]],
            "box_classes": [1, 0, 1, -1],
            "box_images": [2, 0, 1, 0],
            "box_crowd": [False, False, True, False],
            **columns,
        }
    )


def pictures(folder: Path, contents: list[bytes]) -> list[str]:
    folder.mkdir(exist_ok=True)
    for index, content in enumerate(contents):
        (folder / f"{index:03d}.jpg").write_bytes(content)
    return [str(folder / f"{index:03d}.jpg") for index in range(len(contents))]


# -- columns -----------------------------------------------------------------------------------------------------------


def test_boxes_are_put_in_the_order_of_the_images() -> None:
    dataset = made()
    assert dataset.box_images.tolist() == [0, 0, 1, 2]
    assert dataset.boxes[:, 0].tolist() == [1, 2, 0, 5]
    assert dataset.box_classes.tolist() == [0, -1, 1, 1]
    assert dataset.box_crowd.tolist() == [False, False, True, False]
    assert dataset.box_ids.tolist() == ["box 1", "box 2", "box 1", "box 1"]
    assert made(box_ids=["w", "x", "y", "z"]).box_ids.tolist() == ["x", "z", "y", "w"]


def test_types_of_the_columns() -> None:
    dataset = made()
    types = {field.name: getattr(dataset, field.name) for field in dataclasses.fields(dataset)}
    found = {name: value.dtype for name, value in types.items() if isinstance(value, np.ndarray)}
    assert {name for name, value in types.items() if isinstance(value, Texts)} == {
        "image_paths",
        "image_ids",
        "box_ids",
    }
    assert found == {
        "image_splits": object,
        "image_sizes": np.int32,
        "boxes": np.float32,
        "box_classes": np.int32,
        "box_images": np.int32,
        "box_crowd": bool,
    }
    assert dataset.image_ids.tolist() == ["train/a.jpg", "train/b.jpg", "c.jpg"]
    elsewhere = made(image_paths=["/data/a.jpg", "/other/b.jpg", "/data/c.jpg"])
    assert elsewhere.image_ids.tolist() == ["a.jpg", "/other/b.jpg", "c.jpg"]


NOTHING = dict(
    image_paths=[],
    image_sizes=[],
    image_splits=[],
    boxes=[],
    box_classes=[],
    box_images=[],
    box_crowd=[],
)


def test_an_empty_dataset_and_one_without_boxes() -> None:
    empty = made(**NOTHING)
    assert (len(empty), empty.num_boxes, empty.boxes.shape) == (0, 0, (0, 4))
    assert empty.class_counts() == {"cat": 0, "dog": 0}
    assert empty.split_counts() == {}
    assert empty.boxes_per_image().tolist() == []
    without = made(boxes=[], box_classes=[], box_images=[], box_crowd=[])
    assert without.boxes_per_image().tolist() == [0, 0, 0]
    assert without.boxes_of(1) == slice(0, 0)
    assert "3 images, 0 boxes" in repr(without)


REFUSED = [
    (dict(box_images=[0, 0, 1]), "box_images has 3 rows for 4 boxes"),
    (dict(box_images=[0]), "box_images has 1 rows for 4 boxes"),
    (dict(box_images=[0, 1, 2, 0, 1]), "box_images has 5 rows for 4 boxes"),
    (dict(box_classes=[0]), "box_classes has 1 rows for 4 boxes"),
    (dict(box_crowd=[True]), "box_crowd has 1 rows for 4 boxes"),
    (dict(box_ids=["a"]), "box_ids has 1 rows for 4 boxes"),
    (dict(image_sizes=[[1, 1]]), "image_sizes has 1 rows for 3 images"),
    (dict(image_splits=["train"]), "image_splits has 1 rows for 3 images"),
    (dict(image_ids=["a"]), "image_ids has 1 rows for 3 images"),
    (dict(boxes=[[1, 2, 3]] * 4), r"shape \[N, 4\], not \[4, 3\]"),
    (dict(box_images=[0, 1, 2, 3]), "box_images must be 0 to 2; it has 0 to 3"),
    (dict(box_images=[0, 1, -1, 0]), "box_images must be 0 to 2; it has -1 to 1"),
    (dict(box_classes=[0, 2, 0, 0]), "must be 0 to 1 .*; train/a.jpg, box 1 has 2"),
    (dict(box_classes=[0, -2, 0, 0]), "train/a.jpg, box 1 has -2"),
    (dict(class_names=("cat", "cat"), box_classes=[0] * 4), "'cat' stands more than once"),
    (dict(image_ids=["a", "b", "a"]), "'a' stands more than once"),
    (dict(image_paths=[], image_sizes=[], image_splits=[]), "box_images must be"),
]


@pytest.mark.parametrize(("columns", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_columns_that_do_not_fit_are_refused(columns: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**columns)


def test_boxes_that_are_wrong_are_kept_for_the_audit() -> None:
    odd = [[np.nan, 0, 1, 1], [9, 9, 1, 1], [np.inf, 0, 0, 0], [-5, -5, 900, 900]]
    np.testing.assert_array_equal(made(boxes=odd, box_images=[0, 0, 1, 2]).boxes, np.array(odd, np.float32))


# -- looking -----------------------------------------------------------------------------------------------------------


def test_counts_and_rows() -> None:
    dataset = made()
    assert (len(dataset), dataset.num_boxes) == (3, 4)
    assert dataset.class_counts() == {"cat": 1, "dog": 2}  # and one of no known class
    assert dataset.split_counts() == {"train": 2, "val": 1}
    assert dataset.boxes_per_image().tolist() == [2, 1, 1]
    assert [dataset.boxes_of(i) for i in range(3)] == [slice(0, 2), slice(2, 3), slice(3, 4)]
    several = made(image_splits=["zoo", "test", "train"])
    assert list(several.split_counts()) == ["train", "test", "zoo"]


def test_index_of_an_image() -> None:
    assert made().index_of("train/b.jpg") == 1
    with pytest.raises(KeyError, match=r"no image 'train/bb.jpg' in dataset; near it: train/b.jpg"):
        made().index_of("train/bb.jpg")


def test_how_it_shows_itself() -> None:
    dataset = made(class_names=("<b>", "dog"), format="coco", name="animals")
    text = repr(dataset)
    assert "Dataset 'animals': 3 images, 4 boxes, 2 classes" in text
    assert "dog 2, <b> 1" in text
    assert "train 2, val 1" in text
    page = dataset._repr_html_()
    assert "<b>animals</b>" in page
    assert "&lt;b&gt; 1" in page
    assert "&lt;b&gt; 1" not in text


FINGERPRINTED = [
    dict(class_names=("cat", "cow")),
    dict(image_sizes=[[100, 50], [80, 80], [1, 0]]),
    dict(image_splits=["train", "val", "val"]),
    dict(image_ids=["a", "b", "c"]),
    dict(boxes=[[5, 5, 9, 9], [1, 2, 30, 40], [0, 0, 80, 80], [2, 2, 8, 8.001]]),
    dict(box_classes=[1, 0, 1, 0]),
    dict(box_images=[1, 0, 1, 0]),
    dict(box_crowd=[True, False, True, False]),
]


@pytest.mark.parametrize("columns", FINGERPRINTED, ids=lambda columns: next(iter(columns)))
def test_fingerprint_sees_what_is_trained_on(columns: dict) -> None:
    assert made(**columns).fingerprint() != made().fingerprint()


def test_fingerprint_is_the_same_wherever_the_data_lies() -> None:
    paths = ["/mnt/train/a.jpg", "/mnt/train/b.jpg", "/mnt/c.jpg"]
    assert made(root="/mnt", image_paths=paths, name="x", notes=("y",)).fingerprint() == made().fingerprint()


# -- views -------------------------------------------------------------------------------------------------------------


def test_select_takes_images_in_the_order_given_with_their_boxes() -> None:
    dataset = made(box_ids=["w", "x", "y", "z"])
    chosen = dataset.select([2, 0])
    assert chosen.image_ids.tolist() == ["c.jpg", "train/a.jpg"]
    assert chosen.image_sizes.tolist() == [[0, 0], [100, 50]]
    assert chosen.image_splits.tolist() == ["val", "train"]
    assert chosen.box_ids.tolist() == ["w", "x", "z"]
    assert chosen.box_images.tolist() == [0, 1, 1]
    assert len(dataset) == 3
    masked = dataset.select(np.array([True, False, True]))
    assert masked.image_ids.tolist() == ["train/a.jpg", "c.jpg"]
    assert dataset.select([-1]).image_ids.tolist() == ["c.jpg"]
    assert (len(dataset.select([])), dataset.select([]).num_boxes) == (0, 0)


def test_select_keeps_the_problems_of_the_images_it_keeps() -> None:
    problems = [SourceProblem("odd", "info", "f", "m", "x", image) for image in ("", "c.jpg", "train/a.jpg")]
    chosen = made(source_problems=tuple(problems)).select([2])
    assert [p.image for p in chosen.source_problems] == ["", "c.jpg"]


def test_select_boxes_keeps_every_image() -> None:
    dataset = made().select_boxes(made().box_crowd)
    assert (len(dataset), dataset.num_boxes) == (3, 1)
    assert dataset.boxes_per_image().tolist() == [0, 1, 0]
    assert made().select_boxes([3, 0]).boxes[:, 0].tolist() == [1, 5]


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        ([0, 0], ValueError, "same image twice"),
        ([3], IndexError, "indices of images must be 0 to 2; got 3 to 3"),
        ([-4], IndexError, "got -4"),
        (np.array([True, False]), ValueError, r"a mask of images must have 3 values, not \[2\]"),
    ],
)
def test_select_refuses(chosen: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        made().select(chosen)


def test_split() -> None:
    assert made().split("train").image_ids.tolist() == ["train/a.jpg", "train/b.jpg"]
    with pytest.raises(KeyError, match=r"no split 'test'; its splits: train \(2 images\), val \(1 images\)"):
        made().split("test")
    with pytest.raises(KeyError, match=r"none; with_splits\(\) makes them"):
        made(image_splits=None).split("train")


def test_replace_validates_again() -> None:
    assert made().replace(name="other").name == "other"
    with pytest.raises(ValueError, match="image_splits has 1 rows"):
        made().replace(image_splits=["x"])


def test_a_dataset_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        made().name = "other"  # type: ignore[misc]


# -- classes -----------------------------------------------------------------------------------------------------------


def of_classes(*names: str) -> Dataset:
    """An image a box, a box a class; the last box is of unknown class."""
    count = len(names) + 1
    return made(
        class_names=names,
        image_paths=[f"/none/{k}.jpg" for k in range(count)],
        image_sizes=np.full((count, 2), 99),
        image_splits=None,
        boxes=[[0, 0, k + 1, 9] for k in range(count)],
        box_classes=[*range(len(names)), -1],
        box_images=range(count),
        box_crowd=None,
        box_ids=[f"b{k}" for k in range(count)],
    )


@pytest.mark.parametrize(
    ("classes", "names", "of_boxes", "note"),
    [
        ({"b": "x"}, ("a", "x", "c"), {"b0": "a", "b1": "x", "b2": "c"}, "'b' is now 'x'"),
        ({"a": "x", "c": "x"}, ("x", "b"), {"b0": "x", "b1": "b", "b2": "x"}, "'a' and 'c' are now 'x'"),
        ({"a": "c"}, ("c", "b"), {"b0": "c", "b1": "b", "b2": "c"}, "'a' and 'c' are now 'c'"),
        (
            {"a": "b", "b": "a"},
            ("b", "a", "c"),
            {"b0": "b", "b1": "a", "b2": "c"},
            "'a' is now 'b'; 'b' is now 'a'",
        ),
        (
            {"a": None, "b": "x"},
            ("x", "c"),
            {"b1": "x", "b2": "c"},
            "'b' is now 'x'; 'a' dropped with 1 box, which leaves 1 image without any",
        ),
        (
            ["c", "a"],
            ("c", "a"),
            {"b0": "a", "b2": "c"},
            "'b' dropped with 1 box, which leaves 1 image without any",
        ),
        (("c", "b", "a"), ("c", "b", "a"), {"b0": "a", "b1": "b", "b2": "c"}, "in another order"),
        ({}, ("a", "b", "c"), {"b0": "a", "b1": "b", "b2": "c"}, ""),
        (["a", "b", "c"], ("a", "b", "c"), {"b0": "a", "b1": "b", "b2": "c"}, ""),
    ],
    ids=str,
)
def test_classes_are_renamed_merged_dropped_and_put_in_order(
    classes: Any, names: tuple[str, ...], of_boxes: dict[str, str], note: str
) -> None:
    dataset = of_classes("a", "b", "c")
    before = dataset.fingerprint()
    new = dataset.with_classes(classes)
    assert new.class_names == names
    found = {
        str(box): new.class_names[k] if k >= 0 else "unknown"
        for box, k in zip(new.box_ids, new.box_classes, strict=True)
    }
    assert found == {**of_boxes, "b3": "unknown"}
    for box, corner in zip(new.box_ids, new.boxes[:, 2], strict=True):
        assert corner == int(box[1:]) + 1  # each keeps its place
    assert new.image_ids.tolist() == dataset.image_ids.tolist()
    assert new.notes == ((*dataset.notes, f"classes: {note}") if note else dataset.notes)
    assert (new.fingerprint() == before) == (not note)
    assert (dataset.fingerprint(), dataset.class_names) == (before, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (
            {"plateled": "x"},
            KeyError,
            "no class 'plateled' in dataset, which has platelet, RBC; did you mean 'platelet'",
        ),
        (["rbc"], KeyError, "did you mean 'RBC'"),
        (["zzz"], KeyError, "which has platelet, RBC$"),
        (["RBC", "RBC"], ValueError, "'RBC' stands more than once"),
        ({"RBC": " "}, ValueError, "empty name"),
        ([], ValueError, "without any class"),
        ({"RBC": None, "platelet": None}, ValueError, "without any class"),
        ("RBC", ValueError, "takes a list or a mapping of names, not 'RBC' alone"),
    ],
    ids=str,
)
def test_classes_that_cannot_be(classes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        of_classes("platelet", "RBC").with_classes(classes)


# -- splits ------------------------------------------------------------------------------------------------------------


def many(images: int, boxes: int, classes: int, *, seed: int = 0, paths: list[str] | None = None) -> Dataset:
    """Classes from frequent to rare, on files that are not there."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, classes + 1)
    return Dataset(
        class_names=[f"class {k}" for k in range(classes)],
        root="/none",
        image_paths=paths or [f"/none/{index}.jpg" for index in range(images)],
        image_sizes=np.full((images, 2), 100),
        boxes=np.tile([0, 0, 5, 5], (boxes, 1)),
        box_classes=rng.choice(classes, boxes, p=share / share.sum()),
        box_images=rng.integers(0, images, boxes),
    )


def test_splits_are_dealt_from_a_seed() -> None:
    dataset = many(200, 900, 4)
    first = dataset.with_splits(val=0.2, test=0.1, seed=3)
    assert first.split_counts() == {"train": 140, "val": 40, "test": 20}
    assert first.fingerprint() == dataset.with_splits(val=0.2, test=0.1, seed=3).fingerprint()
    assert first.fingerprint() != dataset.with_splits(val=0.2, test=0.1, seed=4).fingerprint()
    assert first.notes[-1] == "splits dealt from seed 3, stratified by class: train 140, val 40, test 20"
    assert dataset.split_counts() == {}


def test_every_class_is_dealt_in_proportion() -> None:
    dataset = many(600, 3000, 8).with_splits(val=0.25)
    held_out = dataset.split("val").class_counts()
    for name, count in dataset.class_counts().items():
        assert held_out[name] / count == pytest.approx(0.25, abs=0.05), name


def test_a_class_of_two_images_is_trained_on_and_measured() -> None:
    dataset = made(
        image_splits=None,
        box_classes=[0, 0, 1, 1],
        boxes=[[0, 0, 1, 1]] * 4,
        box_images=[0, 1, 2, 3],
        image_paths=[f"/none/{k}.jpg" for k in range(4)],
        image_sizes=np.full((4, 2), 9),
    ).with_splits(val=0.5)
    for split in ("train", "val"):
        assert dataset.split(split).class_counts() == {"cat": 1, "dog": 1}


def test_exact_duplicates_stay_on_one_side(tmp_path: Path) -> None:
    contents = [bytes([index % 10]) * 5000 + b"end" for index in range(40)]  # ten pictures, four times each
    dataset = many(40, 120, 3, paths=pictures(tmp_path, contents))
    for seed in range(5):
        sides: dict[str, set[str]] = {}
        dealt = dataset.with_splits(val=0.3, seed=seed)
        for path, split in zip(dealt.image_paths, dealt.image_splits, strict=True):
            sides.setdefault(file_hash(path), set()).add(split)
        assert len(sides) == 10
        assert all(len(side) == 1 for side in sides.values())


def test_files_alike_in_size_and_end_are_not_duplicates(tmp_path: Path) -> None:
    contents = [bytes([index]) + b"the same rest" * 1000 for index in range(6)]
    dealt = many(6, 12, 2, paths=pictures(tmp_path, contents)).with_splits(val=0.5)
    assert dealt.split_counts() == {"train": 3, "val": 3}


def test_files_that_are_not_there_are_dealt_one_by_one() -> None:
    assert many(10, 20, 2).with_splits(val=0.2).split_counts() == {"train": 8, "val": 2}


def test_no_split_stays_empty() -> None:
    assert many(3, 5, 1).with_splits(val=0.01, test=0.01).split_counts() == {"train": 1, "val": 1, "test": 1}


def test_dealing_many_images_takes_no_square_of_them() -> None:
    """With a loop over all images inside a loop over all images this would take minutes."""
    dealt = many(20_000, 60_000, 20).with_splits(val=0.2)
    assert dealt.split_counts() == {"train": 16_000, "val": 4_000}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (dict(val=-0.1), "val=-0.1"),
        (dict(val=0.6, test=0.4), "leave some images"),
        (dict(val=1.5), "val=1.5"),
    ],
)
def test_shares_that_make_no_sense(shares: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made().with_splits(**shares)


def test_too_few_images_to_deal(tmp_path: Path) -> None:
    same = many(2, 4, 1, paths=pictures(tmp_path, [b"twice", b"twice"]))
    with pytest.raises(ValueError, match="1 different images cannot be dealt to 2 splits"):
        same.with_splits(val=0.5)


# -- saving ------------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    problem = SourceProblem("odd", "info", "f", "a message: ünï", "fix it", "c.jpg", "box 1")
    dataset = made(
        name="ünïcode \u2028",
        format="voc",
        class_names=("ца", "a,b"),
        notes=("read",),
        source_problems=(problem,),
        boxes=[[np.nan, 0, 1, 1], [0.1, 0.2, 30.3, 40.4], [0, 0, 80, 80], [2, 2, 8, 8]],
    )
    path = dataset.save(tmp_path / "new" / "dataset.npz")
    assert [file.name for file in path.parent.iterdir()] == ["dataset.npz"]
    again = Dataset.load(path)
    for field in dataclasses.fields(Dataset):
        was, now = getattr(dataset, field.name), getattr(again, field.name)
        if isinstance(was, np.ndarray):
            assert was.dtype == now.dtype
            np.testing.assert_array_equal(was, now)
        elif isinstance(was, Texts):
            assert type(was) is type(now)
            assert was.tolist() == now.tolist()
        else:
            assert was == now, field.name
    assert again.fingerprint() == dataset.fingerprint()


def test_an_empty_dataset_can_be_saved(tmp_path: Path) -> None:
    assert len(Dataset.load(made(**NOTHING).save(tmp_path / "empty.npz"))) == 0


def test_where_nothing_can_be_saved(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path, why in ((tmp_path, "is a folder"), (tmp_path / "file/new.npz", "cannot be written")):
        with pytest.raises(FileExistsError, match=why):
            made().save(path)
    assert os.listdir(tmp_path) == ["file"]
    assert not list(tmp_path.parent.glob(f"{tmp_path.name}*.tmp"))
    os.mkfifo(tmp_path / "pipe.npz")  # is not waited for
    with pytest.raises(ValueError, match="is a pipe"):
        Dataset.load(tmp_path / "pipe.npz")


def test_names_that_are_no_text_come_back(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"\xfcn\xef")
    dataset = made(root=root, image_paths=[str(root / f"{k}.jpg") for k in range(len(made()))])
    again = Dataset.load(dataset.save(tmp_path / "saved.npz"))
    assert again.root == root
    assert again.image_paths.tolist() == dataset.image_paths.tolist()


def test_what_is_no_saved_dataset(tmp_path: Path) -> None:
    whole = made().save(tmp_path / "whole.npz").read_bytes()
    np.savez(tmp_path / "other.npz", numbers=np.zeros(3))
    np.savez(tmp_path / "text.npz", text=np.frombuffer(b'{"name": 1}', np.uint8))
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "pickle.npz", text=np.array([{}], object))
    for name, content in {"cut": whole[: len(whole) // 2], "empty": b"", "noise": bytes(range(256))}.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
    for path in sorted(tmp_path.iterdir()):
        if path.name != "whole.npz":
            with pytest.raises(
                ValueError, match=f"{path.name} is no dataset that odkit saved, or is damaged"
            ):
                Dataset.load(path)
    with pytest.raises(FileNotFoundError):
        Dataset.load(tmp_path / "not there.npz")


# -- joining -----------------------------------------------------------------------------------------------------------


def test_concatenate_merges_classes_by_name_and_sets_splits() -> None:
    other = made(
        class_names=("dog", "cow"),
        image_ids=["x", "y", "z"],
        notes=("other",),
        box_classes=[0, 1, -1, 0],
    )
    whole = concatenate({"train": made(notes=("one", "other")), "test": other}, name="both")
    assert whole.name == "both"
    assert whole.class_names == ("cat", "dog", "cow")
    assert whole.split_counts() == {"train": 3, "test": 3}
    assert whole.notes == ("one", "other")
    assert whole.box_images.tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
    assert whole.class_counts() == {"cat": 1, "dog": 4, "cow": 1}
    assert (whole.box_classes == -1).sum() == 2
    assert concatenate({"": made()}).image_splits.tolist() == ["train", "train", "val"]


def test_concatenate_refuses() -> None:
    with pytest.raises(ValueError, match="nothing to join"):
        concatenate({})
    with pytest.raises(ValueError, match="image ids must differ"):
        concatenate({"train": made(), "val": made()})


def test_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_hash(tmp_path / "b") == ""
