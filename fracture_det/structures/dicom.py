"""Radiographs in DICOM files: their pixels, and what their headers say that is not about the patient.

pydicom reads the header, and only here; without it, the sentence of the error says what to install. `dicom_elements`
has looked at the file before, `dicom_frames` decodes the pixels, `dicom_greys` maps them. docs/dicom.md has what is
read and what is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from dataclasses import dataclass, field, replace

import numpy as np

from fracture_det.structures.dicom_elements import find_elements
from fracture_det.structures.dicom_frames import BYTES_PER_SAMPLE, DECODER_BYTES, Frame, read_samples
from fracture_det.structures.dicom_greys import GreyScale
from fracture_det.structures.dicom_header import Header, open_header
from fracture_det.structures.dicom_meaning import (
    DIRECTORY,
    FOR_PROCESSING,
    MODALITIES,
    RADIOGRAPHS,
    READ_CLASSES,
    other_body_part,
)
from fracture_det.structures.image_errors import DamagedImage, UnreadableImage, UnsupportedImage, check_size
from fracture_det.structures.photometric import Pixels, count_values, grey_to_rgb, look_up
from fracture_det.structures.samples import GreySamples

GREY, COLOURS = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
CALIBRATED, DETECTOR, SCANNED, UNSTATED = "calibrated", "detector", "scanned", "unstated"
# A header beside the largest picture.
HEADER_BYTES = 32_000_000
MIN_SECRET_BYTES = 16
# A deflated data set is unfolded before anybody knows how large it is.
_UNFOLDING = threading.Lock()


@dataclass(frozen=True)
class DicomFile:
    """What a DICOM file says of a radiograph and not of a patient.

    size: (height, width) in pixels. spacing_mm: size of a pixel (row, column) in mm, and spacing_kind where that was
    measured: "calibrated" (in the patient), "detector" (at the detector: things in the patient are smaller than they
    measure), "scanned" (on a film that was digitised) or "unstated". laterality: R, L, B, U or None.
    patient_orientation: where rows and columns lead, as in ("A", "F"). other_body_part: the name of a part of the body
    that is no limb, where the tags say so. burned_in: whether writing is burned into the pixels, None where the file
    does not say. patient_key, study_key, series_key: keyed hashes of Patient ID and the UIDs, None without a secret or
    where the file has none; see `describe_dicom`. UIDs are those of the file: numbers that a hospital can follow back,
    so they are not in `repr`.
    """

    size: tuple[int, int]
    bits: int
    photometric: str
    transfer_syntax: str
    sop_class: str | None = None
    modality: str | None = None
    body_part: str | None = None
    other_body_part: str | None = None
    view_position: str | None = None
    laterality: str | None = None
    patient_orientation: tuple[str, ...] = ()
    spacing_mm: tuple[float, float] | None = None
    spacing_kind: str | None = None
    burned_in: bool | None = None
    study_uid: str | None = field(default=None, repr=False)
    series_uid: str | None = field(default=None, repr=False)
    sop_instance_uid: str | None = field(default=None, repr=False)
    patient_key: str | None = field(default=None, repr=False)
    study_key: str | None = field(default=None, repr=False)
    series_key: str | None = field(default=None, repr=False)


def read_dicom(data: bytes, max_pixels: int) -> tuple[Pixels, GreySamples | None, DicomFile]:
    """Return the pixels, (H, W, 3) uint8 RGB, of the bytes of a DICOM file, its grey samples, and what its header says.

    The greys are those of the standard: modality LUT, VOI window or table, presentation LUT shape. The samples are
    those of more than 8 bits, else None. Raises UnsupportedImage (not a radiograph, several frames, a coding that is
    not read, or no pydicom), ImageTooLarge from the header, before anything is decoded, or DamagedImage.
    """
    opened = open_dicom(data, max_pixels)
    stored, scale = read_samples(opened.header.layout, opened.frame), opened.scale
    if scale is None:
        return np.ascontiguousarray(stored), None, opened.file
    counts = count_values(stored, 1 << scale.allocated)
    greys = scale.greys(counts)
    pixels = grey_to_rgb(look_up(stored, np.floor(greys * 255 + 0.5).astype(np.uint8)))
    if scale.bits <= 8:
        return pixels, None, opened.file
    values, window = scale.samples(greys)
    return pixels, GreySamples(look_up(stored, values), scale.bits, window), opened.file


def describe_dicom(data: bytes, *, max_pixels: int, secret: bytes | None = None) -> DicomFile:
    """Return what the header of a DICOM radiograph says, without decoding pixels.

    secret: of the site, for `patient_key` and its like: hashes that only its holder can make (HMAC, RFC 2104; the
    patient's with the issuer of the id). Raises what `read_dicom` raises of the header, and ValueError for a secret of
    fewer than 16 bytes: ids are short, and whoever can guess the secret can try them all.
    """
    opened = open_dicom(data, max_pixels)
    if secret is None:
        return opened.file
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"secret: expected at least {MIN_SECRET_BYTES} bytes, got {len(secret)}")
    raw = opened.header.raw
    return replace(
        opened.file,
        patient_key=_key(secret, b"patient", raw("PatientID"), raw("IssuerOfPatientID")),
        study_key=_key(secret, b"study", raw("StudyInstanceUID")),
        series_key=_key(secret, b"series", raw("SeriesInstanceUID")),
    )


def _key(secret: bytes, kind: bytes, identifier: bytes, issuer: bytes = b"") -> str | None:
    identifier, issuer = identifier.strip(b" \0"), issuer.strip(b" \0")
    if not identifier:
        return None
    return hmac.new(secret, b"\0".join((kind, identifier, issuer)), hashlib.sha256).hexdigest()[:32]


def dicom_bytes(data: bytes, max_pixels: int) -> int:
    """Return about how many bytes `read_dicom` takes at its peak, from the header; a decoder's process included.

    Nothing for a file that it refuses by its header.
    """
    try:
        with _UNFOLDING:
            opened = open_dicom(data, max_pixels)
            layout = opened.header.layout
    except UnreadableImage:
        return 0
    frame = opened.frame
    samples = frame.rows * frame.columns * frame.samples
    here = len(layout.data) + samples * (2 * frame.allocated // 8) + frame.rows * frame.columns * 6
    if not layout.fragments:
        return here
    return here + samples * BYTES_PER_SAMPLE + DECODER_BYTES // 4


@dataclass(frozen=True, eq=False)
class OpenedDicom:
    """A DICOM radiograph whose pixels are not decoded yet. scale: None in colours."""

    header: Header
    frame: Frame
    scale: GreyScale | None
    file: DicomFile


def open_dicom(data: bytes, max_pixels: int) -> OpenedDicom:
    """Return a radiograph with its header read and checked. Raises what `read_dicom` raises of the header."""
    layout = find_elements(data, 2 * max_pixels + HEADER_BYTES)
    header = open_header(layout)
    try:
        _check_radiograph(header)
        frame = _frame(header, max_pixels)
        scale = header.grey_scale(frame.allocated, frame.photometric) if frame.samples == 1 else None
        return OpenedDicom(header, frame, scale, _file(header, frame))
    except UnreadableImage:
        raise
    except Exception as error:  # pydicom raises nearly everything, with values of the file in its messages
        raise DamagedImage(f"its header cannot be read ({type(error).__name__})") from None


def _check_radiograph(header: Header) -> None:
    """Raise UnsupportedImage where a file is not one radiograph."""
    sop_class, modality = header.text("SOPClassUID"), header.text("Modality").upper()
    if sop_class == DIRECTORY or header.has("DirectoryRecordSequence"):
        raise UnsupportedImage("a DICOM directory, which holds no picture")
    if modality in MODALITIES:
        raise UnsupportedImage(f"a DICOM file of {MODALITIES[modality]} ({modality}), not a radiograph")
    if sop_class == FOR_PROCESSING or header.text("PresentationIntentType") == "FOR PROCESSING":
        raise UnsupportedImage("a DICOM file for processing, not for presentation; send the processed radiograph")
    if (sop_class and sop_class not in READ_CLASSES) or (not sop_class and modality not in RADIOGRAPHS):
        kind = header.class_name(sop_class) if sop_class else "no stated class"
        raise UnsupportedImage(f"a DICOM file of {kind}, not a radiograph")
    if modality not in (*RADIOGRAPHS, "OT", ""):
        raise UnsupportedImage("a DICOM file of another modality, not a radiograph")
    if not header.layout.has_pixels:
        raise UnsupportedImage("a DICOM file without a picture (no Pixel Data)")
    frames = header.integer("NumberOfFrames", 1)
    if frames > 1:
        raise UnsupportedImage(
            f"a DICOM file of {frames:,} frames, of which one is read; save each as a file of its own"
        )


def _frame(header: Header, max_pixels: int) -> Frame:
    rows, columns = header.word("Rows"), header.word("Columns")
    if not rows or not columns:
        raise DamagedImage("its header gives no size of its picture")
    check_size(rows, columns, max_pixels)
    photometric, samples = header.text("PhotometricInterpretation").upper(), header.word("SamplesPerPixel", 1)
    if not photometric:
        raise UnsupportedImage(
            "a DICOM file that does not say whether 0 is black or white (no Photometric Interpretation)"
        )
    allocated = header.word("BitsAllocated")
    if photometric not in {1: GREY, 3: COLOURS}.get(samples, ()):
        raise UnsupportedImage(
            f"a DICOM file of {_known(photometric)} with {samples} samples per pixel, which is not read; convert it to "
            "MONOCHROME2"
        )
    if allocated not in (8, 16) or (samples == 3 and allocated != 8):
        raise UnsupportedImage(f"a DICOM file of {samples} x {allocated} bits per pixel, which is not read")
    return Frame(rows, columns, samples, allocated, photometric, header.word("PlanarConfiguration", 0) == 1)


def _known(photometric: str) -> str:
    """Return a Photometric Interpretation of the standard; any other text may be anything, such as a name."""
    known = (*GREY, *COLOURS, "PALETTE COLOR", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "HSV", "ARGB", "CMYK", "XYB")
    return photometric if photometric in known else "an unknown Photometric Interpretation"


def _file(header: Header, frame: Frame) -> DicomFile:
    spacing_mm, spacing_kind = _spacing(header)
    views = header.items("ViewCodeSequence")
    regions = [
        item for name in ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence") for item in header.items(name)
    ]
    body_part, view = header.text("BodyPartExamined"), header.text("ViewPosition")
    burned_in = header.text("BurnedInAnnotation").upper()
    return DicomFile(
        size=(frame.rows, frame.columns),
        bits=header.word("BitsStored", frame.allocated),
        photometric=frame.photometric,
        transfer_syntax=header.layout.syntax,
        sop_class=header.text("SOPClassUID") or None,
        modality=header.text("Modality") or None,
        body_part=body_part or None,
        other_body_part=other_body_part(
            [body_part, *(item.text("CodeMeaning") for item in regions)],
            [item.text("CodeValue") for item in (*regions, *views)],
            [view],
        ),
        view_position=view or None,
        laterality=header.text("ImageLaterality") or header.text("Laterality") or None,
        patient_orientation=tuple(header.texts("PatientOrientation")),
        spacing_mm=spacing_mm,
        spacing_kind=spacing_kind,
        burned_in={"YES": True, "NO": False}.get(burned_in),
        study_uid=header.text("StudyInstanceUID") or None,
        series_uid=header.text("SeriesInstanceUID") or None,
        sop_instance_uid=header.text("SOPInstanceUID") or None,
    )


def _spacing(header: Header) -> tuple[tuple[float, float] | None, str | None]:
    """Return the size of a pixel in mm and where it was measured (PS3.3, 10.7.1.3)."""
    pixel, detector = header.spacing("PixelSpacing"), header.spacing("ImagerPixelSpacing")
    if pixel is not None:
        if header.text("PixelSpacingCalibrationType") or detector not in (None, pixel):
            return pixel, CALIBRATED
        return pixel, DETECTOR if detector == pixel else UNSTATED
    if detector is not None:
        return detector, DETECTOR
    scanned = header.spacing("NominalScannedPixelSpacing")
    return scanned, None if scanned is None else SCANNED
