"""COCO files decoded into columns mean what the careful reader makes of them, however odd they are."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odkit.data.formats import coco as coco_reader
from odkit.data.formats.load import load_dataset
from odkit.data.formats.reader_base import DatasetFormatError
from tests.data.formats.layouts import annotation, coco, pictures
from tests.data.formats.test_coco import BAD_ANNOTATIONS, BAD_IMAGES
from tests.data.formats.test_garbage import spoil


def with_annotation(**changes: Any) -> bytes:
    return json.dumps(coco(annotations=[annotation(2), annotation(7, **changes), annotation(12)])).encode()


def with_image(**changes: Any) -> bytes:
    content = coco()
    content["images"][1].update(changes)
    return json.dumps(content).encode()


def replaced(old: bytes, new: bytes) -> bytes:
    content = json.dumps(coco(description="x")).encode()
    assert old in content
    return content.replace(old, new, 1)


PLAIN = json.dumps(coco()).encode()
FLAWLESS = {
    "plain": PLAIN,
    "in lines": json.dumps(coco(), indent=1).encode(),
    "byte order mark": b"\xef\xbb\xbf" + PLAIN,
    "order of keys": json.dumps(dict(reversed(coco().items()))).encode(),
    "no boxes": json.dumps(coco(annotations=[])).encode(),
    "crowd with runs": with_annotation(iscrowd=1, segmentation={"size": [4, 4], "counts": [1, 2]}),
    "areas": with_annotation(area=4000.5),
    "area null": with_annotation(area=None),
    "ids not in order": json.dumps(coco(annotations=[annotation(9), annotation(3), annotation(5)])).encode(),
    "images not in order": json.dumps(
        coco(annotations=[annotation(1, image_id=103), annotation(2), annotation(3, image_id=102)])
    ).encode(),
    "large ids": with_annotation(id=2**62),
    "twice in an entry": replaced(b'"id": 1010,', b'"id": 5, "id": 1010,'),
    "escaped key": replaced(b'"id": 1010,', b'"i\\u0064": 1010,'),
    "letters": replaced(b"d.jpg", "dö日.jpg".encode()),
    "letters that are skipped": replaced(b'"x"', '"ö日"'.encode()),
    "size as text": with_image(width="48", height=None),
    "no sizes": json.dumps(
        coco(images=[{"id": image["id"], "file_name": image["file_name"]} for image in coco()["images"]])
    ).encode(),
    "ids of images as text among numbers": json.dumps(
        coco(images=[*coco()["images"], {"id": "5", "file_name": "e.jpg"}])
    ).encode(),
    "split in info": json.dumps(coco(info={"split": "val"})).encode(),
    "a path outside": with_image(file_name="../../b.jpg"),
    "a path upwards": with_image(file_name="x/../b.jpg"),
    "categories of odd kinds": json.dumps(coco(categories=[*coco()["categories"], 5, {"id": [1]}])).encode(),
}
ODD = {
    **{
        f"annotation, {name}": json.dumps(
            coco(annotations=[annotation(2), bad, annotation(3, image_id=102)])
        ).encode()
        for name, bad, _ in BAD_ANNOTATIONS
    },
    **{
        f"image, {name}": json.dumps(coco(images=[*coco()["images"], bad])).encode()
        for name, bad, *_ in BAD_IMAGES
    },
    "id as text": with_annotation(id="7"),
    "id as float": with_annotation(id=7.0),
    "id is true": with_annotation(id=True),
    "id below 0": with_annotation(id=-7),
    "id beyond 64 bits": with_annotation(id=2**64),
    "id beyond 63 bits": with_annotation(id=2**63),
    "id null": with_annotation(id=None),
    "image as text": with_annotation(image_id="101"),
    "image as float": with_annotation(image_id=101.0),
    "image beyond 64 bits": with_image(id=2**70),
    "image's id as float": with_image(id=102.0),
    "image's id as text": with_image(id="102"),
    "image's id true": with_image(id=True),
    "class as text": with_annotation(category_id="7"),
    "class as float": with_annotation(category_id=7.0),
    "crowd as text": with_annotation(iscrowd="1"),
    "crowd true": with_annotation(iscrowd=True),
    "crowd null": with_annotation(iscrowd=None),
    "area as text": with_annotation(area="12"),
    "area huge": with_annotation(area=10**40),
    "bbox of text": with_annotation(bbox=["1", "2", "3", "4"]),
    "bbox of big numbers": with_annotation(bbox=[1, 2, 10**30, 4]),
    "shares": json.dumps(coco(annotations=[annotation(bbox=[0.25, 0.5, 0.5, 0.25])])).encode(),
    "no annotations": json.dumps({key: coco()[key] for key in ("images", "categories")}).encode(),
    "no categories": json.dumps({key: coco()[key] for key in ("images", "annotations")}).encode(),
    **{
        f"annotations of {bad!r}": json.dumps(coco(annotations=[bad, annotation(2)])).encode()
        for bad in (5, None, True, "caption", ["caption"])
    },
    "annotations null": json.dumps(coco(annotations=None)).encode(),
    "categories null": json.dumps(coco(categories=None)).encode(),
    "caption": json.dumps(coco(annotations=[annotation(caption="a cat")])).encode(),
    "caption, escaped": replaced(b'"iscrowd"', b'"capt\\u0069on"'),
    "NaN": json.dumps(coco(info={"version": float("nan")})).encode(),
    "1e999": replaced(b'"x"', b"1e999"),
    "half a character": replaced(b'"x"', b'"\\ud800"'),
    "half a character in a name": replaced(b"d.jpg", b"d\\ud83d.jpg"),
    "no UTF-8 in what is skipped": replaced(b'"x"', b'"\xff"'),
    "no UTF-8 in a key": replaced(b'"description"', b'"\xff"'),
    "no UTF-8 at the end": replaced(b'"x"', b'"\xe6\x97"'),
    "UTF-16": json.dumps(coco()).encode("utf-16"),
    "cut short": PLAIN[:-30],
    "two files": PLAIN + PLAIN,
    "zero at the end": PLAIN + b"\0",
    "empty": b"",
    "deep": replaced(b'"x"', b"[" * 5000 + b"]" * 5000),
    "boxes of an image in two entries": json.dumps(
        coco(
            images=[*coco()["images"], {"id": 1, "file_name": "a.jpg"}], annotations=[annotation(image_id=1)]
        )
    ).encode(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("coco")
    pictures(place, "images/{stem}.jpg")
    return place


def said(folder: Path, content: bytes) -> dict[str, Any]:
    """All that reading gives, or the words with which it refuses."""
    (folder / "labels.json").write_bytes(content)
    try:
        dataset = load_dataset(folder, val=0)
    except DatasetFormatError as error:
        return {"error": str(error)}
    columns = ("image_paths", "image_ids", "image_sizes", "image_splits", "boxes")
    more = ("box_classes", "box_images", "box_crowd", "box_ids")
    return {
        **{name: np.asarray(getattr(dataset, name)).tolist() for name in (*columns, *more)},
        **{name: getattr(dataset, name) for name in ("class_names", "notes", "source_problems")},
        "ids": (dict(dataset.source_ids.images), dict(dataset.source_ids.classes)),
        "fingerprint": dataset.fingerprint(),
    }


@pytest.fixture
def carefully(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, bytes], dict[str, Any]]:
    def read(folder: Path, content: bytes) -> dict[str, Any]:
        with monkeypatch.context() as patch:
            patch.setattr(coco_reader, "in_columns", lambda text: None)
            return said(folder, content)

    return read


@pytest.mark.parametrize("name", [*FLAWLESS, *ODD])
def test_both_ways_to_read_say_the_same(folder: Path, name: str, carefully: Callable) -> None:
    content = (FLAWLESS | ODD)[name]
    assert said(folder, content) == carefully(folder, content)


@pytest.mark.parametrize("name", FLAWLESS)
def test_a_flawless_file_is_read_as_columns(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: Any) -> None:
        raise AssertionError("read entry by entry")

    monkeypatch.setattr(coco_reader, "_read_annotations", refused)
    assert "error" not in said(folder, FLAWLESS[name])


def test_both_ways_say_the_same_of_garbage(folder: Path, carefully: Callable) -> None:
    rng = random.Random(5)
    for _ in range(80):
        content = spoil(PLAIN, rng)
        assert said(folder, content) == carefully(folder, content), content


def test_an_image_in_the_files_of_two_splits(tmp_path: Path, carefully: Callable) -> None:
    """It is kept in the first, with that one's boxes."""
    pictures(tmp_path, "images/{stem}.jpg")
    both = coco("val", info={"split": "val"})
    both["images"].append(coco("train")["images"][0])
    both["annotations"].append(annotation(77, image_id=101))
    (tmp_path / "train.json").write_text(json.dumps(coco("train")))
    found = said(tmp_path, json.dumps(both).encode())
    assert [problem.kind for problem in found["source_problems"]] == ["image_in_two_splits"]
    assert found["box_ids"] == ["1030", "1031", "77", "1020"]
    assert found == carefully(tmp_path, json.dumps(both).encode())
