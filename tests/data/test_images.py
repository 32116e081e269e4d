"""One reader of pictures: whoever asks gets the same size and the same upright pixels, whatever the file says how."""

import builtins
import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngInfo

from odkit.analysis.figures.grid import open_picture
from odkit.browsing.fo_dataset import sizes_to_draw
from odkit.data.audit import audit
from odkit.data.formats import load_dataset
from odkit.data.held_pictures import HeldPicture
from odkit.data.image_facts import header_sizes
from odkit.data.images import (
    IMAGE_SUFFIXES,
    ImageReadError,
    open_upright,
    read_header,
    read_pixels,
    upright_size,
)
from odkit.detection import DetectionImages, images_dataset
from odkit.runs.dashboard.charts import _thumbnail
from odkit.system import InputError

WIDTH, HEIGHT = 40, 24
WITH_EXIF = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".avif", ".mpo")
GREY = (".pgm", ".pbm")
TO_STORED = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # the orientation that undoes another


def picture() -> Image.Image:
    """An upright picture like no turned or mirrored one of itself, with soft edges, so that JPEG keeps it."""
    x, y = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    return Image.fromarray((np.stack([x, y, x * y], axis=2) * 250).astype(np.uint8))


def turned(image: Image.Image, orientation: int) -> Image.Image:
    exif = image.getexif()
    exif[0x0112] = orientation
    return ImageOps.exif_transpose(image)


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def xmp_of(orientation: int) -> str:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="{orientation}"/></x:xmpmeta>'


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """A PNG's chunks, each with its name."""
    chunks, place = [], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place : place + 12 + length]))
        place += 12 + length
    return chunks


def move_behind_the_pixels(path: Path, kind: bytes) -> None:
    data = path.read_bytes()
    chunks = chunks_of(data)
    last = [chunk for chunk in chunks if chunk[0] in (kind, b"IEND")]
    assert len(last) == 2
    first = [chunk for chunk in chunks if chunk not in last]
    path.write_bytes(data[:8] + b"".join(part for _, part in [*first, *last]))


def write(folder: Path, name: str, orientation: int) -> Path:
    """The picture, stored so that `orientation` brings it back, where the format can say so."""
    path = folder / name
    stored = picture() if orientation == 1 else turned(picture(), TO_STORED[orientation])
    if path.suffix in GREY:
        stored = stored.convert("L")
    if path.stem.startswith("xmp-png"):
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp_of(orientation))
        stored.save(path, pnginfo=text)
    elif path.stem.startswith("xmp-jpg"):
        stored.save(path, xmp=xmp_of(orientation).encode(), quality=98)
    elif path.stem.startswith("xmp-tif"):
        stored.save(path, tiffinfo={700: xmp_of(orientation).encode()})
    else:
        options = {".webp": {"lossless": True}, ".tif": {"compression": "tiff_lzw"}}.get(path.suffix, {})
        if path.suffix in (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"):
            options = {"format": "JPEG", "quality": 98}
        if path.suffix == ".avif":
            options = {"quality": 98, "subsampling": "4:4:4"}
        stored.save(path, exif=exif_of(orientation), **options)
    if path.stem.startswith("behind"):
        move_behind_the_pixels(path, b"eXIf")
    if path.stem.startswith("xmp-png-behind"):
        move_behind_the_pixels(path, b"iTXt")
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A YOLO folder (which states no sizes): every format in every orientation, each with what must be seen in it."""
    root = tmp_path_factory.mktemp("photographs")
    (root / "images").mkdir()
    (root / "data.yaml").write_text("path: .\ntrain: images\nnames: [thing]\n")
    names = [f"{suffix[1:]}{suffix}" for suffix in sorted(IMAGE_SUFFIXES)]
    names += ["behind.png", "xmp-png.png", "xmp-png-behind.png", "xmp-jpg.jpg", "xmp-tif.tif"]
    seen = {}
    for name in names:
        for orientation in range(1, 9):
            path = Path(name)
            path = write(root / "images", f"{path.stem}-{orientation}{path.suffix}", orientation)
            shown = picture()
            if path.suffix not in WITH_EXIF and orientation > 1:  # it cannot say that it is turned
                shown = turned(shown, TO_STORED[orientation])
            if path.suffix in GREY:
                shown = shown.convert("L")
            seen[f"images/{path.name}"] = np.asarray(shown.convert("RGB"))
    return root, seen


def test_all_readers_agree(photographs):
    root, seen = photographs
    dataset = load_dataset(root, val=0)
    assert dataset.format == "yolo"
    assert sorted(dataset.image_ids) == sorted(seen)
    assert len(seen) == (len(IMAGE_SUFFIXES) + 5) * 8
    audited = audit(dataset)
    assert not audited.of("wrong_size") + audited.of("unreadable_image")
    unknown = dataset.replace(image_sizes=np.zeros_like(dataset.image_sizes))
    for_training = DetectionImages(dataset, image_size=WIDTH)
    browsed = sizes_to_draw(unknown)
    for row, (image_id, path) in enumerate(zip(dataset.image_ids, dataset.image_paths, strict=True)):
        pixels = seen[image_id]
        size = pixels.shape[1::-1]
        shown = open_picture(unknown, row, WIDTH)
        item = for_training[row]
        answers = {
            "load_dataset": tuple(dataset.image_sizes[row]),
            "audit": tuple(audited._subject.files.upright[row]),
            "browse": tuple(browsed[row]),
            "figures": (shown.width, shown.height),
            "figures' pixels": shown.pixels.shape[1::-1],
            "training": item.original,
            "training's pixels": tuple(item.image.shape[:0:-1]),
            "dashboard": _thumbnail(path)[1],
            "upright_size": upright_size(path),
            "open_upright": open_upright(path).size,
            "header_sizes": header_sizes([path])[0],
        }
        assert answers == dict.fromkeys(answers, size), image_id
        difference = np.abs(read_pixels(path).astype(int) - pixels).mean()
        assert difference <= (
            8 if path.endswith((".gif", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".avif")) else 0
        ), image_id
        assert np.array_equal(np.moveaxis(item.image.numpy(), 0, 2), read_pixels(path))


def test_no_header_needs_the_pixels(photographs, monkeypatch):
    root, seen = photographs

    def refuse(image):
        raise AssertionError(f"{image.filename} is decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    for image_id, pixels in seen.items():
        assert read_header(root / image_id).upright_size == pixels.shape[1::-1]


@pytest.mark.parametrize("name", ["png-6.png", "behind-6.png", "png-1.png"])
def test_a_png_cut_short_still_has_its_size(photographs, tmp_path, name):
    data = (photographs[0] / "images" / name).read_bytes()
    pixels = next(part for kind, part in chunks_of(data) if kind == b"IDAT")
    (tmp_path / name).write_bytes(data[: data.index(pixels) + len(pixels) // 2])
    # where the orientation stood behind the pixels, it is gone
    turned = name == "behind-6.png"
    assert upright_size(tmp_path / name) == ((HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT))
    with pytest.raises(ImageReadError, match=name):
        read_pixels(tmp_path / name)


def test_a_large_png_is_not_read_to_find_what_is_behind_it(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1000, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png", exif=exif_of(8))
    move_behind_the_pixels(tmp_path / "a.png", b"eXIf")
    assert (tmp_path / "a.png").stat().st_size > 4_000_000

    taken = []

    class Counted(io.FileIO):
        def readinto(self, buffer):
            taken.append(super().readinto(buffer))
            return taken[-1]

    monkeypatch.setattr(
        builtins, "open", lambda path, mode, **how: io.BufferedReader(Counted(path, mode, **how))
    )
    header = read_header(tmp_path / "a.png")
    monkeypatch.undo()
    assert header.upright_size == (1500, 1000)
    assert 0 < sum(taken) < 1_000_000  # a chunk's first bytes, and what Python reads with them


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "block", [b"", b"nonsense", b"MM\x00*\x00\x00\xff\xff", b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01"]
)
def test_a_damaged_exif_block_turns_nothing(tmp_path, block):
    picture().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00" + block)
    assert read_header(tmp_path / "a.jpg") == (WIDTH, HEIGHT, 1, "RGB")
    assert read_pixels(tmp_path / "a.jpg").shape == (HEIGHT, WIDTH, 3)


def test_a_second_block_behind_the_pixels_wins_for_all(tmp_path):
    path = write(tmp_path, "a.png", 6)
    data = path.read_bytes()
    block = exif_of(1).tobytes()[6:]
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    path.write_bytes(data[:-12] + chunk + data[-12:])
    assert read_header(path).upright_size == read_pixels(path).shape[1::-1] == (HEIGHT, WIDTH)


def test_an_animation_is_its_first_picture(tmp_path):
    frames = [picture(), Image.new("RGB", (WIDTH, HEIGHT), "red")]
    for name in ("a.png", "a.gif", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert upright_size(tmp_path / name) == (WIDTH, HEIGHT)
        assert np.abs(read_pixels(tmp_path / name).astype(int) - np.asarray(frames[0])).mean() <= 8


def test_errors_name_the_file_and_keep_the_reason(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    with pytest.raises(ImageReadError, match=r"page\.jpg: cannot be read as an image .*odkit audit"):
        open_upright(tmp_path / "page.jpg")
    with pytest.raises(ImageReadError, match=r"gone\.jpg: there is no such file") as raised:
        open_upright(tmp_path / "gone.jpg")
    assert isinstance(raised.value.reason, FileNotFoundError)
    assert upright_size(tmp_path / "gone.jpg") == upright_size(tmp_path / "page.jpg") == (0, 0)


def test_a_draft_is_smaller_and_as_upright(tmp_path):
    image = picture().resize((1600, 960)).transpose(Image.Transpose.ROTATE_90)
    image.save(tmp_path / "a.jpg", exif=exif_of(6))
    draft = open_upright(tmp_path / "a.jpg", draft=("RGB", (200, 200)))
    assert upright_size(tmp_path / "a.jpg") == (1600, 960)
    assert draft.size == (400, 240)
    assert np.abs(np.asarray(draft.resize((WIDTH, HEIGHT))).astype(int) - np.asarray(picture())).max() < 20


def test_predict_reads_the_files_that_load_dataset_reads(photographs, tmp_path):
    root, seen = photographs
    assert sorted(images_dataset(root).image_ids) == sorted(seen)
    for name in ("a.JPG", "inside/b.Tiff", "._a.jpg", "notes.txt", "__MACOSX/a.jpg", ".hidden/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert images_dataset(tmp_path).image_ids.tolist() == ["a.JPG", "inside/b.Tiff"]
    shutil.copy(tmp_path / "a.JPG", os.fsencode(tmp_path) + b"/caff\xe8.jpg")  # Latin-1, of an old archive
    with pytest.raises(InputError, match="is no text, so no label can name it"):
        images_dataset(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2", "a.pgm"])
def test_grey_of_16_bits_keeps_its_greys(tmp_path, name):
    """As colours of 16 bits do: what Pillow would make of it is white, nearly everywhere."""
    grey = np.asarray(picture().convert("L"))
    deep = (grey.astype(np.uint16) << 8) + 99
    if name == "a.pgm":
        (tmp_path / name).write_bytes(b"P5 40 24 65535\n" + deep.astype(">u2").tobytes())
    else:
        Image.fromarray(deep).save(tmp_path / name)
    wanted = np.repeat(grey[..., None], 3, 2)
    assert np.array_equal(read_pixels(tmp_path / name), wanted)
    with Image.open(tmp_path / name) as image:
        assert np.array_equal(HeldPicture(image, "it").pixels(), wanted)
    assert read_header(tmp_path / name).mode == "I;16"


def test_no_other_program_is_started_for_a_picture(tmp_path):
    """Pillow would hand PostScript to Ghostscript, whatever the file is called."""
    (tmp_path / "a.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n%%EOF\n"
    )
    with pytest.raises(ImageReadError, match="none that Pillow knows"):
        read_pixels(tmp_path / "a.jpg")
