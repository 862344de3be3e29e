"""Pictures: boxes on a radiograph, and the curves of training and evaluation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fracture_det.figures.overlay import BOX_COLOURS, draw_overlay

if TYPE_CHECKING:
    from fracture_det.figures.benchmark import draw_benchmark
    from fracture_det.figures.canvas import FigureError
    from fracture_det.figures.curves import draw_froc, draw_overview, draw_pr_curve, draw_roc
    from fracture_det.figures.evaluation import draw_errors, draw_forest, draw_reliability, draw_robustness
    from fracture_det.figures.training import draw_ap_curve, draw_loss_curves

# Loaded on first use: the web page draws overlays only and starts faster without matplotlib.
_MODULES = {
    "FigureError": "canvas",
    "draw_ap_curve": "training",
    "draw_benchmark": "benchmark",
    "draw_errors": "evaluation",
    "draw_forest": "evaluation",
    "draw_froc": "curves",
    "draw_loss_curves": "training",
    "draw_overview": "curves",
    "draw_pr_curve": "curves",
    "draw_reliability": "evaluation",
    "draw_robustness": "evaluation",
    "draw_roc": "curves",
}

__all__ = [
    "BOX_COLOURS",
    "FigureError",
    "draw_ap_curve",
    "draw_benchmark",
    "draw_errors",
    "draw_forest",
    "draw_froc",
    "draw_loss_curves",
    "draw_overlay",
    "draw_overview",
    "draw_pr_curve",
    "draw_reliability",
    "draw_robustness",
    "draw_roc",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
