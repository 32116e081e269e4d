"""What an audit found, as text, table, page and JSON."""

import html
import json

import pytest

from odkit.data.audit.checks import CHECKS
from odkit.data.audit.inspection import audit
from odkit.data.audit.report import finding_title
from odkit.system import InputError
from tests.data.audit.bench import PLANTS, Bench, inverted, no_area, outside, small_split, unknown_class


def test_table_text(tmp_path):
    bench = Bench(tmp_path)
    for _ in range(3):
        no_area(bench)
    inverted(bench)
    small_split(bench)
    found = audit(bench.build())
    table = f"""\
Audit of 'bench' (21 images, 87 boxes): 4 fatal, 1 warning, 0 info

fatal: 3 boxes without area [no_area]. {CHECKS["no_area"].meaning}
    07.png, box 4: 17 x 0 pixels, corners (3, 2, 20, 2)
    07.png, box 5: 17 x 0 pixels, corners (3, 2, 20, 2)
    and 1 more
  Draw the box again or delete it. repaired() drops the box.

fatal: 1 box with inverted corners [inverted]. {CHECKS["inverted"].meaning}
    07.png, box 7: the second corner comes first: (20, 3, 2, 25)
  Swap the corners. repaired() swaps the corners.

warning: 1 split too small [small_split]. Below 10 images, accuracy measured on a split is mostly chance.
    test has 1 image
  Deal the images anew, dataset.with_splits(val=...), or label more.

od.repaired(dataset) repairs 4 findings of 2 kinds (`--repair` on the command line); the files stay as they are."""
    assert found.table(limit=2) == table
    assert "box 6" in found.table(limit=None)
    assert "and 1 more" not in found.table(limit=None)


def test_json(tmp_path):
    bench = Bench(tmp_path)
    no_area(bench)
    dataset = bench.build()
    page = json.loads(audit(dataset).to_json())
    assert page == {
        "dataset": "bench",
        "root": str(tmp_path),
        "fingerprint": dataset.fingerprint(),
        "images": 20,
        "boxes": 61,
        "notes": list(dataset.notes),
        "ok": False,
        "counts": {"no_area": 1},
        "findings": [
            {
                "kind": "no_area",
                "severity": "fatal",
                "message": "17 x 0 pixels, corners (3, 2, 20, 2)",
                "fix": "Draw the box again or delete it.",
                "file": str(tmp_path / "07.png"),
                "image": "07.png",
                "box": "box 4",
                "image_index": 7,
                "box_index": 24,
                "repair": "drops the box",
            }
        ],
    }


def test_every_kind_is_in_the_page_and_in_the_json(tmp_path):
    bench = Bench(tmp_path)
    for plant in PLANTS:
        plant(bench)
    found = audit(bench.build())
    page, content = found._repr_html_(), json.loads(found.to_json())
    assert set(content["counts"]) == {f["kind"] for f in content["findings"]} == set(PLANTS.values())
    for kind in found.counts:
        check = CHECKS[kind]
        assert f"<b>{check.severity}</b> {finding_title(kind, list(found.of(kind)))}" in html.unescape(page)
        assert check.meaning in html.unescape(page)
        assert found.of(kind)[0].message in html.unescape(page)


def test_html_is_escaped_and_grouped(tmp_path):
    bench = Bench(tmp_path)
    bench.names[0] = "<script>alert(1)</script>"
    bench.names.append("<SCRIPT>alert(1)</SCRIPT>")
    no_area(bench)
    page = audit(bench.build())._repr_html_()
    assert "<script" not in page.lower()
    assert "&lt;script&gt;" in page
    assert "<details open><summary><b>fatal</b> 1 box without area" in page
    assert "od.repaired(dataset)" in page


def test_kinds_and_indices(tmp_path):
    bench = Bench(tmp_path)
    for plant in (no_area, no_area, outside, unknown_class, small_split):
        plant(bench)
    found = audit(bench.build())
    assert [f.box for f in found.of("no_area")] == ["box 4", "box 5"]
    assert found.of("tiny") == ()
    assert found.images("no_area").tolist() == [7]
    assert found.images().tolist() == [7, 8]
    assert found.boxes("no_area").tolist() == [24, 25]
    assert found.images("small_split").tolist() == []
    with pytest.raises(KeyError, match="no kind of finding 'no_arae'; near it: no_area"):
        found.of("no_arae")


def test_examples_below_0_are_refused(tmp_path):
    found = audit(Bench(tmp_path).build())
    with pytest.raises(InputError, match="-1 examples"):
        found.table(limit=-1)
