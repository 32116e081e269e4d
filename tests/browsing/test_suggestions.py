"""What a person does in the App, as it comes back: edits of a dataset, suggestions accepted, corrected, rejected."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bson import ObjectId

import odkit as od
from odkit.browsing.browser import browse
from odkit.browsing.convert import from_fiftyone
from odkit.data import Dataset, Predictions
from odkit.data.formats import load_dataset, write_dataset
from odkit.runs import Prelabels
from tests.helpers import squares

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("fo")]


def draw(there: Any, image_id: str, field: str, **box: Any) -> None:
    """Add a box as the App does: with an id and what was given, and nothing else."""
    new = {"_cls": "Detection", "_id": ObjectId(), **box}
    there._sample_collection.update_one({"image_id": image_id}, {"$push": {f"{field}.detections": new}})
    sample = there.match({"image_id": image_id}).first()
    sample.reload()
    sample.save()  # so that it counts as modified


def test_edits_survive_the_trip_to_disk(dataset: Dataset, tmp_path: Path, fo: Any) -> None:
    browser = browse(dataset)
    there = browser.dataset
    assert browser.edits().fingerprint() == dataset.fingerprint()
    draw(there, "000.png", "ground_truth", label="green", bounding_box=[0.5, 0.5, 0.25, 0.25])
    draw(there, "001.png", "ground_truth", label="blue", bounding_box=[0.25, 0.5, 0.125, 0.25])
    there.delete_samples(there.match(fo.ViewField("image_id") == "002.png"))
    edits = browser.edits()
    assert (len(edits), edits.num_boxes) == (7, 16)
    assert any("in the App: boxes added: 2 (000.png, FiftyOne" in note for note in edits.notes)
    assert any("in the App: images removed: 1 (002.png)" in note for note in edits.notes)
    for kind in ("coco", "voc", "yolo"):
        back = load_dataset(write_dataset(edits, tmp_path / kind, kind), val=0)
        assert back.class_counts() == {"blue": 8, "red": 7, "green": 1}
        assert back.split_counts() == edits.split_counts()
        row = next(i for i in range(7) if back.image_ids[i].endswith("000.png"))
        boxes = back.boxes[back.boxes_of(row)]
        assert np.abs(boxes - [32, 32, 48, 48]).max(1).min() < 0.01
    # FiftyOne's own datasets come back as well
    assert browse(there).edits().num_boxes == 16


def test_what_was_browsed_before_there_was_annotating_can_be_annotated(dataset: Dataset) -> None:
    there = browse(dataset).dataset
    made = there.label_schemas
    draw(there, "000.png", "ground_truth", label="red", bounding_box=[0.5, 0.5, 0.25, 0.25])
    there.delete_label_schemas()
    again = browse(dataset)
    assert again.dataset.label_schemas == made
    assert again.dataset.active_label_schemas == ["ground_truth"]
    assert again.edits().num_boxes == 17, "what a person did stays"


def test_a_box_that_has_no_class_yet_is_told_by_the_audit(dataset: Dataset) -> None:
    bare = dataset.select_boxes([]).replace(class_names=())
    browser = browse(bare)
    assert browser.dataset.label_schemas["ground_truth"]["component"] == "text", "the first class is typed"
    draw(browser.dataset, "000.png", "ground_truth", bounding_box=[0.5, 0.5, 0.25, 0.25])
    edits = browser.edits()
    assert (edits.class_names, edits.box_classes.tolist()) == ((), [-1])
    assert "unknown_class" in {finding.kind for finding in od.audit(edits)}
    draw(browser.dataset, "000.png", "ground_truth", label="nut", bounding_box=[0.1, 0.1, 0.25, 0.25])
    assert browser.edits().class_counts() == {"nut": 1}
    browser.add_classes("bolt", "washer")
    assert browser.dataset.label_schemas["ground_truth"]["classes"] == ["bolt", "washer"]
    assert browser.edits().class_names == ("bolt", "washer", "nut")


@pytest.fixture
def prelabels(dataset: Dataset) -> Prelabels:
    """Every box found, with scores from 0.9 down; the last pictures the least sure."""
    pictures = dataset.select_boxes([]).replace(image_splits=np.full(8, "", object))
    found = Predictions(
        boxes=dataset.boxes,
        scores=np.linspace(0.9, 0.6, 16),
        classes=dataset.box_classes,
        images=dataset.box_images,
        class_names=dataset.class_names,
        image_ids=tuple(dataset.image_ids),
    )
    return Prelabels(
        pictures=pictures, suggestions=found, doubt=np.arange(8.0), score=0.5, reason="as asked for"
    )


def test_suggestions_are_labels_once_accepted(prelabels: Prelabels, dataset: Dataset, fo: Any) -> None:
    browser = browse(prelabels)
    there = browser.dataset
    assert browser.view.values("image_id") == [f"00{i}.png" for i in range(7, -1, -1)], "the least sure first"
    assert not browser.changes()
    with pytest.raises(ValueError, match="suggestions, which are no labels before a person accepts them"):
        od.from_fiftyone(browser)
    assert from_fiftyone(browser, field="suggestions").num_boxes == 16
    nothing = browser.edits()
    assert (len(nothing), nothing.class_names) == (0, ("blue", "red"))

    image_id = fo.ViewField("image_id")
    there.match(image_id.is_in(["000.png", "001.png", "003.png"])).tag_samples("accept")
    there.match(image_id.is_in(["002.png", "003.png"])).tag_samples("reject")
    box = there.match(image_id == "000.png").filter_labels("suggestions", fo.ViewField("label") == "red")
    box.tag_labels("reject", "suggestions")
    draw(there, "001.png", "suggestions", label="green", bounding_box=[0.5, 0.5, 0.25, 0.25])
    edits = browser.edits()
    assert list(edits.image_ids) == ["000.png", "001.png"], "what is rejected as well is not accepted"
    assert edits.class_counts() == {"blue": 2, "red": 1, "green": 1}
    assert np.abs(edits.boxes[0] - dataset.boxes[0]).max() < 0.01
    assert "accepted in the App: 2 of 8 pictures" in edits.notes
    assert any("boxes added: 1 (001.png" in note for note in edits.notes)
    assert there.load_saved_view("to do, least sure first").values("image_id") == [
        "007.png", "006.png", "005.png", "004.png",
    ]  # fmt: skip
    assert there.load_saved_view("accepted").count() == 3
    more = od.concatenate({"": dataset.select([4, 5, 6, 7]), "train": edits})
    assert len(more) == 6
    with pytest.raises(ValueError, match=r"browser\.edits\(\) has the pictures"):
        browser.accepted()


def test_boxes_tagged_in_place_of_pictures(prelabels: Prelabels) -> None:
    browser = browse(prelabels)
    browser.dataset.limit(2).tag_labels("accept", "suggestions")
    with pytest.raises(ValueError, match="4 boxes are tagged 'accept', and no picture is"):
        browser.edits()


def test_a_better_detectors_suggestions_leave_what_a_person_did(prelabels: Prelabels) -> None:
    there = browse(prelabels).dataset
    there.match({"image_id": "000.png"}).tag_samples("accept")
    draw(
        there, "001.png", "suggestions", bounding_box=[0.5, 0.5, 0.25, 0.25]
    )  # of which no class is said yet
    fewer = prelabels.suggestions.above(0.99)
    better = Prelabels(
        pictures=prelabels.pictures, suggestions=fewer, doubt=np.ones(8), score=0.99, reason="as asked for"
    )
    again = browse(better)
    assert again.dataset.name == there.name
    counts = dict(zip(*again.dataset.values(["image_id", "suggestions.detections"]), strict=True))
    assert {image: len(boxes or ()) for image, boxes in counts.items()} == {
        "000.png": 2, "001.png": 3, **{f"00{i}.png": 0 for i in range(2, 8)},
    }  # fmt: skip
    assert browse(better, keep_edits=False).dataset.count("suggestions.detections") == 0
    # the pictures themselves, browsed as a dataset, are another one
    own = browse(prelabels.pictures).dataset
    assert own.name != there.name
    assert from_fiftyone(own).num_boxes == 0


def test_a_detector_of_other_classes_finds_what_was_accepted_before(prelabels: Prelabels, fo: Any) -> None:
    browser = browse(prelabels)
    there = browser.dataset
    there.match({"image_id": "000.png"}).tag_samples("accept")
    draw(there, "000.png", "suggestions", label="green", bounding_box=[0.5, 0.5, 0.25, 0.25])
    browser.add_classes("green")
    found = prelabels.suggestions
    names = ("blue", "yellow")
    other = Prelabels(
        pictures=prelabels.pictures.replace(class_names=names),
        suggestions=Predictions(
            boxes=found.boxes,
            scores=found.scores,
            classes=found.classes,
            images=found.images,
            class_names=names,
            image_ids=found.image_ids,
        ),
        doubt=prelabels.doubt,
        score=0.5,
        reason="as asked for",
    )
    again = browse(other)
    assert again.dataset.name == there.name
    offered = again.dataset.label_schemas["suggestions"]["classes"]
    assert sorted(offered) == ["blue", "green", "yellow"], "the new detector's, and what a person added"
    edits = again.edits()
    assert list(edits.image_ids) == ["000.png"]
    assert edits.class_counts() == {"blue": 1, "red": 1, "green": 1, "yellow": 0}
    labels = again.dataset.match({"image_id": "001.png"}).first().suggestions.detections
    assert {label.label for label in labels} == set(names), "what nobody touched is the new detector's"


def test_suggestions_for_pictures_of_a_folder(tmp_path: Path) -> None:
    """The whole of it without a picture tagged: found, suggested, opened."""
    squares(tmp_path / "pictures", 3)
    detector = od.build_detector("starter", ("blue", "red"), weights="random", image_size=64)
    browser = browse(od.prelabel(tmp_path / "pictures", detector, score=0.01))
    assert browser.dataset.count("suggestions.detections") > 0
    assert len(browser.edits()) == 0
