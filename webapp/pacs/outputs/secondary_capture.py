"""The secondary capture: a picture with the boxes burned in, for viewers that show nothing else."""

from __future__ import annotations

import io

import numpy as np
from highdicom.sc import SCImage
from PIL import Image
from pydicom import Dataset

from fracture_det.inference.service import overlay_png

from ..answers import NOTICE, ImageAnswer, StudyAnswer
from ..headers import UTF_8
from ..wording import headline
from . import MANUFACTURER, MODEL, SERIES_DESCRIPTIONS, SERIES_NUMBERS, copy_study, encode, side_of

# Of the longer side: it is a picture to glance at, and the source image stays beside it.
LONGEST_PX = 1600
CLASS_NAMES = ("fracture",)


def overlay_of(image: ImageAnswer, longest_px: int = LONGEST_PX) -> bytes:
    """Return a PNG of an image with its boxes, the finding and the notice on its upper edge."""
    caption = f"{NOTICE}. {headline(image.result)}"
    return overlay_png(
        image.pixels(), image.result.detections, CLASS_NAMES, longest_px=longest_px, caption=caption.upper()
    )


def secondary_capture(answer: StudyAnswer, image: ImageAnswer, number: int) -> tuple[str, bytes]:
    """Return the SOP instance UID and the file of the picture of one image, the number-th of its study."""
    uid = answer.uid("sc", image.header.SOPInstanceUID)
    with Image.open(io.BytesIO(overlay_of(image))) as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    header = image.header
    capture = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("A", "F"),  # highdicom wants one; what the source says replaces it
        study_instance_uid=answer.study_uid,
        series_instance_uid=answer.series_uid("sc"),
        series_number=SERIES_NUMBERS["sc"],
        series_description=SERIES_DESCRIPTIONS["sc"],
        sop_instance_uid=uid,
        instance_number=(answer.version - 1) * len(answer.images) + number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=answer.software,
        patient_id=header.PatientID,
        patient_name=header.PatientName,
        patient_birth_date=header.PatientBirthDate or None,
        patient_sex=header.PatientSex or None,
        accession_number=header.AccessionNumber,
        study_id=header.StudyID,
        study_date=header.StudyDate or None,
        study_time=header.StudyTime or None,
        referring_physician_name=header.ReferringPhysicianName,
        specific_character_set=UTF_8,
        institution_name=answer.institution,
    )
    capture.PatientOrientation = list(header.get("PatientOrientation", []))
    capture.Laterality = side_of(header)
    if header.get("BurnedInAnnotation") in ("YES", "NO"):  # what is in the pixels of the source stays there
        capture.BurnedInAnnotation = header.BurnedInAnnotation
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    capture.SourceImageSequence = [source]
    capture.ImageComments = f"{NOTICE}. {headline(image.result)}"
    copy_study(answer, capture)
    return uid, encode(capture)
