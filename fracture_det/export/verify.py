"""What an export may change: nothing but rounding, or for INT8 and pruning a stated little of its accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fracture_det.data.records import Dataset
from fracture_det.evaluation.image_level import auroc, images_of
from fracture_det.evaluation.lesion_level import average_precision
from fracture_det.evaluation.matching import match_dataset
from fracture_det.inference.base import Detector
from fracture_det.structures.boxes import box_iou
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import read_radiograph

# How far an export may move what the source finds with at least SCORE_COMPARED.
MAX_BOX_SHIFT_PX = 1.0
MAX_SCORE_SHIFT = 0.01
SCORE_COMPARED = 0.05
# Of two overlapping boxes with nearly the same score, rounding may change which one survives suppression; such a box
# then has only a neighbour for a partner. More of them than this share are no such accident.
MAX_SHARE_MOVED = 0.02
# How much INT8 or pruning may cost, of values in 0..1.
MAX_AUROC_DROP = 0.005
MAX_AP50_DROP_INT8 = 0.005
MAX_AP50_DROP_PRUNED = 0.01


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

    def __str__(self) -> str:
        same = f"{self.n_boxes - self.n_moved} of {self.n_boxes} boxes"
        return f"{same} stay, with scores within {self.largest_shift:.5f}"


@dataclass(frozen=True)
class Accuracy:
    """AP50 and image-level AUROC, both 0..1, on `n_images` annotated images."""

    ap50: float
    auroc: float
    n_images: int

    def __str__(self) -> str:
        return f"AP50 {self.ap50:.4f}, AUROC {self.auroc:.4f} on {self.n_images} images"


def compare(source: Detector, export: Detector, images: Sequence[Path]) -> Agreement:
    """Return how two detectors agree on `images`; boxes below SCORE_COMPARED - MAX_SCORE_SHIFT do not count.

    Raises ExportError when more than MAX_SHARE_MOVED of the boxes of both have no partner within the allowed shifts,
    or when there is no image to compare on.
    """
    if not images:
        raise ExportError("no images to compare on")
    shifts: list[float] = []
    moved: list[str] = []
    for path in tqdm(images, desc="comparing", unit="image", disable=None):
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


def accuracy_of(detector: Detector, dataset: Dataset, images: Path, *, batch_size: int = 8) -> Accuracy:
    """Return the accuracy of a detector on all of `dataset`, whose files lie in `images`.

    Raises ExportError where the data set cannot tell: without a fractured or without a healthy image.
    """
    if not 0 < sum(len(record.boxes) > 0 for record in dataset.records) < len(dataset.records):
        raise ExportError("the data set to compare on needs fractured and healthy images")
    found: dict[int, Detections] = {}
    records = dataset.records
    for first in tqdm(range(0, len(records), batch_size), desc=detector.info.name, unit="batch", disable=None):
        batch = records[first : first + batch_size]
        answers = detector.predict([read_radiograph(images / record.file_name).pixels for record in batch])
        found.update(zip((record.image_id for record in batch), answers, strict=True))
    return judge(dataset, found)


def judge(dataset: Dataset, found: Mapping[int, Detections]) -> Accuracy:
    """Return the accuracy of the detections {image_id: Detections}."""
    matches = match_dataset(dataset, found)
    scored = images_of(matches)
    return Accuracy(average_precision(matches), auroc(scored.score, scored.positive), len(dataset.records))


def check_drop(source: Accuracy, export: Accuracy, *, ap50: float) -> None:
    """Raise ExportError when the export lost more than `ap50` of AP50 (0..1) or MAX_AUROC_DROP of AUROC."""
    drops = (("AP50", source.ap50 - export.ap50, ap50), ("AUROC", source.auroc - export.auroc, MAX_AUROC_DROP))
    lost = [f"{name} drops by {drop:.4f}, allowed are {allowed:g}" for name, drop, allowed in drops if drop > allowed]
    if lost:
        raise ExportError(f"{'; '.join(lost)} ({source} before)")
