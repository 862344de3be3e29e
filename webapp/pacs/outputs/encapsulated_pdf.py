"""The report for people, as a PDF in a DICOM object (PS3.3 A.45)."""

from __future__ import annotations

import io

from fpdf import FPDF
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import UID, EncapsulatedPDFStorage, ExplicitVRLittleEndian

from ...pdf import write_line
from ..answers import NOTICE, ImageAnswer, StudyAnswer
from ..headers import SHARED, UTF_8
from ..wording import box_text, headline, type_line
from . import MANUFACTURER, MODEL, SERIES_DESCRIPTIONS, SERIES_NUMBERS, copy_study, encode
from .secondary_capture import overlay_of

MARGIN_MM, MAX_IMAGE_HEIGHT_MM, LONGEST_PX = 15, 120, 1000


def encapsulated_pdf(answer: StudyAnswer) -> tuple[str, bytes]:
    """Return the SOP instance UID and the file of the report on all images of a study."""
    uid = answer.uid("pdf")
    document = Dataset()
    document.file_meta = FileMetaDataset()
    document.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    document.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    document.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    document.SpecificCharacterSet = UTF_8
    document.SOPClassUID, document.SOPInstanceUID = EncapsulatedPDFStorage, uid
    document.StudyInstanceUID, document.SeriesInstanceUID = answer.study_uid, answer.series_uid("pdf")
    for keyword in SHARED:
        setattr(document, keyword, answer.header[keyword].value)
    document.Modality, document.SeriesNumber = "DOC", SERIES_NUMBERS["pdf"]
    document.SeriesDescription, document.InstanceNumber = SERIES_DESCRIPTIONS["pdf"], answer.version
    document.Manufacturer, document.ManufacturerModelName = MANUFACTURER, MODEL
    document.DeviceSerialNumber, document.SoftwareVersions = answer.model_sha256[:16] or "unknown", answer.software
    document.ConversionType = "WSD"
    document.ContentDate = answer.created_at.strftime("%Y%m%d")
    document.ContentTime = answer.created_at.strftime("%H%M%S")
    document.AcquisitionDateTime = ""
    document.BurnedInAnnotation = "NO"
    document.DocumentTitle = f"Fracture detection. {NOTICE}"
    document.ConceptNameCodeSequence = []
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    content = report_pdf(answer)
    document.EncapsulatedDocumentLength = len(content)
    document.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    document.SourceInstanceSequence = [_reference(image) for image in answer.images]
    copy_study(answer, document)
    return uid, encode(document)


def report_pdf(answer: StudyAnswer) -> bytes:
    """Return the report as a PDF. It names the study by nothing but its images; patient data are in the header."""
    pdf = FPDF(format="A4")
    pdf.set_margins(MARGIN_MM, MARGIN_MM)
    pdf.set_auto_page_break(True, MARGIN_MM)
    pdf.set_title("Fracture detection report")
    pdf.set_creator("fracture_det")
    pdf.set_creation_date(answer.created_at)
    for number, image in enumerate(answer.images, start=1):
        pdf.add_page()
        write_line(pdf, f"Fracture detection, image {number} of {len(answer.images)}", size=16, bold=True)
        write_line(pdf, f"{NOTICE}.", size=11, bold=True)
        write_line(pdf, headline(image.result), size=14, bold=True)
        if image.is_analysed:
            write_line(pdf, image.result.advice, size=10)
            if line := type_line(image.result):
                write_line(pdf, line, size=10)
            _picture(pdf, overlay_of(image, LONGEST_PX))
            for box in image.result.boxes:
                write_line(pdf, box_text(box, image.verdict(box)), size=10)
        if image.feedback is not None:
            _reader(pdf, image)
        write_line(
            pdf, f"{answer.model}, weights SHA-256 {answer.model_sha256}, fracture_det {answer.software}", size=8
        )
        write_line(pdf, f"Version {answer.version} of {answer.created_at:%Y-%m-%d %H:%M:%S} UTC", size=8)
    return bytes(pdf.output())


def _reader(pdf: FPDF, image: ImageAnswer) -> None:
    said = image.feedback
    if said is None:
        return
    write_line(pdf, f"Reader {said.author}: {said.verdict}. {said.comment}", size=10)


def _picture(pdf: FPDF, overlay: bytes) -> None:
    with Image.open(io.BytesIO(overlay)) as image:
        scale = min(pdf.epw / image.width, MAX_IMAGE_HEIGHT_MM / image.height)
        pdf.ln(2)
        pdf.image(image, w=image.width * scale, h=image.height * scale)
    pdf.ln(3)


def _reference(image: ImageAnswer) -> Dataset:
    source = Dataset()
    source.ReferencedSOPClassUID = image.header.SOPClassUID
    source.ReferencedSOPInstanceUID = image.header.SOPInstanceUID
    return source
