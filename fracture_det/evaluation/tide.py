"""TIDE: why a box is wrong or a fracture unfound, and how much AP50 would rise if one cause alone were mended.

Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020; where the
paper leaves a border open, as the authors' own program decides it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.lesion_level import interpolated_precision
from fracture_det.evaluation.matching import MAX_DETECTIONS, match_to_truth, shared_records
from fracture_det.structures.boxes import box_iou
from fracture_det.structures.detections import Detections

# What a box is. The order of the first six is the paper's.
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


@dataclass(frozen=True, eq=False)
class ImageErrors:
    """What each of the N detections on one image is.

    kind: (N,) index into KINDS. truth: (N,) index of the truth box that it hits, or that the error is about, or that
    it overlaps most; -1 when it touches none. iou: (N,) its overlap with that one.
    counted: (N,) bool, among the 100 surest of its class, as COCO counts.
    """

    kind: Indices
    truth: Indices
    iou: NDArray[np.float64]
    counted: Flags


def image_errors(found: Detections, record: ImageRecord) -> ImageErrors:
    """Say of each detection which error it is, or that it hits, with its best overlaps with the truth:

    hit; localisation: .1 to .5 with its class; classification: at least .5 with another class; duplicate: over .5 with
    its class, where a surer box hit; background: at most .1 with all; both: what is left, .1 to .5 with another class.
    """
    counted = _counted(found.classes)
    if not record.fractured:
        nothing = np.full(len(found), -1, dtype=np.int64)
        return ImageErrors(np.full(len(found), BACKGROUND, dtype=np.int64), nothing, np.zeros(len(found)), counted)
    overlaps = box_iou(found.boxes, record.boxes)
    own = found.classes[:, None] == record.classes[None, :]
    within, across = np.where(own, overlaps, 0.0), np.where(own, 0.0, overlaps)
    own_iou, other_iou, best_iou = within.max(axis=1), across.max(axis=1), overlaps.max(axis=1)
    hits = match_to_truth(found, record.boxes, record.classes, iou=FOREGROUND_IOU)
    tests = [hits >= 0, (own_iou >= BACKGROUND_IOU) & (own_iou <= FOREGROUND_IOU), other_iou >= FOREGROUND_IOU,
             own_iou > FOREGROUND_IOU, best_iou <= BACKGROUND_IOU]  # fmt: skip
    kind = np.select(tests, [HIT, LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND], BOTH).astype(np.int64)
    about = [hits, within.argmax(axis=1), across.argmax(axis=1), within.argmax(axis=1)]
    truth = np.select(tests[:4], about, overlaps.argmax(axis=1)).astype(np.int64)
    iou = overlaps[np.arange(len(found)), truth]
    return ImageErrors(kind, np.where(iou > 0, truth, -1), iou, counted)


def _counted(classes: Indices) -> Flags:
    counted = np.ones(len(classes), dtype=bool)
    for label in np.unique(classes) if len(classes) > MAX_DETECTIONS else ():
        counted[np.flatnonzero(classes == label)[MAX_DETECTIONS:]] = False
    return counted


def unfound(kind: Indices, truth: Indices, n_truth: int) -> tuple[Flags, Flags]:
    """Return which of T truth boxes none of N boxes hits, and which of these are missed (T,).

    kind, truth: (N,) of the boxes, as in ImageErrors. Missed: no box has only its place or its class wrong.
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
        return self.kind == HIT

    def shown(self, score: float) -> Flags:
        """Return (D,) where a box has at least `score`."""
        return self.score >= np.float32(score)

    def unfound(self, score: float) -> tuple[Flags, Flags]:
        """Return (T,) where no box of at least `score` hits, and which of these are missed; see `unfound`."""
        shown = self.shown(score)
        return unfound(self.kind[shown], self.truth[shown], len(self.truth_label))

    def counts(self, score: float) -> dict[str, int]:
        """Return how often each type occurs among the boxes of at least `score`.

        A kind of box does not depend on `score`: what it says of a box rests on surer boxes only.
        """
        shown = self.shown(score)
        of_kind = np.bincount(self.kind[shown], minlength=len(KINDS))
        unhit, missed = self.unfound(score)
        rows = [*of_kind[:HIT], missed.sum(), of_kind[:HIT].sum(), unhit.sum()]
        return dict(zip(TYPES, map(int, rows), strict=True))

    @property
    def ap50(self) -> float:
        """AP50 as it is, over all boxes, whatever their score; NaN without truth."""
        return self.mended_ap50(None)

    def mended_ap50(self, error: str | None, weights: Weights | None = None) -> float:
        """Return the AP50 that an oracle reaches who mends one of TYPES alone, or nothing; NaN without truth.

        weights: (I,) how often each image counts; see metrics.py.

        classification, localisation: the surest such box on an unfound fracture becomes a hit at its score, the others
        go; both, duplicate, background: these boxes go; missed: these truth boxes go; false positive: every hit comes
        before every false box; false negative: all unfound truth boxes go. A class whose truth is all taken away was
        never hit: its AP stays 0, and its share in the mean.
        """
        if error not in self._mended:
            self._mended[error] = self._mend(error)
        rows, hit, label, left = self._mended[error]
        each, truth = np.ones(len(rows)), np.ones(len(self.truth_label))
        if weights is not None:
            each, truth = weights[self.image[rows]], weights[self.truth_image]
        values = []
        for index in np.unique(self.truth_label[truth > 0]):
            chosen = label == index
            counted, hits = each[chosen], hit[chosen]
            found, places = np.cumsum(counted[hits]), np.cumsum(counted)[hits]
            n_truth = float(truth[left & (self.truth_label == index)].sum()) or 1.0
            values.append(interpolated_precision(found, places, n_truth).mean())
        return float(np.mean(values)) if values else math.nan

    @cached_property
    def _mended(self) -> dict[str | None, tuple[Indices, Flags, Indices, Flags]]:
        return {}

    def _mend(self, error: str | None) -> tuple[Indices, Flags, Indices, Flags]:
        """Return, with an error mended, the rows (R,) of the detections in order, whether they hit (R,), their labels
        (R,), and which truth boxes (T,) are left.
        """
        rows, hit, label = np.arange(len(self.kind)), self.hit, self.label
        left = np.ones(len(self.truth_label), dtype=bool)
        if error in (MISSED, FALSE_NEGATIVE):
            left = ~self.unfound(0.0)[error == MISSED]
        elif error == FALSE_POSITIVE:
            rows = np.argsort(~hit, kind="stable")
        elif error is not None:
            of_kind = self.kind == KINDS.index(error)
            right = of_kind & self._first_about_unhit
            label = label.copy()
            label[right] = self.truth_label[self.truth[right]]
            hit = hit | right
            rows = np.flatnonzero(~of_kind | right)
        return rows, hit[rows], label[rows], left

    @cached_property
    def _first_about_unhit(self) -> Flags:
        """(D,) True for the surest box with only its place or class wrong, one for each truth box that none hits."""
        nearly = np.isin(self.kind, NEARLY)
        nearly[nearly] = self.unfound(0.0)[0][self.truth[nearly]]
        chosen = np.flatnonzero(nearly)
        first = np.zeros(len(self.kind), dtype=bool)
        first[chosen[np.unique(self.truth[chosen], return_index=True)[1]]] = True
        return first


def tide(dataset: Dataset, detections: Mapping[int, Detections], *, progress: bool = False) -> Tide:
    """Find the errors on the images of `dataset` that `detections` has, by image id.

    As COCO does, at most 100 detections per image and class count, the surest first.
    """
    records = shared_records(dataset, detections)
    sizes = [len(record.boxes) for record in records]
    columns: list[list[NDArray]] = [[] for _ in range(6)]
    starts = np.cumsum([0, *sizes]).tolist()
    for index, record in enumerate(tqdm(records, desc="error types", unit="image", disable=not progress)):
        found = detections[record.image_id]
        said = image_errors(found, record)
        image, truth = np.full(len(found), index), np.where(said.truth < 0, -1, said.truth + starts[index])
        rows: tuple[NDArray, ...] = (found.scores, image, found.classes, found.boxes, said.kind, truth)
        for column, values in zip(columns, rows, strict=True):
            column.append(values[said.counted])
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


def _joined(parts: list[NDArray], kind: type[np.generic]) -> NDArray:
    return np.concatenate(parts).astype(kind) if parts else np.zeros(0, kind)
