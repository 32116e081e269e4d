"""Weights of others: the same detections as by torchvision's own forward, and a sentence where they do not fit."""

import argparse
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection as tv
from torchvision.ops import FrozenBatchNorm2d

from odkit.cli import main
from odkit.detection import build_detector, import_detector, load_detector, save_detector

FASTER = "fasterrcnn_mobilenet_v3_large_320_fpn"
SSD = "ssdlite320_mobilenet_v3_large"
RETINA = "retinanet_resnet50_fpn"


def freeze(module: nn.Module, eps: float) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            freeze(child, eps)


@lru_cache
def theirs(name: str) -> nn.Module:
    """torchvision's own, of three outputs, with norms as its scripts have them and classes that differ."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"box_score_thresh": 0.01} if name == FASTER else {"score_thresh": 0.01}
    module: nn.Module = getattr(tv, name)(weights=None, weights_backbone=None, num_classes=3, **options)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.uniform_(0.8, 1.2)
            part.running_mean.normal_(0, 0.1)
    for key, parameter in module.named_parameters():
        if "cls" in key or "classification" in key:
            parameter.data.normal_(0, 0.02) if parameter.dim() > 1 else parameter.data.normal_(-1, 0.2)
    if name == RETINA:  # whose maps grow large untrained: scores that are all 1 have no order
        module.head.classification_head.cls_logits.weight.data /= 10
    if name != SSD:
        freeze(module.backbone, 1e-5)
        module.transform.min_size, module.transform.max_size = (128,), 128
    return module.eval()


def checkpoint(name: str) -> dict[str, Any]:
    """As torchvision's references/detection/train.py saves it."""
    module = theirs(name)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    return {
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2]).state_dict(),
        "args": argparse.Namespace(model=name, lr=0.1, output_dir=Path("x"), device=torch.device("cpu")),
        "epoch": 3,
    }


def same_detections(ours: dict[str, Tensor], their: dict[str, Tensor], shift: int) -> None:
    keep = (their["labels"] >= shift).nonzero()[:, 0][
        : len(ours["labels"])
    ]  # without row 0's; ours has 100 at most
    count = len(keep)
    assert count > 5
    assert torch.equal(ours["labels"][:count] + shift, their["labels"][keep])
    torch.testing.assert_close(ours["scores"][:count], their["scores"][keep], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours["boxes"][:count], their["boxes"][keep], rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("name", "names", "wrap", "eps"),
    [
        (FASTER, ["a", "b"], lambda c: c, None),
        (FASTER, ["Background", "a", "b"], lambda c: {f"module.{k}": v for k, v in c["model"].items()}, None),
        (SSD, ["a", "b"], lambda c: c["model"], None),
        pytest.param(RETINA, ["__background__", "a", "b"], lambda c: c, 1e-5, marks=pytest.mark.slow),
    ],
    ids=["checkpoint", "parallel", "state dict", "counted from 1"],
)
def test_imported_weights_find_what_torchvision_finds(
    name: str, names: list[str], wrap: Callable[[Any], Any], eps: float | None, tmp_path: Path
) -> None:
    torch.save(wrap(checkpoint(name)), tmp_path / "model.pth")
    made = import_detector(tmp_path / "model.pth", detector=name, class_names=names, norm_eps=eps)
    assert made.class_names == ("a", "b")
    size = 320 if name == SSD else 128
    image = torch.rand(3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        (their,) = theirs(name)([image])
        (ours,) = made([image])
        save_detector(made, tmp_path / "detector.safetensors")
        (again,) = load_detector(tmp_path / "detector.safetensors", device="cpu")([image])
    same_detections(ours, their, 1)
    for key, value in ours.items():
        assert torch.equal(value, again[key])


def test_averaged_weights_come_first(tmp_path: Path) -> None:
    module = theirs(SSD)
    averaged = {f"module.{key}": value + 1 for key, value in module.state_dict().items()}
    whole = {"model": module.state_dict(), "model_ema": {"n_averaged": torch.tensor(3), **averaged}}
    torch.save(whole, tmp_path / "model.pth")
    made = import_detector(tmp_path / "model.pth", detector=SSD, class_names=["a", "b"])
    key = "head.classification_head.module_list.0.1.bias"
    assert torch.equal(made.module.state_dict()[key], module.state_dict()[key] + 1)


def test_training_starts_from_such_a_checkpoint(tmp_path: Path) -> None:
    torch.save(checkpoint(FASTER), tmp_path / "model.pth")
    made = build_detector(FASTER, ["x"], weights=tmp_path / "model.pth")
    key = "rpn.head.cls_logits.weight"
    assert torch.equal(made.module.state_dict()[key], theirs(FASTER).state_dict()[key])
    head = made.module.state_dict()["roi_heads.box_predictor.cls_score.weight"]
    assert torch.equal(head[0], theirs(FASTER).state_dict()["roi_heads.box_predictor.cls_score.weight"][0])


class Runs:
    """Would run a command, were it unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def state(**changes: Any) -> dict[str, Any]:
    return {**theirs(SSD).state_dict(), **changes}


BIAS = "head.classification_head.module_list.0.1.bias"
CASES: list[tuple[str, Callable[[], Any], str, list[str], str]] = [
    ("one name too few", state, SSD, ["a"], r"3 outputs, the first of them for the background: it wants 2 names"),
    ("one too many", state, SSD, ["a", "b", "c"], "it wants 2 names, not 3"),
    ("twice", state, SSD, ["a", "a"], "not all different"),
    ("none", state, SSD, [], "give their names"),
    ("another", state, FASTER, ["a", "b"], f"it is a {SSD}"),
    ("missing", lambda: {k: v for k, v in state().items() if k != BIAS}, SSD, ["a", "b"], rf"1 name missing \({BIAS}"),
    ("shape", lambda: state(**{BIAS: torch.zeros(7)}), SSD, ["a", "b"], "has 7 rows"),
    ("not finite", lambda: state(**{BIAS: torch.full((18,), torch.nan)}), SSD, ["a", "b"], "not finite"),
    ("quantised", lambda: state(**{BIAS: torch.zeros(18, dtype=torch.int8)}), SSD, ["a", "b"], "floating point"),
    ("code", lambda: {"model": state(), "x": Runs()}, SSD, ["a", "b"], "holds more than numbers .*system"),
    ("a module", lambda: nn.Linear(1, 1), SSD, ["a", "b"], "holds more than numbers .*torch.nn"),
    ("a tensor", lambda: torch.zeros(3), SSD, ["a", "b"], "holds a Tensor"),
    ("no tensor", lambda: {"epoch": 3}, SSD, ["a", "b"], "no weights by their names, but: epoch"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "held", "name", "names", "said"), CASES, ids=[case[0] for case in CASES])
def test_what_does_not_fit_is_said_in_a_sentence(
    what: str,
    held: Callable[[], Any],
    name: str,
    names: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(held(), "model.pth")
    with pytest.raises(ValueError, match=said):
        import_detector("model.pth", detector=name, class_names=names)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"], what


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"hello", b"\x80\x02}q\x00.", bytes(1000)])
def test_damaged_files_are_said(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.pth"):
        import_detector(tmp_path / "model.pth", detector=SSD, class_names=["a", "b"])
    with pytest.raises(ValueError, match="odkit import-weights"):
        load_detector(tmp_path / "model.pth")


def test_the_command_writes_a_detector_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(checkpoint(SSD), tmp_path / "model.pth")
    out = tmp_path / "detector.safetensors"
    args = ["import-weights", str(tmp_path / "model.pth"), "--detector", SSD, "--out", str(out)]
    assert main([*args, "--classes", "cat"]) == 1
    assert "it wants 2 names" in capsys.readouterr().err
    assert main([*args, "--classes", "cat", "dog"]) == 0
    assert load_detector(out, device="cpu").class_names == ("cat", "dog")
    assert main([*args, "--classes", "cat", "dog"]) == 1
    assert "is there already" in capsys.readouterr().err
