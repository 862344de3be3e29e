"""COCO's twelve figures: pycocotools matches once, after which any weighting of the images only has to count."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.lesion_level import RECALL_GRID, Floats, interpolated_precision
from fracture_det.evaluation.matching import shared_records
from fracture_det.structures.boxes import box_area
from fracture_det.structures.detections import Detections

# The order of COCOeval.stats for boxes.
STATS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large",
         "AR@1", "AR@10", "AR@100", "AR small", "AR medium", "AR large")  # fmt: skip
# Those of one size of fracture.
SIZE_OF_STAT = {f"{stat} {size}": size for stat in ("AP", "AR") for size in ("small", "medium", "large")}
# COCOeval's own: IoU .5, .55, ... .95 (.75 is number 5); areas all, small, medium, large.
N_IOU, IOU_75, N_AREAS = 10, 5, 4
# COCOeval keeps a dictionary for each image and area: chunks of this size bound the memory.
CHUNK = 1000
# Copies of an image beyond this number share one row among ties; see `_copies`.
COPIES = 8
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """COCOeval's matches of one class, laid out in R rows of descending score (ties in order of image).

    image: (R,) index into the images.
    above, most: (R,) a row counts the part of its image's weight above `above`, at most `most`; see `_copies`. None
    where every row counts the full weight.
    counted: for each area and IoU (area first, 40 in all) the rows (S,) that are not ignored.
    hits: likewise the indices (H,) into `counted` of those that hit.
    truth: (I, 4) number of truth boxes by area.
    recalled: (I, 6) truth boxes found, mean over the IoUs: all sizes by the first 1, 10 and 100 boxes; small; medium;
    large.
    """

    image: Indices
    above: Floats | None
    most: Floats | None
    counted: tuple[Indices, ...]
    hits: tuple[Indices, ...]
    truth: Floats
    recalled: Floats

    def precision(self, weights: Floats) -> Floats:
        """Return COCO's interpolated precision (4 areas, 10 IoUs, 101 recalls); NaN where there is no truth."""
        row_weights = weights[self.image]
        if self.above is not None:
            row_weights = np.clip(row_weights - self.above, 0.0, self.most)
        n_truth = weights @ self.truth
        precision = np.full((N_AREAS * N_IOU, len(RECALL_GRID)), np.nan)
        previous = None
        for index, (counted, hits) in enumerate(zip(self.counted, self.hits, strict=True)):
            if n_truth[index // N_IOU] > 0:
                if counted is not previous:  # without ignored rows it is one list for all IoUs
                    counted_weights, previous = row_weights[counted], counted
                    predicted = np.cumsum(counted_weights)
                precision[index] = interpolated_precision(
                    np.cumsum(counted_weights[hits]), predicted[hits], n_truth[index // N_IOU]
                )
        return precision.reshape(N_AREAS, N_IOU, -1)

    def figures(self, weights: Floats) -> Floats:
        """Return the figures (12,) in order of STATS; NaN where there is no truth."""
        means = self.precision(weights).mean(axis=2)
        all_sizes, *by_size = means.mean(axis=1)
        n_truth = (weights @ self.truth)[[0, 0, 0, 1, 2, 3]]
        recall = np.divide(weights @ self.recalled, n_truth, out=np.full(6, np.nan), where=n_truth > 0)
        return np.array([all_sizes, means[0, 0], means[0, IOU_75], *by_size, *recall])


@dataclass(frozen=True, eq=False)
class CocoMatches:
    """COCOeval's matches of I images, in order of image id, by class."""

    n_images: int
    classes: tuple[ClassMatches, ...]

    def figures(self, weights: Floats | None = None) -> dict[str, float]:
        """Return COCOeval's figures, 0..1, by their names in STATS; NaN where the set holds no such truth box.

        weights: (I,) how often each image counts, whole numbers. The figures are those of COCOeval on the set in which
        each image occurs so often, copies beside each other; exactly so up to COPIES of an image.
        """
        weights = np.ones(self.n_images) if weights is None else weights
        by_class = np.array([matches.figures(weights) for matches in self.classes]).reshape(-1, len(STATS))
        return {name: _mean_of_defined(column) for name, column in zip(STATS, by_class.T, strict=True)}

    def curve(self) -> tuple[Floats, Floats]:
        """Return (recall, precision), each (101,): the interpolated curve at IoU .5, mean over the classes.

        Classes without truth are left out; both are empty without any truth.
        """
        ones = np.ones(self.n_images)
        curves = [matches.precision(ones)[0, 0] for matches in self.classes if matches.truth[:, 0].any()]
        return (RECALL_GRID, np.mean(curves, axis=0)) if curves else (np.zeros(0), np.zeros(0))


def _mean_of_defined(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def coco_matches(dataset: Dataset, detections: Mapping[int, Detections], *, progress: str | None = None) -> CocoMatches:
    """Let COCOeval match the images of `dataset` that `detections` has, once.

    The area of a truth box is its width times its height; small ends at 32^2 and medium at 96^2 px of the original
    image. At most 100 detections per image and class count; crowd regions are ignored, and what lies in them.
    progress: title of a progress bar, or None.
    """
    records = shared_records(dataset, detections)
    by_class: list[list[_ClassChunk]] = [[] for _ in dataset.class_names]
    with tqdm(total=len(records), desc=progress, unit="image", disable=progress is None) as bar:
        for first in range(0, len(records), CHUNK):
            chunk = records[first : first + CHUNK]
            of_chunk = _evaluate(chunk, first, dataset.class_names, detections)
            for chunks, class_chunk in zip(by_class, of_chunk, strict=True):
                chunks.append(class_chunk)
            bar.update(len(chunk))
    return CocoMatches(len(records), tuple(_class_matches(chunks) for chunks in by_class))


@dataclass(frozen=True, eq=False)
class _ClassChunk:
    """COCOeval's result for one class on a chunk of I images with N detections, in its order: image, then score.

    hit, counted: (40, N) by area and IoU. rank: (N,) position in its image, from 0.
    """

    score: Floats
    image: Indices
    rank: Indices
    hit: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    truth: Floats


def _evaluate(
    records: Sequence[ImageRecord], first: int, names: Sequence[str], detections: Mapping[int, Detections]
) -> list[_ClassChunk]:
    truth = [row for record in records for row in _truth_rows(record)]
    predicted = [
        {**row, "score": score}
        for record in records
        for row, score in zip(
            _rows(record.image_id, detections[record.image_id].boxes, detections[record.image_id].classes),
            detections[record.image_id].scores.tolist(),
            strict=True,
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco_eval = COCOeval(_coco(records, names, truth), _coco(records, names, predicted), "bbox")
        coco_eval.evaluate()
    table = iter(coco_eval.evalImgs)  # by class, area, image
    return [_class_chunk([[next(table) for _ in records] for _ in range(N_AREAS)], first) for _ in names]


def _class_chunk(table: Sequence[Sequence[Any]], first: int) -> _ClassChunk:
    """Convert the entries of one class, `table` [area][image]; None stands for neither truth nor detection."""
    counts = [0 if entry is None else len(entry["dtScores"]) for entry in table[0]]
    by_area = [[entry for entry in row if entry is not None] for row in table]
    scores = [score for entry in by_area[0] for score in entry["dtScores"]]
    no_box = np.zeros((N_IOU, 0), dtype=bool)
    matched = [np.concatenate([no_box, *(entry["dtMatches"] > 0 for entry in row)], axis=1) for row in by_area]
    ignored = [np.concatenate([no_box, *(entry["dtIgnore"] for entry in row)], axis=1) for row in by_area]
    counted = ~np.concatenate(ignored)
    return _ClassChunk(
        np.array(scores, dtype=np.float64),
        np.repeat(np.arange(first, first + len(counts)), counts),
        np.concatenate([np.zeros(0, np.intp), *(np.arange(count) for count in counts)]),
        np.concatenate(matched) & counted,
        counted,
        np.array([[0 if e is None else np.count_nonzero(e["gtIgnore"] == 0) for e in row] for row in table], float).T,
    )


def _coco(records: Iterable[ImageRecord], names: Sequence[str], annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": record.image_id, "height": record.height, "width": record.width} for record in records],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
        # pycocotools takes annotation id 0 for "no match"
        "annotations": [{"id": number, "iscrowd": 0, **row} for number, row in enumerate(annotations, 1)],
    }
    coco.createIndex()
    return coco


def _truth_rows(record: ImageRecord) -> list[dict[str, Any]]:
    crowds = _rows(record.image_id, record.crowd_boxes, record.crowd_classes)
    return [*_rows(record.image_id, record.boxes, record.classes), *({**row, "iscrowd": 1} for row in crowds)]


def _rows(image_id: int, boxes: ArrayLike, classes: ArrayLike) -> list[dict[str, Any]]:
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    sizes = corners[:, 2:] - corners[:, :2]
    bboxes = np.concatenate([corners[:, :2], sizes], axis=1).tolist()
    return [
        {"image_id": image_id, "category_id": index, "bbox": bbox, "area": area}
        for bbox, index, area in zip(bboxes, np.asarray(classes).tolist(), box_area(corners).tolist(), strict=True)
    ]


def _class_matches(chunks: Sequence[_ClassChunk]) -> ClassMatches:
    empty = np.zeros((N_AREAS * N_IOU, 0), dtype=bool)
    score = np.concatenate([np.zeros(0), *(chunk.score for chunk in chunks)])
    image = np.concatenate([np.zeros(0, np.intp), *(chunk.image for chunk in chunks)])
    rank = np.concatenate([np.zeros(0, np.intp), *(chunk.rank for chunk in chunks)])
    hit = np.concatenate([empty, *(chunk.hit for chunk in chunks)], axis=1)
    unignored = np.concatenate([empty, *(chunk.counted for chunk in chunks)], axis=1)
    truth = np.concatenate([np.zeros((0, N_AREAS)), *(chunk.truth for chunk in chunks)])
    recalled = _recalled(hit.reshape(N_AREAS, N_IOU, -1).mean(axis=1), rank, image, len(truth))

    order = np.argsort(-score, kind="stable")
    rows, copy = _copies(score[order], image[order], hit[:, order], unignored[:, order])
    order = order[rows]
    counted: list[Indices] = []
    hits: list[Indices] = []
    for hit_at, unignored_at in zip(hit, unignored, strict=True):  # each area and IoU
        chosen = np.flatnonzero(unignored_at[order])
        counted.append(counted[-1] if counted and np.array_equal(counted[-1], chosen) else chosen)
        hits.append(np.flatnonzero(hit_at[order[chosen]]))
    above = most = None
    if (copy >= 0).any():
        above = np.maximum(copy, 0.0)
        most = np.where((copy >= 0) & (copy < COPIES - 1), 1.0, np.inf)
    return ClassMatches(image[order], above, most, tuple(counted), tuple(hits), truth, recalled)


def _recalled(hit: Floats, rank: Indices, image: Indices, n_images: int) -> Floats:
    """Return ClassMatches.recalled (I, 6) from the share of the IoUs (4 areas, N) at which each detection hits."""
    counted = [hit[0] * (rank < 1), hit[0] * (rank < 10), *hit]
    return np.stack([np.bincount(image, column, minlength=n_images) for column in counted], axis=1)


def _copies(
    score: Floats, image: Indices, hit: NDArray[np.bool_], counted: NDArray[np.bool_]
) -> tuple[Indices, NDArray[np.int64]]:
    """Return rows (R,) into the sorted detections and which copy of its image each stands for (R,), -1 for all of them.

    One row that counts for all copies of its image is enough, except where an image has a true and a false positive of
    equal score: COCOeval then lists both for the first copy, then both for the second. Such boxes get COPIES rows, one
    for each copy; the last stands for all that follow.
    """
    if not len(score):
        return np.zeros(0, np.intp), np.zeros(0, np.int64)
    starts = np.flatnonzero(np.append(True, (np.diff(score) != 0) | (np.diff(image) != 0)))
    run = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(score))))
    mixed = np.zeros(len(starts), dtype=bool)
    for hit_at, counted_at in zip(hit, counted, strict=True):
        some_hit = np.bincount(run, hit_at, len(starts)) > 0
        mixed |= some_hit & (np.bincount(run, counted_at & ~hit_at, len(starts)) > 0)
    copies = np.where(mixed[run], COPIES, 1)
    rows = np.repeat(np.arange(len(score)), copies)
    copy = np.where(mixed[run[rows]], np.arange(len(rows)) - np.repeat(np.cumsum(copies) - copies, copies), -1)
    order = np.lexsort((rows, copy, run[rows]))
    return rows[order], copy[order]
