"""Forward passes of torchvision's modules, whatever their kind: losses in training, detections otherwise.

Convolutions may run in bf16 or fp16; everything that has pixels is float32. torchvision's modules are taken apart here:
their own `forward` checks and copies image by image, and under autocast gives anchors, boxes and scores the number
format of the convolutions, which in bf16 has steps of 4 pixels above 512. What comes out is the same.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.models.detection.ssd import SSD

from odkit.detection.batch import Inputs
from odkit.detection.decoding import (
    decode_distances,
    decode_offsets,
    dense_candidates,
    dense_detections,
    fixed_detections,
    ssd_candidates,
    ssd_detections,
)
from odkit.detection.fixed import Fixed, best_apart, limits_of
from odkit.detection.losses import fcos_losses, retinanet_losses, ssd_losses


def losses(module: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Losses of a batch by term, float32 scalars: those of the module's own forward pass in training."""
    features = _features(module, inputs)
    if isinstance(module, FasterRCNN):
        return _two_stage_losses(module, inputs, features)
    outputs, anchors, counts = _dense(module, inputs.images, list(features.values()))
    with _float32(inputs):
        if isinstance(module, FCOS):
            return fcos_losses(module, inputs, outputs, anchors, counts)
        if isinstance(module, RetinaNet):
            return retinanet_losses(module, inputs, outputs, anchors)
        assert isinstance(module, SSD)
        return ssd_losses(module, inputs, outputs, anchors)


def detections(module: nn.Module, inputs: Inputs) -> list[dict[str, Tensor]]:
    """What is found in each image: those of the module's own forward pass in evaluation.

    Returns:
        One dict an image: `boxes` float32 [n, 4] xyxy in pixels, `scores` float32 [n] descending, `labels` int64 [n]
        as the module counts them.
    """
    features = _features(module, inputs)
    if isinstance(module, FasterRCNN):
        return _two_stage_detections(module, inputs, features)
    outputs, anchors, counts = _dense(module, inputs.images, list(features.values()))
    with _float32(inputs):
        if isinstance(module, SSD):
            return ssd_detections(module, inputs, outputs, anchors)
        fcos = isinstance(module, FCOS)
        decode = decode_distances if fcos else partial(decode_offsets, module.box_coder)
        return dense_detections(module, inputs, outputs, anchors, counts, decode=decode)


def fixed(module: Any, images: Tensor, sizes: Tensor) -> Fixed:
    """The same in fixed shapes (`Family.fixed`)."""
    features: OrderedDict[str, Tensor] = module.backbone(images)
    if isinstance(module, FasterRCNN):
        return _two_stage_fixed(module, images, sizes, features)
    outputs, anchors, counts = _dense(module, images, list(features.values()))
    if isinstance(module, SSD):
        candidates, fcos = ssd_candidates(module, outputs), False
    else:
        candidates, fcos = dense_candidates(module, outputs, counts), isinstance(module, FCOS)
    decode = decode_distances if fcos else partial(decode_offsets, module.box_coder)
    return fixed_detections(module, outputs, anchors, candidates, sizes, decode)


def _features(module: Any, inputs: Inputs) -> OrderedDict[str, Tensor]:
    """The backbone's feature maps [B, C, h, w] by level."""
    maps: OrderedDict[str, Tensor] = module.backbone(inputs.images)
    return maps


def _float32(inputs: Inputs) -> torch.autocast:
    return torch.autocast(inputs.images.device.type, enabled=False)


# -- one stage -------------------------------------------------------------------------------------------------------


def _dense(
    module: Any, images: Tensor, features: list[Tensor]
) -> tuple[dict[str, Tensor], Tensor, list[int]]:
    """The head's outputs [B, A, ...], the anchors [A, 4], and how many of them each level has."""
    outputs = {name: output.float() for name, output in module.head(features).items()}
    cells = [feature.shape[-2] * feature.shape[-1] for feature in features]
    per_cell = module.anchor_generator.num_anchors_per_location()
    counts = [number * each for number, each in zip(cells, per_cell, strict=True)]
    return outputs, _anchors(module.anchor_generator, images, features), counts


def _anchors(generator: nn.Module, images: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Anchors of one image, float32 [A, 4] xyxy in pixels; all images of a batch have the same.

    The generators look at nothing but the feature maps' shape, number format and device.
    """
    # SSD's boxes are made on the host whatever the device, and would be uploaded waiting for it
    at = "cpu" if isinstance(generator, DefaultBoxGenerator) else images.device
    shapes = [torch.empty(1, device=at).expand(feature.shape[-2:]) for feature in features]
    image = torch.empty(1, device=at).expand(images.shape)
    (anchors,) = generator(ImageList(image, [tuple(images.shape[-2:])]), shapes)
    on_device: Tensor = anchors.to(images.device, non_blocking=True)
    return on_device


# -- two stages --------------------------------------------------------------------------------------------------------


def _two_stage_losses(
    module: FasterRCNN, inputs: Inputs, features: OrderedDict[str, Tensor]
) -> dict[str, Tensor]:
    rpn, heads = module.rpn, module.roi_heads
    objectness, codes, anchors, proposals = _proposals(module, inputs, features)
    with _float32(inputs):
        targets = _targets(inputs)
        labels, matched = rpn.assign_targets_to_anchors(anchors, targets)
        wanted = rpn.box_coder.encode(matched, anchors)
        objectness_loss, rpn_box_loss = rpn.compute_loss(objectness, codes, labels, wanted)
        proposals, _, labels, wanted = heads.select_training_samples(proposals, targets)
    logits, codes = _second_stage(module, inputs, features, proposals)
    with _float32(inputs):
        classifier_loss, box_loss = fastrcnn_loss(logits, codes, labels, wanted)
    return {
        "loss_classifier": classifier_loss,
        "loss_box_reg": box_loss,
        "loss_objectness": objectness_loss,
        "loss_rpn_box_reg": rpn_box_loss,
    }


def _two_stage_detections(
    module: FasterRCNN, inputs: Inputs, features: OrderedDict[str, Tensor]
) -> list[dict[str, Tensor]]:
    *_, proposals = _proposals(module, inputs, features)
    logits, codes = _second_stage(module, inputs, features, proposals)
    with _float32(inputs):
        found = module.roi_heads.postprocess_detections(logits, codes, proposals, inputs.sizes)
    return [
        {"boxes": boxes, "scores": scores, "labels": labels}
        for boxes, scores, labels in zip(*found, strict=True)
    ]


def _proposals(
    module: FasterRCNN, inputs: Inputs, features: OrderedDict[str, Tensor]
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """The first stage: objectness [B * A, 1], box codes [B * A, 4], anchors and proposals of each image."""
    rpn, maps = module.rpn, list(features.values())
    raw_objectness, raw_codes = rpn.head(maps)
    with _float32(inputs):
        counts = [level[0].numel() for level in raw_objectness]
        objectness, codes = concat_box_prediction_layers(
            [level.float() for level in raw_objectness], [level.float() for level in raw_codes]
        )
        anchors = [_anchors(rpn.anchor_generator, inputs.images, maps)] * len(inputs.sizes)
        boxes = rpn.box_coder.decode(codes.detach(), anchors).view(len(anchors), -1, 4)
        proposals, _ = rpn.filter_proposals(boxes, objectness, inputs.sizes, counts)
    return objectness, codes, anchors, proposals


def _two_stage_fixed(
    module: FasterRCNN, images: Tensor, sizes: Tensor, features: OrderedDict[str, Tensor]
) -> Fixed:
    rpn, heads, maps = module.rpn, module.roi_heads, list(features.values())
    objectness, codes = rpn.head(maps)
    scores, groups, places = [], [], []
    first = 0
    for level, one in enumerate(objectness):
        values = one.float().permute(0, 2, 3, 1).flatten(1)  # in the order of the anchors
        best = values.topk(torch.sym_min(rpn.pre_nms_top_n(), values.shape[1]), 1)
        scores.append(best.values.sigmoid())
        groups.append(torch.full_like(best.indices, level))
        places.append(best.indices + first)
        first = first + values.shape[1]
    per_place = rpn.anchor_generator.num_anchors_per_location()
    rows = [
        one.float().unflatten(1, (number, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        for one, number in zip(codes, per_place, strict=True)
    ]
    place, limits = torch.cat(places, 1), limits_of(sizes)
    chosen = torch.cat(rows, 1).gather(1, place[..., None].expand(-1, -1, 4))
    boxes = decode_offsets(rpn.box_coder, chosen, _anchors(rpn.anchor_generator, images, maps)[place])
    boxes = boxes.clamp(min=0).minimum(limits)
    sure = torch.cat(scores, 1)
    proposals = best_apart(
        boxes,
        _without_small(boxes, sure.masked_fill(sure < rpn.score_thresh, -1), rpn.min_size),
        torch.cat(groups, 1),
        torch.zeros_like(place),
        overlap=rpn.nms_thresh,
        least=-0.5,  # a share, or -1
        most=rpn.post_nms_top_n(),
    )

    align = heads.box_roi_pool
    used = [one for name, one in features.items() if name in align.featmap_names]
    flat = proposals.boxes.flatten(0, 1)
    levels = align.map_levels([flat]) if len(used) > 1 else torch.zeros_like(proposals.labels.flatten())
    pooled = torch.ops.odkit.pool(
        used, proposals.boxes, levels, align.scales, align.output_size[0], align.sampling_ratio
    )
    logits, codes = heads.box_predictor(heads.box_head(pooled))
    shares = logits.float().softmax(-1).unflatten(0, proposals.labels.shape)[..., 1:]  # [B, R, classes]
    codes = codes.float().unflatten(0, proposals.labels.shape).unflatten(2, (-1, 4))[:, :, 1:]
    boxes = decode_offsets(heads.box_coder, codes, proposals.boxes[:, :, None])
    boxes = boxes.clamp(min=0).minimum(limits[:, None]).flatten(1, 2)
    shares = shares.masked_fill(proposals.labels[..., None] < 0, -1)
    labels = torch.arange(1, shares.shape[2] + 1, device=images.device).expand(shares.shape).flatten(1)
    return best_apart(
        boxes,
        _without_small(boxes, shares.flatten(1), 1e-2),  # torchvision's own number
        labels,
        labels,
        overlap=heads.nms_thresh,
        least=heads.score_thresh,
        most=heads.detections_per_img,
    )


def _without_small(boxes: Tensor, scores: Tensor, side: float) -> Tensor:
    """The scores, -1 where a box has a side of less than `side` pixels."""
    small = (boxes[..., 2:] - boxes[..., :2] < side).any(-1)
    return scores.masked_fill(small, -1)


def _second_stage(
    module: FasterRCNN, inputs: Inputs, features: OrderedDict[str, Tensor], proposals: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Class logits and box codes of the proposals, float32."""
    heads = module.roi_heads
    pooled = heads.box_roi_pool(features, proposals, inputs.sizes)
    logits, codes = heads.box_predictor(heads.box_head(pooled))
    return logits.float(), codes.float()


def _targets(inputs: Inputs) -> list[dict[str, Tensor]]:
    """Boxes and labels image by image, without padding."""
    counts = (inputs.labels >= 0).sum(1).tolist()
    return [
        {"boxes": boxes[:count], "labels": labels[:count]}
        for boxes, labels, count in zip(inputs.boxes, inputs.labels, counts, strict=True)
    ]
