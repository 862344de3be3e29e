"""The paper's Table II for every column that the data has: anatomy, box size, image size, view, hardware, and so on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.bootstrap import Floats, Measured, measure
from fracture_det.evaluation.estimates import NO_TRUTH, Values, estimate
from fracture_det.evaluation.image_level import auroc, call_counts, images_of
from fracture_det.evaluation.lesion_level import average_precision, lesion_counts
from fracture_det.evaluation.matching import Matches, match_dataset, match_to_truth
from fracture_det.evaluation.report import Estimate, Stratum
from fracture_det.structures.boxes import box_area
from fracture_det.structures.detections import Detections

ALL, ANATOMY, BOX_SIZE, IMAGE_SIZE = "all", "anatomy", "box size", "image size"
UNKNOWN = "unknown"
# Long side of the image in pixels.
IMAGE_SIZES = ((512, "up to 512 px"), (1024, "513 to 1024 px"), (2048, "1025 to 2048 px"), (None, "over 2048 px"))
MAX_VALUES = 12
# Area of the box in square pixels of the original image, from and below: COCO's sizes.
BOX_SIZES = {
    "small, below 32² px": (0.0, 32.0**2),
    "medium, below 96² px": (32.0**2, 96.0**2),
    "large, from 96² px": (96.0**2, np.inf),
}


def strata(
    records: Sequence[ImageRecord],
    matches: Matches,
    sized: Mapping[str, Matches],
    score: float,
    *,
    n_bootstrap: int,
    seed: int,
    progress: bool = False,
) -> list[Stratum]:
    """Return a row for all images, then one for every value of every column, at the operating point `score`.

    records: the images of `matches` in its order. sized: see `by_box_size`.
    Intervals draw the groups that have an image in the stratum.
    """
    cuts = [(ALL, ALL, np.ones(len(records), dtype=bool)), *_cuts(records)]
    sizes = [(BOX_SIZE, name, one) for name, one in sized.items()]
    place = next((index for index, (column, *_) in enumerate(cuts) if column not in (ALL, ANATOMY)), len(cuts))
    parts = [(column, value, matches.of_images(keep)) for column, value, keep in cuts]
    parts[place:place] = sizes
    shown = tqdm(parts, desc="strata", unit="row", disable=not progress)
    return [_row(column, value, part, score, (n_bootstrap, seed)) for column, value, part in shown]


def by_box_size(dataset: Dataset, detections: Mapping[int, Detections]) -> dict[str, Matches]:
    """Return the matches of the truth boxes of each size, as COCO looks at sizes.

    A box that hits a fracture of another size takes no part; one that hits nothing takes part where its own size fits.
    """
    hit = {
        record.image_id: match_to_truth(detections[record.image_id], record.boxes, record.classes)
        for record in dataset
        if record.image_id in detections
    }
    parts = {}
    for name, (low, below) in BOX_SIZES.items():
        records, found = [], {}
        for record in (one for one in dataset if one.image_id in detections):
            truth = _within(record.boxes, low, below)
            one, index = detections[record.image_id], hit[record.image_id]
            keep = np.where(index < 0, _within(one.boxes, low, below), np.append(truth, False)[index])
            records.append(replace(record, boxes=record.boxes[truth], classes=record.classes[truth]))
            found[record.image_id] = Detections(one.boxes[keep], one.scores[keep], one.classes[keep])
        parts[name] = match_dataset(Dataset(tuple(records), dataset.class_names), found)
    return parts


def _within(boxes: ArrayLike, low: float, below: float) -> NDArray[np.bool_]:
    area = box_area(boxes)
    return (area >= low) & (area < below)


def left_out(records: Sequence[ImageRecord]) -> dict[str, str]:
    """Return the metadata columns that make no table, each with the reason."""
    return {column: reason for column in _columns(records) if (reason := _unfit(column, records))}


def _columns(records: Sequence[ImageRecord]) -> list[str]:
    return sorted({column for record in records for column in record.attributes})


def _unfit(column: str, records: Sequence[ImageRecord]) -> str:
    values = [record.attributes.get(column, UNKNOWN) for record in records]
    distinct = set(values)
    if len(distinct) > MAX_VALUES:
        return f"it has {len(distinct)} different values, over {MAX_VALUES}"
    if len(distinct) == len(values) > 2:
        return "every image has a value of its own"
    if len(distinct) < 2:
        return f"every image has the value {values[0]!r}" if values else "there is no image"
    if len(set(zip(values, (record.fractured for record in records), strict=True))) == len(distinct) == 2:
        return "it repeats whether the image is fractured"
    return ""


def _cuts(records: Sequence[ImageRecord]) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Yield column, value, and which images (I,) have it."""
    yield from _by_value(ANATOMY, [record.anatomy or UNKNOWN for record in records])
    sizes = [next(name for limit, name in IMAGE_SIZES if limit is None or max(r.size) <= limit) for r in records]
    yield from _by_value(IMAGE_SIZE, sizes, order=[name for _, name in IMAGE_SIZES])
    unfit = left_out(records)
    for column in _columns(records):
        if column not in unfit:
            yield from _by_value(column, [record.attributes.get(column, UNKNOWN) for record in records])


def _by_value(
    column: str, values: Sequence[str], order: Sequence[str] | None = None
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    array = np.array(values, dtype=object)
    for value in order or sorted(set(values)):
        if (keep := array == value).any():
            yield column, value, keep


def _row(column: str, value: str, matches: Matches, score: float, resampling: tuple[int, int]) -> Stratum:
    measured = measure(
        lambda weights: _statistics(column, matches, score, weights),
        matches.group,
        n_bootstrap=resampling[0],
        seed=resampling[1],
    )
    figures = _figures(matches, score, measured)
    return Stratum(
        column, value, matches.n_images, int(matches.fractured.sum()), matches.n_truth,
        {name: cell for name, cell in figures.items() if name in measured},
    )  # fmt: skip


def _statistics(column: str, matches: Matches, score: float, weights: Floats) -> Values:
    lesions = lesion_counts(matches, score, weights)
    values = {
        "AP50": average_precision(matches, weights),
        "precision": lesions.precision,
        "recall": lesions.recall,
    }
    if column == BOX_SIZE:  # an image has no box size
        return values
    calls = call_counts(images_of(matches), score, weights)
    return {
        **values,
        "sensitivity": calls.sensitivity,
        "specificity": calls.specificity,
        "AUROC": auroc(matches.top_score, matches.fractured, weights),
    }


def _figures(matches: Matches, score: float, measured: Mapping[str, Measured]) -> dict[str, Estimate]:
    lesions, calls = lesion_counts(matches, score), call_counts(images_of(matches), score)
    tp, fractured = lesions.true_positives, int(matches.fractured.sum())
    healthy = matches.n_images - fractured
    parts: dict[str, tuple[float | None, float, str]] = {
        "AP50": (None, lesions.truth, NO_TRUTH),
        "precision": (tp, tp + lesions.false_positives, f"no box reaches the score {score:g}"),
        "recall": (tp, lesions.truth, NO_TRUTH),
        "sensitivity": (calls.true_positives, fractured, "no fractured image"),
        "specificity": (calls.true_negatives, healthy, "no healthy image"),
        "AUROC": (None, min(fractured, healthy), "no fractured image" if not fractured else "no healthy image"),
    }
    missing = Measured(float("nan"))
    return {
        name: estimate(measured.get(name, missing), reason, count=count, n=n)
        for name, (count, n, reason) in parts.items()
    }
