"""CVAT, CreateML, Label Studio, LabelMe, KITTI, Open Images and TFRecord: what is not as their tools write it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.data.formats.record_writer import detection, example, frame, write_records
from tests.hostile.cases import dataset_case, found, lost, refused, right
from tests.hostile.coco import picture
from tests.hostile.yolo import LACKS, put

LOST = lost("label")


def case(name: str, what: str, make: Callable[[Path], object] | Mapping[str, Any], **expected: Any) -> None:
    """A case of four pictures, and what is made beside them: files by their names, or by a function."""

    def both(folder: Path) -> None:
        for i in range(4):
            picture(folder / f"{i}.jpg", seed=i)
        if callable(make):
            make(folder)
            return
        for path, content in make.items():
            put(folder / path, content if isinstance(content, str | bytes) else json.dumps(content))

    dataset_case("newer", name, what, both, **expected)


# -- CVAT ------------------------------------------------------------------------------------------------------------


def cvat(shape: str = "", last: str = "3.jpg", head: str = "") -> dict[str, str]:
    """A box in each picture, and one more shape in the last."""
    box = '<box label="cat" xtl="4" ytl="4" xbr="24" ybr="20"/>'
    images = "".join(f'<image id="{i}" name="{i}.jpg" width="64" height="48">{box}</image>' for i in range(3))
    end = f'<image id="3" name="{last}" width="64" height="48">{box}{shape}</image>'
    label = "<meta><task><labels><label><name>cat</name></label></labels></task></meta>"
    return {"annotations.xml": f"{head}<annotations><version>1.1</version>{label}{images}{end}</annotations>"}


def box(label: str = "cat", **corners: str) -> str:
    given = {"xtl": "30", "ytl": "4", "xbr": "60", "ybr": "20"} | corners
    return f'<box label="{label}" {" ".join(f"{key}={json.dumps(value)}" for key, value in given.items())}/>'


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
case("cvat-good", "CVAT: nothing wrong", cvat(box()), audit=right("0 fatal", "5 boxes"))
case(
    "cvat-no-number",
    "CVAT: a corner in words",
    cvat(box(xtl="left")),
    audit=found("has no box of four numbers"),
    convert=LOST,
)
case(
    "cvat-nan",
    "CVAT: a corner that is nan",
    cvat(box(xtl="nan")),
    audit=found("has no box of four numbers"),
    convert=LOST,
)
case(
    "cvat-corner-missing",
    "CVAT: a box of three corners",
    cvat('<box label="cat" xtl="1" ytl="2" xbr="3"/>'),
    audit=found("has no box of four numbers"),
    convert=LOST,
)
case(
    "cvat-no-label",
    "CVAT: a box without a label",
    cvat(box("")),
    audit=found("has a box and no class"),
    convert=lost("unknown class"),
)
case(
    "cvat-polygon-of-nothing",
    "CVAT: a polygon without points",
    cvat('<polygon label="cat" points=""/>'),
    audit=found("has no box of four numbers"),
    convert=LOST,
)
case(
    "cvat-outside",
    "CVAT: an image outside the folder",
    cvat(last="../../etc/passwd.jpg"),
    audit=found("outside"),
    convert=LOST,
)
case(
    "cvat-entities",
    "CVAT: entities that unpack without end",
    cvat(head=BOMB),
    audit=refused("declares a DOCTYPE or entities"),
)
case(
    "cvat-cut",
    "CVAT: a file that ends in the middle",
    {"annotations.xml": cvat()["annotations.xml"][:300]},
    audit=refused("it is no XML"),
)
case(
    "cvat-video",
    "CVAT: its format for videos",
    {"annotations.xml": '<annotations><track id="0" label="cat"/></annotations>'},
    audit=refused("format for videos"),
)
case(
    "cvat-deep",
    "CVAT: elements nested 100,000 deep",
    cvat("<a>" * 100_000 + "</a>" * 100_000),
    audit=right("0 fatal", "4 boxes"),
)

# -- CreateML, Label Studio, LabelMe ---------------------------------------------------------------------------------


def createml(annotation: Any, last: Any = "3.jpg") -> dict[str, Any]:
    good = {"label": "cat", "coordinates": {"x": 14, "y": 12, "width": 20, "height": 16}}
    images = [{"image": f"{i}.jpg", "annotations": [good]} for i in range(3)]
    return {"_annotations.createml.json": [*images, {"image": last, "annotations": annotation}]}


def labelstudio(result: Any, **task: Any) -> dict[str, Any]:
    value = {"x": 10, "y": 10, "width": 40, "height": 40, "rectanglelabels": ["cat"]}
    good = {"type": "rectanglelabels", "original_width": 64, "original_height": 48, "value": value}
    tasks = [{"id": i, "data": {"image": f"{i}.jpg"}, "annotations": [{"result": [good]}]} for i in range(3)]
    last = {
        "id": 3,
        "data": {"image": "3.jpg"},
        "annotations": [{"result": [{**good, "value": result}]}],
        **task,
    }
    return {"export.json": [*tasks, last]}


def labelme(**last: Any) -> dict[str, Any]:
    shape = {"label": "cat", "shape_type": "rectangle", "points": [[4, 4], [24, 20]]}
    page = {"imageHeight": 48, "imageWidth": 64, "shapes": [shape]}
    return {f"{i}.json": {**page, "imagePath": f"{i}.jpg", **(last if i == 3 else {})} for i in range(4)}


case("createml-good", "CreateML: nothing wrong", createml([]), audit=right("0 fatal"))
case(
    "createml-text",
    "CreateML: annotations that are a text",
    createml("cat"),
    audit=found("not a list"),
    convert=LOST,
)
case(
    "createml-null",
    "CreateML: an annotation that is null",
    createml([None]),
    audit=found("has no box of four numbers"),
    convert=LOST,
)
case(
    "createml-huge",
    "CreateML: a coordinate of 400 digits",
    createml([{"label": "cat", "coordinates": {"x": 10**400, "y": 1, "width": 2, "height": 3}}]),
    audit=found("has no box of four numbers"),
    convert=LOST,
)
case(
    "createml-no-name",
    "CreateML: an image whose name is a number",
    createml([], 7),
    audit=found("names no image"),
    convert=LOST,
)
case(
    "labelstudio-good",
    "Label Studio: nothing wrong",
    labelstudio({"x": 50, "y": 50, "width": 40, "height": 40, "rectanglelabels": ["bird"]}),
    audit=right("0 fatal", "4 boxes"),
)
case(
    "labelstudio-words",
    "Label Studio: a side in words",
    labelstudio({"x": "left", "y": 1, "width": 2, "height": 3, "rectanglelabels": ["cat"]}),
    audit=found("has no box of four numbers"),
    convert=LOST,
)
case(
    "labelstudio-no-class",
    "Label Studio: a box without a class",
    labelstudio({"x": 50, "y": 50, "width": 40, "height": 40}),
    audit=found("has a box and no class"),
    convert=lost("unknown class"),
)
case(
    "labelstudio-not-done",
    "Label Studio: a task that nobody has labelled",
    labelstudio({}, annotations=[]),
    audit=right("task that nobody has labelled"),
)
case(
    "labelstudio-other-machine",
    "Label Studio: an address that leads elsewhere",
    labelstudio(
        {"x": 50, "y": 50, "width": 40, "height": 40, "rectanglelabels": ["cat"]},
        data={"image": "file:///etc/passwd"},
    ),
    audit=found("there is no image of that name"),
    convert=LACKS,
)
case("labelme-good", "LabelMe: nothing wrong", labelme(), audit=right("0 fatal", "4 boxes"))
case(
    "labelme-shapes-null",
    "LabelMe: shapes that are null",
    labelme(shapes=None),
    audit=found('no list of "shapes"'),
    convert=LOST,
)
case(
    "labelme-points-odd",
    "LabelMe: a point of three numbers",
    labelme(shapes=[{"label": "cat", "shape_type": "rectangle", "points": [[1, 2, 3], [4, 5, 6]]}]),
    audit=found("has no box of four numbers"),
    convert=LOST,
)
case(
    "labelme-cut",
    "LabelMe: a file that ends in the middle",
    {**labelme(), "3.json": '{"shapes": [{"label": "cat", "points": [[1, 2], [3'},
    audit=found("is no JSON"),
    convert=LOST,
)
case(
    "labelme-outside",
    "LabelMe: a path out of the folder, and no picture of that name",
    {**labelme(), "9.json": {"shapes": [], "imagePath": "../../etc/passwd.jpg"}},
    audit=found("outside"),
    convert=LOST,
)

# -- KITTI, Open Images ----------------------------------------------------------------------------------------------

KITTI = "Car 0 0 -1.5 4 4 24 20 1 1 1 0 0 10 0\n"


def kitti(last: str | bytes) -> dict[str, Any]:
    return {f"{i}.txt": last if i == 3 else KITTI for i in range(4)}


def openimages(row: str) -> dict[str, str]:
    rows = "".join(f"{i},xclick,/m/01yrx,1,0.1,0.5,0.2,0.6\n" for i in range(4))
    return {"boxes.csv": "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n" + rows + row + "\n"}


case("kitti-good", "KITTI: nothing wrong", kitti(KITTI), audit=right("0 fatal", "4 boxes"))
case(
    "kitti-short",
    "KITTI: a line that is cut short",
    kitti("Car 0 0 -1.5 4 4 24\n"),
    audit=found("is not a name and 14 numbers"),
    convert=LOST,
)
case(
    "kitti-nan",
    "KITTI: a corner that is nan",
    kitti(KITTI.replace("24", "nan")),
    audit=found("has no box of four numbers"),
    convert=LOST,
)
case(
    "kitti-zeros",
    "KITTI: a file of zero bytes",
    kitti(b"\0" * 4096),
    audit=found("is not a name and 14 numbers"),
    convert=LOST,
)
case("openimages-good", "Open Images: nothing wrong", openimages(""), audit=right("0 fatal", "4 boxes"))
case(
    "openimages-short",
    "Open Images: a row that is cut short",
    openimages("3,xclick,/m/01yrx,1,0.1"),
    audit=found("has 5 cells, not 8"),
    convert=LOST,
)
case(
    "openimages-words",
    "Open Images: a corner in words",
    openimages("3,xclick,/m/01yrx,1,left,0.9,0.2,0.6"),
    audit=found("has no box of four numbers"),
    convert=LOST,
)
case(
    "openimages-outside",
    "Open Images: an id that climbs out",
    openimages("../../etc/passwd,xclick,/m/01yrx,1,0.1,0.9,0.2,0.6"),
    audit=found("outside"),
    convert=LOST,
)
case(
    "openimages-not-there",
    "Open Images: an image that is not there",
    openimages("abcdef,xclick,/m/01yrx,1,0.1,0.9,0.2,0.6"),
    audit=right("images that are not there"),
)

# -- TFRecord --------------------------------------------------------------------------------------------------------


def records(spoil: Callable[[bytes], bytes] = bytes, **more: Any) -> Callable[[Path], None]:
    """Four records; the file's bytes are spoiled, or keys of the last record replaced."""

    def make(folder: Path) -> None:
        pictures = [folder / f"{i}.jpg" for i in range(4)]
        features = [detection(file, (64, 48), [("cat", [4, 4, 24, 20])], names=["cat"]) for file in pictures]
        features[3] |= {key.replace("__", "/"): values for key, values in more.items()}
        path = write_records(folder / "train.record", features)
        for file in pictures:
            file.unlink()
        path.write_bytes(spoil(path.read_bytes()))

    return make


case("tfrecord-good", "TFRecord: nothing wrong", records(), audit=right("0 fatal", "4 boxes"))
case(
    "tfrecord-empty",
    "TFRecord: an empty file",
    records(lambda data: b""),
    audit=refused("its labels name no image"),
)
case(
    "tfrecord-cut",
    "TFRecord: a file that ends in the middle of a record",
    records(lambda data: data[:-100]),
    audit=found("the file ends after"),
    convert=LOST,
)
case(
    "tfrecord-bit",
    "TFRecord: a bit turned over in the last record",
    records(lambda data: data[:-60] + bytes([data[-60] ^ 1]) + data[-59:]),
    audit=found("the checksum of its data is wrong"),
    convert=LOST,
)
case(
    "tfrecord-length",
    "TFRecord: a record of 2**60 bytes",
    records(lambda data: data + frame(b"x")[:0] + (2**60).to_bytes(8, "little") + b"\0" * 4),
    audit=found("the checksum of its length is wrong"),
    convert=LOST,
)
case(
    "tfrecord-no-example",
    "TFRecord: a record that is no Example",
    records(lambda data: data + frame(b"hello, world")),
    audit=found("no tf.train.Example"),
    convert=LOST,
)
case(
    "tfrecord-other-example",
    "TFRecord: an Example of something else",
    records(lambda data: data + frame(example({"text": ["hello"]}))),
    audit=found("holds none of the keys"),
    convert=LOST,
)
case(
    "tfrecord-corners-differ",
    "TFRecord: two left corners and one right",
    records(image__object__bbox__xmin=[0.1, 0.2]),
    audit=found("its boxes are no boxes"),
    convert=LOST,
)
case(
    "tfrecord-nan",
    "TFRecord: a corner that is nan",
    records(image__object__bbox__xmin=[float("nan")]),
    audit=found("has no box of four numbers"),
    convert=LOST,
)
case(
    "tfrecord-name-climbs",
    "TFRecord: a picture's name that climbs out",
    records(image__filename=["../../../../etc/cron.d/job"]),
    audit=right("0 fatal"),
)
case(
    "tfrecord-picture-none",
    "TFRecord: a picture that is none",
    records(image__encoded=[b"<svg onload=alert(1)>"]),
    audit=found("image that cannot be read"),
    convert=right("no picture that can be read"),
)
case(
    "tfrecord-words-for-numbers",
    "TFRecord: words where numbers belong",
    records(image__object__bbox__xmin=["left"]),
    audit=found("holds bytes where numbers belong"),
    convert=LOST,
)
case(
    "label-map-slip",
    "TFRecord: a label map with a slip",
    lambda folder: (records()(folder), put(folder / "map.pbtxt", "item { id: 1 name: 'cat'")),
    audit=right("is not closed"),
)
