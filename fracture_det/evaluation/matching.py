"""Detections matched to truth once, laid out flat, so that every metric and every resample only has to count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.structures.boxes import box_iou, box_share_inside, centre_inside
from fracture_det.structures.detections import Detections

# Of an image and class, the surest, as in COCO.
MAX_DETECTIONS = 100
# When a detection hits a truth box of its class; see `match_to_truth` for what happens among several.
MATCH_RULES = {
    "iou50": "IoU of at least .5",
    "iou30": "IoU of at least .3",
    "centre": "centre inside the truth box",
}
_LEAST_IOU = {"iou50": 0.5, "iou30": 0.3, "centre": None}


def match_to_truth(
    detections: Detections, truth_boxes: ArrayLike, truth_classes: ArrayLike, *, iou: float | None = 0.5
) -> NDArray[np.int64]:
    """Return for each detection (N,) the index of the truth box that it hits, or -1.

    Greedy in descending order of score, as pycocotools matches: each detection takes the free truth box of its class
    with the highest IoU (of equal ones the last), if that is at least `iou`; a truth box is hit once.
    With `iou` None a truth box can be hit by the detections whose centre lies in it, whatever their IoU.
    """
    truth = np.asarray(truth_boxes, dtype=np.float64).reshape(-1, 4)
    overlaps = box_iou(detections.boxes, truth)
    # pycocotools compares with min(iou, 1 - 1e-10), so that identical boxes match at iou 1.
    possible = centre_inside(detections.boxes, truth) if iou is None else overlaps >= min(iou, 1 - 1e-10)
    possible &= detections.classes[:, None] == np.asarray(truth_classes, dtype=np.int64)[None, :]
    overlaps[~possible] = -1.0
    matches = np.full(len(detections), -1, dtype=np.int64)
    for index in range(len(detections) if len(truth) else 0):
        best = len(truth) - 1 - int(overlaps[index, ::-1].argmax())
        if overlaps[index, best] >= 0:
            matches[index] = best
            overlaps[:, best] = -1.0
    return matches


def in_crowd(detections: Detections, record: ImageRecord, *, iou: float | None = 0.5) -> NDArray[np.bool_]:
    """Return for each detection (N,) whether it lies in a crowd region of its class.

    As in pycocotools: the share of the detection's own area inside one region is at least `iou`. With `iou` None: its
    centre lies in one. A region takes any number of detections. One that hits no truth box is then ignored: neither
    true nor false.
    """
    if not len(record.crowd_boxes) or not len(detections):
        return np.zeros(len(detections), dtype=bool)
    own = detections.classes[:, None] == record.crowd_classes[None, :]
    if iou is None:
        return np.asarray((centre_inside(detections.boxes, record.crowd_boxes) & own).any(axis=1))
    share = box_share_inside(detections.boxes, record.crowd_boxes)
    return np.asarray(((share >= min(iou, 1 - 1e-10)) & own).any(axis=1))


@dataclass(frozen=True, eq=False)
class Matches:
    """The matched results of I images with D detections in C classes; ignored detections are not among them.

    Detections, in descending order of score (ties in order of image):
    score: (D,) float32. hit: (D,) bool, True where a truth box was hit. image: (D,) index into the images.
    label: (D,) class index.
    Images, in order of image id:
    truth: (I, C) number of truth boxes. group: (I,) group index from 0. top_score: (I,) float32, highest box score
    or 0 without a box, ignored detections included. n_crowd: (I,) number of crowd regions. n_ignored: (I,) number of
    detections that are ignored because they lie in one.
    """

    score: NDArray[np.float32]
    hit: NDArray[np.bool_]
    image: NDArray[np.int64]
    label: NDArray[np.int64]
    truth: NDArray[np.int64]
    group: NDArray[np.int64]
    top_score: NDArray[np.float32]
    n_crowd: NDArray[np.int64]
    n_ignored: NDArray[np.int64]

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.group)

    @property
    def n_truth(self) -> int:
        """Number of truth boxes."""
        return int(self.truth.sum())

    @property
    def n_groups(self) -> int:
        """Number of groups that have an image."""
        return len(np.unique(self.group))

    @cached_property
    def fractured(self) -> NDArray[np.bool_]:
        """(I,) True where an image has at least one truth box or crowd region, as in ImageRecord."""
        return np.asarray((self.truth.sum(axis=1) > 0) | (self.n_crowd > 0))

    @cached_property
    def has_box(self) -> NDArray[np.bool_]:
        """(I,) True where an image has at least one detection, ignored or not."""
        return np.asarray((np.bincount(self.image, minlength=self.n_images) > 0) | (self.n_ignored > 0))

    @cached_property
    def tie_ends(self) -> NDArray[np.int64]:
        """Indices of the last detection of each distinct score."""
        return np.flatnonzero(np.append(np.diff(self.score) != 0, True)) if len(self.score) else np.zeros(0, np.int64)

    def of_class(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the images (K,) of the detections of a class, and where among these K the hits are."""
        if index not in self._by_class:
            chosen = np.flatnonzero(self.label == index)
            self._by_class[index] = (self.image[chosen], np.flatnonzero(self.hit[chosen]))
        return self._by_class[index]

    @cached_property
    def _by_class(self) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        return {}

    def of_images(self, keep: NDArray[np.bool_]) -> Matches:
        """Return the matches of the images where `keep` (I,) is True, their groups renumbered."""
        kept = keep[self.image]
        renumbered = np.cumsum(keep) - 1
        group = np.unique(self.group[keep], return_inverse=True)[1]
        return Matches(
            self.score[kept],
            self.hit[kept],
            renumbered[self.image[kept]],
            self.label[kept],
            self.truth[keep],
            group,
            self.top_score[keep],
            self.n_crowd[keep],
            self.n_ignored[keep],
        )


def shared_records(dataset: Dataset, detections: Mapping[int, Detections]) -> list[ImageRecord]:
    """Return the images of `dataset` that `detections` has, in order of image id."""
    return sorted((record for record in dataset if record.image_id in detections), key=lambda record: record.image_id)


def match_dataset(dataset: Dataset, detections: Mapping[int, Detections], *, rule: str = "iou50") -> Matches:
    """Match the images of `dataset` that `detections` has, by image id.

    rule: a name in MATCH_RULES. As COCO does, at most 100 detections per image and class count, the surest first, and
    those that lie in a crowd region and hit no truth box are ignored.
    Raises ValueError for another rule.
    """
    if rule not in MATCH_RULES:
        raise ValueError(f"match rule: expected one of {', '.join(MATCH_RULES)}, got {rule!r}")
    records = shared_records(dataset, detections)
    n_classes = len(dataset.class_names)
    scores, hits, images, labels, n_ignored = [], [], [], [], []
    for index, record in enumerate(records):
        capped = _capped(detections[record.image_id])
        hit = match_to_truth(capped, record.boxes, record.classes, iou=_LEAST_IOU[rule]) >= 0
        counted = hit | ~in_crowd(capped, record, iou=_LEAST_IOU[rule])
        scores.append(capped.scores[counted])
        hits.append(hit[counted])
        images.append(np.full(int(counted.sum()), index, dtype=np.int64))
        labels.append(capped.classes[counted])
        n_ignored.append(int((~counted).sum()))
    score = np.concatenate([np.zeros(0, np.float32), *scores])
    order = np.argsort(-score, kind="stable")
    truth = [np.bincount(record.classes, minlength=n_classes) for record in records]
    return Matches(
        score[order],
        np.concatenate([np.zeros(0, bool), *hits])[order],
        np.concatenate([np.zeros(0, np.int64), *images])[order],
        np.concatenate([np.zeros(0, np.int64), *labels])[order],
        np.array(truth, dtype=np.int64).reshape(len(records), n_classes),
        np.unique([record.group_id for record in records], return_inverse=True)[1].astype(np.int64),
        np.array([detections[r.image_id].scores.max(initial=0.0) for r in records], dtype=np.float32),
        np.array([len(record.crowd_boxes) for record in records], dtype=np.int64),
        np.array(n_ignored, dtype=np.int64),
    )


def _capped(detections: Detections) -> Detections:
    if len(detections) <= MAX_DETECTIONS:
        return detections
    keep = np.zeros(len(detections), dtype=bool)
    for label in np.unique(detections.classes):
        keep[np.flatnonzero(detections.classes == label)[:MAX_DETECTIONS]] = True
    return detections.take(keep)
