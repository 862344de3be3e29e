"""Whether there is anything to evaluate: images, truth boxes, and predictions of them."""

from __future__ import annotations

from pathlib import Path

from fracture_det.data.predictions import AlignedPredictions
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.structures.wording import counted


class NothingToEvaluateError(ValueError):
    """There is no image, no truth box or no prediction; the message names the file and what helps."""


def check_truth(dataset: Dataset, path: Path) -> None:
    """Raise NothingToEvaluateError for a data set without any image or without any truth box."""
    if not len(dataset):
        raise NothingToEvaluateError(f"{path}: no image to evaluate on: its list of images is empty")
    if not any(len(record.boxes) for record in dataset):
        raise NothingToEvaluateError(
            f"{path}: none of {counted(len(dataset), 'image')} has a truth box{_crowds(dataset.records)}, so that "
            "neither sensitivity nor AP is defined; give truth with fractures, or predict with fracture-det predict"
        )


def check_predicted(dataset: Dataset, aligned: AlignedPredictions, path: Path) -> None:
    """Raise NothingToEvaluateError where every image failed, or every image with a truth box."""
    failed = [record for record in dataset if record.image_id in aligned.failures]
    if len(failed) == len(dataset):
        first = failed[0]
        raise NothingToEvaluateError(
            f"{path}: {_all_of(len(dataset))} failed, so that nothing can be evaluated; first "
            f"{first.file_name}: {aligned.failures[first.image_id]}"
        )
    with_box = [record for record in dataset if len(record.boxes)]
    lost = [record for record in with_box if record.image_id in aligned.failures]
    if lost and len(lost) == len(with_box):
        first = lost[0]
        raise NothingToEvaluateError(
            f"{path}: {_all_of(len(lost))} with a truth box failed, so that neither sensitivity nor AP is "
            f"defined; first {first.file_name}: {aligned.failures[first.image_id]}"
        )


def _all_of(n: int) -> str:
    return "the only image" if n == 1 else f"each of {n:,} images"


def _crowds(records: tuple[ImageRecord, ...]) -> str:
    crowded = sum(len(record.crowd_boxes) > 0 for record in records)
    return f" ({crowded:,} have regions marked iscrowd, which are none)" if crowded else ""
