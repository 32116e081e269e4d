"""Names in label files lead to no file outside of the dataset's folder."""

import os
from pathlib import Path

import pytest

from odkit.data.formats.load import load_dataset
from tests.data.formats.layouts import (
    annotation,
    by_stem,
    check,
    coco,
    createml,
    csv_rows,
    cvat,
    labelme,
    labelme_beside_images,
    openimages,
    picture,
    pictures,
    put,
    yolo_list_files,
)

OUT = [
    "../secret.jpg",
    "../../secret.jpg",
    "images/../../secret.jpg",
    "/etc/secret.jpg",
    "{outside}/secret.jpg",
    "..\\secret.jpg",
    "C:\\secret.jpg",
    "file:///etc/secret.jpg",
    "https://example.org/secret.jpg",
    "images/\0secret.jpg",
    "door/../../secret.jpg",
]


def leads_out(folder: Path, name: str, kind: str) -> None:
    """A dataset of the truth and one label more, for the image `name`."""
    (folder / "door").symlink_to(folder.parent / "outside", target_is_directory=True)
    if kind == "coco":
        content = coco(name="images/{stem}.jpg")
        content["images"].append({"id": 5, "file_name": name, "width": 9, "height": 9})
        content["annotations"].append(annotation(77, image_id=5))
        put(folder / "labels.json", content)
        pictures(folder, "images/{stem}.jpg")
    elif kind == "csv":
        put(folder / "labels.csv", csv_rows(name="images/{stem}.jpg") + f'"{name}",9,9,cat,1,2,3,4\n')
        pictures(folder, "images/{stem}.jpg")
    elif kind == "openimages":
        box = f'"{name.removesuffix(".jpg")}",xclick,cat,1,0,1,0,1,0,0,0,0,0\n'
        put(folder / "boxes.csv", openimages(codes={"cat": "cat", "dog": "dog"}) + box)
        put(folder / "images.csv", "ImageID\na\nb\nc\nd\n")
        pictures(folder, "images/{stem}.jpg")
    elif kind == "cvat":
        more = f'</image><image id="9" name="{name}" width="9" height="9">'
        put(folder / "annotations.xml", cvat(extra=more.replace("images/\0", "../")))  # XML holds no zero
        pictures(folder, "images/{stem}.jpg")
    elif kind == "createml":
        put(folder / "labels.json", [*createml(), {"image": name, "annotations": []}])
        pictures(folder, "images/{stem}.jpg")
    elif kind == "labelme":
        labelme_beside_images(folder)
        put(folder / "x.json", labelme("a") | {"imagePath": name})
    else:
        yolo_list_files(folder)
        with (folder / "val.txt").open("a") as file:
            file.write(name + "\n")


@pytest.mark.parametrize("kind", ["coco", "csv", "yolo", "openimages", "cvat", "createml", "labelme"])
@pytest.mark.parametrize("name", OUT)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "a" / "pets"
    folder.mkdir(parents=True)
    (tmp_path / "a" / "outside").mkdir()
    for place in ("", "a/", "outside/"):
        picture(tmp_path / place / "secret.jpg", (9, 9))
    name = name.format(outside=tmp_path / "outside")
    leads_out(folder, name, kind)
    dataset = load_dataset(folder, format=kind)
    assert sorted(by_stem(dataset)) == ["a", "b", "c", "d"]
    (problem,) = [p for p in dataset.source_problems if p.kind != "image_without_labels"]
    assert (problem.kind, problem.severity) == ("path_outside", "fatal")
    assert "secret" in problem.message
    inside = str(folder) + os.sep
    assert all(os.path.normpath(path).startswith(inside) for path in dataset.image_paths)


@pytest.mark.parametrize(
    "start", ["/home/ann/pets/", "C:\\Users\\ann\\pets\\", "C:/pets/", "\\\\server\\share\\"]
)
def test_absolute_paths_of_another_machine_are_taken_by_their_ends(tmp_path: Path, start: str) -> None:
    pictures(tmp_path, "images/{stem}.jpg")
    put(tmp_path / "labels.json", coco(name=start + "images/{stem}.jpg"))
    dataset = load_dataset(tmp_path)
    check(dataset, splits=False)
    assert "of another machine taken for the images here that end alike" in " ".join(dataset.notes)


def test_of_two_paths_that_could_mean_an_image_the_one_that_agrees_in_more_has_it(tmp_path: Path) -> None:
    pictures(tmp_path, "cam1/{stem}.jpg")
    content = coco(name="/data/cam1/{stem}.jpg")
    other = {"id": 5, "file_name": "/data/cam2/a.jpg", "width": 64, "height": 48}
    content["images"].insert(0, other)
    content["annotations"].append(annotation(77, image_id=5))
    put(tmp_path / "labels.json", content)
    dataset = load_dataset(tmp_path)
    assert sorted(by_stem(dataset)) == ["a", "b", "c", "d"]
    assert dataset.num_boxes == 5
    (problem,) = dataset.source_problems
    assert (problem.kind, problem.severity) == ("path_outside", "fatal")
    assert "cam2" in problem.message


def test_links_are_followed(tmp_path: Path) -> None:
    """People keep images on another disk; who puts a link into a folder owns the folder."""
    pictures(tmp_path / "disk", "{stem}.jpg")
    put(tmp_path / "pets/labels.json", coco())
    (tmp_path / "pets/images").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "pets/loop").symlink_to(tmp_path / "pets", target_is_directory=True)
    check(load_dataset(tmp_path / "pets"), splits=False)
