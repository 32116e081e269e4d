import hashlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image

import odkit as od
from odkit.data.boxes import box_iou
from odkit.data.dataset import Dataset, file_hash
from odkit.data.demo.dataset import DEMO_VERSION, demo_dataset, write_demo
from odkit.data.demo.faults import demo_faults
from odkit.data.demo.parts import PARTS, demo_image
from tests.helpers import until

LABEL_FAULTS = {
    "no_area",
    "inverted",
    "outside",
    "partly_outside",
    "tiny",
    "duplicate_box",
    "two_classes",
    "wrong_class",
    "bad_box",
    "missing_box",
    "spurious_box",
    "class_name_variant",
    "unused_class",
}
FILE_FAULTS = {
    "duplicate_image",
    "duplicate_across_splits",
    "image_without_labels",
    "missing_image",
    "unreadable_image",
    "wrong_size",
    "exif_orientation",
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo") / "clean", images=40, seed=3)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo") / "faulty", images=60, seed=3, faults=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ODKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _contents(folder: Path) -> dict[str, str]:
    """Hash of every file; of a dataset.npz the fingerprint, as it names the folder it lies in."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (
            Dataset.load(path).fingerprint() if path.suffix == ".npz" else file_hash(path)
        )
        for path in files
    }


def _labels(folder: Path) -> dict[str, dict]:
    """COCO's images by id, each with its annotations under "labels" and its split."""
    images = {}
    for split in ("train", "val", "test"):
        coco = orjson.loads((folder / "annotations" / f"instances_{split}.json").read_bytes())
        names = {c["id"]: c["name"] for c in coco["categories"]}
        here = {image["id"]: {**image, "labels": {}, "split": split} for image in coco["images"]}
        for label in coco["annotations"]:
            x, y, w, h = label["bbox"]
            here[label["image_id"]]["labels"][label["id"]] = (
                [x, y, x + w, y + h],
                names[label["category_id"]],
            )
        images.update({f"{split}/{image['file_name']}": image for image in here.values()})
    return images


# -- the pictures ----------------------------------------------------------------------------------------------------


def test_same_seed_same_image_other_seed_another() -> None:
    def draw(seed, index):
        return hashlib.sha256(b"".join(a.tobytes() for a in demo_image(seed, index))).hexdigest()

    assert draw(5, 2) == draw(5, 2)
    assert len({draw(5, 2), draw(5, 3), draw(6, 2)}) == 3


def test_another_process_draws_the_same_bytes(clean: Path, tmp_path: Path) -> None:
    code = "import sys; from odkit.data.demo.dataset import write_demo; write_demo(sys.argv[1], images=40, seed=3)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True)
    assert _contents(tmp_path / "again") == _contents(clean)


def test_boxes_lie_inside_and_are_large_enough() -> None:
    counts: Counter[int] = Counter()
    empty = 0
    for index in range(60):
        rgb, boxes, classes = demo_image(0, index)
        height, width, _ = rgb.shape
        assert rgb.dtype == np.uint8
        assert boxes.dtype == np.float32
        assert classes.dtype == np.int64
        assert len(boxes) == len(classes)
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= [width, height]).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 4).all()
        counts.update(classes.tolist())
        empty += len(boxes) == 0
    assert set(counts) == set(range(len(PARTS)))
    assert max(counts.values()) < 2 * min(counts.values())
    assert 0 < empty < 12


# -- the folder ------------------------------------------------------------------------------------------------------


def test_splits_and_classes(clean: Path) -> None:
    dataset = demo_dataset(40, seed=3, folder=clean)
    assert dataset.split_counts() == {"train": 28, "val": 8, "test": 4}
    assert dataset.class_names == tuple(PARTS)
    assert min(dataset.class_counts().values()) > 10
    assert dataset.format == "demo"
    assert dataset.root == clean


def test_coco_files_hold_what_the_dataset_holds(clean: Path) -> None:
    dataset = demo_dataset(40, seed=3, folder=clean)
    labels = _labels(clean)
    assert sorted(labels) == sorted(dataset.image_ids)
    for index, image_id in enumerate(dataset.image_ids):
        rows = dataset.boxes_of(index)
        there = labels[image_id]["labels"]
        assert list(map(str, there)) == list(dataset.box_ids[rows])
        boxes = np.array([box for box, _ in there.values()], np.float32).reshape(-1, 4)
        assert np.array_equal(boxes, dataset.boxes[rows])
        assert [name for _, name in there.values()] == [
            dataset.class_names[k] for k in dataset.box_classes[rows]
        ]
        with Image.open(dataset.image_paths[index]) as image:
            assert (
                image.size
                == tuple(dataset.image_sizes[index])
                == (labels[image_id]["width"], labels[image_id]["height"])
            )
    numbers = [image["id"] for image in labels.values()]
    assert len(set(numbers)) == len(numbers)


def test_pictures_on_disk_are_the_drawn_ones(clean: Path) -> None:
    dataset = demo_dataset(40, seed=3, folder=clean)
    rgb, boxes, _ = demo_image(3, 7)
    index = int(np.flatnonzero([str(i).endswith("bench_0007.jpg") for i in dataset.image_ids])[0])
    stored = np.asarray(Image.open(dataset.image_paths[index]), np.float32)
    assert np.abs(stored - rgb).mean() < 12  # JPEG
    assert np.array_equal(dataset.boxes[dataset.boxes_of(index)], boxes)


def test_the_clean_demo_passes_its_own_audit(clean: Path) -> None:
    audit = od.audit(demo_dataset(40, seed=3, folder=clean))
    assert [f for f in audit.findings if f.severity == "fatal"] == []


def test_moved_folder_still_reads(clean: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(clean, moved)
    dataset = demo_dataset(40, seed=3, folder=moved)
    assert all(str(path).startswith(str(moved)) and os.path.exists(path) for path in dataset.image_paths)


def test_drawn_once_then_read(own_cache: Path) -> None:
    first = demo_dataset(6, seed=1)
    (folder,) = own_cache.iterdir()
    assert folder.name.startswith(f"demo-v{DEMO_VERSION}-6-")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    second = demo_dataset(6, seed=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert first.fingerprint() == second.fingerprint()
    assert demo_dataset(6, seed=2).fingerprint() != first.fingerprint()


def test_damaged_cache_is_drawn_again(own_cache: Path) -> None:
    whole = demo_dataset(6, seed=1)
    os.unlink(whole.image_paths[0])
    assert os.path.exists(demo_dataset(6, seed=1).image_paths[0])
    (own_cache / next(own_cache.iterdir()).name / "demo.json").unlink()
    assert demo_dataset(6, seed=1).fingerprint() == whole.fingerprint()


def test_interrupted_drawing_leaves_nothing_behind(own_cache: Path) -> None:
    """Killed in the middle, as by a power cut: the next call draws all of it."""
    code = "from odkit.data.demo.dataset import demo_dataset; demo_dataset(4000)"
    process = subprocess.Popen([sys.executable, "-c", code], text=True)
    try:
        until(lambda: list(own_cache.glob(".drawing-*/train/*.jpg")), process=process)
    finally:
        process.kill()
        process.wait(60)
    assert [p for p in own_cache.iterdir() if not p.name.startswith(".drawing-")] == []
    assert len(demo_dataset(6)) == 6


def test_two_processes_at_once(tmp_path: Path) -> None:
    code = "import sys; import odkit as od; print(od.demo_dataset(12, folder=sys.argv[1]).fingerprint())"
    command = [sys.executable, "-c", code, str(tmp_path / "demo")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert printed == {demo_dataset(12, folder=tmp_path / "demo").fingerprint()}
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


def test_writes_into_an_empty_folder_and_leaves_a_whole_one_alone(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    assert write_demo(folder, images=4) == folder
    before = _contents(folder)
    assert write_demo(folder, images=4) == folder
    assert _contents(folder) == before


@pytest.mark.parametrize(("images", "seed"), [(5, 0), (4, 1)])
def test_refuses_another_demo(tmp_path: Path, images: int, seed: int) -> None:
    write_demo(tmp_path / "demo", images=4)
    with pytest.raises(FileExistsError, match="holds another demo"):
        write_demo(tmp_path / "demo", images=images, seed=seed)


def test_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"not empty \(it holds thesis.tex\)"):
        write_demo(tmp_path, images=4)
    with pytest.raises(FileExistsError, match="is a file"):
        write_demo(tmp_path / "thesis.tex", images=4)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"images": 2}, "images=2 is too few: at least 3"),
        ({"images": 20, "faults": True}, "at least 60"),
        ({"seed": -1}, "seed=-1 must be 0 or more"),
    ],
)
def test_impossible_arguments(arguments: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        demo_dataset(**arguments)


def test_smallest_demo_has_all_splits() -> None:
    assert demo_dataset(3).split_counts() == {"train": 1, "val": 1, "test": 1}


def test_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ODKIT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "home").write_text("a file: nothing can be made below it, not even by root")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert str(demo_dataset(3).root).startswith(str(tmp_path / "odkit-"))


# -- planted faults --------------------------------------------------------------------------------------------------


def test_every_kind_is_planted_and_recorded(faulty: Path) -> None:
    faults = demo_faults(faulty)
    assert {fault["kind"] for fault in faults} == LABEL_FAULTS | FILE_FAULTS
    ids = [fault["image"] for fault in faults if fault["image"]]
    assert len(set(ids)) == len(ids)  # one fault an image: what is found there is that fault


def test_no_faults_recorded_in_a_clean_demo(clean: Path) -> None:
    with pytest.raises(FileNotFoundError, match="faults=True"):
        demo_faults(clean)


def test_faults_are_really_in_the_labels(faulty: Path) -> None:
    labels = _labels(faulty)
    for fault in demo_faults(faulty):
        kind, image = fault["kind"], labels.get(fault["image"])
        if fault["annotation"] is not None:
            box, name = image["labels"][fault["annotation"]]
            assert box == fault["box"]
            left, top, right, bottom = box
            width, height = image["width"], image["height"]
        if kind == "no_area":
            assert (right - left) * (bottom - top) == 0
        elif kind == "inverted":
            assert right < left
            assert bottom < top
        elif kind == "outside":
            assert left >= width
        elif kind == "partly_outside":
            assert min(left, top) < 0 or right > width or bottom > height
        elif kind == "tiny":
            assert max(right - left, bottom - top) <= 1
        elif kind == "duplicate_box":
            assert image["labels"][fault["annotations"][0]] == (box, name)
        elif kind == "two_classes":
            assert image["labels"][fault["annotations"][0]] == (box, fault["true_class"])
            assert name != fault["true_class"]
        elif kind == "wrong_class":
            assert name == fault["class"] != fault["true_class"]
        elif kind == "bad_box":
            overlap = box_iou(np.array([box], np.float32), np.array([fault["true_box"]], np.float32))[0, 0]
            assert 0.2 < overlap < 0.75
        elif kind == "missing_box":
            assert fault["true_box"] not in [b for b, _ in image["labels"].values()]
        elif kind == "spurious_box":
            others = [b for k, (b, _) in image["labels"].items() if k != fault["annotation"]]
            assert box_iou(np.array([box], np.float32), np.array(others, np.float32)).max() == 0
        elif kind == "class_name_variant":
            names = [name for image in labels.values() for key, (_, name) in image["labels"].items()
                     if key in fault["annotations"]]  # fmt: skip
            assert names
            assert set(names) == {"Washer "}


def test_faults_are_really_in_the_files(faulty: Path) -> None:
    labels = _labels(faulty)
    for fault in demo_faults(faulty):
        kind, path = fault["kind"], faulty / str(fault["image"])
        if kind in ("duplicate_image", "duplicate_across_splits"):
            twin = fault["other_image"]
            assert file_hash(path) == file_hash(faulty / twin) != ""
            assert list(labels[twin]["labels"].values()) == list(labels[fault["image"]]["labels"].values())
            assert (labels[twin]["split"] == labels[fault["image"]]["split"]) == (kind == "duplicate_image")
        elif kind == "image_without_labels":
            assert path.is_file()
            assert fault["image"] not in labels
        elif kind == "missing_image":
            assert not path.exists()
            assert fault["image"] in labels
        elif kind == "unreadable_image":
            with Image.open(path) as image, pytest.raises(OSError, match="truncated"):
                image.load()
        elif kind == "wrong_size":
            with Image.open(path) as image:
                assert list(image.size) == fault["true_size"] != [labels[fault["image"]]["width"], 0]
                assert image.width != labels[fault["image"]]["width"]
        elif kind == "exif_orientation":
            with Image.open(path) as image:
                assert image.getexif()[0x0112] == 6
                assert image.size == (labels[fault["image"]]["width"], labels[fault["image"]]["height"])
                assert list(image.size) == fault["true_size"][::-1]


def test_boxes_of_the_turned_image_lie_on_the_stored_pixels(faulty: Path) -> None:
    """Turning the scene as it was stored puts every object where its label says."""
    labels = _labels(faulty)
    fault = next(f for f in demo_faults(faulty) if f["kind"] == "exif_orientation")
    index = int(fault["image"][-8:-4])
    rgb, boxes, _ = demo_image(3, index)
    stored = np.asarray(Image.open(faulty / fault["image"]), np.float32)
    assert np.abs(stored - np.rot90(rgb)).mean() < 12
    for (left, top, right, bottom), (box, _) in zip(
        boxes, labels[fault["image"]]["labels"].values(), strict=True
    ):
        there = np.zeros(rgb.shape[:2], bool)
        there[int(top) : int(bottom), int(left) : int(right)] = True
        rows, columns = np.nonzero(np.rot90(there))
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_planting_is_deterministic(faulty: Path, tmp_path: Path) -> None:
    again = write_demo(tmp_path / "again", images=60, seed=3, faults=True)
    assert _contents(again) == _contents(faulty)


def test_the_audit_finds_every_fault_it_can_see(faulty: Path) -> None:
    """All kinds but those that only a detector can tell: a wrong class, a bad, missing or spurious box."""
    dataset = demo_dataset(60, seed=3, faults=True, folder=faulty)
    findings = od.audit(dataset).findings
    found = {(f.kind, f.image) for f in findings}
    kinds = {f.kind for f in findings}
    for fault in demo_faults(dataset):
        if fault["kind"] in ("wrong_class", "bad_box", "missing_box", "spurious_box"):
            continue
        if fault["kind"] in ("class_name_variant", "unused_class", "image_without_labels"):
            assert fault["kind"] in kinds
        elif fault["kind"] in ("duplicate_image", "duplicate_across_splits"):
            assert {(fault["kind"], fault["image"]), (fault["kind"], fault["other_image"])} & found, fault
        else:
            assert (fault["kind"], fault["image"]) in found, fault


def test_repaired_demo_can_be_trained_on(faulty: Path) -> None:
    repaired = od.repaired(demo_dataset(60, seed=3, faults=True, folder=faulty))
    assert [f for f in od.audit(repaired).findings if f.severity == "fatal"] == []


def test_jpeg_quality_varies(clean: Path) -> None:
    tables = set()
    for path in (clean / "train").iterdir():
        with Image.open(BytesIO(path.read_bytes())) as image:
            tables.add(tuple(image.quantization[0]))
    assert len(tables) > 10
