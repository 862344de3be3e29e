"""Detectron2's own DefaultPredictor, used as in its documentation: the reference of all comparisons of speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from detectron2.engine import DefaultPredictor

from fracture_det.inference.base import DetectorInfo
from fracture_det.inference.detectron2 import CONFIG_FILE, find_weights
from fracture_det.inference.stage_timer import stage
from fracture_det.modeling.checkpoints import load_checkpoint
from fracture_det.modeling.config import load_config
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import Pixels


class DefaultPredictorDetector:
    """DefaultPredictor, one image at a time, its shortest side scaled to the model's size. It has no letterbox."""

    def __init__(self, predictor: DefaultPredictor, *, name: str) -> None:
        self.predictor = predictor
        score = float(predictor.cfg.TEST.OPERATING_SCORE)
        device = str(predictor.model.device)
        self.info = DetectorInfo(name, predictor.cfg.DATASETS.CLASS_NAMES, operating_score=score, device=device)

    def predict(self, images: Sequence[Pixels]) -> list[Detections]:
        """Return one Detections per image (H_i, W_i, 3) uint8 RGB."""
        return [self._predict(image) for image in images]

    def _predict(self, image: Pixels) -> Detections:
        with stage("model"):
            instances = self.predictor(np.ascontiguousarray(image[:, :, ::-1]))["instances"]
        boxes, scores = instances.pred_boxes.tensor.numpy(), instances.scores.numpy()
        return Detections.from_unsorted(boxes, scores, instances.pred_classes.numpy())


def open_default_predictor(target: str) -> DefaultPredictorDetector:
    """Open a folder or file of d2: with DefaultPredictor. Raises DetectorError or WeightsError as d2: does."""
    weights = find_weights(Path(target))
    cfg = load_config(weights.parent / CONFIG_FILE)
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.LETTERBOX
    with TemporaryDirectory() as folder:
        # It cannot read safetensors.
        cfg.MODEL.WEIGHTS = str(Path(folder) / "model.pth")
        state = {key: value.float() for key, value in load_checkpoint(weights)["model"].items()}
        torch.save({"model": state}, cfg.MODEL.WEIGHTS)
        return DefaultPredictorDetector(DefaultPredictor(cfg), name=f"DefaultPredictor {cfg.MODEL.TITLE}")
