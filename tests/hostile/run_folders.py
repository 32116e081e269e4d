"""Run folders that are damaged, half there or another program's, and what is typed at runs."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from tests.hostile.cases import Expected, add, refused, right, usage

SMALL = 1 << 20  # bytes; what is larger in the finished run is its detector and its checkpoint


def case(
    name: str,
    what: str,
    commands: Mapping[str, Expected],
    change: Callable[[Path], object] = lambda run: None,
    *,
    within: bool = False,
) -> None:
    """A case that changes the finished run, and types."""
    add(
        "run_folders",
        name,
        what,
        commands,
        lambda source: change(source.parent / "runs" / "good"),
        within=within,
    )


# -- config.json that is no run's --------------------------------------------------------------------------------------


def beside(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Makes "spoiled", a run without its large files, beside the good one, and changes its config.json."""

    def make(run: Path) -> None:
        spoiled = run.parent / "spoiled"
        spoiled.mkdir()
        for file in run.iterdir():
            if file.is_file() and file.stat().st_size < SMALL:
                shutil.copy(file, spoiled)
        change(spoiled / "config.json")

    return make


def spoiled(
    name: str,
    what: str,
    change: Callable[[Path], object],
    *says: str,
    also: Mapping[str, Expected] | None = None,
) -> None:
    """A config.json that cannot be read: a row that says so, and every other run as ever."""
    case(
        name,
        what,
        {
            "runs {runs}": right("good finished", "spoiled unreadable", *says),
            "show {runs}/spoiled": refused(*says),
            **(also or {}),
        },
        beside(change),
    )


def holds(content: Any) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(
        content if isinstance(content, bytes) else json.dumps(content).encode()
    )


def with_config(**changes: Any) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def with_settings(**changes: Any) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, "settings": {**config["settings"], **changes}}))

    return change


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Something else in place of a file."""

    def change(file: Path) -> None:
        file.unlink(missing_ok=True)
        make(file)

    return change


def long(size: int) -> Callable[[Path], None]:
    """A file of so many bytes that takes no room on the disk."""

    def make(file: Path) -> None:
        file.write_bytes(b"{")
        os.truncate(file, size)

    return make


spoiled("config-empty", "a config.json without a byte", holds(b""), "config.json is damaged (empty)")
spoiled(
    "config-cut",
    "a config.json that ends in the middle",
    lambda file: os.truncate(file, 300),
    "config.json is damaged (not JSON",
)
spoiled("config-list", "a config.json that is a list", holds([]), "config.json is none of odkit's")
spoiled("config-number", "a config.json that is a number", holds(5), "config.json is none of odkit's")
spoiled("config-braces", "a config.json of two braces", holds({}), "config.json is no run's: settings")
spoiled(
    "config-of-a-model",
    "the config.json of a Hugging Face model",
    holds({"model_type": "bert", "hidden_size": 768, "torch_dtype": "float32"}),
    "config.json is no run's: settings",
    also={
        "runs {runs} --json": right('"unreadable"', "config.json is no run's: settings"),
        "runs {runs} --compare": right("spoiled unreadable"),
        "resume {runs}/spoiled --epochs 9": refused("config.json is no run's: settings"),
    },
)
spoiled(
    "config-binary", "bytes in place of a config.json", holds(bytes(range(256))), "config.json is damaged"
)
spoiled(
    "config-utf16",
    "a config.json in UTF-16",
    holds("{}".encode("utf-16")),
    "config.json is damaged (not JSON",
)
spoiled("config-deep", "100,000 brackets", holds(b"[" * 100_000), "config.json is damaged (not JSON")
spoiled("config-huge", "a config.json of 100 GB", long(10**11), "more than the")
spoiled("config-pipe", "a pipe in place of config.json", instead(os.mkfifo), "is a pipe, not a file")
spoiled(
    "config-zero", "a link to /dev/zero", instead(lambda file: file.symlink_to("/dev/zero")), "is a device"
)
spoiled(
    "config-folder", "a folder in place of config.json", instead(Path.mkdir), "config.json cannot be read"
)
spoiled(
    "config-settings-list",
    "settings that are a list",
    with_config(settings=[]),
    "is damaged: settings is not",
)
spoiled(
    "config-classes", "class names that are numbers", with_config(class_names=[1, 2]), "class_names is not"
)
spoiled("config-images", "counts that are words", with_config(images={"train": "many"}), "images is not")
spoiled("config-track", "trackers that are numbers", with_config(track=[5]), "is damaged")
spoiled(
    "config-unknown-setting",
    "a setting of another version",
    with_settings(bogus=1),
    "config.json is of another version of odkit, or changed: there is no setting 'bogus'",
)
spoiled(
    "config-null-rate",
    "a learning rate that is null, as nan was once written down",
    with_settings(learning_rate=None),
    "config.json has settings that no run can have: learning_rate must be a number",
)
spoiled(
    "config-text-epochs",
    "epochs that are a word",
    with_settings(epochs="all"),
    "epochs must be a whole number",
)
spoiled("config-no-epochs", "fewer than no epochs", with_settings(epochs=-3), "epochs must be 0 or more")
case(
    "config-dangling",
    "a config.json that is a link to nothing",
    {
        "runs {runs}": right("good finished", not_says=("spoiled",)),
        "show {runs}/spoiled": refused("is not a run folder (no config.json)", "good"),
    },
    beside(instead(lambda file: file.symlink_to("nowhere"))),
)
case(
    "half-made",
    "a run folder without config.json",
    {
        "runs {runs}": right("good finished", not_says=("spoiled",)),
        "show {runs}/spoiled": refused("no config.json"),
        "train {good} --folder {runs} --name spoiled": refused("is there already and no run"),
    },
    beside(Path.unlink),
)

# -- events ------------------------------------------------------------------------------------------------------------


def events(
    name: str, what: str, lines: list[Any] | bytes, also: Mapping[str, Expected] | None = None
) -> None:
    """Lines behind the events of the run, which is shown as if they were not there."""

    def change(run: Path) -> None:
        added = lines if isinstance(lines, bytes) else b"".join(orjson.dumps(line) + b"\n" for line in lines)
        with (run / "events.jsonl").open("ab") as file:
            file.write(added)

    as_ever = {
        "runs {runs}": right("good finished starter 1"),
        "show {run}": right("'good': finished, starter, epoch 1/1"),
    }
    case(name, what, {**as_ever, **(also or {})}, change)


KINDS = ("start", "step", "epoch", "evaluation", "preview", "checkpoint", "warning", "stop", "end")
KEYS = ("step", "epoch", "from_step", "loss", "ap", "seconds", "message", "reason", "images", "best_so_far")
events(
    "events-bare",
    "events with nothing but their kind",
    [{"event": kind} for kind in KINDS],
    {"report {run}": right("report.html")},
)
events(
    "events-null",
    "events whose every field is null",
    [{"event": kind, "time": None, **dict.fromkeys(KEYS)} for kind in KINDS],
)
events(
    "events-words",
    "events with words in place of numbers",
    [
        {"event": kind, "time": 1.0, **dict.fromkeys(KEYS, "x")}
        for kind in KINDS
        if kind not in ("stop", "warning")
    ][:6],
)
events(
    "events-lists",
    "events whose every field is a list",
    [{"event": kind, "time": 1.0, **{key: [] for key in KEYS}} for kind in KINDS],
)
events(
    "events-odd-kinds",
    "events whose kind is a number, a list, null",
    [{"event": 5}, {"event": []}, {"event": None}],
)
events("events-no-objects", "lines that are JSON, but no events", [1, "a", [], None, {}, [{"event": "end"}]])
events("events-garbage", "bytes that are no text", bytes(range(256)) * 20 + b"\n")
events("events-torn", "a last line that a crash has torn", b'{"event":"epoch","time":17')
events(
    "events-half-judged",
    "evaluations without AP50, and with a word for the best AP",
    [
        {"event": "evaluation", "time": 1.0, "epoch": 1, "step": 1, "ap": 0.5},
        {"event": "evaluation", "time": 1.0, "epoch": 1, "step": 1, "ap": 0.5, "best_so_far": {"ap": "x"}},
    ],
)
events(
    "events-large-numbers",
    "numbers beyond 64 bits",
    b'{"event":"epoch","time":1,"epoch":1e400,"step":' + b"9" * 40 + b"}\n",
)
events("events-long-line", "a line of 8 MB", b'{"event":"' + b"x" * (1 << 23) + b"\n")


def spoils(file: str, change: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda run: change(run / file)


case(
    "events-empty",
    "a log without a line",
    {
        "runs {runs}": right("good new"),
        "show {run}": right("no epoch finished yet"),
        "report {run}": right(),
    },
    spoils("events.jsonl", holds(b"")),
)
case(
    "events-gone",
    "no log",
    {"runs {runs}": right("good new"), "show {run}": right("no epoch finished yet"), "report {run}": right()},
    spoils("events.jsonl", Path.unlink),
)
for kind, making, says in (
    ("pipe", os.mkfifo, "is a pipe, not a file"),
    ("folder", Path.mkdir, "events.jsonl"),
):
    case(
        f"events-{kind}",
        f"a {kind} in place of the log",
        {
            "runs {runs}": right("good unreadable", says),
            "show {run}": refused(says),
            "report {run}": refused(says),
            "resume {run} --epochs 3": refused(says),
        },
        spoils("events.jsonl", instead(making)),
    )

# -- the other files ---------------------------------------------------------------------------------------------------

for file, line, says in (
    ("evaluation.json", "report {run}", "evaluation.json is damaged"),
    ("audit.json", "report {run}", "audit.json is damaged"),
    ("benchmark.json", "report {run}", "benchmark.json is damaged"),
    ("test.json", "show {run}", "test.json is damaged"),
):
    case(
        f"{file.partition('.')[0]}-cut",
        f"{file} that ends in the middle",
        {line: refused(says)},
        spoils(file, holds(b'{"tests": [')),
    )
for file, line in (
    ("audit.json", "report {run}"),
    ("benchmark.json", "report {run}"),
    ("test.json", "show {run}"),
):
    case(
        f"{file.partition('.')[0]}-odd",
        f"{file} with other things in it",
        {line: refused(f"{file} is not as odkit wrote it")},
        spoils(file, holds({"tests": [5], "findings": 5, "rows": [5]})),
    )
case(
    "test-odd-list",
    "a test.json that breaks no other run's row",
    {"runs {runs}": right("good unreadable", "test.json is none of odkit's")},
    spoils("test.json", holds([])),
)
for kind, content in (("cut", None), ("text", b"a text"), ("empty", b"")):
    what = "cut in the middle" if content is None else "that is a text" if content else "without a byte"
    change = holds(content) if content is not None else lambda path: os.truncate(path, 900)
    case(
        f"dataset-{kind}",
        f"dataset.npz {what}",
        {"runs {runs}": right("good finished"), "report {run}": refused("dataset.npz")},
        spoils("dataset.npz", change),
    )
    case(
        f"predictions-{kind}",
        f"predictions.npz {what}: the report is written, and says what is missing in it",
        {"runs {runs}": right("good finished"), "report {run}": right("report.html")},
        spoils("predictions.npz", change),
    )
for kind, making in (("pipe", os.mkfifo), ("folder", Path.mkdir)):
    case(
        f"dataset-{kind}",
        f"a {kind} in place of dataset.npz",
        {"runs {runs}": right("good finished"), "report {run}": refused("dataset.npz")},
        spoils("dataset.npz", instead(making)),
    )
case(
    "lock-folder",
    "a folder in place of worker.lock",
    {"runs {runs}": right("good"), "resume {run} --epochs 3": refused("worker.lock is a folder")},
    spoils("worker.lock", Path.mkdir),
)
case(
    "lock-pipe",
    "a pipe in place of worker.lock",
    {"runs {runs}": right("good"), "show {run}": right("finished")},
    spoils("worker.lock", os.mkfifo),
)
case(
    "log-pipe",
    "a run that failed, and a pipe in place of worker.log",
    {"show {run}": right("failed"), "report {run}": right()},
    lambda run: (
        os.mkfifo(run / "worker.log"),
        (run / "events.jsonl").open("ab").write(b'{"event":"end","time":1,"reason":"failed"}\n'),
    ),
)


def checkpoint(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        for file in (run / "checkpoints").iterdir():
            change(file)

    return make


LEFT = {"show {run}": right("finished, starter, epoch 1/1"), "runs {runs}": right("good finished")}
"""What is typed after a resume that is refused: the run is what it was."""
for kind, change, says in (
    (
        "cut",
        lambda file: os.truncate(file, file.stat().st_size // 2),
        "none of the checkpoints of good can be read",
    ),
    ("empty", holds(b""), "none of the checkpoints of good can be read"),
    ("text", holds(b"a text"), "none of the checkpoints of good can be read"),
    ("pipe", instead(os.mkfifo), "none of the checkpoints of good can be read"),
    ("folder", instead(Path.mkdir), "none of the checkpoints of good can be read"),
    ("gone", Path.unlink, "good has no checkpoint left"),
):
    case(
        f"checkpoint-{kind}",
        f"checkpoints that are {kind}"
        if kind in ("cut", "empty", "gone")
        else f"a {kind} in place of each checkpoint",
        {
            "resume {run} --epochs 3": refused(
                says, "would replace what it has found so far", "odkit train --config"
            ),
            **LEFT,
        },
        checkpoint(change),
    )
case(
    "checkpoints-file",
    "a file in place of the folder of checkpoints",
    {"resume {run} --epochs 3": refused("good has no checkpoint left"), **LEFT},
    lambda run: (shutil.rmtree(run / "checkpoints"), (run / "checkpoints").write_text("")),
)


def batches(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(run: Path) -> None:
        (run / "bad_batches").mkdir()
        change(run / "bad_batches" / "step-00000001-1.pt")

    return make


for kind, making in (("text", holds(b"a text")), ("pipe", os.mkfifo), ("folder", Path.mkdir)):
    case(
        f"bad-batch-{kind}",
        f"a {kind} in place of a batch that was left out",
        {"replay {run}": refused("step-00000001-1.pt cannot be read", "Move it away")},
        batches(making),
    )

# -- removing ----------------------------------------------------------------------------------------------------------

for name, given, says in (
    ("above", "..", "a run's name is a plain folder name"),
    ("here", ".", "a run's name is a plain folder name"),
    ("absolute", "{run}", "a run's name is a plain folder name"),
    ("in-steps", "good/../good", "a run's name is a plain folder name"),
    ("nothing", "gone", "is not a run folder"),
    ("unasked", "good", "With --yes it does"),
):
    case(
        f"delete-{name}",
        f"a run to be removed that is called {given!r}"
        if name != "unasked"
        else "nobody there who could be asked",
        {f"runs {{runs}} --delete {given} {'--yes' * (name != 'unasked')}": refused(says), **LEFT},
    )
case(
    "delete",
    "a run that is to be removed",
    {"runs {runs} --delete good --yes": right("removed"), "runs {runs}": right("no runs in")},
)
case(
    "delete-anothers",
    "another program's folder that is to be removed",
    {
        "runs {runs} --delete spoiled --yes": refused("config.json is no run's"),
        "runs {runs}": right("spoiled unreadable"),
    },
    beside(holds({"model_type": "bert"})),
)
case(
    "delete-link",
    "a link to a run that is to be removed",
    {"runs {runs} --delete link --yes": refused("is a link to"), **LEFT},
    lambda run: (run.parent / "link").symlink_to(run),
)

# -- settings ----------------------------------------------------------------------------------------------------------


def train(name: str, what: str, flags: str, expected: Expected) -> None:
    """A line of `odkit train` that makes no run, and no folder for it."""
    case(f"train-{name}", what, {f"train {{good}} --folder {{place}}/new {flags}": expected})


for flag in ("learning-rate", "clip", "minutes", "checkpoint-minutes", "worker-timeout", "weight-decay"):
    setting = flag.replace("-", "_")
    for value in ("nan", "inf", "1e400"):
        train(
            f"{flag}-{value}",
            f"--{flag} {value}",
            f"--{flag} {value}",
            refused(f"{setting} must be a finite number"),
        )
for flag in ("ema", "mosaic", "warmup"):
    train(f"{flag}-nan", f"--{flag} nan", f"--{flag} nan", refused(f"{flag} must be a finite number"))
for flag, value, says in (
    ("seed", 2**70, "seed must be a number up to"),
    ("seed", -1, "seed must be 0 or more"),
    ("epochs", 10**30, "epochs must be a number up to"),
    ("epochs", -1, "epochs must be 0 or more"),
    ("keep", 2**63, "keep must be a number up to"),
    ("weight-decay", -5, "weight_decay must be -1 or 0 and more"),
    ("batch-size", 1_000_000, "batch_size is 1,000,000"),
    ("batch-size", 2**62, "batch_size must be a number up to"),
    ("num-workers", 1000, "num_workers is 1000"),
    ("processes", 0, "processes must be 1 or more"),
    ("processes", 5000, "processes is 5000"),
    ("image-size", 1, "image_size must be 0 or 64 pixels and more"),
    ("device", "foo", 'device must be "auto", "cpu"'),
    ("device", "cuda:x", 'device must be "auto", "cpu"'),
    ("device", "''", 'device must be "auto", "cpu"'),
    ("detector", "yolov8", "no detector is called 'yolov8'"),
    ("weights", "nope.pt", "there is no file 'nope.pt'"),
    ("train-split", "nothing", "nothing"),
    ("name", "..", "a run's name is a plain folder name"),
    ("name", "a/b", "a run's name is a plain folder name"),
    ("name", "''", "a run's name is a plain folder name"),
    ("name", "'a\nb'", "a run's name is a plain folder name"),
    ("name", "a\x1b[31m", "a run's name is a plain folder name"),
    ("name", "x" * 300, "is too long: 300 bytes"),
    ("track", "nonsense", "nonsense"),
    ("config", "{run}", "is a folder, not a run's file"),
    ("config", "{good}/nothing.yaml", "there is no file"),
):
    shown = ascii(value).strip("'\"") if isinstance(value, str) else str(value)
    train(
        f"{flag}-{''.join(c if c.isalnum() else '-' for c in shown)[:20]}",
        f"--{flag} {shown if len(shown) < 40 else f'of {len(shown)} characters'}",
        f"--{flag} {value}"
        if flag in ("device", "name", "config") and "'" in str(value)
        else f"--{flag}={value}",
        refused(says),
    )
for flag, value in (("epochs", "1.5"), ("learning-rate", "fast"), ("seed", "1e3"), ("nonsense", "1")):
    train(f"usage-{flag}", f"--{flag} {value}", f"--{flag} {value}", usage(flag))
case(
    "train-same-split",
    "the same images to train on and to judge by",
    {
        "train {good} --folder {runs} --train-split val --prepare --name same": right(
            "judged on the same ones"
        )
    },
)
case(
    "train-folder-file",
    "a file where the runs are to lie",
    {"train {good} --folder {source}/a.txt": refused("a.txt is a file")},
    lambda run: (run.parent.parent / "source" / "a.txt").write_text(""),
)
case(
    "train-folder-proc",
    "runs in /proc",
    {"train {good} --folder /proc/odkit-runs": refused("no folder can be made there")},
)
case(
    "train-elsewhere",
    "a batch that another machine may hold",
    {"train {good} --folder {runs} --name there --batch-size 1000000 --prepare": right("worker")},
)

RUN_FILES: tuple[tuple[str, str, bytes, str], ...] = (
    ("nan", "a learning rate that is no number", b"learning_rate: .nan\n", "learning_rate is a number"),
    ("nan-json", "NaN in JSON", b'{"learning_rate": NaN}', "learning_rate is NaN, which is no number"),
    ("inf", "a clip without end", b"clip: inf\n", "clip is inf, which is no number"),
    ("long", "more than 64 bits of epochs", b"epochs: 99999999999999999999\n", "epochs is 9999"),
    ("binary", "bytes", bytes(range(256)), "is not text in UTF-8"),
    ("aliases", "anchors and aliases", b"name: &a x\ndetector: *a\n", "no anchors and aliases"),
    (
        "tag",
        "a tag that would run code",
        b"name: !!python/object/apply:os.system [exit]\n",
        "name has one value",
    ),
    ("deep", "100,000 brackets", b"[" * 100_000, "lists within lists"),
    ("twice", "a setting twice", b"epochs: 1\nepochs: 2\n", "stands in line 1 already"),
    ("unknown", "an unknown setting", b"epoch: 1\n", "did you mean 'epochs'"),
    ("large", "more bytes than a run's file has", b"# " + b"x" * 300_000, "no run's file is that long"),
)
for name, what, content, says in RUN_FILES:
    case(
        f"run-file-{name}",
        f"a run's file with {what}",
        {"train {good} --folder {place}/new --config {source}/run.yaml": refused(says)},
        lambda run, content=content: (run.parent.parent / "source" / "run.yaml").write_bytes(content),  # type: ignore[misc]
    )
case(
    "run-file-pipe",
    "a pipe in place of a run's file",
    {"train {good} --folder {place}/new --config {source}/run.yaml": refused("run.yaml")},
    lambda run: os.mkfifo(run.parent.parent / "source" / "run.yaml"),
)

# -- what else is typed ------------------------------------------------------------------------------------------------

for name, flags, says in (
    ("device-foo", "--device foo", 'device must be "auto", "cpu"'),
    ("device-absent", "--device cuda:99 --epochs 3", "cuda:99"),
    ("device-far", "--device cuda:999 --epochs 3", 'device must be "auto", "cpu"'),
    ("workers", "--num-workers 1000 --epochs 3", "num_workers is 1000"),
    ("nan", "--worker-timeout nan", "worker_timeout must be a finite number"),
    ("finished", "", "leave nothing to do"),
    ("backwards", "--epochs 1", "epochs behind it"),
    ("track", "--track nonsense --epochs 3", "nonsense"),
):
    case(
        f"resume-{name}",
        f"a resume with {flags or 'nothing to do'}",
        {f"resume {{run}} {flags}": refused(says), **LEFT},
    )
for line, expected in (
    ("show {place}/gone", refused("is not a run folder")),
    ("show {good}/annotations/instances_train.json", refused("is not a run folder")),
    ("show ''", refused("is not a run folder")),
    ("show " + "x" * 300, refused("File name too long")),
    ("stop {place}/gone", refused("is not a run folder")),
    ("stop {run}", right("is not running: finished")),
    ("stop {run} --when never", usage("never")),
    ("replay {run}", right("no batch of this run was left out")),
    ("report {run} --out {place}/page.txt", refused("should end in .html")),
    ("report {run} --out {good}", refused("should end in .html")),
    ("track {run} --to nonsense", refused("nonsense")),
    ("test {run}", refused("has no test images")),
    ("test {run} --data {good}", refused("and no 'test'")),
    ("test {run} --data {place}/gone", refused("gone")),
    ("runs {good}/annotations/instances_train.json", refused("cannot be looked into for runs")),
    ("runs {place}/gone", right("no runs in")),
    ("init {run}", refused("is there already")),
    ("learning-curve {good} --folder {place}/new --fractions nan", refused("fractions are shares")),
    ("learning-curve {good} --folder {place}/new --fractions 0", refused("fractions are shares")),
    ("learning-curve {good} --folder {place}/new --seeds 0", refused("seeds must be 1 or more")),
    ("learning-curve {good} --folder {place}/new --name ..", refused("a run's name is a plain folder name")),
    ("learning-curve {good} --folder {place}/new --figure a.txt", refused("--figure a.txt")),
):
    words = line.replace("{", "").replace("}", "").replace("/", " ").split()
    case(
        "typed-" + "-".join(word.strip("-'.") or "nothing" for word in words)[:60],
        f"`odkit {line[:60]}`",
        {line: expected},
    )
