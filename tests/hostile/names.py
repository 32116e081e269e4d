"""Names that file systems, encodings and label formats disagree about, and what a conversion makes of them."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.hostile.cases import Expected, add, dataset_case, found, incomplete, lost, refused, right
from tests.hostile.coco import labels, picture, write

LATIN = os.fsdecode(b"caf\xe9")  # as unpacked from an archive of an old Windows
NFC, NFD = "caf\u00e9", "cafe\u0301"
LONG = "x" * 5000
ANY_FORMAT = ("coco", "voc", "yolo", "cvat", "createml")


def coco(*names: str, there: Sequence[str | None] = (), **changes: Any) -> Callable[[Path], None]:
    """Pictures and a COCO file that names them; `there`: what they are called on the disk, None for one that is not."""

    def make(folder: Path) -> None:
        on_disk = [*there, *names[len(there) :]]
        for row, name in enumerate(on_disk):
            if name is not None:
                put(folder / "images" / name, row)
        content = labels(len(names), **changes)
        for image, name in zip(content["images"], names, strict=True):
            image["file_name"] = name
        (folder / "labels.json").write_text(json.dumps(content))

    return make


def put(path: Path, seed: int) -> None:
    """A picture of noise under any name, a JPEG where its suffix says nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = picture(path.parent / f"drawn{seed}.{'png' if path.suffix == '.png' else 'jpg'}", seed=seed)
    drawn.rename(path)


def yolo(*stems: str, names: str = "names: [cat, bird]\n") -> Callable[[Path], None]:
    """Pictures with a label file each, and data.yaml."""

    def make(folder: Path) -> None:
        (folder / "labels").mkdir()
        for row, stem in enumerate(stems):
            put(folder / "images" / f"{stem}.jpg", row)
            (folder / "labels" / f"{stem}.txt").write_text("0 .5 .5 .25 .25\n")
        (folder / "data.yaml").write_text(f"train: images\n{names}")

    return make


def voc(*stems: str) -> Callable[[Path], None]:
    """Pictures with an XML file each that does not say its <filename>."""
    text = (
        "<annotation><size><width>64</width><height>48</height><depth>3</depth></size><object><name>cat</name><bndbox>"
        "<xmin>5</xmin><ymin>5</ymin><xmax>24</xmax><ymax>20</ymax></bndbox></object></annotation>"
    )

    def make(folder: Path) -> None:
        (folder / "Annotations").mkdir()
        for row, stem in enumerate(stems):
            put(folder / "JPEGImages" / f"{stem}.jpg", row)
            (folder / "Annotations" / f"{stem}.xml").write_text(text)

    return make


def classes(*names: Any) -> Callable[[Path], None]:
    """COCO with other class names."""
    return lambda folder: write(
        folder, labels(categories=[{"id": k, "name": name} for k, name in enumerate(names, 1)])
    )


def to_all(expected: Expected | None = None) -> dict[str, Expected]:
    """Lines that convert to every format but COCO."""
    return {f"convert {{source}} {{target}} --to {to}": expected or right() for to in ANY_FORMAT[1:]}


def case(name: str, what: str, make: Callable[[Path], object], **expected: Any) -> None:
    dataset_case("names", name, what, make, **{"audit": right("0 fatal"), **expected})


# -- encodings -------------------------------------------------------------------------------------------------------

for title, make in {
    "coco": coco("a.jpg", f"{LATIN}.jpg"),
    "yolo": yolo("a", LATIN),
    "voc": voc("a", LATIN),
}.items():
    case(f"latin1-{title}", f"a file name in Latin-1, in {title.upper()}", make)
case(
    "latin1-in-utf8-labels",
    "a file name in Latin-1 that the labels spell in UTF-8",
    coco("a.jpg", f"{NFC}.jpg", there=["a.jpg", f"{LATIN}.jpg"]),
    audit=found("1 image not found"),
    convert=incomplete("1 image is missing"),
)
case(
    "latin1-folder",
    "a folder whose name is in Latin-1",
    lambda folder: coco("a.jpg", "b.jpg")(folder / LATIN),
    to="cvat",
)
case(
    "surrogate-file-name",
    "a file_name with half a character, which JSON can spell",
    lambda folder: write(folder, json.dumps(labels()).replace("1.jpg", "1\\ud800.jpg")),
    audit=found("1 image not found", "1{d800}.jpg"),
    convert=incomplete("1 image is missing"),
)
case(
    "surrogate-class",
    "a class name with half a character",
    lambda folder: write(folder, json.dumps(labels()).replace('"cat"', '"c\\udc80t"')),
    audit=right("0 fatal"),
    also=to_all(),
)
case(
    "nfc-nfd",
    "an accent as one character in the labels, as two on the disk",
    coco("a.jpg", f"{NFC}.jpg", there=["a.jpg", f"{NFD}.jpg"]),
    audit=found("1 image not found"),
    convert=incomplete("missing"),
)
case(
    "nfd-nfc",
    "an accent as two characters in the labels, as one on the disk",
    coco("a.jpg", f"{NFD}.jpg", there=["a.jpg", f"{NFC}.jpg"]),
    audit=found("1 image not found"),
    convert=incomplete("missing"),
)
case(
    "nfc-and-nfd",
    "two pictures whose names differ in how an accent is spelled",
    coco(f"{NFC}.jpg", f"{NFD}.jpg"),
    audit=right("0 fatal", "but for the case of letters"),
    also=to_all(),
)
case(
    "emoji",
    "names of emoji, Chinese and Arabic",
    coco("\U0001f600.jpg", "\u732b\u72d7.jpg", "\u0642\u0637\u0629.jpg", "b.jpg"),
    to="cvat",
)
case(
    "right-to-left",
    "a name with a mark that turns the writing around",
    coco("a.jpg", "x\u202egpj.exe.jpg"),
    to="createml",
)
case(
    "zero-width",
    "names that look the same, one with a character of no width",
    coco("a.jpg", "a\u200b.jpg"),
    to="yolo",
)

# -- characters --------------------------------------------------------------------------------------------------------

ODD = {
    "a line break": "a\nb",
    "a tab": "a\tb",
    "a carriage return": "a\rb",
    "a line separator": "a\u2028b",
    "a next-line mark": "a\x85b",
    "quotes": "a\"b'c",
    "markup": "<script>alert(1)<&>",
    "commands to a terminal": "a\x1b[31mred\x1b]0;title\x07",
    "percent signs": "a%20b%2f",
    "a minus first": "--to",
    "a colon": "c:a",
    "a pattern": "*?[a-z]",
    "blanks around it": " a b ",
    "dots at its end": "a..b..",
    "a name that Windows keeps for itself": "CON",
    "a command of a shell": "$(touch pwned)`touch pwned`",
    "what an address would split": "a#b?c=1",
    "what a format string would fill": "{a}{0}%s",
    "separators of tables": "a,b;c",
}
for row, (what, odd) in enumerate(ODD.items()):
    form, maker = [
        ("COCO", coco("plain.jpg", f"{odd}.jpg")),
        ("YOLO", yolo("plain", odd)),
        ("VOC", voc("plain", odd)),
    ][row % 3]
    case(
        f"odd-{row}",
        f"a file name with {what}, in {form}",
        maker,
        to=("voc", "coco", "yolo", "createml")[row % 4],
    )
case(
    "backslash",
    "a backslash within a file's name, which Windows has between folders",
    coco("a.jpg", "b\\c.jpg"),
    audit=found("1 image not found"),
    convert=incomplete("1 image is missing"),
)
case(
    "windows-path",
    "folders with backslashes between in a COCO file",
    coco("a.jpg", "sub\\b.jpg", there=["a.jpg", "sub/b.jpg"]),
    audit=right("0 fatal"),
)

# -- what is nearly the name -------------------------------------------------------------------------------------------

for name, spelled, disk in (
    ("case", "A.JPG", "a.jpg"),
    ("suffix", "a.jpeg", "a.jpg"),
    ("blank", "a .jpg", "a.jpg"),
    ("no-suffix", "b", "b.png"),
):
    case(
        f"near-{name}",
        f"a file_name {spelled!r} where {disk!r} is",
        coco("c.jpg", spelled, there=["c.jpg", disk]),
        audit=found("1 image not found"),
        convert=incomplete("1 image is missing"),
    )
case(
    "only-case",
    "two pictures whose names differ only in the case of letters",
    coco("a.jpg", "A.jpg"),
    audit=right("but for the case of letters"),
    to="voc",
)
case("same-stem", "two pictures of one stem", coco("a.jpg", "a.png"), to="voc")
case(
    "same-name",
    "pictures of one name in many folders",
    coco(*(f"{k}/image.jpg" for k in range(12))),
    to="yolo",
)
case("folder-like-a-picture", "a folder called like a picture", coco("a.jpg", "b.jpg/c.jpg"))
case("two-suffixes", "names with two suffixes", coco("a.jpg.jpg", "b.png.jpg"), to="voc")
case("capital-suffix", "suffixes in capitals", coco("A.JPG", "B.JpEg"), to="voc")
case(
    "hidden",
    "a file whose name begins with a dot",
    coco("a.jpg", ".b.jpg"),
    audit=found("1 image not found"),
    convert=incomplete("1 image is missing"),
)
case(
    "folder-annotations",
    "pictures in a folder called annotations, as that of the labels",
    coco("annotations/a.jpg", "b.jpg"),
)

# -- length ------------------------------------------------------------------------------------------------------------

case("255-bytes", "a file name as long as file systems take", coco("a.jpg", "x" * 251 + ".jpg"), to="voc")
case(
    "255-bytes-twice",
    "two such names in two folders",
    coco("a/" + "x" * 251 + ".jpg", "b/" + "x" * 251 + ".jpg"),
    to="yolo",
)
case(
    "5000-characters",
    "a file_name of 5,000 characters",
    coco("a.jpg", LONG, there=["a.jpg", None]),
    audit=found("1 image not found"),
    convert=incomplete("1 image is missing"),
    to="voc",
)
case(
    "5000-folders",
    "a file_name with 2,500 folders in it",
    coco("a.jpg", "x/" * 2500 + "a.jpg", there=["a.jpg", None]),
    audit=found("1 image not found"),
    convert=incomplete("1 image is missing"),
)
case("class-5000", "a class name of 5,000 characters", classes("cat", LONG), to="voc")

# -- no names ----------------------------------------------------------------------------------------------------------

for name, spelled in {"empty": "", "dot": ".", "slash": "/", "blank": " "}.items():
    case(
        f"no-name-{name}",
        f"a file_name {spelled!r}",
        coco("a.jpg", spelled, there=["a.jpg", None]),
        audit=found("fatal"),
        convert=lost("that cannot be read"),
    )
for name, spelled in {
    "parent": "../../etc/passwd",
    "root": "/etc/passwd",
    "null": "a\0b.jpg",
    "address": "http://127.0.0.1:1/a.jpg",
}.items():
    case(
        f"outside-{name}",
        f"a file_name {spelled!r}",
        coco("a.jpg", spelled, there=["a.jpg", None]),
        audit=found("which is outside"),
        convert=lost("1 label of an image outside the folder"),
    )

# -- class names -------------------------------------------------------------------------------------------------------

for to in ANY_FORMAT:
    case(
        f"classes-{to}",
        "class names that YAML, XML, tables and terminals read otherwise",
        classes("null", 'a: b # c, "d"\n<e>&\x1b[31m\t'),
        to=to,
    )
case(
    "class-escape",
    "a class name with commands to a terminal, in YOLO",
    yolo("a", "b", names='names: ["c\\e[31mat", bird]\n'),
    to="voc",
)
