"""The structured report: TID 1500 of PS3.16 in a Comprehensive SR, following IHE AI Results (AIR)."""

from __future__ import annotations

from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from ...presentation import LIKELY, POSSIBLE
from ..answers import MOVED, NOTICE, Box, ImageAnswer, NamedType, StudyAnswer, derived_uid
from . import MODEL, copy_study, encode, series_of
from .codes import FRACTURE, FRACTURE_TYPE, LEVEL_CODES, laterality_of, own_code, site_of, type_code

RESULT = own_code("RESULT", "Result of the analysis")
REASON = own_code("REASON", "Reason why it was not analysed")
QUALIFICATION = own_code("NOTICE", "Intended use")
VERDICT = own_code("VERDICT", "Verdict of a reader")
SCORE = own_code("SCORE", "Score of the detector")
VERDICTS = {
    "right": own_code("RIGHT", "Right"),
    "wrong": own_code("WRONG", "Wrong"),
    MOVED: own_code("MOVED", "Right, moved by a reader"),
}
MISSED = own_code("MISSED", "Missed by the detector, marked by a reader")
TYPE_PROBABILITY = own_code("TYPEPROBABILITY", "Probability of the type, if there is a fracture")
READER_TYPE = own_code("READERTYPE", "Type of fracture, stated by a reader")
NO_FRACTURE = own_code("NOFRACTURE", "No fracture")
UNREADABLE = own_code("UNREADABLE", "Not readable")


def structured_report(answer: StudyAnswer) -> tuple[str, bytes]:
    """Return the SOP instance UID and the file of the report on all images of a study."""
    uid = answer.uid("sr")
    report = MeasurementReport(
        observation_context=_observers(answer),
        procedure_reported=CodedConcept("363680008", "SCT", "Radiographic imaging"),
        imaging_measurements=[group for image in answer.images for group in _groups(answer, image)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    document = ComprehensiveSR(
        evidence=[image.header for image in answer.images],
        content=report[0],
        sop_instance_uid=uid,
        instance_number=answer.version,
        is_complete=answer.is_complete,
        is_final=False,
        is_verified=False,
        institution_name=answer.institution,
        previous_versions=_previous(answer),
        **series_of(answer, "sr"),
    )
    document.ManufacturerModelName, document.SoftwareVersions = MODEL, answer.software
    copy_study(answer, document)
    return uid, encode(document)


def _observers(answer: StudyAnswer) -> ObservationContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", answer.model_sha256), name=answer.model[:64], manufacturer_name="fracture_det"
    )
    contexts: dict[str, Any] = {"observer_device_context": ObserverContext(codes.DCM.Device, device)}
    if answer.author is not None:
        person = PersonObserverIdentifyingAttributes(name=f"{answer.author}^")
        contexts["observer_person_context"] = ObserverContext(codes.DCM.Person, person)
    return ObservationContext(**contexts)


def _groups(answer: StudyAnswer, image: ImageAnswer) -> list[Any]:
    """Return the group of a whole image, then one for each of its boxes and for each that a reader moved or drew."""
    groups: list[Any] = [_image_group(answer, image)]
    groups += [_box_group(answer, image, box) for box in image.result.boxes]
    if image.feedback is not None:
        for number, corners in sorted(image.feedback.moved.items()):
            groups.append(_reader_group(image, f"moved {number}", VERDICTS[MOVED], corners, None))
        for number, missed in enumerate(image.feedback.typed_missed, start=1):
            groups.append(_reader_group(image, f"missed {number}", MISSED, *missed))
    return groups


def _add_type(
    kind: NamedType | None, evaluations: list[QualitativeEvaluation], measurements: list[Measurement]
) -> None:
    """Add a type of fracture with its probability to what is said of an image or a box, where one is named."""
    if kind is not None:
        evaluations.append(QualitativeEvaluation(FRACTURE_TYPE, type_code(kind[0])))
        measurements.append(Measurement(TYPE_PROBABILITY, round(100 * kind[1], 2), codes.UCUM.Percent))


def _image_group(answer: StudyAnswer, image: ImageAnswer) -> MeasurementsAndQualitativeEvaluations:
    evaluations = [
        QualitativeEvaluation(QUALIFICATION, own_code("RESEARCH", NOTICE)),
        QualitativeEvaluation(RESULT, LEVEL_CODES[image.result.finding or "not analysed"]),
    ]
    measurements: list[Measurement] = []
    found: dict[str, Any] = {}
    if image.result.finding in (LIKELY, POSSIBLE):  # a reader that looks at nothing else would see a fracture
        found = {"finding_type": FRACTURE, "finding_sites": _sites(image)}
    if image.is_analysed:
        if image.result.confidence is not None:
            measurements = [_percent(image.result.confidence)]
        _add_type(image.result.type, evaluations, measurements)
    else:
        evaluations.append(QualitativeEvaluation(REASON, own_code(image.result.reason, image.result.sentence)))
    for code, is_said in ((NO_FRACTURE, "no_fracture"), (UNREADABLE, "unreadable")):
        if image.feedback is not None and getattr(image.feedback, is_said):
            evaluations.append(QualitativeEvaluation(VERDICT, code))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(image, "image"),
        source_images=[SourceImageForMeasurementGroup(image.header.SOPClassUID, image.header.SOPInstanceUID)],
        algorithm_id=_algorithm(answer, image),
        measurements=measurements or None,
        qualitative_evaluations=evaluations,
        **found,
    )


def _box_group(answer: StudyAnswer, image: ImageAnswer, box: Box) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    if image.result.calibrated:
        measurements = [_percent(box.score)]
    else:
        measurements = [Measurement(SCORE, round(box.score, 4), codes.UCUM.NoUnits)]
    evaluations = [QualitativeEvaluation(RESULT, LEVEL_CODES[box.level])]
    _add_type(box.type, evaluations, measurements)
    if verdict := image.verdict(box):
        evaluations.append(QualitativeEvaluation(VERDICT, VERDICTS[verdict]))
    if said := image.reader_type(box):
        evaluations.append(QualitativeEvaluation(READER_TYPE, type_code(said)))
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(image, f"box {box.number}"),
        referenced_region=_region(image, box.corners_px),
        finding_type=FRACTURE,
        finding_sites=_sites(image),
        algorithm_id=_algorithm(answer, image),
        measurements=measurements,
        qualitative_evaluations=evaluations,
    )


def _reader_group(
    image: ImageAnswer, name: str, verdict: CodedConcept, corners_px: tuple[float, ...], kind: str | None
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """Return the group of a box that a reader has drawn, or moved."""
    evaluations = [QualitativeEvaluation(VERDICT, verdict)]
    if kind is not None:
        evaluations.append(QualitativeEvaluation(READER_TYPE, type_code(kind)))
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(image, name),
        referenced_region=_region(image, corners_px),
        finding_type=FRACTURE,
        finding_sites=_sites(image),
        qualitative_evaluations=evaluations,
    )


def _region(image: ImageAnswer, corners_px: tuple[float, ...]) -> ImageRegion:
    """Return a rectangle as a closed polyline; SCOORD begins at (0, 0) in the upper left corner of the first pixel."""
    x0, y0, x1, y1 = corners_px
    points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], dtype=float)
    source = SourceImageForRegion(image.header.SOPClassUID, image.header.SOPInstanceUID)
    return ImageRegion(GraphicTypeValues.POLYLINE, points, source)


def _tracking(image: ImageAnswer, what: str) -> TrackingIdentifier:
    uid = derived_uid("tracking", image.header.SOPInstanceUID, image.result.model_sha256, what)
    return TrackingIdentifier(uid=uid, identifier=what)


def _algorithm(answer: StudyAnswer, image: ImageAnswer) -> AlgorithmIdentification:
    """Return TID 4019: name, version, and as a parameter the hash of the weights."""
    name, sha256 = answer.model_of(image)
    return AlgorithmIdentification(name=name[:64], version=answer.software, parameters=[f"weights SHA-256 {sha256}"])


def _sites(image: ImageAnswer) -> list[FindingSite]:
    return [FindingSite(anatomic_location=site_of(image.header), laterality=laterality_of(image.header))]


def _percent(probability: float) -> Measurement:
    return Measurement(codes.DCM.CertaintyOfFinding, round(100 * probability, 2), codes.UCUM.Percent)


def _previous(answer: StudyAnswer) -> list[Dataset] | None:
    uid = answer.previous_uid("sr")
    if uid is None:
        return None
    before = Dataset()
    before.StudyInstanceUID, before.SeriesInstanceUID = answer.study_uid, answer.series_uid("sr")
    before.SOPClassUID, before.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.33", uid
    return [before]
