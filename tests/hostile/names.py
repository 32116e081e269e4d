"""Names that file systems, encodings and label formats disagree about, and what a conversion makes of them."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.hostile.cases import Expected, add, dataset_case, found, incomplete, lost, nothing, right
from tests.hostile.coco import labels, picture, write

LATIN = os.fsdecode(b"\xfcn\xef")  # as unpacked from an archive of an old Windows
NFC, NFD = "\u00fcn\u00ef", "u\u0308ni\u0308"
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
    "a file whose name begins with a dot, which labels name",
    coco("a.jpg", ".b.jpg"),
    to="voc",
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
    audit=found("File name too long"),
    convert=incomplete("1 image is missing"),
    to="voc",
)
case(
    "5000-folders",
    "a file_name with 2,500 folders in it",
    coco("a.jpg", "x/" * 2500 + "a.jpg", there=["a.jpg", None]),
    audit=found("File name too long"),
    convert=incomplete("1 image is missing"),
)
case("class-5000", "a class name of 5,000 characters", classes("cat", LONG), to="voc")

# -- no names ----------------------------------------------------------------------------------------------------------

for name, spelled, said in (
    ("dot", ".", "Is a directory"),
    ("blank", " ", "1 image not found"),
):
    case(
        f"no-name-{name}",
        f"a file_name {spelled!r}",
        coco("a.jpg", spelled, there=["a.jpg", None]),
        audit=found(said),
        convert=incomplete("1 image is missing"),
    )
case(
    "no-name-empty",
    "an empty file_name",
    coco("a.jpg", "", there=["a.jpg", None]),
    audit=found("fatal"),
    convert=lost("that cannot be read"),
)
for name, spelled in {
    "parent": "../../etc/passwd",
    "slash": "/",
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

# -- where to, and what from -------------------------------------------------------------------------------------------


def target(name: str, what: str, line: str, *says: str, make: Callable[[Path], object] = nothing) -> None:
    """A conversion that is refused for where it is to go."""
    add("names", f"target-{name}", what, {line: Expected(1, ("odkit: ", *says))}, make)


target(
    "full",
    "a target that holds something",
    "convert {good} {source} --to voc",
    "is not empty (it holds mine.txt)",
    make=lambda folder: (folder / "mine.txt").write_text("keep me"),
)
target(
    "file",
    "a target that is a file",
    "convert {good} {source}/mine.txt --to voc",
    "is a file",
    make=lambda folder: (folder / "mine.txt").write_text("keep me"),
)
target(
    "below-a-file",
    "a target below a file",
    "convert {good} {source}/mine.txt/new --to voc",
    "mine.txt is a file",
    make=lambda folder: (folder / "mine.txt").write_text("keep me"),
)
target(
    "dead-link",
    "a target that is a link to nothing",
    "convert {good} {source}/link --to voc",
    "is a link to",
    make=lambda folder: (folder / "link").symlink_to("nowhere"),
)
target(
    "300-bytes",
    "a target whose name is longer than names may be",
    "convert {good} {target}/" + "x" * 300 + " --to voc",
    "has 300 bytes",
)
target("itself", "a target that is the source", "convert {good} {good} --to voc", "is not empty")
target("proc", "a target where nothing can be written", "convert {good} /proc/new --to voc", "/proc")
add(
    "names",
    "target-250-bytes",
    "a target whose name is as long as names may be",
    {"convert {good} {target}/" + "\u00e9" * 125 + " --to voc": right("written to")},
)
add(
    "names",
    "target-odd",
    "a target whose name has a line break, a quote and a command",
    {'convert {good} "{target}/a\nb\'c$(d)" --to voc': right("written to")},
)


def linked(name: str, *where: str) -> Callable[[Path], None]:
    """COCO whose picture 0 is a link."""

    def make(folder: Path) -> None:
        write(folder, labels())
        if where:
            put(folder.parent / "other" / "far.jpg", 9)
        (folder / "0.jpg").unlink()
        (folder / "0.jpg").symlink_to(folder.parent / "other" / "far.jpg" if where else name)

    return make


case(
    "link-passwd",
    "a picture that is a link to a file of this machine",
    linked("/etc/passwd"),
    audit=found("1 image that cannot be read"),
    convert=incomplete("a link out of the folder, and not copied"),
)
case(
    "link-nowhere",
    "a picture that is a link to nothing",
    linked("nowhere.jpg"),
    audit=found("1 image not found"),
    convert=incomplete("1 image is missing"),
)
case(
    "link-itself",
    "a picture that is a link to itself",
    linked("0.jpg"),
    audit=found("1 image that cannot be read"),
    convert=incomplete("1 image is not readable"),
)
case(
    "link-beside",
    "a picture that is a link to another of the folder",
    linked("1.jpg"),
    audit=right("0 fatal"),
)
case(
    "link-out",
    "a picture that is a link to one elsewhere",
    linked("", "far"),
    audit=right("0 fatal"),
    convert=right("reached by a link out of the folder, and copied from there"),
)


def sized(declared: tuple[int, int], orientation: int = 1) -> Callable[[Path], None]:
    """COCO that declares another size than its pictures of 64 x 48 have."""

    def make(folder: Path) -> None:
        content = labels()
        for image in content["images"]:
            image["width"], image["height"] = declared
        write(folder, content)
        for row in range(4):
            exif = Image.Exif()
            exif[0x112] = orientation
            with Image.open(folder / f"{row}.jpg") as drawn:
                drawn.load()
            drawn.save(folder / f"{row}.jpg", exif=exif)

    return make


for to in ("yolo", "createml"):
    case(
        f"half-size-{to}",
        "labels of a copy of half the size, into a format without sizes",
        sized((32, 24)),
        audit=found("4 images with a wrong declared size"),
        convert=right("the boxes of 4 images were drawn on another size"),
        to=to,
    )
    case(
        f"orientation-{to}",
        "labels of the pixels as stored under EXIF, into a format without sizes",
        sized((64, 48), 6),
        audit=found("EXIF orientation"),
        convert=right("the boxes of 4 images were drawn on another size"),
        to=to,
    )
    case(
        f"any-size-{to}",
        "labels that declare a size of other proportions, into a format without sizes",
        sized((40, 60)),
        audit=found("4 images with a wrong declared size"),
        convert=lost("4 images whose boxes may be drawn on another size"),
        to=to,
    )
