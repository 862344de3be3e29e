"""Predictions of a served detector and of candidates, made from synthetic truth, for the tests of the gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fracture_det.data.coco import write_coco
from fracture_det.data.prediction_writer import write_predictions
from fracture_det.data.predictions import WEIGHTS_SHA256, ImagePrediction, Predictions
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.evaluation.validation import freeze
from fracture_det.structures.detections import Detections

SERVED_SHA256, CANDIDATE_SHA256 = "a" * 64, "b" * 64
# Of the patients in turn; the shoulder is one in six.
PARTS = ("hand", "leg", "hand", "leg", "hand", "shoulder")


# Boxes beside the fractures in each image.
N_NOISE = 4


@dataclass(frozen=True)
class Skill:
    """How a drawn detector scores: a fracture about `hit` (log odds), noise about `noise`; `moved` is its jitter in px.

    temperature: what all log odds are divided by in the end; it changes no order.
    """

    hit: float = 1.2
    noise: float = -1.5
    moved: float = 4.0
    temperature: float = 1.0


SERVED = Skill()
BETTER = Skill(hit=2.2, moved=3.0)


def draw_truth(seed: int, n_images: int = 240) -> Dataset:
    """Return images of three body parts, half of them with one or two fractures; every two are of one patient."""
    random = np.random.default_rng(seed)
    records = []
    for number in range(n_images):
        n_truth = int(random.integers(1, 3)) if number % 2 else 0
        corners = random.uniform(20, 300, (n_truth, 2))
        boxes = np.concatenate([corners, corners + random.uniform(50, 120, (n_truth, 2))], axis=1)
        records.append(
            ImageRecord(
                number + 1,
                f"{seed}_{number:03}.png",
                480,
                480,
                f"{seed}_patient{number // 2}",
                PARTS[number // 2 % 6],
                boxes.round(2),
                np.zeros(n_truth, np.int64),
            )
        )
    return Dataset(tuple(records), ("fracture",))


def predict(
    truth: Dataset, skill: Skill, sha256: str, *, of_record: Callable[[ImageRecord], Skill] | None = None
) -> Predictions:
    """Return what a detector of this skill says. Detectors share their luck with an image, as real ones do.

    of_record: another skill for some images.
    """
    images = []
    for record in truth:
        random = np.random.default_rng([record.image_id, int(record.file_name.partition("_")[0])])
        one = of_record(record) if of_record else skill
        n_truth = len(record.boxes)
        jitter = random.normal(0, 1, (n_truth, 4)) * one.moved
        corners = random.uniform(0, 380, (N_NOISE, 2))
        boxes = np.concatenate([record.boxes + jitter, np.concatenate([corners, corners + 60], axis=1)])
        odds = random.normal(0, 1, n_truth + N_NOISE) + np.array([one.hit] * n_truth + [one.noise] * N_NOISE)
        scores = 1 / (1 + np.exp(-odds / one.temperature))
        detections = Detections.from_unsorted(boxes.round(2), scores.round(6), [0] * len(boxes))
        images.append(ImagePrediction(record.file_name, record.size, detections))
    name = f"detector {sha256[:4]}"
    return Predictions(name, truth.class_names, tuple(images), about={WEIGHTS_SHA256: sha256})


def failed(predictions: Predictions, names: set[str]) -> Predictions:
    """Return the predictions with an error for the images of these names."""
    images = tuple(
        ImagePrediction(image.file_name, error="truncated") if image.file_name in names else image
        for image in predictions.images
    )
    return replace(predictions, images=images)


def write_run(folder: Path, predictions: Predictions, calibrated_as: Skill | None = None) -> Path:
    """Write a run as `fracture-det eval` leaves it: predictions, and a calibration fitted on a validation set.

    calibrated_as: the skill that the validation saw; None writes no calibration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / "predictions.jsonl", predictions)
    (folder / "calibration.json").unlink(missing_ok=True)
    if calibrated_as is not None:
        validation, test = draw_truth(99), Dataset((), ("fracture",))
        fitted = predict(validation, calibrated_as, predictions.about[WEIGHTS_SHA256])
        about = {"data": "val.json", **fitted.about}
        freeze(validation, fitted, test=test, method="platt", about=about).save(folder / "calibration.json")
    return folder


def write_tests(folder: Path, seeds: dict[str, int]) -> dict[str, Dataset]:
    """Write the truth of each test as NAME.json, and the served detector's run of it as served_NAME; return truths."""
    truths = {}
    for name, seed in seeds.items():
        truths[name] = draw_truth(seed)
        write_coco(truths[name], folder / f"{name}.json")
        write_run(folder / f"served_{name}", predict(truths[name], SERVED, SERVED_SHA256), SERVED)
    return truths
