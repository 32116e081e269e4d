"""The demo's folder: splits, labels, drawn once, whole or not at all."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import odkit as od
from odkit.data.demo.dataset import DEMO_VERSION, demo_dataset, write_demo
from odkit.data.demo.parts import PARTS, demo_image
from tests.data.demo.read_back import contents_of, labels_of
from tests.helpers import until


def test_splits_and_classes(clean: Path) -> None:
    dataset = demo_dataset(40, seed=3, folder=clean)
    assert dataset.split_counts() == {"train": 28, "val": 8, "test": 4}
    assert dataset.class_names == tuple(PARTS)
    assert min(dataset.class_counts().values()) > 10
    assert dataset.format == "demo"
    assert dataset.root == clean


def test_coco_files_hold_what_the_dataset_holds(clean: Path) -> None:
    dataset = demo_dataset(40, seed=3, folder=clean)
    labels = labels_of(clean)
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
    before = contents_of(folder)
    assert write_demo(folder, images=4) == folder
    assert contents_of(folder) == before


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
