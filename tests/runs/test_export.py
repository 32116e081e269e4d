import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import odkit as od
from odkit.cli import main
from odkit.detection import ExportError, Limits, limits, write_openvino
from odkit.detection.onnx_graph import Graph
from odkit.runs.export import agree
from odkit.system import FileInTheWayError, InputError, MissingFileError, MissingPackageError
from tests.helpers import extra, make_predictions, spread_detector, squares


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return squares(tmp_path_factory.mktemp("data"), 8)


@pytest.fixture(scope="module")
def detector(data):
    return spread_detector("starter", data.class_names, 96)


@pytest.fixture(scope="module")  # half a minute of computing, for all tests here
def exported(detector, data, tmp_path_factory):
    return od.export(detector, tmp_path_factory.mktemp("export") / "made", dataset=data)


# -- the folder --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_holds_the_files_and_what_was_checked(exported, detector, data):
    names = {path.name for path in exported.folder.iterdir()}
    assert names == {"detector.onnx", "detector.fp16.onnx", "detector.int8.onnx", "predict.py", "export.json"}
    assert exported.agreement.differing == 0 and exported.agreement.detections > 20
    assert exported.agreement.box_pixels < 0.5 and exported.agreement.score < 1e-3
    page = json.loads((exported.folder / "export.json").read_bytes())
    assert page["ap"].keys() == {"pytorch", "fp32", "fp16", "int8"} and page["versions"]["onnxruntime"]
    assert exported.bytes["detector.fp16.onnx"] < 0.6 * exported.bytes["detector.onnx"]
    assert exported.bytes["detector.int8.onnx"] < 0.4 * exported.bytes["detector.onnx"]
    assert "detector.int8.onnx" in repr(exported)


@pytest.mark.slow
def test_a_file_is_a_detector(exported, detector, data, capfd):
    for name, precision, near in (("detector.onnx", "fp32", 1e-5), ("detector.fp16.onnx", "fp16", 0.05)):
        opened = od.load_detector(exported.folder / name)
        assert opened.class_names == data.class_names and opened.about["precision"] == precision
        here, there = detector.predict(data), opened.predict(data)
        assert abs(here.scores.max() - there.scores.max()) < near
        assert od.evaluate(data, there).ap >= 0
    with pytest.raises(InputError, match="number format"):
        od.predict(opened, data, precision=torch.bfloat16)
    assert main(["predict", str(exported.folder / "detector.onnx"), data.image_paths[0], "--score", "0"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["objects"] and "onnxruntime" in err


@pytest.mark.slow
def test_the_script_finds_the_same_without_torch(exported, detector, data, tmp_path):
    """In a process that sees onnxruntime, NumPy and Pillow alone; turned pictures of other sizes among others."""
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 17, 3), np.uint8))
    # halved: at odd scales Pillow rounds a few of a hundred values otherwise than torchvision does, by 1 of 255
    small.resize((192, 144), Image.Resampling.BICUBIC).save(turned, exif=exif, quality=95)
    large = tmp_path / "large.jpg"  # decoded at a part of its size
    small.resize((1531, 1147), Image.Resampling.BICUBIC).save(large, exif=exif, quality=95)
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in ("onnxruntime", "numpy", "numpy.libs", "PIL", "pillow.libs"):
        spec = find_spec(name) if "." not in name else None
        place = Path(spec.submodule_search_locations[0]) if spec else Path(np.__file__).parents[1] / name
        if place.exists():
            (packages / name).symlink_to(place)
    code = (
        "import importlib.util, json, sys; sys.path[:0] = [sys.argv[1], sys.argv[2]]\n"
        "assert importlib.util.find_spec('torch') is None and importlib.util.find_spec('odkit') is None\n"
        "import predict; print(json.dumps([predict.predict(path, 0) for path in sys.argv[3:]]))"
    )
    paths = [str(turned), str(large), str(data.image_paths[0])]
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(packages), str(exported.folder), *paths],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    for path, found in zip(paths, json.loads(ran.stdout), strict=True):
        names, scores, boxes = zip(*found, strict=True)
        rows = [
            (0, data.class_names.index(name), score, box)
            for name, score, box in zip(names, scores, boxes, strict=True)
        ]
        there = make_predictions(rows, names=data.class_names)
        here = od.predict(detector, od.images_dataset(path, data.class_names))
        same = agree(here, there, limits(detector), images=1)
        assert same.differing == 0 and same.detections > 5, same


def test_what_is_in_the_way_stays(detector, data, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileInTheWayError, match="is there already"):
        od.export(detector, tmp_path, dataset=data)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_a_failed_check_leaves_nothing(exported, detector, data, tmp_path, monkeypatch):
    """What PyTorch finds is moved by a pixel, as a wrong graph would."""
    from odkit import detection

    monkeypatch.setattr(detection, "onnx_graph", lambda *given: onnx.load(exported.folder / "detector.onnx"))

    original = detection.predict

    def moved(one, *args, **options):
        found = original(one, *args, **options)
        return found if not isinstance(one, detection.Detector) else _moved(found)

    monkeypatch.setattr(detection, "predict", moved)
    with pytest.raises(ExportError, match="does not find what PyTorch finds"):
        od.export(detector, tmp_path / "out", dataset=data, formats=("fp32",))
    assert list(tmp_path.iterdir()) == []


def _moved(found):
    import dataclasses

    return dataclasses.replace(found, boxes=found.boxes + 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(formats=("fp8",)), "formats are fp32"),
        (dict(pictures=0), "1 or more"),
        (dict(dataset=None), "checked on real pictures"),
        (dict(folder=None), "needs a folder"),
    ],
)
def test_what_cannot_be_exported_is_said(detector, data, tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        od.export(detector, **{"folder": tmp_path / "out", "dataset": data, **given})
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_no_detector(tmp_path):
    with pytest.raises(MissingFileError):
        od.load_detector(tmp_path / "none.onnx")
    (tmp_path / "other.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="is no ONNX file"):
        od.load_detector(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "does not say which classes"),
        ({"odkit": "no JSON"}, "no JSON"),
        ({"odkit": '{"detector": "starter"}'}, "class_names"),
        ({"odkit": "[]"}, "in place of keys and values"),
    ],
)
def test_another_programs_graph_is_no_detector(metadata, message, tmp_path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "other", [value], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=message):
        od.load_detector(tmp_path / "other.onnx")


# -- OpenVINO ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_openvino_finds_the_same(exported, data, tmp_path):
    extra("openvino")
    write_openvino(exported.folder / "detector.onnx", tmp_path / "detector.xml")
    first, second = (
        od.load_detector(folder / name)
        for folder, name in ((exported.folder, "detector.onnx"), (tmp_path, "detector.xml"))
    )
    assert second.about == first.about and second.runtime == "openvino"
    same = agree(first.predict(data), second.predict(data), Limits(0.5, 0.01, 100), images=len(data))
    assert same.differing == 0 and same.detections > 20


def test_openvino_is_an_extra(detector, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match=r"pip install .odkit\[openvino\]"):
        od.export(detector, tmp_path / "out", dataset=data, formats=["openvino"])
    assert list(tmp_path.iterdir()) == []


# -- each kind of detector -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "dfine_nano"])
def test_other_kinds_are_written_as_they_are(name, data, tmp_path):
    """Three pictures: a graph that is of the example's two alone would fail."""
    some = data.select(range(3)).replace(image_splits=None)  # held out, all of them
    made = spread_detector(name, data.class_names, 128)
    exported = od.export(made, tmp_path / "out", dataset=some, formats=("fp32",), judged=2)
    assert exported.agreement.differing == 0 and exported.agreement.detections > 5
    assert exported.agreement.images == 3 and exported.judged.startswith("2 of 3 pictures")
    found = od.predict(made, some)
    assert len(set(found.scores.tolist())) > 0.5 * len(found), "scores tie: nothing would be seen"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "fcos_resnet50_fpn",
        "retinanet_resnet50_fpn_v2",
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "ssd300_vgg16",
    ],
)
def test_fixed_shapes_hold_what_is_found(name):
    """What a graph is made of, as PyTorch computes it: quicker than writing a file of each."""
    size = 300 if name == "ssd300_vgg16" else 128
    made = spread_detector(name, ["a", "b"], size)
    images = torch.randint(0, 256, (2, 3, size, size), generator=torch.manual_seed(0), dtype=torch.uint8)
    sizes = torch.tensor([[size, size - 20], [size, size]])
    with torch.no_grad():
        fixed = Graph(made)(images, sizes)
        found = made([images[0, :, : size - 20].float() / 255, images[1].float() / 255])
    rows = [
        [
            (image, label, score, box)
            for image, columns in enumerate(zip(*side, strict=True))
            for box, score, label in zip(*(column.tolist() for column in columns), strict=True)
            if label >= 0
        ]
        for side in (fixed, [[one[key] for one in found] for key in ("boxes", "scores", "labels")])
    ]
    here, there = (make_predictions(some, names=made.class_names) for some in rows)
    assert len(here) > 10 and len(set(here.scores.tolist())) > 0.5 * len(here)
    same = agree(there, here, limits(made), images=2)
    assert same.differing == same.ties == 0 and same.box_pixels < 0.01 and same.score < 1e-4, same


# -- comparing -------------------------------------------------------------------------------------------------------

ONE = (0, 0, 0.9, (10, 10, 40, 40))


@pytest.mark.parametrize(
    ("other", "differing", "ties"),
    [
        ([ONE, (0, 1, 0.5, (50, 50, 90, 90))], 0, 0),
        ([(0, 0, 0.9005, (10.4, 10, 40, 40)), (0, 1, 0.5, (50, 50, 90, 90))], 0, 0),  # within the limits
        ([(0, 0, 0.9, (10.6, 10, 40, 40)), (0, 1, 0.5, (50, 50, 90, 90))], 2, 0),  # a box too far off
        ([(0, 0, 0.902, (10, 10, 40, 40)), (0, 1, 0.5, (50, 50, 90, 90))], 2, 0),  # a score
        ([(0, 1, 0.9, (10, 10, 40, 40)), (0, 1, 0.5, (50, 50, 90, 90))], 2, 0),  # a class
        (
            [ONE, (0, 0, 0.7, (10, 18.2, 40, 47)), (0, 1, 0.5, (50, 50, 90, 90))],
            0,
            1,
        ),  # just what may be suppressed
        ([ONE, (0, 0, 0.7, (10, 14, 40, 44)), (0, 1, 0.5, (50, 50, 90, 90))], 1, 0),  # what must be
        ([ONE, (0, 1, 0.5, (50, 50, 90, 90)), (0, 1, 0.0105, (0, 0, 5, 5))], 0, 1),  # hardly sure enough
        ([ONE], 1, 0),  # one that is missing
    ],
)
def test_ties_are_treated_fairly(other, differing, ties):
    first = make_predictions([ONE, (0, 1, 0.5, (50, 50, 90, 90))])
    same = agree(first, make_predictions(other), Limits(0.589, 0.01, 100), images=1)
    assert (same.differing, same.ties) == (differing, ties), same
