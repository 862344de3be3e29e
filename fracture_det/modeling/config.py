"""The configuration: Detectron2's keys and this project's, schedules in epochs, and the names of earlier keys."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import timm
import torch
import yaml
from detectron2.config import CfgNode, get_cfg

from fracture_det.modeling.architectures.registry import missing_package, register_architectures
from fracture_det.modeling.backbones import TIMM_BUILDERS, register_backbones
from fracture_det.modeling.type_head import STANDARD, TYPED, register_type_head, select_roi_heads
from fracture_det.resources import how_to_install
from fracture_det.structures.fracture_types import TYPES_FILE, fracture_types

# Earlier name of a key -> its name now. Files and overrides that use the earlier one are read, with a warning.
RENAMED_KEYS = {
    "INPUT.TILT": "INPUT.ROTATION",
    "TEST.EVAL_EPOCHS": "TEST.EVAL_PERIOD_EPOCHS",
}
# Detectron2's ResNets, and the timm networks that are used here, halve their feature maps five times.
COARSEST_STRIDE = 32
_logger = logging.getLogger(__name__)


class ConfigError(ValueError):
    """A configuration file or key is wrong; the message names the file or key and its value."""


def add_fracture_config(cfg: CfgNode) -> None:
    """Add this project's keys, each with its default, to Detectron2's configuration."""
    # The model's name in reports and on the page; the folder's name if empty.
    cfg.MODEL.TITLE = ""

    # The timm network of MODEL.BACKBONE.NAME build_timm_fpn_backbone, which puts it under a feature pyramid, and of
    # build_timm_backbone, which is for the architectures that have a pyramid of their own.
    cfg.MODEL.TIMM = CfgNode()
    cfg.MODEL.TIMM.NAME = "tf_efficientnet_lite2"
    # The maps of build_timm_backbone; those of the other are MODEL.FPN.IN_FEATURES.
    cfg.MODEL.TIMM.OUT_FEATURES = ("res3", "res4", "res5")
    # Its norms: "FrozenBN" keeps the statistics of its ImageNet weights, "GN" (groups) is for random weights.
    cfg.MODEL.TIMM.NORM = "FrozenBN"
    # Freeze its depthwise kernels: on a CPU their gradient costs more than all the others together.
    cfg.MODEL.TIMM.FREEZE_DEPTHWISE = False

    _add_architectures(cfg)

    # A head that tells the type of fracture of each box, beside its class: names of configs/fracture_types.yaml, in the
    # order of its outputs; () for none. The heads with it (MODEL.ROI_HEADS.NAME) are then chosen by themselves.
    cfg.MODEL.TYPE_HEAD = CfgNode()
    cfg.MODEL.TYPE_HEAD.NAMES = ()
    # Weight of its loss on boxes of a known type; boxes without one cost nothing.
    cfg.MODEL.TYPE_HEAD.LOSS_WEIGHT = 1.0
    # Weight of its loss on radiographs whose type is known as a whole (attribute `type`), which teaches their boxes.
    cfg.MODEL.TYPE_HEAD.IMAGE_LOSS_WEIGHT = 0.5
    # Train this head alone, with everything else frozen: boxes and scores stay those of MODEL.WEIGHTS.
    cfg.MODEL.TYPE_HEAD.ONLY = False

    # The backbone was pruned: its batch statistics are folded into its convolutions, whose numbers of channels are
    # those in the file MODEL.WEIGHTS.
    cfg.MODEL.PRUNED = False

    # Side of the square letterbox that every radiograph is scaled into, in pixels; padded with zeros.
    cfg.INPUT.LETTERBOX = 800
    # In evaluation and prediction each side is padded only to the next multiple of this, in pixels; 0: to the square.
    cfg.INPUT.LETTERBOX_STEP = 0

    # Augmentation, in training only; fracture_det/training/augmentation.py applies these keys in this order.
    # Rotation by an angle drawn from -ROTATION to ROTATION degrees.
    cfg.INPUT.ROTATION = 0.0
    # The letterbox is scaled by a factor drawn from (low, high).
    cfg.INPUT.SCALE = (1.0, 1.0)
    # Probability that a crop (INPUT.CROP) of a fractured image is placed around one of its boxes.
    cfg.INPUT.CROP.AROUND_BOX = 0.0
    # Probabilities of a vertical flip and of exchanging rows and columns; the horizontal flip is INPUT.RANDOM_FLIP.
    cfg.INPUT.VERTICAL_FLIP = 0.0
    cfg.INPUT.TRANSPOSE = 0.0
    # Grey values (0..1) are raised to a power drawn from (low, high).
    cfg.INPUT.GAMMA = (1.0, 1.0)
    # Brightness and contrast are multiplied by a factor drawn from (low, high).
    cfg.INPUT.BRIGHTNESS = (1.0, 1.0)
    cfg.INPUT.CONTRAST = (1.0, 1.0)
    # Probability of each of lower resolution, blur, JPEG compression and CLAHE; a third of it for inverted grey values.
    cfg.INPUT.DEGRADATION = 0.0

    # Class names in the order of the class indices; MODEL.ROI_HEADS.NUM_CLASSES must equal their number.
    cfg.DATASETS.CLASS_NAMES = ("fracture",)

    # Share of fractured images among those drawn for training; 0 draws every image equally often.
    cfg.DATALOADER.FRACTURED_SHARE = 0.0
    # How often the sources of DATASETS.TRAIN are drawn, in their order, relative to each other; empty: by their size.
    cfg.DATALOADER.SOURCE_WEIGHTS = ()

    # Length of training in epochs; with 0, SOLVER.MAX_ITER and SOLVER.STEPS apply instead.
    cfg.SOLVER.EPOCHS = 12
    # After these epochs the learning rate is multiplied by SOLVER.GAMMA.
    cfg.SOLVER.STEP_EPOCHS = (8, 11)
    # "SGD", or "AdamW", which transformers need; MOMENTUM and NESTEROV are of SGD alone.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # The learning rate of the backbone as a multiple of SOLVER.BASE_LR.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    # Decay of the exponential moving average (EMA) of the weights, which is then evaluated and saved; 0: no average.
    cfg.SOLVER.EMA_DECAY = 0.0

    # Epochs between evaluations on DATASETS.TEST; 0: only at the end.
    cfg.TEST.EVAL_PERIOD_EPOCHS = 1
    # Early stopping: stop when AP50 has not risen for this many evaluations; 0: never.
    cfg.TEST.PATIENCE = 0
    # Mixed precision in prediction, float16 on GPUs and bfloat16 on CPUs: faster on devices that support it, but
    # predictions change slightly and depend on the device.
    cfg.TEST.AMP = False
    # The score from which a box counts as a fracture, until an operating point is chosen on validation data.
    cfg.TEST.OPERATING_SCORE = 0.5


def _add_architectures(cfg: CfgNode) -> None:
    """Add the keys of MODEL.META_ARCHITECTURE EfficientDet, YOLOv3 and DETR."""
    # A network of effdet, whose backbone has the channels of MODEL.BACKBONE; its norms outside of the backbone: "BN" as
    # published, or "GN" (groups), which small batches need.
    cfg.MODEL.EFFICIENTDET = CfgNode()
    cfg.MODEL.EFFICIENTDET.NAME = "tf_efficientdet_d3"
    cfg.MODEL.EFFICIENTDET.NORM = "BN"

    # Width and height in px of three anchors for each feature map, from fine to coarse; of COCO, at 416 px.
    cfg.MODEL.YOLOV3 = CfgNode()
    cfg.MODEL.YOLOV3.ANCHORS = [
        [[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]],
        [[30.0, 61.0], [62.0, 45.0], [59.0, 119.0]],
        [[116.0, 90.0], [156.0, 198.0], [373.0, 326.0]],
    ]
    # Channels of the convolutions after each feature map, from fine to coarse, and their norm: "BN" or "GN".
    cfg.MODEL.YOLOV3.WIDTHS = (128, 256, 512)
    cfg.MODEL.YOLOV3.NORM = "BN"
    # A place without an object that overlaps one by more than this is not trained to be empty.
    cfg.MODEL.YOLOV3.IGNORE_IOU = 0.5

    # The transformer: how many boxes it can find, its layers, the width of its states and of their hidden layers.
    cfg.MODEL.DETR = CfgNode()
    cfg.MODEL.DETR.QUERIES = 100
    cfg.MODEL.DETR.ENCODER_LAYERS = 6
    cfg.MODEL.DETR.DECODER_LAYERS = 6
    cfg.MODEL.DETR.WIDTH = 256
    cfg.MODEL.DETR.HIDDEN_WIDTH = 2048
    cfg.MODEL.DETR.HEADS = 8
    cfg.MODEL.DETR.DROPOUT = 0.1


def default_config() -> CfgNode:
    """Return Detectron2's defaults with this project's keys added."""
    register_backbones()
    register_architectures()
    register_type_head()
    cfg = get_cfg()
    add_fracture_config(cfg)
    return cfg


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> CfgNode:
    """Return the configuration in the yaml file `path`, then `overrides` (KEY VALUE KEY VALUE ...).

    Keys of RENAMED_KEYS are read under their new name, with a warning. Without a GPU the device is the CPU: logged
    at INFO if nobody named a device, at WARNING if the file says cuda.
    Raises ConfigError for a missing or unreadable file, an unknown key, a value of the wrong type, contradicting keys,
    and for a GPU that `overrides` ask for and that is not there.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration file")
    if len(overrides) % 2:
        raise ConfigError(f"overrides come as KEY VALUE pairs, got {list(overrides)}")
    cfg = default_config()
    try:
        file_keys = CfgNode(_RenamingCfgNode.load_yaml_with_base(str(path)))
        if (version := file_keys.get("VERSION", cfg.VERSION)) != cfg.VERSION:
            raise ConfigError(f"{path}: VERSION: expected {cfg.VERSION}, got {version}")
        cfg.merge_from_other_cfg(file_keys)
    except ConfigError:
        raise
    except (KeyError, ValueError, AssertionError, OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error.args[0] if len(error.args) == 1 else error}") from error
    overrides = _rename_overrides(overrides)
    try:
        cfg.merge_from_list(list(overrides))
    except (KeyError, ValueError, AssertionError) as error:
        raise ConfigError(f"override {' '.join(overrides)}: {error.args[0] if error.args else error}") from error
    _check_device(cfg, path, named_in_file="DEVICE" in file_keys.get("MODEL", {}), overrides=overrides)
    select_roi_heads(cfg)
    check_config(cfg)
    return cfg


class _RenamingCfgNode(CfgNode):
    """A CfgNode that reads yaml files, bases included, with RENAMED_KEYS under their new names.

    Each file is renamed by itself, so that a leaf with the earlier name still overrides a base with the new one.
    """

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        with super()._open_cfg(filename) as file:
            # Never yaml.unsafe_load, which Detectron2 falls back to: a configuration that comes with weights is data.
            content = yaml.safe_load(file)
        if not isinstance(content, dict):
            raise ConfigError(f"{filename}: expected keys with values, got {content!r}")
        for old, new in RENAMED_KEYS.items():
            _rename_in_file(content, old, new, filename)
        return io.StringIO(yaml.safe_dump(content))


def _rename_in_file(content: dict[str, Any], old: str, new: str, filename: str) -> None:
    """Move the value of the dotted key `old`, if there is one, to `new`, in place."""
    *old_sections, old_leaf = old.split(".")
    *new_sections, new_leaf = new.split(".")
    section: Any = content
    for name in old_sections:
        section = section.get(name) if isinstance(section, dict) else None
    if not isinstance(section, dict) or old_leaf not in section:
        return
    _logger.warning("%s: the key %s is now called %s", filename, old, new)
    value, section = section.pop(old_leaf), content
    for name in new_sections:
        section = section.setdefault(name, {})
    if new_leaf in section:
        raise ConfigError(f"{filename}: {old} is the earlier name of {new}; give only {new}")
    section[new_leaf] = value


def _rename_overrides(overrides: Sequence[str]) -> list[str]:
    renamed = list(overrides)
    for index, key in enumerate(overrides[::2]):
        if key in RENAMED_KEYS:
            _logger.warning("the key %s is now called %s", key, RENAMED_KEYS[key])
            renamed[2 * index] = RENAMED_KEYS[key]
    return renamed


def _check_device(cfg: CfgNode, path: Path, *, named_in_file: bool, overrides: Sequence[str]) -> None:
    """Set MODEL.DEVICE to the CPU if there is no GPU, saying so; raise ConfigError if `overrides` ask for a GPU."""
    device = cfg.MODEL.DEVICE
    if not device.startswith("cuda") or torch.cuda.is_available():
        return
    if "MODEL.DEVICE" in overrides[::2]:
        raise ConfigError(
            f"MODEL.DEVICE {device}: PyTorch finds no GPU on this machine; MODEL.DEVICE cpu works anywhere"
        )
    if named_in_file:
        _logger.warning("%s: MODEL.DEVICE is %s, but PyTorch finds no GPU on this machine: using the CPU", path, device)
    else:
        _logger.info("no GPU: using the CPU")
    cfg.MODEL.DEVICE = "cpu"


def check_config(cfg: CfgNode) -> None:
    """Raise ConfigError when keys contradict each other."""
    if len(cfg.DATASETS.CLASS_NAMES) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise ConfigError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {cfg.MODEL.ROI_HEADS.NUM_CLASSES}, "
            f"but DATASETS.CLASS_NAMES names {list(cfg.DATASETS.CLASS_NAMES)}"
        )
    timm_builders = [builder.__name__ for builder in TIMM_BUILDERS]
    if cfg.MODEL.BACKBONE.NAME in timm_builders and not timm.is_model(cfg.MODEL.TIMM.NAME):
        raise ConfigError(f"MODEL.TIMM.NAME: timm {timm.__version__} has no network {cfg.MODEL.TIMM.NAME!r}")
    if cfg.MODEL.TIMM.NORM not in ("FrozenBN", "GN"):
        raise ConfigError(f"MODEL.TIMM.NORM: expected FrozenBN or GN, got {cfg.MODEL.TIMM.NORM!r}")
    _check_architecture(cfg)
    _check_type_head(cfg)
    if not 0 <= cfg.DATALOADER.FRACTURED_SHARE < 1:
        raise ConfigError(f"DATALOADER.FRACTURED_SHARE: expected 0 <= share < 1, got {cfg.DATALOADER.FRACTURED_SHARE}")
    weights = cfg.DATALOADER.SOURCE_WEIGHTS
    if not all(isinstance(weight, (int, float)) and 0 < weight < float("inf") for weight in weights):
        raise ConfigError(f"DATALOADER.SOURCE_WEIGHTS: expected numbers above 0, got {list(weights)}")
    if cfg.INPUT.LETTERBOX_STEP < 0 or cfg.INPUT.LETTERBOX_STEP % COARSEST_STRIDE:
        raise ConfigError(
            f"INPUT.LETTERBOX_STEP: expected 0 or a multiple of {COARSEST_STRIDE} px, the coarsest stride, "
            f"got {cfg.INPUT.LETTERBOX_STEP}"
        )
    if not 0 <= cfg.INPUT.ROTATION <= 180:
        raise ConfigError(f"INPUT.ROTATION: expected degrees from 0 to 180, got {cfg.INPUT.ROTATION}")
    if not 0 <= cfg.INPUT.DEGRADATION <= 1:
        raise ConfigError(f"INPUT.DEGRADATION: expected a probability from 0 to 1, got {cfg.INPUT.DEGRADATION}")
    if not 0 < min(cfg.INPUT.GAMMA) <= max(cfg.INPUT.GAMMA) or len(cfg.INPUT.GAMMA) != 2:
        raise ConfigError(f"INPUT.GAMMA: expected (low, high), both above 0, got {cfg.INPUT.GAMMA}")
    if list(cfg.SOLVER.STEP_EPOCHS) != sorted(cfg.SOLVER.STEP_EPOCHS):
        raise ConfigError(f"SOLVER.STEP_EPOCHS: expected ascending epochs, got {cfg.SOLVER.STEP_EPOCHS}")


def _check_architecture(cfg: CfgNode) -> None:
    name = cfg.MODEL.META_ARCHITECTURE
    if package := missing_package(name):
        raise ConfigError(f"MODEL.META_ARCHITECTURE {name}: {how_to_install(package)}")
    for key, norm in (("EFFICIENTDET", cfg.MODEL.EFFICIENTDET.NORM), ("YOLOV3", cfg.MODEL.YOLOV3.NORM)):
        if norm not in ("BN", "GN"):
            raise ConfigError(f"MODEL.{key}.NORM: expected BN or GN, got {norm!r}")
    maps = len(cfg.MODEL.TIMM.OUT_FEATURES)
    if name == "YOLOv3" and not maps == len(cfg.MODEL.YOLOV3.ANCHORS) == len(cfg.MODEL.YOLOV3.WIDTHS):
        raise ConfigError(
            f"MODEL.YOLOV3: expected ANCHORS and WIDTHS for each of {maps} feature maps (MODEL.TIMM.OUT_FEATURES), "
            f"got {len(cfg.MODEL.YOLOV3.ANCHORS)} and {len(cfg.MODEL.YOLOV3.WIDTHS)}"
        )
    if cfg.SOLVER.OPTIMIZER not in ("SGD", "AdamW"):
        raise ConfigError(f"SOLVER.OPTIMIZER: expected SGD or AdamW, got {cfg.SOLVER.OPTIMIZER!r}")


def _check_type_head(cfg: CfgNode) -> None:
    head = cfg.MODEL.TYPE_HEAD
    names, listed = list(head.NAMES), fracture_types().names
    if unlisted := [name for name in names if name not in listed]:
        raise ConfigError(f"MODEL.TYPE_HEAD.NAMES: {unlisted[0]!r} is not in {TYPES_FILE}: {', '.join(listed)}")
    if len(names) == 1 or len(set(names)) < len(names):
        raise ConfigError(f"MODEL.TYPE_HEAD.NAMES: expected () or several different names, got {names}")
    for key in ("LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT"):
        if not 0 <= head[key] < float("inf"):
            raise ConfigError(f"MODEL.TYPE_HEAD.{key}: expected 0 or more, got {head[key]}")
    if head.ONLY and not names:
        raise ConfigError("MODEL.TYPE_HEAD.ONLY: there is no head to train; name its types in MODEL.TYPE_HEAD.NAMES")
    for key in ("RESNETS", "FPN", "ROI_BOX_HEAD"):
        norm = cfg.MODEL[key].NORM
        if head.ONLY and norm not in ("", "FrozenBN", "GN", "LN"):
            raise ConfigError(
                f"MODEL.TYPE_HEAD.ONLY: MODEL.{key}.NORM {norm} would change with every batch; use FrozenBN"
            )
    kind = (cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ROI_HEADS.NAME)
    if names and kind != ("GeneralizedRCNN", TYPED):
        raise ConfigError(f"MODEL.TYPE_HEAD.NAMES: only Faster R-CNN with {STANDARD} can tell types, not {kind}")


def iterations_per_epoch(cfg: CfgNode, n_images: int) -> int:
    """Return how many batches one pass over `n_images` takes."""
    return max(1, round(n_images / cfg.SOLVER.IMS_PER_BATCH))


def resolve_epochs(cfg: CfgNode, n_images: int) -> CfgNode:
    """Return a copy of `cfg` whose epoch keys are converted to iterations, for `n_images` training images.

    Sets SOLVER.MAX_ITER, SOLVER.STEPS, SOLVER.CHECKPOINT_PERIOD (an epoch, or as written if that is less) and
    TEST.EVAL_PERIOD. With SOLVER.EPOCHS 0 MAX_ITER and STEPS stay as written. Steps at or after the end of training are
    dropped.
    """
    cfg = cfg.clone()
    cfg.defrost()
    per_epoch = iterations_per_epoch(cfg, n_images)
    if cfg.SOLVER.EPOCHS:
        cfg.SOLVER.MAX_ITER = round(cfg.SOLVER.EPOCHS * per_epoch)
        cfg.SOLVER.STEPS = tuple(round(epoch * per_epoch) for epoch in cfg.SOLVER.STEP_EPOCHS)
    cfg.SOLVER.STEPS = tuple(step for step in cfg.SOLVER.STEPS if step < cfg.SOLVER.MAX_ITER)
    cfg.SOLVER.CHECKPOINT_PERIOD = min(per_epoch, cfg.SOLVER.CHECKPOINT_PERIOD)
    cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD_EPOCHS * per_epoch)
    return cfg
