"""A head that tells the type of fracture of each box, on the features that its class and place are told from.

It reads them and changes nothing else: boxes and scores are those of the same network without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.structures import Instances
from torch import nn
from torch.nn import functional

STANDARD, TYPED = "StandardROIHeads", "TypedROIHeads"
# Of a network's state, all that is of the head.
TYPE_KEYS = ("roi_heads.type_predictor.weight", "roi_heads.type_predictor.bias")
# In the fields `gt_types` and `gt_image_types` of the truth.
UNKNOWN = -1


class TypedROIHeads(StandardROIHeads):
    """Detectron2's StandardROIHeads with a linear layer and a softmax over MODEL.TYPE_HEAD.NAMES for each box.

    In prediction, Instances have `pred_types` (N, T) float32, the probability of each type if the box is a fracture. In
    training, the truth may have `gt_types` (M,), an index into the names or UNKNOWN, and `gt_image_types` (M,), that
    of the radiograph as a whole, the same for all its boxes. Two losses follow; see `box_loss` and `image_loss`.
    """

    @configurable
    def __init__(
        self, *, type_predictor: nn.Linear, type_loss_weight: float, image_type_loss_weight: float, **others: Any
    ) -> None:
        super().__init__(**others)
        self.type_predictor = type_predictor
        self.type_loss_weight, self.image_type_loss_weight = type_loss_weight, image_type_loss_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Return the arguments of __init__."""
        arguments: dict[str, Any] = super().from_config(cfg, input_shape)
        shape = arguments["box_head"].output_shape
        predictor = nn.Linear(shape.channels * (shape.height or 1) * (shape.width or 1), len(cfg.MODEL.TYPE_HEAD.NAMES))
        nn.init.normal_(predictor.weight, std=0.01)  # as Detectron2's layer of the classes
        nn.init.zeros_(predictor.bias)
        return {
            **arguments,
            "type_predictor": predictor,
            "type_loss_weight": cfg.MODEL.TYPE_HEAD.LOSS_WEIGHT,
            "image_type_loss_weight": cfg.MODEL.TYPE_HEAD.IMAGE_LOSS_WEIGHT,
        }

    def _forward_box(self, features: Mapping[str, torch.Tensor], proposals: list[Instances]) -> Any:
        """Do what StandardROIHeads does, and tell types besides: more losses in training, `pred_types` otherwise."""
        maps = [features[name] for name in self.box_in_features]
        box_features = self.box_head(self.box_pooler(maps, [one.proposal_boxes for one in proposals]))
        predictions = self.box_predictor(box_features)
        logits = self.type_predictor(box_features.flatten(1)).float()
        if self.training:
            scores = predictions[0].detach().float().softmax(1)
            return {
                **self.box_predictor.losses(predictions, proposals),
                "loss_type": self.type_loss_weight * box_loss(logits, proposals, self.num_classes),
                "loss_image_type": self.image_type_loss_weight
                * image_loss(logits, scores, proposals, self.num_classes),
            }
        instances, kept = self.box_predictor.inference(predictions, proposals)
        of_each = logits.softmax(1).split([len(one) for one in proposals])
        for found, types, index in zip(instances, of_each, kept, strict=True):
            found.pred_types = types[index]
        return instances


def box_loss(logits: torch.Tensor, proposals: Sequence[Instances], n_classes: int) -> torch.Tensor:
    """Return the mean cross-entropy of the proposals (of logits (R, T)) that lie on a fracture of a known type.

    What is unknown costs nothing: without any known type the loss is 0, and still connected to `logits`.
    """
    truth = torch.cat([_truth(one, "gt_types", n_classes) for one in proposals])
    known = truth != UNKNOWN
    if not known.any():
        return logits.sum() * 0.0
    return functional.cross_entropy(logits[known], truth[known])


def image_loss(
    logits: torch.Tensor, scores: torch.Tensor, proposals: Sequence[Instances], n_classes: int
) -> torch.Tensor:
    """Return the mean over radiographs of a known type as a whole of -log of that type's pooled probability.

    Pooled as `Detections.image_types` does: the mean of the probabilities over its proposals on fractures, weighted by
    score. scores: (R, classes + 1) probabilities, which get no gradient of it. 0 where no such type is known.
    """
    sizes = [len(one) for one in proposals]
    losses = []
    for one, of_one, scores_of_one in zip(proposals, logits.split(sizes), scores.split(sizes), strict=True):
        truth = _truth(one, "gt_image_types", n_classes)
        rows = torch.nonzero(truth != UNKNOWN)[:, 0]
        if len(rows):
            weights = scores_of_one[rows, one.gt_classes[rows]].clamp(min=1e-6)
            pooled = (of_one[rows].softmax(1) * weights[:, None]).sum(0) / weights.sum()
            losses.append(-pooled[truth[rows[0]]].clamp(min=1e-6).log())
    return torch.stack(losses).mean() if losses else logits.sum() * 0.0


def _truth(proposals: Instances, field: str, n_classes: int) -> torch.Tensor:
    """Return a field (R,) of the truth of sampled proposals, UNKNOWN for background and where there is none."""
    unknown = torch.full_like(proposals.gt_classes, UNKNOWN)
    if not proposals.has(field):
        return unknown
    return torch.where(proposals.gt_classes < n_classes, proposals.get(field), unknown)


def register_type_head() -> None:
    """Register the head with Detectron2; calling it again changes nothing."""
    if TYPED not in ROI_HEADS_REGISTRY:
        ROI_HEADS_REGISTRY.register(TypedROIHeads)


def select_roi_heads(cfg: CfgNode) -> None:
    """Set MODEL.ROI_HEADS.NAME, in place, to the heads with or without types, as MODEL.TYPE_HEAD.NAMES says."""
    heads = cfg.MODEL.ROI_HEADS
    if heads.NAME in (STANDARD, TYPED):
        heads.NAME = TYPED if cfg.MODEL.TYPE_HEAD.NAMES else STANDARD


def freeze_all_but_types(model: nn.Module) -> None:
    """Let training change the type head alone, of a network without batch norms, which would learn in passing."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in TYPE_KEYS)
