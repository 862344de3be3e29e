"""From a study with its results to the outputs of its next version, one list for all its destinations."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from fracture_det import __version__
from fracture_det.inference.service import DetectorInfo
from fracture_det.structures.radiograph import Pixels, read_radiograph

from ..store.pacs import FAILED, DueStudy, Output, QueuedObject
from .answers import IGNORED, NOT_ANALYSED, ImageAnswer, ImageResult, StudyAnswer
from .config import DicomDestination, Hl7Destination, PacsConfig, StowDestination
from .fhir import fhir_transaction
from .headers import source_header
from .hl7 import oru_r01
from .outputs.encapsulated_pdf import encapsulated_pdf
from .outputs.presentation_state import is_grayscale, presentation_state
from .outputs.secondary_capture import secondary_capture
from .outputs.structured_report import structured_report

GIVEN_UP = ImageResult(
    NOT_ANALYSED, reason="failure", sentence="The analysis failed; this says nothing about a fracture."
)


def answer_of(study: DueStudy, config: PacsConfig, info: DetectorInfo) -> StudyAnswer | None:
    """Return the next version of the answer on a study, or None where there is nothing to say.

    Objects that are no images are left out, and with `unsuitable = "silent"` images that were not analysed; what the
    analysis failed on never is.
    """
    images = []
    for known in study.objects:
        result = GIVEN_UP if known.state == FAILED else ImageResult.from_json(known.result or {})
        is_silent = config.unsuitable == "silent" and result.status == NOT_ANALYSED and known.state != FAILED
        if result.status != IGNORED and not is_silent:
            images.append(_image(known, result, study))
    if not images:
        return None
    return StudyAnswer(
        study_uid=study.uid,
        version=study.version + 1,
        images=tuple(images),
        model=info.name,
        model_sha256=info.sha256 or "",
        software=__version__,
        created_at=datetime.now(timezone.utc),
        institution=config.institution,
        previous_sha256=study.content_sha256 if study.version else None,
    )


def outputs_of(answer: StudyAnswer, destinations: tuple[Any, ...]) -> list[Output]:
    """Return every output of an answer for each destination. What several of them get is made once."""
    made: dict[str, list[tuple[str, bytes]]] = {}
    outputs = []
    for destination in destinations:
        if isinstance(destination, Hl7Destination):
            outputs.append(Output(destination.name, "hl7", *oru_r01(answer, destination)))
        elif isinstance(destination, DicomDestination | StowDestination):
            for kind in destination.outputs:
                if kind not in made:
                    made[kind] = list(_objects(answer, kind))
                outputs += [Output(destination.name, kind, uid, content) for uid, content in made[kind]]
        else:
            outputs.append(Output(destination.name, "fhir", *fhir_transaction(answer)))
    return outputs


def _objects(answer: StudyAnswer, kind: str) -> list[tuple[str, bytes]]:
    """Return the objects of one kind: reports are on a study, pictures and presentation states on analysed images."""
    if kind == "sr":
        return [structured_report(answer)]
    if kind == "pdf":
        return [encapsulated_pdf(answer)]
    analysed = [(number, image) for number, image in enumerate(answer.images, start=1) if image.is_analysed]
    if kind == "gsps":
        return [presentation_state(answer, image, number) for number, image in analysed if is_grayscale(image)]
    return [secondary_capture(answer, image, number) for number, image in analysed]


def _image(known: QueuedObject, result: ImageResult, study: DueStudy) -> ImageAnswer:
    return ImageAnswer(
        source_header(known.path), known.sha256, result, study.feedback.get(known.id), partial(_pixels, known.path)
    )


def _pixels(path: Path) -> Pixels:
    return read_radiograph(path, formats=("DICOM",)).pixels
