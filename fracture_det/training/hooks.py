"""Hooks of the trainer: best checkpoint, early stopping, exponential moving average (EMA), curves."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fracture_det.modeling.checkpoints import FractureCheckpointer
from fracture_det.visualization.training_curves import draw_ap_curve, draw_loss_curves

METRICS_FILE = "metrics.json"
BEST_METRIC = "bbox/AP50"
# Where the type head alone is trained: the other losses, of which it is the sum too, stay as they are.
TYPE_METRIC = "validation_loss"


class EarlyStopping(BaseException):
    """Raised to end training once validation no longer improves; Detectron2 would log an Exception as a failure."""


class BestCheckpoint(hooks.BestCheckpointer):
    """Save the weights with the best validation AP50, or the lowest TYPE_METRIC, as model_best.pth; stop early.

    patience: stop after this many evaluations without a better metric; 0: never. The best metric is part of the
    checkpoint, so that a resumed training does not overwrite a better model.
    """

    def __init__(
        self, period: int, checkpointer: FractureCheckpointer, patience: int, metric: str = BEST_METRIC
    ) -> None:
        super().__init__(period, checkpointer, metric, "max" if metric == BEST_METRIC else "min")
        self.patience = patience
        self.evaluations_since_best = 0

    def _best_checking(self) -> None:
        best_before = self.best_iter
        if comm.is_main_process():
            super()._best_checking()
        self.evaluations_since_best = 0 if self.best_iter != best_before else self.evaluations_since_best + 1
        stop = bool(self.patience) and self.evaluations_since_best >= self.patience
        if comm.all_gather(stop)[0] and self.trainer.iter + 1 < self.trainer.max_iter:
            raise EarlyStopping(f"no better {self._val_metric} in {self.patience} evaluations")

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of this hook."""
        names = ("best_metric", "best_iter", "evaluations_since_best")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state` from a checkpoint."""
        for name, value in state.items():
            setattr(self, name, value)


def build_ema_model(model: torch.nn.Module, decay: float) -> AveragedModel:
    """Return the exponential moving average of the weights of `model`, which follows them more quickly at first.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), the warm-up of TensorFlow's
    ExponentialMovingAverage(num_updates=n); without it, a short training would mostly average its random start.
    """

    def update(averaged: Any, current: Any, n_updates: Any) -> None:
        n = int(n_updates)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, n_updates)

    return AveragedModel(model, multi_avg_fn=update)


class EMAHook(HookBase):
    """Update the exponential moving average of the weights of `model` after every iteration."""

    def __init__(self, ema_model: AveragedModel, model: torch.nn.Module) -> None:
        self.ema_model = ema_model
        self.model = model

    def after_step(self) -> None:
        """Update the average."""
        self.ema_model.update_parameters(self.model)


class PlotCurves(HookBase):
    """Draw loss_curves.png and ap_curve.png from metrics.json after every evaluation and at the end of training."""

    def __init__(self, folder: Path, period: int, iterations_per_epoch: int) -> None:
        self.folder = folder
        self.period = period
        self.iterations_per_epoch = iterations_per_epoch

    def before_train(self) -> None:
        """Drop from metrics.json what this training does not continue: lines of another run, or after its checkpoint.

        A kill may also have left half a line. The file keeps its place, since the writer holds it open to append.
        """
        metrics = self.folder / METRICS_FILE
        if metrics.is_file():
            start = self.trainer.start_iter
            kept = [line for line in _whole_lines(metrics) if start and line["iteration"] <= start]
            metrics.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in kept), encoding="utf-8")

    def after_step(self) -> None:
        """Draw if the metrics of an evaluation were just written."""
        if self.period > 0 and (self.trainer.iter + 1) % self.period == 0:
            self.draw()

    def after_train(self) -> None:
        """Draw once more."""
        self.draw()

    def draw(self) -> None:
        """Draw both figures, if metrics.json has been written."""
        metrics = self.folder / METRICS_FILE
        if metrics.is_file():
            history = _whole_lines(metrics)
            draw_loss_curves(history, self.iterations_per_epoch, self.folder / "loss_curves.png")
            draw_ap_curve(history, self.iterations_per_epoch, self.folder / "ap_curve.png")


def _whole_lines(metrics: Path) -> list[dict[str, Any]]:
    lines = []
    for line in metrics.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines
