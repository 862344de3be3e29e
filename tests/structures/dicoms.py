"""DICOM files for tests, made by pydicom and, where pydicom has no encoder, by DCMTK."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="no pydicom here; the extra [dicom] has it")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

NATIVE = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "big": ExplicitVRBigEndian,
}
# Name -> the program of DCMTK and its options.
DCMTK = {
    "jpeg lossless": ("dcmcjpeg", "+e1"),
    "jpeg lossless 14": ("dcmcjpeg", "+el"),
    "jpeg extended 12": ("dcmcjpeg", "+ee", "+q", "98"),
    "jpeg-ls": ("dcmcjpls", "+el"),
    "jpeg-ls near": ("dcmcjpls", "+en", "+md", "2"),
    "rle": ("dcmcrle",),
}
PATIENT = {
    "PatientName": "Seeded^Wilhelmina",
    "PatientID": "SEED-7730441",
    "PatientBirthDate": "19310415",
    "AccessionNumber": "ACC5590217",
    "InstitutionName": "Seedling General",
    "ReferringPhysicianName": "Referrer^Seedy",
    "StudyDescription": "Seeded story of a fall",
    "OperatorsName": "Operator^Seed",
    "StationName": "SEEDSTATION9",
    "OtherPatientIDs": "SEEDOTHER42",
    "PatientAddress": "12 Seed Lane",
    "PatientTelephoneNumbers": "0555 7733441",
    "ImageComments": "Seeded comment",
}


def data_set(pixels: np.ndarray, **attributes) -> Dataset:
    """Return a DX object of a hand of pixels (H, W) or (H, W, 3) with a patient; `attributes` replace, None removes."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = DigitalXRayImageStorageForPresentation, UID("1.2.826.0.1.3680043.8.498.1")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.2", "1.2.826.0.1.3680043.8.498.3"
    ds.Modality, ds.BodyPartExamined, ds.PresentationIntentType = "DX", "HAND", "FOR PRESENTATION"
    for name, value in PATIENT.items():
        setattr(ds, name, value)
    private = ds.private_block(0x0029, "SEED VENDOR", create=True)
    private.add_new(1, "LO", "Private^Seedname SEED-7730441")
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    ds.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(pixels.dtype.kind == "i")
    for name, value in attributes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    if "BitsStored" in attributes and "HighBit" not in attributes:
        ds.HighBit = ds.BitsStored - 1
    return ds


def dicom(pixels: np.ndarray, syntax: str | UID = "explicit", *, frame: bytes | None = None, **attributes) -> bytes:
    """Return a DICOM file. frame: what is encapsulated instead of the pixels."""
    ds = data_set(pixels, **attributes)
    uid = NATIVE.get(syntax) or UID(syntax)
    if frame is not None:
        ds.PixelData = encapsulate([frame])
        ds["PixelData"].VR = "OB"
    else:
        stored = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == "big" else "<")).tobytes()
        ds.PixelData = stored + b"\0" * (len(stored) % 2)
        ds["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    return written(ds, uid)


def written(ds: Dataset, uid: UID) -> bytes:
    """Return the bytes of a file of `ds` in a transfer syntax, pixels as they are."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", DigitalXRayImageStorageForPresentation)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2.3")
    buffer = io.BytesIO()
    little, implicit = uid != ExplicitVRBigEndian, uid == ImplicitVRLittleEndian
    pydicom.dcmwrite(buffer, ds, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return buffer.getvalue()


def recoded(data: bytes, coding: str, folder: Path) -> bytes:
    """Return a DICOM file in one of DCMTK; skips the test where that is not installed."""
    program, *options = DCMTK[coding]
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here; Debian has it in dcmtk")
    source, target = folder / "native.dcm", folder / "coded.dcm"
    source.write_bytes(data)
    subprocess.run([program, *options, source, target], check=True, capture_output=True)
    return target.read_bytes()


def jpeg_2000(pixels: np.ndarray, syntax: str, **attributes) -> bytes:
    """Return a DICOM file with a frame of JPEG 2000 (1.2.840.10008.1.2.4.90 or 91)."""
    openjpeg = pytest.importorskip("openjpeg", reason="no pylibjpeg-openjpeg here; the extra [dicom] has it")
    bits = attributes.get("BitsStored", 8 * pixels.dtype.itemsize)
    ratios = {} if syntax.endswith(".90") else {"compression_ratios": [6]}
    frame = openjpeg.utils.encode_array(pixels, bits_stored=bits, photometric_interpretation=0, **ratios)
    return dicom(pixels, syntax, frame=bytes(frame), **attributes)


def jpeg_baseline(pixels: np.ndarray, frame: bytes, **attributes) -> bytes:
    """Return a DICOM file with a JPEG of 8 bits in it."""
    return dicom(pixels, JPEGBaseline8Bit, frame=frame, **attributes)


def real_file(name: str) -> bytes:
    """Return a file of pydicom-data; skips the test where that is not installed."""
    data_store = pytest.importorskip("data_store", reason="no pydicom-data here; the dev requirements have it")
    return (Path(next(iter(data_store.__path__))) / "data" / name).read_bytes()
