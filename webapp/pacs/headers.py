"""The header of a received object as outputs need it: what they copy of patient and study, in valid form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TM, PersonName, format_number_as_ds

from .objects import read_header, text_of

UTF_8 = "ISO_IR 192"
# Of type 2 in the modules that outputs share: present, if need be without a value.
SHARED = {
    "PatientID": 64,
    "PatientName": 324,
    "PatientBirthDate": 8,
    "PatientSex": 1,
    "AccessionNumber": 16,
    "StudyID": 16,
    "StudyDate": 8,
    "StudyTime": 16,
    "ReferringPhysicianName": 324,
}
# Copied where they are there.
OPTIONAL = {
    "StudyDescription": 64,
    "IssuerOfPatientID": 64,
    "BodyPartExamined": 16,
    "ImageLaterality": 1,
    "Laterality": 1,
    "Modality": 16,
    "BurnedInAnnotation": 3,
    "PhotometricInterpretation": 16,
    "FillerOrderNumberImagingServiceRequest": 64,
    "PlacerOrderNumberImagingServiceRequest": 64,
}
KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
NUMBERS = ("Rows", "Columns", "SamplesPerPixel", "BitsStored", "NumberOfFrames")
# Of the pixels' presentation, for a presentation state.
PRESENTATION = ("RescaleType", "VOILUTFunction")
PRESENTATION_NUMBERS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
SEXES = ("M", "F", "O")


def source_header(path: Path) -> Dataset:
    """Return the header of an object in the spool, with valid values of what outputs copy, in UTF-8.

    A value that cannot be read or is not valid is left empty: an answer goes to the right study all the same, by UID.
    """
    read = read_header(path)
    header = Dataset()
    header.SpecificCharacterSet = UTF_8
    for keyword in KEYS:
        setattr(header, keyword, text_of(read, keyword))
    for keyword, longest in SHARED.items():
        setattr(header, keyword, _shared_value(keyword, text_of(read, keyword), longest))
    for keyword, longest in OPTIONAL.items():
        if (text := _clean(text_of(read, keyword))) and len(text) <= longest:
            setattr(header, keyword, text)
    for keyword in (*NUMBERS, *PRESENTATION):
        _copy(read, header, keyword)
    for keyword in PRESENTATION_NUMBERS:
        _copy_number(read, header, keyword)
    if "SamplesPerPixel" not in header and str(header.get("PhotometricInterpretation", "")).startswith("MONOCHROME"):
        header.SamplesPerPixel = 1  # as such an image is read
    _copy_orientation(read, header)
    _copy_order(read, header)
    if not header.SeriesInstanceUID:
        header.SeriesInstanceUID = header.StudyInstanceUID  # a reference needs one; nothing is ever stored under it
    return header


def _shared_value(keyword: str, text: str, longest: int) -> Any:
    text = _clean(text)
    if keyword in ("PatientName", "ReferringPhysicianName"):
        is_valid = len(text) <= longest and text.count("=") <= 2
        return PersonName(text if is_valid else "")
    if keyword == "PatientSex":
        return text if text in SEXES else ""
    try:
        if keyword.endswith("Date") and text:
            DA(text)
        if keyword.endswith("Time") and text:
            TM(text)
    except ValueError:
        return ""
    return text if len(text) <= longest else ""


def _clean(text: str) -> str:
    """Return a text without control characters and backslashes, which would make it another text in DICOM and HL7."""
    return "".join(sign for sign in text if sign.isprintable() and sign != "\\").strip()


def _copy(read: Dataset, header: Dataset, keyword: str) -> None:
    try:
        if keyword in read and read[keyword].value not in (None, ""):
            header[keyword] = read[keyword]
    except Exception:  # a broken value
        return


def _copy_number(read: Dataset, header: Dataset, keyword: str) -> None:
    """Copy the first decimal number, of several windows the first one, as the image itself is read."""
    try:
        value: Any = read[keyword].value if keyword in read else None
        values = value if isinstance(value, MultiValue) else [value]
        texts = [str(one).strip(" \0") for one in values if one is not None]
        numbers = [float(text) for text in texts if text]
        if numbers and all(map(math.isfinite, numbers)):
            setattr(header, keyword, format_number_as_ds(numbers[0]))
    except Exception:  # a broken value
        return


def _copy_order(read: Dataset, header: Dataset) -> None:
    """Copy the numbers of the order from where modalities put them: the Request Attributes Sequence."""
    try:
        requests = list(read.get("RequestAttributesSequence") or [])
    except Exception:  # a broken sequence
        return
    for request in requests[:1]:
        for keyword in (
            "PlacerOrderNumberImagingServiceRequest",
            "FillerOrderNumberImagingServiceRequest",
            "RequestedProcedureID",
        ):
            if (text := _clean(text_of(request, keyword))) and len(text) <= 64:
                setattr(header, keyword, text)
        if not header.AccessionNumber:
            header.AccessionNumber = _clean(text_of(request, "AccessionNumber"))[:16]


def _copy_orientation(read: Dataset, header: Dataset) -> None:
    """Copy the directions of rows and columns where there are two, as PS3.3 C.7.6.1.1.1 has them."""
    try:
        directions = [str(direction) for direction in read.get("PatientOrientation") or []]
    except Exception:  # a broken value
        return
    if len(directions) == 2 and all(direction and set(direction) <= set("ARPLHF") for direction in directions):
        header.PatientOrientation = directions
