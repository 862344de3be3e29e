"""The types of the API's requests and responses, from which the OpenAPI description is made."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

MAX_MISSED = 50
MAX_COMMENT_LENGTH = 2000
MAX_TYPE_LENGTH = 64
MAX_REASON_LENGTH = 200
# A reading that took longer was left lying.
MAX_READING_S = 3600
DEFAULT_PER_PAGE, MAX_PER_PAGE, MAX_PAGE = 20, 100, 10_000_000
Level = Literal["likely", "possible", "none seen"]
Probability = Annotated[float, Field(ge=0, le=1)]
# Strict: "1" for 1 is a mistake of the client, not to be guessed at.
Coordinate = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$", json_schema_extra={"format": "date"})]
# PostgreSQL cannot store NUL.
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
TypeName = Annotated[Text, Field(min_length=1, max_length=MAX_TYPE_LENGTH)]
BoxPx = tuple[Coordinate, Coordinate, Coordinate, Coordinate]


def _reject_non_number(value: object) -> object:
    """Reject "1" and true, which pydantic would make a number, while 1.0 is an integer in JSON."""
    if isinstance(value, (str, bool)):
        raise ValueError("must be a number")
    return value


class Schema(BaseModel):
    """A JSON object; unknown fields are rejected, so that a misspelt one is not lost silently."""

    model_config = ConfigDict(extra="forbid")


class FindingSchema(Schema):
    """The finding for the whole radiograph."""

    level: Level
    title: str
    advice: str
    confidence: Probability | None = Field(description="calibrated probability that the radiograph shows a fracture")


class TypeSchema(Schema):
    """A type of fracture with its probability, if there is a fracture."""

    name: str = Field(description="as feedback and data sets write it")
    title: str
    probability: Probability


class TypeFindingSchema(Schema):
    """What is said of the type of fracture on a radiograph."""

    name: str | None = Field(description="the type that is named; null where it is uncertain")
    uncertain: bool = Field(description="whether every type is below `confidence`, so that none is named")
    title: str
    notice: str = Field(description="how often the named type is right, to be shown with it")
    confidence: Probability | None = Field(description="lowest probability of a type that is named; null: not stated")
    accuracy: Probability | None = Field(
        description="share of the named types that were right on validation radiographs; null: not measured"
    )


class ListedTypeSchema(Schema):
    """A type of fracture that feedback may state."""

    name: str
    title: str
    definition: str


class BoxSchema(Schema):
    """One box, in pixels of the upright radiograph."""

    number: int = Field(ge=1, description="rank among all boxes, highest score first")
    box_xyxy_px: BoxPx
    score: Probability
    label: str
    level: Literal["likely", "possible", "weak"]
    types: list[TypeSchema] | None = Field(
        default=None, description="highest first; none of a weak box; null where the detector tells no types"
    )


class ImageSchema(Schema):
    """The size of the upright radiograph in pixels, and what its file held.

    `image.png` has 8 bits of it; of a grey radiograph of more, the link `samples` leads to all of them.
    """

    height: int
    width: int
    bits: int = Field(default=8, ge=8, le=16, description="how many bits the radiograph's samples use")
    window: tuple[float, float] = Field(
        default=(0.0, 255.0), description="the samples that are black and white in image.png"
    )


class SuitabilitySchema(Schema):
    """Whether the picture looks like a radiograph of a limb; `ok` is false where it was analysed anyway."""

    ok: bool
    probability: Probability = Field(description="that it is a radiograph of a limb")
    reasons: list[str] = Field(description="why it is not, and what else is worth knowing; docs/suitability.md")
    notice: str | None = Field(description="the reasons as a sentence for the reader, to be shown with the result")


class VerdictSchema(Schema):
    """A reader's verdict on one box."""

    number: Annotated[int, BeforeValidator(_reject_non_number), Field(ge=1, le=10_000)]
    verdict: Literal["right", "wrong"]
    type: TypeName | None = Field(default=None, description="type of the fracture in a right box; null: unknown")
    moved_to: BoxPx | None = Field(default=None, description="where a right box belongs, px upright; null: where it is")

    @model_validator(mode="after")
    def _is_of_a_fracture(self) -> VerdictSchema:
        for name in ("type", "moved_to"):
            if getattr(self, name) is not None and self.verdict != "right":
                raise ValueError(f"{name}: only a right box has one")
        return self


class FeedbackIn(Schema):
    """One reader's reading of a result; it replaces that reader's earlier one."""

    boxes: list[VerdictSchema] = Field(default=[], max_length=1000)
    missed: list[BoxPx] = Field(default=[], max_length=MAX_MISSED, description="fractures without a box, px upright")
    missed_types: list[TypeName | None] = Field(
        default=[], max_length=MAX_MISSED, description="type of each missed fracture, null: unknown; [] states none"
    )
    no_fracture: bool = Field(default=False, strict=True, description="the radiograph shows no fracture")
    unreadable: bool = Field(default=False, strict=True, description="the radiograph cannot be judged")
    reason: Text = Field(default="", max_length=MAX_REASON_LENGTH, description="why it cannot")
    seconds: Annotated[float, BeforeValidator(_reject_non_number), Field(ge=0, le=MAX_READING_S)] | None = Field(
        default=None, description="how long the reader had it in view; null: not measured"
    )
    comment: Text = Field(default="", max_length=MAX_COMMENT_LENGTH)

    @model_validator(mode="after")
    def _is_consistent(self) -> FeedbackIn:
        numbers = [box.number for box in self.boxes]
        if len(set(numbers)) < len(numbers):
            raise ValueError("each box has at most one verdict")
        if self.missed_types and len(self.missed_types) != len(self.missed):
            raise ValueError(
                f"missed_types: expected {len(self.missed)}, one for each of `missed`, got {len(self.missed_types)}"
            )
        if self.no_fracture and (self.missed or any(box.verdict == "right" for box in self.boxes)):
            raise ValueError("'no fracture' contradicts a right box or a missed fracture")
        if self.unreadable and (self.no_fracture or self.missed or self.boxes):
            raise ValueError("'unreadable' contradicts 'no fracture', a verdict and a missed fracture")
        if self.reason and not self.unreadable:
            raise ValueError("reason: only of a radiograph that is not readable")
        return self


class FeedbackSchema(FeedbackIn):
    """A stored reading, or a settlement, with its author and time."""

    author: str
    updated_at: datetime


class LinksSchema(Schema):
    """URLs of everything that belongs to a result."""

    self: str
    image: str | None
    samples: str | None = Field(default=None, description="null where image.png has all bits")
    overlay: str | None
    page: str
    report: str
    report_pdf: str
    feedback: str
    readings: str
    settlement: str | None = Field(default=None, description="null for who may not settle")
    model: str


class PredictionSchema(Schema):
    """A result."""

    ok: Literal[True] = True
    id: str
    created_at: datetime
    finding: FindingSchema
    types: list[TypeSchema] | None = Field(
        default=None, description="highest first; [] without a finding; null where the detector tells no types"
    )
    type: TypeFindingSchema | None = Field(default=None, description="the same in words; null where `types` has none")
    detections: list[BoxSchema]
    score: Probability = Field(description="boxes below it are left out")
    operating_score: Probability
    possible_score: Probability
    floor_score: Probability
    calibrated: bool = Field(description="whether scores are probabilities")
    image: ImageSchema
    source: Literal["PACS"] | None = Field(default=None, description="where it came from; null for uploads")
    spacing_mm: tuple[float, float] | None = Field(
        default=None, description="height and width of a pixel (row, column) in mm; null where the file does not say"
    )
    spacing_kind: Literal["calibrated", "detector", "scanned", "unstated"] | None = Field(
        default=None, description="where that was measured; null without spacing_mm, and in results of before"
    )
    spacing_note: str | None = Field(
        default=None, description="the same in words, with what it means for lengths; null without spacing_mm"
    )
    model: str
    model_sha256: str | None
    model_version: str | None = Field(description="of a registry of detectors; null where it came from elsewhere")
    latency_ms: float
    stages_ms: dict[str, float]
    feedback: FeedbackSchema | None = Field(description="one's own reading")
    others: list[FeedbackSchema] = Field(
        default=[], description="readings of others, none before one's own is finished, but for adjudicators"
    )
    hidden_readings: int = Field(default=0, description="how many readings of others are not shown yet")
    settled: FeedbackSchema | None = Field(default=None, description="what an adjudicator has decided; hidden likewise")
    feedback_days: float
    suitability: SuitabilitySchema | None = Field(
        description="null for results of before, and where it is switched off"
    )
    notice: str
    links: LinksSchema


class PageSchema(Schema):
    """One page of a history, newest first."""

    ok: Literal[True] = True
    results: list[PredictionSchema]
    page: int
    pages: int
    per_page: int
    total: int


class ModelSchema(Schema):
    """The detector in use."""

    ok: Literal[True] = True
    name: str
    class_names: list[str]
    sha256: str | None
    version: str | None = Field(description="of a registry of detectors; null where it came from elsewhere")
    problem: str | None = Field(description="why it is not the version that the registry serves; else null")
    operating_score: Probability
    possible_score: Probability
    calibrated: bool
    type_names: list[str] = Field(description="the types of fracture that it tells; [] if none")
    type_confidence: Probability | None = Field(description="below it no type is named; null: not stated")
    type_accuracy: Probability | None = Field(
        description="share of the named types that were right; null: not measured"
    )
    types: list[ListedTypeSchema] = Field(description="every type that feedback may state")
    notice: str


class AliveSchema(Schema):
    """The response of a process that is alive."""

    ok: Literal[True] = True


class ReadySchema(AliveSchema):
    """The response of a server that accepts radiographs."""

    model: str
    version: str | None = Field(description="of a registry of detectors; null where it came from elsewhere")
    problem: str | None = Field(description="why it is not the version that the registry serves; else null")


class LevelCountSchema(Schema):
    """How many radiographs got these two findings."""

    served: Level
    shadow: Level
    radiographs: int


class ShadowBoxesSchema(Schema):
    """Boxes of both, matched at an IoU of .5, and of each alone."""

    both: int
    served: int
    shadow: int


class ComparisonSchema(Schema):
    """A shadow beside a served version, on the results that are stored."""

    shadow: str
    served: str
    radiographs: int
    levels: list[LevelCountSchema]
    agreement: Probability = Field(description="share of equal findings")
    kappa: float | None = Field(description="Cohen's, of the findings; null where all are one and the same")
    score_mean: float = Field(description="highest score, shadow minus served: its mean")
    score_median: float
    score_p95: float = Field(description="95th percentile of its size")
    boxes: ShadowBoxesSchema
    calibrated: bool = Field(description="whether the scores of both are probabilities")


class ShadowSchema(Schema):
    """What shadows said beside served versions."""

    ok: Literal[True] = True
    comparisons: list[ComparisonSchema]


class ErrorSchema(Schema):
    """Any error."""

    ok: Literal[False] = False
    error: str = Field(description="a sentence for the reader")
    status: int
    reason: str | None = Field(
        default=None, description="of a picture that does not look like a limb radiograph: why; docs/suitability.md"
    )
    probability: Probability | None = Field(default=None, description="of such a picture: that it is one")


class ScoreQuery(BaseModel):
    """Which boxes to return."""

    score: Probability | None = Field(default=None, description="lowest score of the boxes; default: operating point")

    @field_validator("score", mode="before")
    @classmethod
    def _is_a_score(cls, text: object) -> object:
        try:
            is_valid = 0 <= float(str(text)) <= 1
        except ValueError:
            is_valid = False
        if not is_valid:
            raise ValueError("must be a number between 0 and 1, such as 0.50")
        return text


class UploadQuery(ScoreQuery):
    """Which boxes to return, and whether to analyse whatever comes."""

    force: bool = Field(
        default=False, description="1: analyse also what does not look like a limb radiograph; the result says so"
    )


class OverlayQuery(ScoreQuery):
    """Which boxes to draw, and the size of the image."""

    longest_px: int | None = Field(
        default=None, ge=16, le=65_535, description="longer side; the image is only made smaller"
    )


class HistoryQuery(BaseModel):
    """Which results to list. Days are in UTC, and both are included."""

    page: int = Field(default=1, ge=1, le=MAX_PAGE)
    per_page: int = Field(default=DEFAULT_PER_PAGE, ge=1, le=MAX_PER_PAGE)
    finding: Level | None = None
    since: Day | None = Field(default=None, description="first day, such as 2026-01-31")
    until: Day | None = Field(default=None, description="last day")
    q: Text = Field(
        default="", max_length=200, description="words to find in the identifier, the comment, the model or the owner"
    )


class UploadHeaders(BaseModel):
    """A key that the client chooses: the same upload with the same key is analysed once."""

    idempotency_key: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")
