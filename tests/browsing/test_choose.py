"""Choosing the folder of one's pictures: what is shown of each, and what is remembered for other notebooks."""

import os
from pathlib import Path

import pytest

from odkit.browsing import choose
from odkit.browsing.choose import choose_folder, chosen_folder, describe, subfolders
from odkit.system import FrontEnd


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A browser looks, and nothing was chosen before."""
    monkeypatch.setattr(choose, "front_end", lambda: FrontEnd(os.getpid(), "/", "http://127.0.0.1:1/", ""))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "state"))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    for name in (
        "cats/a.jpg",
        "cats/b.PNG",
        "cats/a.xml",
        "cats/deep/c.jpeg",
        "dogs/labels.csv",
        ".hidden/x.jpg",
    ):
        path = tmp_path / "disk" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "disk" / "empty").mkdir()
    return tmp_path / "disk"


def test_a_folder_says_what_is_in_it(disk: Path) -> None:
    assert describe(disk / "cats") == "3 pictures, 1 .xml file"
    assert describe(disk / "dogs") == "0 pictures, 1 .csv file"
    assert describe(disk / "empty") == "no pictures"
    assert describe(disk) == "3 pictures, 1 .xml file, 1 .csv file"
    assert subfolders(disk) == ["cats", "dogs", "empty"]
    assert subfolders(disk / "nothing here") == []


def test_a_huge_folder_is_not_counted_to_its_end(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_MOST_FILES", 2)
    assert describe(disk / "cats").startswith("at least ")


def test_without_a_front_end_the_parameters_alone_decide(disk: Path, watched: None, monkeypatch) -> None:
    choose_folder().use(disk / "cats")
    assert chosen_folder() == disk / "cats"
    monkeypatch.setattr(choose, "front_end", lambda: None)
    assert chosen_folder() is None
    assert choose_folder().folder is None
    assert "the demo" in repr(choose_folder())
    chosen = choose_folder(disk / "dogs")
    assert chosen.folder == disk / "dogs"
    assert repr(chosen) == (f'Chosen: {disk}/dogs, with 0 pictures, 1 .csv file. (DATA = "{disk}/dogs")')
    assert set(chosen._repr_mimebundle_()) == {"text/plain"}


def test_a_choice_is_remembered_until_another_one(disk: Path, watched: None) -> None:
    assert chosen_folder() is None
    chooser = choose_folder()
    chooser.use(disk / "cats")
    assert choose_folder().folder == chosen_folder() == disk / "cats"
    choose_folder(disk / "dogs")  # a parameter is no choice
    assert chosen_folder() == disk / "cats"
    chooser.use(None)
    assert choose_folder().folder is chosen_folder() is None


def test_a_folder_that_is_gone_is_said(disk: Path, watched: None, capsys: pytest.CaptureFixture[str]) -> None:
    choose_folder().use(disk / "empty")
    (disk / "empty").rmdir()
    assert chosen_folder() is None
    assert "is not there any more: choose again" in capsys.readouterr().out


def test_what_no_reader_would_find_is_not_counted(disk: Path) -> None:
    (disk / "cats" / "._a.jpg").touch()  # what a Mac leaves beside a.jpg
    (disk / "cats" / "__MACOSX").mkdir()
    (disk / "cats" / "__MACOSX" / "a.jpg").touch()
    (disk / "cats" / "folder.csv").mkdir()
    assert describe(disk / "cats") == "3 pictures, 1 .xml file"


def test_links_are_followed_once(disk: Path) -> None:
    (disk / "cats" / "deep" / "back").symlink_to(disk)
    (disk / "dogs" / "images").symlink_to(disk / "cats" / "deep")
    assert describe(disk / "dogs") == "3 pictures, 1 .xml file, 1 .csv file"
    (disk / "gone").symlink_to(disk / "nowhere")
    (disk / "itself").symlink_to(disk / "itself")
    assert subfolders(disk) == ["cats", "dogs", "empty"]


def test_a_tree_of_empty_folders_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcdef":
        (tmp_path / name / "x").mkdir(parents=True)
    monkeypatch.setattr(choose, "_MOST_FILES", 8)
    assert describe(tmp_path) == "no pictures among the first files"


def test_a_name_that_is_no_text_is_left_out(disk: Path) -> None:
    os.mkdir(os.fsencode(disk) + b"/caff\xe8")
    (disk / "caffè").mkdir()
    assert subfolders(disk) == ["caffè", "cats", "dogs", "empty"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"folder": 3}', b"{", b'{"folder": "/%s"}' % (b"long" * 2000)]
)
def test_a_damaged_note_is_no_choice(watched: None, content: bytes) -> None:
    choose_folder().use(None)
    (choose.state_folder() / "chosen-folder.json").write_bytes(content)
    assert chosen_folder() is None


def test_the_widget_goes_through_folders(disk: Path, watched: None) -> None:
    chooser = choose_folder(disk)
    path, inside, buttons, about, said = chooser.widget.children
    open_, up, use, demo = buttons.children
    assert [label for label, _ in inside.options] == [
        "cats/   3 pictures, 1 .xml file",
        "dogs/   0 pictures, 1 .csv file",
        "empty/   no pictures",
    ]
    assert list(path.options) == [str(disk / name) for name in ("cats", "dogs", "empty")], (
        "to complete a path"
    )
    assert about.value == "In this folder: 3 pictures, 1 .xml file, 1 .csv file."
    inside.value = "cats"
    open_.click()
    assert path.value == str(disk / "cats")
    assert [name for _, name in inside.options] == ["deep"]
    use.click()
    assert chooser.folder == chosen_folder() == disk / "cats"
    assert f"Chosen: {disk}/cats, with 3 pictures" in said.value
    up.click()
    assert path.value == str(disk)
    path.value = str(disk / "dogs")  # typed, with Enter
    assert chooser.here == disk / "dogs"
    path.value = str(disk / "nowhere")
    assert "nowhere: No such file or directory" in said.value
    assert chooser.here == disk / "dogs"
    assert path.value == str(disk / "dogs"), "the line on top names what would be chosen"
    for typed, reason in (
        ("~nobody-of-that-name/x", "determine home directory"),
        ("a\0b", "null byte"),
        ("/" + "long" * 2000, "File name too long"),
        (str(disk / "cats" / "a.xml"), "Not a directory"),
    ):
        path.value = typed
        assert reason in said.value
        assert chooser.here == disk / "dogs"
    (disk / "<b>").mkdir()
    chooser.use(disk / "<b>")
    assert "&lt;b&gt;" in said.value
    demo.click()
    assert chooser.folder is None
    assert "the demo" in said.value
