"""Error analysis: TIDE's error types, false positives on healthy images, example boxes, and a table of all matches."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.bootstrap import BootstrapResult, Floats, bootstrap_intervals
from fracture_det.evaluation.estimates import Basis, estimate
from fracture_det.evaluation.lesion_level import ratio
from fracture_det.evaluation.matching import shared_records
from fracture_det.evaluation.report import (
    ALL,
    FALSE_POSITIVE,
    HIT,
    MISS,
    Errors,
    ErrorType,
    GalleryItem,
    HealthyRow,
    rounded,
)
from fracture_det.evaluation.strata import UNKNOWN
from fracture_det.evaluation.tide import HIT as HIT_KIND
from fracture_det.evaluation.tide import KINDS, MISSED, TYPES, ImageErrors, Tide, image_errors, tide, unfound
from fracture_det.structures.boxes import box_area, box_iou
from fracture_det.structures.detections import Detections

GALLERY_SIZE = 12


def find_errors(
    dataset: Dataset,
    detections: Mapping[int, Detections],
    *,
    score: float,
    n_bootstrap: int,
    seed: int,
    progress: bool = False,
) -> Errors:
    """Analyse the errors at IoU .5 on the images of `dataset` that `detections` has, by image id.

    Counts are of boxes of at least `score` (0..1), the operating point: they add up to its false positives and false
    negatives. AP50 and its gains rest on all boxes, as AP does; without a truth box they are None.
    """
    records = shared_records(dataset, detections)
    errors = tide(dataset, detections, progress=progress)
    counts = errors.counts(score)
    return Errors(
        base_ap50=rounded(errors.ap50),
        types={
            name: ErrorType(counts[name], rounded(gain.value), rounded(gain.low), rounded(gain.high))
            for name, gain in _gains(records, errors, n_bootstrap, seed, progress).items()
        },
        healthy=_healthy_rows(records, errors, score, (n_bootstrap, seed)),
        gallery=_gallery(records, errors, score),
    )


def _gains(
    records: Sequence[ImageRecord], errors: Tide, n_bootstrap: int, seed: int, progress: bool
) -> dict[str, BootstrapResult]:
    """Return the AP50 gained if an error type alone were corrected, with its interval."""

    def statistics(weights: Floats) -> dict[str, float]:
        base = errors.corrected_ap50(None, weights)
        return {name: errors.corrected_ap50(name, weights) - base for name in TYPES}

    group = np.unique([record.group_id for record in records], return_inverse=True)[1].astype(np.int64)
    title = "gains in AP50" if progress else None
    return bootstrap_intervals(statistics, group, n_bootstrap=n_bootstrap, seed=seed, progress=title)


def _healthy_rows(
    records: Sequence[ImageRecord], errors: Tide, score: float, resampling: tuple[int, int]
) -> list[HealthyRow]:
    """Return a row per body part with healthy images, by name, and one for all; none without a healthy image."""
    n_boxes = np.bincount(errors.image[errors.predicted(score)], minlength=len(records))
    healthy = [index for index, record in enumerate(records) if not record.fractured]
    anatomies = np.array([records[index].anatomy or UNKNOWN for index in healthy], dtype=object)
    groups = np.array([records[index].group_id for index in healthy], dtype=object)
    subgroups = [(anatomy, anatomies == anatomy) for anatomy in sorted(set(anatomies))]
    subgroups += [(ALL, np.ones(len(healthy), dtype=bool))] if healthy else []
    return [
        _healthy_row(anatomy, n_boxes[healthy][members], groups[members], resampling) for anatomy, members in subgroups
    ]


def _healthy_row(
    anatomy: str, n_boxes: NDArray[np.int64], groups: NDArray[np.object_], resampling: tuple[int, int]
) -> HealthyRow:
    def statistics(weights: Floats) -> dict[str, float]:
        n_images = float(weights.sum())
        return {
            "false_positive_rate": ratio(float(weights @ (n_boxes > 0)), n_images),
            "fp_per_image": ratio(float(weights @ n_boxes), n_images),
        }

    group = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    results = bootstrap_intervals(statistics, group, n_bootstrap=resampling[0], seed=resampling[1])
    images, boxes, n = int((n_boxes > 0).sum()), int(n_boxes.sum()), len(n_boxes)
    no_image = "no healthy image"
    return HealthyRow(
        anatomy=anatomy,
        n_images=n,
        n_boxes=boxes,
        false_positive_rate=estimate(results["false_positive_rate"], Basis(n, no_image, images)),
        fp_per_image=estimate(results["fp_per_image"], Basis(n, no_image, boxes, bounded=False)),
    )


def _gallery(records: Sequence[ImageRecord], errors: Tide, score: float) -> list[GalleryItem]:
    """Return at most GALLERY_SIZE of each kind at the operating point; ties in order of image id, then of its boxes.

    False positives: the highest scores, on fractured and healthy images alike. Misses: the truth boxes that cover the
    largest share of their image, which a reader would have seen most easily. Hits: the highest scores.
    """
    predicted = errors.predicted(score)
    false_positives = np.flatnonzero(predicted & ~errors.hit)[:GALLERY_SIZE]
    hits = np.flatnonzero(predicted & errors.hit)[:GALLERY_SIZE]
    unhit = np.flatnonzero(errors.unfound(score)[0])
    area = np.array([record.height * record.width for record in records], dtype=np.float64)
    share = box_area(errors.truth_box[unhit]) / area[errors.truth_image[unhit]]
    misses = unhit[np.argsort(-share, kind="stable")][:GALLERY_SIZE]
    return [
        *(_box_item(FALSE_POSITIVE, rank, records, errors, index) for rank, index in enumerate(false_positives, 1)),
        *(_miss_item(rank, records, errors, index) for rank, index in enumerate(misses, 1)),
        *(_box_item(HIT, rank, records, errors, index) for rank, index in enumerate(hits, 1)),
    ]


def _box_item(kind: str, rank: int, records: Sequence[ImageRecord], errors: Tide, index: int) -> GalleryItem:
    record, score = records[errors.image[index]], round(float(errors.score[index]), 6)
    return GalleryItem(kind, rank, record.file_name, _corners(errors.box[index]), score, record.anatomy)


def _miss_item(rank: int, records: Sequence[ImageRecord], errors: Tide, index: int) -> GalleryItem:
    record = records[errors.truth_image[index]]
    return GalleryItem(MISS, rank, record.file_name, _corners(errors.truth_box[index]), None, record.anatomy)


def _corners(box: Box) -> list[float]:
    return [round(value, 2) for value in box.tolist()]


MATCH_COLUMNS = (
    "file_name", "group", "anatomy", "fractured", "kind", "score", "shown", "label", "x0", "y0", "x1", "y1",
    "truth_label", "truth_x0", "truth_y0", "truth_x1", "truth_y1", "iou", "error",
)  # fmt: skip
NOTHING, NOT_COUNTED, NOT_PREDICTED, IGNORED = "nothing", "not counted", "not predicted", "ignored"
Box = NDArray[np.floating[Any]]


def write_match_csv(
    dataset: Dataset,
    detections: Mapping[int, Detections],
    path: str | Path,
    *,
    score: float,
    progress: bool = False,
) -> None:
    """Write a row for every detection and every missed truth box, and one for every image that has neither.

    Images in order of image id; in each the detections by descending score, then the truth boxes that no box of at
    least `score` hits, in their own order. Flags are 1 or 0; what does not apply is empty. Columns:
    kind: hit, false positive, missed, nothing (an image with neither truth box nor detection), not counted (beyond the
        100 highest scores of its class), ignored (in a crowd region), not predicted (the image has no detections
        because it failed).
    score, label, x0 y0 x1 y1: of the detection, in pixels. shown: its score is at least `score`.
    truth_...: the truth box that is hit or missed, or that the error is about. iou: of the two; for a missed truth box
        the highest with any predicted box; empty when nothing overlaps.
    error: TIDE's type. A missed truth box has none when a predicted box has only its location or its class wrong.
    """
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, MATCH_COLUMNS, restval="", lineterminator="\n")
        rows.writeheader()
        records = sorted(dataset, key=lambda record: record.image_id)
        for record in tqdm(records, desc="matches", unit="image", disable=not progress):
            image = {"file_name": record.file_name, "group": record.group_id, "anatomy": record.anatomy or ""}
            image |= {"fractured": str(int(record.fractured))}
            for row in _match_rows(record, detections.get(record.image_id), dataset.class_names, score):
                rows.writerow(image | row)


def _match_rows(
    record: ImageRecord, detections: Detections | None, names: Sequence[str], score: float
) -> Iterator[dict[str, str]]:
    if detections is None:
        yield {"kind": NOT_PREDICTED}
    elif not len(detections) and not len(record.boxes):
        yield {"kind": NOTHING}
    else:
        errors, predicted = image_errors(detections, record), detections.scores >= np.float32(score)
        for index in range(len(detections)):
            yield _detection_row(record, detections, errors, index, names) | {"shown": str(int(predicted[index]))}
        yield from _missed_rows(record, detections, errors, predicted & errors.counted, names)


def _detection_row(
    record: ImageRecord, detections: Detections, errors: ImageErrors, index: int, names: Sequence[str]
) -> dict[str, str]:
    kind, error = FALSE_POSITIVE, KINDS[errors.kind[index]]
    if errors.ignored[index]:
        kind, error = IGNORED, ""
    elif not errors.counted[index]:
        kind, error = NOT_COUNTED, ""
    elif errors.kind[index] == HIT_KIND:
        kind, error = HIT, ""
    score, label = str(detections.scores[index]), names[detections.classes[index]]
    truth = _truth_cells(record, int(errors.truth[index]), errors.iou[index], names)
    row = {"kind": kind, "score": score, "label": label, "error": error}
    return row | _corner_cells("", detections.boxes[index]) | truth


def _missed_rows(
    record: ImageRecord,
    detections: Detections,
    errors: ImageErrors,
    predicted: NDArray[np.bool_],
    names: Sequence[str],
) -> Iterator[dict[str, str]]:
    unhit, missed = unfound(errors.kind[predicted], errors.truth[predicted], len(record.boxes))
    nearest = box_iou(detections.boxes[predicted], record.boxes).max(axis=0, initial=0.0)
    for index in np.flatnonzero(unhit).tolist():
        row = {"kind": MISSED, "error": MISSED if missed[index] else ""}
        yield row | _truth_cells(record, index, nearest[index], names)


def _truth_cells(record: ImageRecord, index: int, iou: float, names: Sequence[str]) -> dict[str, str]:
    if index < 0:
        return {}
    cells = {"truth_label": names[record.classes[index]], "iou": f"{iou:.6f}" if iou > 0 else ""}
    return cells | _corner_cells("truth_", record.boxes[index])


def _corner_cells(prefix: str, box: Box) -> dict[str, str]:
    return {f"{prefix}{name}": str(value) for name, value in zip(("x0", "y0", "x1", "y1"), box, strict=True)}
