"""The optimizer of a configuration: Detectron2's SGD, or AdamW; the backbone may learn more slowly."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import Backbone
from detectron2.solver.build import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return SOLVER.OPTIMIZER over the trainable parameters of `model`, with the SOLVER keys of Detectron2.

    SOLVER.BACKBONE_MULTIPLIER scales the learning rate of the backbone, pyramid included where it is Detectron2's.
    """
    if cfg.SOLVER.OPTIMIZER == "SGD" and cfg.SOLVER.BACKBONE_MULTIPLIER == 1:
        return build_sgd(cfg, model)
    groups = _slow_down_backbone(
        get_default_optimizer_params(
            model,
            base_lr=cfg.SOLVER.BASE_LR,
            weight_decay=cfg.SOLVER.WEIGHT_DECAY,
            weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
            weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        ),
        model,
        cfg.SOLVER.BACKBONE_MULTIPLIER,
    )
    if cfg.SOLVER.OPTIMIZER == "AdamW":
        return maybe_add_gradient_clipping(cfg, torch.optim.AdamW)(groups, lr=cfg.SOLVER.BASE_LR)
    settings = {"momentum": cfg.SOLVER.MOMENTUM, "nesterov": cfg.SOLVER.NESTEROV}
    return maybe_add_gradient_clipping(cfg, torch.optim.SGD)(groups, lr=cfg.SOLVER.BASE_LR, **settings)


def _slow_down_backbone(
    groups: list[dict[str, Any]], model: torch.nn.Module, multiplier: float
) -> list[dict[str, Any]]:
    """Return the parameter groups with those of the backbone apart, at `multiplier` times their learning rate."""
    of_backbone = {
        id(parameter) for module in model.modules() if isinstance(module, Backbone) for parameter in module.parameters()
    }
    divided = []
    for group in groups:
        for inside, factor in ((False, 1.0), (True, multiplier)):
            members = [parameter for parameter in group["params"] if (id(parameter) in of_backbone) is inside]
            if members:
                divided.append({**group, "params": members, "lr": group["lr"] * factor})
    return divided
