"""What goes wrong, and where to look: TIDE's error types, false positives on healthy images, examples, every match."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.bootstrap import Floats, Measured, measure
from fracture_det.evaluation.estimates import estimate
from fracture_det.evaluation.lesion_level import ratio
from fracture_det.evaluation.matching import shared_records
from fracture_det.evaluation.report import Errors, ErrorType, GalleryItem, HealthyRow
from fracture_det.evaluation.tide import HIT, KINDS, MISSED, TYPES, ImageErrors, Tide, image_errors, tide, unfound
from fracture_det.structures.boxes import box_area, box_iou
from fracture_det.structures.detections import Detections

GALLERY_SIZE = 12
ALL, UNKNOWN = "all", "unknown"


def find_errors(
    dataset: Dataset,
    detections: Mapping[int, Detections],
    *,
    score: float,
    n_bootstrap: int,
    seed: int,
    progress: bool = False,
) -> Errors:
    """Say what goes wrong at IoU .5 on the images of `dataset` that `detections` has, by image id.

    Counts are of boxes of at least `score` (0..1), the operating point: they add up to its false positives and false
    negatives. AP50 and what it would gain rest on all boxes, as AP does; without a truth box they are None.
    """
    records = shared_records(dataset, detections)
    found = tide(dataset, detections, progress=progress)
    counts = found.counts(score)
    return Errors(
        base_ap50=_kept(found.ap50),
        types={
            name: ErrorType(counts[name], _kept(gain.value), _kept(gain.low), _kept(gain.high))
            for name, gain in _gains(records, found, n_bootstrap, seed, progress).items()
        },
        healthy=_healthy_rows(records, found, score, (n_bootstrap, seed)),
        gallery=_gallery(records, found, score),
    )


def _gains(
    records: Sequence[ImageRecord], found: Tide, n_bootstrap: int, seed: int, progress: bool
) -> dict[str, Measured]:
    """Return how much AP50 would rise if an error type alone were mended, with its interval."""

    def statistics(weights: Floats) -> dict[str, float]:
        base = found.mended_ap50(None, weights)
        return {name: found.mended_ap50(name, weights) - base for name in TYPES}

    group = np.unique([record.group_id for record in records], return_inverse=True)[1].astype(np.int64)
    title = "gains in AP50" if progress else None
    return measure(statistics, group, n_bootstrap=n_bootstrap, seed=seed, progress=title)


def _kept(value: float) -> float | None:
    """Return ten digits, so that no machine's last bit shows, and no minus before a zero."""
    return None if math.isnan(value) else round(float(value), 10) + 0.0


def _healthy_rows(
    records: Sequence[ImageRecord], found: Tide, score: float, resampling: tuple[int, int]
) -> list[HealthyRow]:
    """Return a row per anatomy that has healthy images, by name, and one for all; none without a healthy image."""
    shown = np.bincount(found.image[found.shown(score)], minlength=len(records))
    healthy = [index for index, record in enumerate(records) if not record.fractured]
    anatomies = np.array([records[index].anatomy or UNKNOWN for index in healthy], dtype=object)
    groups = np.array([records[index].group_id for index in healthy], dtype=object)
    cuts = [(anatomy, anatomies == anatomy) for anatomy in sorted(set(anatomies))]
    cuts += [(ALL, np.ones(len(healthy), dtype=bool))] if healthy else []
    return [_healthy_row(anatomy, shown[healthy][keep], groups[keep], resampling) for anatomy, keep in cuts]


def _healthy_row(anatomy: str, n_boxes: NDArray[np.int64], groups: NDArray, resampling: tuple[int, int]) -> HealthyRow:
    def statistics(weights: Floats) -> dict[str, float]:
        n_images = float(weights.sum())
        called, boxes = float(weights @ (n_boxes > 0)), float(weights @ n_boxes)
        return {"called": ratio(called, n_images), "boxes": ratio(boxes, n_images)}

    group = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    measured = measure(statistics, group, n_bootstrap=resampling[0], seed=resampling[1])
    called, boxes, n = int((n_boxes > 0).sum()), int(n_boxes.sum()), len(n_boxes)
    return HealthyRow(
        anatomy=anatomy,
        n_images=n,
        n_boxes=boxes,
        images_called=estimate(measured["called"], "no healthy image", count=called, n=n),
        fp_per_image=estimate(measured["boxes"], "no healthy image", count=boxes, n=n, bounded=False),
    )


def _gallery(records: Sequence[ImageRecord], found: Tide, score: float) -> list[GalleryItem]:
    """Return at most twelve of each kind at the operating point; ties in order of image id, then of its boxes.

    False positives: the highest scores, on fractured and healthy images alike. Misses: the truth boxes that cover the
    largest share of their image, which a reader would have seen most easily. Hits: the highest scores.
    """
    shown = found.shown(score)
    false, hits = (np.flatnonzero(boxes)[:GALLERY_SIZE] for boxes in (shown & ~found.hit, shown & found.hit))
    unhit = np.flatnonzero(found.unfound(score)[0])
    area = np.array([record.height * record.width for record in records], dtype=np.float64)
    share = box_area(found.truth_box[unhit]) / area[found.truth_image[unhit]]
    missed = unhit[np.argsort(-share, kind="stable")][:GALLERY_SIZE]
    return [
        *(_box_item("false positive", rank, records, found, index) for rank, index in enumerate(false, 1)),
        *(_miss_item(rank, records, found, index) for rank, index in enumerate(missed, 1)),
        *(_box_item("hit", rank, records, found, index) for rank, index in enumerate(hits, 1)),
    ]


def _box_item(kind: str, rank: int, records: Sequence[ImageRecord], found: Tide, index: int) -> GalleryItem:
    record, score = records[found.image[index]], round(float(found.score[index]), 6)
    return GalleryItem(kind, rank, record.file_name, _listed(found.box[index]), score, record.anatomy)


def _miss_item(rank: int, records: Sequence[ImageRecord], found: Tide, index: int) -> GalleryItem:
    record = records[found.truth_image[index]]
    return GalleryItem("miss", rank, record.file_name, _listed(found.truth_box[index]), None, record.anatomy)


def _listed(box: NDArray) -> list[float]:
    return [round(value, 2) for value in box.tolist()]


MATCH_COLUMNS = (
    "file_name", "group", "anatomy", "fractured", "kind", "score", "shown", "label", "x0", "y0", "x1", "y1",
    "truth_label", "truth_x0", "truth_y0", "truth_x1", "truth_y1", "iou", "error",
)  # fmt: skip
NOTHING, NOT_COUNTED, NOT_PREDICTED = "nothing", "not counted", "not predicted"


def write_match_csv(
    dataset: Dataset,
    detections: Mapping[int, Detections],
    path: str | Path,
    *,
    score: float,
    progress: bool = False,
) -> None:
    """Write a row for every detection and every missed truth box, and one for every image that has neither.

    Images in order of image id; in each the detections, surest first, then the truth boxes that no box of at least
    `score` hits, in their own order. Flags are 1 or 0; what does not apply is empty. Columns:
    kind: hit, false positive, missed, nothing (a healthy image without a box), not counted (beyond the 100 surest of
        its class), not predicted (the image has no detections because it failed).
    score, label, x0 y0 x1 y1: of the detection, in pixels. shown: its score is at least `score`.
    truth_...: the truth box that is hit or missed, or that the error is about. iou: of the two; for a missed truth box
        the best with any shown box; empty when nothing overlaps.
    error: TIDE's type. A missed truth box has none when a shown box has only its place or its class wrong.
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
    record: ImageRecord, found: Detections | None, names: Sequence[str], score: float
) -> Iterator[dict[str, str]]:
    if found is None:
        yield {"kind": NOT_PREDICTED}
    elif not len(found) and not record.fractured:
        yield {"kind": NOTHING}
    else:
        said, shown = image_errors(found, record), found.scores >= np.float32(score)
        for index in range(len(found)):
            yield _detection_row(record, found, said, index, names) | {"shown": str(int(shown[index]))}
        yield from _missed_rows(record, found, said, shown & said.counted, names)


def _detection_row(
    record: ImageRecord, found: Detections, said: ImageErrors, index: int, names: Sequence[str]
) -> dict[str, str]:
    kind, error = "false positive", KINDS[said.kind[index]]
    if not said.counted[index]:
        kind, error = NOT_COUNTED, ""
    elif said.kind[index] == HIT:
        kind, error = "hit", ""
    row = {"kind": kind, "score": str(found.scores[index]), "label": names[found.classes[index]], "error": error}
    about = _truth_cells(record, int(said.truth[index]), said.iou[index], names)
    return row | _corner_cells("", found.boxes[index]) | about


def _missed_rows(
    record: ImageRecord, found: Detections, said: ImageErrors, shown: NDArray[np.bool_], names: Sequence[str]
) -> Iterator[dict[str, str]]:
    unhit, missed = unfound(said.kind[shown], said.truth[shown], len(record.boxes))
    nearest = box_iou(found.boxes[shown], record.boxes).max(axis=0, initial=0.0)
    for index in np.flatnonzero(unhit).tolist():
        row = {"kind": MISSED, "error": MISSED if missed[index] else ""}
        yield row | _truth_cells(record, index, nearest[index], names)


def _truth_cells(record: ImageRecord, index: int, iou: float, names: Sequence[str]) -> dict[str, str]:
    if index < 0:
        return {}
    cells = {"truth_label": names[record.classes[index]], "iou": f"{iou:.6f}" if iou > 0 else ""}
    return cells | _corner_cells("truth_", record.boxes[index])


def _corner_cells(prefix: str, box: NDArray) -> dict[str, str]:
    return {f"{prefix}{name}": str(value) for name, value in zip(("x0", "y0", "x1", "y1"), box, strict=True)}
