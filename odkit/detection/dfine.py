"""D-FINE (Peng et al., 2024, arXiv:2410.13842), a DETR, by `transformers`, which is imported when one is built.

Built from what is written down here: nothing is asked of a hub, and none of its code runs. The backbone and the encoder
may compute in bf16 or fp16; the decoder, whose every layer moves boxes on, and all losses are float32.

Two things are computed otherwise than in `DFineForObjectDetection.forward` of transformers 5.24:

- Its losses pair what each layer says of classes and boxes with the *next* layer's distributions over the box sides,
  and leave the last layers' classes and boxes out: the decoder's first prediction, before any refinement, stands in
  two of four lists alone. `_layers` groups them as the authors' own code does (Peterande/D-FINE, `dfine_decoder.py`).
- There are as many queries as there are places to look at, where these are fewer than 300: small images can be used.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from odkit.detection.batch import Inputs
from odkit.detection.family import ClassRows, InputFormat, Published
from odkit.detection.fixed import Fixed, limits_of
from odkit.system import InputError

BACKBONE = "model.backbone.model"
STAGE = re.compile(r"model\.backbone\.model\.(embedder|encoder\.stages\.\d+)\.")
LAYERS = ("model.backbone", "model.encoder_input_proj", "model.encoder")
EMBEDDER = f"{BACKBONE}.embedder."  # the backbone's first layers

NEEDED = (
    5,
    24,
)  # the first whose main loss leaves the denoising queries out (huggingface/transformers, PR 48528)
QUERIES = 300
MOST = 100  # detections an image, as COCO counts them
TERMS = ("loss_vfl", "loss_bbox", "loss_giou", "loss_fgl", "loss_ddf", "loss_denoising")

# HGNetV2 in three sizes: channels of the stem's and the stages' outputs, blocks of each stage, layers of each block.
_B0: dict[str, Any] = {
    "stem_channels": [3, 16, 16],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3] * 4,
    "use_learnable_affine_block": True,
}
_B2: dict[str, Any] = {
    "stem_channels": [3, 24, 32],
    "stage_mid_channels": [32, 64, 128, 256],
    "stage_out_channels": [96, 384, 768, 1536],
    "stage_num_blocks": [1, 1, 3, 1],
    "stage_numb_of_layers": [4] * 4,
    "use_learnable_affine_block": True,
}
_B4: dict[str, Any] = {
    "stem_channels": [3, 32, 48],
    "stage_mid_channels": [48, 96, 192, 384],
    "stage_out_channels": [128, 512, 1024, 2048],
    "stage_num_blocks": [1, 1, 3, 1],
    "stage_numb_of_layers": [6] * 4,
}
# By size: the backbone, how many of its last stages are used, and what differs from transformers' defaults.
_SIZES: dict[str, tuple[dict[str, Any], int, dict[str, Any]]] = {
    "nano": (
        _B0,
        2,
        {
            "encoder_hidden_dim": 128,
            "encoder_ffn_dim": 512,
            "encode_proj_layers": [1],
            "d_model": 128,
            "decoder_ffn_dim": 512,
            "decoder_layers": 3,
            "decoder_n_points": [6, 6],
            "depth_mult": 0.5,
            "hidden_expansion": 0.34,
        },
    ),
    "small": (_B0, 3, {"decoder_layers": 3, "depth_mult": 0.34, "hidden_expansion": 0.5}),
    "medium": (_B2, 3, {"decoder_layers": 4, "depth_mult": 0.67}),
    "large": (_B4, 3, {"decoder_layers": 6}),
}


def published(size: str, *, sha256: str, ap: float, parameters: int, class_names: Sequence[str]) -> Published:
    """The weights of a size, trained on COCO: the authors' own, in transformers' format.

    Args:
        size: "nano", "small", "medium" or "large".
        sha256: As in `Published`.
        ap: On COCO val2017, by the authors, 0 to 100.
        parameters: How many there are.
        class_names: COCO's 80, in its order.
    """
    digits = f"-{sha256[:8]}" if sha256 else ""
    return Published(
        f"https://huggingface.co/ustc-community/dfine-{size}-coco/resolve/main/model.safetensors",
        f"dfine_{size}_coco{digits}.safetensors",
        sha256,
        {
            "categories": list(class_names),
            "num_params": parameters,
            "_metrics": {"COCO-val2017": {"box_map": ap}},
        },
    )


# -- building ----------------------------------------------------------------------------------------------------------


def dfine(size: str) -> Callable[[int], nn.Module]:
    """An entry's `build`: D-FINE in a size, for a number of outputs, from random weights."""
    return partial(_build, size)


def _build(size: str, outputs: int) -> nn.Module:
    _require_transformers()
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

    layers, levels, decoder = _SIZES[size]
    channels = layers["stage_out_channels"]
    width = decoder.get("d_model", 256)
    config = DFineConfig(
        backbone_config=HGNetV2Config(
            **layers,
            hidden_sizes=channels,
            stage_in_channels=[layers["stem_channels"][-1], *channels[:-1]],
            out_indices=[1, 2, 3, 4][-levels:],
        ),
        **{"decoder_n_points": [3, 6, 3], "num_queries": QUERIES, **decoder},
        feat_strides=[8, 16, 32][-levels:],
        num_feature_levels=levels,
        encoder_in_channels=channels[-levels:],
        decoder_in_channels=[width] * levels,
        freeze_backbone_batch_norms=False,  # `build_detector` does, where they are pre-trained
        num_labels=outputs,
    )
    module: nn.Module = DFineForObjectDetection(config)
    # the heads that it computes with are the decoder's; these are the same ones under a second name
    del module.class_embed, module.bbox_embed
    _start(module)
    return module


@torch.no_grad()
def _start(module: Any) -> None:
    """Random weights as the authors' code draws them; transformers draws most of them several times smaller."""
    own = (
        "sampling_offsets",
        "attention_weights",
        "gate",
        "reg_conf.layers.1",
    )  # these start as the authors' do
    for name, layer in module.named_modules():
        if type(layer) not in (nn.Conv2d, nn.Linear) or name.endswith(own):
            continue
        layer.reset_parameters()
        if name.endswith(("q_proj", "k_proj", "v_proj")):
            nn.init.xavier_uniform_(layer.weight, gain=0.5**0.5)  # as three parts of one layer
            nn.init.zeros_(layer.bias)
    model, decoder = module.model, module.model.decoder
    for layer in (model.enc_score_head, *decoder.class_embed):
        nn.init.constant_(layer.bias, math.log(0.01 / 0.99))  # one place in a hundred has an object
    for head in (model.enc_bbox_head, decoder.pre_bbox_head, *decoder.bbox_embed):
        nn.init.zeros_(head.layers[-1].weight)
        nn.init.zeros_(head.layers[-1].bias)
    for layer in (model.enc_output[0], *decoder.query_pos_head.layers):
        nn.init.xavier_uniform_(layer.weight)
    nn.init.normal_(model.denoising_class_embed.weight[:-1])


def _require_transformers() -> None:
    needed = ".".join(map(str, NEEDED))
    try:
        found = version("transformers")
        import transformers  # noqa: F401
    except (ImportError, PackageNotFoundError) as error:
        said = f"is not here ({error})"
    else:
        if tuple(map(int, re.findall(r"\d+", found)[:2])) >= NEEDED:
            return
        said = f"is {found} here"
    raise InputError(
        f'D-FINE needs the package transformers, {needed} or newer, which {said}: pip install "odkit[dfine]"'
    )


# -- what a family answers -------------------------------------------------------------------------------------------


def input_format(module: Any) -> InputFormat:
    """Colours as they are, 0 to 1; the coarsest of the feature maps has a stride of 32 pixels."""
    return InputFormat((0.0,) * 3, (1.0,) * 3, 32)


def features(module: Any, images: Tensor) -> list[Tensor]:
    """The backbone's feature maps [B, C, h, w], by level."""
    return list(module.model.backbone.model(images).feature_maps)


def losses(module: Any, inputs: Inputs) -> dict[str, Tensor]:
    """Losses by term (`TERMS`), float32 scalars, each the sum over all layers; those of denoising are one term."""
    targets = _targets(inputs)
    found = _forward(module, inputs.images, targets)
    with _float32(inputs.images):
        from transformers.loss.loss_d_fine import DFineLoss

        criterion = DFineLoss(module.config).to(inputs.images.device)
        # without a box there are no denoising queries; a process must have a gradient for their weights all the same
        terms = dict.fromkeys(TERMS, module.model.denoising_class_embed.weight.sum() * 0)
        outputs = (found.intermediate_logits, found.intermediate_reference_points, found.enc_topk_bboxes)
        if not all(bool(output.isfinite().all()) for output in outputs):
            # its matcher raises an error for boxes that are not finite; what is not finite is the trainer's to handle
            return {name: term + outputs[0].sum() * torch.nan for name, term in terms.items()}
        for name, value in criterion(_grouped(found), targets).items():
            term = TERMS[-1] if "_dn_" in name else name.split("_aux_")[0]
            terms[term] = terms[term] + value
        return terms


def detections(module: Any, inputs: Inputs) -> list[dict[str, Tensor]]:
    """The best of all queries and classes in each image (`Family.detections`): nothing has to be suppressed."""
    sizes = torch.tensor([[width, height] for height, width in inputs.sizes])
    columns = fixed(module, inputs.images, sizes.to(inputs.images.device, non_blocking=True))
    return [
        {"boxes": some, "scores": scores, "labels": labels}
        for some, scores, labels in zip(*columns, strict=True)
    ]


def fixed(module: Any, images: Tensor, sizes: Tensor) -> Fixed:
    """The same in fixed shapes (`Family.fixed`)."""
    found = _forward(module, images)
    with _float32(images):
        logits, boxes = found.intermediate_logits[:, -1], found.intermediate_reference_points[:, -1]
        classes = logits.shape[2]
        best = logits.sigmoid().flatten(1).topk(min(MOST, logits.shape[1] * classes), 1)
        boxes = boxes.gather(1, (best.indices // classes)[..., None].expand(-1, -1, 4))
        height, width = images.shape[-2:]
        x, y, w, h = boxes.unbind(2)
        corners = torch.stack(
            ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height), 2
        )
        return Fixed(corners.clamp(min=0).minimum(limits_of(sizes)), best.values, best.indices % classes)


def carry_rows(key: str, given: Tensor, own: Tensor, rows: ClassRows) -> Tensor | None:
    """A row a class; denoising has one more, the last, for places without a box."""
    more = int(key.endswith("denoising_class_embed.weight"))
    if given.shape != (rows.old + more, *own.shape[1:]) or len(own) != rows.new + more:
        return None
    carried = own.clone()
    for to, origin in [*rows.pairs, (rows.new, rows.old)][: len(rows.pairs) + more]:
        carried[to] = given[origin]
    return carried


# Names in published files and in transformers' modules of today (its `conversion_mapping.py`).
_RENAMED = (
    (r"out_proj", "o_proj"),
    (r"layers\.(\d+)\.fc1", r"layers.\1.mlp.layers.0"),
    (r"layers\.(\d+)\.fc2", r"layers.\1.mlp.layers.1"),
    (r"encoder\.encoder\.(\d+)\.layers", r"encoder.aifi.\1.layers"),
    (r"^(class|bbox)_embed", r"model.decoder.\1_embed"),  # two names for the same; a file has either or both
)


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a file as the hub publishes it (`DFineForObjectDetection`), under a module's names."""
    renamed = {}
    for key, value in state.items():
        for pattern, name in _RENAMED:
            key = re.sub(pattern, name, key)
        renamed[key] = value
    return renamed


# -- forward passes --------------------------------------------------------------------------------------------------


def _float32(images: Tensor) -> torch.autocast:
    return torch.autocast(images.device.type, enabled=False)


def _forward(module: Any, images: Tensor, targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
    """What `DFineModel` puts out; the decoder is given the feature maps in float32, whatever they are computed in."""
    model = module.model
    projected = [
        project(one) for project, one in zip(model.encoder_input_proj, features(module, images), strict=True)
    ]
    maps = [one.float() for one in model.encoder(projected).last_hidden_state]
    model.config.num_queries = min(QUERIES, sum(one[0, 0].numel() for one in maps))
    with _float32(images), _lengths_of_graphs() if torch.compiler.is_exporting() else nullcontext():
        # instead of the images, which it looks at for their number and their device
        return model(None, inputs_embeds=images, encoder_outputs=(maps,), labels=targets)


@contextmanager
def _lengths_of_graphs() -> Iterator[None]:
    """Inside, transformers' `len(tensor)` may be a symbol: as a number it would make a graph of one batch size alone.

    `DFineModel.forward` asks for a batch's length, and has no use for it in models as these are.
    """
    from transformers.models.d_fine import modeling_d_fine

    def length(of: Any) -> Any:
        return of.shape[0] if isinstance(of, Tensor) else len(of)

    code: Any = modeling_d_fine
    code.len = length  # found before Python's
    try:
        yield
    finally:
        del code.len


def _targets(inputs: Inputs) -> list[dict[str, Tensor]]:
    """Labels and boxes image by image, the boxes as centre and sides in shares of the (padded) image's sides."""
    height, width = inputs.images.shape[-2:]
    x1, y1, x2, y2 = inputs.boxes.unbind(2)
    boxes = torch.stack(
        ((x1 + x2) / (2 * width), (y1 + y2) / (2 * height), (x2 - x1) / width, (y2 - y1) / height), 2
    )
    counts = (inputs.labels >= 0).sum(1).tolist()
    return [
        {"class_labels": labels[:count], "boxes": some[:count]}
        for labels, some, count in zip(inputs.labels, boxes, counts, strict=True)
    ]


def _grouped(found: Any) -> dict[str, Any]:
    """The predictions that losses are taken of, layer by layer, as `DFineLoss` wants them."""
    stacks = [
        found.intermediate_logits,  # [B, 1 + layers, queries, classes], the first without refinement
        found.intermediate_reference_points.clamp(0, 1),  # [B, 1 + layers, queries, 4], centre and sides
        found.intermediate_predicted_corners,  # [B, layers, queries, 4 * 33], distributions over the box sides
        found.initial_reference_points,  # [B, layers, queries, 4], the boxes that these refine
    ]
    denoising: dict[str, Any] = {}
    if found.denoising_meta_values is not None:
        split = found.denoising_meta_values["dn_num_split"]
        parts = [stack.split(split, 2) for stack in stacks]
        stacks = [own for _, own in parts]
        denoising = {
            "dn_auxiliary_outputs": _layers(*(noisy for noisy, _ in parts)),
            "denoising_meta_values": found.denoising_meta_values,
        }
    *layers, last = _layers(*stacks)
    proposed = {"logits": found.enc_topk_logits, "pred_boxes": found.enc_topk_bboxes.clamp(0, 1)}
    return {**last, "auxiliary_outputs": [*layers, proposed], **denoising}


def _layers(logits: Tensor, boxes: Tensor, corners: Tensor, starts: Tensor) -> list[dict[str, Tensor]]:
    """The prediction before any refinement, then each layer's; the last layer teaches the others."""
    teacher = {"teacher_corners": corners[:, -1], "teacher_logits": logits[:, -1]}
    first = {"logits": logits[:, 0], "pred_boxes": boxes[:, 0]}
    refined = zip(
        logits[:, 1:].unbind(1), boxes[:, 1:].unbind(1), corners.unbind(1), starts.unbind(1), strict=True
    )
    return [
        first,
        *(
            {"logits": a, "pred_boxes": b, "pred_corners": c, "ref_points": d, **teacher}
            for a, b, c, d in refined
        ),
    ]
