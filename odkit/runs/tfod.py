"""A pipeline.config of TensorFlow's Object Detection API as settings of a run, and what became of each of its keys.

The keys are those of the API's own schemas (research/object_detection/protos/*.proto). Every key of a config ends in
one of three parts: taken over, changed (with the reason), or without counterpart. None is passed over in silence.
"""

import math
import os
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from odkit import detection
from odkit.data import Dataset
from odkit.data.formats import LabelMap, Message, load_dataset, read_label_map, read_pbtxt
from odkit.runs.imported_config import PARTS, ImportedConfig, Key, Part, shown
from odkit.runs.settings import EPOCHS, fitting_epochs, make_settings
from odkit.system import InputError, MissingFileError, OdkitError, cpu_count

STARTER = "starter"
_LARGEST = {"cpu": 640, "cuda": 1280}  # pixels of the longer side at which an epoch ends in reasonable time
_BATCHES = (2, 64)  # images a step that one GPU is given; TPUs had hundreds
_NEAREST = (  # architecture, feature extractor, detector of the catalogue, reason
    (
        "faster_rcnn",
        r"mobilenet|inception_v2",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "two stages on a small backbone",
    ),
    ("faster_rcnn", "", "fasterrcnn_resnet50_fpn_v2", "two stages on a large backbone"),
    ("ssd", r"efficientnet-?b0", "dfine_nano", "small and accurate, as EfficientDet-D0 was"),
    ("ssd", r"efficientnet", "dfine_small", "several scales in one stage, as EfficientDet's"),
    ("ssd", r"resnet", "retinanet_resnet50_fpn_v2", "SSD on ResNet and a feature pyramid is RetinaNet"),
    ("ssd", r"vgg", "ssd300_vgg16", "the same backbone"),
    ("ssd", "", "ssdlite320_mobilenet_v3_large", "SSD on a mobile backbone"),
    ("center_net", r"mobilenet", "dfine_nano", "small and without anchors, as CenterNet on MobileNet"),
    ("center_net", "", "fcos_resnet50_fpn", "one stage without anchors, as CenterNet"),
)
_TURNS = {"random_horizontal_flip": "mirror", "random_vertical_flip": "any", "random_rotation90": "turn"}
_PHOTO = re.compile(r"bright|contrast|hue|saturation|color|gray|jpeg|pixel_value|gaussian|normalize")
_ZOOM = re.compile(r"crop|scale|pad|self_concat|autoaugment")
_REASONS = (  # of keys without counterpart: pattern of the path, reason
    (r"anchor", "anchors: each detector of odkit has its own, or none"),
    (r"regularizer", "weight decay: what each detector was made with, or --weight-decay"),
    (r"post_processing|nms|non_max|proposals|score_threshold|max_detections",
     "which boxes are kept: the detector's own; `odkit predict --score` chooses afterwards"),
    (r"^model\..*(loss|miner|sampler|weight$)", "losses: the detector's own"),
    (r"image_resizer", "resizing: odkit keeps the aspect and pads, or stretches for a detector made for squares"),
    (r"^model\.", "layers: the detector's own"),
    (r"augmentation_options", "strengths of variation: those of odkit's levels (--augment)"),
    (r"checkpoint", "TensorFlow's checkpoints: they cannot be read here"),
    (r"freeze", "frozen layers: a pre-trained stem stays fixed by itself; --freeze-epochs fixes the whole backbone"),
    (r"input_reader", "reading: odkit shuffles, decodes and caches by itself (--num-workers)"),
    (r"^eval_config", "judging: all images of val after each epoch, with COCO's figures; the best epoch is kept"),
    (r"replicas|startup_delay", "several machines: torchrun does it (--processes)"),
    (r"graph_rewriter", "quantization: there is none"),
    (r"", "there is nothing of the kind"),
)  # fmt: skip


def import_tfod(
    source: str | Path,
    data: str | Path | None = None,
    *,
    detector: str = "",
    device: str = "auto",
    measure: bool = True,
) -> ImportedConfig:
    """Read a pipeline.config of TensorFlow's Object Detection API as settings of a run.

    Args:
        source: The file, or a folder with one (any .config with "model" and "train_config").
        data: The dataset; None: what the config's input readers name, looked for by file name near it, else the folder.
        detector: A name of the catalogue; "": the nearest to the config's where a GPU is, else the starter.
        device: Where the run would train, see `Settings.device`.
        measure: Time the detectors in question on this machine, seconds each, and say how long the run would take.

    Raises:
        MissingFileError: There is no such file, or no config in the folder.
        InputError: The file is no pipeline.config (the message names the line), or the folder has several.
    """
    config = _find_config(Path(os.path.abspath(os.path.expanduser(source))))
    message = read_pbtxt(config)
    if not message.message("model").fields or not message.message("train_config").fields:
        raise InputError(
            f"{config} is no pipeline.config: it has no model {{ ... }} and train_config {{ ... }}"
        )
    if detector:
        detection.catalogue_entry(detector)  # says which there are
    return _Import(config, message, Path(os.path.expanduser(source)), device).run(data, detector, measure)


def _find_config(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise MissingFileError(f"there is nothing at {path}")
    found: dict[str, Path] = {}
    for file in sorted(path.rglob("*.config"), key=lambda file: (len(file.parts), file)):
        known = file.is_file() and file.stat().st_size < 2**20
        text = file.read_text(encoding="utf-8", errors="replace") if known else ""
        if re.search(r"(^|\s)model\s*:?\s*{", text) and "train_config" in text:
            found.setdefault(text, file)  # the API copies it to where it trains
    if not found:
        raise MissingFileError(
            f"{path} has no pipeline.config: no .config file with model {{ and train_config {{"
        )
    if len(found) > 1:
        raise InputError(f"{path} has several: {', '.join(map(str, found.values()))}. Name one")
    return next(iter(found.values()))


@dataclass
class _Import:
    """The state of importing one config."""

    config: Path
    message: Message
    source: Path
    device: str
    settings: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    keys: list[Key] = field(default_factory=list)
    outlook: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    dataset: Dataset | None = None
    data: Path | None = None
    images: int = 0  # to train on; 0: not known
    listing: list[Path] = field(default_factory=list)  # of the folder, once it was asked for

    def run(self, data: str | Path | None, detector: str, measure: bool) -> ImportedConfig:
        if self.device != "auto":
            self.settings["device"] = self.device
        self.kind = detection.pick_device(self.device).type
        self.fields = self.message.message("model").fields
        self.above = f"model.{self.fields[0].name}"
        self.model = self.message.message(*self.above.split("."))
        self.train = self.message.message("train_config")
        self._data(data)
        self._classes()
        nearest = self._detector(detector)
        self._image_size()
        self._length()
        self._optimizer()
        self._variation()
        self._weights()
        self._judging()
        self._rest()
        self._outlook(nearest, measure)
        make_settings(self.settings)  # what was made here must be settings
        order = {part: rank for rank, part in enumerate(PARTS)}
        keys = sorted(self.keys, key=lambda key: order[key.part])
        return ImportedConfig(
            config=self.config,
            data=self.data,
            settings=self.settings,
            classes=self.classes,
            keys=tuple(keys),
            outlook=tuple(self.outlook),
        )

    def say(self, part: Part, name: str, value: object, becomes: str, why: str) -> None:
        """A key of the config, with all below it, is dealt with."""
        self.used.add(name)
        self.keys.append(Key(part, name, shown(value), becomes, why))

    def put(self, setting: str, value: object) -> str:
        """Set a setting; the flag that does it."""
        self.settings[setting] = value
        return f"--{setting.replace('_', '-')} {shown(value)}"

    # -- data and classes --------------------------------------------------------------------------------------------

    def _data(self, given: str | Path | None) -> None:
        """Find the dataset, load it without dealing splits, and say where the input readers' files are."""
        stated: dict[str, list[str]] = {}
        for one in self.message.fields:
            if one.name.endswith("_input_reader") and isinstance(one.value, Message):
                files_of = one.value.message("tf_record_input_reader").all("input_path")
                key = f"{one.name}.tf_record_input_reader.input_path"
                stated.setdefault(key, []).extend(map(str, files_of))
        files = {key: [file for path in paths for file in self._near(path)] for key, paths in stated.items()}
        self.data = self._choose_data(given, [file for found in files.values() for file in found])
        why = "not found; give its folder: --data FOLDER"
        if self.data is not None:
            try:
                self.dataset = load_dataset(self.data, val=0)
            except OdkitError as error:
                why = f"it cannot be read: {str(error).splitlines()[0]}"
                self.outlook.append(f"The data was not read. {error}")
        if self.dataset is not None:
            counts = self.dataset.split_counts()
            train = counts.get("train", 0) or (0 if counts else len(self.dataset))
            self.images = train if "val" in counts else math.ceil(train * 0.8)
        for key, paths in stated.items():
            if not paths:
                continue
            split = "the images that are trained on" if key.startswith("train") else "held out"
            if self.dataset is None:
                self.say("changed", key, ", ".join(paths), str(self.data or ""), why)
            elif files[key]:
                said = f"{split}; " + self._splits()
                self.say("taken over", key, ", ".join(paths), ", ".join(map(str, files[key][:3])), said)
            else:
                said = f"no such file here; the folder is read as {self.dataset.format}: {self._splits()}"
                self.say("changed", key, ", ".join(paths), str(self.data), said)

    def _splits(self) -> str:
        assert self.dataset is not None
        counts = self.dataset.split_counts()
        text = (
            ", ".join(f"{name} {count:,}" for name, count in counts.items())
            or f"{len(self.dataset):,} images"
        )
        if "val" not in counts:
            text += "; val, which chooses the epoch, is dealt from train"
        if "test" in counts:
            text += "; test is looked at once, by `odkit test`"
        return text

    def _near(self, stated: str) -> list[Path]:
        """The files that a path in the config means: as it stands, else those of its name near the config."""
        if not stated:
            return []
        name = stated.replace("\\", "/").rpartition("/")[2]
        pattern = re.sub(r"@(\d+)$", r"-?????-of-*", name)
        literal = Path(stated)
        if literal.is_absolute() and literal.is_file():
            return [literal]
        if self.source.is_dir():
            self.listing = self.listing or sorted(file for file in self.source.rglob("*") if file.is_file())
            return [file for file in self.listing if fnmatchcase(file.name, pattern)]
        for place in (self.config.parent, self.config.parent.parent):
            for below in (place.glob("*"), place.glob("*/*")):
                if found := sorted(
                    file for file in below if fnmatchcase(file.name, pattern) and file.is_file()
                ):
                    return found
        return []

    def _choose_data(self, given: str | Path | None, files: list[Path]) -> Path | None:
        if given is not None:
            return Path(os.path.expanduser(given))
        if files:
            return Path(os.path.commonpath([file.parent for file in files]))
        if self.source.is_dir():
            return self.source
        for place in (self.config.parent, self.config.parent.parent):
            if place in (Path(os.path.expanduser("~")), Path(place.anchor)):
                break
            try:
                load_dataset(place, val=0)
            except OdkitError:
                continue
            return place
        return None

    def _classes(self) -> None:
        key = f"{self.above}.num_classes"
        stated = self.model.scalar("num_classes")
        found = self._label_map()
        names = found.names if found else ()
        there = self.dataset.class_names if self.dataset is not None else ()
        if stated is not None:
            counts = {"the label map": len(names), "the data": len(there)}
            known = {what: count for what, count in counts.items() if count}
            if known and set(known.values()) == {stated}:
                self.say(
                    "taken over", key, stated, ", ".join(there or names), f"as {' and '.join(known)} have it"
                )
            else:
                said = (
                    "; ".join(f"{what} has {count}" for what, count in known.items())
                    or "neither is here to compare"
                )
                self.say("changed", key, stated, "", f"the classes are those of the data; {said}")
        if found and there:
            more = [name for name in there if name not in found.aliases]
            missing = [name for name in names if name not in there and name not in found.aliases.values()]
            if more and len(more) < len(there):
                self.classes = tuple(name for name in names if name in there)
                self.outlook.append(
                    f"The label map leaves out {', '.join(more)}: so does --classes in the command."
                )
            elif more:
                self.outlook.append(
                    f"No class of the data is in {found.file}: is it the right dataset? It has {', '.join(there[:8])}."
                )
            elif missing:
                self.outlook.append(f"No box of the data is of {', '.join(missing[:8])}.")

    def _label_map(self) -> LabelMap | None:
        found: LabelMap | None = None
        for one in self.message.fields:
            if not one.name.endswith("_input_reader") or not isinstance(one.value, Message):
                continue
            stated = one.value.scalar("label_map_path")
            key = f"{one.name}.label_map_path"
            if stated is None or key in self.used:
                continue
            files = self._near(str(stated))
            if not files:
                why = "no such file near the config; classes are named by the data"
                self.say("changed", key, stated, "", why)
                continue
            try:
                found = found or read_label_map(files[0])
            except OdkitError as error:
                self.say("changed", key, stated, "", f"{error}; classes are named by the data")
                continue
            self.say(
                "taken over", key, stated, str(files[0]), f"{len(found.names)} classes, numbered from 0 here"
            )
        return found

    # -- detector and pictures ---------------------------------------------------------------------------------------

    def _detector(self, asked: str) -> str:
        """Choose the detector; the nearest to the config's."""
        architecture = self.fields[0].name
        key = f"{self.above}.feature_extractor.type"
        extractor = self.model.message("feature_extractor").scalar("type")
        if extractor is None:
            key = self.above
        value = f"{architecture}, {extractor}" if extractor is not None else architecture
        nearest, reason = STARTER, "no detector of the catalogue is of that kind"
        for kind, pattern, name, why in _NEAREST:
            if kind == architecture and re.search(pattern, str(extractor or ""), re.IGNORECASE):
                nearest, reason = name, why
                break
        self.chosen = asked or (nearest if self.kind == "cuda" else STARTER)
        if asked:
            why = f"as asked; the nearest would be {nearest}: {reason}"
        elif self.chosen == nearest:
            why = f"the nearest: {reason}"
        else:
            why = (
                f"there is no GPU, and its weights are in the package; the nearest is {nearest} ({reason}): "
                f"--detector {nearest}"
            )
        if detection.catalogue_entry(self.chosen).file_name:
            why += "; its COCO weights are fetched the first time"
        self.used.add(f"{key}$")
        self.keys.append(Key("changed", key, value, self.put("detector", self.chosen), why))
        self.entry = detection.catalogue_entry(self.chosen)
        return nearest

    def _image_size(self) -> None:
        resizer = self.model.message("image_resizer")
        if not resizer.fields:
            return
        kind, sides = resizer.fields[0].name, resizer.message(resizer.fields[0].name)
        key = f"{self.above}.image_resizer.{kind}"
        numbers = {name: sides.scalar(name) for name in ("height", "width", "min_dimension", "max_dimension")}
        given = {name: count for name, value in numbers.items() if (count := _count(value))}
        if not given:
            return
        size = max(given.values())
        how = "the longer side"
        if "min_dimension" in given:
            size = self._kept_aspect(given["min_dimension"], given.get("max_dimension", 1333))
            how = "what that makes of the longer side"
        value = ", ".join(f"{name} {number}" for name, number in given.items())
        for name in given:
            self.used.add(f"{key}.{name}")
        most = _LARGEST.get(self.kind, _LARGEST["cpu"])
        if self.entry.smallest <= size <= most:
            self.say("taken over", key, value, self.put("image_size", size), f"{how}, in pixels")
        else:
            where = f"on a {self.kind.upper()}" if size > most else f"for {self.chosen}"
            why = (
                f"{size} pixels are too {'many' if size > most else 'few'} {where}: odkit takes "
                f"{self.entry.image_size}, or more where small boxes want it (--image-size)"
            )
            self.say("changed", key, value, "", why)
        self.used.discard(key)  # what else stands there is listed by itself

    def _kept_aspect(self, shorter: int, longer: int) -> int:
        """The longer side of the usual picture after a keep_aspect_ratio_resizer, in pixels."""
        if self.dataset is None:
            return longer
        sizes = self.dataset.image_sizes[(self.dataset.image_sizes > 0).all(1)]
        if not len(sizes):
            return longer
        aspect = float(np.median(sizes.max(axis=1) / sizes.min(axis=1)))
        return min(longer, round(shorter * aspect))

    # -- length and rates --------------------------------------------------------------------------------------------

    def _length(self) -> None:
        batch = self.train.scalar("batch_size")
        size = _count(batch) or 1
        if batch is not None:
            if self.kind == "cuda" and _BATCHES[0] <= size <= _BATCHES[1]:
                flag = self.put("batch_size", size)
                self.say("taken over", "train_config.batch_size", batch, flag, "images a step")
            else:
                if self.kind != "cuda":
                    why = "4 images a step on a CPU: they cost the same one by one, and more steps learn more"
                elif size < _BATCHES[0]:
                    why = "single images were for a detector that took one at a time; odkit chooses (16 on a GPU)"
                else:
                    why = f"{size} images a step were for several GPUs or a TPU; odkit chooses (16 on a GPU)"
                self.say("changed", "train_config.batch_size", batch, "", why)
        steps = self.train.scalar("num_steps")
        fitting = (
            f"{fitting_epochs(self.images)} epochs, by their number"
            if self.images
            else "epochs by their number"
        )
        if steps is None:
            return
        if not _count(steps):
            self.say("changed", "train_config.num_steps", steps, "", f"without end; here {fitting}")
        elif not self.images:
            why = f"steps of {size} images; how many epochs that is depends on the data, which is not here; {fitting}"
            self.say("changed", "train_config.num_steps", steps, "", why)
        else:
            epochs = _count(steps) * size / self.images
            about = "about " * ("val" not in self.dataset.split_counts()) if self.dataset is not None else ""
            said = f"{_count(steps):,} steps of {size} are {epochs:,.0f} times {about}{self.images:,} images"
            if epochs <= EPOCHS[1]:
                flag = self.put("epochs", max(1, round(epochs)))
                self.say("taken over", "train_config.num_steps", steps, flag, said)
            else:
                why = f"{said}, more than a pre-trained detector gains from; here {fitting} (--epochs)"
                self.say("changed", "train_config.num_steps", steps, "", why)

    def _optimizer(self) -> None:
        optimizer = self.train.message("optimizer")
        above = "train_config.optimizer"
        for one in optimizer.fields:
            if not isinstance(one.value, Message):
                continue
            name, key = one.name, f"{above}.{one.name}"
            ours = {"sgd": "SGD with momentum", "adamw": "AdamW"}[self.entry.optimizer]
            same = {"momentum_optimizer": "sgd", "adam_optimizer": "adamw"}.get(name) == self.entry.optimizer
            said = f"{ours}, what {self.chosen} was made with"
            others = Message(fields=[f for f in one.value.fields if f.name != "learning_rate"])
            value = name + (f" ({_summary(others)})" if others.fields else "")
            self.say("taken over" if same else "changed", key, value, "", said)
            self._rate(f"{key}.learning_rate", one.value.message("learning_rate"), name)
        for name, why in (
            (
                "use_moving_average",
                "averaged weights are what is judged and saved here (--ema 0: not)",
            ),
            ("moving_average_decay", "fitted to the length of a run here (--ema)"),
        ):
            average = optimizer.scalar(name)
            if average is not None:
                part: Part = "taken over" if average is True else "changed"
                self.say(part, f"{above}.{name}", average, "", why)
        clip = self.train.scalar("gradient_clipping_by_norm")
        if isinstance(clip, int | float) and 0 < clip < 1e6:
            flag = self.put("clip", float(clip))
            self.say(
                "taken over", "train_config.gradient_clipping_by_norm", clip, flag, "largest gradient norm"
            )

    def _rate(self, key: str, rate: Message, optimizer: str) -> None:
        for one in rate.fields:
            if not isinstance(one.value, Message):
                continue
            above, shape = f"{key}.{one.name}", one.value
            for name in ("learning_rate_base", "initial_learning_rate", "learning_rate"):
                if (rate_then := shape.scalar(name)) is not None:
                    batch = self.train.scalar("batch_size") or 1
                    why = (
                        f"it was for {optimizer.removesuffix('_optimizer')} at a batch of {shown(batch)}, with "
                        f"TensorFlow's losses; {self.chosen}'s own is {self.entry.learning_rate:g} at 16, scaled to "
                        "the batch (--learning-rate)"
                    )
                    self.say("changed", f"{above}.{name}", rate_then, "", why)
            total, rise = _count(shape.scalar("total_steps")), _count(shape.scalar("warmup_steps"))
            if 0 < rise < total:
                flag = self.put("warmup", round(min(rise / total, 0.3), 3))
                self.say(
                    "taken over", f"{above}.warmup_steps", rise, flag, f"as a share of {shown(total)} steps"
                )
            rest = Message(fields=[f for f in shape.fields if f"{above}.{f.name}" not in self.used])
            if one.name.startswith("cosine"):
                self.say(
                    "taken over",
                    above,
                    _summary(rest),
                    "",
                    "a linear rise, then a cosine, over the whole run",
                )
            else:
                why = "a linear rise, then a cosine down to a hundredth, over the whole run"
                self.say("changed", above, _summary(rest), "", why)

    # -- variation, weights, judging ---------------------------------------------------------------------------------

    def _variation(self) -> None:
        options = [
            (one.name, f"train_config.data_augmentation_options.{one.name}")
            for option in self.train.all("data_augmentation_options")
            if isinstance(option, Message)
            for one in option.fields
        ]
        names = [name for name, _ in options]
        level = "none"
        for name in names:
            if name in _TURNS:
                level = max(level, "flip", key=_LEVELS.index)
            elif _PHOTO.search(name):
                level = max(level, "photo", key=_LEVELS.index)
            elif _ZOOM.search(name):
                level = max(level, "strong", key=_LEVELS.index)
        if level == "none":
            if not any(
                key.startswith("train_config.data_augmentation") for key, _, _ in self.message.leaves()
            ):
                self.outlook.append(
                    "The config varies no image; odkit does, by the length of the run (--augment none)."
                )
            return
        # odkit mirrors by itself, and in a long run does more: to take a mirror alone over would take that away
        flag = self.put("augment", level) if level != "flip" else ""
        turns = {_TURNS[name] for name in names if name in _TURNS}
        for name, key in options:
            if name in _TURNS:
                self._turn(name, key, turns, flag)
            elif _PHOTO.search(name) or _ZOOM.search(name):
                what = "light, colour and blur" if _PHOTO.search(name) else "zoom and shift"
                self.keys.append(Key("taken over", key, "", flag, f"the level that has {what}"))
                self.used.add(f"{key}$")
        if not turns:
            orientation = self.put("orientation", "upright")
            key = "train_config.data_augmentation_options"
            self.keys.append(Key("taken over", key, "without a flip", orientation, "images stay as they lie"))

    def _turn(self, name: str, key: str, turns: set[str], flag: str) -> None:
        self.used.add(f"{key}$")
        if turns == {"mirror"}:
            why = "mirrored, unless a class is a letter, a number, left or right (--orientation)"
            if not flag:
                why += "; long runs also vary light, colour and size (--augment flip: not)"
            self.keys.append(Key("taken over", key, "", flag, why))
            return
        wanted = "any" if len(turns) > 1 or "any" in turns else turns.pop()
        orientation = self.put("orientation", wanted)
        exact = name != "random_vertical_flip"
        why = "quarters and mirrors" if wanted == "any" else "by quarters"
        self.keys.append(Key("taken over" if exact else "changed", key, "", orientation, f"turned: {why}"))

    def _weights(self) -> None:
        key = "train_config.fine_tune_checkpoint"
        checkpoint = self.train.scalar("fine_tune_checkpoint")
        own = (
            "the starter's, in the package"
            if self.chosen == STARTER
            else f"{self.chosen}'s own, trained on COCO"
        )
        if checkpoint:
            self.say(
                "changed", key, checkpoint, "", f"TensorFlow's weights cannot be read; it begins from {own}"
            )
        else:
            self.outlook.append(
                f"The config begins from nothing; odkit from {own} (--weights random: from nothing)."
            )
        half = self.train.scalar("use_bfloat16")
        if half is not None:
            self.say(
                "changed",
                "train_config.use_bfloat16",
                half,
                "",
                "bf16 where the device gains from it (--precision)",
            )

    def _judging(self) -> None:
        for one in self.message.message("eval_config").fields:
            if one.name == "metrics_set":
                coco = str(one.value).startswith("coco_detection")
                part: Part = "taken over" if coco else "changed"
                why = (
                    "COCO's AP, the same figures"
                    if coco
                    else "COCO's AP, and AP50 beside it, which is nearest"
                )
                self.say(part, "eval_config.metrics_set", one.value, "", why)

    def _rest(self) -> None:
        """Every key that nothing was made of."""
        rest: dict[str, list[object]] = {}
        for name, value, _ in self.message.leaves():
            if not self._is_used(name):
                rest.setdefault(name, []).append(value)
        for name, values in rest.items():
            why = next(why for pattern, why in _REASONS if re.search(pattern, name))
            listed = ", ".join(shown(value) for value in values if value is not None)
            self.keys.append(Key("without counterpart", name, listed, "", why))

    def _is_used(self, name: str) -> bool:
        if f"{name}$" in self.used:
            return True
        parts = name.split(".")
        return any(".".join(parts[:k]) in self.used for k in range(1, len(parts) + 1))

    # -- what it means here ------------------------------------------------------------------------------------------

    def _outlook(self, nearest: str, measure: bool) -> None:
        """How long it would take here, measured, for the detector chosen and for the nearest."""
        if not measure or not self.images:
            return
        epochs = self.settings.get("epochs") or fitting_epochs(self.images)
        size = self.settings.get("image_size")
        for name in dict.fromkeys((self.chosen, nearest)):
            try:
                minutes = detection.minutes_an_epoch(
                    name,
                    images=self.images,
                    image_size=size if name == self.chosen else None,
                    device=self.device,
                )
            except OdkitError as error:
                self.outlook.append(f"{name} could not be timed: {error}")
                continue
            where = "this CPU" if self.kind == "cpu" else "this GPU"
            self.outlook.append(
                f"{name}: about {_minutes(minutes * epochs)} on {where} for the steps of {epochs} epochs of "
                f"{self.images:,} images."
            )
        if self.kind == "cpu" and psutil.getloadavg()[0] > 1.5 * cpu_count():
            self.outlook.append("Other programs keep this machine busy, which those times hold too.")


_LEVELS = ("none", "flip", "photo", "strong")


def _count(value: object) -> int:
    """A number of something as the config has it; 0 where it is none, or absurd."""
    return int(value) if isinstance(value, int | float) and 0 < value < 1e15 else 0


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"


def _summary(message: Message) -> str:
    return ", ".join(f"{name} {shown(value)}".strip() for name, value, _ in message.leaves())
