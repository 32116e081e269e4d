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
from odkit.detection.decoding import decode_distances, decode_offsets, dense_detections, ssd_detections
from odkit.detection.losses import fcos_losses, retinanet_losses, ssd_losses


def losses(module: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Losses of a batch by term, float32 scalars: those of the module's own forward pass in training."""
    features = _features(module, inputs)
    if isinstance(module, FasterRCNN):
        return _two_stage_losses(module, inputs, features)
    outputs, anchors, counts = _dense(module, inputs, list(features.values()))
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
    outputs, anchors, counts = _dense(module, inputs, list(features.values()))
    with _float32(inputs):
        if isinstance(module, SSD):
            return ssd_detections(module, inputs, outputs, anchors)
        fcos = isinstance(module, FCOS)
        decode = decode_distances if fcos else partial(decode_offsets, module.box_coder)
        return dense_detections(module, inputs, outputs, anchors, counts, decode=decode)


def _features(module: Any, inputs: Inputs) -> OrderedDict[str, Tensor]:
    """The backbone's feature maps [B, C, h, w] by level."""
    maps: OrderedDict[str, Tensor] = module.backbone(inputs.images)
    return maps


def _float32(inputs: Inputs) -> torch.autocast:
    return torch.autocast(inputs.images.device.type, enabled=False)


# -- one stage -------------------------------------------------------------------------------------------------------


def _dense(
    module: Any, inputs: Inputs, features: list[Tensor]
) -> tuple[dict[str, Tensor], Tensor, list[int]]:
    """The head's outputs [B, A, ...], the anchors [A, 4], and how many of them each level has."""
    outputs = {name: output.float() for name, output in module.head(features).items()}
    cells = [feature.shape[-2] * feature.shape[-1] for feature in features]
    per_cell = module.anchor_generator.num_anchors_per_location()
    counts = [number * each for number, each in zip(cells, per_cell, strict=True)]
    return outputs, _anchors(module.anchor_generator, inputs.images, features), counts


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
