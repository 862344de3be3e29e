"""DICOM radiographs without their patients (PS3.15, annex E): dicognito's pseudonyms, and nothing that is not needed.

dicognito replaces identifiers, dates and UIDs consistently, but leaves free text and private elements. Of these,
nothing is left here: what is copied is a list of attributes of the picture, all others of table E.1-1 and beyond are
removed, and the pixels are decoded and written anew, so that nothing hides in unused bits or in a coded frame. Numbers
are not copied but written anew, too, as far as the picture needs them: `deidentified_numbers`.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
from typing import Any

import numpy as np

from fracture_det.data.deidentified_numbers import set_numbers
from fracture_det.structures.dicom import OpenedDicom, open_dicom
from fracture_det.structures.dicom_frames import read_samples
from fracture_det.structures.dicom_meaning import LIMBS, OTHERS
from fracture_det.structures.image_errors import UnsupportedImage
from fracture_det.structures.radiograph import MAX_PIXELS

# What is copied, each with the texts that it may have, and how many of them.
TERMS = {
    "Modality": r"CR|DX|RG|OT",
    "PresentationIntentType": r"FOR PRESENTATION",
    "BodyPartExamined": "|".join((*LIMBS, *OTHERS, "PELVIS")),
    "ViewPosition": r"AP|PA|LL|RL|RLD|LLD|RLO|LLO",
    "ImageLaterality": r"[LRBU]",
    "Laterality": r"[LRBU]",
    "PatientOrientation": r"[LRAPHF]{1,3}",
    "PixelSpacingCalibrationType": r"GEOMETRY|FIDUCIAL",
    "BurnedInAnnotation": r"NO",
    "PhotometricInterpretation": r"MONOCHROME[12]",
    "PresentationLUTShape": r"IDENTITY|INVERSE",
    "VOILUTFunction": r"LINEAR|LINEAR_EXACT|SIGMOID",
}
SEVERAL = {"PatientOrientation": 2}
# What dicognito replaces by pseudonyms; all four are required in a file.
PSEUDONYMS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
DERIVED = b"fracture_det de-identification"


def deidentify_dicom(data: bytes, secret: bytes) -> bytes:
    """Return a DICOM radiograph as a file of its own without its patient, uncompressed.

    The same id gives the same pseudonym with the same secret, so that patients and studies stay groups. Raises what
    `read_radiograph` raises, and UnsupportedImage for a picture into which writing is burned: it may be a name.
    """
    opened = open_dicom(data, MAX_PIXELS)
    if opened.file.burned_in:
        raise UnsupportedImage("a DICOM file with writing burned into its picture, which may name the patient")
    return _written(_clean(opened, secret))


def _clean(opened: OpenedDicom, secret: bytes) -> Any:
    from dicognito.anonymizer import Anonymizer
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    source, clean = opened.header, Dataset()
    for name, allowed in TERMS.items():
        values = [value for value in source.texts(name)[: SEVERAL.get(name, 1)] if re.fullmatch(allowed, value)]
        if values:
            setattr(clean, name, values if len(values) > 1 else values[0])
    if opened.file.sop_class is not None:  # one of those that are read
        clean.SOPClassUID = opened.file.sop_class
    for name in PSEUDONYMS:
        setattr(clean, name, source.text(name))
    if not clean.SOPInstanceUID:
        raise UnsupportedImage("a DICOM file without a SOPInstanceUID, which its copy would be called by")
    set_numbers(clean, opened)
    _set_pixels(clean, opened)
    clean.file_meta = FileMetaDataset()
    clean.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    clean.file_meta.MediaStorageSOPClassUID = clean.get("SOPClassUID", "")
    seed = hmac.new(secret, DERIVED, hashlib.sha256).hexdigest()
    Anonymizer(seed=seed).anonymize(clean)
    clean.file_meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    clean.PatientName = clean.PatientID  # no invented name that could be somebody's
    clean.PatientIdentityRemoved = "YES"
    return clean


def _set_pixels(clean: Any, opened: OpenedDicom) -> None:
    samples, scale, frame = read_samples(opened.header.layout, opened.frame), opened.scale, opened.frame
    if scale is not None:
        samples = samples >> (scale.high_bit + 1 - scale.stored) & ((1 << scale.stored) - 1)
    else:
        clean.PhotometricInterpretation, clean.PlanarConfiguration = "RGB", 0
    clean.SamplesPerPixel, clean.BitsAllocated = frame.samples, frame.allocated
    clean.BitsStored = frame.allocated if scale is None else scale.stored
    clean.HighBit = clean.BitsStored - 1
    content = samples.astype("<u2" if frame.allocated == 16 else np.uint8).tobytes()
    clean.PixelData = content + b"\0" * (len(content) % 2)
    clean["PixelData"].VR = "OW" if frame.allocated == 16 else "OB"


def _written(clean: Any) -> bytes:
    from pydicom import dcmwrite

    buffer = io.BytesIO()
    dcmwrite(buffer, clean, enforce_file_format=True)
    return buffer.getvalue()
