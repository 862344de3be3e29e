"""What is said of a study: per image a result, a reader's feedback, and the identifiers that follow from them."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom import Dataset

from fracture_det.inference.service import Detections, Prediction
from fracture_det.structures.radiograph import Pixels
from fracture_det.structures.readings import Reading

from ..fracture_types import image_types, named, type_schemas
from ..presentation import FINDING_BY_LEVEL, LIKELY, NONE_SEEN, POSSIBLE, level_of
from ..schemas import TypeSchema

ANALYSED, NOT_ANALYSED, IGNORED = "analysed", "not analysed", "ignored"
MOVED = "moved"
NOTICE = "Research use only, not for diagnosis"
# The most urgent first.
LEVELS = (LIKELY, POSSIBLE, NONE_SEEN)
NamedType = tuple[str, float]


@dataclass(frozen=True)
class Box:
    """A box that is reported: corners in pixels of the image, score 0..1, level likely or possible.

    type: that of its fracture with its probability (0..1), or None where none is named.
    """

    number: int
    corners_px: tuple[float, float, float, float]
    score: float
    level: str
    type: NamedType | None = None


@dataclass(frozen=True)
class ImageResult:
    """What is said of one object, as the queue stores it.

    status: ANALYSED, NOT_ANALYSED (with reason and sentence) or IGNORED. finding: likely, possible or none seen.
    confidence: calibrated probability (0..1) that the image shows a fracture. boxes: those that are at least possible.
    type: that of the fracture, only of an image with a finding, and where the detector states from which probability on
    it names one and this one has it.
    """

    status: str
    reason: str = ""
    sentence: str = ""
    finding: str = ""
    confidence: float | None = None
    boxes: tuple[Box, ...] = ()
    height: int = 0
    width: int = 0
    calibrated: bool = False
    operating_score: float = 0.0
    possible_score: float = 0.0
    model: str = ""
    model_sha256: str = ""
    note: str = ""
    type: NamedType | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        content = dict(vars(self))
        content["boxes"] = [
            [box.number, *box.corners_px, box.score, box.level, *([box.type] if box.type else [])] for box in self.boxes
        ]
        if self.type is None:  # as before there were types, so that the same answer keeps its UIDs
            del content["type"]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ImageResult:
        """Return what `to_json` gave."""
        boxes = tuple(
            Box(int(number), (x0, y0, x1, y1), score, level, _named(*kind))
            for number, x0, y0, x1, y1, score, level, *kind in content["boxes"]
        )
        return cls(**{**content, "boxes": boxes, "type": _named(content.get("type"))})

    @property
    def title(self) -> str:
        """The finding, or that there is none, in words."""
        return FINDING_BY_LEVEL[self.finding].title if self.status == ANALYSED else "Not analysed"

    @property
    def advice(self) -> str:
        """A sentence on the finding, or the reason why there is none."""
        return FINDING_BY_LEVEL[self.finding].advice if self.status == ANALYSED else self.sentence

    @property
    def detections(self) -> Detections:
        """The boxes as detections of one class."""
        return Detections.from_unsorted(
            [box.corners_px for box in self.boxes], [box.score for box in self.boxes], [0] * len(self.boxes)
        )


def _named(kind: Sequence[Any] | None = None) -> NamedType | None:
    return None if kind is None else (str(kind[0]), float(kind[1]))


def result_of(prediction: Prediction, finding: str, operating_score: float, possible_score: float) -> ImageResult:
    """Return what is said of an analysed image, whose detections are those that are stored."""
    shown, info = prediction.detections.above(possible_score), prediction.detector
    # What is archived outlives the page's words on how far a type can be trusted.
    names = info.type_names if info.type_confidence is not None else ()

    def type_of(types: Sequence[TypeSchema]) -> NamedType | None:
        kind = named(types, info.type_confidence)
        return None if kind is None else (kind.name, kind.probability)

    of_boxes = shown.types.tolist() if names and shown.types is not None else [None] * len(shown)
    boxes = tuple(
        Box(
            number,
            tuple(round(float(side), 2) for side in corners),  # type: ignore[arg-type]
            round(float(score), 6),
            level_of(float(score), operating_score, possible_score),
            None if types is None else type_of(type_schemas(names, types)),
        )
        for number, (corners, score, types) in enumerate(zip(shown.boxes, shown.scores, of_boxes, strict=True), start=1)
    )
    said = prediction.suitability
    return ImageResult(
        status=ANALYSED,
        finding=finding,
        confidence=None if prediction.confidence is None else round(prediction.confidence, 6),
        boxes=boxes,
        height=prediction.height,
        width=prediction.width,
        calibrated=prediction.detector.calibrated,
        operating_score=operating_score,
        possible_score=possible_score,
        model=prediction.detector.name,
        model_sha256=prediction.detector.sha256 or "",
        note="" if said is None else said.sentence,
        type=type_of(image_types(prediction.detections, names)) if names and finding != NONE_SEEN else None,
    )


@dataclass(frozen=True)
class ImageAnswer:
    """One image of an answer. header: see `headers.source_header`. pixels: reads (H, W, 3) uint8 RGB.

    feedback: what is passed on of its readings, what was settled or else the newest.
    """

    header: Dataset
    sha256: str
    result: ImageResult
    feedback: Reading | None
    pixels: Callable[[], Pixels]

    @property
    def is_analysed(self) -> bool:
        """Whether there is a finding."""
        return self.result.status == ANALYSED

    def reader_type(self, box: Box) -> str:
        """Return the type of fracture that a reader states of a box, or an empty text."""
        return "" if self.feedback is None else self.feedback.types.get(box.number, "")

    def verdict(self, box: Box) -> str:
        """Return a reader's verdict on a box, right, moved or wrong, or an empty text."""
        if self.feedback is None:
            return ""
        return MOVED if box.number in self.feedback.moved else self.feedback.verdicts.get(box.number, "")


@dataclass(frozen=True)
class StudyAnswer:
    """One version of the answer on a study. previous_sha256: of the content of the version before, if there is one."""

    study_uid: str
    version: int
    images: tuple[ImageAnswer, ...]
    model: str
    model_sha256: str
    software: str
    created_at: datetime
    institution: str | None = None
    previous_sha256: str | None = None

    @property
    def header(self) -> Dataset:
        """The header of the first image, for what all images of a study share."""
        return self.images[0].header

    @property
    def level(self) -> str | None:
        """The most urgent finding, or None where no image was analysed."""
        found = {image.result.finding for image in self.images if image.is_analysed}
        return next((level for level in LEVELS if level in found), None)

    @property
    def is_complete(self) -> bool:
        """Whether every image was analysed."""
        return all(image.is_analysed for image in self.images)

    @property
    def author(self) -> str | None:
        """The reader whose feedback is the newest, if there is any."""
        said = [image.feedback for image in self.images if image.feedback is not None]
        return max(said, key=lambda one: one.updated_at).author if said else None

    @property
    def content_sha256(self) -> str:
        """The hash of everything that the answer says; another answer has another one."""
        content = [
            [image.header.SOPInstanceUID, image.sha256, image.result.to_json(), _feedback_json(image.feedback)]
            for image in self.images
        ]
        text = json.dumps([self.study_uid, self.model_sha256, content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def uid(self, *parts: str) -> str:
        """Return the UID of a part of this version, the same whenever the same is said of the same objects."""
        return derived_uid(self.study_uid, str(self.version), self.content_sha256, *parts)

    def previous_uid(self, *parts: str) -> str | None:
        """Return what `uid` gave for the version before."""
        if self.previous_sha256 is None:
            return None
        return derived_uid(self.study_uid, str(self.version - 1), self.previous_sha256, *parts)

    def model_of(self, image: ImageAnswer) -> tuple[str, str]:
        """Return name and SHA-256 of what analysed an image: a later version may have images of an earlier model."""
        return image.result.model or self.model, image.result.model_sha256 or self.model_sha256

    def series_uid(self, kind: str) -> str:
        """Return the UID of the series that holds all versions of one kind of output."""
        return derived_uid(self.study_uid, "series", kind)


def derived_uid(*parts: str) -> str:
    """Return a UID of PS3.5 B.2 (2.25 and a UUID) that follows from `parts`."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(['fracture_det', *parts])).int}"


def _feedback_json(said: Reading | None) -> list[Any] | None:
    if said is None:
        return None
    verdicts = sorted(said.verdicts.items())
    types = [sorted(said.types.items()), list(said.missed_types)] if said.types or any(said.missed_types) else []
    moved = [sorted([number, *box] for number, box in said.moved.items())] if said.moved else []
    unreadable = ["not readable", said.reason] if said.unreadable else []
    words = [said.no_fracture, said.comment, said.author]
    return [verdicts, [list(box) for box in said.missed], *words, *types, *moved, *unreadable]
