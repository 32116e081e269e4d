"""What a detector found as other tools' files: read back by whoever reads them."""

from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image

from odkit.data import Dataset, Predictions
from odkit.data.formats import load_dataset, write_predictions
from odkit.data.formats.results import RESULTS
from odkit.system import FileInTheWayError, InputError

NAMES = ("cat", "guinea pig")


def found_in(folder: Path) -> Predictions:
    """Three boxes in three pictures, the last of them a frame without a file of its own."""
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.jpg"):
        Image.new("RGB", (80, 40)).save(folder / name)
    return Predictions(
        boxes=[[8, 4, 24, 20.5], [1, 2, 3, 4], [0, 0, 79.25, 40]],
        scores=[0.875, 0.25, 0.5],
        classes=[1, 0, 1],
        images=[0, 0, 2],
        class_names=NAMES,
        image_ids=("a.png", "deep/b.jpg", "clip-000003"),
        image_sizes=[(80, 40)] * 3,
        image_paths=(str(folder / "a.png"), str(folder / "deep/b.jpg"), ""),
    )


def test_every_format_says_the_same(tmp_path: Path) -> None:
    found = found_in(tmp_path / "in")
    out = write_predictions(found, tmp_path / "out", list(RESULTS))
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [
            "results.json",
            "images.json",
            "labels",
            "classes.txt",
            "Annotations",
            "predictions.csv",
            "predictions.json",
        ]
    )
    # Ultralytics' layout
    assert (
        out / "labels/a.txt"
    ).read_text() == "1 0.2 0.30625 0.2 0.4125 0.875\n0 0.025 0.075 0.025 0.05 0.25\n"
    assert (out / "labels/deep/b.txt").read_text() == ""
    assert (out / "labels/clip-000003.txt").read_text().startswith("1 ")
    assert (out / "classes.txt").read_text().splitlines() == list(NAMES)
    assert "<confidence>0.875</confidence>" in (out / "Annotations/a.xml").read_text()
    rows = orjson.loads((out / "predictions.json").read_bytes())
    assert [row["image"] for row in rows] == [*found.image_paths[:2], "clip-000003"]
    assert rows[0]["objects"][0] == {"class": "guinea pig", "score": 0.875, "box": [8.0, 4.0, 24.0, 20.5]}
    assert (out / "predictions.csv").read_text().splitlines()[1:] == [
        "a.png,80,40,guinea pig,8,4,24,20.5,0.875",
        "a.png,80,40,cat,1,2,3,4,0.25",
        "deep/b.jpg,80,40,,,,,,",
        "clip-000003,80,40,guinea pig,0,0,79.25,40,0.5",
    ]


def test_pycocotools_reads_the_results(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    found = found_in(tmp_path / "in")
    out = write_predictions(found, tmp_path / "out", "coco")
    results = COCO(out / "images.json").loadRes(str(out / "results.json"))
    (third,) = results.loadAnns(results.getAnnIds(imgIds=[3]))
    assert (third["bbox"], third["score"], third["category_id"]) == ([0, 0, 79.25, 40], 0.5, 2)
    assert results.loadImgs([3])[0]["file_name"] == "clip-000003"


@pytest.mark.parametrize("kind", ["csv", "voc"])
def test_our_own_readers_read_them(tmp_path: Path, kind: str) -> None:
    found = found_in(tmp_path / "in").select([0, 1])
    out = write_predictions(found, tmp_path / "out", kind)
    dataset = load_dataset(out, format=kind, val=0)
    names = np.array(dataset.class_names)[dataset.box_classes]
    read = sorted(zip(names, dataset.boxes.tolist(), strict=True))
    assert read == [("cat", [1, 2, 3, 4]), ("guinea pig", [8, 4, 24, 20.5])]


def test_nothing_that_is_there_is_replaced(tmp_path: Path) -> None:
    found = found_in(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_text("mine")
    with pytest.raises(FileInTheWayError, match=r"predictions\.csv is there already"):
        write_predictions(found, tmp_path / "out", ["json", "csv"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.csv"]
    with pytest.raises(ValueError, match="did you mean 'yolo'"):
        write_predictions(found, tmp_path / "out", "yolo5")


def test_predictions_without_sizes_want_their_dataset(tmp_path: Path) -> None:
    found = found_in(tmp_path / "in")
    bare = Predictions(
        boxes=found.boxes,
        scores=found.scores,
        classes=found.classes,
        images=found.images,
        class_names=NAMES,
        image_ids=found.image_ids,
    )
    with pytest.raises(InputError, match="give the dataset"):
        write_predictions(bare, tmp_path / "out")
    dataset: Dataset = found.dataset()
    write_predictions(bare, tmp_path / "out", dataset=dataset)
    write_predictions(found, tmp_path / "other")
    assert (tmp_path / "out/results.json").read_bytes() == (tmp_path / "other/results.json").read_bytes()


def test_ids_lead_nowhere_else(tmp_path: Path) -> None:
    found = found_in(tmp_path / "in")
    odd = Predictions(
        boxes=[[0, 0, 1, 1]],
        scores=[1],
        classes=[0],
        images=[0],
        class_names=("a\nb",),
        image_ids=("../../x.jpg",),
        image_sizes=[(4, 4)],
        image_paths=("",),
    )
    out = write_predictions(odd, tmp_path / "deep" / "out", ["yolo", "voc"])
    assert (out / "labels" / "x.txt").exists()
    assert (out / "classes.txt").read_text() == "a b\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "in"]
    assert len(found) == 3
