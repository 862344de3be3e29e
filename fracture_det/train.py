"""Training on Detectron2's DefaultTrainer: validation loss, best checkpoint, moving average, early stop, curves."""

from __future__ import annotations

import json
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
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fracture_det.checkpoints import FractureCheckpointer, build_model_for, load_checkpoint
from fracture_det.config import iterations_per_epoch, resolve_epochs
from fracture_det.data.catalog import FractureMapper, build_sampler, register_datasets
from fracture_det.figures import draw_ap_curve, draw_loss_curves
from fracture_det.images import Letterbox
from fracture_det.inference.d2 import letterbox_of, undo_letterbox

METRICS_FILE = "metrics.json"
BEST_METRIC = "bbox/AP50"
CHECKPOINTS_KEPT = 2

_logger = logging.getLogger("detectron2")


class EarlyStop(BaseException):
    """Ends training when validation has stopped to improve; no Exception, or Detectron2 would log it as a failure."""


class BestCheckpoint(hooks.BestCheckpointer):
    """Keep the weights of the best validation AP50 as model_best.pth; stop after `patience` evaluations without one.

    What is best is part of the checkpoint, so that a resumed training does not overwrite a better model.
    """

    def __init__(self, period: int, checkpointer: FractureCheckpointer, patience: int) -> None:
        super().__init__(period, checkpointer, BEST_METRIC)
        self.patience = patience
        self.evaluations_since_best = 0

    def _best_checking(self) -> None:
        best_before = self.best_iter
        if comm.is_main_process():
            super()._best_checking()
        self.evaluations_since_best = 0 if self.best_iter != best_before else self.evaluations_since_best + 1
        stop = bool(self.patience) and self.evaluations_since_best >= self.patience
        if comm.all_gather(stop)[0] and self.trainer.iter + 1 < self.trainer.max_iter:
            raise EarlyStop(f"no better {BEST_METRIC} in {self.patience} evaluations")

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training must know."""
        names = ("best_metric", "best_iter", "evaluations_since_best")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over `state` of a former run."""
        for name, value in state.items():
            setattr(self, name, value)


def moving_average(model: torch.nn.Module, decay: float) -> AveragedModel:
    """Return the exponential moving average of the weights of `model`, which follows them more quickly at first.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), the warm-up of TensorFlow's
    ExponentialMovingAverage(num_updates=n): else a short training would mostly average its random start.
    """

    def update(averaged: Any, current: Any, n_updates: Any) -> None:
        n = int(n_updates)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, n_updates)

    return AveragedModel(model, multi_avg_fn=update)


class Average(HookBase):
    """Fold the weights into their moving average after every iteration."""

    def __init__(self, average: AveragedModel, model: torch.nn.Module) -> None:
        self.average = average
        self.model = model

    def after_step(self) -> None:
        """Update the average."""
        self.average.update_parameters(self.model)


class Curves(HookBase):
    """Redraw loss_curves.png and ap_curve.png from metrics.json after every evaluation and at the end."""

    def __init__(self, folder: Path, period: int, per_epoch: int) -> None:
        self.folder = folder
        self.period = period
        self.per_epoch = per_epoch

    def after_step(self) -> None:
        """Draw when an evaluation was just written."""
        if self.period > 0 and (self.trainer.iter + 1) % self.period == 0:
            self.draw()

    def after_train(self) -> None:
        """Draw the last state."""
        self.draw()

    def draw(self) -> None:
        """Draw both figures from what metrics.json holds."""
        metrics = self.folder / METRICS_FILE
        if metrics.is_file():
            history = [json.loads(line) for line in metrics.read_text().splitlines()]
            draw_loss_curves(history, self.per_epoch, self.folder / "loss_curves.png")
            draw_ap_curve(history, self.per_epoch, self.folder / "ap_curve.png")


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


class LetterboxCOCOEvaluator(COCOEvaluator):
    """COCO evaluation in original pixels of a model that answers in the letterbox frame."""

    def __init__(self, dataset_name: str, letterbox: Letterbox) -> None:
        super().__init__(dataset_name, tasks=("bbox",), use_fast_impl=False)
        self.letterbox = letterbox

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take the answers of one batch."""
        undone = []
        for item, output in zip(inputs, outputs, strict=True):
            found = undo_letterbox(output["instances"], self.letterbox, item["original_size"])
            instances = Instances(item["original_size"])
            instances.pred_boxes = Boxes(torch.tensor(found.boxes))
            instances.scores = torch.tensor(found.scores)
            instances.pred_classes = torch.tensor(found.classes)
            undone.append({"instances": instances})
        super().process(inputs, undone)


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
            None if self.average is None else Average(self.average, self.checkpointer.model),
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
            Curves(folder, period, per_epoch),
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
        except EarlyStop as stop:
            _logger.info("stopped early after iteration %d: %s", self.iter, stop)
        return getattr(self, "_last_eval_results", None)


def validation_losses(model: torch.nn.Module, loader: Iterable[list[dict]]) -> dict[str, float]:
    """Return the mean of every training loss over the images of `loader`, and `validation_loss`, their sum.

    The losses sample proposals at random; their seed is fixed, so that evaluations are comparable. All processes
    take part and get the same answer.
    """
    sums: dict[str, float] = {}
    n_images = 0
    was_training = model.training
    model.train()
    with torch.no_grad(), torch.random.fork_rng(), EventStorage():
        torch.manual_seed(0)
        for batch in loader:
            n_images += len(batch)
            for key, value in model(batch).items():
                sums[key] = sums.get(key, 0.0) + float(value) * len(batch)
    model.train(was_training)
    gathered = comm.all_gather((sums, n_images))
    total = max(1, sum(count for _, count in gathered))
    keys = sorted({key for part, _ in gathered for key in part})
    means = {f"validation_{key}": sum(part.get(key, 0.0) for part, _ in gathered) / total for key in keys}
    return {"validation_loss": sum(means.values()), **means}


def train(cfg: CfgNode, *, resume: bool = False) -> OrderedDict[str, Any] | None:
    """Train what `cfg` says, leave everything in OUTPUT_DIR, and return the last evaluation.

    Raises CatalogError or WeightsError before anything is trained when an input is wrong.
    """
    trainer = FractureTrainer(cfg, resume=resume)
    trainer.resume_or_load(resume=resume)
    return trainer.train()
