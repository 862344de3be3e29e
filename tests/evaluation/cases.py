"""Small data sets for the tests of evaluation. Boxes are 10 x 10 px, number n at x = 20 n, so that none overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.structures.detections import Detections

HEALTHY: tuple[int, ...] = ()


def box(number: int) -> list[float]:
    """Return box number n: x from 20 n to 20 n + 10."""
    return [20.0 * number, 0.0, 20.0 * number + 10, 10.0]


def record(
    image_id: int, truth: Sequence[int] = HEALTHY, *, group: str | None = None, anatomy: str | None = None
) -> ImageRecord:
    """Return an image whose truth is the numbered boxes."""
    boxes = np.array([box(number) for number in truth]).reshape(-1, 4)
    name = f"image{image_id}.png"
    return ImageRecord(image_id, name, 100, 400, group or name, anatomy, boxes, np.zeros(len(truth), np.int64))


def found(*pairs: tuple[int, float]) -> Detections:
    """Return detections of (box number, score)."""
    scores = [score for _, score in pairs]
    return Detections.from_unsorted([box(number) for number, _ in pairs], scores, [0] * len(pairs))


def dataset(*records: ImageRecord) -> Dataset:
    """Return a data set of one class."""
    return Dataset(records, ("fracture",))


def random_study(
    seed: int, n_images: int = 60, n_classes: int = 2, ties: bool = False
) -> tuple[Dataset, dict[int, Detections]]:
    """Return random truth and random, partly right detections; with `ties`, scores of one decimal."""
    random = np.random.default_rng(seed)
    records, predictions = [], {}
    for image_id in range(n_images):
        n_truth = int(random.integers(0, 4))
        corners = random.uniform(0, 300, (n_truth, 2))
        truth = np.concatenate([corners, corners + random.uniform(8, 150, (n_truth, 2))], axis=1)
        classes = random.integers(0, n_classes, n_truth)
        moved = truth + random.normal(0, 6, truth.shape)
        corners = random.uniform(0, 300, (int(random.integers(0, 6)), 2))
        boxes = np.concatenate([moved, np.concatenate([corners, corners + 50], axis=1)])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        labels = np.concatenate([classes, random.integers(0, n_classes, len(corners))])
        scores = random.uniform(0, 1, len(boxes))
        scores = scores.round(1) if ties else scores
        records.append(
            ImageRecord(image_id, f"{image_id}.png", 500, 500, f"patient{image_id // 3}", None, truth, classes)
        )
        predictions[image_id] = Detections.from_unsorted(boxes, scores, labels)
    return Dataset(tuple(records), tuple("abcdef"[:n_classes])), predictions


def crowded_study(
    seed: int, n_images: int = 60, n_classes: int = 2, ties: bool = False
) -> tuple[Dataset, dict[int, Detections]]:
    """Return a random study in which two images of three have two or four crowd regions, some of them no other mark."""
    study, predictions = random_study(seed, n_images, n_classes, ties)
    random = np.random.default_rng(seed + 1000)
    records = []
    for number, image in enumerate(study):
        n_crowd = 2 * (number % 3)
        corners = random.uniform(0, 250, (n_crowd, 2))
        regions = np.concatenate([corners, corners + random.uniform(80, 250, (n_crowd, 2))], axis=1)
        alone = n_crowd and random.random() < 0.2
        records.append(
            replace(
                image,
                boxes=image.boxes[:0] if alone else image.boxes,
                classes=image.classes[:0] if alone else image.classes,
                crowd_boxes=regions,
                crowd_classes=random.integers(0, n_classes, n_crowd),
            )
        )
    return Dataset(tuple(records), study.class_names), predictions


def truth_as_detections(study: Dataset) -> dict[int, Detections]:
    """Return what a detector says that knows the truth: each truth box with a score of its own."""
    return {
        one.image_id: Detections.from_unsorted(
            one.boxes, 1 - (np.arange(len(one.boxes)) + one.image_id / len(study)) / 100, one.classes
        )
        for one in study
    }


def repeated(
    study: Dataset, predictions: Mapping[int, Detections], weights: ArrayLike
) -> tuple[Dataset, dict[int, Detections]]:
    """Return the set in which each image comes as often as its weight says, copies beside each other."""
    records = [one for one, weight in zip(study, np.asarray(weights), strict=True) for _ in range(int(weight))]
    renumbered = [replace(one, image_id=index) for index, one in enumerate(records)]
    again = {index: predictions[one.image_id] for index, one in enumerate(records)}
    return Dataset(tuple(renumbered), study.class_names), again


def result_rows(predictions: Mapping[int, Detections]) -> list[dict[str, Any]]:
    """Return detections in the form of a COCO results file, to go with `to_coco`."""
    return [
        {"image_id": image_id, "category_id": int(label) + 1, "bbox": [*b[:2], *(b[2:] - b[:2])], "score": float(score)}
        for image_id, one in predictions.items()
        for b, score, label in zip(one.boxes.astype(float), one.scores, one.classes, strict=True)
    ]


def spread_study(seed: int, n_images: int = 40, n_classes: int = 2) -> tuple[Dataset, dict[int, Detections]]:
    """Return random truth of which no two boxes come near each other, and detections that near one of them at most."""
    random = np.random.default_rng(seed)
    records, predictions = [], {}
    for image_id in range(n_images):
        cells = np.array([(x, y) for x in range(3) for y in range(3)]) * 200.0 + 20
        corners = cells + random.uniform(0, 20, cells.shape)
        places = np.concatenate([corners, corners + random.uniform(20, 140, cells.shape)], axis=1)
        true = random.random(9) < 0.3 * (image_id % 3)  # a third of the images is healthy
        classes = random.integers(0, n_classes, 9)
        tried = random.integers(0, 9, 12)
        boxes = places[tried] + random.normal(0, 10, (12, 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = np.where(random.random(12) < 0.8, classes[tried], random.integers(0, n_classes, 12))
        predictions[image_id] = Detections.from_unsorted(boxes, random.random(12).round(2), labels)
        group = f"patient{image_id // 3}"
        records.append(ImageRecord(image_id, f"{image_id}.png", 640, 640, group, None, places[true], classes[true]))
    return Dataset(tuple(records), tuple("abcdef"[:n_classes])), predictions
