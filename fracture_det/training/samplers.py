"""Sampling of training images: which are drawn, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler

from fracture_det.training.datasets import CatalogError


def build_sampler(
    dataset_dicts: Sequence[dict[str, Any]], cfg: CfgNode, *, seed: int
) -> TrainingSampler | RepeatFactorTrainingSampler:
    """Return an infinite sampler of indices into `dataset_dicts`: shuffled, or with DATALOADER.FRACTURED_SHARE.

    With the share, fractured and healthy images are repeated so that this share of what is drawn is fractured.
    Raises CatalogError when the share is set and the data have no fractured or no healthy image.
    """
    share = cfg.DATALOADER.FRACTURED_SHARE
    if not share:
        return TrainingSampler(len(dataset_dicts), seed=seed)
    fractured = torch.tensor([bool(item["annotations"]) for item in dataset_dicts])
    n_fractured, n_healthy = int(fractured.sum()), int((~fractured).sum())
    if not n_fractured or not n_healthy:
        raise CatalogError(
            f"DATALOADER.FRACTURED_SHARE {share}: the training data have {n_fractured} fractured "
            f"and {n_healthy} healthy images; set it to 0"
        )
    n_images = len(dataset_dicts)
    repeat_factors = torch.where(fractured, share * n_images / n_fractured, (1 - share) * n_images / n_healthy)
    return RepeatFactorTrainingSampler(repeat_factors, seed=seed)
