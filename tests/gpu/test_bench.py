"""bench/gpu.py itself, tried on a CPU: all that it does there but the calls to CUDA."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import gpu as bench

SCRIPT = Path(bench.__file__)
CPU = torch.device("cpu")


def script(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so() -> None:
    """`make bench` goes on; who asks for a part gets an error."""
    done = script()
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "there is no CUDA device here" in done.stdout
    assert script("facts").returncode == 1


@pytest.mark.slow
@pytest.mark.worker
@pytest.mark.parametrize("part", bench.PARTS)
def test_every_part_runs_in_small(part: str, tmp_path: Path) -> None:
    done = script(part, "--device", "cpu", "--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{part}: " in done.stdout
    written = json.loads((tmp_path / f"{part}.json").read_bytes())
    assert written["rows"] and not written["left_out"]
    assert not [row for row in written["rows"] if "error" in row]


def test_an_unknown_part_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "speed"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "there is no part speed; parts: facts, correctness" in capsys.readouterr().err


def test_what_there_is_no_time_for_is_noted(tmp_path: Path) -> None:
    hasty = bench.Bench(CPU, quick=True, folder=tmp_path, minutes=0)
    assert list(hasty.cases("ab")) == [] and hasty.left_out == ["a", "b"]
    assert list(bench.Bench(CPU, quick=True, folder=tmp_path).cases("ab")) == ["a", "b"]


# -- what test_gpu.py compares ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 90])
def test_duplicates_are_counted(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NMS in bfloat16 would keep them: classes apart by their offsets, which leaves the boxes few digits."""
    assert bench.duplicates_left(CPU, number) == 0
    nms = bench.box_ops.batched_nms

    def rough(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, most: float) -> torch.Tensor:
        apart = (boxes + 1024 * labels[:, None]).bfloat16().float()
        return nms(apart, scores, labels, most)

    monkeypatch.setattr(bench.box_ops, "batched_nms", rough)
    assert (bench.duplicates_left(CPU, number) > 100) == (number == 90)


def test_number_formats_at_nms_are_seen() -> None:
    boxes, scores = torch.tensor([[0.0, 0, 9, 9]]), torch.ones(1)
    with bench.seen_by_nms() as seen:
        bench.box_ops.batched_nms(boxes, scores, torch.zeros(1), 0.5)
        assert seen == {torch.float32}
        with torch.autocast("cpu", torch.bfloat16):  # which makes them float32 again behind this
            bench.box_ops.batched_nms(boxes.bfloat16(), scores.bfloat16(), torch.zeros(1), 0.5)
    assert seen == {torch.float32, torch.bfloat16}


def test_waits_are_counted_with_their_place() -> None:
    ones = torch.ones(3)

    def step() -> None:
        ones.sum().item()
        ones[ones > 0].nonzero()

    assert sum(bench.waits(step, CPU).values()) == 3
    assert not bench.waits(lambda: ones.mul(2).sum(), CPU)


def test_an_error_beyond_the_tolerance_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = bench.compared("starter", CPU, ["fp32"], image_size=64)
    assert row["ok"] and row["worst error"] == 0
    right, calls = bench.loss_and_gradient, itertools.count()

    def wrong(*arguments: Any) -> dict[str, float]:
        off = 1.01 if next(calls) else 1.0  # the first is the reference
        return {name: value * off for name, value in right(*arguments).items()}

    monkeypatch.setattr(bench, "loss_and_gradient", wrong)
    (row,) = bench.compared("starter", CPU, ["fp32"], image_size=64)
    assert not row["ok"] and row["worst error"] == pytest.approx(0.01, rel=1e-3)


def test_a_function_in_a_process_of_its_own_says_why_it_failed() -> None:
    arguments = {"image_size": 64, "batch_size": 1, "device": "cpu", "precision": "fp32"}
    assert "no-such-detector" in bench.call("time_stages", detector="no-such-detector", **arguments)["error"]


def test_a_table_cuts_long_texts() -> None:
    lines = bench.table([{"a": 1.23456, "b": "x" * 200}, {"a": None, "top": ["not shown"]}]).splitlines()
    assert lines[0].split() == ["a", "b"] and lines[1].startswith("1.235") and lines[1].endswith("...")
    assert max(map(len, lines)) < 110
