"""What a YOLO found: text files with confidences, whose boxes, classes and images are those that were meant.

The lines are as Ultralytics writes them (docs.ultralytics.com/reference/engine/results, save_txt and save_conf): class,
box or outline in shares of the image, confidence, and the track's number where it tracks.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import odkit as od
from odkit.data import Dataset, Predictions
from odkit.data.boxes import xyxy_to_yolo

SIZE = (200, 100)
MOVED = np.array([4, 0, 4, 0])  # pixels, by which what was found lies beside what is there


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six images in YOLO's layout, classes numbered with a gap: three boxes an image that do not overlap."""
    root = tmp_path_factory.mktemp("yolo") / "photos"
    rng = np.random.default_rng(0)
    for k in range(6):
        split = "train" if k < 2 else "val"
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        Image.new("L", SIZE).save(root / "images" / split / f"photo {k}.png")
        lines = [
            f"{(0, 2, 5)[(n + k) % 3]} {0.2 + 0.3 * n} {0.3 + 0.3 * rng.random():.4f} 0.2 0.3"
            for n in range(3)
        ]
        (root / "labels" / split / f"photo {k}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: {0: cat, 2: dog, 5: bird}\n"
    )
    return od.load_dataset(root)


def text_files(dataset: Dataset, folder: Path, *, numbers: tuple[int, ...] = (0, 2, 5)) -> Path:
    """Every box found, a little to the right, in a text file for each image that has some."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, image_id in enumerate(dataset.image_ids):
        part = dataset.boxes_of(row)
        boxes = xyxy_to_yolo(dataset.boxes[part] + MOVED, SIZE)
        lines = [
            f"{numbers[c]} {' '.join(f'{v:.6g}' for v in box)} {0.9 - 0.1 * n:.6g}"
            for n, (c, box) in enumerate(zip(dataset.box_classes[part].tolist(), boxes.tolist(), strict=True))
        ]
        (folder / f"{Path(image_id).stem}.txt").write_text("\n".join(lines) + "\n")
    return folder


def check(found: Predictions, dataset: Dataset) -> None:
    assert len(found) == dataset.num_boxes
    np.testing.assert_allclose(found.boxes, dataset.boxes + MOVED, atol=1e-3)
    assert [found.class_names[k] for k in found.classes] == [
        dataset.class_names[k] for k in dataset.box_classes
    ]
    assert found.images.tolist() == dataset.box_images.tolist()
    np.testing.assert_allclose(found.scores, np.tile([0.9, 0.8, 0.7], len(dataset)), atol=1e-6)


@pytest.mark.parametrize("place", ["predict", "predict/labels"])
def test_a_folder_of_text_files(place: str, yolo: Dataset, tmp_path: Path) -> None:
    text_files(yolo, tmp_path / place)
    found = od.Predictions.from_yolo(tmp_path / "predict", yolo)
    check(found, yolo)
    assert found.notes == ("class numbers by the dataset's own file of class names",)
    assert od.evaluate(yolo, found).ap50 == pytest.approx(1)


def test_an_image_without_a_file_is_one_where_nothing_was_found(yolo: Dataset, tmp_path: Path) -> None:
    folder = text_files(yolo, tmp_path / "labels")
    (folder / "photo 3.txt").unlink()
    (folder / "photo 4.txt").write_text("")
    (folder / "stranger.txt").write_text("0 0.5 0.5 0.1 0.1 0.5\n")
    found = od.Predictions.from_yolo(folder, yolo)
    assert found.notes[0].startswith(
        "1 text file left out, as no image has the name, or several have: stranger.txt"
    )
    assert found.notes[-1] == (
        "nothing was found in 2 of 6 images; their 6 boxes count as missed, as in COCO's figures"
    )
    assert od.evaluate(yolo, found).ar < 0.7
    part = od.Predictions.from_yolo(folder, yolo.split("train"))
    assert len(part) == 6


def test_class_numbers_are_of_whoever_names_them(yolo: Dataset, tmp_path: Path) -> None:
    """The names given, a data.yaml beside the files, the dataset's own; a wrong order is told."""
    folder = text_files(yolo, tmp_path / "run" / "labels", numbers=(2, 0, 1))
    with pytest.raises(ValueError, match=r"18 would have it with {'0': 'dog', '1': 'bird', '2': 'cat'}"):
        od.Predictions.from_yolo(folder, yolo.replace(format="voc"))
    with pytest.raises(ValueError, match=r"--class-numbers 0=dog 1=bird 2=cat"):
        od.Predictions.from_yolo(folder, yolo.replace(format="voc"))
    check(od.Predictions.from_yolo(folder, yolo, class_names=["dog", "bird", "cat"]), yolo)
    check(od.Predictions.from_yolo(folder, yolo, class_names={0: "dog", 1: "bird", 2: "cat"}), yolo)
    (tmp_path / "run" / "data.yaml").write_text("names: [dog, bird, cat, cow]\n")
    found = od.Predictions.from_yolo(tmp_path / "run", yolo)
    check(found, yolo)
    assert found.class_names == ("dog", "bird", "cat", "cow")
    (tmp_path / "run" / "data.yaml").unlink()
    (folder / "classes.txt").write_text("dog\nbird\ncat\n")
    check(od.Predictions.from_yolo(tmp_path / "run", yolo), yolo)
    (folder / "classes.txt").unlink()
    (folder / "photo 0.txt").write_text("7 0.5 0.5 0.1 0.1 0.5\n")
    found = od.Predictions.from_yolo(folder, yolo, class_names=["dog", "bird", "cat"])
    assert "1 row left out, as their class number is of no class that is known: 7" in found.notes


LINES = {
    "0 0.5 0.4 0.2 0.1 0.75": (0.75, [80, 35, 120, 45]),
    "0 0.5 0.4 0.2 0.1 0.75 12": (0.75, [80, 35, 120, 45]),  # tracked
    "0 0.1 0.1 0.3 0.2 0.2 0.4 0.6": (0.6, [20, 10, 60, 40]),  # an outline
    "0 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4 0.6 3": (0.6, [20, 10, 60, 40]),  # one that is tracked
    "0 0.9 0.9 0.4 0.4 1": (1, [140, 70, 220, 110]),  # beyond the border, kept
}


@pytest.mark.parametrize("line", LINES)
def test_lines_with_more_than_a_box(line: str, yolo: Dataset, tmp_path: Path) -> None:
    (tmp_path / "photo 2.txt").write_text(line)
    found = od.Predictions.from_yolo(tmp_path, yolo, class_names=["cat"])
    score, box = LINES[line]
    assert found.scores.tolist() == pytest.approx([score])
    np.testing.assert_allclose(found.boxes, [box], atol=1e-3)
    assert found.image_ids[found.images[0]] == "images/val/photo 2.png"


FAULTS = {
    "0 0.5 0.4 0.2 0.1": "line 1: it has no confidence, so nothing can be ranked; predict again with save_conf=True",
    "0 0.1 0.1 0.3 0.2 0.2 0.4": "line 1: it has no confidence",
    "0 90 40 20 10 0.7": "its box is not in shares of the image",
    "cat 0.5 0.4 0.2 0.1 0.7": "a line of YOLO's results holds numbers",
    "0.5 0.5 0.4 0.2 0.1 0.7": "it does not begin with a class number",
    "0 0.5 nan 0.2 0.1 0.7": "holds a number that is not finite",
    "0 0.5 0.4 0.2": "it has 4 numbers, where a box with its confidence has 6",
    "0 0.5 0.4 0.2 0.1 70": "the confidence, which stands last, is 70",
    "0 0.5 0.4 -0.2 0.1 0.5": "its box has a negative size",
}


@pytest.mark.parametrize("line", FAULTS)
def test_lines_that_are_none_of_its(line: str, yolo: Dataset, tmp_path: Path) -> None:
    (tmp_path / "photo 2.txt").write_text(line)
    with pytest.raises(ValueError, match=FAULTS[line]):
        od.Predictions.from_yolo(tmp_path, yolo)


def test_folders_that_hold_none(yolo: Dataset, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        od.Predictions.from_yolo(tmp_path / "none", yolo)
    with pytest.raises(ValueError, match=r"no .txt files in .*save_txt=True save_conf=True"):
        od.Predictions.from_yolo(tmp_path, yolo)
    (tmp_path / "else.txt").write_text("0 0.5 0.5 0.1 0.1 0.5\n")
    with pytest.raises(
        ValueError,
        match=r"no text file of 1 in .* has the name of an image .* they are else.txt; it has 'images/train/",
    ):
        od.Predictions.from_yolo(tmp_path, yolo)
    one_pixel = yolo.replace(image_sizes=np.zeros((6, 2)), image_paths=[f"/nowhere/{k}" for k in range(6)])
    (tmp_path / "photo 1.txt").write_text("0 0.5 0.5 0.1 0.1 0.5\n")
    with pytest.raises(ValueError, match=r"the size of images/train/photo 1.png is not known"):
        od.Predictions.from_yolo(tmp_path, one_pixel)
