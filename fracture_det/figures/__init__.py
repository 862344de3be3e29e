"""Pictures: boxes on a radiograph, and the curves of training and evaluation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fracture_det.figures.overlay import BOX_COLOURS, draw_overlay

if TYPE_CHECKING:
    from fracture_det.figures.evaluation import draw_froc, draw_pr_curve
    from fracture_det.figures.training import draw_ap_curve, draw_loss_curves

# Loaded on first use: the web page draws overlays only and starts faster without matplotlib.
_MODULES = {
    "draw_ap_curve": "training",
    "draw_froc": "evaluation",
    "draw_loss_curves": "training",
    "draw_pr_curve": "evaluation",
}

__all__ = ["BOX_COLOURS", "draw_ap_curve", "draw_froc", "draw_loss_curves", "draw_overlay", "draw_pr_curve"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
