"""Predictions: what is refused, what comes back from disk, and what leaves as COCO results."""

import numpy as np
import pytest

from odkit.data.dataset import Dataset
from odkit.data.predictions import Predictions
from tests.helpers import extra

DATASET = Dataset(
    root="/made",
    class_names=("cat", "dog"),
    image_paths=["/made/a.jpg", "/made/b.jpg"],
    image_sizes=[(100, 100)] * 2,
    boxes=[[0, 0, 10, 10]],
    box_classes=[0],
    box_images=[0],
)


def make(**columns):
    plain = {
        "boxes": [[1, 2, 11, 22]],
        "scores": [0.5],
        "classes": [1],
        "images": [0],
        "class_names": ("cat", "dog"),
    }
    return Predictions(**{**plain, **columns})


def test_rows_are_sorted_by_image_and_keep_their_order_within():
    found = make(
        boxes=[[0, 0, k, k] for k in (1, 2, 3)], scores=[0.1, 0.2, 0.3], classes=[0, 1, 0], images=[1, 0, 1]
    )
    assert found.images.tolist() == [0, 1, 1]
    assert found.boxes[:, 2].tolist() == [2, 1, 3]
    assert found.of(1) == slice(1, 3)
    assert found.of(0) == slice(0, 1)
    assert found.of(7) == slice(3, 3)
    assert found.above(0.15).boxes[:, 2].tolist() == [2, 3]
    assert found.select([2, 0]).images.tolist() == [0, 1]
    assert found.boxes.dtype == np.float32
    assert found.classes.dtype == np.int32
    assert len(found) == 3


FAULTS = {
    "2 rows for 1 boxes": {"scores": [0.5, 0.6]},
    r"shape \[N, 4\], not \[1, 3\]": {"boxes": [[1, 2, 3]]},
    r"1 rows with a box that is not finite; the first is row 0: box \[nan, 2.0, 11.0, 22.0\]": {
        "boxes": [[np.nan, 2, 11, 22]]
    },
    "ends before it begins": {"boxes": [[11, 2, 1, 22]]},
    "score that is not finite": {"scores": [np.inf]},
    "class outside 0 to 1": {"classes": [2]},
    "negative image index": {"images": [-1]},
    "beyond its 1 image ids": {"images": [1], "image_ids": ("a.jpg",)},
    "class names must differ": {"class_names": ("cat", "cat")},
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_columns_are_refused(message):
    with pytest.raises(ValueError, match=message):
        make(**FAULTS[message])


def test_saving_and_loading_keeps_every_column(tmp_path):
    found = make(image_ids=("a.jpg", "ö/b.jpg"))
    again = Predictions.load(found.save(tmp_path / "sub" / "found.npz"))
    for column in ("boxes", "scores", "classes", "images"):
        np.testing.assert_array_equal(getattr(again, column), getattr(found, column))
    assert again.class_names == found.class_names
    assert again.image_ids == found.image_ids
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["found.npz"]
    other = tmp_path / "other.npz"
    np.savez(other, boxes=np.zeros(3))
    with pytest.raises(ValueError, match="does not hold predictions"):
        Predictions.load(other)


def test_images_are_kept_with_their_sizes_and_paths(tmp_path):
    about = {
        "image_ids": ("a.jpg", "b"),
        "image_sizes": [(40, 30), (9, 9)],
        "image_paths": ("/made/a.jpg", ""),
    }
    found = make(**about)
    again = Predictions.load(found.save(tmp_path / "found.npz"))
    assert again.image_sizes.tolist() == [[40, 30], [9, 9]]
    assert again.image_paths == found.image_paths
    assert again.above(0.9).dataset().image_ids.tolist() == ["a.jpg", "b"]
    assert found.to_coco()[0]["image_id"] == 1
    for wrong in ({"image_sizes": [(40, 30)]}, {"image_paths": ("/made/a.jpg",)}):
        with pytest.raises(ValueError, match="has 1 rows for 2 image ids"):
            make(**{**about, **wrong})
    with pytest.raises(ValueError, match="do not know their images"):
        make().dataset()


def test_lots_are_joined_and_no_image_stands_twice():
    one = make(image_ids=("a.jpg", "b.jpg"), image_sizes=[(4, 4)] * 2, image_paths=("", ""))
    other = make(image_ids=("c.jpg",), image_sizes=[(5, 5)], image_paths=("/c.jpg",))
    both = Predictions.joined([one, other])
    assert both.images.tolist() == [0, 2]
    assert both.image_sizes.tolist() == [[4, 4], [4, 4], [5, 5]]
    assert both.image_paths == ("", "", "/c.jpg")
    for wrong in ([], [one, one], [one, make(class_names=("cat", "cow"))]):
        with pytest.raises(ValueError, match=r"joined\(\) takes"):
            Predictions.joined(wrong)


def test_supervision_gets_one_image():
    supervision = extra("supervision")
    found = make(boxes=[[1, 2, 11, 22], [0, 0, 5, 5]], scores=[0.5, 0.75], classes=[1, 0], images=[0, 1])
    detections = found.to_supervision(1)
    assert isinstance(detections, supervision.Detections)
    assert detections.xyxy.tolist() == [[0, 0, 5, 5]]
    assert detections.confidence.tolist() == [0.75]
    assert detections.class_id.tolist() == [0]
    assert list(detections["class_name"]) == ["cat"]
    with pytest.raises(IndexError, match="no image 2"):
        found.to_supervision(2)
    assert len(make(boxes=[], scores=[], classes=[], images=[], image_ids=("a",)).to_supervision()) == 0


def test_without_supervision_it_is_said_what_to_type(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(RuntimeError, match="pip install 'supervision"):
        make().to_supervision()


def test_columns_from_one_result_an_image():
    found = Predictions.from_images(
        [([], [], []), ([[0, 0, 1, 1], [0, 0, 2, 2]], [0.9, 0.8], [1, 0])], ("cat", "dog"), ("a.jpg", "b.jpg")
    )
    assert found.images.tolist() == [1, 1]
    assert found.classes.tolist() == [1, 0]
    assert found.boxes.shape == (2, 4)
    assert len(Predictions.from_images([], ("cat",))) == 0
    with pytest.raises(ValueError, match="predictions of 1 images came with 2 image ids"):
        Predictions.from_images([([], [], [])], ("cat",), ("a", "b"))


def test_coco_results_count_from_one_and_name_the_file():
    rows = make(images=[1], classes=[0]).to_coco(DATASET)
    assert rows == [
        {"image_id": 2, "category_id": 1, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.5, "file_name": "b.jpg"}
    ]


def test_predictions_follow_their_images_into_another_selection():
    found = make(images=[1], image_ids=("a.jpg", "b.jpg"))
    assert found.for_dataset(DATASET.select([1, 0])).images.tolist() == [0]
    assert len(found.for_dataset(DATASET.select([0]))) == 0
    assert found.for_dataset(DATASET).image_ids == ("a.jpg", "b.jpg")


def test_classes_that_one_side_lacks_are_refused_or_left_out():
    found = make(
        boxes=[[0, 0, k, k] for k in (1, 2, 3)],
        scores=[0.1, 0.2, 0.3],
        classes=[0, 1, 2],
        images=[0, 0, 1],
        class_names=("cow", "dog", "horse"),
    )
    with pytest.raises(
        ValueError, match=r"only the predictions know 'cow', 'horse'; only the dataset has 'cat'"
    ):
        found.for_dataset(DATASET)
    with pytest.raises(ValueError, match="with_classes"):
        found.to_coco(DATASET)
    here = found.for_dataset(DATASET, same_classes=False)
    assert (here.class_names, here.classes.tolist(), here.scores.tolist()) == (
        ("cat", "dog"),
        [1],
        pytest.approx([0.2]),
    )
    none = make(scores=[], boxes=[], classes=[], images=[], class_names=("dog", "cow"))
    assert none.for_dataset(DATASET, same_classes=False).class_names == ("cat", "dog")
    with pytest.raises(ValueError, match="differ"):
        make(class_names=("cow", "horse")).for_dataset(DATASET, same_classes=False)
