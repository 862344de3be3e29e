"""A network that tells the type of fracture from a picture: an ImageNet backbone at two sizes, and one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import nn

from fracture_det.modeling.checkpoints import load_checkpoint, resolve_weights

# Trained on ImageNet alone: what a network computes after it was trained to find fractures tells their types worse.
BACKBONE, WEIGHTS = "tf_efficientnet_lite2", "package://efficientnet-lite2"
# The last blocks of strides 8 and 16, the middle and the last of stride 32.
BLOCKS = (2, 4, 5, 6)
# Grey values 0..255 as the ImageNet weights expect them.
MEAN, SCALE = 127.0, 128.0


class TypeFeatures(nn.Module):
    """Mean, maximum and standard deviation over the picture of each channel of some blocks of EfficientNet-Lite2.

    Input (N, 1, S, S) uint8 grey, S a multiple of 32. Output (N, D) float32. Raises WeightsError without the package
    that has the weights.
    """

    def __init__(self) -> None:
        super().__init__()
        network: Any = timm.create_model(BACKBONE)
        state = load_checkpoint(resolve_weights(WEIGHTS))["model"]
        keys = [key for key in network.state_dict() if not key.endswith("num_batches_tracked")]
        given = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
        network.load_state_dict(dict(zip(keys, given, strict=True)), strict=False)  # the counters alone are missing
        self.stem: nn.Module = network.conv_stem
        self.norm: nn.Module = network.bn1
        self.blocks = nn.ModuleList(list(network.blocks)[: BLOCKS[-1] + 1])
        self.eval().requires_grad_(False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the features (N, D) of pictures (N, 1, S, S) uint8."""
        scaled = (pictures.float() - MEAN) / SCALE
        x = self.norm(self.stem(scaled.expand(-1, 3, -1, -1)))
        pooled = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in BLOCKS:
                mean = x.mean((2, 3), keepdim=True)
                spread = (x - mean).pow(2).mean((2, 3)).sqrt()
                pooled += [mean.flatten(1), x.amax((2, 3)), spread]
        return torch.cat(pooled, dim=1)


class TypeNetwork(nn.Module):
    """Features of one picture at several sizes, a linear layer on all of them, and a softmax.

    weight (D, T), bias (T,): of the layer, on features as they are. Input: one (1, 1, S, S) uint8 grey for each size.
    Output (1, T) float32 probabilities.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, features: TypeFeatures, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float32))
        self.register_buffer("bias", torch.tensor(bias, dtype=torch.float32))
        self.eval()

    def forward(self, *pictures: torch.Tensor) -> torch.Tensor:
        """Return the probabilities (1, T) of the types."""
        of_sizes = torch.cat([self.features(picture) for picture in pictures], dim=1)
        return torch.softmax(of_sizes @ self.weight + self.bias, dim=1)


def features_of(network: TypeFeatures, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return the features of one picture, given at several sizes (S_i, S_i) uint8, joined: (D,)."""
    with torch.inference_mode():
        of_sizes = [network(torch.from_numpy(np.ascontiguousarray(one))[None, None]) for one in pictures]
    return torch.cat(of_sizes, dim=1)[0].numpy()
