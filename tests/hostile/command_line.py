"""Lines as people mistype them, and surroundings that a command meets: outputs, encodings, signals, homes."""

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tests.hostile.cases import Expected, add, found, nothing, refused, right, usage
from tests.hostile.coco import picture


def case(
    name: str,
    what: str,
    commands: Mapping[str, Expected],
    make: Callable[[Path], object] = nothing,
    *,
    within: bool = False,
    seconds: float = 60,
) -> None:
    add("command_line", name, what, commands, make, within=within, seconds=seconds)


def pictures(folder: Path) -> None:
    """Four good pictures."""
    for index in range(4):
        picture(folder / f"{index}.jpg", seed=index)


def and_(*makes: Callable[[Path], object]) -> Callable[[Path], object]:
    def made(folder: Path) -> None:
        for make in makes:
            make(folder)

    return made


def file(name: str, data: bytes = b"") -> Callable[[Path], object]:
    def made(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return made


# -- the line itself ---------------------------------------------------------------------------------------------------

case(
    "no-command",
    "no command, an unknown one, an unknown flag",
    {
        "$ odkit": usage("which command?"),
        "detektors": usage("did you mean 'detectors'?"),
        "''": usage("there is no command ''"),
        "detectors --jsn": usage("--json"),
        "--help": right("usage: odkit COMMAND"),
        "predict": usage("DETECTOR"),
        "predict {detector} --help": right("--score"),
    },
)
case(
    "escapes-typed",
    "escape sequences in names that are typed",
    {
        "'\x1b[31mx'": Expected(2, ("there is no command",), ("\x1b",)),
        "predict '\x1b[31mx' {good}": Expected(1, ("odkit: ", "is neither a run"), ("\x1b",)),
        "predict {detector} '\x1b[31mx'": Expected(1, ("odkit: ", "no picture and no video fits"), ("\x1b",)),
        "evaluate {detector} '\x1b]0;x\x07'": Expected(1, ("odkit: ", "there is nothing at"), ("\x1b",)),
    },
)
case(
    "no-utf8-typed",
    "a name of bytes that are no UTF-8, typed",
    {
        "$ odkit audit $'caf\\xe9'": refused("there is nothing at"),
        "$ odkit predict $'caf\\xe9' {good}": refused("is neither a run"),
    },
)
case(
    "long-names",
    "names of 5,000 characters",
    {
        f"predict {'x' * 5000} {{good}}": refused("File name too long"),
        f"evaluate {{detector}} {'x' * 5000}": refused(),
    },
)

# -- predict -----------------------------------------------------------------------------------------------------------

case(
    "nothing-to-predict",
    "no picture, a folder without one, a pattern that fits none, an address, a text",
    {
        "predict {detector}": refused("give something to look at"),
        "predict {detector} {source}": refused("no images"),
        "predict {detector} {source}/*.jpg": refused("no picture and no video fits"),
        "predict {detector} https://example.com/a.jpg": refused("odkit fetches nothing"),
        "predict {detector} ''": refused("is no path"),
        "predict {detector} {source}/none.jpg": refused("no file or folder"),
        "predict {detector} {source}/text.txt": refused("text.txt"),
        "predict {detector} camera:77": refused("camera:77"),
    },
    file("text.txt", b"no picture"),
)
case(
    "no-such-detector",
    "a detector that is not there",
    {
        "predict nothere {good}": refused("is neither a run"),
        "predict {good} {good}": refused("is not a run folder"),
        "predict {good}/000.png {good}": refused("is not a detector saved by odkit"),
        "evaluate nothere {good}": refused("is neither a run"),
        "evaluate {detector} {good} --compare nothere": refused("is neither a run"),
        "export nothere --out {target}": refused("is neither a run"),
        "prelabel {good} --detector nothere --out {target}": refused("is neither a run"),
        "benchmark nothere": refused("is neither a run"),
    },
)
DEVICES = {
    "foo": "device must be",
    "''": "device must be",
    "'cpu '": "device must be",
    "cuda:-1": "device must be",
    "cuda:1000000": "device must be",
    "cuda:99": "cuda:99",
    "meta": "device must be",
}
for command in ("predict {detector} {good}", "evaluate {run} {good}", "benchmark {detector}"):
    case(
        f"devices-{command.split()[0]}",
        f"devices that are not there, for {command.split()[0]}",
        {f"{command} --device {name}": refused(says) for name, says in DEVICES.items()},
    )
case(
    "predict-numbers",
    "scores, batches, workers and tiles that are no such numbers",
    {
        "predict {detector} {good} --score nan": refused("--score must be from 0 to 1"),
        "predict {detector} {good} --score 2": refused("--score must be from 0 to 1"),
        "predict {detector} {good} --score much": usage("--score"),
        "predict {detector} {good} --batch-size 0": refused("batch_size"),
        "predict {detector} {good} --batch-size -1": refused("batch_size"),
        "predict {detector} {good} --batch-size 1e3": usage("--batch-size"),
        "predict {detector} {good} --num-workers -2": refused("num_workers"),
        "predict {detector} {good} --num-workers 100000": refused("num_workers"),
        "predict {detector} {good} --tiles 1": refused("tiles"),
        "predict {detector} {good} --tiles -5": refused("tiles"),
        "predict {detector} {good} --precision fp8": usage("--precision"),
        f"predict {{detector}} {{good}} --tiles {10**30}": refused("tiles"),
        f"predict {{detector}} {{good}} --batch-size {10**30}": right('"objects":'),
    },
)
case(
    "predict-to",
    "a format without a place, and one that there is not",
    {
        "predict {detector} {good} --to coco": refused("--out where to"),
        "predict {detector} {good} --out {target} --to gif": usage("--to"),
    },
)
case(
    "predict-out",
    "places where nothing may be written: among the pictures, over a file, in a full folder",
    {
        "predict {detector} {source}/in --out {source}/in": refused("give another folder"),
        "predict {detector} {source}/in --out {source}/in/new": refused("give another folder"),
        "predict {detector} {source}/in/0.jpg --out {source}/in": refused("give another folder"),
        "predict {detector} {source}/in --out {source}/file": refused("is there already"),
        "predict {detector} {source}/in --out {source}/file/new": refused("Not a directory"),
        "predict {detector} {source}/in --out {source}": refused("is there already"),
        "predict {detector} {source}/in --out /dev/null": refused("is there already"),
        f"predict {{detector}} {{source}}/in --out {{source}}/{'x' * 300}": refused("File name too long"),
    },
    and_(lambda folder: pictures(folder / "in"), file("file")),
)


def one_broken(folder: Path) -> None:
    pictures(folder)
    (folder / "1.jpg").write_bytes((folder / "1.jpg").read_bytes()[:300])
    (folder / "2.jpg").write_text("no picture")


case(
    "predict-broken",
    "two broken pictures among four: the others are looked at",
    {
        "predict {detector} {source}": right("2 pictures left out", '0.jpg","objects"', '3.jpg","objects"'),
        "predict {detector} {source} --out {target}": right("2 pictures left out", "written to"),
        "predict {detector} {source}/1.jpg": refused("1.jpg"),
        "predict {detector} {source}/1.jpg {source}/2.jpg --out {target}": refused("none of 2 pictures"),
        "prelabel {source} --detector {run} --out {target}": right("suggested in 2 pictures"),
    },
    one_broken,
)


def odd_suffixes(folder: Path) -> None:
    for suffix in ("gif", "jfif", "jpe", "ppm", "pgm", "webp", "TIFF"):
        made = picture(folder / f"{suffix}.png")
        from PIL import Image

        kind = {"jfif": "JPEG", "jpe": "JPEG", "pgm": "PPM"}.get(suffix)
        with Image.open(made) as image:
            image.save(folder / f"{suffix}.{suffix}", kind)
        made.unlink()


case(
    "predict-suffixes",
    "pictures of every suffix that the audit reads",
    {
        "predict {detector} {source}": right(
            *(
                f'{suffix}.{suffix}","objects"'
                for suffix in ("gif", "jfif", "jpe", "ppm", "pgm", "webp", "TIFF")
            )
        )
    },
    odd_suffixes,
)


def no_suffix(folder: Path) -> None:
    picture(folder / "photo.png").rename(folder / "photo")
    picture(folder / "other.png").rename(folder / "other.xyz")


case(
    "predict-no-suffix",
    "pictures without a suffix, and with one that says nothing",
    {
        "predict {detector} {source}/photo {source}/other.xyz": right('photo","objects"'),
        "predict {detector} {source}/photo {source}/other.xyz --out {target}": right("written to"),
        "predict {detector} {source}/photo --out {target} --to yolo voc csv coco": right("written to"),
    },
    no_suffix,
)


def special(folder: Path) -> None:
    pictures(folder / "some")
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "some" / "pipe.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "some" / "zero.jpg").symlink_to("/dev/zero")
    (folder / "folder.jpg").mkdir()


case(
    "predict-special",
    "pipes and devices in place of pictures",
    {
        "predict {detector} {source}/pipe.jpg": refused("pipe"),
        "predict {detector} {source}/zero.jpg": refused("device"),
        "predict {detector} {source}/folder.jpg": refused("no images"),
        "predict {detector} {source}/some": right('3.jpg","objects"'),
        "predict {detector} {source}/some --out {target}": right("written to"),
    },
    special,
    seconds=30,
)

# -- evaluate ----------------------------------------------------------------------------------------------------------

case(
    "evaluate-wrong",
    "splits, thresholds and outputs that are none",
    {
        "evaluate {detector} {good} --split nosuch": refused("nosuch"),
        "evaluate {detector} {good} --want-precision 2": refused("precision"),
        "evaluate {detector} {good} --want-recall nan": refused("recall"),
        "evaluate {detector} {good} --out {good}": refused("is there already"),
        "evaluate {detector} {good} --out {source}/no/such/page.json": refused("No such file"),
        "evaluate {detector} {source}": refused(),
        "evaluate {detector} nothere": refused("there is nothing at"),
        "evaluate {detector} {good} --classes nosuch": refused("nosuch"),
        "evaluate {detector} {good} --rename red": refused("OLD=NEW"),
    },
)
RESULTS: dict[str, tuple[object, str]] = {
    "empty": ("", "results.json"),
    "cut": ('[{"image_id": 1, "cat', "results.json"),
    "numbers": ([1, 2, 3], "results.json"),
    "a-number": (5, "results.json"),
    "no-box": ([{"image_id": 1, "category_id": 1, "score": 0.5}], "without a box of four finite numbers"),
    "nan-box": ('[{"image_id": 1, "category_id": 1, "bbox": [NaN, 1, 2, 3], "score": 0.5}]', "results.json"),
    "text-score": ([{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 3], "score": "high"}], "score"),
    "huge-id": ([{"image_id": 10**30, "category_id": 1, "bbox": [1, 1, 2, 3], "score": 0.5}], "results.json"),
    "strange-image": ([{"image_id": 999, "category_id": 1, "bbox": [1, 1, 2, 3], "score": 0.5}], "999"),
    "strange-class": ([{"image_id": 1, "category_id": 99, "bbox": [1, 1, 2, 3], "score": 0.5}], "99"),
    "list-image": ([{"image_id": [1], "category_id": 1, "bbox": [1, 1, 2, 3], "score": 0.5}], "[1]"),
    "list-class": ([{"image_id": 1, "category_id": [1], "bbox": [1, 1, 2, 3], "score": 0.5}], "[1]"),
    "nested": ("[" * 100_000, "results.json"),
}
for name, (content, says) in RESULTS.items():
    text = content if isinstance(content, str) else json.dumps(content)
    case(
        f"results-{name}",
        f"COCO results to be judged: {name.replace('-', ' ')}",
        {"evaluate {source}/results.json {good}": refused(says)},
        file("results.json", text.encode()),
    )


class _Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch here-it-ran",)


def spoiled_predictions(folder: Path) -> None:
    (folder / "text.npz").write_text("no archive")
    (folder / "pickle.npz").write_bytes(pickle.dumps(_Runs()))
    np.savez(folder / "objects.npz", boxes=np.array([_Runs()], object))
    np.savez(folder / "others.npz", boxes=np.zeros((2, 4)))
    (folder / "empty.npz").touch()
    os.mkfifo(folder / "pipe.npz")


case(
    "results-npz",
    "saved predictions that are none: a text, a pickle, an archive of others",
    {
        f"evaluate {{source}}/{name}.npz {{good}}": refused(f"{name}.npz")
        for name in ("text", "pickle", "objects", "others", "empty", "pipe")
    },
    spoiled_predictions,
    seconds=30,
)

# -- export, prelabel, import, benchmark -------------------------------------------------------------------------------

case(
    "export-wrong",
    "an export that cannot be",
    {
        "export {run} --out {good}": refused("is there already"),
        "export {run} --out {good}/000.png": refused("000.png"),
        "export {run} --formats fp8 --out {target}": usage("--formats"),
        "export {detector} --out {target}": refused("dataset"),
        "export {run} --data nothere --out {target}": refused("there is nothing at"),
        "export {good} --out {target}": refused("is not a run folder"),
    },
)
case(
    "prelabel-wrong",
    "suggestions that cannot be",
    {
        "prelabel {good} --detector {run} --out {target}": refused("every picture"),
        "prelabel {source} --detector {run} --score 2 --out {target}": refused("score"),
        "prelabel {source} --detector {run} --score nan --out {target}": refused("score"),
        "prelabel {source} --detector {run} --to gif --out {target}": usage("--to"),
        "prelabel {source} --detector {run} --out {source}/new": refused("is in the folder of the data"),
        "prelabel nothere --detector {run} --out {target}": refused("nothere"),
        "prelabel {source} --detector {run} --batch-size 0 --out {target}": refused("batch_size"),
        "prelabel {source} --detector {run} --out {source}/0.jpg/new": refused(),
    },
    pictures,
)
case(
    "benchmark-wrong",
    "a benchmark of nothing, of no time, into no picture",
    {
        "benchmark": refused("nothing to measure"),
        "benchmark {detector} --seconds 0": refused("seconds"),
        "benchmark {detector} --seconds nan": refused("seconds"),
        "benchmark {detector} --seconds inf": refused("seconds"),
        "benchmark {detector} --images -1": refused("images"),
        "benchmark {detector} --largest-batch 0": refused("largest_batch"),
        "benchmark {detector} --figure {source}/x.txt": refused("--figure"),
        "benchmark {detector} --data nothere": refused("there is nothing at"),
    },
)
case(
    "detectors-wrong",
    "a detector to time that there is not",
    {
        "detectors --measure yolov8": refused("no detector is called 'yolov8'"),
        "detectors --json": right('"starter"'),
    },
)

# -- doctor, demo ------------------------------------------------------------------------------------------------------

case(
    "doctor-wrong",
    "checks, folders and files that are not there",
    {
        "doctor --only nosuch": refused("nosuch"),
        "doctor --only memory --data {source}/nothere": Expected(0),
        "doctor --only work --work /proc": found(not_says=("chown -R 0:0 /proc",)),
    },
)
case(
    "demo-wrong",
    "a demo that cannot be drawn",
    {
        "demo {good}": refused("is not empty"),
        "demo {good}/000.png": refused("000.png"),
        "demo {target} --images 0": refused("images"),
    },
)

# -- outputs, encodings, signals, homes --------------------------------------------------------------------------------

case(
    "closed",
    "outputs that are closed, or full",
    {
        "$ odkit audit {good} >&-": Expected(0),
        "$ odkit audit {good} 2>&-": right("0 fatal"),
        "$ odkit audit {good} <&- >&- 2>&-": Expected(0),
        "$ odkit audit nothere >&- 2>&-": Expected(1),
        "$ odkit detectors | head -1": Expected(0, ("summary",)),
        "$ odkit audit {good} > /dev/full": refused("No space left on device"),
    },
)


def accented(folder: Path) -> None:
    from tests.hostile.coco import labels, write

    content = labels()
    content["images"][0]["file_name"] = "café.jpg"
    write(folder, content)
    (folder / "0.jpg").rename(folder / "café.jpg")


POOR = "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"
case(
    "encodings",
    "names with accents, and outputs or a locale without them",
    {
        "$ PYTHONIOENCODING=latin-1 odkit audit {source}": right("0 fatal"),
        "$ PYTHONIOENCODING=ascii odkit audit {source} --json | python3 -m json.tool": right(),
        "$ LC_ALL=C odkit audit {source}": right("0 fatal"),
        f"$ {POOR} odkit audit {{source}}": found("unreadable_image"),
        f"$ {POOR} odkit audit {{good}}": right("0 fatal"),
    },
    accented,
)
case(
    "no-home",
    "no home, and a home of nobody",
    {
        "audit '~nosuchuser/x'": refused("there is nothing at"),
        "convert {good} '~nosuchuser/x' --to voc": refused("give the whole path"),
        "predict {detector} '~nosuchuser/x.jpg'": refused("no file or folder"),
        "predict {detector} {good}/000.png --out '~nosuchuser/x'": refused("give the whole path"),
        "$ env -u HOME bash -c 'true' && HOME= odkit audit {good}": right("0 fatal"),
        "$ HOME=/nonexistent odkit audit {good}": right("0 fatal"),
    },
)
case(
    "track-nobody",
    "a tracking server that is not there",
    {
        "track {run} --to mlflow=http://127.0.0.1:9": refused("MLflow"),
        "track {run} --to nosuch": refused("no tracker is called 'nosuch'"),
        "track {run} --to mlflow=http://user:word@127.0.0.1:9": refused("password"),
    },
)
case(
    "demo-numbers",
    "a demo of no images, of a negative seed, of images in no number",
    {
        "demo {target} --images -5": refused("images"),
        "demo {target} --images many": usage("--images"),
        "demo": usage("FOLDER"),
    },
)
case(
    "detectors-named-nearly",
    "detectors by nearly their names",
    {
        "detectors --measure dfine_nanoo": refused("did you mean 'dfine_nano'"),
        "detectors --measure ''": refused("no detector is called ''"),
    },
)
case(
    "predict-pairs",
    "a flag given twice, and flags without their value",
    {
        "predict {detector} {good} --score": usage("--score"),
        "predict {detector} {good} --out": usage("--out"),
        "predict {detector} {good} --score 2 --score 3": refused("--score must be from 0 to 1"),
    },
)
case(
    "completion",
    "what a shell asks for",
    {"--tyro-print-completion bash": right("--score"), "--version": right("odkit ")},
)
case(
    "long-words",
    "flags of a megabyte",
    {f"predict {{detector}} {{good}} --device {'x' * 100_000}": refused("device must be")},
)
case(
    "results-missing",
    "results to be judged that are not there",
    {
        "evaluate {source}/none.json {good}": refused("there is no file"),
        "evaluate {source}/none.npz {good}": refused("there is no file"),
    },
)
