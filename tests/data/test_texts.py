"""Columns of strings: what an array of strings answers, without one."""

import errno
import json
import os
import pickle
import random
import zipfile

import numpy as np
import pytest

from odkit.data import Dataset, Texts
from odkit.data.columns import load_columns, save_columns
from odkit.data.dataset import SourceIds
from odkit.data.texts import CHUNK, Numbered, TextTable
from odkit.system import InputError
from tests.helpers import make_dataset

ROWS = ["b/1.jpg", "", "ö.jpg", "b/1.jpg", "\udcff odd", "日本", "c"]
COLUMNS = {
    "spelled": (Texts.of(ROWS), ROWS),
    "ascii": (Texts.of(["x", "yy", "x"]), ["x", "yy", "x"]),
    "a part": (Texts.of(["away", *ROWS, "away"])[1:-1], ROWS),
    "numbered": (Numbered("box ", np.array([3, 1, 12, 3])), ["box 3", "box 1", "box 12", "box 3"]),
    "numbers": (Numbered("", np.array([7, 0], np.int32)), ["7", "0"]),
    "none": (Texts.of([]), []),
}


@pytest.mark.parametrize(("texts", "rows"), COLUMNS.values(), ids=COLUMNS)
def test_a_column_answers_as_an_array_of_strings(texts, rows, tmp_path):
    array = np.array(rows, object).reshape(-1)
    assert len(texts) == len(rows)
    assert texts.tolist() == list(texts) == [texts[i] for i in range(len(rows))] == rows
    assert [texts[-1 - i] for i in range(len(rows))] == rows[::-1]
    assert np.array_equal(np.asarray(texts), array)
    rng = np.random.default_rng(0)
    for chosen in (
        slice(1, 3),
        slice(None, None, -2),
        rng.random(len(rows)) < 0.5,
        np.zeros(0, int),
        slice(5, 2),
    ):
        assert texts[chosen].tolist() == array[chosen].tolist()
    assert texts[[]].tolist() == []
    if rows:
        assert texts[np.array(1)] == texts[np.int32(1)] == rows[1]
        twice = rng.integers(len(rows), size=9)
        assert texts[twice].tolist() == array[twice].tolist()
        assert texts[twice.tolist()].tolist() == array[twice].tolist()
    for text in {*rows, "box 03", "box", "box 4", "z"}:
        assert (texts == text).tolist() == [row == text for row in rows]
        assert (texts != text).tolist() == [row != text for row in rows]
        assert (text in texts) == (text in rows)
    assert (texts == array).tolist() == [True] * len(rows)
    assert Texts.join([texts, texts]).tolist() == rows * 2
    assert Texts.join([texts, Texts.of(["end"])]).tolist() == [*rows, "end"]
    assert pickle.loads(pickle.dumps(texts)).tolist() == rows
    assert (texts.repeated() is None) == (len(set(rows)) == len(rows))
    few = np.array([str(len(row) % 2) for row in rows], object)
    save_columns(tmp_path / "a.npz", {"said": 1}, {"texts": texts, "few": few})
    about, columns = load_columns(tmp_path / "a.npz")
    assert about == {"said": 1}
    assert columns["texts"].tolist() == rows
    assert columns["few"].tolist() == few.tolist()


def test_a_row_that_is_not_there_is_an_error():
    for texts, rows in COLUMNS.values():
        for row in (len(rows), -len(rows) - 1, [len(rows)], [-len(rows) - 1], ["a"], [0.5]):
            with pytest.raises(IndexError, match="row"):
                texts[row]
        with pytest.raises(IndexError, match="mask"):
            texts[np.zeros(len(rows) + 1, bool)]


def test_repeated_texts_are_found_after_any_choice_of_rows():
    texts = Texts.of(f"{k}.jpg" for k in range(CHUNK + 5))
    assert texts.repeated() is None
    assert texts[texts != "7.jpg"].repeated() is None
    assert texts[[5, 4, 5]].repeated() == "5.jpg"
    backwards = np.arange(len(texts))[::-1]
    assert texts[backwards].tolist() == texts.tolist()[::-1]
    assert Texts.join([texts, texts[CHUNK:]]).repeated() is not None


def test_a_saved_dataset_is_shared_and_read_only(tmp_path):
    dataset = make_dataset([(0, 0, (1, 1, 9, 9)), (2, 1, (2, 2, 8, 8))], images=3)
    again = Dataset.load(dataset.save(tmp_path / "data.npz"))
    for column in ("boxes", "image_sizes", "box_images", "box_crowd"):
        array = getattr(again, column)
        assert np.array_equal(array, getattr(dataset, column))
        assert array.ctypes.data % 64 == 0, column
        assert not array.flags.writeable, "it is the file's"
    assert again.fingerprint() == dataset.fingerprint()
    assert again.box_ids.tolist() == dataset.box_ids.tolist()
    assert np.load(tmp_path / "data.npz")["boxes"].tolist() == dataset.boxes.tolist()


def test_a_saved_dataset_stays_what_it_is_while_another_takes_its_place(tmp_path):
    dataset = make_dataset([(0, 0, (1, 1, 9, 9)), (2, 1, (2, 2, 8, 8))], images=3)
    path = dataset.save(tmp_path / "data.npz")
    again = Dataset.load(path)
    assert Dataset.load(again.select([2]).save(path)).num_boxes == 1
    path.unlink()
    assert again.fingerprint() == dataset.fingerprint()


def test_a_loaded_dataset_is_one_open_file(tmp_path):
    path = make_dataset([(0, 0, (1, 1, 9, 9))]).save(tmp_path / "data.npz")
    before = set(os.listdir("/dev/fd"))
    kept = [Dataset.load(path) for _ in range(3)]
    assert len(set(os.listdir("/dev/fd")) - before) <= len(kept)


def test_without_shared_maps_a_file_is_read(tmp_path, monkeypatch):
    """As on some network file systems."""
    dataset = make_dataset([(0, 0, (1, 1, 9, 9)), (2, 1, (2, 2, 8, 8))], images=3)
    path = dataset.save(tmp_path / "data.npz")

    def refused(*_, **__):
        raise OSError(errno.ENODEV, "no such device")

    monkeypatch.setattr("odkit.data.columns.mmap.mmap", refused)
    assert Dataset.load(path).fingerprint() == dataset.fingerprint()


def test_a_dataset_that_an_older_version_saved_is_read(tmp_path):
    dataset = make_dataset([(0, 0, (1, 1, 9, 9)), (2, 1, (2, 2, 8, 8))], images=3)
    text = {
        "class_names": dataset.class_names,
        "name": "old",
        "root": "/made",
        "format": "",
        "notes": [],
        "source_problems": [],
        "image_paths": list(dataset.image_paths),
        "image_ids": list(dataset.image_ids),
        "image_splits": ["train", "train", "val"],
        "box_ids": ["5", "odd"],
    }
    numbers = ("image_sizes", "boxes", "box_classes", "box_images", "box_crowd")
    np.savez_compressed(
        tmp_path / "old.npz",
        text=np.frombuffer(json.dumps(text).encode(), np.uint8),
        **{name: getattr(dataset, name) for name in numbers},
    )
    again = Dataset.load(tmp_path / "old.npz")
    assert again.box_ids.tolist() == ["5", "odd"]
    assert again.fingerprint() == dataset.replace(image_splits=text["image_splits"]).fingerprint()


def labelled() -> Dataset:
    dataset = make_dataset([(0, 0, (1, 1, 9, 9)), (2, 1, (2, 2, 8, 8))], images=3)
    keys = TextTable(dataset.image_ids, Texts.of([7, 5, 9]))
    return dataset.replace(source_ids=SourceIds(keys, {"1": "cat"}))


def test_ids_of_the_label_file_are_saved_as_columns(tmp_path):
    dataset = labelled()
    table = dict(zip(dataset.image_ids, "759", strict=True))
    again = Dataset.load(dataset.save(tmp_path / "whole.npz"))
    assert again.source_ids.images == table == dict(again.source_ids.images)
    assert again.source_ids.images.names is again.image_ids, "one column for both"
    part = Dataset.load(again.select([2]).save(tmp_path / "part.npz"))
    assert (part.source_ids.images, part.source_ids.classes) == (table, {"1": "cat"})
    with pytest.raises(KeyError):
        part.source_ids.images["z"]
    assert pickle.loads(pickle.dumps(part)).source_ids.images == table
    assert Dataset.load(make_dataset([]).save(tmp_path / "none.npz")).source_ids.images == {}


def test_a_damaged_file_is_refused_in_words(tmp_path):
    """Bytes changed or cut off: the file is read, or it is said that it is damaged."""
    path, rng = labelled().save(tmp_path / "data.npz"), random.Random(0)
    whole = path.read_bytes()
    read = 0
    for number in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 3, 10])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.randrange(len(damaged)) if number % 5 == 0 else None])
        refused = ""
        try:
            read += bool(Dataset.load(path).fingerprint())
        except InputError as error:
            refused = str(error)
        assert not refused or "is damaged" in refused
    assert 0 < read < 75


@pytest.mark.parametrize("shape", [(2**62,), (2**40, 2**40), (-1,), (7,)])
def test_a_column_that_says_to_be_larger_than_its_file_takes_no_memory(tmp_path, shape):
    path = make_dataset([(0, 0, (1, 1, 9, 9))]).save(tmp_path / "data.npz")
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "false.npz", "w", how) as false:
            for name in old.namelist():
                text = b"\x93NUMPY\x01\x00v\x00" + header.encode() + bytes(8)
                false.writestr(name, text if name == "box_images.npy" else old.read(name))
        with pytest.raises(InputError, match="box_images has 8 bytes"):
            Dataset.load(tmp_path / "false.npz")
