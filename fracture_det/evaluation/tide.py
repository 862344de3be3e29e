"""TIDE: why a box is wrong or a fracture missed, and the AP50 gained if one type of error alone were corrected.

Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020; where the
paper leaves a boundary open, the authors' own program decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.lesion_level import interpolated_precision
from fracture_det.evaluation.matching import MAX_DETECTIONS, in_crowd, match_to_truth, shared_records
from fracture_det.structures.boxes import box_iou
from fracture_det.structures.detections import Detections

# Kinds of boxes. The order of the first six is the paper's.
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, HIT = range(6)
KINDS = ("classification", "localisation", "both", "duplicate", "background", "hit")
# Errors of a box that would hit if only this were right.
NEARLY = (CLASSIFICATION, LOCALISATION)
MISSED, FALSE_POSITIVE, FALSE_NEGATIVE = "missed", "false positive", "false negative"
TYPES = (*KINDS[:HIT], MISSED, FALSE_POSITIVE, FALSE_NEGATIVE)
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
Weights = NDArray[np.float64]
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ImageErrors:
    """The kind of each of the N detections on one image.

    kind: (N,) index into KINDS. truth: (N,) index of the truth box that it hits, or that the error is about, or that
    it overlaps most; -1 when it touches none. iou: (N,) its overlap with that one.
    ignored: (N,) bool, it lies in a crowd region and hits nothing. counted: (N,) bool, it is among the 100 highest
    scores of its class, as COCO counts, and not ignored.
    """

    kind: Indices
    truth: Indices
    iou: NDArray[np.float64]
    counted: Flags
    ignored: Flags


def image_errors(detections: Detections, record: ImageRecord) -> ImageErrors:
    """Return the kind of each detection, by its highest overlaps with the truth:

    hit; localisation: .1 to .5 with its class; classification: at least .5 with another class; duplicate: over .5 with
    its class, where a higher score hit; background: at most .1 with all; both: the rest, .1 to .5 with another class.
    """
    n, counted = len(detections), _counted(detections.classes)
    crowd = in_crowd(detections, record, iou=FOREGROUND_IOU)
    if not len(record.boxes):
        no_truth = np.full(n, -1, dtype=np.int64)
        background = np.full(n, BACKGROUND, dtype=np.int64)
        return ImageErrors(background, no_truth, np.zeros(n), counted & ~crowd, crowd)
    overlaps = box_iou(detections.boxes, record.boxes)
    own = detections.classes[:, None] == record.classes[None, :]
    within, across = np.where(own, overlaps, 0.0), np.where(own, 0.0, overlaps)
    own_iou, other_iou, best_iou = within.max(axis=1), across.max(axis=1), overlaps.max(axis=1)
    hits = match_to_truth(detections, record.boxes, record.classes, iou=FOREGROUND_IOU)
    tests = [hits >= 0, (own_iou >= BACKGROUND_IOU) & (own_iou <= FOREGROUND_IOU), other_iou >= FOREGROUND_IOU,
             own_iou > FOREGROUND_IOU, best_iou <= BACKGROUND_IOU]  # fmt: skip
    kind = np.select(tests, [HIT, LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND], BOTH).astype(np.int64)
    partners = [hits, within.argmax(axis=1), across.argmax(axis=1), within.argmax(axis=1)]
    truth = np.select(tests[:4], partners, overlaps.argmax(axis=1)).astype(np.int64)
    iou = overlaps[np.arange(n), truth]
    ignored = crowd & (hits < 0)
    return ImageErrors(kind, np.where(iou > 0, truth, -1), iou, counted & ~ignored, ignored)


def _counted(classes: Indices) -> Flags:
    counted = np.ones(len(classes), dtype=bool)
    for label in np.unique(classes) if len(classes) > MAX_DETECTIONS else ():
        counted[np.flatnonzero(classes == label)[MAX_DETECTIONS:]] = False
    return counted


def unfound(kind: Indices, truth: Indices, n_truth: int) -> tuple[Flags, Flags]:
    """Return which of T truth boxes none of N boxes hits, and which of these are missed (T,).

    kind, truth: (N,) of the boxes, as in ImageErrors. Missed: no box has only its location or its class wrong.
    """
    unhit, missed = np.ones(n_truth, dtype=bool), np.ones(n_truth, dtype=bool)
    unhit[truth[kind == HIT]] = False
    missed[truth[np.isin(kind, (HIT, *NEARLY))]] = False
    return unhit, missed


@dataclass(frozen=True, eq=False)
class Tide:
    """The errors of D detections on I images with T truth boxes.

    Detections, in descending order of score (ties in order of image id):
    score: (D,) float32. image: (D,) index into the images. label: (D,) class index. box: (D, 4) float32.
    kind: (D,) index into KINDS. truth: (D,) index of the truth box that it is about, or -1.
    Truth boxes, in order of image id:
    truth_image: (T,). truth_label: (T,). truth_box: (T, 4) float64.
    """

    score: NDArray[np.float32]
    image: Indices
    label: Indices
    box: NDArray[np.float32]
    kind: Indices
    truth: Indices
    truth_image: Indices
    truth_label: Indices
    truth_box: NDArray[np.float64]

    @cached_property
    def hit(self) -> Flags:
        """(D,) True where a truth box is hit."""
        return np.asarray(self.kind == HIT)

    def predicted(self, score: float) -> Flags:
        """Return (D,) where a box has at least `score`."""
        return np.asarray(self.score >= np.float32(score))

    def unfound(self, score: float) -> tuple[Flags, Flags]:
        """Return (T,) where no box of at least `score` hits, and which of these are missed; see `unfound`."""
        predicted = self.predicted(score)
        return unfound(self.kind[predicted], self.truth[predicted], len(self.truth_label))

    def counts(self, score: float) -> dict[str, int]:
        """Return how often each type occurs among the boxes of at least `score`.

        The kind of a box does not depend on `score`: it rests on boxes of higher scores only.
        """
        of_kind = np.bincount(self.kind[self.predicted(score)], minlength=len(KINDS))
        unhit, missed = self.unfound(score)
        rows = [*of_kind[:HIT], missed.sum(), of_kind[:HIT].sum(), unhit.sum()]
        return dict(zip(TYPES, map(int, rows), strict=True))

    @property
    def ap50(self) -> float:
        """AP50 as it is, over all boxes, whatever their score; NaN without truth."""
        return self.corrected_ap50(None)

    def corrected_ap50(self, error: str | None, weights: Weights | None = None) -> float:
        """Return the AP50 of an oracle that corrects one of TYPES alone, or nothing; NaN without truth.

        weights: (I,) how often each image counts in a bootstrap resample.

        classification, localisation: of these boxes on an unfound fracture, the highest score becomes a hit and the
        others are removed; both, duplicate, background: these boxes are removed; missed: these truth boxes are
        removed; false positive: every hit comes before every false positive; false negative: all unfound truth boxes
        are removed. A class that loses all its truth was never hit: its AP stays 0 and stays in the mean.
        """
        if error not in self._corrected:
            self._corrected[error] = self._correct(error)
        rows, hit, label, left = self._corrected[error]
        box_weights, truth = np.ones(len(rows)), np.ones(len(self.truth_label))
        if weights is not None:
            box_weights, truth = weights[self.image[rows]], weights[self.truth_image]
        values = []
        for index in np.unique(self.truth_label[truth > 0]):
            chosen = label == index
            counted, hits = box_weights[chosen], hit[chosen]
            true_positives, predicted = np.cumsum(counted[hits]), np.cumsum(counted)[hits]
            n_truth = float(truth[left & (self.truth_label == index)].sum()) or 1.0
            values.append(interpolated_precision(true_positives, predicted, n_truth).mean())
        return float(np.mean(values)) if values else math.nan

    @cached_property
    def _corrected(self) -> dict[str | None, tuple[Indices, Flags, Indices, Flags]]:
        return {}

    def _correct(self, error: str | None) -> tuple[Indices, Flags, Indices, Flags]:
        """Return, with an error corrected, the rows (R,) of the detections in order, whether they hit (R,), their
        labels (R,), and which truth boxes (T,) are left.
        """
        rows, hit, label = np.arange(len(self.kind)), self.hit, self.label
        left = np.ones(len(self.truth_label), dtype=bool)
        if error in (MISSED, FALSE_NEGATIVE):
            left = ~self.unfound(0.0)[error == MISSED]
        elif error == FALSE_POSITIVE:
            rows = np.argsort(~hit, kind="stable")
        elif error is not None:
            of_kind = self.kind == KINDS.index(error)
            corrected = of_kind & self._first_near_unhit
            label = label.copy()
            label[corrected] = self.truth_label[self.truth[corrected]]
            hit = hit | corrected
            rows = np.flatnonzero(~of_kind | corrected)
        return rows, hit[rows], label[rows], left

    @cached_property
    def _first_near_unhit(self) -> Flags:
        """(D,) True for the highest score with only its location or class wrong, one per truth box that none hits."""
        nearly = np.isin(self.kind, NEARLY)
        nearly[nearly] = self.unfound(0.0)[0][self.truth[nearly]]
        chosen = np.flatnonzero(nearly)
        first = np.zeros(len(self.kind), dtype=bool)
        first[chosen[np.unique(self.truth[chosen], return_index=True)[1]]] = True
        return first


def tide(dataset: Dataset, detections: Mapping[int, Detections], *, progress: bool = False) -> Tide:
    """Find the errors on the images of `dataset` that `detections` has, by image id.

    As in COCO, the 100 highest scores of each image and class count, and those in crowd regions are ignored.
    """
    records = shared_records(dataset, detections)
    sizes = [len(record.boxes) for record in records]
    columns: list[list[Array]] = [[] for _ in range(6)]
    starts = np.cumsum([0, *sizes]).tolist()
    for index, record in enumerate(tqdm(records, desc="error types", unit="image", disable=not progress)):
        boxes = detections[record.image_id]
        errors = image_errors(boxes, record)
        image, truth = np.full(len(boxes), index), np.where(errors.truth < 0, -1, errors.truth + starts[index])
        rows: tuple[Array, ...] = (boxes.scores, image, boxes.classes, boxes.boxes, errors.kind, truth)
        for column, values in zip(columns, rows, strict=True):
            column.append(values[errors.counted])
    score = _joined(columns[0], np.float32)
    order = np.argsort(-score, kind="stable")
    image, label, kind, truth = (_joined(columns[place], np.int64) for place in (1, 2, 4, 5))
    return Tide(
        score=score[order],
        image=image[order],
        label=label[order],
        box=_joined(columns[3], np.float32).reshape(-1, 4)[order],
        kind=kind[order],
        truth=truth[order],
        truth_image=np.repeat(np.arange(len(records)), sizes),
        truth_label=_joined([record.classes for record in records], np.int64),
        truth_box=_joined([record.boxes for record in records], np.float64).reshape(-1, 4),
    )


def _joined(arrays: Sequence[Array], kind: type[np.generic]) -> Array:
    return np.concatenate(arrays).astype(kind) if len(arrays) else np.zeros(0, kind)
