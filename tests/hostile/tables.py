"""CSV with a box a row: what spreadsheets, scripts and slips make of it."""

from pathlib import Path
from typing import Any

from tests.hostile.cases import dataset_case, found, lost, refused, right
from tests.hostile.coco import picture
from tests.hostile.yolo import LACKS, put

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
ROWS = "".join(f"{i}.jpg,64,48,{'cat' if i % 2 else 'bird'},4,4,24,20\n" for i in range(4))
SHARES = "".join(f"{i}.jpg,64,48,{'cat' if i % 2 else 'bird'},0.1,0.1,0.5,0.5\n" for i in range(4))
LOST = lost("label")


def table(folder: Path, text: str | bytes, **files: str | bytes) -> None:
    """Four pictures and labels.csv; then other files by their name without the suffix."""
    for i in range(4):
        picture(folder / f"{i}.jpg", seed=i)
    put(folder / "labels.csv", text)
    for name, content in files.items():
        put(folder / f"{name}.csv", content)


def case(
    name: str, what: str, text: str | bytes, files: dict[str, Any] | None = None, **expected: Any
) -> None:
    dataset_case("tables", name, what, lambda folder: table(folder, text, **(files or {})), **expected)


def row(name: str, what: str, text: str | bytes, **expected: Any) -> None:
    """A case of one more row."""
    begin = HEADER + ROWS
    case(name, what, begin.encode() + text if isinstance(text, bytes) else begin + text + "\n", **expected)


def many_rows(count: int, images: int, classes: int) -> str:
    """Rows of boxes that do not overlap, so that only their number weighs."""
    rows = (
        f"{k % images}.jpg,64,48,class {k % classes},{k // images % 40},{k // images // 40 % 30},"
        f"{k // images % 40 + 20},{k // images // 40 % 30 + 15}\n"
        for k in range(count)
    )
    return HEADER + "".join(rows)


case("good", "nothing wrong", HEADER + ROWS, audit=right("0 fatal"))
case(
    "good-shares",
    "corners as shares of the sides",
    HEADER + SHARES,
    audit=right("0 fatal", "as shares of the image's sides"),
)

# -- rows ------------------------------------------------------------------------------------------------------------

row(
    "row-short",
    "a row that is too short",
    "0.jpg,64,48,cat,1",
    audit=found("line 6 has 5 cells, not 8"),
    convert=LOST,
)
row(
    "row-words",
    "a corner in words",
    "0.jpg,64,48,cat,1,2,three,4",
    audit=found("are not four numbers"),
    convert=LOST,
)
row(
    "row-blank-corners",
    "a class without a box",
    "0.jpg,64,48,cat,,,,",
    audit=found("are not four numbers"),
    convert=LOST,
)
row(
    "row-nan",
    "a corner that is nan",
    "0.jpg,64,48,cat,nan,2,3,4",
    audit=found("are not four numbers"),
    convert=LOST,
)
row(
    "row-huge",
    "a corner of 1e300",
    "0.jpg,64,48,cat,1,2,1e300,4",
    audit=found("are not four numbers"),
    convert=LOST,
)
row(
    "row-no-class",
    "a box without a class",
    "0.jpg,64,48,,30,2,60,40",
    audit=found("has a box and no class"),
    convert=lost("unknown class"),
)
row(
    "row-no-image",
    "a row that names no image",
    ",64,48,cat,1,2,30,40",
    audit=found("names no image"),
    convert=LOST,
)
row(
    "row-outside",
    "a path that climbs out",
    "../../../etc/passwd.jpg,64,48,cat,1,2,30,40",
    audit=found("outside"),
    convert=LOST,
)
row(
    "row-absolute",
    "an absolute path of this machine",
    "/etc/passwd.jpg,64,48,cat,1,2,30,40",
    audit=found("outside"),
    convert=LOST,
)
row(
    "row-url",
    "an address in place of an image",
    "https://example.org/a.jpg,64,48,cat,1,2,30,40",
    audit=found("outside"),
    convert=LOST,
)
row("row-zero-byte", "a zero byte in a name", "0.jpg\0,64,48,cat,1,2,30,40", audit=found(), convert=LOST)
row(
    "row-missing-image",
    "an image that is not there",
    "9.jpg,64,48,cat,1,2,30,40",
    audit=found("there is no such file"),
    convert=LACKS,
)
row("row-inverted", "corners the wrong way round", "0.jpg,64,48,cat,60,40,30,2", audit=found("inverted"))
row(
    "row-beyond",
    "a box outside the image",
    "0.jpg,64,48,cat,100,100,130,140",
    audit=found("box outside the image"),
)
row(
    "row-share-among-pixels",
    "one box in shares among boxes in pixels",
    "0.jpg,64,48,cat,0.5,0.5,0.9,0.9",
    audit=found("lie within 0 to 1"),
    convert=LOST,
)
row("row-two-sizes", "another declared size", "0.jpg,640,480,cat,30,2,60,40", audit=right("0 fatal"))
row(
    "row-quote-open",
    "a quote that is not closed",
    '"0.jpg,64,48,cat,1,2,30,40',
    audit=found("line"),
    convert=LACKS,
)
row(
    "row-formula",
    "a class that is a spreadsheet's formula",
    "0.jpg,64,48,\"=cmd|' /C calc'!A0\",30,2,60,40",
    audit=right("0 fatal"),
)
row(
    "row-html",
    "a class that is HTML",
    "0.jpg,64,48,<img src=x onerror=alert(1)>,30,2,60,40",
    audit=right("0 fatal"),
)
row(
    "row-escape",
    "a class with a terminal's escape sequence",
    "0.jpg,64,48,\x1b[2J\x1b[31mcat,30,2,60,40",
    audit=right("0 fatal", not_says=("\x1b",)),
)
row(
    "row-long-class",
    "a class of 200,000 characters",
    "0.jpg,64,48," + "c" * 200_000 + ",30,2,60,40",
    audit=found("field larger than field limit"),
    convert=LOST,
)
row(
    "row-separator",
    "a line separator of Unicode and a next-line sign in a class",
    "0.jpg,64,48,big\u2028cat\x85,30,2,60,40",
    audit=right("0 fatal", "5 boxes"),
)
row(
    "row-windows-1252",
    "a class with a byte of Windows-1252",
    b"0.jpg,64,48,caf\xe9 \x85,30,2,60,40\n",
    audit=right("0 fatal", "5 boxes"),
)
row(
    "row-comma-decimals",
    "decimal commas",
    "0.jpg,64,48,cat,30,5,2,5,60,5,40,5",
    audit=found("5 boxes", "box without area"),
)
row(
    "rows-copied",
    "the same box 500 times",
    "0.jpg,64,48,cat,30,2,60,40\n" * 500,
    audit=right("boxes drawn twice"),
)
row("rows-bad", "5,000 rows that are none", "cat,\n" * 5_000, audit=found("more"), convert=LOST)

# -- files -----------------------------------------------------------------------------------------------------------

case("file-empty", "an empty file", "", audit=refused("is no dataset", "1 .csv"))
case("file-header-alone", "a header without rows", HEADER, audit=refused("its labels name no image"))
case("file-no-header", "rows without a header", ROWS, audit=refused("is no dataset"))
case(
    "file-utf-16",
    "a file in UTF-16, as PowerShell writes it",
    (HEADER + ROWS).encode("utf-16"),
    audit=right("0 fatal", "4 boxes"),
)
case(
    "file-bom",
    "a byte order mark, Windows' line ends and semicolons",
    b"\xef\xbb\xbf" + (HEADER + ROWS).replace(",", ";").replace("\n", "\r\n").encode(),
    audit=right("0 fatal", "4 boxes"),
)
case(
    "file-old-mac",
    "line ends of an old Mac",
    (HEADER + ROWS).replace("\n", "\r"),
    audit=right("0 fatal", "4 boxes"),
)
case(
    "file-cut",
    "a file that ends in the middle of a row",
    (HEADER + ROWS)[:-12],
    audit=found("cells, not 8"),
    convert=LOST,
)
case(
    "file-binary",
    "bytes after the header",
    HEADER.encode() + bytes(range(256)) * 40,
    audit=refused("its labels name no image"),
)
case(
    "file-zeros",
    "zero bytes after the rows, as a crash leaves them",
    (HEADER + ROWS).encode() + b"\0" * 4096,
    audit=found(),
    convert=LOST,
)
case(
    "file-html",
    "a login page in place of the file",
    "<!doctype html><html>please log in</html>",
    audit=refused("is no dataset"),
)
case(
    "file-columns-twice",
    "a column twice",
    HEADER.replace("ymax", "ymax,xmin") + ROWS.replace("20\n", "20,5\n"),
    audit=right("0 fatal"),
)
case(
    "file-open-images-suffix",
    "Open Images' header over file names",
    "ImageID,LabelName,XMin,XMax,YMin,YMax\n" + "".join(f"{i}.jpg,cat,0.1,0.5,0.1,0.5\n" for i in range(4)),
    audit=right("0 fatal", "4 boxes"),
)
case(
    "file-other-machine",
    "paths of another machine",
    HEADER + "".join(f"C:\\data\\{i}.jpg,64,48,cat,4,4,24,20\n" for i in range(4)),
    audit=right("0 fatal", "of another machine"),
)
case(
    "files-two-copies",
    "a copy of the file beside it",
    HEADER + ROWS,
    {"copy": HEADER + ROWS},
    audit=right("0 fatal", "4 boxes", "is left aside"),
)
case(
    "files-differ",
    "the same image in two files of two splits",
    HEADER + ROWS,
    {"val": HEADER + ROWS.replace(",24,", ",30,")},
    audit=right("kept in the first"),
)
case(
    "20000-classes",
    "20,000 classes",
    many_rows(20_000, 100, 20_000),
    audit=found("there is no such file"),
    convert=LACKS,
)
case(
    "100000-rows",
    "100,000 rows of 500 images",
    many_rows(100_000, 500, 3),
    audit=found("there is no such file"),
    convert=LACKS,
)
