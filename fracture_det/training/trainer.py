"""Training: Detectron2's DefaultTrainer with mixed precision on CPUs and a moving average of the weights."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.engine import DefaultTrainer, SimpleTrainer, create_ddp_model, hooks
from detectron2.engine.train_loop import AMPTrainer, HookBase
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm

from fracture_det.inference.detectron2 import letterbox_of
from fracture_det.modeling.checkpoints import FractureCheckpointer, build_model_for, load_checkpoint
from fracture_det.modeling.config import ConfigError, iterations_per_epoch, resolve_epochs
from fracture_det.modeling.type_head import freeze_all_but_types
from fracture_det.training.datasets import register_training_data, source_names, training_images, without_crowds
from fracture_det.training.hooks import (
    BEST_METRIC,
    TYPE_METRIC,
    BestCheckpoint,
    EarlyStopping,
    EMAHook,
    PlotCurves,
    build_ema_model,
)
from fracture_det.training.mapper import FractureMapper
from fracture_det.training.optimizer import build_optimizer
from fracture_det.training.samplers import build_sampler
from fracture_det.training.validation_metrics import LetterboxCOCOEvaluator, validation_losses

# Of the periodic ones; model_best.pth and model_final.pth are saved besides.
MAX_CHECKPOINTS_TO_KEEP = 2
_logger = logging.getLogger("detectron2")


def train(cfg: CfgNode, *, resume: bool = False) -> OrderedDict[str, Any] | None:
    """Train the model of `cfg`, write everything to OUTPUT_DIR, and return the metrics of the last evaluation.

    resume: continue from the last checkpoint in OUTPUT_DIR, if there is one.
    Raises CatalogError or WeightsError, before training, when an input is wrong.
    """
    if cfg.MODEL.DEVICE == "cpu" and not torch.cuda.is_available():
        _logger.info("no GPU: training on the CPU")
    trainer = FractureTrainer(cfg, resume=resume)
    trainer.resume_or_load(resume=resume)
    return trainer.train()


def check_processes(cfg: CfgNode, n_processes: int) -> None:
    """Raise ConfigError if there are fewer GPUs than training processes on this machine.

    On the CPU any number of processes may train; if that is for lack of a GPU, more than one is logged as a warning.
    """
    if n_processes < 1:
        raise ConfigError(f"--num-gpus: expected at least 1, got {n_processes}")
    n_gpus = torch.cuda.device_count()
    if cfg.MODEL.DEVICE != "cpu" and n_processes > n_gpus:
        raise ConfigError(f"--num-gpus {n_processes}: PyTorch finds {n_gpus} on this machine")
    if not n_gpus and n_processes > 1:
        _logger.warning("--num-gpus %d: PyTorch finds no GPU, so as many processes train on the CPU", n_processes)


class FractureTrainer(DefaultTrainer):
    """Trains the model of a configuration; call `train`.

    __init__ replaces DefaultTrainer's, which cannot run several processes on CPUs, reads pickled checkpoints only, and
    keeps no moving average.
    """

    def __init__(self, cfg: CfgNode, *, resume: bool = False) -> None:
        super(DefaultTrainer, self).__init__()
        register_training_data(cfg)
        dataset_dicts = training_images(cfg)
        self.n_images = len(dataset_dicts)
        self.cfg = cfg = resolve_epochs(DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size()), self.n_images)
        model = self.build_model(cfg).to(memory_format=torch.channels_last)
        optimizer = self.build_optimizer(cfg, model)
        self.ema_model = build_ema_model(model, cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY else None
        checkpointables = {} if self.ema_model is None else {"average": self.ema_model}
        self.checkpointer = FractureCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self), **checkpointables)
        # A resumed training must not draw the images of its first part again in the same order.
        seed = cfg.SEED + (self._checkpoint_iteration() if resume else 0)
        loader = build_detection_train_loader(
            dataset_dicts,
            mapper=FractureMapper(cfg, is_train=True),
            sampler=build_sampler(dataset_dicts, cfg, seed=seed),
            total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
            aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )
        device_ids = None if cfg.MODEL.DEVICE == "cpu" else [comm.get_local_rank()]
        ddp_model = create_ddp_model(model, broadcast_buffers=False, device_ids=device_ids)
        self._trainer = step_class(cfg)(ddp_model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def _checkpoint_iteration(self) -> int:
        """Return how many iterations the last checkpoint in OUTPUT_DIR has behind it; 0 if there is none."""
        if not self.checkpointer.has_checkpoint():
            return 0
        return int(load_checkpoint(self.checkpointer.get_checkpoint_file())["iteration"]) + 1

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume from the last checkpoint in OUTPUT_DIR, or start from MODEL.WEIGHTS, the moving average included."""
        super().resume_or_load(resume=resume)
        if self.ema_model is not None and self.start_iter == 0:
            self.ema_model.module.load_state_dict(self.checkpointer.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: iteration, hooks and the optimizer, which Detectron2 0.6 leaves out."""
        return {**super(DefaultTrainer, self).state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state` from a checkpoint."""
        super(DefaultTrainer, self).load_state_dict(state)
        self._trainer.load_state_dict(state["_trainer"])

    @property
    def evaluated_model(self) -> torch.nn.Module:
        """The model that is evaluated and saved as model_best.pth: the moving average if there is one."""
        return self.model if self.ema_model is None else self.ema_model.module

    def build_hooks(self) -> list[HookBase | None]:
        """Return the hooks in the order in which they must run: save, evaluate, keep the best, save again, write, draw.

        The best has the highest AP50; with MODEL.TYPE_HEAD.ONLY, which leaves AP50 as it is, the lowest loss. A
        checkpoint before each evaluation, so that a failing one loses nothing; and after it, with the best.
        """
        period = self.cfg.TEST.EVAL_PERIOD
        epoch_iterations = iterations_per_epoch(self.cfg, self.n_images)
        best_checkpointer = FractureCheckpointer(self.evaluated_model, self.cfg.OUTPUT_DIR)
        best_checkpointer.keeps_last = False  # a killed training does not resume from model_best
        metric = TYPE_METRIC if self.cfg.MODEL.TYPE_HEAD.ONLY else BEST_METRIC
        update: list[HookBase | None] = [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            None if self.ema_model is None else EMAHook(self.ema_model, self.checkpointer.model),
        ]
        evaluate = [
            hooks.EvalHook(period, self.evaluate),
            BestCheckpoint(period, best_checkpointer, self.cfg.TEST.PATIENCE, metric)
            if self.cfg.DATASETS.TEST
            else None,
        ]
        if not comm.is_main_process():
            return [*update, *evaluate]
        evaluates_between = period > 0 and period % self.cfg.SOLVER.CHECKPOINT_PERIOD != 0
        return [
            *update,
            self._checkpoint_every(self.cfg.SOLVER.CHECKPOINT_PERIOD),
            self._checkpoint_every(period) if evaluates_between else None,
            *evaluate,
            self._checkpoint_every(period) if period > 0 and self.cfg.DATASETS.TEST else None,
            # Writers see only the latest value of a metric, so those of every evaluation must be written at once.
            hooks.PeriodicWriter(self.build_writers(), period=min(20, epoch_iterations)),
            PlotCurves(Path(self.cfg.OUTPUT_DIR), period, epoch_iterations),
        ]

    def _checkpoint_every(self, period: int) -> HookBase:
        return hooks.PeriodicCheckpointer(self.checkpointer, period, max_to_keep=MAX_CHECKPOINTS_TO_KEEP)

    def evaluate(self) -> dict[str, Any]:
        """Return COCO's AP (0..100) and the validation losses on DATASETS.TEST; {} if there is none.

        With several sources, `bbox` is the mean over them, each counting as much, and the figures of each follow.
        """
        if not self.cfg.DATASETS.TEST:
            return {}
        device = torch.device(self.cfg.MODEL.DEVICE).type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=isinstance(self._trainer, BFloat16Step)):
            self._last_eval_results = self.test(self.cfg, self.evaluated_model)
            losses = validation_losses(self.evaluated_model, self.build_validation_loader())
        return {**self._last_eval_results, **losses}

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators: Any = None) -> OrderedDict[str, Any]:
        """Return COCO's AP of each source of DATASETS.TEST and, as `bbox`, their mean; of a single source alone."""
        results = super().test(cfg, model, evaluators)
        return over_sources(results, cfg.DATASETS.TEST) if len(cfg.DATASETS.TEST) > 1 else results

    def build_validation_loader(self) -> Iterable[list[dict]]:
        """Return a loader of DATASETS.TEST with ground truth, without augmentation."""
        dataset_dicts = without_crowds(get_detection_dataset_dicts(self.cfg.DATASETS.TEST, filter_empty=False))
        mapper = FractureMapper(self.cfg, is_train=False)
        return build_detection_test_loader(dataset_dicts, mapper=mapper, num_workers=self.cfg.DATALOADER.NUM_WORKERS)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """Return the model on its device; if MODEL.PRUNED, with the numbers of channels in MODEL.WEIGHTS.

        With MODEL.TYPE_HEAD.ONLY all else is frozen.
        """
        model = build_model_for(cfg, cfg.MODEL.WEIGHTS)
        if cfg.MODEL.TYPE_HEAD.ONLY:
            freeze_all_but_types(model)
        _logger.info("Model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Return SOLVER.OPTIMIZER over the parameters of the model."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict]]:
        """Return a loader of the data set without augmentation and without ground truth."""
        dataset_dicts = get_detection_dataset_dicts(dataset_name, filter_empty=False)
        mapper = FractureMapper(cfg, is_train=False, with_instances=False)
        return build_detection_test_loader(dataset_dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> COCOEvaluator:
        """Return the COCO evaluator for a model whose boxes are in the letterbox frame."""
        return LetterboxCOCOEvaluator(dataset_name, letterbox_of(cfg))

    def train(self) -> OrderedDict[str, Any] | None:
        """Train to the end or to an early stop; return the metrics of the last evaluation."""
        try:
            super().train()
        except EarlyStopping as stop:
            _logger.info("stopped early after iteration %d: %s", self.iter, stop)
        return getattr(self, "_last_eval_results", None)


def over_sources(results: OrderedDict[str, Any], names: Sequence[str]) -> OrderedDict[str, Any]:
    """Return {"bbox": the mean over sources, source: {"bbox": ...}, ...} from Detectron2's results by data set name.

    A source is called by the folder of its file, with more of its path where two folders have one name. Detectron2
    gives NaN where a source has no box of a size, which then has no part in that mean.
    """
    if not results:  # of the other processes of a distributed training
        return results
    by_source = {source: results[name] for name, source in zip(names, source_names(names), strict=True)}
    metrics = next(iter(by_source.values()))["bbox"]
    means = {metric: _mean([each["bbox"][metric] for each in by_source.values()]) for metric in metrics}
    return OrderedDict({"bbox": means, **by_source})


def _mean(values: Sequence[float]) -> float:
    """Return the mean of what is a number, NaN where nothing is."""
    numbers = [value for value in values if np.isfinite(value)]
    return float(np.mean(numbers)) if numbers else float("nan")


class BFloat16Step(SimpleTrainer):
    """A training step whose matrix products and convolutions run in bfloat16; its range needs no loss scaling."""

    def run_step(self) -> None:
        """Run one iteration under autocast."""
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, dtype=torch.bfloat16):
            super().run_step()


def cpu_has_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware, which makes a training step about four times as fast."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def step_class(cfg: CfgNode) -> type[SimpleTrainer]:
    """Return the training step for SOLVER.AMP and MODEL.DEVICE.

    With AMP: bfloat16 where the hardware supports it, else float16 on a GPU and float32 on a CPU. Without: float32.
    """
    if not cfg.SOLVER.AMP.ENABLED:
        return SimpleTrainer
    if cfg.MODEL.DEVICE == "cpu":
        return BFloat16Step if cpu_has_bfloat16() else SimpleTrainer
    return BFloat16Step if torch.cuda.is_bf16_supported(including_emulation=False) else AMPTrainer
