"""The trainer: Detectron2's DefaultTrainer with mixed precision on CPUs and a moving average."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
from fracture_det.training.datasets import register_datasets
from fracture_det.training.hooks import BestCheckpoint, EarlyStopping, MovingAverage, PlotCurves, moving_average
from fracture_det.training.mapper import FractureMapper
from fracture_det.training.samplers import build_sampler
from fracture_det.training.validation import LetterboxCOCOEvaluator, validation_losses

CHECKPOINTS_KEPT = 2
_logger = logging.getLogger("detectron2")


class BFloat16Step(SimpleTrainer):
    """A training step whose matrix products and convolutions run in bfloat16; its range needs no loss scaling."""

    def run_step(self) -> None:
        """Run one step under autocast."""
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, dtype=torch.bfloat16):
            super().run_step()


def cpu_has_bfloat16() -> bool:
    """Return whether this processor multiplies bfloat16 in hardware (measured: a step is about four times as fast)."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def step_class(cfg: CfgNode) -> type[SimpleTrainer]:
    """Return the training step for SOLVER.AMP and the device: bfloat16 where it is fast, else float16, else float32."""
    if not cfg.SOLVER.AMP.ENABLED:
        return SimpleTrainer
    if cfg.MODEL.DEVICE == "cpu":
        return BFloat16Step if cpu_has_bfloat16() else SimpleTrainer
    return BFloat16Step if torch.cuda.is_bf16_supported(including_emulation=False) else AMPTrainer


class FractureTrainer(DefaultTrainer):
    """Trains the model of a configuration; see `train`.

    Its __init__ stands in for DefaultTrainer's, which can neither run several processes on CPUs, nor read other than
    pickled checkpoints, nor keep a moving average.
    """

    def __init__(self, cfg: CfgNode, *, resume: bool = False) -> None:
        super(DefaultTrainer, self).__init__()
        register_datasets([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST], cfg.DATASETS.CLASS_NAMES)
        dicts = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
        self.n_images = len(dicts)
        self.cfg = cfg = resolve_epochs(DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size()), len(dicts))
        model = self.build_model(cfg).to(memory_format=torch.channels_last)
        optimizer = self.build_optimizer(cfg, model)
        decay = cfg.SOLVER.EMA_DECAY
        self.average = moving_average(model, decay) if decay else None
        kept = {"average": self.average} if decay else {}
        self.checkpointer = FractureCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self), **kept)
        loader = build_detection_train_loader(
            dicts,
            mapper=FractureMapper(cfg, is_train=True),
            sampler=build_sampler(dicts, cfg, seed=cfg.SEED + self._iterations_done() if resume else cfg.SEED),
            total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
            aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )
        devices = None if cfg.MODEL.DEVICE == "cpu" else [comm.get_local_rank()]
        ddp_model = create_ddp_model(model, broadcast_buffers=False, device_ids=devices)
        self._trainer = step_class(cfg)(ddp_model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    def _iterations_done(self) -> int:
        """A resumed training draws other images than its first part did, so its sampler needs another seed."""
        if not self.checkpointer.has_checkpoint():
            return 0
        return int(load_checkpoint(self.checkpointer.get_checkpoint_file())["iteration"]) + 1

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint in OUTPUT_DIR, else start from MODEL.WEIGHTS, the average included."""
        super().resume_or_load(resume=resume)
        if self.average is not None and self.start_iter == 0:
            self.average.module.load_state_dict(self.checkpointer.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: iteration, hooks and, which Detectron2 0.6 forgets, the optimizer."""
        return {**super(DefaultTrainer, self).state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""
        super(DefaultTrainer, self).load_state_dict(state)
        self._trainer.load_state_dict(state["_trainer"])

    @property
    def evaluated_model(self) -> torch.nn.Module:
        """The model that is evaluated and kept: the moving average where there is one."""
        return self.model if self.average is None else self.average.module

    def build_hooks(self) -> list[HookBase | None]:
        """Evaluate and measure the validation loss, keep the best, save, write; in this order."""
        period = self.cfg.TEST.EVAL_PERIOD
        folder = Path(self.cfg.OUTPUT_DIR)
        per_epoch = iterations_per_epoch(self.cfg, self.n_images)
        best = FractureCheckpointer(self.evaluated_model, str(folder))
        best.tag_last_checkpoint = lambda name: None  # model_best is not what a killed training resumes from
        every_process: list[HookBase | None] = [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            None if self.average is None else MovingAverage(self.average, self.checkpointer.model),
            hooks.EvalHook(period, self.evaluate),
            BestCheckpoint(period, best, self.cfg.TEST.PATIENCE),
        ]
        if not comm.is_main_process():
            return every_process
        return [
            *every_process,
            hooks.PeriodicCheckpointer(
                self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD, max_to_keep=CHECKPOINTS_KEPT
            ),
            # Writers keep only the latest value of a measure: none may pass by unwritten.
            hooks.PeriodicWriter(self.build_writers(), period=min(20, per_epoch)),
            PlotCurves(folder, period, per_epoch),
        ]

    def evaluate(self) -> dict[str, Any]:
        """Return COCO's AP on DATASETS.TEST (0..100) and the validation losses."""
        if not self.cfg.DATASETS.TEST:
            return {}
        device = torch.device(self.cfg.MODEL.DEVICE).type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=isinstance(self._trainer, BFloat16Step)):
            self._last_eval_results = self.test(self.cfg, self.evaluated_model)
            losses = validation_losses(self.evaluated_model, self.build_validation_loader())
        return {**self._last_eval_results, **losses}

    def build_validation_loader(self) -> Iterable[list[dict]]:
        """Return a loader of DATASETS.TEST with truth, without augmentation."""
        dicts = get_detection_dataset_dicts(self.cfg.DATASETS.TEST, filter_empty=False)
        mapper = FractureMapper(self.cfg, is_train=False)
        return build_detection_test_loader(dicts, mapper=mapper, num_workers=self.cfg.DATALOADER.NUM_WORKERS)

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """Return the model on its device; a pruned one with the channels of MODEL.WEIGHTS."""
        model = build_model_for(cfg, cfg.MODEL.WEIGHTS)
        _logger.info("Model:\n%s", model)
        return model

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict]]:
        """Return a loader of the data set without augmentation and without truth."""
        dicts = get_detection_dataset_dicts(dataset_name, filter_empty=False)
        mapper = FractureMapper(cfg, is_train=False, with_truth=False)
        return build_detection_test_loader(dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> COCOEvaluator:
        """Return the COCO evaluator for a model that answers in the letterbox frame."""
        return LetterboxCOCOEvaluator(dataset_name, letterbox_of(cfg))

    def train(self) -> OrderedDict[str, Any] | None:
        """Train to the end or to an early stop; return the last evaluation."""
        try:
            super().train()
        except EarlyStopping as stop:
            _logger.info("stopped early after iteration %d: %s", self.iter, stop)
        return getattr(self, "_last_eval_results", None)


def check_processes(cfg: CfgNode, n_processes: int) -> None:
    """Raise ConfigError if there are fewer GPUs than training processes on this machine.

    On the CPU any number of processes may train; if that is for want of a GPU, more than one is logged as a warning.
    """
    if n_processes < 1:
        raise ConfigError(f"--num-gpus: expected at least 1, got {n_processes}")
    n_gpus = torch.cuda.device_count()
    if cfg.MODEL.DEVICE != "cpu" and n_processes > n_gpus:
        raise ConfigError(f"--num-gpus {n_processes}: PyTorch finds {n_gpus} on this machine")
    if not n_gpus and n_processes > 1:
        _logger.warning("--num-gpus %d: PyTorch finds no GPU, so as many processes train on the CPU", n_processes)


def train(cfg: CfgNode, *, resume: bool = False) -> OrderedDict[str, Any] | None:
    """Train what `cfg` says, leave everything in OUTPUT_DIR, and return the last evaluation.

    Raises CatalogError or WeightsError before anything is trained when an input is wrong.
    """
    if cfg.MODEL.DEVICE == "cpu" and not torch.cuda.is_available():
        _logger.info("no GPU: training on the CPU")
    trainer = FractureTrainer(cfg, resume=resume)
    trainer.resume_or_load(resume=resume)
    return trainer.train()
