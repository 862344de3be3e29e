"""Readers' feedback on a detector's boxes, as annotations to train on: LabelImg XML and COCO."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fracture_det.data.annotation_formats.voc import voc_xml
from fracture_det.data.annotations import RawBox
from fracture_det.data.coco import write_coco
from fracture_det.data.records import Dataset, ImageRecord

RIGHT = "right"
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Review:
    """One reader's feedback on one radiograph; boxes are x0, y0, x1, y1 px of the upright image.

    name: a name for its files, without a suffix. image: a PNG, upright, or None where it was not kept. size: (height,
    width). boxes, labels: the detections, highest score first. n_required: how many of them, from the first on, need a
    verdict. verdicts: number of the box from 1 -> "right" or "wrong". missed: fractures without a box. about: further
    columns for metadata.csv. types: number of a right box -> type of its fracture, where known. missed_types: likewise
    of each missed fracture, None where unknown; () of all unknown.
    """

    name: str
    image: Path | None
    size: tuple[int, int]
    boxes: Sequence[Box]
    labels: Sequence[str]
    n_required: int
    verdicts: Mapping[int, str]
    missed: Sequence[Box]
    no_fracture: bool
    about: Mapping[str, str]
    types: Mapping[int, str] = field(default_factory=dict)
    missed_types: Sequence[str | None] = ()

    @property
    def unusable(self) -> str:
        """Why it cannot be trained on, or an empty text."""
        if self.image is None:
            return "its picture was not kept"
        missing = [number for number in range(1, 1 + self.n_required) if number not in self.verdicts]
        if missing and not self.no_fracture:
            return f"box {missing[0]} was not judged"
        return "" if self.no_fracture or self.verdicts or self.missed else "there is only a comment"

    def truth(self, label: str) -> tuple[RawBox, ...]:
        """Return the boxes judged right and the missed fractures, which get the class `label`."""
        if self.no_fracture:
            return ()
        right = sorted(number for number, verdict in self.verdicts.items() if verdict == RIGHT)
        confirmed = [
            RawBox(self.labels[number - 1], self.boxes[number - 1], type=self.types.get(number, "")) for number in right
        ]
        missed = zip(self.missed, self.missed_types or (None,) * len(self.missed), strict=True)
        return (*confirmed, *(RawBox(label, box, type=kind or "") for box, kind in missed))


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
