"""Structured pruning: removes whole channels of the backbone; what remains must be trained further."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch_pruning
from safetensors.torch import save_file

from fracture_det.export.half_precision import WEIGHTS_NAME
from fracture_det.export.verify import ExportError
from fracture_det.inference.checksums import write_checksums
from fracture_det.inference.detectron2 import CONFIG_FILE, D2Detector, find_weights
from fracture_det.modeling.architectures.base import Architecture
from fracture_det.modeling.backbones import fold_frozen_norms
from fracture_det.modeling.config import load_config

# Processors and INT8 kernels work on blocks of this many channels.
ROUND_TO = 8


def prune(target: str, out: Path, ratio: float, *, start: Path | None = None) -> str:
    """Write the detector in `target` (a folder or file) to the folder `out`, less `ratio` of its backbone's channels.

    Channels of least L2 norm are removed, and channels that are added to each other together (Fang et al. 2023,
    DepGraph). The pyramid keeps its width. The result holds initial weights for tools/train_net.py, with MODEL.PRUNED;
    it is not a usable detector. start: the folder in which its configuration names the weights, if `out` will be moved
    there. Returns a sentence on what is left of the backbone.

    Raises ExportError for a ratio outside 0..1 and for a backbone with other normalisation than frozen batch
    statistics, DetectorError when `target` is not a trained detector.
    """
    if not 0 < ratio < 1:
        raise ExportError(f"--prune: expected a share between 0 and 1, got {ratio}")
    source = D2Detector.open(target)
    model: Any = source.predictor.model
    if isinstance(model, Architecture):
        raise ExportError(f"{target}: only a Faster R-CNN can be pruned, this is {type(model).__name__}")
    fold_frozen_norms(model.backbone)
    if norms := sorted({type(part.norm).__name__ for part in model.backbone.modules() if getattr(part, "norm", None)}):
        raise ExportError(f"{target}: its convolutions hold {', '.join(norms)}; only FrozenBN can be pruned")
    size = model.backbone.size_divisibility or 32
    example = torch.zeros(1, 3, 4 * size, 4 * size)
    before = torch_pruning.utils.count_ops_and_params(model.backbone, example)
    _prune(model.backbone, example, ratio)
    after = torch_pruning.utils.count_ops_and_params(model.backbone, example)
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()},
        out / WEIGHTS_NAME,
        metadata={"format": "pt", "source_sha256": source.sha256},
    )
    (out / WEIGHTS_NAME).chmod(0o644)
    _write_config(find_weights(Path(target)).parent / CONFIG_FILE, out, start or out)
    write_checksums(out / CONFIG_FILE, out / WEIGHTS_NAME)
    shares = [f"{100 * small / large:.0f} %" for small, large in zip(after, before, strict=True)]
    return f"the backbone keeps {shares[0]} of its arithmetic and {shares[1]} of its parameters"


def _prune(backbone: torch.nn.Module, example: torch.Tensor, ratio: float) -> None:
    frozen = [parameter for parameter in backbone.parameters() if not parameter.requires_grad]
    for parameter in frozen:  # the library follows gradients to find which layers depend on each other
        parameter.requires_grad_(True)
    torch_pruning.pruner.MagnitudePruner(
        backbone,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[module for name, module in backbone.named_modules() if name.startswith("fpn_")],
        round_to=ROUND_TO,
        output_transform=lambda maps: sum(value.sum() for value in maps.values()),
    ).step()


def _write_config(source: Path, out: Path, start: Path) -> None:
    cfg = load_config(source)
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = str(start / WEIGHTS_NAME), "."
    cfg.MODEL.PRUNED = True
    cfg.MODEL.TITLE = f"{cfg.MODEL.TITLE} pruned".strip()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), ()
    (out / CONFIG_FILE).write_text(cfg.dump())
