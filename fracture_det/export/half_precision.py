"""Export of a training folder to safetensors: weights in half precision, configuration, log and checksums."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from fracture_det.export.verify import ComparisonResult, compare_detectors
from fracture_det.inference.checksums import write_checksums
from fracture_det.inference.detectron2 import CONFIG_FILE, D2Detector, find_weights
from fracture_det.modeling.checkpoints import load_checkpoint
from fracture_det.modeling.config import load_config
from fracture_det.modeling.type_head import TYPE_KEYS

WEIGHTS_NAME = "model.safetensors"
# The training's metrics, which document how the weights were obtained.
TRAINING_FILES = {"metrics.json": "training_log.jsonl", "loss_curves.png": "loss_curves.png"}


def export_safetensors(source: Path, out: Path, check_images: Sequence[Path], *, title: str = "") -> ComparisonResult:
    """Write the weights in `source` (a training folder or file) to the folder `out`; return how well the two agree.

    out: model.safetensors (half precision, but one-dimensional tensors and the head of types in full), config.yaml
    without the paths of the training, the training log and SHA256SUMS. title: MODEL.TITLE, if it should change.
    On `check_images` the export must predict what the source does: boxes within 1 px, scores within .01, except for 2 %
    of the boxes, for which NMS may decide differently.

    Raises ExportError when it does not, and DetectorError when `source` is not a trained detector.
    """
    weights = find_weights(source)
    detector = D2Detector.open(str(weights))
    out.mkdir(parents=True, exist_ok=True)
    state = {
        # The head that tells types is small, and has little to lose.
        key: value.contiguous() if key in TYPE_KEYS else _halved(value)
        for key, value in load_checkpoint(weights)["model"].items()
    }
    save_file(state, out / WEIGHTS_NAME, metadata={"format": "pt", "source_sha256": detector.sha256})
    (out / WEIGHTS_NAME).chmod(0o644)  # safetensors grants it to the owner only; a server runs as another user
    _write_config(weights.parent / CONFIG_FILE, out / CONFIG_FILE, title)
    for name, kept_as in TRAINING_FILES.items():
        if (weights.parent / name).is_file():
            shutil.copyfile(weights.parent / name, out / kept_as)
    write_checksums(out / CONFIG_FILE, out / WEIGHTS_NAME)
    return compare_detectors(detector, D2Detector.open(str(out)), check_images)


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous() if tensor.ndim <= 1 else tensor.half().contiguous()


def _write_config(source: Path, target: Path, title: str) -> None:
    cfg = load_config(source)
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = "", "."
    cfg.MODEL.DEVICE = "cuda"  # where there is a GPU; without one, load_config warns and uses the CPU
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), ()
    cfg.MODEL.TITLE = title or cfg.MODEL.TITLE
    target.write_text(cfg.dump())
