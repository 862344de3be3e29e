"""The types of the API: what comes in and what goes out. docs/api.md and the OpenAPI description are made of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

MOST_MISSED = 50
LONGEST_COMMENT = 2000
PER_PAGE, MOST_PER_PAGE, LAST_PAGE = 20, 100, 10_000_000
Level = Literal["likely", "possible", "none seen"]
Probability = Annotated[float, Field(ge=0, le=1)]
# Strict: 0 for false or "1" for 1 is a mistake of the client, and not to be guessed at.
Side = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Day = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$", json_schema_extra={"format": "date"})]
# PostgreSQL keeps no NUL.
Words = Annotated[str, Field(pattern=r"^[^\x00]*$")]
BoxPx = tuple[Side, Side, Side, Side]


def _no_word(value: object) -> object:
    """Refuse what would be made a number: "1" and true are none, while 1.0 is one in JSON."""
    if isinstance(value, (str, bool)):
        raise ValueError("must be a number")
    return value


class Schema(BaseModel):
    """A JSON object: unknown fields are refused, so that a misspelt one is not lost in silence."""

    model_config = ConfigDict(extra="forbid")


class FindingSchema(Schema):
    """What is said about the whole radiograph."""

    level: Level
    title: str
    advice: str
    confidence: Probability | None = Field(description="calibrated probability that the radiograph shows a fracture")


class BoxSchema(Schema):
    """One marked place, in pixels of the upright radiograph."""

    number: int = Field(ge=1, description="place among all boxes, highest score first")
    box_xyxy_px: BoxPx
    score: Probability
    label: str
    level: Literal["likely", "possible", "weak"]


class SizeSchema(Schema):
    """The size of the upright radiograph in pixels."""

    height: int
    width: int


class VerdictSchema(Schema):
    """What a reader says of one box."""

    number: Annotated[int, BeforeValidator(_no_word), Field(ge=1, le=10_000)]
    verdict: Literal["right", "wrong"]


class FeedbackIn(Schema):
    """What a reader says of a result; it replaces what was said before."""

    boxes: list[VerdictSchema] = Field(default=[], max_length=1000)
    missed: list[BoxPx] = Field(default=[], max_length=MOST_MISSED, description="fractures without a box, px upright")
    no_fracture: bool = Field(default=False, strict=True, description="the radiograph shows no fracture")
    comment: Words = Field(default="", max_length=LONGEST_COMMENT)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> FeedbackIn:
        numbers = [box.number for box in self.boxes]
        if len(set(numbers)) < len(numbers):
            raise ValueError("each box has at most one verdict")
        if self.no_fracture and (self.missed or any(box.verdict == "right" for box in self.boxes)):
            raise ValueError("'no fracture' goes with neither a right box nor a missed fracture")
        return self


class FeedbackSchema(FeedbackIn):
    """What a reader said, who and when."""

    author: str
    updated_at: datetime


class LinksSchema(Schema):
    """Addresses of everything that belongs to a result."""

    self: str
    image: str | None
    overlay: str | None
    page: str
    report: str
    report_pdf: str
    feedback: str
    model: str


class PredictionSchema(Schema):
    """A result."""

    ok: Literal[True] = True
    id: str
    created_at: datetime
    finding: FindingSchema
    detections: list[BoxSchema]
    score: Probability = Field(description="boxes below it are left out")
    operating_score: Probability
    possible_score: Probability
    floor_score: Probability
    calibrated: bool = Field(description="whether scores are probabilities")
    image: SizeSchema
    model: str
    model_sha256: str | None
    latency_ms: float
    stages_ms: dict[str, float]
    feedback: FeedbackSchema | None
    feedback_days: float
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
    """The detector that answers."""

    ok: Literal[True] = True
    name: str
    class_names: list[str]
    sha256: str | None
    operating_score: Probability
    possible_score: Probability
    calibrated: bool
    notice: str


class AliveSchema(Schema):
    """The answer of a process that lives."""

    ok: Literal[True] = True


class ReadySchema(AliveSchema):
    """The answer of a server that takes radiographs."""

    model: str


class ErrorSchema(Schema):
    """Every error."""

    ok: Literal[False] = False
    error: str = Field(description="a sentence for people")
    status: int


class ScoreQuery(BaseModel):
    """Which boxes are asked for."""

    score: Probability | None = Field(default=None, description="lowest score of the boxes; default: operating point")

    @field_validator("score", mode="before")
    @classmethod
    def _is_a_score(cls, text: object) -> object:
        try:
            right = 0 <= float(str(text)) <= 1
        except ValueError:
            right = False
        if not right:
            raise ValueError("must be a number between 0 and 1, such as 0.50")
        return text


class OverlayQuery(ScoreQuery):
    """Which boxes are drawn, and how large."""

    longest_px: int | None = Field(default=None, ge=16, le=65_535, description="its longer side is made that short")


class HistoryQuery(BaseModel):
    """Which results are asked for. Days are of UTC, both included."""

    page: int = Field(default=1, ge=1, le=LAST_PAGE)
    per_page: int = Field(default=PER_PAGE, ge=1, le=MOST_PER_PAGE)
    finding: Level | None = None
    since: Day | None = Field(default=None, description="first day, such as 2026-01-31")
    until: Day | None = Field(default=None, description="last day")
    q: Words = Field(
        default="", max_length=200, description="words in the identifier, the comment, the model or the owner"
    )


class UploadHeaders(BaseModel):
    """A key that the client makes up: the same upload with the same key is analysed once."""

    idempotency_key: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")
