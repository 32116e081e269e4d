"""TFRecord files of TensorFlow's Object Detection API: what is read, where the pictures go, and damage."""

import gzip
import json
import os
import random
import resource
import signal
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import odkit as od
from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import MOST_PROBLEMS, DatasetFormatError
from odkit.data.formats.records import DamagedError, crc32c, parse_example, read_records
from odkit.system import InputError, cache_folder
from tests.data.formats import record_writer
from tests.data.formats.layouts import (
    BOXES,
    NAMES,
    SIZES,
    by_stem,
    check,
    csv_one_file,
    kinds,
    picture,
    put,
    rows,
    tfrecord_a_split,
    tfrecord_beside_images,
    tfrecord_examples,
    tfrecord_one_file,
    tfrecord_shards,
)
from tests.data.formats.record_writer import (
    delimited,
    detection,
    example,
    frame,
    label_map,
    masked,
    write_records,
)

RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, so that it is seen what is put there."""
    place = tmp_path.parent / f"cache of {tmp_path.name}"
    monkeypatch.setenv("ODKIT_CACHE", str(place))
    return place


def unpacked() -> list[Path]:
    return sorted((cache_folder() / "tfrecord").glob("*"))


# -- what is read ----------------------------------------------------------------------------------------------------


def test_files_that_tensorflow_wrote() -> None:
    """Made by tools/record_tensorflow.py, which also holds that TensorFlow reads what record_writer.py writes."""
    truth = json.loads((RECORDED / "truth.json").read_text(encoding="utf-8"))
    dataset = load_dataset(RECORDED, val=0)
    assert dataset.source_problems == ()
    assert list(dataset.class_names) == truth["names"]
    assert dict(zip(dataset.image_ids, dataset.image_splits, strict=True)) == {
        "train/one.jpg": "train",
        "train/empty.jpg": "train",
        "val/two.png": "val",
    }
    for image, (image_id, size) in enumerate(
        zip(dataset.image_ids, dataset.image_sizes.tolist(), strict=True)
    ):
        declared, objects = truth["objects"][image_id.partition("/")[2]]
        assert size == declared
        assert od.boxes.as_boxes([box for _, box in objects]) == pytest.approx(
            dataset.boxes[dataset.boxes_of(image)]
        )
        assert [name for name, _ in rows(dataset, image)] == [name for name, _ in objects]
    assert dataset.box_crowd.tolist() == [False, False, True]
    audit = od.audit(dataset)
    assert {"missing_image", "unreadable_image", "wrong_size"}.isdisjoint(f.kind for f in audit.findings)


@pytest.mark.parametrize(
    "size", [*range(12), 16, 17, 31, 32, 33, 63, 64, 65, 127, 500, 1023, 1024, 4097, 33_333]
)
def test_checksums_against_those_made_bit_by_bit(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert crc32c(data) == record_writer.crc32c(data)


def test_checksums_that_are_published() -> None:
    """RFC 3720, appendix B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283


def test_one_record_file_of_a_folder(tmp_path: Path) -> None:
    tfrecord_a_split(tmp_path)
    dataset = load_dataset(tmp_path / "val.record", val=0)
    assert sorted(by_stem(dataset)) == ["c", "d"]
    assert dataset.split_counts() == {"val": 2}


def of_numbers(picture: Path, label: Sequence[Any], text: Sequence[Any] = ()) -> dict[str, Sequence[Any]]:
    boxes = [("?", [1, 1, 9, 9])] * len(label)
    more = {"image__object__class__text": text, "image__object__class__label": label}
    return detection(picture, (20, 20), boxes, **more)


MAP = "item { id: 1 name: 'nine' }\nitem: <id: 3, name: \"ten\">;\nitem{name:'/m/01g317' id:7 display_name:\"Person\"}"


@pytest.mark.parametrize(
    ("maps", "labels", "texts", "names", "found"),
    [
        ({"labelmap.pbtxt": MAP}, [7, 1, 3], [], ["nine", "ten", "Person"], ["Person", "nine", "ten"]),
        ({"a/label_map.pbtxt": MAP}, [7, 3], ["/m/01g317", "ten"], ["ten", "Person"], ["Person", "ten"]),
        (
            {"a.pbtxt": "item { id: 1 name: 'no' }", "b.pbtxt": MAP},
            [3, 7],
            [],
            ["ten", "Person"],
            ["ten", "Person"],
        ),
        ({}, [3, 1], [], ["class 1", "class 3"], ["class 3", "class 1"]),
        ({}, [2, 1], ["ace", "two"], ["two", "ace"], ["ace", "two"]),  # in the order of their numbers
        ({}, [2, 2], ["two", "ace"], ["ace", "two"], ["two", "ace"]),  # numbers that tell nothing apart
    ],
)
def test_classes_and_their_order(
    tmp_path: Path,
    maps: dict[str, str],
    labels: list[int],
    texts: list[str],
    names: list[str],
    found: list[str],
) -> None:
    write_records(tmp_path / "all.record", [of_numbers(picture(tmp_path / "a.jpg", (20, 20)), labels, texts)])
    for file, text in maps.items():
        put(tmp_path / file, text)
    dataset = load_dataset(tmp_path, val=0)
    assert list(dataset.class_names) == names
    assert [name for name, _ in rows(dataset, 0)] == found
    assert dataset.source_problems == ()


def test_a_label_map_orders_the_classes_of_csv(tmp_path: Path) -> None:
    csv_one_file(tmp_path)
    put(tmp_path / "training/labelmap.pbtxt", label_map(["zebra", "dog", "cat"]))
    dataset = load_dataset(tmp_path, val=0)
    check(dataset.with_classes(NAMES), splits=False)
    assert dataset.class_names == ("dog", "cat")
    assert any("training/labelmap.pbtxt; its 1 other class no box has" in note for note in dataset.notes)


@pytest.mark.parametrize("text", [label_map(["dog", "bird"]), "node { name: 'graph' }", "item { id: 1"])
def test_a_label_map_of_something_else_changes_nothing(tmp_path: Path, text: str) -> None:
    csv_one_file(tmp_path)
    put(tmp_path / "labelmap.pbtxt", text)
    dataset = load_dataset(tmp_path, val=0)
    assert list(dataset.class_names) == NAMES
    broken = text == "item { id: 1"
    assert kinds(dataset) == ["unreadable_label_map"] * broken
    assert not broken or "labelmap.pbtxt, line 1" in dataset.source_problems[0].message


def test_crowds_groups_and_difficult_ones(tmp_path: Path) -> None:
    flags = {"is_crowd": [0, 1, 0], "group_of": [1, 0, 0], "difficult": [0, 1, 1]}
    one = of_numbers(picture(tmp_path / "a.jpg", (20, 20)), [1, 1, 1])
    write_records(
        tmp_path / "a.record", [one | {f"image/object/{key}": values for key, values in flags.items()}]
    )
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.box_crowd.tolist() == [True, True, False]
    notes = "\n".join(dataset.notes)
    assert "2 objects marked as difficult" in notes
    assert "1 boxes marked as group_of" in notes


SIZES_STATED = [  # as stored 40 x 30, turned by EXIF or not: stated, and what the boxes' shares are then of
    (1, (40, 30), (40, 30)),
    (1, (400, 300), (40, 30)),  # the picture was made smaller
    (1, (0, 0), (40, 30)),
    (6, (40, 30), (40, 30)),  # TensorFlow turns no picture: the audit turns the boxes
    (6, (30, 40), (30, 40)),
]


@pytest.mark.parametrize(("orientation", "stated", "size"), SIZES_STATED)
def test_boxes_are_shares_of_the_picture(
    tmp_path: Path, orientation: int, stated: tuple[int, int], size: tuple[int, int]
) -> None:
    file = picture(tmp_path / "elsewhere/a.jpg", (40, 30), orientation)
    box = [size[0] / 4, size[1] / 3, size[0] / 2, size[1]]
    one = detection(file, size, [("cat", box)]) | {"image/width": [stated[0]], "image/height": [stated[1]]}
    write_records(tmp_path / "pets/train.record", [one])
    dataset = load_dataset(tmp_path / "pets", val=0)
    assert dataset.boxes == pytest.approx(np.array([box]))
    found = [f.kind for f in od.audit(dataset).findings]
    assert ("exif_orientation" in found) == (orientation == 6 and stated == (40, 30))
    assert "wrong_size" not in found
    assert any("another size" in note for note in dataset.notes) == (stated == (400, 300))


def test_corners_in_pixels_are_seen(tmp_path: Path) -> None:
    one = detection(picture(tmp_path / "a.jpg", (200, 100)), (1, 1), [("cat", [10, 20, 110, 70])])
    write_records(tmp_path / "a.record", [one | {"image/width": [200], "image/height": [100]}])
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.boxes.tolist() == [[10, 20, 110, 70]]
    assert any("taken for pixels" in note for note in dataset.notes)


# -- where the pictures go -------------------------------------------------------------------------------------------


def test_pictures_are_unpacked_once_and_never_into_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    tfrecord_shards(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    dataset = load_dataset(folder, val=0)
    check(dataset)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    files = unpacked()
    assert sorted(dataset.image_paths) == [str(file) for file in files]
    assert sorted(dataset.image_ids) == [
        "pets_train/a.jpg",
        "pets_train/b.jpg",
        "pets_val/c.jpg",
        "pets_val/d.jpg",
    ]
    note = dataset.notes[-1]
    assert str(cache_folder() / "tfrecord") in note
    assert "4 pictures" in note
    assert "4 of them now" in note
    first = [file.stat().st_mtime_ns for file in files]
    files[0].write_bytes(b"cut short")
    again = load_dataset(folder, val=0)
    assert again.fingerprint() == dataset.fingerprint()
    assert "1 of them now" in again.notes[-1]
    assert [file.stat().st_mtime_ns for file in files][1:] == first[1:]
    check(again)


def test_a_picture_whose_bytes_lie_in_the_folder_is_that_file(tmp_path: Path) -> None:
    tfrecord_beside_images(tmp_path)
    dataset = load_dataset(tmp_path, val=0)
    check(dataset, splits=False)
    assert sorted(dataset.image_ids) == [f"images/{stem}.jpg" for stem in SIZES]
    assert unpacked() == []
    picture(tmp_path / "images/a.jpg", (64, 48), orientation=3)  # other bytes under the name
    dataset = load_dataset(tmp_path, val=0)
    check(dataset, splits=False)
    assert max(dataset.image_ids) == "pets/a.jpg"
    assert dataset.image_paths[dataset.index_of("pets/a.jpg")] == str(unpacked()[0])


def test_convert_makes_them_permanent(tmp_path: Path) -> None:
    tfrecord_a_split(tmp_path / "pets")
    target = od.convert(tmp_path / "pets", tmp_path / "kept", to="coco")
    for file in unpacked():
        file.unlink()
    check(load_dataset(target, val=0))


ODD_NAMES = {
    "../../etc/passwd": "all/etc/passwd.jpg",
    "/home/me/pictures/cat.jpg": "all/cat.jpg",
    "C:\\pictures\\cat.png": "all/cat.png",
    "\\\\server\\share\\cat": "all/cat.jpg",
    ".hidden.jpg": "all/hidden.jpg",
    "a\0b\nc:?.jpg": "all/a_b_c__.jpg",
    "": "all/record 1.jpg",
    "...": "all/image.jpg",
    "a//./b.JPG": "all/a/b.JPG",
}


@pytest.mark.parametrize(("name", "image_id"), ODD_NAMES.items())
def test_names_in_records_lead_nowhere(tmp_path: Path, name: str, image_id: str) -> None:
    one = detection(picture(tmp_path / "elsewhere/x.jpg", (9, 9)), (9, 9), [("cat", [1, 1, 5, 5])])
    write_records(tmp_path / "in/all.TFRecord", [one | {"image/filename": [name], "image/source_id": []}])
    dataset = load_dataset(tmp_path / "in", val=0)
    assert dataset.image_ids.tolist() == [image_id]
    assert dataset.image_paths.tolist() == [str(path) for path in unpacked()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "in"]


def test_different_pictures_of_one_name_are_numbered_and_one_picture_in_two_records_is_joined(
    tmp_path: Path,
) -> None:
    def one(place: str, box: list[float]) -> dict[str, Sequence[Any]]:
        return detection(picture(tmp_path / place / "x.jpg", (9, 9)), (9, 9), [("cat", box)])

    records = [one("a", [1, 1, 5, 5]), one("b", [1, 1, 6, 6]), one("a", [2, 2, 5, 5])]
    write_records(tmp_path / "in/train.record", records)
    write_records(tmp_path / "in/val.record", [one("b", [3, 3, 5, 5])])
    dataset = load_dataset(tmp_path / "in", val=0)
    assert dataset.image_ids.tolist() == ["train/x.jpg", "train/x_2.jpg", "val/x.jpg"]
    assert dataset.boxes_per_image().tolist() == [2, 1, 1]
    assert len(set(dataset.image_paths)) == len(unpacked()) == 3
    assert kinds(dataset) == ["image_listed_twice"]
    assert "duplicate_across_splits" in [f.kind for f in od.audit(dataset).findings]


def test_a_disk_without_room_is_said(tmp_path: Path) -> None:
    """A limit on a file's size stands in for the full disk; writing then fails in the same place."""
    big = detection(bytes(300_000), (9, 9), [])
    write_records(tmp_path / "big.tfrecord.gz", [big])  # small itself
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError) as error:
            load_dataset(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(cache_folder() / "tfrecord") in str(error.value)
    assert "ODKIT_CACHE=" in str(error.value)
    assert unpacked() == []


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tfrecord_one_file(tmp_path / "pets")
    monkeypatch.setenv("ODKIT_CACHE", str(put(tmp_path / "file", "no folder") / "cache"))
    with pytest.raises(InputError, match=r"cannot be unpacked into .*file/cache/tfrecord"):
        load_dataset(tmp_path / "pets")


# -- damage ----------------------------------------------------------------------------------------------------------

SMALL = example({"image/filename": ["x.jpg"], "image/encoded": [b"\xff\xd8 a picture"], "image/width": [3]})


def faults(path: Path) -> list[tuple[int, str]]:
    return [(record.number, record.fault) for record in read_records(path)]


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """Three records, a bit of the second flipped: in its data it is lost alone, in its length all that follows."""
    whole = frame(SMALL)
    path = tmp_path / "x.record"
    for at in range(len(whole)):
        spoiled = bytearray(whole)
        spoiled[at] ^= 1 << at % 8
        path.write_bytes(whole + spoiled + whole)
        found = faults(path)
        if at < 12:
            assert [number for number, _ in found] == [1, 2], at
            assert "checksum of its length is wrong; nothing after it" in found[1][1]
        else:
            assert found == [(1, ""), (2, "the checksum of its data is wrong"), (3, "")], at


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_file_cut_short_anywhere(tmp_path: Path, packed: bool) -> None:
    whole = frame(SMALL) * 2
    written = gzip.compress(whole, mtime=0) if packed else whole
    path = tmp_path / "x.record"
    for end in range(1, len(written)):
        path.write_bytes(written[:end])
        found = faults(path)
        if packed or end != len(whole) // 2:
            assert found[-1][1], end
            assert "ends" in found[-1][1] or "read on" in found[-1][1] or end < 12
        assert not any(fault for _, fault in found[:-1])


def head(length: int) -> bytes:
    return struct.pack("<Q", length) + masked(struct.pack("<Q", length))


def bomb() -> bytes:
    return gzip.compress(head(150_000_000) + bytes(150_000_000), 9)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: head(2**63) + bytes(99), "reads records up to 256 MB"),
        (lambda: head(2**64 - 1), "reads records up to 256 MB"),
        (lambda: head(2**27) + bytes(99), "the file ends after 95 of them"),
        (lambda: gzip.compress(head(2**63)), "reads records up to 256 MB"),
        (bomb, "unpacks to more than 200 times its size"),
        (lambda: b"\x1f\x8b" + bytes(30), "cannot be read on"),
        (lambda: b"no record at all", "checksum of its length"),
        (lambda: b"", "the file is empty"),
        (lambda: frame(b"\x0a"), "a number has no end"),
        (lambda: frame(b"\xff" * 40), "a number has no end"),
        (lambda: frame(b"\x0a\xff\xff\xff\xff\x0f"), "reaches beyond its end"),
        (lambda: frame(b"\x0b\x0c"), "unknown type 3"),
        (lambda: frame(b"\x08\x01" * 100_001), "more than 100,000 fields"),
        (lambda: frame(b""), "none of the keys"),
        (lambda: frame(example({"audio/encoded": [b"x"]})), "none of the keys"),
        (lambda: frame(example({"image/encoded": [1.0]})), "numbers where bytes belong"),
        (
            lambda: frame(example({"image/filename": ["a"], "image/width": ["wide"]})),
            "bytes where numbers belong",
        ),
        (
            lambda: frame(
                delimited(1, delimited(1, delimited(1, b"image/width") + delimited(2, b"\x12\x03\x0a\x01a")))
            ),
            "no multiple of 4 bytes",
        ),
        (lambda: frame(example({"image/width": [0] * 200_000})), "more than 100,000 values"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_made_to_do_harm(tmp_path: Path, content: Any, words: str) -> None:
    path = put(tmp_path / "train.record", content())
    with pytest.raises(DatasetFormatError) as error:
        load_dataset(tmp_path)
    assert f"{path}: record 1: " in str(error.value)
    assert words in str(error.value)
    assert unpacked() == []


def test_a_file_of_damaged_records_is_not_read_for_ever(tmp_path: Path) -> None:
    tfrecord_one_file(tmp_path)
    path = tmp_path / "pets.tfrecord"
    path.write_bytes(path.read_bytes() + frame(b"") * (MOST_PROBLEMS + 500))
    dataset = load_dataset(tmp_path, val=0)
    check_all_boxes(dataset)
    assert len(dataset.source_problems) == MOST_PROBLEMS + 1


def check_all_boxes(dataset: od.Dataset) -> None:
    assert {stem: rows(dataset, image) for stem, image in by_stem(dataset).items()} == {
        stem: [(name, pytest.approx(box, abs=1e-4)) for name, box in boxes] for stem, boxes in BOXES.items()
    }


def test_what_is_left_of_a_damaged_file_is_read(tmp_path: Path) -> None:
    tfrecord_one_file(tmp_path)
    path = tmp_path / "pets.tfrecord"
    data = bytearray(path.read_bytes())
    data[30] ^= 4
    path.write_bytes(data)
    dataset = load_dataset(tmp_path, val=0)
    assert sorted(by_stem(dataset)) == ["b", "c", "d"]
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity, problem.file) == ("unreadable_label", "fatal", str(path))
    assert (problem.message, problem.box) == ("record 1: the checksum of its data is wrong", "record 1")


BAD = [
    ({"image/object/bbox/xmin": [0.1]}, "unreadable_label", "1 xmin, 2 ymin"),
    ({"image/object/class/text": ["cat"]}, "unreadable_label", "2 boxes and 1 class names"),
    ({"image/object/class/label": [1, 2, 3]}, "unreadable_label", "2 boxes and 3 class numbers"),
    (
        {"image/object/bbox/ymax": [float("nan"), 0.9]},
        "unreadable_label",
        "object 1 has no box of four numbers",
    ),
    (
        {"image/object/class/text": ["", "dog"], "image/object/class/label": []},
        "unknown_class",
        "object 1 has no class",
    ),
    ({"image/object/class/text": [], "image/object/class/label": [1, 9]}, "unknown_class", "class number 9"),
    ({"image/encoded": [], "image/filename": ["gone.jpg"]}, "label_without_image", "no file 'gone.jpg'"),
]


@pytest.mark.parametrize(("change", "kind", "words"), BAD, ids=[words for _, _, words in BAD])
def test_a_record_that_is_wrong(
    tmp_path: Path, change: dict[str, Sequence[Any]], kind: str, words: str
) -> None:
    first, *others = tfrecord_examples(tmp_path)
    write_records(tmp_path / "pets.record", [first | change, *others])
    put(tmp_path / "label_map.pbtxt", label_map(NAMES))
    dataset = load_dataset(tmp_path, val=0)
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.file) == (kind, str(tmp_path / "pets.record"))
    assert "record 1" in problem.message
    assert words in problem.message
    assert len(dataset) == 4
    assert set(dataset.class_names) == set(NAMES)


def test_any_bytes_are_a_message_or_damage() -> None:
    """Examples with bytes changed parse, or are refused in words; nothing else is raised."""
    rng = random.Random(3)
    whole = example(detection(b"\xff\xd8" + bytes(40), (30, 20), [("cat", [1, 2, 3, 4])] * 3, names=["cat"]))
    keys = [f"image/object/bbox/{corner}" for corner in ("xmin", "ymin", "xmax", "ymax")]
    refused = 0
    for _ in range(3000):
        spoiled = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
        try:
            found = parse_example(bytes(spoiled), keys)
        except DamagedError:
            refused += 1
        else:
            assert all(key in keys for key in found)
    assert 0 < refused < 3000


def test_a_folder_that_is_listed_and_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    tfrecord_one_file(tmp_path)
    os.symlink(tmp_path / "nowhere", tmp_path / "train.record")
    dataset = load_dataset(tmp_path, val=0)
    check_all_boxes(dataset)
    assert kinds(dataset) == ["unreadable_label"]
