"""The type of a fracture in what is sent back: coded, only where the detector names one, and as valid as before."""

import io
import json
from dataclasses import replace

import highdicom
import pytest
from fhir.resources.R4B.bundle import Bundle

from fracture_det.inference.service import PredictionService
from tests.pacs.test_outputs import FEEDBACK, LIKELY, RIS, answer, errors_of, everything, fields, image, text_of
from tests.webapp.bright import TypedRectangles, dark_plate
from tests.webapp.conftest import LIKELY as BRIGHT
from tests.webapp.conftest import encoded
from webapp.pacs.answers import ImageResult, result_of
from webapp.pacs.fhir import fhir_transaction
from webapp.pacs.hl7 import oru_r01
from webapp.pacs.outputs.codes import type_code
from webapp.pacs.outputs.encapsulated_pdf import report_pdf
from webapp.pacs.outputs.structured_report import structured_report

FIRST, SECOND = LIKELY.boxes
TYPED = replace(
    LIKELY, boxes=(replace(FIRST, type=("comminuted", 0.7)), SECOND), type=("comminuted", 0.62), model_sha256="cd" * 32
)
SAID = replace(FEEDBACK, types={1: "impacted"}, missed_types=("greenstick",))


def of_bright(finding="likely", **facts):
    with PredictionService(TypedRectangles(**facts)) as service:
        return result_of(service.predict(encoded(dark_plate(BRIGHT))), finding, 0.5, 0.25)


def test_a_type_is_named_from_the_detectors_confidence_on():
    said = of_bright(type_confidence=0.6)
    assert (said.type, said.boxes[0].type) == (("transverse", 0.6), ("transverse", 0.6))
    assert ImageResult.from_json(json.loads(json.dumps(said.to_json()))) == said


@pytest.mark.parametrize("facts", [{"type_confidence": 0.61}, {"type_confidence": None}, {"finding": "none seen"}])
def test_no_type_is_named_below_it_without_it_and_without_a_finding(facts):
    said = of_bright(**facts)
    assert said.type is None
    assert "type" not in said.to_json()
    assert facts.get("finding") or said.boxes[0].type is None


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("comminuted", ("13321001", "SCT", "Fracture, comminuted")),
        ("impacted", ("IMPACTED", "99FRACTUREDET", "Impacted fracture")),
        ("torn", ("TORN", "99FRACTUREDET", "torn")),  # has left the list
    ],
)
def test_a_code_is_that_of_the_list_or_our_own(name, code):
    made = type_code(name)
    assert (made.value, made.scheme_designator, made.meaning) == code


@pytest.mark.parametrize("feedback", [None, SAID], ids=["first", "correction"])
def test_dciodvfy_finds_no_error(tmp_path, feedback):
    said = answer(image(tmp_path, 1, TYPED, feedback), version=1 if feedback is None else 2)
    for kind, content in everything(said).items():
        assert errors_of(content, tmp_path) == [], kind


def evaluations_of(group):
    return {
        (item.name.value, item.value.value)
        for item in group.get_qualitative_evaluations()
        if item.name.value in ("FRACTURETYPE", "READERTYPE")
    }


def test_the_report_codes_the_type_of_the_image_of_a_box_and_what_a_reader_says(tmp_path):
    said = answer(image(tmp_path, 1, TYPED, SAID), version=2)
    report = highdicom.sr.srread(io.BytesIO(structured_report(said)[1]))
    [whole] = report.content.get_image_measurement_groups()
    assert evaluations_of(whole) == {("FRACTURETYPE", "13321001")}
    boxes = report.content.get_planar_roi_measurement_groups()
    assert [evaluations_of(group) for group in boxes] == [
        {("FRACTURETYPE", "13321001"), ("READERTYPE", "IMPACTED")},
        set(),
        {("READERTYPE", "442085002")},
    ]
    assert [item.value for item in boxes[0].get_measurements()] == pytest.approx([90, 70])
    assert {group.finding_type.value for group in boxes} == {"125605004"}  # as without types


def test_without_a_type_nothing_is_said_of_one(tmp_path):
    said = answer(image(tmp_path, 1, LIKELY))
    assert "Type of fracture" not in text_of(highdicom.sr.srread(io.BytesIO(structured_report(said)[1])))
    assert "TYPE" not in {row[3].split("^")[0] for row in fields(oru_r01(said, RIS)[1], "OBX")}
    assert b"Type of fracture" not in fhir_transaction(said)[1]


def test_message_transaction_and_pdf_say_it_too(tmp_path):
    from tests.webapp.test_suitability import text_of as pdf_text

    said = answer(image(tmp_path, 1, TYPED))
    message = oru_r01(said, RIS)[1]
    [row] = [row for row in fields(message, "OBX") if row[3].startswith("TYPE")]
    assert (row[2], row[5]) == ("CWE", "13321001^Fracture, comminuted^SCT")
    content = fhir_transaction(said)[1]
    Bundle.model_validate_json(content)
    component = json.loads(content)["entry"][1]["resource"]["component"][1]
    coding = component["valueCodeableConcept"]["coding"]
    assert coding == [{"system": "http://snomed.info/sct", "code": "13321001", "display": "Fracture, comminuted"}]
    assert component["valueCodeableConcept"]["text"] == "Fracture, comminuted, 62 % probability"
    assert "Type of fracture: comminuted \\(62 % probability\\)" in pdf_text(report_pdf(said))


def test_what_a_reader_says_of_types_is_another_answer(tmp_path):
    without, with_types = (answer(image(tmp_path, 1, TYPED, said)).content_sha256 for said in (FEEDBACK, SAID))
    assert without != with_types


def test_hl7apy_finds_the_message_valid(tmp_path):
    parser = pytest.importorskip("hl7apy.parser")
    _, message = oru_r01(answer(image(tmp_path, 1, TYPED)), RIS)
    assert parser.parse_message(message.decode(), find_groups=True).validate()
