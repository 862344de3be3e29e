"""DICOM objects for the tests: radiographs, and what is none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.builders import draw_radiograph
from tests.paths import ROOT
from webapp.pacs.answers import derived_uid

DX = "1.2.840.10008.5.1.4.1.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
# A held-out film of FracAtlas that comes with the page.
EXAMPLE = ROOT / "webapp/static/example.jpg"


def example_pixels():
    with Image.open(EXAMPLE) as image:
        return np.asarray(image.convert("L"))


def drawn_pixels(seed, *, fractured=True):
    return draw_radiograph(np.random.default_rng(seed), fractured=fractured)[0][:, :, 0]


def dicom_object(pixels, number=1, *, study=None, sop_class=DX, modality="DX", **values):
    """Return a grey radiograph (H, W) uint8 as the number-th object, in a study of its own unless `study` is given."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, derived_uid("test object", str(number))
    ds.StudyInstanceUID = derived_uid("test study", str(number if study is None else study))
    ds.SeriesInstanceUID = derived_uid("test series", ds.StudyInstanceUID)
    ds.PatientName, ds.PatientID = "Müller^Zoë", f"PID-{number}"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID = "20260102", "101112", "S1"
    ds.AccessionNumber, ds.ReferringPhysicianName = f"ACC{number}", "Doctor^A"
    ds.StudyDescription = "Hand in two planes"
    ds.Modality, ds.BodyPartExamined, ds.ImageLaterality = modality, "HAND", "L"
    ds.SeriesNumber, ds.InstanceNumber = 1, number
    ds.Manufacturer, ds.PatientOrientation = "Maker", ["A", "F"]
    ds.ImageType = ["DERIVED", "PRIMARY"]
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "85562004", "SCT", "Hand"
    ds.AnatomicRegionSequence, ds.AcquisitionContextSequence = [region], []
    ds.DetectorType, ds.ImagerPixelSpacing = None, [0.2, 0.2]
    ds.PresentationIntentType, ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = (
        "FOR PRESENTATION",
        "LOG",
        -1,
    )
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, 0, "US"
    ds.PresentationLUTShape = "IDENTITY"
    ds.WindowCenter, ds.WindowWidth = 128, 256
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    content = np.ascontiguousarray(pixels).tobytes()
    ds.PixelData = content + b"\0" * (len(content) % 2)
    ds["PixelData"].VR = "OB"
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def encoded(ds):
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write(ds, path: Path):
    path.write_bytes(encoded(ds))
    return path
