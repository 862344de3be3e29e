"""From a training folder to files that others can run; each export runs what it wrote and compares."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from fracture_det.checkpoints import load_checkpoint, sha256_of
from fracture_det.config import load_config
from fracture_det.detections import Detections, box_iou
from fracture_det.images import read_radiograph
from fracture_det.inference.d2 import CHECKSUM_FILE, CONFIG_FILE, D2Detector, find_weights
from fracture_det.inference.detector import Detector

WEIGHTS_NAME = "model.safetensors"
# Measures of training that say how the weights came to be.
TRAINING_FILES = {"metrics.json": "training_log.jsonl", "loss_curves.png": "loss_curves.png"}
# How far the export may move what the source finds with at least SCORE_COMPARED.
MAX_BOX_SHIFT_PX = 1.0
MAX_SCORE_SHIFT = 0.01
SCORE_COMPARED = 0.05
# Of two overlapping boxes with nearly the same score, rounding may change which one survives suppression; such a box
# then has only a neighbour for a partner. More of them than this share are no such accident.
MAX_SHARE_MOVED = 0.02


class ExportError(ValueError):
    """An export could not be made, or does not answer as its source; the message says by how much."""


@dataclass(frozen=True)
class Agreement:
    """How an export answers, compared with its source.

    n_boxes: boxes that were compared. n_moved: of these, how many have no partner within the allowed shifts.
    largest_shift: of the scores of all others.
    """

    n_boxes: int
    n_moved: int
    largest_shift: float


def export_safetensors(source: Path, out: Path, check_images: Sequence[Path], *, title: str = "") -> Agreement:
    """Write the weights in `source` (a training folder or file) to the folder `out`; return how both agree.

    out: model.safetensors (half precision, but one-dimensional tensors whole), config.yaml without the paths of the
    training, the training log and SHA256SUMS. title: MODEL.TITLE, if it should change.
    The export must find on `check_images` what the source finds: boxes within 1 px, scores within .01, but for 2 % of
    the boxes, between which suppression decides.

    Raises ExportError when it does not, and DetectorError when `source` is not a trained detector.
    """
    if not check_images:
        raise ExportError("no images to compare on")
    weights = find_weights(source)
    detector = D2Detector.open(str(weights))
    out.mkdir(parents=True, exist_ok=True)
    state = {key: _halved(value) for key, value in load_checkpoint(weights)["model"].items()}
    save_file(state, out / WEIGHTS_NAME, metadata={"format": "pt", "source_sha256": detector.sha256})
    (out / WEIGHTS_NAME).chmod(0o644)  # safetensors writes for its owner only; a server runs as another user
    _write_config(weights.parent / CONFIG_FILE, out / CONFIG_FILE, title)
    for name, kept_as in TRAINING_FILES.items():
        if (weights.parent / name).is_file():
            shutil.copyfile(weights.parent / name, out / kept_as)
    sums = "".join(f"{sha256_of(out / name)}  {name}\n" for name in (CONFIG_FILE, WEIGHTS_NAME))
    (out / CHECKSUM_FILE).write_text(sums)
    return compare(detector, D2Detector.open(str(out)), check_images)


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous() if tensor.ndim <= 1 else tensor.half().contiguous()


def _write_config(source: Path, target: Path, title: str) -> None:
    cfg = load_config(source)
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = "", "."
    cfg.MODEL.DEVICE = "cuda"  # where there is one; load_config falls back to the CPU
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), ()
    cfg.MODEL.TITLE = title or cfg.MODEL.TITLE
    target.write_text(cfg.dump())


def compare(source: Detector, export: Detector, images: Sequence[Path]) -> Agreement:
    """Return how two detectors agree on `images`; boxes below SCORE_COMPARED - MAX_SCORE_SHIFT do not count.

    Raises ExportError when more than MAX_SHARE_MOVED of the boxes of both have no partner within the allowed shifts.
    """
    shifts: list[float] = []
    moved: list[str] = []
    for path in images:
        pixels = read_radiograph(path).pixels
        (expected,), (found,) = source.predict([pixels]), export.predict([pixels])
        for one, other in ((expected, found), (found, expected)):
            for score, shift_px, shift in _partners(one.above(SCORE_COMPARED), other):
                if shift_px > MAX_BOX_SHIFT_PX or shift > MAX_SCORE_SHIFT:
                    moved.append(
                        f"{path}: a box of score {score:.3f} moved by {shift_px:.2f} px, its score by {shift:.4f}"
                    )
                else:
                    shifts.append(shift)
    n_boxes = len(shifts) + len(moved)
    if len(moved) > MAX_SHARE_MOVED * n_boxes:
        raise ExportError(f"{len(moved)} of {n_boxes} boxes differ, such as {moved[0]}")
    return Agreement(n_boxes, len(moved), max(shifts, default=0.0))


def _partners(boxes: Detections, others: Detections) -> Iterator[tuple[float, float, float]]:
    """Yield each box's score, and how far its partner's sides (pixels) and score are from its own."""
    overlaps = box_iou(boxes.boxes, others.boxes)
    for index, score in enumerate(boxes.scores):
        if not len(others):
            yield float(score), np.inf, float(score)
            continue
        partner = int(overlaps[index].argmax())
        shift_px = float(np.abs(boxes.boxes[index] - others.boxes[partner]).max())
        yield float(score), shift_px, float(abs(score - others.scores[partner]))
