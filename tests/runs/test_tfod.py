"""A pipeline.config of TensorFlow's Object Detection API as settings: what is taken over, changed, and not there."""

import re
import shlex
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

import odkit as od
from odkit.cli import main
from odkit.data.formats import read_pbtxt
from odkit.runs.imported_config import PARTS, ImportedConfig, Key
from odkit.runs.run import Run
from odkit.runs.settings import make_settings
from odkit.runs.tfod import import_tfod
from odkit.system import InputError, MissingFileError
from tests.conftest import PROJECT
from tests.data.formats.layouts import (
    NAMES,
    put,
    tfrecord_a_split,
    tfrecord_shards,
    voc_plain,
)
from tests.data.formats.record_writer import label_map

# As ssd_mobilenet_v2_320x320_coco17_tpu-8 of the API's model zoo is written, shortened.
SSD = """
model {
  ssd {
    num_classes: 2
    image_resizer { fixed_shape_resizer { height: 300 width: 300 } }
    feature_extractor {
      type: "ssd_mobilenet_v2_keras"
      depth_multiplier: 1.0
      conv_hyperparams { regularizer { l2_regularizer { weight: 4e-05 } } activation: RELU_6 }
    }
    anchor_generator { ssd_anchor_generator { num_layers: 6 aspect_ratios: [1.0, 2.0, 0.5] } }
    loss { classification_loss { weighted_sigmoid_focal { gamma: 2.0 } } classification_weight: 1.0 }
    post_processing { batch_non_max_suppression { iou_threshold: 0.6 } score_converter: SIGMOID }
  }
}
train_config {
  batch_size: 24
  data_augmentation_options { random_horizontal_flip { } }
  data_augmentation_options { ssd_random_crop { operations { min_object_covered: 0.1 } } }
  sync_replicas: true
  optimizer {
    momentum_optimizer {
      learning_rate {
        cosine_decay_learning_rate { learning_rate_base: 0.8 total_steps: 50000 warmup_steps: 1000 }
      }
      momentum_optimizer_value: 0.9
    }
    use_moving_average: false
  }
  fine_tune_checkpoint: "PATH_TO_BE_CONFIGURED/mobilenet_v2.ckpt-1"
  fine_tune_checkpoint_type: "detection"
  num_steps: 10
}
train_input_reader {
  label_map_path: "PATH_TO_BE_CONFIGURED/label_map.pbtxt"
  tf_record_input_reader { input_path: "PATH_TO_BE_CONFIGURED/train.record" }
}
eval_config { metrics_set: "coco_detection_metrics" use_moving_averages: false }
eval_input_reader {
  label_map_path: "PATH_TO_BE_CONFIGURED/label_map.pbtxt"
  shuffle: false
  tf_record_input_reader { input_path: "C:\\\\data\\\\val.record" }
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as people have it: records, a label map, and a config in a folder of its own."""
    folder = tmp_path / "pets"
    tfrecord_a_split(folder)
    put(folder / "training/pipeline.config", SSD)
    return folder


def changed(folder: Path, *pairs: tuple[str, str]) -> Path:
    """The config with texts replaced."""
    path = folder / "training/pipeline.config"
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return folder


def key(found: ImportedConfig, end: str) -> Key:
    (one,) = [k for k in found.keys if k.name.endswith(end)]
    return one


def read(folder: Path, **more: Any) -> ImportedConfig:
    return import_tfod(folder, measure=False, **more)


def all_keys_are_there(found: ImportedConfig) -> None:
    names = [k.name for k in found.keys]
    missing = [
        leaf
        for leaf, _, _ in read_pbtxt(found.config).leaves()
        if not any(leaf == name or leaf.startswith(f"{name}.") for name in names)
    ]
    assert missing == []
    assert all(k.why for k in found.keys)
    assert {k.part for k in found.keys} <= set(PARTS)


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, whatever this one has."""
    monkeypatch.setattr("odkit.detection.pick_device", lambda name: torch.device("cpu"))


@pytest.fixture
def gpu(cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, as far as the choice of a detector asks."""
    monkeypatch.setattr("odkit.detection.pick_device", lambda name: torch.device("cuda"))


# -- what becomes of the keys ----------------------------------------------------------------------------------------


def test_an_ssd_on_a_cpu(folder: Path) -> None:
    found = read(folder)
    all_keys_are_there(found)
    assert found.data == folder
    assert found.settings == {"detector": "starter", "image_size": 300, "warmup": 0.02, "augment": "strong"}
    parts = {part: {k.name.rpartition(".")[2] for k in found.part(part)} for part in PARTS}
    assert {"num_classes", "input_path", "label_map_path", "fixed_shape_resizer", "metrics_set"} <= parts[
        "taken over"
    ]
    assert {"type", "batch_size", "learning_rate_base", "fine_tune_checkpoint"} <= parts["changed"]
    assert {"aspect_ratios", "gamma", "min_object_covered", "sync_replicas", "shuffle"} <= parts[
        "without counterpart"
    ]
    assert "ssdlite320_mobilenet_v3_large" in key(found, "feature_extractor.type").why
    assert "train 2, val 2" in key(found, "train_input_reader.tf_record_input_reader.input_path").why


def test_an_ssd_on_a_gpu(folder: Path, gpu: None) -> None:
    found = read(folder)
    all_keys_are_there(found)
    assert found.settings["detector"] == "ssdlite320_mobilenet_v3_large"
    assert found.settings["batch_size"] == 24
    assert key(found, "batch_size").part == "taken over"


def test_the_config_of_the_cards(cards: Path) -> None:
    found = read(cards)
    all_keys_are_there(found)
    assert found.settings == {"detector": "starter", "clip": 10.0}
    assert "fasterrcnn_mobilenet_v3_large_fpn" in key(found, "feature_extractor.type").why
    assert key(found, "train_input_reader.label_map_path").becomes == str(cards / "training/labelmap.pbtxt")
    assert "momentum at a batch of 1" in key(found, "initial_learning_rate").why


DETECTORS = [
    ("ssd", "ssd_mobilenet_v1", "ssdlite320_mobilenet_v3_large"),
    ("ssd", "ssd_resnet50_v1_fpn_keras", "retinanet_resnet50_fpn_v2"),
    ("ssd", "ssd_efficientnet-b0_bifpn_keras", "dfine_nano"),
    ("ssd", "ssd_efficientnet-b4_bifpn_keras", "dfine_small"),
    ("faster_rcnn", "faster_rcnn_inception_v2", "fasterrcnn_mobilenet_v3_large_fpn"),
    ("faster_rcnn", "faster_rcnn_resnet101_keras", "fasterrcnn_resnet50_fpn_v2"),
    ("center_net", "hourglass_104", "fcos_resnet50_fpn"),
    ("center_net", "mobilenet_v2_fpn", "dfine_nano"),
    ("something_new", "x", "starter"),
]


@pytest.mark.parametrize(("architecture", "extractor", "detector"), DETECTORS)
def test_the_nearest_detector(
    folder: Path, gpu: None, architecture: str, extractor: str, detector: str
) -> None:
    changed(folder, ("  ssd {", f"  {architecture} {{"), ("ssd_mobilenet_v2_keras", extractor))
    found = read(folder)
    all_keys_are_there(found)
    assert found.settings["detector"] == detector
    assert make_settings(found.settings).detector == detector


def test_a_detector_that_is_asked_for(folder: Path) -> None:
    found = read(folder, detector="retinanet_resnet50_fpn")
    assert found.settings["detector"] == "retinanet_resnet50_fpn"
    assert "as asked; the nearest would be ssdlite320" in key(found, "feature_extractor.type").why
    with pytest.raises(InputError, match="no detector is called 'retina'"):
        read(folder, detector="retina")


CHANGES: list[tuple[tuple[str, str], str, str, dict[str, Any], str]] = [
    # text replaced; key, its part, settings (None: left out), words of the reason
    (("num_classes: 2", "num_classes: 90"), "num_classes", "changed", {}, "the label map has 2; the data has 2"),
    (("num_steps: 10", "num_steps: 4"), "num_steps", "taken over", {"epochs": 48}, "are 48 times 2 images"),
    (("num_steps: 10", "num_steps: 50000"), "num_steps", "changed", {"epochs": None}, "600,000 times 2 images"),
    (("num_steps: 10", "num_steps: 0"), "num_steps", "changed", {"epochs": None}, "without end"),
    (("height: 300 width: 300", "height: 1024 width: 640"), "fixed_shape_resizer", "changed", {"image_size": None},
     "1024 pixels are too many on a CPU"),
    (("height: 300 width: 300", "height: 32 width: 32"), "fixed_shape_resizer", "changed", {"image_size": None},
     "32 pixels are too few for starter"),
    (("fixed_shape_resizer { height: 300 width: 300 }",
      "keep_aspect_ratio_resizer { min_dimension: 300 max_dimension: 9000 pad_to_max_dimension: true }"),
     "keep_aspect_ratio_resizer", "taken over", {"image_size": 400}, "the longer side"),
    (("warmup_steps: 1000", "warmup_steps: 40000"), "warmup_steps", "taken over", {"warmup": 0.3}, "50000 steps"),
    (("cosine_decay_learning_rate { learning_rate_base: 0.8 total_steps: 50000 warmup_steps: 1000 }",
      "exponential_decay_learning_rate { initial_learning_rate: 0.004 decay_steps: 800720 }"),
     "exponential_decay_learning_rate", "changed", {"warmup": None}, "a cosine down"),
    (("momentum_optimizer {", "adam_optimizer {"), "adam_optimizer", "taken over", {}, "AdamW, what starter was made"),
    (("momentum_optimizer {", "rms_prop_optimizer {"), "rms_prop_optimizer", "changed", {}, "AdamW"),
    (("sync_replicas: true", "gradient_clipping_by_norm: 2.5"), "by_norm", "taken over", {"clip": 2.5}, "norm"),
    (("sync_replicas: true", "use_bfloat16: true"), "use_bfloat16", "changed", {}, "--precision"),
    (("ssd_random_crop { operations { min_object_covered: 0.1 } }", "random_adjust_hue { }"), "random_adjust_hue",
     "taken over", {"augment": "photo"}, "light, colour"),
    (("ssd_random_crop { operations { min_object_covered: 0.1 } }", "random_rotation90 { }"), "random_rotation90",
     "taken over", {"augment": None, "orientation": "any"}, "turned"),
    (("random_horizontal_flip { }", "random_vertical_flip { }"), "random_vertical_flip", "changed",
     {"augment": "strong", "orientation": "any"}, "turned"),
    (("data_augmentation_options { random_horizontal_flip { } }", ""), "data_augmentation_options", "taken over",
     {"orientation": "upright"}, "as they lie"),
    (("coco_detection_metrics", "pascal_voc_detection_metrics"), "metrics_set", "changed", {}, "AP50"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "end", "part", "settings", "words"), CHANGES, ids=[f"{c[1]}: {c[4]}" for c in CHANGES]
)
def test_a_key(
    folder: Path, change: tuple[str, str], end: str, part: str, settings: dict[str, Any], words: str
) -> None:
    found = read(changed(folder, change))
    all_keys_are_there(found)
    one = key(found, end)
    assert one.part == part
    assert words in one.why
    assert {name: found.settings.get(name) for name in settings} == settings
    make_settings(found.settings)


@pytest.mark.parametrize(
    ("batch", "part"), [(1, "changed"), (2, "taken over"), (64, "taken over"), (512, "changed")]
)
def test_batches_on_a_gpu(folder: Path, gpu: None, batch: int, part: str) -> None:
    found = read(changed(folder, ("batch_size: 24", f"batch_size: {batch}")))
    assert key(found, "batch_size").part == part
    assert found.settings.get("batch_size", 0) == (batch if part == "taken over" else 0)


@pytest.mark.parametrize("value", ["inf", "nan", "-3", "1e300", "'many'", "true", "{ a: 1 }"])
def test_numbers_that_are_none(folder: Path, value: str) -> None:
    changed(folder, ("batch_size: 24", f"batch_size: {value}"), ("num_steps: 10", f"num_steps: {value}"),
            ("height: 300 width: 300", f"height: {value} width: {value}"), ("steps: 50000", f"steps: {value}"),
            ("sync_replicas: true", f"gradient_clipping_by_norm: {value}"), ("base: 0.8", f"base: {value}"),
            ("num_classes: 2", f"num_classes: {value}"))  # fmt: skip
    found = read(folder)
    all_keys_are_there(found)
    make_settings(found.settings)


def test_no_weights_and_no_variation_are_said(folder: Path) -> None:
    text = (folder / "training/pipeline.config").read_text()
    text = re.sub(r"data_augmentation_options.*\n|fine_tune_checkpoint:.*\n", "", text)
    put(folder / "training/pipeline.config", text)
    found = read(folder)
    all_keys_are_there(found)
    assert "augment" not in found.settings
    said = "\n".join(found.outlook)
    assert "--augment none" in said
    assert "--weights random" in said


# -- where the data is -----------------------------------------------------------------------------------------------


def test_stale_paths_are_found_by_their_names(folder: Path) -> None:
    found = read(folder)
    one = key(found, "eval_input_reader.tf_record_input_reader.input_path")
    assert one.becomes == str(folder / "val.record")
    assert read(folder / "training/pipeline.config").data == folder
    assert od.load_dataset(found.data or "", val=0).class_names == tuple(NAMES)


def test_shards(tmp_path: Path) -> None:
    tfrecord_shards(tmp_path)
    text = SSD.replace("train.record", "pets_train.record-?????-of-00002")
    put(tmp_path / "pipeline.config", text.replace("C:\\\\data\\\\val.record", "/old/data/pets_val.record@2"))
    found = read(tmp_path)
    assert found.data == tmp_path / "data"
    for reader in ("train", "eval"):
        assert key(found, f"{reader}_input_reader.tf_record_input_reader.input_path").part == "taken over"
    assert key(found, "train_input_reader.label_map_path").part == "changed"  # there is none


def test_without_records_the_folder_is_the_data(tmp_path: Path) -> None:
    voc_plain(tmp_path)
    put(tmp_path / "training/my.config", SSD)
    put(tmp_path / "training/label_map.pbtxt", label_map(["dog", "cat"]))
    for source in (tmp_path, tmp_path / "training/my.config"):
        found = read(source)
        assert found.data == tmp_path
        one = key(found, "train_input_reader.tf_record_input_reader.input_path")
        assert (one.part, one.becomes) == ("changed", str(tmp_path))
        assert "read as voc" in one.why
        assert key(found, "num_classes").becomes == "dog, cat"


def test_data_that_is_given_and_data_that_is_not_there(tmp_path: Path) -> None:
    voc_plain(tmp_path / "pets")
    config = put(tmp_path / "configs/deep/pipeline.config", SSD)
    found = read(config)
    assert found.data is None
    assert found.command().startswith("odkit train FOLDER --detector starter")
    assert "--data FOLDER" in key(found, "train_input_reader.tf_record_input_reader.input_path").why
    assert read(config, data=tmp_path / "pets").data == tmp_path / "pets"
    lost = read(config, data=tmp_path / "nothing")
    assert any("there is nothing at" in line for line in lost.outlook)


def test_classes_that_the_label_map_leaves_out(folder: Path) -> None:
    put(folder / "label_map.pbtxt", label_map(["dog"]))
    found = read(folder)
    assert found.classes == ("dog",)
    assert found.flags()[-2:] == ["--classes", "dog"]
    put(folder / "label_map.pbtxt", label_map(["zebra"]))
    found = read(folder)
    assert found.classes == ()
    assert any("is it the right dataset" in line for line in found.outlook)


# -- what is no config -----------------------------------------------------------------------------------------------


def test_what_is_no_config(tmp_path: Path, folder: Path) -> None:
    empty = tmp_path / "empty"
    put(empty / "other.config", "<configuration/>")
    with pytest.raises(MissingFileError, match=r"has no pipeline\.config"):
        read(empty)
    with pytest.raises(MissingFileError, match="there is nothing at"):
        read(tmp_path / "nothing")
    with pytest.raises(InputError, match="line 1: "):
        read(empty / "other.config")
    with pytest.raises(InputError, match=r"is no pipeline\.config: it has no model"):
        read(folder / "label_map.pbtxt")
    put(folder / "models/pipeline.config", SSD)  # a copy, as the API makes one
    assert read(folder).config == folder / "models/pipeline.config"
    put(folder / "models/other.config", SSD.replace("24", "8"))
    with pytest.raises(InputError, match="has several"):
        read(folder)


@pytest.mark.parametrize("cut", range(0, len(SSD), 97))
def test_a_config_cut_short_names_the_line(folder: Path, cut: int) -> None:
    path = put(folder / "training/pipeline.config", SSD[:cut])
    with pytest.raises(InputError, match=re.escape(str(path))):
        read(path)


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_a_command_that_works(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run.json"
    assert main(["import-tfod", str(folder), "--quick", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for heading in ("Taken over", "Changed", "Without counterpart", "To train:"):
        assert f"\n{heading}\n" in f"\n{printed}\n"
    written = orjson.loads(out.read_bytes())
    assert written["data"] == str(folder)
    command = printed.strip().splitlines()[-1].strip()
    assert command == written["command"]
    words = shlex.split(command)
    assert words[:2] == ["odkit", "train"]
    assert main([*words[1:], "--prepare", "--folder", str(tmp_path / "runs"), "--name", "one"]) == 0
    settings = Run(tmp_path / "runs/one").settings.to_dict()
    assert {name: settings[name] for name in written["settings"]} == written["settings"]


def test_a_class_left_out_is_left_out_by_the_command(folder: Path, tmp_path: Path) -> None:
    put(folder / "label_map.pbtxt", label_map(["dog"]))
    words = shlex.split(read(folder).command())
    assert main([*words[1:], "--prepare", "--folder", str(tmp_path / "runs"), "--name", "one"]) == 0
    assert Run(tmp_path / "runs/one").class_names == ("dog",)


def test_json_and_the_notebooks_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-tfod", str(folder), "--quick", "--json"]) == 0
    printed = orjson.loads(capsys.readouterr().out)
    assert sum(len(keys) for keys in printed["keys"].values()) == len(read(folder).keys)
    changed(folder, ("PATH_TO_BE_CONFIGURED/mobilenet", "<script>"))
    html = read(folder)._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script>" not in html


@pytest.mark.slow
def test_how_long_it_takes_here_is_measured(folder: Path) -> None:
    changed(folder, ("height: 300 width: 300", "height: 64 width: 64"))
    found = import_tfod(folder, detector="starter")
    times = [line for line in found.outlook if "on this" in line]
    assert [line.partition(":")[0] for line in times] == ["starter", "ssdlite320_mobilenet_v3_large"]
    assert all(re.search(r"about [\d,]+ (minutes|hours) on this [CG]PU", line) for line in times)


@pytest.mark.worker
@pytest.mark.slow
def test_imported_and_trained_in_one_command(folder: Path, tmp_path: Path) -> None:
    changed(folder, ("height: 300 width: 300", "height: 64 width: 64"), ("batch_size: 24", "batch_size: 1"),
            ("num_steps: 10", "num_steps: 2"))  # fmt: skip
    words = [
        "import-tfod",
        str(folder),
        "--quick",
        "--train",
        "--folder",
        str(tmp_path / "runs"),
        "--name",
        "one",
    ]
    assert main(words) == 0
    run = Run(tmp_path / "runs/one")
    assert run.state == "finished"
    assert run.settings.image_size == 64
    assert run.settings.epochs == 1
    assert run.class_names == tuple(NAMES)


def test_what_the_page_for_people_from_tensorflow_says_to_type_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (PROJECT / "docs/from-tensorflow.md").read_text(encoding="utf-8")
    lines = [*re.findall(r"`(.+?)`", text), *re.findall(r"^    (odkit .*?)(?:  #|$)", text, re.MULTILINE)]
    flags: dict[str, set[str]] = {"train": set()}
    for line in lines:
        words = line.split()
        if words[0] == "odkit" or words[0].startswith("--"):
            command = words[1] if words[0] == "odkit" else "train"
            flags.setdefault(command, set()).update(re.findall(r"--[a-z-]+", line))
    flags["train"] -= {
        "--checkpoint_every_n",
        "--checkpoint_dir",
        "--checkpoint",
        "--detector",
    }  # TensorFlow's, both's
    assert len(flags) > 10
    for command, named in flags.items():
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        shown = capsys.readouterr().out
        assert ended.value.code == 0, command
        assert {flag for flag in named if flag not in shown} == set(), command
    names = set(re.findall(r"\bod\.(\w+)", text))
    assert {"import_tfod", "fine_tune", "load_dataset"} <= names
    assert all(hasattr(od, name) for name in names)
