"""Weights of several trainings as their mean: one network of the same size that holds where each of them does.

Trainings that share a start mostly lie in one basin of the loss, and the mean of their weights is often better than
either: Wortsman et al., "Model soups", ICML 2022, and "Robust fine-tuning of zero-shot models", CVPR 2022, for the mean
of a network and what it became on other data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from fracture_det.modeling.checkpoints import WeightsError, load_checkpoint


def average_weights(files: Sequence[Path], shares: Sequence[float]) -> dict[str, torch.Tensor]:
    """Return the weighted mean of each tensor of the files, float32; what is not floating point is of the first file.

    files: .pth or .safetensors of one architecture; shares: a weight above 0 for each, in any scale.
    Raises WeightsError for files that cannot be read, and for tensors that one has and another has not, or of another
    shape; ValueError for shares that are not one above 0 for each file.
    """
    if len(files) != len(shares) or len(files) < 2 or not all(0 < share < float("inf") for share in shares):
        raise ValueError(
            f"expected two or more files and a share above 0 for each, got {len(files)} and {list(shares)}"
        )
    mean: dict[str, torch.Tensor] = {}
    shapes: dict[str, torch.Size] = {}
    for file, share in zip(files, shares, strict=True):
        state = load_checkpoint(file)["model"]
        if not shapes:
            shapes = {key: value.shape for key, value in state.items()}
        _check_same(file, {key: value.shape for key, value in state.items()}, files[0], shapes)
        for key, value in state.items():
            if not value.is_floating_point():
                mean.setdefault(key, value)
                continue
            part = value.double() * (share / sum(shares))
            mean[key] = mean[key] + part if key in mean else part
    return {key: value.float().contiguous() if value.is_floating_point() else value for key, value in mean.items()}


def _check_same(file: Path, shapes: dict[str, torch.Size], first: Path, expected: dict[str, torch.Size]) -> None:
    for key in sorted(shapes.keys() ^ expected.keys()):
        raise WeightsError(f"{file if key in shapes else first}: has {key}, {first if key in shapes else file} has not")
    for key, shape in shapes.items():
        if shape != expected[key]:
            raise WeightsError(f"{file}: {key} is {list(shape)}, in {first} {list(expected[key])}")
