"""The durable queue of the node beside a PACS: received objects, studies to answer, and outputs to deliver."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session

from fracture_det.structures.readings import Reading

from .audit import PACS, AuditEntry, AuditLog
from .database import Database
from .models import PacsDeliveryRow, PacsObjectRow, PacsStudyRow, PredictionRow, ReadingRow, SettlementRow
from .records import newest_reading
from .spool import Spool

WAITING, DONE, SENT, FAILED = "waiting", "done", "sent", "failed"
# What `receive` says of an object: it is new, was received before, or differs from what was received under its UID.
NEW, AGAIN, CHANGED = "new", "again", "changed"
DAY_S = 86_400.0


@dataclass(frozen=True)
class Received:
    """What identifies an object that was received. sha256: of its dataset as it was encoded."""

    study_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    sha256: str
    size: int


@dataclass(frozen=True)
class QueuedObject:
    """A received object. `result` is what was said of it, None while it waits or after it failed."""

    id: str
    study_id: str
    sop_instance_uid: str
    sop_class_uid: str
    sha256: str
    state: str
    attempts: int
    received_at: float
    path: Path
    result: Mapping[str, Any] | None
    prediction_id: str | None
    problem: str | None


@dataclass(frozen=True)
class DueStudy:
    """A study of which every object is done or failed, with what is to be passed on of its readings, by object.

    feedback_at: when somebody last said something of it, passed on or not.
    """

    id: str
    uid: str
    source: str
    version: int
    content_sha256: str | None
    attempts: int
    objects: tuple[QueuedObject, ...]
    feedback: Mapping[str, Reading]
    feedback_at: float | None


@dataclass(frozen=True)
class Output:
    """One output for one destination. control: what identifies it there, a SOP instance UID or a message's ID."""

    destination: str
    kind: str
    control: str
    content: bytes


@dataclass(frozen=True)
class Delivery:
    """An output that waits for its destination."""

    id: str
    destination: str
    kind: str
    control: str
    attempts: int
    refusals: int
    created_at: float
    path: Path


@dataclass(frozen=True)
class DeadLetter:
    """What was given up: an object, the answer of a study or a delivery. `what` has no names or UIDs."""

    id: str
    what: str
    attempts: int
    problem: str


class PacsQueue:
    """The queue in `database`, its files in `folder`. Thread-safe, for one process. Raises StoreUnavailable."""

    def __init__(self, database: Database, audit: AuditLog, folder: Path) -> None:
        self._database, self._audit = database, audit
        self.spool = Spool(folder)

    # Objects

    def receive(self, path: Path, received: Received, *, source: str, quiet_s: float) -> str:
        """Take the file of an object into the queue; return NEW, AGAIN or CHANGED. On NEW it is on the disk.

        quiet_s: its study is answered when nothing more of it has come for so long.
        """
        same_uid = PacsObjectRow.sop_instance_uid == received.sop_instance_uid
        identifier, now = secrets.token_hex(16), time.time()
        with self._database.reading() as session:
            known = session.scalars(select(PacsObjectRow.sha256).where(same_uid)).first()
        if known is not None:
            return AGAIN if known == received.sha256 else CHANGED
        self.spool.take(path, identifier)
        is_taken = False
        try:
            with self._database.writing() as session:
                known = session.scalars(select(PacsObjectRow.sha256).where(same_uid)).first()
                if known is not None:
                    return AGAIN if known == received.sha256 else CHANGED
                study = _study(session, received.study_uid, source, now)
                study.due_at = now + quiet_s
                session.add(_object_row(identifier, study.id, received, now))
                self._audit.add(session, AuditEntry(PACS, "receive", identifier, received.sha256))
            is_taken = True
        finally:
            if not is_taken:
                self.spool.discard(self.spool.object_path(identifier))
        return NEW

    def knows(self, sop_instance_uids: Collection[str]) -> set[str]:
        """Return those SOP instance UIDs of which an object was received."""
        chosen = select(PacsObjectRow.sop_instance_uid).where(PacsObjectRow.sop_instance_uid.in_(sop_instance_uids))
        with self._database.reading() as session:
            return set(session.scalars(chosen))

    def holds(self, sop_instance_uid: str, sop_class_uid: str) -> bool:
        """Return whether the object is in the spool, for storage commitment."""
        chosen = select(PacsObjectRow).where(
            PacsObjectRow.sop_instance_uid == sop_instance_uid, PacsObjectRow.sop_class_uid == sop_class_uid
        )
        with self._database.reading() as session:
            row = session.scalars(chosen).first()
            return row is not None and row.kept and self.spool.object_path(row.id).exists()

    def is_own(self, sop_instance_uid: str) -> bool:
        """Return whether an object is an output of this node, which comes back to it."""
        chosen = select(PacsDeliveryRow.id).where(PacsDeliveryRow.control == sop_instance_uid)
        with self._database.reading() as session:
            return session.scalars(chosen).first() is not None

    def waiting_objects(self, limit: int, *, but: Collection[str]) -> list[QueuedObject]:
        """Return objects to analyse now, oldest first, without those in `but`."""
        is_due = and_(PacsObjectRow.state == WAITING, PacsObjectRow.next_at <= time.time())
        chosen = select(PacsObjectRow).where(is_due, PacsObjectRow.id.not_in(but))
        with self._database.reading() as session:
            rows = session.scalars(chosen.order_by(PacsObjectRow.received_at).limit(limit))
            return [self._object(row) for row in rows]

    def finish_object(self, identifier: str, result: Mapping[str, Any], prediction_id: str | None) -> None:
        """Record what is said of an object."""
        with self._database.writing() as session:
            row = session.get_one(PacsObjectRow, identifier)
            row.state, row.result, row.prediction_id, row.problem = DONE, dict(result), prediction_id, None
            if prediction_id is None:  # an analysis has a line of its own
                self._audit.add(session, AuditEntry(PACS, "do not analyse", identifier, row.sha256))

    def fail_object(self, identifier: str, problem: str, *, pause_s: float | None) -> None:
        """Try an object again after a pause, or give it up where that is None."""
        with self._database.writing() as session:
            row = session.get_one(PacsObjectRow, identifier)
            row.attempts, row.problem = row.attempts + 1, problem
            row.next_at = time.time() + (pause_s or 0)
            if pause_s is None:
                row.state = FAILED
                self._audit.add(session, AuditEntry(PACS, "give up object", identifier, row.sha256))

    # Studies

    def due_studies(self, limit: int) -> list[DueStudy]:
        """Return studies to answer now: due, with no object waiting."""
        waits = exists().where(PacsObjectRow.study_id == PacsStudyRow.id, PacsObjectRow.state == WAITING)
        chosen = select(PacsStudyRow).where(PacsStudyRow.due_at <= time.time(), ~waits)
        with self._database.reading() as session:
            rows = session.scalars(chosen.order_by(PacsStudyRow.due_at).limit(limit))
            return [self._due_study(session, row) for row in rows]

    def call_for_feedback(self) -> int:
        """Make studies due of whose answer a reader has said more since; return how many."""
        later = (
            exists().where(
                PacsObjectRow.study_id == PacsStudyRow.id,
                said.prediction_id == PacsObjectRow.prediction_id,
                said.updated_at > func.coalesce(PacsStudyRow.feedback_at, 0.0),
            )
            for said in (ReadingRow, SettlementRow)
        )
        chosen = select(PacsStudyRow).where(PacsStudyRow.version > 0, PacsStudyRow.due_at.is_(None), or_(*later))
        with self._database.reading() as session:
            identifiers = [row.id for row in session.scalars(chosen)]
        if identifiers:
            with self._database.writing() as session:
                for identifier in identifiers:
                    session.get_one(PacsStudyRow, identifier).due_at = time.time()
        return len(identifiers)

    def answer(self, study: DueStudy, content_sha256: str, outputs: Sequence[Output]) -> bool:
        """Put the outputs of a study's next version into the queue, all or none, unless the study has changed since.

        Without outputs there is no new version: what there is to say was said.
        """
        files: list[str] = []
        now, is_answered = time.time(), False
        try:
            for output in outputs:
                files.append(self.spool.write_output(output.content))
            with self._database.writing() as session:
                row = session.get_one(PacsStudyRow, study.id)
                if row.version != study.version or self._count_objects(session, study.id) != len(study.objects):
                    return False
                row.due_at, row.attempts, row.problem = None, 0, None
                row.feedback_at = row.feedback_at if study.feedback_at is None else study.feedback_at
                row.content_sha256 = content_sha256
                if outputs:
                    row.version += 1
                    session.add_all(
                        _delivery_row(identifier, study.id, row.version, output, now + 1e-5 * place)  # in their order
                        for place, (identifier, output) in enumerate(zip(files, outputs, strict=True))
                    )
                    entry = AuditEntry(PACS, "answer", f"{study.id}/{row.version}", result_sha256=content_sha256)
                    self._audit.add(session, entry)
            is_answered = True
        finally:
            if not is_answered:
                for identifier in files:
                    self.spool.discard(self.spool.output_path(identifier))
        return is_answered

    def fail_study(self, identifier: str, problem: str, *, pause_s: float | None) -> None:
        """Try to answer a study again after a pause, or give it up where that is None."""
        with self._database.writing() as session:
            row = session.get_one(PacsStudyRow, identifier)
            row.attempts, row.problem = row.attempts + 1, problem
            row.due_at = None if pause_s is None else time.time() + pause_s
            if pause_s is None:
                self._audit.add(session, AuditEntry(PACS, "give up answer", identifier))

    # Deliveries

    def add_delivery(self, output: Output) -> None:
        """Put an output that answers no study into the queue, such as that of storage commitment."""
        identifier = self.spool.write_output(output.content)
        try:
            with self._database.writing() as session:
                session.add(_delivery_row(identifier, None, 0, output, time.time()))
        except BaseException:
            self.spool.discard(self.spool.output_path(identifier))
            raise

    def waiting_deliveries(self, destination: str, limit: int) -> list[Delivery]:
        """Return what is to be sent to a destination now, oldest first."""
        is_due = and_(PacsDeliveryRow.state == WAITING, PacsDeliveryRow.next_at <= time.time())
        chosen = select(PacsDeliveryRow).where(is_due, PacsDeliveryRow.destination == destination)
        with self._database.reading() as session:
            rows = session.scalars(chosen.order_by(PacsDeliveryRow.created_at, PacsDeliveryRow.id).limit(limit))
            return [self._delivery(row) for row in rows]

    def delivered(self, identifier: str) -> None:
        """Record that a destination has taken an output, and delete its file."""
        with self._database.writing() as session:
            row = session.get_one(PacsDeliveryRow, identifier)
            row.state, row.sent_at, row.problem = SENT, time.time(), None
            row.attempts += 1
            self._audit.add(session, AuditEntry(PACS, f"send {row.kind} to {row.destination}", identifier))
        self.spool.discard(self.spool.output_path(identifier))

    def fail_delivery(self, identifier: str, problem: str, *, pause_s: float | None, refused: bool) -> None:
        """Try an output again after a pause, or give it up where that is None."""
        with self._database.writing() as session:
            row = session.get_one(PacsDeliveryRow, identifier)
            row.attempts, row.problem, row.refusals = row.attempts + 1, problem, row.refusals + refused
            row.next_at = time.time() + (pause_s or 0)
            if pause_s is None:
                row.state = FAILED
                self._audit.add(session, AuditEntry(PACS, f"give up {row.kind} to {row.destination}", identifier))

    # Keeping

    def sweep(self, keep_days: float) -> None:
        """Delete the files of objects that were received so long ago and are answered, and files without a row."""
        is_old = and_(PacsObjectRow.received_at < time.time() - keep_days * DAY_S, PacsObjectRow.kept)
        with self._database.reading() as session:
            chosen = select(PacsObjectRow.id).join(PacsStudyRow, PacsStudyRow.id == PacsObjectRow.study_id)
            expired = list(session.scalars(chosen.where(is_old, PacsObjectRow.state == DONE, PacsStudyRow.version > 0)))
        for identifier in expired:
            with self._database.writing() as session:
                session.get_one(PacsObjectRow, identifier).kept = False
                self._audit.add(session, AuditEntry(PACS, "delete object", identifier))
            self.spool.discard(self.spool.object_path(identifier))
        with self._database.reading() as session:
            objects = set(session.scalars(select(PacsObjectRow.id).where(PacsObjectRow.kept)))
            outputs = set(session.scalars(select(PacsDeliveryRow.id).where(PacsDeliveryRow.state != SENT)))
        self.spool.sweep(objects, outputs)

    def _object(self, row: PacsObjectRow) -> QueuedObject:
        names = ("id", "study_id", "sop_instance_uid", "sop_class_uid", "sha256", "state", "attempts", "received_at")
        shared = {name: getattr(row, name) for name in (*names, "result", "prediction_id", "problem")}
        return QueuedObject(**shared, path=self.spool.object_path(row.id))

    def _due_study(self, session: Session, row: PacsStudyRow) -> DueStudy:
        chosen = select(PacsObjectRow).where(PacsObjectRow.study_id == row.id)
        objects = tuple(map(self._object, session.scalars(chosen.order_by(PacsObjectRow.sop_instance_uid))))
        feedback, times = {}, []
        for known in objects:
            result = None if known.prediction_id is None else session.get(PredictionRow, known.prediction_id)
            if result is None or (passed_on := newest_reading(result)) is None:
                continue
            feedback[known.id] = passed_on
            times += [passed_on.updated_at, *(reading.updated_at for reading in result.readings)]
        shared = (row.id, row.uid, row.source, row.version, row.content_sha256, row.attempts)
        return DueStudy(*shared, objects, feedback, max(times, default=None))

    def _delivery(self, row: PacsDeliveryRow) -> Delivery:
        shared = (row.id, row.destination, row.kind, row.control, row.attempts, row.refusals, row.created_at)
        return Delivery(*shared, self.spool.output_path(row.id))

    @staticmethod
    def _count_objects(session: Session, study_id: str) -> int:
        return session.scalar(select(func.count()).where(PacsObjectRow.study_id == study_id)) or 0


def _study(session: Session, uid: str, source: str, now: float) -> PacsStudyRow:
    study = session.scalars(select(PacsStudyRow).where(PacsStudyRow.uid == uid)).first()
    if study is None:
        study = PacsStudyRow(
            id=secrets.token_hex(16), uid=uid, source=source, created_at=now, due_at=None, version=0, attempts=0
        )
        session.add(study)
        session.flush()
    return study


def _object_row(identifier: str, study_id: str, received: Received, now: float) -> PacsObjectRow:
    return PacsObjectRow(
        id=identifier,
        study_id=study_id,
        sop_instance_uid=received.sop_instance_uid,
        sop_class_uid=received.sop_class_uid,
        sha256=received.sha256,
        size=received.size,
        received_at=now,
        state=WAITING,
        attempts=0,
        next_at=now,
        kept=True,
    )


def _delivery_row(identifier: str, study_id: str | None, version: int, output: Output, now: float) -> PacsDeliveryRow:
    return PacsDeliveryRow(
        id=identifier,
        study_id=study_id,
        version=version,
        destination=output.destination,
        kind=output.kind,
        control=output.control,
        state=WAITING,
        attempts=0,
        refusals=0,
        next_at=now,
        created_at=now,
    )
