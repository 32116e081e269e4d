"""What `make bench` writes: rows of scripts as a table, and no row lost where one fails."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from tests.helpers import until

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_report", BENCH / "report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = f"""import sys
sys.path.insert(0, {str(BENCH)!r})
from rows import row
"""


@pytest.fixture
def bench(tmp_path: Path, report: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two scripts in place of ours, one of which fails after its first row."""
    folder = tmp_path / "bench"
    folder.mkdir()
    (folder / "good.py").write_text(
        f'"""Boats beside ships."""\n{SCRIPT}'
        "row('rowing', 2.0, 9.0, beside='oars 1.0', wanted=3)\n"
        "row('sailing', 50, 10, unit='knots', more_is_better=True, wanted=10, note='in wind')\n"
        "row('waiting', 4.0, wanted=3)\n"
    )
    (folder / "bad.py").write_text(f"{SCRIPT}row('a start', 1.5)\nraise OSError('the sea is gone')\n")
    monkeypatch.setattr(report, "HERE", folder)
    return folder


def test_results_hold_every_row_and_name_what_failed(
    bench: Path, report: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["bad", "good", "--to", str(bench)]) == 1
    text = (bench / "RESULTS.md").read_text()
    assert "| rowing | 2 s | 9 s (oars 1.0) | **4.5** times | 3 times | reached |" in text
    assert "| sailing (1) | 50 knots | 10 knots | **5** times | 10 times | **not reached** |" in text
    assert "1. in wind" in text
    assert "| waiting | 4 s |  |  | at most 3 s | **not reached** |" in text
    assert "Boats beside ships." in text
    assert "- **bad.py failed**: exit status 1: OSError: the sea is gone" in text
    assert "| a start | 1.5 s |" in text  # what it said before
    assert "4 figures in 0 minutes; 1 of 3 reach what is wanted of them." in text
    assert (bench / "results.svg").read_text().count("<svg") == 1
    assert "bad" in capsys.readouterr().err


def test_a_part_measured_anew_keeps_the_others(bench: Path, report: ModuleType) -> None:
    report.main(["good", "bad", "--to", str(bench)])
    (bench / "bad.py").write_text(f"{SCRIPT}row('an end', 1.5)\n")
    assert report.main(["bad", "--to", str(bench)]) == 0
    text = (bench / "RESULTS.md").read_text()
    assert "rowing" in text
    assert "an end" in text
    assert "failed" not in text
    kept = json.loads((bench / "results.json").read_text())
    kept["machine"]["processor"] = "another"
    (bench / "results.json").write_text(json.dumps(kept))
    report.main(["bad", "--to", str(bench)])
    assert "rowing" not in (bench / "RESULTS.md").read_text()


def test_a_script_that_hangs_is_ended(bench: Path, report: ModuleType) -> None:
    (bench / "hangs.py").write_text(f"{SCRIPT}row('a start', 1.5)\nimport time\ntime.sleep(60)\n")
    assert report.main(["hangs", "--to", str(bench), "--minutes", "0.01"]) == 1
    assert "it took longer than 0.01 minutes" in (bench / "RESULTS.md").read_text()


def test_what_a_script_leaves_running_is_ended(bench: Path, report: ModuleType) -> None:
    """As a training that is to outlive the kernel would be, or a database."""
    (bench / "leaves.py").write_text(
        f"{SCRIPT}import subprocess\n"
        "left = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "row('left', left.pid)\n"
    )
    assert report.main(["leaves", "--to", str(bench)]) == 0
    (row,) = json.loads((bench / "results.json").read_text())["parts"]["leaves"]["rows"]

    def gone() -> bool:
        try:
            return psutil.Process(row["ours"]).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    until(gone, seconds=10)


def test_make_bench_runs_every_script_but_those_started_by_themselves(report: ModuleType) -> None:
    assert set(report.ORDER) == set(report.TITLES)
    by_themselves = {"accuracy", "tiles", "gpu", "rows", "report", "soak", "dashboards"}
    assert {path.stem for path in BENCH.glob("*.py")} - by_themselves <= set(report.ORDER)


def test_an_unknown_part_is_told_what_there_is() -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "report.py", "weather"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "there is no bench/weather.py; there are start, reading" in done.stderr
