"""Protobuf's text format and the label maps that are written in it."""

from pathlib import Path
from typing import Any

import pytest

from odkit.data.formats.label_map import read_label_map
from odkit.data.formats.pbtxt import MOST_BYTES, Message, PbtxtError, parse_pbtxt, read_pbtxt


def plain(message: Message) -> list[tuple[str, Any]]:
    return [(f.name, plain(f.value) if isinstance(f.value, Message) else f.value) for f in message.fields]


TEXTS: list[tuple[str, list[tuple[str, Any]]]] = [
    ("", []),
    ("# only a comment", []),
    ("a: 1 b: -2\nc: 0x1F d: 017 e: - 3", [("a", 1), ("b", -2), ("c", 31), ("d", 15), ("e", -3)]),
    ("a: 1.5 b: .5 c: 2. d: 1e-3 e: 3f f: -1.5E2F", [("a", 1.5), ("b", 0.5), ("c", 2.0), ("d", 0.001), ("e", 3.0),
                                                    ("f", -150.0)]),
    ("a: inf b: -infinity", [("a", float("inf")), ("b", float("-inf"))]),
    ("a: true b: false c: SOFTMAX", [("a", True), ("b", False), ("c", "SOFTMAX")]),
    ("m { a: 1 } n: { } o < b: 2 > p: < >", [("m", [("a", 1)]), ("n", []), ("o", [("b", 2)]), ("p", [])]),
    ("m { n { o: { a: 'x' } } }", [("m", [("n", [("o", [("a", "x")])])])]),
    ("a: [1, 2,3] b: [] c: ['x', \"y\"]", [("a", 1), ("a", 2), ("a", 3), ("c", "x"), ("c", "y")]),
    ("m [{ a: 1 }, < b: 2 >]", [("m", [("a", 1)]), ("m", [("b", 2)])]),
    ("a: 1, b: 2; c { d: 3, } e: 4", [("a", 1), ("b", 2), ("c", [("d", 3)]), ("e", 4)]),
    ("a: 1 # one\n#two\nb: '#no'", [("a", 1), ("b", "#no")]),
    ("a: 'it\\'s' b: \"\\\"q\\\"\" c: 'x' \"y\"\n'z'", [("a", "it's"), ("b", '"q"'), ("c", "xyz")]),
    (r"a: '\n\t\\' b: '\303\266' c: '\xC3\xB6' d: '\u00f6' e: '\U0001F600' f: 'ö'",
     [("a", "\n\t\\"), ("b", "ö"), ("c", "ö"), ("d", "ö"), ("e", "😀"), ("f", "ö")]),
    ("[a.b/c.D] { x: 1 } [ext]: 2", [("[a.b/c.D]", [("x", 1)]), ("[ext]", 2)]),
    ("\ufeffitem{id:1 name:'a'}item{id:2 name:'b'}", [("item", [("id", 1), ("name", "a")]),
                                                     ("item", [("id", 2), ("name", "b")])]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fields"), TEXTS, ids=[text for text, _ in TEXTS])
def test_what_the_format_has(text: str, fields: list[tuple[str, Any]]) -> None:
    assert plain(parse_pbtxt(text)) == fields
    assert plain(parse_pbtxt(text.replace("\n", "\r\n"))) == fields


FAULTS = [
    ("a: 1\nb", "line 2: after b stands 'the end of the file'"),
    ("a { b: 1\n\n", "line 3: the message that begins in line 1 is not closed with '}'"),
    ("a < b: 1 }", "line 1: '}' stands where the name of a field must stand"),
    ("a: 1 }", "line 1: '}' stands where the name of a field must stand"),
    ("\n\na: 'x\nb: 1", 'line 3: "\'x": a text that its line does not end'),
    ("a: [1 2]", "line 1: '2' stands in the list of a, without a comma"),
    ("a: [1", "line 1: 'the end of the file' stands in the list of a"),
    ("a: : 2", "line 1: ':' stands where a value must stand"),
    ("a 1", "line 1: after a stands '1'"),
    ("a: -x", "line 1: 'x' stands where a value must stand"),
    ("a: 1.2.3", "line 1: '1.2.3': which makes no sense here"),
    ("a: 09x", "which makes no sense here"),
    ("a\n: $", "line 2: '$': which makes no sense here"),
    ("1: 2", "line 1: '1' stands where the name of a field must stand"),
    ("a { " * 101 + "}" * 101, "more than 100 messages within one another"),
    ("a { " * 1_000_000, "more than 100 messages within one another"),
    ("[a", "'the end of the file' stands in a name in brackets"),
]


@pytest.mark.parametrize(("text", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_a_fault_is_named_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "label_map.pbtxt"
    path.write_text(text)
    with pytest.raises(PbtxtError) as error:
        read_pbtxt(path)
    assert str(error.value).startswith(f"{path}, line ")
    assert words in str(error.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "graph.pbtxt"
    path.write_text("#" * (MOST_BYTES + 1))
    with pytest.raises(PbtxtError, match="odkit reads such text up to 8 MB"):
        read_pbtxt(path)


def test_paths_and_messages() -> None:
    message = parse_pbtxt("a { b { c: 1 c: 2 } d { } }\na { e: 'x' }")
    assert list(message.leaves()) == [("a.b.c", 1, 1), ("a.b.c", 2, 1), ("a.d", None, 1), ("a.e", "x", 2)]
    assert message.message("a").get("e") == "x"  # the last
    assert message.message("a", "nothing", "at all").fields == []
    assert message.get("nothing") is None


def test_a_label_map(tmp_path: Path) -> None:
    path = tmp_path / "label_map.pbtxt"
    path.write_text(
        "item { id: 20 name: 'twenty' }\nitem { name: \"/m/01g317\" id: 3 display_name: 'Person' }\n"
        "item: { id: 1, display_name: 'only shown' }\nitem < id: 2 name: 'cat' display_name: 'a cat' >"
    )
    found = read_label_map(path)
    assert found.titles == {1: "only shown", 2: "cat", 3: "Person", 20: "twenty"}
    assert found.names == ("only shown", "cat", "Person", "twenty")
    assert found.aliases["/m/01g317"] == "Person"
    assert found.aliases["a cat"] == "cat"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("item { name: 'a' }", "line 1: an item wants an id from 0 up and a name"),
        ("\nitem { id: 1 }", "line 2: an item wants an id from 0 up and a name"),
        ("item { id: -1 name: 'a' }", "an item wants an id"),
        ("item { id: 1.5 name: 'a' }", "an item wants an id"),
        ("item { id: 1 name: 7 }", "an item wants an id"),
        (
            "item { id: 1 name: 'a' }\nitem { id: 1 name: 'b' }",
            "line 2: the id 1 stands there for the second time",
        ),
        ("item: 'a'", "an item is 'a'"),
        ("node { }", "has no item"),
    ],
)
def test_a_label_map_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "label_map.pbtxt"
    path.write_text(text)
    with pytest.raises(PbtxtError) as error:
        read_label_map(path)
    assert str(path) in str(error.value)
    assert words in str(error.value)


def test_the_label_map_and_the_config_of_the_cards(cards: Path) -> None:
    assert read_label_map(cards / "training/labelmap.pbtxt").names == (
        "nine",
        "ten",
        "jack",
        "queen",
        "king",
        "ace",
    )
    config = read_pbtxt(cards / "training/faster_rcnn_inception_v2_pets.config")
    assert config.message("model", "faster_rcnn").get("num_classes") == 6
    scales = config.message("model", "faster_rcnn", "first_stage_anchor_generator", "grid_anchor_generator")
    assert scales.all("scales") == [0.25, 0.5, 1.0, 2.0]
    assert config.message("eval_input_reader").get("shuffle") is False
