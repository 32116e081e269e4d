"""What is fuzzed: every parser of a file that a person may be given by somebody else.

A target is a good folder and the one file in it that is replaced, and what then reads it. Whatever the file says, that
ends with a value or with an error meant for people.
"""

import contextlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from odkit.data import Dataset, Predictions
from odkit.data.audit import audit
from odkit.data.formats import coco_results, load_dataset, read_label_map
from odkit.runs import open_run, read_config, run_row
from odkit.system import OdkitError
from tests.data.formats import layouts
from tests.helpers import make_predictions, squares

FOUND = Path(__file__).parent / "found"


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        make: Makes a good folder.
        file: The file in it that is replaced.
        read: Reads the folder, or the file.
    """

    make: Callable[[Path], object]
    file: str
    read: Callable[[Path, Path], object]


def _dataset(folder: Path, file: Path) -> None:
    audit(load_dataset(folder, val=0), files=False)


def _run(folder: Path, file: Path) -> None:
    run = open_run(folder)
    run_row(run)
    run.history()
    str(run), run._repr_html_()


def _made_run(folder: Path) -> None:
    from odkit.runs import EventLog, Settings, create_run

    run = create_run(squares(folder.parent / "squares", 8), Settings(epochs=1), folder.parent, "run")
    log = EventLog(run.path / "events.jsonl")
    log.write("start", step=0, from_step=0, steps_per_epoch=2, epochs=1)
    log.write("step", step=1, epoch=1, loss=0.5, learning_rate=0.1, images_per_second=1.0)
    log.write("epoch", epoch=1, epochs=1, step=2, loss=0.5, seconds=2.0)
    log.write("evaluation", epoch=1, step=2, ap=0.5, ap50=0.6, best=True)
    log.write("end", step=2, reason="finished", message="")
    log.close()
    folder.rmdir()
    run.path.rename(folder)


def _weights(folder: Path) -> None:
    from odkit.detection import build_detector
    from odkit.detection.detector import save_detector

    save_detector(build_detector("starter", ("a", "b"), weights="random"), folder / "detector.safetensors")


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


TARGETS: dict[str, Target] = {
    "coco": Target(layouts.coco_one_file, "labels.json", _dataset),
    "voc": Target(layouts.voc_plain, "", _dataset),
    "yolo-labels": Target(layouts.yolo_usual, "", _dataset),
    "yolo-yaml": Target(layouts.yolo_usual, "data.yaml", _dataset),
    "csv": Target(layouts.csv_one_file, "", _dataset),
    "openimages": Target(layouts.openimages_one_file, "", _dataset),
    "cvat": Target(layouts.cvat_task, "", _dataset),
    "createml": Target(layouts.createml_apple, "", _dataset),
    "labelme": Target(layouts.labelme_beside_images, "", _dataset),
    "labelstudio": Target(layouts.labelstudio_json, "", _dataset),
    "kitti": Target(layouts.kitti_as_published, "", _dataset),
    "tfrecord": Target(layouts.tfrecord_one_file, "", _dataset),
    "label-map": Target(_label_map, "map.pbtxt", lambda folder, file: read_label_map(file)),
    "results": Target(_results, "results.json", _read_results),
    "dataset": Target(
        lambda folder: squares(folder, 4).save(folder / "d.npz"),
        "d.npz",
        lambda folder, file: str(Dataset.load(file)),
    ),
    "predictions": Target(
        lambda folder: make_predictions([(0, 1, 0.5, [1, 2, 3, 4])]).save(folder / "p.npz"),
        "p.npz",
        lambda folder, file: str(Predictions.load(file)),
    ),
    "run-file": Target(_config, "run.yaml", lambda folder, file: read_config(file)),
    "run-config": Target(_made_run, "config.json", _run),
    "run-events": Target(_made_run, "events.jsonl", _run),
    "weights": Target(_weights, "detector.safetensors", _load_detector),
}
"""Every target by name."""
_LABELS = (".xml", ".txt", ".csv", ".json", ".tfrecord", ".record")


class Prepared:
    """A target with its folder made."""

    def __init__(self, name: str) -> None:
        self.target = TARGETS[name]
        self.place = Path(
            tempfile.mkdtemp(prefix="odkit-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        )
        self.folder = self.place / "made"
        self.folder.mkdir()
        self.target.make(self.folder)
        files = [path for path in sorted(self.folder.rglob("*")) if path.suffix in _LABELS]
        self.file = self.folder / self.target.file if self.target.file else files[0]
        self.good = self.file.read_bytes()

    def read(self, content: bytes) -> None:
        """Read the folder with this content in its file.

        Raises:
            Exception: What no person should see; errors that are meant for people are none.
        """
        self.file.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(OdkitError, OSError):
                self.target.read(self.folder, self.file)

    def close(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
