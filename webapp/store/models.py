"""The tables. A change here needs a migration in `migrations/versions`; a test compares the two."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

CASCADE = "all, delete-orphan"


class Base(DeclarativeBase):
    """The base class of the tables."""


class PredictionRow(Base):
    """One analysed radiograph. Times are seconds since 1970, UTC."""

    __tablename__ = "predictions"
    __table_args__ = (Index("ux_predictions_idempotency", "owner", "idempotency_key", unique=True),)

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[float] = mapped_column(index=True)
    owner: Mapped[str] = mapped_column(index=True)
    finding: Mapped[str] = mapped_column(index=True)
    confidence: Mapped[float | None]
    height: Mapped[int]
    width: Mapped[int]
    model: Mapped[str]
    model_sha256: Mapped[str | None]
    input_sha256: Mapped[str]
    result_sha256: Mapped[str]
    calibrated: Mapped[bool]
    operating_score: Mapped[float]
    possible_score: Mapped[float]
    latency_ms: Mapped[dict[str, float]] = mapped_column(JSON)
    idempotency_key: Mapped[str | None]
    # Whether it looked like a radiograph of a limb, None where nobody asked: results of before have none.
    limb_probability: Mapped[float | None]
    suitability: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    # Of a picture of more than 8 bits: how many, and the samples that are 0 and 255 in its 8 bits.
    bits: Mapped[int | None]
    window: Mapped[list[float] | None] = mapped_column(JSON(none_as_null=True))
    # Height and width of a pixel, and where that was measured, None where the file did not say.
    spacing_mm: Mapped[list[float] | None] = mapped_column(JSON(none_as_null=True))
    spacing_kind: Mapped[str | None]
    # What the types of its boxes are, None where the detector told none; from which probability on it names a type, and
    # how often that is right, as it said then.
    type_names: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    type_confidence: Mapped[float | None]
    type_accuracy: Mapped[float | None]
    # Values of its picture for the watch (fracture_det/monitoring/features.py), None in results of before.
    features: Mapped[dict[str, float] | None] = mapped_column(JSON(none_as_null=True))
    detections: Mapped[list[DetectionRow]] = relationship(
        order_by="DetectionRow.number", cascade=CASCADE, passive_deletes=True, lazy="selectin"
    )
    readings: Mapped[list[ReadingRow]] = relationship(
        order_by="ReadingRow.author", cascade=CASCADE, passive_deletes=True, lazy="selectin"
    )
    settlement: Mapped[SettlementRow | None] = relationship(cascade=CASCADE, passive_deletes=True, lazy="selectin")
    # The name of the detector's version, None where it did not come from a registry.
    model_version: Mapped[str | None]


class DetectionRow(Base):
    """One box; `number` counts from 1, highest score first. types: a probability for each of `type_names`."""

    __tablename__ = "detections"

    prediction_id: Mapped[str] = mapped_column(ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    x0: Mapped[float]
    y0: Mapped[float]
    x1: Mapped[float]
    y1: Mapped[float]
    score: Mapped[float]
    label: Mapped[str]
    types: Mapped[list[float] | None] = mapped_column(JSON(none_as_null=True))


class ReadingColumns:
    """What a reader, or an adjudicator, says of a result; see `Reading`. Boxes are x0, y0, x1, y1 px.

    Verdicts, types and moved go by the number of the box; missed_types has one type or None for each missed fracture.
    types, missed_types, moved and seconds are None in readings of before.
    """

    updated_at: Mapped[float] = mapped_column(index=True)
    verdicts: Mapped[dict[str, str]] = mapped_column(JSON)
    missed: Mapped[list[list[float]]] = mapped_column(JSON)
    no_fracture: Mapped[bool]
    comment: Mapped[str] = mapped_column(Text)
    types: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    missed_types: Mapped[list[str | None] | None] = mapped_column(JSON(none_as_null=True))
    moved: Mapped[dict[str, list[float]] | None] = mapped_column(JSON(none_as_null=True))
    unreadable: Mapped[bool]
    reason: Mapped[str] = mapped_column(Text)
    seconds: Mapped[float | None]
    author: Mapped[str]


class ReadingRow(ReadingColumns, Base):
    """The latest reading of a result by one reader."""

    __tablename__ = "readings"

    prediction_id: Mapped[str] = mapped_column(ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True)
    author: Mapped[str] = mapped_column(primary_key=True)


class SettlementRow(ReadingColumns, Base):
    """What an adjudicator has decided of a result, whatever its readers say."""

    __tablename__ = "settlements"

    prediction_id: Mapped[str] = mapped_column(ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True)
    author: Mapped[str]


class ShadowRow(Base):
    """What the version that ran in the shadow said of a result. boxes: x0, y0, x1, y1 px, score, label of each."""

    __tablename__ = "shadow_answers"

    prediction_id: Mapped[str] = mapped_column(ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[float]
    model: Mapped[str]
    model_sha256: Mapped[str | None]
    finding: Mapped[str]
    confidence: Mapped[float | None]
    operating_score: Mapped[float]
    possible_score: Mapped[float]
    calibrated: Mapped[bool]
    boxes: Mapped[list[list[Any]]] = mapped_column(JSON)


class WatchDayRow(Base):
    """Counts of the expired results of one day (YYYY-MM-DD, UTC) and detector ("" where it has no hash)."""

    __tablename__ = "watch_days"

    day: Mapped[str] = mapped_column(primary_key=True)
    model_sha256: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    counts: Mapped[dict[str, Any]] = mapped_column(JSON)


class UserRow(Base):
    """A user. `stamp` changes with the password, which ends the sessions started before."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    password_hash: Mapped[str]
    stamp: Mapped[str]
    created_at: Mapped[float]


class TokenRow(Base):
    """An API token: the part before its dot is `id`; of the rest only the hash is stored."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(primary_key=True)
    user: Mapped[str] = mapped_column(ForeignKey("users.name", ondelete="CASCADE"), index=True)
    secret_hash: Mapped[str]
    label: Mapped[str]
    created_at: Mapped[float]


class AuditRow(Base):
    """One line of the audit log; `hash` covers the other columns and the `hash` of the line before.

    It is an HMAC by the key named in `key`, or of before there were keys, without one, a SHA-256.
    """

    __tablename__ = "audit"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[str]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str | None]
    input_sha256: Mapped[str | None]
    model_sha256: Mapped[str | None]
    result_sha256: Mapped[str | None]
    hash: Mapped[str]
    key: Mapped[str | None]


class PacsStudyRow(Base):
    """A study of which a peer has sent objects. `version` counts its answers; `due_at` is when the next one is made.

    content_sha256: of what the newest answer says. feedback_at: time of the newest feedback that it holds.
    """

    __tablename__ = "pacs_studies"

    id: Mapped[str] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(unique=True)
    source: Mapped[str]
    created_at: Mapped[float]
    due_at: Mapped[float | None] = mapped_column(index=True)
    version: Mapped[int]
    content_sha256: Mapped[str | None]
    feedback_at: Mapped[float | None]
    attempts: Mapped[int]
    problem: Mapped[str | None]


class PacsObjectRow(Base):
    """One received object, waiting, done or failed; its file is in the spool, named by `id`, until it expires."""

    __tablename__ = "pacs_objects"

    id: Mapped[str] = mapped_column(primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("pacs_studies.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(unique=True)
    sop_class_uid: Mapped[str]
    sha256: Mapped[str]
    size: Mapped[int]
    received_at: Mapped[float] = mapped_column(index=True)
    state: Mapped[str] = mapped_column(index=True)
    attempts: Mapped[int]
    next_at: Mapped[float]
    problem: Mapped[str | None]
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    prediction_id: Mapped[str | None] = mapped_column(index=True)
    kept: Mapped[bool]


class PacsDeliveryRow(Base):
    """One output for one destination, waiting, sent or failed. `control` identifies it to the destination."""

    __tablename__ = "pacs_deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    study_id: Mapped[str | None] = mapped_column(ForeignKey("pacs_studies.id"), index=True)
    version: Mapped[int]
    destination: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    control: Mapped[str] = mapped_column(index=True)
    state: Mapped[str] = mapped_column(index=True)
    attempts: Mapped[int]
    refusals: Mapped[int]
    next_at: Mapped[float]
    created_at: Mapped[float]
    sent_at: Mapped[float | None]
    problem: Mapped[str | None]
