"""What the queue beside a PACS holds, for status, metrics and health, and what was given up, to be tried again."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from .audit import AuditEntry, AuditLog
from .database import Database
from .models import PacsDeliveryRow, PacsObjectRow, PacsStudyRow
from .pacs import DONE, FAILED, SENT, WAITING, DeadLetter


@dataclass(frozen=True)
class QueueStatus:
    """Counts by state; ages in seconds of the oldest that waits, 0 without any."""

    objects: dict[str, int]
    deliveries: dict[tuple[str, str], int]
    studies_due: int
    studies_answered: int
    oldest_object_s: float
    oldest_delivery_s: float


class PacsStatus:
    """What the queue in `database` holds. Raises StoreUnavailable."""

    def __init__(self, database: Database, audit: AuditLog) -> None:
        self._database, self._audit = database, audit

    def status(self) -> QueueStatus:
        """Return the counts and ages of now."""
        with self._database.reading() as session:
            objects = dict.fromkeys((WAITING, DONE, FAILED), 0)
            objects |= dict(_rows(session, select(PacsObjectRow.state, func.count()).group_by(PacsObjectRow.state)))
            columns = (PacsDeliveryRow.destination, PacsDeliveryRow.state)
            deliveries = {
                (destination, state): count
                for destination, state, count in _rows(session, select(*columns, func.count()).group_by(*columns))
            }
            return QueueStatus(
                objects=objects,
                deliveries=deliveries,
                studies_due=session.scalar(select(func.count()).where(PacsStudyRow.due_at.is_not(None))) or 0,
                studies_answered=session.scalar(select(func.count()).where(PacsStudyRow.version > 0)) or 0,
                oldest_object_s=_age(session, PacsObjectRow.received_at, PacsObjectRow.state),
                oldest_delivery_s=_age(session, PacsDeliveryRow.created_at, PacsDeliveryRow.state),
            )

    def dead_letters(self) -> list[DeadLetter]:
        """Return everything that was given up."""
        with self._database.reading() as session:
            objects = session.scalars(select(PacsObjectRow).where(PacsObjectRow.state == FAILED))
            letters = [DeadLetter(row.id, "object", row.attempts, row.problem or "") for row in objects]
            given_up = (PacsStudyRow.due_at.is_(None), PacsStudyRow.problem.is_not(None))
            studies = session.scalars(select(PacsStudyRow).where(*given_up))
            letters += [DeadLetter(row.id, "answer", row.attempts, row.problem or "") for row in studies]
            deliveries = session.scalars(select(PacsDeliveryRow).where(PacsDeliveryRow.state == FAILED))
            letters += [
                DeadLetter(row.id, f"{row.kind} to {row.destination}", row.attempts, row.problem or "")
                for row in deliveries
            ]
            return letters

    def retry(self, identifier: str | None, *, by: str) -> int:
        """Put what was given up into the queue again: one, or everything; return how many."""
        chosen = [letter for letter in self.dead_letters() if identifier in (None, letter.id)]
        now = time.time()
        for letter in chosen:
            with self._database.writing() as session:
                if letter.what == "object":
                    row = session.get_one(PacsObjectRow, letter.id)
                    row.state, row.attempts, row.next_at = WAITING, 0, now
                    session.get_one(PacsStudyRow, row.study_id).due_at = now
                elif letter.what == "answer":
                    study = session.get_one(PacsStudyRow, letter.id)
                    study.due_at, study.attempts, study.problem = now, 0, None
                else:
                    delivery = session.get_one(PacsDeliveryRow, letter.id)
                    delivery.state, delivery.attempts, delivery.refusals = WAITING, 0, 0
                    delivery.next_at = delivery.created_at = now
                self._audit.add(session, AuditEntry(by, f"retry {letter.what}", letter.id))
        return len(chosen)

    def prediction_of(self, identifier: str) -> str | None:
        """Return the result of an object, named by its identifier in the queue or its SOP instance UID."""
        names = (PacsObjectRow.id == identifier) | (PacsObjectRow.sop_instance_uid == identifier)
        with self._database.reading() as session:
            return session.scalars(select(PacsObjectRow.prediction_id).where(names)).first()

    def origins(self) -> dict[str, tuple[str, str | None]]:
        """Return of each result from the PACS its study, and its object while the file of that is kept.

        Both are identifiers of the queue: random, and not the UIDs of a hospital.
        """
        columns = (PacsObjectRow.prediction_id, PacsObjectRow.study_id, PacsObjectRow.id, PacsObjectRow.kept)
        with self._database.reading() as session:
            rows = _rows(session, select(*columns).where(PacsObjectRow.prediction_id.is_not(None)))
            return {result: (study, identifier if kept else None) for result, study, identifier, kept in rows}

    def unsent(self) -> int:
        """Return how many outputs wait for their destinations."""
        with self._database.reading() as session:
            return session.scalar(select(func.count()).where(PacsDeliveryRow.state.not_in((SENT, FAILED)))) or 0


def _rows(session: Session, chosen):  # type: ignore[no-untyped-def]
    return [tuple(row) for row in session.execute(chosen)]


def _age(session: Session, since, state) -> float:  # type: ignore[no-untyped-def]
    first = session.scalar(select(func.min(since)).where(state == WAITING))
    return 0.0 if first is None else max(0.0, time.time() - first)
