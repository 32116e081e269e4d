"""Detectors: every entry of the catalogue builds, trains and predicts; rows carried over by name; honest weights."""

import dataclasses
import functools
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torchvision
from torchvision.models import WeightsEnum

from odkit.detection import torchvision as torchvision_family
from odkit.detection import weights
from odkit.detection.catalogue import CATALOGUE, TORCHVISION_WEIGHTS, list_detectors
from odkit.detection.detector import Detector, build_detector, load_detector, save_detector
from odkit.detection.family import Published
from odkit.detection.weights import WeightsUnavailableError, find_weights, weights_file
from odkit.detection.weights_cache import STARTER_WEIGHTS
from odkit.system import InputError

NAMES = ("cat", "teapot", "dog")


def a_batch(size: int = 64) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, size, size, generator=generator) for _ in range(2)]
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [20.0, 24.0, 60.0, 60.0]])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([0, 2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},  # an image without objects
    ]
    return images, targets


LIGHT = ("starter", "ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn", "dfine_nano")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in LIGHT else pytest.mark.slow) for name in CATALOGUE]
)
def test_every_entry_builds_trains_and_predicts(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = CATALOGUE[name].smallest
    detector = build_detector(name, NAMES, weights="random", image_size=size).train()
    images, targets = a_batch(size)
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4)
    losses = detector(images, targets)
    assert all(torch.isfinite(value) for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    path = save_detector(detector, tmp_path / "detector.safetensors")
    loaded = load_detector(path, device="cpu")
    detector.eval()
    with torch.inference_mode():
        found, again = detector(images), loaded(images)
    for one, other in zip(found, again, strict=True):
        assert one["boxes"].shape[1] == 4
        assert torch.equal(one["scores"], other["scores"])
        if len(one["labels"]):
            assert 0 <= int(one["labels"].min()) <= int(one["labels"].max()) <= 2


@pytest.mark.parametrize("name", ["starter", "ssdlite320_mobilenet_v3_large"])
@pytest.mark.parametrize("label", [0, 1])
def test_the_class_that_is_taught_is_the_class_that_is_found(name: str, label: int) -> None:
    """With a background class inside and without: class 0 is the first, and the last is not beyond the end."""
    torch.manual_seed(0)
    detector = build_detector(name, ["first", "last"], weights="random", image_size=64).train()
    image = torch.full((3, 64, 64), 0.05)
    image[:, 16:48, 16:48] = 1.0
    target = {"boxes": torch.tensor([[16.0, 16.0, 48.0, 48.0]]), "labels": torch.tensor([label])}
    optimizer = torch.optim.Adam(detector.parameters(), 2e-3)
    for _ in range(25):
        loss = torch.stack(list(detector([image] * 2, [target] * 2).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    detector.eval()
    with torch.inference_mode():
        (found,) = detector([image])
    assert found["labels"][found["scores"].argmax()] == label
    assert float(found["scores"].max()) > 0.3


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'starter'"):
        build_detector("startr", NAMES)
    with pytest.raises(ValueError, match=r"no detector is called '\?'\. There are: starter, "):
        build_detector("?", NAMES)  # nothing is near it
    with pytest.raises(ValueError, match="300 pixels or more"):
        build_detector("ssd300_vgg16", NAMES, weights="random", image_size=64)
    with pytest.raises(ValueError, match="class name"):
        build_detector("starter", ())
    assert {row["name"] for row in list_detectors()} == set(CATALOGUE)


def test_every_entry_says_its_licences_and_they_are_permissive() -> None:
    for row in list_detectors():
        for licence in (row["code_licence"], row["weights_licence"]):
            assert licence.split(",")[0] in ("Apache-2.0", "BSD-3-Clause", "MIT"), row["name"]
        theirs = CATALOGUE[row["name"]].weights
        # torchvision's, where it is torchvision that publishes them, and nowhere else
        assert (row["weights_licence"] == TORCHVISION_WEIGHTS) == isinstance(theirs, WeightsEnum)


def test_the_starter_is_bundled_small_and_plain() -> None:
    assert STARTER_WEIGHTS.stat().st_size < 9_000_000
    detector = build_detector("starter", NAMES)
    assert 3e6 < sum(p.numel() for p in detector.parameters()) < 4e6
    assert not any(isinstance(p, torch.Tensor) and not torch.isfinite(p).all() for p in detector.parameters())


def test_starter_and_demo_share_no_class() -> None:
    from odkit.data.demo.parts import PARTS
    from tools.starter.draw import STARTER_CLASSES

    assert not {n.lower() for n in PARTS} & {n.lower() for n in STARTER_CLASSES}


@pytest.mark.parametrize(
    ("name", "layer", "background"),
    [
        ("starter", "head.classes", False),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "roi_heads.box_predictor.cls_score", True),
    ],
)
def test_saved_weights_start_another_class_table(
    name: str, layer: str, background: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    old = build_detector(name, ["apple", "Coffee_Mug", "pear"], weights="random")
    path = save_detector(old, tmp_path / "old.safetensors")
    for names in (
        ["coffee mug", "plum"],
        ["plum", "quince", "coffee mug"],
    ):  # another number, and the same number
        torch.manual_seed(1)
        new = build_detector(name, names, weights=path)
        a, b = old.module.state_dict(), new.module.state_dict()
        row_old, row_new = 1 + background, names.index("coffee mug") + background
        assert torch.equal(b[f"{layer}.weight"][row_new], a[f"{layer}.weight"][row_old])
        if background:
            assert torch.equal(b[f"{layer}.bias"][0], a[f"{layer}.bias"][0])
            boxes = "roi_heads.box_predictor.bbox_pred.weight"
            assert torch.equal(b[boxes].view(-1, 4, 1024)[row_new], a[boxes].view(-1, 4, 1024)[row_old])
        other = names.index("plum") + background
        assert not any(torch.equal(b[f"{layer}.weight"][other], row) for row in a[f"{layer}.weight"])
        shared = next(key for key in a if key.startswith("backbone") and key.endswith("weight"))
        assert torch.equal(a[shared], b[shared])


def test_weights_of_another_detector_are_refused(tmp_path: Path) -> None:
    path = save_detector(build_detector("starter", NAMES, weights="random"), tmp_path / "s.safetensors")
    with pytest.raises(ValueError, match="holds a starter"):
        build_detector("ssdlite320_mobilenet_v3_large", NAMES, weights=path)
    with pytest.raises(ValueError, match="no file"):
        build_detector("starter", NAMES, weights=tmp_path / "nowhere.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"not at all")
    with pytest.raises(ValueError, match="not a detector saved by odkit"):
        load_detector(tmp_path / "junk.safetensors")
    with pytest.raises(FileNotFoundError):
        load_detector(tmp_path / "absent.safetensors")


def test_weights_of_another_network_of_that_name_are_refused(tmp_path: Path) -> None:
    detector = build_detector("starter", NAMES, weights="random")
    detector.module.head.classes = torch.nn.Conv2d(96, 3, 1)
    path = save_detector(detector, tmp_path / "earlier.safetensors")
    with pytest.raises(
        InputError, match=r"earlier\.safetensors.* was saved by an odkit whose starter was another"
    ):
        load_detector(path)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A local HTTP server over a folder of weights files."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A catalogue entry whose published file is one made here, with the right hash in its name."""
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.manual_seed(0)
    categories = CATALOGUE[name].weights.meta["categories"]
    module = CATALOGUE[name].build(len(categories))
    made = tmp_path / "made.pth"
    torch.save(module.state_dict(), made)
    digest = hashlib.sha256(made.read_bytes()).hexdigest()[:8]
    theirs = CATALOGUE[name].weights
    own = Published(theirs.url, f"published-{digest}.pth", digest, theirs.meta)
    monkeypatch.setitem(CATALOGUE, name, dataclasses.replace(CATALOGUE[name], weights=own))
    return name, made


def test_weights_are_downloaded_once_with_their_hash_checked(
    published: tuple[str, Path], mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, made = published
    folder, address = mirror
    target = weights.weights_file(name)
    (folder / target.name).write_bytes(made.read_bytes())
    monkeypatch.setenv("ODKIT_WEIGHTS_URL", address)
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    detector = build_detector(name, ["person", "widget"])
    assert target.is_file()
    given = torch.load(made, weights_only=True)
    own = detector.module.state_dict()
    row = CATALOGUE[name].weights.meta["categories"].index("person")
    key = "roi_heads.box_predictor.cls_score.weight"
    assert torch.equal(own[key][1], given[key][row])
    (folder / target.name).unlink()
    build_detector(name, ["person"])  # from the cache now
    target.write_bytes(b"damaged")
    with pytest.raises(WeightsUnavailableError, match="damaged"):
        build_detector(name, ["person"])


def test_a_download_with_the_wrong_hash_is_refused(
    published: tuple[str, Path], mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = published
    folder, address = mirror
    target = weights.weights_file(name)
    (folder / target.name).write_bytes(b"something else")
    monkeypatch.setenv("ODKIT_WEIGHTS_URL", address)
    with pytest.raises(WeightsUnavailableError, match="Three ways out"):
        build_detector(name, ["person"])
    assert not target.exists()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nthe beginning"])
def test_a_network_that_swallows_everything_is_given_up(
    published: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    """A server that takes the connection and never answers, or falls silent in the middle of the file."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def take() -> list[socket.socket]:
            taken = [server.accept()[0] for _ in range(2)]  # whether somebody is there is asked first
            taken[1].sendall(answer)
            return taken

        held = pool.submit(take)
        monkeypatch.setenv("ODKIT_WEIGHTS_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(WeightsUnavailableError, match=r"timed out.*Three ways out"):
            weights.find_weights(published[0], silence=0.3)
        for connection in held.result(60):
            connection.close()
    assert list(weights.weights_file(published[0]).parent.iterdir()) == [], "nothing is left of it"


@pytest.mark.slow
def test_without_a_network_the_error_says_the_ways_out(tmp_path: Path) -> None:
    """In a network namespace of its own, where there is really nothing to connect to; elsewhere, a closed port."""
    script = (
        "from odkit.detection import build_detector, WeightsUnavailableError\n"
        "build_detector('starter', ['a'])\n"
        "try:\n"
        "    build_detector('fcos_resnet50_fpn', ['a'])\n"
        "except WeightsUnavailableError as error:\n"
        "    print(error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment["TORCH_HOME"] = str(tmp_path)
    command = [sys.executable, "-c", script]
    alone = ["unshare", "--net", "--map-root-user"]
    try:
        possible = subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        possible = False
    if possible:
        command = [*alone, *command]
    else:
        environment["ODKIT_WEIGHTS_URL"] = "http://127.0.0.1:9"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "Three ways out" in done.stdout
    assert 'detector="starter"' in done.stdout
    assert str(tmp_path) in done.stdout


NORMED = [
    name
    for name, entry in CATALOGUE.items()
    if entry.weights and entry.family is torchvision_family and name != "ssd300_vgg16"  # it has none
]


@pytest.mark.parametrize("name", NORMED)
def test_pretrained_batch_norms_compute_what_torchvisions_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all COCO classes our detector is the published one, however small a running variance is.

    torchvision's builder is left alone: which norms it freezes, and with which epsilon, is its business.
    """
    categories = CATALOGUE[name].weights.meta["categories"]
    state = with_spread_variances(CATALOGUE[name].build(len(categories)))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: state)
    theirs = getattr(torchvision.models.detection, name)(weights=CATALOGUE[name].weights).eval()
    torch.save(state, tmp_path / "published.pth")
    class_names = [f"{c} {i}" if c == "N/A" else c for i, c in enumerate(categories)]
    if CATALOGUE[name].background:
        class_names = class_names[1:]
    detector = build_detector(name, class_names, weights=tmp_path / "published.pth").eval()

    ours, others = norms_of(detector.module), norms_of(theirs)
    assert ours.keys() == others.keys()
    noise = torch.Generator().manual_seed(0)
    for key, norm in ours.items():
        assert type(norm) is type(others[key]), key
        pixels = torch.randn(1, len(norm.running_var), 2, 2, generator=noise)
        torch.testing.assert_close(norm(pixels), others[key](pixels), rtol=1e-6, atol=1e-6)
    image = torch.rand(1, 3, 64, 64, generator=noise)
    with torch.inference_mode():
        maps, other_maps = detector.module.backbone(image), theirs.backbone(image)
    for key, features in maps.items():
        torch.testing.assert_close(features, other_maps[key], rtol=1e-5, atol=1e-5)
    frozen = CATALOGUE[name].frozen
    stem = [p for n, p in detector.module.named_parameters() if n.startswith(frozen)] if frozen else []
    assert bool(stem) == bool(frozen)
    assert not any(p.requires_grad for p in stem)


def with_spread_variances(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The module's state with running variances from 1e-7 to 1e2 in each norm, undone by its weights."""
    noise = torch.Generator().manual_seed(0)
    for norm in norms_of(module).values():
        norm.running_var.copy_(10 ** torch.empty(len(norm.running_var)).uniform_(-7, 2, generator=noise))
        norm.weight.data.copy_(norm.running_var.sqrt())
        norm.running_mean.copy_(torch.randn(len(norm.running_var), generator=noise) * norm.running_var.sqrt())
    return module.state_dict()


def norms_of(module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    kinds = (torch.nn.BatchNorm2d, torchvision.ops.FrozenBatchNorm2d)
    return {name: norm for name, norm in module.named_modules() if isinstance(norm, kinds)}


def test_find_weights_of_the_bundled_one_is_the_bundle() -> None:
    assert find_weights("starter") == STARTER_WEIGHTS
    assert weights_file("starter") == STARTER_WEIGHTS
    assert isinstance(build_detector("starter", NAMES), Detector)


def test_a_detector_is_loaded_where_training_would_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_detector(
        build_detector("starter", NAMES, weights="random"), tmp_path / "detector.safetensors"
    )
    asked = []

    def picked(name: str) -> torch.device:
        asked.append(name)
        return torch.device("cpu")

    monkeypatch.setattr("odkit.detection.detector.pick_device", picked)
    for loaded in (load_detector(path), load_detector(tmp_path, device="cuda")):
        assert not loaded.training
        assert next(loaded.parameters()).device == torch.device("cpu")
    assert asked == ["auto", "cuda"]
