"""Detectors and weights: files that are damaged, of another kind, or say of themselves what is not so."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from tests.hostile.cases import add, refused, right

Tensors = dict[str, np.ndarray[Any, Any]]
ABOUT: dict[str, Any] = {"format": 1, "name": "starter", "class_names": ["blue", "red"], "image_size": 64}


def own(folder: Path) -> Path:
    """The case's own copy of a good detector's file."""
    return folder.parent / "runs" / "good" / "detector.safetensors"


def saying(
    about: Any, tensors: Callable[[Tensors], Tensors] = lambda state: state
) -> Callable[[Path], object]:
    """What makes the detector's file say this of itself (a text as it is, else as JSON), and changes its tensors."""

    def make(folder: Path) -> None:
        text = about if isinstance(about, str) else json.dumps(about)
        own(folder).write_bytes(save(tensors(load_file(own(folder))), {"odkit": text}))

    return make


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in ABOUT.items() if key not in keys}


def holding(change: Callable[[Tensors], Tensors]) -> Callable[[Path], object]:
    """What changes the tensors in the detector's file."""
    return saying(ABOUT, change)


def bytes_of(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """What changes the bytes of the detector's file."""
    return lambda folder: own(folder).write_bytes(change(own(folder).read_bytes()))


def headed(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """What puts something in place of the detector's file."""

    def made(folder: Path) -> None:
        own(folder).unlink()
        make(own(folder))

    return made


def case(name: str, what: str, make: Callable[[Path], object], *says: str, readable: bool = True) -> None:
    """A detector's file that is refused by all that would read it, in the same words.

    Args:
        name: Its name.
        what: What is in it.
        make: Makes it.
        *says: What is said.
        readable: Whether its numbers can be had all the same, by who gives the names of the classes.
    """
    commands = {
        "predict {detector} {good}/000.png": refused(*says),
        "evaluate {run} {good} --json": refused(*says),
        "export {run} --out {target} --formats fp32": refused(*says),
    }
    if not readable:
        line = "import-weights {detector} --detector starter --classes blue red --out {target}"
        commands[line] = refused("detector.safetensors")
    add("weights", name, what, commands, make)


def damaged(
    name: str, what: str, make: Callable[[Path], object], says: str = "is not a detector saved by odkit"
) -> None:
    case(name, what, make, says, readable=False)


add(
    "weights",
    "good",
    "a detector as odkit saves it",
    {
        "predict {detector} {good}/000.png": right('"objects":'),
        "evaluate {run} {good}": right("AP50"),
        "export {detector} --data {good} --out {target} --formats fp32": right("against PyTorch"),
        "prelabel {good} --detector {run} --out {target} --every-picture": right("suggested in"),
        "import-weights {detector} --detector starter --classes blue red --out {target}": right(),
    },
)

# -- the file --------------------------------------------------------------------------------------------------------

damaged("empty", "an empty file", bytes_of(lambda data: b""))
damaged("cut-in-header", "a file cut short in its header", bytes_of(lambda data: data[:500]))
damaged("cut-in-numbers", "a file cut short in its numbers", bytes_of(lambda data: data[:-500]))
damaged("one-byte-more", "a file with a byte after its end", bytes_of(lambda data: data + b"\0"))
damaged("text", "a text file", bytes_of(lambda data: b"weights, to follow\n" * 50))
damaged(
    "huge-header",
    "a header of 2**60 bytes, it says",
    bytes_of(lambda data: (2**60).to_bytes(8, "little")),
)
damaged("header-no-json", "a header that is no JSON", bytes_of(lambda data: headed(b"{" * 100)))
damaged("header-a-list", "a header that is a list", bytes_of(lambda data: headed(b"[1, 2]")))
damaged("header-nested", "a header of 100,000 brackets", bytes_of(lambda data: headed(b"[" * 100_000)))
damaged(
    "offsets-outside",
    "a tensor that lies outside of the file",
    bytes_of(lambda data: headed(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}')),
)
damaged(
    "shape-overflows",
    "a tensor of 2**80 numbers",
    bytes_of(
        lambda data: headed(
            b'{"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,0]}}'
        )
    ),
)


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch here-it-ran",)


damaged("pickle", "a pickle that would run a command", bytes_of(lambda data: pickle.dumps(_Runs())))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../outside", b"x")


damaged("zip", "a ZIP file", instead(zipped))
damaged("folder", "a folder of that name", instead(Path.mkdir), "detector.safetensors")
damaged("fifo", "a pipe in place of the file", instead(os.mkfifo), "is a pipe")
damaged("dev-zero", "a link to /dev/zero", instead(lambda path: path.symlink_to("/dev/zero")), "is a device")
damaged("dangling", "a link that leads nowhere", instead(lambda path: path.symlink_to("nowhere")), "detector")

# -- what it says of itself --------------------------------------------------------------------------------------------


def silent(folder: Path) -> None:
    own(folder).write_bytes(save(load_file(own(folder))))


case(
    "no-metadata",
    "a .safetensors file that another program wrote",
    silent,
    "is not a detector saved by odkit",
)
case("about-no-json", "metadata that are no JSON", saying("{"), "is not as odkit writes it")
case("about-a-list", "metadata that are a list", saying([]), "is not as odkit writes it")
case("about-a-number", "metadata that are a number", saying(5), "is not as odkit writes it")
case("about-empty", "metadata without a key", saying({}), "is not as odkit writes it")
case("about-nested", "metadata of 100,000 brackets", saying("[" * 100_000), "is not as odkit writes it")
case("format-2", "a file of a newer odkit", saying({**ABOUT, "format": 2}), "newer odkit")
case("format-a-text", "a format that is no number", saying({**ABOUT, "format": "one"}), "newer odkit")
case("no-name", "metadata without the detector's name", saying(without("name")), "name")
case("name-unknown", "a detector that is in no catalogue", saying({**ABOUT, "name": "yolov8"}), "yolov8")
case("name-a-list", "a name that is a list", saying({**ABOUT, "name": ["starter"]}), "name")
case(
    "name-another",
    "another detector's name",
    saying({**ABOUT, "name": "ssdlite320_mobilenet_v3_large"}),
    "another network",
)
case("no-classes", "an empty list of classes", saying({**ABOUT, "class_names": []}), "class_names")
case("classes-a-text", "classes in one text", saying({**ABOUT, "class_names": "blue, red"}), "class_names")
case("classes-numbers", "classes that are numbers", saying({**ABOUT, "class_names": [1, 2]}), "class_names")
case(
    "classes-twice",
    "two classes of one name",
    saying({**ABOUT, "class_names": ["red", "red"]}),
    "class_names",
)
case("classes-null", "null for the classes", saying({**ABOUT, "class_names": None}), "class_names")
case(
    "more-classes",
    "more class names than outputs",
    saying({**ABOUT, "class_names": ["a", "b", "c"]}),
    "3 classes",
)
case("fewer-classes", "fewer class names than outputs", saying({**ABOUT, "class_names": ["a"]}), "1 class")
case(
    "million-classes",
    "1,000,000 class names",
    saying({**ABOUT, "class_names": [f"c{n}" for n in range(10**6)]}),
    "classes",
)
case("size-a-text", "an image size that is a text", saying({**ABOUT, "image_size": "big"}), "image_size")
case("size-zero", "an image size of 0", saying({**ABOUT, "image_size": 0}), "image_size")
case("size-negative", "an image size of -64", saying({**ABOUT, "image_size": -64}), "image_size")
case("size-half", "an image size of 64.5", saying({**ABOUT, "image_size": 64.5}), "image_size")
case("size-true", "true for the image size", saying({**ABOUT, "image_size": True}), "image_size")
case("size-huge", "an image size of 10**9", saying({**ABOUT, "image_size": 10**9}), "image_size")
case(
    "size-beyond-64-bits",
    "an image size of 10**30",
    saying(json.dumps({**ABOUT, "image_size": 10**30})),
    "image_size",
)
TILES = {"size": 64, "overlap": 8, "whole": False}
case("tiles-a-list", "tiles that are a list", saying({**ABOUT, "tiles": [64, 8, False]}), "tiles")
case(
    "tiles-no-size",
    "tiles without a size",
    saying({**ABOUT, "tiles": {"overlap": 8, "whole": False}}),
    "tiles",
)
case("tiles-negative", "tiles of -64 pixels", saying({**ABOUT, "tiles": {**TILES, "size": -64}}), "tiles")
case(
    "tiles-overlap",
    "tiles that overlap by more than themselves",
    saying({**ABOUT, "tiles": {**TILES, "overlap": 64}}),
    "tiles",
)

# -- its numbers -------------------------------------------------------------------------------------------------------

ONE = "head.classes.bias"
case(
    "missing-tensor",
    "a tensor too few",
    holding(lambda state: {k: v for k, v in state.items() if k != ONE}),
    ONE,
)
case(
    "extra-tensor",
    "a tensor too many",
    holding(lambda state: {**state, "head.extra": state[ONE]}),
    "head.extra",
)
case("no-tensor", "no tensor at all", holding(lambda state: {}), "no tensors")
case(
    "other-shape",
    "a tensor of another shape",
    holding(lambda state: {**state, "head.distances.bias": np.zeros(5, np.float32)}),
    "head.distances.bias",
)
case(
    "integers",
    "weights of 8-bit integers",
    holding(lambda state: {**state, "head.classes.weight": state["head.classes.weight"].astype(np.int8)}),
    "head.classes.weight",
    "int8",
)
case(
    "nan",
    "weights that are not numbers",
    holding(lambda state: {**state, ONE: np.full(2, np.nan, np.float32)}),
    ONE,
    "not finite",
)
case(
    "infinite",
    "weights without end",
    holding(lambda state: {**state, "head.distances.bias": np.full(4, np.inf, np.float32)}),
    "head.distances.bias",
    "not finite",
)
add(
    "weights",
    "float64",
    "weights in double precision",
    {"predict {detector} {good}/000.png": right('"objects":'), "evaluate {run} {good}": right("AP50")},
    holding(
        lambda state: {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in state.items()}
    ),
)
add(
    "weights",
    "float16",
    "weights in half precision",
    {"predict {detector} {good}/000.png": right('"objects":'), "evaluate {run} {good}": right("AP50")},
    holding(
        lambda state: {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in state.items()}
    ),
)
add(
    "weights",
    "class-names-odd",
    "class names with HTML, escape sequences and line breaks",
    {
        "predict {detector} {good}/000.png --score 0": right('"objects":', not_says=("\x1b",)),
        "predict {detector} {good} --score 0 --out {target}": right(not_says=("\x1b",)),
        "predict {detector} {good} --score 0 --out {target} --to yolo voc csv coco": right(
            not_says=("\x1b",)
        ),
    },
    saying({**ABOUT, "class_names": ["<script>alert(1)</script>", '\x1b[31mred\n\x07, "quoted"']}),
)

# -- exported files ----------------------------------------------------------------------------------------------------

FACTS: dict[str, Any] = {
    **{key: ABOUT[key] for key in ("format", "class_names", "image_size")},
    "detector": "starter",
    "square": False,
    "divisible": 32,
    "tiles": None,
    "precision": "fp32",
}


def graph(about: Any, *, outputs: Tensors | None = None, inputs: str = "images") -> Callable[[Path], object]:
    """What makes x.onnx: a graph of constant outputs that says this of itself (None: nothing)."""

    def make(folder: Path) -> None:
        import onnx
        from onnx import helper, numpy_helper

        given = outputs or {
            "boxes": np.zeros((1, 1, 4), np.float32),
            "scores": np.full((1, 1), 0.9, np.float32),
            "labels": np.zeros((1, 1), np.int64),
        }
        nodes = [
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))
            for name, value in given.items()
        ]
        values = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in given.items()
        ]
        taken = [
            helper.make_tensor_value_info(inputs, onnx.TensorProto.UINT8, [None, 3, None, None]),
            helper.make_tensor_value_info("sizes", onnx.TensorProto.INT64, [None, 2]),
        ]
        model = helper.make_model(
            helper.make_graph(nodes, "x", taken, values),
            opset_imports=[helper.make_opsetid("", 18)],
            ir_version=10,
        )
        if about is not None:
            text = about if isinstance(about, str) else json.dumps(about)
            helper.set_model_props(model, {"odkit": text})
        onnx.save(model, folder / "x.onnx")

    return make


def exported(name: str, what: str, make: Callable[[Path], object], *says: str, file: str = "x.onnx") -> None:
    """An exported file that is refused."""
    lines = (f"predict {{source}}/{file} {{good}}/000.png", f"evaluate {{source}}/{file} {{good}}")
    add("weights", f"exported-{name}", what, {line: refused(*says) for line in lines}, make)


def holds(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


NO_GRAPH = "is no ONNX file"
add(
    "weights",
    "exported-good",
    "a graph that finds a box of no area",
    {"predict {source}/x.onnx {good}/000.png": right('"blue"')},
    graph(FACTS),
)
exported("empty", "an empty .onnx file", holds("x.onnx", b""), NO_GRAPH)
exported("text", "a text called .onnx", holds("x.onnx", b"to follow\n" * 100), NO_GRAPH)
exported("pickle", "a pickle called .onnx", holds("x.onnx", pickle.dumps(_Runs())), NO_GRAPH)
exported("fifo", "a pipe called .onnx", lambda folder: os.mkfifo(folder / "x.onnx"), "is a pipe")
exported("silent", "a graph of another program", graph(None), "does not say which classes")
exported("about-no-json", "a graph whose metadata are no JSON", graph("{"), "no JSON")
exported("about-a-list", "a graph whose metadata are a list", graph([]), "in place of keys and values")
exported(
    "classes-a-text",
    "a graph with its classes in one text",
    graph({**FACTS, "class_names": "ab"}),
    "class_names",
)
exported(
    "size-huge", "a graph for images of 10**9 pixels", graph({**FACTS, "image_size": 10**9}), "image_size"
)
exported("divisible-zero", "a graph for sides divisible by 0", graph({**FACTS, "divisible": 0}), "divisible")
exported("other-inputs", "a graph with other inputs", graph(FACTS, inputs="pixels"), "x.onnx")
exported(
    "no-scores",
    "a graph without scores",
    graph(FACTS, outputs={"boxes": np.zeros((1, 1, 4), np.float32)}),
    "x.onnx",
)
SOME: Tensors = {
    "boxes": np.zeros((1, 1, 4), np.float32),
    "scores": np.full((1, 1), 0.9, np.float32),
    "labels": np.zeros((1, 1), np.int64),
}
exported(
    "unknown-class",
    "a graph that finds a class it has no name for",
    graph(FACTS, outputs={**SOME, "labels": np.full((1, 1), 7)}),
    "x.onnx",
)
exported(
    "flat-boxes",
    "a graph whose boxes have two numbers",
    graph(FACTS, outputs={**SOME, "boxes": np.zeros((1, 1, 2), np.float32)}),
    "x.onnx",
)
exported(
    "nan-boxes",
    "a graph whose boxes are not numbers",
    graph(FACTS, outputs={**SOME, "boxes": np.full((1, 1, 4), np.nan, np.float32)}),
    "x.onnx",
)
exported("xml-empty", "an empty .xml file", holds("x.xml", b""), "x.xml", file="x.xml")
exported(
    "xml-no-graph",
    "an .xml file of labels",
    holds("x.xml", b"<annotation></annotation>"),
    "x.xml",
    file="x.xml",
)

# -- weights of other programs ----------------------------------------------------------------------------------------

IMPORT = "import-weights {source}/x.pth --detector starter --classes blue red --out {target}"


def foreign(name: str, what: str, make: Callable[[Path], object], *says: str) -> None:
    add("weights", f"foreign-{name}", what, {IMPORT: refused(*says)}, make)


def torch_saved(content: Callable[[], Any]) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        import torch

        torch.save(content(), folder / "x.pth")

    return make


def tensors(**values: Any) -> dict[str, Any]:
    import torch

    return {key: torch.tensor(value) for key, value in values.items()}


foreign("empty", "an empty .pth file", holds("x.pth", b""), "x.pth is damaged")
foreign("text", "a text called .pth", holds("x.pth", b"to follow\n" * 100), "x.pth is damaged")
foreign(
    "pickle",
    "a pickle that would run a command",
    holds("x.pth", pickle.dumps(_Runs())),
    "which odkit does not load",
)
foreign(
    "torch-pickle",
    "a file of torch.save that would run a command",
    torch_saved(lambda: {"model": _Runs()}),
    "which odkit does not load",
)
foreign("a-number", "a file of torch.save with a number", torch_saved(lambda: 5), "holds a int")
foreign(
    "no-tensors",
    "a file of torch.save without weights",
    torch_saved(lambda: {"epoch": 3}),
    "holds no weights",
)
foreign(
    "others", "the weights of nothing in the catalogue", torch_saved(lambda: tensors(a=1.0)), "fits neither"
)
foreign("nan", "weights that are not numbers", torch_saved(lambda: tensors(a=float("nan"))), "not finite")
foreign("quantised", "weights of integers", torch_saved(lambda: tensors(a=1)), "quantised")
foreign("fifo", "a pipe called .pth", lambda folder: os.mkfifo(folder / "x.pth"), "is a pipe")
add(
    "weights",
    "foreign-predict",
    "weights of another program given to predict with",
    {
        "predict {source}/x.pth {good}/000.png": refused("odkit import-weights"),
        "predict {source}/x.h5 {good}/000.png": refused("is not a detector saved by odkit"),
        "import-weights {source}/x.pth --detector yolov8 --classes a --out {target}": refused(
            "no detector is called"
        ),
        "import-weights {source}/nothere.pth --detector starter --classes a --out {target}": refused(
            "nothere.pth"
        ),
        "import-weights {source}/x.pth --detector starter --classes a a --out {target}": refused(),
        "import-weights {source}/x.pth --detector starter --classes a --out {source}/x.h5": refused(
            "is there already"
        ),
        "import-weights {source}/x.pth --detector starter --classes a --image-size -5 --out {target}": refused(),
    },
    lambda folder: [torch_saved(lambda: tensors(a=1.0))(folder), holds("x.h5", b"\x89HDF\r\n")(folder)],
)
