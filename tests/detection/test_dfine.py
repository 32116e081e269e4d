"""D-FINE: the results of transformers' own modules, losses grouped as the authors group them, boxes in float32."""

import dataclasses
import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d, box_convert
from transformers import DFineForObjectDetection, RTDetrImageProcessor
from transformers.loss.loss_d_fine import DFineLoss
from transformers.models.d_fine.modeling_d_fine import distance2bbox, inverse_sigmoid, weighting_function

from odkit.detection import WeightsUnavailableError, build_detector, dfine, load_detector, save_detector
from odkit.detection.batch import Inputs
from odkit.detection.catalogue import CATALOGUE, COCO
from odkit.detection.weights import find_weights
from odkit.system import InputError

CLASSES = 3
SIZE = 256  # 320 places in two levels: as many queries as there are elsewhere


def made(size: str = "nano", classes: int = CLASSES) -> Any:
    """A module whose last layers speak: fresh ones leave all boxes where they began."""
    torch.manual_seed(0)
    module: Any = dfine.dfine(size)(classes)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(
                ("embed.0.layers.2.weight", "embed.1.layers.2.weight", "embed.2.layers.2.weight")
            ):
                nn.init.normal_(parameter, std=0.1)
            if "bbox_head.layers.2" in name or "reg_conf.layers.1.weight" in name:
                nn.init.normal_(parameter, std=0.05)
    return module


def a_batch(counts: Sequence[int], *, size: int = SIZE, sizes: Sequence[tuple[int, int]] = ()) -> Inputs:
    """Noise with as many boxes in each image, on a canvas that may be larger than an image."""
    random = torch.Generator().manual_seed(len(counts))
    sizes = list(sizes) or [(size, size)] * len(counts)
    images = torch.zeros(len(counts), 3, size, size)
    boxes, labels = torch.zeros(len(counts), max(counts), 4), torch.full((len(counts), max(counts)), -1)
    for index, (count, (height, width)) in enumerate(zip(counts, sizes, strict=True)):
        images[index, :, :height, :width] = torch.rand(3, height, width, generator=random)
        side = torch.rand(count, 2, generator=random) * 24 + 8
        corner = torch.rand(count, 2, generator=random) * (torch.tensor([width, height]) - side)
        boxes[index, :count] = torch.cat((corner, corner + side), 1)
        labels[index, :count] = torch.arange(count) % CLASSES
    return Inputs(images.contiguous(memory_format=torch.channels_last), sizes, boxes, labels)


def targets_of(inputs: Inputs) -> list[dict[str, Tensor]]:
    """As transformers wants them: shares of the canvas."""
    height, width = inputs.images.shape[-2:]
    counts = (inputs.labels >= 0).sum(1).tolist()
    return [
        {
            "class_labels": labels[:count],
            "boxes": box_convert(boxes[:count] / torch.tensor([width, height] * 2), "xyxy", "cxcywh"),
        }
        for boxes, labels, count in zip(inputs.boxes, inputs.labels, counts, strict=True)
    ]


def theirs(module: Any) -> Any:
    """transformers' own detector with the same configuration and weights; its heads have two names."""
    whole = DFineForObjectDetection(module.config)
    state = module.state_dict()
    heads = {key.removeprefix("model.decoder."): value for key, value in state.items()}
    whole.load_state_dict({key: state.get(key, heads.get(key)) for key in whole.state_dict()})
    return whole


# -- transformers' results ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["nano", pytest.param("medium", marks=pytest.mark.slow)])
def test_detections_are_transformers_own(size: str) -> None:
    module = made(size).eval()
    inputs = a_batch((0, 0))
    with torch.inference_mode():
        outputs = theirs(module).eval()(inputs.images)
        wanted = RTDetrImageProcessor().post_process_object_detection(
            outputs, threshold=0.0, target_sizes=inputs.sizes
        )
        given = dfine.detections(module, inputs)
    for one, other in zip(given, wanted, strict=True):
        assert len(one["boxes"]) == 100
        torch.testing.assert_close(one["scores"], other["scores"][:100], rtol=1e-5, atol=0)
        # scores that are all but equal may stand in either order
        rows, others = (
            torch.cat((x["boxes"].clamp(0, SIZE), x["labels"][:, None], x["scores"][:, None]), 1)
            for x in (one, other)
        )
        assert float((rows[:, None] - others).abs().amax(2).amin(1).max()) < 1e-3


def test_colours_are_taken_as_transformers_takes_them() -> None:
    processor = RTDetrImageProcessor()
    assert dfine.input_format(None) == ((0, 0, 0), (1, 1, 1), 32)
    assert processor.do_rescale
    assert processor.rescale_factor == pytest.approx(1 / 255)
    assert not processor.do_normalize


def test_what_lies_outside_of_an_image_is_cut_off() -> None:
    sizes = [(200, 256), (256, 131)]
    with torch.inference_mode():
        found = dfine.detections(made().eval(), a_batch((0, 0), sizes=sizes))
    for one, (height, width) in zip(found, sizes, strict=True):
        assert float(one["boxes"].min()) >= 0
        assert (one["boxes"] <= torch.tensor([width, height] * 2)).all()
        assert (one["boxes"][:, 2] == width).any() or (one["boxes"][:, 3] == height).any()
        assert (one["scores"].diff() <= 0).all()


# -- losses ------------------------------------------------------------------------------------------------------------


class Layers:
    """What each of a decoder's layers says, caught where it is said, and put together as the authors do."""

    def __init__(self, module: Any) -> None:
        self.module, self.said = module, dict[str, list[Any]]()
        decoder = module.model.decoder
        for name in ("class_embed", "bbox_embed", "lqe_layers"):
            for layer in getattr(decoder, name):
                layer.register_forward_hook(self._catch(name))
        decoder.pre_bbox_head.register_forward_hook(self._catch("pre"))
        module.model.register_forward_hook(self._catch("model"))
        decoder.register_forward_pre_hook(
            lambda _, args, given: self.said.setdefault("start", []).append(given["reference_points"]),
            with_kwargs=True,
        )

    def _catch(self, name: str) -> Callable[..., None]:
        return lambda _, given, made: self.said.setdefault(name, []).append(made)

    def predictions(self, queries: slice) -> list[dict[str, Tensor]]:
        """Before any refinement, then layer by layer: classes and boxes; of layers, the distributions too."""
        decoder = self.module.model.decoder
        start = torch.sigmoid(self.said["pre"][0] + inverse_sigmoid(self.said["start"][0].sigmoid()))
        steps = weighting_function(decoder.max_num_bins, decoder.up, decoder.reg_scale)
        corners = torch.stack(self.said["bbox_embed"]).cumsum(0)
        boxes = [
            distance2bbox(start.detach(), decoder.integral(one, steps), decoder.reg_scale) for one in corners
        ]
        first = {"logits": self.said["class_embed"][0], "pred_boxes": start.clamp(0, 1)}
        layers = [
            {
                "logits": logits,
                "pred_boxes": box.clamp(0, 1),
                "pred_corners": corner,
                "ref_points": start.detach(),
                "teacher_corners": corners[-1],
                "teacher_logits": self.said["lqe_layers"][-1],
            }
            for logits, box, corner in zip(self.said["lqe_layers"], boxes, corners, strict=True)
        ]
        return [{key: value[:, queries] for key, value in one.items()} for one in (first, *layers)]


def test_each_layers_losses_are_of_its_own_predictions() -> None:
    """The grouping of the authors' code: what is said before any refinement stands apart, every layer is in step."""
    module = made().train()
    inputs = a_batch((2, 0, 5), size=128, sizes=[(128, 128), (80, 128), (128, 100)])
    layers = Layers(module)
    given = dfine.losses(module, inputs)
    found, targets = layers.said["model"][0], targets_of(inputs)
    split = found.denoising_meta_values["dn_num_split"][0]
    own, noisy = layers.predictions(slice(split, None)), layers.predictions(slice(0, split))
    own.append(
        {"logits": found.enc_topk_logits, "pred_boxes": found.enc_topk_bboxes}
    )  # what the encoder proposed
    criterion = DFineLoss(module.config)
    matches = criterion.get_cdn_matched_indices(found.denoising_meta_values, targets)
    number, groups = 7, found.denoising_meta_values["dn_num_group"]
    wanted = dict.fromkeys(dfine.TERMS, torch.zeros(()))
    for predictions, boxes, fixed in ((own, number, None), (noisy, number * groups, matches)):
        for one in predictions:
            indices = fixed or criterion.matcher(one, targets)
            for kind in criterion.losses:
                for name, value in criterion.get_loss(kind, one, targets, indices, boxes).items():
                    term = name if fixed is None else "loss_denoising"
                    wanted[term] = wanted[term] + value * criterion.weight_dict[name]
    assert given.keys() == wanted.keys()
    for name, value in given.items():
        assert value.dtype == torch.float32
        assert value > 0, name
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-5)


def ours_main(module: Any, inputs: Inputs) -> dict[str, Tensor]:
    return {name: loss for name, loss in dfine.losses(module, inputs).items() if name != "loss_denoising"}


def their_main(module: Any, inputs: Inputs) -> dict[str, Tensor]:
    found = theirs(module).train()(inputs.images, labels=targets_of(inputs)).loss_dict
    return {name: loss for name, loss in found.items() if "_dn_" not in name}


@pytest.mark.parametrize("main", [ours_main, their_main])
def test_the_main_loss_ignores_denoising_queries(main: Callable[[Any, Inputs], dict[str, Tensor]]) -> None:
    """They can see no other query and are seen by none: without them, all other losses are the same.

    Of transformers this holds since 5.24, the oldest that is taken.
    """
    module, inputs = made().train(), a_batch((2, 0, 5), size=96)
    module.config.num_queries = 45  # as many as there are places
    with_them = main(module, inputs)
    module.config.num_denoising = 0
    without = main(module, inputs)
    assert with_them.keys() == without.keys()
    for name, loss in without.items():
        torch.testing.assert_close(with_them[name], loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("counts", [(2, 0, 5), (0, 0), (1,), (40, 3)], ids=str)
def test_every_batch_has_the_same_terms_and_a_gradient_for_every_weight(counts: Sequence[int]) -> None:
    """Processes that share a batch compare what they have; one of them may have images without boxes alone."""
    module = made().train()
    terms = dfine.losses(module, a_batch(counts, size=96))  # 45 places: fewer queries than elsewhere
    assert tuple(terms) == dfine.TERMS
    assert all(loss.isfinite() for loss in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_what_is_not_finite_is_said_by_the_losses() -> None:
    """Its own matcher would raise an error for boxes that are not finite: the batch could not be left out."""
    module, inputs = made().train(), a_batch((2, 3), size=96)
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    assert not any(loss.isfinite() for loss in dfine.losses(module, inputs).values())


def test_noise_is_drawn_from_torchs_seed() -> None:
    module, inputs = made().train(), a_batch((2, 3), size=96)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(dfine.losses(module, inputs)["loss_denoising"].detach())
    assert draws[0] == draws[1] != draws[2]


def test_a_size_that_was_judged_can_be_trained_on() -> None:
    """transformers keeps anchors and positions by size: those made while judging belong to no graph."""
    module, inputs = made(), a_batch((2, 3), size=160)
    with torch.inference_mode():
        dfine.detections(module.eval(), inputs)
    torch.stack(list(dfine.losses(module.train(), inputs).values())).sum().backward()


# -- pixels in float32 -----------------------------------------------------------------------------------------------


class Planted(nn.Module):
    """An encoder that gives the same maps in float32 and, under autocast, in bf16."""

    def __init__(self, size: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.maps = [torch.randn(2, 128, size // n, size // n, generator=random).bfloat16() for n in (16, 32)]

    def forward(self, maps: object) -> Any:
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        return SimpleNamespace(last_hidden_state=[one.to(dtype) for one in self.maps])


def test_boxes_and_losses_are_the_same_under_autocast_for_the_same_features() -> None:
    module, inputs = made(), a_batch((2, 3), size=128)
    seen: list[torch.dtype] = []
    first = next(layer for layer in module.model.backbone.modules() if isinstance(layer, nn.Conv2d))
    first.register_forward_hook(lambda _, given, found: seen.append(found.dtype))
    module.model.encoder = Planted(128)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            torch.manual_seed(0)
            terms = dfine.losses(module.train(), inputs)
            with torch.inference_mode():
                found = dfine.detections(module.eval(), inputs)
        results.append(([one["boxes"] for one in found], [one["scores"] for one in found], terms))
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2  # the convolutions are fast
    (boxes, scores, terms), (others, other_scores, other_terms) = results
    for one, other in zip([*boxes, *scores], [*others, *other_scores], strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.equal(one, other)
    for name, loss in terms.items():
        assert other_terms[name].dtype == torch.float32
        assert torch.equal(loss, other_terms[name])


def test_in_bf16_it_trains_and_finds() -> None:
    detector = build_detector("dfine_nano", ["a", "b"], weights="random", image_size=96).train()
    images = [torch.rand(3, 96, 96) for _ in range(2)]
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    with torch.autocast("cpu", torch.bfloat16):
        terms = detector(images, [target] * 2)
        torch.stack(list(terms.values())).sum().backward()
        with torch.inference_mode():
            found = detector.eval()(images)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in terms.values())
    assert all(one["boxes"].dtype == one["scores"].dtype == torch.float32 for one in found)


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers publishes one: D-FINE nano for COCO's classes, batch norms of the backbone frozen."""
    module = made(classes=len(COCO))
    module.config.freeze_backbone_batch_norms = True
    folder = tmp_path_factory.mktemp("hub")
    theirs(module).save_pretrained(folder)
    return folder


def test_a_file_as_the_hub_has_it_is_read_as_transformers_reads_it(hub: Path) -> None:
    wanted = DFineForObjectDetection.from_pretrained(hub, local_files_only=True).state_dict()
    detector = build_detector("dfine_nano", COCO, weights=hub / "model.safetensors")
    for key, value in detector.module.state_dict().items():
        assert torch.equal(value, wanted[key]), key


def test_rows_of_known_classes_start_another_class_table(hub: Path) -> None:
    wanted = DFineForObjectDetection.from_pretrained(hub, local_files_only=True).state_dict()
    names = ["teapot", "Traffic_Light", "dog"]
    state = build_detector("dfine_nano", names, weights=hub / "model.safetensors").module.state_dict()
    layers = [key for key in state if "class_embed" in key or "enc_score_head" in key]
    assert len(layers) == 3 * 2 + 2 + 1  # weight and bias of every layer's and the encoder's, and denoising
    for key in layers:
        for row, name in ((1, "traffic light"), (2, "dog")):
            assert torch.equal(state[key][row], wanted[key][COCO.index(name)]), key
        if not key.endswith("bias"):
            assert not any(torch.equal(state[key][0], row) for row in wanted[key]), key
    key = "model.denoising_class_embed.weight"
    assert torch.equal(state[key][3], wanted[key][80])  # no class at all


def test_weights_for_other_classes_than_coco_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {key: value.clone() for key, value in made().state_dict().items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"do not fit dfine_nano: .* has the shape"):
        build_detector("dfine_nano", ["a"], weights=tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not a detector saved by odkit"):
        build_detector("starter", ["a"], weights=tmp_path / "model.safetensors")
    (tmp_path / "model.pth").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"takes weights from a \.safetensors file saved by odkit, or as https"
    ):
        build_detector("dfine_nano", ["a"], weights=tmp_path / "model.pth")


def test_pre_trained_norms_of_the_backbone_are_frozen_and_random_ones_trained(
    hub: Path, tmp_path: Path
) -> None:
    fresh = build_detector("dfine_nano", ["dog"], weights="random", image_size=96)
    tuned = build_detector("dfine_nano", ["dog"], weights=hub / "model.safetensors", image_size=96)
    assert not [m for m in fresh.modules() if isinstance(m, FrozenBatchNorm2d)]
    for detector, kind in ((fresh, nn.BatchNorm2d), (tuned, FrozenBatchNorm2d)):
        again = load_detector(save_detector(detector, tmp_path / "saved.safetensors"), device="cpu")
        image = [torch.rand(3, 96, 96)]
        with torch.inference_mode():
            (one,), (other,) = detector.eval()(image), again(image)
        assert torch.equal(one["boxes"], other["boxes"])
        for some in (detector, again):
            norms = [m for m in some.module.model.backbone.modules() if "BatchNorm" in type(m).__name__]
            assert {type(norm) for norm in norms} == {kind}
            assert any(isinstance(m, nn.BatchNorm2d) for m in some.module.model.encoder.modules())


def test_no_file_is_taken_that_cannot_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    entry = CATALOGUE["dfine_large"]
    (folder / entry.file_name).write_bytes(b"who knows")  # not even if it is there
    with pytest.raises(WeightsUnavailableError, match=r"no hash of dfine_large's .* weights=\"PATH\""):
        find_weights("dfine_large")
    # of others all known digits count, not those in the file's name alone
    own = hashlib.sha256(b"published").hexdigest()
    for digits, sound in ((own, True), (own[:8] + "0" * 56, False)):
        weights = entry.weights._replace(file_name=f"some-{own[:8]}.safetensors", sha256=digits)
        monkeypatch.setitem(CATALOGUE, "dfine_large", dataclasses.replace(entry, weights=weights))
        (folder / weights.file_name).write_bytes(b"published")
        if sound:
            assert find_weights("dfine_large") == folder / weights.file_name
        else:
            with pytest.raises(WeightsUnavailableError, match="damaged"):
                find_weights("dfine_large")


# -- without transformers ----------------------------------------------------------------------------------------------


def test_without_transformers_all_else_works() -> None:
    script = (
        "import sys; sys.modules['transformers'] = None\n"
        "import odkit as od\n"
        "assert len(od.build_detector('starter', ['a']).class_names) == 1\n"
        "assert 'dfine_nano' in [row['name'] for row in od.list_detectors()]\n"
        "try:\n"
        "    od.build_detector('dfine_nano', ['a'], weights='random')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 'pip install "odkit[dfine]"' in done.stdout


def test_an_older_transformers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dfine, "version", lambda _: "5.23.9")
    with pytest.raises(InputError, match=r"5\.24 or newer, which is 5\.23\.9 here"):
        build_detector("dfine_nano", ["a"], weights="random")


def test_the_list_of_detectors_needs_neither_transformers_nor_a_compiler() -> None:
    code = (
        "import sys, odkit.cli; odkit.cli.main(['detectors'])\n"
        "assert not {'transformers', 'torch._dynamo', 'torch._dynamo.utils'} & set(sys.modules)\n"
        "from torchvision.ops import roi_align, nms\n"
        "import inspect; inspect.getsource(sys.modules['torchvision'])\n"
        # what stood in for the compiler asks it
        "from torchvision.ops.roi_align import is_compile_supported as asked\n"
        "told = asked('cpu'); import torch; assert told == torch._dynamo.utils.is_compile_supported('cpu')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_whoever_imports_the_compiler_meanwhile_has_the_compiler() -> None:
    """As another thread might, at the moment at which something stands in for it."""
    code = (
        "import sys, odkit.detection\n"
        "met = []\n"
        "def imports(event, args):\n"
        "    if event == 'exec' and args[0].co_filename.endswith('roi_align.py') and not met:\n"
        "        met.append(type(sys.modules['torch._dynamo.utils']).__name__)\n"
        "        import torch._dynamo\n"
        "sys.addaudithook(imports)\n"
        "import torchvision, torch._dynamo.utils\n"
        "assert met == ['_StandIn'], met\n"
        "for name, module in sys.modules.items():\n"
        "    stands = [k for k, v in vars(module).items() if type(v).__name__ == '_StandIn']\n"
        "    assert not stands or name.startswith('torch._dynamo'), (name, stands)\n"
        "assert type(sys.modules['torch._dynamo.utils']).__name__ == 'module'\n"
        "assert torch._dynamo.utils is sys.modules['torch._dynamo.utils']\n"
        "compiled = torch.compile(lambda x: x + 1, backend='eager')\n"
        "assert compiled(torch.ones(1)).item() == 2\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
