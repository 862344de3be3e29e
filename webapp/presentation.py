"""From scores to findings: the three levels, and the JSON that the API and the pages share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from flask import url_for

from fracture_det.inference.service import CAPTION, HEADLINE, Suitability
from fracture_det.registry.agreement import Agreement
from fracture_det.structures.dicom import CALIBRATED, DETECTOR, SCANNED, UNSTATED
from fracture_det.structures.readings import Reading

from .fracture_types import image_types, type_finding, type_schemas
from .schemas import (
    BoxSchema,
    ComparisonSchema,
    FeedbackSchema,
    FindingSchema,
    ImageSchema,
    Level,
    LinksSchema,
    PredictionSchema,
    SuitabilitySchema,
    TypeSchema,
    VerdictSchema,
)
from .store import StoredPrediction
from .store.accounts import Account
from .store.audit import PACS

NOTICE = "Research use only. Not a medical device."
# Boxes below it are noise and are not stored.
FLOOR_SCORE = 0.05
LIKELY, POSSIBLE, WEAK, NONE_SEEN = "likely", "possible", "weak", "none seen"


@dataclass(frozen=True)
class Finding:
    """The finding for a whole radiograph: its level, a headline and a sentence of advice."""

    level: Level
    title: str
    advice: str


FINDING_BY_LEVEL = {
    LIKELY: Finding(
        "likely", "Fracture likely", "The model marks at least one region at or above its operating point."
    ),
    POSSIBLE: Finding(
        "possible",
        "Fracture possible",
        "The model marks one or more regions, all below its operating point. Look at them closely.",
    ),
    NONE_SEEN: Finding(
        "none seen",
        "No fracture seen",
        "The model marks no fracture. It misses some fractures, so this does not rule one out.",
    ),
}


# What follows a size in mm wherever one is shown.
SPACING_NOTES = {
    CALIBRATED: "calibrated in the patient",
    DETECTOR: "measured at the detector: magnified by geometry",
    SCANNED: "measured on the scanned film: magnified by geometry",
    UNSTATED: "where it was measured is not stated: may be magnified by geometry",
}


def floor_score(possible_score: float) -> float:
    """Return the lowest score (0..1) of a box that is stored."""
    return min(FLOOR_SCORE, possible_score)


def level_of(score: float, operating_score: float, possible_score: float) -> str:
    """Return the level of one box: likely, possible, or weak when it is below both thresholds."""
    score = round(score, 6)  # undoes float32, in which .7 is below a threshold of .7
    if score >= operating_score:
        return LIKELY
    return POSSIBLE if score >= possible_score else WEAK


def finding_level(highest: float | None, operating_score: float, possible_score: float) -> str:
    """Return the level of a radiograph from its highest score, None without a box."""
    level = WEAK if highest is None else level_of(highest, operating_score, possible_score)
    return NONE_SEEN if level == WEAK else level


@dataclass(frozen=True)
class VisibleReadings:
    """What an account may see of the readings of a result. hidden: how many of others are not shown yet."""

    own: Reading | None
    others: tuple[Reading, ...]
    hidden: int
    settled: Reading | None


def visible_readings(stored: StoredPrediction, viewer: Account) -> VisibleReadings:
    """Return what an account may see: all its own, and those of others once its own is finished, or to adjudicate."""
    own = stored.reading_of(viewer.name)
    others = tuple(reading for reading in stored.readings if reading.author != viewer.name)
    if viewer.can_settle or (own is not None and not stored.read.unfinished(own)):
        return VisibleReadings(own, others, 0, stored.settled)
    return VisibleReadings(own, (), len(others), None)


def prediction_schema(
    stored: StoredPrediction, score: float, *, viewer: Account, feedback_days: float
) -> PredictionSchema:
    """Return the JSON of a result for `viewer`, with the boxes of at least `score` (0..1)."""
    finding = FINDING_BY_LEVEL[stored.finding]
    types, seen = result_types(stored), visible_readings(stored, viewer)
    return PredictionSchema(
        id=stored.id,
        created_at=_time(stored.created_at),
        finding=FindingSchema(
            level=finding.level,
            title=finding.title,
            advice=finding.advice,
            confidence=None if stored.confidence is None else round(stored.confidence, 6),
        ),
        types=types,
        type=type_finding(types or (), stored.type_confidence, stored.type_accuracy),
        detections=boxes(stored, score),
        score=score,
        operating_score=stored.operating_score,
        possible_score=stored.possible_score,
        floor_score=floor_score(stored.possible_score),
        calibrated=stored.calibrated,
        image=ImageSchema(height=stored.height, width=stored.width, bits=stored.bits, window=stored.window),
        source="PACS" if stored.owner == PACS else None,
        spacing_mm=stored.spacing_mm,
        spacing_kind=None if stored.spacing_mm is None else stored.spacing_kind,  # type: ignore[arg-type]
        spacing_note=None if stored.spacing_mm is None else SPACING_NOTES[stored.spacing_kind or UNSTATED],
        model=stored.model,
        model_sha256=stored.model_sha256,
        model_version=stored.model_version,
        latency_ms=round(stored.latency_ms["total"], 1),
        stages_ms={name: round(value, 1) for name, value in stored.latency_ms.items()},
        feedback=None if seen.own is None else feedback_schema(seen.own),
        others=[feedback_schema(reading) for reading in seen.others],
        hidden_readings=seen.hidden,
        settled=None if seen.settled is None else feedback_schema(seen.settled),
        feedback_days=feedback_days,
        suitability=suitability_schema(stored.suitability),
        notice=NOTICE,
        links=_links(stored, viewer),
    )


def comparison_schema(found: Agreement) -> ComparisonSchema:
    """Return the JSON of how far a shadow agrees with a served version."""
    counts = [{"served": served, "shadow": shadow, "radiographs": n} for (served, shadow), n in found.levels.items()]
    facts = {name: value for name, value in vars(found).items() if name not in ("n", "levels", "boxes")}
    numbers = {name: round(value, 6) if isinstance(value, float) else value for name, value in facts.items()}
    return ComparisonSchema.model_validate(
        {**numbers, "radiographs": found.n, "levels": counts, "boxes": vars(found.boxes)}
    )


def suitability_schema(said: Suitability | None) -> SuitabilitySchema | None:
    """Return the JSON of what was said of a picture before it was analysed."""
    if said is None:
        return None
    return SuitabilitySchema(
        ok=said.ok, probability=round(said.probability, 4), reasons=list(said.reasons), notice=suitability_notice(said)
    )


def suitability_notice(said: Suitability) -> str | None:
    """Return what is shown wherever the result is, or None."""
    if said.ok:
        return said.sentence or None
    return f"Analysed anyway: {HEADLINE}. {said.sentence} Unless it is one, the finding means nothing."


def overlay_caption(stored: StoredPrediction) -> str | None:
    """Return what an overlay says of a picture that was analysed anyway, or None."""
    return None if stored.suitability is None or stored.suitability.ok else CAPTION


def feedback_schema(feedback: Reading) -> FeedbackSchema:
    """Return the JSON of a reading."""
    return FeedbackSchema(
        boxes=[
            VerdictSchema.model_validate(
                {
                    "number": number,
                    "verdict": verdict,
                    "type": feedback.types.get(number),
                    "moved_to": feedback.moved.get(number),
                }
            )
            for number, verdict in feedback.verdicts.items()
        ],
        missed=list(feedback.missed),
        missed_types=[kind for _, kind in feedback.typed_missed],
        no_fracture=feedback.no_fracture,
        unreadable=feedback.unreadable,
        reason=feedback.reason,
        seconds=feedback.seconds,
        comment=feedback.comment,
        author=feedback.author,
        updated_at=_time(feedback.updated_at),
    )


def result_types(stored: StoredPrediction) -> list[TypeSchema] | None:
    """Return the types of a radiograph, highest first: none without a finding, None where the detector tells none."""
    if not stored.type_names:
        return None
    return [] if stored.finding == NONE_SEEN else image_types(stored.detections, stored.type_names)


def boxes(stored: StoredPrediction, score: float) -> list[BoxSchema]:
    """Return the boxes of at least `score` (0..1), highest first; `number` is the rank among all boxes."""
    shown = stored.detections.above(score)
    # Scores descend, so `above` keeps the head of the list.
    rows = zip(shown.boxes, shown.scores, stored.labels[: len(shown)], strict=True)
    levels = [level_of(float(value), stored.operating_score, stored.possible_score) for value in shown.scores]
    return [
        BoxSchema.model_validate(
            {
                "number": number,
                "box_xyxy_px": tuple(round(float(side), 2) for side in box),
                "score": round(float(value), 6),
                "label": label,
                "level": levels[number - 1],
                "types": _box_types(stored, number - 1, levels[number - 1]),
            }
        )
        for number, (box, value, label) in enumerate(rows, start=1)
    ]


def _box_types(stored: StoredPrediction, index: int, level: str) -> list[TypeSchema] | None:
    """Return the types of one box, highest first: none of a weak one, None where the detector tells none."""
    if not stored.type_names:
        return None
    if level == WEAK or stored.detections.types is None:  # it was not asked of boxes with so low a score
        return []
    return type_schemas(stored.type_names, stored.detections.types[index].tolist())


def _links(stored: StoredPrediction, viewer: Account) -> LinksSchema:
    self_url = url_for("api.prediction", identifier=stored.id)
    page = url_for("pages.result", identifier=stored.id)
    has_image = stored.image_path is not None
    return LinksSchema(
        self=self_url,
        image=f"{self_url}/image.png" if has_image else None,
        samples=f"{self_url}/samples.png" if stored.samples_path is not None else None,
        overlay=f"{self_url}/overlay.png" if has_image else None,
        page=page,
        report=f"{page}/report",
        report_pdf=f"{page}/report.pdf",
        feedback=f"{self_url}/feedback",
        readings=f"{self_url}/readings",
        settlement=f"{self_url}/settlement" if viewer.can_settle else None,
        model=url_for("pages.model"),
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), timezone.utc)
