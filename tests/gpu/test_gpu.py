"""On a real GPU (pytest -m gpu): what bench/gpu.py checks, a test each; without a GPU these tests fail."""

from pathlib import Path

import pytest
import torch

from bench import gpu as bench
from odkit.detection import list_detectors
from odkit.detection.devices import DTYPES

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture
def gpu() -> torch.device:
    assert torch.cuda.is_available(), "there is no CUDA device here, and this test is about nothing else"
    return torch.device("cuda:0")


def held(rows: list[bench.Row]) -> None:
    assert rows
    assert not [row for row in rows if not row.get("ok", True)], "\n" + bench.table(rows)


@pytest.mark.parametrize("number", [0, 10, 40, 90])
def test_nms_suppresses_every_duplicate(gpu: torch.device, number: int) -> None:
    assert bench.duplicates_left(gpu, number) == 0


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("name", [entry["name"] for entry in list_detectors()])
def test_a_detector_computes_what_it_does_on_the_cpu(gpu: torch.device, name: str, precision: str) -> None:
    held(bench.compared(name, gpu, [precision], image_size=320))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_boxes_are_float32_and_near_those_of_the_cpu(gpu: torch.device, precision: str) -> None:
    """The starter knows objects, so what it is surest of is no matter of rounding."""
    detector = bench.seeded_detector("starter", image_size=320, weights="pretrained")
    batch = bench.drawn_batch(detector, images=4)
    (expected, _), (found, seen) = (
        bench.found_by(detector, batch, place, kind)
        for place, kind in ((torch.device("cpu"), None), (gpu, DTYPES[precision]))
    )
    assert seen == {torch.float32}
    assert {one["boxes"].dtype for one in found} == {torch.float32}
    for one, other in zip(found, expected, strict=True):
        best = other["boxes"][:1]
        distance = (one["boxes"][:20] - best).abs().max(1).values
        assert not len(best) or distance.min() < 2.0


@pytest.mark.parametrize("name", bench.FEW_WAITS)
def test_a_step_waits_for_the_gpu_a_few_times(gpu: torch.device, name: str) -> None:
    sites = bench.waits_of_a_step(name, gpu, image_size=320, images=4)
    assert sum(sites.values()) <= bench.FEW_WAITS[name], sites


@pytest.mark.worker
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", ["learning", "exactness", "memory", "faults", "judging"])
def test_the_checks_of_a_part_hold(gpu: torch.device, part: str, tmp_path: Path) -> None:
    held(bench.PARTS[part](bench.Bench(gpu, quick=False, folder=tmp_path)))
