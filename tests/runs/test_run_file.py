"""Runs from files: written with comments, read with line numbers, and what is typed wins."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from odkit.cli import main
from odkit.runs import Run, RunFile, Settings, create_run, make_settings, read_config, write_config
from tests.helpers import squares

PREPARE = ("--prepare", "--name", "a")


def test_what_is_written_holds_every_setting_and_changes_none(tmp_path: Path) -> None:
    path = write_config(tmp_path / "run.yaml")
    assert read_config(path) == RunFile()
    with pytest.raises(FileExistsError, match="there already"):
        write_config(path)
    text = path.read_text()
    names = re.findall(r"^# (\w+):", text, re.MULTILINE)
    fields = [f.name for f in dataclasses.fields(RunFile) if f.name != "settings"]
    assert names == [*fields, *(f.name for f in dataclasses.fields(Settings))]
    settings = text[text.index("# -- Settings") :]
    path.write_text(re.sub(r"^# (\w+): ", r"\1: ", settings, flags=re.MULTILINE))  # every one taken up
    assert read_config(path).settings == Settings().to_dict()
    assert max(map(len, text.splitlines())) <= 110


def test_init_then_train_is_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(squares(tmp_path / "images").save(tmp_path / "squares.npz"))
    assert main(["init", "--data", data]) == 0
    assert main(["train", "--config", "run.yaml", *PREPARE]) == 0
    assert main(["train", data, "--prepare", "--name", "b"]) == 0
    configs = [Run(f"runs/{name}").config for name in "ab"]
    assert configs[0] == configs[1]
    assert Run("runs/a").settings == dataclasses.replace(Settings(), epochs=Run("runs/b").settings.epochs)


def test_what_is_typed_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = squares(tmp_path / "images")
    data.save(tmp_path / "squares.npz")
    Path("run.yaml").write_text(
        """
        data: squares.npz
        epochs: 7
        learning_rate: 1e-3   # which YAML takes for text
        tiles: -1
        weight_decay: -1
        augment: flip
        deterministic: yes
        seed:
        name: no
        folder: there
        classes: [red]
        rename: blue=red
        """
    )
    assert main(["train", "--config", "run.yaml", "--prepare"]) == 0
    run = Run("there/no")
    expected = {"epochs": 7, "learning_rate": 1e-3, "augment": "flip", "deterministic": True}
    assert run.settings == make_settings(expected)
    assert run.class_names == ("red",)
    typed = ["--epochs", "0", "--augment=auto", "--name", "b", "--classes", "blue"]
    data.select([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).save(tmp_path / "fewer.npz")
    assert main(["train", "fewer.npz", "--prepare", "--config=run.yaml", *typed]) == 0
    other = Run("there/b")
    assert other.settings.augment == "auto"
    assert other.config["chosen"] == ["epochs"]
    assert other.class_names == ("blue",)
    assert sum(other.config["images"].values()) == 10


def test_what_the_file_switches_on_is_switched_off(tmp_path: Path) -> None:
    data = squares(tmp_path / "images", 8)
    data.save(tmp_path / "data.npz")
    file = tmp_path / "run.yaml"
    file.write_text(
        f"compile: true\ndeterministic: yes\ndata: {tmp_path / 'data.npz'}\nfolder: {tmp_path / 'runs'}"
    )
    assert main(["train", "--config", str(file), "--no-compile", "--prepare", "--name", "a"]) == 0
    settings = Run(tmp_path / "runs" / "a").settings
    assert (settings.compile, settings.deterministic) == (False, True)


def test_a_runs_own_config_makes_the_same_run(tmp_path: Path) -> None:
    data = squares(tmp_path / "images", 8)
    names = {"red": "röd 🦊", "blue": "<b>"}
    first = create_run(data.with_classes(names), Settings(image_size=96, seed=5), tmp_path, "a")
    config = first.path / "config.json"
    assert (
        main(["train", "--config", str(config), "--folder", str(tmp_path), "--name", "b", "--prepare"]) == 0
    )
    assert Run(tmp_path / "b").config == first.config


@pytest.mark.parametrize("indent", ["\t", "  ", None])
def test_json_is_read_as_well(tmp_path: Path, indent: str | None) -> None:
    values: dict[str, Any] = {
        "classes": ["\U0001f98a", "a/b", "x\ty"],
        "epochs": 3,
        "ema": 0.5,
        "compile": True,
    }
    path = tmp_path / "run.json"
    path.write_text(json.dumps(values, indent=indent))
    found = read_config(path)
    assert found.classes == tuple(values.pop("classes"))
    assert found.settings == values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nepoch: 3", r"line 2: there is no setting 'epoch'; did you mean 'epochs'\? `odkit init`"),
        ("epochs: 3\nepochs: 4", "line 2: epochs stands in line 1 already"),
        ("seed: 0\nepochs: many", "line 2: epochs is a whole number, not 'many'"),
        ("epochs: 1.5", "line 1: epochs is a whole number, not '1.5'"),
        ("ema: [0.5]", "line 1: ema has one value"),
        ("clip: .nan", "line 1: clip is a number, not '.nan'"),
        ("clip: nan", "line 1: clip is nan"),
        ("seed: 99999999999999999999", "line 1: seed is 9+, which is no number to train with"),
        ("compile: maybe", "line 1: compile is true or false"),
        ("augment: strange", "line 1: augment is one of auto, none, flip"),
        ("first_pixel: 2", "line 1: first_pixel is one of 0, 1, not '2'"),
        ("epochs: -3", r"run.yaml: epochs must be 0 or more"),
        ("- epochs", "a line `name: value` for each setting"),
        ("epochs: 3\n  x: [", "line 2: this is neither YAML nor JSON"),
        ("epochs: 3\n\tseed: 1", "line 2: .*there is a tab: YAML wants spaces"),
        ("xyzzy: 3", r"no setting 'xyzzy'\. `odkit init`"),
        ("a: &a [x]\nb: [*a, *a]", "no anchors and aliases"),
        ("[x]: 3", "line 1: a setting's name is a word"),
        ("classes: [[a]]", "line 1: classes has one value"),
        ("name: !!python/object/apply:os.system [touch pwned]", "line 1: name has one value"),
        ("a: " + "[" * 90_000, "line 1: lists within lists"),
        ("x" * 200_001, "200,001 bytes"),
        (b"epochs: \xff", "is not text in UTF-8"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_wrong_is_said_with_its_line(text: str | bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        read_config(path)
    assert type(caught.value).__module__.startswith("odkit")


def test_errors_reach_a_person_as_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(tmp_path)]) == 1
    assert "is a folder, not a run's file" in capsys.readouterr().err
    assert main(["train", "--config", str(tmp_path / "none.yaml")]) == 1
    assert "odkit init" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text("epochs: 3")
    assert main(["train", "--config", str(tmp_path / "run.yaml")]) == 1
    assert "nothing is said of the data" in capsys.readouterr().err
