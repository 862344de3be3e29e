"""Comparison of an export with its source: the same but for rounding, or for INT8 and pruning nearly as accurate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fracture_det.data.pooling import SOURCE
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.image_level import auroc, images_of
from fracture_det.evaluation.lesion_level import average_precision
from fracture_det.evaluation.matching import match_dataset
from fracture_det.inference.base import Detector
from fracture_det.structures.boxes import box_iou
from fracture_det.structures.detections import Detections
from fracture_det.structures.radiograph import read_radiograph

# How far an export may move boxes and scores of the source's detections of at least SCORE_COMPARED.
MAX_BOX_SHIFT_PX = 1.0
MAX_SCORE_SHIFT = 0.01
# Of the probability of a type of fracture, where the detector tells types.
MAX_TYPE_SHIFT = 0.02
SCORE_COMPARED = 0.05
# Of two overlapping boxes with nearly equal scores, rounding may change which one survives NMS; its best match in the
# other detector is then a neighbour. More of them than this share have another cause.
MAX_SHARE_MOVED = 0.02
# How much of a metric in 0..1 INT8 or pruning may cost.
MAX_AUROC_DROP = 0.005
MAX_AP50_DROP_INT8 = 0.005
MAX_AP50_DROP_PRUNED = 0.01


class ExportError(ValueError):
    """An export could not be made, or does not predict what its source does; the message says by how much."""


@dataclass(frozen=True)
class ComparisonResult:
    """How well the detections of an export agree with those of its source.

    n_boxes: boxes that were compared. n_moved: of these, how many have no match within the allowed shifts.
    largest_shift: of the scores of all others. largest_type_shift: of their probabilities of types; None without types.
    """

    n_boxes: int
    n_moved: int
    largest_shift: float
    largest_type_shift: float | None = None

    def __str__(self) -> str:
        same = f"{self.n_boxes - self.n_moved} of {self.n_boxes} boxes"
        types = "" if self.largest_type_shift is None else f" and types within {self.largest_type_shift:.5f}"
        return f"{same} stay, with scores within {self.largest_shift:.5f}{types}"


@dataclass(frozen=True)
class Accuracy:
    """AP50 and image-level AUROC, both 0..1, on `n_images` annotated images.

    ap50: of pooled data sets the mean over those with a box, so that a large one does not decide alone. by_source: of
    each of them. auroc: of all images together, since a source may have no healthy one.
    """

    ap50: float
    auroc: float
    n_images: int
    by_source: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        sources = ", ".join(f"{name} {ap50:.4f}" for name, ap50 in self.by_source.items())
        means = f" (mean of {sources})" if sources else ""
        return f"AP50 {self.ap50:.4f}{means}, AUROC {self.auroc:.4f} on {self.n_images} images"


def compare_detectors(source: Detector, export: Detector, images: Sequence[Path]) -> ComparisonResult:
    """Return how well two detectors agree on `images`, in their boxes with a score of at least SCORE_COMPARED.

    Raises ExportError when more than MAX_SHARE_MOVED of the boxes of both have no match within the allowed shifts, when
    they tell other types of fracture, or when there is no image to compare on.
    """
    if not images:
        raise ExportError("no images to compare on")
    if source.info.type_names != export.info.type_names:
        raise ExportError(f"the types are {export.info.type_names}, those of the source {source.info.type_names}")
    score_shifts: list[float] = []
    type_shifts: list[float] = []
    moved: list[str] = []
    for path in tqdm(images, desc="comparing", unit="image", disable=None):
        pixels = read_radiograph(path).pixels
        (expected,), (exported,) = source.predict([pixels]), export.predict([pixels])
        for detections, others in ((expected, exported), (exported, expected)):
            for shift in _shifts(detections.above(SCORE_COMPARED), others):
                if shift.too_far:
                    moved.append(f"{path}: {shift}")
                else:
                    score_shifts.append(shift.of_score)
                    type_shifts.append(shift.of_types)
    n_boxes = len(score_shifts) + len(moved)
    if len(moved) > MAX_SHARE_MOVED * n_boxes:
        raise ExportError(f"{len(moved)} of {n_boxes} boxes differ, such as {moved[0]}")
    of_types = max(type_shifts, default=0.0) if source.info.type_names else None
    return ComparisonResult(n_boxes, len(moved), max(score_shifts, default=0.0), of_types)


class _Shift(NamedTuple):
    """How far a box's best match by IoU differs: its sides in pixels, its score, its probabilities of types."""

    score: float
    box_px: float
    of_score: float
    of_types: float = 0.0

    @property
    def too_far(self) -> bool:
        """Whether it is more than rounding."""
        shifts = (self.box_px, self.of_score, self.of_types)
        return any(a > b for a, b in zip(shifts, (MAX_BOX_SHIFT_PX, MAX_SCORE_SHIFT, MAX_TYPE_SHIFT), strict=True))

    def __str__(self) -> str:
        types = f", its types by {self.of_types:.4f}" if self.of_types else ""
        return f"a box of score {self.score:.3f} moved by {self.box_px:.2f} px, its score by {self.of_score:.4f}{types}"


def _shifts(detections: Detections, others: Detections) -> Iterator[_Shift]:
    """Yield how far the best match by IoU of each box differs."""
    iou = box_iou(detections.boxes, others.boxes)
    for index, score in enumerate(detections.scores):
        if not len(others):
            yield _Shift(float(score), np.inf, float(score))
            continue
        match = int(iou[index].argmax())
        box_shift_px = float(np.abs(detections.boxes[index] - others.boxes[match]).max())
        of_types = 0.0
        if detections.types is not None and others.types is not None:
            of_types = float(np.abs(detections.types[index] - others.types[match]).max())
        yield _Shift(float(score), box_shift_px, float(abs(score - others.scores[match])), of_types)


def measure_accuracy(detector: Detector, dataset: Dataset, images: Path, *, batch_size: int = 8) -> Accuracy:
    """Return the accuracy of a detector on all of `dataset`, whose files lie in `images`.

    Raises ExportError when the data set has no fractured or no healthy image.
    """
    if not 0 < sum(len(record.boxes) > 0 for record in dataset.records) < len(dataset.records):
        raise ExportError("the data set to compare on needs fractured and healthy images")
    predictions: dict[int, Detections] = {}
    records = dataset.records
    for first in tqdm(range(0, len(records), batch_size), desc=detector.info.name, unit="batch", disable=None):
        batch = records[first : first + batch_size]
        detections = detector.predict([read_radiograph(images / record.file_name).pixels for record in batch])
        predictions.update(zip((record.image_id for record in batch), detections, strict=True))
    matches = match_dataset(dataset, predictions)
    scored = images_of(matches)
    by_source = _ap50_by_source(dataset, predictions)
    ap50 = float(np.mean(list(by_source.values()))) if by_source else average_precision(matches)
    return Accuracy(ap50, auroc(scored.score, scored.positive), len(dataset.records), by_source)


def _ap50_by_source(dataset: Dataset, predictions: Mapping[int, Detections]) -> dict[str, float]:
    """Return the AP50 of each of several pooled sources that has a box; nothing for a data set that is not pooled."""
    parts: dict[str, list[ImageRecord]] = {}
    for record in dataset.records:
        parts.setdefault(record.attributes.get(SOURCE, ""), []).append(record)
    if len(parts) == 1:
        return {}
    return {
        source: average_precision(match_dataset(replace(dataset, records=tuple(records)), predictions))
        for source, records in parts.items()
        if any(len(record.boxes) for record in records)
    }


def check_drop(source: Accuracy, export: Accuracy, *, ap50: float) -> None:
    """Raise ExportError when the export lost more than `ap50` of AP50 (0..1) or MAX_AUROC_DROP of AUROC."""
    drops = (("AP50", source.ap50 - export.ap50, ap50), ("AUROC", source.auroc - export.auroc, MAX_AUROC_DROP))
    lost = [f"{name} drops by {drop:.4f}, allowed are {allowed:g}" for name, drop, allowed in drops if drop > allowed]
    if lost:
        raise ExportError(f"{'; '.join(lost)} ({source} before)")
