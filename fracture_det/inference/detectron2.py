"""The Detectron2 detector: DefaultPredictor with our letterbox, many images at a time."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor

from fracture_det.inference.base import DetectorError, DetectorInfo, ModelInput, card_beside
from fracture_det.inference.checksums import ChecksumError, checked_sha256
from fracture_det.inference.stage_timer import stage
from fracture_det.modeling.checkpoints import WeightsError, build_model_for, unloaded_keys
from fracture_det.modeling.config import ConfigError, load_config
from fracture_det.structures.detections import Detections
from fracture_det.structures.hashes import sha256_of
from fracture_det.structures.letterbox import Letterbox, detections_on_image, group_by_letterbox_size
from fracture_det.structures.processors import available_cpus
from fracture_det.structures.radiograph import Pixels

# The file that a training folder is opened by.
WEIGHT_FILES = ("model.safetensors", "model_best.pth", "model_final.pth")
CONFIG_FILE = "config.yaml"
log = logging.getLogger(__name__)


def letterbox_of(cfg: CfgNode) -> Letterbox:
    """Return the letterbox in which a trained model sees radiographs."""
    return Letterbox(cfg.INPUT.LETTERBOX, cfg.INPUT.LETTERBOX_STEP or None)


def undo_letterbox(instances: Any, letterbox: Letterbox, size: tuple[int, int]) -> Detections:
    """Return a model's Instances, which are in the letterbox frame, as Detections on the image of `size` (h, w)."""
    boxes, scores = (tensor.float().cpu().numpy() for tensor in (instances.pred_boxes.tensor, instances.scores))
    types = instances.pred_types.float().cpu().numpy() if instances.has("pred_types") else None
    return detections_on_image(boxes, scores, instances.pred_classes.cpu().numpy(), letterbox, size, types)


class LetterboxPredictor(DefaultPredictor):
    """Detectron2's DefaultPredictor with this project's letterbox and weights, for any number of images.

    cfg: a complete configuration; weights: a .pth or .safetensors file that fills every parameter of the model.
    Raises WeightsError when the file leaves a part of the model untrained or cannot be read.
    """

    def __init__(self, cfg: CfgNode, weights: Path) -> None:
        # DefaultPredictor's own __init__ reads pickles and lets untrained layers pass with a warning.
        self.cfg = cfg.clone()
        self.cfg.defrost()
        self.cfg.MODEL.WEIGHTS = str(weights)
        self.model: Any = build_model_for(self.cfg, weights).to(memory_format=torch.channels_last)
        self.model.eval()
        torch.set_num_threads(min(torch.get_num_threads(), available_cpus()))
        if unloaded := unloaded_keys(self.model, weights):
            raise WeightsError(
                f"{weights}: not a trained detector for this configuration, {len(unloaded)} of its tensors are "
                f"missing or of another shape, such as {unloaded[0]}. Train one with tools/train_net.py"
            )
        self.letterbox = letterbox_of(cfg)
        self.input_format = cfg.INPUT.FORMAT

    def __call__(self, original_image: np.ndarray) -> dict[str, Any]:
        """Predict one image (H, W, 3) uint8 BGR, as DefaultPredictor does; boxes in the letterbox frame."""
        return self.predict_batch([original_image[:, :, ::-1]])[0]

    @torch.no_grad()
    def predict_batch(self, images: Sequence[Pixels]) -> list[dict[str, Any]]:
        """Predict images (H_i, W_i, 3) uint8 RGB; the `instances` of each are in the letterbox frame."""
        outputs: dict[int, dict[str, Any]] = {}
        for group in group_by_letterbox_size(images, self.letterbox):
            with stage("preprocess"):
                inputs = [self._input(images[index]) for index in group]
            with stage("model"):  # with Detectron2's normalisation and NMS
                dtype = torch.float16 if self.model.device.type == "cuda" else torch.bfloat16
                with torch.autocast(self.model.device.type, dtype=dtype, enabled=self.cfg.TEST.AMP):
                    outputs.update(zip(group, self.model(inputs), strict=True))
        return [outputs[index] for index in range(len(images))]

    def _input(self, image: Pixels) -> dict[str, torch.Tensor]:
        step = -1 if self.input_format == "BGR" else 1
        planes = self.letterbox.apply_image(image)[:, :, ::step].transpose(2, 0, 1)
        return {"image": torch.from_numpy(np.ascontiguousarray(planes))}


class D2Detector:
    """A Detectron2 model as a Detector.

    title: the model's display name. sha256: of the weight file.
    info: named by both; its `about` has the SHA-256 of the configuration and what was changed in it.
    """

    def __init__(
        self,
        predictor: LetterboxPredictor,
        *,
        title: str,
        sha256: str,
        card: Path | None = None,
        about: Mapping[str, str] | None = None,
    ) -> None:
        self.predictor, self.title, self.sha256 = predictor, title, sha256
        device = predictor.model.device
        self.info = DetectorInfo(
            f"{title} {sha256[:8]}",
            tuple(predictor.cfg.DATASETS.CLASS_NAMES),
            sha256=sha256,
            card=card,
            operating_score=float(predictor.cfg.TEST.OPERATING_SCORE),
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            input=ModelInput(predictor.letterbox, predictor.input_format),
            about=about or {},
            type_names=tuple(predictor.cfg.MODEL.TYPE_HEAD.NAMES),
        )

    @classmethod
    def open(cls, target: str, *, nms_iou: float | None = None) -> D2Detector:
        """Open a training or shipped folder, or one weight file with its `config.yaml` beside it.

        nms_iou: IoU above which the lower of two boxes is suppressed, instead of the configuration's.
        Raises DetectorError when a file is missing, broken, not trained, or not of its recorded SHA-256.
        """
        weights = find_weights(Path(target))
        overrides = [] if nms_iou is None else ["MODEL.ROI_HEADS.NMS_THRESH_TEST", str(nms_iou)]
        config_file = weights.parent / CONFIG_FILE
        if not config_file.is_file():
            raise DetectorError(f"detector d2:{target}: no {CONFIG_FILE} beside {weights.name}")
        try:
            cfg = load_config(config_file, overrides)
            digest = checked_sha256(weights)
            predictor = LetterboxPredictor(cfg, weights)
        except (ChecksumError, ConfigError, WeightsError) as error:
            raise DetectorError(f"detector d2:{target}: {error}") from error
        title = cfg.MODEL.TITLE or weights.parent.name
        about = {"config": config_file.name, "config SHA-256": sha256_of(config_file)}
        if nms_iou is not None:
            about["NMS IoU"] = f"{nms_iou:g}"
        detector = cls(predictor, title=title, sha256=digest, card=card_beside(weights), about=about)
        log.info("opened %s on %s", weights, detector.info.device)
        return detector

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB, in its pixels, down to SCORE_THRESH_TEST."""
        if not images:
            return []
        outputs = self.predictor.predict_batch(images)
        with stage("model"):  # an accelerator may still be at work; copying waits for it
            instances = [output["instances"].to("cpu") for output in outputs]
        with stage("postprocess"):
            return [
                undo_letterbox(of_image, self.predictor.letterbox, image.shape[:2])
                for of_image, image in zip(instances, images, strict=True)
            ]


def find_weights(target: Path) -> Path:
    """Return the weight file that `target`, a folder or a file, stands for. Raises DetectorError when there is none."""
    if target.is_dir():
        for name in WEIGHT_FILES:
            if (target / name).is_file():
                return target / name
        raise DetectorError(f"detector d2:{target}: none of {', '.join(WEIGHT_FILES)} is in the folder")
    if not target.is_file():
        raise DetectorError(f"detector d2:{target}: no such file or folder; train one with tools/train_net.py")
    return target
