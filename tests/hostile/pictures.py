"""Pictures: every format and kind of pixels, turned, cut short, damaged, huge, and files that only bear such a name.

A case is a data set in COCO's format of two good JPEGs and the picture in question, which has a box.
"""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile.cases import Expected, dataset_case, found, incomplete, refused, right

Content = bytes | Callable[[Path], object]
"""The bytes of the picture's file, or what makes it at a path."""


def photo(size: tuple[int, int] = (64, 48), seed: int = 0) -> Image.Image:
    """A picture with soft and with sharp parts, like no other of another seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3)).astype(np.uint8))
    return coarse.resize(size, Image.Resampling.BILINEAR)


def encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    file = io.BytesIO()
    (image or photo()).save(file, kind, **options)
    return file.getvalue()


def write(folder: Path, file: str, content: Content, size: tuple[int, int], boxes: Any) -> None:
    """Two good JPEGs, the picture, and the labels of the three."""
    for i in (1, 2):
        photo(seed=i).save(folder / f"{i}.jpg")
    if callable(content):
        content(folder / file)
    else:
        (folder / file).write_bytes(content)
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in (1, 2)]
    images.append({"id": 3, "file_name": file, "width": size[0], "height": size[1]})
    owners = [(1, [4, 4, 20, 16]), (2, [8, 9, 30, 20]), *((3, box) for box in boxes)]
    labels = {
        "images": images,
        "annotations": [
            {"id": i, "image_id": image, "category_id": 1 + i % 2, "bbox": box, "area": 99, "iscrowd": 0}
            for i, (image, box) in enumerate(owners)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "bird"}],
    }
    (folder / "labels.json").write_text(json.dumps(labels))


def case(
    name: str,
    what: str,
    file: str,
    content: Content,
    audit: Expected | None = None,
    *,
    size: tuple[int, int] = (64, 48),
    boxes: Any = ([2, 3, 12, 10],),
    **expected: Any,
) -> None:
    """A case: without `audit`, the picture is as good as any."""
    good = right("0 fatal", not_says=("cannot be read", "no such file"))
    dataset_case(
        "pictures",
        name,
        what,
        lambda folder: write(folder, file, content, size, boxes),
        audit=audit or good,
        **expected,
    )


def unreadable(*says: str) -> Expected:
    """The audit names it as a picture that cannot be read, with the reason."""
    return found("1 fatal", "unreadable_image", *says)


# -- kinds of files and of pixels ------------------------------------------------------------------------------------

GREY = photo().convert("L")
DEEP = Image.fromarray((np.asarray(GREY).astype(np.uint16) << 8) + 77)
PALETTE = photo().convert("P", palette=Image.Palette.ADAPTIVE)
CLEAR = Image.merge("RGBA", (*photo().split(), GREY))

for name, what, file, content in [
    ("jpg", "a JPEG called .jpe", "0.jpe", encoded("JPEG")),
    ("jpg-progressive", "a progressive JPEG", "0.jpg", encoded("JPEG", progressive=True)),
    ("jpg-grey", "a grey JPEG", "0.jpg", encoded("JPEG", GREY)),
    ("jpg-cmyk", "a JPEG of four printing inks", "0.jpg", encoded("JPEG", photo().convert("CMYK"))),
    ("png", "a PNG", "0.png", encoded("PNG")),
    ("png-1-bit", "a PNG in black and white", "0.png", encoded("PNG", photo().convert("1"))),
    ("png-palette", "a PNG with a palette", "0.png", encoded("PNG", PALETTE)),
    ("png-palette-clear", "a PNG with a transparent colour", "0.png", encoded("PNG", PALETTE, transparency=3)),
    ("png-clear", "a PNG with opacity", "0.png", encoded("PNG", CLEAR)),
    ("png-grey-clear", "a grey PNG with opacity", "0.png", encoded("PNG", CLEAR.convert("LA"))),
    ("bmp", "a BMP", "0.bmp", encoded("BMP")),
    ("webp", "a WebP", "0.webp", encoded("WEBP")),
    ("webp-clear", "a WebP with opacity", "0.webp", encoded("WEBP", CLEAR, lossless=True)),
    ("tif", "a TIFF", "0.tif", encoded("TIFF")),
    ("tif-lzw", "a TIFF packed by LZW", "0.tiff", encoded("TIFF", compression="tiff_lzw")),
    ("tif-jpeg", "a TIFF packed by JPEG", "0.tif", encoded("TIFF", compression="jpeg")),
    ("tif-cmyk", "a TIFF of four printing inks", "0.tif", encoded("TIFF", photo().convert("CMYK"))),
    ("tif-lab", "a TIFF in CIE's L*a*b*", "0.tif", encoded("TIFF", Image.new("LAB", (64, 48), (90, 9, 99)))),
    ("tif-big", "a BigTIFF", "0.tif", encoded("TIFF", big_tiff=True)),
    ("tif-pages", "a TIFF of two pages", "0.tif", encoded("TIFF", save_all=True, append_images=[photo(seed=3)])),
    ("gif", "a GIF", "0.gif", encoded("GIF")),
    ("ppm", "a PPM", "0.ppm", encoded("PPM")),
    ("pgm", "a PGM", "0.pgm", encoded("PPM", GREY)),
    ("pbm", "a PBM", "0.pbm", encoded("PPM", photo().convert("1"))),
    ("pnm-text", "a PNM in text", "0.pnm", b"P3 64 48 255\n" + b"9 200 30 " * 64 * 24 + b"0 0 255 " * 64 * 24),
    ("avif", "an AVIF", "0.avif", encoded("AVIF")),
    ("avif-clear", "an AVIF with opacity", "0.avif", encoded("AVIF", CLEAR)),
    ("jp2", "a JPEG 2000", "0.jp2", encoded("JPEG2000")),
    ("j2k", "the bare stream of a JPEG 2000", "0.j2k", encoded("JPEG2000", no_jp2=True)),
    ("mpo", "an MPO of two pictures", "0.mpo", encoded("MPO", save_all=True, append_images=[photo(seed=3)])),
    ("tga", "a TGA", "0.tga", encoded("TGA")),
    ("gif-animated", "a GIF of 50 pictures", "0.gif",
     encoded("GIF", GREY, save_all=True, append_images=[photo(seed=i).convert("L") for i in range(49)])),
    ("png-animated", "an animated PNG", "0.png", encoded("PNG", save_all=True, append_images=[photo(seed=3)])),
    ("webp-animated", "an animated WebP", "0.webp", encoded("WEBP", save_all=True, append_images=[photo(seed=3)])),
    ("avif-animated", "an animated AVIF", "0.avif", encoded("AVIF", save_all=True, append_images=[photo(seed=3)])),
    ("png-called-jpg", "a PNG called .jpg", "0.jpg", encoded("PNG")),
    ("jpg-called-png", "a JPEG called .png", "0.png", encoded("JPEG")),
    ("avif-called-jpg", "an AVIF called .jpg", "0.jpg", encoded("AVIF")),
    ("tif-called-jpg", "a TIFF called .jpg", "0.jpg", encoded("TIFF")),
    ("upper-case", "a JPEG called .JPG", "0.JPG", encoded("JPEG")),
    ("jpg-and-zip", "a JPEG with a zip archive behind it", "0.jpg", encoded("JPEG") + b"PK\x05\x06" + bytes(18)),
    ("gif-and-script", "a GIF that is a script as well", "0.gif", encoded("GIF") + b"/*<script>alert(1)</script>*/"),
    ("png-16-bit", "a grey PNG of 16 bits", "0.png", encoded("PNG", DEEP)),
    ("tif-16-bit", "a grey TIFF of 16 bits", "0.tif", encoded("TIFF", DEEP)),
    ("pgm-16-bit", "a PGM of 16 bits", "0.pgm", b"P5 64 48 65535\n" + np.asarray(DEEP).astype(">u2").tobytes()),
    ("jp2-16-bit", "a grey JPEG 2000 of 16 bits", "0.jp2", encoded("JPEG2000", DEEP)),
]:  # fmt: skip
    good = right("0 fatal", not_says=("cannot be read", "no such file", "one_colour", "deep_pixels"))
    case(name, what, file, content, None if "lab" in name else good)

WARNED = right("0 fatal", "deep_pixels")
DIM = Image.fromarray(np.asarray(DEEP) >> 4)
case(
    "png-12-bit", "a PNG of 12 bits in 16", "0.png", encoded("PNG", DIM), right("its 16 bits are hardly used")
)
case("tif-32-bit", "a TIFF of 32 bits", "0.tif", encoded("TIFF", DEEP.convert("I")), WARNED)
case("tif-float", "a TIFF of floating-point numbers", "0.tif", encoded("TIFF", GREY.convert("F")), WARNED)
case("png-1-pixel", "a picture of one pixel", "0.png", encoded("PNG", photo((1, 1))), right("tiny"),
     size=(1, 1), boxes=[[0, 0, 1, 1]])  # fmt: skip
case("jpg-65500-wide", "a JPEG 65,500 pixels wide and one high", "0.jpg", encoded("JPEG", photo((65500, 1))),
     right("0 fatal"), size=(65500, 1), boxes=[[0, 0, 90, 1]])  # fmt: skip

# -- turned ----------------------------------------------------------------------------------------------------------


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


for orientation in range(2, 9):
    turned = orientation >= 5
    content = encoded("JPEG", exif=exif(orientation))
    what = f"a JPEG of EXIF orientation {orientation}, the labels"
    case(f"exif-{orientation}-upright", f"{what} with the size of the upright picture", "0.jpg", content,
         right("0 fatal" if turned else "exif_undecided"), size=(48, 64) if turned else (64, 48))  # fmt: skip
    if turned:
        case(f"exif-{orientation}-stored", f"{what} with the size of the stored one", "0.jpg", content,
             found("exif_orientation", "turns the boxes"))  # fmt: skip
case("exif-9", "an EXIF orientation of 9", "0.jpg", encoded("JPEG", exif=exif(9)))
case("exif-avif", "an AVIF that is turned", "0.avif", encoded("AVIF", exif=exif(6)), size=(48, 64))
case(
    "exif-garbage",
    "an EXIF block of garbage",
    "0.jpg",
    encoded("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
)
LOOP = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
case("exif-loop", "an EXIF block that leads back to itself", "0.jpg", encoded("JPEG", exif=LOOP))

# -- cut short -------------------------------------------------------------------------------------------------------

for kind, file, options in [
    ("JPEG", "0.jpg", {}), ("PNG", "0.png", {}), ("BMP", "0.bmp", {}), ("GIF", "0.gif", {}), ("PPM", "0.ppm", {}),
    ("WEBP", "0.webp", {}), ("TIFF", "0.tif", {}), ("AVIF", "0.avif", {}), ("JPEG2000", "0.jp2", {}),
    ("TGA", "0.tga", {}), ("TIFF", "lzw.tif", {"compression": "tiff_lzw"}),
]:  # fmt: skip
    whole, name = encoded(kind, **options), file.replace(".", "-").removeprefix("0-")
    case(f"half-a-{name}", f"half of a {kind}", file, whole[: len(whole) // 2], unreadable())
more = encoded("JPEG", photo((320, 240)), quality=95)
case(
    "most-of-a-jpg", "a JPEG without its end", "0.jpg", more[:-400], unreadable("truncated"), size=(320, 240)
)
for kind, file, length, says in [
    ("JPEG", "0.jpg", 12, "a JPEG with a damaged header"),
    ("PNG", "0.png", 20, "a PNG with a damaged header"),
    ("WEBP", "0.webp", 14, "a WebP"),
    ("AVIF", "0.avif", 40, "an AVIF image that is cut short or damaged"),
    ("JPEG2000", "0.jp2", 24, "a JPEG 2000 image that is cut short or damaged"),
    ("TIFF", "0.tif", 8, "a TIFF"),
]:
    case(
        f"head-of-a-{file[2:]}",
        f"the first {length} bytes of a {kind}",
        file,
        encoded(kind)[:length],
        unreadable(says),
    )

# -- damaged ---------------------------------------------------------------------------------------------------------


def png(
    *chunks: tuple[bytes, bytes], size: tuple[int, int] = (64, 48), kind: int = 2, depth: int = 8
) -> bytes:
    """A PNG of such chunks after its header; kind 0 is grey, 2 RGB, 6 with opacity."""
    header = (b"IHDR", struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in (header, *chunks)
    )


PIXELS = (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.asarray(photo()))))
END = (b"IEND", b"")
WHOLE = encoded("PNG")
case("png-wrong-sum", "a PNG with a wrong checksum", "0.png", WHOLE[:60] + bytes([WHOLE[60] ^ 255]) + WHOLE[61:],
     unreadable())  # fmt: skip
case("png-no-pixels", "a PNG without pixels", "0.png", png(END), unreadable())
case(
    "png-few-pixels",
    "a PNG with too few rows, which Pillow makes up for with black ones",
    "0.png",
    png((b"IDAT", zlib.compress(bytes(193 * 9))), END),
    right("one_colour"),
)
case("png-zero-wide", "a PNG of 0 x 48 pixels", "0.png", png(PIXELS, END, size=(0, 48)), unreadable("0"))
case("png-text-bomb", "a PNG whose text unpacks to 200 MB", "0.png",
     lambda path: path.write_bytes(png((b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000))), PIXELS, END)),
     unreadable("a PNG"))  # fmt: skip
case("png-5000-texts", "a PNG with 5,000 texts", "0.png",
     lambda path: path.write_bytes(png(*[(b"tEXt", b"a%d\0b" % i) for i in range(5_000)], PIXELS, END)))  # fmt: skip
case(
    "png-colour-profile", "a colour profile of garbage", "0.png", png((b"iCCP", b"a\0\0garbage"), PIXELS, END)
)
SEGMENT = b"\xff\xfe\xff\xff" + bytes(65533)
case("jpg-segments", "a JPEG with 30 MB of comments", "0.jpg",
     lambda path: path.write_bytes(b"\xff\xd8" + SEGMENT * 480 + encoded("JPEG")[2:]))  # fmt: skip
for name, what, content, says in [
    ("empty", "an empty file", b"", "the file is empty"),
    ("zeros", "zero bytes", bytes(5000), "begins with zero bytes"),
    ("html", "a web page", b"<!DOCTYPE html><script>alert(1)</script>", "an HTML page"),
    ("lfs", "a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ("pdf", "a PDF", b"%PDF-1.7\n", "a PDF document"),
    ("eps", "a PostScript program", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n(id) run\n",
     "a PostScript file"),
    ("psd", "a Photoshop file", b"8BPS\0\1" + bytes(40), "a Photoshop file: save it as JPEG"),
    ("zip", "a zip archive", b"PK\x03\x04" + bytes(40), "a zip archive"),
    ("json", "a JSON file", b'{"a": 1}', "a JSON file"),
    ("svg", "a drawing", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    ("text", "words", b"no picture", "no image that Pillow knows"),
    ("heic", "a HEIC photograph", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photograph, which Pillow cannot read"),
    ("mp4", "a video", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "a video"),
    ("jxl", "a JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(9), "a JPEG XL image, which Pillow cannot read"),
    ("pickle", "a pickle", b"\x80\x04\x95cos\nsystem\n(S'touch hacked'\ntR.", "no image that Pillow knows"),
]:  # fmt: skip
    case(f"is-{name}", f"{what} called .jpg", "0.jpg", content, unreadable(says))
case("is-heic-by-name", "a HEIC photograph called so", "0.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
     unreadable("make it a JPEG"))  # fmt: skip

LACKING = incomplete("labels stand alone")

# -- no files --------------------------------------------------------------------------------------------------------

for name, what, content, says in [
    ("pipe", "a pipe that nobody writes to", os.mkfifo, "is a pipe, not a file"),
    (
        "zero",
        "a link to a device without end",
        lambda path: path.symlink_to("/dev/zero"),
        "is a device, not a file",
    ),
    ("folder", "a folder", Path.mkdir, "irectory"),
    ("loop", "a link to itself", lambda path: path.symlink_to(path.name), "symbolic links"),
]:
    case(
        f"in-place-{name}",
        f"{what} in place of a picture",
        "0.jpg",
        content,
        unreadable(says),
        convert=LACKING,
    )
case("in-place-link", "a link that leads nowhere in place of a picture", "0.jpg",
     lambda path: path.symlink_to("gone.jpg"), found("it is a link to gone.jpg"), convert=LACKING)  # fmt: skip
case("in-place-nothing", "labels of a picture called otherwise", "0.jpg",
     lambda path: photo().save(path.with_name("0.png")), found("but 0.png beside it"), convert=LACKING)  # fmt: skip
case("other-accents", "a name whose accents are encoded otherwise on the disk", "\u00e9t\u00e9.jpg",
     lambda path: photo().save(path.with_name("e\u0301te\u0301.jpg")),
     found("whose accents are encoded otherwise: rename the file"), convert=LACKING)  # fmt: skip

# -- too much --------------------------------------------------------------------------------------------------------


def plain(folder: Path, size: tuple[int, int], kind: int, depth: int, number: int) -> None:
    """Pictures of zeros, a few kilobytes each, which unpack to as many bytes as they say."""
    row = 1 + -(-size[0] * depth * {0: 1, 6: 4}[kind] // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(row)) for _ in range(size[1])) + packer.flush()
    for i in range(number):
        (folder / f"{i}.png").write_bytes(png((b"IDAT", packed), END, size=size, kind=kind, depth=depth))
    images = [{"id": i, "file_name": f"{i}.png", "width": size[0], "height": size[1]} for i in range(number)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [9, 9, 99, 99 + i]} for i in range(number)]
    labels = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "labels.json").write_text(json.dumps(labels))


dataset_case("pictures", "bomb", "two pictures of 30,000 x 30,000 pixels in a few kilobytes each",
             lambda folder: plain(folder, (30_000, 30_000), 0, 1, 2), audit=found("huge_image"))  # fmt: skip
dataset_case("pictures", "bombs-below", "four pictures as large as are opened, of a few kilobytes each",
             lambda folder: plain(folder, (13_300, 13_300), 0, 1, 4), audit=right("one_colour"),
             megabytes=700, seconds=240)  # fmt: skip


def boxes_at_one_place(number: int, apart: float = 0) -> list[list[float]]:
    return [[4 + apart * i, 4, 20, 16] for i in range(number)]


case("10000-equal-boxes", "10,000 equal boxes in one picture", "0.jpg", encoded("JPEG"),
     right("duplicate_box", "crowded_image"), boxes=boxes_at_one_place(10_000))  # fmt: skip
case("10000-close-boxes", "10,000 boxes in one picture that nearly are equal", "0.jpg", encoded("JPEG"),
     right("duplicate_box", "crowded_image"), boxes=boxes_at_one_place(10_000, 1e-5))  # fmt: skip
case("examples-below-0", "nothing wrong, but examples that are asked for by a number below 0", "0.jpg", encoded("JPEG"),
     also={"audit {source} --examples -1": refused("examples", "0 or more")})  # fmt: skip
