"""The DICOM objects that an answer is sent as."""

from __future__ import annotations

import io
from typing import Any

from pydicom import Dataset

from ..answers import StudyAnswer
from ..headers import UTF_8

MANUFACTURER, MODEL = "fracture_det", "fracture_det"
# Far from those of modalities.
SERIES_NUMBERS = {"sr": 9901, "gsps": 9902, "sc": 9903, "pdf": 9904}
SERIES_DESCRIPTIONS = {
    "sr": "Fracture detection (research use only)",
    "gsps": "Fracture boxes (research use only)",
    "sc": "Fracture boxes, RESEARCH USE ONLY",
    "pdf": "Fracture report (research use only)",
}


def series_of(answer: StudyAnswer, kind: str) -> dict[str, Any]:
    """Return what the constructors of highdicom ask for of series and equipment."""
    return {
        "series_instance_uid": answer.series_uid(kind),
        "series_number": SERIES_NUMBERS[kind],
        "series_description": SERIES_DESCRIPTIONS[kind],
        "manufacturer": MANUFACTURER,
        "specific_character_set": UTF_8,
    }


def encode(dataset: Dataset) -> bytes:
    """Return a dataset as a file of PS3.10."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def copy_study(answer: StudyAnswer, dataset: Dataset) -> None:
    """Copy what highdicom does not: the description of the study, and who issued the patient's ID."""
    for keyword in ("StudyDescription", "IssuerOfPatientID"):
        if keyword in answer.header:
            setattr(dataset, keyword, answer.header[keyword].value)


def side_of(header: Dataset) -> str:
    """Return the side as Laterality has it: L, R or empty."""
    side = str(header.get("ImageLaterality") or header.get("Laterality") or "")
    return side if side in ("L", "R") else ""
