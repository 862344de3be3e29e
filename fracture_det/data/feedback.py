"""Readers' feedback on a detector's boxes, as annotations to train on: LabelImg XML and COCO."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fracture_det.data.annotation_formats.voc import voc_xml
from fracture_det.data.annotations import RawBox
from fracture_det.data.coco import write_coco
from fracture_det.data.records import Dataset, ImageRecord
from fracture_det.structures.readings import ReadRadiograph


@dataclass(frozen=True)
class Review:
    """What readers say of one radiograph.

    name: a name for its files, without a suffix. image: a PNG, upright, or None where it was not kept. size: (height,
    width). read: its readings, and the predicted boxes that they are about. about: further columns for metadata.csv.
    """

    name: str
    image: Path | None
    size: tuple[int, int]
    read: ReadRadiograph
    about: Mapping[str, str]

    @property
    def unusable(self) -> str:
        """Why it cannot be trained on, or an empty text."""
        return "its picture was not kept" if self.image is None else self.read.problem

    def truth(self, label: str) -> tuple[RawBox, ...]:
        """Return the fractures that it shows; those that readers drew get the class `label`."""
        return tuple(RawBox(mark.label or label, mark.box, type=mark.type or "") for mark in self.read.truth)


def write_reviews(reviews: Sequence[Review], out: Path, *, label: str) -> list[tuple[str, str]]:
    """Write `out`/images, annotations, coco.json and metadata.csv; return (name, reason) of what was left out.

    label: the class of the fractures that readers drew. Raises OSError.
    """
    usable = [review for review in reviews if not review.unusable]
    names = tuple(sorted({label, *(box.name for review in usable for box in review.truth(label))}))
    for folder in ("images", "annotations"):
        (out / folder).mkdir(parents=True)
    records = [_write(review, out, number, label, names) for number, review in enumerate(usable, start=1)]
    write_coco(Dataset(tuple(records), names), out / "coco.json", description="readers' feedback on a detector's boxes")
    with (out / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        columns = list(dict.fromkeys(column for review in usable for column in review.about))
        rows = csv.writer(file)
        rows.writerow(["file_name", *columns])
        rows.writerows(
            [f"{review.name}.png", *(review.about.get(column, "") for column in columns)] for review in usable
        )
    return [(review.name, review.unusable) for review in reviews if review.unusable]


def _write(review: Review, out: Path, number: int, label: str, names: tuple[str, ...]) -> ImageRecord:
    file_name, boxes = f"{review.name}.png", review.truth(label)
    assert review.image is not None  # else it is unusable
    shutil.copyfile(review.image, out / "images" / file_name)
    xml = voc_xml(file_name, review.size, boxes)
    (out / "annotations" / f"{review.name}.xml").write_text(xml, encoding="utf-8")
    return ImageRecord(
        image_id=number,
        file_name=file_name,
        height=review.size[0],
        width=review.size[1],
        group_id=review.name,
        boxes=np.array([box.box for box in boxes]).reshape(-1, 4),
        classes=np.array([names.index(box.name) for box in boxes], dtype=np.int64),
        types=tuple(box.type or None for box in boxes),
    )
