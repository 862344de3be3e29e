"""HL7 v2.5.1 ORU^R01: the answer on a study as an unsolicited observation, and the acknowledgement of it."""

from __future__ import annotations

from datetime import datetime

from pydicom import Dataset
from pydicom.valuerep import PersonName

from ..presentation import LIKELY
from .answers import NOTICE, ImageAnswer, StudyAnswer
from .config import Hl7Destination
from .outputs.codes import type_code
from .wording import box_text

APPLICATION = "FRACTURE_DET"
ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
# OBX-11 and OBR-25: an answer is preliminary, for no physician has seen it; a later version corrects it.
PRELIMINARY, CORRECTED, NOT_OBTAINED = "P", "C", "X"
ACCEPTED = ("AA", "CA")


class Hl7Error(ValueError):
    """An acknowledgement cannot be read."""


def oru_r01(answer: StudyAnswer, destination: Hl7Destination) -> tuple[str, bytes]:
    """Return the message control ID and the message in UTF-8, its segments ended by carriage returns.

    One OBR for the study, with the accession number as its order; four or five OBX for each image and one for each box.
    """
    control = answer.uid("hl7", destination.name).rpartition(".")[2][-20:]
    header = answer.header
    segments = [
        _msh(answer, destination, control),
        f"PID|1||{_patient_id(header)}||{_name(header.PatientName)}||{header.PatientBirthDate}|{header.PatientSex}",
        "PV1|1|U",
        f"ORC|RE|{_placer(header)}|{_filler(answer)}",
        _obr(answer),
        f"TQ1|1||||||||{_priority(answer)}",
    ]
    number = 0
    for index, image in enumerate(answer.images, start=1):
        for fields in _observations(answer, image, str(index)):
            number += 1
            segments.append(f"OBX|{number}|{fields}")
    segments.append(f"NTE|1|L|{escape(NOTICE)}")
    return control, "".join(segment + "\r" for segment in segments).encode()


def read_acknowledgement(message: bytes, control: str) -> tuple[bool, str]:
    """Return whether a message with this control ID was accepted, and the code with which.

    Raises Hl7Error for what is no acknowledgement of it.
    """
    lines = message.decode("utf-8", "replace").replace("\n", "\r").split("\r")
    fields = next((line.split("|") for line in lines if line.startswith("MSA|")), [])
    if len(fields) < 3:
        raise Hl7Error("the acknowledgement has no MSA segment")
    if fields[2].strip() != control:
        raise Hl7Error("the acknowledgement is of another message")
    return fields[1].strip() in ACCEPTED, fields[1].strip()[:2]


def escape(text: str) -> str:
    """Return a text in which nothing separates fields, components or segments."""
    printable = (sign if sign.isprintable() else " " for sign in text)
    return "".join(ESCAPES.get(sign, sign) for sign in printable)


def _msh(answer: StudyAnswer, destination: Hl7Destination, control: str) -> str:
    receiver = f"{escape(destination.application)}|{escape(destination.facility)}"
    sender = f"{APPLICATION}|{escape(answer.institution or '')}"
    kind = f"{_time(answer.created_at)}||ORU^R01^ORU_R01|{control}|P|2.5.1"
    return f"MSH|^~\\&|{sender}|{receiver}|{kind}||||||UNICODE UTF-8"


def _obr(answer: StudyAnswer) -> str:
    header = answer.header
    service = f"FRACTURE^{escape('Fracture detection on radiographs')}^99FRACTUREDET"
    fields = {
        1: "1",
        2: _placer(header),
        3: _filler(answer),
        4: service,
        7: f"{header.StudyDate}{str(header.StudyTime).partition('.')[0]}" if header.StudyDate else "",
        18: escape(header.AccessionNumber),
        22: _time(answer.created_at),
        24: "RAD",
        25: _status(answer),
    }
    return "OBR|" + "|".join(fields.get(number, "") for number in range(1, 26))


def _observations(answer: StudyAnswer, image: ImageAnswer, group: str) -> list[str]:
    """Return OBX from its second field on: finding, probability, model, source and boxes of one image."""
    result, status = image.result, _status(answer) if image.is_analysed else NOT_OBTAINED
    name, sha256 = answer.model_of(image)
    model = escape(f"{name}, weights SHA-256 {sha256}, fracture_det {answer.software}")
    if image.is_analysed:
        finding = f"{escape(result.finding.replace(' ', '').upper())}^{escape(result.title)}^99FRACTUREDET"
    else:
        finding = f"NOTANALYSED^{escape('Not analysed: ' + result.sentence)}^99FRACTUREDET"
    abnormal = "A" if result.finding == LIKELY else ""
    rows = [_obx("CWE", "FINDING^Finding^99FRACTUREDET", group, finding, "", status, answer, abnormal)]
    if result.confidence is not None:
        percent = f"{100 * result.confidence:.2f}"
        rows.append(_obx("NM", "111013^Certainty of Finding^DCM", group, percent, "%^percent^UCUM", status, answer))
    if result.type is not None:
        code = type_code(result.type[0])
        kind = f"{escape(code.value)}^{escape(code.meaning)}^{code.scheme_designator}"
        rows.append(_obx("CWE", "TYPE^Type of fracture^99FRACTUREDET", group, kind, "", status, answer))
    for box in result.boxes:
        corners = " ".join(f"{side:.0f}" for side in box.corners_px)
        text = escape(f"{box_text(box, image.verdict(box))}; x0 y0 x1 y1 in pixels: {corners}")
        rows.append(_obx("ST", "BOX^Box^99FRACTUREDET", f"{group}.{box.number}", text, "", status, answer))
    rows.append(_obx("ST", "MODEL^Model^99FRACTUREDET", group, model, "", status, answer))
    source = str(image.header.SOPInstanceUID)
    rows.append(
        _obx("ST", "110180^Study Instance UID^DCM", group, str(image.header.StudyInstanceUID), "", status, answer)
    )
    rows.append(_obx("ST", "121322^Source image^DCM", group, source, "", status, answer))
    if image.feedback is not None:
        said = image.feedback
        text = escape(f"Reader {said.author}: {said.verdict}. {said.comment}")
        rows.append(_obx("TX", "READER^Feedback of a reader^99FRACTUREDET", group, text, "", status, answer))
    return rows


def _obx(
    kind: str, name: str, group: str, value: str, unit: str, status: str, answer: StudyAnswer, abnormal: str = ""
) -> str:
    return f"{kind}|{name}|{group}|{value}|{unit}||{abnormal}|||{status}|||{_time(answer.created_at)}"


def _status(answer: StudyAnswer) -> str:
    return PRELIMINARY if answer.version == 1 else CORRECTED


def _priority(answer: StudyAnswer) -> str:
    """Return the triage flag: stat for a likely fracture, else routine."""
    return "S" if answer.level == LIKELY else "R"


def _patient_id(header: Dataset) -> str:
    issuer = escape(str(header.get("IssuerOfPatientID", "")))
    return f"{escape(header.PatientID)}^^^{issuer}" if issuer else escape(header.PatientID)


def _name(name: PersonName) -> str:
    """Return family, given and middle name as XPN, which has what follows in another order than DICOM."""
    first = str(name).split("=")[0]
    return "^".join(escape(part) for part in first.split("^")[:3])


def _placer(header: Dataset) -> str:
    return escape(str(header.get("PlacerOrderNumberImagingServiceRequest", "") or header.AccessionNumber))


def _filler(answer: StudyAnswer) -> str:
    return f"{answer.study_uid}^{APPLICATION}"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%S+0000")
