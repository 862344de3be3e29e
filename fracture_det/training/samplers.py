"""Sampling of training images: which are drawn, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler

from fracture_det.training.datasets import CatalogError


def build_sampler(
    dataset_dicts: Sequence[dict[str, Any]], cfg: CfgNode, *, seed: int
) -> TrainingSampler | RepeatFactorTrainingSampler:
    """Return an infinite sampler of indices into `dataset_dicts`: shuffled, or by shares.

    With DATALOADER.FRACTURED_SHARE this share of what is drawn is fractured. With DATALOADER.SOURCE_WEIGHTS the
    sources, `source` in each dict (an index into DATASETS.TRAIN), are drawn in these proportions, among fractured and
    among healthy images alike; a source that has none of a kind leaves its part to the others.
    Raises CatalogError when the share is set and the data have no fractured or no healthy image.
    """
    share, weights = cfg.DATALOADER.FRACTURED_SHARE, cfg.DATALOADER.SOURCE_WEIGHTS
    if not share and not weights:
        return TrainingSampler(len(dataset_dicts), seed=seed)
    kinds = [bool(item["annotations"]) for item in dataset_dicts]
    n_fractured = sum(kinds)
    if share and not 0 < n_fractured < len(kinds):
        raise CatalogError(
            f"DATALOADER.FRACTURED_SHARE {share}: the training data have {n_fractured} fractured "
            f"and {len(kinds) - n_fractured} healthy images; set it to 0"
        )
    sources = [item["source"] for item in dataset_dicts] if weights else [0] * len(kinds)
    counts = Counter(zip(kinds, sources, strict=True))
    share_of = (
        {True: share, False: 1 - share} if share else {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
    )
    weight_of_all = {kind: sum(weights[source] for k, source in counts if k == kind) for kind in share_of if weights}
    factors = [
        len(kinds) * share_of[kind] * (weights[source] / weight_of_all[kind] if weights else 1) / counts[kind, source]
        for kind, source in zip(kinds, sources, strict=True)
    ]
    return RepeatFactorTrainingSampler(torch.tensor(factors), seed=seed)
