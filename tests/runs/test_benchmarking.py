"""Detectors measured side by side: figures that make sense, a failure that stays in its row, an answer that is kept."""

import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from odkit import detection
from odkit.analysis import figures
from odkit.cli import main
from odkit.data import Dataset
from odkit.detection import Benchmark, Measured
from odkit.detection import latency as measuring
from odkit.detection.detector import build_detector
from odkit.runs import Run, RunError, Settings, benchmark, create_run, export
from odkit.runs.benchmarking import read_benchmark
from odkit.system import InputError, MissingFileError
from tests.helpers import squares, trained

QUICK: dict[str, Any] = {"seconds": 0.05, "device": "cpu", "largest_batch": 4}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return squares(tmp_path_factory.mktemp("data") / "images", 16)


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with an export in its folder."""
    folder = tmp_path_factory.mktemp("runs")
    made = trained(dataset, folder, "one", weights="pretrained", epochs=1, device="cpu")
    export(made, formats=["fp32"], pictures=2)
    card = (made.path / "export" / "MODEL_CARD.md").read_text()
    assert "python predict.py picture.jpg" in card and "| detector.onnx | " in card
    return made


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[Measured]:
    """Measured in this process, which takes no seconds to start; the rows that were."""
    rows: list[Measured] = []

    def measure(row: Measured, *, dataset: Dataset | None, predicting: bool, **how: Any) -> measuring.Apart:
        how.pop("environment")
        rows.append(row)
        found = None
        if predicting and dataset is not None:
            found = detection.predict(detection.load_detector(row.file), dataset)
        return measuring.Apart(measuring.measure(row, dataset=dataset, **how), found)

    monkeypatch.setattr(detection, "measure_apart", measure)
    return rows


def check_figures(row: Measured) -> None:
    """What holds of any measurement, on any machine."""
    assert not row.why_not
    assert row.latency is not None
    assert row.network is not None
    assert row.best is not None
    for timing in (row.latency, row.network):
        assert 0 < timing.median <= timing.p95
        assert timing.count >= 5
    sizes = [pace.batch_size for pace in row.paces]
    assert sizes == [2**k for k in range(len(sizes))]
    assert row.best.images_per_second >= row.paces[0].images_per_second > 0
    memory = [pace.memory for pace in row.paces]
    assert memory == sorted(memory)
    assert row.memory >= 0
    assert row.loaded_bytes > 0
    assert row.threads >= 1


def without_openvino(rows: Sequence[Measured]) -> list[Measured]:
    """The rows that are there on every machine: OpenVINO adds its own where it is installed."""
    return [row for row in rows if "OpenVINO" not in row.name]


@pytest.mark.slow
def test_a_run_is_measured_in_processes_of_their_own_and_one_that_fails_leaves_the_others(
    run: Run, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing of the kind")
    found = benchmark([run, broken], **QUICK)
    good, file, bad = without_openvino(found.rows)
    check_figures(good)
    check_figures(file)
    assert min(good.memory, file.memory) > 1_000_000
    assert file.name == "one: ONNX Runtime fp32"
    assert file.file == str(run.path / "export" / "detector.onnx")
    assert file.runtime.startswith("onnxruntime ")
    assert file.ap == pytest.approx(good.ap, abs=0.01)
    assert good.name == "one: PyTorch fp32"
    assert good.file_bytes == (run.path / "detector.safetensors").stat().st_size
    assert (good.precision, good.device, good.image_size) == ("fp32", "cpu", 64)
    assert good.ap == pytest.approx(run.best["ap"])
    assert "is not a detector saved by odkit" in bad.why_not
    assert bad.latency is bad.best is bad.ap is None
    text, page = repr(found), found._repr_html_()
    assert f"broken: PyTorch fp32: not measured, {broken}" in text
    assert page.count("<tr>") == 1 + len(found.rows)
    assert f"{good.ap:.3f}" in text
    assert "AP is of 4 images: squares, val." in " ".join(text.split())
    again = Benchmark.from_dict(orjson.loads(orjson.dumps(found.to_dict())))
    assert again == found
    assert read_benchmark(run) is None, "kept where one run alone is measured"


def test_ap_is_that_of_the_files_own_predictions(run: Run, dataset: Dataset, here: list[Measured]) -> None:
    (row,) = benchmark(run.path / "detector.safetensors", dataset, **QUICK).rows
    check_figures(row)
    assert row.name == "PyTorch fp32"
    assert row.ap == pytest.approx(run.best["ap"], abs=1e-6)
    assert row.ap50 == pytest.approx(run.best["ap50"], abs=1e-6)


def test_what_an_export_has_measured_is_not_measured_again(
    run: Run, tmp_path: Path, here: list[Measured]
) -> None:
    """While file and images are the same; where one is not, AP is of what the file finds now."""
    known = without_openvino(benchmark(run, **QUICK).rows)[1]
    assert known.remark == "AP as exported"
    assert known.ap is not None
    copy = shutil.copytree(run.path / "export", tmp_path / "copy")
    val = run.dataset("val")
    assert benchmark(copy, val, **QUICK).rows[0].remark == "AP as exported"
    page = orjson.loads((copy / "export.json").read_bytes())
    page["figures"]["files"]["detector.onnx"] = {"sha256": "of another file", "ap": 0.5, "ap50": 0.5}
    (copy / "export.json").write_bytes(orjson.dumps(page))
    anew = benchmark(copy, val, **QUICK).rows[0]
    assert (anew.ap, anew.ap50, anew.remark) == (known.ap, known.ap50, "")
    fewer = without_openvino(benchmark(run, images=3, **QUICK).rows)[1]
    assert fewer.remark == ""


def test_what_was_found_is_of_these_pictures_as_they_are_now(
    run: Run, tmp_path: Path, here: list[Measured]
) -> None:
    copy = Run(shutil.copytree(run.path, tmp_path / "copy"))
    val = copy.dataset("val")
    where = {"device": "cpu", "precision": "fp32"}
    found = copy.found_in(val.select([1, 0]), **where)
    assert found is not None
    assert len(found) == len(run.predictions())
    assert copy.found_in(val, device="cpu", precision="bf16") is None
    assert copy.found_in(val, device="cuda:0", precision="fp32") is None
    assert copy.found_in(run.dataset(), **where) is None, "some of them trained"
    assert copy.found_in(val.replace(image_ids=val.image_ids.tolist()[::-1]), **where) is None
    for file in ("predictions.npz", "export/export.json"):  # older than the pictures
        os.utime(copy.path / file, (0, 0))
    assert copy.found_in(val, **where) is None
    torch, onnx = without_openvino(benchmark(copy, **QUICK).rows)
    assert torch.ap == pytest.approx(run.best["ap"], abs=1e-6)
    assert onnx.remark == ""


def test_of_many_images_some_are_judged(run: Run, dataset: Dataset, here: list[Measured]) -> None:
    found = benchmark(run, dataset.replace(image_splits=None), images=5, **QUICK)
    assert found.images == 5
    assert [row.ap is None for row in without_openvino(found.rows)] == [False, False]
    assert here[1].device == "cpu"


def test_a_detector_in_memory_is_measured_without_data(here: list[Measured]) -> None:
    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64)
    found = benchmark(detector, **QUICK)
    (row,) = found.rows
    check_figures(row)
    assert row.ap is None
    assert "timed on drawn pictures, 640 x 480 pixels" in " ".join(repr(found).split())
    assert not Path(row.file).exists(), "its file was for the measuring process"


def test_tiles_are_measured_as_they_are_used(dataset: Dataset, tmp_path: Path, here: list[Measured]) -> None:
    detector = build_detector("starter", ["blue", "red"], weights="random", image_size=64)
    detector.tiling = detection.Tiling(40, 8, whole=True)
    check_figures(benchmark(detector, dataset, images=0, **QUICK).rows[0])


def test_other_classes_cost_the_ap_and_nothing_else(dataset: Dataset, here: list[Measured]) -> None:
    detector = build_detector("starter", ["cat"], weights="random", image_size=64)
    found = benchmark(detector, dataset, **QUICK)
    check_figures(found.rows[0])
    assert found.rows[0].ap is None
    assert "PyTorch fp32: no AP: " in repr(found)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("kill -9 $$", "ended by SIGKILL (out of memory?)"),
        ("echo first; echo boom >&2; exit 3", "boom"),
        ("exit 5", "its process ended with status 5"),
        ("exit 0", "its process ended without a word"),
    ],
)
def test_a_process_that_dies_is_told_of_in_its_row(
    program: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    apart = detection.measure_apart(Measured(name="a", file="a.onnx"))
    assert apart.measured.why_not.endswith(why)
    assert apart.predictions is None


def test_a_process_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(measuring, "_PATIENCE", 0.1)
    apart = detection.measure_apart(Measured(name="a", file="a.onnx"), seconds=0.01)
    assert "has measured nothing" in apart.measured.why_not


def test_the_folder_of_an_export_is_measured_without_its_run(
    run: Run, dataset: Dataset, here: list[Measured]
) -> None:
    exported = benchmark(run.path / "export", dataset, images=0, **QUICK)
    opened = benchmark(detection.load_detector(run.path / "export" / "detector.onnx"), images=0, **QUICK)
    assert exported.rows[0].file == opened.rows[0].file == str(run.path / "export" / "detector.onnx")
    check_figures(exported.rows[0])


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "seconds": ({"seconds": 0}, InputError, "seconds must be over 0"),
    "images": ({"images": -1}, InputError, "images 0 or more"),
    "batch": ({"largest_batch": 0}, InputError, "largest_batch 1 or more"),
    "device": ({"device": "tpu"}, InputError, "device must be"),
    "nothing": ({"detectors": []}, InputError, "nothing was given to measure"),
    "no such thing": ({"detectors": "gone"}, MissingFileError, "gone is neither a run"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_asked_wrongly_is_said_before_anything_is_measured(
    kind: str, run: Run, here: list[Measured]
) -> None:
    how, error, words = WRONG[kind]
    with pytest.raises(error, match=words):
        benchmark(**{"detectors": run, **how})
    assert not here


def test_a_run_without_a_detector_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    new = create_run(dataset, Settings(epochs=1), tmp_path, "new")
    for use in (benchmark, Run.detector):
        with pytest.raises(RunError, match="has no detector yet"):
            use(new)


def test_the_command_prints_json_keeps_it_and_draws(
    run: Run, tmp_path: Path, here: list[Measured], capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--seconds", "0.05", "--device", "cpu", "--largest-batch", "2"]
    assert main(["benchmark", str(run.path), *quick, "--json", "--figure", str(tmp_path / "speed.png")]) == 0
    said = orjson.loads(capsys.readouterr().out)
    kept = read_benchmark(run)
    assert kept is not None
    assert said == orjson.loads(orjson.dumps(kept.to_dict()))
    names = [row["name"] for row in said["rows"] if "OpenVINO" not in row["name"]]
    assert names == ["PyTorch fp32", "ONNX Runtime fp32"]
    for row in said["rows"]:
        assert row["latency"]["median"] <= row["latency"]["p95"]
        assert row["best_batch_size"] in (1, 2)
    assert (tmp_path / "speed.png").stat().st_size > 5000
    os.remove(run.path / "benchmark.json")


# -- what is shown -----------------------------------------------------------------------------------------------------


def row(name: str, median: float, **more: Any) -> Measured:
    timing = detection_timing(median)
    paces = (measuring.Pace(batch_size=1, images_per_second=1000 / median, memory=50 << 20),)
    return replace(
        Measured(name=name, file="a", file_bytes=10 << 20, latency=timing, network=timing, paces=paces),
        **more,
    )


def detection_timing(median: float, p95: float | None = None) -> measuring.Timing:
    return measuring.Timing(median=median, p95=p95 or median * 1.1, count=9)


def side_by_side(*rows: Measured) -> Benchmark:
    return Benchmark(
        rows=rows, date="2026-01-02T03:04:05+00:00", machine="A <processor>", cores=2, system="", pictures="8"
    )


def test_a_machine_that_is_not_quiet_is_said() -> None:
    assert "not quiet" not in repr(side_by_side(row("steady", 10)))
    wide = row("shaken", 10, latency=detection_timing(10, 16))
    assert "p95 is over 1.5 times the median of shaken." in " ".join(repr(side_by_side(wide)).split())
    busy = row("disturbed", 10, others=1.26)
    assert "other processes kept 1.3 cores busy" in " ".join(repr(side_by_side(busy)).split())


def test_the_table_escapes_and_the_figure_shows_what_there_is() -> None:
    found = side_by_side(
        row("PyTorch <fp32>", 1234.5, ap=0.5),
        row("fast", 0.5, ap=math.nan),
        Measured(name="bad", file="", why_not="<no>"),
    )
    page = found._repr_html_()
    assert "&lt;fp32&gt;" in page
    assert "&lt;no&gt;" in page
    assert "A &lt;processor&gt;" in page
    assert "1,234" in page or "1,235" in page
    assert "nan" not in page
    drawn = figures.benchmark(found)
    titles = [axes.get_title(loc="left") for axes in drawn.axes]
    assert [title.split(",")[0] for title in titles] == ["Latency", "Pictures a second", "Memory", "AP"]
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["PyTorch <fp32>", "fast"]
    assert len(figures.benchmark(side_by_side(row("a", 3))).axes) == 3, "no AP is known"
    nothing = figures.benchmark(side_by_side(Measured(name="bad", file="", why_not="no")))
    assert "nothing was measured" in nothing.axes[0].texts[0].get_text()
