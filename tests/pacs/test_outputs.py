"""What is sent back is valid DICOM, HL7 and FHIR, can be read back, and says what was found."""

import io
import json
import subprocess
from dataclasses import replace
from datetime import datetime, timezone

import highdicom
import numpy as np
import pytest
from fhir.resources.R4B.bundle import Bundle
from PIL import Image
from pydicom import dcmread

from fracture_det.structures.readings import Reading
from tests.pacs.conftest import plate
from tests.pacs.films import dicom_object, write
from tests.pacs.programs import program
from webapp.pacs.answers import Box, ImageAnswer, ImageResult, StudyAnswer
from webapp.pacs.config import Hl7Destination
from webapp.pacs.fhir import fhir_transaction
from webapp.pacs.headers import source_header
from webapp.pacs.hl7 import Hl7Error, oru_r01, read_acknowledgement
from webapp.pacs.outputs.encapsulated_pdf import encapsulated_pdf
from webapp.pacs.outputs.presentation_state import presentation_state
from webapp.pacs.outputs.secondary_capture import secondary_capture
from webapp.pacs.outputs.structured_report import structured_report

MODEL = "ab" * 32
LIKELY = ImageResult(
    "analysed",
    finding="likely",
    confidence=0.93,
    boxes=(Box(1, (20.0, 30.0, 60.0, 50.0), 0.9, "likely"), Box(2, (90.5, 60.25, 120.0, 100.0), 0.31, "possible")),
    height=120,
    width=160,
    calibrated=True,
    operating_score=0.5,
    possible_score=0.2,
    model="net",
    model_sha256=MODEL,
)
NONE_SEEN = ImageResult("analysed", finding="none seen", confidence=0.02, height=120, width=160, calibrated=True)
REFUSED = ImageResult("not analysed", reason="document", sentence="It looks like a document.")
FEEDBACK = Reading({1: "right", 2: "wrong"}, ((1.0, 2.0, 30.0, 40.0),), False, "a & b | c", "anna", 1.0)
MOVED = Reading({1: "right"}, (), False, "", "anna", 1.0, moved={1: (24.0, 30.0, 64.0, 52.0)})
UNREADABLE = Reading({}, (), False, "", "anna", 1.0, unreadable=True, reason="motion")
RIS = Hl7Destination(kind="hl7", name="ris", host="ris", port=2575)


def image(tmp_path, number, result, feedback=None, **values):
    path = write(dicom_object(plate(), number, study=1, **values), tmp_path / f"{number}.dcm")
    return ImageAnswer(source_header(path), f"{number:064x}", result, feedback, lambda: np.dstack([plate()] * 3))


def answer(*images, version=1):
    return StudyAnswer(
        study_uid=images[0].header.StudyInstanceUID,
        version=version,
        images=images,
        model="ResNet and EfficientNet",
        model_sha256=MODEL,
        software="0.1.0",
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        previous_sha256="f" * 64 if version > 1 else None,
    )


def everything(said):
    """Return {kind: file} of every DICOM output."""
    first = said.images[0]
    return {
        "sr": structured_report(said)[1],
        "pdf": encapsulated_pdf(said)[1],
        **(
            {"gsps": presentation_state(said, first, 1)[1], "sc": secondary_capture(said, first, 1)[1]}
            if first.is_analysed
            else {}
        ),
    }


def errors_of(content, tmp_path):
    """Return the lines with which dciodvfy calls a file wrong."""
    path = tmp_path / "output.dcm"
    path.write_bytes(content)
    done = subprocess.run([program("dciodvfy"), "-new", path], capture_output=True, text=True, check=False)
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


SOURCES = {
    "complete": {},
    "bare": dict.fromkeys(
        (
            *("PatientSex", "PatientBirthDate", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "PatientID"),
            *("BodyPartExamined", "ImageLaterality", "ReferringPhysicianName", "PatientOrientation", "WindowCenter"),
            *("WindowWidth", "StudyDescription", "SamplesPerPixel"),
        )
    ),
    "latin": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Ångström^Müller"},
    "japanese": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    },
    "cyrillic": {"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Иванов^Иван"},
    "wrong": {"PatientSex": "X", "StudyDate": "yesterday", "StudyTime": "noon", "PatientBirthDate": "1970"},
}


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("result", [LIKELY, NONE_SEEN, REFUSED], ids=lambda result: result.finding or "refused")
@pytest.mark.parametrize("source", SOURCES)
def test_dciodvfy_finds_no_error(tmp_path, source, result):
    said = answer(image(tmp_path, 1, result, **SOURCES[source]), image(tmp_path, 2, REFUSED))
    for kind, content in everything(said).items():
        assert errors_of(content, tmp_path) == [], kind


@pytest.mark.parametrize("feedback", [FEEDBACK, MOVED, UNREADABLE], ids=["judged", "moved", "not readable"])
def test_dciodvfy_finds_no_error_in_a_correction(tmp_path, feedback):
    said = answer(image(tmp_path, 1, LIKELY, feedback), version=2)
    for kind, content in everything(said).items():
        assert errors_of(content, tmp_path) == [], kind


def test_dcmtk_accepts_the_presentation_state(tmp_path):
    said = answer(image(tmp_path, 1, LIKELY))
    path = tmp_path / "state.dcm"
    path.write_bytes(presentation_state(said, said.images[0], 1)[1])
    done = subprocess.run([program("dcmpschk"), path], capture_output=True, text=True, check=False)
    assert "Test passed" in done.stdout + done.stderr


def test_an_error_would_be_found(tmp_path):
    ds = dcmread(io.BytesIO(structured_report(answer(image(tmp_path, 1, LIKELY)))[1]))
    del ds.PatientID, ds.Modality
    buffer = io.BytesIO()
    ds.save_as(buffer)
    assert errors_of(buffer.getvalue(), tmp_path)


@pytest.mark.parametrize("source", ["latin", "japanese", "cyrillic"])
def test_outputs_have_the_study_and_the_patient_of_their_source(tmp_path, source):
    said = answer(image(tmp_path, 1, LIKELY, **SOURCES[source]))
    for kind, content in everything(said).items():
        ds = dcmread(io.BytesIO(content))
        assert str(ds.PatientName) == SOURCES[source]["PatientName"], kind
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert (ds.PatientID, ds.AccessionNumber) == ("PID-1", "ACC1")
        assert ds.StudyInstanceUID == said.study_uid
        assert ds.SeriesInstanceUID != said.header.SeriesInstanceUID


def test_highdicom_reads_back_what_the_report_says(tmp_path):
    said = answer(image(tmp_path, 1, LIKELY), image(tmp_path, 2, NONE_SEEN), image(tmp_path, 3, REFUSED))
    report = highdicom.sr.srread(io.BytesIO(structured_report(said)[1]))
    groups = report.content.get_planar_roi_measurement_groups()
    assert len(groups) == 2
    for group, box in zip(groups, LIKELY.boxes, strict=True):
        x0, y0, x1, y1 = box.corners_px
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
        np.testing.assert_allclose(group.roi.value, corners)
        assert group.finding_type.value == "125605004"
        assert group.finding_sites[0].value.meaning == "Hand"
        [certainty] = group.get_measurements()
        assert certainty.value == pytest.approx(100 * box.score)
        assert group.roi.graphic_type.value == "POLYLINE"
    text = text_of(report)
    assert f"weights SHA-256 {MODEL}" in text
    whole = report.content.get_image_measurement_groups()
    assert len(whole) == 3
    # A group that says "none seen", or nothing, must not have "fracture" for its finding.
    assert [group.finding_type is not None for group in whole] == [True, False, False]
    assert report.CompletionFlag == "PARTIAL"
    assert "It looks like a document." in text
    references = {item.ReferencedSOPInstanceUID for item in _evidence(report)}
    assert references == {one.header.SOPInstanceUID for one in said.images}


def text_of(ds):
    """Return every value of a dataset, at any depth, as one text."""
    return "\n".join(str(element.value) for element in ds.iterall() if element.VR != "SQ")


def _evidence(report):
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in report.get(keyword, []):
            for series in study.ReferencedSeriesSequence:
                yield from series.ReferencedSOPSequence


def test_a_correction_names_its_predecessor_and_its_reader(tmp_path):
    said = answer(image(tmp_path, 1, LIKELY, FEEDBACK), version=2)
    report = highdicom.sr.srread(io.BytesIO(structured_report(said)[1]))
    [study] = report.PredecessorDocumentsSequence
    [before] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert before.ReferencedSOPInstanceUID == said.previous_uid("sr")
    text = text_of(report)
    assert "anna" in text
    assert "Missed by the detector" in text
    assert len(report.content.get_planar_roi_measurement_groups()) == 3


def test_a_box_that_a_reader_moved_is_where_the_reader_put_it_beside_the_detectors(tmp_path):
    said = answer(image(tmp_path, 1, LIKELY, MOVED), version=2)
    report = highdicom.sr.srread(io.BytesIO(structured_report(said)[1]))
    places = [group.roi.value.tolist()[0] for group in report.content.get_planar_roi_measurement_groups()]
    assert places == [[20.0, 30.0], [90.5, 60.25], [24.0, 30.0]]
    assert text_of(report).count("Right, moved by a reader") == 2
    state = dcmread(io.BytesIO(presentation_state(said, said.images[0], 1)[1]))
    drawn = [list(graphic.GraphicData)[:2] for graphic in state.GraphicAnnotationSequence[0].GraphicObjectSequence]
    assert drawn == places
    assert answer(image(tmp_path, 1, LIKELY, replace(MOVED, moved={}))).content_sha256 != said.content_sha256


def test_not_readable_is_passed_on_as_such_and_not_as_nothing_missed(tmp_path):
    said = answer(image(tmp_path, 1, LIKELY, UNREADABLE), version=2)
    assert "Not readable" in text_of(highdicom.sr.srread(io.BytesIO(structured_report(said)[1])))
    for output in (oru_r01(said, RIS), fhir_transaction(said)):
        assert b"Reader anna: not readable (motion)" in output[-1]


def test_the_presentation_state_draws_the_boxes_on_the_source_image(tmp_path):
    said = answer(image(tmp_path, 1, LIKELY))
    state = dcmread(io.BytesIO(presentation_state(said, said.images[0], 1)[1]))
    [annotation] = state.GraphicAnnotationSequence
    drawn = [list(graphic.GraphicData) for graphic in annotation.GraphicObjectSequence]
    assert drawn[0] == [20, 30, 60, 30, 60, 50, 20, 50, 20, 30]
    assert annotation.GraphicObjectSequence[0].GraphicAnnotationUnits == "PIXEL"
    [reference] = annotation.ReferencedImageSequence
    assert reference.ReferencedSOPInstanceUID == said.header.SOPInstanceUID
    texts = [text.UnformattedTextValue for text in annotation.TextObjectSequence]
    assert texts[0].startswith("Research use only, not for diagnosis. Fracture likely (93 % probability)")
    assert texts[1] == "1 likely 0.90"


def test_the_secondary_capture_shows_box_and_notice(tmp_path):
    said = answer(image(tmp_path, 1, LIKELY))
    ds = dcmread(io.BytesIO(secondary_capture(said, said.images[0], 1)[1]))
    pixels = ds.pixel_array
    assert pixels.shape == (120, 160, 3)
    coloured = np.ptp(pixels.astype(int), axis=2) > 60
    rows, columns = np.nonzero(coloured[20:60, 10:70])
    assert rows.size > 50
    assert columns.size > 50
    assert (pixels[:8] > 100).any(), "the notice on the upper edge"
    assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == said.header.SOPInstanceUID
    Image.fromarray(pixels)


def test_the_same_input_has_the_same_uids_and_another_has_others(tmp_path):
    first, again = answer(image(tmp_path, 1, LIKELY)), answer(image(tmp_path, 1, LIKELY))
    other = answer(image(tmp_path, 1, NONE_SEEN))
    assert structured_report(first)[0] == structured_report(again)[0]
    assert structured_report(first)[0] != structured_report(other)[0]
    assert oru_r01(first, RIS)[0] == oru_r01(again, RIS)[0]
    assert first.series_uid("sr") == other.series_uid("sr")
    assert len(structured_report(first)[0]) <= 64


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("written", [b"\0\x0048.0", b"48.0\\300", b"48.0\\ "])
def test_the_state_has_the_window_that_the_image_is_read_with(tmp_path, written):
    path = write(dicom_object(plate(), 1, WindowCenter="123456", WindowWidth=99), tmp_path / "1.dcm")
    path.write_bytes(path.read_bytes().replace(b"\x50\x10DS\x06\x00123456", b"\x50\x10DS" + _valued(written)))
    said = answer(ImageAnswer(source_header(path), "1" * 64, LIKELY, None, lambda: np.dstack([plate()] * 3)))
    state = dcmread(io.BytesIO(presentation_state(said, said.images[0], 1)[1]))
    [window] = state.SoftcopyVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth) == (48, 99)


def _valued(written):
    written += b" " * (len(written) % 2)
    return len(written).to_bytes(2, "little") + written


@pytest.mark.parametrize("version", [1, 2])
def test_hl7apy_finds_every_segment_field_and_type_where_the_standard_has_it(tmp_path, version):
    parser = pytest.importorskip("hl7apy.parser")
    feedback = FEEDBACK if version > 1 else None
    _, message = oru_r01(
        answer(image(tmp_path, 1, LIKELY, feedback), image(tmp_path, 2, REFUSED), version=version), RIS
    )
    assert parser.parse_message(message.decode(), find_groups=True).validate()


def fields(message, segment):
    return [line.split("|") for line in message.decode().split("\r") if line.startswith(segment + "|")]


def test_the_message_carries_finding_probability_model_and_order(tmp_path):
    said = answer(image(tmp_path, 1, LIKELY), image(tmp_path, 2, REFUSED))
    control, message = oru_r01(said, RIS)
    [msh], [pid], [obr], [tq1] = (fields(message, name) for name in ("MSH", "PID", "OBR", "TQ1"))
    assert (msh[8], msh[9], msh[11]) == ("ORU^R01^ORU_R01", control, "2.5.1")
    assert (pid[3], pid[5]) == ("PID-1", "Müller^Zoë")
    assert (obr[2], obr[18], obr[25]) == ("ACC1", "ACC1", "P")
    assert tq1[9] == "S"
    rows = {(row[3].split("^")[0], row[4]): row for row in fields(message, "OBX")}
    assert rows["FINDING", "1"][5].split("^")[1] == "Fracture likely"
    assert rows["FINDING", "1"][11] == "P"
    assert (rows["111013", "1"][5], rows["111013", "1"][6].split("^")[0]) == ("93.00", "%")
    assert MODEL in rows["MODEL", "1"][5]
    assert "20 30 60 50" in rows["BOX", "1.1"][5]
    # What was not analysed is no result, and nothing that looks like "no fracture".
    assert rows["FINDING", "2"][11] == "X"
    assert "Not analysed" in rows["FINDING", "2"][5]
    assert ("111013", "2") not in rows


def test_a_correction_is_marked_as_one_and_its_text_cannot_break_the_message(tmp_path):
    _, message = oru_r01(answer(image(tmp_path, 1, LIKELY, FEEDBACK), version=2), RIS)
    assert {row[11] for row in fields(message, "OBX")} == {"C"}
    [reader] = [row for row in fields(message, "OBX") if row[3].startswith("READER")]
    assert "a \\T\\ b \\F\\ c" in reader[5]


def test_a_none_seen_is_not_urgent_and_does_not_say_that_there_is_none(tmp_path):
    _, message = oru_r01(answer(image(tmp_path, 1, NONE_SEEN)), RIS)
    [tq1] = fields(message, "TQ1")
    assert tq1[9] == "R"
    assert "No fracture seen" in message.decode()


@pytest.mark.parametrize(
    ("text", "control", "said"),
    [
        ("MSH|^~\\&|\rMSA|AA|7\r", "7", (True, "AA")),
        ("MSH|^~\\&|\rMSA|AE|7|nonsense\r", "7", (False, "AE")),
        ("MSH|^~\\&|\nMSA|CA|7\n", "7", (True, "CA")),
    ],
)
def test_an_acknowledgement_is_read(text, control, said):
    assert read_acknowledgement(text.encode(), control) == said


@pytest.mark.parametrize("text", ["", "MSH|^~\\&|\rMSA|AA|8\r", "MSA"])
def test_what_acknowledges_nothing_is_an_error(text):
    with pytest.raises(Hl7Error):
        read_acknowledgement(text.encode(), "7")


def test_the_transaction_is_valid_and_says_the_same(tmp_path):
    said = answer(image(tmp_path, 1, LIKELY), image(tmp_path, 2, REFUSED))
    _, content = fhir_transaction(said)
    bundle = Bundle.model_validate_json(content)
    kinds = [entry.resource.get_resource_type() for entry in bundle.entry]
    assert kinds == ["Device", "Observation", "Observation", "DiagnosticReport"]
    _device, found, refused, report = (entry["resource"] for entry in json.loads(content)["entry"])
    assert report["status"] == "preliminary"
    assert report["imagingStudy"][0]["identifier"]["value"] == f"urn:oid:{said.study_uid}"
    assert report["basedOn"][0]["identifier"]["value"] == "ACC1"
    assert report["meta"]["tag"][0]["code"] == "stat"
    assert found["valueCodeableConcept"]["text"] == "Fracture likely"
    assert found["component"][0]["valueQuantity"]["value"] == 93.0
    assert refused["status"] == "cancelled"
    assert "valueCodeableConcept" not in refused
    assert all(entry["request"]["method"] == "PUT" for entry in json.loads(content)["entry"])
    _, corrected = fhir_transaction(answer(image(tmp_path, 1, LIKELY, FEEDBACK), version=2))
    assert json.loads(corrected)["entry"][-1]["resource"]["status"] == "corrected"
