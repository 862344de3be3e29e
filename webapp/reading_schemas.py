"""The types of the API's answers about several readers of one result, and about how they agree."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from .schemas import BoxPx, FeedbackSchema, ImageSchema, LinksSchema, Schema


class ReadingsSchema(Schema):
    """The readings of one result that the current account may see."""

    ok: Literal[True] = True
    own: FeedbackSchema | None
    others: list[FeedbackSchema] = Field(description="none before one's own is finished, but for adjudicators")
    hidden: int = Field(description="how many readings of others are not shown yet")
    settled: FeedbackSchema | None = Field(description="what an adjudicator has decided; hidden likewise")
    disagreements: list[str] = Field(description="what the finished readings disagree on; hidden likewise")
    problem: str = Field(description="why there is no truth, or empty; hidden likewise")


class ShareSchema(Schema):
    """A figure of agreement with its 95 % interval over images; null where not defined or each resample is the same."""

    value: float | None
    low: float | None
    high: float | None


class PairSchema(Schema):
    """How two readers agree on the images that both have read to the end, and found readable."""

    readers: tuple[str, str]
    images: int
    both_fractured: int
    only_first: int
    only_second: int
    neither: int
    unreadable: int = Field(description="further images, which at least one of the two found not readable")
    kappa: ShareSchema = Field(description="Cohen's kappa, fractured or not")
    boxes: ShareSchema = Field(description="share of their boxes that match at IoU .5")
    n_boxes: int = Field(description="boxes of both readers together")


class ReaderSchema(Schema):
    """What one reader has read, of images with two readings or more."""

    reader: str
    readings: int
    unfinished: int
    unreadable: int
    fractured: int
    median_seconds: float | None = Field(description="of finished readings whose time was measured")


class AgreementSchema(Schema):
    """How readers agree."""

    images: int = Field(description="with two finished readings or more that find it readable")
    fleiss: ShareSchema = Field(description="Fleiss' kappa over all readers, fractured or not")
    boxes: ShareSchema = Field(description="share of boxes that match at IoU .5, over all pairs of readers")
    pairs: list[PairSchema]


class DisputedSchema(Schema):
    """An image whose readers disagree, with their readings."""

    id: str
    created_at: datetime
    disagreements: list[str]
    readings: list[FeedbackSchema]
    marks: list[list[BoxPx]] = Field(description="the boxes of each reading, in the order of `readings`, px upright")
    image: ImageSchema
    links: LinksSchema


class AdjudicationSchema(Schema):
    """What readers have said of images with two readings or more, and what is to be settled."""

    ok: Literal[True] = True
    images: int = Field(description="with two readings or more")
    agreed: int
    settled: int
    unfinished: int = Field(description="neither settled nor disputed, with a reading that is not finished")
    readers: list[ReaderSchema]
    agreement: AgreementSchema
    queue: list[DisputedSchema] = Field(description="disputed and not settled, oldest first")
