"""A small dataset of real files, and one function a kind of finding that spoils it."""

import hashlib
import shutil

import numpy as np
from PIL import Image

from odkit.data.dataset import Dataset, SourceProblem

NAN = float("nan")


class Bench:
    """Twenty small images, ten in train and ten in val, with nothing wrong; a test spoils it and builds the Dataset."""

    def __init__(self, folder, *, splits=True, kind="made"):
        self.folder, self.kind = folder, kind
        self.names = ["bolt", "nut", "gear"]
        self.problems = []
        self.images = {}  # id: [size, split]
        self.labels = []  # [image id, class index, box]
        for i in range(20):
            split = "val" if i >= 10 else "train"
            self.add(f"{i:02}.png", split if splits else "")

    def add(
        self,
        name,
        split="",
        *,
        size=(40, 30),
        boxes=None,
    ):
        """Without `boxes` three, the last of them where no other image has it."""
        self.noise(name, size)
        self.images[name] = [list(size), split]
        x, y = np.random.default_rng(seed_of(name)).random(2)
        third = (8 + x, 16 + y, 19 + x, 29 + y)
        for index, box in enumerate([(3, 4, 12, 14), (20, 5, 33, 25), third]) if boxes is None else boxes:
            self.label(name, index, box)
        return name

    def noise(self, name, size, **options):
        """Write an image that is like no other."""
        pixels = np.random.default_rng(seed_of(name)).integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(self.folder / name, **options)

    def label(self, name, index, box):
        self.labels.append([name, index, list(box)])
        return f"box {sum(1 for label in self.labels if label[0] == name)}"

    def clear(self, name):
        self.labels = [label for label in self.labels if label[0] != name]

    def boxes_of(self, name):
        return [(index, tuple(box)) for image, index, box in self.labels if image == name]

    def path(self, name):
        return self.folder / name

    def build(self):
        ids = list(self.images)
        return Dataset(
            name="bench",
            root=self.folder,
            format=self.kind,
            class_names=self.names,
            image_paths=[str(self.folder / name) for name in ids],
            image_sizes=[size for size, _ in self.images.values()],
            image_splits=[split for _, split in self.images.values()],
            boxes=np.array([box for *_, box in self.labels], np.float32).reshape(-1, 4),
            box_classes=[index for _, index, _ in self.labels],
            box_images=[ids.index(name) for name, *_ in self.labels],
            source_problems=tuple(self.problems),
        )


def seed_of(name):
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


# One function a kind: it spoils one image of its own and says where the finding must be.
def missing_image(bench):
    bench.path("00.png").unlink()
    return ["00.png", ""]


def unreadable_image(bench):
    bench.path("01.png").write_text("<!DOCTYPE html><title>404</title>")
    return ["01.png", ""]


def cut_short(bench):
    path = bench.path(bench.add("cut.jpg", "train"))
    path.write_bytes(path.read_bytes()[:-400])
    return ["cut.jpg", ""]


def huge_image(bench):
    # a header that claims 20,000 x 20,000 pixels; nothing of it is ever unpacked
    path = bench.path("02.png")
    data = bytearray(path.read_bytes())
    data[16:24] = (20000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    bench.images["02.png"][0] = [20000, 20000]
    return ["02.png", ""]


def unreadable_label(bench):
    bench.problems.append(
        SourceProblem(
            "unreadable_label", "fatal", "03.txt", "line 2 is 'x'", "Correct the line.", image="03.png"
        )
    )
    return ["03.png", ""]


def label_without_image(bench):
    bench.problems.append(
        SourceProblem("label_without_image", "warning", "lost.txt", "no image has this name", "Delete it.")
    )
    return ["", ""]


def unreadable_folder(bench):
    bench.problems.append(SourceProblem("unreadable_folder", "fatal", "closed", "it is closed", "Open it."))
    return ["", ""]


def path_outside(bench):
    bench.problems.append(SourceProblem("path_outside", "fatal", "all.json", "it climbs out", "Correct it."))
    return ["", ""]


def missing_split(bench):
    bench.problems.append(SourceProblem("missing_split", "warning", "data.yaml", "val is empty", "Fill it."))
    return ["", ""]


def image_in_two_splits(bench):
    bench.problems.append(
        SourceProblem("image_in_two_splits", "warning", "val.txt", "it is in train, too", "Delete it.")
    )
    return ["", ""]


def wrong_size(bench):
    bench.images["04.png"][0] = [80, 60]
    return ["04.png", ""]


def exif_orientation(bench):
    bench.add("turned.jpg", "train")
    bench.noise("turned.jpg", (40, 30), exif=exif(6))
    return ["turned.jpg", ""]


def exif_undecided(bench):
    bench.add("mirrored.jpg", "train")
    bench.noise("mirrored.jpg", (40, 30), exif=exif(2))
    return ["mirrored.jpg", ""]


def deep_pixels(bench):
    deep = np.random.default_rng(16).integers(0, 4095, (30, 40)).astype(np.uint16)
    Image.fromarray(deep).save(bench.path("05.png"))
    return ["05.png", ""]


def unknown_size(bench):
    bench.images["06.png"][0] = [0, 0]
    return ["06.png", ""]


def not_finite(bench):
    return ["07.png", bench.label("07.png", 0, (3, NAN, 20, 10))]


def no_area(bench):
    return ["07.png", bench.label("07.png", 0, (3, 2, 20, 2))]


def inverted(bench):
    return ["07.png", bench.label("07.png", 0, (20, 3, 2, 25))]


def outside(bench):
    return ["07.png", bench.label("07.png", 0, (41, 3, 60, 25))]


def unknown_class(bench):
    return ["08.png", bench.label("08.png", -1, (1, 1, 20, 20))]


def partly_outside(bench):
    return ["08.png", bench.label("08.png", 0, (30, 1, 52, 20))]


def tiny(bench):
    return ["08.png", bench.label("08.png", 0, (30, 1, 31, 9))]


def duplicate_box(bench):
    return ["09.png", bench.label("09.png", 0, (3, 4, 12, 14.1))]


def two_classes(bench):
    return ["09.png", bench.label("09.png", 2, (20, 5, 33, 25))]


def class_name_variant(bench):
    bench.names.append(" Bolt")
    bench.label("10.png", len(bench.names) - 1, (1, 20, 6, 28))
    bench.label("03.png", len(bench.names) - 1, (1, 20, 6, 28))
    return ["", ""]


def unused_class(bench):
    bench.names.append("rivet")
    return ["", ""]


def class_imbalance(bench):
    bench.names += ["pin"]
    for name in ("11.png", "04.png"):
        bench.label(name, len(bench.names) - 1, (1, 20, 6, 28))
    bench.label("11.png", len(bench.names) - 1, (34, 1, 39, 9))
    for i in range(12, 20):
        for k in range(2):
            bench.label(f"{i}.png", 0, (k * 14, 1, k * 14 + 13, 3.5))
    return ["", ""]


def class_missing_in_split(bench):
    bench.names += ["spring"]
    for name in ("12.png", "13.png"):
        for k in range(5):
            bench.label(name, len(bench.names) - 1, (1 + k * 7, 25.5, 7 + k * 7, 29.5))
    return ["", ""]


def small_split(bench):
    bench.add("test.png", "test")
    for k in range(20):
        bench.label("test.png", k % 3, (k, 0, k + 3, 4 + k))
    return ["", ""]


def without_split(bench):
    bench.images["14.png"][1] = ""
    bench.add("another.png", "val")
    return ["14.png", ""]


def image_without_labels(bench):
    bench.clear("15.png")
    return ["15.png", ""]


def duplicate_image(bench):
    bench.add("copy.png", "train")
    shutil.copyfile(
        bench.path("00.png" if bench.path("00.png").exists() else "03.png"), bench.path("copy.png")
    )
    return ["copy.png", ""]


def duplicate_across_splits(bench):
    bench.add("leak.png", "train")
    shutil.copyfile(bench.path("16.png"), bench.path("leak.png"))
    return ["leak.png", ""]


def near_duplicate_across_splits(bench):
    bench.add("again.jpg", "train")
    with Image.open(bench.path("17.png")) as image:
        image.point(lambda value: value * 0.9 + 12).save(bench.path("again.jpg"), quality=90)
    return ["again.jpg", ""]


def huge_box(bench):
    return ["13.png", bench.label("13.png", 0, (0.5, 0, 40, 30))]


def extreme_shape(bench):
    return ["11.png", bench.label("11.png", 1, (0, 3, 40, 5))]


def copied_labels(bench):
    bench.add("original.png", "val")
    bench.add("repeat.png", "train", boxes=bench.boxes_of("original.png"))
    return ["repeat.png", ""]


def one_colour(bench):
    bench.add("grey.png", "train")
    Image.new("RGB", (40, 30), (90, 91, 92)).save(bench.path("grey.png"))
    return ["grey.png", ""]


def case_collision(bench):
    bench.add("19.PNG", "train")
    return ["19.PNG", ""]


def crowded_image(bench, count=101):
    places = [(k % 20, k // 20 * 3) for k in range(count)]
    bench.add("crowd.png", "train", boxes=[((x + y) % 3, (x, y, x + 9, y + 11)) for x, y in places])
    return ["crowd.png", ""]


def unread_picture(bench):
    bench.path("telephone.HEIC").write_bytes(b"ftypheic")
    return ["", ""]


def unread_labels(bench):
    bench.path("boxes.mat").write_bytes(b"MATLAB")
    return ["", ""]


def no_boxes(bench):
    bench.labels = []
    return ["", ""]


PLANTS = {
    plant: kind
    for kind, *plants in [
        ("missing_image", missing_image),
        ("unreadable_image", unreadable_image, cut_short),
        ("huge_image", huge_image),
        ("unreadable_label", unreadable_label),
        ("unreadable_folder", unreadable_folder),
        ("path_outside", path_outside),
        ("missing_split", missing_split),
        ("image_in_two_splits", image_in_two_splits),
        ("wrong_size", wrong_size),
        ("exif_orientation", exif_orientation),
        ("not_finite", not_finite),
        ("no_area", no_area),
        ("inverted", inverted),
        ("outside", outside),
        ("unknown_class", unknown_class),
        ("partly_outside", partly_outside),
        ("tiny", tiny),
        ("duplicate_box", duplicate_box),
        ("two_classes", two_classes),
        ("class_name_variant", class_name_variant),
        ("label_without_image", label_without_image),
        ("exif_undecided", exif_undecided),
        ("deep_pixels", deep_pixels),
        ("unknown_size", unknown_size),
        ("duplicate_image", duplicate_image),
        ("duplicate_across_splits", duplicate_across_splits),
        ("near_duplicate_across_splits", near_duplicate_across_splits),
        ("huge_box", huge_box),
        ("extreme_shape", extreme_shape),
        ("copied_labels", copied_labels),
        ("one_colour", one_colour),
        ("case_collision", case_collision),
        ("crowded_image", crowded_image),
        ("unread_picture", unread_picture),
        ("unread_labels", unread_labels),
        ("class_missing_in_split", class_missing_in_split),
        ("small_split", small_split),
        ("without_split", without_split),
        ("unused_class", unused_class),
        ("class_imbalance", class_imbalance),
        ("image_without_labels", image_without_labels),
    ]
    for plant in plants
}


def spots(found):
    return {(f.kind, f.image, f.box) for f in found}
