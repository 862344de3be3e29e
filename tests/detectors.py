"""A complete Detectron2 detector of random weights: its boxes mean nothing, but every part runs."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.modeling import build_model
from safetensors.torch import save_file

from fracture_det.modeling.config import load_config
from tests.paths import QUICK_CONFIG


def write_random_detector(folder: Path, *, seed: int = 5, overrides: tuple[str, ...] = ()) -> Path:
    """Write config.yaml and model.safetensors into `folder`, for a letterbox of 128 px; return the folder."""
    cfg = load_config(QUICK_CONFIG, ["INPUT.LETTERBOX", "128", "MODEL.DEVICE", "cpu", *overrides])
    torch.manual_seed(seed)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model = build_model(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(cfg.dump())
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder
