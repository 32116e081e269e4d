"""Pascal VOC's XML: what tools and people write into it that is not what the format says."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.cases import Expected, dataset_case, found, lost, refused, right
from tests.hostile.coco import picture

BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
FINE = right("0 fatal")
UNREADABLE = lost("label that cannot be read")


def thing(name: str = "cat", corners: tuple[Any, ...] = (4, 4, 24, 20), more: str = "") -> str:
    """An <object>."""
    return f"<object><name>{name}</name>{BOX.format(*corners)}{more}</object>"


def xml(stem: str, *things: str, filename: str | None = None, size: str = "64 48", head: str = "") -> str:
    """A label file."""
    width, height = size.split()
    name = f"{stem}.jpg" if filename is None else filename
    return (
        f"{head}<annotation><folder>pets</folder><filename>{name}</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>{''.join(things or (thing(),))}</annotation>"
    )


def write(folder: Path, files: dict[str, str | bytes | None], images: tuple[str, ...] = ()) -> None:
    """Four good pictures with label files, some of these put in their place or (None) left out, and more pictures."""
    for i, stem in enumerate("abcd"):
        picture(folder / f"{stem}.jpg", seed=i)
    for i, name in enumerate(images):
        picture(folder / name, seed=10 + i)
    good = {f"{stem}.xml": xml(stem, thing("cat" if stem in "ab" else "bird")) for stem in "abcd"}
    for name, text in (good | files).items():
        if text is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)


def case(name: str, what: str, files: dict[str, Any], *images: str, **expected: Any) -> None:
    dataset_case("voc", name, what, lambda folder: write(folder, files, images), **expected)


def one(name: str, what: str, text: str | bytes, words: str = "", **expected: Any) -> None:
    """A case with one label file that is spoiled; `words`: it cannot be read, and is told so."""
    if words:
        expected = {"audit": found(words), "convert": UNREADABLE} | expected
    case(name, what, {"a.xml": text}, **expected)


def box(name: str, what: str, *corners: Any, **expected: Any) -> None:
    one(name, what, xml("a", thing(corners=corners)), **expected)


def made(name: str, what: str, make: Callable[[Path], object], **expected: Any) -> None:
    dataset_case("voc", name, what, lambda folder: (write(folder, {}), make(folder)), **expected)


case("good", "nothing wrong", {}, audit=FINE)

# -- the text itself
one("empty", "an XML file without a byte", "", "it is empty")
one("blanks", "an XML file of blanks", " \n" * 500, "it is empty")
one("cut-short", "an XML file that ends in the middle", xml("a")[:150], "it is no XML")
one("cut-all-short", "one that ends before its last tag", xml("a")[:-12], "it is no XML")
one("garbage", "noise in place of XML", bytes(range(1, 256)) * 4, "it is no XML")
one("zeros", "zero bytes in place of XML", bytes(4096), "zero bytes")
one("html", "a page of HTML in place of XML", "<html><body>404</body></html>", "its root is <html>")
one("json", "JSON in place of XML", '{"images": []}', "it is no XML")
one("tail", "text after the last tag", xml("a") + "more", "it is no XML")
one("twice", "two roots in one file", xml("a") + xml("a"), "it is no XML")
one("ampersand", "an ampersand that is not spelled out", xml("a", thing("cats & dogs")), "it is no XML")
one("control", "a control character", xml("a", thing("cat\x01")), "it is no XML")
one("bomb", "a billion laughs", xml("a", thing("&l;"), head='<!DOCTYPE a [<!ENTITY l "lol">]>'), "DOCTYPE")
one("external", "an entity that names /etc/passwd", xml("a", thing("&e;"), head='<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'), "DOCTYPE")
one("bomb-utf-16", "a billion laughs in UTF-16", xml("a", thing("&l;"), head='<!DOCTYPE a [<!ENTITY l "lol">]>').encode("utf-16"), "DOCTYPE")
one("bomb-gbk", "a billion laughs in GBK", xml("a", thing("&l;"), head='<?xml version="1.0" encoding="gbk"?><!DOCTYPE a [<!ENTITY l "lol">]>'), "DOCTYPE")
one("deep", "tags 100,000 deep", xml("a", "<a>" * 10**5 + "</a>" * 10**5), audit=FINE)
one("namespace", "tags in a namespace", xml("a").replace("<annotation>", '<annotation xmlns="http://example.org/voc">'), "its root is")
one("bom", "a byte order mark", b"\xef\xbb\xbf" + xml("a").encode(), audit=FINE)
one("utf-16", "XML in UTF-16", xml("a", head='<?xml version="1.0" encoding="utf-16"?>').encode("utf-16"), audit=FINE)
one("latin-1", "XML in Latin-1 that says so", xml("a", thing("Käfer"), head='<?xml version="1.0" encoding="latin-1"?>').encode("latin-1"), audit=right("0 fatal", "Käfer"))
one("latin-1-unsaid", "XML in Latin-1 that does not say so", xml("a", thing("Käfer")).encode("latin-1"), "not in UTF-8")
one("gbk", "XML in GBK that says so", xml("a", thing("\u732b"), head='<?xml version="1.0" encoding="GBK"?>').encode("gbk"), audit=right("0 fatal", "\u732b"))
one("gb2312-ascii", "XML that says GB2312 and is ASCII", xml("a", head="<?xml version='1.0' encoding='gb2312'?>"), audit=FINE)
one("shift-jis", "XML in Shift JIS that says so", xml("a", thing("\u732b"), head='<?xml version="1.0" encoding="Shift_JIS"?>').encode("shift-jis"), audit=right("0 fatal", "\u732b"))
one("gbk-lie", "XML that says GBK and is UTF-8", xml("a", thing("K\u00e4fer!\u00e4"), head='<?xml version="1.0" encoding="GBK"?>'), "which it is not")
one("encoding-unknown", "an encoding that nobody knows", xml("a", head='<?xml version="1.0" encoding="klingon"?>'), "write it again in UTF-8")
one("large", "a label file of 100 MB", xml("a", "<!--" + " " * 10**8 + "-->"), "more than the", seconds=60)

# -- what is in it
one("no-filename", "no <filename>", xml("a").replace("<filename>a.jpg</filename>", ""), audit=FINE)
one("no-objects", "no object", xml("a", " "), audit=right("0 fatal", "image without labels"))
one("no-name", "an object without a name", xml("a", thing().replace("<name>cat</name>", "")), audit=found("has no name"), convert=lost("box of an unknown class"))
one("name-blank", "an object with a blank name", xml("a", thing("  ")), audit=found("has no name"), convert=lost("box of an unknown class"))
one("name-lines", "a name with line breaks around it", xml("a", thing("\n  cat\n ")), audit=FINE)
one("name-case", "a class in capitals", xml("a", thing("CAT")), audit=right("spelled in several ways"))
one("name-markup", "a script for a class name", xml("a", thing("&lt;script&gt;")), audit=FINE)
one("name-long", "a class name of 100,000 characters", xml("a", thing("x" * 10**5)), audit=FINE)
one("no-box", "an object without a box", xml("a", "<object><name>cat</name></object>"), "has no <bndbox>")
one("polygon", "an object with a polygon alone", xml("a", "<object><name>cat</name><polygon><x1>4</x1><y1>4</y1></polygon></object>"), "only a polygon")
one("box-empty", "an empty box", xml("a", "<object><name>cat</name><bndbox/></object>"), "no box of four numbers")
box("box-words", "words for corners", "a", "b", "c", "d", audit=found("no box of four numbers"), convert=UNREADABLE)
box("box-comma", "a decimal comma", "4,5", 4, 24, 20, audit=found("no box of four numbers"), convert=UNREADABLE)
box("box-nan", "nan for a corner", "nan", 4, 24, 20, audit=found("no box of four numbers"), convert=UNREADABLE)
box("box-huge", "a corner of 1e300", 4, 4, "1e300", 20, audit=found("no box of four numbers"), convert=UNREADABLE)
box("box-floats", "corners with fractions and blanks", " 4.5 ", "4.25", "24.75\n", 20, audit=FINE)
box("box-inverted", "the second corner first", 24, 20, 4, 4, audit=found("inverted corners"))
box("box-outside", "a box outside its image", 100, 100, 120, 120, audit=found("box outside the image"))
box("box-over", "a box over the border", 50, 40, 70, 60, audit=right("partly outside"))
box("box-zero", "0 0 0 0 in place of a box: the others stay where they are", 0, 0, 0, 0, audit=found("box without area", "0 x 0 pixels"))
box("box-click", "a box of one click", 5, 5, 5, 5, audit=found("box without area"))
box("box-from-0", "a box that begins at 0: then pixels count from 0", 0, 0, 20, 16, audit=right("0 fatal", "corners count pixels from 0"))
box("box-below-0", "a corner below 0", -5, 4, 24, 20, audit=right("partly outside"))
one("two-boxes", "two boxes in one object", xml("a", thing(more=BOX.format(30, 20, 50, 40))), audit=FINE)
one("parts", "an object with parts, as people have in VOC", xml("a", thing(more=f"<part><name>head</name>{BOX.format(5, 5, 9, 9)}</part>")), audit=FINE)
one("objects-10000", "10,000 objects in one image", xml("a", *(thing(corners=(1 + k % 50, 1 + k // 400, 9 + k % 50, 9 + k // 400)) for k in range(10_000))), audit=right("more than 100 boxes"), seconds=60)
one("size-wrong", "a size that is not the file's", xml("a", size="640 480"), audit=found("wrong declared size"))
one("size-zero", "0 x 0 for a size", xml("a", size="0 0"), audit=FINE)
one("size-words", "words for a size", xml("a", size="wide high"), audit=FINE)
one("size-below-0", "a size below zero", xml("a", size="-64 -48"), audit=FINE)
one("size-huge", "a size of 400 digits", xml("a", size=f"{'9' * 400} 48"), audit=FINE)

# -- which image
case("stem-twice", "a.png beside a.jpg: <filename> says which", {"a.xml": xml("a", filename="a.png")}, "a.png", audit=right("0 fatal"))
case("stale-name", "a <filename> of before the files were renamed", {"a.xml": xml("a", filename="IMG_1.jpg")}, audit=FINE)
case("named-alone", "a label file called otherwise than its image", {"a.xml": None, "x.xml": xml("a")}, audit=FINE)
case("name-other", "two label files that name one image", {"x.xml": xml("a")}, audit=right("the boxes of both are joined"))
case("image-gone", "a label file whose image is not there", {"x.xml": xml("x")}, audit=found("there is no such file"), convert=Expected(1, ("missing",), writes=True))
case("name-windows", "absolute paths of a Windows machine", {f"{s}.xml": xml(s, filename=f"C:\\pets\\{s}.jpg") for s in "abcd"}, audit=right("0 fatal", "of another machine"))
case("name-posix", "absolute paths of another machine", {f"{s}.xml": xml(s, filename=f"/home/ann/{s}.jpg") for s in "abcd"}, audit=right("0 fatal", "of another machine"))
case("name-gone-windows", "an absolute path to an image that is not here", {"x.xml": xml("x", filename="C:\\pets\\x.jpg")}, audit=found("outside"), convert=lost("label of an image outside the folder"))
case("name-dots", "a <filename> that climbs out", {"a.xml": xml("a", filename="../../../etc/passwd")}, audit=found("outside"), convert=lost("label of an image outside the folder"))
case("name-url", "a URL for a <filename>", {"a.xml": xml("a", filename="http://example.org/a.jpg")}, audit=found("outside"), convert=lost("label of an image outside the folder"))
case("name-folder", "a folder for a <filename>", {"x.xml": xml("x", filename=".")}, audit=found("fatal"), convert=Expected(1, ("missing",), writes=True))

# -- files and lists
MAIN = "ImageSets/Main"
case("lists", "lists of splits with blanks, images that are not there and images named twice", {f"{MAIN}/train.txt": "a\nb \n\ngone\na\n", f"{MAIN}/val.txt": "c\nd\na\n"}, audit=right("lists 'gone', which has no label file", "already listed in train"))
case("list-empty", "an empty list for val", {f"{MAIN}/train.txt": "a\nb\nc\nd\n", f"{MAIN}/val.txt": ""}, audit=FINE)
case("list-noise", "noise for a list", {f"{MAIN}/train.txt": bytes(range(256))}, audit=right("which has no label file"))
case("cvat-beside", "an XML file of CVAT beside", {"all.xml": "<annotations><version>1.1</version></annotations>"}, audit=FINE)
case("other-beside", "an XML file of another program beside", {"pom.xml": "<project><name>x</name></project>"}, audit=found("its root is <project>"), convert=UNREADABLE)
case("no-labels", "no label file is VOC's", {f"{s}.xml": "<project/>" for s in "abcd"}, audit=refused("no dataset"))
made("classes-crlf", "classes.txt with the line ends of Windows", lambda f: (f / "classes.txt").write_bytes(b"cat\r\nbird\r\nfox\r\n"), audit=right("'fox' has no box"))
made("fifo", "a pipe in place of a label file", lambda f: ((f / "a.xml").unlink(), os.mkfifo(f / "a.xml")), audit=found("it is a pipe"), convert=UNREADABLE)
made("device", "a link to /dev/zero in place of a label file", lambda f: ((f / "a.xml").unlink(), (f / "a.xml").symlink_to("/dev/zero")), audit=found("it is a device"), convert=UNREADABLE)
made("link-nowhere", "a link that leads nowhere in place of a label file", lambda f: ((f / "a.xml").unlink(), (f / "a.xml").symlink_to("gone.xml")), audit=found("it cannot be read"), convert=UNREADABLE)
made("folder", "a folder called a.xml", lambda f: ((f / "a.xml").unlink(), (f / "a.xml").mkdir()), audit=right("no label file names it"))
made("link-loop", "a link to the folder itself", lambda f: (f / "again").symlink_to(".", target_is_directory=True), audit=FINE)
