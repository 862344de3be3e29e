"""Subgroup analysis, as the paper's Table II: by anatomy, box size, image size, view, hardware and other columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.bootstrap import Floats, bootstrap_intervals
from fracture_det.evaluation.estimates import NO_TRUTH, Basis, auroc_basis, estimate, lesion_bases, unit_bases
from fracture_det.evaluation.image_level import auroc, confusion_counts, images_of
from fracture_det.evaluation.lesion_level import average_precision, lesion_counts
from fracture_det.evaluation.matching import Matches, match_dataset, match_to_truth
from fracture_det.evaluation.report import ALL, ANATOMY, Stratum
from fracture_det.structures.boxes import box_area
from fracture_det.structures.detections import Detections

BOX_SIZE, IMAGE_SIZE = "box size", "image size"
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
    The bootstrap resamples the groups that have an image in the subgroup.
    """
    members_of = [(ALL, ALL, np.ones(len(records), dtype=bool)), *subgroups(records)]
    rows = [(column, value, matches.of_images(members)) for column, value, members in members_of]
    after_anatomy = next((index for index, (column, *_) in enumerate(rows) if column not in (ALL, ANATOMY)), len(rows))
    rows[after_anatomy:after_anatomy] = [(BOX_SIZE, name, of_size) for name, of_size in sized.items()]
    bar = tqdm(rows, desc="strata", unit="row", disable=not progress)
    return [_row(column, value, members, score, (n_bootstrap, seed)) for column, value, members in bar]


def by_box_size(dataset: Dataset, detections: Mapping[int, Detections]) -> dict[str, Matches]:
    """Return the matches of the truth boxes of each size, by COCO's rules.

    A box that hits a fracture of another size is ignored; one that hits nothing counts in the size of its own area.
    """
    hit = {
        record.image_id: match_to_truth(detections[record.image_id], record.boxes, record.classes)
        for record in dataset
        if record.image_id in detections
    }
    by_size = {}
    for name, (low, below) in BOX_SIZES.items():
        records, of_size = [], {}
        for record in (record for record in dataset if record.image_id in detections):
            truth = _within(record.boxes, low, below)
            image, index = detections[record.image_id], hit[record.image_id]
            keep = np.where(index < 0, _within(image.boxes, low, below), np.append(truth, False)[index])
            records.append(of_boxes(record, truth))
            of_size[record.image_id] = image.take(keep)
        by_size[name] = match_dataset(Dataset(tuple(records), dataset.class_names), of_size)
    return by_size


def of_boxes(record: ImageRecord, keep: NDArray[np.bool_]) -> ImageRecord:
    """Return a record with only the truth boxes of the mask `keep` (M,)."""
    types = tuple(compress(record.types, keep))
    return replace(record, boxes=record.boxes[keep], classes=record.classes[keep], types=types)


def _within(boxes: ArrayLike, low: float, below: float) -> NDArray[np.bool_]:
    area = box_area(boxes)
    return (area >= low) & (area < below)


def left_out(records: Sequence[ImageRecord]) -> dict[str, str]:
    """Return the metadata columns that form no subgroups, each with the reason."""
    return {column: reason for column in _columns(records) if (reason := _unfit(column, records))}


def _columns(records: Sequence[ImageRecord]) -> list[str]:
    return sorted({column for record in records for column in record.attributes})


def _unfit(column: str, records: Sequence[ImageRecord]) -> str:
    values = [record.attributes.get(column, UNKNOWN) for record in records]
    distinct = set(values)
    if len(distinct) > MAX_VALUES:
        return f"it has {len(distinct)} different values, more than {MAX_VALUES}"
    if len(distinct) == len(values) > 2:
        return "every image has its own value"
    if len(distinct) < 2:
        return f"every image has the value {values[0]!r}" if values else "there is no image"
    if len(set(zip(values, (record.fractured for record in records), strict=True))) == len(distinct) == 2:
        return "it repeats whether the image is fractured"
    return ""


def subgroups(records: Sequence[ImageRecord]) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Yield column, value, and which images (I,) have it: by anatomy, image size and every fit metadata column."""
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
        if (members := array == value).any():
            yield column, value, members


def _row(column: str, value: str, matches: Matches, score: float, resampling: tuple[int, int]) -> Stratum:
    results = bootstrap_intervals(
        lambda weights: _statistics(column, matches, score, weights),
        matches.group,
        n_bootstrap=resampling[0],
        seed=resampling[1],
    )
    bases = _bases(matches, score)
    return Stratum(
        column=column,
        value=value,
        n_images=matches.n_images,
        n_fractured=int(matches.fractured.sum()),
        n_boxes=matches.n_truth,
        figures={name: estimate(result, bases[name]) for name, result in results.items()},
    )


def _statistics(column: str, matches: Matches, score: float, weights: Floats) -> dict[str, float]:
    lesions = lesion_counts(matches, score, weights)
    values = {
        "AP50": average_precision(matches, weights),
        "precision": lesions.precision,
        "recall": lesions.recall,
    }
    if column == BOX_SIZE:  # an image has no box size
        return values
    images = confusion_counts(images_of(matches), score, weights)
    return {
        **values,
        "sensitivity": images.sensitivity,
        "specificity": images.specificity,
        "AUROC": auroc(matches.top_score, matches.fractured, weights),
    }


def _bases(matches: Matches, score: float) -> dict[str, Basis]:
    images = images_of(matches)
    return {
        "AP50": Basis(matches.n_truth, NO_TRUTH),
        **lesion_bases(lesion_counts(matches, score), score),
        **unit_bases(confusion_counts(images, score), "image"),
        "AUROC": auroc_basis(images, "image"),
    }
