"""FHIR R4: the answer on a study as a transaction of DiagnosticReport, Observations and Device."""

from __future__ import annotations

import json
import uuid
from typing import Any

from fhir.resources.R4B.bundle import Bundle

from fracture_det.structures.wording import percent

from ..presentation import LIKELY
from .answers import NOTICE, Box, ImageAnswer, StudyAnswer
from .outputs.codes import FRACTURE, FRACTURE_TYPE, LEVEL_CODES, laterality_of, site_of, type_code
from .wording import box_text, headline

SYSTEM = "urn:fracture_det"
SNOMED, LOINC, UCUM = "http://snomed.info/sct", "http://loinc.org", "http://unitsofmeasure.org"
PRIORITY = "http://hl7.org/fhir/request-priority"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
CATEGORY = "http://terminology.hl7.org/CodeSystem/v2-0074"


def fhir_transaction(answer: StudyAnswer) -> tuple[str, bytes]:
    """Return the identifier of the report and a Bundle in JSON.

    Every entry is a conditional update: what is sent twice is there once, and a correction is a new version of the
    same resource, whose history the server keeps. It is validated as R4B, whose resources of these kinds are R4's.
    Raises ValueError where it is not valid.
    """
    device = _entry("Device", f"device-{answer.model_sha256}", _device(answer))
    observations = [
        _entry("Observation", f"observation-{image.header.SOPInstanceUID}", _observation(answer, image, device))
        for image in answer.images
    ]
    report = _report(answer, device, observations)
    entries = [device, *observations, _entry("DiagnosticReport", f"report-{answer.study_uid}", report)]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    Bundle.model_validate(bundle)
    return answer.uid("fhir"), json.dumps(bundle, ensure_ascii=False).encode()


def _entry(kind: str, key: str, resource: dict[str, Any]) -> dict[str, Any]:
    identifier = {"system": SYSTEM, "value": key}
    return {
        "fullUrl": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, f'fracture_det {key}')}",
        "resource": {"resourceType": kind, "identifier": [identifier], **resource},
        "request": {"method": "PUT", "url": f"{kind}?identifier={SYSTEM}|{key}"},
    }


def _device(answer: StudyAnswer) -> dict[str, Any]:
    return {
        "status": "active",
        "manufacturer": "fracture_det",
        "deviceName": [{"name": answer.model, "type": "model-name"}],
        "version": [{"value": answer.software}, {"value": f"weights SHA-256 {answer.model_sha256}"}],
        "note": [{"text": NOTICE}],
    }


def _report(answer: StudyAnswer, device: dict[str, Any], observations: list[dict[str, Any]]) -> dict[str, Any]:
    lines = [f"Image {number}: {headline(image.result)}" for number, image in enumerate(answer.images, start=1)]
    report: dict[str, Any] = {
        "meta": {"tag": [{"system": PRIORITY, "code": "stat" if answer.level == LIKELY else "routine"}]},
        "status": _status(answer),
        "category": [{"coding": [{"system": CATEGORY, "code": "RAD"}]}],
        "code": {"coding": [{"system": LOINC, "code": "18748-4", "display": "Diagnostic imaging study"}]},
        "subject": _patient(answer),
        "issued": answer.created_at.isoformat(timespec="seconds"),
        "result": [{"reference": observation["fullUrl"]} for observation in observations],
        "imagingStudy": [_study(answer)],
        "conclusion": f"{NOTICE}. " + " ".join(f"{line}." for line in lines),
    }
    if answer.header.AccessionNumber:
        accession = {"type": {"coding": [{"code": "ACSN"}]}, "value": answer.header.AccessionNumber}
        report["basedOn"] = [{"type": "ServiceRequest", "identifier": accession}]
    return {name: value for name, value in report.items() if value is not None}


def _observation(answer: StudyAnswer, image: ImageAnswer, device: dict[str, Any]) -> dict[str, Any]:
    result, header = image.result, image.header
    said = _concept(LEVEL_CODES[result.finding or "not analysed"])
    observation: dict[str, Any] = {
        "status": _status(answer) if image.is_analysed else "cancelled",
        "code": _concept(FRACTURE),
        "subject": _patient(answer),
        "effectiveDateTime": answer.created_at.isoformat(timespec="seconds"),
        "device": {"reference": device["fullUrl"]},
        "derivedFrom": [_study(answer)],
        "bodySite": _concept(site_of(header), laterality_of(header)),
        "note": [{"text": f"{NOTICE}. Source image {header.SOPInstanceUID}. {result.advice}"}],
    }
    if not image.is_analysed:
        observation["dataAbsentReason"] = {"coding": [{"system": ABSENT, "code": "error"}], "text": result.sentence}
        return observation
    observation["valueCodeableConcept"] = said
    if result.finding == LIKELY:
        observation["interpretation"] = [{"coding": [{"system": INTERPRETATION, "code": "A"}]}]
    if result.confidence is not None:
        observation["component"] = [_probability(result.confidence)]
    if result.type is not None:
        observation.setdefault("component", []).append(_type(*result.type))
    observation.setdefault("component", []).extend(_box(image, box) for box in result.boxes)
    if not observation["component"]:
        del observation["component"]
    if image.feedback is not None:
        text = f"Reader {image.feedback.author}: {image.feedback.verdict}. {image.feedback.comment}".strip()
        observation["note"].append({"text": text})
    return observation


def _probability(confidence: float) -> dict[str, Any]:
    quantity = {"value": round(100 * confidence, 2), "unit": "%", "system": UCUM, "code": "%"}
    return {"code": {"text": "Probability of a fracture"}, "valueQuantity": quantity}


def _type(name: str, probability: float) -> dict[str, Any]:
    concept = _concept(type_code(name))
    concept["text"] = f"{concept['text']}, {percent(probability)} probability"
    return {"code": _concept(FRACTURE_TYPE), "valueCodeableConcept": concept}


def _box(image: ImageAnswer, box: Box) -> dict[str, Any]:
    corners = " ".join(f"{side:.0f}" for side in box.corners_px)
    text = f"{box_text(box, image.verdict(box))}; x0 y0 x1 y1 in pixels: {corners}"
    return {"code": {"text": f"Box {box.number}"}, "valueString": text}


def _concept(code: Any, side: Any = None) -> dict[str, Any]:
    system = {"SCT": SNOMED}.get(code.scheme_designator, SYSTEM)
    text = f"{code.meaning}, {side.meaning.lower()}" if side is not None else code.meaning
    return {"coding": [{"system": system, "code": code.value, "display": code.meaning}], "text": text}


def _status(answer: StudyAnswer) -> str:
    return "preliminary" if answer.version == 1 else "corrected"


def _patient(answer: StudyAnswer) -> dict[str, Any]:
    return {"type": "Patient", "identifier": {"value": answer.header.PatientID or "unknown"}}


def _study(answer: StudyAnswer) -> dict[str, Any]:
    identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{answer.study_uid}"}
    return {"type": "ImagingStudy", "identifier": identifier}
