"""What other tools found: COCO's results in the layouts that tools write, numbers that fit and numbers that do not."""

import contextlib
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import odkit as od
from odkit.data import Dataset, Predictions
from odkit.system import InputError

NAMES = {3: "cat", 7: "dog", 20: "bird"}  # COCO's ids have gaps
WIDTH, HEIGHT = 100, 80


def labels(images: int = 12, *, first_id: int = 900) -> dict[str, Any]:
    """A COCO label file: three boxes an image that do not overlap, every class in turn, ids that say nothing."""
    rng = np.random.default_rng(0)
    table = [
        {"id": first_id + 7 * k, "file_name": f"photo_{k:02d}.png", "width": WIDTH, "height": HEIGHT}
        for k in range(images)
    ]
    boxes = [
        {
            "id": 3 * k + n + 1,
            "image_id": first_id + 7 * k,
            "category_id": list(NAMES)[(k + n * n) % 3],
            "bbox": [float(33 * n + rng.integers(0, 6)), float(rng.integers(2, 30)), 22.0, 24.0 + k],
            "iscrowd": 0,
        }
        for k in range(images)
        for n in range(3)
    ]
    for box in boxes:
        box["area"] = box["bbox"][2] * box["bbox"][3]
    categories = [{"id": key, "name": name} for key, name in NAMES.items()]
    return {"images": table, "annotations": boxes, "categories": categories}


def results(truth: dict[str, Any], *, seed: int = 1) -> list[dict[str, Any]]:
    """What a fair detector finds: most boxes, a little off, a few of another class, and some where nothing is."""
    rng = np.random.default_rng(seed)
    rows = []
    for box in truth["annotations"]:
        if rng.random() < 0.1:
            continue
        category = box["category_id"] if rng.random() < 0.9 else int(rng.choice(list(NAMES)))
        bbox = (np.array(box["bbox"]) + rng.normal(0, 1.5, 4)).round(2).tolist()
        rows.append(
            {
                "image_id": box["image_id"],
                "category_id": category,
                "bbox": bbox,
                "score": round(rng.random(), 3),
            }
        )
        if rng.random() < 0.3:
            rows.append({**rows[-1], "bbox": [50.0, 60.0, 30.0, 15.0], "score": round(rng.random() / 2, 3)})
    return rows


def folder_of(truth: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for image in truth["images"]:
        Image.new("L", (WIDTH, HEIGHT)).save(folder / image["file_name"])
    (folder / "labels.json").write_text(json.dumps(truth))
    return folder


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    return labels()


@pytest.fixture(scope="module")
def found(truth: dict[str, Any]) -> list[dict[str, Any]]:
    return results(truth)


@pytest.fixture(scope="module")
def folder(truth: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(truth, tmp_path_factory.mktemp("made") / "photos")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return od.load_dataset(folder, val=0)


def same(one: Predictions, other: Predictions) -> None:
    for column in ("boxes", "scores", "images"):
        np.testing.assert_allclose(getattr(one, column), getattr(other, column), atol=1e-4)
    names = [[p.class_names[k] for k in p.classes.tolist()] for p in (one, other)]
    assert names[0] == names[1]


def test_figures_are_pycocotools_of_the_same_files(
    folder: Path, dataset: Dataset, found: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The label file and the results as they lie there, by both."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = tmp_path / "results.json"
    path.write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO(str(folder / "labels.json"))
        engine = COCOeval(theirs, theirs.loadRes(str(path)), "bbox")
        engine.evaluate()
        engine.accumulate()
        engine.summarize()
    ours = od.evaluate(dataset, od.Predictions.from_coco(path, dataset))
    stats = np.where(engine.stats < 0, np.nan, engine.stats)
    np.testing.assert_allclose(list(ours.metrics.values()), stats, atol=1e-9)
    assert 0.2 < ours.ap < 0.9
    precision = engine.eval["precision"][..., 0, 2]  # [10, 101, K], classes by category id
    np.testing.assert_allclose(ours.precision, precision.swapaxes(1, 2), atol=1e-9)
    assert ours.notes == ()


def renumbered(rows: list[dict[str, Any]], **columns: Any) -> list[dict[str, Any]]:
    return [{**row, **{key: make(row) for key, make in columns.items()}} for row in rows]


STEMS = {900 + 7 * k: f"photo_{k:02d}" for k in range(12)}
BY_NAME = {"file_name": lambda row: f"some/where/{STEMS[row['image_id']]}.png"}


def without(row: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys}


def columns_an_image(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As torchvision's detectors answer, and as torchmetrics' MeanAveragePrecision takes it."""
    parts = {image: [row for row in rows if row["image_id"] == image] for image in STEMS}
    return [
        {
            "boxes": np.array([[x, y, x + w, y + h] for x, y, w, h in (r["bbox"] for r in part)]),
            "scores": np.array([r["score"] for r in part]),
            "labels": np.array([r["category_id"] for r in part], np.int64),
        }
        for part in parts.values()
    ]


LAYOUTS = {
    "a list under a key": lambda rows: {"info": {}, "annotations": rows},
    "predictions": lambda rows: {"predictions": rows},
    # detectron2's COCOEvaluator collects them so, an image at a time
    "a list an image": lambda rows: [
        {"image_id": image, "instances": [row for row in rows if row["image_id"] == image]} for image in STEMS
    ],
    "text for numbers": lambda rows: renumbered(
        rows, image_id=lambda r: str(r["image_id"]), score=lambda r: str(r["score"])
    ),
    "names of classes": lambda rows: renumbered(rows, category_id=lambda r: NAMES[r["category_id"]]),
    # Ultralytics' validator, save_json=True: the stem of the image's file for its id, and lately its name as well
    "ids that are stems": lambda rows: renumbered(rows, image_id=lambda r: STEMS[r["image_id"]]),
    "file names beside other ids": lambda rows: renumbered(rows, image_id=lambda _: 5, **BY_NAME),
    "a mask in place of a box": lambda rows: [
        {
            **without(r, "bbox"),
            "segmentation": [
                [*(x, y), *(x + w, y), *(x + w, y + h), *(x, y + h)]
                for x, y, w, h in [r["bbox"]]
            ],
        }
        for r in rows
    ],
    "shares of the image": lambda rows: renumbered(
        rows, bbox=lambda r: (np.array(r["bbox"]) / [WIDTH, HEIGHT, WIDTH, HEIGHT]).tolist()
    ),
    "columns an image": columns_an_image,
    "our own predict": lambda rows: [
        {
            "image": f"{STEMS[image]}.png",
            "objects": [
                {"class": NAMES[r["category_id"]], "score": r["score"], "box": [x, y, x + w, y + h]}
                for r in rows
                if r["image_id"] == image
                for x, y, w, h in [r["bbox"]]
            ],
        }
        for image in STEMS
    ],
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_tools_write(layout: str, dataset: Dataset, found: list[dict[str, Any]]) -> None:
    plain = od.Predictions.from_coco(found, dataset)
    assert len(plain) == len(found)
    same(od.Predictions.from_coco(LAYOUTS[layout](found), dataset), plain)


# What FiftyOne 1.22.1 exported as COCODetectionDataset from a field of predictions, to the letter.
FIFTYONE = """
{"info": {"year": "","version": "","contributor": "","url": "https://voxel51.com/fiftyone","date_created":
"2026-11-29T01:02:20"},"licenses": [],"categories": [{"id": 1,"name": "cat","supercategory": null},{"id": 2,"name":
"dog","supercategory": null}],"images": [{"id": 1,"file_name": "a.png","height": 80,"width": 100,"license": null,
"coco_url": null},{"id": 2,"file_name": "b.png","height": 80,"width": 100,"license": null,"coco_url": null},{"id":
3,"file_name": "c.png","height": 80,"width": 100,"license": null,"coco_url": null}],"annotations": [{"id": 1,
"image_id": 1,"category_id": 1,"bbox": [10.0,8.0,40.0,40.0],"score": 0.92,"area": 1600.0,"iscrowd": 0},{"id": 2,
"image_id": 1,"category_id": 2,"bbox": [55.00000000000001,16.0,30.0,48.0],"score": 0.35,"area": 1440.0,"iscrowd":
0},{"id": 3,"image_id": 2,"category_id": 2,"bbox": [20.0,20.0,50.0,40.0],"score": 0.81,"area": 2000.0,"iscrowd": 0}]}
"""


def test_a_recorded_export_of_fiftyone(tmp_path: Path) -> None:
    """It brings its own tables of images and categories, which agree with nobody's."""
    (tmp_path / "results.json").write_text(FIFTYONE)
    dataset = Dataset(
        root="/made",
        class_names=("dog", "cat"),
        image_paths=[f"/made/{name}.png" for name in "cab"],
        image_sizes=[(100, 80)] * 3,
        boxes=[[10, 8, 50, 48], [20, 20, 70, 61]],
        box_classes=[1, 0],
        box_images=[1, 2],
    )
    found = od.Predictions.from_coco(tmp_path / "results.json", dataset)
    assert [found.class_names[k] for k in found.classes] == ["cat", "dog", "dog"]
    assert found.images.tolist() == [1, 1, 2]
    np.testing.assert_allclose(found.boxes[1], [55, 16, 85, 64])
    assert od.evaluate(dataset, found).ap50 == pytest.approx(1)
    assert found.notes == ()


# -- numbers that do not fit -----------------------------------------------------------------------------------------

ORDER = list(NAMES)
WRONG = {
    "classes counted from 0": (
        lambda rows: renumbered(rows, category_id=lambda r: ORDER.index(r["category_id"])),
        r"category ids .* do not fit .*; counted from 0 \(0 is 'cat'\), .*category_ids='from-0'",
        {"category_ids": "from-0"},
    ),
    "classes counted from 1": (
        lambda rows: renumbered(rows, category_id=lambda r: ORDER.index(r["category_id"]) + 1),
        r"read as the label file's, .*counted from 1 \(1 is 'cat'\).*--category-ids from-1",
        {"category_ids": "from-1"},
    ),
    "classes in another order": (
        lambda rows: renumbered(rows, category_id=lambda r: ORDER[ORDER.index(r["category_id"]) - 1]),
        r"of a table in another order, it seems: .*'20': 'cat'",
        {"category_ids": {20: "cat", 3: "dog", 7: "bird"}},
    ),
    "images by their place": (
        lambda rows: renumbered(rows, image_id=lambda r: (r["image_id"] - 900) // 7),
        r"none of the \d+ rows of the results is of an image of photos: they speak of 0, 1, .*--image-ids labels",
        {"image_ids": "from-0"},
    ),
    "corners for sizes": (
        lambda rows: renumbered(rows, bbox=lambda r: [*r["bbox"][:2], *np.add(r["bbox"][:2], r["bbox"][2:])]),
        r"the boxes of the results are left, top, right, bottom, it seems",
        None,
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_numbers_that_mean_something_else_are_refused_and_taken_when_said(
    fault: str, dataset: Dataset, found: list[dict[str, Any]]
) -> None:
    change, message, options = WRONG[fault]
    rows = change(found)
    with pytest.raises(ValueError, match=message):
        od.Predictions.from_coco(rows, dataset)
    if options:
        same(od.Predictions.from_coco(rows, dataset, **options), od.Predictions.from_coco(found, dataset))


def test_images_counted_from_0_where_ids_count_from_1_are_refused(tmp_path: Path) -> None:
    """The classic: an index in place of an id, and each image is judged by its neighbour's boxes."""
    truth = labels()
    for table, key in (("images", "id"), ("annotations", "image_id")):
        for row in truth[table]:
            row[key] = (row[key] - 900) // 7 + 1
    dataset = od.load_dataset(folder_of(truth, tmp_path / "photos"), val=0)
    rows = renumbered(results(truth), image_id=lambda r: r["image_id"] - 1)
    # the boxes are alike from image to image here, so put each image's elsewhere
    shift = np.repeat(np.arange(12) * 6.0, 3)[:, None]
    dataset = dataset.replace(boxes=dataset.boxes + np.hstack([shift, shift, shift, shift]))
    for row in rows:
        move = 6.0 * row["image_id"]
        row["bbox"] = [row["bbox"][0] + move, row["bbox"][1] + move, *row["bbox"][2:]]
    with pytest.raises(
        ValueError, match=r"image ids .*counted from 0 in the label file's order.*--image-ids from-0"
    ):
        od.Predictions.from_coco(rows, dataset)
    assert od.evaluate(dataset, od.Predictions.from_coco(rows, dataset, image_ids="from-0")).ap50 > 0.5


def test_coco_s_own_91_numbers_on_a_table_of_80(tmp_path: Path) -> None:
    ids = [k for k in range(1, 91) if k not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    truth = labels(30)
    truth["categories"] = [{"id": k, "name": f"class {k}"} for k in range(80)]
    for k, box in enumerate(truth["annotations"]):
        box["category_id"] = (k * 7) % 80
    dataset = od.load_dataset(folder_of(truth, tmp_path / "photos"), val=0)
    rows = [{**without(box, "id", "area", "iscrowd"), "score": 0.5} for box in truth["annotations"]]
    rows = renumbered(rows, category_id=lambda r: ids[r["category_id"]])
    with pytest.raises(ValueError, match=r"read as COCO's own \(1 to 90\), 90 of 90 boxes found"):
        od.Predictions.from_coco(rows, dataset)
    found = od.Predictions.from_coco(rows, dataset, category_ids="coco-91")
    assert od.evaluate(dataset, found).ap == 1


@pytest.fixture
def voc(dataset: Dataset, tmp_path: Path) -> Dataset:
    """The same data in a format that has no ids."""
    return od.load_dataset(od.write_dataset(dataset, tmp_path / "voc", "voc"), val=0)


def test_a_dataset_without_ids(
    voc: Dataset, dataset: Dataset, folder: Path, found: list[dict[str, Any]]
) -> None:
    assert voc.source_ids.images == {}
    plain = od.Predictions.from_coco(found, dataset)
    with pytest.raises(ValueError, match=r"none of the .* \(its format has no image ids\).*--ids-from"):
        od.Predictions.from_coco(found, voc)
    same(od.Predictions.from_coco(found, voc, ids_from=folder / "labels.json"), plain)
    place = list(voc.class_names)
    for start in (0, 1):
        rows = renumbered(
            found,
            image_id=lambda r: STEMS[r["image_id"]],
            category_id=lambda r, start=start: place.index(NAMES[r["category_id"]]) + start,
        )
        read = od.Predictions.from_coco(rows, voc)
        same(read, plain)
        assert f"counted from {start} ({start} is 'cat')" in read.notes[0]
    with pytest.raises(ValueError, match="of a table in another order"):
        od.Predictions.from_coco(
            renumbered(
                found,
                image_id=lambda r: STEMS[r["image_id"]],
                category_id=lambda r: (ORDER.index(r["category_id"]) + 1) % 3,
            ),
            voc,
        )
    hopeless = [{"image_id": "photo_00", "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}]
    with pytest.raises(ValueError, match=r"may be read in 2 ways: .*0 of 0 boxes found"):
        od.Predictions.from_coco(hopeless, voc)
    assert od.Predictions.from_coco(hopeless, voc, category_ids="from-1").class_names[0] == "cat"


# -- what is left out, and said --------------------------------------------------------------------------------------

ROW = {"image_id": 900, "category_id": 3, "bbox": [0.0, 4.0, 20.0, 24.0], "score": 0.9}
ODD_ROWS = {
    "1 row left out, as their image id is of no image that is known: 12345": {"image_id": 12345},
    "1 row left out, as their category id is of no class that is known: 99": {"category_id": 99},
    r"1 row without a box of four finite numbers, no side below 0, left out, the first is row 2 \(image 900\): None": {
        "bbox": None
    },
    r"1 row without a box of four .*: \[1, 2, nan, 4\]": {"bbox": [1, 2, float("nan"), 4]},
    r"1 row without a box of four .*: \[1, 2, 3\]": {"bbox": [1, 2, 3]},
    r"1 row without a box of four .*: \[5, 5, -3, 2\]": {"bbox": [5, 5, -3, 2]},
    "1 row without a score that is a finite number left out.*: None": {"score": None},
    "1 row without a score that is a finite number left out.*: nan": {"score": float("nan")},
}


@pytest.mark.parametrize("note", ODD_ROWS)
def test_rows_that_cannot_be_used_are_counted_and_named(note: str, dataset: Dataset) -> None:
    found = od.Predictions.from_coco([ROW, {**ROW, **ODD_ROWS[note]}], dataset)
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes, [[0, 4, 20, 28]])
    with pytest.raises(AssertionError):  # the plain row alone has no such note
        _holds(od.Predictions.from_coco([ROW], dataset).notes, note)
    _holds(found.notes, note)
    _holds(od.evaluate(dataset, found).notes, note)
    assert found.notes[0] in repr(found)


def test_results_without_a_single_good_row_are_refused(dataset: Dataset) -> None:
    rows = [{**ROW, "score": 1e40}, {**ROW, "bbox": [5, 5, -3, 2]}]
    with pytest.raises(
        ValueError, match=r"nothing in .* can be judged: 1 row without a box .*; 1 row without a score"
    ):
        od.Predictions.from_coco(rows, dataset)


def _holds(notes: tuple[str, ...], pattern: str) -> None:
    assert any(re.search(pattern, note) for note in notes), notes


def test_odd_scores_and_boxes_are_kept_and_said(dataset: Dataset) -> None:
    rows = [{**ROW, "score": 93.5}, {**ROW, "bbox": [300.0, 10.0, 5.0, 5.0], "score": 12}]
    found = od.Predictions.from_coco(rows, dataset)
    assert len(found) == 2
    _holds(found.notes, "scores from 12 to 93.5, not within 0 to 1")
    _holds(found.notes, "1 box wholly outside of the image, kept as COCO does")
    _holds(found.notes, "nothing was found in 11 of 12 images; their 33 boxes count as missed")


def test_results_of_more_images_than_are_judged(dataset: Dataset, found: list[dict[str, Any]]) -> None:
    part = dataset.select([3, 1])
    read = od.Predictions.from_coco(found, part)
    others = sum(r["image_id"] not in (907, 921) for r in found)
    assert len(read) == len(found) - others
    assert read.notes == (f"{others} rows of other images of the label file left aside",)
    again = od.evaluate(part, od.Predictions.from_coco(found, dataset))
    assert od.evaluate(part, read).metrics == pytest.approx(again.metrics, nan_ok=True)


def test_ids_outlive_saving_renaming_and_joining(
    dataset: Dataset, found: list[dict[str, Any]], tmp_path: Path
) -> None:
    plain = od.Predictions.from_coco(found, dataset)
    saved = Dataset.load(dataset.save(tmp_path / "data.npz"))
    same(od.Predictions.from_coco(found, saved), plain)
    renamed = dataset.with_classes({"cat": "pet", "dog": "pet"})
    read = od.Predictions.from_coco(found, renamed)
    names = {"cat": "pet", "dog": "pet", "bird": "bird"}
    assert [read.class_names[k] for k in read.classes] == [names[plain.class_names[k]] for k in plain.classes]
    dropped = od.evaluate(dataset.with_classes(["dog", "bird"]), od.Predictions.from_coco(found, dataset))
    fewer = dataset.with_classes(["dog", "bird"])
    again = od.evaluate(fewer, od.Predictions.from_coco(found, fewer))
    assert again.metrics == pytest.approx(dropped.metrics, nan_ok=True)
    _holds(again.notes, "The dataset does not have 'cat'")
    halves = {"train": dataset.select(range(6)), "val": dataset.select(range(6, 12))}
    same(od.Predictions.from_coco(found, od.concatenate(halves)), plain)


def test_ids_of_two_splits_that_both_count_from_1(tmp_path: Path) -> None:
    for split in ("train", "val"):
        truth = labels(4, first_id=1)
        for image in truth["images"]:
            image["file_name"] = f"{split}_{image['file_name']}"
        folder_of(truth, tmp_path / "photos")
        (tmp_path / "photos" / "labels.json").rename(tmp_path / "photos" / f"{split}.json")
    dataset = od.load_dataset(tmp_path / "photos")
    rows = results(labels(4, first_id=1))
    with pytest.raises(ValueError, match=r"none of the"):
        od.Predictions.from_coco(rows, dataset)
    found = od.Predictions.from_coco(rows, dataset.split("val"))
    assert len(found) == len(rows)
    assert od.evaluate(dataset.split("val"), found).ap > 0.2


NO_RESULTS = {
    "no row of the results has a score": [without(ROW, "score")],
    "holds no list of results, but the keys": {"hello": 1},
    "is no list of results, but 3": 3,
    "entry 2 of the list is 7, not a result": [ROW, 7],
    r"image_id, while photos has 12": [{"boxes": [], "scores": [], "labels": []}],
    "3 boxes, 0 scores and 0 labels": [
        {"image_id": 900, "boxes": np.zeros((3, 4)), "scores": [], "labels": []}
    ],
}


@pytest.mark.parametrize("message", NO_RESULTS)
def test_what_is_no_results(message: str, dataset: Dataset) -> None:
    with pytest.raises(InputError, match=message):
        od.Predictions.from_coco(NO_RESULTS[message], dataset)


def test_files_that_are_not_there_or_broken(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        od.Predictions.from_coco(tmp_path / "none.json", dataset)
    with pytest.raises(ValueError, match="is a folder"):
        od.Predictions.from_coco(tmp_path, dataset)
    (tmp_path / "cut.json").write_text('[{"image_id": 900, "categ')
    with pytest.raises(ValueError, match="it may be cut short"):
        od.Predictions.from_coco(tmp_path / "cut.json", dataset)
    with pytest.raises(ValueError, match="category_ids='from-2' must be one of labels, from-0"):
        od.Predictions.from_coco([ROW], dataset, category_ids="from-2")
    (tmp_path / "empty.json").write_text("[]")
    nothing = od.Predictions.from_coco(tmp_path / "empty.json", dataset)
    assert len(nothing) == 0
    assert od.evaluate(dataset, nothing).ap == 0


# -- supervision -----------------------------------------------------------------------------------------------------


def detections(rows: list[dict[str, Any]], *, named: bool = False) -> SimpleNamespace:
    """What `supervision.Detections` holds (xyxy, confidence, class_id, data)."""
    boxes = np.array([r["bbox"] for r in rows], np.float64).reshape(-1, 4)
    return SimpleNamespace(
        xyxy=np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]),
        confidence=np.array([r["score"] for r in rows]),
        class_id=np.array([ORDER.index(r["category_id"]) for r in rows]),
        data={"class_name": np.array([NAMES[r["category_id"]] for r in rows])} if named else {},
    )


@pytest.mark.parametrize("named", [True, False])
def test_detections_of_supervision(named: bool, dataset: Dataset, found: list[dict[str, Any]]) -> None:
    parts = [detections([r for r in found if r["image_id"] == i], named=named) for i in STEMS]
    plain = od.Predictions.from_coco(found, dataset)
    same(od.Predictions.from_supervision(parts, dataset), plain)
    by_name = dict(zip([f"/elsewhere/{stem}.png" for stem in STEMS.values()], parts, strict=True))
    same(od.Predictions.from_supervision(by_name, dataset), plain)
    alone = od.Predictions.from_supervision(parts, class_names=list(NAMES.values()))
    same(alone, plain)
    assert alone.image_ids == ()
    assert len(od.Predictions.from_supervision(parts[0], dataset.select([0]))) == len(parts[0].xyxy)


def test_detections_that_lack_something(dataset: Dataset, found: list[dict[str, Any]]) -> None:
    one = detections(found[:2])
    for change, message in (
        ({"confidence": None}, "photo_00.png have no confidence"),
        ({"class_id": None}, "neither class_id nor data"),
        ({"class_id": np.array([0, 5])}, "class_id 5, and there are names for 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            od.Predictions.from_supervision(SimpleNamespace(**{**vars(one), **change}), dataset.select([0]))
    with pytest.raises(ValueError, match=r"detections of 1 image, and photos has 12"):
        od.Predictions.from_supervision(one, dataset)
    with pytest.raises(ValueError, match=r"no image of photos: 'nowhere.png'"):
        od.Predictions.from_supervision({"nowhere.png": one}, dataset)
