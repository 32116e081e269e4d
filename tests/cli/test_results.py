"""`odkit evaluate` on what other tools found: which kind it is, which images are judged, and all that can be asked."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

import odkit as od
from odkit.cli import main
from odkit.data import Dataset, Predictions
from odkit.data.boxes import xyxy_to_xywh, xyxy_to_yolo
from tests.helpers import squares


def rows_of(dataset: Dataset, ids: dict[str, int], *, off: float, seed: int) -> list[dict[str, Any]]:
    """Results on the val images: every box, `off` pixels away at most, and one where nothing is in each image."""
    rng = np.random.default_rng(seed)
    rows = []
    for row in np.flatnonzero(dataset.image_splits == "val").tolist():
        part = dataset.boxes_of(row)
        boxes = dataset.boxes[part] + rng.uniform(-off, off, (part.stop - part.start, 4))
        for k, box in zip(dataset.box_classes[part].tolist(), xyxy_to_xywh(boxes).tolist(), strict=True):
            rows.append({"category_id": k + 1, "bbox": box, "score": rng.uniform(0.5, 1)})
        rows.append({"category_id": 1, "bbox": [1, 1, 9, 9], "score": rng.uniform(0, 0.7)})
        for result in rows[-1 - (part.stop - part.start) :]:
            result["image_id"] = ids[dataset.image_ids[row]]
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder with a train and a val split, and beside it what two detectors found in val."""
    root = tmp_path_factory.mktemp("made")
    od.write_dataset(squares(root / "images", 16), root / "data", "coco")
    dataset = od.load_dataset(root / "data")
    ids = {image_id: int(key) for image_id, key in dataset.source_ids.images.items()}
    for name, off, seed in (("good", 1.0, 0), ("poor", 6.0, 1)):
        (root / f"{name}.json").write_bytes(orjson.dumps(rows_of(dataset, ids, off=off, seed=seed)))
    val = dataset.split("val")
    found = od.Predictions.from_coco(root / "good.json", val)
    found.save(root / "good.npz")
    (root / "texts").mkdir()
    for row, image_id in enumerate(val.image_ids):
        part = found.of(row)
        lines = [
            f"{k} {x} {y} {w} {h} {score}"
            for k, score, (x, y, w, h) in zip(
                found.classes[part],
                found.scores[part],
                xyxy_to_yolo(found.boxes[part], (64, 64)),
                strict=True,
            )
        ]
        (root / "texts" / f"{Path(image_id).stem}.txt").write_text("\n".join(lines))
    return root


def evaluated(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[dict[str, Any], str]:
    assert main(["evaluate", *map(str, args), "--json"]) == 0
    said = capsys.readouterr()
    return orjson.loads(said.out), said.err


@pytest.mark.parametrize(
    ("name", "kind"),
    [("good.json", "COCO results"), ("texts", "YOLO's text files"), ("good.npz", "saved Predictions")],
)
def test_the_kind_of_results_is_found_out_and_said(
    name: str, kind: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, said = evaluated(capsys, data / name, data / "data")
    val = od.load_dataset(data / "data").split("val")
    ours = od.evaluate(val, Predictions.load(data / "good.npz"))
    assert f"{data / name}: {kind}, all of images in val, which are judged (--split)" in said
    assert page["images"] == len(val)
    assert page["ap"] == pytest.approx(ours.ap, abs=2e-3 if name == "texts" else 1e-9)
    assert page["ap"] > 0.6


def test_images_that_results_do_not_speak_of_count_as_missed_unless_left_out(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything, said = evaluated(capsys, data / "good.json", data / "data", "--split", "")
    assert "COCO results\n" in said
    (note,) = everything["notes"]
    assert (
        note == "nothing was found in 12 of 16 images; their 24 boxes count as missed, as in COCO's figures"
    )
    alone, said = evaluated(capsys, data / "good.json", data / "data", "--split", "", "--only-judged")
    assert "judged on the 4 images of 16 that the results speak of" in said
    assert (alone["images"], alone["notes"]) == (4, [])
    assert everything["ar"] == pytest.approx(alone["ar"] / 4)
    val, _ = evaluated(capsys, data / "good.json", data / "data")
    assert val["ap"] == pytest.approx(alone["ap"])


def test_mistakes_label_errors_and_a_comparison(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [
        data / "good.json",
        data / "data",
        "--mistakes",
        "--label-errors",
        "--compare",
        data / "poor.json",
    ]
    page, _ = evaluated(capsys, *args, "--out", tmp_path / "all.json")
    assert orjson.loads((tmp_path / "all.json").read_bytes()) == page
    val = od.load_dataset(data / "data").split("val")
    good, poor = (
        od.evaluate(val, od.Predictions.from_coco(data / f"{name}.json", val)) for name in ("good", "poor")
    )
    expected = od.mistakes(good).to_dict()
    assert page["mistakes"]["counts"] == expected["counts"]
    assert page["mistakes"]["counts"]["correct"] == 8
    assert len(page["label_errors"]) == len(expected["suspects"])
    compared = od.compare(poor, good)
    assert page["comparison"]["difference"] == pytest.approx(compared.difference)
    assert page["comparison"]["low"] == pytest.approx(compared.low)
    assert page["comparison"]["first"] == str(data / "poor.json")
    assert main(["evaluate", *map(str, args)]) == 0
    text = capsys.readouterr().out
    for part in (
        repr(good),
        repr(od.mistakes(good)),
        f"The first is {data / 'poor.json'}, the second",
        repr(compared),
    ):
        assert part in text


def test_results_beside_a_detector(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A detector of odkit's is compared with what another tool found, on the same images."""
    from odkit.detection import build_detector, save_detector

    file = save_detector(
        build_detector("starter", ["blue", "red"], weights="random", image_size=64),
        tmp_path / "d.safetensors",
    )
    page, _ = evaluated(capsys, file, data / "data", "--device", "cpu", "--compare", data / "good.json")
    assert page["images"] == 4
    assert page["comparison"]["difference"] < -0.5
    page, _ = evaluated(capsys, data / "good.json", data / "data", "--device", "cpu", "--compare", file)
    assert page["comparison"]["difference"] > 0.5


def test_numbers_that_mean_something_else(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = orjson.loads((data / "good.json").read_bytes())
    for row in rows:
        row["category_id"] -= 1
    (tmp_path / "zero.json").write_bytes(orjson.dumps(rows))
    args = ["evaluate", str(tmp_path / "zero.json"), str(data / "data")]
    assert main(args) == 1
    said = capsys.readouterr()
    assert "--category-ids from-0" in said.err
    assert (said.out, "Traceback" in said.err) == ("", False)
    good, _ = evaluated(capsys, data / "good.json", data / "data")
    for flags in (["--category-ids", "from-0"], ["--class-numbers", "0=blue", "1=red"]):
        page, _ = evaluated(capsys, *args[1:], *flags)
        assert page["ap"] == good["ap"]
    assert main([*args, "--class-numbers", "blue"]) == 1
    assert "--class-numbers wants NUMBER=NAME, not 'blue' alone" in capsys.readouterr().err


def test_what_is_neither(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = tmp_path / "both"
    shutil.copytree(data / "texts", both / "labels")
    (both / "config.json").write_text("{}")
    (tmp_path / "nothing.npz").write_bytes(b"nothing")
    (tmp_path / "page.json").write_text('{"hello": 1}')
    (tmp_path / "empty").mkdir()
    for given, message in (
        (both, "is a run, and there are text files in it"),
        (tmp_path / "nothing.npz", "holds no predictions that odkit saved, or is damaged"),
        (tmp_path / "page.json", "holds no list of results, but the keys ['hello']"),
        (tmp_path / "empty", "is not a run folder"),
        (tmp_path / "gone.json", "there is no file"),
    ):
        assert main(["evaluate", str(given), str(data / "data")]) == 1
        said = capsys.readouterr()
        assert message in said.err
        assert "Traceback" not in said.err


def test_what_is_refused_before_the_work(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["evaluate", str(data / "good.json"), str(data / "data")]
    kept = (data / "good.json").read_bytes()
    assert main([*args, "--out", str(data / "good.json")]) == 1
    assert "good.json is there already; give another" in capsys.readouterr().err
    assert (data / "good.json").read_bytes() == kept
    assert main([*args, "--split", "train"]) == 1
    assert (
        "speaks of images in val alone, none of them in train; leave --split out" in capsys.readouterr().err
    )
