"""Pre-labelling: which pictures have no labels, what is suggested for them, and in which order."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odkit.data import Dataset, Predictions
from odkit.data.formats import write_dataset
from odkit.detection import build_detector, inference
from odkit.runs import Interrupted, Run, find_unlabelled, prelabel
from odkit.runs.prelabels import NOT_LABELS
from odkit.system import InputError, MissingFileError
from tests.helpers import found_in, squares, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    return trained(squares(folder / "squares", 8), folder, "few", epochs=1)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Eight labelled pictures, not those of the run."""
    return squares(tmp_path / "more", 8, seed=1)


def written(dataset: Dataset, folder: Path, kind: str) -> Path:
    """Two of the pictures labelled in a format, the others lying beside them."""
    few = dataset.select([0, 1]).replace(image_splits=["train", "train"])
    write_dataset(few, folder, kind)
    pictures = next(folder.rglob("000.png")).parent
    for path in dataset.image_paths[2:]:
        shutil.copy(path, pictures)
    return folder


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_pictures_that_no_label_names_are_found(dataset: Dataset, tmp_path: Path, kind: str) -> None:
    folder = written(dataset, tmp_path / kind, kind)
    found = find_unlabelled(folder)
    assert sorted(Path(path).name for path in found.pictures.image_paths) == [
        f"00{i}.png" for i in range(2, 8)
    ]
    assert found.pictures.num_boxes == 0
    assert found.pictures.image_sizes.tolist() == [[64, 64]] * 6
    assert set(found.pictures.image_splits) == {""}
    assert found.labelled is not None
    assert len(found.labelled) == 2
    assert found.labelled.num_boxes == 4
    assert not set(found.labelled.image_ids) & set(found.pictures.image_ids)
    assert len(find_unlabelled(folder, every_picture=True).pictures) == 8


def test_labels_that_say_there_is_nothing_are_no_labels(dataset: Dataset, tmp_path: Path) -> None:
    empty = dataset.select_boxes(dataset.box_images < 3)
    found = find_unlabelled(empty)
    assert list(found.pictures.image_ids) == [f"00{i}.png" for i in range(3, 8)]
    assert found.labelled is not None
    assert found.labelled.split_counts() == dataset.select([0, 1, 2]).split_counts()
    saved = dataset.select([0, 3]).select_boxes([0, 1]).save(tmp_path / "saved.npz")
    # a saved part of a dataset says nothing about the pictures that lie where its own do
    assert list(find_unlabelled(saved).pictures.image_ids) == ["003.png"]


def test_a_folder_of_pictures_alone(dataset: Dataset, tmp_path: Path) -> None:
    found = find_unlabelled(dataset.root)
    assert (len(found.pictures), found.labelled) == (8, None)
    assert found.pictures.class_names == ()
    for left in ("Thumbs.db", "desktop.ini", "README.md", ".DS_Store"):  # by systems and people
        (dataset.root / left).write_text("no label")
    assert len(find_unlabelled(dataset.root).pictures) == 8
    with pytest.raises(MissingFileError):
        find_unlabelled(tmp_path / "nowhere")


def test_where_everything_has_labels_it_is_said(dataset: Dataset, run: Run) -> None:
    with pytest.raises(InputError, match=r"every picture of squares has labels .* every_picture=True"):
        prelabel(dataset, run)
    assert len(prelabel(dataset, run, every_picture=True)) == 8


def test_masks_and_broken_pictures_are_left_out(dataset: Dataset, tmp_path: Path, run: Run) -> None:
    folder = written(dataset, tmp_path / "voc", "voc")
    (folder / "SegmentationClass").mkdir()
    Image.new("L", (64, 64)).save(folder / "SegmentationClass" / "000.png")
    (folder / "JPEGImages" / "broken.png").write_bytes(Path(dataset.image_paths[0]).read_bytes()[:200])
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    found = prelabel(folder, run)
    assert len(found) == 6
    assert any("broken.png" in note for note in found.notes)
    assert before == {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_is_suggested(dataset: Dataset, run: Run) -> None:
    pictures = dataset.select_boxes([])
    found = prelabel(pictures, run)
    assert (found.score, "few has found nothing" in found.reason) == (0.5, True)
    assert (found.suggestions.scores >= found.score).all()
    asked = prelabel(pictures, run, score=0.02)
    assert (asked.score, asked.reason) == (0.02, "as asked for")
    everything = inference.predict(run.detector(), pictures, score=0.02)
    assert 0 < len(asked.suggestions) <= len(everything)
    # the surest box of each picture is among them, and first
    for image in range(len(pictures)):
        part = asked.suggestions.of(image)
        assert asked.suggestions.scores[part][0] == everything.scores[everything.of(image)].max()
        assert (np.diff(asked.suggestions.scores[part]) <= 0).all()
    labels = asked.as_labels()
    assert labels.num_boxes == len(asked.suggestions)
    assert NOT_LABELS in labels.notes
    assert NOT_LABELS in repr(asked)
    assert labels.box_ids[0] == "suggestion 1"
    told = asked.to_dict()
    assert [one["picture"] for one in told["pictures"]] == [pictures.image_ids[i] for i in asked.order()]
    assert sum(len(one["objects"]) for one in told["pictures"]) == len(asked.suggestions)


def test_the_score_is_the_best_on_the_runs_validation_images(
    dataset: Dataset, run: Run, tmp_path: Path
) -> None:
    better = Run(shutil.copytree(run.path, tmp_path / "better"))
    found_in(run.dataset("val")).save(better.path / "predictions.npz")
    found = prelabel(dataset.select_boxes([]), better)
    assert found.score == pytest.approx(better.evaluation().best_score)
    assert found.score > 0.55
    assert found.reason == "the score with the best F1 on the validation images of better"


def test_a_detector_without_a_run_and_other_classes(dataset: Dataset, run: Run) -> None:
    detector = build_detector("starter", ("red", "green"), weights="random", image_size=64)
    half = dataset.select_boxes(dataset.box_images < 4)
    found = prelabel(half, detector)
    assert (found.score, found.pictures.class_names) == (0.5, ("blue", "red", "green"))
    assert "without its run" in found.reason
    strange = build_detector("starter", ("cat",), weights="random", image_size=64)
    with pytest.raises(InputError, match=r"knows cat, and the labels have blue, red: no class is in both"):
        prelabel(half, strange)
    assert prelabel(dataset.root, strange).pictures.class_names == ("cat",)
    with pytest.raises(InputError, match="from 0 to 1"):
        prelabel(half, detector, score=30)


def test_pictures_that_it_learnt_to_be_empty_are_told(dataset: Dataset, tmp_path: Path) -> None:
    half = dataset.replace(image_splits=["train"] * 6 + ["val"] * 2).select_boxes(dataset.box_images != 2)
    run = trained(half, tmp_path, "with-empties", epochs=1)
    assert any(
        "trained on 1 of these pictures as if nothing were in them" in n for n in prelabel(half, run).notes
    )
    others = squares(tmp_path / "others", 8, seed=2)  # other pictures with the same names
    assert not any("trained on" in note for note in prelabel(others.select_boxes([]), run).notes)


def test_one_object_one_suggestion_and_the_unsure_first(
    dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, near, far = [5, 5, 25, 25], [5, 5, 25, 26], [40, 40, 60, 60]
    rows = {  # box, class, score
        "000.png": [(box, 0, 0.95)],
        "001.png": [(box, 0, 0.9), (near, 1, 0.6), (far, 1, 0.51)],
        "002.png": [(box, 0, 0.48), (far, 0, 0.52), (near, 1, 0.45)],
        "003.png": [],
    }

    def predict(detector: object, pictures: Dataset, **how: object) -> Predictions:
        given = [rows[image] for image in pictures.image_ids]
        parts = [([b for b, _, _ in one], [s for _, _, s in one], [c for _, c, _ in one]) for one in given]
        return Predictions.from_images(parts, ("blue", "red"), tuple(pictures.image_ids))

    monkeypatch.setattr("odkit.detection.predict", predict)
    found = prelabel(dataset.select([0, 1, 2, 3]).select_boxes([]), run, score=0.5)
    assert [found.pictures.image_ids[i] for i in found.order()] == [
        "002.png",
        "001.png",
        "003.png",
        "000.png",
    ]
    assert found.suggestions.scores.tolist() == pytest.approx([0.95, 0.9, 0.51, 0.52])
    assert found.suggestions.classes.tolist() == [0, 0, 1, 0]
    assert found.doubt[3] == 1, "nothing suggested is a question, too"


def test_what_was_found_before_a_stop_is_not_looked_for_again(
    dataset: Dataset, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    real = inference.predict_rows

    def counted(detector, pictures, rows, **how):
        looked.append(len(rows))
        return real(detector, pictures, rows, **how)

    monkeypatch.setattr(inference, "predict_rows", counted)
    pictures, keep = dataset.select_boxes([]), tmp_path / "kept.npz"
    how = {"score": 0.02, "batch_size": 3, "num_workers": 0, "device": "cpu"}
    with pytest.raises(Interrupted, match=r"5 of 8 pictures left\. The same call goes on"):
        prelabel(pictures, run, keep=keep, stop=lambda: True, **how)
    found = prelabel(pictures, run, keep=keep, **how)
    assert looked == [8, 5]
    assert not keep.exists()
    whole = prelabel(pictures, run, **how)
    assert np.allclose(found.suggestions.boxes, whole.suggestions.boxes, atol=0.01)
    assert np.allclose(found.doubt, whole.doubt, atol=1e-4)
    with pytest.raises(Interrupted, match="Nothing is kept"):
        prelabel(pictures, run, stop=lambda: True, **how)
