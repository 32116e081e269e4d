"""Folders: what is in place of a file, what may not be read, and what lies where no data set is."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.hostile.cases import add, dataset_case, found, lost, refused, right
from tests.hostile.coco import labels, picture, write
from tests.hostile.yolo import LACKS, LINE, PAGE, put, yolo

LOST = lost("label")
CLOSED = lost("cannot be looked into")


def case(name: str, what: str, make: Callable[[Path], object], **expected: Any) -> None:
    dataset_case("folders", name, what, make, **expected)


def voc(folder: Path) -> None:
    for i in range(4):
        picture(folder / "JPEGImages" / f"{i}.jpg", seed=i)
        corners = "<xmin>5</xmin><ymin>5</ymin><xmax>24</xmax><ymax>20</ymax>"
        size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
        put(
            folder / "Annotations" / f"{i}.xml",
            f"<annotation><filename>{i}.jpg</filename>{size}<object><name>cat</name><bndbox>{corners}</bndbox>"
            "</object></annotation>",
        )


# -- special files ---------------------------------------------------------------------------------------------------


@contextmanager
def near(path: Path) -> Iterator[str]:
    """A socket's path has at most 107 bytes, so it is made from beside it."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        yield path.name
    finally:
        os.chdir(here)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with near(path) as name, socket.socket(socket.AF_UNIX) as one:
        one.bind(name)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def full(path: Path) -> None:
    path.symlink_to("/dev/full")


def nowhere(path: Path) -> None:
    path.symlink_to("gone")


def itself(path: Path) -> None:
    path.symlink_to(path.name)


def passwords(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def a_folder(path: Path) -> None:
    path.mkdir()


def instead(make: Callable[[Path], None], file: str, kind: Callable[[Path], None]) -> Callable[[Path], None]:
    """A data set with something else in place of a file."""

    def both(folder: Path) -> None:
        make(folder)
        (folder / file).unlink(missing_ok=True)
        kind(folder / file)

    return both


def coco(folder: Path) -> None:
    write(folder, labels())


def usual(folder: Path) -> None:
    yolo(folder, {})


def table(folder: Path) -> None:
    for i in range(4):
        picture(folder / f"{i}.jpg", seed=i)
    rows = "".join(f"{i}.jpg,64,48,cat,4,4,24,20\n" for i in range(4))
    put(folder / "labels.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\n" + rows)


case(
    "picture-pipe",
    "a pipe in place of a picture",
    instead(coco, "0.jpg", pipe),
    audit=found("is a pipe"),
    convert=LACKS,
)
case(
    "picture-socket",
    "a socket in place of a picture",
    instead(coco, "0.jpg", listening),
    audit=found("cannot be opened"),
    convert=LACKS,
)
case(
    "picture-endless",
    "a link to /dev/zero in place of a picture",
    instead(coco, "0.jpg", endless),
    audit=found("device"),
    convert=LACKS,
)
case(
    "picture-passwords",
    "a link to /etc/passwd in place of a picture",
    instead(coco, "0.jpg", passwords),
    audit=found("it is no image"),
    convert=LACKS,
)
case(
    "picture-nowhere",
    "a link to nothing in place of a picture",
    instead(coco, "0.jpg", nowhere),
    audit=found("which does not exist"),
    convert=LACKS,
)
case(
    "picture-itself",
    "a link to itself in place of a picture",
    instead(coco, "0.jpg", itself),
    audit=found("0.jpg"),
    convert=LACKS,
)
case(
    "picture-folder",
    "a folder in place of a picture",
    instead(coco, "0.jpg", a_folder),
    audit=found("0.jpg"),
    convert=LACKS,
)
case(
    "json-pipe", "a pipe in place of the JSON", instead(coco, "labels.json", pipe), audit=refused("is a pipe")
)
case(
    "json-endless",
    "a link to /dev/zero in place of the JSON",
    instead(coco, "labels.json", endless),
    audit=refused("is a device"),
)
case(
    "json-pipe-beside",
    "a pipe called other.json beside the labels",
    instead(coco, "other.json", pipe),
    audit=refused("is a pipe"),
)
case(
    "xml-pipe",
    "a pipe in place of an XML file",
    instead(voc, "Annotations/0.xml", pipe),
    audit=found("is a pipe"),
    convert=LOST,
)
case(
    "xml-socket",
    "a socket in place of an XML file",
    instead(voc, "Annotations/0.xml", listening),
    audit=found("cannot be read"),
    convert=LOST,
)
case(
    "yaml-pipe", "a pipe in place of data.yaml", instead(usual, "data.yaml", pipe), audit=refused("is a pipe")
)
case(
    "yaml-endless",
    "a link to /dev/zero in place of data.yaml",
    instead(usual, "data.yaml", endless),
    audit=refused("is a device"),
)
case(
    "yaml-pipe-beside",
    "a pipe called other.yaml beside data.yaml",
    instead(usual, "other.yaml", pipe),
    audit=right("0 fatal"),
)
case(
    "label-pipe",
    "a pipe in place of a label file",
    instead(usual, "labels/train/0.txt", pipe),
    audit=found("it is a pipe"),
    convert=LOST,
)
case(
    "label-folder",
    "a folder in place of a label file",
    instead(usual, "labels/train/0.txt", a_folder),
    audit=found("Is a directory"),
    convert=LOST,
)
case(
    "list-pipe",
    "a pipe in place of a list of images",
    instead(
        lambda folder: yolo(folder, {}, page=PAGE.replace("images/train", "train.txt")), "train.txt", pipe
    ),
    audit=found("it is a pipe"),
    convert=LOST,
)
case(
    "names-pipe",
    "a pipe in place of the list of class names",
    instead(lambda folder: yolo(folder, {}, page=None), "classes.txt", pipe),
    audit=refused("it is a pipe"),
)
case(
    "csv-pipe",
    "a pipe in place of a CSV file",
    instead(table, "labels.csv", pipe),
    audit=refused("labels.csv (it is a pipe"),
)
case(
    "csv-full",
    "a link to /dev/full in place of a CSV file",
    instead(table, "labels.csv", full),
    audit=refused("labels.csv (it is a device"),
)
case(
    "record-pipe",
    "a pipe in place of a record file",
    instead(table, "train.record", pipe),
    audit=right("is a pipe", "0 fatal"),
)

# -- permissions -----------------------------------------------------------------------------------------------------


def closed(make: Callable[[Path], None], path: str) -> Callable[[Path], None]:
    """A data set in which one file or folder may not be read."""

    def both(folder: Path) -> None:
        make(folder)
        (folder / path).chmod(0)

    return both


def more_voc(folder: Path) -> None:
    voc(folder)
    put(folder / "Annotations/more/9.xml", "<annotation/>")


case(
    "closed-val",
    "val images in a folder that may not be read",
    closed(usual, "images/val"),
    audit=found("folder that cannot be looked into", "Permission denied"),
    convert=CLOSED,
)
case(
    "closed-labels",
    "YOLO's labels in a folder that may not be read",
    closed(usual, "labels/train"),
    audit=found("Permission denied"),
    convert=LOST,
)
case(
    "closed-annotations",
    "VOC's labels in part in a folder that may not be read",
    closed(more_voc, "Annotations/more"),
    audit=found("folder that cannot be looked into", "Annotations/more"),
    convert=CLOSED,
)
case(
    "closed-all-labels",
    "VOC's labels all in a folder that may not be read",
    closed(voc, "Annotations"),
    audit=refused("What cannot be looked into: Annotations (Permission denied)"),
)
case(
    "closed-picture",
    "a picture that may not be read",
    closed(coco, "0.jpg"),
    audit=found("Permission denied"),
    convert=LACKS,
)
case(
    "closed-json",
    "a JSON file that may not be read",
    closed(coco, "labels.json"),
    audit=refused("Permission denied"),
)
case(
    "closed-yaml",
    "a data.yaml that may not be read",
    closed(usual, "data.yaml"),
    audit=refused("Permission denied"),
)
case(
    "closed-label",
    "a label file that may not be read",
    closed(usual, "labels/train/0.txt"),
    audit=found("Permission denied"),
    convert=LOST,
)
case(
    "closed-csv",
    "a CSV file that may not be read",
    closed(table, "labels.csv"),
    audit=refused("labels.csv (Permission denied)"),
)
case(
    "closed-folder",
    "a folder that may not be read itself",
    lambda folder: (coco(folder), folder.chmod(0)),
    audit=refused("cannot be looked into: Permission denied"),
)
case(
    "closed-names",
    "folders that may be listed and not entered",
    lambda folder: (usual(folder), (folder / "images/train").chmod(0o600)),
    audit=found("Permission denied"),
    convert=LOST,
)

# -- places ----------------------------------------------------------------------------------------------------------


def inside(parent: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: make(folder / parent)


def two(folder: Path) -> None:
    coco_at(folder / "one")
    coco_at(folder / "two")


def coco_at(folder: Path) -> None:
    folder.mkdir(parents=True)
    coco(folder)


def loop(folder: Path) -> None:
    coco(folder)
    (folder / "up").symlink_to(folder, target_is_directory=True)
    (folder / "sub").mkdir()
    (folder / "sub" / "again").symlink_to("..", target_is_directory=True)


def linked_kernel(folder: Path) -> None:
    coco(folder)
    (folder / "system").symlink_to("/proc", target_is_directory=True)


def converted_into_itself(folder: Path) -> None:
    coco_at(folder / "one")
    coco_at(folder / "one" / "out")


def yolo_in_coco(folder: Path) -> None:
    coco_at(folder / "one")
    yolo(folder / "out", {})


def differing(folder: Path) -> None:
    voc(folder)
    put(
        folder / "labels.csv",
        "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        + "".join(f"{i}.jpg,64,48,dog,1,1,60,40\n" for i in range(4)),
    )


def deep(folder: Path) -> None:
    coco(folder)
    for _ in range(60):
        folder = folder / ("d" * 60)
        os.mkdir(folder)


case("empty", "an empty folder", lambda folder: None, audit=refused("is no dataset", "no file at all"))
case(
    "pictures-alone",
    "pictures without labels",
    lambda folder: [picture(folder / f"{i}.jpg") for i in range(3)],
    audit=refused("These are images without labels"),
)
case(
    "archive",
    "an archive that is not unpacked",
    lambda folder: put(folder / "data.zip", b"PK\3\4"),
    audit=refused("Unpack the archive first"),
)
case(
    "two-datasets",
    "two data sets side by side",
    two,
    audit=refused("several COCO files cannot be told apart: one/labels.json, two/labels.json"),
)
case(
    "dataset-in-dataset",
    "a data set in a data set's folder",
    converted_into_itself,
    audit=refused("several COCO files cannot be told apart"),
)
case(
    "yolo-in-coco",
    "a YOLO data set in a COCO data set's folder",
    yolo_in_coco,
    audit=refused("of their own", "--format coco", "source/out"),
    also={"audit {source} --format coco": right("0 fatal")},
)
case(
    "two-formats",
    "two formats that do not say the same",
    differing,
    audit=refused("they differ", "on the command line --format"),
)
case("links-in-circles", "links that lead back up", loop, audit=right("0 fatal"))
case("link-to-kernel", "a link to /proc", linked_kernel, audit=found("made up by the kernel"), convert=CLOSED)
case("deep", "60 folders within one another", deep, audit=right("0 fatal"))
case(
    "train-empty",
    "a train folder that is empty",
    lambda folder: yolo(folder, {f"images/train/{i}.jpg": None for i in range(8)}),
    audit=found("there is no image in"),
    convert=lost("split without images"),
)
case(
    "val-empty",
    "a val folder that is empty",
    lambda folder: yolo(folder, {f"images/val/{i}.jpg": None for i in range(8, 12)}),
    audit=right("there is no image in", "taken from train"),
)
case(
    "labels-folder-alone",
    "label files without any picture",
    lambda folder: put(folder / "labels/0.txt", LINE),
    audit=refused("is no dataset"),
)
for place in ("/proc", "/proc/self", "/sys"):
    add(
        "folders",
        f"kernel{place.replace('/', '-')}",
        f"{place} in place of a data set",
        {
            f"audit {place}": refused("made up by the kernel"),
            f"convert {place} {{target}} --to coco": refused("made up by"),
        },
        seconds=20,
    )
