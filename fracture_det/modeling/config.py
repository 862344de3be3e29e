"""The configuration: Detectron2's keys and ours, epochs instead of iterations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from detectron2.config import CfgNode, get_cfg

from fracture_det.modeling.backbones import build_timm_fpn_backbone, register_backbones

# Detectron2's ResNets and the networks of timm that it knows here halve their maps five times.
COARSEST_STRIDE = 32


class ConfigError(ValueError):
    """A configuration file or key is wrong; the message names the file or key and its value."""


def add_fracture_config(cfg: CfgNode) -> None:
    """Add this project's keys, each with its default, to Detectron2's configuration."""
    # What people call this model; the folder's name where it is empty.
    cfg.MODEL.TITLE = ""

    # The network of timm that MODEL.BACKBONE.NAME build_timm_fpn_backbone stands on.
    cfg.MODEL.TIMM = CfgNode()
    cfg.MODEL.TIMM.NAME = "tf_efficientnet_lite2"
    # Leave its depthwise kernels as they are: on a CPU their gradient costs more than all others together.
    cfg.MODEL.TIMM.FREEZE_DEPTHWISE = False

    # The backbone was pruned: its batch statistics are folded into its convolutions, which have as many channels as
    # in the file MODEL.WEIGHTS.
    cfg.MODEL.PRUNED = False

    # Side of the square that every radiograph is scaled into, in pixels; zeros fill the rest.
    cfg.INPUT.LETTERBOX = 800
    # In evaluation and prediction each side ends at the next multiple of so many pixels instead; 0: never.
    cfg.INPUT.LETTERBOX_STEP = 0
    # Training scales the letterbox by a factor drawn from (low, high): (1, 1) keeps the size.
    cfg.INPUT.SCALE = (1.0, 1.0)
    # Chances of a vertical flip and of exchanging rows and columns; the horizontal flip is INPUT.RANDOM_FLIP.
    cfg.INPUT.VERTICAL_FLIP = 0.0
    cfg.INPUT.TRANSPOSE = 0.0
    # Training turns images by an angle drawn from -TILT to TILT degrees.
    cfg.INPUT.TILT = 0.0
    # Grey values (0..1) are raised to a power drawn from (low, high).
    cfg.INPUT.GAMMA = (1.0, 1.0)
    # Brightness and contrast are multiplied by a factor drawn from (low, high).
    cfg.INPUT.BRIGHTNESS = (1.0, 1.0)
    cfg.INPUT.CONTRAST = (1.0, 1.0)
    # Chance that a crop of a fractured image is placed around one of its boxes instead of anywhere.
    cfg.INPUT.CROP.AROUND_BOX = 0.0

    # Class names in the order of the class indices; MODEL.ROI_HEADS.NUM_CLASSES must equal their number.
    cfg.DATASETS.CLASS_NAMES = ("fracture",)

    # Share of fractured images among those drawn for training; 0 draws every image equally often.
    cfg.DATALOADER.FRACTURED_SHARE = 0.0

    # Length of training in passes over the training images; 0 means that SOLVER.MAX_ITER and STEPS rule.
    cfg.SOLVER.EPOCHS = 12
    # After these epochs the learning rate is multiplied by SOLVER.GAMMA.
    cfg.SOLVER.STEP_EPOCHS = (8, 11)
    # Decay of the exponential moving average of the weights, which is then what is evaluated and kept; 0: none.
    cfg.SOLVER.EMA_DECAY = 0.0

    # Epochs between evaluations on DATASETS.TEST; 0: only at the end.
    cfg.TEST.EVAL_EPOCHS = 1
    # Stop when AP50 has not risen for so many evaluations; 0: never.
    cfg.TEST.PATIENCE = 0
    # Mixed precision in prediction, float16 on GPUs and bfloat16 on CPUs: faster where the device has it, but answers
    # change a little and hang on the device.
    cfg.TEST.AMP = False
    # The score from which a box counts as a finding, until one is chosen on validation data.
    cfg.TEST.OPERATING_SCORE = 0.5


def default_config() -> CfgNode:
    """Return Detectron2's defaults with this project's keys added."""
    register_backbones()
    cfg = get_cfg()
    add_fracture_config(cfg)
    return cfg


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> CfgNode:
    """Return the configuration in the yaml file `path`, then `overrides` (KEY VALUE KEY VALUE ...).

    The device is what MODEL.DEVICE says where it is present, else the CPU.
    Raises ConfigError for a missing file, an unknown key, a value of the wrong type or contradicting keys.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration file")
    cfg = default_config()
    try:
        cfg.merge_from_file(str(path))
    except (KeyError, ValueError, AssertionError) as error:
        raise ConfigError(f"{path}: {error.args[0] if error.args else error}") from error
    if len(overrides) % 2:
        raise ConfigError(f"overrides come as KEY VALUE pairs, got {list(overrides)}")
    try:
        cfg.merge_from_list(list(overrides))
    except (KeyError, ValueError, AssertionError) as error:
        raise ConfigError(f"override {' '.join(overrides)}: {error.args[0] if error.args else error}") from error
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    check_config(cfg)
    return cfg


def check_config(cfg: CfgNode) -> None:
    """Raise ConfigError when keys contradict each other."""
    if len(cfg.DATASETS.CLASS_NAMES) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise ConfigError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {cfg.MODEL.ROI_HEADS.NUM_CLASSES}, "
            f"but DATASETS.CLASS_NAMES names {list(cfg.DATASETS.CLASS_NAMES)}"
        )
    if build_timm_fpn_backbone.__name__ == cfg.MODEL.BACKBONE.NAME and not timm.is_model(cfg.MODEL.TIMM.NAME):
        raise ConfigError(f"MODEL.TIMM.NAME: timm {timm.__version__} has no network {cfg.MODEL.TIMM.NAME!r}")
    if not 0 <= cfg.DATALOADER.FRACTURED_SHARE < 1:
        raise ConfigError(f"DATALOADER.FRACTURED_SHARE: expected 0 <= share < 1, got {cfg.DATALOADER.FRACTURED_SHARE}")
    if cfg.INPUT.LETTERBOX_STEP < 0 or cfg.INPUT.LETTERBOX_STEP % COARSEST_STRIDE:
        raise ConfigError(
            f"INPUT.LETTERBOX_STEP: expected 0 or a multiple of {COARSEST_STRIDE} px, the coarsest stride, "
            f"got {cfg.INPUT.LETTERBOX_STEP}"
        )
    if not 0 <= cfg.INPUT.TILT <= 180:
        raise ConfigError(f"INPUT.TILT: expected degrees from 0 to 180, got {cfg.INPUT.TILT}")
    if not 0 < min(cfg.INPUT.GAMMA) <= max(cfg.INPUT.GAMMA) or len(cfg.INPUT.GAMMA) != 2:
        raise ConfigError(f"INPUT.GAMMA: expected (low, high), both above 0, got {cfg.INPUT.GAMMA}")
    if list(cfg.SOLVER.STEP_EPOCHS) != sorted(cfg.SOLVER.STEP_EPOCHS):
        raise ConfigError(f"SOLVER.STEP_EPOCHS: expected ascending epochs, got {cfg.SOLVER.STEP_EPOCHS}")


def iterations_per_epoch(cfg: CfgNode, n_images: int) -> int:
    """Return how many batches one pass over `n_images` takes."""
    return max(1, round(n_images / cfg.SOLVER.IMS_PER_BATCH))


def resolve_epochs(cfg: CfgNode, n_images: int) -> CfgNode:
    """Return a copy of `cfg` whose iteration keys say what its epoch keys mean for `n_images` training images.

    MAX_ITER, STEPS, TEST.EVAL_PERIOD and CHECKPOINT_PERIOD (every epoch) are set. With SOLVER.EPOCHS 0 the first
    two stay as written. Steps that would lie at or behind the end are left out.
    """
    cfg = cfg.clone()
    cfg.defrost()
    per_epoch = iterations_per_epoch(cfg, n_images)
    if cfg.SOLVER.EPOCHS:
        cfg.SOLVER.MAX_ITER = round(cfg.SOLVER.EPOCHS * per_epoch)
        cfg.SOLVER.STEPS = tuple(round(epoch * per_epoch) for epoch in cfg.SOLVER.STEP_EPOCHS)
    cfg.SOLVER.STEPS = tuple(step for step in cfg.SOLVER.STEPS if step < cfg.SOLVER.MAX_ITER)
    cfg.SOLVER.CHECKPOINT_PERIOD = per_epoch
    cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_EPOCHS * per_epoch)
    return cfg
