"""YOLO's text files and data.yaml: slips in them, and what people and tools put there that is no YOLO."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.hostile.cases import Expected, dataset_case, found, lost, refused, right
from tests.hostile.coco import picture

LINE = "0 0.5 0.5 0.25 0.25\n"
PAGE = "train: images/train\nval: images/val\nnames: [cat, bird]\n"


def put(path: Path, content: str | bytes) -> Path:
    """A file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def yolo(
    folder: Path, files: Mapping[str, Any], images: str = "images/{split}", page: str | None = PAGE
) -> None:
    """Twelve pictures, eight of them to train on, with a box each; then files in place of what is there.

    Args:
        folder: Where to.
        files: Path to what is in it; None: it is taken away.
        images: The folder of a split's images; the labels' is the same with labels/ for images/.
        page: What is in data.yaml; None: there is none.
    """
    for i in range(12):
        place = images.format(split="train" if i < 8 else "val")
        picture(folder / place / f"{i}.jpg", seed=i)
        put(folder / place.replace("images", "labels", 1) / f"{i}.txt", LINE.replace("0", str(i % 2), 1))
    if page is not None:
        put(folder / "data.yaml", page)
    for path, content in files.items():
        if content is None:
            (folder / path).unlink()
        else:
            put(folder / path, content)


def case(name: str, what: str, files: Mapping[str, Any] | None = None, **given: Any) -> None:
    layout = {key: given.pop(key) for key in ("images", "page") if key in given}
    dataset_case("yolo", name, what, lambda folder: yolo(folder, files or {}, **layout), **given)


def line(name: str, what: str, text: str | bytes, **expected: Any) -> None:
    """A case of what is in one label file."""
    case(name, what, {"labels/train/0.txt": text}, **expected)


def page(name: str, what: str, text: str | bytes, **expected: Any) -> None:
    """A case of what is in data.yaml."""
    case(name, what, {"data.yaml": text}, **expected)


case("good", "nothing wrong", audit=right("0 fatal"))

# -- lines -----------------------------------------------------------------------------------------------------------

LOST = lost("label")
LACKS = Expected(
    1, ("is not the whole",), writes=True
)  # pictures that are not there: their labels stand alone
line(
    "line-of-words",
    "a line of words",
    "a cat, top left\n",
    audit=found("line 1 holds something that is no number"),
    convert=LOST,
)
line(
    "line-too-short",
    "a line of four numbers",
    "0 0.5 0.5 0.25\n",
    audit=found("line 1 has 4 numbers"),
    convert=LOST,
)
line(
    "line-nan", "a line with nan", "0 nan 0.5 0.2 0.2\n", audit=found("a number that cannot be"), convert=LOST
)
line(
    "line-infinite",
    "a line with 1e400",
    "0 1e400 0.5 0.2 0.2\n",
    audit=found("a number that cannot be"),
    convert=LOST,
)
line(
    "line-class-negative",
    "a class of -1",
    "-1 0.5 0.5 0.2 0.2\n",
    audit=found("has the class -1, the table has 0 to 1"),
    convert=lost("unknown class"),
)
line(
    "line-class-beyond",
    "a class beyond the names",
    "7 0.5 0.5 0.2 0.2\n",
    audit=found("has the class 7, the table has 0 to 1"),
    convert=lost("unknown class"),
)
line(
    "line-class-fraction",
    "a class of 0.5",
    "0.5 0.5 0.5 0.2 0.2\n",
    audit=found("does not begin with a class number"),
    convert=LOST,
)
line(
    "line-class-huge",
    "a class of 10**30",
    f"{10**30} 0.5 0.5 0.2 0.2\n",
    audit=found("a number that cannot be"),
    convert=LOST,
)
line("line-pixels", "a box in pixels", "0 32 24 20 20\n", audit=found("box outside the image"))
line("line-negative-side", "a box of negative width", "0 0.5 0.5 -0.2 0.2\n", audit=found("inverted"))
line("line-no-area", "a box without width", "0 0.5 0.5 0 0.2\n", audit=found("box without area"))
line(
    "line-comma",
    "commas between the numbers, and for points",
    "0, 0,5, 0,5, 0,2, 0,2\n",
    audit=found("is no number"),
    convert=LOST,
)
line(
    "line-long",
    "a line of a million characters",
    "0 " + "9" * 10**6 + "\n",
    audit=found("line 1"),
    convert=LOST,
)
line(
    "line-outline", "an outline of a million points", "0" + " 0.4 0.4 0.6 0.6" * 250_000 + "\n", audit=right()
)
line("line-confidence", "a confidence behind the box", "0 0.5 0.5 0.2 0.2 0.93\n", audit=right("0 fatal"))
line("file-empty", "an empty label file: an image without objects", "", audit=right("0 fatal"))
line("file-blank", "a label file of blanks", " \n\t\n\r\n", audit=right("0 fatal"))
line(
    "file-zeros",
    "a label file of zero bytes, as a crash leaves one",
    b"\0" * 4096,
    audit=found("line 1"),
    convert=LOST,
)
line("file-utf-16", "a label file in UTF-16", LINE.encode("utf-16"), audit=right("0 fatal"))
line(
    "file-bom",
    "a label file with a byte order mark and Windows' line ends",
    b"\xef\xbb\xbf" + LINE.replace("\n", "\r\n").encode(),
    audit=right("0 fatal"),
)
line(
    "file-picture",
    "a JPEG called 0.txt",
    b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(range(256)),
    audit=found("line 1"),
    convert=LOST,
)
line(
    "file-old-mac",
    "line ends of an old Mac",
    (LINE + "1 0.2 0.2 0.1 0.1\n").replace("\n", "\r"),
    audit=right("0 fatal", "13 boxes"),
)
line(
    "file-unicode-separator",
    "a line separator of Unicode within a line",
    "0 0.5\u20280.5 0.2 0.2\n",
    audit=right("0 fatal"),
)
line(
    "file-many-boxes",
    "1,000 boxes, each another",
    "".join(f"0 0.5 0.5 {0.1 + k / 1e5:g} 0.2\n" for k in range(1_000)),
    audit=right("1,011 boxes"),
)
line("file-bad-lines", "5,000 lines that are none", "cat\n" * 5_000, audit=found("more"), convert=LOST)

# -- data.yaml -------------------------------------------------------------------------------------------------------

page("yaml-empty", "an empty data.yaml", "", audit=right("data.yaml is left aside", "class 0, class 1"))
page("yaml-list", "a data.yaml that is a list", "- cat\n- bird\n", audit=right("data.yaml is left aside"))
page("yaml-binary", "a data.yaml of bytes", bytes(range(256)), audit=right("data.yaml is left aside"))
page(
    "yaml-slip",
    "a data.yaml with a bracket that is not closed",
    "train: images/train\nnames: [cat, bird\n",
    audit=refused("is no YAML"),
)
page(
    "yaml-tab",
    "a data.yaml indented by tabs",
    "train: images/train\nnames:\n\t0: cat\n",
    audit=refused("is no YAML"),
)
page(
    "yaml-names-null",
    "names that are nothing",
    "train: images/train\nnames:\n",
    audit=right("class 0, class 1"),
)
page(
    "yaml-names-text",
    "names that are one text",
    "train: images/train\nnames: cat, bird\n",
    audit=right("class 0, class 1"),
)
page(
    "yaml-names-words",
    "names by words",
    "train: images/train\nnames: {cat: 0, bird: 1}\n",
    audit=refused("is no class number"),
)
page(
    "yaml-names-twice",
    "one name twice",
    "train: images/train\nval: images/val\nnames: [cat, cat]\n",
    audit=right("classes of the same name are one class"),
)
page(
    "yaml-names-lists",
    "names that are lists",
    "train: images/train\nval: images/val\nnames: [[a], {b: c}]\n",
    audit=right("2 names in data.yaml that are no text"),
)
page(
    "yaml-nc-disagrees",
    "another number of classes than names",
    PAGE + "nc: 5\n",
    audit=right("says nc: 5 and names 2"),
)
page(
    "yaml-nc-huge",
    "5,000 classes by number alone",
    "train: images/train\nval: images/val\nnc: 5000\n",
    audit=right("names no classes"),
)
page(
    "yaml-tag-of-python",
    "a tag that would run code",
    PAGE + "x: !!python/object/apply:os.system [touch /tmp/pwned]\n",
    audit=right("0 fatal"),
)
page(
    "yaml-aliases",
    "aliases that unpack without end",
    PAGE
    + "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    audit=right("0 fatal"),
)
page(
    "yaml-deep",
    "a data.yaml nested 100,000 levels deep",
    PAGE + "x: " + "[" * 100_000 + "]" * 100_000 + "\n",
    audit=refused("nested more than 20 levels"),
)
page(
    "yaml-20-mb",
    "a data.yaml of 20 MB",
    PAGE + "".join(f"# {k:090}\n" for k in range(200_000)),
    audit=refused("more than the 2,097,152"),
)
page(
    "yaml-train-missing",
    "a train folder that is not there",
    PAGE.replace("images/train", "images/training"),
    audit=found("which is not there"),
    convert=lost("split without images"),
)
page(
    "yaml-val-missing",
    "a val folder that is not there",
    PAGE.replace("images/val", "images/validation"),
    audit=right("which is not there"),
)
page(
    "yaml-nothing-there",
    "folders of which none is there",
    "train: a\nval: b\nnames: [cat]\n",
    audit=refused("leads to no images"),
)
page(
    "yaml-url",
    "an address in place of a folder",
    PAGE.replace("images/val", "https://example.org/val"),
    audit=right("which is not there"),
)
page(
    "yaml-zero-byte",
    "a zero byte in a path",
    PAGE.replace("images/val", '"a\\0b"'),
    audit=right("which is not there"),
)
page(
    "yaml-surrogate",
    "half a character in a path and a name",
    'train: images/train\nval: "\\ud800"\nnames: ["a\\udc80", b]\n',
    audit=refused("invalid Unicode"),
)
page(
    "yaml-same-folder",
    "the same folder for train and val",
    PAGE.replace("images/val", "images/train"),
    audit=right("kept in the first"),
)
page(
    "yaml-absolute",
    "a path of another machine",
    "path: /home/somebody/data\n" + PAGE,
    audit=right("is not there; looked beside", "0 fatal"),
)
page(
    "yaml-outside",
    "train: /etc",
    PAGE.replace("images/train", "/etc"),
    audit=found("there is no image in /etc"),
    convert=lost("split without images"),
)
case(
    "yaml-two",
    "two YAML files that both describe the data set",
    {"other.yaml": PAGE, "third.yml": PAGE},
    page=None,
    audit=refused("several files describe a YOLO dataset", "give the path of one"),
)
case(
    "yaml-20-mb-beside",
    "a YAML of 20 MB of something else beside it",
    {"log.yaml": "".join(f"- line {k}: nothing\n" for k in range(900_000))},
    audit=right("0 fatal"),
    seconds=20,
)

# -- lists and places ------------------------------------------------------------------------------------------------

LISTS = "train: train.txt\nval: images/val\nnames: [cat, bird]\n"


def listed(name: str, what: str, lines: str | bytes, **expected: Any) -> None:
    """A case of what is in a list of images."""
    case(name, what, {"train.txt": lines}, page=LISTS, **expected)


listed(
    "list-good",
    "a list of images",
    "".join(f"images/train/{i}.jpg\n" for i in range(8)),
    audit=right("0 fatal"),
)
listed(
    "list-elsewhere",
    "a list written on Windows",
    "".join(f"C:\\data\\images\\train\\{i}.jpg\r\n" for i in range(8)),
    audit=right("0 fatal"),
)
listed(
    "list-outside",
    "a list that climbs out of the folder",
    "images/train/1.jpg\n../../../etc/passwd.jpg\n",
    audit=found("outside"),
    convert=lost("label"),
)
listed(
    "list-binary", "a list of bytes", bytes(range(256)), audit=found("names no image"), convert=lost("label")
)
listed(
    "list-empty",
    "an empty list",
    "",
    audit=found("there is no image in"),
    convert=lost("split without images"),
)
listed(
    "list-missing-images",
    "a list of images that are not there",
    "images/train/1.jpg\nimages/train/none.jpg\n",
    audit=found("there is no such file"),
    convert=LOST,
)
case(
    "labels-missing",
    "no label file for most images",
    {f"labels/train/{i}.txt": None for i in range(8)},
    audit=right("MOST IMAGES HAVE NO LABEL"),
)
case(
    "label-alone",
    "a label file without an image",
    {"labels/train/alone.txt": LINE},
    audit=right("no image for the label file alone.txt"),
    convert=LOST,
)
case("no-yaml", "no data.yaml", page=None, audit=right("no data.yaml", "class 0, class 1"))
case(
    "classes-separator",
    "a class list with a separator of Unicode within a name",
    {"classes.txt": "big\u2028cat\nbird\n"},
    page=None,
    audit=right("0 fatal", not_says=("class 2",)),
)
case(
    "classes-crlf",
    "a class list with Windows' line ends",
    {"classes.txt": "cat\r\nbird\r\n"},
    page=None,
    audit=right("0 fatal"),
)
case(
    "classes-short",
    "a class list that is too short",
    {"classes.txt": "cat\n"},
    page=None,
    audit=found("has the class 1, the table has 0 to 0"),
    convert=lost("unknown class"),
)
case(
    "darknet",
    "darknet's lists of images, and no data.yaml",
    {
        "train.txt": "".join(f"data/all/images/{i}.jpg\n" for i in range(8)),
        "valid.txt": "".join(f"data/all/images/{i}.jpg\n" for i in range(8, 12)),
        "obj.names": "cat\nbird\n",
    },
    page=None,
    images="all/images",
    audit=right("0 fatal", "splits of train.txt, valid.txt", "val has 4 images"),
)
case(
    "capital-folders",
    "Images/ and Labels/ with capitals",
    page=None,
    images="Images/{split}",
    audit=right("0 fatal"),
)
