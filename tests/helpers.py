"""What tests share: small datasets with real image files, cases, oracles, and runs."""

import contextlib
import importlib
import io
import math
import os
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from odkit.analysis import Suspect
from odkit.data import Dataset, Predictions, box_iou
from odkit.data.demo.faults import demo_faults
from odkit.detection import Detector, build_detector
from odkit.runs import Run, Settings, create_run


def extra(module: str, *, required: bool = True) -> Any:
    """An optional package that odkit's own environment does without (tests/extras.lock): skipped where it is missing.

    With ODKIT_REQUIRE_EXTRAS it is a failure, where that lock has it (`required`).
    """
    if required and os.environ.get("ODKIT_REQUIRE_EXTRAS"):
        return importlib.import_module(module)
    return pytest.importorskip(module, reason=f"{module} is not installed: make test-extras")


def squares(folder: Path, images: int = 16, *, size: int = 64, seed: int = 0, val: float = 0.25) -> Dataset:
    """Blue and red squares on grey noise: two classes, two boxes an image, splits dealt."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[Any]] = {"image_paths": [], "boxes": [], "box_classes": [], "box_images": []}
    for index in range(images):
        pixels = rng.integers(90, 120, (size, size, 3)).astype(np.uint8)
        for kind, colour in enumerate(((20, 20, 250), (250, 20, 20))):
            x, y = rng.integers(0, size - 20, 2)
            pixels[y : y + 20, x : x + 20] = colour
            columns["boxes"].append([x, y, x + 20, y + 20])
            columns["box_classes"].append(kind)
            columns["box_images"].append(index)
        path = folder / f"{index:03d}.png"
        Image.fromarray(pixels).save(path)
        columns["image_paths"].append(str(path))
    dataset = Dataset(
        name="squares",
        root=folder,
        class_names=("blue", "red"),
        image_sizes=np.full((images, 2), size, np.int32),
        **columns,
    )
    return dataset.with_splits(val=val) if val else dataset


def made_video(
    path: Path, frames: int, *, rate: Fraction | int = 25, turned: int = 0, sound: bool = False
) -> Path:
    """A video of a square that moves over grey noise, 64 x 48 pixels; `turned` degrees, by its metadata."""
    import av

    noise = np.random.default_rng(0).integers(90, 120, (48, 64, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if turned:
            stream.set_display_rotation(turned)
        silent = container.add_stream("aac", rate=8000) if sound else None
        for number in range(frames):
            pixels = noise.copy()
            pixels[10:30, number % 40 : number % 40 + 20] = 20, 20, 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
        if silent is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.rate = 8000
            container.mux([*silent.encode(silence), *silent.encode()])
    return path


NAMES = ("cat", "dog", "bird", "fish")


def make_dataset(rows, *, images=1, names=NAMES, crowd=None):
    """A dataset from (image, class, box) rows."""
    return Dataset(
        name="made",
        root="/made",
        class_names=names,
        image_paths=[f"/made/{i}.jpg" for i in range(images)],
        image_sizes=[(400, 400)] * images,
        boxes=np.array([box for _, _, box in rows], np.float32).reshape(-1, 4),
        box_classes=[c for _, c, _ in rows],
        box_images=[i for i, _, _ in rows],
        box_crowd=crowd,
    )


def make_predictions(rows, *, names=NAMES, image_ids=()):
    """Predictions from (image, class, score, box) rows."""
    return Predictions(
        boxes=np.array([box for *_, box in rows], np.float32).reshape(-1, 4),
        scores=[score for _, _, score, _ in rows],
        classes=[c for _, c, _, _ in rows],
        images=[i for i, *_ in rows],
        class_names=names,
        image_ids=image_ids,
    )


def random_case(seed, *, images=12, ties=False, crowd=0.1, present=3, gap=0.2, step=8, wider=1):
    """Boxes of all sizes with jittered, doubled, misnamed and invented predictions; the last class has no boxes.

    With ties, scores have one digit, and corners lie on a grid, the right and lower ones a little further out.
    """
    rng = np.random.default_rng(seed)
    grid = (
        (lambda box: np.round(np.asarray(box) / step) * step + [0, 0, wider, wider]) if ties else np.asarray
    )

    def anywhere():
        corner, size = rng.uniform(0, 300, 2), np.exp(rng.uniform(np.log(6), np.log(180), 2))
        return np.r_[corner, corner + size]

    truth, found, crowds = [], [], []
    for image in range(images):
        for _ in range(rng.integers(1, 8) if rng.random() > gap else 0):
            box, label = anywhere(), int(rng.integers(present))
            truth.append((image, label, grid(box)))
            crowds.append(rng.random() < crowd)
            size = np.tile(box[2:] - box[:2], 2)
            for _ in range(rng.integers(0, 4)):
                guess = label if rng.random() < 0.8 else int(rng.integers(len(NAMES)))
                found.append((image, guess, rng.random(), grid(box + rng.normal(0, 0.07, 4) * size)))
        invented = rng.integers(0, 12) if rng.random() > gap else 0
        labels = rng.integers(len(NAMES), size=invented).tolist()
        found.extend((image, label, rng.random(), grid(anywhere())) for label in labels)
    found = [
        (i, c, round(s, 1) if ties else s, np.r_[b[:2], np.maximum(b[2:], b[:2] + 1)]) for i, c, s, b in found
    ]
    return make_dataset(truth, images=images, crowd=crowds), make_predictions(found)


def pycocotools_arrays(dataset, predictions, limit=100):
    """Precision [10, 101, K, 4] and recall [10, K, 4, 3] of all box sizes, by pycocotools; -1 for nothing."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(box):
        x1, y1, x2, y2 = map(float, box)
        return [x1, y1, x2 - x1, y2 - y1]

    def row(n, image, label, box, **more):
        return {
            "id": n + 1,
            "image_id": int(image) + 1,
            "category_id": int(label) + 1,
            "bbox": xywh(box),
            **more,
        }

    truth, found = COCO(), COCO()
    columns = zip(dataset.box_images, dataset.box_classes, dataset.boxes, dataset.box_crowd, strict=True)
    images = [{"id": i + 1, "width": 400, "height": 400} for i in range(len(dataset))]
    names = [{"id": k + 1, "name": name} for k, name in enumerate(dataset.class_names)]
    boxes = [
        row(n, i, k, b, iscrowd=int(c), area=xywh(b)[2] * xywh(b)[3])
        for n, (i, k, b, c) in enumerate(columns)
    ]
    truth.dataset = {"images": images, "categories": names, "annotations": boxes}
    columns = zip(predictions.images, predictions.classes, predictions.boxes, predictions.scores, strict=True)
    results = [row(n, i, k, b, score=float(s)) for n, (i, k, b, s) in enumerate(columns)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        if results:
            found = truth.loadRes(results)
        else:  # loadRes cannot read an empty list
            found.dataset = {"images": images, "categories": names, "annotations": []}
            found.createIndex()
        engine = COCOeval(truth, found, "bbox")
        engine.params.maxDets = [1, min(10, limit), limit]
        engine.evaluate()
        engine.accumulate()
    return engine.eval["precision"][..., 2], engine.eval["recall"]


def pycocotools_figures(dataset, predictions, limit=100):
    """The twelve figures, and AP, AP50, AP75, AR of each class [K, 4], by pycocotools; nan where it says -1."""
    return figures_of(*pycocotools_arrays(dataset, predictions, limit))


def figures_of(p, r):
    """The same of pycocotools' precision and recall (see `pycocotools_arrays`)."""

    def mean(values):
        return values[values > -1].mean() if (values > -1).any() else math.nan

    figures = [mean(p[..., 0]), mean(p[0, ..., 0]), mean(p[5, ..., 0]), *(mean(p[..., a]) for a in (1, 2, 3))]
    figures += [mean(r[:, :, 0, m]) for m in range(3)] + [mean(r[:, :, a, 2]) for a in (1, 2, 3)]
    per_class = [
        [mean(p[:, :, k, 0]), mean(p[0, :, k, 0]), mean(p[5, :, k, 0]), mean(r[:, k, 0, 2])]
        for k in range(r.shape[1])
    ]
    return np.array(figures), np.array(per_class)


ORACLE_CASES = {
    "plain": {"crowd": 0},
    "crowds": {"crowd": 0.4},
    "ties in score and overlap": {"ties": True, "crowd": 0.2},
    "ties on a coarse grid, overlaps of exactly 0.5 and boxes without area": {
        "ties": True,
        "step": 40,
        "wider": 0,
    },
    "many images without boxes or predictions": {"gap": 0.7},
    "one class with boxes": {"present": 1},
}


SMALL = {"weights": "random", "num_workers": 0, "image_size": 64, "batch_size": 4, "epochs": 2}


def trained(dataset: Dataset, folder: Path, name: str, **settings: object) -> Run:
    """A run trained in this process."""
    from odkit.training import work

    run = create_run(dataset, Settings(**{**SMALL, **settings}), folder, name)  # type: ignore[arg-type]
    assert work(run.path) == 0
    return run


def started(dataset: Dataset, folder: Path, name: str, **settings: object) -> Run:
    """A run trained by a worker process; its sums have the same order in every such process."""
    run = create_run(dataset, Settings(**{**SMALL, **settings}), folder, name)  # type: ignore[arg-type]
    return finished(run.start())


def until(
    ready: Callable[[], object], *, seconds: float = 120, process: "subprocess.Popen[str] | None" = None
) -> None:
    """Wait for something that must come, while a process lives; the time limit is there for a test that would hang."""
    end = time.monotonic() + seconds
    while not ready():
        assert process is None or process.poll() is None, process.communicate(timeout=10)
        assert time.monotonic() < end, f"it did not come within {seconds:g} s"
        time.sleep(0.02)


def finished(run: Run) -> Run:
    until(lambda: not run.alive, seconds=400)
    assert run.state == "finished", run.trouble()
    return run


def facts(run: Run) -> list[tuple[object, ...]]:
    """What a run did, without times and file sizes."""
    keep = (
        "event",
        "step",
        "epoch",
        "loss",
        "losses",
        "learning_rate",
        "grad_norm",
        "ap",
        "ap50",
        "best",
        "per_class",
    )
    events = [e for e in run.events() if e["event"] in ("step", "epoch", "evaluation")]
    return [tuple((k, str(e[k])) for k in keep if k in e) for e in events]


def same_weights(first: Run, second: Run) -> bool:
    import torch

    a, b = (torch.load(run.checkpoints()[-1], weights_only=True) for run in (first, second))
    pairs = (a["detector"], b["detector"]), (a["average"]["detector"], b["average"]["detector"])
    return all(torch.equal(mine[key], theirs[key]) for mine, theirs in pairs for key in mine)


def wait_for_steps(run: Run, steps: int, *, seconds: float = 120) -> None:
    until(lambda: sum(e["event"] == "step" for e in run.events(raw=True)) >= steps, seconds=seconds)


def worker_pid(run: Run) -> int:
    return int(next(e for e in reversed(run.events(raw=True)) if e["event"] == "start")["machine"]["pid"])


def found_in(dataset: Dataset) -> Predictions:
    """Every box found exactly, but the first missed, the second's class wrong, and one too many on the last image."""
    rows = np.arange(1, dataset.num_boxes)
    classes = dataset.box_classes[rows].copy()
    classes[0] = 1 - classes[0]
    return Predictions(
        boxes=np.concatenate([dataset.boxes[rows], [[1, 1, 9, 9]]]),
        scores=np.append(np.linspace(0.9, 0.6, len(rows)), 0.8),
        classes=np.append(classes, 0),
        images=np.append(dataset.box_images[rows], len(dataset) - 1),
        class_names=dataset.class_names,
        image_ids=tuple(dataset.image_ids),
    )


# The demo's planted label faults that repaired() leaves, because only somebody who looks at the picture can tell.
HIDDEN_FAULTS = ("wrong_class", "missing_box", "bad_box", "spurious_box", "two_classes", "tiny")


def fault_ranks(dataset: Dataset, suspects: Sequence[Suspect]) -> list[int]:
    """Where in a list of suspects each planted fault stands: how good is the list?

    A fault is found by a suspect about its very box or, where a label is missing, by one whose suggestion lies on the
    object (IoU from 0.5).

    Args:
        dataset: The demo with planted faults, repaired or not, or a part of it.
        suspects: Of `Mistakes.suspects`, the most suspicious first.

    Returns:
        A rank (0-based, -1: not in the list) for each fault of `HIDDEN_FAULTS` in the dataset's images.
    """
    there = set(dataset.image_ids)
    return [
        next((k for k, one in enumerate(suspects) if _points_at(one, fault)), -1)
        for fault in demo_faults(dataset)
        if fault["kind"] in HIDDEN_FAULTS and fault["image"] in there
    ]


def _points_at(suspect: Suspect, fault: Mapping[str, Any]) -> bool:
    if suspect.image_id != fault["image"]:
        return False
    if fault["kind"] != "missing_box":
        return suspect.box_id == str(fault["annotation"])
    if suspect.kind != "missing" or suspect.suggestion is None:
        return False
    return float(box_iou([suspect.suggestion], [fault["true_box"]])[0, 0]) >= 0.5


def make_lab(environment: Path) -> None:
    """`make lab` in an environment whose JupyterLab ends at once: what it prepares is left."""
    (environment / "bin").mkdir(parents=True)
    for name in ("pip", "jupyter"):
        (environment / "bin" / name).write_text("#!/bin/sh\nexit 0\n")
        (environment / "bin" / name).chmod(0o755)
    (environment / ".ready").touch()
    command = ["make", "lab", f"VENV={environment}"]
    subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def count_syncs() -> Iterator[list[str]]:
    """What is computed within, on a CPU: each place where the host would wait for a GPU, and how often.

    Operators whose result's size or value the host must know, and tensors that cross between host and device. Not
    counted: `values[mask] = 0.0`, which CUDA does as `masked_fill`.
    """
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    waits: list[str] = []

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            if _waits(operator, args, kwargs or {}):
                waits.append(f"{operator} in {_asking_line()}")
            return operator(*args, **(kwargs or {}))

    class Calls(TorchFunctionMode):  # these reach no operator on a CPU
        def __torch_function__(self, function, types, args=(), kwargs=None):
            name = getattr(function, "__name__", "")
            made = name in ("tensor", "as_tensor") and not hasattr(args[0], "device")
            if name in ("tolist", "cpu") or (made and (kwargs or {}).get("device") is not None):
                waits.append(f"{name} in {_asking_line()}")
            return function(*args, **(kwargs or {}))

    with Operators(), Calls():
        yield waits


# Their results' sizes are known on the device alone, or their result is the host's (some come whole under
# inference_mode, and otherwise as the operators that they are made of). The backward pass of `prod` asks for a number
# of zeros, but not under a mode like this one, where it comes as `cumprod`.
_WAITING = {
    "cumprod", "_local_scalar_dense", "_unique", "_unique2", "allclose", "argwhere", "bincount", "equal", "is_nonzero",
    "item", "masked_select", "nms", "nonzero", "nonzero_numpy", "unique_consecutive", "unique_dim",
}  # fmt: skip


def _waits(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    import torch

    name = operator.overloadpacket.__name__
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        indices = [index for index in args[1] if index is not None]
        masks = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
        return masks and not (name != "index" and len(indices) == 1 and args[2].dim() == 0)
    if name == "repeat_interleave":
        return operator._overloadname != "self_int" and kwargs.get("output_size") is None
    return name in _WAITING or (name == "where" and len(args) == 1)


def _asking_line() -> str:
    """The innermost line outside of torch, as file:number and its text."""
    frames = (f for f in reversed(traceback.extract_stack()) if f.filename != __file__)
    frame = next(f for f in frames if "/torch/" not in f.filename)
    return f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"


@torch.no_grad()
def spread_detector(name: str, class_names: Sequence[str], image_size: int, seed: int = 0) -> Detector:
    """A detector of random weights whose scores and boxes differ: each layer's outputs are given a spread of 1.

    A layer that sees several feature maps is fitted to the first; a bias, where it would drown the rest, is taken out.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = build_detector(name, class_names, weights="random", image_size=image_size)
    generator = torch.Generator().manual_seed(seed)
    seen: set[torch.nn.Module] = set()

    def scaled(layer: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        weight: torch.Tensor = layer.weight
        if layer in seen:
            return output
        seen.add(layer)
        if not weight.any():  # D-FINE's last layers start at nothing
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
            return output
        if layer.bias is not None:
            shift = layer.bias if isinstance(layer, torch.nn.Linear) else layer.bias[:, None, None]
            output = output - shift
            layer.bias.zero_()
        spread = output.std()
        if not spread.isfinite() or spread < 1e-12:
            return output
        weight.div_(spread)
        return output / spread

    kinds = torch.nn.Conv2d, torch.nn.Linear
    hooks = [layer.register_forward_hook(scaled) for layer in detector.modules() if type(layer) in kinds]
    detector.eval()([torch.rand(3, image_size, image_size, generator=generator)])
    for hook in hooks:
        hook.remove()
    return detector
