"""COCO's JSON: what tools and people write into it that is not what the format says."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile.cases import dataset_case, found, lost, refused, right


def picture(path: Path, size: tuple[int, int] = (64, 48), seed: int = 0) -> Path:
    """A picture of noise, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def labels(images: int = 4, **changes: Any) -> dict[str, Any]:
    """COCO's JSON of some images with a box each; `changes` replace whole keys."""
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(images)],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1 + i % 2,
                "bbox": [4, 4, 20, 16],
                "area": 320,
                "iscrowd": 0,
            }
            for i in range(images)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "bird"}],
        **changes,
    }


def write(folder: Path, content: Any, images: int = 4) -> None:
    """The pictures, and the JSON beside them."""
    for i in range(images):
        picture(folder / f"{i}.jpg", seed=i)
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    (folder / "labels.json").write_bytes(text.encode() if isinstance(text, str) else text)


def case(name: str, what: str, content: Any, **expected: Any) -> None:
    dataset_case("coco", name, what, lambda folder: write(folder, content), **expected)


def spoiled(name: str, what: str, spoil: Callable[[dict[str, Any]], object], **expected: Any) -> None:
    """A case that is good labels, spoiled in one place."""
    content = labels()
    spoil(content)
    case(name, what, content, **expected)


def first(part: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    """Spoils the first image, annotation or category; `...` removes a key."""

    def spoil(content: dict[str, Any]) -> None:
        for key, value in values.items():
            content[part][0][key] = value
            if value is ...:
                del content[part][0][key]

    return spoil


def every(part: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Spoils all images, annotations or categories."""

    def spoil(content: dict[str, Any]) -> None:
        content[part] = [row | change(row) for row in content[part]]

    return spoil


def more(part: str, *rows: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[part].extend(copy.deepcopy(rows))


ANNOTATION = {"id": 9, "image_id": 0, "category_id": 1, "bbox": [30, 20, 20, 16], "area": 320, "iscrowd": 0}
FINE = right("0 fatal")

case("good", "nothing wrong", labels(), audit=FINE)

# -- the text itself
TEXT = json.dumps(labels())
case("empty", "a JSON file without a byte", "", audit=refused("no dataset"))
case("blanks", "a JSON file of blanks", " \n" * 5000, audit=refused("no dataset"))
case("cut-short", "a JSON file that ends in the middle", TEXT[:200], audit=refused("it may be cut short"))
case("cut-in-a-name", "one that ends within a text", TEXT[:60], audit=refused("it may be cut short"))
case("comma", "a comma too many", TEXT[:-1] + ",}", audit=refused("correct it there", "line 1"))
case("twice", "two JSON texts in one file", TEXT + TEXT, audit=refused("correct it there"))
case("comment", "a comment in the JSON", "// labels\n" + TEXT, audit=refused("begins with '// labels"))
case("garbage", "noise in place of JSON", bytes(range(256)) * 8, audit=refused("no dataset"))
case("zeros", "zero bytes in place of JSON", bytes(4096), audit=refused("no dataset"))
case(
    "binary-tail",
    "noise after the JSON",
    TEXT.encode() + bytes(range(128, 256)),
    audit=refused("not in UTF-8"),
)
case("html", "a page of HTML in place of JSON", "<html><body>404</body></html>", audit=refused("no dataset"))
case("bom", "a byte order mark", b"\xef\xbb\xbf" + TEXT.encode(), audit=FINE)
case("utf-16", "JSON in UTF-16", TEXT.encode("utf-16"), audit=FINE)
case("utf-32", "JSON in UTF-32", TEXT.encode("utf-32"), audit=FINE)
case(
    "latin-1",
    "JSON in Latin-1",
    TEXT.replace("cat", "Käfer").encode("latin-1"),
    audit=refused("not in UTF-8", "0xe4"),
)
case("gbk", "JSON in GBK", TEXT.replace("cat", "\u732b").encode("gbk"), audit=refused("not in UTF-8"))
case(
    "nan",
    "NaN and Infinity, which JSON has not",
    TEXT.replace("320", "NaN", 1).replace("320", "Infinity", 1),
    audit=FINE,
)
case("deep", "lists a million deep", '{"images": ' + "[" * 10**6, audit=refused("nested too deeply"))
case(
    "deep-beside",
    "good labels with 100,000 lists in info",
    TEXT[:-1] + ', "info": ' + "[" * 10**5 + "]" * 10**5 + "}",
    audit=refused("nested too deeply"),
)
case(
    "digits",
    "a number of 10,000 digits for an id",
    TEXT.replace('"id": 0', '"id": ' + "9" * 10**4, 1),
    audit=refused("digits"),
)
case(
    "key-twice",
    "the list of annotations twice",
    TEXT[:-1] + ', "annotations": []}',
    audit=found("dataset without a box"),
)
case("escapes", "names spelled with escapes", TEXT.replace("cat", "\\u0063\\u0061\\u0074"), audit=FINE)

# -- what is in it
case("null", "null in place of an object", "null", audit=refused("no dataset"))
case("list", "a list of numbers", "[1, 2, 3]", audit=refused("no dataset"))
case("text", "a text in place of an object", '"images"', audit=refused("no dataset"))
case(
    "no-images",
    "annotations, and no list of images",
    {"annotations": [], "categories": []},
    audit=refused("no dataset"),
)
case("images-null", "null for the images", labels(images=0) | {"images": None}, audit=refused("no dataset"))
case(
    "images-object", "an object for the images", labels() | {"images": {"0": {}}}, audit=refused("no dataset")
)
case("images-empty", "no image in the list", labels() | {"images": []}, audit=refused("name no image"))
case(
    "annotations-null",
    "null for the annotations",
    labels() | {"annotations": None},
    audit=refused("no dataset"),
)
case(
    "annotations-empty", "no annotation", labels() | {"annotations": []}, audit=found("dataset without a box")
)
case(
    "annotations-missing",
    "no list of annotations",
    {k: v for k, v in labels().items() if k != "annotations"},
    audit=found("dataset without a box"),
)
case(
    "categories-null",
    "null for the categories",
    labels() | {"categories": None},
    audit=found("not in the list of categories"),
)
case(
    "categories-empty",
    "no category",
    labels() | {"categories": []},
    audit=found("not in the list of categories"),
)
case(
    "categories-names",
    "categories that are names",
    labels() | {"categories": ["cat", "bird"]},
    audit=found("not in the list of categories"),
)
case(
    "captions",
    "COCO's captions",
    labels() | {"annotations": [{"id": 1, "image_id": 0, "caption": "a cat"}]},
    audit=refused("no dataset"),
)
case(
    "results",
    "a detector's results in place of labels",
    [{"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}],
    audit=refused("no dataset"),
)

# -- images
spoiled(
    "image-gone",
    "an image that is not there",
    more("images", {"id": 9, "file_name": "gone.jpg", "width": 64, "height": 48}),
    audit=found("there is no such file"),
)
spoiled(
    "image-null",
    "null in the list of images",
    more("images", None),
    audit=found("no usable id and file_name"),
)
spoiled(
    "image-no-id",
    "an image without an id",
    first("images", id=...),
    audit=found("no usable id", "not in the list of images"),
)
spoiled(
    "image-no-name",
    "an image without a file_name",
    first("images", file_name=...),
    audit=found("no usable id"),
)
spoiled("image-id-list", "a list for an image's id", first("images", id=[0]), audit=found("no usable id"))
spoiled(
    "image-id-twice",
    "two images of one id",
    more("images", {"id": 0, "file_name": "1.jpg", "width": 64, "height": 48}),
    audit=found("image id 0"),
)
spoiled(
    "image-twice",
    "an image listed twice",
    more("images", {"id": 9, "file_name": "0.jpg", "width": 64, "height": 48}),
    audit=right("listed again"),
)
spoiled(
    "image-ids-float",
    "ids of images and categories written as 1.0",
    lambda c: [
        every("images", lambda r: {"id": float(r["id"])})(c),
        every("categories", lambda r: {"id": float(r["id"])})(c),
    ],
    audit=FINE,
)
spoiled(
    "image-ids-text",
    "ids as text in the annotations",
    every("annotations", lambda r: {"image_id": str(r["image_id"]), "category_id": str(r["category_id"])}),
    audit=FINE,
)
spoiled(
    "image-ids-half-text",
    "ids as text in half of the annotations",
    first("annotations", image_id="0"),
    audit=FINE,
)
spoiled(
    "image-ids-huge",
    "ids of images beyond 64 bits",
    lambda c: [
        every("images", lambda r: {"id": 2**70 + r["id"]})(c),
        every("annotations", lambda r: {"image_id": 2**70 + r["image_id"]})(c),
    ],
    audit=FINE,
)
spoiled(
    "ids-huge",
    "ids of annotations and categories beyond 64 bits",
    lambda c: [
        every("annotations", lambda r: {"id": 2**80 + r["id"], "category_id": 2**80 + r["category_id"]})(c),
        every("categories", lambda r: {"id": 2**80 + r["id"]})(c),
    ],
    audit=FINE,
)
spoiled(
    "ids-negative",
    "ids below zero",
    lambda c: [
        every("images", lambda r: {"id": -1 - r["id"]})(c),
        every("annotations", lambda r: {"image_id": -1 - r["image_id"], "id": -1 - r["id"]})(c),
    ],
    audit=FINE,
)
spoiled(
    "size-wrong",
    "a size that is not the file's",
    first("images", width=640, height=480),
    audit=found("wrong declared size"),
)
spoiled(
    "size-swapped",
    "width and height swapped",
    every("images", lambda r: {"width": 48, "height": 64}),
    audit=found("declared 48 x 64"),
)
spoiled("size-missing", "no sizes", every("images", lambda r: {"width": None, "height": None}), audit=FINE)
spoiled(
    "size-text",
    "sizes that are words, or below zero",
    every("images", lambda r: {"width": "wide", "height": -3}),
    audit=FINE,
)
spoiled("size-huge", "a size beyond any picture", first("images", width=10**400, height=10**9), audit=FINE)
spoiled("name-number", "a number for a file_name", first("images", file_name=5), audit=found("no usable id"))
spoiled("name-empty", "an empty file_name", first("images", file_name=""), audit=found("no usable id"))
spoiled("name-folder", "a folder for a file_name", first("images", file_name="."), audit=found("fatal"))
spoiled(
    "name-surrogate",
    "half of a character in a file_name",
    first("images", file_name="a\ud800.jpg"),
    audit=found("a{d800}.jpg"),
)
spoiled(
    "name-zero", "a zero byte in a file_name", first("images", file_name="0\0.jpg"), audit=found("outside")
)
spoiled(
    "name-dots",
    "a file_name that climbs out",
    first("images", file_name="../../../etc/passwd"),
    audit=found("outside"),
)
spoiled(
    "name-etc",
    "/etc/passwd for a file_name",
    first("images", file_name="/etc/passwd"),
    audit=found("outside"),
)
spoiled(
    "name-url",
    "a URL for a file_name",
    first("images", file_name="http://example.org/0.jpg"),
    audit=found("outside"),
)
spoiled(
    "name-long",
    "a file_name of 5,000 characters",
    first("images", file_name="x" * 5000 + ".jpg"),
    audit=found("fatal"),
)
spoiled(
    "name-windows",
    "absolute paths of a Windows machine",
    every("images", lambda r: {"file_name": "C:\\Users\\ann\\pets\\" + r["file_name"]}),
    audit=right("0 fatal", "of another machine"),
)
spoiled(
    "name-posix",
    "absolute paths of another machine",
    every("images", lambda r: {"file_name": "/home/ann/pets/" + r["file_name"]}),
    audit=right("0 fatal", "of another machine"),
)
spoiled(
    "name-escape",
    "a terminal's escape sequence in a file_name",
    first("images", file_name="\x1b[31mred\x1b[0m.jpg"),
    audit=found("fatal"),
)
spoiled(
    "name-case",
    "a file_name in other letters",
    first("images", file_name="0.JPG"),
    audit=found("but 0.jpg beside it"),
)

# -- annotations
spoiled(
    "orphan",
    "an annotation of an image that is not listed",
    more("annotations", ANNOTATION | {"image_id": 99}),
    audit=found("not in the list of images"),
)
spoiled(
    "orphan-null",
    "an annotation without image_id",
    first("annotations", image_id=...),
    audit=found("has no image_id"),
)
spoiled(
    "orphan-list",
    "a list for an image_id",
    first("annotations", image_id=[0]),
    audit=found("not in the list of images"),
)
spoiled("box-null", "null for a bbox", first("annotations", bbox=None), audit=found("is not four numbers"))
spoiled("box-empty", "an empty bbox", first("annotations", bbox=[]), audit=found("is not four numbers"))
spoiled(
    "box-three",
    "three numbers for a bbox",
    first("annotations", bbox=[1, 2, 3]),
    audit=found("is not four numbers"),
)
spoiled(
    "box-words",
    "words for a bbox",
    first("annotations", bbox=["a", "b", "c", "d"]),
    audit=found("is not four numbers"),
)
spoiled(
    "box-text", "numbers as text for a bbox", first("annotations", bbox=["4", "4", "20", "16"]), audit=FINE
)
spoiled(
    "box-nested",
    "lists within a bbox",
    first("annotations", bbox=[[4], [4], [20], [16]]),
    audit=found("is not four numbers"),
)
spoiled(
    "box-object",
    "an object for a bbox",
    first("annotations", bbox={"x": 4, "y": 4, "w": 20, "h": 16}),
    audit=found("is not four numbers"),
)
spoiled(
    "box-huge",
    "numbers beyond floats for a bbox",
    first("annotations", bbox=[4, 4, 10**400, 16]),
    audit=found("is not four numbers"),
)
spoiled(
    "box-nan",
    "NaN in a bbox",
    first("annotations", bbox=[4, 4, float("nan"), 16]),
    audit=found("is not four numbers"),
)
spoiled(
    "box-flat",
    "a bbox without width",
    first("annotations", bbox=[4, 4, 0, 16]),
    audit=found("box without area"),
)
spoiled(
    "box-inverted",
    "a bbox of a width below zero",
    first("annotations", bbox=[40, 4, -20, 16]),
    audit=found("inverted corners"),
)
spoiled(
    "box-outside",
    "a bbox outside its image",
    first("annotations", bbox=[400, 4, 20, 16]),
    audit=found("box outside the image"),
)
spoiled(
    "box-over",
    "a bbox over the border",
    first("annotations", bbox=[50, 4, 20, 16]),
    audit=right("partly outside"),
)
spoiled(
    "boxes-relative",
    "boxes as shares of the sides",
    every("annotations", lambda r: {"bbox": [0.1, 0.1, 0.5, 0.25]}),
    audit=right("0 fatal", "shares of the image's sides"),
)
spoiled(
    "box-relative-one",
    "pixels in one bbox where the others are shares",
    lambda c: [
        every("annotations", lambda r: {"bbox": [0.1, 0.1, 0.5, 0.25]})(c),
        first("annotations", bbox=[4, 4, 20, 16])(c),
    ],
    audit=found("no shares of the image's sides"),
)
spoiled(
    "boxes-corners",
    "corners in place of width and height",
    every("annotations", lambda r: {"bbox": [30, 20, 60 - r["id"], 46]}),
    audit=found("corners for width and height", "--repair"),
)
spoiled(
    "mask",
    "masks without a bbox",
    every("annotations", lambda r: {"bbox": None, "segmentation": [[4, 4, 24, 4, 24, 20]]}),
    audit=right("0 fatal", "the boxes around their masks"),
)
spoiled(
    "mask-odd",
    "a mask of an odd number of coordinates",
    first("annotations", bbox=None, segmentation=[[1, 2, 3]]),
    audit=found("is not four numbers"),
)
spoiled(
    "mask-bomb",
    "a mask of 10**18 pixels",
    first("annotations", bbox=None, segmentation={"size": [10**9, 10**9], "counts": "o" * 1000}),
    audit=found("is not four numbers"),
)
spoiled(
    "annotation-null",
    "null in the list of annotations",
    more("annotations", None),
    audit=found("annotation 5 of the list is None"),
)
spoiled(
    "annotation-twice",
    "an annotation id that stands twice",
    more("annotations", ANNOTATION | {"id": 0}),
    audit=right("stands more than once"),
)
spoiled("crowd-text", "words for iscrowd", first("annotations", iscrowd="false"), audit=FINE)
spoiled(
    "category-unknown",
    "a category that is not listed",
    first("annotations", category_id=7),
    audit=found("not in the list of categories"),
)
spoiled(
    "category-null",
    "null for a category",
    first("annotations", category_id=None),
    audit=found("not in the list of categories"),
)
spoiled(
    "category-twice",
    "two categories of one id",
    more("categories", {"id": 1, "name": "dog"}),
    audit=found("stands for 2 categories", "'cat' and 'dog'"),
)
spoiled(
    "category-names-twice",
    "two categories of one name",
    more("categories", {"id": 3, "name": "cat"}),
    audit=right("0 fatal", "are one class"),
)
spoiled(
    "category-no-name", "a category without a name", first("categories", name=...), audit=right("category 1")
)
spoiled(
    "category-null-name", "null for a category's name", first("categories", name=None), audit=right("0 fatal")
)
spoiled(
    "category-list-name",
    "a list for a category's name",
    first("categories", name=["cat"]),
    audit=right("0 fatal"),
)
spoiled(
    "category-surrogate",
    "half of a character in a category's name",
    first("categories", name="cat\ud83d"),
    audit=right("cat{d83d}"),
)
spoiled(
    "category-markup",
    "a script for a category's name",
    first("categories", name="<script>alert(1)</script>"),
    audit=FINE,
)
spoiled(
    "category-lines",
    "line breaks in a category's name",
    first("categories", name="cat\nbird\r\n"),
    audit=FINE,
)
spoiled(
    "categories-10000",
    "10,000 categories",
    lambda c: c["categories"].extend({"id": i, "name": f"thing {i}"} for i in range(3, 10_000)),
    audit=FINE,
    seconds=20,
)
case(
    "same-10000",
    "10,000 equal boxes in one image",
    labels() | {"annotations": [ANNOTATION | {"id": i} for i in range(10_000)]},
    audit=right("box drawn twice"),
    seconds=30,
)


# -- files
def two_files(folder: Path, *names: str) -> None:
    write(folder, labels())
    for name in names:
        (folder / name).write_text(json.dumps(labels()))


def with_images_in(folder: Path, place: str) -> None:
    write(folder, labels(), images=0)
    for i in range(4):
        picture(folder / place / f"{i}.jpg", seed=i)


def file_case(name: str, what: str, make: Callable[[Path], object], **expected: Any) -> None:
    dataset_case("coco", name, what, make, **expected)


file_case(
    "two-files",
    "two JSON files of the same images",
    lambda f: two_files(f, "labels (1).json"),
    audit=refused("cannot be told apart"),
)
file_case(
    "split-files",
    "an image in train.json and in val.json",
    lambda f: two_files(f, "train.json", "val.json"),
    audit=right("kept in the first"),
)
file_case(
    "no-pictures",
    "labels without a picture",
    lambda f: write(f, labels(), images=0),
    audit=found("there is no such file"),
)
file_case(
    "pictures-elsewhere", "pictures three folders down", lambda f: with_images_in(f, "a/b/c"), audit=FINE
)
file_case(
    "fifo",
    "a pipe in place of the JSON",
    lambda f: [write(f, labels()), (f / "labels.json").unlink(), os.mkfifo(f / "labels.json")],
    audit=refused("is a pipe"),
)
file_case(
    "device",
    "a link to /dev/zero in place of the JSON",
    lambda f: [write(f, labels()), (f / "other.json").symlink_to("/dev/zero")],
    audit=refused("is a device"),
)
file_case(
    "folder",
    "a folder called labels.json",
    lambda f: [write(f, labels()), (f / "labels.json").unlink(), (f / "labels.json").mkdir()],
    audit=refused("no dataset"),
)
file_case(
    "sparse",
    "a JSON file of a terabyte of nothing",
    lambda f: [write(f, labels()), os.truncate(f / "labels.json", 2**40)],
    audit=refused("bytes, more than"),
)
