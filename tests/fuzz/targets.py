"""What is fuzzed: every parser of a file that a person may be given by somebody else.

A target is a good folder and the one file in it that is replaced, and what then reads it. Whatever the file says, that
ends with a value or with an error meant for people.
"""

import contextlib
import json
import shutil
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from PIL import Image

from odkit.data import Dataset, Predictions
from odkit.data.audit import audit
from odkit.data.formats import coco_results, load_dataset, read_label_map, write_dataset
from odkit.data.image_facts import inspect_images
from odkit.data.images import ImageReadError, read_pixels
from odkit.runs import open_run, read_config, run_row
from odkit.system import OdkitError
from tests.data.formats import layouts
from tests.fuzz import mutate

FOUND = Path(__file__).parent / "found"


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        make: Makes a good folder.
        file: The file in it that is replaced; a pattern: the first of them, the others are good ones as well.
        read: Reads the folder, or the file.
        form: Changes a good file so that it keeps its form.
        whole: The file's bytes from those that are fuzzed and the good file's, where that is too large.
        part: Those of a good file that are fuzzed.
    """

    make: Callable[[Path], object]
    file: str
    read: Callable[[Path, Path], object]
    form: mutate.Form
    whole: Callable[[bytes, bytes], bytes] = lambda content, good: content
    part: Callable[[bytes], bytes] = lambda good: good


def _dataset(folder: Path, file: Path) -> None:
    dataset = load_dataset(folder, val=0)
    str(dataset), str(audit(dataset, files=False))
    chance = zlib.crc32(file.read_bytes())
    if chance % 8 == 0:  # which takes longer than the rest
        kind = ("coco", "voc", "yolo", "cvat", "createml")[chance // 8 % 5]
        write_dataset(dataset, folder.parent / "written", kind, images="none", partial=True)


def _run(folder: Path, file: Path) -> None:
    from odkit.runs.dashboard import progress

    run = open_run(folder)
    run_row(run)
    run.history()
    str(run), run._repr_html_(), progress.closing_line(run)
    told = progress.Progress()
    for event in run.events():
        told.add(event)
        if event["event"] == "start":
            progress.start_line(event), progress.start_notes(event)
        if event["event"] == "step":
            progress.step_line([event], told)
    progress.duration(told.seconds_left()), told.best
    for row in told.rows:
        progress.epoch_line(row, told.epochs)


def _made_run(folder: Path) -> None:
    from odkit.runs import EventLog, Settings, create_run
    from tests.helpers import squares

    run = create_run(squares(folder.parent / "squares", 8), Settings(epochs=1), folder.parent, "run")
    log = EventLog(run.path / "events.jsonl")
    choices = {
        "image_size": 320,
        "batch_size": 4,
        "precision": "fp32",
        "optimizer": "adamw",
        "learning_rate": 0.1,
    }
    choices |= {"tiles": None, "reasons": {"image_size": "the detector's own", "device": "no GPU"}}
    log.write("start", step=0, from_step=0, steps_per_epoch=9, epochs=1, device="cpu", choices=choices)
    for step in range(1, 6):
        log.write(
            "step", step=step, epoch=1, loss=0.5, learning_rate=0.1, images_per_second=1.0, data_wait=0.1
        )
    log.write("epoch", epoch=1, epochs=1, step=2, loss=0.5, seconds=2.0)
    best = {"epoch": 1, "step": 2, "ap": 0.5, "ap50": 0.6}
    log.write(
        "evaluation", epoch=1, step=2, ap=0.5, ap50=0.6, best=True, best_so_far=best, per_class={"red": 0.5}
    )
    log.write("warning", step=2, message="slow")
    log.write("end", step=2, reason="finished", message="")
    log.close()
    folder.rmdir()
    run.path.rename(folder)


def _weights(folder: Path) -> None:
    from odkit.detection import build_detector
    from odkit.detection.detector import save_detector

    save_detector(build_detector("starter", ("a", "b"), weights="random"), folder / "detector.safetensors")


def _header(good: bytes) -> bytes:
    """What a safetensors file says of its tensors, in JSON, behind the length of it."""
    return good[8 : 8 + int.from_bytes(good[:8], "little")]


def _with_header(content: bytes, good: bytes) -> bytes:
    return len(content).to_bytes(8, "little") + content + good[8 + len(_header(good)) :]


def _load_detector(folder: Path, file: Path) -> None:
    from odkit.detection import load_detector

    load_detector(file, device="cpu")


def _config(folder: Path) -> None:
    (folder / "run.yaml").write_text(
        "detector: starter\nepochs: 3\nlearning_rate: 0.001\n# why\nclasses: [a, b]\n"
    )


def _label_map(folder: Path) -> None:
    (folder / "map.pbtxt").write_text('item { id: 1 name: "a" }\nitem { id: 2 display_name: "b" }\n')


def _results(folder: Path) -> None:
    layouts.coco_one_file(folder)
    ids = json.loads((folder / "labels.json").read_bytes())["annotations"][0]
    rows = [
        {"image_id": ids["image_id"], "category_id": ids["category_id"], "bbox": ids["bbox"], "score": 0.5}
    ]
    (folder / "results.json").write_text(json.dumps(rows))


def _read_results(folder: Path, file: Path) -> None:
    coco_results(file, load_dataset(folder / "labels.json", val=0))


def _saved(folder: Path) -> None:
    from tests.helpers import squares

    squares(folder, 4).save(folder / "d.npz")


def _predicted(folder: Path) -> None:
    from tests.helpers import make_predictions

    make_predictions([(0, 1, 0.5, [1, 2, 3, 4])]).save(folder / "p.npz")


def _pictures(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode, suffixes in {
        "RGB": "png jpg bmp webp tif gif ppm tga avif jp2",
        "L": "png jpg tif pgm",
        "1": "png tif pbm",
        "P": "png gif bmp tif",
        "RGBA": "png webp tif tga",
        "LA": "png",
        "I;16": "png tif",
        "CMYK": "jpg tif",
        "F": "tif",
    }.items():
        for suffix in suffixes.split():
            turned = {"exif": exif} if suffix in ("png", "jpg", "webp", "tif", "avif") else {}
            Image.new(mode, (9, 7)).save(folder / f"{mode.replace(';', '')}.{suffix}", **turned)


def _read_picture(folder: Path, file: Path) -> None:
    with patch.object(Image, "MAX_IMAGE_PIXELS", 2**20):  # larger ones take as long as they are large
        with contextlib.suppress(ImageReadError):
            read_pixels(file)
        inspect_images([str(file)], decode=True, num_workers=1)


TARGETS: dict[str, Target] = {
    "coco": Target(layouts.coco_one_file, "labels.json", _dataset, mutate.json_form),
    "voc": Target(layouts.voc_plain, "Annotations/*", _dataset, mutate.xml_form),
    "yolo-labels": Target(layouts.yolo_usual, "labels/*/*", _dataset, mutate.text_form),
    "yolo-yaml": Target(layouts.yolo_usual, "data.yaml", _dataset, mutate.text_form),
    "csv": Target(layouts.csv_one_file, "labels.csv", _dataset, mutate.text_form),
    "openimages": Target(layouts.openimages_one_file, "*/*bbox.csv", _dataset, mutate.text_form),
    "openimages-classes": Target(
        layouts.openimages_one_file, "*/*descriptions.csv", _dataset, mutate.text_form
    ),
    "cvat": Target(layouts.cvat_task, "annotations.xml", _dataset, mutate.xml_form),
    "createml": Target(layouts.createml_apple, "annotations.json", _dataset, mutate.json_form),
    "labelme": Target(layouts.labelme_beside_images, "*.json", _dataset, mutate.json_form),
    "labelstudio": Target(layouts.labelstudio_json, "*.json", _dataset, mutate.json_form),
    "kitti": Target(layouts.kitti_as_published, "label_2/*", _dataset, mutate.text_form),
    "tfrecord": Target(layouts.tfrecord_one_file, "*.tfrecord", _dataset, mutate.records_form),
    "label-map": Target(_label_map, "map.pbtxt", lambda _, file: read_label_map(file), mutate.text_form),
    "results": Target(_results, "results.json", _read_results, mutate.json_form),
    "dataset": Target(_saved, "d.npz", lambda _, file: str(Dataset.load(file)), mutate.archive_form),
    "predictions": Target(
        _predicted, "p.npz", lambda _, file: str(Predictions.load(file)), mutate.archive_form
    ),
    "run-file": Target(_config, "run.yaml", lambda _, file: read_config(file), mutate.text_form),
    "run-config": Target(_made_run, "config.json", _run, mutate.json_form),
    "run-events": Target(_made_run, "events.jsonl", _run, mutate.json_form),
    "weights": Target(
        _weights, "detector.safetensors", _load_detector, mutate.json_form, _with_header, _header
    ),
    "picture": Target(_pictures, "*", _read_picture, mutate.picture_form),
}
"""Every target by name."""


class Prepared:
    """A target with its folder made."""

    def __init__(self, name: str, place: Path) -> None:
        self.target = TARGETS[name]
        self.place = place
        self.folder = place / "made"
        self.folder.mkdir()
        self.target.make(self.folder)
        files = sorted(self.folder.glob(self.target.file))
        self.file = files[0]
        self.good = self.file.read_bytes()
        self.seeds = [self.target.part(file.read_bytes()) for file in files]

    def read(self, content: bytes) -> None:
        """Read the folder with this content in its file.

        Raises:
            Exception: What no person should see; errors that are meant for people are none.
        """
        self.file.write_bytes(self.target.whole(content, self.good))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with contextlib.suppress(OdkitError, OSError):
                    self.target.read(self.folder, self.file)
        finally:
            shutil.rmtree(self.place / "written", ignore_errors=True)
