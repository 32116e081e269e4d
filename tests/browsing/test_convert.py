"""Dataset and predictions to FiftyOne and back."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odkit.analysis.evaluation import evaluate
from odkit.analysis.label_errors import Suspect
from odkit.analysis.tide import classify
from odkit.browsing import fo_dataset
from odkit.browsing.annotate import field_name
from odkit.browsing.changes import changes
from odkit.browsing.convert import from_fiftyone, to_fiftyone
from odkit.browsing.fo_dataset import UNKNOWN_LABEL, is_edited
from odkit.data.audit.inspection import audit
from odkit.data.dataset import Dataset
from tests.helpers import ORACLE_CASES, found_in, pycocotools_figures, random_case

pytestmark = [pytest.mark.database, pytest.mark.usefixtures("fo")]


# -- there and back --------------------------------------------------------------------------------------------------


def test_round_trip_changes_nothing(dataset: Dataset) -> None:
    crowd = dataset.box_crowd.copy()
    crowd[3] = True
    dataset = dataset.replace(box_crowd=crowd)
    back = from_fiftyone(to_fiftyone(dataset))
    assert back.fingerprint() == dataset.fingerprint()
    assert np.array_equal(back.boxes, dataset.boxes)
    assert list(back.box_ids) == list(dataset.box_ids)
    assert list(back.image_paths) == list(dataset.image_paths)
    assert (back.name, back.root) == (dataset.name, dataset.root)
    assert not changes(dataset, back)


def test_round_trip_of_awkward_boxes_and_sizes(tmp_path: Path) -> None:
    """Boxes outside, without area or class, images without size or boxes, and odd fractions of a pixel."""
    rng = np.random.default_rng(0)
    Image.new("RGB", (37, 53)).save(tmp_path / "a.png")
    boxes = np.concatenate(
        [rng.uniform(-20, 4000, (200, 4)), [[5, 5, 5, 5], [-3, -3, 9, 9], [1 / 3, 2 / 3, 7.7, 9.9]]]
    )
    boxes = boxes.astype(np.float32)
    dataset = Dataset(
        class_names=("x", "y"),
        root=tmp_path,
        image_paths=[str(tmp_path / name) for name in ("a.png", "gone.png", "empty.png")],
        image_sizes=[(0, 0), (3999, 2731), (640, 480)],
        boxes=boxes,
        box_classes=rng.integers(-1, 2, len(boxes)),
        box_images=np.sort(rng.integers(0, 2, len(boxes))),
    )
    back = from_fiftyone(to_fiftyone(dataset))
    assert np.array_equal(back.boxes, dataset.boxes)
    assert np.array_equal(back.box_classes, dataset.box_classes)
    assert back.image_sizes.tolist() == [[37, 53], [3999, 2731], [640, 480]]
    assert back.class_names == dataset.class_names


def test_a_box_that_is_not_finite_does_not_break_the_app(dataset: Dataset) -> None:
    boxes = dataset.boxes.copy()
    boxes[0] = np.nan
    there = to_fiftyone(dataset.replace(boxes=boxes))
    assert all(
        np.isfinite(box).all()
        for boxes in there.values("ground_truth.detections.bounding_box")
        for box in boxes
    )


def test_an_empty_dataset(dataset: Dataset) -> None:
    empty = dataset.select_boxes([])
    assert from_fiftyone(to_fiftyone(empty)).fingerprint() == empty.fingerprint()


def test_what_fiftyone_sees(dataset: Dataset, fo) -> None:
    there = to_fiftyone(dataset)
    assert there.default_classes == list(dataset.class_names)
    assert there.count_sample_tags() == dataset.split_counts()
    assert there.count_values("ground_truth.detections.label") == dataset.class_counts()
    sample = there.match(fo.ViewField("image_id") == "003.png").first()
    assert (sample.metadata.width, sample.metadata.height) == (64, 64)
    rows = dataset.boxes_of(dataset.index_of("003.png"))
    x1, y1, x2, y2 = dataset.boxes[rows][0]
    found = sample.ground_truth.detections[0]
    assert found.bounding_box == pytest.approx([x1 / 64, y1 / 64, (x2 - x1) / 64, (y2 - y1) / 64])
    assert (found.label, found.iscrowd, found.box_id) == ("blue", False, "box 1")
    # FiftyOne's own tools work on what was written past it
    assert there.take(3).count() == 3
    assert there.to_patches("ground_truth").count() == dataset.num_boxes
    clone = there.clone()
    assert from_fiftyone(clone).fingerprint() == dataset.fingerprint()
    clone.delete()


# -- what a person did -----------------------------------------------------------------------------------------------


def test_edits_come_back_and_are_summed_up(dataset: Dataset, fo) -> None:
    there = to_fiftyone(dataset)
    assert not is_edited(there)
    sample = there.match(fo.ViewField("image_id") == "000.png").first()
    first, second = sample.ground_truth.detections
    first.label = "green"
    second.bounding_box = [0.1, 0.1, 0.25, 0.25]
    sample.ground_truth.detections.append(fo.Detection(label="red", bounding_box=[0.5, 0.5, 0.25, 0.25]))
    sample.tags = ["test"]
    sample.save()
    other = there.match(fo.ViewField("image_id") == "001.png").first()
    del other.ground_truth.detections[1]
    other.tags.append("dark")
    other.save()
    there.delete_samples(there.match(fo.ViewField("image_id") == "002.png"))

    assert is_edited(there)
    back = from_fiftyone(there)
    assert back.class_names == ("blue", "red", "green")
    assert [back.class_names[c] for c in back.box_classes[back.boxes_of(0)]] == ["green", "red", "red"]
    assert np.allclose(back.boxes[back.boxes_of(0)][1:], [[6.4, 6.4, 22.4, 22.4], [32, 32, 48, 48]])
    assert back.image_splits[0] == "test"

    done = changes(dataset, there)
    assert done.images_removed == ("002.png",)
    assert done.boxes_removed == (("001.png", "box 2"),)
    ((image, box),) = done.boxes_added
    assert (image, box[:8]) == ("000.png", "FiftyOne")
    assert done.boxes_moved == (("000.png", "box 2"),)
    assert done.boxes_renamed == (("000.png", "box 1", "blue", "green"),)
    assert [c[::2] for c in done.splits_changed] == [("000.png", "test")]
    assert done.tags == {"dark": 1, "test": 1}
    assert "boxes renamed: 1 (000.png, box 1: blue -> green)" in repr(done)
    assert "boxes renamed" in done._repr_html_()
    # what came back is a dataset like any other
    assert not changes(back, from_fiftyone(to_fiftyone(back)))


def test_putting_the_same_data_again_keeps_edits_unless_told_otherwise(dataset: Dataset) -> None:
    there = to_fiftyone(dataset)
    there.limit(2).tag_samples("dark")
    again = to_fiftyone(dataset, predictions=found_in(dataset))
    assert again.name == there.name
    assert again.count_sample_tags()["dark"] == 2
    assert is_edited(again)
    anew = to_fiftyone(dataset, keep_edits=False)
    assert anew.name == there.name
    assert "dark" not in anew.count_sample_tags()
    assert anew.list_saved_views() == []
    assert not anew.has_field("predictions")
    assert not is_edited(anew)


def test_a_name_of_ones_own_is_refilled_with_other_data(dataset: Dataset, fo) -> None:
    to_fiftyone(dataset, name="mine", predictions=found_in(dataset))
    fewer = dataset.select([0, 1, 2])
    there = to_fiftyone(fewer, name="mine")
    assert from_fiftyone(there).fingerprint() == fewer.fingerprint()
    assert [n for n in fo.list_datasets() if n.startswith("odkit-")] == [], "nothing is left behind"
    fo.Dataset("theirs")
    with pytest.raises(ValueError, match="'theirs' that odkit did not make"):
        to_fiftyone(dataset, name="theirs")


def test_moved_files_are_found_again(dataset: Dataset, tmp_path: Path) -> None:
    there = to_fiftyone(dataset)
    there.limit(1).tag_samples("kept")
    moved = dataset.replace(
        root=tmp_path / "moved", image_paths=[str(tmp_path / "moved" / i) for i in dataset.image_ids]
    )
    again = to_fiftyone(moved)
    assert again.name == there.name
    assert sorted(again.values("filepath")) == sorted(moved.image_paths)
    assert again.count_sample_tags()["kept"] == 1


def test_two_processes_at_once_make_one_whole_dataset(dataset: Dataset, tmp_path: Path, fo) -> None:
    dataset.save(tmp_path / "data.npz")
    code = (
        "import sys\nfrom odkit.browsing.convert import to_fiftyone, from_fiftyone\n"
        "from odkit.browsing import fo_dataset\n"
        "from odkit.data.dataset import Dataset\n"
        f"d = Dataset.load({str(tmp_path / 'data.npz')!r}).replace(name='at once')\n"
        "fo_dataset.fiftyone()\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "print(from_fiftyone(to_fiftyone(d, persistent=True)).fingerprint() == d.fingerprint())"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for one in both:
        assert one.stdout.readline() == "ready\n"
    for one in both:
        one.stdin.write("go\n")
        one.stdin.flush()
    assert [one.communicate(timeout=120)[0].strip() for one in both] == ["True", "True"]
    names = fo.list_datasets()
    assert len([n for n in names if n.startswith("at-once-")]) == 1
    assert [n for n in names if n.startswith("odkit-")] == []


# -- views, and datasets of FiftyOne's own ---------------------------------------------------------------------------


def test_views_come_back(dataset: Dataset, fo) -> None:
    there = to_fiftyone(dataset)
    label = fo.ViewField("label")
    only_red = from_fiftyone(there.filter_labels("ground_truth", label == "red"))
    assert only_red.class_names == dataset.class_names, "the class table stays whole"
    assert only_red.class_counts() == {"blue": 0, "red": 8}
    some = from_fiftyone(there.sort_by("image_id", reverse=True).limit(3))
    assert list(some.image_ids) == ["007.png", "006.png", "005.png"]
    assert np.array_equal(some.boxes[some.boxes_of(0)], dataset.boxes[dataset.boxes_of(7)])
    patches = from_fiftyone(there.to_patches("ground_truth").limit(3))
    assert len(patches) == 2
    assert patches.num_boxes == 3
    there.save_view("mine", there.match_tags("val"))
    assert from_fiftyone(there.load_saved_view("mine")).fingerprint() == dataset.split("val").fingerprint()
    assert len(from_fiftyone(there.limit(0))) == 0


def test_a_dataset_odkit_did_not_make(tmp_path: Path, fo) -> None:
    """No metadata, an EXIF rotation, split tags under other names, a field of another name, no class list."""
    upright = Image.new("RGB", (40, 30), "white")
    exif = upright.getexif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    upright.save(tmp_path / "in" / "turned.jpg", exif=exif)
    upright.save(tmp_path / "plain.jpg")
    theirs = fo.Dataset("their own")
    boxes = fo.Detections(
        detections=[fo.Detection(label="cat", bounding_box=[0.1, 0.2, 0.5, 0.5], iscrowd=1)]
    )
    theirs.add_samples(
        [
            fo.Sample(str(tmp_path / "in" / "turned.jpg"), tags=["validation"], boxes=boxes),
            fo.Sample(str(tmp_path / "plain.jpg"), tags=["train", "night"], boxes=boxes.copy()),
            fo.Sample(str(tmp_path / "gone.jpg"), boxes=boxes.copy()),
        ],
        dynamic=True,
    )
    back = from_fiftyone(theirs)
    assert back.class_names == ("cat",)
    assert list(back.image_ids) == ["in/turned.jpg", "plain.jpg", "gone.jpg"]
    assert back.image_sizes.tolist() == [[30, 40], [40, 30], [0, 0]]
    assert list(back.image_splits) == ["val", "train", ""]
    assert np.allclose(back.boxes, [[3, 8, 18, 28], [4, 6, 24, 21]])
    assert back.box_crowd.all()
    (problem,) = back.source_problems
    assert (problem.kind, Path(problem.file).name) == ("unknown_size", "gone.jpg")
    assert "3 of 3 images, boxes of 'boxes'" in back.notes[0]
    with pytest.raises(ValueError, match="no field 'other' of detections; fields of detections: boxes"):
        from_fiftyone(theirs, field="other")
    with pytest.raises(ValueError, match="'their own' that odkit did not make"):
        to_fiftyone(back, name="their own")


def test_an_image_with_two_splits_takes_the_last_given(dataset: Dataset) -> None:
    there = to_fiftyone(dataset)
    train = there.match_tags("train").limit(1)
    image = train.first().image_id
    train.tag_samples("val")
    back = from_fiftyone(there)
    assert back.image_splits[back.index_of(image)] == "val"
    assert any("1 images are tagged with two splits" in note for note in back.notes)


# -- predictions and findings ----------------------------------------------------------------------------------------


def test_predictions_are_marked(dataset: Dataset, fo) -> None:
    there = to_fiftyone(dataset, predictions=found_in(dataset))
    assert there.count_values("predictions.detections.eval") == {"tp": 14, "fp": 2}
    assert there.count_values("ground_truth.detections.eval") == {"tp": 14, "fn": 2}
    assert there.list_saved_views()[:3] == ["worst first", "false positives", "missed"]
    worst = there.load_saved_view("worst first").first()
    # one box missed, the other found under another name with score 0.9: 1 + 1 + 0.9
    assert (worst.image_id, worst.eval_tp, worst.eval_fp, worst.eval_fn) == ("000.png", 0, 1, 2)
    assert worst.eval_loss == pytest.approx(2.9)
    wrong = there.load_saved_view("false positives")
    assert sorted(wrong.values("image_id")) == ["000.png", "007.png"]
    assert wrong.count("predictions.detections") == 2
    missed = there.load_saved_view("missed")
    assert missed.values("ground_truth.detections.box_id") == [["box 1", "box 2"]]
    # the kinds of mistake, as odkit.mistakes has them
    kinds = classify(dataset, found_in(dataset).for_dataset(dataset))
    assert there.count_values("predictions.detections.mistake") == dict(Counter(kinds.predictions.tolist()))
    assert there.count_values("ground_truth.detections.mistake") == dict(Counter(kinds.boxes.tolist()))
    on_background = there.load_saved_view("mistake: Bkg")
    assert on_background.values("image_id")[0] == "007.png"
    # FiftyOne takes it for an evaluation of its own: a patch for each match, false positive and miss
    assert there.list_evaluations() == ["eval"]
    assert there.to_evaluation_patches("eval").count() == 14 + 2 + 2
    scores = [s for one in there.values("predictions.detections.confidence") for s in one]
    assert min(scores) == pytest.approx(0.6)
    assert from_fiftyone(there).fingerprint() == dataset.fingerprint()
    assert not is_edited(there)


def test_marks_agree_with_fiftyones_own_evaluation() -> None:
    """Same matches at IoU 0.5 by class where nothing ties and no crowd is about."""
    dataset, predictions = random_case(3)
    dataset = dataset.replace(box_crowd=np.zeros(dataset.num_boxes, bool))
    there = to_fiftyone(dataset, predictions=predictions, score=0.0)
    there.evaluate_detections(
        "predictions", gt_field="ground_truth", eval_key="theirs", iou=0.5, classwise=True
    )
    ours, their = (there.values(f"predictions.detections.{key}") for key in ("eval", "theirs"))
    flat = [(a, b) for x, y in zip(ours, their, strict=True) for a, b in zip(x or (), y or (), strict=True)]
    agree = np.mean([a == b for a, b in flat])
    assert agree > 0.97, f"{agree:.3f} of {len(flat)} marks agree"


def test_suspects_are_boxes_and_a_view(dataset: Dataset, fo) -> None:
    suspects = [
        Suspect("wrong_class", 0.9, 3, "003.png", 6, "box 1", 5, "red", None),
        Suspect("missing", 0.8, 1, "001.png", -1, "", 4, "blue", (8.0, 16.0, 24.0, 32.0)),
        Suspect("spurious", 0.7, 3, "003.png", 7, "box 2", -1, "red", None),
    ]
    there = to_fiftyone(dataset, suspects=suspects)
    view = there.load_saved_view("suspects first")
    assert view.values("image_id") == ["003.png", "001.png"]
    assert view.values("suspects.detections.kind") == [["wrong_class", "spurious"], ["missing"]]
    assert view.values("suspects.detections.bounding_box")[1] == [[0.125, 0.25, 0.25, 0.25]]
    assert from_fiftyone(view).num_boxes == 4, "suspects are no ground truth"
    view.filter_labels("suspects", fo.ViewField("kind") == "missing").tag_labels("accept", "suspects")
    there = to_fiftyone(dataset, suspects=suspects)
    assert there.count_label_tags() == {"accept": 1}, "looked at once, it stays accepted"
    assert len(to_fiftyone(dataset, suspects=[]).load_saved_view("suspects first")) == 0


def test_predictions_of_two_detectors_and_a_score(dataset: Dataset) -> None:
    found = found_in(dataset)
    there = to_fiftyone(
        dataset,
        predictions={"run 1": found, "2nd": found},
        score={"run 1": 0.0, "2nd": 0.85},
        persistent=False,
    )
    assert there.has_field("run_1")
    assert there.count("run_1.detections") == len(found)
    assert there.count("run_2nd.detections") == int((found.scores >= 0.85).sum())
    assert there.count_values("ground_truth.detections.eval_run_1") == {"tp": 14, "fn": 2}
    assert "run_2nd: missed" in there.list_saved_views()
    # put in place of what was there, not beside it
    there = to_fiftyone(dataset, predictions={"run 1": found.above(0.7)}, score=0)
    assert there.count("run_1.detections") == len(found.above(0.7))


def ids_of_predictions(there, field: str = "predictions") -> set:
    """The ids of all predictions, which are new where they are written anew."""
    return {i for one in there.values(f"{field}.detections.id") for i in one or ()}


def test_what_is_there_already_is_not_written_again(dataset: Dataset) -> None:
    found, findings = found_in(dataset), audit(dataset)
    there = to_fiftyone(dataset, predictions=found, audit=findings, score=0.0)
    before = ids_of_predictions(there)
    assert ids_of_predictions(to_fiftyone(dataset, predictions=found, audit=findings, score=0.0)) == before

    there.delete_saved_view("missed")
    again = to_fiftyone(dataset, predictions=found, score=0.0)
    assert "missed" in again.list_saved_views(), "what belongs to it comes back"
    again.delete_evaluation("eval")
    assert to_fiftyone(dataset, predictions=found, score=0.0).list_evaluations() == ["eval"]

    before = ids_of_predictions(again)
    other = to_fiftyone(dataset, predictions=replace(found, scores=found.scores * 0.99), score=0.0)
    assert not ids_of_predictions(other) & before, "other predictions are put in place of them"
    assert other.count("predictions.detections") == len(found)
    fewer = to_fiftyone(dataset, predictions=replace(found, scores=found.scores * 0.99), score=0.7)
    assert fewer.count("predictions.detections") < len(found), "so is another part of them"


def test_an_edit_of_ground_truth_is_seen_when_the_same_predictions_come_again(dataset: Dataset) -> None:
    found = found_in(dataset)
    there = to_fiftyone(dataset, predictions=found)
    sample = there.match_tags("train").first()
    gone = sample.ground_truth.detections.pop(0)
    sample.save()
    there = to_fiftyone(dataset, predictions=found)
    assert gone.id not in {i for one in there.values("predictions.detections.eval_id") for i in one}
    assert is_edited(there)
    before = ids_of_predictions(there)
    there = to_fiftyone(dataset, predictions=found)
    assert ids_of_predictions(there) == before
    assert is_edited(there)


def test_an_edit_counts_for_all_that_was_there_before_it(dataset: Dataset) -> None:
    """Whichever of it is shown first afterwards."""
    found = found_in(dataset)
    suspects = [Suspect("missing", 0.8, 1, "001.png", -1, "", 4, "blue", (8.0, 16.0, 24.0, 32.0))]
    there = to_fiftyone(dataset, predictions={"one": found, "other": found}, suspects=suspects)

    def hit(label: str) -> set:
        """The ids of the boxes that predictions of a label found."""
        return {i for one in there.values(f"{label}.detections.eval_{label}_id") for i in one if i}

    gone = min(hit("other"))
    assert gone in hit("one")
    there.delete_labels(ids=gone)
    to_fiftyone(dataset, predictions={"one": found}, suspects=suspects)
    there = to_fiftyone(dataset, predictions={"other": found})
    assert gone not in hit("one") | hit("other")
    before = ids_of_predictions(there, "other")
    there = to_fiftyone(dataset, predictions={"one": found, "other": found}, suspects=suspects)
    assert ids_of_predictions(there, "other") == before


def test_writes_of_many_boxes_are_cut_by_boxes() -> None:
    counts = np.array([0, 3, 30_000, 0, 4_000, 4_000, 4_000, 0])
    parts = list(fo_dataset.batches(counts))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(len(counts)))
    assert [int(counts[part].sum()) for part in parts] == [3, 30_000, 8_000, 4_000]
    assert list(fo_dataset.batches(counts[:0])) == []


def test_ids_made_many_at_once_are_mongodbs() -> None:
    ids = [i for _ in range(12) for i in fo_dataset.object_ids(50)]
    assert len(set(ids)) == 600
    assert ids == sorted(ids)
    assert abs((ids[0].generation_time - datetime.now(UTC)).total_seconds()) < 60
    assert fo_dataset.object_ids(0) == []


def test_predictions_skip_what_was_changed_in_the_app(dataset: Dataset, fo) -> None:
    there = to_fiftyone(dataset)
    sample = there.first()
    del sample.ground_truth.detections[0]
    sample.ground_truth.detections.append(fo.Detection(label="red", bounding_box=[0, 0, 0.5, 0.5]))
    sample.save()
    there.add_sample(fo.Sample("/added.png"))
    there = to_fiftyone(dataset, predictions=found_in(dataset))
    marks = there.match(fo.ViewField("image_id") == "000.png").values("ground_truth.detections.eval")
    assert marks == [["fn", None]], "the deleted box has no mark to take, the added one was never matched"


def test_field_names() -> None:
    assert field_name("starter, 24 epochs") == "starter_24_epochs"
    assert field_name("2026-01-01") == "run_2026_01_01"
    assert field_name("ground_truth") == "run_ground_truth"


def test_findings_become_tags_and_views(dataset: Dataset) -> None:
    boxes = dataset.boxes.copy()
    boxes[4] = [10, 10, 10, 30]  # no area
    classes = dataset.box_classes.copy()
    classes[7] = -1
    broken = dataset.replace(boxes=boxes, box_classes=classes)
    findings = audit(broken)
    there = to_fiftyone(broken, audit=findings)
    kinds = {f.kind for f in findings if f.image_index >= 0}
    assert set(there.list_saved_views()) == {f"audit: {kind.replace('_', ' ')}" for kind in kinds}
    tags = there.count_label_tags()
    assert sum(tags.values()) == len([f for f in findings if f.box_index >= 0])
    view = there.load_saved_view("audit: unknown class")
    assert view.values("image_id") == ["003.png"]
    assert there.count_values("ground_truth.detections.label")[UNKNOWN_LABEL] == 1
    assert not is_edited(there)
    assert not changes(broken, there), "tags of the audit are not a person's"
    # nothing is left of findings that are gone
    there = to_fiftyone(broken, audit=replace(findings, findings=()))
    assert there.list_saved_views() == []
    assert there.count_label_tags() == {}


def test_predictions_of_other_classes_are_refused(dataset: Dataset) -> None:
    other = found_in(dataset.replace(class_names=("x", "y")))
    with pytest.raises(ValueError, match="class tables"):
        to_fiftyone(dataset, predictions=other)


# -- the connection --------------------------------------------------------------------------------------------------


def in_a_process(code: str, **environment: str) -> str:
    """What a fresh Python prints; a variable given as "" is taken away."""
    kept = {k: v for k, v in {**os.environ, "FIFTYONE_DATABASE_URI": "", **environment}.items() if v}
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code], env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_fiftyone_imported_before_odkit_is_used_as_it_is(fo) -> None:
    """Connected already it keeps its database; not connected yet it gets ours."""
    uri = fo.config.database_uri
    code = (
        "import fiftyone as fo\n{}from odkit.browsing import fo_dataset\n"
        "print(fo_dataset.fiftyone().config.database_uri)"
    )
    not_yet = in_a_process(code.format(""), FIFTYONE_DATABASE_VALIDATION="false")
    assert uri in not_yet
    theirs = f"{uri}/?retryReads=true"
    assert theirs in in_a_process(code.format("fo.list_datasets()\n"), FIFTYONE_DATABASE_URI=theirs)
    code = f"import fiftyone as fo\nfo.config.database_uri = {theirs!r}\nfo.list_datasets()\n" + code.format(
        ""
    )
    assert theirs in in_a_process(code, FIFTYONE_DATABASE_VALIDATION="false"), (
        "not from the environment either"
    )


def test_no_writable_home(tmp_path: Path) -> None:
    """As in a container run with a user of its own."""
    code = "from odkit.browsing import fo_dataset\nfo = fo_dataset.fiftyone()\n"
    code += "fo.Dataset('a')\nprint(fo.list_datasets())"
    said = in_a_process(
        f"import os\nos.chdir({str(tmp_path)!r})\n{code}",
        HOME="/proc/nowhere",
        XDG_DATA_HOME="",
        FIFTYONE_DATABASE_DIR="",
        FIFTYONE_DEFAULT_DATASET_DIR="",
        TMPDIR=str(tmp_path),
        PYTHONPATH=str(Path(fo_dataset.__file__).parents[2]),
    )
    assert said == "['a']\n", "and it is quiet"
    assert [p.name for p in tmp_path.iterdir()] == [f"odkit-{os.getuid()}"], "no folder named ~"


def test_a_database_that_was_killed_goes_on_with_what_it_held(tmp_path: Path) -> None:
    code = (
        "import psutil, time\nfrom odkit.browsing import fo_dataset, services\nfo = fo_dataset.fiftyone()\n"
        "dataset = fo.Dataset('kept', persistent=True)\ndataset.add_sample(fo.Sample('/a.jpg', tags=['seen']))\n"
        "mongod = psutil.Process(int((services.database_folder() / 'mongod.lock').read_text()))\n"
        "time.sleep(0.5)  # its journal is written every 0.1 s\nmongod.kill()\npsutil.wait_procs([mongod], 30)\n"
        "fo_dataset.fiftyone()\nprint(dataset.count_sample_tags(), fo.list_datasets())"
    )
    said = in_a_process(code, FIFTYONE_DATABASE_DIR=str(tmp_path / "database"))
    assert said == "{'seen': 1} ['kept']\n"


# -- FiftyOne's own evaluation ---------------------------------------------------------------------------------------


def their_ap(dataset: Dataset, predictions) -> float:
    there = to_fiftyone(dataset, predictions=predictions, score=0.0, keep_edits=False)
    results = there.evaluate_detections(
        "predictions", gt_field="ground_truth", method="coco", compute_mAP=True, progress=False
    )
    return float(results.mAP())


@pytest.mark.parametrize("name", [name for name in ORACLE_CASES if "ties" not in name])
def test_fiftyones_coco_evaluation_agrees(name: str) -> None:
    """All three on the same predictions: pycocotools, ours and FiftyOne's."""
    dataset, predictions = random_case(3, **ORACLE_CASES[name])
    ours = evaluate(dataset, predictions).ap
    assert ours == pytest.approx(pycocotools_figures(dataset, predictions)[0][0], abs=1e-9)
    assert ours == pytest.approx(their_ap(dataset, predictions), abs=1e-9)


def test_fiftyones_coco_evaluation_is_kinder_to_equal_scores() -> None:
    """At one score it counts the right predictions before the wrong ones; COCO takes them as they come."""
    dataset, predictions = random_case(3, **ORACLE_CASES["ties in score and overlap"])
    ours = evaluate(dataset, predictions).ap
    assert ours == pytest.approx(pycocotools_figures(dataset, predictions)[0][0], abs=1e-9)
    assert their_ap(dataset, predictions) > ours + 0.01

    order = np.argsort(-predictions.scores, kind="stable")
    apart = predictions.scores.copy()
    apart[order] -= np.arange(len(order), dtype=np.float32) * 1e-5  # in COCO's order, no two alike
    apart = replace(predictions, scores=apart)
    assert evaluate(dataset, apart).ap == pytest.approx(ours, abs=1e-9), "COCO sees no difference"
    assert their_ap(dataset, apart) == pytest.approx(ours, abs=1e-9), "and nothing else differs"
